package strictyaml

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

// Mapping returns the entries of n in their order. It adds E104 when n is not a mapping, E103 for a repeated key (the first counts) and,
// when keys are given, E102 for a key that is not among them. what names n in the message, such as "a rule".
func (d *Document) Mapping(n *yaml.Node, what string, keys ...string) []Entry {
	if n == nil || n.Kind == yaml.AliasNode {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		d.Errorf(n, "E104", "write it as lines of `key: value`", "%s must be a mapping, this is %s", what, kind(n))
		return nil
	}
	var entries []Entry
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode || key.Tag == "!!merge" {
			continue
		}
		if key.Kind != yaml.ScalarNode {
			d.Errorf(key, "E104", "", "a key of %s must be a word, this is %s", what, kind(key))
			continue
		}
		if first, repeated := seen[key.Value]; repeated {
			d.Errorf(key, "E103", fmt.Sprintf("the first stands on line %d: remove one of them", first), "key %q is repeated", key.Value)
			continue
		}
		seen[key.Value] = key.Line
		if keys != nil && !slices.Contains(keys, key.Value) {
			d.Errorf(key, "E102", suggestion(key.Value, keys), "unknown key %q in %s", key.Value, what)
			continue
		}
		entries = append(entries, Entry{Key: key.Value, KeyNode: key, Value: value})
	}
	return entries
}

// Sequence returns the items of n; it adds E104 when n is not a list.
func (d *Document) Sequence(n *yaml.Node, what string) []*yaml.Node {
	if n == nil || n.Kind == yaml.AliasNode {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		d.Errorf(n, "E104", "write it as [a, b] or as lines that begin with `- `", "%s must be a list, this is %s", what, kind(n))
		return nil
	}
	return slices.DeleteFunc(slices.Clone(n.Content), func(item *yaml.Node) bool { return item.Kind == yaml.AliasNode })
}

// Text returns the raw text of a scalar: `no`, `0123` and `1e3` are themselves. ok is false, with E104, for anything else and for null.
func (d *Document) Text(n *yaml.Node, what string) (text string, ok bool) {
	if n == nil || n.Kind == yaml.AliasNode {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.Errorf(n, "E104", "", "%s must be a text, this is %s", what, kind(n))
		return "", false
	}
	return n.Value, true
}

// Bool reads true or false, as YAML 1.2 spells them.
func (d *Document) Bool(n *yaml.Node, what string) (value, ok bool) {
	if n == nil || n.Kind == yaml.AliasNode {
		return false, false
	}
	if n.Kind != yaml.ScalarNode || n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 || n.Value != "true" && n.Value != "false" {
		d.Errorf(n, "E104", "write true or false", "%s must be true or false", what)
		return false, false
	}
	return n.Value == "true", true
}

// Duration reads a positive Go duration such as 15m or 1h30m.
func (d *Document) Duration(n *yaml.Node, what string) (value time.Duration, ok bool) {
	text, ok := d.Text(n, what)
	if !ok {
		return 0, false
	}
	value, err := time.ParseDuration(text)
	if err != nil || value <= 0 {
		d.Errorf(n, "E104", "write it like 30s, 15m or 168h: days are not a unit", "%s must be a positive duration", what)
		return 0, false
	}
	return value, true
}

var (
	jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
	// otherCore is what YAML 1.2 reads as null, a boolean or a number in a spelling that JSON does not have.
	otherCore = regexp.MustCompile(`^(Null|NULL|True|TRUE|False|FALSE|[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|` +
		`[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
)

// JSON reads a value of the JSON types: nil, bool, json.Number, string, []any, map[string]any. A plain scalar that YAML 1.2 would take for
// a number, boolean or null but JSON would not, such as 0123 or True, is ambiguous and an E104.
func (d *Document) JSON(n *yaml.Node, what string) (value any, ok bool) {
	if n == nil {
		return nil, false
	}
	switch n.Kind {
	case yaml.MappingNode:
		object, whole := map[string]any{}, true
		entries := d.Mapping(n, what)
		for _, e := range entries {
			member, ok := d.JSON(e.Value, what)
			object[e.Key], whole = member, whole && ok
		}
		return object, whole && len(entries)*2 == len(n.Content)
	case yaml.SequenceNode:
		list, whole := []any{}, true
		for _, item := range n.Content {
			element, ok := d.JSON(item, what)
			list, whole = append(list, element), whole && ok
		}
		return list, whole
	case yaml.ScalarNode:
		return d.jsonScalar(n, what)
	default:
		return nil, false
	}
}

func (d *Document) jsonScalar(n *yaml.Node, what string) (value any, ok bool) {
	switch {
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return n.Value, true
	case n.Value == "" || n.Value == "~" || n.Value == "null":
		return nil, true
	case n.Value == "true" || n.Value == "false":
		return n.Value == "true", true
	case jsonNumber.MatchString(n.Value):
		return json.Number(n.Value), true
	case otherCore.MatchString(n.Value):
		d.Errorf(n, "E104", fmt.Sprintf("write %q if it is a text, otherwise as JSON spells it", n.Value), "%s: %s is ambiguous", what, n.Value)
		return nil, false
	default:
		return n.Value, true
	}
}

func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "empty"
	default:
		return "a single value"
	}
}
