package bridge_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// This file is a re-implementation. The OpenID Foundation's conformance suite was not run, and a pass here is no certification: the modules of
// its relying-party plans are reproduced by their names on the test provider of bridgetest, after what is publicly known of them.
//
// The suite judges a code flow by the UserInfo request. A module with a good answer ends when that request comes; one with a bad answer passes
// when it has not come five seconds after the answer. Here nobody has to wait: the bridge does all it does before it answers the callback, so
// that the requests at the provider are complete when the page is there. As in the suite, `userinfo: always` is set.

// A module is one of the suite's.
type module struct {
	name     string
	set      func(s *service, b *bridgetest.Behaviour)
	refuse   string // the cause of a refusal; "": the login must succeed
	status   int    // of the refusal, 502 when 0
	stopAt   string // the first endpoint that must not be asked: userinfo when ""; "-" for a refusal after UserInfo
	provider string // of config.yaml
	check    func(t *testing.T, s *service, b *bridgetest.Browser)
}

// idToken makes a module of a change to the ID token.
func idToken(change func(*bridgetest.Behaviour)) func(*service, *bridgetest.Behaviour) {
	return func(_ *service, b *bridgetest.Behaviour) { change(b) }
}

// endpoints of the provider in the order of a login.
var endpoints = []string{"discovery", "authorize", "token", "userinfo"}

func conformance(t *testing.T, modules []module) {
	t.Parallel()
	for _, m := range modules {
		t.Run(m.name, func(t *testing.T) {
			s := newService(t, withProvider("userinfo: always\n    "+m.provider))
			behaviour := bridgetest.Behaviour{}
			if m.set != nil {
				m.set(s, &behaviour)
			}
			s.behave(func(b *bridgetest.Behaviour) { *b = behaviour })
			b := newVisitor()
			page := open(t, b, s.URL+"/login/op?return_to=/orders")
			if len(page.Forms()) > 0 && strings.HasPrefix(page.URL.String(), s.OP.Issuer()) {
				var err error
				if page, err = b.ChoosePersona(t.Context(), page, "carl"); err != nil {
					t.Fatal(err)
				}
			}
			implicit(t, s)
			if m.refuse == "" {
				if answer, _ := s.token(b); page.URL.Path != "/orders" || answer.Status != 200 || s.OP.Calls("userinfo") != 1 {
					t.Fatalf("%d %s, %d calls of UserInfo: %s", page.Status, page.Text(), s.OP.Calls("userinfo"), s.logged(page))
				}
			} else {
				if line := s.logged(page); page.Status != cmp.Or(m.status, 502) || !strings.Contains(line, m.refuse) || s.rows(t) != 0 {
					t.Fatalf("%d %s: %s", page.Status, page.Text(), line)
				}
				stopAt := len(endpoints)
				if m.stopAt != "-" {
					stopAt = slices.Index(endpoints, cmp.Or(m.stopAt, "userinfo"))
				}
				for i, endpoint := range endpoints {
					if n := s.OP.Calls(endpoint); (n != 0) != (i < stopAt) {
						t.Errorf("%d calls of %s", n, endpoint)
					}
				}
			}
			if m.check != nil {
				m.check(t, s, b)
			}
		})
	}
}

// implicit is what the suite checks in every module.
func implicit(t *testing.T, s *service) {
	t.Helper()
	callback := s.URL + "/callback/op"
	for _, r := range s.OP.Requests("authorize") {
		q := r.Form
		if q.Get("response_type") != "code" || !slices.Contains(strings.Fields(q.Get("scope")), "openid") || q.Get("client_id") != "bridge" || q.Get("redirect_uri") != callback ||
			strings.Contains(q.Get("redirect_uri"), "#") || len(q.Get("state")) < 22 || len(q.Get("nonce")) < 22 || q.Get("code_challenge_method") != "S256" || q.Has("request") || q.Has("request_uri") {
			t.Errorf("authorization request: %s", r.URL)
		}
		for name, values := range q {
			if len(values) != 1 {
				t.Errorf("authorization request: %s %d times", name, len(values))
			}
		}
	}
	for _, r := range s.OP.Requests("token") {
		if r.Method != http.MethodPost || r.URL.RawQuery != "" || r.Form.Get("grant_type") != "authorization_code" || r.Form.Get("redirect_uri") != callback || r.Form.Get("code") == "" ||
			r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
			t.Errorf("token request: %s %s %v", r.Method, r.URL, r.Form)
		}
	}
	for _, r := range s.OP.Requests("userinfo") {
		if r.URL.RawQuery != "" || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") || len(r.Body) != 0 {
			t.Errorf("UserInfo request: %s %v", r.URL, r.Header)
		}
	}
}

