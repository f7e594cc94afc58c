package bridge

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	keysMaxAge   = time.Hour        // a key that the provider removed stops working within this time (JD-10)
	keysDropAge  = 24 * time.Hour   // and within this one when it cannot be asked
	keysCooldown = 30 * time.Second // between fetches for tokens that anybody may have sent (JD-06)
	retryPause   = 2 * time.Second  // after a failure
	minRSABits   = 2048             // RFC 7518 section 3.3; go-jose reads none above 4096
	maxTriedKeys = 10               // for a token without kid (JD-09)
	maxKeys      = 1000             // in a set
)

var (
	errUnknownKey   = errors.New("no published key fits")
	errBadSignature = errors.New("signature does not match")
)

// origin of a token: who could have sent it.
type tokenOrigin bool

const (
	fromProvider tokenOrigin = true  // it came from the token endpoint
	fromAnybody  tokenOrigin = false // it came in a request
)

// A keySet is the published keys of one provider, those of them that may sign with its algorithm.
//
// It is fetched when it is an hour old, and when a token has a kid that it does not know; for tokens that anybody may have sent, at most once
// in keysCooldown. One fetch is under way at a time. The last good set is kept when a fetch fails. A bad signature under a known kid fetches
// nothing.
type keySet struct {
	client *http.Client
	alg    jose.SignatureAlgorithm
	now    func() time.Time
	log    documentLog
	turn   chan struct{} // held by whoever fetches

	mu      sync.Mutex
	keys    []jose.JSONWebKey // the last good set
	fetched time.Time         // when it came
	begun   int               // fetches so far
	ended   time.Time         // of the last one
	failure error             // of the last one
}

func newKeySet(client *http.Client, alg jose.SignatureAlgorithm, log documentLog, now func() time.Time) *keySet {
	return &keySet{client: client, alg: alg, now: now, log: log, turn: make(chan struct{}, 1)}
}

// verify returns the payload of a compact JWS whose signature one of the keys at url made.
func (k *keySet) verify(ctx context.Context, url, jwt string, origin tokenOrigin) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(jwt, []jose.SignatureAlgorithm{k.alg})
	if err != nil {
		return nil, fmt.Errorf("%w: %v", faultForm, err)
	}
	k.mu.Lock()
	asked := k.begun
	k.mu.Unlock()
	payload, err, final := k.try(jws)
	if final {
		return payload, err
	}
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-k.turn }()
	if payload, err, final = k.try(jws); final { // another request fetched them meanwhile
		return payload, err
	}
	failure := k.fetch(ctx, url, asked, origin)
	payload, err, _ = k.try(jws)
	if errors.Is(err, errUnknownKey) && failure != nil {
		return nil, failure
	}
	return payload, err
}

// try verifies with the keys that we have. The result is final unless newer keys may change it.
func (k *keySet) try(jws *jose.JSONWebSignature) (payload []byte, err error, final bool) {
	kid := jws.Signatures[0].Header.KeyID
	k.mu.Lock()
	keys, age := k.keys, k.now().Sub(k.fetched)
	k.mu.Unlock()
	tried := 0
	for _, key := range keys {
		if age > keysDropAge || tried == maxTriedKeys || kid != "" && key.KeyID != kid {
			continue
		}
		tried++
		if payload, err = jws.Verify(key.Key); err == nil {
			return payload, nil, age <= keysMaxAge
		}
	}
	if tried == 0 {
		return nil, errUnknownKey, false
	}
	// Without kid, the key that signed may be one that we have not seen yet.
	return nil, errBadSignature, age <= keysMaxAge && kid != ""
}

