package bridge_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// rulesOfTwo make everybody with an e-mail address a customer, at the providers op and other, and the groups of op an admin.
const rulesOfTwo = `
version: 1
providers:
  op: { preset: generic, claims: { groups: { type: set, default: [] } } }
  other: { preset: generic }
roles: { admin: { privileged: true }, customer: {} }
rules:
  - { name: admins, provider: op, when: { groups: /admins }, role: admin }
  - { name: one, provider: op, when: { email_domain: example.com }, role: customer }
  - { name: two, provider: other, when: { email_domain: example.com }, role: customer }
default: deny
token: { email: { from: email } }
users: { email: { from: email } }
tests: [ { name: an admin, provider: op, claims: { sub: a, groups: [/admins] }, expect: { role: admin }, refuse_if: [ { groups: [/admin] } ] } ]
`

// withOther adds a second provider; register it with knows when the service runs.
func withOther(other *bridgetest.OP) setting {
	return func(s *settings) {
		s.rules = rulesOfTwo
		s.provider = "\n  other:\n    issuer: " + other.Issuer() + "\n    client_id: bridge\n    client_secret: \"s3cret:+%/ü\""
	}
}

func (s *service) knows(other *bridgetest.OP) {
	other.AddClient(bridgetest.Client{ID: "bridge", Secret: "s3cret:+%/ü", RedirectURIs: []string{s.URL + "/callback/other"}})
	other.SetPersonas(personas...)
}

// ask sends a GET as a program does, from an address of its own, and returns the answer, its body closed.
func (s *service) ask(t *testing.T, target string, change func(*http.Request)) *http.Response {
	t.Helper()
	return s.askFrom(t, fromElsewhere(), target, change)
}

func (s *service) askFrom(t *testing.T, transport *http.Transport, target string, change func(*http.Request)) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	return answer
}

// randomParameters are those of the authorization request that differ from login to login.
var randomParameters = regexp.MustCompile(`(code_challenge|nonce|state)=[A-Za-z0-9_-]{43}(&|$)`)

// golden is the authorization request of provider op, but for the random values.
func (s *service) golden() string {
	return s.OP.Issuer() + "/authorize?client_id=bridge&code_challenge=*&code_challenge_method=S256&nonce=*&redirect_uri=" +
		url.QueryEscape(s.URL+"/callback/op") + "&response_type=code&scope=openid+email+profile&state=*"
}

func withoutRandom(location string) string {
	return randomParameters.ReplaceAllString(location, "$1=*$2")
}

