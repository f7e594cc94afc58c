package e2e

import (
	"testing"

	"github.com/chromedp/chromedp"
)

// loginPages are a provider's own pages.
type loginPages struct {
	logIn  func(w *window, name string)
	logOut func(w *window)
	agree  func(w *window) // to the logout that an application asks for
}

// oidcProviderPages are those of oidc-provider/provider.mjs.
func oidcProviderPages(issuer string) loginPages {
	return loginPages{
		logIn: func(w *window, name string) {
			w.fill("[name=name]", name)
			w.fill("[name=password]", name+"-password")
			w.shot("provider")
			w.click("[value=sign-in]")
			w.click("[value=allow]")
		},
		logOut: func(w *window) {
			w.open(issuer + "/session/end")
			w.click("[name=logout]")
			w.see("Signed out")
		},
		agree: func(w *window) { w.click("[name=logout]") },
	}
}

func TestChromium(t *testing.T) {
	s := newShop(t)
	issuer := s.startProvider(t, "0")
	s.setUp(t, issuer)
	s.serve(t)
	s.ordersInChromium(t, "basic", oidcProviderPages(issuer), "carl", "ada")
}

// ordersInChromium is a day at one browser: a customer, then an administrator who does not wait for the customer's logout, then the customer
// again. Whoever it is, the page shows what the database lets them see, and the browser's cache has the token of nobody else (product.md).
func (s *shop) ordersInChromium(t *testing.T, connection string, provider loginPages, customer, admin string) {
	t.Helper()
	w := s.openWindow(t)
	w.open(s.origin + "/")
	w.see("Who ordered what?")
	w.shot("visitor")
	w.click(`[href^="/auth/login"]`)
	w.see("Choose where you have your account")
	w.shot("chooser")
	w.click(chromedp.CSS(`[href*="/login/` + connection + `"]`))
	provider.logIn(w, customer)
	w.wantOrders()
	w.wantToken(customer+"@example.com", "customer")

	if err := s.db.Exec(t.Context(), `
		INSERT INTO private.orders (user_id, item, price) SELECT id, unnest(ARRAY['Fountain pen', 'Paper lantern']), 19 FROM bridge.users;
		WITH other AS (INSERT INTO bridge.users (name) VALUES ('Somebody else') RETURNING id)
		INSERT INTO private.orders (user_id, item, price) SELECT id, 'Desk lamp', 64 FROM other`); err != nil {
		t.Fatal(err)
	}
	before := s.tokens.Load()
	w.do(chromedp.Reload())
	w.wantOrders("Fountain pen", "Paper lantern")
	w.shot("customer")
	w.wantToken(customer+"@example.com", "customer")
	if asked := s.tokens.Load() - before; asked != 0 {
		t.Errorf("the browser has a token in its cache, and asked for %d more", asked)
	}

	provider.logOut(w)
	w.open(s.public + "/login/" + connection + "?return_to=/")
	provider.logIn(w, admin)
	w.wantOrders("Desk lamp", "Fountain pen", "Paper lantern")
	w.wantToken(admin+"@example.com", "admin")
	w.shot("administrator")

	w.click("form[action='/auth/logout'] button")
	provider.agree(w)
	w.wantLoggedOut()
	w.shot("logged-out")
	w.back(s.origin + "/")
	w.see("Who ordered what?")
	w.wantNoToken()
	if shown := evaluate[int](w, `document.querySelectorAll("#rows tr").length`); shown != 0 {
		t.Errorf("after the logout, Back brings %d orders", shown)
	}

	// The provider has ended its session too: it asks who it is.
	w.open(s.public + "/login/" + connection + "?return_to=/")
	provider.logIn(w, customer)
	w.wantOrders("Fountain pen", "Paper lantern")
	w.wantToken(customer+"@example.com", "customer")
}
