package bridge

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
)

// The causes that handlers return. Everything else is an internal error. What a cause becomes for the person is in the table below; what is
// wrapped around it goes to the log only.
var (
	ErrNoSession        = errors.New("no session")                        // none, ended, expired, or its user is disabled
	ErrRefused          = errors.New("refused by the rules")              // the identity is verified, and gets no role
	ErrDisabled         = errors.New("user is disabled")                  //
	ErrLoginAgain       = errors.New("a claim was not captured at login") // the rules read what the session does not have
	ErrLoggedOut        = errors.New("provider ended the login meanwhile")
	ErrLoginState       = errors.New("login state")                      // missing, forged, or of another browser
	ErrLoginExpired     = errors.New("login took too long")              //
	ErrReplayed         = errors.New("login was already finished")       // its state was used before
	ErrCallback         = errors.New("callback is malformed")            //
	ErrAuthorization    = errors.New("provider answered with an error")  // RFC 6749 section 4.1.2.1
	ErrCancelled        = errors.New("person cancelled at the provider") // its error access_denied
	ErrGrantRefused     = errors.New("provider refuses the code")        // RFC 6749 section 5.2 invalid_grant; of a refresh token, too
	ErrProviderDown     = errors.New("provider cannot be reached")       //
	ErrProviderAnswer   = errors.New("provider gave an unusable answer") //
	ErrUnknownProvider  = errors.New("no such provider")                 //
	ErrLogoutToken      = errors.New("logout request is not good")       // no logout token of this provider, or one seen before
	ErrDatabase         = errors.New("database")                         //
	ErrTokenTooLarge    = errors.New("access token is too large")        //
	ErrCrossSite        = errors.New("request came from another site")   //
	ErrLoop             = errors.New("login in a loop")                  // the application does not accept what it gets
	ErrTooLarge         = errors.New("request is too large")             //
	ErrTooMany          = errors.New("too many requests")                // of one address
	ErrNotFound         = errors.New("not found")                        //
	ErrMethodNotAllowed = errors.New("method not allowed")               //
	ErrAmbiguous        = errors.New("request says two things")          //
	ErrTryAgain         = errors.New("refused before, and not any more") // between two questions of a proxy
	ErrPath             = errors.New("path is not canonical")            //
	ErrNotImplemented   = errors.New("not implemented")                  //
	ErrTooSlow          = errors.New("request came too slowly")          //
	ErrUpstreamDown     = errors.New("PostgREST cannot be reached")      // or its answer be read
	ErrUpstreamSlow     = errors.New("PostgREST did not answer in time") //
	errInternal         = errors.New("internal error")                   // what is none of these
)

// A publicError is what people and programs see of a cause: a fixed text, never one that came with the request or from elsewhere.
type publicError struct {
	cause  error
	status int
	reason string // for programs and metrics; stable
	title  string // for people
	text   string // what happened and what to do
	again  bool   // offer to log in again
}

var publicErrors = []publicError{
	// The text of the first is the contract of /api_token.
	{ErrNoSession, 401, "login_required", "You are not logged in", "only authenticated users can request the API token", true},
	{ErrDisabled, 403, "account_disabled", "Your account is disabled", "Ask the people who run this service to enable it again.", false},
	{ErrRefused, 403, "access_denied", "You have no access", "You are logged in at the provider, but this service gives your account no role. If you think it should, send the code below to the people who run it.", true},
	{ErrLoginAgain, 403, "login_again", "Please log in again", "The rules of this service changed and need to see your account once more.", true},
	{ErrLoggedOut, 403, "logged_out", "You were logged out", "Your provider ended this login before it was finished. Please log in again.", true},
	{ErrLoginState, 400, "login_state", "This login cannot be finished", "Perhaps it is finished already: open the page that you came from. Else it was started in another browser, or too many others were started since, or your browser refuses cookies; then please start again here.", true},
	{ErrLoginExpired, 400, "login_expired", "This login took too long", "A login must be finished within ten minutes. Please start again.", true},
	{ErrReplayed, 400, "login_replayed", "This login was already used", "Perhaps you went back or reloaded the page. If you are not logged in, please start again.", true},
	{ErrCallback, 400, "invalid_request", "This login cannot be finished", "The answer that your browser brought from the provider is not complete. Please start again.", true},
	{ErrCancelled, 403, "cancelled", "You cancelled the login", "Nothing happened. You can start again whenever you like.", true},
	{ErrAuthorization, 502, "provider_error", "The provider could not log you in", "It gave an error instead. Please try again; if that does not help, send the code below to the people who run this service.", true},
	{ErrGrantRefused, 400, "login_replayed", "This login was already used or took too long", "Please start again.", true},
	{ErrProviderDown, 503, "provider_unavailable", "The login provider does not answer", "Please try again in a minute. Nothing is wrong with your account.", true},
	{ErrProviderAnswer, 502, "provider_error", "The provider's answer cannot be trusted", "So you were not logged in. Please send the code below to the people who run this service.", true},
	{ErrUnknownProvider, 404, "unknown_provider", "There is no such provider", "Please choose one of those that this service knows.", true},
	{ErrLogoutToken, 400, "logout_token", "This logout is not good", "The request has no logout token of this provider that is good now, or has one that was used before.", false},
	{ErrDatabase, 503, "unavailable", "The service is not available", "Please try again in a minute.", true},
	{ErrTokenTooLarge, 500, "token_too_large", "Something is wrong with this service", "Please send the code below to the people who run it.", false},
	{ErrCrossSite, 403, "cross_site", "This request came from another site", "Open the page of this service and try again there.", true},
	{ErrLoop, 400, "login_loop", "Going round in circles", "You are logged in, and the page keeps sending you back here. Please wait half a minute and open it again; if that does not help, tell the people who run this service.", true},
	{ErrTooLarge, 413, "too_large", "This is too much", "The request is larger than anything that this address takes.", false},
	{ErrTooMany, 429, "too_many_requests", "Too many logins from your network", "Please wait a minute and try again.", true},
	{ErrNotFound, 404, "not_found", "There is no such page", "The address is wrong, or the page is gone.", false},
	{ErrMethodNotAllowed, 405, "method_not_allowed", "This does not work here", "The address takes another kind of request.", false},
	{ErrAmbiguous, 400, "ambiguous_request", "This request cannot be understood", "It says two different things where there must be one. Please tell the people who run this service.", false},
	{ErrTryAgain, 503, "unavailable", "Please try again", "The service was not available for a moment.", true},
	{ErrPath, 400, "invalid_path", "There is no such address", "The path is not spelled in its one way.", false},
	{ErrNotImplemented, 501, "not_implemented", "This does not work here", "The address speaks plain HTTP only.", false},
	{ErrTooSlow, 408, "too_slow", "This took too long", "The request came in too slowly. Please try again.", false},
	{ErrUpstreamDown, 502, "upstream_unavailable", "The service is not available", "Please try again in a minute.", false},
	{ErrUpstreamSlow, 504, "upstream_timeout", "The service did not answer in time", "Please try again in a minute.", false},
	{errInternal, 500, "internal", "Something is wrong with this service", "Please send the code below to the people who run it.", false},
}

