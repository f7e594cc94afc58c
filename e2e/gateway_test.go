package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// The files of deploy/ for people who have a proxy already, in the proxies that they are for, and the bridge's own: each in front of the
// stand-in for PostgREST, with a login at oidc-provider.

// A gate is one of them.
type gate struct {
	name  string
	api   string // where it has the API, below the origin
	proxy string // more of config.yaml, with API in it
	start func(t *testing.T, s *shop, bridge, api string)
}

var gates = []gate{
	{"nginx", "/api", "", startNginx},
	{"Caddy", "/api", "", startCaddy},
	{"the bridge", "/auth/rest/v1", "\nproxy: { upstream: 'API', path: /rest/v1 }\n", startPlain},
}

// startNginx runs deploy/nginx/oidc-bridge.conf with other addresses, and without TLS.
func startNginx(t *testing.T, s *shop, bridge, api string) {
	dir := t.TempDir()
	site := edited(t, "nginx/oidc-bridge.conf", map[string]string{
		"listen 443 ssl;": "listen " + strings.TrimPrefix(s.listening(), "http://") + ";", "server_name app.example.com;": "server_name localhost;", "/srv/app;": s.dir + "/app;",
		"    ssl_certificate     /etc/ssl/app.example.com.pem;\n": "", "    ssl_certificate_key /etc/ssl/private/app.example.com.key;\n": "",
		"server 127.0.0.1:8080;": "server " + bridge + ";", "server 127.0.0.1:3000;": "server " + api + ";",
	})
	user := ""
	if os.Getuid() == 0 {
		user = "user root;\n"
	}
	main := user + "daemon off;\nmaster_process off;\npid " + dir + "/nginx.pid;\nerror_log stderr;\nworker_processes 1;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		main += kind + "_temp_path " + dir + "/" + kind + ";\n"
	}
	writeFile(t, filepath.Join(dir, "nginx.conf"), main+site+"\n}\n")
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx"
	}
	// One process: a worker would outlive a master that is killed.
	start(t, exec.Command(path, "-e", "stderr", "-p", dir, "-c", "nginx.conf"))
}

// startCaddy runs deploy/caddy/Caddyfile likewise.
func startCaddy(t *testing.T, s *shop, bridge, api string) {
	dir := t.TempDir()
	site := edited(t, "caddy/Caddyfile", map[string]string{
		"app.example.com {": s.origin + " {\n\tbind 127.0.0.1", "/srv/app": s.dir + "/app",
		"reverse_proxy 127.0.0.1:8080": "reverse_proxy " + bridge, "forward_auth 127.0.0.1:8080": "forward_auth " + bridge, "reverse_proxy 127.0.0.1:3000": "reverse_proxy " + api,
	})
	writeFile(t, filepath.Join(dir, "Caddyfile"), "{\n\tadmin off\n\tauto_https off\n}\n"+site)
	cmd := exec.Command("caddy", "run", "--config", filepath.Join(dir, "Caddyfile"), "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	start(t, cmd)
}

// startPlain passes /auth/ to the bridge, which has the API itself.
func startPlain(t *testing.T, s *shop, bridge, _ string) {
	site := http.NewServeMux()
	site.Handle("/auth/", httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: bridge}))
	site.Handle("/", http.FileServer(http.Dir(s.dir+"/app")))
	server := httptest.NewUnstartedServer(site)
	server.Listener.Close()
	server.Listener = listenAt(t, strings.TrimPrefix(s.listening(), "http://"))
	server.Start()
	t.Cleanup(server.Close)
}

// edited is a file of deploy/ with other addresses. Each must stand there: a file that has changed is looked at again.
func edited(t *testing.T, name string, replace map[string]string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	out := string(text)
	for old, by := range replace {
		if !strings.Contains(out, old) {
			t.Fatalf("deploy/%s has no %q", name, old)
		}
		out = strings.ReplaceAll(out, old, by)
	}
	return out
}

// listening is where the proxy of the shop listens: its origin by number.
func (s *shop) listening() string { return strings.Replace(s.origin, "localhost", "127.0.0.1", 1) }

