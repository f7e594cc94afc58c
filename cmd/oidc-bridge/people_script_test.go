package main

import (
	"context"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

// contents is a line for each table of schema bridge: how many rows, and a hash of all that is in them.
func contents(ctx context.Context, db *bridgetest.Database) (text string, err error) {
	conn, err := pgx.Connect(ctx, db.AdminURL)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, `
SELECT string_agg(format('%s %s', t.table_name, (xpath('/row/x/text()', query_to_xml(
	format('SELECT concat(count(*), '' '', md5(string_agg(r::text, '';'' ORDER BY r::text))) AS x FROM bridge.%I r', t.table_name), true, true, '')))[1]),
	E'\n' ORDER BY t.table_name)
FROM information_schema.tables t WHERE t.table_schema = 'bridge'`).Scan(&text)
	return text + "\n", err
}

// tables FILE writes down what is in schema bridge.
func tables(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tables FILE")
	}
	text, err := contents(context.Background(), ts.Value("db").(*bridgetest.Database))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}
