package mapping

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// verification says when a provider's e-mail counts as verified.
type verification uint8

const (
	verifiedTrue    verification = iota // email_verified is JSON true
	verifiedString                      // ... or the string "true"
	verifiedAssumed                     // ... or is not sent at all
)

var verificationNames = []string{"required", "string", "assumed"} // in the order of the constants

// address is the provider's e-mail: there only when it is well formed, verified, and of a domain that the provider may vouch for. A
// malformed one is broken even when it is not verified, so that no second claim can turn the refusal into an absence.
func (p *provider) address(captured Claims) value {
	c := p.byName["email"]
	v := kindString.read(captured.raw(c.expression.text))
	if v.state != statePresent {
		return v
	}
	local, domain, ok := splitAddress(v.text)
	if !ok {
		return value{state: stateBroken, why: "a malformed e-mail address"}
	}
	switch verified, found := captured.raw(c.verified.text); {
	case !found:
		return value{}
	case verified == true:
	case verified == "true" && p.verification == verifiedString:
	case verified == nil && p.verification == verifiedAssumed:
	default:
		return value{state: stateAbsent, why: "the e-mail is not verified"}
	}
	if p.authoritative != nil && !slices.Contains(p.authoritative, domain) {
		return value{state: stateAbsent, why: "the e-mail's domain is not in authoritative_for"}
	}
	if len(v.text) != len(local)+1+len(domain) || v.text[len(local)+1:] != domain {
		v.text = local + "@" + domain
	}
	return v
}

// splitAddress splits an e-mail address at its one "@". The domain comes back in lower-case A-labels. Quoted local parts are not accepted:
// they exist to smuggle a second "@".
func splitAddress(text string) (local, domain string, ok bool) {
	local, domain, found := strings.Cut(text, "@")
	if !found || local == "" || len(local) > 64 || len(text) > 254 || strings.ContainsAny(local, "\"(),:;<>[]\\") {
		return "", "", false
	}
	if strings.IndexFunc(local, unicode.IsSpace) >= 0 {
		return "", "", false
	}
	domain, ok = asciiDomain(domain)
	return local, domain, ok
}

// strictIDNA converts labels without mapping: an upper-case umlaut, a full-width letter or a Kelvin sign is an error and not another domain.
var strictIDNA = idna.New(idna.ValidateForRegistration(), idna.StrictDomainName(true), idna.VerifyDNSLength(true), idna.BidiRule())

// asciiDomain returns a domain in lower-case A-labels.
func asciiDomain(domain string) (ascii string, ok bool) {
	if len(domain) > 253 {
		return "", false
	}
	domain = lower(domain)
	if plainDomain(domain) {
		return domain, true
	}
	ascii, err := strictIDNA.ToASCII(domain)
	return ascii, err == nil && !strings.HasSuffix(ascii, ".")
}

// plainDomain reports whether a domain consists of ordinary lower-case labels, none of them an A-label.
func plainDomain(domain string) bool {
	start := 0
	for i := 0; i <= len(domain); i++ {
		if i < len(domain) && domain[i] != '.' {
			if c := domain[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return false
			}
			continue
		}
		label := domain[start:i]
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || len(label) > 3 && label[2:4] == "--" {
			return false
		}
		start = i + 1
	}
	return true
}

// under reports whether a domain is the other one or below it.
func under(domain, parent string) bool {
	above, found := strings.CutSuffix(domain, parent)
	return found && (above == "" || strings.HasSuffix(above, "."))
}
