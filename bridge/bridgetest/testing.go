package bridgetest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// shared is the one server of this test binary, started when a test first asks for a database. A start that failed is not tried again.
var shared struct {
	sync.Mutex
	postgres *Postgres
	err      error
}

// DB returns a fresh, migrated database that is dropped when the test ends. The first call starts the server; packages that use it should
// have
//
//	func TestMain(m *testing.M) { bridgetest.Main(m) }
//
// A machine without PostgreSQL fails the test, it never skips it.
func DB(t testing.TB) *Database {
	t.Helper()
	return newDatabase(t, (*Postgres).NewDatabase)
}

// EmptyDB is DB without the migrations.
func EmptyDB(t testing.TB) *Database {
	t.Helper()
	return newDatabase(t, (*Postgres).NewEmptyDatabase)
}

func newDatabase(t testing.TB, create func(*Postgres, context.Context) (*Database, error)) *Database {
	t.Helper()
	p, err := sharedPostgres()
	if err != nil {
		t.Fatal(err)
	}
	d, err := create(p, t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Not t.Context: that one is cancelled before cleanup functions run.
		if err := d.Drop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return d
}

func sharedPostgres() (*Postgres, error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.postgres == nil && shared.err == nil {
		shared.postgres, shared.err = StartPostgres(context.Background()) // not the first test's context: the others use it, too
	}
	return shared.postgres, shared.err
}

// Main is Run as a TestMain: it exits.
func Main(m *testing.M, checks ...func() error) { os.Exit(Run(m, checks...)) }

// Run runs the tests, closes the server that DB started, and returns the exit code. If the tests passed, the checks run last (for example
// for leaked goroutines); an error of one of them fails the run.
func Run(m *testing.M, checks ...func() error) (code int) {
	code = m.Run()
	shared.Lock()
	p := shared.postgres
	shared.Unlock()
	if p != nil {
		checks = append([]func() error{p.Close}, checks...)
	}
	for _, check := range checks {
		if err := check(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// NewOP starts a provider that ends with the test.
func NewOP(t testing.TB, o OPOptions) *OP {
	t.Helper()
	op, err := StartOP(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := op.Close(); err != nil {
			t.Error(err)
		}
	})
	return op
}

// NewAPI starts a PostgREST stand-in that ends with the test.
func NewAPI(t testing.TB, o APIOptions) *API {
	t.Helper()
	a, err := StartAPI(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// CountRoundTrips puts a counting proxy in front of a database until the test ends. Close the pools that use it before, in the test or its
// cleanup functions.
func CountRoundTrips(t testing.TB, databaseURL string) (proxiedURL string, counts *Counts) {
	t.Helper()
	p := NewCountingProxy(t, databaseURL)
	return p.URL(), p.Counts()
}

// NewCountingProxy is StartCountingProxy for a test, which closes it.
func NewCountingProxy(t testing.TB, databaseURL string) *CountingProxy {
	t.Helper()
	p, err := StartCountingProxy(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Await polls until the condition holds; after ten seconds it fails the test. what completes the sentence "waited in vain for …".
func Await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Tried tells the table of `make security` how many inputs a test has tried. Several calls in one test, or in its subtests, add up; of a test
// without any, the subtests are counted.
func Tried(t testing.TB, inputs int) {
	t.Helper()
	t.Logf("inputs tried: %d", inputs)
}
