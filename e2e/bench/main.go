// Command bench measures the bridge against the goals P1 to P13: `make bench`, or BENCH=full make bench.
//
//	setup.go    what runs: the shipped binary, PostgreSQL, a provider, nginx   rows_requests.go  P1 to P5, P7: requests in interleaved rounds
//	process.go  processes, their CPU time and memory                           rows_login.go     P6
//	people.go   logins, and users by the million                               rows_process.go   P8, P9, P13
//	load.go     the client                                                     rows_growth.go    P10, P11
//	bare.go     what requests are compared with                                rows_revoke.go    P12
//
// Machines differ and are busy. So requests are compared with a bare net/http handler of the same round, CPU time is that of the server's
// processes, and what can be counted is counted. Nothing runs in this process but the client and the provider.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// A row is one line of the table.
type row struct {
	Goal   string `json:"id"`     // P1 to P13
	What   string `json:"what"`   //
	Value  string `json:"value"`  // in words
	Target string `json:"target"` // the goal in words
	Met    string `json:"met"`    // yes, no, or - where there is nothing to hold it against
	// Of rows with requests.
	PerSecond float64 `json:"requests_per_second,omitempty"`
	OfBare    float64 `json:"requests_of_bare,omitempty"` // of the bare handler's requests in the same round
	CPU       float64 `json:"cpu_us_per_request,omitempty"`
	CPUOfBare float64 `json:"cpu_of_bare,omitempty"`
	P50       float64 `json:"p50_us,omitempty"`
	P99       float64 `json:"p99_us,omitempty"`
	RSS       int64   `json:"rss_bytes,omitempty"`
}

// size is how much is measured.
type size struct {
	name           string
	rounds         int
	warm, duration time.Duration
	logins         int   // of P6, for each of its numbers
	sessions       int   // by real logins, of P1 and P2
	fresh          int   // generated, of P3
	growth         []int // users of each database of P11
	revocations    int   // of each way
	deaf           int   // of each way, with the listeners killed
	starts         int
}

var sizes = map[string]size{
	"quick": {"quick", 3, 300 * time.Millisecond, time.Second, 200, 200, 100_000, []int{1000, 100_000}, 200, 10, 5},
	"full":  {"full", 9, time.Second, 4 * time.Second, 2000, 2000, 400_000, []int{1000, 1_000_000, 10_000_000}, 1000, 100, 20},
}

// A bench is one run.
type bench struct {
	*lab
	ctx context.Context
	size
	only     []string // goals; nil: all
	progress io.Writer
	rows     []row
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 2 && os.Args[1] == bareArgument {
		fmt.Fprintln(os.Stderr, serveBare())
		os.Exit(1)
	}
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("json", "", "write the rows to this file, too")
	only := flags.String("only", "", "measure these alone, such as P1,P6")
	if err := flags.Parse(args); err != nil {
		return err
	}
	name := os.Getenv("BENCH")
	if name == "" {
		name = "quick"
	}
	s, known := sizes[name]
	if !known {
		return fmt.Errorf("BENCH=%s: write quick or full", name)
	}
	started, busy := time.Now(), loadAverage()
	lab, err := newLab(ctx)
	defer lab.close()
	if err != nil {
		return err
	}
	b := &bench{lab: lab, ctx: ctx, size: s, progress: stderr}
	if *only != "" {
		b.only = strings.Split(*only, ",")
	}
	for _, part := range []struct {
		goals   []string
		measure func() error
	}{
		{[]string{"P1", "P2", "P3", "P4", "P5", "P7"}, b.requests},
		{[]string{"P6"}, b.logins},
		{[]string{"P8"}, b.starts},
		{[]string{"P9"}, b.memory},
		{[]string{"P10", "P11"}, b.growth},
		{[]string{"P12"}, b.revocations},
		{[]string{"P13"}, b.decisions},
	} {
		if !slices.ContainsFunc(part.goals, b.wants) {
			continue
		}
		fmt.Fprintf(stderr, "%s %s …\n", time.Since(started).Round(time.Second), strings.Join(part.goals, ", "))
		if err := part.measure(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(part.goals, ", "), err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	machine := b.machine(busy)
	printTable(stdout, machine, b.rows)
	fmt.Fprintf(stdout, "\n%s in %s\n", s.name, time.Since(started).Round(time.Second))
	if *file == "" {
		return nil
	}
	text, err := json.MarshalIndent(map[string]any{"machine": machine, "bench": s.name, "rows": b.rows}, "", "  ")
	return errors.Join(err, os.WriteFile(*file, append(text, '\n'), 0o644))
}

func (b *bench) wants(goal string) bool { return b.only == nil || slices.Contains(b.only, goal) }

func printTable(w io.Writer, machine []string, rows []row) {
	for _, line := range machine {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "GOAL\tWHAT\tVALUE\tGOAL\tMET\tREQ/S\tX BARE\tCPU µs\tX BARE\tP50 µs\tP99 µs\tRSS MB")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s", r.Goal, r.What, r.Value, r.Target, r.Met)
		if r.PerSecond > 0 {
			fmt.Fprintf(t, "\t%.0f\t%.2f\t%.1f\t%.2f\t%.0f\t%.0f\t%.0f", r.PerSecond, r.OfBare, r.CPU, r.CPUOfBare, r.P50, r.P99, float64(r.RSS)/1e6)
		}
		fmt.Fprintln(t)
	}
	t.Flush()
}

// machine says where the numbers come from.
func (b *bench) machine(busy string) []string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	commit, _ := exec.Command("git", "-C", b.root, "describe", "--always", "--dirty").Output()
	return []string{
		fmt.Sprintf("oidc-bridge %s, %s, PostgreSQL %d (fsync and full_page_writes off unless it is that of DATABASE_URL)",
			strings.TrimSpace(string(commit)), runtime.Version(), b.postgres.Version()),
		fmt.Sprintf("%d x %s, shared by client and servers; %d connections; %d rounds of %s, medians", runtime.NumCPU(), model, connections, b.rounds, b.duration),
		"load average before: " + busy + " (above 0.3, others were at work: look at the ratios and the counts only)",
	}
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// add appends a row that is met when all of the conditions hold.
func (b *bench) add(r row, conditions ...bool) {
	if r.Met == "" {
		r.Met = "yes"
		if slices.Contains(conditions, false) {
			r.Met = "no"
		}
	}
	b.rows = append(b.rows, r)
}
