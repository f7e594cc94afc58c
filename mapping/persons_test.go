package mapping

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What an event keeps of a decision is enough to explain it again: for everybody in the design file's tests, the same outcome by the same rule.
func TestRecall(t *testing.T) {
	rules := load(t, "testdata/design.yaml")
	for _, person := range rules.Persons() {
		in := rules.Input(person)
		then := rules.Decide(in)
		event, err := json.Marshal(then.ReadClaims())
		if err != nil {
			t.Fatal(err)
		}
		if in.Claims, err = Recall(event); err != nil {
			t.Fatal(err)
		}
		again := rules.Decide(in)
		role, _ := then.Role()
		roleAgain, _ := again.Role()
		if again.Outcome() != then.Outcome() || again.Rule() != then.Rule() || roleAgain != role || again.Reason() != then.Reason() {
			t.Errorf("%s: %v, then %v", person.Name, again, then)
		}
		if diff := cmp.Diff(then.ReadClaims(), again.ReadClaims()); diff != "" {
			t.Errorf("%s: %s", person.Name, diff)
		}
	}
	if _, err := Recall([]byte("[]")); err == nil {
		t.Error("a list was recalled")
	}
}

// A claim that the file reads only since was not captured; one that is required but not read by a rule does not refuse.
func TestRecallUnderOtherRules(t *testing.T) {
	const head = "version: 1\nproviders: { corp: { preset: generic, claims: { groups: { type: set, default: [] }, tier: { required: true } } } }\nroles: { viewer: {} }\ndefault: deny\n"
	event, err := Recall([]byte(`{"groups":["/a"]}`))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]Outcome{
		"rules: [{ name: a, when: { groups: /a }, role: viewer }]":             Granted,
		"rules: [{ name: a, when: { groups: /a, acr: gold }, role: viewer }]":  LoginAgain,
		"rules: [{ name: a, when: { groups: /a, tier: gold }, role: viewer }]": LoginAgain,
	} {
		if got := loadText(t, "rules.yaml", head+text).Decide(Input{Provider: "corp", Claims: event}); got.Outcome() != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestTestResults(t *testing.T) {
	text, err := os.ReadFile("testdata/design.yaml")
	if err != nil {
		t.Fatal(err)
	}
	results, ran, findings := Test("design.yaml", text)
	if !ran || len(findings) > 0 || len(results) != 7 || slices.ContainsFunc(results, func(r TestResult) bool { return !r.Passed }) || results[0].RefuseIf != 5 {
		t.Errorf("%v %t %v", results, ran, findings)
	}
	broken := strings.Replace(string(text), "acr: gold }\n    expect", "acr: tin }\n    expect", 1)
	results, ran, _ = Test("design.yaml", []byte(broken))
	if !ran || results[0].Passed || !results[1].Passed {
		t.Errorf("%v %t", results, ran)
	}
	if _, ran, findings = Test("design.yaml", []byte(strings.Replace(string(text), "version: 1", "version: 2", 1))); ran || len(findings) != 1 {
		t.Errorf("%t %v", ran, findings)
	}
}

// The case of letters is named wherever it alone keeps a rule from matching: in a rule of one line, in a table, and above a grant.
func TestNearMissesByCase(t *testing.T) {
	rules := loadText(t, "rules.yaml", `
version: 1
providers: { corp: { preset: generic, claims: { groups: { type: set, default: [] } } } }
roles: { editor: {}, viewer: {}, admin: {} }
rules:
  - { name: admins, when: { groups: /Admins }, role: admin }
  - { name: table, by: groups, to: [/Editors: editor, /other: viewer] }
  - { name: staff, when: { groups: /staff }, role: viewer }
default: deny
`)
	for groups, want := range map[string][]string{
		"/admins":        {`near miss: rule "admins" lacks only: when groups is /Admins, which differs in upper and lower case only`},
		"/editors":       {`near miss: rule "table" lacks only: by groups is /Editors, which differs in upper and lower case only`},
		"/staff /admins": {`near miss: rule "admins" lacks only: when groups is /Admins, which differs in upper and lower case only`},
		"/staff":         nil,
		"/nothing":       nil,
	} {
		var list []any
		for _, group := range strings.Fields(groups) {
			list = append(list, group)
		}
		claims := rules.Capture("corp", Tokens{IDToken: map[string]any{"sub": "u", "groups": list}})
		got := rules.Explain(Input{Provider: "corp", Claims: claims}).NearMisses()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", groups, diff)
		}
	}
}

func TestExpiredIsSilencedByAComment(t *testing.T) {
	const text = "version: 1\nproviders: { corp: { preset: generic } }\nroles: { viewer: {} }\nrules:\n  - name: a\n    when: { sub: x }\n    role: viewer\n    until: 2027-01-31 # allow W510: kept until the audit\ndefault: deny\n"
	now := time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)
	if got := loadText(t, "rules.yaml", text).Expired(now); len(got) > 0 {
		t.Error(got)
	}
	if got := loadText(t, "rules.yaml", strings.Replace(text, "# allow", "# disallow", 1)).Expired(now); len(got) != 1 {
		t.Error(got)
	}
}
