package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

type serveCommand struct {
	Config string `short:"c" default:"config.yaml" placeholder:"FILE" help:"The configuration. Default: ${default}."`
	logFlags
}

func (serveCommand) Help() string {
	return `Refuses to start when the configuration, the rules, the database or a role is not right, and lists everything that is wrong with
file, line and column. A provider that is down does not keep it from starting.

Example:

  JWT_SECRET=… COOKIE_KEY=… DATABASE_URL=… oidc-bridge serve --config config.yaml --log-format text

A change of the rules file is put in force by itself, within seconds, and SIGHUP looks at once; a file with errors changes nothing, and the
log says what is wrong with it. config.yaml is read at the start only. SIGTERM and Ctrl-C let requests under way finish (15 seconds at most).`
}

func (c serveCommand) Run(env environment) error {
	log := c.logger(env.stderr)
	config, rules, findings := bridge.Load(c.Config, env.lookup)
	if config != nil {
		findings = append(findings, bridge.CheckDatabase(env.ctx, config, rules)...)
	}
	if strictyaml.Errors(findings) {
		return printFindings(env.stderr, "text", findings)
	}
	for _, f := range findings {
		log.Warn("finding", "finding", f)
	}
	service, err := bridge.New(env.ctx, config, rules, bridge.Options{Version: versionText(), Log: log, Now: time.Now})
	if err != nil {
		return err
	}
	defer service.Close()
	public, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return fmt.Errorf("listen in %s: %w", c.Config, err)
	}
	private, err := net.Listen("tcp", config.PrivateListen)
	if err != nil {
		return fmt.Errorf("private_listen in %s: %w", c.Config, err)
	}
	log.Info("serving", "version", versionText(), "public_url", config.PublicURL.String(), "listen", public.Addr().String(),
		"private_listen", private.Addr().String(), "rules", rules.Hash())
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	if err := service.Serve(env.ctx, public, private, hangup); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}
