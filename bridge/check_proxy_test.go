package bridge_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestCheckProxy: check says whether PostgREST is there and shares the secret, and PostgREST sees no token that could open anything.
func TestCheckProxy(t *testing.T) {
	t.Parallel()
	db := bridgetest.DB(t)
	check := func(upstream, want string) {
		t.Helper()
		c, findings := bridge.LoadConfig("config.yaml", []byte(goodConfig+"proxy:\n  upstream: "+upstream+"\n"), noEnvironment)
		if c == nil {
			t.Fatal(findings)
		}
		got := fmt.Sprint(bridge.CheckProxy(t.Context(), c, time.Now))
		if want == "" && got != "[]" || !strings.Contains(got, want) || want != "" && !strings.Contains(got, "config.yaml:11:13") {
			t.Errorf("want %q in %s", want, got)
		}
	}
	for _, version := range []int{12, 13, 14, 16} {
		api := bridgetest.APIOptions{DatabaseURL: db.AuthenticatorURL, Version: version, JWTSecret: jwtSecret, AnonRole: db.Role("anonymous"), JWTAud: "postgrest"}
		check(bridgetest.NewAPI(t, api).URL(), "")
		api.JWTSecret = strings.Repeat("another one", 4)
		check(bridgetest.NewAPI(t, api).URL(), "PostgREST does not know the key of our tokens")
		api.JWTSecret = ""
		check(bridgetest.NewAPI(t, api).URL(), "PostgREST has no jwt-secret")
	}
	api := newAPIRecorder(t)
	check(api.URL, "takes a token that has ended")
	token := bearer(t, api.requests(t)[0].Header)
	if ended := fmt.Sprint(token["exp"]); token["role"] != nil || token["sid"] != nil || ended > fmt.Sprint(time.Now().Add(-50*time.Minute).Unix()) {
		t.Errorf("%v", token)
	}
	api.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) })
	check(api.URL, "status 404, and not an answer of PostgREST")
	api.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(503)
		_, _ = io.WriteString(w, `{"code":"PGRST002","message":"Could not query the database for the schema cache. Retrying."}`)
	})
	check(api.URL, "PostgREST answers 503 PGRST002")
	api.heard.Close()
	check("http://"+freePort(t), "PostgREST does not answer")
}

// freePort is an address where nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
}
