package bridge

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

// A SignIn is a verified identity that the rules let in.
type SignIn struct {
	StateHash []byte // SHA-256 of the login's state: used once
	Provider  string
	Identity  Identity
	Claims    mapping.Claims
	Columns   mapping.Columns
	Decision  mapping.Decision
	RulesHash string
	Ref       string // for the event, should the row or the hook refuse
	Token     SessionToken
	Replaces  []byte    // hash of the session this browser had, or nil
	UserAgent string    // as the browser sent it
	Expires   time.Time // absolute end
}

// SignedIn is what became of a SignIn.
type SignedIn struct {
	Refused   string // why there is no session; "" when there is one
	Disabled  bool   // that is why
	LoggedOut bool   // that is why: the provider ended this login before it was finished
	Message   string // what users.hook says to the person, if it is why
}

const (
	// First logins of one identity take turns, so that they make one users row between them; a login and the provider's logout of it take
	// turns, too, by whichever of subject and sid that names. The locks are taken in a statement of their own: the next one then sees what
	// the holder before us committed.
	lockIdentity = `SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1::text || ' ' || $2::text, 0)),
	pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1::text || ' ' || $3::text, 1))`

	// Violating the primary key ends the transaction: a state is used once, on any number of replicas.
	useState = `INSERT INTO bridge.replay_guard (hash, expires_at) VALUES ($1, $2)`

	// The hook's answer reaches the next statement through a setting that ends with the transaction. The hook runs in a statement of its
	// own, because a trigger of the application may write the users row that the next one writes.
	callHook = `SELECT pg_catalog.set_config('bridge.hook', coalesce((SELECT pg_catalog.to_jsonb(h) FROM %s($1::jsonb) h LIMIT 1), '{}')::text, true)`

	// One statement writes everything. A disabled user, a refusal of the hook, or a role in the row that the rule does not allow leave no
	// session, whatever the caller makes of the answer.
	signIn = `
WITH hook AS (
	SELECT a ->> 'user_id' AS user_id, a ->> 'role' AS role, CASE
		WHEN a ->> 'refuse' IS NOT NULL THEN 'refused by users.hook'
		WHEN @hooked::boolean AND a ->> 'user_id' IS NULL THEN 'users.hook gave no user_id'
	END AS problem, a ->> 'refuse' AS message
	FROM (SELECT coalesce(nullif(pg_catalog.current_setting('bridge.hook', true), ''), '{}')::jsonb AS a) x
), known AS (
	SELECT i.user_id FROM bridge.identities i WHERE i.issuer = @issuer::text AND i.subject = @subject::text
), created AS (
	INSERT INTO bridge.users (app_user_id, role, email, name, last_login_at)
	SELECT hook.user_id, hook.role, @email::text, @name::text, @now::timestamptz
	FROM hook WHERE hook.problem IS NULL AND NOT EXISTS (SELECT FROM known)
	RETURNING id, app_user_id, role, disabled_at
), updated AS (
	UPDATE bridge.users u SET
		app_user_id = coalesce(hook.user_id, u.app_user_id),
		role = coalesce(hook.role, u.role),
		email = CASE WHEN @write_email::boolean THEN @email::text ELSE u.email END,
		name = CASE WHEN @write_name::boolean THEN @name::text ELSE u.name END,
		last_login_at = @now::timestamptz
	FROM known, hook WHERE u.id = known.user_id AND u.disabled_at IS NULL AND hook.problem IS NULL
	RETURNING u.id, u.app_user_id, u.role
), person AS (
	SELECT id, app_user_id, role, disabled_at FROM created
	UNION ALL SELECT id, app_user_id, role, NULL FROM updated
	UNION ALL SELECT u.id, u.app_user_id, u.role, u.disabled_at FROM known JOIN bridge.users u ON u.id = known.user_id
		WHERE NOT EXISTS (SELECT FROM updated)
), logged_out AS (
	SELECT EXISTS (SELECT FROM bridge.provider_logouts l WHERE l.issuer = @issuer::text AND l.sid = @sid::text)
		OR EXISTS (SELECT FROM bridge.provider_logouts l WHERE l.issuer = @issuer::text AND l.subject = @subject::text
			AND (l.sid IS NULL OR @sid::text IS NULL) AND l.issued_at >= @issued_at::timestamptz) AS yes
), allowed AS (
	SELECT person.id, coalesce(@role::text, person.role, @row_default::text) AS role,
		CASE WHEN @from_row::boolean THEN coalesce(person.role, '') END AS row_role
	FROM person, hook, logged_out WHERE person.disabled_at IS NULL AND hook.problem IS NULL AND NOT logged_out.yes
		AND (@row_roles::text[] IS NULL OR person.role IS NULL OR person.role = ANY (@row_roles::text[]))
), identity AS (
	INSERT INTO bridge.identities AS i (issuer, subject, user_id, provider, claims, last_login_at)
	SELECT @issuer::text, @subject::text, person.id, @provider::text, @claims::jsonb, @now::timestamptz FROM person, hook WHERE person.disabled_at IS NULL AND hook.problem IS NULL
	ON CONFLICT (issuer, subject) DO UPDATE
		SET provider = excluded.provider, claims = excluded.claims, last_login_at = excluded.last_login_at
	RETURNING i.id
), outcome AS (
	SELECT CASE WHEN hook.problem IS NOT NULL THEN hook.problem
		WHEN person.disabled_at IS NOT NULL THEN 'user is disabled'
		WHEN logged_out.yes THEN 'logged out at the provider meanwhile'
		WHEN allowed.id IS NULL THEN 'the rule does not allow the role in the users row' END AS reason
	FROM hook CROSS JOIN logged_out LEFT JOIN person ON true LEFT JOIN allowed ON true
), replaced AS (
	DELETE FROM bridge.sessions s WHERE s.token_hash = @replaces::bytea AND EXISTS (SELECT FROM allowed)
), crowded_out AS (
	DELETE FROM bridge.sessions s WHERE s.id = ANY (ARRAY(
		SELECT o.id FROM bridge.sessions o, allowed
		WHERE @max_sessions::integer > 0 AND o.user_id = allowed.id AND o.token_hash IS DISTINCT FROM @replaces::bytea
			AND o.expires_at > @now::timestamptz AND o.idle_expires_at > @now::timestamptz
		ORDER BY o.created_at DESC, o.id OFFSET greatest(@max_sessions::integer - 1, 0)))
	RETURNING s.id, s.user_id, s.provider
), session AS (
	INSERT INTO bridge.sessions (id, token_hash, user_id, identity_id, provider, provider_sid, claims, role, rule, row_role, user_agent,
		id_token, refresh_token, created_at, last_seen_at, idle_expires_at, expires_at)
	SELECT @session_id::uuid, @token_hash::bytea, allowed.id, identity.id, @provider::text, @sid::text, @claims::jsonb, allowed.role, @rule::text,
		allowed.row_role, @user_agent::text, @id_token::bytea, @refresh_token::bytea,
		@now::timestamptz, @now::timestamptz, @idle_expires::timestamptz, @expires::timestamptz
	FROM allowed, identity
	RETURNING user_id
), crowded_events AS (
	INSERT INTO bridge.events (at, kind, provider, user_id, session_id, reason)
	SELECT @now::timestamptz, 'revoke', crowded_out.provider, crowded_out.user_id, crowded_out.id,
		'more sessions than session.max_per_user (' || @max_sessions::integer || ')' FROM crowded_out
), recycled AS (
	INSERT INTO bridge.events (at, kind, provider, issuer, subject, user_id, reason)
	SELECT @now::timestamptz, 'email_seen_with_new_subject', @provider::text, @issuer::text, @subject::text, created.id,
		'another user has this e-mail: ' || (SELECT pg_catalog.string_agg(u.id::text, ', ') FROM (
			SELECT u.id FROM bridge.users u WHERE u.email = @email::text ORDER BY u.id LIMIT 10) u)
	FROM created WHERE EXISTS (SELECT FROM bridge.users u WHERE u.email = @email::text)
), event AS (
	INSERT INTO bridge.events (at, kind, ref, provider, issuer, subject, user_id, session_id, role, rule, rules_hash, reason, claims)
	SELECT @now::timestamptz, CASE WHEN allowed.id IS NULL THEN 'refused' ELSE 'login' END, CASE WHEN allowed.id IS NULL THEN @ref::text END,
		@provider::text, @issuer::text, @subject::text, person.id, CASE WHEN allowed.id IS NOT NULL THEN @session_id::uuid END,
		allowed.role, @rule::text, @rules_hash::text,
		outcome.reason, @read_claims::jsonb
	FROM outcome LEFT JOIN person ON true LEFT JOIN allowed ON true
)
SELECT person.disabled_at IS NOT NULL, logged_out.yes, coalesce(hook.message, ''), coalesce(outcome.reason, '')
FROM hook CROSS JOIN outcome CROSS JOIN logged_out LEFT JOIN person ON true`
)

