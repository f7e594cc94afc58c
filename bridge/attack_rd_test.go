package bridge_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// returner shows where a login would come back to: the page of GET /logout carries the checked target.
type returner struct{ http.Handler }

func newReturner(t *testing.T) returner {
	return returner{httpsService(t, "allowed_origins: [https://shop.example.com, https://shop.example.com:8443]\n")}
}

func (h returner) target(returnTo string) string {
	r := httptest.NewRequest(http.MethodGet, "https://app.example.com/auth/logout?"+url.Values{"return_to": {returnTo}}.Encode(), nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code == http.StatusRequestURITooLong {
		return "/" // it did not get that far
	}
	page := bridgetest.Page{URL: r.URL, Header: w.Header(), Body: w.Body.Bytes()}
	return page.Forms()[0].Fields.Get("return_to")
}

// refuse holds that none of the targets is taken, and that the target beside each is.
func (h returner) refuse(t *testing.T, hostile []string, good ...string) {
	t.Helper()
	for _, target := range hostile {
		if got := h.target(target); got != "/" {
			t.Errorf("%q returns to %q", target, got)
		}
	}
	for _, target := range good {
		if got := h.target(target); got != target {
			t.Errorf("%q returns to %q", target, got)
		}
	}
	bridgetest.Tried(t, len(hostile)+len(good))
}

// TestAttack_RD01_OpenRedirect: other hosts, other schemes, and what is no address at all.
func TestAttack_RD01_OpenRedirect(t *testing.T) {
	t.Parallel()
	newReturner(t).refuse(
		t, []string{
			"//evil.com", "///evil.com", "////evil.com/", "https://evil.com", "http://evil.com", "https://evil.com/auth/login", "//evil.com/..", "//evil.com:443/",
			"//evil.com?x", "//evil.com#x", "http:///evil.com", "https:///evil.com", "ftp://evil.com/", "ws://evil.com/", "file:///etc/passwd", "//[::1]/", "//127.0.0.1", "//2130706433",
			"//0x7f000001", "//evil%E3%80%82com", "javascript:alert(1)", "JavaScript:alert(1)", "java\tscript:alert(1)", " javascript:alert(1)", "javascript://x/%0aalert(1)",
			"data:text/html,x", "data:;base64,eA==", "vbscript:x", "blob:x", "blob:https://app.example.com/x", "about:blank", "view-source:https://evil.com", "mailto:a@b.c", "intent://x#Intent;end",
			"evil.com", "www.evil.com/x", "@evil.com", ".evil.com", "evil.com/auth", "x", "x/y", "./x", "../x", "?x", "#x", "", ":x", "*", "$", "~", "%2F", "%2f%2fevil.com", "app.example.com/",
		},
		"/", "/orders", "/orders/7?x=1&y=a%20b#z", "/a.b/c~d", "/search?q=https://example.com//x", "/auth", "/authors", "/auth/help", "/%C3%A4", "/a%20b", "/login", "/a+b;c=d,e",
		"/x?return_to=//evil.com", "/x#//evil.com", "/x?a=/../", "/...", "/.well-known/x", "/a/.b/..c", "/"+strings.Repeat("x", 511),
	)
}

// TestAttack_RD02_ParserDisagreement: what one reader takes for a path and another one for a host.
func TestAttack_RD02_ParserDisagreement(t *testing.T) {
	t.Parallel()
	hostile := []string{
		"https:evil.com", "https:/evil.com", "https:/\\evil.com", "https:\\\\evil.com", "http:\\evil.com", "/\\evil.com", "\\\\evil.com", "\\/evil.com", "\\evil.com", "/\\/evil.com", "//\\evil.com",
		"/%5cevil.com", "/%5Cevil.com", "/%5c%5cevil.com", "/a\\b", "/a%5cb", "/%2fevil.com", "/%2f%2fevil.com", "/%2F/evil.com", "/a%2f%2fb", "/..//evil.com", "/.//evil.com", "/./evil", "/../evil",
		"/a/../../evil", "/a//b", "/a/./b", "/a/..", "/.", "/..", "/%2e%2e/x", "/%2e%2e%2fevil", "/.%2e/x", "/%2e/x", "/%2E%2E/x", "/a/%2e%2e//evil.com",
		"/;//evil.com", "/x;/..//evil", "/?/../..//evil.com\\x", "/ /evil.com", "/%20//evil.com", " //evil.com", " /x", "/x ", "/x y", "\t//evil.com", "\n//evil.com", "\r\n//evil.com",
		"/%", "/%zz", "/%u002f", "/%c0%af", "/x%", "/\"><script>", "/<script>", "/{x}", "/^", "/|", "/`", "/x?\"", "/x?<", "/x#<", "/x%3F//y",
		"/" + strings.Repeat("x", 512), "/" + strings.Repeat("x", 10<<10), "/" + strings.Repeat("/", 600),
	}
	// Every control character and every kind of blank, before, behind and inside.
	for _, c := range "\x00\x01\x07\x08\t\n\v\f\r\x1b\x1f\x7f\u0085\u00a0\u00ad\u200b\u200e\u2028\u2029\u202e\u3000\ufeff\uff0f\uff3c\u2215\u29f8\ufffd" {
		hostile = append(hostile, string(c)+"/x", "/"+string(c)+"/evil.com", "/x"+string(c), "/"+string(c)+"evil.com", "/x?a="+string(c))
		if c < 0x80 {
			hostile = append(hostile, fmt.Sprintf("/%%%02xevil.com", c), fmt.Sprintf("/x%%%02X", c))
		}
	}
	hostile = append(hostile, "/\xff/evil.com", "/\xc0\xaf/evil.com", "/\xed\xa0\x80")
	// Octets that net/url decodes but browsers leave as they are do no harm, and neither does what is encoded twice.
	newReturner(t).refuse(t, hostile, "/%252f%252fevil.com", "/%255cevil.com", "/x?a=%0d%0a", "/a%3bb")
}

// TestAttack_RD03_Authority: an origin is allowed as a whole or not at all.
func TestAttack_RD03_Authority(t *testing.T) {
	t.Parallel()
	newReturner(t).refuse(
		t, []string{
			"https://shop.example.com@evil.com/", "https://shop.example.com:443@evil.com/", "https://shop.example.com:8443@evil.com/", "https://user@shop.example.com/", "https://user:pw@shop.example.com/",
			"https://@shop.example.com/", "//127.0.0.1@evil.com", "https://shop.example.com%40evil.com/", "https://shop.example.com%2f@evil.com/", "https://shop.example.com%00.evil.com/",
			"https://shop.example.com.evil.com/", "https://shop.example.com.evil/", "https://evilshop.example.com/", "https://evil.com/https://shop.example.com/", "https://evil.com?https://shop.example.com/",
			"https://evil.com#https://shop.example.com/", "https://sub.shop.example.com/", "https://example.com/", "https://shop.example.co/", "https://shop.example.comm/", "https://shop-example.com/",
			"https://shop.example.com:444/", "https://shop.example.com:443/", "https://shop.example.com:/", "https://shop.example.com:08443/", "https://shop.example.com:84433/", "https://shop.example.com:8443.evil.com/",
			"https://shop.example.com./", "https://shop.example.com。/", "https://shop。example.com/", "https://shop.example.com\uff0f/", "https://shop%2eexample.com/", "https://shop.example.c\u00f6m/",
			"HTTPS://shop.example.com/", "https://SHOP.example.com/", "https://Shop.Example.com/", "http://shop.example.com/", "shop.example.com/", "//shop.example.com/", "wss://shop.example.com/",
			"https://shop.example.com", "https://shop.example.com?x", "https://shop.example.com#x", "https://shop.example.com\\@evil.com/", "https://shop.example.com;evil.com/", "https://shop.example.com,evil.com/",
			"https://shop.example.com&evil.com/", "https://shop.example.com evil.com/", "https://shop.example.com//evil", "https://shop.example.com/\\evil", "https://shop.example.com/../x", "https://shop.example.com/%2fx",
			"https://shop.example.com/\t", "https:shop.example.com/", "https:/shop.example.com/", "https:\\\\shop.example.com/", "https://shop.example.com/<", "https://[shop.example.com]/",
			"https://app.example.com/", "https://app.example.com:443/", "https://shop.example.com/" + strings.Repeat("x", 512),
		},
		"https://shop.example.com/", "https://shop.example.com/cart?x=1", "https://shop.example.com/a#b", "https://shop.example.com:8443/", "https://shop.example.com:8443/x", "https://shop.example.com/auth/logout",
	)
}

// TestAttack_RD04_OwnEndpoints: a login does not come back to where the next one starts, or where it would end.
func TestAttack_RD04_OwnEndpoints(t *testing.T) {
	t.Parallel()
	hostile := []string{"/auth/log%6fut", "/auth/%6cogin", "/auth/api%5ftoken", "/%61uth/login", "/AUTH/login", "/Auth/Logout", "/auth/backchannel-logout/corp", "/auth%2flogin", "/auth/login%2fcorp"}
	for _, own := range []string{"login", "callback", "logout", "logged-out", "api_token", "me", "auth", "token", "backchannel-logout"} {
		for _, spelled := range []string{"/auth/%s", "/auth/%s/", "/auth/%s/corp", "/auth/%s?x=1", "/auth/%s#x", "/auth/%s/a/b?code=x&state=y"} {
			hostile = append(hostile, fmt.Sprintf(spelled, own), fmt.Sprintf(spelled, strings.ToUpper(own)))
		}
	}
	// What stands behind # never leaves the browser, and must not become a path on the way there.
	s := newService(t, withPrefix("/auth"))
	fragments := []string{"/x#/../auth/logout", "/x#/../auth/login/op", "/x#a/../../auth/logout", "/x#/..//evil.com", "/#/./auth/api_token", "/x/#//..//", "/x#?a=/../", "/x#/a//b/"}
	for _, target := range fragments {
		_, page := s.login("carl", url.QueryEscape(target))
		if location := page.History[len(page.History)-1].Header.Get("Location"); location != target {
			t.Errorf("%q returns to %q", target, location)
		}
	}
	bridgetest.Tried(t, len(fragments))
	newReturner(t).refuse(t, hostile, "/login", "/logout", "/me", "/auth/", "/auth/menu", "/auth/tokens", "/authentic/login", "/x/auth/login", "/x?next=/auth/logout")
}

// TestAttack_RD04_Tampering: where a login comes back to is sealed with the login, and cannot be changed or taken from another one.
func TestAttack_RD04_Tampering(t *testing.T) {
	t.Parallel()
	s := newService(t)
	begin := func(returnTo string) (*http.Cookie, string) {
		b := bridgetest.NewBrowser()
		page, err := b.Open(t.Context(), s.URL+"/login/op?return_to="+url.QueryEscape(returnTo))
		if err != nil {
			t.Fatal(err)
		}
		return b.Cookies(s.URL)[0], s.callback(b, page, "carl")
	}
	evil, _ := begin("/evil")
	mine, target := begin("/mine")
	with := func(url string, value string) *http.Response {
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		request.AddCookie(&http.Cookie{Name: mine.Name, Value: value})
		return do(t, request)
	}
	inputs := map[string]string{
		"of another login": evil.Value, "cut": mine.Value[:len(mine.Value)-2], "longer": mine.Value + "AA", "empty": "", "in the clear": encode([]byte(`{"r":"//evil.com"}`)),
		"both": mine.Value + evil.Value, "two halves": mine.Value[:40] + evil.Value[40:], "the nonce of another": evil.Value[:16] + mine.Value[16:],
	}
	for i := range len(mine.Value) - 1 { // the last character has bits that mean nothing
		if flipped := byte('A'); mine.Value[i] != flipped {
			inputs[fmt.Sprint("character ", i)] = mine.Value[:i] + string(flipped) + mine.Value[i+1:]
		}
	}
	parameters := []string{"return_to=/evil", "return_to=//evil.com", "redirect_uri=//evil.com", "next=//evil.com", "target_link_uri=//evil.com", "r=/evil"}
	for _, parameter := range parameters {
		cookie, callback := begin("/mine")
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, callback+"&"+parameter, nil)
		request.AddCookie(cookie)
		if response := do(t, request); response.Header.Get("Location") != "/mine" {
			t.Errorf("%s: %d to %s", parameter, response.StatusCode, response.Header.Get("Location"))
		}
	}
	for name, value := range inputs {
		s.advance(700 * time.Millisecond) // for the limit on failures
		if response := with(target, value); response.StatusCode != 400 || response.Header.Get("Location") != "" {
			t.Errorf("cookie %s: %d to %s", name, response.StatusCode, response.Header.Get("Location"))
		}
	}
	if response := with(target, mine.Value); response.StatusCode != 303 || response.Header.Get("Location") != "/mine" {
		t.Errorf("the login itself: %d to %s", response.StatusCode, response.Header.Get("Location"))
	}
	bridgetest.Tried(t, len(inputs)+len(parameters)+1)
}

