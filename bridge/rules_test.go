package bridge_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// changeRules replaces a text of the rules file, as an editor that writes in place.
func (s *service) changeRules(old, replacement string) {
	s.t.Helper()
	file := filepath.Join(s.Dir, "rules.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		s.t.Fatalf("%q is not in the rules", old)
	}
	write(s.t, file, strings.Replace(string(text), old, replacement, 1))
}

// readyHash returns the rules hash that /readyz shows.
func (s *service) readyHash() string {
	s.t.Helper()
	_, body := get(s.t, s.Private+"/readyz")
	var ready struct{ Rules string }
	if err := json.Unmarshal([]byte(body), &ready); err != nil || ready.Rules == "" {
		s.t.Fatalf("%s: %v", body, err)
	}
	return ready.Rules
}

// TestAttack_MP09_RuleChangeWithLiveSessions: a change of the file reaches everybody with their next token, without a new login.
func TestAttack_MP09_RuleChangeWithLiveSessions(t *testing.T) {
	t.Parallel()
	s := newService(t)
	admin, _ := s.login("ada", "/")
	customer, _ := s.login("carl", "/")
	role := func(b *bridgetest.Browser) any {
		page, body := s.token(b)
		if page.Status != 200 {
			return page.Status
		}
		return claims(t, body["token"])["role"]
	}
	if role(admin) != s.DB.Role("admin") || role(customer) != s.DB.Role("customer") {
		t.Fatal(role(admin), role(customer))
	}
	before := s.readyHash()

	// The administrators' group gets another name: ada has an address of example.com and falls to the next rule.
	s.changeRules("when: { groups: /admins }", "when: { groups: /owners }")
	s.changeRules("groups: [/admins] }", "groups: [/owners] }")
	bridgetest.Await(t, "the demotion", func() bool { return role(admin) == s.DB.Role("customer") })
	if s.readyHash() == before {
		t.Error("/readyz shows the old hash")
	}
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.events WHERE kind = 'decision' AND role = $1 AND rules_hash = $2", s.DB.Role("customer"), s.readyHash()); n != 1 {
		t.Errorf("%d events of the demotion", n)
	}

	s.changeRules("when: { email_domain: example.com }", "when: { email_domain: example.org }")
	bridgetest.Await(t, "the refusal", func() bool { return role(customer) == 403 })
}

// TestAttack_CF04_BrokenReload: what cannot be used changes nothing, for requests under way neither, and the log says why; mending it is
// enough (F-23, too).
func TestAttack_CF04_BrokenReload(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	file := filepath.Join(s.Dir, "rules.yaml")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before := s.readyHash()
	reload := func(name string, change func() error) {
		refused := func() int { return strings.Count(strings.Join(s.Log.Lines(), "\n"), "the rules file was not loaded") }
		seen := refused()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		s.Reload <- os.Interrupt // any signal: it stands for SIGHUP
		bridgetest.Await(t, "the refusal of a file that is "+name, func() bool { return refused() > seen })
		if status := fetchStatus(t, s.URL+"/api_token", cookie); status != 200 || s.readyHash() != before {
			t.Errorf("%s: %d", name, status)
		}
		if value := s.metric(t, "oidc_bridge_rules_reload_ok "); value != "0" {
			t.Errorf("%s: the metric says %s", name, value)
		}
	}
	replaced := func(old, by string) string {
		if !strings.Contains(string(good), old) {
			t.Fatalf("%q is not in the rules", old)
		}
		return strings.Replace(string(good), old, by, 1)
	}
	texts := map[string]string{
		"cut in two":         string(good[:len(good)/2]),
		"cut in a line":      string(good[:len(good)*3/4]),
		"empty":              "",
		"one byte":           "v",
		"zeros":              strings.Repeat("\x00", 4096),
		"not YAML":           "\t{",
		"not UTF-8":          string(good) + "# \xff\n",
		"another document":   string(good) + "---\n" + string(good),
		"a merge conflict":   "<<<<<<< HEAD\n" + string(good) + "=======\n" + string(good) + ">>>>>>> main\n",
		"a placeholder":      "{{ .Values.rules }}\n",
		"JSON of an error":   `{"error": "not found"}`,
		"too large":          string(good) + strings.Repeat("# padding\n", 120_000),
		"a role too many":    replaced("roles:\n", "roles:\n  nobody_at_all: {}\n"),
		"a powerful role":    replaced("roles:\n", "roles:\n  "+s.DB.Role("bridge_owner")+": {}\n"),
		"postgres":           replaced("role: "+s.DB.Role("customer"), "role: postgres"),
		"a failing test":     replaced("expect: { role: "+s.DB.Role("admin"), "expect: { role: "+s.DB.Role("customer")),
		"another provider":   strings.ReplaceAll(string(good), "op", "po"),
		"an unknown key":     replaced("default: deny", "default: deny\ndefaults: allow"),
		"without default":    replaced("default: deny", ""),
		"a reserved claim":   replaced("email: { from: email }", "role: { from: email }"),
		"an editable grant":  replaced("when: { groups: /admins }", "when: { nickname: ada }"),
		"another version":    replaced("version: 1", "version: 2"),
		"a broken condition": replaced("when: { groups: /admins }", "when: { groups: { regex: '(' } }"),
	}
	for name, bad := range texts {
		reload(name, func() error { return os.WriteFile(file, []byte(bad), 0o600) })
	}
	reload("gone", func() error { return os.Remove(file) })
	reload("a folder", func() error { return os.Mkdir(file, 0o700) })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	reload("a link to nothing", func() error { return os.Symlink("nowhere", file) })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	// config.yaml is read at the start alone: what becomes of it, and of its secrets, is for the next start.
	for _, text := range []string{"", "public_url: https://evil.example\n", "\x00"} {
		write(t, filepath.Join(s.Dir, "config.yaml"), text)
		reload("beside a broken config.yaml", func() error { return os.WriteFile(file, []byte(text+"x"), 0o600) })
	}
	write(t, file, string(good)+"# mended\n")
	bridgetest.Await(t, "the mended file", func() bool { return s.readyHash() != before })
	if s.metric(t, "oidc_bridge_rules_reload_ok ") != "1" || s.metric(t, `oidc_bridge_rules_info{hash="`+s.readyHash()+`"} `) != "1" {
		t.Error("the metrics do not show the mended file")
	}
	bridgetest.Tried(t, len(texts)+6)
}

