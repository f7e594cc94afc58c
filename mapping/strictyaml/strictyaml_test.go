package strictyaml

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// one parses text as a document with one key and returns its value.
func one(t *testing.T, text string) (*Document, *yaml.Node) {
	t.Helper()
	d := Parse("f.yaml", []byte("key: "+text+"\n"))
	entries := d.Mapping(d.Root(), "the file")
	if len(entries) != 1 {
		t.Fatalf("%q: %v", text, d.Findings())
	}
	return d, entries[0].Value
}

func codes(d *Document) string {
	var codes []string
	for _, f := range d.Findings() {
		codes = append(codes, f.Code)
	}
	return strings.Join(codes, " ")
}

func TestWhatIsNoDocument(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		line int
	}{
		"empty":              {"", 0},
		"comments":           {"# a\n", 0},
		"null":               {"~\n", 0},
		"byte order mark":    {"\xef\xbb\xbfa: 1\n", 1},
		"not UTF-8":          {"a: 1\nb: \xff\n", 2},
		"too large":          {strings.Repeat("#", MaxSize+1), 0},
		"not closed":         {"a: [1\nb: 2\n", 1},
		"tab":                {"a:\n\tb: 1\n", 2},
		"control character":  {"a: \x01\n", 0},
		"reordered text":     {"a: 1\nb: \u202e\n", 2},
		"carriage return":    {"a: 1\r\nb: 2 # \rc: 3\n", 2},
		"line separator":     {"a: 1\n# \u2028c: 3\n", 2},
		"next line":          {"a: 1\n# \u0085c: 3\n", 2},
		"unknown alias":      {"a: *b\n", 0},
		"nested too deep":    {"a: " + strings.Repeat("[", 20_000), 0},
		"text after a value": {"a: 'b' c\n", 0},
	} {
		d := Parse("f.yaml", []byte(test.text))
		if f := d.Findings(); d.Root() != nil || len(f) != 1 || f[0].Code != "E101" || test.line > 0 && f[0].Line != test.line {
			t.Errorf("%s: root %v, %v", name, d.Root(), f)
		}
	}
}

