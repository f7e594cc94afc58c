// Package strictyaml reads one YAML document the way its operator needs it read: every mistake of the file is found in one run, and each
// is a Finding that says where it stands and how to mend it.
//
// A Document is parsed once and then walked by the package that knows the schema (package mapping for the rules file, package bridge for
// the configuration): Mapping and Sequence check the shape of a node, the typed readers check scalars, Errorf and Warnf add what only
// the schema knows. The walker never stops at a finding; whether the file may be used is asked at the end, with Errors.
//
// Anchors, aliases, merge keys and tags are refused: a line of these files means what it says where it stands.
package strictyaml

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 1 << 20

// Severities of a Finding.
const (
	Error   = "error"   // the file cannot be used
	Warning = "warning" // the file can be used, but is probably not what was meant
)

// A Finding is one thing wrong with a file.
type Finding struct {
	File     string `json:"file"`
	Line     int    `json:"line"`   // from 1; 0: the file as a whole
	Column   int    `json:"column"` // from 1, in characters
	Severity string `json:"severity"`
	Code     string `json:"code,omitempty"` // stable, such as E102
	Message  string `json:"message"`
	Fix      string `json:"fix,omitempty"`
	Source   string `json:"source,omitempty"` // the line it stands on
}

// String is the finding as compilers print one: position, message, source line, marker, fix.
func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	b.WriteString(": " + f.Severity)
	if f.Code != "" {
		b.WriteString(" " + f.Code)
	}
	b.WriteString(": " + f.Message)
	if f.Source != "" {
		fmt.Fprintf(&b, "\n%6d | %s", f.Line, f.Source)
		if f.Column <= utf8.RuneCountInString(f.Source)+1 {
			fmt.Fprintf(&b, "\n       | %s^", strings.Repeat(" ", max(f.Column-1, 0)))
		}
	}
	if f.Fix != "" {
		b.WriteString("\n       = " + f.Fix)
	}
	return b.String()
}

// Errors reports whether any finding forbids the use of its file.
func Errors(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Severity == Error })
}

// A Document is a parsed file and what was found wrong with it so far.
type Document struct {
	// HideValues keeps the right-hand sides of source lines out of findings, for files that may hold secrets.
	HideValues bool

	file     string
	lines    []string
	root     *yaml.Node
	findings []Finding
}

// An Entry is one key of a mapping with its value.
type Entry struct {
	Key     string
	KeyNode *yaml.Node
	Value   *yaml.Node
}

// Parse reads text, which came from the named file. It never fails: what is wrong is among the Findings, and Root is nil when there is
// nothing to walk.
func Parse(file string, text []byte) *Document {
	return parse(&Document{file: file}, text)
}

// ParseSecret is Parse for a file whose values may be secrets: findings show its keys only.
func ParseSecret(file string, text []byte) *Document {
	return parse(&Document{file: file, HideValues: true}, text)
}

var errorLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)`)

// bareVariable is a ${NAME} that YAML takes for the start of a mapping. The library names another line for it.
var bareVariable = regexp.MustCompile(`(^|[^$])[{\[][^"'#]*\$\{`)

func parse(d *Document, text []byte) *Document {
	whole := func(line int, message, fix string) {
		d.add(line, 1, Error, "E101", message, fix)
	}
	switch {
	case len(text) > MaxSize:
		whole(0, fmt.Sprintf("larger than %d bytes", MaxSize), "")
		return d
	case bytes.HasPrefix(text, []byte("\xef\xbb\xbf")):
		whole(1, "starts with a byte order mark", "save the file as UTF-8 without BOM")
		return d
	case !utf8.Valid(text):
		whole(1+bytes.Count(text[:invalidUTF8(text)], []byte("\n")), "not UTF-8", "save the file as UTF-8")
		return d
	}
	d.lines = strings.Split(string(text), "\n")
	if d.hidden() {
		return d
	}

	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			whole(0, "the file is empty", "")
			return d
		}
		line, message := 0, strings.TrimPrefix(err.Error(), "yaml: ")
		if m := errorLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ = strconv.Atoi(m[1])
			message = m[2]
		}
		if at := slices.IndexFunc(d.lines, bareVariable.MatchString); at >= 0 {
			whole(at+1, "not YAML: a variable inside { } or [ ] needs quotes", `write "${NAME}"`)
			return d
		}
		whole(min(line, len(d.lines)), "not YAML: "+message, "")
		return d
	}
	var second yaml.Node
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		whole(max(second.Line, 1), "a second document", `one file holds one document: remove what follows "---"`)
	}
	if len(document.Content) == 1 && document.Content[0].Tag != "!!null" {
		d.root = document.Content[0]
		d.refuseMagic(d.root)
	} else {
		whole(0, "the file is empty", "")
	}
	return d
}

func invalidUTF8(text []byte) int {
	at := 0
	for at < len(text) {
		r, size := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		at += size
	}
	return at
}

// hidden finds characters with which a reviewer reads other lines than the program: those that reorder text, and line breaks of YAML that
// an editor does not show as such.
func (d *Document) hidden() (found bool) {
	for i, line := range d.lines {
		line = strings.TrimSuffix(line, "\r")
		if at := strings.IndexFunc(line, func(r rune) bool { return bidi(r) || strings.ContainsRune("\r\u0085\u2028\u2029", r) }); at >= 0 {
			d.add(i+1, utf8.RuneCountInString(line[:at])+1, Error, "E101", "a character that reorders text or breaks lines", "remove the line and type it anew")
			found = true
		}
	}
	return found
}