// An apiFront keeps the requests that reach the API.
type apiFront struct {
	url string
	api atomic.Pointer[url.URL] // nil: not yet

	mu       sync.Mutex
	requests []*http.Request
}

func (f *apiFront) take() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := f.requests
	f.requests = nil
	return taken
}

// newGateShop is newShop with a free address for a gate as its origin, and the API in front of which it stands.
func newGateShop(t *testing.T) (*shop, *apiFront) {
	t.Helper()
	s := newShop(t)
	_, port, _ := strings.Cut(freeAddress(t), ":")
	s.origin = "http://localhost:" + port
	s.public = s.origin + "/auth"
	front := &apiFront{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		front.mu.Lock()
		front.requests = append(front.requests, r.Clone(r.Context()))
		front.mu.Unlock()
		if api := front.api.Load(); api != nil {
			httputil.NewSingleHostReverseProxy(api).ServeHTTP(w, r)
		} else { // as long as there is no schema
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	front.url = server.URL
	return s, front
}

// serveGate starts the API and the bridge of a configured shop, and returns the bridge's address.
func (s *shop) serveGate(t *testing.T, front *apiFront) (*program, string) {
	t.Helper()
	s.migrate(t)
	if err := s.db.Exec(t.Context(), `CREATE VIEW api.request AS SELECT current_user::text AS role, current_setting('request.headers', true) AS headers,
		current_setting('request.cookies', true) AS cookies; GRANT SELECT ON api.request TO admin, customer, anonymous`); err != nil {
		t.Fatal(err)
	}
	api, err := url.Parse(s.startAPI(t, 16))
	if err != nil {
		t.Fatal(err)
	}
	front.api.Store(api)
	front.take()
	if err := os.Mkdir(filepath.Join(s.dir, "app"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(s.dir, "app", "index.html"), "<title>The page</title>")
	bridge := start(t, s.command("serve"))
	return bridge, bridge.announced(t, "private_listen")["listen"].(string)
}

// open starts the gate.
func (g gate) open(t *testing.T, s *shop, bridge string, front *apiFront) {
	t.Helper()
	g.start(t, s, bridge, strings.TrimPrefix(front.url, "http://"))
	bridgetest.Await(t, g.name, func() bool { return status(s.origin+"/") == http.StatusOK })
}

// openGate returns a shop behind the gate.
func openGate(t *testing.T, g gate, more string) (*shop, *apiFront, *program) {
	t.Helper()
	s, front := newGateShop(t)
	issuer := s.startProvider(t, "0")
	s.write(t, "post.secret", "post-client-secret-of-the-end-to-end-tests\n")
	s.configure(t, strings.ReplaceAll(providers, "ISSUER", issuer)+s.db.SQL(strings.ReplaceAll(g.proxy, "API", front.url)+more), rules)
	bridge, address := s.serveGate(t, front)
	g.open(t, s, address, front)
	return s, front, bridge
}

// TestGatewaysInChromium: with Keycloak behind, a person goes to an address of the API, logs in, is there, and scripts of the page call it.
func TestGatewaysInChromium(t *testing.T) {
	s, front := newGateShop(t)
	k := s.startKeycloak(t)
	s.configure(t, strings.ReplaceAll(keycloakProviders, "ISSUER", k.issuer()), keycloakRules)
	_, address := s.serveGate(t, front)
	for _, g := range gates[:2] {
		t.Run(g.name, func(t *testing.T) {
			g.open(t, s, address, front)
			w := s.openWindow(t)
			w.open(s.origin + g.api + "/request?select=role&limit=1")
			w.click(`a[href*="/auth/login/roles"]`)
			k.pages().logIn(w, "alice")
			w.see(s.db.Role("admin"))
			w.shot("api")
			if at := evaluate[string](w, "location.pathname + location.search"); at != g.api+"/request?select=role&limit=1" {
				t.Errorf("ended at %s", at)
			}
			w.open(s.origin + "/")
			const call = `(method, path) => fetch(path, {method}).then(async answer => answer.status + " " + answer.headers.get("authorization") + " " + await answer.text())`
			if got := evaluate[string](w, "("+call+`)("GET", "`+g.api+`/request?select=role")`); !strings.HasPrefix(got, "200 null ") || !strings.Contains(got, s.db.Role("admin")) {
				t.Errorf("a fetch of the page: %s", got)
			}
			if got := evaluate[string](w, "("+call+`)("POST", "`+g.api+`/request")`); strings.HasPrefix(got, "401") || strings.Contains(got, "another site") {
				t.Errorf("a post of the page: %s", got) // the view takes none, which PostgREST says
			}
			if got := evaluate[string](w, "("+call+`)("GET", "/auth/auth")`); !strings.HasPrefix(got, "404") {
				t.Errorf("the proxy's question: %s", got)
			}
		})
	}
}

// TestGateways: through each of them people reach the API as themselves, and nobody as somebody else.
func TestGateways(t *testing.T) {
	for _, g := range gates {
		t.Run(g.name, func(t *testing.T) {
			s, front, bridge := openGate(t, g, "")
			orders := s.origin + g.api + "/request?select=role&limit=1"

			// A person goes to an address of the API, logs in, and is there.
			ada := s.visit(t)
			if answer := ada.fetch(s.origin+g.api+"/request", nil); answer.Status != 401 || !strings.Contains(answer.Header.Get("WWW-Authenticate"), "Bearer") ||
				strings.TrimSpace(string(answer.Body)) != `{"error":"only authenticated users can request the API token"}` {
				t.Errorf("a fetch without session: %d %v %s", answer.Status, answer.Header, answer.Body)
			}
			ada.open(orders)
			if ada.page.URL.Path == "/auth/login" { // there are two connections
				for _, link := range ada.page.Links() {
					if link.URL.Path == "/auth/login/basic" {
						ada.arrive(ada.Follow(t.Context(), ada.page, link.URL.String()))
						break
					}
				}
			}
			ada.submit("Sign in", url.Values{"name": {"ada"}, "password": {"ada-password"}})
			if ada.page.Title() == "Allow access" {
				ada.submit("Allow", nil)
			}
			if ada.page.URL.String() != orders || ada.page.Status != 200 || !strings.Contains(string(ada.page.Body), s.db.Role("admin")) {
				t.Fatalf("ended at %s: %d %s", ada.page.URL, ada.page.Status, ada.page.Text())
			}
			ada.open(s.origin + "/")
			front.take()

			// What the API and SQL see.
			token := ada.token()
			answer := ada.fetch(s.origin+g.api+"/request", http.Header{"Prefer": {"count=exact"}, "Accept-Profile": {"api"}, "Range": {"0-0"}})
			if answer.Status != 200 || answer.Header.Get("Content-Range") == "" || answer.Header.Get("Authorization")+answer.Header.Get("X-Auth-User") != "" {
				t.Errorf("%d %v %s", answer.Status, answer.Header, answer.Body)
			}
			seen := front.take()
			if len(seen) != 1 {
				t.Fatalf("%d requests at the API", len(seen))
			}
			h := seen[0].Header
			if seen[0].URL.Path != "/request" || h.Get("Prefer") != "count=exact" || h.Get("Accept-Profile") != "api" || h.Get("Range") != "0-0" || h.Get("Cookie") != "" ||
				h.Get("X-Auth-User") != token.UserID || h.Get("X-Auth-Role") != s.db.Role("admin") || len(h["Authorization"]) != 1 {
				t.Errorf("the API got %s %v", seen[0].URL, h)
			}
			var rows []struct{ Role, Headers, Cookies string }
			if err := answer.JSON(&rows); err != nil || len(rows) != 1 || rows[0].Role != s.db.Role("admin") || rows[0].Cookies != "{}" || strings.Contains(string(answer.Body), "session-") {
				t.Errorf("SQL sees %s", answer.Body)
			}

			tryAttacks(t, s, g, front, ada)

			// A person who is disabled is out.
			if err := s.db.Exec(t.Context(), "UPDATE bridge.users SET disabled_at = now()"); err != nil {
				t.Fatal(err)
			}
			bridgetest.Await(t, "a refusal", func() bool { return ada.fetch(s.origin+g.api+"/request", nil).Status == 401 })
			// Without the bridge nobody is in.
			front.take()
			bridge.stop(t)
			if answer := ada.fetch(s.origin+g.api+"/request", nil); answer.Status < 500 || len(front.take()) != 0 {
				t.Errorf("without the bridge: %d", answer.Status)
			}
		})
	}
}

// tryAttacks sends what a client should not be able to say; the API must hear Ada, or nobody.
func tryAttacks(t *testing.T, s *shop, g gate, front *apiFront, ada *visitor) {
	t.Helper()
	var cookie string
	for _, c := range ada.Cookies(s.origin) {
		if strings.HasPrefix(c.Name, "session-") {
			cookie = c.Name + "=" + c.Value
		}
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	send := func(method, path string, header http.Header) *http.Response {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, s.listening()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = strings.TrimPrefix(s.origin, "http://")
		request.Header = header
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response
	}
	with := func(pairs ...string) http.Header {
		h := http.Header{"Cookie": {cookie}, "Sec-Fetch-Site": {"same-origin"}}
		for i := 0; i < len(pairs); i += 2 {
			h[pairs[i]] = append(h[pairs[i]], pairs[i+1])
		}
		return h
	}
	forged := []string{"forged", "Bearer eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYWRtaW4ifQ."}
	for _, name := range []string{"Authorization", "X-Auth-User", "X-Auth-Role"} {
		for _, spelt := range []string{name, strings.ToLower(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."), strings.Replace(name, "-", "_", 1), strings.ToLower(strings.ReplaceAll(name, "-", "_"))} {
			for _, more := range [][]string{{}, {"Connection", "close, " + name}} {
				header := with(append([]string{spelt, forged[0], spelt, forged[1]}, more...)...)
				if send("GET", g.api+"/request", header).StatusCode == 400 { // nginx takes no second Authorization
					header[spelt] = forged[1:]
					send("GET", g.api+"/request", header)
				}
				seen := front.take()
				if len(seen) != 1 || strings.Contains(fmt.Sprint(seen[0].Header), "forged") || strings.Contains(fmt.Sprint(seen[0].Header), "eyJhbGciOiJub25lIn0") || len(seen[0].Header["Authorization"]) != 1 ||
					seen[0].Header.Get("X-Auth-Role") != s.db.Role("admin") {
					t.Errorf("%s %v: %d requests at the API: %v", spelt, more, len(seen), headersOf(seen))
				}
				delete(header, "Cookie")
				if response := send("GET", g.api+"/request", header); response.StatusCode/100 != 4 || len(front.take()) != 0 {
					t.Errorf("%s without session: %d", spelt, response.StatusCode)
				}
			}
		}
	}
	refused := []struct {
		name, method, path string
		header             http.Header
	}{
		{"a form elsewhere", "POST", "/orders", with("Sec-Fetch-Site", "")},
		{"a page elsewhere", "POST", "/orders", with("Origin", "https://evil.example")},
		{"and its lie about the method", "POST", "/orders", with("Origin", "https://evil.example", "X-Forwarded-Method", "GET")},
		{"by another name", "POST", "/orders", with("Origin", "https://evil.example", "X_Forwarded_Method", "GET", "X-Http-Method-Override", "GET")},
		{"two cookies", "GET", "/request", http.Header{"Cookie": {cookie + "; " + cookie}}},
		{"a cookie of nobody", "GET", "/request", http.Header{"Cookie": {cookie[:len(cookie)-4] + "AAAA"}}},
		{"TRACE", "TRACE", "/request", with()},
	}
	refused[0].header["Sec-Fetch-Site"] = []string{"cross-site"}
	for _, test := range refused {
		if response := send(test.method, g.api+test.path, test.header); response.StatusCode < 400 || len(front.take()) != 0 {
			t.Errorf("%s: %d", test.name, response.StatusCode)
		}
	}
	for _, path := range []string{
		"/..%2frequest", "/%2e%2e/api/request", "/..;/request", "/%2e%2e%2fapi/request", "//request", "/./request", "/request/../../auth/auth", "/../auth/auth", "/%2e%2e/auth/auth", "/..%5crequest", "/request%00", "/%252e%252e/x",
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.listening()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.URL.Opaque = g.api + path // as it is
		request.Host, request.Header = strings.TrimPrefix(s.origin, "http://"), with()
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		for _, r := range front.take() {
			if len(r.Header["Authorization"]) != 1 || r.Header.Get("X-Auth-Role") != s.db.Role("admin") || r.Header.Get("Cookie") != "" {
				t.Errorf("%s: the API got %s %v", path, r.URL, r.Header)
			}
		}
		if response.Header.Get("Authorization")+response.Header.Get("X-Auth-User") != "" && g.name != "the bridge" {
			t.Errorf("%s: the client gets a token: %d %v", path, response.StatusCode, response.Header)
		}
		request.Header = http.Header{}
		response, err = client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if seen := front.take(); len(seen) != 0 {
			t.Errorf("%s without session: the API got %v", path, headersOf(seen))
		}
	}
	// OPTIONS never carries a person.
	send("OPTIONS", g.api+"/request", with("Origin", s.origin, "Access-Control-Request-Method", "GET"))
	for _, r := range front.take() {
		t.Errorf("OPTIONS: the API got %v", r.Header)
	}
	// Nobody is sent elsewhere after the login.
	visit := http.Header{"Accept": {"text/html"}, "Sec-Fetch-Site": {"none"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
	for _, header := range []string{"X-Forwarded-Uri", "X-Forwarded-Host", "X-Original-Uri", "X_Forwarded_Uri"} {
		visit := visit.Clone()
		visit[header] = []string{"https://evil.example/"}
		response := send("GET", g.api+"/request?a=b&c=d", visit)
		if want := s.public + "/login?return_to=" + url.QueryEscape(g.api+"/request?a=b&c=d"); response.StatusCode != 302 || response.Header.Get("Location") != want {
			t.Errorf("%s: %d to %s, want %s", header, response.StatusCode, response.Header.Get("Location"), want)
		}
	}
	if g.name != "the bridge" {
		if response := send("GET", "/auth/auth", with()); response.StatusCode != 404 {
			t.Errorf("the proxy's question from outside: %d", response.StatusCode)
		}
	}
}

func headersOf(requests []*http.Request) string {
	var all []http.Header
	for _, r := range requests {
		all = append(all, r.Header)
	}
	text, _ := json.Marshal(all)
	return string(text)
}

// TestGatewaysWithoutSession: with `anonymous` people without session have that role, and whoever has a bad session is refused.
func TestGatewaysWithoutSession(t *testing.T) {
	for _, g := range gates {
		t.Run(g.name, func(t *testing.T) {
			s, front, _ := openGate(t, g, "\nanonymous: anonymous\n")
			v := s.visit(t)
			answer := v.fetch(s.origin+g.api+"/request", http.Header{"Authorization": {"Bearer forged"}, "X-Auth-User": {"1"}})
			seen := front.take()
			if answer.Status != 200 || !strings.Contains(string(answer.Body), s.db.Role("anonymous")) || len(seen) != 1 || seen[0].Header.Get("X-Auth-User") != "" ||
				seen[0].Header.Get("X-Auth-Role") != s.db.Role("anonymous") || strings.Contains(fmt.Sprint(seen[0].Header), "forged") {
				t.Errorf("%d %s, the API got %v", answer.Status, answer.Body, headersOf(seen))
			}
			v.login("basic", "carl")
			if answer := v.fetch(s.origin+g.api+"/request", nil); answer.Status != 200 || !strings.Contains(string(answer.Body), s.db.Role("customer")) {
				t.Errorf("Carl: %d %s", answer.Status, answer.Body)
			}
			front.take()
			if err := s.db.Exec(t.Context(), "DELETE FROM bridge.sessions"); err != nil {
				t.Fatal(err)
			}
			bridgetest.Await(t, "a refusal", func() bool { return v.fetch(s.origin+g.api+"/request", nil).Status == 401 })
		})
	}
}

func listenAt(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
