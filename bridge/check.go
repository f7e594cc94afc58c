package bridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oidc-bridge/oidc-bridge/mapping"
	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
	"github.com/oidc-bridge/oidc-bridge/migrations"
)

// Load reads config.yaml and the rules file that it names, and holds them against each other. What is returned may be used when the
// findings have no error; the configuration is nil when config.yaml alone is wrong, the rules when the rules file is.
func Load(configFile string, lookup func(string) (string, bool)) (*Config, *mapping.Rules, []strictyaml.Finding) {
	text, missing := readFile(configFile, "write one, config.example.yaml shows how, or name it with --config")
	if missing != nil {
		return nil, nil, missing
	}
	c, findings := readConfig(configFile, text, lookup)
	if c == nil {
		return nil, nil, findings
	}
	if c.PublicURL != nil && c.PublicURL.Scheme == "https" && len(c.TrustedProxies) == 0 {
		findings = append(findings, strictyaml.Finding{
			File: configFile, Severity: strictyaml.Warning, Message: "trusted_proxies is empty, but the proxy that does TLS is in front",
			Fix: "name its address, or everybody counts as one visitor in the limits on logins and in the log",
		})
	}
	rules, more := loadRules(c, time.Now())
	if strictyaml.Errors(findings) {
		c = nil
	}
	return c, rules, append(findings, more...)
}

// loadRules reads the rules file and holds it against the configuration. The rules are nil when the file alone is wrong.
func loadRules(c *Config, now time.Time) (*mapping.Rules, []strictyaml.Finding) {
	text, missing := readFile(c.Rules, "write one, rules.example.yaml shows how, or name it in config.yaml: `rules: FILE`")
	if missing != nil {
		return nil, missing
	}
	rules, findings := mapping.Load(c.Rules, text)
	if rules == nil {
		return nil, findings
	}
	findings = append(findings, CheckIssuers(c, rules)...)
	return rules, append(findings, rules.Expired(now)...)
}

func readFile(name, fix string) ([]byte, []strictyaml.Finding) {
	text, err := os.ReadFile(name)
	if err == nil {
		return text, nil
	}
	message := err.Error()
	if errors.Is(err, fs.ErrNotExist) {
		message = "there is no such file"
	}
	return nil, []strictyaml.Finding{{File: name, Severity: strictyaml.Error, Message: message, Fix: fix}}
}

// checkProviderNames finds providers that stand in one of the files only.
func checkProviderNames(c *Config, rules *mapping.Rules) (findings []strictyaml.Finding) {
	var configured []string
	for _, p := range c.Providers {
		configured = append(configured, p.ID)
		if !slices.Contains(rules.Providers(), p.ID) {
			findings = append(findings, strictyaml.Finding{
				File: c.Rules, Severity: strictyaml.Error, Code: "E201",
				Message: fmt.Sprintf("provider %q of config.yaml is not declared", p.ID),
				Fix:     fmt.Sprintf("add it below `providers:`, such as `%s: { preset: generic }`", p.ID),
			})
		}
	}
	for _, name := range rules.Providers() {
		if !slices.Contains(configured, name) {
			fix := "remove it, or add the provider to config.yaml"
			if near := strictyaml.Nearest(name, configured); near != "" {
				fix = fmt.Sprintf("did you mean %q?", near)
			}
			findings = append(findings, strictyaml.Finding{
				File: c.Rules, Severity: strictyaml.Error, Code: "E201",
				Message: fmt.Sprintf("provider %q is not in config.yaml", name), Fix: fix,
			})
		}
	}
	return findings
}

// CheckDatabase looks at the database as the runtime role sees it: reachable, migrated, and every role of the rules file such that the
// authenticator may take it on and nothing beyond. rules may be nil.
func CheckDatabase(ctx context.Context, c *Config, rules *mapping.Rules) []strictyaml.Finding {
	return inDatabase(ctx, c, func(ctx context.Context, conn *pgx.Conn) []strictyaml.Finding {
		findings := checkSchema(ctx, conn)
		findings = append(findings, checkHook(ctx, conn, c.Hook)...)
		if rules != nil {
			findings = append(findings, checkRoles(ctx, conn, c.Database.Authenticator, rules)...)
		}
		return findings
	})
}

