package bridge_test

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
)

// What the tests of the groups AR, CB, IT and JD share: a login whose provider misbehaves in one way, and what everybody sees of it.

// An attack is one such login.
type attack struct {
	name     string
	set      func(b *bridgetest.Behaviour)
	want     string // the cause in the log; "" for a login that must succeed: the control of its table
	status   int    // of the page, when it is not 502
	userinfo int    // calls of UserInfo that are part of it
}

var visitors atomic.Uint32

// fromElsewhere is a transport with an address of its own, as other people have one: logins are limited by address.
func fromElsewhere() *http.Transport {
	n := visitors.Add(1)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1+byte(n>>16), byte(n>>8), byte(n))}}
	return &http.Transport{DialContext: dialer.DialContext}
}

// newVisitor is a browser at an address of its own.
func newVisitor() *bridgetest.Browser {
	b := bridgetest.NewBrowser()
	b.Transport = fromElsewhere()
	return b
}

var reference = regexp.MustCompile(`[A-Z2-7]{4}-[A-Z2-7]{4}`)

// try logs in as Carl with each attack. A refusal leaves nothing but a page with a code, under which the log has the cause.
func (s *service) try(t *testing.T, attacks []attack) {
	t.Helper()
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			s.behave(a.set)
			defer s.OP.Set(correct)
			before := s.rows(t)
			b := newVisitor()
			page := s.loginWith(b, "carl", "/orders")
			if a.want == "" {
				if answer, _ := s.token(b); page.URL.Path != "/orders" || answer.Status != 200 {
					t.Errorf("refused: %d %s: %s", page.Status, page.Text(), s.logged(page))
				}
				return
			}
			s.refused(t, b, page, a.want, a.status)
			if rows := s.rows(t); rows != before {
				t.Errorf("%d rows in users and sessions, %d before", rows, before)
			}
			if n := s.OP.Calls("userinfo"); n != a.userinfo {
				t.Errorf("%d calls of UserInfo", n)
			}
			if n := s.OP.Calls("token"); n > 1 {
				t.Errorf("%d token requests", n)
			}
		})
	}
}

// correct ends all misbehaviour.
func correct(b *bridgetest.Behaviour) {
	*b = bridgetest.Behaviour{Handle: map[string]func(http.ResponseWriter, *http.Request) bool{}}
}

// behave replaces the provider's behaviour and forgets its requests. Unless the attack is about times, the provider has the bridge's clock.
func (s *service) behave(set func(b *bridgetest.Behaviour)) {
	s.OP.Set(func(b *bridgetest.Behaviour) {
		if correct(b); set != nil {
			set(b)
		}
		if b.IDTokenClaims == nil {
			b.IDTokenClaims = func(c map[string]any) { c["iat"], c["exp"] = s.now().Unix(), s.now().Add(5*time.Minute).Unix() }
		}
	})
	s.OP.ForgetRequests()
}

// refused checks what a refused login leaves: a page with the status, no session, and the cause in the log alone.
func (s *service) refused(t *testing.T, b *bridgetest.Browser, page *bridgetest.Page, cause string, status int) {
	t.Helper()
	if status == 0 {
		status = 502
	}
	if page.Status != status || !strings.Contains(page.URL.Path, "/callback/") {
		t.Errorf("ended at %s with %d: %s", page.URL.Path, page.Status, page.Text())
	}
	if line := s.logged(page); !strings.Contains(line, cause) {
		t.Errorf("cause %q is not in %q", cause, line)
	}
	if strings.Contains(string(page.Body), "token refused") || page.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the page: %v %s", page.Header, page.Body)
	}
	for _, c := range b.Cookies(s.URL) {
		if strings.HasPrefix(c.Name, "session-") {
			t.Errorf("a cookie is left: %s", c.Name)
		}
	}
	if answer, _ := s.token(b); answer.Status != 401 {
		t.Errorf("/api_token answers %d", answer.Status)
	}
}

// logged returns the log line under the code of the page.
func (s *service) logged(page *bridgetest.Page) string {
	ref := reference.FindString(page.Text())
	for _, line := range s.Log.Lines() {
		if ref != "" && strings.Contains(line, "ref="+ref) {
			return strings.ReplaceAll(line, `\"`, `"`)
		}
	}
	return ""
}

