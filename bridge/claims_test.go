package bridge_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

const keycloakRules = `
version: 1
providers: { op: { preset: keycloak, client: bridge, claims: { groups: { default: [] } } } }
roles: { admin: { privileged: true }, customer: {} }
deny: [ { name: suspended, when: { groups: /suspended }, message: Suspended. } ]
rules:
  - { name: admins, when: { realm_roles: shop-admin }, role: admin }
  - { name: clients, when: { client_roles: orders }, role: customer }
default: deny
tests:
  - name: an admin
    provider: op
    claims: { sub: a, realm_access: { roles: [shop-admin] } }
    expect: { role: admin }
    refuse_if: [ { realm_access: null } ]
`

// keycloakPersonas have claims where a stock Keycloak puts them: roles in the access token alone.
var keycloakPersonas = []bridgetest.Persona{
	{Subject: "realm", Name: "Realm", AccessToken: map[string]any{"azp": "bridge", "typ": "Bearer", "aud": "account", "realm_access": map[string]any{"roles": []any{"shop-admin"}}}},
	{Subject: "client", Name: "Client", AccessToken: map[string]any{"azp": "bridge", "typ": "Bearer", "resource_access": map[string]any{
		"bridge": map[string]any{"roles": []any{"orders"}}, "other": map[string]any{"roles": []any{"shop-admin"}},
	}}},
	{Subject: "none", Name: "None", AccessToken: map[string]any{"azp": "bridge", "typ": "Bearer"}},
	{Subject: "opaque", Name: "Opaque"},
	{Subject: "foreign", Name: "Foreign", AccessToken: map[string]any{"azp": "other", "typ": "Bearer", "realm_access": map[string]any{"roles": []any{"shop-admin"}}}},
	{Subject: "refresh", Name: "Refresh", AccessToken: map[string]any{"azp": "bridge", "typ": "Refresh", "realm_access": map[string]any{"roles": []any{"shop-admin"}}}},
	{
		Subject: "suspended", Name: "Suspended", UserInfo: map[string]any{"groups": []any{"/suspended"}},
		AccessToken: map[string]any{"azp": "bridge", "typ": "Bearer", "realm_access": map[string]any{"roles": []any{"shop-admin"}}},
	},
}

// TestKeycloakRolesFromTheAccessToken: a realm works without extra mappers, and only its own token for our own client counts.
func TestKeycloakRolesFromTheAccessToken(t *testing.T) {
	t.Parallel()
	s := newService(t, withRules(keycloakRules))
	s.OP.SetPersonas(keycloakPersonas...)
	for subject, want := range map[string]string{
		"realm": "admin", "client": "customer", "none": "403", "opaque": "403", "foreign": "502", "refresh": "502", "suspended": "403 Suspended.",
	} {
		b, page := s.login(subject, "/")
		if status, text, refused := strings.Cut(want, " "); refused || len(status) == 3 {
			if page.Status/100 != int(status[0]-'0') || !strings.Contains(page.Text(), text) {
				t.Errorf("%s: %d %s", subject, page.Status, page.Text())
			}
			if answer, _ := s.token(b); answer.Status != 401 {
				t.Errorf("%s was refused and got %d", subject, answer.Status)
			}
			continue
		}
		_, body := s.token(b)
		if body["token"] == nil || claims(t, body["token"])["role"] != s.DB.Role(want) {
			t.Errorf("%s: %v", subject, body)
		}
	}
}

// TestUserInfoFillsInWhatIsMissing: a provider whose ID token holds only who it is about, such as oidc-provider.
func TestUserInfoFillsInWhatIsMissing(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]struct{ status, calls int }{"auto": {200, 1}, "always": {200, 1}, "never": {403, 0}} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newService(t, withProvider("userinfo: "+mode))
			s.OP.SetPersonas(bridgetest.Persona{Subject: "u", Name: "U", UserInfo: map[string]any{"email": "u@example.com", "email_verified": true}})
			b, page := s.login("u", "/")
			answer, body := s.token(b)
			if want.status == 200 && (answer.Status != 200 || claims(t, body["token"])["email"] != "u@example.com") || want.status != 200 && page.Status != want.status {
				t.Errorf("%d %s", answer.Status, page.Text())
			}
			if got := s.OP.Calls("userinfo"); got != want.calls {
				t.Errorf("%d UserInfo requests", got)
			}
		})
	}
}

// TestChooserOfProviders: with several providers people choose, and each has a callback of its own.
func TestChooserOfProviders(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	rules := strings.NewReplacer("  op:\n", "  other: { preset: generic }\n  op:\n", "    when: { groups: /left }", "    provider: op\n    when: { groups: /left }",
		"    when: { groups: /admins }", "    provider: op\n    when: { groups: /admins }", "    when: { email_domain", "    provider: op\n    when: { email_domain").Replace(ordersRules)
	s := newService(t, withDatabase(db), withRules(rules), withProvider("name: \"Öffentlicher <b>Dienst</b>\"\n  other:\n    issuer: http://127.0.0.1:9\n    client_id: x\n    client_secret: y"))
	b := bridgetest.NewBrowser()
	page, err := b.Open(t.Context(), s.URL+"/login?return_to=/orders")
	if err != nil {
		t.Fatal(err)
	}
	if page.Status != 200 || strings.Contains(string(page.Body), "<b>Dienst") || !strings.Contains(page.Text(), "Öffentlicher <b>Dienst</b>") || len(page.Links()) != 2 {
		t.Fatalf("%d %s", page.Status, page.Body)
	}
	if page, err = b.Follow(t.Context(), page, page.Links()[0].URL.String()); err != nil {
		t.Fatal(err)
	}
	if page, err = b.ChoosePersona(t.Context(), page, "carl"); err != nil || page.URL.Path != "/orders" {
		t.Errorf("%v %v", page, err)
	}
	// A callback at the other provider's address is another login's.
	_, state := s.start(b)
	if page, err = b.Open(t.Context(), s.URL+"/callback/other?code=x&state="+state); err != nil || page.Status != 400 {
		t.Errorf("%d %v", page.Status, err)
	}
}

// TestAttack_IL12_ProviderTakenOut: the sessions of a provider that is no longer configured, or is another one now, have ended.
func TestAttack_IL12_ProviderTakenOut(t *testing.T) {
	t.Parallel()
	inputs := 0
	db := bridgetest.DB(t)
	first := newService(t, withDatabase(db))
	b, _ := first.login("carl", "/")
	cookie := sessionCookie(t, first, b)
	if page, _ := first.token(b); page.Status != 200 {
		t.Fatal(page.Status)
	}
	// The same public_url, keys and database, as after a restart with another issuer under the same name.
	write := func(issuer string) http.Handler {
		config := strings.NewReplacer("https://app.example.com/auth", first.URL, "corp:", "op:", "https://sso.example.com/realms/acme", issuer,
			"postgres://bridge@localhost/app", db.URL).Replace(goodConfig) + "insecure_dev: true\n"
		c, findings := bridge.LoadConfig(filepath.Join(t.TempDir(), "config.yaml"), []byte(config), noEnvironment)
		if c == nil {
			t.Fatal(findings)
		}
		return handler(t, c, db.SQL(ordersRules))
	}
	for issuer, want := range map[string]int{first.OP.Issuer(): 200, "http://127.0.0.1:9": 401} {
		inputs++
		if got := ask(write(issuer), "/api_token", cookie); got != want {
			t.Errorf("issuer %s: %d, want %d", issuer, got, want)
		}
	}
	bridgetest.Tried(t, inputs)
}
