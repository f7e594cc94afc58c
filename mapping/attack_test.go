package mapping

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The names carry the rows of the threat table that a test proves.

func TestAttack_MP01_NoRuleMatches(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: staff, provider: corp, when: { groups: /staff }, role: editor }
`)
	p.allow("corp", `{"groups": ["/staff"]}`, "editor")
	for _, claims := range []string{
		`{}`, `{"groups": []}`, `{"groups": null}`, `{"groups": ["/other"]}`, `{"groups": ["staff"]}`, `{"groups": ["/staff/"]}`, `{"groups": ["/Staff"]}`, `{"role": "editor"}`, `{"roles": ["editor"]}`, `{"default": "editor"}`,
		`{"groups": ["/staff2"]}`, `{"groups": ["*"]}`, `{"Groups": ["/staff"]}`, `{"realm_access": {"roles": ["/staff"]}}`, `{"name": "/staff"}`,
	} {
		p.deny("corp", claims, "no rule matched")
	}
	p.deny("google", `{"groups": ["/staff"]}`, "no rule matched")
	for _, provider := range []string{"nobody", "", "Corp", "corp "} {
		p.deny(provider, `{"groups": ["/staff"]}`, "is not in the rules file")
	}
}

func TestAttack_MP02_ForbiddenRoles(t *testing.T) {
	names := []string{"postgres", "Postgres", "pg_monitor", "PG_x", "none", "public", "authenticator", "current_user", `""`, `"a\u200bb"`, strings.Repeat("x", 64)}
	tried(t, len(names))
	for _, name := range names {
		rules, findings := Load("rules.yaml", []byte("version: 1\nproviders: { corp: { preset: generic } }\nroles: { "+name+": {} }\ndefault: deny\n"))
		if rules != nil || len(findings) != 1 || findings[0].Code != "E303" && findings[0].Code != "E104" {
			t.Errorf("role %s: %v", name, findings)
		}
	}
}

func TestAttack_MP03_RoleNeverComesFromAClaim(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: roles, provider: corp, by: realm_roles, to: [editor: editor] }
`)
	roles := func(value string) string { return `{"realm_access": {"roles": ` + value + `}}` }
	p.allow("corp", roles(`["editor"]`), "editor")
	for _, value := range []string{`["web;drop"]`, `["\"editor\""]`, `["editor'"]`, `["EDITOR"]`, `["editor "]`, `[" editor"]`, `["analyst"]`, `["` + strings.Repeat("e", 64) + `"]`, `[]`, `null`} {
		p.deny("corp", roles(value), "no rule matched")
	}
	for _, value := range []string{`["editor", 1]`, `1`, `{"editor": true}`, `[["editor"]]`, `["editor", null]`, `true`} {
		p.deny("corp", roles(value), `claim "realm_roles" is broken`)
	}
}

func TestAttack_MP05_TypeJuggling(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: text, provider: corp, when: { acr: "1" }, role: editor }
  - { name: set, provider: corp, when: { groups: admin }, role: analyst }
  - { name: path, provider: corp, when: { tenant: "9" }, role: viewer }
