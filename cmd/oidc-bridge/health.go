package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
)

type healthCommand struct {
	Config string `short:"c" default:"config.yaml" placeholder:"FILE" help:"The configuration; only private_listen is read. Default: ${default}."`
}

func (healthCommand) Help() string {
	return `Asks /readyz of the service on this machine, at private_listen, as a container's health check does: the image has no shell and no other
program. Waits 3 seconds at most.

Example:

  oidc-bridge health --config config.yaml

Exit code 1 when the service does not answer, is stopping, or does not reach its database. A provider that is down is no reason.`
}

func (c healthCommand) Run(env environment) error {
	listen, findings := bridge.LoadPrivateListen(c.Config, env.lookup)
	if err := printFindings(env.stderr, "text", findings); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(env.ctx, 3*time.Second)
	defer cancel()
	address := "http://" + dialable(listen) + "/readyz"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	// It is this machine: a proxy of the environment has no part in it.
	response, err := (&http.Client{Transport: &http.Transport{}}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct{ Status string }
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&answer); err != nil || answer.Status == "" {
		return fmt.Errorf("%s is not oidc-bridge: status %d", address, response.StatusCode)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", address, answer.Status)
	}
	_, err = fmt.Fprintln(env.stdout, answer.Status)
	return err
}

// dialable is where a listener on the address can be reached from its own machine: one on all addresses, at 127.0.0.1.
func dialable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
