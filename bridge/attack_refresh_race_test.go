package bridge_test

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

func withListen(mode string) setting { return func(s *settings) { s.listen = mode } }

// TestAttack_SC09_RefreshRace: twenty requests at each of three replicas, at a provider that ends a login whose refresh token is used twice:
// one refresh, and everybody is still logged in; with the new role in the end.
func TestAttack_SC09_RefreshRace(t *testing.T) {
	t.Parallel()
	const each, rounds = 20, 5
	for _, mode := range []string{"off", "on"} { // from the database, from memory
		t.Run("listen "+mode, func(t *testing.T) {
			s := newFollowed(t, withListen(mode))
			addresses := []string{s.URL}
			for range 2 {
				public, private := listen(t), listen(t)
				running(t, s.Config, ruleset(t, s.Config), bridge.Options{Version: "test", Log: s.Log.Logger(), Now: s.now}, public, private, nil)
				addresses = append(addresses, "http://"+public.Addr().String())
			}
			b := s.due(t, "ada")
			cookie := sessionCookie(t, s.service, b)
			for round := range rounds {
				role := "admin"
				if round == rounds-1 {
					role = "customer"
					s.OP.SetPersonas(changed("ada", map[string]any{"email": "ada@example.com", "email_verified": true, "groups": []any{}})...)
				}
				start := make(chan struct{})
				var all sync.WaitGroup
				for i := range each * len(addresses) {
					all.Go(func() {
						<-start
						if status := fetchStatus(t, addresses[i%len(addresses)]+"/api_token", cookie); status != 200 {
							t.Errorf("round %d: %d", round, status)
						}
					})
				}
				close(start)
				all.Wait()
				bridgetest.Await(t, "the role", func() bool { // another replica may have asked
					page, answer := s.token(b)
					return page.Status == 200 && claims(t, answer["token"])["role"] == s.DB.Role(role)
				})
				if n := s.OP.Calls("token"); n != 1 {
					t.Errorf("round %d: %d refreshes", round, n)
				}
				s.pass()
			}
			if got := s.metric(t, `oidc_bridge_rechecks_total{outcome="ended",provider="op"}`); got != "" {
				t.Errorf("%s logged out", got)
			}
			bridgetest.Tried(t, each*len(addresses)*rounds)
		})
	}
}

// hold lets the next token request wait at the provider: asked is closed when it has come, answer lets it go on.
func (s followed) hold() (asked chan struct{}, answer func()) {
	asked, held := make(chan struct{}), make(chan struct{})
	s.OP.Set(func(b *bridgetest.Behaviour) {
		b.Handle["token"] = func(http.ResponseWriter, *http.Request) bool {
			close(asked)
			<-held
			return false
		}
	})
	return asked, func() { close(held) }
}

// TestAttack_SC09_NobodyWaits: while one request waits for the provider, the others get their token: it holds no connection to the database.
func TestAttack_SC09_NobodyWaits(t *testing.T) {
	t.Parallel()
	s := newFollowed(t, withDatabaseURL(func(db *bridgetest.Database) string {
		u, err := url.Parse(db.URL)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("pool_max_conns", "1")
		u.RawQuery = q.Encode()
		return u.String()
	}))
	b := s.due(t, "carl")
	cookie := sessionCookie(t, s.service, b)
	asked, answer := s.hold()
	var first sync.WaitGroup
	first.Go(func() {
		if status := fetchStatus(t, s.URL+"/api_token", cookie); status != 200 {
			t.Errorf("the one who asks: %d", status)
		}
	})
	<-asked
	for range 20 {
		if status := fetchStatus(t, s.URL+"/api_token", cookie); status != 200 {
			t.Errorf("beside it: %d", status)
		}
	}
	answer()
	first.Wait()
	s.asks(t, b, "customer", 0)
	bridgetest.Tried(t, 21)
}

