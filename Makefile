# The environment is made once, in .venv, with plain pip.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help quickstart test lint docs-check clean

help:
	@echo "make quickstart   install, train on digits, sample, write runs/quickstart/report.html (5 minutes after the install)"
	@echo "make test         install, then everything that is checked: lint, types, layers, all tests"
	@echo "make lint         formatting, lint, types, layers"
	@echo "make docs-check   run the commands that README and docs show"

quickstart: $(INSTALLED)
	$(BIN)/undiffuse quickstart

test: lint
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check src tests
	$(BIN)/lint-imports

docs-check: $(INSTALLED)
	$(BIN)/python -m pytest tests/test_docs.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "undiffuse needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --progress-bar off --editable ".[dev]"
	@touch $@
