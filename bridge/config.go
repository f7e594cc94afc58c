package bridge

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// Config is config.yaml, checked. LoadConfig is the only place that makes one; config.example.yaml explains every key.
type Config struct {
	PublicURL      *url.URL       // what the browser sees, without a trailing slash; the path prefix of every route
	Listen         string         // host:port of the public listener
	PrivateListen  string         // host:port of /healthz, /readyz and /metrics
	InsecureDev    bool           // http and plain cookie names, on loopback only
	TrustedProxies []netip.Prefix // peers whose X-Forwarded-For is believed
	AllowedOrigins []string       // exact origins of other pages that may fetch /api_token and be returned to
	Database       DatabaseConfig
	Signing        SigningConfig
	CookieKeys     []Secret // 32 bytes each; the first seals, all open
	Session        SessionConfig
	Rules          string // path of the rules file, relative ones resolved from config.yaml's folder
	Hook           string // users.hook: schema-qualified name of a SQL function, or ""
	Providers      []ProviderConfig
}

// DatabaseConfig is the section `database`.
type DatabaseConfig struct {
	URL           Secret // connection string of the runtime role
	OwnerURL      Secret // connection string of the schema's owner, for `migrate`
	Authenticator string // the role that PostgREST logs in as
}

// SigningConfig is the section `signing`.
type SigningConfig struct {
	Key      Secret        // the bytes of the HMAC key, decoded when jwt_secret_is_base64
	Audience string        // the tokens' aud
	TTL      time.Duration // life of a token, 10 s to 1 h
}

// SessionConfig is the section `session`.
type SessionConfig struct {
	Idle     time.Duration // ends when unused for this long
	Absolute time.Duration // ends this long after the login, whatever happens
}

// ProviderConfig is one connection below `providers`.
type ProviderConfig struct {
	ID              string // its key: part of its URLs and of the rules file
	Name            string // what people see
	Google          bool   // preset: google
	Issuer          string
	ClientID        string
	ClientSecret    Secret
	AuthMethod      string // client_secret_basic or client_secret_post
	Scopes          []string
	Alg             string // the one algorithm of its tokens
	UserInfo        string // auto, always or never
	AuthorizeParams map[string]string
	CAFile          string
	AllowPrivate    bool // its host names may resolve to private addresses
}

