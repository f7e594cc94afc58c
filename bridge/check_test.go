package bridge_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// checked runs CheckDatabase with rules that hand out the role.
func checked(t *testing.T, databaseURL, authenticator, hook, role string) string {
	t.Helper()
	text := strings.Replace(goodConfig, "postgres://bridge@localhost/app", databaseURL, 1)
	text = strings.Replace(text, "database: {", "database: { authenticator: "+authenticator+",", 1)
	if hook != "" {
		text += "users: { hook: " + hook + " }\n"
	}
	c, findings := bridge.LoadConfig("config.yaml", []byte(text), noEnvironment)
	if c == nil {
		t.Fatal(findings)
	}
	var rules *mapping.Rules
	if role != "" {
		rules, findings = mapping.Load("rules.yaml", fmt.Appendf(nil,
			"version: 1\nproviders: { corp: { preset: generic } }\nroles:\n  %q: {}\nrules: [ { name: a, when: { sub: x }, role: %q } ]\ndefault: deny\n", role, role))
		if rules == nil {
			t.Fatal(findings)
		}
	}
	out := ""
	for _, f := range bridge.CheckDatabase(t.Context(), c, rules) {
		out += f.String() + "\n"
	}
	return out
}

// TestAttack_MP02_ForbiddenRoles: a rules file that hands out a role which PostgREST could not take on, or which is more than a role for
// tokens, does not start.
func TestAttack_MP02_ForbiddenRoles(t *testing.T) {
	t.Parallel()
	inputs := 0
	db := bridgetest.DB(t)
	suffix := strings.ReplaceAll(db.Name, "-", "_")
	name := func(s string) string { return s + "_" + suffix }
	setup := db.SQL("")
	var drop []string
	for role, attributes := range map[string]string{
		"plain": "", "ungranted": "", "super": "SUPERUSER", "rls": "BYPASSRLS", "creator": "CREATEROLE", "replica": "REPLICATION", "child": "", "grandchild": "", "reader": "",
		"Mixed Case": "",
	} {
		inputs++
		setup += fmt.Sprintf("CREATE ROLE %q %s;\n", name(role), attributes)
		if role != "ungranted" {
			setup += fmt.Sprintf("GRANT %q TO %s;\n", name(role), db.Role("authenticator"))
		}
		drop = append(drop, fmt.Sprintf("DROP ROLE %q", name(role)))
	}
	setup += fmt.Sprintf("GRANT %q TO %q; GRANT %q TO %q; GRANT pg_read_all_data TO %q;", name("rls"), name("child"), name("child"), name("grandchild"), name("reader"))
	exec(t, db, setup)
	t.Cleanup(func() {
		if err := db.Exec(context.Background(), strings.Join(drop, ";")); err != nil {
			t.Error(err)
		}
	})
	exec(t, db, fmt.Sprintf("GRANT %s TO %s", db.Role("bridge_owner"), db.Role("authenticator")))
	t.Cleanup(func() {
		if err := db.Exec(context.Background(), db.SQL("REVOKE bridge_owner FROM authenticator")); err != nil {
			t.Error(err)
		}
	})
	for role, want := range map[string]string{
		db.Role("customer"):       "",
		name("plain"):             "",
		name("Mixed Case"):        "",
		name("missing"):           fmt.Sprintf("rules.yaml:4:3: error E401: role %q does not exist in the database|CREATE ROLE %s NOLOGIN; GRANT %[2]s TO", name("missing"), name("missing")),
		name("ungranted"):         fmt.Sprintf("error E402: %q may not SET ROLE %q|GRANT %s TO", db.Role("authenticator"), name("ungranted"), name("ungranted")),
		name("super"):             "error E403: |is a superuser",
		name("rls"):               "E403|has BYPASSRLS",
		name("creator"):           "E403|has CREATEROLE",
		name("replica"):           "E403|has REPLICATION",
		name("child"):             "E403|it is a member of " + name("rls") + ", which has BYPASSRLS",
		name("grandchild"):        "E403|it is a member of " + name("rls") + ", which has BYPASSRLS",
		name("reader"):            "E403|pg_read_all_data, which is one of PostgreSQL's own",
		db.Role("bridge_owner"):   "E403|belongs to oidc-bridge",
		db.Role("bridge_runtime"): "E403|belongs to oidc-bridge",
	} {
		inputs++
		got := checked(t, db.URL, db.Role("authenticator"), "", role)
		if want == "" && got != "" {
			t.Errorf("%s: %s", role, got)
		}
		for part := range strings.SplitSeq(want, "|") {
			if !strings.Contains(got, part) {
				t.Errorf("%s: want %q in %q", role, part, got)
			}
		}
	}
	bridgetest.Tried(t, inputs)
}

