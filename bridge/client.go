package bridge

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"net/http"
	"time"
)

//go:embed client/bridge.js
var clientModule []byte

// handleClient is GET /bridge.js, the module for scripts of pages (client/README.md). It is the same for everybody and says nothing of anybody,
// so that any page may load it, from any cache; what it then asks for is only for the allowed origins (isScriptRead).
func handleClient() handler {
	sum := sha256.Sum256(clientModule)
	etag := `"` + base64url.EncodeToString(sum[:16]) + `"`
	return func(w http.ResponseWriter, r *http.Request) error {
		h := w.Header()
		h.Set("Content-Type", "text/javascript; charset=utf-8")
		h.Set("Cache-Control", "public, max-age=300") // seconds that a page may run the module of an older bridge
		h.Set("ETag", etag)
		// Modules of other origins are fetched with CORS. No Origin in Vary: the answer does not depend on it.
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(clientModule))
		return nil
	}
}
