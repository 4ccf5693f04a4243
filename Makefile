# The environment is made once, in .venv, with plain pip.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
DEVELOPS := .venv/installed-dev

.PHONY: help quickstart test lint mutants docs-check bench clean

help:
	@echo "make quickstart   install, train on digits, sample, write runs/quickstart/report.html (5 minutes after the install)"
	@echo "make test         install, then everything that is checked: lint, types, layers, all tests"
	@echo "make lint         formatting, lint, types, layers"
	@echo "make bench        short forms of the benchmarks, ours against the peers'"
	@echo "make mutants      300 small mistakes in a copy of the source, and whether the tests notice each (an hour)"
	@echo "make docs-check   run the commands and snippets that README and docs show"

quickstart: $(INSTALLED)
	$(BIN)/undiffuse quickstart

test: lint
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: $(DEVELOPS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check src tests
	$(BIN)/lint-imports

mutants: $(DEVELOPS)
	OMP_NUM_THREADS=1 PYTHONPATH=src:tests $(BIN)/python -m mutants $(ARGUMENTS)

docs-check: $(DEVELOPS)
	$(BIN)/python -m pytest tests/test_docs.py tests/test_docs_python.py

bench: $(DEVELOPS)
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/python benchmarks/startup.py --repeats 1
	$(BIN)/python benchmarks/layers.py
	$(BIN)/python benchmarks/training.py --batch 32 --channels 64 --repeats 2
	$(BIN)/python benchmarks/sampling.py --channels 64 --repeats 2

clean:
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "undiffuse needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv; on Linux torch brings several GB of GPU libraries, so this takes minutes."
	$(BIN)/python -m pip install --editable .
	@touch $@

$(DEVELOPS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@
