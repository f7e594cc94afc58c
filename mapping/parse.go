package mapping

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// A loader turns the document into Rules. It walks the whole file, whatever it finds.
type loader struct {
	doc   *strictyaml.Document
	rules *Rules
	lines map[string]int // of the names of rules and deny rules
	given map[*role]bool // by some rule, table, row or default

	tested bool // the tests were run
}

func newLoader(file string, text []byte) *loader {
	l := &loader{
		doc:   strictyaml.Parse(file, text),
		rules: &Rules{file: file, hash: Hash(text), providers: map[string]*provider{}},
		lines: map[string]int{},
		given: map[*role]bool{},
	}
	if root := l.doc.Root(); root != nil {
		l.load(root)
	}
	return l
}

var roleKeys = []string{"privileged", "max_ttl"}

var sections = []string{"version", "providers", "roles", "deny", "rules", "default", "token", "users", "tests"}

func (l *loader) load(root *yaml.Node) {
	if root.Kind != yaml.MappingNode {
		l.doc.Mapping(root, "the rules file")
		return
	}
	section := l.fields(root, "the rules file", sections...)
	l.version(root, section["version"])
	l.loadProviders(root, section["providers"])
	l.loadRoles(root, section["roles"])
	token := l.tokenSpecs(section["token"], "token")
	l.resolveTopLevel(section["token"], token)
	l.loadUsers(section["users"])
	l.loadDeny(section["deny"])
	l.loadRules(section["rules"], token)
	l.loadDefault(root, section["default"])
	for _, p := range l.rules.providers {
		p.markUsed()
	}
	if !strictyaml.Errors(l.doc.Findings()) {
		l.lint(token)
	}
	l.loadTests(section["tests"])
}

func positionOf(n *yaml.Node) position { return position{n.Line, n.Column} }

// node is a position as findings want it.
func (p position) node() *yaml.Node { return &yaml.Node{Line: p.line, Column: p.column} }

// fields returns the values of a mapping by key, nil when n is none.
func (l *loader) fields(n *yaml.Node, what string, keys ...string) map[string]*yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		l.doc.Mapping(n, what, keys...)
		return nil
	}
	fields := map[string]*yaml.Node{}
	for _, e := range l.doc.Mapping(n, what, keys...) {
		fields[e.Key] = e.Value
	}
	return fields
}

// word is Text without what nobody can see.
func (l *loader) word(n *yaml.Node, what string) (string, bool) {
	text, ok := l.doc.Text(n, what)
	if !ok {
		return "", false
	}
	if reason := flaw(text); reason != "" {
		l.doc.Errorf(n, "E104", "type it anew", "%s contains %s", what, reason)
		return "", false
	}
	return text, true
}

func (l *loader) words(n *yaml.Node, what string) []string {
	var words []string
	for _, item := range l.doc.Sequence(n, what) {
		if text, ok := l.word(item, "an item of "+what); ok {
			words = append(words, text)
		}
	}
	return words
}

func (l *loader) version(root, n *yaml.Node) {
	switch {
	case n == nil:
		l.doc.Errorf(root, "E106", "begin the file with `version: 1`", "the version is missing")
	case n.Kind != yaml.ScalarNode || n.Value != "1":
		l.doc.Errorf(n, "E106", "write `version: 1`", "unknown version: this program reads version 1")
	}
}

// required returns whether a section is there and adds E104 when not.
func (l *loader) required(root, n *yaml.Node, name, fix string) bool {
	if n == nil {
		l.doc.Errorf(root, "E104", fix, "the section %s is missing", name)
	}
	return n != nil
}

func (l *loader) loadRoles(root, n *yaml.Node) {
	if !l.required(root, n, "roles", "list the roles that this file can hand out, such as `customer: {}`") {
		return
	}
	for _, e := range l.doc.Mapping(n, "roles") {
		r := &role{
			Role: Role{Name: e.Key, Line: e.KeyNode.Line, Column: e.KeyNode.Column},
			at:   l.doc.Finding(e.KeyNode, "", "", ""),
		}
		what := fmt.Sprintf("role %q", e.Key)
		options := l.fields(e.Value, what, roleKeys...)
		r.Privileged, _ = l.doc.Bool(options["privileged"], "privileged")
		r.MaxTTL = l.ttl(options["max_ttl"], "max_ttl")
		l.checkRoleName(e)
		l.rules.roles = append(l.rules.roles, r)
	}
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		l.doc.Errorf(n, "E108", "list the roles that this file can hand out, such as `customer: {}`", "roles is empty")
	}
}

// systemRoles are refused by name; what a role may do in the database is checked where the database is.
var systemRoles = []string{
	"none", "public", "postgres", "authenticator", "current_role", "current_user", "session_user",
	"rds_superuser", "cloudsqlsuperuser", "azure_superuser", "azure_pg_admin",
}

// maxIdentifier is PostgreSQL's NAMEDATALEN - 1: longer names are cut off and then name another role.
const maxIdentifier = 63

func (l *loader) checkRoleName(e strictyaml.Entry) {
	switch {
	case isSystemRole(e.Key):
		l.doc.Errorf(e.KeyNode, "E303", "give people a role of their own: CREATE ROLE … NOLOGIN; GRANT … TO authenticator", "%q is a system role", e.Key)
	case !isPlainName(e.Key):
		l.doc.Errorf(e.KeyNode, "E104", "", "a role's name has 1 to %d bytes and no invisible characters", maxIdentifier)
	}
}

// shortest is the shortest life of a token that can be used at all: bridge and browser take 30 seconds off it for clocks and caches.
const shortest = time.Minute

func (l *loader) ttl(n *yaml.Node, what string) time.Duration {
	ttl, ok := l.doc.Duration(n, what)
	if ok && (ttl < shortest || ttl%time.Second != 0) {
		l.doc.Errorf(n, "E104", "write it like 90s, 5m or 1h", "%s must be whole seconds and at least %s", what, "1m")
	}
	return ttl
}

// roleNamed reads the name of a listed role.
func (l *loader) roleNamed(n *yaml.Node, what string) *role {
	name, ok := l.doc.Text(n, what)
	if !ok {
		return nil
	}
	found := l.rules.role(name)
	if found == nil {
		var names []string
		for _, r := range l.rules.roles {
			names = append(names, r.Name)
		}
		l.doc.Errorf(n, "E205", didYouMean(name, names, "list it under roles"), "role %q is not listed under roles", name)
		return nil
	}
	l.given[found] = true
	return found
}

func didYouMean(name string, candidates []string, otherwise string) string {
	if near := strictyaml.Nearest(name, candidates); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return otherwise
}

func (l *loader) loadDefault(root, n *yaml.Node) {
	switch {
	case n == nil:
		l.doc.Errorf(root, "E110", "write `default: deny`", "the default is missing: nobody can see what happens when no rule matches")
	case n.Kind == yaml.ScalarNode && n.Value == "deny":
	case n.Kind == yaml.ScalarNode:
		l.doc.Errorf(n, "E104", "write `default: deny` or `default: { role: … }`", "default must be deny or a role")
	default:
		options := l.fields(n, "default", "role")
		if options != nil && options["role"] == nil {
			l.doc.Errorf(n, "E104", "write `default: deny` or `default: { role: … }`", "default must be deny or a role")
		}
		fallback := l.roleNamed(options["role"], "the default role")
		if fallback != nil && fallback.Privileged {
			l.doc.Errorf(options["role"], "E304", "give it by a rule", "the default must not be the privileged role %q", fallback.Name)
		}
		l.rules.fallback = fallback
	}
}
