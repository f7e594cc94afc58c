// Package e2e proves the whole with real parts: the program oidc-bridge as it is shipped, Keycloak from Maven Central, oidc-provider from
// npm, Chromium, PostgreSQL, and an orders API: the stand-in for PostgREST, and PostgREST itself where there is one (POSTGREST_BIN, or
// postgrest on PATH).
//
// It runs on Linux. `make e2e` installs what it needs and runs it; with E2E_SHOTS=FOLDER it saves what Chromium shows.
package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// binary is the program under test.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "oidc-bridge-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "oidc-bridge")
	build := exec.Command("go", "build", "-o", binary, "./cmd/oidc-bridge")
	build.Dir = ".." // with the dependencies of the module that ships it, not with ours
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building oidc-bridge:", err)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	bridgetest.Main(m, func() error { return os.RemoveAll(dir) })
}

func TestOrders(t *testing.T) {
	s := openShop(t)
	people := []struct{ name, role string }{{"ada", "admin"}, {"carl", "customer"}, {"cora", "customer"}}
	visitors := map[string]*visitor{}
	for _, p := range people {
		v := s.visit(t)
		v.wantNoSession()
		v.login("basic", p.name)
		v.wantAt("/")
		v.wantRole(s.db.Role(p.role))
		visitors[p.name] = v
	}

	// The same person, on another day, in another browser, through the other connection, is the same user.
	for _, p := range people {
		again := s.visit(t)
		again.login("post", p.name)
		again.wantAt("/")
		if got, want := again.token().UserID, visitors[p.name].token().UserID; got != want {
			t.Errorf("%s has user_id %s after the second login, %s after the first", p.name, got, want)
		}
	}

	carl, cora := visitors["carl"].token().UserID, visitors["cora"].token().UserID
	if carl == cora {
		t.Fatalf("carl and cora share user_id %s", carl)
	}
	if err := s.db.Exec(t.Context(), fmt.Sprintf(`INSERT INTO private.orders (user_id, item, price)
		VALUES (%[1]s, 'apples for Carl', 3), (%[1]s, 'bread for Carl', 4), (%[2]s, 'coffee for Cora', 9)`, carl, cora)); err != nil {
		t.Fatal(err)
	}
	for name, api := range s.apis(t) {
		t.Run(name, func(t *testing.T) {
			visitors["ada"].on(t).wantOrders(api, "apples for Carl", "bread for Carl", "coffee for Cora")
			visitors["carl"].on(t).wantOrders(api, "apples for Carl", "bread for Carl")
			visitors["cora"].on(t).wantOrders(api, "coffee for Cora")
			if got := s.visit(t).orders(api, ""); got.Status != http.StatusUnauthorized {
				t.Errorf("orders without a token: status %d, want 401: %s", got.Status, got.Body)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	s := openShop(t)
	for _, test := range []struct{ name, why string }{
		{"uma", "her e-mail address is not verified"},
		{"rob", "he has no group"},
	} {
		for _, connection := range []string{"basic", "post"} {
			t.Run(test.name+" by "+connection, func(t *testing.T) {
				v := s.visit(t)
				v.login(connection, test.name)
				v.wantRefusal(http.StatusForbidden, test.why)
			})
		}
	}
	t.Run("cancelled", func(t *testing.T) {
		v := s.visit(t)
		v.open(s.public + "/login/basic?return_to=/")
		v.submit("Cancel", nil)
		v.wantRefusal(http.StatusForbidden, "the person cancelled at the provider")
	})
}

// The bridge starts without its provider, says so, and heals by itself.
func TestProviderDown(t *testing.T) {
	s := newShop(t)
	address := freeAddress(t)
	s.setUp(t, "http://"+address)
	if said, _ := run(t, s.command("check")); !strings.Contains(said, `provider "basic"`) {
		t.Errorf("check does not name the provider that is down:\n%s", said)
	}
	s.serve(t)
	v := s.visit(t)
	v.login("basic", "carl")
	v.wantRefusal(http.StatusServiceUnavailable, "the provider is down")

	_, port, _ := net.SplitHostPort(address)
	s.startProvider(t, port)
	// At the pace of a patient person: login starts are limited.
	again, deadline := time.NewTicker(250*time.Millisecond), time.After(20*time.Second)
	defer again.Stop()
	for v.login("basic", "carl"); v.page.Status == http.StatusServiceUnavailable; {
		select {
		case <-again.C:
			v.login("basic", "carl")
		case <-deadline:
			t.Fatalf("the provider is back, and its login still answers %d: %s", v.page.Status, v.page.Text())
		}
	}
	v.wantAt("/")
	v.wantRole(s.db.Role("customer"))
}

// A provider whose clock is 90 s off is not believed, and the log says that it is the clock.
func TestClocksApart(t *testing.T) {
	for ahead, logged := range map[string]string{"90": "s ahead of our clock", "-90": "s ago by our clock, which is too old"} {
		t.Run(ahead, func(t *testing.T) {
			s := newShop(t)
			s.setUp(t, s.startProvider(t, "0", "--ahead="+ahead))
			bridge := s.serve(t)
			v := s.visit(t)
			v.login("basic", "carl")
			v.wantRefusal(http.StatusBadGateway, "the clocks are apart")
			if log := bridge.output.String(); !strings.Contains(log, logged) {
				t.Errorf("want %q in the log:\n%s", logged, log)
			}
		})
	}
}
