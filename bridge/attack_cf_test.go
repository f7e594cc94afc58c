package bridge_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestAttack_CF02_Canaries: a provider that repeats to us what we sent, a database that fails, and browsers that put secrets where they do
// not belong. What may not be seen is looked for at the end of this test and of every other one: see leaks.
func TestAttack_CF02_Canaries(t *testing.T) {
	t.Parallel()
	s := newService(t, withProvider("userinfo: always"))
	s.warm(t)
	echo := func(r *http.Request) string {
		return fmt.Sprintf("%s %s %s", r.Header.Get("Authorization"), r.PostForm.Encode(), r.PostForm.Get("code"))
	}
	answer := func(status int, contentType string, body func(*http.Request) string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Location", "https://evil.example/?"+url.Values{"seen": {body(r)}}.Encode())
			w.Header().Set("WWW-Authenticate", "Bearer "+body(r))
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body(r))
			return true
		}
	}
	oauth := func(member string) func(*http.Request) string {
		return func(r *http.Request) string {
			return fmt.Sprintf(`{"error": "invalid_grant", %q: %q}`, member, r.PostForm.Get("code")+" "+r.PostForm.Get("code_verifier")+" "+r.Header.Get("Authorization"))
		}
	}
	answers := map[string]func(http.ResponseWriter, *http.Request) bool{
		"text":              answer(500, "text/plain", echo),
		"a page":            answer(200, "text/html", echo),
		"no JSON":           answer(200, "application/json", echo),
		"a redirect":        answer(302, "text/plain", echo),
		"busy":              answer(429, "text/plain", echo),
		"forbidden":         answer(403, "text/plain", echo),
		"error_description": answer(400, "application/json", oauth("error_description")),
		"error":             answer(400, "application/json", func(r *http.Request) string { return fmt.Sprintf(`{"error": %q}`, r.PostForm.Get("code_verifier")) }),
		"error_uri":         answer(400, "application/json", oauth("error_uri")),
		"an unknown member": answer(200, "application/json", oauth("seen")),
		"client refused": answer(401, "application/json", func(r *http.Request) string {
			return fmt.Sprintf(`{"error": "invalid_client", "error_description": %q}`, echo(r))
		}),
		"a token in place of JWT": answer(200, "application/json", func(r *http.Request) string {
			return fmt.Sprintf(`{"token_type": "Bearer", "access_token": "x", "id_token": %q}`, r.PostForm.Get("code"))
		}),
	}
	inputs := 0
	try := func(name string, set func(*bridgetest.Behaviour)) {
		inputs++
		s.behave(set)
		if b, page := s.login("carl", "/orders"); page.Status == 200 || len(b.Cookies(s.URL)) > 0 {
			t.Errorf("%s: %d", name, page.Status)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		try("token endpoint: "+name, func(b *bridgetest.Behaviour) { b.Handle["token"] = answers[name] })
		try("UserInfo: "+name, func(b *bridgetest.Behaviour) { b.Handle["userinfo"] = answers[name] })
	}
	for name, change := range map[string]func(good string) string{
		"its middle": func(good string) string { return strings.Replace(good, ".", "..", 1) },
		"no JWT":     func(good string) string { return strings.Split(good, ".")[2] },
		"signature":  func(good string) string { return good[:len(good)-4] + "AAAA" },
		"as kid": func(good string) string {
			token, _ := bridgetest.SignJWT([]byte("k"), map[string]any{"alg": "HS256", "kid": strings.Split(good, ".")[2]}, map[string]any{})
			return token
		},
	} {
		try("ID token: "+name, raw(change))
	}
	s.behave(nil)
	live, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, live)
	_, body := s.token(live)
	for _, sql := range []string{
		"ALTER TABLE bridge.sessions ADD CHECK (provider <> 'op') NOT VALID", "ALTER TABLE bridge.events ADD CHECK (kind <> 'login') NOT VALID",
		"ALTER TABLE bridge.identities RENAME claims TO x", "ALTER TABLE bridge.sessions RENAME TO gone",
	} {
		exec(t, s.DB, sql)
		try(sql, nil)
	}
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.URL.RawQuery = "token=" + cookie.Value },
		func(r *http.Request) { r.URL.RawQuery = "access_token=" + body["token"].(string) },
		func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+body["token"].(string)) },
		func(r *http.Request) { r.Header.Set("Origin", "https://"+cookie.Value[:40]) },
		func(r *http.Request) { r.Header.Set("X-Request-Id", cookie.Value+"!") },
		func(r *http.Request) { r.Header.Set("Referer", "https://x/?"+cookie.Value) },
		func(r *http.Request) { r.Header.Set("User-Agent", cookie.Value) },
		func(r *http.Request) { r.Header.Set("X-Forwarded-For", cookie.Value) },
		func(r *http.Request) { r.Header.Add("Cookie", cookie.Name+"="+cookie.Value) },
		func(r *http.Request) {
			r.URL.Path = "/callback/op"
			r.URL.RawQuery = "code=" + cookie.Value + "&state=" + cookie.Value
		},
		func(r *http.Request) {
			r.URL.Path = "/callback/op"
			r.URL.RawQuery = "error=" + cookie.Value + "&state=" + cookie.Value
		},
		func(r *http.Request) { r.URL.Path = "/login"; r.URL.RawQuery = "return_to=//" + cookie.Value },
		func(r *http.Request) { r.URL.Path = "/login/" + cookie.Value },
		func(r *http.Request) { r.URL.Path = "/callback/" + body["token"].(string) },
		func(r *http.Request) { r.URL.Path = "/x/" + body["token"].(string) + ".css" },
	} {
		inputs++
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api_token", nil)
		request.AddCookie(cookie)
		change(request)
		if response := do(t, request); response.StatusCode == 200 {
			t.Errorf("%s: %d", request.URL.Path, response.StatusCode)
		}
	}

	// A canary that never sings proves nothing.
	_, last := s.start(bridgetest.NewBrowser())
	sung := map[string]string{"a session cookie": cookie.Value, "an access token": body["token"].(string), "a state": last}
	maps.Copy(sung, s.configured())
	for _, request := range s.OP.Requests("token") {
		sung["a code"], sung["a code verifier"] = request.Form.Get("code"), request.Form.Get("code_verifier")
	}
	for what, secret := range sung {
		if secret == "" || len(s.leaks([]string{"cause=" + secret})) == 0 {
			t.Errorf("%s %q in the log would go unnoticed", what, secret)
		}
	}
	bridgetest.Tried(t, inputs)
}

