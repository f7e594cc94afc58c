package bridgetest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// SentLogout is a logout token that an [OP] sent, and what the client answered.
type SentLogout struct {
	Client string // its id
	Token  string
	Status int // 0 when there was no answer
	Header http.Header
	Body   string
}

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// LogOut ends all sessions of a persona, as when they log out at the provider or an administrator does it, and tells the clients (Back-Channel
// Logout 1.0): one logout token for each session. Their refresh tokens are worth nothing from then on.
func (op *OP) LogOut(ctx context.Context, subject string) ([]SentLogout, error) {
	return op.end(ctx, func(g grant) bool { return g.persona.Subject == subject })
}

// Logouts returns all logout tokens that were sent, oldest first.
func (op *OP) Logouts() []SentLogout {
	op.mu.Lock()
	defer op.mu.Unlock()
	return slices.Clone(op.logouts)
}

// end ends the sessions that match.
func (op *OP) end(ctx context.Context, match func(grant) bool) (sent []SentLogout, err error) {
	op.mu.Lock()
	var ended, left []grant
	for _, g := range op.sessions {
		if match(g) {
			ended = append(ended, g)
			g.family.ended = true
		} else {
			left = append(left, g)
		}
	}
	op.sessions = left
	op.mu.Unlock()
	for _, g := range ended {
		client, registered := op.client(g.client.ID)
		if !registered || client.BackchannelLogoutURI == "" {
			continue
		}
		token, err := op.LogoutToken(client.ID, g.persona.Subject, g.sid)
		if err != nil {
			return sent, err
		}
		logout := sendLogout(ctx, client, token)
		sent = append(sent, logout)
		op.mu.Lock()
		op.logouts = append(op.logouts, logout)
		op.mu.Unlock()
	}
	return sent, nil
}

// LogoutToken makes a logout token for the client without sending it. Subject or sid may be "".
func (op *OP) LogoutToken(client, subject, sid string) (string, error) {
	b, now := op.behaviour(), op.options.Now()
	header := map[string]any{"typ": "logout+jwt"}
	claims := map[string]any{
		"iss": op.issuer, "aud": client, "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": rand.Text(),
		"events": map[string]any{logoutEvent: map[string]any{}},
	}
	for name, value := range map[string]string{"sub": subject, "sid": sid} {
		if value != "" {
			claims[name] = value
		}
	}
	if b.LogoutTokenHeader != nil {
		b.LogoutTokenHeader(header)
	}
	if b.LogoutTokenClaims != nil {
		b.LogoutTokenClaims(claims)
	}
	token, err := op.Sign(header, claims)
	if err == nil && b.RawLogoutToken != nil {
		token = b.RawLogoutToken(token, op.mustSign)
	}
	return token, err
}

// sendLogout posts the token. Like a real provider it does not follow redirects, and lives on when nobody answers.
func sendLogout(ctx context.Context, client Client, token string) SentLogout {
	sent := SentLogout{Client: client.ID, Token: token}
	body := strings.NewReader(url.Values{"logout_token": {token}}.Encode())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, client.BackchannelLogoutURI, body)
	if err != nil {
		return sent
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return sent
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	sent.Status, sent.Header, sent.Body = response.StatusCode, response.Header, string(text)
	return sent
}

// endSession is RP-initiated logout. Nobody is asked: the session of the hint ends, its client is told, and the browser goes back.
func (op *OP) endSession(w http.ResponseWriter, r *http.Request) {
	client, sid, known := op.hinted(r.Form)
	target := r.Form.Get("post_logout_redirect_uri")
	if target != "" && (!known || !slices.Contains(client.PostLogoutRedirectURIs, target)) {
		op.writePage(w, http.StatusBadRequest, errorPage, "This post_logout_redirect_uri is not one of the client's.")
		return
	}
	if sid != "" {
		if _, err := op.end(r.Context(), func(g grant) bool { return g.sid == sid }); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if target == "" {
		op.writePage(w, http.StatusOK, signedOutPage, "")
		return
	}
	b, parameters := op.behaviour(), url.Values{}
	if r.Form.Has("state") {
		parameters.Set("state", r.Form.Get("state"))
	}
	if b.PostLogoutResponse != nil {
		b.PostLogoutResponse(parameters)
	}
	redirect(w, r, target, parameters)
}

// hinted finds the client in id_token_hint, an ID token of ours that may have expired, and its sid; or else the client in client_id. When
// both are there they must be about the same client.
func (op *OP) hinted(form url.Values) (client Client, sid string, ok bool) {
	hint, id := form.Get("id_token_hint"), form.Get("client_id")
	if hint == "" {
		client, ok = op.client(id)
		return client, "", ok
	}
	token, err := jwt.ParseSigned(hint, []jose.SignatureAlgorithm{jose.RS256, jose.RS512, jose.PS256, jose.ES256, jose.EdDSA})
	if err != nil {
		return Client{}, "", false
	}
	var set jose.JSONWebKeySet
	var claims struct {
		jwt.Claims
		SID string `json:"sid"`
	}
	if json.Unmarshal(op.KeySet(), &set) != nil || token.Claims(set, &claims) != nil || len(claims.Audience) != 1 ||
		id != "" && id != claims.Audience[0] {
		return Client{}, "", false
	}
	client, ok = op.client(claims.Audience[0])
	return client, claims.SID, ok
}
