package bridge

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oidc-bridge/oidc-bridge/migrations"
)

// People are users and sessions in the hands of an operator. Every change writes its event in the same statement, and a change that was
// made before is no change and no event.
type People struct {
	conn *pgx.Conn
	db   string // name of the database
	as   string // the database role
	by   string // who runs the command
}

// A Person is a users row with its identities. Its times are UTC.
type Person struct {
	ID          int64            `json:"id"`      // bridge.users.id
	UserID      string           `json:"user_id"` // the tokens'
	Email       *string          `json:"email"`
	Name        *string          `json:"name"`
	Role        *string          `json:"role"` // null: the row has none
	DisabledAt  *time.Time       `json:"disabled_at"`
	CreatedAt   time.Time        `json:"created_at"`
	LastLoginAt *time.Time       `json:"last_login_at"`
	Sessions    int              `json:"sessions"` // that have not ended
	Identities  []PersonIdentity `json:"identities"`
}

// A PersonIdentity is one login that a Person has at a provider.
type PersonIdentity struct {
	Provider    string    `json:"provider"`
	Issuer      string    `json:"issuer"`
	Subject     string    `json:"subject"`
	LastLoginAt time.Time `json:"last_login_at"`
}

// A Who names a person: by the tokens' user_id or the e-mail address of the users row, or by issuer and subject.
type Who struct {
	Word            string
	Issuer, Subject string
}

// OpenPeople connects. by is who runs the command; events say so beside the role of the connection. A database without schema bridge, or with
// an older one, is an error: it may be another one than the operator means.
func OpenPeople(ctx context.Context, url Secret, by string) (*People, error) {
	connecting, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := connectDatabase(connecting, url, false)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to the database: %s", connectError(err))
	}
	p := &People{conn: conn, by: by}
	if err := p.begin(connecting); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *People) begin(ctx context.Context) error {
	if err := p.conn.QueryRow(ctx, "SELECT session_user::text, pg_catalog.current_database()::text").Scan(&p.as, &p.db); err != nil {
		return peopleError(err)
	}
	have, want, err := migrations.Pending(ctx, p.conn)
	switch {
	case err != nil:
		return peopleError(err)
	case have == 0:
		return fmt.Errorf("database %q has no schema bridge: name another one, or run: oidc-bridge migrate", p.db)
	case have < want:
		return fmt.Errorf("schema bridge of database %q has version %d, this program needs %d; run: oidc-bridge migrate", p.db, have, want)
	}
	return nil
}

// Database is the name of the database.
func (p *People) Database() string { return p.db }

// Close ends the connection.
func (p *People) Close() { p.conn.Close(context.Background()) }

const selectPerson = `
SELECT u.id, coalesce(u.app_user_id, u.id::text), u.email, u.name, u.role, u.disabled_at, u.created_at, u.last_login_at,
	(SELECT count(*) FROM bridge.sessions s WHERE s.user_id = u.id AND s.expires_at > now() AND s.idle_expires_at > now()),
	(SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('provider', i.provider, 'issuer', i.issuer, 'subject', i.subject,
		'last_login_at', i.last_login_at) ORDER BY i.id), '[]') FROM bridge.identities i WHERE i.user_id = u.id)
FROM bridge.users u `

// Users yields everybody in the order of their ids; disabled people alone, when asked. A failure is the last thing that is yielded.
func (p *People) Users(ctx context.Context, disabled bool) iter.Seq2[Person, error] {
	return pages(func(last Person) ([]Person, error) {
		return p.persons(ctx, "WHERE u.id > $1 AND (NOT $2::boolean OR u.disabled_at IS NOT NULL) ORDER BY u.id LIMIT $3", last.ID, disabled, pageSize)
	})
}

// Find returns everybody whom the operator may mean: nobody, one, or several with one e-mail address. An address is looked for in the users
// row alone: in the claims of a login it may be anybody's.
func (p *People) Find(ctx context.Context, who Who) ([]Person, error) {
	if who.Issuer != "" {
		return p.persons(ctx, "WHERE u.id IN (SELECT i.user_id FROM bridge.identities i WHERE i.issuer = $1 AND i.subject = $2)", who.Issuer, who.Subject)
	}
	return p.persons(ctx, `WHERE coalesce(u.app_user_id, u.id::text) = $1 OR pg_catalog.lower(u.email) = pg_catalog.lower($1)
ORDER BY u.id LIMIT $2`, who.Word, most)
}

func (p *People) persons(ctx context.Context, where string, args ...any) ([]Person, error) {
	rows, err := p.conn.Query(ctx, selectPerson+where, args...)
	if err != nil {
		return nil, peopleError(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Person])
	for i := range found {
		found[i].inUTC()
	}
	return found, peopleError(err)
}

func (p *Person) inUTC() {
	p.CreatedAt = p.CreatedAt.UTC()
	for _, at := range []*time.Time{p.DisabledAt, p.LastLoginAt} {
		if at != nil {
			*at = at.UTC()
		}
	}
	for i := range p.Identities {
		p.Identities[i].LastLoginAt = p.Identities[i].LastLoginAt.UTC()
	}
}

