package mapping

import (
	"fmt"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

var (
	denyKeys    = []string{"name", "provider", "when", "message", "why"}
	ruleKeys    = []string{"name", "provider", "when", "unless", "by", "to", "role", "token", "ttl", "until", "why"}
	rowRoleKeys = []string{"from", "allow", "default"}
)

func (l *loader) loadDeny(n *yaml.Node) {
	for _, item := range l.doc.Sequence(n, "deny") {
		options := l.fields(item, "a deny rule", denyKeys...)
		if options == nil {
			continue
		}
		r := &rule{at: positionOf(item)}
		r.name = l.ruleName(item, options["name"], "a deny rule")
		r.matched = fmt.Sprintf("deny %q matched", r.name)
		p := l.providerOf(item, options["provider"])
		if when := options["when"]; when != nil {
			r.when = l.conditions(p, when, "when", toDeny)
		} else {
			l.doc.Errorf(item, "E108", "write `when:` with at least one line", "%s has no condition", label("deny rule", r.name))
		}
		r.message = l.optionalText(options["message"], "message")
		l.optionalText(options["why"], "why")
		if p != nil {
			p.deny = append(p.deny, r)
		}
	}
}

func (l *loader) loadRules(n *yaml.Node, token []tokenSpec) {
	for _, item := range l.doc.Sequence(n, "rules") {
		options := l.fields(item, "a rule", ruleKeys...)
		if options != nil {
			l.loadRule(item, options, token)
		}
	}
}

func (l *loader) loadRule(item *yaml.Node, options map[string]*yaml.Node, token []tokenSpec) {
	r := &rule{at: positionOf(item)}
	r.name = l.ruleName(item, options["name"], "a rule")
	r.matched = fmt.Sprintf("rule %q matched", r.name)
	p := l.providerOf(item, options["provider"])

	if when := options["when"]; when != nil {
		r.when = l.conditions(p, when, "when", toGrant)
	} else if options["by"] == nil {
		l.doc.Errorf(item, "E108", "write `when:` with at least one line", "%s has no condition: it would hold for everybody", label("rule", r.name))
	}
	r.unless = l.loadUnless(p, options["unless"])
	l.loadOutcome(p, r, item, options)

	r.ttl = l.ttl(options["ttl"], "ttl")
	if until := options["until"]; until != nil {
		r.until = l.date(until, "until")
		if !l.doc.Allowed(until.Line, "W510") {
			r.ended = l.doc.Finding(until, "W510", label("rule", r.name)+" matches nobody any more", "remove the rule, or move the date")
			r.ended.Severity = strictyaml.Warning
		}
	}
	l.optionalText(options["why"], "why")
	own := l.tokenSpecs(options["token"], "token")
	if p != nil {
		r.token = p.tokenClaims(merge(token, own))
		l.checkSources(p, own)
		l.lintEditable([]*provider{p}, own)
		p.rules = append(p.rules, r)
	}
}

// label names a rule in a finding; it may be the one without a name.
func label(kind, name string) string {
	if name == "" {
		return "this " + kind
	}
	return fmt.Sprintf("%s %q", kind, name)
}

func (l *loader) ruleName(item, n *yaml.Node, what string) string {
	if n == nil {
		l.doc.Errorf(item, "E107", "write `name:`; it stands in logs, events and metrics", "%s has no name", what)
		return ""
	}
	name, ok := l.word(n, "name")
	if !ok {
		return ""
	}
	if line, repeated := l.lines[name]; repeated {
		l.doc.Errorf(n, "E107", "choose another one", "the name %q is taken by the rule on line %d", name, line)
	} else if name == "" || name == "default" {
		l.doc.Errorf(n, "E107", "choose another one", "a rule cannot be called %q", name)
	}
	l.lines[name] = n.Line
	return name
}

// providerOf finds the provider that a rule or a test is about; nil, with a finding, when there is none.
func (l *loader) providerOf(item, n *yaml.Node) *provider {
	switch {
	case n == nil && len(l.rules.names) == 1:
		return l.rules.providers[l.rules.names[0]]
	case n == nil && len(l.rules.names) == 0:
		return nil // said already
	case n == nil:
		l.doc.Errorf(item, "E203", "write `provider:`", "there are several providers, and this does not say which one it is about")
		return nil
	}
	name, ok := l.doc.Text(n, "provider")
	if !ok {
		return nil
	}
	p := l.rules.providers[name]
	if p == nil {
		l.doc.Errorf(n, "E201", didYouMean(name, l.rules.names, "describe it under providers"), "unknown provider %q", name)
	}
	return p
}

func (l *loader) loadUnless(p *provider, n *yaml.Node) [][]condition {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		l.doc.Errorf(n, "E109", "write each reason as a line that begins with `- `; any of them blocks the rule", "unless must be a list")
		return nil
	}
	if len(n.Content) == 0 {
		l.doc.Errorf(n, "E108", "write at least one item, or remove the line", "unless is empty")
	}
	var items [][]condition
	for _, item := range n.Content {
		items = append(items, l.conditions(p, item, "an item of unless", toBlock))
	}
	return items
}

