package bridge_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// What a proxy gets from /auth. The rows' other half, the bridge's own proxy, is in attack_fa_proxy_test.go.

// trusted makes the test a proxy whose word counts.
const trusted = "trusted_proxies: [127.0.0.1/32]\n"

// askAuth asks about a request as a proxy does, with the headers of the client.
func (s *service) askAuth(cookie *http.Cookie, header http.Header, query string) (*http.Response, string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.URL+"/auth"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header = header.Clone()
	if header == nil {
		request.Header = http.Header{}
	}
	if cookie != nil {
		request.AddCookie(cookie)
	}
	response, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	return response, bodyOf(s.t, response)
}

// bearer decodes the token of the one Authorization header.
func bearer(t *testing.T, h http.Header) map[string]any {
	t.Helper()
	values := h["Authorization"]
	if len(values) != 1 || !strings.HasPrefix(values[0], "Bearer ") {
		t.Fatalf("Authorization: %q", values)
	}
	return claims(t, strings.TrimPrefix(values[0], "Bearer "))
}

// noIdentity fails when the answer of /auth names anybody.
func noIdentity(t *testing.T, what string, response *http.Response, body string) {
	t.Helper()
	for _, name := range []string{"Authorization", "X-Auth-User", "X-Auth-Role"} {
		if len(response.Header.Values(name)) > 0 {
			t.Errorf("%s: %s is %q", what, name, response.Header.Values(name))
		}
	}
	if strings.Contains(body, "eyJ") || response.StatusCode < 300 {
		t.Errorf("%s: %d %s", what, response.StatusCode, body)
	}
}

// TestAuth: a proxy learns who it is, people without session are refused, in JSON or with a redirect where the proxy can pass it on.
func TestAuth(t *testing.T) {
	t.Parallel()
	s := newService(t, withConfig(trusted), withPrefix("/auth"))
	b, _ := s.login("ada", "/")
	cookie := sessionCookie(t, s, b)
	_, answer := s.token(b)
	want := claims(t, answer["token"])
	for _, mode := range []string{"", "?mode=redirect"} {
		response, body := s.askAuth(cookie, http.Header{"X-Forwarded-Method": {"POST"}, "Sec-Fetch-Site": {"same-origin"}}, mode)
		got := bearer(t, response.Header)
		if response.StatusCode != 200 || body != "" || got["role"] != s.DB.Role("admin") || got["user_id"] != want["user_id"] || got["sid"] != want["sid"] ||
			response.Header.Get("X-Auth-User") != want["user_id"] || response.Header.Get("X-Auth-Role") != s.DB.Role("admin") || response.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v %v", mode, response.StatusCode, response.Header, got)
		}
	}
	if response, body := s.askAuth(cookie, nil, "?mode=refusal"); response.StatusCode != 503 || response.Header.Get("Retry-After") == "" {
		noIdentity(t, "a refusal that is none any more", response, body)
		t.Errorf("%d %s", response.StatusCode, body)
	}

	visit := http.Header{"Accept": {"text/html,*/*"}, "Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
	fetch := http.Header{"Accept": {"*/*"}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}}
	for _, test := range []struct {
		name, mode, method, uri string
		header                  http.Header
		status                  int
		location                string
	}{
		{"a fetch", "", "GET", "/api/orders", fetch, 401, ""},
		{"a fetch, redirecting proxy", "?mode=redirect", "GET", "/api/orders", fetch, 401, ""},
		{"a program", "?mode=redirect", "GET", "/api/orders", http.Header{"Accept": {"*/*"}}, 401, ""},
		{"a visit, a proxy that cannot redirect", "", "GET", "/api/orders", visit, 401, ""},
		{"a visit", "?mode=redirect", "GET", "/api/orders?a=b&c=d", visit, 302, "/auth/login?return_to=%2Fapi%2Forders%3Fa%3Db%26c%3Dd"},
		{"a visit, refused", "?mode=refusal", "GET", "/api/orders?a=b&c=d", visit, 302, "/auth/login?return_to=%2Fapi%2Forders%3Fa%3Db%26c%3Dd"},
		{"a fetch, refused", "?mode=refusal", "GET", "/api/orders", fetch, 401, ""},
		{"an old browser", "?mode=redirect", "GET", "/x", http.Header{"Accept": {"text/html"}}, 302, "/auth/login?return_to=%2Fx"},
		{"a form", "?mode=redirect", "POST", "/x", http.Header{"Accept": {"text/html"}, "Origin": {"null"}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}, 401, ""},
		{"another mode", "?mode=off", "GET", "/x", visit, 400, ""},
	} {
		test.header = test.header.Clone()
		test.header.Set("X-Forwarded-Method", test.method)
		test.header.Set("X-Forwarded-Uri", test.uri)
		response, body := s.askAuth(nil, test.header, test.mode)
		noIdentity(t, test.name, response, body)
		if location := strings.TrimPrefix(response.Header.Get("Location"), strings.TrimSuffix(s.URL, "/auth")); response.StatusCode != test.status || location != test.location {
			t.Errorf("%s: %d to %q", test.name, response.StatusCode, response.Header.Get("Location"))
		}
		if test.status == 401 && response.Header.Get("WWW-Authenticate") != fmt.Sprintf("Bearer realm=%q", s.Config.PublicURL.Host) {
			t.Errorf("%s: WWW-Authenticate %q", test.name, response.Header.Get("WWW-Authenticate"))
		}
		if test.status == 401 && test.header.Get("Accept") == "*/*" && strings.TrimSpace(body) != `{"error":"only authenticated users can request the API token"}` {
			t.Errorf("%s: %s", test.name, body)
		}
	}
}

