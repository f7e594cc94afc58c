package bridge

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
)

// What a vault keeps. Each is sealed for its purpose and its session, so that no row can be given another one's (SC-10).
const (
	sealedIDToken      = "id_token"
	sealedRefreshToken = "refresh_token"
)

// A vault seals the provider's tokens that the database keeps: a copy of the database is no login at the provider. The keys are those of the
// cookies: the first seals, all open.
type vault struct{ keys []cipher.AEAD }

func newVault(keys []Secret) (*vault, error) {
	v := &vault{}
	for _, key := range keys {
		aead, err := newAEAD(key, "oidc-bridge provider token 1")
		if err != nil {
			return nil, err
		}
		v.keys = append(v.keys, aead)
	}
	return v, nil
}

// seal returns nil, which is NULL, when there is nothing to seal.
func (v *vault) seal(session, purpose string, token Secret) []byte {
	if token.Empty() {
		return nil
	}
	return v.keys[0].Seal(nil, nil, []byte(token.Reveal()), vaultPlace(session, purpose))
}

// open returns what was sealed for the session and the purpose; nil holds nothing.
func (v *vault) open(session, purpose string, sealed []byte) (Secret, error) {
	if sealed == nil {
		return Secret{}, nil
	}
	for _, key := range v.keys {
		if plain, err := key.Open(nil, nil, sealed, vaultPlace(session, purpose)); err == nil {
			return NewSecret(string(plain)), nil
		}
	}
	return Secret{}, errors.New("sealed by none of our keys, or for another place")
}

func vaultPlace(session, purpose string) []byte { return []byte(purpose + " " + session) }

// newAEAD derives a key of its own for the purpose.
func newAEAD(key Secret, purpose string) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, []byte(key.Reveal()), nil, purpose, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
