package bridgetest

import (
	"bytes"
	"cmp"
	"html/template"
	"net/http"
	"slices"
)

type opPage struct {
	Title    string // of the error and signed-out pages
	Provider string
	Client   string
	Personas []Persona
	Message  string
}

const (
	errorPage     = "This request cannot be answered"
	signedOutPage = "You are signed out"
)

func (op *OP) writePersonas(w http.ResponseWriter, c Client) {
	op.mu.Lock()
	personas := slices.Clone(op.personas)
	op.mu.Unlock()
	op.write(w, http.StatusOK, opPage{Client: cmp.Or(c.Name, c.ID), Personas: personas})
}

func (op *OP) writePage(w http.ResponseWriter, status int, title, message string) {
	op.write(w, status, opPage{Title: title, Message: message})
}

func (op *OP) write(w http.ResponseWriter, status int, page opPage) {
	page.Provider = op.options.Name
	var body bytes.Buffer
	if err := opTemplate.Execute(&body, page); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	// No form-action: Chromium applies it to the redirect that follows the form, too.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// The form has no action, so it is sent to the page's own URL, in whose query the client's request still stands.
var opTemplate = template.Must(template.New("op").Funcs(template.FuncMap{
	"initial": func(name string) string {
		for _, r := range name {
			return string(r)
		}
		return "?"
	},
}).Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{if .Title}}{{.Title}}{{else}}Sign in{{end}} · {{.Provider}}</title>
<style>
:root {
  --back: #f4f5f7; --card: #fff; --text: #1c2330; --soft: #576074; --line: #d5d9e2;
  --accent: #4b3fb5; --accent-text: #fff; --hover: #f0effb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #12151c; --card: #1b202a; --text: #e8ebf2; --soft: #a4adbf; --line: #363d4c;
    --accent: #b3a9ff; --accent-text: #191533; --hover: #242a38;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; min-height: 100vh; min-height: 100dvh; display: grid; place-items: center; padding: 1rem;
  background: var(--back); color: var(--text); font: 1rem/1.5 system-ui, sans-serif;
}
main {
  width: min(28rem, 100%); padding: clamp(1.25rem, 5vw, 2rem); border: 1px solid var(--line); border-radius: 1rem;
  background: var(--card); box-shadow: 0 .5rem 2rem rgb(0 0 0 / .08);
}
h1 { margin: 0; font-size: 1.4rem; line-height: 1.25; overflow-wrap: anywhere; }
p { margin: .5rem 0 0; color: var(--soft); overflow-wrap: anywhere; }
.provider { margin: 0 0 1rem; font-weight: 600; color: var(--accent); }
ul { margin: 1.25rem 0; padding: 0; list-style: none; display: grid; gap: .5rem; }
button { font: inherit; color: inherit; cursor: pointer; border-radius: .75rem; border: 1px solid var(--line); background: none; }
button:hover { background: var(--hover); border-color: var(--accent); }
button:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.persona { width: 100%; min-height: 3.5rem; padding: .6rem .8rem; display: flex; gap: .8rem; align-items: center; text-align: start; }
.initial {
  flex: none; width: 2.25rem; height: 2.25rem; border-radius: 50%; display: grid; place-items: center; font-weight: 600;
  background: var(--accent); color: var(--accent-text);
}
.persona b, .persona small { display: block; overflow-wrap: anywhere; }
.persona small { color: var(--soft); font-size: .875rem; }
.cancel { width: 100%; min-height: 2.75rem; }
.demo { margin-top: 1.25rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .875rem; }
</style>
</head>
<body>
<main>
<p class="provider">{{.Provider}}</p>
{{if .Title}}<h1>{{.Title}}</h1>
{{with .Message}}<p>{{.}}</p>
{{end}}{{else}}<h1>Who would you like to be?</h1>
<p>You are signing in to <b>{{.Client}}</b>.</p>
<form method="post">
<ul>
{{range .Personas}}<li><button class="persona" name="subject" value="{{.Subject}}">
<span class="initial" aria-hidden="true">{{initial .Name}}</span>
<span><b>{{.Name}}</b>{{with .Note}} <small>{{.}}</small>{{end}}</span>
</button></li>
{{end}}</ul>
<button class="cancel" name="cancel" value="1">Cancel</button>
</form>
{{end}}<p class="demo">This is a demo provider. It asks for no password and everybody on it is made up.</p>
</main>
</body>
</html>
`))
