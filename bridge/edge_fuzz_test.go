package bridge

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func fuzzConfig() *Config {
	return &Config{
		PublicURL: &url.URL{Scheme: "https", Host: "app.example.com", Path: "/auth"}, AllowedOrigins: []string{"https://shop.example.com"},
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
		CookieKeys:     []Secret{NewSecret(strings.Repeat("k", 32)), NewSecret(strings.Repeat("l", 32))}, Session: SessionConfig{Idle: time.Hour, Absolute: time.Hour},
	}
}

// browserHost is where a browser at https://app.example.com goes for a reference: the URL Standard's parser, as far as it decides the host.
func browserHost(reference string) string {
	reference = strings.Trim(reference, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\v\f\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f ")
	reference = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(reference)
	if scheme, rest, found := strings.Cut(reference, ":"); found && scheme != "" && !strings.ContainsAny(scheme, "/\\?#") {
		if scheme = strings.ToLower(scheme); scheme != "https" && scheme != "http" {
			return scheme + ":"
		}
		authority := strings.TrimLeft(rest, "/\\")
		if end := strings.IndexAny(authority, "/\\?#"); end >= 0 {
			authority = authority[:end]
		}
		return scheme + "://" + authority[strings.LastIndex(authority, "@")+1:]
	}
	if len(reference) >= 2 && strings.ContainsRune("/\\", rune(reference[0])) && strings.ContainsRune("/\\", rune(reference[1])) {
		return browserHost("https:" + reference)
	}
	return "https://app.example.com"
}

// FuzzReturnTo: what is returned to is what was given or "/", and lies on our host or an allowed origin for net/url, for a browser, and for
// whatever decodes the path once or merges its slashes.
func FuzzReturnTo(f *testing.F) {
	for _, target := range []string{
		"/", "/orders?x=1#y", "//evil.com", "/\\evil.com", "/%2fevil.com", "/%5cevil.com", "/\t/evil.com", "https:evil.com", "https://shop.example.com/x", "https://shop.example.com@evil.com/", "https://shop.example.com.evil.com/",
		"/auth/login", "/AUTH/log%6fut", "/a/../b", "/%2e%2e/x", "/..//evil.com", "javascript:alert(1)", "/\u2028x", "/\xff", "/%c0%af", strings.Repeat("/x", 300), "/x?return_to=//evil.com", "/x#/../auth/logout", "/x#%", "https://shop.example.com//x", " /x", "",
	} {
		f.Add(target)
	}
	c := fuzzConfig()
	allowed := append(slices.Clone(c.AllowedOrigins), "https://app.example.com")
	f.Fuzz(func(t *testing.T, target string) {
		got := returnTo(c, target)
		if got == "/" {
			return
		}
		if got != target || len(got) > maxReturnTo {
			t.Fatalf("%q became %q", target, got)
		}
		if host := browserHost(got); !slices.Contains(allowed, host) {
			t.Errorf("a browser goes to %s for %q", host, got)
		}
		base, _ := url.Parse("https://app.example.com/auth/callback/corp")
		u, err := base.Parse(strings.Split(got, "#")[0])
		if err != nil || !slices.Contains(allowed, u.Scheme+"://"+u.Host) || u.User != nil {
			t.Fatalf("net/url goes to %v for %q: %v", u, got, err)
		}
		for _, path := range []string{u.Path, u.EscapedPath()} {
			if strings.Contains(path, "//") || strings.Contains(path, "\\") || strings.Contains(path+"/", "/../") || strings.Contains(path+"/", "/./") {
				t.Errorf("%q has path %q", got, path)
			}
		}
		if u.Host == "app.example.com" {
			for _, own := range []string{"login", "callback", "logout", "api_token", "me"} {
				if path := strings.ToLower(u.Path); path == "/auth/"+own || strings.HasPrefix(path, "/auth/"+own+"/") {
					t.Errorf("%q is our own %s", got, own)
				}
			}
		}
		// It becomes a Location as it is.
		w := httptest.NewRecorder()
		goBack(w, got)
		if location := w.Header().Get("Location"); location != got {
			t.Errorf("%q is sent as Location %q", got, location)
		}
	})
}

// FuzzSessionCookie: whatever a Cookie header holds, only a token that one of our keys vouches for is a session, and only when it stands
// there once.
func FuzzSessionCookie(f *testing.F) {
	c := fuzzConfig()
	cookies, err := NewCookies(c, time.Now)
	if err != nil {
		f.Fatal(err)
	}
	value := func(c *Cookies, token SessionToken) string {
		w := httptest.NewRecorder()
		c.PutSession(w, token)
		return w.Result().Cookies()[0].Value
	}
	old := *c
	old.CookieKeys = c.CookieKeys[1:]
	oldCookies, err := NewCookies(&old, time.Now)
	if err != nil {
		f.Fatal(err)
	}
	first, second := SessionToken{1}, SessionToken{2}
	genuine := map[string]SessionToken{value(cookies, first): first, value(oldCookies, second): second}
	name := cookies.session
	for good := range genuine {
		for _, header := range []string{
			name + "=" + good, name + "=" + good + "; " + name + "=" + good, "a=b; " + name + "=" + good + "; c=d", name + "=\"" + good + "\"", name + " =" + good, strings.ToUpper(name) + "=" + good, "\u2000" + name + "=" + good,
			name + "=" + good[:63], name + "=" + good + "A", name + "=" + strings.Repeat("A", 64), name + "=" + good[:32] + strings.Repeat("A", 32), "$Version=1; " + name + "=" + good, name + "=" + good + ",x", name + "=", "", ";;;=",
		} {
			f.Add(header)
		}
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest(http.MethodGet, "/auth/api_token", nil)
		r.Header["Cookie"] = []string{header}
		token, found := cookies.Session(r)
		named := 0
		var value string
		for _, cookie := range r.Cookies() {
			if cookie.Name == name {
				named++
				value = cookie.Value
			}
		}
		want, known := genuine[value]
		if known = known && named == 1; known != found || found && token != want {
			t.Errorf("%q: found %v, %d cookies, one of ours: %v", header, found, named, known)
		}
	})
}

