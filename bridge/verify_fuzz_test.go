package bridge

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// fuzzTime is the clock of the fuzz tests, so that seeds stay good.
var fuzzTime = time.Unix(1_800_000_000, 0)

func fmtClaims(iss string, now time.Time) []byte {
	return fmt.Appendf(nil, `{"iss":%q,"sub":"carl","aud":"bridge","iat":%d,"exp":%d,"nonce":"n-1"}`, iss, now.Unix(), now.Unix()+300)
}

// FuzzVerify gives tokens to our verifier and to go-oidc alone. Ours may only be stricter: what it accepts, go-oidc accepts, and both read the
// same issuer, subject, audience and nonce in it. A token with `resign` is signed with the provider's key, so that the fuzzer gets behind the
// signature.
func FuzzVerify(f *testing.F) {
	const issuer = "https://sso.example.com"
	op, err := bridgetest.StartOP(context.Background(), bridgetest.OPOptions{})
	if err != nil {
		f.Fatal(err)
	}
	defer op.Close()
	key := op.Key("RS256")
	good := string(fmtClaims(issuer, fuzzTime))
	header := fmt.Sprintf(`{"alg":"RS256","kid":%q,"typ":"JWT"}`, op.KeyID("RS256"))
	for _, payload := range []string{
		good, strings.Replace(good, `"bridge"`, `["bridge"]`, 1), strings.Replace(good, `"sub"`, `"SUB":"victim","sub"`, 1), strings.Replace(good, `{`, `{"sub":"victim",`, 1),
		strings.Replace(good, `}`, `,"azp":"bridge","typ":"ID","sid":"s","nbf":1}`, 1), strings.Replace(good, `}`, `,"events":{}}`, 1), strings.Replace(good, `"carl"`, `"\ud83d\ude42"`, 1),
		strings.Replace(good, `"carl"`, `"\ud800"`, 1), strings.Replace(good, `1800000300`, `1.8000003e9`, 1), good + "{}", "[" + good + "]", "null", "",
		strings.Replace(good, `}`, `,"at_hash":"x"}`, 1), strings.Replace(good, `}`, `,"_claim_names":{"x":"y"},"_claim_sources":{"y":{"endpoint":"https://evil.example"}}}`, 1),
	} {
		f.Add(header, payload, true)
	}
	for _, h := range []string{
		`{"alg":"none"}`, `{"alg":"HS256"}`, `{"alg":"RS256"}`, `{"alg":"RS256","crit":["exp"],"exp":1}`, `{"alg":"RS256","b64":false}`, `{"alg":"RS256","kid":"x"}`, `{"alg":"RS256","typ":"at+jwt"}`,
		`{"alg":"RS256","jwk":{"kty":"oct","k":"AAAA"}}`, `{"alg":"RS256","alg":"none"}`, `{"alg":"RS256","x5c":["AAAA"]}`, `{}`, ``,
	} {
		f.Add(h, good, true)
		f.Add(h, good, false)
	}
	keys, _, err := usableKeys(op.KeySet(), jose.RS256)
	if err != nil {
		f.Fatal(err)
	}
	now := func() time.Time { return fuzzTime }
	set := newKeySet(http.DefaultClient, jose.RS256, documentLog{}, now)
	set.keys, set.fetched, set.ended, set.failure = keys, fuzzTime, fuzzTime, errUnknownKey // never fetches
	v := verifier{issuer: issuer, clientID: "bridge", alg: jose.RS256, keys: set, now: now}
	reference := oidc.NewVerifier(issuer, &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{key.Public()}}, &oidc.Config{ClientID: "bridge", Now: func() time.Time { return fuzzTime.Add(-clockSkew) }})
	f.Fuzz(func(t *testing.T, header, payload string, resign bool) {
		token := base64url.EncodeToString([]byte(header)) + "." + base64url.EncodeToString([]byte(payload)) + "." + base64url.EncodeToString(make([]byte, 256))
		if resign {
			// The header's alg may be anything that our signer reads as RS256.
			if signed, err := bridgetest.SignJWT(key, []byte(header), []byte(payload)); err == nil {
				token = signed
			}
		}
		hold(t, v, reference, token)
		hold(t, v, reference, header+"."+payload) // and the text as it is
	})
}

