package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/cmd/demo/front"
	"github.com/oidc-bridge/oidc-bridge/deploy"
	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

//go:embed config.yaml
var configText string

//go:embed rules.yaml
var rulesText string

const clientID = "orders-demo" // of the bridge at the provider

// A demo is everything on one machine: database, provider, bridge, API and page.
type demo struct {
	url    string // of the page, without a trailing slash
	people []person
	db     *bridgetest.Database
	op     *bridgetest.OP
	api    api

	started []func() error // how to stop what runs, in the order in which it was started
}

// A step is a part of the start that may take a while.
type step func(name string, do func() error) error

// startDemo starts everything. port "" is 8080, or a free one if that is taken. The caller stops the demo, also after an error.
func startDemo(ctx context.Context, port string, step step, log *slog.Logger) (*demo, error) {
	d := &demo{people: people()}
	listeners, err := d.listen(port)
	if err != nil {
		return d, err
	}
	if err := step("starting PostgreSQL", func() error { return d.startDatabase(ctx) }); err != nil {
		return d, err
	}
	var service *bridge.Bridge
	jwtSecret := rand.Text() + rand.Text()
	if err := step("starting the provider and the bridge", func() (err error) {
		service, err = d.startBridge(ctx, jwtSecret, log)
		return err
	}); err != nil {
		return d, err
	}
	if err := step("starting the orders API", func() (err error) {
		d.api, err = startAPI(ctx, apiSettings{d.db.AuthenticatorURL, d.db.Role("anonymous"), jwtSecret})
		return err
	}); err != nil {
		return d, err
	}
	d.started = append(d.started, d.api.close)
	return d, d.serve(service, listeners)
}

// stop ends everything, the last first.
func (d *demo) stop() (err error) {
	for _, stop := range slices.Backward(d.started) {
		err = errors.Join(err, stop())
	}
	d.started = nil
	return err
}

func (d *demo) listen(port string) ([]net.Listener, error) {
	wanted := port
	if wanted == "" {
		wanted = "8080"
	}
	listeners, err := listen(wanted)
	if port == "" && errors.Is(err, syscall.EADDRINUSE) {
		listeners, err = listen("0")
	}
	if err != nil {
		return nil, err
	}
	for _, l := range listeners {
		d.started = append(d.started, func() error {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil // its server has closed it
		})
	}
	_, port, _ = net.SplitHostPort(listeners[0].Addr().String())
	d.url = "http://localhost:" + port
	return listeners, nil
}

func (d *demo) startDatabase(ctx context.Context) error {
	postgres, err := bridgetest.StartPostgres(ctx)
	if err != nil {
		return err
	}
	d.started = append(d.started, postgres.Close)
	if d.db, err = postgres.NewDatabase(ctx); err != nil {
		return err
	}
	orders, err := deploy.SQL.ReadFile("sql/orders.sql")
	if err != nil {
		return err
	}
	return d.db.Exec(ctx, string(orders))
}

// startBridge starts the provider, and the bridge with the files that an operator writes.
func (d *demo) startBridge(ctx context.Context, jwtSecret string, log *slog.Logger) (_ *bridge.Bridge, err error) {
	clientSecret, cookieKey := rand.Text(), make([]byte, 32)
	rand.Read(cookieKey)
	var personas []bridgetest.Persona
	for _, p := range d.people {
		personas = append(personas, p.Persona)
	}
	if d.op, err = bridgetest.StartOP(ctx, bridgetest.OPOptions{
		Name: "Demo accounts", Personas: personas,
		Clients: []bridgetest.Client{{
			ID: clientID, Secret: clientSecret,
			RedirectURIs: []string{d.url + "/auth/callback/demo"}, PostLogoutRedirectURIs: []string{d.url + "/auth/logged-out"},
			BackchannelLogoutURI: d.url + "/auth/backchannel-logout/demo",
		}},
	}); err != nil {
		return nil, err
	}
	d.started = append(d.started, d.op.Close)
	if err := seed(ctx, d.db.AdminURL, d.op.Issuer(), d.people); err != nil {
		return nil, err
	}
	variables := map[string]string{
		"PUBLIC_URL":    d.url + "/auth",
		"DATABASE_URL":  d.db.URL,
		"AUTHENTICATOR": d.db.Role("authenticator"),
		"JWT_SECRET":    jwtSecret,
		"COOKIE_KEY":    base64.StdEncoding.EncodeToString(cookieKey),
		"ISSUER":        d.op.Issuer(),
		"CLIENT_ID":     clientID,
		"CLIENT_SECRET": clientSecret,
	}
	config, findings := bridge.LoadConfig("cmd/demo/config.yaml", []byte(configText), func(name string) (string, bool) {
		value, set := variables[name]
		return value, set
	})
	rules, more := mapping.Load("cmd/demo/rules.yaml", []byte(d.db.SQL(rulesText)))
	findings = append(findings, more...)
	if config != nil {
		findings = append(findings, bridge.CheckDatabase(ctx, config, rules)...)
	}
	if len(findings) > 0 {
		return nil, findingsError(findings)
	}
	service, err := bridge.New(ctx, config, rules, bridge.Options{Version: "demo", Log: log, Now: time.Now})
	if err != nil {
		return nil, err
	}
	d.started = append(d.started, func() error { service.Close(); return nil })
	return service, nil
}

// findingsError: the demo's files are to be without warnings, too.
func findingsError(findings []strictyaml.Finding) error {
	var lines []string
	for _, f := range findings {
		lines = append(lines, f.String())
	}
	return fmt.Errorf("findings:\n%s", strings.Join(lines, "\n"))
}

func (d *demo) serve(service *bridge.Bridge, listeners []net.Listener) error {
	apiURL, err := url.Parse(d.api.url)
	if err != nil {
		return err
	}
	page := front.Page{StandIn: d.api.standIn}
	for _, p := range d.people {
		page.People = append(page.People, front.Person{Name: p.Name, Note: p.Note})
	}
	site, err := front.New(service.Public(), apiURL, page)
	if err != nil {
		return err
	}
	server := newServer(site)
	for _, l := range listeners {
		go server.Serve(l)
	}
	d.started = append(d.started, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return server.Close()
	})
	return nil
}
