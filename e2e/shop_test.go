package e2e

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A shop is the scenario of the guide as an operator sets it up: a database with orders, a provider, the bridge behind the host name of a
// web site, and the orders API beside it.
type shop struct {
	site     string // origin of the web site; the bridge is at /auth/ there, the page at /orders
	public   string // the bridge's public_url
	provider string // host:port, the issuer is http:// before it
	private  string // host:port of the bridge's private listener
	db       *bridgetest.Database
	dir      string   // holds config.yaml, rules.yaml and two secrets
	env      []string // of the bridge
}

// newShop returns a shop that is not open yet: files, and a database without schema bridge.
func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{dir: t.TempDir(), db: bridgetest.EmptyDB(t), provider: freeAddress(t), private: freeAddress(t)}
	listen := freeAddress(t)
	s.openSite(t, listen)
	cookieKey := make([]byte, 32)
	rand.Read(cookieKey)
	s.env = append(os.Environ(), "DATABASE_URL="+s.db.URL, "DATABASE_OWNER_URL="+s.db.OwnerURL,
		"JWT_SECRET="+jwtSecret, "COOKIE_KEY="+base64.StdEncoding.EncodeToString(cookieKey))
	s.write(t, "basic.secret", "basic-client-secret-of-the-end-to-end-tests\n")
	s.write(t, "post.secret", "post-client-secret-of-the-end-to-end-tests\n")
	s.write(t, "rules.yaml", s.db.SQL(rules))
	s.write(t, "config.yaml", strings.NewReplacer("PUBLIC_URL", s.public, "LISTEN", listen, "PRIVATE", s.private,
		"AUTHENTICATOR", s.db.Role("authenticator"), "PROVIDER", s.provider).Replace(config))
	return s
}

// openShop returns a shop in which every process answers.
func openShop(t *testing.T) *shop {
	t.Helper()
	s := newShop(t)
	s.startProvider(t)
	if said, code := run(t, s.command("check")); code == 0 || !strings.Contains(said, "oidc-bridge migrate") {
		t.Errorf("check before the migration: exit code %d, want another one and the command to run:\n%s", code, said)
	}
	s.migrate(t)
	if said, code := run(t, s.command("check")); code != 0 {
		t.Fatalf("check: exit code %d\n%s", code, said)
	}
	s.serve(t)
	return s
}

// migrate sets up the database: schema bridge, then the guide's SQL.
func (s *shop) migrate(t *testing.T) {
	t.Helper()
	if said, code := run(t, s.command("migrate")); code != 0 {
		t.Fatalf("migrate: exit code %d\n%s", code, said)
	}
	if err := s.db.Exec(t.Context(), ordersSQL); err != nil {
		t.Fatal(err)
	}
}

// serve starts the bridge. When the test ends, it must end well on SIGTERM.
func (s *shop) serve(t *testing.T) {
	t.Helper()
	bridge := start(t, s.command("serve"))
	bridge.await(t, func() error { return answers("http://" + s.private + "/readyz") })
	t.Cleanup(func() {
		if code := bridge.stop(t); code != 0 {
			t.Errorf("serve: exit code %d after SIGTERM", code)
		}
	})
}

// jwtSecret is what bridge and API share.
var jwtSecret = rand.Text() + rand.Text()

const config = `
public_url: PUBLIC_URL
listen: LISTEN
private_listen: PRIVATE
insecure_dev: true
database:
  url: ${DATABASE_URL}
  owner_url: ${DATABASE_OWNER_URL}
  authenticator: AUTHENTICATOR
signing:
  jwt_secret: ${JWT_SECRET}
  ttl: 1h
cookie_keys: ["${COOKIE_KEY}"]
rules: rules.yaml
providers:
  basic:
    name: Shop accounts
    issuer: http://PROVIDER
    client_id: bridge-basic
    client_secret: { file: basic.secret }
    auth_method: client_secret_basic
    allow_private: true
  post:
    name: The same, by form
    issuer: http://PROVIDER
    client_id: bridge-post
    client_secret: { file: post.secret }
    auth_method: client_secret_post
    allow_private: true
`

