-- A users table of your own, plugged into the bridge. In config.yaml:
--
--     users: { hook: public.bridge_user }
--
-- and in the rules file, to give people the role of their row:
--
--     role: { from: users, allow: [customer, admin], default: customer }
--
-- The token's `user_id` is then users.id, so orders reference public.users (id) and not bridge.users (id).
--
-- Run it after `oidc-bridge migrate`, as a superuser, or as the table's owner after the owner of schema bridge has granted them
-- EXECUTE ON FUNCTION bridge.set_role(text, text), bridge.disable(text):
--
--     psql --single-transaction -v ON_ERROR_STOP=1 -f users-hook.sql "$DATABASE_OWNER_URL"
--
-- It can be run again.

-- You have the table already; this is what the rest of the file expects of it. email is an attribute: not unique, never a key. Whoever
-- gets an address, a new employee or an attacker at a careless provider, must not get the row of the person who had it before.
CREATE TABLE IF NOT EXISTS public.users (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text
);
ALTER TABLE public.users ADD COLUMN IF NOT EXISTS role text NOT NULL DEFAULT 'customer';
ALTER TABLE public.users ADD COLUMN IF NOT EXISTS active boolean NOT NULL DEFAULT true;

-- Who logs in as this row. Both null: nobody has yet. To give an existing row to a person, set both before the first login; the bridge's
-- log and bridge.events tell them. Compared byte by byte, as OpenID Connect demands.
ALTER TABLE public.users ADD COLUMN IF NOT EXISTS issuer text COLLATE "C";
ALTER TABLE public.users ADD COLUMN IF NOT EXISTS subject text COLLATE "C";
CREATE UNIQUE INDEX IF NOT EXISTS users_issuer_subject_key ON public.users (issuer, subject);

-- The hook: finds or creates the row of a verified identity. The bridge calls it at each login that the rules let in, in the login's own
-- transaction, with
--     {"issuer", "subject", "provider", "email", "name", "claims", "role"}     email, name: null when the rules do not map them
-- and takes from its row
--     user_id    the token's user_id
--     role       copied to bridge.users.role; null leaves that alone
--     refuse     shown to the person, who is not logged in; null: welcome
--
-- One statement, so that simultaneous first logins make one row. The bridge's search_path is empty, so all names are qualified.
-- SECURITY DEFINER: the bridge may call this function, and cannot touch the table otherwise.
CREATE OR REPLACE FUNCTION public.bridge_user(identity jsonb) RETURNS TABLE (user_id text, role text, refuse text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = ''
BEGIN ATOMIC
    INSERT INTO public.users AS u (issuer, subject, email)
    VALUES (identity ->> 'issuer', identity ->> 'subject', identity ->> 'email')
    ON CONFLICT (issuer, subject) DO UPDATE SET email = coalesce(excluded.email, u.email)
    RETURNING u.id::text, u.role, CASE WHEN NOT u.active THEN 'Your account is closed.' END;
END;

-- Triggers: a change in the table reaches people who are logged in, with their next token at the latest. Without them it would wait for
-- the next login. SECURITY DEFINER: whoever may change the row need not be allowed to call the bridge's functions.
CREATE OR REPLACE FUNCTION public.tell_bridge() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM bridge.disable(OLD.id::text);
        RETURN NULL;
    END IF;
    IF NEW.role <> OLD.role THEN
        PERFORM bridge.set_role(NEW.id::text, NEW.role);
    END IF;
    -- For good: active = true later does not undo it, an operator of the bridge has to.
    IF OLD.active AND NOT NEW.active THEN
        PERFORM bridge.disable(NEW.id::text);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER users_tell_bridge AFTER UPDATE OF role, active OR DELETE ON public.users
    FOR EACH ROW EXECUTE FUNCTION public.tell_bridge();

-- For the role of database.url, and nobody else: PostgREST would offer a function in a schema that it serves to everybody who may call it.
REVOKE ALL ON FUNCTION public.bridge_user(jsonb), public.tell_bridge() FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO bridge_runtime;
GRANT EXECUTE ON FUNCTION public.bridge_user(jsonb) TO bridge_runtime;
