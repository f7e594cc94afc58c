package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A PastedToken is an ID token or a JWT access token that an operator brings to `rules explain`. It opens nothing: an explanation is made
// of its claims, and the token is forgotten.
type PastedToken struct {
	Access bool // an access token; else an ID token
	Claims map[string]any
	Ended  time.Duration // since when it has ended; negative: it has not
}

// VerifyPasted holds a token to the provider's keys, issuer and client_id, as a login does. It may have ended, since people ask afterwards;
// its times are looked at as of when it was issued.
func (p *Provider) VerifyPasted(ctx context.Context, raw string) (PastedToken, error) {
	if err := pastedForm(raw); err != nil {
		return PastedToken{}, err
	}
	m, err := p.Discover(ctx)
	if err != nil {
		return PastedToken{}, err
	}
	token, err := p.verifier.open(ctx, m.jwksURI, raw, fromProvider)
	if err != nil {
		return PastedToken{}, err
	}
	pasted, err := pastedKind(token.header, token.claims, p.now())
	if err != nil {
		return PastedToken{}, err
	}
	issuedTo := p.verifier.audience
	if pasted.Access {
		issuedTo = p.verifier.party
	}
	if err := issuedTo(token.claims); err != nil {
		return PastedToken{}, fmt.Errorf("%w: it was issued to another client than %s", err, p.ClientID)
	}
	issued, err := timeClaim(token.claims, "iat", faultIssued)
	if err != nil {
		return PastedToken{}, err
	}
	then := p.verifier
	then.now = func() time.Time { return issued }
	return pasted, cmp.Or(then.issuerAndTimes(token.claims, issued, maxTokenLife), identifier(token.claims, "sub", true, faultSubject))
}

// ReadPasted decodes a token without verifying anything: whoever wrote it chose its claims.
func ReadPasted(raw string, now time.Time) (PastedToken, error) {
	if err := pastedForm(raw); err != nil {
		return PastedToken{}, err
	}
	var objects [2]map[string]any
	for i, part := range strings.SplitN(raw, ".", 3)[:2] {
		text, err := base64url.DecodeString(part)
		if err == nil {
			objects[i], err = decodeObject(text)
		}
		if err != nil {
			return PastedToken{}, fmt.Errorf("%w: %v", faultForm, err)
		}
	}
	return pastedKind(objects[0], objects[1], now)
}

// pastedForm says what is wrong with a text that is no JWT at all, in words for somebody who copies and pastes. It never repeats the text.
func pastedForm(raw string) error {
	switch parts := strings.Count(raw, ".") + 1; {
	case len(raw) > maxToken:
		return fmt.Errorf("the token is larger than %d bytes", maxToken)
	case parts == 5:
		return errors.New("the token is encrypted: only the provider's own API can read it")
	case parts != 3:
		return errors.New("this is no JWT, which has three parts with dots between them; an opaque access token has no claims, UserInfo has them")
	}
	return nil
}

// pastedKind tells access tokens from ID tokens, and refuses other kinds: what they say is not what a login reads.
func pastedKind(header, claims map[string]any, now time.Time) (PastedToken, error) {
	if _, present := claims["events"]; present {
		return PastedToken{}, fmt.Errorf("%w: this is a logout token", faultType)
	}
	t := PastedToken{Claims: claims}
	if exp, err := timeClaim(claims, "exp", faultExpiry); err == nil {
		t.Ended = now.Sub(exp)
	}
	t.Access = typeIn(header, "at+jwt") == nil || typeIn(claims, "bearer") == nil
	if !t.Access && typeIn(claims, typeAbsent, "id") != nil {
		return PastedToken{}, fmt.Errorf("%w: neither an ID token nor an access token", faultType)
	}
	return t, nil
}

// DecodeClaims reads claims that an operator wrote as strictly as those of a token: no member twice, numbers as they are.
func DecodeClaims(text []byte) (map[string]any, error) { return decodeObject(text) }
