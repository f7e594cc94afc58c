package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// printFindings writes findings as people or programs read them and returns errFindings when one of them is an error.
func printFindings(w io.Writer, format string, findings []strictyaml.Finding) error {
	failed := strictyaml.Errors(findings)
	if format == "json" {
		err := writeJSON(w, struct {
			OK       bool                 `json:"ok"`
			Findings []strictyaml.Finding `json:"findings"`
		}{!failed, notNull(findings)})
		if err != nil {
			return err
		}
	} else {
		for _, f := range findings {
			if _, err := fmt.Fprintln(w, f); err != nil {
				return err
			}
		}
	}
	if failed {
		return errFindings
	}
	return nil
}

func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// notNull is the list as programs expect it: [] and not null.
func notNull[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// tally is "2 errors, 1 warning", or "ok".
func tally(findings []strictyaml.Finding) string {
	if len(findings) == 0 {
		return "ok"
	}
	errors := 0
	for _, f := range findings {
		if f.Severity == strictyaml.Error {
			errors++
		}
	}
	return fmt.Sprintf("%s, %s", count(errors, "error"), count(len(findings)-errors, "warning"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
