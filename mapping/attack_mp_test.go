package mapping

import (
	"slices"
	"strings"
	"testing"
)

func TestAttack_MP04_EditableClaims(t *testing.T) {
	rule := func(claim string) []string {
		return []string{
			"rules: [ { name: a, provider: corp, when: { " + claim + ": root }, role: editor } ]",
			"rules: [ { name: a, provider: corp, when: { " + claim + ": [x, root] }, role: editor } ]",
			"rules: [ { name: a, provider: corp, when: { " + claim + ": { prefix: ro } }, role: editor } ]",
			"rules: [ { name: a, provider: corp, when: { " + claim + ": { glob: 'ro*t' } }, role: editor } ]",
			"rules: [ { name: a, provider: corp, when: { " + claim + ": { regex: 'ro+t' } }, role: editor } ]",
			"rules: [ { name: a, provider: corp, when: { " + claim + ": { present: true } }, role: editor } ]",
			"rules: [ { name: a, provider: corp, when: { groups: /a, " + claim + ": root }, role: editor } ]",
			"rules: [ { name: a, provider: corp, when: { groups: /a }, unless: [ { " + claim + ": guest } ], role: editor } ]",
			"rules: [ { name: a, provider: corp, when: { groups: /a }, unless: [ { groups: /b, " + claim + ": guest } ], role: editor } ]",
			"rules: [ { name: a, provider: corp, by: " + claim + ", to: [ root: editor ] } ]",
			"rules: [ { name: a, provider: corp, when: { " + claim + ": root }, role: { from: users, allow: [editor] } } ]",
		}
	}
	inputs := 0
	refused := func(head string, claim string) {
		t.Helper()
		for _, text := range rule(claim) {
			inputs++
			rules, findings := Load("rules.yaml", []byte(head+text+"\ndefault: deny\n"))
			editable := false
			for _, f := range findings {
				editable = editable || f.Code == "E302"
			}
			if rules != nil || !editable {
				t.Errorf("%s: %v", text, findings)
			}
		}
	}
	for _, claim := range []string{"name", "nickname", "preferred_username"} {
		refused(staff, claim)
	}
	declared := func(claim string) string {
		return strings.Replace(staff, "    claims:\n", "    claims:\n      "+claim+"\n", 1)
	}
	for _, key := range editedByPeople {
		refused(declared("mine: { from: "+key+", default: none }"), "mine")
		refused(declared("mine: { from: /"+key+", default: none }"), "mine")
		refused(declared("mine: { from: /"+key+"/inner, default: none }"), "mine")
		if !slices.Contains([]string{"email", "name", "nickname", "preferred_username"}, key) {
			refused(declared(key+": { default: none }"), key)
		}
		refused(declared("mine: { from: "+key+", source: userinfo, fold: true, default: none }"), "mine")
	}
	// An address from another claim is not the one that email_verified speaks of.
	for _, key := range editedByPeople {
		if key == "email" {
			continue
		}
		for _, from := range []string{key, "/" + key, "/" + key + "/inner"} {
			address := strings.Replace(declared("email: { from: "+from+`, default: "" }`), "preset: keycloak", "preset: keycloak\n    email_verified: assumed", 1)
			inputs++
			rules, findings := Load("rules.yaml", []byte(address+"rules: [ { name: a, provider: corp, when: { email: root@example.com }, role: editor }, { name: b, provider: corp, when: { email_domain: example.com }, role: editor } ]\ndefault: deny\n"))
			if rules != nil || len(findings) != 2 || findings[0].Code != "E302" || findings[1].Code != "E302" {
				t.Errorf("email from %s: %v", from, findings)
			}
		}
	}
	refused(declared("mine: { editable: true, default: none }"), "mine")
	refused(strings.Replace(staff, "preset: keycloak\n    client: bridge", "preset: entra", 1), "upn")

	// A file may say that it knows better; a deny rule may use whatever it likes.
	p := newPolicy(t, strings.Replace(staff, "    claims:\n", "    claims:\n      nickname: { editable: false }\n      preferred_username: { default: none }\n", 1)+`
deny:
  - { name: bad, provider: corp, when: { preferred_username: eve } }
rules:
  - { name: a, provider: corp, when: { nickname: root }, role: editor }
`)
	p.allow("corp", `{"nickname": "root", "preferred_username": "ann"}`, "editor")
	p.deny("corp", `{"nickname": "root", "preferred_username": "eve"}`, `deny "bad" matched`)
	tried(t, inputs)
}

