package bridge

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// edged serves handlers behind the middleware of every route.
func edged(t *testing.T, log *bridgetest.Log, page, api handler) *httptest.Server {
	t.Helper()
	c := &Config{PublicURL: &url.URL{Scheme: "https", Host: "app.example.com"}}
	pages, err := NewPages(c)
	if err != nil {
		t.Fatal(err)
	}
	m := NewMetrics("test")
	errs := errorWriter{log.Logger(), m, pages}
	r := chi.NewRouter()
	r.Use(edge(c, log.Logger(), m, errs))
	r.Get("/page", errs.page(page))
	r.Get("/api", errs.api(api))
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = slog.NewLogLogger(log.Logger().Handler(), slog.LevelDebug)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// TestAttack_HS04_Panic: a panic costs the request and nothing else. Whoever sent it learns a code; what was half written is seen to be broken.
func TestAttack_HS04_Panic(t *testing.T) {
	t.Parallel()
	const secret = "hunter2 SELECT bridge.users panic.go:7"
	var nothing *Config
	panics := map[string]func(){
		"text": func() { panic(secret) }, "error": func() { panic(errors.New(secret)) }, "value": func() { panic(struct{ A string }{secret}) },
		"nil pointer": func() { _ = nothing.Listen }, "index": func() { _ = []int{}[len(secret)] }, "nil": func() { panic(nil) }, "number": func() { panic(7) }, "abort": func() { panic(http.ErrAbortHandler) },
		"a cause of ours": func() { panic(fmt.Errorf("%w: %s", ErrNoSession, secret)) },
	}
	for name, failing := range panics {
		t.Run(name, func(t *testing.T) {
			bridgetest.Tried(t, 4)
			log := bridgetest.NewLog(t)
			h := func(w http.ResponseWriter, r *http.Request) error {
				if r.URL.RawQuery == "late" {
					_, _ = io.WriteString(w, `{"token": "`)
					_ = http.NewResponseController(w).Flush()
				}
				failing()
				return nil
			}
			server := edged(t, log, h, h)
			for _, path := range []string{"/page", "/api"} {
				response, err := http.Get(server.URL + path)
				if name == "abort" {
					if err == nil {
						t.Errorf("%s: %d", path, response.StatusCode)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(response.Body)
				for _, word := range []string{secret, "hunter2", "goroutine", "runtime", ".go", "nil"} {
					if strings.Contains(string(body), word) {
						t.Errorf("%s says %q: %s", path, word, body)
					}
				}
				id := response.Header.Get("X-Request-Id")
				if response.StatusCode != 500 || response.Header.Get("X-Content-Type-Options") != "nosniff" || response.Header.Get("Cache-Control") != "no-store" || !log.Contains("request="+id) || !log.Contains("msg=panic") {
					t.Errorf("%s: %d %v", path, response.StatusCode, response.Header)
				}
				// A browser or cache that gets half of an answer must not take it for the whole.
				response, err = http.Get(server.URL + path + "?late")
				if err == nil {
					_, err = io.ReadAll(bufio.NewReader(response.Body))
				}
				if err == nil {
					t.Errorf("%s: half an answer looks whole", path)
				}
			}
		})
	}
}

// TestAttack_HS04_Causes: of an error people see the row of its cause, and never what is wrapped around it.
func TestAttack_HS04_Causes(t *testing.T) {
	t.Parallel()
	const secret = `hunter2 <script> ERROR: relation "bridge.users" (SQLSTATE 42P01) main.go:7`
	causes := []error{errors.New(secret), fmt.Errorf("%w: %s", io.ErrUnexpectedEOF, secret), errors.Join(errors.New(secret), io.EOF)}
	for _, row := range publicErrors {
		causes = append(causes, fmt.Errorf("%w: %s", row.cause, secret), fmt.Errorf("%s: %w", secret, row.cause), errors.Join(errors.New(secret), row.cause))
	}
	causes = append(causes, refusal{reason: secret, ref: "ABCD-EFGH"}, refusal{cause: ErrDisabled, reason: secret, ref: "ABCD-EFGH"})
	var cause error
	h := func(http.ResponseWriter, *http.Request) error { return cause }
	log := bridgetest.NewLog(t)
	server := edged(t, log, h, h)
	for _, cause = range causes {
		for _, path := range []string{"/page", "/api"} {
			response, err := http.Get(server.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			for _, word := range []string{"hunter2", "script>", "SQLSTATE", "relation", ".go", "EOF"} {
				if strings.Contains(string(body), word) {
					t.Errorf("%v: %s says %q: %s", cause, path, word, body)
				}
			}
			if want := publicErrorOf(cause).status; response.StatusCode != want || response.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%v: %s: %d, want %d", cause, path, response.StatusCode, want)
			}
		}
	}
	bridgetest.Tried(t, 2*len(causes))
}
