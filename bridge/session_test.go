package bridge_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
)

func TestLogout(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("carl", "/")
	stolen := b.Clone()
	page, err := b.Open(t.Context(), s.URL+"/logout?return_to=/bye")
	if err != nil {
		t.Fatal(err)
	}
	if answer, _ := s.token(b); answer.Status != 200 {
		t.Fatalf("GET /logout changed something: %d", answer.Status)
	}
	page, err = b.Open(t.Context(), page.URL.String())
	if err != nil {
		t.Fatal(err)
	}
	page, err = b.Submit(t.Context(), page, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if page.Status != 200 || page.Header.Get("Clear-Site-Data") != `"cache"` || page.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", page.Status, page.Header)
	}
	if links := forward(t, b, page).Links(); len(links) == 0 || links[0].URL.Path != "/bye" {
		t.Errorf("links: %v", links)
	}
	for name, who := range map[string]*bridgetest.Browser{"the browser": b, "a copy of its cookies": stolen} {
		if answer, body := s.token(who); answer.Status != 401 || body["token"] != nil {
			t.Errorf("%s got %d after logout", name, answer.Status)
		}
	}
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions"); n != 0 {
		t.Errorf("%d sessions", n)
	}
	if page, err = b.Open(t.Context(), s.URL+"/logout"); err != nil {
		t.Fatal(err)
	}
	if page, err = b.Submit(t.Context(), page, "", nil); err != nil || page.Status != 200 {
		t.Errorf("a second logout: %d %v", page.Status, err)
	}
}

