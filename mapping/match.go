package mapping

import (
	"regexp"
	"slices"
	"time"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
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

// position is where something stands in the file.
type position struct{ line, column int }

// facts are the claims of one decision, read once.
type facts struct {
	values []value  // by the slots of the claims
	held   []uint64 // bit i: the text with index i is (an element of) the value of the claim that is compared with it, or what one begins with
}

// learn puts the value of a claim among the facts.
func (f *facts) learn(c *claim, v value) {
	f.values[c.slot] = v
	switch {
	case !v.known():
	case v.list == nil:
		f.hold(c, v.text)
	default:
		for _, element := range v.list {
			f.hold(c, element)
		}
	}
}

func (f *facts) hold(c *claim, text string) {
	if i, compared := c.literals[text]; compared {
		f.held[i/64] |= 1 << (i % 64)
	}
	for i := c.prefixes.of(text); i >= 0; i = c.prefixes[i].parent {
		literal := c.prefixes[i].literal
		f.held[literal/64] |= 1 << (literal % 64)
	}
}

func (f *facts) holds(literal int) bool { return f.held[literal/64]&(1<<(literal%64)) != 0 }

// A condition is one line under `when` or `unless`, or one line of a table.
type condition struct {
	claim      *claim
	quantifier quantifier
	comparison comparison
	operands   []string // canonical, as values are
	literals   []int    // for equal and prefix: the indexes of the operands; for pattern: that of beginning
	regexp     *regexp.Regexp
	beginning  string // of all that the pattern matches; may be ""
	glob       bool   // for pattern: it was written as a glob
	text       string // as explanations show it
	at         position
}

func (c *condition) holds(f *facts) truth {
	v := &f.values[c.claim.slot]
	switch {
	case !v.decided():
		return undecidable
	case c.quantifier == present:
		return truthOf(v.state == statePresent && !v.emptySet())
	case c.quantifier == missing:
		return truthOf(v.state != statePresent || v.emptySet())
	case v.known():
		return truthOf(c.fits(f, v))
	case c.quantifier == none:
		return undecidable // E301 keeps such a file from loading; if it did load, absence would still grant nothing
	default:
		return no
	}
}

func (v *value) emptySet() bool { return v.list != nil && len(v.list) == 0 }

func (c *condition) fits(f *facts, v *value) bool {
	switch {
	case c.quantifier == all:
		for _, literal := range c.literals {
			if !f.holds(literal) {
				return false
			}
		}
		return true
	case c.comparison == equal:
		return c.holdsAny(f) == (c.quantifier == some)
	case c.comparison == prefix:
		return c.holdsAny(f)
	case len(c.literals) > 0 && !c.holdsAny(f):
		return false
	case v.list == nil:
		return c.fitsText(v.text)
	default:
		return slices.ContainsFunc(v.list, c.fitsText)
	}
}

func (c *condition) holdsAny(f *facts) bool {
	found := false
	for _, literal := range c.literals {
		found = found || f.holds(literal)
	}
	return found
}

// fitsText compares what no index answers; only `some` has that.
func (c *condition) fitsText(text string) bool {
	if c.comparison == subdomain {
		return under(text, c.operands[0])
	}
	return c.regexp.MatchString(text)
}

// A rule is a deny rule or a rule that gives a role.
type rule struct {
	name   string
	at     position
	when   []condition
	unless [][]condition // an item blocks when all of its lines hold

	message string // deny only: what the person is told

	role  *role       // the role it gives,
	table []tableLine // or the table that has it,
	row   *rowRole    // or what it takes from the users row
	ttl   time.Duration
	until time.Time          // from here on it does not match; zero: no end
	ended strictyaml.Finding // that it does, to be used when it is so; without a code when a comment silences it
	token []tokenClaim       // the file's extra claims and its own

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
func (r *rule) evaluate(f *facts, now time.Time, step *Step) (truth, *role) {
	result := yes
	if !r.until.IsZero() {
		result = notYet(now, r.until)
		step.addUntil(r.until, result)
	}
	for i := range r.when {
		if result == no && step == nil {
			return no, nil
		}
		holds := r.when[i].holds(f)
		step.add("when", &r.when[i], f, holds)
		result = result.and(holds)
	}
	for _, item := range r.unless {
		if result == no && step == nil {
			return no, nil
		}
		blocked := yes
		for i := range item {
			holds := item[i].holds(f)
			step.add("unless", &item[i], f, holds)
			blocked = blocked.and(holds)
		}
		result = result.and(blocked.not())
	}
	if r.table == nil || result == no && step == nil {
		return result, r.role
	}
	holds, role := r.lookUp(f, step)
	return result.and(holds), role
}

// lookUp finds the first line of the table that the person has.
func (r *rule) lookUp(f *facts, step *Step) (truth, *role) {
	for i := range r.table {
		line := &r.table[i]
		holds := line.condition.holds(f)
		step.add("by", &line.condition, f, holds)
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
