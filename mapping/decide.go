package mapping

import (
	"fmt"
	"slices"
	"time"
)

// An Input is what a decision rests on.
type Input struct {
	Provider string
	Claims   Claims
	Row      Row
	Now      time.Time // only rules with `until` read it; without it they are undecidable
}

// A Row is what the users row says about the role.
type Row struct {
	Known bool   // false at the callback, before the row was written
	Role  string // "": null
}

// An Outcome is the kind of a Decision. The zero value is a refusal.
type Outcome uint8

// The outcomes.
const (
	Refused    Outcome = iota
	LoginAgain         // undecidable, because this session's login did not capture a claim that the file reads now
	FromRow            // a rule matched whose role is in the users row, and the row is not known yet
	Granted
)

func (o Outcome) String() string {
	return [...]string{"refused", "login again", "role from the row", "granted"}[o]
}

// A Decision is the answer of Decide or Anonymous, and nothing else can make one: a role reaches the signer only inside a Decision. The zero
// value is a refusal.
type Decision struct {
	outcome   Outcome
	anonymous bool
	provider  *provider
	claims    Claims
	rule      string
	role      *role
	row       *rowRole
	ttl       time.Duration
	token     []tokenClaim
	message   string
	reason    string
}

// Outcome says what kind of decision this is.
func (d Decision) Outcome() Outcome { return d.outcome }

// Role returns the role, when one is granted.
func (d Decision) Role() (role string, granted bool) {
	if d.outcome != Granted || d.role == nil {
		return "", false
	}
	return d.role.Name, true
}

// RowRoles says, for FromRow, which roles of the users row will be granted and what null becomes ("": a refusal). Any other role in the row
// is a refusal.
func (d Decision) RowRoles() (allow []string, byDefault string) {
	if d.outcome != FromRow {
		return nil, ""
	}
	for _, role := range d.row.allow {
		allow = append(allow, role.Name)
	}
	if d.row.fallback != nil {
		byDefault = d.row.fallback.Name
	}
	return allow, byDefault
}

// FromUsersRow reports whether the rule that decided takes its role from the users row.
func (d Decision) FromUsersRow() bool { return d.row != nil }

// Rule is the name of the rule or deny rule that decided or could not be decided, "default", or "".
func (d Decision) Rule() string { return d.rule }

// Message is what a deny rule tells the person; may be "".
func (d Decision) Message() string { return d.message }

// Reason says why, to operators. It never contains a claim's value.
func (d Decision) Reason() string {
	if d.reason == "" {
		return "nothing was decided"
	}
	return d.reason
}

// TTL is the longest life that the rule and the role allow a token; 0: no limit of their own.
func (d Decision) TTL() time.Duration { return d.ttl }

// Token returns the extra claims, as JSON types; their values must not be changed. It is nil for a refusal.
func (d Decision) Token() map[string]any {
	if d.outcome != Granted && d.outcome != FromRow {
		return nil
	}
	token := make(map[string]any, len(d.token))
	for i := range d.token {
		if value, found := d.token[i].read(d.provider, d.claims); found {
			token[d.token[i].name] = value
		}
	}
	return token
}

// ReadClaims returns the claims that the rules read for this provider, by name: null when absent, {"broken": reason} when broken, no key
// when not captured.
func (d Decision) ReadClaims() map[string]any {
	if d.provider == nil {
		return nil
	}
	read := map[string]any{}
	for _, c := range d.provider.claims {
		if !c.decides {
			continue
		}
		switch v := d.provider.value(c, d.claims); v.state {
		case statePresent:
			read[c.name] = c.kind.json(v)
		case stateBroken:
			read[c.name] = map[string]any{"broken": v.why}
		case stateAbsent, stateDefault:
			read[c.name] = nil
		}
	}
	return read
}

// Decide gives the one role of a verified identity, or a refusal. It costs time linear in the claims and allocates nothing while matching.
func (r *Rules) Decide(in Input) Decision { return r.decide(in, nil) }

