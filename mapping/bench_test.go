package mapping

import (
	"fmt"
	"strings"
	"testing"
)

// hundredRules is a file of 100 rules over Keycloak's claims, so many of them with a prefix or another pattern; only the last one matches the
// person of hundredClaims.
func hundredRules(t testing.TB, patterns int, pattern string) *Rules {
	var b strings.Builder
	b.WriteString(`version: 1
providers:
  corp: { preset: keycloak, client: bridge, authoritative_for: [example.com], claims: { groups: { default: [] } } }
roles: { customer: {}, editor: {} }
deny:
  - { name: leavers, when: { groups: /hr/leavers } }
  - { name: blocked, when: { realm_roles: blocked } }
rules:
`)
	for i := range 99 {
		switch {
		case i < patterns:
			fmt.Fprintf(&b, "  - { name: r%d, when: { groups: { %s } }, role: editor }\n", i, fmt.Sprintf(pattern, i))
		case i%2 == 0:
			fmt.Fprintf(&b, "  - { name: r%d, when: { groups: [/team/%d, /lead/%d], email_domain: example.com }, role: editor }\n", i, i, i)
		default:
			fmt.Fprintf(&b, "  - { name: r%d, when: { client_roles: api-%d, acr: [gold, mfa] }, unless: [groups: /suspended], role: editor }\n", i, i)
		}
	}
	b.WriteString("  - { name: last, when: { groups: /staff, acr: gold }, role: customer }\ndefault: deny\ntoken: { email: { from: email } }\n")
	return loadText(t, "hundred.yaml", b.String())
}

func hundredClaims(rules *Rules) Claims {
	groups := []any{}
	for i := range 19 {
		groups = append(groups, fmt.Sprintf("/department/%d/section", i))
	}
	token := map[string]any{
		"sub": "u1", "email": "ann@example.com", "email_verified": true, "acr": "gold", "groups": append(groups, "/staff"),
		"realm_access":    map[string]any{"roles": []any{"offline_access", "default-roles-acme", "uma_authorization"}},
		"resource_access": map[string]any{"bridge": map[string]any{"roles": []any{"viewer", "reporter"}}},
	}
	return rules.Capture("corp", Tokens{IDToken: token, AccessToken: token})
}

// P13: 100 rules in at most 5 µs, without allocation.
func BenchmarkDecide100Rules(b *testing.B) {
	for _, file := range []struct {
		name     string
		patterns int
		pattern  string
	}{
		{"values", 0, ""},
		{"10 prefixes", 10, "prefix: /apollo/%d/"},
		{"50 prefixes", 50, "prefix: /apollo/%d/"},
		{"50 globs", 50, `glob: "/apollo/%d/*"`},
		{"50 regexes", 50, `regex: "/apollo/%d/[a-z]+"`},
		{"50 regexes open at the start", 50, `regex: ".+/apollo/%d"`},
	} {
		b.Run(file.name, func(b *testing.B) {
			rules := hundredRules(b, file.patterns, file.pattern)
			in := Input{Provider: "corp", Claims: hundredClaims(rules), Row: Row{Known: true}}
			b.ReportAllocs()
			for b.Loop() {
				if role, _ := rules.Decide(in).Role(); role != "customer" {
					b.Fatal("not granted")
				}
			}
		})
	}
}
