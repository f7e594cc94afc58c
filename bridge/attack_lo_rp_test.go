package bridge_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// press goes to the bridge's own page and presses the button.
func (s *service) press(t *testing.T, b *bridgetest.Browser, returnTo string) *bridgetest.Page {
	t.Helper()
	page := open(t, b, s.URL+"/logout?return_to="+url.QueryEscape(returnTo))
	page, err := b.Submit(t.Context(), page, "Log out", nil)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// forward follows the page's Refresh, as browsers do at once.
func forward(t *testing.T, b *bridgetest.Browser, page *bridgetest.Page) *bridgetest.Page {
	t.Helper()
	if page.Refresh() == nil {
		t.Fatalf("no Refresh: %d %v %s", page.Status, page.Header, page.Text())
	}
	page, err := b.Follow(t.Context(), page, page.Refresh().String())
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// issued keeps the ID tokens that the provider issues.
func (s *service) issued(set func(b *bridgetest.Behaviour)) func() string {
	var mu sync.Mutex
	var last string
	s.behave(func(b *bridgetest.Behaviour) {
		if set != nil {
			set(b)
		}
		b.RawIDToken = func(good string, _ func(header, claims map[string]any) string) string {
			mu.Lock()
			defer mu.Unlock()
			last = good
			return good
		}
	})
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}

func (s *service) sessions(t *testing.T) int {
	t.Helper()
	return row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions")
}

// endedHere checks the page of a logout that the provider has no part in.
func (s *service) endedHere(t *testing.T, b *bridgetest.Browser, page *bridgetest.Page) {
	t.Helper()
	if page.Status != 200 || page.Header.Get("Refresh") != "" || strings.Contains(string(page.Body), s.OP.Issuer()) || page.Title() != "You are logged out · "+page.URL.Host ||
		!strings.Contains(page.Text(), "At the provider you may still be logged in.") || page.Header.Get("Clear-Site-Data") != `"cache"` {
		t.Errorf("%d %v %s", page.Status, page.Header, page.Text())
	}
	if links := page.Links(); len(links) == 0 || links[0].URL.String() != s.URL+"/bye" {
		t.Errorf("links: %v", links)
	}
	if answer, _ := s.token(b); answer.Status != 401 {
		t.Errorf("the session lives: %d", answer.Status)
	}
}

// TestAttack_LO02_LogoutAtTheProvider: the session here ends first, and the provider is asked with exactly the ID token of the login.
func TestAttack_LO02_LogoutAtTheProvider(t *testing.T) {
	t.Parallel()
	inputs := 0
	states := map[string]bool{}
	// leaves holds the page to the request that RP-Initiated Logout 1.0 section 2 describes.
	leaves := func(t *testing.T, s *service, page *bridgetest.Page, target *url.URL, hint string, more url.Values) {
		t.Helper()
		q := target.Query()
		want := url.Values{"client_id": {"bridge"}, "post_logout_redirect_uri": {s.URL + "/logged-out"}, "state": {q.Get("state")}}
		maps.Copy(want, more)
		if hint != "" {
			want.Set("id_token_hint", hint)
		}
		if target.Scheme+"://"+target.Host+target.Path != s.OP.Issuer()+"/end_session" || q.Encode() != want.Encode() || len(q.Get("state")) != 43 || states[q.Get("state")] {
			t.Errorf("the provider is asked %s, want %s", target, want.Encode())
		}
		states[q.Get("state")] = true
		links := page.Links()
		if page.Status != 200 || page.Header.Get("Location") != "" || len(links) != 1 || links[0].URL.String() != target.String() {
			t.Errorf("%d %v", page.Status, links)
		}
		if page.Header.Get("Clear-Site-Data") != `"cache"` || page.Header.Get("Cache-Control") != "no-store" || page.Header.Get("Referrer-Policy") != "no-referrer" ||
			!strings.Contains(page.Header.Get("Content-Security-Policy"), "form-action 'self'") {
			t.Errorf("%v", page.Header)
		}
		if n := s.sessions(t); n != 0 || s.OP.Calls("end_session") != 0 {
			t.Errorf("%d sessions, and the provider was asked %d times already", n, s.OP.Calls("end_session"))
		}
	}
	t.Run("there and back", func(t *testing.T) {
		s := newService(t)
		idToken := s.issued(nil)
		for range 10 {
			inputs++
			b, _ := s.login("carl", "/")
			session := row[string](t, s.DB, "SELECT id::text FROM bridge.sessions")
			s.OP.ForgetRequests()
			page := s.press(t, b, "/bye?x=1#there")
			leaves(t, s, page, page.Refresh(), idToken(), nil)
			if got := page.Header.Get("Refresh"); got != "0; url="+page.Refresh().String() {
				t.Errorf("Refresh: %s", got)
			}
			if n := len(b.Cookies(s.URL)); n != 1 {
				t.Errorf("%d cookies", n)
			}
			c, err := http.ParseSetCookie(page.Header.Values("Set-Cookie")[2])
			if err != nil || !strings.HasPrefix(c.Name, "lo-") || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.MaxAge != 600 || c.Domain != "" {
				t.Errorf("%+v %v", c, err)
			}
			page = forward(t, b, page)
			if page.Status != 200 || page.URL.Path != "/logged-out" || !strings.Contains(page.Title(), "You are logged out") || len(b.Cookies(s.URL)) != 0 {
				t.Errorf("back at %s: %d %s, %d cookies", page.URL, page.Status, page.Text(), len(b.Cookies(s.URL)))
			}
			if links := page.Links(); links[0].URL.String() != s.URL+"/bye?x=1#there" {
				t.Errorf("links: %v", links)
			}
			requests := s.OP.Requests("end_session")
			if len(requests) != 1 || requests[0].Header.Get("Referer") != "" || requests[0].Form.Get("id_token_hint") != idToken() {
				t.Errorf("%+v", requests)
			}
			if got := row[string](t, s.DB, "SELECT kind || subject || session_id::text || coalesce(reason, '') FROM bridge.events ORDER BY id DESC LIMIT 1"); got != "logoutcarl"+session {
				t.Errorf("event: %s", got)
			}
		}
		if got := s.metric(t, `oidc_bridge_logouts_total{from="here",provider="op"}`); got != "10" {
			t.Errorf("%s logouts counted", got)
		}
	})
	t.Run("the endpoint has a query", func(t *testing.T) {
		inputs++
		s := newService(t)
		idToken := s.issued(func(b *bridgetest.Behaviour) {
			b.Discovery = func(m map[string]any) { m["end_session_endpoint"] = s.OP.Issuer() + "/end_session?policy=sign%20in&x" }
		})
		b, _ := s.login("carl", "/")
		s.OP.ForgetRequests()
		page := s.press(t, b, "/")
		leaves(t, s, page, page.Refresh(), idToken(), url.Values{"policy": {"sign in"}, "x": {""}})
	})
	t.Run("a path prefix", func(t *testing.T) {
		inputs++
		s := newService(t, withPrefix("/auth"))
		idToken := s.issued(nil)
		b, _ := s.login("carl", "/")
		s.OP.ForgetRequests()
		page := s.press(t, b, "/")
		leaves(t, s, page, page.Refresh(), idToken(), nil)
		if page = forward(t, b, page); page.URL.Path != "/auth/logged-out" || page.Links()[0].URL.Path != "/" || page.Links()[1].URL.Path != "/auth/login" {
			t.Errorf("%s %v", page.URL, page.Links())
		}
	})
	// Long ID tokens: too long for a header of ours, then too long for a request.
	for bytes, kept := range map[int]bool{2 << 10: true, 4 << 10: true, 7 << 10: false, 30 << 10: false} {
		t.Run(fmt.Sprint("an ID token of ", bytes), func(t *testing.T) {
			inputs++
			s := newService(t)
			idToken := s.issued(func(b *bridgetest.Behaviour) {
				b.IDTokenClaims = func(c map[string]any) { c["padding"] = strings.Repeat("x", bytes*3/4) }
			})
			b, _ := s.login("carl", "/")
			s.OP.ForgetRequests()
			if stored := row[bool](t, s.DB, "SELECT id_token IS NOT NULL FROM bridge.sessions"); stored != kept {
				t.Errorf("stored: %t", stored)
			}
			page := s.press(t, b, "/")
			target, hint := page.Refresh(), ""
			if kept {
				hint = idToken()
				if target = page.Links()[0].URL; page.Header.Get("Refresh") != "" {
					t.Errorf("a header of %d bytes", len(page.Header.Get("Refresh")))
				}
				if refresh := fmt.Sprintf(`<meta http-equiv="refresh" content="0; url=%s">`, strings.ReplaceAll(target.String(), "&", "&amp;")); !strings.Contains(string(page.Body), refresh) {
					t.Errorf("no %s in %s", refresh, page.Body)
				}
			}
			leaves(t, s, page, target, hint, nil)
		})
	}
	t.Run("whatever became of the session's user", func(t *testing.T) {
		s := newService(t, withConfig("session: { idle: 1h }"))
		for name, happens := range map[string]func(){
			"disabled":      func() { exec(t, s.DB, "UPDATE bridge.users SET disabled_at = now()") },
			"idle too long": func() { s.advance(2 * time.Hour) },
			"refused by the rules now": func() {
				exec(t, s.DB, "UPDATE bridge.users SET disabled_at = NULL; UPDATE bridge.sessions SET claims = '{}'")
			},
		} {
			inputs++
			exec(t, s.DB, "UPDATE bridge.users SET disabled_at = NULL")
			idToken := s.issued(nil)
			b, _ := s.login("carl", "/")
			s.OP.ForgetRequests()
			happens()
			page := s.press(t, b, "/")
			if page.Refresh() == nil {
				t.Errorf("%s: %s", name, page.Text())
				continue
			}
			leaves(t, s, page, page.Refresh(), idToken(), nil)
		}
	})
	t.Run("a provider without the endpoint", func(t *testing.T) {
		inputs++
		s := newService(t)
		s.issued(func(b *bridgetest.Behaviour) {
			b.Discovery = func(m map[string]any) { delete(m, "end_session_endpoint") }
		})
		b, _ := s.login("carl", "/")
		if row[bool](t, s.DB, "SELECT id_token IS NOT NULL FROM bridge.sessions") {
			t.Error("its ID token is kept for nothing")
		}
		s.endedHere(t, b, s.press(t, b, "/bye"))
	})
	t.Run("nobody is logged in", func(t *testing.T) {
		inputs++
		s := newService(t)
		b := newVisitor()
		s.endedHere(t, b, s.press(t, b, "/bye"))
	})
	// Replicas that know the session, and cannot ask its provider. Another one must not be shown its ID token.
	other := bridgetest.NewOP(t, bridgetest.OPOptions{})
	for name, test := range map[string]struct {
		old, by string
		prepare func(s *service)
		logged  string
	}{
		"the provider is down":        {"insecure_dev: true", "insecure_dev: true", func(s *service) { s.OP.Close() }, "provider cannot be reached"},
		"the provider was taken out":  {"\n  op:", "\n  another:", func(*service) {}, ""},
		"the provider is another one": {"issuer: OP", "issuer: OTHER", func(*service) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inputs++
			s := newService(t)
			b, _ := s.login("carl", "/")
			rules := ""
			if strings.Contains(test.by, "another") {
				rules = strings.ReplaceAll(s.DB.SQL(ordersRules), "op:", "another:")
				write(t, s.Dir+"/rules.yaml", strings.ReplaceAll(rules, "provider: op", "provider: another"))
			}
			addresses := strings.NewReplacer("OP", s.OP.Issuer(), "OTHER", other.Issuer())
			replica := s.reconfigured(addresses.Replace(test.old), addresses.Replace(test.by))
			test.prepare(s)
			r := httptest.NewRequest(http.MethodPost, "/logout", strings.NewReader("return_to=/bye"))
			r.Header = http.Header{"Sec-Fetch-Site": {"same-origin"}, "Content-Type": {"application/x-www-form-urlencoded"}}
			r.AddCookie(sessionCookie(t, s, b))
			w := httptest.NewRecorder()
			replica.ServeHTTP(w, r)
			here, _ := url.Parse(s.URL + "/logout")
			s.endedHere(t, b, &bridgetest.Page{URL: here, Status: w.Code, Header: w.Header(), Body: w.Body.Bytes()})
			if test.logged != "" && !slices.ContainsFunc(s.Log.Lines(), func(line string) bool {
				return strings.Contains(line, "no logout at the provider") && strings.Contains(line, test.logged)
			}) {
				t.Errorf("%q is not in the log", test.logged)
			}
		})
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_LO03_PostLogoutReturn: whatever comes back from the provider, or from anybody else, is a page and goes nowhere.
func TestAttack_LO03_PostLogoutReturn(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	s.behave(nil) // the provider has the bridge's clock
	const evil = "https://evil.example/<script>"
	// away logs in and out, and stops where the provider would send the browser back.
	away := func(t *testing.T) (b *bridgetest.Browser, state string) {
		t.Helper()
		b = newVisitor()
		s.loginWith(b, "carl", "/")
		return b, s.press(t, b, "/bye").Refresh().Query().Get("state")
	}
	shows := func(t *testing.T, b *bridgetest.Browser, query, back string) {
		t.Helper()
		inputs++
		page := open(t, b, s.URL+"/logged-out"+query)
		if page.Status != 200 || len(page.History) != 0 || page.Header.Get("Refresh") != "" || !strings.Contains(page.Title(), "You are logged out") ||
			page.Header.Get("Cache-Control") != "no-store" || strings.Contains(string(page.Body), "evil") || strings.Contains(string(page.Body), "http-equiv") {
			t.Errorf("%s: %d %v %s", query, page.Status, page.Header, page.Body)
		}
		if links := page.Links(); len(links) != 2 || links[0].URL.String() != s.URL+back || links[1].URL.String() != s.URL+"/login" {
			t.Errorf("%s: links %v, want %s", query, links, back)
		}
		if answer, _ := s.token(b); answer.Status != 401 {
			t.Errorf("%s: /api_token answers %d", query, answer.Status)
		}
	}
	extra := "&return_to=" + url.QueryEscape(evil) + "&post_logout_redirect_uri=" + url.QueryEscape(evil) + "&rd=//evil.example&next=//evil.example&url=/evil" +
		"&error=access_denied&error_description=" + url.QueryEscape(evil) + "&iss=" + url.QueryEscape(evil)

	b, state := away(t)
	_, others := away(t)
	for _, query := range []string{
		"", "?", "?state", "?state=", "?state=" + others, "?state=" + state[1:], "?state=" + state + "A", "?state=" + strings.ToLower(state), "?State=" + state, "?state=" + strings.Repeat("A", 43),
		"?state=" + strings.Repeat("A", 5000), "?state=%00", "?state=%ff", "?state=<script>evil</script>", "?state=" + others + "&state=" + state, "?x" + extra, "?state=" + others + extra,
	} {
		shows(t, b, query, "/") // and the state is still good afterwards:
	}
	shows(t, b, "?state="+state+extra, "/bye")
	shows(t, b, "?state="+state, "/") // once

	t.Run("the cookie is not this browser's, or not ours", func(t *testing.T) {
		b, state := away(t)
		name, value := b.Cookies(s.URL)[0].Name, b.Cookies(s.URL)[0].Value
		shows(t, newVisitor(), "?state="+state, "/")
		login := newVisitor()
		open(t, login, s.URL+"/login/op")
		for _, planted := range []string{"", "x", value[1:], value[:len(value)-1], value[:20] + "A" + value[21:] + "A", strings.ToUpper(value), login.Cookies(s.URL)[0].Value, value + value} {
			other := newVisitor()
			if err := other.SetCookie(s.URL, &http.Cookie{Name: name, Value: planted, Path: "/"}); err != nil {
				t.Fatal(err)
			}
			shows(t, other, "?state="+state, "/")
		}
		twice := b.Clone()
		if err := twice.SetCookie(s.URL, &http.Cookie{Name: name, Value: value, Path: "/logged-out"}); err != nil {
			t.Fatal(err)
		}
		shows(t, twice, "?state="+state, "/")
		shows(t, b, "?state="+state, "/bye")
	})
	t.Run("too late", func(t *testing.T) {
		b, state := away(t)
		b.Now = time.Now // the browser's clock stands still, so that it still has the cookie
		s.advance(11 * time.Minute)
		shows(t, b, "?state="+state, "/")
	})
	t.Run("two logouts at once", func(t *testing.T) {
		b, first := away(t)
		s.loginWith(b, "carl", "/")
		second := s.press(t, b, "/bye").Refresh().Query().Get("state")
		shows(t, b, "?state="+first, "/")
		shows(t, b, "?state="+second, "/bye")
	})
	t.Run("somebody who is logged in is not told that they are not", func(t *testing.T) {
		inputs++
		b := newVisitor()
		s.loginWith(b, "carl", "/")
		page := open(t, b, s.URL+"/logged-out?state=x")
		if answer, _ := s.token(b); page.Status != 200 || !strings.Contains(page.Title(), "Log out?") || answer.Status != 200 {
			t.Errorf("%d %s, /api_token %d", page.Status, page.Title(), answer.Status)
		}
	})
	t.Run("by methods that change things", func(t *testing.T) {
		for _, method := range []string{"POST", "PUT", "DELETE", "HEAD", "PATCH"} {
			inputs++
			r, _ := http.NewRequestWithContext(t.Context(), method, s.URL+"/logged-out?state=x", nil)
			if response := do(t, r); response.StatusCode != 405 || response.Header.Get("Allow") != "GET" {
				t.Errorf("%s: %d", method, response.StatusCode)
			}
		}
	})
	bridgetest.Tried(t, inputs)
}