func TestAttack_AR01_RandomValues(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const starts = 10000
	var mu sync.Mutex
	seen := map[string]string{}
	positions := map[string]*[32]map[byte]bool{} // the bytes that occurred at each position of each value
	add := func(name, value string) {
		bytes, err := base64.RawURLEncoding.DecodeString(value)
		if err != nil || len(bytes) != 32 {
			t.Errorf("%s is %q: %d bytes, %v", name, value, len(bytes), err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if other, twice := seen[value]; twice {
			t.Errorf("%s and %s are both %s", other, name, value)
		}
		seen[value] = name
		if positions[name] == nil {
			positions[name] = new([32]map[byte]bool)
		}
		for i, b := range bytes {
			if positions[name][i] == nil {
				positions[name][i] = map[byte]bool{}
			}
			positions[name][i][b] = true
		}
	}
	cookies := map[string]bool{}
	var workers errgroup.Group
	for range 4 {
		workers.Go(func() error {
			var transport *http.Transport
			for i := range starts / 4 {
				if i%100 == 0 {
					transport = fromElsewhere()
				}
				answer := s.askFrom(t, transport, "/login/op", nil)
				location, err := answer.Location()
				if err != nil {
					return fmt.Errorf("%d: %w", answer.StatusCode, err)
				}
				if got := withoutRandom(location.String()); got != s.golden() {
					return fmt.Errorf("location %s", got)
				}
				query := location.Query()
				add("state", query.Get("state"))
				add("nonce", query.Get("nonce"))
				add("code_challenge", query.Get("code_challenge"))
				mu.Lock()
				for _, c := range answer.Cookies() {
					cookies[c.Value] = true
				}
				mu.Unlock()
			}
			return nil
		})
	}
	if err := workers.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 3*starts || len(cookies) != starts {
		t.Errorf("%d values and %d cookies of %d logins", len(seen), len(cookies), starts)
	}
	for name, bytes := range positions {
		for i, values := range bytes {
			if len(values) != 256 { // ten thousand random bytes miss a given value with a chance of 1e-17
				t.Errorf("byte %d of %s takes %d values", i, name, len(values))
			}
		}
	}
	// The challenge is made of the verifier that the token request brings, and of neither of the others.
	b := newVisitor()
	page, state := s.start(b)
	if _, err := b.Open(t.Context(), s.callback(b, page, "carl")); err != nil {
		t.Fatal(err)
	}
	verifier := s.OP.Requests("token")[0].Form.Get("code_verifier")
	add("code_verifier", verifier)
	sum := sha256.Sum256([]byte(verifier))
	query := page.URL.Query()
	if query.Get("code_challenge") != encode(sum[:]) || verifier == state || verifier == query.Get("nonce") || strings.Contains(page.URL.String(), verifier) {
		t.Errorf("verifier %s, request %s", verifier, page.URL)
	}
	if s.Log.Contains(verifier) || s.Log.Contains(query.Get("nonce")) {
		t.Error("the log has a secret of the login")
	}
	bridgetest.Tried(t, starts)
}

func TestAttack_AR02_PKCE(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const warning = "it does not list S256"
	for _, test := range []struct {
		name    string
		methods any
		warns   bool
	}{
		{"S256", []string{"S256"}, false},
		{"plain and S256", []string{"plain", "S256"}, false},
		{"absent", nil, false},
		{"plain", []string{"plain"}, true},
		{"none", []string{}, true},
		{"s256", []string{"s256"}, true},
		{"S512", []string{"S512"}, true},
		{"null in the list", []any{nil}, true},
		{"text", "plain", false},
		{"object", map[string]any{"plain": true}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.behave(func(b *bridgetest.Behaviour) {
				b.Discovery = func(m map[string]any) {
					if m["code_challenge_methods_supported"] = test.methods; test.methods == nil {
						delete(m, "code_challenge_methods_supported")
					}
				}
			})
			before := len(s.Log.Lines())
			s.advance(61 * time.Minute) // past the age of the metadata
			answer := s.ask(t, "/login/op", nil)
			if got := withoutRandom(answer.Header.Get("Location")); answer.StatusCode != 302 || got != s.golden() || s.OP.Calls("discovery") != 1 {
				t.Errorf("%d %s", answer.StatusCode, got)
			}
			if warned := strings.Contains(strings.Join(s.Log.Lines()[before:], "\n"), warning); warned != test.warns {
				t.Errorf("warned: %v", warned)
			}
		})
	}
	for _, line := range []string{
		"pkce: plain", "pkce: false", "code_challenge_method: plain", "authorize_params: { code_challenge_method: plain }", "authorize_params: { code_challenge: x }",
		"authorize_params: { Code_Challenge_Method: plain }", "authorize_params: { nonce: x }", "authorize_params: { state: x }",
	} {
		t.Run("cannot be configured: "+line, func(t *testing.T) {
			config, _ := bridge.LoadConfig("config.yaml", []byte(strings.TrimRight(goodConfig, "\n")+"\n    "+line+"\n"), noEnvironment)
			if config != nil {
				t.Errorf("%s is taken", line)
			}
		})
	}
	t.Run("the verifier is checked", func(t *testing.T) {
		s := newService(t)
		s.try(t, []attack{{name: "control", want: ""}})
		s.OP.Set(func(b *bridgetest.Behaviour) {
			b.AuthorizationResponse = func(p url.Values) { p.Set("code", "guessed") }
		})
		b, page := s.login("carl", "/")
		s.refused(t, b, page, "invalid_grant", 400)
	})
}

func TestAttack_AR03_ParameterInjection(t *testing.T) {
	t.Parallel()
	s := newService(t)
	evil := url.QueryEscape("https://evil.example/callback")
	queries := []string{
		"", "client_id=evil", "client_id=bridge", "redirect_uri=" + evil, "response_type=token", "response_type=code+id_token", "response_mode=form_post",
		"response_mode=fragment", "scope=openid", "scope=offline_access", "state=fixed", "nonce=fixed", "code_challenge=x", "code_challenge_method=plain",
		"prompt=none", "prompt=login", "max_age=0", "login_hint=ada@example.com", "ui_locales=de", "acr_values=low", "display=popup", "id_token_hint=e30.e30.e30",
		"request=e30.e30.", "request_uri=" + evil, "registration=%7B%7D", "claims=%7B%7D", "audience=evil", "resource=" + evil, "kc_idp_hint=evil", "hd=evil.example",
		"code=x", "error=x", "iss=" + evil, "provider=other", "return_to=%26client_id%3Devil", "return_to=/x%26redirect_uri=" + evil, "return_to=" + evil,
		"return_to=/x%23&state=fixed", "return_to=/x?client_id=evil", "return_to=/&return_to=" + evil, "return_to[]=x", "%63lient_id=evil", "client_id%00=evil",
		"client_id=a;redirect_uri=b", "x=%0d%0aLocation:%20" + evil, "x=%0d%0aSet-Cookie:%20x=1", "x=%zz", "?client_id=evil", "&&&client_id=evil", "=evil",
		strings.Repeat("state=fixed&", 100), "state", "client_id=%E2%80%A8evil",
	}
	for _, query := range queries {
		for _, path := range []string{"/login/op", "/login"} {
			t.Run(path+"?"+query[:min(len(query), 50)], func(t *testing.T) {
				answer := s.ask(t, path+"?"+query, nil)
				if path == "/login" { // on to the only provider
					next, err := answer.Location()
					if err != nil || next.Path != "/login/op" || next.Host != strings.TrimPrefix(s.URL, "http://") || len(next.Query()) != 1 {
						t.Fatalf("%d %s %v", answer.StatusCode, next, err)
					}
					answer = s.ask(t, next.RequestURI(), nil)
				}
				if diff := cmp.Diff(s.golden(), withoutRandom(answer.Header.Get("Location"))); diff != "" || answer.StatusCode != 302 {
					t.Error(answer.StatusCode, diff)
				}
				if len(answer.Header.Values("Set-Cookie")) != 1 {
					t.Errorf("%v", answer.Header)
				}
			})
		}
	}
	for name, value := range map[string]string{
		"Referer": "https://evil.example/?client_id=evil", "Cookie": "state=fixed; nonce=fixed; client_id=evil", "X-Original-URL": "/login/op?client_id=evil",
		"X-Rewrite-Url": "/login/other", "X-Http-Method-Override": "POST", "Content-Type": "application/x-www-form-urlencoded", "Accept-Language": "de&client_id=evil",
	} {
		t.Run(name, func(t *testing.T) {
			answer := s.ask(t, "/login/op", func(r *http.Request) {
				r.Header.Set(name, value)
				r.Body = io.NopCloser(strings.NewReader("client_id=evil&redirect_uri=" + evil))
			})
			if diff := cmp.Diff(s.golden(), withoutRandom(answer.Header.Get("Location"))); diff != "" || answer.StatusCode != 302 {
				t.Error(answer.StatusCode, diff)
			}
		})
	}
	t.Run("what is configured is sent", func(t *testing.T) {
		s := newService(t, withProvider(`authorize_params: { prompt: login, hd: "a&b=c" }`))
		got := withoutRandom(s.ask(t, "/login/op?prompt=none&hd=x", nil).Header.Get("Location"))
		want := strings.Replace(s.golden(), "&nonce=*", "&hd=a%26b%3Dc&nonce=*&prompt=login", 1)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	// What the metadata smuggle in front of our parameters would win over them.
	for _, query := range []string{"client_id=evil", "x=1&redirect_uri=" + evil, "state=", "response_mode=fragment", "request_uri=" + evil, "%6eonce=x"} {
		t.Run("authorization_endpoint?"+query, func(t *testing.T) {
			s := newService(t)
			s.behave(func(b *bridgetest.Behaviour) {
				b.Discovery = func(m map[string]any) {
					m["authorization_endpoint"] = m["authorization_endpoint"].(string) + "?" + query
				}
			})
			if answer := s.ask(t, "/login/op", nil); answer.StatusCode != 503 || !s.Log.Contains("has a parameter that belongs to requests") {
				t.Errorf("%d %s", answer.StatusCode, answer.Header.Get("Location"))
			}
		})
	}
	t.Run("authorization_endpoint?p=policy", func(t *testing.T) {
		s := newService(t)
		s.behave(func(b *bridgetest.Behaviour) {
			b.Discovery = func(m map[string]any) {
				m["authorization_endpoint"] = m["authorization_endpoint"].(string) + "?p=policy"
			}
		})
		if got := withoutRandom(s.ask(t, "/login/op", nil).Header.Get("Location")); got != strings.Replace(s.golden(), "?", "?p=policy&", 1) {
			t.Error(got)
		}
	})
}

func TestAttack_AR04_HostHeader(t *testing.T) {
	t.Parallel()
	s := newService(t)
	headers := []http.Header{
		{"Host": {"evil.example"}},
		{"Host": {"evil.example:80"}},
		{"Host": {"127.0.0.1"}},
		{"Host": {"localhost"}},
		{"X-Forwarded-Host": {"evil.example"}},
		{"X-Forwarded-Host": {"evil.example, 127.0.0.1"}},
		{"X-Forwarded-Host": {"evil.example", "127.0.0.1"}},
		{"X-Forwarded-Proto": {"https"}},
		{"X-Forwarded-Scheme": {"https"}},
		{"X-Forwarded-Ssl": {"on"}},
		{"Front-End-Https": {"on"}},
		{"X-Forwarded-Port": {"444"}},
		{"X-Forwarded-Prefix": {"/evil"}},
		{"X-Forwarded-Server": {"evil.example"}},
		{"X-Host": {"evil.example"}},
		{"X-Original-Host": {"evil.example"}},
		{"X-Original-Url": {"/evil"}},
		{"Forwarded": {"host=evil.example;proto=https;for=1.2.3.4"}},
		{"Forwarded": {`host="evil.example"`, "host=127.0.0.1"}},
		{"Base-Url": {"https://evil.example"}},
		{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}},
		{"Referer": {"https://evil.example/"}},
		{"Host": {"evil.example"}, "X-Forwarded-Host": {"evil.example"}, "X-Forwarded-Proto": {"https"}, "Forwarded": {"host=evil.example"}},
	}
	set := func(h http.Header) func(r *http.Request) {
		return func(r *http.Request) {
			for name, values := range h {
				if r.Header[name] = values; name == "Host" {
					r.Host = values[0]
				}
			}
		}
	}
	for _, h := range headers {
		t.Run(strings.Trim(fmt.Sprint(h), "map[]"), func(t *testing.T) {
			s.OP.ForgetRequests()
			answer := s.ask(t, "/login/op?return_to=/orders", set(h))
			if diff := cmp.Diff(s.golden(), withoutRandom(answer.Header.Get("Location"))); diff != "" {
				t.Fatal(answer.StatusCode, diff)
			}
			cookie := answer.Cookies()[0]
			if cookie.Domain != "" || cookie.Path != "/" {
				t.Errorf("cookie %v", cookie)
			}
			// The rest of the login, with the same headers.
			b := newVisitor()
			page, err := b.Open(t.Context(), answer.Header.Get("Location"))
			if err != nil {
				t.Fatal(err)
			}
			callback := strings.TrimPrefix(s.callback(b, page, "carl"), s.URL)
			answer = s.ask(t, callback, func(r *http.Request) { set(h)(r); r.AddCookie(cookie) })
			if answer.StatusCode != 303 || answer.Header.Get("Location") != "/orders" {
				t.Errorf("callback: %d %v", answer.StatusCode, answer.Header)
			}
			if got := s.OP.Requests("token")[0].Form["redirect_uri"]; len(got) != 1 || got[0] != s.URL+"/callback/op" {
				t.Errorf("token request with redirect_uri %q", got)
			}
			chooser := s.ask(t, "/login", set(h))
			if got := chooser.Header.Get("Location"); got != "/login/op?return_to=%2F" {
				t.Errorf("chooser leads to %q", got)
			}
		})
	}
	address := strings.TrimPrefix(s.URL, "http://")
	for name, request := range map[string]string{
		"absolute form":              "GET http://evil.example/login/op HTTP/1.1\r\nHost: " + address + "\r\n",
		"absolute form, evil host":   "GET http://evil.example/login/op HTTP/1.1\r\nHost: evil.example\r\n",
		"absolute form of https":     "GET https://evil.example/login/op HTTP/1.1\r\nHost: " + address + "\r\n",
		"absolute form with user":    "GET http://u:p@evil.example/login/op HTTP/1.1\r\nHost: " + address + "\r\n",
		"HTTP/1.0 without a host":    "GET /login/op HTTP/1.0\r\n",
		"host with a path":           "GET /login/op HTTP/1.1\r\nHost: evil.example/x\r\n",
		"two hosts":                  "GET /login/op HTTP/1.1\r\nHost: " + address + "\r\nHost: evil.example\r\n",
		"no host":                    "GET /login/op HTTP/1.1\r\n",
		"host folded":                "GET /login/op HTTP/1.1\r\nHost: " + address + "\r\n evil.example\r\n",
		"host with a blank in front": "GET /login/op HTTP/1.1\r\n Host: evil.example\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, request+"Connection: close\r\n\r\n")
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			if got := withoutRandom(answer.Header.Get("Location")); answer.StatusCode != 400 && (answer.StatusCode != 302 || got != s.golden()) {
				t.Errorf("%d %s", answer.StatusCode, got)
			}
		})
	}
}

