package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

var (
	errNoLease = errors.New("another request checks this session, or it has ended")
	errSealed  = errors.New("sealed provider tokens")
)

// A Check is the right to ask a session's provider about it: no other request of any replica has one at the same time. It ends with what it
// led to, or by itself.
type Check struct {
	RefreshToken Secret
	IDToken      map[string]any // claims of the last one that came
	session      string
	until        time.Time // tells this check from later ones
}

// LeaseCheck takes the session for a check that is due. errNoLease: somebody else has it, or it is not due any more. errSealed: what it
// needs does not open, as when the row was tampered with, or while another replica has a newer key than this one: for the latter's sake the
// session goes on.
func (s *Store) LeaseCheck(ctx context.Context, session string) (Check, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	now := s.now()
	check := Check{session: session}
	var refreshToken, idToken []byte
	err := s.pool.QueryRow(ctx, `
UPDATE bridge.sessions SET check_until = @until
WHERE id = @session AND refresh_token IS NOT NULL AND coalesce(checked_at, created_at) <= @before AND (check_until IS NULL OR check_until <= @now)
RETURNING check_until, refresh_token, id_token`,
		pgx.NamedArgs{"session": session, "now": now, "until": now.Add(recheckPause), "before": now.Add(-s.recheck)}).
		Scan(&check.until, &refreshToken, &idToken)
	s.memory.change(sessionMessage(session), now)
	if errors.Is(err, pgx.ErrNoRows) {
		return Check{}, errNoLease
	}
	if err != nil {
		return Check{}, storeError(err)
	}
	check.RefreshToken, err = s.vault.open(session, sealedRefreshToken, refreshToken)
	if err != nil {
		return Check{}, fmt.Errorf("%w: refresh token: %w", errSealed, err)
	}
	last, err := s.vault.open(session, sealedIDToken, idToken)
	if err == nil {
		check.IDToken, err = readIDToken(last.Reveal())
	}
	if err != nil {
		return Check{}, fmt.Errorf("%w: ID token: %w", errSealed, err)
	}
	return check, nil
}

// Confirm ends a check: the provider stands by the login, with these claims. A session that has ended meanwhile stays so.
func (s *Store) Confirm(ctx context.Context, check Check, identity Identity, claims mapping.Claims) error {
	return s.endCheck(ctx, `
WITH confirmed AS (
	UPDATE bridge.sessions SET claims = @claims, checked_at = @now, check_until = NULL, provider_sid = coalesce(@sid, provider_sid),
		refresh_token = coalesce(@refresh_token, refresh_token), id_token = coalesce(@id_token, id_token)
	WHERE id = @session AND check_until = @until
	RETURNING identity_id
)
UPDATE bridge.identities i SET claims = @claims FROM confirmed WHERE i.id = confirmed.identity_id`, check, pgx.NamedArgs{
		"claims": claims, "sid": nullable(identity.SID),
		"refresh_token": s.vault.seal(check.session, sealedRefreshToken, identity.RefreshToken),
		"id_token":      s.vault.seal(check.session, sealedIDToken, identity.IDToken),
	})
}

// KeepRefreshToken writes the new refresh token of an answer that could not be used otherwise. The check runs out by itself: that is the
// pause before the next one.
func (s *Store) KeepRefreshToken(ctx context.Context, check Check, refreshToken Secret) error {
	return s.endCheck(ctx, `UPDATE bridge.sessions SET refresh_token = @refresh_token WHERE id = @session AND check_until = @until`, check,
		pgx.NamedArgs{"refresh_token": s.vault.seal(check.session, sealedRefreshToken, refreshToken)})
}

// EndChecked ends the session, and writes the event of why.
func (s *Store) EndChecked(ctx context.Context, check Check, reason string) error {
	return s.endCheck(ctx, `
WITH ended AS (DELETE FROM bridge.sessions WHERE id = @session AND check_until = @until RETURNING id, user_id, identity_id, provider)
INSERT INTO bridge.events (at, kind, provider, issuer, subject, user_id, session_id, reason)
SELECT @now::timestamptz, 'revoke', ended.provider, i.issuer, i.subject, ended.user_id, ended.id, @reason::text
FROM ended JOIN bridge.identities i ON i.id = ended.identity_id`, check, pgx.NamedArgs{"reason": reason})
}

// endCheck writes what a check led to, if it is still the session's.
func (s *Store) endCheck(ctx context.Context, sql string, check Check, args pgx.NamedArgs) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	args["session"], args["until"], args["now"] = check.session, check.until, s.now()
	_, err := s.pool.Exec(ctx, sql, args)
	s.memory.change(sessionMessage(check.session), s.now())
	return storeError(err)
}