// TestAnonymous: people without session get a token of the configured role and of nobody; those with a bad one get none.
func TestAnonymous(t *testing.T) {
	t.Parallel()
	s := newService(t, withConfig("anonymous: anonymous"))
	response, _ := s.askAuth(nil, nil, "")
	got := bearer(t, response.Header)
	if response.StatusCode != 200 || got["role"] != s.DB.Role("anonymous") || got["iss"] != s.URL || got["aud"] != "postgrest" || got["exp"] == nil || got["jti"] == nil || len(got) != 6 {
		t.Errorf("%d %v", response.StatusCode, got)
	}
	if response.Header.Get("X-Auth-Role") != s.DB.Role("anonymous") || response.Header.Get("X-Auth-User") != "" || len(response.Header["X-Auth-User"]) != 1 {
		t.Errorf("%v", response.Header)
	}
	if answer, _ := s.askToken(nil, nil); answer.StatusCode != 401 {
		t.Errorf("/api_token is for people with a session: %d", answer.StatusCode)
	}
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	if response, _ := s.askAuth(cookie, nil, ""); bearer(t, response.Header)["role"] != s.DB.Role("customer") {
		t.Errorf("with a session: %v", response.Header)
	}
	s.advance(13 * time.Hour)
	response, body := s.askAuth(cookie, nil, "")
	noIdentity(t, "a session that has ended", response, body)
}

