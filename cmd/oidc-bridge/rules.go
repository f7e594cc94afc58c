package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

type rulesCommand struct {
	Check       rulesCheckCommand       `cmd:"" help:"Everything that is wrong or doubtful in a rules file."`
	Test        rulesTestCommand        `cmd:"" help:"Run the tests of a rules file."`
	Explain     rulesExplainCommand     `cmd:"" help:"Why does somebody have their role, or none?"`
	Diff        rulesDiffCommand        `cmd:"" help:"Whose role changes from one rules file to another?"`
	Who         rulesWhoCommand         `cmd:"" help:"Who has a role, and by which line?"`
	Schema      rulesSchemaCommand      `cmd:"" help:"A JSON Schema of the rules file, for editors."`
	ExplainCode rulesExplainCodeCommand `cmd:"" help:"What does a code such as E301 mean?"`
}

func (rulesCommand) Help() string {
	return `docs/rules.md is the guide to the file. Examples:

  oidc-bridge rules check                          before each change goes out
  oidc-bridge rules test --mutate                  and what the tests do not hold
  oidc-bridge rules explain --user ann@example.com
  git show HEAD:rules.yaml | oidc-bridge rules diff - rules.yaml --db`
}

// configFlag names the configuration, which some commands need and others use when it is there.
type configFlag struct {
	Config string `short:"c" placeholder:"FILE" help:"The configuration. Default: config.yaml, if it is there."`
}

const defaultConfig = "config.yaml"

func (f configFlag) file() string {
	if f.Config != "" {
		return f.Config
	}
	return defaultConfig
}

// providers reads what the configuration says of the providers. It is nil, with the reason, when the default file is not there or cannot be
// used; one that the command line names must be right.
func (f configFlag) providers(env environment) (config *bridge.Config, missing string, err error) {
	if f.Config == "" {
		if _, err := os.Stat(defaultConfig); errors.Is(err, fs.ErrNotExist) {
			return nil, "there is no " + defaultConfig + "; --config names another", nil
		}
	}
	config, findings := bridge.LoadProviders(f.file(), env.lookup)
	switch {
	case config != nil:
		return config, "", nil
	case f.Config != "":
		return nil, "", printFindings(env.stderr, "text", findings)
	default:
		return nil, fmt.Sprintf("%s: %s", defaultConfig, findings[0].Message), nil
	}
}

// records opens what the database knows of people.
func (f configFlag) records(env environment) (*bridge.Records, error) {
	database, err := databaseFlag{f.file()}.database(env)
	if err != nil {
		return nil, err
	}
	return bridge.OpenRecords(env.ctx, database)
}

// rulesFile is the rules file that a command is about: the named one, else the configuration's, else rules.yaml.
func rulesFile(name string, config *bridge.Config) string {
	switch {
	case name != "":
		return name
	case config != nil:
		return config.Rules
	default:
		return "rules.yaml"
	}
}

const standardInput = "-"

// readRules reads a rules file; "-" is standard input.
func readRules(env environment, name string) ([]byte, error) {
	if name == standardInput {
		return io.ReadAll(io.LimitReader(env.stdin, strictyaml.MaxSize+1))
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no such file", name)
	}
	return text, err
}

// loadRules is for commands that need rules in working order; what is wrong goes to standard error.
func loadRules(env environment, name string) (*mapping.Rules, error) {
	text, err := readRules(env, name)
	if err != nil {
		return nil, err
	}
	rules, findings := mapping.Load(shown(name), text)
	if rules == nil {
		return nil, printFindings(env.stderr, "text", onlyErrors(findings))
	}
	return rules, nil
}

// onlyErrors leaves warnings out: they are the business of rules check.
func onlyErrors(findings []strictyaml.Finding) []strictyaml.Finding {
	return slices.DeleteFunc(findings, func(f strictyaml.Finding) bool { return f.Severity != strictyaml.Error })
}

// shown is the name of a file in what is printed.
func shown(name string) string {
	if name == standardInput {
		return "standard input"
	}
	return name
}

// providerNamed finds the provider that the command line means.
func providerNamed(rules *mapping.Rules, name string) (string, error) {
	known := rules.Providers()
	if name == "" && len(known) == 1 {
		return known[0], nil
	}
	for _, provider := range known {
		if provider == name {
			return name, nil
		}
	}
	if name == "" {
		return "", usageError{fmt.Errorf("--provider is missing; there are %s", strings.Join(known, ", "))}
	}
	return "", unknown("provider", name, known)
}

func unknown(what, name string, known []string) error {
	if near := strictyaml.Nearest(name, known); near != "" {
		return usageError{fmt.Errorf("unknown %s %q: did you mean %q?", what, name, near)}
	}
	return usageError{fmt.Errorf("unknown %s %q; known: %s", what, name, strings.Join(known, ", "))}
}

func roleNames(rules *mapping.Rules) []string {
	var names []string
	for _, role := range rules.Roles() {
		names = append(names, role.Name)
	}
	return names
}

// moment is a time as operators read one.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
