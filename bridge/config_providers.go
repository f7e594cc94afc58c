package bridge

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

func (l *configLoader) providers(n *yaml.Node, c *Config) {
	entries := l.Mapping(n, "providers")
	if len(entries) == 0 {
		at := n
		if at == nil {
			at = l.Root()
		}
		l.Errorf(at, "E104", "name at least one OpenID provider, see config.example.yaml", "no providers")
	}
	type connection struct{ issuer, clientID string }
	seen := map[connection]string{}
	for _, e := range entries {
		if !providerID.MatchString(e.Key) {
			l.Errorf(e.KeyNode, "E104", "lower-case letters, digits, - and _, at most 32: it becomes part of /callback/"+
				strings.ToLower(e.Key), "provider name %q", e.Key)
		}
		p := l.provider(e, c.InsecureDev)
		if other, twice := seen[connection{p.Issuer, p.ClientID}]; twice && p.Issuer != "" {
			l.Errorf(e.KeyNode, "E104", "remove one of them", "provider %q has the issuer and client_id of %q", e.Key, other)
		}
		seen[connection{p.Issuer, p.ClientID}] = e.Key
		c.Providers = append(c.Providers, p)
	}
}

func (l *configLoader) provider(e strictyaml.Entry, insecureDev bool) ProviderConfig {
	p := ProviderConfig{
		ID: e.Key, Name: e.Key, AuthMethod: "client_secret_basic", Scopes: []string{"openid", "email", "profile"}, Alg: "RS256",
		UserInfo: "auto",
	}
	keys := map[string]*yaml.Node{}
	for _, k := range l.Mapping(e.Value, fmt.Sprintf("provider %q", e.Key), configKeys["provider"]...) {
		keys[k.Key] = k.Value
	}
	if n := keys["preset"]; n != nil && (n.Value == "keycloak" || n.Value == "generic" || n.Value == "entra") {
		l.Errorf(n, "E104", "write it in rules.yaml; here the issuer is enough", "preset %s belongs into the rules file", n.Value)
	} else if n != nil && l.oneOf(n, "preset", "google") == "google" {
		p.Google, p.Name, p.Issuer, p.line, p.column = true, "Google", googleIssuer, n.Line, n.Column
	}
	read := func(key string, to *string) {
		if n := keys[key]; n != nil {
			*to, _ = l.text(n, key)
		}
	}
	read("name", &p.Name)
	read("client_id", &p.ClientID)
	if keys["client_id"] == nil {
		l.Errorf(e.KeyNode, "E104", "the id under which the bridge is registered at the provider", "provider %q has no client_id", e.Key)
	}
	switch n := keys["issuer"]; {
	case n != nil && p.Google:
		l.Errorf(n, "E104", "remove it", "preset google brings the issuer")
	case n != nil:
		if text, ok := l.text(n, "issuer"); ok {
			p.Issuer, p.line, p.column = text, n.Line, n.Column
			l.issuer(n, text, insecureDev)
		}
	case !p.Google:
		l.Errorf(e.KeyNode, "E104", "such as https://sso.example.com/realms/acme", "provider %q has no issuer", e.Key)
	}
	if n := keys["client_secret"]; n != nil {
		p.ClientSecrets = l.clientSecrets(n)
	} else {
		l.Errorf(e.KeyNode, "E104", "write ${NAME} and set that variable in the environment of this process, or {file: …}",
			"provider %q has no client_secret: %s", e.Key, mustBeSet("client_secret"))
	}
	if n := keys["auth_method"]; n != nil {
		p.AuthMethod = l.oneOf(n, "auth_method", "client_secret_basic", "client_secret_post")
	}
	if n := keys["alg"]; n != nil {
		p.Alg = l.oneOf(n, "alg", algorithms...)
	}
	if n := keys["userinfo"]; n != nil {
		p.UserInfo = l.oneOf(n, "userinfo", "auto", "always", "never")
	}
	if n := keys["allow_private"]; n != nil {
		p.AllowPrivate, _ = l.Bool(n, "allow_private")
	}
	if n := keys["require_logout_typ"]; n != nil {
		p.RequireLogoutType, _ = l.Bool(n, "require_logout_typ")
	}
	if n := keys["ca_file"]; n != nil && n.Value != "" {
		if text, ok := l.text(n, "ca_file"); ok {
			p.CAFile = l.path(text)
			if _, err := certPool(p.CAFile); err != nil {
				l.Errorf(n, "E104", "a PEM file of certificates", "ca_file: %v", err)
			}
		}
	}
	if n := keys["scopes"]; n != nil {
		p.Scopes = nil
		for _, item := range l.Sequence(n, "scopes") {
			if text, ok := l.text(item, "a scope"); ok {
				p.Scopes = append(p.Scopes, text)
			}
		}
		if !slices.Contains(p.Scopes, "openid") {
			l.Errorf(n, "E104", "add openid", "scopes without openid are not OpenID Connect")
		}
	}
	p.AuthorizeParams = l.authorizeParams(keys["authorize_params"])
	return p
}

