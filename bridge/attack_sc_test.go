package bridge_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestAttack_SC10_ProviderTokensAtRest: what the database keeps of a provider's tokens is good for nothing elsewhere: not in a dump, not in
// another session, not in another column, not with a bit changed.
func TestAttack_SC10_ProviderTokensAtRest(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	idToken := s.issued(nil)
	// ended logs out and reports whose ID token the provider is shown; "" for none.
	ended := func(t *testing.T, b *bridgetest.Browser) string {
		t.Helper()
		inputs++
		page := s.press(t, b, "/bye")
		if page.Refresh() == nil {
			s.endedHere(t, b, page)
			return ""
		}
		return page.Refresh().Query().Get("id_token_hint")
	}
	login := func(subject string) (*bridgetest.Browser, string) {
		b := newVisitor()
		s.loginWith(b, subject, "/")
		return b, idToken()
	}
	ada, adas := login("ada")
	dump := row[string](t, s.DB, "SELECT jsonb_agg(to_jsonb(s))::text || (SELECT jsonb_agg(to_jsonb(e))::text FROM bridge.events e) FROM bridge.sessions s")
	for _, part := range strings.Split(adas, ".") {
		if strings.Contains(dump, part) || strings.Contains(dump, fmt.Sprintf("%x", part)) {
			t.Errorf("the dump holds %.20s…", part)
		}
	}
	if got := ended(t, ada); got != adas {
		t.Errorf("control: %.40s", got)
	}
	broken := 0
	for name, sql := range map[string]string{
		"another session's":  "UPDATE bridge.sessions s SET id_token = o.id_token FROM bridge.sessions o WHERE o.id <> s.id",
		"both swapped":       "UPDATE bridge.sessions s SET id_token = o.id_token FROM bridge.sessions o WHERE o.id <> s.id",
		"a bit of the nonce": "UPDATE bridge.sessions SET id_token = set_bit(id_token, 3, 1 - get_bit(id_token, 3))",
		"a bit of the text":  "UPDATE bridge.sessions SET id_token = set_bit(id_token, 200, 1 - get_bit(id_token, 200))",
		"a bit of the tag":   "UPDATE bridge.sessions SET id_token = set_bit(id_token, 8 * length(id_token) - 1, 1 - get_bit(id_token, 8 * length(id_token) - 1))",
		"cut":                "UPDATE bridge.sessions SET id_token = substr(id_token, 1, length(id_token) - 1)",
		"longer":             "UPDATE bridge.sessions SET id_token = id_token || '\\x00'",
		"empty":              "UPDATE bridge.sessions SET id_token = ''",
		"short":              "UPDATE bridge.sessions SET id_token = '\\x00'",
		"plain text":         "UPDATE bridge.sessions SET id_token = 'eyJhbGciOiJub25lIn0.e30.'",
	} {
		t.Run(name, func(t *testing.T) {
			one, _ := login("ada")
			two, _ := login("carl")
			exec(t, s.DB, sql)
			for _, b := range []*bridgetest.Browser{one, two} {
				broken++
				if got := ended(t, b); got != "" {
					t.Errorf("the provider is shown %.60s", got)
				}
			}
		})
	}
	lines := 0
	for _, line := range s.Log.Lines() {
		if strings.Contains(line, "no logout at the provider") && strings.Contains(line, "sealed by none of our keys") {
			lines++
		}
	}
	if lines != broken || s.sessions(t) != 0 {
		t.Errorf("%d lines in the log for %d broken tokens, %d sessions", lines, broken, s.sessions(t))
	}
	t.Run("keys that are exchanged", func(t *testing.T) {
		b, token := login("carl")
		keys := func(keys ...string) http.Handler {
			return s.reconfigured(`cookie_keys: ["`+cookieKey(1)+`"]`, `cookie_keys: ["`+strings.Join(keys, `", "`)+`"]`)
		}
		post := func(h http.Handler) string {
			inputs++
			r := httptest.NewRequest(http.MethodPost, "/logout", nil)
			r.Header = http.Header{"Sec-Fetch-Site": {"same-origin"}}
			r.AddCookie(sessionCookie(t, s, b))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Header().Get("Refresh")
		}
		if refresh := post(keys(cookieKey(2))); refresh != "" || s.sessions(t) != 1 {
			t.Errorf("without the key: %.40s, %d sessions", refresh, s.sessions(t))
		}
		if refresh := post(keys(cookieKey(2), cookieKey(1))); !strings.Contains(refresh, token) || s.sessions(t) != 0 {
			t.Errorf("with both: %.40s, %d sessions", refresh, s.sessions(t))
		}
	})
	bridgetest.Tried(t, inputs)
}
