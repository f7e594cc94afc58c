package e2e

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// recheckSoon is a second, so that a test need not wait: each session is checked at its provider at the first token after that.
const recheckSoon = "\nsession: { recheck: 1s }\n"

// checkedAt is when the provider last confirmed a session, "" before that.
func (s *shop) checkedAt(t *testing.T, sid string) (at string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), "SELECT coalesce((SELECT checked_at::text FROM bridge.sessions WHERE id = $1::text::uuid), '')", sid).Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}

// checked waits until the visitor's session was confirmed once more, which their own requests bring about.
func (v *visitor) checked() {
	v.t.Helper()
	sid := v.token().SID
	before := v.shop.checkedAt(v.t, sid)
	bridgetest.Await(v.t, "a check at the provider", func() bool {
		v.token()
		return v.shop.checkedAt(v.t, sid) != before
	})
}

// becomes waits until the answer to a request for a token has this role, or this status.
func (v *visitor) becomes(status int, role string) {
	v.t.Helper()
	bridgetest.Await(v.t, "the provider's decision to arrive", func() bool {
		return v.fetch(v.shop.public+"/api_token", nil).Status == status && (status != http.StatusOK || v.token().Role == v.shop.db.Role(role))
	})
}

// TestFollowingKeycloak: what an administrator does in Keycloak reaches people who are logged in here.
func TestFollowingKeycloak(t *testing.T) {
	s := newShop(t)
	k := s.startKeycloak(t)
	s.configure(t, strings.ReplaceAll(keycloakProviders, "ISSUER", k.issuer())+recheckSoon, keycloakRules)
	s.migrate(t)
	k.addGroupMapper(t)
	bridge := s.serve(t)
	login := func(t *testing.T, name string) *visitor {
		t.Helper()
		v := s.visit(t)
		v.open(s.public + "/login/roles?return_to=/")
		v.submit("Sign In", url.Values{"username": {name}, "password": {name + "-password"}})
		v.wantAt("/")
		return v
	}
	user := func(t *testing.T, name string) string {
		t.Helper()
		var users []struct{ ID string }
		k.admin(t, http.MethodGet, "/shop/users?exact=true&username="+name, nil, &users)
		return "/shop/users/" + users[0].ID
	}

	t.Run("role taken away and given back", func(t *testing.T) {
		v := login(t, "alice")
		v.wantRole(s.db.Role("admin"))
		var admin, customer map[string]any
		k.admin(t, http.MethodGet, "/shop/roles/shop-admin", nil, &admin)
		client := k.client(t)["id"].(string)
		k.admin(t, http.MethodGet, "/shop/clients/"+client+"/roles/customer", nil, &customer)
		k.admin(t, http.MethodPost, user(t, "alice")+"/role-mappings/clients/"+client, []any{customer}, nil)
		k.admin(t, http.MethodDelete, user(t, "alice")+"/role-mappings/realm", []any{admin}, nil)
		v.becomes(http.StatusOK, "customer")
		k.admin(t, http.MethodPost, user(t, "alice")+"/role-mappings/realm", []any{admin}, nil)
		v.becomes(http.StatusOK, "admin")
	})

	// auth_time of the refreshed ID token is then a later one, for every client of the browser.
	t.Run("password entered again for another client", func(t *testing.T) {
		v := login(t, "alice")
		sid := v.token().SID
		v.open(k.issuer() + "/protocol/openid-connect/auth?" + url.Values{
			"response_type": {"code"}, "client_id": {"bridge-groups"}, "redirect_uri": {s.public + "/callback/groups"}, "scope": {"openid"}, "prompt": {"login"},
			"state": {"of-no-login"}, "code_challenge_method": {"S256"}, "code_challenge": {strings.Repeat("a", 43)},
		}.Encode())
		v.submit("Sign In", url.Values{"password": {"alice-password"}})
		if v.page.Title() != "" && strings.Contains(v.page.Text(), "Grant Access") {
			v.submit("Yes", nil)
		}
		v.open(s.origin + "/")
		v.checked()
		if got := v.token().SID; got != sid {
			t.Errorf("session %s, was %s", got, sid)
		}
	})

	t.Run("refresh tokens are used once", func(t *testing.T) {
		k.admin(t, http.MethodPut, "/shop", map[string]any{"revokeRefreshToken": true, "refreshTokenMaxReuse": 0}, nil)
		defer k.admin(t, http.MethodPut, "/shop", map[string]any{"revokeRefreshToken": false}, nil)
		v := login(t, "ben")
		for range 3 {
			v.checked()
		}
		v.wantRole(s.db.Role("customer"))
	})

	t.Run("Keycloak restarted", func(t *testing.T) {
		v := login(t, "ben")
		k.program.stop(t)
		bridgetest.Await(t, "a check that fails", func() bool {
			v.token()
			return strings.Contains(bridge.output.String(), "a session was not checked at its provider")
		})
		v.wantRole(s.db.Role("customer"))
		k.start()
	})

	t.Run("session ended by an administrator", func(t *testing.T) {
		v, other := login(t, "ben"), login(t, "alice")
		v.wantRole(s.db.Role("customer"))
		k.admin(t, http.MethodPost, user(t, "ben")+"/logout", nil, nil)
		v.becomes(http.StatusUnauthorized, "")
		other.checked()
	})

	t.Run("user disabled", func(t *testing.T) {
		v := login(t, "ben")
		v.wantRole(s.db.Role("customer"))
		k.admin(t, http.MethodPut, user(t, "ben"), map[string]any{"enabled": false}, nil)
		v.becomes(http.StatusUnauthorized, "")
		if n := s.count(t, "bridge.events WHERE kind = 'revoke' AND reason LIKE '%invalid_grant%'"); n == 0 { // the administrator's logout above came by the back channel, too
			t.Error("no event says why")
		}
	})
	if strings.Contains(bridge.output.String(), "ALARM") {
		t.Error("a false alarm")
	}
}