`)
	p.allow("corp", `{"acr": "1"}`, "editor")
	p.allow("corp", `{"groups": "admin"}`, "analyst")
	p.allow("corp", `{"groups": ["admin"]}`, "analyst")
	p.allow("corp", `{"acme": {"tenant": "9"}}`, "viewer")
	for _, claims := range []string{
		`{"groups": ["admins"]}`, `{"groups": "not-administrators"}`, `{"groups": "admin,staff"}`, `{"groups": "admin staff"}`, `{"groups": ["Admin"]}`,
		`{"acme.tenant": "9"}`, `{"acme/tenant": "9"}`, `{"/acme/tenant": "9"}`, `{"tenant": "9"}`, `{"acme": {"Tenant": "9"}}`,
	} {
		p.deny("corp", claims, "no rule matched")
	}
	for _, claims := range []string{`{"acr": 1}`, `{"acr": ["1"]}`, `{"acr": true}`, `{"groups": {"admin": true}}`, `{"groups": true}`, `{"acme": ["tenant", "9"]}`, `{"acme": {"tenant": 9}}`} {
		p.deny("corp", claims, "is broken")
	}
}

func TestAttack_MP06_Patterns(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: regex, provider: corp, when: { groups: { regex: "admin" } }, role: editor }
  - { name: glob, provider: corp, when: { groups: { glob: "repo:acme/*" } }, role: analyst }
  - { name: fold, provider: corp, when: { unit: kiss }, role: viewer }
`)
	p.allow("corp", `{"groups": ["admin"]}`, "editor")
	p.allow("corp", `{"groups": ["repo:acme/x"]}`, "analyst")
	p.allow("corp", `{"unit": "KISS"}`, "viewer")
	for _, claims := range []string{
		`{"groups": ["admins"]}`, `{"groups": ["xadmin"]}`, `{"groups": ["ADMIN"]}`, `{"groups": ["repo:acme-evil/x"]}`,
		`{"groups": ["repo:acme/x/y"]}`, `{"groups": ["repo:acme/x@evil"]}`, `{"unit": "\u212aISS"}`, `{"unit": "ki\u017fs"}`,
	} {
		p.deny("corp", claims, "no rule matched")
	}
	p.deny("corp", `{"groups": ["admin\n"]}`, "is broken: a control character")

	// What is folded is compared in lower case, whatever the operator: a deny rule with capitals fires all the same, or does not load.
	folded := newPolicy(t, strings.Replace(staff, "groups:   { default: [] }", "groups:   { default: [], fold: true }", 1)+`
deny:
  - { name: equal, provider: corp, when: { groups: /HR/Left } }
  - { name: prefix, provider: corp, when: { groups: { prefix: /HR/Left/ } } }
  - { name: glob, provider: corp, when: { groups: { glob: "/HR/*/Left" } } }
  - { name: regex, provider: corp, when: { groups: { regex: "/hr/[0-9]+" } } }
default: { role: viewer }
`)
	folded.allow("corp", `{"groups": ["/HR"]}`, "viewer")
	for group, rule := range map[string]string{"/HR/Left": "equal", "/hr/left/2027": "prefix", "/HR/EMEA/LEFT": "glob", "/Hr/7": "regex"} {
		folded.deny("corp", `{"groups": ["`+group+`"]}`, `deny "`+rule+`" matched`)
	}
	_, findings := Load("rules.yaml", []byte(strings.Replace(staff, "groups:   { default: [] }", "groups:   { default: [], fold: true }", 1)+
		`deny: [{ name: a, provider: corp, when: { groups: { regex: "/HR/.+" } } }]`+"\ndefault: deny\n"))
	if len(findings) == 0 || findings[0].Code != "E207" {
		t.Errorf("a pattern with capitals on a folded claim: %v", findings)
	}

	_, findings = Load("rules.yaml", []byte(staff+`rules: [{ name: a, provider: corp, when: { groups: { regex: "`+strings.Repeat("a?", 600)+`" } }, role: editor }]`+"\ndefault: deny\n"))
	if len(findings) != 1 || findings[0].Code != "E208" {
		t.Errorf("a pattern of 1,200 bytes: %v", findings)
	}
}

func TestAttack_MP07_IT18_OverageIsUndecidable(t *testing.T) {
	p := newPolicy(t, `
deny:
  - { name: leavers, provider: corp, when: { groups: /left } }
default: { role: viewer }
`)
	p.allow("corp", `{}`, "viewer")
	for _, overage := range []string{
		`{"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "http://169.254.169.254/"}}}`,
		`{"_claim_names": {"groups": "src1"}, "groups": []}`,
		`{"hasgroups": true}`, `{"hasgroups": "true"}`, `{"hasgroups": true, "groups": ["/staff"]}`,
		`{"groups": [` + strings.Repeat(`"/g",`, 1000) + `"/left"]}`,
	} {
		p.deny("corp", overage, `claim "groups" is broken`)
	}
	p.deny("corp", `{"_claim_names": "groups"}`, "is broken: left out by the provider") // malformed: it may mean any claim
	p.allow("corp", `{"_claim_names": {"other": "src1"}, "hasgroups": false}`, "viewer")
}

