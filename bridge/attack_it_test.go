package bridge_test

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

func TestAttack_IT01_AlgNone(t *testing.T) {
	t.Parallel()
	s := newService(t)
	unsigned := func(alg string, signature func(good string) string) func(*bridgetest.Behaviour) {
		return raw(func(good string) string {
			parts := strings.Split(good, ".")
			return encode([]byte(`{"alg":`+alg+`,"typ":"JWT"}`)) + "." + parts[1] + "." + signature(parts[2])
		})
	}
	none := func(string) string { return "" }
	kept := func(good string) string { return good }
	s.try(t, []attack{
		{name: "a signed token", want: ""},
		{name: "none", set: unsigned(`"none"`, none), want: form},
		{name: "None", set: unsigned(`"None"`, none), want: form},
		{name: "NONE", set: unsigned(`"NONE"`, none), want: form},
		{name: "none with a signature", set: unsigned(`"none"`, kept), want: algorithm},
		{name: "nOnE with a signature", set: unsigned(`"nOnE"`, kept), want: algorithm},
		{name: "none with one byte", set: unsigned(`"none"`, func(string) string { return "AA" }), want: algorithm},
		{name: "none and a blank", set: unsigned(`"none "`, kept), want: algorithm},
		{name: "empty", set: unsigned(`""`, kept), want: algorithm},
		{name: "null", set: unsigned(`null`, kept), want: algorithm},
		{name: "list", set: unsigned(`["none"]`, kept), want: algorithm},
		{name: "list of the right one", set: unsigned(`["RS256"]`, kept), want: algorithm},
		{name: "number", set: unsigned(`0`, kept), want: algorithm},
		{name: "false", set: unsigned(`false`, kept), want: algorithm},
		{name: "RS256, then none", set: unsigned(`"RS256","alg":"none"`, kept), want: form},
		{name: "none, then RS256", set: unsigned(`"none","alg":"RS256"`, kept), want: form},
		{name: "RS256 and ALG none", set: unsigned(`"RS256","ALG":"none"`, none), want: form},
		{name: "RS256 without signature", set: unsigned(`"RS256"`, none), want: form},
		{name: "no alg", set: part(0, func(string) string { return encode([]byte(`{"typ":"JWT"}`)) }), want: algorithm},
		{name: "Alg", set: part(0, func(string) string { return encode([]byte(`{"Alg":"RS256"}`)) }), want: algorithm},
	})
	if got := s.metric(t, `oidc_bridge_provider_token_faults_total{check="alg"} `); got != "12" {
		t.Errorf("the metric counts %q", got)
	}
}

func TestAttack_IT02_AlgorithmConfusion(t *testing.T) {
	t.Parallel()
	s := newService(t)
	public := s.OP.Key("RS256").Public().(*rsa.PublicKey)
	pkix, _ := x509.MarshalPKIXPublicKey(public)
	pkcs1 := x509.MarshalPKCS1PublicKey(public)
	pemOf := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	jwk, _ := json.Marshal(jose.JSONWebKey{Key: public, KeyID: "RS256-1", Algorithm: "RS256", Use: "sig"})
	bare, _ := json.Marshal(jose.JSONWebKey{Key: public})
	mac := func(alg, kid string, key []byte) func(*bridgetest.Behaviour) {
		return signed(key, func(_, p string) (string, string) { return fmt.Sprintf(`{"alg":%q,"kid":%q}`, alg, kid), p })
	}
	attacks := []attack{{name: "a signed token", want: ""}}
	for name, key := range map[string][]byte{
		"PEM": pemOf("PUBLIC KEY", pkix), "PEM of PKCS 1": pemOf("RSA PUBLIC KEY", pkcs1), "PEM, trimmed": bytes.TrimSpace(pemOf("PUBLIC KEY", pkix)),
		"DER": pkix, "DER of PKCS 1": pkcs1, "JWK": jwk, "bare JWK": bare, "JWKS": s.OP.KeySet(), "n": public.N.Bytes(),
		"n in base64url": []byte(encode(public.N.Bytes())), "client_secret": []byte("s3cret:+%/ü"), "client_id": []byte("bridge"), "nothing": {}, "kid": []byte("RS256-1"),
	} {
		attacks = append(attacks, attack{name: "HS256 with " + name, set: mac("HS256", "RS256-1", key), want: algorithm})
	}
	attacks = append(
		attacks,
		attack{name: "HS384", set: mac("HS384", "RS256-1", pkix), want: algorithm},
		attack{name: "HS512", set: mac("HS512", "RS256-1", pkix), want: algorithm},
		attack{name: "HS256 signature below an RS256 header", want: signature, set: raw(func(good string) string {
			token, _ := bridgetest.SignJWT(pkix, []byte(`{"alg":"HS256"}`), []byte(decoded(good, 1)))
			parts := strings.Split(good, ".")
			return parts[0] + "." + parts[1] + "." + strings.Split(token, ".")[2]
		})},
		attack{name: "HS256 with a published oct key", want: algorithm, set: func(b *bridgetest.Behaviour) {
			mac("HS256", "oct-1", []byte("0123456789abcdef0123456789abcdef"))(b)
			b.JWKS = addKey(`{"kty":"oct","kid":"oct-1","alg":"HS256","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}`)
		}},
	)
	s.try(t, attacks)
}

// addKey publishes one more key, in front of the good ones.
func addKey(key string) func([]byte) []byte {
	return func(good []byte) []byte {
		return bytes.Replace(good, []byte(`{"keys":[`), []byte(`{"keys":[`+key+`,`), 1)
	}
}

func TestAttack_IT03_OtherAlgorithm(t *testing.T) {
	t.Parallel()
	alg := func(name string) func(*bridgetest.Behaviour) { return func(b *bridgetest.Behaviour) { b.Alg = name } }
	t.Run("RS256 pinned", func(t *testing.T) {
		s := newService(t)
		key := s.OP.Key("RS256")
		with := func(header string) func(*bridgetest.Behaviour) {
			return signed(key, func(_, p string) (string, string) { return header, p })
		}
		s.try(t, []attack{
			{name: "RS256", set: alg("RS256"), want: ""},
			{name: "RS512", set: alg("RS512"), want: algorithm},
			{name: "PS256", set: alg("PS256"), want: algorithm},
			{name: "ES256", set: alg("ES256"), want: algorithm},
			{name: "EdDSA", set: alg("EdDSA"), want: algorithm},
			{name: "RS384 with the RS256 key", set: with(`{"alg":"RS384","kid":"RS256-1"}`), want: algorithm},
			{name: "PS384 with the RS256 key", set: with(`{"alg":"PS384","kid":"RS256-1"}`), want: algorithm},
			{name: "PS512 without kid", set: with(`{"alg":"PS512"}`), want: algorithm},
			{name: "RS256 with the key for PS256", set: with(`{"alg":"RS256","kid":"PS256-1"}`), want: "token refused: key"},
			{name: "RS256 with the key for RS512", set: with(`{"alg":"RS256","kid":"RS512-1"}`), want: "token refused: key"},
			{name: "RS256 naming the EC key", set: with(`{"alg":"RS256","kid":"ES256-1"}`), want: "token refused: key"},
			{name: "rs256", set: raw(func(good string) string {
				return encode([]byte(`{"alg":"rs256","kid":"RS256-1"}`)) + good[strings.Index(good, "."):]
			}), want: algorithm},
		})
	})
	for _, pinned := range []string{"ES256", "PS256", "EdDSA"} {
		t.Run(pinned+" pinned", func(t *testing.T) {
			s := newService(t, withProvider("alg: "+pinned))
			attacks := []attack{{name: pinned, set: alg(pinned), want: ""}}
			for _, other := range []string{"RS256", "RS512", "PS256", "ES256", "EdDSA"} {
				if other != pinned {
					attacks = append(attacks, attack{name: other, set: alg(other), want: algorithm})
				}
			}
			s.try(t, attacks)
		})
	}
}

