package main

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"syscall"
	"time"
)

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
