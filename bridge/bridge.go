// Package bridge is the service: it logs people in at OpenID providers and gives their browsers tokens for PostgREST.
//
// The route table in routes is the architecture: each handler gets what it may touch and nothing else. A login is a straight line,
//
//	handleLogin     new LoginState -> seal it into a cookie -> 302 to the provider
//	handleCallback  Cookies.TakeLogin -> Provider.Exchange (code, PKCE, every check of verify.go) -> Rules.Decide -> Store.SignIn
//	                (one transaction in one round trip) -> session cookie -> 303 back to the page
//
// and so is a token:
//
//	handleToken     session cookie -> Store.Session -> Rules.Decide -> Signer.Token -> JSON
//	                (Store.Session -> Provider.Refresh -> Store.Confirm -> Store.Session, when session.recheck has passed)
//
// A logout is two: one that begins here goes on to the provider, one that begins there comes to us.
//
//	handleLogout              Store.EndSession -> Provider.EndSessionURL -> a page that goes there -> handleLoggedOut
//	handleBackchannelLogout   Provider.LogoutToken (every check of verify.go) -> Store.EndProviderSessions
//
// The files, one noun each:
//
//	config*.go       config.yaml, checked in one go            provider.go      an OpenID provider, seen from its relying party
//	secret.go        text that cannot be printed               tokenresponse.go what its token endpoint answers
//	cookie.go        what the browser carries                  verify.go        the checks of its tokens that go-oidc leaves out
//	login.go         /login and /callback                      keyset.go        its public keys
//	token.go         /api_token and /me                        outbound.go      its HTTP client
//	logout.go        /logout, and the way by the provider      strictjson.go    JSON without its ambiguities
//	backchannel.go   logouts that providers send               device.go        a User-Agent in plain words
//	refresh.go       whether the provider still says so        sessions.go      /sessions
//	pages*.go        what people see                           store*.go        users, identities, sessions, events: their SQL
//	error.go         causes, and what may be told of them      signer.go        access tokens
//	middleware.go    what every request passes                 rules.go         the rules in force, and their reload
//	limit.go         how many logins an address may start      check*.go        what must be right before the first request
//	returnto.go      where a login may come back to            recent.go        a map of bounded size
//	identities.go    what operators ask about people           pasted.go        tokens that operators bring
//	people*.go       what operators do to people and sessions
//	vault.go         the provider's tokens in the database     gateway.go       /auth, and who asks for the API
//	memory.go        sessions that this replica has read       listen.go        how it hears that they have changed
//	housekeeping.go  what a replica does by itself
//	proxy.go         the way to PostgREST                      apipath.go       what of a request goes there
//	pace.go          clients that take their time               client.go        /bridge.js: all of this for scripts, in client/
//
// Claims become a role in package mapping, and nowhere else; only a mapping.Decision can carry a role into the Signer.
package bridge

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"golang.org/x/sync/errgroup"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

// drainTime is how long requests under way may take after the signal to stop.
const drainTime = 15 * time.Second

// Options are what a Bridge takes from the program around it.
type Options struct {
	Version string
	Log     *slog.Logger
	Now     func() time.Time // time.Now but in tests
}

// A Bridge is the running service.
type Bridge struct {
	public   http.Handler
	private  http.Handler
	config   *Config
	store    *Store
	rules    *ActiveRules
	metrics  *Metrics
	api      *upstream // nil: there is no proxy
	draining atomic.Bool
	log      *slog.Logger
}

// New puts the service together. Neither the database nor a provider need answer yet; Check looks at both.
func New(ctx context.Context, c *Config, rules *mapping.Rules, o Options) (*Bridge, error) {
	cookies, err := NewCookies(c, o.Now)
	if err != nil {
		return nil, err
	}
	signer, err := NewSigner(c, o.Now)
	if err != nil {
		return nil, err
	}
	pages, err := NewPages(c)
	if err != nil {
		return nil, err
	}
	metrics := NewMetrics(o.Version)
	var providers []*Provider
	for _, p := range c.Providers {
		provider, err := NewProvider(c, p, o.Log, metrics, o.Now)
		if err != nil {
			return nil, err
		}
		providers = append(providers, provider)
	}
	store, err := OpenStore(ctx, c, o.Now)
	if err != nil {
		return nil, err
	}
	active := NewActiveRules(c, rules, o.Log, metrics)
	b := &Bridge{config: c, store: store, rules: active, metrics: metrics, log: o.Log}
	if c.Proxy != nil {
		b.api = newUpstream(c, o.Log)
	}
	b.public = routes(c, providers, active, store, signer, cookies, pages, b.api, metrics, o)
	b.private = privateRoutes(b, metrics)
	return b, nil
}

