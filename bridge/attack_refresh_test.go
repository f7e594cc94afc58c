package bridge_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A followed service asks its provider, which rotates refresh tokens and ends a login of which one is used twice.
type followed struct{ *service }

const offline = "scopes: [openid, email, profile, offline_access]"

func newFollowed(t *testing.T, set ...setting) followed {
	t.Helper()
	s := newService(t, append([]setting{withOneClock(), withProvider(offline)}, set...)...)
	return followed{s}
}

// due logs somebody in and lets the time pass until the provider is to be asked again.
func (s followed) due(t *testing.T, subject string) *bridgetest.Browser {
	t.Helper()
	s.OP.SetPersonas(personas...)
	s.OP.Set(correct)
	b, page := s.login(subject, "/orders")
	if page.URL.Path != "/orders" {
		t.Fatalf("%s: %s", page.Text(), s.logged(page))
	}
	s.pass()
	return b
}

// pass lets session.recheck pass.
func (s followed) pass() {
	s.advance(15 * time.Minute)
	s.OP.ForgetRequests()
}

// asks checks the role that a token has now, "" for a 401, and how often that asks the provider.
func (s followed) asks(t *testing.T, b *bridgetest.Browser, role string, calls int) {
	t.Helper()
	before := s.OP.Calls("token")
	page, answer := s.token(b)
	got := ""
	if page.Status == 200 {
		got, _ = claims(t, answer["token"])["role"].(string)
	} else if page.Status != 401 || page.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %s", page.Status, page.Body)
	}
	if role != "" {
		role = s.DB.Role(role)
	}
	if got != role {
		t.Errorf("role %q, want %q", got, role)
	}
	if n := s.OP.Calls("token") - before; n != calls {
		t.Errorf("%d token requests, want %d", n, calls)
	}
}

// session returns a column of somebody's newest session as text, "" without any.
func (s followed) session(t *testing.T, subject, column string) string {
	t.Helper()
	return row[string](t, s.DB, fmt.Sprintf(`SELECT coalesce((SELECT s.%s::text FROM bridge.sessions s JOIN bridge.identities i ON i.id = s.identity_id
		WHERE i.subject = $1 ORDER BY s.created_at DESC LIMIT 1), '')`, column), subject)
}

func (s followed) lastEvent(t *testing.T) string {
	t.Helper()
	return row[string](t, s.DB, "SELECT pg_catalog.concat_ws(' ', kind, subject, role, reason) FROM bridge.events ORDER BY id DESC LIMIT 1")
}

// without is a persona with other claims, or without some.
func changed(subject string, claims map[string]any) []bridgetest.Persona {
	all := slices.Clone(personas)
	for i, p := range all {
		if p.Subject == subject {
			all[i].IDToken = claims
		}
	}
	return all
}

// TestAttack_SC08_ProviderEndsTheLogin: whom the provider lets go is out here with the first token after session.recheck, and nobody else is.
func TestAttack_SC08_ProviderEndsTheLogin(t *testing.T) {
	t.Parallel()
	s := newFollowed(t)
	cora := s.due(t, "cora")
	s.asks(t, cora, "customer", 1)
	b := s.due(t, "carl")
	s.OP.SetPersonas(slices.DeleteFunc(slices.Clone(personas), func(p bridgetest.Persona) bool { return p.Subject == "carl" })...)
	s.asks(t, b, "", 1)
	s.asks(t, b, "", 0)
	if got := s.session(t, "carl", "id"); got != "" {
		t.Errorf("the session is still there: %s", got)
	}
	if got := s.lastEvent(t); got != "revoke carl the provider ended the login (invalid_grant)" {
		t.Errorf("event %q", got)
	}
	if got := s.metric(t, `oidc_bridge_rechecks_total{outcome="ended",provider="op"}`); got != "1" {
		t.Errorf("metric %q", got)
	}
	s.asks(t, cora, "customer", 1)
	// Before the time has come nobody asks: that is what session.recheck says.
	b = s.due(t, "cora")
	s.asks(t, b, "customer", 1)
	s.OP.SetPersonas()
	s.advance(14*time.Minute + 59*time.Second)
	s.asks(t, b, "customer", 0)
	s.advance(time.Second)
	if page, err := b.Fetch(t.Context(), http.MethodGet, s.URL+"/me", nil, ""); err != nil || page.Status != 401 {
		t.Errorf("/me: %d %v", page.Status, err)
	}
	bridgetest.Tried(t, 7)
}