// TestAttack_RD04_Loop: an application that never likes what it gets sends the browser round only so often; people are not kept from logging in.
func TestAttack_RD04_Loop(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b := bridgetest.NewBrowser()
	start := func(cookies []*http.Cookie, header http.Header) int {
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/login/op", nil)
		request.Header = header.Clone()
		for _, c := range cookies {
			request.AddCookie(c)
		}
		return do(t, request).StatusCode
	}
	document := func(site string) http.Header {
		return http.Header{"Sec-Fetch-Site": {site}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
	}
	clicked := document("same-origin")
	clicked.Set("Sec-Fetch-User", "?1")
	for round := range 4 {
		want := 302
		if round == 3 {
			want = 400
		}
		for _, site := range []string{"same-origin", "same-site", "cross-site"} {
			if got := start(b.Cookies(s.URL), document(site)); got != want {
				t.Errorf("round %d, %s: %d, want %d", round, site, got, want)
			}
		}
		for name, header := range map[string]http.Header{"a click": clicked, "an address typed": document("none"), "a program": {}} {
			if got := start(b.Cookies(s.URL), header); got != 302 {
				t.Errorf("round %d, %s: %d", round, name, got)
			}
		}
		s.loginWith(b, "carl", "/")
	}
	// The counter is no secret; nonsense in it is no loop and no error.
	var name string
	for _, c := range b.Cookies(s.URL) {
		if strings.HasPrefix(c.Name, "loop-") {
			name = c.Name
		}
	}
	values := []string{"", "0", "-1", "-9", "99999999999999999999", "x", "3x", "\"3\"x", "%33", "٣", "1"}
	for _, value := range values {
		header := document("same-origin")
		header["Cookie"] = []string{name + "=" + value}
		if got := start(nil, header); got != 302 {
			t.Errorf("counter %q: %d", value, got)
		}
	}
	bridgetest.Tried(t, 4*6+len(values))
}

// TestAttack_RD05_RouterRedirects: the router itself never sends a browser to another host.
func TestAttack_RD05_RouterRedirects(t *testing.T) {
	t.Parallel()
	h := httpsService(t, "")
	paths := []string{
		"//evil.com/login", "//evil.com/auth/login", "//evil.com/..", "/auth/..//evil.com", "/auth//evil.com", "/auth///evil.com/..", "/auth/login//evil.com", "/auth/login/..//evil.com",
		"/\\evil.com/auth/login", "/%5cevil.com", "/%2f/evil.com", "/auth//login", "/auth/login/", "/auth/logout/", "/auth/callback/corp/", "/auth/../login", "/auth/%2e%2e/login", "/auth/./login", "/AUTH/login",
		"/auth/LOGIN", "/login", "/auth/login;x", "/auth/login%00", "/auth/login%2fcorp", "/auth/", "/auth", "/", "//", "/auth/login/corp/", "/auth/login/corp/..", "/auth/login/%2e%2e",
	}
	for _, path := range paths {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path, _ = url.PathUnescape(path)
		r.URL.RawPath = path
		h.ServeHTTP(w, r)
		if location := w.Header().Get("Location"); w.Code != 404 || location != "" {
			t.Errorf("%s: %d %s", path, w.Code, location)
		}
	}
	bridgetest.Tried(t, len(paths))
}

// TestAttack_RD06_OtherInputs: nothing of a request but return_to says where to go, and public_url says where we are.
func TestAttack_RD06_OtherInputs(t *testing.T) {
	t.Parallel()
	s := newService(t, withPrefix("/auth"))
	host := strings.TrimSuffix(s.URL, "/auth")
	headers := []http.Header{
		{"Referer": {"https://evil.com/"}},
		{"Rd": {"//evil.com"}, "X-Auth-Request-Redirect": {"//evil.com"}},
		{"X-Forwarded-Uri": {"//evil.com/"}, "X-Original-Url": {"//evil.com/"}, "X-Rewrite-Url": {"//evil.com"}},
		{"X-Forwarded-Host": {"evil.com"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Prefix": {"//evil.com"}},
		{"Forwarded": {"host=evil.com;proto=http"}},
		{"X-Host": {"evil.com"}, "X-Forwarded-Server": {"evil.com"}},
		{"Upgrade-Insecure-Requests": {"1"}},
		{"Origin": {""}},
		{"Location": {"//evil.com"}},
	}
	queries := []string{"rd", "redirect", "redirect_to", "redirect_uri", "next", "url", "target", "dest", "continue", "post_logout_redirect_uri", "target_link_uri", "RETURN_TO", "returnTo", "return"}
	inputs := 0
	check := func(path string, header http.Header, hostHeader string) {
		inputs++
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		request.Header, request.Host = header.Clone(), hostHeader
		if request.Header == nil {
			request.Header = http.Header{}
		}
		response := do(t, request)
		location := response.Header.Get("Location")
		if response.StatusCode/100 == 3 && (strings.Contains(location, "evil") || !strings.HasPrefix(location, s.OP.Issuer()) && !strings.HasPrefix(location, "/auth/login/op?return_to=%2F")) {
			t.Errorf("%s %v %s: to %s", path, header, hostHeader, location)
		}
		for _, c := range response.Cookies() {
			if c.Domain != "" {
				t.Errorf("%s: cookie for %s", path, c.Domain)
			}
		}
	}
	for _, path := range []string{"/login", "/login/op", "/logout"} {
		for _, header := range headers {
			check(path, header, "")
		}
		for _, name := range queries {
			check(path+"?"+name+"=//evil.com", nil, "")
		}
		for _, name := range []string{"evil.com", "evil.com:443", "app.example.com@evil.com", "[::1]", "localhost"} {
			check(path, nil, name)
		}
	}
	// After all of that, a login and a logout end where we are.
	b := bridgetest.NewBrowser()
	page, err := b.Open(t.Context(), s.URL+"/login/op?rd=//evil.com&next=//evil.com&return_to=%2Fok")
	if err == nil {
		page, err = b.ChoosePersona(t.Context(), page, "carl")
	}
	if err != nil || page.URL.String() != host+"/ok" {
		t.Errorf("%v %v", page.URL, err)
	}
	for _, body := range []string{"return_to=//evil.com", "return_to=https://evil.com/", "post_logout_redirect_uri=//evil.com", "rd=//evil.com", "return_to=/a&return_to=//evil.com"} {
		inputs++
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/logout?return_to=//evil.com&rd=//evil.com", strings.NewReader(body))
		request.Header = http.Header{"Origin": {host}, "Content-Type": {"application/x-www-form-urlencoded"}, "Referer": {"https://evil.com/"}}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text := bodyOf(t, response)
		if response.StatusCode != 200 || strings.Contains(text, "evil") || response.Header.Get("Refresh") != "" || response.Header.Get("Location") != "" {
			t.Errorf("logout with %s: %d %v %s", body, response.StatusCode, response.Header, text)
		}
	}
	bridgetest.Tried(t, inputs+1)
}
