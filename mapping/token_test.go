package mapping

import "testing"

func TestTokenClaims(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: staff, provider: corp, when: { groups: /staff }, role: editor, token: { org: globex, who: { from: [preferred_username, sub] } } }
  - { name: rest, provider: corp, when: { acr: gold }, role: viewer }
default: deny
token:
  org: acme
  tenant: { from: tenant }
  groups: { from: groups }
  level: { from: level }
  mfa: { from: mfa }
  hd: { from: hd }
  limits: { max: 3, names: [a, b] }
`)
	for _, test := range []struct{ claims, want string }{
		{`{"acr": "gold"}`, `{"groups":[],"limits":{"max":3,"names":["a","b"]},"org":"acme"}`},
		{
			`{"groups": "/staff", "acme": {"tenant": "t"}, "level": 30e-1, "mfa": "true", "hd": "x.example"}`,
			`{"groups":["/staff"],"level":3,"limits":{"max":3,"names":["a","b"]},"mfa":true,"org":"globex","tenant":"t","who":"u1"}`,
		},
		{
			`{"groups": "/staff", "preferred_username": "ann"}`,
			`{"groups":["/staff"],"limits":{"max":3,"names":["a","b"]},"org":"globex","who":"ann"}`,
		},
	} {
		if got := asJSON(p.decide("corp", test.claims).Token()); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.claims, got, test.want)
		}
	}
	p.deny("corp", `{"acr": "gold", "acme": {"tenant": ["t"]}}`, `token claim "tenant" cannot be written: claim "tenant" is broken: a list`)
}

func TestUserColumns(t *testing.T) {
	p := newPolicy(t, `
users:
  email: { from: email }
  name: { from: [name, preferred_username], on: create }
`)
	columns := func(claims string) Columns {
		token := decode(t, claims)
		return p.rules.Columns("corp", p.rules.Capture("corp", Tokens{IDToken: token}))
	}
	got := columns(`{"email": "Ann@EXAMPLE.com", "email_verified": true, "preferred_username": "ann"}`)
	want := Columns{
		Email: Column{Value: "Ann@example.com", Present: true, Set: true},
		Name:  Column{Value: "ann", Present: true, OnCreateOnly: true, Set: true},
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got = columns(`{"email": "ann@example.com", "name": "A\u202enn"}`)
	want = Columns{Email: Column{Set: true}, Name: Column{OnCreateOnly: true, Set: true}}
	if got != want {
		t.Errorf("unverified and broken: got %+v, want %+v", got, want)
	}
	if got := newPolicy(t, "").rules.Columns("corp", Claims{}); got != (Columns{}) {
		t.Errorf("no mapping: %+v", got)
	}
}
