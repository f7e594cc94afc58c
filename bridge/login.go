package bridge

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

// handleChooser is GET /login: the list of providers, or straight on when there is one.
func handleChooser(c *Config, providers []*Provider, pages *Pages) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		target := returnTo(c, r.URL.Query().Get("return_to"))
		if len(providers) == 1 {
			http.Redirect(w, r, pages.path("/login/"+providers[0].ID)+"?return_to="+url.QueryEscape(target), http.StatusSeeOther)
			return nil
		}
		return pages.chooser(w, providers, target)
	}
}

// handleLogin is GET /login/{provider}: it seals a new login state into a cookie and sends the browser to the provider. It reaches no
// database, so that nobody can fill one by starting logins (AR-06).
func handleLogin(c *Config, providers []*Provider, cookies *Cookies, now func() time.Time) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		provider, err := findProvider(providers, chi.URLParam(r, "provider"))
		if err != nil {
			return err
		}
		if !isNavigation(r) {
			return fmt.Errorf("%w: a login starts by going to its address", ErrCrossSite)
		}
		if cookies.InLoop(r) {
			return ErrLoop
		}
		login := NewLoginState(provider.ID, returnTo(c, r.URL.Query().Get("return_to")), now())
		target, err := provider.AuthorizationURL(r.Context(), login)
		if err != nil {
			return err
		}
		if err := cookies.PutLogin(w, r, login); err != nil {
			return err
		}
		http.Redirect(w, r, target, http.StatusFound)
		return nil
	}
}

// handleCallback is GET /callback/{provider}: the browser comes back from the provider (OpenID Connect Core 3.1.2.5).
//
// The login state is compared before anything else happens, and its cookie is cleared on every answer. Then the code is redeemed, the
// identity verified, the rules asked, and the login written: in this order, each step only after the one before it.
func handleCallback(providers []*Provider, active *ActiveRules, store *Store, cookies *Cookies, m *Metrics, log *slog.Logger,
	life time.Duration, now func() time.Time,
) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		provider, err := findProvider(providers, chi.URLParam(r, "provider"))
		if err != nil {
			return err
		}
		if isPrefetch(r) {
			return fmt.Errorf("%w: a prefetch", ErrMethodNotAllowed)
		}
		answer, err := authorizationResponse(r.URL.RawQuery)
		if err != nil {
			return err
		}
		login, err := cookies.TakeLogin(w, r, provider.ID, answer.state)
		if err != nil {
			return err
		}
		if err := provider.checkResponse(r.Context(), answer); err != nil {
			return err
		}
		rules := active.now()
		identity, err := provider.Exchange(r.Context(), rules.Rules, login, answer.code)
		if err != nil {
			return err
		}
		claims := rules.Capture(provider.ID, identity.Tokens)
		decision := rules.Decide(mapping.Input{Provider: provider.ID, Claims: claims, Now: now()})
		m.decided(provider.ID, decision)
		m.claims(provider.ID, decision)
		ref := newRef()
		if _, granted, reason := rules.role(decision); !granted && decision.Outcome() != mapping.FromRow {
			if err := store.Refuse(r.Context(), Refusal{
				Ref: ref, Provider: provider.ID, Identity: identity, Decision: decision, Reason: reason, RulesHash: rules.Hash(),
			}); err != nil {
				return err
			}
			return refusal{message: decision.Message(), ref: ref, reason: reason}
		}
		state := sha256.Sum256([]byte(login.State))
		token := NewSessionToken()
		in := SignIn{
			StateHash: state[:], Provider: provider.ID, Identity: identity, Claims: claims, Columns: rules.Columns(provider.ID, claims),
			Decision: decision, RulesHash: rules.Hash(), Ref: ref,
			Token: token, UserAgent: r.UserAgent(), Expires: now().Add(life),
		}
		if old, had := cookies.Session(r); had {
			in.Replaces = old.Hash()
		}
		signedIn, err := store.SignIn(r.Context(), in)
		switch {
		case err != nil:
			return err
		case signedIn.Disabled:
			return refusal{cause: ErrDisabled, ref: ref, reason: signedIn.Refused}
		case signedIn.LoggedOut:
			return refusal{cause: ErrLoggedOut, ref: ref, reason: signedIn.Refused}
		case signedIn.Refused != "":
			return refusal{message: signedIn.Message, ref: ref, reason: signedIn.Refused}
		}
		m.logins.WithLabelValues(provider.ID).Inc()
		log.Info("login", "provider", provider.ID, "rule", decision.Rule(), "request", w.Header().Get(requestIDHeader))
		cookies.PutSession(w, token)
		cookies.CountLogin(w, r)
		goBack(w, login.ReturnTo)
		return nil
	}
}

// goBack sends the browser where returnTo said. http.Redirect would shorten what looks like dots and slashes of the path, in a fragment too:
// /x#/../auth/logout would become another place than the one that was checked (RD-04).
func goBack(w http.ResponseWriter, target string) {
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
}

func findProvider(providers []*Provider, id string) (*Provider, error) {
	for _, p := range providers {
		if p.ID == id {
			return p, nil
		}
	}
	return nil, ErrUnknownProvider
}

// authorization is the provider's answer to the authorization request, as the browser brings it.
type authorization struct {
	code, state, failure, iss string
}

// authorizationResponse reads the query of a callback. Every parameter that we act on may stand there once; a code beside an error is no
// answer at all (CB-06).
func authorizationResponse(rawQuery string) (authorization, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return authorization{}, fmt.Errorf("%w: query", ErrCallback)
	}
	var a authorization
	for name, to := range map[string]*string{"code": &a.code, "state": &a.state, "error": &a.failure, "iss": &a.iss} {
		if values := query[name]; len(values) > 1 {
			return authorization{}, fmt.Errorf("%w: parameter %s twice", ErrCallback, name)
		} else if len(values) == 1 {
			*to = values[0]
		}
	}
	if (a.code == "") == (a.failure == "") {
		return authorization{}, fmt.Errorf("%w: neither a code nor an error, or both", ErrCallback)
	}
	return a, nil
}
