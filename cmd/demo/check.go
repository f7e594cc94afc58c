package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// An outcome is what somebody meets who tries to log in and to see orders.
type outcome struct {
	role    string // "" when refused
	sees    int    // orders
	refusal string // what the refusal says
	code    string // its reference code
}

// check logs everybody in and out over HTTP, through the pages that a person would use. It writes a table and returns what is not as
// expected; an error means that it could not go on.
func (d *demo) check(ctx context.Context, w io.Writer) (different []string, err error) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PERSON\tROLE\tORDERS\tREFUSAL")
	refusal, different, err := d.checkVisitor(ctx)
	if err != nil {
		return nil, fmt.Errorf("a visitor: %w", err)
	}
	fmt.Fprintf(table, "a visitor\t-\t-\t%s\n", refusal)
	for _, p := range d.people {
		browser := bridgetest.NewBrowser()
		got, err := d.logIn(ctx, browser, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		different = append(different, p.differs(got)...)
		if got.role == "" {
			fmt.Fprintf(table, "%s\t-\t-\t%s\n", p.Name, got.refusal)
			continue
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t\n", p.Name, got.role, got.sees)
		after, err := d.logOut(ctx, browser)
		if err != nil {
			return nil, fmt.Errorf("%s logs out: %w", p.Name, err)
		}
		for _, line := range after {
			different = append(different, p.Name+", "+line)
		}
	}
	return different, table.Flush()
}

// differs compares with the expectations of people.go.
func (p person) differs(got outcome) (lines []string) {
	differ := func(what string, got, want any) {
		lines = append(lines, fmt.Sprintf("%s, %s: got %v, want %v", p.Name, what, got, want))
	}
	if got.role != p.role {
		differ("role", orNone(got.role), orNone(p.role))
	}
	if got.sees != p.sees {
		differ("orders", got.sees, p.sees)
	}
	if (p.refusal == "") != (got.refusal == "") || !strings.Contains(got.refusal, p.refusal) {
		differ("refusal", orNone(got.refusal), orNone(p.refusal))
	}
	if p.refusal != "" && got.code == "" {
		differ("code of the refusal", "none", "one")
	}
	return lines
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return fmt.Sprintf("%q", text)
}

// noToken is the answer of /api_token without a session, to the letter.
const noToken = `{"error":"only authenticated users can request the API token"}`

func (d *demo) checkVisitor(ctx context.Context) (refusal string, different []string, err error) {
	browser := bridgetest.NewBrowser()
	if _, err := browser.Open(ctx, d.url+"/"); err != nil {
		return "", nil, err
	}
	token, err := browser.Fetch(ctx, http.MethodGet, "/auth/api_token", nil, "")
	if err != nil {
		return "", nil, err
	}
	different = append(different, withoutToken("a visitor", token)...)
	orders, err := browser.Fetch(ctx, http.MethodGet, "/orders", nil, "")
	if err != nil {
		return "", nil, err
	}
	if orders.Status != http.StatusUnauthorized {
		different = append(different, fmt.Sprintf("a visitor, /orders: got %d %s, want 401", orders.Status, orders.Body))
	}
	var answer struct{ Error string }
	return answer.Error, different, json.Unmarshal(token.Body, &answer)
}

func withoutToken(who string, page *bridgetest.Page) []string {
	if body := strings.TrimSpace(string(page.Body)); page.Status != http.StatusUnauthorized || body != noToken {
		// Not all of it: it may be a token.
		return []string{fmt.Sprintf("%s, /auth/api_token: got %d %.70s, want 401 %s", who, page.Status, body, noToken)}
	}
	return nil
}

// logIn goes from the page to the provider and back, and then does what the page's script does.
func (d *demo) logIn(ctx context.Context, browser *bridgetest.Browser, p person) (outcome, error) {
	page, err := browser.Open(ctx, d.url+"/")
	if err != nil {
		return outcome{}, err
	}
	if page, err = browser.Click(ctx, page, "Log in"); err != nil {
		return outcome{}, err
	}
	if page, err = browser.ChoosePersona(ctx, page, p.Subject); err != nil {
		return outcome{}, err
	}
	if page.Status == http.StatusForbidden {
		return d.refused(ctx, browser, page)
	}
	if page.Status != http.StatusOK || page.URL.String() != d.url+"/" {
		return outcome{}, fmt.Errorf("the login ended at %s with status %d: %s", page.URL, page.Status, page.Text())
	}
	var me struct {
		UserID string `json:"user_id"`
		Role   string `json:"role"`
	}
	var token struct{ Token string }
	var orders []struct {
		UserID json.Number `json:"user_id"`
	}
	if err := fetchJSON(ctx, browser, "/auth/me", nil, &me); err != nil {
		return outcome{}, err
	}
	if err := fetchJSON(ctx, browser, "/auth/api_token", nil, &token); err != nil {
		return outcome{}, err
	}
	if err := fetchJSON(ctx, browser, "/orders", http.Header{"Authorization": {"Bearer " + token.Token}}, &orders); err != nil {
		return outcome{}, err
	}
	role := d.plainRole(me.Role)
	for _, o := range orders {
		if role == "customer" && o.UserID.String() != me.UserID {
			return outcome{}, fmt.Errorf("user %s sees an order of user %s", me.UserID, o.UserID)
		}
	}
	return outcome{role: role, sees: len(orders)}, nil
}

// refused reads the page that refuses somebody, and makes sure that there is no session behind it.
func (d *demo) refused(ctx context.Context, browser *bridgetest.Browser, page *bridgetest.Page) (outcome, error) {
	text, code, _ := strings.Cut(page.Text(), "Code for the people who run this service")
	text, _, _ = strings.Cut(text, "Log in again")
	_, text, _ = strings.Cut(text, "You have no access")
	token, err := browser.Fetch(ctx, http.MethodGet, "/auth/api_token", nil, "")
	if err != nil {
		return outcome{}, err
	}
	if lines := withoutToken("after the refusal", token); lines != nil {
		return outcome{}, fmt.Errorf("%s", lines[0])
	}
	return outcome{refusal: strings.TrimSpace(text), code: strings.TrimSpace(code)}, nil
}

// logOut presses the page's button, and goes by the provider. Somebody who copied the cookies before must have nothing from them afterwards.
func (d *demo) logOut(ctx context.Context, browser *bridgetest.Browser) (different []string, err error) {
	page, err := browser.Open(ctx, d.url+"/")
	if err != nil {
		return nil, err
	}
	thief := browser.Clone()
	var token struct{ Token string }
	if err := fetchJSON(ctx, thief, "/auth/api_token", nil, &token); err != nil {
		return nil, err
	}
	if page, err = browser.Submit(ctx, page, "Log out", nil); err != nil {
		return nil, err
	}
	if page.Refresh() == nil {
		return append(different, "logout: no way to the provider"), nil
	}
	if page, err = browser.Follow(ctx, page, page.Refresh().String()); err != nil {
		return nil, err
	}
	if page.Status != http.StatusOK || page.URL.Path != "/auth/logged-out" || !strings.Contains(page.Title(), "You are logged out") {
		different = append(different, fmt.Sprintf("logout: got %d %s, want the page that says so", page.Status, page.Title()))
	}
	for who, b := range map[string]*bridgetest.Browser{"after the logout": browser, "after the logout, with copied cookies": thief} {
		token, err := b.Fetch(ctx, http.MethodGet, "/auth/api_token", nil, "")
		if err != nil {
			return nil, err
		}
		different = append(different, withoutToken(who, token)...)
	}
	orders, err := thief.Fetch(ctx, http.MethodGet, "/orders", http.Header{"Authorization": {"Bearer " + token.Token}}, "")
	if err != nil {
		return nil, err
	}
	if orders.Status != http.StatusUnauthorized {
		different = append(different, fmt.Sprintf("after the logout, /orders with the token of before: got %d, want 401", orders.Status))
	}
	slices.Sort(different)
	return different, nil
}

func fetchJSON(ctx context.Context, browser *bridgetest.Browser, path string, header http.Header, to any) error {
	page, err := browser.Fetch(ctx, http.MethodGet, path, header, "")
	if err != nil {
		return err
	}
	if page.Status != http.StatusOK {
		return fmt.Errorf("%s: %d %s", path, page.Status, page.Body)
	}
	return page.JSON(to)
}

// plainRole takes the suffix off that roles have on an external server.
func (d *demo) plainRole(role string) string {
	for _, name := range []string{"admin", "customer"} {
		if role == d.db.Role(name) {
			return name
		}
	}
	return role
}