func bidi(r rune) bool { return '\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069' }

// refuseMagic finds anchors, aliases, merge keys and tags anywhere in the tree. It does not follow aliases, so it ends.
func (d *Document) refuseMagic(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		d.Errorf(n, "E105", "write the value out", "alias *%s", n.Value)
		return
	case n.Anchor != "":
		d.Errorf(n, "E105", "write the value out where it is used", "anchor &%s", n.Anchor)
	case n.Tag == "!!merge":
		d.Errorf(n, "E105", "write the keys out", "merge key <<")
	case n.Style&yaml.TaggedStyle != 0:
		d.Errorf(n, "E105", "remove the tag", "tag %s", n.Tag)
	}
	for _, child := range n.Content {
		d.refuseMagic(child)
	}
}

// Root is the document's top node, nil when the file could not be read.
func (d *Document) Root() *yaml.Node { return d.root }

// Errorf adds an error at the node. fix may be empty.
func (d *Document) Errorf(at *yaml.Node, code, fix, format string, args ...any) {
	d.at(at, Error, code, fmt.Sprintf(format, args...), fix)
}

// Warnf adds a warning at the node. fix may be empty. A comment on its line, or alone on the line above, silences it when it gives a
// reason: # allow W506: kept for the audit.
func (d *Document) Warnf(at *yaml.Node, code, fix, format string, args ...any) {
	if at == nil || !d.allowed(at.Line, code) {
		d.at(at, Warning, code, fmt.Sprintf(format, args...), fix)
	}
}

var allowance = regexp.MustCompile(`#\s*allow\s+([A-Z]\d{3}(?:\s*,\s*[A-Z]\d{3})*):\s*\S`)

func (d *Document) allowed(line int, code string) bool {
	if line < 1 || line > len(d.lines) {
		return false
	}
	comments := d.lines[line-1]
	if line > 1 && strings.HasPrefix(strings.TrimSpace(d.lines[line-2]), "#") {
		comments += "\n" + d.lines[line-2]
	}
	for _, m := range allowance.FindAllStringSubmatch(comments, -1) {
		if strings.Contains(m[1], code) {
			return true
		}
	}
	return false
}

func (d *Document) at(n *yaml.Node, severity, code, message, fix string) {
	if n == nil {
		d.add(0, 0, severity, code, message, fix)
		return
	}
	d.add(n.Line, n.Column, severity, code, message, fix)
}

func (d *Document) add(line, column int, severity, code, message, fix string) {
	d.findings = append(d.findings, d.finding(line, column, severity, code, message, fix))
}

// Finding is an error at the node that is not added to the document: for what is found out about a line after the file was read.
func (d *Document) Finding(at *yaml.Node, code, message, fix string) Finding {
	return d.finding(at.Line, at.Column, Error, code, message, fix)
}

func (d *Document) finding(line, column int, severity, code, message, fix string) Finding {
	if end := len(d.lines); line > end && end > 0 { // an empty value at the end of the file
		line, column = end, utf8.RuneCountInString(d.lines[end-1])+1
	}
	f := Finding{File: d.file, Line: line, Column: column, Severity: severity, Code: code, Message: message, Fix: fix}
	if line > 0 && line <= len(d.lines) {
		f.Source = d.source(d.lines[line-1])
	}
	return f
}

const longestSource = 160

// visible keeps what would command a terminal or reorder the line out of a finding.
func visible(r rune) rune {
	if r != '\t' && unicode.IsControl(r) || bidi(r) {
		return utf8.RuneError
	}
	return r
}

func (d *Document) source(line string) string {
	line = strings.Map(visible, strings.TrimRight(line, "\r"))
	if d.HideValues {
		if key, _, found := strings.Cut(line, ":"); found && !strings.ContainsAny(key, `"'{[`) {
			return key + ": …"
		}
		return line[:len(line)-len(strings.TrimLeft(line, " "))] + "…"
	}
	if runes := []rune(line); len(runes) > longestSource {
		return string(runes[:longestSource]) + "…"
	}
	return line
}

// Findings returns everything found, sorted by position; findings about the whole file come first.
func (d *Document) Findings() []Finding {
	slices.SortStableFunc(d.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Code, b.Code))
	})
	return d.findings
}

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
		d.Errorf(n, "E104", "", "%s must be true or false", what)
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
		d.Errorf(n, "E104", "write it like 30s, 15m or 12h", "%s must be a positive duration", what)
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

func suggestion(name string, candidates []string) string {
	if near := Nearest(name, candidates); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "known keys: " + strings.Join(candidates, ", ")
}

// Nearest returns the candidate that name is probably a misspelling of, or "" when none is near.
func Nearest(name string, candidates []string) string {
	best, bestDistance := "", max(2, len(name)/3)+1
	for _, c := range candidates {
		if distance := editDistance(strings.ToLower(name), strings.ToLower(c)); distance < bestDistance && distance < len(c) {
			best, bestDistance = c, distance
		}
	}
	return best
}

// editDistance counts insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	previous, row := []int(nil), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], previous[j-2]+1)
			}
		}
		previous, row = row, next
	}
	return row[len(b)]
}
