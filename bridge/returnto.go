package bridge

import (
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

const maxReturnTo = 512 // bytes

// returnTo returns where a login goes back to: a path on our host, or a URL on one of the allowed origins. What is anything else, in any
// browser's reading, becomes "/" (RD-01 to RD-04). The rules look at bytes, because URL parsers disagree about what follows a slash.
func returnTo(c *Config, target string) string {
	const fallback = "/"
	if target == "" || len(target) > maxReturnTo {
		return fallback
	}
	path := target
	for _, origin := range c.AllowedOrigins {
		if rest, ok := strings.CutPrefix(target, origin); ok && strings.HasPrefix(rest, "/") {
			path = rest
		}
	}
	if path[0] != '/' || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`\"<>^{|}`+"`", r) }) {
		return fallback
	}
	raw, _, _ := strings.Cut(path, "?")
	raw, _, _ = strings.Cut(raw, "#")
	decoded, err := url.PathUnescape(raw)
	if err != nil || !utf8.ValidString(decoded) || !isPlainPath(raw) || !isPlainPath(decoded) {
		return fallback
	}
	if path == target && isOwnEndpoint(c, decoded) {
		return fallback
	}
	return target
}

// isPlainPath refuses everything that some parser shortens, splits or takes for a host.
func isPlainPath(path string) bool {
	if strings.Contains(path, "//") || strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f }) {
		return false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// endpoints are the first segments of addresses that a login cannot come back to.
var endpoints = []string{"login", "callback", "logout", "logged-out", "api_token", "me", "auth", "token", "backchannel-logout"}

// isOwnEndpoint keeps a login from returning to a page that would start or end one.
func isOwnEndpoint(c *Config, path string) bool {
	own, below := strings.CutPrefix(strings.ToLower(path), strings.ToLower(c.PublicURL.Path)+"/")
	if !below {
		return false
	}
	first, _, _ := strings.Cut(own, "/")
	return slices.Contains(endpoints, first)
}
