package bridgetest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	codeLife  = time.Minute
	tokenLife = 5 * time.Minute
)

// grant is what a persona has allowed a client; a code stands for it, later an access token.
type grant struct {
	client      Client
	persona     Persona
	redirectURI string
	nonce       string
	challenge   string // PKCE S256
	scope       string
	sid         string
	at          time.Time // of the login
	issued      time.Time // of an access token
	family      *family   // of its refresh tokens
}

func (op *OP) routes() http.Handler {
	mux := http.NewServeMux()
	path := op.options.IssuerPath
	mux.HandleFunc("GET "+path+"/.well-known/openid-configuration", op.endpoint("discovery", op.discovery))
	mux.HandleFunc("GET "+path+"/jwks", op.endpoint("jwks", op.jwks))
	mux.HandleFunc("GET "+path+"/authorize", op.endpoint("authorize", op.authorize))
	mux.HandleFunc("POST "+path+"/authorize", op.endpoint("decision", op.authorize))
	mux.HandleFunc("POST "+path+"/token", op.endpoint("token", op.token))
	mux.HandleFunc(path+"/userinfo", op.endpoint("userinfo", op.userInfo))
	mux.HandleFunc(path+"/end_session", op.endpoint("end_session", op.endSession))
	return mux
}

func (op *OP) discovery(w http.ResponseWriter, r *http.Request) {
	b := op.behaviour()
	metadata := map[string]any{
		"issuer":                                         op.issuer,
		"authorization_endpoint":                         op.issuer + "/authorize",
		"token_endpoint":                                 op.issuer + "/token",
		"userinfo_endpoint":                              op.issuer + "/userinfo",
		"jwks_uri":                                       op.issuer + "/jwks",
		"end_session_endpoint":                           op.issuer + "/end_session",
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token"},
		"subject_types_supported":                        []string{"public"},
		"scopes_supported":                               []string{"openid", "profile", "email", "offline_access"},
		"id_token_signing_alg_values_supported":          algs,
		"token_endpoint_auth_methods_supported":          []string{"client_secret_basic", "client_secret_post"},
		"code_challenge_methods_supported":               []string{"S256"},
		"authorization_response_iss_parameter_supported": !b.NoIssParameter,
		"backchannel_logout_supported":                   true,
		"backchannel_logout_session_supported":           true,
	}
	if b.Discovery != nil {
		b.Discovery(metadata)
	}
	writeJSON(w, http.StatusOK, metadata)
}

func (op *OP) jwks(w http.ResponseWriter, r *http.Request) {
	body := op.KeySet()
	if change := op.behaviour().JWKS; change != nil {
		body = change(body)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}

// authorize shows the personas (GET) and takes the choice (POST to the same URL, which still holds the client's request).
func (op *OP) authorize(w http.ResponseWriter, r *http.Request) {
	b := op.behaviour()
	request := r.URL.Query()
	client, ok := op.client(request.Get("client_id"))
	if !ok {
		op.writePage(w, http.StatusBadRequest, errorPage, "No client has this client_id.")
		return
	}
	// Until the redirect URI is known to be the client's, nothing may be sent there.
	if !slices.Contains(client.RedirectURIs, request.Get("redirect_uri")) {
		op.writePage(w, http.StatusBadRequest, errorPage, "This redirect_uri is not one of the client's.")
		return
	}
	if code := refuseAuthorization(request, b); code != "" {
		op.respond(w, r, b, url.Values{"error": {code}})
		return
	}
	subject := b.AutoLogin
	if r.Method == http.MethodPost {
		if r.PostForm.Has("cancel") {
			op.respond(w, r, b, url.Values{"error": {"access_denied"}})
			return
		}
		subject = r.PostForm.Get("subject")
	}
	persona, ok := op.persona(subject)
	if !ok {
		op.writePersonas(w, client)
		return
	}
	code := rand.Text()
	op.mu.Lock()
	op.codes[code] = grant{
		client: client, persona: persona, redirectURI: request.Get("redirect_uri"), nonce: request.Get("nonce"),
		challenge: request.Get("code_challenge"), scope: request.Get("scope"), sid: rand.Text(), at: op.options.Now(),
		family: &family{},
	}
	op.mu.Unlock()
	op.passed(code, request.Get("state"), request.Get("nonce"))
	op.respond(w, r, b, url.Values{"code": {code}})
}

// refuseAuthorization returns the error code (RFC 6749 section 4.1.2.1, OpenID Connect Core 3.1.2.6) of a request, "" if it is good.
func refuseAuthorization(request url.Values, b Behaviour) string {
	switch {
	case request.Get("response_type") != "code":
		return "unsupported_response_type"
	case !slices.Contains(strings.Fields(request.Get("scope")), "openid"):
		return "invalid_scope"
	case request.Has("response_mode") && request.Get("response_mode") != "query":
		return "invalid_request"
	case !b.SkipPKCE && (request.Get("code_challenge_method") != "S256" || len(request.Get("code_challenge")) != 43):
		return "invalid_request"
	case request.Get("prompt") == "none":
		return "login_required" // there are no sessions here
	}
	return ""
}

// respond sends the browser back to the client.
func (op *OP) respond(w http.ResponseWriter, r *http.Request, b Behaviour, parameters url.Values) {
	request := r.URL.Query()
	if request.Has("state") {
		parameters.Set("state", request.Get("state"))
	}
	if !b.NoIssParameter {
		parameters.Set("iss", op.issuer)
	}
	if b.AuthorizationResponse != nil {
		b.AuthorizationResponse(parameters)
	}
	redirect(w, r, request.Get("redirect_uri"), parameters)
}

// redirect adds parameters to the ones that the target may already have.
func redirect(w http.ResponseWriter, r *http.Request, target string, parameters url.Values) {
	separator := "?"
	if strings.Contains(target, "?") {
		separator = "&"
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, target+separator+parameters.Encode(), http.StatusFound)
}

func (op *OP) token(w http.ResponseWriter, r *http.Request) {
	b := op.behaviour()
	w.Header().Set("Cache-Control", "no-store")
	op.passed(r.PostForm.Get("code"), r.PostForm.Get("code_verifier"))
	client, ok := op.authenticateClient(r)
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	now := op.options.Now()
	var g grant
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		g, ok = op.redeem(r.PostForm, client, b, now)
	case "refresh_token":
		g, ok = op.refresh(r.PostForm, client, b)
	default:
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "unsupported_grant_type"})
		return
	}
	if !ok {
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return
	}
	response, err := op.tokens(b, g, now)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, http.StatusOK, response)
}

