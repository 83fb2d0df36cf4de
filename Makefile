# Tidemill's tasks; `make help` lists them. What each one needs on the machine is
# in CONTRIBUTING.md.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# How long `make fuzz` runs each fuzz target.
FUZZTIME ?= 10s

# What the binaries say their version is.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/ingest, bin/scaler, bin/worker and bin/tidemill
	CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/ ./cmd/...

.PHONY: demo
demo: ## Run the whole path over this repository's own files, on embedded stand-ins
	@scripts/demo.sh

.PHONY: test
test: test-tools vet ## Run the tests, under the race detector and against a real Redis
	go test -race ./...

.PHONY: e2e
e2e: test-tools ## Run the tests on Redis, Google's Pub/Sub emulator and fake-gcs-server
	@scripts/need-emulator
	go vet -tags e2e ./test/emulator/... ./test/e2e/...
	go test -race -tags e2e -count=1 -timeout 15m ./test/emulator/... ./test/e2e/...

.PHONY: kube-test
kube-test: ## Run the tests against a real Kubernetes API server, built here the first time
	test/kube/build.sh
	go vet -tags kube ./test/kube/...
	go test -tags kube -count=1 -timeout 20m ./test/kube/...

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (10s)
	@scripts/fuzz $(FUZZTIME)

.PHONY: lint
lint: lint-layers ## Run the linters
	scripts/golangci-lint run

.PHONY: lint-layers
lint-layers: ## Prove that the linter refuses what the import table forbids
	@scripts/lint-layers

.PHONY: fmt
fmt: ## Format the Go code
	scripts/golangci-lint fmt

.PHONY: fmt-check
fmt-check: ## Fail, with the difference, where the Go code isn't formatted
	scripts/golangci-lint fmt --diff

.PHONY: vet
vet: ## Run go vet
	go vet ./...

.PHONY: tidy-check
tidy-check: ## Fail, with the difference, where go.mod or go.sum isn't tidy
	go mod tidy -diff
	cd tools && GOWORK=off go mod tidy -diff

.PHONY: check
check: fmt-check vet lint tidy-check test ## Run everything that a change has to pass before review

.PHONY: clean
clean: ## Remove what was built in the checkout
	rm -rf bin

# Redis for the tests; a C compiler because the race detector links with one.
.PHONY: test-tools
test-tools:
	@scripts/need redis-server=redis-server gcc=gcc,libc6-dev
