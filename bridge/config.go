package bridge

import (
	"net/netip"
	"net/url"
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
	KeepEvents     time.Duration // events older than this are removed
	Rules          string        // path of the rules file, relative ones resolved from config.yaml's folder
	Pages          string        // folder with pages in place of the program's own, relative ones resolved likewise; "": there is none
	Hook           string        // users.hook: schema-qualified name of a SQL function, or ""
	Anonymous      string        // the role of people without session at /auth and the proxy; "": they are refused
	Proxy          *ProxyConfig  // nil: there is none
	Providers      []ProviderConfig

	file        string             // where it came from, for findings
	anonymousAt strictyaml.Finding // at the line of Anonymous, to be filled in
}

// DatabaseConfig is the section `database`.
type DatabaseConfig struct {
	URL           Secret // connection string of the runtime role
	OwnerURL      Secret // connection string of the schema's owner, for `migrate`
	Authenticator string // the role that PostgREST logs in as
	Listen        string // auto, on or off: whether replicas listen for what ends a session, and answer from memory
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
	// Where the provider gives refresh tokens: how long its last word counts before it is asked again; 0: it is never asked.
	Recheck    time.Duration
	MaxPerUser int // sessions of one user, of which a login ends the oldest; 0: any number
}

// ProviderConfig is one connection below `providers`.
type ProviderConfig struct {
	ID              string // its key: part of its URLs and of the rules file
	Name            string // what people see
	Google          bool   // preset: google
	Issuer          string
	ClientID        string
	ClientSecrets   []Secret // one, or two while it is rotated: the second is tried when the provider refuses the first
	AuthMethod      string   // client_secret_basic or client_secret_post
	Scopes          []string
	Alg             string // the one algorithm of its tokens
	UserInfo        string // auto, always or never
	AuthorizeParams map[string]string
	CAFile          string
	AllowPrivate    bool // its host names may resolve to private addresses
	// Whether its logout tokens must say that they are: typ logout+jwt (Back-Channel Logout 1.0 section 2.4).
	RequireLogoutType bool

	line, column int // of the issuer, for findings
}

// ProxyConfig is the section `proxy`.
type ProxyConfig struct {
	Upstream *url.URL      // of PostgREST
	Path     string        // below public_url, such as /api
	Timeout  time.Duration // for the beginning of an answer

	at strictyaml.Finding // at the line of upstream, to be filled in
}

// LoadConfig parses and checks the configuration text, which came from the named file. lookup finds environment variables, as
// os.LookupEnv does. Config is nil when any finding is an error.
func LoadConfig(file string, text []byte, lookup func(string) (string, bool)) (*Config, []strictyaml.Finding) {
	c, findings := readConfig(file, text, lookup)
	if strictyaml.Errors(findings) {
		return nil, findings
	}
	return c, findings
}

// readConfig is LoadConfig, but returns what it could read of a file with errors, too; nil when that is nothing.
func readConfig(file string, text []byte, lookup func(string) (string, bool)) (*Config, []strictyaml.Finding) {
	l := newConfigLoader(file, text, lookup)
	if l.Root() == nil {
		return nil, l.Findings()
	}
	l.expand(l.Root())
	c := l.config(l.Root())
	c.file = file
	return c, l.Findings()
}

// LoadDatabase reads the section `database` of config.yaml, for commands that need nothing else: they run where the other secrets are not.
func LoadDatabase(configFile string, lookup func(string) (string, bool)) (*DatabaseConfig, []strictyaml.Finding) {
	l, section, missing := openSection(configFile, "database", lookup)
	if missing != nil {
		return nil, missing
	}
	var database DatabaseConfig
	l.database(section, &database)
	if findings := l.Findings(); strictyaml.Errors(findings) {
		return nil, findings
	}
	return &database, l.Findings()
}

// LoadPrivateListen reads the key private_listen of config.yaml: the host:port of /readyz.
func LoadPrivateListen(configFile string, lookup func(string) (string, bool)) (string, []strictyaml.Finding) {
	l, section, missing := openSection(configFile, "private_listen", lookup)
	if missing != nil {
		return "", missing
	}
	address := defaultPrivateListen
	l.address(section, "private_listen", &address)
	if findings := l.Findings(); strictyaml.Errors(findings) {
		return "", findings
	}
	return address, nil
}

// openSection reads config.yaml and replaces the variables of one key of its top level, and no others. The section is nil when the file does
// not have it.
func openSection(configFile, key string, lookup func(string) (string, bool)) (*configLoader, *yaml.Node, []strictyaml.Finding) {
	text, missing := readFile(configFile, "write one, config.example.yaml shows how, or name it with --config")
	if missing != nil {
		return nil, nil, missing
	}
	l := newConfigLoader(configFile, text, lookup)
	for _, e := range l.Mapping(l.Root(), "the configuration", configKeys[""]...) {
		if e.Key == key {
			l.expand(e.Value)
			return l, e.Value, nil
		}
	}
	return l, nil, nil
}

// RuntimeRole is the role of database.url.
func (d *DatabaseConfig) RuntimeRole() (string, error) {
	config, err := pgxpool.ParseConfig(d.URL.Reveal())
	if err != nil {
		return "", err
	}
	return config.ConnConfig.User, nil
}
