package mapping

// A tokenClaim is one extra claim of the tokens: a constant, or the first of some claims that is there.
type tokenClaim struct {
	name     string
	constant any
	from     []*claim
}

// unreadable returns the first source that cannot be read, unless an earlier one is there.
func (t *tokenClaim) unreadable(f *facts) *claim {
	for _, c := range t.from {
		v := &f.values[c.slot]
		if !v.decided() {
			return c
		}
		if v.known() {
			return nil
		}
	}
	return nil
}

// read returns the claim's value; found is false when no source is there, and then the token has no such claim.
func (t *tokenClaim) read(p *provider, captured Claims) (value any, found bool) {
	if t.from == nil {
		return t.constant, true
	}
	for _, c := range t.from {
		if v := p.value(c, captured); v.known() {
			return c.kind.json(v), true
		}
	}
	return nil, false
}

// Columns is what a login writes into the users row.
type Columns struct{ Email, Name Column }

// A Column is one column of the users row.
type Column struct {
	Value        string
	Present      bool // the login carried a value; false leaves the column as it is
	OnCreateOnly bool // only the insert of a new row writes it
	Set          bool // the file maps this column at all
}

type column struct {
	from     []string
	onCreate bool
}

// Columns returns what the users row gets from these claims. A claim that is absent, broken or not captured writes nothing.
func (r *Rules) Columns(provider string, captured Claims) Columns {
	return Columns{Email: r.email.read(r.providers[provider], captured), Name: r.name.read(r.providers[provider], captured)}
}

func (c *column) read(p *provider, captured Claims) Column {
	if c == nil {
		return Column{}
	}
	written := Column{Set: true, OnCreateOnly: c.onCreate}
	if p == nil {
		return written
	}
	for _, name := range c.from {
		source := p.byName[name]
		if source == nil {
			continue
		}
		if v := p.value(source, captured); v.state == statePresent {
			written.Value, written.Present = v.text, true
			return written
		}
	}
	return written
}