func TestAttack_IT04_BadSignature(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.warm(t)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	bits := func(change func(signature []byte) []byte) func(*bridgetest.Behaviour) {
		return part(2, func(text string) string {
			b, _ := base64.RawURLEncoding.DecodeString(text)
			return encode(change(b))
		})
	}
	flip := func(at int) func(*bridgetest.Behaviour) {
		return bits(func(b []byte) []byte { b[(at+len(b))%len(b)] ^= 1; return b })
	}
	ecdsaKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	attacks := []attack{
		{name: "good", want: ""},
		{name: "first bit", set: flip(0), want: signature},
		{name: "a bit in the middle", set: flip(128), want: signature},
		{name: "last bit", set: flip(-1), want: signature},
		{name: "one byte short", set: bits(func(b []byte) []byte { return b[:len(b)-1] }), want: signature},
		{name: "one byte more", set: bits(func(b []byte) []byte { return append(b, 0) }), want: signature},
		{name: "zero in front", set: bits(func(b []byte) []byte { return append([]byte{0}, b...) }), want: signature},
		{name: "zeros", set: bits(func(b []byte) []byte { return make([]byte, len(b)) }), want: signature},
		{name: "ones", set: bits(func(b []byte) []byte { return bytes.Repeat([]byte{0xff}, len(b)) }), want: signature},
		{name: "a number 1", set: bits(func(b []byte) []byte { c := make([]byte, len(b)); c[len(c)-1] = 1; return c }), want: signature},
		{name: "half", set: bits(func(b []byte) []byte { return b[:128] }), want: signature},
		{name: "one byte", set: bits(func(b []byte) []byte { return b[:1] }), want: signature},
		{name: "none", set: part(2, func(string) string { return "" }), want: form},
		{name: "of a stranger with our kid", set: func(b *bridgetest.Behaviour) { b.SigningKey = stranger }, want: signature},
		{name: "of the other algorithm", set: signed(ecdsaKey, func(_, p string) (string, string) {
			return `{"alg":"ES256","kid":"RS256-1"}`, p
		}), want: algorithm},
		{name: "the payload of another person", set: part(1, func(p string) string {
			text, _ := base64.RawURLEncoding.DecodeString(p)
			return encode(bytes.Replace(text, []byte(`"sub":"carl"`), []byte(`"sub":"ada"`), 1))
		}), want: signature},
		{name: "one more claim", set: part(1, func(p string) string {
			text, _ := base64.RawURLEncoding.DecodeString(p)
			return encode([]byte(member(`"groups2":["/admins"]`)(string(text))))
		}), want: signature},
		{name: "another header", set: part(0, func(string) string { return encode([]byte(`{"kid":"RS256-1","alg":"RS256"}`)) }), want: signature},
		{name: "of header and payload alone, swapped", set: raw(func(good string) string {
			p := strings.Split(good, ".")
			return p[1] + "." + p[0] + "." + p[2]
		}), want: algorithm},
	}
	var other string
	attacks = append(attacks,
		attack{name: "a good one, to be kept", set: raw(func(good string) string { other = good; return good }), want: ""},
		attack{name: "of another token", set: part(2, func(string) string { return strings.Split(other, ".")[2] }), want: signature},
		attack{name: "another token's payload", set: part(1, func(string) string { return strings.Split(other, ".")[1] }), want: signature},
	)
	for _, a := range attacks {
		s.try(t, []attack{a})
		if n := s.OP.Calls("jwks"); n != 0 { // behave reset the counts before the login
			t.Errorf("%s: %d fetches of the key set", a.name, n)
		}
	}
}