// CheckRoles is the part of CheckDatabase that depends on the rules.
func CheckRoles(ctx context.Context, c *Config, rules *mapping.Rules) []strictyaml.Finding {
	return inDatabase(ctx, c, func(ctx context.Context, conn *pgx.Conn) []strictyaml.Finding {
		return checkRoles(ctx, conn, c.Database.Authenticator, rules)
	})
}

func inDatabase(ctx context.Context, c *Config, check func(context.Context, *pgx.Conn) []strictyaml.Finding) []strictyaml.Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.Database.URL.Reveal())
	if err != nil {
		return []strictyaml.Finding{databaseFinding("cannot connect: "+connectError(err), "check database.url, and that the server listens there")}
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.set_config('search_path', '', false)"); err != nil {
		return []strictyaml.Finding{databaseFinding(connectError(err), "")}
	}
	return check(ctx, conn)
}

const (
	checkTimeout = 10 * time.Second
	databaseFile = "database" // stands for a file in findings about the database itself
)

func databaseFinding(message, fix string) strictyaml.Finding {
	return strictyaml.Finding{File: databaseFile, Severity: strictyaml.Error, Message: message, Fix: fix}
}

// connectError is pgx's message without what it repeats of the connection string.
func connectError(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Message
	}
	var failed *pgconn.ConnectError
	if errors.As(err, &failed) {
		err = failed.Unwrap()
	}
	return oneLine(err.Error())
}

func checkSchema(ctx context.Context, conn *pgx.Conn) []strictyaml.Finding {
	have, want, err := migrations.Pending(ctx, conn)
	switch {
	case err != nil:
		return []strictyaml.Finding{databaseFinding("schema bridge: "+connectError(err), "")}
	case have < want:
		return []strictyaml.Finding{databaseFinding(
			fmt.Sprintf("schema bridge has version %d, this program needs %d", have, want), "run: oidc-bridge migrate")}
	}
	return nil
}

func checkHook(ctx context.Context, conn *pgx.Conn, hook string) []strictyaml.Finding {
	if hook == "" {
		return nil
	}
	finding := func(message, fix string) []strictyaml.Finding {
		return []strictyaml.Finding{databaseFinding("users.hook "+hook+" "+message, fix)}
	}
	var volatile, callable bool
	err := conn.QueryRow(ctx, `
SELECT p.provolatile = 'v', pg_catalog.has_function_privilege(p.oid, 'EXECUTE') AND pg_catalog.has_schema_privilege(p.pronamespace, 'USAGE')
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = split_part($1, '.', 1) AND p.proname = split_part($1, '.', 2) AND p.proargtypes = ARRAY['pg_catalog.jsonb'::regtype]::oidvector`,
		hook).Scan(&volatile, &callable)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return finding("does not exist with one argument of type jsonb", "the README shows the function")
	case err != nil:
		return finding("cannot be looked up: "+connectError(err), "")
	case !volatile:
		return finding("is not VOLATILE", "remove STABLE or IMMUTABLE from its definition: it writes")
	case !callable:
		return finding("may not be called by the runtime role", "GRANT USAGE on its schema and EXECUTE on it to that role")
	}
	return nil
}

