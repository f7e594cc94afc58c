package bridge

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

const (
	// refreshTime is for the whole conversation with the provider. It is long, because a provider that rotates refresh tokens may have done
	// so when we stop to listen.
	refreshTime = outboundTimeout
	// recheckPause is how long the one who asks has the session for themselves, and what lies between two attempts of which the first has
	// failed. It is longer than the conversation and what is written after it.
	recheckPause = time.Minute
	writeTries   = 3
	writePause   = 200 * time.Millisecond
)

// A recheckOutcome is a label of the metric oidc_bridge_rechecks_total.
type recheckOutcome string

const (
	recheckConfirmed  recheckOutcome = "confirmed"  // with the claims of this moment
	recheckEnded      recheckOutcome = "ended"      // invalid_grant
	recheckMismatch   recheckOutcome = "mismatch"   // the answer is about another login; the session is ended
	recheckFailed     recheckOutcome = "failed"     // no answer, or none that can be used
	recheckUnreadable recheckOutcome = "unreadable" // what the database keeps opens with none of our keys
	recheckUnwritten  recheckOutcome = "unwritten"  // the database did not take the lease or the outcome
)

// otherLogin are the checks that only the tokens of another login fail: of another person, client or provider, or of another time.
var otherLogin = []tokenFault{
	faultIssuer, faultAudience, faultParty, faultSubject, faultNonce, faultLoggedIn, faultUserInfo,
}

// Refresh asks the provider for the login's tokens anew (RFC 6749 section 6, OpenID Connect Core 12) and verifies them as Exchange does. An
// answer without ID token, which the specification allows, leaves the last one standing: what else the rules read is fetched all the same.
// The identity has the new refresh token, if there is one, beside an error too: the old one may be worth nothing by then.
func (p *Provider) Refresh(ctx context.Context, rules *mapping.Rules, refreshToken Secret, last map[string]any) (Identity, error) {
	m, err := p.Discover(ctx)
	if err != nil {
		return Identity{}, err
	}
	started := p.now()
	tokens, err := p.redeem(ctx, m.tokenEndpoint, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken.Reveal()}})
	kept := Identity{RefreshToken: NewSecret(tokens.refreshToken)}
	if err != nil {
		return kept, err
	}
	idToken := last
	if tokens.idToken != "" {
		idToken, err = p.verifier.idToken(ctx, m.jwksURI, tokens.idToken, expectation{accessToken: tokens.accessToken, started: started, last: last})
		if err != nil {
			return kept, answerError("ID token", err)
		}
	}
	identity, err := p.identify(ctx, m, rules, tokens, idToken, started)
	if err != nil {
		return kept, err
	}
	identity.IDToken = NewSecret(tokens.idToken)
	return identity, nil
}

// sameLogin holds an ID token from a refresh to the login's last one (OpenID Connect Core 12.2). There auth_time must be the same; here it
// may be later, since Keycloak's moves when the person enters their password once more, for whichever client.
func (v *verifier) sameLogin(last, claims map[string]any) error {
	if err := cmp.Or(v.issuedHere(claims), v.audience(claims)); err != nil {
		return err
	}
	if sub, _ := last["sub"].(string); !isOneOf(claims["sub"], sub) {
		return faultSubject
	}
	if value, present := claims["nonce"]; present {
		nonce, _ := value.(string)
		lastNonce, _ := last["nonce"].(string)
		if nonce == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(lastNonce)) != 1 {
			return faultNonce
		}
	}
	if before, known := last["auth_time"].(json.Number); known && claims["auth_time"] != nil {
		loggedIn, err := timeClaim(claims, "auth_time", faultLoggedIn)
		if err != nil {
			return err
		}
		if seconds, err := before.Int64(); err == nil && loggedIn.Unix() < seconds {
			return faultLoggedIn
		}
	}
	return nil
}

// due reports whether the provider's last word about the session is older than it may be.
func (s Session) due(recheck time.Duration, now time.Time) bool {
	return recheck > 0 && s.Checked != nil && !now.Before(s.Checked.Add(recheck)) && (s.CheckUntil == nil || !now.Before(*s.CheckUntil))
}

