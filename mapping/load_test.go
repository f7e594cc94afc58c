package mapping

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// load loads a file that must be free of errors.
func load(t testing.TB, name string) *Rules {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return loadText(t, name, string(text))
}

func loadText(t testing.TB, name, text string) *Rules {
	t.Helper()
	rules, findings := Load(name, []byte(text))
	for _, f := range findings {
		t.Log(f)
	}
	if rules == nil {
		t.Fatalf("%s does not load", name)
	}
	return rules
}

// The file of the design page loads, which means that the tests it carries pass.
func TestDesignFileLoads(t *testing.T) {
	load(t, "testdata/design.yaml")
}

// Neither file has a condition that its tests would not miss, or gives a warning.
func TestFilesAreHeldByTheirTests(t *testing.T) {
	for _, name := range []string{"testdata/design.yaml", "../rules.example.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range Mutate(name, text) {
			t.Error(f)
		}
	}
}

// The example for operators loads, knows the providers of config.example.yaml, and shows every section and every key of the language.
func TestExampleFile(t *testing.T) {
	rules := load(t, "../rules.example.yaml")
	if got := rules.Providers(); !slices.Equal(got, []string{"google", "corp"}) {
		t.Errorf("providers %v", got)
	}
	text, err := os.ReadFile("../rules.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shown := append(slices.Clone(sections), claimOptions...)
	shown = append(shown, "unless", "by", "to", "why", "ttl", "max_ttl", "until", "message", "row", "at", "refuse_if", "privileged", "authoritative_for", "client")
	for _, key := range shown {
		if !regexp.MustCompile(`\b` + key + `\b`).Match(text) {
			t.Errorf("the example does not show %q", key)
		}
	}
}

// A realm may be called what Entra calls everybody's tenant.
func TestRealmCalledCommon(t *testing.T) {
	rules := loadText(t, "rules.yaml", "version: 1\nproviders: { corp: { preset: keycloak, email_verified: assumed } }\nroles: { viewer: {} }\ndefault: { role: viewer }\n")
	if findings := rules.IssuerFindings(map[string]string{"corp": "https://sso.example.com/realms/common"}); len(findings) > 0 {
		t.Error(findings)
	}
}
