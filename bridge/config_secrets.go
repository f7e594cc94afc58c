package bridge

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.yaml.in/yaml/v3"
)

// bareVariable is a variable as a shell takes it, which YAML does not.
var bareVariable = regexp.MustCompile(`^\$[A-Za-z_][A-Za-z0-9_]*$`)

// label names a secret in findings: by its key, or by the environment variable that stands in for the key.
func label(n *yaml.Node, what, env string) string {
	if n == nil && env != "" {
		return fmt.Sprintf("environment variable %s (%s)", env, what)
	}
	return what
}

// secret reads a text or {file: …}; a missing node means the environment variable env, if that is set.
func (l *configLoader) secret(n *yaml.Node, what, env string, required bool) (Secret, bool) {
	at, text := n, ""
	switch {
	case n == nil:
		if value, set := l.lookup(env); set && env != "" {
			text = value
		}
		if text == "" && required {
			fix := ""
			if env != "" {
				fix = "set " + env + " in the environment of this process, or write " + what + " in this file"
			}
			l.Errorf(nil, "E104", fix, "%s is missing: %s", what, mustBeSet(cmp.Or(env, what)))
		}
		if text == "" {
			return Secret{}, false
		}
	case l.broken[n]:
		return Secret{}, false
	case n.Kind == yaml.MappingNode:
		for _, e := range l.Mapping(n, what, "file") {
			name, ok := l.text(e.Value, what)
			if !ok {
				return Secret{}, false
			}
			var err error
			if text, err = readSecretFile(l.path(name)); err != nil {
				l.Errorf(e.Value, "E104", "put the secret into that file, readable by this process alone", "%s: %v", what, err)
				return Secret{}, false
			}
			at = e.Value
		}
	default:
		var ok bool
		if text, ok = l.Text(n, what); !ok {
			return Secret{}, false
		}
	}
	name := label(n, what, env)
	switch {
	case text == "" && l.variables[n] != "":
		l.Errorf(at, "E104", "", "environment variable %s is empty: %[1]s must be configured", l.variables[n])
	case text == "":
		l.Errorf(at, "E104", "", "%s is empty: %s", name, mustBeSet(cmp.Or(env, what)))
	case bareVariable.MatchString(text):
		l.Errorf(at, "E104", "write ${NAME}, with braces", "%s looks like a variable", name)
	case strings.TrimSpace(text) != text:
		l.Errorf(at, "E104", "remove it: it would be taken as part of the secret", "%s begins or ends with white space", name)
	default:
		return NewSecret(text), true
	}
	return Secret{}, false
}

func (l *configLoader) databaseURL(n *yaml.Node, what, env string, required bool) Secret {
	secret, found := l.secret(n, what, env, required)
	if !found {
		return Secret{}
	}
	// pgx keeps the password out of its message, and so do we with the rest of the string.
	config, err := pgxpool.ParseConfig(secret.Reveal())
	if err != nil {
		l.Errorf(n, "E104", "write it like postgres://ROLE:PASSWORD@db.example.com:5432/app?sslmode=verify-full; in the password # is %23, % is %25, "+
			"/ is %2F, @ is %40; sslmode is disable, require, verify-ca or verify-full",
			"%s is not a PostgreSQL connection string", label(n, what, env))
		return Secret{}
	}
	if config.ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		l.Errorf(n, "E104", "remove default_query_exec_mode", "%s asks for another protocol than the extended one", what)
	}
	return secret
}

func (l *configLoader) signing(n *yaml.Node, to *SigningConfig) {
	*to = SigningConfig{Audience: "postgrest", TTL: 15 * time.Minute}
	var secretNode *yaml.Node
	isBase64 := false
	for _, e := range l.Mapping(n, "signing", configKeys["signing"]...) {
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
	secret, found := l.secret(secretNode, "signing.jwt_secret", "JWT_SECRET", true)
	if !found {
		return
	}
	key, err := signingKey(secret.Reveal(), isBase64)
	if err != nil {
		l.Errorf(secretNode, "E104", "make one with: openssl rand -hex 32 (and give PostgREST the same)", "%s %v",
			label(secretNode, "signing.jwt_secret", "JWT_SECRET"), err)
		return
	}
	to.Key = NewSecret(string(key))
}

func (l *configLoader) cookieKeys(n *yaml.Node, c *Config) {
	const fix = "make one with: openssl rand -base64 32"
	add := func(at *yaml.Node, text string) {
		name := label(at, "a cookie key", "COOKIE_KEY")
		key, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
		if err != nil || len(key) != 32 {
			l.Errorf(at, "E104", fix, "%s must be 32 bytes in base64", name)
			return
		}
		if slices.Equal(key, slices.Repeat(key[:1], 32)) {
			l.Errorf(at, "E104", fix, "%s is one byte repeated", name)
			return
		}
		if slices.ContainsFunc(c.CookieKeys, func(other Secret) bool { return other.Reveal() == string(key) }) {
			l.Errorf(at, "E104", "remove one of them", "the same cookie key twice")
			return
		}
		c.CookieKeys = append(c.CookieKeys, NewSecret(string(key)))
	}
	if n == nil {
		if secret, found := l.secret(nil, "cookie_keys", "COOKIE_KEY", true); found {
			add(nil, secret.Reveal())
		}
		return
	}
	items := l.Sequence(n, "cookie_keys")
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		l.Errorf(n, "E104", fix, "cookie_keys is empty")
	}
	for _, item := range items {
		if secret, found := l.secret(item, "a cookie key", "", true); found {
			add(item, secret.Reveal())
		}
	}
}

// maxSecretFile bounds how much of a secret file is read, in bytes.
const maxSecretFile = 64 << 10

// readSecretFile reads a secret and takes one newline off its end. A file that others can read is refused. Its group may read it only
// when the file is not ours: that is how Kubernetes hands a secret to a process that is not root.
func readSecretFile(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	mode := info.Mode()
	switch {
	case !mode.IsRegular():
		return "", fmt.Errorf("%s is not a regular file", name)
	case info.Size() > maxSecretFile:
		return "", fmt.Errorf("%s is larger than %d bytes", name, maxSecretFile)
	case mode.Perm()&0o007 != 0 || mode.Perm()&0o070 != 0 && ownedByUs(info):
		return "", fmt.Errorf("%s can be read by others (mode %04o): chmod 600 %s", name, mode.Perm(), name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if secret == "" {
		return "", fmt.Errorf("%s is empty", name)
	}
	return secret, nil
}
