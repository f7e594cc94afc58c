package mapping

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// A provider is what the file says about one OpenID provider, and the part of the file that concerns it.
type provider struct {
	name          string
	preset        string
	authoritative []string // domains whose mailboxes it may vouch for; nil: any
	verification  verification
	tenants       []string
	at            strictyaml.Finding // a finding at its line, to be filled in

	claims      []*claim
	byName      map[string]*claim
	expressions []expression // of all claims, sorted by text, each once
	needed      []*claim     // what a decision reads, by slot
	literals    int          // how many texts conditions compare claims with

	deny  []*rule
	rules []*rule
	token []tokenClaim // the file's extra claims
}

func (l *loader) loadProviders(root, n *yaml.Node) {
	if !l.required(root, n, "providers", "describe each provider of config.yaml, such as `google: { preset: google }`") {
		return
	}
	for _, e := range l.doc.Mapping(n, "providers") {
		l.rules.names = append(l.rules.names, e.Key)
		l.rules.providers[e.Key] = l.loadProvider(e)
	}
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		l.doc.Errorf(n, "E108", "describe each provider of config.yaml, such as `google: { preset: google }`", "providers is empty")
	}
}

var providerKeys = []string{"preset", "client", "authoritative_for", "email_verified", "tenants", "claims"}

func (l *loader) loadProvider(e strictyaml.Entry) *provider {
	p := &provider{name: e.Key, byName: map[string]*claim{}, at: l.doc.Finding(e.KeyNode, "", "", "")}
	what := fmt.Sprintf("provider %q", e.Key)
	options := l.fields(e.Value, what, providerKeys...)
	client := l.loadPreset(e, p, options)
	for _, c := range presetClaims(p.preset, client) {
		p.add(&c)
	}
	l.loadAuthoritative(p, options["authoritative_for"])
	if n := options["email_verified"]; n != nil {
		text, ok := l.doc.Text(n, "email_verified")
		if i := slices.Index(verificationNames, text); i >= 0 {
			p.verification = verification(i)
		} else if ok {
			l.doc.Errorf(n, "E104", "one of "+strings.Join(verificationNames, ", "), "email_verified cannot be %q", text)
		}
	}
	l.loadTenants(p, options)
	for _, c := range l.doc.Mapping(options["claims"], "claims") {
		l.loadClaim(p, c)
	}
	p.finish()
	return p
}

func (l *loader) loadPreset(e strictyaml.Entry, p *provider, options map[string]*yaml.Node) (client string) {
	if n := options["preset"]; n != nil {
		p.preset, _ = l.doc.Text(n, "preset")
		if p.preset != "" && !slices.Contains(presetNames, p.preset) {
			l.doc.Errorf(n, "E202", didYouMean(p.preset, presetNames, "one of "+strings.Join(presetNames, ", ")), "unknown preset %q", p.preset)
		}
	} else if options != nil {
		l.doc.Errorf(e.KeyNode, "E202", "one of "+strings.Join(presetNames, ", ")+"; generic knows the standard claims only",
			"provider %q names no preset", e.Key)
	}
	if n := options["client"]; n != nil {
		client, _ = l.word(n, "client")
		if p.preset != "keycloak" {
			l.doc.Errorf(n, "E104", "remove it", "client belongs to the preset keycloak: it says whose roles are client_roles")
		}
	}
	return client
}

func (l *loader) loadAuthoritative(p *provider, n *yaml.Node) {
	for _, item := range l.doc.Sequence(n, "authoritative_for") {
		text, ok := l.doc.Text(item, "a domain")
		if !ok {
			continue
		}
		domain, ok := asciiDomain(text)
		if !ok {
			l.doc.Errorf(item, "E104", "write it like example.com; sub-domains are listed one by one", "%q is not a domain", text)
			continue
		}
		p.authoritative = append(p.authoritative, domain)
	}
	if n != nil && n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		l.doc.Errorf(n, "E108", "list domains, or remove the line to believe any verified e-mail", "authoritative_for is empty")
	}
}

// loadTenants makes the list of an Entra provider's tenants a deny rule of its own.
func (l *loader) loadTenants(p *provider, options map[string]*yaml.Node) {
	n := options["tenants"]
	if n == nil {
		return
	}
	p.tenants = l.words(n, "tenants")
	tid := p.byName["tid"]
	switch {
	case p.preset != "entra" || tid == nil:
		l.doc.Errorf(n, "E104", "remove it", "tenants belongs to the preset entra")
		return
	case n.Kind == yaml.SequenceNode && len(n.Content) == 0:
		l.doc.Errorf(n, "E108", "list the tenant ids whose people may log in", "tenants is empty")
	case len(p.tenants) > 1 && p.verification == verifiedAssumed:
		l.doc.Errorf(options["email_verified"], "E306", "remove it: any tenant's administrator can give an account any e-mail address",
			"provider %q has several tenants: an e-mail cannot be assumed to be verified", p.name)
	}
	tid.required = true
	p.use(tid).decides = true
	foreign := condition{claim: tid, quantifier: none, operands: p.tenants, text: "tid not in " + strings.Join(p.tenants, "|"), at: positionOf(n)}
	p.compile(&foreign)
	p.deny = append(p.deny, &rule{
		name: "tenants of " + p.name, at: positionOf(n), matched: "the tenant is not among the provider's tenants",
		when: []condition{foreign},
	})
}

