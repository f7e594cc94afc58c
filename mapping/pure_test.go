package mapping

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The package decides from its arguments alone: no clock, no log, no I/O, no network, no database, nothing else of ours.
func TestPackageIsPure(t *testing.T) {
	allowed := []string{
		"bytes", "cmp", "crypto/sha256", "encoding/hex", "encoding/json", "errors", "fmt", "io", "maps", "reflect", "regexp", "slices", "strconv", "strings", "time",
		"unicode", "unicode/utf8", "go.yaml.in/yaml/v3", "golang.org/x/net/idna", "github.com/oidc-bridge/oidc-bridge/mapping/strictyaml",
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := filepath.Glob("strictyaml/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(files, reader...) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range parsed.Imports {
			if path, _ := strconv.Unquote(i.Path.Value); !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", name, path)
			}
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, clock := range []string{"time.Now", "time.Since", "time.Until", "func init("} {
			if strings.Contains(string(text), clock) {
				t.Errorf("%s uses %s", name, clock)
			}
		}
	}
}
