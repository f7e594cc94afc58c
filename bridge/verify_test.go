package bridge

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A judge holds tokens of one provider to the three profiles of its verifier.
type judge struct {
	*connection
	op       *bridgetest.OP
	jwksURI  string
	expected expectation
}

func newJudge(t *testing.T) *judge {
	t.Helper()
	op := newOP(t, bridgetest.OPOptions{})
	c := connect(t, op.Issuer(), true, nil)
	return &judge{c, op, op.Issuer() + "/jwks", expectation{nonce: "n-1", accessToken: "opaque", started: time.Now()}}
}

// claims of a good token of each kind.
func (j *judge) claims(kind string) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{"iss": j.op.Issuer(), "sub": "carl", "aud": "bridge", "iat": now, "exp": now + 120}
	switch kind {
	case "ID":
		c["nonce"] = j.expected.nonce
	case "access":
		c["azp"], c["typ"], c["aud"] = "bridge", "Bearer", "account"
	case "logout":
		c["jti"], c["events"] = "jti-1", map[string]any{logoutEvent: map[string]any{}}
	}
	return c
}

// verify holds a token to a profile.
func (j *judge) verify(t *testing.T, kind string, header, claims map[string]any) error {
	t.Helper()
	token, err := j.op.Sign(header, claims)
	if err != nil {
		t.Fatal(err)
	}
	switch kind {
	case "ID":
		_, err = j.verifier.idToken(t.Context(), j.jwksURI, token, j.expected)
	case "access":
		_, err = j.verifier.accessToken(t.Context(), j.jwksURI, token, "carl", j.expected.started)
	case "logout":
		_, err = j.verifier.logoutToken(t.Context(), j.jwksURI, token)
	}
	return err
}

// TestProfilesExcludeEachOther: whatever a token is good for, it is good for one thing (RFC 8725 section 3.12), also when a provider puts more
// claims into it than it has to.
func TestProfilesExcludeEachOther(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	kinds := []string{"ID", "access", "logout"}
	all := map[string]any{}
	for _, kind := range kinds {
		maps.Copy(all, j.claims(kind))
	}
	all["aud"], all["azp"], all["client_id"], all["sid"], all["scope"] = "bridge", "bridge", "bridge", "s", "openid"
	for _, typ := range []any{nil, "JWT", "jwt", "at+jwt", "application/at+jwt", "logout+jwt", "application/logout+jwt"} {
		for _, claimType := range []any{nil, "ID", "Bearer", "Logout", "Refresh"} {
			for _, without := range append([]string{""}, "events", "nonce", "jti", "azp", "sub") {
				for _, without2 := range []string{"", "events", "nonce"} {
					claims := maps.Clone(all)
					delete(claims, without)
					delete(claims, without2)
					if claims["typ"] = claimType; claimType == nil {
						delete(claims, "typ")
					}
					var accepted []string
					for _, kind := range kinds {
						if j.verify(t, kind, map[string]any{"typ": typ}, claims) == nil {
							accepted = append(accepted, kind)
						}
					}
					if len(accepted) > 1 {
						t.Errorf("header typ %v, claims %v: accepted as %v", typ, claims, accepted)
					}
				}
			}
		}
	}
	for _, kind := range kinds {
		for _, as := range kinds {
			if err := j.verify(t, as, nil, j.claims(kind)); (err == nil) != (kind == as) {
				t.Errorf("a plain %s token as %s token: %v", kind, as, err)
			}
		}
	}
}