// TestAnonymousRoleIsTakenBack: the role is looked at each minute, as those of the rules are.
func TestAnonymousRoleIsTakenBack(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	role := db.Name + "_anon"
	exec(t, db, db.SQL(fmt.Sprintf("CREATE ROLE %[1]s NOLOGIN; GRANT %[1]s TO authenticator", role)))
	s := newService(t, withDatabase(db), withConfig("anonymous: "+role))
	for _, step := range []struct {
		sql  string
		want int
	}{
		{"SELECT 1", 200}, {"REVOKE %s FROM authenticator", 401}, {"GRANT %s TO authenticator", 200}, {"ALTER ROLE %s BYPASSRLS", 401}, {"ALTER ROLE %s NOBYPASSRLS", 200}, {"DROP ROLE %s", 401},
	} {
		if strings.Contains(step.sql, "%s") {
			step.sql = fmt.Sprintf(step.sql, role)
		}
		exec(t, db, db.SQL(step.sql))
		s.Reload <- os.Interrupt
		bridgetest.Await(t, fmt.Sprintf("%d after %s", step.want, step.sql), func() bool {
			response, _ := s.askAuth(nil, nil, "")
			return response.StatusCode == step.want
		})
	}
	before := s.readyHash()
	s.changeRules("default: deny", "default: deny # and a new hash")
	bridgetest.Await(t, "the new rules", func() bool { return s.readyHash() != before })
	if response, body := s.askAuth(nil, nil, ""); response.StatusCode != 401 {
		noIdentity(t, "after a reload of the rules", response, body)
	}
}

// spellings of a header's name that some program on the way to SQL takes for it, or that a careless filter misses.
func spellings(name string) (all []string) {
	for _, separator := range []string{"-", "_", ".", "--", "__", "-_", ""} {
		spelt := strings.ReplaceAll(name, "-", separator)
		all = append(all, spelt, strings.ToLower(spelt), strings.ToUpper(spelt))
	}
	first, rest, _ := strings.Cut(name, "-")
	return append(all, first+"_"+rest, strings.ReplaceAll(first+"."+rest, "-", "_"), "HTTP_"+strings.ReplaceAll(name, "-", "_"))
}

var identityHeaders = []string{
	"Authorization", "Proxy-Authorization", "X-Auth-User", "X-Auth-Role", "X-Auth-Request-User", "X-Auth-Request-Email", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups",
	"X-Forwarded-Access-Token", "Remote-User", "X-Remote-User", "Remote-Groups", "X-User", "X-Authenticated-User", "X-Webauth-User",
}

// TestAttack_FA01_FA02_AuthSaysWhoItIs: nothing of the client's headers comes back in an answer of /auth, and each header of ours is there once.
func TestAttack_FA01_FA02_AuthSaysWhoItIs(t *testing.T) {
	t.Parallel()
	s := newService(t, withConfig(trusted))
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	inputs := 0
	for _, name := range identityHeaders {
		for _, spelt := range spellings(name) {
			inputs++
			header := http.Header{spelt: {"admin", "Bearer eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYWRtaW4ifQ."}}
			response, body := s.askAuth(cookie, header, "")
			if got := bearer(t, response.Header); response.StatusCode != 200 || got["role"] != s.DB.Role("customer") || len(response.Header["X-Auth-User"]) != 1 || len(response.Header["X-Auth-Role"]) != 1 ||
				response.Header.Get("X-Auth-Role") != s.DB.Role("customer") || response.Header.Get("X-Auth-User") != got["user_id"] || strings.Contains(fmt.Sprint(response.Header), "admin") {
				t.Errorf("%s: %d %v %s", spelt, response.StatusCode, response.Header, body)
			}
			response, body = s.askAuth(nil, header, "")
			noIdentity(t, spelt+" alone", response, body)
			if response.StatusCode != 401 {
				t.Errorf("%s alone: %d", spelt, response.StatusCode)
			}
		}
	}
	bridgetest.Tried(t, 2*inputs)
}