// FuzzForwardedFor: an address counts when the peer, or a proxy of ours that it names, has vouched for it; what stands further left changes
// nothing.
func FuzzForwardedFor(f *testing.F) {
	for _, header := range []string{
		"", "198.51.100.7", "192.0.2.1, 198.51.100.7", "198.51.100.7, 10.1.2.3", "10.1.2.3", "unknown", "198.51.100.7:80", "[2001:db8::1]", "2001:db8::1", "::ffff:10.0.0.1", "::ffff:198.51.100.7", "10.1.2.3,,", ",", " 198.51.100.7 ", "198.51.100.7\t",
		"fd00::1, fe80::1%eth0", "0x0a000001", "010.0.0.1", "1.2.3", "999.1.1.1", "198.51.100.7;for=1", strings.Repeat("10.0.0.1,", 500),
	} {
		for _, peer := range []string{"203.0.113.9:1", "10.0.0.1:2", "[fd00::2]:3", "[::ffff:10.0.0.1]:4", "@", ""} {
			f.Add(peer, header)
		}
	}
	c := fuzzConfig()
	at := func(peer string, headers ...string) netip.Addr {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = peer
		r.Header["X-Forwarded-For"] = headers
		return clientAddr(c, r)
	}
	f.Fuzz(func(t *testing.T, peer, header string) {
		got := at(peer, header)
		if got != at(peer, strings.Split(header, ",")...) {
			t.Errorf("%q in one line or in many", header)
		}
		direct := at(peer)
		if !c.trusts(direct) {
			if got != direct {
				t.Errorf("%s says %q and counts as %s", peer, header, got)
			}
			return
		}
		if got.Is4In6() {
			t.Errorf("%s in two spellings", got)
		}
		if got != direct && !slices.ContainsFunc(strings.Split(header, ","), func(hop string) bool {
			addr, err := netip.ParseAddr(strings.TrimSpace(hop))
			return err == nil && addr.Unmap() == got
		}) {
			t.Errorf("%s is nowhere in %q", got, header)
		}
		if forged := at(peer, "192.0.2.66, "+header); !c.trusts(got) && forged != got {
			t.Errorf("%q: %s, with something on the left %s", header, got, forged)
		}
	})
}
