// Package front is the web site of the demo: the page with the orders, and everything else behind the same host name. The end-to-end tests
// put it in front of real providers.
package front

import (
	"bytes"
	"embed"
	"encoding/json"
	"html/template"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
)

//go:embed page.html app.js style.css icon.svg
var files embed.FS

// A Page is what page.html shows of the installation itself.
type Page struct {
	StandIn bool     // the API is a stand-in for PostgREST
	People  []Person // whom a visitor can be, where the provider asks for no password
}

// A Person is one of those whom a visitor can be.
type Person struct{ Name, Note string }

// New puts everything behind one host name, as a web server in front of a real installation does: then cookies and addresses are
// those of one origin, and nothing needs CORS.
//
//	/        the page
//	/auth/   the bridge
//	/orders  PostgREST
func New(bridge http.Handler, api *url.URL, data Page) (http.Handler, error) {
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
