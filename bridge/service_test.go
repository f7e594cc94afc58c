package bridge_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

func TestMain(m *testing.M) { bridgetest.Main(m) }

const jwtSecret = "0f8b3c1d5e7a92640f8b3c1d5e7a9264-tests"

// personas of the orders scenario.
var personas = []bridgetest.Persona{
	{Subject: "ada", Name: "Ada", IDToken: map[string]any{
		"email": "ada@example.com", "email_verified": true, "name": "Ada", "groups": []any{"/admins"},
	}},
	{Subject: "carl", Name: "Carl", IDToken: map[string]any{
		"email": "carl@example.com", "email_verified": true, "name": "Carl", "groups": []any{},
	}},
	{Subject: "cora", Name: "Cora", IDToken: map[string]any{"email": "cora@example.com", "email_verified": true, "name": "Cora", "groups": []any{}}},
	{Subject: "una", Name: "Una", IDToken: map[string]any{"email": "una@example.com", "email_verified": false, "groups": []any{}}},
	{Subject: "leo", Name: "Leo", IDToken: map[string]any{
		"email": "leo@example.com", "email_verified": true, "groups": []any{"/left"},
	}},
}

const ordersRules = `
version: 1
providers:
  op:
    preset: generic
    claims:
      groups: { type: set, default: [] }
roles:
  admin: { privileged: true, max_ttl: 10m }
  customer: {}
deny:
  - name: leavers
    when: { groups: /left }
    message: Your account is closed.
rules:
  - name: admins
    when: { groups: /admins }
    role: admin
  - name: customers
    when: { email_domain: example.com }
    role: customer
default: deny
token:
  email: { from: email }
users:
  email: { from: email }
  name: { from: name, on: create }
tests:
  - name: an admin
    provider: op
    claims: { sub: a, groups: [/admins] }
    expect: { role: admin }
    refuse_if:
      - { groups: [/admin] }
`

// A service is a bridge as an operator runs it, with a database and a provider.
type service struct {
	t       *testing.T
	URL     string // public_url
	Private string
	DB      *bridgetest.Database
	OP      *bridgetest.OP
	Config  *bridge.Config
	Log     *bridgetest.Log
	Dir     string         // of config.yaml and rules.yaml
	Reload  chan os.Signal // SIGHUP
	clock   atomic.Int64   // nanoseconds that the bridge's clock is ahead
	heard   *recorder      // of the public listener
}

// setting changes how newService starts the bridge.
type setting func(*settings)

type settings struct {
	rules    string
	prefix   string // path of public_url
	config   string // more top-level YAML
	provider string // more YAML lines of provider op
	signing  string // more of the section signing
	listen   string // database.listen; off unless a test is about memory: most ask right after they changed a row
	clock    bool   // the provider has the bridge's
	url      func(db *bridgetest.Database) string
	database *bridgetest.Database
}

func withRules(text string) setting    { return func(s *settings) { s.rules = text } }
func withConfig(text string) setting   { return func(s *settings) { s.config = text } }
func withProvider(text string) setting { return func(s *settings) { s.provider = text } }

func withOneClock() setting                        { return func(s *settings) { s.clock = true } }
func withSigning(text string) setting              { return func(s *settings) { s.signing = ", " + text } }
func withPrefix(path string) setting               { return func(s *settings) { s.prefix = path } }
func withDatabase(db *bridgetest.Database) setting { return func(s *settings) { s.database = db } }
func withDatabaseURL(f func(db *bridgetest.Database) string) setting {
	return func(s *settings) { s.url = f }
}

// withCounts puts a counting proxy in front of the database; counts is set when newService returns.
func withCounts(t *testing.T, counts **bridgetest.Counts) setting {
	return withDatabaseURL(func(db *bridgetest.Database) (url string) {
		url, *counts = bridgetest.CountRoundTrips(t, db.URL)
		return url
	})
}

