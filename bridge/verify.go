package bridge

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	clockSkew     = 60 * time.Second // between the provider's clock and ours, both ways
	maxToken      = 64 << 10         // bytes of a token from the provider
	maxTokenLife  = 24 * time.Hour   // exp - iat
	maxLogoutLife = 10 * time.Minute // the same of a logout token
	maxIdentifier = 255              // bytes, OpenID Connect Core 2
	maxKeyID      = 512
	googleIssuer  = "https://accounts.google.com"
	logoutEvent   = "http://schemas.openid.net/event/backchannel-logout"
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
	faultSession   tokenFault = "sid"
	faultTokenID   tokenFault = "jti"
	faultNonce     tokenFault = "nonce"
	faultLoggedIn  tokenFault = "auth_time"
	faultHash      tokenFault = "at_hash"
	faultEvents    tokenFault = "events"   // those of a logout token, or not
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
	// Whether a logout token must have the typ logout+jwt. The certification suite, and many providers, sign without (D26).
	requireLogoutType bool
}

// expectation is what a login, or the refresh of one, knows about the ID token to come.
type expectation struct {
	nonce       string
	accessToken string // at_hash is checked against it
	started     time.Time
	last        map[string]any // of a refresh: the claims of the login's last ID token; nil: of a login
}

// idToken verifies an ID token from the token endpoint and returns its claims (OpenID Connect Core 3.1.3.7).
func (v *verifier) idToken(ctx context.Context, jwksURI, raw string, want expectation) (map[string]any, error) {
	token, err := v.open(ctx, jwksURI, raw, fromProvider)
	if err != nil {
		return nil, err
	}
	claims := token.claims
	if err := cmp.Or(typeIn(token.header, typeAbsent, "jwt"), typeIn(claims, typeAbsent, "id")); err != nil {
		return nil, err
	}
	if _, present := claims["events"]; present {
		return nil, faultEvents
	}
	// Of a refresh the nonce is looked at here. It comes first, so that another login's token is told from one that is unusable.
	if want.last != nil {
		if err := v.sameLogin(want.last, claims); err != nil {
			return nil, err
		}
	}
	if err := v.library(ctx, token); err != nil {
		return nil, err
	}
	if err := cmp.Or(
		v.audience(claims),
		v.issuerAndTimes(claims, want.started.Add(-clockSkew), maxTokenLife),
		identifier(claims, "sub", true, faultSubject),
		identifier(claims, "sid", false, faultSession),
	); err != nil {
		return nil, err
	}
	nonce, _ := claims["nonce"].(string)
	if want.last == nil && (want.nonce == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(want.nonce)) != 1) {
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
// so that the client it was issued to binds it to us. It must say that it is an access token: what could be an ID token is none.
func (v *verifier) accessToken(ctx context.Context, jwksURI, raw, wantSubject string, started time.Time) (map[string]any, error) {
	token, err := v.open(ctx, jwksURI, raw, fromProvider)
	if err != nil {
		return nil, err
	}
	claims := token.claims
	err = cmp.Or(typeIn(token.header, typeAbsent, "jwt"), typeIn(claims, "bearer"))
	if typeIn(token.header, "at+jwt") == nil { // RFC 9068 section 2.1
		err = typeIn(claims, typeAbsent, "bearer")
	}
	if err != nil {
		return nil, err
	}
	if _, present := claims["events"]; present {
		return nil, faultEvents
	}
	if err := v.party(claims); err != nil {
		return nil, err
	}
	if err := v.issuerAndTimes(claims, started.Add(-clockSkew), maxTokenLife); err != nil {
		return nil, err
	}
	if !isOneOf(claims["sub"], wantSubject) {
		return nil, fmt.Errorf("%w: not the ID token's", faultSubject)
	}
	return claims, nil
}

// logoutToken verifies a logout token, which anybody may send us, and returns its claims (Back-Channel Logout 1.0 sections 2.4 and 2.6).
// Whether its jti was seen before is for the caller to know.
func (v *verifier) logoutToken(ctx context.Context, jwksURI, raw string) (map[string]any, error) {
	token, err := v.open(ctx, jwksURI, raw, fromAnybody)
	if err != nil {
		return nil, err
	}
	claims := token.claims
	types := []string{"logout+jwt"}
	if !v.requireLogoutType {
		types = append(types, typeAbsent, "jwt")
	}
	if err := cmp.Or(typeIn(token.header, types...), typeIn(claims, typeAbsent, "logout")); err != nil {
		return nil, err
	}
	if _, present := claims["nonce"]; present {
		return nil, faultNonce
	}
	events, _ := claims["events"].(map[string]any)
	if _, ok := events[logoutEvent].(map[string]any); !ok {
		return nil, faultEvents
	}
	if err := v.library(ctx, token); err != nil {
		return nil, err
	}
	_, hasSID := claims["sid"]
	if err := cmp.Or(
		v.audience(claims),
		v.issuerAndTimes(claims, v.now().Add(-maxLogoutLife-clockSkew), maxLogoutLife),
		identifier(claims, "sub", !hasSID, faultSubject),
		identifier(claims, "sid", false, faultSession),
		identifier(claims, "jti", true, faultTokenID),
	); err != nil {
		return nil, err
	}
	return claims, nil
}

// A jws is a token whose signature one of the provider's keys made.
type jws struct {
	raw     string
	header  map[string]any
	payload []byte
	claims  map[string]any
}

// open checks the form, verifies the signature and decodes the payload strictly.
func (v *verifier) open(ctx context.Context, jwksURI, raw string, origin tokenOrigin) (token jws, err error) {
	token.raw = raw
	if token.header, err = v.form(raw); err != nil {
		return jws{}, err
	}
	token.payload, err = v.keys.verify(ctx, jwksURI, raw, origin)
	switch {
	case errors.Is(err, errBadSignature):
		return jws{}, faultSignature
	case errors.Is(err, errUnknownKey):
		return jws{}, faultKey
	case err != nil:
		return jws{}, err
	}
	if token.claims, err = decodeObject(token.payload); err != nil {
		return jws{}, fmt.Errorf("%w: payload: %v", faultForm, err)
	}
	return token, nil
}

// typeAbsent stands for the lack of a type in the lists of typeIn.
const typeAbsent = ""

// typeIn holds a typ to a list. The header's is a media type without "application/", in any case (RFC 7515 section 4.1.9); by the claim of
// that name Keycloak tells its kinds of token apart (ID, Bearer, Refresh, Offline, Logout). Each kind of token has lists of its own, which
// keeps one kind from being taken for another (RFC 8725 sections 3.11 and 3.12).
func typeIn(members map[string]any, allowed ...string) error {
	value, present := members["typ"]
	text, _ := value.(string)
	text = strings.TrimPrefix(strings.ToLower(text), "application/")
	if present == (text != typeAbsent) && slices.Contains(allowed, text) {
		return nil
	}
	return fmt.Errorf("%w: %.32q", faultType, value)
}

// form checks what can be seen without a key: three parts of base64url, the pinned algorithm, no extension.
func (v *verifier) form(raw string) (header map[string]any, err error) {
	if len(raw) > maxToken || strings.Count(raw, ".") != 2 {
		return nil, fmt.Errorf("%w: %d bytes in %d parts", faultForm, len(raw), strings.Count(raw, ".")+1)
	}
	parts := strings.Split(raw, ".")
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
	if !isOneOf(header["alg"], string(v.alg)) {
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

// library lets go-oidc check the token too: what it refuses is refused. Only the times are left to issuerAndTimes, since go-oidc grants no leeway
// for exp and five minutes for nbf.
func (v *verifier) library(ctx context.Context, t jws) error {
	config := &oidc.Config{ClientID: v.clientID, SupportedSigningAlgs: []string{string(v.alg)}, SkipExpiryCheck: true, Now: v.now}
	if _, err := oidc.NewVerifier(v.issuer, verifiedPayload{t.raw, t.payload}, config).Verify(ctx, t.raw); err != nil {
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

// party accepts an access token that was issued to us: azp is Keycloak's name for it, RFC 9068 section 2.2 has client_id.
func (v *verifier) party(claims map[string]any) error {
	party, present := claims["azp"]
	if !present {
		party = claims["client_id"]
	}
	if !isOneOf(party, v.clientID) {
		return faultParty
	}
	return nil
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

func (v *verifier) issuedHere(claims map[string]any) error {
	if iss := claims["iss"]; !isOneOf(iss, v.issuer) && !(v.issuer == googleIssuer && isOneOf(iss, googleSpelled)) {
		return faultIssuer
	}
	return nil
}

// issuerAndTimes checks what every token of the provider must have. notBefore bounds iat, life what lies between iat and exp.
func (v *verifier) issuerAndTimes(claims map[string]any, notBefore time.Time, life time.Duration) error {
	if err := v.issuedHere(claims); err != nil {
		return err
	}
	now := v.now()
	exp, err := timeClaim(claims, "exp", faultExpiry)
	if err != nil {
		return err
	}
	iat, err := timeClaim(claims, "iat", faultIssued)
	if err != nil {
		return err
	}
	switch {
	case !now.Before(exp.Add(clockSkew)):
		return fmt.Errorf("%w: %s ago by our clock", faultExpiry, now.Sub(exp).Round(time.Second))
	case iat.After(now.Add(clockSkew)):
		return fmt.Errorf("%w: %s ahead of our clock", faultIssued, iat.Sub(now).Round(time.Second))
	case iat.Before(notBefore):
		return fmt.Errorf("%w: %s ago by our clock, which is too old", faultIssued, now.Sub(iat).Round(time.Second))
	case !exp.After(iat) || exp.Sub(iat) > life:
		return fmt.Errorf("%w: %s after iat", faultExpiry, exp.Sub(iat))
	}
	if _, present := claims["nbf"]; present {
		nbf, err := timeClaim(claims, "nbf", faultNotBefore)
		if err != nil {
			return err
		}
		if nbf.After(now.Add(clockSkew)) {
			return fmt.Errorf("%w: %s ahead of our clock", faultNotBefore, nbf.Sub(now).Round(time.Second))
		}
	}
	return nil
}

// timeClaim reads an integer NumericDate (RFC 7519 section 2) within the years that a login can have to do with.
func timeClaim(claims map[string]any, name string, fault tokenFault) (time.Time, error) {
	number, _ := claims[name].(json.Number)
	seconds, err := number.Int64()
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return time.Time{}, fmt.Errorf("%w: missing, or not a whole number of seconds", fault)
	}
	return time.Unix(seconds, 0), nil
}

// identifier holds a sub to OpenID Connect Core 2 and to what PostgreSQL can store; a sid and a jti too.
func identifier(claims map[string]any, name string, required bool, fault tokenFault) error {
	value, present := claims[name]
	if !present && !required {
		return nil
	}
	text, _ := value.(string)
	if text == "" || len(text) > maxIdentifier || strings.TrimSpace(text) != text || strings.ContainsFunc(text, unicode.IsControl) {
		return fault
	}
	return nil
}

func isOneOf(value any, allowed ...string) bool {
	text, ok := value.(string)
	return ok && slices.Contains(allowed, text)
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
