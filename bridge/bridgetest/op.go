package bridgetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Persona is somebody who can log in at an [OP], without a password.
type Persona struct {
	Subject string // `sub`, and what the page sends back: unique per provider
	Name    string // shown on the page
	Note    string // shown below the name

	IDToken  map[string]any // claims added to the ID token
	UserInfo map[string]any // claims added to the UserInfo response
	// AccessToken holds claims added to an access token that is a JWT, as Keycloak's are. nil: the access token is an opaque string.
	AccessToken map[string]any
}

// Client is a confidential relying party.
type Client struct {
	ID, Secret             string
	Name                   string   // shown on the page; default the ID
	RedirectURIs           []string // compared as strings
	PostLogoutRedirectURIs []string
	BackchannelLogoutURI   string // "": it is not told of logouts
}

// OPOptions configures [StartOP].
type OPOptions struct {
	Addr       string // host:port to listen on; the host becomes the issuer's. Default 127.0.0.1:0
	IssuerPath string // of the issuer URL, such as /realms/test
	TLS        *tls.Config
	Name       string // shown on the pages; default "Test provider"
	Personas   []Persona
	Clients    []Client
	Now        func() time.Time // default time.Now
}

// OP is an OpenID Provider for tests and the demo: authorization code flow with PKCE (required), discovery, UserInfo, RP-initiated
// and back-channel logout, and, for the scope offline_access, refresh tokens that are used once. It follows the specifications until
// [OP.Set] tells it not to.
type OP struct {
	options OPOptions
	issuer  string
	addr    string // where it listens, also after a restart

	mu            sync.Mutex // guards what follows
	server        *http.Server
	current       Behaviour
	keys          []*opKeys // newest first
	personas      []Persona
	clients       []Client
	codes         map[string]grant // by authorization code
	accessTokens  map[string]grant
	refreshTokens map[string]grant // those that were used, too
	sessions      []grant          // that got tokens and have not ended
	logouts       []SentLogout
	requests      map[string][]RecordedRequest // by endpoint
	secrets       []string
}

// RecordedRequest is a request that an [OP] received.
type RecordedRequest struct {
	Method string
	URL    *url.URL
	Header http.Header
	Form   url.Values // parameters of the query and of a form body
	Body   []byte
}

// StartOP starts a provider. The context bounds the start only; the caller ends the provider with Close.
func StartOP(ctx context.Context, o OPOptions) (*OP, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Name == "" {
		o.Name = "Test provider"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	keys, err := newOPKeys(1)
	if err != nil {
		return nil, fmt.Errorf("starting the provider: %w", err)
	}
	op := &OP{
		options: o, addr: o.Addr,
		keys: []*opKeys{keys}, personas: slices.Clone(o.Personas), clients: slices.Clone(o.Clients),
		codes: map[string]grant{}, accessTokens: map[string]grant{}, refreshTokens: map[string]grant{}, requests: map[string][]RecordedRequest{},
	}
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("starting the provider: %w", err)
	}
	listener, err := op.listen(ctx)
	if err != nil {
		return nil, err
	}
	op.addr = listener.Addr().String()
	_, port, _ := net.SplitHostPort(op.addr)
	scheme := "http"
	if o.TLS != nil {
		scheme = "https"
	}
	op.issuer = scheme + "://" + net.JoinHostPort(host, port) + o.IssuerPath
	op.serve(listener)
	return op, nil
}

func (op *OP) listen(ctx context.Context) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", op.addr)
	if err != nil {
		return nil, fmt.Errorf("starting the provider: %w", err)
	}
	if op.options.TLS != nil {
		listener = tls.NewListener(listener, op.options.TLS)
	}
	return listener, nil
}

func (op *OP) serve(listener net.Listener) {
	server := &http.Server{Handler: op.routes(), ReadHeaderTimeout: 10 * time.Second}
	op.mu.Lock()
	op.server = server
	op.mu.Unlock()
	go server.Serve(listener)
}

// Issuer returns the issuer URL, without a trailing slash.
func (op *OP) Issuer() string { return op.issuer }

// Close makes the provider unreachable, as when it is down: connections are cut and new ones refused. Closing twice is fine.
func (op *OP) Close() error {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.server.Close()
}

// Restart brings a closed provider back at the same address, with the same keys, codes and tokens.
func (op *OP) Restart() error {
	listener, err := op.listen(context.Background())
	if err != nil {
		return err
	}
	op.serve(listener)
	return nil
}

// AddClient registers a client, in place of one with the same id. (Tests learn their redirect URI after the provider has started.)
func (op *OP) AddClient(c Client) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.clients = append(slices.DeleteFunc(slices.Clone(op.clients), func(old Client) bool { return old.ID == c.ID }), c)
}

// SetPersonas replaces the personas, from the next page on.
func (op *OP) SetPersonas(personas ...Persona) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.personas = slices.Clone(personas)
}

func (op *OP) client(id string) (Client, bool) {
	op.mu.Lock()
	defer op.mu.Unlock()
	return find(op.clients, func(c Client) bool { return c.ID == id })
}

func (op *OP) persona(subject string) (Persona, bool) {
	op.mu.Lock()
	defer op.mu.Unlock()
	return find(op.personas, func(p Persona) bool { return p.Subject == subject })
}

func find[T any](list []T, match func(T) bool) (found T, ok bool) {
	if i := slices.IndexFunc(list, match); i >= 0 {
		return list[i], true
	}
	return found, false
}

// Calls returns how many requests an endpoint received: discovery, jwks, authorize (its GET), decision (its POST), token, userinfo or
// end_session.
func (op *OP) Calls(endpoint string) int { return len(op.Requests(endpoint)) }

// Requests returns the requests that an endpoint received, oldest first.
func (op *OP) Requests(endpoint string) []RecordedRequest {
	op.mu.Lock()
	defer op.mu.Unlock()
	return slices.Clone(op.requests[endpoint])
}

// ForgetRequests sets all counts back to zero.
func (op *OP) ForgetRequests() {
	op.mu.Lock()
	defer op.mu.Unlock()
	clear(op.requests)
}

// Secrets returns what passed through the provider and nobody but the two ends of each message may know: states, nonces, codes, code
// verifiers, access tokens, refresh tokens and ID tokens. ForgetRequests forgets none of them.
func (op *OP) Secrets() []string {
	op.mu.Lock()
	defer op.mu.Unlock()
	return slices.Clone(op.secrets)
}

func (op *OP) passed(secrets ...string) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.secrets = append(op.secrets, secrets...)
}

// endpoint records a request, then answers it: with the behaviour's own handler if there is one, else with handler.
func (op *OP) endpoint(name string, handler http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if err := r.ParseForm(); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		op.mu.Lock()
		op.requests[name] = append(op.requests[name],
			RecordedRequest{Method: r.Method, URL: r.URL, Header: r.Header.Clone(), Form: r.Form, Body: body})
		op.mu.Unlock()
		if override := op.behaviour().Handle[name]; override != nil && override(w, r) {
			return
		}
		handler(w, r)
	}
}