func TestAttack_IT05_KeySourceHeaders(t *testing.T) {
	t.Parallel()
	s := newService(t)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	strangers, _ := json.Marshal(jose.JSONWebKey{Key: &stranger.PublicKey, KeyID: "stranger", Algorithm: "RS256", Use: "sig"})
	set := newTrap(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"keys":[%s]}`, strangers) })
	certificate, _, err := bridgetest.NewCertificate("evil.example")
	if err != nil {
		t.Fatal(err)
	}
	x5c := base64.StdEncoding.EncodeToString(certificate.Certificate[0])
	forged := func(members string) func(*bridgetest.Behaviour) {
		return signed(stranger, func(_, p string) (string, string) { return `{"alg":"RS256",` + members + `}`, p })
	}
	own := func(members string) func(*bridgetest.Behaviour) {
		return signed(s.OP.Key("RS256"), func(h, p string) (string, string) { return member(members)(h), p })
	}
	kid := func(text string) func(*bridgetest.Behaviour) {
		return signed(s.OP.Key("RS256"), func(_, p string) (string, string) { return `{"alg":"RS256","kid":` + text + `}`, p })
	}
	const noKey, crit = "token refused: key", "token refused: crit"
	s.try(t, []attack{
		{name: "jku of the attacker", set: forged(`"kid":"stranger","jku":"` + set.URL + `"`), want: noKey},
		{name: "jku, our kid", set: forged(`"kid":"RS256-1","jku":"` + set.URL + `"`), want: signature},
		{name: "jku, no kid", set: forged(`"jku":"` + set.URL + `"`), want: signature},
		{name: "x5u", set: forged(`"kid":"stranger","x5u":"` + set.URL + `"`), want: noKey},
		{name: "jwk", set: forged(`"kid":"stranger","jwk":` + string(strangers)), want: noKey},
		{name: "jwk, our kid", set: forged(`"kid":"RS256-1","jwk":` + string(strangers)), want: signature},
		{name: "jwk, no kid", set: forged(`"jwk":` + string(strangers)), want: signature},
		{name: "x5c", set: forged(`"x5c":["` + x5c + `"]`), want: signature},
		{name: "x5c, our kid", set: forged(`"kid":"RS256-1","x5c":["` + x5c + `"]`), want: signature},
		{name: "x5c that is none", set: own(`"x5c":["AAAA"]`), want: form},
		{name: "jwk that is none", set: own(`"jwk":"x"`), want: form},
		{name: "jwk with a private key", set: own(`"jwk":{"kty":"oct","k":"AAAA"}`), want: form},
		{name: "jku beside a good signature is not followed", set: own(`"jku":"` + set.URL + `"`), want: ""},
		{name: "x5u beside a good signature is not followed", set: own(`"x5u":"` + set.URL + `"`), want: ""},
		{name: "x5t beside a good signature", set: own(`"x5t":"AAAAAAAAAAAAAAAAAAAAAAAAAAA"`), want: ""},

		{name: "kid is a path", set: kid(`"../../etc/passwd"`), want: noKey},
		{name: "kid is SQL", set: kid(`"' OR 1=1--"`), want: noKey},
		{name: "kid is a command", set: kid(`"|touch /tmp/x"`), want: noKey},
		{name: "kid is a URL", set: kid(`"` + set.URL + `"`), want: noKey},
		{name: "kid in another case", set: kid(`"rs256-1"`), want: noKey},
		{name: "kid with a blank", set: kid(`"RS256-1 "`), want: noKey},
		{name: "kid with NUL", set: kid(`"RS256-1\u0000"`), want: noKey},
		{name: "kid with a zero-width space", set: kid(`"RS256-1\u200b"`), want: noKey},
		{name: "kid is a prefix", set: kid(`"RS256"`), want: noKey},
		{name: "kid of 512 bytes", set: kid(`"` + strings.Repeat("k", 512) + `"`), want: noKey},
		{name: "kid of 513 bytes", set: kid(`"` + strings.Repeat("k", 513) + `"`), want: form},
		{name: "kid of 40 KB", set: kid(`"` + strings.Repeat("k", 40<<10) + `"`), want: form},
		{name: "kid of 100 KB", set: kid(`"` + strings.Repeat("k", 100<<10) + `"`), want: form},
		{name: "kid is empty", set: kid(`""`), want: form},
		{name: "kid is a number", set: kid(`1`), want: form},
		{name: "kid is null", set: kid(`null`), want: form},
		{name: "kid is a list", set: kid(`["RS256-1"]`), want: form},
		{name: "kid is an object", set: kid(`{"x":1}`), want: form},
		{name: "kid twice", set: kid(`"RS256-1","kid":"stranger"`), want: form},

		{name: "crit exp", set: own(`"crit":["exp"],"exp":1`), want: crit},
		{name: "crit unknown", set: own(`"crit":["http://example.com/x"],"http://example.com/x":1`), want: crit},
		{name: "crit empty", set: own(`"crit":[]`), want: crit},
		{name: "crit null", set: own(`"crit":null`), want: crit},
		{name: "crit b64", set: own(`"crit":["b64"],"b64":false`), want: crit},
		{name: "b64 false", set: own(`"b64":false`), want: crit},
		{name: "b64 true", set: own(`"b64":true`), want: crit},
		{name: "zip", set: own(`"zip":"DEF"`), want: crit},
		{name: "enc", set: own(`"enc":"A128GCM"`), want: crit},
		{name: "cty JWT", set: own(`"cty":"JWT"`), want: "token refused: typ"},
		{name: "cty empty", set: own(`"cty":""`), want: "token refused: typ"},
		{name: "an unknown member", set: own(`"acme":{"x":[1]}`), want: ""},
	})
	if n := set.visits.Load(); n != 0 {
		t.Errorf("%d visits at the attacker's server", n)
	}
}

func TestAttack_IT06_NonCompactForms(t *testing.T) {
	t.Parallel()
	s := newService(t)
	parts := func(join func(h, p, sig string) string) func(*bridgetest.Behaviour) {
		return raw(func(good string) string {
			p := strings.Split(good, ".")
			return join(p[0], p[1], p[2])
		})
	}
	in := func(at int, text string) func(*bridgetest.Behaviour) {
		return part(at, func(p string) string { return p[:4] + text + p[4:] })
	}
	// trailing changes the unused bits of the last character. The signature has 256 bytes: 342 characters, four unused bits.
	trailing := func(sig string) string {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		return sig[:len(sig)-1] + string(alphabet[strings.IndexByte(alphabet, sig[len(sig)-1])+1])
	}
	s.try(t, []attack{
		{name: "compact", want: ""},
		{name: "flattened JSON", set: parts(func(h, p, sig string) string {
			return `{"payload":"` + p + `","protected":"` + h + `","signature":"` + sig + `"}`
		}), want: form},
		{name: "general JSON", set: parts(func(h, p, sig string) string {
			return `{"payload":"` + p + `","signatures":[{"protected":"` + h + `","signature":"` + sig + `"}]}`
		}), want: form},
		{name: "two signatures", set: parts(func(h, p, sig string) string {
			one := `{"protected":"` + h + `","signature":"` + sig + `"}`
			return `{"payload":"` + p + `","signatures":[` + one + `,` + one + `]}`
		}), want: form},
		{name: "JSON with dots for parts", set: parts(func(h, p, sig string) string {
			return `{"payload":"` + p + `","protected":"` + h + `","signature":"` + sig + `","x":"a.b.c"}`
		}), want: form},
		{name: "blank in front", set: raw(func(g string) string { return " " + g }), want: form},
		{name: "blank behind", set: raw(func(g string) string { return g + " " }), want: form},
		{name: "line break behind", set: raw(func(g string) string { return g + "\n" }), want: form},
		{name: "line break in the header", set: in(0, "\n"), want: form},
		{name: "line break in the payload", set: in(1, "\r\n"), want: form},
		{name: "line break in the signature", set: in(2, "\n"), want: form},
		{name: "blank in the payload", set: in(1, " "), want: form},
		{name: "tab in the payload", set: in(1, "\t"), want: form},
		{name: "NUL in the payload", set: in(1, "\x00"), want: form},
		{name: "padding", set: part(2, func(p string) string { return p + "==" }), want: form},
		{name: "padding in the middle", set: in(1, "="), want: form},
		{name: "unused bits set", set: part(2, trailing), want: form},
		{name: "one character more", set: part(2, func(p string) string { return p + "A" }), want: signature},
		{name: "five characters in place of four", set: part(2, func(p string) string { return p + "AAA" }), want: form},
		{name: "standard base64", set: part(2, func(p string) string { return "+/" + p[2:] }), want: form},
		{name: "a trailing part", set: raw(func(g string) string { return g + ".x" }), want: form},
		{name: "a trailing dot", set: raw(func(g string) string { return g + "." }), want: form},
		{name: "a leading dot", set: raw(func(g string) string { return "." + g }), want: form},
		{name: "two parts", set: parts(func(h, p, _ string) string { return h + "." + p }), want: form},
		{name: "one part", set: parts(func(h, _, _ string) string { return h }), want: form},
		{name: "dots alone", set: raw(func(string) string { return ".." }), want: form},
		{name: "detached payload", set: part(1, func(string) string { return "" }), want: form},
		{name: "no header", set: part(0, func(string) string { return "" }), want: form},
		{name: "encoded dots", set: raw(func(g string) string { return strings.ReplaceAll(g, ".", "%2E") }), want: form},
		{name: "wide dots", set: raw(func(g string) string { return strings.ReplaceAll(g, ".", "。") }), want: form},
		{name: "byte order mark", set: raw(func(g string) string { return "\ufeff" + g }), want: form},
		{name: "quoted", set: raw(func(g string) string { return `"` + g + `"` }), want: form},
		{name: "with a scheme", set: raw(func(g string) string { return "Bearer " + g }), want: form},
		{name: "twice", set: raw(func(g string) string { return g + "," + g }), want: form},
		{name: "header is a list", set: part(0, func(string) string { return encode([]byte(`["alg","RS256"]`)) }), want: form},
		{name: "header is no JSON", set: part(0, func(string) string { return encode([]byte(`alg=RS256`)) }), want: form},
		{name: "header with a trailing object", set: part(0, func(p string) string {
			text, _ := base64.RawURLEncoding.DecodeString(p)
			return encode(append(text, "{}"...))
		}), want: form},
	})
}

func TestAttack_IT07_Encrypted(t *testing.T) {
	t.Parallel()
	s := newService(t)
	encrypted := func(alg jose.KeyAlgorithm, key any, options *jose.EncrypterOptions, join func(*jose.JSONWebEncryption) string) func(*bridgetest.Behaviour) {
		return raw(func(good string) string {
			e, err := jose.NewEncrypter(jose.A128CBC_HS256, jose.Recipient{Algorithm: alg, Key: key, PBES2Count: 1000}, options)
			if err != nil {
				panic(err)
			}
			object, err := e.Encrypt([]byte(good))
			if err != nil {
				panic(err)
			}
			return join(object)
		})
	}
	compact := func(e *jose.JSONWebEncryption) string {
		text, err := e.CompactSerialize()
		if err != nil {
			panic(err)
		}
		return text
	}
	secret := sha256.Sum256([]byte("s3cret:+%/ü")) // how clients without keys get theirs, OpenID Connect Core 10.2
	public := s.OP.Key("RS256").Public()
	zip := (&jose.EncrypterOptions{Compression: jose.DEFLATE}).WithContentType("JWT")
	bomb := encode([]byte(`{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647,"p2s":"AAAA","zip":"DEF"}`))
	s.try(t, []attack{
		{name: "a signed token", want: ""},
		{name: "dir with the client secret", set: encrypted(jose.DIRECT, secret[:], nil, compact), want: form},
		{name: "A256KW with the client secret", set: encrypted(jose.A256KW, secret[:], nil, compact), want: form},
		{name: "RSA-OAEP", set: encrypted(jose.RSA_OAEP, public, nil, compact), want: form},
		{name: "nested and compressed", set: encrypted(jose.RSA_OAEP_256, public, zip, compact), want: form},
		{name: "RSA1_5", set: encrypted(jose.RSA1_5, public, nil, compact), want: form},
		{name: "PBES2", set: encrypted(jose.PBES2_HS256_A128KW, []byte("x"), nil, compact), want: form},
		{name: "JSON", set: encrypted(jose.DIRECT, secret[:], nil, (*jose.JSONWebEncryption).FullSerialize), want: form},
		{name: "PBES2 with two billion rounds", set: raw(func(string) string { return bomb + ".AAAA.AAAA.AAAA.AAAA" }), want: form},
		{name: "PBES2 header before three parts", set: raw(func(string) string { return bomb + ".AAAA.AAAA" }), want: algorithm},
		{name: "empty parts", set: raw(func(string) string { return "...." }), want: form},
		{name: "four parts", set: raw(func(good string) string { return good + ".AAAA" }), want: form},
		{name: "six parts", set: raw(func(good string) string { return good + ".AAAA.AAAA.AAAA" }), want: form},
		{name: "dir header on a signed token", set: part(0, func(string) string { return encode([]byte(`{"alg":"dir","enc":"A256GCM"}`)) }), want: algorithm},
		{name: "enc beside RS256", set: headerIs("enc", "A256GCM"), want: "token refused: crit"},
	})
}

func TestAttack_IT08_Issuer(t *testing.T) {
	t.Parallel()
	s := newService(t)
	issuer := s.OP.Issuer()
	other := bridgetest.NewOP(t, bridgetest.OPOptions{})
	const iss = "token refused: iss"
	const either = "token refused: " // go-oidc reads what is no text in its own way, before our check
	s.try(t, []attack{
		{name: "the configured one", want: ""},
		{name: "another provider", set: claimIs("iss", other.Issuer()), want: either},
		{name: "trailing slash", set: claimIs("iss", issuer+"/"), want: either},
		{name: "upper-case scheme", set: claimIs("iss", "HTTP"+issuer[4:]), want: either},
		{name: "https", set: claimIs("iss", "https"+issuer[4:]), want: either},
		{name: "another name of the host", set: claimIs("iss", strings.Replace(issuer, "127.0.0.1", "localhost", 1)), want: either},
		{name: "no port", set: claimIs("iss", "http://127.0.0.1"), want: either},
		{name: "no scheme", set: claimIs("iss", strings.TrimPrefix(issuer, "http://")), want: either},
		{name: "a path below it", set: claimIs("iss", issuer+"/realms/evil"), want: either},
		{name: "query", set: claimIs("iss", issuer+"?x"), want: either},
		{name: "fragment", set: claimIs("iss", issuer+"#x"), want: either},
		{name: "userinfo", set: claimIs("iss", strings.Replace(issuer, "://", "://evil@", 1)), want: either},
		{name: "blank behind", set: claimIs("iss", issuer+" "), want: either},
		{name: "blank in front", set: claimIs("iss", " "+issuer), want: either},
		{name: "NUL behind", set: claimIs("iss", issuer+"\x00"), want: either},
		{name: "line break behind", set: claimIs("iss", issuer+"\n"), want: either},
		{name: "Google", set: claimIs("iss", "https://accounts.google.com"), want: either},
		{name: "Google's other spelling", set: claimIs("iss", "accounts.google.com"), want: either},
		{name: "missing", set: noClaim("iss"), want: either},
		{name: "empty", set: claimIs("iss", ""), want: either},
		{name: "null", set: claimIs("iss", nil), want: either},
		{name: "list", set: claimIs("iss", []string{issuer}), want: either},
		{name: "two", set: claimIs("iss", []string{issuer, "evil"}), want: either},
		{name: "object", set: claimIs("iss", map[string]any{"iss": issuer}), want: either},
		{name: "number", set: claimIs("iss", 1), want: either},
		{name: "true", set: claimIs("iss", true), want: either},
		// encoding/json, and so go-oidc, takes ISS for iss.
		{name: "ISS alone", set: claim(func(c map[string]any) { c["ISS"] = c["iss"]; delete(c, "iss") }), want: iss},
		{name: "Iss evil, iss good", set: claimIs("Iss", "https://evil.example"), want: ""},
		{name: "iss of the first, ISS good", set: claim(func(c map[string]any) { c["Iss"] = c["iss"]; c["iss"] = "https://evil.example" }), want: either},
	})
}

func TestAttack_IT09_AudienceAndAuthorizedParty(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const aud, azp, either = "token refused: aud", "token refused: azp", "token refused: "
	both := func(audience, party any) func(*bridgetest.Behaviour) {
		return claim(func(c map[string]any) { c["aud"], c["azp"] = audience, party })
	}
	s.try(t, []attack{
		{name: "ours", set: claimIs("aud", "bridge"), want: ""},
		{name: "a list of ours", set: claimIs("aud", []string{"bridge"}), want: ""},
		{name: "ours and azp ours", set: both("bridge", "bridge"), want: ""},
		{name: "a list of ours and azp ours", set: both([]string{"bridge"}, "bridge"), want: ""},

		{name: "another client", set: claimIs("aud", "other"), want: either},
		{name: "a list of another client", set: claimIs("aud", []string{"other"}), want: either},
		{name: "ours and another", set: claimIs("aud", []string{"bridge", "other"}), want: aud},
		{name: "another and ours", set: claimIs("aud", []string{"other", "bridge"}), want: aud},
		{name: "ours and another, azp ours", set: both([]string{"bridge", "other"}, "bridge"), want: aud},
		{name: "ours and another, azp other", set: both([]string{"bridge", "other"}, "other"), want: aud},
		{name: "ours twice", set: claimIs("aud", []string{"bridge", "bridge"}), want: aud},
		{name: "ours and the issuer", set: claimIs("aud", []string{"bridge", s.OP.Issuer()}), want: aud},
		{name: "our URL", set: claimIs("aud", s.URL), want: either},
		{name: "postgrest", set: claimIs("aud", "postgrest"), want: either},
		{name: "missing", set: noClaim("aud"), want: either},
		{name: "empty list", set: claimIs("aud", []string{}), want: either},
		{name: "empty", set: claimIs("aud", ""), want: either},
		{name: "null", set: claimIs("aud", nil), want: either},
		{name: "list of null", set: claimIs("aud", []any{nil}), want: either},
		{name: "number", set: claimIs("aud", 7), want: either},
		{name: "true", set: claimIs("aud", true), want: either},
		{name: "object", set: claimIs("aud", map[string]any{"bridge": true}), want: either},
		{name: "list in a list", set: claimIs("aud", []any{[]any{"bridge"}}), want: either},
		{name: "a number beside it", set: claimIs("aud", []any{"bridge", 1}), want: either},
		{name: "upper case", set: claimIs("aud", "BRIDGE"), want: either},
		{name: "a blank behind", set: claimIs("aud", "bridge "), want: either},
		{name: "longer", set: claimIs("aud", "bridge2"), want: either},
		{name: "shorter", set: claimIs("aud", "bridg"), want: either},
		{name: "with commas", set: claimIs("aud", "bridge,other"), want: either},
		{name: "with blanks", set: claimIs("aud", "bridge other"), want: either},
		{name: "star", set: claimIs("aud", "*"), want: either},
		{name: "AUD alone", set: claim(func(c map[string]any) { c["AUD"] = c["aud"]; delete(c, "aud") }), want: aud},
		{name: "Aud ours, aud other", set: claim(func(c map[string]any) { c["aud"], c["Aud"] = "other", "bridge" }), want: either},

		{name: "azp other", set: claimIs("azp", "other"), want: azp},
		{name: "azp empty", set: claimIs("azp", ""), want: azp},
		{name: "azp null", set: claimIs("azp", nil), want: azp},
		{name: "azp list", set: claimIs("azp", []string{"bridge"}), want: azp},
		{name: "azp number", set: claimIs("azp", 1), want: azp},
		{name: "azp upper case", set: claimIs("azp", "Bridge"), want: azp},
	})
}

func TestAttack_IT10_Times(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const exp, iat, nbf, either = "token refused: exp", "token refused: iat", "token refused: nbf", "token refused: "
	// in sets claims to seconds from now.
	in := func(seconds map[string]int64) func(*bridgetest.Behaviour) {
		return claim(func(c map[string]any) {
			for name, offset := range seconds {
				c[name] = time.Now().Unix() + offset
			}
		})
	}
	text := func(name, value string) func(*bridgetest.Behaviour) {
		return s.payload(func(p string) string {
			return regexp.MustCompile(`"`+name+`":\d+`).ReplaceAllString(p, `"`+name+`":`+value)
		})
	}
	const day = 24 * 60 * 60
	attacks := []attack{
		{name: "five minutes", want: ""},
		{name: "expired a minute ago but for seconds", set: in(map[string]int64{"exp": -55, "iat": -56}), want: ""},
		{name: "expired a minute ago and seconds", set: in(map[string]int64{"exp": -63, "iat": -59}), want: exp},
		{name: "expired a minute ago", set: in(map[string]int64{"exp": -61, "iat": -62}), want: exp},
		{name: "expired an hour ago", set: in(map[string]int64{"exp": -3600}), want: exp},
		{name: "issued nearly a minute ahead", set: in(map[string]int64{"iat": 55}), want: ""},
		{name: "issued a minute ahead", set: in(map[string]int64{"iat": 63}), want: iat},
		{name: "issued an hour ahead", set: in(map[string]int64{"iat": 3600, "exp": 4000}), want: iat},
		{name: "issued a year ahead", set: in(map[string]int64{"iat": 365 * day, "exp": 365*day + 60}), want: iat},
		{name: "issued nearly a minute before the login", set: in(map[string]int64{"iat": -55}), want: ""},
		{name: "issued before the login", set: in(map[string]int64{"iat": -63}), want: iat},
		{name: "issued a year ago", set: in(map[string]int64{"iat": -365 * day}), want: iat},
		{name: "a day of life", set: in(map[string]int64{"iat": 0, "exp": day}), want: ""},
		{name: "a day and a second of life", set: in(map[string]int64{"iat": 0, "exp": day + 1}), want: exp},
		{name: "a year of life", set: in(map[string]int64{"exp": 365 * day}), want: exp},
		{name: "no life", set: in(map[string]int64{"iat": 20, "exp": 20}), want: exp},
		{name: "exp before iat", set: in(map[string]int64{"iat": 30, "exp": 10}), want: exp},
		{name: "nbf in the past", set: in(map[string]int64{"nbf": -day}), want: ""},
		{name: "nbf nearly a minute ahead", set: in(map[string]int64{"nbf": 55}), want: ""},
		{name: "nbf a minute ahead", set: in(map[string]int64{"nbf": 63}), want: nbf},
		{name: "nbf five minutes ahead", set: in(map[string]int64{"nbf": 280}), want: nbf},
		{name: "nbf beyond all time", set: claimIs("nbf", int64(math.MaxInt64)), want: nbf}, // time.Unix wraps around
		{name: "nbf before all time", set: claimIs("nbf", int64(math.MinInt64)), want: nbf},
		{name: "nbf 1e18", set: claimIs("nbf", 1e18), want: nbf},
		{name: "nbf null", set: claimIs("nbf", nil), want: nbf},
		{name: "nbf is text", set: claimIs("nbf", "0"), want: either},
		{name: "no exp", set: noClaim("exp"), want: exp},
		{name: "no iat", set: noClaim("iat"), want: iat},
		{name: "EXP alone", set: claim(func(c map[string]any) { c["EXP"] = c["exp"]; delete(c, "exp") }), want: exp},
		{name: "IAT alone", set: claim(func(c map[string]any) { c["IAT"] = c["iat"]; delete(c, "iat") }), want: iat},
	}
	for _, value := range []string{
		"null", "true", `"9999999999"`, `""`, "[]", "{}", "[9999999999]", "1.5", "9999999999.0", "1e18", "1E10", "1e400", "-1", "0", "-0", "1000000000000000000",
		"9223372036854775807", "9223372036854775808", "18446744073709551616", "-9223372036854775809", strings.Repeat("9", 400), "253402300800000",
	} {
		attacks = append(
			attacks,
			attack{name: "exp " + value[:min(len(value), 30)], set: text("exp", value), want: either},
			attack{name: "iat " + value[:min(len(value), 30)], set: text("iat", value), want: either},
		)
	}
	for _, value := range []string{"9e9999", "01", "+1", "1_0", "0x10", "NaN", "Infinity", ".5", "5.", "1e", "- 1"} {
		attacks = append(attacks, attack{name: "no JSON: " + value, set: text("exp", value), want: either})
	}
	s.try(t, attacks)

	t.Run("log tells the skew", func(t *testing.T) {
		s.behave(in(map[string]int64{"iat": 3600, "exp": 4000}))
		_, page := s.login("carl", "/")
		if line := s.logged(page); !strings.Contains(line, "1h0m0s ahead of our clock") && !strings.Contains(line, "59m59s ahead of our clock") {
			t.Error(line)
		}
	})
}

func TestAttack_IT11_Subject(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const either = "token refused: "
	var attacks []attack
	for name, value := range map[string]any{
		"empty": "", "number": 7, "null": nil, "true": true, "list": []string{"carl"}, "object": map[string]any{"sub": "carl"}, "256 bytes": strings.Repeat("s", 256),
		"128 characters of two bytes": strings.Repeat("ü", 128), "40 KB": strings.Repeat("s", 40<<10), "NUL": "carl\x00", "NUL in front": "\x00carl", "blank in front": " carl",
		"blank behind": "carl ", "blank alone": " ", "tab": "car\tl", "line break": "carl\n", "carriage return": "carl\r", "escape": "\x1b[31mcarl", "delete": "carl\x7f",
		"C1 control": "carl\u0085", "no-break space in front": "\u00a0carl", "line separator behind": "carl\u2028",
	} {
		attacks = append(attacks, attack{name: name, set: claimIs("sub", value), want: either})
	}
	attacks = append(attacks,
		attack{name: "absent", set: noClaim("sub"), want: "token refused: sub"},
		attack{name: "SUB alone", set: claim(func(c map[string]any) { c["SUB"] = c["sub"]; delete(c, "sub") }), want: "token refused: sub"},
		attack{name: "lone surrogate", set: s.payload(replace(`"sub":"carl"`, `"sub":"carl\ud800"`)), want: form},
		attack{name: "bytes that are not UTF-8", set: s.payload(replace(`"sub":"carl"`, "\"sub\":\"carl\xff\"")), want: form},
		attack{name: "overlong UTF-8", set: s.payload(replace(`"sub":"carl"`, "\"sub\":\"carl\xc0\xaf\"")), want: form},
	)
	for name, value := range map[string]string{
		"255 bytes": strings.Repeat("s", 255), "one byte": "x", "unicode": "käthe-東京", "URL": "https://example.com/u?x=1#y", "quotes": `o'brien "x"`, "blank inside": "a b", "emoji": "🙂",
	} {
		attacks = append(attacks, attack{name: "good: " + name, set: claimIs("sub", value), want: ""})
	}
	for name, value := range map[string]any{"NUL": "s\x00", "number": 5, "null": nil, "empty": "", "256 bytes": strings.Repeat("s", 256), "list": []string{"s"}} {
		attacks = append(attacks, attack{name: "sid " + name, set: claimIs("sid", value), want: "token refused: sid"})
	}
	attacks = append(attacks, attack{name: "no sid", set: noClaim("sid"), want: ""})
	s.try(t, attacks)
	if n := row[int](t, s.DB, `SELECT count(*)::int FROM bridge.identities WHERE octet_length(subject) NOT BETWEEN 1 AND 255`); n != 0 {
		t.Errorf("%d identities out of bounds", n)
	}
}

