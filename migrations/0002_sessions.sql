-- +goose Up

ALTER TABLE bridge.sessions
    ADD COLUMN row_role      text,        -- users.role as the last decision read it, '' when the row had none; null: it did not read it
    ADD COLUMN user_agent    text,        -- of the browser at the login, for the person who looks at their sessions
    ADD COLUMN id_token      bytea,       -- sealed; for logout at the provider (its id_token_hint)
    ADD COLUMN refresh_token bytea,       -- sealed; null where the provider gives none
    ADD COLUMN checked_at    timestamptz, -- when the provider last confirmed the login by a refresh; null: at the login
    ADD COLUMN check_until   timestamptz; -- a replica is asking the provider, until then at the latest

CREATE INDEX sessions_provider_sid_idx ON bridge.sessions (provider_sid) WHERE provider_sid IS NOT NULL;
DROP INDEX bridge.sessions_expires_at_idx;
CREATE INDEX sessions_ends_at_idx ON bridge.sessions (least(expires_at, idle_expires_at));

-- Logout tokens that providers sent (OpenID Connect Back-Channel Logout 1.0), until they would have expired anyway: one is used once, and a
-- login that was under way when it came does not become a session.
CREATE TABLE bridge.provider_logouts (
    hash       bytea PRIMARY KEY CHECK (octet_length(hash) = 32), -- SHA-256 of issuer and jti
    issuer     text COLLATE "C" NOT NULL,
    sid        text COLLATE "C", -- the provider's session; null: all of the subject
    subject    text COLLATE "C",
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CHECK (sid IS NOT NULL OR subject IS NOT NULL)
);
CREATE INDEX provider_logouts_sid_idx ON bridge.provider_logouts (sid) WHERE sid IS NOT NULL;
CREATE INDEX provider_logouts_subject_idx ON bridge.provider_logouts (subject) WHERE subject IS NOT NULL;
CREATE INDEX provider_logouts_expires_at_idx ON bridge.provider_logouts (expires_at);

-- What an operator decides about PostgREST's side. One row.
CREATE TABLE bridge.settings (
    one                boolean PRIMARY KEY DEFAULT true CHECK (one),
    tokens_without_sid text NOT NULL DEFAULT 'refuse' CHECK (tokens_without_sid IN ('refuse', 'allow')), -- such as those of other services
    anonymous_role     text -- PostgREST's db-anon-role, and `anonymous` in config.yaml; null: whatever role comes without any other claim
);
INSERT INTO bridge.settings DEFAULT VALUES;

-- Replicas answer from memory and LISTEN for what ends that. A message only ever makes them read the database again, and names a session's
-- or user's public id: any role may listen. Housekeeping and the extension of a session that is in use send none.
-- +goose StatementBegin
CREATE FUNCTION bridge.notify_session() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('bridge_sessions', 'session ' || OLD.id);
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION bridge.notify_user() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('bridge_sessions', 'user ' || OLD.id);
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION bridge.notify_identity() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('bridge_sessions', 'user ' || OLD.user_id);
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION bridge.notify_all() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('bridge_sessions', 'all');
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER notify_delete AFTER DELETE ON bridge.sessions FOR EACH ROW
    WHEN (OLD.expires_at > now() AND OLD.idle_expires_at > now())
    EXECUTE FUNCTION bridge.notify_session();
CREATE TRIGGER notify_update AFTER UPDATE ON bridge.sessions FOR EACH ROW
    WHEN (NEW.idle_expires_at < OLD.idle_expires_at
        OR (OLD.id, OLD.token_hash, OLD.user_id, OLD.identity_id, OLD.provider, OLD.claims, OLD.role, OLD.rule, OLD.ref, OLD.expires_at, OLD.checked_at)
        IS DISTINCT FROM (NEW.id, NEW.token_hash, NEW.user_id, NEW.identity_id, NEW.provider, NEW.claims, NEW.role, NEW.rule, NEW.ref, NEW.expires_at, NEW.checked_at))
    EXECUTE FUNCTION bridge.notify_session();
CREATE TRIGGER notify_update AFTER UPDATE ON bridge.users FOR EACH ROW
    WHEN ((OLD.id, OLD.app_user_id, OLD.role, OLD.disabled_at) IS DISTINCT FROM (NEW.id, NEW.app_user_id, NEW.role, NEW.disabled_at))
    EXECUTE FUNCTION bridge.notify_user();
CREATE TRIGGER notify_update AFTER UPDATE ON bridge.identities FOR EACH ROW
    WHEN ((OLD.id, OLD.issuer, OLD.subject, OLD.user_id) IS DISTINCT FROM (NEW.id, NEW.issuer, NEW.subject, NEW.user_id))
    EXECUTE FUNCTION bridge.notify_identity();
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON bridge.sessions FOR EACH STATEMENT EXECUTE FUNCTION bridge.notify_all();
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON bridge.users FOR EACH STATEMENT EXECUTE FUNCTION bridge.notify_all();
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON bridge.identities FOR EACH STATEMENT EXECUTE FUNCTION bridge.notify_all();

