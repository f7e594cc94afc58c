package bridge_test

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestAttack_LO10_LogoutRaces: whichever comes first, after a logout there is no session of it, and none comes back.
func TestAttack_LO10_LogoutRaces(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t, withProvider("userinfo: always"))
	other := s.replica(t, "off")
	// sid makes the provider's logins belong to its session, "" to none.
	sid := func(value string, more func(b *bridgetest.Behaviour)) {
		s.behave(func(b *bridgetest.Behaviour) {
			b.IDTokenClaims = func(c map[string]any) {
				if c["iat"], c["exp"], c["sid"] = s.now().Unix(), s.now().Unix()+300, value; value == "" {
					delete(c, "sid")
				}
			}
			if more != nil {
				more(b)
			}
		})
	}
	named := map[string]struct {
		sid   string // of the login
		token map[string]any
	}{
		"by sid": {"S", map[string]any{"sid": "S"}}, "by both": {"S", map[string]any{"sid": "S", "sub": "carl"}},
		"by sub": {"S", map[string]any{"sub": "carl"}}, "by both, and the login has no sid": {"", map[string]any{"sid": "S", "sub": "carl"}}, "by sub, and the login has no sid": {"", map[string]any{"sub": "carl"}},
	}
	clean := func() {
		exec(t, s.DB, "DELETE FROM bridge.sessions; DELETE FROM bridge.provider_logouts")
		s.advance(2 * time.Second)
	}
	keptOut := func(t *testing.T, b *bridgetest.Browser, page *bridgetest.Page) {
		t.Helper()
		inputs++
		if answer, _ := s.token(b); page.Status != 403 || !strings.Contains(page.Text(), "Your provider ended this login before it was finished") || answer.Status != 401 || s.sessions(t) != 0 {
			t.Errorf("%d %s, /api_token %d, %d sessions: %s", page.Status, page.Text(), answer.Status, s.sessions(t), s.logged(page))
		}
		if got := row[string](t, s.DB, "SELECT concat_ws(' ', kind, subject, reason) FROM bridge.events ORDER BY id DESC LIMIT 1"); got != "refused carl logged out at the provider meanwhile" {
			t.Errorf("event: %s", got)
		}
	}
	for name, test := range named {
		t.Run("during the callback, "+name, func(t *testing.T) {
			clean()
			sid(test.sid, func(b *bridgetest.Behaviour) {
				b.Handle["userinfo"] = func(http.ResponseWriter, *http.Request) bool { // the ID token has been issued by now
					if got := s.sendLogout(t, post{to: other.url, token: s.logoutToken(t, nil, test.token)}).StatusCode; got != 200 {
						t.Errorf("the logout: %d", got)
					}
					return false
				}
			})
			b := newVisitor()
			keptOut(t, b, open(t, b, s.waiting(t, b).String()))
		})
	}
	t.Run("before the callback, by sid", func(t *testing.T) {
		clean()
		sid("S", nil)
		b := newVisitor()
		callback := s.waiting(t, b).String()
		if got := s.sendLogout(t, post{to: other.url, token: s.logoutToken(t, nil, map[string]any{"sid": "S"})}).StatusCode; got != 200 {
			t.Fatalf("the logout: %d", got)
		}
		s.advance(9 * time.Minute) // as long as a login may take, the logout is known
		query(t, s.DB, "SELECT bridge.sweep($1, '2000-01-01', 1000)", s.now())
		keptOut(t, b, open(t, b, callback))
	})
	t.Run("the next login", func(t *testing.T) {
		for name, test := range named {
			clean()
			inputs++
			sid(test.sid, nil)
			if got := s.sendLogout(t, post{token: s.logoutToken(t, nil, test.token)}).StatusCode; got != 200 {
				t.Fatalf("%s: %d", name, got)
			}
			s.advance(time.Second)
			sid("another", nil)
			b := newVisitor()
			if page := s.loginWith(b, "carl", "/"); s.sessions(t) != 1 {
				t.Errorf("%s: %s", name, page.Text())
			}
			// Nor does a logout of the time before end it.
			old := s.logoutClaims(map[string]any{"sid": "S", "iat": s.now().Unix() - 60})
			token, err := s.OP.Sign(nil, old)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.sendLogout(t, post{token: token}).StatusCode; got != 200 || s.sessions(t) != 1 {
				t.Errorf("%s, an old one: %d, %d sessions", name, got, s.sessions(t))
			}
		}
	})
	t.Run("callback and logout at once", func(t *testing.T) {
		in, out := 0, 0
		for round := range 60 {
			for name, test := range named {
				if round%5 != 0 && name != "by sid" {
					continue
				}
				clean()
				inputs++
				// The token response waits for the logout to be on its way.
				var token string
				var group sync.WaitGroup
				sid(test.sid, func(b *bridgetest.Behaviour) {
					b.Handle["userinfo"] = func(http.ResponseWriter, *http.Request) bool {
						group.Go(func() {
							if got := s.sendLogout(t, post{to: other.url, token: token}).StatusCode; got != 200 {
								t.Errorf("%s: the logout: %d", name, got)
							}
						})
						return false
					}
				})
				// It is about the login, which may begin in the next second.
				claims := maps.Clone(test.token)
				claims["iat"] = s.now().Unix() + 2
				token = s.logoutToken(t, nil, claims)
				b := newVisitor()
				page := open(t, b, s.waiting(t, b).String())
				group.Wait()
				if page.Status == 403 {
					out++
				} else {
					in++
				}
				bridgetest.Await(t, "no session to be left", func() bool { answer, _ := s.token(b); return answer.Status == 401 })
				if n := s.sessions(t); n != 0 {
					t.Errorf("%s: %d sessions", name, n)
				}
			}
		}
		t.Logf("%d logouts ended a session, %d a login", in, out)
	})
	t.Run("a session in use", func(t *testing.T) {
		for round := range 6 {
			clean()
			inputs++
			sid("S", nil)
			b, _ := s.login("carl", "/")
			cookie := sessionCookie(t, s, b)
			stop := s.inUse(t, cookie, other.url)
			bridgetest.Await(t, "some uses to be written", func() bool {
				return row[bool](t, s.DB, "SELECT coalesce(bool_or(last_seen_at > created_at), false) FROM bridge.sessions")
			})
			if round%2 == 0 {
				token := s.logoutToken(t, nil, map[string]any{"sid": "S", "exp": s.now().Unix() + 600}) // the clock runs fast here
				if got := s.sendLogout(t, post{to: other.url, token: token}).StatusCode; got != 200 {
					t.Errorf("the logout: %d", got)
				}
			} else {
				s.press(t, b.Clone(), "/")
			}
			ended := func() bool { return s.statusAt(t, s.URL, cookie) == 401 && s.statusAt(t, other.url, cookie) == 401 }
			bridgetest.Await(t, "the end everywhere", ended)
			stop()
			if n := s.sessions(t); n != 0 || !ended() {
				t.Errorf("%d sessions", n)
			}
		}
	})
	t.Run("here and at the provider at once", func(t *testing.T) {
		for range 10 {
			clean()
			inputs++
			sid("S", nil)
			b, _ := s.login("carl", "/")
			events := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.events")
			token := s.logoutToken(t, nil, map[string]any{"sid": "S", "sub": "carl"})
			var group sync.WaitGroup
			group.Go(func() {
				if got := s.sendLogout(t, post{to: other.url, token: token}).StatusCode; got != 200 {
					t.Errorf("the provider got %d", got)
				}
			})
			page := s.press(t, b, "/")
			group.Wait()
			if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.events") - events; page.Status != 200 || s.sessions(t) != 0 || n != 1 {
				t.Errorf("%d, %d sessions, %d events", page.Status, s.sessions(t), n)
			}
		}
	})
	t.Run("crowds", func(t *testing.T) { // of logins and logouts that take the same locks: nobody waits for ever
		clean()
		sid("S", nil)
		var group sync.WaitGroup
		for i := range 40 {
			inputs++
			more := []map[string]any{{"sub": "carl"}, {"sid": "S"}, {"sub": "carl", "sid": "S"}, {"sub": "ada", "sid": "S"}}[i%4]
			token := s.logoutToken(t, nil, more)
			group.Go(func() {
				if i%2 == 0 {
					if got := s.sendLogout(t, post{to: []string{s.URL, other.url}[i/2%2], token: token}).StatusCode; got != 200 {
						t.Errorf("logout: %d", got)
					}
					return
				}
				b := newVisitor()
				page := open(t, b, s.URL+"/login/op?return_to=/")
				page, err := b.ChoosePersona(t.Context(), page, []string{"carl", "ada"}[i/2%2])
				if err != nil || page.Status >= 500 {
					t.Errorf("login: %v %v", page, err)
				}
			})
		}
		group.Wait()
		if got := s.sendLogout(t, post{token: s.logoutToken(t, nil, map[string]any{"sid": "S"})}).StatusCode; got != 200 || s.sessions(t) != 0 {
			t.Errorf("in the end: %d, %d sessions", got, s.sessions(t))
		}
	})
	bridgetest.Tried(t, inputs)
}

// inUse uses a session at the service and at another bridge, and has its decision change now and then, until it is stopped.
func (s *service) inUse(t *testing.T, cookie *http.Cookie, other string) (stop func()) {
	var stopped atomic.Bool
	var group sync.WaitGroup
	for i := range 6 {
		address := []string{s.URL, other}[i%2]
		group.Go(func() {
			for !stopped.Load() {
				s.advance(time.Second) // or there would be no last use to be written
				s.statusAt(t, address, cookie)
			}
		})
	}
	group.Go(func() {
		for i := 0; !stopped.Load(); i++ {
			exec(t, s.DB, fmt.Sprintf("UPDATE bridge.sessions SET rule = 'old %d', role = NULL", i))
		}
	})
	stop = sync.OnceFunc(func() { stopped.Store(true); group.Wait() })
	t.Cleanup(stop)
	return stop
}
