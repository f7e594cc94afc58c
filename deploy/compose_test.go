package deploy_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge"
)

// The bridge of compose.yaml finds everything that its configuration needs. (e2e runs the whole file.)
func TestComposeConfiguration(t *testing.T) {
	t.Parallel()
	compose, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"DATABASE_URL": "postgres://bridge_runtime:a@db:5432/shop", "CLIENT_SECRET": "a", "JWT_SECRET": "0f8b3c1d5e7a92640f8b3c1d5e7a9264",
		"COOKIE_KEY": "S2V5IGZvciB0ZXN0cyBvZiB0aGUgY29tbWFuZCBsaW4=",
	}
	_, _, findings := bridge.Load("bridge/config.yaml", func(name string) (string, bool) {
		if !regexp.MustCompile(`(?m)^      ` + name + `: `).Match(compose) {
			t.Errorf("compose.yaml does not set %s", name)
		}
		value, set := values[name]
		return value, set
	})
	if len(findings) > 0 {
		t.Error(findings)
	}
}
