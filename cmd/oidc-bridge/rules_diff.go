package main

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/mapping"
)

type rulesDiffCommand struct {
	Old string `arg:"" help:"The rules file to compare with; - is standard input."`
	New string `arg:"" help:"The rules file that is to come; - is standard input."`
	configFlag
	DB     bool     `name:"db" help:"Look at every known identity, with its last claims. Without it: at the persons of both files' tests."`
	FailOn []string `placeholder:"gain:ROLE,lose:ROLE" help:"Exit code 1 when somebody gains or loses the role; * is any role."`
	All    bool     `help:"Name everybody, one line each, instead of the first few of a kind."`
	Format string   `default:"text" enum:"text,json" placeholder:"FORMAT" help:"text or json. Default: ${default}."`
}

func (rulesDiffCommand) Help() string {
	return `Decides for everybody by both files and shows whose answer differs: another role, a refusal, other extra claims in the token. Users who
are disabled are left out. It only reads, a thousand identities at a time.

Examples:

  oidc-bridge rules diff rules.yaml new.yaml --db
  git show HEAD:rules.yaml | oidc-bridge rules diff - rules.yaml --db
  oidc-bridge rules diff old.yaml rules.yaml --db --fail-on 'gain:app_admin,lose:*'    in CI

Exit code 1 when --fail-on finds somebody, or when a file cannot be used.`
}

// Validate holds --fail-on to its form.
func (c rulesDiffCommand) Validate() error {
	for _, condition := range c.FailOn {
		if kind, role, ok := strings.Cut(condition, ":"); !ok || role == "" || kind != "gain" && kind != "lose" {
			return fmt.Errorf("--fail-on %s: write gain:ROLE or lose:ROLE, with commas between several", condition)
		}
	}
	if c.Old == standardInput && c.New == standardInput {
		return errors.New("only one of the files can be standard input")
	}
	return nil
}

func (c rulesDiffCommand) Run(env environment) error {
	older, err := loadRules(env, c.Old)
	if err != nil {
		return err
	}
	newer, err := loadRules(env, c.New)
	if err != nil {
		return err
	}
	for _, condition := range c.FailOn {
		_, role, _ := strings.Cut(condition, ":")
		known := slices.Concat(roleNames(older), roleNames(newer))
		if role != "*" && !slices.Contains(known, role) {
			return unknown("role", role, known)
		}
	}
	d := differ{out: newList(env.stdout, c.Format, "changes"), all: c.All, failOn: c.FailOn, failures: map[string]int{}}
	if c.DB {
		err = d.identities(env, c.configFlag, older, newer)
	} else {
		err = d.persons(older, newer)
	}
	if err != nil {
		return err
	}
	if err := d.finish(env, c.DB); err != nil {
		return err
	}
	if len(d.failures) > 0 {
		return errFindings
	}
	return nil
}

// A change is somebody whose answer differs.
type change struct {
	Who      person  `json:"who"`
	Old      verdict `json:"old"`
	New      verdict `json:"new"`
	TokenDif string  `json:"token_differs,omitempty"` // names of extra claims
}

// A person is somebody in the output of diff and who.
type person struct {
	Test     string `json:"test,omitempty"`
	UserID   string `json:"user_id,omitempty"`
	Email    string `json:"email,omitempty"`
	Provider string `json:"provider,omitempty"`
	Subject  string `json:"subject,omitempty"`
}

func personOf(k bridge.KnownIdentity) person {
	return person{UserID: k.UserID, Email: k.Email, Provider: k.Provider, Subject: k.Subject}
}

func (p person) String() string {
	return plain(cmp.Or(p.Test, p.Email, "user "+p.UserID))
}

// A verdict is a decision in the output of diff.
type verdict struct {
	Role   string `json:"role,omitempty"`
	Rule   string `json:"rule,omitempty"`
	Reason string `json:"reason"`
	what   string // the role, or what happens instead
}

func verdictOf(d mapping.Decision) verdict {
	v := verdict{Rule: d.Rule(), Reason: d.Reason(), what: "refused"}
	switch role, granted := d.Role(); {
	case granted:
		v.Role, v.what = role, role
	case d.Outcome() == mapping.LoginAgain:
		v.what = "must log in again"
	}
	return v
}

func (v verdict) by() string {
	if v.Role != "" {
		return fmt.Sprintf("by %q", v.Rule)
	}
	return v.Reason
}

// A differ holds two files against each other. It keeps one line for each kind of change, of which there are few, and streams the rest.
type differ struct {
	out      *list
	all      bool
	failOn   []string
	failures map[string]int // how many people each condition of failOn caught
	seen     int
	disabled int
	changed  int
	kinds    []*kindOfChange
}

