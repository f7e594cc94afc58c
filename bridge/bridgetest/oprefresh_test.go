package bridgetest

import (
	"errors"
	"testing"

	"golang.org/x/oauth2"
)

// refresh uses a refresh token of the relying party.
func (rp *relyingParty) refresh(config oauth2.Config, refreshToken string) (*oauth2.Token, error) {
	return config.TokenSource(rp.ctx, &oauth2.Token{RefreshToken: refreshToken}).Token()
}

func TestRefreshTokens(t *testing.T) {
	op := testOP(t)
	rp := newRelyingParty(t, op)
	if token, _ := rp.login(t, "alice"); token.RefreshToken != "" {
		t.Error("a refresh token without offline_access")
	}
	rp.Scopes = append(rp.Scopes, "offline_access")
	token, first := rp.login(t, "alice")
	old := token.RefreshToken
	op.SetPersonas(Persona{Subject: "alice", IDToken: map[string]any{"email": "alice@example.net"}})
	token, err := rp.refresh(rp.Config, old)
	if err != nil {
		t.Fatal(err)
	}
	again, err := rp.verify(token)
	if err != nil {
		t.Fatal(err)
	}
	var was, is map[string]any
	if err := errors.Join(first.Claims(&was), again.Claims(&is), again.VerifyAccessToken(token.AccessToken)); err != nil {
		t.Fatal(err)
	}
	if _, has := is["nonce"]; has || is["sub"] != "alice" || is["auth_time"] != was["auth_time"] || is["sid"] != was["sid"] || is["email"] != "alice@example.net" {
		t.Errorf("refreshed %v, was %v", is, was)
	}
	if _, err := rp.provider.UserInfo(rp.ctx, oauth2.StaticTokenSource(token)); err != nil {
		t.Error(err)
	}
	if token.RefreshToken == "" || token.RefreshToken == old {
		t.Error("not rotated")
	}

	refused := func(what string, config oauth2.Config, refreshToken string) {
		t.Helper()
		var answer *oauth2.RetrieveError
		if _, err := rp.refresh(config, refreshToken); !errors.As(err, &answer) || answer.ErrorCode != "invalid_grant" {
			t.Errorf("%s: %v", what, err)
		}
	}
	other := rp.Config
	other.ClientID, other.ClientSecret = "other", "secret"
	refused("another client", other, token.RefreshToken)
	refused("invented", rp.Config, "x")
	if token, err = rp.refresh(rp.Config, token.RefreshToken); err != nil {
		t.Fatal(err)
	}
	refused("used twice", rp.Config, old)
	refused("the newest, after another one was used twice", rp.Config, token.RefreshToken)
	if _, err := rp.provider.UserInfo(rp.ctx, oauth2.StaticTokenSource(token)); err == nil {
		t.Error("the access token outlives the login")
	}

	token, _ = rp.login(t, "alice")
	op.SetPersonas()
	refused("somebody who is gone", rp.Config, token.RefreshToken)
}

func TestRefreshTokensOfOtherProviders(t *testing.T) {
	op := testOP(t)
	rp := newRelyingParty(t, op)
	op.Set(func(b *Behaviour) { b.RefreshTokens, b.KeepRefreshTokens = true, true })
	token, _ := rp.login(t, "alice")
	for range 2 {
		// x/oauth2 keeps the old one when the answer has none.
		next, err := rp.refresh(rp.Config, token.RefreshToken)
		if err != nil || next.RefreshToken != token.RefreshToken || next.AccessToken == token.AccessToken {
			t.Errorf("%v %v", next, err)
		}
	}
}
