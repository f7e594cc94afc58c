package bridgetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Browser is an HTTP client that behaves as Chromium does where a login depends on it: cookies (Secure, Path, Domain, SameSite, prefixes),
// redirects, Origin and the Sec-Fetch headers, CORS, and Content-Security-Policy's form-action. It runs no scripts, loads no subresources
// by itself and has no cache.
//
// A Browser is one tab of one person; use it from one goroutine at a time. Every call returns the page it ended at. A status like 404 is
// no error.
type Browser struct {
	// Transport carries the requests. Change it before the first one, for root CAs or to dial a real host name locally.
	Transport *http.Transport
	// UserAgent is what it says it is.
	UserAgent string
	// Now is the clock that cookies expire by. Default time.Now.
	Now func() time.Time
	// DropSecureOnLoopback refuses Secure cookies over http on loopback addresses, as Safari does. Chromium and Firefox keep them.
	DropSecureOnLoopback bool

	jar  jar
	page *Page // the current one; nil before the first
}

// ErrCORS is what a script gets in place of an answer from another origin that does not allow it.
var ErrCORS = errors.New("blocked by CORS")

// ErrFormAction is a form submission, or a redirect that follows one, that the page's Content-Security-Policy does not allow.
var ErrFormAction = errors.New("blocked by form-action of the Content-Security-Policy")

const (
	maxRedirects = 20 // as in Chromium
	userAgent    = "Mozilla/5.0 (compatible; bridgetest)"
)

// NewBrowser returns a browser without cookies.
func NewBrowser() *Browser {
	return &Browser{
		// No connections are kept, so that nothing is left to clean up.
		Transport: &http.Transport{DisableKeepAlives: true},
		UserAgent: userAgent,
		Now:       time.Now,
		jar:       jar{cookies: map[cookieID]storedCookie{}},
	}
}

// Clone returns a browser with copies of the cookies, at the same page: a thief's, or the same person's on another day.
func (b *Browser) Clone() *Browser {
	clone := *b
	clone.Transport = b.Transport.Clone()
	clone.jar = b.jar.clone()
	return &clone
}

// Open navigates to a URL that was typed or came from a bookmark: no page started the request.
func (b *Browser) Open(ctx context.Context, address string) (*Page, error) {
	target, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	return b.navigate(ctx, navigation{method: http.MethodGet, url: target})
}

// Follow navigates from a page to a URL, which may be relative: a link, or the page's Refresh.
func (b *Browser) Follow(ctx context.Context, page *Page, href string) (*Page, error) {
	target, err := page.URL.Parse(href)
	if err != nil {
		return nil, err
	}
	return b.navigate(ctx, navigation{method: http.MethodGet, url: target, from: page})
}

// Click follows the first link with this text.
func (b *Browser) Click(ctx context.Context, page *Page, text string) (*Page, error) {
	for _, link := range page.Links() {
		if link.Text == text {
			return b.Follow(ctx, page, link.URL.String())
		}
	}
	return nil, fmt.Errorf("no link %q at %s", text, page.URL)
}

// Submit sends a form of the page. The selector is the form's id, the path of its action, or the text of one of its buttons, which is then
// pressed; "" is the first form. The values replace fields of the same name.
func (b *Browser) Submit(ctx context.Context, page *Page, selector string, values url.Values) (*Page, error) {
	form, button, err := page.find(selector)
	if err != nil {
		return nil, err
	}
	fields := form.fill(button, values)
	n := navigation{method: form.Method, url: form.Action, from: page, form: true}
	if form.Method == http.MethodPost {
		n.body, n.contentType = []byte(fields.Encode()), "application/x-www-form-urlencoded"
	} else {
		target := *form.Action
		target.RawQuery = fields.Encode()
		n.url = &target
	}
	return b.navigate(ctx, n)
}

// ChoosePersona presses a persona's button on the page of an [OP].
func (b *Browser) ChoosePersona(ctx context.Context, page *Page, subject string) (*Page, error) {
	for _, form := range page.Forms() {
		for _, button := range form.Buttons {
			if button.Name == "subject" && button.Value == subject {
				return b.Submit(ctx, page, button.Text, nil)
			}
		}
	}
	return nil, fmt.Errorf("no persona %q at %s (status %d): %s", subject, page.URL, page.Status, page.Text())
}

