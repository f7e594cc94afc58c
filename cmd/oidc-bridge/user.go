package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"unicode"

	"github.com/oidc-bridge/oidc-bridge/bridge"
)

type userCommand struct {
	Disable userDisable `cmd:"" help:"Lock a person out at once; no login lets them in again."`
	Enable  userEnable  `cmd:"" help:"Let a disabled person in again."`
}

// whoFlags name one person.
type whoFlags struct {
	Config  string `short:"c" default:"config.yaml" placeholder:"FILE" help:"The configuration; only its section database is read. Default: ${default}."`
	Who     string `arg:"" optional:"" help:"user_id or e-mail address of the users row."`
	Issuer  string `help:"With --subject, in place of WHO."`
	Subject string `help:"With --issuer, in place of WHO."`
}

// Validate is called by kong: a wrong one is exit code 2.
func (f whoFlags) Validate() error {
	if (f.Issuer == "") != (f.Subject == "") || (f.Who == "") == (f.Issuer == "") {
		return errors.New("name one person: WHO, or --issuer and --subject")
	}
	return nil
}

// find connects and returns the one person. Several are listed, and nothing is changed.
func (f whoFlags) find(env environment) (*bridge.People, bridge.Person, error) {
	database, findings := bridge.LoadDatabase(f.Config, env.lookup)
	if err := printFindings(env.stderr, "text", findings); err != nil {
		return nil, bridge.Person{}, err
	}
	by := "unknown"
	if me, err := user.Current(); err == nil {
		by = me.Username
	}
	people, err := bridge.OpenPeople(env.ctx, database.URL, by)
	if err != nil {
		return nil, bridge.Person{}, err
	}
	found, err := people.Find(env.ctx, bridge.Who{Word: f.Who, Issuer: f.Issuer, Subject: f.Subject})
	switch {
	case err != nil:
	case len(found) == 1:
		return people, found[0], nil
	case len(found) == 0:
		err = errors.New("nobody is known by this user_id, e-mail address, or issuer and subject; nothing was changed")
	default:
		for _, p := range found {
			fmt.Fprintln(env.stderr, describe(p))
		}
		err = fmt.Errorf("%d people are meant; nothing was changed: name one with --issuer and --subject", len(found))
	}
	people.Close()
	return nil, bridge.Person{}, err
}

type changeFlags struct {
	whoFlags
	DryRun bool   `help:"Say what would change, and change nothing."`
	Reason string `placeholder:"TEXT" help:"Why; the event keeps it."`
}

type (
	userDisable struct{ changeFlags }
	userEnable  struct{ changeFlags }
)

func (userDisable) Help() string {
	return "Tokens are refused from the next request on. Doing it again changes nothing, with exit code 0.\n\nExample:\n\n  oidc-bridge user disable ada@example.com --reason 'left on Friday'"
}

func (userEnable) Help() string {
	return "Sessions that have not ended by then live again.\n\nExample:\n\n  oidc-bridge user enable ada@example.com --dry-run"
}

func (c userDisable) Run(env environment) error {
	return c.change(env, "disabled", (*bridge.People).Disable)
}

func (c userEnable) Run(env environment) error {
	return c.change(env, "enabled", (*bridge.People).Enable)
}

type changer = func(*bridge.People, context.Context, bridge.Person, bridge.Change) (bool, error)

// change does it and says so.
func (c changeFlags) change(env environment, done string, do changer) error {
	people, person, err := c.find(env)
	if err != nil {
		return err
	}
	defer people.Close()
	changed, err := do(people, env.ctx, person, bridge.Change{DryRun: c.DryRun, Reason: c.Reason})
	switch {
	case err != nil:
		return err
	case !changed:
		done = "is " + done + " already"
	case c.DryRun:
		done = "would be " + done
	}
	_, err = fmt.Fprintf(env.stdout, "%s: %s\n", done, describe(person))
	return err
}

// describe is a person in one line, safe for a terminal.
func describe(p bridge.Person) string {
	text := "user " + p.UserID
	if p.Email != nil {
		text += ", " + *p.Email
	}
	for _, i := range p.Identities {
		text += fmt.Sprintf(", %s of %s", i.Subject, i.Issuer)
	}
	return plain(text)
}

// plain escapes what a terminal would obey and what cannot be seen.
func plain(text string) string {
	var out strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			out.WriteRune(r)
		} else {
			out.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return out.String()
}
