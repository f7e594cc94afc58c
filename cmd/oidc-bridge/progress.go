package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const barWidth = 30 // characters; the line stays below 80

// A progress shows a person at a terminal how far a run over many rows is, once that takes longer than a second.
type progress struct {
	w       io.Writer // nil: nobody looks
	total   int
	what    string // identities, sessions
	done    int
	started time.Time
	shown   time.Time
	visible bool
	now     func() time.Time
}

func newProgress(w io.Writer, total int, what string, now func() time.Time) *progress {
	p := &progress{total: total, what: what, started: now(), now: now}
	if w = rawStream(w); isTerminal(w) {
		p.w = w
	}
	return p
}

// step counts one. The clock is looked at for some of them only.
func (p *progress) step() {
	if p.done++; p.done%256 == 0 {
		p.reached(p.done)
	}
}

// reached says how many there are by now.
func (p *progress) reached(done int) {
	p.done = done
	if p.w == nil {
		return
	}
	now := p.now()
	if now.Sub(p.started) < time.Second || now.Sub(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown, p.visible = now, true
	total := max(p.total, p.done, 1)
	full := barWidth * p.done / total
	fmt.Fprintf(p.w, "\r[%s%s] %d %%, %d of %d %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), 100*p.done/total, p.done, total, p.what)
}

// clear takes the line away, before something else is written and at the end.
func (p *progress) clear() {
	if p.visible {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.visible = false
	}
}

// isTerminal reports whether a person is at the other end.
func isTerminal(stream any) bool {
	file, isFile := stream.(*os.File)
	if !isFile || file == nil {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // as cron and systemd give it, where it is called /dev/stdin
	return err == nil && !os.SameFile(info, null)
}
