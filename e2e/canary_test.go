package e2e

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// The shipped program writes at debug level in every test. When it has ended, nothing that others can read may hold a secret: what it wrote
// (the log, the output of commands), its metrics, and its answers (CF-02).

const databasePassword = "canary-of-the-database" // our own server lets everybody in with any

// withPassword puts the canary into a connection string that has no password.
func withPassword(t *testing.T, databaseURL string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	if _, has := u.User.Password(); !has {
		u.User = url.UserPassword(u.User.Username(), databasePassword)
	}
	return u.String()
}

// An ear hears what passes between browsers and the bridge.
type ear struct {
	mu      sync.Mutex
	secrets map[string]string // what is not for the log, and what it is
	answers []string          // without cookies, tokens, and the parameters of a login
}

func newEar(configured map[string]string) *ear {
	e := &ear{secrets: configured}
	e.add("a client secret", "client-secret-of-the-end-to-end-tests") // the end of each of them
	e.add("a client secret", "the-secret-that-it-will-have-tomorrow")
	e.add("the password of the database", databasePassword)
	return e
}

func (e *ear) add(what, secret string) {
	if len(secret) >= 16 {
		e.secrets[secret] = what
	}
}

var (
	tokenMember = regexp.MustCompile(`"token":"([^"]+)"`)
	jwt         = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8}`)
	random      = regexp.MustCompile(`[A-Za-z0-9_-]{43}`) // 256 bits in base64url
)

// hear is the ModifyResponse of the proxy in front of the bridge.
func (e *ear) hear(answer *http.Response) error {
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, values := range answer.Request.URL.Query() {
		if name == "code" || name == "state" {
			e.add("a "+name, values[0])
		}
	}
	for _, c := range answer.Request.Cookies() {
		e.add("a cookie", c.Value)
	}
	for _, c := range answer.Cookies() {
		e.add("a cookie", c.Value)
	}
	if to, err := answer.Location(); err == nil {
		e.add("a state", to.Query().Get("state"))
		e.add("a nonce", to.Query().Get("nonce"))
	}
	if token := tokenMember.FindSubmatch(body); token != nil {
		e.add("an access token", string(token[1]))
		body = tokenMember.ReplaceAll(body, nil)
	}
	if _, target, found := strings.Cut(answer.Header.Get("Refresh"), "url="); found { // to the provider's logout
		if to, err := url.Parse(target); err == nil {
			e.add("an ID token", to.Query().Get("id_token_hint"))
			e.add("a state", to.Query().Get("state"))
		}
		body = bytes.ReplaceAll(body, []byte(html.EscapeString(target)), nil)
	}
	if answer.StatusCode/100 == 3 {
		body = nil // it repeats its Location
	}
	rest := answer.Header.Clone()
	rest.Del("Set-Cookie")
	rest.Del("Location")
	rest.Del("Refresh")
	e.answers = append(e.answers, fmt.Sprintf("%v\n%s", rest, body))
	return nil
}

// in names the secrets that a text shows.
func (e *ear) in(text string) (shown []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for secret, what := range e.secrets {
		if strings.Contains(text, secret) {
			shown = append(shown, what)
		}
	}
	if jwt.MatchString(text) {
		shown = append(shown, "a JWT") // one of the provider's, which nobody here has seen
	}
	return shown
}

// silent holds that none of it shows in what the bridge wrote, its metrics and its answers.
func (e *ear) silent(t *testing.T, written, metrics string) {
	t.Helper()
	look := func(where, text string) {
		if shown := e.in(text); len(shown) > 0 {
			t.Errorf("%s shows %s:\n%s", where, strings.Join(shown, ", "), text)
		}
	}
	for line := range strings.Lines(written) {
		look("the log", line)
		if random.MatchString(line) {
			t.Errorf("the log shows what may be a code, a verifier or a nonce: %s", line)
		}
	}
	look("/metrics", metrics)
	for _, answer := range e.answers {
		look("an answer", answer)
	}
}

// A canary that never sings proves nothing: each kind of secret passes by in a login, and would be found.
func TestCanaries(t *testing.T) {
	s := newShop(t)
	s.setUp(t, s.startProvider(t, "0"))
	bridge := s.serve(t)
	v := s.visit(t)
	v.login("basic", "ada")
	v.wantAt("/")
	access := v.token().text
	// And in what goes wrong: its cause is in the log.
	v.open(s.public + "/callback/basic?code=a-code-that-nobody-has-given&state=a-state-that-nobody-has-started")
	v.open(s.public + "/callback/basic?error=an-error-with-a-secret-inside&state=a-state-that-nobody-has-started")
	v.open(s.public + "/login/" + access)
	v.login("post", "rob")
	bridgetest.Await(t, "the log at debug level", func() bool { return strings.Contains(bridge.output.String(), `"path":"/auth/callback/post"`) })

	heard := map[string]bool{}
	s.ear.mu.Lock()
	secrets := maps.Clone(s.ear.secrets)
	s.ear.mu.Unlock()
	for secret, what := range secrets {
		heard[what] = true
		if len(s.ear.in("cause="+secret+"!")) == 0 {
			t.Errorf("%s in the log would go unnoticed", what)
		}
	}
	for _, what := range []string{"a client secret", "the JWT secret", "the cookie key", "the password of the database", "a code", "a state", "a nonce", "a cookie", "an access token"} {
		if !heard[what] {
			t.Errorf("%s did not pass by", what)
		}
	}
	if len(s.ear.answers) < 8 {
		t.Errorf("only %d answers", len(s.ear.answers))
	}
}
