package bridgetest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/migrations"
)

// Postgres is a PostgreSQL server for tests and the demo: one of our own, gone with this process, or an external one.
type Postgres struct {
	server  *server   // nil: external
	guard   *pgx.Conn // external: holds the advisory lock that tells other runs that ours is alive
	url     *url.URL  // superuser, maintenance database
	version int

	// Roles belong to the whole cluster. On our own server they have their plain names, on an external one a random suffix.
	suffix   string // "" or "_" and eight hex digits
	password string // of the roles that log in; "" on our own server, which trusts its socket

	serial     atomic.Int64 // of databases
	templateMu sync.Mutex
	template   string // the migrated database that others are copied from; "" until the first is needed
}

// startTimeout bounds the start of a server, the download of its binaries included.
const startTimeout = 3 * time.Minute

// StartPostgres gives a PostgreSQL server (15 or newer) with the roles of the orders scenario. It takes the first of
//
//   - the server at $DATABASE_URL, as a superuser; what a run creates there has random names and is dropped by Close,
//     or by the next run if this one is killed;
//   - the binaries in $PG_BINDIR, on PATH, or in the newest /usr/lib/postgresql/*/bin;
//   - the binaries that the library embedded-postgres fetches from Maven Central.
//
// The context bounds the start only. The caller ends the server with Close; a server of our own also ends when this process does.
func StartPostgres(ctx context.Context) (*Postgres, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if external := os.Getenv("DATABASE_URL"); external != "" {
		p, err := externalPostgres(ctx, external)
		if err != nil {
			return nil, fmt.Errorf("PostgreSQL at $DATABASE_URL: %w", err)
		}
		return p, nil
	}
	server, err := startServer(ctx, nil)
	if err != nil {
		return nil, err
	}
	p := &Postgres{server: server, url: server.url()}
	if err := p.prepare(ctx); err != nil {
		return nil, errors.Join(err, server.stop())
	}
	return p, nil
}

func externalPostgres(ctx context.Context, text string) (*Postgres, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, errors.New("not a postgres:// URL")
	}
	var id [4]byte
	rand.Read(id[:])
	p := &Postgres{url: u, suffix: "_" + hex.EncodeToString(id[:]), password: rand.Text()}
	if p.guard, err = pgx.Connect(ctx, text); err != nil {
		return nil, err
	}
	if err = p.claim(ctx); err == nil {
		err = p.prepare(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// claim takes the advisory lock of our suffix and removes what killed runs left behind: suffixes whose lock nobody holds.
func (p *Postgres) claim(ctx context.Context) error {
	var super bool
	if err := p.guard.QueryRow(ctx, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user").Scan(&super); err != nil {
		return err
	}
	if !super {
		return errors.New("the tests create roles and databases there: connect as a superuser")
	}
	if _, err := p.guard.Exec(ctx, "SELECT pg_advisory_lock($1, $2)", advisoryClass, lockKey(p.suffix)); err != nil {
		return err
	}
	rows, _ := p.guard.Query(ctx, "SELECT substring(rolname FROM '_[0-9a-f]{8}$') FROM pg_roles WHERE rolname ~ '^bridge_owner_[0-9a-f]{8}$'")
	suffixes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, suffix := range suffixes {
		var abandoned bool
		if err := p.guard.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", advisoryClass, lockKey(suffix)).Scan(&abandoned); err != nil {
			return err
		}
		if abandoned {
			if err := dropAll(ctx, p.guard, suffix); err != nil {
				return fmt.Errorf("removing what a killed run left behind: %w", err)
			}
		}
	}
	return nil
}

const advisoryClass int32 = 0x6f696462 // "oidb"

func lockKey(suffix string) int32 {
	id, _ := hex.DecodeString(strings.TrimPrefix(suffix, "_"))
	return int32(binary.BigEndian.Uint32(id))
}

// prepare checks the version and creates the roles.
func (p *Postgres) prepare(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&p.version); err != nil {
		return err
	}
	if p.version < 15 {
		return fmt.Errorf("PostgreSQL %d is too old, 15 is the oldest supported", p.version)
	}
	login := "LOGIN"
	if p.password != "" {
		login += " PASSWORD '" + p.password + "'"
	}
	_, err = conn.Exec(ctx, p.SQL(strings.ReplaceAll(createRoles, "LOGIN_", login)))
	if err != nil {
		return fmt.Errorf("creating roles: %w", err)
	}
	return nil
}

