package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync/atomic"
	"time"

	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

const (
	rulesLookEvery = time.Second // at the rules file, for a change
	rolesLookEvery = time.Minute // at the database, for a role that was dropped, revoked or made powerful
)

// ActiveRules are the rules in force. A reload puts new ones in place as a whole, or leaves the old ones; a request that has begun goes on
// with those it began with.
type ActiveRules struct {
	config  *Config
	log     *slog.Logger
	metrics *Metrics
	inForce atomic.Pointer[rulesInForce]
	seen    string // hash of the file's text at the last attempt; "": look again
}

// rulesInForce is a rules file, and which of its roles the database has taken back since it was loaded.
type rulesInForce struct {
	*mapping.Rules
	withdrawn map[string]string // role -> why
	anonymous string            // why the role of people without session is withdrawn; "": it is not
}

// NewActiveRules puts rules in force that were checked by Load and CheckDatabase.
func NewActiveRules(c *Config, rules *mapping.Rules, log *slog.Logger, m *Metrics) *ActiveRules {
	a := &ActiveRules{config: c, log: log, metrics: m, seen: rules.Hash()}
	a.put(&rulesInForce{Rules: rules})
	return a
}

func (a *ActiveRules) put(rules *rulesInForce) {
	withdrawn := len(rules.withdrawn)
	if rules.anonymous != "" {
		withdrawn++
	}
	a.metrics.rulesInForce(rules.Hash(), withdrawn)
	a.inForce.Store(rules)
}

// now returns the rules in force at this moment, for one request.
func (a *ActiveRules) now() *rulesInForce { return a.inForce.Load() }

// role is the decision's role, when it is granted and the database still has it to give; else why not.
func (r *rulesInForce) role(d mapping.Decision) (role string, granted bool, reason string) {
	role, granted = d.Role()
	why := r.withdrawn[role]
	if d.IsAnonymous() {
		why = r.anonymous
	}
	if granted && why != "" {
		return "", false, why
	}
	return role, granted, d.Reason()
}

// watch reloads the rules file when it changes and looks at the database's roles each minute, until the context ends; when asked, it does
// both at once. It compares the file's text: editors that write in place, editors that rename, and the symbolic links of a Kubernetes ConfigMap all
// look alike.
func (a *ActiveRules) watch(ctx context.Context, reload <-chan os.Signal) {
	file, roles := time.NewTicker(rulesLookEvery), time.NewTicker(rolesLookEvery)
	defer file.Stop()
	defer roles.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-reload:
			a.seen = ""
			a.reload(ctx)
			a.checkRoles(ctx)
		case <-file.C:
			a.reload(ctx)
		case <-roles.C:
			a.checkRoles(ctx)
		}
	}
}

// reload puts the file in force if it has changed since the last attempt and nothing is wrong with it. What is wrong goes to the log, in
// full; the old rules stay.
func (a *ActiveRules) reload(ctx context.Context) {
	text, findings := readRules(a.config.Rules)
	hash := mapping.Hash(text)
	if hash == a.seen {
		return
	}
	a.seen = hash
	var rules *mapping.Rules
	if findings == nil {
		rules, findings = checkRules(a.config, text, time.Now())
	}
	if !strictyaml.Errors(findings) {
		findings = append(findings, CheckRoles(ctx, a.config, rules)...)
	}
	for _, f := range findings {
		a.log.Warn("rules file", "finding", f)
	}
	if strictyaml.Errors(findings) {
		a.metrics.rulesReload(false)
		a.log.Error("the rules file was not loaded; the old rules stay in force", "file", a.config.Rules, "rules", a.now().Hash())
		if onlyDatabase(findings) {
			a.seen = "" // the file may be right: look again
		}
		return
	}
	a.metrics.rulesReload(true)
	a.put(&rulesInForce{Rules: rules, anonymous: a.now().anonymous})
	a.log.Info("new rules are in force", "file", a.config.Rules, "rules", rules.Hash())
}

// onlyDatabase reports whether nothing was wrong but that the database did not answer.
func onlyDatabase(findings []strictyaml.Finding) bool {
	for _, f := range findings {
		if f.Severity == strictyaml.Error && f.File != databaseFile {
			return false
		}
	}
	return true
}

// checkRoles withdraws the roles that can no longer be handed out, and gives back those that can again. While the database does not answer,
// nothing changes: no token can be had then either, but those of people without session.
func (a *ActiveRules) checkRoles(ctx context.Context) {
	rules := a.now()
	next := &rulesInForce{Rules: rules.Rules, withdrawn: map[string]string{}}
	for _, f := range append(CheckRoles(ctx, a.config, rules.Rules), CheckAnonymous(ctx, a.config)...) {
		why := fmt.Sprintf("%s: %s", f.Code, f.Message)
		switch f.File {
		case databaseFile:
			a.log.Warn("the roles could not be checked", "finding", f)
			return
		case a.config.file:
			next.anonymous = why
		default:
			for _, role := range rules.Roles() {
				if f.Line == role.Line && f.Column == role.Column {
					next.withdrawn[role.Name] = why
				}
			}
		}
	}
	if maps.Equal(next.withdrawn, rules.withdrawn) && next.anonymous == rules.anonymous {
		return
	}
	for role, why := range next.withdrawn {
		a.log.Error("a role is not handed out any more", "role", role, "cause", why)
	}
	if next.anonymous != "" {
		a.log.Error("a role is not handed out any more", "role", a.config.Anonymous, "cause", next.anonymous)
	}
	a.put(next)
}
