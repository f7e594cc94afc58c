package oidcbridge

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

func TestMain(m *testing.M) { bridgetest.Main(m) }

// environment has every variable that the documents mention.
func environment(name string) (string, bool) {
	value, set := map[string]string{
		"DATABASE_URL": "postgres://bridge_runtime@localhost/app", "JWT_SECRET": "0f8b3c1d5e7a92640f8b3c1d5e7a9264",
		"COOKIE_KEY": "S2V5IGZvciB0ZXN0cyBvZiB0aGUgY29tbWFuZCBsaW4=", "CORP_CLIENT_SECRET": "a", "GOOGLE_CLIENT_ID": "a", "GOOGLE_CLIENT_SECRET": "a",
	}[name]
	return value, set
}

// blocks returns the code blocks of a document that follow a comment <!-- mark -->.
func blocks(t *testing.T, readme, mark string) (out []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?s)<!-- "+mark+" -->\n```[a-z]+\n(.*?)```").FindAllStringSubmatch(readme, -1) {
		out = append(out, m[1])
	}
	if len(out) == 0 {
		t.Fatalf("there is no block marked %q", mark)
	}
	return out
}

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReadmeConfiguration loads the README's configuration and rules, alone and together.
func TestReadmeConfiguration(t *testing.T) {
	t.Parallel()
	text := readme(t)
	configs, rules := blocks(t, text, "test: config"), blocks(t, text, "test: rules")
	for _, config := range []string{configs[0], strings.Join(configs, "\n")} {
		if _, findings := bridge.LoadConfig("config.yaml", []byte(config), environment); len(findings) > 0 {
			t.Errorf("%s\n%v", config, findings)
		}
	}
	for _, text := range rules {
		if _, findings := mapping.Load("rules.yaml", []byte(text)); len(findings) > 0 {
			t.Errorf("%s\n%v", text, findings)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"config.yaml": configs[0], "rules.yaml": rules[0]} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, findings := bridge.Load(filepath.Join(dir, "config.yaml"), environment); len(findings) > 0 {
		t.Error(findings)
	}
}

// TestProviderDocuments loads the configuration of each document with each of its rules.
func TestProviderDocuments(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"docs/keycloak.md", "docs/google.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, rules := range blocks(t, string(text), "test: rules") {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "config.yaml"), blocks(t, string(text), "test: config")[0])
			write(t, filepath.Join(dir, "rules.yaml"), rules)
			if _, _, findings := bridge.Load(filepath.Join(dir, "config.yaml"), environment); len(findings) > 0 {
				t.Errorf("%s: %v", file, findings)
			}
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestExampleFilesFitTogether: config.example.yaml and rules.example.yaml are a pair.
func TestExampleFilesFitTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for to, from := range map[string]string{"config.yaml": "config.example.yaml", "rules.yaml": "rules.example.yaml"} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, _, findings := bridge.Load(filepath.Join(dir, "config.yaml"), func(name string) (string, bool) {
		if value, set := environment(name); set {
			return value, set
		}
		return "x", strings.HasPrefix(name, "GOOGLE_")
	})
	if strictyaml.Errors(findings) {
		t.Error(findings)
	}
}

// TestReadmeSQL runs the README's SQL as superuser, with names that are free on any server.
func TestReadmeSQL(t *testing.T) {
	t.Parallel()
	db := bridgetest.EmptyDB(t)
	owner, runtime := "owner_of_"+db.Name, "runtime_of_"+db.Name
	conn, err := pgx.Connect(t.Context(), db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, sql := range blocks(t, readme(t), "run: superuser") {
		sql = strings.NewReplacer("bridge_owner", owner, "bridge_runtime", runtime, "DATABASE app", "DATABASE "+db.Name).Replace(sql)
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	for _, sql := range blocks(t, readme(t), "run: migrated") {
		if err := bridgetest.DB(t).Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if _, err := conn.Exec(t.Context(), "DROP OWNED BY "+owner); err != nil {
		t.Error(err)
	}
	if _, err := conn.Exec(t.Context(), "DROP ROLE "+owner+", "+runtime); err != nil {
		t.Error(err)
	}
}

// TestReadmeLinks: files that the README links to are there.
func TestReadmeLinks(t *testing.T) {
	t.Parallel()
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(readme(t), -1) {
		if strings.Contains(m[1], "://") {
			continue
		}
		if _, err := os.Stat(m[1]); err != nil {
			t.Errorf("%v", err)
		}
	}
	for _, command := range []string{"\n    go run ./cmd/demo\n", "\n    go test ./...\n"} {
		if !strings.Contains(readme(t), command) {
			t.Errorf("the README does not have the command %q", command)
		}
	}
}
