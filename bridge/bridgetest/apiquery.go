package bridgetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// statement is an SQL statement whose result is one row: a JSON array as text, and the number of its elements.
type statement struct {
	sql    string
	params [][]byte // text; the server infers the types
}

func (s *statement) param(value string) string {
	s.params = append(s.params, []byte(value))
	return "$" + strconv.Itoa(len(s.params))
}

func (a *API) serve(w http.ResponseWriter, r *http.Request) {
	settings := a.settings.Load()
	role, claims, bad := a.authenticate(r, settings)
	if bad != nil {
		bad.write(w)
		return
	}
	relation := pgx.Identifier{a.options.Schema, r.PathValue("relation")}.Sanitize()
	status, access := http.StatusOK, pgx.ReadOnly
	var s statement
	var err error
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		s, err = selectStatement(relation, r.URL.Query())
	case http.MethodPost:
		status, access = http.StatusCreated, pgx.ReadWrite
		s, err = insertStatement(relation, r)
	default:
		(&apiError{status: http.StatusMethodNotAllowed, Code: "PGRST117", Message: "Unsupported HTTP method: " + r.Method}).write(w)
		return
	}
	if err != nil {
		(&apiError{status: http.StatusBadRequest, Code: "PGRST100", Message: err.Error()}).write(w)
		return
	}
	var body []byte
	var count string
	err = pgx.BeginTxFunc(r.Context(), a.pool, pgx.TxOptions{AccessMode: access}, func(tx pgx.Tx) error {
		if err := a.prepare(r, tx, role, claims, settings.preRequest); err != nil {
			return err
		}
		result := tx.Conn().PgConn().ExecParams(r.Context(), s.sql, s.params, nil, nil, nil).Read()
		if result.Err == nil {
			body, count = result.Rows[0][0], string(result.Rows[0][1])
		}
		return result.Err
	})
	if err != nil {
		a.queryError(err, relation, r, role).write(w)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	if status == http.StatusOK {
		w.Header().Set("Content-Range", contentRange(count, r.URL.Query().Get("offset")))
	}
	w.WriteHeader(status)
	w.Write(body)
}

// prepare makes the transaction what PostgREST makes it before the query: the role, what SQL may know of the request, the pre-request
// function, which runs as the role.
func (a *API) prepare(r *http.Request, tx pgx.Tx, role, claims, preRequest string) error {
	_, err := tx.Exec(r.Context(), `SELECT set_config('search_path', $1, true), set_config('role', $2, true),
		set_config('request.jwt.claims', $3, true), set_config('request.method', $4, true), set_config('request.path', $5, true),
		set_config('request.headers', $6, true), set_config('request.cookies', $7, true)`,
		pgx.Identifier{a.options.Schema}.Sanitize()+", public", role, claims, r.Method, r.URL.Path, headersJSON(r), cookiesJSON(r))
	if err != nil || preRequest == "" {
		return err
	}
	_, err = tx.Exec(r.Context(), "SELECT "+pgx.Identifier(strings.Split(preRequest, ".")).Sanitize()+"()")
	return err
}

func headersJSON(r *http.Request) string {
	headers := map[string]string{"host": r.Host}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	return stringsJSON(headers)
}

func cookiesJSON(r *http.Request) string {
	cookies := map[string]string{}
	for _, c := range r.Cookies() {
		cookies[c.Name] = c.Value
	}
	return stringsJSON(cookies)
}

func stringsJSON(m map[string]string) string {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings only
	}
	return string(text)
}

// queryError words a database error. Since version 13 an unknown relation is missed in the schema cache before the database is asked.
func (a *API) queryError(err error, relation string, r *http.Request, role string) *apiError {
	var pg *pgconn.PgError
	name := a.options.Schema + "." + r.PathValue("relation")
	if a.options.Version >= 13 && errors.As(err, &pg) && pg.Code == "42P01" && strings.Contains(pg.Message, name) {
		return &apiError{
			status: http.StatusNotFound, Code: "PGRST205",
			Message: fmt.Sprintf("Could not find the table '%s' in the schema cache", name),
		}
	}
	return databaseError(err, a.options.Version, role != a.options.AnonRole)
}

