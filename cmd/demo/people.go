package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// A person can log in at the demo's provider.
type person struct {
	bridgetest.Persona
	orders []order // seeded

	// What the check expects.
	role    string // "" when the person is refused
	sees    int    // orders
	refusal string // part of the text of the refusal
}

type order struct {
	item, price, status string
	daysAgo             int
}

// newPerson has a verified address at example.com; the groups may be nil.
func newPerson(subject, name, note string, groups []string) person {
	claims := map[string]any{"name": name, "email": subject + "@example.com", "email_verified": true}
	if groups != nil {
		claims["groups"] = groups
	}
	return person{Persona: bridgetest.Persona{Subject: subject, Name: name, Note: note, IDToken: claims}}
}

// people are the cast of the demo: everybody whom the rules treat differently.
func people() []person {
	alice := newPerson("alice", "Alice Adams", "Administrator: sees all orders", []string{"staff", "shop-admins"})
	alice.role, alice.sees = "admin", 7
	alice.orders = []order{{"Desk lamp, brass", "64.90", "delivered", 40}}

	ben := newPerson("ben", "Ben Baker", "Customer with three orders", nil)
	ben.role, ben.sees = "customer", 3
	ben.orders = []order{
		{"Oak writing desk", "489.00", "shipped", 6},
		{"Ergonomic chair", "329.50", "delivered", 33},
		{"Fountain pen", "38.00", "open", 1},
	}

	carla := newPerson("carla", "Carla Costa", "Customer with two orders", nil)
	carla.role, carla.sees = "customer", 2
	carla.orders = []order{{"Notebook, dotted, 3 pieces", "27.00", "open", 2}, {"Paper lantern", "19.90", "delivered", 61}}

	una := newPerson("una", "Una Unger", "E-mail not confirmed: is refused", nil)
	una.IDToken["email_verified"] = false
	una.refusal = "gives your account no role"

	leo := newPerson("leo", "Leo Lang", "Left the company: is refused", []string{"leavers"})
	leo.refusal = "You left the company, so this account is closed."
	leo.orders = []order{{"Whiteboard, 120 cm", "142.00", "delivered", 240}}

	return []person{alice, ben, carla, una, leo}
}

// seed writes the people's orders. They belong to rows of bridge.users that are there before the first login, as if everybody had logged in
// before: the login finds them by issuer and subject.
func seed(ctx context.Context, adminURL, issuer string, people []person) (err error) {
	conn, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for _, p := range people {
		if len(p.orders) == 0 {
			continue
		}
		var userID int64
		if err := conn.QueryRow(ctx, `
WITH new_user AS (INSERT INTO bridge.users (name) VALUES ($1) RETURNING id)
INSERT INTO bridge.identities (issuer, subject, user_id, provider, claims, last_login_at)
SELECT $2, $3, id, 'demo', '{}', now() FROM new_user RETURNING user_id`, p.Name, issuer, p.Subject).Scan(&userID); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		for _, o := range p.orders {
			if _, err := conn.Exec(ctx, `
INSERT INTO private.orders (user_id, item, price, status, created_at)
VALUES ($1, $2, $3::text::numeric, $4, now() - make_interval(days => $5))`, userID, o.item, o.price, o.status, o.daysAgo); err != nil {
				return fmt.Errorf("orders of %s: %w", p.Name, err)
			}
		}
	}
	return nil
}
