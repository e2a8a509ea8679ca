# Every target does its own set-up in .venv; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
FLOWER := $(VENV)/.flower
NEXT_TRITON ?= 3.8.0 3.9.0
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup demo hospitals test compiled gpu slow nightly lowest lint format clean wheelhouse wheelhouse-check

help:  ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP)  ## Make .venv with everything (a few minutes the first time)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[data,report,triton,dev]'
	touch $@

$(FLOWER): $(STAMP)
	$(PIP) install -q -c constraints.txt -e '.[flower]'
	touch $@

demo: $(STAMP)  ## The main job on real data; writes demo/report.html
	rm -rf demo
	$(BIN)/python examples/demo.py --out demo

hospitals: $(FLOWER)  ## Three sites, a server and Flower as processes of their own; one site and the server are killed on the way
	rm -rf hospitals
	$(BIN)/python examples/hospitals/run.py --out hospitals

test: $(STAMP)  ## All tests but the slow ones; Triton's kernels run in its interpreter, in processes of their own
	$(BIN)/python -m pytest -n auto --dist loadfile
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -n auto --dist worksteal -m triton tests/kernels/triton

compiled: $(STAMP)  ## The kernels compiled for four families of GPUs, and the binaries inspected
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'compiled and not slow' tests/kernels/compiled

# Where there is a GPU: nothing to choose, everything that it measures in one folder, stopped and gone on with at will.
GPU := bench/results/gpu
GPU_TUNE ?= 10
GPU_BENCH ?= 15
gpu: $(STAMP)  ## Check, tune and measure the kernels on this GPU; writes bench/results/gpu.tar.gz to send back (half an hour)
	$(PIP) install -q -c constraints.txt -e '.[bench]'
	mkdir -p $(GPU)
	$(BIN)/python -m pytest -m 'gpu and not slow' -p no:cacheprovider tests/kernels/triton > $(GPU)/tests.txt 2>&1 || (tail -40 $(GPU)/tests.txt; exit 1)
	$(BIN)/secure-fl kernels check > $(GPU)/check.txt || (cat $(GPU)/check.txt; exit 1)
	SECURE_FL_TILES=$(CURDIR)/$(GPU)/tiles $(BIN)/secure-fl kernels tune --device cuda --minutes $(GPU_TUNE)
	SECURE_FL_TILES=$(CURDIR)/$(GPU)/tiles $(BIN)/secure-fl doctor > $(GPU)/doctor.txt
	nvidia-smi -q -d CLOCK,POWER > $(GPU)/clocks.txt || true
	SECURE_FL_TILES=$(CURDIR)/$(GPU)/tiles $(BIN)/secure-fl bench kernels --kernel ntxent --kernel uniformity --kernel infonce \
	    --kernel ssd-ntxent --device cuda --dtype bfloat16 --dtype float32 --rows 2048 --rows 8192 --rows 32768 \
	    --dimension 128 --dimension 512 --budget $(GPU_BENCH) --plot --out $(GPU)
	tar -czf $(GPU).tar.gz -C bench/results gpu
	@echo "send $(GPU).tar.gz, or commit $(GPU)"

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

# What a machine of a federation installs, with no network: reviewed by its sums, which name every wheel.
HOUSE := wheelhouse
HOUSE_EXTRAS ?= session,flower,metrics,traces,report,data,images,tables
HOUSE_PYTHON := .venv-wheelhouse/bin/python
NO_NETWORK := $(shell unshare -rn true 2>/dev/null && echo unshare -rn)

wheelhouse:  ## All wheels of a deployment and SHA256SUMS; torch comes from whatever index pip has (0.4 GB with torch for processors)
	rm -rf $(HOUSE)
	$(PYTHON) -m venv --clear .venv-wheelhouse
	$(HOUSE_PYTHON) -m pip --disable-pip-version-check wheel -q -c constraints.txt -w $(HOUSE) '.[$(HOUSE_EXTRAS)]'
	cp constraints.txt $(HOUSE)/
	cd $(HOUSE) && sha256sum -- * > .sums && mv .sums SHA256SUMS
	du -sh $(HOUSE)

wheelhouse-check:  ## The wheels against SHA256SUMS, and installed without a network
	cd $(HOUSE) && sha256sum --check --strict --quiet SHA256SUMS
	cd $(HOUSE) && test "$$(ls | grep -vx SHA256SUMS)" = "$$(cut -c 67- SHA256SUMS)"
	$(PYTHON) -m venv --clear .venv-wheelhouse
	$(NO_NETWORK) $(HOUSE_PYTHON) -m pip --isolated --disable-pip-version-check install -q --no-index \
	    --find-links $(HOUSE) -c $(HOUSE)/constraints.txt 'secure-fl[$(HOUSE_EXTRAS)]'
	$(NO_NETWORK) $(HOUSE_PYTHON) -m pip --isolated check
	$(NO_NETWORK) .venv-wheelhouse/bin/secure-fl doctor

clean:  ## Remove what the targets made
	rm -rf $(VENV) .venv-wheelhouse wheelhouse demo hospitals runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
