package mapping

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// A test is one entry of the file's `tests`.
type test struct {
	at       *yaml.Node // its name
	name     string
	provider *provider
	claims   map[string]any
	row      Row
	withRow  bool
	now      time.Time
	refused  bool
	role     string
	rule     string
	token    map[string]any
	refuseIf []patch
	failures int
}

// A patch is a JSON merge patch (RFC 7396) of a test's claims.
type patch struct {
	at      *yaml.Node
	members map[string]any
}

var (
	testKeys   = []string{"name", "provider", "claims", "row", "at", "expect", "refuse_if"}
	expectKeys = []string{"role", "rule", "token"}
)

func (l *loader) loadTests(n *yaml.Node) {
	for _, item := range l.doc.Sequence(n, "tests") {
		options := l.fields(item, "a test", testKeys...)
		if options == nil {
			continue
		}
		// Without `at` no rule has reached its `until`.
		t := &test{at: item, row: Row{Known: true}, now: time.Unix(0, 0)}
		if name := options["name"]; name != nil {
			t.at = name
			t.name = l.optionalText(name, "name")
		} else {
			l.doc.Errorf(item, "E104", "write `name:`", "a test has no name")
		}
		t.provider = l.providerOfTest(item, options["provider"])
		t.claims = l.object(options["claims"], "claims")
		if claims := options["claims"]; claims == nil {
			l.doc.Errorf(item, "E104", "write `claims:` as the provider would send them", "test %q has no claims", t.name)
		}
		if row := options["row"]; row != nil {
			t.withRow = true
			if role := l.fields(row, "row", "role")["role"]; role != nil && role.Tag != "!!null" {
				t.row.Role = l.optionalText(role, "role")
			}
		}
		if at := options["at"]; at != nil {
			if end := l.date(at, "at"); !end.IsZero() {
				t.now = end.AddDate(0, 0, -1)
			}
		}
		l.loadExpect(t, item, options["expect"])
		for _, refuse := range l.doc.Sequence(options["refuse_if"], "refuse_if") {
			if refuse.Kind == yaml.MappingNode && len(refuse.Content) == 0 {
				l.doc.Errorf(refuse, "E108", "name a claim and what it changes to; null removes it", "an item of refuse_if changes nothing")
			}
			t.refuseIf = append(t.refuseIf, patch{refuse, l.object(refuse, "an item of refuse_if")})
		}
		l.rules.tests = append(l.rules.tests, t)
	}
	if !strictyaml.Errors(l.doc.Findings()) {
		l.runTests()
	}
}

// providerOfTest is providerOf with T602 for a name that does not exist.
func (l *loader) providerOfTest(item, n *yaml.Node) *provider {
	if n == nil || n.Kind != yaml.ScalarNode || l.rules.providers[n.Value] != nil {
		return l.providerOf(item, n)
	}
	l.doc.Errorf(n, "T602", didYouMean(n.Value, l.rules.names, "describe it under providers"), "the test names the unknown provider %q", n.Value)
	return nil
}

func (l *loader) object(n *yaml.Node, what string) map[string]any {
	if n == nil || n.Kind != yaml.MappingNode {
		l.doc.Mapping(n, what)
		return nil
	}
	value, _ := l.doc.JSON(n, what)
	object, _ := value.(map[string]any)
	return object
}

func (l *loader) loadExpect(t *test, item, n *yaml.Node) {
	switch {
	case n == nil:
		l.doc.Errorf(item, "E104", "write `expect: refused` or `expect: { role: … }`", "test %q expects nothing", t.name)
		return
	case n.Kind == yaml.ScalarNode && n.Value == "refused":
		t.refused = true
		return
	case n.Kind != yaml.MappingNode:
		l.doc.Errorf(n, "E104", "write `expect: refused` or `expect: { role: … }`", "expect must be refused or a mapping")
		return
	}
	options := l.fields(n, "expect", expectKeys...)
	if role := options["role"]; role != nil {
		t.role = l.optionalText(role, "role")
		if t.role != "" && l.rules.role(t.role) == nil {
			l.doc.Errorf(role, "T602", didYouMean(t.role, l.roleNames(), "list it under roles"), "the test names the unknown role %q", t.role)
		}
	} else {
		l.doc.Errorf(n, "E104", "write role: …", "expect names no role")
	}
	if rule := options["rule"]; rule != nil {
		t.rule = l.optionalText(rule, "rule")
		if _, known := l.lines[t.rule]; t.rule != "" && !known && t.rule != "default" {
			l.doc.Errorf(rule, "T602", didYouMean(t.rule, l.ruleNames(), "name a rule of this file"), "the test names the unknown rule %q", t.rule)
		}
	}
	t.token = l.object(options["token"], "token")
}

func (l *loader) roleNames() []string {
	var names []string
	for _, r := range l.rules.roles {
		names = append(names, r.Name)
	}
	return names
}

