package e2e

import "os"

// axe holds the page that the window shows to the rules of axe-core for WCAG 2.0, 2.1 and 2.2, levels A and AA. The script comes by the debugger,
// which no Content-Security-Policy stops: the page stays as it is.
func (w *window) axe(name string) {
	w.t.Helper()
	script, err := os.ReadFile("axe/node_modules/axe-core/axe.min.js")
	if err != nil {
		w.t.Fatal(err)
	}
	if !evaluate[bool](w, "typeof axe === 'object'") {
		evaluate[bool](w, string(script)+"\n;true")
	}
	type result struct {
		Violations []string
		Passes     int
	}
	got := evaluate[result](w, `axe.run(document, {
		runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'], preload: false
	}).then(all => ({
		violations: all.violations.flatMap(v => v.nodes.map(node => v.id + ', ' + v.help + ': ' + node.html + ' ' + node.failureSummary)),
		passes: all.passes.length
	}))`)
	for _, violation := range got.Violations {
		w.t.Errorf("%s: axe: %s", name, violation)
	}
	// A page with a heading and a link passes about ten rules: language, title, contrast, names.
	if got.Passes < 5 {
		w.t.Errorf("%s: axe looked at %d rules only", name, got.Passes)
	}
	w.t.Logf("%s: axe: %d rules passed", name, got.Passes)
}
