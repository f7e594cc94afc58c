package bridgetest

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// apiError is an error as PostgREST words it. Details and Hint may be nil.
type apiError struct {
	Code    string `json:"code"`
	Details any    `json:"details"`
	Hint    any    `json:"hint"`
	Message string `json:"message"`

	status       int
	header       map[string]string
	invalidToken bool // say so in WWW-Authenticate
}

func (e *apiError) write(w http.ResponseWriter) {
	switch {
	case e.invalidToken:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token", error_description=`+strconv.Quote(e.Message))
	case e.status == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	for name, value := range e.header {
		w.Header().Set(name, value)
	}
	body, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings only
	}
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(e.status)
	w.Write(body)
}

const jsonType = "application/json; charset=utf-8"

// databaseError words what the database or the connection to it said. authenticated: the request runs as another role than the anonymous
// one.
func databaseError(err error, version int, authenticated bool) *apiError {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return &apiError{
			status: http.StatusServiceUnavailable, Code: "PGRST001",
			Message: "Database client error. Retrying the connection.", Details: err.Error(),
		}
	}
	if pg.Code == "PGRST" {
		return raisedResponse(pg)
	}
	e := &apiError{status: databaseStatus(pg, version, authenticated), Code: pg.Code, Message: pg.Message}
	if pg.Detail != "" {
		e.Details = pg.Detail
	}
	if pg.Hint != "" {
		e.Hint = pg.Hint
	}
	return e
}

// databaseStatus gives the HTTP status for an SQLSTATE: PostgREST's table ("Errors" in its documentation).
func databaseStatus(pg *pgconn.PgError, version int, authenticated bool) int {
	if status, err := strconv.Atoi(strings.TrimPrefix(pg.Code, "PT")); err == nil && strings.HasPrefix(pg.Code, "PT") {
		return status // RAISE SQLSTATE 'PT403'
	}
	switch pg.Code {
	case "42501":
		if authenticated {
			return http.StatusForbidden
		}
		return http.StatusUnauthorized
	case "22023":
		unknownRole := strings.HasPrefix(pg.Message, `role "`) && strings.HasSuffix(pg.Message, "does not exist")
		if version >= 13 && unknownRole {
			return http.StatusUnauthorized
		}
		return http.StatusBadRequest
	case "23503", "23505":
		return http.StatusConflict
	case "25006":
		return http.StatusMethodNotAllowed
	case "42883", "42P01":
		return http.StatusNotFound
	case "42P17", "53400":
		return http.StatusInternalServerError
	case "57P01":
		return http.StatusServiceUnavailable
	case "P0001":
		return http.StatusBadRequest
	}
	switch pg.Code[:2] {
	case "08", "53":
		return http.StatusServiceUnavailable
	case "0L", "0P", "28":
		return http.StatusForbidden
	case "09", "25", "2D", "38", "39", "3B", "40", "54", "55", "57", "58", "F0", "HV", "P0", "XX":
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

// raisedResponse reads RAISE SQLSTATE 'PGRST' (version 12 and newer): the message holds the body, the detail status and headers.
func raisedResponse(pg *pgconn.PgError) *apiError {
	e := &apiError{}
	var detail struct {
		Status  int
		Headers map[string]string
	}
	if json.Unmarshal([]byte(pg.Message), e) != nil || json.Unmarshal([]byte(pg.Detail), &detail) != nil || detail.Status == 0 {
		return &apiError{
			status: http.StatusInternalServerError, Code: "PGRST121",
			Message: "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error",
		}
	}
	e.status, e.header = detail.Status, detail.Headers
	return e
}
