package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A fleet is the program three times, as operators run it, and in front of it a proxy that sends each request to the next one.
type fleet struct {
	t        *testing.T
	url      string
	db       *bridgetest.Database
	replicas []*process

	mu     sync.Mutex
	turn   int
	served map[string]map[int]bool // by first segment of the path: which replicas have answered one
}

type process struct {
	url    string
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan struct{}
	dead   bool
}

func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	f := &fleet{t: t, db: bridgetest.DB(t), served: map[string]map[int]bool{}}
	front := httptest.NewServer(http.HandlerFunc(f.forward))
	t.Cleanup(front.Close)
	f.url = front.URL
	op := bridgetest.NewOP(t, bridgetest.OPOptions{
		Personas: []bridgetest.Persona{{Subject: "carl", IDToken: map[string]any{"email": "carl@example.com", "email_verified": true}}},
		Clients:  []bridgetest.Client{{ID: "bridge", Secret: "client-secret", RedirectURIs: []string{f.url + "/callback/op"}}},
	})
	for range n {
		dir, public, private := t.TempDir(), freeAddress(t), freeAddress(t)
		variables := map[string]string{
			"LISTEN": public, "PRIVATE": private, "AUTHENTICATOR": f.db.Role("authenticator"), "ISSUER": op.Issuer(), "CUSTOMER": f.db.Role("customer"),
		}
		for name, text := range map[string]string{"config.yaml": strings.Replace(goodConfig, "http://$LISTEN", f.url, 1), "rules.yaml": goodRules} {
			text = os.Expand(text, func(name string) string {
				if value, ours := variables[name]; ours {
					return value
				}
				return "${" + name + "}"
			})
			if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := &process{url: "http://" + public, ended: make(chan struct{})}
		p.cmd = exec.Command("oidc-bridge", "serve") // this test binary, see TestMain
		p.cmd.Dir = dir
		p.cmd.Env = append(os.Environ(), "DATABASE_URL="+f.db.URL, "JWT_SECRET=0f8b3c1d5e7a92640f8b3c1d5e7a9264-tests",
			"COOKIE_KEY=S2V5IGZvciB0ZXN0cyBvZiB0aGUgY29tbWFuZCBsaW4=", "CLIENT_SECRET=client-secret")
		p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			p.cmd.Wait() // a killed one has no other way to end
			close(p.ended)
		}()
		t.Cleanup(func() {
			p.kill()
			if t.Failed() {
				t.Logf("%s:\n%s", p.url, &p.output)
			}
		})
		f.replicas = append(f.replicas, p)
		bridgetest.Await(t, "the replica to listen", func() bool { return statusOf(t, "http://"+private+"/readyz", nil) == 200 })
	}
	return f
}

func (p *process) kill() {
	p.cmd.Process.Kill() // SIGKILL; it may have gone already
	<-p.ended
	p.dead = true
}

func (f *fleet) forward(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.turn++
	for f.replicas[f.turn%len(f.replicas)].dead {
		f.turn++
	}
	at := f.turn % len(f.replicas)
	segment, _, _ := strings.Cut(r.URL.Path[1:], "/")
	if f.served[segment] == nil {
		f.served[segment] = map[int]bool{}
	}
	f.served[segment][at] = true
	f.mu.Unlock()
	to, _ := url.Parse(f.replicas[at].url)
	(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.Out.Host = p.In.Host
	}}).ServeHTTP(w, r)
}

// next makes the replica the one that gets the next request.
func (f *fleet) next(at int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn = at + len(f.replicas) - 1
}

func statusOf(t *testing.T, address string, cookies []*http.Cookie) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cookies {
		request.AddCookie(c)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// each asks every replica that lives for a token with the browser's cookies.
func (f *fleet) each(b *bridgetest.Browser) (out []int) {
	f.t.Helper()
	for _, p := range f.replicas {
		if !p.dead {
			out = append(out, statusOf(f.t, p.url+"/api_token", b.Cookies(f.url)))
		}
	}
	return out
}

// TestThreeProcesses: a login may start at one replica, finish at the next and be used at a third; what ends there has ended everywhere.
func TestThreeProcesses(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	login := func() *bridgetest.Browser {
		b := bridgetest.NewBrowser()
		page, err := b.Open(t.Context(), f.url+"/login/op?return_to=/")
		if err == nil {
			page, err = b.ChoosePersona(t.Context(), page, "carl")
		}
		if err != nil || page.URL.Path != "/" {
			t.Fatalf("%v %v", page, err)
		}
		return b
	}
	for at := range f.replicas {
		f.next(at)
		b := login()
		page, err := b.Fetch(t.Context(), http.MethodGet, f.url+"/api_token", nil, "")
		if err != nil || page.Status != 200 {
			t.Fatalf("%v %v", page, err)
		}
		if got := fmt.Sprint(f.each(b)); got != "[200 200 200]" {
			t.Errorf("logged in at %d: %s", at, got)
		}
	}
	for _, segment := range []string{"login", "callback", "api_token"} {
		if n := len(f.served[segment]); n != 3 {
			t.Errorf("/%s was answered by %d replicas", segment, n)
		}
	}
	for name, end := range map[string]func(b *bridgetest.Browser) error{
		"logout": func(b *bridgetest.Browser) error {
			page, err := b.Open(t.Context(), f.url+"/logout")
			if err == nil {
				_, err = b.Submit(t.Context(), page, "", nil)
			}
			return err
		},
		"SQL": func(*bridgetest.Browser) error { return f.db.Exec(t.Context(), "DELETE FROM bridge.sessions") },
		"session revoke": func(*bridgetest.Browser) error {
			cmd := exec.CommandContext(t.Context(), "oidc-bridge", "session", "revoke", "--all", "--yes")
			cmd.Dir, cmd.Env = f.replicas[0].cmd.Dir, append(f.replicas[0].cmd.Env, "DATABASE_OWNER_URL="+f.db.OwnerURL)
			if text, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, text)
			}
			return nil
		},
	} {
		b := login()
		if got := fmt.Sprint(f.each(b), f.each(b)); got != "[200 200 200] [200 200 200]" {
			t.Errorf("before %s: %s", name, got)
		}
		if err := end(b.Clone()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		bridgetest.Await(t, "every replica to refuse after "+name, func() bool { return fmt.Sprint(f.each(b)) == "[401 401 401]" })
	}
}

// TestFault_F19_KilledDuringLogin: the replica where a login has started is killed, and so is the one where it has finished; the others go on.
func TestFault_F19_KilledDuringLogin(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f.next(0)
	b := bridgetest.NewBrowser()
	page, err := b.Open(ctx, f.url+"/login/op?return_to=/")
	if err != nil {
		t.Fatal(err)
	}
	f.replicas[0].kill()
	f.next(1)
	if page, err = b.ChoosePersona(ctx, page, "carl"); err != nil || page.URL.Path != "/" {
		t.Fatalf("%v %v", page, err)
	}
	f.replicas[1].kill()
	if got := fmt.Sprint(f.each(b)); got != "[200]" {
		t.Errorf("the last replica: %s", got)
	}
}
