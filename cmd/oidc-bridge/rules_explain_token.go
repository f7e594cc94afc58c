package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/mapping"
)

// token explains the tokens on standard input. They stay in this function and those that it calls, and no message repeats them.
func (c rulesExplainCommand) token(env environment, rules *mapping.Rules, config *bridge.Config, missing string) ([]story, error) {
	text, err := readInput(env, "the token")
	if err != nil {
		return nil, err
	}
	raw := tokensIn(text)
	if len(raw) == 0 {
		return nil, errors.New("there is no token on standard input")
	}
	name, err := c.providerOf(rules, config, raw[0])
	if err != nil {
		return nil, err
	}
	read := func(token string) (bridge.PastedToken, error) { return bridge.ReadPasted(token, time.Now()) }
	if c.Unverified {
		fmt.Fprintln(env.stderr, "warning: not verified: whoever wrote this token chose its claims")
	} else if read, err = verified(env, config, missing, name); err != nil {
		return nil, err
	}
	var tokens mapping.Tokens
	for _, one := range raw {
		pasted, err := read(one)
		if err != nil {
			return nil, fmt.Errorf("%w%s", err, hint(c.Unverified))
		}
		if err := add(&tokens, pasted); err != nil {
			return nil, err
		}
		if pasted.Ended > 0 {
			fmt.Fprintf(env.stderr, "note: the %s ended %s ago\n", kind(pasted), pasted.Ended.Round(time.Second))
		}
	}
	if !c.Unverified {
		fmt.Fprintf(env.stderr, "verified: signed by %s for this client\n", name)
	}
	if rules.NeedsAccessToken(name) && tokens.AccessToken == nil {
		fmt.Fprintln(env.stderr, "note: the rules read the access token, too; put both tokens on standard input")
	}
	if rules.NeedsUserInfo(name, tokens) {
		fmt.Fprintln(env.stderr, "note: a login would also ask UserInfo for claims that are missing here; they count as absent")
	}
	return []story{c.explain(rules, name, tokens)}, nil
}

func hint(unverified bool) string {
	if unverified {
		return ""
	}
	return "; --unverified explains it all the same"
}

func kind(t bridge.PastedToken) string {
	if t.Access {
		return "access token"
	}
	return "ID token"
}

func add(tokens *mapping.Tokens, pasted bridge.PastedToken) error {
	to, other := &tokens.IDToken, tokens.AccessToken
	if pasted.Access {
		to, other = &tokens.AccessToken, tokens.IDToken
	}
	switch {
	case *to != nil:
		return fmt.Errorf("there are two %ss on standard input", kind(pasted))
	case other != nil && other["sub"] != pasted.Claims["sub"]:
		return errors.New("the two tokens are of different people")
	}
	*to = pasted.Claims
	return nil
}

// tokensIn finds the tokens: the answer of a token endpoint, or words.
func tokensIn(text []byte) []string {
	var answer struct {
		IDToken     string `json:"id_token"`
		AccessToken string `json:"access_token"`
	}
	if json.Unmarshal(text, &answer) == nil {
		raw := []string{}
		if answer.IDToken != "" {
			raw = append(raw, answer.IDToken)
		}
		if strings.Count(answer.AccessToken, ".") == 2 { // an opaque one has no claims
			raw = append(raw, answer.AccessToken)
		}
		return raw
	}
	var raw []string
	for _, word := range strings.Fields(string(text)) {
		if word = strings.Trim(word, `"',`); word != "" && !strings.EqualFold(word, "Bearer") {
			raw = append(raw, word)
		}
	}
	return raw
}

// providerOf is the named provider or, without a name, the one whose issuer the token states; whether that is true is verified afterwards.
func (c rulesExplainCommand) providerOf(rules *mapping.Rules, config *bridge.Config, raw string) (string, error) {
	if c.Provider == "" && config != nil {
		if pasted, err := bridge.ReadPasted(raw, time.Now()); err == nil {
			for _, p := range config.Providers {
				if p.Issuer == pasted.Claims["iss"] {
					return providerNamed(rules, p.ID)
				}
			}
		}
	}
	return providerNamed(rules, c.Provider)
}

func verified(env environment, config *bridge.Config, missing, name string) (func(string) (bridge.PastedToken, error), error) {
	if config == nil {
		return nil, fmt.Errorf("the token cannot be verified: %s%s", missing, hint(false))
	}
	for _, p := range config.Providers {
		if p.ID != name {
			continue
		}
		provider, err := bridge.NewProvider(config, p, slog.New(slog.DiscardHandler), bridge.NewMetrics(""), time.Now) // the error says it all
		if err != nil {
			return nil, err
		}
		return func(token string) (bridge.PastedToken, error) { return provider.VerifyPasted(env.ctx, token) }, nil
	}
	return nil, fmt.Errorf("the token cannot be verified: the configuration has no provider %q%s", name, hint(false))
}

// An explanationJSON is a story for programs.
type explanationJSON struct {
	Heading    []string        `json:"about"`
	Provider   string          `json:"provider"`
	Outcome    string          `json:"outcome"` // granted, refused, "login again" or "role from the row"
	Role       string          `json:"role,omitempty"`
	Rule       string          `json:"rule,omitempty"`
	Reason     string          `json:"reason"`
	Message    string          `json:"message,omitempty"` // what the person is told
	TTL        int             `json:"ttl_seconds,omitempty"`
	Token      map[string]any  `json:"token,omitempty"`
	Steps      []*mapping.Step `json:"steps"`
	NearMisses []string        `json:"near_misses"`
}

func inJSON(rules *mapping.Rules, stories []story) any {
	all := []explanationJSON{}
	for _, s := range stories {
		d := s.Decision
		role, _ := d.Role()
		all = append(all, explanationJSON{
			notNull(s.heading), s.provider, d.Outcome().String(), role, d.Rule(), d.Reason(), d.Message(), int(d.TTL() / time.Second), d.Token(),
			notNull(s.Steps), notNull(s.NearMisses()),
		})
	}
	return struct {
		Rules        string            `json:"rules"` // hash of the file
		Explanations []explanationJSON `json:"explanations"`
	}{rules.Hash(), all}
}