func TestAttack_IT12_NonceAndAccessTokenHash(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const nonce, hash = "token refused: nonce", "token refused: at_hash"
	change := func(f func(string) any) func(*bridgetest.Behaviour) {
		return claim(func(c map[string]any) { c["nonce"] = f(c["nonce"].(string)) })
	}
	atHash := func(f func(string) any) func(*bridgetest.Behaviour) {
		return claim(func(c map[string]any) { c["at_hash"] = f(c["at_hash"].(string)) })
	}
	whole := func(accessToken string) []byte { sum := sha256.Sum256([]byte(accessToken)); return sum[:] }
	var previous string
	s.try(t, []attack{
		{name: "good", set: claim(func(c map[string]any) { previous = c["nonce"].(string) }), want: ""},
		{name: "missing", set: noClaim("nonce"), want: nonce},
		{name: "of the previous login", set: change(func(string) any { return previous }), want: nonce},
		{name: "wrong", set: change(func(string) any { return "x" }), want: nonce},
		{name: "empty", set: change(func(string) any { return "" }), want: nonce},
		{name: "null", set: change(func(string) any { return nil }), want: "token refused: "},
		{name: "list", set: change(func(n string) any { return []string{n} }), want: "token refused: "},
		{name: "number", set: change(func(string) any { return 0 }), want: "token refused: "},
		{name: "true", set: change(func(string) any { return true }), want: "token refused: "},
		{name: "first half", set: change(func(n string) any { return n[:len(n)/2] }), want: nonce},
		{name: "longer", set: change(func(n string) any { return n + "A" }), want: nonce},
		{name: "padded", set: change(func(n string) any { return n + "=" }), want: nonce},
		{name: "blank behind", set: change(func(n string) any { return n + " " }), want: nonce},
		{name: "upper case", set: change(func(n string) any { return strings.ToUpper(n) }), want: nonce},
		{name: "hashed", set: change(func(n string) any { return encode(whole(n)) }), want: nonce},
		{name: "Nonce alone", set: claim(func(c map[string]any) { c["Nonce"] = c["nonce"]; delete(c, "nonce") }), want: nonce},
		{name: "Nonce good, nonce wrong", set: claim(func(c map[string]any) { c["Nonce"], c["nonce"] = c["nonce"], "x" }), want: nonce},

		{name: "at_hash absent", set: noClaim("at_hash"), want: ""},
		{name: "at_hash wrong", set: atHash(func(string) any { return "AAAAAAAAAAAAAAAAAAAAAA" }), want: hash},
		{name: "at_hash empty", set: atHash(func(string) any { return "" }), want: hash},
		{name: "at_hash null", set: atHash(func(string) any { return nil }), want: hash},
		{name: "at_hash padded", set: atHash(func(h string) any { return h + "==" }), want: hash},
		{name: "at_hash short", set: atHash(func(h string) any { return h[:8] }), want: hash},
		{name: "at_hash list", set: atHash(func(h string) any { return []string{h} }), want: "token refused: "},
		{name: "at_hash number", set: atHash(func(string) any { return 0 }), want: "token refused: "},
		{name: "at_hash in lower case", set: atHash(func(h string) any { return strings.ToLower(h) }), want: hash},
		{name: "another access token", set: func(b *bridgetest.Behaviour) {
			b.TokenResponse = func(r map[string]any) { r["access_token"] = "stolen" }
		}, want: hash},
	})
	for alg, sum := range map[string]crypto.Hash{"RS256": crypto.SHA256, "RS512": crypto.SHA512, "PS256": crypto.SHA256, "ES256": crypto.SHA256, "EdDSA": crypto.SHA512} {
		t.Run("at_hash of "+alg, func(t *testing.T) {
			s := newService(t, withProvider("alg: "+alg))
			first := func(bytes int) func(*bridgetest.Behaviour) {
				return func(b *bridgetest.Behaviour) {
					b.Alg = alg
					b.IDTokenClaims = func(c map[string]any) {
						text, _ := base64.RawURLEncoding.DecodeString(c["at_hash"].(string))
						c["at_hash"] = encode(text[:bytes])
					}
				}
			}
			s.try(t, []attack{
				{name: "left half", set: first(sum.Size() / 2), want: ""},
				{name: "left quarter", set: first(sum.Size() / 4), want: hash},
			})
		})
	}
}

