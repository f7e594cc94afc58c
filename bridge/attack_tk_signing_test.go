package bridge_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestAttack_TK06_SigningSecrets: what an attacker could guess or hold, and what PostgREST would read otherwise, signs nothing.
func TestAttack_TK06_SigningSecrets(t *testing.T) {
	t.Parallel()
	text := func(yaml string) string { return "jwt_secret: " + yaml }
	tests := []string{
		text(`""`), text("short"), text(jwtSecret[:31]), text(base64.StdEncoding.EncodeToString([]byte(jwtSecret[:31])) + ", jwt_secret_is_base64: true"), text(strings.Repeat("k7", 15) + "x"), text("reallyreallyreallyreallyverysafe"), text("ReallyReallyReallyReallyVerySafe"), text("xx-reallyreallyreallyreallyverysafe-xx"),
		text("super-secret-jwt-token-with-at-least-32-characters-long"), text("your-256-bit-secret-your-256-bit-secret"), text("a-string-secret-at-least-256-bits-long"), text("changeme-changeme-changeme-changeme"),
		text("secretsecretsecretsecretsecretsecret"), text(`"01234567890123456789012345678901"`), text("0123456789abcdef0123456789abcdef"), text("abcdefghijklmnopqrstuvwxyz123456"),
		text(strings.Repeat("a", 64)), text(strings.Repeat("ab", 32)), text(strings.Repeat("abcdefg", 8)), text(`"` + strings.Repeat(" ", 40) + `"`), text(`" ` + jwtSecret + `"`), text(`"` + jwtSecret + ` "`),
		text(`"` + jwtSecret + `\n"`), text(`"` + jwtSecret + `\0"`), text(`"ü` + jwtSecret + `"`), text(`'{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}'`), text(`' {"keys":[]} ` + jwtSecret + `'`),
		text(`'{"keys":[{"kty":"RSA","n":"x","e":"AQAB"}]}'`), text(`"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"`), text(`"-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"`),
		text(`"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"`), text(jwtSecret + ", jwt_secret_is_base64: true"), text("c2hvcnQ=, jwt_secret_is_base64: true"), text(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a", 40))) + ", jwt_secret_is_base64: true"),
		text(base64.StdEncoding.EncodeToString(make([]byte, 40)) + ", jwt_secret_is_base64: true"), text(base64.StdEncoding.EncodeToString([]byte("0f8b3c1d5e7a92640f8b3c1d5e7a9264"))[:43] + ", jwt_secret_is_base64: true"), text(jwtSecret + `, jwt_secret_is_base64: "false"`),
		text(jwtSecret + ", jwt_secret_is_base64: 1"), text(jwtSecret + ", alg: RS256"), text(jwtSecret + ", alg: none"), text(jwtSecret + ", alg: hs256"), text(jwtSecret + ", alg: [HS256, RS256]"), text(jwtSecret + ", jwks: { keys: [] }"),
		text(jwtSecret + ", private_key: x"), text(jwtSecret + ", kid: x"), text("[" + jwtSecret + "]"), text("{ key: " + jwtSecret + " }"), text("123456789012345678901234567890123456"), text("~"), text("true"), "audience: x",
	}
	for _, signing := range tests {
		changed := strings.Replace(goodConfig, "jwt_secret: "+jwtSecret, signing, 1)
		c, findings := bridge.LoadConfig("config.yaml", []byte(changed), noEnvironment)
		if c != nil || changed == goodConfig {
			t.Errorf("%s is taken", signing)
		}
		if strings.Contains(fmt.Sprint(findings), jwtSecret) {
			t.Errorf("%s: the findings show the secret: %v", signing, findings)
		}
	}
	// Both programs read the good ones alike: the token of each is one that PostgREST takes.
	key := "\x00\x01\xfe\xff0f8b3c1d5e7a92640f8b3c1d5e7a9264~?>"
	for name, test := range map[string]struct {
		secret string
		base64 bool
	}{
		"text": {jwtSecret, false}, "text that is base64": {base64.StdEncoding.EncodeToString([]byte(jwtSecret)), false}, "base64": {base64.StdEncoding.EncodeToString([]byte(key)), true},
		"base64url": {base64.URLEncoding.EncodeToString([]byte(key)), true}, "odd characters": {`x'!"#$%&()*+,-./:;<=>?@[]^_~0f8b3c1d5e7a`, false},
	} {
		quoted, _ := json.Marshal(test.secret)
		c, findings := bridge.LoadConfig("config.yaml", []byte(strings.Replace(goodConfig, "jwt_secret: "+jwtSecret, fmt.Sprintf("jwt_secret: %s, jwt_secret_is_base64: %v", strings.ReplaceAll(string(quoted), "$", "$$"), test.base64), 1)), noEnvironment)
		if c == nil {
			t.Errorf("%s: %v", name, findings)
			continue
		}
		token, err := bridgetest.SignJWT([]byte(c.Signing.Key.Reveal()), map[string]any{"alg": "HS256"}, map[string]any{"role": "x", "aud": "postgrest"})
		if err != nil {
			t.Fatal(err)
		}
		db := bridgetest.DB(t)
		api := bridgetest.NewAPI(t, bridgetest.APIOptions{DatabaseURL: db.AuthenticatorURL, JWTSecret: test.secret, JWTSecretIsBase64: test.base64, JWTAud: "postgrest", AnonRole: db.Role("anonymous")})
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, api.URL()+"/nothing", nil)
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if body := bodyOf(t, response); strings.Contains(body, "PGRST301") {
			t.Errorf("%s: PostgREST has another key: %s", name, body)
		}
	}
	bridgetest.Tried(t, len(tests)+5)
}

