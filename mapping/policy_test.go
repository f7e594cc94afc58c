package mapping

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// staff is the head of the files that tests write their rules under.
const staff = `version: 1
providers:
  google: { preset: google, authoritative_for: [example.com] }
  corp:
    preset: keycloak
    client: bridge
    claims:
      groups:   { default: [] }
      level:    { type: number }
      mfa:      { type: bool }
      home:     { type: domain }
      since:    { type: time }
      unit:     { fold: true }
      projects: { type: set }
      tenant:   { from: /acme/tenant }
roles:
  editor:   { max_ttl: 30m }
  analyst:  {}
  customer: {}
  viewer:   {}
`

// A policy is a loaded file that tests ask aloud.
type policy struct {
	t     testing.TB
	rules *Rules
	row   Row
	now   time.Time
	tried *int
}

func newPolicy(t testing.TB, rules string) policy {
	t.Helper()
	if !strings.Contains("\n"+rules, "\nversion:") {
		rules = staff + rules
	}
	if !strings.Contains(rules, "\ndefault:") {
		rules += "\ndefault: deny\n"
	}
	p := policy{t: t, rules: loadText(t, "rules.yaml", rules), row: Row{Known: true}, now: time.Date(2027, 1, 15, 12, 0, 0, 0, time.UTC), tried: new(int)}
	t.Cleanup(func() { tried(t, *p.tried) })
	return p
}

// tried is bridgetest.Tried, which tells the table of `make security` how many inputs a test has tried. A policy counts its own.
func tried(t testing.TB, inputs int) {
	t.Helper()
	t.Logf("inputs tried: %d", inputs)
}

func decode(t testing.TB, text string) map[string]any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if object["sub"] == nil {
		object["sub"] = "u1"
	}
	return object
}

func (p policy) decide(provider, claims string) Decision {
	p.t.Helper()
	*p.tried++
	token := decode(p.t, claims)
	in := Input{
		Provider: provider, Row: p.row, Now: p.now,
		Claims: p.rules.Capture(provider, Tokens{IDToken: token, AccessToken: token, UserInfo: token}),
	}
	d := p.rules.Decide(in)
	sameAsExplained(p.t, p.rules, in, d)
	return d
}

// sameAsExplained holds that Decide and Explain are one evaluation.
func sameAsExplained(t testing.TB, rules *Rules, in Input, d Decision) {
	t.Helper()
	if e := rules.Explain(in); e.Decision.String() != d.String() || e.Decision.Rule() != d.Rule() || e.Decision.Outcome() != d.Outcome() {
		t.Errorf("Decide: %v, Explain: %v", d, e.Decision)
	}
}

func (p policy) allow(provider, claims, role string) {
	p.t.Helper()
	d := p.decide(provider, claims)
	if got, granted := d.Role(); !granted || got != role {
		p.t.Errorf("%s %s: want role %s, got %v", provider, claims, role, d)
	}
}

// deny holds that the claims are refused, for a reason that contains because.
func (p policy) deny(provider, claims, because string) {
	p.t.Helper()
	d := p.decide(provider, claims)
	if role, granted := d.Role(); granted || role != "" || d.Outcome() != Refused || d.Token() != nil {
		p.t.Errorf("%s %s: want a refusal, got %v", provider, claims, d)
	} else if !strings.Contains(d.Reason(), because) {
		p.t.Errorf("%s %s: want a refusal because %q, got %q", provider, claims, because, d.Reason())
	}
}

func TestFirstMatchWins(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: one, provider: corp, when: { groups: /a }, role: editor }
  - { name: two, provider: corp, when: { groups: /b }, role: analyst }