// one publishes the RS256 key alone.
func one(s *service) func([]byte) []byte {
	return func([]byte) []byte {
		set, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.OP.Key("RS256").Public(), KeyID: s.OP.KeyID("RS256"), Use: "sig"}}})
		return set
	}
}

func unsigned(b *bridgetest.Behaviour) {
	raw(func(good string) string {
		return encode([]byte(`{"alg":"none"}`)) + "." + strings.Split(good, ".")[1] + "."
	})(b)
}

func badSignature(b *bridgetest.Behaviour) {
	part(2, func(s string) string { return encode(make([]byte, len(s)*3/4)) })(b)
}

func issuerMismatch(s *service, b *bridgetest.Behaviour) {
	b.Discovery = func(m map[string]any) { m["issuer"] = s.OP.Issuer() + "1" }
}

// TestConformance_Basic is oidcc-client-basic-certification-test-plan: code, default response mode, client_secret_basic.
func TestConformance_Basic(t *testing.T) {
	conformance(t, []module{
		{name: "oidcc-client-test"},
		{name: "oidcc-client-test-invalid-iss", set: func(s *service, b *bridgetest.Behaviour) { claimIs("iss", s.OP.Issuer()+"1")(b) }, refuse: "token refused: "},
		{name: "oidcc-client-test-missing-sub", set: idToken(noClaim("sub")), refuse: "token refused: sub"},
		{name: "oidcc-client-test-invalid-aud", set: idToken(claimIs("aud", "bridge1")), refuse: "token refused: "},
		{name: "oidcc-client-test-missing-iat", set: idToken(noClaim("iat")), refuse: "token refused: iat"},
		{name: "oidcc-client-test-kid-absent-single-jwks", set: func(s *service, b *bridgetest.Behaviour) {
			headerIs("kid", nil)(b)
			b.JWKS = one(s)
		}},
		// The suite takes both answers. The bridge tries the keys that fit.
		{name: "oidcc-client-test-kid-absent-multiple-jwks", set: func(s *service, b *bridgetest.Behaviour) {
			if err := s.OP.RotateKeys(true); err != nil {
				panic(err)
			}
			headerIs("kid", nil)(b)
		}},
		{name: "oidcc-client-test-idtoken-sig-rs256"},
		// The suite takes both answers.
		{name: "oidcc-client-test-idtoken-sig-none", set: idToken(unsigned), refuse: form},
		{name: "oidcc-client-test-invalid-sig-rs256", set: idToken(badSignature), refuse: signature},
		{name: "oidcc-client-test-userinfo-invalid-sub", set: func(_ *service, b *bridgetest.Behaviour) {
			b.UserInfo = func(c map[string]any) { c["sub"] = c["sub"].(string) + "1" }
		}, refuse: "token refused: userinfo", stopAt: "-", check: func(t *testing.T, s *service, _ *bridgetest.Browser) {
			if n := s.OP.Calls("userinfo"); n != 1 {
				t.Errorf("%d calls of UserInfo", n)
			}
		}},
		{name: "oidcc-client-test-nonce-invalid", set: idToken(claim(func(c map[string]any) { c["nonce"] = c["nonce"].(string) + "1" })), refuse: "token refused: nonce"},
		{name: "oidcc-client-test-scope-userinfo-claims", set: func(s *service, b *bridgetest.Behaviour) {
			s.OP.SetPersonas(bridgetest.Persona{Subject: "carl", Name: "Carl", UserInfo: map[string]any{"email": "carl@example.com", "email_verified": true}})
		}, check: func(t *testing.T, s *service, b *bridgetest.Browser) {
			scope := strings.Fields(s.OP.Requests("authorize")[0].Form.Get("scope"))
			if !slices.Contains(scope, "email") || !slices.Contains(scope, "profile") {
				t.Errorf("scope %v", scope)
			}
			if _, body := s.token(b); claims(t, body["token"])["email"] != "carl@example.com" {
				t.Errorf("%v", body)
			}
		}},
		{name: "oidcc-client-test-client-secret-basic", check: func(t *testing.T, s *service, _ *bridgetest.Browser) {
			sent := s.OP.Requests("token")[0]
			id, secret, ok := (&http.Request{Header: sent.Header}).BasicAuth()
			if !ok || id != "bridge" || secret != url.QueryEscape("s3cret:+%/ü") || sent.Form.Has("client_secret") {
				t.Errorf("%v %v", sent.Header, sent.Form)
			}
		}},
	})
}

