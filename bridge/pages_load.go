package bridge

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

//go:embed pages
var embeddedPages embed.FS

const (
	layoutFile  = "page.html"
	styleFile   = "style.css"
	maxPageFile = 128 << 10
	pagesHelp   = "docs/pages.md says what each page gets and must keep"
)

var (
	templateError = regexp.MustCompile(`^(?:html/)?template: ?([^:]+):(\d+)(?::(\d+))?: (.*)$`)
	styleElement  = regexp.MustCompile(`(?is)<style[^>]*>(.*?)</style`)
	ownStyle      = regexp.MustCompile(`^\{\{-? *\$?\.Style *-?\}\}$`)
	// What browsers leave out because of the pages' Content-Security-Policy, and say so on their console alone.
	stoppedHTML = regexp.MustCompile(`(?is)<(?:script|link|base|img|image|i?frame|object|embed|audio|video)\b|<[a-z][^<>]*?\s(?:style|on[a-z]+)\s*=`)
	stoppedCSS  = regexp.MustCompile(`(?i)@import|url\(|image-set\(`)
)

// loadPages reads the program's own pages, takes those of the folder dir in their place ("": there is none), and renders each with every kind
// of data that it may get. The pages are nil when a finding is an error.
func loadPages(dir string) (*Pages, []strictyaml.Finding) {
	l := pageLoader{dir: dir, files: map[string]string{}, replaced: map[string]bool{}}
	l.embedded()
	if dir != "" {
		l.folder()
	}
	style := l.files[styleFile]
	sum := sha256.Sum256([]byte(style))
	p := &Pages{
		templates: map[string]*template.Template{},
		style:     template.CSS(style),
		policy: fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
			base64.StdEncoding.EncodeToString(sum[:])),
	}
	for _, sample := range pageSamples() {
		if p.templates[sample.page] == nil {
			t, err := template.New(layoutFile).Parse(l.files[layoutFile])
			if err == nil {
				t, err = t.New(sample.page + ".html").Parse(l.files[sample.page+".html"])
			}
			if err != nil {
				l.broken(sample.page, err)
				continue
			}
			p.templates[sample.page] = t
		}
		sample.data.Host = "app.example.com"
		page, err := p.render(sample.page, sample.data)
		if err != nil {
			l.broken(sample.page, err)
			continue
		}
		plain := strings.NewReplacer(`"`, "", "'", "").Replace(strings.ToLower(page.String()))
		for _, text := range sample.must {
			if !strings.Contains(plain, text) {
				l.add(l.blamed(sample.page), 0, 1, fmt.Sprintf("the page %s comes out without %s, which it had with the program's own files", sample.page, text), pagesHelp)
			}
		}
	}
	if strictyaml.Errors(l.findings) {
		return nil, l.findings
	}
	return p, l.findings
}

// A pageLoader never stops at a finding.
type pageLoader struct {
	dir      string
	files    map[string]string
	replaced map[string]bool // those of dir
	findings []strictyaml.Finding
}

func (l *pageLoader) embedded() {
	entries, _ := embeddedPages.ReadDir("pages") // of what is part of the program
	for _, entry := range entries {
		text, _ := embeddedPages.ReadFile(path.Join("pages", entry.Name()))
		l.files[entry.Name()] = string(text)
	}
}

// add is an error in a file of dir, once.
func (l *pageLoader) add(name string, line, column int, message, fix string) {
	finding := strictyaml.Finding{File: filepath.Join(l.dir, name), Line: line, Severity: strictyaml.Error, Message: message, Fix: fix}
	if lines := strings.Split(l.files[name], "\n"); line > 0 && line <= len(lines) {
		finding.Column, finding.Source = column, lines[line-1]
	}
	if !slices.Contains(l.findings, finding) {
		l.findings = append(l.findings, finding)
	}
}

func (l *pageLoader) addAt(name string, offset int, message, fix string) {
	before := l.files[name][:offset]
	l.add(name, strings.Count(before, "\n")+1, utf8.RuneCountInString(before[strings.LastIndex(before, "\n")+1:])+1, message, fix)
}

// blamed is the file of dir that a page is wrong because of.
func (l *pageLoader) blamed(page string) string {
	for _, name := range []string{page + ".html", layoutFile, styleFile} {
		if l.replaced[name] {
			return name
		}
	}
	return ""
}

// broken finds the place in an error of html/template.
func (l *pageLoader) broken(page string, err error) {
	m := templateError.FindStringSubmatch(oneLine(err.Error()))
	if m == nil {
		l.add(l.blamed(page), 0, 1, fmt.Sprintf("the page %s: %s", page, oneLine(err.Error())), pagesHelp)
		return
	}
	line, _ := strconv.Atoi(m[2])
	column, _ := strconv.Atoi(cmp.Or(m[3], "0")) // theirs begin at 0
	if l.replaced[m[1]] {
		l.add(m[1], line, column+1, m[4], pagesHelp)
	} else {
		l.add(l.blamed(page), 0, 1, fmt.Sprintf("the program's own %s does not fit to it: %s", m[1], m[4]), pagesHelp)
	}
}

