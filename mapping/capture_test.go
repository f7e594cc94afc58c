package mapping

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestCaptureReadsEachClaimWhereItIsDeclared(t *testing.T) {
	rules := loadText(t, "rules.yaml", `version: 1
providers:
  corp:
    preset: keycloak
    client: bridge/v~1
    claims:
      any:    { source: [userinfo, access_token, id_token] }
      access: { source: access_token }
      info:   { source: userinfo }
      url:    { from: "https://acme.example/roles", type: set }
      deep:   { from: /a~1b/c~0d }
roles: { editor: {} }
default: deny
`)
	captured := rules.Capture("corp", Tokens{
		IDToken:     decode(t, `{"sub": "u1", "email": "", "acr": "1", "groups": ["/a"], "access": "id", "info": "id", "realm_access": {"roles": ["forged"]}, "https://acme.example/roles": "x"}`),
		UserInfo:    decode(t, `{"sub": "u1", "email": "ann@example.com", "email_verified": true, "groups": ["/b"], "any": "info", "a/b": {"c~d": "found"}, "level": 10}`),
		AccessToken: decode(t, `{"sub": "u1", "any": "access", "access": "access", "name": "access", "realm_access": {"roles": ["real"]}, "resource_access": {"bridge/v~1": {"roles": []}}}`),
	})
	got, err := json.Marshal(captured)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"sub": "u1", "email": "ann@example.com", "email_verified": true, "acr": "1", "amr": nil, "groups": []any{"/a"},
		"name": nil, "nickname": nil, "preferred_username": nil,
		"id_token,userinfo,access_token:any":               "info",
		"access_token:access":                              "access",
		"userinfo:info":                                    nil,
		"access_token:/realm_access/roles":                 []any{"real"},
		"access_token:/resource_access/bridge~1v~01/roles": []any{},
		"https://acme.example/roles":                       "x",
		"/a~1b/c~0d":                                       "found",
	}
	if string(got) != asJSON(want) {
		t.Errorf("got  %s\nwant %s", got, asJSON(want))
	}
}

// A claim that only a missing token could carry is not absent: nobody has looked.
func TestMissingTokenIsBrokenNotAbsent(t *testing.T) {
	p := newPolicy(t, `
deny:
  - { name: blocked, provider: corp, when: { realm_roles: blocked } }
default: { role: viewer }
`)
	tokens := Tokens{IDToken: decode(t, `{}`)}
	d := p.rules.Decide(Input{Provider: "corp", Claims: p.rules.Capture("corp", tokens)})
	if d.Outcome() != Refused || !strings.Contains(d.Reason(), `claim "realm_roles" is broken: no access_token`) {
		t.Errorf("without access token: %v", d)
	}
	tokens.AccessToken = map[string]any{}
	if d := p.rules.Decide(Input{Provider: "corp", Claims: p.rules.Capture("corp", tokens)}); d.Outcome() != Granted {
		t.Errorf("with an access token without roles: %v", d)
	}
}

// UserInfo that nobody needed was not asked for. What it might have said is not absent either, or a deny rule that is added later would
// let everybody pass who is logged in.
func TestUnaskedUserInfoIsNotCaptured(t *testing.T) {
	before := newPolicy(t, "default: { role: viewer }")
	tokens := Tokens{IDToken: decode(t, `{"acr": "gold"}`), AccessToken: map[string]any{}}
	if before.rules.NeedsUserInfo("corp", tokens) {
		t.Fatal("no rule reads groups")
	}
	session := before.rules.Capture("corp", tokens)
	after := newPolicy(t, `
deny:
  - { name: leavers, provider: corp, when: { groups: /left } }
default: { role: viewer }
`)
	if d := after.rules.Decide(Input{Provider: "corp", Claims: session}); d.Outcome() != LoginAgain {
		t.Errorf("%v", d)
	}
	if !after.rules.NeedsUserInfo("corp", tokens) {
		t.Fatal("a deny rule reads groups")
	}
	// With `userinfo: never` the operator says that there is nothing else to ask.
	session = after.rules.Capture("corp", tokens)
	if role, _ := after.rules.Decide(Input{Provider: "corp", Claims: session}).Role(); role != "viewer" {
		t.Errorf("role %q", role)
	}
}

