package mapping

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whoever writes a role into the users row is told which rules take it from there, and which roles they allow.
func TestRowRules(t *testing.T) {
	rules := loadText(t, "rules.yaml", `version: 1
providers: { corp: { preset: generic }, other: { preset: generic } }
roles: { editor: {}, viewer: {}, guest: {} }
rules:
  - { name: fixed, provider: corp, when: { sub: x }, role: guest }
  - { name: staff, provider: corp, when: { sub: y }, role: { from: users, allow: [viewer, editor], default: viewer } }
  - { name: guests, provider: other, when: { sub: z }, role: { from: users, allow: [guest] } }
default: deny
`)
	want := []RowRule{{"corp", "staff", []string{"viewer", "editor"}}, {"other", "guests", []string{"guest"}}}
	if diff := cmp.Diff(want, rules.RowRules()); diff != "" {
		t.Error(diff)
	}
	none := loadText(t, "rules.yaml", "version: 1\nproviders: { corp: { preset: generic } }\nroles: { guest: {} }\nrules: [{ name: a, when: { sub: x }, role: guest }]\ndefault: deny\n")
	if found := none.RowRules(); found != nil {
		t.Errorf("%v", found)
	}
}
