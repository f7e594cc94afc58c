package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/mapping"
)

type changeFlags struct {
	whoFlags
	whyFlags
	formatFlag
}

// A changeMade is what a command has done to a person.
type changeMade struct {
	Changed bool    `json:"changed"` // or would change, in a dry run
	DryRun  bool    `json:"dry_run"`
	ID      int64   `json:"id"` // bridge.users.id
	UserID  string  `json:"user_id"`
	Email   *string `json:"email"`
}

// outcomes say what became of a change.
type outcomes struct{ done, already, would string }

// make finds the person, does it, and says so.
func (c changeFlags) make(env environment, w outcomes, do func(*bridge.People, context.Context, bridge.Person, bridge.Change) (bool, error)) error {
	people, person, err := c.find(env)
	if err != nil {
		return err
	}
	defer people.Close()
	changed, err := do(people, env.ctx, person, c.change())
	return c.say(env, person, changed, err, w)
}

// say tells what a change has done.
func (c changeFlags) say(env environment, p bridge.Person, changed bool, err error, w outcomes) error {
	if err != nil {
		return err
	}
	if c.Format == "json" {
		return writeJSON(env.stdout, changeMade{changed, c.DryRun, p.ID, p.UserID, p.Email})
	}
	text := w.done
	switch {
	case !changed:
		text = w.already
	case c.DryRun:
		text = w.would
	}
	_, err = fmt.Fprintf(env.stdout, "%s: %s\n", plain(text), describe(p))
	return err
}

const changeJSON = `

With --format json: {"changed": true, "dry_run": false, "id": 1, "user_id": "1", "email": "ada@example.com"}; "changed" is false when it was so
before, and tells in a dry run what would be.`

type userDisable struct{ changeFlags }

func (userDisable) Help() string {
	return `No token is given from the next request on, in any of their sessions. Doing it again changes nothing, with exit code 0.

Example:

  oidc-bridge user disable ada@example.com --reason 'left on Friday'` + changeJSON
}

func (c userDisable) Run(env environment) error {
	return c.make(env, outcomes{"disabled", "is disabled already", "would be disabled"}, (*bridge.People).Disable)
}

type userEnable struct{ changeFlags }

func (userEnable) Help() string {
	return `Sessions that have not ended by then live again: "session revoke --user" first, if they should not.

Example:

  oidc-bridge user enable ada@example.com --dry-run` + changeJSON
}

func (c userEnable) Run(env environment) error {
	return c.make(env, outcomes{"enabled", "is enabled already", "would be enabled"}, (*bridge.People).Enable)
}

type userSetRole struct {
	changeFlags
	Role *string `placeholder:"ROLE" help:"The role; '' is --none."`
	None bool    `help:"Take the role away."`
}

func (userSetRole) Help() string {
	return `The role counts where a rule says "role: { from: users, allow: […] }", with the next token, and only if the rule allows it: the rules file
that the configuration names is asked before. With users.hook, the next login writes the role that the hook returns over it.

Examples:

  oidc-bridge user set-role ada@example.com --role editor
  oidc-bridge user set-role 42 --none --reason 'moved to sales'` + changeJSON
}

// Validate holds the role to one of its two forms.
func (c userSetRole) Validate() error {
	if (c.Role == nil) == !c.None {
		return errors.New("which role? --role ROLE, or --none to take it away")
	}
	return c.whoFlags.Validate()
}

func (c userSetRole) Run(env environment) error {
	none := outcomes{"role taken away", "has no role already", "role would be taken away"}
	if c.None || *c.Role == "" {
		return c.make(env, none, func(people *bridge.People, ctx context.Context, p bridge.Person, change bridge.Change) (bool, error) {
			return people.SetRole(ctx, p, nil, change) // no rules are needed for it
		})
	}
	config, _, err := configFlag{c.Config}.providers(env)
	if err != nil {
		return err
	}
	rules, err := loadRules(env, rulesFile("", config))
	if err != nil {
		return err
	}
	role := *c.Role
	if err := givable(rules, role); err != nil {
		return err
	}
	people, person, err := c.find(env)
	if err != nil {
		return err
	}
	defer people.Close()
	changed, err := people.SetRole(env.ctx, person, &role, c.change())
	err = c.say(env, person, changed, err, outcomes{"role " + role + " given", "has role " + role + " already", "role " + role + " would be given"})
	if err == nil {
		c.warn(env, rules, person, role)
	}
	return err
}

