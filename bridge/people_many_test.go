package bridge_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// crowd fills a database with people, each with one session but for the first, who has 1200 of one moment, and some with one that is over.
func crowd(t *testing.T, people int) *bridgetest.Database {
	t.Helper()
	db := bridgetest.DB(t)
	query(t, db, `INSERT INTO bridge.users (email, disabled_at) SELECT 'p' || n || '@example.com', CASE WHEN n % 3 = 0 THEN now() END FROM generate_series(1, $1::int) n`, people)
	exec(t, db, `
INSERT INTO bridge.identities (issuer, subject, user_id, provider, claims, last_login_at)
SELECT 'https://op.example.com', 's' || id, id, 'op', '{}', now() FROM bridge.users;
INSERT INTO bridge.sessions (id, token_hash, user_id, identity_id, provider, claims, role, created_at, last_seen_at, idle_expires_at, expires_at)
SELECT gen_random_uuid(), sha256(convert_to(u.id || '-' || n, 'UTF8')), u.id, i.id, 'op', '{}', 'customer', now(), now(),
	now() + CASE WHEN u.id > 1 AND u.id % 7 = 0 THEN interval '-1 hour' ELSE interval '1 hour' END, now() + interval '1 day'
FROM bridge.users u JOIN bridge.identities i ON i.user_id = u.id, generate_series(1, CASE WHEN u.id = 1 THEN 1200 ELSE 1 END) n`)
	return db
}

// Lists have everybody once, over the borders of pages, and stop when nobody wants more.
func TestPeopleByTheThousand(t *testing.T) {
	t.Parallel()
	const everybody = 2500
	db := crowd(t, everybody)
	p := people(t, db.URL)
	var ids []int64
	for person, err := range p.Users(t.Context(), false) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, person.ID)
	}
	if len(ids) != everybody || !slices.IsSorted(ids) || ids[0] != 1 || ids[everybody-1] != everybody {
		t.Errorf("%d users", len(ids))
	}
	disabled := 0
	for person, err := range p.Users(t.Context(), true) {
		if disabled++; err != nil || person.DisabledAt == nil {
			t.Fatal(person, err)
		}
	}
	if disabled != everybody/3 {
		t.Errorf("%d disabled", disabled)
	}
	seen := map[string]bool{}
	var owners []string
	for session, err := range p.Sessions(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		seen[session.ID] = true
		if owners = append(owners, session.UserID); len(owners) == 1201 && session.UserID != "2" {
			t.Errorf("after the first one's sessions comes %s", session.UserID)
		}
	}
	if want := 1200 + everybody - 1 - everybody/7; len(owners) != want || len(seen) != want {
		t.Errorf("%d sessions, %d different ones, want %d", len(owners), len(seen), want)
	}
	one := 0
	for _, err := range p.Sessions(t.Context(), nil) {
		if one++; err != nil || one == 1001 {
			break
		}
	}
	if one != 1001 {
		t.Errorf("stopped at %d", one)
	}
}

