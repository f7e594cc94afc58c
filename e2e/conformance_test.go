package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// The positive modules of the OpenID Foundation's relying-party plans (Basic and Config), by their names, at providers that others wrote. Like
// bridge/conformance_test.go this is a re-implementation: the suite itself was not run. In the suite such a module ends with the UserInfo
// request; here with a role that only claims from UserInfo can give. What a module needs of a misbehaving provider (an ID token without kid),
// only the test provider of bridgetest can do.

// In oidc-provider, as in OpenID Connect Core 5.4, claims that a scope asks for come from UserInfo alone when there is an access token.
func TestConformanceAtOIDCProvider(t *testing.T) {
	s := newShop(t)
	first := s.runProvider(t, "0")
	s.setUp(t, s.issuer)
	s.serve(t)
	basic := client{"basic", "bridge-basic", "basic-client-secret-of-the-end-to-end-tests"}
	sent := s.record(t, s.issuer, basic, "ada")
	if sent.IDToken["groups"] != nil || sent.IDToken["email"] != nil || sent.UserInfo["groups"] == nil || sent.UserInfo["email"] == nil {
		t.Fatalf("groups and email are not at UserInfo alone: %v", sent)
	}
	loggedIn := func(t *testing.T, connection string) {
		t.Helper()
		v := s.visit(t)
		v.login(connection, "ada")
		v.wantAt("/")
		v.wantRole(s.db.Role("admin"))
	}
	for _, module := range []string{
		"oidcc-client-test", "oidcc-client-test-idtoken-sig-rs256", "oidcc-client-test-scope-userinfo-claims", "oidcc-client-test-client-secret-basic",
		"oidcc-client-test-discovery-openid-config", "oidcc-client-test-discovery-jwks-uri-keys",
	} {
		t.Run(module, func(t *testing.T) { loggedIn(t, "basic") })
	}
	t.Run("rp-token_endpoint-client_secret_post", func(t *testing.T) { loggedIn(t, "post") })

	// It makes new keys at each start.
	t.Run("oidcc-client-test-signing-key-rotation", func(t *testing.T) {
		before := keyIDs(t, s.issuer+"/jwks")
		address, _ := url.Parse(s.issuer)
		_, port, _ := net.SplitHostPort(address.Host)
		if first.stop(t) == 0 {
			t.Error("it ended by itself")
		}
		s.runProvider(t, port)
		if after := keyIDs(t, s.issuer+"/jwks"); after == before {
			t.Fatalf("still the keys %s", after)
		}
		loggedIn(t, "basic")
	})
}

// conformance runs the same modules at Keycloak, whose group mapper can be told to write groups into UserInfo alone.
func (k *keycloak) conformance(t *testing.T) {
	s := k.shop
	mapper := map[string]any{
		"name": "groups at UserInfo", "protocol": "openid-connect", "protocolMapper": "oidc-group-membership-mapper",
		"config": map[string]string{"claim.name": "groups", "full.path": "true", "id.token.claim": "false", "access.token.claim": "false", "userinfo.token.claim": "true"},
	}
	k.replaceGroupMapper(t, "bridge-groups", mapper)
	groups := client{"groups", "bridge-groups", "bridge-groups-client-secret-of-the-end-to-end-tests"}
	sent := s.record(t, k.issuer(), groups, "alice")
	if sent.IDToken["groups"] != nil || sent.AccessToken["groups"] != nil || sent.UserInfo["groups"] == nil {
		t.Fatalf("groups are not at UserInfo alone: %v", sent)
	}
	arrive := func(v *visitor) {
		v.t.Helper()
		v.open(s.public + "/login/groups?return_to=/")
	}
	finish := func(v *visitor) {
		v.t.Helper()
		if strings.Contains(v.page.Text(), "Sign in to your account") {
			v.submit("Sign In", url.Values{"username": {"alice"}, "password": {"alice-password"}})
		}
		if strings.Contains(v.page.Text(), "Grant Access") {
			v.submit("Yes", nil)
		}
		v.wantAt("/")
		v.wantRole(s.db.Role("admin"))
	}
	for _, module := range []string{
		"oidcc-client-test", "oidcc-client-test-idtoken-sig-rs256", "oidcc-client-test-scope-userinfo-claims", "oidcc-client-test-client-secret-basic",
		"oidcc-client-test-discovery-openid-config", "oidcc-client-test-discovery-jwks-uri-keys",
	} {
		t.Run(module, func(t *testing.T) {
			v := s.visit(t)
			arrive(v)
			finish(v)
		})
	}
	t.Run("oidcc-client-test-signing-key-rotation", func(t *testing.T) {
		old := k.signingKey(t)
		k.rotateKeys(t)
		if k.signingKey(t) == old {
			t.Fatal("the key is still the same")
		}
		v := s.visit(t)
		arrive(v)
		finish(v)
	})
	t.Run("oidcc-client-test-signing-key-rotation-just-before-signing", func(t *testing.T) {
		v := s.visit(t)
		arrive(v)
		old := k.signingKey(t)
		k.rotateKeys(t)
		if k.signingKey(t) == old {
			t.Fatal("the key is still the same")
		}
		finish(v)
	})
}

// replaceGroupMapper takes the client's group mapper away and adds this one.
func (k *keycloak) replaceGroupMapper(t *testing.T, clientID string, mapper map[string]any) {
	t.Helper()
	var clients []struct{ ID string }
	k.admin(t, http.MethodGet, "/shop/clients?clientId="+clientID, nil, &clients)
	at := fmt.Sprintf("/shop/clients/%s/protocol-mappers/models", clients[0].ID)
	var mappers []struct{ ID, ProtocolMapper string }
	k.admin(t, http.MethodGet, at, nil, &mappers)
	for _, m := range mappers {
		if m.ProtocolMapper == mapper["protocolMapper"] {
			k.admin(t, http.MethodDelete, at+"/"+m.ID, nil, nil)
		}
	}
	k.admin(t, http.MethodPost, at, mapper, nil)
}

// keyIDs are the kids of a key set.
func keyIDs(t *testing.T, address string) string {
	t.Helper()
	var set struct{ Keys []struct{ Kid string } }
	ask(t, newRequest(t, http.MethodGet, address, nil), &set)
	return fmt.Sprint(set.Keys)
}
