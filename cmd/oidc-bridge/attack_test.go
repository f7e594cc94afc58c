package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// terminal is what a terminal would obey, or a reader not see: colours, the title, a cursor that goes back over what was written, a link, the
// clipboard, the 8-bit forms of these, and text that runs backwards.
const terminal = "\x1b[31mRED\x1b[0m\x1b]0;title\a\x1b[2K\x1b[1A\r\b\b\x1b]8;;https://evil.example\x1b\\x\x1b]52;c;ZXZpbA==\a\x1bc\u009b31m\u009d0;x\u009c\u202eevil\u2066\u200b\x7f"

// A stage is a machine with a database, a provider and the files of a configuration, all under the attacker's hand.
type stage struct {
	t   *testing.T
	db  *bridgetest.Database
	op  *bridgetest.OP
	dir string
	env map[string]string
}

const secrets = "canary-jwt-secret-0f8b3c1d5e7a9264 canary-client-secret canary-password S2V5IGZvciB0ZXN0cyBvZiB0aGUgY29tbWFuZCBsaW4="

func newStage(t *testing.T) *stage {
	s := &stage{t: t, db: bridgetest.DB(t), dir: t.TempDir()}
	s.op = bridgetest.NewOP(t, bridgetest.OPOptions{Clients: []bridgetest.Client{{ID: "bridge", Secret: "canary-client-secret"}}})
	words := strings.Fields(secrets)
	s.env = map[string]string{
		"DATABASE_URL": strings.Replace(s.db.URL, "@", ":canary-password@", 1), "JWT_SECRET": words[0], "CLIENT_SECRET": words[1], "COOKIE_KEY": words[3],
	}
	s.write("config.yaml", os.Expand(goodConfig, func(name string) string {
		if value := map[string]string{"LISTEN": "127.0.0.1:0", "PRIVATE": "127.0.0.1:0", "AUTHENTICATOR": s.db.Role("authenticator"), "ISSUER": s.op.Issuer()}[name]; value != "" {
			return value
		}
		return "${" + name + "}"
	}))
	s.write("rules.yaml", strings.ReplaceAll(goodRules, "$CUSTOMER", s.db.Role("customer")))
	return s
}

func (s *stage) write(name, text string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// replace changes a file, and returns what takes the change back.
func (s *stage) replace(name, old, by string) (back func()) {
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil || !strings.Contains(string(text), old) {
		s.t.Fatalf("%q is not in %s: %v", old, name, err)
	}
	s.write(name, strings.Replace(string(text), old, by, 1))
	return func() { s.write(name, string(text)) }
}

// run is the program; what it prints must be safe for a terminal and without secrets.
func (s *stage) run(what, stdin string, args ...string) (string, int) {
	s.t.Helper()
	for i, arg := range args {
		if arg == "config.yaml" || arg == "rules.yaml" || arg == "@claims.json" {
			args[i] = strings.Replace(arg, strings.TrimPrefix(arg, "@"), filepath.Join(s.dir, strings.TrimPrefix(arg, "@")), 1)
		}
	}
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	if args[0] == "serve" {
		cancel() // it starts, and stops at once
	}
	code := run(ctx, args, strings.NewReader(stdin), &out, &out, func(name string) (string, bool) { value, set := s.env[name]; return value, set })
	for at, r := range out.String() {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) {
			s.t.Errorf("%s: %v prints %q", what, args[:min(2, len(args))], out.String()[max(0, at-60):min(out.Len(), at+20)])
			break
		}
	}
	for _, secret := range strings.Fields(secrets) {
		if strings.Contains(out.String(), secret) {
			s.t.Errorf("%s: %v prints %s:\n%s", what, args, secret, out.String())
		}
	}
	return out.String(), code
}