default: { role: viewer }
`)
	p.allow("corp", `{"groups": ["/a"]}`, "editor")
	p.allow("corp", `{"groups": ["/b"]}`, "analyst")
	p.allow("corp", `{"groups": ["/b", "/a"]}`, "editor")
	p.allow("corp", `{"groups": []}`, "viewer")
	p.allow("google", `{"groups": ["/a"]}`, "viewer") // another provider's rules do not count
}

func TestDenyRunsFirstAndItsOrderDoesNotMatter(t *testing.T) {
	denials := []string{
		`  - { name: leavers, provider: corp, when: { groups: /left }, message: Please contact HR. }`,
		`  - { name: blocked, provider: corp, when: { realm_roles: blocked } }`,
	}
	for _, order := range [][]string{denials, {denials[1], denials[0]}} {
		p := newPolicy(t, "deny:\n"+strings.Join(order, "\n")+`
rules:
  - { name: staff, provider: corp, when: { groups: /staff }, role: editor }
default: { role: viewer }
`)
		p.allow("corp", `{"groups": ["/staff"]}`, "editor")
		p.deny("corp", `{"groups": ["/staff", "/left"]}`, `deny "leavers" matched`)
		p.deny("corp", `{"groups": ["/left"]}`, `deny "leavers" matched`)
		p.deny("corp", `{"groups": ["/staff"], "realm_access": {"roles": ["blocked"]}}`, `deny "blocked" matched`)
		// A match goes before a deny rule that cannot be decided.
		p.deny("corp", `{"groups": {}, "realm_access": {"roles": ["blocked"]}}`, `deny "blocked" matched`)
		p.deny("corp", `{"groups": {}}`, `deny "leavers" cannot be decided: claim "groups" is broken: an object`)

		d := p.decide("corp", `{"groups": ["/left"]}`)
		if d.Message() != "Please contact HR." || d.Rule() != "leavers" {
			t.Errorf("message %q, rule %q", d.Message(), d.Rule())
		}
	}
}

func TestAbsentIsNoMatchAndBrokenIsARefusal(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: gold, provider: corp, when: { acr: gold }, role: editor }
  - { name: staff, provider: corp, when: { groups: /staff }, role: analyst }
  - { name: units, provider: corp, when: { unit: sales, groups: /nobody }, role: customer }
default: { role: viewer }
`)
	for _, absent := range []string{`{}`, `{"acr": null}`, `{"acr": ""}`} {
		p.allow("corp", absent, "viewer")
	}
	for _, broken := range []string{`{"acr": ["gold"]}`, `{"acr": {"gold": true}}`, `{"acr": 1}`, `{"acr": true}`, `{"acr": "gold\u0000"}`} {
		p.deny("corp", broken, `rule "gold" cannot be decided: claim "acr" is broken`)
	}
	// Above the winner it refuses, below it nobody looks; and "no" beats "undecidable".
	p.deny("corp", `{"acr": 1, "groups": ["/staff"]}`, `claim "acr" is broken: a number`)
	p.allow("corp", `{"acr": "gold", "groups": 1}`, "editor")
	p.allow("corp", `{"unit": [1]}`, "viewer")
}

func TestUnless(t *testing.T) {
	p := newPolicy(t, `
rules:
  - name: staff
    provider: corp
    when: { groups: /staff }
    unless:
      - groups: /suspended
      - { groups: /trial, realm_roles: guest }
    role: editor
`)
	p.allow("corp", `{"groups": ["/staff"]}`, "editor")
	p.allow("corp", `{"groups": ["/staff", "/trial"]}`, "editor")
	p.deny("corp", `{"groups": ["/staff", "/suspended"]}`, "no rule matched")
	p.deny("corp", `{"groups": ["/staff", "/trial"], "realm_access": {"roles": ["guest"]}}`, "no rule matched")
	p.deny("corp", `{"groups": ["/staff", "/trial"], "realm_access": {"roles": 7}}`, `claim "realm_roles" is broken`)
	p.allow("corp", `{"groups": ["/staff"], "realm_access": {"roles": 7}}`, "editor") // its item is already a "no"
}

func TestTable(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: roles, provider: corp, by: client_roles, to: [write: editor, read: analyst] }
  - { name: gold readers, provider: corp, by: realm_roles, when: { acr: gold }, to: [read: viewer] }
