package bridge

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

// Records are what the database knows of people, for operators who ask about the rules. They are one read-only transaction of the
// service's role: every answer is of the same moment, and none can change anything.
type Records struct {
	conn *pgx.Conn
	tx   pgx.Tx
}

// A KnownIdentity is an identity that has logged in, with its user.
type KnownIdentity struct {
	id        int64
	UserID    string // the tokens' user_id
	Email     string // of the users row; may be ""
	Provider  string
	Issuer    string
	Subject   string
	Claims    mapping.Claims // of the last login
	Row       mapping.Row
	Disabled  bool
	LastLogin time.Time
}

// An Event is what was recorded when somebody was refused or a decision changed.
type Event struct {
	At        time.Time
	Kind      string // refused or decision
	Provider  string
	Issuer    string
	Subject   string
	UserID    string // "" for somebody who has no user
	Role      string
	Rule      string
	RulesHash string
	Reason    string
	Claims    []byte      // as Decision.ReadClaims gave them; for mapping.Recall
	Row       mapping.Row // as it is today
}

// OpenRecords connects as the role of database.url.
func OpenRecords(ctx context.Context, d *DatabaseConfig) (*Records, error) {
	conn, err := connectDatabase(ctx, d.URL, true)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to the database: %s", connectError(err))
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, recordsError(err)
	}
	return &Records{conn, tx}, nil
}

// Close ends the transaction and the connection.
func (r *Records) Close() { r.conn.Close(context.Background()) }

// Count is how many identities there are.
func (r *Records) Count(ctx context.Context) (n int, err error) {
	err = r.tx.QueryRow(ctx, `SELECT count(*) FROM bridge.identities`).Scan(&n)
	return n, recordsError(err)
}

// selectIdentity has the columns that identities scans.
const selectIdentity = `
SELECT i.id, coalesce(u.app_user_id, u.id::text), coalesce(u.email, ''), i.provider, i.issuer, i.subject, i.claims, coalesce(u.role, ''),
	u.disabled_at IS NOT NULL, i.last_login_at
FROM bridge.identities i JOIN bridge.users u ON u.id = i.user_id
`

// pageSize is how many rows are in memory at a time.
const pageSize = 1000

// pages yields rows in the order of a key: next returns up to pageSize of them that come after the last one, which is the zero value at
// first. So neither are all of them in memory, nor is a snapshot of the database held while somebody reads. A failure is the last thing
// that is yielded.
func pages[T any](next func(last T) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last T
		for {
			page, err := next(last)
			if err != nil {
				yield(last, err)
				return
			}
			for _, last = range page {
				if !yield(last, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
		}
	}
}

// Identities yields every known identity, in the order of their first logins. A failure is the last thing that is yielded.
func (r *Records) Identities(ctx context.Context) iter.Seq2[KnownIdentity, error] {
	return pages(func(last KnownIdentity) ([]KnownIdentity, error) {
		return r.identities(ctx, "WHERE i.id > $1 ORDER BY i.id LIMIT $2", last.id, pageSize)
	})
}

// most is how many identities an operator's word may mean.
const most = 20

// Find returns the identities of a user: by user_id, by the provider's subject, or by e-mail address in any case, of the users row or of
// the last login. An address may be unverified there; it finds people, it decides nothing.
func (r *Records) Find(ctx context.Context, who string) ([]KnownIdentity, error) {
	return r.identities(ctx, `
WHERE coalesce(u.app_user_id, u.id::text) = $1 OR i.subject = $1 OR pg_catalog.lower(u.email) = pg_catalog.lower($1)
	OR pg_catalog.lower(i.claims ->> 'email') = pg_catalog.lower($1)
ORDER BY i.id LIMIT $2`, who, most)
}

func (r *Records) identities(ctx context.Context, where string, args ...any) ([]KnownIdentity, error) {
	rows, err := r.tx.Query(ctx, selectIdentity+where, args...)
	if err != nil {
		return nil, recordsError(err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k KnownIdentity, err error) {
		k.Row.Known = true
		err = row.Scan(&k.id, &k.UserID, &k.Email, &k.Provider, &k.Issuer, &k.Subject, &k.Claims, &k.Row.Role, &k.Disabled, &k.LastLogin)
		return k, err
	})
	return found, recordsError(err)
}

// Event returns the newest event with the reference code; found is false when there is none.
func (r *Records) Event(ctx context.Context, ref string) (e Event, found bool, err error) {
	err = r.tx.QueryRow(ctx, `
SELECT e.at, e.kind, coalesce(e.provider, ''), coalesce(e.issuer, ''), coalesce(e.subject, ''), coalesce(u.app_user_id, e.user_id::text, ''),
	coalesce(e.role, ''), coalesce(e.rule, ''), coalesce(e.rules_hash, ''), coalesce(e.reason, ''), coalesce(e.claims, '{}'),
	u.id IS NOT NULL, coalesce(u.role, '')
FROM bridge.events e LEFT JOIN bridge.users u ON u.id = e.user_id
WHERE e.ref = $1 ORDER BY e.id DESC LIMIT 1`, ref).Scan(&e.At, &e.Kind, &e.Provider, &e.Issuer, &e.Subject, &e.UserID,
		&e.Role, &e.Rule, &e.RulesHash, &e.Reason, &e.Claims, &e.Row.Known, &e.Row.Role)
	if errors.Is(err, pgx.ErrNoRows) {
		return Event{}, false, nil
	}
	return e, err == nil, recordsError(err)
}

// recordsError says which command helps where the schema is missing or may not be read.
func recordsError(err error) error {
	var failed *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &failed) && (failed.Code == "42P01" || failed.Code == "3F000" || failed.Code == "42501"):
		return fmt.Errorf("%s; as the schema's owner run: oidc-bridge migrate", failed.Message)
	default:
		return errors.New(connectError(err))
	}
}
