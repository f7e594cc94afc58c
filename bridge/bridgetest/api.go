package bridgetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ServerName is the Server header of [API]'s answers.
const ServerName = "bridgetest.API (PostgREST stand-in)"

// APIOptions configures [StartAPI]. The fields with PostgREST's names mean what they mean there.
type APIOptions struct {
	Addr              string // host:port to listen on; default 127.0.0.1:0
	DatabaseURL       string // of the authenticator
	Version           int    // the PostgREST to imitate: 12, 13, 14 (default) or 16
	AnonRole          string // db-anon-role; "": requests without a token get 401
	JWTSecret         string // jwt-secret: a text, a JWK or a JWKS
	JWTSecretIsBase64 bool
	JWTAud            string
	RoleClaimKey      string           // jwt-role-claim-key; default .role
	Schema            string           // db-schemas, of which there is one here; default public
	PreRequest        string           // db-pre-request: schema.function; "": none
	CORSOrigins       []string         // server-cors-allowed-origins; none: all
	Now               func() time.Time // default time.Now
}

// API stands in for PostgREST, which cannot be installed where this project is built. It verifies tokens by PostgREST's rules with code of
// its own and runs each request in a transaction as the token's role, but of PostgREST's query language it has only the basics: see
// [API.Handler].
type API struct {
	options    APIOptions
	settings   atomic.Pointer[apiSettings]
	pool       *pgxpool.Pool
	server     *http.Server
	url        string
	stopListen context.CancelFunc
	listening  chan struct{} // closed when the listener is gone
}

// apiSettings is what the in-database configuration can change at run time.
type apiSettings struct {
	rules      tokenRules
	roleKey    []roleStep
	preRequest string
}

// StartAPI starts a stand-in. It refuses what PostgREST refuses at its start. The context bounds the start only; the caller ends it with
// Close.
//
// Like PostgREST it reads jwt_secret, jwt_aud, jwt_role_claim_key and db_pre_request from `ALTER ROLE authenticator SET pgrst.…` (for all
// databases or for this one), over the options, at the start and on `NOTIFY pgrst, 'reload config'`. If the new ones are wrong, the old
// ones stay.
func StartAPI(ctx context.Context, o APIOptions) (*API, error) {
	setDefault(&o.Addr, "127.0.0.1:0")
	setDefault(&o.RoleClaimKey, ".role")
	setDefault(&o.Schema, "public")
	setDefault(&o.Version, 14)
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &API{options: o, listening: make(chan struct{})}
	if err := a.start(ctx); err != nil {
		return nil, fmt.Errorf("starting the PostgREST stand-in: %w", err)
	}
	return a, nil
}

func setDefault[T comparable](option *T, value T) {
	var zero T
	if *option == zero {
		*option = value
	}
}

func (a *API) start(ctx context.Context) error {
	config, err := pgxpool.ParseConfig(a.options.DatabaseURL)
	if err != nil {
		return err
	}
	// Tests change views between requests; prepared statements would remember the old ones.
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	if a.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return err
	}
	listener, err := a.listen(ctx, config.ConnConfig)
	if err != nil {
		a.pool.Close()
		return err
	}
	socket, err := new(net.ListenConfig).Listen(ctx, "tcp", a.options.Addr)
	if err != nil {
		a.pool.Close()
		return errors.Join(err, listener.Close(ctx))
	}
	a.url = "http://" + socket.Addr().String()
	a.server = &http.Server{Handler: a.Handler(), ReadHeaderTimeout: 10 * time.Second}
	listenCtx, cancel := context.WithCancel(context.Background())
	a.stopListen = cancel
	go a.reloadOnNotify(listenCtx, listener)
	go a.server.Serve(socket)
	return nil
}

// URL returns the address, without a trailing slash.
func (a *API) URL() string { return a.url }

// Close stops the stand-in and ends its connections.
func (a *API) Close() error {
	err := a.server.Close()
	a.stopListen()
	<-a.listening
	a.pool.Close()
	return err
}

// Handler serves
//
//	GET, HEAD /{table or view}   with select=a,b  order=a.desc,b  limit=n  offset=n  column=eq.value  column=is.null
//	POST      /{table or view}   one row, as a JSON object or a form; with Prefer: return=representation it is returned
//
// and answers everything else as PostgREST answers what it does not know.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{relation}", a.serve)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		(&apiError{status: http.StatusNotFound, Code: "PGRST125", Message: "Invalid path specified in request URL"}).write(w)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", ServerName)
		if a.cors(w, r) {
			mux.ServeHTTP(w, r)
		}
	})
}

// cors reports false when it has answered a preflight itself.
func (a *API) cors(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	h := w.Header()
	switch {
	case len(a.options.CORSOrigins) == 0:
		h.Set("Access-Control-Allow-Origin", "*")
	case slices.Contains(a.options.CORSOrigins, origin):
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Add("Vary", "Origin")
	}
	h.Set("Access-Control-Expose-Headers",
		"Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, Transfer-Encoding, Range-Unit")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return true
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD")
	allowed := []string{"Authorization"}
	if requested := r.Header.Get("Access-Control-Request-Headers"); requested != "" {
		allowed = append(allowed, requested)
	}
	h.Set("Access-Control-Allow-Headers", strings.Join(allowed, ", "))
	h.Set("Access-Control-Max-Age", "86400")
	return false
}

// authenticate returns the role of a request and its claims, in which the role is overwritten with the effective one.
func (a *API) authenticate(r *http.Request, s *apiSettings) (role, claimsJSON string, _ *apiError) {
	claims := claimSet{}
	role = a.options.AnonRole
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	bearer := strings.EqualFold(scheme, "Bearer") && (token != "" || s.rules.version >= 13)
	if bearer {
		switch {
		case s.rules.keys == nil:
			return "", "", &apiError{status: http.StatusInternalServerError, Code: "PGRST300", Message: "Server lacks JWT secret"}
		case token == "":
			return "", "", &apiError{
				status: http.StatusUnauthorized, Code: "PGRST301", Message: "Empty JWT is sent in Authorization header", invalidToken: true,
			}
		}
		var bad *apiError
		if claims, bad = s.rules.verify(token); bad != nil {
			return "", "", bad
		}
		if claimed, ok := claims.role(s.roleKey); ok {
			role = claimed
		}
	}
	if role == "" {
		return "", "", &apiError{status: http.StatusUnauthorized, Code: "PGRST302", Message: "Anonymous access is disabled"}
	}
	claims["role"], _ = json.Marshal(role)
	text, err := json.Marshal(claims)
	if err != nil {
		return "", "", badToken(err.Error())
	}
	return role, string(text), nil
}
