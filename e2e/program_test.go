package e2e

import (
	"bytes"
	"errors"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A program is a process under test.
type program struct {
	cmd    *exec.Cmd
	output *output
	exited chan struct{}
}

// start runs cmd until the test ends. When the test has failed by then, its log shows what the program wrote.
func start(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{cmd: cmd, output: &output{}, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("%s:\n%s", cmd, p.output)
		}
	})
	return p
}

// stop asks the program to end, as systemd and Kubernetes do, and returns its exit code.
func (p *program) stop(t *testing.T) int {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s is still running 10 s after SIGTERM", p.cmd)
	}
	return p.cmd.ProcessState.ExitCode()
}

// await calls check until it returns nil.
func (p *program) await(t *testing.T, check func() error) {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-p.exited:
			t.Fatalf("%s ended: %v", p.cmd, p.cmd.ProcessState)
		case <-deadline:
			t.Fatalf("%s is not ready after 30 s: %v", p.cmd, err)
		}
	}
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
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
