package bridge_test

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

func TestLoginGivesATokenForPostgREST(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, page := s.login("ada", "/orders")
	if page.URL.Path != "/orders" {
		t.Fatalf("ended at %s: %s", page.URL, page.Text())
	}
	callback := page.History[len(page.History)-1]
	if callback.Status != http.StatusSeeOther || callback.Header.Get("Cache-Control") != "no-store" || callback.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("callback answered %d %v", callback.Status, callback.Header)
	}

	answer, body := s.token(b)
	if answer.Status != http.StatusOK {
		t.Fatalf("%d %s", answer.Status, answer.Body)
	}
	got := claims(t, body["token"])
	now := time.Now().Unix()
	number := func(name string) int64 {
		n, err := strconv.ParseInt(string(got[name].(interface{ String() string }).String()), 10, 64)
		if err != nil {
			t.Errorf("%s is not an integer: %v", name, got[name])
		}
		return n
	}
	if iat := number("iat"); iat > now-4 || iat < now-30 {
		t.Errorf("iat is %d s from now", iat-now)
	}
	if exp := number("exp"); exp < now+590-30 || exp > now+600 {
		t.Errorf("exp is %d s from now, the role's max_ttl is 10m", exp-now)
	}
	for name, pattern := range map[string]string{
		"role": "^admin", "user_id": `^\d+$`, "sub": `^\d+$`, "iss": "^" + regexp.QuoteMeta(s.URL) + "$", "aud": "^postgrest$",
		"sid": `^[0-9a-f-]{36}$`, "jti": "^[A-Z2-7]{26}$", "email": "^ada@example.com$",
	} {
		if text, ok := got[name].(string); !ok || !regexp.MustCompile(pattern).MatchString(text) {
			t.Errorf("%s is %v, want %s", name, got[name], pattern)
		}
	}
	if got["sub"] != got["user_id"] || len(got) != 10 {
		t.Errorf("claims: %v", got)
	}

	left, _ := strconv.Atoi(strings.TrimPrefix(answer.Header.Get("Cache-Control"), "private, max-age="))
	if left < 500 || left > 570 {
		t.Errorf("Cache-Control: %s", answer.Header.Get("Cache-Control"))
	}
	if vary := answer.Header.Get("Vary"); vary != "Cookie, Origin" {
		t.Errorf("Vary: %s", vary)
	}
	if answer.Header.Get("Set-Cookie") != "" {
		t.Error("the token's answer sets a cookie")
	}
	if in := body["expires_in"].(float64); in < 560 || in > 600 {
		t.Errorf("expires_in: %v", in)
	}

	me, err := b.Fetch(t.Context(), http.MethodGet, s.URL+"/me", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	var who map[string]any
	if err := me.JSON(&who); err != nil {
		t.Fatal(err)
	}
	if who["user_id"] != got["user_id"] || who["role"] != got["role"] || who["provider"] != "op" || me.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("/me: %s %v", me.Body, me.Header)
	}
	for _, member := range []string{"session_expires_at", "session_idle_expires_at", "token_expires_at"} {
		if at, err := time.Parse(time.RFC3339, who[member].(string)); err != nil || at.Before(time.Now()) {
			t.Errorf("%s: %v", member, who[member])
		}
	}
}

func TestVisitorGetsNoToken(t *testing.T) {
	t.Parallel()
	s := newService(t)
	response, err := http.Get(s.URL + "/api_token")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != 401 || response.Header.Get("Cache-Control") != "no-store" ||
		strings.TrimSpace(string(body)) != `{"error":"only authenticated users can request the API token"}` {
		t.Errorf("%d %v %s", response.StatusCode, response.Header, body)
	}
}

func TestRefusedLogins(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for subject, text := range map[string]string{
		"leo": "Your account is closed.",
		"una": "this service gives your account no role",
	} {
		t.Run(subject, func(t *testing.T) {
			b, page := s.login(subject, "/orders")
			if page.Status != 403 || !strings.Contains(page.Text(), text) {
				t.Errorf("%d %s", page.Status, page.Text())
			}
			ref := regexp.MustCompile(`[A-Z2-7]{4}-[A-Z2-7]{4}`).FindString(page.Text())
			kind := row[string](t, s.DB, "SELECT kind FROM bridge.events WHERE ref = $1", ref)
			if kind != "refused" {
				t.Errorf("event of %q is %q", ref, kind)
			}
			if answer, _ := s.token(b); answer.Status != 401 {
				t.Errorf("a refused person got %d", answer.Status)
			}
		})
	}
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.users"); n != 0 {
		t.Errorf("%d users rows of refused people", n)
	}
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions"); n != 0 {
		t.Errorf("%d sessions of refused people", n)
	}
}

func TestSecondLoginIsTheSameUser(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("carl", "/")
	_, first := s.token(b)
	other, _ := s.login("carl", "/")
	_, second := s.token(other)
	one, two := claims(t, first["token"]), claims(t, second["token"])
	if one["user_id"] != two["user_id"] || one["sid"] == two["sid"] {
		t.Errorf("%v\n%v", one, two)
	}
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.users"); n != 1 {
		t.Errorf("%d users rows", n)
	}
}

func TestUsersRowIsWritten(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.login("carl", "/")
	s.OP.Set(func(b *bridgetest.Behaviour) {
		b.IDTokenClaims = func(claims map[string]any) { claims["email"], claims["name"] = "carl@new.example.com", "Carlo" }
	})
	got := func() string {
		return row[string](t, s.DB, "SELECT concat_ws('|', email, name, coalesce(role, 'null')) FROM bridge.users")
	}
	if diff := cmp.Diff("carl@example.com|Carl|null", got()); diff != "" {
		t.Error(diff)
	}
	s.OP.Set(func(b *bridgetest.Behaviour) {
		b.IDTokenClaims = func(claims map[string]any) { claims["email"], claims["name"] = "carl2@example.com", "Carlo" }
	})
	s.login("carl", "/")
	// name is `on: create`
	if diff := cmp.Diff("carl2@example.com|Carl|null", got()); diff != "" {
		t.Error(diff)
	}
	s.OP.Set(func(b *bridgetest.Behaviour) {
		b.IDTokenClaims = func(claims map[string]any) { delete(claims, "email"); claims["groups"] = []any{"/admins"} }
	})
	s.login("carl", "/") // a login without an address says nothing about it
	if diff := cmp.Diff("carl2@example.com|Carl|null", got()); diff != "" {
		t.Error(diff)
	}
}
