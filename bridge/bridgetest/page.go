package bridgetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// Page is an answer that a [Browser] received.
type Page struct {
	URL     *url.URL // after all redirects, with the fragment
	Status  int
	Header  http.Header
	Body    []byte
	History []*Page // the redirects on the way, first to last
}

// Link is an <a href> of a page.
type Link struct {
	Text string
	URL  *url.URL // absolute
}

// Form is a <form> of a page.
type Form struct {
	ID      string
	Method  string     // GET or POST
	Action  *url.URL   // absolute
	Fields  url.Values // as the page filled them in
	Buttons []Button   // those that submit it
}

// Button submits a form. Its name, if it has one, is sent with its value when it is the one that was pressed.
type Button struct {
	Text, Name, Value string
}

// Title returns the text of <title>.
func (p *Page) Title() string {
	for n := range p.elements(atom.Title) {
		return text(n)
	}
	return ""
}

// Text returns the text that a person reads, with single spaces; of a page that is not HTML the body.
func (p *Page) Text() string {
	if !p.isHTML() {
		return string(p.Body)
	}
	for n := range p.elements(atom.Body) {
		return text(n)
	}
	return ""
}

// Links returns the page's links in their order.
func (p *Page) Links() []Link {
	var links []Link
	for n := range p.elements(atom.A) {
		href, ok := attribute(n, "href")
		if !ok {
			continue
		}
		if u, err := p.URL.Parse(strings.TrimSpace(href)); err == nil {
			links = append(links, Link{Text: text(n), URL: u})
		}
	}
	return links
}

// Forms returns the page's forms in their order.
func (p *Page) Forms() []Form {
	var forms []Form
	for n := range p.elements(atom.Form) {
		action, _ := attribute(n, "action")
		u, err := p.URL.Parse(strings.TrimSpace(action))
		if err != nil {
			continue
		}
		form := Form{Method: http.MethodGet, Action: u, Fields: url.Values{}}
		form.ID, _ = attribute(n, "id")
		if method, _ := attribute(n, "method"); strings.EqualFold(method, http.MethodPost) {
			form.Method = http.MethodPost
		}
		for control := range n.Descendants() {
			form.add(control)
		}
		forms = append(forms, form)
	}
	return forms
}

// add takes a control of the form: a field or a button.
func (f *Form) add(n *html.Node) {
	name, _ := attribute(n, "name")
	value, _ := attribute(n, "value")
	if _, disabled := attribute(n, "disabled"); disabled {
		return
	}
	kind, _ := attribute(n, "type")
	switch n.DataAtom {
	case atom.Button:
		if kind == "" || kind == "submit" {
			f.Buttons = append(f.Buttons, Button{Text: text(n), Name: name, Value: value})
		}
	case atom.Input:
		switch kind {
		case "submit":
			f.Buttons = append(f.Buttons, Button{Text: value, Name: name, Value: value})
			return
		case "button", "reset", "image", "file":
			return
		case "checkbox", "radio":
			if _, checked := attribute(n, "checked"); !checked {
				return
			}
			if _, ok := attribute(n, "value"); !ok {
				value = "on"
			}
		}
		if name != "" {
			f.Fields.Add(name, value)
		}
	case atom.Textarea:
		if n.FirstChild != nil {
			value = n.FirstChild.Data
		}
		if name != "" {
			f.Fields.Add(name, value)
		}
	case atom.Select:
		if option := selectedOption(n); name != "" && option != nil {
			value, ok := attribute(option, "value")
			if !ok {
				value = text(option)
			}
			f.Fields.Add(name, value)
		}
	}
}

func selectedOption(n *html.Node) *html.Node {
	var first *html.Node
	for option := range n.Descendants() {
		if option.DataAtom != atom.Option {
			continue
		}
		if _, selected := attribute(option, "selected"); selected {
			return option
		}
		if first == nil {
			first = option
		}
	}
	return first
}

// find returns a form and the button that submits it, nil for none (see Browser.Submit).
func (p *Page) find(selector string) (Form, *Button, error) {
	for _, form := range p.Forms() {
		if i := slices.IndexFunc(form.Buttons, func(b Button) bool { return selector != "" && b.Text == selector }); i >= 0 {
			return form, &form.Buttons[i], nil
		}
		if selector == "" || selector == form.ID || selector == form.Action.Path {
			return form, nil, nil
		}
	}
	return Form{}, nil, fmt.Errorf("no form %q at %s (status %d): %s", selector, p.URL, p.Status, p.Text())
}

// fill returns the fields to send. Without a pressed button it is the form's first one, unless the values name a button themselves.
func (f *Form) fill(pressed *Button, values url.Values) url.Values {
	fields := url.Values{}
	for name, list := range f.Fields {
		fields[name] = slices.Clone(list)
	}
	named := slices.ContainsFunc(f.Buttons, func(b Button) bool { return values.Has(b.Name) })
	if pressed == nil && len(f.Buttons) > 0 && !named {
		pressed = &f.Buttons[0]
	}
	if pressed != nil && pressed.Name != "" {
		fields.Set(pressed.Name, pressed.Value)
	}
	for name, list := range values {
		fields[name] = list
	}
	return fields
}

// Refresh returns the absolute URL of the Refresh header, nil without one.
func (p *Page) Refresh() *url.URL {
	_, target, ok := strings.Cut(p.Header.Get("Refresh"), "=")
	if !ok {
		return nil
	}
	u, err := p.URL.Parse(strings.Trim(target, `"' `))
	if err != nil {
		return nil
	}
	return u
}

// JSON decodes the body.
func (p *Page) JSON(v any) error {
	if err := json.Unmarshal(p.Body, v); err != nil {
		return fmt.Errorf("%s (status %d) is not the expected JSON: %w: %s", p.URL, p.Status, err, p.Body)
	}
	return nil
}

var redirectStatuses = []int{
	http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect,
}

// redirect returns where the answer sends a browser, nil if nowhere. The fragment lives on.
func (p *Page) redirect() (*url.URL, error) {
	location := p.Header.Get("Location")
	if location == "" || !slices.Contains(redirectStatuses, p.Status) {
		return nil, nil
	}
	target, err := p.URL.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("redirect from %s: %w", p.URL, err)
	}
	if target.Fragment == "" {
		target.Fragment, target.RawFragment = p.URL.Fragment, p.URL.RawFragment
	}
	return target, nil
}

func (p *Page) isHTML() bool {
	kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
	return kind == "text/html" || kind == "application/xhtml+xml"
}

// elements yields the elements of one kind, in document order; none if the page is not HTML.
func (p *Page) elements(kind atom.Atom) func(yield func(*html.Node) bool) {
	return func(yield func(*html.Node) bool) {
		if !p.isHTML() {
			return
		}
		document, err := html.Parse(bytes.NewReader(p.Body))
		if err != nil {
			return // only a failing reader has errors
		}
		for n := range document.Descendants() {
			if n.DataAtom == kind && !yield(n) {
				return
			}
		}
	}
}

func attribute(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

// text returns the text of a node without scripts, styles and what is hidden from everybody, with single spaces.
func text(n *html.Node) string {
	var b strings.Builder
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.TextNode {
			b.WriteString(n.Data)
		}
		if _, hidden := attribute(n, "hidden"); hidden || n.DataAtom == atom.Script || n.DataAtom == atom.Style || n.DataAtom == atom.Template {
			return
		}
		for child := range n.ChildNodes() {
			walk(child)
		}
		if n.Type == html.ElementNode {
			b.WriteString(" ") // else the words of neighbouring blocks would run together
		}
	}
	walk(n)
	return strings.Join(strings.Fields(b.String()), " ")
}
