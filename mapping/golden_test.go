package mapping

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

var update = flag.Bool("update", false, "rewrite the golden parts of testdata")

// golden runs every txtar archive of a folder. check computes the archive's golden files from its other files.
func golden(t *testing.T, folder string, check func(t *testing.T, file func(name string) string) map[string]string) {
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no archives in %s: %v", folder, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			find := func(name string) int {
				for i, f := range archive.Files {
					if f.Name == name {
						return i
					}
				}
				return -1
			}
			want := check(t, func(name string) string {
				if i := find(name); i >= 0 {
					return string(archive.Files[i].Data)
				}
				return ""
			})
			for _, name := range sortedKeys(toAny(want)) {
				i := find(name)
				if *update {
					if i < 0 {
						archive.Files = append(archive.Files, txtar.File{Name: name})
						i = len(archive.Files) - 1
					}
					archive.Files[i].Data = []byte(want[name])
				} else if i < 0 {
					t.Errorf("%s has no %s; run go test -update", path, name)
				} else if diff := cmp.Diff(string(archive.Files[i].Data), want[name]); diff != "" {
					t.Errorf("%s differs (-file +got):\n%s", name, diff)
				}
			}
			if *update {
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func toAny(files map[string]string) map[string]any {
	named := map[string]any{}
	for name := range files {
		named[name] = nil
	}
	return named
}

// Each archive of testdata/findings is a rules file with a mistake, and what is printed about it. The archive is named after the code.
func TestFindings(t *testing.T) {
	golden(t, "findings", func(t *testing.T, file func(string) string) map[string]string {
		rules, findings := Load("rules.yaml", []byte(file("rules.yaml")))
		if rules != nil && file("issuer") != "" {
			findings = append(findings, rules.IssuerFindings(map[string]string{"corp": strings.TrimSpace(file("issuer"))})...)
		}
		if now, err := time.Parse(time.DateOnly, strings.TrimSpace(file("now"))); err == nil && rules != nil {
			findings = append(findings, rules.Expired(now)...)
		}
		if file("mutate") != "" {
			findings = Mutate("rules.yaml", []byte(file("rules.yaml")))
		}
		var printed strings.Builder
		code := filepath.Base(t.Name())[:4]
		for _, f := range findings {
			fmt.Fprintln(&printed, f)
			if f.Severity == strictyaml.Error && !strings.HasPrefix(f.Code, code) {
				t.Errorf("also found: %v", f)
			}
		}
		if !strings.Contains(printed.String(), code) {
			t.Errorf("%s is not found", code)
		}
		return map[string]string{"findings": printed.String()}
	})
}

// Every code that the package uses has its archive.
func TestEveryCodeHasAnArchive(t *testing.T) {
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := filepath.Glob("strictyaml/*.go")
	if err != nil {
		t.Fatal(err)
	}
	sources = append(sources, reader...)
	code := regexp.MustCompile(`"([ETW][1-6]\d\d)"`)
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		for _, m := range code.FindAllStringSubmatch(string(text), -1) {
			if paths, _ := filepath.Glob("testdata/findings/" + m[1] + "*.txtar"); len(paths) == 0 {
				t.Errorf("%s uses %s, which has no archive in testdata/findings", source, m[1])
			}
		}
	}
}

// Each archive of testdata/stories is a rules file, persons, and how their decisions come about.
func TestStories(t *testing.T) {
	golden(t, "stories", func(t *testing.T, file func(string) string) map[string]string {
		rules := loadText(t, "rules.yaml", file("rules.yaml"))
		outputs := map[string]string{}
		for _, name := range strings.Fields(file("persons")) {
			person := decode(t, file(name+".json"))
			claims, _ := person["claims"].(map[string]any)
			tokens := Tokens{IDToken: claims, AccessToken: claims, UserInfo: claims}
			if recorded, separate := person["tokens"].(map[string]any); separate {
				tokens.IDToken, _ = recorded["id_token"].(map[string]any)
				tokens.AccessToken, _ = recorded["access_token"].(map[string]any)
				tokens.UserInfo, _ = recorded["userinfo"].(map[string]any)
			}
			provider, _ := person["provider"].(string)
			in := Input{
				Provider: provider, Row: Row{Known: true}, Now: time.Date(2027, 1, 15, 0, 0, 0, 0, time.UTC),
				Claims: rules.Capture(provider, tokens),
			}
			switch row := person["row"].(type) {
			case string:
				in.Row.Role = row
			case bool:
				in.Row.Known = row
			}
			outputs[name+".explained"] = rules.Explain(in).String()
		}
		return outputs
	})
}
