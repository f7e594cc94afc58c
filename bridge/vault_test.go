package bridge

import (
	"bytes"
	"encoding/base64"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestAttack_SC10_ProviderTokensAtRest: what is sealed for one session and purpose opens there and nowhere else, by every key of the list.
func TestAttack_SC10_ProviderTokensAtRest(t *testing.T) {
	t.Parallel()
	key := func(c byte) Secret { return NewSecret(string(bytes.Repeat([]byte{c}, 32))) }
	vaultOf := func(keys ...Secret) *vault {
		v, err := newVault(keys)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const session, other = "5e0c9a5c-8a52-4b4c-9d0c-3f1f0f6f7a01", "5e0c9a5c-8a52-4b4c-9d0c-3f1f0f6f7a02"
	old, rotated, replaced := vaultOf(key('a')), vaultOf(key('b'), key('a')), vaultOf(key('b'))
	sealed := old.seal(session, sealedRefreshToken, NewSecret("the token"))
	for name, v := range map[string]*vault{"its key": old, "its key, now the second": rotated} {
		if token, err := v.open(session, sealedRefreshToken, sealed); err != nil || token.Reveal() != "the token" {
			t.Errorf("%s: %q, %v", name, token.Reveal(), err)
		}
	}
	if again := old.seal(session, sealedRefreshToken, NewSecret("the token")); bytes.Equal(again, sealed) || bytes.Contains(sealed, []byte("the token")) {
		t.Error("sealed without a random nonce, or not at all")
	}
	if nothing := old.seal(session, sealedIDToken, Secret{}); nothing != nil {
		t.Errorf("nothing was sealed as %d bytes", len(nothing))
	}
	if token, err := old.open(session, sealedIDToken, nil); err != nil || !token.Empty() {
		t.Errorf("NULL opened as %q, %v", token.Reveal(), err)
	}
	refused := 0
	refuse := func(what string, v *vault, session, purpose string, sealed []byte) {
		t.Helper()
		refused++
		if token, err := v.open(session, purpose, sealed); err == nil || !token.Empty() {
			t.Errorf("%s: opened as %q", what, token.Reveal())
		}
	}
	refuse("another row", old, other, sealedRefreshToken, sealed)
	refuse("another purpose", old, session, sealedIDToken, sealed)
	refuse("another purpose, and the border moved", old, " "+session, sealedRefreshToken, sealed)
	refuse("an old key that was removed", replaced, session, sealedRefreshToken, sealed)
	refuse("empty", old, session, sealedRefreshToken, []byte{})
	refuse("base64", old, session, sealedRefreshToken, []byte(base64.StdEncoding.EncodeToString(sealed)))
	for i := range sealed {
		for bit := range 8 {
			flipped := bytes.Clone(sealed)
			flipped[i] ^= 1 << bit
			refuse("a bit flipped", old, session, sealedRefreshToken, flipped)
		}
		refuse("cut short", old, session, sealedRefreshToken, sealed[:i])
	}
	bridgetest.Tried(t, refused)
}
