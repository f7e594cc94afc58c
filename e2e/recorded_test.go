package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A recording is what a real provider sends for one person: the payloads, without signatures. Package mapping runs rules over those in
// mapping/testdata/recorded.
type recording struct {
	IDToken     map[string]any `json:"id_token"`
	AccessToken map[string]any `json:"access_token,omitempty"` // of one that is a JWT
	UserInfo    map[string]any `json:"userinfo"`
}

// A client is one of the bridge's at a provider.
type client struct{ connection, id, secret string }

// wantRecorded logs a person in as a client of the bridge, without the bridge, and holds what comes against the recording: the same claims
// of the same types. With E2E_RECORD set it writes the recording.
func (s *shop) wantRecorded(t *testing.T, name, issuer string, c client, person string) {
	t.Helper()
	got := s.record(t, issuer, c, person)
	file := filepath.Join("..", "mapping", "testdata", "recorded", name+".json")
	if os.Getenv("E2E_RECORD") != "" {
		text, err := json.MarshalIndent(got, "", "  ")
		if err == nil {
			err = os.WriteFile(file, append(text, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want recording
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	if got, want := got.shape(), want.shape(); !slices.Equal(got, want) {
		t.Errorf("%s sends\n%s\nrecorded was\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// record is the authorization code flow as the specification has it, down to a callback that the bridge refuses: it knows nothing of this login.
func (s *shop) record(t *testing.T, issuer string, c client, person string) (r recording) {
	t.Helper()
	var endpoints struct {
		Authorization string `json:"authorization_endpoint"`
		Token         string `json:"token_endpoint"`
		UserInfo      string `json:"userinfo_endpoint"`
	}
	ask(t, newRequest(t, http.MethodGet, issuer+"/.well-known/openid-configuration", nil), &endpoints)
	callback, verifier := s.public+"/callback/"+c.connection, "the-verifier-of-a-recording-which-may-be-known-to-all"
	challenge := sha256.Sum256([]byte(verifier))
	v := s.visit(t)
	v.open(endpoints.Authorization + "?" + url.Values{
		"response_type": {"code"}, "client_id": {c.id}, "redirect_uri": {callback}, "scope": {"openid email profile"}, "state": {"a-state"},
		"nonce": {"a-nonce"}, "code_challenge_method": {"S256"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])},
	}.Encode())
	for _, step := range []struct {
		shows, button string
		values        url.Values
	}{
		{"Sign in Name", "Sign in", url.Values{"name": {person}, "password": {person + "-password"}}},
		{"Allow access", "Allow", nil},
		{"Sign in to your account", "Sign In", url.Values{"username": {person}, "password": {person + "-password"}}},
		{"Grant Access", "Yes", nil},
	} {
		if strings.Contains(v.page.Text(), step.shows) {
			v.submit(step.button, step.values)
		}
	}
	code := v.page.URL.Query().Get("code")
	if code == "" {
		t.Fatalf("the login ended at %s, %q: %s", v.page.URL, v.page.Title(), v.page.Text())
	}

	var tokens struct {
		IDToken     string `json:"id_token"`
		AccessToken string `json:"access_token"`
	}
	redeem := newRequest(t, http.MethodPost, endpoints.Token, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier},
	})
	redeem.SetBasicAuth(c.id, c.secret)
	ask(t, redeem, &tokens)
	r.IDToken = payload(t, tokens.IDToken)
	if strings.Count(tokens.AccessToken, ".") == 2 {
		r.AccessToken = payload(t, tokens.AccessToken)
	}
	info := newRequest(t, http.MethodGet, endpoints.UserInfo, nil)
	info.Header.Set("Authorization", "Bearer "+tokens.AccessToken)
	ask(t, info, &r.UserInfo)
	return r
}

func newRequest(t *testing.T, method, address string, form url.Values) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return request
}

// ask decodes the answer, which must be JSON.
func ask(t *testing.T, request *http.Request, answer any) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(answer); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, error %v", request.URL, response.StatusCode, err)
	}
}

func payload(t *testing.T, jwt string) (claims map[string]any) {
	t.Helper()
	_, rest, _ := strings.Cut(jwt, ".")
	middle, _, _ := strings.Cut(rest, ".")
	text, err := base64.RawURLEncoding.DecodeString(middle)
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	if err != nil {
		t.Fatalf("%.20q is no JWT: %v", jwt, err)
	}
	return claims
}

// shape lists the claims with their types.
func (r recording) shape() (lines []string) {
	var walk func(path string, value any)
	walk = func(path string, value any) {
		object, isObject := value.(map[string]any)
		if !isObject {
			lines = append(lines, fmt.Sprintf("%s %T", path, value))
		}
		for name, member := range object {
			walk(path+"/"+name, member)
		}
	}
	walk("id_token", r.IDToken)
	walk("access_token", r.AccessToken)
	walk("userinfo", r.UserInfo)
	slices.Sort(lines)
	return lines
}

func TestWhatOIDCProviderSends(t *testing.T) {
	s := openShop(t)
	s.wantRecorded(t, "oidc-provider-admin", s.issuer, client{"basic", "bridge-basic", "basic-client-secret-of-the-end-to-end-tests"}, "ada")
	s.wantRecorded(t, "oidc-provider-no-groups", s.issuer, client{"basic", "bridge-basic", "basic-client-secret-of-the-end-to-end-tests"}, "rob")
}
