package mapping

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// Any text either loads, or is refused with findings that point into it.
func FuzzRulesFile(f *testing.F) {
	for _, name := range []string{"testdata/design.yaml", "../rules.example.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	archives, err := filepath.Glob("testdata/findings/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(archive.Files[0].Data))
	}
	f.Fuzz(func(t *testing.T, text string) {
		rules, findings := Load("rules.yaml", []byte(text))
		if (rules == nil) != strictyaml.Errors(findings) {
			t.Fatalf("rules %v, findings %v", rules, findings)
		}
		lines := 1 + strings.Count(text, "\n")
		for _, finding := range findings {
			if finding.Line < 0 || finding.Line > lines || finding.Message == "" || finding.String() == "" {
				t.Fatalf("%+v", finding)
			}
		}
		if schema, _ := FileSchema("rules.yaml", []byte(text)); !json.Valid(schema) {
			t.Fatalf("schema %s", schema)
		}
		if results, ran, _ := Test("rules.yaml", []byte(text)); !ran && slices.ContainsFunc(results, func(r TestResult) bool { return !r.Passed }) {
			t.Fatalf("%v failed and were not run", results)
		}
		if rules == nil {
			return
		}
		for _, person := range rules.Persons() {
			in := rules.Input(person)
			event, err := json.Marshal(rules.Decide(in).ReadClaims())
			if err != nil {
				t.Fatal(err)
			}
			if in.Claims, err = Recall(event); err != nil {
				t.Fatal(err)
			}
			rules.Explain(in)
		}
		for _, provider := range rules.Providers() {
			rules.Decide(Input{Provider: provider}) // must not panic on nothing
		}
	})
}

// No claims make a decision panic, differ from its explanation, differ after storage, or grant what the file does not list.
func FuzzClaims(f *testing.F) {
	rules := load(f, "testdata/design.yaml")
	for _, seed := range []string{
		`{"sub":"u1","groups":["/platform/admins"],"acr":"gold"}`,
		`{"sub":"u1","groups":{"admins":true},"acme":{"projects":["apollo/ui"],"tenant":"t"}}`,
		`{"sub":"u1","email":"a@evil@example.com","email_verified":"true","hd":"EXAMPLE.com"}`,
		`{"sub":"u1","_claim_names":{"groups":"x"},"hasgroups":true,"resource_access":{"bridge":{"roles":[1e999]}}}`,
		`{"sub":"\ud800","realm_access":[],"hd":"bücher.example","groups":["",null,[]]}`,
		`{"email":{"broken":"x"},"access_token:/realm_access/roles":{"broken":5}}`,
	} {
		f.Add(seed, "corp", "editor")
		f.Add(seed, "google", "")
	}
	f.Fuzz(func(t *testing.T, text, provider, row string) {
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		var token map[string]any
		if decoder.Decode(&token) != nil {
			return
		}
		var odd Claims // what somebody else might have stored
		if json.Unmarshal([]byte(text), &odd) == nil {
			rules.Decide(Input{Provider: provider, Claims: odd})
		}
		captured := rules.Capture(provider, Tokens{IDToken: token, AccessToken: token, UserInfo: token})
		in := Input{Provider: provider, Claims: captured, Row: Row{Known: true, Role: row}}
		d := rules.Decide(in)
		sameAsExplained(t, rules, in, d)
		if role, granted := d.Role(); granted && rules.role(role) == nil {
			t.Fatalf("granted %q", role)
		}
		rules.Columns(provider, captured)

		var stored Claims
		text = asJSON(captured)
		if err := json.Unmarshal([]byte(text), &stored); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		in.Claims = stored
		if again := rules.Decide(in); again.String() != d.String() || asJSON(again.Token()) != asJSON(d.Token()) {
			t.Fatalf("before storage %v, after it %v", d, again)
		}
	})
}
