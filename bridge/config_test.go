package bridge_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// goodConfig is a complete configuration that the table below breaks one line at a time.
var goodConfig = `public_url: https://app.example.com/auth
database: { url: "postgres://bridge@localhost/app" }
signing: { jwt_secret: ` + jwtSecret + ` }
cookie_keys: ["` + cookieKey(1) + `"]
providers:
  corp:
    issuer: https://sso.example.com/realms/acme
    client_id: bridge
    client_secret: hunter2-hunter2
`

func noEnvironment(string) (string, bool) { return "", false }

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	c, findings := bridge.LoadConfig("/etc/oidc-bridge/config.yaml", []byte(goodConfig), noEnvironment)
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	p := c.Providers[0]
	got := fmt.Sprint(c.Listen, c.PrivateListen, c.Database.Authenticator, c.Signing.Audience, c.Signing.TTL, c.Session, c.Database.Listen, c.KeepEvents, c.Rules,
		p.AuthMethod, p.Scopes, p.Alg, p.UserInfo, p.Name, p.AllowPrivate, c.InsecureDev)
	want := fmt.Sprint(":8080", "127.0.0.1:9090", "authenticator", "postgrest", 15*time.Minute, bridge.SessionConfig{Idle: 12 * time.Hour, Absolute: 168 * time.Hour, Recheck: 15 * time.Minute}, "auto", 9600*time.Hour,
		"/etc/oidc-bridge/rules.yaml", "client_secret_basic", []string{"openid", "email", "profile"}, "RS256", "auto", "corp", false, false)
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// TestAttack_CF01_BadConfigIsRefused has one mistake per row; each must be found where it stands, and say how to mend it.
func TestAttack_CF01_BadConfigIsRefused(t *testing.T) {
	t.Parallel()
	inputs := 0
	for _, test := range []struct{ replace, by, want string }{
		{"public_url: https", "public_ulr: https", `1:1: error E102: unknown key "public_ulr" in the configuration|did you mean "public_url"?`},
		{"public_url: https://app.example.com/auth\n", "", "public_url is missing"},
		{"https://app.example.com/auth", "http://app.example.com/auth", "1:13: error E104: public_url must be https"},
		{"https://app.example.com/auth", "app.example.com", "1:13: error E104: public_url is not a URL"},
		{"https://app.example.com/auth", "https://APP.example.com/", "the host of public_url|in lower case"},
		{"https://app.example.com/auth", "https://app.example.com:443/auth", "the host of public_url|without the usual port"},
		{"https://app.example.com/auth", "https://app.example.com:/auth", "the host of public_url"},
		{"https://app.example.com/auth", "https://app.example.com/a/../b", "the path of public_url"},
		{"https://app.example.com/auth", "https://app.example.com/?x=1", "has a user, query or fragment"},
		{"public_url:", "insecure_dev: true\npublic_url:", "insecure_dev with a public host name"},
		{"public_url:", "insecure_dev: yes\npublic_url:", "1:15: error E104: insecure_dev must be true or false"},
		{"public_url:", "listen: 8080\npublic_url:", `listen must be host:port|":8080"`},
		{"public_url:", "trusted_proxies: [10.0.0.1]\npublic_url:", "not a CIDR range"},
		{"public_url:", "trusted_proxies: 10.0.0.0/8\npublic_url:", "trusted_proxies must be a list"},
		{"public_url:", "allowed_origins: [https://shop.example.com/]\npublic_url:", "not an origin"},
		{"public_url:", "allowed_origins: ['*']\npublic_url:", "not an origin"},
		{"public_url:", "allowed_origins: ['https://shop.example.com:443']\npublic_url:", "not an origin"},
		{"public_url:", "allowed_origins: [https://Shop.example.com]\npublic_url:", "not an origin"},
		{"public_url:", "allowed_origins: [https://app.example.com]\npublic_url:", "the origin of public_url needs no permission"},
		{"public_url:", "proxy: {}\npublic_url:", `proxy has no upstream|http://127.0.0.1:3000`},
		{"public_url:", "proxy: { upstream: 127.0.0.1:3000 }\npublic_url:", `proxy.upstream is not a URL`},
		{"public_url:", "proxy: { upstream: 'http://u:p@127.0.0.1:3000' }\npublic_url:", `proxy.upstream has a user`},
		{"public_url:", "proxy: { upstream: 'http://127.0.0.1:3000/?x=1' }\npublic_url:", `proxy.upstream has a user, query`},
		{"public_url:", "proxy: { upstream: 'http://127.0.0.1:3000/a/../b' }\npublic_url:", `unusual path`},
		{"public_url:", "proxy: { upstream: 'unix:/run/x' }\npublic_url:", `proxy.upstream is not a URL`},
		{"public_url:", "proxy: { upstream: 'https://app.example.com' }\npublic_url:", `proxy.upstream is the bridge itself`},
		{"public_url:", "proxy: { upstream: 'http://127.0.0.1:3000', path: api }\npublic_url:", `proxy.path|/rest/v1`},
		{"public_url:", "proxy: { upstream: 'http://127.0.0.1:3000', path: / }\npublic_url:", `proxy.path`},
		{"public_url:", "proxy: { upstream: 'http://127.0.0.1:3000', path: /a/ }\npublic_url:", `proxy.path`},
		{"public_url:", "proxy: { upstream: 'http://127.0.0.1:3000', path: /a/../b }\npublic_url:", `proxy.path`},
		{"public_url:", "proxy: { upstream: 'http://127.0.0.1:3000', path: '/{a}' }\npublic_url:", `proxy.path`},
		{"public_url:", "proxy: { upstream: 'http://127.0.0.1:3000', path: '/*' }\npublic_url:", `proxy.path`},
		{"public_url:", "proxy: { upstream: 'http://127.0.0.1:3000', path: /Login/x }\npublic_url:", `proxy.path begins as an address of the bridge itself`},
		{"public_url:", "proxy: { upstream: 'http://127.0.0.1:3000', path: /auth }\npublic_url:", `proxy.path begins as an address of the bridge itself`},
		{"public_url:", "proxy: { upstream: 'http://127.0.0.1:3000', timeout: 10ms }\npublic_url:", `proxy.timeout is shorter than a second`},
		{"public_url:", "proxy: { upstrem: 'http://127.0.0.1:3000' }\npublic_url:", `unknown key "upstrem" in proxy|did you mean "upstream"?`},
		{"public_url:", "anonymous: none\npublic_url:", `1:12: error E104: "none" is not a role for people without session`},
		{"public_url:", "anonymous: pg_read_all_data\npublic_url:", "is not a role for people without session"},
		{"public_url:", "anonymous: authenticator\npublic_url:", "is not a role for people without session|db-anon-role"},
		{"public_url:", "anonymous:\npublic_url:", "anonymous must be a text"},
		{"public_url:", "anonymous: " + strings.Repeat("a", 64) + "\npublic_url:", "is not a role for people without session"},
		{"public_url:", "rules:\npublic_url:", "rules must be a text, this is empty"},
		{"public_url:", "users: { hook: drop table }\npublic_url:", "not a function name"},
		{"public_url:", "session: { idle: 1d }\npublic_url:", "session.idle must be a positive duration"},
		{"public_url:", "session: { idle: 2h, absolute: 1h }\npublic_url:", "session.idle (2h0m0s) is longer than session.absolute (1h0m0s)"},
		{"public_url:", "session: { absolute: 9000h }\npublic_url:", "longer than a year"},
		{"public_url:", "listen: ':80'\nprivate_listen: ':80'\npublic_url:", "listen and private_listen are the same address"},
		{"public_url:", "listen: 'localhost:http-foo'\npublic_url:", "listen must be host:port"},
		{"client_secret: hunter2-hunter2", "client_secret: $CORP_SECRET", "client_secret looks like a variable|write ${NAME}"},
		{"client_secret: hunter2-hunter2", "client_secret: 'hunter2 '", "client_secret begins or ends with white space"},
		{"    client_id", "    preset: keycloak\n    client_id", "preset keycloak belongs into the rules file"},
		{"signing:", "signing: { jwt_secret: " + jwtSecret + " }\nsigning:", `4:1: error E103: key "signing" is repeated`},
		{jwtSecret, "short", "has 5 bytes, at least 32 are needed|openssl rand -hex 32"},
		{jwtSecret, "reallyreallyreallyreallyverysafe", "is a well-known example secret"},
		{jwtSecret, strings.Repeat("ab", 20), "repeats a few characters"},
		{jwtSecret, `'{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}'`, "looks like a JWK"},
		{jwtSecret, `"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"`, "looks like a PEM file"},
		{jwtSecret, jwtSecret + ", jwt_secret_is_base64: true", "is not base64"},
		{"jwt_secret: " + jwtSecret, `jwt_secret: ""`, "JWT_SECRET must be configured"},
		{"signing: { jwt_secret: " + jwtSecret + " }\n", "", "JWT_SECRET must be configured"},
		{jwtSecret, "${JWT_SECRET}", `3:1: error E101: not YAML: a variable inside { } or [ ] needs quotes|write "${NAME}"`},
		{jwtSecret, `"${JWT_SECRET}"`, "3:24: error E104: environment variable JWT_SECRET is not set|JWT_SECRET must be configured"},
		{jwtSecret, `"${JWT-SECRET}"`, "not a variable"},
		{jwtSecret, "{ file: /nonexistent/secret }", "no such file"},
		{jwtSecret + " }", jwtSecret + ", alg: RS256 }", "unknown value of signing.alg|allowed: HS256"},
		{jwtSecret + " }", jwtSecret + ", ttl: 2h }", "signing.ttl is out of bounds"},
		{jwtSecret + " }", jwtSecret + `, audience: "" }`, "signing.audience is empty"},
		{cookieKey(1), "c2hvcnQ=", "a cookie key must be 32 bytes in base64|openssl rand -base64 32"},
		{cookieKey(1), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "one byte repeated"},
		{cookieKey(1), cookieKey(1) + `", "` + cookieKey(1), "the same cookie key twice"},
		{`["` + cookieKey(1) + `"]`, "[]", "cookie_keys is empty"},
		{"cookie_keys: [\"" + cookieKey(1) + "\"]\n", "", "COOKIE_KEY must be configured"},
		{"postgres://bridge@localhost/app", "mysql://root@localhost/app?x", "database.url is not a PostgreSQL connection string"},
		{"localhost/app", "localhost/app?default_query_exec_mode=simple_protocol", "another protocol than the extended one"},
		{"database: { url: \"postgres://bridge@localhost/app\" }\n", "", "DATABASE_URL must be configured"},
		{"database: {", "database: { lisen: auto, ", `unknown key "lisen" in database|did you mean "listen"?`},
		{"  corp:", "  Corp:", `provider name "Corp"`},
		{"providers:\n", "providers: {}\nx:\n", "no providers"},
		{"    issuer: https://sso.example.com/realms/acme\n", "", `provider "corp" has no issuer`},
		{"https://sso.example.com/realms/acme", "http://sso.example.com", "the issuer must be https"},
		{"realms/acme", "realms/acme/.well-known/openid-configuration", "this is the discovery document, not the issuer"},
		{"realms/acme", "realms/acme?x=1", "the issuer is not a URL|without query"},
		{"    client_id: bridge\n", "", `provider "corp" has no client_id`},
		{"    client_secret: hunter2-hunter2\n", "", `:3: error E104: provider "corp" has no client_secret: client_secret must be configured`},
		{"client_secret: hunter2-hunter2", "client_secret: [hunter2-hunter2]", "a list of client secrets has two|the new one first"},
		{"client_secret: hunter2-hunter2", "client_secret: [hunter2-hunter2, '']", "client_secret is empty"},
		{"    client_id", "    auth_method: none\n    client_id", "allowed: client_secret_basic, client_secret_post"},
		{"    client_id", "    alg: HS256\n    client_id", "unknown value of alg"},
		{"    client_id", "    alg: none\n    client_id", "unknown value of alg"},
		{"    client_id", "    scopes: [email]\n    client_id", "scopes without openid"},
		{"    client_id", "    preset: google\n    client_id", "preset google brings the issuer"},
		{"    client_id", "    ca_file: /nonexistent.pem\n    client_id", "ca_file: "},
		{"    client_id", "    authorize_params: { State: x }\n    client_id", "authorize_params: State is set by the bridge"},
		{"    client_id", "    authorize_params: { 'a b': x }\n    client_id", "not a parameter name"},
		{"    client_id", "    insecure_skip_verify: true\n    client_id", `unknown key "insecure_skip_verify"`},
		{
			"    client_secret: hunter2-hunter2\n", "    client_secret: hunter2-hunter2\n  copy: { issuer: https://sso.example.com/realms/acme, client_id: bridge, client_secret: x }\n",
			`provider "copy" has the issuer and client_id of "corp"`,
		},
		{"public_url:", "x: &a 1\npublic_url:", "E105: anchor &a"},
		{"public_url:", "\tpublic_url:", "E101: not YAML"},
		{"public_url:", "---\n{}\n---\npublic_url:", "a second document"},
	} {
		inputs++
		text := strings.Replace(goodConfig, test.replace, test.by, 1)
		if text == goodConfig {
			t.Errorf("nothing to replace: %q", test.replace)
		}
		c, findings := bridge.LoadConfig("config.yaml", []byte(text), noEnvironment)
		all := ""
		for _, f := range findings {
			all += f.String() + "\n"
		}
		for want := range strings.SplitSeq(test.want, "|") {
			if c != nil || !strings.Contains(all, want) {
				t.Errorf("%q instead of %q: want %q in\n%s", test.by, test.replace, want, all)
			}
		}
		if strings.Contains(all, "hunter2") || strings.Contains(all, jwtSecret) {
			t.Errorf("findings show a secret:\n%s", all)
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestConfigNamesTheVariable: what is wrong with a secret of the environment is said of its variable, which is where it must be mended.
func TestConfigNamesTheVariable(t *testing.T) {
	t.Parallel()
	text := strings.NewReplacer("signing: { jwt_secret: "+jwtSecret+" }\n", "", `cookie_keys: ["`+cookieKey(1)+`"]`+"\n", "", "hunter2-hunter2", "${EMPTY}",
		`database: { url: "postgres://bridge@localhost/app" }`+"\n", "").Replace(goodConfig)
	environment := map[string]string{"JWT_SECRET": "hunter2", "COOKIE_KEY": "hunter2", "DATABASE_URL": "mysql://hunter2 x", "EMPTY": ""}
	_, findings := bridge.LoadConfig("config.yaml", []byte(text), func(name string) (string, bool) { value, set := environment[name]; return value, set })
	all := fmt.Sprint(findings)
	for _, want := range []string{
		"environment variable JWT_SECRET (signing.jwt_secret) has 7 bytes", "environment variable COOKIE_KEY (a cookie key) must be 32 bytes",
		"environment variable DATABASE_URL (database.url) is not a PostgreSQL", "environment variable EMPTY is empty: EMPTY must be configured",
	} {
		if !strings.Contains(all, want) || strings.Contains(all, "hunter2") {
			t.Errorf("want %q in %s", want, all)
		}
	}
}

func TestConfigFindsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	_, findings := bridge.LoadConfig("config.yaml", []byte("public_ulr: x\nlisten: 80\nsession: { idle: never }\nproviders: { a: {} }\n"), noEnvironment)
	// unknown key; public_url, secret, key and database missing; listen; idle; issuer, client_id, client_secret
	if len(findings) != 10 {
		t.Errorf("%d findings: %v", len(findings), findings)
	}
	for i := 1; i < len(findings); i++ {
		if findings[i].Line < findings[i-1].Line {
			t.Errorf("not sorted: %v", findings)
		}
	}
}

func TestConfigTakesSecretsFromEnvironmentAndFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secret"), "file-secret\n")
	text := strings.Replace(goodConfig, "hunter2-hunter2", "{ file: secret }", 1)
	text = strings.Replace(text, jwtSecret, `"pre$${x}-${A}-${A}"`, 1)
	c, findings := bridge.LoadConfig(filepath.Join(dir, "config.yaml"), []byte(text), func(name string) (string, bool) {
		return "0123456789#:_", name == "A"
	})
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	if got := c.Providers[0].ClientSecrets[0].Reveal(); got != "file-secret" {
		t.Errorf("secret of a file: %q", got)
	}
	if got := c.Signing.Key.Reveal(); got != "pre${x}-0123456789#:_-0123456789#:_" {
		t.Errorf("secret of the environment: %q", got)
	}
}

func TestAttack_CF03_SecretFiles(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"others can read it", "hunter2", 0o644, "can be read by others (mode 0644): chmod 600"},
		{"the group can read it", "hunter2", 0o640, "can be read by others"},
		{"empty", "\n", 0o600, "is empty"},
		{"oversized", strings.Repeat("x", 1<<17), 0o600, "is larger than"},
		{"private", "hunter2\r\n", 0o600, ""},
		{"read only", "hunter2", 0o400, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "secret")
			write(t, file, test.text)
			if err := os.Chmod(file, test.mode); err != nil {
				t.Fatal(err)
			}
			text := strings.Replace(goodConfig, "hunter2-hunter2", "{ file: "+file+" }", 1)
			c, findings := bridge.LoadConfig("config.yaml", []byte(text), noEnvironment)
			switch {
			case test.want == "" && (c == nil || c.Providers[0].ClientSecrets[0].Reveal() != "hunter2"):
				t.Error(findings)
			case test.want != "" && (c != nil || !strings.Contains(fmt.Sprint(findings), test.want)):
				t.Errorf("want %q in %v", test.want, findings)
			}
		})
	}
}

