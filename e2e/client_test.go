package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// clientPages are the README's pages by their marks, with their libraries from node_modules.
func clientPages(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	const head = `<!doctype html><html lang="en"><title>A page</title>
<script type="importmap">{"imports":{"@supabase/postgrest-js":"/modules/@supabase/postgrest-js/dist/index.mjs"}}</script><body>`
	local := strings.NewReplacer(
		"https://cdn.jsdelivr.net/npm/@supabase/supabase-js@2", "/modules/@supabase/supabase-js/dist/umd/supabase.js",
		"https://code.jquery.com/jquery-3.7.1.min.js", "/modules/jquery/dist/jquery.min.js")
	pages := map[string]string{"empty": head}
	for _, block := range regexp.MustCompile("(?s)<!-- e2e: (\\S+) page -->\n```html\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		pages[block[1]] = head + local.Replace(block[2])
	}
	return pages
}

// openSite starts a web server of another origin than the shop's and returns that; it is of the same site.
func openSite(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
}

// load makes the module of the bridge `m` in the page that the window shows.
func (w *window) load(address string) {
	w.t.Helper()
	w.open(address)
	evaluate[bool](w, fmt.Sprintf(`import(%q).then(module => {
		window.m = module
		window.ended = 0
		m.events.addEventListener('sessionend', () => ended++)
		addEventListener('pageshow', event => { if (event.persisted) window.persisted = m.getToken() })
		window.items = async answer => (await answer.json()).map(({ item }) => item).sort().join()
		return true
	})`, w.shop.public+"/bridge.js"))
}

// wantJS compares the value of an expression, or of its promise; what it rejects with is its status and message.
func (w *window) wantJS(want, expression string) {
	w.t.Helper()
	got := evaluate[string](w, `(async () => { try { return String(await (`+expression+`)) } catch (error) { return error.name + " " + error.status } })()`)
	if got != want {
		w.t.Errorf("%s is %q, want %q", expression, got, want)
	}
}

// until waits for an expression to be true, on whatever page the window is by then.
func (w *window) until(expression string) {
	w.t.Helper()
	bridgetest.Await(w.t, expression, func() bool {
		ctx, cancel := context.WithTimeout(w.ctx, stepTimeout)
		defer cancel()
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		return err == nil && is
	})
}

// shows waits for a text; unlike see, it does not look at scripts, which have it too.
func (w *window) shows(text string) {
	w.t.Helper()
	w.until(fmt.Sprintf("document.body.innerText.includes(%q)", text))
}

// wantAsked compares the number of requests for a token since `before`.
func (s *shop) wantAsked(t *testing.T, want, before int32) {
	t.Helper()
	if got := s.tokens.Load() - before; got != want {
		t.Errorf("%d requests for a token, want %d", got, want)
	}
}

