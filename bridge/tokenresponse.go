package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// A tokenResponse is what the bridge uses of a successful answer of the token endpoint (OpenID Connect Core 3.1.3.3).
type tokenResponse struct{ idToken, accessToken, refreshToken string }

// errClientRefused: the provider does not take this client secret, and so has not looked at the code.
var errClientRefused = errors.New("client_id, client_secret or auth_method of config.yaml do not fit the provider")

// redeem exchanges the grant of the form: a code or a refresh token. Where the configuration has a second client secret, it is tried when the
// provider does not take the first one: that is how a secret is rotated. Whatever else goes wrong is final: a provider may revoke what it gave
// when it sees a code or a refresh token again (RFC 6749 section 4.1.2, RFC 9700 section 4.14.2).
func (p *Provider) redeem(ctx context.Context, endpoint string, grant url.Values) (tokens tokenResponse, err error) {
	for i, secret := range p.ClientSecrets {
		tokens, err = p.tokenRequest(ctx, endpoint, secret, grant)
		if !errors.Is(err, errClientRefused) {
			break
		}
		p.log.log.Error("the provider refuses a client secret", "provider", p.ID, "secret", i+1, "of", len(p.ClientSecrets))
	}
	return tokens, err
}

// tokenRequest sends the grant to the token endpoint. x/oauth2 would read forms and the last of two members of one name; here the answer is
// one strict JSON object.
func (p *Provider) tokenRequest(ctx context.Context, endpoint string, secret Secret, grant url.Values) (tokenResponse, error) {
	form := maps.Clone(grant)
	if p.AuthMethod == "client_secret_post" {
		form.Set("client_id", p.ClientID)
		form.Set("client_secret", secret.Reveal())
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return tokenResponse{}, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if p.AuthMethod != "client_secret_post" {
		// RFC 6749 section 2.3.1: both parts are form-urlencoded first, so that they may hold a colon.
		request.SetBasicAuth(url.QueryEscape(p.ClientID), url.QueryEscape(secret.Reveal()))
	}
	response, body, err := send(p.client, request)
	if err != nil {
		return tokenResponse{}, fmt.Errorf("token request: %w", err)
	}
	object, err := jsonObject(response, body)
	if response.StatusCode != http.StatusOK || object["error"] != nil {
		// Some providers repeat in their error what they were sent (CF-02).
		hide := []string{
			secret.Reveal(), redacted, url.QueryEscape(secret.Reveal()), redacted,
			cmp.Or(strings.TrimPrefix(request.Header.Get("Authorization"), "Basic "), redacted), redacted,
		}
		for _, name := range []string{"code", "code_verifier", "refresh_token"} {
			if value := grant.Get(name); value != "" {
				hide = append(hide, value, "["+name+"]")
			}
		}
		return tokenResponse{}, tokenError(response.StatusCode, object, strings.NewReplacer(hide...))
	}
	var tokens tokenResponse
	if err == nil {
		tokens, err = readTokens(object)
	}
	if err != nil {
		return tokens, fmt.Errorf("%w: token response: %w", ErrProviderAnswer, err)
	}
	return tokens, nil
}

// readTokens takes the tokens out. The messages name members, never their values. expires_in and the rest are not used, so nothing depends
// on what they hold. The refresh token is returned beside an error, too.
func readTokens(object map[string]any) (t tokenResponse, err error) {
	id, hasID := object["id_token"] // an answer to a refresh may have none
	t.idToken, _ = id.(string)
	t.accessToken, _ = object["access_token"].(string)
	t.refreshToken, _ = object["refresh_token"].(string)
	kind, _ := object["token_type"].(string)
	switch {
	case hasID && t.idToken == "":
		return t, errors.New("no id_token")
	case t.accessToken == "" || strings.ContainsFunc(t.accessToken, func(r rune) bool { return r <= ' ' || r > '~' }): // it becomes a header
		return t, errors.New("no access_token")
	case !strings.EqualFold(kind, "Bearer"): // RFC 6749 section 5.1: in any case
		return t, errors.New("token_type is not Bearer")
	}
	return t, nil
}

// tokenError sorts the failures of a token request (RFC 6749 section 5.2). The provider's error is told to the log in quotes and cut short;
// the rest of the response is not: it may hold tokens. object is nil when it was not JSON.
func tokenError(status int, object map[string]any, hide *strings.Replacer) error {
	code, _ := object["error"].(string)
	description, _ := object["error_description"].(string)
	detail := fmt.Sprintf("token endpoint: status %d, error %.64q, description %.200q", status, hide.Replace(code), hide.Replace(description))
	switch {
	case code == "invalid_client" || code == "unauthorized_client":
		return fmt.Errorf("%w: %w: %s", ErrProviderAnswer, errClientRefused, detail)
	case code == "invalid_grant":
		return fmt.Errorf("%w: %s", ErrGrantRefused, detail)
	}
	return statusError(status, detail)
}
