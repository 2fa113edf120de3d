# Two commands do on a fresh machine: `make run` and `make test`. Everything they need from the
# package registries goes into .venv/, pinned and hashed by the requirements*.lock files.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# The first Python that is new enough and whole; a pyenv shim may exist and yet not run.
ifndef PYTHON
PYTHON := $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if $$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo $$p; break; fi; done)
endif
# The lowest supported version: the backports it needs then stand in the locks for all.
LOCK_PYTHON ?= python3.11
ARGS ?=
UPGRADE ?=
FUZZ_SECONDS ?=
SEEDS ?=
SECONDS ?=

BIN := .venv/bin
LOCK_TOOLS := .cache/lock-tools
PIP_COMPILE = CUSTOM_COMPILE_COMMAND='make lock' $(LOCK_TOOLS)/bin/pip-compile --quiet \
	--generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
	--no-emit-trusted-host --no-emit-options $(UPGRADE)
# pip-compile knows no dependency groups: they go in by its standard input.
GROUP = $(LOCK_PYTHON) -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb")); \
	print(*project["dependency-groups"]["$(1)"], sep="\n")'

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  ARGS='…' is passed on: make test ARGS='-k kafka', make run ARGS='--config my.yaml'"

.PHONY: run
run: venv-run ## Run the whole thing here, with an embedded NATS server: no config needed
	@$(BIN)/gateway dev $(ARGS)

.PHONY: test
test: venv-test ## Run every test, against real brokers (needs Java 17 and Maven for Kafka)
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: fire
fire: venv-test ## Kill, freeze and cut off real processes under load: tests/fire; count what is lost
	@$(BIN)/python -m pytest tests/fire $(ARGS)

.PHONY: coverage
coverage: venv-test ## Run the tests of the pure core; fail below 100 % of its branches
	@$(BIN)/coverage run -m pytest tests/core
	@$(BIN)/coverage report

.PHONY: lint
lint: venv-test ## Check style, types, the Dockerfile and the example config, and run its tests
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/python tools/config_reference.py --check
	@for file in config tests; do $(BIN)/gateway schema $$file | \
		diff schemas/$$file.schema.json - >/dev/null || { echo \
		"run: $(BIN)/gateway schema $$file > schemas/$$file.schema.json" >&2; exit 1; }; done
	@export CLERK_WEBHOOK_SIGNING_SECRET=whsec_$$(printf an-example-of-a-secret | base64) && \
		$(BIN)/gateway check --strict --config config.example.yaml && \
		$(BIN)/gateway test --config config.example.yaml --coverage

.PHONY: editor
editor: venv-test ## Open configs in the language server that editors use for YAML (needs Node.js 20)
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "make editor needs Node.js 20" \
		"or newer, with npm" >&2; exit 1; }
	@mkdir -p .cache/editor
	@cp tests/editor/package.json tests/editor/package-lock.json tests/editor/.npmrc .cache/editor/
	@npm ci --prefix .cache/editor --ignore-scripts --no-audit --no-fund --loglevel=error
	@$(BIN)/python -m pytest tests/editor/editor.py $(ARGS)

.PHONY: format
format: venv-test ## Format the code and mend what can be mended by itself
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

.PHONY: bench
bench: venv-test ## Measure: bench/run.py
	@$(BIN)/python -m bench.run $(ARGS)

.PHONY: bench-ledger
bench-ledger: venv-test ## Measure what the ledger costs an event: bench/ledger.py
	@$(BIN)/python -m bench.ledger $(ARGS)

.PHONY: bench-routes
bench-routes: venv-test ## Measure what the number of routes costs: bench/routes.py; fail if not flat
	@$(BIN)/python -m bench.routes $(ARGS)

.PHONY: abuse
abuse: venv-test ## Measure what abuse costs others: bench/abuse.py; fail above twice the calm latency
	@$(BIN)/python -m bench.abuse $(ARGS)

.PHONY: sbom
sbom: venv-test ## Write dist/sbom.cdx.json: all that the image installs, from requirements.lock
	@mkdir -p dist
	@$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml \
		--output-reproducible --output-format JSON --output-file dist/sbom.cdx.json
	@echo "dist/sbom.cdx.json"

.PHONY: fuzz
fuzz: venv-test ## Fuzz the edge until Ctrl-C, or for FUZZ_SECONDS=60 (Linux only)
	@$(BIN)/python -m fuzz.run $(if $(FUZZ_SECONDS),-max_total_time=$(FUZZ_SECONDS)) $(ARGS)

.PHONY: simulate
simulate: venv-test ## Simulate delivery in small worlds until Ctrl-C, or for SEEDS=10000 or SECONDS=60
	@$(BIN)/python -m sim.run $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

.PHONY: lock
lock: ## Remake the lock files; UPGRADE=--upgrade takes newer versions too
	@command -v $(LOCK_PYTHON) >/dev/null || { echo "make lock needs $(LOCK_PYTHON)" >&2; exit 1; }
	@$(LOCK_PYTHON) -m venv $(LOCK_TOOLS)
	@$(LOCK_TOOLS)/bin/pip install --quiet --disable-pip-version-check 'pip-tools>=7.6,<8'
	@$(call GROUP,build) | $(PIP_COMPILE) -o requirements-build.lock -
	@$(PIP_COMPILE) -c requirements-build.lock -o requirements.lock pyproject.toml
	@$(PIP_COMPILE) -c requirements-build.lock -c requirements.lock --extra dev \
		-o requirements-dev.lock pyproject.toml
	@$(call GROUP,test) | \
		$(PIP_COMPILE) -c requirements-build.lock -c requirements-dev.lock --extra dev \
		-o requirements-test.lock pyproject.toml -

.PHONY: clean
clean: ## Remove .venv, the caches, and the embedded broker's data
	@rm -rf .venv .cache .gateway .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	@find gateway tests tools bench fuzz sim virtual -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: venv-run venv-test
venv-run venv-test: venv-%: have-python
	@$(PYTHON) tools/install.py $*

.PHONY: have-python
have-python:
	@test -n '$(PYTHON)' || { echo "Python 3.11 or newer, with venv and pip, is needed and was not" \
		"found. Debian, Ubuntu: apt-get install python3 python3-venv. macOS: brew install" \
		"python@3.13. Elsewhere: make PYTHON=/path/to/python3" >&2; exit 1; }
