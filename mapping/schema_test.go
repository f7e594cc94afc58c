package mapping

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v3"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// TestSchemaIsUpToDate holds rules.schema.json to the language. To write it: go test ./mapping -run Schema -update
func TestSchemaIsUpToDate(t *testing.T) {
	const name = "../rules.schema.json"
	want := LanguageSchema()
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error(name + " is not what the parser reads: go test ./mapping -run Schema -update")
	}
}

// Every file that loads is right by the schema of the language and by its own: an editor must not complain about what the program takes.
func TestFilesThatLoadAreRightByTheSchema(t *testing.T) {
	files := map[string]string{}
	for _, name := range []string{"testdata/design.yaml", "../rules.example.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	archives, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Glob("codes/texts/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(archives, examples...) {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if f.Name == "rules.yaml" || f.Name == "right.yaml" {
				files[name] = string(f.Data)
			}
		}
	}
	loaded := 0
	for name, text := range files {
		own, findings := FileSchema(name, []byte(text))
		if strictyaml.Errors(findings) {
			continue
		}
		loaded++
		for kind, s := range map[string][]byte{"language": LanguageSchema(), "file": own} {
			for _, complaint := range complaints(t, s, text) {
				t.Errorf("%s, schema of the %s: %s", name, kind, complaint)
			}
		}
	}
	if loaded < 50 {
		t.Errorf("only %d files load", loaded)
	}
}

// What an editor should underline while somebody types.
func TestMistakesAgainstTheSchema(t *testing.T) {
	example, err := os.ReadFile("../rules.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	schema, findings := FileSchema("rules.yaml", example)
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	for _, test := range []struct {
		old, new   string
		inLanguage bool // the schema of the language sees it, too
	}{
		{"version: 1", "version: 2", true},
		{"default: deny", "default: admin", true},
		{"default: deny", "", true},
		{"preset: google", "preset: gogle", true},
		{"preset: google", "preset: google\n    client: x", true},
		{"type: string }", "type: text }", true},
		{"max_ttl: 10m", "max_ttl: ten minutes", true},
		{"  customer: {}", "  customer: {}\n  pg_monitor: {}", true},
		{"    unless:                              # any item blocks the rule\n      - groups: /shop/suspended\n", "    unless: { groups: /x }\n", true},
		{"until: 2030-06-30", "until: tomorrow", true},
		{"    ttl: 5m", "    tll: 5m", true},
		{"refuse_if:\n      - { groups: [/hr/leavers] }", "refuse_if:\n      - {}", true},
		{"{ groups: /hr/leavers }        #", "{ groups: { contains: /x } } #", true},
		{"organisation: acme", "role: admin", true},
		{"on: create", "on: tuesday", true},
		{"{ hd: example.com, email_domain", "{ hd: { prefix: x }, email_domain", false},
		{"{ hd: example.com, email_domain", "{ groups: /x, email_domain", false}, // Google has none
		{"by: client_roles", "by: client_role", false},
		{"    role: admin\n", "    role: amdin\n", false},
		{"  - name: leavers\n    provider: corp\n", "  - name: leavers\n", false},
		{"provider: google\n    when", "provider: gogle\n    when", false},
		{"email: { from: email }\n  department", "email: { from: emial }\n  department", false},
		{"allow: [customer, admin]", "allow: [customer, root]", false},
	} {
		text := strings.Replace(string(example), test.old, test.new, 1)
		if text == string(example) {
			t.Errorf("%q is not in the example", test.old)
		}
		if len(complaints(t, schema, text)) == 0 {
			t.Errorf("%q passes the file's schema", test.new)
		}
		if seen := len(complaints(t, LanguageSchema(), text)) > 0; seen != test.inLanguage {
			t.Errorf("%q: seen by the language's schema: %t", test.new, seen)
		}
	}
}

// complaints validates a YAML text by a schema.
func complaints(t *testing.T, schemaText []byte, text string) []string {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal(schemaText, &root); err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	v := validator{root: root}
	v.check(root, plainValue(document.Content[0]), "")
	return v.complaints
}

// plainValue is the JSON value that an editor sees; a date is a text.
func plainValue(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		object := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			object[n.Content[i].Value] = plainValue(n.Content[i+1])
		}
		return object
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, plainValue(item))
		}
		return list
	}
	var value any
	if n.Tag == "!!timestamp" || n.Decode(&value) != nil {
		return n.Value
	}
	if number, isInt := value.(int); isInt {
		return float64(number)
	}
	return value
}

