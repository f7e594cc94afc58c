package bridge

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/mapping"
)

// The rows of group JD that are about the client of a provider, and what else it promises. There is no database here: a login is
// Provider.AuthorizationURL, the provider, and Provider.Exchange.

// A connection is a Provider with what a test needs around it.
type connection struct {
	*Provider
	Log   *bridgetest.Log
	rules *mapping.Rules
	ahead atomic.Int64 // nanoseconds of its clock
}

func (c *connection) clock() time.Time        { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *connection) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// connect makes the connection to an issuer. change may be nil; dev is insecure_dev.
func connect(t *testing.T, issuer string, dev bool, change func(p *ProviderConfig)) *connection {
	t.Helper()
	rules, findings := mapping.Load("rules.yaml", []byte("version: 1\nproviders: { op: { preset: generic } }\nroles: { customer: {} }\n"+
		"rules: [ { name: all, when: { email: { present: true } }, role: customer } ]\ndefault: deny\n"))
	if rules == nil {
		t.Fatal(findings)
	}
	p := ProviderConfig{
		ID: "op", Issuer: issuer, ClientID: "bridge", ClientSecrets: []Secret{NewSecret("secret")}, AuthMethod: "client_secret_basic", Scopes: []string{"openid"}, Alg: "RS256", UserInfo: "always",
	}
	if change != nil {
		change(&p)
	}
	c := &connection{Log: bridgetest.NewLog(t), rules: rules}
	config := &Config{PublicURL: &url.URL{Scheme: "https", Host: "app.example.com"}, InsecureDev: dev}
	provider, err := NewProvider(config, p, c.Log.Logger(), NewMetrics("test"), c.clock)
	if err != nil {
		t.Fatal(err)
	}
	c.Provider = provider
	t.Cleanup(provider.client.CloseIdleConnections)
	return c
}

// newOP is a provider that logs Carl in at once.
func newOP(t *testing.T, o bridgetest.OPOptions) *bridgetest.OP {
	t.Helper()
	o.Personas = []bridgetest.Persona{{Subject: "carl", Name: "Carl"}}
	o.Clients = []bridgetest.Client{{ID: "bridge", Secret: "secret", RedirectURIs: []string{"https://app.example.com/callback/op"}}}
	op := bridgetest.NewOP(t, o)
	op.Set(func(b *bridgetest.Behaviour) { b.AutoLogin = "carl" })
	return op
}

// login goes from the authorization request to the identity.
func (c *connection) login(ctx context.Context, browser http.RoundTripper) (Identity, error) {
	state := NewLoginState("op", "/", c.clock())
	target, err := c.AuthorizationURL(ctx, state)
	if err != nil {
		return Identity{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return Identity{}, err
	}
	answer, err := browser.RoundTrip(request)
	if err != nil {
		return Identity{}, err
	}
	answer.Body.Close()
	callback, err := answer.Location()
	if err != nil {
		return Identity{}, err
	}
	return c.Exchange(ctx, c.rules, state, callback.Query().Get("code"))
}

// visited counts the connections that reach it.
func visited(t *testing.T, handler http.HandlerFunc) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	var n atomic.Int32
	server := httptest.NewUnstartedServer(handler)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			n.Add(1)
		}
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	return server, &n
}

