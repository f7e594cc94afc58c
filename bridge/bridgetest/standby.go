package bridgetest

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A Standby follows a server of its own by streaming replication.
type Standby struct {
	Primary *Database // migrated
	URL     string    // of the runtime role: the standby alone
	BothURL string    // of the runtime role: the standby, then the primary

	primary, standby *server
}

// NewStandby starts two servers that end with the test. They are our own, also where $DATABASE_URL names another.
func NewStandby(t testing.TB) *Standby {
	t.Helper()
	s := &Standby{}
	t.Cleanup(func() {
		for _, server := range []*server{s.standby, s.primary} {
			if server != nil {
				if err := server.stop(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Standby) start(ctx context.Context) (err error) {
	replicates := []string{"wal_level=replica", "max_wal_senders=4", "synchronous_commit=on", "full_page_writes=on"}
	if s.primary, err = startServer(ctx, nil, replicates...); err != nil {
		return err
	}
	p := &Postgres{server: s.primary, url: s.primary.url()}
	if err := p.prepare(ctx); err != nil {
		return err
	}
	if s.Primary, err = p.NewDatabase(ctx); err != nil {
		return err
	}
	fill := func(standby *server) error { return backup(ctx, s.primary, standby) }
	if s.standby, err = startServer(ctx, fill, append(replicates, "primary_conninfo=host="+s.primary.dir+" port="+serverPort+" user=postgres")...); err != nil {
		return err
	}
	on := func(dirs ...string) string {
		u, _ := url.Parse(s.Primary.URL)
		u.RawQuery = url.Values{"host": {strings.Join(dirs, ",")}, "port": {strings.Join([]string{serverPort, serverPort}[:len(dirs)], ",")}}.Encode()
		return u.String()
	}
	s.URL, s.BothURL = on(s.standby.dir), on(s.standby.dir, s.primary.dir)
	return nil
}

// backup copies a running server, as pg_basebackup does, which not every package of binaries has.
func backup(ctx context.Context, from, to *server) error {
	conn, err := pgx.Connect(ctx, from.url().String())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "SELECT pg_backup_start('standby', true)"); err != nil {
		return err
	}
	data := filepath.Join(to.dir, "data")
	if out, err := to.command(ctx, "cp", "-R", "-p", filepath.Join(from.dir, "data"), data).CombinedOutput(); err != nil {
		return fmt.Errorf("copying the data directory: %w: %s", err, out)
	}
	var label string
	if err := conn.QueryRow(ctx, "SELECT labelfile FROM pg_backup_stop(false)").Scan(&label); err != nil {
		return err
	}
	write := to.command(ctx, "sh", "-c", `cd "$1" && rm -f postmaster.pid postmaster.opts && touch standby.signal && cat > backup_label`, "sh", data)
	write.Stdin = strings.NewReader(label)
	if out, err := write.CombinedOutput(); err != nil {
		return fmt.Errorf("making it a standby: %w: %s", err, out)
	}
	return nil
}

// OnStandby runs a query on the standby as superuser, in the database of the primary, and returns the one value it gives as text.
func (s *Standby) OnStandby(ctx context.Context, sql string) (value string, err error) {
	u := s.standby.url()
	u.Path = "/" + s.Primary.Name
	conn, err := pgx.Connect(ctx, u.String())
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	return value, conn.QueryRow(ctx, sql).Scan(&value)
}

// KillPrimary ends the primary at once.
func (s *Standby) KillPrimary() error {
	err := s.primary.stop()
	s.primary = nil
	return err
}
