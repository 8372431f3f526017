# `make` alone lists what there is. Two commands do all the set-up: `make up` and `make test`.

CACHE  ?= $(or $(K8SM_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/k8sm)
TARGET := target/$(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TOOLS  := $(CACHE)/tools/bin
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo 'sudo -E')
AGENTS ?= 1
K8SM   := $(TARGET)/release/k8sm

.DEFAULT_GOAL := help
.PHONY: help up down build release check fmt lint deny unit test test-all e2e e2e-slow test-vm conformance bench fuzz docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: setup-up release ## a whole cluster on this machine, with a pod running (AGENTS=3 for three nodes)
	@$(K8SM) upstream build >/dev/null
	@$(SUDO) $(K8SM) up --marathon --agents $(AGENTS) --upstream-dir "$$($(K8SM) upstream path)"

down: ## stops that cluster and removes everything of it
	@$(SUDO) $(K8SM) down

setup-%:
	@scripts/setup $*

release: ## builds the programs, optimised
	@cargo build --release --workspace --bins

build: ## builds the programs for tests
	@cargo build --workspace --bins

check: setup-check fmt lint deny unit ## formats, lints, licences, unit tests: no root, no upstream build

fmt:
	@cargo fmt --all --check

lint:
	@cargo clippy --workspace --all-targets --quiet -- -D warnings

deny:
	@scripts/deny $(TOOLS)/cargo-deny

unit:
	@$(TOOLS)/cargo-nextest nextest run --workspace

test: setup-test check e2e ## check, and whole clusters on real processes (root through sudo)

e2e: build
	@scripts/docs check
	@$(TARGET)/debug/k8sm upstream build >/dev/null
	@$(SUDO) env "PATH=$$PATH" K8SM_UPSTREAM_BIN="$$($(TARGET)/debug/k8sm upstream path)" $(TOOLS)/cargo-nextest nextest run --profile e2e --workspace

test-all: test e2e-slow test-vm ## test, the slow ones, and the same on cgroup v2

e2e-slow: build ## end-to-end tests that take minutes each: killed after every step, an agent lost, an older Kubernetes upgraded
	@$(TARGET)/debug/k8sm upstream build >/dev/null
	@$(TARGET)/debug/k8sm upstream build --set previous >/dev/null
	@$(SUDO) env "PATH=$$PATH" K8SM_UPSTREAM_BIN="$$($(TARGET)/debug/k8sm upstream path)" $(TOOLS)/cargo-nextest nextest run --profile e2e --workspace --ignore-default-filter -E 'binary(/^e2e/) & test(/::slow_/)'

test-vm: setup-test-vm release ## the same on cgroup v2, in a virtual machine (software emulation)
	@$(SUDO) scripts/test-vm

conformance: setup-conformance release ## upstream's conformance tests on three agents; writes docs/conformance.md
	@$(SUDO) scripts/conformance

bench: setup-bench release ## speed and memory, as ratios in one run
	@$(K8SM) upstream build >/dev/null
	@cargo bench --quiet -p packaging --bench render
	@cargo bench --quiet -p framework --bench scale
	@$(SUDO) env "PATH=$$PATH" K8SM_UPSTREAM_BIN="$$($(K8SM) upstream path)" cargo bench --quiet -p cli --bench cluster
	@env K8SM_UPSTREAM_BIN="$$($(K8SM) upstream path)" cargo bench --quiet -p proxy --bench front_door

fuzz: setup-fuzz ## runs each fuzz target for 20 s, or FUZZ_SECONDS
	@scripts/fuzz

docs: build ## writes docs/flags.md from the programs' own help
	@scripts/docs

clean: ## removes what cargo built (not the cache of upstream components)
	@cargo clean