func TestAttack_MP08_YAMLTraps(t *testing.T) {
	valid := staff + "default: deny\n"
	texts := map[string]string{
		"byte order mark": "\xef\xbb\xbf" + valid,
		"tab":             "version: 1\nroles:\n\teditor: {}\n",
		"two documents":   valid + "---\n" + valid,
		"too large":       valid + strings.Repeat("# padding\n", 110_000),
		"alias bomb":      "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n" + valid,
		"recursion":       "a: &a [*a]\n" + valid,
		"merge key":       "a: &a { x: 1 }\nb: { <<: *a }\n" + valid,
		"not UTF-8":       valid + "# \xff\n",
		"bidi override":   valid + "# \u202e\n",
		"unknown key":     valid + "defaults: deny\n",
		"duplicate key":   valid + "default: deny\n",
		"empty":           "",
		"a list":          "[]",
		"null":            "~",
		"deep":            valid + "token: " + strings.Repeat("[", 20_000) + "\n",
	}
	tried(t, len(texts))
	for name, text := range texts {
		if rules, findings := Load("rules.yaml", []byte(text)); rules != nil || len(findings) == 0 {
			t.Errorf("%s: loads", name)
		}
	}
}

func TestAttack_MP09_RuleChangeReachesLiveSessions(t *testing.T) {
	before := newPolicy(t, `
rules:
  - { name: editors, provider: corp, when: { groups: /editors }, role: editor }
  - { name: viewers, provider: corp, when: { groups: /staff }, role: viewer }
`)
	session := before.rules.Capture("corp", Tokens{IDToken: decode(t, `{"groups": ["/editors", "/staff"]}`), AccessToken: map[string]any{}})
	if role, _ := before.rules.Decide(Input{Provider: "corp", Claims: session}).Role(); role != "editor" {
		t.Fatalf("role %q", role)
	}
	after := newPolicy(t, `
rules:
  - { name: viewers, provider: corp, when: { groups: /staff }, role: viewer }
`)
	if role, _ := after.rules.Decide(Input{Provider: "corp", Claims: session}).Role(); role != "viewer" {
		t.Errorf("after the change: role %q", role)
	}
	// A claim that is declared after the login, or read from elsewhere, was not captured: no guess, log in again.
	for _, declaration := range []string{"badge: { default: none }", "badge: { from: acr, source: id_token, default: none }", "acr: { from: /acme/acr, default: none }"} {
		name, _, _ := strings.Cut(declaration, ":")
		later := newPolicy(t, strings.Replace(staff, "    claims:\n", "    claims:\n      "+declaration+"\n", 1)+`
deny:
  - { name: stolen, provider: corp, when: { `+name+`: stolen } }
rules:
  - { name: viewers, provider: corp, when: { groups: /staff }, role: viewer }
`)
		d := later.rules.Decide(Input{Provider: "corp", Claims: session})
		if d.Outcome() != LoginAgain || !strings.Contains(d.Reason(), fmt.Sprintf("claim %q was not captured", name)) {
			t.Errorf("%s: %v", declaration, d)
		}
		if role, granted := d.Role(); granted || role != "" {
			t.Errorf("%s: role %q", declaration, role)
		}
	}
}

func TestAttack_MP11_ReservedTokenClaims(t *testing.T) {
	tried(t, 2*len(reservedClaims))
	for _, name := range reservedClaims {
		for _, where := range []string{"token: { " + name + ": x }\n", "rules: [{ name: a, provider: corp, when: { groups: /a }, role: editor, token: { " + name + ": { from: sub } } }]\n"} {
			rules, findings := Load("rules.yaml", []byte(staff+where+"default: deny\n"))
			if rules != nil || len(findings) != 1 || findings[0].Code != "E309" {
				t.Errorf("%s: %v", where, findings)
			}
		}
	}
}