// TestAttack_FA02_EveryHeaderIsSet, also when there is nothing that it could say, so that a proxy that copies it overwrites the client's.
func TestAttack_FA02_EveryHeaderIsSet(t *testing.T) {
	t.Parallel()
	s := newService(t, withConfig("anonymous: anonymous"))
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	ids := map[string]string{
		"42": "42", "carl@example.com": "carl@example.com", "a b": "", " ": "", "ü": "", "a\nX-Auth-Role: admin": "", "a\r\n\r\n": "", "a\x7f": "", "\t": "", "\u2028": "", "%0a": "%0a", `"`: `"`,
	}
	for id, want := range ids {
		query(t, s.DB, "UPDATE bridge.users SET app_user_id = $1", id)
		response, _ := s.askAuth(cookie, nil, "")
		got, set := response.Header["X-Auth-User"]
		if response.StatusCode != 200 || !set || len(got) != 1 || got[0] != want || bearer(t, response.Header)["user_id"] != id || response.Header.Get("X-Auth-Role") != s.DB.Role("customer") {
			t.Errorf("%q: %d %v", id, response.StatusCode, response.Header)
		}
	}
	response, _ := s.askAuth(nil, nil, "")
	if _, set := response.Header["X-Auth-User"]; !set || response.Header.Get("X-Auth-Role") == "" {
		t.Errorf("without session: %v", response.Header)
	}
	bridgetest.Tried(t, len(ids)+1)
}

