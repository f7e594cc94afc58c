.DEFAULT_GOAL := help
.PHONY: help build test race security test-postgres e2e bench check fmt tidy demo fuzz clean

FUZZTIME ?= 10s

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/oidc-bridge, static
	CGO_ENABLED=0 go build -trimpath -o bin/oidc-bridge ./cmd/oidc-bridge

test: ## the tests; they start a PostgreSQL of their own
	go test ./...

race: ## the tests with the race detector, in random order
	.ci/run race

test-postgres: ## the tests on PostgreSQL 15, 17 and 18 from npm
	.ci/run postgres15 postgres17 postgres18

security: ## the threat table, row by row: inputs tried, and the result
	@go test -json -run '^TestAttack_' ./... | go -C tools run ./security

e2e: ## logins at a real Keycloak and oidc-provider, in Chromium (needs Node, Maven, Java)
	.ci/run e2e

bench: ## the performance goals on this machine, as a table and bin/bench.json (BENCH=quick, or full: an hour and 50 GB)
	@mkdir -p bin
	@go -C e2e run ./bench -json $(CURDIR)/bin/bench.json

check: ## format, vet, staticcheck and the tests with -race: before each commit
	.ci/run hygiene tidy format vet staticcheck race

fmt: ## formats the Go code
	git ls-files --cached --others --exclude-standard -- '*.go' | xargs go tool -modfile=tools/go.mod gofumpt -l -w

tidy: ## go.mod and go.sum of each module
	for module in . e2e tools; do go -C $$module mod tidy || exit; done

demo: ## everything on this machine, to click through
	go run ./cmd/demo

fuzz: ## each fuzz test for FUZZTIME (10s)
	@git grep -oE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | while IFS=: read -r file func; do \
		go test -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "./$$(dirname "$$file")" || exit 1; \
	done

clean: ## removes what the targets above left in the checkout
	rm -rf bin e2e/oidc-provider/node_modules e2e/editor/node_modules e2e/client/node_modules e2e/axe/node_modules