// TestAttack_CF04_ReloadUnderLoad: Kubernetes replaces a ConfigMap by moving a symbolic link; hundred times under load, no request fails (F-23, too).
func TestAttack_CF04_ReloadUnderLoad(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	file := filepath.Join(s.Dir, "rules.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	swap := func(version int) {
		dir := filepath.Join(s.Dir, fmt.Sprint("v", version))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "rules.yaml"), fmt.Sprintf("%s# version %d\n", text, version))
		link := filepath.Join(s.Dir, "next")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(s.Dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	swap(0)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join("..data", "rules.yaml"), file); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					if status := fetchStatus(t, s.URL+"/api_token", cookie); status != 200 {
						t.Errorf("a token during a reload: %d", status)
						return
					}
				}
			}
		})
	}
	for version := 1; version <= 100; version++ {
		before := s.readyHash()
		swap(version)
		s.Reload <- os.Interrupt
		bridgetest.Await(t, "the swapped file", func() bool { return s.readyHash() != before })
	}
	close(done)
	load.Wait()
	bridgetest.Tried(t, 100)
}

// TestRoleTakenBack: a role that the database drops, revokes or makes powerful is not handed out any more, and is when it is as before.
func TestRoleTakenBack(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	role := "editor_of_" + db.Name
	exec(t, db, db.SQL(fmt.Sprintf("CREATE ROLE %s; GRANT %[1]s TO authenticator", role)))
	t.Cleanup(func() { db.Exec(t.Context(), "DROP ROLE IF EXISTS "+role) })
	s := newService(t, withDatabase(db), withRules(strings.NewReplacer("role: customer", "role: "+role, "  customer: {}", "  "+role+": {}").Replace(ordersRules)))
	b, _ := s.login("carl", "/")
	for _, step := range []struct {
		sql  string
		want int
	}{
		{"REVOKE %s FROM authenticator", 403}, {"GRANT %s TO authenticator", 200}, {"ALTER ROLE %s BYPASSRLS", 403}, {"ALTER ROLE %s NOBYPASSRLS", 200}, {"DROP ROLE %s", 403},
	} {
		exec(t, db, db.SQL(fmt.Sprintf(step.sql, role)))
		s.Reload <- os.Interrupt
		bridgetest.Await(t, fmt.Sprintf("%d after %s", step.want, step.sql), func() bool {
			page, _ := s.token(b)
			return page.Status == step.want
		})
	}
	if _, page := s.login("carl", "/"); page.Status != 403 {
		t.Errorf("a login for a dropped role: %d", page.Status)
	}
	if reason := row[string](t, db, "SELECT reason FROM bridge.events WHERE kind = 'refused'"); !strings.Contains(reason, "does not exist") {
		t.Error(reason)
	}
}
