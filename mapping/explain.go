package mapping

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Explanation is a decision and how it came about.
type Explanation struct {
	Decision Decision `json:"-"`
	Steps    []*Step  `json:"steps"` // every deny rule, then the rules up to the one that decided
}

// A Step is one deny rule or rule.
type Step struct {
	Kind   string `json:"kind"` // "deny" or "rule"
	Name   string `json:"name"`
	Line   int    `json:"line"`
	Result string `json:"result"` // "no", "undecidable" or "yes"
	Lines  []Line `json:"lines"`
}

// A Line is one condition of a step.
type Line struct {
	Part   string `json:"part"`   // "when", "unless", "by" or "until"
	Text   string `json:"text"`   // such as "groups is /hr/leavers"
	Result string `json:"result"` // "no", "undecidable" or "yes"
	Got    string `json:"got,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// Explain decides as Decide does and writes down every step.
func (r *Rules) Explain(in Input) Explanation {
	var e Explanation
	e.Decision = r.decide(in, &e)
	return e
}

// The methods below do nothing on nil, so that Decide runs the same code and pays nothing for it.

func (e *Explanation) step(kind string, r *rule) *Step {
	if e == nil {
		return nil
	}
	s := &Step{Kind: kind, Name: r.name, Line: r.at.line}
	e.Steps = append(e.Steps, s)
	return s
}

func (s *Step) settle(result truth) {
	if s != nil {
		s.Result = result.String()
	}
}

func (s *Step) add(part string, c *condition, f *facts, result truth) {
	if s == nil {
		return
	}
	v := &f.values[c.claim.slot]
	line := Line{Part: part, Text: c.text, Result: result.String(), Got: v.String()}
	if result == no && c.quantifier == some && c.fitsButForCase(v) {
		line.Hint = "differs in upper and lower case only"
	}
	s.Lines = append(s.Lines, line)
}

func (s *Step) addUntil(end time.Time, result truth) {
	if s != nil {
		s.Lines = append(s.Lines, Line{Part: "until", Text: lastDay(end), Result: result.String()})
	}
}

func lastDay(end time.Time) string { return end.AddDate(0, 0, -1).Format(time.DateOnly) }

func (c *condition) fitsButForCase(v *value) bool {
	elements := v.list
	if elements == nil {
		elements = []string{v.text}
	}
	return c.comparison == equal && slices.ContainsFunc(elements, func(element string) bool {
		return slices.ContainsFunc(c.operands, func(operand string) bool { return strings.EqualFold(element, operand) })
	})
}

// String is the explanation for a terminal.
func (e Explanation) String() string {
	var b strings.Builder
	for _, s := range e.Steps {
		result := map[string]string{"no": "-", "yes": "MATCH", "undecidable": "UNDECIDABLE"}[s.Result]
		fmt.Fprintf(&b, "%-33s line %d  %s\n", fmt.Sprintf("%s %q", s.Kind, s.Name), s.Line, result)
		for _, l := range s.Lines {
			text := fmt.Sprintf("       %-6s %-46s %-8s", l.Part, l.Text, map[string]string{"no": "no", "yes": "yes", "undecidable": "unknown"}[l.Result])
			if l.Got != "" {
				text += " got " + shortened(l.Got)
			}
			if l.Hint != "" {
				text += " (" + l.Hint + ")"
			}
			b.WriteString(strings.TrimRight(text, " ") + "\n")
		}
	}
	b.WriteString("=> " + e.Decision.String())
	if token := e.Decision.Token(); len(token) > 0 {
		b.WriteString("; extra token claims " + asJSON(token))
	}
	b.WriteString("\n")
	if message := e.Decision.Message(); message != "" {
		b.WriteString("   the person is told: " + message + "\n")
	}
	for _, miss := range e.NearMisses() {
		b.WriteString("   " + miss + "\n")
	}
	return b.String()
}

// longestGot is how much of a value a terminal shows, in characters: some people have hundreds of groups.
const longestGot = 160

func shortened(got string) string {
	if runes := []rune(got); len(runes) > longestGot {
		return string(runes[:longestGot]) + "…"
	}
	return got
}

// NearMisses names the rules that all but one of their lines speak for. Of a grant it names those only that upper and lower case keep from
// matching: that somebody lacks a group is why the next rule was asked.
func (e Explanation) NearMisses() []string {
	granted := e.Decision.outcome == Granted || e.Decision.outcome == FromRow
	var misses []string
	for _, s := range e.Steps {
		unmet, met := s.tally()
		if s.Kind != "rule" || len(unmet) != 1 || unmet[0].Hint == "" && (granted || met == 0) {
			continue
		}
		miss := fmt.Sprintf("near miss: rule %q lacks only: %s %s", s.Name, unmet[0].Part, unmet[0].Text)
		if unmet[0].Hint != "" {
			miss += ", which " + unmet[0].Hint
		}
		misses = append(misses, miss)
	}
	return misses
}

// tally returns the lines that keep the step from matching, and how many lines of `when` are met. The lines of a table stand for one: the
// last, which is the one that matched if any did, or the one that only its case keeps from matching.
func (s *Step) tally() (unmet []Line, met int) {
	table := len(s.Lines) - 1
	for i, l := range s.Lines {
		if l.Part == "by" && l.Hint != "" && s.Lines[table].Result == "no" {
			table = i
		}
	}
	for i, l := range s.Lines {
		wanted := "yes"
		if l.Part == "unless" {
			wanted = "no"
		}
		switch {
		case l.Part == "by" && i != table:
		case l.Result != wanted:
			unmet = append(unmet, l)
		case l.Part == "when":
			met++
		}
	}
	return unmet, met
}

// String is the decision in one line, without any claim's value.
func (d Decision) String() string {
	switch d.outcome {
	case Granted:
		text := fmt.Sprintf("role %s by %s", d.role.Name, d.origin())
		if d.ttl > 0 {
			text += ", for at most " + d.ttl.String()
		}
		return text
	case FromRow:
		allow, byDefault := d.RowRoles()
		text := fmt.Sprintf("the users row's role, if it is one of %s", strings.Join(allow, ", "))
		if byDefault != "" {
			text += "; " + byDefault + " if it has none"
		}
		return text + "; by " + d.origin()
	case LoginAgain:
		return "log in again: " + d.reason
	default:
		return "refused: " + d.Reason()
	}
}

func (d Decision) origin() string {
	if d.rule == "default" {
		return "default"
	}
	return fmt.Sprintf("rule %q", d.rule)
}
