# Every target does its own set-up in .venv; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
NEXT_TRITON ?= 3.8.0 3.9.0
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup demo test compiled slow nightly lowest lint format clean

help:  ## Say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP)  ## Make .venv with everything (a few minutes the first time)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[data,report,triton,dev]'
	touch $@

demo: $(STAMP)  ## The main job on real data; writes demo/report.html
	rm -rf demo
	$(BIN)/python examples/demo.py --out demo

test: $(STAMP)  ## All tests but the slow ones; Triton's kernels run in its interpreter, in processes of their own
	$(BIN)/python -m pytest -n auto --dist loadfile
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -n auto --dist worksteal -m triton tests/kernels/triton

compiled: $(STAMP)  ## The kernels compiled for four families of GPUs, and the binaries inspected
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'compiled and not slow' tests/kernels/compiled

slow: $(STAMP)  ## The slow tests
	$(BIN)/python -m pytest -m slow

nightly: $(STAMP)  ## The kernels under the next versions of Triton, in environments of their own
	for version in $(NEXT_TRITON); do \
	    test -x .venv-triton-$$version/bin/python || $(PYTHON) -m venv .venv-triton-$$version; \
	    grep -v '^triton==' constraints.txt > .venv-triton-$$version/constraints.txt; \
	    .venv-triton-$$version/bin/python -m pip install -q -c .venv-triton-$$version/constraints.txt torch triton==$$version -e '.[dev]' || exit 1; \
	    TRITON_INTERPRET=1 .venv-triton-$$version/bin/python -m pytest -n auto -m triton tests/kernels/triton || exit 1; \
	    .venv-triton-$$version/bin/python -m pytest -n auto -m 'compiled and not slow' -k 'not snapshot and not bar' tests/kernels/compiled || exit 1; \
	done

lowest: $(STAMP)  ## Quick tests with the lowest version of everything that pyproject.toml allows (downloads an old torch)
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	$(BIN)/python tests/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install -q -c .venv-lowest/constraints.txt -e '.[data,images,report,tables]' pytest pytest-timeout pytest-xdist hypothesis
	.venv-lowest/bin/python -m pytest -n auto --dist loadfile -o filterwarnings=default \
	    tests/cli tests/data tests/federation tests/models tests/objectives tests/pools tests/report tests/crypto tests/he tests/secure_sum tests/*.py

lint: $(STAMP)  ## Style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)  ## Bring the code into style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove what the targets made
	rm -rf $(VENV) demo runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
