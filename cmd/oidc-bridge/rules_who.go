package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/mapping"
)

type rulesWhoCommand struct {
	Role string `arg:"" help:"The role."`
	File string `arg:"" optional:"" help:"The rules file; - is standard input. Default: the one that the configuration names, else rules.yaml."`
	configFlag
	AtMost *int   `placeholder:"N" help:"Exit code 1 when more have it."`
	Format string `default:"text" enum:"text,json" placeholder:"FORMAT" help:"text or json. Default: ${default}."`
}

func (rulesWhoCommand) Help() string {
	return `Decides for every known identity, with its last claims, and lists those who have the role. Users who are disabled are
left out.

Examples:

  oidc-bridge rules who app_admin
  oidc-bridge rules who app_admin new.yaml               who would have it?
  oidc-bridge rules who app_admin --at-most 5            in CI`
}

func (c rulesWhoCommand) Run(env environment) error {
	config, _, err := c.providers(env)
	if err != nil {
		return err
	}
	rules, err := loadRules(env, rulesFile(c.File, config))
	if err != nil {
		return err
	}
	if known := roleNames(rules); !slices.Contains(known, c.Role) {
		return unknown("role", c.Role, known)
	}
	out := newList(env.stdout, c.Format, "identities")
	seen, disabled, have := 0, 0, 0
	err = eachIdentity(env, c.configFlag, out, func(k bridge.KnownIdentity) {
		if k.Disabled {
			disabled++
			return
		}
		seen++
		in := mapping.Input{Provider: k.Provider, Claims: k.Claims, Row: k.Row, Now: time.Now()}
		if role, _ := rules.Decide(in).Role(); role != c.Role {
			return
		}
		have++
		h := holder{person: personOf(k), LastLogin: k.LastLogin.UTC()}
		h.line(rules.Explain(in), k.Row)
		out.add(h)
		out.print("%s\n", plain(fmt.Sprintf("user %s%s  by %s  %s, subject %s", h.UserID, inFrontOf(" ", h.Email), h.how(), h.Provider, h.Subject)))
	})
	if err != nil {
		return err
	}
	err = out.end(map[string]any{"known": seen, "have": have, "disabled": disabled},
		fmt.Sprintf("%d of %d known identities have %s%s", have, seen, c.Role, leftOut(disabled)))
	if err != nil {
		return err
	}
	if c.AtMost != nil && have > *c.AtMost {
		fmt.Fprintf(env.stderr, "--at-most %d: %d have it\n", *c.AtMost, have)
		return errFindings
	}
	return nil
}

// A holder is somebody who has the role, and the line of the file that gives it.
type holder struct {
	person
	Rule      string    `json:"rule"`
	Line      int       `json:"line,omitempty"`
	Condition string    `json:"condition,omitempty"` // of a table: which of its lines
	FromRow   bool      `json:"from_row,omitempty"`
	LastLogin time.Time `json:"last_login"`
}

func (h *holder) line(e mapping.Explanation, row mapping.Row) {
	h.Rule = e.Decision.Rule()
	role, _ := e.Decision.Role()
	for _, step := range e.Steps {
		if step.Kind != "rule" || step.Result != "yes" {
			continue
		}
		h.Line = step.Line
		h.FromRow = e.Decision.FromUsersRow() && row.Role == role
		if last := len(step.Lines) - 1; last >= 0 && step.Lines[last].Part == "by" {
			h.Condition = step.Lines[last].Text
		}
	}
}

func (h *holder) how() string {
	text := fmt.Sprintf("%q", h.Rule)
	if h.Line > 0 {
		text += fmt.Sprintf(" (line %d)", h.Line)
	}
	if h.Condition != "" {
		text += ", " + h.Condition
	}
	if h.FromRow {
		text += ", users row"
	}
	return text
}

// eachIdentity calls do for every known identity. What do prints goes to out.
func eachIdentity(env environment, config configFlag, out *list, do func(bridge.KnownIdentity)) error {
	records, err := config.records(env)
	if err != nil {
		return err
	}
	defer records.Close()
	total, err := records.Count(env.ctx)
	if err != nil {
		return err
	}
	shown := newProgress(env.stderr, total, "identities", time.Now)
	defer shown.clear()
	out.before = shown.clear
	for k, err := range records.Identities(env.ctx) {
		if err != nil {
			return err
		}
		do(k)
		shown.step()
	}
	return nil
}

// A list is output of unknown length, written as it comes: lines of text, or the members of a list in one JSON object.
type list struct {
	w     io.Writer
	json  bool
	name  string
	items int
	err   error

	before func() // called before each write, since a terminal may show something else
}

func newList(w io.Writer, format, name string) *list {
	return &list{w: w, json: format == "json", name: name, before: func() {}}
}

// add writes an item, in JSON only.
func (l *list) add(item any) {
	if !l.json {
		return
	}
	text, err := json.Marshal(item)
	if err != nil {
		l.err = err
		return
	}
	before := ",\n"
	if l.items == 0 {
		before = fmt.Sprintf("{\n  %q: [\n", l.name)
	}
	l.items++
	l.write("%s    %s", before, text)
}

// print writes a line, in text only.
func (l *list) print(format string, args ...any) {
	if !l.json {
		l.write(format, args...)
	}
}

func (l *list) write(format string, args ...any) {
	l.before()
	if _, err := fmt.Fprintf(l.w, format, args...); err != nil {
		l.err = err
	}
}

// end writes the totals: members of the object, or a sentence. It returns the first error of all writes.
func (l *list) end(totals map[string]any, sentence string) error {
	if !l.json {
		l.write("%s\n", sentence)
		return l.err
	}
	text, err := json.MarshalIndent(totals, "", "  ")
	if err != nil {
		return err
	}
	open := fmt.Sprintf("{\n  %q: [", l.name)
	if l.items > 0 {
		open = "\n  "
	}
	l.write("%s],%s\n", open, text[1:])
	return l.err
}
