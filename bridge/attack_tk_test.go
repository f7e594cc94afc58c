package bridge_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// askToken requests /api_token as a program does, with a cookie that may be nil.
func (s *service) askToken(cookie *http.Cookie, change func(*http.Request)) (*http.Response, string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.URL+"/api_token", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if cookie != nil {
		request.AddCookie(cookie)
	}
	if change != nil {
		change(request)
	}
	response, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	return response, bodyOf(s.t, response)
}

// TestAttack_TK01_NoSessionNoToken: whatever is missing or fails, the answer is a refusal in JSON, and never a token for anybody.
func TestAttack_TK01_NoSessionNoToken(t *testing.T) {
	t.Parallel()
	rules := strings.Replace(ordersRules, "token:\n", "token:\n  name: { from: name }\n", 1)
	s := newService(t, withRules(rules))
	s.OP.SetPersonas(append(personas, bridgetest.Persona{Subject: "long", Name: "Long", IDToken: map[string]any{
		"email": "long@example.com", "email_verified": true, "name": strings.Repeat("x", 4000), "groups": []any{},
	}})...)
	live, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, live)
	too, page := s.login("long", "/")
	if page.URL.Path != "/" {
		t.Fatal(page.Text(), s.logged(page))
	}
	changed := func(value string) *http.Cookie { return &http.Cookie{Name: cookie.Name, Value: value} }
	tests := []struct {
		name   string
		before string // SQL
		cookie *http.Cookie
		want   int
	}{
		{"no cookie", "", nil, 401},
		{"empty", "", changed(""), 401},
		{"short", "", changed("x"), 401},
		{"zeros", "", changed(strings.Repeat("A", 64)), 401},
		{"its halves swapped", "", changed(cookie.Value[32:] + cookie.Value[:32]), 401},
		{"a JWT", "", changed("eyJhbGciOiJub25lIn0.e30."), 401},
		{"another name", "", &http.Cookie{Name: "session", Value: cookie.Value}, 401},
		{"a token that does not fit", "", sessionCookie(t, s, too), 500},
		{"the session", "", cookie, 200},
		{"a role in the row alone", "UPDATE bridge.users SET role = 'admin'", cookie, 200}, // and the role below is still the rule's
		{"claims away", "UPDATE bridge.sessions SET claims = '{}'", cookie, 403},
		{"claims of another shape", "UPDATE bridge.sessions SET claims = '[1]'", cookie, 503},
		{"claims null", "UPDATE bridge.sessions SET claims = 'null'", cookie, 403},
		{"another provider", "UPDATE bridge.sessions SET provider = 'gone'", cookie, 401},
		{"disabled", "UPDATE bridge.users SET disabled_at = now()", cookie, 401},
		{"a privilege away", "REVOKE SELECT ON bridge.users FROM bridge_runtime", cookie, 503},
		{"a column away", "ALTER TABLE bridge.sessions RENAME claims TO x", cookie, 503},
		{"the table away", "ALTER TABLE bridge.sessions RENAME TO gone", cookie, 503},
	}
	for _, test := range tests {
		if test.before != "" {
			exec(t, s.DB, s.DB.SQL(test.before))
		}
		response, body := s.askToken(test.cookie, nil)
		var answer map[string]any
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Errorf("%s: no JSON: %s", test.name, body)
		}
		if response.StatusCode != test.want || (answer["token"] != nil) != (test.want == 200) || test.want != 200 && response.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s", test.name, response.StatusCode, body)
		}
		if answer["token"] != nil && claims(t, answer["token"])["role"] != s.DB.Role("customer") {
			t.Errorf("%s: %v", test.name, claims(t, answer["token"]))
		}
	}
	bridgetest.Tried(t, len(tests))
}

