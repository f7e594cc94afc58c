package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/cmd/demo/front"
	"github.com/oidc-bridge/oidc-bridge/deploy"
)

// A shop is the scenario of the guide as an operator sets it up: a database with orders, a provider, the bridge, the orders API, and the
// demo's page, behind one host name.
type shop struct {
	site   *http.ServeMux
	origin string // of the site; the page is at / there, the bridge at /auth/, the API at /orders
	public string // the bridge's public_url
	issuer string // of the provider that startProvider started
	db     *bridgetest.Database
	dir    string       // holds config.yaml, rules.yaml and the secrets
	env    []string     // of the bridge
	tokens atomic.Int32 // requests for /api_token that reached the site
	ear    *ear

	mu      sync.Mutex
	logouts []sentLogout // that providers sent
}

// newShop returns a shop without bridge and provider: a site without pages, and a database without schema bridge.
func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{dir: t.TempDir(), db: bridgetest.EmptyDB(t), site: http.NewServeMux()}
	server := httptest.NewServer(s.site)
	t.Cleanup(server.Close)
	// Another host name than the provider's, so that browsers see two sites.
	s.origin = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	s.public = s.origin + "/auth"
	cookieKey := make([]byte, 32)
	rand.Read(cookieKey)
	key := base64.StdEncoding.EncodeToString(cookieKey)
	s.env = append(os.Environ(), "DATABASE_URL="+withPassword(t, s.db.URL), "DATABASE_OWNER_URL="+withPassword(t, s.db.OwnerURL),
		"JWT_SECRET="+jwtSecret, "COOKIE_KEY="+key)
	s.ear = newEar(map[string]string{jwtSecret: "the JWT secret", key: "the cookie key"})
	return s
}

// openShop returns a shop in which every process answers.
func openShop(t *testing.T) *shop {
	t.Helper()
	s := newShop(t)
	s.setUp(t, s.startProvider(t, "0"))
	s.serve(t)
	return s
}

// startProvider starts oidc-provider and returns its issuer.
func (s *shop) startProvider(t *testing.T, port string, flags ...string) string {
	t.Helper()
	s.runProvider(t, port, flags...)
	return s.issuer
}

func (s *shop) runProvider(t *testing.T, port string, flags ...string) *program {
	t.Helper()
	cmd := exec.Command("node", append([]string{"provider.mjs", "--bridge", s.public, "--port", port}, flags...)...)
	cmd.Dir = "oidc-provider"
	if _, err := cmd.StdinPipe(); err != nil { // it ends when this pipe does
		t.Fatal(err)
	}
	provider := start(t, cmd)
	s.issuer = provider.announced(t, "issuer")["issuer"].(string)
	return provider
}

// setUp sets up a shop whose people log in at oidc-provider.
func (s *shop) setUp(t *testing.T, issuer string) {
	t.Helper()
	s.write(t, "post.secret", "post-client-secret-of-the-end-to-end-tests\n")
	s.configure(t, strings.ReplaceAll(providers, "ISSUER", issuer), rules)
	s.migrate(t)
}

// configure writes the files of an operator: the providers of config.yaml, and rules.yaml.
func (s *shop) configure(t *testing.T, providers, rules string) {
	t.Helper()
	s.write(t, "rules.yaml", s.db.SQL(rules))
	s.write(t, "config.yaml", strings.NewReplacer("PUBLIC_URL", s.public, "AUTHENTICATOR", s.db.Role("authenticator")).Replace(config)+providers)
}

// migrate does the rest before the first start: schema bridge, the guide's SQL, and a look at the whole.
func (s *shop) migrate(t *testing.T) {
	t.Helper()
	if said, code := run(t, s.command("check")); code == 0 || !strings.Contains(said, "oidc-bridge migrate") {
		t.Errorf("check before the migration: exit code %d, want another one and the command to run:\n%s", code, said)
	}
	if said, code := run(t, s.command("migrate")); code != 0 {
		t.Fatalf("migrate: exit code %d\n%s", code, said)
	}
	orders, err := deploy.SQL.ReadFile("sql/orders.sql")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Exec(t.Context(), string(orders)); err != nil {
		t.Fatal(err)
	}
	if said, code := run(t, s.command("check")); code != 0 {
		t.Fatalf("check: exit code %d\n%s", code, said)
	}
}

