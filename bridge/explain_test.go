package bridge_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

var (
	parameter = regexp.MustCompile(`\$(\d+)`)
	readWhole = regexp.MustCompile(`Seq Scan on (\w+)`)
)

// TestPlansUseIndexes: whatever requests and the housekeeping of the last uses send to a database with 20,000 users, no table is read from end
// to end. What the statements are is what a replica has sent, so that none is forgotten here.
func TestPlansUseIndexes(t *testing.T) {
	t.Parallel()
	var counts *bridgetest.Counts
	s := newService(t, withCounts(t, &counts), withConfig("session: { max_per_user: 5 }"))
	b, _ := s.login("carl", "/")
	s.login("leo", "/") // refused
	s.login("carl", "/")
	s.token(b)
	exec(t, s.DB, "UPDATE bridge.sessions SET rule = 'another'")
	s.token(b) // decided anew
	s.submit(t, b, s.open(t, b, "/sessions"), "End all others", nil)
	s.advance(2 * time.Minute)
	s.token(b)
	bridgetest.Await(t, "the last use to be written", func() bool {
		return slices.ContainsFunc(counts.Statements(), func(sql string) bool { return strings.Contains(sql, "SET last_seen_at") })
	})
	s.press(t, b, "/")
	if answer := s.sendLogout(t, post{token: s.logoutToken(t, nil, map[string]any{"sub": "carl", "sid": "somebody"})}); answer.StatusCode != 200 {
		t.Fatal(answer.Status)
	}
	var statements []string
	for _, sql := range counts.Statements() {
		if strings.Contains(sql, "bridge.") && !strings.Contains(sql, "schema_version") && !slices.Contains(statements, sql) {
			statements = append(statements, sql)
		}
	}
	if len(statements) < 11 {
		t.Errorf("only %d statements were sent: %q", len(statements), statements)
	}

	exec(t, s.DB, `
INSERT INTO bridge.users (email, name) SELECT 'user-' || i || '@example.com', 'User ' || i FROM generate_series(1, 20000) i;
INSERT INTO bridge.identities (issuer, subject, user_id, provider, claims, last_login_at) SELECT 'https://op.example', u.id, u.id, 'op', '{}', now() FROM bridge.users u;
INSERT INTO bridge.sessions (id, token_hash, user_id, identity_id, provider, provider_sid, claims, created_at, last_seen_at, idle_expires_at, expires_at)
	SELECT gen_random_uuid(), sha256(i.subject::bytea), i.user_id, i.id, 'op', 'sid ' || i.id, '{}', now(), now(), now() + interval '1 hour', now() + interval '1 day'
	FROM bridge.identities i;
INSERT INTO bridge.replay_guard SELECT sha256(i::text::bytea), now() FROM generate_series(1, 20000) i;
INSERT INTO bridge.provider_logouts (hash, issuer, sid, subject, issued_at, expires_at)
	SELECT sha256(i::text::bytea), 'https://op.example', 'gone ' || i, 'gone ' || i, now(), now() FROM generate_series(1, 20000) i;
INSERT INTO bridge.events (kind, ref, user_id) SELECT 'login', 'ref ' || i, i FROM generate_series(1, 20000) i;
ANALYZE bridge.users, bridge.identities, bridge.sessions, bridge.replay_guard, bridge.provider_logouts, bridge.events`)
	conn, err := pgx.Connect(t.Context(), s.DB.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "SET plan_cache_mode = force_generic_plan"); err != nil {
		t.Fatal(err)
	}
	for i, sql := range statements {
		plan := explain(t, conn, fmt.Sprint("statement_", i), sql)
		if table := readWhole.FindStringSubmatch(plan); table != nil {
			t.Errorf("%s is read from end to end:\n%s\n%s", table[1], sql, plan)
		}
	}
	t.Logf("%d statements", len(statements))
}

// explain returns the plan of a statement for any parameters.
func explain(t *testing.T, conn *pgx.Conn, name, sql string) string {
	t.Helper()
	parameters := 0
	for _, match := range parameter.FindAllStringSubmatch(sql, -1) {
		n, _ := strconv.Atoi(match[1])
		parameters = max(parameters, n)
	}
	run := "EXPLAIN (COSTS OFF) EXECUTE " + name
	if parameters > 0 {
		run += "(NULL" + strings.Repeat(", NULL", parameters-1) + ")"
	}
	if _, err := conn.Exec(t.Context(), "PREPARE "+name+" AS "+sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	rows, err := conn.Query(t.Context(), run, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(lines, "\n")
}