// TestAttack_TK03_Embedding: the answer is no script, no style, no page, wherever it is loaded from.
func TestAttack_TK03_Embedding(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	inputs := 0
	for _, dest := range []string{
		"script", "style", "image", "embed", "object", "iframe", "frame", "document", "worker", "sharedworker", "serviceworker", "manifest", "font", "audio", "video", "track", "report",
		"xslt", "json", "audioworklet", "paintworklet", "fencedframe", "webidentity", "EMPTY", "empty, script", " ", "x",
	} {
		for _, site := range []string{"same-origin", "none", "same-site", "cross-site", ""} {
			inputs++
			response, body := s.askToken(cookie, func(r *http.Request) {
				r.Header.Set("Sec-Fetch-Dest", dest)
				if site != "" {
					r.Header.Set("Sec-Fetch-Site", site)
				}
			})
			if response.StatusCode != 403 && strings.TrimSpace(dest) != "" || strings.Contains(body, "eyJ") && strings.TrimSpace(dest) != "" {
				t.Errorf("dest %q, site %q: %d %s", dest, site, response.StatusCode, body)
			}
		}
	}
	for _, query := range []string{"callback=x", "jsonp=x", "callback=alert(1)//", "cb=x&format=js", "_=1", "callback=%3Cscript%3E"} {
		inputs++
		response, body := s.askToken(cookie, func(r *http.Request) { r.URL.RawQuery = query })
		var answer map[string]any
		if err := json.Unmarshal([]byte(body), &answer); err != nil || response.StatusCode != 200 || len(answer) != 2 {
			t.Errorf("?%s: %d %s", query, response.StatusCode, body)
		}
		for name, want := range map[string]string{
			"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
			"Access-Control-Allow-Origin": "", "Content-Disposition": "",
		} {
			if got := response.Header.Get(name); got != want {
				t.Errorf("?%s: %s is %q", query, name, got)
			}
		}
	}
	for _, accept := range []string{"text/html", "application/javascript", "*/*;q=0.1", "text/event-stream", "application/xml"} {
		inputs++
		if response, body := s.askToken(cookie, func(r *http.Request) { r.Header.Set("Accept", accept) }); response.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(body, "{") {
			t.Errorf("Accept %s: %s %s", accept, response.Header.Get("Content-Type"), body)
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_TK04_CacheDeception: only the one address answers, for one cookie, and no cache finds a handle to keep or split the answer by.
func TestAttack_TK04_CacheDeception(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	spellings := []string{
		"/api_token/x.css", "/api_token/x.js", "/api_token/x.png", "/api_token/", "/api_token//", "/api_token%2fx.js", "/api_token%2Fx.css", "/api_token;a.css", "/api_token;.js", "/api_token.css",
		"/api_token.json", "/api_token%00.css", "/api_token%0a.css", "/api_token%20", "/api_token%23.css", "/api_token%3f.css", "/api_token%3Fx.css", "/API_TOKEN", "/api_Token", "/api%5ftoken/x.css",
		"//api_token", "/./api_token", "/x/../api_token", "/static/..%2fapi_token", "/static/%2e%2e/api_token", "/static/../api_token/x.css", "/api_token\\x.css", "/api_token%5cx.css", "/api_token!x", "/api_token$x.css",
		"/api_token,x.css", "/api_token@x.css", "/api_token:x.css", "/api_token~", "/me/x.css", "/me;x", "/me/", "/me.css", "/me%2fx.css",
	}
	for _, spelling := range spellings {
		response, body := s.askToken(cookie, func(r *http.Request) {
			path, err := url.PathUnescape(spelling)
			if err != nil {
				t.Fatal(err)
			}
			r.URL.Path, r.URL.RawPath = path, spelling
		})
		if response.StatusCode != 404 && response.StatusCode != 400 || strings.Contains(body, "eyJ") || response.Header.Get("Cache-Control") != "no-store" && response.StatusCode == 404 {
			t.Errorf("%s: %d %v %s", spelling, response.StatusCode, response.Header, body)
		}
	}
	requests := map[string]func(*http.Request){
		"a query":           func(r *http.Request) { r.URL.RawQuery = "cb=1" },
		"a style's query":   func(r *http.Request) { r.URL.RawQuery = "x.css" },
		"an empty query":    func(r *http.Request) { r.URL.ForceQuery = true },
		"Range":             func(r *http.Request) { r.Header.Set("Range", "bytes=0-3") },
		"If-Range":          func(r *http.Request) { r.Header.Set("Range", "bytes=1-"); r.Header.Set("If-Range", `"x"`) },
		"If-None-Match":     func(r *http.Request) { r.Header.Set("If-None-Match", "*") },
		"If-Modified-Since": func(r *http.Request) { r.Header.Set("If-Modified-Since", "Fri, 31 Dec 2100 23:59:59 GMT") },
		"X-Forwarded-Host":  func(r *http.Request) { r.Header.Set("X-Forwarded-Host", "evil.example") },
		"X-Original-URL":    func(r *http.Request) { r.Header.Set("X-Original-URL", "/style.css") },
		"method override":   func(r *http.Request) { r.Header.Set("X-HTTP-Method-Override", "POST") },
		"no-cache":          func(r *http.Request) { r.Header.Set("Cache-Control", "only-if-cached, max-stale") },
	}
	for name, change := range requests {
		response, body := s.askToken(cookie, change)
		h := response.Header
		if response.StatusCode != 200 || !strings.Contains(body, "eyJ") || !strings.HasPrefix(h.Get("Cache-Control"), "private, max-age=") || h.Get("Vary") != "Cookie, Origin" ||
			h.Get("ETag")+h.Get("Last-Modified")+h.Get("Expires")+h.Get("Age")+h.Get("Set-Cookie")+h.Get("Content-Range") != "" {
			t.Errorf("%s: %d %v", name, response.StatusCode, h)
		}
	}
	bridgetest.Tried(t, len(spellings)+len(requests))
}

// TestAttack_TK05_OverPowerfulToken: no token outlives its limits, lacks a claim or has one too many, whatever the configuration and the rules say.
func TestAttack_TK05_OverPowerfulToken(t *testing.T) {
	t.Parallel()
	plain := strings.Replace(strings.Replace(ordersRules, "token:\n  email: { from: email }\n", "", 1), "max_ttl: 10m", "max_ttl: 1h", 1)
	for _, test := range []struct {
		name, config, signing, rules string
		advance                      time.Duration // since the login
		life                         time.Duration // of the token, at most
		members                      int
	}{
		{"as it comes", "", "ttl: 15m", plain, 0, 15 * time.Minute, 9},
		{"the longest", "", "ttl: 1h", plain, 0, time.Hour, 9},
		{"the role's limit", "", "ttl: 1h", ordersRules, 0, 10 * time.Minute, 10},
		{"near the session's end", "session: { idle: 20m, absolute: 20m }", "ttl: 1h", plain, 18 * time.Minute, 2 * time.Minute, 9},
		{"at the session's end", "session: { idle: 20m, absolute: 20m }", "ttl: 1h", plain, 20*time.Minute - 3*time.Second, 3 * time.Second, 9},
		{"a short session", "session: { idle: 1m, absolute: 1m }", "ttl: 1h", plain, 0, time.Minute, 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, withRules(test.rules), withConfig(test.config), withSigning(test.signing))
			b, _ := s.login("ada", "/")
			s.advance(test.advance)
			page, body := s.token(b)
			if page.Status != 200 {
				t.Fatalf("%d %s", page.Status, page.Body)
			}
			got := claims(t, body["token"])
			now := s.now().Unix()
			exp, err := got["exp"].(json.Number).Int64()
			if err != nil || exp > now+int64(test.life/time.Second) || exp <= now-2 {
				t.Errorf("exp is %d s from now", exp-now)
			}
			if iat, err := got["iat"].(json.Number).Int64(); err != nil || iat > now-4 {
				t.Errorf("iat is %d s from now", iat-now)
			}
			for name, pattern := range map[string]string{
				"role": "^admin", "iss": "^" + regexp.QuoteMeta(s.URL) + "$", "aud": "^postgrest$", "sub": `^\d+$`, "user_id": `^\d+$`, "sid": "^[0-9a-f-]{36}$", "jti": "^[A-Z2-7]{26}$",
			} {
				if text, ok := got[name].(string); !ok || !regexp.MustCompile(pattern).MatchString(text) {
					t.Errorf("%s is %v", name, got[name])
				}
			}
			if len(got) != test.members || got["nbf"] != nil {
				t.Errorf("claims: %v", got)
			}
			header := map[string]any{}
			if text, err := base64.RawURLEncoding.DecodeString(strings.Split(body["token"].(string), ".")[0]); err != nil || json.Unmarshal(text, &header) != nil ||
				len(header) != 2 || header["alg"] != "HS256" || header["typ"] != "JWT" {
				t.Errorf("header: %v", header)
			}
		})
	}
	refused := []string{
		"ttl: 61m", "ttl: 0s", "ttl: -5m", "ttl: 24h", "ttl: 9s", "ttl: 999999h", "ttl: 900", "ttl: ~", `ttl: ""`, "ttl: never", `audience: ""`, "audience: []", "audience: ~", "audience: [a, b]",
	}
	for _, text := range refused {
		by := "signing: { " + text + ","
		if c, findings := bridge.LoadConfig("config.yaml", []byte(strings.Replace(goodConfig, "signing: {", by, 1)), noEnvironment); c != nil {
			t.Errorf("%s is taken: %v", by, findings)
		}
	}
	bridgetest.Tried(t, len(refused))
}
