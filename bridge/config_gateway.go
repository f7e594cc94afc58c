package bridge

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

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

// ownPaths are the first segments of the bridge's own addresses.
var ownPaths = append([]string{"sessions", "bridge.js", ".well-known"}, endpoints...)

func (l *configLoader) proxy(n *yaml.Node, c *Config) {
	if n == nil {
		return
	}
	p := &ProxyConfig{Path: "/api", Timeout: time.Minute}
	c.Proxy = p
	var upstream *yaml.Node
	for _, e := range l.Mapping(n, "proxy", configKeys["proxy"]...) {
		switch e.Key {
		case "upstream":
			upstream = e.Value
		case "path":
			text, ok := l.text(e.Value, "proxy.path")
			first, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(text), "/"), "/")
			switch {
			case !ok:
			case text[0] != '/' || !isPlainSegments(text):
				l.Errorf(e.Value, "E104", "plain segments below public_url, such as /api or /rest/v1", "proxy.path")
			case slices.Contains(ownPaths, first):
				l.Errorf(e.Value, "E104", "take another one, such as /api", "proxy.path begins as an address of the bridge itself")
			default:
				p.Path = text
			}
		case "timeout":
			if l.duration(e.Value, "proxy.timeout", &p.Timeout); p.Timeout < time.Second {
				l.Errorf(e.Value, "E104", "write it like 60s", "proxy.timeout is shorter than a second")
			}
		}
	}
	if upstream == nil {
		l.Errorf(n, "E104", "upstream: http://127.0.0.1:3000, the address of PostgREST", "proxy has no upstream")
		return
	}
	text, ok := l.text(upstream, "proxy.upstream")
	if !ok {
		return
	}
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		l.Errorf(upstream, "E104", "write it like http://127.0.0.1:3000", "proxy.upstream is not a URL")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(text, "#") || !isPlainSegments(u.EscapedPath()):
		l.Errorf(upstream, "E104", "scheme, host, port and a plain path", "proxy.upstream has a user, query, fragment or an unusual path")
	case c.PublicURL != nil && u.Host == c.PublicURL.Host:
		l.Errorf(upstream, "E104", "write the address of PostgREST, which browsers do not see", "proxy.upstream is the bridge itself, by public_url")
	default:
		p.Upstream, p.at = u, l.Finding(upstream, "", "", "")
	}
}

// isPlainSegments reports whether a path needs no escapes and no second look.
func isPlainSegments(path string) bool {
	return publicPath.MatchString(path) && !strings.Contains(path+"/", "/../") && !strings.Contains(path+"/", "/./")
}

// isProxied reports whether the request is for the proxy.
func (c *Config) isProxied(r *http.Request) bool {
	if c.Proxy == nil {
		return false
	}
	path, below := strings.CutPrefix(r.URL.EscapedPath(), c.PublicURL.Path+c.Proxy.Path)
	return below && (path == "" || path[0] == '/')
}

// anonymousFinding is an error at the line of `anonymous`.
func (c *Config) anonymousFinding(code, message, fix string) strictyaml.Finding {
	finding := c.anonymousAt
	finding.Code, finding.Message, finding.Fix = code, message, fix
	return finding
}
