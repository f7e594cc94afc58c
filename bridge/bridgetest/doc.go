// Package bridgetest is the test kit of the bridge: real parts where other projects keep mocks.
//
//   - [Postgres] is a throw-away PostgreSQL server, [Database] a fresh, migrated database in it.
//   - [OP] is an OpenID Provider with a page of personas and a switch for every misbehaviour ([Behaviour]).
//   - [API] stands in for PostgREST: it verifies tokens with code of its own and runs requests as the token's role.
//   - [Browser] is an HTTP client that keeps cookies, follows redirects and sends Origin and Sec-Fetch headers as Chromium does.
//   - [CountingProxy] counts what a client sends to PostgreSQL.
//
// All of them take a context and return errors, so that cmd/demo and e2e can use them too. The wrappers for tests, which fail the test
// and clean up after it, are in testing.go: [DB], [NewOP], [NewAPI], [CountRoundTrips], [NewLog], [Await].
//
// The package runs on Linux and other Unixes. It knows nothing of package bridge.
package bridgetest
