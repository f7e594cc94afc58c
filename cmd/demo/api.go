package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// apiSettings are those that PostgREST needs to serve the orders to the bridge's tokens.
type apiSettings struct {
	databaseURL string // of the authenticator
	anonymous   string
	jwtSecret   string
}

// The other settings, which never change. The audience is the bridge's default.
const (
	apiSchema  = "api"
	audience   = "postgrest"
	preRequest = "bridge.pre_request"
)

// An api serves the orders.
type api struct {
	url     string
	standIn bool
	close   func() error
}

// startAPI starts $POSTGREST_BIN, or the postgrest on PATH, or else the stand-in; that too when $POSTGREST_BIN is "none".
func startAPI(ctx context.Context, s apiSettings) (api, error) {
	binary := os.Getenv("POSTGREST_BIN")
	if binary == "" {
		binary, _ = exec.LookPath("postgrest")
	}
	if binary != "" && binary != "none" {
		return startPostgREST(ctx, binary, s)
	}
	standIn, err := bridgetest.StartAPI(ctx, bridgetest.APIOptions{
		DatabaseURL: s.databaseURL, Schema: apiSchema, AnonRole: s.anonymous, JWTSecret: s.jwtSecret, JWTAud: audience, PreRequest: preRequest,
	})
	if err != nil {
		return api{}, err
	}
	return api{standIn.URL(), true, standIn.Close}, nil
}

// startPostgREST starts the real one. It is ready when it has read the schema; until then it answers 503.
func startPostgREST(ctx context.Context, binary string, s apiSettings) (api, error) {
	port, err := freePort()
	if err != nil {
		return api{}, err
	}
	cmd := exec.Command(binary)
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "PGRST_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env,
		"PGRST_DB_URI="+s.databaseURL, "PGRST_DB_SCHEMAS="+apiSchema, "PGRST_DB_ANON_ROLE="+s.anonymous,
		"PGRST_JWT_SECRET="+s.jwtSecret, "PGRST_JWT_AUD="+audience, "PGRST_DB_PRE_REQUEST="+preRequest,
		"PGRST_SERVER_HOST=127.0.0.1", "PGRST_SERVER_PORT="+port)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return api{}, err
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait() // how it ended is in its output
		close(ended)
	}()
	a := api{url: "http://127.0.0.1:" + port, close: func() error { return terminate(cmd.Process, ended) }}
	for !ready(ctx, a.url+"/orders") {
		select {
		case <-ended:
			return api{}, fmt.Errorf("%s has ended:\n%s", binary, output.String())
		case <-ctx.Done():
			a.close()
			return api{}, fmt.Errorf("%s is not ready: %w\n%s", binary, ctx.Err(), output.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return a, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port, l.Close()
}

func ready(ctx context.Context, url string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode != http.StatusServiceUnavailable
}

// terminate asks a process to end, and ends it when it takes too long.
func terminate(process *os.Process, ended <-chan struct{}) error {
	_ = process.Signal(syscall.SIGTERM) // it may have gone already
	select {
	case <-ended:
		return nil
	case <-time.After(5 * time.Second):
		err := process.Kill()
		<-ended
		return err
	}
}
