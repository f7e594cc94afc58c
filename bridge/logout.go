package bridge

import (
	"context"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// logoutLife is how long a browser may be at the provider for its logout there.
const logoutLife = 10 * time.Minute

// handleConfirmLogout is GET /logout. It changes nothing: a link on another site must not be able to log anybody out (LO-01).
func handleConfirmLogout(c *Config, pages *Pages) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		return pages.confirmLogout(w, returnTo(c, r.URL.Query().Get("return_to")))
	}
}

// handleLogout is POST /logout. First the session ends here, and the browser forgets the cookie and the cached tokens. Then the browser goes
// to the provider, where that has a logout (RP-Initiated Logout 1.0): whatever is wrong there or on the way, the person is logged out here.
// Without session it does the same, so that it can be repeated.
func handleLogout(c *Config, providers []*Provider, store *Store, cookies *Cookies, pages *Pages, m *Metrics, log *slog.Logger) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := readOwnForm(c, r, "logout"); err != nil {
			return err
		}
		var ended EndedSession
		if token, found := cookies.Session(r); found {
			var err error
			if ended, err = store.EndSession(r.Context(), token); err != nil && !errors.Is(err, ErrNoSession) {
				return err
			}
		}
		cookies.ClearSession(w)
		// "cache" only: "storage" would wipe what the application keeps in the browser.
		w.Header().Set("Clear-Site-Data", `"cache"`)
		back := returnTo(c, r.PostFormValue("return_to"))
		// The provider may be another one by now than the one of the session, or none (IL-12).
		provider, err := findProvider(providers, ended.Provider)
		if err != nil || provider.Issuer != ended.Issuer {
			return pages.loggedOut(w, back, true)
		}
		m.loggedOut(provider.ID, "here", 1)
		state := randomText()
		target, err := endSessionURL(r.Context(), provider, store, ended, state)
		if err != nil {
			log.Warn("no logout at the provider", "provider", provider.ID, "cause", oneLine(err.Error()), "request", w.Header().Get(requestIDHeader))
		}
		if target == "" {
			return pages.loggedOut(w, back, true)
		}
		if err := cookies.putLogout(w, logoutState{State: state, ReturnTo: back, Started: cookies.now().Unix()}); err != nil {
			return err
		}
		return pages.leave(w, provider.Name, target)
	}
}

func endSessionURL(ctx context.Context, provider *Provider, store *Store, ended EndedSession, state string) (string, error) {
	idToken, err := store.IDToken(ended)
	if err != nil {
		return "", err
	}
	return provider.EndSessionURL(ctx, idToken, state)
}

// handleLoggedOut is GET /logged-out, the post_logout_redirect_uri that is registered at the provider: the browser comes back from its logout
// there. It goes nowhere from here, and shows the way back to the application only with the state that this browser took along (LO-03).
func handleLoggedOut(cookies *Cookies, pages *Pages) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		back, ours := cookies.takeLogout(w, r, r.URL.Query().Get("state"))
		if _, loggedIn := cookies.Session(r); loggedIn && !ours {
			return pages.confirmLogout(w, back) // a link must not tell somebody that they are logged out who is not
		}
		return pages.loggedOut(w, back, false)
	}
}

// logoutState is what a browser takes along to the provider's logout, in a sealed cookie.
type logoutState struct {
	State    string `json:"s"` // RP-Initiated Logout 1.0 section 3
	ReturnTo string `json:"r"` // checked by returnTo
	Started  int64  `json:"t"` // Unix seconds
}

// putLogout replaces the state of an earlier logout, if there is one.
func (c *Cookies) putLogout(w http.ResponseWriter, state logoutState) error {
	value, err := c.logouts.sealJSON(c.logout, state)
	if err != nil {
		return err
	}
	c.set(w, c.logout, value, logoutLife)
	return nil
}

// takeLogout returns where the logout that this browser began with the state goes back to, and clears its cookie. With any other state that
// is "/", and nothing is cleared.
func (c *Cookies) takeLogout(w http.ResponseWriter, r *http.Request, state string) (returnTo string, ours bool) {
	found := r.CookiesNamed(c.logout)
	if len(found) != 1 || state == "" {
		return "/", false
	}
	var began logoutState
	if err := c.logouts.openJSON(c.logout, found[0].Value, &began); err != nil {
		return "/", false
	}
	age := c.now().Sub(time.Unix(began.Started, 0))
	if age > logoutLife || age < -clockSkew || subtle.ConstantTimeCompare([]byte(began.State), []byte(state)) != 1 {
		return "/", false
	}
	c.clear(w, c.logout)
	return began.ReturnTo, true
}
