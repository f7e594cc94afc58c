package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"syscall"
	"time"
)

//go:embed page.html app.js style.css icon.svg
var files embed.FS

// pageData is what page.html shows of the demo itself.
type pageData struct {
	StandIn bool
	People  []person
}

// newFront puts everything behind one host name, as a web server in front of a real installation does: then cookies and addresses are
// those of one origin, and nothing needs CORS.
//
//	/        the page
//	/auth/   the bridge
//	/orders  PostgREST
func newFront(bridge http.Handler, api *url.URL, data pageData) (http.Handler, error) {
	page, err := template.ParseFS(files, "page.html")
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := page.Execute(&text, data); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/auth/", bridge)
	mux.Handle("/orders", reverseProxy(api))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		pageHeaders(w.Header())
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write(text.Bytes())
	})
	for _, name := range []string{"app.js", "style.css", "icon.svg"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			pageHeaders(w.Header())
			http.ServeFileFS(w, r, files, name)
		})
	}
	return mux, nil
}

// pageHeaders allow the page its own files and requests to its own origin. Trusted Types: no text of an answer can become markup.
// Referrer-Policy is not no-referrer: with that, browsers send "Origin: null" with the form that logs out.
func pageHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
}

// reverseProxy is the web server's way to PostgREST. Cookies stay outside: PostgREST shows them to SQL, and the bridge's is a login.
func reverseProxy(api *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(api)
			r.Out.Header.Del("Cookie")
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadGateway)
			json.NewEncoder(w).Encode(map[string]string{"message": "The orders API does not answer."})
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// listen returns listeners on one port of all loopback addresses that the name localhost can mean. Browsers try ::1 first, and whoever
// listens there gets the request.
func listen(port string) ([]net.Listener, error) {
	first, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return nil, err
	}
	_, port, _ = net.SplitHostPort(first.Addr().String())
	second, err := net.Listen("tcp", net.JoinHostPort("::1", port))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, errors.Join(err, first.Close())
	case err != nil:
		return []net.Listener{first}, nil // a machine without IPv6
	}
	return []net.Listener{first, second}, nil
}

func newServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: log.New(io.Discard, "", 0),
	}
}
