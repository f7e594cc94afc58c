package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

const (
	metadataMaxAge = time.Hour        // after which it is fetched anew; the old goes on while that fails
	metadataPause  = 30 * time.Second // between attempts then
	maxHint        = 6 << 10          // bytes of an id_token_hint: servers take requests of 8 KB
)

// A Provider is an OpenID provider, seen from its relying party: one connection of config.yaml. It is safe for concurrent use; its
// configuration never changes, what it learned from discovery is replaced as a whole.
type Provider struct {
	ProviderConfig
	redirectURI string
	loggedOut   string // post_logout_redirect_uri
	client      *http.Client
	verifier    verifier
	insecureDev bool
	recheck     bool // refresh tokens are kept
	log         documentLog
	now         func() time.Time
	flight      singleflight.Group

	mu       sync.Mutex
	metadata *metadata // nil until discovery succeeded
	tried    time.Time
	failure  error // of the last attempt
}

// metadata is what the bridge uses of a discovery document (OpenID Connect Discovery 1.0 section 3).
type metadata struct {
	authorizationEndpoint string
	tokenEndpoint         string
	userinfoEndpoint      string // "" when the provider has none
	jwksURI               string
	endSessionEndpoint    string // RP-Initiated Logout 1.0 section 2.1; "" when the provider has none
	issParameter          bool   // RFC 9207: authorization responses carry iss
	warnings              []string
	fetched               time.Time
}

// An Identity is who the provider says the person is: the claim sets of a verified ID token and what came with it.
type Identity struct {
	Issuer  string // the configured one
	Subject string
	SID     string // the provider's session, for logout; "" without
	Tokens  mapping.Tokens

	IssuedAt     time.Time // iat of the ID token
	IDToken      Secret    // as it came, where the provider wants to see it again at logout, or a refresh will be held against it
	RefreshToken Secret    // empty where the provider gives none, or nobody asks it again
}

// NewProvider makes the connection. It reaches for the provider on first use only, so that the bridge starts while a provider is down.
func NewProvider(c *Config, p ProviderConfig, log *slog.Logger, m *Metrics, now func() time.Time) (*Provider, error) {
	client, err := newOutbound(p, c.InsecureDev)
	if err != nil {
		return nil, err
	}
	alg := jose.SignatureAlgorithm(p.Alg)
	documents := documentLog{p.ID, log, m}
	return &Provider{
		ProviderConfig: p,
		redirectURI:    c.PublicURL.String() + "/callback/" + p.ID,
		loggedOut:      c.PublicURL.String() + "/logged-out",
		client:         client,
		verifier: verifier{
			issuer: p.Issuer, clientID: p.ClientID, alg: alg, now: now,
			keys: newKeySet(client, alg, documents, now), requireLogoutType: p.RequireLogoutType,
		},
		insecureDev: c.InsecureDev,
		recheck:     c.Session.Recheck > 0,
		log:         documents,
		now:         now,
	}, nil
}

