package bridge

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

// BenchmarkProxy is the proxy's own work for a request without session: what it costs to find a session is /auth's. `make bench` measures the
// whole, P7, in a process of its own.
func BenchmarkProxy(b *testing.B) {
	body := make([]byte, 367)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}))
	b.Cleanup(api.Close)
	upstreamURL, err := url.Parse(api.URL)
	if err != nil {
		b.Fatal(err)
	}
	c := &Config{
		PublicURL: &url.URL{Scheme: "https", Host: "app.example.com", Path: "/auth"}, Anonymous: "anonymous", CookieKeys: []Secret{NewSecret("0123456789abcdef0123456789abcdef")},
		Proxy:   &ProxyConfig{Upstream: upstreamURL, Path: "/api", Timeout: time.Minute},
		Signing: SigningConfig{Key: NewSecret("0f8b3c1d5e7a92640f8b3c1d5e7a9264"), Audience: "postgrest", TTL: 15 * time.Minute},
	}
	log, m := slog.New(slog.DiscardHandler), NewMetrics("")
	cookies, err := NewCookies(c, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	signer, err := NewSigner(c, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	active := &ActiveRules{}
	active.inForce.Store(&rulesInForce{Rules: &mapping.Rules{}})
	g := gateway{c, sessionReader{config: c, rules: active, cookies: cookies}, signer, m}
	errs := errorWriter{log: log, metrics: m}
	upstream := newUpstream(c, log)
	b.Cleanup(upstream.transport.CloseIdleConnections)
	server := httptest.NewServer(errs.either(handleProxy(g, upstream)))
	b.Cleanup(server.Close)
	request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, server.URL+"/auth/api/orders?select=id", nil)
	if err != nil {
		b.Fatal(err)
	}
	request.Header = http.Header{"Cookie": {"theme=dark; a=b"}, "Accept": {"application/json"}, "Sec-Fetch-Site": {"same-origin"}}
	b.ReportAllocs()
	for b.Loop() {
		response, err := http.DefaultClient.Do(request)
		if err != nil || response.StatusCode != http.StatusOK {
			b.Fatal(response, err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}
