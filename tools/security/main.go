// Command security prints the threat table with its results. It reads what `go test -json` writes, and passes on what a person wants to see
// of it: a line for each package, and the output of what failed.
//
//	go test -json -run '^TestAttack_' ./... | go -C tools run ./security
//
// The table is rows.txt. The tests of a row carry its id in their name: TestAttack_CB01_State. How many inputs a test has tried is what it says
// in lines "inputs tried: N" (bridgetest.Tried), and one for each of its subtests that says nothing. It fails when a test fails, when a row has
// neither a test nor a reason, and when a test names a row that does not exist.
package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
)

//go:embed rows.txt
var rowsText string

// An event is a line of `go test -json`, see `go doc test2json`.
type event struct{ Action, Package, ImportPath, Test, Output string }

// A row of the table.
type row struct {
	id, title string
	group     string // its heading, on the first row of a group
	later     string // why there is no test
	partLater string // what the tests leave out
	tests     []*test
}

// A test is a test function or a subtest.
type test struct {
	name     string
	action   string // pass, fail, skip; "" when it did not end
	inputs   int    // that it reported itself
	children []*test
	output   []string
}

// tried counts the inputs of the test and its subtests.
func (t *test) tried() int {
	n := t.inputs
	for _, child := range t.children {
		n += child.tried()
	}
	return max(n, 1)
}

var (
	rowLine  = regexp.MustCompile(`^([A-Z]{2}-\d\d)  (.+)$`)
	attack   = regexp.MustCompile(`^TestAttack_((?:[A-Z]{2}\d\d_)+)`)
	reported = regexp.MustCompile(`inputs tried: (\d+)\n$`)
)

func main() {
	rows, err := parse(rowsText)
	if err == nil {
		err = run(rows, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func parse(text string) (rows []*row, err error) {
	group := ""
	for number, line := range strings.Split(text, "\n") {
		later, isReason := strings.CutPrefix(strings.TrimSpace(line), "later: ")
		part, isPart := strings.CutPrefix(strings.TrimSpace(line), "in part later: ")
		switch match := rowLine.FindStringSubmatch(line); {
		case match != nil:
			rows = append(rows, &row{id: match[1], title: match[2], group: group})
			group = ""
		case isReason && len(rows) > 0:
			rows[len(rows)-1].later = later
		case isPart && len(rows) > 0:
			rows[len(rows)-1].partLater = part
		case strings.HasPrefix(line, "## "):
			group = line[3:]
		case line != "" && !strings.HasPrefix(line, "#"):
			return nil, fmt.Errorf("rows.txt:%d: neither a row nor a reason: %s", number+1, line)
		}
	}
	return rows, nil
}

func run(rows []*row, in io.Reader, out io.Writer) error {
	byID := map[string]*row{}
	for _, r := range rows {
		byID[r.id] = r
	}
	var problems []string
	notBuilt := false
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	tests := map[string]*test{}
	find := func(e event) *test {
		key := e.Package + " " + e.Test
		if t := tests[key]; t != nil {
			return t
		}
		t := &test{name: e.Test}
		tests[key] = t
		if end := strings.LastIndex(e.Test, "/"); end >= 0 {
			if parent := tests[e.Package+" "+e.Test[:end]]; parent != nil {
				parent.children = append(parent.children, t)
			}
			return t
		}
		if match := attack.FindStringSubmatch(e.Test); match != nil {
			for id := range strings.SplitSeq(strings.TrimSuffix(match[1], "_"), "_") {
				if r := byID[id[:2]+"-"+id[2:]]; r != nil {
					r.tests = append(r.tests, t)
				} else {
					problem("%s: there is no row %s-%s", e.Test, id[:2], id[2:])
				}
			}
		} else if strings.HasPrefix(e.Test, "TestAttack") {
			problem("%s: the name does not begin with TestAttack_<row>_", e.Test)
		}
		return t
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(out, lines.Text()) // of the go command itself
			continue
		}
		switch {
		case e.Action == "build-output":
			fmt.Fprint(out, e.Output)
		case e.Action == "build-fail":
			notBuilt = true
			problem("%s does not build", e.ImportPath)
		case e.Test == "" && e.Action == "output":
			if strings.HasPrefix(e.Output, "ok ") || strings.HasPrefix(e.Output, "FAIL\t") || !strings.HasPrefix(e.Output, "?") && !strings.HasPrefix(e.Output, "PASS") && !strings.HasPrefix(e.Output, "coverage") {
				fmt.Fprint(out, e.Output)
			}
		case e.Test == "" && e.Action == "fail":
			problem("package %s failed", e.Package)
		case e.Test != "":
			t := find(e)
			switch e.Action {
			case "output":
				t.output = append(t.output, e.Output)
				if match := reported.FindStringSubmatch(e.Output); match != nil {
					n, _ := strconv.Atoi(match[1])
					t.inputs += n
				}
			case "fail":
				t.action = e.Action
				fmt.Fprint(out, strings.Join(t.output, ""))
				t.output = nil
			case "pass", "skip":
				t.action, t.output = e.Action, nil
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if notBuilt {
		return errors.New(strings.Join(problems, "\n"))
	}
	total, counts := 0, map[string]int{}
	for _, r := range rows {
		if r.group != "" {
			fmt.Fprintf(out, "\n%s\n", r.group)
		}
		inputs := 0
		for _, t := range r.tests {
			inputs += t.tried()
		}
		total += inputs
		result := r.result()
		counts[strings.Split(result, ":")[0]]++
		switch {
		case strings.HasPrefix(result, "later"):
			fmt.Fprintf(out, "  %s  %-62s         %s\n", r.id, short(r.title), result)
		case result == "passed" && r.partLater != "":
			fmt.Fprintf(out, "  %s  %-62s %7d  %s; later: %s\n", r.id, short(r.title), inputs, result, r.partLater)
		default:
			fmt.Fprintf(out, "  %s  %-62s %7d  %s\n", r.id, short(r.title), inputs, result)
		}
		if result != "passed" && !strings.HasPrefix(result, "later") {
			problem("%s: %s", r.id, result)
		}
	}
	fmt.Fprintf(out, "\n%d rows passed with %d inputs, %d come later, %d are neither\n", counts["passed"], total, counts["later"], len(rows)-counts["passed"]-counts["later"])
	if len(problems) > 0 {
		return fmt.Errorf("\n%s", strings.Join(problems, "\n"))
	}
	return nil
}

// result is passed, "later: why", or what is wrong.
func (r *row) result() string {
	if len(r.tests) == 0 {
		if r.later != "" {
			return "later: " + r.later
		}
		return "has neither a test nor a reason"
	}
	for _, t := range r.tests {
		switch t.action {
		case "pass":
		case "":
			return t.name + " did not end"
		default:
			return t.name + ": " + t.action
		}
	}
	return "passed"
}

func short(title string) string {
	if runes := []rune(title); len(runes) > 60 {
		return string(runes[:59]) + "…"
	}
	return title
}
