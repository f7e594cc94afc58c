package main

import (
	"encoding/base64"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A contender answers a load in every round. CPU time is that of its processes.
type contender struct {
	row
	load      *load
	processes []int
	database  bool // its CPU time is told, too

	perSecond, ofBare, cpu, cpuOfBare, databaseCPU, p50, p99 []float64
	met                                                      func(c *contender) []bool
}

// P1 to P5, and P7.
func (b *bench) requests() error {
	db, err := b.postgres.NewDatabase(b.ctx)
	if err != nil {
		return err
	}
	known, err := b.serve(db, settings{})
	if err != nil {
		return err
	}
	subjects := names("person", b.sessions)
	b.op.SetPersonas(personas(subjects)...)
	fmt.Fprintf(b.progress, "  %d logins\n", b.sessions)
	cookies, err := logIn(b.ctx, known.public, subjects)
	if err != nil {
		return err
	}
	if !b.wants("P3") {
		b.fresh = 1000
	}
	fmt.Fprintf(b.progress, "  %d generated sessions\n", b.fresh)
	if err := fill(b.ctx, db, b.fresh); err != nil {
		return err
	}
	unseen, err := b.cookiesOf(spread(b.fresh, b.fresh))
	if err != nil {
		return err
	}
	other, err := b.serve(db, settings{}) // a replica that has seen none of them
	if err != nil {
		return err
	}
	var forged, malformed []string
	for i, cookie := range cookies {
		name, value, _ := strings.Cut(cookie, "=")
		raw, _ := base64.RawURLEncoding.DecodeString(value)
		raw[i%len(raw)] ^= 1 // one bit of the token or of its MAC
		forged = append(forged, name+"="+base64.RawURLEncoding.EncodeToString(raw))
		malformed = append(malformed, []string{name + "=" + value[:40], name + "=" + value + "; " + name + "=" + value, name + "=%", name + "=" + strings.Repeat("A", 3000)}[i%4])
	}

	bare := &contender{
		row:  row{Goal: "-", What: "bare net/http handler, the same headers, 367 bytes", Met: "-"},
		load: &load{address: b.bareAddr, requests: fetches("/auth/api_token", cookies, ""), status: 200}, processes: []int{b.bare.pid()},
	}
	request := func(goal, what, target string, r *replica, path string, cookies []string, more string, status int) *contender {
		return &contender{
			row:  row{Goal: goal, What: what, Target: target},
			load: &load{address: r.public, requests: fetches(path, cookies, more), status: status}, processes: []int{r.pid()},
		}
	}
	atLeast := func(share float64) func(*contender) []bool {
		return func(c *contender) []bool { return []bool{median(c.ofBare) >= share} }
	}
	token := request("P1", "/api_token, session known here", ">= 90 % of bare, CPU <= 1.25 x", known, "/auth/api_token", cookies, "", 200)
	token.met = func(c *contender) []bool { return []bool{median(c.ofBare) >= .9, median(c.cpuOfBare) <= 1.25} }
	asked := "X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /api/orders?select=*\r\n"
	auth := request("P2", "/auth, likewise", ">= 90 % of bare", known, "/auth/auth", cookies, asked, 200)
	auth.met = atLeast(.9)
	missed := request("P3", "/api_token, session that this replica has not seen", "1 statement, 1 round trip, >= 25 % of bare", other, "/auth/api_token", unseen, "", 200)
	missed.met, missed.database = atLeast(.25), true
	notOurs := request("P4", "/api_token, forged cookie", "no round trip, >= 85 % of bare", known, "/auth/api_token", forged, "", 401)
	notOurs.met = atLeast(.85)
	broken := request("P4", "/api_token, malformed cookie", "no round trip, >= 85 % of bare", known, "/auth/api_token", malformed, "", 401)
	broken.met = atLeast(.85)
	contenders := []*contender{
		bare,
		{
			row:  row{Goal: "-", What: "bare net/http handler with Content-Type alone", Met: "-"},
			load: &load{address: b.bareAddr, requests: fetches("/plain", cookies, ""), status: 200}, processes: []int{b.bare.pid()},
		},
		{
			row:  row{Goal: "-", What: "bare net/http handler, the same headers and time limits", Met: "-"},
			load: &load{address: b.limited, requests: fetches("/auth/api_token", cookies, ""), status: 200}, processes: []int{b.bare.pid()},
		},
		token, auth, missed, notOurs, broken,
	}
	if nginx, err := exec.LookPath("nginx"); err == nil {
		p, address, err := b.startNginx(nginx, known.public)
		if err != nil {
			return err
		}
		contenders = append(contenders, &contender{
			row: row{Goal: "P2", What: "a file of 367 bytes at nginx, with auth_request to /auth", Target: ">= 55 % of bare"}, met: atLeast(.55),
			load: &load{address: address, requests: fetches("/api/orders", cookies, ""), status: 200}, processes: []int{p.pid(), known.pid()},
		})
	} else {
		b.add(row{Goal: "P2", What: "nginx with auth_request to /auth", Value: "nginx is not installed", Target: ">= 55 % of bare", Met: "-"})
	}
	proxy, err := b.proxyContender(db, cookies)
	if err != nil {
		return err
	}
	if proxy != nil {
		contenders = append(contenders, proxy)
	}
	contenders = slices.DeleteFunc(contenders, func(c *contender) bool { return c.Goal != "-" && !b.wants(c.Goal) })
	counts, err := b.countRequests(db, unseen[:100], forged, malformed)
	if err != nil {
		return err
	}
	if err := b.interleave(contenders); err != nil {
		return err
	}
	for _, c := range contenders {
		c.finish()
		met := []bool{}
		if c.met != nil {
			met = c.met(c)
		}
		switch c {
		case missed:
			c.Value, met = counts.missed+", "+c.Value, append(met, counts.oneEach)
		case notOurs, broken:
			c.Value, met = counts.refused+", "+c.Value, append(met, counts.none)
		}
		b.add(c.row, met...)
	}
	b.add(row{Goal: "P5", What: "token exchange", Value: "not in this version", Target: ">= 22 % of bare, >= 75 % the second time", Met: "-"})
	if proxy == nil {
		b.add(row{Goal: "P7", What: "reverse proxy", Value: "not in this version", Target: "<= 45 µs CPU", Met: "-"})
	}
	return nil
}

// interleave runs the rounds. The first contender is what the others are compared with; the others begin with another one in each round.
func (b *bench) interleave(contenders []*contender) error {
	for round := range b.rounds {
		fmt.Fprintf(b.progress, "  round %d of %d\n", round+1, b.rounds)
		var bare *contender
		for i := range contenders {
			c := contenders[0]
			if i > 0 {
				c = contenders[1+(i-1+round)%(len(contenders)-1)]
			}
			if err := b.ctx.Err(); err != nil {
				return err
			}
			var before, databaseBefore time.Duration
			out, err := c.load.run(b.warm, b.duration, func() {
				before, _ = usage(c.processes...)
				databaseBefore, _ = usage(b.server)
			})
			if err != nil {
				return fmt.Errorf("%s: %w", c.What, err)
			}
			after, rss := usage(c.processes...)
			databaseAfter, _ := usage(b.server)
			if i == 0 {
				bare = c
			}
			c.RSS = rss
			c.perSecond = append(c.perSecond, out.perSecond)
			c.cpu = append(c.cpu, microseconds(after-before)/float64(out.answers))
			c.databaseCPU = append(c.databaseCPU, microseconds(databaseAfter-databaseBefore)/float64(out.answers))
			c.p50, c.p99 = append(c.p50, microseconds(out.p50)), append(c.p99, microseconds(out.p99))
			c.ofBare = append(c.ofBare, out.perSecond/last(bare.perSecond))
			c.cpuOfBare = append(c.cpuOfBare, last(c.cpu)/last(bare.cpu))
		}
	}
	return nil
}

func (c *contender) finish() {
	c.PerSecond, c.OfBare = median(c.perSecond), median(c.ofBare)
	c.CPU, c.CPUOfBare = median(c.cpu), median(c.cpuOfBare)
	c.P50, c.P99 = median(c.p50), median(c.p99)
	c.Value = fmt.Sprintf("%.0f %% of bare, CPU %.2f x", 100*c.OfBare, c.CPUOfBare)
	if c.database {
		c.Value += fmt.Sprintf(", PostgreSQL %.0f µs", median(c.databaseCPU))
	}
}

// counted is what a counting proxy saw of requests to another replica, one after the other.
type counted struct {
	missed, refused string
	oneEach, none   bool
}

func (b *bench) countRequests(db *bridgetest.Database, unseen, forged, malformed []string) (c counted, err error) {
	proxy, err := bridgetest.StartCountingProxy(b.ctx, db.URL)
	if err != nil {
		return c, err
	}
	defer proxy.Close()
	r, err := b.serve(db, settings{url: proxy.URL()})
	if err != nil {
		return c, err
	}
	defer r.stop()
	ask := func(cookies []string, status int) (statements, roundTrips int, err error) {
		l := load{address: r.public, requests: fetches("/auth/api_token", cookies, ""), status: status}
		proxy.Counts().Reset()
		for n := range l.requests {
			got, err := l.once(n)
			if err != nil || got != status {
				return 0, 0, fmt.Errorf("a request answers %d, want %d: %w", got, status, err)
			}
		}
		statements, pings := 0, 0
		for _, sql := range proxy.Counts().Statements() {
			if strings.Contains(sql, "bridge.") {
				statements++
			} else {
				pings++ // of the connection that listens: four a second, whatever is asked
			}
		}
		return statements, proxy.Counts().RoundTrips() - pings, nil
	}
	// pgx prepares the statement when a connection first sees it, in a round trip of its own.
	if _, _, err := ask(unseen[:1], 200); err != nil {
		return c, err
	}
	rest := unseen[1:]
	statements, roundTrips, err := ask(rest, 200)
	if err != nil {
		return c, err
	}
	c.missed = fmt.Sprintf("%.2f statements, %.2f round trips", float64(statements)/float64(len(rest)), float64(roundTrips)/float64(len(rest)))
	c.oneEach = statements == len(rest) && roundTrips == len(rest)
	bad := append(append([]string{}, forged...), malformed...)
	if statements, _, err = ask(bad, 401); err != nil {
		return c, err
	}
	c.refused, c.none = fmt.Sprintf("%d statements", statements), statements == 0
	return c, nil
}

// proxyContender is P7, nil while the bridge has no reverse proxy.
func (b *bench) proxyContender(db *bridgetest.Database, cookies []string) (*contender, error) {
	text := strings.ReplaceAll(config, "AUTHENTICATOR", b.postgres.Role("authenticator")) + "proxy: { upstream: http://" + b.bareAddr + ", path: /api }\n"
	if err := b.write("proxy.yaml", text); err != nil {
		return nil, err
	}
	r, err := b.serve(db, settings{config: "proxy.yaml"})
	if err != nil {
		if strings.Contains(err.Error(), "proxy") {
			return nil, nil
		}
		return nil, err
	}
	return &contender{
		row:  row{Goal: "P7", What: "reverse proxy to the bare handler", Target: "<= 45 µs CPU of the bridge"},
		load: &load{address: r.public, requests: fetches("/auth/api/orders", cookies, ""), status: 200}, processes: []int{r.pid()},
		met: func(c *contender) []bool { return []bool{median(c.cpu) <= 45} },
	}, nil
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

func last(values []float64) float64 { return values[len(values)-1] }
