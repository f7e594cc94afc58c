package bridgetest

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Every switch makes go-oidc, which is strict there, refuse the login; or its effect is looked at.
func TestBehaviour(t *testing.T) {
	op := testOP(t)
	rp := newRelyingParty(t, op)
	verifier := oauth2.GenerateVerifier()
	login := func() (*oauth2.Token, error) {
		answer := rp.authorize(t, "bob", oauth2.S256ChallengeOption(verifier))
		token, err := rp.Exchange(rp.ctx, answer.Get("code"), oauth2.VerifierOption(verifier))
		if err == nil {
			_, err = rp.verify(token)
		}
		return token, err
	}
	for name, set := range map[string]func(*Behaviour){
		"claims":      func(b *Behaviour) { b.IDTokenClaims = func(c map[string]any) { c["aud"] = "x" } },
		"header":      func(b *Behaviour) { b.IDTokenHeader = func(h map[string]any) { h["kid"] = "x" } },
		"alg none":    func(b *Behaviour) { b.IDTokenHeader = func(h map[string]any) { h["alg"] = "none" } },
		"signing key": func(b *Behaviour) { b.SigningKey = must2(newOPKeys(9)).rsa },
		"HS256": func(b *Behaviour) {
			b.SigningKey = []byte("k")
			b.IDTokenHeader = func(h map[string]any) { h["alg"] = "HS256" }
		},
		"raw ID token": func(b *Behaviour) {
			b.RawIDToken = func(good string, sign func(header, claims map[string]any) string) string {
				return sign(nil, map[string]any{"iss": "x"})
			}
		},
		"token response": func(b *Behaviour) { b.TokenResponse = func(r map[string]any) { delete(r, "id_token") } },
		"key set":        func(b *Behaviour) { b.JWKS = func([]byte) []byte { return []byte(`{"keys":[]}`) } },
		"whole endpoint": func(b *Behaviour) {
			b.Handle["token"] = func(w http.ResponseWriter, r *http.Request) bool {
				w.WriteHeader(http.StatusTeapot)
				return true
			}
		},
	} {
		rp = newRelyingParty(t, op) // with an empty key cache
		op.Set(set)
		if _, err := login(); err == nil {
			t.Errorf("%s: no effect", name)
		}
		op.Set(func(b *Behaviour) { *b = Behaviour{} })
		if _, err := login(); err != nil {
			t.Errorf("%s: still there after a reset: %v", name, err)
		}
	}

	op.Set(func(b *Behaviour) {
		b.Discovery = func(m map[string]any) { m["issuer"] = "x" }
		b.AuthorizationResponse = func(v url.Values) { v.Set("iss", "x") }
		b.AccessTokenClaims = func(c map[string]any) { c["aud"] = "x" }
		b.UserInfo = func(c map[string]any) { c["sub"] = "x" }
		b.Handle["userinfo"] = func(http.ResponseWriter, *http.Request) bool { return false }
	})
	if _, err := oidc.NewProvider(rp.ctx, op.Issuer()); err == nil {
		t.Error("discovery: no effect")
	}
	if answer := rp.authorize(t, "bob", oauth2.S256ChallengeOption(verifier)); answer.Get("iss") != "x" {
		t.Errorf("authorization response: %v", answer)
	}
	token, err := login()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rp.provider.Verifier(&oidc.Config{ClientID: "account"}).Verify(rp.ctx, token.AccessToken); err == nil {
		t.Error("access token: no effect")
	}
	if info, err := rp.provider.UserInfo(rp.ctx, oauth2.StaticTokenSource(token)); err != nil || info.Subject != "x" {
		t.Errorf("UserInfo: %v, %v", info, err)
	}

	op.Set(func(b *Behaviour) { *b = Behaviour{SkipPKCE: true, AutoLogin: "alice"} })
	answer := stopAtCallback(t, NewBrowser(), rp.AuthCodeURL("s"), nil).Query()
	if _, err := rp.Exchange(rp.ctx, answer.Get("code")); err != nil {
		t.Errorf("without PKCE and page: %v", err)
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestKeyRotation(t *testing.T) {
	op := testOP(t)
	rp := newRelyingParty(t, op)
	old, _ := rp.login(t, "alice")
	if err := op.RotateKeys(true); err != nil {
		t.Fatal(err)
	}
	rp.login(t, "alice")
	if _, err := newRelyingParty(t, op).verify(old); err != nil {
		t.Errorf("old key kept: %v", err)
	}
	if err := op.RotateKeys(false); err != nil {
		t.Fatal(err)
	}
	rp.login(t, "alice")
	if _, err := newRelyingParty(t, op).verify(old); err == nil {
		t.Error("the old key was to be dropped")
	}
	if op.KeyID("RS256") != "RS256-3" || op.Key("RS256") == nil || op.Key("HS256") != nil {
		t.Errorf("current key %s", op.KeyID("RS256"))
	}
}

func TestCloseAndRestart(t *testing.T) {
	op := testOP(t)
	rp := newRelyingParty(t, op)
	for range 2 {
		if err := op.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := oidc.NewProvider(rp.ctx, op.Issuer()); err == nil {
			t.Fatal("a closed provider answers")
		}
		if err := op.Restart(); err != nil {
			t.Fatal(err)
		}
		rp.login(t, "alice") // with the keys that rp has cached
	}
}

func TestPersonasAndClientsCanChange(t *testing.T) {
	op := testOP(t)
	op.SetPersonas(Persona{Subject: "carol", Name: "Carol"})
	op.AddClient(Client{ID: "br:idge", Secret: "new", RedirectURIs: []string{callback}})
	rp := newRelyingParty(t, op)
	rp.ClientSecret = "new"
	rp.login(t, "carol")
	page := must(t)(NewBrowser().Open(t.Context(), rp.AuthCodeURL("s", oauth2.S256ChallengeOption("v"))))
	if _, err := NewBrowser().ChoosePersona(t.Context(), page, "alice"); err == nil {
		t.Error("alice is still there")
	}
}
