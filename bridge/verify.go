package bridge

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	clockSkew     = 60 * time.Second // between the provider's clock and ours, both ways
	maxToken      = 64 << 10         // bytes of a token from the provider
	maxTokenLife  = 24 * time.Hour   // exp - iat
	maxSubject    = 255              // bytes, OpenID Connect Core 2
	maxKeyID      = 512
	googleIssuer  = "https://accounts.google.com"
	googleSpelled = "accounts.google.com" // what Google also writes into iss, see its OpenID Connect documentation
)

// A tokenFault names the check that a token failed. It reaches the log and the metrics, never the person.
type tokenFault string

func (f tokenFault) Error() string { return "token refused: " + string(f) }

// The checks, as OpenID Connect Core 3.1.3.7 and RFC 8725 name what they look at.
const (
	faultForm      tokenFault = "form"      // not a compact JWS of sane size and strict JSON
	faultType      tokenFault = "typ"       // another kind of token
	faultAlgorithm tokenFault = "alg"       // not the one algorithm of this provider
	faultCritical  tokenFault = "crit"      // an extension that must be understood
	faultKey       tokenFault = "key"       // the provider publishes no such key
	faultSignature tokenFault = "signature" // does not match
	faultLibrary   tokenFault = "go-oidc"   // refused by go-oidc alone
	faultIssuer    tokenFault = "iss"
	faultAudience  tokenFault = "aud"
	faultParty     tokenFault = "azp"
	faultExpiry    tokenFault = "exp"
	faultIssued    tokenFault = "iat"
	faultNotBefore tokenFault = "nbf"
	faultSubject   tokenFault = "sub"
	faultNonce     tokenFault = "nonce"
	faultHash      tokenFault = "at_hash"
	faultEvents    tokenFault = "events"   // a logout token
	faultUserInfo  tokenFault = "userinfo" // the UserInfo response is not about this subject
)

// A verifier holds one provider's tokens to the specifications. go-oidc alone accepts a good deal that they forbid (security.md, section 1);
// so it stands between our checks of the form before it and our checks of the claims after it.
type verifier struct {
	issuer   string
	clientID string
	alg      jose.SignatureAlgorithm
	keys     *keySet
	now      func() time.Time
}

// expectation is what the login knows about the ID token to come.
type expectation struct {
	nonce       string
	accessToken string // at_hash is checked against it
	started     time.Time
}

// idToken verifies an ID token from the token endpoint and returns its claims (OpenID Connect Core 3.1.3.7).
func (v *verifier) idToken(ctx context.Context, jwksURI, raw string, want expectation) (map[string]any, error) {
	header, err := v.form(raw)
	if err != nil {
		return nil, err
	}
	if typ, present := header["typ"]; present && !isOneOf(typ, "JWT") {
		return nil, fmt.Errorf("%w: %.32q", faultType, typ)
	}
	payload, claims, err := v.signed(ctx, jwksURI, raw)
	if err != nil {
		return nil, err
	}
	if err := v.library(ctx, raw, payload); err != nil {
		return nil, err
	}
	if err := v.audience(claims); err != nil {
		return nil, err
	}
	if err := v.common(claims, want.started); err != nil {
		return nil, err
	}
	if _, present := claims["events"]; present {
		return nil, faultEvents
	}
	nonce, _ := claims["nonce"].(string)
	if want.nonce == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(want.nonce)) != 1 {
		return nil, faultNonce
	}
	if hash, present := claims["at_hash"]; present {
		if text, _ := hash.(string); text == "" || text != v.accessTokenHash(want.accessToken) {
			return nil, faultHash
		}
	}
	return claims, nil
}

