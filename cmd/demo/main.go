// Command demo shows the whole scenario on one machine, with nothing prepared: a throw-away PostgreSQL with orders, an OpenID Provider
// without passwords, the bridge, PostgREST (or a stand-in) and a page, all behind one address.
//
//	demo.go    starts and stops it all            config.yaml, rules.yaml    the bridge's files, as an operator writes them
//	people.go  who can log in, and their orders   front/                     the page, and the one address
//	api.go     PostgREST or the stand-in          check.go                   --check: everybody logs in and out over HTTP
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

const usage = `go run ./cmd/demo shows a login in front of PostgREST, all of it on this machine. Ctrl-C ends it and leaves nothing behind.

Flags:
  --addr localhost:PORT   where the page is; default localhost:8080, or a free port if that is taken
  --check                 log everybody in and out over HTTP, print what they saw, and end
  --help                  this text

Environment:
  DATABASE_URL            a PostgreSQL server to use, as superuser; default: a throw-away one of our own
  PG_BINDIR               where its programs are; default: PATH, /usr/lib/postgresql/*/bin, or they are fetched
  POSTGREST_BIN           the PostgREST to use, or none for a stand-in; default: postgrest on PATH, or a stand-in

Example:
  go run ./cmd/demo --addr localhost:9000

Exit codes: 0 all is well; 1 something failed, or --check saw what it did not expect; 2 the command line is wrong.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	addr := flags.String("addr", "", "")
	check := flags.Bool("check", false, "")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return 0
	}
	var port string
	if err == nil {
		port, err = portOf(*addr, flags.Args())
	}
	if err != nil {
		fmt.Fprintf(stderr, "demo: %v\nTry: go run ./cmd/demo --help\n", err)
		return 2
	}
	if *check {
		err = runCheck(ctx, port, stdout, stderr)
	} else {
		err = serveUntilDone(ctx, port, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 1
	}
	return 0
}

// portOf reads --addr. Its host is always localhost: everybody could be anybody here, so nobody else may come in.
func portOf(addr string, rest []string) (string, error) {
	if len(rest) > 0 {
		return "", fmt.Errorf("unexpected argument %q", rest[0])
	}
	if addr == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host != "" && host != "localhost" || port == "" {
		return "", fmt.Errorf("--addr %s: write it like localhost:9000", addr)
	}
	return port, nil
}

func serveUntilDone(ctx context.Context, port string, stdout, stderr io.Writer) (err error) {
	d, err := startDemo(ctx, port, progress(stderr), slog.New(slog.NewTextHandler(stderr, nil)))
	defer func() { err = errors.Join(err, d.stop()) }()
	if err != nil {
		return err
	}
	d.summary(stdout)
	<-ctx.Done()
	fmt.Fprintln(stdout, "\nStopping.")
	return nil
}

// runCheck keeps the bridge's log for the case that something is not as expected.
func runCheck(ctx context.Context, port string, stdout, stderr io.Writer) (err error) {
	if port == "" {
		port = "0"
	}
	var log bytes.Buffer
	d, err := startDemo(ctx, port, progress(stderr), slog.New(slog.NewTextHandler(&log, nil)))
	defer func() { err = errors.Join(err, d.stop()) }()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s, orders by %s\n\n", d.url, d.apiName())
	different, err := d.check(ctx, stdout)
	if err == nil && len(different) > 0 {
		err = fmt.Errorf("not as expected:\n  %s", strings.Join(different, "\n  "))
	}
	if err != nil {
		fmt.Fprintf(stderr, "\nThe bridge's log:\n%s\n", log.String())
		return err
	}
	fmt.Fprintln(stdout, "\nAll as expected, and every logout ended the session.")
	return nil
}

// progress names a step that takes longer than a second.
func progress(w io.Writer) step {
	return func(name string, do func() error) error {
		done := make(chan error, 1)
		go func() { done <- do() }()
		var err error
		select {
		case err = <-done:
		case <-time.After(time.Second):
			fmt.Fprintf(w, "%s …\n", name)
			err = <-done
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
}

func (d *demo) apiName() string {
	if d.api.standIn {
		return "a stand-in for PostgREST"
	}
	return "PostgREST"
}

func (d *demo) summary(w io.Writer) {
	fmt.Fprintf(w, "\nOpen %s/ and log in as\n\n", d.url)
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, p := range d.people {
		fmt.Fprintf(table, "  %s\t%s\n", p.Name, p.Note)
	}
	table.Flush()
	fmt.Fprint(w, "\nBehind it\n\n")
	fmt.Fprintf(table, "  Token\t%s/auth/api_token\tfor whoever is logged in\n", d.url)
	fmt.Fprintf(table, "  Orders\t%s/orders\t%s\n", d.url, d.apiName())
	fmt.Fprintf(table, "  Provider\t%s\tasks for no password\n", d.op.Issuer())
	// Two columns: a long address must not widen the others.
	fmt.Fprintf(table, "  Database\tpsql '%s'\n", d.db.AdminURL)
	table.Flush()
	fmt.Fprint(w, "\nCtrl-C ends it and leaves nothing behind. The log of the bridge follows.\n\n")
}