// TestAttack_TK07_KeyPublication: a shared secret is published nowhere, and tokens signed with it name no key.
func TestAttack_TK07_KeyPublication(t *testing.T) {
	t.Parallel()
	h := httpsService(t, "")
	requests := map[string]int{
		"GET /auth/.well-known/jwks.json": 200, "GET /auth/.well-known/jwks.json?x=1": 200, "HEAD /auth/.well-known/jwks.json": 405, "POST /auth/.well-known/jwks.json": 405, "PUT /auth/.well-known/jwks.json": 405,
		"GET /auth/.well-known/jwks.json/": 404, "GET /auth/.well-known/jwks": 404, "GET /auth/.well-known/": 404, "GET /.well-known/jwks.json": 404, "GET /auth/jwks.json": 404, "GET /auth/jwks": 404, "GET /auth/keys": 404, "GET /auth/.well-known/JWKS.json": 404,
	}
	for request, want := range requests {
		method, target, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		if w.Code != want || want == 200 && (strings.TrimSpace(w.Body.String()) != `{"keys":[]}` || w.Header().Get("Content-Type") != "application/json") {
			t.Errorf("%s: %d %s", request, w.Code, w.Body)
		}
	}
	bridgetest.Tried(t, len(requests))
}

// TestAttack_TK09_ClockSkew: PostgREST's clock may be half a minute off ours, in every version, and the browser's clock does not matter.
func TestAttack_TK09_ClockSkew(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("ada", "/")
	made := time.Now()
	page, body := s.token(b)
	token := body["token"].(string)
	number := func(name string) time.Time {
		seconds, err := claims(t, token)[name].(json.Number).Int64()
		if err != nil {
			t.Fatal(err)
		}
		return time.Unix(seconds, 0)
	}
	exp := number("exp")
	tests := []struct {
		name string
		at   time.Time // PostgREST's clock
		want bool
	}{
		{"ours", time.Now(), true},
		{"29 s behind, token just made", made.Add(-29 * time.Second), true},
		{"31 s behind, token just made", made.Add(-31 * time.Second), true}, // thanks to iat in the past
		{"36 s behind, token just made", made.Add(-36 * time.Second), false},
		{"29 s ahead, token about to end", exp.Add(29 * time.Second), true},
		{"31 s ahead, token about to end", exp.Add(31 * time.Second), false},
		{"29 s behind, token about to end", exp.Add(-29 * time.Second), true},
		{"an hour behind", made.Add(-time.Hour), false},
		{"an hour ahead", exp.Add(time.Hour), false},
	}
	exec(t, s.DB, s.DB.SQL("CREATE TABLE public.things (id int); GRANT SELECT ON public.things TO admin; GRANT USAGE ON SCHEMA public TO admin"))
	versions := []int{12, 13, 14, 16}
	for _, version := range versions {
		for _, test := range tests {
			api := bridgetest.NewAPI(t, bridgetest.APIOptions{
				DatabaseURL: s.DB.AuthenticatorURL, Version: version, JWTSecret: jwtSecret, JWTAud: "postgrest", Now: func() time.Time { return test.at },
			})
			request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, api.URL()+"/things", nil)
			request.Header.Set("Authorization", "Bearer "+token)
			if got := do(t, request).StatusCode; (got == 200) != test.want {
				t.Errorf("PostgREST %d, clock %s: %d", version, test.name, got)
			}
		}
	}
	// Seconds from now, and a cache lifetime: neither needs the browser to know what time it is.
	if in := body["expires_in"].(float64); in < 590-30 || in > 600 || page.Header.Get("Expires") != "" {
		t.Errorf("expires_in %v, Expires %q", in, page.Header.Get("Expires"))
	}
	bridgetest.Tried(t, len(versions)*len(tests))
}