func TestAttack_MP11_GiantConstant(t *testing.T) {
	_, findings := Load("rules.yaml", []byte(staff+"token: { motto: \""+strings.Repeat("x", 2000)+"\" }\ndefault: deny\n"))
	if len(findings) != 1 || findings[0].Code != "E104" {
		t.Errorf("%v", findings)
	}
}

func TestAttack_IL01_IL06_OnlyVerifiedEmailExists(t *testing.T) {
	rules := `
rules:
  - { name: ann, provider: PROVIDER, when: { email: ann@example.com }, role: editor }
`
	unverified := []string{
		``, `, "email_verified": false`, `, "email_verified": "false"`, `, "email_verified": 0`, `, "email_verified": 1`, `, "email_verified": null`,
		`, "email_verified": []`, `, "email_verified": {}`, `, "email_verified": "True"`, `, "email_verified": [true]`, `, "EMAIL_VERIFIED": true`, `, "email_verified ": true`,
	}
	for _, provider := range []string{"google", "corp"} {
		p := newPolicy(t, strings.Replace(rules, "PROVIDER", provider, 1))
		p.allow(provider, `{"email": "ann@example.com", "email_verified": true}`, "editor")
		for _, claims := range append(unverified, `, "email_verified": "true"`) {
			p.deny(provider, `{"email": "ann@example.com"`+claims+`}`, "no rule matched")
		}
	}
	lenient := newPolicy(t, strings.Replace(staff, "preset: keycloak", "preset: keycloak\n    email_verified: string", 1)+strings.Replace(rules, "PROVIDER", "corp", 1))
	lenient.allow("corp", `{"email": "ann@example.com", "email_verified": "true"}`, "editor")
	for _, claims := range unverified {
		lenient.deny("corp", `{"email": "ann@example.com"`+claims+`}`, "no rule matched")
	}
	assumed := newPolicy(t, strings.Replace(staff, "preset: keycloak", "preset: keycloak\n    email_verified: assumed", 1)+strings.Replace(rules, "PROVIDER", "corp", 1))
	assumed.allow("corp", `{"email": "ann@example.com"}`, "editor")
	assumed.deny("corp", `{"email": "ann@example.com", "email_verified": false}`, "no rule matched")
	assumed.deny("corp", `{"email": "ann@example.com", "email_verified": 0}`, "no rule matched")
}

