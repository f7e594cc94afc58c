package mapping

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// purpose is what a condition is for.
type purpose uint8

const (
	toGrant purpose = iota // `when` and `by` of a rule
	toBlock                // `unless` of a rule
	toDeny                 // `when` of a deny rule
)

// An operator is a word of the language and what it does.
type operator struct {
	word       string
	quantifier quantifier
	comparison comparison
	takesList  bool
	kinds      []kind
}

var (
	scalars   = []kind{kindString, kindNumber, kindDomain, kindTime}
	equals    = operator{"equals", some, equal, false, []kind{kindString, kindSet, kindBool, kindNumber, kindDomain, kindTime}}
	anyOf     = operator{"a list", some, equal, true, append([]kind{kindSet}, scalars...)}
	operators = []operator{
		{"is_not", none, equal, false, append([]kind{kindBool}, scalars...)},
		{"not_in", none, equal, true, scalars},
		{"all", all, equal, true, []kind{kindSet}},
		{"none", none, equal, true, []kind{kindSet}},
		{"prefix", some, prefix, false, []kind{kindString, kindSet}},
		{"glob", some, pattern, false, []kind{kindString, kindSet}},
		{"regex", some, pattern, false, []kind{kindString, kindSet}},
		{"under", some, subdomain, false, []kind{kindDomain}},
		{"present", present, equal, false, equals.kinds},
	}
)

func (o operator) fits(k kind) bool { return slices.Contains(o.kinds, k) }

func operatorWords() []string {
	words := make([]string, len(operators))
	for i, o := range operators {
		words[i] = o.word
	}
	return words
}

// conditions reads the lines under a `when` or of one item of `unless`. p is nil when the provider is not known: then only the shape is checked.
func (l *loader) conditions(p *provider, n *yaml.Node, what string, why purpose) []condition {
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		l.doc.Errorf(n, "E108", "write at least one line such as `groups: /staff`", "%s is empty: it would hold for everybody", what)
		return nil
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		l.doc.Errorf(n, "E108", "write at least one line such as `groups: /staff`", "%s is empty", what)
		return nil
	}
	var conditions []condition
	for _, e := range l.doc.Mapping(n, what) {
		if c, ok := l.condition(p, e, why); ok {
			conditions = append(conditions, c)
		}
	}
	return conditions
}

func (l *loader) condition(p *provider, e strictyaml.Entry, why purpose) (condition, bool) {
	claim := l.claimNamed(p, e.Key, e.KeyNode)
	o, operand, ok := l.operator(e)
	if claim == nil || !ok {
		return condition{}, false
	}
	p.use(claim).decides = true
	c := condition{claim: claim, quantifier: o.quantifier, comparison: o.comparison, at: positionOf(e.KeyNode)}
	if !o.fits(claim.kind) {
		l.doc.Errorf(operand, "E207", l.fitting(claim), "%s does not fit claim %q, which is a %s", o.word, claim.name, claim.kind)
		return condition{}, false
	}
	l.checkAbsence(p, claim, o, e, why)
	if claim.editable && why != toDeny {
		l.doc.Errorf(e.KeyNode, "E302", fmt.Sprintf("use a claim that only the provider's administrators set, or declare `%s: { editable: false }` if it is one", claim.name),
			"claim %q can be edited by the person: it must not decide a grant", claim.name)
	}
	ok = l.operands(p, &c, o, operand)
	p.compile(&c)
	c.text = describe(o, &c)
	return c, ok
}

// operator finds out which operator a line uses, and on what.
func (l *loader) operator(e strictyaml.Entry) (o operator, operand *yaml.Node, ok bool) {
	switch e.Value.Kind {
	case yaml.ScalarNode:
		return equals, e.Value, true
	case yaml.SequenceNode:
		return anyOf, e.Value, true
	case yaml.MappingNode:
		what := fmt.Sprintf("the condition on %q", e.Key)
		used := l.doc.Mapping(e.Value, what, operatorWords()...)
		if len(e.Value.Content) == 0 {
			l.doc.Errorf(e.Value, "E108", "one of "+strings.Join(operatorWords(), ", "), "%s is empty", what)
		}
		if len(used) > 1 {
			l.doc.Errorf(used[1].KeyNode, "E104", "give each operator a condition of its own", "%s has more than one operator", what)
		}
		if len(used) != 1 {
			return operator{}, nil, false
		}
		o = operators[slices.Index(operatorWords(), used[0].Key)]
		return o, used[0].Value, true
	default:
		return operator{}, nil, false
	}
}