// TestFollowingOIDCProvider: with refresh tokens that are used once, and a whole login that ends when one is used twice.
func TestFollowingOIDCProvider(t *testing.T) {
	s := newShop(t)
	issuer := s.startProvider(t, "0")
	s.write(t, "post.secret", "post-client-secret-of-the-end-to-end-tests\n")
	s.configure(t, strings.ReplaceAll(strings.ReplaceAll(providers, "ISSUER", issuer), "    allow_private: true\n",
		"    allow_private: true\n    scopes: [openid, email, profile, offline_access]\n    authorize_params: { prompt: consent }\n")+recheckSoon, rules)
	s.migrate(t)
	bridge := s.serve(t)
	administer := func(method, name, claims string) {
		request, err := http.NewRequest(method, issuer+"/people/"+name, strings.NewReader(claims))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil || response.StatusCode != http.StatusNoContent {
			t.Fatalf("%v %v", response, err)
		}
		response.Body.Close()
	}
	for _, connection := range []string{"basic", "post"} {
		v := s.visit(t)
		v.login(connection, "carl")
		v.wantAt("/")
		v.wantRole(s.db.Role("customer"))
		for range 3 {
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					if answer, err := v.Fetch(t.Context(), http.MethodGet, s.public+"/api_token", nil, ""); err != nil || answer.Status != http.StatusOK {
						t.Errorf("%v %v", answer, err)
					}
				})
			}
			all.Wait()
			v.checked()
		}
		administer(http.MethodPut, "carl", `{"email": "carl@example.com", "email_verified": true, "name": "Carl Chief", "groups": ["admins"]}`)
		v.becomes(http.StatusOK, "admin")
		administer(http.MethodDelete, "carl", "")
		v.becomes(http.StatusUnauthorized, "")
		administer(http.MethodPut, "carl", `{"email": "carl@example.com", "email_verified": true, "name": "Carl Customer", "groups": ["customers"]}`)
	}
	if log := bridge.output.String(); strings.Contains(log, "ALARM") || strings.Contains(log, "was not checked") {
		t.Errorf("trouble in the log:\n%s", log)
	}
}