// TestAttack_AD02_RevokeAll: when it says so no session is left, even when somebody else took a whole batch from under it; each that it ended is
// one event.
func TestAttack_AD02_RevokeAll(t *testing.T) {
	t.Parallel()
	const everybody = 2500
	db := crowd(t, everybody)
	all := row[int](t, db, "SELECT count(*)::int FROM bridge.sessions")
	p := people(t, db.URL)
	if n, err := p.Revoke(t.Context(), bridge.Which{}, bridge.Change{DryRun: true}, nil); n != all || err != nil {
		t.Errorf("dry run: %d of %d, %v", n, all, err)
	}
	// Somebody else has the first batch in hand.
	other, err := pgx.Connect(t.Context(), db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	if _, err := other.Exec(t.Context(), "BEGIN; DELETE FROM bridge.sessions WHERE id IN (SELECT id FROM bridge.sessions ORDER BY id LIMIT 1000)"); err != nil {
		t.Fatal(err)
	}
	ended, steps := make(chan int, 1), 0
	go func() {
		n, err := p.Revoke(t.Context(), bridge.Which{}, bridge.Change{Reason: "all"}, func(int) { steps++ })
		if err != nil {
			t.Error(err)
		}
		ended <- n
	}()
	bridgetest.Await(t, "a lock that Revoke waits for", func() bool {
		return len(ended) > 0 || row[bool](t, db, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')")
	})
	if len(ended) > 0 {
		t.Error("it did not wait for sessions that somebody else may yet let live")
	}
	if _, err := other.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if n := <-ended; n != all-1000 || steps != (n+999)/1000 {
		t.Errorf("%d of %d ended in %d steps", n, all, steps)
	}
	if left, err := p.Count(t.Context(), bridge.Which{}); left != 0 || err != nil {
		t.Errorf("%d left, %v", left, err)
	}
	if events := row[int](t, db, "SELECT count(DISTINCT session_id)::int FROM bridge.events WHERE kind = 'revoke' AND reason LIKE '%: all'"); events != all-1000 {
		t.Errorf("%d events", events)
	}
	bridgetest.Tried(t, 2)
}

// withheld are columns that an export leaves out: what lets somebody use a session, and ids that say nothing about a person.
var withheld = []string{
	"sessions.token_hash", "sessions.id_token", "sessions.refresh_token", "sessions.check_until",
	"identities.user_id", "sessions.user_id", "events.user_id",
}

// TestAttack_AD02_ExportIsComplete: a data subject's document has every column about them, but none that is a key. Whoever adds a column
// decides which it is: in exportUser, or in withheld.
func TestAttack_AD02_ExportIsComplete(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.login("carl", "/")
	p := people(t, s.DB.URL)
	text, err := p.Export(t.Context(), s.person(t, p, "carl"))
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		User                         map[string]any
		Identities, Sessions, Events []map[string]any
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	if len(document.Identities) != 1 || len(document.Sessions) != 1 || len(document.Events) != 1 {
		t.Fatalf("%s", text)
	}
	columns := strings.Fields(row[string](t, s.DB, `SELECT string_agg(table_name || '.' || column_name, ' ') FROM information_schema.columns
		WHERE table_schema = 'bridge' AND table_name IN ('users', 'identities', 'sessions', 'events')`))
	for _, column := range columns {
		table, name, _ := strings.Cut(column, ".")
		_, exported := map[string]map[string]any{
			"users": document.User, "identities": document.Identities[0], "sessions": document.Sessions[0], "events": document.Events[0],
		}[table][name]
		if exported == slices.Contains(withheld, column) {
			t.Errorf("column %s: exported %t; decide in exportUser or withheld", column, exported)
		}
	}
	hash := row[string](t, s.DB, "SELECT encode(token_hash, 'hex') FROM bridge.sessions")
	if strings.Contains(string(text), hash) {
		t.Errorf("the hash of the session's token is in it: %s", text)
	}
	bridgetest.Tried(t, len(columns))
}

// TestAttack_DB06_RestoredBackup: a backup brings sessions back that had ended, since a session lives as long as its row. `session revoke
// --all` ends them, and whoever was disabled after the backup must be disabled again.
func TestAttack_DB06_RestoredBackup(t *testing.T) {
	t.Parallel()
	s := newService(t)
	stolen, _ := s.login("carl", "/")
	p := people(t, s.DB.URL)
	exec(t, s.DB, "CREATE TABLE public.backup AS SELECT * FROM bridge.sessions")
	if n, err := p.Revoke(t.Context(), bridge.Which{}, bridge.Change{}, func(int) {}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if page, _ := s.token(stolen); page.Status != 401 {
		t.Errorf("%d after its end", page.Status)
	}
	exec(t, s.DB, "INSERT INTO bridge.sessions SELECT * FROM public.backup")
	if page, _ := s.token(stolen); page.Status != 200 {
		t.Errorf("%d: a restored session is what revoke --all is for", page.Status)
	}
	if n, err := p.Revoke(t.Context(), bridge.Which{}, bridge.Change{}, func(int) {}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if page, _ := s.token(stolen); page.Status != 401 {
		t.Errorf("%d after revoke --all", page.Status)
	}
	if b, _ := s.login("carl", "/"); b != nil {
		if page, _ := s.token(b); page.Status != 200 {
			t.Errorf("a new login gets %d", page.Status)
		}
	}
}
