package front

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

func TestFront(t *testing.T) {
	var forwarded http.Header
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { forwarded = r.Header }))
	defer api.Close()
	apiURL, err := url.Parse(api.URL)
	if err != nil {
		t.Fatal(err)
	}
	site, err := New(http.NotFoundHandler(), apiURL, Page{})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Cookie", "session=secret")
		r.Header.Set("Authorization", "Bearer x")
		w := httptest.NewRecorder()
		site.ServeHTTP(w, r)
		return w
	}
	if w := get("/orders"); w.Code != http.StatusOK || forwarded.Get("Authorization") != "Bearer x" || forwarded.Get("Cookie") != "" {
		t.Errorf("status %d; the API got %v, want the token and no cookie", w.Code, forwarded)
	}
	if w := get("/"); strings.Contains(w.Body.String(), "stand-in") || strings.Contains(w.Header().Get("Content-Security-Policy"), "unsafe") {
		t.Errorf("the page in front of a real PostgREST: %v\n%s", w.Header(), w.Body)
	}
	if w := get("/front.go"); w.Code != http.StatusNotFound {
		t.Errorf("/front.go: status %d", w.Code)
	}
	api.Close()
	if w := get("/orders"); w.Code != http.StatusBadGateway || !strings.Contains(w.Body.String(), `{"message":`) {
		t.Errorf("without API: status %d, %s", w.Code, w.Body)
	}
}

// The page runs under its policy only while nothing is inline.
func TestPageHasNothingInline(t *testing.T) {
	page, err := fs.ReadFile(files, "page.html")
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`<style|<script(>| [^>]*[^"]>)|\son[a-z]+=|\sstyle=|javascript:`).Find(page); found != nil {
		t.Errorf("page.html has %q", found)
	}
}