// navigation is a request for a new top-level page.
type navigation struct {
	method      string
	url         *url.URL
	body        []byte
	contentType string
	from        *Page // nil: nobody but the person at the keyboard
	form        bool
}

func (b *Browser) navigate(ctx context.Context, n navigation) (*Page, error) {
	var history []*Page
	visited := []*url.URL{n.url}
	tainted := false
	for range maxRedirects + 1 {
		if n.form && !n.from.allowsFormAction(n.url) {
			return nil, fmt.Errorf("%w: from %s to %s", ErrFormAction, n.from.URL, n.url)
		}
		header := http.Header{
			"Accept":                    {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
			"Upgrade-Insecure-Requests": {"1"},
		}
		if n.contentType != "" {
			header.Set("Content-Type", n.contentType)
		}
		if n.method != http.MethodGet && n.from != nil {
			header.Set("Origin", n.from.originFor(n.url, tainted))
		}
		setSecFetch(header, n.url, "navigate", "document", fetchSite(n.from, visited))
		if isTrustworthy(n.url) {
			header.Set("Sec-Fetch-User", "?1")
		}
		lax := n.method == http.MethodGet
		page, err := b.do(ctx, request{
			method: n.method, url: n.url, header: header, body: n.body, credentials: true,
			site: siteContext{strict: n.from == nil || sameSite(n.from.URL, n.url), lax: lax, store: true},
		})
		if err != nil {
			return nil, err
		}
		target, err := page.redirect()
		if err != nil {
			return nil, err
		}
		if target == nil {
			page.History = history
			b.page = page
			return page, nil
		}
		history = append(history, page)
		// Fetch standard, "HTTP-redirect fetch": what a foreign origin sends on to a further one no longer speaks for the first.
		if n.from != nil && !sameOrigin(n.from.URL, n.url) && !sameOrigin(n.url, target) {
			tainted = true
		}
		if page.Status == http.StatusSeeOther || n.method == http.MethodPost && page.Status < http.StatusSeeOther {
			n.method, n.body, n.contentType = http.MethodGet, nil, ""
		}
		n.url = target
		visited = append(visited, target)
	}
	return nil, fmt.Errorf("more than %d redirects, the last to %s", maxRedirects, n.url)
}

// request is one HTTP request, with all headers but the cookies.
type request struct {
	method      string
	url         *url.URL
	header      http.Header
	body        []byte
	credentials bool // send and store cookies
	site        siteContext
}

func (b *Browser) do(ctx context.Context, r request) (*Page, error) {
	if r.url.Scheme != "http" && r.url.Scheme != "https" {
		return nil, fmt.Errorf("a browser leaves the web here: %s", r.url)
	}
	sent := *r.url
	sent.Fragment, sent.RawFragment = "", ""
	req, err := http.NewRequestWithContext(ctx, r.method, sent.String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	req.Header = r.header
	req.Header.Set("User-Agent", b.UserAgent)
	if r.credentials {
		if cookies := b.jar.header(r.url, r.site, b.Now(), b.secure(r.url)); cookies != "" {
			req.Header.Set("Cookie", cookies)
		}
	}
	resp, err := b.Transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, r.url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, r.url, err)
	}
	if r.credentials {
		for _, line := range resp.Header.Values("Set-Cookie") {
			// What a browser cannot read or does not accept, it ignores.
			if c, err := http.ParseSetCookie(line); err == nil {
				_ = b.jar.store(r.url, c, r.site, b.Now(), b.secure(r.url))
			}
		}
	}
	return &Page{URL: r.url, Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}

// secure tells whether Secure cookies travel to u.
func (b *Browser) secure(u *url.URL) bool {
	return u.Scheme == "https" || isTrustworthy(u) && !b.DropSecureOnLoopback
}

// Cookies returns the cookies, with their attributes, that a same-site request to the URL would carry, in the order of the header.
func (b *Browser) Cookies(address string) []*http.Cookie {
	u, err := url.Parse(address)
	if err != nil {
		return nil
	}
	return b.jar.carried(u, siteContext{strict: true}, b.Now(), b.secure(u))
}

// SetCookie stores a cookie as if the server at the URL had set it. The error says why a browser would not.
func (b *Browser) SetCookie(address string, c *http.Cookie) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	return b.jar.store(u, c, siteContext{strict: true, store: true}, b.Now(), b.secure(u))
}
