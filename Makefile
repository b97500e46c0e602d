# Everything a person types. Each step is done only when needed.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# The first that runs and is new enough: version managers put names on PATH that don't work.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
DEMO ?= 1
PYTEST_ARGS ?=

.PHONY: help run test lint bench demo-data shell viewer libraries clean setup setup-dev

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "Atrium needs Python 3.11 or newer."; exit 1; }
	@echo "• virtual environment"
	@"$(PYTHON)" -m venv .venv || { rm -rf .venv; echo "This Python can't make virtual environments. On Debian: apt-get install python3-venv"; exit 1; }

.venv/.installed: requirements.txt | .venv/bin/python
	@echo "• Python packages"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	@echo "• packages for tests and linters"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

viewer: .venv/.installed ## build OHIF (once)
	@$(BIN)/python -m studies.viewer.build .build/viewer

libraries: .venv/.installed ## what PDF needs beside Python, where the system lacks it
	@$(BIN)/python -m portal.pdf_libraries .build/libraries

setup: .venv/.installed viewer libraries
	@$(BIN)/python manage.py collectstatic --noinput --verbosity 0

setup-dev: .venv/.installed-dev viewer libraries

run: setup ## set up all that's needed and serve until Ctrl-C; DEMO=0 for an empty installation
	@echo "• database"
	@$(BIN)/python manage.py migrate --verbosity 0
	@if [ "$(DEMO)" != "0" ]; then echo "• demo installation" && $(BIN)/python manage.py demo; fi
	@exec $(BIN)/python manage.py serve

demo-data: setup ## make the demo installation, without serving
	@$(BIN)/python manage.py migrate --verbosity 0
	@$(BIN)/python manage.py demo

test: ## set up what tests need and run every test
	@.ci/system-packages
	@$(MAKE) --no-print-directory setup-dev
	@.ci/tests $(PYTEST_ARGS)

lint: .venv/.installed-dev ## format, style, types, templates, import contract, migrations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/djlint templates --lint --quiet
	ATRIUM_DATA=$$(mktemp -d) $(BIN)/python manage.py makemigrations --check --dry-run

bench: setup-dev ## benchmarks beside a peer, printing ratios
	@$(BIN)/python -m benchmarks

shell: .venv/.installed ## Django's shell
	@$(BIN)/python manage.py shell

clean: ## remove what was built, not the data
	rm -rf .venv .build .mypy_cache .ruff_cache .pytest_cache .hypothesis
