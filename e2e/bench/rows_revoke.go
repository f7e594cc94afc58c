package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

const (
	replicas = 3
	askPause = 500 * time.Microsecond // between two questions, so that they are not what the answer waits for
)

// A revocation ends sessions in one way, which it returns from when that is committed.
type revocation struct {
	name string
	end  func(ctx context.Context, conn *pgx.Conn, first *replica, user int, cookie string) error
}

var revocations = []revocation{
	{"SQL DELETE", func(ctx context.Context, conn *pgx.Conn, _ *replica, user int, _ string) error {
		_, err := conn.Exec(ctx, "DELETE FROM bridge.sessions WHERE user_id = $1", 1000000+user)
		return err
	}},
	{"bridge.disable", func(ctx context.Context, conn *pgx.Conn, _ *replica, user int, _ string) error {
		_, err := conn.Exec(ctx, "SELECT bridge.disable($1)", fmt.Sprint(1000000+user))
		return err
	}},
	{"logout", func(ctx context.Context, _ *pgx.Conn, first *replica, _ int, cookie string) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+first.public+"/auth/logout", nil)
		if err != nil {
			return err
		}
		r.Host = publicHost
		r.Header = http.Header{
			"Cookie": {cookie}, "Sec-Fetch-Site": {"same-origin"}, "Origin": {"https://" + publicHost}, "X-Forwarded-For": {"203.0.113.7"},
			"Content-Type": {"application/x-www-form-urlencoded"},
		}
		answer, err := send(r)
		if err == nil && answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("/logout answers %s", answer.Status)
		}
		return err
	}},
}

// P12: how long after the commit each of three replicas, which all remember the session, goes on with it.
func (b *bench) revocations() error {
	db, err := b.postgres.NewDatabase(b.ctx)
	if err != nil {
		return err
	}
	var all []*replica
	for range replicas {
		r, err := b.serve(db, settings{})
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	b.op.SetPersonas(persona("first"))
	if _, err := logIn(b.ctx, all[0].public, []string{"first"}); err != nil {
		return err
	}
	perWay := b.size.revocations + b.deaf
	if err := fill(b.ctx, db, perWay*len(revocations)); err != nil {
		return err
	}
	user := 0
	for _, part := range []struct {
		tries  int
		deaf   bool
		what   string
		target string
		most   time.Duration // of the p99
	}{
		{b.size.revocations, false, "", "p99 <= 50 ms, never later than 1 s", 50 * time.Millisecond},
		{b.deaf, true, ", listeners killed before", "never later than 1 s", time.Second},
	} {
		for _, way := range revocations {
			var took []time.Duration
			for range part.tries {
				more, err := b.revoke(db, all, way, user, part.deaf)
				if err != nil {
					return fmt.Errorf("%s: %w", way.name, err)
				}
				took = append(took, more...)
				user++
			}
			slices.Sort(took)
			p99, longest := quantile(took, .99), took[len(took)-1]
			b.add(row{
				Goal: "P12", What: fmt.Sprintf("%s%s: refused by each of %d replicas, %d tries", way.name, part.what, replicas, part.tries),
				Value:  fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, at most %.1f ms", microseconds(quantile(took, .5))/1000, microseconds(p99)/1000, microseconds(longest)/1000),
				Target: part.target,
			}, p99 <= part.most, longest <= time.Second)
		}
	}
	return nil
}

// revoke ends the session of one user and returns the time from the commit until each replica has answered that there is none: the time of
// the answer, so that the question is in it.
func (b *bench) revoke(db *bridgetest.Database, all []*replica, way revocation, user int, deaf bool) ([]time.Duration, error) {
	cookies, err := b.cookiesOf([]int{user})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, db.AdminURL)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	asking := make([]*asker, len(all))
	for i, r := range all {
		if err := r.awaitListening(); err != nil {
			return nil, err
		}
		if asking[i], err = newAsker(r, cookies[0]); err != nil {
			return nil, err
		}
		defer asking[i].conn.Close()
		for range 2 { // the second one from memory
			if status, err := asking[i].ask(); err != nil || status != http.StatusOK {
				return nil, fmt.Errorf("before: %d %w", status, err)
			}
		}
	}
	if deaf {
		tag, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND query ~ '^(LISTEN|-- ping)' AND pid <> pg_backend_pid()`)
		if err != nil || tag.RowsAffected() != int64(len(all)) {
			return nil, fmt.Errorf("%d of %d listeners found: %w", tag.RowsAffected(), len(all), err)
		}
	}
	if err := way.end(ctx, conn, all[0], user, cookies[0]); err != nil {
		return nil, err
	}
	committed := time.Now()
	took, errs := make([]time.Duration, len(all)), make([]error, len(all))
	var wg sync.WaitGroup
	for i, a := range asking {
		wg.Go(func() {
			for status := 0; status != http.StatusUnauthorized && errs[i] == nil; {
				status, errs[i] = a.ask()
				took[i] = time.Since(committed)
				time.Sleep(askPause)
				if took[i] > 10*time.Second {
					errs[i] = fmt.Errorf("replica %d still answers %d", i, status)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return took, nil
}

// An asker asks one replica for the token of one session.
type asker struct {
	conn    net.Conn
	reader  *bufio.Reader
	request []byte
}

func newAsker(r *replica, cookie string) (*asker, error) {
	conn, err := net.Dial("tcp", r.public)
	if err != nil {
		return nil, err
	}
	return &asker{conn, bufio.NewReader(conn), fetch("/auth/api_token", cookie, "")}, nil
}

func (a *asker) ask() (status int, err error) {
	if _, err := a.conn.Write(a.request); err != nil {
		return 0, err
	}
	return readAnswer(a.reader)
}
