package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// looks are how a page may be looked at. 320 pixels are the narrowest that WCAG 2.2 asks for (1.4.10 Reflow).
var looks = []struct {
	name, scheme  string
	width, height int64
}{
	{"light", "light", 1000, 700},
	{"dark", "dark", 1000, 700},
	{"phone", "light", 320, 640},
	{"phone-dark", "dark", 320, 640},
}

const providerThatIsDown = `
  down:
    name: The accounts of a company with a rather long name
    issuer: http://ADDRESS
    client_id: bridge
    client_secret: client-secret
    allow_private: true
`

// TestPages looks at everything that people see, in each look: E2E_SHOTS=FOLDER keeps the pictures. Text has contrast, nothing runs out of a
// narrow page, and whoever has a keyboard only sees where they are.
func TestPages(t *testing.T) {
	s := newShop(t)
	issuer := s.startProvider(t, "0")
	s.write(t, "post.secret", "post-client-secret-of-the-end-to-end-tests\n")
	s.configure(t, strings.ReplaceAll(providers, "ISSUER", issuer)+strings.ReplaceAll(providerThatIsDown, "ADDRESS", freeAddress(t)),
		strings.Replace(rules, "\nroles:", "\n  down: { preset: generic }\nroles:", 1))
	s.migrate(t)
	s.serve(t)
	w := s.openWindow(t)

	w.open(s.origin + "/")
	w.see("Who ordered what?")
	w.look("demo-visitor")
	w.open(s.public + "/login?return_to=/")
	w.see("Choose where you have your account")
	w.look("chooser")
	w.open(s.public + "/login/down")
	w.see("The login provider does not answer")
	w.look("provider-down")
	w.open(s.public + "/nothing")
	w.see("There is no such page")
	w.look("not-found")
	w.open(s.public + "/callback/basic?code=made-up&state=made-up")
	w.see("This login cannot be finished")
	w.look("error")

	w.open(s.public + "/login/basic?return_to=/")
	oidcProviderPages(issuer).logIn(w, "rob")
	w.see("You have no access")
	w.look("refused")
	oidcProviderPages(issuer).logOut(w)

	w.open(s.public + "/login/basic?return_to=/")
	oidcProviderPages(issuer).logIn(w, "ada")
	w.wantOrders()
	w.look("demo-no-orders")
	if err := s.db.Exec(t.Context(), `
		INSERT INTO private.orders (user_id, item, price, status) SELECT id, unnest(ARRAY['Oak writing desk', 'Notebook, dotted, 3 pieces', 'Fountain pen']),
			unnest(ARRAY[489, 27, 38]), unnest(ARRAY['shipped', 'open', 'delivered']) FROM bridge.users;
		WITH other AS (INSERT INTO bridge.users (name) VALUES ('Somebody else') RETURNING id)
		INSERT INTO private.orders (user_id, item, price) SELECT id, 'Desk lamp', 64 FROM other`); err != nil {
		t.Fatal(err)
	}
	w.do(chromedp.Reload())
	w.wantOrders("Desk lamp", "Fountain pen", "Notebook, dotted, 3 pieces", "Oak writing desk")
	w.look("demo-orders")
	w.click("summary")
	w.look("demo-story")

	elsewhere := s.openWindow(t)
	elsewhere.open(s.public + "/login/basic?return_to=/")
	oidcProviderPages(issuer).logIn(elsewhere, "ada")
	elsewhere.do(chromedp.WaitVisible(ordersView))
	w.open(s.public + "/sessions")
	w.see("End all others")
	w.look("sessions")

	w.open(s.public + "/logout?return_to=/")
	w.see("Log out?")
	w.look("logout")
	w.click("button")
	oidcProviderPages(issuer).agree(w)
	w.wantLoggedOut()
	w.look("logged-out")

	// The page on the way to the provider is gone before anybody sees it. It is kept as it came, below the policy of another.
	elsewhere.open(s.origin + "/")
	leave := evaluate[string](elsewhere, "fetch('/auth/logout', { method: 'POST' }).then(answer => answer.text())")
	elsewhere.open(s.public + "/login")
	evaluate[bool](elsewhere, fmt.Sprintf("(document.open(), document.write(%q), document.close(), true)", leave))
	elsewhere.see("You are on your way to")
	elsewhere.look("leave")
}

// TestPagesOfOnesOwn: with the logo and the colours of docs/pages.md, Chromium shows both, and they are as good to read. The style sheet has the ends
// of lines that Windows writes: its hash must be of what the browser makes of them.
func TestPagesOfOnesOwn(t *testing.T) {
	s := newShop(t)
	s.setUp(t, s.startProvider(t, "0"))
	if err := os.Mkdir(filepath.Join(s.dir, "own"), 0o700); err != nil {
		t.Fatal(err)
	}
	block := func(mark string) string {
		m := regexp.MustCompile("(?s)<!-- test: pages " + mark + " -->\n```[a-z]+\n(.*?)```").FindStringSubmatch(text(t, "../docs/pages.md"))
		if m == nil {
			t.Fatalf("docs/pages.md has no block %q", mark)
		}
		return m[1]
	}
	s.write(t, "own/page.html", block("page.html"))
	s.write(t, "own/style.css", strings.ReplaceAll(text(t, "../bridge/pages/style.css")+block("style"), "\n", "\r\n"))
	s.write(t, "config.yaml", text(t, filepath.Join(s.dir, "config.yaml"))+"\npages: own\n")
	s.serve(t)
	w := s.openWindow(t)
	for path, title := range map[string]string{"/login": "Choose where you have your account", "/nothing": "There is no such page"} {
		w.open(s.public + path)
		w.see(title)
		w.look("own" + strings.ReplaceAll(path, "/", "-"))
		w.emulate("light", 1000, 700)
		got := evaluate[string](w, "getComputedStyle(document.querySelector('svg.logo')).fill + ' ' + document.querySelector('svg').getBoundingClientRect().height")
		if got != "rgb(122, 31, 92) 40" {
			t.Errorf("%s: the logo is %s", path, got)
		}
	}
}

