package mapping_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

func TestClaimsRead(t *testing.T) {
	rules, findings := mapping.Load("rules.yaml", []byte(`
version: 1
providers:
  corp:
    preset: keycloak
    client: bridge
    claims:
      groups: { from: /acme/teams, default: [] }
  other: { preset: generic }
roles: { a: {} }
deny:
  - { name: leavers, provider: corp, when: { groups: leavers } }
rules:
  - { name: a, provider: corp, when: { client_roles: a }, role: a }
  - { name: b, provider: other, when: { email_domain: example.com }, role: a }
default: deny
token: { name: { from: name } }
`))
	if rules == nil {
		t.Fatal(findings)
	}
	want := map[string][]mapping.ClaimRead{
		"corp": {
			{"groups", "/acme/teams", "add the mapper Group Membership, with the token claim name /acme/teams, to the client in Keycloak"},
			{"client_roles", "access_token:/resource_access/bridge/roles", "in Keycloak, the client needs the client scope roles, and somebody such a role"},
		},
		"other":   {{"email_domain", "email", "look at what the provider sends to this client: its mappers, and `scopes` in config.yaml"}},
		"nowhere": nil,
	}
	for provider, want := range want {
		if diff := cmp.Diff(want, rules.ClaimsRead(provider)); diff != "" {
			t.Errorf("%s: %s", provider, diff)
		}
	}
}
