package mapping

import (
	"fmt"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// A TestResult is one test of the file and how it went.
type TestResult struct {
	Name     string `json:"name"`
	Line     int    `json:"line"`
	Passed   bool   `json:"passed"`
	RefuseIf int    `json:"refuse_if"` // how many changes of its claims must end in a refusal
}

// Test runs the tests of the file. The findings are those of Load; a test that fails is one of them (T601). ran is false when the file has
// errors that keep its tests from running.
func Test(file string, text []byte) (results []TestResult, ran bool, findings []strictyaml.Finding) {
	l := newLoader(file, text)
	for _, t := range l.rules.tests {
		results = append(results, TestResult{t.name, t.at.Line, t.failures == 0, len(t.refuseIf)})
	}
	return results, l.tested, l.doc.Findings()
}

// A Person is somebody whom a test of a rules file describes, or whom an item of its refuse_if makes of them.
type Person struct {
	Name   string // such as `test "an admin", refuse_if 2`
	claims map[string]any
	test   *test
}

// Persons returns everybody whom the file's tests describe.
func (r *Rules) Persons() []Person {
	var persons []Person
	for _, t := range r.tests {
		name := fmt.Sprintf("test %q", t.name)
		persons = append(persons, Person{name, t.claims, t})
		for i, p := range t.refuseIf {
			changed, _ := mergePatch(t.claims, p.members).(map[string]any)
			persons = append(persons, Person{fmt.Sprintf("%s, refuse_if %d", name, i+1), changed, t})
		}
	}
	return persons
}

// Input is the person as these rules see them, which need not be those that describe them: another file declares other claims.
func (r *Rules) Input(p Person) Input { return r.input(p.test, p.claims) }

// Key is equal for persons whom the same test describes in two files.
func (p Person) Key() string {
	return fmt.Sprint(p.Name, p.test.provider.name, asJSON(p.claims), p.test.row, p.test.now.Unix())
}
