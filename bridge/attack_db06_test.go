package bridge_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestAttack_DB06_StandbyIsNotRead: a standby that is behind still has a session that has ended. The service does not take its word, whatever
// the order of the servers in database.url, and says so when there is no other. When the primary dies and the standby takes over, the service
// goes on there with the sessions that have not ended (F-04).
func TestAttack_DB06_StandbyIsNotRead(t *testing.T) {
	t.Parallel()
	pair := bridgetest.NewStandby(t)
	ask := func(sql string) string {
		t.Helper()
		value, err := pair.OnStandby(t.Context(), sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return value
	}
	s := newService(t, withDatabase(pair.Primary), withDatabaseURL(func(*bridgetest.Database) string { return pair.BothURL }))
	ended, _ := s.login("carl", "/")
	alive, _ := s.login("cora", "/")
	caughtUp := func() bool { return ask("SELECT count(*)::text FROM bridge.sessions") == "2" }
	bridgetest.Await(t, "the standby to have the sessions", caughtUp)
	ask("SELECT pg_wal_replay_pause()::text")
	exec(t, s.DB, "DELETE FROM bridge.sessions WHERE user_id = (SELECT id FROM bridge.users WHERE name = 'Carl')")
	for range 20 {
		if page, _ := s.token(ended); page.Status != 401 {
			t.Fatalf("a session that has ended: %d", page.Status)
		}
	}
	if !caughtUp() {
		t.Error("the standby was not behind, so this has shown nothing")
	}

	config := *s.Config
	config.Database.URL = bridge.NewSecret(pair.URL)
	store, err := bridge.OpenStore(t.Context(), &config, s.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if _, err := store.Session(t.Context(), s.sessionToken(t, ended)); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("the standby alone: %v", err)
	}
	if err := store.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("ready with the standby alone: %v", err)
	}
	findings := bridge.CheckDatabase(t.Context(), &config, nil)
	if len(findings) != 1 || !strings.Contains(findings[0].Message, "standby") || !strings.Contains(findings[0].Fix, "target_session_attrs=read-write") {
		t.Errorf("check: %v", findings)
	}
	config.Database.URL = bridge.NewSecret(pair.BothURL)
	if findings := bridge.CheckDatabase(t.Context(), &config, nil); len(findings) != 0 {
		t.Errorf("check with both servers: %v", findings)
	}
	if p, err := bridge.OpenPeople(t.Context(), bridge.NewSecret(pair.URL), "tester"); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("a command that changes people: %v", err)
		p.Close()
	}

	ask("SELECT pg_wal_replay_resume()::text")
	bridgetest.Await(t, "the standby to have the end of the session", func() bool { return !caughtUp() })
	if err := pair.KillPrimary(); err != nil {
		t.Fatal(err)
	}
	if page, _ := s.token(alive); page.Status != http.StatusServiceUnavailable {
		t.Errorf("between the two: %d", page.Status)
	}
	promoted := time.Now()
	ask("SELECT pg_promote()::text")
	bridgetest.Await(t, "a token from the new primary", func() bool { page, _ := s.token(alive); return page.Status == 200 })
	t.Logf("%s after the promotion", time.Since(promoted).Round(time.Millisecond))
	if page, _ := s.token(ended); page.Status != 401 {
		t.Errorf("a session that has ended, at the new primary: %d", page.Status)
	}
	if _, page := s.login("ada", "/"); page.URL.Path != "/" {
		t.Errorf("a login at the new primary: %d %s", page.Status, page.Text())
	}
	bridgetest.Tried(t, 4)
}