// The authenticator inherits nothing: without SET ROLE it may do nothing at all.
const createRoles = `
CREATE ROLE anonymous NOLOGIN;
CREATE ROLE customer NOLOGIN;
CREATE ROLE admin NOLOGIN;
CREATE ROLE authenticator LOGIN_ NOINHERIT;
CREATE ROLE bridge_owner LOGIN_;
CREATE ROLE bridge_runtime LOGIN_;
GRANT anonymous, customer, admin TO authenticator;`

var roleNames = []string{"anonymous", "customer", "admin", "authenticator", "bridge_owner", "bridge_runtime"}

// roleName finds the names above as whole SQL identifiers.
var roleName = regexp.MustCompile(`(^|[^\w$])(` + strings.Join(roleNames, "|") + `)($|[^\w$])`)

// Role returns the cluster's name of a role: name itself on our own server, with a random suffix on an external one.
// It panics when the kit has no such role.
func (p *Postgres) Role(name string) string {
	for _, known := range roleNames {
		if known == name {
			return name + p.suffix
		}
	}
	panic("bridgetest: no role " + name)
}

// SQL returns text with the kit's role names replaced by the cluster's (see [Postgres.Role]), wherever they stand as whole words: also
// inside string literals, and also in rules files and configuration. On our own server it changes nothing.
func (p *Postgres) SQL(text string) string {
	if p.suffix == "" {
		return text
	}
	// Twice: neighbours share the character between them, and a match consumes it.
	for range 2 {
		text = roleName.ReplaceAllString(text, "${1}${2}"+p.suffix+"${3}")
	}
	return text
}

// URL returns the superuser's URL of the maintenance database.
func (p *Postgres) URL() string { return p.url.String() }

// Version returns the server's major version.
func (p *Postgres) Version() int { return p.version }

// Close stops our own server and removes its files. On an external server it drops the databases and roles of this run.
func (p *Postgres) Close() error {
	if p.server != nil {
		return p.server.stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(dropAll(ctx, p.guard, p.suffix), p.guard.Close(ctx))
}

// dropAll drops the databases and roles of one run on an external server.
func dropAll(ctx context.Context, conn *pgx.Conn, suffix string) error {
	rows, _ := conn.Query(ctx, "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", databasePrefix(suffix))
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := dropDatabase(ctx, conn, name); err != nil {
			return err
		}
	}
	for _, name := range roleNames {
		if _, err := conn.Exec(ctx, "DROP ROLE IF EXISTS "+pgx.Identifier{name + suffix}.Sanitize()); err != nil {
			return err
		}
	}
	return nil
}

func dropDatabase(ctx context.Context, conn *pgx.Conn, name string) error {
	_, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
	return err
}

func databasePrefix(suffix string) string { return "bridgetest" + suffix + "_" }

// migrated returns the name of the template: one per server and state of the migrations, made when it is first needed.
func (p *Postgres) migrated(ctx context.Context) (string, error) {
	p.templateMu.Lock()
	defer p.templateMu.Unlock()
	if p.template != "" {
		return p.template, nil
	}
	d, err := p.create(ctx, databasePrefix(p.suffix)+"template_"+migrations.Hash()[:12], "template0")
	if err != nil {
		return "", err
	}
	if _, err := migrations.Up(ctx, d.OwnerURL, d.Role("bridge_runtime")); err != nil {
		return "", errors.Join(fmt.Errorf("migrating the template database: %w", err), d.Drop(ctx))
	}
	p.template = d.Name
	return p.template, nil
}
