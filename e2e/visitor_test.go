package e2e

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// The short code of an error page.
var refusalCode = regexp.MustCompile(`[A-Z2-7]{4}-[A-Z2-7]{4}`)

// A visitor is a person at a browser. Each method fails the test when it cannot do what it says.
type visitor struct {
	*bridgetest.Browser
	t    *testing.T
	shop *shop
	page *bridgetest.Page // the current one
}

func (s *shop) visit(t *testing.T) *visitor {
	t.Helper()
	v := &visitor{Browser: bridgetest.NewBrowser(), t: t, shop: s}
	v.open(s.origin + "/")
	return v
}

// on is the visitor in a subtest.
func (v *visitor) on(t *testing.T) *visitor {
	moved := *v
	moved.t = t
	return &moved
}

func (v *visitor) open(address string) {
	v.t.Helper()
	v.arrive(v.Open(v.t.Context(), address))
}

func (v *visitor) submit(button string, values url.Values) {
	v.t.Helper()
	v.arrive(v.Submit(v.t.Context(), v.page, button, values))
}

func (v *visitor) arrive(page *bridgetest.Page, err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
	v.page = page
}

// login goes through the provider's pages, those that it shows.
func (v *visitor) login(connection, name string) {
	v.t.Helper()
	v.open(v.shop.public + "/login/" + connection + "?return_to=/")
	if v.page.Title() == "Sign in" {
		v.submit("Sign in", url.Values{"name": {name}, "password": {name + "-password"}})
	}
	if v.page.Title() == "Allow access" {
		v.submit("Allow", nil)
	}
}

func (v *visitor) wantAt(path string) {
	v.t.Helper()
	if got, want := v.page.URL.String(), v.shop.origin+path; got != want || v.page.Status != http.StatusOK {
		v.t.Fatalf("the login ended at %s (status %d), want %s: %s", got, v.page.Status, want, v.page.Text())
	}
}

func (v *visitor) wantRefusal(status int, why string) {
	v.t.Helper()
	if v.page.Status != status {
		v.t.Errorf("status %d, want %d because %s: %s", v.page.Status, status, why, v.page.Text())
	}
	if code := refusalCode.FindString(v.page.Text()); code == "" {
		v.t.Errorf("the page shows no code: %s", v.page.Text())
	}
	v.wantNoSession()
}

// fetch is a fetch of the page that the visitor is at, with credentials for its own origin.
func (v *visitor) fetch(address string, header http.Header) *bridgetest.Page {
	v.t.Helper()
	answer, err := v.Fetch(v.t.Context(), http.MethodGet, address, header, "")
	if err != nil {
		v.t.Fatal(err)
	}
	return answer
}

func (v *visitor) wantNoSession() {
	v.t.Helper()
	v.open(v.shop.origin + "/")
	answer := v.fetch(v.shop.public+"/api_token", nil)
	const want = `{"error":"only authenticated users can request the API token"}`
	if got := strings.TrimSpace(string(answer.Body)); answer.Status != http.StatusUnauthorized || got != want {
		v.t.Errorf("api_token: status %d and %s, want 401 and %s", answer.Status, got, want)
	}
}

// token is an access token's payload, with the token itself.
type token struct {
	text   string
	UserID string `json:"user_id"`
	Role   string
	SID    string
	Sub    string
	Iss    string
	Aud    string
	Email  string
	Exp    int64
}

// token fetches a token, as the guide's page does.
func (v *visitor) token() token {
	v.t.Helper()
	answer := v.fetch(v.shop.public+"/api_token", nil)
	var body struct{ Token string }
	if err := answer.JSON(&body); err != nil || answer.Status != http.StatusOK {
		v.t.Fatalf("api_token: status %d: %s", answer.Status, answer.Body)
	}
	parts := strings.Split(body.Token, ".")
	if len(parts) != 3 {
		v.t.Fatalf("not a JWT: %s", body.Token)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		v.t.Fatal(err)
	}
	token := token{text: body.Token}
	if err := json.Unmarshal(payload, &token); err != nil {
		v.t.Fatalf("%v: %s", err, payload)
	}
	return token
}

// wantRole holds the token and /me to the contract.
func (v *visitor) wantRole(role string) {
	v.t.Helper()
	token := v.token()
	if token.Role != role || token.UserID == "" || token.Sub != token.UserID || token.SID == "" || token.Iss != v.shop.public ||
		token.Aud != "postgrest" || token.Email == "" {
		v.t.Errorf("token for role %s: %+v", role, token)
	}
	if left := time.Until(time.Unix(token.Exp, 0)); left < 59*time.Minute || left > time.Hour {
		v.t.Errorf("the token lives for %s, want the configured hour", left)
	}
	var me struct {
		UserID string `json:"user_id"`
		Role   string
	}
	if answer := v.fetch(v.shop.public+"/me", nil); answer.JSON(&me) != nil || me.UserID != token.UserID || me.Role != role {
		v.t.Errorf("me: status %d: %s, want user_id %s and role %s", answer.Status, answer.Body, token.UserID, role)
	}
}

// orders asks the API for the orders, with a token or ("") without.
func (v *visitor) orders(api, token string) *bridgetest.Page {
	v.t.Helper()
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	return v.fetch(api+"/orders", header)
}

func (v *visitor) wantOrders(api string, want ...string) {
	v.t.Helper()
	answer := v.orders(api, v.token().text)
	var rows []struct{ Item string }
	if err := answer.JSON(&rows); err != nil || answer.Status != http.StatusOK {
		v.t.Errorf("orders: status %d: %s", answer.Status, answer.Body)
		return
	}
	var got []string
	for _, row := range rows {
		got = append(got, row.Item)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		v.t.Errorf("orders %q, want %q", got, want)
	}
}
