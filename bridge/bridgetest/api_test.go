package bridgetest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	secret      = "a-secret-for-tests-of-the-stand-in"
	otherSecret = "another-secret-of-sufficient-length"
)

// apiFixture has a view that tells whom the request runs as, and what SQL can see of it.
const apiFixture = `
CREATE VIEW public.whoami AS SELECT current_user::text AS "user", current_setting('request.jwt.claims', true)::json AS claims,
	current_setting('request.headers', true)::json ->> 'x-test' AS header, current_setting('request.cookies', true)::json ->> 'c' AS cookie,
	current_setting('request.method', true) AS method, current_setting('request.path', true) AS path;
GRANT SELECT ON public.whoami TO PUBLIC;
CREATE TABLE public.orders (id int PRIMARY KEY, item text NOT NULL, note text);
INSERT INTO public.orders VALUES (1, 'tea', 'hot'), (2, 'cake', NULL), (3, 'milk', 'cold');
GRANT SELECT, INSERT ON public.orders TO customer;
CREATE FUNCTION public.refuse() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE 'PT403' USING message = 'no', hint = 'ask'; END $$;
CREATE FUNCTION public.refuse401() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE 'PT401' USING message = 'no'; END $$;
CREATE FUNCTION public.teapot() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
	RAISE SQLSTATE 'PGRST' USING message = '{"code":"T","message":"short and stout"}', detail = '{"status":418,"headers":{"X-Pot":"tea"}}'; END $$;
CREATE FUNCTION public.write_something() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$ INSERT INTO public.orders VALUES (9, 'x') $$;`

