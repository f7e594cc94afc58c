package bridge

import (
	"cmp"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	loginLife       = 10 * time.Minute // of a login under way
	maxPending      = 5                // logins under way in one browser
	maxPendingBytes = 3500             // of their cookies together: the whole Cookie header must stay below 4 KB

	loopLogins = 3                // logins in a row after which the fourth is a page
	loopPause  = 20 * time.Second // between two of them that still counts as in a row

	sessionBytes = 32 // random part of a session token
	macBytes     = 16
)

var base64url = base64.RawURLEncoding.Strict()

// LoginState is a login under way. It lives in a sealed cookie in the browser that started it, and nowhere else. State, Nonce and
// Verifier are independent 256-bit random values, in base64url.
type LoginState struct {
	State    string `json:"s"` // RFC 6749 section 10.12
	Nonce    string `json:"n"` // OpenID Connect Core 15.5.2
	Verifier string `json:"v"` // PKCE code_verifier, RFC 7636 section 4.1
	ReturnTo string `json:"r"` // where the browser goes after the login, checked by returnTo
	Provider string `json:"p"`
	Started  int64  `json:"t"` // Unix seconds
}

// SessionToken is the random part of the session cookie. The database knows its hash only.
type SessionToken [sessionBytes]byte

// Hash is what the database stores.
func (t SessionToken) Hash() []byte {
	sum := sha256.Sum256(t[:])
	return sum[:]
}

// NewSessionToken makes a token that was never used.
func NewSessionToken() (t SessionToken) {
	rand.Read(t[:])
	return t
}

// NewLoginState starts a login.
func NewLoginState(provider, returnTo string, now time.Time) LoginState {
	return LoginState{
		State: randomText(), Nonce: randomText(), Verifier: randomText(), ReturnTo: returnTo, Provider: provider, Started: now.Unix(),
	}
}

// randomText is 256 random bits in base64url.
func randomText() string {
	var b [32]byte
	rand.Read(b[:])
	return base64url.EncodeToString(b[:])
}

// Cookies reads and writes what the browser carries: the session token and the logins under way.
//
// On https all names carry the prefix __Host- (RFC 6265bis: Secure, Path=/, no Domain). A part of the name comes from public_url, since
// every application on the host gets our cookies and two bridges on one host must not take each other's.
type Cookies struct {
	logins   sealer   // of login states
	logouts  sealer   // of logout states
	macs     []macKey // of session tokens: the first makes them, all check
	session  string
	login    string // prefix of the names of login cookies
	logout   string
	loop     string
	secure   bool
	lifetime time.Duration
	now      func() time.Time
}

// A macKey is a pool of hash.Hash: HMAC-SHA256 with the key.
type macKey struct{ *sync.Pool }

// NewCookies derives the keys. Each purpose has a key of its own, so that no cookie can stand in for another (SC-11).
func NewCookies(c *Config, now func() time.Time) (*Cookies, error) {
	host := sha256.Sum256([]byte(c.PublicURL.String()))
	prefix := "__Host-"
	if c.InsecureDev && c.PublicURL.Scheme == "http" {
		prefix = "" // Safari drops Secure cookies on loopback http
	}
	name := hex.EncodeToString(host[:4])
	cookies := &Cookies{
		session: prefix + "session-" + name, login: prefix + "ls-" + name + "-", logout: prefix + "lo-" + name, loop: prefix + "loop-" + name,
		secure: prefix != "", lifetime: c.Session.Absolute, now: now,
	}
	var err error
	if cookies.logins, err = newSealer(c.CookieKeys, "oidc-bridge login state 1"); err != nil {
		return nil, err
	}
	if cookies.logouts, err = newSealer(c.CookieKeys, "oidc-bridge logout state 1"); err != nil {
		return nil, err
	}
	for _, secret := range c.CookieKeys {
		key, err := hkdf.Key(sha256.New, []byte(secret.Reveal()), nil, "oidc-bridge session token 1", 32)
		if err != nil {
			return nil, err
		}
		cookies.macs = append(cookies.macs, macKey{&sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}})
	}
	return cookies, nil
}