func TestAttack_IT13_CrossJWT(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const typ, events = "token refused: typ", "token refused: events"
	var attacks []attack
	for name, value := range map[string]any{"absent": nil, "JWT": "JWT", "jwt": "jwt", "application/jwt": "application/jwt"} {
		attacks = append(attacks, attack{name: "good: typ " + name, set: headerIs("typ", value), want: ""})
	}
	for _, value := range []any{
		"at+jwt", "AT+JWT", "application/at+jwt", "logout+jwt", "Logout+JWT", "application/logout+jwt", "secevent+jwt", "dpop+jwt", "oauth-authz-req+jwt",
		"token-introspection+jwt", "client-authentication+jwt", "entity-statement+jwt", "vc+sd-jwt", "JOSE", "JOSE+JSON", "JWS", "ID", "Bearer", "", " JWT", "JWT ",
		"JWT\x00", "text/jwt", "application/", 1, true,
		[]string{"JWT"},
		map[string]any{"typ": "JWT"},
	} {
		attacks = append(attacks, attack{name: fmt.Sprintf("typ %q", value), set: headerIs("typ", value), want: typ})
	}
	attacks = append(attacks,
		attack{name: "typ null", set: signed(s.OP.Key("RS256"), func(h, p string) (string, string) { return replace(`"JWT"`, "null")(h), p }), want: typ},
		attack{name: "typ twice", set: signed(s.OP.Key("RS256"), func(h, p string) (string, string) { return member(`"typ":"at+jwt"`)(h), p }), want: form},
	)
	for _, value := range []any{"Bearer", "Refresh", "Offline", "Logout", "Serialized-ID", "", 1, nil, []string{"ID"}} {
		attacks = append(attacks, attack{name: fmt.Sprintf("Keycloak's claim typ %q", value), set: claimIs("typ", value), want: typ})
	}
	logout := map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}
	var previous string
	attacks = append(attacks,
		attack{name: "good: Keycloak's claim typ ID", set: claimIs("typ", "ID"), want: ""},
		attack{name: "a logout token", set: claim(func(c map[string]any) { delete(c, "nonce"); c["events"] = logout }), want: events},
		attack{name: "a logout token with our nonce", set: claimIs("events", logout), want: events},
		attack{name: "events empty", set: claimIs("events", map[string]any{}), want: events},
		attack{name: "events null", set: claimIs("events", nil), want: events},
		attack{name: "good, to be kept", set: raw(func(good string) string { previous = good; return good }), want: ""},
		attack{name: "the ID token of the previous login", set: raw(func(string) string { return previous }), want: "token refused: "},
		attack{name: "our own token for PostgREST", set: raw(func(good string) string {
			own, _ := bridgetest.SignJWT([]byte(jwtSecret), map[string]any{"alg": "HS256", "typ": "JWT"}, []byte(decoded(good, 1)))
			return own
		}), want: algorithm},
		attack{name: "the access token", set: func(b *bridgetest.Behaviour) {
			b.TokenResponse = func(r map[string]any) { r["id_token"] = r["access_token"] }
		}, want: form},
		attack{name: "an access token without nonce", set: claim(func(c map[string]any) {
			delete(c, "nonce")
			c["aud"], c["azp"], c["scope"] = "account", "bridge", "openid"
		}), want: "token refused: "},
	)
	s.try(t, attacks)

	t.Run("as access token", func(t *testing.T) {
		s := newService(t, withRules(keycloakRules), withProvider("userinfo: never"))
		roles := map[string]any{"roles": []string{"shop-admin"}}
		s.OP.SetPersonas(bridgetest.Persona{Subject: "carl", Name: "Carl", AccessToken: map[string]any{"realm_access": roles}})
		access := func(change func(c map[string]any)) func(*bridgetest.Behaviour) {
			return func(b *bridgetest.Behaviour) { b.AccessTokenClaims = change }
		}
		is := func(name string, value any) func(*bridgetest.Behaviour) {
			return access(func(c map[string]any) { c[name] = value })
		}
		without := func(name string) func(*bridgetest.Behaviour) {
			return access(func(c map[string]any) { delete(c, name) })
		}
		// replaced puts another JWT in place of the access token. There is no at_hash then that would tell.
		replaced := func(make func(idToken, accessToken string) string) func(*bridgetest.Behaviour) {
			return func(b *bridgetest.Behaviour) {
				b.IDTokenClaims = func(c map[string]any) { delete(c, "at_hash"); c["realm_access"], c["azp"] = roles, "bridge" }
				b.TokenResponse = func(r map[string]any) {
					r["access_token"] = make(r["id_token"].(string), r["access_token"].(string))
				}
			}
		}
		resigned := func(header string, change func(p string) string) func(*bridgetest.Behaviour) {
			return replaced(func(_, accessToken string) string {
				token, err := bridgetest.SignJWT(s.OP.Key("RS256"), []byte(header), []byte(change(decoded(accessToken, 1))))
				if err != nil {
					panic(err)
				}
				return token
			})
		}
		same := func(p string) string { return p }
		const header, rfc9068 = `{"alg":"RS256","kid":"RS256-1"}`, `{"alg":"RS256","kid":"RS256-1","typ":"at+jwt"}`
		s.try(t, []attack{
			{name: "Keycloak's", want: ""},
			{name: "no typ in the header", set: resigned(header, same), want: ""},
			{name: "at+jwt", set: resigned(rfc9068, same), want: ""},
			{name: "at+jwt without Keycloak's typ", set: resigned(rfc9068, replace(`"typ":"Bearer"`, `"x":1`)), want: ""},
			{name: "at+jwt with client_id", set: resigned(rfc9068, replace(`"azp"`, `"client_id"`)), want: ""},
			{name: "application/at+jwt", set: resigned(`{"alg":"RS256","kid":"RS256-1","typ":"application/at+jwt"}`, same), want: ""},

			{name: "the ID token", set: replaced(func(idToken, _ string) string { return idToken }), want: typ},
			{name: "nothing that says what it is", set: without("typ"), want: typ},
			{name: "Keycloak's ID token", set: is("typ", "ID"), want: typ},
			{name: "Keycloak's refresh token", set: is("typ", "Refresh"), want: typ},
			{name: "Keycloak's offline token", set: is("typ", "Offline"), want: typ},
			{name: "Keycloak's logout token", set: is("typ", "Logout"), want: typ},
			{name: "at+jwt that calls itself ID", set: resigned(rfc9068, replace(`"Bearer"`, `"ID"`)), want: typ},
			{name: "logout+jwt", set: resigned(`{"alg":"RS256","kid":"RS256-1","typ":"logout+jwt"}`, same), want: typ},
			{name: "events", set: is("events", logout), want: events},
			{name: "another client's", set: is("azp", "other"), want: "token refused: azp"},
			{name: "another client's, our client_id", set: access(func(c map[string]any) { c["azp"], c["client_id"] = "other", "bridge" }), want: "token refused: azp"},
			{name: "azp list", set: is("azp", []string{"bridge"}), want: "token refused: azp"},
			{name: "azp null, our client_id", set: access(func(c map[string]any) { c["azp"], c["client_id"] = nil, "bridge" }), want: "token refused: azp"},
			{name: "no azp", set: without("azp"), want: "token refused: azp"},
			{name: "another person's", set: is("sub", "ada"), want: "token refused: sub"},
			{name: "nobody's", set: without("sub"), want: "token refused: sub"},
			{name: "another issuer's", set: is("iss", "https://evil.example"), want: "token refused: iss"},
			{name: "no issuer's", set: without("iss"), want: "token refused: iss"},
			{name: "expired", set: is("exp", time.Now().Add(-time.Hour).Unix()), want: "token refused: exp"},
			{name: "no exp", set: without("exp"), want: "token refused: exp"},
			{name: "issued before the login", set: is("iat", time.Now().Add(-time.Hour).Unix()), want: "token refused: iat"},
			{name: "no iat", set: without("iat"), want: "token refused: iat"},
			{name: "not yet valid", set: is("nbf", time.Now().Add(time.Hour).Unix()), want: "token refused: nbf"},
			{name: "duplicate member", set: resigned(header, member(`"sub":"ada"`)), want: form},
			{name: "another algorithm", set: replaced(func(_, at string) string {
				token, _ := bridgetest.SignJWT(s.OP.Key("ES256"), []byte(`{"alg":"ES256","kid":"ES256-1"}`), []byte(decoded(at, 1)))
				return token
			}), want: algorithm},
			{name: "unsigned", set: replaced(func(_, at string) string {
				return encode([]byte(`{"alg":"none"}`)) + "." + encode([]byte(decoded(at, 1))) + "."
			}), want: form},
			{name: "bad signature", set: replaced(func(_, at string) string { return at[:strings.LastIndex(at, ".")+1] + encode(make([]byte, 256)) }), want: signature},
			{name: "three parts of anything", set: replaced(func(string, string) string { return "a.b.c" }), want: form},
			{name: "not the one of at_hash", set: func(b *bridgetest.Behaviour) {
				b.TokenResponse = func(r map[string]any) {
					at := r["access_token"].(string)
					r["access_token"], _ = bridgetest.SignJWT(s.OP.Key("RS256"), []byte(header), []byte(member(`"x":1`)(decoded(at, 1))))
				}
			}, want: "token refused: at_hash"},
			{name: "opaque: no roles", set: replaced(func(string, string) string { return "opaque" }), want: "refused by the rules", status: 403},
			{name: "encrypted: no roles", set: replaced(func(string, string) string { return "e.e.e.e.e" }), want: "refused by the rules", status: 403},
		})
	})
}