func sign(t *testing.T, key any, header, claims map[string]any) string {
	t.Helper()
	token, err := SignJWT(key, header, claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func serve(a *API, method, path string, header http.Header, body string) *http.Response {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if header != nil {
		r.Header = header
	}
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, r)
	return w.Result()
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// answer is what the table of postgrest.md speaks of: the status, and the user whom the query ran as or else the error's code.
func answer(t *testing.T, resp *http.Response) string {
	t.Helper()
	if resp.StatusCode == http.StatusOK {
		var rows []struct{ User string }
		if err := json.NewDecoder(resp.Body).Decode(&rows); err != nil || len(rows) != 1 {
			t.Fatal(rows, err)
		}
		return "200 " + rows[0].User
	}
	var e struct{ Code string }
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		t.Fatal(err)
	}
	challenge := resp.Header.Get("WWW-Authenticate")
	invalid := strings.HasPrefix(challenge, `Bearer error="invalid_token", error_description="`)
	if invalid != (e.Code == "PGRST301" || e.Code == "PGRST303") {
		t.Errorf("%s with WWW-Authenticate: %s", e.Code, challenge)
	}
	if (resp.StatusCode == http.StatusUnauthorized) != (challenge != "") {
		t.Errorf("status %d with WWW-Authenticate: %s", resp.StatusCode, challenge)
	}
	return fmt.Sprint(resp.StatusCode, " ", e.Code)
}

// TestPostgRESTTable holds every row of the table in postgrest.md that was run on real servers, and a few from the list above it.
func TestPostgRESTTable(t *testing.T) {
	d := EmptyDB(t)
	if err := d.Exec(t.Context(), apiFixture); err != nil {
		t.Fatal(err)
	}
	keys, err := newOPKeys(1)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	at := func(seconds int64) int64 { return now.Unix() + seconds }
	b64 := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	oct := func(kid, k string) string { return fmt.Sprintf(`{"kty":"oct","kid":%q,"k":%q}`, kid, b64(k)) }
	jwks := `{"keys":[` + oct("a", secret) + "," + oct("b", otherSecret) + "]}"
	publicKeys := jsonOf(t, map[string]any{"keys": keys.public()})
	kid := func(id string) map[string]any { return map[string]any{"kid": id} }

	odd := []byte(strings.Repeat("\xfb\xff", 18)) // its base64 has both characters that the alphabets differ in
	asText := base64.StdEncoding.EncodeToString([]byte(secret))
	withSecret := func(s string) func(*APIOptions) { return func(o *APIOptions) { o.JWTSecret = s } }
	withBase64 := func(s string) func(*APIOptions) {
		return func(o *APIOptions) { o.JWTSecret, o.JWTSecretIsBase64 = s, true }
	}
	withoutAudience := func(o *APIOptions) { o.JWTAud = "" }
	withPreRequest := func(s string) func(*APIOptions) { return func(o *APIOptions) { o.PreRequest = s } }

	anonymous, customer, authenticator := "200 "+d.Role("anonymous"), "200 "+d.Role("customer"), "200 "+d.Role("authenticator")
	tests := []struct {
		name     string
		key      any            // default secret
		header   map[string]any // added to alg HS256
		claims   map[string]any // added to role, exp and aud; nil removes one
		send     string         // the Authorization header in place of the token's
		options  func(*APIOptions)
		v12, v13 string
	}{
		{name: "valid", v12: customer, v13: customer},
		{name: "no token", send: "-", v12: anonymous, v13: anonymous},
		{name: "another scheme", send: "Basic eDp5", v12: anonymous, v13: anonymous},
		{name: "no role", claims: map[string]any{"role": nil}, v12: anonymous, v13: anonymous},
		{name: "role none", claims: map[string]any{"role": "none"}, v12: authenticator, v13: authenticator},
		{name: "role authenticator", claims: map[string]any{"role": d.Role("authenticator")}, v12: authenticator, v13: authenticator},
		{name: "role not granted", claims: map[string]any{"role": d.Role("bridge_owner")}, v12: "403 42501", v13: "403 42501"},
		{name: "role does not exist", claims: map[string]any{"role": "nobody-knows"}, v12: "400 22023", v13: "401 22023"},
		{name: "role in another case", claims: map[string]any{"role": strings.ToUpper(d.Role("customer"))}, v12: "400 22023", v13: "401 22023"},
		{name: "role is no string", claims: map[string]any{"role": []string{d.Role("customer")}}, v12: "400 22023", v13: "401 22023"},

		{name: "kid with a text secret", header: kid("a"), v12: customer, v13: "401 PGRST301"},
		{name: "JWKS, right kid", header: kid("a"), options: withSecret(jwks), v12: customer, v13: customer},
		{name: "JWKS, right kid of the second key", key: []byte(otherSecret), header: kid("b"), options: withSecret(jwks), v12: customer, v13: customer},
		{name: "JWKS, no kid", key: []byte(otherSecret), options: withSecret(jwks), v12: customer, v13: customer},
		{name: "JWKS, the other's kid", header: kid("b"), options: withSecret(jwks), v12: customer, v13: "401 PGRST301"},
		{name: "JWKS, unknown kid", header: kid("c"), options: withSecret(jwks), v12: customer, v13: "401 PGRST301"},
		{name: "JWK, no kid", options: withSecret(oct("a", secret)), v12: customer, v13: customer},
		{name: "JWK, another kid", header: kid("b"), options: withSecret(oct("a", secret)), v12: customer, v13: "401 PGRST301"},
		{name: "broken JWKS becomes a password", key: []byte(jwks + "}"), options: withSecret(jwks + "}"), v12: customer, v13: customer},
		{name: "base64 secret", options: func(o *APIOptions) {
			o.JWTSecret, o.JWTSecretIsBase64 = base64.StdEncoding.EncodeToString([]byte(secret)), true
		}, v12: customer, v13: customer},
		{name: "URL-safe base64 secret", key: odd, options: withBase64(base64.URLEncoding.EncodeToString(odd)), v12: customer, v13: customer},
		{name: "base64 secret taken as text", key: []byte(asText), options: withSecret(asText), v12: customer, v13: customer},

		{name: "RS256", key: keys.rsa, header: map[string]any{"alg": "RS256"}, options: withSecret(publicKeys), v12: customer, v13: customer},
		{name: "ES256", key: keys.ecdsa, header: map[string]any{"alg": "ES256"}, options: withSecret(publicKeys), v12: customer, v13: customer},
		{name: "EdDSA", key: keys.ed25519, header: map[string]any{"alg": "EdDSA"}, options: withSecret(publicKeys), v12: customer, v13: customer},
		{name: "PS256", key: keys.rsa, header: map[string]any{"alg": "PS256"}, options: withSecret(publicKeys), v12: customer, v13: "401 PGRST301"},

		{name: "expired 10 s ago", claims: map[string]any{"exp": at(-10)}, v12: customer, v13: customer},
		{name: "expired 120 s ago", claims: map[string]any{"exp": at(-120)}, v12: "401 PGRST301", v13: "401 PGRST303"},
		{name: "no exp", claims: map[string]any{"exp": nil}, v12: customer, v13: customer},
		{name: "fractional exp", claims: map[string]any{"exp": float64(at(100)) + 0.5}, v12: "401 PGRST301", v13: "401 PGRST303"},
		{name: "exp as a string", claims: map[string]any{"exp": fmt.Sprint(at(100))}, v12: "401 PGRST301", v13: "401 PGRST303"},
		{name: "nbf 10 s ahead", claims: map[string]any{"nbf": at(10)}, v12: customer, v13: customer},
		{name: "nbf 120 s ahead", claims: map[string]any{"nbf": at(120)}, v12: "401 PGRST301", v13: "401 PGRST303"},
		{name: "iat 120 s ahead", claims: map[string]any{"iat": at(120)}, v12: "401 PGRST301", v13: "401 PGRST303"},

		{name: "no aud", claims: map[string]any{"aud": nil}, v12: customer, v13: customer},
		{name: "aud another", claims: map[string]any{"aud": "x"}, v12: "401 PGRST301", v13: "401 PGRST303"},
		{name: "aud, none configured", claims: map[string]any{"aud": "x"}, options: withoutAudience, v12: customer, v13: customer},
		{name: "aud array with ours", claims: map[string]any{"aud": []string{"x", "postgrest"}}, v12: customer, v13: customer},
		{name: "aud []", claims: map[string]any{"aud": []string{}}, v12: "401 PGRST301", v13: customer},
		{name: "aud a number", claims: map[string]any{"aud": 1}, v12: "401 PGRST301", v13: "401 PGRST303"},

		{name: "wrong key", key: []byte(otherSecret), v12: "401 PGRST301", v13: "401 PGRST301"},
		{name: "alg none", header: map[string]any{"alg": "none"}, v12: "401 PGRST301", v13: "401 PGRST301"},
		{name: "HS512 against a text secret", header: map[string]any{"alg": "HS512"}, v12: "401 PGRST301", v13: "401 PGRST301"},
		{name: "two parts", send: "Bearer a.b", v12: "401 PGRST301", v13: "401 PGRST301"},
		{name: "unknown crit", header: map[string]any{"crit": []string{"x"}, "x": 1}, v12: "401 PGRST301", v13: customer},
		{name: "empty Bearer", send: "Bearer ", v12: anonymous, v13: "401 PGRST301"},
		{name: "Bearer in lower case", send: "bearer x.y.z", v12: "401 PGRST301", v13: "401 PGRST301"},

		{name: "no db-anon-role, no token", send: "-", options: func(o *APIOptions) { o.AnonRole = "" }, v12: "401 PGRST302", v13: "401 PGRST302"},
		{name: "no jwt-secret, a token", options: withSecret(""), v12: "500 PGRST300", v13: "500 PGRST300"},
		{name: "pre-request raises PT403", options: withPreRequest("public.refuse"), v12: "403 PT403", v13: "403 PT403"},
		{name: "pre-request raises PT401", options: withPreRequest("public.refuse401"), v12: "401 PT401", v13: "401 PT401"},
		{name: "pre-request raises PGRST", options: withPreRequest("public.teapot"), v12: "418 T", v13: "418 T"},
		{name: "pre-request writes in a GET", options: withPreRequest("public.write_something"), v12: "405 25006", v13: "405 25006"},
		{
			name:    "role claim key",
			claims:  map[string]any{"role": nil, "realm": map[string]any{"r s": []string{"x", d.Role("customer")}}},
			options: func(o *APIOptions) { o.RoleClaimKey = `.realm."r s"[1]` }, v12: customer, v13: customer,
		},
	}
	start := func(t *testing.T, version int, change func(*APIOptions)) *API {
		o := APIOptions{
			DatabaseURL: d.AuthenticatorURL, Version: version, AnonRole: d.Role("anonymous"), JWTSecret: secret, JWTAud: "postgrest",
			Now: func() time.Time { return now },
		}
		if change != nil {
			change(&o)
		}
		return NewAPI(t, o)
	}
	versions := []int{12, 13, 14, 16}
	usual := map[int]*API{} // for the rows without options of their own
	for _, version := range versions {
		usual[version] = start(t, version, nil)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			header := map[string]any{"alg": "HS256"}
			maps.Copy(header, tt.header)
			claims := map[string]any{"role": d.Role("customer"), "exp": at(100), "aud": "postgrest"}
			maps.Copy(claims, tt.claims)
			maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
			if tt.key == nil {
				tt.key = []byte(secret)
			}
			request := bearer(sign(t, tt.key, header, claims))
			if tt.send == "-" {
				request = http.Header{}
			} else if tt.send != "" {
				request.Set("Authorization", tt.send)
			}
			for _, version := range versions {
				a, want := usual[version], tt.v13
				if version == 12 {
					want = tt.v12
				}
				if tt.options != nil {
					a = start(t, version, tt.options)
				}
				if got := answer(t, serve(a, "GET", "/whoami", request, "")); got != want {
					t.Errorf("version %d: got %s, want %s", version, got, want)
				}
			}
		})
	}
}