type kindOfChange struct {
	what, by string
	count    int
	examples []string
}

// examplesShown is how many people of a kind are named.
const examplesShown = 3

func (d *differ) identities(env environment, config configFlag, older, newer *mapping.Rules) error {
	return eachIdentity(env, config, d.out, func(k bridge.KnownIdentity) {
		if k.Disabled {
			d.disabled++
			return
		}
		in := mapping.Input{Provider: k.Provider, Claims: k.Claims, Row: k.Row, Now: time.Now()}
		d.compare(personOf(k), older.Decide(in), newer.Decide(in))
	})
}

// persons compares by the people of both files' tests; somebody who stands in both is one.
func (d *differ) persons(older, newer *mapping.Rules) error {
	seen := map[string]bool{}
	for _, p := range slices.Concat(older.Persons(), newer.Persons()) {
		key := p.Key()
		if !seen[key] {
			seen[key] = true
			d.compare(person{Test: p.Name}, older.Decide(older.Input(p)), newer.Decide(newer.Input(p)))
		}
	}
	if d.seen == 0 {
		return errors.New("neither file has tests to compare by; --db compares by every known identity")
	}
	return nil
}

func (d *differ) compare(who person, older, newer mapping.Decision) {
	d.seen++
	c := change{Who: who, Old: verdictOf(older), New: verdictOf(newer)}
	what, by := c.Old.what+" -> "+c.New.what, c.New.by()
	if c.Old.what == c.New.what {
		if c.TokenDif = tokenDifference(older, newer); c.TokenDif == "" {
			return
		}
		what, by = c.New.what+", other tokens", c.TokenDif
	}
	d.changed++
	d.fail(c)
	d.out.add(c)
	if d.all && !d.out.json {
		d.out.print("%-40s %s  %s\n", what, by, who)
		return
	}
	i := slices.IndexFunc(d.kinds, func(k *kindOfChange) bool { return k.what == what && k.by == by })
	if i < 0 {
		i = len(d.kinds)
		d.kinds = append(d.kinds, &kindOfChange{what: what, by: by})
	}
	k := d.kinds[i]
	if k.count++; len(k.examples) < examplesShown {
		k.examples = append(k.examples, who.String())
	}
}

func (d *differ) fail(c change) {
	for _, condition := range d.failOn {
		kind, role, _ := strings.Cut(condition, ":")
		got := c.New.Role
		if kind == "lose" {
			got = c.Old.Role
		}
		if c.Old.Role != c.New.Role && got != "" && (role == "*" || role == got) {
			d.failures[condition]++
		}
	}
}

// tokenDifference names what differs between two tokens of one role.
func tokenDifference(older, newer mapping.Decision) string {
	var differs []string
	before, after := older.Token(), newer.Token()
	for name, value := range before {
		if other, there := after[name]; !there || !reflect.DeepEqual(value, other) {
			differs = append(differs, name)
		}
	}
	for name := range after {
		if _, there := before[name]; !there {
			differs = append(differs, name)
		}
	}
	if older.TTL() != newer.TTL() {
		differs = append(differs, "lifetime")
	}
	slices.Sort(differs)
	return strings.Join(differs, ", ")
}

func (d *differ) finish(env environment, db bool) error {
	slices.SortStableFunc(d.kinds, func(a, b *kindOfChange) int { return cmp.Compare(b.count, a.count) })
	var table strings.Builder
	columns := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	for _, k := range d.kinds {
		more := ""
		if rest := k.count - len(k.examples); rest > 0 {
			more = fmt.Sprintf(" and %d more", rest)
		}
		fmt.Fprintf(columns, "%d\t%s\t%s\t%s%s\n", k.count, k.what, k.by, strings.Join(k.examples, "; "), more)
	}
	columns.Flush()
	d.out.print("%s", table.String())
	whom := "persons of the tests"
	if db {
		whom = "known identities"
	}
	err := d.out.end(map[string]any{"compared": d.seen, "changed": d.changed, "disabled": d.disabled, "fail_on": d.failures},
		fmt.Sprintf("%d of %d %s change%s", d.changed, d.seen, whom, leftOut(d.disabled)))
	for _, condition := range d.failOn {
		if n := d.failures[condition]; n > 0 {
			fmt.Fprintf(env.stderr, "--fail-on %s: %d of them\n", condition, n)
		}
	}
	return err
}

func leftOut(disabled int) string {
	if disabled == 0 {
		return ""
	}
	return fmt.Sprintf("; %d of disabled users left out", disabled)
}
