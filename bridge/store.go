package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unique"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

const queryTimeout = 2 * time.Second // of one call to the store, waiting for a connection included

// A Store is the bridge's part of the database: users, identities, sessions, events. All SQL of requests is in the files store*.go, schema-
// qualified; every method is one round trip. "Not there" is ErrNoSession; every other error is ErrDatabase or what the caller caused.
type Store struct {
	pool        *pgxpool.Pool
	vault       *vault
	hook        string // users.hook or ""
	idle        time.Duration
	recheck     time.Duration
	maxSessions int // of one user; 0: any number
	memory      *sessionMemory
	touches     touches
	pooler      pooler
	now         func() time.Time
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
	Expires     time.Time  // absolute
	Checked     *time.Time // when its provider last confirmed it; nil: it gave no refresh token
	CheckUntil  *time.Time // it is not asked before; nil: it may be
	userRow     int64      // bridge.users.id
	hash        [32]byte   // of its token
}

// Decided is a decision as the database remembers it, to see when it changes.
type Decided struct {
	Role string // "" when refused
	Rule string
	Ref  string // of a refusal
	// Whether the rule looked into the users row, and what it found: "" for null. bridge.pre_request compares it with the row.
	ReadRow bool
	RowRole string
}

// OpenStore connects the pool. The database need not answer yet.
func OpenStore(ctx context.Context, c *Config, now func() time.Time) (*Store, error) {
	vault, err := newVault(c.CookieKeys)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(c.Database.URL.Reveal())
	if err != nil {
		return nil, err
	}
	s := &Store{
		vault: vault, hook: c.Hook, idle: c.Session.Idle, recheck: c.Session.Recheck, maxSessions: c.Session.MaxPerUser, memory: newSessionMemory(), now: now,
		pooler: pooler{known: c.Database.Listen != "auto", between: c.Database.Listen == "off"},
	}
	config.BeforeConnect = func(ctx context.Context, config *pgx.ConnConfig) error {
		between, err := s.pooler.isBetween(ctx, config)
		if between {
			config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		}
		return err
	}
	if config.ConnConfig.ValidateConnect == nil { // what database.url says of target_session_attrs counts instead
		config.ConnConfig.ValidateConnect = requirePrimary
	}
	config.AfterConnect = clearSearchPath
	s.pool, err = pgxpool.NewWithConfig(ctx, config)
	return s, err
}

var errStandby = errors.New("this server is a standby: what it knows of sessions is old, and nobody could log in")

// requirePrimary refuses a standby, which may still have sessions that have ended (DB-06). Of several servers in database.url the next is tried.
func requirePrimary(ctx context.Context, conn *pgconn.PgConn) error {
	results, err := conn.Exec(ctx, "SELECT pg_catalog.pg_is_in_recovery()").ReadAll()
	if err == nil && string(results[0].Rows[0][0]) != "f" {
		return errStandby
	}
	return err
}

// connectDatabase makes a connection for one command of an operator. It prepares no statements, so that a pooler may stand in between. A
// standby is good enough for commands that only read.
func connectDatabase(ctx context.Context, url Secret, reads bool) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url.Reveal())
	if err != nil {
		return nil, err
	}
	if !reads && config.ValidateConnect == nil {
		config.ValidateConnect = requirePrimary
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := clearSearchPath(ctx, conn); err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	return conn, nil
}

// clearSearchPath: nothing of ours is found by search_path, and nothing that somebody created in `public` either (DB-03).
func clearSearchPath(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('search_path', '', false)")
	return err
}

// A pooler such as PgBouncer hands one connection from client to client: then neither LISTEN nor prepared statements can be relied on.
type pooler struct {
	mu             sync.Mutex
	known, between bool
}

// isBetween reports whether a pooler stands between us and the database. It looks once, over a connection of its own.
func (p *pooler) isBetween(ctx context.Context, config *pgx.ConnConfig) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known {
		return p.between, nil
	}
	probe := config.Copy()
	probe.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	conn, err := pgx.ConnectConfig(ctx, probe)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var backend uint32
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_backend_pid()").Scan(&backend); err != nil {
		return false, err
	}
	// A pooler makes up the process id that it tells its clients.
	p.known, p.between = true, backend != conn.PgConn().PID()
	return p.between, nil
}

// Close ends the pool, after the calls under way.
func (s *Store) Close() { s.pool.Close() }

// Ping asks the database for a sign of life.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return storeError(s.pool.Ping(ctx))
}

