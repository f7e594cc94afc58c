//go:build !race

package mapping

import "testing"

// Matching allocates nothing, whatever the machine. The race detector makes regular expressions forget what they keep, so this file is built
// without it.
func TestDecideAllocatesNothing(t *testing.T) {
	for _, pattern := range []string{"prefix: /apollo/%d/", `glob: "/department/%d/*/x"`, `regex: ".+/apollo/%d"`} {
		rules := hundredRules(t, 50, pattern)
		in := Input{Provider: "corp", Claims: hundredClaims(rules), Row: Row{Known: true}}
		if n := testing.AllocsPerRun(100, func() { rules.Decide(in) }); n != 0 {
			t.Errorf("%s: Decide allocates %v times", pattern, n)
		}
	}
}
