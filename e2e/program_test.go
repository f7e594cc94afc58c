package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout is for a program to be ready. Keycloak takes ten seconds, and a minute on a machine that is busy with other things.
const startTimeout = 3 * time.Minute

// A program is a process under test.
type program struct {
	cmd    *exec.Cmd
	output *output
	exited chan struct{}
}

// start runs cmd until the test ends. When the test has failed by then, its log shows what the program wrote.
func start(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{cmd: cmd, output: &output{changed: make(chan struct{}, 1)}, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// Nothing outlives a test binary that is killed or runs into its timeout.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	go func() {
		// Linux sends Pdeathsig when the thread that forked ends, so that thread waits here for the program.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("%s:\n%s", cmd, p.output)
		}
	})
	return p
}

// announced waits for a line of JSON with this member, and returns its members.
func (p *program) announced(t *testing.T, member string) (members map[string]any) {
	t.Helper()
	p.await(t, member, func(line string) bool {
		members = nil
		return json.Unmarshal([]byte(line), &members) == nil && members[member] != nil
	})
	return members
}

// await waits for a line that will do.
func (p *program) await(t *testing.T, what string, willDo func(line string) bool) {
	t.Helper()
	deadline := time.After(startTimeout)
	for {
		for line := range strings.Lines(p.output.String()) {
			if willDo(line) {
				return
			}
		}
		select {
		case <-p.output.changed:
		case <-p.exited:
			t.Fatalf("%s ended: %v", p.cmd, p.cmd.ProcessState)
		case <-deadline:
			t.Fatalf("%s has not written its %s after %s", p.cmd, what, startTimeout)
		}
	}
}

// stop asks the program to end, as systemd and Kubernetes do, and returns its exit code.
func (p *program) stop(t *testing.T) int {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s is still running 30 s after SIGTERM", p.cmd)
	}
	return p.cmd.ProcessState.ExitCode()
}

// run waits for cmd to end and returns what it wrote, and its exit code.
func run(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// output is what a running program has written so far.
type output struct {
	changed chan struct{} // holds a value when there is something new

	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
