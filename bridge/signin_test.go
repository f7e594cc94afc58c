package bridge_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestLoginCosts holds the exact price of a login (P6): nothing in the database before the callback, one transaction in one round trip in
// it, one call to the provider.
func TestLoginCosts(t *testing.T) {
	t.Parallel()
	var counts *bridgetest.Counts
	s := newService(t, withCounts(t, &counts))
	// pgx prepares a statement at its first use on a connection, and discovery and keys are fetched once.
	for i, subject := range []string{"carl", "ada"} {
		s.OP.ForgetRequests()
		b, _ := s.login(subject, "/")
		for endpoint, want := range map[string]int{"token": 1, "userinfo": 0, "jwks": 1 - i, "discovery": 1 - i} {
			if got := s.OP.Calls(endpoint); got != want {
				t.Errorf("login %d: %d calls to %s, want %d", i, got, endpoint, want)
			}
		}
		s.press(t, b, "/")
	}
	counts.Reset()
	s.OP.ForgetRequests()

	b := bridgetest.NewBrowser()
	page, err := b.Open(t.Context(), s.URL+"/login")
	if err != nil {
		t.Fatal(err)
	}
	if got := counts.RoundTrips(); got != 0 {
		t.Errorf("/login made %d round trips: %q", got, counts.Statements())
	}
	if _, err := b.ChoosePersona(t.Context(), page, "cora"); err != nil {
		t.Fatal(err)
	}
	if got := counts.RoundTrips(); got != 1 || len(counts.Statements()) != 3 || counts.Begins() != 0 {
		t.Errorf("the callback of a first login made %d round trips: %q", got, counts.Statements())
	}
	for endpoint, want := range map[string]int{"token": 1, "userinfo": 0, "jwks": 0, "discovery": 0} {
		if got := s.OP.Calls(endpoint); got != want {
			t.Errorf("%d calls to %s, want %d", got, endpoint, want)
		}
	}

	s.token(b)
	counts.Reset()
	if page, _ := s.token(b); page.Status != 200 || counts.RoundTrips() != 1 || len(counts.Statements()) != 1 {
		t.Errorf("/api_token made %d round trips: %q", counts.RoundTrips(), counts.Statements())
	}
	counts.Reset()
	forged := bridgetest.NewBrowser()
	for _, c := range b.Cookies(s.URL) {
		c.Value = strings.Repeat("A", len(c.Value))
		if err := forged.SetCookie(s.URL, c); err != nil {
			t.Fatal(err)
		}
	}
	if page, _ := s.token(forged); page.Status != 401 || counts.RoundTrips() != 0 {
		t.Errorf("a forged cookie got %d and made %d round trips", page.Status, counts.RoundTrips())
	}
	counts.Reset()
	s.press(t, b, "/")
	if counts.RoundTrips() != 1 || len(counts.Statements()) != 1 {
		t.Errorf("a logout made %d round trips: %q", counts.RoundTrips(), counts.Statements())
	}
}

// TestAttack_IL10_FirstLoginRace: fifty browsers of one person come back at the same moment.
func TestAttack_IL10_FirstLoginRace(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const browsers = 50
	callbacks := make([]func() *bridgetest.Page, browsers)
	for i := range callbacks {
		b := bridgetest.NewBrowser()
		page, err := b.Open(t.Context(), s.URL+"/login")
		if err != nil {
			t.Fatal(err)
		}
		callbacks[i] = func() *bridgetest.Page {
			page, err := b.ChoosePersona(t.Context(), page, "carl")
			if err != nil {
				t.Error(err)
				return nil
			}
			return page
		}
	}
	var wg sync.WaitGroup
	for _, callback := range callbacks {
		wg.Go(func() {
			if page := callback(); page != nil && page.URL.Path != "/" {
				t.Errorf("%s: %s", page.URL, page.Text())
			}
		})
	}
	wg.Wait()
	for table, want := range map[string]int{"users": 1, "identities": 1, "sessions": browsers} {
		if got := row[int](t, s.DB, "SELECT count(*)::int FROM bridge."+table); got != want {
			t.Errorf("%d rows in %s, want %d", got, table, want)
		}
	}
	bridgetest.Tried(t, browsers)
}

