package bridgetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"
)

const callback = "http://127.0.0.1:9/callback?x=1" // nobody listens there: the browser stops before it

// relyingParty is an independent client of the provider: go-oidc and x/oauth2.
type relyingParty struct {
	oauth2.Config
	provider *oidc.Provider
	ctx      context.Context // carries the HTTP client
}

func testOP(t *testing.T, change ...func(*OPOptions)) *OP {
	o := OPOptions{
		IssuerPath: "/realms/test",
		Personas: []Persona{
			{
				Subject: "alice", Name: "Alice", Note: "an admin",
				IDToken: map[string]any{"email": "alice@example.com"}, UserInfo: map[string]any{"groups": []string{"staff"}},
			},
			{Subject: "bob", Name: "Bob", AccessToken: map[string]any{"realm_access": map[string]any{"roles": []string{"admin"}}}},
		},
		Clients: []Client{
			{ID: "br:idge", Secret: "s:%+/ü", RedirectURIs: []string{callback}, PostLogoutRedirectURIs: []string{"http://127.0.0.1:9/bye"}},
			{ID: "other", Secret: "secret", RedirectURIs: []string{callback}},
		},
	}
	for _, f := range change {
		f(&o)
	}
	return NewOP(t, o)
}

func newRelyingParty(t *testing.T, op *OP) *relyingParty {
	t.Helper()
	ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}})
	provider, err := oidc.NewProvider(ctx, op.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	endpoint := provider.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	return &relyingParty{
		Config:   oauth2.Config{ClientID: "br:idge", ClientSecret: "s:%+/ü", Endpoint: endpoint, RedirectURL: callback, Scopes: []string{"openid"}},
		provider: provider, ctx: ctx,
	}
}

// authorize logs a persona in and returns the parameters of the redirect to the callback. subject "" presses Cancel.
func (rp *relyingParty) authorize(t *testing.T, subject string, options ...oauth2.AuthCodeOption) url.Values {
	t.Helper()
	b := NewBrowser()
	page := stopAtCallback(t, b, rp.AuthCodeURL("the state", options...), func(ctx context.Context, page *Page) (*Page, error) {
		if subject == "" {
			return b.Submit(ctx, page, "Cancel", nil)
		}
		return b.ChoosePersona(ctx, page, subject)
	})
	return page.Query()
}

// stopAtCallback opens a URL, does something on the page, and returns the URL of the callback, to which the browser could not connect.
func stopAtCallback(t *testing.T, b *Browser, address string, act func(context.Context, *Page) (*Page, error)) *url.URL {
	t.Helper()
	page, err := b.Open(t.Context(), address)
	if err == nil {
		page, err = act(t.Context(), page)
	}
	if err == nil {
		t.Fatalf("stopped at %s: %d %s", page.URL, page.Status, page.Text())
	}
	_, rest, ok := strings.Cut(err.Error(), "GET ")
	address, _, _ = strings.Cut(rest, ": ")
	u, errURL := url.Parse(address)
	if !ok || errURL != nil || !strings.HasPrefix(address, "http://127.0.0.1:9/callback?x=1&") {
		t.Fatal(err)
	}
	return u
}

