package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A keycloak is a real Keycloak with the realm of keycloak/realm.json, on one address, whether it runs or not.
type keycloak struct {
	t       *testing.T // it runs until this one ends
	shop    *shop
	address string
	folder  string // links to the installation, and its data
	program *program
}

// startKeycloak starts it as operators do who have a realm file: kc.sh start --import-realm.
func (s *shop) startKeycloak(t *testing.T) *keycloak {
	t.Helper()
	k := &keycloak{t: t, shop: s, address: freeAddress(t), folder: t.TempDir()}
	realm, err := os.ReadFile("keycloak/realm.json")
	if err != nil {
		t.Fatal(err)
	}
	imports := filepath.Join(k.folder, "data", "import")
	if err := os.MkdirAll(imports, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(imports, "realm.json"), realm, 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
	return k
}

func (k *keycloak) start() {
	k.t.Helper()
	cmd := exec.Command("keycloak/serve", k.folder, "start", "--optimized", "--import-realm", "--cache=local", "--http-enabled=true",
		"--http-host=127.0.0.1", "--http-port="+k.address[strings.LastIndex(k.address, ":")+1:], "--hostname=http://"+k.address)
	cmd.Env = append(os.Environ(), "KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD=admin",
		"PUBLIC_URL="+k.shop.public) // Keycloak puts it into the realm file
	k.run(cmd)
	bridgetest.Await(k.t, "Keycloak to listen", func() bool { return status(k.issuer()) == http.StatusOK })
}

func (k *keycloak) run(cmd *exec.Cmd) {
	k.t.Helper()
	k.program = start(k.t, cmd)
	k.program.await(k.t, "end of the start", func(line string) bool { return strings.Contains(line, "Bootstrap completed") })
}

func (k *keycloak) issuer() string { return "http://" + k.address + "/realms/shop" }

// admin is a request to the administration API. The answer may be nil.
func (k *keycloak) admin(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	k.call(t, http.MethodPost, "/realms/master/protocol/openid-connect/token", "application/x-www-form-urlencoded", "",
		strings.NewReader(url.Values{"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {"admin"}, "password": {"admin"}}.Encode()), &token)
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	k.call(t, method, "/admin/realms"+path, "application/json", "Bearer "+token.AccessToken, bytes.NewReader(text), answer)
}

func (k *keycloak) call(t *testing.T, method, path, contentType, authorization string, body io.Reader, answer any) {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+k.address+path, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Authorization", authorization)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= 300 {
		t.Fatalf("%s %s: status %d, error %v: %s", method, path, response.StatusCode, err, text)
	}
	if answer == nil {
		return
	}
	if err := json.Unmarshal(text, answer); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, text)
	}
}

// client is the client bridge.
func (k *keycloak) client(t *testing.T) map[string]any {
	t.Helper()
	var clients []map[string]any
	k.admin(t, http.MethodGet, "/shop/clients?clientId=bridge", nil, &clients)
	if len(clients) != 1 {
		t.Fatalf("%d clients", len(clients))
	}
	return clients[0]
}

// changeClient changes a setting of the client until the test ends.
func (k *keycloak) changeClient(t *testing.T, setting string, value any) {
	t.Helper()
	client := k.client(t)
	before := client[setting]
	put := func(value any) {
		client[setting] = value
		k.admin(t, http.MethodPut, fmt.Sprintf("/shop/clients/%s", client["id"]), client, nil)
	}
	put(value)
	t.Cleanup(func() { put(before) })
}

// addGroupMapper does what check advises.
func (k *keycloak) addGroupMapper(t *testing.T) {
	t.Helper()
	k.admin(t, http.MethodPost, fmt.Sprintf("/shop/clients/%s/protocol-mappers/models", k.client(t)["id"]), map[string]any{
		"name": "groups", "protocol": "openid-connect", "protocolMapper": "oidc-group-membership-mapper",
		"config": map[string]string{"claim.name": "groups", "full.path": "true", "id.token.claim": "true", "userinfo.token.claim": "true"},
	}, nil)
}

// pages are Keycloak's own.
func (k *keycloak) pages() loginPages {
	return loginPages{
		logIn: func(w *window, name string) {
			w.fill("#username", name)
			w.fill("#password", name+"-password")
			w.shot("keycloak")
			w.click("#kc-login")
		},
		logOut: func(w *window) {
			w.open(k.issuer() + "/protocol/openid-connect/logout")
			w.click("#kc-logout")
			w.see("You are logged out")
		},
		agree: func(*window) {}, // the ID token says whose logout it is
	}
}

const keycloakProviders = `
  roles:
    name: Shop accounts
    issuer: ISSUER
    client_id: bridge
    client_secret: bridge-client-secret-of-the-end-to-end-tests
    allow_private: true
  groups:
    name: The same, by groups
    issuer: ISSUER
    client_id: bridge-groups
    client_secret: [the-secret-that-it-will-have-tomorrow, bridge-groups-client-secret-of-the-end-to-end-tests]
    allow_private: true
`

// Two ways to the same roles: the roles of a stock realm, and groups, for which the client has Keycloak's group mapper.
const keycloakRules = `
version: 1
providers:
  roles:
    preset: keycloak
    client: bridge
    claims:
      groups: { default: [] }
  groups:
    preset: keycloak
    claims:
      groups: { default: [] }
roles:
  admin: { privileged: true }
  customer: {}
deny:
  - name: leavers
    provider: roles
    when: { groups: /hr/leavers }
  - name: leavers by groups
    provider: groups
    when: { groups: /hr/leavers }
rules:
  - name: realm role
    provider: roles
    when: { realm_roles: shop-admin }
    role: admin
  - name: client role
    provider: roles
    when: { client_roles: customer }
    role: customer
  - name: groups
    provider: groups
    by: groups
    to:
      - /shop/admins: admin
      - /shop/customers: customer
default: deny
token:
  email: { from: email }
users:
  email: { from: email }
  name: { from: name }
tests:
  - name: an administrator by role
    provider: roles
    claims: { sub: alice, realm_access: { roles: [shop-admin] } }
    expect: { role: admin }
    refuse_if:
      - { realm_access: null }
      - { groups: [/hr/leavers] }
  - name: an administrator by group
    provider: groups
    claims: { sub: alice, groups: [/shop/admins] }
    expect: { role: admin }
    refuse_if:
      - { groups: [/shop] }
      - { groups: [/shop/admins, /hr/leavers] }
`

// TestKeycloak starts one Keycloak and one bridge, and takes them through what happens to people and to operators.
func TestKeycloak(t *testing.T) {
	s := newShop(t)
	k := s.startKeycloak(t)
	s.configure(t, strings.ReplaceAll(keycloakProviders, "ISSUER", k.issuer()), keycloakRules)
	s.migrate(t)
	bridge := s.serve(t)
	login := func(w *window, connection, name string) {
		w.t.Helper()
		w.open(s.public + "/login/" + connection + "?return_to=/")
		k.pages().logIn(w, name)
	}
	logged := func(t *testing.T, what string) {
		t.Helper()
		bridgetest.Await(t, "the log to have "+what, func() bool { return strings.Contains(bridge.output.String(), what) })
	}

	// Realm roles and client roles come from the access token, without any mapper.
	t.Run("roles", func(t *testing.T) { s.ordersInChromium(t, "roles", k.pages(), "ben", "alice") })

	t.Run("groups", func(t *testing.T) {
		w := s.openWindow(t)
		login(w, "groups", "alice")
		w.see("Grant Access")
		w.shot("consent")
		w.click("#kc-login")
		w.wantToken("alice@example.com", "admin")
		// It is the same realm, so it is the same person.
		if users := s.count(t, "bridge.users WHERE email = 'alice@example.com'"); users != 1 {
			t.Errorf("alice has %d rows in bridge.users", users)
		}
	})

	t.Run("what it sends", func(t *testing.T) {
		roles := client{"roles", "bridge", "bridge-client-secret-of-the-end-to-end-tests"}
		groups := client{"groups", "bridge-groups", "bridge-groups-client-secret-of-the-end-to-end-tests"}
		s.wantRecorded(t, "keycloak-realm-role", k.issuer(), roles, "alice")
		s.wantRecorded(t, "keycloak-client-role", k.issuer(), roles, "ben")
		s.wantRecorded(t, "keycloak-no-role", k.issuer(), roles, "nora")
		s.wantRecorded(t, "keycloak-groups", k.issuer(), groups, "alice")
		s.wantRecorded(t, "keycloak-no-groups", k.issuer(), groups, "nora")
	})

	t.Run("what the realm lacks", func(t *testing.T) {
		const lacks = `provider "roles": no login so far has carried groups`
		said, code := run(t, s.command("check"))
		if code != 0 || !strings.Contains(said, lacks) || !strings.Contains(said, "add the mapper Group Membership") || strings.Contains(said, `"groups": no login`) {
			t.Errorf("check: exit code %d\n%s", code, said)
		}
		k.addGroupMapper(t)
		w := s.openWindow(t)
		login(w, "roles", "ben")
		w.wantToken("ben@example.com", "customer")
		if said, code := run(t, s.command("check")); code != 0 || strings.Contains(said, lacks) {
			t.Errorf("check with the mapper: exit code %d\n%s", code, said)
		}
	})

	t.Run("the person lacks the role", func(t *testing.T) {
		w := s.openWindow(t)
		login(w, "roles", "nora")
		w.wantRefusal("You have no access")
	})

	t.Run("the person cancels", func(t *testing.T) {
		w := s.openWindow(t)
		login(w, "groups", "ben")
		w.click("#kc-cancel")
		w.wantRefusal("You cancelled the login")
	})

	t.Run("the person is disabled in Keycloak", func(t *testing.T) {
		w := s.openWindow(t)
		login(w, "roles", "dora")
		w.see("Account is disabled, contact your administrator.")
		w.shot("page")
	})

	t.Run("redirect URI not registered", func(t *testing.T) {
		k.changeClient(t, "redirectUris", []string{"https://shop.example.com/auth/callback/roles"})
		w := s.openWindow(t)
		w.open(s.public + "/login/roles")
		w.see("Invalid parameter: redirect_uri")
		w.shot("page")
	})

	t.Run("client secret wrong", func(t *testing.T) {
		k.changeClient(t, "secret", "another-secret-since-this-morning")
		w := s.openWindow(t)
		login(w, "roles", "ben")
		w.wantRefusal("The provider's answer cannot be trusted")
		logged(t, "client_id, client_secret or auth_method of config.yaml do not fit the provider")
	})

	t.Run("keys rotated", func(t *testing.T) {
		before := s.openWindow(t)
		login(before, "roles", "ben")
		before.wantToken("ben@example.com", "customer")
		old := k.signingKey(t)
		k.rotateKeys(t)
		if k.signingKey(t) == old {
			t.Fatal("the key is still the same")
		}
		after := s.openWindow(t)
		login(after, "roles", "ben")
		after.wantToken("ben@example.com", "customer")
		before.wantToken("ben@example.com", "customer")
	})

	t.Run("conformance", k.conformance)

	t.Run("logout", k.logouts)

	t.Run("down and restarted", func(t *testing.T) {
		before, during := s.openWindow(t), s.openWindow(t)
		login(before, "roles", "ben")
		before.wantToken("ben@example.com", "customer")
		during.open(s.public + "/login/roles?return_to=/")
		state := loginState(t, during)

		k.program.stop(t)
		// Somebody had logged in at Keycloak and came back too late for it.
		during.open(s.public + "/callback/roles?code=of-the-past&state=" + state + "&iss=" + url.QueryEscape(k.issuer()))
		during.wantRefusal("The login provider does not answer")
		before.wantToken("ben@example.com", "customer")
		if said, code := run(t, s.command("check")); code != 0 || !strings.Contains(said, `provider "roles": provider cannot be reached`) {
			t.Errorf("check: exit code %d\n%s", code, said)
		}

		k.start()
		login(during, "roles", "alice")
		during.wantToken("alice@example.com", "admin")
		before.wantToken("ben@example.com", "customer")
	})

	t.Run("realm imported again", func(t *testing.T) {
		before := s.openWindow(t)
		login(before, "roles", "ben")
		before.wantToken("ben@example.com", "customer")
		old := k.signingKey(t)

		k.program.stop(t)
		if err := os.RemoveAll(filepath.Join(k.folder, "data", "h2")); err != nil {
			t.Fatal(err)
		}
		k.start()
		if k.signingKey(t) == old {
			t.Fatal("the key is still the same")
		}
		after := s.openWindow(t)
		login(after, "roles", "ben")
		after.wantToken("ben@example.com", "customer")
		before.wantToken("ben@example.com", "customer")
		// The realm file has the people's ids, so that they stay who they were.
		if users := s.count(t, "bridge.users WHERE email = 'ben@example.com'"); users != 1 {
			t.Errorf("ben has %d rows in bridge.users", users)
		}
	})
}

// loginState is the state of the login that a window at Keycloak's login page is in.
func loginState(t *testing.T, w *window) string {
	t.Helper()
	w.see("Sign in to your account")
	at, err := url.Parse(evaluate[string](w, "location.href"))
	if err != nil || at.Query().Get("state") == "" {
		t.Fatalf("no state in %s, error %v", at, err)
	}
	return url.QueryEscape(at.Query().Get("state"))
}

// signingKey is the id of the key that signs tokens.
func (k *keycloak) signingKey(t *testing.T) string {
	t.Helper()
	var keys struct{ Active map[string]string }
	k.admin(t, http.MethodGet, "/shop/keys", nil, &keys)
	return keys.Active["RS256"]
}

// rotateKeys does what Keycloak's documentation says: a new key with a higher priority, and then the old one away.
func (k *keycloak) rotateKeys(t *testing.T) {
	t.Helper()
	type component struct {
		ID     string              `json:"id,omitempty"`
		Name   string              `json:"name"`
		Kind   string              `json:"providerId"`
		Type   string              `json:"providerType"`
		Config map[string][]string `json:"config"`
	}
	const keyProvider = "org.keycloak.keys.KeyProvider"
	var old []component
	k.admin(t, http.MethodGet, "/shop/components?type="+keyProvider, nil, &old)
	k.admin(t, http.MethodPost, "/shop/components", component{
		Name: "rotated", Kind: "rsa-generated", Type: keyProvider, Config: map[string][]string{"priority": {"200"}, "algorithm": {"RS256"}},
	}, nil)
	for _, c := range old {
		if c.Kind == "rsa-generated" {
			k.admin(t, http.MethodDelete, "/shop/components/"+c.ID, nil, nil)
		}
	}
}
