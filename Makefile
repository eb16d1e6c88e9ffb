# Run `make help` for what there is. Python 3.11 or newer and make are all that must be installed.
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export UV_PYTHON_DOWNLOADS := never
PYTEST_ARGS ?=
# Tests wait for servers much of their time: three processes fill two cores.
WORKERS ?= 3

.PHONY: help install up test test-fast test-servers test-faults test-browser check audit format bench images soak soak-browser lock wheel clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(VENV)/.installed: requirements-dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements-dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

install: $(VENV)/.installed  ## make the virtual environment with everything in it

up: install  ## run the whole system here: PostgreSQL, Valkey, worker, page, gateway, with demo traffic (Ctrl-C stops it)
	@$(BIN)/taximeter up --demo

test: install  ## run every test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory test-browser

test-fast: install  ## run the tests that need no server (seconds)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not servers and not faults and not browser and not soak" --hypothesis-profile fast -p no:schemathesis $(PYTEST_ARGS)

test-servers: install  ## run the tests that need servers, without the faults
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "servers and not faults and not browser and not soak" $(PYTEST_ARGS)

test-faults: install  ## run the tests that kill, freeze and fill up servers and processes
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "faults and not soak" $(PYTEST_ARGS)

test-browser: install  ## run the page's tests in Chromium (playwright has its own event loop, so its own process)
	@$(BIN)/python -m pytest -m "browser and not soak" -n 0 tests/dashboard/browser $(PYTEST_ARGS)

check: install  ## lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

audit: install  ## licences of all dependencies, and known vulnerabilities if the advisory service answers
	@$(BIN)/python tools/audit.py

format: install  ## format, and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: install  ## the short benchmarks
	@$(BIN)/python -m benchmarks

images: install  ## take the pictures of docs/images (needs Chromium)
	@$(BIN)/python -m benchmarks.pictures

soak: install  ## the long fault runs (make soak SEED=… EVENTS=… FAULTS=… RATE=… PYTEST_ARGS="-k …")
	@$(BIN)/python -m pytest -m "soak and not browser" -n 0 -s --timeout 7200 $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory soak-browser

soak-browser: install  ## the long browser tests (a process of their own; -k may select none of them)
	@$(BIN)/python -m pytest -m "soak and browser" -n 0 tests/dashboard/browser $(PYTEST_ARGS) || test $$? -eq 5

lock:  ## pin every dependency by hash (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-annotate --python-version 3.11 --extra all --group dev pyproject.toml -o requirements-dev.txt
	uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-annotate --python-version 3.11 --extra all pyproject.toml -o requirements.txt
	echo hatchling | uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-annotate --python-version 3.11 --constraint requirements-dev.txt - -o deploy/requirements-build.txt

wheel: install  ## build the wheel into dist/
	@$(BIN)/python -m hatchling build -t wheel

clean:  ## remove the virtual environment and caches (never data)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