func (rp *relyingParty) login(t *testing.T, subject string) (*oauth2.Token, *oidc.IDToken) {
	t.Helper()
	verifier := oauth2.GenerateVerifier()
	answer := rp.authorize(t, subject, oauth2.S256ChallengeOption(verifier), oidc.Nonce("the nonce"))
	token, err := rp.Exchange(rp.ctx, answer.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	idToken, err := rp.verify(token)
	if err != nil {
		t.Fatal(err)
	}
	return token, idToken
}

func (rp *relyingParty) verify(token *oauth2.Token) (*oidc.IDToken, error) {
	raw, _ := token.Extra("id_token").(string)
	return rp.provider.Verifier(&oidc.Config{ClientID: rp.ClientID}).Verify(rp.ctx, raw)
}

func TestLogin(t *testing.T) {
	op := testOP(t)
	for _, alg := range algs {
		for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
			op.Set(func(b *Behaviour) { b.Alg = alg })
			rp := newRelyingParty(t, op)
			rp.Endpoint.AuthStyle = style
			token, idToken := rp.login(t, "alice")
			if err := idToken.VerifyAccessToken(token.AccessToken); err != nil {
				t.Errorf("%s: at_hash: %v", alg, err)
			}
			var claims map[string]any
			if err := idToken.Claims(&claims); err != nil {
				t.Fatal(err)
			}
			if claims["sub"] != "alice" || claims["nonce"] != "the nonce" || claims["email"] != "alice@example.com" ||
				claims["sid"] == "" || claims["auth_time"] == nil {
				t.Errorf("%s: claims %v", alg, claims)
			}
			info, err := rp.provider.UserInfo(rp.ctx, oauth2.StaticTokenSource(token))
			if err != nil {
				t.Fatal(err)
			}
			var groups struct{ Groups []string }
			if err := info.Claims(&groups); err != nil || info.Subject != "alice" || !slices.Equal(groups.Groups, []string{"staff"}) {
				t.Errorf("%s: UserInfo %v %v %v", alg, info.Subject, groups, err)
			}
		}
	}
	last := op.Requests("token")[op.Calls("token")-1]
	if last.Form.Get("client_secret") == "" || last.Form.Get("code_verifier") == "" || op.Calls("userinfo") != 2*len(algs) {
		t.Errorf("the last token request was recorded as %v, %d calls of UserInfo", last.Form, op.Calls("userinfo"))
	}
	op.ForgetRequests()
	if op.Calls("token") != 0 {
		t.Error("requests are still counted")
	}
}

