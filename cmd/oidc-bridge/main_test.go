package main

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestMain makes the test binary the program itself, so that scripts run it as a shell does.
func TestMain(m *testing.M) {
	testscript.Main(testMain{m}, map[string]func(){"oidc-bridge": main})
}

type testMain struct{ m *testing.M }

func (t testMain) Run() int { return bridgetest.Run(t.m) }

// TestScripts runs the shell sessions of testdata. Each has a fresh database, a provider and free ports in its environment, and files of
// a configuration that is right.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			tb := env.T().(testing.TB)
			db, empty := bridgetest.DB(tb), bridgetest.EmptyDB(tb)
			op, err := bridgetest.StartOP(context.Background(), bridgetest.OPOptions{
				Clients: []bridgetest.Client{{ID: "bridge", Secret: "client-secret"}},
			})
			if err != nil {
				return err
			}
			env.Defer(func() { op.Close() })
			public, private := freeAddress(tb), freeAddress(tb)
			for name, value := range map[string]string{
				"DB_URL": db.URL, "DB_NAME": db.Name, "DB_OWNER_URL": db.OwnerURL, "EMPTY_URL": empty.URL, "EMPTY_OWNER_URL": empty.OwnerURL,
				"AUTHENTICATOR": db.Role("authenticator"), "CUSTOMER": db.Role("customer"), "ADMIN": db.Role("admin"),
				"ISSUER": op.Issuer(), "LISTEN": public, "PRIVATE": private,
				"DATABASE_URL": db.URL, "JWT_SECRET": "0f8b3c1d5e7a92640f8b3c1d5e7a9264-tests",
				"COOKIE_KEY": "S2V5IGZvciB0ZXN0cyBvZiB0aGUgY29tbWFuZCBsaW4=", "CLIENT_SECRET": "client-secret",
			} {
				env.Setenv(name, value)
			}
			env.Values["db"], env.Values["op"] = db, op
			files := map[string]string{
				"config.yaml": goodConfig, "rules.yaml": goodRules,
			}
			for name, text := range files {
				text = os.Expand(text, func(v string) string {
					if v == "ISSUER" || v == "LISTEN" || v == "PRIVATE" || v == "AUTHENTICATOR" || v == "CUSTOMER" || v == "ADMIN" {
						return env.Getenv(v)
					}
					return "${" + v + "}"
				})
				if err := os.WriteFile(env.WorkDir+"/"+name, []byte(text), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"replace": replace, "await": await, "sql": sql, "sqlfile": sqlFile, "expand": expand, "token": token, "tables": tables,
		},
	})
}

const goodConfig = `public_url: http://$LISTEN
insecure_dev: true
listen: $LISTEN
private_listen: $PRIVATE
database:
  url: ${DATABASE_URL}
  authenticator: $AUTHENTICATOR
providers:
  op:
    issuer: $ISSUER
    client_id: bridge
    client_secret: ${CLIENT_SECRET}
`

const goodRules = `version: 1
providers:
  op: { preset: generic }
roles:
  $CUSTOMER: {}
rules:
  - name: everybody with an address
    when: { email_domain: example.com }
    role: $CUSTOMER
default: deny
`

// replace FILE OLD NEW changes the one place where a file says OLD; \n in NEW is a line break.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if strings.Count(text, args[1]) != 1 {
		ts.Fatalf("%q stands %d times in %s", args[1], strings.Count(text, args[1]), args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], strings.ReplaceAll(args[2], `\n`, "\n"), 1)), 0o600))
}

// await HOST:PORT waits until somebody listens there.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await HOST:PORT")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		conn, err := net.Dial("tcp", args[0])
		if err == nil {
			ts.Check(conn.Close())
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("nobody listens: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func freeAddress(tb testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// sql STATEMENT runs as superuser in the script's database.
func sql(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sql STATEMENT")
	}
	ts.Check(ts.Value("db").(*bridgetest.Database).Exec(context.Background(), args[0]))
}
