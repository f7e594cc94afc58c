package bridge_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// The logout profiles of the suite. In each module the relying party logs in and then out, by its own page; the provider may answer in a way
// of its own, and, in the second plan, sends a logout token meanwhile. The person is logged in at a second browser too: what the suite cannot
// see, a bad token ending somebody's session, shows there.

type logoutModule struct {
	name   string
	set    func(b *bridgetest.Behaviour)
	config string
	answer int    // to the logout token; 0: none is sent
	cause  string // in the log, when it is refused
}

func logoutConformance(t *testing.T, modules []logoutModule) {
	t.Parallel()
	for _, m := range modules {
		t.Run(m.name, func(t *testing.T) {
			s := newService(t, withProvider("userinfo: always\n    "+m.config))
			if m.answer == 0 {
				s.OP.AddClient(bridgetest.Client{ID: "bridge", Secret: clientSecret, RedirectURIs: []string{s.URL + "/callback/op"}, PostLogoutRedirectURIs: []string{s.URL + "/logged-out"}})
			}
			idToken := s.issued(m.set)
			elsewhere, _ := s.login("carl", "/")
			b, _ := s.login("carl", "/")
			issued := idToken()

			page := s.press(t, b, "/bye")
			if answer, _ := s.token(b); answer.Status != 401 {
				t.Errorf("still logged in before the provider was asked: %d", answer.Status)
			}
			page = forward(t, b, page)
			if page.Status != 200 || page.URL.Path != "/logged-out" || !strings.Contains(page.Title(), "You are logged out") {
				t.Errorf("back at %s: %d %s", page.URL, page.Status, page.Text())
			}
			if answer, _ := s.token(b); answer.Status != 401 {
				t.Errorf("logged in again: %d", answer.Status)
			}
			requests := s.OP.Requests("end_session")
			if len(requests) != 1 || requests[0].Form.Get("id_token_hint") != issued || requests[0].Form.Get("post_logout_redirect_uri") != s.URL+"/logged-out" || requests[0].Form.Get("state") == "" {
				t.Errorf("end_session: %+v", requests)
			}

			sent := s.OP.Logouts()
			if m.answer == 0 {
				if len(sent) != 0 {
					t.Errorf("%d logout tokens", len(sent))
				}
				return
			}
			// The suite takes 200 alone for a success, and looks for no-store.
			if len(sent) != 1 || sent[0].Status != m.answer || !strings.Contains(sent[0].Header.Get("Cache-Control"), "no-store") {
				t.Fatalf("%+v", sent)
			}
			if m.cause != "" && !s.Log.Contains(m.cause) {
				t.Errorf("%q is not in %q", m.cause, s.Log.Lines())
			}
			if answer, _ := s.token(elsewhere); answer.Status != 200 {
				t.Errorf("the other browser: %d", answer.Status)
			}
		})
	}
}

// TestConformance_RPInitiatedLogout is oidcc-client-rp-initiated-logout-rp-basic.
func TestConformance_RPInitiatedLogout(t *testing.T) {
	returned := func(change func(p url.Values)) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) { b.PostLogoutResponse = change }
	}
	logoutConformance(t, []logoutModule{
		{name: "oidcc-client-test-rp-init-logout"},
		{name: "oidcc-client-test-rp-init-logout-other-state", set: returned(func(p url.Values) { p.Set("state", "another"+p.Get("state")) })},
		{name: "oidcc-client-test-rp-init-logout-no-state", set: returned(func(p url.Values) { p.Del("state") })},
	})
}

// TestConformance_BackChannelLogout is oidcc-client-back-channel-logout-rp-basic.
func TestConformance_BackChannelLogout(t *testing.T) {
	claims := func(change func(c map[string]any)) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) { b.LogoutTokenClaims = change }
	}
	untyped := func(b *bridgetest.Behaviour) { // as the suite signs
		b.LogoutTokenHeader = func(h map[string]any) { h["typ"] = nil }
	}
	modules := []logoutModule{
		{name: "", set: untyped, answer: 200},
		{name: "-alg-none", set: func(b *bridgetest.Behaviour) {
			b.RawLogoutToken = func(good string, _ func(header, claims map[string]any) string) string {
				return encode([]byte(`{"alg":"none"}`)) + "." + strings.Split(good, ".")[1] + "."
			}
		}, answer: 400, cause: form},
		{name: "-no-event", set: claims(func(c map[string]any) { delete(c, "events") }), answer: 400, cause: "token refused: events"},
		{name: "-with-nonce", set: claims(func(c map[string]any) { c["nonce"] = "n" }), answer: 400, cause: "token refused: nonce"},
		{name: "-wrong-alg", set: func(b *bridgetest.Behaviour) {
			b.LogoutTokenHeader = func(h map[string]any) { h["alg"], h["kid"] = "ES256", "ES256-1" }
		}, answer: 400, cause: algorithm},
		{name: "-wrong-aud", set: claims(func(c map[string]any) { c["aud"] = fmt.Sprint(c["aud"], "1") }), answer: 400, cause: "token refused: "},
		{name: "-wrong-event", set: claims(func(c map[string]any) { c["events"] = map[string]any{logoutEvent + "1": map[string]any{}} }), answer: 400, cause: "token refused: events"},
		{name: "-wrong-iss", set: claims(func(c map[string]any) { c["iss"] = fmt.Sprint(c["iss"], "1") }), answer: 400, cause: "token refused: "},
	}
	for i := range modules {
		modules[i].name = "oidcc-client-test-rp-backchannel-rpinitlogout" + modules[i].name
	}
	logoutConformance(t, modules)
}
