// Package migrations holds the database schema of the bridge and applies it.
//
// Each 0001_….sql runs once, in order, in its own transaction. Files only ever expand the schema in a release that old binaries still
// run beside (expand, then contract in a later release), so replicas can be replaced one by one.
package migrations

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed *.sql
var files embed.FS

const versionTable = "bridge.schema_version"

// advisoryLock is the key under which replicas that start together take turns: "oidc-bridge" folded into 64 bits.
const advisoryLock = 0x6f6964632d627267

// Up brings the schema up to date and grants runtimeRole what `serve` needs. It connects to ownerURL as the role that is to own
// schema bridge (CREATE on the database for the first run). runtimeRole may equal the owner; then nothing is granted.
// Any number of callers may run it at once: the first one migrates, the others wait for it. It returns the names of the files that this
// call applied.
func Up(ctx context.Context, ownerURL, runtimeRole string) (applied []string, err error) {
	config, err := pgx.ParseConfig(ownerURL)
	if err != nil {
		return nil, fmt.Errorf("owner URL: %w", err)
	}
	// What the files leave without a schema is PostgreSQL's own, whatever stands in the database and on its search_path (DB-03).
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('search_path', '', false)")
		return err
	}))
	defer db.Close()
	// A session lock, on a connection of its own: goose opens transactions on others.
	lock, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if _, err := lock.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(advisoryLock)); err != nil {
		return nil, fmt.Errorf("waiting for another migration: %w", err)
	}
	// Not IF NOT EXISTS alone: that asks for CREATE on the database even when there is nothing to create.
	if _, err := lock.ExecContext(ctx, createSchema); err != nil {
		return nil, fmt.Errorf("creating schema bridge as %s, which needs CREATE on the database (the schema's owner belongs into DATABASE_OWNER_URL, or database.owner_url): %w", config.User, err)
	}
	store, err := database.NewStore(database.DialectPostgres, versionTable)
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider("", db, files, goose.WithStore(store))
	if err != nil {
		return nil, err
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		applied = append(applied, r.Source.Path)
	}
	if runtimeRole != config.User {
		err = grant(ctx, lock, runtimeRole)
	}
	return applied, err
}

const createSchema = `DO $$ BEGIN
	IF to_regnamespace('bridge') IS NULL THEN CREATE SCHEMA bridge; END IF;
END $$`

// privileges is the least that `serve` needs.
var privileges = []struct{ what, tables string }{
	{"SELECT", "schema_version"},
	{"SELECT, INSERT, UPDATE", "users, identities"},
	{"SELECT, INSERT, UPDATE, DELETE", "sessions"},
	{"SELECT, INSERT, DELETE", "events, replay_guard"},
	{"SELECT, INSERT", "provider_logouts"},
	{"SELECT", "settings"},
}

// sweep is the one function that `serve` alone may call.
const sweep = "bridge.sweep(timestamptz, timestamptz, integer)"

// grant gives the runtime role its privileges. It runs at every Up, so that a new table is never forgotten.
func grant(ctx context.Context, conn *sql.Conn, runtimeRole string) error {
	role := pgx.Identifier{runtimeRole}.Sanitize()
	grants := []string{"USAGE ON SCHEMA bridge"}
	for _, p := range privileges {
		grants = append(grants, p.what+" ON bridge."+strings.ReplaceAll(p.tables, ", ", ", bridge."))
	}
	grants = append(grants, "EXECUTE ON FUNCTION "+sweep)
	for _, g := range grants {
		if _, err := conn.ExecContext(ctx, "GRANT "+g+" TO "+role); err != nil {
			return fmt.Errorf("granting %s to %s: %w", g, role, err)
		}
	}
	return nil
}

// Missing returns the privileges that the role of the connection lacks, such as "INSERT on bridge.sessions". It asks about a schema that is up
// to date.
func Missing(ctx context.Context, db Querier) (missing []string, err error) {
	for _, p := range privileges {
		for table := range strings.SplitSeq(p.tables, ", ") {
			for what := range strings.SplitSeq(p.what, ", ") {
				var granted bool
				if err := db.QueryRow(ctx, "SELECT pg_catalog.has_table_privilege($1, $2)", "bridge."+table, what).Scan(&granted); err != nil {
					return nil, err
				}
				if !granted {
					missing = append(missing, what+" on bridge."+table)
				}
			}
		}
	}
	var granted bool
	if err := db.QueryRow(ctx, "SELECT pg_catalog.has_function_privilege($1, 'EXECUTE')", sweep).Scan(&granted); err != nil {
		return nil, err
	}
	if !granted {
		missing = append(missing, "EXECUTE on "+sweep)
	}
	return missing, nil
}

// Querier is what Pending reads through: a connection or a pool of the runtime role.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Pending returns the version of the database's schema and the version this program needs. A database that was never migrated has
// version 0. A newer database than ours is fine: migrations expand first.
func Pending(ctx context.Context, db Querier) (have, want int64, err error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return 0, 0, err
	}
	for _, name := range names {
		v, err := goose.NumericComponent(name)
		if err != nil {
			return 0, 0, err
		}
		want = max(want, v)
	}
	err = db.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+versionTable+" WHERE is_applied").Scan(&have)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && (pgErr.Code == "42P01" || pgErr.Code == "3F000") {
		return 0, want, nil // no such table or schema
	}
	return have, want, err
}

// Hash identifies the migrations of this program, for caches of migrated databases.
func Hash() string {
	h := sha256.New()
	names, _ := fs.Glob(files, "*.sql")
	for _, name := range names {
		text, _ := files.ReadFile(name)
		fmt.Fprintf(h, "%s %d\n%s", name, len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil))
}
