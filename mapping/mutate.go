package mapping

import (
	"slices"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// Mutate removes each condition of the file in turn, runs the file's tests, and reports the conditions that no test misses (W511): nobody
// would notice their loss. A file that does not load is reported as Load does.
func Mutate(file string, text []byte) []strictyaml.Finding {
	l := newLoader(file, text)
	if strictyaml.Errors(l.doc.Findings()) {
		return l.doc.Findings()
	}
	for _, name := range l.rules.names {
		p := l.rules.providers[name]
		for _, r := range p.deny {
			l.mutate("deny", r)
		}
		for _, r := range p.rules {
			l.mutate("rule", r)
		}
	}
	return l.doc.Findings()
}

func (l *loader) mutate(kind string, r *rule) {
	missed := func(c *condition) {
		if !slices.ContainsFunc(l.rules.tests, func(t *test) bool { return len(l.run(t)) > 0 }) {
			l.doc.Warnf(c.at.node(), "W511", "write a test or a refuse_if that fails without it", "no test misses this condition of %s: %s", label(kind, r.name), c.text)
		}
	}
	without(&r.when, missed)
	for i := range r.unless {
		if item := &r.unless[i]; len(*item) > 1 {
			without(item, missed)
		}
	}
	items := r.unless
	for i := range items {
		if len(items[i]) == 1 {
			r.unless = slices.Delete(slices.Clone(items), i, i+1)
			missed(&items[i][0])
		}
	}
	r.unless = items

	table := r.table
	for i := range table {
		r.table = slices.Delete(slices.Clone(table), i, i+1)
		missed(&table[i].condition)
	}
	r.table = table
}

// without calls missed with each condition while the list lacks it.
func without(list *[]condition, missed func(*condition)) {
	whole := *list
	for i := range whole {
		*list = slices.Delete(slices.Clone(whole), i, i+1)
		missed(&whole[i])
	}
	*list = whole
}
