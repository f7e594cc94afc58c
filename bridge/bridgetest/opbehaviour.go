package bridgetest

import (
	"maps"
	"net/http"
	"net/url"
)

// Behaviour makes a provider misbehave. The zero value is a correct provider. Hooks change in place what they are given, and run
// concurrently when requests do.
type Behaviour struct {
	// Alg signs ID tokens and JWT access tokens: RS256 (default), RS512, PS256, ES256 or EdDSA.
	Alg string
	// SigningKey signs in place of the published key of Alg, see SignJWT for the types.
	SigningKey any

	// SkipPKCE accepts requests without code_challenge and never checks code_verifier.
	SkipPKCE bool
	// NoIssParameter neither advertises nor sends `iss` in authorization responses (RFC 9207). To break the promise only, delete it in
	// AuthorizationResponse.
	NoIssParameter bool
	// RefreshTokens gives refresh tokens without the scope offline_access, too, as Keycloak does.
	RefreshTokens bool
	// KeepRefreshTokens leaves a refresh token good for ever: answers to a refresh hold no new one.
	KeepRefreshTokens bool
	// AutoLogin is the subject of a persona who is logged in without the page being shown.
	AutoLogin string

	// Discovery changes the provider's metadata.
	Discovery func(metadata map[string]any)
	// JWKS returns the body of the key set in place of the good one.
	JWKS func(good []byte) []byte
	// AuthorizationResponse changes the parameters of the redirect to the client, of errors too.
	AuthorizationResponse func(parameters url.Values)
	// TokenResponse changes the JSON object of a successful token response.
	TokenResponse func(response map[string]any)
	// IDTokenHeader and IDTokenClaims change the ID token before it is signed; nil values in the header remove a member.
	IDTokenHeader func(header map[string]any)
	IDTokenClaims func(claims map[string]any)
	// RawIDToken returns what is sent as the ID token. good is the token so far; sign is OP.Sign, which panics here on errors.
	RawIDToken func(good string, sign func(header, claims map[string]any) string) string
	// AccessTokenClaims changes a JWT access token before it is signed. Opaque access tokens have none.
	AccessTokenClaims func(claims map[string]any)
	// UserInfo changes the claims of a UserInfo response.
	UserInfo func(claims map[string]any)

	// PostLogoutResponse changes the parameters of the redirect after an RP-initiated logout.
	PostLogoutResponse func(parameters url.Values)
	// LogoutTokenHeader, LogoutTokenClaims and RawLogoutToken are the same for logout tokens as the three for ID tokens.
	LogoutTokenHeader func(header map[string]any)
	LogoutTokenClaims func(claims map[string]any)
	RawLogoutToken    func(good string, sign func(header, claims map[string]any) string) string

	// Handle answers the requests of whole endpoints (the names of OP.Calls). A function that returns false has written nothing and leaves
	// the request to the provider.
	Handle map[string]func(w http.ResponseWriter, r *http.Request) bool
}

// Set changes the behaviour from the next request on; op.Set(func(b *Behaviour) { *b = Behaviour{} }) ends all misbehaviour.
func (op *OP) Set(change func(*Behaviour)) {
	op.mu.Lock()
	defer op.mu.Unlock()
	next := op.current
	// Requests under way read the old map.
	next.Handle = maps.Clone(next.Handle)
	if next.Handle == nil {
		next.Handle = map[string]func(http.ResponseWriter, *http.Request) bool{}
	}
	change(&next)
	op.current = next
}

// behaviour returns what holds for one request.
func (op *OP) behaviour() Behaviour {
	op.mu.Lock()
	defer op.mu.Unlock()
	b := op.current
	if b.Alg == "" {
		b.Alg = "RS256"
	}
	return b
}
