package deploy_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// The settings that users-hook.sql names.
const (
	hookConfig = `
public_url: ${PUBLIC_URL}
insecure_dev: true
database: { url: "${DATABASE_URL}", authenticator: "${AUTHENTICATOR}" }
signing: { jwt_secret: "f2c6b1a8d3e94705b6aa1c7e58d0932f" }
cookie_keys: ["${COOKIE_KEY}"]
users: { hook: public.bridge_user }
providers:
  corp: { issuer: "${ISSUER}", client_id: shop, client_secret: secret, allow_private: true }
`
	hookRules = `
version: 1
providers:
  corp: { preset: generic }
roles: { admin: { privileged: true }, customer: {} }
rules:
  - name: everybody, with the role of their row
    when: { email_domain: example.com }
    role: { from: users, allow: [customer, admin], default: customer }
default: deny
users: { email: { from: email } }
tests:
  - name: an administrator by the row
    claims: { sub: ann, email: ann@example.com, email_verified: true }
    row: { role: admin }
    expect: { role: admin }
    refuse_if:
      - { email_verified: false }
`
)

// startBridge returns the public_url of a bridge with the settings above, and a provider where ann can log in.
func startBridge(t *testing.T, db *bridgetest.Database) string {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	url := "http://" + server.Listener.Addr().String()
	op := bridgetest.NewOP(t, bridgetest.OPOptions{
		Personas: []bridgetest.Persona{{Subject: "ann", Name: "Ann", IDToken: map[string]any{"email": "ann@example.com", "email_verified": true}}},
		Clients:  []bridgetest.Client{{ID: "shop", Secret: "secret", RedirectURIs: []string{url + "/callback/corp"}}},
	})
	variables := map[string]string{
		"PUBLIC_URL": url, "DATABASE_URL": db.URL, "AUTHENTICATOR": db.Role("authenticator"), "ISSUER": op.Issuer(),
		"COOKIE_KEY": base64.StdEncoding.EncodeToString([]byte("a cookie key that is 32 bytes...")),
	}
	config, findings := bridge.LoadConfig("config.yaml", []byte(hookConfig), func(name string) (string, bool) {
		value, set := variables[name]
		return value, set
	})
	rules, more := mapping.Load("rules.yaml", []byte(db.SQL(hookRules)))
	if findings = append(findings, more...); strictyaml.Errors(findings) {
		t.Fatal(findings)
	}
	if findings := bridge.CheckDatabase(t.Context(), config, rules); len(findings) > 0 {
		t.Fatal(findings)
	}
	service, err := bridge.New(t.Context(), config, rules, bridge.Options{Log: bridgetest.NewLog(t).Logger(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = service.Public()
	server.Start()
	t.Cleanup(func() {
		server.Close()
		service.Close()
	})
	return url
}

// token returns the status of /api_token and what the token says: "user_id role".
func token(t *testing.T, browser *bridgetest.Browser) (int, string) {
	t.Helper()
	page, err := browser.Fetch(t.Context(), http.MethodGet, "/api_token", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if page.Status != http.StatusOK {
		return page.Status, ""
	}
	var answer struct{ Token string }
	if err := page.JSON(&answer); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(answer.Token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		UserID string `json:"user_id"`
		Role   string `json:"role"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return page.Status, claims.UserID + " " + claims.Role
}

// A real login through the hook, and what changes in the own table do to the tokens of somebody who is logged in.
func TestLoginThroughTheHook(t *testing.T) {
	db := database(t, "users-hook.sql")
	// Other rows first: the ids of the two tables differ.
	if err := db.Exec(t.Context(), "INSERT INTO public.users (email) VALUES ('ann@example.com'), ('bob@example.com')"); err != nil {
		t.Fatal(err)
	}
	url := startBridge(t, db)
	logIn := func() (*bridgetest.Browser, *bridgetest.Page) {
		browser := bridgetest.NewBrowser()
		page, err := browser.Open(t.Context(), url+"/login?return_to=/me")
		if err == nil {
			page, err = browser.ChoosePersona(t.Context(), page, "ann")
		}
		if err != nil {
			t.Fatal(err)
		}
		return browser, page
	}
	browser, _ := logIn()
	for _, step := range []struct {
		change string
		status int
		token  string
	}{
		{"", 200, "3 customer"},
		{"UPDATE public.users SET role = 'admin' WHERE id = 3", 200, "3 admin"},
		{"UPDATE public.users SET role = 'somebody else' WHERE id = 3", 403, ""},
		{"UPDATE public.users SET role = 'customer' WHERE id = 3", 200, "3 customer"},
		{"UPDATE public.users SET active = false WHERE id = 3", 401, ""},
	} {
		if err := db.Exec(t.Context(), step.change); err != nil {
			t.Fatal(err)
		}
		if status, got := token(t, browser); status != step.status || got != db.SQL(step.token) {
			t.Errorf("after %q: %d %q, want %d %q", step.change, status, got, step.status, step.token)
		}
	}
	if _, page := logIn(); page.Status != http.StatusForbidden || !strings.Contains(page.Text(), "account") {
		t.Errorf("a login to a closed account: %d %s", page.Status, page.Text())
	}
	want := []string{"1 -", "2 -", "3 ann"}
	got := texts(t, db, "SELECT format('%s %s', id, coalesce(subject, '-')) FROM public.users")
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
}
