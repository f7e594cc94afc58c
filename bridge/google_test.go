package bridge

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// googleDiscovery is what https://accounts.google.com/.well-known/openid-configuration says: endpoints on four hosts, no end_session_endpoint.
const googleDiscovery = `{
  "issuer": "https://accounts.google.com",
  "authorization_endpoint": "https://accounts.google.com/o/oauth2/v2/auth",
  "device_authorization_endpoint": "https://oauth2.googleapis.com/device/code",
  "token_endpoint": "https://oauth2.googleapis.com/token",
  "userinfo_endpoint": "https://openidconnect.googleapis.com/v1/userinfo",
  "revocation_endpoint": "https://oauth2.googleapis.com/revoke",
  "jwks_uri": "https://www.googleapis.com/oauth2/v3/certs",
  "response_types_supported": ["code", "token", "id_token", "code token", "code id_token", "token id_token", "code token id_token", "none"],
  "response_modes_supported": ["query", "fragment", "form_post"],
  "subject_types_supported": ["public"],
  "id_token_signing_alg_values_supported": ["RS256"],
  "scopes_supported": ["openid", "email", "profile"],
  "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
  "claims_supported": ["aud", "email", "email_verified", "exp", "family_name", "given_name", "iat", "iss", "name", "picture", "sub"],
  "code_challenge_methods_supported": ["plain", "S256"],
  "grant_types_supported": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code", "urn:ietf:params:oauth:grant-type:jwt-bearer"]
}`

// Where the test provider has what Google has at these addresses.
var googleEndpoints = map[string]string{
	"accounts.google.com/o/oauth2/v2/auth":     "/authorize",
	"oauth2.googleapis.com/token":              "/token",
	"openidconnect.googleapis.com/v1/userinfo": "/userinfo",
	"www.googleapis.com/oauth2/v3/certs":       "/jwks",
}

const (
	googleClient   = "407408718192-bridge.apps.googleusercontent.com"
	googleCallback = "https://app.example.com/auth/callback/google"
)

// google is a connection with preset google, whose addresses lead to a provider of ours that answers as Google does.
func google(t *testing.T, personas ...bridgetest.Persona) (*Provider, *bridgetest.OP) {
	t.Helper()
	op := bridgetest.NewOP(t, bridgetest.OPOptions{
		Personas: personas,
		Clients:  []bridgetest.Client{{ID: googleClient, Secret: "GOCSPX-secret", RedirectURIs: []string{googleCallback}}},
	})
	op.Set(func(b *bridgetest.Behaviour) {
		b.NoIssParameter = true
		b.IDTokenClaims = func(claims map[string]any) {
			claims["iss"], claims["azp"] = googleIssuer, googleClient
			delete(claims, "sid")
			delete(claims, "auth_time")
		}
	})
	certificate, pem, err := bridgetest.NewCertificate("accounts.google.com", "oauth2.googleapis.com", "openidconnect.googleapis.com", "www.googleapis.com")
	if err != nil {
		t.Fatal(err)
	}
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(googleHosts(t, op))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)

	config, findings := LoadConfig("config.yaml", []byte(`
public_url: https://app.example.com/auth
database: { url: postgres://bridge@localhost/app }
signing: { jwt_secret: 0f8b3c1d5e7a92640f8b3c1d5e7a9264 }
cookie_keys: ["S2V5IGZvciB0ZXN0cyBvZiB0aGUgY29tbWFuZCBsaW4="]
providers:
  google:
    preset: google
    client_id: `+googleClient+`
    client_secret: GOCSPX-secret
    ca_file: `+caFile+`
`), os.LookupEnv)
	if strictyaml.Errors(findings) {
		t.Fatal(findings)
	}
	p, err := NewProvider(config, config.Providers[0], bridgetest.NewLog(t).Logger(), NewMetrics("test"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	// The names stay Google's; where they lead is the only thing that is not as in production.
	p.client.Transport.(boundedTransport).next.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	return p, op
}

// googleHosts are Google's hosts in front of the provider.
func googleHosts(t *testing.T, op *bridgetest.OP) http.Handler {
	t.Helper()
	target, err := url.Parse(op.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Path = googleEndpoints[r.In.Host+r.In.URL.Path]
		r.SetURL(target)
	}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch asked := r.Host + r.URL.Path; {
		case asked == "accounts.google.com/.well-known/openid-configuration":
			w.Header().Set("Content-Type", "application/json")
			w.Write([]byte(googleDiscovery))
		case googleEndpoints[asked] != "":
			proxy.ServeHTTP(w, r)
		default:
			t.Errorf("asked for %s", asked)
			http.NotFound(w, r)
		}
	})
}

