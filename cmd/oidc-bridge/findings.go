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
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		if findings == nil {
			findings = []strictyaml.Finding{}
		}
		err := encoder.Encode(struct {
			OK       bool                 `json:"ok"`
			Findings []strictyaml.Finding `json:"findings"`
		}{!failed, findings})
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

// tally is "2 errors, 1 warning".
func tally(findings []strictyaml.Finding) string {
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
