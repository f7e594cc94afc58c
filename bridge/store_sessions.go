package bridge

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// An OwnSession is what people are shown of a session of theirs.
type OwnSession struct {
	ID        string
	Provider  string // its id
	UserAgent string // as the browser sent it at the login; "" when it sent none
	Begun     time.Time
	LastSeen  time.Time
}

// OwnSessions returns up to limit sessions of the session's user that have not ended, and how many more there are: this one first, then those
// that were used last.
func (s *Store) OwnSessions(ctx context.Context, session Session, limit int) (own []OwnSession, more int, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rows, _ := s.pool.Query(ctx, `
SELECT s.id::text, s.provider, coalesce(s.user_agent, ''), s.created_at, s.last_seen_at, count(*) OVER ()
FROM bridge.sessions s WHERE s.user_id = $1 AND s.expires_at > $2 AND s.idle_expires_at > $2
ORDER BY s.id <> $3::uuid, s.last_seen_at DESC, s.id LIMIT $4`, session.userRow, s.now(), session.ID, limit)
	var all int
	own, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (o OwnSession, err error) {
		return o, row.Scan(&o.ID, &o.Provider, &o.UserAgent, &o.Begun, &o.LastSeen, &all)
	})
	return own, all - len(own), storeError(err)
}

// EndOwnSession ends another session of the session's user; "" means all others. There is none when the id is somebody else's, or has ended.
func (s *Store) EndOwnSession(ctx context.Context, session Session, id string) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rows, _ := s.pool.Query(ctx, `
WITH ended AS (
	DELETE FROM bridge.sessions s WHERE s.user_id = @user::bigint AND s.id <> @current::uuid AND (@id::uuid IS NULL OR s.id = @id::uuid)
	RETURNING s.id, s.user_id, s.identity_id, s.provider
), event AS (
	INSERT INTO bridge.events (at, kind, provider, issuer, subject, user_id, session_id, reason)
	SELECT @now::timestamptz, 'logout', ended.provider, i.issuer, i.subject, ended.user_id, ended.id, 'ended by the person, in session ' || @current::text
	FROM ended JOIN bridge.identities i ON i.id = ended.identity_id
)
SELECT id::text FROM ended`, pgx.NamedArgs{"user": session.userRow, "current": session.ID, "id": nullable(id), "now": s.now()})
	ended, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, id := range ended {
		s.memory.change(sessionMessage(id), s.now())
	}
	return storeError(err)
}
