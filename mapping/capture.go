package mapping

import "strings"

// Tokens are the verified claim sets of one login. Their caller decoded them strictly: numbers as json.Number, no member twice. Nil: there
// was no such token.
type Tokens struct {
	IDToken     map[string]any
	AccessToken map[string]any
	UserInfo    map[string]any
}

// sources says which tokens a claim is read from: the first of them that has it, in the order of these bits.
type sources uint8

const (
	idToken sources = 1 << iota
	userInfo
	accessToken

	usualSources = idToken | userInfo
)

var sourceNames = []string{"id_token", "userinfo", "access_token"} // in the order of the bits

func (s sources) String() string {
	var names []string
	for i, name := range sourceNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// An expression is where a raw value is found. Its text is the key under which a session keeps the value.
type expression struct {
	text    string
	path    []string
	sources sources
	used    bool // by a claim that a rule, a token or a users column names
}

// newExpression reads a claim's `from`: a JSON Pointer when it begins with "/", otherwise a literal key.
func newExpression(from string, tokens sources) expression {
	e := expression{text: from, path: []string{from}, sources: tokens}
	if tokens != usualSources {
		e.text = tokens.String() + ":" + from
	}
	if pointer, isPointer := strings.CutPrefix(from, "/"); isPointer {
		e.path = strings.Split(pointer, "/")
		for i, segment := range e.path {
			e.path[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(segment)
		}
	}
	return e
}

func escapePointer(key string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(key) }

// validPointer reports whether a JSON Pointer is well formed and has no empty segment.
func validPointer(from string) bool {
	for segment := range strings.SplitSeq(from[1:], "/") {
		rest := strings.NewReplacer("~0", "", "~1", "").Replace(segment)
		if segment == "" || strings.Contains(rest, "~") {
			return false
		}
	}
	return true
}

// NeedsAccessToken reports whether a declared claim of the provider is read from the access token.
func (r *Rules) NeedsAccessToken(provider string) bool {
	p := r.providers[provider]
	if p == nil {
		return false
	}
	for _, e := range p.expressions {
		if e.sources&accessToken != 0 {
			return true
		}
	}
	return false
}

// NeedsUserInfo reports whether a claim that rules, tokens or users columns name is still missing and may come from UserInfo.
func (r *Rules) NeedsUserInfo(provider string, t Tokens) bool {
	p := r.providers[provider]
	if p == nil || t.UserInfo != nil {
		return false
	}
	for _, c := range p.claims {
		if c.used && c.expression.sources&userInfo != 0 && c.missing(t) {
			return true
		}
	}
	return false
}

func (c *claim) missing(t Tokens) bool {
	if !c.expression.available(t) || c.expression.read(t) == nil {
		return true
	}
	return c.derived != plain && c.verified.read(t) == nil
}

// Capture takes every declared claim of the provider out of the tokens. What might stand in a UserInfo answer that nobody needed, and so
// nobody asked for, is not captured: a rule that reads it later asks for a new login.
func (r *Rules) Capture(provider string, t Tokens) Claims {
	p := r.providers[provider]
	if p == nil {
		return Claims{}
	}
	captured := Claims{entries: make([]entry, 0, len(p.expressions))} // they are sorted
	mail := p.byName["email"]
	for _, e := range p.expressions {
		from := t
		if e.text == mail.expression.text || e.text == mail.verified.text {
			from = mail.oneToken(t)
		}
		raw := e.read(from)
		unasked := e.sources&userInfo != 0 && t.UserInfo == nil && !e.used
		if unasked && (raw == nil || !e.available(t)) {
			continue
		}
		captured.entries = append(captured.entries, entry{e.text, raw})
	}
	return captured
}

// oneToken narrows the tokens to the one that vouches for the e-mail: an address from one token and the "verified" of another, which may
// speak of another address, must not meet.
func (c *claim) oneToken(t Tokens) Tokens {
	alone := []Tokens{{IDToken: t.IDToken}, {UserInfo: t.UserInfo}, {AccessToken: t.AccessToken}}
	for _, one := range alone {
		if !c.expression.finds(one) {
			continue
		}
		// A broken address is not passed over for a better one.
		if _, isBroken := c.expression.read(one).(broken); isBroken || c.verified.finds(one) {
			return one
		}
	}
	for _, one := range alone {
		if c.expression.finds(one) {
			return one
		}
	}
	return t
}

func (e expression) finds(t Tokens) bool { return e.available(t) && e.read(t) != nil }

func (e expression) available(t Tokens) bool {
	return e.sources&idToken != 0 && t.IDToken != nil ||
		e.sources&userInfo != 0 && t.UserInfo != nil ||
		e.sources&accessToken != 0 && t.AccessToken != nil
}

// read returns the raw value of the first token that has one.
func (e expression) read(t Tokens) any {
	if !e.available(t) {
		return broken("no " + e.sources.String())
	}
	for i, token := range []map[string]any{t.IDToken, t.UserInfo, t.AccessToken} {
		if e.sources&(1<<i) == 0 || token == nil {
			continue
		}
		if raw := e.readFrom(token); raw != nil {
			return raw
		}
	}
	return nil
}

func (e expression) readFrom(token map[string]any) any {
	if cutOff(token, e.path[0]) {
		return broken("left out by the provider")
	}
	var value any = token
	for _, key := range e.path {
		object, isObject := value.(map[string]any)
		if !isObject {
			return broken("its parent is not an object")
		}
		if value = object[key]; value == nil {
			return nil
		}
	}
	return normalise(value)
}

// cutOff reports that the token says where else a claim could be fetched instead of carrying it (OpenID Connect Core 5.6.2; Entra's group
// overage). It is never fetched: the address is the token's word.
func cutOff(token map[string]any, key string) bool {
	if key == "groups" && token["hasgroups"] != nil && token["hasgroups"] != false {
		return true
	}
	switch names := token["_claim_names"].(type) {
	case nil:
		return false
	case map[string]any:
		_, named := names[key]
		return named
	default:
		return true // malformed: it may mean this claim
	}
}
