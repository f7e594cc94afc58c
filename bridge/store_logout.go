package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// An EndedSession is what a logout at the provider needs of a session that has just ended here. The zero value is none.
type EndedSession struct {
	ID       string
	Provider string
	Issuer   string
	sealed   []byte // the ID token of the login, nil without
}

// EndSession ends the session of the token, of a disabled user too. ErrNoSession: there is none.
func (s *Store) EndSession(ctx context.Context, token SessionToken) (EndedSession, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var ended EndedSession
	err := s.pool.QueryRow(ctx, `
WITH ended AS (
	DELETE FROM bridge.sessions s USING bridge.identities i WHERE s.token_hash = $1 AND i.id = s.identity_id
	RETURNING s.id, s.user_id, s.provider, s.id_token, i.issuer, i.subject
), event AS (
	INSERT INTO bridge.events (at, kind, provider, issuer, subject, user_id, session_id)
	SELECT $2::timestamptz, 'logout', ended.provider, ended.issuer, ended.subject, ended.user_id, ended.id FROM ended
)
SELECT ended.id::text, ended.provider, ended.issuer, ended.id_token FROM ended`, token.Hash(), s.now()).Scan(
		&ended.ID, &ended.Provider, &ended.Issuer, &ended.sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return EndedSession{}, ErrNoSession
	} else if err != nil {
		return EndedSession{}, storeError(err)
	}
	s.memory.change(sessionMessage(ended.ID), s.now())
	return ended, nil
}

// IDToken is the ID token of the login, as it came. It is empty when the provider did not want to see it again, and an error when none of the
// cookie keys opens it any more.
func (s *Store) IDToken(ended EndedSession) (Secret, error) {
	token, err := s.vault.open(ended.ID, sealedIDToken, ended.sealed)
	if err != nil {
		return Secret{}, fmt.Errorf("ID token of session %s: %w", ended.ID, err)
	}
	return token, nil
}

// A ProviderLogout is a verified logout token. Either of Subject and SID may be "".
type ProviderLogout struct {
	Issuer   string // the configured one
	Provider string
	JTI      string
	Subject  string
	SID      string // the provider's session; "": all of the subject
	IssuedAt time.Time
	Expires  time.Time // exp
}

const (
	// Violating the primary key ends the transaction: a logout token is used once, on any number of replicas.
	useLogoutToken = `INSERT INTO bridge.provider_logouts (hash, issuer, sid, subject, issued_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`

	// The sessions that signIn would refuse: those of the sid, and of the subject where one of the two sides has no sid. Which connection and
	// which client they began with does not matter, only the issuer (LO-08).
	endProviderSessions = `
WITH ended AS (
	DELETE FROM bridge.sessions s USING bridge.identities i
	WHERE i.id = s.identity_id AND s.id = ANY (ARRAY(
		SELECT o.id FROM bridge.sessions o JOIN bridge.identities i ON i.id = o.identity_id
		WHERE i.issuer = @issuer::text AND o.provider_sid = @sid::text
		UNION ALL SELECT o.id FROM bridge.identities i JOIN bridge.sessions o ON o.identity_id = i.id
		WHERE i.issuer = @issuer::text AND i.subject = @subject::text AND (@sid::text IS NULL OR o.provider_sid IS NULL)))
	RETURNING s.id, s.user_id, s.provider, i.issuer, i.subject
), event AS (
	INSERT INTO bridge.events (at, kind, provider, issuer, subject, user_id, session_id, reason)
	SELECT @now::timestamptz, 'logout', ended.provider, ended.issuer, ended.subject, ended.user_id, ended.id, 'back-channel logout by provider ' || @provider::text
	FROM ended
)
SELECT ended.id::text FROM ended`
)

// EndProviderSessions ends the sessions that the provider logged out, and keeps those out whose login is still under way: one transaction in
// one round trip. ErrLogoutToken: the token was used before, and nothing ends.
func (s *Store) EndProviderSessions(ctx context.Context, in ProviderLogout) (ended int, err error) {
	now := s.now()
	// A login under way must find it, whatever the token's own life.
	expires := in.Expires
	if last := now.Add(loginLife); last.After(expires) {
		expires = last
	}
	batch := &pgx.Batch{}
	batch.Queue(lockIdentity, in.Issuer, nullable(in.Subject), nullable(in.SID))
	batch.Queue(useLogoutToken, in.hash(), in.Issuer, nullable(in.SID), nullable(in.Subject), in.IssuedAt, expires.Add(clockSkew))
	batch.Queue(endProviderSessions, pgx.NamedArgs{
		"issuer": in.Issuer, "subject": nullable(in.Subject), "sid": nullable(in.SID), "provider": in.Provider, "now": now,
	})
	var sessions []string
	err = s.transaction(ctx, batch, func(last pgx.BatchResults) (err error) {
		rows, _ := last.Query()
		sessions, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return 0, logoutError(err)
	}
	for _, id := range sessions {
		s.memory.change(sessionMessage(id), now)
	}
	return len(sessions), nil
}

func logoutError(err error) error {
	var failed *pgconn.PgError
	if errors.As(err, &failed) && failed.ConstraintName == "provider_logouts_pkey" {
		return fmt.Errorf("%w: its jti was used before", ErrLogoutToken)
	}
	return storeError(err)
}

// hash names the token: a jti is unique at its issuer.
func (in ProviderLogout) hash() []byte {
	named := binary.AppendUvarint(nil, uint64(len(in.Issuer)))
	named = append(append(named, in.Issuer...), in.JTI...)
	sum := sha256.Sum256(named)
	return sum[:]
}