func TestAttack_IL09_DisabledUserCannotLogIn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("carl", "/")
	if page, _ := s.token(b); page.Status != 200 {
		t.Fatal(page.Status)
	}
	// Any time means disabled: nobody is enabled by waiting.
	times := []string{"now()", "now() - interval '10 years'", "now() + interval '10 years'", "'infinity'", "'-infinity'", "'epoch'"}
	for _, at := range times {
		exec(t, s.DB, "UPDATE bridge.users SET disabled_at = "+at)
		disabled := row[string](t, s.DB, "SELECT disabled_at::text FROM bridge.users")
		if page, body := s.token(b); page.Status != 401 || body["token"] != nil {
			t.Errorf("%s: a live session of a disabled user got %d", at, page.Status)
		}
		sessions := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions")
		fresh, page := s.login("carl", "/")
		if page.Status != 403 || !strings.Contains(page.Text(), "Your account is disabled") {
			t.Errorf("%s: %d %s", at, page.Status, page.Text())
		}
		if page, _ := s.token(fresh); page.Status != 401 {
			t.Errorf("%s: a disabled user got %d", at, page.Status)
		}
		if got := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions"); got != sessions {
			t.Errorf("%s: %d sessions, were %d", at, got, sessions)
		}
		if now := row[string](t, s.DB, "SELECT disabled_at::text FROM bridge.users"); now != disabled {
			t.Errorf("the login made %s of %s", now, disabled)
		}
		if reason := row[string](t, s.DB, "SELECT reason FROM bridge.events ORDER BY id DESC LIMIT 1"); reason != "user is disabled" {
			t.Errorf("%s: event: %s", at, reason)
		}
	}
	bridgetest.Tried(t, 2*len(times))
}

func TestAttack_IL02_SameSubjectAtTwoIssuers(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	services := []*service{newService(t, withDatabase(db)), newService(t, withDatabase(db)), newService(t, withDatabase(db))}
	subjects := []string{"carl", "ada", "cora"}
	users := map[any]string{}
	for i, s := range services {
		for _, subject := range subjects {
			b, _ := s.login(subject, "/")
			_, body := s.token(b)
			id := claims(t, body["token"])["user_id"]
			if other, seen := users[id]; seen {
				t.Errorf("%s of issuer %d is %s", subject, i, other)
			}
			users[id] = subject
		}
	}
	bridgetest.Tried(t, len(services)*len(subjects))
}

func TestAttack_IL11_SubjectsAreComparedByteByByte(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	subjects := []string{"alice", "Alice", "ALICE", "al\u00efce", "ali\u0308ce", "аlice"}
	for _, subject := range subjects {
		inputs++
		s.OP.SetPersonas(bridgetest.Persona{Subject: subject, Name: subject, IDToken: personas[1].IDToken})
		if _, page := s.login(subject, "/"); page.URL.Path != "/" {
			t.Fatalf("%q: %s", subject, page.Text())
		}
	}
	if got := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.users"); got != len(subjects) {
		t.Errorf("%d users for %d subjects", got, len(subjects))
	}
	bridgetest.Tried(t, inputs)
}

const rowRules = `
version: 1
providers: { op: { preset: generic, claims: { groups: { type: set, default: [] } } } }
roles: { admin: { privileged: true }, customer: {}, anonymous: {} }
rules:
  - name: staff
    when: { email_domain: example.com }
    role: { from: users, allow: [customer, anonymous], default: customer }
  - { name: admins, when: { groups: /admins }, role: admin }
default: deny
tests:
  - { name: an admin, provider: op, claims: { sub: a, groups: [/admins] }, expect: { role: admin }, refuse_if: [ { groups: null } ] }
`

func TestRoleFromTheUsersRow(t *testing.T) {
	t.Parallel()
	s := newService(t, withRules(rowRules))
	b, _ := s.login("carl", "/")
	role := func(want string) {
		t.Helper()
		page, body := s.token(b)
		if want == "" {
			if page.Status != 403 || body["token"] != nil || body["code"] == "" || body["reason"] != "access_denied" || page.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%d %s", page.Status, page.Body)
			}
			return
		}
		if page.Status != 200 || claims(t, body["token"])["role"] != s.DB.Role(want) {
			t.Errorf("want role %s: %d %s", want, page.Status, page.Body)
		}
	}
	role("customer")
	exec(t, s.DB, s.DB.SQL("UPDATE bridge.users SET role = 'anonymous'"))
	role("anonymous")
	exec(t, s.DB, s.DB.SQL("UPDATE bridge.users SET role = 'admin'")) // which the rule does not allow
	role("")
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.events WHERE kind = 'decision'"); n != 2 {
		t.Errorf("%d events for two changes", n)
	}
	role("") // and the second refusal is no change
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.events WHERE kind = 'decision'"); n != 2 {
		t.Errorf("%d events for two changes", n)
	}
	_, page := s.login("carl", "/")
	if page.Status != 403 {
		t.Errorf("a login with a row role that the rule does not allow: %d", page.Status)
	}
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions"); n != 1 {
		t.Errorf("%d sessions", n)
	}
	exec(t, s.DB, "UPDATE bridge.users SET role = NULL")
	role("customer")
}

