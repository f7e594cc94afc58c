package bridge_test

import (
	"strings"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge"
)

func people(t *testing.T, url string) *bridge.People {
	t.Helper()
	p, err := bridge.OpenPeople(t.Context(), bridge.NewSecret(url), "tester")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// person is who logs in as the subject.
func (s *service) person(t *testing.T, p *bridge.People, subject string) bridge.Person {
	t.Helper()
	found, err := p.Find(t.Context(), bridge.Who{Issuer: s.OP.Issuer(), Subject: subject})
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	return found[0]
}

// TestAttack_AD02_ChangesOfPeople: a dry run changes nothing, a change bites at once and is one event, the same change again is none.
func TestAttack_AD02_ChangesOfPeople(t *testing.T) {
	t.Parallel()
	s := newService(t)
	b, _ := s.login("carl", "/")
	p := people(t, s.DB.URL)
	found, err := p.Find(t.Context(), bridge.Who{Word: "CARL@example.com"})
	if err != nil || len(found) != 1 || found[0].Sessions != 1 || found[0].Identities[0].Subject != "carl" {
		t.Fatalf("%+v %v", found, err)
	}
	carl := found[0]
	for _, who := range []bridge.Who{{Word: carl.UserID}, {Issuer: s.OP.Issuer(), Subject: "carl"}} {
		if found, err := p.Find(t.Context(), who); err != nil || len(found) != 1 || found[0].ID != carl.ID {
			t.Errorf("%v: %v %v", who, found, err)
		}
	}
	if found, err := p.Find(t.Context(), bridge.Who{Word: "' OR true --"}); err != nil || len(found) != 0 {
		t.Errorf("%v %v", found, err)
	}
	role := s.DB.Role("admin")
	setRole := func(c bridge.Change) (bool, error) { return p.SetRole(t.Context(), carl, &role, c) }
	disable := func(c bridge.Change) (bool, error) { return p.Disable(t.Context(), carl, c) }
	enable := func(c bridge.Change) (bool, error) { return p.Enable(t.Context(), carl, c) }
	for _, step := range []struct {
		do      func(bridge.Change) (bool, error)
		dry     bool
		changed bool
		status  int
	}{
		{disable, true, true, 200},
		{disable, false, true, 401},
		{disable, false, false, 401},
		{enable, false, true, 200},
		{enable, false, false, 200},
		{setRole, false, true, 200},
		{setRole, false, false, 200},
	} {
		changed, err := step.do(bridge.Change{DryRun: step.dry, Reason: "a test"})
		if page, _ := s.token(b); err != nil || changed != step.changed || page.Status != step.status {
			t.Errorf("%+v: changed %t, %d, %v", step, changed, page.Status, err)
		}
	}
	if got := row[string](t, s.DB, "SELECT string_agg(kind, ' ' ORDER BY id) FROM bridge.events WHERE reason LIKE '% by % (tester): a test'"); got != "disable enable set_role" {
		t.Error(got)
	}
	if text, err := p.Export(t.Context(), carl); err != nil || strings.Contains(string(text), "token_hash") || !strings.Contains(string(text), `"set_role"`) {
		t.Errorf("%s %v", text, err)
	}

	if n, err := p.Revoke(t.Context(), bridge.Which{User: &carl}, bridge.Change{DryRun: true}, nil); n != 1 || err != nil {
		t.Error(n, err)
	}
	sessions := 0
	for session, err := range p.Sessions(t.Context(), &carl) {
		if sessions++; err != nil || session.UserID != carl.UserID {
			t.Errorf("%+v %v", session, err)
		}
	}
	if sessions != 1 {
		t.Errorf("%d sessions", sessions)
	}
	if n, err := p.Revoke(t.Context(), bridge.Which{}, bridge.Change{}, func(int) {}); n != 1 || err != nil {
		t.Error(n, err)
	}
	if page, _ := s.token(b); page.Status != 401 {
		t.Errorf("%d after revoke", page.Status)
	}

	if _, err := p.Delete(t.Context(), carl, bridge.Change{}); err == nil || !strings.Contains(err.Error(), "DATABASE_OWNER_URL") {
		t.Error(err)
	}
	owner := people(t, s.DB.OwnerURL)
	if changed, err := owner.Delete(t.Context(), carl, bridge.Change{}); err != nil || !changed {
		t.Error(changed, err)
	}
	if changed, err := owner.Delete(t.Context(), carl, bridge.Change{}); err != nil || changed {
		t.Error(changed, err)
	}
}
