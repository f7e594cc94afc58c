package bridgetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512" // registers SHA-384 and SHA-512; crypto/rsa registers SHA-256
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// SignJWT makes a compact JWS (RFC 7515) of whatever it is given, also of what no library would sign. The header and the claims are
// values for json.Marshal, or a []byte that is taken as it is (duplicate members, broken JSON). The header's alg decides how the key is used:
//
//	none                 no key, empty signature
//	HS256 HS384 HS512    []byte
//	RS256 … PS512        *rsa.PrivateKey
//	ES256 ES384 ES512    *ecdsa.PrivateKey
//	EdDSA                ed25519.PrivateKey
func SignJWT(key, header, claims any) (string, error) {
	headerJSON, err := rawJSON(header)
	if err != nil {
		return "", fmt.Errorf("header: %w", err)
	}
	claimsJSON, err := rawJSON(claims)
	if err != nil {
		return "", fmt.Errorf("claims: %w", err)
	}
	var h struct {
		Alg string `json:"alg"`
	}
	if err := json.Unmarshal(headerJSON, &h); err != nil {
		return "", fmt.Errorf("header: %w", err)
	}
	input := base64.RawURLEncoding.EncodeToString(headerJSON) + "." + base64.RawURLEncoding.EncodeToString(claimsJSON)
	signature, err := signBytes(key, h.Alg, []byte(input))
	if err != nil {
		return "", err
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func rawJSON(v any) ([]byte, error) {
	if raw, ok := v.([]byte); ok {
		return raw, nil
	}
	return json.Marshal(v)
}

func signBytes(key any, alg string, input []byte) ([]byte, error) {
	if alg == "none" {
		return nil, nil
	}
	hash, ok := algHash[alg]
	if !ok {
		return nil, fmt.Errorf("no such alg: %q", alg)
	}
	var digest []byte
	if hash != 0 {
		h := hash.New()
		h.Write(input)
		digest = h.Sum(nil)
	}
	switch key := key.(type) {
	case []byte:
		if alg[:2] == "HS" {
			mac := hmac.New(hash.New, key)
			mac.Write(input)
			return mac.Sum(nil), nil
		}
	case *rsa.PrivateKey:
		switch alg[:2] {
		case "RS":
			return rsa.SignPKCS1v15(rand.Reader, key, hash, digest)
		case "PS":
			return rsa.SignPSS(rand.Reader, key, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
	case *ecdsa.PrivateKey:
		if alg[:2] == "ES" {
			return signECDSA(key, digest)
		}
	case ed25519.PrivateKey:
		if alg == "EdDSA" {
			return ed25519.Sign(key, input), nil
		}
	}
	return nil, fmt.Errorf("alg %s cannot use a %T", alg, key)
}

// algHash gives the hash of each algorithm of RFC 7518; 0 for EdDSA, which hashes by itself.
var algHash = map[string]crypto.Hash{
	"HS256": crypto.SHA256, "HS384": crypto.SHA384, "HS512": crypto.SHA512,
	"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512,
	"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512,
	"ES256": crypto.SHA256, "ES384": crypto.SHA384, "ES512": crypto.SHA512,
	"EdDSA": 0,
}

// signECDSA writes r and s as numbers of fixed length (RFC 7518 section 3.4), not as ASN.1.
func signECDSA(key *ecdsa.PrivateKey, digest []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, key, digest)
	if err != nil {
		return nil, err
	}
	size := (key.Curve.Params().BitSize + 7) / 8
	signature := make([]byte, 2*size)
	r.FillBytes(signature[:size])
	s.FillBytes(signature[size:])
	return signature, nil
}
