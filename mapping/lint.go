package mapping

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// lint adds the warnings: the file can be used, but probably says something else than was meant.
func (l *loader) lint(token []tokenSpec) {
	for _, name := range l.rules.names {
		p := l.rules.providers[name]
		warned := map[*claim]bool{}
		var above []profile
		for _, r := range p.rules {
			l.lintHostedDomain(p, r)
			own := r.profile()
			for _, c := range own.positive {
				l.lintSet(p, c, warned)
			}
			l.lintShadow(above, own)
			l.lintOverlap(above, own)
			above = append(above, own)
		}
		for _, r := range slices.Concat(p.deny, p.rules) {
			for _, c := range slices.Concat(append(r.unless, r.when)...) {
				l.lintLiteral(&c)
			}
		}
	}
	l.lintEditable(slices.Collect(maps.Values(l.rules.providers)), token)
	for _, r := range l.rules.roles {
		if !l.given[r] {
			l.doc.Warnf(position{r.Line, r.Column}.node(), "W507", "remove it, or write the rule that is missing", "role %q is never given", r.Name)
		}
	}
}

// Expired warns of rules whose `until` has passed at the given time (W510).
func (r *Rules) Expired(now time.Time) []strictyaml.Finding {
	var findings []strictyaml.Finding
	for _, name := range r.names {
		for _, rule := range r.providers[name].rules {
			if !rule.until.IsZero() && !now.Before(rule.until) && rule.ended.Code != "" {
				findings = append(findings, rule.ended)
			}
		}
	}
	return findings
}

// A profile is a rule and the conditions that speak for it; a table counts as one of them.
type profile struct {
	*rule
	positive   []condition
	privileged bool
	literal    bool // all of them compare with values
}

func (r *rule) profile() profile {
	p := profile{rule: r, positive: slices.Clone(r.when), privileged: r.role != nil && r.role.Privileged, literal: true}
	if len(r.table) > 0 {
		table := condition{claim: r.table[0].condition.claim, at: r.table[0].condition.at}
		for _, line := range r.table {
			table.operands = append(table.operands, line.condition.operands...)
			p.privileged = p.privileged || line.role.Privileged
		}
		p.positive = append(p.positive, table)
	}
	for _, c := range p.positive {
		p.literal = p.literal && c.literal()
	}
	return p
}

// lintHostedDomain: anybody can open a Google account with an address of another domain; only hd says that the organisation owns it.
func (l *loader) lintHostedDomain(p *provider, r *rule) {
	if p.preset != "google" || slices.ContainsFunc(r.when, func(c condition) bool { return c.claim.name == "hd" && c.quantifier == some }) {
		return
	}
	for _, c := range r.when {
		if c.claim.derived == derivedEmailDomain {
			l.doc.Warnf(c.at.node(), "W501", "add the line hd: example.com", "rule %q: a Google account that the organisation does not own can have an e-mail of its domain", r.name)
			return
		}
	}
}

func (l *loader) lintSet(p *provider, c condition, warned map[*claim]bool) {
	if c.claim.kind == kindSet && c.claim.mayBeAbsent() && c.quantifier != missing && !warned[c.claim] {
		warned[c.claim] = true
		l.doc.Warnf(c.at.node(), "W503", "declare it: providers: "+p.name+": claims: "+c.claim.name+": { default: [] } or { required: true }",
			"claim %q decides a role, and the file does not say what its absence means", c.claim.name)
	}
}

var (
	bracketed    = regexp.MustCompile(`\[[^\]]*\]`)
	unescapedDot = regexp.MustCompile(`[0-9A-Za-z]\.[0-9A-Za-z]`)
)

func (l *loader) lintLiteral(c *condition) {
	for _, operand := range c.operands {
		if strings.IndexFunc(operand, func(r rune) bool { return r > '~' }) >= 0 {
			l.doc.Warnf(c.at.node(), "W509", "make sure that it is spelled as the provider spells it", "the value %q holds letters that look like others", operand)
		}
		if c.comparison != pattern {
			continue
		}
		if !c.glob && unescapedDot.MatchString(bracketed.ReplaceAllString(operand, "")) {
			l.doc.Warnf(c.at.node(), "W504", `write \. for a dot`, "the dot in %q stands for any character", operand)
		}
		open := ".*"
		if c.glob {
			open = "**"
		}
		if strings.HasPrefix(operand, open) || strings.HasSuffix(operand, open) {
			l.doc.Warnf(c.at.node(), "W514", "name what may stand there, or use prefix", "%q is open at an end", operand)
		}
	}
}

// lintEditable: a token claim becomes input of the database's policies.
func (l *loader) lintEditable(providers []*provider, specs []tokenSpec) {
	for _, spec := range specs {
		for _, from := range spec.from {
			if slices.ContainsFunc(providers, func(p *provider) bool { return p.byName[from.Value] != nil && p.byName[from.Value].editable }) {
				l.doc.Warnf(from, "W512", "policies in the database must not trust it", "token claim %q copies %q, which people can edit", spec.entry.Key, from.Value)
			}
		}
	}
}

// lintShadow: a rule whose every match is a match of a rule above it. Only literal conditions are compared.
func (l *loader) lintShadow(above []profile, r profile) {
	for _, a := range above {
		if len(a.unless) == 0 && a.until.IsZero() && impliesAll(r.positive, a.positive) {
			l.doc.Warnf(r.at.node(), "W506", "move it up, or remove it", "rule %q can never win: everyone it matches is already matched by %q (line %d)", r.name, a.name, a.at.line)
			return
		}
	}
}

func impliesAll(these, those []condition) bool {
	for _, that := range those {
		if !slices.ContainsFunc(these, func(this condition) bool { return implies(this, that) }) {
			return false
		}
	}
	return true
}

// implies reports whether one condition holds only where the other does.
func implies(this, that condition) bool {
	if this.claim != that.claim || this.quantifier != that.quantifier || this.comparison != that.comparison {
		return false
	}
	if this.literal() {
		return subset(this.operands, that.operands)
	}
	return slices.Equal(this.operands, that.operands)
}

func (c condition) literal() bool { return c.quantifier == some && c.comparison == equal }

func subset(small, large []string) bool {
	return !slices.ContainsFunc(small, func(s string) bool { return !slices.Contains(large, s) })
}

// lintOverlap: somebody can match a rule and a privileged rule below it, and then is not privileged.
func (l *loader) lintOverlap(above []profile, r profile) {
	if !r.privileged || !r.literal {
		return
	}
	for _, a := range above {
		if !a.privileged && a.row == nil && a.literal && !disjoint(a, r) && !impliesAll(r.positive, a.positive) {
			l.doc.Warnf(r.at.node(), "W508", "move it up, or say in `unless` whom the upper rule leaves to it",
				"who also matches %q (line %d) does not get the privileged role of rule %q", a.name, a.at.line, r.name)
		}
	}
}

// disjoint reports whether nobody can match both: a claim with one value would need two, or the upper rule's `unless` names the lower rule.
func disjoint(upper, lower profile) bool {
	for _, u := range upper.positive {
		for _, d := range lower.positive {
			if u.claim == d.claim && u.claim.kind != kindSet && !slices.ContainsFunc(u.operands, func(s string) bool { return slices.Contains(d.operands, s) }) {
				return true
			}
		}
	}
	return slices.ContainsFunc(upper.unless, func(item []condition) bool { return len(item) > 0 && impliesAll(lower.positive, item) })
}
