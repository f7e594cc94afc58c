package bridge_test

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestAttack_LO06_WeakClaimsAndReplay: a logout token is good for some minutes, and once.
func TestAttack_LO06_WeakClaimsAndReplay(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	s.behave(nil)
	s.login("carl", "/")
	now := time.Now().Unix()
	for name, change := range map[string]map[string]any{
		"iat absent": {"iat": nil}, "iat a text": {"iat": fmt.Sprint(now)}, "iat a fraction": {"iat": float64(now) + 0.5}, "iat in milliseconds": {"iat": now * 1000}, "iat negative": {"iat": -now}, "iat zero": {"iat": 0},
		"iat an hour ago": {"iat": now - 3600, "exp": now - 3000}, "iat twelve minutes ago, just good": {"iat": now - 720, "exp": now + 60}, "iat ahead": {"iat": now + 120, "exp": now + 240}, "iat a year ahead": {"iat": now + 365*86400, "exp": now + 365*86400 + 60},
		"exp absent": {"exp": nil}, "exp a text": {"exp": fmt.Sprint(now + 60)}, "exp past": {"iat": now - 300, "exp": now - 120}, "exp in eleven minutes": {"exp": now + 660}, "exp in ten years": {"exp": now + 10*365*86400},
		"exp endless": {"exp": 1e18}, "exp before iat": {"iat": now + 30, "exp": now + 20}, "exp is iat": {"iat": now, "exp": now},
		"nbf ahead": {"nbf": now + 300}, "nbf a text": {"nbf": "now"},
		"jti absent": {"jti": nil}, "jti empty": {"jti": ""}, "jti a number": {"jti": 7}, "jti a list": {"jti": []string{"a"}}, "jti of 256 bytes": {"jti": strings.Repeat("j", 256)}, "jti with NUL": {"jti": "a\x00b"}, "jti of white space": {"jti": " "},
		"event a text": {"events": map[string]any{logoutEvent: ""}}, "event true": {"events": map[string]any{logoutEvent: true}}, "event a list": {"events": map[string]any{logoutEvent: []any{}}}, "event a number": {"events": map[string]any{logoutEvent: 1}},
		"neither sub nor sid": {"sub": nil}, "sub empty": {"sub": ""}, "sub a number": {"sub": 1}, "sub an object": {"sub": map[string]any{"sub": "carl"}}, "sub with NUL": {"sub": "carl\x00"}, "sub and a line break": {"sub": "carl\n"},
		"sub of 256 bytes": {"sub": strings.Repeat("c", 256)}, "sid empty": {"sid": ""}, "sid a number": {"sid": 1}, "sid a list": {"sid": []string{"S"}}, "sid with NUL": {"sid": "S\x00"}, "sid false beside a sub": {"sid": false}, "a sid that is good, a sub that is not": {"sid": "S", "sub": 1},
	} {
		inputs++
		more := map[string]any{"sub": "carl"}
		for claim, value := range change {
			more[claim] = value
		}
		s.refuses(t, name, post{token: s.logoutToken(t, nil, more)}, 400, "token refused: ")
	}
	for name, member := range map[string]string{"iat null": "iat", "exp null": "exp", "jti null": "jti", "sub null": "sub"} {
		inputs++
		token := s.logoutToken(t, nil, map[string]any{"sub": "carl", member: nil})
		s.refuses(t, name, post{token: s.signedText(t, strings.Replace(decoded(token, 1), "{", `{"`+member+`":null,`, 1))}, 400, "token refused: ")
	}
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.provider_logouts"); n != 0 {
		t.Errorf("%d rows remember bad tokens", n)
	}

	const used = "its jti was used before"
	token := s.logoutToken(t, nil, map[string]any{"sub": "carl"})
	if response := s.sendLogout(t, post{token: token}); response.StatusCode != 200 || s.sessions(t) != 0 {
		t.Fatalf("control: %d, %d sessions", response.StatusCode, s.sessions(t))
	}
	s.advance(2 * time.Second)
	s.login("carl", "/") // again, and the old token must not end that
	again := s.replica(t, "auto").url
	inputs += 4
	s.refuses(t, "again", post{token: token}, 400, used)
	s.refuses(t, "again, at a bridge that was started since", post{to: again, token: token}, 400, used)
	jti := claims(t, token)["jti"]
	s.refuses(t, "another token with its jti", post{token: s.logoutToken(t, nil, map[string]any{"sub": "carl", "sid": "S", "jti": jti})}, 400, used)
	s.advance(179 * time.Second)
	s.refuses(t, "as long as it lives", post{token: token}, 400, "")
	// Housekeeping may forget it when nobody would take it any more, and a login under way has ended.
	if early := row[bool](t, s.DB, "SELECT bool_or(expires_at < $1) FROM bridge.provider_logouts", s.now().Add(7*time.Minute)); early {
		t.Error("it will be forgotten early")
	}
	s.advance(9 * time.Minute)
	query(t, s.DB, "SELECT bridge.sweep($1, $1, 1000)", s.now())
	inputs++
	s.refuses(t, "forgotten", post{token: token}, 400, "token refused: exp")
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.provider_logouts"); n != 0 {
		t.Errorf("%d rows left", n)
	}

	// Fifty at once, over three replicas: one of them counts, whatever they name.
	addresses := []string{s.URL, s.replica(t, "off").url, again}
	for name, more := range map[string]map[string]any{"sub": {"sub": "carl"}, "sid": {"sid": "S"}, "both": {"sub": "carl", "sid": "S"}} {
		s.advance(2 * time.Second)
		s.behave(func(b *bridgetest.Behaviour) {
			b.IDTokenClaims = func(c map[string]any) { c["iat"], c["exp"], c["sid"] = s.now().Unix(), s.now().Unix()+300, "S" }
			if name == "sub" {
				b.IDTokenClaims = func(c map[string]any) { c["iat"], c["exp"] = s.now().Unix(), s.now().Unix()+300; delete(c, "sid") }
			}
		})
		exec(t, s.DB, "DELETE FROM bridge.sessions; DELETE FROM bridge.provider_logouts")
		s.login("carl", "/")
		s.login("carl", "/")
		events := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.events WHERE kind = 'logout'")
		token := s.logoutToken(t, nil, more)
		var good, bad atomic.Int32
		var group sync.WaitGroup
		for i := range 50 {
			inputs++
			group.Go(func() {
				switch s.sendLogout(t, post{to: addresses[i%3], token: token}).StatusCode {
				case 200:
					good.Add(1)
				case 400:
					bad.Add(1)
				}
			})
		}
		group.Wait()
		if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.events WHERE kind = 'logout'") - events; good.Load() != 1 || bad.Load() != 49 || s.sessions(t) != 0 || n != 2 {
			t.Errorf("%s: %d good, %d bad, %d sessions left, %d events", name, good.Load(), bad.Load(), s.sessions(t), n)
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_LO07_CrossJWT: no other token of the provider, and none of ours, is a logout token.
func TestAttack_LO07_CrossJWT(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	idToken := s.issued(nil)
	b, _ := s.login("carl", "/")
	_, body := s.token(b)
	event := map[string]any{logoutEvent: map[string]any{}}
	now := time.Now().Unix()
	sign := func(header, claims map[string]any) string {
		token, err := s.OP.Sign(header, claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	tokens := map[string]string{
		"the ID token of the login": idToken(),
		"an access token of ours":   body["token"].(string),
		"an access token, JWT profile": sign(map[string]any{"typ": "at+jwt"}, map[string]any{
			"iss": s.OP.Issuer(), "sub": "carl", "aud": "bridge", "client_id": "bridge", "iat": now, "exp": now + 300, "jti": "a1", "sid": "S",
		}),
		"an access token of Keycloak's": sign(nil, map[string]any{"iss": s.OP.Issuer(), "sub": "carl", "aud": "account", "azp": "bridge", "typ": "Bearer", "iat": now, "exp": now + 300, "jti": "a2", "sid": "S"}),
		"an ID token with the event":    sign(nil, s.logoutClaims(map[string]any{"sub": "carl", "nonce": "n", "at_hash": "x"})),
	}
	for _, typ := range []string{
		"at+jwt", "application/at+jwt", "secevent+jwt", "token-introspection+jwt", "dpop+jwt", "oauth-authz-req+jwt", "JOSE", "JWS", "logout", "logout+JWT2", "application/", " logout+jwt", "application/application/logout+jwt", "text/logout+jwt",
	} {
		tokens["typ "+typ] = s.logoutToken(t, map[string]any{"typ": typ}, map[string]any{"sub": "carl"})
	}
	for _, typ := range []any{"", 1, true, []string{"logout+jwt"}, map[string]any{}} {
		tokens[fmt.Sprintf("typ %#v", typ)] = s.logoutToken(t, map[string]any{"typ": typ}, map[string]any{"sub": "carl"})
	}
	for _, typ := range []any{"ID", "Bearer", "Refresh", "Offline", "Serialized-ID", "", 1, []string{"Logout"}} { // Keycloak's claim
		tokens[fmt.Sprintf("claim typ %#v", typ)] = s.logoutToken(t, nil, map[string]any{"sub": "carl", "typ": typ})
	}
	for _, cty := range []string{"JWT", "logout+jwt"} {
		tokens["nested, cty "+cty] = s.logoutToken(t, map[string]any{"cty": cty}, map[string]any{"sub": "carl"})
	}
	tokens["the event in an access token"] = sign(map[string]any{"typ": "at+jwt"}, map[string]any{"iss": s.OP.Issuer(), "sub": "carl", "aud": "bridge", "iat": now, "exp": now + 300, "jti": "a3", "events": event})
	for name, token := range tokens {
		inputs++
		s.refuses(t, name, post{token: token}, 400, "token refused: ")
	}
	for _, typ := range []any{nil, "JWT", "jwt", "application/jwt", "logout+jwt", "LOGOUT+JWT", "application/logout+jwt"} {
		inputs++
		if response := s.sendLogout(t, post{token: s.logoutToken(t, map[string]any{"typ": typ}, map[string]any{"sub": "leo"})}); response.StatusCode != 200 {
			t.Errorf("typ %v: %d", typ, response.StatusCode)
		}
	}

	strict := newService(t, withProvider("require_logout_typ: true"))
	strict.login("carl", "/")
	for _, typ := range []any{nil, "JWT", "jwt", "application/jwt", "at+jwt", ""} {
		inputs++
		strict.refuses(t, fmt.Sprintf("required, typ %v", typ), post{token: strict.logoutToken(t, map[string]any{"typ": typ}, map[string]any{"sub": "carl"})}, 400, "token refused: typ")
	}
	for _, typ := range []string{"logout+jwt", "Logout+JWT", "application/logout+jwt"} {
		inputs++
		if response := strict.sendLogout(t, post{token: strict.logoutToken(t, map[string]any{"typ": typ}, map[string]any{"sub": "carl"})}); response.StatusCode != 200 || strict.sessions(t) != 0 {
			t.Errorf("required, typ %v: %d", typ, response.StatusCode)
		}
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_LO08_CrossProvider: what one provider says about a subject or a session counts for its own people only.
func TestAttack_LO08_CrossProvider(t *testing.T) {
	t.Parallel()
	inputs := 0
	evil := bridgetest.NewOP(t, bridgetest.OPOptions{})
	s := newService(t, withOther(evil))
	s.knows(evil)
	same := func(b *bridgetest.Behaviour) {
		b.IDTokenClaims = func(c map[string]any) { c["sid"] = "S" }
	}
	s.OP.Set(same)
	evil.Set(same)
	b := newVisitor()
	page := open(t, b, s.URL+"/login/op?return_to=/")
	if _, err := b.ChoosePersona(t.Context(), page, "carl"); err != nil {
		t.Fatal(err)
	}
	names := []map[string]any{{"sub": "carl"}, {"sid": "S"}, {"sub": "carl", "sid": "S"}}
	for _, named := range names {
		token, err := evil.Sign(nil, s.logoutClaims(map[string]any{"iss": evil.Issuer(), "sub": named["sub"], "sid": named["sid"]}))
		if err != nil {
			t.Fatal(err)
		}
		inputs += 3
		s.refuses(t, "its token at our provider's address", post{token: token}, 400, "token refused: ")
		if response := s.sendLogout(t, post{path: "/backchannel-logout/other", token: token}); response.StatusCode != 200 || s.sessions(t) != 1 {
			t.Errorf("at its own address: %d, %d sessions", response.StatusCode, s.sessions(t))
		}
		s.refuses(t, "our provider's token at its address", post{path: "/backchannel-logout/other", token: s.logoutToken(t, nil, named)}, 400, "token refused: ")
	}
	for _, path := range []string{"/backchannel-logout/nobody", "/backchannel-logout/OP", "/backchannel-logout/op%2f..%2fother", "/backchannel-logout/%00"} {
		inputs++
		s.refuses(t, path, post{path: path, token: s.logoutToken(t, nil, names[0])}, 404, "")
	}
	// Nor do its logouts keep anybody of ours from logging in.
	again := newVisitor()
	if _, err := again.ChoosePersona(t.Context(), open(t, again, s.URL+"/login/op?return_to=/"), "carl"); err != nil {
		t.Fatal(err)
	}
	if n := s.sessions(t); n != 2 {
		t.Errorf("%d sessions", n)
	}
	// The same jti at two providers is two tokens.
	for provider, op := range map[string]*bridgetest.OP{"op": s.OP, "other": evil} {
		inputs++
		token, err := op.Sign(nil, s.logoutClaims(map[string]any{"iss": op.Issuer(), "sub": "carl", "jti": "same"}))
		if err != nil {
			t.Fatal(err)
		}
		if response := s.sendLogout(t, post{path: "/backchannel-logout/" + provider, token: token}); response.StatusCode != 200 {
			t.Errorf("%s: %d", provider, response.StatusCode)
		}
	}
	if n := s.sessions(t); n != 0 {
		t.Errorf("control: %d sessions", n)
	}
	bridgetest.Tried(t, inputs)
}

// TestAttack_LO09_FloodAndMalformedBodies: strangers can make the address do next to nothing, and do not keep the provider from it.
func TestAttack_LO09_FloodAndMalformedBodies(t *testing.T) {
	t.Parallel()
	inputs := 0
	var counts *bridgetest.Counts
	s := newService(t, withCounts(t, &counts))
	s.behave(nil)
	s.login("carl", "/")
	counts.Reset()
	body := func(text, kind string) func(*http.Request) {
		return func(r *http.Request) {
			setBody(r, text, true)
			r.Header.Set("Content-Type", kind)
		}
	}
	const form = "application/x-www-form-urlencoded"
	good := func() string { return s.logoutToken(t, nil, map[string]any{"sub": "carl"}) }
	var parts bytes.Buffer
	multi := multipart.NewWriter(&parts)
	_ = multi.WriteField("logout_token", good())
	_ = multi.Close()
	for name, test := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"JSON":                        {body(`{"logout_token":"`+good()+`"}`, "application/json"), 400},
		"JSON that says it is a form": {body(`{"logout_token":"`+good()+`"}`, form), 400},
		"multipart":                   {body(parts.String(), multi.FormDataContentType()), 400},
		"plain text":                  {body("logout_token="+good(), "text/plain"), 400},
		"no content type":             {body("logout_token="+good(), ""), 400},
		"a broken content type":       {body("logout_token="+good(), form+"; charset"), 400},
		"two content types":           {body("logout_token="+good(), form+", text/plain"), 400},
		"the token itself":            {body(good(), form), 400},
		"another kind of JWT":         {body(good(), "application/logout+jwt"), 400},
		"twice the same":              {body("logout_token="+good()+"&logout_token="+good(), form), 400},
		"a good one and an empty":     {body("logout_token="+good()+"&logout_token=", form), 400},
		"in capitals":                 {body("LOGOUT_TOKEN="+good(), form), 400},
		"an array":                    {body("logout_token[]="+good(), form), 400},
		"an empty one":                {body("logout_token=", form), 400},
		"a name alone":                {body("logout_token", form), 400},
		"nothing":                     {body("", form), 400},
		"a broken escape":             {body("logout_token="+good()+"&x=%zz", form), 400},
		"semicolons":                  {body("logout_token="+good()+";x=y", form), 400},
		"in the query": {func(r *http.Request) {
			r.URL.RawQuery = "logout_token=" + good()
			setBody(r, "", true)
		}, 400},
		"too large":            {body("logout_token="+strings.Repeat("x", 70<<10), form), 413},
		"ten megabytes":        {body("x="+strings.Repeat("x", 10<<20)+"&logout_token="+good(), form), 413},
		"a long one":           {body("logout_token="+strings.Repeat("x", 60<<10), form), 400},
		"compressed, it says":  {func(r *http.Request) { setBody(r, "\x1f\x8b\x08\x00", true); r.Header.Set("Content-Encoding", "gzip") }, 400},
		"a form of many parts": {body(strings.Repeat("a=b&", 15<<10), form), 400},
	} {
		inputs++
		cause := "logout request is not good"
		if test.status == 413 {
			cause = "request is too large"
		}
		s.refuses(t, name, post{change: test.change}, test.status, cause)
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
		inputs++
		r, _ := http.NewRequest(method, s.URL+"/backchannel-logout/op?logout_token="+good(), nil)
		response, err := fromElsewhere().RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 405 || response.Header.Get("Allow") != "POST" || response.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", method, response.StatusCode, response.Header)
		}
	}
	if n := counts.RoundTrips(); n != 0 {
		t.Errorf("%d round trips to the database for bad requests", n)
	}

	// A thousand tokens by unknown keys from one address, as fast as they come.
	s.OP.ForgetRequests()
	forged := s.logoutToken(t, map[string]any{"kid": "unknown"}, map[string]any{"sub": "carl"})
	stranger := at(1)
	var bad, stopped atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 125 {
				switch s.sendLogoutFrom(t, stranger, post{token: forged}).StatusCode {
				case 400:
					bad.Add(1)
				case 429:
					stopped.Add(1)
				}
			}
		})
	}
	group.Wait()
	inputs += 1000
	if n := s.OP.Calls("jwks"); bad.Load()+stopped.Load() != 1000 || bad.Load() < 120 || bad.Load() > 400 || n > 1 || counts.RoundTrips() != 0 {
		t.Errorf("%d refused, %d not listened to, %d key sets fetched, %d round trips to the database", bad.Load(), stopped.Load(), n, counts.RoundTrips())
	}
	// The address is heard again after a while, and nobody else noticed: neither the provider nor people who log in or out.
	if got := s.sendLogoutFrom(t, stranger, post{token: good()}).StatusCode; got != 429 {
		t.Errorf("the stranger got %d", got)
	}
	s.sendLogoutFrom(t, at(2), post{token: s.logoutToken(t, nil, map[string]any{"sub": "nobody"})}) // its statements are prepared now
	counts.Reset()
	for range 300 { // good ones are not counted
		if got := s.sendLogoutFrom(t, at(2), post{token: s.logoutToken(t, nil, map[string]any{"sub": "nobody"})}).StatusCode; got != 200 {
			t.Fatalf("the provider got %d", got)
		}
	}
	if got := s.sendLogoutFrom(t, at(2), post{token: good()}).StatusCode; got != 200 || s.sessions(t) != 0 {
		t.Errorf("the provider got %d, %d sessions", got, s.sessions(t))
	}
	if n := counts.RoundTrips(); n != 301 {
		t.Errorf("%d round trips for 301 good tokens", n)
	}
	bridgetest.Tried(t, inputs)
}

