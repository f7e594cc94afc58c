package bridge_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// An apiRecorder stands where PostgREST is, answers as a test wants, and keeps the bytes of the requests.
type apiRecorder struct {
	URL    string
	heard  *recorder
	served atomic.Int32
	answer atomic.Pointer[http.HandlerFunc]
}

func newAPIRecorder(t *testing.T) *apiRecorder {
	t.Helper()
	a := &apiRecorder{heard: &recorder{Listener: listen(t)}}
	a.URL = "http://" + a.heard.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.served.Add(1)
		if answer := a.answer.Load(); answer != nil {
			(*answer)(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "[]")
	})}
	go server.Serve(a.heard)
	t.Cleanup(func() { server.Close() })
	return a
}

func (a *apiRecorder) answers(h http.HandlerFunc) { a.answer.Store(&h) }

// raw is what arrived, byte for byte, and forget begins anew.
func (a *apiRecorder) raw() string {
	var all bytes.Buffer
	a.heard.mu.Lock()
	defer a.heard.mu.Unlock()
	for _, c := range a.heard.conns {
		c.mu.Lock()
		all.Write(c.received.Bytes())
		c.mu.Unlock()
	}
	return all.String()
}

func (a *apiRecorder) forget() {
	a.heard.mu.Lock()
	defer a.heard.mu.Unlock()
	for _, c := range a.heard.conns {
		c.mu.Lock()
		c.received.Reset()
		c.mu.Unlock()
	}
	a.served.Store(0)
}

// requests parses what arrived; a byte that belongs to none is a failure.
func (a *apiRecorder) requests(t *testing.T) (requests []*http.Request) {
	t.Helper()
	a.heard.mu.Lock()
	defer a.heard.mu.Unlock()
	for _, c := range a.heard.conns {
		c.mu.Lock()
		reader := bufio.NewReader(bytes.NewReader(c.received.Bytes()))
		for {
			request, err := http.ReadRequest(reader)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Errorf("the API got what is no request: %v: %q", err, c.received.String())
				break
			}
			body, _ := io.ReadAll(request.Body)
			request.Body = io.NopCloser(bytes.NewReader(body))
			requests = append(requests, request)
		}
		c.mu.Unlock()
	}
	return requests
}

// newProxied is a service in front of a recorder, and a session of Carl's.
func newProxied(t *testing.T, more string, set ...setting) (*service, *apiRecorder, *http.Cookie) {
	t.Helper()
	api := newAPIRecorder(t)
	s := newService(t, append([]setting{withConfig("proxy: { upstream: " + api.URL + " }\n" + more)}, set...)...)
	b, _ := s.login("carl", "/")
	return s, api, sessionCookie(t, s, b)
}

// call sends a request for the API, as a program that says it is one of our pages.
func (s *service) call(method, path string, cookie *http.Cookie, header http.Header, body io.Reader) *http.Response {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header = http.Header{"Sec-Fetch-Site": {"same-origin"}}
	for name, values := range header {
		request.Header[name] = values
	}
	if cookie != nil {
		request.AddCookie(cookie)
	}
	response, err := proxyClient.Do(request)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return response
}

