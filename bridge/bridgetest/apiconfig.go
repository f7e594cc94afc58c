package bridgetest

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// listen opens the connection that waits for notifications, and loads the settings after that, so that no change goes unnoticed.
func (a *API) listen(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, config.Copy())
	if err != nil {
		return nil, err
	}
	if _, err = conn.Exec(ctx, "LISTEN pgrst"); err == nil {
		err = a.load(ctx, conn)
	}
	if err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// reloadOnNotify ends with the context, or with the connection.
func (a *API) reloadOnNotify(ctx context.Context, conn *pgx.Conn) {
	defer close(a.listening)
	defer conn.Close(context.WithoutCancel(ctx))
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return
		}
		if n.Payload == "reload config" || n.Payload == "" {
			_ = a.load(ctx, conn) // the old settings stay, as in PostgREST
		}
	}
}

func (a *API) load(ctx context.Context, conn *pgx.Conn) error {
	o := a.options
	rows, _ := conn.Query(ctx, inDatabaseSettings)
	settings, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("in-database configuration: %w", err)
	}
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		switch name {
		case "pgrst.jwt_secret":
			o.JWTSecret = value
		case "pgrst.jwt_aud":
			o.JWTAud = value
		case "pgrst.jwt_role_claim_key":
			o.RoleClaimKey = value
		case "pgrst.db_pre_request":
			o.PreRequest = value
		}
	}
	keys, err := parseSecret(o.JWTSecret, o.JWTSecretIsBase64, o.Version)
	if err != nil {
		return err
	}
	roleKey, err := parseRoleKey(o.RoleClaimKey)
	if err != nil {
		return err
	}
	a.settings.Store(&apiSettings{
		rules:      tokenRules{version: o.Version, keys: keys, audience: o.JWTAud, now: o.Now},
		roleKey:    roleKey,
		preRequest: o.PreRequest,
	})
	return nil
}

// The settings of this database come last, so that they win over the role's.
const inDatabaseSettings = `
SELECT setting
FROM pg_db_role_setting s, unnest(s.setconfig) setting
WHERE s.setrole = current_user::regrole
	AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY s.setdatabase`
