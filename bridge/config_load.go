package bridge

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

const defaultPrivateListen = "127.0.0.1:9090"

var (
	// configKeys are the keys of each section; "" is the top level.
	configKeys = map[string][]string{
		"": {
			"public_url", "listen", "private_listen", "insecure_dev", "trusted_proxies", "allowed_origins", "database", "signing",
			"cookie_keys", "session", "events", "rules", "pages", "users", "anonymous", "proxy", "providers",
		},
		"database": {"url", "owner_url", "authenticator", "listen"},
		"signing":  {"jwt_secret", "jwt_secret_is_base64", "alg", "audience", "ttl"},
		"session":  {"idle", "absolute", "recheck", "max_per_user"},
		"events":   {"keep"},
		"users":    {"hook"},
		"proxy":    {"upstream", "path", "timeout"},
		"provider": {
			"name", "preset", "issuer", "client_id", "client_secret", "auth_method", "scopes", "alg", "userinfo", "authorize_params",
			"ca_file", "allow_private", "require_logout_typ",
		},
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

// configLoader walks the document. It never stops at a finding.
type configLoader struct {
	*strictyaml.Document
	lookup    func(string) (string, bool)
	dir       string
	variables map[*yaml.Node]string // scalars that are one variable and nothing else
	broken    map[*yaml.Node]bool   // scalars whose variables could not be replaced: said once, not again as a bad value
}

func newConfigLoader(file string, text []byte, lookup func(string) (string, bool)) *configLoader {
	return &configLoader{
		Document: strictyaml.ParseSecret(file, text), lookup: lookup, dir: filepath.Dir(file), broken: map[*yaml.Node]bool{}, variables: map[*yaml.Node]string{},
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
		if m := envVariable.FindStringSubmatch(n.Value); m != nil && m[0] == n.Value {
			l.variables[n] = m[1]
		}
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
				l.Errorf(n, "E104", "set it in the environment of this process; a secret can also be read from a file: {file: …}",
					"environment variable %s is not set: %s", name, mustBeSet(name))
			}
			return value
		})
	}
}

func mustBeSet(name string) string { return name + " must be configured" }

func (l *configLoader) config(root *yaml.Node) *Config {
	c := &Config{
		Listen: ":8080", PrivateListen: defaultPrivateListen, Rules: filepath.Join(l.dir, "rules.yaml"),
		Session: SessionConfig{Idle: 12 * time.Hour, Absolute: 7 * 24 * time.Hour, Recheck: 15 * time.Minute}, KeepEvents: 400 * 24 * time.Hour,
	}
	sections := map[string]*yaml.Node{}
	for _, e := range l.Mapping(root, "the configuration", configKeys[""]...) {
		sections[e.Key] = e.Value
	}
	if n := sections["insecure_dev"]; n != nil {
		c.InsecureDev, _ = l.Bool(n, "insecure_dev")
	}
	c.PublicURL = l.publicURL(sections["public_url"], c.InsecureDev)
	l.address(sections["listen"], "listen", &c.Listen)
	l.address(sections["private_listen"], "private_listen", &c.PrivateListen)
	if c.Listen == c.PrivateListen && !strings.HasSuffix(c.Listen, ":0") { // port 0 is any free one
		l.Errorf(cmp.Or(sections["private_listen"], sections["listen"]), "E104", "metrics and health are not for browsers: give them another port",
			"listen and private_listen are the same address")
	}
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
			if u, err := url.Parse(text); err != nil || u.Scheme+"://"+u.Host != text || !isOriginHost(u) || !secureOrDev(u, c.InsecureDev) {
				l.Errorf(n, "E104", "write it like https://shop.example.com: scheme, host in lower case, port if it is not the usual one", "not an origin")
			} else if c.PublicURL != nil && text == origin(c.PublicURL) {
				l.Errorf(n, "E104", "remove it", "the origin of public_url needs no permission")
			}
			c.AllowedOrigins = append(c.AllowedOrigins, text)
		}
	}
	l.database(sections["database"], &c.Database)
	l.signing(sections["signing"], &c.Signing)
	l.cookieKeys(sections["cookie_keys"], c)
	l.session(sections["session"], &c.Session)
	for _, e := range l.Mapping(sections["events"], "events", configKeys["events"]...) {
		l.duration(e.Value, "events.keep", &c.KeepEvents)
	}
	if n := sections["rules"]; n != nil {
		if text, ok := l.text(n, "rules"); ok {
			c.Rules = l.path(text)
		}
	}
	if n := sections["pages"]; n != nil {
		if text, ok := l.text(n, "pages"); ok {
			c.Pages = l.path(text)
		}
	}
	for _, e := range l.Mapping(sections["users"], "users", configKeys["users"]...) {
		if e.Value.Tag == "!!null" || e.Value.Value == "" && e.Value.Kind == yaml.ScalarNode && !l.broken[e.Value] {
			continue
		}
		if text, ok := l.text(e.Value, "users.hook"); ok && !hookName.MatchString(text) {
			l.Errorf(e.Value, "E104", "write it like public.bridge_user: schema, dot, function, in lower case", "not a function name")
		} else {
			c.Hook = text
		}
	}
	l.anonymous(sections["anonymous"], c)
	l.proxy(sections["proxy"], c)
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
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
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