// ruleset loads the rules of a configuration once more, for another replica.
func ruleset(t *testing.T, c *bridge.Config) *mapping.Rules {
	t.Helper()
	text, err := os.ReadFile(c.Rules)
	if err != nil {
		t.Fatal(err)
	}
	rules, findings := mapping.Load("rules.yaml", text)
	if rules == nil {
		t.Fatal(findings)
	}
	return rules
}

// rows counts users and sessions.
func (s *service) rows(t *testing.T) int {
	t.Helper()
	return row[int](t, s.DB, "SELECT ((SELECT count(*) FROM bridge.users) + (SELECT count(*) FROM bridge.sessions))::int")
}

// warm logs in once, so that the service knows the provider's metadata and keys.
func (s *service) warm(t *testing.T) {
	t.Helper()
	if b, page := s.login("carl", "/orders"); page.URL.Path != "/orders" {
		t.Fatalf("%s: %s", page.Text(), s.logged(page))
	} else if answer, _ := s.token(b); answer.Status != 200 {
		t.Fatalf("%d %s", answer.Status, answer.Body)
	}
	s.OP.ForgetRequests()
}

// metric returns the line of /metrics that begins so, without the beginning.
func (s *service) metric(t *testing.T, begins string) string {
	t.Helper()
	_, text := get(t, s.Private+"/metrics")
	for line := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(line, begins); found {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// Changes of the ID token: of its header, its claims, its text.
func header(change func(h map[string]any)) func(*bridgetest.Behaviour) {
	return func(b *bridgetest.Behaviour) { b.IDTokenHeader = change }
}

func headerIs(name string, value any) func(*bridgetest.Behaviour) {
	return header(func(h map[string]any) { h[name] = value })
}

func claim(change func(c map[string]any)) func(*bridgetest.Behaviour) {
	return func(b *bridgetest.Behaviour) { b.IDTokenClaims = change }
}

func claimIs(name string, value any) func(*bridgetest.Behaviour) {
	return claim(func(c map[string]any) { c[name] = value })
}

func noClaim(name string) func(*bridgetest.Behaviour) {
	return claim(func(c map[string]any) { delete(c, name) })
}

func raw(change func(good string) string) func(*bridgetest.Behaviour) {
	return func(b *bridgetest.Behaviour) {
		b.RawIDToken = func(good string, _ func(header, claims map[string]any) string) string { return change(good) }
	}
}

// signed replaces the JSON texts of header and payload and signs them with the key, as the header's alg says.
func signed(key any, change func(header, payload string) (string, string)) func(*bridgetest.Behaviour) {
	return raw(func(good string) string {
		h, p := change(decoded(good, 0), decoded(good, 1))
		token, err := bridgetest.SignJWT(key, []byte(h), []byte(p))
		if err != nil {
			panic(err)
		}
		return token
	})
}

// payload is signed with the provider's own key.
func (s *service) payload(change func(payload string) string) func(*bridgetest.Behaviour) {
	return signed(s.OP.Key("RS256"), func(h, p string) (string, string) { return h, change(p) })
}

func decoded(token string, part int) string {
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[part])
	if err != nil {
		panic(err)
	}
	return string(text)
}

// part replaces one of the three parts of the token.
func part(n int, change func(string) string) func(*bridgetest.Behaviour) {
	return raw(func(good string) string {
		parts := strings.Split(good, ".")
		parts[n] = change(parts[n])
		return strings.Join(parts, ".")
	})
}

// member adds members to a JSON object's text, in front of the others.
func member(text string) func(string) string {
	return func(object string) string { return "{" + text + "," + object[1:] }
}

// replace changes the one place where old stands.
func replace(old, by string) func(string) string {
	return func(text string) string {
		if strings.Count(text, old) != 1 {
			panic(fmt.Sprintf("%q is %d times in %s", old, strings.Count(text, old), text))
		}
		return strings.Replace(text, old, by, 1)
	}
}

// A trap is a server of the attacker, or one that nobody may be led to, that counts its visitors.
type trap struct {
	*httptest.Server
	visits atomic.Int32
}

func newTrap(t *testing.T, answer http.HandlerFunc) *trap {
	tr := &trap{}
	tr.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr.visits.Add(1)
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(tr.Close)
	return tr
}

const (
	form      = "token refused: form"
	algorithm = "token refused: alg"
	signature = "token refused: signature"
)