// SignIn writes the user, identity, session, replay guard and event of a login: one transaction in one round trip, all of it or nothing.
// ErrReplayed means that the login's state was used before.
func (s *Store) SignIn(ctx context.Context, in SignIn) (SignedIn, error) {
	now, session := s.now(), newUUID()
	rowRoles, rowDefault := in.Decision.RowRoles()
	role, _ := in.Decision.Role()
	batch := &pgx.Batch{}
	batch.Queue(lockIdentity, in.Identity.Issuer, in.Identity.Subject, nullable(in.Identity.SID))
	batch.Queue(useState, in.StateHash, now.Add(loginLife+clockSkew))
	if s.hook != "" {
		identity, err := json.Marshal(map[string]any{
			"issuer": in.Identity.Issuer, "subject": in.Identity.Subject, "provider": in.Provider,
			"email": optional(in.Columns.Email), "name": optional(in.Columns.Name), "claims": in.Claims, "role": role,
		})
		if err != nil {
			return SignedIn{}, err
		}
		// The name was checked by LoadConfig; PostgreSQL has no parameter for one.
		batch.Queue(fmt.Sprintf(callHook, s.hook), string(identity))
	}
	batch.Queue(signIn, pgx.NamedArgs{
		"issuer": in.Identity.Issuer, "subject": in.Identity.Subject, "sid": nullable(in.Identity.SID), "provider": in.Provider,
		"claims": in.Claims, "read_claims": in.Decision.ReadClaims(), "rules_hash": in.RulesHash, "ref": in.Ref,
		"hooked": s.hook != "", "email": optional(in.Columns.Email), "write_email": in.Columns.Email.Present && !in.Columns.Email.OnCreateOnly,
		"name": optional(in.Columns.Name), "write_name": in.Columns.Name.Present && !in.Columns.Name.OnCreateOnly,
		"role": nullable(role), "rule": in.Decision.Rule(), "row_roles": rowRoles, "row_default": nullable(rowDefault),
		"session_id": session, "token_hash": in.Token.Hash(), "replaces": in.Replaces, "max_sessions": s.maxSessions,
		"from_row": in.Decision.FromUsersRow(), "issued_at": in.Identity.IssuedAt, "user_agent": nullable(legible(in.UserAgent)),
		"id_token":      s.vault.seal(session, sealedIDToken, in.Identity.IDToken),
		"refresh_token": s.vault.seal(session, sealedRefreshToken, in.Identity.RefreshToken),
		"now":           now, "idle_expires": now.Add(s.idle), "expires": in.Expires,
	})
	var out SignedIn
	err := s.transaction(ctx, batch, func(last pgx.BatchResults) error {
		return last.QueryRow().Scan(&out.Disabled, &out.LoggedOut, &out.Message, &out.Refused)
	})
	if err != nil {
		return SignedIn{}, signInError(err)
	}
	if in.Replaces != nil {
		s.memory.forget(in.Replaces)
	}
	return out, nil
}

