package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// TestTokenCache: a page that does nothing but fetch /api_token has the browser's cache do the rest, as product.md says. The demo's page would
// not show a fault here: it asks anew when PostgREST refuses a token.
func TestTokenCache(t *testing.T) {
	s := openShop(t)
	s.site.HandleFunc("/plain", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<!doctype html><title>Plain</title><h1>A plain page</h1>`)
	})
	provider := oidcProviderPages(s.issuer)
	w := s.openWindow(t)
	login := func(name, role string) {
		t.Helper()
		w.open(s.public + "/login/basic?return_to=/plain")
		provider.logIn(w, name)
		w.see("A plain page")
		before := s.tokens.Load()
		for range 3 {
			if got := w.token(); got.Status != 200 || got.Claims.Email != name+"@example.com" || got.Claims.Role != s.db.Role(role) {
				t.Errorf("logged in as %s: status %d, a token for %+v", name, got.Status, got.Claims)
			}
			w.open(s.origin + "/plain")
		}
		s.wantAsked(t, 1, before)
	}

	w.open(s.origin + "/plain")
	w.wantNoToken()
	login("carl", "customer")
	provider.logOut(w)
	login("ada", "admin") // who does not wait for carl's logout
	w.open(s.public + "/logout?return_to=/plain")
	w.see("Log out?")
	w.click("button")
	provider.agree(w)
	w.wantLoggedOut()
	w.back(s.origin + "/plain")
	w.see("A plain page")
	w.wantNoToken()
	login("carl", "customer")
}