func text(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// look holds the page that the window shows to what every page must do, in each look.
func (w *window) look(name string) {
	w.t.Helper()
	for _, look := range looks {
		w.emulate(look.scheme, look.width, look.height)
		w.shot(name + "-" + look.name)
		for _, complaint := range evaluate[[]string](w, complaints) {
			w.t.Errorf("%s, %s: %s", name, look.name, complaint)
		}
		w.axe(name + ", " + look.name)
	}
	w.tabThrough(name)
}

func (w *window) emulate(scheme string, width, height int64) {
	w.t.Helper()
	w.do(chromedp.EmulateViewport(width, height))
	_, err := chromedp.Run(w.ctx, func(ctx context.Context, _ *chromedp.Target) (chromedp.Void, error) {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return chromedp.Void{}, err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// complaints looks for what WCAG 2.2 AA finds wrong: contrast (1.4.3), reflow (1.4.10), targets (2.5.8), names (4.1.2), language and title.
const complaints = `(() => {
	const found = []
	const visible = e => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().width > 1
	const colour = text => {
		const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
		canvas.fillStyle = text
		canvas.fillRect(0, 0, 1, 1)
		const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data
		return { rgb: [r, g, b], a: a / 255 }
	}
	const over = (top, rgb) => top.rgb.map((c, i) => c * top.a + rgb[i] * (1 - top.a))
	const background = e => {
		const layers = []
		for (; e; e = e.parentElement) layers.push(colour(getComputedStyle(e).backgroundColor))
		return layers.reverse().reduce((rgb, layer) => over(layer, rgb), [255, 255, 255])
	}
	const luminance = rgb => rgb.map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
		.reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0)
	const contrast = (a, b) => {
		const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y)
		return (light + .05) / (dark + .05)
	}
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
	while (walker.nextNode()) {
		const text = walker.currentNode.data.trim(), e = walker.currentNode.parentElement
		if (!text || !visible(e) || ['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(e.tagName)) continue
		const style = getComputedStyle(e), behind = background(e)
		const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && style.fontWeight >= 700
		const ratio = contrast(over(colour(style.color), behind), behind)
		if (ratio < (large ? 3 : 4.5)) found.push('contrast of "' + text + '" is ' + ratio.toFixed(2))
		if (size < 12) found.push('"' + text + '" is ' + size + ' pixels high')
	}
	for (const e of document.querySelectorAll('a, button, summary, input:not([type=hidden])')) {
		if (!visible(e)) continue
		const { width, height } = e.getBoundingClientRect(), name = e.textContent.trim()
		if (!name) found.push('no name: ' + e.outerHTML)
		const inline = getComputedStyle(e).display === 'inline'
		if (!inline && (width < 44 || height < 44)) found.push('"' + name + '" is only ' + width + ' by ' + height)
	}
	const wide = document.documentElement.scrollWidth
	if (wide > innerWidth) found.push('the page is ' + wide + ' pixels wide in a window of ' + innerWidth)
	if (!document.documentElement.lang) found.push('no language')
	if (!document.title) found.push('no title')
	const headings = [...document.querySelectorAll('h1')].filter(visible).length
	if (headings !== 1) found.push(headings + ' first headings')
	return found
})()`

// tabThrough goes through the page with the tab key: it reaches everything that can be used, and each shows that it has the focus.
func (w *window) tabThrough(name string) {
	w.t.Helper()
	type stop struct {
		Text    string
		Outline string
		Last    bool
	}
	// From the beginning: a page remembers where it was clicked.
	evaluate[bool](w, "(document.body.tabIndex = -1, document.body.focus(), document.body.removeAttribute('tabindex'), true)")
	want := evaluate[int](w, fmt.Sprintf("%s.length", usable))
	for n := range want {
		w.do(chromedp.KeyEvent(kb.Tab))
		got := evaluate[stop](w, `(() => {
			const e = document.activeElement, style = getComputedStyle(e)
			return { text: e.textContent.trim(), outline: style.outlineStyle + " " + style.outlineWidth, last: e === `+usable+`.at(-1) }
		})()`)
		if got.Outline != "solid 3px" || got.Last != (n == want-1) {
			w.t.Errorf("%s: tab %d of %d is at %+v", name, n+1, want, got)
		}
		if n == 0 {
			w.shot(name + "-focus")
		}
	}
}

const usable = `[...document.querySelectorAll("a, button, summary, input:not([type=hidden]), [tabindex]")].filter(e => e.checkVisibility())`
