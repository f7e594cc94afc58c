package bridge_test

import (
	"net/http"
	"testing"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
	"github.com/oidc-bridge/oidc-bridge/deploy"
)

// TestOrdersScenario is product.md's: what each person sees of the guide's view with the bridge's token, in every PostgREST that the
// stand-in imitates.
func TestOrdersScenario(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"sql/orders.sql", "sql/orders-rls.sql"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			sql, err := deploy.SQL.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			exec(t, s.DB, s.DB.SQL(string(sql)))
			tokens := map[string]string{"a visitor": ""}
			for _, subject := range []string{"ada", "carl", "cora"} {
				b, _ := s.login(subject, "/")
				_, body := s.token(b)
				tokens[subject] = body["token"].(string)
			}
			exec(t, s.DB, `INSERT INTO private.orders (user_id, item, price)
				SELECT u.id, 'from ' || u.name, 10 FROM bridge.users u, generate_series(1, CASE u.name WHEN 'Carl' THEN 2 ELSE 3 END) WHERE u.name <> 'Ada'`)
			for _, version := range []int{12, 13, 14, 16} {
				api := bridgetest.NewAPI(t, bridgetest.APIOptions{
					DatabaseURL: s.DB.AuthenticatorURL, Version: version, AnonRole: s.DB.Role("anonymous"), JWTSecret: jwtSecret, JWTAud: "postgrest", Schema: "api",
				})
				for who, want := range map[string]int{"ada": 5, "carl": 2, "cora": 3} {
					status, orders := fetchOrders(t, api.URL(), tokens[who])
					if status != 200 || len(orders) != want {
						t.Errorf("PostgREST %d: %s got %d and %d orders, want %d", version, who, status, len(orders), want)
					}
				}
				if status, _ := fetchOrders(t, api.URL(), ""); status != 401 {
					t.Errorf("PostgREST %d: a visitor got %d", version, status)
				}
			}
		})
	}
}

func fetchOrders(t *testing.T, api, token string) (int, []map[string]any) {
	t.Helper()
	b := bridgetest.NewBrowser()
	if _, err := b.Open(t.Context(), api+"/"); err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	page, err := b.Fetch(t.Context(), http.MethodGet, api+"/orders", header, "")
	if err != nil {
		t.Fatal(err)
	}
	var orders []map[string]any
	if page.Status == 200 {
		if err := page.JSON(&orders); err != nil {
			t.Fatal(err)
		}
	}
	return page.Status, orders
}
