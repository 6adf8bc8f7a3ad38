# What one types. A fresh machine needs rustup, gcc, make and apt; `make test` installs the rest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup serve demo fair test bench lint lint-deps soak clean

CARGO ?= cargo
PYTHON ?= python3
VENV := .venv
NODE_MODULES := tests/sdk/node_modules
TARGET := $(or $(CARGO_TARGET_DIR),target)
export TIDEGATE_BIN ?= $(abspath $(TARGET))/debug/tidegate
# Those that tests/sdk/browser.py looks for.
BROWSERS := chromium-headless-shell chromium google-chrome-stable google-chrome chromium-browser chrome
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed $(NODE_MODULES)/.installed ## install what the tests need, where it is missing
	@missing=(); \
	command -v cmake >/dev/null || missing+=(cmake); \
	command -v curl >/dev/null || missing+=(curl); \
	command -v pkg-config >/dev/null || missing+=(pkg-config); \
	if (($${#missing[@]})); then $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy "$${missing[@]}"; fi
	@for browser in $(BROWSERS); do ! command -v $$browser >/dev/null || exit 0; done; \
	install() { $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$$@"; }; \
	$(SUDO) apt-get update -q && { install chromium-headless-shell || install chromium; }
	@$(CARGO) fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@$(CARGO) clippy --version >/dev/null 2>&1 || rustup component add clippy
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-nextest

# The official SDKs and other clients, pinned, in an environment of their own. Node comes with them, since the SDK wants a
# newer one than distributions have.
$(VENV)/.installed: tests/sdk/requirements.txt
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy python3 python3-venv; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(NODE_MODULES)/.installed: tests/sdk/package.json tests/sdk/package-lock.json $(VENV)/.installed
	PATH="$(abspath $(VENV)/bin):$$PATH" npm ci --prefix tests/sdk --silent --no-audit --no-fund
	@touch $@

serve: ## the proxy; for example: make serve ARGS="--upstream https://api.example.com/v1 --rpm 40 --concurrency 5"
	$(CARGO) run --release --locked -- serve $(ARGS)

demo: ## see it work, in about a minute, without a key or a network; ARGS as for serve
	$(CARGO) run --release --locked -- demo $(ARGS)

fair: ## play seven true minutes of clients with weights, and write what README shows of it
	TIDEGATE_RECORD=$(abspath benches/fair/fair.json) $(CARGO) nextest run --locked --profile soak --run-ignored ignored-only \
		--success-output immediate -E 'test(fairness_of_seven_true_minutes)'

# nextest builds the binary that the SDK tests start; `cargo build` would build half of it again, with other features.
test: setup lint ## everything a change must pass
	$(CARGO) nextest run --locked
	$(CARGO) test --locked --doc --quiet
	$(VENV)/bin/python -m pytest -q tests/sdk

lint: ## formatting, clippy without mercy, links of the documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --locked --quiet
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(MAKE) --no-print-directory lint-deps; \
	else echo "cargo-deny is not installed: licences and sources of dependencies were not checked"; fi

lint-deps: ## licences and sources of dependencies (cargo install --locked cargo-deny)
	$(CARGO) deny --config .deny.toml check bans licenses sources

bench: ## what things cost: criterion, then calls that pass through, beside nginx and a bare pingora; for figures to keep: ARGS="--long --record benches/pass_through/figures.json"
	@missing=(); \
	for tool in nginx valgrind; do command -v $$tool >/dev/null || missing+=($$tool); done; \
	if (($${#missing[@]})); then $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$${missing[@]}" \
		|| echo "without $${missing[*]} some figures are missing"; fi
	$(CARGO) bench --locked --bench hot_path
	$(CARGO) bench --locked --bench pass_through -- $(ARGS)

soak: ## play twenty true minutes of faults of all kinds before the real process, and write down what came of it
	TIDEGATE_RECORD=$(abspath benches/soak/soak.json) $(CARGO) nextest run --locked --profile soak --run-ignored ignored-only \
		--success-output immediate -E 'test(/soak_of_/)'

clean: ## what was built and installed here
	$(CARGO) clean
	rm -rf $(VENV) $(NODE_MODULES)
