package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/deploy"
)

// The test binary is also the PostgREST of the tests: with PostgREST's environment it serves what that says, until SIGTERM.
func TestMain(m *testing.M) {
	if os.Getenv("PGRST_DB_URI") == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	api, err := bridgetest.StartAPI(ctx, bridgetest.APIOptions{
		Addr:        net.JoinHostPort(os.Getenv("PGRST_SERVER_HOST"), os.Getenv("PGRST_SERVER_PORT")),
		DatabaseURL: os.Getenv("PGRST_DB_URI"), Schema: os.Getenv("PGRST_DB_SCHEMAS"), AnonRole: os.Getenv("PGRST_DB_ANON_ROLE"),
		JWTSecret: os.Getenv("PGRST_JWT_SECRET"), JWTAud: os.Getenv("PGRST_JWT_AUD"), PreRequest: os.Getenv("PGRST_DB_PRE_REQUEST"),
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	<-ctx.Done()
	api.Close()
}

const checked = `URL, orders by API

PERSON       ROLE      ORDERS  REFUSAL
a visitor    -         -       only authenticated users can request the API token
Alice Adams  admin     7       
Ben Baker    customer  3       
Carla Costa  customer  2       
Una Unger    -         -       You are logged in at the provider, but this service gives your account no role. If you think it should, send the code below to the people who run it.
Leo Lang     -         -       You left the company, so this account is closed. If that is a mistake, please call Human Resources.

All as expected, and every logout ended the session.
`

func TestCheck(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ postgrest, api string }{
		{"none", "a stand-in for PostgREST"},
		{self, "PostgREST"},
	} {
		t.Run(test.api, func(t *testing.T) {
			t.Setenv("POSTGREST_BIN", test.postgrest)
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), []string{"--check"}, &stdout, &stderr); code != 0 {
				t.Fatalf("exit code %d\n%s%s", code, &stdout, &stderr)
			}
			got := regexp.MustCompile(`^http://localhost:\d+`).ReplaceAllString(stdout.String(), "URL")
			if diff := cmp.Diff(strings.Replace(checked, "API", test.api, 1), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPostgRESTThatDoesNotStart(t *testing.T) {
	for binary, want := range map[string]string{"/bin/false": "has ended", "/nowhere/postgrest": "no such file"} {
		t.Setenv("POSTGREST_BIN", binary)
		var stderr bytes.Buffer
		if code := run(t.Context(), []string{"--check"}, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: exit code %d, want 1 and %q:\n%s", binary, code, want, &stderr)
		}
	}
}

func TestCheckOfARunningDemo(t *testing.T) {
	t.Setenv("POSTGREST_BIN", "none")
	d, err := startDemo(t.Context(), "0", progress(io.Discard), slog.New(slog.DiscardHandler))
	defer d.stop()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range d.people {
		if got := p.differs(outcome{p.role, p.sees, p.refusal, "CODE"}); got != nil {
			t.Errorf("%s: %v", p.Name, got)
		}
	}
	// The other file of deploy gives the same orders to the same people.
	text, err := deploy.SQL.ReadFile("sql/orders-rls.sql")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.db.Exec(t.Context(), string(text)); err != nil {
		t.Fatal(err)
	}
	if different, err := d.check(t.Context(), io.Discard); err != nil || different != nil {
		t.Errorf("with row level security: %v, error %v", different, err)
	}
	d.people[0].sees = 8
	d.people[1].role = "admin"
	d.people[2].refusal = "never"
	d.people[3].refusal = ""
	d.people[4].refusal = "something else"
	got, err := d.check(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`Alice Adams, orders: got 7, want 8`,
		`Ben Baker, role: got "customer", want "admin"`,
		`Carla Costa, refusal: got none, want "never"`,
		`Carla Costa, code of the refusal: got none, want one`,
		`Una Unger, refusal: got "You are logged in at the provider, but this service gives your account no role. If you think it should, send the code below to the people who run it.", want none`,
		`Leo Lang, refusal: got "You left the company, so this account is closed. If that is a mistake, please call Human Resources.", want "something else"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// It runs until it is told to stop, and then nothing is left: no listener, no server process, no folder.
func TestRunsUntilStopped(t *testing.T) {
	t.Setenv("POSTGREST_BIN", "none")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	reader, stdout := io.Pipe()
	var stderr bytes.Buffer
	code := make(chan int)
	go func() {
		code <- run(ctx, []string{"--addr", "localhost:0"}, stdout, &stderr)
		stdout.Close()
	}()
	lines := bufio.NewScanner(reader)
	var said strings.Builder
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Ctrl-C") {
		fmt.Fprintln(&said, lines.Text())
	}
	go io.Copy(io.Discard, reader)
	page := find(t, said.String(), `Open (\S+) and log in as`)
	for _, p := range people() {
		find(t, said.String(), `(?m)^  (`+p.Name+`) +`+regexp.QuoteMeta(p.Note)+`$`)
	}
	find(t, said.String(), `/orders +(a stand-in for PostgREST)`)

	answer, err := http.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || answer.StatusCode != http.StatusOK || !bytes.Contains(body, []byte("is a stand-in for PostgREST")) {
		t.Errorf("the page: status %d, error %v\n%s", answer.StatusCode, err, body)
	}
	stop()
	if got := <-code; got != 0 || strings.Contains(stderr.String(), "demo:") {
		t.Errorf("exit code %d\n%s", got, &stderr)
	}
	if answer, err := http.Get(page); err == nil {
		answer.Body.Close()
		t.Error("the page still answers")
	}
	if os.Getenv("DATABASE_URL") != "" {
		return // a server that is not ours
	}
	folder, err := url.QueryUnescape(find(t, said.String(), `psql 'postgres://.*host=([^&]+)&`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder %s is still there: %v", folder, err)
	}
}

func find(t *testing.T, text, pattern string) string {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("no %q in\n%s", pattern, text)
	}
	return match[1]
}

func TestStoppedWhileStarting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code := run(ctx, []string{"--check"}, io.Discard, io.Discard); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

func TestCommandLine(t *testing.T) {
	for _, test := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"--help"}, 0, "go run ./cmd/demo --addr localhost:9000", ""},
		{[]string{"--chek"}, 2, "", "flag provided but not defined: -chek\nTry: go run ./cmd/demo --help"},
		{[]string{"check"}, 2, "", `unexpected argument "check"`},
		{[]string{"--addr", "9000"}, 2, "", "write it like localhost:9000"},
		{[]string{"--addr", "0.0.0.0:9000"}, 2, "", "write it like localhost:9000"},
		{[]string{"--addr", "localhost:"}, 2, "", "write it like localhost:9000"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), test.args, &stdout, &stderr)
		if code != test.code || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("%v: exit code %d\n%s%s", test.args, code, &stdout, &stderr)
		}
	}
}

func TestTakenPort(t *testing.T) {
	taken, err := listen("0")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range taken {
		defer l.Close()
	}
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"--addr", taken[0].Addr().String()[len("127.0.0.1"):]}, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), "in use") {
		t.Errorf("exit code %d\n%s", code, &stderr)
	}
	// Without --addr it is no error. Whoever has 8080 now, we or another program: it is taken.
	if first, err := listen("8080"); err == nil {
		for _, l := range first {
			defer l.Close()
		}
	}
	d := &demo{}
	defer d.stop()
	if _, err := d.listen(""); err != nil || strings.HasSuffix(d.url, ":8080") {
		t.Errorf("listening at %q, error %v", d.url, err)
	}
}
