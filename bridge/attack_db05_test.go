package bridge_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// openStore is the store of another replica.
func (s *service) openStore(t *testing.T) (*bridge.Store, *bridgetest.Counts) {
	t.Helper()
	config := *s.Config
	url, counts := bridgetest.CountRoundTrips(t, s.DB.URL)
	config.Database.URL = bridge.NewSecret(url)
	store, err := bridge.OpenStore(t.Context(), &config, s.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store, counts
}

// sessionToken is what the browser's cookie holds.
func (s *service) sessionToken(t *testing.T, b *bridgetest.Browser) bridge.SessionToken {
	t.Helper()
	cookies, err := bridge.NewCookies(s.Config, s.now)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.AddCookie(sessionCookie(t, s, b))
	token, found := cookies.Session(request)
	if !found {
		t.Fatal("no session in the cookie")
	}
	return token
}

func matching(counts *bridgetest.Counts, text string) (found []string) {
	for _, statement := range counts.Statements() {
		if strings.Contains(statement, text) {
			found = append(found, statement)
		}
	}
	return found
}

// ended are rows of every table that housekeeping looks at: N of each have ended, and three have not, by little.
func ended(n int) string {
	return strings.ReplaceAll(`
WITH u AS (INSERT INTO bridge.users (email) VALUES ('e@example.com') RETURNING id), i AS (
	INSERT INTO bridge.identities (issuer, subject, user_id, provider, claims, last_login_at) SELECT 'https://op.example', 'e', id, 'op', '{}', now() FROM u RETURNING id, user_id)
INSERT INTO bridge.sessions (id, token_hash, user_id, identity_id, provider, claims, role, created_at, last_seen_at, idle_expires_at, expires_at)
SELECT gen_random_uuid(), sha256(('e' || n)::bytea), i.user_id, i.id, CASE WHEN n > ROWS THEN 'live' ELSE 'op' END, '{}', 'customer', now(), now(),
	CASE WHEN n > ROWS THEN now() + interval '5 minutes' WHEN n % 2 = 0 THEN now() - interval '1 minute' ELSE now() + interval '1 hour' END,
	CASE WHEN n > ROWS THEN now() + interval '5 minutes' WHEN n % 2 = 0 THEN now() + interval '1 hour' ELSE now() - interval '1 minute' END
FROM i, generate_series(1, ROWS + 3) n;
INSERT INTO bridge.replay_guard SELECT sha256(n::text::bytea), now() + CASE WHEN n > ROWS THEN interval '5 minutes' ELSE interval '-1 minute' END FROM generate_series(1, ROWS + 3) n;
INSERT INTO bridge.provider_logouts (hash, issuer, sid, issued_at, expires_at)
SELECT sha256(n::text::bytea), 'https://op.example', n::text, now(), now() + CASE WHEN n > ROWS THEN interval '5 minutes' ELSE interval '-1 minute' END FROM generate_series(1, ROWS + 3) n;
INSERT INTO bridge.events (at, kind) SELECT now() - CASE WHEN n > ROWS THEN interval '23 hours' ELSE interval '25 hours' END, 'login' FROM generate_series(1, ROWS + 3) n`, "ROWS", fmt.Sprint(n))
}

func leftOver(t *testing.T, s *service) string {
	t.Helper()
	return row[string](t, s.DB, `SELECT format('%s sessions, %s states, %s logouts, %s events', (SELECT count(*) FROM bridge.sessions), (SELECT count(*) FROM bridge.replay_guard),
	(SELECT count(*) FROM bridge.provider_logouts), (SELECT count(*) FROM bridge.events))`)
}

// TestAttack_DB05_Sweep: what has ended goes, in batches, and nothing else; nobody is told, since nobody may use it any more.
func TestAttack_DB05_Sweep(t *testing.T) {
	t.Parallel()
	s := newService(t)
	store, counts := s.openStore(t)
	exec(t, s.DB, ended(2500))
	listener, err := pgx.Connect(t.Context(), s.DB.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close(context.Background())
	if _, err := listener.Exec(t.Context(), "LISTEN bridge_sessions"); err != nil {
		t.Fatal(err)
	}
	if err := store.Sweep(t.Context(), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if left := leftOver(t, s); left != "3 sessions, 3 states, 3 logouts, 3 events" {
		t.Error(left)
	}
	if batches := matching(counts, "bridge.sweep"); len(batches) != 4 { // the last one finds nothing
		t.Errorf("%d batches for 2,500 rows", len(batches))
	}
	// What comes first shows that nothing came before it.
	exec(t, s.DB, "DELETE FROM bridge.sessions WHERE id = (SELECT id FROM bridge.sessions LIMIT 1); NOTIFY bridge_sessions, 'the last one'")
	for i, want := range []string{"session ", "the last one"} {
		if n, err := listener.WaitForNotification(t.Context()); err != nil || !strings.HasPrefix(n.Payload, want) {
			t.Fatalf("notification %d: %v %v", i, n, err)
		}
	}
	s.advance(6 * time.Minute)
	if err := store.Sweep(t.Context(), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if left := leftOver(t, s); left != "0 sessions, 0 states, 0 logouts, 3 events" {
		t.Errorf("six minutes later: %s", left)
	}
	bridgetest.Tried(t, 4*2503)
}

// TestAttack_DB05_ThreeSweepAtOnce: replicas share the work. Rows that somebody holds are left to the next time, without waiting.
func TestAttack_DB05_ThreeSweepAtOnce(t *testing.T) {
	t.Parallel()
	s := newService(t)
	exec(t, s.DB, ended(5000))
	holder, err := pgx.Connect(t.Context(), s.DB.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	if _, err := holder.Exec(t.Context(), `BEGIN; SELECT FROM bridge.sessions WHERE provider <> 'live' ORDER BY least(expires_at, idle_expires_at) LIMIT 10 FOR UPDATE;
SELECT FROM bridge.replay_guard ORDER BY expires_at LIMIT 10 FOR UPDATE; SELECT FROM bridge.events ORDER BY id LIMIT 10 FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	var stores []*bridge.Store
	for range 3 {
		store, _ := s.openStore(t)
		stores = append(stores, store)
	}
	sweep := func() {
		var group sync.WaitGroup
		for _, store := range stores {
			group.Go(func() {
				if err := store.Sweep(context.Background(), 24*time.Hour); err != nil { // a lock that is waited for ends in the deadline of a call
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
	sweep()
	if left := leftOver(t, s); left != "13 sessions, 13 states, 3 logouts, 13 events" {
		t.Errorf("while somebody holds ten of each: %s", left)
	}
	if _, err := holder.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	sweep()
	if left := leftOver(t, s); left != "3 sessions, 3 states, 3 logouts, 3 events" {
		t.Errorf("at last: %s", left)
	}
	bridgetest.Tried(t, 3)
}

// TestAttack_DB05_IndexesAreUsed: with 100,000 rows in each table, what is done often or by itself reads no table from end to end.
func TestAttack_DB05_IndexesAreUsed(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b := s.asAgent(t, "carl", firefoxOnLinux)
	exec(t, s.DB, manySessions(10000))
	exec(t, s.DB, `
INSERT INTO bridge.replay_guard SELECT sha256(n::text::bytea), now() + n * interval '1 second' FROM generate_series(-9, 100000) n;
INSERT INTO bridge.provider_logouts (hash, issuer, sid, issued_at, expires_at) SELECT sha256(n::text::bytea), 'https://op.example', n::text, now(), now() + n * interval '1 second' FROM generate_series(-9, 100000) n;
INSERT INTO bridge.events (at, kind) SELECT now() - interval '30 days' + n * interval '1 second', 'login' FROM generate_series(-9, 100000) n;
UPDATE bridge.sessions SET idle_expires_at = now() WHERE id IN (SELECT id FROM bridge.sessions WHERE user_agent IS NULL LIMIT 10);
ANALYZE bridge.users, bridge.identities, bridge.sessions, bridge.replay_guard, bridge.provider_logouts, bridge.events`)
	store, counts := s.openStore(t)
	session, err := store.Session(t.Context(), s.sessionToken(t, b))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.OwnSessions(t.Context(), session, 100); err != nil {
		t.Fatal(err)
	}
	s.advance(2 * time.Minute)
	store.Touch(session)
	store.Flush(t.Context(), slog.New(slog.DiscardHandler))
	if err := store.EndOwnSession(t.Context(), session, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := store.EndSession(t.Context(), s.sessionToken(t, b)); err != nil {
		t.Fatal(err)
	}
	hash := make([]byte, 32)
	ids := row[[]string](t, s.DB, "SELECT array_agg(id::text) FROM (SELECT id FROM bridge.sessions LIMIT 500) s")
	times := make([]time.Time, len(ids))
	for i := range times {
		times[i] = s.now()
	}
	id, now := ids[0], s.now()
	conn, err := pgx.Connect(t.Context(), s.DB.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	statements := map[string][]any{
		"FROM bridge.sessions s JOIN bridge.users u":            {hash, now, false},
		"count(*) OVER ()":                                      {7, now, id, 100},
		"UPDATE bridge.sessions s SET last_seen_at":             {ids, times, time.Hour.Microseconds(), now},
		"ended by the person":                                   {7, id, nil, now},
		"DELETE FROM bridge.sessions s USING bridge.identities": {hash, now},
	}
	run := func(name, statement string, arguments []any) {
		var scanned string
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "SELECT pg_stat_clear_snapshot()"); err != nil {
				return err
			}
			const scans = `SELECT coalesce(string_agg(relname || ' ' || seq_scan, ', ' ORDER BY relname), '') FROM pg_stat_xact_user_tables WHERE schemaname = 'bridge' AND relname <> 'settings'`
			var before string
			if err := tx.QueryRow(t.Context(), scans).Scan(&before); err != nil {
				return err
			}
			if _, err := tx.Exec(t.Context(), statement, arguments...); err != nil {
				return err
			}
			if err := tx.QueryRow(t.Context(), scans).Scan(&scanned); err != nil {
				return err
			}
			if scanned != before {
				t.Errorf("%s: tables that were read from end to end: %s (before: %s)", name, scanned, before)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for text, arguments := range statements {
		found := matching(counts, text)
		if len(found) != 1 {
			t.Errorf("%s: %d statements", text, len(found))
			continue
		}
		run(text, found[0], arguments)
	}
	run("bridge.sweep", "SELECT bridge.sweep($1, $2, 1000)", []any{now, now.Add(-30 * 24 * time.Hour)})
	if n := row[int](t, s.DB, "SELECT (SELECT count(*) FROM bridge.sessions WHERE idle_expires_at <= now())::int + (SELECT count(*) FROM bridge.replay_guard WHERE expires_at <= now())::int"); n != 0 {
		t.Errorf("%d rows that have ended are left", n)
	}
	bridgetest.Tried(t, len(statements)+1)
}

// TestAttack_LO10_LateUse: a use that is written after the session has ended, in whatever way, does not bring it back.
func TestAttack_LO10_LateUse(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ends := map[string]struct {
		sql, undo string
		alive     bool
	}{
		"nothing":                {"SELECT", "", true},
		"deleted":                {"DELETE FROM bridge.sessions", "", false},
		"idle end, now":          {"UPDATE bridge.sessions SET idle_expires_at = now()", "", false},
		"idle end, long ago":     {"UPDATE bridge.sessions SET idle_expires_at = '-infinity'", "", false},
		"absolute end":           {"UPDATE bridge.sessions SET expires_at = now()", "", false},
		"user disabled":          {"UPDATE bridge.users SET disabled_at = now()", "UPDATE bridge.users SET disabled_at = NULL", false},
		"user deleted":           {"DELETE FROM bridge.users", "", false},
		"a shorter session.idle": {"UPDATE bridge.sessions SET idle_expires_at = now() + interval '1 minute'", "", true},
	}
	for name, end := range ends {
		exec(t, s.DB, "UPDATE bridge.sessions SET last_seen_at = last_seen_at - interval '5 minutes'")
		b, _ := s.login("carl", "/")
		exec(t, s.DB, "UPDATE bridge.sessions SET last_seen_at = last_seen_at - interval '5 minutes', idle_expires_at = idle_expires_at - interval '5 minutes'")
		store, counts := s.openStore(t)
		token := s.sessionToken(t, b)
		session, err := store.Session(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		store.Touch(session) // noted, not written
		exec(t, s.DB, end.sql)
		store.Flush(t.Context(), slog.New(slog.DiscardHandler))
		if n := len(matching(counts, "UPDATE bridge.sessions s SET last_seen_at")); n != 1 {
			t.Errorf("%s: %d writes", name, n)
		}
		if _, err := store.Session(t.Context(), token); (err == nil) != end.alive {
			t.Errorf("%s: %v", name, err)
		}
		if end.alive {
			if left := row[float64](t, s.DB, "SELECT extract(epoch FROM max(idle_expires_at) - now())::float8 FROM bridge.sessions"); left < s.Config.Session.Idle.Seconds()-60 {
				t.Errorf("%s: the use was not written, %v s are left", name, left)
			}
		}
		if end.undo != "" {
			exec(t, s.DB, end.undo)
		}
		exec(t, s.DB, "DELETE FROM bridge.sessions")
	}
	bridgetest.Tried(t, len(ends))
}

// TestFault_F07_ReadOnlyDatabase: while the database only reads, whoever is logged in gets tokens and nobody can log in; the uses of that time
// are written in one statement when it writes again.
func TestFault_F07_ReadOnlyDatabase(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.behave(nil)
	var people []*bridgetest.Browser
	for _, subject := range []string{"ada", "carl", "cora"} {
		b, _ := s.login(subject, "/")
		people = append(people, b)
	}
	readOnly := func(setting string) {
		exec(t, s.DB, fmt.Sprintf(`SET transaction_read_only = off; ALTER DATABASE %s %s; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`,
			pgx.Identifier{s.DB.Name}.Sanitize(), setting))
	}
	readOnly("SET default_transaction_read_only = on")
	s.advance(2 * time.Minute)
	used := s.now()
	for _, b := range people {
		bridgetest.Await(t, "a token while the database only reads", func() bool {
			page, _ := s.token(b)
			return page.Status == 200
		})
	}
	if _, page := s.login("carl", "/"); page.Status != http.StatusServiceUnavailable {
		t.Errorf("a login: %d %s", page.Status, page.Text())
	}
	if findings := bridge.CheckDatabase(t.Context(), s.Config, nil); len(findings) != 1 || !strings.Contains(findings[0].Message, "read-only") {
		t.Errorf("check: %v", findings)
	}
	bridgetest.Await(t, "the log says that uses are not written", func() bool {
		return strings.Contains(strings.Join(s.Log.Lines(), "\n"), "last uses of sessions were not written")
	})
	readOnly("RESET default_transaction_read_only")
	bridgetest.Await(t, "the uses are written", func() bool {
		return row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions WHERE last_seen_at >= '"+used.Add(-time.Second).Format(time.RFC3339Nano)+"'") == 3
	})
	if _, page := s.login("carl", "/"); page.URL.Path != "/" {
		t.Errorf("a login afterwards: %d %s", page.Status, page.Text())
	}
}
