package bridge

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
)

const (
	requestIDHeader = "X-Request-Id"
	maxBody         = 64 << 10 // bytes; the largest legitimate body is a logout token
	maxURL          = 8 << 10  // bytes; codes and states of providers are long
)

var (
	requestID = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
	// longWord may be a token or a cookie that somebody put into an address by mistake; a name of ours has 32 characters at most.
	longWord = regexp.MustCompile(`[A-Za-z0-9_-]{33,}`)
)

// securityHeaders stand on every answer, errors included (HS-03). Pages add the hash of their style sheet to the policy. Answers share the
// values: Set replaces one, nothing changes it.
var securityHeaders = http.Header{
	"Content-Security-Policy":           {"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"},
	"X-Content-Type-Options":            {"nosniff"},
	"X-Frame-Options":                   {"DENY"},
	"Referrer-Policy":                   {"no-referrer"},
	"Cross-Origin-Opener-Policy":        {"same-origin"},
	"Cross-Origin-Resource-Policy":      {"same-origin"},
	"Permissions-Policy":                {"interest-cohort=()"},
	"X-Permitted-Cross-Domain-Policies": {"none"},
	"Cache-Control":                     {"no-store"},
}

// edge is what every request passes, outermost first: headers, request id, size limits, the log line, and the end of a panic.
func edge(c *Config, log *slog.Logger, m *Metrics, errs errorWriter) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id := r.Header.Get(requestIDHeader)
			if !requestID.MatchString(id) {
				id = newRef()
			}
			setHeaders(w.Header(), c, id)

			started := time.Now()
			answer := &statusWriter{ResponseWriter: w}
			defer func() {
				panicked := recover()
				half := panicked != nil && answer.status != 0
				if panicked != nil && panicked != http.ErrAbortHandler {
					log.Error("panic", "request", id, "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
					if !half {
						errs.page(func(http.ResponseWriter, *http.Request) error { return errInternal })(answer, r)
					}
				}
				// Routes are few and fixed; the path is the browser's and goes into the log alone, without its query: codes are in there.
				route := chi.RouteContext(r.Context()).RoutePattern()
				if route == "" {
					route = "none"
				}
				took := time.Since(started)
				m.request(route, r.Method, answer.status, took)
				if log.Enabled(r.Context(), slog.LevelDebug) {
					log.Debug("request", "request", id, "method", oneLine(r.Method), "path", oneLine(longWord.ReplaceAllString(r.URL.Path, "…")), "status", answer.status, "took", took,
						"client", clientAddr(c, r))
				}
				if half || panicked == http.ErrAbortHandler {
					panic(http.ErrAbortHandler) // cuts the connection: half an answer must not look whole
				}
			}()
			if !c.isProxied(r) { // PostgREST takes what is large
				if len(r.RequestURI) > maxURL {
					answer.WriteHeader(http.StatusRequestURITooLong)
					return
				}
				if r.Body != http.NoBody {
					r.Body = http.MaxBytesReader(answer, r.Body, maxBody)
				}
			}
			next.ServeHTTP(answer, r)
		})
	}
}

// setHeaders sets what every answer has.
func setHeaders(h http.Header, c *Config, id string) {
	maps.Copy(h, securityHeaders)
	if c.PublicURL.Scheme == "https" {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	h.Set(requestIDHeader, id)
}

// statusWriter remembers the status for the log and the metrics.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// origin of our own pages, as browsers write it into Origin.
func origin(publicURL *url.URL) string { return publicURL.Scheme + "://" + publicURL.Host }

// isNavigation reports whether a person goes to this address, from wherever: a link in a mail and a bookmark may start a login. Frames,
// images, prefetches and requests of scripts may not (AR-05). A request without Fetch Metadata and Origin comes from a program.
func isNavigation(r *http.Request) bool {
	if isPrefetch(r) {
		return false
	}
	if r.Header.Get("Sec-Fetch-Site") == "" {
		return r.Header.Get("Origin") == ""
	}
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// isPrefetch reports whether the browser loads the address ahead, for a person who may never go there. Each browser had its own name for it
// before there was Sec-Purpose (Fetch standard).
func isPrefetch(r *http.Request) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

// isSameOriginPost reports whether one of our own pages sent the form. Browsers say so in Sec-Fetch-Site, older ones in Origin; a POST with
// neither proves nothing and is refused. Origin is "null" where the page has the policy no-referrer, so it cannot overrule Sec-Fetch-Site.
func isSameOriginPost(r *http.Request, own string) bool {
	from := r.Header.Get("Origin")
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin":
		return from == "" || from == "null" || from == own
	case "":
		return from == own
	default:
		return false
	}
}

// readOwnForm reads the form of a POST that one of our own pages sent; what names it in the log.
func readOwnForm(c *Config, r *http.Request, what string) error {
	if !isSameOriginPost(r, origin(c.PublicURL)) {
		return fmt.Errorf("%w: %s by POST from elsewhere", ErrCrossSite, what)
	}
	var tooLarge *http.MaxBytesError
	if err := r.ParseForm(); errors.As(err, &tooLarge) {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, tooLarge.Limit)
	}
	return nil
}

// isScriptRead reports whether the request may read an answer that belongs to the person: our own pages and the allowed origins may, and so
// may programs. Whatever another site embeds may not (TK-02, TK-03).
func isScriptRead(r *http.Request, own string, allowed []string) bool {
	from := r.Header.Get("Origin")
	if from != "" && from != own && !slices.Contains(allowed, from) {
		return false
	}
	if dest := r.Header.Get("Sec-Fetch-Dest"); dest != "" && dest != "empty" {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	default:
		return from != "" && slices.Contains(allowed, from)
	}
}

// unknown answers what the route table does not have: pages to people, JSON to programs.
func (e errorWriter) unknown(cause error) http.HandlerFunc {
	return e.either(func(http.ResponseWriter, *http.Request) error { return cause })
}

// either makes an http.Handler of h whose errors are pages for people and JSON for programs.
func (e errorWriter) either(h handler) http.HandlerFunc {
	page, api := e.page(h), e.api(h)
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			page(w, r)
		} else {
			api(w, r)
		}
	}
}

// allowed names the methods of the path in the header that a 405 must have (RFC 9110 section 15.5.6).
func allowed(routes chi.Routes, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var methods []string
		for _, method := range append(slices.Clone(gatewayMethods), http.MethodOptions) {
			if routes.Match(chi.NewRouteContext(), method, r.URL.Path) {
				methods = append(methods, method)
			}
		}
		w.Header().Set("Allow", strings.Join(methods, ", "))
		next(w, r)
	}
}
