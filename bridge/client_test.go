package bridge_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// clientModule asks for /bridge.js.
func clientModule(h http.Handler, method string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/auth/bridge.js", nil)
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestClientModule(t *testing.T) {
	t.Parallel()
	h := httpsService(t, "")
	file, err := os.ReadFile("client/bridge.js")
	if err != nil {
		t.Fatal(err)
	}
	first := clientModule(h, http.MethodGet, http.Header{})
	etag := first.Header().Get("ETag")
	if first.Code != 200 || !bytes.Equal(first.Body.Bytes(), file) || len(etag) != 24 || etag[0] != '"' {
		t.Fatalf("%d, ETag %s, %d bytes of %d", first.Code, etag, first.Body.Len(), len(file))
	}
	if again := clientModule(httpsService(t, ""), http.MethodGet, http.Header{}); again.Header().Get("ETag") != etag {
		t.Errorf("another replica has the ETag %s, this one %s", again.Header().Get("ETag"), etag)
	}
	for given, want := range map[string]int{etag: 304, `"x", ` + etag: 304, "*": 304, "W/" + etag: 304, `"x"`: 200, "": 200} {
		w := clientModule(h, http.MethodGet, http.Header{"If-None-Match": {given}})
		if w.Code != want || w.Header().Get("ETag") != etag || (w.Body.Len() == 0) != (want == 304) || w.Header().Get("Cache-Control") != "public, max-age=300" {
			t.Errorf("If-None-Match %s: %d with %d bytes, want %d: %v", given, w.Code, w.Body.Len(), want, w.Header())
		}
	}
	if w := clientModule(h, http.MethodPost, http.Header{}); w.Code != 405 || w.Header().Get("Allow") != "GET" {
		t.Errorf("POST: %d %v", w.Code, w.Header())
	}
	var small bytes.Buffer
	z, _ := gzip.NewWriterLevel(&small, gzip.BestCompression)
	z.Write(file)
	z.Close()
	if small.Len() >= 3000 {
		t.Errorf("%d bytes with gzip, want less than 3000", small.Len())
	}
}

// TestAttack_TK04_PublicModule: what every cache may keep depends on nobody, and nobody gets a cookie with it.
func TestAttack_TK04_PublicModule(t *testing.T) {
	t.Parallel()
	h := httpsService(t, "allowed_origins: [https://shop.example.com]")
	plain := clientModule(h, http.MethodGet, http.Header{})
	headers := []http.Header{
		{"Cookie": {"__Host-oidc-bridge-session=AAAA"}},
		{"Cookie": {"a=b"}, "Authorization": {"Bearer x"}},
		{"Origin": {"https://shop.example.com"}, "Sec-Fetch-Site": {"same-site"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"script"}},
		{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"script"}},
		{"Origin": {"null"}},
		{"X-Forwarded-Host": {"evil.example"}, "Accept": {"text/html"}},
	}
	for _, header := range headers {
		w := clientModule(h, http.MethodGet, header)
		if !bytes.Equal(w.Body.Bytes(), plain.Body.Bytes()) || w.Code != 200 {
			t.Errorf("%v: %d, another text", header, w.Code)
		}
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "", "Cross-Origin-Resource-Policy": "cross-origin", "Set-Cookie": "", "Vary": "",
			"X-Content-Type-Options": "nosniff", "Content-Type": "text/javascript; charset=utf-8", "Content-Security-Policy": plain.Header().Get("Content-Security-Policy"),
		} {
			if got := w.Header().Get(name); got != want || name == "Content-Security-Policy" && got == "" {
				t.Errorf("%v: %s is %q, want %q", header, name, got, want)
			}
		}
	}
	bridgetest.Tried(t, len(headers))
}