func (l *configLoader) clientSecrets(n *yaml.Node) (secrets []Secret) {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		if nodes = l.Sequence(n, "client_secret"); len(nodes) != 2 {
			l.Errorf(n, "E104", "the new one first, then the old one", "a list of client secrets has two")
		}
	}
	for _, node := range nodes {
		if secret, found := l.secret(node, "client_secret", "", true); found {
			secrets = append(secrets, secret)
		}
	}
	return secrets
}

func (l *configLoader) issuer(n *yaml.Node, text string, insecureDev bool) {
	u, err := url.Parse(text)
	switch {
	case isForManyTenants(text, u):
		l.Errorf(n, "E104", "write the issuer of your own tenant, such as https://login.microsoftonline.com/<tenant id>/v2.0",
			"an issuer for many tenants: a subject of another tenant could be a person of yours")
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		l.Errorf(n, "E104", "copy it from the provider's discovery document: https://…, without query", "the issuer is not a URL")
	case !secureOrDev(u, insecureDev):
		l.Errorf(n, "E104", "use https; http is for a provider on this machine, with insecure_dev: true", "the issuer must be https")
	case strings.HasSuffix(text, "/.well-known/openid-configuration"):
		l.Errorf(n, "E104", "remove /.well-known/openid-configuration", "this is the discovery document, not the issuer")
	}
}

// isForManyTenants finds templates (IL-03), and the addresses of Microsoft that answer for every tenant with one. u is nil when text is no URL.
func isForManyTenants(text string, u *url.URL) bool {
	if strings.ContainsAny(text, "{}*") {
		return true
	}
	if u == nil {
		return false
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	return strings.ContainsAny(u.Path, "{}*") ||
		(strings.HasPrefix(u.Host, "login.") && strings.Contains(u.Host, "microsoftonline.") || u.Host == "sts.windows.net") &&
			slices.Contains([]string{"common", "organizations", "consumers"}, strings.ToLower(first))
}

// reservedParams are the parameters of the authorization request that the bridge sets itself, or never wants set.
var reservedParams = []string{
	"client_id", "client_secret", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce", "code_challenge",
	"code_challenge_method", "request", "request_uri", "registration", "id_token_hint", "code", "error", "iss",
	"post_logout_redirect_uri",
}

func (l *configLoader) authorizeParams(n *yaml.Node) map[string]string {
	params := map[string]string{}
	for _, e := range l.Mapping(n, "authorize_params") {
		switch {
		case slices.Contains(reservedParams, strings.ToLower(e.Key)):
			l.Errorf(e.KeyNode, "E104", "remove it", "authorize_params: %s is set by the bridge", e.Key)
		case !paramName.MatchString(e.Key):
			l.Errorf(e.KeyNode, "E104", "letters, digits, _ . -", "authorize_params: not a parameter name")
		default:
			if text, ok := l.text(e.Value, e.Key); ok {
				params[e.Key] = text
			}
		}
	}
	return params
}
