package main

import (
	"bytes"
	"os"
	"syscall"
	"testing"
	"time"
)

// Nothing for a second, then a line that is written over, and nothing left of it at the end.
func TestProgress(t *testing.T) {
	now := time.Now()
	var out bytes.Buffer
	p := newProgress(os.Stderr, 1000, "identities", func() time.Time { return now })
	p.w = &out
	for range 300 {
		p.step()
	}
	if out.Len() > 0 {
		t.Errorf("within a second: %q", out.String())
	}
	now = now.Add(2 * time.Second)
	for range 300 {
		p.step()
	}
	p.clear()
	p.clear()
	if got, want := out.String(), "\r[###############...............] 51 %, 512 of 1000 identities\r\x1b[K"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Where no person looks, there is no progress.
func TestProgressIsForTerminals(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	handle, err := syscall.Dup(int(null.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	stdin := os.NewFile(uintptr(handle), "/dev/stdin") // the name that os.Stdin has, whatever it is
	defer stdin.Close()
	for _, stream := range []any{null, stdin, file, &bytes.Buffer{}, (*os.File)(nil), nil} {
		if isTerminal(stream) {
			t.Errorf("%v is a terminal", stream)
		}
	}
	now := time.Now()
	p := newProgress(file, 1, "identities", func() time.Time { now = now.Add(time.Hour); return now })
	for range 1000 {
		p.step()
	}
	p.clear()
	if info, err := file.Stat(); err != nil || info.Size() > 0 {
		t.Errorf("%v %v", info, err)
	}
}