// PutLogin adds the login to those under way. The oldest are dropped when there are too many of them.
func (c *Cookies) PutLogin(w http.ResponseWriter, r *http.Request, login LoginState) error {
	type pending struct {
		name    string
		bytes   int
		started int64
	}
	var others []pending
	for _, cookie := range r.Cookies() {
		if !strings.HasPrefix(cookie.Name, c.login) {
			continue
		}
		if old, err := c.open(cookie.Name, cookie.Value); err != nil {
			c.clear(w, cookie.Name)
		} else {
			others = append(others, pending{cookie.Name, len(cookie.Name) + len(cookie.Value), old.Started})
		}
	}
	name := c.loginName(login.State)
	value, err := c.seal(name, login)
	if err != nil {
		return err
	}
	// The newest first. Of those started in the same second the browser names the older first (RFC 6265 section 5.4).
	slices.Reverse(others)
	slices.SortStableFunc(others, func(a, b pending) int { return cmp.Compare(b.started, a.started) })
	bytes := len(name) + len(value)
	for i, p := range others {
		if bytes += p.bytes; i+2 > maxPending || bytes > maxPendingBytes {
			c.clear(w, p.name)
		}
	}
	c.set(w, name, value, loginLife)
	return nil
}

// TakeLogin returns the login that this browser started with the state at the provider, and clears its cookie. A state that this browser
// does not hold clears nothing.
func (c *Cookies) TakeLogin(w http.ResponseWriter, r *http.Request, provider, state string) (LoginState, error) {
	if state == "" || len(state) > 128 {
		return LoginState{}, fmt.Errorf("%w: state missing or oversized", ErrLoginState)
	}
	name := c.loginName(state)
	found := r.CookiesNamed(name)
	if len(found) != 1 {
		return LoginState{}, fmt.Errorf("%w: %d cookies for this state", ErrLoginState, len(found))
	}
	login, err := c.open(name, found[0].Value)
	if err != nil {
		return LoginState{}, err
	}
	if subtle.ConstantTimeCompare([]byte(login.State), []byte(state)) != 1 || login.State == "" {
		return LoginState{}, fmt.Errorf("%w: another state in the cookie", ErrLoginState)
	}
	if login.Provider != provider {
		return LoginState{}, fmt.Errorf("%w: started at provider %s", ErrLoginState, login.Provider)
	}
	c.clear(w, name)
	return login, nil
}

func (c *Cookies) loginName(state string) string {
	sum := sha256.Sum256([]byte(state))
	return c.login + hex.EncodeToString(sum[:4])
}

func (c *Cookies) seal(name string, login LoginState) (string, error) {
	return c.logins.sealJSON(name, login)
}

// sealJSON makes the value of the cookie with the name.
func (s sealer) sealJSON(name string, value any) (string, error) {
	plain, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	return base64url.EncodeToString(s.seal(name, plain)), nil
}

// openJSON reads the value of the cookie with the name.
func (s sealer) openJSON(name, value string, to any) error {
	sealed, err := base64url.DecodeString(value)
	if err != nil {
		return errors.New("not base64url")
	}
	plain, ok := s.open(name, sealed)
	if !ok {
		return errors.New("sealed by none of our keys")
	}
	return json.Unmarshal(plain, to)
}

// open returns the login state sealed under the cookie's name, unless it is too old.
func (c *Cookies) open(name, value string) (LoginState, error) {
	var login LoginState
	if err := c.logins.openJSON(name, value, &login); err != nil {
		return LoginState{}, fmt.Errorf("%w: %v", ErrLoginState, err)
	}
	age := c.now().Sub(time.Unix(login.Started, 0))
	if age > loginLife || age < -clockSkew {
		return LoginState{}, fmt.Errorf("%w: started %s ago", ErrLoginExpired, age.Round(time.Second))
	}
	return login, nil
}