func newService(t *testing.T, set ...setting) *service {
	t.Helper()
	o := settings{rules: ordersRules, listen: "off", url: func(db *bridgetest.Database) string { return db.URL }}
	for _, f := range set {
		f(&o)
	}
	s := &service{t: t, DB: o.database, Log: bridgetest.NewLog(t), Dir: t.TempDir(), Reload: make(chan os.Signal, 1)}
	if s.DB == nil {
		s.DB = bridgetest.DB(t)
	}
	s.heard = &recorder{Listener: listen(t)}
	public, private := s.heard, listen(t)
	s.URL = "http://" + public.Addr().String() + o.prefix
	s.Private = "http://" + private.Addr().String()
	clock := time.Now
	if o.clock {
		clock = s.now
	}
	s.OP = bridgetest.NewOP(t, bridgetest.OPOptions{
		Now:      clock,
		Personas: personas,
		Clients:  []bridgetest.Client{{ID: "bridge", Secret: clientSecret, RedirectURIs: []string{s.URL + "/callback/op"}, PostLogoutRedirectURIs: []string{s.URL + "/logged-out"}, BackchannelLogoutURI: s.URL + "/backchannel-logout/op"}},
	})
	write(t, filepath.Join(s.Dir, "rules.yaml"), s.DB.SQL(o.rules))
	write(t, filepath.Join(s.Dir, "config.yaml"), fmt.Sprintf(`
public_url: %s
insecure_dev: true
database: { url: "%s", authenticator: %s, listen: %s }
signing: { jwt_secret: %s%s }
cookie_keys: ["%s"]
providers:
  op:
    issuer: %s
    client_id: bridge
    client_secret: "%s"
    %s
%s`, s.URL, withPassword(o.url(s.DB)), s.DB.Role("authenticator"), o.listen, jwtSecret, o.signing, cookieKey(1), s.OP.Issuer(), clientSecret, o.provider, s.DB.SQL(o.config)))
	config, rules := load(t, filepath.Join(s.Dir, "config.yaml"))
	s.Config = config
	running(t, config, rules, bridge.Options{Version: "test", Log: s.Log.Logger(), Now: s.now}, public, private, s.Reload)
	t.Cleanup(func() { // while it still answers
		for _, leak := range s.leaks(s.Log.Lines()) {
			t.Error(leak)
		}
	})
	return s
}

func (s *service) now() time.Time { return time.Now().Add(time.Duration(s.clock.Load())) }

// advance moves the bridge's clock.
func (s *service) advance(d time.Duration) { s.clock.Add(int64(d)) }

func load(t *testing.T, configFile string) (*bridge.Config, *mapping.Rules) {
	t.Helper()
	config, rules, findings := bridge.Load(configFile, os.LookupEnv)
	if strictyaml.Errors(findings) {
		t.Fatal(findings)
	}
	return config, rules
}

// running serves until the test ends, and returns what serves.
func running(t *testing.T, config *bridge.Config, rules *mapping.Rules, o bridge.Options, public, private net.Listener, reload <-chan os.Signal) *bridge.Bridge {
	t.Helper()
	b, err := bridge.New(t.Context(), config, rules, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, public, private, reload) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.Close()
	})
	return b
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func cookieKey(seed byte) string {
	sum := sha256.Sum256([]byte{seed})
	return base64.StdEncoding.EncodeToString(sum[:])
}

// login goes through the provider as the persona and returns the browser and the page it ended at.
func (s *service) login(subject, returnTo string) (*bridgetest.Browser, *bridgetest.Page) {
	s.t.Helper()
	b := bridgetest.NewBrowser()
	return b, s.loginWith(b, subject, returnTo)
}

func (s *service) loginWith(b *bridgetest.Browser, subject, returnTo string) *bridgetest.Page {
	s.t.Helper()
	page, err := b.Open(s.t.Context(), s.URL+"/login?return_to="+returnTo)
	if err == nil {
		page, err = b.ChoosePersona(s.t.Context(), page, subject)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return page
}

// token fetches /api_token as a page of the application does.
func (s *service) token(b *bridgetest.Browser) (*bridgetest.Page, map[string]any) {
	s.t.Helper()
	page, err := b.Fetch(s.t.Context(), http.MethodGet, s.URL+"/api_token", nil, "")
	if err != nil { // a fetch needs a page, any page
		if _, err = b.Open(s.t.Context(), s.URL+"/"); err == nil {
			page, err = b.Fetch(s.t.Context(), http.MethodGet, s.URL+"/api_token", nil, "")
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	var answer map[string]any
	if err := page.JSON(&answer); err != nil {
		s.t.Fatalf("%d %s: %v", page.Status, page.Body, err)
	}
	return page, answer
}

// claims decodes the payload of a token without looking at its signature.
func claims(t *testing.T, token any) map[string]any {
	t.Helper()
	parts := strings.Split(fmt.Sprint(token), ".")
	if len(parts) != 3 {
		t.Fatalf("not a JWT: %v", token)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// row runs a query as superuser and returns the one value it gives.
func row[T any](t *testing.T, db *bridgetest.Database, sql string, args ...any) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var value T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
