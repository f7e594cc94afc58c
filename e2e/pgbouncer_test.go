package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// behindPgBouncer starts PgBouncer in transaction mode, with two connections for everybody, and returns the database's URL through it.
func behindPgBouncer(t *testing.T, databaseURL string) string {
	t.Helper()
	server, err := pgconn.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pgbouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// PgBouncer refuses to be root, and whoever it is instead has to read this.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	host, port, _ := strings.Cut(address, ":")
	for name, text := range map[string]string{
		"users.txt": fmt.Sprintf("%q %q\n", server.User, server.Password),
		"pgbouncer.ini": fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = trust
auth_file = %s/users.txt
pool_mode = transaction
default_pool_size = 2
`, server.Host, server.Port, host, port, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{filepath.Join(dir, "pgbouncer.ini")}
	if os.Getuid() == 0 {
		args = append([]string{"-u", ownerOf(t, server.Host)}, args...)
	}
	start(t, exec.Command("pgbouncer", args...)).await(t, "start", func(line string) bool { return strings.Contains(line, "process up") })
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Del("host")
	query.Del("port")
	query.Set("sslmode", "disable")
	u.Host, u.RawQuery = address, query.Encode()
	return u.String()
}

// ownerOf returns who may use the server's socket folder.
func ownerOf(t *testing.T, folder string) string {
	t.Helper()
	info, err := os.Stat(folder)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := user.LookupId(strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid)))
	if err != nil {
		t.Fatal(err)
	}
	return owner.Username
}

// Behind a pooler in transaction mode replicas cannot listen. They notice, read the database at every token, and lose nothing but time.
func TestPgBouncer(t *testing.T) {
	s := newShop(t)
	s.setUp(t, s.startProvider(t, "0"))
	s.env = append(s.env, "DATABASE_URL="+behindPgBouncer(t, s.db.URL))
	bridge := s.serve(t)
	bridge.await(t, "word that it does not listen", func(line string) bool { return strings.Contains(line, "a pooler stands in between") })

	var visitors []*visitor
	for _, name := range []string{"ada", "carl", "cora"} {
		v := s.visit(t)
		v.login("basic", name)
		v.wantAt("/")
		visitors = append(visitors, v)
	}
	var group sync.WaitGroup
	for _, v := range visitors {
		for range 10 {
			group.Go(func() {
				page, err := v.Clone().Fetch(t.Context(), http.MethodGet, s.public+"/api_token", nil, "")
				if err != nil || page.Status != http.StatusOK {
					t.Errorf("%v %v", page, err)
				}
			})
		}
	}
	group.Wait()
	for _, v := range visitors {
		if said, code := run(t, s.command("user", "disable", v.token().UserID)); code != 0 {
			t.Fatal(said)
		}
		v.wantNoSession()
	}
	bridgetest.Tried(t, 3)
}
