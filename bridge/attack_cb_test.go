package bridge_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// waiting is a login of Carl's that waits at its callback.
func (s *service) waiting(t *testing.T, b *bridgetest.Browser) *url.URL {
	t.Helper()
	page, err := b.Open(t.Context(), s.URL+"/login/op?return_to=/orders")
	if err != nil {
		t.Fatal(err)
	}
	callback, err := url.Parse(s.callback(b, page, "carl"))
	if err != nil {
		t.Fatal(err)
	}
	s.OP.ForgetRequests()
	return callback
}

// open opens a URL.
func open(t *testing.T, b *bridgetest.Browser, target string) *bridgetest.Page {
	t.Helper()
	page, err := b.Open(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// stopped checks that a callback got nowhere: a page with the status and a code, no session, nothing asked at the provider.
func (s *service) stopped(t *testing.T, page *bridgetest.Page, status int, cause string) {
	t.Helper()
	if page.Status != status || !strings.Contains(s.logged(page), cause) {
		t.Errorf("%d %s, want %d with %q in the log: %s", page.Status, page.Text(), status, cause, s.logged(page))
	}
	for _, c := range page.Header.Values("Set-Cookie") {
		if strings.HasPrefix(c, "session-") {
			t.Errorf("a session: %s", c)
		}
	}
	for _, endpoint := range []string{"token", "userinfo", "jwks"} {
		if n := s.OP.Calls(endpoint); n != 0 {
			t.Errorf("%d calls of %s", n, endpoint)
		}
	}
	if n := s.rows(t); n != 0 {
		t.Errorf("%d rows in users and sessions", n)
	}
}

// through asks the provider's real endpoint in the name of a request that a Handle hook has taken over.
func through(t *testing.T, r *http.Request) []byte {
	t.Helper()
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.Path, strings.NewReader(r.PostForm.Encode()))
	if err != nil {
		t.Error(err)
		return nil
	}
	again.Header = r.Header.Clone()
	again.Header.Set("X-Through", "1")
	answer, err := http.DefaultTransport.RoundTrip(again)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer answer.Body.Close()
	good, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 200 {
		t.Errorf("%d %s %v", answer.StatusCode, good, err)
	}
	return good
}

// tokenAnswer replaces the token endpoint's answer; change gets the good one.
func tokenAnswer(t *testing.T, change func(w http.ResponseWriter, good string)) func(*bridgetest.Behaviour) {
	return func(b *bridgetest.Behaviour) {
		b.Handle["token"] = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("X-Through") != "" {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			change(w, strings.TrimSpace(string(through(t, r))))
			return true
		}
	}
}

func TestAttack_CB01_State(t *testing.T) {
	t.Parallel()
	s := newService(t)
	state := func(f func(state string) string) func(url.Values) {
		return func(q url.Values) { q.Set("state", f(q.Get("state"))) }
	}
	flip := func(at int) func(url.Values) {
		return state(func(v string) string {
			b, _ := base64.RawURLEncoding.DecodeString(v)
			b[at] ^= 1
			return encode(b)
		})
	}
	is := func(text string) func(url.Values) { return state(func(string) string { return text }) }
	for name, change := range map[string]func(url.Values){
		"missing": func(q url.Values) { q.Del("state") }, "empty": is(""), "blank": is(" "), "unknown": is(strings.Repeat("A", 43)), "one letter": is("x"),
		"first bit": flip(0), "last bit": flip(31), "short": state(func(v string) string { return v[:42] }), "long": state(func(v string) string { return v + "A" }),
		"padded": state(func(v string) string { return v + "=" }), "blank behind": state(func(v string) string { return v + " " }),
		"NUL behind": state(func(v string) string { return v + "\x00" }), "line break behind": state(func(v string) string { return v + "\r\nSet-Cookie: x=1" }),
		"upper case": state(strings.ToUpper), "twice in one": state(func(v string) string { return v + v }), "128 bytes": is(strings.Repeat("s", 128)),
		"129 bytes": is(strings.Repeat("s", 129)), "7 KB": is(strings.Repeat("s", 7<<10)), "null": is("null"), "undefined": is("undefined"), "zero": is("0"), "star": is("*"),
		"SQL": is("' OR 1=1--"), "JSON": is(`{"$ne":null}`), "path": is("../../x"), "quotes": is(`"`), "unicode": is("ſtate\u2028"), "not UTF-8": is("\xff\xfe"),
		"the nonce": state(func(string) string { return s.OP.Requests("authorize")[0].Form.Get("nonce") }),
	} {
		t.Run(name, func(t *testing.T) {
			b := newVisitor()
			s.OP.ForgetRequests()
			page, _ := s.start(b)
			good := s.callback(b, page, "carl")
			callback, _ := url.Parse(good)
			query := callback.Query()
			change(query)
			callback.RawQuery = query.Encode()
			s.stopped(t, open(t, b, callback.String()), 400, "login state")
			if page := open(t, b, good); page.URL.Path != "/" { // nothing was consumed
				t.Errorf("the good callback afterwards: %d %s", page.Status, page.Text())
			}
			exec(t, s.DB, "TRUNCATE bridge.users CASCADE")
		})
	}
	// The cookie that belongs to the state.
	value := func(f func(b []byte) []byte) func(*testing.T, *http.Cookie) {
		return func(t *testing.T, c *http.Cookie) {
			b, err := base64.RawURLEncoding.DecodeString(c.Value)
			if err != nil {
				t.Fatal(err)
			}
			c.Value = encode(f(b))
		}
	}
	for name, change := range map[string]func(*testing.T, *http.Cookie){
		"first bit":       value(func(b []byte) []byte { b[0] ^= 1; return b }),
		"a bit inside":    value(func(b []byte) []byte { b[40] ^= 0x80; return b }),
		"last bit":        value(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }),
		"truncated":       value(func(b []byte) []byte { return b[:len(b)-1] }),
		"longer":          value(func(b []byte) []byte { return append(b, 0) }),
		"nonce alone":     value(func(b []byte) []byte { return b[:12] }),
		"eleven bytes":    value(func(b []byte) []byte { return b[:11] }),
		"zeros":           value(func(b []byte) []byte { return make([]byte, len(b)) }),
		"plain JSON":      value(func([]byte) []byte { return []byte(`{"s":"x","p":"op"}`) }),
		"empty":           func(_ *testing.T, c *http.Cookie) { c.Value = "" },
		"no base64url":    func(_ *testing.T, c *http.Cookie) { c.Value = "!!!!" },
		"padded":          func(_ *testing.T, c *http.Cookie) { c.Value += "=" },
		"of another name": func(_ *testing.T, c *http.Cookie) { c.Name += "0" },
		"upper-case name": func(_ *testing.T, c *http.Cookie) { c.Name = strings.ToUpper(c.Name) },
		"4 KB":            func(_ *testing.T, c *http.Cookie) { c.Value = strings.Repeat("A", 4000) },
	} {
		t.Run("cookie: "+name, func(t *testing.T) {
			b := newVisitor()
			callback := s.waiting(t, b)
			forged := newVisitor()
			for _, c := range b.Cookies(s.URL) {
				change(t, c)
				if err := forged.SetCookie(s.URL, c); err != nil {
					t.Fatal(err)
				}
			}
			s.stopped(t, open(t, forged, callback.String()), 400, "login state")
		})
	}
	t.Run("cookie: two of the name", func(t *testing.T) {
		b := newVisitor()
		callback := s.waiting(t, b)
		c := b.Cookies(s.URL)[0]
		answer := s.ask(t, strings.TrimPrefix(callback.String(), s.URL), func(r *http.Request) {
			r.Header.Set("Cookie", c.Name+"="+c.Value+"; "+c.Name+"="+c.Value)
		})
		if answer.StatusCode != 400 || s.OP.Calls("token") != 0 {
			t.Errorf("%d", answer.StatusCode)
		}
	})
	for name, test := range map[string]struct {
		advance time.Duration
		want    string
	}{
		"ten minutes and a second later": {10*time.Minute + time.Second, "login took too long"},
		"a day later":                    {24 * time.Hour, "login took too long"},
		"before it began":                {-2 * time.Minute, "login took too long"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newVisitor()
			callback := s.waiting(t, b)
			b.Now = time.Now // the browser would have thrown the cookie away
			s.advance(test.advance)
			defer s.advance(-test.advance)
			s.stopped(t, open(t, b, callback.String()), 400, test.want)
		})
	}
	t.Run("nine minutes later", func(t *testing.T) {
		b := newVisitor()
		page, _ := s.start(b)
		s.behave(claim(func(c map[string]any) {
			c["iat"], c["exp"] = time.Now().Add(9*time.Minute).Unix(), time.Now().Add(14*time.Minute).Unix()
		}))
		callback := s.callback(b, page, "carl")
		s.advance(9 * time.Minute)
		defer s.advance(-9 * time.Minute)
		if page := open(t, b, callback); page.URL.Path != "/" {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}

func TestAttack_CB02_LoginCSRF(t *testing.T) {
	t.Parallel()
	s := newService(t)
	attacker := newVisitor()
	page, _ := s.start(attacker)
	trapURL := s.callback(attacker, page, "ada") // the attacker's own login, stopped before its callback
	with := func(change func(q url.Values, victims url.Values)) func(*testing.T, *bridgetest.Browser) string {
		return func(t *testing.T, b *bridgetest.Browser) string {
			victims := s.waiting(t, b)
			callback, _ := url.Parse(trapURL)
			query := callback.Query()
			change(query, victims.Query())
			callback.RawQuery = query.Encode()
			return callback.String()
		}
	}
	for name, target := range map[string]func(*testing.T, *bridgetest.Browser) string{
		"a browser that started nothing":    func(*testing.T, *bridgetest.Browser) string { return trapURL },
		"a browser with a login of its own": with(func(url.Values, url.Values) {}),
		"from the attacker's page": func(t *testing.T, b *bridgetest.Browser) string {
			open(t, b, newTrap(t, nil).URL)
			return trapURL
		},
		"the victim's code with the attacker's state": with(func(q, victims url.Values) { q.Set("code", victims.Get("code")) }),
	} {
		t.Run(name, func(t *testing.T) {
			b := newVisitor()
			at := target(t, b)
			s.OP.ForgetRequests()
			s.stopped(t, open(t, b, at), 400, "0 cookies for this state")
		})
	}
	t.Run("embedded in the attacker's page", func(t *testing.T) {
		b := newVisitor()
		open(t, b, newTrap(t, nil).URL)
		for _, dest := range []string{"image", "iframe", "script"} {
			answer, err := b.Embed(t.Context(), dest, trapURL)
			if err != nil || answer.Status != 400 || len(answer.Header.Values("Set-Cookie")) != 0 {
				t.Errorf("%s: %v %v", dest, answer, err)
			}
		}
	})
	t.Run("a victim who is logged in stays who they are", func(t *testing.T) {
		b := newVisitor()
		s.loginWith(b, "carl", "/")
		open(t, b, trapURL)
		if _, body := s.token(b); claims(t, body["token"])["email"] != "carl@example.com" {
			t.Errorf("%v", body)
		}
	})
	t.Run("the attacker's own browser: control", func(t *testing.T) {
		if page := open(t, attacker, trapURL); page.URL.Path != "/" {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}

func TestAttack_CB03_Replay(t *testing.T) {
	t.Parallel()
	s := newService(t)
	sequence := func(t *testing.T, callback string, cookie *http.Cookie, times int, statuses map[int]int) {
		for range times {
			answer := s.ask(t, callback, func(r *http.Request) { r.AddCookie(cookie) })
			statuses[answer.StatusCode]++
			if got := len(answer.Cookies()); answer.StatusCode == 400 && got > 1 {
				t.Errorf("a refused one sets %d cookies", got) // one takes the login state away
			}
		}
	}
	t.Run("twice, with the cookie kept", func(t *testing.T) {
		b := newVisitor()
		callback := strings.TrimPrefix(s.waiting(t, b).String(), s.URL)
		statuses := map[int]int{}
		sequence(t, callback, b.Cookies(s.URL)[0], 3, statuses)
		if statuses[303] != 1 || statuses[400] != 2 || s.rows(t) != 2 {
			t.Errorf("%v, %d rows", statuses, s.rows(t))
		}
	})
	t.Run("reload", func(t *testing.T) {
		b := newVisitor()
		callback := s.waiting(t, b)
		open(t, b, callback.String())
		s.OP.ForgetRequests()
		if page := open(t, b, callback.String()); page.Status != 400 || s.OP.Calls("token") != 0 || !strings.Contains(page.Text(), "start again") {
			t.Errorf("%d %s", page.Status, page.Text())
		}
		if answer, _ := s.token(b); answer.Status != 200 {
			t.Errorf("the session of the first is gone: %d", answer.Status)
		}
	})
	// The worst case: a provider that takes a code as often as it comes, and gives the same tokens. Only the bridge's own guard is left.
	var once sync.Once
	var tokens []byte
	lax := func(b *bridgetest.Behaviour) {
		b.Handle["token"] = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("X-Through") != "" {
				return false
			}
			once.Do(func() { tokens = through(t, r) })
			w.Header().Set("Content-Type", "application/json")
			w.Write(tokens)
			return true
		}
	}
	t.Run("twice, at a lax provider", func(t *testing.T) {
		s.behave(lax)
		before := s.rows(t)
		b := newVisitor()
		callback := strings.TrimPrefix(s.waiting(t, b).String(), s.URL)
		statuses := map[int]int{}
		sequence(t, callback, b.Cookies(s.URL)[0], 3, statuses)
		if statuses[303] != 1 || statuses[400] != 2 || s.rows(t) != before+1 || !s.Log.Contains("login was already finished") {
			t.Errorf("%v, %d rows more", statuses, s.rows(t)-before)
		}
	})
	t.Run("fifty at once over three replicas, at a lax provider", func(t *testing.T) {
		s.behave(lax)
		once = sync.Once{}
		before := s.rows(t)
		addresses := []string{s.URL}
		rules := ruleset(t, s.Config)
		for range 2 {
			public, private := listen(t), listen(t)
			running(t, s.Config, rules, bridge.Options{Version: "test", Log: s.Log.Logger(), Now: s.now}, public, private, nil)
			addresses = append(addresses, "http://"+public.Addr().String())
		}
		b := newVisitor()
		callback := strings.TrimPrefix(s.waiting(t, b).String(), s.URL)
		cookie := b.Cookies(s.URL)[0]
		var sessions sync.Map
		var granted, refused atomic.Int32
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				r, _ := http.NewRequest(http.MethodGet, addresses[i%3]+callback, nil)
				r.AddCookie(cookie)
				answer, err := fromElsewhere().RoundTrip(r)
				if err != nil {
					t.Error(err)
					return
				}
				answer.Body.Close()
				for _, c := range answer.Cookies() {
					if strings.HasPrefix(c.Name, "session-") {
						sessions.Store(c.Value, true)
					}
				}
				switch answer.StatusCode {
				case 303:
					granted.Add(1)
				case 400:
					refused.Add(1)
				}
			})
		}
		all.Wait()
		n := 0
		sessions.Range(func(any, any) bool { n++; return true })
		if granted.Load() != 1 || refused.Load() != 49 || n != 1 || s.rows(t) != before+1 {
			t.Errorf("%d granted, %d refused, %d session cookies, %d rows", granted.Load(), refused.Load(), n, s.rows(t)-before)
		}
	})
}

func TestAttack_CB04_MixUp(t *testing.T) {
	t.Parallel()
	evil := bridgetest.NewOP(t, bridgetest.OPOptions{}) // honest by itself, in the attacker's hands
	s := newService(t, withOther(evil))
	s.knows(evil)
	// flow is a login at one provider, up to its callback.
	flow := func(t *testing.T, b *bridgetest.Browser, provider string) *url.URL {
		t.Helper()
		page := open(t, b, s.URL+"/login/"+provider)
		answer, err := page.URL.Parse("?" + page.URL.RawQuery)
		if err != nil {
			t.Fatal(err)
		}
		r, _ := http.NewRequest(http.MethodPost, answer.String(), strings.NewReader("subject=carl"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		callback, err := response.Location()
		if err != nil {
			t.Fatal(err)
		}
		return callback
	}
	query := func(u *url.URL, change func(q url.Values)) string {
		q := u.Query()
		change(q)
		return q.Encode()
	}
	const otherProvider, wrongIssuer = "started at provider", "is not the issuer of"
	for name, test := range map[string]struct {
		target func(op, other *url.URL) string // of both flows in one browser
		cause  string
	}{
		"op's answer at other's callback": {func(op, _ *url.URL) string { return "/callback/other?" + op.RawQuery }, otherProvider},
		"other's answer at op's callback": {func(_, other *url.URL) string { return "/callback/op?" + other.RawQuery }, otherProvider},
		"op's answer without iss at other's callback": {func(op, _ *url.URL) string {
			return "/callback/other?" + query(op, func(q url.Values) { q.Del("iss") })
		}, otherProvider},
		"op's code in other's flow": {func(op, other *url.URL) string {
			return "/callback/other?" + query(other, func(q url.Values) { q.Set("code", op.Query().Get("code")); q.Set("iss", op.Query().Get("iss")) })
		}, wrongIssuer},
		"op's code in other's flow, no iss": {func(op, other *url.URL) string {
			return "/callback/other?" + query(other, func(q url.Values) { q.Set("code", op.Query().Get("code")); q.Del("iss") })
		}, wrongIssuer},
		"other's code in op's flow": {func(op, other *url.URL) string {
			return "/callback/op?" + query(op, func(q url.Values) { q.Set("code", other.Query().Get("code")); q.Set("iss", other.Query().Get("iss")) })
		}, wrongIssuer},
		"op's answer with other's iss": {func(op, other *url.URL) string {
			return "/callback/op?" + query(op, func(q url.Values) { q.Set("iss", other.Query().Get("iss")) })
		}, wrongIssuer},
		"other's state with op's code and iss at op's callback": {func(op, other *url.URL) string {
			return "/callback/op?" + query(op, func(q url.Values) { q.Set("state", other.Query().Get("state")) })
		}, otherProvider},
		"an error of other's in op's flow": {func(op, other *url.URL) string {
			return "/callback/op?" + query(op, func(q url.Values) {
				q.Del("code")
				q.Set("error", "access_denied")
				q.Set("iss", other.Query().Get("iss"))
			})
		}, wrongIssuer},
	} {
		t.Run(name, func(t *testing.T) {
			b := newVisitor()
			atOP, atOther := flow(t, b, "op"), flow(t, b, "other")
			s.OP.ForgetRequests()
			evil.ForgetRequests()
			s.stopped(t, open(t, b, s.URL+test.target(atOP, atOther)), 400, test.cause)
			if n := evil.Calls("token"); n != 0 {
				t.Errorf("%d token requests at the other provider", n)
			}
		})
	}
	t.Run("unknown provider", func(t *testing.T) {
		b := newVisitor()
		for _, id := range []string{"nobody", "OP", "op%20", "op%2fother", "other;op", "op%00"} {
			if answer := open(t, b, s.URL+"/callback/"+id+"?"+flow(t, b, "op").RawQuery); answer.Status != 404 {
				t.Errorf("%s: %d", id, answer.Status)
			}
		}
	})
	t.Run("each redirect_uri is its provider's own", func(t *testing.T) {
		b := newVisitor()
		for provider, op := range map[string]*bridgetest.OP{"op": s.OP, "other": evil} {
			page := open(t, b, s.URL+"/login/"+provider)
			if got := page.URL.Query().Get("redirect_uri"); got != s.URL+"/callback/"+provider || !strings.HasPrefix(page.URL.String(), op.Issuer()) {
				t.Errorf("%s: %s", provider, page.URL)
			}
		}
	})
	t.Run("control", func(t *testing.T) {
		b := newVisitor()
		atOP, atOther := flow(t, b, "op"), flow(t, b, "other")
		for _, callback := range []*url.URL{atOther, atOP} {
			if page := open(t, b, callback.String()); page.URL.Path != "/" {
				t.Errorf("%d %s", page.Status, page.Text())
			}
		}
	})
}

func TestAttack_CB05_IssuerParameter(t *testing.T) {
	t.Parallel()
	const wrong = "callback is malformed"
	answered := func(change func(p url.Values)) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) { b.AuthorizationResponse = change }
	}
	iss := func(value string) func(*bridgetest.Behaviour) {
		return answered(func(p url.Values) { p.Set("iss", value) })
	}
	run := func(t *testing.T, s *service, attacks []attack) {
		for _, a := range attacks {
			s.try(t, []attack{a})
			if n := s.OP.Calls("token") + s.OP.Calls("jwks"); a.want != "" && n != 0 {
				t.Errorf("%s: %d requests at the provider", a.name, n)
			}
		}
	}
	inputs := func(issuer string) (attacks []attack) {
		for name, value := range map[string]string{
			"another provider": "https://evil.example", "trailing slash": issuer + "/", "upper case": strings.ToUpper(issuer), "https": strings.Replace(issuer, "http:", "https:", 1),
			"no scheme": strings.TrimPrefix(issuer, "http://"), "blank behind": issuer + " ", "blank in front": " " + issuer, "path": issuer + "/x", "fragment": issuer + "#", "query": issuer + "?",
			"encoded twice": url.QueryEscape(issuer), "NUL behind": issuer + "\x00", "line break": issuer + "\n", "prefix": issuer[:len(issuer)-1], "null": "null", "star": "*",
		} {
			attacks = append(attacks, attack{name: name, set: iss(value), want: wrong, status: 400})
		}
		return append(
			attacks,
			attack{name: "the same twice", set: answered(func(p url.Values) { p["iss"] = []string{issuer, issuer} }), want: wrong, status: 400},
			attack{name: "good and evil", set: answered(func(p url.Values) { p["iss"] = []string{issuer, "https://evil.example"} }), want: wrong, status: 400},
			attack{name: "evil and good", set: answered(func(p url.Values) { p["iss"] = []string{"https://evil.example", issuer} }), want: wrong, status: 400},
			attack{name: "wrong beside an error", set: answered(func(p url.Values) {
				p.Del("code")
				p.Set("error", "access_denied")
				p.Set("iss", "https://evil.example")
			}), want: wrong, status: 400},
			attack{name: "right", set: iss(issuer), want: ""},
		)
	}
	t.Run("advertised", func(t *testing.T) {
		s := newService(t)
		s.warm(t)
		run(t, s, append(
			inputs(s.OP.Issuer()),
			attack{name: "missing", set: answered(func(p url.Values) { p.Del("iss") }), want: wrong, status: 400},
			attack{name: "empty", set: iss(""), want: wrong, status: 400},
			attack{name: "ISS alone", set: answered(func(p url.Values) { p["ISS"] = p["iss"]; p.Del("iss") }), want: wrong, status: 400},
			attack{name: "missing beside an error", set: answered(func(p url.Values) { p.Del("iss"); p.Del("code"); p.Set("error", "access_denied") }), want: wrong, status: 400},
		))
	})
	t.Run("not advertised", func(t *testing.T) {
		s := newService(t)
		s.behave(func(b *bridgetest.Behaviour) { b.NoIssParameter = true })
		s.warm(t)
		run(t, s, append(
			inputs(s.OP.Issuer()),
			attack{name: "missing", set: func(b *bridgetest.Behaviour) { b.NoIssParameter = true }, want: ""},
		))
	})
	for _, value := range []any{"true", "false", 1, nil, []bool{true}} {
		t.Run(fmt.Sprintf("advertised as %#v", value), func(t *testing.T) {
			s := newService(t)
			s.behave(func(b *bridgetest.Behaviour) {
				b.Discovery = func(m map[string]any) { m["authorization_response_iss_parameter_supported"] = value }
			})
			if answer := s.ask(t, "/login/op", nil); answer.StatusCode != 503 || !s.Log.Contains("neither true nor false") {
				t.Errorf("%d", answer.StatusCode)
			}
		})
	}
}

func TestAttack_CB06_ParameterPollution(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first := func(query, name string) string { // the parameter, as it stands in the query
		for p := range strings.SplitSeq(query, "&") {
			if strings.HasPrefix(p, name+"=") {
				return p
			}
		}
		return ""
	}
	for name, change := range map[string]func(q string) string{
		"code twice":                 func(q string) string { return q + "&code=b" },
		"code twice, the same":       func(q string) string { return q + "&" + first(q, "code") },
		"code twice, evil first":     func(q string) string { return "code=b&" + q },
		"code twice, once empty":     func(q string) string { return q + "&code=" },
		"code twice, once bare":      func(q string) string { return q + "&code" },
		"code twice, once encoded":   func(q string) string { return q + "&c%6fde=b" },
		"state twice":                func(q string) string { return q + "&state=x" },
		"state twice, the same":      func(q string) string { return q + "&" + first(q, "state") },
		"state twice, evil first":    func(q string) string { return "state=x&" + q },
		"code and error":             func(q string) string { return q + "&error=access_denied" },
		"code and empty error twice": func(q string) string { return q + "&error=&error=" },
		"error twice":                func(q string) string { return strings.Replace(q, first(q, "code"), "error=a&error=b", 1) },
		"CODE":                       func(q string) string { return strings.Replace(q, "code=", "CODE=", 1) },
		"Code":                       func(q string) string { return strings.Replace(q, "code=", "Code=", 1) },
		"code[]":                     func(q string) string { return strings.Replace(q, "code=", "code[]=", 1) },
		"code[0]":                    func(q string) string { return strings.Replace(q, "code=", "code[0]=", 1) },
		"code with a blank":          func(q string) string { return strings.Replace(q, "code=", "code+=", 1) },
		"no code":                    func(q string) string { return strings.Replace(q, first(q, "code"), "x=y", 1) },
		"empty code":                 func(q string) string { return strings.Replace(q, first(q, "code"), "code=", 1) },
		"code and empty error":       func(q string) string { return strings.Replace(q, first(q, "code"), "code=&error=", 1) },
		"semicolons":                 func(q string) string { return strings.ReplaceAll(q, "&", ";") },
		"semicolon inside":           func(q string) string { return q + "&x=a;b" },
		"bad escape":                 func(q string) string { return q + "&x=%zz" },
		"bad escape in the code":     func(q string) string { return strings.Replace(q, "code=", "code=%z", 1) },
		"nothing":                    func(string) string { return "" },
		"fragment mode":              func(q string) string { return "#" + q },
		"tokens of the implicit flow": func(q string) string {
			return strings.Replace(q, first(q, "code"), "id_token=e30.e30.e30&access_token=x&token_type=Bearer", 1)
		},
		"a signed response": func(q string) string { return "response=e30.e30.e30" },
		"iss twice":         func(q string) string { return q + "&" + first(q, "iss") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newVisitor()
			callback := s.waiting(t, b)
			good := callback.String()
			target, _, _ := strings.Cut(good, "?")
			s.stopped(t, open(t, b, target+"?"+change(callback.RawQuery)), 400, "callback is malformed")
			if page := open(t, b, good); page.URL.Path != "/orders" { // nothing was consumed
				t.Errorf("the good callback afterwards: %d %s", page.Status, page.Text())
			}
			exec(t, s.DB, "TRUNCATE bridge.users CASCADE")
		})
	}
	t.Run("the body is not read", func(t *testing.T) {
		b := newVisitor()
		callback := s.waiting(t, b)
		cookie := b.Cookies(s.URL)[0]
		for _, method := range []string{"GET", "POST"} {
			for query, body := range map[string]string{"": callback.RawQuery, first(callback.RawQuery, "state"): first(callback.RawQuery, "code")} {
				answer := s.ask(t, "/callback/op?"+query, func(r *http.Request) {
					r.Method, r.Body, r.ContentLength = method, io.NopCloser(strings.NewReader(body)), int64(len(body))
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
					r.AddCookie(cookie)
				})
				if want := map[string]int{"GET": 400, "POST": 405}[method]; answer.StatusCode != want || s.OP.Calls("token") != 0 {
					t.Errorf("%s ?%s: %d", method, query, answer.StatusCode)
				}
			}
		}
		if page := open(t, b, callback.String()); page.URL.Path != "/orders" {
			t.Errorf("the good callback afterwards: %d %s", page.Status, page.Text())
		}
	})
	t.Run("parameters that are not ours are ignored", func(t *testing.T) {
		b := newVisitor()
		callback := s.waiting(t, b)
		if page := open(t, b, callback.String()+"&session_state=x&session_state=y&scope=openid&authuser=0&hd=x&prompt=none"); page.URL.Path != "/orders" {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}

func TestAttack_CB07_ErrorResponse(t *testing.T) {
	t.Parallel()
	s := newService(t)
	payloads := []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'-alert(1)-'`, `javascript:alert(1)`, `{{.}}`, `${7*7}`, `%0d%0aSet-Cookie:x=1`, "line\r\nSet-Cookie: x=1", "\x1b[31mred",
		"nul\x00", "\u202egnp.exe", `</title><script>`, `&lt;script&gt;`, "<\xff", strings.Repeat("A", 2000), `level=INFO msg="user logged in"`, "\n" + `time=x level=INFO msg=forged`, "https://evil.example/",
	}
	answered := func(values map[string]string) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) {
			b.AuthorizationResponse = func(p url.Values) {
				p.Del("code")
				for name, value := range values {
					p.Set(name, value)
				}
			}
		}
	}
	type answer struct {
		status int
		title  string
		cause  string
	}
	unknown := answer{502, "The provider could not log you in", "provider answered with an error"}
	check := func(t *testing.T, values map[string]string, want answer) {
		t.Helper()
		s.behave(answered(values))
		b := newVisitor()
		page := s.loginWith(b, "carl", "/orders")
		s.refused(t, b, page, want.cause, want.status)
		if !strings.Contains(page.Text(), want.title) {
			t.Errorf("page: %s", page.Text())
		}
		for name, value := range values {
			if len(value) > 20 || strings.ContainsAny(value, "<>{}\x00\x1b") {
				if strings.Contains(string(page.Body), value) || strings.Contains(page.Text(), value) {
					t.Errorf("%s is on the page: %s", name, page.Body)
				}
			}
		}
		if n := s.OP.Calls("token"); n != 0 {
			t.Errorf("%d token requests", n)
		}
		if page.Header.Get("Set-Cookie") == "" || strings.Contains(fmt.Sprint(page.Header), "x=1") {
			t.Errorf("headers: %v", page.Header)
		}
		for _, line := range s.Log.Lines() {
			if strings.ContainsAny(line, "\n\r\x1b\x00") || len(line) > 2500 || strings.HasPrefix(line, "time=x") {
				t.Errorf("log line %q", line)
			}
		}
	}
	for i, payload := range payloads {
		t.Run(fmt.Sprintf("error %d", i), func(t *testing.T) { check(t, map[string]string{"error": payload}, unknown) })
		t.Run(fmt.Sprintf("error_description %d", i), func(t *testing.T) {
			check(t, map[string]string{"error": "invalid_request", "error_description": payload, "error_uri": payload}, unknown)
		})
		t.Run(fmt.Sprintf("access_denied %d", i), func(t *testing.T) {
			check(t, map[string]string{"error": "access_denied", "error_description": payload}, answer{403, "You cancelled the login", "person cancelled"})
		})
	}
	for code, want := range map[string]answer{
		"access_denied":           {403, "You cancelled the login", "person cancelled"},
		"server_error":            {503, "The login provider does not answer", "server_error"},
		"temporarily_unavailable": {503, "The login provider does not answer", "temporarily_unavailable"},
		"ACCESS_DENIED":           unknown, "access_denied ": unknown, "login_required": unknown, "interaction_required": unknown, "consent_required": unknown,
		"account_selection_required": unknown, "invalid_scope": unknown, "unauthorized_client": unknown, "unsupported_response_type": unknown, "request_not_supported": unknown, "0": unknown,
	} {
		t.Run(code, func(t *testing.T) { check(t, map[string]string{"error": code}, want) })
	}
	t.Run("an error with an unknown state consumes nothing", func(t *testing.T) {
		s.behave(nil)
		b := newVisitor()
		callback := s.waiting(t, b)
		s.stopped(t, open(t, b, s.URL+"/callback/op?error=access_denied&state=unknown"), 400, "login state")
		if page := open(t, b, callback.String()); page.URL.Path != "/orders" {
			t.Errorf("%d %s", page.Status, page.Text())
		}
		exec(t, s.DB, "TRUNCATE bridge.users CASCADE")
	})
	t.Run("an error ends its login", func(t *testing.T) {
		s.behave(nil)
		b := newVisitor()
		callback := s.waiting(t, b)
		failed := callback.Query()
		failed.Del("code")
		failed.Set("error", "access_denied")
		open(t, b, s.URL+"/callback/op?"+failed.Encode())
		s.stopped(t, open(t, b, callback.String()), 400, "login state")
	})
}

func TestAttack_CB08_CodeInjection(t *testing.T) {
	t.Parallel()
	s := newService(t)
	// injected is the callback of one's own login with the code of somebody else's.
	injected := func(t *testing.T, own *bridgetest.Browser) string {
		stolen := s.waiting(t, newVisitor())
		callback := s.waiting(t, own)
		query := callback.Query()
		query.Set("code", stolen.Query().Get("code"))
		callback.RawQuery = query.Encode()
		return callback.String()
	}
	for _, test := range []struct {
		name, cause string
		status      int
		set         func(b *bridgetest.Behaviour)
	}{
		{"PKCE", "invalid_grant", 400, nil},
		{"a provider without PKCE", "token refused: nonce", 502, func(b *bridgetest.Behaviour) { b.SkipPKCE = true }},
		{"a provider without PKCE that leaves the nonce out", "token refused: nonce", 502, func(b *bridgetest.Behaviour) {
			b.SkipPKCE, b.IDTokenClaims = true, func(c map[string]any) { delete(c, "nonce") }
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.behave(test.set)
			b := newVisitor()
			page := open(t, b, injected(t, b))
			s.refused(t, b, page, test.cause, test.status)
			if n := s.rows(t); n != 0 {
				t.Errorf("%d rows", n)
			}
		})
	}
	for _, code := range []string{"x", strings.Repeat("c", 4000), "a b", "a+b", "a\x00b", "a\r\nb", "ü", `"`, "%", "a&code_verifier=x", "a&redirect_uri=https://evil.example"} {
		t.Run(fmt.Sprintf("a made-up code %.20q", code), func(t *testing.T) {
			s.behave(nil)
			b := newVisitor()
			callback := s.waiting(t, b)
			query := callback.Query()
			query.Set("code", code)
			callback.RawQuery = query.Encode()
			s.refused(t, b, open(t, b, callback.String()), "invalid_grant", 400)
			sent := s.OP.Requests("token")
			if len(sent) != 1 || !slices.Equal(sent[0].Form["code"], []string{code}) || len(sent[0].Form["redirect_uri"]) != 1 || len(sent[0].Form["code_verifier"]) != 1 {
				t.Errorf("%v", sent)
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		b := newVisitor()
		if page := open(t, b, s.waiting(t, b).String()); page.URL.Path != "/orders" {
			t.Errorf("%d %s", page.Status, page.Text())
		}
	})
}

func TestAttack_CB09_Methods(t *testing.T) {
	t.Parallel()
	s := newService(t)
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	method := func(name string) func(*http.Request) { return func(r *http.Request) { r.Method = name } }
	for name, change := range map[string]func(*http.Request){
		"HEAD": method("HEAD"), "OPTIONS": method("OPTIONS"), "POST": method("POST"), "PUT": method("PUT"), "PATCH": method("PATCH"), "DELETE": method("DELETE"), "TRACE": method("TRACE"),
		"CONNECT-like": method("FOO"), "get": method("get"), "QUERY": method("QUERY"), "PROPFIND": method("PROPFIND"),
		"Sec-Purpose: prefetch": set("Sec-Purpose", "prefetch"), "Sec-Purpose: prefetch;prerender": set("Sec-Purpose", "prefetch;prerender"),
		"Sec-Purpose: prefetch;anonymous-client-ip": set("Sec-Purpose", "prefetch;anonymous-client-ip"), "Purpose: prefetch": set("Purpose", "prefetch"),
		"X-Moz: prefetch": set("X-Moz", "prefetch"), "X-Purpose: preview": set("X-Purpose", "preview"),
		"POST as a GET": func(r *http.Request) { r.Method = "POST"; r.Header.Set("X-HTTP-Method-Override", "GET") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newVisitor()
			callback := s.waiting(t, b)
			answer := s.ask(t, strings.TrimPrefix(callback.String(), s.URL), func(r *http.Request) {
				r.AddCookie(b.Cookies(s.URL)[0])
				change(r)
			})
			if answer.StatusCode != 405 || len(answer.Cookies()) != 0 || s.OP.Calls("token") != 0 {
				t.Errorf("%d %v", answer.StatusCode, answer.Header)
			}
			if page := open(t, b, callback.String()); page.URL.Path != "/orders" {
				t.Errorf("the good callback afterwards: %d %s", page.Status, page.Text())
			}
		})
	}
}

func TestAttack_CB10_TokenResponse(t *testing.T) {
	t.Parallel()
	s := newService(t)
	elsewhere := newTrap(t, nil)
	response := func(change func(r map[string]any)) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) { b.TokenResponse = change }
	}
	is := func(name string, value any) func(*bridgetest.Behaviour) {
		return response(func(r map[string]any) { r[name] = value })
	}
	without := func(name string) func(*bridgetest.Behaviour) {
		return response(func(r map[string]any) { delete(r, name) })
	}
	body := func(change func(good string) string) func(*bridgetest.Behaviour) {
		return tokenAnswer(t, func(w http.ResponseWriter, good string) { fmt.Fprint(w, change(good)) })
	}
	as := func(contentType string) func(*bridgetest.Behaviour) {
		return tokenAnswer(t, func(w http.ResponseWriter, good string) {
			if w.Header().Set("Content-Type", contentType); contentType == "" {
				w.Header()["Content-Type"] = nil
			}
			fmt.Fprint(w, good)
		})
	}
	status := func(code int) func(*bridgetest.Behaviour) {
		return tokenAnswer(t, func(w http.ResponseWriter, good string) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(code)
			fmt.Fprint(w, good)
		})
	}
	failure := func(code int, text string) func(*bridgetest.Behaviour) {
		return tokenAnswer(t, func(w http.ResponseWriter, _ string) {
			w.WriteHeader(code)
			fmt.Fprint(w, text)
		})
	}
	const kind, unusable, noID, noAccess, bearer = "its Content-Type is", "token response: ", "no id_token", "no access_token", "token_type is not Bearer"
	attacks := []attack{
		{name: "good", want: ""},
		{name: "bearer", set: is("token_type", "bearer"), want: ""},
		{name: "BEARER", set: is("token_type", "BEARER"), want: ""},
		{name: "bEaReR", set: is("token_type", "bEaReR"), want: ""},
		{name: "more members", set: is("acme", map[string]any{"x": []int{1}}), want: ""},
		{name: "a refresh token", set: is("refresh_token", "r"), want: ""},
		{name: "charset", set: as("application/json; charset=utf-8"), want: ""},

		{name: "no token_type", set: without("token_type"), want: bearer},
		{name: "token_type empty", set: is("token_type", ""), want: bearer},
		{name: "token_type null", set: is("token_type", nil), want: bearer},
		{name: "token_type number", set: is("token_type", 1), want: bearer},
		{name: "token_type list", set: is("token_type", []string{"Bearer"}), want: bearer},
		{name: "token_type with a blank", set: is("token_type", "Bearer "), want: bearer},
		{name: "MAC", set: is("token_type", "MAC"), want: bearer},
		{name: "DPoP", set: is("token_type", "DPoP"), want: bearer},
		{name: "N_A", set: is("token_type", "N_A"), want: bearer},
		{name: "Token_Type", set: response(func(r map[string]any) { r["Token_Type"] = r["token_type"]; delete(r, "token_type") }), want: bearer},
		{name: "no access_token", set: without("access_token"), want: noAccess},
		{name: "access_token empty", set: is("access_token", ""), want: noAccess},
		{name: "access_token null", set: is("access_token", nil), want: noAccess},
		{name: "access_token number", set: is("access_token", 1), want: noAccess},
		{name: "access_token object", set: is("access_token", map[string]any{}), want: noAccess},
		{name: "access_token with a header", set: is("access_token", "x\r\nX-Evil: 1"), want: noAccess},
		{name: "access_token with a blank", set: is("access_token", "x y"), want: noAccess},
		{name: "access_token with NUL", set: is("access_token", "x\x00"), want: noAccess},
		{name: "access_token not ASCII", set: is("access_token", "ü"), want: noAccess},
		{name: "no id_token", set: without("id_token"), want: noID},
		{name: "id_token empty", set: is("id_token", ""), want: noID},
		{name: "id_token null", set: is("id_token", nil), want: noID},
		{name: "id_token number", set: is("id_token", 1), want: noID},
		{name: "id_token list", set: response(func(r map[string]any) { r["id_token"] = []any{r["id_token"]} }), want: noID},
		{name: "id_token object", set: is("id_token", map[string]any{"sub": "carl"}), want: noID},
		{name: "ID_TOKEN", set: response(func(r map[string]any) { r["ID_TOKEN"] = r["id_token"]; delete(r, "id_token") }), want: noID},

		{name: "id_token twice", set: body(func(g string) string { return member(`"id_token":"x"`)(g) }), want: "twice"},
		{name: "access_token twice", set: body(func(g string) string { return member(`"access_token":"x"`)(g) }), want: "twice"},
		{name: "two objects", set: body(func(g string) string { return g + g }), want: "data after"},
		{name: "trailing text", set: body(func(g string) string { return g + "<!-- x -->" }), want: unusable},
		{name: "half", set: body(func(g string) string { return g[:len(g)/2] }), want: unusable},
		{name: "list", set: body(func(g string) string { return "[" + g + "]" }), want: "not an object"},
		{name: "string", set: body(func(string) string { return `"x"` }), want: "not an object"},
		{name: "null", set: body(func(string) string { return "null" }), want: "not an object"},
		{name: "nothing", set: body(func(string) string { return "" }), want: unusable},
		{name: "empty object", set: body(func(string) string { return "{}" }), want: noAccess},
		{name: "JSON-P", set: body(func(g string) string { return "cb(" + g + ")" }), want: unusable},
		{name: "guarded JSON", set: body(func(g string) string { return ")]}'\n" + g }), want: unusable},
		{name: "byte order mark", set: body(func(g string) string { return "\ufeff" + g }), want: unusable},
		{name: "lone surrogate", set: body(member(`"x":"\ud800"`)), want: "surrogate"},
		{name: "deep", set: body(member(`"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000))), want: "deep"},
		{name: "a form", set: tokenAnswer(t, func(w http.ResponseWriter, good string) {
			w.Header().Set("Content-Type", "application/x-www-form-urlencoded")
			fmt.Fprint(w, "access_token=x&token_type=Bearer&id_token=y")
		}), want: kind},
		{name: "a form that calls itself JSON", set: body(func(string) string { return "access_token=x&token_type=Bearer&id_token=y" }), want: unusable},
		{name: "JSON that calls itself a form", set: as("application/x-www-form-urlencoded"), want: kind},
		{name: "JSON that calls itself text", set: as("text/plain"), want: kind},
		{name: "JSON that calls itself HTML", set: as("text/html"), want: kind},
		{name: "JSON that calls itself a JWT", set: as("application/jwt"), want: kind},
		{name: "JSON-like type", set: as("application/jsonp"), want: kind},
		{name: "broken type", set: as("application/json; ="), want: kind},
		{name: "no type", set: as(""), want: kind},

		{name: "error in a good answer", set: is("error", "invalid_grant"), want: `error "invalid_grant"`, status: 400},
		{name: "unknown error in a good answer", set: is("error", "x"), want: `error "x"`},
		{name: "error that is no text", set: is("error", 1), want: `error ""`},
		{name: "invalid_client", set: failure(401, `{"error":"invalid_client"}`), want: "do not fit the provider"},
		{name: "unauthorized_client", set: failure(400, `{"error":"unauthorized_client"}`), want: "do not fit the provider"},
		{name: "invalid_grant", set: failure(400, `{"error":"invalid_grant"}`), want: "invalid_grant", status: 400},
		{name: "invalid_request", set: failure(400, `{"error":"invalid_request"}`), want: "invalid_request"},
		{name: "error with HTML", set: failure(400, `{"error":"<script>","error_description":"<img src=x>"}`), want: "token endpoint: status 400"},
		{name: "error of 900 KB", set: failure(400, `{"error":"`+strings.Repeat("e", 900<<10)+`"}`), want: "token endpoint: status 400"},
		{name: "error that is not JSON", set: failure(400, "<html>"), want: "token endpoint: status 400"},
		{name: "invalid_grant twice", set: failure(400, `{"error":"x","error":"invalid_grant"}`), want: "token endpoint: status 400"},
		{name: "500", set: failure(500, "oops"), want: "status 500", status: 503},
		{name: "503 with tokens", set: status(503), want: "status 503", status: 503},
		{name: "429", set: status(429), want: "status 429", status: 503},
		{name: "400 with tokens", set: status(400), want: "status 400"},
		{name: "201 with tokens", set: status(201), want: "status 201"},
		{name: "203 with tokens", set: status(203), want: "status 203"},
		{name: "206 with tokens", set: status(206), want: "status 206"},
		{name: "204", set: tokenAnswer(t, func(w http.ResponseWriter, _ string) { w.WriteHeader(204) }), want: "status 204"},

		{name: "2 MB", set: body(func(g string) string { return g[:len(g)-1] + strings.Repeat(" ", 2<<20) + "}" }), want: "larger than"},
		{name: "1 MB of blanks behind", set: body(func(g string) string { return g + strings.Repeat(" ", 1<<20) }), want: "larger than"},
		{name: "900 KB of blanks behind", set: body(func(g string) string { return g + strings.Repeat(" ", 900<<10) }), want: ""},
		{name: "compressed", set: tokenAnswer(t, func(w http.ResponseWriter, good string) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(gzipped(good))
		}), want: "Content-Encoding"},
		{name: "unknown encoding", set: tokenAnswer(t, func(w http.ResponseWriter, good string) {
			w.Header().Set("Content-Encoding", "br")
			fmt.Fprint(w, good)
		}), want: "Content-Encoding"},
		{name: "cut off", set: tokenAnswer(t, func(w http.ResponseWriter, good string) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)+100))
			fmt.Fprint(w, good)
		}), want: "token request: provider cannot be reached", status: 503},
		{name: "hung up", set: tokenAnswer(t, func(http.ResponseWriter, string) { panic(http.ErrAbortHandler) }), want: "token request: provider cannot be reached", status: 503},
		{name: "an endless header", set: tokenAnswer(t, func(w http.ResponseWriter, good string) {
			w.Header().Set("X-Long", strings.Repeat("h", 200<<10))
			fmt.Fprint(w, good)
		}), want: "token request: provider cannot be reached", status: 503},
	}
	for _, code := range []int{301, 302, 303, 307, 308} {
		attacks = append(attacks, attack{name: fmt.Sprintf("%d with tokens", code), set: status(code), want: fmt.Sprintf("status %d", code)})
	}
	for _, value := range []any{nil, 0, -1, 1e18, 1.5, "300", "soon", true, []int{300}, map[string]any{}} {
		attacks = append(attacks, attack{name: fmt.Sprintf("expires_in %#v is of no meaning", value), set: is("expires_in", value), want: ""})
	}
	attacks = append(attacks, attack{name: "no expires_in", set: without("expires_in"), want: ""})
	for _, a := range attacks {
		s.behave(a.set) // the requests that through repeats are not the bridge's
		before := s.rows(t)
		b := newVisitor()
		t.Run(a.name, func(t *testing.T) {
			page := s.loginWith(b, "carl", "/orders")
			own := slices.DeleteFunc(s.OP.Requests("token"), func(r bridgetest.RecordedRequest) bool { return r.Header.Get("X-Through") != "" })
			if len(own) != 1 {
				t.Errorf("%d token requests", len(own))
			}
			if a.want == "" {
				if answer, _ := s.token(b); answer.Status != 200 {
					t.Errorf("refused: %s", s.logged(page))
				}
				return
			}
			s.refused(t, b, page, a.want, a.status)
			if s.rows(t) != before || s.OP.Calls("userinfo") != 0 {
				t.Errorf("%d rows, %d calls of UserInfo", s.rows(t)-before, s.OP.Calls("userinfo"))
			}
			s.OP.Set(correct) // the flow is burnt, though the provider is well again
			if again := open(t, b, page.URL.String()); again.Status != 400 {
				t.Errorf("the same callback again: %d", again.Status)
			}
		})
	}
	if n := elsewhere.visits.Load(); n != 0 {
		t.Errorf("%d visits where a redirect led", n)
	}
	for _, line := range s.Log.Lines() {
		if strings.Contains(line, "eyJ") || len(line) > 2500 {
			t.Errorf("the log holds a token: %.300s", line)
		}
	}
}

func TestAttack_CB11_ClientAuthentication(t *testing.T) {
	t.Parallel()
	op := bridgetest.NewOP(t, bridgetest.OPOptions{Personas: personas})
	type client struct{ id, secret, method string }
	var clients []client
	for _, method := range []string{"client_secret_basic", "client_secret_post"} {
		clients = append(
			clients,
			client{"plain-" + method, "hunter2-hunter2", method},
			client{"a:b-" + method, "c:d:e-secret", method},
			client{"https://app.example.com/x?y=1&z=%20#f-" + method, "s3cret:%+/ü=&?#", method},
			client{"blank and + " + method, "a b+c d%20e", method},
			client{"ü東京🙂-" + method, "ß東京🙂-secret", method},
			client{"quotes\"'\\-" + method, "\"'\\`$(x)-secret", method},
			client{"~-._*()!-" + method, "~-._*()!-secret", method},
		)
	}
	var configured, ruled strings.Builder
	for i, c := range clients {
		fmt.Fprintf(&configured, "\n  c%d: { issuer: %q, client_id: %q, client_secret: %q, auth_method: %s }", i, op.Issuer(), c.id, strings.ReplaceAll(c.secret, "$", "$$"), c.method)
		fmt.Fprintf(&ruled, "  - { name: r%d, provider: c%d, when: { email_domain: example.com }, role: customer }\n", i, i)
	}
	var declared strings.Builder
	for i := range clients {
		fmt.Fprintf(&declared, "  c%d: { preset: generic }\n", i)
	}
	s := newService(t, withRules("version: 1\nproviders:\n  op: { preset: generic }\n"+declared.String()+"roles: { customer: {} }\nrules:\n"+ruled.String()+"default: deny\n"),
		func(o *settings) { o.provider = configured.String() })
	for i, c := range clients {
		op.AddClient(bridgetest.Client{ID: c.id, Secret: c.secret, RedirectURIs: []string{fmt.Sprintf("%s/callback/c%d", s.URL, i)}})
	}
	for i, c := range clients {
		t.Run(c.method+" "+c.id, func(t *testing.T) {
			op.ForgetRequests()
			b := newVisitor()
			page, err := b.ChoosePersona(t.Context(), open(t, b, fmt.Sprintf("%s/login/c%d?return_to=/orders", s.URL, i)), "carl")
			if err != nil || page.URL.Path != "/orders" {
				t.Fatalf("%v %s", err, s.logged(page))
			}
			sent := op.Requests("token")
			if len(sent) != 1 {
				t.Fatalf("%d token requests", len(sent))
			}
			user, password, basic := (&http.Request{Header: sent[0].Header}).BasicAuth()
			form := sent[0].Form
			switch c.method {
			case "client_secret_basic":
				if !basic || user != url.QueryEscape(c.id) || password != url.QueryEscape(c.secret) || form.Has("client_secret") || form.Has("client_id") {
					t.Errorf("Basic %q %q, form %v", user, password, form)
				}
			default:
				if basic || form.Get("client_id") != c.id || form.Get("client_secret") != c.secret {
					t.Errorf("Basic %v, form %v", basic, form)
				}
			}
			if sent[0].URL.RawQuery != "" {
				t.Errorf("query %q", sent[0].URL.RawQuery)
			}
		})
		t.Run(c.method+" wrong secret "+c.id, func(t *testing.T) {
			op.AddClient(bridgetest.Client{ID: c.id, Secret: "another", RedirectURIs: []string{fmt.Sprintf("%s/callback/c%d", s.URL, i)}})
			op.ForgetRequests()
			b := newVisitor()
			page, err := b.ChoosePersona(t.Context(), open(t, b, fmt.Sprintf("%s/login/c%d", s.URL, i)), "carl")
			if err != nil {
				t.Fatal(err)
			}
			s.refused(t, b, page, "do not fit the provider", 502)
			if n := op.Calls("token"); n != 1 { // x/oauth2 would have tried the other method
				t.Errorf("%d token requests", n)
			}
			for _, spelling := range []string{c.secret, url.QueryEscape(c.secret), base64.StdEncoding.EncodeToString([]byte(c.secret))} {
				if s.Log.Contains(spelling) || strings.Contains(string(page.Body), spelling) {
					t.Errorf("the secret is in the log or on the page, as %q", spelling)
				}
			}
		})
	}
	for _, endpoint := range []string{"authorize", "discovery", "jwks", "userinfo"} {
		for _, r := range op.Requests(endpoint) {
			for _, c := range clients {
				if strings.Contains(fmt.Sprint(r.URL, r.Header, r.Form), c.secret) {
					t.Errorf("the secret reaches %s", endpoint)
				}
			}
		}
	}
}

func TestAttack_CB12_LeaksAfterTheCallback(t *testing.T) {
	t.Parallel()
	s := newService(t)
	clean := func(t *testing.T, page *bridgetest.Page, callback *url.URL) {
		t.Helper()
		for name, want := range map[string]string{"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
			if got := page.Header.Get(name); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
		for _, secret := range []string{callback.Query().Get("code"), callback.Query().Get("state")} {
			if secret != "" && (strings.Contains(string(page.Body), secret) || strings.Contains(page.Header.Get("Location"), secret)) {
				t.Errorf("%s shows again: %v %s", secret, page.Header, page.Body)
			}
		}
		if policy := page.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "http") {
			t.Errorf("policy %q", policy)
		}
		for _, tag := range []string{"<script", "<img", "<iframe", "<link", "src=", "url(", "@import", "//"} {
			if strings.Contains(strings.ReplaceAll(string(page.Body), "<!doctype", ""), tag) {
				t.Errorf("the page holds %s", tag)
			}
		}
		if page.Header.Get("Refresh") != "" || page.Header.Get("Link") != "" {
			t.Errorf("%v", page.Header)
		}
	}
	for _, returnTo := range []string{"/", "/orders", "/orders?x=1", "//evil.example", "/callback/op?code=x"} {
		t.Run("finished, return_to "+returnTo, func(t *testing.T) {
			b := newVisitor()
			page := open(t, b, s.URL+"/login/op?return_to="+url.QueryEscape(returnTo))
			callback, _ := url.Parse(s.callback(b, page, "carl"))
			final := open(t, b, callback.String())
			answer := final.History[0]
			if location := answer.Header.Get("Location"); len(final.History) != 1 || answer.Status != 303 || !strings.HasPrefix(location, "/") || strings.HasPrefix(location, "//") {
				t.Errorf("%d %v", answer.Status, answer.Header)
			}
			clean(t, answer, callback)
		})
	}
	for name, set := range map[string]func(*bridgetest.Behaviour){
		"refused by the verifier": claimIs("nonce", "x"),
		"cancelled": func(b *bridgetest.Behaviour) {
			b.AuthorizationResponse = func(p url.Values) { p.Del("code"); p.Set("error", "access_denied") }
		},
		"refused code": func(b *bridgetest.Behaviour) {
			b.AuthorizationResponse = func(p url.Values) { p.Set("code", "guessed-code") }
		},
		"unknown state": func(b *bridgetest.Behaviour) {
			b.AuthorizationResponse = func(p url.Values) { p.Set("state", "guessed-state") }
		},
		"provider down": func(b *bridgetest.Behaviour) {
			b.Handle["token"] = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(503); return true }
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.behave(set)
			page := s.loginWith(newVisitor(), "carl", "/orders")
			if page.Status < 400 {
				t.Errorf("%d", page.Status)
			}
			clean(t, page, page.URL)
		})
	}
	for _, line := range s.Log.Lines() {
		if strings.Contains(line, "code=") || strings.Contains(line, "state=") && !strings.Contains(line, "state=0") {
			t.Errorf("the log has the query: %s", line)
		}
	}
}
