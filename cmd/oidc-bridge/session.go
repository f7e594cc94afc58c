package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
)

type sessionCommand struct {
	List   sessionList   `cmd:"" help:"Sessions that have not ended."`
	Revoke sessionRevoke `cmd:"" help:"End one session, those of a person, or all."`
}

// ofFlags name a person whose sessions are meant.
type ofFlags struct {
	databaseFlag
	User    string `placeholder:"WHO" help:"Of this person: user_id or e-mail address of the users row."`
	Issuer  string `help:"With --subject, in place of --user."`
	Subject string `help:"With --issuer, in place of --user."`
}

// Validate is called by kong: a wrong one is exit code 2.
func (f ofFlags) Validate() error {
	if (f.Issuer == "") != (f.Subject == "") || f.User != "" && f.Issuer != "" {
		return errors.New("name one person: --user, or --issuer and --subject")
	}
	return nil
}

func (f ofFlags) anybody() bool { return f.User == "" && f.Issuer == "" }

// find connects and returns the person; nil when the flags name nobody.
func (f ofFlags) find(env environment) (*bridge.People, *bridge.Person, error) {
	people, err := f.people(env)
	if err != nil || f.anybody() {
		return people, nil, err
	}
	person, err := findOne(env, people, bridge.Who{Word: f.User, Issuer: f.Issuer, Subject: f.Subject})
	if err != nil {
		people.Close()
		return nil, nil, err
	}
	return people, &person, nil
}

type sessionList struct {
	ofFlags
	formatFlag
	limitFlag
}

func (sessionList) Help() string {
	return `Person by person, the oldest session first, a thousand at a time. ENDS is when it ends if it is not used before; ROLE is the last decision. With
--format json it is one object,

  {"sessions": [{"id", "user_id", "email", "provider", "user_agent", "role", "created_at", "last_seen_at", "idle_expires_at", "expires_at",
                 "disabled"}, …], "count": 2, "more": false}

with a line for each session, in which only members are added from version to version. "id" is the tokens' sid; "role" is null when the rules refuse,
"disabled" says that the person is, so that the session gets no token; "more" says that --limit cut the list. An object without its end means that
something failed.

Examples:

  oidc-bridge session list --user ada@example.com
  oidc-bridge session list --format json | jq -r '.sessions[] | select(.role == "admin") | .id'`
}

func (c sessionList) Run(env environment) error {
	people, person, err := c.find(env)
	if err != nil {
		return err
	}
	defer people.Close()
	out := newList(env.stdout, c.Format, "sessions")
	rows := newTable(env, "SESSION", "USER_ID", "E-MAIL", "ROLE", "PROVIDER", "SINCE UTC", "LAST SEEN UTC", "ENDS UTC", "STATUS")
	n, more := 0, false
	for s, err := range people.Sessions(env.ctx, person) {
		if err != nil {
			return errors.Join(rows.flush(), err)
		}
		if more = c.Limit > 0 && n == int(c.Limit); more {
			break
		}
		n++
		if out.add(s); !out.json {
			what, ends := "-", s.Expires
			if s.IdleExpires.Before(ends) {
				ends = s.IdleExpires
			}
			switch {
			case s.Disabled:
				what = "user disabled"
			case s.Role == nil:
				what = "refused"
			}
			rows.add(what != "-", s.ID, s.UserID, orDash(s.Email), orDash(s.Role), s.Provider, utc(&s.CreatedAt), utc(&s.LastSeenAt), utc(&ends), what)
		}
	}
	if err := rows.flush(); err != nil {
		return err
	}
	return out.end(map[string]any{"count": n, "more": more}, c.sentence(n, more, "session"))
}

type sessionRevoke struct {
	ofFlags
	whyFlags
	formatFlag
	yesFlag
	Session string `arg:"" optional:"" placeholder:"SESSION" help:"The session: first column of \"session list\", or the sid of a token."`
	All     bool   `help:"Everybody's."`
}

func (sessionRevoke) Help() string {
	return `The next request of the session is refused, at every replica; its person logs in again. To keep somebody out there is "user disable". Ending
what has ended is no failure.

--all is for a restored backup, in which sessions live that had ended since, and for cookies in wrong hands. At a terminal you are asked to type the
name of the database; elsewhere --yes is needed. Sessions that begin while it runs end, too. Those whose time is over are counted while their rows are
there.

With --format json: {"sessions": 3, "dry_run": false}, how many have ended or, in a dry run, would.

Examples:

  oidc-bridge session revoke 0f8b3c1d-5e7a-4264-8f8b-3c1d5e7a9264 --reason 'laptop lost'
  oidc-bridge session revoke --user ada@example.com
  oidc-bridge session revoke --all --yes --reason 'restored the backup of Tuesday'`
}

// sessionID is how PostgreSQL and the tokens write one.
var sessionID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// Validate wants one answer to "which sessions". It does not repeat what is no session id: it may be somebody's cookie or token.
func (c sessionRevoke) Validate() error {
	if err := c.ofFlags.Validate(); err != nil {
		return err
	}
	named := 0
	for _, is := range []bool{c.Session != "", !c.anybody(), c.All} {
		if is {
			named++
		}
	}
	switch {
	case named != 1:
		return errors.New("which sessions? SESSION, --user WHO, --issuer and --subject, or --all: one of them")
	case strings.Contains(c.Session, "@"):
		return errors.New("this is no session: did you mean --user?")
	case c.Session != "" && !sessionID.MatchString(c.Session):
		return errors.New("this is no session: one looks like 0f8b3c1d-5e7a-4264-8f8b-3c1d5e7a9264 and stands in the first column of `oidc-bridge session list`, " +
			"or in a token as sid")
	}
	return nil
}

func (c sessionRevoke) Run(env environment) error {
	if c.All && !c.DryRun {
		if err := c.askable(env); err != nil {
			return err
		}
	}
	people, person, err := c.find(env)
	if err != nil {
		return err
	}
	defer people.Close()
	which := bridge.Which{Session: c.Session, User: person}
	total, err := people.Count(env.ctx, which)
	if err != nil {
		return err
	}
	if c.All && !c.DryRun && total > 0 {
		question := fmt.Sprintf("In database %s, this ends %s: everybody has to log in again.", people.Database(), count(total, "session"))
		if err := c.confirm(env, question, people.Database()); err != nil {
			return err
		}
	}
	shown := newProgress(env.stderr, total, "sessions", time.Now)
	ended, err := people.Revoke(env.ctx, which, c.change(), shown.reached)
	shown.clear()
	if err != nil {
		return fmt.Errorf("after %s had ended: %w", count(ended, "session"), err)
	}
	if c.Session != "" && ended == 0 {
		if known, err := people.Ended(env.ctx, c.Session); err != nil {
			return err
		} else if !known {
			return errors.New("there never was such a session, or its events are not kept any more; `oidc-bridge session list` shows those that live")
		}
	}
	return c.say(env, ended, person)
}

func (c sessionRevoke) say(env environment, ended int, person *bridge.Person) error {
	if c.Format == "json" {
		return writeJSON(env.stdout, map[string]any{"sessions": ended, "dry_run": c.DryRun})
	}
	text := "ended: "
	switch {
	case c.Session != "" && ended == 0:
		text = "has ended already: session " + c.Session
	case c.DryRun:
		text = "would end: "
	}
	if ended > 0 || c.Session == "" {
		text += count(ended, "session")
	}
	if person != nil {
		text += " of " + describe(*person)
	}
	_, err := fmt.Fprintln(env.stdout, text)
	return err
}