// reconfigured is the bridge of the service with one line of config.yaml changed, without a network: another replica, or the same after a
// restart.
func (s *service) reconfigured(old, by string) http.Handler {
	s.t.Helper()
	file := filepath.Join(s.Dir, "config.yaml")
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), old) {
		s.t.Fatalf("%q is not in config.yaml: %v", old, err)
	}
	changed := filepath.Join(s.Dir, "changed.yaml")
	write(s.t, changed, strings.Replace(string(text), old, by, 1))
	config, rules := load(s.t, changed)
	b, err := bridge.New(s.t.Context(), config, rules, bridge.Options{Version: "test", Log: s.Log.Logger(), Now: s.now})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(b.Close)
	return b.Public()
}

// TestAttack_CF05_CookieKeyRotation: a thousand sessions and some logins under way live through the change of the cookie key, whichever
// replica they meet, and end with the old key.
func TestAttack_CF05_CookieKeyRotation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	_, page := s.login("carl", "/")
	var cookies []*http.Cookie
	for _, c := range page.History[len(page.History)-1].Header.Values("Set-Cookie") {
		parsed, err := http.ParseSetCookie(c)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(parsed.Name, "session-") {
			cookies = append(cookies, parsed)
		}
	}
	sealer, err := bridge.NewCookies(s.Config, s.now)
	if err != nil {
		t.Fatal(err)
	}
	var hashes [][]byte
	for range 999 {
		token := bridge.NewSessionToken()
		w := httptest.NewRecorder()
		sealer.PutSession(w, token)
		cookies = append(cookies, w.Result().Cookies()...)
		hashes = append(hashes, token.Hash())
	}
	query(t, s.DB, `INSERT INTO bridge.sessions (id, token_hash, user_id, identity_id, provider, claims, role, rule, created_at, last_seen_at, idle_expires_at, expires_at)
		SELECT gen_random_uuid(), h, user_id, identity_id, provider, claims, role, rule, created_at, last_seen_at, idle_expires_at, expires_at
		FROM bridge.sessions, unnest($1::bytea[]) h`, hashes)

	keys := func(keys ...string) http.Handler {
		return s.reconfigured(`cookie_keys: ["`+cookieKey(1)+`"]`, `cookie_keys: ["`+strings.Join(keys, `", "`)+`"]`)
	}
	one, two := cookieKey(1), cookieKey(2)
	added, switched, dropped := keys(one, two), keys(two, one), keys(two)
	statuses := func(h http.Handler) map[int]int {
		n := map[int]int{}
		for _, c := range cookies {
			n[ask(h, "/api_token", c)]++
		}
		return n
	}
	for name, h := range map[string]http.Handler{"added": added, "switched": switched} {
		if got := statuses(h); got[200] != len(cookies) {
			t.Errorf("new key %s: %v", name, got)
		}
	}
	if got := statuses(dropped); got[401] != len(cookies) {
		t.Errorf("old key dropped: %v", got)
	}

	// A login that began at one replica ends at another; its session is good wherever both keys are known.
	begin := func(h http.Handler) (callback string, state []*http.Cookie) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/login/op", nil))
		b := bridgetest.NewBrowser()
		page, err := b.Open(t.Context(), w.Header().Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		return s.callback(b, page, "ada"), w.Result().Cookies()
	}
	replicas := []struct {
		name string
		http.Handler
		keys string
	}{{"before", keys(one), "1"}, {"added", added, "12"}, {"switched", switched, "21"}, {"dropped", dropped, "2"}}
	pairs := 0
	for _, from := range replicas {
		for _, to := range replicas {
			pairs++
			known := strings.Contains(to.keys, from.keys[:1])
			callback, state := begin(from)
			r := httptest.NewRequest(http.MethodGet, strings.TrimPrefix(callback, s.URL), nil)
			for _, c := range state {
				r.AddCookie(c)
			}
			w := httptest.NewRecorder()
			to.ServeHTTP(w, r)
			if (w.Code == 303) != known {
				t.Errorf("begun %s, ended %s: %d", from.name, to.name, w.Code)
				continue
			}
			if !known {
				continue
			}
			for _, c := range w.Result().Cookies() {
				if strings.HasPrefix(c.Name, "session-") && (ask(from, "/api_token", c) == 200) != strings.Contains(from.keys, to.keys[:1]) {
					t.Errorf("session made %s, used %s", to.name, from.name)
				}
			}
		}
	}
	bridgetest.Tried(t, 3*len(cookies)+pairs)
}