func TestAuthorizationResponse(t *testing.T) {
	op := testOP(t)
	rp := newRelyingParty(t, op)
	answer := rp.authorize(t, "alice", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	if answer.Get("state") != "the state" || answer.Get("iss") != op.Issuer() || answer.Get("code") == "" || answer.Get("x") != "1" {
		t.Errorf("got %v", answer)
	}
	answer = rp.authorize(t, "", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	if answer.Get("error") != "access_denied" || answer.Get("state") != "the state" || answer.Get("iss") != op.Issuer() || answer.Has("code") {
		t.Errorf("after Cancel: %v", answer)
	}
	op.Set(func(b *Behaviour) { b.NoIssParameter = true })
	if answer = rp.authorize(t, "alice", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())); answer.Has("iss") {
		t.Errorf("NoIssParameter: %v", answer)
	}
}

func TestJWTAccessToken(t *testing.T) {
	op := testOP(t)
	rp := newRelyingParty(t, op)
	token, idToken := rp.login(t, "bob")
	access, err := rp.provider.Verifier(&oidc.Config{ClientID: "account"}).Verify(rp.ctx, token.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Azp, Sid, Typ string
		RealmAccess   struct{ Roles []string } `json:"realm_access"`
	}
	var sid struct{ Sid string }
	if err := errors.Join(access.Claims(&claims), idToken.Claims(&sid)); err != nil {
		t.Fatal(err)
	}
	if claims.Azp != "br:idge" || claims.Typ != "Bearer" || claims.Sid != sid.Sid || !slices.Equal(claims.RealmAccess.Roles, []string{"admin"}) {
		t.Errorf("got %+v", claims)
	}
}

func TestAuthorizeRefuses(t *testing.T) {
	op := testOP(t)
	good := url.Values{
		"client_id": {"br:idge"}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid"}, "state": {"s"},
		"code_challenge": {s256("v")}, "code_challenge_method": {"S256"},
	}
	tests := []struct {
		name, parameter, value string
		want                   string // error code in a redirect, or "400" for a page
	}{
		{"unknown client", "client_id", "x", "400"},
		{"foreign redirect URI", "redirect_uri", "http://127.0.0.1:9/callback", "400"},
		{"other response type", "response_type", "token", "unsupported_response_type"},
		{"no openid", "scope", "profile", "invalid_scope"},
		{"other response mode", "response_mode", "form_post", "invalid_request"},
		{"no challenge", "code_challenge", "", "invalid_request"},
		{"plain challenge", "code_challenge_method", "plain", "invalid_request"},
		{"prompt none", "prompt", "none", "login_required"},
	}
	for _, tt := range tests {
		query := maps.Clone(good)
		query.Set(tt.parameter, tt.value)
		address := op.Issuer() + "/authorize?" + query.Encode()
		if tt.want == "400" {
			page := must(t)(NewBrowser().Open(t.Context(), address))
			if page.Status != 400 || len(page.History) != 0 {
				t.Errorf("%s: %d after %d redirects", tt.name, page.Status, len(page.History))
			}
			continue
		}
		answer := stopAtCallback(t, NewBrowser(), address, nil).Query()
		if answer.Get("error") != tt.want || answer.Get("state") != "s" {
			t.Errorf("%s: %v", tt.name, answer)
		}
	}
}

func TestTokenRefuses(t *testing.T) {
	now := time.Now()
	op := testOP(t, func(o *OPOptions) { o.Now = func() time.Time { return now } })
	rp := newRelyingParty(t, op)
	verifier := oauth2.GenerateVerifier()
	code := func() string { return rp.authorize(t, "alice", oauth2.S256ChallengeOption(verifier)).Get("code") }
	used := code()
	if _, err := rp.Exchange(rp.ctx, used, oauth2.VerifierOption(verifier)); err != nil {
		t.Fatal(err)
	}
	expired := code()
	now = now.Add(61 * time.Second)
	failed := code()
	tests := []struct {
		name   string
		code   string
		option oauth2.AuthCodeOption // nil: the right verifier
		change func(*oauth2.Config)
		want   string
	}{
		{name: "wrong verifier", code: failed, option: oauth2.VerifierOption("wrong"), want: "invalid_grant"},
		{name: "code of a failed attempt", code: failed, want: "invalid_grant"},
		{name: "no verifier", code: code(), option: oauth2.SetAuthURLParam("x", "y"), want: "invalid_grant"},
		{name: "used code", code: used, want: "invalid_grant"},
		{name: "expired code", code: expired, want: "invalid_grant"},
		{name: "invented code", code: "x", want: "invalid_grant"},
		{name: "other redirect URI", code: code(), change: func(c *oauth2.Config) { c.RedirectURL = "http://x" }, want: "invalid_grant"},
		{name: "other client", code: code(), change: func(c *oauth2.Config) { c.ClientID, c.ClientSecret = "other", "secret" }, want: "invalid_grant"},
		{name: "wrong secret", code: code(), change: func(c *oauth2.Config) { c.ClientSecret = "x" }, want: "invalid_client"},
		{name: "wrong secret in the form", code: code(), change: func(c *oauth2.Config) {
			c.ClientSecret, c.Endpoint.AuthStyle = "x", oauth2.AuthStyleInParams
		}, want: "invalid_client"},
		{name: "both ways at once", code: code(), option: oauth2.SetAuthURLParam("client_secret", "s:%+/ü"), want: "invalid_client"},
		{name: "other grant", code: code(), option: oauth2.SetAuthURLParam("grant_type", "password"), want: "unsupported_grant_type"},
	}
	for _, tt := range tests {
		config := rp.Config
		if tt.change != nil {
			tt.change(&config)
		}
		if tt.option == nil {
			tt.option = oauth2.VerifierOption(verifier)
		}
		_, err := config.Exchange(rp.ctx, tt.code, tt.option)
		var refused *oauth2.RetrieveError
		if !errors.As(err, &refused) || refused.ErrorCode != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestUserInfoRefuses(t *testing.T) {
	now := time.Now()
	op := testOP(t, func(o *OPOptions) { o.Now = func() time.Time { return now } })
	rp := newRelyingParty(t, op)
	token, _ := rp.login(t, "alice")
	if _, err := rp.provider.UserInfo(rp.ctx, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "x"})); err == nil {
		t.Error("an invented token was accepted")
	}
	now = now.Add(time.Hour)
	if _, err := rp.provider.UserInfo(rp.ctx, oauth2.StaticTokenSource(token)); err == nil {
		t.Error("an expired token was accepted")
	}
}

func TestEndSession(t *testing.T) {
	op := testOP(t)
	rp := newRelyingParty(t, op)
	token, _ := rp.login(t, "alice")
	hint := token.Extra("id_token").(string)
	foreign := sign(t, must2(newOPKeys(1)).rsa, map[string]any{"alg": "RS256", "kid": op.KeyID("RS256")}, map[string]any{"aud": "br:idge"})
	const bye = "http://127.0.0.1:9/bye"
	tests := []struct {
		name       string
		parameters url.Values
		status     int // 0: back to the client
	}{
		{"nothing asked", url.Values{}, 200},
		{"with hint", url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {bye}, "state": {"s"}}, 0},
		{"with client id", url.Values{"client_id": {"br:idge"}, "post_logout_redirect_uri": {bye}, "state": {"s"}}, 0},
		{"foreign URI", url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {bye + "x"}}, 400},
		{"foreign hint", url.Values{"id_token_hint": {foreign}, "post_logout_redirect_uri": {bye}}, 400},
		{"no client", url.Values{"post_logout_redirect_uri": {bye}}, 400},
	}
	for _, tt := range tests {
		page, err := NewBrowser().Open(t.Context(), op.Issuer()+"/end_session?"+tt.parameters.Encode())
		switch {
		case tt.status == 0 && (err == nil || !strings.Contains(err.Error(), bye+"?state=s")):
			t.Errorf("%s: %v, %v", tt.name, page, err)
		case tt.status != 0 && (err != nil || page.Status != tt.status):
			t.Errorf("%s: %v, %v", tt.name, page, err)
		}
	}
}

