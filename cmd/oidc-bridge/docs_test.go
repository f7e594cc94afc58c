package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/codes"
)

const guide = "../../docs/rules.md"

// A block is a fenced block of the guide and the comment above it.
type block struct {
	mark, language, text string
}

var fenced = regexp.MustCompile("(?m)(?:^<!-- (.*) -->\n)?^```([a-z]+)\n((?s:.*?))^```$")

func blocks(t *testing.T, page string) (found []block) {
	t.Helper()
	for _, m := range fenced.FindAllStringSubmatch(page, -1) {
		found = append(found, block{m[1], m[2], m[3]})
	}
	if len(found) < 10 {
		t.Fatalf("only %d blocks", len(found))
	}
	return found
}

// files returns the rules files of the guide by name. A mark `file: NEW of: OLD` stands for OLD with the sections of the block.
func files(t *testing.T, page string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, b := range blocks(t, page) {
		name, isFile := strings.CutPrefix(b.mark, "file: ")
		name, base, derived := strings.Cut(name, " of: ")
		switch {
		case !isFile:
		case derived:
			found[name] = withSections(t, found[base], b.text)
		default:
			found[name] = b.text
		}
	}
	return found
}

func withSections(t *testing.T, base, sections string) string {
	t.Helper()
	for _, section := range regexp.MustCompile(`(?m)^[a-z]+:`).FindAllString(sections, -1) {
		old := regexp.MustCompile(`(?m)^` + section + `.*\n(?:[ #].*\n)*`)
		if !old.MatchString(base) {
			t.Fatalf("no section %s", section)
		}
		base = old.ReplaceAllString(base, "")
	}
	return base + sections
}

// Every rules file of the guide loads without a finding, and but for the one that shows a typo its tests hold every line.
func TestGuideFiles(t *testing.T) {
	for name, text := range files(t, readFile(t, guide)) {
		rules, findings := mapping.Load(name, []byte(text))
		if rules == nil || len(findings) > 0 {
			t.Errorf("%s: %v", name, findings)
		}
		if name != "new.yaml" && name != "mended.yaml" {
			for _, f := range mapping.Mutate(name, []byte(text)) {
				t.Errorf("%v", f)
			}
		}
	}
}