func TestAttack_AR05_ForcedLogin(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ctx := t.Context()
	page := newTrap(t, nil)
	// Both are other origins; for 127.0.0.1 the port alone differs, which is the same site.
	origins := map[string]string{"cross-site": strings.Replace(page.URL, "127.0.0.1", "localhost", 1), "same-site": page.URL}
	unmoved := func(t *testing.T, status int, h http.Header) {
		t.Helper()
		if status != 403 && status != 405 || h.Get("Location") != "" || len(h.Values("Set-Cookie")) != 0 {
			t.Errorf("%d %v", status, h)
		}
	}
	for site, at := range origins {
		browser := func(t *testing.T) *bridgetest.Browser {
			b := newVisitor()
			if _, err := b.Open(ctx, at); err != nil {
				t.Fatal(err)
			}
			return b
		}
		for _, dest := range []string{"image", "script", "style", "iframe", "frame", "embed", "object"} {
			t.Run(site+" "+dest, func(t *testing.T) {
				answer, err := browser(t).Embed(ctx, dest, s.URL+"/login/op")
				if err != nil {
					t.Fatal(err)
				}
				unmoved(t, answer.Status, answer.Header)
			})
		}
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead} {
			t.Run(site+" fetch "+method, func(t *testing.T) {
				answer, err := browser(t).FetchWithCredentials(ctx, method, s.URL+"/login/op", nil, "")
				if answer == nil {
					t.Fatal(err)
				}
				unmoved(t, answer.Status, answer.Header)
			})
		}
		t.Run(site+" link", func(t *testing.T) { // a person who goes there: always allowed, product.md
			b := browser(t)
			here, err := b.Open(ctx, at)
			if err != nil {
				t.Fatal(err)
			}
			if answer, err := b.Follow(ctx, here, s.URL+"/login/op"); err != nil || !strings.HasPrefix(answer.URL.String(), s.OP.Issuer()) {
				t.Errorf("%v %v", answer, err)
			}
		})
	}
	for _, sent := range []struct {
		allowed           bool
		site, mode, dest  string
		purpose, from, as string
	}{
		{allowed: true},
		{allowed: true, site: "none", mode: "navigate", dest: "document"},
		{allowed: true, site: "same-origin", mode: "navigate", dest: "document"},
		{allowed: true, site: "cross-site", mode: "navigate", dest: "document"},
		{site: "cross-site", mode: "navigate", dest: "iframe"},
		{site: "cross-site", mode: "navigate", dest: "frame"},
		{site: "cross-site", mode: "navigate", dest: "fencedframe"},
		{site: "cross-site", mode: "navigate", dest: "object"},
		{site: "cross-site", mode: "navigate", dest: "embed"},
		{site: "cross-site", mode: "navigate", dest: "empty"},
		{site: "cross-site", mode: "navigate", dest: ""},
		{site: "cross-site", mode: "no-cors", dest: "image"},
		{site: "cross-site", mode: "no-cors", dest: "empty"},
		{site: "cross-site", mode: "cors", dest: "empty"},
		{site: "cross-site", mode: "cors", dest: "document"},
		{site: "same-site", mode: "no-cors", dest: "image"},
		{site: "same-site", mode: "websocket", dest: "websocket"},
		{site: "same-origin", mode: "navigate", dest: "iframe"},
		{site: "same-origin", mode: "no-cors", dest: "image"},
		{site: "same-origin", mode: "cors", dest: "empty"},
		{site: "none", mode: "no-cors", dest: "empty"},
		{site: "none", mode: "navigate", dest: "document", purpose: "prefetch", as: "Sec-Purpose"},
		{site: "none", mode: "navigate", dest: "document", purpose: "prefetch;prerender", as: "Sec-Purpose"},
		{site: "none", mode: "navigate", dest: "document", purpose: "prefetch", as: "Purpose"},
		{purpose: "prefetch", as: "Sec-Purpose"},
		{from: "https://evil.example"},
		{from: "null"},
		{from: s.URL},
	} {
		t.Run(fmt.Sprintf("%+v", sent), func(t *testing.T) {
			answer := s.ask(t, "/login/op", func(r *http.Request) {
				for name, value := range map[string]string{
					"Sec-Fetch-Site": sent.site, "Sec-Fetch-Mode": sent.mode, "Sec-Fetch-Dest": sent.dest, "Origin": sent.from, sent.as: sent.purpose,
				} {
					if value != "" {
						r.Header.Set(name, value)
					}
				}
			})
			if sent.allowed {
				if answer.StatusCode != 302 || len(answer.Cookies()) != 1 {
					t.Errorf("%d %v", answer.StatusCode, answer.Header)
				}
				return
			}
			unmoved(t, answer.StatusCode, answer.Header)
		})
	}
	for _, method := range []string{"POST", "PUT", "HEAD", "OPTIONS", "PATCH", "DELETE"} {
		t.Run(method, func(t *testing.T) {
			answer := s.ask(t, "/login/op", func(r *http.Request) { r.Method = method })
			unmoved(t, answer.StatusCode, answer.Header)
		})
	}
	if n := s.OP.Calls("authorize"); n != len(origins) { // the links alone
		t.Errorf("%d requests at the provider", n)
	}
}

