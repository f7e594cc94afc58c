// Package mapping decides which one PostgreSQL role a verified identity gets, from a rules file that operators edit.
//
// Load reads the file, checks it and runs the tests it carries. At a login Capture takes the declared claims out of the provider's tokens;
// they are kept with the session, and Decide answers from them at the login and again at every token:
//
//	tokens --Capture--> Claims (kept with the session) --Decide--> Decision (role, extra token claims, lifetime, or a refusal)
//
// What holds everywhere:
//   - Deny rules run first and any match refuses; then the first rule that matches gives the role; then the default.
//   - An absent claim is not a match. A broken claim (wrong shape, cut off, malformed, invisible characters) is undecidable, and so is one
//     that was not captured. The logic is Kleene's: "no" beats undecidable. An undecidable deny rule refuses, and so does an undecidable
//     rule above the winner, because it might be the one that restricts this person.
//   - A line that reads a claim to keep people out needs a claim that says what its absence means, or the file does not load.
//   - Explain is the evaluation of Decide, written down.
//
// The package is pure: no clock, no log, no I/O, no HTTP, no database.
package mapping

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// Rules is a rules file that loaded. It never changes and may be used by many goroutines.
type Rules struct {
	file      string
	hash      string
	names     []string // of the providers, in the order of the file
	providers map[string]*provider
	roles     []*role // in the order of the file
	fallback  *role   // what `default` gives; nil: it refuses
	email     *column
	name      *column
	tests     []*test
}

// A Role is one that the file can hand out.
type Role struct {
	Name       string
	Privileged bool          // needs a test in the file, and is never a default
	MaxTTL     time.Duration // longest life of a token with this role; 0: no limit of its own
	Line       int           // where the file lists it
	Column     int
}

type role struct {
	Role
	at strictyaml.Finding // a finding at its line, to be filled in
}

// Load parses and checks the rules file and runs its tests. Rules is nil when any finding is an error.
func Load(file string, text []byte) (*Rules, []strictyaml.Finding) {
	l := newLoader(file, text)
	findings := l.doc.Findings()
	if strictyaml.Errors(findings) {
		return nil, findings
	}
	return l.rules, findings
}

// Hash names a rules file: the first 12 hex digits of the SHA-256 of its text.
func Hash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])[:12]
}

// Hash names this version of the file in events, metrics and /readyz.
func (r *Rules) Hash() string { return r.hash }

// Providers returns the names of the providers that the file knows, in its order.
func (r *Rules) Providers() []string { return slices.Clone(r.names) }

// Roles returns every role that the file can hand out, in its order.
func (r *Rules) Roles() []Role {
	roles := make([]Role, len(r.roles))
	for i, role := range r.roles {
		roles[i] = role.Role
	}
	return roles
}

// A RowRule is a rule that takes its role from the users row.
type RowRule struct {
	Provider, Name string
	Allow          []string // roles that the row may give; any other one in it is a refusal
}

// RowRules returns the rules that take their role from the users row, provider by provider, in the order of the file.
func (r *Rules) RowRules() (found []RowRule) {
	for _, name := range r.names {
		for _, rule := range r.providers[name].rules {
			if rule.row == nil {
				continue
			}
			row := RowRule{Provider: name, Name: rule.name}
			for _, role := range rule.row.allow {
				row.Allow = append(row.Allow, role.Name)
			}
			found = append(found, row)
		}
	}
	return found
}

// RoleFinding is an error at the line that lists the role, for what only the database can tell about it (E401 to E403).
func (r *Rules) RoleFinding(name, code, message, fix string) strictyaml.Finding {
	finding := strictyaml.Finding{File: r.file, Severity: strictyaml.Error}
	if role := r.role(name); role != nil {
		finding = role.at
	}
	finding.Code, finding.Message, finding.Fix = code, message, fix
	return finding
}

func (r *Rules) role(name string) *role {
	for _, role := range r.roles {
		if role.Name == name {
			return role
		}
	}
	return nil
}