func TestAPIRefusesToStart(t *testing.T) {
	d := EmptyDB(t)
	for name, o := range map[string]APIOptions{
		"short secret":     {JWTSecret: "short"},
		"bad base64":       {JWTSecret: "!", JWTSecretIsBase64: true},
		"bad role key":     {JWTSecret: secret, RoleClaimKey: "role"},
		"bad database URL": {DatabaseURL: "postgres://nobody@127.0.0.1:1/none"},
	} {
		setDefault(&o.DatabaseURL, d.AuthenticatorURL)
		if a, err := StartAPI(t.Context(), o); err == nil {
			t.Errorf("%s: started", name)
			a.Close()
		}
	}
	a := NewAPI(t, APIOptions{DatabaseURL: d.AuthenticatorURL, Version: 12, JWTSecret: "short"})
	if a.URL() == "" {
		t.Error("version 12 takes short secrets")
	}
}

func TestInDatabaseConfiguration(t *testing.T) {
	d := EmptyDB(t)
	if err := d.Exec(t.Context(), apiFixture); err != nil {
		t.Fatal(err)
	}
	for _, version := range []int{12, 13, 14, 16} {
		a := NewAPI(t, APIOptions{DatabaseURL: d.AuthenticatorURL, Version: version, JWTSecret: secret})
		token := func(key string) string {
			return sign(t, []byte(key), map[string]any{"alg": "HS256"}, map[string]any{"role": d.Role("customer")})
		}
		status := func(key string) int { return serve(a, "GET", "/whoami", bearer(token(key)), "").StatusCode }
		set := func(value string) {
			t.Helper()
			const alter = "ALTER ROLE authenticator IN DATABASE %s SET pgrst.jwt_secret = '%s'; NOTIFY pgrst, 'reload config'"
			if err := d.Exec(t.Context(), fmt.Sprintf(alter, d.Name, value)); err != nil {
				t.Fatal(err)
			}
		}
		if status(secret) != 200 || status(otherSecret) != 401 {
			t.Error("before")
		}
		set(otherSecret)
		Await(t, "the new secret", func() bool { return status(otherSecret) == 200 })
		if status(secret) != 401 {
			t.Error("the old secret still works")
		}
		if err := d.Exec(t.Context(), fmt.Sprintf("ALTER ROLE authenticator IN DATABASE %s RESET ALL", d.Name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPIQueries(t *testing.T) {
	d := EmptyDB(t)
	if err := d.Exec(t.Context(), apiFixture); err != nil {
		t.Fatal(err)
	}
	a := NewAPI(t, APIOptions{DatabaseURL: d.AuthenticatorURL, AnonRole: d.Role("anonymous"), JWTSecret: secret})
	as := bearer(sign(t, []byte(secret), map[string]any{"alg": "HS256"}, map[string]any{"role": d.Role("customer")}))
	with := func(name, value string) http.Header {
		header := as.Clone()
		header.Set(name, value)
		return header
	}
	tests := []struct {
		name, method, path, body string
		header                   http.Header
		status                   int
		want                     string // the body; of errors its code
	}{
		{
			"all", "GET", "/orders?order=id", "", as, 200,
			`[{"id":1,"item":"tea","note":"hot"}, {"id":2,"item":"cake","note":null}, {"id":3,"item":"milk","note":"cold"}]`,
		},
		{"columns, order, limit", "GET", "/orders?select=id,item&order=id.desc&limit=1&offset=1", "", as, 200, `[{"id":2,"item":"cake"}]`},
		{"filters", "GET", "/orders?select=id&id=eq.2&note=is.null", "", as, 200, `[{"id":2}]`},
		{"injection", "GET", "/orders?item=eq.'%20OR%20true--", "", as, 200, `[]`},
		{"bad value", "GET", "/orders?id=eq.x", "", as, 400, "22P02"},
		{"unknown filter", "GET", "/orders?id=like.1", "", as, 400, "PGRST100"},
		{"unknown column", "GET", `/orders?select=id"x`, "", as, 400, "42703"},
		{"unknown relation", "GET", "/nothing", "", as, 404, "PGRST205"},
		{"deeper path", "GET", "/orders/1", "", as, 404, "PGRST125"},
		{"root", "GET", "/", "", as, 404, "PGRST125"},
		{"anonymous without the right", "GET", "/orders", "", nil, 401, "42501"},
		{"insert", "POST", "/orders", `{"id":4,"item":"bun"}`, as, 201, ""},
		{"insert and return", "POST", "/orders", `{"id":5,"item":"jam"}`, with("Prefer", "return=representation"), 201, `[{"id":5,"item":"jam","note":null}]`},
		{"insert a form", "POST", "/orders", `id=6&item=a+b`, with("Content-Type", "application/x-www-form-urlencoded"), 201, ""},
		{"insert twice", "POST", "/orders", `{"id":4,"item":"bun"}`, as, 409, "23505"},
		{"insert nothing", "POST", "/orders", `[]`, as, 400, "PGRST100"},
		{"delete", "DELETE", "/orders", "", as, 405, "PGRST117"},
		{"after the form", "GET", "/orders?id=eq.6&select=item", "", as, 200, `[{"item":"a b"}]`},
	}
	for _, tt := range tests {
		resp := serve(a, tt.method, tt.path, tt.header, tt.body)
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(string(body), " \n", "")
		if resp.StatusCode >= 400 {
			var e struct{ Code string }
			if err := json.Unmarshal([]byte(got), &e); err != nil {
				t.Fatal(err)
			}
			got = e.Code
		}
		if resp.StatusCode != tt.status || got != tt.want {
			t.Errorf("%s: got %d %s, want %d %s", tt.name, resp.StatusCode, got, tt.status, tt.want)
		}
		if resp.Header.Get("Server") != ServerName {
			t.Errorf("%s: Server %q", tt.name, resp.Header.Get("Server"))
		}
	}
}

func TestWhatSQLSeesOfARequest(t *testing.T) {
	d := EmptyDB(t)
	if err := d.Exec(t.Context(), apiFixture); err != nil {
		t.Fatal(err)
	}
	a := NewAPI(t, APIOptions{DatabaseURL: d.AuthenticatorURL, AnonRole: d.Role("anonymous"), JWTSecret: secret, RoleClaimKey: ".r"})
	const big = json.Number("9007199254740993") // more than a float64 holds
	token := sign(t, []byte(secret), map[string]any{"alg": "HS256"}, map[string]any{"r": d.Role("customer"), "role": "admin", "big": big})
	header := http.Header{"Authorization": {"Bearer " + token}, "X-Test": {"a", "b"}, "Cookie": {"c=v; d=w"}}
	var rows []map[string]any
	resp := serve(a, "GET", "/whoami", header, "")
	decoder := json.NewDecoder(resp.Body)
	decoder.UseNumber()
	if err := decoder.Decode(&rows); err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	want := map[string]any{
		"user": d.Role("customer"), "header": "a, b", "cookie": "v", "method": "GET", "path": "/whoami",
		"claims": map[string]any{"r": d.Role("customer"), "role": d.Role("customer"), "big": big},
	}
	if diff := cmp.Diff(want, rows[0]); diff != "" {
		t.Error(diff)
	}
	resp = serve(a, "HEAD", "/whoami", nil, "")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Range") != "0-0/*" {
		t.Errorf("HEAD: %d, Content-Range %q", resp.StatusCode, resp.Header.Get("Content-Range"))
	}
}

func TestAPICORS(t *testing.T) {
	d := EmptyDB(t)
	if err := d.Exec(t.Context(), apiFixture); err != nil {
		t.Fatal(err)
	}
	app := site(t, "localhost", echo)
	b := NewBrowser()
	must(t)(b.Open(t.Context(), app))
	token := bearer(sign(t, []byte(secret), map[string]any{"alg": "HS256"}, map[string]any{"role": d.Role("customer")}))
	for name, tt := range map[string]struct {
		origins []string
		allowed bool
	}{"default": {nil, true}, "listed": {[]string{app}, true}, "not listed": {[]string{"https://x.example"}, false}} {
		a := NewAPI(t, APIOptions{DatabaseURL: d.AuthenticatorURL, JWTSecret: secret, CORSOrigins: tt.origins})
		page, err := b.Fetch(t.Context(), "GET", a.URL()+"/whoami", token, "")
		if (err == nil) != tt.allowed {
			t.Errorf("%s: %v", name, err)
		}
		if tt.allowed && page.Status != 200 {
			t.Errorf("%s: %d %s", name, page.Status, page.Body)
		}
	}
}
