package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// operators is what the mistakes are made with: two people with one address, one with sessions, one whom a table of the application keeps.
const operators = `
INSERT INTO bridge.users (email, role) VALUES ('ada@example.com', 'x'), ('two@example.com', NULL), ('two@example.com', NULL);
INSERT INTO bridge.identities (issuer, subject, user_id, provider, claims, last_login_at) VALUES
  ('https://op.example.com', 'ada', 1, 'op', '{}', now()), ('https://op.example.com', 'two', 2, 'op', '{}', now());
INSERT INTO bridge.sessions (id, token_hash, user_id, identity_id, provider, claims, role, created_at, last_seen_at, idle_expires_at, expires_at)
SELECT ('00000000-0000-4000-8000-00000000000' || n)::uuid, sha256(n::text::bytea), n, n, 'op', '{}', 'x', now(), now(), now() + interval '1 hour', now() + interval '1 day'
FROM generate_series(1, 2) n;
CREATE TABLE public.orders (user_id bigint REFERENCES bridge.users (id));
INSERT INTO public.orders VALUES (2);`

// TestAttack_AD02_Mistakes: what operators mistype, mean otherwise, or run where they should not is refused with an exit code, says what to do,
// and changes nothing; so does every dry run, and every change that was made before.
func TestAttack_AD02_Mistakes(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	if err := s.db.Exec(t.Context(), operators); err != nil {
		t.Fatal(err)
	}
	empty := bridgetest.EmptyDB(t)
	right := s.env["DATABASE_URL"]
	const down, nobody = "postgres://bridge:canary-password@127.0.0.1:1/app", "99999999-0000-4000-8000-000000000000"
	before, err := contents(t.Context(), s.db)
	if err != nil {
		t.Fatal(err)
	}
	inputs := 0
	try := func(url, owner, line string, code int, says string) {
		t.Helper()
		inputs++
		s.env["DATABASE_URL"], s.env["DATABASE_OWNER_URL"] = url, owner
		out, got := s.run(line, "1\nyes\n", append(words(line), "--config", "config.yaml")...)
		if got != code || !strings.Contains(out, says) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", line, got, code, says, out)
		}
		if after, err := contents(t.Context(), s.db); err != nil || after != before {
			t.Errorf("%s: it changed something: %v\n%s%s", line, err, before, after)
		}
	}
	for _, command := range []string{"user show", "user disable", "user enable", "user set-role --none", "user delete --yes", "user export", "session list --user", "session revoke --user"} {
		owner := ""
		if strings.HasPrefix(command, "user delete") {
			owner = s.db.OwnerURL
		}
		who := command + " two@example.com"
		try(right, owner, who, 1, "2 people are meant; nothing was changed: name one by the user_id, such as 2, or with --issuer and --subject")
		try(right, owner, command+" nobody@example.com", 1, "nobody is known")
		try(right, owner, command+" 4", 1, "nobody is known")
		try(right, owner, command+" '1 OR true'", 1, "nobody is known")
		try(down, strings.Replace(owner, s.db.OwnerURL, down, 1), who, 1, "cannot connect to the database")
		try(empty.URL, strings.Replace(owner, s.db.OwnerURL, empty.OwnerURL, 1), who, 1, "has no schema bridge: name another one, or run: oidc-bridge migrate")
		try(right, owner, strings.TrimSuffix(command, " --user")+" --issuer https://op.example.com", 2, "--issuer and --subject")
		try(right, owner, strings.Replace(command, " ", " x", 1)+" 1", 2, "did you mean")
		try(right, owner, command+" 1 --isuer x", 2, "--issuer\"?")
		try("", owner, who, 1, "DATABASE_URL")
	}
	for line, says := range map[string]string{
		"user list --limit -3":                                  "--limit",
		"user list --limit many":                                "--limit",
		"user list --format yaml":                               "--format must be one of",
		"user list ada@example.com":                             "unexpected argument",
		"user disable":                                          "name one person",
		"user disable 1 --issuer a --subject b":                 "name one person",
		"user set-role 1":                                       "which role?",
		"user set-role 1 --role x --none":                       "which role?",
		"user set-role 1 --role nonsense":                       "unknown role \"nonsense\"; known: " + s.db.Role("customer"),
		"user set-role 1 --role " + s.db.Role("customer") + "r": "did you mean \"" + s.db.Role("customer") + "\"?",
		"user delete 1":                                         "off a terminal it needs --yes",
		"session revoke":                                        "which sessions?",
		"session revoke --all":                                  "off a terminal it needs --yes",
		"session revoke --all --yes --user 1":                   "which sessions?",
		"session revoke 1":                                      "one looks like 0f8b3c1d-5e7a-4264-8f8b-3c1d5e7a9264",
		"session revoke 00000000-0000-4000-8000-0000000000011":  "one looks like",
		"session revoke 00000000000040008000000000000001":       "one looks like",
		"session revoke {00000000-0000-4000-8000-000000000001}": "one looks like",
		"session revoke ada@example.com":                        "did you mean --user?",
		"session revoke 00000000-0000-4000-8000-000000000001 00000000-0000-4000-8000-000000000002": "unexpected argument",
		"session revoke all":                           "one looks like",
		"session list --user 1 --issuer a --subject b": "name one person",
	} {
		try(right, s.db.OwnerURL, line, 2, says)
	}
	for line, says := range map[string]string{
		"session revoke " + nobody:      "there never was such a session",
		"user delete 2 --yes":           "table public.orders refers to this user",
		"user delete 1 --yes --subject": "",
	} {
		code := 1
		if says == "" {
			code = 2
		}
		try(right, s.db.OwnerURL, line, code, says)
	}
	try(right, "", "user delete 1 --yes", 1, "needs the schema's owner in DATABASE_OWNER_URL")
	for line, says := range map[string]string{
		"user disable 1 --dry-run":                                       "would be disabled: user 1",
		"user set-role 1 --none --dry-run":                               "role would be taken away: user 1",
		"user set-role 1 --role " + s.db.Role("customer") + " --dry-run": "would be given: user 1",
		"user delete 1 --dry-run":                                        "would be deleted with 1 login and 1 live session: user 1",
		"session revoke --all --dry-run":                                 "would end: 2 sessions",
		"session revoke --user 1 --dry-run":                              "would end: 1 session of user 1",
		"session revoke 00000000-0000-4000-8000-000000000001 --dry-run":  "would end: 1 session",

		"user enable 1":           "is enabled already: user 1",
		"user set-role 3 --none":  "has no role already: user 3",
		"session revoke --user 3": "ended: 0 sessions of user 3",
		"user list":               "3 users",
		"session list":            "2 sessions",
		"user export 1":           `"identities"`,
	} {
		try(right, s.db.OwnerURL, line, 0, says)
	}
	bridgetest.Tried(t, inputs)
}

