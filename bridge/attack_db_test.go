package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/migrations"
)

// spells are what would do something if a value became part of a statement, a setting, an array, a pattern, a path or a message.
var spells = []string{
	`'; DROP TABLE bridge.users; --`, `' OR '1'='1`, `'||(SELECT pg_sleep(9))||'`, `\'; SELECT 1; --`, `''''`, `\`, `\\`, `\x00`, `E'\''`, `U&'\0027'`, `$1`, `$2`, `$99`, `$$; DROP SCHEMA bridge CASCADE; $$`, `$tag$x$tag$`,
	`@issuer`, `@now::timestamptz`, `:name`, `?`, `%s`, `%d%n`, `{}`, `{"a":1}`, `{a,b,NULL}`, `{"x\",y"}`, `[1,2)`, `NULL`, `null`, `true`, `0`, `-1`, `1e999`, `NaN`, `infinity`, `DEFAULT`, `(SELECT 1)`, `pg_catalog`,
	`"bridge"."users"`, `/* x`, `*/ x`, `-- x`, `;`, `x; SET ROLE postgres`, `RESET ALL`, `COPY x TO PROGRAM 'id'`, `\copy x`, `\gexec`, `/etc/passwd`, `../../x`, `_`, `%`, `a_b`, `é ü ß 漢 🙂`, `İstanbul ıß`, `ﬀ`,
	"a\u0301", `<script>`, `${jndi:ldap://x}`, `{{7*7}}`, `#{7*7}`, "`id`", `$(id)`, `|id`, `&lt;`, `%27`, `%00`, strings.Repeat(`'`, 200), strings.Repeat(`\`, 200), strings.Repeat("$1", 100),
}

// TestAttack_DB01_Injection: whatever a provider or a browser says arrives in the database byte for byte, and is nothing but a value there.
func TestAttack_DB01_Injection(t *testing.T) {
	t.Parallel()
	rules := strings.NewReplacer("    claims:\n", "    claims:\n      unit: {}\n", "token:\n", "token:\n  unit: { from: unit }\n", ", on: create", "").Replace(ordersRules)
	s := newService(t, withRules(rules), withProvider("userinfo: always"))
	tables := func() string {
		return row[string](t, s.DB, "SELECT string_agg(table_name, ',' ORDER BY table_name) FROM information_schema.tables WHERE table_schema = 'bridge'")
	}
	before := tables()
	for _, spell := range spells {
		s.OP.SetPersonas(bridgetest.Persona{
			Subject: spell, Name: "P", IDToken: map[string]any{"email": "carl@example.com", "email_verified": true, "name": spell, "unit": spell, "sid": spell, "groups": []any{spell}},
			UserInfo: map[string]any{"sub": spell, "nickname": spell},
		})
		b, page := s.login(spell, url.QueryEscape("/"+spell))
		if page.URL.Path == "/callback/op" {
			t.Errorf("%q: %s", spell, s.logged(page))
			continue
		}
		stored := row[string](t, s.DB, `SELECT concat_ws(E'\x01', i.subject, u.name, s.provider_sid, s.claims ->> 'unit', i.claims ->> 'unit') FROM bridge.sessions s
			JOIN bridge.identities i ON i.id = s.identity_id JOIN bridge.users u ON u.id = s.user_id ORDER BY s.created_at DESC LIMIT 1`)
		if want := strings.Join([]string{spell, spell, spell, spell, spell}, "\x01"); stored != want {
			t.Errorf("stored as %q, want %q", stored, want)
		}
		_, body := s.token(b)
		if got := claims(t, body["token"]); got["unit"] != spell || got["role"] != s.DB.Role("customer") {
			t.Errorf("%q: token %v", spell, got)
		}
		// What a browser says, where it can say something.
		for _, path := range []string{"/callback/", "/"} {
			request := s.URL + path + url.PathEscape(spell) + "?code=" + url.QueryEscape(spell) + "&state=" + url.QueryEscape(spell) + "&error=" + url.QueryEscape(spell)
			if page, err := b.Open(t.Context(), request); err != nil || page.Status != 404 {
				t.Errorf("%s: %v %v", request, page, err)
			}
		}
	}
	if after := tables(); after != before {
		t.Errorf("tables: %s", after)
	}
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.users"); n != len(spells) {
		t.Errorf("%d users of %d subjects", n, len(spells))
	}
	bridgetest.Tried(t, len(spells))
}