// TestAttack_FA03_Forwarded: what a proxy says of the request counts when the proxy is trusted and says one thing; it builds no address.
func TestAttack_FA03_Forwarded(t *testing.T) {
	t.Parallel()
	visit := http.Header{"Accept": {"text/html"}}
	inputs := 0
	with := func(header http.Header, more ...string) http.Header {
		header = header.Clone()
		for i := 0; i < len(more); i += 2 {
			header.Add(more[i], more[i+1])
		}
		inputs++
		return header
	}
	for name, config := range map[string]string{"nobody is trusted": "", "somebody else is": "trusted_proxies: [10.0.0.0/8, 127.0.0.2/32]"} {
		s := newService(t, withConfig(config))
		b, _ := s.login("carl", "/")
		cookie := sessionCookie(t, s, b)
		for _, header := range []http.Header{
			with(visit, "X-Forwarded-Uri", "/orders"), with(visit, "X-Forwarded-Uri", "https://evil.example/"), with(visit, "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "gopher"),
			with(visit, "X-Forwarded-Uri", "/a", "X-Forwarded-Uri", "/b"), with(visit, "X-Original-Uri", "/x"), with(visit, "Forwarded", "host=evil.example;for=127.0.0.1"), with(visit, "X-Forwarded-For", "127.0.0.1"),
		} {
			if response, _ := s.askAuth(nil, header, "?mode=redirect"); response.StatusCode != 302 || response.Header.Get("Location") != s.URL+"/login" {
				t.Errorf("%s: %v: %d %s", name, header, response.StatusCode, response.Header.Get("Location"))
			}
		}
		// The client calls its POST a GET: without a trusted word the rule for posts holds.
		header := with(http.Header{"Origin": {"https://evil.example"}}, "X-Forwarded-Method", "GET")
		response, body := s.askAuth(cookie, header, "")
		noIdentity(t, name+": a foreign Origin", response, body)
	}

	s := newService(t, withConfig(trusted))
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	for _, uri := range []string{
		"https://evil.example/", "//evil.example", "/\\evil.example", "/%5cevil.example", "/..//evil.example", "javascript:alert(1)", "/\tevil", "/a\u00a0", "", "x", "/login", "/logout", "/callback/op?code=1", "/api_token",
		"/auth?mode=redirect", "/" + strings.Repeat("a", 600), "/a,/b", "/%2e%2e/%2e%2e", "/%2F%2Fevil.example", "/ ", "https:evil.example", "http://" + s.Config.PublicURL.Host + "/",
	} {
		response, _ := s.askAuth(nil, with(visit, "X-Forwarded-Uri", uri, "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "http", "X-Forwarded-Port", "666"), "?mode=redirect")
		to, err := url.Parse(response.Header.Get("Location"))
		if err != nil || response.StatusCode != 302 || to.Scheme+"://"+to.Host+to.Path != s.URL+"/login" {
			t.Fatalf("%q: %d %s", uri, response.StatusCode, to)
		}
		if back := to.Query().Get("return_to"); back != "/" && back != "" && uri != "/a,/b" {
			t.Errorf("%q goes back to %q", uri, back)
		}
	}
	for _, header := range []http.Header{
		with(http.Header{}, "X-Forwarded-Uri", "/a", "X-Forwarded-Uri", "/a"), with(http.Header{}, "X-Forwarded-Uri", "/a", "X-Forwarded-Uri", ""), with(http.Header{}, "X-Forwarded-Method", "GET", "X-Forwarded-Method", "POST"),
		with(http.Header{}, "X-Forwarded-Method", "GET", "X-Forwarded-Method", "GET"), with(http.Header{}, "Origin", s.URL, "Origin", s.URL), with(http.Header{}, "Sec-Fetch-Site", "none", "Sec-Fetch-Site", "cross-site"),
	} {
		response, body := s.askAuth(cookie, header, "")
		noIdentity(t, fmt.Sprint(header), response, body)
		if response.StatusCode != 400 {
			t.Errorf("%v: %d", header, response.StatusCode)
		}
	}
	for _, method := range []string{"GET, POST", "get", "Get ", "TRACE", "CONNECT", "PROPFIND", "BREW", "*", "GET\t"} {
		response, body := s.askAuth(cookie, with(http.Header{}, "X-Forwarded-Method", method), "")
		if strings.TrimSpace(method) == "GET" || strings.TrimSpace(method) == "Get" {
			continue // the server trims it
		}
		noIdentity(t, "method "+method, response, body)
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_FA05_AuthOptions: OPTIONS carries nobody's identity, whatever it brings.
func TestAttack_FA05_AuthOptions(t *testing.T) {
	t.Parallel()
	inputs := 0
	for _, anonymous := range []bool{false, true} {
		config := trusted
		if anonymous {
			config += "anonymous: anonymous\n"
		}
		s := newService(t, withConfig(config))
		b, _ := s.login("ada", "/")
		cookie := sessionCookie(t, s, b)
		for _, header := range []http.Header{
			{},
			{"Origin": {s.URL}},
			{"Origin": {s.URL}, "Access-Control-Request-Method": {"POST"}},
			{"Sec-Fetch-Site": {"same-origin"}},
			{"X-Http-Method-Override": {"GET"}},
			{"X-Method-Override": {"POST"}},
			{"Origin": {"https://evil.example"}, "Access-Control-Request-Method": {"GET"}, "Access-Control-Request-Headers": {"authorization"}},
		} {
			inputs++
			header = header.Clone()
			header.Set("X-Forwarded-Method", "OPTIONS")
			response, body := s.askAuth(cookie, header, "")
			if !anonymous {
				noIdentity(t, fmt.Sprint(header), response, body)
			} else if got := bearer(t, response.Header); got["role"] != s.DB.Role("anonymous") || got["sid"] != nil || response.Header.Get("X-Auth-User") != "" {
				t.Errorf("%v: %v", header, got)
			}
		}
		// No header makes another request of a POST.
		for _, override := range []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Method"} {
			inputs++
			response, body := s.askAuth(cookie, http.Header{"X-Forwarded-Method": {"POST"}, "Origin": {"https://evil.example"}, override: {"GET"}}, "")
			noIdentity(t, override, response, body)
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_FA06_NoWayRound: neither the name of a program nor a path that elsewhere needs no login makes a difference.
func TestAttack_FA06_NoWayRound(t *testing.T) {
	t.Parallel()
	s := newService(t, withConfig(trusted))
	inputs := 0
	for _, agent := range []string{
		"GoogleHC/1.0", "kube-probe/1.31", "ELB-HealthChecker/2.0", "Prometheus/2.45", "curl/8", "Googlebot/2.1", "Mozilla/5.0", "", "Consul Health Check", "Envoy/HC", "Pingdom.com_bot", "UptimeRobot/2.0",
	} {
		for _, uri := range []string{"/healthz", "/readyz", "/ping", "/metrics", "/.well-known/jwks.json", "/favicon.ico", "/robots.txt", "/orders", "/public/x", "/login/../orders", "/orders;/healthz", "/orders?/healthz"} {
			inputs++
			response, body := s.askAuth(nil, http.Header{"User-Agent": {agent}, "X-Forwarded-Uri": {uri}, "X-Forwarded-Method": {"GET"}}, "")
			noIdentity(t, agent+" "+uri, response, body)
			if response.StatusCode != 401 {
				t.Errorf("%s %s: %d", agent, uri, response.StatusCode)
			}
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_FA09_AuthCredentials: the one identity is the session cookie's. Two of them are none, and not the anonymous role's either.
func TestAttack_FA09_AuthCredentials(t *testing.T) {
	t.Parallel()
	s := newService(t, withConfig("anonymous: anonymous"))
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	other, _ := s.login("ada", "/")
	admin := sessionCookie(t, s, other)
	_, answer := s.token(other)
	token := fmt.Sprint(answer["token"])
	inputs := 0
	for _, authorization := range [][]string{
		{"Bearer " + token}, {"bearer " + token}, {"Basic YWRhOmFkYQ=="}, {"Bearer "}, {""}, {"Bearer " + token, "Bearer " + token}, {"Negotiate x"}, {token}, {"Session " + admin.Value},
	} {
		inputs++
		response, _ := s.askAuth(cookie, http.Header{"Authorization": authorization}, "")
		if got := bearer(t, response.Header); got["role"] != s.DB.Role("customer") {
			t.Errorf("beside %q: %v", authorization, got)
		}
		response, _ = s.askAuth(nil, http.Header{"Authorization": authorization}, "?access_token="+token)
		if response.StatusCode != 400 {
			t.Errorf("a token in the query: %d", response.StatusCode)
		}
	}
	name, good := cookie.Name, cookie.Value
	for what, line := range map[string][]string{
		"two of one name":   {name + "=" + good + "; " + name + "=" + admin.Value},
		"twice the same":    {name + "=" + good + "; " + name + "=" + good},
		"two lines":         {name + "=" + good, name + "=" + admin.Value},
		"forged first":      {name + "=x; " + name + "=" + good},
		"empty":             {name + "="},
		"no value":          {name},
		"quoted":            {name + `="` + good[:20] + `"`},
		"cut":               {name + "=" + good[:60]},
		"another's ending":  {name + "=" + good[:40] + admin.Value[40:]},
		"with a comma":      {name + "=" + good + "," + name + "=" + admin.Value},
		"a byte of no text": {name + "=\xff"},
		"in another's name": {"x" + name + "=" + good},
	} {
		inputs++
		response, body := s.askAuth(nil, http.Header{"Cookie": line}, "")
		noIdentity(t, what, response, body)
		if response.StatusCode != 401 {
			t.Errorf("%s: %d", what, response.StatusCode)
		}
	}
	bridgetest.Tried(t, inputs)
}

// An originCase is how a request says where it comes from, and whether it may read or change something with a session cookie.
type originCase struct {
	name         string
	header       http.Header
	read, change bool
}

func originCases(own string) []originCase {
	visit := func(site string, more ...string) http.Header {
		h := http.Header{"Sec-Fetch-Site": {site}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
		for i := 0; i < len(more); i += 2 {
			h.Set(more[i], more[i+1])
		}
		return h
	}
	return []originCase{
		{"our page", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {own}}, true, true},
		{"our page, a get", http.Header{"Sec-Fetch-Site": {"same-origin"}}, true, true},
		{"our page without referrer", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"null"}}, true, true},
		{"an old browser", http.Header{"Origin": {own}}, true, true},
		{"typed", http.Header{"Sec-Fetch-Site": {"none"}}, true, true},
		{"an allowed origin", http.Header{"Sec-Fetch-Site": {"same-site"}, "Origin": {"http://shop.localhost"}}, true, true},
		{"an allowed origin, old browser", http.Header{"Origin": {"http://shop.localhost"}}, true, true},
		{"a link in a mail", visit("cross-site"), true, false},
		{"a link of a sibling", visit("same-site"), true, false},
		{"a program", http.Header{}, true, false},
		{"a form elsewhere", visit("cross-site", "Origin", "https://evil.example"), false, false},
		{"a form of a sibling", visit("same-site", "Origin", "http://evil.localhost"), false, false},
		{"a form without referrer", visit("cross-site", "Origin", "null"), false, false},
		{"a frame", visit("cross-site", "Sec-Fetch-Dest", "iframe"), false, false},
		{"a frame of a sibling", visit("same-site", "Sec-Fetch-Dest", "iframe"), false, false},
		{"an image", http.Header{"Sec-Fetch-Site": {"same-site"}, "Sec-Fetch-Mode": {"no-cors"}, "Sec-Fetch-Dest": {"image"}}, false, false},
		{"a script", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"no-cors"}, "Sec-Fetch-Dest": {"script"}}, false, false},
		{"a prefetch", visit("cross-site", "Sec-Purpose", "prefetch"), false, false},
		{"a fetch elsewhere", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"cors"}, "Origin": {"https://evil.example"}}, false, false},
		{"an old browser elsewhere", http.Header{"Origin": {"https://evil.example"}}, false, false},
		{"an old browser, null", http.Header{"Origin": {"null"}}, false, false},
		{"a sandbox", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"null"}}, false, false},
		{"our origin, and a lie", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {own}}, false, false},
		{"same origin, and a lie", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"https://evil.example"}}, false, false},
		{"typed, and a lie", http.Header{"Sec-Fetch-Site": {"none"}, "Origin": {"https://evil.example"}}, false, false},
		{"another port", http.Header{"Origin": {own + "1"}}, false, false},
		{"longer", http.Header{"Origin": {own + ".evil.example"}}, false, false},
		{"another case", http.Header{"Origin": {strings.ToUpper(own)}}, false, false},
		{"with a path", http.Header{"Origin": {own + "/"}}, false, false},
		{"two origins", http.Header{"Origin": {own, "https://evil.example"}}, false, false},
		{"a list of origins", http.Header{"Origin": {own + " https://evil.example"}}, false, false},
		{"a new word", http.Header{"Sec-Fetch-Site": {"same-planet"}}, false, false},
		{"another case of the word", http.Header{"Sec-Fetch-Site": {"Same-Origin"}}, false, false},
	}
}

