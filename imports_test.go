// Package oidcbridge holds no code: its one test keeps the shape of the project that bridge/bridge.go describes.
package oidcbridge

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/oidc-bridge/oidc-bridge/"

// mayImport says which packages of ours each folder may import; tests may import more.
var mayImport = map[string][]string{
	"cmd/oidc-bridge":    {"bridge", "mapping", "mapping/codes", "mapping/strictyaml", "migrations"},
	"cmd/demo":           {"bridge", "bridge/bridgetest", "cmd/demo/front", "deploy", "mapping", "mapping/strictyaml"},
	"cmd/demo/front":     {},
	"bridge":             {"mapping", "mapping/strictyaml", "migrations"},
	"bridge/bridgetest":  {"migrations"},
	"mapping":            {"mapping/strictyaml"},
	"mapping/codes":      {},
	"mapping/strictyaml": {},
	"migrations":         {},
	"deploy":             {},
}

// onlyIn names the one place of each library in the service: to replace it, that is the file to change. The test kit and the demo are free.
var onlyIn = map[string][]string{
	"github.com/go-chi/chi/v5":                       {"bridge/bridge.go", "bridge/login.go", "bridge/backchannel.go", "bridge/middleware.go"},
	"github.com/coreos/go-oidc/v3/oidc":              {"bridge/verify.go"},
	"golang.org/x/time/rate":                         {"bridge/limit.go"},
	"golang.org/x/oauth2":                            {"bridge/provider.go", "bridge/exchange.go"},
	"github.com/jackc/pgx/v5":                        {"bridge/store.go", "bridge/store_signin.go", "bridge/store_logout.go", "bridge/store_refresh.go", "bridge/listen.go", "bridge/check.go", "bridge/check_database.go", "bridge/store_sessions.go", "bridge/identities.go", "bridge/people.go", "bridge/people_sessions.go", "bridge/config_secrets.go", "migrations/migrations.go"},
	"github.com/prometheus/client_golang/prometheus": {"bridge/metrics.go"},
	"github.com/pressly/goose/v3":                    {"migrations/migrations.go"},
	"github.com/alecthomas/kong":                     {"cmd/oidc-bridge/main.go"},
	"github.com/fergusstrange/embedded-postgres":     {},
	"github.com/go-jose/go-jose/v4":                  {"bridge/signer.go", "bridge/verify.go", "bridge/outbound.go", "bridge/keyset.go", "bridge/provider.go"},
	"github.com/go-chi/chi/v5/middleware":            {},
	"github.com/jackc/pgx/v5/stdlib":                 {"migrations/migrations.go"},
}

func TestImports(t *testing.T) {
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "e2e" || d.Name() == "tools"):
			return filepath.SkipDir
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		folder := filepath.ToSlash(filepath.Dir(name))
		allowed, known := mayImport[folder]
		if !known {
			t.Errorf("%s: folder %s has no place in the shape of the project", name, folder)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			if ours, found := strings.CutPrefix(path, module); found && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s", name, ours)
			}
			if files, limited := onlyIn[path]; limited && folder != "bridge/bridgetest" && folder != "cmd/demo" && !slices.Contains(files, filepath.ToSlash(name)) {
				t.Errorf("%s imports %s, which is for %v", name, path, files)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