// TestAttack_SC08_ProviderTakesTheRole: what the provider says now is what is decided from.
func TestAttack_SC08_ProviderTakesTheRole(t *testing.T) {
	t.Parallel()
	s := newFollowed(t)
	b := s.due(t, "ada")
	s.asks(t, b, "admin", 1)
	s.pass()
	s.OP.SetPersonas(changed("ada", map[string]any{"email": "ada@example.com", "email_verified": true, "groups": []any{}})...)
	s.asks(t, b, "customer", 1)
	if got := s.lastEvent(t); !strings.HasPrefix(got, "decision ada "+s.DB.Role("customer")+" ") {
		t.Errorf("event %q", got)
	}
	for _, table := range []string{"sessions", "identities"} {
		if got := row[string](t, s.DB, "SELECT claims ->> 'groups' FROM bridge."+table+" ORDER BY created_at DESC LIMIT 1"); got != "[]" {
			t.Errorf("%s.claims still has groups %s", table, got)
		}
	}
	// An answer without ID token (12.2) gives nothing back that was taken away, and confirms the login.
	s.pass()
	s.OP.Set(func(b *bridgetest.Behaviour) {
		b.TokenResponse = func(r map[string]any) { delete(r, "id_token") }
	})
	s.asks(t, b, "customer", 1)
	s.asks(t, b, "customer", 0)
	// A deny rule.
	s.pass()
	s.OP.Set(correct)
	s.OP.SetPersonas(changed("ada", map[string]any{"email": "ada@example.com", "email_verified": true, "groups": []any{"/left"}})...)
	if page, answer := s.token(b); page.Status != 403 || answer["message"] != "Your account is closed." {
		t.Errorf("%d %v", page.Status, answer)
	}
	// And back.
	s.pass()
	s.OP.SetPersonas(personas...)
	s.asks(t, b, "admin", 1)
	bridgetest.Tried(t, 5)
}

// TestAttack_SC08_RolesOfTheOtherTokens: roles that stand in UserInfo or in the access token are followed like those of the ID token.
func TestAttack_SC08_RolesOfTheOtherTokens(t *testing.T) {
	t.Parallel()
	mail := map[string]any{"email": "carl@example.com", "email_verified": true}
	for source, persona := range map[string]func(groups any) bridgetest.Persona{
		"userinfo": func(groups any) bridgetest.Persona {
			return bridgetest.Persona{Subject: "carl", Name: "Carl", IDToken: mail, UserInfo: map[string]any{"groups": groups}}
		},
		"access_token": func(groups any) bridgetest.Persona {
			return bridgetest.Persona{Subject: "carl", Name: "Carl", IDToken: mail, AccessToken: map[string]any{"groups": groups}}
		},
	} {
		for answer, change := range map[string]func(map[string]any){"complete": nil, "without ID token": func(r map[string]any) { delete(r, "id_token") }} {
			t.Run(source+", "+answer, func(t *testing.T) {
				s := newFollowed(t, withRules(strings.Replace(ordersRules, "groups: { type: set, default: [] }",
					"groups: { source: "+source+", type: set, default: [] }", 1)))
				s.OP.SetPersonas(persona([]any{"/admins"}))
				b, _ := s.login("carl", "/")
				s.asks(t, b, "admin", 0)
				s.pass()
				s.OP.Set(func(b *bridgetest.Behaviour) { b.TokenResponse = change })
				s.OP.SetPersonas(persona([]any{}))
				s.asks(t, b, "customer", 1)
			})
		}
	}
}

