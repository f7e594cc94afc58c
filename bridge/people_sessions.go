package bridge

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// A PersonSession is a session as operators see it: nothing in it lets anybody use it.
type PersonSession struct {
	ID          string    `json:"id"` // the tokens' `sid`
	UserID      string    `json:"user_id"`
	Email       *string   `json:"email"`
	Provider    string    `json:"provider"`
	Role        *string   `json:"role"` // last decision; null: refused
	CreatedAt   time.Time `json:"created_at"`
	LastSeenAt  time.Time `json:"last_seen_at"`
	IdleExpires time.Time `json:"idle_expires_at"`
	Expires     time.Time `json:"expires_at"`
	Disabled    bool      `json:"disabled"` // the user is: the session is refused
}

// Sessions returns the sessions that have not ended, the newest first; of one user, unless user is nil.
func (p *People) Sessions(ctx context.Context, user *Person, limit int) ([]PersonSession, error) {
	rows, err := p.conn.Query(ctx, `
SELECT s.id::text, coalesce(u.app_user_id, u.id::text), u.email, s.provider, s.role, s.created_at, s.last_seen_at, s.idle_expires_at, s.expires_at,
	u.disabled_at IS NOT NULL
FROM bridge.sessions s JOIN bridge.users u ON u.id = s.user_id
WHERE s.expires_at > now() AND s.idle_expires_at > now() AND ($1::bigint IS NULL OR s.user_id = $1::bigint)
ORDER BY s.created_at DESC, s.id LIMIT $2`, userRow(user), limit)
	if err != nil {
		return nil, peopleError(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[PersonSession])
	return found, peopleError(err)
}

// Which sessions are to end: the one with the id, those of the user, or all when both are absent.
type Which struct {
	Session string // a UUID, or ""
	User    *Person
}

// revokeBatch is how many sessions end in one statement, so that a login never waits long for a row.
const revokeBatch = 1000

// Revoke ends sessions for good, a batch at a time; progress hears how many have ended. A dry run only counts.
func (p *People) Revoke(ctx context.Context, which Which, c Change, progress func(ended int)) (ended int, err error) {
	args := pgx.NamedArgs{
		"session": nullable(which.Session), "user": userRow(which.User), "reason": p.reason("session revoke", c.Reason), "limit": revokeBatch,
	}
	if c.DryRun {
		err := p.conn.QueryRow(ctx, `
SELECT count(*) FROM bridge.sessions s
WHERE (@session::uuid IS NULL OR s.id = @session::uuid) AND (@user::bigint IS NULL OR s.user_id = @user::bigint)`, args).Scan(&ended)
		return ended, peopleError(err)
	}
	for {
		tag, err := p.conn.Exec(ctx, `
WITH ended AS (
	DELETE FROM bridge.sessions WHERE id IN (
		SELECT s.id FROM bridge.sessions s
		WHERE (@session::uuid IS NULL OR s.id = @session::uuid) AND (@user::bigint IS NULL OR s.user_id = @user::bigint)
		ORDER BY s.id LIMIT @limit FOR UPDATE)
	RETURNING id, user_id, identity_id, provider
)
INSERT INTO bridge.events (kind, provider, issuer, subject, user_id, session_id, reason)
SELECT 'revoke', ended.provider, i.issuer, i.subject, ended.user_id, ended.id, @reason::text
FROM ended JOIN bridge.identities i ON i.id = ended.identity_id`, args)
		ended += int(tag.RowsAffected())
		if err != nil || tag.RowsAffected() == 0 {
			return ended, peopleError(err)
		}
		progress(ended)
	}
}

// Ended reports whether there was a session with this id: events outlive it.
func (p *People) Ended(ctx context.Context, session string) (ended bool, err error) {
	err = p.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM bridge.events e WHERE e.session_id = $1::text::uuid)
	AND NOT EXISTS (SELECT FROM bridge.sessions s WHERE s.id = $1::text::uuid)`, session).Scan(&ended)
	return ended, peopleError(err)
}

// userRow is bridge.users.id, or NULL.
func userRow(user *Person) *int64 {
	if user == nil {
		return nil
	}
	return &user.ID
}
