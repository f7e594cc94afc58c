// Package codes explains the codes of findings: what each means, why it is an error, an example that has it and the same example mended.
//
// The texts are archives in texts, one for each code. A test loads every example, so that none of them says what is not so, and holds the
// list of codes to those that the program can emit.
package codes

import (
	"embed"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

//go:embed texts/*.txtar
var texts embed.FS

// A Code is what there is to say about one code.
type Code struct {
	Code  string `json:"code"`
	Title string `json:"title"`
	Text  string `json:"text"` // why it is an error or a warning
	Wrong string `json:"wrong"`
	Right string `json:"right,omitempty"` // empty for what is mended in the database

	// What else makes the example what it is.
	Issuer   string `json:"issuer,omitempty"`    // of provider corp in config.yaml
	Now      string `json:"now,omitempty"`       // the day
	Mutate   bool   `json:"mutate,omitempty"`    // found by `rules test --mutate`
	WrongSQL string `json:"wrong_sql,omitempty"` // what somebody did in the database,
	RightSQL string `json:"right_sql,omitempty"` // and what mends it
}

// All returns every code, in order.
func All() []Code {
	entries, err := texts.ReadDir("texts")
	if err != nil {
		panic(err) // they are part of the program
	}
	var all []Code
	for _, entry := range entries {
		text, err := texts.ReadFile("texts/" + entry.Name())
		if err != nil {
			panic(err)
		}
		all = append(all, parse(strings.TrimSuffix(entry.Name(), ".txtar"), text))
	}
	// Errors of the file, of its tests, then warnings.
	slices.SortFunc(all, func(a, b Code) int { return strings.Compare(a.Code, b.Code) })
	return all
}

func parse(code string, text []byte) Code {
	archive := txtar.Parse(text)
	title, why, _ := strings.Cut(string(archive.Comment), "\n")
	c := Code{Code: code, Title: title, Text: strings.TrimSpace(why)}
	for _, f := range archive.Files {
		data := string(f.Data)
		switch f.Name {
		case "wrong.yaml":
			c.Wrong = data
		case "right.yaml":
			c.Right = data
		case "issuer":
			c.Issuer = strings.TrimSpace(data)
		case "now":
			c.Now = strings.TrimSpace(data)
		case "mutate":
			c.Mutate = true
		case "wrong.sql":
			c.WrongSQL = data
		case "right.sql":
			c.RightSQL = data
		}
	}
	return c
}

// Warning reports whether the code is one of a warning.
func (c Code) Warning() bool { return strings.HasPrefix(c.Code, "W") }
