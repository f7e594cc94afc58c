package bridge_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestAttack_HS01_SlowClients: connections that send nothing, or a byte now and then, are closed by the server; people log in meanwhile.
func TestAttack_HS01_SlowClients(t *testing.T) {
	t.Parallel()
	s := newService(t)
	address := strings.TrimPrefix(s.URL, "http://")
	const each = 100
	post := "POST /logout HTTP/1.1\r\nHost: x\r\nOrigin: " + s.URL + "\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\nreturn_to="
	hoards := []struct {
		name, first string
		drip        string // goes on being sent
	}{
		{"nothing at all", "", ""},
		{"half a request line", "GET /log", ""},
		{"half the headers", "GET /login HTTP/1.1\r\nHost: x\r\nX-A: ", ""},
		{"headers, a byte at a time", "GET /login HTTP/1.1\r\nHost: x\r\nX-A: ", "a"},
		{"header after header", "GET /login HTTP/1.1\r\nHost: x\r\n", "X-A: b\r\n"},
		{"empty lines", "", "\r\n"},
		{"a body that never comes", post, ""},
		{"a body, a byte at a time", post, "x"},
		{"a second request, half of it", "GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\nGET /login HTTP/1.1\r\nHo", ""},
	}
	var closed sync.WaitGroup
	for _, hoard := range hoards {
		for range each {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			if _, err := io.WriteString(conn, hoard.first); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			closed.Go(func() { // the server ends it: this side never does
				defer close(ended)
				_, _ = io.Copy(io.Discard, conn)
			})
			if hoard.drip != "" {
				closed.Go(func() {
					tick := time.NewTicker(200 * time.Millisecond)
					defer tick.Stop()
					for {
						select {
						case <-ended:
							return
						case <-tick.C:
							_, _ = io.WriteString(conn, hoard.drip)
						}
					}
				})
			}
		}
	}
	for _, subject := range []string{"ada", "carl", "cora"} {
		b, page := s.login(subject, "/orders")
		if answer, _ := s.token(b); page.URL.Path != "/orders" || answer.Status != 200 {
			t.Errorf("%s among slow clients: %d %s", subject, page.Status, page.Text())
		}
	}
	closed.Wait()
	if b, page := s.login("ada", "/orders"); page.URL.Path != "/orders" {
		t.Errorf("after them: %s %v", page.Text(), b.Cookies(s.URL))
	}
	bridgetest.Tried(t, each*len(hoards))
}

// TestAttack_HS01_Limits: what the test above would have to wait too long for.
func TestAttack_HS01_Limits(t *testing.T) {
	t.Parallel()
	server := bridge.NewServer(http.NotFoundHandler(), bridgetest.NewLog(t).Logger())
	for name, limit := range map[string]struct{ got, most time.Duration }{
		"header": {server.ReadHeaderTimeout, 5 * time.Second}, "request": {server.ReadTimeout, 15 * time.Second}, "answer": {server.WriteTimeout, 30 * time.Second}, "idle": {server.IdleTimeout, time.Minute},
	} {
		if limit.got <= 0 || limit.got > limit.most {
			t.Errorf("%s: %s", name, limit.got)
		}
	}
	if server.MaxHeaderBytes <= 0 || server.MaxHeaderBytes > 32<<10 {
		t.Errorf("%d bytes of headers", server.MaxHeaderBytes)
	}
	bridgetest.Tried(t, 5)
}

