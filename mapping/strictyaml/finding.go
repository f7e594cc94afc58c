package strictyaml

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

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

// Errorf adds an error at the node. fix may be empty.
func (d *Document) Errorf(at *yaml.Node, code, fix, format string, args ...any) {
	d.at(at, Error, code, fmt.Sprintf(format, args...), fix)
}

// Warnf adds a warning at the node. fix may be empty. A comment on its line, or alone on the line above, silences it when it gives a
// reason: # allow W506: kept for the audit.
func (d *Document) Warnf(at *yaml.Node, code, fix, format string, args ...any) {
	if at == nil || !d.Allowed(at.Line, code) {
		d.at(at, Warning, code, fmt.Sprintf(format, args...), fix)
	}
}

var allowance = regexp.MustCompile(`#\s*allow\s+([A-Z]\d{3}(?:\s*,\s*[A-Z]\d{3})*):\s*\S`)

// Allowed reports whether a comment silences the warning on this line.
func (d *Document) Allowed(line int, code string) bool {
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
	Sort(d.findings)
	return d.findings
}

// Sort orders the findings of one file by position; those about the whole file come first.
func Sort(findings []Finding) {
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Code, b.Code))
	})
}
