package bridge

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	proxyBuffer  = 32 << 10
	proxyIdle    = 20 * time.Second // PostgREST closes idle connections after 30 s: not while we are about to send a POST on one
	proxyConns   = 256              // idle ones
	proxyConnect = 5 * time.Second
)

// An upstream is the one server that the proxy talks to: PostgREST.
type upstream struct {
	base      *url.URL
	path      string // of the requests that go there: public_url's and proxy.path
	transport *http.Transport
	buffers   buffers
	log       *log.Logger
}

func newUpstream(c *Config, logger *slog.Logger) *upstream {
	dialer := &net.Dialer{Timeout: proxyConnect, KeepAlive: 15 * time.Second}
	return &upstream{
		base: c.Proxy.Upstream, path: c.PublicURL.Path + c.Proxy.Path, log: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		transport: &http.Transport{ // no Proxy: the environment does not choose where tokens go
			DialContext: dialer.DialContext, MaxIdleConns: proxyConns, MaxIdleConnsPerHost: proxyConns, IdleConnTimeout: proxyIdle,
			ResponseHeaderTimeout: c.Proxy.Timeout, ExpectContinueTimeout: time.Second, TLSHandshakeTimeout: proxyConnect,
			DisableCompression: true, MaxResponseHeaderBytes: 256 << 10,
		},
	}
}

// buffers are for the bodies of answers.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return *buffer
	}
	return make([]byte, proxyBuffer)
}

func (b *buffers) Put(buffer []byte) { b.pool.Put(&buffer) }

// handleProxy passes a request for the API on to PostgREST, with the identity of its session cookie, and the answer back.
func handleProxy(g gateway, api *upstream) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		path, err := apiPath(api.path, r.URL)
		if err != nil {
			return err
		}
		if len(r.Header["Upgrade"]) > 0 {
			return fmt.Errorf("%w: Upgrade", ErrNotImplemented)
		}
		allowOrigin(w, r, g.config.AllowedOrigins)
		if r.Method == http.MethodOptions {
			return answerOptions(w, r, g.config)
		}
		who, err := g.identify(r, r.Method)
		if errors.Is(err, ErrNoSession) && challenge(w, g.config, isVisit(r, r.Method), r.URL.RequestURI()) {
			return nil
		}
		if err != nil {
			return err
		}

		connection := http.NewResponseController(w)
		var body *pacedBody
		if r.ContentLength != 0 {
			_ = connection.EnableFullDuplex() // the answer may begin before the request's end
			body = &pacedBody{ReadCloser: r.Body, connection: connection, started: time.Now()}
			r.Body = body
		}
		var failed error
		proxy := httputil.ReverseProxy{
			Transport:  api.transport,
			BufferPool: &api.buffers,
			ErrorLog:   api.log,
			// The identity is set here and nowhere before: what Connection names is removed on the way here (FA-07, measured).
			Rewrite: func(pr *httputil.ProxyRequest) {
				api.address(pr, path)
				g.rewriteHeaders(w, pr)
				who.setHeaders(pr.Out.Header)
			},
			ModifyResponse: func(response *http.Response) error {
				if response.StatusCode < http.StatusOK {
					return fmt.Errorf("an answer with status %d", response.StatusCode)
				}
				g.rewriteAnswer(w, response)
				return nil
			},
			ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
		}
		answer := &pacedWriter{ResponseWriter: w, connection: connection, set: time.Now()}
		proxy.ServeHTTP(answer, r)
		if failed == nil {
			return nil
		}
		answer.extend()
		return failure(r, body, failed)
	}
}

// address makes the request one for the upstream, byte for byte what stands behind proxy.path.
func (u *upstream) address(pr *httputil.ProxyRequest, path string) {
	target := *u.base
	target.RawPath = strings.TrimSuffix(u.base.EscapedPath(), "/") + path
	target.Path, _ = url.PathUnescape(target.RawPath) // apiPath has looked at it
	target.RawQuery, target.ForceQuery = pr.In.URL.RawQuery, pr.In.URL.ForceQuery
	pr.Out.URL, pr.Out.Host = &target, ""
	pr.Out.Trailer = nil
}

