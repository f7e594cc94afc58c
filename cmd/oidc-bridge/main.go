// Command oidc-bridge logs people in at OpenID providers and gives their browsers tokens for PostgREST.
//
// This package is the command line: flags, files, exit codes, output. What the service does is in package bridge.
//
// Exit codes: 0 it worked; 1 it did not, or findings forbid it; 2 the command line is wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set at release builds: go build -ldflags "-X main.version=1.2.3".
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.LookupEnv))
}

// environment is what commands take from the process.
type environment struct {
	ctx    context.Context
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	lookup func(string) (string, bool)
}

type commandLine struct {
	Serve   serveCommand   `cmd:"" help:"Answer requests until SIGTERM or Ctrl-C."`
	Migrate migrateCommand `cmd:"" help:"Create or update schema bridge and grant it to the runtime role."`
	Check   checkCommand   `cmd:"" help:"Look at everything that must be right: files, secrets, database, roles, providers."`
	Health  healthCommand  `cmd:"" help:"Ask the running service whether it is ready: a container's health check."`
	Rules   rulesCommand   `cmd:"" help:"Check, test, explain and compare rules files."`
	User    userCommand    `cmd:"" help:"List, show, disable, enable, promote, delete and export people."`
	Session sessionCommand `cmd:"" help:"List and revoke sessions."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

const description = `A login in front of PostgREST: people log in at an OpenID provider, a rules file gives each of them one PostgreSQL role, and their
pages fetch the token that PostgREST expects.

Start here:

  oidc-bridge migrate --config config.yaml    as the schema's owner
  oidc-bridge check   --config config.yaml    what is missing?
  oidc-bridge serve   --config config.yaml`

// errFindings ends a command that has already printed why.
var errFindings = errors.New("findings")

// A usageError is a command line that cannot be meant so: exit code 2.
type usageError struct{ error }

// run is the program. Output goes to stdout, everything about its making to stderr.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, lookup func(string) (string, bool)) (code int) {
	stdout, stderr = safeWriter{stdout}, safeWriter{stderr}
	var line commandLine
	exited := -1
	parser, err := kong.New(&line,
		kong.Name("oidc-bridge"), kong.Description(description), kong.UsageOnError(), kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}), kong.Exit(func(code int) { exited = code }),
	)
	if err != nil {
		fmt.Fprintln(stderr, "oidc-bridge:", err)
		return 1
	}
	command, err := parser.Parse(args)
	if exited >= 0 {
		return exited // --help
	}
	if err != nil {
		help := "oidc-bridge"
		if wrong := (*kong.ParseError)(nil); errors.As(err, &wrong) && wrong.Context.Selected() != nil {
			help = wrong.Context.Selected().FullPath()
		}
		fmt.Fprintf(stderr, "oidc-bridge: %v\nTry: %s --help\n", err, help)
		return 2
	}
	err = command.Run(environment{ctx, stdin, stdout, stderr, lookup})
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFindings):
		return 1
	}
	fmt.Fprintln(stderr, "oidc-bridge:", err)
	if usage := (usageError{}); errors.As(err, &usage) {
		return 2
	}
	return 1
}

type versionCommand struct{}

func (versionCommand) Run(env environment) error {
	_, err := fmt.Fprintln(env.stdout, "oidc-bridge", versionText())
	return err
}

// versionText is the release, or the commit that the binary was built from.
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return "commit " + setting.Value[:min(12, len(setting.Value))]
		}
	}
	return info.Main.Version
}

// logFlags are the flags of commands that log.
type logFlags struct {
	LogLevel  string `default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"debug, info, warn or error; debug has a line for each request. Default: ${default}."`
	LogFormat string `default:"json" enum:"json,text" placeholder:"FORMAT" help:"json or text, one line for each event, on standard error. Default: ${default}."`
}

func (f logFlags) logger(w io.Writer) *slog.Logger {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	options := &slog.HandlerOptions{Level: levels[f.LogLevel]}
	if f.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
