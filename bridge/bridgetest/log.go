package bridgetest

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// Log collects log lines and shows them with the test's own output. It is an io.Writer that takes one line per call, as the handlers of
// log/slog write them, from any goroutine, also after the test has ended.
type Log struct {
	mu    sync.Mutex
	lines []string
	t     testing.TB // nil once the test has ended: writing to it would panic
}

// NewLog returns an empty log of the test.
func NewLog(t testing.TB) *Log {
	l := &Log{t: t}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.t = nil
	})
	return l
}

// Logger returns a logger that writes key=value lines of all levels to the log.
func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *Log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSuffix(string(line), "\n")
	l.lines = append(l.lines, text)
	if l.t != nil {
		l.t.Log(text)
	}
	return len(line), nil
}

// Lines returns the lines so far.
func (l *Log) Lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

// Contains tells whether a text occurs in the lines so far.
func (l *Log) Contains(text string) bool {
	return strings.Contains(strings.Join(l.Lines(), "\n"), text)
}
