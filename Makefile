# Feedmill. `make help` lists what there is; each target makes the venv it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := $(VENV)/bin
RUN := $(BIN)/python -m feedmill.cli.main
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

FILE ?= examples/binance-spot.yaml
DATA_DIR ?= .feedmill
SOURCE ?=
SECONDS ?=
RATE ?=
SEED ?=
MINUTES ?=
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n < 8 ? n : 8 )))

.PHONY: help venv venv-dev demo up test test-fast test-cluster e2e soak faults lint format types docs images chart chart-reference bench bench-fills bench-operator bench-traces bench-import bench-accounts bench-backup clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo "  Variables: FILE=manifest.yaml DATA_DIR=dir (up), SOURCE=recordings-dir SECONDS=20 RATE=msgs-per-second (demo, soak, faults), MINUTES SEED (soak, faults), JOBS=2 (test), ARGS=... (test, bench, faults)"

$(VENV)/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "Feedmill needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv), none was found." >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.made-local: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	@echo "installing Feedmill and its pinned dependencies into $(VENV)"
	@$(PIP) hatchling editables && $(PIP) --no-build-isolation --editable '.[local]'
	@touch $@

$(VENV)/.made-dev: $(VENV)/.made-local
	@echo "installing the test and lint tools into $(VENV)"
	@$(PIP) --no-build-isolation --editable '.[local,operator,tracing,dev]'
	@touch $@

venv: $(VENV)/.made-local
venv-dev: $(VENV)/.made-dev

demo: venv ## The whole pipeline on simulated exchanges for ~20 s, then the proof (SOURCE=dir replays recordings)
	@$(RUN) demo $(if $(SOURCE),--recordings $(SOURCE)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(RATE),--rate $(RATE)) $(ARGS)

up: venv ## Run the feeds of FILE on this machine (Ctrl-C drains and stops)
	@$(RUN) up -f $(FILE) --data-dir $(DATA_DIR) $(ARGS)

test: venv-dev ## All tests: JOBS=2 files at a time, then those on an API server (with ARGS: one after another, those it names)
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --ignore tests/cluster --durations 15
	$(BIN)/python -m pytest tests/cluster --timeout-method signal -m "not e2e"
else
	$(BIN)/python -m pytest $(ARGS)
endif

test-fast: venv-dev ## The tests that take seconds
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-cluster: venv-dev ## The tests on a real API server with simulated nodes (needs the cluster tool or kind)
	$(BIN)/python -m pytest tests/cluster --timeout-method signal -m "not e2e" $(ARGS)

e2e: venv-dev ## The chart on a real node: examples applied, pods deleted, ledger compared (root; not part of make test)
	FEEDMILL_E2E=1 $(BIN)/python -m pytest -s tests/cluster --timeout-method signal -m e2e $(ARGS)

soak: venv-dev ## Hold a load (RATE=5000) for MINUTES=60: fails when memory grows, or a message is lost
	$(BIN)/python -m faults.soak $(if $(RATE),--rate $(RATE)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(SEED),--seed $(SEED)) $(ARGS)

faults: venv-dev ## Every fault, judged by the ledger (RATE, SECONDS, SEED; ARGS="--only NAME", "--list", "--random --minutes 10")
	$(BIN)/python -m faults $(if $(RATE),--rate $(RATE)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

lint: venv-dev ## Style, types, import rules, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

format: venv-dev ## Let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: venv-dev ## Regenerate the reference and the CRDs from the models, the page of metrics, the dashboards
	$(RUN) docs
	$(BIN)/python -m tools.metrics
	$(BIN)/python -m tools.dashboards

images: venv-dev ## Both images without Docker, into build/images (ARGS=--next: a second tag of the services)
	tools/images $(ARGS)

chart: venv-dev ## Check the chart with the real Helm 3 and 4
	$(BIN)/python tools/chart-reference --check
	$(BIN)/python -m pytest tests/chart $(ARGS)

chart-reference: venv-dev ## Regenerate the page of the chart's values from their comments
	$(BIN)/python tools/chart-reference

bench: venv-dev ## Measure against cryptofeed on this machine (ARGS="--quick", "--only NAME")
	$(BIN)/python -m bench $(ARGS)

bench-fills: venv-dev ## Latency of a fill, idle and under a burst of the market (ARGS="--runs 1 --seconds 10")
	$(BIN)/python -m bench.fills $(ARGS)

bench-operator: venv-dev ## 1,000 feeds on a real API server: time, memory, API calls (ARGS="--feeds 200")
	$(BIN)/python -m bench.operator $(ARGS)

bench-accounts: venv-dev ## 1,000 accounts, a pool of two, one is killed: how soon all is well (ARGS="--accounts 100")
	$(BIN)/python -m bench.accounts $(ARGS)

bench-traces: venv-dev ## What tracing costs: off, 1 % and 100 % of the batches (ARGS="--rounds 1", "--before DIR")
	$(BIN)/python -m bench.traces $(ARGS)

bench-import: venv-dev ## A legacy sqlite file of 1 M rows moved in, twice (ARGS="--rows 100000", "--only trades")
	$(BIN)/python -m bench.imports $(ARGS)

bench-backup: venv-dev ## A database of 5 GB backed up, drilled and restored (ARGS="--gigabytes 1", "--no-verify")
	$(BIN)/python -m bench.backup $(ARGS)

clean: ## Remove venvs, caches and build output (not your data in .feedmill)
	rm -rf $(VENV) .venv-cryptofeed build dist bench/out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
