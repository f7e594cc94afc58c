package bridgetest

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

func TestCountRoundTrips(t *testing.T) {
	url, counts := CountRoundTrips(t, EmptyDB(t).URL)
	ctx := t.Context()
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	one := func(sql string) func(*pgx.Conn) error {
		return func(c *pgx.Conn) error { return c.QueryRow(ctx, sql, 1).Scan(new(int)) }
	}
	tests := []struct {
		name       string
		run        func(*pgx.Conn) error
		roundTrips int
		statements string
	}{
		{"prepares at first", one("SELECT $1::int"), 2, "SELECT $1::int"},
		{"prepared", one("SELECT $1::int"), 1, "SELECT $1::int"},
		{"simple query", func(c *pgx.Conn) error { _, err := c.Exec(ctx, "SELECT 1; SELECT 2"); return err }, 1, "SELECT 1; SELECT 2"},
		{"transaction", func(c *pgx.Conn) error {
			return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error { return tx.QueryRow(ctx, "SELECT $1::int", 1).Scan(new(int)) })
		}, 3, "begin|SELECT $1::int|commit"},
		{"batch in one round trip", func(c *pgx.Conn) error {
			batch := &pgx.Batch{}
			batch.Queue("SELECT $1::int", 1)
			batch.Queue("SELECT $1::int", 2)
			return c.SendBatch(ctx, batch).Close()
		}, 1, "SELECT $1::int|SELECT $1::int"},
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, tt := range tests {
		counts.Reset()
		if err := tt.run(conn.Conn()); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := strings.Join(counts.Statements(), "|"); got != tt.statements || counts.RoundTrips() != tt.roundTrips {
			t.Errorf("%s: %d round trips with %s, want %d with %s", tt.name, counts.RoundTrips(), got, tt.roundTrips, tt.statements)
		}
		if transactions := strings.Count(tt.statements, "begin"); counts.Begins() != transactions || counts.Commits() != transactions {
			t.Errorf("%s: %d begins, %d commits", tt.name, counts.Begins(), counts.Commits())
		}
	}
}

func TestCountingProxyWithoutServer(t *testing.T) {
	url, _ := CountRoundTrips(t, "postgres://x@127.0.0.1:1/x")
	if conn, err := pgx.Connect(t.Context(), url); err == nil {
		conn.Close(t.Context())
		t.Error("connected")
	}
}

func TestLog(t *testing.T) {
	log := NewLog(t)
	log.Logger().Debug("hello", "to", "you")
	if !log.Contains(`msg=hello to=you`) || len(log.Lines()) != 1 {
		t.Errorf("lines %q", log.Lines())
	}
	late := (*Log)(nil)
	t.Run("ends", func(t *testing.T) { late = NewLog(t) })
	late.Logger().Info("after the end") // must not panic
}
