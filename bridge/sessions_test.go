package bridge_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// asAgent logs in with a browser that says it is this one.
func (s *service) asAgent(t *testing.T, subject, userAgent string) *bridgetest.Browser {
	t.Helper()
	b := bridgetest.NewBrowser()
	b.UserAgent = userAgent
	if page := s.loginWith(b, subject, "/"); page.URL.Path != "/" {
		t.Fatalf("%s: %s", page.Text(), s.logged(page))
	}
	return b
}

const (
	firefoxOnLinux = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
	safariOnIPhone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1"
	chromeOnMac    = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)

func (s *service) open(t *testing.T, b *bridgetest.Browser, path string) *bridgetest.Page {
	t.Helper()
	page, err := b.Open(t.Context(), s.URL+path)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func (s *service) submit(t *testing.T, b *bridgetest.Browser, page *bridgetest.Page, button string, values url.Values) *bridgetest.Page {
	t.Helper()
	page, err := b.Submit(t.Context(), page, button, values)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// TestSessionsPage: people see their own sessions and no others, and end one of them, all others, or their own.
func TestSessionsPage(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "/some/auth"} {
		s := newService(t, withPrefix(prefix), withProvider("name: The Company"))
		s.behave(nil)
		path := func(of *bridgetest.Page) string { return strings.TrimPrefix(of.URL.Path, prefix) }
		linux := s.asAgent(t, "carl", firefoxOnLinux)
		page := s.open(t, linux, "/sessions")
		if text := page.Text(); page.Status != 200 || !strings.Contains(text, "and nowhere else") || strings.Contains(text, "End") {
			t.Errorf("one session: %d %s", page.Status, text)
		}
		s.advance(3 * time.Hour)
		phone, mac, cora := s.asAgent(t, "carl", safariOnIPhone), s.asAgent(t, "carl", chromeOnMac), s.asAgent(t, "cora", "Opera OPR/1 Windows")
		mine := row[string](t, s.DB, "SELECT string_agg(s.id::text, ' ') FROM bridge.sessions s JOIN bridge.users u ON u.id = s.user_id WHERE u.name = 'Carl'")

		page = s.open(t, linux, "/sessions")
		text := regexp.MustCompile(` +,`).ReplaceAllString(page.Text(), ",")
		for _, want := range []string{
			"Firefox on Linux this browser The Company logged in 3 hours ago, used just now Log out", "Safari on iPhone The Company logged in just now, used just now End", "Chrome on Mac", "End all others",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in %q", want, text)
			}
		}
		if strings.Contains(text, "Opera") || page.Header.Get("Cache-Control") != "no-store" || strings.Contains(string(page.Body), "<script") {
			t.Errorf("%v %s", page.Header, page.Body)
		}
		for _, form := range page.Forms() {
			if id := form.Fields.Get("end"); id != "" && id != "others" && !strings.Contains(mine, id) {
				t.Errorf("a session of somebody else: %v", form)
			}
		}

		// The list begins with this browser; then come those that were used last.
		page = s.submit(t, linux, page, "End", url.Values{"end": {idOf(t, s, safariOnIPhone)}})
		if page.Status != 200 || path(page) != "/sessions" || strings.Contains(page.Text(), "iPhone") || !strings.Contains(page.Text(), "Chrome on Mac") {
			t.Errorf("after the end of one: %d %s %s", page.Status, page.URL, page.Text())
		}
		for name, want := range map[*bridgetest.Browser]int{phone: 401, mac: 200, linux: 200, cora: 200} {
			if answer, _ := s.token(name); answer.Status != want {
				t.Errorf("after the end of one: %d, want %d", answer.Status, want)
			}
		}
		if n := row[int](t, s.DB, `SELECT count(*)::int FROM bridge.events WHERE kind = 'logout' AND subject = 'carl' AND reason LIKE 'ended by the person, in session %'`); n != 1 {
			t.Errorf("%d events", n)
		}
		s.asAgent(t, "carl", "curl/8.5.0")
		page = s.submit(t, linux, s.open(t, linux, "/sessions"), "End all others", nil)
		if path(page) != "/sessions" || !strings.Contains(page.Text(), "and nowhere else") {
			t.Errorf("after the end of all others: %s %s", page.URL, page.Text())
		}
		if answer, _ := s.token(mac); answer.Status != 401 {
			t.Errorf("after the end of all others: %d", answer.Status)
		}

		// One's own id, in a request that says it is another's, is a logout.
		s.asAgent(t, "carl", "curl/8.5.0")
		page = s.submit(t, linux, s.open(t, linux, "/sessions"), "End", url.Values{"end": {idOf(t, s, firefoxOnLinux)}})
		if page.Status != 200 || path(page) != "/logout" || page.Header.Get("Clear-Site-Data") != `"cache"` {
			t.Errorf("one's own id: %d %s %s", page.Status, page.URL, page.Text())
		}
		if answer, _ := s.token(linux); answer.Status != 401 {
			t.Errorf("after logout: %d", answer.Status)
		}
		page = s.open(t, linux, "/sessions")
		if path(page) == "/sessions" || len(page.History) == 0 || path(page.History[1]) != "/login" {
			t.Fatalf("without a session: %s %s", page.URL, page.Text())
		}
		page, err := linux.ChoosePersona(t.Context(), page, "carl")
		if err != nil || path(page) != "/sessions" || !strings.Contains(page.Text(), "this browser") {
			t.Errorf("after the login: %v %v", page, err)
		}
		if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions s JOIN bridge.users u ON u.id = s.user_id WHERE u.name = 'Cora'"); n != 1 {
			t.Errorf("%d sessions of somebody else are left", n)
		}
	}
}

