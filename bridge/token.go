package bridge

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

// handleToken is GET /api_token: a token for PostgREST from the session's claims and the rules of this moment (product.md has the contract).
func handleToken(sessions sessionReader, signer *Signer, m *Metrics, now func() time.Time) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		grant, err := sessions.grant(w, r)
		if err != nil {
			return err
		}
		token, err := signer.Token(grant)
		if err != nil {
			return err
		}
		left := token.Expires.Sub(now())
		m.tokens.Inc()
		w.Header().Set("Cache-Control", "private, max-age="+strconv.Itoa(max(0, int((left-cacheMargin)/time.Second))))
		w.Header().Set("Content-Type", "application/json")
		// Seconds from now, so that a wrong browser clock does not matter. In a JWT is nothing that JSON would escape (RFC 7515 section 7.1).
		_, _ = w.Write([]byte(`{"token":"` + token.JWT + `","expires_in":` + strconv.Itoa(int(left/time.Second)) + "}\n"))
		return nil
	}
}

// handleMe is GET /me: who is logged in, for pages that want to show it.
func handleMe(sessions sessionReader, signer *Signer) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		grant, err := sessions.grant(w, r)
		if err != nil {
			return err
		}
		session := grant.Session
		role, _ := grant.Decision.Role()
		writeJSON(w, http.StatusOK, struct {
			UserID             string    `json:"user_id"`
			Role               string    `json:"role"`
			Provider           string    `json:"provider"`
			SessionExpires     time.Time `json:"session_expires_at"`      // absolute end
			SessionIdleExpires time.Time `json:"session_idle_expires_at"` // end if it is not used until then
			TokenExpires       time.Time `json:"token_expires_at"`        // of a token fetched now
		}{
			session.UserID, role, session.Provider, session.Expires.UTC().Truncate(time.Second),
			session.IdleExpires.UTC().Truncate(time.Second), signer.Expires(session, grant.Decision).UTC(),
		})
		return nil
	}
}

// A sessionReader finds the session of a request and decides anew what it may do.
type sessionReader struct {
	config    *Config
	providers []*Provider
	rules     *ActiveRules
	store     *Store
	cookies   *Cookies
	log       *slog.Logger
	metrics   *Metrics
	now       func() time.Time
}

// A Grant is a live session with the role that the rules give it now.
type Grant struct {
	Session   Session
	Decision  mapping.Decision // Granted
	RulesHash string
}

// grant is decide for addresses that scripts fetch: it refuses other sites first, and says who may read the answer.
func (s sessionReader) grant(w http.ResponseWriter, r *http.Request) (Grant, error) {
	allowOrigin(w, r, s.config.AllowedOrigins)
	own := origin(s.config.PublicURL)
	if !isScriptRead(r, own, s.config.AllowedOrigins) {
		return Grant{}, ErrCrossSite
	}
	return s.decide(r)
}

// decide finds the session of the request, wherever that comes from, and asks the rules what it may do now.
func (s sessionReader) decide(r *http.Request) (Grant, error) {
	token, found := s.cookies.Session(r)
	if !found {
		return Grant{}, ErrNoSession
	}
	session, err := s.store.Session(r.Context(), token)
	if err != nil {
		return Grant{}, err
	}
	// A session of a provider that was removed from the configuration, or is another one now, has ended (IL-12).
	provider, err := findProvider(s.providers, session.Provider)
	if err != nil || provider.Issuer != session.Issuer {
		return Grant{}, ErrNoSession
	}
	if session, err = s.recheck(r.Context(), provider, token, session); err != nil {
		return Grant{}, err
	}
	rules := s.rules.now()
	decision := rules.Decide(mapping.Input{Provider: session.Provider, Claims: session.Claims, Row: session.Row, Now: s.now()})
	s.metrics.decided(session.Provider, decision)
	if err := s.record(r.Context(), session, rules, decision); err != nil {
		return Grant{}, err
	}
	return Grant{session, decision, rules.Hash()}, nil
}

// record keeps the session alive, writes down a decision that has changed, and turns one that is no grant into its error.
func (s sessionReader) record(ctx context.Context, session Session, rules *rulesInForce, decision mapping.Decision) error {
	role, granted, reason := rules.role(decision)
	decided := Decided{Role: role, Rule: decision.Rule()}
	if decision.FromUsersRow() {
		decided.ReadRow, decided.RowRole = true, session.Row.Role
	}
	before := session.Decided
	before.Ref = ""
	same := decided == before
	if !granted {
		decided.Ref = session.Decided.Ref
		if !same || decided.Ref == "" {
			decided.Ref = newRef()
		}
	}
	if !same {
		if err := s.store.Redecide(ctx, session, decided, reason, decision.ReadClaims(), rules.Hash()); err != nil {
			return err
		}
	}
	switch {
	case granted:
		s.store.Touch(session)
		return nil
	case decision.Outcome() == mapping.LoginAgain:
		return refusal{cause: ErrLoginAgain, ref: decided.Ref, reason: reason}
	default:
		return refusal{message: decision.Message(), ref: decided.Ref, reason: reason}
	}
}

// handleKeys is GET /.well-known/jwks.json (RFC 7517): the public keys of access tokens. A shared secret has none.
func handleKeys() handler {
	return func(w http.ResponseWriter, _ *http.Request) error {
		writeJSON(w, http.StatusOK, map[string][]any{"keys": {}})
		return nil
	}
}

// handlePreflight is OPTIONS of the addresses above, for pages on the allowed origins (Fetch, section CORS protocol).
func handlePreflight(c *Config) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
		from := r.Header.Get("Origin")
		if !slices.Contains(c.AllowedOrigins, from) {
			return ErrCrossSite
		}
		w.Header().Set("Access-Control-Allow-Origin", from)
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Access-Control-Allow-Methods", http.MethodGet)
		w.Header().Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}
