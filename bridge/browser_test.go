package bridge_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

func TestLoginReturnsToTheCheckedPlace(t *testing.T) {
	t.Parallel()
	s := newService(t, withPrefix("/auth"))
	for given, want := range map[string]string{"/orders?x=1": "/orders?x=1", "//evil.com": "/", "/auth/logout": "/", "": "/"} {
		if _, page := s.login("carl", url.QueryEscape(given)); page.URL.String() != strings.TrimSuffix(s.URL, "/auth")+want {
			t.Errorf("%q returned to %s", given, page.URL)
		}
	}
}

// TestAttack_HS03_HeadersOnEveryAnswer walks routes and odd paths.
func TestAttack_HS03_HeadersOnEveryAnswer(t *testing.T) {
	t.Parallel()
	inputs := 0
	h := httpsService(t, "")
	for _, request := range []string{
		"GET /auth/login", "GET /auth/login/nobody", "GET /auth/callback/corp", "GET /auth/api_token", "GET /auth/me", "GET /auth/logout", "POST /auth/logout",
		"GET /auth/logged-out", "GET /auth/logged-out?state=x", "POST /auth/backchannel-logout/corp", "POST /auth/backchannel-logout/nobody", "GET /auth/backchannel-logout/corp",
		"GET /", "GET /auth", "GET /favicon.ico", "TRACE /auth/login", "PUT /auth/api_token", "OPTIONS /auth/api_token", "BREW /auth/login", "HEAD /auth/login",
		"GET /auth/login?x=" + strings.Repeat("x", 9000), "GET /auth/" + strings.Repeat("x", 3000),
	} {
		inputs++
		method, target, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "", "X-Frame-Options": "DENY",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Strict-Transport-Security": "max-age=",
			"Cache-Control": "no-store", "X-Request-Id": "",
		} {
			if got := w.Header().Get(name); got == "" || !strings.Contains(got, want) {
				t.Errorf("%.40s: %d with %s: %q", request, w.Code, name, got)
			}
		}
		if !strings.Contains(w.Header().Get("Content-Security-Policy"), "frame-ancestors 'none'") || w.Header().Get("Server") != "" {
			t.Errorf("%.40s: %v", request, w.Header())
		}
	}
	// What no router sees: the request line is not that of a path.
	s := newService(t)
	for _, line := range []string{"OPTIONS *", "OPTIONS http://evil.example/", "GET http://evil.example/", "CONNECT evil.example:443"} {
		inputs++
		status, header, _ := rawRequest(t, s, line+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if status != 404 && status != 405 || !strings.Contains(header.Get("Content-Security-Policy"), "frame-ancestors 'none'") || header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %d %v", line, status, header)
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_HS07_MethodsAndRoutes: what is not in the route table is not there.
func TestAttack_HS07_MethodsAndRoutes(t *testing.T) {
	t.Parallel()
	inputs := 0
	h := httpsService(t, "")
	for request, want := range map[string]int{
		"HEAD /auth/login": 405, "POST /auth/login": 405, "TRACE /auth/login": 405, "PATCH /auth/logout": 405, "DELETE /auth/logout": 405,
		"POST /auth/logged-out": 405, "HEAD /auth/logged-out": 405, "GET /auth/logged-out/": 404,
		"HEAD /auth/callback/corp": 405, "POST /auth/callback/corp": 405, "PUT /auth/callback/corp": 405, "OPTIONS /auth/callback/corp": 405,
		"HEAD /auth/api_token": 405, "POST /auth/api_token": 405, "BREW /auth/login": 405,
		"GET /auth/login/": 404, "GET /auth/api_token/": 404, "GET /auth/api_token/x.css": 404, "GET /auth/api_token%2fx.js": 404,
		"GET /auth/api_token;a.css": 404, "GET /metrics": 404, "GET /healthz": 404, "GET /auth/metrics": 404, "GET /debug/pprof/": 404,
		"GET /auth/.well-known/openid-configuration": 404, "GET /auth/callback": 404, "GET /auth/callback/": 404, "GET /auth/login/nobody": 404,
	} {
		inputs++
		method, target, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		if allow := w.Header().Get("Allow"); w.Code != want || (want == 405) != strings.Contains(allow, "GET") {
			t.Errorf("%s: %d, want %d, Allow: %q", request, w.Code, want, allow)
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_HS02_OversizeInput: bounded answers to unbounded requests.
func TestAttack_HS02_OversizeInput(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("carl", "/")
	long := strings.Repeat("x", 40<<10)
	tests := []struct {
		name   string
		method string
		change func(*http.Request)
		want   int
	}{
		{"query", "GET", func(r *http.Request) { r.URL.RawQuery = "x=" + strings.Repeat("x", 8200) }, 414},
		{"return_to", "GET", func(r *http.Request) { r.URL.RawQuery = "return_to=/" + strings.Repeat("x", 9000) }, 414},
		{"path", "GET", func(r *http.Request) { r.URL.Path += "/" + strings.Repeat("x", 9000) }, 414},
		{"escapes", "GET", func(r *http.Request) { r.URL.RawQuery = strings.Repeat("%2e", 3000) }, 414},
		{"URL beyond the headers' limit", "GET", func(r *http.Request) { r.URL.RawQuery = strings.Repeat("x", 60<<10) }, 431},
		{"header", "GET", func(r *http.Request) { r.Header.Set("X-Long", long) }, 431},
		{"header name", "GET", func(r *http.Request) { r.Header.Set("X-"+long, "x") }, 431},
		{"many headers", "GET", func(r *http.Request) {
			for i := range 4000 {
				r.Header.Set(fmt.Sprint("X-", i), "abcdef")
			}
		}, 431},
		{"cookies", "GET", func(r *http.Request) { r.Header.Set("Cookie", strings.Repeat("a=b; ", 9000)) }, 431},
		{"X-Forwarded-For", "GET", func(r *http.Request) { r.Header.Set("X-Forwarded-For", strings.Repeat("10.0.0.1,", 5000)) }, 431},
		{"body with a length", "POST", func(r *http.Request) { setBody(r, strings.Repeat("x", 70<<10), true) }, 413},
		{"body without", "POST", func(r *http.Request) { setBody(r, strings.Repeat("x", 70<<10), false) }, 413},
		{"a megabyte", "POST", func(r *http.Request) { setBody(r, "return_to="+strings.Repeat("x", 1<<20), true) }, 413},
		{"many fields", "POST", func(r *http.Request) { setBody(r, strings.Repeat("a=b&", 30<<10), false) }, 413},
	}
	for _, test := range tests {
		path := "/login"
		if test.method == http.MethodPost {
			path = "/logout"
		}
		request, _ := http.NewRequestWithContext(t.Context(), test.method, s.URL+path, nil)
		if test.method == http.MethodPost {
			request.Header = http.Header{"Origin": {s.URL}, "Content-Type": {"application/x-www-form-urlencoded"}}
			request.AddCookie(sessionCookie(t, s, b))
		}
		test.change(request)
		if response := do(t, request); response.StatusCode != test.want {
			t.Errorf("%s: %d, want %d", test.name, response.StatusCode, test.want)
		}
	}
	if page, _ := s.token(b); page.Status != 200 {
		t.Errorf("a request that was not read ended the session: %d", page.Status)
	}
	bridgetest.Tried(t, len(tests))
}

// setBody gives the request a body, with a Content-Length or chunked.
func setBody(r *http.Request, body string, length bool) {
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), -1
	if length {
		r.ContentLength = int64(len(body))
	}
}

// TestAttack_HS05_RequestID: a client's request id is taken when it is harmless, and replaced otherwise.
func TestAttack_HS05_RequestID(t *testing.T) {
	t.Parallel()
	inputs := 0
	h := httpsService(t, "")
	for id, taken := range map[string]bool{
		"abc-123": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "": false, "a b": false, "a\nb": false, `a"b`: false, "ä": false, "${jndi:x}": false,
	} {
		inputs++
		r := httptest.NewRequest(http.MethodGet, "/auth/logout", nil)
		r.Header["X-Request-Id"] = []string{id}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Header().Get("X-Request-Id"); (got == id) != taken || got == "" {
			t.Errorf("%q became %q", id, got)
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_TK02_CrossOrigin: who may read /api_token and /me.
func TestAttack_TK02_CrossOrigin(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t, withConfig("allowed_origins: [http://127.0.0.1:9999]"))
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	for _, test := range []struct {
		name   string
		header http.Header
		status int
		allow  string
	}{
		{"our page", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}}, 200, ""},
		{"a program", http.Header{}, 200, ""},
		{"an allowed origin", http.Header{"Origin": {"http://127.0.0.1:9999"}, "Sec-Fetch-Site": {"same-site"}, "Sec-Fetch-Dest": {"empty"}}, 200, "http://127.0.0.1:9999"},
		{"another origin of the site", http.Header{"Origin": {"http://127.0.0.1:9998"}, "Sec-Fetch-Site": {"same-site"}, "Sec-Fetch-Dest": {"empty"}}, 403, ""},
		{"another site", http.Header{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}, 403, ""},
		{"another site, old browser", http.Header{"Origin": {"https://evil.example"}}, 403, ""},
		{"null", http.Header{"Origin": {"null"}, "Sec-Fetch-Site": {"cross-site"}}, 403, ""},
		{"null, old browser", http.Header{"Origin": {"null"}}, 403, ""},
		{"prefix of an allowed origin", http.Header{"Origin": {"http://127.0.0.1:99"}}, 403, ""},
		{"allowed origin with a path", http.Header{"Origin": {"http://127.0.0.1:9999/"}}, 403, ""},
		{"upper case", http.Header{"Origin": {"HTTP://127.0.0.1:9999"}}, 403, ""},
		{"no-cors of another site", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"no-cors"}}, 403, ""},
		{"script element", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"script"}}, 403, ""},
		{"image", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"image"}}, 403, ""},
		{"embed", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"embed"}}, 403, ""},
		{"iframe", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"iframe"}}, 403, ""},
		{"style", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"style"}}, 403, ""},
		{"navigation", http.Header{"Sec-Fetch-Site": {"none"}, "Sec-Fetch-Dest": {"document"}}, 403, ""},
	} {
		inputs++
		for _, path := range []string{"/api_token", "/me"} {
			request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
			request.Header = test.header.Clone()
			request.AddCookie(cookie)
			response := do(t, request)
			if response.StatusCode != test.status || response.Header.Get("Access-Control-Allow-Origin") != test.allow {
				t.Errorf("%s, %s: %d, allow %q", test.name, path, response.StatusCode, response.Header.Get("Access-Control-Allow-Origin"))
			}
			if vary := response.Header.Get("Vary"); vary != "Cookie, Origin" {
				t.Errorf("%s, %s: Vary %q", test.name, path, vary)
			}
			if test.status != 200 && response.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s, %s: Cache-Control %q", test.name, path, response.Header.Get("Cache-Control"))
			}
		}
	}
	for from, want := range map[string]int{"http://127.0.0.1:9999": 204, "https://evil.example": 403, "null": 403} {
		inputs++
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodOptions, s.URL+"/api_token", nil)
		request.Header.Set("Origin", from)
		request.Header.Set("Access-Control-Request-Method", "GET")
		response := do(t, request)
		if response.StatusCode != want || (response.Header.Get("Access-Control-Allow-Origin") == from) != (want == 204) {
			t.Errorf("preflight from %q: %d %v", from, response.StatusCode, response.Header)
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_TK08_TokenInAURL: a session or token in the URL is nothing.
func TestAttack_TK08_TokenInAURL(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	_, body := s.token(b)
	for _, query := range []url.Values{
		{cookie.Name: {cookie.Value}}, {"access_token": {body["token"].(string)}}, {"token": {body["token"].(string)}}, {"session": {cookie.Value}},
	} {
		inputs++
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api_token?"+query.Encode(), nil)
		if response := do(t, request); response.StatusCode != 401 {
			t.Errorf("%v: %d", query, response.StatusCode)
		}
	}
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api_token", nil)
	request.Header.Set("Authorization", "Bearer "+body["token"].(string))
	if response := do(t, request); response.StatusCode != 401 {
		t.Errorf("a token as credential for a token: %d", response.StatusCode)
	}
	bridgetest.Tried(t, inputs)
}
