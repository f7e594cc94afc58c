package oidcbridge

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// minima are the versions below which a module has a hole that we could be reached through.
var minima = map[string]string{
	"github.com/go-jose/go-jose/v4": "4.1.4",  // CVE-2026-34986, and CVE-2025-27144 before
	"github.com/jackc/pgx/v5":       "5.12.0", // GHSA-j38q-h3ph-jjpq, GHSA-95fj-3fxw-g62g; GHSA-j88v-2chj-qfwx and CVE-2024-27304 before
	"golang.org/x/oauth2":           "0.27.0", // CVE-2025-22868
	"github.com/go-chi/chi/v5":      "5.2.2",  // GHSA-vrw8-fxc6-2r93: the Host header in redirects
}

// TestAttack_CF07_Minima: no go.mod goes back behind a known hole, or takes a module from elsewhere than it says.
func TestAttack_CF07_Minima(t *testing.T) {
	required := regexp.MustCompile(`(?m)^\s*(?:require )?(\S+) v(\d+\.\d+\.\d+)`)
	inputs := 0
	for _, name := range []string{"go.mod", "e2e/go.mod", "tools/go.mod"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(line, "replace ") && !strings.HasPrefix(line, "replace "+strings.TrimSuffix(module, "/")+" => ..") {
				t.Errorf("%s: %s", name, line)
			}
		}
		for _, m := range required.FindAllStringSubmatch(string(text), -1) {
			least, known := minima[m[1]]
			if !known {
				continue
			}
			inputs++
			if slices.Compare(version(t, m[2]), version(t, least)) < 0 {
				t.Errorf("%s: %s %s, at least %s", name, m[1], m[2], least)
			}
		}
	}
	if inputs < len(minima) {
		t.Errorf("only %d of the modules were found", inputs)
	}
	t.Logf("inputs tried: %d", inputs)
}

func version(t *testing.T, text string) (numbers []int) {
	t.Helper()
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}
