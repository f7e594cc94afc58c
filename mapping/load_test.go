package mapping

import (
	"os"
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

// The file of the design page loads, and with it the tests that it carries pass.
func TestDesignFileLoads(t *testing.T) {
	load(t, "testdata/design.yaml")
}