// hostileObjects stand in the way of every name that the bridge or a helper could mean without a schema: functions that answer wrongly and
// keep book, operators, tables. Whoever may create objects in a schema on somebody's search_path can do this (CVE-2018-1058).
const hostileObjects = `
CREATE SCHEMA trap;
GRANT USAGE, CREATE ON SCHEMA trap, public TO PUBLIC;
CREATE TABLE trap.visits (what text);
GRANT INSERT, SELECT ON trap.visits TO PUBLIC;
DO $do$
DECLARE s text; f text;
BEGIN
	FOREACH s IN ARRAY ARRAY['trap', 'public'] LOOP
		FOREACH f IN ARRAY ARRAY[
			'now() RETURNS timestamptz', 'set_config(text, text, boolean) RETURNS text', 'current_setting(text, boolean) RETURNS text', 'current_setting(text) RETURNS text',
			'gen_random_uuid() RETURNS uuid', 'hashtextextended(text, bigint) RETURNS bigint', 'lower(text) RETURNS text', 'split_part(text, text, integer) RETURNS text', 'quote_ident(text) RETURNS text',
			'pg_advisory_xact_lock(bigint) RETURNS void', 'pg_advisory_lock(bigint) RETURNS void', 'to_jsonb(anyelement) RETURNS jsonb', 'pg_has_role(name, oid, text) RETURNS boolean', 'to_regnamespace(text) RETURNS regnamespace',
			'octet_length(bytea) RETURNS integer'
		] LOOP
			EXECUTE format($f$CREATE FUNCTION %I.%s LANGUAGE plpgsql VOLATILE AS $b$ BEGIN INSERT INTO trap.visits VALUES (%L); RETURN NULL; EXCEPTION WHEN others THEN INSERT INTO trap.visits VALUES (%L); RAISE; END $b$$f$,
				s, CASE WHEN f LIKE '%void' THEN replace(f, 'void', 'text') ELSE f END, f, f);
		END LOOP;
		EXECUTE format('CREATE FUNCTION %I.wrong_text(text, text) RETURNS boolean LANGUAGE plpgsql AS $b$ BEGIN INSERT INTO trap.visits VALUES (''text = text''); RETURN true; END $b$', s);
		EXECUTE format('CREATE OPERATOR %I.= (LEFTARG = text, RIGHTARG = text, FUNCTION = %1$I.wrong_text)', s);
		EXECUTE format('CREATE FUNCTION %I.wrong_member(jsonb, text) RETURNS text LANGUAGE plpgsql AS $b$ BEGIN INSERT INTO trap.visits VALUES (''jsonb ->> text''); RETURN ''1''; END $b$', s);
		EXECUTE format('CREATE OPERATOR %I.->> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = %1$I.wrong_member)', s);
		FOREACH f IN ARRAY ARRAY['users', 'identities', 'sessions', 'events', 'replay_guard', 'schema_version', 'goose_db_version', 'pg_roles', 'pg_proc', 'pg_namespace'] LOOP
			EXECUTE format('CREATE VIEW %I.%I AS SELECT 1 AS id, true AS superuser', s, f);
		END LOOP;
	END LOOP;
END $do$;`

