package bridgetest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// site starts a server and returns its URL at host, which must be a name of 127.0.0.1: 127.0.0.1 and localhost are two sites.
func site(t *testing.T, host string, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "127.0.0.1", host, 1)
}

// echo answers with the request line's method, Origin and the Sec-Fetch headers, and cookies.
func echo(w http.ResponseWriter, r *http.Request) {
	h := r.Header
	fmt.Fprintf(w, "%s origin=%s site=%s mode=%s dest=%s user=%s cookies=%s", r.Method, h.Get("Origin"), h.Get("Sec-Fetch-Site"),
		h.Get("Sec-Fetch-Mode"), h.Get("Sec-Fetch-Dest"), h.Get("Sec-Fetch-User"), h.Get("Cookie"))
}

func serveHTML(w http.ResponseWriter, format string, args ...any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, format, args...)
}

// must unwraps the page of a call that must succeed.
func must(t *testing.T) func(*Page, error) *Page {
	return func(p *Page, err error) *Page {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

func TestNavigationHeaders(t *testing.T) {
	var app, other string
	handler := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/page", "/silent":
			if r.URL.Path == "/silent" {
				w.Header().Set("Referrer-Policy", "no-referrer")
			}
			serveHTML(w, `<a href="/echo">Home</a><a href="%[1]s/echo">Away</a>
				<form id="own" action="/echo" method="post"></form><form id="foreign" action="%[1]s/echo" method="post"></form>
				<form id="back" action="%[1]s/to?url=%[2]s/echo" method="post"></form>
				<form id="back307" action="%[1]s/keep?url=%[2]s/echo" method="post"></form>`, other, app)
		case "/to":
			http.Redirect(w, r, r.FormValue("url"), http.StatusFound)
		case "/keep":
			http.Redirect(w, r, r.FormValue("url"), http.StatusTemporaryRedirect)
		default:
			echo(w, r)
		}
	}
	app = site(t, "127.0.0.1", handler)
	other = site(t, "localhost", handler)
	sibling := site(t, "127.0.0.1", handler)

	b, ctx, must := NewBrowser(), t.Context(), must(t)
	page := must(b.Open(ctx, app+"/page"))
	silent := must(b.Open(ctx, app+"/silent"))
	tests := []struct {
		name string
		open func() (*Page, error)
		want string
	}{
		{"typed", func() (*Page, error) { return b.Open(ctx, app+"/echo") }, "GET origin= site=none"},
		{"typed, redirected elsewhere", func() (*Page, error) { return b.Open(ctx, app+"/to?url="+other+"/echo") }, "GET origin= site=none"},
		{"own link", func() (*Page, error) { return b.Click(ctx, page, "Home") }, "GET origin= site=same-origin"},
		{"foreign link", func() (*Page, error) { return b.Click(ctx, page, "Away") }, "GET origin= site=cross-site"},
		{"link to another port", func() (*Page, error) { return b.Follow(ctx, page, sibling+"/echo") }, "GET origin= site=same-site"},
		{"own form", func() (*Page, error) { return b.Submit(ctx, page, "own", nil) }, "POST origin=" + app + " site=same-origin"},
		{"foreign form", func() (*Page, error) { return b.Submit(ctx, page, "foreign", nil) }, "POST origin=" + app + " site=cross-site"},
		{"foreign form that comes back", func() (*Page, error) { return b.Submit(ctx, page, "back", nil) }, "GET origin= site=cross-site"},
		{"foreign form that comes back by 307", func() (*Page, error) { return b.Submit(ctx, page, "back307", nil) }, "POST origin=null site=cross-site"},
		{"own form, no-referrer", func() (*Page, error) { return b.Submit(ctx, silent, "own", nil) }, "POST origin=null site=same-origin"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := must(tt.open()).Text(); got != tt.want+" mode=navigate dest=document user=?1 cookies=" {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestOriginIsNullAfterLeavingForAThirdOrigin(t *testing.T) {
	third := site(t, "127.0.0.1", echo)
	second := site(t, "localhost", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, third, http.StatusTemporaryRedirect)
	})
	first := site(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		serveHTML(w, `<form method="post" action="%s"></form>`, second)
	})
	b, must := NewBrowser(), must(t)
	page := must(b.Submit(t.Context(), must(b.Open(t.Context(), first)), "", nil))
	if !strings.HasPrefix(page.Text(), "POST origin=null site=cross-site") || len(page.History) != 1 {
		t.Errorf("got %s after %d redirects", page.Text(), len(page.History))
	}
}

func TestFetch(t *testing.T) {
	api := site(t, "localhost", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/open" {
			w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
			w.Header().Set("Access-Control-Allow-Credentials", "true")
			w.Header().Set("Access-Control-Allow-Headers", "Authorization")
		}
		if r.Method == http.MethodOptions {
			return
		}
		echo(w, r)
	})
	app := site(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		echo(w, r)
	})
	b, ctx, must := NewBrowser(), t.Context(), must(t)
	if _, err := b.Fetch(ctx, "GET", app, nil, ""); err == nil {
		t.Error("fetch without a page must fail")
	}
	must(b.Open(ctx, app))
	for address, cookie := range map[string]string{app: "own", api: "foreign"} {
		// Chromium sends Secure cookies to http on loopback.
		if err := b.SetCookie(address, &http.Cookie{Name: cookie, Secure: true, SameSite: http.SameSiteNoneMode}); err != nil {
			t.Fatal(err)
		}
	}
	const tail = " mode=cors dest=empty user= cookies="
	if got := must(b.Fetch(ctx, "GET", "/x", nil, "")).Text(); got != "GET origin= site=same-origin"+tail+"own=" {
		t.Error(got)
	}
	if got := must(b.Fetch(ctx, "POST", "/x", nil, "")).Text(); got != "POST origin="+app+" site=same-origin"+tail+"own=" {
		t.Error(got)
	}
	if page := must(b.Fetch(ctx, "GET", "/redirect", nil, "")); page.Status != http.StatusSeeOther {
		t.Errorf("fetch followed a redirect: %d", page.Status)
	}
	token := http.Header{"Authorization": {"Bearer x"}}
	if got := must(b.Fetch(ctx, "GET", api+"/open", token, "")).Text(); got != "GET origin="+app+" site=cross-site"+tail {
		t.Error(got)
	}
	page := must(b.FetchWithCredentials(ctx, "GET", api+"/open", nil, ""))
	if got := page.Text(); got != "GET origin="+app+" site=cross-site"+tail+"foreign=" {
		t.Error(got)
	}
	if page, err := b.Fetch(ctx, "GET", api+"/closed", nil, ""); !errors.Is(err, ErrCORS) || page == nil {
		t.Errorf("a server that allows nothing: %v, %v", page, err)
	}
	if page, err := b.Fetch(ctx, "DELETE", api+"/open", nil, ""); !errors.Is(err, ErrCORS) || page != nil {
		t.Errorf("a method that the preflight does not allow: %v, %v", page, err)
	}
	json := http.Header{"Content-Type": {"application/json"}}
	if page, err := b.Fetch(ctx, "POST", api+"/open", json, "{}"); !errors.Is(err, ErrCORS) || page != nil {
		t.Errorf("a header that the preflight does not allow: %v, %v", page, err)
	}
	if got := must(b.Embed(ctx, "image", api)).Text(); got != "GET origin= site=cross-site mode=no-cors dest=image user= cookies=foreign=" {
		t.Error(got)
	}
	if got := must(b.Embed(ctx, "iframe", app)).Text(); got != "GET origin= site=same-origin mode=navigate dest=iframe user= cookies=own=" {
		t.Error(got)
	}
}