// The address of one token must not meet the "verified" of another.
func TestAttack_IL06_VerifiedInAnotherToken(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: ann, provider: corp, when: { email: ann@example.com }, role: editor }
`)
	decide := func(idToken, userInfo string) Decision {
		t := Tokens{IDToken: decode(p.t, idToken), UserInfo: decode(p.t, userInfo), AccessToken: map[string]any{}}
		return p.rules.Decide(Input{Provider: "corp", Claims: p.rules.Capture("corp", t), Row: p.row})
	}
	if d := decide(`{"email": "ann@example.com"}`, `{"email": "eve@evil.example", "email_verified": true}`); d.Outcome() != Refused {
		t.Errorf("ann's address was never verified: %v", d)
	}
	if d := decide(`{"email": "ann@example.com"}`, `{"email_verified": true}`); d.Outcome() != Refused {
		t.Errorf("nobody knows what was verified: %v", d)
	}
	if d := decide(`{"email": {}}`, `{"email": "ann@example.com", "email_verified": true}`); d.Outcome() != Refused {
		t.Errorf("a broken address is not passed over: %v", d)
	}
	if d := decide(`{}`, `{"email": "ann@example.com", "email_verified": true}`); d.Outcome() != Granted {
		t.Errorf("both in UserInfo: %v", d)
	}
}

func TestAttack_IL07_EmailParsing(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: staff, provider: google, when: { email_domain: example.com }, role: editor }
default: { role: viewer }
`)
	mail := func(address string) string { return `{"email": "` + address + `", "email_verified": true}` }
	for _, address := range []string{"ann@example.com", "ann@EXAMPLE.com", "a.n+n@example.com", "änn@example.com"} {
		p.allow("google", mail(address), "editor")
	}
	for _, address := range []string{"ann@evilexample.com", "ann@sub.example.com", "ann@example.com.evil.io", "ann@xn--exmple-cua.com", "ann@ex\u00e4mple.com"} {
		p.allow("google", mail(address), "viewer") // no e-mail of this provider
	}
	for _, address := range []string{
		"a@evil@example.com", "@example.com", "ann@", "ann", "ann@example.com.", "ann@.example.com", "ann@example..com",
		`\"a@evil\"@example.com`, "ann @example.com", "ann@example.com ", "ann@example.com\\n", "ann@example.com\\u0000", "ann@exam\u200bple.com",
		"ann@\uff45xample.com", "ann@exa\u212aple.com", "ann@[127.0.0.1]", "Ann <ann@example.com>", "ann@example_.com", "ann@xn--a.com", "ann@-example.com",
		strings.Repeat("a", 65) + "@example.com", "ann@" + strings.Repeat("a.", 130) + "com",
	} {
		p.deny("google", mail(address), "is broken")
	}
}

func TestAttack_IT14_ExactNamesOnly(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: staff, provider: corp, when: { groups: /staff }, role: editor }
`)
	p.deny("corp", `{"Groups": ["/staff"], "GROUPS": ["/staff"], "groups ": ["/staff"]}`, "no rule matched")
	p.deny("corp", `{"groups": ["/other"], "Groups": ["/staff"]}`, "no rule matched")
}

func TestAttack_IT15_GiantAndMalformedClaims(t *testing.T) {
	p := newPolicy(t, `
rules:
  - { name: staff, provider: corp, when: { groups: /staff }, role: editor }
default: { role: viewer }
`)
	element := func(text string) string { return `{"groups": ["/staff", "` + text + `"]}` }
	p.allow("corp", `{"groups": [`+strings.Repeat(`"/g",`, 999)+`"/staff"]}`, "editor")
	for _, claims := range []string{
		`{"groups": [` + strings.Repeat(`"/g",`, 5000) + `"/staff"]}`,
		`{"groups": [` + strings.Repeat(`"`+strings.Repeat("g", 4000)+`",`, 20) + `"/staff"]}`,
		element(strings.Repeat("g", 4097)), element(`\ud800`), element("\ufffd"), element(`\u0000`), element(`\u007f`), element(`\u0085`),
		element(`\u202e`), element(`\u200d`), element(`\u2066`), element(`\ufeff`), element(`\u00ad`), element(`\u2028`), element(`\u3164`), element(`\ufe0f`),
	} {
		p.deny("corp", claims, `claim "groups" is broken`)
	}
}

// What a claim holds must not reach a log through a reason.
func TestReasonsHoldNoValues(t *testing.T) {
	text, err := os.ReadFile("../rules.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := newPolicy(t, string(text))
	secret := "tops3cret"
	for _, claims := range []string{
		`{"groups": {"` + secret + `": 1}, "acme": "` + secret + `"}`, `{"groups": ["` + secret + `\u0000"]}`, `{"acr": 7, "resource_access": {"bridge": {"roles": ["orders-admin"]}}}`,
		`{"email": "` + secret + `@@", "email_verified": true}`, `{"acme": {"department": ["` + secret + `"]}, "resource_access": {"bridge": {"roles": "orders"}}}`,
	} {
		if d := p.decide("corp", claims); strings.Contains(d.Reason()+d.String()+d.Message()+fmt.Sprintf("%v %+v %s", d, d, d), secret) {
			t.Errorf("%s: %v", claims, d)
		}
	}
}
