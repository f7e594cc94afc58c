package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

const (
	queryTimeout = 2 * time.Second // of one call to the store, waiting for a connection included
	touchEvery   = time.Minute     // a session's last_seen_at is written at most this often
)

// A Store is the bridge's part of the database: users, identities, sessions, events. All SQL of requests is in this file, schema-
// qualified; every method is one round trip. "Not there" is ErrNoSession; every other error is ErrDatabase or what the caller caused.
type Store struct {
	pool *pgxpool.Pool
	hook string // users.hook or ""
	idle time.Duration
	now  func() time.Time
}

// A Session is a login that has not ended, with the user it belongs to.
type Session struct {
	ID          string // public: the tokens' `sid`
	UserID      string // the tokens' `user_id`
	Provider    string
	Issuer      string
	Subject     string
	Claims      mapping.Claims
	Row         mapping.Row // the role in the users row
	Decided     Decided     // what was decided last time
	LastSeen    time.Time
	IdleExpires time.Time
	Expires     time.Time // absolute
	userRow     int64     // bridge.users.id
}

// Decided is a decision as the database remembers it, to see when it changes.
type Decided struct {
	Role string // "" when refused
	Rule string
	Ref  string // of a refusal
}

// OpenStore connects the pool. The database need not answer yet.
func OpenStore(ctx context.Context, c *Config, now func() time.Time) (*Store, error) {
	config, err := pgxpool.ParseConfig(c.Database.URL.Reveal())
	if err != nil {
		return nil, err
	}
	// Nothing of ours is found by search_path, and nothing that somebody created in `public` either (DB-03).
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('search_path', '', false)")
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return &Store{pool: pool, hook: c.Hook, idle: c.Session.Idle, now: now}, nil
}

// Close ends the pool, after the calls under way.
func (s *Store) Close() { s.pool.Close() }

// Ping asks the database for a sign of life.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return storeError(s.pool.Ping(ctx))
}

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
	Expires   time.Time // absolute end
}

// SignedIn is what became of a SignIn.
type SignedIn struct {
	Refused  string // why there is no session; "" when there is one
	Disabled bool   // that is why
	Message  string // what users.hook says to the person, if it is why
}

const (
	// First logins of one identity take turns, so that they make one users row between them. The lock is taken in a statement of its own:
	// the next one then sees what the holder before us committed.
	lockIdentity = `SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1::text || ' ' || $2::text, 0))`

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
), allowed AS (
	SELECT person.id, coalesce(@role::text, person.role, @row_default::text) AS role
	FROM person, hook WHERE person.disabled_at IS NULL AND hook.problem IS NULL
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
		WHEN allowed.id IS NULL THEN 'the rule does not allow the role in the users row' END AS reason
	FROM hook LEFT JOIN person ON true LEFT JOIN allowed ON true
), new_session AS (
	SELECT pg_catalog.gen_random_uuid() AS id
), replaced AS (
	DELETE FROM bridge.sessions s WHERE s.token_hash = @replaces::bytea AND EXISTS (SELECT FROM allowed)
), session AS (
	INSERT INTO bridge.sessions (id, token_hash, user_id, identity_id, provider, provider_sid, claims, role, rule,
		created_at, last_seen_at, idle_expires_at, expires_at)
	SELECT new_session.id, @token_hash::bytea, allowed.id, identity.id, @provider::text, @sid::text, @claims::jsonb, allowed.role, @rule::text,
		@now::timestamptz, @now::timestamptz, @idle_expires::timestamptz, @expires::timestamptz
	FROM allowed, identity, new_session
	RETURNING user_id
), recycled AS (
	INSERT INTO bridge.events (at, kind, provider, issuer, subject, user_id, reason)
	SELECT @now::timestamptz, 'email_seen_with_new_subject', @provider::text, @issuer::text, @subject::text, created.id,
		'another user has this e-mail: ' || (SELECT pg_catalog.string_agg(u.id::text, ', ') FROM (
			SELECT u.id FROM bridge.users u WHERE u.email = @email::text ORDER BY u.id LIMIT 10) u)
	FROM created WHERE EXISTS (SELECT FROM bridge.users u WHERE u.email = @email::text)
), event AS (
	INSERT INTO bridge.events (at, kind, ref, provider, issuer, subject, user_id, session_id, role, rule, rules_hash, reason, claims)
	SELECT @now::timestamptz, CASE WHEN allowed.id IS NULL THEN 'refused' ELSE 'login' END, CASE WHEN allowed.id IS NULL THEN @ref::text END,
		@provider::text, @issuer::text, @subject::text, person.id, CASE WHEN allowed.id IS NOT NULL THEN new_session.id END,
		allowed.role, @rule::text, @rules_hash::text,
		outcome.reason, @read_claims::jsonb
	FROM outcome CROSS JOIN new_session LEFT JOIN person ON true LEFT JOIN allowed ON true
)
SELECT person.disabled_at IS NOT NULL, coalesce(hook.message, ''), coalesce(outcome.reason, '')
FROM hook CROSS JOIN outcome LEFT JOIN person ON true`
)

// SignIn writes the user, identity, session, replay guard and event of a login: one transaction in one round trip, all of it or nothing.
// ErrReplayed means that the login's state was used before.
func (s *Store) SignIn(ctx context.Context, in SignIn) (SignedIn, error) {
	now := s.now()
	rowRoles, rowDefault := in.Decision.RowRoles()
	role, _ := in.Decision.Role()
	batch := &pgx.Batch{}
	batch.Queue(lockIdentity, in.Identity.Issuer, in.Identity.Subject)
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
		"token_hash": in.Token.Hash(), "replaces": in.Replaces,
		"now": now, "idle_expires": now.Add(s.idle), "expires": in.Expires,
	})
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	results := s.pool.SendBatch(ctx, batch)
	defer results.Close()
	for range batch.Len() - 1 {
		if _, err := results.Exec(); err != nil {
			return SignedIn{}, signInError(err)
		}
	}
	var out SignedIn
	if err := results.QueryRow().Scan(&out.Disabled, &out.Message, &out.Refused); err != nil {
		return SignedIn{}, signInError(err)
	}
	return out, signInError(results.Close())
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

// Session returns the session of the token. ErrNoSession: it never was, has ended, or its user is disabled. With users.hook, a session that
// began before the hook has no user_id of the application and counts as ended: the bridge's own id would be somebody else's there.
func (s *Store) Session(ctx context.Context, token SessionToken) (Session, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var out Session
	err := s.pool.QueryRow(ctx, `
