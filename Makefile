# Everything lives in .venv; each target makes what it needs. PIP_FLAGS reaches pip, as for an index with CPU builds.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: run install test test-fast reliability check bench browser clean

run: $(STAMP)
	$(BIN)/latentry train flagship --test

install: $(STAMP)

# One thread of each of as many tests as there are cores.
SPREAD := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal

test: $(STAMP)
	$(SPREAD)

test-fast: $(STAMP)
	$(SPREAD) -m "not slow"

# Faults, hostile input and load, which takes long; as root, since file systems are mounted and networks made. What is
# timed runs alone, all else on as many cores as there are.
TIMED := tests/end_to_end/test_service.py tests/training/test_processes.py
reliability: $(STAMP)
	test "$$(id -u)" = 0 || { echo "make reliability mounts file systems and makes networks: run it as root" >&2; exit 2; }
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt schemathesis
	command -v ip || { apt-get update && apt-get install --yes --no-install-recommends iproute2; }
	$(BIN)/pytest -m reliability $(TIMED)
	$(SPREAD) -m reliability $(TIMED:%=--ignore=%)
	LATENTRY_HOSTILE_INPUTS=20000 $(SPREAD) tests/hostile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What the tests of the web page need beside Python's packages; without it they are left out.
browser: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt playwright
	command -v chromium || { apt-get update && apt-get install --yes --no-install-recommends chromium; }

bench: $(STAMP)
	$(BIN)/python benchmarks/step.py

# torch first: an index that offers a CPU build of exactly this version is asked for it before anything else wants one.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "latentry needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf .venv build dist src/*.egg-info
