package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// P8: the start, the process that has nothing to do, and the binary.
func (b *bench) starts() error {
	db, err := b.postgres.NewDatabase(b.ctx)
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(address)
	fixed := strings.Replace(strings.ReplaceAll(config, "AUTHENTICATOR", b.postgres.Role("authenticator")), "listen: 127.0.0.1:0", "listen: 127.0.0.1:"+port, 1)
	if err := b.write("start.yaml", fixed); err != nil {
		return err
	}
	for _, down := range []bool{false, true} {
		s, what := settings{config: "start.yaml"}, "start to first answer"
		if down {
			nobody, err := freeAddress()
			if err != nil {
				return err
			}
			s.env, what = []string{"ISSUER=http://" + nobody}, "start to first answer, provider down"
		}
		var took []float64
		for range b.size.starts {
			d, err := b.start(db, s, address)
			if err != nil {
				return err
			}
			took = append(took, microseconds(d)/1000)
		}
		b.add(row{Goal: "P8", What: what, Value: fmt.Sprintf("%.0f ms", median(took)), Target: "<= 50 ms"}, median(took) <= 50)
	}
	idle, err := b.serve(db, settings{})
	if err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	rss, own := memory(idle.pid(), "VmRSS"), memory(idle.pid(), "RssAnon")
	idle.stop()
	b.add(row{
		Goal: "P8", What: "memory, idle", Value: fmt.Sprintf("%.1f MB, of which %.1f MB its own and the rest pages of the binary", float64(rss)/1e6, float64(own)/1e6),
		Target: "<= 20 MB",
	}, rss <= 20e6)

	stripped := filepath.Join(b.dir, "stripped")
	if err := b.build(b.ctx, stripped, "-ldflags", "-s -w"); err != nil {
		return err
	}
	info, err := os.Stat(stripped)
	if err != nil {
		return err
	}
	b.add(row{Goal: "P8", What: "binary, stripped", Value: fmt.Sprintf("%.1f MB", float64(info.Size())/1e6), Target: "<= 20 MB"}, info.Size() <= 20e6)
	return nil
}

// start returns the time from the start of the process to its first answer: the 401 at /api_token that every visitor gets.
func (b *bench) start(db *bridgetest.Database, s settings, address string) (time.Duration, error) {
	cmd := b.command(db, s)
	started := time.Now()
	p, err := startProcess(cmd)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	l := load{address: address, requests: [][]byte{fetch("/auth/api_token", "theme=dark", "")}, status: 401}
	for {
		status, err := l.once(0)
		switch {
		case err == nil && status == http.StatusUnauthorized:
			return time.Since(started), nil
		case time.Since(started) > 10*time.Second:
			return 0, fmt.Errorf("no answer after %s: %d %w", time.Since(started), status, err)
		}
		time.Sleep(200 * time.Microsecond)
	}
}

const (
	rememberedSessions = 10_000  // all of them, with their tokens
	moreThanFit        = 110_000 // more than a replica may remember
)

// P9: memory by session that a replica knows, from the size of the live heap after a collection, and the bound on the whole.
func (b *bench) memory() error {
	db, err := b.postgres.NewDatabase(b.ctx)
	if err != nil {
		return err
	}
	r, err := b.serve(db, settings{})
	if err != nil {
		return err
	}
	defer r.stop()
	b.op.SetPersonas(persona("first"))
	cookies, err := logIn(b.ctx, r.public, []string{"first"})
	if err != nil {
		return err
	}
	if err := fill(b.ctx, db, moreThanFit); err != nil {
		return err
	}
	all, err := b.cookiesOf(spread(moreThanFit, moreThanFit))
	if err != nil {
		return err
	}
	same := &load{address: r.public, requests: fetches("/auth/api_token", cookies, ""), status: 200}
	if _, err := same.run(0, time.Second, func() {}); err != nil { // buffers of the connections, and some collections
		return err
	}
	before, err := r.liveHeap()
	if err != nil {
		return err
	}
	if err := askEach(r, all[:rememberedSessions]); err != nil {
		return err
	}
	if _, err := same.run(0, time.Second, func() {}); err != nil {
		return err
	}
	after, err := r.liveHeap()
	if err != nil {
		return err
	}
	each := (after - before) / rememberedSessions
	if err := askEach(r, all); err != nil {
		return err
	}
	_, rss := usage(r.pid())
	var claims int64
	if err := query(b.ctx, db.AdminURL, &claims, "SELECT octet_length(claims::text) FROM bridge.sessions LIMIT 1"); err != nil {
		return err
	}
	b.add(row{
		Goal: "P9", What: "memory by known session, with its token",
		Value:  fmt.Sprintf("%.0f bytes at %d bytes of claims; the whole process %.0f MB after %d sessions", each, claims, float64(rss)/1e6, moreThanFit),
		Target: "<= 1.2 KB, the whole is bounded",
	}, each <= 1200)
	return nil
}

// askEach asks once for each cookie.
func askEach(r *replica, cookies []string) error {
	l := &load{address: r.public, requests: fetches("/auth/api_token", cookies, ""), status: 200, limit: uint64(len(cookies))}
	return l.runAll()
}

// liveHeap is what the last collection left: Go collects again when the heap has doubled (GOGC=100).
func (r *replica) liveHeap() (float64, error) {
	next, err := r.metric("go_memstats_next_gc_bytes")
	return next / 2, err
}

// P13: the rules, by the benchmark in package mapping.
func (b *bench) decisions() error {
	cmd := exec.CommandContext(b.ctx, "go", "test", "-run", "^$", "-bench", "BenchmarkDecide100Rules", "-benchmem", "-benchtime", "200ms", "-count", "3", "./mapping")
	cmd.Dir = b.root
	text, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, text)
	}
	times, allocations, names := map[string][]float64{}, map[string]int{}, []string{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 8 || !strings.HasPrefix(f[0], "BenchmarkDecide100Rules/") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(f[0], "BenchmarkDecide100Rules/"), "-")
		name = strings.ReplaceAll(name, "_", " ")
		ns, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			return err
		}
		if times[name] == nil {
			names = append(names, name)
		}
		times[name] = append(times[name], ns)
		allocations[name], _ = strconv.Atoi(f[6])
	}
	for _, name := range names {
		took := median(times[name]) / 1000
		b.add(row{
			Goal: "P13", What: "decide over 100 rules, " + name, Value: fmt.Sprintf("%.1f µs, %d allocations", took, allocations[name]), Target: "<= 5 µs, 0 allocations",
		}, took <= 5, allocations[name] == 0)
	}
	return nil
}
