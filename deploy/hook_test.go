package deploy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// An answer is a row of the hook.
type answer struct {
	UserID, Role string
	Refuse       *string
}

// callHook calls public.bridge_user as the bridge does: as the runtime role, with an empty search_path.
func callHook(t *testing.T, conn *pgx.Conn, issuer, subject, email string) (answer, error) {
	t.Helper()
	identity, err := json.Marshal(map[string]any{
		"issuer": issuer, "subject": subject, "provider": "corp", "email": nullable(email), "name": nil, "claims": map[string]any{}, "role": "customer",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SET search_path = ''"); err != nil {
		t.Fatal(err)
	}
	rows, _ := conn.Query(t.Context(), "SELECT * FROM public.bridge_user($1::jsonb)", string(identity))
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[answer])
}

func nullable(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// texts returns the rows of a query by a superuser.
func texts(t *testing.T, db *bridgetest.Database, sql string) []string {
	t.Helper()
	rows, _ := connect(t, db.AdminURL).Query(t.Context(), sql)
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestHookFindsPeopleByIssuerAndSubject(t *testing.T) {
	db := database(t, "users-hook.sql")
	conn := connect(t, db.URL)
	call := func(issuer, subject, email string) string {
		t.Helper()
		got, err := callHook(t, conn, issuer, subject, email)
		if err != nil {
			t.Fatal(err)
		}
		if got.Role != db.Role("customer") || got.Refuse != nil {
			t.Errorf("%s at %s: %+v, want a customer", subject, issuer, got)
		}
		return got.UserID
	}
	ann := call("https://a.example", "ann", "ann@example.com")
	if again := call("https://a.example", "ann", "new@example.com"); again != ann {
		t.Errorf("the second login of ann made user %s of %s", again, ann)
	}
	for _, other := range [][2]string{{"https://b.example", "ann"}, {"https://a.example", "Ann"}, {"https://a.example", "ann "}} {
		if got := call(other[0], other[1], "new@example.com"); got == ann {
			t.Errorf("%q at %s got the row of ann, who has the same address", other[1], other[0])
		}
	}
	call("https://a.example", "ann", "") // a provider that leaves the address out does not take it away
	if got := texts(t, db, "SELECT email FROM public.users WHERE id = "+ann); got[0] != "new@example.com" {
		t.Errorf("e-mail is %s", got[0])
	}
	// A row from before the bridge, given to somebody by hand.
	if err := db.Exec(t.Context(), `INSERT INTO public.users (email, issuer, subject) VALUES ('bob@example.com', 'https://a.example', 'bob')`); err != nil {
		t.Fatal(err)
	}
	if want := texts(t, db, "SELECT id::text FROM public.users WHERE subject = 'bob'")[0]; call("https://a.example", "bob", "") != want {
		t.Error("bob did not get the row that was waiting for him")
	}
}

func TestSimultaneousCallsMakeOneRow(t *testing.T) {
	db := database(t, "users-hook.sql")
	const calls = 20
	ids := make([]string, calls)
	var group errgroup.Group
	for i := range ids {
		conn := connect(t, db.URL)
		group.Go(func() error {
			got, err := callHook(t, conn, "https://a.example", "ann", "ann@example.com")
			ids[i] = got.UserID
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if rows := texts(t, db, "SELECT id::text FROM public.users"); len(rows) != 1 || strings.Join(ids, "") != strings.Repeat(rows[0], calls) {
		t.Errorf("%d simultaneous calls returned %v and left the rows %v", calls, ids, rows)
	}
}

func TestHookRefusesInactivePeople(t *testing.T) {
	db := database(t, "users-hook.sql")
	conn := connect(t, db.URL)
	if _, err := callHook(t, conn, "https://a.example", "ann", ""); err != nil {
		t.Fatal(err)
	}
	if err := db.Exec(t.Context(), "UPDATE public.users SET active = false"); err != nil {
		t.Fatal(err)
	}
	got, err := callHook(t, conn, "https://a.example", "ann", "")
	if err != nil || got.Refuse == nil || *got.Refuse != "Your account is closed." {
		t.Errorf("answer %+v, error %v", got, err)
	}
}

func TestOnlyTheBridgeMayCallTheHook(t *testing.T) {
	db := database(t, "orders.sql", "users-hook.sql")
	for _, role := range []string{"anonymous", "customer", "admin", ""} {
		for _, statement := range []string{`SELECT user_id FROM public.bridge_user('{}')`, `SELECT email FROM public.users`} {
			if got, err := (request{role, ""}).run(t, db, statement); sqlState(err) != denied {
				t.Errorf("role %q: %s: %v, error %v", role, statement, got, err)
			}
		}
	}
	var email string
	if err := connect(t, db.URL).QueryRow(t.Context(), "SELECT email FROM public.users").Scan(&email); sqlState(err) != denied {
		t.Errorf("the bridge's role reads the table itself: %v", err)
	}
}

func TestTriggersTellTheBridge(t *testing.T) {
	db := database(t, "users-hook.sql")
	// Two people with a row on both sides, as a login leaves them. The ids differ, so that a mix-up would show.
	if err := db.Exec(t.Context(), `
		GRANT SELECT, UPDATE, DELETE ON public.users TO customer;
		INSERT INTO public.users (issuer, subject) VALUES ('i', 'ann'), ('i', 'bob'), ('i', 'eve');
		INSERT INTO bridge.users (app_user_id, role) VALUES ('3', 'customer'), ('1', 'customer'), ('2', 'customer')`); err != nil {
		t.Fatal(err)
	}
	admin, customer := db.Role("admin"), db.Role("customer")
	for _, step := range []struct {
		change string // by the application, whose role knows nothing of the bridge
		want   []string
	}{
		{"UPDATE public.users SET role = 'admin' WHERE subject = 'ann'", []string{"1 " + admin, "2 " + customer, "3 " + customer}},
		{"UPDATE public.users SET role = 'admin' WHERE subject = 'ann'", []string{"1 " + admin, "2 " + customer, "3 " + customer}},
		{"UPDATE public.users SET email = 'bob@example.com' WHERE subject = 'bob'", []string{"1 " + admin, "2 " + customer, "3 " + customer}},
		{"UPDATE public.users SET active = false WHERE subject = 'bob'", []string{"1 " + admin, "2 " + customer + " disabled", "3 " + customer}},
		{"UPDATE public.users SET active = true WHERE subject = 'bob'", []string{"1 " + admin, "2 " + customer + " disabled", "3 " + customer}},
		{"DELETE FROM public.users WHERE subject = 'eve'", []string{"1 " + admin, "2 " + customer + " disabled", "3 " + customer + " disabled"}},
	} {
		if err := db.Exec(t.Context(), "SET ROLE customer; "+step.change); err != nil {
			t.Fatalf("%s: %v", step.change, err)
		}
		got := texts(t, db, "SELECT concat_ws(' ', app_user_id, role, CASE WHEN disabled_at IS NOT NULL THEN 'disabled' END) FROM bridge.users ORDER BY 1")
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s:\n%s", step.change, diff)
		}
	}
	want := []string{"set_role 2", "disable 3", "disable 1"}
	if got := texts(t, db, "SELECT format('%s %s', kind, user_id) FROM bridge.events ORDER BY id"); !cmp.Equal(got, want) {
		t.Errorf("events %v, want %v: one for each change", got, want)
	}
}