// TestAttack_HS04_ErrorsTellNothing: what went wrong behind the bridge is for the log. People get a code, programs a word.
func TestAttack_HS04_ErrorsTellNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.warm(t)
	live, _ := s.login("carl", "/")
	told := []string{
		"SQLSTATE", "ERROR", "bridge.", "relation", "column", "constraint", "permission", "pgx", "pq:", "dial", "tcp", "127.0.0.1:5", "connection", "timeout", "EOF", "goroutine", ".go:", "panic", "runtime", "json:", "invalid character",
		"token refused", "go-oidc", "oauth2", "x509", "hunter2", "stack", "database", "userinfo", "/token", "secret-of-the-provider", "Go-http", "version",
	}
	inputs := 0
	silent := func(what string, status int, header http.Header, body string) {
		t.Helper()
		inputs++
		for _, word := range told {
			if strings.Contains(body, word) {
				t.Errorf("%s: the answer says %q: %s", what, word, body)
			}
		}
		if header.Get("Server")+header.Get("X-Powered-By") != "" || header.Get("X-Request-Id") == "" || header.Get("Cache-Control") != "no-store" || status < 400 {
			t.Errorf("%s: %d %v", what, status, header)
		}
	}
	secret := "secret-of-the-provider at pq: bridge.users"
	text := func(status int, contentType, body string) func(b *bridgetest.Behaviour, endpoint string) {
		return func(b *bridgetest.Behaviour, endpoint string) {
			b.Handle[endpoint] = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", contentType)
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
				return true
			}
		}
	}
	for name, fault := range map[string]func(*bridgetest.Behaviour, string){
		"page": text(500, "text/html", "<h1>"+secret+"</h1>"), "text": text(503, "text/plain", secret), "no JSON": text(200, "application/json", "{"+secret), "JSON error": text(400, "application/json", `{"error": "`+secret+`", "error_description": "`+secret+`"}`),
		"array": text(200, "application/json", `["`+secret+`"]`), "empty": text(200, "application/json", ""), "redirect": text(302, "text/html", secret), "cut": func(b *bridgetest.Behaviour, endpoint string) {
			b.Handle[endpoint] = func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
		},
	} {
		s.behave(func(b *bridgetest.Behaviour) { fault(b, "token") })
		_, page := s.login("carl", "/")
		silent("token endpoint: "+name, page.Status, page.Header, page.Text())
	}
	for name, token := range map[string]func(string) string{
		"no JWT": func(string) string { return "hunter2" }, "another signature": func(good string) string { return good[:len(good)-6] + "AAAAAA" }, "nothing": func(string) string { return "..." },
	} {
		s.behave(raw(token))
		_, page := s.login("carl", "/")
		silent("ID token: "+name, page.Status, page.Header, page.Text())
	}
	for _, failure := range []string{secret, "server_error", "temporarily_unavailable", "login_required", "<script>", "invalid_scope"} {
		s.behave(func(b *bridgetest.Behaviour) {
			b.AuthorizationResponse = func(p url.Values) {
				delete(p, "code")
				p["error"], p["error_description"] = []string{failure}, []string{secret}
			}
		})
		_, page := s.login("carl", "/")
		silent("error "+failure, page.Status, page.Header, page.Text())
	}
	s.behave(nil)
	for _, sql := range []string{
		"ALTER TABLE bridge.users ADD CHECK (name <> 'Carl') NOT VALID", "REVOKE INSERT ON bridge.events FROM bridge_runtime", "ALTER TABLE bridge.sessions RENAME claims TO x", "ALTER TABLE bridge.sessions RENAME TO gone", "ALTER SCHEMA bridge RENAME TO elsewhere",
	} {
		exec(t, s.DB, s.DB.SQL(sql))
		_, page := s.login("carl", "/")
		silent("login after "+sql, page.Status, page.Header, page.Text())
		for _, path := range []string{"/api_token", "/me"} {
			if page, err := live.Fetch(t.Context(), http.MethodGet, s.URL+path, nil, ""); err != nil {
				t.Error(err)
			} else if page.Status >= 500 {
				silent(path+" after "+sql, page.Status, page.Header, page.Text())
			}
		}
	}
	for path, status := range map[string]int{"/%zz": 400, "/nowhere": 404, "/login/nobody": 404, "/callback/op": 400, "/callback/op?code=%zz": 400, "/callback/op?code=x&state=y": 400} {
		got, header, body := rawRequest(t, s, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if got != status {
			t.Errorf("%s: %d", path, got)
		}
		if path != "/%zz" { // net/http answers that one itself
			silent(path, got, header, body)
		}
	}
	bridgetest.Tried(t, inputs)
}

// rawRequest sends bytes and returns the answer.
func rawRequest(t *testing.T, s *service, text string) (int, http.Header, string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, text)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, bodyOf(t, response)
}