// TestConformance_Config is oidcc-client-config-certification-test-plan.
func TestConformance_Config(t *testing.T) {
	conformance(t, []module{
		{name: "oidcc-client-test-discovery-openid-config", check: func(t *testing.T, s *service, _ *bridgetest.Browser) {
			if n := s.OP.Calls("discovery"); n != 1 {
				t.Errorf("%d calls of discovery", n)
			}
		}},
		{name: "oidcc-client-test-discovery-jwks-uri-keys", set: func(s *service, b *bridgetest.Behaviour) {
			b.Discovery = func(m map[string]any) {
				m["jwks_uri"] = m["jwks_uri"].(string) + "?run=" + fmt.Sprint(time.Now().UnixNano())
			}
		}, check: func(t *testing.T, s *service, _ *bridgetest.Browser) {
			if fetched := s.OP.Requests("jwks"); len(fetched) != 1 || !strings.HasPrefix(fetched[0].URL.RawQuery, "run=") {
				t.Errorf("%v", fetched)
			}
		}},
		{name: "oidcc-client-test-discovery-issuer-mismatch", set: issuerMismatch, refuse: "calls itself", status: 503, stopAt: "authorize"},
		{name: "oidcc-client-test-idtoken-sig-none", set: idToken(unsigned), refuse: form},
		{name: "oidcc-client-test-signing-key-rotation-just-before-signing", set: func(s *service, b *bridgetest.Behaviour) {
			var once sync.Once
			b.IDTokenHeader = func(map[string]any) { once.Do(func() { _ = s.OP.RotateKeys(false) }) }
		}, check: func(t *testing.T, s *service, _ *bridgetest.Browser) {
			if n := s.OP.Calls("jwks"); n != 1 {
				t.Errorf("%d fetches of the keys", n)
			}
		}},
		{name: "oidcc-client-test-signing-key-rotation", check: func(t *testing.T, s *service, _ *bridgetest.Browser) {
			if err := s.OP.RotateKeys(false); err != nil {
				t.Fatal(err)
			}
			s.OP.ForgetRequests()
			s.usable(t)
			if s.OP.Calls("jwks") != 1 || s.OP.Calls("userinfo") != 1 {
				t.Errorf("%d fetches of the keys, %d calls of UserInfo", s.OP.Calls("jwks"), s.OP.Calls("userinfo"))
			}
		}},
	})
}

// TestConformance_General has the modules of oidcc-client-test-plan that apply to a code flow with a registered client. The others are about
// hybrid and implicit flows, dynamic registration, request objects, encryption, WebFinger and mTLS; -userinfo-bearer-body and -userinfo-signed are
// about things that the bridge does not ask for.
func TestConformance_General(t *testing.T) {
	conformance(t, []module{
		{name: "oidcc-client-test-missing-aud", set: idToken(noClaim("aud")), refuse: "token refused: "},
		{name: "oidcc-client-test-invalid-sig-es256", provider: "alg: ES256", set: func(_ *service, b *bridgetest.Behaviour) {
			b.Alg = "ES256"
			badSignature(b)
		}, refuse: signature},
		{name: "oidcc-client-test-invalid-sig-hs256", set: idToken(signed([]byte("s3cret:+%/ü"), func(_, p string) (string, string) { return `{"alg":"HS256"}`, p })), refuse: algorithm},
		{name: "oidcc-client-test-invalid-athash", set: idToken(claimIs("at_hash", "AAAAAAAAAAAAAAAAAAAAAA")), refuse: "token refused: at_hash"},
		{name: "oidcc-client-test-nonce-unless-code-flow", check: func(t *testing.T, s *service, _ *bridgetest.Browser) {
			if s.OP.Requests("authorize")[0].Form.Get("nonce") == "" { // optional there, and always sent
				t.Error("no nonce")
			}
		}},
		{name: "oidcc-client-test-userinfo-bearer-header"},
	})
}

// TestConformance_Refresh has the modules about refresh tokens. The bridge refreshes when session.recheck has passed.
func TestConformance_Refresh(t *testing.T) {
	refresh := func(change func(c map[string]any), status, userinfo int) func(t *testing.T, s *service, b *bridgetest.Browser) {
		return func(t *testing.T, s *service, b *bridgetest.Browser) {
			first := s.OP.Requests("userinfo")[0].Header.Get("Authorization")
			s.advance(15 * time.Minute)
			s.behave(func(b *bridgetest.Behaviour) {
				b.IDTokenClaims = func(c map[string]any) {
					c["iat"], c["exp"] = s.now().Unix(), s.now().Add(5*time.Minute).Unix()
					if change != nil {
						change(c)
					}
				}
			})
			page, _ := s.token(b)
			sent := s.OP.Requests("token")
			if page.Status != status || len(sent) != 1 || sent[0].Form.Get("grant_type") != "refresh_token" || sent[0].Form.Get("refresh_token") == "" {
				t.Fatalf("%d %s after %v", page.Status, page.Body, sent)
			}
			asked := s.OP.Requests("userinfo")
			if len(asked) != userinfo {
				t.Fatalf("%d calls of UserInfo", len(asked))
			}
			for _, r := range asked {
				if again := r.Header.Get("Authorization"); again == first || !strings.HasPrefix(again, "Bearer ") {
					t.Error("UserInfo is not asked with the new access token")
				}
			}
		}
	}
	conformance(t, []module{
		{name: "oidcc-client-test-refresh-token", provider: offline, check: refresh(nil, 200, 1)},
		{name: "oidcc-client-test-refresh-token-invalid-issuer", provider: offline, check: refresh(func(c map[string]any) { c["iss"] = c["iss"].(string) + "1" }, 401, 0)},
		{name: "oidcc-client-test-refresh-token-invalid-sub", provider: offline, check: refresh(func(c map[string]any) { c["sub"] = c["sub"].(string) + "1" }, 401, 0)},
	})
}

