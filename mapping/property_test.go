package mapping

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A drawn file is a small policy over a few claims and values, so that lines meet.
type drawn struct{ deny, rules []string }

const drawnHead = `version: 1
providers:
  corp:
    preset: generic
    claims: { groups: { type: set, default: [] }, mfa: { type: bool, default: false }, acr: { default: none }, unit: { fold: true }, teams: { type: set } }
roles: { r0: {}, r1: {}, r2: {} }
`

func (f drawn) String() string {
	text := drawnHead
	if len(f.deny) > 0 {
		text += "deny:\n" + strings.Join(f.deny, "")
	}
	if len(f.rules) > 0 {
		text += "rules:\n" + strings.Join(f.rules, "")
	}
	return text + "default: deny\n"
}

// safe conditions read claims that say what absence means; only they may keep people out.
var (
	safe = []string{"groups: a", "groups: [a, b]", "groups: { none: [c] }", "groups: { all: [a, b] }", "groups: { present: false }", "mfa: true", "mfa: { is_not: true }", "acr: a", "acr: { not_in: [a, b] }"}
	open = []string{"unit: A", "teams: b", "teams: { prefix: a }", "teams: { glob: \"*\" }", "unit: { present: true }"}
)

func drawConditions(t *rapid.T, from []string, label string) string {
	seen := map[string]bool{}
	var lines []string
	for _, line := range rapid.SliceOfN(rapid.SampledFrom(from), 1, 3).Draw(t, label) {
		if name, _, _ := strings.Cut(line, ":"); !seen[name] {
			seen[name] = true
			lines = append(lines, line)
		}
	}
	return "{ " + strings.Join(lines, ", ") + " }"
}

func drawFile(t *rapid.T) drawn {
	var f drawn
	for i := range rapid.IntRange(0, 2).Draw(t, "denials") {
		f.deny = append(f.deny, fmt.Sprintf("  - { name: d%d, when: %s }\n", i, drawConditions(t, safe, "deny")))
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "rules") {
		rule := fmt.Sprintf("name: r%d, when: %s", i, drawConditions(t, append(slices.Clone(safe), open...), "when"))
		if rapid.Bool().Draw(t, "with unless") {
			rule += ", unless: [" + drawConditions(t, safe, "unless") + "]"
		}
		if rapid.Bool().Draw(t, "by table") {
			rule += ", by: teams, to: [a: r0, b: r1]"
		} else {
			rule += fmt.Sprintf(", role: r%d", rapid.IntRange(0, 2).Draw(t, "role"))
		}
		f.rules = append(f.rules, "  - { "+rule+" }\n")
	}
	return f
}

var drawnNames = []string{"groups", "mfa", "acr", "unit", "teams"}

// drawValue draws any JSON value that a claim might have; most of them fit it.
func drawValue(t *rapid.T, name string) any {
	lists := []any{[]any{}, []any{"a"}, []any{"b", "a"}, []any{"c", "ab"}, "a", "c"}
	fitting := map[string][]any{
		"groups": lists, "teams": lists, "mfa": {true, false, "true"}, "acr": {"a", "b", "z"}, "unit": {"A", "a", "b"},
	}
	odd := []any{nil, "", map[string]any{"a": true}, []any{1}, 7, "\u200b", []any{[]any{"a"}}}
	if rapid.IntRange(0, 4).Draw(t, "fits") > 0 {
		return rapid.SampledFrom(fitting[name]).Draw(t, name)
	}
	return rapid.SampledFrom(odd).Draw(t, name)
}

func drawClaims(t *rapid.T) map[string]any {
	claims := map[string]any{"sub": "u1"}
	for _, name := range drawnNames {
		claims[name] = drawValue(t, name)
	}
	return claims
}

func mustLoad(t *rapid.T, text string) *Rules {
	rules, findings := Load("rules.yaml", []byte(text))
	if rules == nil {
		t.Fatalf("%v\n%s", findings, text)
	}
	return rules
}

func decideDrawn(t *rapid.T, f drawn, claims map[string]any) Decision {
	rules := mustLoad(t, f.String())
	in := Input{Provider: "corp", Claims: rules.Capture("corp", Tokens{IDToken: claims})}
	d := rules.Decide(in)
	if e := rules.Explain(in); e.Decision.String() != d.String() {
		t.Fatalf("Decide: %v, Explain: %v", d, e.Decision)
	}
	return d
}

func TestPropertyDenyDominates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, claims := drawFile(t), drawClaims(t)
		before := decideDrawn(t, f, claims)
		f.deny = append(f.deny, "  - { name: more, when: "+drawConditions(t, safe, "more")+" }\n")
		after := decideDrawn(t, f, claims)
		if after.Outcome() != Refused && after.String() != before.String() {
			t.Fatalf("a deny rule turned %v into %v", before, after)
		}
		slices.Reverse(f.deny)
		if reversed := decideDrawn(t, f, claims); reversed.Outcome() != after.Outcome() {
			t.Fatalf("the order of deny rules turned %v into %v", after, reversed)
		}
	})
}