// A Change is what an operator does to a person.
type Change struct {
	DryRun bool   // do it, and take it back
	Reason string // for the event; may be ""
}

const (
	disableUser = `
WITH changed AS (
	UPDATE bridge.users SET disabled_at = now(), updated_at = now() WHERE id = @id AND disabled_at IS NULL RETURNING id
)
INSERT INTO bridge.events (kind, user_id, reason) SELECT 'disable', id, @reason::text FROM changed`

	enableUser = `
WITH changed AS (
	UPDATE bridge.users SET disabled_at = NULL, updated_at = now() WHERE id = @id AND disabled_at IS NOT NULL RETURNING id
)
INSERT INTO bridge.events (kind, user_id, reason) SELECT 'enable', id, @reason::text FROM changed`

	setRole = `
WITH changed AS (
	UPDATE bridge.users SET role = @role::text, updated_at = now() WHERE id = @id AND role IS DISTINCT FROM @role::text RETURNING id
)
INSERT INTO bridge.events (kind, user_id, role, reason) SELECT 'set_role', id, @role::text, @reason::text FROM changed`

	// Identities and sessions go with the row. An event for each identity keeps the trace to who it was.
	deleteUser = `
WITH known AS (
	SELECT i.provider, i.issuer, i.subject FROM bridge.identities i WHERE i.user_id = @id
), changed AS (
	DELETE FROM bridge.users WHERE id = @id RETURNING id
)
INSERT INTO bridge.events (kind, user_id, provider, issuer, subject, reason)
SELECT 'delete', changed.id, known.provider, known.issuer, known.subject, @reason::text FROM changed LEFT JOIN known ON true`
)

// Disable locks the person out. Changed is false when they were disabled already.
func (p *People) Disable(ctx context.Context, user Person, c Change) (changed bool, err error) {
	return p.change(ctx, c, "user disable", disableUser, user, nil)
}

// Enable takes a Disable back.
func (p *People) Enable(ctx context.Context, user Person, c Change) (changed bool, err error) {
	return p.change(ctx, c, "user enable", enableUser, user, nil)
}

// SetRole writes the role into the users row; nil takes it away.
func (p *People) SetRole(ctx context.Context, user Person, role *string, c Change) (changed bool, err error) {
	return p.change(ctx, c, "user set-role", setRole, user, role)
}

// Delete removes the person with their identities and sessions. Events stay. The runtime role may not.
func (p *People) Delete(ctx context.Context, user Person, c Change) (changed bool, err error) {
	return p.change(ctx, c, "user delete", deleteUser, user, nil)
}

// Deleted reports whether somebody with this issuer and subject, or with this bridge.users.id, was deleted: events outlive them. Of a deleted
// person's address nothing is known.
func (p *People) Deleted(ctx context.Context, who Who) (deleted bool, err error) {
	err = p.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM bridge.events e
	WHERE e.kind = 'delete' AND (e.issuer = $1 AND e.subject = $2 OR e.user_id::text = $3))`, who.Issuer, who.Subject, who.Word).Scan(&deleted)
	return deleted, peopleError(err)
}

// Cascades returns the application's tables that lose their rows of a person with Delete: their foreign keys say ON DELETE CASCADE.
func (p *People) Cascades(ctx context.Context) ([]string, error) {
	rows, err := p.conn.Query(ctx, `
SELECT DISTINCT pg_catalog.format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.confdeltype = 'c' AND k.confrelid = 'bridge.users'::pg_catalog.regclass AND n.nspname <> 'bridge'
ORDER BY 1`)
	if err != nil {
		return nil, peopleError(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return tables, peopleError(err)
}

func (p *People) change(ctx context.Context, c Change, command, sql string, user Person, role *string) (bool, error) {
	tx, err := p.conn.Begin(ctx)
	if err != nil {
		return false, peopleError(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	args := pgx.NamedArgs{"id": user.ID, "reason": p.reason(command, c.Reason)}
	if sql == setRole {
		args["role"] = role
	}
	tag, err := tx.Exec(ctx, sql, args)
	if err == nil && !c.DryRun {
		err = tx.Commit(ctx)
	}
	return tag.RowsAffected() > 0, peopleError(err)
}

// reason is what an event says of a command: which one, who, and why.
func (p *People) reason(command, why string) string {
	text := fmt.Sprintf("%s by %s (%s)", command, p.as, p.by)
	if why != "" {
		text += ": " + why
	}
	return text
}

// peopleError says what helps: another role, the migration, or the application's own table.
func peopleError(err error) error {
	var failed *pgconn.PgError
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case errors.As(err, &failed) && failed.Code == "42501":
		return fmt.Errorf("%s: `user delete` needs the schema's owner in DATABASE_OWNER_URL (database.owner_url); what the service's role needs, "+
			"`oidc-bridge migrate` grants", failed.Message)
	case errors.As(err, &failed) && failed.Code == "23503":
		return fmt.Errorf("table %s.%s refers to this user (%s): move or delete those rows first, or disable the user instead",
			failed.SchemaName, failed.TableName, failed.ConstraintName)
	default:
		return recordsError(err)
	}
}
