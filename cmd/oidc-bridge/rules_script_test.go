package main

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/oidc-bridge/oidc-bridge/bridge/bridgetest"
)

var update = flag.Bool("update", false, "rewrite what scripts compare output with")

// expand FILE... puts the script's variables into files.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: expand FILE...")
	}
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// sqlfile FILE runs statements in the database, as superuser.
func sqlFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sqlfile FILE")
	}
	ts.Check(ts.Value("db").(*bridgetest.Database).Exec(context.Background(), ts.ReadFile(args[0])))
}

// token FILE CLAIMS writes a token of the provider for client bridge; CLAIMS is JSON that adds to the usual claims, null takes one away.
func token(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: token FILE CLAIMS")
	}
	op := ts.Value("op").(*bridgetest.OP)
	claims := map[string]any{
		"iss": op.Issuer(), "aud": "bridge", "iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	var more map[string]any
	ts.Check(json.Unmarshal([]byte(args[1]), &more))
	for name, value := range more {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	text, err := op.Sign(nil, claims)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text+"\n"), 0o600))
}
