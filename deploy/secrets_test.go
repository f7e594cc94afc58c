package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The .env of the README's commands is its owner's alone, whatever umask the shell has that makes it.
func TestSecretsAreForTheirOwnerAlone(t *testing.T) {
	t.Parallel()
	env := filepath.Join(t.TempDir(), ".env")
	if out, err := exec.Command("sh", "-c", `umask 022; ./secrets > "$1"`, "sh", env).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(env)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Error(info.Mode())
	}
	if text, err := os.ReadFile(env); err != nil || strings.Count(string(text), "\n") != 8 {
		t.Errorf("%v: %d lines", err, strings.Count(string(text), "\n"))
	}
}