// TestAttack_AD01_Terminal: what files, providers, databases and command lines hold never reaches a terminal as it is.
func TestAttack_AD01_Terminal(t *testing.T) {
	s := newStage(t)
	quoted, _ := json.Marshal(terminal) // YAML reads it, too
	hostile := string(quoted)
	commands := func(what string) (n int) {
		for _, args := range [][]string{
			{"check", "--config", "config.yaml"},
			{"check", "--config", "config.yaml", "--format", "json"},
			{"serve", "--config", "config.yaml"},
			{"serve", "--config", "config.yaml", "--log-format", "text", "--log-level", "debug"},
			{"rules", "check", "--config", "config.yaml"},
			{"rules", "test", "--config", "config.yaml"},
			{"migrate", "--config", "config.yaml"},
		} {
			s.run(what, "", args...)
			n++
		}
		return n
	}
	inputs := commands("everything is right")
	for _, change := range []struct{ file, old, by string }{
		{"config.yaml", "public_url: ", hostile + ": x\npublic_url: "},
		{"config.yaml", "client_id: bridge", "client_id: " + hostile},
		{"config.yaml", "insecure_dev: true", "insecure_dev: " + hostile},
		{"config.yaml", "  op:\n", "  " + hostile + ":\n"},
		{"config.yaml", "client_id: bridge", "client_id: bridge\n    name: " + hostile},
		{"config.yaml", "client_id: bridge", "client_id: bridge\n    ca_file: " + hostile},
		{"config.yaml", "client_id: bridge", "client_id: bridge\n    alg: " + hostile},
		{"config.yaml", "client_id: bridge", "client_id: bridge\n    authorize_params: { " + hostile + ": x }"},
		{"config.yaml", "issuer: ", "issuer: " + hostile + " #"},
		{"config.yaml", "listen: 127", "listen: " + hostile + " #"},
		{"config.yaml", "${CLIENT_SECRET}", "{ file: " + hostile + " }"},
		{"config.yaml", "${CLIENT_SECRET}", `"${` + terminal[:4] + `}"`},
		{"config.yaml", "public_url: ", "# " + terminal + "\npublic_url: "},
		{"config.yaml", "public_url: ", "x" + terminal + ": y\npublic_url: "},
		{"config.yaml", "public_url: ", "rules: " + hostile + "\npublic_url: "},
		{"config.yaml", "public_url: ", "users: { hook: " + hostile + " }\npublic_url: "},
		{"config.yaml", "public_url: ", "trusted_proxies: [" + hostile + "]\npublic_url: "},
		{"config.yaml", "authenticator: ", "authenticator: " + hostile + " #"},
		{"config.yaml", "url: ${DATABASE_URL}", "url: " + hostile},
		{"rules.yaml", "version: 1", hostile + ": 1\nversion: 1"},
		{"rules.yaml", "everybody with an address", terminal},
		{"rules.yaml", "name: everybody with an address", "name: " + hostile},
		{"rules.yaml", "email_domain: example.com", "email_domain: " + hostile},
		{"rules.yaml", "email_domain: example.com", hostile + ": x"},
		{"rules.yaml", "email_domain: example.com", "sub: { regex: " + hostile + " }"},
		{"rules.yaml", "roles:\n", "roles:\n  " + hostile + ": {}\n"},
		{"rules.yaml", "role: ", "role: " + hostile + " #"},
		{"rules.yaml", "default: deny", "default: " + hostile},
		{"rules.yaml", "op: { preset: generic }", "op: { preset: " + hostile + " }"},
		{"rules.yaml", "op: { preset: generic }", "op: { preset: generic }\n  " + hostile + ": { preset: generic }"},
		{"rules.yaml", "default: deny", "default: deny\ntests:\n  - { name: " + hostile + ", provider: op, claims: { sub: " + hostile + ", email: " + hostile + " }, expect: { role: x } }"},
		{"rules.yaml", "default: deny", "default: deny # " + terminal},
		{"rules.yaml", "default: deny", "default: deny\n" + terminal},
	} {
		back := s.replace(change.file, change.old, change.by)
		inputs += commands(fmt.Sprintf("%s with %.40q", change.file, change.by))
		back()
	}
	answer := func(status int, contentType, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header()["Content-Type"] = []string{contentType}
			w.Header()["Location"] = []string{"https://" + terminal}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	for what, set := range map[string]func(*bridgetest.Behaviour){
		"issuer":   func(b *bridgetest.Behaviour) { b.Discovery = func(m map[string]any) { m["issuer"] = terminal } },
		"endpoint": func(b *bridgetest.Behaviour) { b.Discovery = func(m map[string]any) { m["token_endpoint"] = terminal } },
		"https": func(b *bridgetest.Behaviour) {
			b.Discovery = func(m map[string]any) { m["jwks_uri"] = "https://" + terminal + "/" }
		},
		"algs": func(b *bridgetest.Behaviour) {
			b.Discovery = func(m map[string]any) { m["id_token_signing_alg_values_supported"] = []any{terminal} }
		},
		"PKCE": func(b *bridgetest.Behaviour) {
			b.Discovery = func(m map[string]any) { m["code_challenge_methods_supported"] = []any{terminal} }
		},
		"not JSON": func(b *bridgetest.Behaviour) {
			b.Handle = map[string]func(http.ResponseWriter, *http.Request) bool{"discovery": answer(200, "application/json", terminal)}
		},
		"twice": func(b *bridgetest.Behaviour) {
			b.Handle = map[string]func(http.ResponseWriter, *http.Request) bool{"discovery": answer(200, "application/json", `{`+hostile+`: 1, `+hostile+`: 2}`)}
		},
		"type": func(b *bridgetest.Behaviour) {
			b.Handle = map[string]func(http.ResponseWriter, *http.Request) bool{"discovery": answer(200, "text/\u009b31m", "{}")}
		},
		"redirect": func(b *bridgetest.Behaviour) {
			b.Handle = map[string]func(http.ResponseWriter, *http.Request) bool{"discovery": answer(302, "text/html", terminal)}
		},
		"encoding": func(b *bridgetest.Behaviour) {
			b.Handle = map[string]func(http.ResponseWriter, *http.Request) bool{"discovery": func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header()["Content-Encoding"] = []string{"\u009b31m\u202e"}
				return true
			}}
		},
		"a key": func(b *bridgetest.Behaviour) {
			b.JWKS = func([]byte) []byte {
				return []byte(`{"keys": [{"kty": ` + hostile + `, "kid": ` + hostile + `, "crv": ` + hostile + `}]}`)
			}
		},
		"a bad key": func(b *bridgetest.Behaviour) {
			b.JWKS = func(good []byte) []byte {
				return bytes.Replace(good, []byte(`"kid":"`), []byte(`"use": `+hostile+`, "x":`+hostile+`, "kid":"`), 1)
			}
		},
		"key set": func(b *bridgetest.Behaviour) { b.JWKS = func([]byte) []byte { return []byte(terminal) } },
	} {
		s.op.Set(func(b *bridgetest.Behaviour) { *b = bridgetest.Behaviour{}; set(b) })
		s.run("provider: "+what, "", "check", "--config", "config.yaml")
		s.run("provider: "+what, "", "check", "--config", "config.yaml", "--format", "json")
		inputs += 2
	}
	s.op.Set(func(b *bridgetest.Behaviour) { *b = bridgetest.Behaviour{} })
	s.people()
	for _, args := range [][]string{
		{"user", "disable", "--config", "config.yaml", "1", "--reason", terminal},
		{"user", "enable", "--config", "config.yaml", "1", "--dry-run"},
		{"user", "disable", "--config", "config.yaml", terminal + "@example.com"},
		{"user", "disable", "--config", "config.yaml", "two@example.com"},
		{"user", "disable", "--config", "config.yaml", "--issuer", terminal, "--subject", terminal},
		{"user", "list", "--config", "config.yaml"},
		{"user", "list", "--config", "config.yaml", "--format", "json"},
		{"user", "show", "--config", "config.yaml", "1"},
		{"user", "show", "--config", "config.yaml", "1", "--format", "json"},
		{"user", "export", "--config", "config.yaml", "1"},
		{"user", "set-role", "--config", "config.yaml", "1", "--role", terminal},
		{"user", "set-role", "--config", "config.yaml", "2", "--role", s.db.Role("customer")},
		{"user", "delete", "--config", "config.yaml", "1", "--dry-run"},
		{"user", "delete", "--config", "config.yaml", terminal, "--yes"},
		{"session", "list", "--config", "config.yaml"},
		{"session", "list", "--config", "config.yaml", "--format", "json"},
		{"session", "list", "--config", "config.yaml", "--user", terminal},
		{"session", "revoke", "--config", "config.yaml", terminal},
		{"session", "revoke", "--config", "config.yaml", "--user", "1", "--reason", terminal},
		{"rules", "who", s.db.Role("customer"), "--config", "config.yaml"},
		{"rules", "who", s.db.Role("customer"), "--config", "config.yaml", "--format", "json"},
		{"rules", "who", terminal, "--config", "config.yaml"},
		{"rules", "explain", "--config", "config.yaml", "--user", "1"},
		{"rules", "explain", "--config", "config.yaml", "--user", "1", "--format", "json"},
		{"rules", "explain", "--config", "config.yaml", "--user", "two@example.com"},
		{"rules", "explain", "--config", "config.yaml", "--ref", "ABCD-EFGH"},
		{"rules", "explain", "--config", "config.yaml", "--ref", terminal},
		{"rules", "explain", "--config", "config.yaml", "--claims", `{"sub": ` + hostile + `, "email": ` + hostile + `, "email_verified": true}`},
		{"rules", "explain", "--config", "config.yaml", "--claims", terminal},
		{"rules", "explain", "--config", "config.yaml", "--provider", terminal, "--claims", "{}"},
		{"rules", "explain", "--config", "config.yaml", "--row", terminal, "--claims", `{"sub":"x"}`},
		{"rules", "explain", "--config", "config.yaml", "--token", "-"},
		{"rules", "explain", "--config", "config.yaml", "--claims", "-"},
		{"rules", "check", terminal},
		{"check", "--config", terminal},
		{terminal},
		{"check", "--" + terminal},
		{"check", "--format", terminal},
		{"rules", "check", "-"},
		{"rules", "test", "-"},
		{"serve", "--log-level", terminal},
		{"user", terminal},
	} {
		s.run("people and arguments", terminal, args...)
		inputs++
	}
	bridgetest.Tried(t, inputs)
}

