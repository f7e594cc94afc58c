package mapping

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of one claim. What exceeds them is broken.
const (
	maxElements  = 1000
	maxText      = 4096  // bytes of one text
	maxListBytes = 65536 // bytes of a list's texts together
)

// Claims are what a session keeps of a login: for each source expression that the provider's claims declare ("email",
// "access_token:/realm_access/roles") the raw value. They are keyed by expression and not by claim name, so that a claim whose `from`
// changes later is "not captured" instead of silently reading something else.
//
// The JSON form is one object. A missing key was not captured, null was absent at the login, a scalar or a list of strings is the raw
// value, and {"broken": reason} was broken at the login.
//
// The zero value holds nothing: every claim is "not captured".
type Claims struct {
	entries []entry // sorted by expression
	named   bool    // by the names of claims instead: they come from an event
}

type entry struct {
	expression string
	raw        any // nil (absent), string, bool, json.Number in canonical form, []string, or broken
}

// broken is the raw value of a claim that cannot be believed, and why.
type broken string

// raw returns the value of a source expression; captured is false when no login stored it.
func (c Claims) raw(expression string) (raw any, captured bool) {
	i, found := slices.BinarySearchFunc(c.entries, expression, func(e entry, expression string) int {
		return strings.Compare(e.expression, expression)
	})
	if !found {
		return nil, false
	}
	return c.entries[i].raw, true
}

// Recall reads what Decision.ReadClaims wrote into an event: enough to decide anew what was decided then. Such claims are not to be stored.
func Recall(event []byte) (Claims, error) {
	c := Claims{named: true}
	err := c.UnmarshalJSON(event)
	return c, err
}

// String keeps what the claims hold out of logs.
func (c Claims) String() string { return fmt.Sprintf("%d claims", len(c.entries)) }

// MarshalJSON writes the form that sessions store.
func (c Claims) MarshalJSON() ([]byte, error) {
	object := make(map[string]any, len(c.entries))
	for _, e := range c.entries {
		object[e.expression] = e.raw
		if reason, isBroken := e.raw.(broken); isBroken {
			object[e.expression] = map[string]string{"broken": string(reason)}
		}
	}
	return json.Marshal(object)
}

// UnmarshalJSON reads the form that MarshalJSON writes. Any other value is read as a provider's would be: an object becomes broken.
func (c *Claims) UnmarshalJSON(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return fmt.Errorf("captured claims: %w", err)
	}
	c.entries = make([]entry, 0, len(object))
	for expression, value := range object {
		raw := normalise(value)
		if stored, isObject := value.(map[string]any); isObject {
			if reason, isText := stored["broken"].(string); isText {
				raw = broken(reason)
			}
		}
		c.entries = append(c.entries, entry{expression, raw})
	}
	c.sort()
	return nil
}

func (c *Claims) sort() {
	slices.SortFunc(c.entries, func(a, b entry) int { return strings.Compare(a.expression, b.expression) })
}

// normalise turns a decoded JSON value into a raw value.
func normalise(value any) any {
	switch value := value.(type) {
	case nil:
		return nil
	case bool:
		return value
	case string:
		if value == "" {
			return nil
		}
		if reason := flaw(value); reason != "" {
			return reason
		}
		return value
	case json.Number:
		if number, ok := canonicalNumber(string(value)); ok {
			return json.Number(number)
		}
		return broken("a number out of range")
	case []any:
		return normaliseList(value)
	case map[string]any:
		return broken("an object")
	default:
		return broken("not a JSON value")
	}
}

func normaliseList(values []any) any {
	if len(values) > maxElements {
		return broken("more than 1,000 elements")
	}
	list, size := make([]string, 0, len(values)), 0
	for _, value := range values {
		text, isText := value.(string)
		if !isText {
			return broken("a list of something other than texts")
		}
		if reason := flaw(text); reason != "" {
			return reason
		}
		if size += len(text); size > maxListBytes {
			return broken("more than 65,536 bytes")
		}
		list = append(list, text)
	}
	return list
}

// flaw says what makes a text broken, or nothing. U+FFFD is what a JSON decoder leaves of a lone surrogate or of invalid UTF-8.
func flaw(text string) broken {
	if len(text) > maxText {
		return "more than 4,096 bytes"
	}
	for i := 0; i < len(text); {
		if b := text[i]; b >= ' ' && b <= '~' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError:
			return "not Unicode text"
		case unicode.IsControl(r):
			return "a control character"
		case invisible(r):
			return "an invisible character"
		}
		i += size
	}
	return ""
}

// invisible characters are those that a reader of two texts cannot tell apart from nothing: zero-width, bidi and other format characters.
func invisible(r rune) bool {
	return unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// maxDigits bounds a number on either side of the point.
const maxDigits = 40

// canonicalNumber writes a JSON number without exponent and without superfluous zeros: two numbers are equal when these texts are.
func canonicalNumber(text string) (canonical string, ok bool) {
	mantissa, exponent, scientific := strings.Cut(strings.Replace(text, "E", "e", 1), "e")
	shift := 0
	if scientific {
		var err error
		if shift, err = strconv.Atoi(exponent); err != nil || len(exponent) > 4 {
			return "", false
		}
	}
	unsigned, negative := strings.CutPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(unsigned, ".")
	if whole == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return "", false
	}

	digits, point := whole+fraction, len(whole)+shift
	if strings.Trim(digits, "0") == "" {
		return "0", true
	}
	digits = strings.TrimRight(digits, "0")
	trimmed := strings.TrimLeft(digits, "0")
	point -= len(digits) - len(trimmed)
	digits = trimmed
	if point > maxDigits || len(digits)-point > maxDigits {
		return "", false
	}
	switch {
	case point <= 0:
		canonical = "0." + strings.Repeat("0", -point) + digits
	case point >= len(digits):
		canonical = digits + strings.Repeat("0", point-len(digits))
	default:
		canonical = digits[:point] + "." + digits[point:]
	}
	if negative {
		canonical = "-" + canonical
	}
	return canonical, true
}