// Discover returns the provider's metadata. It asks the provider when there is none yet or it is an hour old; the last good one goes on
// while that fails. A provider that was never reached is ErrProviderDown.
func (p *Provider) Discover(ctx context.Context) (*metadata, error) {
	p.mu.Lock()
	known, failure, rest := p.metadata, p.failure, p.now().Sub(p.tried)
	p.mu.Unlock()
	switch {
	case known != nil && (p.now().Sub(known.fetched) < metadataMaxAge || rest < metadataPause):
		return known, nil
	case known == nil && failure != nil && rest < retryPause:
		return nil, failure
	}
	_, err, _ := p.flight.Do("", func() (any, error) {
		found, err := p.fetchMetadata(context.WithoutCancel(ctx))
		if err != nil {
			if !errors.Is(err, ErrProviderDown) {
				err = fmt.Errorf("%w: %w", ErrProviderDown, err) // for people it is the same
			}
			err = fmt.Errorf("discovery of %s: %w", p.ID, err)
			p.log.failed("discovery", err)
		} else {
			for _, warning := range found.warnings {
				p.log.warn("discovery", warning)
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.tried, p.failure = p.now(), err
		if err == nil {
			p.metadata = found
		}
		return nil, err
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.metadata == nil {
		return nil, err
	}
	return p.metadata, nil
}

func (p *Provider) fetchMetadata(ctx context.Context) (*metadata, error) {
	document, err := getJSON(ctx, p.client, strings.TrimSuffix(p.Issuer, "/")+"/.well-known/openid-configuration", "")
	if err != nil {
		return nil, err
	}
	if issuer, _ := document["issuer"].(string); issuer != p.Issuer {
		return nil, fmt.Errorf("it calls itself %.200q, not %q", issuer, p.Issuer)
	}
	m := &metadata{fetched: p.now()}
	for _, endpoint := range []struct {
		name     string
		required bool
		to       *string
	}{
		{"authorization_endpoint", true, &m.authorizationEndpoint},
		{"token_endpoint", true, &m.tokenEndpoint},
		{"jwks_uri", true, &m.jwksURI},
		{"userinfo_endpoint", false, &m.userinfoEndpoint},
		{"end_session_endpoint", false, &m.endSessionEndpoint},
	} {
		value, present := document[endpoint.name]
		text, _ := value.(string)
		if !present && !endpoint.required {
			continue
		}
		u, err := p.checkEndpoint(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", endpoint.name, err)
		}
		// RFC 6749 section 3.1: no parameter more than once, and the first would win over ours.
		if query := u.Query(); slices.ContainsFunc(reservedParams, query.Has) {
			return nil, fmt.Errorf("%s: %.200q has a parameter that belongs to requests", endpoint.name, text)
		}
		*endpoint.to = text
	}
	if value, present := document["authorization_response_iss_parameter_supported"]; present {
		// Read as false, a "true" would switch the check off that it asks for.
		var ok bool
		if m.issParameter, ok = value.(bool); !ok {
			return nil, errors.New("authorization_response_iss_parameter_supported is neither true nor false")
		}
	}
	if methods, ok := document["code_challenge_methods_supported"].([]any); ok && !slices.Contains(methods, any("S256")) {
		m.warnings = append(m.warnings, "it does not list S256 among its PKCE methods; S256 is sent all the same")
	}
	if algs, ok := document["id_token_signing_alg_values_supported"].([]any); ok && !slices.Contains(algs, any(p.Alg)) {
		m.warnings = append(m.warnings, fmt.Sprintf("it does not sign with %s: set `alg` to one of %v", p.Alg, algs))
	}
	return m, nil
}

// checkEndpoint holds an endpoint to https, with nothing in it that leads elsewhere (JD-03).
func (p *Provider) checkEndpoint(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return nil, fmt.Errorf("%.200q is not a URL", text)
	case u.User != nil || strings.Contains(text, "#"):
		return nil, errors.New("a URL with user or fragment")
	case secureOrDev(u, p.insecureDev):
		return u, nil
	}
	return nil, fmt.Errorf("%.200q is not https", text)
}

// AuthorizationURL is where the browser goes to log in (OpenID Connect Core 3.1.2.1). Everything in it comes from the configuration and the
// login state, nothing from the request (AR-03).
func (p *Provider) AuthorizationURL(ctx context.Context, login LoginState) (string, error) {
	m, err := p.Discover(ctx)
	if err != nil {
		return "", err
	}
	options := []oauth2.AuthCodeOption{
		oauth2.SetAuthURLParam("nonce", login.Nonce), oauth2.S256ChallengeOption(login.Verifier),
	}
	for _, name := range slices.Sorted(maps.Keys(p.AuthorizeParams)) {
		options = append(options, oauth2.SetAuthURLParam(name, p.AuthorizeParams[name]))
	}
	request := oauth2.Config{
		ClientID: p.ClientID, RedirectURL: p.redirectURI, Scopes: p.Scopes, Endpoint: oauth2.Endpoint{AuthURL: m.authorizationEndpoint},
	}
	return request.AuthCodeURL(login.State, options...), nil
}

// EndSessionURL is where the browser goes to log out at the provider, or "" when that has no such address (RP-Initiated Logout 1.0 section 2).
// Without the ID token, which may have been too long to keep, the provider asks the person whether they want to log out.
func (p *Provider) EndSessionURL(ctx context.Context, idToken Secret, state string) (string, error) {
	m, err := p.Discover(ctx)
	if err != nil || m.endSessionEndpoint == "" {
		return "", err
	}
	target, err := url.Parse(m.endSessionEndpoint)
	if err != nil {
		return "", err
	}
	request := url.Values{"client_id": {p.ClientID}, "post_logout_redirect_uri": {p.loggedOut}, "state": {state}}
	if hint := idToken.Reveal(); hint != "" && len(hint) <= maxHint {
		request.Set("id_token_hint", hint)
	}
	if target.RawQuery != "" {
		target.RawQuery += "&"
	}
	target.RawQuery += request.Encode()
	return target.String(), nil
}

// LogoutToken verifies a logout token that somebody sent us (Back-Channel Logout 1.0 section 2.6). Whether it was used before is for the
// database to say. ErrLogoutToken: it is none of this provider's, or not good; ErrProviderDown: nobody can tell now.
func (p *Provider) LogoutToken(ctx context.Context, raw string) (ProviderLogout, error) {
	m, err := p.Discover(ctx)
	if err != nil {
		return ProviderLogout{}, err
	}
	claims, err := p.verifier.logoutToken(ctx, m.jwksURI, raw)
	if errors.Is(err, ErrProviderDown) || ctx.Err() != nil {
		return ProviderLogout{}, fmt.Errorf("%w: %w", ErrProviderDown, err)
	} else if err != nil {
		return ProviderLogout{}, fmt.Errorf("%w: %w", ErrLogoutToken, err)
	}
	logout := ProviderLogout{Issuer: p.Issuer, Provider: p.ID}
	logout.JTI, _ = claims["jti"].(string)
	logout.Subject, _ = claims["sub"].(string)
	logout.SID, _ = claims["sid"].(string)
	if logout.IssuedAt, err = timeClaim(claims, "iat", faultIssued); err == nil {
		logout.Expires, err = timeClaim(claims, "exp", faultExpiry)
	}
	return logout, err
}

// Exchange redeems the code and verifies everything that comes back, in this order: token response, ID token, access token where the rules
// read it, UserInfo where they miss a claim. On any doubt there is no identity.
func (p *Provider) Exchange(ctx context.Context, rules *mapping.Rules, login LoginState, code string) (Identity, error) {
	m, err := p.Discover(ctx)
	if err != nil {
		return Identity{}, err
	}
	tokens, err := p.redeem(ctx, m.tokenEndpoint, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {p.redirectURI}, "code_verifier": {login.Verifier},
	})
	if err != nil {
		return Identity{}, err
	}
	if tokens.idToken == "" {
		return Identity{}, fmt.Errorf("%w: token response: no id_token", ErrProviderAnswer)
	}
	idToken, err := p.verifier.idToken(ctx, m.jwksURI, tokens.idToken, expectation{
		nonce: login.Nonce, accessToken: tokens.accessToken, started: time.Unix(login.Started, 0),
	})
	if err != nil {
		return Identity{}, answerError("ID token", err)
	}
	return p.identify(ctx, m, rules, tokens, idToken, time.Unix(login.Started, 0))
}

// identify makes an identity of a verified ID token and of what came with it, which it verifies.
func (p *Provider) identify(ctx context.Context, m *metadata, rules *mapping.Rules, tokens tokenResponse, idToken map[string]any,
	started time.Time,
) (Identity, error) {
	identity := Identity{Issuer: p.Issuer, Subject: idToken["sub"].(string), Tokens: mapping.Tokens{IDToken: idToken}}
	identity.SID, _ = idToken["sid"].(string)
	var err error
	if identity.IssuedAt, err = timeClaim(idToken, "iat", faultIssued); err != nil {
		return Identity{}, answerError("ID token", err)
	}
	if p.recheck {
		identity.RefreshToken = NewSecret(tokens.refreshToken)
	}
	if m.endSessionEndpoint != "" && len(tokens.idToken) <= maxHint || !identity.RefreshToken.Empty() {
		identity.IDToken = NewSecret(tokens.idToken)
	}
	// An opaque access token has no claims that we could read. The mapping counts those that would be in it as broken, not as absent.
	if rules.NeedsAccessToken(p.ID) && strings.Count(tokens.accessToken, ".") == 2 {
		identity.Tokens.AccessToken, err = p.verifier.accessToken(ctx, m.jwksURI, tokens.accessToken, identity.Subject, started)
		if err != nil {
			return Identity{}, answerError("access token", err)
		}
	}
	if p.UserInfo == "always" || p.UserInfo == "auto" && rules.NeedsUserInfo(p.ID, identity.Tokens) {
		if identity.Tokens.UserInfo, err = p.userInfo(ctx, m, tokens.accessToken, identity.Subject); err != nil {
			return Identity{}, err
		}
	}
	return identity, nil
}

// userInfo fetches the claims of the UserInfo endpoint, which must be about the subject of the ID token (OpenID Connect Core 5.3.2).
// A provider without the endpoint has none.
func (p *Provider) userInfo(ctx context.Context, m *metadata, accessToken, subject string) (map[string]any, error) {
	if m.userinfoEndpoint == "" {
		return nil, nil
	}
	claims, err := getJSON(ctx, p.client, m.userinfoEndpoint, accessToken)
	if err != nil {
		return nil, fmt.Errorf("UserInfo: %w", err)
	}
	if sub, _ := claims["sub"].(string); sub != subject {
		return nil, fmt.Errorf("%w: %w: sub is not the ID token's", ErrProviderAnswer, faultUserInfo)
	}
	return claims, nil
}

func answerError(what string, err error) error {
	if errors.Is(err, ErrProviderDown) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrProviderAnswer, what, err)
}

// checkResponse looks at what else came with the code: the issuer, where the provider sends it (RFC 9207 section 2.4), and its error.
func (p *Provider) checkResponse(ctx context.Context, answer authorization) error {
	m, err := p.Discover(ctx)
	if err != nil {
		return err
	}
	if answer.iss != p.Issuer && (answer.iss != "" || m.issParameter) {
		return fmt.Errorf("%w: iss %.200q is not the issuer of %s", ErrCallback, answer.iss, p.ID)
	}
	switch answer.failure {
	case "":
		return nil
	case "access_denied":
		return ErrCancelled
	case "temporarily_unavailable", "server_error":
		return fmt.Errorf("%w: error %q", ErrProviderDown, answer.failure)
	default:
		return fmt.Errorf("%w: error %.64q", ErrAuthorization, answer.failure)
	}
}
