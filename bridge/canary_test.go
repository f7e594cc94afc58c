package bridge_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Every service of the tests carries canaries: the secrets of its configuration, and those that its logins make. When its test ends, leaks
// looks for them in whatever others can read: the log at debug level, the metrics, and every answer of the public listener (CF-02).

const (
	clientSecret     = "s3cret:+%/ü"
	databasePassword = "canary-of-the-database" // our own server lets everybody in with any
)

// withPassword puts the canary into a connection string that has no password.
func withPassword(databaseURL string) string {
	u, err := url.Parse(databaseURL)
	if err != nil {
		panic(err)
	}
	if _, has := u.User.Password(); !has {
		u.User = url.UserPassword(u.User.Username(), databasePassword)
	}
	return u.String()
}

// configured are the secrets of config.yaml in the spellings in which a leak would show them.
func (s *service) configured() map[string]string {
	found := map[string]string{}
	for name, secret := range map[string]string{
		"JWT secret": s.Config.Signing.Key.Reveal(), "cookie key": s.Config.CookieKeys[0].Reveal(),
		"client secret": s.Config.Providers[0].ClientSecrets[0].Reveal(),
	} {
		found[name] = secret
		found[name+" in hex"] = hex.EncodeToString([]byte(secret))
		found[name+" in base64"] = base64.StdEncoding.EncodeToString([]byte(secret))
		found[name+" in a form"] = url.QueryEscape(secret)
	}
	found["basic credentials"] = base64.StdEncoding.EncodeToString([]byte("bridge:" + url.QueryEscape(clientSecret)))
	if u, err := url.Parse(s.Config.Database.URL.Reveal()); err == nil {
		found["database password"], _ = u.User.Password()
	}
	return found
}

var hintInPage = regexp.MustCompile(`id_token_hint=[\w.-]+`)

// canaryBytes is how much of a random secret counts as the secret: 96 bits in base64url.
const canaryBytes = 16

// A flock finds the beginnings of many random secrets in a text at once.
type flock map[string]string // beginning -> what it is

func (f flock) add(what string, secrets ...string) {
	for _, secret := range secrets {
		if parts := strings.Split(secret, "."); len(parts) == 3 { // of a JWT: the signature. Headers are all alike
			secret = parts[2]
		}
		if len(secret) >= canaryBytes {
			f[secret[:canaryBytes]] = what
		}
	}
}

func (f flock) in(text string) (what string, found bool) {
	for i := range max(0, len(text)-canaryBytes+1) {
		if what, found = f[text[i:i+canaryBytes]]; found {
			return what, true
		}
	}
	return "", false
}

// leaks says which secret was seen where it does not belong. The log is the service's own but in the test of this function.
func (s *service) leaks(log []string) (found []string) {
	cookies, logins, rest := flock{}, flock{}, flock{}
	rest.add("a secret of the provider", s.OP.Secrets()...)
	answers := s.heard.answers()
	for _, a := range answers {
		for _, c := range a.Cookies() {
			cookies.add("cookie "+c.Name, c.Value)
		}
		if to, err := a.Location(); err == nil && strings.HasPrefix(to.String(), s.OP.Issuer()) {
			logins.add("state", to.Query().Get("state"))
			logins.add("nonce", to.Query().Get("nonce"))
		}
		rest.add("an access token", a.token)
	}
	for beginning := range logins {
		delete(rest, beginning)
	}
	configured := s.configured()
	look := func(where, text string, flocks ...flock) {
		for name, secret := range configured {
			if secret != "" && strings.Contains(text, secret) {
				found = append(found, fmt.Sprintf("%s shows the %s: %.300q", where, name, text))
			}
		}
		for _, f := range flocks {
			if what, leaked := f.in(text); leaked {
				found = append(found, fmt.Sprintf("%s shows %s: %.300q", where, what, text))
			}
		}
	}
	for _, line := range log {
		look("the log", line, cookies, logins, rest)
	}
	_, metrics := get(s.t, s.Private+"/metrics")
	look("/metrics", metrics, cookies, logins, rest)
	for _, a := range answers {
		if a.StatusCode/100 == 3 { // it repeats its Location
			look("a redirect", a.body, cookies, rest)
		} else {
			look("an answer", a.body, cookies, logins, rest)
		}
		for _, name := range slices.Sorted(maps.Keys(a.Header)) {
			text := strings.Join(a.Header[name], "\n")
			switch name {
			case "Set-Cookie":
				look("Set-Cookie", text, logins, rest)
			case "Location":
				look("Location", text, cookies, rest)
			case "Authorization":
				if a.Request == nil || a.Request.URL.Path != s.Config.PublicURL.Path+"/auth" { // where it is the answer
					look("Authorization", text, cookies, logins, rest)
				}
			default:
				look("the header "+name, text, cookies, logins, rest)
			}
		}
	}
	return found
}

// A recorder is a listener that keeps what its connections received and sent.
type recorder struct {
	net.Listener
	mu    sync.Mutex
	conns []*recordedConn
}

type recordedConn struct {
	net.Conn
	mu             sync.Mutex
	received, sent bytes.Buffer
}

func (r *recorder) Accept() (net.Conn, error) {
	conn, err := r.Listener.Accept()
	if err != nil {
		return nil, err
	}
	recorded := &recordedConn{Conn: conn}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, recorded)
	return recorded, nil
}

func (c *recordedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received.Write(p[:n])
	return n, err
}

func (c *recordedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.sent.Write(p)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// A heardAnswer is an answer, and the access token that was taken out of its body.
type heardAnswer struct {
	*http.Response
	body, token string
}

func (r *recorder) answers() (answers []heardAnswer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.mu.Lock()
		requests, sent := bufio.NewReader(bytes.NewReader(c.received.Bytes())), bufio.NewReader(bytes.NewReader(c.sent.Bytes()))
		for {
			request, err := http.ReadRequest(requests) // a HEAD has an answer without body
			if err == nil {
				_, _ = io.Copy(io.Discard, request.Body)
			}
			response, err := http.ReadResponse(sent, request)
			if err != nil {
				break
			}
			body, _ := io.ReadAll(response.Body)
			a := heardAnswer{Response: response, body: string(body)}
			var granted struct{ Token string }
			if json.Unmarshal(body, &granted) == nil && granted.Token != "" {
				a.token, a.body = granted.Token, strings.Replace(a.body, granted.Token, "", 1)
			}
			// An ID token goes back to its provider at the logout.
			a.body = hintInPage.ReplaceAllString(a.body, "")
			if refresh := a.Header.Get("Refresh"); refresh != "" {
				a.Header.Set("Refresh", hintInPage.ReplaceAllString(refresh, ""))
			}
			answers = append(answers, a)
		}
		c.mu.Unlock()
	}
	return answers
}