func TestCookieRules(t *testing.T) {
	type urls []string
	const https = "https://app.example.com/a/b"
	tests := []struct {
		name, set, cookie string
		sentTo, keptFrom  urls
	}{
		{"host only", https, "c=1; Path=/", urls{https, "http://app.example.com:8080/x"}, urls{"https://example.com/", "https://x.app.example.com/"}},
		{"Domain", https, "c=1; Path=/; Domain=example.com", urls{"https://example.com/", "https://x.y.example.com/"}, urls{"https://badexample.com/"}},
		{"foreign Domain", https, "c=1; Domain=other.com", nil, urls{https, "https://other.com/"}},
		{"public suffix", "https://x.co.uk/", "c=1; Domain=co.uk", nil, urls{"https://x.co.uk/"}},
		{"default path", https, "c=1", urls{https, "https://app.example.com/a"}, urls{"https://app.example.com/", "https://app.example.com/ab"}},
		{"path", https, "c=1; Path=/a/", urls{"https://app.example.com/a/x"}, urls{"https://app.example.com/a"}},
		{"Secure", https, "c=1; Path=/; Secure", urls{https}, urls{"http://app.example.com/"}},
		{"Secure over http", "http://app.example.com/", "c=1; Secure", nil, urls{"https://app.example.com/"}},
		{"Secure on loopback", "http://127.0.0.1:1/", "c=1; Secure", urls{"http://127.0.0.1:2/"}, nil},
		{"__Host-", https, "__Host-c=1; Path=/; Secure", urls{https}, urls{"https://x.app.example.com/"}},
		{"__Host- without Path=/", https, "__Host-c=1; Secure", nil, urls{https}},
		{"__Host- with Domain", https, "__Host-c=1; Path=/; Secure; Domain=app.example.com", nil, urls{https}},
		{"__host- is a prefix, too", https, "__host-c=1; Path=/", nil, urls{https}},
		{"__Secure- without Secure", https, "__Secure-c=1", nil, urls{https}},
		{"SameSite=None without Secure", https, "c=1; SameSite=None", nil, urls{https}},
		{"too long", https, "c=" + strings.Repeat("x", 4096), nil, urls{https}},
		{"Max-Age=0", https, "c=1; Max-Age=0", nil, urls{https}},
		{"expired", https, "c=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT", nil, urls{https}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := NewBrowser()
			c, err := http.ParseSetCookie(tt.cookie)
			if err != nil {
				t.Fatal(err)
			}
			b.SetCookie(tt.set, c) // refused or not shows below
			for _, u := range tt.sentTo {
				if len(b.Cookies(u)) != 1 {
					t.Errorf("not sent to %s", u)
				}
			}
			for _, u := range tt.keptFrom {
				if len(b.Cookies(u)) != 0 {
					t.Errorf("sent to %s", u)
				}
			}
		})
	}
}