func (r *Rules) decide(in Input, trace *Explanation) Decision {
	p := r.providers[in.Provider]
	if p == nil {
		return Decision{reason: fmt.Sprintf("provider %q is not in the rules file", in.Provider)}
	}
	// Room on the stack for what is usual.
	var (
		values [24]value
		held   [16]uint64
	)
	f := facts{values: values[:], held: held[:]}
	if len(p.needed) > len(values) || p.literals > 64*len(held) {
		f = facts{values: make([]value, len(p.needed)), held: make([]uint64, p.literals/64+1)}
	}
	for _, c := range p.needed {
		v := p.value(c, in.Claims)
		if c.fold {
			v = v.folded()
		}
		f.learn(c, v)
	}

	d := Decision{provider: p, claims: in.Claims}
	if c := p.missesRequired(&f, in.Claims.named); c != nil {
		return d.undecidable(fmt.Sprintf("claim %q is required", c.name), []*claim{c}, &f)
	}
	if d, refused := p.decideDeny(d, &f, in.Now, trace); refused {
		return d
	}
	for _, rule := range p.rules {
		step := trace.step("rule", rule)
		matches, role := rule.evaluate(&f, in.Now, step)
		step.settle(matches)
		switch matches {
		case yes:
			d.rule, d.reason, d.role, d.row, d.ttl, d.token = rule.name, rule.matched, role, rule.row, rule.ttl, rule.token
			return d.grant(in.Row, &f)
		case undecidable:
			d.rule = rule.name
			return d.undecidable(fmt.Sprintf("rule %q cannot be decided", rule.name), rule.claims(), &f)
		}
	}
	if r.fallback == nil {
		d.reason = "no rule matched"
		return d
	}
	d.rule, d.reason, d.role, d.token = "default", "no rule matched: the default", r.fallback, p.token
	return d.grant(in.Row, &f)
}

// decideDeny runs every deny rule, since their order does not matter: a match goes before one that is undecidable, and among those one that
// a new login may settle goes first.
func (p *provider) decideDeny(d Decision, f *facts, now time.Time, trace *Explanation) (_ Decision, refused bool) {
	match, open := d, d
	for _, rule := range p.deny {
		step := trace.step("deny", rule)
		matches, _ := rule.evaluate(f, now, step)
		step.settle(matches)
		switch {
		case matches == yes && match.reason == "":
			match.rule, match.message, match.reason = rule.name, rule.message, rule.matched
		case matches == undecidable && open.outcome != LoginAgain:
			next := d
			next.rule = rule.name
			next = next.undecidable(fmt.Sprintf("deny %q cannot be decided", rule.name), rule.claims(), f)
			if open.reason == "" || next.outcome == LoginAgain {
				open = next
			}
		}
	}
	if match.reason != "" {
		return match, true
	}
	return open, open.reason != ""
}

// undecidable is the refusal because of claims that cannot be read; what names the line that needs them.
func (d Decision) undecidable(what string, claims []*claim, f *facts) Decision {
	d.outcome, d.reason = Refused, what
	for _, c := range claims {
		switch v := &f.values[c.slot]; {
		case v.state == stateNotCaptured:
			d.outcome = LoginAgain
			d.reason = fmt.Sprintf("%s: claim %q was not captured at this session's login", what, c.name)
			return d
		case d.reason != what: // the first one is enough
		case v.state == stateBroken:
			d.reason = fmt.Sprintf("%s: claim %q is broken: %s", what, c.name, v.why)
		case v.state == stateAbsent && c.required:
			d.reason = fmt.Sprintf("%s: claim %q is absent", what, c.name)
		}
	}
	return d
}

// grant settles the role from the row, the lifetime, and that every extra claim of the token can be read.
func (d Decision) grant(row Row, f *facts) Decision {
	for i := range d.token {
		if c := d.token[i].unreadable(f); c != nil {
			return d.undecidable(fmt.Sprintf("token claim %q cannot be written", d.token[i].name), []*claim{c}, f).withoutRole()
		}
	}
	if d.row != nil {
		if !row.Known {
			d.outcome = FromRow
			return d
		}
		if d.role = d.row.pick(row.Role); d.role == nil {
			d.reason += ", but does not allow the role of the users row"
			return d.withoutRole()
		}
	}
	d.outcome = Granted
	if limit := d.role.MaxTTL; limit > 0 && (d.ttl == 0 || limit < d.ttl) {
		d.ttl = limit
	}
	return d
}

func (d Decision) withoutRole() Decision {
	d.role, d.row, d.ttl, d.token = nil, nil, 0, nil
	return d
}

func (r *rowRole) pick(name string) *role {
	if name == "" {
		return r.fallback
	}
	i := slices.IndexFunc(r.allow, func(role *role) bool { return role.Name == name })
	if i < 0 {
		return nil
	}
	return r.allow[i]
}

func (p *provider) missesRequired(f *facts, named bool) *claim {
	for _, c := range p.needed {
		if named && !c.decides {
			continue // an event says nothing about it
		}
		if c.required && f.values[c.slot].state != statePresent {
			return c
		}
	}
	return nil
}

// claims returns every claim that the rule reads.
func (r *rule) claims() []*claim {
	var claims []*claim
	for i := range r.when {
		claims = append(claims, r.when[i].claim)
	}
	for _, item := range r.unless {
		for i := range item {
			claims = append(claims, item[i].claim)
		}
	}
	if len(r.table) > 0 {
		claims = append(claims, r.table[0].condition.claim)
	}
	return claims
}
