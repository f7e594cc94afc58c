package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

// Pages are what people see. They need no script, and their one style sheet is part of the page, allowed by its hash alone.
type Pages struct {
	publicURL *url.URL
	templates map[string]*template.Template
	style     template.CSS
	policy    string
}

// pageData is what the templates may use; each uses what it needs. docs/pages.md promises it to those who write their own.
type pageData struct {
	Title    string
	Host     string
	Style    template.CSS
	Text     string
	Reason   string // of an error, as programs get it
	Ref      string
	Login    string
	ReturnTo string
	Action   string
	Provider string // where the browser goes on its own
	Target   string // of that
	Refresh  bool   // the page itself says so
	Choices  []choice
	Sessions []shownSession
	More     int // sessions that are not among them
	Logout   string
}

// A shownSession is a line of the page of one's sessions.
type shownSession struct {
	OwnSession
	Current             bool
	Device, Since, Used string
}

type choice struct{ Name, Initial, URL string }

// NewPages loads the pages, with those of the configured folder in place of the program's own.
func NewPages(c *Config) (*Pages, error) {
	p, findings := loadPages(c.Pages)
	if p == nil {
		var all []error
		for _, finding := range findings {
			all = append(all, errors.New(finding.String()))
		}
		return nil, errors.Join(all...)
	}
	p.publicURL = c.PublicURL
	return p, nil
}

func (p *Pages) render(name string, data pageData) (*bytes.Buffer, error) {
	data.Style = p.style
	var page bytes.Buffer
	return &page, p.templates[name].Execute(&page, data)
}

func (p *Pages) write(w http.ResponseWriter, status int, name string, data pageData) error {
	data.Host = p.publicURL.Host
	page, err := p.render(name, data)
	if err != nil {
		return fmt.Errorf("page %s: %w", name, err)
	}
	w.Header().Set("Content-Security-Policy", p.policy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w) // fails when the browser has gone
	return nil
}

// path is the address of one of our own routes, as a page links to it.
func (p *Pages) path(route string) string { return p.publicURL.Path + route }

func (p *Pages) chooser(w http.ResponseWriter, providers []*Provider, returnTo string) error {
	data := pageData{Title: "Log in"}
	for _, provider := range providers {
		initial, _ := utf8.DecodeRuneInString(provider.Name)
		data.Choices = append(data.Choices, choice{
			Name: provider.Name, Initial: strings.ToUpper(string(initial)),
			URL: p.path("/login/"+provider.ID) + "?return_to=" + url.QueryEscape(returnTo),
		})
	}
	return p.write(w, http.StatusOK, "chooser", data)
}

func (p *Pages) error(w http.ResponseWriter, public publicError, ref string) {
	data := pageData{Title: public.title, Text: public.text, Reason: public.reason, Ref: ref}
	if public.again {
		data.Login = p.path("/login")
	}
	public.setHeader(w.Header())
	if err := p.write(w, public.status, "error", data); err != nil {
		http.Error(w, public.title, public.status)
	}
}

func (p *Pages) confirmLogout(w http.ResponseWriter, returnTo string) error {
	// With no-referrer the form's Origin is "null", which is all that browsers without Fetch Metadata send (isSameOriginPost).
	w.Header().Set("Referrer-Policy", "same-origin")
	return p.write(w, http.StatusOK, "logout", pageData{Title: "Log out?", Action: p.path("/logout"), ReturnTo: returnTo})
}

// maxRefresh is how long an address may be in a header: proxies in front of us have room for 4 KB of them (nginx, proxy_buffer_size).
const maxRefresh = 2 << 10

// leave sends the browser to the provider's logout. A redirect would be stopped by form-action, which holds for what follows a form, too.
func (p *Pages) leave(w http.ResponseWriter, provider, target string) error {
	data := pageData{Title: "You are logged out", Provider: provider, Target: target, Refresh: len(target) > maxRefresh}
	if !data.Refresh {
		w.Header().Set("Refresh", "0; url="+target)
	}
	return p.write(w, http.StatusOK, "leave", data)
}

// loggedOut says that it is done. here: the provider was not asked.
func (p *Pages) loggedOut(w http.ResponseWriter, returnTo string, here bool) error {
	data := pageData{Title: "You are logged out", Text: "Your session at this service has ended.", ReturnTo: returnTo, Login: p.path("/login")}
	if here {
		data.Text += " At the provider you may still be logged in."
	}
	return p.write(w, http.StatusOK, "loggedout", data)
}

func (p *Pages) sessions(w http.ResponseWriter, own []OwnSession, more int, current string, providers []*Provider, now time.Time) error {
	data := pageData{Title: "Your sessions", Action: p.path("/sessions"), Logout: p.path("/logout"), More: more}
	for _, session := range own {
		if session.ID == current {
			session.LastSeen = now // which is not written yet
		}
		if provider, err := findProvider(providers, session.Provider); err == nil {
			session.Provider = provider.Name
		}
		data.Sessions = append(data.Sessions, shownSession{
			OwnSession: session, Current: session.ID == current,
			Device: device(session.UserAgent), Since: ago(now.Sub(session.Begun)), Used: ago(now.Sub(session.LastSeen)),
		})
	}
	w.Header().Set("Referrer-Policy", "same-origin") // as on the page of logout
	return p.write(w, http.StatusOK, "sessions", data)
}

// ago is a time in words. The page has no script, so it cannot know what the person's clock shows.
func ago(d time.Duration) string {
	words := func(n int, unit string) string {
		if n == 1 {
			return "1 " + unit + " ago"
		}
		return fmt.Sprintf("%d %ss ago", n, unit)
	}
	switch {
	case d < 2*time.Minute: // the last use is noted once a minute
		return "just now"
	case d < time.Hour:
		return words(int(d/time.Minute), "minute")
	case d < 24*time.Hour:
		return words(int(d/time.Hour), "hour")
	default:
		return words(int(d/(24*time.Hour)), "day")
	}
}
