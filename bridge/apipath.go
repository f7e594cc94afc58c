package bridge

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// apiPath returns what stands behind proxy.path, as the client spelled it, "/" when that is nothing. Each resource has one spelling here (D17):
// what a program on the way could shorten, decode once more or cut off is ErrPath (FA-04).
func apiPath(prefix string, u *url.URL) (string, error) {
	spelt := u.RawPath // which EscapedPath would mend
	if spelt == "" {
		spelt = u.EscapedPath()
	}
	path, below := strings.CutPrefix(spelt, prefix)
	if path == "" {
		path = "/"
	}
	if !below || path[0] != '/' {
		return "", fmt.Errorf("%w: not below %s", ErrPath, prefix)
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		if segment == "" && path != "/" || segment == "." || segment == ".." {
			return "", fmt.Errorf("%w: segment %q", ErrPath, segment)
		}
	}
	for i := 0; i < len(path); i++ {
		if path[i] == '%' {
			decoded := unhex(path[i+1])<<4 | unhex(path[i+2]) // there are two digits behind each, or net/url would not have read it
			if isUnreserved(decoded) || decoded < ' ' || decoded == 0x7f || strings.IndexByte(`/\;?#%`, decoded) >= 0 {
				return "", fmt.Errorf("%w: %s", ErrPath, path[i:i+3])
			}
			i += 2
		} else if !isUnreserved(path[i]) && strings.IndexByte("!$&'()*+,=:@/", path[i]) < 0 {
			return "", fmt.Errorf("%w: byte %q", ErrPath, path[i])
		}
	}
	if !utf8.ValidString(u.Path) {
		return "", fmt.Errorf("%w: not UTF-8", ErrPath)
	}
	return path, nil
}

// isUnreserved is RFC 3986 section 2.3: these stand for themselves.
func isUnreserved(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '.' || b == '_' || b == '~'
}

func unhex(digit byte) byte {
	switch {
	case digit <= '9':
		return digit - '0'
	default:
		return digit&^0x20 - 'A' + 10
	}
}

// isPlainHeader reports whether a header's name can mean itself only. Some programs read '-', '_' and '.' alike (FA-01): like nginx, the proxy
// drops names with anything but letters, digits and '-'.
func isPlainHeader(name string) bool {
	for i := range len(name) {
		if b := name[i]; b == '_' || b == '.' || b == '~' || !isUnreserved(b) {
			return false
		}
	}
	return true
}

// isOwnHeader reports whether the proxy says this of a request itself, or others could say it in the proxy's place. The name is canonical.
func isOwnHeader(name string) bool {
	switch name {
	case "Authorization", "Proxy-Authorization", "Proxy-Authenticate", "Cookie", "Forwarded", "Te", requestIDHeader:
		return true
	}
	first, rest, _ := strings.Cut(name, "-")
	if first != "X" {
		return first == "Remote" || name == "True-Client-Ip"
	}
	second, _, _ := strings.Cut(rest, "-")
	switch second {
	case "Auth", "Authenticated", "Forwarded", "Original", "Remote", "Webauth":
		return true
	}
	switch rest {
	case "Http-Method", "Http-Method-Override", "Method-Override", "Rewrite-Url", "Real-Ip", "Client-Ip":
		return true
	}
	return false
}

// dropHeaders removes from a client's headers all that the proxy does not pass on.
func dropHeaders(h http.Header) {
	for name := range h {
		if !isPlainHeader(name) || isOwnHeader(name) {
			delete(h, name)
		}
	}
}