var proxyClient = &http.Client{
	Transport:     &http.Transport{DisableCompression: true, DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// send writes bytes to the public listener and returns what comes back until the server closes.
func (s *service) send(t *testing.T, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", s.Config.PublicURL.Host)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, text) // the server may have closed before the end
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// TestProxy: a session cookie goes in, a token goes out, and everything else is PostgREST's and the page's.
func TestProxy(t *testing.T) {
	t.Parallel()
	api := newAPIRecorder(t)
	s := newService(t, withPrefix("/auth"), withConfig("proxy: { upstream: "+api.URL+"/base, path: /rest/v1 }\n"))
	b, _ := s.login("ada", "/")
	cookie := sessionCookie(t, s, b)
	api.answers(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h := w.Header()
		for name, value := range map[string]string{
			"Content-Range": "0-1/7", "Content-Type": "application/vnd.pgrst.object+json; charset=utf-8", "Location": "/orders?id=eq.7", "Preference-Applied": "return=representation",
			"Content-Profile": "api", "Server": "postgrest/14", "Cache-Control": "public, max-age=60", "Content-Security-Policy": "default-src 'self'", "ETag": `"x"`, "X-Request-Id": "theirs",
			"Proxy-Status": "PostgREST; error=PGRST116", "Content-Location": "/orders?limit=2", "Vary": "Accept",
		} {
			h.Set(name, value)
		}
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(body)
	})
	header := http.Header{
		"Prefer": {"return=representation", "count=exact"}, "Accept": {"application/vnd.pgrst.object+json"}, "Accept-Profile": {"api"}, "Content-Profile": {"api"}, "Range": {"0-1"}, "Range-Unit": {"items"},
		"Content-Type": {"application/json"}, "X-Client-Info": {"supabase-js/2"}, "Apikey": {"anon"}, "If-Match": {`"a"`}, "Accept-Encoding": {"br"}, "X-Request-Id": {"mine"}, "User-Agent": {""},
	}
	response := s.call("PATCH", "/rest/v1/orders?select=a,b&or=(a.eq.1;b.eq.%22x%22)&price=gt.5&%", cookie, header, strings.NewReader(`{"a":1}`))
	if body := bodyOf(t, response); response.StatusCode != 206 || body != `{"a":1}` {
		t.Fatalf("%d %s", response.StatusCode, body)
	}
	for name, want := range map[string]string{
		"Content-Range": "0-1/7", "Content-Type": "application/vnd.pgrst.object+json; charset=utf-8", "Location": "/orders?id=eq.7", "Preference-Applied": "return=representation", "Content-Profile": "api",
		"Server": "postgrest/14", "Cache-Control": "public, max-age=60", "Content-Security-Policy": "default-src 'self'", "Etag": `"x"`, "X-Request-Id": "mine", "Proxy-Status": "PostgREST; error=PGRST116",
		"Content-Location": "/orders?limit=2", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin", "Vary": "Accept|Cookie, Origin",
	} {
		if got := strings.Join(response.Header[name], "|"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	request := api.requests(t)[0]
	got := bearer(t, request.Header)
	if request.Method != "PATCH" || request.RequestURI != "/base/orders?select=a,b&or=(a.eq.1;b.eq.%22x%22)&price=gt.5&%" || got["role"] != s.DB.Role("admin") || "http://"+request.Host+"/base" != api.URL+"/base" {
		t.Errorf("%s %s at %s as %v", request.Method, request.RequestURI, request.Host, got)
	}
	want := header.Clone()
	for name, value := range map[string]string{
		"X-Auth-User": fmt.Sprint(got["user_id"]), "X-Auth-Role": s.DB.Role("admin"), "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": s.Config.PublicURL.Host, "X-Forwarded-Proto": "http",
		"Content-Length": "7", "Sec-Fetch-Site": "same-origin",
	} {
		want.Set(name, value)
	}
	want.Del("User-Agent")
	want["Authorization"] = request.Header["Authorization"]
	if fmt.Sprint(request.Header) != fmt.Sprint(want) {
		t.Errorf("the API got\n%v\nand not\n%v", request.Header, want)
	}
	// Without its own word the answer has that of every answer.
	api.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	response = s.call("GET", "/rest/v1", cookie, nil, nil)
	if h := response.Header; response.StatusCode != 204 || h.Get("Cache-Control") != "no-store" || h.Get("Vary") != "Cookie, Origin" || h.Get("Content-Security-Policy") == "" {
		t.Errorf("%d %v", response.StatusCode, h)
	}
	if last := api.requests(t)[1]; last.RequestURI != "/base/" {
		t.Errorf("the root of the API is %s", last.RequestURI)
	}
	// People who come without session log in and come back.
	response = s.call("GET", "/rest/v1/orders?a=b", nil, http.Header{"Accept": {"text/html"}, "Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}, nil)
	if to := response.Header.Get("Location"); response.StatusCode != 302 || to != s.URL+"/login?return_to=%2Fauth%2Frest%2Fv1%2Forders%3Fa%3Db" {
		t.Errorf("%d to %s", response.StatusCode, to)
	}
	response = s.call("GET", "/rest/v1/orders", nil, nil, nil)
	if body := bodyOf(t, response); response.StatusCode != 401 || response.Header.Get("WWW-Authenticate") == "" || !strings.Contains(body, "only authenticated users") {
		t.Errorf("%d %v %s", response.StatusCode, response.Header, body)
	}
}

// TestProxyInFrontOfPostgREST: what each person sees through the proxy, of the stand-in that verifies the token and takes on its role.
func TestProxyInFrontOfPostgREST(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	exec(t, db, db.SQL(`CREATE SCHEMA api; GRANT USAGE ON SCHEMA api TO customer, admin, anonymous;
		CREATE VIEW api.request AS SELECT current_user::text AS role, bridge.user_id() AS user_id, current_setting('request.headers', true) AS headers, current_setting('request.cookies', true) AS cookies;
		GRANT SELECT ON api.request TO customer, admin, anonymous`))
	api := bridgetest.NewAPI(t, bridgetest.APIOptions{DatabaseURL: db.AuthenticatorURL, JWTSecret: jwtSecret, JWTAud: "postgrest", Schema: "api"})
	s := newService(t, withDatabase(db), withConfig("anonymous: anonymous\nproxy: { upstream: "+api.URL()+" }"))
	for subject, role := range map[string]string{"ada": "admin", "carl": "customer", "": "anonymous"} {
		var cookies string
		if subject != "" {
			b, _ := s.login(subject, "/")
			c := sessionCookie(t, s, b)
			cookies = c.Name + "=" + c.Value
		}
		response := s.call("GET", "/api/request", nil, http.Header{"Cookie": {"theme=dark; " + cookies + "; a=b"}}, nil)
		body := bodyOf(t, response)
		if response.StatusCode != 200 || !strings.Contains(body, fmt.Sprintf("%q:%q", "role", db.Role(role))) || response.Header.Get("Content-Range") == "" || response.Header.Get("Server") != bridgetest.ServerName ||
			!strings.Contains(body, `\"theme\":\"dark\"`) || subject != "" && strings.Contains(body, cookies[len(cookies)-20:]) || strings.Contains(body, "session-") {
			t.Errorf("%s: %d %v %s", subject, response.StatusCode, response.Header, body)
		}
	}
}

// TestAttack_FA01_FA02_FA07_FA09_ProxyIdentity: whatever the client calls itself, in headers of any spelling or by naming them in Connection, the
// API gets one identity, the session's.
func TestAttack_FA01_FA02_FA07_FA09_ProxyIdentity(t *testing.T) {
	t.Parallel()
	s, api, cookie := newProxied(t, "anonymous: anonymous\n")
	other, _ := s.login("ada", "/")
	_, answer := s.token(other)
	admin := fmt.Sprint(answer["token"])
	connections := []string{
		"", "close, Authorization", "Authorization", "X-Auth-User, X-Auth-Role", "authorization,x-auth-user , Cookie", "keep-alive, X-Forwarded-For, X-Request-Id", "Authorization, Authorization",
	}
	inputs := 0
	check := func(what string, wantRole string) {
		t.Helper()
		requests := api.requests(t)
		if len(requests) != 1 {
			t.Fatalf("%s: %d requests at the API", what, len(requests))
		}
		got := requests[0]
		token := bearer(t, got.Header)
		if token["role"] != s.DB.Role(wantRole) || strings.Join(got.Header["X-Auth-Role"], "|") != s.DB.Role(wantRole) || len(got.Header["X-Auth-User"]) != 1 ||
			wantRole == "anonymous" && got.Header.Get("X-Auth-User") != "" || wantRole != "anonymous" && got.Header.Get("X-Auth-User") != token["user_id"] {
			t.Errorf("%s: %v", what, got.Header)
		}
		raw := api.raw()
		for _, secret := range []string{"forged", admin[len(admin)-30:], cookie.Value} {
			if strings.Contains(raw, secret) {
				t.Errorf("%s: the API got %q: %q", what, secret, raw)
			}
		}
		api.forget()
	}
	for _, name := range identityHeaders {
		for i, spelt := range spellings(name) {
			if normal := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(spelt)); !slices.ContainsFunc(identityHeaders, func(name string) bool { return strings.EqualFold(name, normal) }) || normal == "x-user" {
				continue // another name, for everybody
			}
			inputs++
			header := http.Header{spelt: {"forged", "Bearer " + admin}}
			if connection := connections[(inputs+i)%len(connections)]; connection != "" {
				header["Connection"] = []string{connection}
			}
			bodyOf(t, s.call("POST", "/api/orders", cookie, header, strings.NewReader("{}")))
			check(fmt.Sprint(header), "customer")
			bodyOf(t, s.call("GET", "/api/orders", nil, header, nil))
			check(fmt.Sprint("without session ", header), "anonymous")
		}
	}
	for _, connection := range connections {
		inputs++
		bodyOf(t, s.call("GET", "/api/orders", cookie, http.Header{"Connection": {connection}, "Authorization": {"Basic forged"}}, nil))
		check("Connection: "+connection, "customer")
	}
	// As trailers of a chunked body.
	inputs++
	s.send(t, "POST /api/orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nSec-Fetch-Site: same-origin\r\nCookie: "+cookie.Name+"="+cookie.Value+
		"\r\nTransfer-Encoding: chunked\r\nTrailer: X-Auth-User, X-Forged\r\n\r\n2\r\n{}\r\n0\r\nX-Auth-User: forged\r\nX-Forged: forged\r\n\r\n")
	check("trailers", "customer")
	// Two cookies of the name are nobody: not the first, not the last, and not the anonymous role.
	for _, line := range []string{cookie.Name + "=" + cookie.Value + "; " + cookie.Name + "=x", cookie.Name + "=x", cookie.Name, `x="` + cookie.Name + `"`} {
		inputs++
		if response := s.call("GET", "/api/orders", nil, http.Header{"Cookie": {line}, "Authorization": {"Bearer " + admin}}, nil); response.StatusCode != 401 {
			t.Errorf("%s: %d", line, response.StatusCode)
		}
	}
	if n := api.served.Load(); n != 0 {
		t.Errorf("%d of them arrived", n)
	}
	bridgetest.Tried(t, 2*inputs)
}

// TestAttack_FA03_ProxyForwarded: the API hears of the client what we know of it.
func TestAttack_FA03_ProxyForwarded(t *testing.T) {
	t.Parallel()
	inputs := 0
	for config, want := range map[string]string{"": "127.0.0.1", trusted: "192.0.2.7", "trusted_proxies: [127.0.0.1/32, 192.0.2.0/24]\n": "203.0.113.9"} {
		s, api, cookie := newProxied(t, config)
		for _, more := range []http.Header{
			{},
			{"X-Forwarded-Host": {"evil.example"}},
			{"X-Forwarded-Proto": {"gopher"}},
			{"Forwarded": {"for=127.0.0.1;host=evil.example"}},
			{"X-Real-Ip": {"10.0.0.1"}},
			{"X-Original-Url": {"/admin"}},
			{"X-Rewrite-Url": {"/admin"}},
			{"X-Forwarded-Uri": {"/admin"}},
			{"X-Forwarded-Method": {"GET"}},
			{"X-Forwarded-Prefix": {"/x"}},
			{"X-Forwarded-Port": {"1"}},
			{"True-Client-Ip": {"10.0.0.1"}},
			{"X_Forwarded_For": {"10.0.0.1"}},
			{"X-Forwarded-For": {"10.0.0.1, 192.0.2.7"}},
		} {
			inputs++
			header := more.Clone()
			header.Add("X-Forwarded-For", "203.0.113.9, 192.0.2.7")
			bodyOf(t, s.call("GET", "/api/orders", cookie, header, nil))
			h := api.requests(t)[0].Header
			api.forget()
			for name, want := range map[string]string{"X-Forwarded-For": want, "X-Forwarded-Host": s.Config.PublicURL.Host, "X-Forwarded-Proto": "http"} {
				if got := strings.Join(h[name], "|"); got != want {
					t.Errorf("%q, %v: %s is %q, want %q", config, more, name, got, want)
				}
			}
			for name := range h {
				if strings.HasPrefix(name, "X-Forwarded-") && !slices.Contains([]string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}, name) || slices.Contains([]string{
					"Forwarded", "X-Real-Ip", "X-Original-Url", "X-Rewrite-Url", "True-Client-Ip", "X_forwarded_for", "X_Forwarded_For",
				}, name) {
					t.Errorf("%v: the API got %s", more, name)
				}
			}
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_FA04_Paths: an address of the API has one spelling. Whatever else leads there is refused, and nothing but the API is reached.
func TestAttack_FA04_Paths(t *testing.T) {
	t.Parallel()
	s, api, cookie := newProxied(t, "")
	good := map[string]string{
		"/api": "/", "/api/": "/", "/api/orders": "/orders", "/api/rpc/f": "/rpc/f", "/api/orders?x=/../y": "/orders?x=/../y", "/api/my%20table": "/my%20table", "/api/gr%C3%B6%C3%9Fe": "/gr%C3%B6%C3%9Fe",
		"/api/gr%c3%b6%c3%9fe": "/gr%c3%b6%c3%9fe", "/api/a(b)": "/a(b)", "/api/a%28b%29": "/a%28b%29", "/api/a@b:c": "/a@b:c", "/api/ORDERS": "/ORDERS", "/api/...": "/...", "/api/.x": "/.x", "/api/orders/": "/orders/",
		"/api/orders?": "/orders?", "/api/orders?a=b;c=d&%zz": "/orders?a=b;c=d&%zz", "/api/%E5%AE%9A": "/%E5%AE%9A", "/api/a%22b": "/a%22b", "/api/login": "/login", "/api/auth": "/auth",
	}
	get := func(target string) string {
		return s.send(t, "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: "+cookie.Name+"="+cookie.Value+"\r\n\r\n")
	}
	for target, want := range good {
		answer := get(target)
		if requests := api.requests(t); !strings.HasPrefix(answer, "HTTP/1.1 200") || len(requests) != 1 || requests[0].RequestURI != want {
			t.Errorf("%s: %.100s", target, answer)
		}
		api.forget()
	}
	var bad []string
	for _, between := range []string{
		"/../", "/./", "//", "/%2e%2e/", "/%2E%2e/", "/.%2e/", "/%2e/", "/..%2f", "/..%2F", "%2f", "%2F..%2f", "/..;/", "/;x/", ";/", ";x=y/", "/..%5c", "/\\", "/..\\", "%5c", "/%00/", "%00/", "/%0a/", "/%0d%0a/", "/%09/", "/%7f/", "/%252e%252e/",
		"/%252f", "/%25%32%66", "/%23/", "%23/", "/%3f/", "%3f", "/%3b/", "/%61/", "/%7E/", "/%5F/", "/%2D/", "/\xff/", "/%ff/", "/%c0%ae%c0%ae/", "/%c0%af", "/%ed%a0%80/", "/{a}/", "/[a]/", "/a|b/", "/a^b/", "/`/", "/\"/", "/</", "//../", "/a//", "/a/../",
		"/%2e./", "/a/..%00", "/%zz/", "/%u002e/",
	} {
		bad = append(bad, "/api"+between+"orders", "/api/public"+between+"orders", "/api/orders"+between)
	}
	bad = append(bad, "/api/a/.", "/api/..", "/api/.", "/api/%", "/api/%2", "/api/orders/..", "/%61pi/orders", "/ap%69/orders", "/API/orders", "/Api/orders", "/api%2forders", "/api\\orders", "//api/orders", "/./api/orders", "/x/../api/orders", "/api.orders", "/apiorders", "/api;/orders", "/api%20/orders", "/api%00/orders", "/\uff41pi/orders",
		"api/orders", "/public/../api/orders", "/login/../api/orders", "/api#/orders", "/ api/orders")
	for _, target := range bad {
		answer := get(target)
		status := answer[:min(len(answer), 12)]
		if n := api.served.Load(); n != 0 || !strings.HasPrefix(status, "HTTP/1.1 4") {
			t.Errorf("%q: %s, %d requests at the API: %q", target, status, n, api.raw())
		}
		api.forget()
	}
	bridgetest.Tried(t, len(good)+len(bad))
}

// TestAttack_FA05_Methods: OPTIONS is answered here and reaches nobody; no header makes another method of one; others are not passed on.
func TestAttack_FA05_Methods(t *testing.T) {
	t.Parallel()
	s, api, cookie := newProxied(t, "allowed_origins: [http://shop.localhost]\nanonymous: anonymous\n")
	inputs := 0
	for _, test := range []struct {
		name   string
		header http.Header
		status int
		allow  string
	}{
		{"no Origin", nil, 204, ""},
		{"our own", http.Header{"Origin": {s.URL}, "Access-Control-Request-Method": {"POST"}}, 204, ""},
		{"an allowed one", http.Header{"Origin": {"http://shop.localhost"}, "Access-Control-Request-Method": {"PATCH"}, "Access-Control-Request-Headers": {"authorization,apikey,prefer"}}, 204, "http://shop.localhost"},
		{"another", http.Header{"Origin": {"https://evil.example"}, "Access-Control-Request-Method": {"GET"}}, 403, ""},
		{"null", http.Header{"Origin": {"null"}, "Access-Control-Request-Method": {"GET"}}, 403, ""},
		{"another, without a question", http.Header{"Origin": {"https://evil.example"}}, 403, ""},
		{"longer", http.Header{"Origin": {"http://shop.localhost.evil.example"}, "Access-Control-Request-Method": {"GET"}}, 403, ""},
		{"overridden", http.Header{"X-Http-Method-Override": {"GET"}, "X-Method-Override": {"POST"}}, 204, ""},
	} {
		for _, who := range []*http.Cookie{cookie, nil} {
			inputs++
			response := s.call("OPTIONS", "/api/orders", who, test.header, nil)
			h := response.Header
			if response.StatusCode != test.status || h.Get("Access-Control-Allow-Origin") != test.allow || h.Get("Allow") != "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" {
				t.Errorf("%s: %d %v", test.name, response.StatusCode, h)
			}
			if test.allow != "" && (h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Access-Control-Allow-Methods") != "GET, HEAD, POST, PUT, PATCH, DELETE" ||
				h.Get("Access-Control-Allow-Headers") != "authorization,apikey,prefer" || h.Get("Access-Control-Max-Age") == "" || !strings.Contains(h.Get("Vary"), "Origin")) {
				t.Errorf("%s: %v", test.name, h)
			}
		}
	}
	for _, method := range []string{"TRACE", "CONNECT", "PROPFIND", "get", "Get", "post", "LINK", "X", "QUERY", "PURGE", "DELETE2", "MOVE"} {
		inputs++
		answer := s.send(t, method+" /api/orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nSec-Fetch-Site: same-origin\r\nCookie: "+cookie.Name+"="+cookie.Value+"\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 4") {
			t.Errorf("%s: %.60s", method, answer)
		}
	}
	if n := api.served.Load(); n != 0 {
		t.Errorf("%d requests reached the API: %s", n, api.raw())
	}
	for _, override := range []string{"X-Http-Method-Override", "X-HTTP-Method-Override", "x-http-method-override", "X-Http-Method", "X-Method-Override", "X_HTTP_METHOD_OVERRIDE"} {
		inputs++
		bodyOf(t, s.call("POST", "/api/orders", cookie, http.Header{override: {"DELETE"}}, nil))
		if raw := api.raw(); strings.Contains(raw, "DELETE") || !strings.HasPrefix(raw, "POST /orders ") {
			t.Errorf("%s: %s", override, raw)
		}
		api.forget()
		if response := s.call("GET", "/api/orders", cookie, http.Header{override: {"OPTIONS"}}, nil); bodyOf(t, response) != "[]" {
			t.Errorf("%s: %d", override, response.StatusCode)
		}
		api.forget()
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_FA06_ProxyHealth: no name of a program and no address of elsewhere gets past the session.
func TestAttack_FA06_ProxyHealth(t *testing.T) {
	t.Parallel()
	s, api, _ := newProxied(t, "")
	inputs := 0
	for _, agent := range []string{"GoogleHC/1.0", "kube-probe/1.31", "ELB-HealthChecker/2.0", "Prometheus/2.45", "curl/8", ""} {
		for _, path := range []string{"/api/", "/api/ready", "/api/live", "/api/healthz", "/api/orders", "/healthz", "/readyz", "/metrics", "/ping"} {
			inputs++
			response := s.call("GET", path, nil, http.Header{"User-Agent": {agent}}, nil)
			if want := map[bool]int{true: 401, false: 404}[strings.HasPrefix(path, "/api")]; response.StatusCode != want {
				t.Errorf("%s %s: %d", agent, path, response.StatusCode)
			}
		}
	}
	if n := api.served.Load(); n != 0 {
		t.Errorf("%d requests reached the API", n)
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_FA08_Smuggling: a request that two programs could frame in two ways is refused, or arrives as one that all frame alike.
func TestAttack_FA08_Smuggling(t *testing.T) {
	t.Parallel()
	s, api, cookie := newProxied(t, "")
	head := "POST /api/orders HTTP/1.1\r\nHost: x\r\nX-Case: #\r\nConnection: close\r\nSec-Fetch-Site: same-origin\r\nCookie: " + cookie.Name + "=" + cookie.Value + "\r\n"
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: x\r\nX: "
	tests := map[string]string{
		"content-length and chunked":     head + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunked and content-length":     head + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5\r\nabcde\r\n0\r\n\r\n" + smuggled,
		"two content-lengths":            head + "Content-Length: 5\r\nContent-Length: 0\r\n\r\n" + smuggled,
		"a list of content-lengths":      head + "Content-Length: 5, 0\r\n\r\nabcde" + smuggled,
		"the same twice":                 head + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
		"content-length +5":              head + "Content-Length: +5\r\n\r\nabcde" + smuggled,
		"content-length -1":              head + "Content-Length: -1\r\n\r\n" + smuggled,
		"content-length 0x5":             head + "Content-Length: 0x5\r\n\r\nabcde" + smuggled,
		"content-length 5 5":             head + "Content-Length: 5 5\r\n\r\nabcde" + smuggled,
		"an empty content-length":        head + "Content-Length:\r\n\r\n" + smuggled,
		"xchunked":                       head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunked, identity":              head + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + smuggled,
		"identity":                       head + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}" + smuggled,
		"gzip, chunked":                  head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunked twice":                  head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"chunked with a tab":             head + "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
		"a vertical tab":                 head + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + smuggled,
		"space before the colon":         head + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"a line folded":                  head + "X: a\r\n Transfer-Encoding: chunked\r\n\r\n" + smuggled,
		"chunked folded":                 head + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"bare LF":                        strings.ReplaceAll(head, "\r\n", "\n") + "Content-Length: 2\n\n{}",
		"bare CR":                        head + "X: a\rTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
		"NUL":                            head + "X: a\x00b\r\nContent-Length: 0\r\n\r\n",
		"two hosts":                      head + "Host: y\r\nContent-Length: 0\r\n\r\n",
		"no host":                        strings.Replace(head, "Host: x\r\n", "", 1) + "Content-Length: 0\r\n\r\n",
		"a chunk extension":              head + "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n",
		"a chunk extension with LF":      head + "Transfer-Encoding: chunked\r\n\r\n2;a\n{}\r\n0\r\n\r\n" + smuggled,
		"a chunk longer than it says":    head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n" + smuggled,
		"a chunk of negative size":       head + "Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n" + smuggled,
		"a chunk of enormous size":       head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}\r\n0\r\n\r\n" + smuggled,
		"chunked ended by LF":            head + "Transfer-Encoding: chunked\r\n\r\n0\n\n" + smuggled,
		"content-length in trailers":     head + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 50\r\n\r\n" + smuggled,
		"connection: content-length":     head + "Connection: Content-Length\r\nContent-Length: 40\r\n\r\n" + strings.Repeat("G", 40),
		"connection: transfer-encoding":  head + "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"HTTP/1.0, chunked":              strings.Replace(head, "1.1", "1.0", 1) + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"HTTP/0.9":                       "GET /api/orders\r\n\r\n",
		"HTTP/2 preface":                 "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"pseudo-headers":                 head + ":path: /smuggled\r\nContent-Length: 0\r\n\r\n",
		"a header without name":          head + ": a\r\nContent-Length: 0\r\n\r\n",
		"a header without colon":         head + "Transfer-Encoding chunked\r\nContent-Length: 0\r\n\r\n",
		"CRLF in the target":             "GET /api/a%0d%0aX:%20y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"a body with GET":                strings.Replace(head, "POST", "GET", 1) + "Content-Length: 36\r\n\r\n" + "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
		"a body with HEAD":               strings.Replace(head, "POST", "HEAD", 1) + "Content-Length: 36\r\n\r\n" + "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
		"a body that a refusal leaves":   strings.Replace(head, "Cookie", "X-Cookie", 1) + "Content-Length: 36\r\n\r\n" + "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
		"expect":                         head + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
		"another expectation":            head + "Expect: x\r\nContent-Length: 2\r\n\r\n{}",
		"pipelined":                      strings.Replace(head, "Connection: close\r\n", "", 1) + "Content-Length: 2\r\n\r\n{}" + head + "Content-Length: 2\r\n\r\n{}",
		"transfer_encoding":              head + "Transfer_Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
		"content_length":                 head + "Content_Length: 50\r\nContent-Length: 2\r\n\r\n{}",
		"two spaces in the request line": strings.Replace(head, "POST ", "POST  ", 1) + "Content-Length: 0\r\n\r\n",
	}
	names := slices.Sorted(maps.Keys(tests))
	answers := make([]string, len(names))
	var clients sync.WaitGroup
	for i, name := range names {
		clients.Go(func() { // each waits until the server has seen that no more comes
			answers[i] = s.send(t, strings.ReplaceAll(tests[name], "#", fmt.Sprint(i)))
			answers[i] = strings.ReplaceAll(answers[i], "HTTP/1.0 ", "HTTP/1.1 ")
		})
	}
	clients.Wait()
	arrived := map[string]int{}
	for _, request := range api.requests(t) {
		arrived[request.Header.Get("X-Case")]++
		if request.URL.Path != "/orders" || len(request.Header["Authorization"]) != 1 || len(request.TransferEncoding) > 0 && request.Header.Get("Content-Length") != "" {
			t.Errorf("%s %s %v", request.Method, request.RequestURI, request.Header)
		}
	}
	if n := arrived[""]; n > 0 {
		t.Errorf("%d requests at the API that nobody sent", n)
	}
	for i, name := range names {
		sent := strings.Count(tests[name], "/api/orders HTTP")
		if n := arrived[fmt.Sprint(i)]; n > sent || n == 0 && strings.Contains(answers[i], "HTTP/1.1 2") {
			t.Errorf("%s: %d requests at the API: %.200q", name, n, answers[i])
		}
		for status := range strings.SplitSeq(answers[i], "HTTP/1.1 ") {
			if status != "" && !slices.Contains([]string{"100", "200", "400", "401", "403", "404", "405", "408", "417", "501", "502", "505"}, status[:min(3, len(status))]) {
				t.Errorf("%s: %.200q", name, answers[i])
			}
		}
	}
	bridgetest.Tried(t, len(tests))
}

// TestAttack_FA10_TK02_ForeignRequestsThroughTheProxy: another site makes nobody's browser read or write here, whatever the form.
func TestAttack_FA10_TK02_ForeignRequestsThroughTheProxy(t *testing.T) {
	t.Parallel()
	s, api, cookie := newProxied(t, "allowed_origins: [http://shop.localhost]\nanonymous: anonymous\n")
	inputs := 0
	for _, test := range originCases(s.URL) {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
			for _, kind := range []string{"application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "application/json", ""} {
				reads := method == "GET" || method == "HEAD"
				if reads && kind != "" {
					continue
				}
				inputs++
				want := test.change || reads && test.read
				header := test.header.Clone()
				if kind != "" {
					header.Set("Content-Type", kind)
				}
				if header.Get("Sec-Fetch-Site") == "" {
					header["Sec-Fetch-Site"] = nil
				}
				response := s.call(method, "/api/orders", cookie, header, nil)
				if got := api.served.Load() == 1; got != want || (response.StatusCode == 200) != want {
					t.Errorf("%s %s %q: %d, %d requests at the API", test.name, method, kind, response.StatusCode, api.served.Load())
				}
				if allowed := response.Header.Get("Access-Control-Allow-Origin"); (allowed != "") != (header.Get("Origin") == "http://shop.localhost") || allowed == "*" {
					t.Errorf("%s %s: Access-Control-Allow-Origin %q", test.name, method, allowed)
				}
				api.forget()
			}
		}
	}
	// Without a cookie there is nothing to abuse: a program may write as anybody.
	if response := s.call("POST", "/api/orders", nil, http.Header{"Sec-Fetch-Site": nil}, nil); response.StatusCode != 200 {
		t.Errorf("a program without cookie: %d", response.StatusCode)
	}
	if response := s.call("POST", "/api/orders", nil, http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://evil.example"}}, nil); response.StatusCode != 403 {
		t.Errorf("a page elsewhere without cookie: %d", response.StatusCode)
	}
	// What the API says of other origins does not count: * would be everybody.
	api.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Access-Control-Expose-Headers", "*")
	})
	if h := s.call("GET", "/api/orders", cookie, nil, nil).Header; h.Get("Access-Control-Allow-Origin")+h.Get("Access-Control-Allow-Credentials")+h.Get("Access-Control-Expose-Headers") != "" {
		t.Errorf("%v", h)
	}
	h := s.call("GET", "/api/orders", cookie, http.Header{"Sec-Fetch-Site": {"same-site"}, "Origin": {"http://shop.localhost"}}, nil).Header
	if len(h["Access-Control-Allow-Origin"]) != 1 || h.Get("Access-Control-Allow-Origin") != "http://shop.localhost" || !strings.Contains(h.Get("Access-Control-Expose-Headers"), "Content-Range") ||
		h.Get("Cross-Origin-Resource-Policy") != "cross-origin" || h.Get("Vary") != "Cookie, Origin" {
		t.Errorf("%v", h)
	}
	bridgetest.Tried(t, inputs+4)
}

// TestAttack_FA11_Cookies: our cookies do not reach SQL, and SQL cannot set them; the application's pass.
func TestAttack_FA11_Cookies(t *testing.T) {
	t.Parallel()
	s, api, session := newProxied(t, "")
	name, value := session.Name, session.Value
	mark := strings.TrimPrefix(name, "session-")
	inputs := 0
	for line, want := range map[string]string{
		name + "=" + value:                                         "",
		"a=b; " + name + "=" + value + "; c=d":                     "a=b; c=d",
		name + "=" + value + "; ls-" + mark + "-01234567=sealed":   "",
		name + "=" + value + ";ls-" + mark + "-0=x;a=b":            "a=b",
		name + "=" + value + "; loop-" + mark + "=1":               "",
		name + "=" + value + "; lo-" + mark + "=sealed":            "",
		name + "=" + value + "; session-00000000=theirs":           "session-00000000=theirs",
		"  a=b ;; " + name + "=" + value + ";":                     "a=b",
		"a=\"b\"; " + name + "=" + value + "; d":                   "a=\"b\"; d",
		name + "=" + value + "; sb-access-token=x; __Host-other=y": "sb-access-token=x; __Host-other=y",
	} {
		inputs++
		bodyOf(t, s.call("GET", "/api/orders", nil, http.Header{"Cookie": {line}}, nil))
		requests := api.requests(t)
		if len(requests) != 1 || strings.Join(requests[0].Header["Cookie"], "|") != want || strings.Contains(api.raw(), value[10:]) {
			t.Errorf("%s: %d, %q", line, len(requests), api.raw())
		}
		api.forget()
	}
	for set, kept := range map[string]bool{
		name + "=planted; Path=/": false, " " + name + "=planted": false, name + " =planted": false, name + "=": false, name + "=; Max-Age=0": false, "ls-" + mark + "-01234567=x": false, "loop-" + mark + "=9": false, "lo-" + mark + "=x": false, "a=b; Path=/; HttpOnly": true, "session-id=1": true,
	} {
		inputs++
		api.answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Set-Cookie"] = []string{"first=1", set, "last=1"}
			w.Header()["set-cookie"] = []string{set}
		})
		response := s.call("GET", "/api/orders", session, nil, nil)
		got := response.Header["Set-Cookie"]
		if slices.Contains(got, strings.TrimSpace(set)) != kept || !slices.Contains(got, "first=1") || !slices.Contains(got, "last=1") {
			t.Errorf("%s: %q", set, got)
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_FA12_Target: whatever the request calls its target, the API is dialled and nothing else; tunnels are refused.
func TestAttack_FA12_Target(t *testing.T) {
	t.Parallel()
	s, api, cookie := newProxied(t, "")
	elsewhere := newTrap(t, nil)
	evil := strings.TrimPrefix(elsewhere.URL, "http://")
	tail := "\r\nConnection: close\r\nCookie: " + cookie.Name + "=" + cookie.Value + "\r\nSec-Fetch-Site: same-origin\r\n\r\n"
	reach := map[string]bool{
		"GET http://" + evil + "/api/orders HTTP/1.1\r\nHost: x" + tail:                true, // RFC 9112 section 3.2.2: the target is ours all the same
		"GET https://" + evil + "/api/orders HTTP/1.1\r\nHost: x" + tail:               true,
		"GET /api/orders HTTP/1.1\r\nHost: " + evil + tail:                             true,
		"GET /api/orders HTTP/1.1\r\nHost: " + evil + "\r\nX-Forwarded-Host: e" + tail: true,
		"GET /api/http://" + evil + "/ HTTP/1.1\r\nHost: x" + tail:                     false,
		"GET /api//" + evil + "/ HTTP/1.1\r\nHost: x" + tail:                           false,
		"GET /api@" + evil + "/ HTTP/1.1\r\nHost: x" + tail:                            false,
		"GET /api/@" + evil + "/ HTTP/1.1\r\nHost: x" + tail:                           true,
		"GET /api:80@" + evil + "/ HTTP/1.1\r\nHost: x" + tail:                         false,
		"GET @" + evil + "/api/orders HTTP/1.1\r\nHost: x" + tail:                      false,
		"GET " + evil + "/api/orders HTTP/1.1\r\nHost: x" + tail:                       false,
		"GET //" + evil + "/api/orders HTTP/1.1\r\nHost: x" + tail:                     false,
		"GET ftp://" + evil + "/api/orders HTTP/1.1\r\nHost: x" + tail:                 true,
		"CONNECT " + evil + " HTTP/1.1\r\nHost: " + evil + tail:                        false,
		"CONNECT /api/orders HTTP/1.1\r\nHost: x" + tail:                               false,
		"OPTIONS * HTTP/1.1\r\nHost: x" + tail:                                         false,
		"GET * HTTP/1.1\r\nHost: x" + tail:                                             false,
		"GET /api/orders HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13" + tail: false,
		"GET /api/orders HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA" + tail:                       false,
		"GET /api/orders HTTP/1.1\r\nHost: x\r\nUpgrade: TLS/1.3" + tail:                                                                                                      false,
		"GET /api/orders HTTP/1.1\r\nHost: x\r\nupgrade:" + tail:                                                                                                              false,
	}
	for request, want := range reach {
		answer := s.send(t, request)
		requests := api.requests(t)
		if (len(requests) == 1) != want || !want && strings.HasPrefix(answer, "HTTP/1.1 2") && !strings.HasPrefix(request, "OPTIONS") || strings.HasPrefix(answer, "HTTP/1.1 101") {
			t.Errorf("%.80q: %d requests, %.60q", request, len(requests), answer)
		}
		if strings.Contains(request, "pgrade: w") && !strings.HasPrefix(answer, "HTTP/1.1 501") {
			t.Errorf("a WebSocket: %.60q", answer)
		}
		for _, r := range requests {
			if "http://"+r.Host != api.URL {
				t.Errorf("%.80q: Host %s", request, r.Host)
			}
		}
		api.forget()
	}
	if n := elsewhere.visits.Load(); n != 0 {
		t.Errorf("%d visits elsewhere", n)
	}
	// The API does not choose either: its redirects are the client's business, and it cannot switch protocols.
	api.answers(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	if response := s.call("GET", "/api/orders", cookie, nil, nil); response.StatusCode != 307 || response.Header.Get("Location") != elsewhere.URL {
		t.Errorf("%d", response.StatusCode)
	}
	api.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "x")
		w.WriteHeader(http.StatusSwitchingProtocols)
	})
	if response := s.call("GET", "/api/orders", cookie, nil, nil); response.StatusCode != 502 {
		t.Errorf("the API switches protocols: %d", response.StatusCode)
	}
	if n := elsewhere.visits.Load(); n != 0 {
		t.Errorf("%d visits elsewhere", n)
	}
	bridgetest.Tried(t, len(reach)+2)
}

// TestAttack_FA13_ProxyFailsClosed: whatever fails, nothing goes to the API without the identity that it should have, and no answer is a 2xx.
func TestAttack_FA13_ProxyFailsClosed(t *testing.T) {
	t.Parallel()
	api := newAPIRecorder(t)
	var database *bridgetest.CountingProxy
	s := newService(t, withConfig("anonymous: anonymous\nproxy: { upstream: "+api.URL+" }"), withDatabaseURL(func(db *bridgetest.Database) string {
		database = bridgetest.NewCountingProxy(t, db.URL)
		return database.URL()
	}))
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	refused := func(what string, want int) {
		t.Helper()
		response := s.call("GET", "/api/orders", cookie, nil, nil)
		if body := bodyOf(t, response); response.StatusCode != want || api.served.Load() != 0 || !strings.HasPrefix(body, `{"error"`) || response.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s, %d requests at the API", what, response.StatusCode, body, api.served.Load())
		}
	}
	database.Cut()
	refused("the database is gone", 503)
	database.Mend()
	bridgetest.Await(t, "the database", func() bool { return s.call("GET", "/api/orders", cookie, nil, nil).StatusCode == 200 })
	api.forget()
	// A request whose client leaves while it is looked at.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/api/orders", nil)
	if response, err := proxyClient.Do(request); err == nil {
		t.Errorf("%d", response.StatusCode)
	}
	faults := []struct {
		name, sql string
		want      int
	}{
		{"claims away", "UPDATE bridge.sessions SET claims = '{}'", 403},
		{"claims of another shape", "UPDATE bridge.sessions SET claims = '[1]'", 503},
		{"another provider", "UPDATE bridge.sessions SET claims = 'null', provider = 'gone'", 401},
		{"disabled", "UPDATE bridge.sessions SET provider = 'op'; UPDATE bridge.users SET disabled_at = now()", 401},
		{"the table away", "ALTER TABLE bridge.sessions RENAME TO gone", 503},
	}
	for _, fault := range faults {
		exec(t, s.DB, s.DB.SQL(fault.sql))
		bridgetest.Await(t, fault.name, func() bool { return s.call("GET", "/api/orders", cookie, nil, nil).StatusCode == fault.want })
		api.forget()
		refused(fault.name, fault.want)
	}
	bridgetest.Tried(t, len(faults)+2)
}

// TestAttack_FA14_ProxyRemembersNothing: the next request is decided anew, and nothing of an answer is kept.
func TestAttack_FA14_ProxyRemembersNothing(t *testing.T) {
	t.Parallel()
	s, api, cookie := newProxied(t, "")
	other, _ := s.login("ada", "/")
	admin := sessionCookie(t, s, other)
	api.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = io.WriteString(w, r.Header.Get("X-Auth-Role")+" "+r.Method+" "+r.URL.Path)
	})
	inputs := 0
	for range 2 {
		for _, who := range []struct {
			cookie *http.Cookie
			role   string
		}{{cookie, s.DB.Role("customer")}, {admin, s.DB.Role("admin")}, {nil, ""}} {
			for _, method := range []string{"GET", "POST", "DELETE"} {
				for _, path := range []string{"/a", "/b"} {
					inputs++
					response := s.call(method, "/api"+path, who.cookie, nil, nil)
					want := who.role + " " + method + " " + path
					if body := bodyOf(t, response); who.cookie != nil && (body != want || !strings.Contains(strings.Join(response.Header["Vary"], ","), "Cookie")) || who.cookie == nil && response.StatusCode != 401 {
						t.Errorf("%s: %d %s", want, response.StatusCode, body)
					}
				}
			}
		}
	}
	s.changeRules("when: { groups: /admins }", "when: { groups: /owners }")
	s.changeRules("groups: [/admins] }", "groups: [/owners] }")
	bridgetest.Await(t, "the new rules", func() bool {
		return strings.HasPrefix(bodyOf(t, s.call("GET", "/api/a", admin, nil, nil)), s.DB.Role("customer"))
	})
	exec(t, s.DB, "UPDATE bridge.users SET disabled_at = now()")
	bridgetest.Await(t, "a refusal", func() bool { return s.call("GET", "/api/a", admin, nil, nil).StatusCode == 401 })
	bridgetest.Tried(t, inputs+2)
}