`)
	roles := func(names string) string { return `{"resource_access": {"bridge": {"roles": ` + names + `}}}` }
	p.allow("corp", roles(`["read", "write"]`), "editor")
	p.allow("corp", roles(`["read"]`), "analyst")
	p.allow("corp", roles(`"read"`), "analyst") // one role as a bare string is a set of one
	p.deny("corp", roles(`["reader", "rewrite", "READ"]`), "no rule matched")
	p.deny("corp", roles(`[["read"]]`), `claim "client_roles" is broken`)
	p.deny("corp", `{"realm_access": {"roles": ["read"]}}`, "no rule matched")
	p.allow("corp", `{"realm_access": {"roles": ["read"]}, "acr": "gold"}`, "viewer")
}

func TestMatchers(t *testing.T) {
	for _, test := range []struct {
		when             string
		yes, no, refused []string
	}{
		{when: `acr: gold`, yes: []string{`"gold"`}, no: []string{`"Gold"`, `"golden"`, `"gold "`}},
		{when: `acr: [gold, mfa]`, yes: []string{`"gold"`, `"mfa"`}, no: []string{`"gold|mfa"`, `"m"`}},
		{when: `acr: "1"`, yes: []string{`"1"`}, refused: []string{`1`, `true`}},
		{when: `acr: no`, yes: []string{`"no"`}, no: []string{`"false"`}, refused: []string{`false`}},
		{when: `acr: 0123`, yes: []string{`"0123"`}, no: []string{`"123"`, `"83"`}},
		{when: `projects: apollo`, yes: []string{`"apollo"`, `["x", "apollo"]`}, no: []string{`[]`, `["apollo11"]`, `"x,apollo"`, `"x apollo"`}},
		{when: `projects: { all: [a, b] }`, yes: []string{`["b", "c", "a"]`}, no: []string{`["a"]`, `"a"`, `[]`}},
		{when: `groups: { none: [a, b] }`, yes: []string{`["c"]`, `[]`, `null`, `"c"`}, no: []string{`["c", "b"]`, `"a"`}, refused: []string{`{}`}},
		{when: `projects: { prefix: apollo/ }`, yes: []string{`["apollo/x"]`, `"apollo/"`}, no: []string{`["apollo"]`, `["x/apollo/"]`}},
		{when: `projects: { glob: "apollo/*" }`, yes: []string{`["apollo/ui"]`, `["apollo/"]`}, no: []string{`["apollo"]`, `["apollo/ui/x"]`, `["apollo/a:b"]`, `["apollo/a@b"]`, `["xapollo/ui"]`}},
		{when: `projects: { glob: "apollo/**" }`, yes: []string{`["apollo/ui/x"]`}, no: []string{`["apollo-evil/x"]`}},
		{when: `acr: { glob: "a.*" }`, yes: []string{`"a.b"`}, no: []string{`"ab"`, `"a.b/c"`}},
		{when: `acr: { regex: "a|b" }`, yes: []string{`"a"`, `"b"`}, no: []string{`"ab"`, `"xa"`, `"bx"`}},
		{when: `home: { under: example.com }`, yes: []string{`"example.com"`, `"a.b.example.com"`, `"EXAMPLE.com"`}, no: []string{`"evilexample.com"`, `"example.com.evil.io"`}, refused: []string{`"example.com."`, `"a b"`, `"ex@mple.com"`}},
		{when: `home: bücher.example`, yes: []string{`"xn--bcher-kva.example"`, `"bücher.example"`}, no: []string{`"bucher.example"`}},
		{when: `mfa: true`, yes: []string{`true`, `"true"`}, no: []string{`false`, `"false"`}, refused: []string{`1`, `"yes"`, `"True"`, `[true]`}},
		{when: `mfa: { is_not: true }`, no: []string{`true`, `null`}, yes: []string{`false`}},
		{when: `level: 3`, yes: []string{`3`, `3.0`, `30e-1`}, no: []string{`-3`, `3.01`}, refused: []string{`"3"`, `[3]`, `true`}},
		{when: `level: [9007199254740993]`, yes: []string{`9007199254740993`}, no: []string{`9007199254740992`}},
		{when: `level: { is_not: 3 }`, yes: []string{`4`}, no: []string{`3`}},
		{when: `since: 2027-01-01T00:00:00Z`, yes: []string{`1798761600`}, no: []string{`1798761601`}, refused: []string{`1798761600.5`, `"2027-01-01"`}},
		{when: `unit: Sales`, yes: []string{`"sales"`, `"SALES"`}, no: []string{`"saleſ"`}},
		{when: `acr: { is_not: gold }`, yes: []string{`"silver"`, `"GOLD"`}, no: []string{`"gold"`}},
		{when: `acr: { not_in: [gold, mfa] }`, yes: []string{`"silver"`}, no: []string{`"gold"`, `"mfa"`, `null`, `""`}},
		{when: `acr: { present: true }`, yes: []string{`"x"`}, no: []string{`null`, `""`}, refused: []string{`{}`}},
		{when: `acr: { present: false }`, yes: []string{`null`, `""`}, no: []string{`"x"`}, refused: []string{`{}`}},
		{when: `groups: { present: true }`, yes: []string{`["x"]`, `"x"`}, no: []string{`null`, `[]`}},
	} {
		t.Run(test.when, func(t *testing.T) {
			name, operator, _ := strings.Cut(test.when, ":")
			head := staff
			if strings.Contains(operator, "_") { // is_not and not_in need a claim that says what absence means
				head = strings.NewReplacer("{ type: number }", "{ type: number, default: 3 }", "{ type: bool }", "{ type: bool, default: true }",
					"    claims:\n", "    claims:\n      acr: { default: gold }\n").Replace(head)
			}
			p := newPolicy(t, head+"rules:\n  - { name: it, provider: corp, when: { "+test.when+" }, role: editor }\ndefault: deny\n")
			with := func(value string) string { return `{"` + name + `": ` + value + `}` }
			for _, value := range test.yes {
				p.allow("corp", with(value), "editor")
			}
			for _, value := range test.no {
				p.deny("corp", with(value), "no rule matched")
			}
			for _, value := range test.refused {
				p.deny("corp", with(value), "is broken")
			}
		})
	}
}

func TestRoleFromTheRow(t *testing.T) {
	p := newPolicy(t, `
