package bridge

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

func folderOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func ownPage(t *testing.T, name string) string {
	t.Helper()
	text, err := embeddedPages.ReadFile("pages/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// answerOf is the page of an error, made of the folder's files.
func answerOf(t *testing.T, dir string) (page, policy string) {
	t.Helper()
	pages, err := NewPages(&Config{Pages: dir, PublicURL: &url.URL{Scheme: "https", Host: "shop.example.com", Path: "/auth"}})
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	pages.error(answer, publicErrorOf(ErrRefused), "<b>K7QD</b>")
	return answer.Body.String(), answer.Header().Get("Content-Security-Policy")
}

// wantStyle: the page has this style, and the policy allows it and nothing else.
func wantStyle(t *testing.T, page, policy, style string) {
	t.Helper()
	sum := sha256.Sum256([]byte(style))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
	if policy != want || !strings.Contains(page, "<style>"+style+"</style>") {
		t.Errorf("policy %q, want %q, for the style of\n%s", policy, want, page)
	}
}

func TestPagesOfOnesOwn(t *testing.T) {
	t.Parallel()
	t.Run("style", func(t *testing.T) {
		t.Parallel()
		page, policy := answerOf(t, folderOf(t, map[string]string{"style.css": "\ufeffh1 { color: teal; }\r\np > b::after { content: '<\\/'; }\r\n"}))
		wantStyle(t, page, policy, "h1 { color: teal; }\np > b::after { content: '<\\/'; }\n")
		if !strings.Contains(page, "Code for the people who run this service") {
			t.Errorf("the other files are not the program's own:\n%s", page)
		}
	})
	t.Run("template", func(t *testing.T) {
		t.Parallel()
		page, policy := answerOf(t, folderOf(t, map[string]string{
			"error.html": `{{define "content"}}<p>{{if eq .Reason "access_denied"}}Kein Zugang{{end}} <code>{{.Ref}}</code> <a href="{{.Login}}">Anmelden</a>{{end}}{{template "page" .}}`,
		}))
		wantStyle(t, page, policy, ownPage(t, "style.css"))
		if !strings.Contains(page, `Kein Zugang <code>&lt;b&gt;K7QD&lt;/b&gt;</code> <a href="/auth/login">Anmelden</a>`) {
			t.Errorf("the page is\n%s", page)
		}
	})
	t.Run("document", func(t *testing.T) {
		t.Parallel()
		text, err := os.ReadFile("../docs/pages.md")
		if err != nil {
			t.Fatal(err)
		}
		block := func(mark string) string {
			m := regexp.MustCompile("(?s)<!-- test: pages " + mark + " -->\n```[a-z]+\n(.*?)```").FindSubmatch(text)
			if m == nil {
				t.Fatalf("docs/pages.md has no block %q", mark)
			}
			return string(m[1])
		}
		style := ownPage(t, "style.css") + block("style")
		page, policy := answerOf(t, folderOf(t, map[string]string{"style.css": style, "page.html": block("page.html")}))
		wantStyle(t, page, policy, style)
		if !strings.Contains(page, `aria-label="Example Corp"`) {
			t.Errorf("no logo in\n%s", page)
		}
		for _, field := range regexp.MustCompile(`(?m)^\t(\w+) `).FindAllStringSubmatch(string(ownSource(t)), -1) {
			if !strings.Contains(string(text), "`"+field[1]+"`") {
				t.Errorf("docs/pages.md says nothing of %s", field[1])
			}
		}
	})
}

// ownSource is the declaration of pageData.
func ownSource(t *testing.T) []byte {
	t.Helper()
	source, err := os.ReadFile("pages.go")
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?s)type pageData struct \{\n.*?\n\}`).Find(source)
}

// TestPagesThatDoNotFit has one mistake per row, in one file: each is found where it stands, and nothing is served.
func TestPagesThatDoNotFit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ file, replace, by, want string }{
		{"page.html", "{{.Title}} ·", "{{.Title ·", "page.html:9:1: error: |docs/pages.md"},
		{"page.html", "<h1>{{.Title}}", "<h1>{{.Name}}", "page.html:15:7: error: |can't evaluate field Name|<h1>{{.Name}}</h1>"},
		{"page.html", "<h1>{{.Title}}", "<h1>{{safeHTML .Title}}", `page.html:15:1: error: function "safeHTML" not defined`},
		{"page.html", `<p class="host">{{.Host}}</p>`, `<p class="host>{{.Host}}</p>`, "page.html: error: |error: "},
		{"page.html", `{{- define "page" -}}`, `{{- define "pages" -}}`, `page.html: error: the program's own chooser.html does not fit to it: |no such template "page"`},
		{"page.html", "<style>{{.Style}}</style>", "<style>\n{{.Style}}\n</style>", "page.html:10:1: error: browsers will not use this style|write <style>{{.Style}}</style>"},
		{"page.html", "<h1>", `<script src="https://cdn.example.com/x.js"></script><h1>`, "page.html:15:1: error: <script: browsers will not load or run this|Content-Security-Policy"},
		{"page.html", "<h1>", `<img src="/logo.png" alt=""><h1>`, "page.html:15:1: error: <img"},
		{"page.html", "<h1>", "<h1\nstyle='color: red'>", "page.html:15:1: error: <h1 style="},
		{"page.html", "<h1>", `<h1 onclick="alert()">`, "page.html:15:1: error: <h1 onclick="},
		{"page.html", `<meta http-equiv="refresh" content="0; url={{.Target}}">`, "", "the page leave comes out without http-equiv=refresh"},
		{"error.html", "<code>{{.Ref}}</code>", "<code></code>", "error.html: error: the page error comes out without samp-2345"},
		{"error.html", "{{if .Login}}", "{{if .Longin}}", "error.html:2:6: error: "},
		{"error.html", "{{if .Login}}", "{{if .Login}}<a href='", "error.html"},
		{"chooser.html", "{{range .Choices}}", "{{with index .Choices 0}}", "chooser.html: error: the page chooser comes out without href=/sample/login/b"},
		{"chooser.html", "{{.Initial}}", "{{.Letter}}", "chooser.html:3:90:"},
		{"logout.html", ` method="post"`, "", "logout.html: error: the page logout comes out without method=post"},
		{"logout.html", `name="return_to"`, `name="to"`, "without name=return_to"},
		{"leave.html", `href="{{.Target}}"`, `href="#"`, "without href=https://sso.example.com/sample/end"},
		{"loggedout.html", `href="{{.ReturnTo}}"`, `href="/"`, "without href=/sample/return"},
		{"sessions.html", "{{.ID}}", "", "without value=sample-2"},
		{"sessions.html", `value="others"`, "", "without value=others"},
		{"sessions.html", "{{$.Logout}}", "{{$.Action}}", "without action=/sample/logout"},
		{"style.css", "* {", "/* </style><script>alert()</script> */ * {", "style.css:26:4: error: </ would end the style element"},
		{"style.css", "* {", "@import 'x.css'; * {", "style.css:26:1: error: @import: browsers will not load this"},
		{"style.css", "* {", "* { background: URL(https://cdn.example.com/x.png);", "style.css:26:17: error: URL(: browsers"},
		{"style.css", "* {", "\x00* {", "style.css: error: this is not text in UTF-8"},
		{"style.css", "* {", "\xff* {", "style.css: error: this is not text in UTF-8"},
		{"style.css", "* {", strings.Repeat(" ", maxPageFile) + "* {", "style.css: error: this has 1|at most 128 KB"},
	} {
		text := strings.Replace(ownPage(t, test.file), test.replace, test.by, 1)
		if text == ownPage(t, test.file) {
			t.Errorf("%s has no %q", test.file, test.replace)
		}
		wantRefused(t, folderOf(t, map[string]string{test.file: text}), test.want)
	}
}