// accessToken verifies a JWT access token that came with the ID token of the subject: Keycloak puts roles there. Its audience is some API,
// so that azp, the client it was issued to, binds it to us.
func (v *verifier) accessToken(ctx context.Context, jwksURI, raw, subject string, started time.Time) (map[string]any, error) {
	header, err := v.form(raw)
	if err != nil {
		return nil, err
	}
	if typ, present := header["typ"]; present && !isOneOf(typ, "JWT", "at+jwt", "application/at+jwt") {
		return nil, fmt.Errorf("%w: %.32q", faultType, typ)
	}
	_, claims, err := v.signed(ctx, jwksURI, raw)
	if err != nil {
		return nil, err
	}
	if azp, _ := claims["azp"].(string); azp != v.clientID {
		return nil, faultParty
	}
	// Keycloak tells its kinds of token apart by a claim: ID, Bearer, Refresh, Logout.
	if typ, present := claims["typ"]; present && !isOneOf(typ, "Bearer") {
		return nil, fmt.Errorf("%w: %.32q", faultType, typ)
	}
	if _, present := claims["events"]; present {
		return nil, faultEvents
	}
	if err := v.common(claims, started); err != nil {
		return nil, err
	}
	if sub, _ := claims["sub"].(string); sub != subject {
		return nil, fmt.Errorf("%w: not the ID token's", faultSubject)
	}
	return claims, nil
}

// form checks what can be seen without a key: three parts of base64url, the pinned algorithm, no extension.
func (v *verifier) form(raw string) (header map[string]any, err error) {
	parts := strings.Split(raw, ".")
	if len(raw) > maxToken || len(parts) != 3 {
		return nil, fmt.Errorf("%w: %d bytes in %d parts", faultForm, len(raw), len(parts))
	}
	for _, part := range parts {
		// Strict base64url passes line breaks; a token has none.
		if _, err := base64url.DecodeString(part); err != nil || part == "" || strings.ContainsAny(part, "\r\n") {
			return nil, fmt.Errorf("%w: not base64url", faultForm)
		}
	}
	text, _ := base64url.DecodeString(parts[0])
	if header, err = decodeObject(text); err != nil {
		return nil, fmt.Errorf("%w: header: %v", faultForm, err)
	}
	if alg, _ := header["alg"].(string); alg != string(v.alg) {
		return nil, fmt.Errorf("%w: %.32q, expected %s", faultAlgorithm, header["alg"], v.alg)
	}
	for _, name := range []string{"crit", "b64", "zip", "enc"} {
		if _, present := header[name]; present {
			return nil, fmt.Errorf("%w: %s", faultCritical, name)
		}
	}
	if cty, present := header["cty"]; present {
		return nil, fmt.Errorf("%w: cty %.32q", faultType, cty)
	}
	if kid, present := header["kid"]; present {
		if text, ok := kid.(string); !ok || text == "" || len(text) > maxKeyID {
			return nil, fmt.Errorf("%w: kid", faultForm)
		}
	}
	return header, nil
}

// signed verifies the signature and decodes the payload strictly.
func (v *verifier) signed(ctx context.Context, jwksURI, raw string) (payload []byte, claims map[string]any, err error) {
	payload, err = v.keys.verify(ctx, jwksURI, raw, 0)
	switch {
	case errors.Is(err, errBadSignature):
		return nil, nil, faultSignature
	case errors.Is(err, errUnknownKey):
		return nil, nil, faultKey
	case err != nil:
		return nil, nil, fmt.Errorf("%w: keys: %w", ErrProviderDown, err)
	}
	if claims, err = decodeObject(payload); err != nil {
		return nil, nil, fmt.Errorf("%w: payload: %v", faultForm, err)
	}
	return payload, claims, nil
}

// library lets go-oidc check the token too: what it refuses is refused. Only expiry is left to common, since go-oidc grants no leeway.
func (v *verifier) library(ctx context.Context, raw string, payload []byte) error {
	config := &oidc.Config{ClientID: v.clientID, SupportedSigningAlgs: []string{string(v.alg)}, SkipExpiryCheck: true, Now: v.now}
	if _, err := oidc.NewVerifier(v.issuer, verifiedPayload{raw, payload}, config).Verify(ctx, raw); err != nil {
		return fmt.Errorf("%w: %v", faultLibrary, err)
	}
	return nil
}

