package main

import (
	"errors"
	"fmt"

	"github.com/oidc-bridge/oidc-bridge/bridge"
)

type userCommand struct {
	List    userList    `cmd:"" help:"Everybody who is known: role, sessions, last login."`
	Show    userShow    `cmd:"" help:"One person."`
	Disable userDisable `cmd:"" help:"Lock a person out at once; no login lets them in again."`
	Enable  userEnable  `cmd:"" help:"Let a disabled person in again."`
	SetRole userSetRole `cmd:"" help:"Write a role into the users row, or take it away."`
	Delete  userDelete  `cmd:"" help:"Remove a person with their logins and sessions, for good."`
	Export  userExport  `cmd:"" help:"All that is stored about a person, as JSON."`
}

func (userCommand) Help() string {
	return `WHO is a user_id (the tokens' claim) or the e-mail address of the users row. An address that several people have is refused, and they are
listed. Each change is an event in bridge.events that says who did it; a change that was made before is none, with exit code 0.

Somebody leaves:

  oidc-bridge user disable ada@example.com --reason 'left on Friday'`
}

// limitFlag is for lists.
type limitFlag struct {
	Limit uint `placeholder:"N" help:"At most N of them; 0 is all. Default: ${default}." default:"0"`
}

// sentence is the last line of a list.
func (f limitFlag) sentence(n int, more bool, what string) string {
	switch {
	case more:
		return fmt.Sprintf("the first %s; there are more than --limit %d", count(n, what), f.Limit)
	case n == 0:
		return "no " + what + "s"
	default:
		return count(n, what)
	}
}

type userList struct {
	databaseFlag
	formatFlag
	limitFlag
	Disabled bool `help:"Disabled people only."`
}

func (userList) Help() string {
	return `Everybody in the order of their first logins, a thousand at a time: there may be a million. ROLE is that of the users row, which only some
rules read; "rules who" tells who has a role. With --format json it is one object,

  {"users": [{"id", "user_id", "email", "name", "role", "disabled_at", "created_at", "last_login_at", "sessions",
              "identities": [{"provider", "issuer", "subject", "last_login_at"}]}, …], "count": 2, "more": false}

with a line for each person, in which only members are added from version to version. "id" is bridge.users.id; times are UTC, or null; "more" says
that --limit cut the list. An object without its end means that something failed.

Examples:

  oidc-bridge user list --disabled
  oidc-bridge user list --format json | jq -r '.users[] | select(.last_login_at < "2026") | .email'`
}

func (c userList) Run(env environment) error {
	people, err := c.people(env)
	if err != nil {
		return err
	}
	defer people.Close()
	out := newList(env.stdout, c.Format, "users")
	rows := newTable(env, "USER_ID", "E-MAIL", "ROLE", "SESSIONS", "LAST LOGIN UTC", "STATUS", "LOGS IN AS")
	n, more := 0, false
	for p, err := range people.Users(env.ctx, c.Disabled) {
		if err != nil {
			return errors.Join(rows.flush(), err)
		}
		if more = c.Limit > 0 && n == int(c.Limit); more {
			break
		}
		n++
		if out.add(p); !out.json {
			rows.add(p.DisabledAt != nil, p.UserID, orDash(p.Email), orDash(p.Role), fmt.Sprint(p.Sessions), utc(p.LastLoginAt), status(p), logins(p))
		}
	}
	if err := rows.flush(); err != nil {
		return err
	}
	return out.end(map[string]any{"count": n, "more": more}, c.sentence(n, more, "user"))
}

func status(p bridge.Person) string {
	if p.DisabledAt != nil {
		return "disabled"
	}
	return "-"
}

// logins is the person's first identity, and how many more there are.
func logins(p bridge.Person) string {
	if len(p.Identities) == 0 {
		return "-"
	}
	text := p.Identities[0].Subject + " at " + p.Identities[0].Provider
	if more := len(p.Identities) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

type userShow struct {
	whoFlags
	formatFlag
}

func (userShow) Help() string {
	return `With --format json it is one object, as in the list of "user list".

Examples:

  oidc-bridge user show ada@example.com
  oidc-bridge user show --issuer https://sso.example.com/realms/acme --subject 0f8b3c1d-5e7a-4264-8f8b-3c1d5e7a9264
  oidc-bridge rules explain --user ada@example.com     which role, and why`
}

func (c userShow) Run(env environment) error {
	people, p, err := c.find(env)
	if err != nil {
		return err
	}
	defer people.Close()
	if c.Format == "json" {
		return writeJSON(env.stdout, p)
	}
	disabled := "no"
	if p.DisabledAt != nil {
		disabled = "since " + moment(*p.DisabledAt)
	}
	role := orDash(p.Role)
	if p.Role == nil {
		role = "none"
	}
	last := "never"
	if p.LastLoginAt != nil {
		last = moment(*p.LastLoginAt)
	}
	rows := newTable(env)
	rows.add(false, "user_id", p.UserID)
	if p.UserID != fmt.Sprint(p.ID) {
		rows.add(false, "id in bridge.users", fmt.Sprint(p.ID))
	}
	rows.add(false, "e-mail", orDash(p.Email))
	rows.add(false, "name", orDash(p.Name))
	rows.add(false, "role in the users row", role)
	rows.add(p.DisabledAt != nil, "disabled", disabled)
	rows.add(false, "first login", moment(p.CreatedAt))
	rows.add(false, "last login", last)
	rows.add(false, "sessions", fmt.Sprint(p.Sessions))
	for _, i := range p.Identities {
		rows.add(false, "logs in at "+i.Provider, fmt.Sprintf("subject %s of %s, last on %s", i.Subject, i.Issuer, moment(i.LastLoginAt)))
	}
	return rows.flush()
}

type userExport struct{ whoFlags }

func (userExport) Help() string {
	return `One JSON object with members user, identities, sessions and events, for somebody who asks what is known about them. Nothing in it lets
anybody use a session. Read it before you pass it on: reasons of events name operators, and applications have data of their own.

Example:

  oidc-bridge user export ada@example.com > ada.json`
}

func (c userExport) Run(env environment) error {
	people, person, err := c.find(env)
	if err != nil {
		return err
	}
	defer people.Close()
	text, err := people.Export(env.ctx, person)
	if err != nil {
		return err
	}
	return writeJSON(env.stdout, text)
}
