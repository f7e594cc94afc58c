package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// CheckProxy looks whether PostgREST answers at proxy.upstream and knows the key of our tokens. The token that it gets to see ended an hour ago
// and gives no role: PostgREST says that it has ended when the signature is good, and something else when it is not.
func CheckProxy(ctx context.Context, c *Config, now func() time.Time) []strictyaml.Finding {
	if c.Proxy == nil {
		return nil
	}
	finding := func(severity, message, fix string) []strictyaml.Finding {
		f := c.Proxy.at
		f.Severity, f.Message, f.Fix = severity, "proxy.upstream: "+message, fix
		return []strictyaml.Finding{f}
	}
	signer, err := NewSigner(c, now)
	if err != nil {
		return finding(strictyaml.Error, err.Error(), "")
	}
	token, err := signer.ended()
	if err != nil {
		return finding(strictyaml.Error, err.Error(), "")
	}
	status, answer, err := askUpstream(ctx, newUpstream(c, slog.New(slog.DiscardHandler)), token)
	const proxied = "until it does, the proxy answers 502"
	switch {
	case err != nil:
		return finding(strictyaml.Warning, "PostgREST does not answer: "+oneLine(err.Error()), proxied)
	case strings.Contains(answer.Message, "JWT expired"):
		return nil
	case answer.Code == "PGRST300":
		return finding(strictyaml.Error, "PostgREST has no jwt-secret", "give it the secret that signing.jwt_secret has")
	case answer.Code == "PGRST301":
		return finding(strictyaml.Error, "PostgREST does not know the key of our tokens: "+oneLine(answer.Message),
			"its jwt-secret must be signing.jwt_secret, and jwt-secret-is-base64 the same in both")
	case strings.HasPrefix(answer.Code, "PGRST"):
		return finding(strictyaml.Warning, fmt.Sprintf("PostgREST answers %d %s: %s", status, answer.Code, oneLine(answer.Message)), "look at PostgREST's log")
	case status < 300:
		return finding(strictyaml.Error, "takes a token that has ended", "name PostgREST itself: whatever answers here does not look at tokens")
	default:
		return finding(strictyaml.Warning, fmt.Sprintf("status %d, and not an answer of PostgREST", status), "name PostgREST itself, and the path it is at")
	}
}

type postgrestError struct{ Code, Message string }

func askUpstream(ctx context.Context, api *upstream, token string) (status int, answer postgrestError, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	defer api.transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, api.base.String()+"/oidc_bridge_check", nil) // PostgREST looks at the token first
	if err != nil {
		return 0, answer, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := api.transport.RoundTrip(request)
	if err != nil {
		return 0, answer, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if json.Unmarshal(body, &answer) != nil {
		answer = postgrestError{} // of somebody else
	}
	return response.StatusCode, answer, err
}
