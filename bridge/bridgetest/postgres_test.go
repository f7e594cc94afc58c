package bridgetest

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/oidc-bridge/oidc-bridge/migrations"
)

func TestMain(m *testing.M) {
	Main(m, func() error { return goleak.Find() })
}

// query returns the single value of a query as text.
func query(t *testing.T, databaseURL, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var value any
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return fmt.Sprint(value)
}

func TestDatabasesAreFreshMigratedAndApart(t *testing.T) {
	for range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			d := DB(t)
			if n := query(t, d.URL, "SELECT count(*) FROM bridge.users"); n != "0" {
				t.Errorf("%s users in a fresh database", n)
			}
			if err := d.Exec(t.Context(), "INSERT INTO bridge.users (name) VALUES ('a'); INSERT INTO bridge.users (name) VALUES ('b')"); err != nil {
				t.Fatal(err)
			}
			if n := query(t, d.URL, "SELECT count(*) FROM bridge.users"); n != "2" {
				t.Errorf("%s users after inserting two", n)
			}
		})
	}
}

func TestEmptyDatabaseCanBeMigratedByItsOwner(t *testing.T) {
	d := EmptyDB(t)
	if schema := query(t, d.AdminURL, "SELECT to_regnamespace('bridge')"); schema != "<nil>" {
		t.Fatalf("schema %s in an empty database", schema)
	}
	if _, err := migrations.Up(t.Context(), d.OwnerURL, d.Role("bridge_runtime")); err != nil {
		t.Fatal(err)
	}
	if owner := query(t, d.AdminURL, "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'bridge'"); owner != d.Role("bridge_owner") {
		t.Errorf("schema bridge belongs to %s", owner)
	}
}

func TestRolesHaveTheRightsOfTheScenario(t *testing.T) {
	d := DB(t)
	for name, url := range map[string]string{"bridge_runtime": d.URL, "bridge_owner": d.OwnerURL, "authenticator": d.AuthenticatorURL} {
		if user := query(t, url, "SELECT current_user"); user != d.Role(name) {
			t.Errorf("%s logs in as %s", name, user)
		}
		if super := query(t, url, "SELECT rolsuper OR rolbypassrls OR rolcreaterole FROM pg_roles WHERE rolname = current_user"); super != "false" {
			t.Errorf("%s has powers it must not have", name)
		}
	}
	for _, name := range []string{"anonymous", "customer", "admin"} {
		const may = "SELECT pg_has_role(current_user, '%s', 'MEMBER') AND NOT pg_has_role(current_user, '%[1]s', 'USAGE')"
		if query(t, d.AuthenticatorURL, fmt.Sprintf(may, d.Role(name))) != "true" {
			t.Errorf("authenticator must be able to become %s, and inherit nothing from it", name)
		}
	}
}

func TestSQLReplacesWholeRoleNames(t *testing.T) {
	p := &Postgres{suffix: "_0a1b2c3d"}
	in := `GRANT customer, admin,anonymous TO authenticator; SELECT admins, "customer", my_admin, admin$1 FROM bridge_owner.admin`
	want := `GRANT customer_0a1b2c3d, admin_0a1b2c3d,anonymous_0a1b2c3d TO authenticator_0a1b2c3d; ` +
		`SELECT admins, "customer_0a1b2c3d", my_admin, admin$1 FROM bridge_owner_0a1b2c3d.admin_0a1b2c3d`
	if got := p.SQL(in); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	p.suffix = ""
	if got := p.SQL(in); got != in {
		t.Errorf("on our own server: %s", got)
	}
}

// Uses the shared server as the external one.
func TestExternalServer(t *testing.T) {
	d := EmptyDB(t) // starts the shared server
	host := d.postgres
	t.Setenv("DATABASE_URL", host.URL())
	killed, err := StartPostgres(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := killed.NewDatabase(t.Context()); err != nil {
		t.Fatal(err)
	}
	living, err := StartPostgres(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	backend := killed.guard.PgConn().PID()
	killed.guard.Close(t.Context()) // what the kernel does when a run is killed
	Await(t, "the killed run's connection to end", func() bool {
		return query(t, host.URL(), fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", backend)) == "0"
	})

	p, err := StartPostgres(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roles := "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname LIKE 'bridge\\_owner\\_%'"
	got := query(t, host.URL(), roles)
	if strings.Contains(got, killed.Role("bridge_owner")) || !strings.Contains(got, living.Role("bridge_owner")) {
		t.Errorf("the next start must remove what the killed run left, and nothing of a living one; there are %s", got)
	}
	external, err := p.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if user := query(t, external.URL, "SELECT current_user"); user != external.Role("bridge_runtime") || user == "bridge_runtime" {
		t.Errorf("runtime role is %s", user)
	}
	for _, p := range []*Postgres{p, living} {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []*Postgres{killed, living, p} {
		const left = "SELECT (SELECT count(*) FROM pg_roles WHERE rolname ~ '%s') + (SELECT count(*) FROM pg_database WHERE datname ~ '%[1]s')"
		if n := query(t, host.URL(), fmt.Sprintf(left, p.suffix)); n != "0" {
			t.Errorf("%s roles and databases left on the external server", n)
		}
	}
}

func TestWrongSettingsAreErrors(t *testing.T) {
	t.Run("PG_BINDIR", func(t *testing.T) {
		t.Setenv("DATABASE_URL", "")
		t.Setenv("PG_BINDIR", t.TempDir())
		if _, err := StartPostgres(t.Context()); err == nil || !strings.Contains(err.Error(), "PG_BINDIR") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("DATABASE_URL", func(t *testing.T) {
		t.Setenv("DATABASE_URL", "host=/tmp")
		if _, err := StartPostgres(t.Context()); err == nil || !strings.Contains(err.Error(), "DATABASE_URL") {
			t.Errorf("got %v", err)
		}
	})
}

func TestCloseLeavesNothing(t *testing.T) {
	t.Setenv("DATABASE_URL", "")
	p, err := StartPostgres(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := p.server.dir
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there", dir)
	}
	if err := p.server.process.Signal(syscall.Signal(0)); err == nil {
		t.Error("the server still runs")
	}
}
