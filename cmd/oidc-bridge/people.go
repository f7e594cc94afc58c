package main

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"unicode"

	"github.com/oidc-bridge/oidc-bridge/bridge"
)

// What the commands about people and their sessions share.

// databaseFlag is for commands that need nothing of the configuration but the database.
type databaseFlag struct {
	Config string `short:"c" default:"config.yaml" placeholder:"FILE" help:"The configuration; only its section database is read. Default: ${default}."`
}

func (f databaseFlag) database(env environment) (*bridge.DatabaseConfig, error) {
	database, findings := bridge.LoadDatabase(f.Config, env.lookup)
	return database, printFindings(env.stderr, "text", findings)
}

// people connects as the role of database.url.
func (f databaseFlag) people(env environment) (*bridge.People, error) {
	database, err := f.database(env)
	if err != nil {
		return nil, err
	}
	return openPeople(env, database.URL)
}

func openPeople(env environment, url bridge.Secret) (*bridge.People, error) {
	by := "unknown"
	if me, err := user.Current(); err == nil {
		by = me.Username
	}
	return bridge.OpenPeople(env.ctx, url, by)
}

// formatFlag is for commands that answer.
type formatFlag struct {
	Format string `default:"text" enum:"text,json" placeholder:"FORMAT" help:"text or json. Default: ${default}."`
}

// whyFlags are for commands that change something.
type whyFlags struct {
	DryRun bool   `help:"Say what would change, and change nothing."`
	Reason string `placeholder:"TEXT" help:"Why; the event keeps it."`
}

func (f whyFlags) change() bridge.Change { return bridge.Change{DryRun: f.DryRun, Reason: f.Reason} }

// whoFlags name one person.
type whoFlags struct {
	databaseFlag
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

func (f whoFlags) who() bridge.Who {
	return bridge.Who{Word: f.Who, Issuer: f.Issuer, Subject: f.Subject}
}

// find connects and returns the one person.
func (f whoFlags) find(env environment) (*bridge.People, bridge.Person, error) {
	people, err := f.people(env)
	if err != nil {
		return nil, bridge.Person{}, err
	}
	person, err := findOne(env, people, f.who())
	if err != nil {
		people.Close()
		return nil, bridge.Person{}, err
	}
	return people, person, nil
}

var errNobody = errors.New("nobody is known by this user_id, e-mail address, or issuer and subject; `oidc-bridge user list` shows everybody")

// findOne returns the one person who is meant. Several are listed, so that the operator can choose.
func findOne(env environment, people *bridge.People, who bridge.Who) (bridge.Person, error) {
	found, err := people.Find(env.ctx, who)
	switch {
	case err != nil:
		return bridge.Person{}, err
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return bridge.Person{}, errNobody
	}
	for _, p := range found {
		fmt.Fprintln(env.stderr, describe(p))
	}
	return bridge.Person{}, fmt.Errorf("%d people are meant; nothing was changed: name one by the user_id, such as %s, or with --issuer and --subject",
		len(found), plain(found[0].UserID))
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
