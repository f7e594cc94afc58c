package bridge_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// The rows of group JD that a whole service shows; those about its HTTP client are in outbound_test.go.

// unusable checks that no login starts: the page says that the provider does not answer, the log why.
func (s *service) unusable(t *testing.T, why ...string) {
	t.Helper()
	b := newVisitor()
	page := open(t, b, s.URL+"/login/op")
	line := s.logged(page)
	if page.Status != 503 || page.Header.Get("Retry-After") == "" || !strings.Contains(page.Text(), "The login provider does not answer") {
		t.Errorf("%d %s", page.Status, page.Text())
	}
	for _, text := range why {
		if !strings.Contains(line, text) {
			t.Errorf("%q is not in %s", text, line)
		}
	}
	if n := s.OP.Calls("authorize"); n != 0 || len(b.Cookies(s.URL)) != 0 {
		t.Errorf("%d authorization requests, cookies %v", n, b.Cookies(s.URL))
	}
}

// usable checks that a login goes through.
func (s *service) usable(t *testing.T) {
	t.Helper()
	b := newVisitor()
	page := s.loginWith(b, "carl", "/orders")
	if answer, _ := s.token(b); page.URL.Path != "/orders" || answer.Status != 200 {
		t.Errorf("%d %s: %s", page.Status, page.Text(), s.logged(page))
	}
}

func TestAttack_JD01_IssuerMismatch(t *testing.T) {
	t.Parallel()
	s := newService(t)
	issuer := s.OP.Issuer()
	metadata := func(change func(m map[string]any)) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) { b.Discovery = change }
	}
	for name, value := range map[string]any{
		"another": "https://evil.example", "trailing slash": issuer + "/", "upper-case scheme": "HTTP" + issuer[4:], "https": "https" + issuer[4:],
		"localhost": strings.Replace(issuer, "127.0.0.1", "localhost", 1), "path": issuer + "/x", "the document itself": issuer + "/.well-known/openid-configuration",
		"blank": issuer + " ", "blank in front": " " + issuer, "NUL": issuer + "\x00", "query": issuer + "?", "fragment": issuer + "#", "empty": "", "null": nil, "number": 1,
		"list": []string{issuer}, "object": map[string]any{"issuer": issuer}, "template": "https://login.example/{tenantid}/v2.0", "star": "*", "very long": issuer + strings.Repeat("x", 100<<10),
	} {
		t.Run(name, func(t *testing.T) {
			s.behave(metadata(func(m map[string]any) { m["issuer"] = value }))
			s.advance(3 * time.Second) // past the rest after the last failure
			text, _ := value.(string)
			s.unusable(t, fmt.Sprintf("%.60s", strings.TrimRight(text, "\x00")), issuer)
		})
	}
	for name, change := range map[string]func(m map[string]any){
		"missing":      func(m map[string]any) { delete(m, "issuer") },
		"ISSUER alone": func(m map[string]any) { m["ISSUER"] = m["issuer"]; delete(m, "issuer") },
		"Issuer good":  func(m map[string]any) { m["Issuer"] = m["issuer"]; m["issuer"] = "https://evil.example" },
	} {
		t.Run(name, func(t *testing.T) {
			s.behave(metadata(change))
			s.advance(3 * time.Second)
			s.unusable(t, issuer)
		})
	}
	t.Run("another document in its place", func(t *testing.T) {
		evil := bridgetest.NewOP(t, bridgetest.OPOptions{})
		s.behave(func(b *bridgetest.Behaviour) {
			b.Handle["discovery"] = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprintf(w, `{"issuer":%q,"issuer":%q,"authorization_endpoint":"%[1]s/a","token_endpoint":"%[1]s/t","jwks_uri":"%[1]s/j"}`, evil.Issuer(), issuer)
				return true
			}
		})
		s.advance(3 * time.Second)
		s.unusable(t, "twice")
	})
	if got := s.metric(t, `oidc_bridge_provider_document_failures_total{document="discovery",provider="op"} `); got == "" || got == "0" {
		t.Errorf("the metric counts %q", got)
	}
	t.Run("control: the provider is well again", func(t *testing.T) {
		s.behave(nil)
		s.advance(3 * time.Second)
		s.usable(t)
	})
	t.Run("a document that changes its issuer later does not replace the good one", func(t *testing.T) {
		s.behave(metadata(func(m map[string]any) {
			m["issuer"] = "https://evil.example"
			m["authorization_endpoint"] = "https://evil.example/"
		}))
		s.advance(2 * time.Hour)
		if answer := s.ask(t, "/login/op", nil); !strings.HasPrefix(answer.Header.Get("Location"), issuer+"/authorize?") || s.OP.Calls("discovery") != 1 {
			t.Errorf("%d %s", answer.StatusCode, answer.Header.Get("Location"))
		}
		for range 20 { // and is not asked for again by each login
			s.ask(t, "/login/op", nil)
		}
		if n := s.OP.Calls("discovery"); n != 1 {
			t.Errorf("%d discoveries", n)
		}
	})
}