-- For PostgREST's db-pre-request: refuses a token whose session has ended, whose user was disabled, or whose role is not the session's any
-- more. It runs as the API role, in a READ ONLY transaction too, and sees the tables as their owner: two look-ups by primary key.
-- The body is read when it runs, so pg_temp stands in the path, last: left out it would come first, and a type of the API role's making there
-- would stand for PostgreSQL's own (CVE-2018-1058).
-- +goose StatementBegin
CREATE FUNCTION bridge.pre_request() RETURNS void LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    token jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
    sid text := token ->> 'sid';
    problem text;
BEGIN
    IF token IS NULL THEN
        problem := 'no claims of a token reached this function: it is for PostgREST 12 and newer';
    ELSIF NOT token ? 'sid' THEN
        -- Without a token PostgREST sets the anonymous role and no other claim; a gateway's token for it names nobody.
        IF NOT EXISTS (SELECT FROM bridge.settings s WHERE s.tokens_without_sid = 'allow' OR NOT token ?| ARRAY['user_id', 'sub']
            AND CASE WHEN s.anonymous_role IS NULL THEN token - 'role' = '{}' ELSE token ->> 'role' = s.anonymous_role END)
        THEN
            problem := 'tokens without a session are not taken here';
        END IF;
    ELSIF sid ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        SELECT CASE
            WHEN u.disabled_at IS NOT NULL THEN 'the account is disabled'
            WHEN coalesce(u.app_user_id, u.id::text) IS DISTINCT FROM token ->> 'user_id' THEN 'this token is of another user'
            WHEN s.role IS DISTINCT FROM token ->> 'role' OR s.row_role <> coalesce(u.role, '') THEN 'the role of this token has changed'
        END
        INTO problem
        FROM bridge.sessions s JOIN bridge.users u ON u.id = s.user_id
        WHERE s.id = sid::uuid AND s.expires_at > now() AND s.idle_expires_at > now();
        IF NOT FOUND THEN
            problem := 'the session of this token has ended';
        END IF;
    ELSE
        problem := 'the session of this token is none of ours';
    END IF;
    IF problem IS NOT NULL THEN
        RAISE SQLSTATE 'PT401' USING MESSAGE = problem, HINT = 'fetch a new token, or log in again';
    END IF;
END $$;
-- +goose StatementEnd
GRANT EXECUTE ON FUNCTION bridge.pre_request() TO PUBLIC; -- also where default privileges were taken away
COMMENT ON FUNCTION bridge.pre_request() IS 'for PostgREST''s db-pre-request: refuses tokens of ended sessions, disabled users and changed roles at once';

-- Housekeeping: removes up to `batch` rows of each table that have ended. Any number of replicas may call it at once: none waits for another.
-- Its own rights, because locking a row takes UPDATE, which the runtime role has not on events.
-- +goose StatementBegin
CREATE FUNCTION bridge.sweep(now timestamptz, events_before timestamptz, batch integer)
    RETURNS TABLE (sessions bigint, replay_guard bigint, provider_logouts bigint, events bigint)
    LANGUAGE sql SECURITY DEFINER SET search_path = ''
BEGIN ATOMIC
    -- ARRAY, so that each list of rows is made once, whatever the plan.
    WITH ended AS (
        DELETE FROM bridge.sessions WHERE id = ANY (ARRAY(
            SELECT s.id FROM bridge.sessions s WHERE least(s.expires_at, s.idle_expires_at) <= sweep.now
            ORDER BY least(s.expires_at, s.idle_expires_at) LIMIT sweep.batch FOR UPDATE SKIP LOCKED))
        RETURNING 1
    ), used AS (
        DELETE FROM bridge.replay_guard WHERE hash = ANY (ARRAY(
            SELECT r.hash FROM bridge.replay_guard r WHERE r.expires_at <= sweep.now
            ORDER BY r.expires_at LIMIT sweep.batch FOR UPDATE SKIP LOCKED))
        RETURNING 1
    ), logged_out AS (
        DELETE FROM bridge.provider_logouts WHERE hash = ANY (ARRAY(
            SELECT l.hash FROM bridge.provider_logouts l WHERE l.expires_at <= sweep.now
            ORDER BY l.expires_at LIMIT sweep.batch FOR UPDATE SKIP LOCKED))
        RETURNING 1
    ), forgotten AS (
        -- The oldest rows have the lowest ids: only the first batch of them is looked at, and no other index is needed.
        DELETE FROM bridge.events WHERE id = ANY (ARRAY(
            SELECT e.id FROM bridge.events e WHERE e.at < sweep.events_before
                AND e.id <= (SELECT max(o.id) FROM (SELECT x.id FROM bridge.events x ORDER BY x.id LIMIT sweep.batch) o)
            ORDER BY e.id FOR UPDATE SKIP LOCKED))
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM ended), (SELECT count(*) FROM used), (SELECT count(*) FROM logged_out), (SELECT count(*) FROM forgotten);
END;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION bridge.sweep(timestamptz, timestamptz, integer) FROM PUBLIC;

-- +goose Down
DROP SCHEMA bridge CASCADE;