// TestAttack_SC08_AnotherLogin: tokens of another person, client, provider or time end the session, and somebody hears of it.
func TestAttack_SC08_AnotherLogin(t *testing.T) {
	t.Parallel()
	s := newFollowed(t, withProvider(offline+"\n    userinfo: always"))
	jwtAccess := func(change func(c map[string]any)) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) { b.AccessTokenClaims = change }
	}
	attacks := []struct {
		name  string
		set   func(*bridgetest.Behaviour)
		fault string
	}{
		{"other sub", claimIs("sub", "ada"), "sub"},
		{"sub in other case", claimIs("sub", "Carl"), "sub"},
		{"sub in a list", claimIs("sub", []string{"carl"}), "sub"},
		{"no sub", noClaim("sub"), "sub"},
		{"empty sub", claimIs("sub", ""), "sub"},
		{"other iss", claimIs("iss", s.OP.Issuer()+"/other"), "iss"},
		{"iss with a slash more", claimIs("iss", s.OP.Issuer()+"/"), "iss"},
		{"no iss", noClaim("iss"), "iss"},
		{"other aud", claimIs("aud", "other"), "aud"},
		{"an aud more", claimIs("aud", []string{"bridge", "other"}), "aud"},
		{"no aud", noClaim("aud"), "aud"},
		{"other azp", claimIs("azp", "other"), "azp"},
		{"other nonce", claimIs("nonce", "of another login"), "nonce"},
		{"empty nonce", claimIs("nonce", ""), "nonce"},
		{"nonce of another type", claimIs("nonce", 1), "nonce"},
		{"earlier auth_time", claim(func(c map[string]any) { c["auth_time"] = c["auth_time"].(int64) - 1 }), "auth_time"},
		{"auth_time as text", claimIs("auth_time", "1"), "auth_time"},
		{"other sub in UserInfo", func(b *bridgetest.Behaviour) { b.UserInfo = func(c map[string]any) { c["sub"] = "ada" } }, "userinfo"},
	}
	for i, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			b := s.due(t, "carl")
			s.OP.Set(a.set)
			s.asks(t, b, "", 1)
			if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions"); n != 0 {
				t.Errorf("%d sessions", n)
			}
			if got := s.lastEvent(t); got != "revoke carl the provider answered with the tokens of another login ("+a.fault+")" {
				t.Errorf("event %q", got)
			}
			if line := s.lastLine("ALARM"); !strings.Contains(line, "level=ERROR") || !strings.Contains(line, "token refused: "+a.fault) {
				t.Errorf("log %q", line)
			}
			if got := s.metric(t, `oidc_bridge_rechecks_total{outcome="mismatch",provider="op"}`); got != fmt.Sprint(i+1) {
				t.Errorf("metric %q", got)
			}
		})
	}
	t.Run("other sub in the access token", func(t *testing.T) {
		s := newFollowed(t, withRules(strings.Replace(ordersRules, "groups: { type", "groups: { source: access_token, type", 1)))
		s.OP.SetPersonas(bridgetest.Persona{Subject: "carl", Name: "Carl", IDToken: personas[1].IDToken, AccessToken: map[string]any{"groups": []any{}}})
		for _, change := range []func(map[string]any){
			func(c map[string]any) { c["sub"] = "ada" }, func(c map[string]any) { c["azp"] = "other" },
		} {
			s.OP.Set(correct)
			b, _ := s.login("carl", "/")
			s.pass()
			s.OP.Set(jwtAccess(change))
			s.asks(t, b, "", 1)
		}
	})
	bridgetest.Tried(t, len(attacks)+2)
}

