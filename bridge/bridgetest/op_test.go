package bridgetest

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

func TestSmoke(t *testing.T) {
	op, err := StartOP(t.Context(), OPOptions{IssuerPath: "/realms/test", Personas: []Persona{{Subject: "alice", Name: "Alice", IDToken: map[string]any{"email": "a@x"}}},
		Clients: []Client{{ID: "b:ridge", Secret: "s:%+/ü", RedirectURIs: []string{"http://rp/cb"}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ctx := oidc.ClientContext(t.Context(), hc)
	for _, alg := range algs {
		op.Set(func(b *Behaviour) { b.Alg = alg })
		p, err := oidc.NewProvider(ctx, op.Issuer())
		if err != nil {
			t.Fatal(err)
		}
		conf := oauth2.Config{ClientID: "b:ridge", ClientSecret: "s:%+/ü", Endpoint: p.Endpoint(), RedirectURL: "http://rp/cb", Scopes: []string{"openid"}}
		v := oauth2.GenerateVerifier()
		u := conf.AuthCodeURL("st", oauth2.S256ChallengeOption(v), oidc.Nonce("n"))
		resp, err := hc.PostForm(u, url.Values{"subject": {"alice"}})
		if err != nil {
			t.Fatal(err)
		}
		loc, _ := resp.Location()
		tok, err := conf.Exchange(ctx, loc.Query().Get("code"), oauth2.VerifierOption(v))
		if err != nil {
			t.Fatal(err)
		}
		idt, err := p.Verifier(&oidc.Config{ClientID: "b:ridge"}).Verify(ctx, tok.Extra("id_token").(string))
		if err != nil {
			t.Fatal(err)
		}
		if err := idt.VerifyAccessToken(tok.AccessToken); err != nil {
			t.Error(err)
		}
		if idt.Nonce != "n" || !strings.HasPrefix(loc.String(), "http://rp/cb?code=") {
			t.Error(loc, idt)
		}
		ui, err := p.UserInfo(ctx, conf.TokenSource(ctx, tok))
		if err != nil || ui.Subject != "alice" {
			t.Error(ui, err)
		}
	}
}
