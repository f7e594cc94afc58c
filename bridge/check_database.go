package bridge

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// checkWrites refuses a database that only reads: tokens of sessions would go on, logins would not.
func checkWrites(ctx context.Context, conn *pgx.Conn) []strictyaml.Finding {
	var readOnly bool
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('transaction_read_only')::boolean").Scan(&readOnly); err != nil {
		return []strictyaml.Finding{databaseFinding("transaction_read_only: "+connectError(err), "")}
	}
	if readOnly {
		return []strictyaml.Finding{databaseFinding("transactions are read-only here (default_transaction_read_only): nobody could log in",
			"ALTER DATABASE … or ALTER ROLE … RESET default_transaction_read_only;")}
	}
	return nil
}

// checkSettings looks at what bridge.pre_request makes of requests without a session.
func checkSettings(ctx context.Context, conn *pgx.Conn, c *Config) []strictyaml.Finding {
	var rows int
	var anonymous string
	var inUse, allowed bool
	err := conn.QueryRow(ctx, `
SELECT count(*), coalesce(min(s.anonymous_role), ''), coalesce(bool_and(s.tokens_without_sid = 'allow'), false),
	EXISTS (SELECT FROM pg_catalog.pg_db_role_setting d, unnest(d.setconfig) AS setting
		WHERE d.setrole = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = $1) AND setting = 'pgrst.db_pre_request=bridge.pre_request')
FROM bridge.settings s`, c.Database.Authenticator).Scan(&rows, &anonymous, &allowed, &inUse)
	warning := func(message, fix string) []strictyaml.Finding {
		return []strictyaml.Finding{{File: databaseFile, Severity: strictyaml.Warning, Message: "bridge.settings: " + message, Fix: fix}}
	}
	set := func(role string) string {
		return fmt.Sprintf("UPDATE bridge.settings SET anonymous_role = '%s'; as its owner", strings.ReplaceAll(role, "'", "''"))
	}
	switch {
	case err != nil:
		return []strictyaml.Finding{databaseFinding("bridge.settings: "+connectError(err), "")}
	case rows == 0:
		return warning("its row is gone, so bridge.pre_request refuses every request without a session", "INSERT INTO bridge.settings DEFAULT VALUES; as its owner")
	case allowed:
		return nil
	case anonymous == "" && c.Anonymous != "":
		return warning(fmt.Sprintf("anonymous_role is null, so bridge.pre_request refuses the tokens of %q that people without session get", c.Anonymous), set(c.Anonymous))
	case anonymous == "" && inUse:
		return warning("anonymous_role is null, so bridge.pre_request lets pass whatever token has a role and no other claim, as it cannot tell it from no token",
			set("the role of db-anon-role"))
	case c.Anonymous != "" && anonymous != c.Anonymous:
		return warning(fmt.Sprintf("anonymous_role is %q, so bridge.pre_request refuses the tokens of %q that people without session get", anonymous, c.Anonymous),
			"let db-anon-role, `anonymous` in "+c.file+" and anonymous_role be the same role")
	}
	return nil
}
