package mapping

import "fmt"

// A ClaimRead is a claim of a provider that a deny rule or a rule reads.
type ClaimRead struct {
	Name       string
	Expression string // the key under which Claims keep its value
	Cure       string // what to do when no login carries it
}

// ClaimsRead returns the claims of a provider that deny rules and rules read. A rule that reads a claim which no login carries matches
// nobody, and a deny rule keeps nobody out: what that is the sign of, the preset knows.
func (r *Rules) ClaimsRead(provider string) (read []ClaimRead) {
	p := r.providers[provider]
	if p == nil {
		return nil
	}
	for _, c := range p.claims {
		if c.decides {
			read = append(read, ClaimRead{c.name, c.expression.text, p.cure(c)})
		}
	}
	return read
}

// cure says what makes the provider send a claim.
func (p *provider) cure(c *claim) string {
	switch {
	case p.preset == "keycloak" && c.name == "groups":
		return fmt.Sprintf("add the mapper Group Membership, with the token claim name %s, to the client in Keycloak", c.from)
	case p.preset == "keycloak" && c.expression.sources == accessToken:
		return "in Keycloak, the client needs the client scope roles, and somebody such a role"
	}
	return "look at what the provider sends to this client: its mappers, and `scopes` in config.yaml"
}
