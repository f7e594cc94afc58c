package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// insideVariable is set in the run that runInNamespaces starts, to what it was given.
const insideVariable = "OIDC_BRIDGE_E2E_INSIDE"

// runInNamespaces runs the calling test once more, with a network and mounts of its own. There every port is free and a host name means what
// we say, as in a network of containers. It takes root, or a kernel that lets everybody have user namespaces.
func runInNamespaces(t *testing.T, inside string) {
	t.Helper()
	args := []string{"--net", "--mount"}
	if os.Getuid() != 0 {
		args = append(args, "--user", "--map-current-user", "--keep-caps")
	}
	cmd := exec.Command("unshare", append(args, os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "DATABASE_URL=") }) // it is out of reach there
	cmd.Env = append(cmd.Env, insideVariable+"="+inside)
	<-start(t, cmd).exited
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code) // start shows the output
	}
}

// setHosts starts the network of this namespace: it has this machine alone, under all these names.
func setHosts(t *testing.T, names ...string) {
	t.Helper()
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	hosts := filepath.Join(t.TempDir(), "hosts")
	writeFile(t, hosts, hostsFile(append(names, own)))
	if err := syscall.Mount(hosts, "/etc/hosts", "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(socket)
	request := struct { // ifreq, netdevice(7)
		name  [16]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP | syscall.IFF_RUNNING}
	copy(request.name[:], "lo")
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatal(errno)
	}
}

func hostsFile(names []string) string {
	return "127.0.0.1 localhost " + strings.Join(names, " ") + "\n"
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// forward hands connections at a port of this machine on, until the test ends.
func forward(t *testing.T, port uint32, network, address string) {
	t.Helper()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer from.Close()
				to, err := net.Dial(network, address)
				if err != nil {
					return // the caller sees a connection that ends
				}
				defer to.Close()
				go func() {
					io.Copy(to, from)
					to.Close()
				}()
				io.Copy(from, to)
			}()
		}
	}()
}
