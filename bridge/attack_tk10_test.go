package bridge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A guarded service has an API whose db-pre-request is the bridge's.
type guarded struct {
	*service
	api *bridgetest.API
}

func newGuarded(t *testing.T, set ...setting) *guarded {
	t.Helper()
	s := newService(t, set...)
	exec(t, s.DB, s.DB.SQL(`
CREATE SCHEMA api;
CREATE TABLE api.things (id integer);
GRANT USAGE ON SCHEMA api TO anonymous, customer, admin;
GRANT SELECT, INSERT ON api.things TO anonymous, customer, admin`))
	return &guarded{s, bridgetest.NewAPI(t, bridgetest.APIOptions{
		DatabaseURL: s.DB.AuthenticatorURL, AnonRole: s.DB.Role("anonymous"), JWTSecret: jwtSecret, JWTAud: "postgrest", Schema: "api", PreRequest: "bridge.pre_request",
	})}
}

// ask sends a GET and a POST with the token, and returns "" when both pass, or the message with which both are refused.
func (g *guarded) ask(t *testing.T, token string) string {
	t.Helper()
	var messages []string
	for method, passes := range map[string]int{http.MethodGet: 200, http.MethodPost: 201} {
		request, err := http.NewRequestWithContext(t.Context(), method, g.api.URL()+"/things", strings.NewReader(`{"id": 1}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode == passes {
			messages = append(messages, "")
			continue
		}
		var said struct{ Code, Message, Hint string }
		if err := json.Unmarshal(body, &said); err != nil || response.StatusCode != 401 || said.Code != "PT401" || said.Hint == "" ||
			response.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: %d %v %s", method, response.StatusCode, response.Header, body)
		}
		messages = append(messages, said.Message)
	}
	if messages[0] != messages[1] {
		t.Errorf("GET and POST differ: %q", messages)
	}
	return messages[0]
}

// signedToken is a token that PostgREST takes, with the claims that are given: of somebody who has the secret, such as another service.
func signedToken(t *testing.T, claims map[string]any) string {
	t.Helper()
	token, err := bridgetest.SignJWT([]byte(jwtSecret), map[string]any{"alg": "HS256"}, claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

const (
	endedMessage   = "the session of this token has ended"
	changedMessage = "the role of this token has changed"
)

// TestAttack_TK10_OutstandingTokens: whatever happens to a session, a user or a role, the tokens that are out already are refused with the
// next request, and whoever may still have one gets a new token that passes.
func TestAttack_TK10_OutstandingTokens(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, withRules(rowRules))
	p := people(t, g.DB.OwnerURL)
	find := func() bridge.Person { return g.person(t, p, "carl") }
	sql := func(text string) func(*bridgetest.Browser) {
		return func(*bridgetest.Browser) { exec(t, g.DB, g.DB.SQL(text)) }
	}
	const claimsOf = "UPDATE bridge.sessions SET claims = claims || "
	changes := []struct {
		name    string
		change  func(*bridgetest.Browser)
		message string
		again   int    // status of the next request for a token
		role    string // of that
		undo    string
	}{
		{"logout", func(b *bridgetest.Browser) { g.logOut(t, b) }, endedMessage, 401, "", ""},
		{"session revoke", func(*bridgetest.Browser) {
			if n, err := p.Revoke(t.Context(), bridge.Which{}, bridge.Change{}, func(int) {}); n == 0 || err != nil {
				t.Fatal(n, err)
			}
		}, endedMessage, 401, "", ""},
		{"the session is deleted", sql("DELETE FROM bridge.sessions"), endedMessage, 401, "", ""},
		{"the absolute end", sql("UPDATE bridge.sessions SET expires_at = now()"), endedMessage, 401, "", ""},
		{"the idle end", sql("UPDATE bridge.sessions SET idle_expires_at = now()"), endedMessage, 401, "", ""},
		{"user disable", func(*bridgetest.Browser) {
			if changed, err := p.Disable(t.Context(), find(), bridge.Change{}); !changed || err != nil {
				t.Fatal(changed, err)
			}
		}, "the account is disabled", 401, "", "UPDATE bridge.users SET disabled_at = NULL"},
		{"disabled in SQL", sql("UPDATE bridge.users SET disabled_at = now()"), "the account is disabled", 401, "", "UPDATE bridge.users SET disabled_at = NULL"},
		{"disabled in the future", sql("UPDATE bridge.users SET disabled_at = 'infinity'"), "the account is disabled", 401, "", "UPDATE bridge.users SET disabled_at = NULL"},
		{"user delete", func(*bridgetest.Browser) {
			if changed, err := p.Delete(t.Context(), find(), bridge.Change{}); !changed || err != nil {
				t.Fatal(changed, err)
			}
		}, endedMessage, 401, "", ""},
		{"another role in the row", sql("UPDATE bridge.users SET role = 'anonymous'"), changedMessage, 200, "anonymous", "UPDATE bridge.users SET role = NULL"},
		{"the default in the row", sql("UPDATE bridge.users SET role = 'customer'"), changedMessage, 200, "customer", "UPDATE bridge.users SET role = NULL"},
		{"a role that is not allowed in the row", sql("UPDATE bridge.users SET role = 'admin'"), changedMessage, 403, "", "UPDATE bridge.users SET role = NULL"},
		{"bridge.set_role", sql("SELECT bridge.set_role(id::text, 'anonymous') FROM bridge.users"), changedMessage, 200, "anonymous", ""},
		{"the role in the row taken away", sql("UPDATE bridge.users SET role = NULL"), changedMessage, 200, "customer", ""},
		{"another user", sql("WITH u AS (INSERT INTO bridge.users DEFAULT VALUES RETURNING id) UPDATE bridge.sessions SET user_id = u.id FROM u"), "this token is of another user", 200, "customer", ""},
		{"an id of the application", sql("UPDATE bridge.users SET app_user_id = 'c-7'"), "this token is of another user", 200, "customer", "UPDATE bridge.users SET app_user_id = NULL"},
		// The rules read other claims, as after a refresh at the provider or a change of rules.yaml: decided at the next token.
		{"decided anew: another role", func(b *bridgetest.Browser) {
			exec(t, g.DB, claimsOf+`'{"groups": ["/admins"], "email": "carl@elsewhere.example"}'`)
			g.token(b)
		}, changedMessage, 200, "admin", ""},
		{"decided anew: none", func(b *bridgetest.Browser) {
			exec(t, g.DB, claimsOf+`'{"email": "carl@elsewhere.example"}'`)
			g.token(b)
		}, changedMessage, 403, "", ""},
		{"nothing, in the row of somebody else", sql("INSERT INTO bridge.users (role, disabled_at) VALUES ('anonymous', now())"), "", 200, "customer", ""},
		{"nothing that counts", sql("UPDATE bridge.users SET name = 'Carl C.', email = 'c@example.com', last_login_at = now()"), "", 200, "customer", ""},
	}
	for _, c := range changes {
		b, _ := g.login("carl", "/")
		page, answer := g.token(b)
		token, _ := answer["token"].(string)
		if said := g.ask(t, token); page.Status != 200 || said != "" {
			t.Fatalf("%s: before it, %d %q", c.name, page.Status, said)
		}
		c.change(b)
		if said := g.ask(t, token); said != c.message {
			t.Errorf("%s: %q, want %q", c.name, said, c.message)
		}
		page, answer = g.token(b)
		if page.Status != c.again {
			t.Errorf("%s: asked again, the bridge says %d %s", c.name, page.Status, page.Body)
		}
		if page.Status == 200 {
			token, _ = answer["token"].(string)
			if said := g.ask(t, token); said != "" || claims(t, token)["role"] != g.DB.Role(c.role) {
				t.Errorf("%s: the new token is refused, too: %q %v", c.name, said, claims(t, token))
			}
		} else if said := g.ask(t, token); said == "" {
			t.Errorf("%s: the old token passes when the bridge has said %d", c.name, page.Status)
		}
		if c.undo != "" {
			exec(t, g.DB, c.undo)
		}
	}
	bridgetest.Tried(t, 2*len(changes))
}

// TestAttack_TK10_OtherTokens: what the secret has signed, and no session stands behind.
func TestAttack_TK10_OtherTokens(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	b, _ := g.login("carl", "/")
	_, answer := g.token(b)
	carl := claims(t, answer["token"])
	b, _ = g.login("ada", "/")
	_, answer = g.token(b)
	ada := claims(t, answer["token"])
	good := func(change map[string]any) string {
		c := map[string]any{"role": carl["role"], "user_id": carl["user_id"], "sid": carl["sid"], "aud": "postgrest", "exp": time.Now().Add(time.Hour).Unix()}
		for name, value := range change {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		}
		return signedToken(t, c)
	}
	const none = "the session of this token is none of ours"
	sid := fmt.Sprint(carl["sid"])
	inputs := map[string]struct {
		change map[string]any
		want   string
	}{
		"the same again":         {nil, ""},
		"somebody else's role":   {map[string]any{"role": ada["role"]}, changedMessage},
		"no role":                {map[string]any{"role": nil}, changedMessage},
		"somebody else's id":     {map[string]any{"user_id": ada["user_id"]}, "this token is of another user"},
		"no id":                  {map[string]any{"user_id": nil}, "this token is of another user"},
		"somebody else's sid":    {map[string]any{"sid": ada["sid"]}, "this token is of another user"},
		"a sid that never was":   {map[string]any{"sid": "5e0c9a5c-8a52-4b4c-9d0c-3f1f0f6f7a01"}, endedMessage},
		"sid in upper case":      {map[string]any{"sid": strings.ToUpper(sid)}, none},
		"sid in braces":          {map[string]any{"sid": "{" + sid + "}"}, none},
		"sid without dashes":     {map[string]any{"sid": strings.ReplaceAll(sid, "-", "")}, none},
		"sid with a line break":  {map[string]any{"sid": sid + "\n"}, none},
		"sid behind one":         {map[string]any{"sid": "\n" + sid}, none},
		"sid with a blank":       {map[string]any{"sid": " " + sid}, none},
		"empty sid":              {map[string]any{"sid": ""}, none},
		"null sid":               {map[string]any{"sid": json.RawMessage("null")}, none},
		"sid false":              {map[string]any{"sid": false}, none},
		"sid a number":           {map[string]any{"sid": 7}, none},
		"sid an array":           {map[string]any{"sid": []any{sid}}, none},
		"sid an object":          {map[string]any{"sid": map[string]any{"sid": sid}}, none},
		"sid a statement":        {map[string]any{"sid": "'; DELETE FROM bridge.sessions; --"}, none},
		"sid of 10 KB":           {map[string]any{"sid": strings.Repeat(sid, 300)}, none},
		"sid of another service": {map[string]any{"sid": "s-4711"}, none},
	}
	for name, input := range inputs {
		if said := g.ask(t, good(input.change)); said != input.want {
			t.Errorf("%s: %q, want %q", name, said, input.want)
		}
	}

	// A GET alone: what names nobody may write as little as PostgREST's anonymous role, which has its grants here.
	const refused = "tokens without a session are not taken here"
	anonymous, customer := g.DB.Role("anonymous"), g.DB.Role("customer")
	exp := time.Now().Add(time.Hour).Unix()
	tokens := []struct {
		name   string
		claims map[string]any // nil: no token
		want   [4]string      // refuse; refuse with anonymous_role; allow; no row at all
	}{
		{"no token", nil, [4]string{"", "", "", refused}},
		{"a token of nothing but the anonymous role", map[string]any{"role": anonymous}, [4]string{"", "", "", refused}},
		{"a token of nothing but a role", map[string]any{"role": customer}, [4]string{"", refused, "", refused}},
		{"a gateway's token for people without session", map[string]any{"role": anonymous, "aud": "postgrest", "exp": exp, "jti": "x"}, [4]string{refused, "", "", refused}},
		{"a token without role", map[string]any{"aud": "postgrest", "exp": exp}, [4]string{refused, "", "", refused}},
		{"another service's", map[string]any{"role": customer, "aud": "postgrest", "exp": exp}, [4]string{refused, refused, "", refused}},
		{"somebody's, as anonymous", map[string]any{"role": anonymous, "user_id": carl["user_id"], "exp": exp}, [4]string{refused, refused, "", refused}},
		{"sub, as anonymous", map[string]any{"role": anonymous, "sub": "x", "exp": exp}, [4]string{refused, refused, "", refused}},
		{"SID is not sid", map[string]any{"role": customer, "SID": carl["sid"], "user_id": carl["user_id"]}, [4]string{refused, refused, "", refused}},
	}
	for i, settings := range []string{
		"UPDATE bridge.settings SET tokens_without_sid = 'refuse', anonymous_role = NULL",
		"UPDATE bridge.settings SET anonymous_role = 'anonymous'",
		"UPDATE bridge.settings SET tokens_without_sid = 'allow', anonymous_role = NULL",
		"DELETE FROM bridge.settings",
	} {
		exec(t, g.DB, g.DB.SQL(settings))
		for _, token := range tokens {
			text := ""
			if token.claims != nil {
				text = signedToken(t, token.claims)
			}
			if said := g.ask(t, text); said != token.want[i] {
				t.Errorf("%s; %s: %q, want %q", settings, token.name, said, token.want[i])
			}
		}
		if said := g.ask(t, good(nil)); said != "" {
			t.Errorf("%s: a session's token: %q", settings, said)
		}
		if said := g.ask(t, good(map[string]any{"sid": "x"})); said != none {
			t.Errorf("%s: a sid that is none of ours: %q", settings, said)
		}
	}
	if n := row[int](t, g.DB, "SELECT count(*)::int FROM bridge.sessions"); n != 2 {
		t.Errorf("%d sessions are left", n)
	}
	bridgetest.Tried(t, 2*(len(inputs)+4*(len(tokens)+2)))
}

// TestAttack_TK10_PlantedObjects: an API role that can create things, in a schema of its own or in pg_temp, and has them first on the path,
// changes neither what the function says nor what runs with its owner's rights.
func TestAttack_TK10_PlantedObjects(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	b, _ := g.login("carl", "/")
	_, answer := g.token(b)
	live, err := json.Marshal(claims(t, answer["token"]))
	if err != nil {
		t.Fatal(err)
	}
	b, _ = g.login("carl", "/")
	_, answer = g.token(b)
	ended, err := json.Marshal(claims(t, answer["token"]))
	if err != nil {
		t.Fatal(err)
	}
	exec(t, g.DB, "DELETE FROM bridge.sessions WHERE id = '"+fmt.Sprint(claims(t, answer["token"])["sid"])+"'")
	exec(t, g.DB, hostileObjects)
	exec(t, g.DB, g.DB.SQL("GRANT CREATE, TEMPORARY ON DATABASE "+pgx.Identifier{g.DB.Name}.Sanitize()+" TO customer"))
	conn, err := pgx.Connect(t.Context(), g.DB.AuthenticatorURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.PgConn().Exec(t.Context(), g.DB.SQL(`
SET ROLE customer;
CREATE FUNCTION pg_temp.spy(x text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO trap.visits VALUES (current_user); RETURN true; END $$;
CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.spy(VALUE));
CREATE DOMAIN pg_temp.uuid AS pg_catalog.uuid CHECK (pg_temp.spy(VALUE::pg_catalog.text));
CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (pg_temp.spy(VALUE::pg_catalog.text));
CREATE TEMPORARY TABLE sessions AS SELECT pg_catalog.gen_random_uuid() AS id, 'infinity'::timestamptz AS expires_at;
CREATE TEMPORARY TABLE settings AS SELECT 'allow'::pg_catalog.text AS tokens_without_sid;
CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql RETURN '-infinity'::timestamptz;
CREATE SCHEMA "bridge " CREATE TABLE settings (tokens_without_sid pg_catalog.text)`)).ReadAll(); err != nil {
		t.Fatal(err)
	}
	const nobody = `{"role": "customer", "user_id": "1"}`
	paths := []string{"", "api, public", "pg_temp, trap, public", "trap, pg_temp, pg_catalog", `"bridge ", pg_temp, trap, pg_catalog, bridge`}
	for _, path := range paths {
		for token, want := range map[string]string{string(live): "", string(ended): endedMessage, nobody: "tokens without a session are not taken here"} {
			var failed string
			err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), `SELECT pg_catalog.set_config('search_path', $1, true), pg_catalog.set_config('request.jwt.claims', $2, true)`, path, token)
				if err == nil {
					_, err = tx.Exec(t.Context(), "SELECT bridge.pre_request()")
				}
				return err
			})
			if err != nil {
				failed = err.Error()
			}
			if (want == "") != (err == nil) || !strings.Contains(failed, want) {
				t.Errorf("path %q, %.40s: %v, want %q", path, token, err, want)
			}
		}
	}
	if visits := row[string](t, g.DB, "SELECT coalesce(string_agg(DISTINCT what, ', '), '') FROM trap.visits"); visits != "" {
		t.Errorf("the trap was visited: %s", visits)
	}
	bridgetest.Tried(t, 3*len(paths))
}

// TestAttack_TK10_LookUps: a request costs two look-ups by primary key, whatever else is in the tables; in the transaction of a GET, which may
// not write.
func TestAttack_TK10_LookUps(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	b, _ := g.login("carl", "/")
	_, answer := g.token(b)
	exec(t, g.DB, manySessions(1000)+"; ANALYZE bridge.users, bridge.sessions")
	payload, err := json.Marshal(claims(t, answer["token"]))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), g.DB.AuthenticatorURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	const counters = `SELECT coalesce(sum(seq_scan), 0)::int, coalesce(sum(idx_scan), 0)::int, coalesce(sum(idx_tup_fetch), 0)::int
FROM pg_stat_xact_user_tables WHERE schemaname = 'bridge'`
	var scans, lookUps, rows [3]int
	for round := range scans { // in the first one PostgreSQL plans, and looks at the ends of indexes for that
		err := pgx.BeginTxFunc(t.Context(), conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "SELECT set_config('role', $1, true), set_config('request.jwt.claims', $2, true)", g.DB.Role("customer"), string(payload)); err != nil {
				return err
			}
			for range 10 {
				if _, err := tx.Exec(t.Context(), "SELECT bridge.pre_request()"); err != nil {
					return err
				}
			}
			return tx.QueryRow(t.Context(), counters).Scan(&scans[round], &lookUps[round], &rows[round])
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if scans[2] != 0 || lookUps[2]-lookUps[1] != 20 || rows[2]-rows[1] != 20 {
		t.Errorf("10 requests: %d scans of tables, %d look-ups of %d rows", scans[2], lookUps[2]-lookUps[1], rows[2]-rows[1])
	}
	bridgetest.Tried(t, 10)
}

// manySessions are of as many users, ten sessions each, all of them alive.
func manySessions(users int) string {
	return strings.ReplaceAll(`
WITH u AS (
	INSERT INTO bridge.users (email) SELECT 'person' || n || '@example.com' FROM generate_series(1, USERS) n RETURNING id
), i AS (
	INSERT INTO bridge.identities (issuer, subject, user_id, provider, claims, last_login_at) SELECT 'https://op.example', 's' || id, id, 'op', '{}', now() FROM u RETURNING id, user_id
)
INSERT INTO bridge.sessions (id, token_hash, user_id, identity_id, provider, claims, role, created_at, last_seen_at, idle_expires_at, expires_at)
SELECT gen_random_uuid(), sha256((i.id || ' ' || n)::bytea), i.user_id, i.id, 'op', '{}', 'customer', now(), now(), now() + interval '12 hours', now() + interval '7 days'
FROM i, generate_series(1, 10) n`, "USERS", strconv.Itoa(users))
}
