package bridge_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A replica is another process for the same public_url, on the same database.
type replica struct {
	*service
	url, private string
	counts       *bridgetest.Counts // of its database connections
}

// replica starts one; mode is its database.listen.
func (s *service) replica(t *testing.T, mode string) *replica {
	t.Helper()
	config := *s.Config
	url, counts := bridgetest.CountRoundTrips(t, s.DB.URL)
	config.Database.URL, config.Database.Listen = bridge.NewSecret(url), mode
	_, rules := load(t, s.Dir+"/config.yaml")
	public, private := listen(t), listen(t)
	r := &replica{s, "http://" + public.Addr().String(), "http://" + private.Addr().String(), counts}
	running(t, &config, rules, bridge.Options{Version: "test", Log: s.Log.Logger(), Now: s.now}, public, private, nil)
	if mode != "off" {
		bridgetest.Await(t, "the replica listens", r.listens)
	}
	return r
}

func (r *replica) listens() bool {
	_, metrics := get(r.t, r.private+"/metrics")
	return strings.Contains(metrics, "\noidc_bridge_listening 1\n")
}

// status asks the replica for a token with the cookie.
func (r *replica) status(cookie *http.Cookie) int {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+"/api_token", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	request.AddCookie(cookie)
	return do(r.t, request).StatusCode
}

// queries is how often the replica has read a session from the database.
func (r *replica) queries() (n int) {
	for _, statement := range r.counts.Statements() {
		if strings.Contains(statement, "FROM bridge.sessions s JOIN bridge.users u") {
			n++
		}
	}
	return n
}

// TestTokensFromMemory: a session is read once in 30 s, whoever asks how often; behind a pooler at every token. A replica whose ping is late
// on a busy machine reads a few times more.
func TestTokensFromMemory(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	const tokens = 40
	for mode, most := range map[string]int{"auto": tokens / 4, "on": tokens / 4, "off": tokens} {
		r := s.replica(t, mode)
		for round := range 2 {
			before := r.queries()
			for range tokens {
				if status := r.status(cookie); status != 200 {
					t.Fatalf("listen %s: %d", mode, status)
				}
			}
			if n := r.queries() - before; n < 1 || n > most || mode == "off" && n < tokens {
				t.Errorf("listen %s, round %d: %d queries for %d tokens", mode, round, n, tokens)
			}
			s.advance(31 * time.Second)
		}
	}
}