// Session returns the session of the token, from memory where that may answer. ErrNoSession: it never was, has ended, or its user is disabled.
// With users.hook, a session that began before the hook has no user_id of the application and counts as ended: the bridge's own id would be
// somebody else's there.
func (s *Store) Session(ctx context.Context, token SessionToken) (Session, error) {
	hash, now := [32]byte(token.Hash()), s.now()
	if known, found := s.memory.find(hash, now); found {
		return known, nil
	}
	changes := s.memory.changesSoFar()
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	out := Session{hash: hash}
	err := s.pool.QueryRow(ctx, `
SELECT s.id::text, coalesce(u.app_user_id, u.id::text), u.id, s.provider, i.issuer, i.subject, s.claims, coalesce(u.role, ''),
	coalesce(s.role, ''), coalesce(s.rule, ''), coalesce(s.ref, ''), s.row_role IS NOT NULL, coalesce(s.row_role, ''), s.last_seen_at, s.idle_expires_at, s.expires_at,
	CASE WHEN s.refresh_token IS NOT NULL THEN coalesce(s.checked_at, s.created_at) END, s.check_until
FROM bridge.sessions s JOIN bridge.users u ON u.id = s.user_id JOIN bridge.identities i ON i.id = s.identity_id
WHERE s.token_hash = $1 AND s.expires_at > $2 AND s.idle_expires_at > $2 AND u.disabled_at IS NULL
	AND (u.app_user_id IS NOT NULL OR NOT $3)`, hash[:], now, s.hook != "").Scan(
		&out.ID, &out.UserID, &out.userRow, &out.Provider, &out.Issuer, &out.Subject, &out.Claims, &out.Row.Role,
		&out.Decided.Role, &out.Decided.Rule, &out.Decided.Ref, &out.Decided.ReadRow, &out.Decided.RowRole, &out.LastSeen, &out.IdleExpires, &out.Expires, &out.Checked, &out.CheckUntil)
	if errors.Is(err, pgx.ErrNoRows) {
		return Session{}, ErrNoSession
	}
	if err != nil {
		return Session{}, storeError(err)
	}
	out.Row.Known = true
	for _, text := range []*string{&out.Provider, &out.Issuer, &out.Decided.Role, &out.Decided.Rule} {
		*text = unique.Make(*text).Value() // most sessions say the same: memory holds it once
	}
	s.memory.remember(out, now, changes)
	return out, nil
}

// Redecide records that the session's decision has changed, and the event of it: why, and from which claims that the rules read.
func (s *Store) Redecide(ctx context.Context, session Session, decided Decided, reason string, read map[string]any, rulesHash string) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	_, err := s.pool.Exec(ctx, `
WITH changed AS (
	UPDATE bridge.sessions SET role = @role::text, rule = @rule::text, ref = @ref::text, row_role = CASE WHEN @row_read::boolean THEN @row_role::text END
	WHERE id = @id::uuid AND (role, rule) IS NOT DISTINCT FROM (@old_role::text, @old_rule::text)
	RETURNING id
)
INSERT INTO bridge.events (at, kind, ref, provider, issuer, subject, user_id, session_id, role, rule, rules_hash, reason, claims)
SELECT @now::timestamptz, 'decision', @ref::text, @provider::text, @issuer::text, @subject::text, @user_id::bigint, changed.id,
	@role::text, @rule::text, @rules_hash::text, @reason::text, @claims::jsonb
FROM changed WHERE (@role::text, @rule::text) IS DISTINCT FROM (@old_role::text, @old_rule::text)`,
		pgx.NamedArgs{
			"id": session.ID, "role": nullable(decided.Role), "rule": nullable(decided.Rule), "ref": nullable(decided.Ref),
			"old_role": nullable(session.Decided.Role), "old_rule": nullable(session.Decided.Rule),
			"now": s.now(), "provider": session.Provider, "issuer": session.Issuer, "subject": session.Subject, "user_id": session.userRow,
			"rules_hash": rulesHash, "reason": reason, "claims": read, "row_read": decided.ReadRow, "row_role": decided.RowRole,
		})
	s.memory.change(sessionMessage(session.ID), s.now())
	return storeError(err)
}

// transaction runs the batch as one transaction in one round trip, and gives what its last statement answers to last.
func (s *Store) transaction(ctx context.Context, batch *pgx.Batch, last func(pgx.BatchResults) error) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	results := s.pool.SendBatch(ctx, batch)
	defer results.Close()
	for range batch.Len() - 1 {
		if _, err := results.Exec(); err != nil {
			return err
		}
	}
	if err := last(results); err != nil {
		return err
	}
	return results.Close() // the commit
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
