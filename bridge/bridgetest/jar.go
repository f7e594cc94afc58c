package bridgetest

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

// jar keeps cookies by RFC 6265bis, as net/http/cookiejar does not: with SameSite, the prefixes, and Secure on loopback.
// Cookies do not know ports.
type jar struct {
	cookies map[cookieID]storedCookie
	serial  int // of the newest cookie
}

type cookieID struct{ domain, path, name string }

type storedCookie struct {
	http.Cookie           // Domain and Path are always set
	hostOnly    bool      // no Domain attribute: not for subdomains
	expires     time.Time // zero: when the browser closes
	serial      int       // order of creation
}

// siteContext says which SameSite cookies a request carries, and whether its answer may set such.
type siteContext struct {
	strict bool // the request comes from the same site, or from nobody: all cookies
	lax    bool // a top-level navigation with a safe method: SameSite=Lax, too
	store  bool // a top-level navigation: SameSite cookies are stored even when it came from another site
}

func (j *jar) clone() jar { return jar{maps.Clone(j.cookies), j.serial} }

const maxCookieSize = 4096 // name and value, as in Chromium

func (j *jar) store(u *url.URL, c *http.Cookie, site siteContext, now time.Time, secure bool) error {
	if err := acceptable(u, c, site, secure); err != nil {
		return err
	}
	host := strings.ToLower(u.Hostname())
	stored := storedCookie{Cookie: *c, hostOnly: true}
	stored.Domain = strings.ToLower(strings.TrimPrefix(c.Domain, "."))
	switch {
	case stored.Domain == "":
		stored.Domain = host
	case domainMatches(host, stored.Domain):
		stored.hostOnly = isIP(host)
	default:
		return errors.New("the Domain attribute is another site's")
	}
	if !strings.HasPrefix(c.Path, "/") {
		stored.Path = defaultPath(u)
	}
	switch {
	case c.MaxAge < 0:
		stored.expires = now
	case c.MaxAge > 0:
		stored.expires = now.Add(time.Duration(c.MaxAge) * time.Second)
	default:
		stored.expires = c.Expires
	}
	id := cookieID{stored.Domain, stored.Path, c.Name}
	if !stored.expires.IsZero() && !stored.expires.After(now) {
		delete(j.cookies, id)
		return nil
	}
	if old, ok := j.cookies[id]; ok {
		stored.serial = old.serial // an update keeps its place in the header
	} else {
		j.serial++
		stored.serial = j.serial
	}
	j.cookies[id] = stored
	return nil
}

// acceptable checks what does not depend on the jar.
func acceptable(u *url.URL, c *http.Cookie, site siteContext, secure bool) error {
	name := strings.ToLower(c.Name)
	switch {
	case len(c.Name)+len(c.Value) > maxCookieSize:
		return errors.New("the cookie is longer than 4096 bytes")
	case c.Secure && !secure:
		return errors.New("a Secure cookie over an insecure connection")
	case strings.HasPrefix(name, "__secure-") && !c.Secure:
		return errors.New("a __Secure- cookie without Secure")
	case strings.HasPrefix(name, "__host-") && (!c.Secure || c.Path != "/" || c.Domain != ""):
		return errors.New("a __Host- cookie without Secure, without Path=/ or with Domain")
	case c.SameSite == http.SameSiteNoneMode && !c.Secure:
		return errors.New("SameSite=None without Secure")
	case c.SameSite != http.SameSiteNoneMode && !site.strict && !site.store:
		return errors.New("a SameSite cookie from another site")
	}
	domain := strings.ToLower(strings.TrimPrefix(c.Domain, "."))
	if suffix, _ := publicsuffix.PublicSuffix(domain); domain != "" && suffix == domain && domain != strings.ToLower(u.Hostname()) {
		return errors.New("the Domain attribute is a public suffix")
	}
	return nil
}

// header returns the Cookie header of a request, "" if there is none.
func (j *jar) header(u *url.URL, site siteContext, now time.Time, secure bool) string {
	var pairs []string
	for _, c := range j.carried(u, site, now, secure) {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return strings.Join(pairs, "; ")
}

// carried returns what a request carries: longer paths first, then older cookies first (RFC 6265 section 5.4).
func (j *jar) carried(u *url.URL, site siteContext, now time.Time, secure bool) []*http.Cookie {
	var found []storedCookie
	for _, c := range j.cookies {
		if c.matches(u, now) && (secure || !c.Secure) && c.allowedBy(site) {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b storedCookie) int {
		return cmp.Or(cmp.Compare(len(b.Path), len(a.Path)), cmp.Compare(a.serial, b.serial))
	})
	cookies := make([]*http.Cookie, len(found))
	for i := range found {
		cookies[i] = &found[i].Cookie
	}
	return cookies
}

func (c *storedCookie) matches(u *url.URL, now time.Time) bool {
	host := strings.ToLower(u.Hostname())
	if host != c.Domain && (c.hostOnly || !domainMatches(host, c.Domain)) {
		return false
	}
	if !c.expires.IsZero() && !c.expires.After(now) {
		return false
	}
	path := cmp.Or(u.EscapedPath(), "/")
	return path == c.Path || strings.HasPrefix(path, c.Path) && (strings.HasSuffix(c.Path, "/") || path[len(c.Path)] == '/')
}

// allowedBy applies SameSite; a cookie without the attribute is Lax.
func (c *storedCookie) allowedBy(site siteContext) bool {
	switch c.SameSite {
	case http.SameSiteNoneMode:
		return true
	case http.SameSiteStrictMode:
		return site.strict
	default:
		return site.strict || site.lax
	}
}

func domainMatches(host, domain string) bool {
	return host == domain || !isIP(host) && strings.HasSuffix(host, "."+domain)
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// defaultPath is the folder of the URL's path (RFC 6265 section 5.1.4).
func defaultPath(u *url.URL) string {
	path := u.EscapedPath()
	if i := strings.LastIndex(path, "/"); i > 0 {
		return path[:i]
	}
	return "/"
}