// recheck asks the provider of a session anew when session.recheck has passed, and returns the session as it is then: with other claims, or
// not at all. One request asks, whichever replica it meets; those beside it do not wait: what they get is what they would have got a moment
// before. Only the provider's word ends a session here. When it cannot be had, the last one counts on, until the absolute end (F-11).
func (s sessionReader) recheck(ctx context.Context, p *Provider, token SessionToken, session Session) (Session, error) {
	if !session.due(s.config.Session.Recheck, s.now()) {
		return session, nil
	}
	check, err := s.store.LeaseCheck(ctx, session.ID)
	switch {
	case errors.Is(err, ErrDatabase): // a database that can be read may be one that cannot be written to (F-07)
		s.notRechecked(p, session, recheckUnwritten, err)
		return session, nil
	case errors.Is(err, errSealed):
		s.notRechecked(p, session, recheckUnreadable, err)
	case err == nil:
		// Nobody may go away between the provider's answer and its refresh token in the database.
		if err := s.ask(context.WithoutCancel(ctx), p, session, check); err != nil {
			return Session{}, err
		}
	}
	// Whatever happened to the session or its user meanwhile counts (LO-10).
	return s.store.Session(ctx, token)
}

// ask holds no connection to the database while it waits for the provider.
func (s sessionReader) ask(ctx context.Context, p *Provider, session Session, check Check) error {
	conversation, cancel := context.WithTimeout(ctx, refreshTime)
	defer cancel()
	rules := s.rules.now()
	identity, err := p.Refresh(conversation, rules.Rules, check.RefreshToken, check.IDToken)
	var fault tokenFault
	switch {
	case err == nil:
		claims := rules.Capture(p.ID, identity.Tokens)
		if err := again(func() error { return s.store.Confirm(ctx, check, identity, claims) }); err != nil {
			s.notRechecked(p, session, recheckUnwritten, err)
			return nil
		}
		s.metrics.rechecked(p.ID, recheckConfirmed, nil)
		return nil
	case errors.Is(err, ErrGrantRefused):
		s.metrics.rechecked(p.ID, recheckEnded, nil)
		s.log.Info("the provider ended a login", "provider", p.ID, "session", session.ID, "cause", oneLine(err.Error()))
		return again(func() error { return s.store.EndChecked(ctx, check, "the provider ended the login (invalid_grant)") })
	case errors.As(err, &fault) && slices.Contains(otherLogin, fault):
		s.metrics.rechecked(p.ID, recheckMismatch, err)
		s.log.Error("ALARM: a provider answered for one login with the tokens of another; the session was ended",
			"provider", p.ID, "session", session.ID, "issuer", session.Issuer, "subject", session.Subject, "cause", oneLine(err.Error()))
		return again(func() error {
			return s.store.EndChecked(ctx, check, fmt.Sprintf("the provider answered with the tokens of another login (%s)", string(fault)))
		})
	default:
		s.notRechecked(p, session, recheckFailed, err)
		if identity.RefreshToken.Empty() {
			return nil
		}
		if err := again(func() error { return s.store.KeepRefreshToken(ctx, check, identity.RefreshToken) }); err != nil {
			s.notRechecked(p, session, recheckUnwritten, err)
		}
		return nil
	}
}

// notRechecked tells the operators of a session that goes on with the provider's last word.
func (s sessionReader) notRechecked(p *Provider, session Session, outcome recheckOutcome, err error) {
	s.metrics.rechecked(p.ID, outcome, err)
	level := slog.LevelWarn
	if outcome == recheckUnreadable {
		level = slog.LevelError
	}
	s.log.Log(context.Background(), level, "a session was not checked at its provider",
		"provider", p.ID, "session", session.ID, "outcome", string(outcome), "cause", oneLine(err.Error()))
}

// again repeats a write that the database did not take: what the provider has answered, it does not answer twice.
func again(write func() error) (err error) {
	for try := range writeTries {
		if try > 0 {
			time.Sleep(writePause)
		}
		if err = write(); !errors.Is(err, ErrDatabase) {
			return err
		}
	}
	return err
}

// readIDToken decodes an ID token that was verified when it came, and was sealed since.
func readIDToken(raw string) (map[string]any, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, errors.New("no ID token")
	}
	payload, err := base64url.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	return decodeObject(payload)
}
