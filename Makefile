# `make` lists what can be made. Everything runs in .venv, which the first target that needs it sets up.
PYTHON ?= python3
CONFIG := configs/digits_w2a8.py
BIN := .venv/bin
DEV := .venv/.dev-installed
ORT_WEB := 1.30.0
PYTEST := $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal
# The numerics, whole folders of them, so that a new test there is in unless it is marked `slow`; one tiny
# search; one run. A test that is named here and no longer found is an error.
FAST := tests/quant tests/objective tests/network tests/search/algorithms/test_evolq.py \
  tests/search/test_driver.py::test_segments_are_searched_last_to_first \
  tests/verbs/search/test_run.py::test_a_run_holds_everything

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-fast browser lint format format-check types check bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(DEV) ## make .venv with everything for working on the code

quickstart: .venv/.digits-installed ## set up, then search on a small ViT trained on the digits data
	$(BIN)/evolq search $(CONFIG)

test: $(DEV) ## run the tests (a quarter of an hour on two cores)
	$(PYTEST)

test-fast: $(DEV) ## numerics, a tiny search and a run (under two minutes on two cores)
	$(PYTEST) -m 'not slow' $(FAST)

browser: $(BIN)/python ## fetch onnxruntime-web, with which tests try docs/browser (needs npm)
	npm install --silent --no-fund --no-audit --prefix .venv/browser onnxruntime-web@$(ORT_WEB)

lint: $(DEV) ## ruff's rules
	$(BIN)/ruff check

format: $(DEV) ## rewrite the files in ruff's format, with imports sorted
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format

format-check: $(DEV) ## say which files `make format` would rewrite
	$(BIN)/ruff format --check

types: $(DEV) ## pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

check: lint format-check types ## lint, format-check and types

bench: $(DEV) ## speed and memory
	$(BIN)/python benchmarks/run.py

clean: ## remove .venv and what the tools leave behind
	rm -rf .venv build dist .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp of one extra of pyproject.toml: installed once, and again when pyproject.toml changes.
.venv/.%-installed: pyproject.toml | $(BIN)/python
	@echo "installing evolq_jax[$*] into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

# $(PYTHON) where it is new enough, else python3.12 or python3.11.
$(BIN)/python:
	@for python in '$(PYTHON)' python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    exec "$$python" -m venv .venv; \
	  fi; \
	  echo "make: '$$python' is missing or older than Python 3.11, trying the next" >&2; \
	done; \
	echo "make: no Python 3.11 or newer found: name one, as in 'make setup PYTHON=/path/to/python3.12'" >&2; \
	exit 1
