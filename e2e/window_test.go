package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// A window is a person at Chromium, with an empty profile. Each method fails the test when it cannot do what it says; the test's log then
// has what the window shows.
type window struct {
	t    *testing.T
	ctx  context.Context
	shop *shop
}

// stepTimeout is for one thing that a person does or waits for.
const stepTimeout = time.Minute

func (s *shop) openWindow(t *testing.T) *window {
	t.Helper()
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1000, 800),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))...)
	ctx, _ := chromedp.NewContext(allocator)
	w := &window{t, ctx, s}
	t.Cleanup(func() {
		if t.Failed() {
			w.shot("failed")
			location, _ := chromedp.Run(w.ctx, chromedp.Location())
			text, _ := chromedp.Run(w.ctx, chromedp.Evaluate[string]("document.body.innerText"))
			t.Logf("the window shows %s:\n%s", location, text)
		}
		if err := chromedp.Cancel(ctx); err != nil { // unlike a kill, it lets Chromium clear up behind it
			t.Error(err)
		}
		stop()
	})
	if err := chromedp.Do(ctx); err != nil { // starts Chromium, which ends with this context
		t.Fatal(err)
	}
	return w
}

// do takes the steps.
func (w *window) do(steps ...chromedp.Action[chromedp.Void]) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, stepTimeout)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *window) open(address string) {
	w.t.Helper()
	w.do(chromedp.Navigate(address))
}

// see waits until the page shows an element with this text, which has no quotation mark.
func (w *window) see(text string) {
	w.t.Helper()
	w.do(chromedp.WaitVisible(fmt.Sprintf(`//body//*[text()[contains(normalize-space(.), "%s")]]`, text)))
}

func (w *window) click(selector chromedp.CSS) {
	w.t.Helper()
	w.do(chromedp.Click(selector))
}

func (w *window) fill(selector chromedp.CSS, text string) {
	w.t.Helper()
	w.do(chromedp.SendKeys(selector, text))
}

// evaluate returns the value of an expression of JavaScript, or of its promise.
func evaluate[T any](w *window, expression string) T {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, stepTimeout)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		w.t.Fatal(err)
	}
	return value
}

// shot saves what the window shows, the whole page, into the folder E2E_SHOTS.
func (w *window) shot(name string) {
	w.t.Helper()
	dir := os.Getenv("E2E_SHOTS")
	if dir == "" {
		return
	}
	image, err := chromedp.Run(w.ctx, func(ctx context.Context, _ *chromedp.Target) ([]byte, error) {
		shot, err := chromedp.Call(ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: new(true)})
		return shot.Data, err
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, strings.ReplaceAll(w.t.Name(), "/", "_")+"_"+name+".png"), image, 0o644)
	}
	if err != nil {
		w.t.Log("screenshot:", err)
	}
}

const ordersView chromedp.CSS = "[data-view=orders]"

// wantOrders waits for the page with the orders and compares them.
func (w *window) wantOrders(want ...string) {
	w.t.Helper()
	w.do(chromedp.WaitVisible(ordersView))
	got := evaluate[[]string](w, `[...document.querySelectorAll("#rows .item")].map(cell => cell.textContent)`)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Errorf("the page shows the orders %q, want %q", got, want)
	}
}

// back goes back in the window's history, to the last time that it was at the address.
func (w *window) back(address string) {
	w.t.Helper()
	w.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		history, err := chromedp.Call(ctx, page.GetNavigationHistory, cdp.Empty{})
		if err != nil {
			return err
		}
		for i := history.CurrentIndex - 1; i >= 0; i-- {
			if entry := history.Entries[i]; entry.URL == address {
				_, err := chromedp.Call(ctx, page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: entry.ID})
				return err
			}
		}
		return fmt.Errorf("it was never at %s", address)
	}))
}

// wantLoggedOut waits for the page to which the provider sends people after its logout.
func (w *window) wantLoggedOut() {
	w.t.Helper()
	w.see("Continue")
	w.see("You are logged out")
	if at := evaluate[string](w, "location.origin + location.pathname"); at != w.shop.public+"/logged-out" {
		w.t.Errorf("the logout ended at %s", at)
	}
}

// wantRefusal waits for a page of the bridge that says no, with this title and a code. Nobody is logged in then.
func (w *window) wantRefusal(title string) {
	w.t.Helper()
	w.see(title)
	if text := evaluate[string](w, "document.body.innerText"); !refusalCode.MatchString(text) {
		w.t.Errorf("the page shows no code: %s", text)
	}
	w.shot("page")
	w.open(w.shop.origin + "/")
	w.wantNoToken()
}

// An apiToken is what a fetch of /api_token by the page comes to.
type apiToken struct {
	Status int
	Token  string
	Error  string
	Claims struct {
		UserID string `json:"user_id"`
		Role   string
		Email  string
	}
}

// token fetches a token as a plain page does, with what the browser's cache has.
func (w *window) token() apiToken {
	w.t.Helper()
	return evaluate[apiToken](w, `fetch("/auth/api_token").then(async answer => {
		const body = await answer.json()
		const claims = body.token ? JSON.parse(atob(body.token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"))) : {}
		return { status: answer.status, ...body, claims }
	})`)
}

func (w *window) wantNoToken() {
	w.t.Helper()
	if got := w.token(); got.Status != 401 || got.Token != "" || got.Error != "only authenticated users can request the API token" {
		w.t.Errorf("api_token: status %d, a token for %+v, error %q; want 401", got.Status, got.Claims, got.Error)
	}
}

// wantToken waits for the page with the orders; its token is that of this person.
func (w *window) wantToken(email, role string) {
	w.t.Helper()
	w.do(chromedp.WaitVisible(ordersView))
	if got := w.token(); got.Status != 200 || got.Claims.Email != email || got.Claims.Role != w.shop.db.Role(role) {
		w.t.Errorf("api_token: status %d, a token for %+v; want one for %s as %s", got.Status, got.Claims, email, role)
	}
}
