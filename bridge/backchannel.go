package bridge

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"
)

// handleBackchannelLogout is POST /backchannel-logout/{provider}: the provider itself says that somebody has logged out there (Back-Channel
// Logout 1.0). Anybody may call it, so that nothing is written before the token's signature was verified, and an address that keeps sending
// bad ones is not listened to (LO-09). A good token is 200, whether a session ended or not.
func handleBackchannelLogout(c *Config, providers []*Provider, store *Store, failures *limiter, m *Metrics, log *slog.Logger) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		provider, err := findProvider(providers, chi.URLParam(r, "provider"))
		if err != nil {
			return err
		}
		addr := clientAddr(c, r)
		if !failures.left(addr) {
			return fmt.Errorf("%w: bad logout tokens of %s", ErrTooMany, addr)
		}
		ended, err := backchannelLogout(r, provider, store)
		if err != nil {
			if !errors.Is(err, ErrDatabase) && !errors.Is(err, ErrProviderDown) { // those are not the caller's
				failures.take(addr)
			}
			return fmt.Errorf("provider %s: %w", provider.ID, err)
		}
		m.loggedOut(provider.ID, "provider", ended)
		log.Info("logout by the provider", "provider", provider.ID, "sessions", ended, "request", w.Header().Get(requestIDHeader))
		w.WriteHeader(http.StatusOK)
		return nil
	}
}

func backchannelLogout(r *http.Request, provider *Provider, store *Store) (ended int, err error) {
	token, err := logoutTokenIn(r)
	if err != nil {
		return 0, err
	}
	logout, err := provider.LogoutToken(r.Context(), token)
	if err != nil {
		return 0, err
	}
	return store.EndProviderSessions(r.Context(), logout)
}

// logoutTokenIn reads the one logout_token of the form in the body (section 2.5). A query counts for nothing.
func logoutTokenIn(r *http.Request) (string, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return "", fmt.Errorf("%w: content type %.100q", ErrLogoutToken, r.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return "", fmt.Errorf("%w: more than %d bytes", ErrTooLarge, tooLarge.Limit)
	} else if err != nil {
		return "", fmt.Errorf("%w: body: %v", ErrLogoutToken, err)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return "", fmt.Errorf("%w: the body is no form", ErrLogoutToken)
	}
	if tokens := form["logout_token"]; len(tokens) != 1 {
		return "", fmt.Errorf("%w: %d of the parameter logout_token", ErrLogoutToken, len(tokens))
	}
	return form.Get("logout_token"), nil
}

// backchannel makes an http.Handler of h whose errors are those of section 2.8. They tell a caller nothing that it did not know.
func (e errorWriter) backchannel(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		public, ref := e.record(w, r, err)
		code := public.reason
		if public.status == http.StatusBadRequest {
			code = "invalid_request"
		}
		public.setHeader(w.Header())
		writeJSON(w, public.status, map[string]string{"error": code, "error_description": public.text + " Code for the log: " + ref})
	}
}
