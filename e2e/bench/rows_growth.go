package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A crowd is a database with so many users, and a replica that reads it at every token.
type crowd struct {
	users    int
	db       *bridgetest.Database
	replica  *replica
	load     *load
	subjects []string // of users who log in again

	token, login []float64 // microseconds of CPU, of the bridge and PostgreSQL together
}

const (
	sampledUsers = 20_000 // whose tokens are asked for
	loginsARound = 100
	bytesByUser  = 4 << 10 // of disk, with room for WAL and sorting
)

// P10 and P11: databases of growing size, measured in turns.
func (b *bench) growth() error {
	var crowds []*crowd
	b.op.SetPersonas(persona("first"))
	for _, users := range b.size.growth {
		if !b.fits(users) {
			b.add(row{Goal: "P11", What: fmt.Sprintf("%d users", users), Value: "the disk is too small", Target: "<= 1.3 x", Met: "-"})
			continue
		}
		fmt.Fprintf(b.progress, "  %d users\n", users)
		c, err := b.crowd(users)
		if err != nil {
			return err
		}
		crowds = append(crowds, c)
	}
	largest := crowds[len(crowds)-1]
	var bytes int64
	if err := query(b.ctx, largest.db.AdminURL, &bytes,
		"SELECT sum(pg_total_relation_size(t))::bigint FROM unnest('{bridge.users,bridge.identities,bridge.sessions}'::regclass[]) t"); err != nil {
		return err
	}
	each := float64(bytes) / float64(largest.users)
	b.add(row{
		Goal: "P10", What: fmt.Sprintf("database bytes by user, identity and session, of %d", largest.users),
		Value: fmt.Sprintf("%.0f bytes with all indexes, without provider tokens", each), Target: "<= 1 KB",
	}, each <= 1024)

	subjects := []string{}
	for _, c := range crowds {
		subjects = append(subjects, c.subjects...)
	}
	b.op.SetPersonas(personas(subjects)...)
	for round := range b.rounds {
		fmt.Fprintf(b.progress, "  round %d of %d\n", round+1, b.rounds)
		for i := range crowds {
			if err := b.measureCrowd(crowds[(i+round)%len(crowds)], round); err != nil {
				return err
			}
		}
	}
	first := crowds[0]
	for _, c := range crowds {
		token, login := median(c.token)/median(first.token), median(c.login)/median(first.login)
		b.add(row{
			Goal: "P11", What: fmt.Sprintf("%d users and sessions", c.users),
			Value:  fmt.Sprintf("token %.0f µs, %.2f x; login %.0f µs, %.2f x (CPU of bridge and PostgreSQL)", median(c.token), token, median(c.login), login),
			Target: fmt.Sprintf("<= 1.3 x %d users", first.users),
		}, token <= 1.3, login <= 1.3)
	}
	return nil
}

func (b *bench) crowd(users int) (*crowd, error) {
	c := &crowd{users: users}
	var err error
	if c.db, err = b.postgres.NewDatabase(b.ctx); err != nil {
		return nil, err
	}
	if c.replica, err = b.serve(c.db, settings{listen: "off"}); err != nil {
		return nil, err
	}
	if _, err := logIn(b.ctx, c.replica.public, []string{"first"}); err != nil {
		return nil, err
	}
	if err := fill(b.ctx, c.db, users); err != nil {
		return nil, err
	}
	cookies, err := b.cookiesOf(spread(min(users, sampledUsers), users))
	if err != nil {
		return nil, err
	}
	c.load = &load{address: c.replica.public, requests: fetches("/auth/api_token", cookies, ""), status: 200}
	for _, user := range spread(loginsARound*b.rounds, users) {
		c.subjects = append(c.subjects, fmt.Sprintf("generated-%d", user))
	}
	return c, nil
}

func (b *bench) measureCrowd(c *crowd, round int) error {
	both := func() time.Duration { cpu, _ := usage(c.replica.pid(), b.server); return cpu }
	var before time.Duration
	out, err := c.load.run(b.warm, b.duration, func() { before = both() })
	if err != nil {
		return err
	}
	c.token = append(c.token, microseconds(both()-before)/float64(out.answers))
	before = both()
	if _, err := logIn(b.ctx, c.replica.public, c.subjects[round*loginsARound:(round+1)*loginsARound]); err != nil {
		return err
	}
	c.login = append(c.login, microseconds(both()-before)/loginsARound)
	return nil
}

// fits reports whether the disk of the throw-away server has room for so many users.
func (b *bench) fits(users int) bool {
	var dir string
	var disk syscall.Statfs_t
	if query(context.WithoutCancel(b.ctx), b.postgres.URL(), &dir, "SHOW data_directory") != nil || syscall.Statfs(dir, &disk) != nil {
		return users <= 1_000_000
	}
	return disk.Bavail*uint64(disk.Bsize) > uint64(users)*bytesByUser
}