SELECT s.id::text, coalesce(u.app_user_id, u.id::text), u.id, s.provider, i.issuer, i.subject, s.claims, coalesce(u.role, ''),
	coalesce(s.role, ''), coalesce(s.rule, ''), coalesce(s.ref, ''), s.last_seen_at, s.idle_expires_at, s.expires_at
FROM bridge.sessions s JOIN bridge.users u ON u.id = s.user_id JOIN bridge.identities i ON i.id = s.identity_id
WHERE s.token_hash = $1 AND s.expires_at > $2 AND s.idle_expires_at > $2 AND u.disabled_at IS NULL
	AND (u.app_user_id IS NOT NULL OR NOT $3)`, token.Hash(), s.now(), s.hook != "").Scan(
		&out.ID, &out.UserID, &out.userRow, &out.Provider, &out.Issuer, &out.Subject, &out.Claims, &out.Row.Role,
		&out.Decided.Role, &out.Decided.Rule, &out.Decided.Ref, &out.LastSeen, &out.IdleExpires, &out.Expires)
	if errors.Is(err, pgx.ErrNoRows) {
		return Session{}, ErrNoSession
	}
	out.Row.Known = true
	return out, storeError(err)
}

// Touch moves the session's idle end. It writes only when the last time is a minute ago, or a tenth of a shorter idle limit.
func (s *Store) Touch(ctx context.Context, session Session) error {
	now := s.now()
	if now.Sub(session.LastSeen) < min(touchEvery, s.idle/10) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	_, err := s.pool.Exec(ctx, `UPDATE bridge.sessions SET last_seen_at = $2, idle_expires_at = $3 WHERE id = $1 AND last_seen_at < $2`,
		session.ID, now, now.Add(s.idle))
	return storeError(err)
}

// Redecide records that the session's decision has changed, and the event of it: why, and from which claims that the rules read.
func (s *Store) Redecide(ctx context.Context, session Session, decided Decided, reason string, read map[string]any, rulesHash string) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	_, err := s.pool.Exec(ctx, `
WITH changed AS (
	UPDATE bridge.sessions SET role = @role::text, rule = @rule::text, ref = @ref::text
	WHERE id = @id::uuid AND (role, rule) IS NOT DISTINCT FROM (@old_role::text, @old_rule::text)
	RETURNING id
)
INSERT INTO bridge.events (at, kind, ref, provider, issuer, subject, user_id, session_id, role, rule, rules_hash, reason, claims)
SELECT @now::timestamptz, 'decision', @ref::text, @provider::text, @issuer::text, @subject::text, @user_id::bigint, changed.id,
	@role::text, @rule::text, @rules_hash::text, @reason::text, @claims::jsonb FROM changed`,
		pgx.NamedArgs{
			"id": session.ID, "role": nullable(decided.Role), "rule": nullable(decided.Rule), "ref": nullable(decided.Ref),
			"old_role": nullable(session.Decided.Role), "old_rule": nullable(session.Decided.Rule),
			"now": s.now(), "provider": session.Provider, "issuer": session.Issuer, "subject": session.Subject, "user_id": session.userRow,
			"rules_hash": rulesHash, "reason": reason, "claims": read,
		})
	return storeError(err)
}

// EndSession ends the session of the token, if there is one.
func (s *Store) EndSession(ctx context.Context, token SessionToken) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	_, err := s.pool.Exec(ctx, `
WITH ended AS (DELETE FROM bridge.sessions WHERE token_hash = $1 RETURNING id, user_id, identity_id, provider)
INSERT INTO bridge.events (at, kind, provider, issuer, subject, user_id, session_id)
SELECT $2::timestamptz, 'logout', ended.provider, i.issuer, i.subject, ended.user_id, ended.id
FROM ended JOIN bridge.identities i ON i.id = ended.identity_id`, token.Hash(), s.now())
	return storeError(err)
}

func storeError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrDatabase, err)
}

// optional is the column's value, or NULL.
func optional(c mapping.Column) *string {
	if !c.Present {
		return nil
	}
	return &c.Value
}

// nullable is NULL for "".
func nullable(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
