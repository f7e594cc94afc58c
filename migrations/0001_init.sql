-- +goose Up

-- A person. Applications may reference bridge.users (id).
CREATE TABLE bridge.users (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app_user_id   text,          -- the id in the organisation's own users table, from users.hook; null: id is the token's user_id
    role          text,          -- read only by rules that say `role: { from: users }`; login itself never writes it
    email         text,          -- an attribute, never a key
    name          text,
    disabled_at   timestamptz,   -- absolute: no login clears it
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    last_login_at timestamptz
);
CREATE INDEX users_app_user_id_idx ON bridge.users (app_user_id) WHERE app_user_id IS NOT NULL;
CREATE INDEX users_email_idx ON bridge.users (email) WHERE email IS NOT NULL;

-- Who a provider says somebody is. The key is (issuer, subject), compared byte by byte (OpenID Connect Core 5.7).
CREATE TABLE bridge.identities (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    issuer        text COLLATE "C" NOT NULL,
    subject       text COLLATE "C" NOT NULL,
    user_id       bigint NOT NULL REFERENCES bridge.users (id) ON DELETE CASCADE,
    provider      text NOT NULL, -- name of the connection in config.yaml at the last login
    claims        jsonb NOT NULL, -- captured at the last login
    created_at    timestamptz NOT NULL DEFAULT now(),
    last_login_at timestamptz NOT NULL,
    UNIQUE (issuer, subject)
);
CREATE INDEX identities_user_id_idx ON bridge.identities (user_id);

CREATE TABLE bridge.sessions (
    id              uuid PRIMARY KEY,           -- public: the `sid` of access tokens; neither the cookie nor its hash
    token_hash      bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32), -- SHA-256 of the cookie's random part
    user_id         bigint NOT NULL REFERENCES bridge.users (id) ON DELETE CASCADE,
    identity_id     bigint NOT NULL REFERENCES bridge.identities (id) ON DELETE CASCADE,
    provider        text NOT NULL,
    provider_sid    text COLLATE "C",           -- the provider's `sid`, for logout
    claims          jsonb NOT NULL,             -- source expression -> raw value; null: absent at login; no key: not captured
    role            text,                       -- the last decision; null: refused
    rule            text,
    ref             text,                       -- reference code of the last refusal
    created_at      timestamptz NOT NULL,
    last_seen_at    timestamptz NOT NULL,
    idle_expires_at timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL        -- absolute end
);
CREATE INDEX sessions_user_id_idx ON bridge.sessions (user_id);
CREATE INDEX sessions_identity_id_idx ON bridge.sessions (identity_id);
CREATE INDEX sessions_expires_at_idx ON bridge.sessions (expires_at);

-- What happened to verified identities, and why. No foreign keys: it outlives what it speaks of.
CREATE TABLE bridge.events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    kind       text NOT NULL,   -- login, refused, decision, logout, set_role, disable
    ref        text,            -- the code that the person was shown
    provider   text,
    issuer     text COLLATE "C",
    subject    text COLLATE "C",
    user_id    bigint,
    session_id uuid,
    role       text,
    rule       text,
    rules_hash text,
    reason     text,
    claims     jsonb            -- the claims that the rules read
);
CREATE INDEX events_ref_idx ON bridge.events (ref) WHERE ref IS NOT NULL;
CREATE INDEX events_at_idx ON bridge.events USING brin (at);

-- One row per login state that was used, until it would have expired anyway.
CREATE TABLE bridge.replay_guard (
    hash       bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    expires_at timestamptz NOT NULL
);
CREATE INDEX replay_guard_expires_at_idx ON bridge.replay_guard (expires_at);

-- For API authors. STABLE with RETURN bodies and nothing that stops inlining: PostgreSQL puts the expression in place of the call.
-- The setting is '' after a commit in the same connection, hence nullif.
CREATE FUNCTION bridge.current_claims() RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('request.jwt.claims', true), '')::jsonb;
COMMENT ON FUNCTION bridge.current_claims() IS 'claims of the access token of this request; null without one';

CREATE FUNCTION bridge.user_id() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'user_id';
COMMENT ON FUNCTION bridge.user_id() IS 'user_id of the access token of this request; null without one';

CREATE FUNCTION bridge.current_user_id() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'user_id')::bigint;
COMMENT ON FUNCTION bridge.current_user_id() IS 'user_id as a number, for bridge.users (id) and own tables with numeric ids; in policies and views write (SELECT bridge.current_user_id())';

-- Whose token says this user_id. As soon as one user has an id of the application (users.hook), ids of the bridge count for nothing: 7 of
-- the one is not 7 of the other.
-- +goose StatementBegin
CREATE FUNCTION bridge.token_user(user_id text) RETURNS TABLE (id bigint) LANGUAGE sql STABLE SET search_path = ''
BEGIN ATOMIC
    SELECT u.id FROM bridge.users u WHERE u.app_user_id = token_user.user_id
    UNION ALL
    SELECT u.id FROM bridge.users u WHERE u.id = CASE WHEN token_user.user_id ~ '^[0-9]{1,18}$' THEN token_user.user_id::bigint END
        AND NOT EXISTS (SELECT FROM bridge.users a WHERE a.app_user_id IS NOT NULL);
END;
-- +goose StatementEnd

-- For triggers on an own users table. The id is the token's user_id.
-- +goose StatementBegin
CREATE FUNCTION bridge.set_role(user_id text, role text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = ''
BEGIN ATOMIC
    WITH changed AS (
        UPDATE bridge.users u SET role = set_role.role, updated_at = now()
        WHERE u.id IN (SELECT t.id FROM bridge.token_user(set_role.user_id) t)
          AND u.role IS DISTINCT FROM set_role.role
        RETURNING u.id
    )
    INSERT INTO bridge.events (kind, user_id, role, reason)
    SELECT 'set_role', changed.id, set_role.role, 'bridge.set_role by ' || session_user FROM changed;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION bridge.set_role(text, text) IS 'sets bridge.users.role; null takes it away';

-- +goose StatementBegin
CREATE FUNCTION bridge.disable(user_id text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = ''
BEGIN ATOMIC
    WITH changed AS (
        UPDATE bridge.users u SET disabled_at = now(), updated_at = now()
        WHERE u.id IN (SELECT t.id FROM bridge.token_user(disable.user_id) t)
          AND u.disabled_at IS NULL
        RETURNING u.id
    )
    INSERT INTO bridge.events (kind, user_id, reason)
    SELECT 'disable', changed.id, 'bridge.disable by ' || session_user FROM changed;
END;
-- +goose StatementEnd
COMMENT ON FUNCTION bridge.disable(text) IS 'disables the user at once; nothing but an operator enables them again';

REVOKE ALL ON FUNCTION bridge.token_user(text), bridge.set_role(text, text), bridge.disable(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA bridge TO PUBLIC; -- for the three helpers above; no table is granted

-- +goose Down
DROP SCHEMA bridge CASCADE;
