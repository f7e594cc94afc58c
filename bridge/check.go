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

// Load reads config.yaml, the pages and the rules file that it names, and holds them against each other. What is returned may be used when the
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
	broken := strictyaml.Errors(findings)
	_, wrong := loadPages(c.Pages)
	findings = append(findings, wrong...)
	text, more := readRules(c.Rules)
	var rules *mapping.Rules
	switch {
	case more != nil:
	case broken:
		// The rules file is looked at for itself: the providers of a broken configuration would say nothing about it.
		rules, more = mapping.Load(c.Rules, text)
	default:
		rules, more = checkRules(c, text, time.Now())
	}
	if broken {
		c = nil
	}
	return c, rules, append(findings, more...)
}

// checkRules reads the text of the rules file and holds it against the configuration. The rules are nil when the file alone is wrong.
func checkRules(c *Config, text []byte, now time.Time) (*mapping.Rules, []strictyaml.Finding) {
	rules, findings := mapping.Load(c.Rules, text)
	if rules == nil {
		return nil, findings
	}
	findings = append(findings, CheckIssuers(c, rules)...)
	if c.Anonymous != "" {
		if _, granted := rules.Anonymous(c.Anonymous).Role(); !granted {
			findings = append(findings, c.anonymousFinding("", fmt.Sprintf("%q is a privileged role of the rules file: nobody gets it without a login", c.Anonymous),
				"name a role of its own, or write refuse"))
		}
	}
	return rules, append(findings, rules.Expired(now)...)
}

func readRules(file string) ([]byte, []strictyaml.Finding) {
	return readFile(file, "write one, rules.example.yaml shows how, or name it in config.yaml: `rules: FILE`")
}

func readFile(name, fix string) ([]byte, []strictyaml.Finding) {
	text, err := os.ReadFile(name)
	if err == nil {
		return text, nil
	}
	message := err.Error()
	switch info, _ := os.Stat(name); {
	case errors.Is(err, fs.ErrNotExist):
		message = "there is no such file"
	case errors.Is(err, fs.ErrPermission):
		message, fix = "this process may not read it", "let its user read the file"
	case info != nil && info.IsDir():
		message, fix = "this is a folder", "name a file"
	}
	return nil, []strictyaml.Finding{{File: name, Severity: strictyaml.Error, Message: message, Fix: fix}}
}

// checkProviderNames finds providers that stand in one of the files only. A misspelt one is one finding.
func checkProviderNames(c *Config, rules *mapping.Rules) (findings []strictyaml.Finding) {
	finding := func(message, fix string) {
		findings = append(findings, strictyaml.Finding{File: c.Rules, Severity: strictyaml.Error, Code: "E201", Message: message, Fix: fix})
	}
	var missing []string
	for _, p := range c.Providers {
		if !slices.Contains(rules.Providers(), p.ID) {
			missing = append(missing, p.ID)
		}
	}
	for _, name := range rules.Providers() {
		if slices.ContainsFunc(c.Providers, func(p ProviderConfig) bool { return p.ID == name }) {
			continue
		}
		fix := "remove it, or add the provider to config.yaml"
		if near := strictyaml.Nearest(name, missing); near != "" {
			fix = fmt.Sprintf("did you mean %q?", near)
			missing = slices.DeleteFunc(missing, func(other string) bool { return other == near })
		}
		finding(fmt.Sprintf("provider %q is not in config.yaml", name), fix)
	}
	for _, name := range missing {
		finding(fmt.Sprintf("provider %q of config.yaml is not declared", name), fmt.Sprintf("add it below `providers:`, such as `%s: { preset: generic }`", name))
	}
	return findings
}

