package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge"
	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// persona is somebody at the provider, with claims as Keycloak sends them.
func persona(subject string) bridgetest.Persona {
	return bridgetest.Persona{Subject: subject, Name: subject, IDToken: map[string]any{
		"email": subject + "@example.com", "email_verified": true, "name": "Somebody Called " + subject, "preferred_username": subject,
		"given_name": "Somebody", "family_name": subject, "locale": "en",
		"groups": []any{"/shop/customers", "/department/sales", "/newsletter"},
	}}
}

// browser sends what a person's browser does, through a proxy with TLS that adds X-Forwarded-For. It follows nothing by itself.
var browser = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport:     &http.Transport{MaxIdleConnsPerHost: connections, IdleConnTimeout: time.Minute},
}

// login goes through the provider as the persona and returns the session cookie, as name=value. Each login has an address of its own, since
// the bridge limits the logins that start at one.
func login(ctx context.Context, bridgeAddr, subject, address string) (cookie string, err error) {
	start, err := navigate(ctx, bridgeAddr, "/auth/login/op?return_to=/orders", "", address)
	if err != nil {
		return "", err
	}
	if start.StatusCode != http.StatusFound {
		return "", fmt.Errorf("/login answers %s", start.Status)
	}
	choice, err := http.NewRequestWithContext(ctx, http.MethodPost, start.Header.Get("Location"), strings.NewReader("subject="+url.QueryEscape(subject)))
	if err != nil {
		return "", err
	}
	choice.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	chosen, err := send(choice)
	if err != nil {
		return "", err
	}
	back, err := chosen.Location()
	if err != nil {
		return "", fmt.Errorf("the provider answers %s to %s", chosen.Status, subject)
	}
	var carried []string
	for _, c := range start.Cookies() {
		carried = append(carried, c.Name+"="+c.Value)
	}
	finish, err := navigate(ctx, bridgeAddr, back.RequestURI(), strings.Join(carried, "; "), address)
	if err != nil {
		return "", err
	}
	for _, c := range finish.Cookies() {
		if strings.Contains(c.Name, "session-") && c.Value != "" {
			return c.Name + "=" + c.Value, nil
		}
	}
	return "", fmt.Errorf("/callback answers %s and gives no session", finish.Status)
}

func navigate(ctx context.Context, bridgeAddr, path, cookies, address string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+bridgeAddr+path, nil)
	if err != nil {
		return nil, err
	}
	r.Host = publicHost
	r.Header = http.Header{
		"X-Forwarded-For": {address}, "X-Forwarded-Proto": {"https"}, "Upgrade-Insecure-Requests": {"1"}, "User-Agent": {userAgent},
		"Accept":         {"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"},
		"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-User": {"?1"}, "Sec-Fetch-Dest": {"document"},
		"Accept-Encoding": {"gzip, deflate, br, zstd"}, "Accept-Language": {"en-GB,en-US;q=0.9,en;q=0.8"},
	}
	if cookies != "" {
		r.Header.Set("Cookie", "theme=dark; "+cookies)
	}
	return send(r)
}

func send(r *http.Request) (*http.Response, error) {
	response, err := browser.Do(r)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return response, errors.Join(err, response.Body.Close())
}

var addresses atomic.Uint32

// logIn logs the subjects in, eight at a time, and returns their cookies.
func logIn(ctx context.Context, bridgeAddr string, subjects []string) ([]string, error) {
	cookies, errs := make([]string, len(subjects)), make([]error, len(subjects))
	next := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range next {
				n := addresses.Add(1)
				cookies[i], errs[i] = login(ctx, bridgeAddr, subjects[i], fmt.Sprintf("100.%d.%d.%d", 64+n>>16&63, n>>8&255, n&255))
			}
		})
	}
	for i := range subjects {
		next <- i
	}
	close(next)
	wg.Wait()
	return cookies, errors.Join(errs...)
}

func names(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return all
}

func personas(subjects []string) []bridgetest.Persona {
	all := make([]bridgetest.Persona, len(subjects))
	for i, subject := range subjects {
		all[i] = persona(subject)
	}
	return all
}

// fill adds n users with an identity and a session each, as copies of the first session that a real login has made. Their cookies come from
// cookiesOf: user i's token is the SHA-256 of "bench i".
func fill(ctx context.Context, db *bridgetest.Database, n int) error {
	conn, err := pgx.Connect(ctx, db.AdminURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range []string{
		"SET session_replication_role = replica", // no foreign keys are checked: a copy of what is right is right
		fmt.Sprintf(`INSERT INTO bridge.users (id, email, name, last_login_at) OVERRIDING SYSTEM VALUE
SELECT 1000000 + i, 'generated-' || i || '@example.com', 'Somebody Called generated-' || i, now() FROM generate_series(0, %d) i`, n-1),
		fmt.Sprintf(`INSERT INTO bridge.identities (id, issuer, subject, user_id, provider, claims, last_login_at) OVERRIDING SYSTEM VALUE
SELECT 1000000 + i, t.issuer, 'generated-' || i, 1000000 + i, t.provider, t.claims, now()
FROM generate_series(0, %d) i, (SELECT * FROM bridge.identities ORDER BY id LIMIT 1) t`, n-1),
		fmt.Sprintf(`INSERT INTO bridge.sessions (id, token_hash, user_id, identity_id, provider, provider_sid, claims, role, rule, row_role, user_agent,
	created_at, last_seen_at, idle_expires_at, expires_at)
SELECT md5('bench ' || i)::uuid, sha256(sha256(convert_to('bench ' || i, 'UTF8'))), 1000000 + i, 1000000 + i, t.provider,
	CASE WHEN t.provider_sid IS NOT NULL THEN md5('sid ' || i) END, t.claims, t.role, t.rule, t.row_role, t.user_agent,
	now(), now(), now() + interval '12 hours', now() + interval '168 hours'
FROM generate_series(0, %d) i, (SELECT * FROM bridge.sessions ORDER BY created_at LIMIT 1) t`, n-1),
		"VACUUM (ANALYZE) bridge.users, bridge.identities, bridge.sessions", // as autovacuum does, which is off in the throw-away server
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("filling with %d users: %w", n, err)
		}
	}
	return nil
}

// cookiesOf makes the cookies of generated users, with package bridge.
func (l *lab) cookiesOf(users []int) ([]string, error) {
	secrets := map[string]string{"DATABASE_URL": "postgres://unused", "DATABASE_OWNER_URL": "postgres://unused", "LISTEN": "auto"}
	for _, line := range l.secrets {
		name, value, _ := strings.Cut(line, "=")
		secrets[name] = value
	}
	config, _, findings := bridge.Load(filepath.Join(l.dir, "config.yaml"), func(name string) (string, bool) { value, found := secrets[name]; return value, found })
	if config == nil {
		return nil, fmt.Errorf("config.yaml: %v", findings)
	}
	maker, err := bridge.NewCookies(config, time.Now)
	if err != nil {
		return nil, err
	}
	cookies := make([]string, len(users))
	for i, user := range users {
		answer := httptest.NewRecorder()
		maker.PutSession(answer, bridge.SessionToken(sha256.Sum256(fmt.Appendf(nil, "bench %d", user))))
		cookies[i], _, _ = strings.Cut(answer.Header().Get("Set-Cookie"), ";")
	}
	return cookies, nil
}

// spread returns n of the users 0 to all-1, in an order that jumps through the tables.
func spread(n, all int) []int {
	users := make([]int, n)
	for i := range users {
		users[i] = int(uint64(i) * 2654435761 % uint64(all))
	}
	return users
}