// serve starts the bridge and the API, and the site hands requests to them, as nginx would. When the test ends, the bridge must end well on
// SIGTERM.
func (s *shop) serve(t *testing.T) *program {
	t.Helper()
	bridge := start(t, s.command("serve", "--log-level", "debug"))
	serving := bridge.announced(t, "private_listen")
	t.Cleanup(func() {
		metrics := bodyOf(t, "http://"+serving["private_listen"].(string)+"/metrics")
		if code := bridge.stop(t); code != 0 {
			t.Errorf("serve: exit code %d after SIGTERM", code)
		}
		s.ear.silent(t, bridge.output.String(), metrics)
	})
	if got := status("http://" + serving["private_listen"].(string) + "/readyz"); got != http.StatusOK {
		t.Errorf("readyz: status %d, want 200", got)
	}
	api, err := url.Parse(s.startAPI(t, 16))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: serving["listen"].(string)})
	proxy.ModifyResponse = s.ear.hear
	site, err := front.New(proxy, api, front.Page{StandIn: true})
	if err != nil {
		t.Fatal(err)
	}
	s.site.Handle("/", site)
	s.site.HandleFunc("/auth/api_token", func(w http.ResponseWriter, r *http.Request) {
		s.tokens.Add(1)
		site.ServeHTTP(w, r)
	})
	s.site.HandleFunc("/auth/backchannel-logout/", s.hearLogouts(site))
	return bridge
}

// jwtSecret is what bridge and API share.
var jwtSecret = rand.Text() + rand.Text()

const config = `
public_url: PUBLIC_URL
listen: 127.0.0.1:0
private_listen: 127.0.0.1:0
insecure_dev: true
trusted_proxies: [127.0.0.1/32]
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
`

// The two connections to oidc-provider, one for each way of client authentication.
const providers = `
  basic:
    name: Shop accounts
    issuer: ISSUER
    client_id: bridge-basic
    client_secret: basic-client-secret-of-the-end-to-end-tests
    auth_method: client_secret_basic
    allow_private: true
  post:
    name: The same, by form
    issuer: ISSUER
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

// apis starts what serves the view orders, and returns names and addresses: the stand-in for each version of PostgREST, and PostgREST
// itself: $POSTGREST_BIN, unless that is none, or postgrest on PATH.
func (s *shop) apis(t *testing.T) map[string]string {
	t.Helper()
	apis := map[string]string{}
	for _, version := range []int{12, 13, 14, 16} {
		apis[fmt.Sprintf("stand-in for PostgREST %d", version)] = s.startAPI(t, version)
	}
	postgrest := os.Getenv("POSTGREST_BIN")
	if postgrest == "" {
		postgrest, _ = exec.LookPath("postgrest")
	}
	if postgrest != "" && postgrest != "none" {
		apis["PostgREST"] = s.startPostgREST(t, postgrest)
	}
	return apis
}

// startAPI starts the stand-in for a version of PostgREST, and returns its address.
func (s *shop) startAPI(t *testing.T, version int) string {
	t.Helper()
	api, err := bridgetest.StartAPI(t.Context(), bridgetest.APIOptions{
		DatabaseURL: s.db.AuthenticatorURL, Version: version, Schema: "api", AnonRole: s.db.Role("anonymous"),
		JWTSecret: jwtSecret, JWTAud: "postgrest", PreRequest: "bridge.pre_request",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.Close() })
	return api.URL()
}

func (s *shop) startPostgREST(t *testing.T, postgrest string) string {
	t.Helper()
	address := freeAddress(t)
	host, port, _ := net.SplitHostPort(address)
	cmd := exec.Command(postgrest)
	cmd.Env = append(os.Environ(), "PGRST_DB_URI="+s.db.AuthenticatorURL, "PGRST_DB_SCHEMAS=api",
		"PGRST_DB_ANON_ROLE="+s.db.Role("anonymous"), "PGRST_JWT_SECRET="+jwtSecret, "PGRST_JWT_AUD=postgrest",
		"PGRST_DB_PRE_REQUEST=bridge.pre_request",
		"PGRST_SERVER_HOST="+host, "PGRST_SERVER_PORT="+port)
	start(t, cmd)
	// Until it has read the schema it answers 503.
	bridgetest.Await(t, "PostgREST", func() bool { return status("http://"+address+"/orders") == http.StatusUnauthorized })
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

// status returns the status with which a GET of the URL is answered, 0 when it is not.
func status(url string) int {
	resp, err := http.Get(url)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

func bodyOf(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, error %v", url, response.StatusCode, err)
	}
	return string(body)
}

// count counts rows, as superuser.
func (s *shop) count(t *testing.T, from string) (rows int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM "+from).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}