// TestClient is bridge.js in Chromium: the README's pages, and what only a browser can show.
func TestClient(t *testing.T) {
	s := newShop(t)
	api := &httputil.ReverseProxy{}
	allowed := openSite(t, serveClientPages(t, api))
	refused := openSite(t, serveClientPages(t, api))
	var mu sync.Mutex
	var followed []string // Authorization of what reached the landing page of another origin
	elsewhere := openSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Headers", "*, Authorization")
		if r.Method == http.MethodGet {
			mu.Lock()
			followed = append(followed, r.Header.Get("Authorization"))
			mu.Unlock()
		}
	}))
	var old atomic.Value // the Authorization that /sometimes refuses
	old.Store("")
	s.site.HandleFunc("/sometimes", func(w http.ResponseWriter, r *http.Request) {
		old.CompareAndSwap("", r.Header.Get("Authorization"))
		if r.Header.Get("Authorization") == old.Load() {
			w.WriteHeader(http.StatusUnauthorized)
		}
		r.ParseForm()
		fmt.Fprint(w, r.Form.Get("x"))
	})
	s.site.Handle("/moved", http.RedirectHandler(elsewhere+"/landing", http.StatusTemporaryRedirect))
	pages := serveClientPages(t, api)
	for _, path := range []string{"/pages/", "/modules/", "/rest/v1/"} {
		s.site.Handle(path, pages)
	}
	issuer := s.startProvider(t, "0")
	s.write(t, "post.secret", "post-client-secret-of-the-end-to-end-tests\n")
	s.configure(t, strings.ReplaceAll(providers, "ISSUER", issuer)+fmt.Sprintf("allowed_origins: [%q]\n", allowed), rules)
	s.migrate(t)
	bridge := s.serve(t)
	target, err := url.Parse(s.startAPI(t, 16))
	if err != nil {
		t.Fatal(err)
	}
	api.Rewrite = func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.URL.Path = strings.TrimPrefix(r.Out.URL.Path, "/rest/v1")
		r.Out.Header.Del("Cookie")
	}

	w := s.openWindow(t)
	w.open(s.origin + "/pages/plain")
	w.shows("Nobody")
	w.click("#login")
	w.see("Choose where you have your account")
	w.click(`[href*="/login/basic"]`)
	oidcProviderPages(issuer).logIn(w, "carl")
	w.shows(", " + s.db.Role("customer"))
	if err := s.db.Exec(t.Context(), `
		INSERT INTO private.orders (user_id, item, price) SELECT id, unnest(ARRAY['Fountain pen', 'Paper lantern']), 19 FROM bridge.users;
		WITH other AS (INSERT INTO bridge.users (name) VALUES ('Somebody else') RETURNING id)
		INSERT INTO private.orders (user_id, item, price) SELECT id, 'Desk lamp', 64 FROM other`); err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"plain", "postgrest-js", "supabase-js", "jQuery"} {
		t.Run(page, func(t *testing.T) {
			w := w.on(t)
			before := s.tokens.Load()
			w.open(s.origin + "/pages/" + page)
			w.shows("Paper lantern")
			w.wantJS("Fountain pen\nPaper lantern", `document.querySelector("#orders").innerText.trim()`)
			s.wantAsked(t, 1, before)
			w.shot("page")
		})
	}

	t.Run("any number of callers", func(t *testing.T) {
		w := w.on(t)
		before := s.tokens.Load()
		w.load(s.origin + "/pages/empty")
		w.wantJS("200", `Promise.all(Array.from({ length: 30 }, () => m.bridgeFetch('/orders'))).then(all => [...new Set(all.map(({ status }) => status))])`)
		w.wantJS("Fountain pen,Paper lantern", `m.bridgeFetch('/orders').then(items)`)
		s.wantAsked(t, 1, before)
	})

	t.Run("clocks", func(t *testing.T) {
		w := w.on(t)
		w.load(s.origin + "/pages/empty")
		const calls = `(async () => { for (let i = 0; i < 20; i++) await m.getToken() })()`
		before := s.tokens.Load()
		w.wantJS("undefined", `(window.now = Date.now, Date.now = () => 86400e3, `+calls+`)`) // 1970
		w.wantJS("undefined", `(Date.now = () => 0, `+calls+`)`)                              // set back further
		s.wantAsked(t, 1, before)
		w.wantJS("undefined", `(Date.now = () => now() + 7200e3, `+calls+`)`) // set, or the machine has slept: the token may have ended
		s.wantAsked(t, 2, before)
	})

	t.Run("401 from the API", func(t *testing.T) {
		w := w.on(t)
		w.load(s.origin + "/pages/empty")
		before := s.tokens.Load()
		w.wantJS("401", `m.bridgeFetch('/sometimes').then(({ status }) => status)`) // the bridge has no other token yet
		s.wantAsked(t, 2, before)
		s.changeRules(t, bridge)
		w.wantJS("200 again", `m.bridgeFetch('/sometimes', { method: 'POST', body: new URLSearchParams({ x: 'again' }) }).then(async answer => answer.status + ' ' + await answer.text())`)
		s.wantAsked(t, 3, before)
	})

	t.Run("a redirect", func(t *testing.T) {
		w := w.on(t)
		w.load(s.origin + "/pages/empty")
		w.wantJS("200", `m.bridgeFetch('/moved').then(({ status }) => status)`)
		w.wantJS("200", fmt.Sprintf(`m.bridgeFetch(%q).then(({ status }) => status)`, elsewhere+"/direct"))
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(followed, []string{"", ""}) {
			t.Errorf("another origin got %q", followed)
		}
	})

	t.Run("another origin of the site", func(t *testing.T) {
		w := w.on(t)
		before := s.tokens.Load()
		w.load(allowed + "/pages/empty")
		w.wantJS(s.db.Role("customer"), `m.user().then(({ role }) => role)`)
		w.wantJS("Fountain pen,Paper lantern", `m.bridgeFetch('/orders').then(items)`)
		s.wantAsked(t, 1, before)
		w.wantJS("undefined", `m.logout()`)
		w.see("Log out?")
		w.load(allowed + "/pages/empty")
		w.wantJS("undefined", `m.login({ provider: 'basic', returnTo: '?back' })`) // the provider knows the person still
		w.until(fmt.Sprintf("location.href === %q", allowed+"/pages/empty?back"))
	})

	t.Run("an origin that is not allowed", func(t *testing.T) {
		w := w.on(t)
		w.load(refused + "/pages/empty")
		for _, call := range []string{"m.getToken()", "m.user()", "m.bridgeFetch('/orders')"} {
			w.wantJS("TypeError undefined", call)
		}
	})

	t.Run("the back/forward cache", func(t *testing.T) {
		w := w.on(t)
		w.load(s.origin + "/pages/empty")
		w.wantJS("Fountain pen,Paper lantern", `m.bridgeFetch('/orders').then(items)`)
		w.wantJS("undefined", `m.getToken().then(token => { window.first = token })`)
		w.open(s.origin + "/pages/empty?2")
		s.changeRules(t, bridge)
		w.back(s.origin + "/pages/empty")
		w.until(`location.search === "" && window.persisted !== undefined`)
		w.wantJS("true", `persisted.then(token => token !== first)`)
		w.wantJS("Fountain pen,Paper lantern", `m.bridgeFetch('/orders').then(items)`)
	})

	t.Run("the session ends in another tab", func(t *testing.T) {
		w := w.on(t)
		w.load(s.origin + "/pages/empty")
		w.wantJS("Fountain pen,Paper lantern", `m.bridgeFetch('/orders').then(items)`)
		ctx, _ := chromedp.NewContext(w.ctx)
		if err := chromedp.Do(ctx); err != nil {
			t.Fatal(err)
		}
		tab := &window{t, ctx, s}
		tab.open(s.origin + "/pages/plain")
		tab.shows("Paper lantern")
		tab.click("#logout")
		oidcProviderPages(issuer).agree(tab)
		tab.wantLoggedOut()
		w.until("window.ended === 1")
		w.wantJS("BridgeError 401", `m.getToken()`)
		w.wantJS("null", `m.user()`)
		w.wantJS("401", `m.bridgeFetch('/orders').then(({ status }) => status)`) // PostgREST's: anonymous may not
		w.wantJS("1", "ended")
		tab.back(s.origin + "/pages/plain")
		tab.shows("Nobody")
	})
}

// changeRules gives people another token than the one that they have.
func (s *shop) changeRules(t *testing.T, bridge *program) {
	t.Helper()
	loaded := func() int { return strings.Count(bridge.output.String(), "new rules are in force") }
	before := loaded()
	s.write(t, "rules.yaml", s.db.SQL(fmt.Sprintf("%s\n# change %d\n", rules, before)))
	if err := bridge.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	bridgetest.Await(t, "new rules", func() bool { return loaded() > before })
}

// on is the window in a subtest.
func (w *window) on(t *testing.T) *window { return &window{t, w.ctx, w.shop} }

// serveClientPages serves the pages, their libraries, and the API at /rest/v1 and, for pages of other origins than the shop's, at /orders.
func serveClientPages(t *testing.T, api http.Handler) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	for name, text := range clientPages(t) {
		mux.HandleFunc("/pages/"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprint(w, text)
		})
	}
	mux.Handle("/modules/", http.StripPrefix("/modules", http.FileServer(http.Dir("client/node_modules"))))
	mux.Handle("/rest/v1/", api)
	mux.Handle("/orders", api)
	return mux
}
