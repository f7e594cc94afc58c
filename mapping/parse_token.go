package mapping

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// reservedClaims are written by the bridge alone.
var reservedClaims = []string{"role", "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "user_id"}

// A tokenSpec is one line under `token`, before it is known which provider's claims it means.
type tokenSpec struct {
	entry    strictyaml.Entry
	constant any
	from     []*yaml.Node // names of claims; nil for a constant
}

func (l *loader) tokenSpecs(n *yaml.Node, what string) []tokenSpec {
	var specs []tokenSpec
	for _, e := range l.doc.Mapping(n, what) {
		spec := tokenSpec{entry: e}
		if slices.Contains(reservedClaims, e.Key) {
			l.doc.Errorf(e.KeyNode, "E309", "choose another name", "the bridge writes the claim %q itself", e.Key)
		} else if e.Key == "" || flaw(e.Key) != "" {
			l.doc.Errorf(e.KeyNode, "E104", "", "a claim's name must not be empty or contain invisible characters")
		}
		if isReference(e.Value) {
			spec.from = l.references(l.fields(e.Value, fmt.Sprintf("token claim %q", e.Key), "from")["from"])
		} else {
			spec.constant = l.constant(e)
		}
		specs = append(specs, spec)
	}
	return specs
}

// isReference tells `{ from: claim }` from a constant that happens to be an object.
func isReference(n *yaml.Node) bool {
	return n.Kind == yaml.MappingNode && slices.ContainsFunc(n.Content, func(part *yaml.Node) bool { return part.Value == "from" })
}

// largestConstant bounds one constant of the token, in bytes of JSON.
const largestConstant = 1024

func (l *loader) constant(e strictyaml.Entry) any {
	what := fmt.Sprintf("token claim %q", e.Key)
	constant, ok := l.doc.JSON(e.Value, what)
	switch {
	case ok && constant == nil:
		l.doc.Errorf(e.Value, "E104", "write a value, or remove the line: a token never carries null", "%s is null", what)
	case ok && len(asJSON(constant)) > largestConstant:
		l.doc.Errorf(e.Value, "E104", "the whole token stays under 4 KB, because it travels in a header", "%s is larger than %d bytes", what, largestConstant)
	}
	return constant
}

// references reads one name or a list of names of claims.
func (l *loader) references(n *yaml.Node) []*yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		l.doc.Text(n, "from")
		return []*yaml.Node{n}
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		l.doc.Errorf(n, "E108", "name a claim", "from is empty")
	}
	var names []*yaml.Node
	for _, item := range l.doc.Sequence(n, "from") {
		if _, ok := l.doc.Text(item, "the name of a claim"); ok {
			names = append(names, item)
		}
	}
	return names
}

// merge puts the rule's own claims over the file's.
func merge(file, own []tokenSpec) []tokenSpec {
	merged := slices.DeleteFunc(slices.Clone(file), func(f tokenSpec) bool {
		return slices.ContainsFunc(own, func(o tokenSpec) bool { return o.entry.Key == f.entry.Key })
	})
	return append(merged, own...)
}

// tokenClaims resolves specs for one provider. A spec whose claims the provider does not declare writes nothing.
func (p *provider) tokenClaims(specs []tokenSpec) []tokenClaim {
	var claims []tokenClaim
	for _, spec := range specs {
		t := tokenClaim{name: spec.entry.Key, constant: spec.constant}
		for _, name := range spec.from {
			if c := p.byName[name.Value]; c != nil {
				t.from = append(t.from, p.use(c))
			}
		}
		if spec.from == nil || t.from != nil {
			claims = append(claims, t)
		}
	}
	return claims
}

// checkSources adds E206 for claims that the rule's own provider does not declare.
func (l *loader) checkSources(p *provider, specs []tokenSpec) {
	for _, spec := range specs {
		for _, name := range spec.from {
			l.claimNamed(p, name.Value, name)
		}
	}
}

// resolveTopLevel gives each provider the file's extra claims; a claim that no provider declares is E206.
func (l *loader) resolveTopLevel(n *yaml.Node, specs []tokenSpec) {
	for _, spec := range specs {
		l.checkDeclared(spec.from)
	}
	for _, p := range l.rules.providers {
		p.token = p.tokenClaims(specs)
	}
}

func (l *loader) checkDeclared(names []*yaml.Node) {
	for _, n := range names {
		var known []string
		for _, p := range l.rules.providers {
			for _, c := range p.claims {
				known = append(known, c.name)
			}
		}
		if len(known) > 0 && !slices.Contains(known, n.Value) {
			slices.Sort(known)
			l.doc.Errorf(n, "E206", didYouMean(n.Value, known, "declare it under a provider's claims"), "no provider declares a claim %q", n.Value)
		}
	}
}

var (
	usersKeys  = []string{"email", "name"}
	columnKeys = []string{"from", "on"}
	columnOn   = []string{"login", "create"}
)

func (l *loader) loadUsers(n *yaml.Node) {
	columns := l.fields(n, "users", usersKeys...)
	l.rules.email = l.loadColumn(columns["email"], "email")
	l.rules.name = l.loadColumn(columns["name"], "name")
}

func (l *loader) loadColumn(n *yaml.Node, name string) *column {
	if n == nil {
		return nil
	}
	what := "users column " + name
	options := l.fields(n, what, columnKeys...)
	if options != nil && options["from"] == nil {
		l.doc.Errorf(n, "E104", "write { from: claim }", "%s has no from", what)
	}
	c := &column{}
	from := l.references(options["from"])
	l.checkDeclared(from)
	for _, source := range from {
		c.from = append(c.from, source.Value)
		l.checkColumn(source, what)
	}
	if on := options["on"]; on != nil {
		text, ok := l.doc.Text(on, "on")
		c.onCreate = text == "create"
		if ok && !slices.Contains(columnOn, text) {
			l.doc.Errorf(on, "E104", "write login (the default) or create", "a column is written on login or on create, not on %q", text)
		}
	}
	return c
}

// checkColumn marks the source as used and adds E207 when it is no text.
func (l *loader) checkColumn(n *yaml.Node, what string) {
	for _, name := range l.rules.names {
		c := l.rules.providers[name].byName[n.Value]
		if c == nil {
			continue
		}
		c.used = true
		if c.kind != kindString && c.kind != kindDomain {
			l.doc.Errorf(n, "E207", "use a string or a domain", "%s takes a text; claim %q of provider %q is a %s", what, n.Value, name, c.kind)
		}
	}
}
