package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// P6: what a login costs.
func (b *bench) logins() error {
	db, err := b.postgres.NewDatabase(b.ctx)
	if err != nil {
		return err
	}
	subjects := names("login", b.size.logins)
	b.op.SetPersonas(personas(subjects)...)
	if err := b.countLogin(db, subjects[:3]); err != nil {
		return err
	}
	for _, part := range []struct {
		what   string
		tokens bool
	}{
		{"login, first of each person, no provider tokens stored", false},
		{"login of somebody known, no provider tokens stored", false},
		{"login of somebody known, ID and refresh token stored", true},
	} {
		b.op.Set(func(behaviour *bridgetest.Behaviour) {
			behaviour.Discovery = func(metadata map[string]any) {
				if !part.tokens {
					delete(metadata, "end_session_endpoint") // then nobody needs the ID token again
				}
			}
			behaviour.TokenResponse = func(response map[string]any) {
				delete(response, "refresh_token")
				if part.tokens {
					response["refresh_token"] = strings.Repeat("refresh.", 75) // as long as Keycloak's
				}
			}
		})
		if err := b.costOfLogins(db, part.what, part.tokens, subjects); err != nil {
			return err
		}
	}
	b.op.Set(func(behaviour *bridgetest.Behaviour) { *behaviour = bridgetest.Behaviour{} })
	return nil
}

func (b *bench) costOfLogins(db *bridgetest.Database, what string, tokens bool, subjects []string) error {
	r, err := b.serve(db, settings{})
	if err != nil {
		return err
	}
	defer r.stop()
	if _, err := logIn(b.ctx, r.public, subjects[:16]); err != nil { // warm connections, discovery, keys
		return err
	}
	var walBefore, walAfter, stored int64
	const wal, storedBytes = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint",
		"SELECT coalesce(sum(octet_length(id_token) + octet_length(refresh_token)), 0)::bigint FROM bridge.sessions"
	var storedBefore int64
	for sql, into := range map[string]*int64{wal: &walBefore, storedBytes: &storedBefore} {
		if err := query(b.ctx, db.AdminURL, into, sql); err != nil {
			return err
		}
	}
	before, _ := usage(r.pid())
	databaseBefore, _ := usage(b.server)
	started := time.Now()
	if _, err := logIn(b.ctx, r.public, subjects[16:]); err != nil {
		return err
	}
	took := time.Since(started)
	after, rss := usage(r.pid())
	databaseAfter, _ := usage(b.server)
	for sql, into := range map[string]*int64{wal: &walAfter, storedBytes: &stored} {
		if err := query(b.ctx, db.AdminURL, into, sql); err != nil {
			return err
		}
	}
	n := float64(len(subjects) - 16)
	cpu, bytes, size := microseconds(after-before)/n/1000, float64(walAfter-walBefore)/n, float64(stored-storedBefore)/n
	target, most := "CPU <= 0.6 ms, WAL <= 1.2 KB", 1200.
	value := fmt.Sprintf("CPU %.2f ms, PostgreSQL %.2f ms, WAL %.0f bytes, %.0f logins/s", cpu, microseconds(databaseAfter-databaseBefore)/n/1000, bytes, n/took.Seconds())
	if tokens {
		target, most = "CPU <= 0.6 ms, WAL <= 1.2 KB + 1.3 x the tokens", 1200+1.3*size
		value += fmt.Sprintf(" with %.0f bytes of tokens", size)
	}
	b.add(row{Goal: "P6", What: what, Value: value, Target: target, RSS: rss}, cpu <= .6, bytes <= most)
	return nil
}

// countLogin counts what the first and a later login send, at a replica of its own.
func (b *bench) countLogin(db *bridgetest.Database, subjects []string) error {
	proxy, err := bridgetest.StartCountingProxy(b.ctx, db.URL)
	if err != nil {
		return err
	}
	defer proxy.Close()
	r, err := b.serve(db, settings{url: proxy.URL(), listen: "off"})
	if err != nil {
		return err
	}
	defer r.stop()
	var calls []string
	for _, subject := range subjects {
		b.op.ForgetRequests()
		proxy.Counts().Reset()
		if _, err := logIn(b.ctx, r.public, []string{subject}); err != nil {
			return err
		}
		calls = append(calls, b.providerCalls())
	}
	statements, roundTrips, begins := len(proxy.Counts().Statements()), proxy.Counts().RoundTrips(), proxy.Counts().Begins()
	warm := calls[len(calls)-1]
	b.add(row{
		Goal: "P6", What: "login, counted",
		Value:  fmt.Sprintf("%d statements in %d round trip, BEGIN %d; provider cold: %s; warm: %s", statements, roundTrips, begins, calls[0], warm),
		Target: "/login none; /callback 1 round trip; warm 1 provider call",
	}, roundTrips == 1, begins == 0, warm == "token 1")
	return nil
}

// providerCalls are the requests that the bridge, not the browser, has sent to the provider.
func (b *bench) providerCalls() string {
	calls := map[string]int{}
	for _, endpoint := range []string{"discovery", "jwks", "token", "userinfo"} {
		if n := b.op.Calls(endpoint); n > 0 {
			calls[endpoint] = n
		}
	}
	var said []string
	for _, endpoint := range slices.Sorted(maps.Keys(calls)) {
		said = append(said, fmt.Sprintf("%s %d", endpoint, calls[endpoint]))
	}
	return strings.Join(said, ", ")
}