func (p *provider) add(c *claim) {
	if c.from == "" {
		c.from = c.name
	}
	if c.sources == 0 {
		c.sources = usualSources
	}
	p.claims = append(p.claims, c)
	p.byName[c.name] = c
}

// use gives the claim a slot among the values of a decision.
func (p *provider) use(c *claim) *claim {
	c.used = true
	if !c.needed {
		c.needed, c.slot = true, len(p.needed)
		p.needed = append(p.needed, c)
	}
	return c
}

// compile numbers the texts that the condition compares the claim with: values, or what they begin with.
func (p *provider) compile(c *condition) {
	texts, of := c.operands, &c.claim.literals
	switch {
	case c.comparison == prefix:
		of = &c.claim.beginnings
	case c.comparison == pattern && c.beginning != "":
		texts, of = []string{c.beginning}, &c.claim.beginnings
	case c.comparison != equal:
		return
	}
	if *of == nil {
		*of = map[string]int{}
	}
	for _, text := range texts {
		i, known := (*of)[text]
		if !known {
			i = p.literals
			(*of)[text] = i
			p.literals++
		}
		c.literals = append(c.literals, i)
	}
}

// finish resolves where the claims are read, once all options are known.
func (p *provider) finish() {
	mail := p.byName["email"]
	mail.expression = newExpression(mail.from, mail.sources)
	mail.verified = newExpression("email_verified", mail.sources)
	p.expressions = append(p.expressions, mail.verified)
	for _, c := range p.claims {
		switch c.derived {
		case plain:
			c.expression = newExpression(c.from, c.sources)
		case derivedEmailDomain:
			c.expression, c.verified, c.editable = mail.expression, mail.verified, mail.editable
		}
		p.expressions = append(p.expressions, c.expression)
		if c.required {
			p.use(c)
		}
	}
	slices.SortFunc(p.expressions, func(a, b expression) int { return strings.Compare(a.text, b.text) })
	p.expressions = slices.CompactFunc(p.expressions, func(a, b expression) bool { return a.text == b.text })
}

// markUsed notes which expressions matter, and sorts what values are compared with, once all rules are known.
func (p *provider) markUsed() {
	for _, c := range p.claims {
		c.prefixes = newPrefixes(c.beginnings)
		for i := range p.expressions {
			e := &p.expressions[i]
			if c.used && (e.text == c.expression.text || c.derived != plain && e.text == c.verified.text) {
				e.used = true
			}
		}
	}
}

var claimOptions = []string{"from", "type", "default", "required", "fold", "editable", "source"}

// loadClaim declares a claim, or overrides options of one that the preset declares; what it does not name stays.
func (l *loader) loadClaim(p *provider, e strictyaml.Entry) {
	what := fmt.Sprintf("claim %q", e.Key)
	options := l.fields(e.Value, what, claimOptions...)
	c := p.byName[e.Key]
	if c == nil {
		if e.Key == "" || flaw(e.Key) != "" {
			l.doc.Errorf(e.KeyNode, "E104", "", "a claim's name must not be empty or contain invisible characters")
		}
		c = &claim{name: e.Key}
		p.add(c)
	}
	if c.derived != plain {
		l.refuseOptions(c, options)
	}
	if n := options["from"]; n != nil {
		l.loadFrom(c, n)
	}
	if n := options["source"]; n != nil {
		c.sources = l.loadSources(n)
	}
	if n := options["type"]; n != nil {
		text, ok := l.doc.Text(n, "type")
		if i := slices.Index(kindNames, text); i >= 0 {
			if c.kind != kind(i) {
				c.hasDefault = false // it was the preset's, of another type
			}
			c.kind = kind(i)
		} else if ok {
			l.doc.Errorf(n, "E104", didYouMean(text, kindNames, "one of "+strings.Join(kindNames, ", ")), "unknown type %q", text)
		}
	}
	if n := options["editable"]; n != nil {
		c.editable, _ = l.doc.Bool(n, "editable")
	} else if isEditedByPeople(c.from) && !(c.derived == derivedEmail && c.from == "email") {
		// An e-mail that is read from another claim, too: email_verified speaks of the claim email alone (OpenID Connect Core 5.1).
		c.editable = true
	}
	if n := options["fold"]; n != nil {
		c.fold, _ = l.doc.Bool(n, "fold")
		if c.kind != kindString && c.kind != kindSet {
			l.doc.Errorf(n, "E207", "remove it", "fold fits a string or a set; claim %q is a %s", c.name, c.kind)
		}
	}
	l.loadAbsence(c, options)
}

