package bridge_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
)

func records(t *testing.T, url string) *bridge.Records {
	t.Helper()
	r, err := bridge.OpenRecords(t.Context(), &bridge.DatabaseConfig{URL: bridge.NewSecret(url)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// TestRecordsOfLogins: what operators read is what logins wrote, and decides as the login did.
func TestRecordsOfLogins(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.login("ada", "/")
	s.login("carl", "/")
	_, page := s.login("leo", "/")
	_, rules := load(t, s.Dir+"/config.yaml")
	r := records(t, s.DB.URL)

	if n, err := r.Count(t.Context()); err != nil || n != 2 {
		t.Errorf("%d identities, %v", n, err)
	}
	for _, who := range []string{"carl", "CARL@example.com", row[string](t, s.DB, "SELECT user_id::text FROM bridge.identities WHERE subject = 'carl'")} {
		found, err := r.Find(t.Context(), who)
		if err != nil || !slices.ContainsFunc(found, func(k bridge.KnownIdentity) bool { return k.Subject == "carl" }) {
			t.Fatalf("%s: %v %v", who, found, err)
		}
		d := rules.Decide(mapping.Input{Provider: found[0].Provider, Claims: found[0].Claims, Row: found[0].Row})
		if role, _ := d.Role(); role != s.DB.Role("customer") || found[0].Email != "carl@example.com" || found[0].Disabled {
			t.Errorf("%s: %v %+v", who, d, found[0])
		}
	}
	if found, err := r.Find(t.Context(), "nobody@example.com"); err != nil || len(found) > 0 {
		t.Errorf("%v %v", found, err)
	}

	ref := reference.FindString(page.Text())
	event, found, err := r.Event(t.Context(), ref)
	if err != nil || !found || event.Subject != "leo" || event.Rule != "leavers" || event.RulesHash != rules.Hash() || event.UserID != "" {
		t.Fatalf("%s: %+v %t %v", ref, event, found, err)
	}
	claims, err := mapping.Recall(event.Claims)
	if err != nil {
		t.Fatal(err)
	}
	if d := rules.Decide(mapping.Input{Provider: event.Provider, Claims: claims}); d.Rule() != "leavers" || d.Reason() != event.Reason {
		t.Errorf("%v, the event says %q", d, event.Reason)
	}
	if _, found, err := r.Event(t.Context(), "AAAA-AAAA"); found || err != nil {
		t.Errorf("%t %v", found, err)
	}
}

// TestIdentitiesArePaged: all of them, once, in order, however many pages that takes; and who has had enough can stop.
func TestIdentitiesArePaged(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 999, 1000, 2001} {
		db := bridgetest.DB(t)
		if err := db.Exec(t.Context(), fmt.Sprintf(`
WITH person AS (INSERT INTO bridge.users (email) SELECT 'p' || n || '@example.com' FROM generate_series(1, %d) n RETURNING id)
INSERT INTO bridge.identities (issuer, subject, user_id, provider, claims, last_login_at)
SELECT 'https://op.example', 's' || id, id, 'op', '{"sub": "s"}', now() FROM person`, n)); err != nil {
			t.Fatal(err)
		}
		r := records(t, db.URL)
		seen := map[string]bool{}
		for k, err := range r.Identities(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			seen[k.Subject] = true
		}
		if len(seen) != n {
			t.Errorf("%d of %d", len(seen), n)
		}
		for range r.Identities(t.Context()) {
			break
		}
	}
}

// TestRecordsFail: the command that helps is named, a secret is not.
func TestRecordsFail(t *testing.T) {
	t.Parallel()
	empty := records(t, bridgetest.EmptyDB(t).URL)
	if _, err := empty.Count(t.Context()); err == nil || !strings.Contains(err.Error(), "oidc-bridge migrate") {
		t.Error(err)
	}
	for _, err := range records(t, bridgetest.EmptyDB(t).URL).Identities(t.Context()) {
		if err == nil {
			t.Error("an identity without a schema")
		}
	}
	_, err := bridge.OpenRecords(t.Context(), &bridge.DatabaseConfig{URL: bridge.NewSecret("postgres://x:hunter2@127.0.0.1:1/app")})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}

// TestPastedTokens: an operator's token is held to what a login is held to, but may have ended.
func TestPastedTokens(t *testing.T) {
	t.Parallel()
	op := bridgetest.NewOP(t, bridgetest.OPOptions{Clients: []bridgetest.Client{{ID: "bridge", Secret: "s"}}})
	config, findings := bridge.LoadProviders(configFile(t, op.Issuer()), noEnvironment)
	if config == nil {
		t.Fatal(findings)
	}
	now := time.Now()
	p, err := bridge.NewProvider(config, config.Providers[0], bridgetest.NewLog(t).Logger(), bridge.NewMetrics("test"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(change map[string]any) string {
		claims := map[string]any{
			"iss": op.Issuer(), "aud": "bridge", "sub": "u", "iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(-time.Hour).Unix(),
		}
		for name, value := range change {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
		token, err := op.Sign(nil, claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	for _, test := range []struct {
		name   string
		change map[string]any
		access bool
		fault  string
	}{
		{"an ID token that has ended", nil, false, ""},
		{"Keycloak's ID token", map[string]any{"typ": "ID", "azp": "bridge"}, false, ""},
		{"Keycloak's access token", map[string]any{"typ": "Bearer", "azp": "bridge", "aud": "account"}, true, ""},
		{"somebody else's ID token", map[string]any{"aud": "other"}, false, "aud"},
		{"an access token of another client", map[string]any{"typ": "Bearer", "azp": "other"}, false, "azp"},
		{"an access token of no client", map[string]any{"typ": "Bearer"}, false, "azp"},
		{"another issuer's token", map[string]any{"iss": "https://evil.example"}, false, "iss"},
		{"a refresh token", map[string]any{"typ": "Refresh", "azp": "bridge"}, false, "typ"},
		{"a logout token", map[string]any{"events": map[string]any{}}, false, "typ"},
		{"a token about nobody", map[string]any{"sub": nil}, false, "sub"},
		{"a token without its time", map[string]any{"iat": nil}, false, "iat"},
	} {
		token := sign(test.change)
		got, err := p.VerifyPasted(t.Context(), token)
		if test.fault != "" {
			if err == nil || !strings.Contains(err.Error(), test.fault) || strings.Contains(err.Error(), token) {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if err != nil || got.Access != test.access || got.Claims["sub"] != "u" || got.Ended < 59*time.Minute {
			t.Errorf("%s: %+v %v", test.name, got, err)
		}
		if read, err := bridge.ReadPasted(token, now); err != nil || read.Access != test.access {
			t.Errorf("%s: %+v %v", test.name, read, err)
		}
	}
	forged := sign(nil)
	forged = forged[:strings.LastIndex(forged, ".")] + ".AAAA"
	if _, err := p.VerifyPasted(t.Context(), forged); err == nil || !strings.Contains(err.Error(), "signature") {
		t.Error(err)
	}
	if read, err := bridge.ReadPasted(forged, now); err != nil || read.Claims["sub"] != "u" {
		t.Error(err)
	}
	if sub := read(t, `{"sub":"u","sub":"v"}`, now); sub == nil {
		t.Error("a member twice was read")
	}
	for _, text := range []string{"", "opaque", "a.b", "a.b.c.d.e", "a.b.c", strings.Repeat("a", 70<<10), "e30.e30"} {
		if _, err := p.VerifyPasted(t.Context(), text); err == nil {
			t.Errorf("%.20q was verified", text)
		}
		if _, err := bridge.ReadPasted(text, now); err == nil {
			t.Errorf("%.20q was read", text)
		}
	}
}

func read(t *testing.T, payload string, now time.Time) error {
	t.Helper()
	_, err := bridge.ReadPasted(encode([]byte(`{"alg":"none"}`))+"."+encode([]byte(payload))+".", now)
	return err
}

func configFile(t *testing.T, issuer string) string {
	t.Helper()
	name := t.TempDir() + "/config.yaml"
	write(t, name, "public_url: http://localhost:8080\ninsecure_dev: true\nproviders:\n  op:\n    issuer: "+issuer+"\n    client_id: bridge\n    client_secret: ${NOT_SET}\n")
	return name
}

// TestLoadProviders: neither secrets nor what only serve needs is looked at; what is wrong with a provider is said.
func TestLoadProviders(t *testing.T) {
	t.Parallel()
	c, findings := bridge.LoadProviders(configFile(t, "http://127.0.0.1:1"), noEnvironment)
	if c == nil || len(findings) > 0 || c.Providers[0].Issuer != "http://127.0.0.1:1" || c.Providers[0].ClientSecrets[0].Reveal() != "not read" || c.Rules == "" {
		t.Errorf("%+v %v", c, findings)
	}
	for _, text := range []string{"", "providers: 1", "providers: { op: }", "providers: { op: [a] }", "providers: { op: { issuer: '${NOT_SET}', client_id: x, client_secret: y } }", "provider: {}"} {
		name := t.TempDir() + "/config.yaml"
		write(t, name, text)
		if c, findings := bridge.LoadProviders(name, noEnvironment); c != nil || len(findings) == 0 {
			t.Errorf("%s: %v %v", text, c, findings)
		}
	}
	if c, findings := bridge.LoadProviders("missing.yaml", noEnvironment); c != nil || !strings.Contains(fmt.Sprint(findings), "no such file") {
		t.Errorf("%v %v", c, findings)
	}
}