// rewriteHeaders removes what the client may not say, and says of the client what we know.
func (g gateway) rewriteHeaders(w http.ResponseWriter, pr *httputil.ProxyRequest) {
	h := pr.Out.Header
	dropHeaders(h)
	if cookies := g.sessions.cookies.others(pr.In); cookies != "" {
		h["Cookie"] = []string{cookies}
	}
	h["X-Forwarded-For"] = []string{clientAddr(g.config, pr.In).String()}
	h["X-Forwarded-Host"] = []string{g.config.PublicURL.Host}
	h["X-Forwarded-Proto"] = []string{g.config.PublicURL.Scheme}
	h[requestIDHeader] = w.Header()[requestIDHeader]
}

// rewriteAnswer lets the upstream's headers stand, but for those of which there is one here: the request's id, who may read the answer, and our
// cookies. What the upstream does not say of itself, the headers of every answer say (HS-03).
func (g gateway) rewriteAnswer(w http.ResponseWriter, response *http.Response) {
	h, ours := response.Header, w.Header()
	if len(ours[requestIDHeader]) == 0 { // an answer 1xx took them along
		setHeaders(ours, g.config, response.Request.Header.Get(requestIDHeader))
		allowOrigin(w, response.Request, g.config.AllowedOrigins)
	}
	delete(h, requestIDHeader)
	for name := range h {
		switch {
		case strings.HasPrefix(name, "Access-Control-"):
			delete(h, name)
		case name == "Vary":
			h[name] = append(h[name], "Cookie, Origin")
			delete(ours, name)
		case name == "Set-Cookie":
			h[name] = slices.DeleteFunc(h[name], g.sessions.cookies.isOurs)
		default:
			delete(ours, name)
		}
	}
}

// failure tells apart whose fault it was that there is no answer.
func failure(r *http.Request, body *pacedBody, err error) error {
	var slow net.Error
	switch {
	case body.tooSlow():
		return fmt.Errorf("%w: %w", ErrTooSlow, err)
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // the client has gone: there is nobody to tell
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return fmt.Errorf("%w: %w", ErrUpstreamSlow, err)
	default:
		return fmt.Errorf("%w: %w", ErrUpstreamDown, err)
	}
}

// answerOptions answers OPTIONS without asking anybody: preflights of the allowed origins, and what methods there are (FA-05).
func answerOptions(w http.ResponseWriter, r *http.Request, c *Config) error {
	w.Header().Set("Allow", strings.Join(append(slices.Clone(gatewayMethods), http.MethodOptions), ", "))
	w.Header().Set("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	if from := r.Header.Get("Origin"); from != "" && from != origin(c.PublicURL) {
		if !slices.Contains(c.AllowedOrigins, from) {
			return fmt.Errorf("%w: preflight from %q", ErrCrossSite, from)
		}
		w.Header().Set("Access-Control-Allow-Methods", strings.Join(gatewayMethods, ", "))
		// Whatever the page wants to send: the page is trusted, and the proxy drops what nobody may send.
		if asked := r.Header["Access-Control-Request-Headers"]; len(asked) == 1 {
			w.Header().Set("Access-Control-Allow-Headers", asked[0])
		}
		w.Header().Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// allowOrigin says who may read an answer that depends on the session: of other pages, those on the allowed origins (Fetch, section CORS
// protocol), with the headers of PostgREST that scripts use.
func allowOrigin(w http.ResponseWriter, r *http.Request, allowed []string) {
	h := w.Header()
	// A browser's cache holds the answer for the person with this cookie, and for nobody else (product.md, measured in Chromium).
	h.Set("Vary", "Cookie, Origin")
	from := r.Header.Get("Origin")
	if !slices.Contains(allowed, from) {
		return
	}
	h.Set("Access-Control-Allow-Origin", from)
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Set("Access-Control-Expose-Headers", "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Preference-Applied, Range-Unit, Server, X-Request-Id")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
}