func TestDiscoveryAndPages(t *testing.T) {
	op := testOP(t, func(o *OPOptions) { o.Name = "Example <SSO>" })
	if !strings.HasPrefix(op.Issuer(), "http://127.0.0.1:") || !strings.HasSuffix(op.Issuer(), "/realms/test") {
		t.Errorf("issuer %s", op.Issuer())
	}
	page := must(t)(NewBrowser().Open(t.Context(), op.Issuer()+"/.well-known/openid-configuration"))
	var metadata map[string]any
	if err := page.JSON(&metadata); err != nil {
		t.Fatal(err)
	}
	if metadata["issuer"] != op.Issuer() || metadata["authorization_response_iss_parameter_supported"] != true {
		t.Errorf("metadata %v", metadata)
	}
	rp := newRelyingParty(t, op)
	page = must(t)(NewBrowser().Open(t.Context(), rp.AuthCodeURL("s", oauth2.S256ChallengeOption("v"))))
	want := "Example <SSO> Who would you like to be? You are signing in to br:idge . A Alice an admin B Bob Cancel " +
		"This is a demo provider. It asks for no password and everybody on it is made up."
	if diff := cmp.Diff(want, page.Text()); diff != "" || page.Title() != "Sign in · Example <SSO>" {
		t.Errorf("title %q, text %s", page.Title(), diff)
	}
}

func TestSignJWTTakesBytesAsTheyAre(t *testing.T) {
	token, err := SignJWT(nil, []byte(`{"alg":"none","alg":"none"}`), []byte(`{"sub":"a","SUB":"b"`))
	if err != nil {
		t.Fatal(err)
	}
	if token != "eyJhbGciOiJub25lIiwiYWxnIjoibm9uZSJ9.eyJzdWIiOiJhIiwiU1VCIjoiYiI." {
		t.Errorf("got %s", token)
	}
	for name, key := range map[string]any{"RS256": []byte("x"), "HS256": nil, "XX": nil} {
		if _, err := SignJWT(key, map[string]any{"alg": name}, json.RawMessage("{}")); err == nil {
			t.Errorf("%s with %T was signed", name, key)
		}
	}
}

func TestProviderOverTLS(t *testing.T) {
	certificate, pem, err := NewCertificate("localhost")
	if err != nil {
		t.Fatal(err)
	}
	op := NewOP(t, OPOptions{Addr: "localhost:0", TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}})
	if !strings.HasPrefix(op.Issuer(), "https://localhost:") {
		t.Errorf("issuer %s", op.Issuer())
	}
	b := NewBrowser()
	if _, err := b.Open(t.Context(), op.Issuer()+"/jwks"); err == nil {
		t.Error("an unknown certificate was trusted")
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	b.Transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	if page := must(t)(b.Open(t.Context(), op.Issuer()+"/jwks")); page.Status != 200 {
		t.Errorf("status %d", page.Status)
	}
}