// claimNamed finds a claim of the provider, or adds E206.
func (l *loader) claimNamed(p *provider, name string, at *yaml.Node) *claim {
	if p == nil {
		return nil
	}
	if c := p.byName[name]; c != nil {
		return c
	}
	var names []string
	for _, c := range p.claims {
		names = append(names, c.name)
	}
	fix := fmt.Sprintf("declare it: providers: %s: claims: %s: { type: … }", p.name, name)
	switch {
	case name == "email_verified":
		fix = "remove the line: email and email_domain exist only when the e-mail is verified"
	case name == "client_roles" && p.preset == "keycloak":
		fix = fmt.Sprintf("say whose: providers: %s: client: NAME", p.name)
	case name == "groups" && p.preset == "google":
		fix = "Google sends no groups: keep the role in the users row, role: { from: users, allow: […] }"
	default:
		fix = didYouMean(name, names, fix)
	}
	l.doc.Errorf(at, "E206", fix, "provider %q declares no claim %q", p.name, name)
	return nil
}

func (l *loader) fitting(c *claim) string {
	var fitting []string
	for _, o := range operators {
		if o.fits(c.kind) {
			fitting = append(fitting, o.word)
		}
	}
	return fmt.Sprintf("a %s takes a plain value, %s", c.kind, strings.Join(fitting, ", "))
}

// checkAbsence adds E301 for a line that keeps people out by a claim which leaves open what its absence means. `present` says it itself.
func (l *loader) checkAbsence(p *provider, c *claim, o operator, e strictyaml.Entry, why purpose) {
	negative := why != toGrant || o.quantifier == none
	if !negative || o.quantifier == present || !c.mayBeAbsent() {
		return
	}
	example := "default: …"
	if c.kind == kindSet {
		example = "default: []"
	}
	l.doc.Errorf(e.KeyNode, "E301", fmt.Sprintf("say what absence means: providers: %s: claims: %s: { %s } or { required: true }", p.name, c.name, example),
		"claim %q may be absent, and this line reads it to keep people out", c.name)
}

// operands reads what the claim is compared with.
func (l *loader) operands(p *provider, c *condition, o operator, n *yaml.Node) bool {
	switch {
	case o.quantifier == present:
		wanted, ok := l.doc.Bool(n, "present")
		if !wanted {
			c.quantifier = missing
		}
		return ok
	case c.comparison == pattern:
		return l.pattern(c, o, n)
	case !o.takesList:
		operand, ok := l.literal(p, c.claim, n, c.comparison)
		c.operands = []string{operand}
		return ok
	}
	items := l.doc.Sequence(n, o.word)
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		l.doc.Errorf(n, "E108", "list values", "the condition on %q lists nothing", c.claim.name)
	}
	whole := len(items) > 0
	for _, item := range items {
		operand, ok := l.literal(p, c.claim, item, c.comparison)
		c.operands = append(c.operands, operand)
		whole = whole && ok
	}
	return whole
}

// literal reads a value that the claim is compared with, as raw text that the claim's kind types.
func (l *loader) literal(p *provider, c *claim, n *yaml.Node, how comparison) (string, bool) {
	if n.Kind == yaml.ScalarNode && n.Value == "" {
		l.doc.Errorf(n, "E108", "write the value, or `{ present: false }` for none", "the condition on %q has no value: an empty claim is an absent one", c.name)
		return "", false
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" && c.kind != kindString && c.kind != kindSet {
		l.doc.Errorf(n, "E108", "write `{ present: false }`", "the condition on %q has no value", c.name)
		return "", false
	}
	if n.Kind != yaml.ScalarNode {
		l.doc.Text(n, fmt.Sprintf("a value of %q", c.name))
		return "", false
	}
	if reason := flaw(n.Value); reason != "" {
		l.doc.Errorf(n, "E104", "type it anew", "the value contains %s and could never match", reason)
		return "", false
	}
	text, example := c.canonical(n.Value)
	if example != "" {
		l.doc.Errorf(n, "E207", "write it like "+example, "%q does not fit claim %q, which is a %s", n.Value, c.name, c.kind)
		return "", false
	}
	l.checkDomain(p, c, text, n, how)
	if c.fold {
		text = lower(text)
	}
	return text, true
}

