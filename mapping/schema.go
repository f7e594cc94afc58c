package mapping

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// A schema is one JSON Schema of draft-07, which the YAML language server of editors knows best. Schemas accept what Load accepts in shape
// and names; what needs an evaluation, such as E301, is left to Load.
type schema = map[string]any

// LanguageSchema is the JSON Schema of every rules file.
func LanguageSchema() []byte {
	w := schemaWriter{rules: &Rules{}}
	return w.document("A rules file of oidc-bridge")
}

// FileSchema is the JSON Schema of this rules file: its providers, roles and claims are the only ones, and each claim takes the operators of
// its type. A file with mistakes has one too, from what could be read of it; findings say what could not.
func FileSchema(file string, text []byte) ([]byte, []strictyaml.Finding) {
	l := newLoader(file, text)
	w := schemaWriter{rules: l.rules}
	return w.document("The rules file " + file), l.doc.Findings()
}

// A schemaWriter knows the names of one file; without any it writes for every file.
type schemaWriter struct{ rules *Rules }

func (w schemaWriter) document(title string) []byte {
	top := w.object(sections, "", schema{
		"version":   schema{"description": "The version of the language.", "const": 1},
		"providers": w.providers(),
		"roles":     w.roles(),
		"deny":      schema{"description": "Deny rules: their order does not matter, one match refuses.", "type": "array", "items": ref("deny")},
		"rules":     schema{"description": "The first rule from the top that matches gives the one role.", "type": "array", "items": ref("rule")},
		"default": schema{"description": "What happens when no rule matches. Never a privileged role.", "anyOf": []any{
			schema{"const": "deny"},
			w.object([]string{"role"}, "", schema{"role": w.roleName()}, "role"),
		}},
		"token": w.token("Extra claims of every token. An absent source leaves the claim out.", w.claimNames(w.rules.names...)),
		"users": w.users(),
		"tests": schema{"description": "Run at every load; one that fails keeps the file from being used.", "type": "array", "items": ref("test")},
	}, "version", "providers", "roles", "default")
	top["$schema"], top["title"] = "http://json-schema.org/draft-07/schema#", title
	top["definitions"] = w.definitions()
	text, err := json.MarshalIndent(top, "", "  ")
	if err != nil {
		panic(err) // maps, slices and texts always encode
	}
	return append(text, '\n')
}

func (w schemaWriter) definitions() schema {
	definitions := schema{
		"scalar":   scalar,
		"provider": w.provider(),
		"claim":    w.claim(),
		"deny":     w.deny(),
		"rule":     w.rule(),
		"test":     w.test(),
		"duration": schema{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$`, "description": "Such as 90s, 5m or 1h; whole seconds, at least 1m."},
		"date":     schema{"type": "string", "pattern": `^[0-9]{4}-[0-9]{2}-[0-9]{2}$`, "description": "The last day, in UTC, such as 2027-01-31."},
	}
	for k := range kindNames {
		definitions[conditionOn(kind(k))] = w.condition(kind(k))
	}
	if w.rules.names == nil {
		definitions[w.whenOf("")] = schema{
			"description": conditionsHelp, "type": "object", "minProperties": 1,
			"additionalProperties": anyKind(),
		}
	}
	for _, name := range w.rules.names {
		p, claims := w.rules.providers[name], schema{}
		for _, c := range p.claims {
			claims[c.name] = schema{"description": c.help(p), "allOf": []any{ref(conditionOn(c.kind))}}
		}
		definitions[w.whenOf(name)] = schema{
			"description": conditionsHelp, "type": "object", "minProperties": 1, "properties": claims, "additionalProperties": false,
		}
	}
	return definitions
}

const conditionsHelp = "Lines `claim: value`, `claim: [any, of, these]` or `claim: { operator: … }`; every line must hold."

func conditionOn(k kind) string { return "condition-" + k.String() }

// whenOf numbers the providers, whose names may be anything.
func (w schemaWriter) whenOf(provider string) string {
	return fmt.Sprintf("when-%d", slices.Index(w.rules.names, provider)+1)
}

// help is what an editor says about a claim.
func (c *claim) help(p *provider) string {
	absence := "absent is no match"
	switch {
	case c.required:
		absence = "required"
	case c.hasDefault:
		absence = "absent means " + asJSON(c.kind.json(c.fallback))
		if c.fallback.emptySet() {
			absence = "absent means []"
		}
	}
	text := fmt.Sprintf("Provider %s: a %s; %s.", p.name, c.kind, absence)
	if c.editable {
		text += " People can edit it: it must not grant anything."
	}
	return text
}

// ref points to a definition; their names have no character that a JSON Pointer or a URI would escape.
func ref(name string) schema { return schema{"$ref": "#/definitions/" + name} }

// scalar is a value that is read as raw text, whatever YAML takes it for: no, 0123.
var scalar = schema{"type": []any{"string", "number", "boolean"}}

// object is a mapping of the parser's keys; each needs its schema. It fails loudly when the parser learns a key that this file does not.
func (w schemaWriter) object(keys []string, description string, properties schema, required ...string) schema {
	for _, key := range keys {
		if properties[key] == nil {
			panic("no schema for the key " + key)
		}
	}
	if len(properties) != len(keys) {
		panic(fmt.Sprintf("schema for keys other than %v", keys))
	}
	s := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if description != "" {
		s["description"] = description
	}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func enum(values []string, description string) schema {
	return schema{"description": description, "enum": values}
}

// someOf is a list with at least one item.
func someOf(item schema, description string) schema {
	return schema{"description": description, "type": "array", "minItems": 1, "items": item}
}

func textOf(description string) schema {
	return schema{"description": description, "type": scalar["type"]}
}

func flagOf(description string) schema {
	return schema{"description": description, "type": "boolean"}
}

func (w schemaWriter) roleName() schema {
	var names []string
	for _, r := range w.rules.roles {
		names = append(names, r.Name)
	}
	if names == nil {
		return schema{"description": "A role of the section roles.", "type": "string"}
	}
	return enum(names, "A role of the section roles.")
}

func (w schemaWriter) providerName() schema {
	if w.rules.names == nil {
		return schema{"description": "A provider of the section providers; needed as soon as there are two.", "type": "string"}
	}
	return enum(w.rules.names, "A provider of the section providers; needed as soon as there are two.")
}

// claimNames is the name of a claim that one of the providers declares.
func (w schemaWriter) claimNames(providers ...string) schema {
	var names []string
	for _, name := range providers {
		for _, c := range w.rules.providers[name].claims {
			names = append(names, c.name)
		}
	}
	if names == nil {
		return schema{"type": "string", "description": "A declared claim."}
	}
	slices.Sort(names)
	return enum(slices.Compact(names), "A declared claim.")
}