func TestAllFindingsSorted(t *testing.T) {
	d := Parse("f.yaml", []byte("b: &x 1\na: *x\nc: !!int 2\nd: { <<: { e: 1 } }\na: 3\nf: 4\n---\ng: 1\n"))
	d.Mapping(d.Root(), "the file", "a", "b", "c")
	var got []string
	for _, f := range d.Findings() {
		got = append(got, strings.Split(f.String(), "\n")[0])
	}
	want := []string{
		"f.yaml:1:4: error E105: anchor &x",
		"f.yaml:2:4: error E105: alias *x",
		"f.yaml:3:4: error E105: tag !!int",
		`f.yaml:4:1: error E102: unknown key "d" in the file`,
		"f.yaml:4:6: error E105: merge key <<",
		`f.yaml:5:1: error E103: key "a" is repeated`,
		`f.yaml:6:1: error E102: unknown key "f" in the file`,
		"f.yaml:7:1: error E101: a second document",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFindingShowsTheLine(t *testing.T) {
	d := Parse("f.yaml", []byte("a: 1\näö: { gruops: x }\n"))
	d.Mapping(d.Mapping(d.Root(), "the file")[1].Value, "claims", "groups", "tenant")
	want := `f.yaml:2:7: error E102: unknown key "gruops" in claims
     2 | äö: { gruops: x }
       |       ^
       = did you mean "groups"?`
	if got := d.Findings()[0].String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	d = Parse("f.yaml", []byte("a: "+strings.Repeat("x", 300)+"\n# \x1b[31m"))
	d.Errorf(&yaml.Node{Line: 1, Column: 250}, "E104", "", "far right")
	if got := d.Findings()[0].String(); strings.Contains(got, "^") {
		t.Errorf("a marker beyond what is shown:\n%s", got)
	}
	if (Finding{File: "f.yaml", Severity: Warning, Message: "m"}).String() != "f.yaml: warning: m" {
		t.Error("a finding about the whole file")
	}
	if f := Parse("f.yaml", []byte("a: \x1b[31m\n")).Findings(); strings.Contains(f[0].String(), "\x1b") {
		t.Errorf("a terminal would obey: %q", f[0])
	}
}

func TestSecretsStayOutOfFindings(t *testing.T) {
	for _, text := range []string{
		"password: hunter2 # x\npassword: hunter2\n",
		"database: { password: hunter2, password: hunter2 }\n",
		"keys:\n  - hunter2\n  - \"a: hunter2\n",
		"\"pass\": hunter2\n\"pass\": hunter2\n",
		"password: |\n  hunter2\n  a: hunter2\npassword: x\n",
		"password: &a hunter2\n",
	} {
		d := ParseSecret("f.yaml", []byte(text))
		for _, e := range d.Mapping(d.Root(), "the file") {
			d.Mapping(e.Value, "it")
		}
		if len(d.Findings()) == 0 {
			t.Errorf("%q: no finding", text)
		}
		for _, f := range d.Findings() {
			if strings.Contains(f.String(), "hunter2") {
				t.Errorf("%q: %v", text, f)
			}
		}
	}
}

func TestShapes(t *testing.T) {
	for _, text := range []string{"x", "[a]", "", "~"} {
		d, n := one(t, text)
		if d.Mapping(n, "it"); codes(d) != "E104" {
			t.Errorf("%q as a mapping: %v", text, d.Findings())
		}
	}
	for _, text := range []string{"x", "{ a: b }", ""} {
		d, n := one(t, text)
		if d.Sequence(n, "it"); codes(d) != "E104" {
			t.Errorf("%q as a list: %v", text, d.Findings())
		}
	}
	d, n := one(t, "{ [a]: b, ? { c: d } : e }")
	if got := d.Mapping(n, "it"); got != nil || codes(d) != "E104 E104" {
		t.Errorf("keys that are no words: %v, %v", got, d.Findings())
	}
	if d.Mapping(nil, "it") != nil || d.Sequence(nil, "it") != nil {
		t.Error("nothing is not nothing")
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]string{"no": "no", "0123": "0123", "1e3": "1e3", "'null'": "null", "2027-01-31": "2027-01-31", `""`: "", "yes": "yes"} {
		d, n := one(t, text)
		if got, ok := d.Text(n, "it"); got != want || !ok {
			t.Errorf("%s: %q %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "~", "null", "[a]", "{ a: b }"} {
		d, n := one(t, text)
		if _, ok := d.Text(n, "it"); ok || codes(d) != "E104" {
			t.Errorf("%q is a text: %v", text, d.Findings())
		}
	}
}

func TestBoolAndDuration(t *testing.T) {
	for text, want := range map[string]bool{"true": true, "false": false} {
		d, n := one(t, text)
		if got, ok := d.Bool(n, "it"); got != want || !ok {
			t.Errorf("%s: %v %v", text, got, ok)
		}
	}
	for _, text := range []string{"yes", "True", "on", "1", `"true"`, "", "[true]"} {
		d, n := one(t, text)
		if got, ok := d.Bool(n, "it"); got || ok || codes(d) != "E104" {
			t.Errorf("%q is a boolean", text)
		}
	}
	for text, want := range map[string]time.Duration{"15m": 15 * time.Minute, "1h30m": 90 * time.Minute, "30s": 30 * time.Second} {
		d, n := one(t, text)
		if got, ok := d.Duration(n, "it"); got != want || !ok {
			t.Errorf("%s: %v %v", text, got, ok)
		}
	}
	for _, text := range []string{"15", "0s", "-1m", "1 hour", "", "1d"} {
		d, n := one(t, text)
		if _, ok := d.Duration(n, "it"); ok || codes(d) != "E104" {
			t.Errorf("%q is a duration", text)
		}
	}
}

func TestJSON(t *testing.T) {
	for text, want := range map[string]any{
		"~": nil, "null": nil, "true": true, "false": false, "1": json.Number("1"), "-1.5e3": json.Number("-1.5e3"), "x": "x", "no": "no", `"1"`: "1", "'true'": "true",
		"2027-01-31": "2027-01-31", "[]": []any{}, "[a, 1]": []any{"a", json.Number("1")}, "{ a: { b: [~] } }": map[string]any{"a": map[string]any{"b": []any{nil}}},
		"1_000": "1_000", "1.2.3": "1.2.3", "0b1": "0b1",
	} {
		d, n := one(t, text)
		got, ok := d.JSON(n, "it")
		if diff := cmp.Diff(want, got); diff != "" || !ok {
			t.Errorf("%s: %v %s", text, d.Findings(), diff)
		}
	}
	for _, text := range []string{"0123", "+1", ".5", "1.", "0x1F", "0o17", ".inf", "-.INF", ".nan", "True", "FALSE", "Null"} {
		d, n := one(t, "[x, "+text+"]")
		if _, ok := d.JSON(n, "it"); ok || codes(d) != "E104" {
			t.Errorf("%s is not ambiguous: %v", text, d.Findings())
		}
	}
	d, n := one(t, "{ a: 1, a: 2 }")
	if _, ok := d.JSON(n, "it"); ok || codes(d) != "E103" {
		t.Errorf("repeated member: %v", d.Findings())
	}
}

func TestNearest(t *testing.T) {
	candidates := []string{"groups", "realm_roles", "acr", "email", "name"}
	for name, want := range map[string]string{"gruops": "groups", "Groups": "groups", "realm_role": "realm_roles", "emial": "email", "acr ": "acr", "department": "", "x": "", "": ""} {
		if got := Nearest(name, candidates); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if Nearest(strings.Repeat("a", 1000), candidates) != "" {
		t.Error("a very long name is near")
	}
}

// No text makes the reader panic or point outside of it, and a secret file's values never show.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"a: 1\n", "a: &x [*x]\n", "{a: b, a: c}", "? [a]\n: b\n", "a: |\n  b\n...\n---\n", "\ufeffa", "a: !!binary x\n", "- <<: x", "a: \u202e"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := Parse("f.yaml", []byte(text))
		for _, e := range d.Mapping(d.Root(), "the file", "a", "b") {
			d.JSON(e.Value, e.Key)
			d.Sequence(e.Value, e.Key)
			d.Text(e.Value, e.Key)
			d.Bool(e.Value, e.Key)
			d.Duration(e.Value, e.Key)
		}
		lines := 1 + strings.Count(text, "\n")
		for _, finding := range d.Findings() {
			if finding.Line < 0 || finding.Line > lines || finding.Code == "" || strings.Contains(finding.String(), "\x1b") {
				t.Fatalf("%+v", finding)
			}
		}
	})
}