// idOf is the public id of the newest session of a browser.
func idOf(t *testing.T, s *service, userAgent string) string {
	t.Helper()
	return row[string](t, s.DB, "SELECT id::text FROM bridge.sessions WHERE user_agent = $1 ORDER BY created_at DESC LIMIT 1", userAgent)
}

// TestAttack_SC07_SomebodyElsesSession: whoever knows the id of a session (it is in every token) ends it no more than whoever does not; nor can
// another site end anything.
func TestAttack_SC07_SomebodyElsesSession(t *testing.T) {
	t.Parallel()
	s := newService(t)
	carl, cora := s.asAgent(t, "carl", firefoxOnLinux), s.asAgent(t, "cora", safariOnIPhone)
	s.asAgent(t, "carl", chromeOnMac)
	cookie, own, hers := sessionCookie(t, s, carl), idOf(t, s, chromeOnMac), idOf(t, s, safariOnIPhone)
	post := func(header http.Header, body string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/sessions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header = header.Clone()
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.AddCookie(cookie)
		return do(t, request).StatusCode
	}
	inputs, before := 0, s.rows(t)
	ours := http.Header{"Origin": {s.URL}, "Sec-Fetch-Site": {"same-origin"}}
	for body, want := range map[string]int{
		"end=" + hers: 303, "end=" + strings.ToUpper(own): 400, "end=" + own + "&end=" + own: 400, "end=": 400, "": 400, "end=%00": 400, "end=OTHERS": 400, "end={" + own + "}": 400,
		"end=%27 OR true --": 400, "end=" + own + "%0a": 400, "END=" + own: 400, "end[]=" + own: 400, "end=5e0c9a5c-8a52-4b4c-9d0c-3f1f0f6f7a01": 303, "end=" + strings.Repeat("x", 65<<10): 413,
	} {
		inputs++
		if status := post(ours, body); status != want {
			t.Errorf("%.60s: %d, want %d", body, status, want)
		}
	}
	for name, header := range s.postsFromElsewhere() {
		for _, body := range []string{"end=" + own, "end=others"} {
			inputs++
			if status := post(header, body); status != 403 {
				t.Errorf("%s, %s: %d", name, body, status)
			}
		}
	}
	// The page is for people who go there: no frame, image or script gets it.
	for _, header := range []http.Header{
		{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}},
		{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"no-cors"}, "Sec-Fetch-Dest": {"image"}},
		{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"iframe"}},
		{"Origin": {"https://evil.example"}},
		{"Sec-Fetch-Site": {"none"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Sec-Purpose": {"prefetch"}},
	} {
		inputs++
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/sessions", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header = header
		request.AddCookie(cookie)
		if response := do(t, request); response.StatusCode != 403 {
			t.Errorf("%v: %d", header, response.StatusCode)
		}
	}
	if rows := s.rows(t); rows != before {
		t.Errorf("%d rows of users and sessions, %d before", rows, before)
	}
	if answer, _ := s.token(cora); answer.Status != 200 {
		t.Errorf("somebody else: %d", answer.Status)
	}
	if status := post(http.Header{"Origin": {s.URL}}, "end="+own); status != 303 || s.rows(t) != before-1 {
		t.Errorf("our own page, in a browser without Fetch Metadata: %d", status)
	}
	bridgetest.Tried(t, inputs)
}

// TestSessionsPageIsLong: a person with many sessions sees the last hundred, and ends all the others.
func TestSessionsPageIsLong(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b := s.asAgent(t, "carl", firefoxOnLinux)
	exec(t, s.DB, `INSERT INTO bridge.sessions (id, token_hash, user_id, identity_id, provider, claims, created_at, last_seen_at, idle_expires_at, expires_at)
SELECT gen_random_uuid(), sha256(n::text::bytea), user_id, identity_id, 'gone', '{}', now() - n * interval '1 hour', now() - n * interval '1 hour',
	CASE WHEN n > 160 THEN now() ELSE idle_expires_at END, expires_at FROM bridge.sessions, generate_series(1, 170) n`)
	page := s.open(t, b, "/sessions")
	text := page.Text()
	if n := strings.Count(text, "Unknown device"); n != 99 || !strings.Contains(text, "And 61 more") || !strings.Contains(text, "gone") || !strings.Contains(text, "4 days ago") {
		t.Errorf("%d others are shown: %s", n, text)
	}
	page = s.submit(t, b, page, "End all others", nil)
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions"); n != 1 || !strings.Contains(page.Text(), "nowhere else") {
		t.Errorf("%d sessions are left: %s", n, page.Text())
	}
}

// TestSessionsPageOnReplicas: what one replica's page ends is refused by those that remember it.
func TestSessionsPageOnReplicas(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r := s.replica(t, "auto")
	b, other := s.asAgent(t, "carl", firefoxOnLinux), s.asAgent(t, "carl", safariOnIPhone)
	cookie := sessionCookie(t, s, other)
	for range 2 {
		if status := r.status(cookie); status != 200 {
			t.Fatal(status)
		}
	}
	s.submit(t, b, s.open(t, b, "/sessions"), "End all others", nil)
	bridgetest.Await(t, "refused", func() bool { return r.status(cookie) == 401 })
	// The replica that ends one need not hear of it.
	other = s.asAgent(t, "carl", safariOnIPhone)
	cookie = sessionCookie(t, s, other)
	for range 2 {
		r.status(cookie)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/sessions", strings.NewReader("end=others"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Origin": {s.URL}, "Content-Type": {"application/x-www-form-urlencoded"}}
	request.AddCookie(sessionCookie(t, s, b))
	if status := do(t, request).StatusCode; status != 303 || r.status(cookie) != 401 {
		t.Errorf("%d, and the session has not ended there", status)
	}
}