// hold compares the two verifiers about one token, and the three profiles of ours.
func hold(t *testing.T, v verifier, reference *oidc.IDTokenVerifier, token string) {
	t.Helper()
	claims, err := v.idToken(t.Context(), "http://127.0.0.1:1/", token, expectation{nonce: "n-1", accessToken: "opaque", started: fuzzTime})
	_, accessErr := v.accessToken(t.Context(), "http://127.0.0.1:1/", token, "carl", fuzzTime)
	_, logoutErr := v.logoutToken(t.Context(), "http://127.0.0.1:1/", token)
	if accepted := btoi(err == nil) + btoi(accessErr == nil) + btoi(logoutErr == nil); accepted > 1 {
		t.Errorf("%d profiles accept %s", accepted, token)
	}
	if err != nil {
		return
	}
	theirs, err := reference.Verify(t.Context(), token)
	if err != nil {
		t.Fatalf("we accept what go-oidc refuses (%v): %s", err, token)
	}
	// go-oidc takes SUB for sub. Where both are there, it is refused or not by what we do not read.
	names := map[string]int{}
	for name := range claims {
		for _, known := range []string{"iss", "sub", "aud", "nonce"} {
			if strings.EqualFold(name, known) {
				names[known]++
			}
		}
	}
	aud := claims["aud"]
	if list, ok := aud.([]any); ok {
		aud = list[0]
	}
	switch {
	case claims["nonce"] != "n-1" || claims["sub"] == "":
		t.Errorf("accepted: %v", claims)
	case len(names) != 4, names["iss"]+names["sub"]+names["aud"]+names["nonce"] != 4:
	case theirs.Issuer != claims["iss"] || theirs.Subject != claims["sub"] || len(theirs.Audience) != 1 || theirs.Audience[0] != aud || theirs.Nonce != "n-1":
		t.Errorf("go-oidc reads %+v, we read %v", theirs, claims)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// FuzzCompact gives whole texts to the verifier: it must not panic, and accept nothing but the one good token, byte for byte.
func FuzzCompact(f *testing.F) {
	op, err := bridgetest.StartOP(context.Background(), bridgetest.OPOptions{})
	if err != nil {
		f.Fatal(err)
	}
	defer op.Close()
	good, err := bridgetest.SignJWT(op.Key("RS256"), []byte(`{"alg":"RS256"}`), fmtClaims("https://sso.example.com", fuzzTime))
	if err != nil {
		f.Fatal(err)
	}
	parts := strings.Split(good, ".")
	// The fuzzer does not know the key, which differs from run to run: in its texts H, P and S stand for the good parts.
	for _, seed := range []string{
		"H.P.S", "H.P.", "H.P", "H..S", ".P.S", "H.P.S.", "H.P.S.S", " H.P.S", "H.P.S\n", "H.\nP.S", "H.P.S=", "H.P.SA", "H.P.SAA", "....", "..", "", "H%2EP%2ES", "H.P.S,H.P.S", "\ufeffH.P.S", "H.P+.S", "h.P.S",
		`{"protected":"H","payload":"P","signature":"S"}`, `{"payload":"P","signatures":[{"protected":"H","signature":"S"}]}`, "Bearer H.P.S", `"H.P.S"`, "H.P.S\x00", "P.H.S", "H.H.S", "S.S.S",
	} {
		f.Add(seed)
	}
	keys, _, err := usableKeys(op.KeySet(), jose.RS256)
	if err != nil {
		f.Fatal(err)
	}
	now := func() time.Time { return fuzzTime }
	set := newKeySet(http.DefaultClient, jose.RS256, documentLog{}, now)
	set.keys, set.fetched, set.ended, set.failure = keys, fuzzTime, fuzzTime, errUnknownKey
	v := verifier{issuer: "https://sso.example.com", clientID: "bridge", alg: jose.RS256, keys: set, now: now}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			return
		}
		token := strings.NewReplacer("H", parts[0], "P", parts[1], "S", parts[2]).Replace(text)
		_, err := v.idToken(t.Context(), "http://127.0.0.1:1/", token, expectation{nonce: "n-1", accessToken: "opaque", started: fuzzTime})
		if (err == nil) != (token == good) {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// FuzzClaims holds the claims decoder to encoding/json: what it accepts is valid JSON with the same values, and nothing in it stands twice.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":{"b":[1,2,{"c":null}]}}`, `{"a":[1,]}`, `{"a":1,}`, `{,"a":1}`, `{"a" 1}`, `{"a":01}`, `{"a":1e5}`, `{"a":-0}`, `{"a":1.}`, `{"a":"\ud83d\ude42"}`,
		`{"a":"\ud83d"}`, `{"a":"\ude42\ud83d"}`, `{"a":"\\ud83d"}`, `{"a":"\\\ud83d"}`, `{"\ud800":1}`, "{\"a\":\"\xff\"}", "{\"a\":\"\n\"}", "\ufeff{}", `{}{}`, `{} `, ` {}`, `[]`, `null`, `1`, `"x"`, `tru`, ``, `{`, `}`, `{"a":1}}`,
		strings.Repeat(`{"a":`, 16) + `1` + strings.Repeat(`}`, 16), strings.Repeat(`{"a":`, 17) + `1` + strings.Repeat(`}`, 17), `{"a":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`, `{"":0,"":0}`, `{"a":"\u0000"}`, `{"A":1,"a":2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeObject(data)
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		var want map[string]any
		wantErr := d.Decode(&want)
		_, rest := d.Token()
		valid := wantErr == nil && rest == io.EOF && want != nil
		if err == nil {
			if !valid || !reflect.DeepEqual(got, want) {
				t.Fatalf("%q: %v, encoding/json says %v, %v", data, got, want, wantErr)
			}
			if members(got) != countNames(data) {
				t.Fatalf("%q: %d members of %d names", data, members(got), countNames(data))
			}
			// What we hand on means the same to the next reader.
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := decodeObject(text); err != nil || !reflect.DeepEqual(again, got) {
				t.Fatalf("%q: %v, and again %v, %v", data, got, again, err)
			}
		} else if valid && members(want) == countNames(data) && !strings.Contains(err.Error(), "deep") && !strings.Contains(err.Error(), "surrogate") && err.Error() != "not UTF-8" {
			t.Fatalf("%q is refused: %v", data, err)
		}
	})
}

// members counts the members of all objects in a value.
func members(value any) (n int) {
	switch value := value.(type) {
	case map[string]any:
		n = len(value)
		for _, v := range value {
			n += members(v)
		}
	case []any:
		for _, v := range value {
			n += members(v)
		}
	}
	return n
}

// countNames counts the member names in the text, by the colons outside of strings: there is one behind each.
func countNames(data []byte) (n int) {
	inString := false
	for i := 0; i < len(data); i++ {
		switch {
		case inString && data[i] == '\\':
			i++
		case data[i] == '"':
			inString = !inString
		case !inString && data[i] == ':':
			n++
		}
	}
	return n
}

// FuzzLoginCookie gives the callback what a browser might hold: no cookie but a sealed one opens, and only under its own name, state and
// provider.
func FuzzLoginCookie(f *testing.F) {
	config := &Config{PublicURL: &url.URL{Scheme: "https", Host: "app.example.com"}, CookieKeys: []Secret{NewSecret(strings.Repeat("k", 32)), NewSecret(strings.Repeat("o", 32))}, Session: SessionConfig{Absolute: time.Hour}}
	cookies, err := NewCookies(config, func() time.Time { return fuzzTime })
	if err != nil {
		f.Fatal(err)
	}
	login := NewLoginState("op", "/orders", fuzzTime)
	name := cookies.loginName(login.State)
	value, err := cookies.seal(name, login)
	if err != nil {
		f.Fatal(err)
	}
	// As in FuzzCompact: N and V stand for the good name and value, T for the state.
	for _, seed := range [][3]string{
		{"N=V", "T", "op"},
		{"N=V; N=V", "T", "op"},
		{"N=V", "T", "other"},
		{"N=V", "", "op"},
		{"N=V", "TT", "op"},
		{"N=V", "x", "op"},
		{"N=", "T", "op"},
		{"N=AAAA", "T", "op"},
		{"N=VA", "T", "op"},
		{"N=V=", "T", "op"},
		{`N="V"`, "T", "op"},
		{"N=V ", "T", "op"},
		{" N=V", "T", "op"},
		{"n=V", "T", "op"},
		{"NN=V", "T", "op"},
		{"x=y; N=V; z", "T", "op"},
		{"N=V;N=x", "T", "op"},
		{"__Host-ls-x=V", "T", "op"},
		{"", "T", "op"},
		{"N=V, N=V", "T", "op"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, cookie, state, provider string) {
		replace := strings.NewReplacer("N", name, "V", value, "T", login.State)
		cookie, state = replace.Replace(cookie), replace.Replace(state)
		r := httptest.NewRequest(http.MethodGet, "/callback/op", nil)
		r.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		got, err := cookies.TakeLogin(w, r, provider, state)
		cleared := len(w.Result().Cookies())
		if err != nil {
			if got != (LoginState{}) || cleared != 0 {
				t.Errorf("refused with %v, and %d cookies cleared", got, cleared)
			}
			return
		}
		if got != login || state != login.State || provider != "op" || cleared != 1 || !strings.Contains(cookie, name) || !strings.Contains(cookie, value) {
			t.Errorf("%q with state %q at %q gives %v", cookie, state, provider, got)
		}
	})
}
