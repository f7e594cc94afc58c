package main

import (
	"context"
	"fmt"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

type checkCommand struct {
	Config string `short:"c" default:"config.yaml" placeholder:"FILE" help:"The configuration. Default: ${default}."`
	Format string `default:"text" enum:"text,json" placeholder:"FORMAT" help:"text or json. Default: ${default}."`
	Strict bool   `help:"Warnings count as errors."`
}

func (checkCommand) Help() string {
	return `Finds everything at once, and changes nothing. A provider or a PostgREST that does not answer is a warning: the service starts without it.

Examples:

  oidc-bridge check
  oidc-bridge check --config /etc/oidc-bridge/config.yaml --format json | jq '.findings[].message'

Exit code 1 when the service would not start (with --strict: or when there is a warning).`
}

func (c checkCommand) Run(env environment) error {
	config, rules, findings := bridge.Load(c.Config, env.lookup)
	if config != nil {
		ctx, cancel := context.WithTimeout(env.ctx, 30*time.Second)
		defer cancel()
		findings = append(findings, bridge.CheckDatabase(ctx, config, rules)...)
		if rules != nil && !strictyaml.Errors(findings) {
			findings = append(findings, bridge.CheckClaims(ctx, config, rules)...)
		}
		findings = append(findings, bridge.CheckProviders(ctx, config, time.Now)...)
		findings = append(findings, bridge.CheckProxy(ctx, config, time.Now)...)
	} else {
		findings = append(findings, strictyaml.Finding{
			File: c.Config, Severity: strictyaml.Warning, Message: "the database, the roles and the providers were not looked at",
			Fix: "mend the configuration first",
		})
	}
	err := printFindings(env.stdout, c.Format, findings)
	if c.Format == "text" {
		fmt.Fprintln(env.stdout, tally(findings))
	}
	if err == nil && c.Strict && len(findings) > 0 {
		return errFindings
	}
	return err
}
