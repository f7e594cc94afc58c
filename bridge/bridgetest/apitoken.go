package bridgetest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tokenRules are PostgREST's rules for a token, see postgrest.md. They use none of the code that signs: neither go-jose nor SignJWT.
type tokenRules struct {
	version  int
	keys     []verifyKey // none: no jwt-secret is configured
	audience string      // "": any
	now      func() time.Time
}

// claimSet keeps the claims' own JSON, so that SQL sees numbers as they were written.
type claimSet map[string]json.RawMessage

const allowedSkew = 30 // seconds

// verify returns the claims of a token, or the error that PostgREST answers with.
func (rules *tokenRules) verify(token string) (claimSet, *apiError) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, badToken("Expected 3 parts in JWT; got " + strconv.Itoa(len(parts)))
	}
	var header struct {
		Alg  string          `json:"alg"`
		Kid  *string         `json:"kid"`
		Crit json.RawMessage `json:"crit"`
	}
	if err := decodePart(parts[0], &header); err != nil {
		return nil, badToken("JWT header: " + err.Error())
	}
	if rules.version < 13 && header.Crit != nil {
		return nil, badToken("JWT header: unknown crit")
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, badToken("JWT signature: " + err.Error())
	}
	input := []byte(parts[0] + "." + parts[1])
	signed := slices.ContainsFunc(rules.keys, func(k verifyKey) bool {
		if rules.version >= 13 && header.Kid != nil && *header.Kid != k.kid {
			return false
		}
		return k.use != "enc" && (k.alg == "" || k.alg == header.Alg) && rules.supports(header.Alg) &&
			verifySignature(k.key, header.Alg, input, signature)
	})
	if !signed {
		return nil, badToken("None of the keys was able to decode the JWT")
	}
	var claims claimSet
	if err := decodePart(parts[1], &claims); err != nil || claims == nil {
		return nil, rules.badClaim("Parsing claims failed")
	}
	return claims, rules.checkClaims(claims)
}

