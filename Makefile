# Every target does its own set-up in .venv; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup demo test slow lint format clean

help:  ## Say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP)  ## Make .venv with everything (a few minutes the first time)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[data,report,dev]'
	touch $@

demo: $(STAMP)  ## The main job on real data, under five minutes; writes demo/report.html
	rm -rf demo
	$(BIN)/python examples/demo.py --out demo

test: $(STAMP)  ## All tests but the slow ones
	$(BIN)/python -m pytest -n auto --dist loadfile

slow: $(STAMP)  ## The slow tests
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)  ## Style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)  ## Bring the code into style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove what the targets made
	rm -rf $(VENV) demo runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