// secureOrDev reports whether the URL is https, or http that does not leave this machine, where the configuration allows that.
func secureOrDev(u *url.URL, insecureDev bool) bool {
	return u.Scheme == "https" || u.Scheme == "http" && insecureDev && isLoopback(u)
}

// isOriginHost reports whether browsers write the host of an origin so (RFC 6454 section 6.2). Another spelling would never be equal to theirs.
func isOriginHost(u *url.URL) bool {
	usual := map[string]string{"https": "443", "http": "80"}[u.Scheme]
	return u.Host != "" && u.Host == strings.ToLower(u.Host) && !strings.HasSuffix(u.Host, ":") && u.Port() != usual
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
	case !secureOrDev(u, insecureDev):
		l.Errorf(n, "E104", "use https; on this machine alone, http://localhost:8080 with insecure_dev: true works too",
			"public_url must be https")
	case insecureDev && !isLoopback(u):
		l.Errorf(n, "E104", "remove insecure_dev, it is for loopback and *.localhost only", "insecure_dev with a public host name")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(text, "#"):
		l.Errorf(n, "E104", "scheme, host, port and path prefix only", "public_url has a user, query or fragment")
	case !isOriginHost(u):
		l.Errorf(n, "E104", "write it as browsers do: in lower case, and without the usual port", "the host of public_url")
	case !isPlainSegments(u.EscapedPath()):
		l.Errorf(n, "E104", "plain segments such as /auth", "the path of public_url")
	default:
		return u
	}
	return nil
}

func (l *configLoader) database(n *yaml.Node, to *DatabaseConfig) {
	to.Authenticator, to.Listen = "authenticator", "auto"
	var urlNode, ownerNode *yaml.Node
	for _, e := range l.Mapping(n, "database", configKeys["database"]...) {
		switch e.Key {
		case "url":
			urlNode = e.Value
		case "owner_url":
			ownerNode = e.Value
		case "authenticator":
			to.Authenticator, _ = l.text(e.Value, "database.authenticator")
		case "listen":
			to.Listen = l.oneOf(e.Value, "database.listen", "auto", "on", "off")
		}
	}
	to.URL = l.databaseURL(urlNode, "database.url", "DATABASE_URL", true)
	to.OwnerURL = l.databaseURL(ownerNode, "database.owner_url", "DATABASE_OWNER_URL", false)
	if to.OwnerURL.Empty() {
		to.OwnerURL = to.URL
	}
}

func (l *configLoader) session(n *yaml.Node, to *SessionConfig) {
	for _, e := range l.Mapping(n, "session", configKeys["session"]...) {
		switch e.Key {
		case "idle":
			l.duration(e.Value, "session.idle", &to.Idle)
		case "absolute":
			l.duration(e.Value, "session.absolute", &to.Absolute)
		case "recheck":
			if e.Value.Value == "off" {
				to.Recheck = 0
			} else if l.duration(e.Value, "session.recheck", &to.Recheck); to.Recheck < time.Second {
				l.Errorf(e.Value, "E104", "write it like 15m, or off", "session.recheck is shorter than a second")
			}
		case "max_per_user":
			text, ok := l.text(e.Value, "session.max_per_user")
			limit, err := strconv.ParseUint(text, 10, 16)
			if ok && err != nil {
				l.Errorf(e.Value, "E104", "write how many, at most 65535, or 0 for any number", "session.max_per_user is not a number")
			}
			to.MaxPerUser = int(limit)
		}
	}
	if to.Idle > to.Absolute {
		l.Errorf(n, "E104", "make idle the shorter one", "session.idle (%s) is longer than session.absolute (%s)", to.Idle, to.Absolute)
	}
	if limit := 366 * 24 * time.Hour; to.Absolute > limit {
		l.Errorf(n, "E104", "at most 8784h", "session.absolute is longer than a year")
	}
}

// duration sets what is written, and leaves the default where something else is.
func (l *configLoader) duration(n *yaml.Node, what string, to *time.Duration) {
	if l.broken[n] {
		return
	}
	if d, ok := l.Duration(n, what); ok {
		*to = d
	}
}