func (l *loader) ruleNames() []string {
	var names []string
	for name := range l.lines {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// runTests adds T601 for each test that fails and T603 for each privileged role that no passing test holds.
func (l *loader) runTests() {
	l.tested = true
	held := map[held]bool{}
	for _, t := range l.rules.tests {
		failures := l.run(t)
		t.failures = len(failures)
		for _, f := range failures {
			l.doc.Errorf(f.at, "T601", f.fix, "test %q failed: %s", t.name, f.message)
		}
		if len(failures) == 0 && t.role != "" && len(t.refuseIf) > 0 {
			l.hold(held, t)
		}
	}
	l.requireTests(held)
}

// held names what a passing test with a refuse_if proves: a role, or a role that the row gives by one rule.
type held struct{ role, rule string }

func (l *loader) hold(proven map[held]bool, t *test) {
	proven[held{role: t.role}] = true
	if t.withRow && t.row.Role == t.role {
		proven[held{t.role, l.decide(t, t.claims).Rule()}] = true
	}
}

func (l *loader) requireTests(proven map[held]bool) {
	for _, r := range l.rules.roles {
		if r.Privileged && l.given[r] && !proven[held{role: r.Name}] {
			l.privileged(r, fmt.Sprintf("the privileged role %q has no passing test with a refuse_if", r.Name),
				"write a test that expects it, and under refuse_if what must not get it")
		}
	}
	for _, name := range l.rules.names {
		for _, rule := range l.rules.providers[name].rules {
			if rule.row == nil {
				continue
			}
			for _, r := range rule.row.allow {
				if r.Privileged && !proven[held{r.Name, rule.name}] {
					l.privileged(r, fmt.Sprintf("rule %q takes the privileged role %q from the users row, and no passing test with a refuse_if holds that", rule.name, r.Name),
						fmt.Sprintf("write a test with row: { role: %s } and a refuse_if", r.Name))
				}
			}
		}
	}
}

func (l *loader) privileged(r *role, message, fix string) {
	l.doc.Errorf(position{r.Line, r.Column}.node(), "T603", fix, "%s", message)
}

func (l *loader) decide(t *test, claims map[string]any) Decision {
	return l.rules.Decide(l.rules.input(t, claims))
}

// input captures the claims of a test, which stand for all three tokens.
func (r *Rules) input(t *test, claims map[string]any) Input {
	captured := r.Capture(t.provider.name, Tokens{IDToken: claims, AccessToken: claims, UserInfo: claims})
	return Input{Provider: t.provider.name, Claims: captured, Row: t.row, Now: t.now}
}

// A failure is one thing that a test expects and does not get.
type failure struct {
	at           *yaml.Node
	message, fix string
}

func (l *loader) run(t *test) (failures []failure) {
	fail := func(at *yaml.Node, fix, format string, args ...any) {
		failures = append(failures, failure{at, fmt.Sprintf(format, args...), fix})
	}
	d := l.decide(t, t.claims)
	role, granted := d.Role()
	switch {
	case t.refused && granted:
		fail(t.at, "", "expected a refusal, got role %s by %q", role, d.Rule())
	case t.refused:
	case !granted:
		fail(t.at, "", "expected role %s, got a refusal: %s", t.role, d.Reason())
	case role != t.role:
		fail(t.at, "", "expected role %s, got %s by %q", t.role, role, d.Rule())
	case t.rule != "" && d.Rule() != t.rule:
		fail(t.at, "", "expected rule %q, got %q", t.rule, d.Rule())
	default:
		token := d.Token()
		for _, name := range sortedKeys(t.token) {
			if !sameJSON(token[name], t.token[name]) {
				fail(t.at, "", "expected token claim %s to be %s, got %s", name, asJSON(t.token[name]), asJSON(token[name]))
			}
		}
	}
	for _, p := range t.refuseIf {
		changed, _ := mergePatch(t.claims, p.members).(map[string]any)
		if d := l.decide(t, changed); d.Outcome() == Granted {
			role, _ := d.Role()
			fail(p.at, "tighten the rule, or remove this line", "with this change it must be refused, got role %s by %q", role, d.Rule())
		}
	}
	return failures
}

// mergePatch applies a JSON merge patch (RFC 7396) without changing its target.
func mergePatch(target, change any) any {
	members, isObject := change.(map[string]any)
	if !isObject {
		return change
	}
	merged := map[string]any{}
	if object, isObject := target.(map[string]any); isObject {
		for key, value := range object {
			merged[key] = value
		}
	}
	for key, value := range members {
		if value == nil {
			delete(merged, key)
			continue
		}
		merged[key] = mergePatch(merged[key], value)
	}
	return merged
}

// sameJSON compares two decoded values; numbers by value.
func sameJSON(a, b any) bool {
	return reflect.DeepEqual(plainJSON(a), plainJSON(b))
}

func plainJSON(value any) any {
	switch value := value.(type) {
	case json.Number:
		if canonical, ok := canonicalNumber(string(value)); ok {
			return json.Number(canonical)
		}
		return value
	case []any:
		list := make([]any, len(value))
		for i := range value {
			list[i] = plainJSON(value[i])
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(value))
		for key := range value {
			object[key] = plainJSON(value[key])
		}
		return object
	default:
		return value
	}
}

func asJSON(value any) string {
	if value == nil {
		return "nothing"
	}
	text, err := json.Marshal(value)
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(text))
}

func sortedKeys(object map[string]any) []string {
	var keys []string
	for key := range object {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
