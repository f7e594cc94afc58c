package deploy_test

import (
	"os"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestTraefikFile reads what Traefik would, since none runs here: the names fit together, and the order in which things are done is right.
func TestTraefikFile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("traefik/oidc-bridge.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		HTTP struct {
			Routers map[string]struct {
				Rule, Service string
				Middlewares   []string
			}
			Middlewares map[string]struct {
				ForwardAuth *struct {
					Address             string
					AuthResponseHeaders []string `yaml:"authResponseHeaders"`
					TrustForwardHeader  *bool    `yaml:"trustForwardHeader"`
				} `yaml:"forwardAuth"`
				Headers *struct {
					CustomRequestHeaders map[string]string `yaml:"customRequestHeaders"`
				}
				StripPrefix *struct{ Prefixes []string } `yaml:"stripPrefix"`
			}
			Services map[string]struct {
				LoadBalancer struct{ Servers []struct{ URL string } } `yaml:"loadBalancer"`
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for name, router := range file.HTTP.Routers {
		if _, found := file.HTTP.Services[router.Service]; !found || router.Rule == "" {
			t.Errorf("router %s: service %q, rule %q", name, router.Service, router.Rule)
		}
		for _, middleware := range router.Middlewares {
			if _, found := file.HTTP.Middlewares[middleware]; !found {
				t.Errorf("router %s: no middleware %q", name, middleware)
			}
		}
	}
	// Other spellings go before the answer of /auth is set, the cookie after it was read, and the path is the original when /auth is asked.
	if order := file.HTTP.Routers["api"].Middlewares; !slices.Equal(order, []string{"other-spellings", "who-asks", "no-cookies", "below-api"}) {
		t.Errorf("order: %v", order)
	}
	auth := file.HTTP.Middlewares["who-asks"].ForwardAuth
	if auth == nil || !slices.Equal(auth.AuthResponseHeaders, []string{"Authorization", "X-Auth-User", "X-Auth-Role"}) || auth.TrustForwardHeader == nil || *auth.TrustForwardHeader ||
		auth.Address != file.HTTP.Services["bridge"].LoadBalancer.Servers[0].URL+"/auth/auth?mode=redirect" {
		t.Errorf("who-asks: %+v", auth)
	}
	if value, set := file.HTTP.Middlewares["no-cookies"].Headers.CustomRequestHeaders["Cookie"]; !set || value != "" {
		t.Errorf("the cookie goes to PostgREST")
	}
}
