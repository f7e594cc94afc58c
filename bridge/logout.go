package bridge

import (
	"errors"
	"fmt"
	"net/http"
)

// handleConfirmLogout is GET /logout. It changes nothing: a link on another site must not be able to log anybody out (LO-01).
func handleConfirmLogout(c *Config, pages *Pages) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		return pages.confirmLogout(w, returnTo(c, r.URL.Query().Get("return_to")))
	}
}

// handleLogout is POST /logout: the session ends here, and the browser forgets the cookie and the cached tokens. Without session it does
// the same, so that it can be repeated.
func handleLogout(c *Config, store *Store, cookies *Cookies, pages *Pages) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !isSameOriginPost(r, origin(c.PublicURL)) {
			return fmt.Errorf("%w: logout by POST from elsewhere", ErrCrossSite)
		}
		var tooLarge *http.MaxBytesError
		if err := r.ParseForm(); errors.As(err, &tooLarge) {
			return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, tooLarge.Limit)
		}
		if token, found := cookies.Session(r); found {
			if err := store.EndSession(r.Context(), token); err != nil {
				return err
			}
		}
		cookies.ClearSession(w)
		// "cache" only: "storage" would wipe what the application keeps in the browser.
		w.Header().Set("Clear-Site-Data", `"cache"`)
		return pages.loggedOut(w, returnTo(c, r.PostFormValue("return_to")))
	}
}