func TestUsersHook(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	exec(t, db, db.SQL(`
CREATE TABLE public.people (id int GENERATED ALWAYS AS IDENTITY (START 700) PRIMARY KEY, sub text UNIQUE, role text NOT NULL DEFAULT 'customer');
GRANT SELECT, INSERT, UPDATE ON public.people TO bridge_runtime;
GRANT USAGE ON SCHEMA public TO bridge_runtime;
CREATE FUNCTION public.person(identity jsonb) RETURNS TABLE (user_id text, role text, refuse text) LANGUAGE plpgsql AS $$
BEGIN
	IF identity ->> 'subject' = 'cora' THEN
		RETURN QUERY SELECT NULL, NULL, 'You are not on the list.'::text;
		RETURN;
	END IF;
	RETURN QUERY INSERT INTO public.people AS p (sub) VALUES (identity ->> 'subject')
		ON CONFLICT (sub) DO UPDATE SET sub = excluded.sub RETURNING p.id::text, p.role, NULL::text;
END $$;`))
	s := newService(t, withDatabase(db), withRules(rowRules), withConfig("users: { hook: public.person }"))

	b, _ := s.login("carl", "/")
	_, body := s.token(b)
	got := claims(t, body["token"])
	if got["user_id"] != "700" || got["sub"] != "700" || got["role"] != db.Role("customer") {
		t.Errorf("%v", got)
	}
	exec(t, db, db.SQL("UPDATE public.people SET role = 'anonymous'"))
	b, _ = s.login("carl", "/")
	_, body = s.token(b)
	if again := claims(t, body["token"]); again["user_id"] != "700" || again["role"] != db.Role("anonymous") {
		t.Errorf("second login: %v", again)
	}
	refused, page := s.login("cora", "/")
	if page.Status != 403 || !strings.Contains(page.Text(), "You are not on the list.") {
		t.Errorf("%d %s", page.Status, page.Text())
	}
	if page, _ := s.token(refused); page.Status != 401 {
		t.Errorf("refused by the hook, got %d", page.Status)
	}
	if n := row[int](t, db, "SELECT count(*)::int FROM bridge.users"); n != 1 {
		t.Errorf("%d users rows", n)
	}
	exec(t, db, "ALTER TABLE public.people ADD CHECK (sub <> 'ada')")
	if _, page := s.login("ada", "/"); page.Status != 503 || strings.Contains(page.Text(), "constraint") {
		t.Errorf("a hook that fails: %d %s", page.Status, page.Text())
	}
	if n := row[int](t, db, "SELECT count(*)::int FROM bridge.sessions"); n != 2 {
		t.Errorf("%d sessions", n)
	}
}

// TestUsersHookTurnedOnLater: ids of the bridge must not be taken for ids of the application.
func TestUsersHookTurnedOnLater(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	exec(t, db, db.SQL(`
CREATE FUNCTION public.person(identity jsonb) RETURNS TABLE (user_id text, role text, refuse text) LANGUAGE sql VOLATILE
	AS $$ SELECT CASE identity ->> 'subject' WHEN 'carl' THEN '700' END, NULL, NULL $$;
GRANT USAGE ON SCHEMA public TO bridge_runtime;`))
	before := newService(t, withDatabase(db))
	b, _ := before.login("carl", "/")
	cookie := sessionCookie(t, before, b)
	config := strings.NewReplacer("https://app.example.com/auth", before.URL, "corp:", "op:", "https://sso.example.com/realms/acme", before.OP.Issuer(),
		"postgres://bridge@localhost/app", db.URL).Replace(goodConfig) + "insecure_dev: true\n"
	for hook, want := range map[string]int{"": 200, "users: { hook: public.person }\n": 401} {
		c, findings := bridge.LoadConfig("config.yaml", []byte(config+hook), noEnvironment)
		if c == nil {
			t.Fatal(findings)
		}
		if got := ask(handler(t, c, db.SQL(ordersRules)), "/api_token", cookie); got != want {
			t.Errorf("with hook %q: %d, want %d", hook, got, want)
		}
	}
	after := newService(t, withDatabase(db), withConfig("users: { hook: public.person }"))
	b, _ = after.login("carl", "/")
	if _, body := after.token(b); claims(t, body["token"])["user_id"] != "700" {
		t.Errorf("%v", body)
	}
	refused, page := after.login("cora", "/")
	if page.Status != 403 {
		t.Errorf("a hook without user_id: %d %s", page.Status, page.Text())
	}
	if page, _ := after.token(refused); page.Status != 401 {
		t.Errorf("%d", page.Status)
	}
	if reason := row[string](t, db, "SELECT reason FROM bridge.events ORDER BY id DESC LIMIT 1"); reason != "users.hook gave no user_id" {
		t.Error(reason)
	}
}