func selectStatement(relation string, query url.Values) (s statement, err error) {
	columns, order, limit := "*", "", ""
	var filters []string
	for _, name := range slices.Sorted(maps.Keys(query)) {
		for _, value := range query[name] {
			switch name {
			case "select":
				columns = columnList(value)
			case "order":
				order, err = orderBy(value)
			case "limit", "offset":
				if _, err = strconv.ParseUint(value, 10, 63); err == nil {
					limit += " " + name + " " + value
				}
			default:
				var filter string
				filter, err = s.filter(name, value)
				filters = append(filters, filter)
			}
			if err != nil {
				return s, fmt.Errorf("%s=%s: %w", name, value, err)
			}
		}
	}
	where := ""
	if filters != nil {
		where = " WHERE " + strings.Join(filters, " AND ")
	}
	rows := "SELECT " + columns + " FROM " + relation + where + order + limit
	s.sql = "SELECT coalesce(json_agg(_row), '[]')::text, count(*) FROM (" + rows + ") _row"
	return s, nil
}

func columnList(value string) string {
	var columns []string
	for name := range strings.SplitSeq(value, ",") {
		if name == "*" {
			columns = append(columns, "*")
		} else {
			columns = append(columns, pgx.Identifier{name}.Sanitize())
		}
	}
	return strings.Join(columns, ", ")
}

func orderBy(value string) (string, error) {
	var terms []string
	for term := range strings.SplitSeq(value, ",") {
		name, direction, _ := strings.Cut(term, ".")
		sql, ok := map[string]string{"": "", "asc": " ASC", "desc": " DESC"}[direction]
		if !ok {
			return "", errors.New("order is column, column.asc or column.desc")
		}
		terms = append(terms, pgx.Identifier{name}.Sanitize()+sql)
	}
	return " ORDER BY " + strings.Join(terms, ", "), nil
}

func (s *statement) filter(name, value string) (string, error) {
	column := pgx.Identifier{name}.Sanitize()
	if value == "is.null" {
		return column + " IS NULL", nil
	}
	operand, ok := strings.CutPrefix(value, "eq.")
	if !ok {
		return "", errors.New("this stand-in knows the filters eq.value and is.null")
	}
	return column + " = " + s.param(operand), nil
}

// insertStatement returns the new row only if it is asked to: reading it needs a privilege of its own.
func insertStatement(relation string, r *http.Request) (s statement, err error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, 1<<20))
	if err != nil {
		return s, err
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return s, err
		}
		row := map[string]string{}
		for name := range form {
			row[name] = form.Get(name)
		}
		body = []byte(stringsJSON(row))
	}
	var row map[string]json.RawMessage
	if err := json.Unmarshal(body, &row); err != nil || len(row) == 0 {
		return s, errors.New("this stand-in inserts one JSON object with at least one member")
	}
	var columns []string
	for _, name := range slices.Sorted(maps.Keys(row)) {
		columns = append(columns, pgx.Identifier{name}.Sanitize())
	}
	list := strings.Join(columns, ", ")
	insert := "INSERT INTO " + relation + " (" + list + ") SELECT " + list +
		" FROM json_populate_record(null::" + relation + ", " + s.param(string(body)) + ")"
	if strings.Contains(r.Header.Get("Prefer"), "return=representation") {
		s.sql = "WITH _row AS (" + insert + " RETURNING *) SELECT json_agg(_row)::text, count(*) FROM _row"
	} else {
		s.sql = "WITH _row AS (" + insert + ") SELECT '', 1"
	}
	return s, nil
}

// contentRange counts only what was sent: the total is not asked for.
func contentRange(count, offset string) string {
	n, _ := strconv.Atoi(count)
	first, _ := strconv.Atoi(offset)
	if n == 0 {
		return "*/*"
	}
	return fmt.Sprintf("%d-%d/*", first, first+n-1)
}