// TestAttack_FA10_AuthForeignRequests: /auth gives a request of another site no identity when it can change something, and none that another
// page could read.
func TestAttack_FA10_AuthForeignRequests(t *testing.T) {
	t.Parallel()
	s := newService(t, withConfig(trusted+"allowed_origins: [http://shop.localhost]\nanonymous: anonymous\n"))
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	inputs := 0
	for _, test := range originCases(s.URL) {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
			inputs++
			want := test.change
			if method == "GET" || method == "HEAD" {
				want = test.read
			}
			header := test.header.Clone()
			header.Set("X-Forwarded-Method", method)
			response, body := s.askAuth(cookie, header, "")
			if !want {
				noIdentity(t, test.name+" "+method, response, body)
			}
			if got := response.StatusCode == 200; got != want {
				t.Errorf("%s %s: %d", test.name, method, response.StatusCode)
			}
		}
	}
	if response, _ := s.askAuth(nil, http.Header{"X-Forwarded-Method": {"POST"}}, ""); response.StatusCode != 200 || bearer(t, response.Header)["role"] != s.DB.Role("anonymous") {
		t.Errorf("a program without cookie: %d", response.StatusCode)
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_FA13_AuthFailsClosed: whatever fails on the way, /auth gives no token: not the person's, and not the anonymous role's instead.
func TestAttack_FA13_AuthFailsClosed(t *testing.T) {
	t.Parallel()
	var proxy *bridgetest.CountingProxy
	s := newService(t, withConfig("anonymous: anonymous"), withDatabaseURL(func(db *bridgetest.Database) string {
		proxy = bridgetest.NewCountingProxy(t, db.URL)
		return proxy.URL()
	}))
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	proxy.Cut()
	response, body := s.askAuth(cookie, nil, "")
	noIdentity(t, "the database is gone", response, body)
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v", response.StatusCode, response.Header)
	}
	proxy.Mend()
	bridgetest.Await(t, "the database", func() bool { response, _ := s.askAuth(cookie, nil, ""); return response.StatusCode == 200 })
	faults := []struct {
		name, sql string
		want      int
	}{
		{"claims away", "UPDATE bridge.sessions SET claims = '{}'", 403},
		{"claims of another shape", "UPDATE bridge.sessions SET claims = '[1]'", 503},
		{"another provider", "UPDATE bridge.sessions SET claims = 'null', provider = 'gone'", 401},
		{"disabled", "UPDATE bridge.sessions SET provider = 'op'; UPDATE bridge.users SET disabled_at = now()", 401},
		{"a privilege away", "REVOKE SELECT ON bridge.users FROM bridge_runtime", 503},
		{"a column away", "ALTER TABLE bridge.sessions RENAME claims TO x", 503},
		{"the table away", "ALTER TABLE bridge.sessions RENAME TO gone", 503},
	}
	for _, fault := range faults {
		exec(t, s.DB, s.DB.SQL(fault.sql))
		response, body := s.askAuth(cookie, nil, "")
		noIdentity(t, fault.name, response, body)
		var answer map[string]any
		if err := json.Unmarshal([]byte(body), &answer); err != nil || response.StatusCode != fault.want || response.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s", fault.name, response.StatusCode, body)
		}
	}
	bridgetest.Tried(t, len(faults)+1)
}

