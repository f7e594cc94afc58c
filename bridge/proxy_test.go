package bridge_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// TestProxyStreams: what the API writes arrives while it goes on writing, and what the page sends arrives while it goes on sending.
func TestProxyStreams(t *testing.T) {
	t.Parallel()
	s, api, cookie := newProxied(t, "")
	api.answers(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			_, _ = fmt.Fprintf(w, "got %s\n", lines.Text())
			_ = control.Flush()
		}
	})
	out, in := io.Pipe()
	response := make(chan *http.Response, 1)
	go func() { response <- s.call("POST", "/api/rpc/echo", cookie, nil, out) }()
	var answer *bufio.Reader
	for _, word := range []string{"one", "two", "three"} {
		if _, err := io.WriteString(in, word+"\n"); err != nil {
			t.Fatal(err)
		}
		if answer == nil {
			r := <-response
			defer r.Body.Close()
			answer = bufio.NewReader(r.Body)
		}
		// The next word is not sent before this answer is here.
		if line, err := answer.ReadString('\n'); err != nil || line != "got "+word+"\n" {
			t.Fatalf("%q %v", line, err)
		}
	}
	in.Close()
	if rest, err := io.ReadAll(answer); err != nil || len(rest) > 0 {
		t.Errorf("%q %v", rest, err)
	}
}

// TestProxyTakesWhatIsLarge: the limits of the bridge's own addresses are not those of the API.
func TestProxyTakesWhatIsLarge(t *testing.T) {
	t.Parallel()
	s, api, cookie := newProxied(t, "")
	api.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Query", fmt.Sprint(len(r.URL.RawQuery)))
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})
	body := make([]byte, 20<<20)
	rand.Read(body)
	for name, reader := range map[string]io.Reader{"with its length": bytes.NewReader(body), "chunked": io.MultiReader(bytes.NewReader(body))} {
		response := s.call("POST", "/api/rpc/upload?id=in.("+strings.Repeat("1234,", 4000)+"0)", cookie, nil, reader)
		got := bodyOf(t, response)
		if response.StatusCode != 200 || got != string(body) || response.Header.Get("X-Query") != fmt.Sprint(len("id=in.(")+5*4000+2) {
			t.Errorf("%s: %d, %d bytes, a query of %s", name, response.StatusCode, len(got), response.Header.Get("X-Query"))
		}
		api.forget()
	}
	if response := s.call("POST", "/logout", cookie, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, bytes.NewReader(body[:100<<10])); response.StatusCode != 413 {
		t.Errorf("the bridge's own addresses: %d", response.StatusCode)
	}
}

// TestProxyEndsWithItsClient: when the page goes away, so does the request at the API.
func TestProxyEndsWithItsClient(t *testing.T) {
	t.Parallel()
	s, api, cookie := newProxied(t, "")
	began, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	api.answers(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "late" {
			_, _ = io.WriteString(w, "[")
			_ = http.NewResponseController(w).Flush()
		}
		began <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	for _, query := range []string{"", "?late"} {
		ctx, leave := context.WithCancel(t.Context())
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/api/orders"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.AddCookie(cookie)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if response, err := proxyClient.Do(request); err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
		}()
		<-began
		leave()
		<-ended
		<-done
	}
}