// TestAttack_CF05_ClientSecretRotation: the second secret is for a provider that does not take the first, and for nothing else.
func TestAttack_CF05_ClientSecretRotation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	handlers := map[string]http.Handler{}
	for name, by := range map[string]string{
		"old": `"old-secret-of-the-client"`, "new": `"new-secret-of-the-client"`, "both": `["new-secret-of-the-client", "old-secret-of-the-client"]`,
	} {
		handlers[name] = s.reconfigured(`client_secret: "`+clientSecret+`"`, "client_secret: "+by)
	}
	refusal := func(status int, code string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error": %q}`, code)
			return true
		}
	}
	tests := []struct {
		config, provider string
		answer           func(http.ResponseWriter, *http.Request) bool
		status, calls    int
	}{
		{"old", "old", nil, 303, 1},
		{"both", "old", nil, 303, 2},
		{"both", "new", nil, 303, 1},
		{"new", "new", nil, 303, 1},
		{"new", "old", nil, 502, 1},
		{"both", "another", nil, 502, 2},
		{"both", "new", refusal(400, "invalid_grant"), 400, 1},
		{"both", "new", refusal(400, "invalid_request"), 502, 1},
		{"both", "new", refusal(500, "server_error"), 503, 1},
		{"both", "new", refusal(401, "invalid_client"), 502, 2},
		{"both", "new", refusal(400, "INVALID_CLIENT"), 502, 1},
		{"both", "new", refusal(429, "slow_down"), 503, 1},
	}
	for _, test := range tests {
		s.behave(func(b *bridgetest.Behaviour) {
			if test.answer != nil {
				b.Handle["token"] = test.answer
			}
		})
		s.OP.AddClient(bridgetest.Client{ID: "bridge", Secret: test.provider + "-secret-of-the-client", RedirectURIs: []string{s.URL + "/callback/op"}})
		h := handlers[test.config]
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/login/op", nil))
		b := bridgetest.NewBrowser()
		page, err := b.Open(t.Context(), w.Header().Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, strings.TrimPrefix(s.callback(b, page, "carl"), s.URL), nil)
		for _, c := range w.Result().Cookies() {
			r.AddCookie(c)
		}
		w = httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if calls := s.OP.Calls("token"); w.Code != test.status || calls != test.calls {
			t.Errorf("config has %s, provider takes %s: %d after %d token requests, want %d after %d", test.config, test.provider, w.Code, calls, test.status, test.calls)
		}
	}
	if s.Log.Contains("-secret-of-the-client") {
		t.Error("the log shows a secret")
	}
	bridgetest.Tried(t, len(tests))
}

