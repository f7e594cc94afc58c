package bridge

import (
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// Requests for the API may be long, so the server's limits for a whole request do not fit them. Slow clients are told by their pace instead
// (HS-01): they may pause for a while, and take their time in proportion to what they send.
const (
	paceGrace = 15 * time.Second // for nothing at all, at the beginning
	pacePause = 15 * time.Second // between two reads of a request's body
	paceRate  = 1 << 10          // bytes a second, on average, past the grace
	paceWrite = 30 * time.Second // for what one write hands to the client: at most 32 KB
)

// A pacedBody is a request's body that ends in an error when its client is too slow.
type pacedBody struct {
	io.ReadCloser
	connection *http.ResponseController
	started    time.Time
	read       int64
	err        error // of the last read
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if b.err == nil { // past its end, the server looks for the client itself
		now := time.Now()
		deadline := b.started.Add(paceGrace + time.Duration(b.read)*time.Second/paceRate)
		if pause := now.Add(pacePause); pause.Before(deadline) {
			deadline = pause
		}
		_ = b.connection.SetReadDeadline(deadline)
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	b.err = err
	return n, err
}

// tooSlow reports whether the client was.
func (b *pacedBody) tooSlow() bool {
	var failed net.Error
	return b != nil && errors.As(b.err, &failed) && failed.Timeout()
}

// A pacedWriter is an answer that breaks off when its client takes too long to read it.
type pacedWriter struct {
	http.ResponseWriter
	connection *http.ResponseController
	set        time.Time // when the deadline was; at the beginning, when the server set its own
}

func (w *pacedWriter) extend() {
	if now := time.Now(); now.Sub(w.set) > time.Second {
		_ = w.connection.SetWriteDeadline(now.Add(paceWrite))
		w.set = now
	}
}

// WriteHeader extends the deadline, since the API may have taken its time.
func (w *pacedWriter) WriteHeader(status int) {
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

func (w *pacedWriter) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