// givable refuses a role that no rule lets the users row give. While no rule reads the row, any role of the file may be written for later.
func givable(rules *mapping.Rules, role string) error {
	fromRow := rules.RowRules()
	if len(fromRow) == 0 {
		if known := roleNames(rules); !slices.Contains(known, role) {
			return unknown("role", role, known)
		}
		return nil
	}
	var all, lines []string
	for _, r := range fromRow {
		if slices.Contains(r.Allow, role) {
			return nil
		}
		all = append(all, r.Allow...)
		lines = append(lines, fmt.Sprintf("rule %q of provider %s allows %s", r.Name, r.Provider, strings.Join(r.Allow, ", ")))
	}
	slices.Sort(all)
	what := unknown("role", role, slices.Compact(all))
	if slices.Contains(roleNames(rules), role) {
		what = fmt.Errorf("role %q is one that the users row may not give", role)
	}
	return usageError{fmt.Errorf("%w; %s", what, strings.Join(lines, "; "))}
}

// warn says where the role will not count.
func (c userSetRole) warn(env environment, rules *mapping.Rules, person bridge.Person, role string) {
	fromRow := rules.RowRules()
	if len(fromRow) == 0 {
		fmt.Fprintln(env.stderr, "warning: no rule reads the users row, so that the role changes nothing: write `role: { from: users, allow: […] }` in one")
		return
	}
	for _, i := range person.Identities {
		counts := func(r mapping.RowRule) bool { return r.Provider == i.Provider && slices.Contains(r.Allow, role) }
		if !slices.ContainsFunc(fromRow, counts) {
			fmt.Fprintf(env.stderr, "warning: no rule of provider %s takes %s from the users row: it does not count for logins there\n", plain(i.Provider), plain(role))
		}
	}
}

type userDelete struct {
	changeFlags
	yesFlag
}

func (userDelete) Help() string {
	return `Connects as the schema's owner (DATABASE_OWNER_URL, database.owner_url), since the service's role may not delete people. What goes with the
person is said before: logins, sessions, and rows of applications that refer to bridge.users with ON DELETE CASCADE. Events stay as long as events are
kept, and so does a row in a users table of your own. It does not keep anybody out: with their next login they are somebody new. For that there is
"user disable".

It cannot be taken back: at a terminal you are asked to type the user_id; elsewhere --yes is needed. A second run says that they were deleted, with
exit code 0, when it names them by issuer and subject or by the id in bridge.users; addresses are forgotten, so that by address it finds nobody: exit
code 1.

Examples:

  oidc-bridge user delete ada@example.com --dry-run
  DATABASE_OWNER_URL=postgres://bridge_owner@db/app oidc-bridge user delete 42 --yes --reason 'asked for it'` + changeJSON
}

func (c userDelete) Run(env environment) error {
	if !c.DryRun {
		if err := c.askable(env); err != nil {
			return err
		}
	}
	database, err := c.database(env)
	if err != nil {
		return err
	}
	people, err := openPeople(env, database.OwnerURL)
	if err != nil {
		return err
	}
	defer people.Close()
	w := outcomes{"deleted", "is deleted already", "would be deleted"}
	person, err := findOne(env, people, c.who())
	if errors.Is(err, errNobody) {
		if deleted, lookErr := people.Deleted(env.ctx, c.who()); lookErr != nil || deleted {
			gone := bridge.Person{UserID: c.Who}
			if c.Issuer != "" {
				gone = bridge.Person{UserID: "-", Identities: []bridge.PersonIdentity{{Issuer: c.Issuer, Subject: c.Subject}}}
			}
			return c.say(env, gone, false, lookErr, w)
		}
	}
	if err != nil {
		return err
	}
	tables, err := people.Cascades(env.ctx)
	if err != nil {
		return err
	}
	goes := fmt.Sprintf("with %s and %s", count(len(person.Identities), "login"), count(person.Sessions, "live session"))
	if len(tables) > 0 {
		goes += ", and with what refers to them in " + strings.Join(tables, ", ") + " (ON DELETE CASCADE)"
	}
	if !c.DryRun {
		question := fmt.Sprintf("In database %s, this removes %s, %s.", people.Database(), describe(person), goes)
		if err := c.confirm(env, question, person.UserID); err != nil {
			return err
		}
	}
	changed, err := people.Delete(env.ctx, person, c.change())
	return c.say(env, person, changed, err, outcomes{w.done + " " + goes, w.already, w.would + " " + goes})
}
