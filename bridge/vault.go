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
// cookies.
type vault struct{ sealer }

func newVault(keys []Secret) (*vault, error) {
	s, err := newSealer(keys, "oidc-bridge provider token 1")
	return &vault{s}, err
}

// seal returns nil, which is NULL, when there is nothing to seal.
func (v *vault) seal(session, purpose string, token Secret) []byte {
	if token.Empty() {
		return nil
	}
	return v.sealer.seal(vaultPlace(session, purpose), []byte(token.Reveal()))
}

// open returns what was sealed for the session and the purpose; nil holds nothing.
func (v *vault) open(session, purpose string, sealed []byte) (Secret, error) {
	if sealed == nil {
		return Secret{}, nil
	}
	plain, ok := v.sealer.open(vaultPlace(session, purpose), sealed)
	if !ok {
		return Secret{}, errors.New("sealed by none of our keys, or for another place")
	}
	return NewSecret(string(plain)), nil
}

func vaultPlace(session, purpose string) string { return purpose + " " + session }

// A sealer seals for one purpose, each thing for its place: what was sealed for another opens nowhere (SC-10, SC-11). The first key seals, all
// open.
type sealer struct{ keys []cipher.AEAD }

// newSealer derives keys of their own for the purpose.
func newSealer(keys []Secret, purpose string) (s sealer, err error) {
	for _, key := range keys {
		derived, err := hkdf.Key(sha256.New, []byte(key.Reveal()), nil, purpose, 32)
		if err != nil {
			return sealer{}, err
		}
		block, err := aes.NewCipher(derived)
		if err != nil {
			return sealer{}, err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return sealer{}, err
		}
		s.keys = append(s.keys, aead)
	}
	return s, nil
}

func (s sealer) seal(place string, plain []byte) []byte {
	return s.keys[0].Seal(nil, nil, plain, []byte(place))
}

func (s sealer) open(place string, sealed []byte) (plain []byte, ok bool) {
	for _, key := range s.keys {
		if plain, err := key.Open(nil, nil, sealed, []byte(place)); err == nil {
			return plain, true
		}
	}
	return nil, false
}