// TestExampleConfigIsCompleteAndLoads keeps config.example.yaml true: it loads, and names every key, with its default where it has one.
func TestExampleConfigIsCompleteAndLoads(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{
		"DATABASE_URL": "postgres://bridge@localhost/app", "JWT_SECRET": jwtSecret, "COOKIE_KEY": cookieKey(1),
		"CORP_CLIENT_SECRET": "a", "GOOGLE_CLIENT_ID": "b", "GOOGLE_CLIENT_SECRET": "c",
	}
	lookup := func(name string) (string, bool) { value, set := environment[name]; return value, set }
	c, findings := bridge.LoadConfig("../config.example.yaml", text, lookup)
	if strictyaml.Errors(findings) {
		t.Fatal(findings)
	}
	if len(c.Providers) != 2 || !c.Providers[1].Google || c.Providers[1].Issuer != "https://accounts.google.com" {
		t.Errorf("providers: %+v", c.Providers)
	}
	for _, key := range bridge.ConfigKeys() {
		if !regexp.MustCompile(`(?m)^\s*(# )?` + key + `:`).Match(text) {
			t.Errorf("config.example.yaml says nothing of %s", key)
		}
	}
}

func TestAttack_CF02_SecretsCannotBePrinted(t *testing.T) {
	t.Parallel()
	c, findings := bridge.LoadConfig("config.yaml", []byte(goodConfig), noEnvironment)
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	hidden := struct{ secret bridge.Secret }{c.Signing.Key} // fmt cannot call methods of unexported fields
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{fmt.Sprint(c.Signing.Key, &c.Signing, []bridge.Secret{c.Signing.Key}), c.Signing.Key.String(), string(encoded)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		texts = append(texts, fmt.Sprintf(verb, c), fmt.Sprintf(verb, *c), fmt.Sprintf(verb, hidden), fmt.Sprintf(verb, c.Signing.Key))
	}
	for _, text := range texts {
		for _, secret := range []string{jwtSecret, "hunter2", fmt.Sprintf("%x", jwtSecret), fmt.Sprintf("%X", jwtSecret)} {
			if strings.Contains(text, secret) {
				t.Errorf("printed: %s", text)
			}
		}
	}
	bridgetest.Tried(t, len(texts))
}

func FuzzConfig(f *testing.F) {
	f.Add(goodConfig)
	f.Add("a: *b")
	f.Add("providers: { a: { scopes: { b: c } } }")
	f.Fuzz(func(t *testing.T, text string) {
		c, findings := bridge.LoadConfig("config.yaml", []byte(text), noEnvironment)
		if (c == nil) != strictyaml.Errors(findings) {
			t.Errorf("config %v, findings %v", c, findings)
		}
	})
}
