package bridge

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzAPIPath: a path that is taken is what its first segment says it is, to a program that decodes it once, twice, or cleans it.
func FuzzAPIPath(f *testing.F) {
	for _, seed := range []string{"/api", "/api/", "/api/orders", "/api/../login", "/api/%2e%2e/x", "/api//x", "/api/a%20b", "/api/%252f", "/api/%C3%B6", "/api/a;b", "/api\\x", "/api/{a}", "/api/a/.", "/apix", "/api/%ff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		got, err := apiPath("/api", u)
		if err != nil {
			return
		}
		once, err := url.PathUnescape(got)
		if err != nil || !utf8.ValidString(once) {
			t.Fatalf("%q: %q decodes to %q, %v", target, got, once, err)
		}
		if twice, err := url.PathUnescape(once); err != nil || twice != once {
			t.Errorf("%q: %q decodes twice to %q", target, got, twice)
		}
		if clean := path.Clean(once); clean != once && clean+"/" != once {
			t.Errorf("%q: %q is %q when cleaned", target, once, clean)
		}
		if strings.ContainsAny(once, "\\;?#%\x00\r\n") || strings.Count(once, "/") != strings.Count(got, "/") || once[0] != '/' {
			t.Errorf("%q: %q", target, once)
		}
		if !strings.HasPrefix(u.Path, "/api") || u.Path != "/api"+once && got != "/" {
			t.Errorf("%q goes on as %q", target, got)
		}
	})
}

// FuzzDropHeaders: no name that is left can be taken for one of ours, by a program that reads '_' and '.' as '-' and knows no case.
func FuzzDropHeaders(f *testing.F) {
	for _, seed := range []string{"Authorization", "authorization", "X-Auth-User", "X_Auth_User", "x.auth.user", "HTTP_X_AUTH_USER", "Cookie", "Prefer", "X-Auth~User", "Autho\u212Aization", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		h := http.Header{}
		h.Add(name, "forged")
		dropHeaders(h)
		for left := range h {
			normal := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(strings.ToValidUTF8(left, "")))
			for _, own := range []string{"authorization", "x-auth-user", "x-auth-role", "cookie", "x-forwarded-for", "x-request-id"} {
				// Keys that are not canonical cannot come from net/http.
				if normal == own && http.CanonicalHeaderKey(left) == left {
					t.Errorf("%q is left of %q", left, name)
				}
			}
		}
	})
}
