package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping/codes"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// One mistake per code, in as few files as the stages of reading allow: every one of them is reported by one run, on the line whose comment
// names it, and nothing else is. The archives also hold what is printed; to write that: go test ./cmd/oidc-bridge -run Mistake -update
func TestOneMistakePerCode(t *testing.T) {
	db := bridgetest.DB(t)
	// Roles are the server's, and other tests run there.
	names := []string{"missing", "missing_" + db.Name, "ungranted", "ungranted_" + db.Name, "powerful", "powerful_" + db.Name, "authenticator", db.Role("authenticator")}
	here := strings.NewReplacer(names...)
	slices.Reverse(names)
	anywhere := strings.NewReplacer(names...)
	role := func(verb, options string) string {
		return here.Replace(verb + " ROLE ungranted " + options + "; " + verb + " ROLE powerful " + options)
	}
	if err := db.Exec(t.Context(), role("CREATE", "NOLOGIN")+here.Replace("; ALTER ROLE powerful CREATEROLE; GRANT powerful TO authenticator")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Exec(context.Background(), role("DROP", "")); err != nil {
			t.Error(err)
		}
	})
	lookup := func(name string) (string, bool) { return db.URL, name == "DATABASE_URL" }

	archives, err := filepath.Glob("testdata/mistakes/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal(archives, err)
	}
	var all []string
	for i := range archives {
		if archives[i], err = filepath.Abs(archives[i]); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{"config.yaml": "database: { authenticator: authenticator }\n"}
		for _, f := range archive.Files {
			files[f.Name] += string(f.Data)
		}
		t.Chdir(t.TempDir())
		for name, text := range files {
			if err := os.WriteFile(name, []byte(here.Replace(text)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		// What only a run without a condition can tell has a command of its own.
		commands := [][]string{{"rules", "check", "rules.yaml", "--db"}, {"rules", "test", "rules.yaml", "--mutate"}}
		var printed bytes.Buffer
		found := map[place]bool{}
		for i, command := range commands {
			var report bytes.Buffer
			run(t.Context(), append(command, "--format", "json"), strings.NewReader(""), &report, &report, lookup)
			for _, f := range reported(t, report.Bytes()) {
				if i == 0 || f.Code == "W511" {
					found[place{f.Line, f.Code}] = true
				}
			}
			run(t.Context(), command, strings.NewReader(""), &printed, &printed, lookup)
		}
		wanted := mistakes(files["rules.yaml"])
		if diff := cmp.Diff(wanted, found); diff != "" {
			t.Errorf("%s (-comments +findings):\n%s", filepath.Base(path), diff)
		}
		for p := range wanted {
			all = append(all, p.code)
		}
		if got := anywhere.Replace(printed.String()); *update {
			archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "printed" })
			archive.Files = append(archive.Files, txtar.File{Name: "printed", Data: []byte(got)})
			if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if diff := cmp.Diff(files["printed"], got); diff != "" {
			t.Errorf("%s (-file +printed):\n%s", filepath.Base(path), diff)
		}
	}
	slices.Sort(all)
	var known []string
	for _, c := range codes.All() {
		known = append(known, c.Code)
	}
	if diff := cmp.Diff(known, all); diff != "" {
		t.Errorf("codes (-known +in the archives):\n%s", diff)
	}
}

// A place is where a code is found.
type place struct {
	line int
	code string
}

// mistakes are the codes that comments name, by line.
func mistakes(text string) map[place]bool {
	code := regexp.MustCompile(`\b[ETW]\d\d\d\b`)
	places := map[place]bool{}
	for i, line := range strings.Split(text, "\n") {
		_, comment, _ := strings.Cut(line, " # ")
		for _, name := range code.FindAllString(comment, -1) {
			if strings.HasSuffix(comment, "at the top") && name == "E110" {
				places[place{1, name}] = true
			} else {
				places[place{i + 1, name}] = true
			}
		}
	}
	return places
}

func reported(t *testing.T, text []byte) []strictyaml.Finding {
	t.Helper()
	var report struct{ Findings []strictyaml.Finding }
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return report.Findings
}
