package bridgetest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Fetch does what `fetch(url, {method, headers, body})` does on the current page, with the default credentials: cookies for the page's own
// origin only. Redirects are not followed, so a test sees them.
//
// A request to another origin follows the CORS protocol, preflight included. When the answer does not let the page read it, the error is
// [ErrCORS]; the page returned with it is what the server answered, nil if the preflight already failed.
func (b *Browser) Fetch(ctx context.Context, method, address string, header http.Header, body string) (*Page, error) {
	return b.fetch(ctx, method, address, header, body, false)
}

// FetchWithCredentials is Fetch with `credentials: "include"`: other origins get their cookies, too.
func (b *Browser) FetchWithCredentials(ctx context.Context, method, address string, header http.Header, body string) (*Page, error) {
	return b.fetch(ctx, method, address, header, body, true)
}

func (b *Browser) fetch(ctx context.Context, method, address string, header http.Header, body string, include bool) (*Page, error) {
	if b.page == nil {
		return nil, errors.New("fetch needs a page: Open one first")
	}
	from := b.page
	target, err := from.URL.Parse(address)
	if err != nil {
		return nil, err
	}
	own := sameOrigin(from.URL, target)
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if body != "" && header.Get("Content-Type") == "" {
		header.Set("Content-Type", "text/plain;charset=UTF-8")
	}
	if !own {
		if err := b.preflight(ctx, from, method, target, header); err != nil {
			return nil, err
		}
	}
	if header.Get("Accept") == "" {
		header.Set("Accept", "*/*")
	}
	if !own || method != http.MethodGet && method != http.MethodHead {
		header.Set("Origin", origin(from.URL))
	}
	setSecFetch(header, target, "cors", "empty", fetchSite(from, []*url.URL{target}))
	page, err := b.do(ctx, request{
		method: method, url: target, header: header, body: []byte(body),
		credentials: own || include, site: siteContext{strict: sameSite(from.URL, target)},
	})
	if err != nil {
		return nil, err
	}
	if !own {
		return page, checkCORS(from, page, include)
	}
	return page, nil
}

// preflight asks the server first, unless an HTML form could have sent the same request (Fetch standard, "CORS-preflight fetch").
func (b *Browser) preflight(ctx context.Context, from *Page, method string, target *url.URL, header http.Header) error {
	var unsafe []string
	for name, values := range header {
		if !isSafelisted(name, strings.Join(values, ", ")) {
			unsafe = append(unsafe, strings.ToLower(name))
		}
	}
	slices.Sort(unsafe)
	simple := method == http.MethodGet || method == http.MethodHead || method == http.MethodPost
	if simple && len(unsafe) == 0 {
		return nil
	}
	question := http.Header{"Accept": {"*/*"}, "Origin": {origin(from.URL)}, "Access-Control-Request-Method": {method}}
	if len(unsafe) > 0 {
		question.Set("Access-Control-Request-Headers", strings.Join(unsafe, ","))
	}
	setSecFetch(question, target, "cors", "empty", fetchSite(from, []*url.URL{target}))
	answer, err := b.do(ctx, request{method: http.MethodOptions, url: target, header: question})
	if err != nil {
		return err
	}
	if answer.Status < 200 || answer.Status > 299 {
		return fmt.Errorf("%w: preflight of %s answered %d", ErrCORS, target, answer.Status)
	}
	if err := checkCORS(from, answer, false); err != nil {
		return err
	}
	if !simple && !listed(answer.Header, "Access-Control-Allow-Methods", method, true) {
		return fmt.Errorf("%w: preflight of %s does not allow %s", ErrCORS, target, method)
	}
	for _, name := range unsafe {
		// * means every header but this one.
		if !listed(answer.Header, "Access-Control-Allow-Headers", name, name != "authorization") {
			return fmt.Errorf("%w: preflight of %s does not allow the header %s", ErrCORS, target, name)
		}
	}
	return nil
}

// isSafelisted is the Fetch standard's "CORS-safelisted request-header" without its rules on single bytes.
func isSafelisted(name, value string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Accept", "Accept-Language", "Content-Language":
		return len(value) <= 128
	case "Content-Type":
		kind, _, _ := strings.Cut(strings.ToLower(value), ";")
		return slices.Contains([]string{"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}, strings.TrimSpace(kind))
	}
	return false
}

func checkCORS(from, answer *Page, credentials bool) error {
	allowed := answer.Header.Values("Access-Control-Allow-Origin")
	switch {
	case len(allowed) != 1:
		return fmt.Errorf("%w: %s has %d Access-Control-Allow-Origin headers", ErrCORS, answer.URL, len(allowed))
	case allowed[0] == "*" && !credentials:
		return nil
	case allowed[0] != origin(from.URL):
		return fmt.Errorf("%w: %s allows the origin %s", ErrCORS, answer.URL, allowed[0])
	case credentials && answer.Header.Get("Access-Control-Allow-Credentials") != "true":
		return fmt.Errorf("%w: %s does not allow credentials", ErrCORS, answer.URL)
	}
	return nil
}

// listed tells whether a comma-separated header holds a word, or * if that counts.
func listed(header http.Header, name, word string, star bool) bool {
	for item := range strings.SplitSeq(strings.Join(header.Values(name), ","), ",") {
		if item = strings.TrimSpace(item); strings.EqualFold(item, word) || star && item == "*" {
			return true
		}
	}
	return false
}

// Embed requests a URL as the current page would for an element: dest is image, script, style (no-cors), iframe, frame, embed or object
// (navigations inside the page). Redirects are not followed.
func (b *Browser) Embed(ctx context.Context, dest, address string) (*Page, error) {
	if b.page == nil {
		return nil, errors.New("an element needs a page: Open one first")
	}
	target, err := b.page.URL.Parse(address)
	if err != nil {
		return nil, err
	}
	mode := "no-cors"
	if slices.Contains([]string{"iframe", "frame", "embed", "object"}, dest) {
		mode = "navigate"
	}
	header := http.Header{"Accept": {"*/*"}}
	setSecFetch(header, target, mode, dest, fetchSite(b.page, []*url.URL{target}))
	return b.do(ctx, request{
		method: http.MethodGet, url: target, header: header,
		credentials: true, site: siteContext{strict: sameSite(b.page.URL, target)},
	})
}
