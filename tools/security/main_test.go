package main

import (
	"fmt"
	"strings"
	"testing"
)

const testRows = `# comment

## AA  First group
AA-01  one
AA-02  two
       later: because
AA-03  three
       in part later: the rest
`

func events(lines ...string) string {
	var out strings.Builder
	for _, line := range lines {
		head, output, found := strings.Cut(line, "|")
		if found {
			output += "\\n"
		}
		action, name, _ := strings.Cut(head, " ")
		fmt.Fprintf(&out, `{"Action":%q,"Package":"p","Test":%q,"Output":"%s"}`+"\n", action, name, output)
	}
	return out.String()
}

func TestTable(t *testing.T) {
	good := []string{"run TestAttack_AA01_X", "output TestAttack_AA01_X|    x_test.go:1: inputs tried: 7", "pass TestAttack_AA01_X", "run TestAttack_AA03_X", "run TestAttack_AA03_X/a", "pass TestAttack_AA03_X/a", "run TestAttack_AA03_X/b", "pass TestAttack_AA03_X/b", "pass TestAttack_AA03_X"}
	for name, test := range map[string]struct {
		rows, events string
		out, err     string
	}{
		"good":         {testRows, events(good...), "AA-01  one  7  passed|AA-02  two  later: because|AA-03  three  2  passed; later: the rest|2 rows passed with 9 inputs, 1 come later, 0 are neither", ""},
		"two rows":     {testRows, events(append(good, "run TestAttack_AA01_AA03_X", "pass TestAttack_AA01_AA03_X")...), "AA-01  one  8  passed|AA-03  three  3  passed", ""},
		"failed":       {testRows, events(append(good, "run TestAttack_AA01_Y", "output TestAttack_AA01_Y|what went wrong", "fail TestAttack_AA01_Y")...), "what went wrong|AA-01  one  8  TestAttack_AA01_Y: fail", "AA-01: TestAttack_AA01_Y: fail"},
		"did not end":  {testRows, events(append(good, "run TestAttack_AA01_Y")...), "", "AA-01: TestAttack_AA01_Y did not end"},
		"skipped":      {testRows, events(append(good, "run TestAttack_AA02_Y", "skip TestAttack_AA02_Y")...), "", "AA-02: TestAttack_AA02_Y: skip"},
		"no test":      {testRows, events(good[:3]...), "", "AA-03: has neither a test nor a reason"},
		"unknown row":  {testRows, events(append(good, "run TestAttack_AA09_Y", "pass TestAttack_AA09_Y")...), "", "TestAttack_AA09_Y: there is no row AA-09"},
		"no row":       {testRows, events(append(good, "run TestAttackOfAll", "pass TestAttackOfAll")...), "", "TestAttackOfAll: the name does not begin with"},
		"another test": {testRows, events(append(good, "run TestOther", "output TestOther|why", "fail TestOther", "fail ")...), "why", "package p failed"},
		"no build":     {testRows, `{"ImportPath":"p","Action":"build-output","Output":"syntax error\n"}` + "\n" + `{"ImportPath":"p","Action":"build-fail"}`, "syntax error", "p does not build"},
		"bad rows":     {testRows + "what is this", "", "", "rows.txt:9: neither a row nor a reason"},
	} {
		rows, err := parse(test.rows)
		var out strings.Builder
		if err == nil {
			err = run(rows, strings.NewReader(test.events), &out)
		}
		table := strings.Join(strings.Fields(out.String()), " ")
		for part := range strings.SplitSeq(test.out, "|") {
			if !strings.Contains(table, strings.Join(strings.Fields(part), " ")) {
				t.Errorf("%s: want %q in\n%s", name, part, out.String())
			}
		}
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