func TestSafariDropsSecureCookiesOnLoopback(t *testing.T) {
	b := NewBrowser()
	b.DropSecureOnLoopback = true
	if err := b.SetCookie("http://localhost/", &http.Cookie{Name: "c", Secure: true}); err == nil {
		t.Error("stored")
	}
}

func TestCookiesExpireByTheBrowsersClock(t *testing.T) {
	now := time.Now()
	b := NewBrowser()
	b.Now = func() time.Time { return now }
	if err := b.SetCookie("http://localhost/", &http.Cookie{Name: "c", MaxAge: 60}); err != nil {
		t.Fatal(err)
	}
	thief := b.Clone()
	if err := b.SetCookie("http://localhost/", &http.Cookie{Name: "c", MaxAge: -1}); err != nil {
		t.Fatal(err)
	}
	if n := len(b.Cookies("http://localhost/")); n != 0 {
		t.Errorf("%d cookies after deletion", n)
	}
	if n := len(thief.Cookies("http://localhost/")); n != 1 {
		t.Errorf("the clone has %d cookies", n)
	}
	now = now.Add(time.Minute)
	if n := len(thief.Cookies("http://localhost/")); n != 0 {
		t.Errorf("the clone has %d cookies after they expired", n)
	}
}

func TestSameSiteCookies(t *testing.T) {
	app := site(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		for _, c := range []string{"strict=1; SameSite=Strict", "lax=1; SameSite=Lax", "plain=1", "none=1; SameSite=None; Secure"} {
			w.Header().Add("Set-Cookie", c)
		}
		echo(w, r)
	})
	foreign := site(t, "localhost", func(w http.ResponseWriter, r *http.Request) {
		serveHTML(w, `<a href="%[1]s">Link</a><form method="post" action="%[1]s"></form>`, app)
	})
	b, ctx, must := NewBrowser(), t.Context(), must(t)
	away := must(b.Open(ctx, foreign))
	must(b.Embed(ctx, "image", app))
	if got := cookieNames(b, app); got != "none" {
		t.Errorf("a foreign page's image stored %s", got)
	}
	must(b.Open(ctx, app))
	if got := cookieNames(b, app); got != "none strict lax plain" {
		t.Errorf("stored %s", got)
	}
	for name, tt := range map[string]struct {
		open func(context.Context) (*Page, error)
		want string
	}{
		"typed":        {func(ctx context.Context) (*Page, error) { return b.Open(ctx, app) }, "none=1; strict=1; lax=1; plain=1"},
		"foreign link": {func(ctx context.Context) (*Page, error) { return b.Click(ctx, away, "Link") }, "none=1; lax=1; plain=1"},
		"foreign form": {func(ctx context.Context) (*Page, error) { return b.Submit(ctx, away, "", nil) }, "none=1"},
	} {
		_, got, _ := strings.Cut(must(tt.open(ctx)).Text(), "cookies=")
		if got != tt.want {
			t.Errorf("%s: sent %s, want %s", name, got, tt.want)
		}
	}
}