// PutSession gives the browser its session token.
func (c *Cookies) PutSession(w http.ResponseWriter, token SessionToken) {
	mac := c.macs[0].of(token)
	c.set(w, c.session, base64url.EncodeToString(append(token[:], mac[:]...)), c.lifetime)
}

// Session returns the session token of the request. A cookie that none of our keys made is none, and neither are two of our name: somebody
// planted one of them (SC-03). So only tokens that we made reach the database.
func (c *Cookies) Session(r *http.Request) (SessionToken, bool) {
	found := r.CookiesNamed(c.session)
	if len(found) != 1 || len(found[0].Value) != base64url.EncodedLen(sessionBytes+macBytes) {
		return SessionToken{}, false
	}
	value, err := base64url.DecodeString(found[0].Value)
	if err != nil {
		return SessionToken{}, false
	}
	token := SessionToken(value[:sessionBytes])
	for _, key := range c.macs {
		if mac := key.of(token); hmac.Equal(value[sessionBytes:], mac[:]) {
			return token, true
		}
	}
	return SessionToken{}, false
}

// carriesSession reports whether the request has a session cookie, or anything that somebody might read as one.
func (c *Cookies) carriesSession(r *http.Request) bool {
	return slices.ContainsFunc(r.Header["Cookie"], func(line string) bool { return strings.Contains(line, c.session) })
}

// others are the request's cookies but ours, as the browser wrote them.
func (c *Cookies) others(r *http.Request) string {
	var kept []string
	for _, line := range r.Header["Cookie"] {
		for cookie := range strings.SplitSeq(line, ";") {
			if cookie = strings.TrimSpace(cookie); cookie != "" && !c.isOurs(cookie) {
				kept = append(kept, cookie)
			}
		}
	}
	return strings.Join(kept, "; ")
}

// isOurs reports whether somebody might read a cookie of ours in this text, "name=value" of Cookie or Set-Cookie.
func (c *Cookies) isOurs(cookie string) bool {
	names := []string{c.session, c.login, c.logout, c.loop}
	return slices.ContainsFunc(names, func(name string) bool { return strings.Contains(cookie, name) })
}

// ClearSession takes the session token out of the browser.
func (c *Cookies) ClearSession(w http.ResponseWriter) {
	c.clear(w, c.session)
	c.clear(w, c.loop)
}

// CountLogin counts the logins that this browser finished in a row. Nothing is decided by the number but when to stop, so it is not sealed.
func (c *Cookies) CountLogin(w http.ResponseWriter, r *http.Request) {
	c.set(w, c.loop, strconv.Itoa(c.loginsInARow(r)+1), loopPause)
}

// InLoop reports whether a page of the application sends the browser back here as soon as it is logged in, over and over (RD-04). People who
// click or type may log in as often as they like; browsers tell them apart, and end loops of mere redirects themselves.
func (c *Cookies) InLoop(r *http.Request) bool {
	bySomebody := r.Header.Get("Sec-Fetch-User") != "" || r.Header.Get("Sec-Fetch-Site") == "none" || r.Header.Get("Sec-Fetch-Site") == ""
	return !bySomebody && c.loginsInARow(r) >= loopLogins
}

func (c *Cookies) loginsInARow(r *http.Request) int {
	cookie, err := r.Cookie(c.loop)
	if err != nil || len(cookie.Value) != 1 {
		return 0
	}
	n, err := strconv.Atoi(cookie.Value)
	if err != nil {
		return 0
	}
	return n
}

func (k macKey) of(token SessionToken) [macBytes]byte {
	h := k.Get().(hash.Hash)
	defer k.Put(h)
	h.Reset()
	h.Write(token[:])
	return [macBytes]byte(h.Sum(nil))
}

func (c *Cookies) set(w http.ResponseWriter, name, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second), Secure: c.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

func (c *Cookies) clear(w http.ResponseWriter, name string) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Path: "/", MaxAge: -1, Secure: c.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}
