package bridgetest

import (
	"crypto/rand"
	"net/url"
	"slices"
	"strings"
)

// family is what the refresh tokens of one login have in common. The newest is good once; one that was used before ends the login, since two
// have it (RFC 9700 section 4.14.2).
type family struct {
	newest string
	ended  bool
}

// refresh returns the grant of a refresh token, with the persona as it is now. A persona who is not there any more has no grants.
func (op *OP) refresh(form url.Values, client Client, b Behaviour) (grant, bool) {
	presented := form.Get("refresh_token")
	op.passed(presented)
	op.mu.Lock()
	g, ok := op.refreshTokens[presented]
	if !ok || g.client.ID != client.ID {
		op.mu.Unlock()
		return grant{}, false
	}
	if presented != g.family.newest {
		g.family.ended = true
	}
	ended := g.family.ended
	if !b.KeepRefreshTokens {
		g.family.newest = ""
	}
	op.mu.Unlock()
	persona, ok := op.persona(g.persona.Subject)
	g.persona = persona
	g.nonce = "" // OpenID Connect Core 12.2: it should not be there
	return g, ok && !ended
}

// addRefreshToken adds the next refresh token of the login to a token response.
func (op *OP) addRefreshToken(response map[string]any, g grant, b Behaviour) {
	if !b.RefreshTokens && !slices.Contains(strings.Fields(g.scope), "offline_access") {
		return
	}
	token := rand.Text()
	op.passed(token)
	op.mu.Lock()
	defer op.mu.Unlock()
	if g.family.newest != "" { // b.KeepRefreshTokens
		return
	}
	g.family.newest = token
	op.refreshTokens[token] = g
	response["refresh_token"] = token
}