// TestAttack_SC08_MemoryOfOldClaims: what the requests beside it have put into memory meanwhile is not what the one that asked gets.
func TestAttack_SC08_MemoryOfOldClaims(t *testing.T) {
	t.Parallel()
	var counts *bridgetest.Counts
	s := newFollowed(t, withListen("on"), withCounts(t, &counts))
	b := s.due(t, "ada")
	cookie := sessionCookie(t, s.service, b)
	bridgetest.Await(t, "the replica to listen", func() bool { return s.metric(t, "oidc_bridge_listening") == "1" })
	asked, answer := s.hold()
	s.OP.SetPersonas(changed("ada", map[string]any{"email": "ada@example.com", "email_verified": true, "groups": []any{}})...)
	got := make(chan *bridgetest.Page, 1)
	go func() {
		defer close(got)
		page, err := b.Fetch(t.Context(), http.MethodGet, s.URL+"/api_token", nil, "")
		if err != nil {
			t.Error(err)
			return
		}
		got <- page
	}()
	<-asked
	counts.Reset()
	for range 3 {
		if status := fetchStatus(t, s.URL+"/api_token", cookie); status != 200 {
			t.Errorf("beside it: %d", status)
		}
	}
	if got := strings.Join(counts.Statements(), "\n"); strings.Contains(got, "SET check_until") {
		t.Errorf("those beside it try to ask as well: %s", got)
	}
	answer()
	page, ok := <-got
	if !ok {
		return
	}
	var body map[string]any
	if err := page.JSON(&body); err != nil || page.Status != 200 {
		t.Fatalf("%d %s: %v", page.Status, page.Body, err)
	}
	if role := claims(t, body["token"])["role"]; role != s.DB.Role("customer") {
		t.Errorf("role %v", role)
	}
	s.asks(t, b, "customer", 0)
	bridgetest.Tried(t, 4)
}

// TestAttack_SC09_TheBrowserGoesAway while the provider rotates the refresh token: the new one is written all the same.
func TestAttack_SC09_TheBrowserGoesAway(t *testing.T) {
	t.Parallel()
	s := newFollowed(t)
	b := s.due(t, "carl")
	asked, answer := s.hold()
	visitor, leave := context.WithCancel(t.Context())
	request, _ := http.NewRequestWithContext(visitor, http.MethodGet, s.URL+"/api_token", nil)
	request.AddCookie(sessionCookie(t, s.service, b))
	var visit sync.WaitGroup
	visit.Go(func() {
		if _, err := fromElsewhere().RoundTrip(request); err == nil {
			t.Error("there was an answer")
		}
	})
	<-asked
	leave()
	visit.Wait()
	answer()
	bridgetest.Await(t, "the check to be written", func() bool { return s.session(t, "carl", "checked_at") != "" })
	s.OP.Set(correct)
	s.pass()
	s.asks(t, b, "customer", 1)
	bridgetest.Tried(t, 1)
}

// TestAttack_LO10_EndedDuringARefresh: what ends while the provider is asked does not come back with its answer.
func TestAttack_LO10_EndedDuringARefresh(t *testing.T) {
	t.Parallel()
	s := newFollowed(t)
	ends := map[string]string{
		"revoked":           "DELETE FROM bridge.sessions",
		"disabled":          "UPDATE bridge.users SET disabled_at = now()",
		"user deleted":      "DELETE FROM bridge.users",
		"out of time":       "UPDATE bridge.sessions SET expires_at = now()",
		"idle for too long": "UPDATE bridge.sessions SET idle_expires_at = now()",
	}
	for name, sql := range ends {
		for answer, status := range map[string]int{"confirmed": 0, "down": 503} {
			t.Run(name+", "+answer, func(t *testing.T) {
				b := s.due(t, "carl")
				s.OP.Set(func(b *bridgetest.Behaviour) {
					b.Handle["token"] = func(w http.ResponseWriter, _ *http.Request) bool {
						exec(t, s.DB, sql)
						if status != 0 {
							w.WriteHeader(status)
						}
						return status != 0
					}
				})
				s.asks(t, b, "", 1)
				s.asks(t, b, "", 0)
				if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions"); strings.HasPrefix(sql, "DELETE") && n != 0 {
					t.Errorf("%d sessions", n)
				}
				exec(t, s.DB, "DELETE FROM bridge.sessions; UPDATE bridge.users SET disabled_at = NULL")
			})
		}
	}
	// A role that the users row got meanwhile counts, too.
	t.Run("role of the row", func(t *testing.T) {
		s := newFollowed(t, withRules(strings.NewReplacer("privileged: true, ", "",
			"    role: customer\n", "    role: { from: users, allow: [customer, admin], default: customer }\n").Replace(ordersRules)))
		b := s.due(t, "carl")
		s.OP.Set(func(b *bridgetest.Behaviour) {
			b.Handle["token"] = func(http.ResponseWriter, *http.Request) bool {
				exec(t, s.DB, s.DB.SQL("UPDATE bridge.users SET role = 'admin'"))
				return false
			}
		})
		s.asks(t, b, "admin", 1)
	})
	bridgetest.Tried(t, 2*len(ends)+1)
}

