package bridgetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// algs are what the provider can sign with. Each has a key of its own in the key set, so that a token signed with any of them verifies
// against the set and only the relying party's pinned algorithm stands in its way. The RSA ones share a modulus.
var algs = []string{"RS256", "RS512", "PS256", "ES256", "EdDSA"}

// opKeys is one generation of signing keys.
type opKeys struct {
	generation int
	rsa        *rsa.PrivateKey
	ecdsa      *ecdsa.PrivateKey
	ed25519    ed25519.PrivateKey
}

func newOPKeys(generation int) (*opKeys, error) {
	k := &opKeys{generation: generation}
	var err error
	if k.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	if k.ecdsa, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	_, k.ed25519, err = ed25519.GenerateKey(rand.Reader)
	return k, err
}

// signer returns the key of alg, nil if it is none of algs.
func (k *opKeys) signer(alg string) crypto.Signer {
	switch alg {
	case "RS256", "RS512", "PS256":
		return k.rsa
	case "ES256":
		return k.ecdsa
	case "EdDSA":
		return k.ed25519
	}
	return nil
}

func (k *opKeys) kid(alg string) string { return fmt.Sprintf("%s-%d", alg, k.generation) }

func (k *opKeys) public() []jose.JSONWebKey {
	var keys []jose.JSONWebKey
	for _, alg := range algs {
		keys = append(keys, jose.JSONWebKey{Key: k.signer(alg).Public(), KeyID: k.kid(alg), Algorithm: alg, Use: "sig"})
	}
	return keys
}

// RotateKeys makes new signing keys. The old public keys stay in the key set if keepOld is set; otherwise only the new ones are there.
// Key ids are the algorithm and a running number: RS256-1, after the first rotation RS256-2.
func (op *OP) RotateKeys(keepOld bool) error {
	op.mu.Lock()
	defer op.mu.Unlock()
	next, err := newOPKeys(op.keys[0].generation + 1)
	if err != nil {
		return fmt.Errorf("rotating keys: %w", err)
	}
	if keepOld {
		op.keys = append([]*opKeys{next}, op.keys...)
	} else {
		op.keys = []*opKeys{next}
	}
	return nil
}

// Key returns the current private key of an algorithm (RS256, RS512, PS256, ES256 or EdDSA; nil for others), for [SignJWT].
func (op *OP) Key(alg string) crypto.Signer { return op.currentKeys().signer(alg) }

// KeyID returns the current key id of an algorithm.
func (op *OP) KeyID(alg string) string { return op.currentKeys().kid(alg) }

func (op *OP) currentKeys() *opKeys {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.keys[0]
}

// KeySet returns the public key set as its endpoint serves it without misbehaviour.
func (op *OP) KeySet() []byte {
	op.mu.Lock()
	defer op.mu.Unlock()
	set := jose.JSONWebKeySet{}
	for _, k := range op.keys {
		set.Keys = append(set.Keys, k.public()...)
	}
	body, err := json.Marshal(set)
	if err != nil {
		panic(err) // public keys of supported types
	}
	return body
}

// Sign signs any claims as the provider signs its ID tokens. Members of header replace the defaults (alg, kid, typ); nil removes one.
// It uses the current key of the header's alg, or [Behaviour].SigningKey.
func (op *OP) Sign(header, claims map[string]any) (string, error) {
	b := op.behaviour()
	alg := b.Alg
	if a, ok := header["alg"].(string); ok {
		alg = a
	}
	keys := op.currentKeys()
	h := map[string]any{"alg": alg, "kid": keys.kid(alg), "typ": "JWT"}
	for name, value := range header {
		h[name] = value
		if value == nil {
			delete(h, name)
		}
	}
	if b.SigningKey != nil {
		return SignJWT(b.SigningKey, h, claims)
	}
	return SignJWT(keys.signer(alg), h, claims)
}

// leftHash is at_hash (OpenID Connect Core 3.1.3.6): the left half of the hash that belongs to alg.
func leftHash(alg, value string) string {
	hash := algHash[alg]
	if hash == 0 {
		hash = crypto.SHA512 // Ed25519
	}
	h := hash.New()
	h.Write([]byte(value))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:hash.Size()/2])
}