// CheckDatabase looks at the database as the runtime role sees it: reachable, the primary, migrated, and every role of the rules file such that the
// authenticator may take it on and nothing beyond. rules may be nil.
func CheckDatabase(ctx context.Context, c *Config, rules *mapping.Rules) []strictyaml.Finding {
	return inDatabase(ctx, c, func(ctx context.Context, conn *pgx.Conn) []strictyaml.Finding {
		if findings := checkWrites(ctx, conn); findings != nil {
			return findings
		}
		parties := checkParties(ctx, conn, c.Database.Authenticator)
		findings := append(checkSchema(ctx, conn), parties...)
		if !strictyaml.Errors(findings) {
			findings = append(findings, checkSettings(ctx, conn, c)...)
		}
		findings = append(findings, checkHook(ctx, conn, c.Hook)...)
		if !strictyaml.Errors(parties) {
			findings = append(findings, checkAnonymous(ctx, conn, c)...)
			if rules != nil {
				findings = append(findings, checkRoles(ctx, conn, c.Database.Authenticator, rules)...)
			}
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
	conn, err := connectDatabase(ctx, c.Database.URL, false)
	if errors.Is(err, errStandby) {
		return []strictyaml.Finding{databaseFinding(errStandby.Error(),
			"name the primary in database.url, or all servers of the cluster: postgres://…@db1,db2/app?target_session_attrs=read-write")}
	}
	if err != nil {
		return []strictyaml.Finding{databaseFinding("cannot connect: "+connectError(err), "check database.url, and that the server listens there")}
	}
	defer conn.Close(context.WithoutCancel(ctx))
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
	// With sslmode=prefer pgx tries an address with and without TLS, and says the same twice.
	return oneLine(strings.Join(slices.Compact(strings.Split(err.Error(), "\n")), "; "))
}

func checkSchema(ctx context.Context, conn *pgx.Conn) []strictyaml.Finding {
	const fix = "run: oidc-bridge migrate"
	have, want, err := migrations.Pending(ctx, conn)
	var missing []string
	if err == nil && have >= want {
		missing, err = migrations.Missing(ctx, conn)
	}
	switch {
	case err != nil:
		return []strictyaml.Finding{databaseFinding("schema bridge: "+connectError(err), fix+", with the same database.url: it grants what is missing")}
	case have < want:
		return []strictyaml.Finding{databaseFinding(fmt.Sprintf("schema bridge has version %d, this program needs %d", have, want), fix)}
	case len(missing) > 0:
		return []strictyaml.Finding{databaseFinding(
			fmt.Sprintf("the role of database.url lacks %s", strings.Join(missing, ", ")), fix+": it grants what is missing")}
	}
	return nil
}

// checkParties looks at the roles that PostgREST and the bridge itself log in as.
func checkParties(ctx context.Context, conn *pgx.Conn, authenticator string) []strictyaml.Finding {
	var exists, super, login, inherit, ours, weAreSuper, weOwn bool
	err := conn.QueryRow(ctx, `
SELECT a.rolname IS NOT NULL, coalesce(a.rolsuper, false), coalesce(a.rolcanlogin, false), coalesce(a.rolinherit, false), me.rolname = $1,
	me.rolsuper, EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 'bridge' AND n.nspowner = me.oid)
FROM pg_catalog.pg_roles me LEFT JOIN pg_catalog.pg_roles a ON a.rolname = $1 WHERE me.rolname = session_user`, authenticator).Scan(
		&exists, &super, &login, &inherit, &ours, &weAreSuper, &weOwn)
	if err != nil {
		return []strictyaml.Finding{databaseFinding("roles: "+connectError(err), "")}
	}
	name := quoteRole(authenticator)
	var findings []strictyaml.Finding
	warn := func(message, fix string) {
		findings = append(findings, strictyaml.Finding{File: databaseFile, Severity: strictyaml.Warning, Message: message, Fix: fix})
	}
	switch {
	case !exists:
		findings = append(findings, databaseFinding(fmt.Sprintf("there is no role %q", authenticator),
			fmt.Sprintf("CREATE ROLE %s LOGIN NOINHERIT; or name PostgREST's role in database.authenticator", name)))
	case ours:
		findings = append(findings, databaseFinding("database.authenticator is the role of database.url", "name the role that PostgREST logs in as"))
	case super:
		findings = append(findings, databaseFinding(fmt.Sprintf("%q is a superuser: a token could take on any role", authenticator),
			fmt.Sprintf("ALTER ROLE %s NOSUPERUSER;", name)))
	case !login:
		findings = append(findings, databaseFinding(fmt.Sprintf("%q cannot log in", authenticator), fmt.Sprintf("ALTER ROLE %s LOGIN;", name)))
	case inherit:
		warn(fmt.Sprintf("%q inherits: before it takes on a role it has the rights of all of them", authenticator), fmt.Sprintf("ALTER ROLE %s NOINHERIT;", name))
	}
	if weAreSuper {
		warn("the role of database.url is a superuser", "let the service run as a role of its own, which needs no more than `migrate` grants it")
	} else if weOwn {
		warn("the role of database.url owns schema bridge", "let the service run as another role than owner_url, which needs no more than `migrate` grants it")
	}
	return findings
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
		return finding("does not exist with one argument of type jsonb", "deploy/sql/users-hook.sql is an example")
	case err != nil:
		return finding("cannot be looked up: "+connectError(err), "")
	case !volatile:
		return finding("is not VOLATILE", "remove STABLE or IMMUTABLE from its definition: it writes")
	case !callable:
		return finding("may not be called by the runtime role", "GRANT USAGE on its schema and EXECUTE on it to that role")
	}
	return nil
}

// checkRoles holds every role of the rules file against the database.
func checkRoles(ctx context.Context, conn *pgx.Conn, authenticator string, rules *mapping.Rules) []strictyaml.Finding {
	var findings []strictyaml.Finding
	for _, role := range rules.Roles() {
		of := checkRole(ctx, conn, authenticator, role.Name, func(code, message, fix string) strictyaml.Finding {
			return rules.RoleFinding(role.Name, code, message, fix)
		})
		findings = append(findings, of...)
		if len(of) > 0 && of[0].File == databaseFile {
			break // it does not answer
		}
	}
	return findings
}

// CheckAnonymous holds the role of people without session against the database, as those of the rules file are.
func CheckAnonymous(ctx context.Context, c *Config) []strictyaml.Finding {
	if c.Anonymous == "" {
		return nil
	}
	return inDatabase(ctx, c, func(ctx context.Context, conn *pgx.Conn) []strictyaml.Finding { return checkAnonymous(ctx, conn, c) })
}

func checkAnonymous(ctx context.Context, conn *pgx.Conn, c *Config) []strictyaml.Finding {
	if c.Anonymous == "" {
		return nil
	}
	return checkRole(ctx, conn, c.Database.Authenticator, c.Anonymous, c.anonymousFinding)
}

// checkRole holds a role against pg_roles and pg_auth_members (rules.md, E401 to E403). The three powers of one role are looked up through
// membership, since SET ROLE reaches whatever a role is a member of.
func checkRole(ctx context.Context, conn *pgx.Conn, authenticator, role string, finding func(code, message, fix string) strictyaml.Finding) []strictyaml.Finding {
	// Before PostgreSQL 16, membership was the right to SET ROLE.
	setPrivilege := "SET"
	if strings.HasPrefix(conn.PgConn().ParameterStatus("server_version"), "15") {
		setPrivilege = "MEMBER"
	}
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
		ORDER BY p.rolname <> $1, p.rolname)`, role, authenticator, setPrivilege).Scan(&found, &settable, &powers)
	name := quoteRole(role)
	switch {
	case err != nil:
		return []strictyaml.Finding{databaseFinding("role "+role+": "+connectError(err), "")}
	case !found:
		return []strictyaml.Finding{finding("E401", fmt.Sprintf("role %q does not exist in the database", role),
			fmt.Sprintf("CREATE ROLE %s NOLOGIN; GRANT %s TO %s;", name, name, quoteRole(authenticator)))}
	case len(powers) > 0:
		return []strictyaml.Finding{finding("E403", fmt.Sprintf("role %q is too powerful for tokens: %s", role, powers[0]),
			"make a role for this purpose, with the grants it needs")}
	case !settable:
		return []strictyaml.Finding{finding("E402", fmt.Sprintf("%q may not SET ROLE %q", authenticator, role),
			fmt.Sprintf("GRANT %s TO %s;", name, quoteRole(authenticator)))}
	}
	return nil
}

func quoteRole(name string) string {
	if plainRole.MatchString(name) {
		return name
	}
	return pgx.Identifier{name}.Sanitize()
}

// CheckClaims looks for claims that the rules read and no login of their provider has carried so far: a rule that waits for one matches
// nobody, and a deny rule keeps nobody out. It reads the identities, so it is for operators and not for each start.
func CheckClaims(ctx context.Context, c *Config, rules *mapping.Rules) []strictyaml.Finding {
	return inDatabase(ctx, c, func(ctx context.Context, conn *pgx.Conn) (findings []strictyaml.Finding) {
		for _, p := range c.Providers {
			for _, claim := range rules.ClaimsRead(p.ID) {
				var logins, carried bool
				err := conn.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM bridge.identities i WHERE i.provider = $1 AND pg_catalog.jsonb_exists(i.claims, $2)),
	EXISTS (SELECT FROM bridge.identities i WHERE i.provider = $1 AND i.claims ->> $2 IS NOT NULL)`,
					p.ID, claim.Expression).Scan(&logins, &carried)
				if err != nil {
					return append(findings, databaseFinding("identities: "+connectError(err), ""))
				}
				if logins && !carried {
					findings = append(findings, strictyaml.Finding{
						File: c.file, Line: p.line, Column: p.column, Severity: strictyaml.Warning,
						Message: fmt.Sprintf("provider %q: no login so far has carried %s, which %s reads", p.ID, claim.Name, c.Rules),
						Fix:     claim.Cure,
					})
				}
			}
		}
		return findings
	})
}

