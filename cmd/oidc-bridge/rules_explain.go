package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/mapping"
)

type rulesExplainCommand struct {
	File string `arg:"" optional:"" help:"The rules file. Default: the one that the configuration names, else rules.yaml."`
	configFlag
	Provider   string  `short:"p" placeholder:"NAME" help:"Whose claims they are; needed when the file knows several providers."`
	Claims     string  `xor:"who" placeholder:"JSON|@FILE|-" help:"Explain these claims, as the provider would send them."`
	Token      string  `xor:"who" placeholder:"-" help:"Explain the ID token, the access token or both on standard input; or the answer of a token endpoint."`
	User       string  `xor:"who" placeholder:"E-MAIL|ID" help:"Explain somebody who has logged in, by the last claims that are known of them."`
	Ref        string  `xor:"who" placeholder:"CODE" help:"Explain the refusal with this code: what was read and decided then, and what is decided today."`
	Row        *string `placeholder:"ROLE" help:"Suppose this role in the users row; '' for none."`
	Unverified bool    `help:"Take a token as it is. Whoever wrote it chose its claims."`
	Format     string  `default:"text" enum:"text,json" placeholder:"FORMAT" help:"text or json. Default: ${default}."`
}

func (rulesExplainCommand) Help() string {
	return `Shows every rule that was asked, line by line, with what the claims said, and what comes out. It decides as the service does, and
changes nothing. A token is verified with the keys of its provider, then forgotten; it is read from standard input only, because a command
line can be seen by others.

Examples:

  oidc-bridge rules explain --user ann@example.com
  oidc-bridge rules explain --ref K7QD-2MXA
  oidc-bridge rules explain --provider corp --claims '{"sub": "u1", "groups": ["/admins"]}'
  oidc-bridge rules explain --provider google --claims @claims.json --row editor
  pbpaste | oidc-bridge rules explain --provider corp --token -`
}

// Validate refuses a token on the command line without repeating it, and what cannot be meant together.
func (c rulesExplainCommand) Validate() error {
	switch {
	case c.Claims == "" && c.Token == "" && c.User == "" && c.Ref == "":
		return errors.New("of whom? --user E-MAIL|ID, --ref CODE, --claims JSON or --token -")
	case c.Token != "" && c.Token != standardInput:
		return errors.New("a token on the command line can be seen by others and stays in the shell's history: pipe it to --token -")
	case c.Unverified && c.Token == "":
		return errors.New("--unverified is about --token")
	case c.File == standardInput && (c.Token != "" || c.Claims == standardInput):
		return errors.New("standard input cannot be the rules file, too")
	}
	return nil
}

// A story is one explanation, and whom it is about.
type story struct {
	heading  []string // lines above it
	provider string
	mapping.Explanation
}

func (c rulesExplainCommand) Run(env environment) error {
	config, missing, err := c.providers(env)
	if err != nil {
		return err
	}
	rules, err := loadRules(env, rulesFile(c.File, config))
	if err != nil {
		return err
	}
	var stories []story
	switch {
	case c.User != "":
		stories, err = c.user(env, rules)
	case c.Ref != "":
		stories, err = c.event(env, rules)
	case c.Token != "":
		stories, err = c.token(env, rules, config, missing)
	default:
		stories, err = c.claims(env, rules)
	}
	if err != nil {
		return err
	}
	if c.Format == "json" {
		return writeJSON(env.stdout, inJSON(rules, stories))
	}
	for i, s := range stories {
		if i > 0 {
			fmt.Fprintln(env.stdout)
		}
		for _, line := range s.heading {
			fmt.Fprintln(env.stdout, plain(line))
		}
		if len(s.heading) > 0 {
			fmt.Fprintln(env.stdout)
		}
		fmt.Fprint(env.stdout, s.Explanation)
	}
	return nil
}

func (c rulesExplainCommand) claims(env environment, rules *mapping.Rules) ([]story, error) {
	provider, err := providerNamed(rules, c.Provider)
	if err != nil {
		return nil, err
	}
	text := []byte(c.Claims)
	if c.Claims == standardInput {
		text, err = readInput(env, "the claims")
	} else if name, isFile := strings.CutPrefix(c.Claims, "@"); isFile {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, err
	}
	claims, err := bridge.DecodeClaims(text)
	if err != nil {
		return nil, fmt.Errorf("the claims are not one JSON object: %w", err)
	}
	// They stand for all three tokens, as in the tests of the file.
	return []story{c.explain(rules, provider, mapping.Tokens{IDToken: claims, AccessToken: claims, UserInfo: claims})}, nil
}