// loadOutcome reads what the rule gives: a role, a table, or the role of the users row.
func (l *loader) loadOutcome(p *provider, r *rule, item *yaml.Node, options map[string]*yaml.Node) {
	role, by, to := options["role"], options["by"], options["to"]
	switch {
	case role != nil && (by != nil || to != nil):
		l.doc.Errorf(role, "E104", "keep either role or by and to", "%s has a role and a table", label("rule", r.name))
	case by != nil && to == nil:
		l.doc.Errorf(by, "E104", "write `to:` with lines such as `- api-write: editor`", "%s has by without to", label("rule", r.name))
	case by == nil && to != nil:
		l.doc.Errorf(to, "E104", "write `by:` with the name of a claim", "%s has to without by", label("rule", r.name))
	case by != nil:
		l.loadTable(p, r, by, to)
	case role == nil:
		l.doc.Errorf(item, "E107", "write `role:`", "%s gives no role", label("rule", r.name))
	case role.Kind == yaml.MappingNode:
		r.row = l.loadRowRole(role)
	default:
		r.role = l.roleNamed(role, "role")
	}
}

func (l *loader) loadTable(p *provider, r *rule, by, to *yaml.Node) {
	name, ok := l.doc.Text(by, "by")
	var c *claim
	if ok {
		c = l.claimNamed(p, name, by)
	}
	if c != nil {
		p.use(c).decides = true
		if c.editable {
			l.doc.Errorf(by, "E302", "use a claim that only the provider's administrators set", "claim %q can be edited by the person: it must not decide a grant", c.name)
		}
	}
	if to.Kind == yaml.MappingNode {
		l.doc.Errorf(to, "E104", "begin each line with `- `: the first line that the person has wins", "to must be a list, because its order matters")
		return
	}
	if to.Kind == yaml.SequenceNode && len(to.Content) == 0 {
		l.doc.Errorf(to, "E108", "write lines such as `- api-write: editor`", "to is empty")
	}
	seen := map[string]int{}
	for _, item := range l.doc.Sequence(to, "to") {
		entries := l.doc.Mapping(item, "a line of to")
		if item.Kind == yaml.MappingNode && len(item.Content) != 2 {
			l.doc.Errorf(item, "E104", "write one `- value: role` per line", "a line of to has one value and one role")
		}
		for _, e := range entries {
			given := l.roleNamed(e.Value, "the role")
			if c == nil {
				continue
			}
			literal, ok := l.literal(p, c, e.KeyNode, equal)
			if first, repeated := seen[literal]; ok && repeated {
				l.doc.Errorf(e.KeyNode, "E103", fmt.Sprintf("the first stands on line %d: remove one of them", first), "value %q is repeated", e.Key)
			}
			seen[literal] = e.KeyNode.Line
			line := condition{claim: c, operands: []string{literal}, at: positionOf(e.KeyNode)}
			p.compile(&line)
			line.text = describe(equals, &line)
			r.table = append(r.table, tableLine{line, given})
		}
	}
}

func (l *loader) loadRowRole(n *yaml.Node) *rowRole {
	options := l.fields(n, "role", rowRoleKeys...)
	row := &rowRole{}
	if from := options["from"]; from == nil {
		l.doc.Errorf(n, "E104", "write role: { from: users, allow: […] }, or the name of a role", "role is a mapping without from")
	} else if text, ok := l.doc.Text(from, "from"); ok && text != "users" {
		l.doc.Errorf(from, "E104", "write from: users; a role never comes from a claim, by and to translate one", "a role cannot come from %q", text)
	}
	if options["allow"] == nil || options["allow"].Kind == yaml.SequenceNode && len(options["allow"].Content) == 0 {
		l.doc.Errorf(n, "E108", "write allow: [customer, …]", "the list of roles that the row may give is missing")
	}
	for _, item := range l.doc.Sequence(options["allow"], "allow") {
		if r := l.roleNamed(item, "a role"); r != nil {
			row.allow = append(row.allow, r)
		}
	}
	fallback := options["default"]
	if fallback == nil {
		return row
	}
	row.fallback = l.roleNamed(fallback, "the default role")
	if row.fallback == nil {
		return row
	}
	if !slices.Contains(row.allow, row.fallback) {
		l.doc.Errorf(fallback, "E205", "add it to allow", "role %q is not among those that the row may give", row.fallback.Name)
	}
	if row.fallback.Privileged {
		l.doc.Errorf(fallback, "E304", "give it in the row", "the default must not be the privileged role %q", row.fallback.Name)
	}
	return row
}

// date reads a day; the end is the first moment after it, in UTC.
func (l *loader) date(n *yaml.Node, what string) (end time.Time) {
	text, ok := l.doc.Text(n, what)
	if !ok {
		return time.Time{}
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		l.doc.Errorf(n, "E104", "write the last day, in UTC, like 2027-01-31", "%s must be a date", what)
		return time.Time{}
	}
	return day.AddDate(0, 0, 1)
}

func (l *loader) optionalText(n *yaml.Node, what string) string {
	text, _ := l.doc.Text(n, what)
	return text
}