// folder reads the files of dir. A Root does not leave it: links inside it are followed (a mounted ConfigMap is made of them), others refused.
func (l *pageLoader) folder() {
	root, err := os.OpenRoot(l.dir)
	if err == nil {
		defer root.Close()
	}
	var entries []fs.DirEntry
	if err == nil {
		entries, err = fs.ReadDir(root.FS(), ".")
	}
	if err != nil {
		message := oneLine(err.Error())
		if errors.Is(err, fs.ErrNotExist) {
			message = "there is no such folder"
		}
		l.add("", 0, 1, message, "`pages` in config.yaml must name a folder that this process may read; without it the program's own pages are used")
		return
	}
	known := slices.Sorted(maps.Keys(l.files))
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		if !slices.Contains(known, name) {
			fix := "it would never be shown: remove it; the names are " + strings.Join(known, ", ")
			if near := strictyaml.Nearest(name, known); near != "" {
				fix = fmt.Sprintf("did you mean %q?", near)
			}
			l.add(name, 0, 1, "there is no such page", fix)
			continue
		}
		text, err := readPage(root, name)
		if err != nil {
			l.add(name, 0, 1, oneLine(err.Error()), fmt.Sprintf("a regular file inside the folder, of at most %d KB of UTF-8, that this process may read", maxPageFile>>10))
			continue
		}
		l.files[name], l.replaced[name] = text, true
		l.checkFile(name, text)
	}
	if len(l.replaced) == 0 && len(l.findings) == 0 {
		l.findings = append(l.findings, strictyaml.Finding{
			File: l.dir, Severity: strictyaml.Warning, Message: "no page is in this folder", Fix: "the names are " + strings.Join(known, ", "),
		})
	}
}

func readPage(root *os.Root, name string) (string, error) {
	info, err := root.Stat(name) // before it is opened: a pipe would wait for somebody who writes
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", errors.New("this is not a regular file")
	case info.Size() > maxPageFile:
		return "", fmt.Errorf("this has %d KB", info.Size()>>10)
	}
	text, err := root.ReadFile(name)
	if err == nil && (!utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0) {
		err = errors.New("this is not text in UTF-8")
	}
	// Browsers read other ends of lines as \n, and hash the style sheet after that.
	return strings.NewReplacer("\ufeff", "", "\r\n", "\n", "\r", "\n").Replace(string(text)), err
}

// checkFile finds what a browser would leave out, as far as the text shows it.
func (l *pageLoader) checkFile(name, text string) {
	const policy = "the Content-Security-Policy of the pages forbids it: put what it does into style.css, and pictures into the page as <svg>"
	if name == styleFile {
		if at := strings.Index(text, "</"); at >= 0 {
			l.addAt(name, at, "</ would end the style element", "write <\\/")
		}
		if at := stoppedCSS.FindStringIndex(text); at != nil {
			l.addAt(name, at[0], text[at[0]:at[1]]+": browsers will not load this", "the Content-Security-Policy of the pages forbids it: draw with CSS, and put pictures into page.html as <svg>")
		}
		return
	}
	for _, at := range stoppedHTML.FindAllStringIndex(text, -1) {
		found := strings.Join(strings.Fields(text[at[0]:at[1]]), " ")
		l.addAt(name, at[0], oneLine(found)+": browsers will not load or run this", policy)
	}
	for _, at := range styleElement.FindAllStringSubmatchIndex(text, -1) {
		if !ownStyle.MatchString(text[at[2]:at[3]]) {
			l.addAt(name, at[0], "browsers will not use this style", "write <style>{{.Style}}</style>, without spaces around: its hash is in the Content-Security-Policy")
		}
	}
}

// A pageSample is a page as it may be, and what must be in it, in lower case and without quotation marks.
type pageSample struct {
	page string
	data pageData
	must []string
}

func pageSamples() []pageSample {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	session := func(id string, current bool) shownSession {
		return shownSession{
			OwnSession: OwnSession{ID: id, Provider: "Example Corp", UserAgent: "Mozilla/5.0", Begun: at, LastSeen: at},
			Current:    current, Device: "Firefox on Linux", Since: "2 days ago", Used: "just now",
		}
	}
	sessions := pageData{Title: "Your sessions", Action: "/sample/sessions", Logout: "/sample/logout", Sessions: []shownSession{session("sample-1", true)}}
	several := sessions
	several.More, several.Sessions = 3, append(several.Sessions, session("sample-2", false))
	leave := pageData{Title: "You are logged out", Provider: "Example Corp", Target: "https://sso.example.com/sample/end"}
	refresh := leave
	refresh.Refresh = true
	failed := pageData{Title: "You have no access", Text: "What happened and what to do.", Reason: "access_denied", Ref: "SAMP-2345", Login: "/sample/login"}
	return []pageSample{
		{
			"chooser",
			pageData{Title: "Log in", Choices: []choice{{"Example Corp", "E", "/sample/login/a"}, {"Google", "G", "/sample/login/b"}}},
			[]string{"href=/sample/login/a", "href=/sample/login/b", "example corp", "google"},
		},
		{"error", failed, []string{"samp-2345", "href=/sample/login"}},
		{"error", pageData{Title: "There is no such page", Text: "The address is wrong.", Reason: "not_found"}, nil},
		{
			"logout",
			pageData{Title: "Log out?", Action: "/sample/logout", ReturnTo: "/sample/return"},
			[]string{"method=post", "action=/sample/logout", "name=return_to", "value=/sample/return"},
		},
		{"leave", leave, []string{"href=https://sso.example.com/sample/end"}},
		{"leave", refresh, []string{"http-equiv=refresh", "content=0; url=https://sso.example.com/sample/end"}},
		{
			"loggedout",
			pageData{Title: "You are logged out", Text: "Your session has ended.", ReturnTo: "/sample/return", Login: "/sample/login"},
			[]string{"href=/sample/return"},
		},
		{"sessions", sessions, []string{"method=post", "action=/sample/logout"}},
		{"sessions", several, []string{"method=post", "action=/sample/sessions", "name=end", "value=sample-2", "value=others"}},
	}
}