// isEditedByPeople reports whether the key, or what a pointer such as /address/country leads into, is one of editedByPeople.
func isEditedByPeople(from string) bool {
	if pointer, is := strings.CutPrefix(from, "/"); is {
		from, _, _ = strings.Cut(pointer, "/")
	}
	return slices.Contains(editedByPeople, from)
}

// loadAbsence reads what the file says about the claim's absence.
func (l *loader) loadAbsence(c *claim, options map[string]*yaml.Node) {
	required, fallback := options["required"], options["default"]
	if required != nil {
		c.required, _ = l.doc.Bool(required, "required")
		if c.required {
			c.hasDefault = false
		}
	}
	if fallback == nil {
		return
	}
	if required != nil && c.required {
		l.doc.Errorf(fallback, "E104", "keep one of them", "claim %q is required: its default would never be used", c.name)
	}
	c.required = false
	if v, ok := l.fallback(c, fallback); ok {
		c.fallback, c.hasDefault = v, true
	}
}

// fallback reads the `default` of a claim.
func (l *loader) fallback(c *claim, n *yaml.Node) (value, bool) {
	v := value{state: stateDefault}
	raw, ok := l.doc.JSON(n, "default")
	if !ok {
		return v, false
	}
	switch raw := normalise(raw).(type) {
	case []string:
		v.list = raw
		ok = c.kind == kindSet
	case bool:
		v.text = strconv.FormatBool(raw)
		ok = c.kind == kindBool
	case json.Number:
		v.text = string(raw)
		ok = c.kind == kindNumber
	case string:
		text, example := c.canonical(raw)
		v.text = text
		ok = example == "" && (c.kind == kindString || c.kind == kindDomain || c.kind == kindTime)
	default: // null, "" or broken; an empty text says "none" for texts
		ok = raw == nil && n.Value == "" && n.Style != 0 && (c.kind == kindString || c.kind == kindDomain)
	}
	if !ok {
		l.doc.Errorf(n, "E204", "write it like `default: "+c.exampleDefault()+"`", "the default of claim %q does not fit: it is a %s", c.name, c.kind)
	}
	return v, ok
}

func (c *claim) exampleDefault() string {
	if c.derived == derivedEmail {
		return `""`
	}
	return map[kind]string{kindString: `none`, kindSet: `[]`, kindBool: `false`, kindNumber: `0`, kindDomain: `none.invalid`, kindTime: `1970-01-01T00:00:00Z`}[c.kind]
}

// refuseOptions adds an error for each option that has no meaning for a derived claim.
func (l *loader) refuseOptions(c *claim, options map[string]*yaml.Node) {
	refused := []string{"type"}
	if c.derived == derivedEmailDomain {
		refused = []string{"type", "from", "source", "fold", "editable"}
	}
	for _, name := range refused {
		if n := options[name]; n != nil {
			l.doc.Errorf(n, "E104", "remove it, or declare a claim of another name", "%s cannot be set: claim %q is derived from the verified e-mail", name, c.name)
			delete(options, name)
		}
	}
}

func (l *loader) loadFrom(c *claim, n *yaml.Node) {
	from, ok := l.word(n, "from")
	if !ok {
		return
	}
	before, _, prefixed := strings.Cut(from, ":")
	before, _, _ = strings.Cut(before, ",")
	switch {
	case from == "":
		l.doc.Errorf(n, "E108", "write the claim's key, or a path such as /realm_access/roles", "from is empty")
	case prefixed && slices.Contains(sourceNames, before):
		l.doc.Errorf(n, "E104", "write `source: "+before+"` beside it", "from does not name the token")
	case strings.HasPrefix(from, "/") && !validPointer(from):
		l.doc.Errorf(n, "E104", "write it like /realm_access/roles, with ~1 for a slash and ~0 for a tilde inside a key", "%q is not a path", from)
	default:
		c.from = from
	}
}

func (l *loader) loadSources(n *yaml.Node) sources {
	items := []*yaml.Node{n}
	if n.Kind != yaml.ScalarNode {
		items = l.doc.Sequence(n, "source")
	}
	var read sources
	for _, item := range items {
		text, ok := l.doc.Text(item, "source")
		if i := slices.Index(sourceNames, text); i >= 0 {
			read |= 1 << i
		} else if ok {
			l.doc.Errorf(item, "E104", didYouMean(text, sourceNames, "one of "+strings.Join(sourceNames, ", ")), "unknown source %q", text)
		}
	}
	if len(items) == 0 && n.Kind == yaml.SequenceNode {
		l.doc.Errorf(n, "E108", "one of "+strings.Join(sourceNames, ", "), "source is empty")
	}
	if read == 0 {
		return usualSources
	}
	return read
}
