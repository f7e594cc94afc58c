package bridge

import "strings"

// The first word that a User-Agent contains names the browser: each of them also says that it is those below it.
var (
	browsers = []struct{ sign, name string }{
		{"Edg", "Edge"},
		{"OPR/", "Opera"},
		{"OPT/", "Opera"},
		{"SamsungBrowser/", "Samsung Internet"},
		{"Vivaldi/", "Vivaldi"},
		{"YaBrowser/", "Yandex Browser"},
		{"DuckDuckGo/", "DuckDuckGo"},
		{"FxiOS/", "Firefox"},
		{"Firefox/", "Firefox"},
		{"CriOS/", "Chrome"},
		{"Chromium/", "Chromium"},
		{"Chrome/", "Chrome"},
		{"Safari/", "Safari"},
		{"curl/", "curl"},
	}
	systems = []struct{ sign, name string }{
		{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"}, {"Windows", "Windows"}, {"Macintosh", "Mac"}, {"Linux", "Linux"},
	}
)

// device says in plain words where a session is, from its User-Agent. It shows nothing that the browser wrote: only names that stand above.
func device(userAgent string) string {
	first := func(names []struct{ sign, name string }) string {
		for _, n := range names {
			if strings.Contains(userAgent, n.sign) {
				return n.name
			}
		}
		return ""
	}
	browser, system := first(browsers), first(systems)
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser != "":
		return browser
	case system != "":
		return "A program on " + system
	default:
		return "Unknown device"
	}
}