// TestAttack_SC08_SameLogin: what else an honest provider may answer.
func TestAttack_SC08_SameLogin(t *testing.T) {
	t.Parallel()
	s := newFollowed(t)
	var nonce any
	answers := map[string]func(*bridgetest.Behaviour){
		"the login's nonce": claim(func(c map[string]any) {
			if nonce != nil {
				c["nonce"] = nonce
			}
			nonce = c["nonce"]
		}),
		"no auth_time":              noClaim("auth_time"),
		"a later auth_time":         claim(func(c map[string]any) { c["auth_time"] = s.now().Unix() }), // Keycloak
		"aud in a list":             claimIs("aud", []string{"bridge"}),
		"azp":                       claimIs("azp", "bridge"),
		"another sid":               claimIs("sid", "moved"),
		"no ID token":               func(b *bridgetest.Behaviour) { b.TokenResponse = func(r map[string]any) { delete(r, "id_token") } },
		"the refresh token is kept": func(b *bridgetest.Behaviour) { b.KeepRefreshTokens = true },
		"the refresh token is empty": func(b *bridgetest.Behaviour) {
			b.KeepRefreshTokens, b.TokenResponse = true, func(r map[string]any) { r["refresh_token"] = "" }
		},
		"no expires_in, no scope": func(b *bridgetest.Behaviour) {
			b.TokenResponse = func(r map[string]any) { delete(r, "expires_in"); delete(r, "scope") }
		},
	}
	for name, set := range answers {
		t.Run(name, func(t *testing.T) {
			b := s.due(t, "carl")
			if name == "the login's nonce" { // both answers
				s.OP.Set(set)
				b, _ = s.login("carl", "/")
				s.pass()
			}
			s.OP.Set(set)
			for range 3 {
				s.asks(t, b, "customer", 1)
				s.asks(t, b, "customer", 0)
				s.pass()
			}
			if name == "another sid" && s.session(t, "carl", "provider_sid") != "moved" {
				t.Error("the session is not under the sid that the provider would log out")
			}
		})
	}
	bridgetest.Tried(t, 3*len(answers))
}

