package bridge

import (
	"net/url"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// LoadProviders reads of config.yaml what commands about the rules need: where the rules file is, and the providers without their client
// secrets. Such commands run where the secrets are not, so that a variable that only a secret names need not be set.
func LoadProviders(configFile string, lookup func(string) (string, bool)) (*Config, []strictyaml.Finding) {
	text, missing := readFile(configFile, "write one, config.example.yaml shows how, or name it with --config")
	if missing != nil {
		return nil, missing
	}
	l := newConfigLoader(configFile, text, lookup)
	c := &Config{file: configFile, PublicURL: &url.URL{}, Rules: filepath.Join(l.dir, "rules.yaml")}
	var providers *yaml.Node
	for _, e := range l.Mapping(l.Root(), "the configuration", configKeys[""]...) {
		switch e.Key {
		case "insecure_dev":
			c.InsecureDev, _ = l.Bool(e.Value, "insecure_dev")
		case "rules":
			l.expand(e.Value)
			if text, ok := l.text(e.Value, "rules"); ok {
				c.Rules = l.path(text)
			}
		case "providers":
			providers = e.Value
			hideClientSecrets(providers)
			l.expand(providers)
		}
	}
	if l.Root() != nil {
		l.providers(providers, c)
	}
	if findings := l.Findings(); strictyaml.Errors(findings) {
		return nil, findings
	}
	return c, l.Findings()
}

// hideClientSecrets puts a word in the place of each client_secret, before anything reads it.
func hideClientSecrets(providers *yaml.Node) {
	for i := 1; i < len(providers.Content); i += 2 {
		provider := providers.Content[i]
		for j := 0; j+1 < len(provider.Content); j += 2 {
			if key, value := provider.Content[j], provider.Content[j+1]; key.Value == "client_secret" {
				provider.Content[j+1] = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "not read", Line: value.Line, Column: value.Column}
			}
		}
	}
}

// CheckIssuers holds the rules against the providers of the configuration: the same names in both (E201), and what depends on the issuers
// (E305, E306).
func CheckIssuers(c *Config, rules *mapping.Rules) []strictyaml.Finding {
	issuers := map[string]string{}
	for _, p := range c.Providers {
		issuers[p.ID] = p.Issuer
	}
	return append(checkProviderNames(c, rules), rules.IssuerFindings(issuers)...)
}