// A validator knows the words of draft-07 that our schemas use, and refuses others.
type validator struct {
	root       map[string]any
	complaints []string
}

func (v *validator) complain(at, format string, args ...any) {
	v.complaints = append(v.complaints, at+": "+fmt.Sprintf(format, args...))
}

func (v *validator) fits(schema, value any) bool {
	trial := validator{root: v.root}
	trial.check(schema, value, "")
	return len(trial.complaints) == 0
}

func (v *validator) check(schema, value any, at string) {
	s := schema.(map[string]any)
	object, isObject := value.(map[string]any)
	list, isList := value.([]any)
	text, isText := value.(string)
	for word, want := range s {
		switch word {
		case "$schema", "title", "description", "definitions", "then":
		case "$ref":
			v.check(v.resolve(want.(string)), value, at)
		case "type":
			types, many := want.([]any)
			if !many {
				types = []any{want}
			}
			if !slices.Contains(types, any(typeOf(value))) {
				v.complain(at, "%v is no %v", value, want)
			}
		case "const":
			if !reflect.DeepEqual(value, want) {
				v.complain(at, "%v is not %v", value, want)
			}
		case "enum":
			if !slices.ContainsFunc(want.([]any), func(one any) bool { return reflect.DeepEqual(one, value) }) {
				v.complain(at, "%v is none of %v", value, want)
			}
		case "pattern":
			if isText && !regexp.MustCompile(want.(string)).MatchString(text) {
				v.complain(at, "%q does not match %s", text, want)
			}
		case "minLength", "maxLength":
			if isText && (word[:3] == "min") == (float64(len(text)) < want.(float64)) && float64(len(text)) != want.(float64) {
				v.complain(at, "%q has the wrong length", text)
			}
		case "minItems":
			if isList && float64(len(list)) < want.(float64) {
				v.complain(at, "too few items")
			}
		case "minProperties", "maxProperties":
			if size := float64(len(object)); isObject && size != want.(float64) && (word[:3] == "min") == (size < want.(float64)) {
				v.complain(at, "%v members", size)
			}
		case "items":
			for i, item := range list {
				v.check(want, item, fmt.Sprintf("%s/%d", at, i))
			}
		case "required":
			for _, key := range want.([]any) {
				if _, there := object[key.(string)]; isObject && !there {
					v.complain(at, "%s is missing", key)
				}
			}
		case "propertyNames":
			for key := range object {
				v.check(want, key, at+"/"+key)
			}
		case "properties", "additionalProperties":
			v.checkMembers(s, object, at)
		case "allOf":
			for _, one := range want.([]any) {
				v.check(one, value, at)
			}
		case "anyOf", "oneOf":
			matches := 0
			for _, one := range want.([]any) {
				if v.fits(one, value) {
					matches++
				}
			}
			if matches == 0 || word == "oneOf" && matches > 1 {
				v.complain(at, "%v fits %d of %s", value, matches, word)
			}
		case "not":
			if v.fits(want, value) {
				v.complain(at, "%v is excluded", value)
			}
		case "if":
			if v.fits(want, value) {
				v.check(s["then"], value, at)
			}
		default:
			panic("the validator does not know " + word)
		}
	}
}

func (v *validator) checkMembers(s, object map[string]any, at string) {
	properties, _ := s["properties"].(map[string]any)
	for key, member := range object {
		if known := properties[key]; known != nil {
			v.check(known, member, at+"/"+key)
		} else if further, isSchema := s["additionalProperties"].(map[string]any); isSchema {
			v.check(further, member, at+"/"+key)
		} else if s["additionalProperties"] == false {
			v.complain(at, "unknown key %s", key)
		}
	}
}

func (v *validator) resolve(reference string) any {
	return v.root["definitions"].(map[string]any)[strings.TrimPrefix(reference, "#/definitions/")]
}

func typeOf(value any) string {
	switch value.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case float64:
		return "number"
	default:
		return "null"
	}
}