// setHeader says that the answer is for nobody else, and when to come back.
func (p publicError) setHeader(h http.Header) {
	h.Set("Cache-Control", "no-store")
	switch p.status {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "5")
	case http.StatusTooManyRequests:
		h.Set("Retry-After", "60")
	}
}

// publicErrorOf finds the first row whose cause is in err's chain; what has none is internal.
func publicErrorOf(err error) publicError {
	for _, row := range publicErrors {
		if errors.Is(err, row.cause) {
			return row
		}
	}
	return publicErrors[len(publicErrors)-1]
}

// A refusal is a decision against a verified identity, with what the rules say to the person and the code under which the event was
// recorded.
type refusal struct {
	cause   error  // ErrRefused when nil
	message string // of the deny rule, or of users.hook; may be ""
	ref     string
	reason  string // for the log
}

func (r refusal) Error() string {
	if text := r.Unwrap().Error(); text != r.reason {
		return text + ": " + r.reason
	}
	return r.reason
}

func (r refusal) Unwrap() error { return cmp.Or(r.cause, ErrRefused) }

// newRef makes the short code that a person can read out to an operator: eight letters and digits, 40 bits.
func newRef() string {
	text := rand.Text()
	return text[:4] + "-" + text[4:8]
}

// A handler answers a request, or returns why it cannot. It has written nothing when it returns an error.
type handler func(w http.ResponseWriter, r *http.Request) error

// An errorWriter turns the errors of handlers into answers; it is the only one that does. Each gets a reference code, under which the log
// holds the cause.
type errorWriter struct {
	log     *slog.Logger
	metrics *Metrics
	pages   *Pages
}

// page makes an http.Handler of h whose errors are pages for people.
func (e errorWriter) page(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			public, ref := e.record(w, r, err)
			e.pages.error(w, public, ref)
		}
	}
}

// api makes an http.Handler of h whose errors are JSON, see writeJSONError.
func (e errorWriter) api(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			public, ref := e.record(w, r, err)
			writeJSONError(w, public, ref)
		}
	}
}

// record logs the cause and returns what may be told. Server errors are errors in the log; the rest is the daily business of a login.
func (e errorWriter) record(w http.ResponseWriter, r *http.Request, err error) (publicError, string) {
	public := publicErrorOf(err)
	ref := newRef()
	var refused refusal
	if errors.As(err, &refused) {
		ref = refused.ref
		if refused.message != "" {
			public.text = refused.message
		}
	}
	e.metrics.refused(public.reason, err)
	if public.cause == ErrNoSession {
		return public, "" // nothing to look up: every visitor causes one
	}
	level := slog.LevelWarn
	switch {
	case public.status >= 500:
		level = slog.LevelError
	case public.status == http.StatusNotFound, public.status == http.StatusMethodNotAllowed:
		level = slog.LevelDebug // scanners cause them all day
	}
	e.log.Log(r.Context(), level, "request refused",
		"ref", ref, "reason", public.reason, "status", public.status, "cause", oneLine(err.Error()), "request", w.Header().Get(requestIDHeader))
	return public, ref
}

// oneLine bounds what an error carries into the log: providers and browsers have written parts of it (HS-05).
func oneLine(text string) string {
	const longest = 1000
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}

// writeJSONError writes {"error", "message", "code", "reason"}: code is the reference code, reason the stable word for programs; where a server
// failed, request_id is what its log and the others' have in common. A request without session gets exactly the contract's {"error"}.
func writeJSONError(w http.ResponseWriter, public publicError, ref string) {
	answer := struct {
		Error   string `json:"error"`
		Message string `json:"message,omitempty"`
		Code    string `json:"code,omitempty"`
		Reason  string `json:"reason,omitempty"`
		Request string `json:"request_id,omitempty"`
	}{public.title, public.text, ref, public.reason, ""}
	if public.status >= 500 {
		answer.Request = w.Header().Get(requestIDHeader)
	}
	if public.cause == ErrNoSession {
		answer.Error, answer.Message, answer.Reason = public.text, "", ""
	}
	public.setHeader(w.Header())
	writeJSON(w, public.status, answer)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The connection is gone when this fails; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(value)
}