const rules = `
version: 1
providers:
  basic: { preset: generic, claims: { groups: { type: set, default: [] } } }
  post:  { preset: generic, claims: { groups: { type: set, default: [] } } }
roles:
  admin: { privileged: true }
  customer: {}
rules:
  - name: shop accounts
    provider: basic
    when: { email_domain: example.com }
    by: groups
    to:
      - admins: admin
      - customers: customer
  - name: shop accounts by form
    provider: post
    when: { email_domain: example.com }
    by: groups
    to:
      - admins: admin
      - customers: customer
default: deny
token:
  email: { from: email }
users:
  email: { from: email }
  name: { from: name, on: create }
tests:
  - name: an administrator
    provider: basic
    claims: { sub: ada, email: ada@example.com, email_verified: true, groups: [staff, admins] }
    expect: { role: admin }
    refuse_if:
      - { groups: [staff] }
      - { email_verified: false }
`

// The guide's SQL: an admin sees all orders, a customer their own.
const ordersSQL = `
CREATE SCHEMA private;
CREATE TABLE private.orders (
	id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	user_id bigint NOT NULL REFERENCES bridge.users (id),
	item    text NOT NULL
);
CREATE FUNCTION current_user_id() RETURNS bigint LANGUAGE sql STABLE
	RETURN (nullif(current_setting('request.jwt.claims', true), '')::json ->> 'user_id')::bigint;
CREATE VIEW orders WITH (security_barrier) AS
	SELECT * FROM private.orders WHERE current_user = 'admin' OR user_id = (SELECT current_user_id());
GRANT SELECT ON orders TO customer, admin;`

func (s *shop) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// command is a command of the bridge, started as an operator does in the folder with the configuration.
func (s *shop) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = s.dir, s.env
	return cmd
}

// openSite starts the web site that the visitors see. It hands /auth/ to the bridge, as nginx would.
func (s *shop) openSite(t *testing.T, bridge string) {
	mux := http.NewServeMux()
	mux.Handle("/auth/", httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: bridge}))
	mux.HandleFunc("/orders", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!DOCTYPE html><title>Your orders</title>")
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	// Another host name than the provider's, so that browsers see two sites.
	s.site = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	s.public = s.site + "/auth"
}

// startProvider starts oidc-provider.
func (s *shop) startProvider(t *testing.T) *program {
	t.Helper()
	_, port, _ := net.SplitHostPort(s.provider)
	cmd := exec.Command("node", "provider.mjs", "--bridge", s.public, "--port", port)
	cmd.Dir = "oidc-provider"
	if _, err := cmd.StdinPipe(); err != nil { // it ends when this pipe does
		t.Fatal(err)
	}
	p := start(t, cmd)
	p.await(t, func() error { return answers("http://" + s.provider + "/.well-known/openid-configuration") })
	return p
}

// apis starts what serves the view orders, and returns their names and addresses.
func (s *shop) apis(t *testing.T) map[string]string {
	t.Helper()
	apis := map[string]string{}
	name := cmp.Or(os.Getenv("POSTGREST_BIN"), "postgrest")
	if bin, err := exec.LookPath(name); err == nil {
		apis["PostgREST"] = s.startPostgREST(t, bin)
	} else if name != "postgrest" {
		t.Errorf("POSTGREST_BIN: %v", err)
	}
	return apis
}

func (s *shop) startPostgREST(t *testing.T, bin string) string {
	t.Helper()
	address := freeAddress(t)
	host, port, _ := net.SplitHostPort(address)
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), "PGRST_DB_URI="+s.db.AuthenticatorURL, "PGRST_DB_SCHEMAS=public",
		"PGRST_DB_ANON_ROLE="+s.db.Role("anonymous"), "PGRST_JWT_SECRET="+jwtSecret, "PGRST_JWT_AUD=postgrest",
		"PGRST_SERVER_HOST="+host, "PGRST_SERVER_PORT="+port)
	start(t, cmd).await(t, func() error { return answers("http://" + address + "/") })
	return "http://" + address
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// answers returns nil when a GET of the URL is answered with 200.
func answers(url string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}
