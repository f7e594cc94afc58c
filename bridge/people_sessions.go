package bridge

import (
	"context"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"
)

// A PersonSession is a session as operators see it: nothing in it lets anybody use it. Its times are UTC.
type PersonSession struct {
	userRow     int64     // bridge.users.id
	ID          string    `json:"id"` // the tokens' `sid`
	UserID      string    `json:"user_id"`
	Email       *string   `json:"email"`
	Provider    string    `json:"provider"`
	UserAgent   *string   `json:"user_agent"` // of the browser at the login, as it says
	Role        *string   `json:"role"`       // last decision; null: refused
	CreatedAt   time.Time `json:"created_at"`
	LastSeenAt  time.Time `json:"last_seen_at"`
	IdleExpires time.Time `json:"idle_expires_at"`
	Expires     time.Time `json:"expires_at"`
	Disabled    bool      `json:"disabled"` // the user is: the session is refused
}

// Sessions yields the sessions that have not ended, of one user or, when user is nil, of each user in turn, the oldest first. A failure is the
// last thing that is yielded.
func (p *People) Sessions(ctx context.Context, user *Person) iter.Seq2[PersonSession, error] {
	return pages(func(last PersonSession) ([]PersonSession, error) {
		// That u.id begins where s.user_id does follows from the join, but the planner does not see it and would read all users for each page.
		rows, err := p.conn.Query(ctx, `
SELECT u.id, s.id::text, coalesce(u.app_user_id, u.id::text), u.email, s.provider, s.user_agent, s.role, s.created_at, s.last_seen_at, s.idle_expires_at,
	s.expires_at, u.disabled_at IS NOT NULL
FROM bridge.sessions s JOIN bridge.users u ON u.id = s.user_id
WHERE s.expires_at > now() AND s.idle_expires_at > now() AND ($1::bigint IS NULL OR s.user_id = $1::bigint)
	AND (s.user_id, s.created_at, s.id) > ($2::bigint, $3::timestamptz, $4::text::uuid) AND u.id >= $2::bigint
ORDER BY s.user_id, s.created_at, s.id LIMIT $5`, userRow(user), last.userRow, last.CreatedAt, nullable(last.ID), pageSize)
		if err != nil {
			return nil, peopleError(err)
		}
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s PersonSession, err error) {
			err = row.Scan(&s.userRow, &s.ID, &s.UserID, &s.Email, &s.Provider, &s.UserAgent, &s.Role, &s.CreatedAt, &s.LastSeenAt, &s.IdleExpires,
				&s.Expires, &s.Disabled)
			for _, at := range []*time.Time{&s.CreatedAt, &s.LastSeenAt, &s.IdleExpires, &s.Expires} {
				*at = at.UTC()
			}
			return s, err
		})
		return found, peopleError(err)
	})
}

// Which sessions are to end: the one with the id, those of the user, or all when both are absent.
type Which struct {
	Session string // a UUID, or ""
	User    *Person
}

// revokeBatch is how many sessions end in one statement, so that a login never waits long for a row.
const revokeBatch = 1000

// Count is how many sessions Revoke would end.
func (p *People) Count(ctx context.Context, which Which) (n int, err error) {
	err = p.conn.QueryRow(ctx, `
SELECT count(*) FROM bridge.sessions s
WHERE ($1::text IS NULL OR s.id = $1::text::uuid) AND ($2::bigint IS NULL OR s.user_id = $2::bigint)`,
		nullable(which.Session), userRow(which.User)).Scan(&n)
	return n, peopleError(err)
}

// Revoke ends sessions for good, a batch at a time, until there is none left; progress hears how many have ended. Those that begin meanwhile
// end, too. A dry run only counts.
func (p *People) Revoke(ctx context.Context, which Which, c Change, progress func(ended int)) (ended int, err error) {
	if c.DryRun {
		return p.Count(ctx, which)
	}
	args := pgx.NamedArgs{
		"session": nullable(which.Session), "user": userRow(which.User), "reason": p.reason("session revoke", c.Reason), "limit": revokeBatch,
	}
	for {
		tag, err := p.conn.Exec(ctx, `
WITH ended AS (
	DELETE FROM bridge.sessions WHERE id IN (
		SELECT s.id FROM bridge.sessions s
		WHERE (@session::text IS NULL OR s.id = @session::text::uuid) AND (@user::bigint IS NULL OR s.user_id = @user::bigint)
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