// TestFault_F33_PostgRESTDown: the API is down, slow, or breaks off. The page learns it, with a code and the request's id; logins go on.
func TestFault_F33_PostgRESTDown(t *testing.T) {
	t.Parallel()
	api := newAPIRecorder(t)
	s := newService(t, withConfig("proxy: { upstream: "+api.URL+", timeout: 1s }"))
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	refused := func(what, method string, status int, reason string) {
		t.Helper()
		response := s.call(method, "/api/orders", cookie, nil, nil)
		body := bodyOf(t, response)
		var answer struct {
			Error, Message, Code, Reason string
			Request                      string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || response.StatusCode != status || answer.Reason != reason || answer.Request == "" ||
			answer.Request != response.Header.Get("X-Request-Id") || answer.Code == "" || answer.Error == "" || response.Header.Get("Cache-Control") != "no-store" || strings.Contains(body, "127.0.0.1") {
			t.Errorf("%s: %d %v %s", what, response.StatusCode, response.Header, body)
		}
		if !s.Log.Contains("ref=" + answer.Code) {
			t.Errorf("%s: the log does not have %s", what, answer.Code)
		}
	}
	stop := make(chan struct{})
	api.answers(func(http.ResponseWriter, *http.Request) { <-stop })
	refused("slow", "GET", 504, "upstream_timeout")
	refused("slow", "POST", 504, "upstream_timeout")
	close(stop)
	hijacked := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, text)
				conn.Close()
			}
		}
	}
	for _, garbage := range []string{"", "HTTP/1.1 200 OK\r\n", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "HTTP/1.1 099 No\r\n\r\n"} {
		api.answers(hijacked(garbage))
		refused(fmt.Sprintf("it says %q", garbage), "POST", 502, "upstream_unavailable")
	}
	for _, half := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n"} {
		api.answers(hijacked(half))
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api/orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.AddCookie(cookie)
		response, err := proxyClient.Do(request)
		if err != nil {
			continue
		}
		if body, err := io.ReadAll(response.Body); err == nil {
			t.Errorf("half an answer looks whole: %s", body)
		}
		response.Body.Close()
	}
	api.heard.Close()
	api.heard.mu.Lock()
	for _, c := range api.heard.conns {
		c.Close()
	}
	api.heard.mu.Unlock()
	refused("down", "GET", 502, "upstream_unavailable")
	refused("down", "POST", 502, "upstream_unavailable")
	if _, page := s.login("cora", "/orders"); page.URL.Path != "/orders" {
		t.Errorf("a login meanwhile: %s", page.Text())
	}
	// It comes back, and needs no word to anybody.
	again, err := net.Listen("tcp", api.heard.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go server.Serve(again)
	t.Cleanup(func() { server.Close() })
	if response := s.call("GET", "/api/orders", cookie, nil, nil); response.StatusCode != 200 {
		t.Errorf("back: %d", response.StatusCode)
	}
}

// TestAttack_HS01_Pace: clients of the API may take longer than a request to the bridge itself may, but not at any pace.
func TestAttack_HS01_Pace(t *testing.T) {
	t.Parallel()
	api := newAPIRecorder(t)
	s := newService(t, withConfig("proxy: { upstream: "+api.URL+", timeout: 32s }"))
	b, _ := s.login("carl", "/")
	cookie := sessionCookie(t, s, b)
	api.answers(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPut:
			<-r.Context().Done()
			return
		case http.MethodDelete:
			<-time.After(31 * time.Second)
			w.WriteHeader(http.StatusNoContent)
			return
		case http.MethodPost:
			n, err := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprintf(w, "%d %v", n, err)
			return
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for range 33 {
			<-tick.C
			if _, err := io.WriteString(w, "x"); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	var clients sync.WaitGroup
	for method, want := range map[string]int{"DELETE": 204, "PUT": 504} {
		clients.Go(func() {
			if response := s.call(method, "/api/orders", cookie, nil, nil); response.StatusCode != want {
				t.Errorf("%s, answered after 30 s: %d", method, response.StatusCode)
			}
		})
	}
	clients.Go(func() { // past the 30 s that an answer of the bridge itself may take
		if body, err := io.ReadAll(s.call("GET", "/api/rpc/report", cookie, nil, nil).Body); err != nil || len(body) != 33 {
			t.Errorf("a long download: %d bytes, %v", len(body), err)
		}
	})
	head := "POST /api/rpc/upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nSec-Fetch-Site: same-origin\r\nCookie: " + cookie.Name + "=" + cookie.Value + "\r\nContent-Length: "
	upload := func(name string, length, piece int, every time.Duration, want string) {
		clients.Go(func() {
			conn, err := net.Dial("tcp", s.Config.PublicURL.Host)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = fmt.Fprintf(conn, "%s%d\r\n\r\n", head, length)
			ended := make(chan string, 1)
			go func() { answer, _ := io.ReadAll(conn); ended <- string(answer) }()
			tick := time.NewTicker(every)
			defer tick.Stop()
			for sent := 0; ; {
				select {
				case answer := <-ended:
					if !strings.HasPrefix(answer, want) {
						t.Errorf("%s: %q", name, answer)
					}
					return
				case <-tick.C:
					if sent < length {
						n, _ := conn.Write(bytes.Repeat([]byte("x"), min(piece, length-sent)))
						sent += n
					}
				}
			}
		})
	}
	// past the 15 s that a request to the bridge itself may take
	upload("a long upload", 72<<10, 2<<10, 500*time.Millisecond, "HTTP/1.1 200 OK")
	upload("a byte at a time", 72<<10, 1, 200*time.Millisecond, "HTTP/1.1 408 ")
	upload("nothing", 72<<10, 0, time.Second, "HTTP/1.1 408 ")
	clients.Wait()
	bridgetest.Tried(t, 6)
}
