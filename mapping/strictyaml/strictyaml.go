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
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 1 << 20

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

// tabIndent is a line that YAML refuses wherever a block may begin; the library's message does not say tab, or names another line.
var tabIndent = regexp.MustCompile(`^ *\t\s*\S`)

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
		if at := slices.IndexFunc(d.lines, tabIndent.MatchString); at >= 0 {
			whole(at+1, "not YAML: a tab in the indentation", "indent with spaces")
			return d
		}
		// The library names the line where it noticed, which may be the one before the mistake, or the start of the block.
		whole(min(line, len(d.lines)), "not YAML: "+message, "look at the indentation and the brackets of this line and those below it")
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
