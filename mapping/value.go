package mapping

import (
	"encoding/json"
	"strconv"
	"strings"
)

// A kind is the declared type of a claim.
type kind uint8

const (
	kindString kind = iota
	kindSet
	kindBool
	kindNumber
	kindDomain
	kindTime
)

var kindNames = []string{"string", "set", "bool", "number", "domain", "time"} // in the order of the constants

func (k kind) String() string { return kindNames[k] }

type state uint8

const (
	stateNotCaptured state = iota // the session's login did not look for it
	stateAbsent                   // the login did not carry it
	stateBroken                   // the login carried something that cannot be believed
	statePresent
	stateDefault // absent, and the file says what that means
)

// A value is a claim as its declared type reads it. Every kind but a set is a text in canonical form, so that equal values are equal texts.
type value struct {
	state state
	text  string   // also the element of a set that came as a single string
	list  []string // the elements of a set that came as a list; nil when it came as a single string
	why   string   // what makes it absent or broken, for explanations
}

func (v *value) decided() bool { return v.state != stateNotCaptured && v.state != stateBroken }
func (v *value) known() bool   { return v.state == statePresent || v.state == stateDefault }

// value reads a claim of the provider from what was captured.
func (p *provider) value(c *claim, captured Claims) value {
	var v value
	switch {
	case captured.named && !c.decides:
		v = value{state: stateAbsent, why: "events keep what the rules read"}
	case captured.named:
		v = c.kind.read(captured.raw(c.name))
	case c.derived == derivedEmail:
		v = p.address(captured)
	case c.derived == derivedEmailDomain:
		v = p.address(captured)
		v.text = v.text[strings.LastIndexByte(v.text, '@')+1:]
	default:
		v = c.kind.read(captured.raw(c.expression.text))
	}
	if v.state == stateAbsent && c.hasDefault {
		return c.fallback
	}
	return v
}

// read types a raw value. The cases are the complete list of coercions; anything else is broken.
func (k kind) read(raw any, captured bool) value {
	if !captured {
		return value{}
	}
	switch raw := raw.(type) {
	case nil:
		return value{state: stateAbsent}
	case broken:
		return value{state: stateBroken, why: string(raw)}
	case string:
		return k.readText(raw)
	case []string:
		if k == kindSet {
			return value{state: statePresent, list: raw}
		}
		return value{state: stateBroken, why: "a list"}
	case bool:
		if k == kindBool {
			return value{state: statePresent, text: strconv.FormatBool(raw)}
		}
		return value{state: stateBroken, why: "a boolean"}
	case json.Number:
		if k == kindNumber || k == kindTime && !strings.Contains(string(raw), ".") {
			return value{state: statePresent, text: string(raw)}
		}
		return value{state: stateBroken, why: "a number"}
	default:
		return value{state: stateBroken, why: "not a JSON value"}
	}
}

func (k kind) readText(text string) value {
	switch {
	case k == kindString || k == kindSet:
		return value{state: statePresent, text: text}
	case k == kindBool && (text == "true" || text == "false"):
		return value{state: statePresent, text: text}
	case k == kindDomain:
		domain, ok := asciiDomain(text)
		if !ok {
			return value{state: stateBroken, why: "not a domain"}
		}
		return value{state: statePresent, text: domain}
	default:
		return value{state: stateBroken, why: "a string"}
	}
}

// json is the value as a token, an event or a person sees it.
func (k kind) json(v value) any {
	switch k {
	case kindSet:
		list := make([]any, 0, len(v.list)+1)
		if v.list == nil {
			return append(list, v.text)
		}
		for _, element := range v.list {
			list = append(list, element)
		}
		return list
	case kindBool:
		return v.text == "true"
	case kindNumber, kindTime:
		return json.Number(v.text)
	default:
		return v.text
	}
}

// folded is the value in lower case. Only ASCII letters are folded: U+212A, the Kelvin sign, must not become a "k".
func (v value) folded() value {
	v.text = lower(v.text)
	for i, element := range v.list {
		if small := lower(element); small != element {
			list := append([]string(nil), v.list...)
			for j := i; j < len(list); j++ {
				list[j] = lower(list[j])
			}
			v.list = list
			break
		}
	}
	return v
}

func lower(text string) string {
	for i := range len(text) {
		if 'A' <= text[i] && text[i] <= 'Z' {
			small := []byte(text)
			for j := i; j < len(small); j++ {
				if 'A' <= small[j] && small[j] <= 'Z' {
					small[j] += 'a' - 'A'
				}
			}
			return string(small)
		}
	}
	return text
}

// String is the value as explanations show it.
func (v *value) String() string {
	switch {
	case v.state == stateNotCaptured:
		return "not captured at this login"
	case v.state == stateBroken:
		return "broken: " + v.why
	case v.state == stateAbsent && v.why != "":
		return "absent: " + v.why
	case v.state == stateAbsent:
		return "absent"
	case v.state == stateDefault:
		return "absent, default " + v.content()
	default:
		return v.content()
	}
}

func (v *value) content() string {
	if v.list != nil {
		return "[" + strings.Join(v.list, " ") + "]"
	}
	return v.text
}