func TestPropertyOnlyRulesAboveTheWinnerCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, claims := drawFile(t), drawClaims(t)
		d := decideDrawn(t, f, claims)
		winner := slices.IndexFunc(f.rules, func(rule string) bool { return strings.Contains(rule, "name: "+d.Rule()+",") })
		if d.Outcome() != Granted || winner < 0 {
			return
		}
		f.rules = f.rules[:winner+1]
		if shorter := decideDrawn(t, f, claims); shorter.String() != d.String() {
			t.Fatalf("without the rules below %q: %v", d.Rule(), shorter)
		}
		if winner > 0 {
			f.rules = f.rules[:winner]
			if above := decideDrawn(t, f, claims); above.Outcome() != Refused {
				t.Fatalf("a rule above %q matched as well: %v", d.Rule(), above)
			}
		}
	})
}

// What a broken claim leaves granted does not depend on it: whatever the claim might have been, the answer is the same. So nobody gains by
// breaking a claim, and no later value turns a refusal for a broken claim into something that the breaking hid.
func TestPropertyBrokenClaimNeverDecides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, claims := drawFile(t), drawClaims(t)
		name := rapid.SampledFrom(drawnNames).Draw(t, "broken")
		claims[name] = map[string]any{}
		d := decideDrawn(t, f, claims)
		if d.Outcome() != Granted {
			return
		}
		claims[name] = drawValue(t, name)
		if other := decideDrawn(t, f, claims); other.String() != d.String() {
			t.Fatalf("claim %s broken: %v; as %v: %v", name, d, claims[name], other)
		}
	})
}

// The same for a claim that was not captured, which moreover asks for a new login wherever it matters.
func TestPropertyUncapturedClaimNeverDecides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, claims := drawFile(t), drawClaims(t)
		rules := mustLoad(t, f.String())
		name := rapid.SampledFrom(drawnNames).Draw(t, "uncaptured")
		captured := rules.Capture("corp", Tokens{IDToken: claims})
		whole := rules.Decide(Input{Provider: "corp", Claims: captured})
		captured.entries = slices.DeleteFunc(captured.entries, func(e entry) bool { return e.expression == name })
		without := rules.Decide(Input{Provider: "corp", Claims: captured})
		if without.Outcome() == Granted && without.String() != whole.String() {
			t.Fatalf("without %s: %v; with it: %v", name, without, whole)
		}
	})
}

// A capture survives its storage.
func TestPropertyClaimsRoundTrip(t *testing.T) {
	rules := mustLoadHead(t)
	rapid.Check(t, func(t *rapid.T) {
		captured := rules.Capture("corp", Tokens{IDToken: drawClaims(t)})
		stored := asJSON(captured)
		var restored Claims
		if err := restored.UnmarshalJSON([]byte(stored)); err != nil {
			t.Fatal(err)
		}
		if again := asJSON(restored); again != stored || len(restored.entries) != len(captured.entries) {
			t.Fatalf("%s became %s", stored, again)
		}
	})
}

func mustLoadHead(t *testing.T) *Rules { return loadText(t, "rules.yaml", drawn{}.String()) }

// However a folded claim is read, to grant or to keep out, the case of what it is compared with makes no difference: such a file says what the
// same file in lower case says, or does not load.
func TestPropertyFoldedClaimsHaveNoCase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"Ops", "OPS", "ops", "Ops/A", "ops/a", "oPs/x"})
		line := rapid.SampledFrom([]string{
			"%q", "[%q, other]", "{ prefix: %q }", "{ glob: %q }", `{ glob: "*%s" }`, "{ regex: %q }", `{ regex: "(%s|x)" }`, "{ all: [%q] }", "{ none: [%q] }",
		})
		condition := func(label string) string {
			return strings.ReplaceAll(line.Draw(t, label), "%q", `"%s"`) + " " + text.Draw(t, label+" text")
		}
		conditions := []string{condition("deny"), condition("when"), condition("unless")}
		loaded := func(spell func(string) string) *Rules {
			var lines []any
			for _, c := range conditions {
				end := strings.LastIndexByte(c, ' ')
				lines = append(lines, strings.ReplaceAll(c[:end], "%s", spell(c[end+1:])))
			}
			rules, _ := Load("rules.yaml", fmt.Appendf(nil, `version: 1
providers: { corp: { preset: keycloak, claims: { groups: { default: [], fold: true } } } }
roles: { viewer: {}, editor: {} }
deny:
  - { name: out, when: { groups: %s } }
rules:
  - { name: in, when: { groups: %s }, unless: [ { groups: %s } ], role: editor }
default: { role: viewer }
`, lines...))
			return rules
		}
		rules, inLowerCase := loaded(strings.Clone), loaded(strings.ToLower)
		if rules == nil {
			return
		}
		claims := map[string]any{"sub": "u", "groups": []any{text.Draw(t, "value")}}
		decide := func(rules *Rules) string {
			captured := rules.Capture("corp", Tokens{IDToken: claims, AccessToken: map[string]any{}})
			return rules.Decide(Input{Provider: "corp", Claims: captured, Row: Row{Known: true}}).String()
		}
		if got, want := decide(rules), decide(inLowerCase); got != want {
			t.Errorf("%q: %s, but in lower case: %s", conditions, got, want)
		}
	})
}
