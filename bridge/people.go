package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// People are users and sessions in the hands of an operator. Every change writes its event in the same statement, and a change that was
// made before is no change and no event.
type People struct {
	conn *pgx.Conn
	as   string // the database role
	by   string // who runs the command
}

// A Person is a users row with its identities.
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

// OpenPeople connects. by is who runs the command; events say so beside the role of the connection.
func OpenPeople(ctx context.Context, url Secret, by string) (*People, error) {
	conn, err := connectDatabase(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to the database: %s", connectError(err))
	}
	p := &People{conn: conn, by: by}
	err = conn.QueryRow(ctx, "SELECT session_user::text").Scan(&p.as)
	if err != nil {
		p.Close()
		return nil, peopleError(err)
	}
	return p, nil
}

// Close ends the connection.
func (p *People) Close() { p.conn.Close(context.Background()) }

const selectPerson = `
SELECT u.id, coalesce(u.app_user_id, u.id::text), u.email, u.name, u.role, u.disabled_at, u.created_at, u.last_login_at,
	(SELECT count(*) FROM bridge.sessions s WHERE s.user_id = u.id AND s.expires_at > now() AND s.idle_expires_at > now()),
	(SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('provider', i.provider, 'issuer', i.issuer, 'subject', i.subject,
		'last_login_at', i.last_login_at) ORDER BY i.id), '[]') FROM bridge.identities i WHERE i.user_id = u.id)
FROM bridge.users u `

// List returns users in the order of their ids, from the one after `after`; disabled ones alone, when asked.
func (p *People) List(ctx context.Context, after int64, limit int, disabled bool) ([]Person, error) {
	return p.persons(ctx, "WHERE u.id > $1 AND (NOT $3::boolean OR u.disabled_at IS NOT NULL) ORDER BY u.id LIMIT $2", after, limit, disabled)
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
	return found, peopleError(err)
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

// Export returns all that is stored about the person, as one JSON object. What would let somebody use a session is not in it.
func (p *People) Export(ctx context.Context, user Person) (json.RawMessage, error) {
	var out json.RawMessage
	err := p.conn.QueryRow(ctx, `
SELECT pg_catalog.jsonb_build_object(
	'user', pg_catalog.to_jsonb(u),
	'identities', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(i) ORDER BY i.id), '[]') FROM bridge.identities i WHERE i.user_id = u.id),
	'sessions', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(s) - 'token_hash' ORDER BY s.created_at), '[]')
		FROM bridge.sessions s WHERE s.user_id = u.id),
	'events', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(e) ORDER BY e.id), '[]') FROM bridge.events e
		WHERE e.user_id = u.id OR (e.issuer, e.subject) IN (SELECT i.issuer, i.subject FROM bridge.identities i WHERE i.user_id = u.id)))
FROM bridge.users u WHERE u.id = $1`, user.ID).Scan(&out)
	return out, peopleError(err)
}

// peopleError says what helps: another role, the migration, or the application's own table.
func peopleError(err error) error {
	var failed *pgconn.PgError
	switch {
	case errors.As(err, &failed) && failed.Code == "42501":
		return fmt.Errorf("%s: this needs the schema's owner: set DATABASE_OWNER_URL (database.owner_url), as for `migrate`", failed.Message)
	case errors.As(err, &failed) && failed.Code == "23503":
		return fmt.Errorf("table %s.%s refers to this user (%s): move or delete those rows first, or disable the user instead",
			failed.SchemaName, failed.TableName, failed.ConstraintName)
	default:
		return recordsError(err)
	}
}