func TestAttack_IT14_ParserDifferentials(t *testing.T) {
	t.Parallel()
	s := newService(t)
	deep := func(open, inside, shut string, n int) func(*bridgetest.Behaviour) {
		return s.payload(member(`"deep":` + strings.Repeat(open, n) + inside + strings.Repeat(shut, n)))
	}
	whole := func(text string) func(*bridgetest.Behaviour) { return s.payload(func(string) string { return text }) }
	more := func(text string) func(*bridgetest.Behaviour) { return s.payload(member(text)) }
	attacks := []attack{
		{name: "good", want: ""},
		{name: "member with everything", set: more(`"x":{"a":[1,2.5e3,-0,true,false,null,"\u00e9\ud83d\ude42\"\\\/\b\f\n\r\t"],"":{},"é":[]}`), want: ""},
		{name: "white space", set: s.payload(func(p string) string { return " \t\r\n" + strings.ReplaceAll(p, `":`, `" : `) + "\n " }), want: ""},
		{name: "depth 15", set: deep("[", "", "]", 15), want: ""},
		{name: "depth 15 of objects", set: deep(`{"x":`, "1", "}", 15), want: ""},

		{name: "sub twice", set: more(`"sub":"ada"`), want: form},
		{name: "sub twice, the same", set: more(`"sub":"carl"`), want: form},
		{name: "sub twice, once escaped", set: more(`"s\u0075b":"ada"`), want: form},
		{name: "sub twice, fully escaped", set: more(`"\u0073\u0075\u0062":"ada"`), want: form},
		{name: "twice, the last null", set: s.payload(func(p string) string { return p[:len(p)-1] + `,"sub":null}` }), want: form},
		{name: "any member twice", set: more(`"x":1,"x":1`), want: form},
		{name: "twice far below", set: more(`"x":[{"y":{"z":1,"z":2}}]`), want: form},
		{name: "empty name twice", set: more(`"":1,"":2`), want: form},
		{name: "trailing object", set: s.payload(func(p string) string { return p + `{"sub":"ada"}` }), want: form},
		{name: "trailing brace", set: s.payload(func(p string) string { return p + `}` }), want: form},
		{name: "trailing comma behind", set: s.payload(func(p string) string { return p + `,` }), want: form},
		{name: "trailing NUL", set: s.payload(func(p string) string { return p + "\x00" }), want: form},
		{name: "leading NUL", set: s.payload(func(p string) string { return "\x00" + p }), want: form},
		{name: "trailing comma inside", set: s.payload(func(p string) string { return p[:len(p)-1] + `,}` }), want: form},
		{name: "two commas", set: s.payload(func(p string) string { return "{," + p[1:] }), want: form},
		{name: "comment", set: s.payload(func(p string) string { return p + "// x" }), want: form},
		{name: "comment inside", set: s.payload(func(p string) string { return "{/*x*/" + p[1:] }), want: form},
		{name: "single quotes", set: more(`'x':1`), want: form},
		{name: "no quotes", set: more(`x:1`), want: form},
		{name: "no colon", set: more(`"x" 1`), want: form},
		{name: "no value", set: more(`"x":`), want: form},
		{name: "a number for a name", set: more(`1:1`), want: form},
		{name: "mixed brackets", set: more(`"x":[1}`), want: form},
		{name: "no comma in a list", set: more(`"x":[1 2]`), want: form},
		{name: "comma at the end of a list", set: more(`"x":[1,]`), want: form},
		{name: "leading zero", set: more(`"x":01`), want: form},
		{name: "NaN", set: more(`"x":NaN`), want: form},
		{name: "True", set: more(`"x":True`), want: form},
		{name: "bad escape", set: more(`"x":"\q"`), want: form},
		{name: "hexadecimal escape", set: more(`"x":"\x41"`), want: form},
		{name: "short escape", set: more(`"x":"\u12"`), want: form},
		{name: "control character", set: more("\"x\":\"a\nb\""), want: form},
		{name: "high surrogate alone", set: more(`"x":"\ud800"`), want: form},
		{name: "low surrogate alone", set: more(`"x":"\udc00"`), want: form},
		{name: "surrogates in the wrong order", set: more(`"x":"\ude42\ud83d"`), want: form},
		{name: "high surrogate and a letter", set: more(`"x":"\ud83dA"`), want: form},
		{name: "lone surrogate in a name", set: more(`"\ud800":1`), want: form},
		{name: "not UTF-8", set: more("\"x\":\"\xff\""), want: form},
		{name: "not UTF-8 in a name", set: more("\"\xff\":1"), want: form},
		{name: "surrogate in UTF-8", set: more("\"x\":\"\xed\xa0\x80\""), want: form},
		{name: "byte order mark", set: s.payload(func(p string) string { return "\ufeff" + p }), want: form},
		{name: "UTF-16", set: s.payload(func(p string) string { return "{\x00" + p[1:] }), want: form},
		{name: "depth 16", set: deep("[", "", "]", 16), want: form},
		{name: "depth 16 of objects", set: deep(`{"x":`, "1", "}", 16), want: form},
		{name: "depth 10000", set: deep("[", "", "]", 10000), want: form},
		{name: "depth 20000, never shut", set: deep("[", "", "", 20000), want: form},
		{name: "a list", set: s.payload(func(p string) string { return "[" + p + "]" }), want: form},
		{name: "a string", set: s.payload(func(p string) string { b, _ := json.Marshal(p); return string(b) }), want: form},
		{name: "null", set: whole("null"), want: form},
		{name: "a number", set: whole("7"), want: form},
		{name: "an empty object", set: whole("{}"), want: "token refused: "},
		{name: "blanks", set: whole("  "), want: form},
		{name: "half", set: s.payload(func(p string) string { return p[:len(p)/2] }), want: form},
		{name: "duplicate in the header", set: signed(s.OP.Key("RS256"), func(h, p string) (string, string) { return member(`"kid":"x"`)(h), p }), want: form},
	}
	s.try(t, attacks)

	// Names are compared exactly: what stands under another spelling has no effect.
	for _, other := range []string{`"SUB":"ada"`, `"Sub":"ada"`, `"\u017fub":"ada"`, `"sub ":"ada"`, `"EMAIL":"ada@example.com"`, `"GROUPS":["/admins"]`, `"Groups":["/admins"]`} {
		for place, set := range map[string]func(string) func(*bridgetest.Behaviour){
			"before": more,
			"after": func(text string) func(*bridgetest.Behaviour) {
				return s.payload(func(p string) string { return p[:len(p)-1] + "," + text + "}" })
			},
		} {
			t.Run(other+" "+place, func(t *testing.T) {
				s.behave(set(other))
				defer s.OP.Set(correct)
				b, page := s.login("carl", "/")
				answer, body := s.token(b)
				if answer.Status != 200 {
					t.Fatalf("%s: %s", page.Text(), s.logged(page))
				}
				got := claims(t, body["token"])
				subject := row[string](t, s.DB, "SELECT subject FROM bridge.identities WHERE user_id = $1::bigint", got["user_id"])
				if subject != "carl" || got["role"] != s.DB.Role("customer") || got["email"] != "carl@example.com" {
					t.Errorf("subject %s, token %v", subject, got)
				}
			})
		}
	}
}