// canonical writes a literal as values of the claim are written. A literal that does not fit comes back as an example of one that does.
func (c *claim) canonical(literal string) (text, example string) {
	switch c.kind {
	case kindBool:
		if literal != "true" && literal != "false" {
			return "", "true or false"
		}
	case kindNumber:
		number, ok := canonicalNumber(literal)
		if !ok {
			return "", "42"
		}
		return number, ""
	case kindDomain:
		domain, ok := asciiDomain(literal)
		if !ok {
			return "", "example.com"
		}
		return domain, ""
	case kindTime:
		moment, err := time.Parse(time.RFC3339, literal)
		if err != nil || moment.Nanosecond() != 0 {
			return "", "2027-01-31T00:00:00Z"
		}
		return strconv.FormatInt(moment.Unix(), 10), ""
	}
	if c.derived == derivedEmail {
		local, domain, ok := splitAddress(literal)
		if !ok {
			return "", "ann@example.com"
		}
		return local + "@" + domain, ""
	}
	return literal, ""
}

// checkDomain adds E308 for a domain that the provider's e-mails can never have.
func (l *loader) checkDomain(p *provider, c *claim, text string, n *yaml.Node, how comparison) {
	if c.derived == plain || p.authoritative == nil || how != equal && how != subdomain {
		return
	}
	domain := text[strings.LastIndexByte(text, '@')+1:]
	for _, own := range p.authoritative {
		if own == domain || how == subdomain && under(own, domain) {
			return
		}
	}
	l.doc.Errorf(n, "E308", fmt.Sprintf("add it there, if provider %q may vouch for its mailboxes", p.name),
		"%s is outside authoritative_for (%s) and can never match", domain, strings.Join(p.authoritative, ", "))
}

// longestPattern bounds a regular expression or glob, in bytes.
const longestPattern = 1024

func (l *loader) pattern(c *condition, o operator, n *yaml.Node) bool {
	text, ok := l.word(n, o.word)
	if !ok {
		return false
	}
	if text == "" {
		l.doc.Errorf(n, "E108", "write a pattern", "the condition on %q has no pattern", c.claim.name)
		return false
	}
	// A folded claim is compared in lower case: a pattern with a capital would never match, and its deny rule would keep nobody out.
	if c.glob = o.word == "glob"; c.claim.fold && c.glob {
		text = lower(text)
	} else if c.claim.fold && lower(text) != text {
		l.doc.Errorf(n, "E207", "write the pattern in lower case", "claim %q is folded to lower case, and the pattern has capitals", c.claim.name)
		return false
	}
	expression, err := text, error(nil)
	if c.glob {
		expression, err = globExpression(text)
	}
	if err == nil && len(text) > longestPattern {
		err = fmt.Errorf("longer than %d bytes", longestPattern)
	}
	if err == nil {
		// On its own first: "a)|(b" must not break out of the group that anchors it.
		var own *regexp.Regexp
		if own, err = regexp.Compile(expression); err == nil {
			c.beginning, _ = own.LiteralPrefix()
		}
	}
	if err == nil {
		c.regexp, err = regexp.Compile(`\A(?:` + expression + `)\z`)
	}
	if err != nil {
		l.doc.Errorf(n, "E208", o.fix(), "bad %s: %s", o.word, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		return false
	}
	c.operands = []string{text}
	return true
}

func (o operator) fix() string {
	if o.word == "glob" {
		return "a glob has literal text, * (stops at / : @) and ** (does not)"
	}
	return "RE2 syntax; it always matches the whole value"
}

// globExpression translates a glob: "*" stops at / : @ and "**" does not; everything else is itself.
func globExpression(glob string) (string, error) {
	if strings.ContainsAny(glob, `?[]{}\`) {
		return "", fmt.Errorf(`the characters ? [ ] { } \ have no meaning here; use regex`)
	}
	if strings.Contains(glob, "***") {
		return "", fmt.Errorf("more than two * in a row")
	}
	parts := strings.Split(glob, "**")
	for i, part := range parts {
		pieces := strings.Split(part, "*")
		for j := range pieces {
			pieces[j] = regexp.QuoteMeta(pieces[j])
		}
		parts[i] = strings.Join(pieces, `[^/:@]*`)
	}
	return strings.Join(parts, `(?s:.*)`), nil
}

// describe is the condition as explanations show it.
func describe(o operator, c *condition) string {
	operands := strings.Join(c.operands, "|")
	switch o.word {
	case equals.word:
		return c.claim.name + " is " + operands
	case anyOf.word:
		return c.claim.name + " in " + operands
	case "present":
		return c.claim.name + map[quantifier]string{present: " is present", missing: " is not present"}[c.quantifier]
	default:
		return c.claim.name + " " + strings.ReplaceAll(o.word, "_", " ") + " " + operands
	}
}
