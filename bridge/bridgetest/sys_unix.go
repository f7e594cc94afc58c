//go:build unix && !linux

package bridgetest

import "syscall"

// sysProcAttr makes a child of ours run as credential (nil: as ourselves), in a process group of its own so that Ctrl-C reaches only us.
// When we are killed, PostgreSQL runs on until a later start removes its data folder, which it notices within a minute.
func sysProcAttr(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: credential, Setpgid: true}
}