// Nothing on the page is untested: each YAML block is a file or a configuration.
func TestGuideBlocks(t *testing.T) {
	for _, b := range blocks(t, readFile(t, guide)) {
		switch {
		case b.language == "console", strings.HasPrefix(b.mark, "file: "):
		case b.mark == "config":
			name := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(name, []byte(b.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if config, findings := bridge.LoadProviders(name, os.LookupEnv); config == nil || len(findings) > 0 {
				t.Errorf("%s\n%v", b.text, findings)
			}
		default:
			t.Errorf("an untested block: %q", b)
		}
	}
}

// people are those of the guide's stories.
const people = `
INSERT INTO bridge.users (email) VALUES ('ada@example.com'), ('sam@example.com'), ('pam@example.com');
INSERT INTO bridge.identities (issuer, subject, user_id, provider, claims, last_login_at) VALUES
  ('https://sso.example.com/realms/acme', 'ada', 1, 'corp', '{"sub": "ada", "groups": ["/platform/admins"]}', '2027-01-15 08:12:00+00'),
  ('https://sso.example.com/realms/acme', 'sam', 2, 'corp', '{"sub": "sam", "groups": ["/projects/apollo", "/platform/suspended"]}', '2027-01-14 17:40:00+00'),
  ('https://sso.example.com/realms/acme', 'pam', 3, 'corp', '{"sub": "pam", "groups": ["/projects/apollo"]}', '2027-01-15 09:01:00+00');
INSERT INTO bridge.events (at, kind, ref, provider, issuer, subject, rule, rules_hash, reason, claims) VALUES
  ('2027-01-15 22:48:00+00', 'refused', 'K7QD-2MXA', 'corp', 'https://sso.example.com/realms/acme', 'leo', 'leavers', '%s',
   'deny "leavers" matched', '{"groups": ["/hr/leavers", "/projects/apollo"]}');
CREATE ROLE app_admin NOLOGIN; CREATE ROLE viewer NOLOGIN; GRANT app_admin, viewer TO authenticator;`

const guideConfig = `
database: { authenticator: %s }
providers:
  corp: { issuer: "https://sso.example.com/realms/acme", client_id: bridge, client_secret: "${CORP_CLIENT_SECRET}" }
`

// The guide shows what its commands print. To write it: go test ./cmd/oidc-bridge -run Guide -update
func TestGuideCommands(t *testing.T) {
	page := readFile(t, guide)
	path, err := filepath.Abs(guide)
	if err != nil {
		t.Fatal(err)
	}
	db := bridgetest.DB(t)
	t.Chdir(t.TempDir())
	all := files(t, page)
	all["config.yaml"] = fmt.Sprintf(guideConfig, db.Role("authenticator"))
	for name, text := range all {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rules, _ := mapping.Load("groups.yaml", []byte(all["groups.yaml"]))
	if err := db.Exec(t.Context(), fmt.Sprintf(people, rules.Hash())); err != nil {
		t.Fatal(err)
	}
	lookup := func(name string) (string, bool) { return db.URL, name == "DATABASE_URL" }
	got := fenced.ReplaceAllStringFunc(page, func(fence string) string {
		m := fenced.FindStringSubmatch(fence)
		if m[2] != "console" {
			return fence
		}
		var shown strings.Builder
		for _, line := range strings.Split(m[3], "\n") {
			command, isCommand := strings.CutPrefix(line, "$ oidc-bridge ")
			if !isCommand {
				continue
			}
			fmt.Fprintln(&shown, line)
			run(t.Context(), words(command), strings.NewReader(""), &shown, &shown, lookup)
		}
		return "```console\n" + shown.String() + "```"
	})
	got = regexp.MustCompile(`(?s)<!-- codes -->\n.*`).ReplaceAllString(got, "<!-- codes -->\n"+codeTable())
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != page {
		t.Errorf("the guide does not show what its commands print: go test ./cmd/oidc-bridge -run Guide -update\n%s", firstDifference(page, got))
	}
}

// words splits a command line as a shell does, as far as the guide needs it.
func words(line string) (found []string) {
	for _, m := range regexp.MustCompile(`'([^']*)'|(\S+)`).FindAllStringSubmatch(line, -1) {
		found = append(found, m[1]+m[2])
	}
	return found
}

func codeTable() string {
	var table bytes.Buffer
	table.WriteString("| code | meaning |\n|---|---|\n")
	for _, c := range codes.All() {
		fmt.Fprintf(&table, "| %s | %s |\n", c.Code, c.Title)
	}
	return table.String()
}

func firstDifference(want, got string) string {
	wanted, printed := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(wanted), len(printed)) {
		if wanted[i] != printed[i] {
			return fmt.Sprintf("line %d:\n  %s\n  %s", i+1, wanted[i], printed[i])
		}
	}
	return "another length"
}

// The guide speaks of every key and every operator that the parser reads: those of the schema, which is made of its tables.
func TestGuideIsComplete(t *testing.T) {
	page := readFile(t, guide)
	var schema any
	if err := json.Unmarshal(mapping.LanguageSchema(), &schema); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	properties(schema, keys)
	if len(keys) < 40 {
		t.Errorf("only %d keys", len(keys))
	}
	for key := range keys {
		if !regexp.MustCompile(`\b` + key + `\b`).MatchString(page) {
			t.Errorf("the guide does not mention %q", key)
		}
	}
	for _, m := range regexp.MustCompile(`\]\(#([a-z-]+)\)`).FindAllStringSubmatch(page, -1) {
		if !slices.Contains(anchors(page), m[1]) {
			t.Errorf("no heading for #%s", m[1])
		}
	}
}

func properties(schema any, keys map[string]bool) {
	switch schema := schema.(type) {
	case map[string]any:
		if named, isObject := schema["properties"].(map[string]any); isObject {
			for key := range named {
				keys[key] = true
			}
		}
		for _, member := range schema {
			properties(member, keys)
		}
	case []any:
		for _, item := range schema {
			properties(item, keys)
		}
	}
}

func anchors(page string) (found []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		text := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		found = append(found, strings.ReplaceAll(text, " ", "-"))
	}
	return found
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