// fetch replaces the set, unless it was fetched since the caller asked, or rests. It returns why there is no newer one.
func (k *keySet) fetch(ctx context.Context, url string, asked int, origin tokenOrigin) error {
	k.mu.Lock()
	rest := k.now().Sub(k.ended)
	switch {
	case k.begun > asked, k.failure != nil && rest < retryPause, origin == fromAnybody && rest < keysCooldown:
		defer k.mu.Unlock()
		return k.failure
	}
	k.begun++
	k.mu.Unlock()

	// Not the caller's context: others wait for this answer too. The client has its own deadline.
	_, body, err := get(context.WithoutCancel(ctx), k.client, url, "")
	var keys []jose.JSONWebKey
	if err == nil {
		var skipped []error
		keys, skipped, err = usableKeys(body, k.alg)
		if len(skipped) > 0 { // one line, however many there are
			k.log.warn("jwks", errors.Join(skipped...).Error())
		}
	}
	if err != nil {
		err = fmt.Errorf("%w: key set: %w", ErrProviderDown, err)
		k.log.failed("jwks", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended, k.failure = k.now(), err
	if err == nil {
		k.keys, k.fetched = keys, k.now()
	}
	return err
}

// usableKeys reads a JWKS (RFC 7517). A key that is broken, private, symmetric, too weak or meant for something else is skipped, with the
// reason; keys for other algorithms are none of our business. A set without any usable key is an error, so that it does not replace a good
// one (JD-07, JD-11).
func usableKeys(body []byte, alg jose.SignatureAlgorithm) (keys []jose.JSONWebKey, skipped []error, err error) {
	var set map[string]json.RawMessage // unlike a struct, it tells "keys" from "Keys"
	var list []json.RawMessage
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, nil, errors.New("not a JSON object")
	}
	if err := json.Unmarshal(set["keys"], &list); err != nil {
		return nil, nil, errors.New("its keys are not a list")
	}
	if len(list) > maxKeys {
		return nil, nil, fmt.Errorf("more than %d keys", maxKeys)
	}
	for i, raw := range list {
		key, err := usableKey(raw, alg)
		switch {
		case err != nil:
			skipped = append(skipped, fmt.Errorf("key %d: %w", i+1, err))
		case key != nil:
			keys = append(keys, *key)
		}
	}
	if len(keys) == 0 {
		return nil, skipped, fmt.Errorf("none of %d keys can verify %s", len(list), alg)
	}
	return keys, skipped, nil
}

// usableKey returns no key where it is a good one that is simply not for this.
func usableKey(raw []byte, alg jose.SignatureAlgorithm) (*jose.JSONWebKey, error) {
	members, err := decodeObject(raw)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} { // RFC 7518 sections 6.2.2, 6.3.2 and 6.4
		if _, private := members[name]; private {
			return nil, fmt.Errorf("it publishes %q, which is secret", name)
		}
	}
	for name, wanted := range map[string]string{"use": "sig", "alg": string(alg)} {
		if value, present := members[name]; present && !isOneOf(value, wanted) {
			return nil, nil
		}
	}
	if operations, present := members["key_ops"]; present {
		if list, ok := operations.([]any); !ok || !slices.Contains(list, any("verify")) {
			return nil, nil
		}
	}
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(raw); errors.Is(err, jose.ErrUnsupportedKeyType) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if !key.Valid() || !key.IsPublic() {
		return nil, errors.New("its numbers are not a public key")
	}
	kid, present := members["kid"]
	if _, isText := kid.(string); present && !isText {
		return nil, errors.New("its kid is not a string")
	}
	ok, err := fits(key.Key, alg)
	if err != nil || !ok {
		return nil, err
	}
	return &key, nil
}

// fits reports whether the type of the key is the one that the algorithm needs: the key decides, never the token's header (RFC 8725 3.1).
func fits(key any, alg jose.SignatureAlgorithm) (bool, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if !strings.HasPrefix(string(alg), "RS") && !strings.HasPrefix(string(alg), "PS") {
			return false, nil
		}
		if bits := key.N.BitLen(); bits < minRSABits || key.E < 3 || key.E%2 == 0 {
			return false, fmt.Errorf("an RSA key of %d bits with exponent %d", bits, key.E)
		}
		return true, nil
	case *ecdsa.PublicKey:
		bits := map[jose.SignatureAlgorithm]int{jose.ES256: 256, jose.ES384: 384, jose.ES512: 521}[alg]
		return key.Curve.Params().BitSize == bits, nil
	case ed25519.PublicKey:
		return alg == jose.EdDSA, nil
	}
	return false, nil
}
