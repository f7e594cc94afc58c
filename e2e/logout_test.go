package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// A sentLogout is a request of a provider at a back-channel logout address, and the bridge's answer.
type sentLogout struct {
	connection  string
	contentType string
	token       string
	status      int
	cache       string // Cache-Control
}

// hearLogouts stands in front of the bridge's back-channel logout addresses.
func (s *shop) hearLogouts(bridge http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer := httptest.NewRecorder()
		bridge.ServeHTTP(answer, r)
		form, _ := url.ParseQuery(string(body))
		s.mu.Lock()
		s.logouts = append(s.logouts, sentLogout{
			r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:], r.Header.Get("Content-Type"), form.Get("logout_token"), answer.Code, answer.Header().Get("Cache-Control"),
		})
		s.mu.Unlock()
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}
}

// wantLogouts takes what providers have sent since it was asked last: tokens for these connections, each of them good.
func (s *shop) wantLogouts(t *testing.T, connections ...string) {
	t.Helper()
	s.mu.Lock()
	sent := s.logouts
	s.logouts = nil
	s.mu.Unlock()
	var got []string
	for _, l := range sent {
		got = append(got, l.connection)
		if l.status != http.StatusOK || l.cache != "no-store" {
			t.Errorf("logout of %s: status %d, Cache-Control %q", l.connection, l.status, l.cache)
		}
		t.Logf("%s sent %s %s", l.connection, l.contentType, strings.Join(parts(t, l.token), " "))
	}
	slices.Sort(got)
	if !slices.Equal(got, connections) {
		t.Errorf("logout tokens for %q, want %q", got, connections)
	}
}

// parts are header and payload of a JWT.
func parts(t *testing.T, token string) (texts []string) {
	t.Helper()
	for part := range strings.SplitSeq(token, ".") {
		text, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			t.Fatalf("%v in %s", err, token)
		}
		texts = append(texts, string(text))
	}
	return texts[:len(texts)-1]
}

// ask fetches the API as the page does, with this token.
func (w *window) ask(token string) (status int) {
	w.t.Helper()
	return evaluate[int](w, fmt.Sprintf(`fetch("/orders", { headers: { Authorization: "Bearer %s" } }).then(answer => answer.status)`, token))
}

// wantEnded holds that the session of the window is over, and with it the token that it had.
func (w *window) wantEnded(token string) {
	w.t.Helper()
	w.open(w.shop.origin + "/")
	// A plain fetch may be answered by the browser's cache, where the token may be; PostgREST refuses it all the same.
	if got := evaluate[int](w, `fetch("/auth/api_token", { cache: "reload" }).then(answer => answer.status)`); got != http.StatusUnauthorized {
		w.t.Errorf("api_token: status %d, want 401", got)
	}
	if got := w.ask(token); got != http.StatusUnauthorized {
		w.t.Errorf("the API takes the token that is out: status %d", got)
	}
	w.wantNoToken()
}

func (w *window) wantLive(token string) {
	w.t.Helper()
	if got := w.ask(token); got != http.StatusOK {
		w.t.Errorf("orders: status %d, want 200", got)
	}
}

// pressLogOut presses the button of the orders page.
func (w *window) pressLogOut() {
	w.t.Helper()
	w.open(w.shop.origin + "/")
	w.do(chromedp.WaitVisible(ordersView))
	w.click("form[action='/auth/logout'] button")
}

// TestLogout is RP-initiated and back-channel logout with oidc-provider, in Chromium.
func TestLogout(t *testing.T) {
	s := newShop(t)
	issuer := s.startProvider(t, "0")
	s.setUp(t, issuer)
	s.serve(t)
	pages := oidcProviderPages(issuer)
	login := func(w *window, connection, name string) string {
		w.t.Helper()
		w.open(s.public + "/login/" + connection + "?return_to=/")
		pages.logIn(w, name)
		w.do(chromedp.WaitVisible(ordersView))
		token := w.token().Token
		w.wantLive(token)
		return token
	}

	t.Run("here", func(t *testing.T) {
		w, elsewhere := s.openWindow(t), s.openWindow(t)
		token, other := login(w, "basic", "carl"), login(elsewhere, "basic", "carl")
		w.pressLogOut()
		w.see("Sign out")
		w.shot("provider")
		if got := s.sessionsOf(t, "carl"); got != 1 {
			t.Errorf("carl has %d sessions, want 1", got)
		}
		pages.agree(w)
		w.wantLoggedOut()
		s.wantLogouts(t, "basic") // for the session that has ended here already
		w.wantEnded(token)
		elsewhere.wantLive(other)
		login(w, "basic", "carl") // it asks for the password
	})

	t.Run("there", func(t *testing.T) {
		w, elsewhere := s.openWindow(t), s.openWindow(t)
		token, other := login(w, "basic", "cora"), login(elsewhere, "basic", "cora")
		pages.logOut(w)
		s.wantLogouts(t, "basic")
		w.wantEnded(token)
		elsewhere.wantLive(other)
		elsewhere.wantToken("cora@example.com", "customer")
		login(w, "basic", "cora")
	})
}

