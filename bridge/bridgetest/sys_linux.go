package bridgetest

import "syscall"

// sysProcAttr makes a child of ours run as credential (nil: as ourselves), in a process group of its own so that Ctrl-C reaches only us,
// and end with an immediate shutdown when we end, however that happens.
func sysProcAttr(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: credential, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
}