const googleRules = `
version: 1
providers:
  google:
    preset: google
    authoritative_for: [example.com]
roles: { editor: {}, customer: {} }
rules:
  - name: staff, role kept in the users row
    when: { hd: example.com, email_domain: example.com }
    role: { from: users, allow: [customer, editor], default: customer }
default: deny
users:
  email: { from: email }
  name: { from: name }
`

// logInAtGoogle goes through a whole login, and returns who it is and what the rules make of them.
func logInAtGoogle(t *testing.T, p *Provider, op *bridgetest.OP, subject string, row mapping.Row) (Identity, mapping.Decision, error) {
	t.Helper()
	rules, findings := mapping.Load("rules.yaml", []byte(googleRules))
	if rules == nil {
		t.Fatal(findings)
	}
	op.Set(func(b *bridgetest.Behaviour) { b.AutoLogin = subject })
	login := NewLoginState(p.ID, "/", time.Now())
	target, err := p.AuthorizationURL(t.Context(), login)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(target, "https://accounts.google.com/o/oauth2/v2/auth?") {
		t.Errorf("people are sent to %s", target)
	}
	answer, err := p.client.Get(target)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	back, err := answer.Location()
	if err != nil {
		t.Fatalf("status %d: %v", answer.StatusCode, err)
	}
	authorization, err := authorizationResponse(back.RawQuery)
	if err != nil || !strings.HasPrefix(back.String(), googleCallback+"?") {
		t.Fatalf("%s: %v", back, err)
	}
	if err := p.checkResponse(t.Context(), authorization); err != nil {
		t.Fatal(err)
	}
	identity, err := p.Exchange(t.Context(), rules, login, authorization.code)
	if err != nil {
		return Identity{}, mapping.Decision{}, err
	}
	claims := rules.Capture(p.ID, identity.Tokens)
	return identity, rules.Decide(mapping.Input{Provider: p.ID, Claims: claims, Row: row, Now: time.Now()}), nil
}

func TestGoogle(t *testing.T) {
	t.Parallel()
	account := func(subject, email string, more map[string]any) bridgetest.Persona {
		claims := map[string]any{
			"email": email, "email_verified": true, "name": "Ann Example", "given_name": "Ann", "family_name": "Example",
			"picture": "https://lh3.googleusercontent.com/a/photo=s96-c",
		}
		for name, value := range more {
			claims[name] = value
		}
		return bridgetest.Persona{Subject: subject, Name: email, IDToken: claims}
	}
	p, op := google(t,
		account("110169484474386276334", "ann@example.com", map[string]any{"hd": "example.com"}),
		account("110169484474386276335", "someone@gmail.com", nil),
		account("110169484474386276336", "boss@rivals.example", map[string]any{"hd": "rivals.example"}),
		account("110169484474386276337", "ann@example.com", nil), // an address of ours at a consumer account
	)
	for _, spelling := range []string{googleIssuer, "accounts.google.com"} {
		op.Set(func(b *bridgetest.Behaviour) {
			before := b.IDTokenClaims
			b.IDTokenClaims = func(claims map[string]any) { before(claims); claims["iss"] = spelling }
		})
		for row, want := range map[string]string{"": "customer", "editor": "editor"} {
			identity, decision, err := logInAtGoogle(t, p, op, "110169484474386276334", mapping.Row{Known: true, Role: row})
			if err != nil {
				t.Fatalf("iss %s: %v", spelling, err)
			}
			// Both spellings are one issuer: the same person.
			if role, _ := decision.Role(); role != want || identity.Issuer != googleIssuer || identity.Subject != "110169484474386276334" {
				t.Errorf("iss %s, role %q in the row: %s of %s gets %v, want %s", spelling, row, identity.Subject, identity.Issuer, decision, want)
			}
		}
	}
	if calls := op.Calls("userinfo"); calls != 0 {
		t.Errorf("UserInfo was asked %d times; the ID token has everything", calls)
	}
	for subject, who := range map[string]string{
		"110169484474386276335": "an account of gmail.com", "110169484474386276336": "another Workspace", "110169484474386276337": "a consumer account with an address of ours",
	} {
		if _, decision, err := logInAtGoogle(t, p, op, subject, mapping.Row{}); err != nil || decision.Outcome() != mapping.Refused {
			t.Errorf("%s: %v, error %v", who, decision, err)
		}
	}
	op.Set(func(b *bridgetest.Behaviour) {
		before := b.IDTokenClaims
		b.IDTokenClaims = func(claims map[string]any) { before(claims); claims["iss"] = "https://accounts.google.com/" }
	})
	if _, _, err := logInAtGoogle(t, p, op, "110169484474386276334", mapping.Row{}); err == nil || !strings.Contains(err.Error(), "iss") {
		t.Errorf("a third spelling of the issuer: error %v", err)
	}
}