func cookieNames(b *Browser, address string) string {
	var names []string
	for _, c := range b.Cookies(address) {
		names = append(names, c.Name)
	}
	return strings.Join(names, " ")
}

func TestFormActionBlocksTheRedirectToo(t *testing.T) {
	foreign := site(t, "localhost", echo)
	app := site(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			http.Redirect(w, r, foreign, http.StatusSeeOther)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; form-action "+r.FormValue("allow"))
		serveHTML(w, `<form method="post" action="/"></form>`)
	})
	for allow, blocked := range map[string]bool{"'self'": true, "'none'": true, "'self' " + foreign: false, "*": false} {
		b, must := NewBrowser(), must(t)
		page := must(b.Open(t.Context(), app+"/?allow="+url.QueryEscape(allow)))
		if _, err := b.Submit(t.Context(), page, "", nil); errors.Is(err, ErrFormAction) != blocked {
			t.Errorf("form-action %s: %v", allow, err)
		}
	}
}

func TestPage(t *testing.T) {
	app := site(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Refresh", `0; url="/next"`)
		serveHTML(w, `<title> A  title </title><body><h1>Head</h1><p>Some <b>bold</b> text<script>no()</script><span hidden>no</span></p>
			<a href="x?y=1">A link</a>
			<form id="f" action="/go" method="POST"><input name="a" value="1"><input type="hidden" name="b" value="2"><input type="checkbox" name="c">
			<input type="checkbox" name="d" checked><input name="e" disabled value="5"><textarea name="t"> raw </textarea>
			<select name="s"><option>one<option value="2" selected>two</select>
			<button name="do" value="save">Save it</button><input type="submit" name="do" value="Drop"></form>`)
	})
	page := must(t)(NewBrowser().Open(t.Context(), app+"/dir/page#part"))
	if page.Title() != "A title" || page.Text() != "Head Some bold text A link raw one two Save it" {
		t.Errorf("title %q, text %q", page.Title(), page.Text())
	}
	if links := page.Links(); len(links) != 1 || links[0].Text != "A link" || links[0].URL.String() != app+"/dir/x?y=1" {
		t.Errorf("links %v", links)
	}
	if page.Refresh().String() != app+"/next" || page.URL.Fragment != "part" {
		t.Errorf("refresh %v of %v", page.Refresh(), page.URL)
	}
	base := url.Values{"a": {"1"}, "b": {"2"}, "d": {"on"}, "t": {" raw "}, "s": {"2"}}
	for selector, do := range map[string]string{"": "save", "f": "save", "/go": "save", "Save it": "save", "Drop": "Drop"} {
		form, button, err := page.find(selector)
		if err != nil {
			t.Fatal(err)
		}
		base["do"] = []string{do}
		if diff := cmp.Diff(base, form.fill(button, nil)); diff != "" {
			t.Errorf("form %q: %s", selector, diff)
		}
	}
	form, _, _ := page.find("f")
	if got := form.fill(nil, url.Values{"do": {"x"}, "a": {"9"}}); got.Get("do") != "x" || got.Get("a") != "9" || got.Get("b") != "2" {
		t.Errorf("with own values: %v", got)
	}
	if _, _, err := page.find("nothing"); err == nil {
		t.Error("found a form that is not there")
	}
}

func TestRedirectLoopEnds(t *testing.T) {
	app := site(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) })
	if _, err := NewBrowser().Open(t.Context(), app); err == nil {
		t.Error("no error")
	}
}
