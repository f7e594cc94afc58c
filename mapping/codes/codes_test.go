package codes

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

func TestMain(m *testing.M) { bridgetest.Main(m) }

// Every code that the program can emit is explained, and no other.
func TestEveryCodeIsExplained(t *testing.T) {
	emitted := map[string]string{}
	for _, folder := range []string{"..", "../strictyaml", "../../bridge", "../../cmd/oidc-bridge"} {
		files, err := filepath.Glob(folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`"([ETW][1-6]\d\d)"`).FindAllStringSubmatch(string(text), -1) {
				if !strings.HasSuffix(name, "_test.go") {
					emitted[m[1]] = name
				}
			}
		}
	}
	explained := map[string]bool{}
	for _, c := range All() {
		explained[c.Code] = true
		if emitted[c.Code] == "" {
			t.Errorf("%s is explained, and nothing emits it", c.Code)
		}
		if c.Title == "" || c.Text == "" || c.Wrong == "" || c.Right == "" && c.RightSQL == "" {
			t.Errorf("%s lacks a part: %+v", c.Code, c)
		}
	}
	for code, name := range emitted {
		if !explained[code] {
			t.Errorf("%s emits %s, which is not explained", name, code)
		}
	}
	if len(explained) < 40 {
		t.Errorf("only %d codes", len(explained))
	}
}

// Each example has its code and nothing else; mended, it has nothing.
func TestExamples(t *testing.T) {
	for _, c := range All() {
		if c.WrongSQL != "" {
			continue
		}
		t.Run(c.Code, func(t *testing.T) {
			t.Parallel()
			found := findings(t, c, c.Wrong)
			for _, f := range found {
				if f.Code != c.Code || (f.Severity == strictyaml.Warning) != c.Warning() {
					t.Errorf("the wrong example also has: %v", f)
				}
			}
			if len(found) == 0 {
				t.Error("the wrong example has nothing")
			}
			for _, f := range findings(t, c, c.Right) {
				t.Errorf("the right example has: %v", f)
			}
		})
	}
}

func findings(t *testing.T, c Code, text string) []strictyaml.Finding {
	t.Helper()
	if c.Mutate {
		return mapping.Mutate("rules.yaml", []byte(text))
	}
	rules, found := mapping.Load("rules.yaml", []byte(text))
	if rules == nil {
		return found
	}
	found = append(found, rules.IssuerFindings(map[string]string{"corp": c.Issuer})...)
	if c.Now != "" {
		now, err := time.Parse(time.DateOnly, c.Now)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, rules.Expired(now)...)
	}
	return found
}

// What only the database can tell: the role of the example is made wrong there, and mended.
func TestDatabaseExamples(t *testing.T) {
	for _, c := range All() {
		if c.WrongSQL == "" {
			continue
		}
		t.Run(c.Code, func(t *testing.T) {
			t.Parallel()
			db := bridgetest.DB(t)
			// Roles are the server's, and other tests run there.
			role := "editor_of_" + db.Name
			named := strings.NewReplacer("editors", "editors", "editor", role, "authenticator", db.Role("authenticator"))
			rules, found := mapping.Load("rules.yaml", []byte(named.Replace(c.Wrong)))
			if len(found) > 0 {
				t.Fatal(found)
			}
			conn, err := pgx.Connect(t.Context(), db.AdminURL)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			config := &bridge.Config{Database: bridge.DatabaseConfig{URL: bridge.NewSecret(db.URL), Authenticator: db.Role("authenticator")}}
			run := func(sql string) []string {
				if _, err := conn.PgConn().Exec(t.Context(), named.Replace(sql)).ReadAll(); err != nil {
					t.Fatal(err)
				}
				var codes []string
				for _, f := range bridge.CheckRoles(t.Context(), config, rules) {
					codes = append(codes, f.Code)
				}
				return codes
			}
			if got := run(c.WrongSQL); !slices.Equal(got, []string{c.Code}) {
				t.Errorf("before: %v", got)
			}
			if got := run(c.RightSQL); got != nil {
				t.Errorf("after: %v", got)
			}
			if _, err := conn.Exec(t.Context(), "DROP ROLE IF EXISTS "+role); err != nil {
				t.Error(err)
			}
		})
	}
}
