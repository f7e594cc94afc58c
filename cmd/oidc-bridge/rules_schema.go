package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/codes"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

type rulesSchemaCommand struct {
	File string `arg:"" optional:"" help:"The rules file; - is standard input. Default: the one that the configuration names, else rules.yaml."`
	configFlag
	Generic bool `help:"For any rules file: without the names of one. It is in the repository as rules.schema.json."`
}

func (rulesSchemaCommand) Help() string {
	return `An editor with a YAML language server then completes and checks the file's own claims, roles and providers, and the operators that
fit each claim's type. The first line of the rules file tells it where the schema is:

  # yaml-language-server: $schema=rules.schema.json

Examples:

  oidc-bridge rules schema > rules.schema.json
  oidc-bridge rules schema --generic > rules.schema.json`
}

func (c rulesSchemaCommand) Run(env environment) error {
	schema := mapping.LanguageSchema()
	if !c.Generic {
		config, _, err := c.providers(env)
		if err != nil {
			return err
		}
		name := rulesFile(c.File, config)
		text, err := readRules(env, name)
		if err != nil {
			return fmt.Errorf("%w; --generic needs none", err)
		}
		var findings []strictyaml.Finding
		schema, findings = mapping.FileSchema(shown(name), text)
		if strictyaml.Errors(findings) {
			fmt.Fprintf(env.stderr, "%s has errors: the schema has what could be read (oidc-bridge rules check)\n", shown(name))
		}
	}
	_, err := env.stdout.Write(schema)
	return err
}

type rulesExplainCodeCommand struct {
	Code   string `arg:"" optional:"" help:"Such as E301. Without it: the list of all."`
	Format string `default:"text" enum:"text,json" placeholder:"FORMAT" help:"text or json. Default: ${default}."`
}

func (rulesExplainCodeCommand) Help() string {
	return `What the code means, why it is an error, an example that has it, and the same example mended.

Examples:

  oidc-bridge rules explain-code
  oidc-bridge rules explain-code E301`
}

func (c rulesExplainCodeCommand) Run(env environment) error {
	all := codes.All()
	if c.Code == "" {
		if c.Format == "json" {
			return writeJSON(env.stdout, all)
		}
		for _, code := range all {
			fmt.Fprintf(env.stdout, "%s  %s\n", code.Code, code.Title)
		}
		return nil
	}
	for _, code := range all {
		if strings.EqualFold(code.Code, c.Code) {
			if c.Format == "json" {
				return writeJSON(env.stdout, code)
			}
			printCode(env, code)
			return nil
		}
	}
	return usageError{fmt.Errorf("unknown code %q; rules explain-code without one lists them all", c.Code)}
}

func printCode(env environment, c codes.Code) {
	kind := "error"
	if c.Warning() {
		kind = "warning"
	}
	fmt.Fprintf(env.stdout, "%s, %s: %s\n\n%s\n", c.Code, kind, c.Title, c.Text)
	example := func(title, text string) {
		if text != "" {
			fmt.Fprintf(env.stdout, "\n%s:\n\n%s\n", title, indented(text))
		}
	}
	example("This has it", c.Wrong)
	if c.Issuer != "" {
		example("with this issuer in config.yaml", c.Issuer)
	}
	example("in a database where somebody did this", c.WrongSQL)
	if c.Now != "" {
		example("on", c.Now)
	}
	for _, f := range findingsOf(c) {
		fmt.Fprintf(env.stdout, "\n%s\n", indented(f.String()))
	}
	example("This is right", c.Right)
	example("This mends it", c.RightSQL)
}

// findingsOf is what the program says about the wrong example, as far as a file alone can have it.
func findingsOf(c codes.Code) []strictyaml.Finding {
	if c.Mutate {
		return mapping.Mutate("rules.yaml", []byte(c.Wrong))
	}
	rules, findings := mapping.Load("rules.yaml", []byte(c.Wrong))
	if rules == nil {
		return findings
	}
	findings = append(findings, rules.IssuerFindings(map[string]string{"corp": c.Issuer})...)
	if now, err := time.Parse(time.DateOnly, c.Now); err == nil {
		findings = append(findings, rules.Expired(now)...)
	}
	return findings
}

func indented(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ")
}
