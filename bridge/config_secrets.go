package bridge

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// secret reads a text or {file: …}; a missing node means the environment variable env, if that is set.
func (l *configLoader) secret(n, section *yaml.Node, what, env string, required bool) (Secret, bool) {
	if n == nil {
		value, set := "", false
		if env != "" {
			value, set = l.lookup(env)
		}
		if (!set || value == "") && required {
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