// The requested role of MP-10 has no place in this version: nobody can ask for one.
func TestAttack_MP10_OrderAndShadows(t *testing.T) {
	first := newPolicy(t, `
rules:
  - { name: one, provider: corp, when: { groups: /a }, role: viewer }
  - { name: two, provider: corp, when: { groups: /b }, role: editor }
  - { name: three, provider: corp, by: realm_roles, to: [low: viewer, high: editor] }
  - { name: four, provider: corp, when: { groups: /c }, unless: [ { groups: /d } ], role: analyst }
  - { name: five, provider: corp, when: { groups: [/c, /e] }, role: customer }
default: { role: viewer }
`)
	for claims, role := range map[string]string{
		`{"groups": ["/a", "/b"]}`: "viewer", `{"groups": ["/b", "/a"]}`: "viewer", `{"groups": ["/b"]}`: "editor", `{"groups": ["/b"], "realm_access": {"roles": ["low"]}}`: "editor",
		`{"realm_access": {"roles": ["high", "low"]}}`: "viewer", `{"realm_access": {"roles": ["high"]}}`: "editor", `{"groups": ["/c"]}`: "analyst", `{"groups": ["/c", "/d"]}`: "customer",
		`{"groups": ["/e", "/c"]}`: "analyst", `{"groups": ["/e"]}`: "customer", `{}`: "viewer", `{"groups": ["/A"]}`: "viewer",
		// What a person or a provider asks for is no claim that the rules read.
		`{"groups": ["/a"], "role": "editor"}`: "viewer", `{"groups": ["/a"], "requested_role": "editor", "roles": ["editor"], "scope": "role:editor"}`: "viewer",
	} {
		first.allow("corp", claims, role)
	}

	const catchAll = "  - { name: all, provider: corp, when: { groups: { present: true } }, role: viewer }\n"
	shadowed := map[string]string{
		"the same condition":  "  - { name: x, provider: corp, when: { groups: /a }, role: viewer }\n  - { name: y, provider: corp, when: { groups: /a }, role: editor }\n",
		"one more condition":  "  - { name: x, provider: corp, when: { groups: /a }, role: viewer }\n  - { name: y, provider: corp, when: { groups: /a, acr: gold }, role: editor }\n",
		"one of a list":       "  - { name: x, provider: corp, when: { groups: [/a, /b] }, role: viewer }\n  - { name: y, provider: corp, when: { groups: /b }, role: editor }\n",
		"part of a list":      "  - { name: x, provider: corp, when: { groups: [/a, /b, /c] }, role: viewer }\n  - { name: y, provider: corp, when: { groups: [/c, /a] }, role: editor }\n",
		"an exception less":   "  - { name: x, provider: corp, when: { groups: /a }, role: viewer }\n  - { name: y, provider: corp, when: { groups: /a }, unless: [ { groups: /b } ], role: editor }\n",
		"the same role":       "  - { name: x, provider: corp, when: { groups: /a }, role: viewer }\n  - { name: y, provider: corp, when: { groups: /a }, role: viewer }\n",
		"two lines of tables": "  - { name: x, provider: corp, by: realm_roles, to: [a: viewer] }\n  - { name: y, provider: corp, by: realm_roles, to: [a: editor] }\n",
		"not the neighbour":   "  - { name: x, provider: corp, when: { groups: /a }, role: viewer }\n  - { name: z, provider: corp, when: { acr: gold }, role: customer }\n  - { name: y, provider: corp, when: { groups: /a }, role: editor }\n",
	}
	live := map[string]string{
		"in the other order":   "  - { name: x, provider: corp, when: { groups: /a, acr: gold }, role: editor }\n  - { name: y, provider: corp, when: { groups: /a }, role: viewer }\n",
		"one of the list only": "  - { name: x, provider: corp, when: { groups: /a }, role: viewer }\n  - { name: y, provider: corp, when: { groups: [/a, /b] }, role: editor }\n",
		"an exception above":   "  - { name: x, provider: corp, when: { groups: /a }, unless: [ { groups: /b } ], role: viewer }\n  - { name: y, provider: corp, when: { groups: /a }, role: editor }\n",
		"another provider":     "  - { name: x, provider: corp, when: { email_domain: example.com }, role: viewer }\n  - { name: y, provider: google, when: { email_domain: example.com }, role: editor }\n",
		"another claim":        "  - { name: x, provider: corp, when: { groups: /a }, role: viewer }\n  - { name: y, provider: corp, when: { realm_roles: /a }, role: editor }\n",
		"before a catch-all":   "  - { name: x, provider: corp, when: { groups: /a }, role: editor }\n" + catchAll,
		"until some day":       "  - { name: x, provider: corp, when: { groups: /a }, until: 2027-06-01, role: viewer }\n  - { name: y, provider: corp, when: { groups: /a }, role: editor }\n",
	}
	warned := func(rules string) bool {
		_, findings := Load("rules.yaml", []byte(staff+"rules:\n"+rules+"default: deny\n"))
		for _, f := range findings {
			if f.Severity == "error" {
				t.Errorf("%s: %v", rules, f)
			}
			if f.Code == "W506" && strings.Contains(f.Message, `"y" can never win`) {
				return true
			}
		}
		return false
	}
	for name, rules := range shadowed {
		if !warned(rules) {
			t.Errorf("%s: no W506 in\n%s", name, rules)
		}
	}
	for name, rules := range live {
		if warned(rules) {
			t.Errorf("%s: W506 in\n%s", name, rules)
		}
	}
	for _, rules := range []string{"  - { name: x, provider: corp, when: { groups: /a }, role: viewer }\n  - { name: x, provider: corp, when: { groups: /b }, role: editor }\n"} {
		if got, findings := Load("rules.yaml", []byte(staff+"rules:\n"+rules+"default: deny\n")); got != nil {
			t.Errorf("two rules of one name: %v", findings)
		}
	}
	tried(t, len(shadowed)+len(live)+1)
}
