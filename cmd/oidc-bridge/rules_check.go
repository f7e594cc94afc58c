package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

type rulesCheckCommand struct {
	File string `arg:"" optional:"" help:"The rules file; - is standard input. Default: the one that the configuration names, else rules.yaml."`
	configFlag
	DB     bool   `name:"db" help:"Look at the database, too: at the roles (E401 to E403), and whether any login has carried the claims that the rules read."`
	Strict bool   `help:"Warnings count as errors."`
	Format string `default:"text" enum:"text,json" placeholder:"FORMAT" help:"text or json. Default: ${default}."`
}

func (rulesCheckCommand) Help() string {
	return `Every finding at once, each with line, column and a fix; the file's tests run, too. A comment silences a warning when it gives a
reason: # allow W506: kept for the audit. "oidc-bridge rules explain-code E301" says more about a code.

Examples:

  oidc-bridge rules check
  oidc-bridge rules check rules.yaml --strict                        in CI, without secrets
  oidc-bridge rules check --db --format json | jq '.findings[].code'

Exit code 1 when the file cannot be used (with --strict: or when there is a warning).`
}

func (c rulesCheckCommand) Run(env environment) error {
	config, missing, err := c.providers(env)
	if err != nil {
		return err
	}
	name := rulesFile(c.File, config)
	text, err := readRules(env, name)
	if err != nil {
		return err
	}
	rules, findings := mapping.Load(shown(name), text)
	var known []strictyaml.Finding // about what people's logins carry
	var skipped []string
	switch {
	case rules == nil:
		skipped = append(skipped, "issuers and database, before the file loads")
	case config == nil:
		skipped = append(skipped, fmt.Sprintf("issuers (%s)", missing))
	default:
		config.Rules = shown(name)
		findings = append(findings, bridge.CheckIssuers(config, rules)...)
	}
	if rules != nil {
		findings = append(findings, rules.Expired(time.Now())...)
		if c.DB {
			var roles []strictyaml.Finding
			roles, known = c.checkDatabase(env, config, rules)
			findings = append(findings, roles...)
		} else {
			skipped = append(skipped, "roles in the database (--db)")
		}
	}
	strictyaml.Sort(findings)
	return c.print(env, append(findings, known...), skipped)
}

// checkDatabase looks at the roles and, when the providers are known, whether any login has carried the claims that the rules read.
func (c rulesCheckCommand) checkDatabase(env environment, config *bridge.Config, rules *mapping.Rules) (roles, known []strictyaml.Finding) {
	database, findings := bridge.LoadDatabase(c.file(), env.lookup)
	if database == nil {
		return findings, nil
	}
	if config == nil {
		config = &bridge.Config{}
	}
	config.Database = *database
	roles = append(findings, bridge.CheckRoles(env.ctx, config, rules)...)
	if strictyaml.Errors(roles) {
		return roles, nil
	}
	return roles, bridge.CheckClaims(env.ctx, config, rules)
}

func (c rulesCheckCommand) print(env environment, findings []strictyaml.Finding, skipped []string) error {
	failed := strictyaml.Errors(findings) || c.Strict && len(findings) > 0
	if c.Format == "json" {
		if err := writeJSON(env.stdout, struct {
			OK       bool                 `json:"ok"`
			Findings []strictyaml.Finding `json:"findings"`
			Skipped  []string             `json:"not_looked_at"`
		}{!failed, notNull(findings), notNull(skipped)}); err != nil {
			return err
		}
	} else {
		_ = printFindings(env.stdout, c.Format, findings)
		if len(skipped) > 0 {
			fmt.Fprintf(env.stdout, "not looked at: %s\n", strings.Join(skipped, "; "))
		}
		fmt.Fprintln(env.stdout, tally(findings))
	}
	if failed {
		return errFindings
	}
	return nil
}