func TestAttack_MP02_TheAuthenticatorItself(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	// Under its usual name the rules file does not even load.
	role := "login_of_" + db.Name
	exec(t, db, "CREATE ROLE "+role+" LOGIN NOINHERIT")
	t.Cleanup(func() {
		if err := db.Exec(context.Background(), "DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	if got := checked(t, db.URL, role, "", role); !strings.Contains(got, "E403") || !strings.Contains(got, "is what PostgREST logs in as") {
		t.Error(got)
	}
	for attributes, want := range map[string]string{
		"SUPERUSER": "is a superuser: a token could take on any role|NOSUPERUSER", "NOSUPERUSER NOLOGIN": "cannot log in", "LOGIN INHERIT": "warning: |inherits",
	} {
		exec(t, db, "ALTER ROLE "+role+" "+attributes)
		got := checked(t, db.URL, role, "", "")
		for part := range strings.SplitSeq(want, "|") {
			if !strings.Contains(got, part) {
				t.Errorf("%s: want %q in %q", attributes, part, got)
			}
		}
		exec(t, db, "ALTER ROLE "+role+" NOSUPERUSER LOGIN NOINHERIT")
	}
}

func TestCheckDatabase(t *testing.T) {
	t.Parallel()
	db, empty := bridgetest.DB(t), bridgetest.EmptyDB(t)
	exec(t, db, db.SQL(`
CREATE SCHEMA hooks;
CREATE FUNCTION hooks.stable(jsonb) RETURNS TABLE (user_id text, role text, refuse text) LANGUAGE sql STABLE AS 'SELECT NULL, NULL, NULL';
CREATE FUNCTION hooks.other(text) RETURNS text LANGUAGE sql AS 'SELECT NULL';
CREATE FUNCTION hooks.good(jsonb) RETURNS TABLE (user_id text, role text, refuse text) LANGUAGE sql AS 'SELECT NULL, NULL, NULL';
CREATE SCHEMA shut;
CREATE FUNCTION shut.good(jsonb) RETURNS TABLE (user_id text, role text, refuse text) LANGUAGE sql AS 'SELECT NULL, NULL, NULL';
GRANT USAGE ON SCHEMA hooks TO bridge_runtime;`))
	bare := bridgetest.DB(t)
	exec(t, bare, bare.SQL("REVOKE INSERT ON bridge.users FROM bridge_runtime; REVOKE DELETE ON bridge.sessions FROM bridge_runtime"))
	authenticator := db.Role("authenticator")
	for _, test := range []struct{ name, url, authenticator, hook, want string }{
		{"good", db.URL, authenticator, "hooks.good", ""},
		{"not migrated", empty.URL, authenticator, "", "schema bridge has version 0, this program needs|run: oidc-bridge migrate"},
		{"unreachable", "postgres://bridge:hunter2@127.0.0.1:1/app", authenticator, "", "cannot connect: 127.0.0.1:1 (127.0.0.1): dial error: dial tcp 127.0.0.1:1: connect: connection refused\n    |check database.url"},
		{"no authenticator", db.URL, "nobody_at_all", "", `there is no role "nobody_at_all"|CREATE ROLE nobody_at_all LOGIN NOINHERIT`},
		{"no hook", db.URL, authenticator, "hooks.missing", "users.hook hooks.missing does not exist with one argument of type jsonb"},
		{"other arguments", db.URL, authenticator, "hooks.other", "does not exist with one argument of type jsonb"},
		{"stable hook", db.URL, authenticator, "hooks.stable", "is not VOLATILE"},
		{"hook out of reach", db.URL, authenticator, "shut.good", "may not be called by the runtime role"},
		{"our own role", db.URL, db.Role("bridge_runtime"), "", "database.authenticator is the role of database.url"},
		{"as superuser", db.AdminURL, authenticator, "", "the role of database.url is a superuser"},
		{"as owner", db.OwnerURL, authenticator, "", "the role of database.url owns schema bridge"},
		{"no rights", bare.URL, authenticator, "", "the role of database.url lacks INSERT on bridge.users, DELETE on bridge.sessions|run: oidc-bridge migrate"},
	} {
		got := checked(t, test.url, test.authenticator, test.hook, db.Role("customer"))
		if test.want == "" && got != "" || strings.Contains(got, "hunter2") {
			t.Errorf("%s: %s", test.name, got)
		}
		for part := range strings.SplitSeq(test.want, "|") {
			if !strings.Contains(got, part) {
				t.Errorf("%s: want %q in %q", test.name, part, got)
			}
		}
	}
}

func TestProvidersOfBothFilesMustAgree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.yaml"), goodConfig)
	write(t, filepath.Join(dir, "rules.yaml"), "version: 1\nproviders: { crop: { preset: generic } }\nroles: { a: {} }\nrules: [ { name: a, when: { sub: x }, role: a } ]\ndefault: deny\n")
	_, _, findings := bridge.Load(filepath.Join(dir, "config.yaml"), noEnvironment)
	all := fmt.Sprint(findings)
	for _, want := range []string{`provider "crop" is not in config.yaml`, `did you mean "corp"?`} {
		if !strictyaml.Errors(findings) || !strings.Contains(all, want) || strings.Contains(all, "is not declared") {
			t.Errorf("want %q in %s", want, all)
		}
	}
	write(t, filepath.Join(dir, "rules.yaml"), "version: 1\nproviders: { somewhere: { preset: generic } }\nroles: { a: {} }\nrules: [ { name: a, when: { sub: x }, role: a } ]\ndefault: deny\n")
	_, _, findings = bridge.Load(filepath.Join(dir, "config.yaml"), noEnvironment)
	all = fmt.Sprint(findings)
	for _, want := range []string{`provider "somewhere" is not in config.yaml`, `provider "corp" of config.yaml is not declared`, "`corp: { preset: generic }`"} {
		if !strings.Contains(all, want) {
			t.Errorf("want %q in %s", want, all)
		}
	}
	_, _, findings = bridge.Load(filepath.Join(dir, "missing.yaml"), noEnvironment)
	if len(findings) != 1 || !strings.Contains(findings[0].String(), "missing.yaml: error: there is no such file") {
		t.Errorf("%v", findings)
	}
}

// TestCheckClaims: a rule for a claim that the provider never sends is silent at every login, so check says it.
func TestCheckClaims(t *testing.T) {
	t.Parallel()
	rules := strings.Replace(ordersRules, "      groups: { type: set, default: [] }\n", "      groups: { type: set, default: [] }\n      teams: { type: set, default: [] }\n", 1)
	s := newService(t, withRules(strings.Replace(rules, "rules:\n", "  - { name: other teams, when: { teams: rivals } }\nrules:\n", 1)))
	c, loaded := load(t, s.Dir+"/config.yaml")
	if findings := bridge.CheckClaims(t.Context(), c, loaded); len(findings) > 0 {
		t.Errorf("before the first login: %v", findings)
	}
	s.login("carl", "/") // with groups, although they are empty
	findings := bridge.CheckClaims(t.Context(), c, loaded)
	if len(findings) != 1 || strictyaml.Errors(findings) || !strings.Contains(findings[0].String(), `provider "op": no login so far has carried teams, which `+c.Rules+` reads`) {
		t.Errorf("%v", findings)
	}
}

// TestCheckSettings: what bridge.pre_request would refuse or let pass without the operator's knowing is said.
func TestCheckSettings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, sql, config, want string }{
		{"as migrated", "", "", ""},
		{"the same role", "UPDATE bridge.settings SET anonymous_role = 'anonymous'", "anonymous: anonymous", ""},
		{"no role", "", "anonymous: anonymous", `anonymous_role is null, so bridge.pre_request refuses the tokens of "anonymous"`},
		{"another role", "UPDATE bridge.settings SET anonymous_role = 'customer'", "anonymous: anonymous", `anonymous_role is "customer", so bridge.pre_request refuses the tokens of "anonymous"`},
		{"allowed", "UPDATE bridge.settings SET tokens_without_sid = 'allow'", "anonymous: anonymous", ""},
		{"no row", "DELETE FROM bridge.settings", "", "its row is gone"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, withConfig(test.config))
			if test.sql != "" {
				exec(t, s.DB, s.DB.SQL(test.sql))
			}
			findings := bridge.CheckDatabase(t.Context(), s.Config, nil)
			if test.want == "" {
				if len(findings) > 0 {
					t.Errorf("%v", findings)
				}
				return
			}
			if len(findings) != 1 || !strings.Contains(findings[0].Message, s.DB.SQL(test.want)) || findings[0].Severity != strictyaml.Warning {
				t.Fatalf("%v", findings)
			}
			fix, asItsOwner := strings.CutSuffix(findings[0].Fix, "; as its owner")
			if !asItsOwner {
				return
			}
			exec(t, s.DB, fix)
			if findings := bridge.CheckDatabase(t.Context(), s.Config, nil); len(findings) > 0 {
				t.Errorf("after its fix: %v", findings)
			}
		})
	}
}