// TestAttack_CF06_AdminSurface: what looks into a program or governs it has no address; the private listener has three, and they only tell.
func TestAttack_CF06_AdminSurface(t *testing.T) {
	t.Parallel()
	s := newService(t, withPrefix("/auth"))
	host := strings.TrimSuffix(s.URL, "/auth")
	paths := []string{
		"/debug", "/debug/", "/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1", "/debug/vars", "/debug/requests", "/debug/events",
		"/metrics", "/healthz", "/readyz", "/health", "/livez", "/status", "/stats", "/server-status", "/info", "/env", "/actuator", "/actuator/env", "/version",
		"/admin", "/admin/", "/admin/users", "/api", "/api/admin", "/api/users", "/users", "/sessions/all", "/session", "/identities", "/events", "/roles", "/rules", "/reload",
		"/-/reload", "/-/quit", "/config", "/config.yaml", "/rules.yaml", "/.env", "/.git/config", "/.git/HEAD", "/backup.sql", "/console", "/graphql", "/swagger", "/openapi.json",
		"/trace", "/log", "/logs", "/logger", "/setup", "/install", "/register", "/userinfo", "/introspect", "/revoke", "/.well-known/openid-configuration", "/.well-known/security.txt",
		"/pages/page.html", "/pages/", "/style.css", "/favicon.ico", "/robots.txt", "/login/../metrics", "/login/%2e%2e/metrics", "/login/op/../../metrics", "/metrics/", "//metrics",
		"/METRICS", "/metrics%00", "/metrics;x", "/metrics%20", "/./metrics", "/callback/../debug/pprof/",
	}
	inputs := 0
	b, _ := s.login("ada", "/")
	cookie := sessionCookie(t, s, b)
	for _, base := range []string{host, s.URL} {
		for _, path := range paths {
			for _, method := range []string{http.MethodGet, http.MethodPost, "PURGE"} {
				inputs++
				request, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
				if err != nil {
					continue
				}
				request.AddCookie(cookie) // of an administrator of the application
				request.Header.Set("X-Forwarded-For", "127.0.0.1")
				if response := do(t, request); response.StatusCode != 404 && response.StatusCode != 405 && response.StatusCode != 400 {
					t.Errorf("%s %s%s: %d", method, base, path, response.StatusCode)
				}
			}
		}
	}
	if _, pattern := http.DefaultServeMux.Handler(httptest.NewRequest(http.MethodGet, "/debug/pprof/", nil)); pattern != "" {
		t.Errorf("net/http/pprof or expvar is linked in: %q", pattern)
	}
	for target, want := range map[string]int{
		"GET /healthz": 200, "GET /readyz": 200, "GET /metrics": 200, "POST /healthz": 405, "POST /metrics": 405, "PUT /readyz": 405, "DELETE /metrics": 405,
		"GET /": 404, "GET /debug/pprof/": 404, "GET /debug/vars": 404, "GET /auth/login": 404, "GET /login": 404, "GET /auth/api_token": 404, "POST /-/reload": 404, "GET /metrics/x": 404,
	} {
		inputs++
		method, path, _ := strings.Cut(target, " ")
		request, _ := http.NewRequestWithContext(t.Context(), method, s.Private+path, nil)
		request.AddCookie(cookie)
		if response := do(t, request); response.StatusCode != want || len(response.Cookies()) > 0 {
			t.Errorf("private listener: %s: %d, want %d", target, response.StatusCode, want)
		}
	}
	bridgetest.Tried(t, inputs)
}
