package deploy_test

import (
	"context"
	"errors"
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/deploy"
)

func TestMain(m *testing.M) { bridgetest.Main(m) }

const denied = "42501" // SQLSTATE insufficient_privilege: PostgREST answers 403, to anonymous 401

// ordersFiles are two ways to the same answers.
var ordersFiles = []string{"orders.sql", "orders-rls.sql"}

func file(t *testing.T, name string) string {
	t.Helper()
	text, err := fs.ReadFile(deploy.SQL, "sql/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// database returns a migrated database in which the files have run, in this order, each twice.
func database(t *testing.T, files ...string) *bridgetest.Database {
	t.Helper()
	db := bridgetest.DB(t)
	for _, name := range files {
		for _, run := range []string{"first", "second"} {
			if err := db.Exec(t.Context(), file(t, name)); err != nil {
				t.Fatalf("%s, %s run: %v", name, run, err)
			}
		}
	}
	return db
}

// seed writes the users 1, 2 and 3 with two, one and no orders.
func seed(t *testing.T, db *bridgetest.Database) {
	t.Helper()
	if err := db.Exec(t.Context(), `
		INSERT INTO bridge.users (email) VALUES ('one@example.com'), ('two@example.com'), ('three@example.com');
		INSERT INTO private.orders (user_id, item, price) VALUES (1, 'lamp', 49.90), (1, 'desk', 310), (2, 'chair', 120)`); err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// A request is what PostgREST makes of a token: the role "" is none at all, the claims "" are those of a request without token.
type request struct{ role, claims string }

// run does what PostgREST does with a request, and returns the rows as text.
func (r request) run(t *testing.T, db *bridgetest.Database, sql string) ([]string, error) {
	t.Helper()
	conn := connect(t, db.AuthenticatorURL)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if r.role != "" {
		if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE "+pgx.Identifier{db.Role(r.role)}.Sanitize()); err != nil {
			t.Fatal(err)
		}
	}
	if r.claims != "" {
		if _, err := tx.Exec(t.Context(), "SELECT set_config('request.jwt.claims', $1, true)", r.claims); err != nil {
			t.Fatal(err)
		}
	}
	rows, _ := tx.Query(t.Context(), sql)
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func sqlState(err error) string {
	var failed *pgconn.PgError
	if errors.As(err, &failed) {
		return failed.Code
	}
	return ""
}

func TestWhoSeesWhichOrders(t *testing.T) {
	type expectation struct {
		name string
		request
		want  []string
		state string // SQLSTATE of the refusal
	}
	expectations := []expectation{
		{"a customer sees their own", request{"customer", `{"user_id": "1"}`}, []string{"desk", "lamp"}, ""},
		{"another customer too", request{"customer", `{"user_id": "2"}`}, []string{"chair"}, ""},
		{"a customer without orders", request{"customer", `{"user_id": "3"}`}, nil, ""},
		{"an administrator sees all", request{"admin", `{"user_id": "3"}`}, []string{"chair", "desk", "lamp"}, ""},
		{"the claim role changes nothing", request{"customer", `{"user_id": "3", "role": "admin"}`}, nil, ""},
		{"a customer without claims", request{"customer", ""}, nil, ""},
		{"a customer without user_id", request{"customer", `{"sub": "1"}`}, nil, ""},
		{"user_id null", request{"customer", `{"user_id": null}`}, nil, ""},
		{"user_id is no number", request{"customer", `{"user_id": "1 OR true"}`}, nil, "22P02"},
		{"anonymous", request{"anonymous", ""}, nil, denied},
		{"anonymous with somebody's user_id", request{"anonymous", `{"user_id": "1"}`}, nil, denied},
		{"the authenticator itself", request{"", `{"user_id": "1"}`}, nil, denied},
	}
	for _, name := range ordersFiles {
		db := database(t, name)
		seed(t, db)
		for _, e := range expectations {
			t.Run(name+"/"+e.name, func(t *testing.T) {
				got, err := e.run(t, db, "SELECT item FROM api.orders ORDER BY item")
				if state := sqlState(err); state != e.state {
					t.Fatalf("SQLSTATE %q, want %q: %v", state, e.state, err)
				}
				if diff := cmp.Diff(e.want, got); diff != "" && len(e.want)+len(got) > 0 {
					t.Error(diff)
				}
			})
		}
	}
}

func TestOrdersAreReadOnlyAndTheTableIsOutOfReach(t *testing.T) {
	for _, name := range ordersFiles {
		db := database(t, name)
		seed(t, db)
		for _, role := range []string{"anonymous", "customer", "admin"} {
			for _, statement := range []string{
				"UPDATE api.orders SET price = 0 RETURNING item",
				"DELETE FROM api.orders RETURNING item",
				"INSERT INTO api.orders (user_id, item, price) VALUES (1, 'x', 0) RETURNING item",
				"UPDATE private.orders SET user_id = 1 RETURNING item",
				"SELECT email FROM bridge.users",
			} {
				got, err := request{role, `{"user_id": "1"}`}.run(t, db, statement)
				if sqlState(err) != denied {
					t.Errorf("%s: %s: %s: rows %v, error %v; want a refusal", name, role, statement, got, err)
				}
			}
		}
	}
	customer := request{"customer", `{"user_id": "2"}`}
	if _, err := customer.run(t, database(t, "orders.sql"), "SELECT item FROM private.orders"); sqlState(err) != denied {
		t.Errorf("orders.sql: the table answered a customer: %v", err)
	}
	db := database(t, "orders-rls.sql")
	seed(t, db)
	if got, err := customer.run(t, db, "SELECT item FROM private.orders"); err != nil || !cmp.Equal(got, []string{"chair"}) {
		t.Errorf("orders-rls.sql: the table shows a customer %v (error %v), want their own order", got, err)
	}
}

// A function of the query that reports what it is called with must not be called with other people's orders.
func TestLeakyFunctionLearnsNothing(t *testing.T) {
	const leak = `
		CREATE FUNCTION public.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
		AS $$ BEGIN RAISE NOTICE 'leak: %', $1; RETURN true; END $$;`
	learned := func(db *bridgetest.Database) string {
		config, err := pgx.ParseConfig(db.AuthenticatorURL)
		if err != nil {
			t.Fatal(err)
		}
		var heard strings.Builder
		config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { heard.WriteString(n.Message + "; ") }
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(t.Context(), "SET ROLE "+pgx.Identifier{db.Role("customer")}.Sanitize()+`;
			SET request.jwt.claims = '{"user_id": "2"}';
			SELECT * FROM api.orders WHERE public.leak(item)`); err != nil {
			t.Fatal(err)
		}
		return heard.String()
	}
	for _, name := range ordersFiles {
		db := database(t, name)
		seed(t, db)
		if err := db.Exec(t.Context(), leak); err != nil {
			t.Fatal(err)
		}
		if got := learned(db); got != "leak: chair; " {
			t.Errorf("%s: the function of customer 2 was called with %q", name, got)
		}
		if name == "orders-rls.sql" {
			continue
		}
		// The attack itself works: without the barrier it succeeds.
		if err := db.Exec(t.Context(), "ALTER VIEW api.orders RESET (security_barrier)"); err != nil {
			t.Fatal(err)
		}
		if got := learned(db); !strings.Contains(got, "lamp") {
			t.Errorf("without security_barrier the function was called with %q only: the test proves nothing", got)
		}
	}
}

// The plan holds the functions' expression, evaluated once, and no call.
func TestCurrentUserIDIsInlined(t *testing.T) {
	for _, name := range ordersFiles {
		db := database(t, name)
		seed(t, db)
		if err := db.Exec(t.Context(), `
			INSERT INTO private.orders (user_id, item, price) SELECT 1 + n % 3, 'item ' || n, n FROM generate_series(1, 20000) n;
			ANALYZE private.orders`); err != nil {
			t.Fatal(err)
		}
		lines, err := request{"customer", `{"user_id": "2"}`}.run(t, db, "EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM api.orders")
		if err != nil {
			t.Fatal(err)
		}
		plan := strings.Join(lines, "\n")
		initPlan, expression := strings.Count(plan, "InitPlan 1"), strings.Count(plan, "current_setting('request.jwt.claims'")
		if initPlan == 0 || expression != 1 || strings.Contains(plan, "current_user_id(") {
			t.Errorf("%s: want one InitPlan with the expression and no function call:\n%s", name, plan)
		}
	}
}

// A policy for each role leaves a comparison that an index serves.
func TestRowLevelSecurityUsesTheIndex(t *testing.T) {
	db := database(t, "orders-rls.sql")
	if err := db.Exec(t.Context(), `
		INSERT INTO bridge.users (email) SELECT n || '@example.com' FROM generate_series(1, 1000) n;
		INSERT INTO private.orders (user_id, item, price) SELECT 1 + n % 1000, 'item', 1 FROM generate_series(1, 20000) n;
		ANALYZE private.orders`); err != nil {
		t.Fatal(err)
	}
	lines, err := request{"customer", `{"user_id": "2"}`}.run(t, db, "EXPLAIN SELECT * FROM api.orders")
	if plan := strings.Join(lines, "\n"); err != nil || !strings.Contains(plan, "orders_user_id_idx") {
		t.Errorf("the plan does not use the index (error %v):\n%s", err, plan)
	}
}

func TestRowLevelSecurityReplacesTheView(t *testing.T) {
	db := database(t, "orders.sql", "orders-rls.sql")
	seed(t, db)
	got, err := request{"customer", `{"user_id": "2"}`}.run(t, db, "SELECT item FROM api.orders")
	if err != nil || !cmp.Equal(got, []string{"chair"}) {
		t.Errorf("customer 2 sees %v (error %v)", got, err)
	}
}

// The files say that no superuser is needed.
func TestOwnerCanRunTheFiles(t *testing.T) {
	for _, name := range append(ordersFiles, "users-hook.sql") {
		db := bridgetest.DB(t)
		tx, err := connect(t, db.AdminURL).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// As if the owner had created the roles. Rolled back, for roles belong to the cluster.
		if _, err := tx.Exec(t.Context(), db.SQL(`
			GRANT ALL ON SCHEMA public TO bridge_owner WITH GRANT OPTION;
			ALTER ROLE bridge_owner CREATEROLE;
			GRANT customer, admin, anonymous TO bridge_owner WITH ADMIN OPTION;
			SET LOCAL ROLE bridge_owner;`)+db.SQL(file(t, name))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// The kit's servers have the roles already, so the files make them here under other names; rolled back, for roles belong to the cluster.
func TestRolesThatTheFilesMake(t *testing.T) {
	names := regexp.MustCompile(`\b(authenticator|anonymous|customer|admin)\b`)
	for _, name := range ordersFiles {
		tx, err := connect(t, bridgetest.DB(t).AdminURL).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), names.ReplaceAllString(file(t, name), "new_$1")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rows, _ := tx.Query(t.Context(), `
			SELECT concat_ws(' ', rolname, CASE WHEN rolcanlogin THEN 'login' END, CASE WHEN NOT rolinherit THEN 'noinherit' END,
				CASE WHEN rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls THEN 'powerful' END,
				CASE WHEN pg_has_role('new_authenticator', oid, 'MEMBER') THEN 'reached' END)
			FROM pg_roles WHERE rolname ^@ 'new_' ORDER BY rolname`)
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		want := []string{"new_admin reached", "new_anonymous reached", "new_authenticator login noinherit reached", "new_customer reached"}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: error %v\n%s", name, err, diff)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
