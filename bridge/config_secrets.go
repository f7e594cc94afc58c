package bridge

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.yaml.in/yaml/v3"
)

// secret reads a text or {file: …}; a missing node means the environment variable env, if that is set.
func (l *configLoader) secret(n, section *yaml.Node, what, env string, required bool) (Secret, bool) {
	if n == nil {
		value := ""
		if env != "" {
			if found, set := l.lookup(env); set {
				value = found
			}
		}
		if value == "" && required {
			at := section
			if at == nil {
				at = l.Root()
			}
			fix := ""
			if env != "" {
				fix = "set " + env + " in the environment of this process, or write " + what + " in this file"
			}
			l.Errorf(at, "E104", fix, "%s is missing: %s", what, mustBeSet(cmp.Or(env, what)))
		}
		return NewSecret(value), value != ""
	}
	if l.broken[n] {
		return Secret{}, false
	}
	if n.Kind == yaml.MappingNode {
		for _, e := range l.Mapping(n, what, "file") {
			if name, ok := l.text(e.Value, what); ok {
				text, err := readSecretFile(l.path(name))
				if err != nil {
					l.Errorf(e.Value, "E104", "", "%s: %v", what, err)
					return Secret{}, false
				}
				return NewSecret(text), true
			}
		}
		return Secret{}, false
	}
	text, ok := l.Text(n, what)
	if !ok {
		return Secret{}, false
	}
	if text == "" {
		l.Errorf(n, "E104", "", "%s is empty: %s", what, mustBeSet(cmp.Or(env, what)))
		return Secret{}, false
	}
	return NewSecret(text), true
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
