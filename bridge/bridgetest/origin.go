package bridgetest

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// origin serialises the origin of a URL: scheme, host and port without the default one.
func origin(u *url.URL) string {
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return u.Scheme + "://" + host
}

func sameOrigin(a, b *url.URL) bool { return origin(a) == origin(b) }

// sameSite compares scheme and registrable domain; ports do not count.
func sameSite(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && registrableDomain(a.Hostname()) == registrableDomain(b.Hostname())
}

func registrableDomain(host string) string {
	host = strings.ToLower(host)
	if _, err := netip.ParseAddr(host); err == nil {
		return host
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(host)
	if err != nil {
		return host // localhost, or a public suffix itself
	}
	return domain
}

// isTrustworthy tells whether browsers treat a URL as secure: https, and loopback (Secure Contexts, section 3.1).
func isTrustworthy(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	addr, err := netip.ParseAddr(host)
	return u.Scheme == "https" || host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.IsLoopback()
}

// fetchSite is Sec-Fetch-Site: how the page that started a request relates to all URLs of its redirect chain, the farthest one counts
// (Fetch Metadata section 2.3). A request that no page started has "none" to its end.
func fetchSite(from *Page, visited []*url.URL) string {
	if from == nil {
		return "none"
	}
	site := "same-origin"
	for _, u := range visited {
		switch {
		case sameOrigin(from.URL, u):
		case sameSite(from.URL, u):
			site = "same-site"
		default:
			return "cross-site"
		}
	}
	return site
}

func setSecFetch(header http.Header, u *url.URL, mode, dest, site string) {
	if !isTrustworthy(u) {
		return
	}
	header.Set("Sec-Fetch-Site", site)
	header.Set("Sec-Fetch-Mode", mode)
	header.Set("Sec-Fetch-Dest", dest)
}

// originFor is the Origin header of a navigation from p that is not a GET (Fetch standard, "append a request Origin header"): it falls
// silent with the page's referrer policy.
func (p *Page) originFor(u *url.URL, tainted bool) string {
	const null = "null"
	if tainted {
		return null
	}
	switch p.referrerPolicy() {
	case "no-referrer":
		return null
	case "same-origin":
		if !sameOrigin(p.URL, u) {
			return null
		}
	case "no-referrer-when-downgrade", "strict-origin", "strict-origin-when-cross-origin":
		if p.URL.Scheme == "https" && u.Scheme != "https" {
			return null
		}
	}
	return origin(p.URL)
}

// referrerPolicy returns the last policy that the page names and browsers know.
func (p *Page) referrerPolicy() string {
	policy := "strict-origin-when-cross-origin"
	for token := range strings.SplitSeq(strings.Join(p.Header.Values("Referrer-Policy"), ","), ",") {
		switch token = strings.ToLower(strings.TrimSpace(token)); token {
		case "no-referrer", "no-referrer-when-downgrade", "same-origin", "origin", "strict-origin", "origin-when-cross-origin",
			"strict-origin-when-cross-origin", "unsafe-url":
			policy = token
		}
	}
	return policy
}

// allowsFormAction applies form-action of the page's policies. It knows 'self', 'none', *, schemes and plain origins.
func (p *Page) allowsFormAction(u *url.URL) bool {
	for _, policy := range p.Header.Values("Content-Security-Policy") {
		for directive := range strings.SplitSeq(policy, ";") {
			words := strings.Fields(directive)
			if len(words) > 0 && strings.EqualFold(words[0], "form-action") && !p.matchesSource(u, words[1:]) {
				return false
			}
		}
	}
	return true
}

func (p *Page) matchesSource(u *url.URL, sources []string) bool {
	for _, source := range sources {
		switch source {
		case "*", u.Scheme + ":", origin(u):
			return true
		case "'self'":
			if sameOrigin(p.URL, u) {
				return true
			}
		}
	}
	return false
}
