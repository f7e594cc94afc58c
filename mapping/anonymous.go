package mapping

import (
	"fmt"
	"slices"
	"strings"
)

// Anonymous is the decision about people without session, for the role that config.yaml names for them: nothing of an identity is in it. It is
// a refusal when the name cannot be a role for tokens, or the file calls the role privileged.
func (r *Rules) Anonymous(name string) Decision {
	granted := &role{Role: Role{Name: name}}
	if listed := r.role(name); listed != nil {
		granted = listed
	}
	switch {
	case !IsRoleName(name):
		return Decision{rule: "anonymous", reason: fmt.Sprintf("%q is not a role for tokens", name)}
	case granted.Privileged:
		return Decision{rule: "anonymous", reason: fmt.Sprintf("role %q is privileged", name)}
	}
	return Decision{
		outcome: Granted, anonymous: true, rule: "anonymous", reason: "there is no session", role: granted, ttl: granted.MaxTTL,
	}
}

// IsAnonymous reports whether this is the decision about people without session.
func (d Decision) IsAnonymous() bool { return d.anonymous }

// IsRoleName reports whether a token may carry this name as its role. What the role may do, only the database knows.
func IsRoleName(name string) bool { return !isSystemRole(name) && isPlainName(name) }

func isSystemRole(name string) bool {
	name = strings.ToLower(name)
	return slices.Contains(systemRoles, name) || strings.HasPrefix(name, "pg_")
}

func isPlainName(name string) bool {
	return name != "" && len(name) <= maxIdentifier && flaw(name) == ""
}
