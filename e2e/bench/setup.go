package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

const (
	publicHost = "app.localhost"
	publicURL  = "https://" + publicHost + "/auth"
	clientID   = "bridge"
)

// A lab is everything that is started once: the shipped binary, PostgreSQL, a provider, and the bare handler.
type lab struct {
	dir      string // of the binary, config.yaml and rules.yaml
	binary   string
	root     string // of the repository
	postgres *bridgetest.Postgres
	server   int // process id of PostgreSQL
	op       *bridgetest.OP
	secrets  []string // environment of every bridge
	bare     *process
	bareAddr string
	limited  string // the same with limits on slow clients
	stops    []func()
}

// config.yaml as an operator writes it behind a proxy with TLS. insecure_dev is for the provider, which speaks http on this machine;
// public_url is https, so cookies and headers are those of production.
const config = `
public_url: ` + publicURL + `
listen: 127.0.0.1:0
private_listen: 127.0.0.1:0
insecure_dev: true
trusted_proxies: [127.0.0.1/32]
database:
  url: ${DATABASE_URL}
  owner_url: ${DATABASE_OWNER_URL}
  authenticator: AUTHENTICATOR
  listen: ${LISTEN}
signing: { jwt_secret: "${JWT_SECRET}" }
cookie_keys: ["${COOKIE_KEY}"]
rules: rules.yaml
providers:
  op:
    name: Staff
    issuer: ${ISSUER}
    client_id: ` + clientID + `
    client_secret: ${CLIENT_SECRET}
    allow_private: true
`

const rules = `
version: 1
providers:
  op:
    preset: generic
    authoritative_for: [example.com]
    claims: { groups: { type: set, default: [] } }
roles:
  admin: { privileged: true, max_ttl: 10m }
  customer: {}
deny:
  - { name: leavers, when: { groups: /hr/leavers }, message: Your account is closed. }
rules:
  - { name: administrators, when: { groups: /shop/admins }, role: admin }
  - { name: customers, when: { email_domain: example.com }, role: customer }
default: deny
token:
  email: { from: email }
users:
  email: { from: email }
  name: { from: name, on: create }
tests:
  - name: an administrator
    claims: { sub: a, groups: [/shop/admins] }
    expect: { role: admin }
    refuse_if:
      - { groups: [/hr/leavers] }
      - { groups: null }
`

// newLab builds and starts it. The caller closes what is returned, also with an error.
func newLab(ctx context.Context) (l *lab, err error) {
	l = &lab{root: os.Getenv("BENCH_ROOT")}
	if l.root == "" {
		l.root = ".." // of the module e2e, where `go -C e2e run ./bench` runs
	}
	if l.dir, err = os.MkdirTemp("", "oidc-bridge-bench-"); err != nil {
		return l, err
	}
	l.stops = append(l.stops, func() { os.RemoveAll(l.dir) })
	l.binary = filepath.Join(l.dir, "oidc-bridge")
	if err := l.build(ctx, l.binary); err != nil {
		return l, err
	}
	if l.postgres, err = bridgetest.StartPostgres(ctx); err != nil {
		return l, err
	}
	l.stops = append(l.stops, func() { l.postgres.Close() })
	if l.server, err = postmaster(ctx, l.postgres.URL()); err != nil {
		return l, err
	}
	clientSecret := rand.Text()
	if l.op, err = bridgetest.StartOP(ctx, bridgetest.OPOptions{
		Clients: []bridgetest.Client{{ID: clientID, Secret: clientSecret, RedirectURIs: []string{publicURL + "/callback/op"}}},
	}); err != nil {
		return l, err
	}
	l.stops = append(l.stops, func() { l.op.Close() })
	key := make([]byte, 32)
	rand.Read(key)
	l.secrets = []string{
		"JWT_SECRET=" + rand.Text() + rand.Text(), "COOKIE_KEY=" + base64.StdEncoding.EncodeToString(key), "ISSUER=" + l.op.Issuer(), "CLIENT_SECRET=" + clientSecret,
	}
	text := strings.ReplaceAll(config, "AUTHENTICATOR", l.postgres.Role("authenticator"))
	if err := errors.Join(l.write("config.yaml", text), l.write("rules.yaml", l.postgres.SQL(rules))); err != nil {
		return l, err
	}
	return l, l.startBare()
}

