package bridge_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/deploy"
)

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

var logoutTokens atomic.Int64

// logoutClaims are those of a good logout token of provider op that was not used before; more ones replace them, and nil removes.
func (s *service) logoutClaims(more map[string]any) map[string]any {
	c := map[string]any{
		"iss": s.OP.Issuer(), "aud": "bridge", "iat": s.now().Unix(), "exp": s.now().Unix() + 120, "jti": fmt.Sprint("jti-", logoutTokens.Add(1)),
		"events": map[string]any{logoutEvent: map[string]any{}},
	}
	maps.Copy(c, more)
	maps.DeleteFunc(c, func(_ string, value any) bool { return value == nil })
	return c
}

// logoutToken is signed by the provider.
func (s *service) logoutToken(t *testing.T, header, more map[string]any) string {
	t.Helper()
	token, err := s.OP.Sign(header, s.logoutClaims(more))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A post is what somebody sends to an address, as a provider would.
type post struct {
	to     string // of the bridge; "" is the service's
	path   string // "" is that of provider op
	token  string
	change func(r *http.Request)
}

// sendLogout posts from an address of its own, and holds every answer to Back-Channel Logout 1.0 section 2.8.
func (s *service) sendLogout(t *testing.T, p post) *http.Response {
	t.Helper()
	return s.sendLogoutFrom(t, fromElsewhere(), p)
}

func (s *service) sendLogoutFrom(t *testing.T, transport http.RoundTripper, p post) *http.Response {
	t.Helper()
	if p.to == "" {
		p.to = s.URL
	}
	if p.path == "" {
		p.path = "/backchannel-logout/op"
	}
	r, err := http.NewRequest(http.MethodPost, p.to+p.path, nil)
	if err != nil {
		t.Error(err)
		return &http.Response{}
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	setBody(r, url.Values{"logout_token": {p.token}}.Encode(), true)
	if p.change != nil {
		p.change(r)
	}
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Error(err)
		return &http.Response{}
	}
	text, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.Header.Get("Cache-Control") != "no-store" || len(response.Cookies()) != 0 || response.Header.Get("Location") != "" {
		t.Errorf("%d %v", response.StatusCode, response.Header)
	}
	var answer map[string]string
	switch {
	case response.StatusCode == 200:
		if len(text) != 0 {
			t.Errorf("200 with %s", text)
		}
	case response.StatusCode == 400 && (json.Unmarshal(text, &answer) != nil || len(answer) != 2 || answer["error"] != "invalid_request" || !reference.MatchString(answer["error_description"])),
		response.StatusCode == 503 && (response.Header.Get("Retry-After") == "" || json.Unmarshal(text, &answer) != nil || answer["error"] == ""):
		t.Errorf("%d %v %s", response.StatusCode, response.Header, text)
	}
	if body := string(text); strings.Contains(body, "token refused") || strings.Contains(body, "jti") || strings.Contains(body, "sql") {
		t.Errorf("it tells too much: %s", text)
	}
	return response
}

// refuses sends what must be refused: with the status, and the cause in the log alone. Nothing is written, and nobody is logged out.
func (s *service) refuses(t *testing.T, name string, p post, status int, cause string) {
	t.Helper()
	before := s.sessions(t)
	lines := len(s.Log.Lines())
	if response := s.sendLogout(t, p); response.StatusCode != status {
		t.Errorf("%s: %d, want %d", name, response.StatusCode, status)
	}
	if !slices.ContainsFunc(s.Log.Lines()[lines:], func(line string) bool { return strings.Contains(line, cause) }) {
		t.Errorf("%s: %q is not in %q", name, cause, s.Log.Lines()[lines:])
	}
	if n := s.sessions(t); n != before {
		t.Errorf("%s: %d sessions, %d before", name, n, before)
	}
}

// TestAttack_LO04_BackChannel: a good logout token ends the sessions that it names, at every replica and inside PostgREST, and no others.
func TestAttack_LO04_BackChannel(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	addresses := []string{s.URL, s.replica(t, "auto").url, s.replica(t, "off").url}
	api := bridgetest.NewAPI(t, bridgetest.APIOptions{
		DatabaseURL: s.DB.AuthenticatorURL, AnonRole: s.DB.Role("anonymous"), JWTSecret: jwtSecret, JWTAud: "postgrest", Schema: "api", PreRequest: "bridge.pre_request",
	})
	sql, err := deploy.SQL.ReadFile("sql/orders.sql")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, s.DB, s.DB.SQL(string(sql)))

	// Six sessions; those of Cora are of a provider that sends no sid.
	people := []string{"carl 1", "carl 2", "ada 1", "ada 2", "cora 1", "cora 2"}
	sid := map[string]any{"carl 1": "S-carl-1", "carl 2": "S-carl-2", "ada 1": "S-ada-1", "ada 2": "S-ada-2"}
	type person struct {
		cookie *http.Cookie
		token  string
	}
	logIn := func(t *testing.T) map[string]person {
		t.Helper()
		exec(t, s.DB, "DELETE FROM bridge.sessions")
		s.advance(time.Second) // logins after the logouts before
		all := map[string]person{}
		for _, name := range people {
			s.behave(func(b *bridgetest.Behaviour) {
				b.IDTokenClaims = func(c map[string]any) {
					c["iat"], c["exp"], c["sid"] = s.now().Unix(), s.now().Add(5*time.Minute).Unix(), sid[name]
					if sid[name] == nil {
						delete(c, "sid")
					} else {
						c["sid"] = fmt.Sprint(sid[name], "-", inputs)
					}
				}
			})
			b := newVisitor()
			subject, _, _ := strings.Cut(name, " ")
			s.loginWith(b, subject, "/")
			_, body := s.token(b)
			all[name] = person{sessionCookie(t, s, b), body["token"].(string)}
		}
		return all
	}
	for _, test := range []struct {
		name   string
		header map[string]any
		sub    any
		sid    any // of whose session
		change func(r *http.Request)
		ends   []string
	}{
		{name: "sid", sid: "carl 1", ends: []string{"carl 1"}},
		{name: "sub", sub: "carl", ends: []string{"carl 1", "carl 2"}},
		{name: "both", sub: "carl", sid: "carl 2", ends: []string{"carl 2"}},
		{name: "a sub whose sessions have no sid", sub: "cora", ends: []string{"cora 1", "cora 2"}},
		{name: "both, and the sessions have no sid", sub: "cora", sid: "elsewhere", ends: []string{"cora 1", "cora 2"}},
		{name: "both, and the provider says that the session is somebody else's", sub: "cora", sid: "ada 1", ends: []string{"ada 1", "cora 1", "cora 2"}},
		{name: "a session that is not here", sid: "elsewhere"},
		{name: "a subject that is not here", sub: "leo"},
		{name: "both, not here", sub: "leo", sid: "elsewhere"},
		{name: "a subject in other letters", sub: "CARL"},
		{name: "a subject with a wildcard", sub: "%"},
		{name: "a sid that is a subject", sid: "carl"},
		{name: "no typ", header: map[string]any{"typ": nil}, sid: "ada 1", ends: []string{"ada 1"}},
		{name: "typ JWT", header: map[string]any{"typ": "JWT"}, sid: "ada 2", ends: []string{"ada 2"}},
		{name: "typ logout+jwt", header: map[string]any{"typ": "logout+jwt"}, sid: "ada 2", ends: []string{"ada 2"}},
		{name: "content type with charset", sid: "ada 2", change: func(r *http.Request) {
			r.Header.Set("Content-Type", "Application/X-WWW-Form-URLencoded; charset=UTF-8")
		}, ends: []string{"ada 2"}},
		{name: "more parameters", sid: "ada 2", change: func(r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			setBody(r, "a=b&state=x&"+string(body)+"&iss=y", true)
		}, ends: []string{"ada 2"}},
		{name: "in chunks", sid: "ada 2", change: func(r *http.Request) { r.ContentLength = -1 }, ends: []string{"ada 2"}},
		{name: "from a browser of another site", sid: "ada 2", change: func(r *http.Request) {
			r.Header.Set("Origin", "https://evil.example")
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}, ends: []string{"ada 2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := logIn(t)
			more := map[string]any{"sub": test.sub}
			if test.sid != nil {
				more["sid"] = test.sid
				if own, ok := sid[fmt.Sprint(test.sid)]; ok {
					more["sid"] = fmt.Sprint(own, "-", inputs)
				}
			}
			events := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.events WHERE kind = 'logout'")
			counted := s.metric(t, `oidc_bridge_logouts_total{from="provider",provider="op"}`)
			asked := addresses[inputs%3]
			inputs++
			if response := s.sendLogout(t, post{to: asked, token: s.logoutToken(t, test.header, more), change: test.change}); response.StatusCode != 200 {
				t.Errorf("%d %v", response.StatusCode, s.Log.Lines())
			}
			for _, name := range people {
				want, inAPI := 200, 200
				if slices.Contains(test.ends, name) {
					want, inAPI = 401, 401
				}
				for _, address := range append([]string{asked}, addresses...) {
					// A replica that answers from memory hears of it within a second (product.md).
					if address != asked && want == 401 {
						bridgetest.Await(t, "the other replicas to hear of it", func() bool { return s.statusAt(t, address, all[name].cookie) == want })
					} else if got := s.statusAt(t, address, all[name].cookie); got != want {
						t.Errorf("%s at %s: %d, want %d", name, address, got, want)
					}
				}
				if got, _ := fetchOrders(t, api.URL(), all[name].token); got != inAPI {
					t.Errorf("%s in PostgREST: %d, want %d", name, got, inAPI)
				}
			}
			if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.events WHERE kind = 'logout'") - events; n != len(test.ends) {
				t.Errorf("%d events", n)
			}
			if len(test.ends) > 0 {
				subject, _, _ := strings.Cut(test.ends[0], " ")
				if got := row[string](t, s.DB, "SELECT string_agg(DISTINCT concat_ws(' ', provider, issuer, reason, subject), ',') FROM bridge.events WHERE kind = 'logout' AND id > $1 AND subject = $2", events, subject); got != "op "+s.OP.Issuer()+" back-channel logout by provider op "+subject {
					t.Errorf("events: %s", got)
				}
			}
			if asked == s.URL && len(test.ends) > 0 && s.metric(t, `oidc_bridge_logouts_total{from="provider",provider="op"}`) == counted {
				t.Errorf("still %s logouts counted", counted)
			}
		})
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_LO05_Forged: a token that the provider did not make, or not for us and for this, ends nothing.
func TestAttack_LO05_Forged(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	s.login("carl", "/")
	carl := map[string]any{"sub": "carl"}
	evil := bridgetest.NewOP(t, bridgetest.OPOptions{})
	// by makes a token whose header and payload are right, signed with any key.
	by := func(key any, header, claims map[string]any) string {
		token, err := bridgetest.SignJWT(key, header, claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := s.logoutToken(t, nil, carl)
	parts := strings.Split(good, ".")
	none := func(alg string) string { return encode([]byte(`{"alg":"`+alg+`"}`)) + "." + parts[1] + "." }
	header := map[string]any{"alg": "RS256", "kid": s.OP.KeyID("RS256"), "typ": "logout+jwt"}
	public := s.OP.KeySet()
	tokens := map[string]string{
		"alg none": none("none"), "alg None": none("None"), "alg NONE": none("NONE"), "alg empty": none(""), "alg none with the signature": none("none") + parts[2],
		"no signature": parts[0] + "." + parts[1] + ".", "signature cut": good[:len(good)-4], "signature of zeros": parts[0] + "." + parts[1] + "." + encode(make([]byte, 256)),
		"another's signature":    parts[0] + "." + parts[1] + "." + strings.Split(s.logoutToken(t, nil, carl), ".")[2],
		"HS256 with the secret":  by([]byte(clientSecret), map[string]any{"alg": "HS256"}, s.logoutClaims(carl)),
		"HS256 with the key set": by(public, map[string]any{"alg": "HS256"}, s.logoutClaims(carl)),
		"HS256 with our secret":  by([]byte(jwtSecret), map[string]any{"alg": "HS256"}, s.logoutClaims(carl)),
		"another provider's key": by(evil.Key("RS256"), header, s.logoutClaims(carl)),
		"its key in the header": by(evil.Key("RS256"), map[string]any{"alg": "RS256", "kid": s.OP.KeyID("RS256"), "jwk": json.RawMessage(firstKey(t, evil.KeySet()))},
			s.logoutClaims(carl)),
		"its key set by URL": by(evil.Key("RS256"), map[string]any{"alg": "RS256", "kid": evil.KeyID("RS256"), "jku": evil.Issuer() + "/jwks"}, s.logoutClaims(carl)),
	}
	for _, alg := range []string{"RS512", "PS256", "ES256", "EdDSA"} { // published and advertised, not pinned
		tokens["signed with "+alg] = s.logoutToken(t, map[string]any{"alg": alg, "kid": s.OP.KeyID(alg)}, carl)
	}
	for name, value := range map[string]any{
		"iss absent": nil, "iss of another": evil.Issuer(), "iss with a slash": s.OP.Issuer() + "/", "iss in capitals": strings.ToUpper(s.OP.Issuer()), "iss in a list": []string{s.OP.Issuer()}, "iss of ours": s.URL,
	} {
		tokens[name] = s.logoutToken(t, nil, map[string]any{"sub": "carl", "iss": value})
	}
	for name, value := range map[string]any{
		"aud absent": nil, "aud of another": "other", "aud empty": "", "aud an empty list": []string{}, "aud ours and another": []string{"bridge", "other"}, "aud in capitals": "BRIDGE", "aud of ours": s.URL, "aud a number": 1,
	} {
		tokens[name] = s.logoutToken(t, nil, map[string]any{"sub": "carl", "aud": value})
	}
	for name, value := range map[string]any{
		"no events": nil, "no event in them": map[string]any{}, "another event": map[string]any{"http://schemas.openid.net/event/frontchannel-logout": map[string]any{}},
		"an event of RISC": map[string]any{"https://schemas.openid.net/secevent/risc/event-type/sessions-revoked": map[string]any{}}, "event in capitals": map[string]any{strings.ToUpper(logoutEvent): map[string]any{}},
		"event with a slash": map[string]any{logoutEvent + "/": map[string]any{}}, "events a text": logoutEvent, "events a list": []any{map[string]any{logoutEvent: map[string]any{}}},
	} {
		tokens[name] = s.logoutToken(t, nil, map[string]any{"sub": "carl", "events": value})
	}
	for name, value := range map[string]any{"a nonce": "n", "an empty nonce": "", "a nonce that is a number": 0, "a nonce that is false": false} {
		tokens[name] = s.logoutToken(t, nil, map[string]any{"sub": "carl", "nonce": value})
	}
	tokens["azp of another"] = s.logoutToken(t, nil, map[string]any{"sub": "carl", "azp": "other"})
	tokens["a nonce that is null"] = s.signedText(t, strings.Replace(decoded(good, 1), "{", `{"nonce":null,`, 1))
	tokens["sub twice"] = s.signedText(t, strings.Replace(decoded(good, 1), "{", `{"sub":"ada",`, 1))
	for name, text := range map[string]string{"empty": "", "a word": "x", "two parts": parts[0] + "." + parts[1], "five parts": good + ".a.b", "JSON": `{"payload":"` + parts[1] + `"}`, "white space": good + " ", "a line break": good[:40] + "\n" + good[40:]} {
		tokens[name] = text
	}
	for name, token := range tokens {
		inputs++
		s.refuses(t, name, post{token: token}, 400, "token refused: ")
	}
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.provider_logouts"); n != 0 {
		t.Errorf("%d rows remember bad tokens", n)
	}
	if got := s.metric(t, `oidc_bridge_refusals_total{reason="logout_token"}`); got != fmt.Sprint(inputs) {
		t.Errorf("%s refusals counted", got)
	}
	if response := s.sendLogout(t, post{token: good}); response.StatusCode != 200 || s.sessions(t) != 0 {
		t.Errorf("control: %d, %d sessions", response.StatusCode, s.sessions(t))
	}
	bridgetest.Tried(t, inputs)
}

// signedText signs a payload as it is.
func (s *service) signedText(t *testing.T, payload string) string {
	t.Helper()
	token, err := bridgetest.SignJWT(s.OP.Key("RS256"), []byte(`{"alg":"RS256","kid":"`+s.OP.KeyID("RS256")+`"}`), []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func firstKey(t *testing.T, set []byte) []byte {
	t.Helper()
	var keys struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(set, &keys); err != nil {
		t.Fatal(err)
	}
	return keys.Keys[0]
}

// statusAt is what /api_token answers the cookie at one of several bridges.
func (s *service) statusAt(t *testing.T, address string, cookie *http.Cookie) int {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, address+"/api_token", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.AddCookie(cookie)
	return do(t, r).StatusCode
}

// at is a transport with this address, below 127/8.
func at(last byte) *http.Transport {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 200, 0, last)}}
	return &http.Transport{DialContext: dialer.DialContext}
}