// TestAttack_SC10_TamperedRows: what was sealed for another row or column, was changed, or is sealed by another key goes to no provider. Whoever
// it belongs to stays logged in, since a replica that does not know a new key yet looks the same; and the operators hear of it.
func TestAttack_SC10_TamperedRows(t *testing.T) {
	t.Parallel()
	s := newFollowed(t)
	const swap = `UPDATE bridge.sessions s SET %[1]s = o.%[1]s FROM bridge.sessions o WHERE o.id <> s.id`
	changes := map[string]string{
		"refresh tokens swapped":    strings.ReplaceAll(swap, "%[1]s", "refresh_token"),
		"ID tokens swapped":         strings.ReplaceAll(swap, "%[1]s", "id_token"),
		"columns swapped":           "UPDATE bridge.sessions SET refresh_token = id_token, id_token = refresh_token",
		"ID token as refresh token": "UPDATE bridge.sessions SET refresh_token = id_token",
		"refresh token as ID token": "UPDATE bridge.sessions SET id_token = refresh_token",
		"first bit":                 "UPDATE bridge.sessions SET refresh_token = pg_catalog.set_bit(refresh_token, 0, 1 - pg_catalog.get_bit(refresh_token, 0))",
		"last byte":                 "UPDATE bridge.sessions SET refresh_token = pg_catalog.set_byte(refresh_token, pg_catalog.length(refresh_token) - 1, 255 - pg_catalog.get_byte(refresh_token, pg_catalog.length(refresh_token) - 1))",
		"a bit of the ID token":     "UPDATE bridge.sessions SET id_token = pg_catalog.set_bit(id_token, 300, 1 - pg_catalog.get_bit(id_token, 300))",
		"cut off":                   "UPDATE bridge.sessions SET refresh_token = pg_catalog.substr(refresh_token, 1, pg_catalog.length(refresh_token) - 1)",
		"empty":                     "UPDATE bridge.sessions SET refresh_token = ''",
		"plain text":                "UPDATE bridge.sessions SET refresh_token = 'plain'",
		"no ID token":               "UPDATE bridge.sessions SET id_token = NULL",
		"the row has another id":    "UPDATE bridge.sessions SET id = pg_catalog.gen_random_uuid()",
	}
	for name, sql := range changes {
		t.Run(name, func(t *testing.T) {
			exec(t, s.DB, "DELETE FROM bridge.sessions")
			other := s.due(t, "ada")
			b := s.due(t, "carl")
			exec(t, s.DB, sql)
			s.asks(t, b, "customer", 0)
			s.asks(t, other, "admin", 0)
			if line := s.lastLine("was not checked"); !strings.Contains(line, "level=ERROR") || !strings.Contains(line, "outcome=unreadable") {
				t.Errorf("log %q", line)
			}
			s.advance(time.Minute)
			s.asks(t, b, "customer", 0)
		})
	}
	t.Run("keys of the replicas", func(t *testing.T) {
		exec(t, s.DB, "DELETE FROM bridge.sessions")
		b := s.due(t, "carl")
		cookie := sessionCookie(t, s.service, b)
		keys := func(keys string) http.Handler {
			return s.reconfigured(`cookie_keys: ["`+cookieKey(1)+`"]`, `cookie_keys: [`+keys+`]`)
		}
		ahead := keys(`"` + cookieKey(2) + `", "` + cookieKey(1) + `"`)
		check := func(h http.Handler, calls int) {
			t.Helper()
			if status := ask(h, "/api_token", cookie); status != 200 || s.OP.Calls("token") != calls {
				t.Errorf("%d, %d token requests", status, s.OP.Calls("token"))
			}
		}
		check(ahead, 1)
		s.pass()
		s.asks(t, b, "customer", 0) // sealed by the new key, which this one does not have
		s.advance(time.Minute)
		check(ahead, 1)
		s.pass()
		check(ahead, 1)
		if status := ask(keys(`"`+cookieKey(2)+`"`), "/api_token", cookie); status != 401 {
			t.Errorf("without the key of its cookie: %d", status)
		}
	})
	t.Run("in the clear", func(t *testing.T) {
		b := s.due(t, "carl")
		s.asks(t, b, "customer", 1)
		stored := row[string](t, s.DB, "SELECT pg_catalog.string_agg(s::text || pg_catalog.encode(s.refresh_token, 'escape') || pg_catalog.encode(s.id_token, 'escape'), ' ') FROM bridge.sessions s")
		for _, secret := range s.OP.Secrets() {
			if len(secret) > 16 && strings.Contains(stored, secret) {
				t.Errorf("a secret of the provider is readable in bridge.sessions")
			}
		}
	})
	bridgetest.Tried(t, len(changes)+5)
}

