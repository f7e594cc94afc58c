package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	outboundTimeout   = 10 * time.Second // of one request, waiting for its turn and the body included
	maxResponse       = 1 << 20          // bytes of a body
	maxResponseHeader = 64 << 10         // bytes
	maxUnderWay       = 64               // requests to one provider: a slow one cannot take all of our sockets (D6)
)

// newOutbound makes the client of one provider. It follows no redirect, asks for no compression, reads at most maxResponse bytes, ends
// after outboundTimeout, uses no proxy, and connects to private addresses only where the configuration allows it: the check is made on the
// address that is really dialled, so that no name can be rebound to one (JD-02, JD-04, JD-05, JD-12).
func newOutbound(p ProviderConfig, insecureDev bool) (*http.Client, error) {
	dialer := &net.Dialer{
		Timeout: 5 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			return allowAddress(address, p.AllowPrivate, insecureDev)
		},
	}
	transport := &http.Transport{
		DialContext:            dialer.DialContext,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    maxUnderWay,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxResponseHeaderBytes: maxResponseHeader,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if p.CAFile != "" {
		pool, err := certPool(p.CAFile)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{
		Transport:     boundedTransport{next: transport, turns: make(chan struct{}, maxUnderWay)},
		Timeout:       outboundTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func certPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

// Addresses that no provider has. The metadata services of clouds give credentials to whoever can reach them; those that are not link-local
// are listed. What translates or tunnels to IPv4 would lead around the rules for IPv4: NAT64 is judged by the address inside, the rest is
// never dialled.
var (
	neverDialled = prefixes(
		"0.0.0.0/8", "192.0.0.0/24", "240.0.0.0/4", // this network, protocol assignments (Oracle's metadata), reserved and broadcast
		"100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::254/128", // metadata of Alibaba, Azure, AWS
		"::/96", "2001::/32", "2002::/16", "fec0::/10", // IPv4-compatible, Teredo, 6to4, site-local
	)
	privateToo = prefixes(
		"100.64.0.0/10",  // carrier-grade NAT (RFC 6598), where clouds keep services of their own
		"198.18.0.0/15",  // benchmarks (RFC 2544)
		"64:ff9b:1::/48", // local NAT64 (RFC 8215)
	)
	nat64 = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func allowAddress(address string, allowPrivate, allowLoopback bool) error {
	endpoint, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	addr := endpoint.Addr().WithZone("").Unmap()
	if nat64.Contains(addr) {
		addr = netip.AddrFrom4([4]byte(addr.AsSlice()[12:]))
	}
	within := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	switch {
	case addr.IsLoopback():
		if !allowLoopback && !allowPrivate {
			return fmt.Errorf("address %s is this machine: set allow_private if the provider is meant to be there", addr)
		}
	case addr.IsMulticast() || addr.IsLinkLocalUnicast() || within(neverDialled):
		return fmt.Errorf("address %s is never dialled", addr)
	case (addr.IsPrivate() || within(privateToo)) && !allowPrivate:
		return fmt.Errorf("address %s is private: set allow_private if the provider is meant to be there", addr)
	}
	return nil
}

// boundedTransport bounds what a provider can take of us: requests under way, bytes of a body, and no compression, which would make many
// bytes of few.
type boundedTransport struct {
	next  http.RoundTripper
	turns chan struct{}
}

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case t.turns <- struct{}{}:
	case <-r.Context().Done():
		return nil, fmt.Errorf("%d requests to this provider are under way: %w", cap(t.turns), r.Context().Err())
	}
	done := sync.OnceFunc(func() { <-t.turns })
	r = r.Clone(r.Context())
	r.Header.Set("Accept-Encoding", "identity")
	response, err := t.next.RoundTrip(r)
	if err != nil {
		done()
		return nil, err
	}
	response.Body = &boundedBody{ReadCloser: response.Body, left: maxResponse + 1, done: done}
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		response.Body.Close()
		return nil, fmt.Errorf("%w: Content-Encoding %.32q, which was not asked for", ErrProviderAnswer, encoding)
	}
	return response, nil
}

// boundedBody gives its turn back when it is closed.
type boundedBody struct {
	io.ReadCloser
	left int
	done func()
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	if b.left -= n; b.left == 0 {
		return n, fmt.Errorf("%w: the body is larger than %d bytes", ErrProviderAnswer, maxResponse)
	}
	return n, err
}

func (b *boundedBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

// send returns the whole answer to a request. An error is ErrProviderDown where there was none, ErrProviderAnswer where it is out of bounds.
func send(client *http.Client, request *http.Request) (*http.Response, []byte, error) {
	response, err := client.Do(request)
	if err == nil {
		defer response.Body.Close()
		var body []byte
		if body, err = io.ReadAll(response.Body); err == nil {
			return response, body, nil
		}
	}
	if !errors.Is(err, ErrProviderAnswer) {
		err = fmt.Errorf("%w: %w", ErrProviderDown, err)
	}
	return nil, nil, err
}

// get returns the answer to a GET, which must be 200. bearer may be empty.
func get(ctx context.Context, client *http.Client, url, bearer string) (*http.Response, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Accept", "application/json")
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, body, err := send(client, request)
	if err != nil {
		return nil, nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, nil, statusError(response.StatusCode, "GET "+url)
	}
	return response, body, nil
}

// getJSON fetches a JSON object, sent as one.
func getJSON(ctx context.Context, client *http.Client, url, bearer string) (map[string]any, error) {
	response, body, err := get(ctx, client, url, bearer)
	if err != nil {
		return nil, err
	}
	object, err := jsonObject(response, body)
	if err != nil {
		return nil, fmt.Errorf("%w: GET %s: %w", ErrProviderAnswer, url, err)
	}
	return object, nil
}

// jsonObject decodes an answer that calls itself JSON. Discovery 4.2, OpenID Connect Core 3.1.3.3 and 5.3.2 all ask for application/json:
// an HTML page, a form or a signed UserInfo response is none.
func jsonObject(response *http.Response, body []byte) (map[string]any, error) {
	contentType, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || contentType != "application/json" {
		return nil, fmt.Errorf("its Content-Type is %.64q", response.Header.Get("Content-Type"))
	}
	return decodeObject(body)
}

// statusError is ErrProviderDown where the status says that trying later may help.
func statusError(status int, what string) error {
	cause := ErrProviderAnswer
	if status >= 500 || status == http.StatusTooManyRequests {
		cause = ErrProviderDown
	}
	return fmt.Errorf("%w: %s: status %d", cause, what, status)
}

// A documentLog tells the operators of a bad discovery document or key set, which a login may never show: the last good one goes on.
type documentLog struct {
	provider string
	log      *slog.Logger
	metrics  *Metrics
}

func (d documentLog) failed(document string, err error) {
	d.metrics.documents.WithLabelValues(d.provider, document).Inc()
	d.warn(document, err.Error())
}

func (d documentLog) warn(document, problem string) {
	d.log.Warn("provider document", "provider", d.provider, "document", document, "problem", oneLine(problem))
}