// TestFoldersThatAreNoPages: what a folder may hold, and where its links may lead.
func TestFoldersThatAreNoPages(t *testing.T) {
	t.Parallel()
	wantRefused(t, filepath.Join(t.TempDir(), "missing"), "missing: error: there is no such folder|`pages` in config.yaml")
	wantRefused(t, folderOf(t, map[string]string{"choser.html": ""}), `choser.html: error: there is no such page|did you mean "chooser.html"?`)
	wantRefused(t, folderOf(t, map[string]string{"logo.png": ""}), "logo.png: error: there is no such page|would never be shown|chooser.html, error.html")
	wantRefused(t, folderOf(t, map[string]string{"error.html": ""}), "error.html: error: ")

	made := func(by func(name string) error) string {
		dir := t.TempDir()
		if err := by(filepath.Join(dir, "style.css")); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	elsewhere := filepath.Join(folderOf(t, map[string]string{"style.css": "h1 { color: teal; }"}), "style.css")
	wantRefused(t, made(func(name string) error { return os.Symlink(elsewhere, name) }), "style.css: error: |escapes|inside the folder")
	wantRefused(t, made(func(name string) error { return os.Mkdir(name, 0o700) }), "style.css: error: this is not a regular file")
	wantRefused(t, made(func(name string) error { return syscall.Mkfifo(name, 0o600) }), "style.css: error: this is not a regular file")

	// A ConfigMap as Kubernetes mounts it.
	dir := t.TempDir()
	err := os.Mkdir(filepath.Join(dir, "..2026_01_02"), 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "..2026_01_02", "style.css"), []byte("h1 { color: teal; }"), 0o600)
	}
	if err == nil {
		err = os.Symlink("..2026_01_02", filepath.Join(dir, "..data"))
	}
	if err == nil {
		err = os.Symlink("..data/style.css", filepath.Join(dir, "style.css"))
	}
	if err != nil {
		t.Fatal(err)
	}
	page, policy := answerOf(t, dir)
	wantStyle(t, page, policy, "h1 { color: teal; }")

	if pages, findings := loadPages(t.TempDir()); pages == nil || len(findings) != 1 || !strings.Contains(findings[0].String(), "warning: no page is in this folder") {
		t.Errorf("an empty folder: %v", findings)
	}
}

func wantRefused(t *testing.T, dir, want string) {
	t.Helper()
	pages, findings := loadPages(dir)
	if pages != nil || !strictyaml.Errors(findings) {
		t.Errorf("taken: want %q", want)
	}
	all := fmt.Sprint(findings)
	for want := range strings.SplitSeq(want, "|") {
		if !strings.Contains(all, want) {
			t.Errorf("want %q in\n%s", want, all)
		}
	}
	if _, err := NewPages(&Config{Pages: dir}); err == nil {
		t.Error("the service starts with it")
	}
}
