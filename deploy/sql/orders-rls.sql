-- orders.sql with row level security, to run in its place: the same names, the same answers.
--
-- Run it after `oidc-bridge migrate`, as a superuser or as the owner of schema bridge with CREATEROLE:
--
--     psql --single-transaction -v ON_ERROR_STOP=1 -f orders-rls.sql "$DATABASE_OWNER_URL"
--
-- It can be run again, also on a database that has orders.sql.
--
-- Which of the two? Here the table itself knows who may see what: every further view and function over it obeys too, and PostgreSQL uses
-- the index on user_id. In orders.sql the roles need no right on the table, and the rule can be read in one place.

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

-- One policy for each role, so that the planner sees a plain comparison and uses the index. A role without a policy sees nothing.
-- (SELECT …): once for the query, not for every row.
ALTER TABLE private.orders ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS customers_see_their_own ON private.orders;
CREATE POLICY customers_see_their_own ON private.orders FOR SELECT TO customer
    USING (user_id = (SELECT bridge.current_user_id()));
DROP POLICY IF EXISTS admins_see_all ON private.orders;
CREATE POLICY admins_see_all ON private.orders FOR SELECT TO admin
    USING (true);

CREATE SCHEMA IF NOT EXISTS api;

-- security_invoker: the view reads with the rights of whoever asks. Without it it reads as its owner, whom policies do not bind, and shows
-- everything to everybody.
CREATE OR REPLACE VIEW api.orders WITH (security_invoker) AS
    SELECT id, user_id, item, price, status, created_at
    FROM private.orders;

-- Therefore the roles need a right on the table as well, for reading alone. PostgREST still does not serve this schema.
GRANT USAGE ON SCHEMA private TO customer, admin;
GRANT SELECT ON private.orders TO customer, admin;
-- anonymous may look up names in the schema and nothing more: a visitor's GET /orders is a 401, not an empty list.
GRANT USAGE ON SCHEMA api TO anonymous, customer, admin;
GRANT SELECT ON api.orders TO customer, admin;

-- For bridge.pre_request, PostgREST's db-pre-request: this role is what somebody without a token has.
UPDATE bridge.settings SET anonymous_role = 'anonymous';