func (l *lab) close() {
	for len(l.stops) > 0 {
		last := len(l.stops) - 1
		l.stops[last]()
		l.stops = l.stops[:last]
	}
}

// build is `make build`.
func (l *lab) build(ctx context.Context, to string, flags ...string) error {
	args := append([]string{"build", "-trimpath", "-o", to}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/oidc-bridge")...)
	cmd.Dir = l.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, text)
	}
	return nil
}

func (l *lab) write(name, text string) error {
	return os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o600)
}

func (l *lab) startBare() (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if l.bare, err = startProcess(exec.Command(self, bareArgument)); err != nil {
		return err
	}
	l.stops = append(l.stops, l.bare.stop)
	said, err := l.bare.announced("listen")
	l.bareAddr, l.limited = said["listen"], said["limited"]
	return err
}

// A replica is a running bridge.
type replica struct {
	*process
	public, private string // host:port
}

// settings of a replica. The zero value is what the configuration says.
type settings struct {
	url    string // of the database, "": the database's own
	listen string // database.listen, "": auto
	config string // another file than config.yaml
	env    []string
}

// serve starts a bridge at the database and waits until it serves, and listens to the database if it may.
func (l *lab) serve(db *bridgetest.Database, s settings) (*replica, error) {
	p, err := startProcess(l.command(db, s))
	if err != nil {
		return nil, err
	}
	l.stops = append(l.stops, p.stop)
	said, err := p.announced("private_listen")
	if err != nil {
		return nil, err
	}
	r := &replica{p, said["listen"], said["private_listen"]}
	if s.listen == "off" {
		return r, nil
	}
	return r, r.awaitListening()
}

func (l *lab) command(db *bridgetest.Database, s settings) *exec.Cmd {
	if s.url == "" {
		s.url = db.URL
	}
	if s.listen == "" {
		s.listen = "auto"
	}
	if s.config == "" {
		s.config = "config.yaml"
	}
	cmd := exec.Command(l.binary, "serve", "--config", filepath.Join(l.dir, s.config))
	cmd.Env = append(append(os.Environ(), l.secrets...), "DATABASE_URL="+s.url, "DATABASE_OWNER_URL="+db.OwnerURL, "LISTEN="+s.listen)
	cmd.Env = append(cmd.Env, s.env...)
	return cmd
}

// startNginx starts one that serves a file of 367 bytes to whom /auth lets in, as `auth_request` is set up in production.
func (l *lab) startNginx(program, bridge string) (p *process, address string, err error) {
	dir, err := os.MkdirTemp("", "oidc-bridge-bench-nginx-")
	if err != nil {
		return nil, "", err
	}
	l.stops = append(l.stops, func() { os.RemoveAll(dir) })
	if address, err = freeAddress(); err != nil {
		return nil, "", err
	}
	text := strings.NewReplacer("DIR", dir, "LISTEN", address, "BRIDGE", bridge).Replace(nginxConfig)
	if err := errors.Join(
		os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "api"), 0o755),
		os.WriteFile(filepath.Join(dir, "api", "orders"), bareBody, 0o644), os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(text), 0o644),
	); err != nil {
		return nil, "", err
	}
	if p, err = startProcess(exec.Command(program, "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "error.log"))); err != nil {
		return nil, "", err
	}
	l.stops = append(l.stops, p.stop)
	return p, address, awaitDial(address)
}

const nginxConfig = `
daemon off;
worker_processes auto;
pid DIR/nginx.pid;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
    keepalive_requests 100000000;
    upstream bridge { server BRIDGE; keepalive 64; keepalive_requests 100000000; }
    server {
        listen LISTEN;
        location = /_auth {
            internal;
            proxy_pass http://bridge/auth/auth;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Method $request_method;
            proxy_set_header X-Forwarded-Uri $request_uri;
            proxy_set_header Content-Length "";
            proxy_pass_request_body off;
        }
        location /api/ {
            auth_request /_auth;
            auth_request_set $identity $upstream_http_authorization;
            default_type application/json;
            root DIR;
        }
    }
}
`

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// postmaster returns the process id of PostgreSQL, 0 when it runs elsewhere.
func postmaster(ctx context.Context, url string) (int, error) {
	var dir string
	if err := query(ctx, url, &dir, "SHOW data_directory"); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return 0, nil
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}

// query reads the one value that a query gives.
func query(ctx context.Context, url string, into any, sql string, args ...any) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, sql, args...).Scan(into); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}