// sessionsOf counts the sessions of a person.
func (s *shop) sessionsOf(t *testing.T, name string) int {
	t.Helper()
	return s.count(t, fmt.Sprintf("bridge.sessions s JOIN bridge.users u ON u.id = s.user_id WHERE u.email = '%s@example.com'", name))
}

// logouts are the same with Keycloak.
func (k *keycloak) logouts(t *testing.T) {
	s := k.shop
	login := func(w *window, connection, name string) string {
		w.t.Helper()
		w.open(s.public + "/login/" + connection + "?return_to=/")
		k.pages().logIn(w, name)
		w.do(chromedp.WaitVisible(ordersView))
		token := w.token().Token
		w.wantLive(token)
		return token
	}
	var people []struct{ ID string }
	k.admin(t, http.MethodGet, "/shop/users?username=ben", nil, &people)
	sessions := func() int {
		t.Helper()
		var sessions []any
		k.admin(t, http.MethodGet, "/shop/users/"+people[0].ID+"/sessions", nil, &sessions)
		return len(sessions)
	}
	signOut := func(t *testing.T) { // as an administrator; it is a token for each session
		t.Helper()
		k.admin(t, http.MethodPost, "/shop/users/"+people[0].ID+"/logout", map[string]any{}, nil)
		if got := sessions(); got != 0 {
			t.Errorf("%d sessions are left at Keycloak", got)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.logouts = nil
	}
	signOut(t) // from the tests before

	t.Run("here", func(t *testing.T) {
		w, elsewhere := s.openWindow(t), s.openWindow(t)
		token, other := login(w, "roles", "ben"), login(elsewhere, "roles", "ben")
		if got := sessions(); got != 2 {
			t.Fatalf("%d sessions at Keycloak", got)
		}
		w.pressLogOut()
		w.wantLoggedOut()
		w.shot("logged-out")
		if got := sessions(); got != 1 {
			t.Errorf("%d sessions at Keycloak, want the other window's", got)
		}
		s.wantLogouts(t, "roles")
		w.wantEnded(token)
		elsewhere.wantLive(other)
		login(w, "roles", "ben") // it asks for the password
	})

	t.Run("there", func(t *testing.T) {
		w, elsewhere := s.openWindow(t), s.openWindow(t)
		token, other := login(w, "roles", "ben"), login(elsewhere, "roles", "ben")
		k.pages().logOut(w)
		s.wantLogouts(t, "roles")
		w.wantEnded(token)
		elsewhere.wantLive(other)
		elsewhere.wantToken("ben@example.com", "customer")
	})

	t.Run("by an administrator", func(t *testing.T) {
		before := s.sessionsOf(t, "ben") // the tests before left some, of which Keycloak does not know all any more
		w, elsewhere := s.openWindow(t), s.openWindow(t)
		token, other := login(w, "roles", "ben"), login(elsewhere, "roles", "ben")
		signOut(t)
		w.wantEnded(token)
		elsewhere.wantEnded(other)
		if got := s.sessionsOf(t, "ben"); got > before {
			t.Errorf("ben has %d sessions, of which %d are from before", got, before)
		}
	})

	t.Run("there, with two connections", func(t *testing.T) {
		w := s.openWindow(t)
		token := login(w, "roles", "ben")
		w.open(s.public + "/login/groups?return_to=/") // it does not ask who this is
		w.see("Grant Access")
		w.click("#kc-login")
		w.do(chromedp.WaitVisible(ordersView))
		again := w.token().Token
		k.pages().logOut(w)
		s.wantLogouts(t, "groups", "roles")
		w.wantEnded(token)
		w.wantEnded(again)
	})

	t.Run("there, without session required", func(t *testing.T) {
		attributes := maps.Clone(k.client(t)["attributes"].(map[string]any))
		attributes["backchannel.logout.session.required"] = "false"
		k.changeClient(t, "attributes", attributes)
		w, elsewhere := s.openWindow(t), s.openWindow(t)
		token, other := login(w, "roles", "ben"), login(elsewhere, "roles", "ben")
		k.pages().logOut(w)
		s.wantLogouts(t, "roles")
		w.wantEnded(token)
		elsewhere.wantEnded(other) // its token names nobody but the person
	})

	// docs/keycloak.md says what to do about that.
	t.Run("Keycloak says nothing when it disables somebody", func(t *testing.T) {
		w := s.openWindow(t)
		token := login(w, "roles", "ben")
		var person map[string]any
		k.admin(t, http.MethodGet, "/shop/users/"+people[0].ID, nil, &person)
		enable := func(yes bool) {
			person["enabled"] = yes
			k.admin(t, http.MethodPut, "/shop/users/"+people[0].ID, person, nil)
		}
		t.Cleanup(func() { enable(true) })
		enable(false)
		s.wantLogouts(t)
		w.wantLive(token)
		signOut(t)
		w.wantEnded(token)
	})
}
