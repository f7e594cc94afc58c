package bridge

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode"

	"github.com/go-jose/go-jose/v4"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

const (
	minSecretBytes = 32               // RFC 7518 section 3.2; PostgREST 13 and newer refuse to start with less
	maxTokenBytes  = 4 << 10          // what fits into a header everywhere
	issuedAgo      = 5 * time.Second  // iat lies in the past: some PostgREST versions refuse a future iat without leeway
	cacheMargin    = 30 * time.Second // a cached answer ends this long before its token
)

// exampleSecrets are long enough, and in everybody's hands: documentation, tutorials and default installations.
var exampleSecrets = []string{
	"reallyreallyreallyreallyverysafe",
	"super-secret-jwt-token-with-at-least-32-characters-long",
	"your-super-secret-jwt-token-with-at-least-32-characters-long",
	"your-256-bit-secret-your-256-bit-secret",
	"a-string-secret-at-least-256-bits-long",
	"this-is-a-very-long-secret-at-least-32-characters",
	"secretsecretsecretsecretsecretsecret",
	"changeme",
	"0123456789abcdef0123456789abcdef",
	"01234567890123456789012345678901",
	"12345678901234567890123456789012",
	"abcdefghijklmnopqrstuvwxyz123456",
}

// signingKey turns jwt_secret into the HMAC key, as PostgREST does with jwt-secret and jwt-secret-is-base64. It refuses what PostgREST
// would read as something else than a plain secret, and what an attacker could guess.
func signingKey(secret string, isBase64 bool) ([]byte, error) {
	switch {
	case strings.HasPrefix(strings.TrimSpace(secret), "{"):
		return nil, errors.New("looks like a JWK or JWKS; this must be the text of a shared secret")
	case strings.Contains(secret, "-----BEGIN"):
		return nil, errors.New("looks like a PEM file; PostgREST would take its text as a password")
	case secret != strings.TrimSpace(secret):
		return nil, errors.New("begins or ends with white space")
	}
	for _, example := range exampleSecrets {
		if strings.Contains(strings.ToLower(secret), example) {
			return nil, errors.New("is a well-known example secret")
		}
	}
	key := []byte(secret)
	if isBase64 {
		var err error
		// The replacements are PostgREST's: it takes base64url too, and '.' as padding.
		if key, err = base64.StdEncoding.Strict().DecodeString(strings.NewReplacer("-", "+", "_", "/", ".", "=").Replace(secret)); err != nil {
			return nil, errors.New("is not base64, but jwt_secret_is_base64 is set")
		}
	} else if strings.ContainsFunc(secret, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsControl(r) }) {
		return nil, errors.New("has characters outside printable ASCII")
	}
	if len(key) < minSecretBytes {
		return nil, fmt.Errorf("has %d bytes, at least %d are needed", len(key), minSecretBytes)
	}
	distinct := map[byte]bool{}
	for _, b := range key {
		distinct[b] = true
	}
	if len(distinct) < 8 {
		return nil, errors.New("repeats a few characters")
	}
	return key, nil
}

// A Signer makes the access tokens that PostgREST accepts. It serves the same token again in the first half of its life, as long as the same
// would be decided: so a page that asks too often costs no signature (TK-11).
type Signer struct {
	jose     jose.Signer
	issuer   string
	audience string
	ttl      time.Duration
	now      func() time.Time
	served   *recent[servedFor, servedToken]
}

// servedFor is all that a token depends on: the session with its claims, the row, and what the rules made of them.
type servedFor struct{ session, userID, role, rule, rulesHash string }

type servedToken struct {
	AccessToken
	again time.Time // until then
}

const servedEntries = 10000 // tokens remembered, twice over: some 20 MB at 1 KB each

// An AccessToken is a signed token and when it ends.
type AccessToken struct {
	JWT     string
	Expires time.Time // whole seconds
}

// NewSigner makes the signer of HS256 tokens. There is no `kid`: PostgREST 13 and newer answer 401 to one when they have a plain secret.
func NewSigner(c *Config, now func() time.Time) (*Signer, error) {
	key := jose.SigningKey{Algorithm: jose.HS256, Key: []byte(c.Signing.Key.Reveal())}
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, err
	}
	return &Signer{
		jose: signer, issuer: c.PublicURL.String(), audience: c.Signing.Audience, ttl: c.Signing.TTL, now: now,
		served: newRecent[servedFor, servedToken](servedEntries),
	}, nil
}

// Expires is when a token for the decision ends: after the shortest of the configured life and the decision's own, and never after the
// session.
func (s *Signer) Expires(session Session, decision mapping.Decision) time.Time {
	ttl := s.ttl
	if own := decision.TTL(); own > 0 {
		ttl = min(ttl, own)
	}
	expires := s.now().Add(ttl)
	if !decision.IsAnonymous() && session.Expires.Before(expires) {
		expires = session.Expires
	}
	return expires.Truncate(time.Second)
}

// Token returns a token for the grant: the one that was served before, or a new one. ErrNoSession: it would end within a second, as the session
// does.
func (s *Signer) Token(g Grant) (AccessToken, error) {
	role, _ := g.Decision.Role()
	key := servedFor{g.Session.ID, g.Session.UserID, role, g.Decision.Rule(), g.RulesHash}
	now := s.now()
	// A clock that was set back would make an old token young again.
	token, found := s.served.get(key)
	if !found || !now.Before(token.again) || token.Expires.Sub(now) > s.ttl {
		signed, err := s.sign(g.Session, g.Decision)
		if err != nil {
			return AccessToken{}, err
		}
		token = servedToken{signed, now.Add(signed.Expires.Sub(now) / 2)}
		s.served.put(key, token)
	}
	if token.Expires.Sub(now) < time.Second {
		return AccessToken{}, ErrNoSession
	}
	return token.AccessToken, nil
}

// sign makes the token. The role comes out of the decision: what was not granted cannot be signed. Claims are those of product.md; the
// decision's extra claims cannot replace them.
func (s *Signer) sign(session Session, decision mapping.Decision) (AccessToken, error) {
	role, granted := decision.Role()
	if !granted || role == "" {
		return AccessToken{}, fmt.Errorf("signing without a granted role")
	}
	expires := s.Expires(session, decision)
	claims := map[string]any{}
	maps.Copy(claims, decision.Token())
	maps.Copy(claims, map[string]any{
		"role": role,
		"iss":  s.issuer,
		"aud":  s.audience,
		"iat":  s.now().Add(-issuedAgo).Unix(),
		"exp":  expires.Unix(),
		"jti":  rand.Text(),
	})
	if !decision.IsAnonymous() { // whose token is nobody's: in SQL, user_id is null as it is without a token
		claims["user_id"], claims["sub"], claims["sid"] = session.UserID, session.UserID, session.ID
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return AccessToken{}, err
	}
	jwt, err := s.compact(payload)
	if err != nil {
		return AccessToken{}, err
	}
	if len(jwt) > maxTokenBytes {
		return AccessToken{}, fmt.Errorf("%w: %d bytes, at most %d: shorten the rules' `token` section", ErrTokenTooLarge, len(jwt), maxTokenBytes)
	}
	return AccessToken{JWT: jwt, Expires: expires}, nil
}

// ended is a token that ended an hour ago and says nothing: to whoever verifies it, its signature is all.
func (s *Signer) ended() (string, error) {
	return s.compact(fmt.Appendf(nil, `{"exp":%d}`, s.now().Add(-time.Hour).Unix()))
}

func (s *Signer) compact(payload []byte) (string, error) {
	signed, err := s.jose.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