// TestAttack_SC01_SessionFixation: whatever session a browser holds before a login, it holds a new one after it, and the old one is nobody's.
func TestAttack_SC01_SessionFixation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	live := func(subject string) string {
		b, _ := s.login(subject, "/")
		return sessionCookie(t, s, b).Value
	}
	ended := live("ada")
	exec(t, s.DB, "DELETE FROM bridge.sessions")
	name := sessionCookie(t, s, func() *bridgetest.Browser { b, _ := s.login("ada", "/"); return b }()).Name
	planted := map[string]string{
		"nothing": "", "a word": "known", "zeros": strings.Repeat("A", 64), "a session that has ended": ended, "the attacker's": live("ada"), "another person's": live("cora"), "the same person's": live("carl"),
		"a forged one": live("ada")[:43] + strings.Repeat("A", 21), "one too long": live("ada") + "A", "a login state": strings.Repeat("A", 300),
	}
	for what, value := range planted {
		b := bridgetest.NewBrowser()
		if err := b.SetCookie(s.URL, &http.Cookie{Name: name, Value: value, Path: "/"}); err != nil {
			t.Fatal(err)
		}
		before := b.Clone()
		if page := s.loginWith(b, "carl", "/"); page.URL.Path != "/" {
			t.Fatal(page.Text())
		}
		if now := sessionCookie(t, s, b).Value; now == value {
			t.Errorf("%s: kept through the login", what)
		}
		_, body := s.token(b)
		if got := claims(t, body["token"]); got["role"] != s.DB.Role("customer") || got["email"] != "carl@example.com" {
			t.Errorf("%s: the new login is %v", what, got)
		}
		if page, _ := s.token(before); page.Status != 401 {
			t.Errorf("%s: still answers %d", what, page.Status)
		}
	}
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM (SELECT user_id FROM bridge.identities GROUP BY user_id HAVING count(*) > 1) x"); n != 0 {
		t.Errorf("%d users with two identities", n)
	}
	bridgetest.Tried(t, len(planted))
}

func TestAttack_SC04_DumpedHashesDoNotLogIn(t *testing.T) {
	t.Parallel()
	inputs := 0
	s := newService(t)
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	stored := row[[]byte](t, s.DB, "SELECT token_hash FROM bridge.sessions")
	if dump := row[string](t, s.DB, "SELECT string_agg(s::text, ' ') FROM bridge.sessions s"); strings.Contains(dump, cookie.Value) {
		t.Error("the database holds the cookie")
	}
	for _, value := range [][]byte{stored, append(stored, make([]byte, 16)...)} {
		inputs++
		thief := bridgetest.NewBrowser()
		forged := *cookie
		forged.Value = encode(value)
		if err := thief.SetCookie(s.URL, &forged); err != nil {
			t.Fatal(err)
		}
		if page, _ := s.token(thief); page.Status != 401 {
			t.Errorf("a dumped hash got %d", page.Status)
		}
	}
	bridgetest.Tried(t, inputs)
}

func sessionCookie(t *testing.T, s *service, b *bridgetest.Browser) *http.Cookie {
	t.Helper()
	for _, c := range b.Cookies(s.URL) {
		if strings.HasPrefix(c.Name, "session-") {
			return c
		}
	}
	t.Fatal("no session cookie")
	return nil
}

// exec runs statements as superuser.
func exec(t *testing.T, db *bridgetest.Database, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// query runs one statement with arguments as superuser.
func query(t *testing.T, db *bridgetest.Database, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