// TestAttack_SC08_Trouble: a provider that cannot be asked, or answers nonsense, ends nothing, is left alone for a while, and is asked again
// with a refresh token that is still good. The absolute end stands.
func TestAttack_SC08_Trouble(t *testing.T) {
	t.Parallel()
	s := newFollowed(t, withProvider(offline+"\n    userinfo: always"))
	answer := func(endpoint string, status int, contentType, body string) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) {
			b.Handle[endpoint] = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", contentType)
				w.WriteHeader(status)
				_, _ = w.Write([]byte(body))
				return true
			}
		}
	}
	response := func(change func(r map[string]any)) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) { b.TokenResponse = change }
	}
	const js = "application/json"
	troubles := map[string]func(*bridgetest.Behaviour){
		"hangs up": func(b *bridgetest.Behaviour) {
			b.Handle["token"] = func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
		},
		"500":                    answer("token", 500, "text/plain", "oops"),
		"503 with an error":      answer("token", 503, js, `{"error":"temporarily_unavailable"}`),
		"429":                    answer("token", 429, js, `{}`),
		"404":                    answer("token", 404, "text/html", "<p>not here"),
		"a redirect":             answer("token", 302, js, `{}`),
		"HTML":                   answer("token", 200, "text/html", "<p>please wait"),
		"JSON cut off":           answer("token", 200, js, `{"access_token":"a","id_to`),
		"a list":                 answer("token", 200, js, `[]`),
		"nothing":                answer("token", 200, js, ``),
		"an empty object":        answer("token", 200, js, `{}`),
		"invalid_grant twice":    answer("token", 400, js, `{"error":"invalid_grant","error":"invalid_grant"}`),
		"invalid_grant as HTML":  answer("token", 400, "text/html", `{"error":"invalid_grant"}`),
		"invalid_request":        answer("token", 400, js, `{"error":"invalid_request"}`),
		"invalid_client":         answer("token", 401, js, `{"error":"invalid_client"}`),
		"invalid_scope":          answer("token", 400, js, `{"error":"invalid_scope"}`),
		"unsupported_grant_type": answer("token", 400, js, `{"error":"unsupported_grant_type"}`),
		"error beside tokens":    response(func(r map[string]any) { r["error"] = "server_error" }),
		"no access token":        response(func(r map[string]any) { delete(r, "access_token") }),
		"token_type mac":         response(func(r map[string]any) { r["token_type"] = "mac" }),
		"empty ID token":         response(func(r map[string]any) { r["id_token"] = "" }),
		"ID token null":          response(func(r map[string]any) { r["id_token"] = nil }),
		"ID token of other type": response(func(r map[string]any) { r["id_token"] = []string{"a.b.c"} }),
		"ID token of two parts":  raw(func(good string) string { return good[:strings.LastIndex(good, ".")] }),
		"alg none":               unsigned,
		"bad signature":          badSignature,
		"bad signature, sub ada": func(b *bridgetest.Behaviour) { claimIs("sub", "ada")(b); badSignature(b) },
		"other key, sub ada":     signed([]byte("s3cret:+%/ü"), func(_, p string) (string, string) { return `{"alg":"HS256"}`, strings.Replace(p, "carl", "ada", 1) }),
		"expired":                claim(func(c map[string]any) { c["exp"] = s.now().Unix() - 100 }),
		"the login's iat":        claim(func(c map[string]any) { c["iat"] = s.now().Add(-15 * time.Minute).Unix() }),
		"iat ahead":              claim(func(c map[string]any) { c["iat"], c["exp"] = s.now().Unix()+100, s.now().Unix()+200 }),
		"no exp":                 noClaim("exp"),
		"at_hash of another":     claimIs("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"),
		"a logout token":         claimIs("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}),
		"UserInfo 503":           answer("userinfo", 503, js, `{}`),
		"UserInfo 401":           answer("userinfo", 401, js, `{}`),
		"UserInfo is HTML":       answer("userinfo", 200, "text/html", `{"sub":"carl"}`),
	}
	for name, set := range troubles {
		t.Run(name, func(t *testing.T) {
			b := s.due(t, "carl")
			id := s.session(t, "carl", "id")
			s.OP.Set(func(b *bridgetest.Behaviour) {
				// The new refresh token of an answer that calls itself an error is not looked for.
				b.KeepRefreshTokens = name == "error beside tokens"
				set(b)
			})
			const failures = `oidc_bridge_rechecks_total{outcome="failed",provider="op"}`
			before, _ := strconv.Atoi(s.metric(t, failures))
			s.asks(t, b, "customer", 1)
			s.asks(t, b, "customer", 0) // not at each request
			s.advance(59 * time.Second)
			s.asks(t, b, "customer", 0)
			if got := s.metric(t, failures); got != fmt.Sprint(before+1) {
				t.Errorf("%s failures, %d before", got, before)
			}
			if line := s.lastLine("was not checked"); !strings.Contains(line, "level=WARN") || !strings.Contains(line, "session="+id) {
				t.Errorf("log %q", line)
			}
			s.OP.Set(correct)
			s.advance(time.Second)
			s.asks(t, b, "customer", 1)
			if got := s.session(t, "carl", "checked_at"); got == "" || s.session(t, "carl", "check_until") != "" {
				t.Errorf("checked_at %q, check_until %q", got, s.session(t, "carl", "check_until"))
			}
			s.pass()
			s.asks(t, b, "customer", 1)
		})
	}
	t.Run("down for a week", func(t *testing.T) {
		s := newFollowed(t, withConfig("session: { idle: 12h, absolute: 24h }"))
		b := s.due(t, "ada")
		s.OP.Close()
		for range 3 {
			s.advance(7 * time.Hour)
			s.asks(t, b, "admin", 0)
			s.awaitUse(t, time.Minute)
		}
		s.advance(3 * time.Hour)
		s.asks(t, b, "", 0)
	})
	bridgetest.Tried(t, len(troubles)+1)
}

// lastLine is the last line of the log that has the text.
func (s *service) lastLine(text string) (last string) {
	for _, line := range s.Log.Lines() {
		if strings.Contains(line, text) {
			last = line
		}
	}
	return last
}

// TestAttack_SC08_ClientSecretRotation: a refresh tries the second client secret like a login does, and only when the first is refused.
func TestAttack_SC08_ClientSecretRotation(t *testing.T) {
	t.Parallel()
	s := newFollowed(t)
	h := s.reconfigured(`client_secret: "`+clientSecret+`"`, `client_secret: ["tomorrow's secret", "`+clientSecret+`"]`)
	b := s.due(t, "carl")
	if status := ask(h, "/api_token", sessionCookie(t, s.service, b)); status != 200 || s.OP.Calls("token") != 2 {
		t.Errorf("%d after %d token requests", status, s.OP.Calls("token"))
	}
	if s.session(t, "carl", "checked_at") == "" {
		t.Error("not checked")
	}
	bridgetest.Tried(t, 2)
}