func TestAttack_JD03_OddEndpoints(t *testing.T) {
	t.Parallel()
	document := map[string]any{}
	var issuer string
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		document["issuer"] = issuer
		_ = json.NewEncoder(w).Encode(document)
	})
	certificate, ca, err := bridgetest.NewCertificate("localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	secure := httptest.NewUnstartedServer(handler)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(handler)
	t.Cleanup(plain.Close)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, base := range map[string]string{"https": secure.URL, "insecure_dev": plain.URL} {
		dev := mode == "insecure_dev"
		discover := func(change map[string]any) error {
			issuer = base
			clear(document)
			for _, name := range []string{"authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"} {
				document[name] = base + "/" + name
			}
			for name, value := range change {
				if document[name] = value; value == nil {
					delete(document, name)
				}
			}
			c := connect(t, base, dev, func(p *ProviderConfig) { p.CAFile, p.AllowPrivate = caFile, true })
			target, err := c.AuthorizationURL(t.Context(), NewLoginState("op", "/", time.Now()))
			if (err == nil) != (target != "") || err != nil && !errors.Is(err, ErrProviderDown) {
				t.Errorf("%q, %v", target, err)
			}
			return err
		}
		bad := []any{
			"http://sso.example.com/x", "http://127.0.0.1.example.com/x", "http://10.0.0.1/x", "http://[fe80::1]/x", "http://localhost.evil.example/x", "javascript:alert(1)", "JavaScript://x/%0aalert(1)",
			"data:text/html,x", "file:///etc/passwd", "ftp://sso.example.com/x", "gopher://x/", "ws://x/", "unix:///var/run/docker.sock", "//sso.example.com/x", "/x", "x", "", "https:x", "https:/x", "https:///x",
			"https://", "https://:443/x", "https://user@sso.example.com/x", "https://user:pw@sso.example.com/x", "https://@sso.example.com/x", "https://sso.example.com/x#f", "https://sso.example.com/x#",
			"https://sso.example.com/x?client_id=evil", "https://sso.example.com/x?a=1&redirect_uri=https://evil.example", "https://sso.example.com/x?STATE=1&state=2", " https://sso.example.com/x",
			"https://sso.example.com\\@evil.example/x", "https://sso example.com/x", "https://sso.example.com:port/x", "https://sso.example.com/\x00", "https://sso.example.com/%zz", "https://[::1/x",
			json.RawMessage("null"), 1, true,
			[]string{"https://sso.example.com/x"},
			map[string]string{"url": "https://sso.example.com/x"},
		}
		if !dev {
			bad = append(bad, "http://127.0.0.1/x", "http://localhost/x", plain.URL+"/x")
		}
		for _, name := range []string{"authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"} {
			for _, value := range bad {
				t.Run(fmt.Sprintf("%s %s %v", mode, name, value), func(t *testing.T) {
					if err := discover(map[string]any{name: value}); err == nil || !strings.Contains(err.Error(), name) {
						t.Errorf("%v", err)
					}
				})
			}
			t.Run(mode+" no "+name, func(t *testing.T) {
				if err := discover(map[string]any{name: nil}); (err == nil) != (name == "userinfo_endpoint") {
					t.Errorf("%v", err)
				}
			})
			for _, value := range []string{"https://other.example/x", "https://sso.example.com:8443/x?tenant=7", "https://[2001:db8::1]/x", "HTTPS://sso.example.com/x"} {
				t.Run(fmt.Sprintf("%s %s %s: control", mode, name, value), func(t *testing.T) {
					if err := discover(map[string]any{name: value}); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

func TestAttack_JD04_Addresses(t *testing.T) {
	t.Parallel()
	const never, private, loopback, public = "never", "private", "loopback", "public"
	for _, test := range []struct {
		kind      string
		addresses []string
	}{
		{public, []string{"93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "172.15.255.255", "172.32.0.1", "192.167.1.1", "11.0.0.1", "100.63.255.255", "100.128.0.1", "169.253.1.1", "198.17.255.255", "64:ff9b::808:808", "::ffff:8.8.8.8"}},
		{loopback, []string{"127.0.0.1", "127.255.255.254", "127.0.0.53", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "64:ff9b::7f00:1", "64:ff9b::127.0.0.1"}},
		{private, []string{
			"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255", "100.64.0.1", "100.127.255.254", "198.18.0.1", "198.19.255.255", "fc00::1", "fd12:3456::1", "fdff::1",
			"::ffff:10.0.0.1", "::ffff:c0a8:1", "64:ff9b::a00:1", "64:ff9b::192.168.1.1", "64:ff9b:1::a00:1",
		}},
		{never, []string{
			"0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "64:ff9b::", "64:ff9b::0.0.0.0", "169.254.0.1", "169.254.169.254", "169.254.170.2", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe",
			"fe80::1", "fe80::1%lo", "febf::1", "fec0::1", "224.0.0.1", "239.255.255.250", "ff02::1", "255.255.255.255", "240.0.0.1", "192.0.0.192", "192.0.0.170", "100.100.100.200", "168.63.129.16", "fd00:ec2::254",
			"::ffff:100.100.100.200", "64:ff9b::6464:64c8", "::127.0.0.1", "::10.0.0.1", "::2", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::", "2001::1",
		}},
	} {
		for _, address := range test.addresses {
			t.Run(test.kind+" "+address, func(t *testing.T) {
				target := net.JoinHostPort(address, "443")
				for setting, want := range map[[2]bool]bool{ // allow_private, insecure_dev
					{false, false}: test.kind == public,
					{true, false}:  test.kind != never,
					{false, true}:  test.kind == public || test.kind == loopback,
					{true, true}:   test.kind != never,
				} {
					if err := allowAddress(target, setting[0], setting[1]); (err == nil) != want {
						t.Errorf("allow_private %v, insecure_dev %v: %v", setting[0], setting[1], err)
					}
				}
			})
		}
	}
	for _, odd := range []string{"", "127.0.0.1", "localhost:443", "/var/run/docker.sock", "@abstract", "8.8.8.8:99999", "0x7f.1:80", "2130706433:80", "[::1]"} {
		t.Run("odd "+odd, func(t *testing.T) {
			if err := allowAddress(odd, true, true); err == nil {
				t.Error("allowed")
			}
		})
	}

	// The client looks at what it really dials, whatever the name was.
	server, visits := visited(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0", "0.0.0.0", "[::]", "LOCALHOST", "localhost.", "127.0.0.1."} {
		t.Run("dial "+host, func(t *testing.T) {
			client, err := newOutbound(ProviderConfig{}, false)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := get(t.Context(), client, "http://"+host+port+"/", ""); !errors.Is(err, ErrProviderDown) {
				t.Errorf("%v", err)
			}
		})
	}
	if n := visits.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
	for name, allow := range map[string]ProviderConfig{"allow_private": {AllowPrivate: true}, "insecure_dev": {}} {
		t.Run("dial with "+name+": control", func(t *testing.T) {
			client, err := newOutbound(allow, name == "insecure_dev")
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := get(t.Context(), client, server.URL, ""); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("only what discovery names is dialled", func(t *testing.T) {
		op := newOP(t, bridgetest.OPOptions{})
		trap, visits := visited(t, nil)
		op.Set(func(b *bridgetest.Behaviour) {
			b.Discovery = func(m map[string]any) {
				for _, name := range []string{"end_session_endpoint", "introspection_endpoint", "revocation_endpoint", "registration_endpoint", "check_session_iframe", "op_policy_uri", "service_documentation", "signed_metadata"} {
					m[name] = trap.URL
				}
			}
			b.UserInfo = func(c map[string]any) { c["picture"], c["profile"], c["website"] = trap.URL, trap.URL, trap.URL }
			b.IDTokenHeader = func(h map[string]any) { h["jku"], h["x5u"] = trap.URL, trap.URL }
			b.TokenResponse = func(r map[string]any) { r["resource"], r["authorization_details"] = trap.URL, trap.URL }
		})
		if _, err := connect(t, op.Issuer(), true, nil).login(t.Context(), http.DefaultTransport); err != nil {
			t.Error(err)
		}
		if n := visits.Load(); n != 0 {
			t.Errorf("%d connections", n)
		}
	})
}

// TestAttack_JD05_Bodies is not parallel: it looks at how much memory is allocated.
func TestAttack_JD05_Bodies(t *testing.T) {
	var bomb bytes.Buffer
	w, _ := gzip.NewWriterLevel(&bomb, gzip.BestCompression)
	for range 200 {
		_, _ = w.Write(bytes.Repeat([]byte(" "), 1<<20))
	}
	_ = w.Close()
	const megabyte = 1 << 20
	gone := make(chan struct{}, 100) // a request whose client has gone
	endless := func(piece string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, piece); err != nil {
					break
				}
			}
			gone <- struct{}{}
		}
	}
	whole := func(size int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"x":"`, strings.Repeat("x", size-8), `"}`)
		}
	}
	full := func(value string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"x":[`, strings.Repeat(value+",", (megabyte-10)/(len(value)+1)), `0]}`)
		}
	}
	encoded := func(encoding string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", encoding)
			_, _ = w.Write(bomb.Bytes())
		}
	}
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"1 MB but for nothing", whole(megabyte), ""},
		{"1 MB and a byte", whole(megabyte + 1), "larger than"},
		{"2 MB", whole(2 * megabyte), "larger than"},
		{"1 MB of zeros", full("0"), "too many values"},
		{"1 MB of empty lists", full("[]"), "too many values"},
		{"1 MB of small objects", full(`{"a":0}`), "too many values"},
		{"no end", endless(strings.Repeat("x", 32<<10)), "larger than"},
		{"no end of blanks", endless(strings.Repeat(" ", 32<<10)), "larger than"},
		{"gzip of 200 MB", encoded("gzip"), "Content-Encoding"},
		{"GZIP of 200 MB", encoded("GZIP"), "Content-Encoding"},
		{"deflate", encoded("deflate"), "Content-Encoding"},
		{"br", encoded("br"), "Content-Encoding"},
		{"twice compressed", encoded("gzip, gzip"), "Content-Encoding"},
		{"identity and gzip", encoded("identity, gzip"), "Content-Encoding"},
		{"gzip that does not say so", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(bomb.Bytes())
		}, "not UTF-8"},
		{"a header of 1 MB", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", megabyte))
		}, "cannot be reached"},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := make(chan string, 1)
			server, _ := visited(t, func(w http.ResponseWriter, r *http.Request) {
				asked <- r.Header.Get("Accept-Encoding")
				test.handler(w, r)
			})
			client, err := newOutbound(ProviderConfig{}, true)
			if err != nil {
				t.Fatal(err)
			}
			defer client.CloseIdleConnections()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err = getJSON(t.Context(), client, server.URL, "")
			runtime.ReadMemStats(&after)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v", err)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 24*megabyte { // both sides of the connection
				t.Errorf("%d bytes allocated", grown)
			}
			if got := <-asked; got != "identity" {
				t.Errorf("Accept-Encoding: %q", got)
			}
		})
	}

	// Slow answers end with the client's deadline, which is set short here.
	for name, handler := range map[string]http.HandlerFunc{
		"no header": func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			gone <- struct{}{}
		},
		"header, no body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			gone <- struct{}{}
		},
		"a byte at a time": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				<-tick.C
			}
			gone <- struct{}{}
		},
	} {
		for _, endpoint := range []string{"discovery", "jwks", "token", "userinfo"} {
			t.Run(endpoint+": "+name, func(t *testing.T) {
				t.Parallel() // the memory has been looked at
				op := newOP(t, bridgetest.OPOptions{})
				c := connect(t, op.Issuer(), true, nil)
				if c.client.Timeout != 10*time.Second {
					t.Errorf("the deadline is %s", c.client.Timeout)
				}
				c.client.Timeout = 300 * time.Millisecond
				op.Set(func(b *bridgetest.Behaviour) {
					b.Handle[endpoint] = func(w http.ResponseWriter, r *http.Request) bool { handler(w, r); return true }
				})
				_, err := c.login(t.Context(), http.DefaultTransport)
				if !errors.Is(err, ErrProviderDown) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
				<-gone // the connection was given up, not left behind
				if n := op.Calls(endpoint); n != 1 {
					t.Errorf("%d calls", n)
				}
			})
		}
	}
}