// TestAttack_SC07_EveryEndReachesEveryReplica: however a session ends, each replica that remembers it refuses it, listening or not.
func TestAttack_SC07_EveryEndReachesEveryReplica(t *testing.T) {
	t.Parallel()
	s := newService(t)
	first, second, pooled := s.replica(t, "auto"), s.replica(t, "auto"), s.replica(t, "off")
	p := people(t, s.DB.OwnerURL)
	carl := func() bridge.Person { return s.person(t, p, "carl") }
	sql := func(text string) func(*bridgetest.Browser) {
		return func(*bridgetest.Browser) { exec(t, s.DB, text) }
	}
	ends := []struct {
		name string
		end  func(b *bridgetest.Browser)
		undo string
	}{
		{"logout at another replica", func(b *bridgetest.Browser) { s.logOut(t, b) }, ""},
		{"user disable", func(*bridgetest.Browser) {
			if changed, err := p.Disable(t.Context(), carl(), bridge.Change{}); !changed || err != nil {
				t.Fatal(changed, err)
			}
		}, "UPDATE bridge.users SET disabled_at = NULL"},
		{"session revoke", func(*bridgetest.Browser) {
			if n, err := p.Revoke(t.Context(), bridge.Which{}, bridge.Change{}, func(int) {}); n == 0 || err != nil {
				t.Fatal(n, err)
			}
		}, ""},
		{"user delete", func(*bridgetest.Browser) {
			if changed, err := p.Delete(t.Context(), carl(), bridge.Change{}); !changed || err != nil {
				t.Fatal(changed, err)
			}
		}, ""},
		{"bridge.disable in SQL", sql("SELECT bridge.disable(id::text) FROM bridge.users"), "UPDATE bridge.users SET disabled_at = NULL"},
		{"DELETE of the session", sql("DELETE FROM bridge.sessions"), ""},
		{"DELETE of the user", sql("DELETE FROM bridge.users"), ""},
		{"DELETE of the identity", sql("DELETE FROM bridge.identities"), ""},
		{"TRUNCATE of the sessions", sql("TRUNCATE bridge.sessions"), ""},
		{"TRUNCATE of the users", sql("TRUNCATE bridge.users CASCADE"), ""},
		{"UPDATE of the end", sql("UPDATE bridge.sessions SET expires_at = now()"), ""},
		{"UPDATE of the idle end", sql("UPDATE bridge.sessions SET idle_expires_at = now()"), ""},
		{"UPDATE of disabled_at", sql("UPDATE bridge.users SET disabled_at = '-infinity'"), "UPDATE bridge.users SET disabled_at = NULL"},
		{"UPDATE of the token's hash", sql("UPDATE bridge.sessions SET token_hash = sha256(token_hash)"), ""},
		{"UPDATE of the provider", sql("UPDATE bridge.sessions SET provider = 'gone'"), ""},
		{"UPDATE of the issuer", sql("UPDATE bridge.identities SET issuer = 'https://elsewhere.example'"), "DELETE FROM bridge.identities"},
		{"UPDATE of the identity's user", sql("WITH u AS (INSERT INTO bridge.users (disabled_at) VALUES (now()) RETURNING id) " +
			"UPDATE bridge.sessions SET user_id = u.id FROM u"), "DELETE FROM bridge.users"},
	}
	for _, e := range ends {
		b, _ := s.login("carl", "/")
		cookie := sessionCookie(t, s, b)
		remembering := []*replica{first, second}
		for _, r := range append(remembering, pooled) {
			if status := r.status(cookie); status != 200 {
				t.Fatalf("%s: %d before", e.name, status)
			}
		}
		for _, r := range remembering {
			bridgetest.Await(t, "the replica answers from memory", func() bool {
				before := r.queries()
				return r.status(cookie) == 200 && r.queries() == before
			})
		}
		e.end(b)
		if status := pooled.status(cookie); status != 401 {
			t.Errorf("%s: a replica that always reads says %d", e.name, status)
		}
		for i, r := range remembering {
			bridgetest.Await(t, e.name+": refused", func() bool { return r.status(cookie) == 401 })
			if status := r.status(cookie); status != 401 {
				t.Errorf("%s: replica %d says %d again", e.name, i, status)
			}
		}
		if e.undo != "" {
			exec(t, s.DB, e.undo)
		}
	}
	bridgetest.Tried(t, len(ends)*3)
}

// TestAttack_SC07_NewRoleReachesEveryReplica: what a row says of somebody's role is in the next token of each replica.
func TestAttack_SC07_NewRoleReachesEveryReplica(t *testing.T) {
	t.Parallel()
	s := newService(t, withRules(rowRules))
	replicas := []*replica{s.replica(t, "auto"), s.replica(t, "auto"), s.replica(t, "off")}
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	role := func(r *replica) string {
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/me", nil)
		request.AddCookie(cookie)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		return bodyOf(t, response)
	}
	for _, want := range []string{"customer", "anonymous", "customer", "anonymous"} {
		exec(t, s.DB, s.DB.SQL("UPDATE bridge.users SET role = '"+want+"'"))
		for _, r := range replicas {
			bridgetest.Await(t, want, func() bool { return strings.Contains(role(r), `"role":"`+s.DB.Role(want)+`"`) })
		}
	}
	bridgetest.Tried(t, 12)
}

// TestAttack_SC07_NoListenerNoMemory: when the connection that hears of ends is gone, every answer is the database's until it is back.
func TestAttack_SC07_NoListenerNoMemory(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r := s.replica(t, "auto")
	for range 5 {
		b, _ := s.login("carl", "/")
		cookie := sessionCookie(t, s, b)
		bridgetest.Await(t, "the replica listens", r.listens)
		r.status(cookie)
		// With the end in one transaction: no message of it can ever reach the replica that was listening.
		conn, err := pgx.Connect(t.Context(), s.DB.AdminURL)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if tag, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND query ~ '^(LISTEN|-- ping)' AND pid <> pg_backend_pid()`); err != nil || tag.RowsAffected() == 0 {
			t.Fatalf("%v: %d listeners found", err, tag.RowsAffected())
		}
		bridgetest.Await(t, "the loss is noticed", func() bool { return !r.listens() || r.queries() > 1 })
		exec(t, s.DB, "ALTER TABLE bridge.sessions DISABLE TRIGGER USER; DELETE FROM bridge.sessions; ALTER TABLE bridge.sessions ENABLE TRIGGER USER")
		bridgetest.Await(t, "refused", func() bool { return r.status(cookie) == 401 })
	}
	bridgetest.Tried(t, 5)
}
