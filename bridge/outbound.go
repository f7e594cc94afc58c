package bridge

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
)

const (
	outboundTimeout = 10 * time.Second // of one request, body included
	maxResponse     = 1 << 20          // bytes
	maxConnections  = 64               // to one provider: a slow one cannot take all of ours (D6)

	keysMaxAge   = time.Hour        // a key that the provider removed stops working within this time (JD-10)
	keysCooldown = 30 * time.Second // between fetches for keys that strangers ask for (JD-06)
	minRSABits   = 2048             // RFC 7518 section 3.3
	maxTriedKeys = 10               // for a token without kid (JD-09)
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
		DialContext:           dialer.DialContext,
		DisableCompression:    true,
		ForceAttemptHTTP2:     true,
		MaxConnsPerHost:       maxConnections,
		MaxIdleConnsPerHost:   maxConnections,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: outboundTimeout,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if p.CAFile != "" {
		pool, err := certPool(p.CAFile)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{
		Transport:     cappedTransport{transport},
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

// sharedAddressSpace is carrier-grade NAT (RFC 6598), where clouds keep services of their own.
var sharedAddressSpace = netip.MustParsePrefix("100.64.0.0/10")

func allowAddress(address string, allowPrivate, allowLoopback bool) error {
	endpoint, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	addr := endpoint.Addr().Unmap().WithZone("")
	switch {
	case addr.IsUnspecified() || addr.IsMulticast() || addr.IsLinkLocalUnicast():
		return fmt.Errorf("address %s is never dialled", addr)
	case addr.IsLoopback() && !allowLoopback && !allowPrivate, (addr.IsPrivate() || sharedAddressSpace.Contains(addr)) && !allowPrivate:
		return fmt.Errorf("address %s is private: set allow_private if the provider is meant to be there", addr)
	}
	return nil
}

// cappedTransport ends bodies that are too long and responses that are compressed although we did not ask for it.
type cappedTransport struct{ next http.RoundTripper }

func (t cappedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Accept-Encoding", "identity")
	response, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		response.Body.Close()
		return nil, fmt.Errorf("response has Content-Encoding %.32q", encoding)
	}
	response.Body = &cappedBody{ReadCloser: response.Body, left: maxResponse}
	return response, nil
}

type cappedBody struct {
	io.ReadCloser
	left int
}

func (b *cappedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("response is larger than %d bytes", maxResponse)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// getJSON fetches a JSON object. bearer may be empty.
func getJSON(ctx context.Context, client *http.Client, url, bearer string) (map[string]any, error) {
	body, err := get(ctx, client, url, bearer)
	if err != nil {
		return nil, err
	}
	object, err := decodeObject(body)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", url, err)
	}
	return object, nil
}

func get(ctx context.Context, client *http.Client, url, bearer string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: status %d", url, response.StatusCode)
	}
	if contentType, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";"); contentType == "text/html" {
		return nil, fmt.Errorf("GET %s: an HTML page instead of JSON", url)
	}
	return io.ReadAll(response.Body)
}

// A keySet is the published keys of one provider, those of them that may sign with its algorithm.
//
// The last good set is kept when a refresh fails. A token with an unknown kid causes a refresh; for tokens that anybody can send,
// at most one in keysCooldown, while a token that came from the token endpoint always may.
type keySet struct {
	client *http.Client
	alg    jose.SignatureAlgorithm
	now    func() time.Time
	flight singleflight.Group

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetched time.Time // of the keys above
	tried   time.Time
}

var (
	errUnknownKey   = errors.New("no published key fits")
	errBadSignature = errors.New("signature does not match")
)

// verify returns the payload of a compact JWS whose signature one of the keys at url made.
func (k *keySet) verify(ctx context.Context, url, jwt string, cooldown time.Duration) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(jwt, []jose.SignatureAlgorithm{k.alg})
	if err != nil {
		return nil, err
	}
	kid := jws.Signatures[0].Header.KeyID
	keys, stale := k.candidates(kid)
	if len(keys) == 0 || stale {
		// On failure the last good keys go on: candidates of an unknown kid stay none.
		if err := k.refresh(ctx, url, cooldown); err != nil && len(keys) == 0 {
			return nil, err
		}
		keys, _ = k.candidates(kid)
	}
	if len(keys) == 0 {
		return nil, errUnknownKey
	}
	for _, key := range keys {
		if payload, err := jws.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	return nil, errBadSignature
}

// candidates are the keys to try for the kid: the one that has it, or without kid all, up to a bound.
func (k *keySet) candidates(kid string) (keys []jose.JSONWebKey, stale bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.keys {
		if (kid == "" || key.KeyID == kid) && len(keys) < maxTriedKeys {
			keys = append(keys, key)
		}
	}
	return keys, k.now().Sub(k.fetched) > keysMaxAge
}

func (k *keySet) refresh(ctx context.Context, url string, cooldown time.Duration) error {
	k.mu.Lock()
	wait := k.tried.Add(cooldown).Sub(k.now())
	k.mu.Unlock()
	if wait > 0 {
		return fmt.Errorf("%w, and the key set was asked for less than %s ago", errUnknownKey, cooldown)
	}
	_, err, _ := k.flight.Do(url, func() (any, error) {
		// Not the caller's context alone: others wait for this answer too. The client has its own deadline.
		body, err := get(context.WithoutCancel(ctx), k.client, url, "")
		var keys []jose.JSONWebKey
		if err == nil {
			keys, err = usableKeys(body, k.alg)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.tried = k.now()
		if err == nil {
			k.keys, k.fetched = keys, k.now()
		}
		return nil, err
	})
	return err
}

// usableKeys reads a JWKS (RFC 7517). A key that is broken, private, symmetric, too weak or meant for something else is left out and spoils
// nothing; a set without any usable key is an error, so that it does not replace a good one (JD-07, JD-11).
func usableKeys(body []byte, alg jose.SignatureAlgorithm) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		var more struct {
			Operations []string `json:"key_ops"`
		}
		if key.UnmarshalJSON(raw) != nil || json.Unmarshal(raw, &more) != nil || !key.IsPublic() || !key.Valid() {
			continue
		}
		if key.Use != "" && key.Use != "sig" || key.Algorithm != "" && key.Algorithm != string(alg) ||
			more.Operations != nil && !slices.Contains(more.Operations, "verify") || !fits(key.Key, alg) {
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("key set: none of %d keys can verify %s", len(set.Keys), alg)
	}
	return keys, nil
}

// fits reports whether the type of the key is the one that the algorithm needs: the key decides, never the token's header (RFC 8725 3.1).
func fits(key any, alg jose.SignatureAlgorithm) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return (strings.HasPrefix(string(alg), "RS") || strings.HasPrefix(string(alg), "PS")) && key.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey:
		bits := map[jose.SignatureAlgorithm]int{jose.ES256: 256, jose.ES384: 384, jose.ES512: 521}[alg]
		return bits != 0 && key.Curve.Params().BitSize == bits
	case ed25519.PublicKey:
		return alg == jose.EdDSA
	}
	return false
}
