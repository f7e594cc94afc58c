package bridgetest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// verifyKey is a key of PostgREST's jwt-secret.
type verifyKey struct {
	kid, alg, use string // "": the key says nothing
	key           any    // []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// parseSecret reads jwt-secret as PostgREST does: as a JWKS, else as a JWK, else the text itself is an HMAC key for HS256. So a broken
// JWKS and a PEM file silently become passwords.
func parseSecret(text string, isBase64 bool, version int) ([]verifyKey, error) {
	if text == "" {
		return nil, nil
	}
	secret := []byte(text)
	if isBase64 {
		var err error
		// The URL-safe alphabet, too, with "." for padding.
		standard := strings.NewReplacer("-", "+", "_", "/", ".", "=").Replace(strings.TrimSpace(text))
		if secret, err = base64.StdEncoding.DecodeString(standard); err != nil {
			return nil, fmt.Errorf("jwt-secret is not base64: %w", err)
		}
	}
	if version >= 13 && len(secret) < 32 {
		return nil, errors.New("the JWT secret must be at least 32 characters long")
	}
	var set struct{ Keys []json.RawMessage }
	if json.Unmarshal(secret, &set) == nil && set.Keys != nil {
		if keys, err := parseJWKs(set.Keys); err == nil {
			return keys, nil
		}
	}
	if keys, err := parseJWKs([]json.RawMessage{secret}); err == nil {
		return keys, nil
	}
	return []verifyKey{{alg: "HS256", key: secret}}, nil
}

func parseJWKs(list []json.RawMessage) ([]verifyKey, error) {
	keys := make([]verifyKey, 0, len(list))
	for _, text := range list {
		key, err := parseJWK(text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// base64Bytes is a JSON string of base64url without padding, as JWKs hold them.
type base64Bytes []byte

func (b *base64Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = base64.RawURLEncoding.DecodeString(string(text))
	return err
}

func parseJWK(text []byte) (verifyKey, error) {
	var jwk struct {
		Kty, Kid, Alg, Use, Crv string
		K, N, E, X, Y           base64Bytes
	}
	if err := json.Unmarshal(text, &jwk); err != nil {
		return verifyKey{}, err
	}
	key := verifyKey{kid: jwk.Kid, alg: jwk.Alg, use: jwk.Use}
	switch {
	case jwk.Kty == "oct" && len(jwk.K) > 0:
		key.key = []byte(jwk.K)
	case jwk.Kty == "RSA" && len(jwk.N) > 0 && len(jwk.E) > 0 && len(jwk.E) <= 4:
		key.key = &rsa.PublicKey{N: new(big.Int).SetBytes(jwk.N), E: int(new(big.Int).SetBytes(jwk.E).Int64())}
	case jwk.Kty == "EC":
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[jwk.Crv]
		if curve == nil {
			return key, fmt.Errorf("curve %q", jwk.Crv)
		}
		public, err := ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, jwk.X...), jwk.Y...))
		if err != nil {
			return key, err
		}
		key.key = public
	case jwk.Kty == "OKP" && jwk.Crv == "Ed25519" && len(jwk.X) == ed25519.PublicKeySize:
		key.key = ed25519.PublicKey(jwk.X)
	default:
		return key, fmt.Errorf("key type %q", jwk.Kty)
	}
	return key, nil
}