func decodePart(part string, v any) error {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// supports leaves out RSA-PSS, which went with the change of libraries in version 13.
func (rules *tokenRules) supports(alg string) bool {
	return rules.version < 13 || !strings.HasPrefix(alg, "PS")
}

func badToken(details string) *apiError {
	return &apiError{status: 401, Code: "PGRST301", Message: "No suitable key or wrong key type", Details: details, invalidToken: true}
}

// badClaim has a code of its own since version 13.
func (rules *tokenRules) badClaim(message string) *apiError {
	e := &apiError{status: 401, Code: "PGRST303", Message: message, invalidToken: true}
	if rules.version < 13 {
		e.Code = "PGRST301"
	}
	return e
}

func (rules *tokenRules) checkClaims(claims claimSet) *apiError {
	now := rules.now().Unix()
	for _, check := range []struct {
		claim, message string
		fails          func(seconds int64) bool
	}{
		{"exp", "JWT expired", func(exp int64) bool { return now-allowedSkew > exp }},
		{"nbf", "JWT not yet valid", func(nbf int64) bool { return now+allowedSkew < nbf }},
		{"iat", "JWT issued at future", func(iat int64) bool { return now+allowedSkew < iat }},
	} {
		value := claims[check.claim]
		if isNull(value) {
			continue
		}
		seconds, err := wholeSeconds(value)
		if err != nil {
			return rules.badClaim("The JWT '" + check.claim + "' claim must be a number")
		}
		if check.fails(seconds) {
			return rules.badClaim(check.message)
		}
	}
	return rules.checkAudience(claims["aud"])
}

func (rules *tokenRules) checkAudience(aud json.RawMessage) *apiError {
	if isNull(aud) {
		return nil
	}
	var one string
	var list []string
	if json.Unmarshal(aud, &one) == nil {
		list = []string{one}
	} else if json.Unmarshal(aud, &list) != nil {
		return rules.badClaim("The JWT 'aud' claim must be a string or an array of strings")
	}
	if len(list) == 0 && rules.version >= 13 {
		return nil
	}
	if !slices.ContainsFunc(list, func(a string) bool { return rules.audience == "" || a == rules.audience }) {
		return rules.badClaim("JWT not in audience")
	}
	return nil
}

func isNull(value json.RawMessage) bool { return value == nil || string(value) == "null" }

// wholeSeconds reads a number. One that is no integer, or too big, reads as 0, which for exp is long ago.
func wholeSeconds(value json.RawMessage) (int64, error) {
	f, err := strconv.ParseFloat(string(value), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, err
	}
	if f != math.Trunc(f) || math.Abs(f) >= 1<<63 {
		return 0, nil
	}
	return int64(f), nil
}

func verifySignature(key any, alg string, input, signature []byte) bool {
	if len(alg) != 5 {
		return false
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	if alg == "EdDSA" {
		public, ok := key.(ed25519.PublicKey)
		return ok && ed25519.Verify(public, input, signature)
	}
	if hash == 0 {
		return false
	}
	h := hash.New()
	h.Write(input)
	digest := h.Sum(nil)
	switch key := key.(type) {
	case []byte:
		mac := hmac.New(hash.New, key)
		mac.Write(input)
		return alg[:2] == "HS" && hmac.Equal(mac.Sum(nil), signature)
	case *rsa.PublicKey:
		return alg[:2] == "RS" && rsa.VerifyPKCS1v15(key, hash, digest, signature) == nil ||
			alg[:2] == "PS" && rsa.VerifyPSS(key, hash, digest, signature, nil) == nil
	case *ecdsa.PublicKey:
		half := len(signature) / 2
		size := (key.Curve.Params().BitSize + 7) / 8
		return alg[:2] == "ES" && half == size && len(signature) == 2*size &&
			ecdsa.Verify(key, digest, new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
	}
	return false
}

// roleStep is one step of jwt-role-claim-key: a member's name, or an index if index >= 0.
type roleStep struct {
	name  string
	index int
}

// parseRoleKey reads `.role`, `.a."b c"[0]`, and JSONPath's `$.role` and `$['role']` of version 16.
func parseRoleKey(text string) ([]roleStep, error) {
	var steps []roleStep
	rest := strings.TrimPrefix(text, "$")
	for rest != "" {
		step := roleStep{index: -1}
		var ok bool
		switch {
		case strings.HasPrefix(rest, `."`):
			step.name, rest, ok = strings.Cut(rest[2:], `"`)
		case strings.HasPrefix(rest, "['"):
			step.name, rest, ok = strings.Cut(rest[2:], "']")
		case strings.HasPrefix(rest, "["):
			var digits string
			digits, rest, ok = strings.Cut(rest[1:], "]")
			n, err := strconv.Atoi(digits)
			step.index, ok = n, ok && err == nil && n >= 0
		case strings.HasPrefix(rest, "."):
			end := strings.IndexAny(rest[1:], ".[") + 1
			if end == 0 {
				end = len(rest)
			}
			step.name, rest, ok = rest[1:end], rest[end:], end > 1
		}
		if !ok {
			return nil, errors.New("jwt-role-claim-key: cannot read " + strconv.Quote(text))
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// role returns the role claim; ok is false if there is none. A role that is no string becomes its JSON.
func (claims claimSet) role(path []roleStep) (role string, ok bool) {
	value, err := json.Marshal(claims)
	if err != nil {
		return "", false
	}
	for _, step := range path {
		if step.index >= 0 {
			var list []json.RawMessage
			if json.Unmarshal(value, &list) != nil || step.index >= len(list) {
				return "", false
			}
			value = list[step.index]
			continue
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(value, &object) != nil {
			return "", false
		}
		if value, ok = object[step.name]; !ok {
			return "", false
		}
	}
	if err := json.Unmarshal(value, &role); err != nil || bytes.Equal(value, []byte("null")) {
		return string(value), true
	}
	return role, true
}
