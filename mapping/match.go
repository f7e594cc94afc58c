package mapping

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// truth is a value of Kleene's three-valued logic. The order makes "and" the lower and "or" the higher of two.
type truth uint8

const (
	no truth = iota
	undecidable
	yes
)

func (t truth) String() string { return [...]string{"no", "undecidable", "yes"}[t] }

func (t truth) and(other truth) truth { return min(t, other) }

func (t truth) not() truth { return yes - t }

func truthOf(holds bool) truth {
	if holds {
		return yes
	}
	return no
}

// quantifier says how the elements of a value and the operands of a condition meet. A value that is no set has one element.
type quantifier uint8

const (
	some    quantifier = iota // some element fits some operand
	all                       // every operand is fitted by some element
	none                      // no element fits any operand
	present                   // the claim is there, and is not an empty set
	missing
)

// comparison says when an element fits an operand.
type comparison uint8

const (
	equal comparison = iota
	prefix
	pattern // the whole of it matches the regular expression, to which a glob is translated too
	subdomain
)

// A condition is one line under `when` or `unless`, or one line of a table.
type condition struct {
	claim      *claim
	quantifier quantifier
	comparison comparison
	operands   []string // canonical, as values are
	regexp     *regexp.Regexp
	text       string // as explanations show it
	line       int
}

func (c *condition) holds(values []value) truth {
	v := &values[c.claim.slot]
	switch {
	case !v.decided():
		return undecidable
	case c.quantifier == present:
		return truthOf(v.state == statePresent && !v.emptySet())
	case c.quantifier == missing:
		return truthOf(v.state != statePresent || v.emptySet())
	case v.known():
		return truthOf(c.fits(v))
	case c.quantifier == none:
		return undecidable // E301 keeps such a file from loading; if it did load, absence would still grant nothing
	default:
		return no
	}
}

func (v *value) emptySet() bool { return v.list != nil && len(v.list) == 0 }

func (c *condition) fits(v *value) bool {
	switch c.quantifier {
	case some:
		return c.fitsSome(v)
	case none:
		return !c.fitsSome(v)
	default:
		for _, operand := range c.operands {
			if v.list == nil && v.text != operand || v.list != nil && !slices.Contains(v.list, operand) {
				return false
			}
		}
		return true
	}
}

func (c *condition) fitsSome(v *value) bool {
	if v.list == nil {
		return c.fitsText(v.text)
	}
	for _, element := range v.list {
		if c.fitsText(element) {
			return true
		}
	}
	return false
}

func (c *condition) fitsText(text string) bool {
	switch c.comparison {
	case equal:
		return slices.Contains(c.operands, text)
	case prefix:
		return strings.HasPrefix(text, c.operands[0])
	case subdomain:
		return under(text, c.operands[0])
	default:
		return c.regexp.MatchString(text)
	}
}

// A rule is a deny rule or a rule that gives a role.
type rule struct {
	name   string
	line   int
	when   []condition
	unless [][]condition // an item blocks when all of its lines hold

	message string // deny only: what the person is told

	role  *role       // the role it gives,
	table []tableLine // or the table that has it,
	row   *rowRole    // or what it takes from the users row
	ttl   time.Duration
	until time.Time    // from here on it does not match; zero: no end
	token []tokenClaim // the file's extra claims and its own

	matched string // the reason of a decision by this rule, built once
}

type tableLine struct {
	condition condition
	role      *role
}

// rowRole takes the role from the users row, within a list.
type rowRole struct {
	allow    []*role
	fallback *role // for a row without role; nil: refuse
}

// evaluate reports whether the rule matches, and the role if it names one. With a step it writes down every line; without, it stops at the
// first line that settles the answer. Kleene's "and" makes both the same.
func (r *rule) evaluate(values []value, now time.Time, step *Step) (truth, *role) {
	result := yes
	if !r.until.IsZero() {
		result = notYet(now, r.until)
		step.addUntil(r.until, result)
	}
	for i := range r.when {
		if result == no && step == nil {
			return no, nil
		}
		holds := r.when[i].holds(values)
		step.add("when", &r.when[i], values, holds)
		result = result.and(holds)
	}
	for _, item := range r.unless {
		if result == no && step == nil {
			return no, nil
		}
		blocked := yes
		for i := range item {
			holds := item[i].holds(values)
			step.add("unless", &item[i], values, holds)
			blocked = blocked.and(holds)
		}
		result = result.and(blocked.not())
	}
	if r.table == nil || result == no && step == nil {
		return result, r.role
	}
	holds, role := r.lookUp(values, step)
	return result.and(holds), role
}

// lookUp finds the first line of the table that the person has.
func (r *rule) lookUp(values []value, step *Step) (truth, *role) {
	for i := range r.table {
		line := &r.table[i]
		holds := line.condition.holds(values)
		step.add("by", &line.condition, values, holds)
		if holds != no {
			return holds, line.role
		}
	}
	return no, nil
}

// notYet is undecidable when the caller did not say what time it is.
func notYet(now, end time.Time) truth {
	if now.IsZero() {
		return undecidable
	}
	return truthOf(now.Before(end))
}
