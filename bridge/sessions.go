package bridge

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
)

const sessionsShown = 100 // at most; the button for all others ends those as well that are not shown

var sessionID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// handleSessions is GET /sessions: where a person is logged in. Without a session it leads to the login, and back.
func handleSessions(sessions sessionReader, store *Store, pages *Pages) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !isNavigation(r) {
			return fmt.Errorf("%w: a page for people, by going to its address", ErrCrossSite)
		}
		grant, err := sessions.decide(r)
		if errors.Is(err, ErrNoSession) {
			http.Redirect(w, r, pages.path("/login")+"?return_to="+url.QueryEscape(pages.path("/sessions")), http.StatusSeeOther)
			return nil
		}
		if err != nil {
			return err
		}
		own, more, err := store.OwnSessions(r.Context(), grant.Session, sessionsShown)
		if err != nil {
			return err
		}
		return pages.sessions(w, own, more, grant.Session.ID, sessions.providers, sessions.now())
	}
}

// handleEndSession is POST /sessions, from that page: `end` is the id of a session, or nothing for all others. What is not theirs does not end,
// and the answer is the same: the list.
func handleEndSession(c *Config, sessions sessionReader, store *Store, pages *Pages) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := readOwnForm(c, r, "end of a session"); err != nil {
			return err
		}
		ids := r.PostForm["end"]
		if len(ids) != 1 || ids[0] != "others" && !sessionID.MatchString(ids[0]) {
			return fmt.Errorf("%w: which session is to end", ErrAmbiguous)
		}
		grant, err := sessions.decide(r)
		switch {
		case errors.Is(err, ErrNoSession): // the list leads to the login
		case err != nil:
			return err
		case ids[0] == grant.Session.ID: // logout does more than end it; 307 makes the browser send this POST there
			http.Redirect(w, r, pages.path("/logout"), http.StatusTemporaryRedirect)
			return nil
		default:
			id := ids[0]
			if id == "others" {
				id = ""
			}
			if err := store.EndOwnSession(r.Context(), grant.Session, id); err != nil {
				return err
			}
		}
		http.Redirect(w, r, pages.path("/sessions"), http.StatusSeeOther)
		return nil
	}
}