// TestAttack_SC10_AbsentUnlessNeeded: a refresh token is kept for nothing but session.recheck.
func TestAttack_SC10_AbsentUnlessNeeded(t *testing.T) {
	t.Parallel()
	const kept = "SELECT pg_catalog.concat_ws(' ', refresh_token IS NOT NULL, id_token IS NOT NULL) FROM bridge.sessions"
	noEnd := func(b *bridgetest.Behaviour) {
		b.Discovery = func(m map[string]any) { delete(m, "end_session_endpoint") }
	}
	for name, c := range map[string]struct {
		config, provider string
		set              func(*bridgetest.Behaviour)
		want             string
	}{
		"needed":                        {provider: offline, want: "t t"},
		"needed, no logout there":       {provider: offline, set: noEnd, want: "t t"},
		"recheck off":                   {"session: { recheck: off }", offline, nil, "f t"},
		"recheck off, no logout there":  {"session: { recheck: off }", offline, noEnd, "f f"},
		"not given":                     {want: "f t"},
		"not given, no logout there":    {set: noEnd, want: "f f"},
		"given without being asked for": {set: func(b *bridgetest.Behaviour) { b.RefreshTokens = true }, want: "t t"},
	} {
		t.Run(name, func(t *testing.T) {
			s := followed{newService(t, withOneClock(), withConfig(c.config), withProvider(c.provider))}
			if c.set != nil {
				s.OP.Set(c.set)
			}
			b, _ := s.login("carl", "/")
			if got := row[string](t, s.DB, kept); got != c.want {
				t.Errorf("refresh token and ID token kept: %s, want %s", got, c.want)
			}
			s.pass()
			calls := 0
			if strings.HasPrefix(c.want, "t") {
				calls = 1
			}
			s.asks(t, b, "customer", calls)
		})
	}
}

// TestRecheckStatements counts what a token costs: nothing more while the provider's word is fresh.
func TestRecheckStatements(t *testing.T) {
	t.Parallel()
	const read, lease, confirm = "SELECT s.id", "SET check_until = ", "WITH confirmed"
	var counts *bridgetest.Counts
	s := newFollowed(t, withCounts(t, &counts))
	b, _ := s.login("carl", "/")
	want := func(what string, calls int, want ...string) {
		t.Helper()
		counts.Reset()
		s.asks(t, b, "customer", calls)
		var got []string
		for _, sql := range counts.Statements() {
			if strings.Contains(sql, "WITH used") || strings.Contains(sql, "bridge.sweep") {
				continue // housekeeping
			}
			for _, kind := range []string{read, lease, confirm} {
				if strings.Contains(sql, kind) {
					sql = kind
				}
			}
			got = append(got, sql)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q", what, got)
		}
	}
	s.token(b) // connects
	want("fresh", 0, read)
	s.pass()
	want("due", 1, read, lease, confirm, read)
	want("checked", 0, read)
	s.pass()
	s.OP.Close()
	want("provider down", 0, read, lease, read)
	want("pause", 0, read)
}