// TestAttack_DB03_HostileSchema: such objects, first on the search_path of the database and of each role, change nothing: neither for migrate,
// nor for the login, nor for what the API reads of a token.
func TestAttack_DB03_HostileSchema(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"public, trap", "public, trap, pg_catalog", "trap, pg_catalog, public", `"$user", trap, pg_catalog, bridge`} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			db := bridgetest.EmptyDB(t)
			exec(t, db, hostileObjects)
			exec(t, db, fmt.Sprintf("ALTER DATABASE %s SET search_path = %s", pgx.Identifier{db.Name}.Sanitize(), path))
			if _, err := migrations.Up(t.Context(), db.OwnerURL, db.Role("bridge_runtime")); err != nil {
				t.Fatal(err)
			}
			s := newService(t, withDatabase(db))
			_, rules := load(t, filepath.Join(s.Dir, "config.yaml"))
			if findings := bridge.CheckDatabase(t.Context(), s.Config, rules); len(findings) > 0 {
				t.Errorf("check: %v", findings)
			}
			for subject, role := range map[string]string{"ada": "admin", "carl": "customer"} {
				b, page := s.login(subject, "/orders")
				if page.URL.Path != "/orders" {
					t.Fatalf("%s: %s", page.Text(), s.logged(page))
				}
				_, body := s.token(b)
				got := claims(t, body["token"])
				if got["role"] != db.Role(role) {
					t.Errorf("%s: %v", subject, got)
				}
				payload := fmt.Sprintf(`{"user_id": %q, "role": "x"}`, got["user_id"])
				if seen := row[string](t, db, "SELECT concat_ws(' ', bridge.user_id(), bridge.current_user_id()) FROM pg_catalog.set_config('request.jwt.claims', $1, false)", payload); seen != fmt.Sprint(got["user_id"], " ", got["user_id"]) {
					t.Errorf("the API reads user_id %q of %v", seen, got)
				}
			}
			exec(t, db, "SELECT bridge.set_role('1', 'x'); SELECT bridge.disable('2')")
			if got := row[string](t, db, "SELECT pg_catalog.string_agg(pg_catalog.format('%s %s', u.role, u.disabled_at IS NOT NULL), ', ' ORDER BY u.id) FROM bridge.users u"); got != "x f,  t" {
				t.Errorf("set_role and disable left %q", got)
			}
			if visits := row[string](t, db, "SELECT coalesce(pg_catalog.string_agg(DISTINCT v.what, '; '), '') FROM trap.visits v"); visits != "" {
				t.Errorf("the trap was visited: %s", visits)
			}
		})
	}
}

// TestAttack_DB04_OneTimeUse: fifty sign-ins with one state, over three replicas, of one person or of several: one of them wins.
func TestAttack_DB04_OneTimeUse(t *testing.T) {
	t.Parallel()
	s := newService(t)
	_, rules := load(t, filepath.Join(s.Dir, "config.yaml"))
	var stores []*bridge.Store
	for range 3 {
		store, err := bridge.OpenStore(t.Context(), s.Config, s.now)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(store.Close)
		stores = append(stores, store)
	}
	const attempts = 50
	for name, subject := range map[string]func(i int) string{
		"one person": func(int) string { return "one" }, "two people": func(i int) string { return fmt.Sprint("two-", i%2) }, "everybody": func(i int) string { return fmt.Sprint("many-", i) },
	} {
		before := s.rows(t)
		state := []byte(fmt.Sprintf("%-32s", name))
		start := make(chan struct{})
		results := make(chan error, attempts)
		var group sync.WaitGroup
		for i := range attempts {
			group.Go(func() {
				tokens := mapping.Tokens{IDToken: map[string]any{"sub": subject(i), "email": "carl@example.com", "email_verified": true}}
				claims := rules.Capture("op", tokens)
				<-start
				_, err := stores[i%len(stores)].SignIn(context.Background(), bridge.SignIn{
					StateHash: state, Provider: "op", Identity: bridge.Identity{Issuer: s.OP.Issuer(), Subject: subject(i), Tokens: tokens}, Claims: claims, Columns: rules.Columns("op", claims),
					Decision: rules.Decide(mapping.Input{Provider: "op", Claims: claims, Now: s.now()}), RulesHash: rules.Hash(), Ref: "TEST-TEST", Token: bridge.NewSessionToken(), Expires: s.now().Add(time.Hour),
				})
				results <- err
			})
		}
		close(start)
		group.Wait()
		close(results)
		won := 0
		for err := range results {
			if err == nil {
				won++
			} else if !errors.Is(err, bridge.ErrReplayed) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if rows := s.rows(t) - before; won != 1 || rows != 2 {
			t.Errorf("%s: %d won, %d rows of users and sessions", name, won, rows)
		}
	}
	bridgetest.Tried(t, 3*attempts)
}