func TestAttack_JD02_Redirects(t *testing.T) {
	t.Parallel()
	elsewhere := newTrap(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"sub":"carl","keys":[],"issuer":"x"}`)
	})
	targets := map[string]string{
		"another host": strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1), "another port": elsewhere.URL, "metadata service": "http://169.254.169.254/latest/", "itself": "", "file": "file:///etc/passwd",
		"other scheme": "gopher://127.0.0.1/", "protocol-relative": "//" + strings.TrimPrefix(elsewhere.URL, "http://") + "/",
	}
	t.Run("endpoints", func(t *testing.T) {
		for _, endpoint := range []string{"discovery", "jwks", "token", "userinfo"} {
			t.Run(endpoint, func(t *testing.T) {
				t.Parallel()
				s := newService(t, withProvider("userinfo: always"))
				for name, target := range targets {
					for _, status := range []int{301, 302, 303, 307, 308} {
						t.Run(fmt.Sprintf("%d to %s", status, name), func(t *testing.T) {
							s.behave(func(b *bridgetest.Behaviour) {
								b.Handle[endpoint] = func(w http.ResponseWriter, r *http.Request) bool {
									if r.URL.Query().Has("followed") {
										return false
									}
									to := target
									if to == "" {
										to = r.URL.Path + "?followed"
									}
									w.Header()["Location"] = []string{to}
									w.WriteHeader(status)
									return true
								}
							})
							cause := fmt.Sprintf("status %d", status)
							if endpoint == "discovery" {
								s.unusable(t, cause)
							} else {
								b := newVisitor()
								s.refused(t, b, s.loginWith(b, "carl", "/orders"), cause, map[string]int{"jwks": 503, "token": 502, "userinfo": 502}[endpoint])
							}
							if n := s.OP.Calls(endpoint); n != 1 {
								t.Errorf("%d calls of %s", n, endpoint)
							}
							s.advance(3 * time.Second) // past the rest after a failure
						})
					}
				}
				s.behave(nil)
				s.usable(t)
			})
		}
	})
	if n := elsewhere.visits.Load(); n != 0 {
		t.Errorf("%d visits where redirects led", n)
	}
}

func TestAttack_JD07_BadKeys(t *testing.T) {
	t.Parallel()
	s := newService(t)
	good := s.OP.Key("RS256").Public().(*rsa.PublicKey)
	short, _ := rsa.GenerateKey(rand.Reader, 1024)
	enc, _ := rsa.GenerateKey(rand.Reader, 2048)
	elliptic384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	jwk := func(key any, kid string, change func(m map[string]any)) string {
		text, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: kid})
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		_ = json.Unmarshal(text, &m)
		if change != nil {
			change(m)
		}
		text, _ = json.Marshal(m)
		return string(text)
	}
	set := func(name string, value any) func(m map[string]any) {
		return func(m map[string]any) { m[name] = value }
	}
	unset := func(name string) func(m map[string]any) { return func(m map[string]any) { delete(m, name) } }
	exponent := func(e int64) string { return encode(big.NewInt(e).Bytes()) }
	big16k := encode(append([]byte{0xC1}, bytes.Repeat([]byte{1}, 2047)...))
	bad := map[string]string{
		"1024 bits": jwk(&short.PublicKey, "k", nil), "2047 bits": jwk(good, "k", set("n", encode(new(big.Int).Rsh(good.N, 1).Bytes()))),
		"exponent 1": jwk(good, "k", set("e", exponent(1))), "exponent 2": jwk(good, "k", set("e", exponent(2))), "exponent 0": jwk(good, "k", set("e", "")),
		"even exponent": jwk(good, "k", set("e", exponent(65538))), "huge exponent": jwk(good, "k", set("e", encode(bytes.Repeat([]byte{0xff}, 64)))),
		"no modulus": jwk(good, "k", unset("n")), "no exponent": jwk(good, "k", unset("e")), "modulus 0": jwk(good, "k", set("n", "")), "modulus padded": jwk(good, "k", set("n", "AQAB==")),
		"modulus is a number": jwk(good, "k", set("n", 7)), "private": jwk(enc, "k", nil), "half private": jwk(good, "k", set("p", "AQAB")), "with other primes": jwk(good, "k", set("oth", []any{})),
		"private and null": jwk(good, "k", set("d", nil)), "with k": jwk(good, "k", set("k", "AQAB")), "no kty": jwk(good, "k", unset("kty")), "kty null": jwk(good, "k", set("kty", nil)),
		"kid is a number": jwk(good, "k", set("kid", 1)), "kid null": jwk(good, "k", set("kid", nil)), "x5c that is none": jwk(good, "k", set("x5c", []string{"AAAA"})), "a member twice": `{"kty":"RSA","kty":"EC","n":"AQAB"}`,
		"off the curve": `{"kty":"EC","kid":"k","crv":"P-256","x":"AQAB","y":"AQAB"}`, "not an object": `"key"`, "null": `null`, "a list": `[]`, "a number": `1`,
	}
	other := map[string]string{ // good keys, for something else
		"16384 bits": jwk(good, "k", set("n", big16k)), "use enc": jwk(good, "k", set("use", "enc")), "use null": jwk(good, "k", set("use", nil)), "use in another case": jwk(good, "k", set("use", "SIG")), "use list": jwk(good, "k", set("use", []string{"sig"})),
		"alg PS256": jwk(good, "k", set("alg", "PS256")), "alg RS512": jwk(good, "k", set("alg", "RS512")), "alg RSA-OAEP": jwk(good, "k", set("alg", "RSA-OAEP")), "alg empty": jwk(good, "k", set("alg", "")),
		"key_ops encrypt": jwk(good, "k", set("key_ops", []string{"encrypt"})), "key_ops sign": jwk(good, "k", set("key_ops", []string{"sign"})), "key_ops empty": jwk(good, "k", set("key_ops", []string{})),
		"key_ops text": jwk(good, "k", set("key_ops", "verify")), "P-256": jwk(s.OP.Key("ES256").Public(), "k", nil), "P-384": jwk(&elliptic384.PublicKey, "k", nil), "Ed25519": jwk(s.OP.Key("EdDSA").Public(), "k", nil),
		"X25519": `{"kty":"OKP","crv":"X25519","kid":"k","x":"AQAB"}`, "P-257": `{"kty":"EC","kid":"k","crv":"P-257","x":"AQAB","y":"AQAB"}`, "unknown kty": `{"kty":"XYZ","kid":"k"}`,
		"use enc, Use sig": jwk(good, "k", func(m map[string]any) { m["use"], m["Use"] = "enc", "sig" }),
	}
	s.warm(t)
	try := func(t *testing.T, logged bool, key string) {
		t.Helper()
		for name, set := range map[string]func(b *bridgetest.Behaviour){
			"in front of good ones": func(b *bridgetest.Behaviour) { b.JWKS = addKey(key) },
			"alone": func(b *bridgetest.Behaviour) {
				b.JWKS = func([]byte) []byte { return []byte(`{"keys":[` + key + `]}`) }
				b.IDTokenHeader = func(h map[string]any) { h["kid"] = "unknown" }
			},
		} {
			s.advance(61 * time.Minute) // the set is fetched anew
			s.behave(set)
			before := len(s.Log.Lines())
			b := newVisitor()
			page := s.loginWith(b, "carl", "/orders")
			if warned := strings.Contains(strings.Join(s.Log.Lines()[before:], "\n"), "problem=\"key 1: "); warned != logged {
				t.Errorf("%s: logged: %v", name, warned)
			}
			if name == "alone" {
				s.refused(t, b, page, "none of 1 keys can verify RS256", 503)
			} else if answer, _ := s.token(b); answer.Status != 200 {
				t.Errorf("%s: %s", name, s.logged(page))
			}
			if n := s.OP.Calls("jwks"); n != 1 {
				t.Errorf("%s: %d fetches", name, n)
			}
		}
	}
	for name, key := range bad {
		t.Run(name, func(t *testing.T) { try(t, true, key) })
	}
	for name, key := range other {
		t.Run(name, func(t *testing.T) { try(t, false, key) })
	}
	for n, want := range map[int]string{1000: "key 1: not an object", 1001: "more than 1000 keys"} {
		s.advance(61 * time.Minute)
		s.behave(func(b *bridgetest.Behaviour) {
			b.JWKS = func([]byte) []byte { return []byte(`{"keys":[` + strings.Repeat("0,", n-1) + `0]}`) }
		})
		before := len(s.Log.Lines())
		s.loginWith(newVisitor(), "carl", "/orders")
		if lines := s.Log.Lines()[before:]; len(lines) > 10 || !strings.Contains(strings.Join(lines, "\n"), want) {
			t.Errorf("%d keys: %d lines: %.600q", n, len(lines), lines)
		}
	}
	s.advance(3 * time.Second)
	signedBy := func(key *rsa.PrivateKey, kid string, published string) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) {
			b.SigningKey, b.JWKS = key, addKey(published)
			b.IDTokenHeader = func(h map[string]any) { h["kid"] = kid }
		}
	}
	const noKey = "token refused: key"
	s.try(t, []attack{
		{name: "signed by a key for encryption", set: signedBy(enc, "enc", jwk(&enc.PublicKey, "enc", set("use", "enc"))), want: noKey},
		{name: "signed by a key of 1024 bits", set: signedBy(short, "short", jwk(&short.PublicKey, "short", nil)), want: noKey},
		{name: "signed by a key for RS512", set: signedBy(enc, "enc", jwk(&enc.PublicKey, "enc", set("alg", "RS512"))), want: noKey},
		{name: "signed by a key that may not verify", set: signedBy(enc, "enc", jwk(&enc.PublicKey, "enc", set("key_ops", []string{"wrapKey"}))), want: noKey},
		{name: "signed by a key whose KID it is", set: signedBy(enc, "enc", jwk(&enc.PublicKey, "", set("KID", "enc"))), want: noKey},
		{name: "signed by the same key, for signatures: control", set: signedBy(enc, "sig", jwk(&enc.PublicKey, "sig", set("key_ops", []string{"verify"}))), want: ""},
		{name: "ten keys of one kid", set: func(b *bridgetest.Behaviour) {
			b.IDTokenHeader = func(h map[string]any) { h["kid"] = "same" }
			b.JWKS = func(wellFormed []byte) []byte {
				keys := strings.Repeat(jwk(&enc.PublicKey, "same", nil)+",", 9)
				return []byte(`{"keys":[` + keys + jwk(s.OP.Key("RS256").Public(), "same", nil) + `]}`)
			}
		}, want: ""},
	})
}

func TestAttack_JD08_KidCollision(t *testing.T) {
	t.Parallel()
	evil := bridgetest.NewOP(t, bridgetest.OPOptions{})
	s := newService(t, withOther(evil))
	s.knows(evil)
	if s.OP.KeyID("RS256") != evil.KeyID("RS256") {
		t.Fatal("the providers' kids differ")
	}
	login := func(b *bridgetest.Browser, provider string) *bridgetest.Page {
		page, err := b.ChoosePersona(t.Context(), open(t, b, s.URL+"/login/"+provider+"?return_to=/orders"), "carl")
		if err != nil {
			t.Fatal(err)
		}
		return page
	}
	warm := func() { // both key sets are known, the evil one last
		for _, provider := range []string{"op", "other"} {
			if page := login(newVisitor(), provider); page.URL.Path != "/orders" {
				t.Fatalf("%s: %s", provider, s.logged(page))
			}
		}
	}
	warm()
	var stolen string // a good token of the other provider
	evil.Set(func(b *bridgetest.Behaviour) {
		b.RawIDToken = func(good string, _ func(header, claims map[string]any) string) string { stolen = good; return good }
	})
	warm()
	for _, test := range []struct {
		name, provider, cause string
		set                   func(b *bridgetest.Behaviour)
	}{
		{"op's token signed by other's key", "op", signature, func(b *bridgetest.Behaviour) { b.SigningKey = evil.Key("RS256") }},
		{"op's token signed by other's key, no kid", "op", signature, func(b *bridgetest.Behaviour) {
			b.SigningKey = evil.Key("RS256")
			b.IDTokenHeader = func(h map[string]any) { h["kid"] = nil }
		}},
		{"other's token", "op", signature, raw(func(string) string { return stolen })},
		{"other's token signed by op's key", "other", signature, func(b *bridgetest.Behaviour) { b.SigningKey = s.OP.Key("RS256") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			op := map[string]*bridgetest.OP{"op": s.OP, "other": evil}[test.provider]
			op.Set(func(b *bridgetest.Behaviour) { correct(b); test.set(b) })
			defer op.Set(correct)
			before := s.rows(t)
			b := newVisitor()
			s.refused(t, b, login(b, test.provider), test.cause, 502)
			if s.rows(t) != before {
				t.Error("rows were written")
			}
		})
	}
	t.Run("control", func(t *testing.T) { warm() })
}

func TestAttack_JD09_KidAbsent(t *testing.T) {
	t.Parallel()
	s := newService(t)
	noKid := func(jwks func(good []byte) []byte) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) {
			b.IDTokenHeader, b.JWKS = func(h map[string]any) { h["kid"] = nil }, jwks
		}
	}
	// keys publishes keys of strangers around the good one, which has the given place among them.
	stranger, _ := rsa.GenerateKey(rand.Reader, 2048)
	keys := func(place, n int, kid func(i int) string) func([]byte) []byte {
		return func([]byte) []byte {
			var set jose.JSONWebKeySet
			for i := range n {
				key := jose.JSONWebKey{Key: &stranger.PublicKey, KeyID: kid(i), Use: "sig", Algorithm: "RS256"}
				if i == place {
					key.Key = s.OP.Key("RS256").Public()
				}
				set.Keys = append(set.Keys, key)
			}
			text, _ := json.Marshal(set)
			return text
		}
	}
	numbered := func(i int) string { return fmt.Sprint("k", i) }
	none := func(int) string { return "" }
	for _, a := range []attack{
		{name: "one usable key among others", set: noKid(nil), want: ""},
		{name: "one key", set: noKid(keys(0, 1, numbered)), want: ""},
		{name: "one key without kid", set: noKid(keys(0, 1, none)), want: ""},
		{name: "two keys, the first", set: noKid(keys(0, 2, numbered)), want: ""},
		{name: "two keys, the second", set: noKid(keys(1, 2, numbered)), want: ""},
		{name: "two keys without kid", set: noKid(keys(1, 2, none)), want: ""},
		{name: "ten keys, the tenth", set: noKid(keys(9, 10, numbered)), want: ""},
		{name: "eleven keys, the eleventh", set: noKid(keys(10, 11, numbered)), want: signature},
		{name: "a thousand keys, the last", set: noKid(keys(999, 1000, numbered)), want: signature},
		{name: "two keys, none of them", set: noKid(keys(-1, 2, numbered)), want: signature},
		{name: "one key, not it", set: noKid(keys(-1, 1, numbered)), want: signature},
		{name: "a kid, and keys without", set: func(b *bridgetest.Behaviour) { b.JWKS = keys(0, 1, none) }, want: "token refused: key"},
	} {
		s.OP.RotateKeys(false)
		s.try(t, []attack{a})
		if n := s.OP.Calls("jwks"); n > 2 {
			t.Errorf("%s: %d fetches of the key set", a.name, n)
		}
	}
}

func TestAttack_JD10_Rotation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.warm(t)
	rotate := func(keepOld bool) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) {
			var once sync.Once
			b.IDTokenHeader = func(map[string]any) { once.Do(func() { s.OP.RotateKeys(keepOld) }) } // right before signing
		}
	}
	withoutKid := func(b *bridgetest.Behaviour) { b.IDTokenHeader = func(h map[string]any) { h["kid"] = nil } }
	for _, test := range []struct {
		name    string
		before  func()
		set     func(*bridgetest.Behaviour)
		fetches int
	}{
		{"no rotation", nil, nil, 0},
		{"before the login", func() { s.OP.RotateKeys(false) }, nil, 1},
		{"before the login, the old kept", func() { s.OP.RotateKeys(true) }, nil, 1},
		{"just before signing", nil, rotate(false), 1},
		{"just before signing, the old kept", nil, rotate(true), 1},
		{"after it", nil, nil, 0},
		{"of keys without kid", func() { s.OP.RotateKeys(false) }, withoutKid, 1},
		{"of keys without kid, after it", nil, withoutKid, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.behave(nil)
			if test.before != nil {
				test.before()
			}
			s.behave(test.set)
			s.usable(t)
			if n := s.OP.Calls("jwks"); n != test.fetches {
				t.Errorf("%d fetches of the key set, want %d", n, test.fetches)
			}
		})
	}
	t.Run("twenty logins after one rotation", func(t *testing.T) {
		s.behave(nil)
		s.OP.RotateKeys(false)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if err := s.loginAs(t.Context(), "op", "carl"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := s.OP.Calls("jwks"); n != 1 {
			t.Errorf("%d fetches of the key set", n)
		}
	})
	t.Run("a rotation at each of ten logins", func(t *testing.T) {
		s.behave(nil)
		for range 10 {
			s.OP.RotateKeys(false)
			s.usable(t)
		}
		if n := s.OP.Calls("jwks"); n != 10 {
			t.Errorf("%d fetches of the key set", n)
		}
	})

	// A key that was taken out of the set, because somebody stole it.
	removed := s.OP.Key("RS256")
	kid := s.OP.KeyID("RS256")
	s.OP.RotateKeys(false)
	oldKey := func(offset time.Duration) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) {
			b.SigningKey = removed
			b.IDTokenHeader = func(h map[string]any) { h["kid"] = kid }
			b.IDTokenClaims = func(c map[string]any) {
				c["iat"], c["exp"] = time.Now().Add(offset).Unix(), time.Now().Add(offset+time.Minute).Unix()
			}
		}
	}
	s.try(t, []attack{{name: "a removed key, within the hour", set: oldKey(0), want: ""}})
	s.advance(61 * time.Minute)
	s.try(t, []attack{
		{name: "a removed key, after the hour", set: oldKey(61 * time.Minute), want: "token refused: key"},
		{name: "a removed key, once more", set: oldKey(61 * time.Minute), want: "token refused: key"},
		{name: "the new key", set: claim(func(c map[string]any) {
			c["iat"], c["exp"] = time.Now().Add(61*time.Minute).Unix(), time.Now().Add(62*time.Minute).Unix()
		}), want: ""},
	})
	t.Run("a removed key, when the set cannot be fetched for a day", func(t *testing.T) {
		current := s.OP.Key("RS256")
		for _, test := range []struct {
			hours  time.Duration
			status int
		}{{2, 303}, {23, 303}, {24, 503}} {
			s.clock.Store(int64(61*time.Minute + test.hours*time.Hour))
			s.behave(func(b *bridgetest.Behaviour) {
				b.SigningKey = current
				b.Handle["jwks"] = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true }
				b.IDTokenClaims = func(c map[string]any) {
					c["iat"], c["exp"] = s.now().Unix(), s.now().Add(time.Minute).Unix()
				}
			})
			page := s.loginWith(newVisitor(), "carl", "/orders")
			if granted := page.URL.Path == "/orders"; granted != (test.status == 303) || !granted && page.Status != test.status {
				t.Errorf("after %d hours: %d %s", test.hours, page.Status, s.logged(page))
			}
		}
	})
}

func TestAttack_JD11_BrokenRefresh(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.warm(t)
	answer := func(status int, contentType, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return true
		}
	}
	good := string(s.OP.KeySet())
	const jwks = "application/json"
	broken := map[string]func(http.ResponseWriter, *http.Request) bool{
		"empty list": answer(200, jwks, `{"keys":[]}`), "keys null": answer(200, jwks, `{"keys":null}`), "no keys": answer(200, jwks, `{}`), "KEYS": answer(200, jwks, strings.Replace(good, "keys", "KEYS", 1)),
		"null": answer(200, jwks, `null`), "list": answer(200, jwks, `[]`), "text": answer(200, jwks, `"keys"`), "keys is an object": answer(200, jwks, `{"keys":{}}`), "keys is text": answer(200, jwks, `{"keys":"x"}`),
		"HTML": answer(200, "text/html", `<html><body>maintenance`), "nothing": answer(200, jwks, ``), "half": answer(200, jwks, good[:len(good)/2]), "two": answer(200, jwks, good+good),
		"500": answer(500, jwks, good), "503": answer(503, jwks, good), "404": answer(404, jwks, good), "401": answer(401, jwks, good), "204": answer(204, jwks, ""), "302": answer(302, jwks, good), "429": answer(429, jwks, good),
		"2 MB":                           answer(200, jwks, `{"x":"`+strings.Repeat("x", 2<<20)+`",`+good[1:]),
		"hung up":                        func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"only keys for other algorithms": answer(200, jwks, strings.ReplaceAll(good, `"alg":"RS256"`, `"alg":"RS384"`)),
		"compressed": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(gzipped(good))
			return true
		},
	}
	failures := func() string {
		return s.metric(t, `oidc_bridge_provider_document_failures_total{document="jwks",provider="op"} `)
	}
	for name, handler := range broken {
		once := 1
		if name == "hung up" {
			once = 2 // net/http asks again when a connection that was in use before ends without an answer
		}
		t.Run(name, func(t *testing.T) {
			before := failures()
			set := func(b *bridgetest.Behaviour) {
				b.Handle["jwks"] = handler
				b.IDTokenHeader = func(h map[string]any) { h["kid"] = "unknown" }
			}
			s.behave(set)
			b := newVisitor()
			s.refused(t, b, s.loginWith(b, "carl", "/orders"), "key set: ", 503)
			if failures() == before || s.OP.Calls("jwks") > once {
				t.Errorf("%s failures, %s before; %d fetches", failures(), before, s.OP.Calls("jwks"))
			}
			b = newVisitor() // no storm: within two seconds, the next login does not ask again
			s.refused(t, b, s.loginWith(b, "carl", "/orders"), "key set: ", 503)
			if n := s.OP.Calls("jwks"); n > once {
				t.Errorf("%d fetches", n)
			}
			s.behave(func(b *bridgetest.Behaviour) { b.Handle["jwks"] = handler })
			s.usable(t)                 // with the last good set
			s.advance(61 * time.Minute) // the set is old now, and goes on all the same
			s.behave(func(b *bridgetest.Behaviour) { b.Handle["jwks"] = handler })
			for range 3 {
				s.usable(t)
			}
			if n := s.OP.Calls("jwks"); n > once {
				t.Errorf("%d fetches of an old set", n)
			}
			s.advance(3 * time.Second)
			s.behave(nil)
			s.usable(t)
			s.usable(t)
			if n := s.OP.Calls("jwks"); n != 1 { // healed
				t.Errorf("%d fetches afterwards", n)
			}
		})
	}
}