func TestAttack_IT15_GiantAndMalformedClaims(t *testing.T) {
	t.Parallel()
	s := newService(t)
	groups := func(n int) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("/g%04d", i)
		}
		return list
	}
	filler := func(n int) string { return strings.Repeat("x", n) }
	const denied = "refused by the rules"
	s.try(t, []attack{
		{name: "one group", set: claimIs("groups", groups(1)), want: ""},
		{name: "1000 groups", set: claimIs("groups", groups(1000)), want: ""},
		{name: "1001 groups", set: claimIs("groups", groups(1001)), want: denied, status: 403},
		{name: "5000 groups", set: claimIs("groups", groups(5000)), want: denied, status: 403},
		{name: "a group of 4097 bytes", set: claimIs("groups", []string{filler(4097)}), want: denied, status: 403},
		{name: "a token of 60 KB", set: claimIs("filler", filler(44<<10)), want: ""},
		{name: "a token of 70 KB", set: claimIs("filler", filler(52<<10)), want: form},
		{name: "a token of 900 KB", set: claimIs("filler", filler(650<<10)), want: form},
		{name: "a token of 1.5 MB", set: claimIs("filler", filler(1100<<10)), want: "the body is larger than 1048576 bytes"},
		{name: "a million dots", set: raw(func(string) string { return strings.Repeat(".", 1e6) }), want: form},
		{name: "a header of 60 KB", set: headerIs("x", filler(45<<10)), want: ""},
		{name: "2000 members", set: claim(func(c map[string]any) {
			for i := range 2000 {
				c[fmt.Sprintf("m%d", i)] = i
			}
		}), want: ""},
		{name: "a number with 40000 digits", set: s.payload(member(`"n":` + strings.Repeat("9", 40000))), want: ""},
		{name: "a number with a huge exponent", set: s.payload(member(`"n":1e999999999`)), want: ""},
		{name: "NUL in the name", set: claimIs("name", "Carl\x00"), want: ""},
		{name: "NUL in a name that nobody reads", set: claimIs("x\x00", "x"), want: ""},
		{name: "name is an object", set: claimIs("name", map[string]any{"x": 1}), want: ""},
		{name: "NUL in the e-mail", set: claimIs("email", "carl@example.com\x00"), want: denied, status: 403},
		{name: "NUL in a group", set: claimIs("groups", []string{"\x00"}), want: denied, status: 403},
		{name: "lone surrogate in the name", set: s.payload(replace(`"name":"Carl"`, `"name":"\ud800"`)), want: form},
		{name: "not UTF-8 in the name", set: s.payload(replace(`"name":"Carl"`, "\"name\":\"\xff\"")), want: form},
	})
	if s.Log.Contains("status=500") {
		t.Error("an internal error")
	}
	if n := row[int](t, s.DB, `SELECT count(*)::int FROM bridge.users WHERE name LIKE '%object%' OR length(name) > 200`); n != 0 {
		t.Errorf("%d odd names", n)
	}
}