func (c rulesExplainCommand) explain(rules *mapping.Rules, provider string, tokens mapping.Tokens) story {
	return story{provider: provider, Explanation: rules.Explain(mapping.Input{
		Provider: provider, Claims: rules.Capture(provider, tokens), Row: c.row(mapping.Row{}), Now: time.Now(),
	})}
}

// row is the users row, unless the command line supposes another role.
func (c rulesExplainCommand) row(known mapping.Row) mapping.Row {
	if c.Row != nil {
		return mapping.Row{Known: true, Role: *c.Row}
	}
	return known
}

// user explains every identity of a user by its last claims.
func (c rulesExplainCommand) user(env environment, rules *mapping.Rules) ([]story, error) {
	records, err := c.records(env)
	if err != nil {
		return nil, err
	}
	defer records.Close()
	found, err := records.Find(env.ctx, c.User)
	if err != nil {
		return nil, err
	}
	var stories []story
	for _, k := range found {
		if c.Provider != "" && c.Provider != k.Provider {
			continue
		}
		s := story{provider: k.Provider, Explanation: rules.Explain(mapping.Input{
			Provider: k.Provider, Claims: k.Claims, Row: c.row(k.Row), Now: time.Now(),
		})}
		s.heading = []string{
			fmt.Sprintf("user %s%s: %s, subject %s, with the claims of the login of %s, or of a check since",
				k.UserID, inFrontOf(" ", k.Email), k.Provider, k.Subject, moment(k.LastLogin)),
			"role in the users row: " + roleInRow(c.row(k.Row), c.Row != nil),
		}
		if k.Disabled {
			s.heading = append(s.heading, "the user is disabled and gets no token, whatever the rules say")
		}
		stories = append(stories, s)
	}
	if stories == nil {
		return nil, fmt.Errorf("nobody who has logged in is known as %q; a refusal has a code, see --ref", c.User)
	}
	return stories, nil
}

func roleInRow(row mapping.Row, supposed bool) string {
	text := row.Role
	switch {
	case !row.Known:
		return "there is no users row yet"
	case text == "":
		text = "none"
	}
	if supposed {
		text += " (supposed)"
	}
	return text
}

func inFrontOf(separator, text string) string {
	if text == "" {
		return ""
	}
	return separator + text
}

// event explains a refusal: what was decided then, and what the rules of today make of what was read then.
func (c rulesExplainCommand) event(env environment, rules *mapping.Rules) ([]story, error) {
	records, err := c.records(env)
	if err != nil {
		return nil, err
	}
	defer records.Close()
	ref := reference(c.Ref)
	e, found, err := records.Event(env.ctx, ref)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("no event has the code %s: the person was not verified, and the log has the cause; or events are not kept that long", ref)
	}
	claims, err := mapping.Recall(e.Claims)
	if err != nil {
		return nil, err
	}
	s := story{provider: e.Provider, Explanation: rules.Explain(mapping.Input{Provider: e.Provider, Claims: claims, Row: c.row(e.Row), Now: e.At})}
	who := fmt.Sprintf("%s, subject %s", e.Provider, e.Subject)
	if e.UserID != "" {
		who += ", user " + e.UserID
	}
	s.heading = []string{fmt.Sprintf("%s  %s  %s", ref, moment(e.At), who), "decided then: " + decided(e)}
	if e.RulesHash == rules.Hash() {
		s.heading = append(s.heading, "the rules have not changed since ("+e.RulesHash+"); the claims that they read:")
	} else {
		s.heading = append(s.heading,
			fmt.Sprintf("the rules have changed since (%s then, %s now); this is what today's make of the claims that were read then:", e.RulesHash, rules.Hash()))
	}
	if row := c.row(e.Row); row.Known {
		s.heading = append(s.heading, "role in the users row today: "+roleInRow(row, c.Row != nil))
	}
	return []story{s}, nil
}

func decided(e bridge.Event) string {
	switch {
	case e.Reason != "":
		return "refused: " + e.Reason
	case e.Role != "":
		return "role " + e.Role
	default:
		return "refused" + inFrontOf(" by ", e.Rule)
	}
}

// reference is a code as it was written down or said on the telephone.
func reference(text string) string {
	text = strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(text))
	if len(text) == 8 {
		return text[:4] + "-" + text[4:]
	}
	return text
}

// longestInput bounds what is read from standard input, in bytes.
const longestInput = 1 << 20

// readInput reads standard input; a person at a terminal is told that it waits.
func readInput(env environment, what string) ([]byte, error) {
	if isTerminal(env.stdin) {
		fmt.Fprintf(env.stderr, "paste %s, then press Enter and Ctrl-D\n", what)
	}
	return io.ReadAll(io.LimitReader(env.stdin, longestInput))
}