// checkRoles holds every role of the rules file against pg_roles and pg_auth_members (rules.md, E401 to E403). The three powers of one role
// are looked up through membership, since SET ROLE reaches whatever a role is a member of.
func checkRoles(ctx context.Context, conn *pgx.Conn, authenticator string, rules *mapping.Rules) []strictyaml.Finding {
	// Before PostgreSQL 16, membership was the right to SET ROLE.
	setPrivilege := "SET"
	if strings.HasPrefix(conn.PgConn().ParameterStatus("server_version"), "15") {
		setPrivilege = "MEMBER"
	}
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)`, authenticator).Scan(&exists); err != nil {
		return []strictyaml.Finding{databaseFinding("roles: "+connectError(err), "")}
	} else if !exists {
		return []strictyaml.Finding{databaseFinding(fmt.Sprintf("there is no role %q", authenticator),
			fmt.Sprintf("CREATE ROLE %s LOGIN NOINHERIT; or name PostgREST's role in database.authenticator", quoteRole(authenticator)))}
	}
	var findings []strictyaml.Finding
	for _, role := range rules.Roles() {
		var found, settable bool
		var powers []string
		err := conn.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = $1),
	coalesce((SELECT pg_catalog.pg_has_role($2::name, r.oid, $3) FROM pg_catalog.pg_roles r WHERE r.rolname = $1), false),
	ARRAY(
		SELECT CASE WHEN p.rolname = $1 THEN '' ELSE 'it is a member of ' || pg_catalog.quote_ident(p.rolname) || ', which ' END ||
			CASE WHEN p.rolsuper THEN 'is a superuser' WHEN p.rolbypassrls THEN 'has BYPASSRLS' WHEN p.rolcreaterole THEN 'has CREATEROLE'
				WHEN p.rolreplication THEN 'has REPLICATION' WHEN p.rolname = $2 THEN 'is what PostgREST logs in as'
				WHEN p.rolname LIKE 'pg\_%' THEN 'is one of PostgreSQL''s own' ELSE 'belongs to oidc-bridge' END
		FROM pg_catalog.pg_roles r JOIN pg_catalog.pg_roles p ON pg_catalog.pg_has_role(r.oid, p.oid, 'MEMBER')
		WHERE r.rolname = $1 AND (p.rolsuper OR p.rolbypassrls OR p.rolcreaterole OR p.rolreplication OR p.rolname = $2
			OR p.rolname LIKE 'pg\_%' OR p.rolname = session_user
			OR p.oid = (SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE n.nspname = 'bridge'))
		ORDER BY p.rolname <> $1, p.rolname)`, role.Name, authenticator, setPrivilege).Scan(&found, &settable, &powers)
		if err != nil {
			return append(findings, databaseFinding("role "+role.Name+": "+connectError(err), ""))
		}
		name := quoteRole(role.Name)
		switch {
		case !found:
			findings = append(findings, rules.RoleFinding(role.Name, "E401", fmt.Sprintf("role %q does not exist in the database", role.Name),
				fmt.Sprintf("CREATE ROLE %s NOLOGIN; GRANT %s TO %s;", name, name, quoteRole(authenticator))))
		case len(powers) > 0:
			findings = append(findings, rules.RoleFinding(role.Name, "E403", fmt.Sprintf("role %q is too powerful for tokens: %s", role.Name, powers[0]),
				"make a role for this purpose, with the grants it needs"))
		case !settable:
			findings = append(findings, rules.RoleFinding(role.Name, "E402", fmt.Sprintf("%q may not SET ROLE %q", authenticator, role.Name),
				fmt.Sprintf("GRANT %s TO %s;", name, quoteRole(authenticator))))
		}
	}
	return findings
}

func quoteRole(name string) string {
	if plainRole.MatchString(name) {
		return name
	}
	return pgx.Identifier{name}.Sanitize()
}

// CheckProviders asks every provider for its discovery document and its keys. A provider that does not answer is a warning: the bridge
// starts without it, and its login works as soon as it is back.
func CheckProviders(ctx context.Context, c *Config, now func() time.Time) (findings []strictyaml.Finding) {
	for _, pc := range c.Providers {
		finding := func(message, fix string) {
			findings = append(findings, strictyaml.Finding{File: "provider " + pc.ID, Severity: strictyaml.Warning, Message: message, Fix: fix})
		}
		p, err := NewProvider(c, pc, slog.New(slog.DiscardHandler), NewMetrics(""), now) // the findings say it all
		if err != nil {
			finding(err.Error(), "")
			continue
		}
		m, err := p.Discover(ctx)
		if err != nil {
			finding(oneLine(err.Error()), "its login shows a page that says so until it answers")
			continue
		}
		for _, warning := range m.warnings {
			finding(warning, "")
		}
		_, body, err := get(ctx, p.client, m.jwksURI, "")
		if err == nil {
			var skipped []error
			_, skipped, err = usableKeys(body, p.verifier.alg)
			for _, reason := range skipped {
				finding("its key set: "+oneLine(reason.Error()), "the key is left out")
			}
		}
		if err != nil {
			finding(oneLine(err.Error()), "no login can be verified until this is mended")
		}
	}
	return findings
}