// verifiedPayload is the oidc.KeySet for the one token whose signature was just verified.
type verifiedPayload struct {
	jwt     string
	payload []byte
}

func (p verifiedPayload) VerifySignature(_ context.Context, jwt string) ([]byte, error) {
	if jwt != p.jwt {
		return nil, errBadSignature
	}
	return p.payload, nil
}

// audience accepts our client_id, alone or as a list of one, and an azp that is ours or absent (OpenID Connect Core 3.1.3.7, 3 to 5).
func (v *verifier) audience(claims map[string]any) error {
	aud := claims["aud"]
	if list, ok := aud.([]any); ok && len(list) == 1 {
		aud = list[0]
	}
	if !isOneOf(aud, v.clientID) {
		return faultAudience
	}
	if azp, present := claims["azp"]; present && !isOneOf(azp, v.clientID) {
		return faultParty
	}
	return nil
}

// common checks what every token of the provider must have: iss, sub and sane times.
func (v *verifier) common(claims map[string]any, started time.Time) error {
	iss := claims["iss"]
	if !isOneOf(iss, v.issuer) && !(v.issuer == googleIssuer && isOneOf(iss, googleSpelled)) {
		return faultIssuer
	}
	if sub, _ := claims["sub"].(string); !isSubject(sub) {
		return faultSubject
	}
	now := v.now()
	exp, ok := timeClaim(claims, "exp")
	if !ok || !now.Before(exp.Add(clockSkew)) {
		return fmt.Errorf("%w: %s ago", faultExpiry, now.Sub(exp).Round(time.Second))
	}
	iat, ok := timeClaim(claims, "iat")
	if !ok || iat.After(now.Add(clockSkew)) || iat.Before(started.Add(-clockSkew)) {
		return fmt.Errorf("%w: %s ago", faultIssued, now.Sub(iat).Round(time.Second))
	}
	if exp.Sub(iat) > maxTokenLife || !exp.After(iat) {
		return fmt.Errorf("%w: %s after iat", faultExpiry, exp.Sub(iat))
	}
	if _, present := claims["nbf"]; present {
		if nbf, ok := timeClaim(claims, "nbf"); !ok || nbf.After(now.Add(clockSkew)) {
			return faultNotBefore
		}
	}
	return nil
}

// timeClaim reads an integer NumericDate (RFC 7519 section 2) within the years that a login can have to do with.
func timeClaim(claims map[string]any, name string) (time.Time, bool) {
	number, ok := claims[name].(json.Number)
	if !ok {
		return time.Time{}, false
	}
	seconds, err := number.Int64()
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(seconds, 0), true
}

// isSubject holds a sub to OpenID Connect Core 2, and to what PostgreSQL can store.
func isSubject(sub string) bool {
	return sub != "" && len(sub) <= maxSubject && utf8.ValidString(sub) && strings.TrimSpace(sub) == sub &&
		!strings.ContainsFunc(sub, unicode.IsControl)
}

func isOneOf(value any, allowed ...string) bool {
	text, ok := value.(string)
	if !ok {
		return false
	}
	for _, a := range allowed {
		if text == a {
			return true
		}
	}
	return false
}

// accessTokenHash is the at_hash of an access token: the left half of its hash (OpenID Connect Core 3.1.3.6).
func (v *verifier) accessTokenHash(accessToken string) string {
	var h hash.Hash
	switch {
	case v.alg == jose.EdDSA, strings.HasSuffix(string(v.alg), "512"):
		h = sha512.New()
	case strings.HasSuffix(string(v.alg), "384"):
		h = sha512.New384()
	default:
		h = sha256.New()
	}
	h.Write([]byte(accessToken))
	sum := h.Sum(nil)
	return base64url.EncodeToString(sum[:len(sum)/2])
}