// TestFault_F01_LogoutWithoutDatabase: a logout token that could not be written down is the provider's to send again.
func TestFault_F01_LogoutWithoutDatabase(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	proxy := bridgetest.NewCountingProxy(t, db.URL)
	s := newService(t, withDatabase(db), withDatabaseURL(func(*bridgetest.Database) string { return proxy.URL() }))
	s.login("carl", "/")
	token := s.logoutToken(t, nil, map[string]any{"sub": "carl"})
	proxy.Cut()
	from := at(3)
	for range 150 { // they are not the provider's failures
		if got := s.sendLogoutFrom(t, from, post{token: token}).StatusCode; got != 503 {
			t.Fatalf("without database: %d", got)
		}
	}
	proxy.Mend()
	if got := s.sendLogoutFrom(t, from, post{token: token}).StatusCode; got != 200 || s.sessions(t) != 0 {
		t.Errorf("with it: %d, %d sessions", got, s.sessions(t))
	}
}

// TestFault_F15_LogoutWithoutKeys: while the provider's keys cannot be had, nobody can tell whether a token is good.
func TestFault_F15_LogoutWithoutKeys(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.login("carl", "/")
	other := s.replica(t, "auto").url // has not seen the provider yet
	token := s.logoutToken(t, nil, map[string]any{"sub": "carl"})
	if err := s.OP.Close(); err != nil {
		t.Fatal(err)
	}
	if got := s.sendLogout(t, post{to: other, token: token}).StatusCode; got != 503 || s.sessions(t) != 1 {
		t.Errorf("without provider: %d, %d sessions", got, s.sessions(t))
	}
	if err := s.OP.Restart(); err != nil {
		t.Fatal(err)
	}
	s.advance(3 * time.Second)
	if got := s.sendLogout(t, post{to: other, token: token}).StatusCode; got != 200 || s.sessions(t) != 0 {
		t.Errorf("with it: %d, %d sessions", got, s.sessions(t))
	}
}
