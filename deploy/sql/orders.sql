-- The database of the example: people see their own orders, administrators see all of them.
--
-- Run it after `oidc-bridge migrate`, as a superuser or as the owner of schema bridge with CREATEROLE:
--
--     psql --single-transaction -v ON_ERROR_STOP=1 -f orders.sql "$DATABASE_OWNER_URL"
--
-- It can be run again. orders-rls.sql is the alternative with row level security.

-- Roles belong to the whole cluster, so another database may have made them already. Nobody logs in as anonymous, customer or admin:
-- PostgREST logs in as authenticator and takes on the one that the token names. NOINHERIT: until then it may do nothing at all.
-- Give it a password with: \password authenticator
DO $$
DECLARE
    existing name[] := ARRAY(SELECT rolname FROM pg_roles);
BEGIN
    IF 'authenticator' <> ALL (existing) THEN CREATE ROLE authenticator LOGIN NOINHERIT; END IF;
    IF 'anonymous' <> ALL (existing) THEN CREATE ROLE anonymous NOLOGIN; END IF;
    IF 'customer' <> ALL (existing) THEN CREATE ROLE customer NOLOGIN; END IF;
    IF 'admin' <> ALL (existing) THEN CREATE ROLE admin NOLOGIN; END IF;
END $$;
GRANT customer, admin, anonymous TO authenticator;

-- The tables. PostgREST does not serve this schema, and no role of a token is granted anything in it: the view below is the only way in.
CREATE SCHEMA IF NOT EXISTS private;

CREATE TABLE IF NOT EXISTS private.orders (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id    bigint NOT NULL REFERENCES bridge.users (id),
    item       text NOT NULL,
    price      numeric(10, 2) NOT NULL CHECK (price >= 0),
    status     text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'shipped', 'delivered')),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS orders_user_id_idx ON private.orders (user_id);

-- `user_id` of the token as a number, null without a token. The bridge has it ready; only the name is ours.
-- STABLE with a RETURN body: PostgreSQL puts the expression in place of the call. A function with SET search_path would be called instead.
CREATE OR REPLACE FUNCTION private.current_user_id() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN bridge.current_user_id();

-- What PostgREST serves (db-schemas = "api").
CREATE SCHEMA IF NOT EXISTS api;

-- The view reads private.orders with its owner's rights, so its WHERE is all that stands between people.
--   security_barrier   evaluates that WHERE first. Without it the planner may call a cheap function of the query on every row before it,
--                      and a function that reports its arguments, in an error for example, tells other people's orders.
--   current_user       is the role that PostgREST took from the token; a view does not change it.
--   (SELECT …)         is evaluated once for the query. Without SELECT the token's JSON is parsed for every row, ten times slower.
-- No token, or a token without user_id: null equals nothing, so there are no rows.
-- For many orders take orders-rls.sql: this OR keeps PostgreSQL from using the index, a policy for each role does not.
CREATE OR REPLACE VIEW api.orders WITH (security_barrier) AS
    SELECT id, user_id, item, price, status, created_at
    FROM private.orders
    WHERE current_user = 'admin' OR user_id = (SELECT private.current_user_id());

-- anonymous may look up names in the schema and nothing more: a visitor's GET /orders is a 401, not an empty list.
GRANT USAGE ON SCHEMA api TO anonymous, customer, admin;
GRANT SELECT ON api.orders TO customer, admin;

-- For bridge.pre_request, PostgREST's db-pre-request: this role is what somebody without a token has.
UPDATE bridge.settings SET anonymous_role = 'anonymous';