// TestAttack_TK11_Hammering: whoever asks too often gets the same token, as long as the same would be decided, and costs no signature.
func TestAttack_TK11_Hammering(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ada, _ := s.login("ada", "/")
	carl, _ := s.login("carl", "/")
	token := func(b *bridgetest.Browser) string {
		_, body := s.token(b)
		text, _ := body["token"].(string)
		return text
	}
	first, other := token(ada), token(carl)
	cookie := sessionCookie(t, s, ada)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 50 {
				if _, body := s.askToken(cookie, nil); !strings.Contains(body, first) {
					t.Errorf("another token: %s", body)
				}
			}
		})
	}
	group.Wait()
	if page := s.loginWith(carl, "carl", "/"); page.URL.Path != "/" || token(carl) == other {
		t.Errorf("a token of the session before: %s", page.Text())
	}
	steps := []struct {
		name    string
		advance time.Duration
		again   bool
	}{
		{"at once", 0, true}, {"before the half", 4*time.Minute + 50*time.Second, true}, {"after the half", 20 * time.Second, false}, {"a clock set back", -time.Hour, false}, {"and right again", time.Hour, false},
	}
	for _, step := range steps {
		s.advance(step.advance)
		got := token(ada)
		if (got == first) != step.again || got == other || got == "" {
			t.Errorf("%s: the same is %v", step.name, got == first)
		}
		first = got
	}
	if token(carl) == token(ada) {
		t.Error("one token for two people")
	}
	// What would be decided differently is made anew, or not at all.
	before := token(carl)
	s.changeRules("max_ttl: 10m", "max_ttl: 9m")
	bridgetest.Await(t, "a token of the new rules", func() bool { return token(carl) != before })
	exec(t, s.DB, "UPDATE bridge.users SET disabled_at = now() WHERE name = 'Carl'")
	if page, _ := s.token(carl); page.Status != 401 {
		t.Errorf("disabled, and served again: %d", page.Status)
	}
	exec(t, s.DB, "DELETE FROM bridge.sessions")
	if page, _ := s.token(ada); page.Status != 401 {
		t.Errorf("revoked, and served again: %d", page.Status)
	}
	bridgetest.Tried(t, 200+len(steps)+5)
}
