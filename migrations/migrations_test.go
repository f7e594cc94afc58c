package migrations_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/migrations"
)

func TestMain(m *testing.M) { bridgetest.Main(m) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// TestFault_F09_MigrationRace: ten replicas start at once on an empty database. One migrates, all end well, and each knows afterwards that
// the schema is there.
func TestFault_F09_MigrationRace(t *testing.T) {
	t.Parallel()
	db := bridgetest.EmptyDB(t)
	conn := connect(t, db.URL)
	have, want, err := migrations.Pending(t.Context(), conn)
	if err != nil || have != 0 || want < 1 {
		t.Fatalf("before: %d of %d, %v", have, want, err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var applied []string
	for range 10 {
		wg.Go(func() {
			names, err := migrations.Up(t.Context(), db.OwnerURL, db.Role("bridge_runtime"))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			applied = append(applied, names...)
		})
	}
	wg.Wait()
	if len(applied) != int(want) {
		t.Errorf("applied %v, want each of %d files once", applied, want)
	}
	if have, want, err = migrations.Pending(t.Context(), conn); err != nil || have != want {
		t.Errorf("after: %d of %d, %v", have, want, err)
	}
}

// TestAttack_DB02_RuntimeRoleHasTheLeast: what serve's role can do, and what nobody else can.
func TestAttack_DB02_RuntimeRoleHasTheLeast(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	denied := map[string][]string{
		db.URL: {
			"DELETE FROM bridge.users", "DELETE FROM bridge.identities", "UPDATE bridge.events SET kind = 'x'", "TRUNCATE bridge.sessions",
			"UPDATE bridge.replay_guard SET expires_at = now()", "DELETE FROM bridge.provider_logouts", "UPDATE bridge.settings SET tokens_without_sid = 'allow'", "DROP TABLE bridge.users", "ALTER TABLE bridge.users ADD x int",
			"CREATE TABLE bridge.x ()", "CREATE SCHEMA x", "INSERT INTO bridge.schema_version DEFAULT VALUES", "CREATE ROLE x",
			"SELECT bridge.set_role('1', 'admin')", "SELECT bridge.disable('1')",
		},
		db.AuthenticatorURL: {
			"SELECT FROM bridge.users", "SELECT FROM bridge.identities", "SELECT FROM bridge.sessions", "SELECT FROM bridge.events",
			"SELECT FROM bridge.replay_guard", "SELECT FROM bridge.provider_logouts", "SELECT FROM bridge.settings", "SELECT FROM bridge.schema_version",
			"SELECT bridge.sweep(now(), now(), 1)", "INSERT INTO bridge.users DEFAULT VALUES",
			"SELECT bridge.set_role('1', 'admin')", "SELECT bridge.disable('1')", "CREATE TABLE bridge.x ()",
		},
	}
	for url, statements := range denied {
		conn := connect(t, url)
		roles := []string{""}
		if url == db.AuthenticatorURL {
			roles = []string{"", "anonymous", "customer", "admin"}
		}
		for _, role := range roles {
			set := "RESET ROLE"
			if role != "" {
				set = "SET ROLE " + db.Role(role)
			}
			if _, err := conn.Exec(t.Context(), set); err != nil {
				t.Fatal(err)
			}
			bridgetest.Tried(t, len(statements))
			for _, statement := range statements {
				if _, err := conn.Exec(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "42501") {
					t.Errorf("%s as %q: %v", statement, role, err)
				}
			}
		}
	}
	conn := connect(t, db.URL)
	for _, statement := range []string{
		"SELECT FROM bridge.users", "SELECT FROM bridge.schema_version", "DELETE FROM bridge.sessions", "DELETE FROM bridge.events", "DELETE FROM bridge.replay_guard",
		"INSERT INTO bridge.users DEFAULT VALUES", "UPDATE bridge.users SET name = 'x'", "SELECT bridge.sweep(now(), now(), 1)",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Errorf("%s as the runtime role: %v", statement, err)
		}
	}
}

// TestHelpersForAPIAuthors: what SQL sees of a token, as PostgREST passes it.
func TestHelpersForAPIAuthors(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	conn := connect(t, db.AuthenticatorURL)
	for _, test := range []struct{ claims, userID, currentUserID, org string }{
		{`{"user_id":"42","role":"customer","org":"acme"}`, "42", "42", "acme"},
		{`{"user_id":"9223372036854775807"}`, "9223372036854775807", "9223372036854775807", "null"},
		{`{"role":"anonymous"}`, "null", "null", "null"},
		{``, "null", "null", "null"},
	} {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got string
		err = tx.QueryRow(t.Context(), "SELECT set_config('request.jwt.claims', $1, true)", test.claims).Scan(new(string))
		if err == nil {
			_, err = tx.Exec(t.Context(), "SET LOCAL ROLE "+db.Role("customer"))
		}
		if err == nil {
			err = tx.QueryRow(t.Context(), `SELECT format('%s %s %s', coalesce(bridge.user_id(), 'null'), coalesce(bridge.current_user_id()::text, 'null'),
				coalesce(bridge.current_claims() ->> 'org', 'null'))`).Scan(&got)
		}
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint(test.userID, " ", test.currentUserID, " ", test.org); got != want {
			t.Errorf("%s: %s, want %s", test.claims, got, want)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var got *string
	if err := conn.QueryRow(t.Context(), "SELECT bridge.user_id()").Scan(&got); err != nil || got != nil {
		t.Errorf("outside a request: %v %v", got, err)
	}
}

// TestHelpersAreInlined: the plan holds the expression in place of the call, so that a policy costs one evaluation and no function call.
func TestHelpersAreInlined(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	conn := connect(t, db.AdminURL)
	if _, err := conn.Exec(t.Context(), "CREATE TABLE public.rows (user_id bigint, owner text, claims jsonb)"); err != nil {
		t.Fatal(err)
	}
	for _, condition := range []string{"user_id = bridge.current_user_id()", "owner = bridge.user_id()", "claims = bridge.current_claims()"} {
		rows, err := conn.Query(t.Context(), "EXPLAIN (VERBOSE, COSTS OFF) SELECT FROM public.rows WHERE "+condition)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		plan := strings.Join(lines, "\n")
		if strings.Contains(plan, "bridge.") || !strings.Contains(plan, "current_setting('request.jwt.claims'") {
			t.Errorf("%s is not inlined:\n%s", condition, plan)
		}
	}
}

// TestSetRoleAndDisable: what triggers of an own users table call.
func TestSetRoleAndDisable(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	conn := connect(t, db.OwnerURL)
	var plain, own string
	if err := conn.QueryRow(t.Context(), "INSERT INTO bridge.users DEFAULT VALUES RETURNING id::text").Scan(&plain); err != nil {
		t.Fatal(err)
	}
	state := func() (s string) {
		if err := conn.QueryRow(t.Context(), `SELECT string_agg(coalesce(role, '-') || CASE WHEN disabled_at IS NULL THEN '' ELSE ' off' END, ', ' ORDER BY id)
			FROM bridge.users`).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	run := func(sql, id, want string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, id); err != nil {
			t.Fatal(err)
		}
		if got := state(); got != want {
			t.Errorf("%s of %s: %s, want %s", sql, id, got, want)
		}
	}
	run("SELECT bridge.set_role($1, 'editor')", plain, "editor")
	run("SELECT bridge.set_role($1, NULL)", plain, "-")

	// From here on tokens carry ids of the application, and one of them is the bridge's id of somebody else.
	if err := conn.QueryRow(t.Context(), "INSERT INTO bridge.users (app_user_id) VALUES ('700') RETURNING id::text").Scan(&own); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "INSERT INTO bridge.users (app_user_id) VALUES ($1)", own); err != nil {
		t.Fatal(err)
	}
	run("SELECT bridge.set_role($1, 'editor')", plain, "-, -, -")
	run("SELECT bridge.set_role($1, 'editor')", "700", "-, editor, -")
	run("SELECT bridge.set_role($1, 'x')", own, "-, editor, x")
	run("SELECT bridge.disable($1)", "700", "-, editor off, x")
	run("SELECT bridge.disable($1)", "700", "-, editor off, x")
	run("SELECT bridge.disable($1)", "no such user", "-, editor off, x")
	var events int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM bridge.events WHERE kind IN ('set_role', 'disable')").Scan(&events); err != nil || events != 5 {
		t.Errorf("%d events of five changes, %v", events, err)
	}
}