// At a question, Ctrl-C is a no.
func TestConfirmInterrupted(t *testing.T) {
	t.Parallel()
	stdin, typist := io.Pipe()
	defer typist.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	err := yesFlag{}.confirm(environment{ctx: ctx, stdin: stdin, stderr: &out}, "Everything ends.", "yes")
	if err == nil || err.Error() != "not confirmed; nothing was changed" || out.String() != "Everything ends.\nType yes to go on: \n" {
		t.Errorf("%v %q", err, out.String())
	}
}

// Colours are for terminals; columns only grow, and what a cell holds can neither colour nor leave its line.
func TestTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	lookup := func(string) (string, bool) { return "", false }
	rows := newTable(environment{stdout: &out, lookup: lookup}, "A", "B")
	if rows.colour {
		t.Error("colours without a terminal")
	}
	rows.colour = true
	for range tableBlock {
		rows.add(false, "é", "x")
	}
	rows.add(true, "\x1b[32mwide\n", "y")
	if err := rows.flush(); err != nil {
		t.Error(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != tableBlock+3 || lines[0] != "\x1b[1mA  B\x1b[0m" || lines[1] != "é  x" || lines[tableBlock+1] != "\x1b[31m\\x1b[32mwide\\n  y\x1b[0m" {
		t.Errorf("%d lines: %q %q %q", len(lines), lines[0], lines[1], lines[tableBlock+1])
	}
}

// TestReadmeLeaver follows "Somebody leaves the company" of the README, from disable to the refused request, and back.
func TestReadmeLeaver(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	address := freeAddress(t)
	s.replace("config.yaml", "public_url: http://127.0.0.1:0", "public_url: http://"+address)
	s.replace("config.yaml", "\nlisten: 127.0.0.1:0", "\nlisten: "+address)
	s.replace("rules.yaml", "default: deny", "default: deny\nusers: { email: { from: email } }")
	s.op.SetPersonas(bridgetest.Persona{Subject: "ada", Name: "Ada", IDToken: map[string]any{"email": "ada@example.com", "email_verified": true}})
	s.op.AddClient(bridgetest.Client{ID: "bridge", Secret: "canary-client-secret", RedirectURIs: []string{"http://" + address + "/callback/op"}})
	log := bridgetest.NewLog(t)
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan int)
	lookup := func(name string) (string, bool) { value, set := s.env[name]; return value, set }
	go func() {
		stopped <- run(ctx, []string{"serve", "--config", s.dir + "/config.yaml"}, strings.NewReader(""), log, log, lookup)
	}()
	defer func() {
		stop()
		if code := <-stopped; code != 0 {
			t.Errorf("serve: exit code %d", code)
		}
	}()
	bridgetest.Await(t, "somebody to listen", func() bool {
		conn, err := net.Dial("tcp", address)
		return err == nil && conn.Close() == nil
	})
	login := func() (*bridgetest.Browser, *bridgetest.Page) {
		b := bridgetest.NewBrowser()
		page, err := b.Open(t.Context(), "http://"+address+"/login")
		if err == nil {
			page, err = b.ChoosePersona(t.Context(), page, "ada")
		}
		if err != nil {
			t.Fatal(err)
		}
		return b, page
	}
	ask := func(b *bridgetest.Browser) *bridgetest.Page {
		page, err := b.Fetch(t.Context(), http.MethodGet, "http://"+address+"/api_token", nil, "")
		if err != nil {
			t.Fatal(err)
		}
		return page
	}
	desk, _ := login()
	telephone, _ := login()
	for _, b := range []*bridgetest.Browser{desk, telephone} {
		if page := ask(b); page.Status != 200 {
			t.Fatalf("%d %s", page.Status, page.Body)
		}
	}

	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)<!-- test: leaves -->\n```console\n(.*?)```").FindStringSubmatch(string(text))
	if shown == nil {
		t.Fatal("the README has no such block")
	}
	var got strings.Builder
	for line := range strings.Lines(shown[1]) {
		command, isCommand := strings.CutPrefix(line, "$ oidc-bridge ")
		if !isCommand {
			continue
		}
		out, code := s.run(command, "", append(words(command), "--config", "config.yaml")...)
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
		fmt.Fprint(&got, line, strings.ReplaceAll(out, s.op.Issuer(), "https://sso.example.com/realms/acme"))
		if strings.Contains(line, "--dry-run") {
			if page := ask(desk); page.Status != 200 {
				t.Errorf("%d after a dry run", page.Status)
			}
		}
	}
	if got.String() != shown[1] {
		t.Errorf("the README does not show what its commands print:\n%s", got.String())
	}

	// A replica hears of the change a moment later.
	refused := func(b *bridgetest.Browser) {
		t.Helper()
		var page *bridgetest.Page
		bridgetest.Await(t, "a refusal", func() bool { page = ask(b); return page.Status != 200 })
		if page.Status != 401 || !strings.Contains(string(page.Body), `{"error":"only authenticated users can request the API token"}`) {
			t.Errorf("%d %s", page.Status, page.Body)
		}
	}
	refused(desk)
	refused(telephone)
	if _, page := login(); page.Status != 403 || !strings.Contains(page.Text(), "Your account is disabled") {
		t.Errorf("a new login: %d %s", page.Status, page.Text())
	}
	for _, command := range []string{"session revoke --user ada@example.com", "user enable ada@example.com"} {
		if out, code := s.run(command, "", append(words(command), "--config", "config.yaml")...); code != 0 {
			t.Errorf("%s: %s", command, out)
		}
	}
	refused(desk)
	if b, _ := login(); ask(b).Status != 200 {
		t.Error("no way back in after enable")
	}
}
