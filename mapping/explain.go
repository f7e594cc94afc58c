package mapping

import "time"

// An Explanation is a decision and how it came about.
type Explanation struct {
	Decision Decision
	Steps    []*Step // deny rules, then rules up to the one that decided
}

// A Step is one deny rule or rule.
type Step struct {
	Kind   string // "deny" or "rule"
	Name   string
	Line   int
	Result string // "no", "undecidable" or "yes"
	Lines  []Line
}

// A Line is one condition of a step.
type Line struct {
	Part   string // "when", "unless", "by" or "until"
	Text   string // such as "groups is /hr/leavers"
	Result string // "no", "undecidable" or "yes"
	Got    string
}

// Explain decides as Decide does and writes down every step.
func (r *Rules) Explain(in Input) Explanation {
	var e Explanation
	e.Decision = r.decide(in, &e)
	return e
}

// The methods below do nothing on nil, so that Decide runs the same code and pays nothing.

func (e *Explanation) step(kind string, r *rule) *Step {
	if e == nil {
		return nil
	}
	s := &Step{Kind: kind, Name: r.name, Line: r.line}
	e.Steps = append(e.Steps, s)
	return s
}

func (s *Step) settle(result truth) {
	if s != nil {
		s.Result = result.String()
	}
}

func (s *Step) add(part string, c *condition, f *facts, result truth) {
	if s != nil {
		s.Lines = append(s.Lines, Line{Part: part, Text: c.text, Result: result.String(), Got: f.values[c.claim.slot].String()})
	}
}

func (s *Step) addUntil(end time.Time, result truth) {
	if s != nil {
		s.Lines = append(s.Lines, Line{Part: "until", Text: end.AddDate(0, 0, -1).Format(time.DateOnly), Result: result.String()})
	}
}
