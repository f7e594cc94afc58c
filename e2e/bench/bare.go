package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// The bare handler is what everything is compared with: net/http, a ServeMux, and an answer with the headers and about the size of the
// bridge's. It runs in a process of its own: this program, started with bareArgument.
const bareArgument = "bare"

var bareBody = []byte(`{"token":"` + strings.Repeat("e", 367-len(`{"token":"","expires_in":900}`)-1) + `","expires_in":900}` + "\n")

// bareHeaders are those of the bridge's answer at /api_token.
var bareHeaders = [][2]string{
	{"Cache-Control", "private, max-age=870"},
	{"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"},
	{"Content-Type", "application/json"},
	{"Cross-Origin-Opener-Policy", "same-origin"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"Permissions-Policy", "interest-cohort=()"},
	{"Referrer-Policy", "no-referrer"},
	{"Strict-Transport-Security", "max-age=31536000"},
	{"Vary", "Cookie, Origin"},
	{"X-Content-Type-Options", "nosniff"},
	{"X-Frame-Options", "DENY"},
	{"X-Permitted-Cross-Domain-Policies", "none"},
	{"X-Request-Id", "K7QD-2MXA"},
}

func serveBare() error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /auth/api_token", func(w http.ResponseWriter, _ *http.Request) {
		for _, header := range bareHeaders {
			w.Header().Set(header[0], header[1])
		}
		w.Write(bareBody)
	})
	mux.HandleFunc("GET /plain", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(bareBody)
	})
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, _ *http.Request) { // what the reverse proxy of P7 asks
		w.Header().Set("Content-Type", "application/json")
		w.Write(bareBody)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	limited, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// The limits of the bridge's server on slow clients: net/http sets several deadlines for each request.
	server := http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
	}
	go server.Serve(limited)
	fmt.Fprintf(os.Stderr, "{\"listen\":%q,\"limited\":%q}\n", listener.Addr(), limited.Addr())
	return http.Serve(listener, mux)
}