// routes is what browsers and their pages can reach, and what each of it can touch.
func routes(c *Config, providers []*Provider, rules *ActiveRules, store *Store, signer *Signer, cookies *Cookies, pages *Pages,
	api *upstream, metrics *Metrics, o Options,
) http.Handler {
	errs := errorWriter{o.Log, metrics, pages}
	sessions := sessionReader{c, providers, rules, store, cookies, o.Log, metrics, o.Now}

	r := chi.NewRouter()
	r.Use(edge(c, o.Log, metrics, errs))
	r.NotFound(errs.unknown(ErrNotFound))
	r.MethodNotAllowed(allowed(r, errs.unknown(ErrMethodNotAllowed)))
	at := c.PublicURL.Path
	starts, failures := newLimiter(o.Now), newLimiter(o.Now)

	r.Get(at+"/login", errs.page(handleChooser(c, providers, pages)))
	r.Get(at+"/login/{provider}", errs.page(limitStarts(c, starts, handleLogin(c, providers, cookies, o.Now))))
	r.Get(at+"/callback/{provider}", errs.page(limitFailures(c, failures,
		handleCallback(providers, rules, store, cookies, metrics, o.Log, c.Session.Absolute, o.Now))))

	r.Get(at+"/api_token", errs.api(handleToken(sessions, signer, metrics, o.Now)))
	r.Get(at+"/me", errs.api(handleMe(sessions, signer)))
	r.Options(at+"/api_token", errs.api(handlePreflight(c)))
	r.Options(at+"/me", errs.api(handlePreflight(c)))

	gate := gateway{c, sessions, signer, metrics}
	r.Get(at+"/auth", errs.either(handleAuth(gate)))
	if api != nil {
		for _, method := range append(slices.Clone(gatewayMethods), http.MethodOptions) {
			r.Method(method, api.path, errs.either(handleProxy(gate, api)))
			r.Method(method, api.path+"/*", errs.either(handleProxy(gate, api)))
		}
	}

	r.Get(at+"/.well-known/jwks.json", errs.api(handleKeys()))
	r.Get(at+"/bridge.js", errs.api(handleClient()))

	r.Get(at+"/sessions", errs.page(handleSessions(sessions, store, pages)))
	r.Post(at+"/sessions", errs.page(handleEndSession(c, sessions, store, pages)))
	r.Get(at+"/logout", errs.page(handleConfirmLogout(c, pages)))
	r.Post(at+"/logout", errs.page(handleLogout(c, providers, store, cookies, pages, metrics, o.Log)))
	r.Get(at+"/logged-out", errs.page(handleLoggedOut(cookies, pages)))
	r.Post(at+"/backchannel-logout/{provider}", errs.backchannel(handleBackchannelLogout(c, providers, store, newLimiter(o.Now), metrics, o.Log)))
	return r
}

// privateRoutes is for the people who run the service: nothing of it is for browsers.
func privateRoutes(b *Bridge, metrics *Metrics) http.Handler {
	r := chi.NewRouter()
	r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	r.Get("/readyz", func(w http.ResponseWriter, r *http.Request) {
		status, text := http.StatusOK, "ok"
		if b.draining.Load() {
			status, text = http.StatusServiceUnavailable, "stopping"
		} else if err := b.store.Ping(r.Context()); err != nil {
			status, text = http.StatusServiceUnavailable, "the database does not answer"
		}
		writeJSON(w, status, map[string]string{"status": text, "rules": b.rules.now().Hash()})
	})
	r.Method(http.MethodGet, "/metrics", metrics.Handler())
	return r
}

// Public is the handler of the public listener, for programs that bring their own server.
func (b *Bridge) Public() http.Handler { return b.public }

// Private is the handler of the private listener.
func (b *Bridge) Private() http.Handler { return b.private }

// Close lets go of the database and of PostgREST.
func (b *Bridge) Close() {
	b.store.Close()
	if b.api != nil {
		b.api.transport.CloseIdleConnections()
	}
}

// Serve answers on both listeners until the context ends, then lets requests under way finish. /readyz says so first, so that load
// balancers send no more. It looks after the rules meanwhile: a changed file is put in force by itself, and looked at again at each signal of
// reload, which may be nil.
func (b *Bridge) Serve(ctx context.Context, public, private net.Listener, reload <-chan os.Signal) error {
	publicServer, privateServer := newServer(b.public, b.log), newServer(b.private, b.log)
	var group errgroup.Group
	serve := func(s *http.Server, l net.Listener) func() error {
		return func() error {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		}
	}
	ctx, failed := context.WithCancel(ctx)
	group.Go(func() error { defer failed(); return serve(publicServer, public)() })
	group.Go(func() error { defer failed(); return serve(privateServer, private)() })
	group.Go(func() error { b.rules.watch(ctx, reload); return nil })
	group.Go(func() error { b.store.listen(ctx, b.config.Database.Listen, b.log, b.metrics); return nil })
	group.Go(func() error { b.store.housekeep(ctx, b.config.KeepEvents, b.log, b.metrics); return nil })
	<-ctx.Done()
	b.draining.Store(true)
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	return errors.Join(publicServer.Shutdown(deadline), privateServer.Shutdown(deadline), group.Wait())
}

// newServer has limits for everything that a slow or greedy client could hold on to (HS-01, HS-02).
func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    32 << 10,
		// net/http would answer OPTIONS * itself, without the headers that stand on every answer (HS-03).
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
