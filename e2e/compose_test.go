package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A composition is deploy/compose.yaml as Docker Compose reads it: with its parser, which holds it to the schema of the Compose
// specification, and with the .env that deploy/secrets writes.
type composition struct {
	*types.Project
	secrets []string // the names in .env
	file    string   // .env
}

func loadComposition(t *testing.T) composition {
	t.Helper()
	secrets, err := exec.Command("../deploy/secrets").Output()
	if err != nil {
		t.Fatal(err)
	}
	c := composition{file: filepath.Join(t.TempDir(), ".env")}
	writeFile(t, c.file, string(secrets))
	for line := range strings.Lines(string(secrets)) {
		name, _, _ := strings.Cut(line, "=")
		c.secrets = append(c.secrets, name)
	}
	// Nothing of our environment: what compose.yaml needs is in .env.
	options, err := cli.NewProjectOptions([]string{"../deploy/compose.yaml"}, cli.WithEnvFiles(c.file), cli.WithDotEnv)
	if err != nil {
		t.Fatal(err)
	}
	if c.Project, err = options.LoadProject(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c composition) service(t *testing.T, name string) types.ServiceConfig {
	t.Helper()
	service, err := c.GetService(name)
	if err != nil {
		t.Fatal(err)
	}
	return service
}

// environment is that of a service, as a process gets it.
func environment(service types.ServiceConfig) (list []string) {
	for name, value := range service.Environment {
		if value != nil {
			list = append(list, name+"="+*value)
		}
	}
	return list
}

// variable is the value of a variable of a service.
func variable(t *testing.T, service types.ServiceConfig, name string) string {
	t.Helper()
	value := service.Environment[name]
	if value == nil {
		t.Fatalf("service %s has no variable %s", service.Name, name)
	}
	return *value
}

// onThisMachine replaces the folders of a container by those of the checkout that are mounted there.
func onThisMachine(service types.ServiceConfig, text string) string {
	for _, volume := range service.Volumes {
		text = strings.ReplaceAll(text, volume.Target, volume.Source)
	}
	return text
}

func TestComposeFile(t *testing.T) {
	c := loadComposition(t)
	deploy, err := filepath.Abs("../deploy")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for name, service := range c.Services {
		if image, tag, _ := strings.Cut(service.Image, ":"); service.Build == nil && (tag == "" || tag == "latest") {
			t.Errorf("service %s: which %s?", name, image)
		}
		if service.Build != nil && (service.Build.Context != filepath.Dir(deploy) || !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"})) {
			t.Errorf("service %s is built from %s, read_only %v, cap_drop %v", name, service.Build.Context, service.ReadOnly, service.CapDrop)
		}
		for _, port := range service.Ports {
			// The issuer is one address for browsers and containers.
			if port.HostIP != "127.0.0.1" || port.Published != strconv.Itoa(int(port.Target)) {
				t.Errorf("service %s: %s:%s for %d; want the same port, on this machine only", name, port.HostIP, port.Published, port.Target)
			}
		}
		for _, volume := range service.Volumes {
			if volume.Type != types.VolumeTypeBind {
				continue
			}
			if about, err := os.Stat(volume.Source); err != nil || !about.IsDir() || !volume.ReadOnly || !strings.HasPrefix(volume.Source, deploy+"/") {
				t.Errorf("service %s mounts %s, read-only %v: error %v", name, volume.Source, volume.ReadOnly, err)
			}
		}
		for _, secret := range c.secrets {
			for _, value := range service.Environment {
				used[secret] = used[secret] || value != nil && strings.Contains(*value, c.Environment[secret])
			}
		}
	}
	for _, secret := range c.secrets {
		if !used[secret] {
			t.Errorf("no service uses %s", secret)
		}
	}

	// Without .env it says what to do.
	options, err := cli.NewProjectOptions([]string{"../deploy/compose.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := options.LoadProject(t.Context()); err == nil || !strings.Contains(err.Error(), "run ./secrets > .env") {
		t.Errorf("without .env: %v", err)
	}
	ignored := exec.Command("git", "check-ignore", "deploy/.env")
	ignored.Dir = ".."
	if said, err := ignored.CombinedOutput(); err != nil {
		t.Errorf("git would commit deploy/.env: %v %s", err, said)
	}
	if dockerContext(t)("deploy/.env") || dockerContext(t)("deploy") {
		t.Error("a build sees deploy/.env")
	}

	// In TestContainers everybody is at 127.0.0.1; in Docker's networks they are not.
	settings, err := os.ReadFile("../deploy/bridge/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config, findings := bridge.LoadConfig("../deploy/bridge/config.yaml", settings, c.service(t, "bridge").Environment.ToMapping().Resolve)
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	if !config.Providers[0].AllowPrivate {
		t.Error("the bridge would not connect to a container")
	}
	for _, address := range []string{"172.17.0.2", "172.31.255.254", "192.168.16.2"} {
		if !slices.ContainsFunc(config.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(netip.MustParseAddr(address)) }) {
			t.Errorf("nginx at %s is not a trusted proxy", address)
		}
	}

	// What runs in the end-to-end tests is what is run here.
	install, err := os.ReadFile("keycloak/install")
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(c.service(t, "keycloak").Image, ":")
	if !strings.Contains(string(install), "version="+version+"\n") {
		t.Errorf("Keycloak %s is not the one of keycloak/install", version)
	}
}

// TestContainers does what `docker compose up` does, without containers: in one network where each service has its name and its ports, each
// program runs with the command, the environment and the files that compose.yaml gives it; the bridge, migrate and the health check are those
// of the image, and see nothing but its files.
//
// Other than there: PostgreSQL, nginx and psql are this machine's, PostgREST is the stand-in (or POSTGREST_BIN), Keycloak is the same version,
// started with --optimized, since it was built before.
func TestContainers(t *testing.T) {
	built, inside := os.LookupEnv(insideVariable)
	if !inside {
		text, err := json.Marshal(buildImage(t)) // where there is a network to download modules from
		if err != nil {
			t.Fatal(err)
		}
		runInNamespaces(t, string(text))
		return
	}
	var i *image
	if err := json.Unmarshal([]byte(built), &i); err != nil {
		t.Fatal(err)
	}
	c := loadComposition(t)
	var names []string
	for name, service := range c.Services {
		names = append(names, name)
		for _, network := range service.Networks {
			if network != nil {
				names = append(names, network.Aliases...)
			}
		}
	}
	setHosts(t, names...)
	wantImage(t, i)

	c.startDatabase(t)
	keycloak := c.startKeycloak(t)
	i.mount(t, c.service(t, "bridge"), names)
	migrate := c.service(t, "migrate")
	if said, code := run(t, i.command(t, append(slices.Clone(i.Entrypoint), migrate.Command...), environment(migrate))); code != 0 {
		t.Fatalf("migrate: exit code %d\n%s", code, said)
	}
	orders := c.service(t, "orders")
	psql := exec.Command(orders.Entrypoint[0])
	for _, arg := range orders.Entrypoint[1:] {
		psql.Args = append(psql.Args, onThisMachine(orders, arg))
	}
	psql.Env = append(os.Environ(), environment(orders)...)
	if said, code := run(t, psql); code != 0 {
		t.Fatalf("orders: exit code %d\n%s", code, said)
	}
	c.startPostgREST(t)

	bridge := c.service(t, "bridge")
	health := func() (string, int) { return run(t, i.command(t, i.Health[1:], environment(bridge))) }
	if said, code := health(); code != 1 {
		t.Errorf("health before the start: exit code %d: %s", code, said)
	}
	if said, code := run(t, i.command(t, append(slices.Clone(i.Entrypoint), "check", "--strict"), environment(bridge))); code != 0 {
		t.Errorf("check: exit code %d\n%s", code, said)
	}
	serving := start(t, i.command(t, append(slices.Clone(i.Entrypoint), i.Cmd...), environment(bridge)))
	bridgetest.Await(t, "the bridge to be healthy", func() bool { _, code := health(); return code == 0 })
	c.startWeb(t)

	site := &shop{origin: "http://localhost:8000", public: "http://localhost:8000/auth"}
	w := site.openWindow(t)
	login := func(name string) {
		t.Helper()
		w.open(site.origin + "/")
		w.see("You are not logged in.")
		w.shot("visitor")
		w.click("[href^='/auth/login']")
		keycloak.pages().logIn(w, name)
	}
	login("ben")
	w.see("There is none that you may see.")
	c.exec(t, "INSERT INTO private.orders (user_id, item, price) SELECT id, 'Fountain pen', 38 FROM bridge.users")
	w.open(site.origin + "/")
	w.see("1 that you may see.")
	w.see("Fountain pen")
	w.shot("orders")
	w.click("#person button")
	w.see("Continue") // back from Keycloak's logout
	login("nora")
	w.see("You have no access")
	keycloak.pages().logOut(w)
	login("alice")
	w.see("1 that you may see.")

	if code := serving.stop(t); code != 0 {
		t.Errorf("serve: exit code %d after SIGTERM", code)
	}
}

// mount puts the folders of a service, and the names of the network, into the image.
func (i *image) mount(t *testing.T, service types.ServiceConfig, names []string) {
	t.Helper()
	writeFile(t, filepath.Join(i.Root, "etc", "hosts"), hostsFile(names))
	for _, volume := range service.Volumes {
		if err := os.CopyFS(filepath.Join(i.Root, volume.Target), os.DirFS(volume.Source)); err != nil {
			t.Fatal(err)
		}
	}
}

// startDatabase starts a server that has what PostgreSQL's image makes at its first start, and takes nobody without a password.
func (c composition) startDatabase(t *testing.T) {
	t.Helper()
	service := c.service(t, "db")
	server, err := bridgetest.StartPostgres(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	name, password := variable(t, service, "POSTGRES_DB"), variable(t, service, "POSTGRES_PASSWORD")
	for _, sql := range []string{
		"DROP ROLE anonymous, customer, admin, authenticator, bridge_owner, bridge_runtime", // of the test kit
		"CREATE DATABASE " + name, "ALTER ROLE postgres PASSWORD '" + password + "'",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	at, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	at.Path = "/" + name
	for _, volume := range service.Volumes {
		if volume.Target != "/docker-entrypoint-initdb.d" {
			continue
		}
		scripts, err := filepath.Glob(volume.Source + "/*.sql")
		if err != nil || len(scripts) == 0 {
			t.Fatalf("%d scripts, error %v", len(scripts), err)
		}
		for _, script := range scripts {
			psql := exec.Command("psql", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-f", script, at.String())
			psql.Env = append(os.Environ(), environment(service)...)
			if said, code := run(t, psql); code != 0 {
				t.Fatalf("%s: exit code %d\n%s", script, code, said)
			}
		}
	}
	var file string
	if err := conn.QueryRow(t.Context(), "SHOW hba_file").Scan(&file); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, "local all all scram-sha-256\n")
	if _, err := conn.Exec(t.Context(), "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	forward(t, 5432, "unix", at.Query().Get("host")+"/.s.PGSQL."+at.Query().Get("port"))
	bridgetest.Await(t, "PostgreSQL to ask for passwords", func() bool {
		conn, err := pgx.Connect(t.Context(), "postgres://postgres:wrong@db:5432/"+name)
		if err == nil {
			conn.Close(context.Background())
		}
		return err != nil && strings.Contains(err.Error(), "28P01")
	})
	if said, code := run(t, exec.Command(service.HealthCheck.Test[1], service.HealthCheck.Test[2:]...)); code != 0 {
		t.Fatalf("health check of db: exit code %d: %s", code, said)
	}
}

// exec runs a statement as the README's `docker compose exec db psql -U postgres` does.
func (c composition) exec(t *testing.T, sql string) {
	t.Helper()
	db := c.service(t, "db")
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://postgres:%s@db:5432/%s", variable(t, db, "POSTGRES_PASSWORD"), variable(t, db, "POSTGRES_DB")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func (c composition) startKeycloak(t *testing.T) *keycloak {
	t.Helper()
	service := c.service(t, "keycloak")
	k := &keycloak{t: t, address: strings.TrimPrefix(variable(t, service, "KC_HOSTNAME"), "http://"), folder: t.TempDir()}
	for _, volume := range service.Volumes {
		below, ok := strings.CutPrefix(volume.Target, "/opt/keycloak/")
		if !ok {
			t.Fatalf("Keycloak's image has no %s", volume.Target)
		}
		if err := os.CopyFS(filepath.Join(k.folder, below), os.DirFS(volume.Source)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("keycloak/serve", append([]string{k.folder, service.Command[0], "--optimized"}, service.Command[1:]...)...)
	cmd.Env = append(os.Environ(), environment(service)...)
	k.run(cmd)
	check := service.HealthCheck.Test[1:]
	bridgetest.Await(t, "Keycloak to be healthy", func() bool {
		_, code := run(t, exec.Command(check[0], check[1:]...))
		return code == 0
	})
	return k
}

func (c composition) startPostgREST(t *testing.T) {
	t.Helper()
	service := c.service(t, "postgrest")
	if postgrest := os.Getenv("POSTGREST_BIN"); postgrest != "" && postgrest != "none" {
		cmd := exec.Command(postgrest)
		cmd.Env = append(os.Environ(), environment(service)...)
		start(t, cmd)
		bridgetest.Await(t, "PostgREST", func() bool { return status("http://postgrest:3000/orders") == http.StatusUnauthorized })
		return
	}
	_, version, _ := strings.Cut(service.Image, ":v")
	major, _, _ := strings.Cut(version, ".")
	number, err := strconv.Atoi(major)
	if err != nil {
		t.Fatalf("PostgREST %s: %v", service.Image, err)
	}
	api, err := bridgetest.StartAPI(t.Context(), bridgetest.APIOptions{
		Addr: "127.0.0.1:" + variable(t, service, "PGRST_SERVER_PORT"), DatabaseURL: variable(t, service, "PGRST_DB_URI"), Version: number,
		Schema: variable(t, service, "PGRST_DB_SCHEMAS"), AnonRole: variable(t, service, "PGRST_DB_ANON_ROLE"),
		JWTSecret: variable(t, service, "PGRST_JWT_SECRET"), JWTAud: variable(t, service, "PGRST_JWT_AUD"),
		PreRequest: variable(t, service, "PGRST_DB_PRE_REQUEST"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.Close() })
}

// startWeb starts nginx with the server of the mounted folder.
func (c composition) startWeb(t *testing.T) {
	t.Helper()
	service := c.service(t, "web")
	dir := t.TempDir()
	for _, volume := range service.Volumes {
		if volume.Target != "/etc/nginx/conf.d" {
			continue
		}
		servers, err := filepath.Glob(volume.Source + "/*.conf")
		if err != nil || len(servers) == 0 {
			t.Fatalf("%d servers, error %v", len(servers), err)
		}
		for _, name := range servers {
			server, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(dir, "server-"+filepath.Base(name)), onThisMachine(service, string(server)))
		}
	}
	own := ""
	if os.Getuid() == 0 {
		own = "user root;\n" // the checkout may be out of reach for others
	}
	writeFile(t, filepath.Join(dir, "nginx.conf"), own+strings.ReplaceAll(`daemon off;
master_process off;
pid DIR/pid;
error_log stderr;
events {}
http {
	types { text/html html; text/css css; text/javascript js; }
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	include DIR/server-*.conf;
}
`, "DIR", dir))
	start(t, exec.Command("nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf")))
	bridgetest.Await(t, "nginx", func() bool { return status("http://localhost:8000/") == http.StatusOK })
}