// TestLogoutToken holds the profile of logout tokens to Back-Channel Logout 1.0 sections 2.4 and 2.6.
func TestLogoutToken(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	now := time.Now().Unix()
	event := func(value any) map[string]any { return map[string]any{"events": value} }
	const absent = "\x00absent"
	for name, test := range map[string]struct {
		header map[string]any
		change map[string]any
		want   tokenFault
	}{
		"good":                     {},
		"good, no typ":             {header: map[string]any{"typ": nil}},
		"good, logout+jwt":         {header: map[string]any{"typ": "logout+jwt"}},
		"good, with prefix":        {header: map[string]any{"typ": "application/logout+jwt"}},
		"good, sid alone":          {change: map[string]any{"sub": absent, "sid": "s-1"}},
		"good, sub and sid":        {change: map[string]any{"sid": "s-1"}},
		"good, Keycloak's typ":     {change: map[string]any{"typ": "Logout"}},
		"good, more events":        {change: event(map[string]any{logoutEvent: map[string]any{}, "http://example.com/e": map[string]any{}})},
		"good, event with members": {change: event(map[string]any{logoutEvent: map[string]any{"x": 1}})},
		"good, ten minutes":        {change: map[string]any{"iat": now, "exp": now + 600}},
		"good, list of one":        {change: map[string]any{"aud": []string{"bridge"}}},

		"neither sub nor sid":     {change: map[string]any{"sub": absent}, want: faultSubject},
		"sub empty":               {change: map[string]any{"sub": ""}, want: faultSubject},
		"sub null beside a sid":   {change: map[string]any{"sub": nil, "sid": "s"}, want: faultSubject},
		"sid empty":               {change: map[string]any{"sid": ""}, want: faultSession},
		"sid number":              {change: map[string]any{"sub": absent, "sid": 1}, want: faultSession},
		"sid with NUL":            {change: map[string]any{"sid": "s\x00"}, want: faultSession},
		"nonce":                   {change: map[string]any{"nonce": "n"}, want: faultNonce},
		"nonce null":              {change: map[string]any{"nonce": nil}, want: faultNonce},
		"no events":               {change: event(absent), want: faultEvents},
		"events null":             {change: event(nil), want: faultEvents},
		"events empty":            {change: event(map[string]any{}), want: faultEvents},
		"events list":             {change: event([]string{logoutEvent}), want: faultEvents},
		"events text":             {change: event(logoutEvent), want: faultEvents},
		"another event":           {change: event(map[string]any{"http://example.com/e": map[string]any{}}), want: faultEvents},
		"https event":             {change: event(map[string]any{strings.Replace(logoutEvent, "http", "https", 1): map[string]any{}}), want: faultEvents},
		"event in another case":   {change: event(map[string]any{strings.ToUpper(logoutEvent): map[string]any{}}), want: faultEvents},
		"event is text":           {change: event(map[string]any{logoutEvent: "x"}), want: faultEvents},
		"event is null":           {change: event(map[string]any{logoutEvent: nil}), want: faultEvents},
		"event is true":           {change: event(map[string]any{logoutEvent: true}), want: faultEvents},
		"event is a list":         {change: event(map[string]any{logoutEvent: []any{}}), want: faultEvents},
		"no jti":                  {change: map[string]any{"jti": absent}, want: faultTokenID},
		"jti empty":               {change: map[string]any{"jti": ""}, want: faultTokenID},
		"jti number":              {change: map[string]any{"jti": 1}, want: faultTokenID},
		"jti of 256 bytes":        {change: map[string]any{"jti": strings.Repeat("j", 256)}, want: faultTokenID},
		"no iat":                  {change: map[string]any{"iat": absent}, want: faultIssued},
		"iat an hour ago":         {change: map[string]any{"iat": now - 3600}, want: faultIssued},
		"iat twelve minutes ago":  {change: map[string]any{"iat": now - 720, "exp": now - 30}, want: faultIssued},
		"iat ahead":               {change: map[string]any{"iat": now + 90, "exp": now + 120}, want: faultIssued},
		"no exp":                  {change: map[string]any{"exp": absent}, want: faultExpiry},
		"expired":                 {change: map[string]any{"iat": now - 200, "exp": now - 90}, want: faultExpiry},
		"eleven minutes":          {change: map[string]any{"iat": now, "exp": now + 660}, want: faultExpiry},
		"ten years":               {change: map[string]any{"exp": now + 10*365*86400}, want: faultExpiry},
		"another client":          {change: map[string]any{"aud": "other"}, want: faultLibrary},
		"ours and another":        {change: map[string]any{"aud": []string{"bridge", "other"}}, want: faultAudience},
		"another issuer":          {change: map[string]any{"iss": "https://evil.example"}, want: faultLibrary},
		"at+jwt":                  {header: map[string]any{"typ": "at+jwt"}, want: faultType},
		"secevent+jwt":            {header: map[string]any{"typ": "secevent+jwt"}, want: faultType},
		"Keycloak's ID token":     {change: map[string]any{"typ": "ID"}, want: faultType},
		"ES256, also advertised":  {header: map[string]any{"alg": "ES256", "kid": "ES256-1"}, want: faultAlgorithm},
		"a key that is not there": {header: map[string]any{"kid": "x"}, want: faultKey},
		"crit":                    {header: map[string]any{"crit": []string{"exp"}}, want: faultCritical},
	} {
		t.Run(name, func(t *testing.T) {
			claims := j.claims("logout")
			for name, value := range test.change {
				if claims[name] = value; value == absent {
					delete(claims, name)
				}
			}
			err := j.verify(t, "logout", test.header, claims)
			if test.want == "" && err != nil || test.want != "" && !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

// TestGoogleSpelling: Google writes its issuer in two ways, and no other provider may (OpenID Connect documentation of Google; go-oidc has
// the same exception).
func TestGoogleSpelling(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, test := range []struct {
		issuer, iss string
		good        bool
	}{
		{googleIssuer, "https://accounts.google.com", true},
		{googleIssuer, "accounts.google.com", true},
		{googleIssuer, "http://accounts.google.com", false},
		{googleIssuer, "https://accounts.google.com/", false},
		{googleIssuer, "ACCOUNTS.GOOGLE.COM", false},
		{googleIssuer, "accounts.google.com.evil.example", false},
		{googleIssuer, "", false},
		{"https://sso.example.com", "accounts.google.com", false},
		{"https://sso.example.com", "sso.example.com", false},
		{"accounts.google.com", "https://accounts.google.com", false},
	} {
		v := verifier{issuer: test.issuer, now: func() time.Time { return now }}
		claims, err := decodeObject(fmtClaims(test.iss, now))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.issuerAndTimes(claims, now.Add(-time.Minute), time.Hour); (err == nil) != test.good || err != nil && !errors.Is(err, faultIssuer) {
			t.Errorf("iss %q at %s: %v", test.iss, test.issuer, err)
		}
	}
}
