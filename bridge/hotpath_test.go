//go:build !race

package bridge_test

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// answerSink keeps the status of an answer alone.
type answerSink struct {
	header http.Header
	status int
}

func (a *answerSink) Header() http.Header    { return a.header }
func (a *answerSink) WriteHeader(status int) { a.status = status }
func (a *answerSink) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return len(p), nil
}

// TestHotPathAllocations holds what a request for a token costs in the handler when the replica knows the session (P1), and one with a forged
// cookie (P4). Fewer are fine; more have to be worth it. The race detector allocates, too: so this file is built without it.
func TestHotPathAllocations(t *testing.T) {
	s := newService(t)
	browser, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, browser)
	config := *s.Config
	config.Database.Listen = "on"
	_, rules := load(t, s.Dir+"/config.yaml")
	public, private := listen(t), listen(t)
	r := &replica{service: s, url: "http://" + public.Addr().String(), private: "http://" + private.Addr().String()}
	quiet := slog.New(slog.NewJSONHandler(io.Discard, nil)) // as serve logs by default
	handler := running(t, &config, rules, bridge.Options{Version: "test", Log: quiet, Now: time.Now}, public, private, nil).Public()
	bridgetest.Await(t, "the replica to listen", r.listens)
	for _, test := range []struct {
		path, cookie string
		status       int
		most         float64
	}{
		{"/api_token", cookie.Value, http.StatusOK, 27},
		{"/auth", cookie.Value, http.StatusOK, 24},
		{"/api_token", strings.Repeat("A", len(cookie.Value)), http.StatusUnauthorized, 27},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.RemoteAddr, request.Body = "127.0.0.1:4711", http.NoBody // as a server's request has them
		for name, value := range map[string]string{
			"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "*/*",
			"Cookie": "theme=dark; " + cookie.Name + "=" + test.cookie,
		} {
			request.Header.Set(name, value)
		}
		n := testing.AllocsPerRun(200, func() {
			answer := &answerSink{header: http.Header{}}
			handler.ServeHTTP(answer, request)
			if answer.status != test.status {
				t.Fatalf("%s: %d", test.path, answer.status)
			}
		})
		if n > test.most {
			t.Errorf("%s with %d: %.0f allocations, want at most %.0f", test.path, test.status, n, test.most)
		}
		t.Logf("%s with %d: %.0f allocations", test.path, test.status, n)
	}
}
