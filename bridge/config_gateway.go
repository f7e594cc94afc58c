package bridge

import (
	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

func (l *configLoader) anonymous(n *yaml.Node, c *Config) {
	if n == nil {
		return
	}
	text, ok := l.text(n, "anonymous")
	switch {
	case !ok || text == "refuse":
	case !mapping.IsRoleName(text) || text == c.Database.Authenticator:
		l.Errorf(n, "E104", "name a role of its own, such as anonymous: PostgREST's db-anon-role", "%q is not a role for people without session", text)
	default:
		c.Anonymous, c.anonymousAt = text, l.Finding(n, "", "", "")
	}
}

// anonymousFinding is an error at the line of `anonymous`.
func (c *Config) anonymousFinding(code, message, fix string) strictyaml.Finding {
	finding := c.anonymousAt
	finding.Code, finding.Message, finding.Fix = code, message, fix
	return finding
}