// redeem returns the grant of a code.
func (op *OP) redeem(form url.Values, client Client, b Behaviour, now time.Time) (grant, bool) {
	code := form.Get("code")
	op.mu.Lock()
	g, ok := op.codes[code]
	delete(op.codes, code) // whatever comes of it: a code is presented once
	op.mu.Unlock()
	return g, ok && g.client.ID == client.ID && g.redirectURI == form.Get("redirect_uri") && now.Sub(g.at) <= codeLife &&
		(b.SkipPKCE || g.challenge == s256(form.Get("code_verifier")))
}

func s256(verifier string) string {
	hash := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(hash[:])
}

// authenticateClient takes client_secret_basic, with both parts form-urlencoded (RFC 6749 section 2.3.1), or client_secret_post, not both.
func (op *OP) authenticateClient(r *http.Request) (Client, bool) {
	id, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	if user, password, ok := r.BasicAuth(); ok {
		basicID, errID := url.QueryUnescape(user)
		basicSecret, errSecret := url.QueryUnescape(password)
		if errID != nil || errSecret != nil || secret != "" || id != "" && id != basicID {
			return Client{}, false
		}
		id, secret = basicID, basicSecret
	}
	client, ok := op.client(id)
	return client, ok && client.Secret == secret
}

// tokens returns the token response.
func (op *OP) tokens(b Behaviour, g grant, now time.Time) (map[string]any, error) {
	accessToken, err := op.accessToken(b, g, now)
	if err != nil {
		return nil, err
	}
	idToken, err := op.idToken(b, g, now, accessToken)
	if err != nil {
		return nil, err
	}
	op.passed(accessToken, idToken)
	op.mu.Lock()
	if !slices.ContainsFunc(op.sessions, func(known grant) bool { return known.family == g.family }) { // else a refresh
		op.sessions = append(op.sessions, g)
	}
	op.mu.Unlock()
	response := map[string]any{
		"access_token": accessToken, "token_type": "Bearer", "expires_in": int(tokenLife.Seconds()), "scope": g.scope, "id_token": idToken,
	}
	op.addRefreshToken(response, g, b)
	if b.TokenResponse != nil {
		b.TokenResponse(response)
	}
	return response, nil
}

func (op *OP) accessToken(b Behaviour, g grant, now time.Time) (token string, err error) {
	token = rand.Text()
	if g.persona.AccessToken != nil {
		claims := map[string]any{
			"iss": op.issuer, "sub": g.persona.Subject, "aud": "account", "azp": g.client.ID, "typ": "Bearer",
			"iat": now.Unix(), "exp": now.Add(tokenLife).Unix(), "jti": rand.Text(), "sid": g.sid, "scope": g.scope,
		}
		maps.Copy(claims, g.persona.AccessToken)
		if b.AccessTokenClaims != nil {
			b.AccessTokenClaims(claims)
		}
		if token, err = op.Sign(nil, claims); err != nil {
			return "", err
		}
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	g.issued = now
	op.accessTokens[token] = g
	return token, nil
}

func (op *OP) idToken(b Behaviour, g grant, now time.Time, accessToken string) (string, error) {
	header := map[string]any{}
	claims := map[string]any{
		"iss": op.issuer, "sub": g.persona.Subject, "aud": g.client.ID, "iat": now.Unix(), "exp": now.Add(tokenLife).Unix(),
		"auth_time": g.at.Unix(), "sid": g.sid, "at_hash": leftHash(b.Alg, accessToken),
	}
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	maps.Copy(claims, g.persona.IDToken)
	if b.IDTokenHeader != nil {
		b.IDTokenHeader(header)
	}
	if b.IDTokenClaims != nil {
		b.IDTokenClaims(claims)
	}
	token, err := op.Sign(header, claims)
	if err == nil && b.RawIDToken != nil {
		token = b.RawIDToken(token, op.mustSign)
	}
	return token, err
}

func (op *OP) mustSign(header, claims map[string]any) string {
	token, err := op.Sign(header, claims)
	if err != nil {
		panic(err)
	}
	return token
}

func (op *OP) userInfo(w http.ResponseWriter, r *http.Request) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	op.mu.Lock()
	g, ok := op.accessTokens[token]
	ok = ok && !g.family.ended
	op.mu.Unlock()
	if !ok || !strings.EqualFold(scheme, "Bearer") || op.options.Now().Sub(g.issued) > tokenLife {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	claims := map[string]any{"sub": g.persona.Subject}
	maps.Copy(claims, g.persona.UserInfo)
	if change := op.behaviour().UserInfo; change != nil {
		change(claims)
	}
	writeJSON(w, http.StatusOK, claims)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}