// TestAttack_FA14_AuthRemembersNothing: no answer depends on an earlier one, for another path, method or host, or from before a change.
func TestAttack_FA14_AuthRemembersNothing(t *testing.T) {
	t.Parallel()
	s := newService(t, withConfig(trusted))
	b, _ := s.login("ada", "/")
	cookie := sessionCookie(t, s, b)
	inputs := 0
	for _, method := range []string{"GET", "POST", "DELETE"} {
		for _, uri := range []string{"/a", "/b", "/a?x=1"} {
			for _, host := range []string{"a.example", "b.example"} {
				for _, test := range originCases(s.URL)[:20] {
					inputs++
					if test.name == "an allowed origin" || test.name == "an allowed origin, old browser" {
						continue
					}
					header := test.header.Clone()
					header.Set("X-Forwarded-Method", method)
					header.Set("X-Forwarded-Uri", uri)
					header.Set("X-Forwarded-Host", host)
					want := test.change || method == "GET" && test.read
					if response, _ := s.askAuth(cookie, header, ""); (response.StatusCode == 200) != want || response.Header.Get("Etag") != "" || response.Header.Get("Cache-Control") != "no-store" {
						t.Errorf("%s %s%s, %s: %d", method, host, uri, test.name, response.StatusCode)
					}
				}
			}
		}
	}
	role := func() any {
		response, _ := s.askAuth(cookie, nil, "")
		if response.StatusCode != 200 {
			return response.StatusCode
		}
		return bearer(t, response.Header)["role"]
	}
	if got := role(); got != s.DB.Role("admin") {
		t.Fatal(got)
	}
	s.changeRules("when: { groups: /admins }", "when: { groups: /owners }")
	s.changeRules("groups: [/admins] }", "groups: [/owners] }")
	bridgetest.Await(t, "the new rules", func() bool { return role() == s.DB.Role("customer") })
	exec(t, s.DB, "UPDATE bridge.users SET disabled_at = now()")
	bridgetest.Await(t, "a refusal", func() bool { return role() == 401 })
	bridgetest.Tried(t, inputs+2)
}