func signInError(err error) error {
	var failed *pgconn.PgError
	if errors.As(err, &failed) && failed.ConstraintName == "replay_guard_pkey" {
		return ErrReplayed
	}
	return storeError(err)
}

// A Refusal is a verified identity that the rules refuse at login.
type Refusal struct {
	Ref       string
	Provider  string
	Identity  Identity
	Decision  mapping.Decision
	Reason    string
	RulesHash string
}

// Refuse records the refusal. Nothing else is written.
func (s *Store) Refuse(ctx context.Context, in Refusal) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	_, err := s.pool.Exec(ctx, `
INSERT INTO bridge.events (at, kind, ref, provider, issuer, subject, user_id, rule, rules_hash, reason, claims)
VALUES (@now, 'refused', @ref, @provider, @issuer::text, @subject::text,
	(SELECT i.user_id FROM bridge.identities i WHERE i.issuer = @issuer::text AND i.subject = @subject::text),
	@rule, @rules_hash, @reason, @claims)`,
		pgx.NamedArgs{
			"now": s.now(), "ref": in.Ref, "provider": in.Provider, "issuer": in.Identity.Issuer, "subject": in.Identity.Subject,
			"rule": nullable(in.Decision.Rule()), "rules_hash": in.RulesHash, "reason": in.Reason, "claims": in.Decision.ReadClaims(),
		})
	return storeError(err)
}

// newUUID makes a session's public id (RFC 9562 section 5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// legible is what of a header can be stored and shown: 200 bytes of text, and no control characters.
func legible(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), 200)], "")
}