// people fills the tables with what providers may have sent.
func (s *stage) people() {
	conn, err := pgx.Connect(s.t.Context(), s.db.AdminURL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, sql := range []string{
		`INSERT INTO bridge.users (email, name) VALUES ($1::text || 'two@example.com', $1), ('two@example.com', $1), ('two@example.com', $1)`,
		`INSERT INTO bridge.identities (issuer, subject, user_id, provider, claims, last_login_at)
			SELECT $1, $1::text || id, id, CASE id WHEN 1 THEN 'op' ELSE $1 END, jsonb_build_object('sub', $1::text, 'email', $1::text || '@example.com', 'email_domain', 'example.com', $1::text, $1::text), now() FROM bridge.users`,
		`INSERT INTO bridge.sessions (id, token_hash, user_id, identity_id, provider, claims, role, created_at, last_seen_at, idle_expires_at, expires_at)
			SELECT gen_random_uuid(), sha256(i.id::text::bytea), i.user_id, i.id, $1, '{}', $1, now(), now(), now() + interval '1 hour', now() + interval '1 day' FROM bridge.identities i`,
		`INSERT INTO bridge.events (kind, ref, provider, issuer, subject, rule, reason, claims) VALUES ('refused', 'ABCD-EFGH', $1, $1, $1, $1, $1, jsonb_build_object($1::text, $1::text))`,
	} {
		if _, err := conn.Exec(s.t.Context(), sql, terminal); err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestAttack_AD01_Secrets: no command takes a secret from its command line, where everybody on the machine sees it, and none prints one.
func TestAttack_AD01_Secrets(t *testing.T) {
	inputs := 0
	parser, err := kong.New(&commandLine{})
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]bool{}
	_ = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			inputs++
			flags[flag.Name] = true
			if regexp.MustCompile(`secret|password|key|cookie|dsn|database|url|credential`).MatchString(flag.Name) || len(flag.Envs) > 0 {
				t.Errorf("--%s takes what may be a secret", flag.Name)
			}
		}
		return next(nil)
	})
	if !flags["config"] || len(flags) < 5 {
		t.Errorf("flags: %v", reflect.ValueOf(flags).MapKeys())
	}
	s := newStage(t)
	token := "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
	for _, args := range [][]string{{"rules", "explain", "--config", "config.yaml", "--token", token}, {"rules", "explain", "--config", "config.yaml", "--token=" + token}} {
		inputs++
		if out, code := s.run("a token as argument", "", args...); code != 2 || strings.Contains(out, token[30:]) {
			t.Errorf("exit code %d: %s", code, out)
		}
	}
	for _, stdin := range []string{token, token + "\n" + token, `{"id_token": "` + token + `"}`, token[:40]} {
		inputs++
		if out, code := s.run("a token on standard input", stdin, "rules", "explain", "--config", "config.yaml", "--token", "-"); code == 0 || strings.Contains(out, token[20:40]) {
			t.Errorf("exit code %d: %s", code, out)
		}
	}
	words := strings.Fields(secrets)
	for name, value := range map[string]string{
		"JWT_SECRET": words[0][:20], "COOKIE_KEY": words[3][:30], "CLIENT_SECRET": "", "DATABASE_URL": "postgres://bridge:canary-password@127.0.0.1:1/app?sslmode=nonsense",
	} {
		good := s.env[name]
		for _, bad := range []string{value, "postgres://bridge:canary-password@127.0.0.1:1/app", "host=127.0.0.1 port=1 password=canary-password", "\x00canary-password", `"canary-password`} {
			s.env[name] = bad
			for _, args := range [][]string{{"check", "--config", "config.yaml"}, {"serve", "--config", "config.yaml"}, {"migrate", "--config", "config.yaml"}, {"user", "disable", "--config", "config.yaml", "1"}, {"user", "list", "--config", "config.yaml"}, {"session", "revoke", "--config", "config.yaml", "--all", "--yes"}, {"rules", "who", "x", "--config", "config.yaml"}} {
				inputs++
				s.run(name+" broken", "", args...)
			}
		}
		s.env[name] = good
	}
	bridgetest.Tried(t, inputs)
}