// TestFault_F12_SlowProvider: what hangs at one provider has no effect on the others, and only a bounded number of requests can hang.
func TestFault_F12_SlowProvider(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	release := sync.OnceFunc(func() { close(gate) })
	var under, most atomic.Int32
	slow, _ := visited(t, func(http.ResponseWriter, *http.Request) {
		n := under.Add(1)
		for {
			if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		<-gate
		under.Add(-1)
	})
	t.Cleanup(release) // before the server closes
	client, err := newOutbound(ProviderConfig{}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for range 2 * maxUnderWay {
		all.Go(func() { _, _, _ = get(t.Context(), client, slow.URL, "") })
	}
	bridgetest.Await(t, "the slow provider to be full", func() bool { return under.Load() == maxUnderWay })
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := get(impatient, client, slow.URL, ""); !errors.Is(err, ErrProviderDown) {
		t.Errorf("one more: %v", err)
	}
	op := newOP(t, bridgetest.OPOptions{})
	if _, err := connect(t, op.Issuer(), true, nil).login(t.Context(), http.DefaultTransport); err != nil {
		t.Errorf("another provider: %v", err)
	}
	release()
	all.Wait()
	if n := most.Load(); n != maxUnderWay {
		t.Errorf("%d requests at once", n)
	}
	for range maxUnderWay + 1 { // every turn was given back
		if _, _, err := get(t.Context(), client, slow.URL, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestConnectionsAreReused, also after answers that are refused.
func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	server, connections := visited(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader([]int{200, 404, 500, 302}[n.Add(1)%4])
		fmt.Fprint(w, `{"x":1}`)
	})
	client, err := newOutbound(ProviderConfig{}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	for range 20 {
		_, _ = getJSON(t.Context(), client, server.URL, "")
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for 20 requests", n)
	}
}

func TestAttack_JD06_UnknownKeys(t *testing.T) {
	t.Parallel()
	op := newOP(t, bridgetest.OPOptions{})
	c := connect(t, op.Issuer(), true, nil)
	if _, err := c.login(t.Context(), http.DefaultTransport); err != nil {
		t.Fatal(err)
	}
	m, err := c.Discover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	logoutToken := func(kid any) string {
		token, err := op.Sign(map[string]any{"kid": kid}, map[string]any{
			"iss": op.Issuer(), "aud": "bridge", "iat": c.clock().Unix(), "exp": c.clock().Add(time.Minute).Unix(), "jti": "j", "sub": "carl",
			"events": map[string]any{logoutEvent: map[string]any{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	forged := func(token string) string {
		return token[:strings.LastIndex(token, ".")+1] + base64url.EncodeToString(make([]byte, 256))
	}
	flood := func(n int, make func(i int) string, want tokenFault) {
		t.Helper()
		var all sync.WaitGroup
		for worker := range 8 {
			all.Go(func() {
				for i := range n / 8 {
					if _, err := c.verifier.logoutToken(t.Context(), m.jwksURI, make(worker*n/8+i)); !errors.Is(err, want) {
						t.Errorf("%v", err)
					}
				}
			})
		}
		all.Wait()
	}
	unknown := forged(logoutToken("unknown"))
	header, rest, _ := strings.Cut(unknown, ".")
	random := func(i int) string {
		text, _ := base64url.DecodeString(header)
		return base64url.EncodeToString(bytes.Replace(text, []byte("unknown"), fmt.Append(nil, "kid-", i), 1)) + "." + rest
	}
	badKnown := forged(logoutToken(op.KeyID("RS256")))
	badNone := forged(logoutToken(nil))
	steps := []struct {
		name    string
		do      func()
		fetches int
	}{
		{"1000 unknown kids, right after a login", func() { flood(1000, random, faultKey) }, 0},
		{"1000 unknown kids", func() { c.advance(keysCooldown); flood(1000, random, faultKey) }, 1},
		{"1000 times one unknown kid", func() { flood(1000, func(int) string { return unknown }, faultKey) }, 0},
		{"30 seconds later", func() { c.advance(keysCooldown); flood(1000, random, faultKey) }, 1},
		{"bad signatures under a known kid", func() { c.advance(keysCooldown); flood(200, func(int) string { return badKnown }, faultSignature) }, 0},
		{"bad signatures without kid", func() { flood(200, func(int) string { return badNone }, faultSignature) }, 1},
		{"a good one meanwhile", func() {
			if _, err := c.verifier.logoutToken(t.Context(), m.jwksURI, logoutToken(op.KeyID("RS256"))); err != nil {
				t.Error(err)
			}
		}, 0},
		{"a login after a rotation, meanwhile", func() {
			if err := op.RotateKeys(true); err != nil {
				t.Fatal(err)
			}
			flood(200, random, faultKey)
			c.ahead.Store(0) // the provider's clock
			if _, err := c.login(t.Context(), http.DefaultTransport); err != nil {
				t.Error(err)
			}
		}, 1},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			op.ForgetRequests()
			step.do()
			if n := op.Calls("jwks"); n != step.fetches {
				t.Errorf("%d fetches of the key set, want %d", n, step.fetches)
			}
		})
	}
	t.Run("a key set that fails", func(t *testing.T) {
		op.ForgetRequests()
		op.Set(func(b *bridgetest.Behaviour) {
			b.Handle["jwks"] = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true }
		})
		c.advance(10 * time.Minute)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if _, err := c.verifier.logoutToken(t.Context(), m.jwksURI, unknown); err == nil {
					t.Error("accepted")
				}
			})
		}
		all.Wait()
		if n := op.Calls("jwks"); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// TestKeySetFetchIsNewerThanTheQuestion: who asks for a key while a fetch is under way, and does not find it in the answer, was asking about a
// rotation that came after the fetch began. The next fetch is for all who wait.
func TestKeySetFetchIsNewerThanTheQuestion(t *testing.T) {
	t.Parallel()
	op := newOP(t, bridgetest.OPOptions{})
	c := connect(t, op.Issuer(), true, nil)
	if _, err := c.Discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	answer := make(chan struct{})
	var first sync.Once
	op.Set(func(b *bridgetest.Behaviour) {
		b.Handle["jwks"] = func(w http.ResponseWriter, _ *http.Request) bool {
			old := op.KeySet()
			first.Do(func() {
				<-answer
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write(old)
				old = nil
			})
			return old == nil
		}
	})
	results := make(chan error, 11)
	login := func() { _, err := c.login(t.Context(), http.DefaultTransport); results <- err }
	go login()
	bridgetest.Await(t, "the first fetch", func() bool { return op.Calls("jwks") == 1 })
	if err := op.RotateKeys(false); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		go login()
	}
	bridgetest.Await(t, "the others' tokens", func() bool { return op.Calls("token") == 11 })
	close(answer)
	for range 11 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := op.Calls("jwks"); n > 3 { // a login may ask right between the two
		t.Errorf("%d fetches", n)
	}
	// Whoever asks for a key that is not there either waits for one fetch, too, not for one each.
	op.ForgetRequests()
	missing, err := op.Sign(map[string]any{"kid": "missing"}, map[string]any{})
	if err != nil {
		t.Fatal(err)
	}
	hold, under := make(chan struct{}), make(chan struct{}, 100)
	op.Set(func(b *bridgetest.Behaviour) {
		b.Handle["jwks"] = func(http.ResponseWriter, *http.Request) bool { under <- struct{}{}; <-hold; return false }
	})
	ask := func() {
		_, err := c.verifier.keys.verify(t.Context(), op.Issuer()+"/jwks", missing, fromProvider)
		results <- err
	}
	go ask()
	<-under
	for range 50 {
		go ask()
	}
	close(hold)
	for range 51 {
		if err := <-results; !errors.Is(err, errUnknownKey) {
			t.Errorf("%v", err)
		}
	}
	if n := op.Calls("jwks"); n > 10 { // a few may come late
		t.Errorf("%d fetches for one missing key", n)
	}
	// Nobody waits longer than they want to.
	c.verifier.keys.turn <- struct{}{}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.verifier.keys.verify(impatient, op.Issuer()+"/jwks", missing, fromProvider); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestAttack_JD12_TLS(t *testing.T) {
	certificate := func(t *testing.T, from, until time.Duration, hosts ...string) (tls.Certificate, []byte) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until), IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		for _, host := range hosts {
			if ip := net.ParseIP(host); ip != nil {
				template.IPAddresses = append(template.IPAddresses, ip)
			} else {
				template.DNSNames = append(template.DNSNames, host)
			}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	_, otherCA := certificate(t, -time.Hour, time.Hour, "127.0.0.1")
	for _, test := range []struct {
		name        string
		from, until time.Duration
		hosts       []string
		tls         *tls.Config
		ca          string // own, other, none
		want        string
	}{
		{name: "own CA", hosts: []string{"127.0.0.1"}, ca: "own"},
		{name: "TLS 1.2", hosts: []string{"127.0.0.1"}, ca: "own", tls: &tls.Config{MaxVersion: tls.VersionTLS12}},
		{name: "TLS 1.3", hosts: []string{"127.0.0.1"}, ca: "own", tls: &tls.Config{MinVersion: tls.VersionTLS13}},
		{name: "no CA file", hosts: []string{"127.0.0.1"}, ca: "none", want: "unknown authority"},
		{name: "another CA's file", hosts: []string{"127.0.0.1"}, ca: "other", want: "unknown authority"},
		{name: "wrong name", hosts: []string{"sso.example.com"}, ca: "own", want: "127.0.0.1"},
		{name: "wrong address", hosts: []string{"127.0.0.2"}, ca: "own", want: "127.0.0.1"},
		{name: "name in the common name alone", ca: "own", want: "127.0.0.1"},
		{name: "wildcard", hosts: []string{"*"}, ca: "own", want: "127.0.0.1"},
		{name: "expired", hosts: []string{"127.0.0.1"}, until: -time.Minute, ca: "own", want: "expired"},
		{name: "not yet valid", hosts: []string{"127.0.0.1"}, from: 10 * time.Minute, until: time.Hour, ca: "own", want: "not yet valid"},
		{name: "TLS 1.1", hosts: []string{"127.0.0.1"}, ca: "own", tls: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, want: "protocol version"},
		{name: "TLS 1.0", hosts: []string{"127.0.0.1"}, ca: "own", tls: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, want: "protocol version"},
		{name: "RC4 and 3DES", hosts: []string{"127.0.0.1"}, ca: "own", tls: &tls.Config{
			MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA},
		}, want: "handshake failure"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.from == 0 {
				test.from = -time.Hour
			}
			if test.until == 0 {
				test.until = time.Hour
			}
			own, ca := certificate(t, test.from, test.until, test.hosts...)
			if test.tls == nil {
				test.tls = &tls.Config{}
			}
			test.tls.Certificates = []tls.Certificate{own}
			op := newOP(t, bridgetest.OPOptions{TLS: test.tls})
			c := connect(t, op.Issuer(), false, func(p *ProviderConfig) {
				p.AllowPrivate = true
				if file := map[string][]byte{"own": ca, "other": otherCA}[test.ca]; file != nil {
					p.CAFile = filepath.Join(t.TempDir(), "ca.pem")
					if err := os.WriteFile(p.CAFile, file, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			})
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(ca)
			browser := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
			defer browser.CloseIdleConnections()
			identity, err := c.login(t.Context(), browser)
			if test.want == "" {
				if err != nil || identity.Subject != "carl" {
					t.Errorf("%v %v", identity, err)
				}
				return
			}
			if !errors.Is(err, ErrProviderDown) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v", err)
			}
			if n := op.Calls("discovery"); n != 0 {
				t.Errorf("%d requests got through", n)
			}
		})
	}
	t.Run("http where https is configured", func(t *testing.T) {
		op := newOP(t, bridgetest.OPOptions{})
		c := connect(t, strings.Replace(op.Issuer(), "http:", "https:", 1), false, func(p *ProviderConfig) { p.AllowPrivate = true })
		if _, err := c.login(t.Context(), http.DefaultTransport); !errors.Is(err, ErrProviderDown) || op.Calls("discovery") != 0 {
			t.Errorf("%v", err)
		}
	})
	for _, file := range []string{"", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not PEM", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"} {
		t.Run(fmt.Sprintf("CA file %.20q", file), func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := newOutbound(ProviderConfig{CAFile: name}, false); err == nil {
				t.Error("taken")
			}
		})
	}
	t.Run("CA file missing", func(t *testing.T) {
		if _, err := newOutbound(ProviderConfig{CAFile: filepath.Join(t.TempDir(), "none")}, false); err == nil {
			t.Error("taken")
		}
	})
	t.Run("proxy of the environment", func(t *testing.T) {
		proxy, visits := visited(t, nil)
		for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
			t.Setenv(name, proxy.URL)
		}
		client, err := newOutbound(ProviderConfig{}, true)
		if err != nil {
			t.Fatal(err)
		}
		if proxyOf := client.Transport.(boundedTransport).next.(*http.Transport).Proxy; proxyOf != nil { // net/http reads the environment once
			t.Error("the client would use a proxy")
		}
		server, reached := visited(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
		if _, _, err := get(t.Context(), client, server.URL, ""); err != nil || reached.Load() != 1 || visits.Load() != 0 {
			t.Errorf("%v, %d connections to the proxy", err, visits.Load())
		}
	})
	t.Run("no switch turns verification off", func(t *testing.T) {
		files, err := filepath.Glob("*.go")
		if err != nil || len(files) < 10 {
			t.Fatal(files, err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(name, "_test.go") && strings.Contains(string(text), "InsecureSkipVerify") {
				t.Errorf("%s can skip the verification of certificates", name)
			}
		}
	})
}