// CheckProviders asks every provider for its discovery document and its keys. A provider that does not answer is a warning: the bridge
// starts without it, and its login works as soon as it is back. An answer that no login can be verified with is an error.
func CheckProviders(ctx context.Context, c *Config, now func() time.Time) (findings []strictyaml.Finding) {
	for _, pc := range c.Providers {
		finding := func(severity, message, fix string) {
			findings = append(findings, strictyaml.Finding{
				File: c.file, Line: pc.line, Column: pc.column, Severity: severity, Message: fmt.Sprintf("provider %q: %s", pc.ID, oneLine(message)), Fix: fix,
			})
		}
		failed := func(err error, fix string) {
			if errors.Is(err, ErrProviderDown) {
				finding(strictyaml.Warning, err.Error(), "its login shows a page that says so until it answers")
			} else {
				finding(strictyaml.Error, err.Error(), fix)
			}
		}
		p, err := NewProvider(c, pc, slog.New(slog.DiscardHandler), NewMetrics(""), now) // the findings say it all
		if err != nil {
			finding(strictyaml.Error, err.Error(), "")
			continue
		}
		m, err := p.fetchMetadata(ctx)
		if err != nil {
			failed(err, "`issuer` must be what the provider's discovery document says, character by character")
			continue
		}
		for _, warning := range m.warnings {
			finding(strictyaml.Warning, warning, "")
		}
		_, body, err := get(ctx, p.client, m.jwksURI, "")
		if err == nil {
			var skipped []error
			_, skipped, err = usableKeys(body, p.verifier.alg)
			for _, reason := range skipped {
				finding(strictyaml.Warning, "its key set: "+reason.Error(), "the key is left out")
			}
		}
		if err != nil {
			failed(fmt.Errorf("its key set: %w", err), "no login can be verified: set `alg` to what the provider signs with")
		}
	}
	return findings
}
