// Package deploy holds what an operator runs beside the bridge, for programs that run it too: the tests and cmd/demo.
//
// compose.yaml runs all of it in containers; bridge, keycloak, nginx, postgres, sql and web are the folders that it mounts.
package deploy

import "embed"

// SQL are the example files for the database:
//
//   - sql/orders.sql: the guide's roles, table and view.
//   - sql/orders-rls.sql: the same with row level security, in place of orders.sql.
//   - sql/users-hook.sql: an own users table, plugged in through users.hook.
//
// All of them can be run again without harm.
//
//go:embed sql/*.sql
var SQL embed.FS
