package bridge

import (
	"net/netip"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestAttack_HS06_LimiterMemory: whoever has many addresses fills no memory with them, and does not make the limiter forget an address that is
// still at it.
func TestAttack_HS06_LimiterMemory(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLimiter(func() time.Time { return now })
	busy := netip.MustParseAddr("203.0.113.7")
	for range limitBurst {
		l.take(busy)
	}
	const addresses = 5 * limitEntries
	for i := range addresses {
		l.take(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 5: byte(i >> 16), 6: byte(i >> 8), 7: byte(i)}))
		if i%(limitEntries/2) == 0 && l.take(busy) {
			t.Fatalf("forgotten after %d other addresses", i)
		}
		if n := len(l.buckets.younger) + len(l.buckets.older); n > 2*limitEntries {
			t.Fatalf("%d addresses are remembered", n)
		}
	}
	bridgetest.Tried(t, addresses)
}