func TestAttack_IT17_UserInfoSubstitution(t *testing.T) {
	t.Parallel()
	s := newService(t, withProvider("userinfo: always"))
	s.OP.SetPersonas(bridgetest.Persona{Subject: "carl", Name: "Carl", IDToken: map[string]any{"email": "carl@example.com", "email_verified": true}})
	elsewhere := newTrap(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"sub":"carl","groups":["/admins"]}`)
	})
	set := func(change func(c map[string]any)) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) { b.UserInfo = change }
	}
	is := func(name string, value any) func(*bridgetest.Behaviour) {
		return set(func(c map[string]any) { c[name] = value })
	}
	answer := func(status int, contentType, body string) func(*bridgetest.Behaviour) {
		return func(b *bridgetest.Behaviour) {
			b.Handle["userinfo"] = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", contentType)
				w.Header().Set("Location", elsewhere.URL) // of no meaning but with 3xx
				w.WriteHeader(status)
				fmt.Fprint(w, body)
				return true
			}
		}
	}
	jwt := func(header string, key any, change func(c map[string]any)) string {
		c := map[string]any{"sub": "carl", "iss": s.OP.Issuer(), "aud": "bridge"}
		if change != nil {
			change(c)
		}
		token, err := bridgetest.SignJWT(key, []byte(header), c)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	const good, other = `{"sub":"carl"}`, "token refused: userinfo"
	const contentType = "its Content-Type is"
	rs256, key := `{"alg":"RS256","kid":"RS256-1"}`, s.OP.Key("RS256")
	attacks := []attack{
		{name: "good", want: ""},
		{name: "good, parameters of the type", set: answer(200, "application/json;charset=UTF-8", good), want: ""},
		{name: "good, type in another case", set: answer(200, "Application/JSON", good), want: ""},
		{name: "other sub", set: is("sub", "ada"), want: other},
		{name: "sub missing", set: set(func(c map[string]any) { delete(c, "sub") }), want: other},
		{name: "sub empty", set: is("sub", ""), want: other},
		{name: "sub null", set: is("sub", nil), want: other},
		{name: "sub number", set: is("sub", 1), want: other},
		{name: "sub list", set: is("sub", []string{"carl"}), want: other},
		{name: "sub in another case", set: is("sub", "Carl"), want: other},
		{name: "sub with a blank", set: is("sub", "carl "), want: other},
		{name: "SUB alone", set: set(func(c map[string]any) { c["SUB"] = "carl"; delete(c, "sub") }), want: other},
		{name: "sub ada, SUB carl", set: set(func(c map[string]any) { c["SUB"] = "carl"; c["sub"] = "ada" }), want: other},
		{name: "sub twice", set: answer(200, "application/json", `{"sub":"ada","sub":"carl"}`), want: "twice"},
		{name: "list", set: answer(200, "application/json", `["carl"]`), want: "not an object"},
		{name: "list of an object", set: answer(200, "application/json", `[`+good+`]`), want: "not an object"},
		{name: "string", set: answer(200, "application/json", `"carl"`), want: "not an object"},
		{name: "null", set: answer(200, "application/json", `null`), want: "not an object"},
		{name: "nothing", set: answer(200, "application/json", ``), want: "GET "},
		{name: "blank", set: answer(200, "application/json", ` `), want: "GET "},
		{name: "half", set: answer(200, "application/json", `{"sub":"carl"`), want: "GET "},
		{name: "two objects", set: answer(200, "application/json", good+good), want: "data after"},
		{name: "depth", set: answer(200, "application/json", `{"sub":"carl","x":`+strings.Repeat("[", 9999)+strings.Repeat("]", 9999)+"}"), want: "deep"},
		{name: "HTML", set: answer(200, "text/html", `<html>`+good), want: contentType},
		{name: "JSON that calls itself HTML", set: answer(200, "text/html", good), want: contentType},
		{name: "JSON that calls itself text", set: answer(200, "text/plain", good), want: contentType},
		{name: "JSON that calls itself a form", set: answer(200, "application/x-www-form-urlencoded", good), want: contentType},
		{name: "JSON-P", set: answer(200, "application/javascript", "x("+good+")"), want: contentType},
		{name: "signed and good", set: answer(200, "application/jwt", jwt(rs256, key, nil)), want: contentType},
		{name: "unsigned", set: answer(200, "application/jwt", jwt(`{"alg":"none"}`, nil, nil)), want: contentType},
		{name: "signed for another client", set: answer(200, "application/jwt", jwt(rs256, key, func(c map[string]any) { c["aud"] = "other" })), want: contentType},
		{name: "signed by another issuer", set: answer(200, "application/jwt", jwt(rs256, key, func(c map[string]any) { c["iss"] = "evil" })), want: contentType},
		{name: "signed, but called JSON", set: answer(200, "application/json", jwt(rs256, key, nil)), want: "GET "},
		{name: "encrypted", set: answer(200, "application/jwt", "e.e.e.e.e"), want: contentType},
		{name: "100 MB", set: func(b *bridgetest.Behaviour) {
			b.Handle["userinfo"] = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"sub":"carl","x":"`)
				for range 100 {
					if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
						return true
					}
				}
				fmt.Fprint(w, `"}`)
				return true
			}
		}, want: "larger than"},
		{name: "compressed", set: func(b *bridgetest.Behaviour) {
			b.Handle["userinfo"] = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(gzipped(good))
				return true
			}
		}, want: "Content-Encoding"},
		{name: "204", set: answer(204, "application/json", ""), want: "status 204"},
		{name: "201", set: answer(201, "application/json", good), want: "status 201"},
		{name: "401", set: answer(401, "application/json", good), want: "status 401"},
		{name: "403", set: answer(403, "application/json", good), want: "status 403"},
		{name: "500", set: answer(500, "application/json", good), want: "status 500", status: 503},
		{name: "429", set: answer(429, "application/json", good), want: "status 429", status: 503},
	}
	for _, status := range []int{301, 302, 303, 307, 308} {
		attacks = append(attacks, attack{name: fmt.Sprint(status), set: answer(status, "application/json", good), want: fmt.Sprintf("status %d", status)})
	}
	for i := range attacks {
		attacks[i].userinfo = 1
	}
	s.try(t, attacks)
	if n := elsewhere.visits.Load(); n != 0 {
		t.Errorf("%d visits where a redirect led", n)
	}
	t.Run("its claims never override the ID token's", func(t *testing.T) {
		s.behave(set(func(c map[string]any) {
			maps.Copy(c, map[string]any{"iss": "https://evil.example", "aud": "other", "email": "ada@example.com", "nonce": "x", "exp": 1, "sid": "evil"})
		}))
		b, _ := s.login("carl", "/")
		_, body := s.token(b)
		if got := claims(t, body["token"]); got["email"] != "carl@example.com" {
			t.Errorf("%v", got)
		}
		if n := row[int](t, s.DB, `SELECT count(*)::int FROM bridge.identities WHERE issuer <> $1 OR subject <> 'carl'`, s.OP.Issuer()); n != 0 {
			t.Errorf("%d identities that UserInfo named", n)
		}
	})
	t.Run("the access token is a Bearer header, never in the URL", func(t *testing.T) {
		for _, r := range s.OP.Requests("userinfo") {
			if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") || r.URL.RawQuery != "" || r.Method != http.MethodGet {
				t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
			}
		}
	})
}

func gzipped(text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.Bytes()
}

func TestAttack_IT18_DistributedClaims(t *testing.T) {
	t.Parallel()
	s := newService(t)
	source := newTrap(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"groups":["/admins"]}`) })
	distributed := func(endpoint string) map[string]any {
		return map[string]any{
			"_claim_names":   map[string]any{"groups": "src1"},
			"_claim_sources": map[string]any{"src1": map[string]any{"endpoint": endpoint, "access_token": "x"}},
		}
	}
	set := func(c map[string]any) func(*bridgetest.Behaviour) {
		return claim(func(claims map[string]any) {
			delete(claims, "groups")
			maps.Copy(claims, c)
		})
	}
	const denied = "refused by the rules" // an unknown set of groups may hold one that a deny rule names
	s.try(t, []attack{
		{name: "no groups at all: the default", set: noClaim("groups"), want: ""},
		{name: "endpoint of the attacker", set: set(distributed(source.URL)), want: denied, status: 403},
		{name: "metadata service", set: set(distributed("http://169.254.169.254/latest/meta-data/")), want: denied, status: 403},
		{name: "a file", set: set(distributed("file:///etc/passwd")), want: denied, status: 403},
		{name: "aggregated", set: set(map[string]any{
			"_claim_names":   map[string]any{"groups": "src1"},
			"_claim_sources": map[string]any{"src1": map[string]any{"JWT": "e30.e30.e30"}},
		}), want: denied, status: 403},
		{name: "a source that is not there", set: set(map[string]any{"_claim_names": map[string]any{"groups": "src1"}}), want: "token refused: go-oidc"},
		{name: "hasgroups", set: set(map[string]any{"hasgroups": true}), want: denied, status: 403},
		{name: "beside groups that are there", set: claim(func(c map[string]any) {
			maps.Copy(c, distributed(source.URL))
			c["groups"] = []string{"/admins"}
		}), want: denied, status: 403},
		{name: "sources that nobody names", set: set(map[string]any{"_claim_sources": map[string]any{"src1": map[string]any{"endpoint": source.URL}}}), want: ""},
		{name: "names are a list", set: set(map[string]any{"_claim_names": []string{"groups"}}), want: "token refused: "},
		{name: "endpoint is an object", set: set(map[string]any{
			"_claim_names":   map[string]any{"groups": "src1"},
			"_claim_sources": map[string]any{"src1": map[string]any{"endpoint": map[string]any{"url": source.URL}}},
		}), want: "token refused: go-oidc"},
	})
	if n := source.visits.Load(); n != 0 {
		t.Errorf("%d visits at the source", n)
	}
}