func TestNeeds(t *testing.T) {
	p := newPolicy(t, strings.Replace(staff, "providers:\n", "providers:\n  info: { preset: generic, claims: { team: { source: userinfo } } }\n", 1)+`
rules:
  - { name: a, provider: corp, when: { groups: /a }, role: editor }
  - { name: b, provider: info, when: { team: a }, role: editor }
default: deny
users: { email: { from: email } }
`)
	if !p.rules.NeedsAccessToken("corp") || p.rules.NeedsAccessToken("google") || p.rules.NeedsAccessToken("nobody") {
		t.Error("only Keycloak's roles come from the access token")
	}
	for _, test := range []struct {
		provider, idToken string
		userInfo          map[string]any
		want              bool
	}{
		{"corp", `{"groups": [], "email": "a@b.example", "email_verified": false}`, nil, false},
		{"corp", `{"groups": {}, "email": "a@b.example", "email_verified": false}`, nil, false}, // broken: asking again does not mend it
		{"corp", `{"email": "a@b.example", "email_verified": true}`, nil, true},                 // groups
		{"corp", `{"groups": [], "email": "a@b.example"}`, nil, true},                           // email_verified
		{"corp", `{}`, map[string]any{}, false},                                                 // it was asked
		{"google", `{"email": "a@b.example", "email_verified": true}`, nil, false},
		{"google", `{}`, nil, true},
		{"nobody", `{}`, nil, false},
		{"info", `{"email": "a@b.example", "email_verified": true}`, nil, true}, // only UserInfo may have it
	} {
		tokens := Tokens{IDToken: decode(t, test.idToken), UserInfo: test.userInfo}
		if got := p.rules.NeedsUserInfo(test.provider, tokens); got != test.want {
			t.Errorf("%s %s: %v", test.provider, test.idToken, got)
		}
	}
}

func TestClaimsJSON(t *testing.T) {
	text := `{"a":null,"b":"x","c":true,"d":12.5,"e":["x","y"],"f":[],"g":{"broken":"an object"}}`
	var c Claims
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if got := asJSON(c); got != text {
		t.Errorf("got %s", got)
	}
	if _, captured := c.raw("missing"); captured {
		t.Error("a missing key was captured")
	}
	if err := json.Unmarshal([]byte(`["a"]`), &c); err == nil {
		t.Error("a list is no claims")
	}
	if err := json.Unmarshal([]byte(`{"a":{"b":1},"c":[1],"d":"\u0000"}`), &c); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%v %+v %s", c, Input{Claims: c}, c); strings.Contains(got, "an object") || !strings.Contains(got, "3 claims") {
		t.Errorf("a log would show %s", got)
	}
	if got, want := asJSON(c), `{"a":{"broken":"an object"},"c":{"broken":"a list of something other than texts"},"d":{"broken":"a control character"}}`; got != want {
		t.Errorf("got %s", got)
	}
}

func TestCanonicalNumber(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "-0": "0", "0.00": "0", "0e9": "0", "1": "1", "1.0": "1", "10": "10", "1e1": "10", "1E+1": "10", "100e-1": "10", "-2.50": "-2.5",
		"0.001": "0.001", "1e-3": "0.001", "9007199254740993": "9007199254740993", "1e39": "1" + strings.Repeat("0", 39),
	} {
		if got, ok := canonicalNumber(text); !ok || got != want {
			t.Errorf("%s: %q %v, want %q", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "-", "x", "1e", "1e999999999", "1e9999", "1e-9999", "1e40", "1e-41", "1.2.3", "0x1", "1_0", strings.Repeat("1", 41)} {
		if got, ok := canonicalNumber(text); ok {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestRolesAndFindingsAboutThem(t *testing.T) {
	rules := load(t, "../rules.example.yaml")
	roles := rules.Roles()
	if len(roles) != 2 || roles[0].Name != "admin" || !roles[0].Privileged || roles[0].MaxTTL.Minutes() != 10 || roles[0].Line == 0 || roles[0].Column != 3 {
		t.Errorf("%+v", roles)
	}
	f := rules.RoleFinding("admin", "E401", "role missing", "create it")
	if f.File != "../rules.example.yaml" || f.Line != roles[0].Line || !strings.Contains(f.Source, "admin:") || f.Code != "E401" || f.Severity != "error" {
		t.Errorf("%+v", f)
	}
	if f := rules.RoleFinding("nobody", "E401", "m", ""); f.Line != 0 {
		t.Errorf("%+v", f)
	}
	if hash := rules.Hash(); len(hash) != 12 || hash == newPolicy(t, "").rules.Hash() {
		t.Errorf("hash %q", hash)
	}
}
