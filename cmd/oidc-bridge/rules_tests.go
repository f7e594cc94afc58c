package main

import (
	"fmt"

	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

type rulesTestCommand struct {
	File string `arg:"" optional:"" help:"The rules file; - is standard input. Default: the one that the configuration names, else rules.yaml."`
	configFlag
	Mutate bool   `help:"Take each condition away in turn, and report those that no test misses."`
	Strict bool   `help:"Conditions that no test misses count as errors."`
	Format string `default:"text" enum:"text,json" placeholder:"FORMAT" help:"text or json. Default: ${default}."`
}

func (rulesTestCommand) Help() string {
	return `The tests run at every start and reload, too: a file with one that fails is not used.

Examples:

  oidc-bridge rules test
  oidc-bridge rules test rules.yaml --mutate --strict    in CI

Exit code 1 when a test fails, or when the file has errors that keep its tests from running.`
}

func (c rulesTestCommand) Run(env environment) error {
	config, _, err := c.providers(env)
	if err != nil {
		return err
	}
	name := rulesFile(c.File, config)
	text, err := readRules(env, name)
	if err != nil {
		return err
	}
	results, ran, findings := mapping.Test(shown(name), text)
	findings = onlyErrors(findings)
	mutated := c.Mutate && len(findings) == 0
	if mutated {
		for _, f := range mapping.Mutate(shown(name), text) {
			if f.Code == "W511" {
				findings = append(findings, f)
			}
		}
	}
	failed := strictyaml.Errors(findings) || c.Strict && len(findings) > 0
	if c.Format == "json" {
		err = writeJSON(env.stdout, struct {
			OK       bool                 `json:"ok"`
			Ran      bool                 `json:"ran"`
			Tests    []mapping.TestResult `json:"tests"`
			Findings []strictyaml.Finding `json:"findings"`
		}{!failed, ran, notNull(results), notNull(findings)})
	} else {
		_ = printFindings(env.stdout, c.Format, findings)
		printResults(env, shown(name), results, ran)
		if mutated {
			fmt.Fprintln(env.stdout, heldConditions(len(findings)))
		}
	}
	if failed && err == nil {
		return errFindings
	}
	return err
}

func printResults(env environment, file string, results []mapping.TestResult, ran bool) {
	failed, refusals := 0, 0
	for _, r := range results {
		refusals += r.RefuseIf
		if !r.Passed {
			failed++
		}
	}
	switch {
	case !ran:
		fmt.Fprintf(env.stdout, "%s: its tests were not run, since the file has other errors\n", file)
	case len(results) == 0:
		fmt.Fprintf(env.stdout, "%s: no tests\n", file)
	case failed > 0:
		fmt.Fprintf(env.stdout, "%s: %d of %s failed\n", file, failed, count(len(results), "test"))
	default:
		fmt.Fprintf(env.stdout, "%s: %s and %s in refuse_if passed\n", file, count(len(results), "test"), count(refusals, "change"))
	}
}

func heldConditions(missed int) string {
	if missed == 0 {
		return "each condition is held by a test"
	}
	return count(missed, "condition") + " that no test misses"
}