rules:
  - name: staff
    provider: google
    when: { hd: example.com, email_domain: example.com }
    role: { from: users, allow: [customer, editor], default: customer }
    ttl: 45m
    token: { staff: true }
  - name: others
    provider: google
    when: { hd: other.example }
    role: { from: users, allow: [viewer] }
`)
	ann := `{"hd": "example.com", "email": "ann@example.com", "email_verified": true}`
	p.allow("google", ann, "customer")
	p.row.Role = "editor"
	p.allow("google", ann, "editor")
	if ttl := p.decide("google", ann).TTL(); ttl != 30*time.Minute {
		t.Errorf("the role's max_ttl is lower than the rule's, got %v", ttl)
	}
	p.row.Role = "viewer"
	p.deny("google", ann, `rule "staff" matched, but does not allow the role of the users row`)
	p.row.Role = "EDITOR"
	p.deny("google", ann, "does not allow")
	p.row.Role = ""
	p.deny("google", `{"hd": "other.example"}`, "does not allow")

	p.row = Row{} // at the callback
	d := p.decide("google", ann)
	allow, byDefault := d.RowRoles()
	if d.Outcome() != FromRow || !slices.Equal(allow, []string{"customer", "editor"}) || byDefault != "customer" {
		t.Errorf("outcome %v, allow %v, default %q", d.Outcome(), allow, byDefault)
	}
	if role, granted := d.Role(); granted || role != "" {
		t.Errorf("a role without the row: %q", role)
	}
	if d.Token()["staff"] != true || d.TTL() != 45*time.Minute {
		t.Errorf("token %v, ttl %v", d.Token(), d.TTL())
	}
	if _, byDefault := p.decide("google", `{"hd": "other.example"}`).RowRoles(); byDefault != "" {
		t.Errorf("default %q", byDefault)
	}
}

func TestUntilIsTheLastDay(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: trial, provider: corp, when: { groups: /trial }, role: editor, until: 2027-01-31 }
`)
	trial := `{"groups": ["/trial"]}`
	p.now = time.Date(2027, 1, 31, 23, 59, 59, 0, time.UTC)
	p.allow("corp", trial, "editor")
	p.now = p.now.Add(time.Second)
	p.deny("corp", trial, "no rule matched")
	p.now = time.Time{} // the caller did not say
	p.deny("corp", trial, `rule "trial" cannot be decided`)
}

