package bridge_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestAttack_SC06_SessionsOfOneUser: with session.max_per_user the oldest goes when there would be one too many. Sessions that have ended do
// not count, nor does the one that a login replaces, nor do those of others; any number of logins at once come to no more.
func TestAttack_SC06_SessionsOfOneUser(t *testing.T) {
	t.Parallel()
	s := newService(t, withConfig("session: { max_per_user: 3 }"))
	statuses := func(browsers []*bridgetest.Browser) (out string) {
		for _, b := range browsers {
			page, _ := s.token(b)
			out += fmt.Sprint(page.Status, " ")
		}
		return strings.TrimSpace(out)
	}
	expect := func(what, want string, browsers []*bridgetest.Browser) {
		t.Helper()
		if got := statuses(browsers); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	cora, _ := s.login("cora", "/")
	var carl []*bridgetest.Browser
	for range 5 {
		b, _ := s.login("carl", "/")
		carl = append(carl, b)
	}
	expect("five logins", "401 401 200 200 200", carl)
	expect("of somebody else", "200", []*bridgetest.Browser{cora})
	if events := row[string](t, s.DB, `SELECT string_agg(e.reason || ' ' || (u.name = 'Carl')::text, ', ') FROM bridge.events e JOIN bridge.users u ON u.id = e.user_id WHERE kind = 'revoke'`); events !=
		"more sessions than session.max_per_user (3) true, more sessions than session.max_per_user (3) true" {
		t.Errorf("events: %s", events)
	}

	s.loginWith(carl[3], "carl", "/") // in a browser that has a session: that one ends, no other
	expect("the same browser again", "200 200 200", carl[2:])
	exec(t, s.DB, "UPDATE bridge.sessions SET idle_expires_at = now() WHERE id = (SELECT s.id FROM bridge.sessions s JOIN bridge.identities i ON i.id = s.identity_id WHERE subject = 'carl' ORDER BY s.created_at DESC LIMIT 1)")
	b, _ := s.login("carl", "/")
	expect("the newest has ended by itself", "200 401 200 200", append(carl[2:], b))

	var group sync.WaitGroup
	browsers := make([]*bridgetest.Browser, 10)
	for i := range browsers {
		browsers[i] = newVisitor()
		group.Go(func() {
			page, err := browsers[i].Open(t.Context(), s.URL+"/login?return_to=/")
			if err == nil {
				_, err = browsers[i].ChoosePersona(t.Context(), page, "carl")
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := strings.Count(statuses(browsers), "200"); got != 3 {
		t.Errorf("of ten logins at once, %d have a session", got)
	}
	expect("before those ten", "401 401 401 401", append(carl[2:], b))
	expect("of somebody else, at last", "200", []*bridgetest.Browser{cora})
	bridgetest.Tried(t, 17)
}

// TestAttack_SC06_EndsOnReplicas: a replica that remembers a session knows when it ends, without a query and without being told.
func TestAttack_SC06_EndsOnReplicas(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.behave(nil)
	remembering, pooled := s.replica(t, "auto"), s.replica(t, "off")
	for _, end := range []string{"idle_expires_at", "expires_at"} {
		b, _ := s.login("carl", "/")
		cookie := sessionCookie(t, s, b)
		exec(t, s.DB, "UPDATE bridge.sessions SET "+end+" = '"+s.now().Add(15*time.Second).Format(time.RFC3339Nano)+"'")
		// The change is heard of at some time; what is read after it is remembered.
		bridgetest.Await(t, "the replica remembers the session", func() bool {
			before := remembering.queries()
			return remembering.status(cookie) == 200 && remembering.queries() == before
		})
		s.advance(16 * time.Second)
		for _, r := range []*replica{remembering, pooled} {
			if status := r.status(cookie); status != 401 {
				t.Errorf("%s has passed, and a replica says %d", end, status)
			}
		}
	}
	bridgetest.Tried(t, 4)
}

// TestParallelLoginsInOneBrowser: tabs that log in at the same time end with one session, that of the last one; the others' is over, and all
// tabs have the last one's.
func TestParallelLoginsInOneBrowser(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b := bridgetest.NewBrowser()
	var tabs []*bridgetest.Page
	for range 3 {
		tabs = append(tabs, s.open(t, b, "/login?return_to=/"))
	}
	cookies := map[string]bool{}
	var before *bridgetest.Browser
	for i, subject := range []string{"carl", "carl", "cora"} {
		page, err := b.ChoosePersona(t.Context(), tabs[i], subject)
		if err != nil || page.URL.Path != "/" {
			t.Fatalf("tab %d: %v %v", i, page, err)
		}
		cookies[sessionCookie(t, s, b).Value] = true
		if before != nil {
			if page, _ := s.token(before); page.Status != 401 {
				t.Errorf("tab %d: the session before it answers %d", i, page.Status)
			}
		}
		before = b.Clone()
	}
	_, answer := s.token(b)
	name := row[string](t, s.DB, "SELECT name FROM bridge.users WHERE id = '"+fmt.Sprint(claims(t, answer["token"])["user_id"])+"'")
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions"); len(cookies) != 3 || n != 1 || name != "Cora" {
		t.Errorf("%d cookies, %d sessions, the token is %s's", len(cookies), n, name)
	}
}

// TestAttack_SC12_NothingIsKept: no cache may keep what somebody has seen while logged in, but for the token, which a cache must not give to
// anybody with another cookie; logout makes the browser forget that one.
func TestAttack_SC12_NothingIsKept(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	b := s.asAgent(t, "carl", firefoxOnLinux)
	cookie := sessionCookie(t, s, b)
	ask := func(method, path string) *http.Response {
		inputs++
		request, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", s.URL)
		if method == http.MethodGet {
			request.Header = http.Header{}
		}
		request.AddCookie(cookie)
		return do(t, request)
	}
	pages := []string{"/login", "/login/op", "/callback/op", "/callback/op?code=x&state=y", "/me", "/auth", "/sessions", "/logout", "/.well-known/jwks.json", "/nothing", "/login/other"}
	paths := append([]string{"/api_token"}, pages...)
	for round, want := range []int{200, 401} {
		for _, path := range paths {
			response := ask(http.MethodGet, path)
			kept := response.Header.Get("Cache-Control")
			if path == "/api_token" {
				if response.StatusCode != want {
					t.Errorf("round %d: %d", round, response.StatusCode)
				}
				if want == 200 {
					if !strings.HasPrefix(kept, "private, max-age=") || !strings.Contains(strings.Join(response.Header.Values("Vary"), ","), "Cookie") {
						t.Errorf("/api_token: %v", response.Header)
					}
					continue
				}
			}
			if kept != "no-store" {
				t.Errorf("GET %s: %d, Cache-Control %q", path, response.StatusCode, kept)
			}
		}
		if response := ask(http.MethodPost, "/sessions"); response.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("POST /sessions: %v", response.Header)
		}
		if response := ask(http.MethodPost, "/logout"); response.Header.Get("Cache-Control") != "no-store" || response.Header.Get("Clear-Site-Data") != `"cache"` {
			t.Errorf("POST /logout: %v", response.Header)
		}
	}
	// Back, to what the browser does not have any more.
	page := s.open(t, b, "/sessions")
	if strings.Contains(page.Text(), "this browser") || page.URL.Path == "/sessions" {
		t.Errorf("after logout: %s %s", page.URL, page.Text())
	}
	bridgetest.Tried(t, inputs)
}
