package bridge

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// FuzzLogoutRequest: whatever is posted to the back-channel logout address, there is one token in it that any parser of forms would find, or
// none.
func FuzzLogoutRequest(f *testing.F) {
	const form = "application/x-www-form-urlencoded"
	for _, seed := range [][2]string{
		{form, "logout_token=a.b.c"},
		{form + "; charset=UTF-8", "x=y&logout_token=a.b.c"},
		{form, "logout_token=a&logout_token=b"},
		{form, "logout_token=a&Logout_token=b"},
		{form, "logout%5ftoken=a&logout_token=b"},
		{form, "logout_token=a;logout_token=b"},
		{form, "logout_token=%zz"},
		{form, "logout_token"},
		{form, ""},
		{"", "logout_token=a"},
		{"application/json", `{"logout_token":"a"}`},
		{"multipart/form-data; boundary=x", "--x\r\n"},
		{form + ", " + form, "logout_token=a"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, kind, body string) {
		r := httptest.NewRequest(http.MethodPost, "/backchannel-logout/op?logout_token=query", strings.NewReader(body))
		r.Header = http.Header{"Content-Type": {kind}}
		token, err := logoutTokenIn(r)
		if err != nil {
			if token != "" {
				t.Errorf("refused with %q", token)
			}
			return
		}
		values, err := url.ParseQuery(body)
		if err != nil || len(values["logout_token"]) != 1 || values["logout_token"][0] != token || !strings.HasPrefix(strings.ToLower(strings.TrimSpace(kind)), form) {
			t.Errorf("%q of type %q gives %q", body, kind, token)
		}
	})
}

// FuzzLogoutReturn: nothing that comes back from a provider's logout leads anywhere but where the browser's own sealed cookie says, and that
// with its own state alone.
func FuzzLogoutReturn(f *testing.F) {
	cookies, err := NewCookies(fuzzConfig(), func() time.Time { return fuzzTime })
	if err != nil {
		f.Fatal(err)
	}
	w := httptest.NewRecorder()
	began := logoutState{State: randomText(), ReturnTo: "/orders", Started: fuzzTime.Unix()}
	if err := cookies.putLogout(w, began); err != nil {
		f.Fatal(err)
	}
	name, value := w.Result().Cookies()[0].Name, w.Result().Cookies()[0].Value
	login, err := cookies.seal(name, LoginState{State: began.State, ReturnTo: "//evil.example", Started: fuzzTime.Unix()})
	if err != nil {
		f.Fatal(err)
	}
	// As in FuzzLoginCookie; L stands for a login state sealed under our name.
	for _, seed := range [][2]string{
		{"N=V", "T"}, {"N=V", ""}, {"N=V", "t"}, {"N=V; N=V", "T"}, {"N=L", "T"}, {"N=V", "TT"}, {"N=", "T"}, {"N=VA", "T"}, {`N="V"`, "T"}, {"n=V", "T"}, {"NN=V", "T"}, {"x=y; N=V", "T"}, {"", "T"}, {"N=V, N=L", "T"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, cookie, state string) {
		replace := strings.NewReplacer("N", name, "V", value, "T", began.State, "L", login)
		cookie, state = replace.Replace(cookie), replace.Replace(state)
		r := httptest.NewRequest(http.MethodGet, "/logged-out", nil)
		r.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		back, ours := cookies.takeLogout(w, r, state)
		cleared := len(w.Result().Cookies())
		if !ours && (back != "/" || cleared != 0) || ours && (back != began.ReturnTo || state != began.State || cleared != 1 || !strings.Contains(cookie, value)) {
			t.Errorf("%q with state %q: %q, %t, %d cookies cleared", cookie, state, back, ours, cleared)
		}
	})
}
