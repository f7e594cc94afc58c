package bridge

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// In front of PostgREST stands the proxy of an operator, which asks /auth about each request, or the bridge's own (proxy.go). Both give a
// request the identity of its session cookie, and nothing that the request says of itself.
const (
	userHeader = "X-Auth-User" // user_id of the token; empty without session
	roleHeader = "X-Auth-Role"
)

// gatewayMethods are those of PostgREST. OPTIONS is none of them: it never carries an identity (FA-05).
var gatewayMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// A gateway gives requests for the API their identity.
type gateway struct {
	config   *Config
	sessions sessionReader
	signer   *Signer
	metrics  *Metrics
}

// An identity is what a request takes to the API.
type identity struct {
	token, user, role string
}

// identify returns whose request this is. There is no identity for what another site makes the browser send. People without session have
// that of `anonymous`, where there is one; whoever brings a session cookie that is not good is refused, because a refusal must not turn into a
// token (FA-13). The method is that of the request for the API, "" when it is not known.
func (g gateway) identify(r *http.Request, method string) (identity, error) {
	cookie := g.sessions.cookies.carriesSession(r)
	var grant Grant
	var err error
	switch {
	case method == http.MethodOptions:
		grant, err = g.anonymous()
	case method != "" && !slices.Contains(gatewayMethods, method):
		err = fmt.Errorf("%w: for the API", ErrMethodNotAllowed)
	default:
		if err = checkOrigin(r, method, origin(g.config.PublicURL), g.config.AllowedOrigins, cookie); err != nil {
			break
		}
		if cookie {
			grant, err = g.sessions.decide(r)
		} else {
			grant, err = g.anonymous()
		}
	}
	if err != nil {
		return identity{}, err
	}
	token, err := g.signer.Token(grant)
	if err != nil {
		return identity{}, err
	}
	role, _ := grant.Decision.Role()
	g.metrics.tokens.Inc()
	return identity{token.JWT, grant.Session.UserID, role}, nil
}

// anonymous is the grant of people without session; ErrNoSession when they are refused.
func (g gateway) anonymous() (Grant, error) {
	if g.config.Anonymous == "" {
		return Grant{}, ErrNoSession
	}
	rules := g.sessions.rules.now()
	decision := rules.Anonymous(g.config.Anonymous)
	if _, granted, reason := rules.role(decision); !granted {
		return Grant{}, fmt.Errorf("%w, and the anonymous role is withdrawn: %s", ErrNoSession, reason)
	}
	return Grant{Decision: decision, RulesHash: rules.Hash()}, nil
}

// setHeaders writes the identity into the headers of a request or an answer. Each of them is always there, so that none of another party is
// left (FA-02).
func (i identity) setHeaders(h http.Header) {
	h.Set("Authorization", "Bearer "+i.token)
	h.Set(userHeader, headerText(i.user))
	h.Set(roleHeader, headerText(i.role))
}

// headerText is the text, or "" when a header cannot carry exactly it. The token does, whatever it is.
func headerText(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return text
}

// checkOrigin refuses what another site makes the browser send (D15, FA-10). Reading needs one of our pages, one on the allowed origins, or a
// person who goes there; anything that can change something needs one of the pages. A request with neither Origin nor Sec-Fetch-Site is of a
// program: it proves nothing, so with a cookie it may read only.
func checkOrigin(r *http.Request, method, own string, allowed []string, cookie bool) error {
	if len(r.Header.Values("Origin")) > 1 || len(r.Header.Values("Sec-Fetch-Site")) > 1 {
		return fmt.Errorf("%w: Origin or Sec-Fetch-Site twice", ErrAmbiguous)
	}
	from, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
	reads := method == "" || method == http.MethodGet || method == http.MethodHead
	var fine bool
	switch site {
	case "same-origin":
		fine = from == "" || from == "null" || from == own
	case "none":
		fine = from == "" || from == own
	case "same-site", "cross-site":
		fine = from != own && slices.Contains(allowed, from) || from == "" && reads && isNavigation(r)
	case "":
		fine = from == own || slices.Contains(allowed, from) || from == "" && (reads || !cookie)
	}
	if !fine {
		return fmt.Errorf("%w: %s of the API, Sec-Fetch-Site %q, Origin %q", ErrCrossSite, method, site, from)
	}
	return nil
}

// isVisit reports whether a person goes to an address of the API: they get pages, and programs get JSON.
func isVisit(r *http.Request, method string) bool {
	return (method == "" || method == http.MethodGet || method == http.MethodHead) && isNavigation(r) && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// challenge says how to get in: a redirect to the login for people, where that can reach them, and RFC 6750 section 3 for programs.
func challenge(w http.ResponseWriter, c *Config, visit bool, target string) (answered bool) {
	if visit {
		login := c.PublicURL.String() + "/login"
		if target != "" {
			login += "?return_to=" + url.QueryEscape(returnTo(c, target))
		}
		w.Header().Set("Location", login)
		w.WriteHeader(http.StatusFound)
		return true
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", c.PublicURL.Host))
	return false
}

// handleAuth is GET /auth: a proxy asks whether a request may pass, and as whom. nginx can pass on neither a redirect nor a body, and asks once
// more for the answer to a refused person (mode=refusal), which is never a token; Caddy and Traefik pass on what they get (mode=redirect).
func handleAuth(g gateway) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		mode := r.URL.RawQuery
		if mode != "" && mode != "mode=redirect" && mode != "mode=refusal" {
			return fmt.Errorf("%w: the query of /auth", ErrAmbiguous)
		}
		asked, err := readAsked(g.config, r)
		if err != nil {
			return err
		}
		who, err := g.identify(r, asked.method)
		switch {
		case errors.Is(err, ErrNoSession):
			if challenge(w, g.config, mode != "" && isVisit(r, asked.method), asked.uri) {
				return nil
			}
			return err
		case err != nil:
			return err
		case mode == "mode=refusal":
			return ErrTryAgain
		}
		who.setHeaders(w.Header())
		w.WriteHeader(http.StatusOK)
		return nil
	}
}

// asked is the request that a proxy asks about.
type asked struct {
	method string // "": not known
	uri    string // where a login goes back to; "": not known
}

// readAsked believes a proxy of trusted_proxies alone, and only one that says one thing (FA-03).
func readAsked(c *Config, r *http.Request) (asked, error) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !c.trusts(peer.Addr().Unmap()) {
		return asked{}, nil
	}
	var a asked
	for name, to := range map[string]*string{"X-Forwarded-Method": &a.method, "X-Forwarded-Uri": &a.uri} {
		switch values := r.Header.Values(name); {
		case len(values) > 1:
			return asked{}, fmt.Errorf("%w: %s twice", ErrAmbiguous, name)
		case len(values) == 1:
			*to = values[0]
		}
	}
	return a, nil
}