// TestFault_F07_RecheckWithAReadOnlyDatabase: nobody is asked whose answer could not be kept, and nobody is logged out.
func TestFault_F07_RecheckWithAReadOnlyDatabase(t *testing.T) {
	t.Parallel()
	s := newFollowed(t)
	b := s.due(t, "carl")
	name := row[string](t, s.DB, "SELECT current_database()::text")
	exec(t, s.DB, `ALTER DATABASE "`+name+`" SET default_transaction_read_only = on;
		SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = current_database() AND pid <> pg_catalog.pg_backend_pid()`)
	bridgetest.Await(t, "a new connection", func() bool {
		page, _ := s.token(b)
		return page.Status == 200
	})
	s.asks(t, b, "customer", 0)
	if line := s.lastLine("was not checked"); !strings.Contains(line, "outcome=unwritten") || !strings.Contains(line, "read-only") {
		t.Errorf("log %q", line)
	}
	exec(t, s.DB, `BEGIN READ WRITE; ALTER DATABASE "`+name+`" RESET default_transaction_read_only; COMMIT;
		SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = current_database() AND pid <> pg_catalog.pg_backend_pid()`)
	bridgetest.Await(t, "the check", func() bool {
		s.token(b)
		return s.session(t, "carl", "checked_at") != ""
	})
	if n := s.OP.Calls("token"); n != 1 {
		t.Errorf("%d token requests", n)
	}
}

// TestFault_F01_DatabaseGoneDuringARecheck: a rotated refresh token outlives broken connections; and a longer outage ends no session.
func TestFault_F01_DatabaseGoneDuringARecheck(t *testing.T) {
	t.Parallel()
	var proxy *bridgetest.CountingProxy
	s := newFollowed(t, withDatabaseURL(func(db *bridgetest.Database) string {
		proxy = bridgetest.NewCountingProxy(t, db.URL)
		return proxy.URL()
	}))
	during := func(f func()) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) {
			b.Handle["token"] = func(http.ResponseWriter, *http.Request) bool { f(); return false }
		}
	}
	t.Run("connections broken", func(t *testing.T) {
		b := s.due(t, "carl")
		s.OP.Set(during(func() { proxy.Cut(); proxy.Mend() }))
		if page, _ := s.token(b); page.Status != 200 {
			t.Errorf("%d %s", page.Status, page.Body)
		}
		if s.session(t, "carl", "checked_at") == "" {
			t.Error("the provider's answer was lost")
		}
		s.OP.Set(correct)
		s.pass()
		s.asks(t, b, "customer", 1)
	})
	t.Run("down", func(t *testing.T) {
		b := s.due(t, "carl")
		s.OP.Set(during(proxy.Cut))
		s.OP.Set(func(b *bridgetest.Behaviour) { b.KeepRefreshTokens = true })
		if page, _ := s.token(b); page.Status != 503 {
			t.Errorf("%d %s", page.Status, page.Body)
		}
		proxy.Mend()
		s.OP.Set(correct)
		s.advance(time.Minute)
		bridgetest.Await(t, "the check", func() bool {
			s.token(b)
			return s.session(t, "carl", "checked_at") != ""
		})
		s.asks(t, b, "customer", 0)
	})
	t.Run("down when the provider ends the login", func(t *testing.T) {
		b := s.due(t, "carl")
		s.OP.SetPersonas()
		s.OP.Set(during(proxy.Cut))
		if page, _ := s.token(b); page.Status != 503 {
			t.Errorf("%d %s", page.Status, page.Body)
		}
		proxy.Mend()
		s.OP.Set(correct)
		s.advance(time.Minute)
		bridgetest.Await(t, "the end", func() bool {
			page, _ := s.token(b)
			return page.Status == 401
		})
	})
	t.Run("the end cannot be written", func(t *testing.T) {
		b := s.due(t, "carl")
		s.OP.SetPersonas()
		s.OP.Set(during(func() {
			exec(t, s.DB, `CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $_$not now$_$; END';
				CREATE TRIGGER no BEFORE DELETE ON bridge.sessions FOR EACH ROW EXECUTE FUNCTION public.no()`)
		}))
		if page, _ := s.token(b); page.Status != 503 {
			t.Errorf("%d %s", page.Status, page.Body)
		}
		exec(t, s.DB, `DROP FUNCTION public.no() CASCADE`)
		s.OP.Set(correct)
		s.advance(time.Minute)
		s.asks(t, b, "", 1)
	})
}
