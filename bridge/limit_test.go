package bridge_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestAttack_HS06_RateLimits: who counts as one visitor, whatever they write into headers.
func TestAttack_HS06_RateLimits(t *testing.T) {
	t.Parallel()
	const burst = 120
	for _, test := range []struct {
		name   string
		peer   func(i int) string
		header func(i int) string
		want   int // of the request after the burst
	}{
		{"one address", func(int) string { return "203.0.113.7:999" }, nil, 429},
		{"many addresses", func(i int) string { return fmt.Sprintf("203.0.113.%d:999", i) }, nil, 503},
		{"one IPv6 subscriber", func(i int) string { return fmt.Sprintf("[2001:db8:1:2::%x]:999", i) }, nil, 429},
		{"many IPv6 subscribers", func(i int) string { return fmt.Sprintf("[2001:db8:1:%x::1]:999", i) }, nil, 503},
		{"mapped addresses", func(int) string { return "[::ffff:203.0.113.7]:999" }, nil, 429},
		{"a forged header", func(int) string { return "203.0.113.7:999" }, func(i int) string { return fmt.Sprintf("198.51.100.%d", i) }, 429},
		{"our proxy", func(int) string { return "127.0.0.1:999" }, func(i int) string { return fmt.Sprintf("198.51.100.%d", i) }, 503},
		{"our proxy, one visitor", func(int) string { return "127.0.0.1:999" }, func(int) string { return "198.51.100.7" }, 429},
		{"our proxy, forged on the left", func(int) string { return "127.0.0.1:999" }, func(i int) string { return fmt.Sprintf("192.0.2.%d, 198.51.100.7", i) }, 429},
		{"two of our proxies", func(int) string { return "127.0.0.1:999" }, func(i int) string { return fmt.Sprintf("198.51.100.%d, 10.1.2.3", i) }, 503},
		{"our proxy, nonsense", func(int) string { return "127.0.0.1:999" }, func(i int) string { return fmt.Sprintf("x%d", i) }, 429},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			started := time.Now()
			h := httpsServiceAt(t, "trusted_proxies: [127.0.0.1/32, 10.0.0.0/8]\n", func() time.Time { return started })
			request := func(path string, i int) int {
				r := httptest.NewRequest(http.MethodGet, path, nil)
				r.RemoteAddr = test.peer(i)
				if test.header != nil {
					r.Header.Set("X-Forwarded-For", test.header(i))
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code == 429 && w.Header().Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
				return w.Code
			}
			for i := range burst {
				if got := request("/auth/login/corp", i); got != 503 { // the provider of this bridge does not exist
					t.Fatalf("start %d: %d", i, got)
				}
				if got := request("/auth/callback/corp?code=x&state=y", i); got != 400 {
					t.Fatalf("callback %d: %d", i, got)
				}
			}
			if got := request("/auth/login/corp", burst); got != test.want {
				t.Errorf("a start after the burst: %d, want %d", got, test.want)
			}
			want := 400
			if test.want == 429 {
				want = 429
			}
			if got := request("/auth/callback/corp?code=x&state=y", burst); got != want {
				t.Errorf("a failure after the burst: %d, want %d", got, want)
			}
			if got := request("/auth/logout", burst); got != 200 {
				t.Errorf("what is not a login: %d", got)
			}
		})
	}
}

// TestLimitsHeal: a minute later a minute's worth is there again, and people who log in are not counted as failures.
func TestLimitsHeal(t *testing.T) {
	t.Parallel()
	s := newService(t)
	status := func(path string) int {
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		return do(t, request).StatusCode
	}
	for range 130 {
		status("/login/op")
	}
	if got := status("/login/op"); got != 429 {
		t.Fatalf("%d", got)
	}
	s.advance(time.Minute)
	for i := range 60 {
		if got := status("/login/op"); got != 302 {
			t.Fatalf("%d after %d of a minute's worth", got, i)
		}
	}
}