func TestAttack_AR06_StateFlooding(t *testing.T) { // not beside others: it measures the heap
	var counts *bridgetest.Counts
	s := newService(t, withCounts(t, &counts))
	s.warm(t)
	// A second replica without a log: what a test remembers would hide what the service remembers.
	b, err := bridge.New(t.Context(), s.Config, ruleset(t, s.Config), bridge.Options{Version: "test", Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	public := b.Public()
	addresses := 0
	flood := func(n int, target func(i int) string, status int) {
		t.Helper()
		for i := range n {
			if i%100 == 0 {
				addresses++
			}
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, s.URL+target(i), nil)
			r.RemoteAddr = fmt.Sprintf("203.0.%d.%d:999", addresses/256, addresses%256)
			if public.ServeHTTP(w, r); w.Code != status {
				t.Fatalf("%s: %d", target(i), w.Code)
			}
		}
	}
	inputs := map[string]func(n int){
		"starts": func(n int) { flood(n, func(int) string { return "/login/op" }, 302) },
		"starts with return": func(n int) {
			flood(n, func(i int) string { return fmt.Sprintf("/login/op?return_to=/%0500d", i) }, 302)
		},
		"starts at nobody": func(n int) { flood(n, func(i int) string { return fmt.Sprintf("/login/p%d", i) }, 404) },
		"callbacks": func(n int) {
			flood(n, func(i int) string { return fmt.Sprintf("/callback/op?code=c&state=s%d", i) }, 400)
		},
		"errors": func(n int) {
			flood(n, func(i int) string { return fmt.Sprintf("/callback/op?error=e%d&state=s%d", i, i) }, 400)
		},
		"callbacks at nobody": func(n int) {
			flood(n, func(i int) string { return fmt.Sprintf("/callback/p%d?code=c&state=s", i) }, 404)
		},
		"callbacks with nothing": func(n int) { flood(n, func(int) string { return "/callback/op" }, 400) },
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for name, flood := range inputs {
		t.Run(name, func(t *testing.T) {
			flood(100)
			counts.Reset()
			s.OP.ForgetRequests()
			before := heap()
			flood(2000)
			// What 2000 logins would need at 500 bytes each shows on the third try, too.
			grown := heap() - before
			for range 2 {
				if grown > 1<<20 {
					before = heap()
					flood(2000)
					grown = min(grown, heap()-before)
				}
			}
			if grown > 1<<20 {
				t.Errorf("the heap grew by %d bytes", grown)
			}
			if got := counts.Statements(); len(got) != 0 {
				t.Errorf("statements: %q", got)
			}
			for _, endpoint := range []string{"discovery", "jwks", "token", "userinfo"} {
				if n := s.OP.Calls(endpoint); n > 1 { // the second replica's own discovery
					t.Errorf("%d calls of %s", n, endpoint)
				}
			}
		})
	}
	t.Run("from one address", func(t *testing.T) {
		statuses := map[int]int{}
		transport := fromElsewhere()
		for range 200 {
			answer := s.askFrom(t, transport, "/login/op", nil)
			statuses[answer.StatusCode]++
			if answer.StatusCode != 302 && (answer.StatusCode != 429 || answer.Header.Get("Retry-After") == "" || len(answer.Cookies()) != 0 || answer.Header.Get("Location") != "") {
				t.Fatalf("%d %v", answer.StatusCode, answer.Header)
			}
		}
		if statuses[302] > 150 || statuses[302] < 100 {
			t.Errorf("%v", statuses)
		}
		if answer := s.ask(t, "/login/op", nil); answer.StatusCode != 302 {
			t.Errorf("another address is limited too: %d", answer.StatusCode)
		}
	})
	if n := row[int](t, s.DB, "SELECT ((SELECT count(*) FROM bridge.events WHERE kind <> 'login') + (SELECT count(*) FROM bridge.sessions))::int"); n != 1 {
		t.Errorf("%d rows, one login was", n)
	}
}

func TestAttack_AR07_ParallelLogins(t *testing.T) {
	t.Parallel()
	other := bridgetest.NewOP(t, bridgetest.OPOptions{})
	s := newService(t, withOther(other))
	s.knows(other)
	ctx := t.Context()
	var b *bridgetest.Browser // of the subtest
	open := func(t *testing.T, provider, returnTo string) *bridgetest.Page {
		t.Helper()
		page, err := b.Open(ctx, s.URL+"/login/"+provider+"?return_to="+returnTo)
		if err != nil || page.Status != 200 {
			t.Fatalf("%v %v", page, err)
		}
		return page
	}
	pending := func() (n, bytes int) {
		for _, c := range b.Cookies(s.URL) {
			bytes += len(c.Name) + len(c.Value) + 3
			if strings.HasPrefix(c.Name, "ls-") {
				n++
			}
		}
		return n, bytes
	}
	finish := func(t *testing.T, page *bridgetest.Page, want string) {
		t.Helper()
		answer, err := b.ChoosePersona(ctx, page, "carl")
		if err != nil {
			t.Fatal(err)
		}
		if answer.URL.Path != want {
			t.Errorf("%s: %d %s, want %s", answer.URL, answer.Status, answer.Text(), want)
		}
		if want != "/callback/op" {
			if token, _ := s.token(b); token.Status != 200 {
				t.Errorf("no token after the login to %s", want)
			}
		}
	}
	for round := range 4 {
		t.Run(fmt.Sprintf("five tabs, round %d", round), func(t *testing.T) {
			b = newVisitor()
			var tabs []*bridgetest.Page
			for i, provider := range []string{"op", "other", "op", "other", "op"} {
				tabs = append(tabs, open(t, provider, fmt.Sprintf("/tab%d", i)))
			}
			if n, bytes := pending(); n != 5 || bytes > 4096 {
				t.Errorf("%d pending, %d bytes", n, bytes)
			}
			for _, i := range rand.Perm(len(tabs)) {
				finish(t, tabs[i], fmt.Sprintf("/tab%d", i))
			}
			if n, _ := pending(); n != 0 {
				t.Errorf("%d left", n)
			}
		})
	}
	for name, returnTo := range map[string]string{"short": "/tab%02d", "long": "/tab%02d/" + strings.Repeat("x", 490)} {
		t.Run("fifty unfinished, return_to "+name, func(t *testing.T) {
			b = newVisitor()
			var tabs []*bridgetest.Page
			for i := range 50 {
				tabs = append(tabs, open(t, "op", fmt.Sprintf(returnTo, i)))
				if n, bytes := pending(); n > 5 || bytes > 4096 {
					t.Fatalf("%d pending, %d bytes", n, bytes)
				}
			}
			kept, _ := pending()
			if kept < 3 {
				t.Errorf("%d kept", kept)
			}
			for i, page := range tabs[50-kept-2:] { // two that were dropped, and the newest
				if i < 2 {
					finish(t, page, "/callback/op")
				} else {
					finish(t, page, fmt.Sprintf(returnTo, 50-kept-2+i))
				}
			}
		})
	}
	t.Run("planted cookies", func(t *testing.T) {
		b = newVisitor()
		page := open(t, "op", "/x")
		var name string
		for _, c := range b.Cookies(s.URL) {
			if strings.HasPrefix(c.Name, "ls-") {
				name = c.Name
			}
		}
		for i := range 20 {
			planted := &http.Cookie{Name: name[:len(name)-8] + fmt.Sprintf("%08x", i), Value: strings.Repeat("A", 100), Path: "/"}
			if err := b.SetCookie(s.URL, planted); err != nil {
				t.Fatal(err)
			}
		}
		second := open(t, "op", "/y")
		if n, bytes := pending(); n != 2 || bytes > 4096 {
			t.Errorf("%d pending, %d bytes", n, bytes)
		}
		finish(t, page, "/x")
		finish(t, second, "/y")
	})
}

func TestAttack_AR08_MixingUsers(t *testing.T) {
	t.Parallel()
	other := bridgetest.NewOP(t, bridgetest.OPOptions{})
	s := newService(t, withOther(other))
	s.knows(other)
	each := 25
	if os.Getenv("BRIDGE_ATTACK_FULL") != "" {
		each = 500
	}
	logins, ctx := errgroup.WithContext(t.Context())
	logins.SetLimit(16)
	for range each {
		for _, provider := range []string{"op", "other"} {
			for _, subject := range []string{"ada", "carl"} {
				logins.Go(func() error { return s.loginAs(ctx, provider, subject) })
			}
		}
	}
	if err := logins.Wait(); err != nil {
		t.Error(err)
	}
	const wrong = `SELECT count(*)::int FROM bridge.sessions s JOIN bridge.users u ON u.id = s.user_id JOIN bridge.identities i ON i.id = s.identity_id
		WHERE i.user_id <> u.id OR u.email <> i.subject || '@example.com'`
	if n := row[int](t, s.DB, wrong); n != 0 {
		t.Errorf("%d sessions of somebody else", n)
	}
	if n := row[int](t, s.DB, `SELECT count(*)::int FROM bridge.sessions`); n != 4*each {
		t.Errorf("%d sessions of %d logins", n, 4*each)
	}
	if n := row[int](t, s.DB, `SELECT count(*)::int FROM bridge.users`); n != 4 {
		t.Errorf("%d users of two people at two providers", n)
	}
	bridgetest.Tried(t, 4*each)
}

// loginAs logs in from start to token and holds the token to the person.
func (s *service) loginAs(ctx context.Context, provider, subject string) error {
	b := newVisitor()
	page, err := b.Open(ctx, s.URL+"/login/"+provider+"?return_to=/"+subject)
	if err != nil {
		return err
	}
	if page, err = b.ChoosePersona(ctx, page, subject); err != nil {
		return err
	}
	if page.URL.Path != "/"+subject {
		return fmt.Errorf("%s ended at %s: %s", subject, page.URL, page.Text())
	}
	answer, err := b.Fetch(ctx, http.MethodGet, s.URL+"/api_token", nil, "")
	if err != nil {
		return err
	}
	var body struct{ Token string }
	if err := answer.JSON(&body); err != nil {
		return err
	}
	if got := decoded(body.Token, 1); !strings.Contains(got, `"email":"`+subject+`@example.com"`) {
		return fmt.Errorf("%s got %s", subject, got)
	}
	return nil
}