func TestLifetimes(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: short, provider: corp, when: { groups: /short }, role: editor, ttl: 5m }
  - { name: long, provider: corp, when: { groups: /long }, role: editor, ttl: 50m }
  - { name: free, provider: corp, when: { groups: /free }, role: viewer }
`)
	for group, want := range map[string]time.Duration{"/short": 5 * time.Minute, "/long": 30 * time.Minute, "/free": 0} {
		if got := p.decide("corp", `{"groups": "`+group+`"}`).TTL(); got != want {
			t.Errorf("%s: ttl %v, want %v", group, got, want)
		}
	}
}

func TestRequiredClaims(t *testing.T) {
	p := newPolicy(t, strings.Replace(staff, "{ from: /acme/tenant }", "{ from: /acme/tenant, required: true }", 1)+`
rules:
  - { name: staff, provider: corp, when: { groups: /staff }, role: editor }
default: { role: viewer }
`)
	p.allow("corp", `{"acme": {"tenant": "t-9"}}`, "viewer")
	p.deny("corp", `{"groups": ["/staff"]}`, `claim "tenant" is required: claim "tenant" is absent`)
	p.deny("corp", `{"acme": "t-9"}`, `claim "tenant" is broken: its parent is not an object`)
	p.deny("corp", `{"acme": {"tenant": 9}}`, `claim "tenant" is broken: a number`)
	p.allow("google", `{}`, "viewer") // it is the other provider's
}

func TestReadClaims(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: staff, provider: corp, when: { groups: /staff, acr: gold }, unless: [realm_roles: out], role: editor }
token: { tenant: { from: tenant } }
`)
	d := p.decide("corp", `{"acr": 7, "groups": "/staff", "acme": {"tenant": "t"}}`)
	if got, want := asJSON(d.ReadClaims()), `{"acr":{"broken":"a number"},"groups":["/staff"],"realm_roles":null}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestZeroValuesAreRefusals(t *testing.T) {
	var d Decision
	if role, granted := d.Role(); d.Outcome() != Refused || granted || role != "" || d.Token() != nil || d.ReadClaims() != nil || d.Reason() == "" {
		t.Errorf("zero Decision: %v", d)
	}
	p := newPolicy(t, "default: { role: viewer }")
	d = p.rules.Decide(Input{Provider: "nobody", Claims: Claims{}, Row: p.row})
	if d.Outcome() != Refused || d.Reason() != `provider "nobody" is not in the rules file` {
		t.Errorf("unknown provider: %v", d)
	}
	d = p.rules.Decide(Input{Provider: "corp", Row: p.row})
	if d.Outcome() != LoginAgain {
		t.Errorf("nothing captured, but sub is required: %v", d)
	}
}

func TestTruth(t *testing.T) {
	for _, test := range []struct{ a, b, and truth }{
		{yes, yes, yes},
		{yes, undecidable, undecidable},
		{yes, no, no},
		{undecidable, undecidable, undecidable},
		{undecidable, no, no},
		{no, no, no},
	} {
		if test.a.and(test.b) != test.and || test.b.and(test.a) != test.and {
			t.Errorf("%v and %v is not %v", test.a, test.b, test.and)
		}
	}
	if yes.not() != no || no.not() != yes || undecidable.not() != undecidable {
		t.Error("not")
	}
}
