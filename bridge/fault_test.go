package bridge_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestFault_F10_ProviderDownAtStart: the bridge starts, says so on the login's page, and heals by itself.
func TestFault_F10_ProviderDownAtStart(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.OP.Close()
	b := bridgetest.NewBrowser()
	page, err := b.Open(t.Context(), s.URL+"/login")
	if err != nil {
		t.Fatal(err)
	}
	if page.Status != 503 || page.Header.Get("Retry-After") == "" || !strings.Contains(page.Text(), "The login provider does not answer") {
		t.Errorf("%d %s", page.Status, page.Text())
	}
	if len(page.Header.Values("Set-Cookie")) > 0 {
		t.Errorf("a login that did not start left a cookie")
	}
	if status, body := get(t, s.Private+"/readyz"); status != 200 {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if err := s.OP.Restart(); err != nil {
		t.Fatal(err)
	}
	s.advance(3 * time.Second) // past the rest between two attempts
	if _, page := s.login("carl", "/orders"); page.URL.Path != "/orders" {
		t.Errorf("%s", page.Text())
	}
}

// TestFault_F11_ProviderDownAfterStart: sessions do not notice.
func TestFault_F11_ProviderDownAfterStart(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("carl", "/")
	waiting := bridgetest.NewBrowser()
	page, _ := s.start(waiting)
	callback := s.callback(waiting, page, "ada")
	s.OP.Close()
	if page, _ := s.token(b); page.Status != 200 {
		t.Errorf("a token of a live session: %d", page.Status)
	}
	page, err := waiting.Open(t.Context(), callback)
	if err != nil || page.Status != 503 || !strings.Contains(page.Text(), "The login provider does not answer") {
		t.Errorf("%d %s %v", page.Status, page.Text(), err)
	}
	if n := row[int](t, s.DB, "SELECT count(*)::int FROM bridge.sessions"); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// callback presses the persona's button and returns the callback URL without going there.
func (s *service) callback(b *bridgetest.Browser, page *bridgetest.Page, subject string) string {
	s.t.Helper()
	form := page.Forms()[0]
	values := form.Fields
	for _, f := range page.Forms() {
		for _, button := range f.Buttons {
			if button.Value == subject {
				values = f.Fields
				values.Set(button.Name, button.Value)
				form = f
			}
		}
	}
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, form.Action.String(), strings.NewReader(values.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range b.Cookies(form.Action.String()) {
		request.AddCookie(c)
	}
	response := do(s.t, request)
	location := response.Header.Get("Location")
	if !strings.HasPrefix(location, s.URL+"/callback/op?") {
		s.t.Fatalf("%d to %q", response.StatusCode, location)
	}
	return location
}

// TestFault_F01_DatabaseStopped: every answer that needs the database is a refusal, and it heals without a restart.
func TestFault_F01_DatabaseStopped(t *testing.T) {
	t.Parallel()
	var proxy *bridgetest.CountingProxy
	s := newService(t, withDatabaseURL(func(db *bridgetest.Database) string {
		proxy = bridgetest.NewCountingProxy(t, db.URL)
		return proxy.URL()
	}))
	b, _ := s.login("carl", "/")
	waiting := bridgetest.NewBrowser()
	page, _ := s.start(waiting)
	callback := s.callback(waiting, page, "ada")
	proxy.Cut()

	if page, body := s.token(b); page.Status != 503 || body["token"] != nil || page.Header.Get("Retry-After") == "" || page.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("/api_token: %d %s", page.Status, page.Body)
	}
	page, err := waiting.Open(t.Context(), callback)
	if err != nil || page.Status != 503 || len(page.Header.Values("Set-Cookie")) != 1 {
		t.Errorf("callback: %d %v %v", page.Status, page.Header, err) // the one cookie is the login state's, cleared
	}
	if status, _ := get(t, s.Private+"/healthz"); status != 200 {
		t.Errorf("/healthz: %d", status)
	}
	if status, _ := get(t, s.Private+"/readyz"); status != 503 {
		t.Errorf("/readyz: %d", status)
	}
	proxy.Mend()
	bridgetest.Await(t, "tokens after the database is back", func() bool {
		page, _ := s.token(b)
		return page.Status == 200
	})
	if status, _ := get(t, s.Private+"/readyz"); status != 200 {
		t.Errorf("/readyz: %d", status)
	}
}

func fetchStatus(t *testing.T, url string, cookie *http.Cookie) int {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Error(err)
		return 0
	}
	request.AddCookie(cookie)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Error(err)
	}
	return response.StatusCode
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, bodyOf(t, response)
}

// bodyOf returns the body and closes it.
func bodyOf(t *testing.T, response *http.Response) string {
	t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