// TestConformance_FAPI2 has the modules of the FAPI 2.0 client plan that are about things any relying party does. The bridge is no FAPI client.
func TestConformance_FAPI2(t *testing.T) {
	answered := func(change func(p url.Values)) func(*service, *bridgetest.Behaviour) {
		return func(_ *service, b *bridgetest.Behaviour) { b.AuthorizationResponse = change }
	}
	response := func(change func(r map[string]any)) func(*service, *bridgetest.Behaviour) {
		return func(_ *service, b *bridgetest.Behaviour) { b.TokenResponse = change }
	}
	const malformed, state = "callback is malformed", "login state"
	modules := []module{
		{name: "invalid-authorization-response-iss", set: answered(func(p url.Values) { p.Set("iss", p.Get("iss")+"1") }), refuse: malformed, status: 400, stopAt: "token"},
		{name: "remove-authorization-response-iss", set: answered(func(p url.Values) { p.Del("iss") }), refuse: malformed, status: 400, stopAt: "token"},
		{name: "ensure-authorization-response-with-invalid-state-fails", set: answered(func(p url.Values) { p.Set("state", p.Get("state")+"1") }), refuse: state, status: 400, stopAt: "token"},
		{name: "ensure-authorization-response-with-invalid-missing-state-fails", set: answered(func(p url.Values) { p.Del("state") }), refuse: state, status: 400, stopAt: "token"},
		{name: "invalid-secondary-aud", set: idToken(claimIs("aud", []string{"bridge", "other"})), refuse: "token refused: aud"},
		{name: "valid-aud-as-array", set: idToken(claimIs("aud", []string{"bridge"}))},
		{name: "invalid-aud", set: idToken(claimIs("aud", "other")), refuse: "token refused: "},
		{name: "invalid-missing-aud", set: idToken(noClaim("aud")), refuse: "token refused: "},
		{name: "invalid-iss", set: func(s *service, b *bridgetest.Behaviour) { claimIs("iss", s.OP.Issuer()+"1")(b) }, refuse: "token refused: "},
		{name: "invalid-missing-iss", set: idToken(noClaim("iss")), refuse: "token refused: "},
		{name: "invalid-expired-exp", set: idToken(claim(func(c map[string]any) { c["exp"] = time.Now().Unix() - 300 })), refuse: "token refused: exp"},
		{name: "invalid-missing-exp", set: idToken(noClaim("exp")), refuse: "token refused: exp"},
		{name: "invalid-nonce", set: idToken(claim(func(c map[string]any) { c["nonce"] = c["nonce"].(string) + "1" })), refuse: "token refused: nonce"},
		{name: "invalid-missing-nonce", set: idToken(noClaim("nonce")), refuse: "token refused: nonce"},
		{name: "invalid-null-alg", set: idToken(unsigned), refuse: form},
		{name: "invalid-alternate-alg", set: func(_ *service, b *bridgetest.Behaviour) { b.Alg = "PS256" }, refuse: algorithm},
		{name: "token-type-case-insensitivity", set: response(func(r map[string]any) { r["token_type"] = "bEaReR" })},
		{name: "token-endpoint-response-without-expires_in", set: response(func(r map[string]any) { delete(r, "expires_in") })},
		{name: "discovery-issuer-mismatch", set: issuerMismatch, refuse: "calls itself", status: 503, stopAt: "authorize"},
		{name: "refresh-token-test", provider: offline, check: func(t *testing.T, s *service, b *bridgetest.Browser) {
			s.advance(15 * time.Minute)
			if page, _ := s.token(b); page.Status != 200 || s.OP.Calls("token") != 2 {
				t.Errorf("%d after %d token requests", page.Status, s.OP.Calls("token"))
			}
		}},
	}
	for i := range modules {
		modules[i].name = "fapi2-security-profile-final-client-test-" + modules[i].name
	}
	conformance(t, modules)
}
