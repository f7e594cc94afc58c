package bridge

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// Logins are limited by address, since they are what strangers can make us do at a provider. Tokens are not: they need a session. The limits
// leave room for an office behind one address that comes to work.
const (
	limitRefill  = time.Second // one more start, or one more failure, per address
	limitBurst   = 120
	limitEntries = 10000 // addresses remembered, twice over: some 2 MB
)

// A limiter counts by address: an IPv4 address, or an IPv6 /64, of which one subscriber has all (HS-06). Its memory is bounded.
type limiter struct {
	now     func() time.Time
	buckets *recent[netip.Prefix, *rate.Limiter]
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, buckets: newRecent[netip.Prefix, *rate.Limiter](limitEntries)}
}

func (l *limiter) bucket(addr netip.Addr) *rate.Limiter {
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	key, err := addr.Prefix(bits)
	if err != nil {
		key = netip.Prefix{} // an address that we cannot read shares one bucket with all of its kind
	}
	return l.buckets.getOrPut(key, func() *rate.Limiter { return rate.NewLimiter(rate.Every(limitRefill), limitBurst) })
}

// take counts one and reports whether it is still within the limit.
func (l *limiter) take(addr netip.Addr) bool { return l.bucket(addr).AllowN(l.now(), 1) }

// left reports whether another one would be within the limit.
func (l *limiter) left(addr netip.Addr) bool { return l.bucket(addr).TokensAt(l.now()) >= 1 }

// limitStarts counts every request to the handler.
func limitStarts(c *Config, l *limiter, h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if addr := clientAddr(c, r); !l.take(addr) {
			return fmt.Errorf("%w: login starts of %s", ErrTooMany, addr)
		}
		return h(w, r)
	}
}

// limitFailures counts the requests that the handler refuses.
func limitFailures(c *Config, l *limiter, h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		addr := clientAddr(c, r)
		if !l.left(addr) {
			return fmt.Errorf("%w: failed logins of %s", ErrTooMany, addr)
		}
		err := h(w, r)
		if err != nil {
			l.take(addr)
		}
		return err
	}
}

// clientAddr is the address of the browser: the peer's, or where the peer is one of trusted_proxies, the last address of X-Forwarded-For
// that is not. What stands further left was written by the browser itself.
func clientAddr(c *Config, r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := peer.Addr().Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && c.trusts(addr); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop.Unmap()
	}
	return addr
}

func (c *Config) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(c.TrustedProxies, func(proxy netip.Prefix) bool { return proxy.Contains(addr) })
}
