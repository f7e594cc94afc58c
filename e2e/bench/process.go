package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A process is a server under measurement: a process of its own, which ends when this one does.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}

	mu    sync.Mutex
	lines []string // of its standard error
	more  chan struct{}
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, exited: make(chan struct{}), more: make(chan struct{}, 1)}
	output, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = input, input
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// Linux sends Pdeathsig when the thread that forked ends, so that thread waits here for the program.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		input.Close()
		started <- err
		if err == nil {
			cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	go p.read(output)
	return p, nil
}

func (p *process) read(output io.ReadCloser) {
	defer output.Close()
	for scanner := bufio.NewScanner(output); scanner.Scan(); {
		p.mu.Lock()
		if len(p.lines) < 1000 {
			p.lines = append(p.lines, scanner.Text())
		}
		p.mu.Unlock()
		select {
		case p.more <- struct{}{}:
		default:
		}
	}
}

// announced waits for a line of JSON with this member.
func (p *process) announced(member string) (map[string]string, error) {
	timeout := time.After(20 * time.Second)
	for {
		p.mu.Lock()
		lines := p.lines
		p.mu.Unlock()
		for _, line := range lines {
			members := map[string]any{}
			if json.Unmarshal([]byte(line), &members) == nil && members[member] != nil {
				texts := map[string]string{}
				for name, value := range members {
					texts[name] = fmt.Sprint(value)
				}
				return texts, nil
			}
		}
		select {
		case <-p.more:
		case <-p.exited:
			return nil, fmt.Errorf("%s ended:\n%s", p.cmd, strings.Join(lines, "\n"))
		case <-timeout:
			return nil, fmt.Errorf("%s does not announce its %s:\n%s", p.cmd, member, strings.Join(lines, "\n"))
		}
	}
}

func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		<-p.exited
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// usage is the CPU time and the resident memory of processes with all their descendants.
func usage(roots ...int) (cpu time.Duration, rss int64) {
	children := map[int][]int{}
	ticks := map[int]int64{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		parent, spent, err := readStat(pid)
		if err != nil {
			continue // it has ended
		}
		ticks[pid] = spent
		children[parent] = append(children[parent], pid)
	}
	var total int64
	for todo := roots; len(todo) > 0; {
		pid := todo[0]
		todo = append(todo[1:], children[pid]...)
		total += ticks[pid]
		rss += memory(pid, "VmRSS")
	}
	return time.Duration(total) * (time.Second / ticksPerSecond), rss
}

const ticksPerSecond = 100 // USER_HZ of every Linux that Go runs on

// readStat returns the parent of a process, and its user and system time with that of children that it has waited for (proc(5)).
func readStat(pid int) (parent int, ticks int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 15 {
		return 0, 0, errors.New("/proc/PID/stat is not as proc(5) says")
	}
	parent, _ = strconv.Atoi(string(fields[1]))
	for _, field := range fields[11:15] {
		n, _ := strconv.ParseInt(string(field), 10, 64)
		ticks += n
	}
	return parent, ticks, nil
}

// memory is a line of /proc/PID/status, in bytes: VmRSS is what is in memory, RssAnon that of it which is no page of a file.
func memory(pid int, line string) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for status := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(status, line+":"); found {
			kilobytes, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kilobytes << 10
		}
	}
	return 0
}