var (
	topKeys = []string{
		"public_url", "listen", "private_listen", "insecure_dev", "trusted_proxies", "allowed_origins", "database", "signing",
		"cookie_keys", "session", "rules", "users", "anonymous", "proxy", "providers",
	}
	providerKeys = []string{
		"name", "preset", "issuer", "client_id", "client_secret", "auth_method", "scopes", "alg", "userinfo", "authorize_params",
		"ca_file", "allow_private",
	}
	algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

	providerID  = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)
	publicPath  = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*$`)
	hookName    = regexp.MustCompile(`^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$`)
	paramName   = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
	envVariable = regexp.MustCompile(`\$\$|\$\{([^}]*)\}?`)
	envName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	plainRole   = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)
)

// LoadConfig parses and checks the configuration text, which came from the named file. lookup finds environment variables, as
// os.LookupEnv does. Config is nil when any finding is an error.
func LoadConfig(file string, text []byte, lookup func(string) (string, bool)) (*Config, []strictyaml.Finding) {
	l := newConfigLoader(file, text, lookup)
	if l.Root() == nil {
		return nil, l.Findings()
	}
	l.expand(l.Root())
	c := l.config(l.Root())
	if findings := l.Findings(); strictyaml.Errors(findings) {
		return nil, findings
	}
	return c, l.Findings()
}

// LoadDatabase reads the section `database` of config.yaml, for commands that need nothing else: they run where the other secrets are not.
func LoadDatabase(configFile string, lookup func(string) (string, bool)) (*DatabaseConfig, []strictyaml.Finding) {
	text, missing := readFile(configFile, "write one, config.example.yaml shows how, or name it with --config")
	if missing != nil {
		return nil, missing
	}
	l := newConfigLoader(configFile, text, lookup)
	var database DatabaseConfig
	var section *yaml.Node
	for _, e := range l.Mapping(l.Root(), "the configuration", topKeys...) {
		if e.Key == "database" {
			section = e.Value
		}
	}
	if section != nil {
		l.expand(section)
	}
	l.database(section, &database)
	if findings := l.Findings(); strictyaml.Errors(findings) {
		return nil, findings
	}
	return &database, l.Findings()
}

// RuntimeRole is the role of database.url.
func (d *DatabaseConfig) RuntimeRole() (string, error) {
	config, err := pgxpool.ParseConfig(d.URL.Reveal())
	if err != nil {
		return "", err
	}
	return config.ConnConfig.User, nil
}

// configLoader walks the document. It never stops at a finding.
type configLoader struct {
	*strictyaml.Document
	lookup func(string) (string, bool)
	dir    string
	broken map[*yaml.Node]bool // scalars whose variables could not be replaced: said once, not again as a bad value
}

func newConfigLoader(file string, text []byte, lookup func(string) (string, bool)) *configLoader {
	return &configLoader{
		Document: strictyaml.ParseSecret(file, text), lookup: lookup, dir: filepath.Dir(file), broken: map[*yaml.Node]bool{},
	}
}

// expand replaces ${NAME} in scalar values; keys stay as they are.
func (l *configLoader) expand(n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			l.expand(n.Content[i])
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			l.expand(item)
		}
	case yaml.ScalarNode:
		n.Value = envVariable.ReplaceAllStringFunc(n.Value, func(match string) string {
			if match == "$$" {
				return "$"
			}
			name, closed := strings.CutSuffix(match[2:], "}")
			if !closed || !envName.MatchString(name) {
				l.broken[n] = true
				l.Errorf(n, "E104", "write ${NAME}, or $${ for a literal ${", "not a variable: %q", match)
				return ""
			}
			value, set := l.lookup(name)
			if !set {
				l.broken[n] = true
				l.Errorf(n, "E104", fmt.Sprintf("set it in the environment of this process, or write the value as {file: …}: %s", mustBeSet(name)),
					"environment variable %s is not set", name)
			}
			return value
		})
	}
}

func mustBeSet(name string) string { return name + " must be configured" }

func (l *configLoader) config(root *yaml.Node) *Config {
	c := &Config{
		Listen: ":8080", PrivateListen: "127.0.0.1:9090", Rules: filepath.Join(l.dir, "rules.yaml"),
		Session: SessionConfig{Idle: 12 * time.Hour, Absolute: 7 * 24 * time.Hour},
	}
	sections := map[string]*yaml.Node{}
	for _, e := range l.Mapping(root, "the configuration", topKeys...) {
		sections[e.Key] = e.Value
	}
	if n := sections["insecure_dev"]; n != nil {
		c.InsecureDev, _ = l.Bool(n, "insecure_dev")
	}
	c.PublicURL = l.publicURL(sections["public_url"], c.InsecureDev)
	l.address(sections["listen"], "listen", &c.Listen)
	l.address(sections["private_listen"], "private_listen", &c.PrivateListen)
	for _, n := range l.Sequence(sections["trusted_proxies"], "trusted_proxies") {
		if text, ok := l.text(n, "a trusted proxy"); ok {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				l.Errorf(n, "E104", "write it like 10.0.0.0/8", "not a CIDR range")
			}
			c.TrustedProxies = append(c.TrustedProxies, prefix)
		}
	}
	for _, n := range l.Sequence(sections["allowed_origins"], "allowed_origins") {
		if text, ok := l.text(n, "an allowed origin"); ok {
			if u, err := url.Parse(text); err != nil || u.Scheme+"://"+u.Host != text || u.Host == "" || !l.secureOrDev(u, c.InsecureDev) {
				l.Errorf(n, "E104", "write it like https://shop.example.com: scheme, host and port, nothing else", "not an origin")
			}
			c.AllowedOrigins = append(c.AllowedOrigins, text)
		}
	}
	l.database(sections["database"], &c.Database)
	l.signing(sections["signing"], &c.Signing)
	l.cookieKeys(sections["cookie_keys"], c)
	l.session(sections["session"], &c.Session)
	if n := sections["rules"]; n != nil {
		if text, ok := l.text(n, "rules"); ok {
			c.Rules = l.path(text)
		}
	}
	for _, e := range l.Mapping(sections["users"], "users", "hook") {
		if e.Value.Tag == "!!null" || e.Value.Value == "" && e.Value.Kind == yaml.ScalarNode && !l.broken[e.Value] {
			continue
		}
		if text, ok := l.text(e.Value, "users.hook"); ok && !hookName.MatchString(text) {
			l.Errorf(e.Value, "E104", "write it like public.bridge_user: schema, dot, function, in lower case", "not a function name")
		} else {
			c.Hook = text
		}
	}
	if n := sections["anonymous"]; n != nil {
		if text, ok := l.text(n, "anonymous"); ok && text != "refuse" {
			l.Errorf(n, "E104", "write refuse: a role for people without session comes with /auth and the proxy",
				"this version has no anonymous role")
		}
	}
	if n := sections["proxy"]; n != nil {
		l.Errorf(n, "E104", "leave `proxy` out: let the page ask /api_token and call PostgREST itself", "this version has no reverse proxy")
	}
	l.providers(sections["providers"], c)
	return c
}

// text is Document.Text without a second finding for a scalar whose variables are missing.
func (l *configLoader) text(n *yaml.Node, what string) (string, bool) {
	if l.broken[n] {
		return "", false
	}
	text, ok := l.Text(n, what)
	if ok && text == "" {
		l.Errorf(n, "E104", "", "%s is empty", what)
		return "", false
	}
	return text, ok
}

func (l *configLoader) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(l.dir, name)
}

// oneOf reads a text that must be among the allowed ones.
func (l *configLoader) oneOf(n *yaml.Node, what string, allowed ...string) string {
	text, ok := l.text(n, what)
	if ok && !slices.Contains(allowed, text) {
		l.Errorf(n, "E104", "allowed: "+strings.Join(allowed, ", "), "unknown value of %s", what)
	}
	return text
}

func (l *configLoader) address(n *yaml.Node, what string, to *string) {
	if n == nil {
		return
	}
	text, ok := l.text(n, what)
	if !ok {
		return
	}
	if _, _, err := net.SplitHostPort(text); err != nil {
		l.Errorf(n, "E104", `write it like ":8080" or "127.0.0.1:9090"`, "%s must be host:port", what)
		return
	}
	*to = text
}

// isLoopback reports whether a URL's host name can only mean this machine.
func isLoopback(u *url.URL) bool {
	host := u.Hostname()
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

func (l *configLoader) secureOrDev(u *url.URL, insecureDev bool) bool {
	return u.Scheme == "https" || u.Scheme == "http" && insecureDev && isLoopback(u)
}

func (l *configLoader) publicURL(n *yaml.Node, insecureDev bool) *url.URL {
	if n == nil {
		l.Errorf(l.Root(), "E104", "public_url: https://app.example.com/auth", "public_url is missing")
		return nil
	}
	text, ok := l.text(n, "public_url")
	if !ok {
		return nil
	}
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		l.Errorf(n, "E104", "write it like https://app.example.com/auth", "public_url is not a URL")
	case !l.secureOrDev(u, insecureDev):
		l.Errorf(n, "E104", "use https; on this machine alone, http://localhost:8080 with insecure_dev: true works too",
			"public_url must be https")
	case insecureDev && !isLoopback(u):
		l.Errorf(n, "E104", "remove insecure_dev, it is for loopback and *.localhost only", "insecure_dev with a public host name")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(text, "#"):
		l.Errorf(n, "E104", "scheme, host, port and path prefix only", "public_url has a user, query or fragment")
	case u.Host != strings.ToLower(u.Host):
		l.Errorf(n, "E104", "browsers send it in lower case", "the host of public_url is not in lower case")
	case !publicPath.MatchString(u.EscapedPath()) || strings.Contains(u.Path+"/", "/../") || strings.Contains(u.Path+"/", "/./"):
		l.Errorf(n, "E104", "plain segments such as /auth", "the path of public_url")
	default:
		return u
	}
	return nil
}

func (l *configLoader) database(n *yaml.Node, to *DatabaseConfig) {
	to.Authenticator = "authenticator"
	var urlNode, ownerNode *yaml.Node
	for _, e := range l.Mapping(n, "database", "url", "owner_url", "authenticator", "listen") {
		switch e.Key {
		case "url":
			urlNode = e.Value
		case "owner_url":
			ownerNode = e.Value
		case "authenticator":
			to.Authenticator, _ = l.text(e.Value, "database.authenticator")
		case "listen":
			l.oneOf(e.Value, "database.listen", "auto", "off")
		}
	}
	to.URL = l.databaseURL(urlNode, n, "database.url", "DATABASE_URL", true)
	to.OwnerURL = l.databaseURL(ownerNode, n, "database.owner_url", "DATABASE_OWNER_URL", false)
	if to.OwnerURL.Empty() {
		to.OwnerURL = to.URL
	}
}

func (l *configLoader) databaseURL(n, section *yaml.Node, what, env string, required bool) Secret {
	secret, found := l.secret(n, section, what, env, required)
	if !found {
		return Secret{}
	}
	// pgx keeps the password out of its message, and so do we with the rest of the string.
	config, err := pgxpool.ParseConfig(secret.Reveal())
	if err != nil {
		l.Errorf(n, "E104", "write it like postgres://bridge_runtime:PASSWORD@db.example.com:5432/app?sslmode=verify-full",
			"%s is not a PostgreSQL connection string", what)
		return Secret{}
	}
	if _, set := config.ConnConfig.RuntimeParams["default_query_exec_mode"]; set || strings.Contains(secret.Reveal(), "exec_mode=simple") {
		l.Errorf(n, "E104", "remove default_query_exec_mode", "%s asks for another protocol than the extended one", what)
	}
	return secret
}

func (l *configLoader) signing(n *yaml.Node, to *SigningConfig) {
	*to = SigningConfig{Audience: "postgrest", TTL: 15 * time.Minute}
	var secretNode *yaml.Node
	isBase64 := false
	for _, e := range l.Mapping(n, "signing", "jwt_secret", "jwt_secret_is_base64", "alg", "audience", "ttl") {
		switch e.Key {
		case "jwt_secret":
			secretNode = e.Value
		case "jwt_secret_is_base64":
			isBase64, _ = l.Bool(e.Value, "jwt_secret_is_base64")
		case "alg":
			l.oneOf(e.Value, "signing.alg", "HS256")
		case "audience":
			to.Audience, _ = l.text(e.Value, "signing.audience")
		case "ttl":
			if ttl, ok := l.Duration(e.Value, "signing.ttl"); ok {
				if ttl < 10*time.Second || ttl > time.Hour {
					l.Errorf(e.Value, "E104", "10s to 1h; 15m is the default", "signing.ttl is out of bounds")
				}
				to.TTL = ttl
			}
		}
	}
	secret, found := l.secret(secretNode, n, "signing.jwt_secret", "JWT_SECRET", true)
	if !found {
		return
	}
	key, err := signingKey(secret.Reveal(), isBase64)
	if err != nil {
		at := secretNode
		if at == nil {
			at = l.Root()
		}
		l.Errorf(at, "E104", "make one with: openssl rand -hex 32 (and give PostgREST the same)", "signing.jwt_secret: %v", err)
		return
	}
	to.Key = NewSecret(string(key))
}

func (l *configLoader) cookieKeys(n *yaml.Node, c *Config) {
	const fix = "make one with: openssl rand -base64 32"
	add := func(at *yaml.Node, text string) {
		key, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
		if err != nil || len(key) != 32 {
			l.Errorf(at, "E104", fix, "a cookie key must be 32 bytes in base64")
			return
		}
		if slices.Equal(key, slices.Repeat(key[:1], 32)) {
			l.Errorf(at, "E104", fix, "a cookie key that is one byte repeated")
			return
		}
		if slices.ContainsFunc(c.CookieKeys, func(other Secret) bool { return other.Reveal() == string(key) }) {
			l.Errorf(at, "E104", "remove one of them", "the same cookie key twice")
			return
		}
		c.CookieKeys = append(c.CookieKeys, NewSecret(string(key)))
	}
	if n == nil {
		if secret, found := l.secret(nil, nil, "cookie_keys", "COOKIE_KEY", true); found {
			add(l.Root(), secret.Reveal())
		}
		return
	}
	items := l.Sequence(n, "cookie_keys")
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		l.Errorf(n, "E104", fix, "cookie_keys is empty")
	}
	for _, item := range items {
		if secret, found := l.secret(item, n, "a cookie key", "", true); found {
			add(item, secret.Reveal())
		}
	}
}

func (l *configLoader) session(n *yaml.Node, to *SessionConfig) {
	for _, e := range l.Mapping(n, "session", "idle", "absolute", "recheck") {
		d, ok := l.Duration(e.Value, "session."+e.Key)
		switch {
		case !ok:
		case e.Key == "idle":
			to.Idle = d
		case e.Key == "absolute":
			to.Absolute = d
		}
	}
	if to.Idle > to.Absolute {
		l.Errorf(n, "E104", "make idle the shorter one", "session.idle (%s) is longer than session.absolute (%s)", to.Idle, to.Absolute)
	}
	if limit := 366 * 24 * time.Hour; to.Absolute > limit {
		l.Errorf(n, "E104", "at most 8784h", "session.absolute is longer than a year")
	}
}