// logOut presses the button of the page of logout.
func (s *service) logOut(t *testing.T, b *bridgetest.Browser) {
	t.Helper()
	page, err := b.Open(t.Context(), s.URL+"/logout")
	if err == nil {
		_, err = b.Submit(t.Context(), page, "", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// postsFromElsewhere are the headers of POSTs that none of our own pages sends.
func (s *service) postsFromElsewhere() map[string]http.Header {
	return map[string]http.Header{
		"cross-site form":       {"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}},
		"same-site form":        {"Origin": {"http://127.0.0.1:1"}, "Sec-Fetch-Site": {"same-site"}},
		"sandboxed frame":       {"Origin": {"null"}, "Sec-Fetch-Site": {"cross-site"}},
		"typed or extension":    {"Sec-Fetch-Site": {"none"}},
		"old browser, evil":     {"Origin": {"https://evil.example"}},
		"old browser, null":     {"Origin": {"null"}},
		"neither header":        {},
		"our host, other port":  {"Origin": {"http://127.0.0.1:1"}},
		"our origin, and a lie": {"Origin": {s.URL}, "Sec-Fetch-Site": {"cross-site"}},
	}
}

// TestAttack_LO01_LogoutCSRF: nobody but our own page can end a session.
func TestAttack_LO01_LogoutCSRF(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	for name, header := range s.postsFromElsewhere() {
		inputs++
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/logout", nil)
		request.Header = header
		request.AddCookie(cookie)
		if response := do(t, request); response.StatusCode != 403 || len(response.Cookies()) > 0 {
			t.Errorf("%s: %d %v", name, response.StatusCode, response.Cookies())
		}
	}
	if page, _ := s.token(b); page.Status != 200 {
		t.Errorf("the session ended: %d", page.Status)
	}
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/logout", nil)
	request.Header = http.Header{"Origin": {s.URL}}
	request.AddCookie(cookie)
	if response := do(t, request); response.StatusCode != 200 {
		t.Errorf("our own page in a browser without Fetch Metadata: %d", response.StatusCode)
	}
	bridgetest.Tried(t, inputs)
}

func do(t *testing.T, request *http.Request) *http.Response {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response
}

func TestAttack_SC06_IdleAndAbsoluteEnd(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t, withConfig("session: { idle: 1h, absolute: 150m }"))
	b, _ := s.login("carl", "/")
	for _, step := range []struct {
		advance time.Duration
		status  int
	}{{0, 200}, {50 * time.Minute, 200}, {50 * time.Minute, 200}, {45 * time.Minute, 200}, {6 * time.Minute, 401}} {
		inputs++
		s.advance(step.advance)
		page, body := s.token(b)
		if page.Status != step.status {
			t.Fatalf("after %s: %d, want %d", time.Duration(s.clock.Load()), page.Status, step.status)
		}
		if step.advance > 40*time.Minute {
			s.awaitUse(t, time.Minute)
		}
		if step.advance == 45*time.Minute {
			if in := body["expires_in"].(float64); in > 300 {
				t.Errorf("a token of %v s outlives the session", in)
			}
		}
	}
	b, _ = s.login("carl", "/")
	s.advance(61 * time.Minute)
	if page, _ := s.token(b); page.Status != 401 {
		t.Errorf("idle for 61 minutes: %d", page.Status)
	}
	bridgetest.Tried(t, inputs)
}

// TestSessionIsTouchedAtMostOnceAMinute counts the writes of a busy page.
func TestSessionIsTouchedAtMostOnceAMinute(t *testing.T) {
	t.Parallel()
	var counts *bridgetest.Counts
	s := newService(t, withCounts(t, &counts))
	b, _ := s.login("carl", "/")
	s.token(b)
	counts.Reset()
	for step := range 20 {
		s.advance(10 * time.Second)
		s.token(b)
		if step%6 == 5 {
			s.awaitUse(t, 10*time.Second)
		}
	}
	writes := 0
	for _, statement := range counts.Statements() {
		if strings.Contains(statement, "UPDATE bridge.sessions") {
			writes++
		}
	}
	if writes != 3 {
		t.Errorf("%d writes in 200 seconds: %q", writes, counts.Statements())
	}
}

// awaitUse waits until the database knows that the session was used less than a while ago.
func (s *service) awaitUse(t *testing.T, ago time.Duration) {
	t.Helper()
	bridgetest.Await(t, "the last use of the session is written", func() bool {
		return s.now().Sub(row[time.Time](t, s.DB, "SELECT last_seen_at FROM bridge.sessions ORDER BY created_at DESC LIMIT 1")) < ago
	})
}

// httpsService is a bridge with a public host name, called without a network; its database is never reached.
func httpsService(t *testing.T, more string) http.Handler {
	t.Helper()
	return httpsServiceAt(t, more, time.Now)
}

func httpsServiceAt(t *testing.T, more string, now func() time.Time) http.Handler {
	t.Helper()
	config, findings := bridge.LoadConfig("config.yaml", []byte(goodConfig+more), noEnvironment)
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	return handlerAt(t, config, "version: 1\nproviders: { corp: { preset: generic } }\nroles: { customer: {} }\n"+
		"rules: [ { name: all, when: { email: { present: true } }, role: customer } ]\ndefault: deny\n", now)
}

// handler is a bridge without a network.
func handler(t *testing.T, config *bridge.Config, rulesText string) http.Handler {
	t.Helper()
	return handlerAt(t, config, rulesText, time.Now)
}

func handlerAt(t *testing.T, config *bridge.Config, rulesText string, now func() time.Time) http.Handler {
	t.Helper()
	rules, findings := mapping.Load("rules.yaml", []byte(rulesText))
	if rules == nil {
		t.Fatal(findings)
	}
	b, err := bridge.New(t.Context(), config, rules, bridge.Options{Version: "test", Log: bridgetest.NewLog(t).Logger(), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b.Public()
}

// ask returns the status of a GET with the cookie.
func ask(h http.Handler, path string, cookie *http.Cookie) int {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.AddCookie(cookie)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

func TestAttack_SC02_CookieAttributes(t *testing.T) {
	t.Parallel()
	config, findings := bridge.LoadConfig("config.yaml", []byte(goodConfig), noEnvironment)
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	cookies, err := bridge.NewCookies(config, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	cookies.PutSession(w, bridge.NewSessionToken())
	if err := cookies.PutLogin(w, httptest.NewRequest("GET", "/", nil), bridge.NewLoginState("corp", "/"+strings.Repeat("x", 511), time.Now())); err != nil {
		t.Fatal(err)
	}
	cookies.CountLogin(w, httptest.NewRequest("GET", "/", nil))
	cookies.ClearSession(w)
	if err := cookies.PutLogin(w, stale(t, cookies), bridge.NewLoginState("corp", "/", time.Now())); err != nil { // clears what it drops
		t.Fatal(err)
	}
	set := w.Result().Cookies()
	for _, c := range set {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" ||
			len(c.String()) > 4096 {
			t.Errorf("%s", c)
		}
	}
	// Two bridges on one host do not take each other's cookies.
	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(set[0])
	if _, found := cookies.Session(r); !found {
		t.Error("our own cookie is not ours")
	}
	others := []string{"https://app.example.com/other", "https://app.example.com", "https://app.example.com/auth/", "https://app.example.com:8443/auth", "https://www.example.com/auth", "https://app.example.com/authx"}
	for _, url := range others {
		other, findings := bridge.LoadConfig("config.yaml", []byte(strings.Replace(goodConfig, "https://app.example.com/auth", url, 1)), noEnvironment)
		if other == nil {
			t.Fatal(findings)
		}
		theirs, err := bridge.NewCookies(other, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if _, found := theirs.Session(r); found != (url == "https://app.example.com/auth/") {
			t.Errorf("the session cookie at %s: %v", url, found)
		}
	}
	// No public_url makes cookies that travel in the clear, but on this machine.
	insecure := []string{"http://app.example.com/auth", "http://10.0.0.1/auth", "http://localhost.example.com", "http://127.0.0.1.nip.io", "http://0.0.0.0:8080", "http://[::]:8080", "http://169.254.1.1", "http://localhost."}
	for _, url := range insecure {
		for _, dev := range []string{"", "insecure_dev: true\n"} {
			if c, _ := bridge.LoadConfig("config.yaml", []byte(dev+strings.Replace(goodConfig, "https://app.example.com/auth", url, 1)), noEnvironment); c != nil {
				t.Errorf("%s is taken with %q", url, dev)
			}
		}
	}
	bridgetest.Tried(t, len(set)+len(others)+2*len(insecure))
}

// stale is a request of a browser with more logins under way than there may be, and one cookie that is none.
func stale(t *testing.T, cookies *bridge.Cookies) *http.Request {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	for range 6 {
		w := httptest.NewRecorder()
		if err := cookies.PutLogin(w, httptest.NewRequest("GET", "/", nil), bridge.NewLoginState("corp", "/", time.Now())); err != nil {
			t.Fatal(err)
		}
		r.AddCookie(w.Result().Cookies()[0])
	}
	r.AddCookie(&http.Cookie{Name: r.Cookies()[0].Name + "x", Value: "nonsense"})
	return r
}

// TestAttack_SC03_CookieTossing: what another application of the host or site plants is no session.
func TestAttack_SC03_CookieTossing(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	b, _ := s.login("carl", "/")
	c := sessionCookie(t, s, b)
	good := c.Name + "=" + c.Value
	for header, want := range map[string]int{
		good:                                    200,
		"other=1; " + good + "; more=2":         200,
		good + "; " + c.Name + "=x":             401,
		c.Name + "=x; " + good:                  401,
		good + "; " + good:                      401,
		strings.ToUpper(c.Name) + "=" + c.Value: 401,
		"\u2000" + good:                         401,
		"\x85" + good:                           401,
		"__Host-" + good:                        401,
		c.Name + "=" + c.Value + "AA":           401,
		c.Name + "=" + c.Value[:63]:             401,
		c.Name + "=" + c.Value[:63] + "!":       401,
		c.Name + "=":                            401,
		"$Version=1; " + c.Name + "=\"\"":       401,
	} {
		inputs++
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api_token", nil)
		request.Header["Cookie"] = []string{header}
		if response := do(t, request); response.StatusCode != want {
			t.Errorf("%q: %d, want %d", header, response.StatusCode, want)
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_SC11_CookieContextConfusion: no cookie of ours stands in for another.
func TestAttack_SC11_CookieContextConfusion(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b := bridgetest.NewBrowser()
	if _, err := b.Open(t.Context(), s.URL+"/login"); err != nil {
		t.Fatal(err)
	}
	login := b.Cookies(s.URL)[0]
	logged, _ := s.login("carl", "/")
	session := sessionCookie(t, s, logged)

	asSession := *login
	asSession.Name = session.Name
	b.SetCookie(s.URL, &asSession)
	if page, _ := s.token(b); page.Status != 401 {
		t.Errorf("a login state as session: %d", page.Status)
	}
	// Another login's sealed state under the name that this state leads to, and the session token in its place.
	_, state := s.start(bridgetest.NewBrowser())
	victim := bridgetest.NewBrowser()
	_, mine := s.start(victim)
	for _, c := range victim.Cookies(s.URL) {
		for _, value := range []string{login.Value, session.Value} {
			swapped := *c
			swapped.Value = value
			thief := bridgetest.NewBrowser()
			thief.SetCookie(s.URL, &swapped)
			for _, st := range []string{mine, state} {
				page, err := thief.Open(t.Context(), s.URL+"/callback/op?code=x&state="+url.QueryEscape(st))
				if err != nil || page.Status != 400 {
					t.Errorf("%d %v", page.Status, err)
				}
			}
		}
	}
	if calls := s.OP.Calls("token"); calls != 1 {
		t.Errorf("%d token requests, the login made one", calls)
	}
	bridgetest.Tried(t, 5)
}

// start begins a login and returns the provider's page and the state that went there.
func (s *service) start(b *bridgetest.Browser) (*bridgetest.Page, string) {
	s.t.Helper()
	page, err := b.Open(s.t.Context(), s.URL+"/login/op")
	if err != nil {
		s.t.Fatal(err)
	}
	return page, page.URL.Query().Get("state")
}
