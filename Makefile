# A fresh machine needs Python >= 3.11, git and make: `make demo` and `make test` set up the rest in .venv.
# `make VENV=.venv-3.13 PYTHON=python3.13 test` does so with another Python, beside it.
# The tests of the RTL and `make accuracy` need g++ as well; without it those tests are skipped.
# Paths are relative throughout, so a checkout may live under a path with spaces.

PYTHON ?=
ARGS ?=
VENV ?= .venv
JOBS ?= $(shell nproc 2>/dev/null || echo auto)
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Bytecode is kept, whatever the environment says: the tests start hundreds of processes, and each would compile all.
unexport PYTHONDONTWRITEBYTECODE

PY = $(VENV)/bin/python
# -qq: errors only.
PIP_INSTALL = $(PY) -m pip install -qq --no-input
PYTEST = $(PY) -m pytest -n $(JOBS) --dist worksteal
# What computes in floating point, or shows what was computed so, and the environment of another processor: plain SSE in
# OpenBLAS and numpy, one thread. (Names of X86_V3 and X86_V4 are numpy's, for AVX2 and AVX-512.)
FLOATING = tests/golden tests/numeric tests/notebooks tests/systems/test_numeric.py tests/systems/test_tampered.py \
    tests/test_proof.py tests/test_notebook.py tests/test_readme.py tests/studies/test_calibration.py tests/cli/commands/test_calibrate.py
OTHER_KERNELS = OPENBLAS_CORETYPE=Nehalem NPY_DISABLE_CPU_FEATURES='X86_V3 X86_V4' OPENBLAS_NUM_THREADS=1
SUPPORTED = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test slow floating lint bench accuracy notebooks lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)$$/\1	\2/p' Makefile | while IFS='	' read -r name text; do \
	    printf '  make %-9s %s\n' "$$name" "$$text"; done

setup: $(VENV)/ready  ## create .venv (every target below does this when needed)

demo: $(VENV)/ready  ## one decode step of Llama-2-7B on 256 PEs
	$(VENV)/bin/pe-sim run llama-2-7b --array bus-tree-256 --workflow workflow-1 --phase decode --context 2048

test: $(VENV)/ready  ## the test suite without the slow tests (ARGS="-k word" narrows it)
	@$(PYTEST) -m "not slow" $(ARGS)

# pytest exits with 5 when it found no test: having no slow test is fine.
slow: $(VENV)/ready  ## the slow tests
	@$(PYTEST) -m slow $(ARGS) || { code=$$?; [ $$code -eq 5 ] || exit $$code; }

floating: $(VENV)/ready  ## what computes in floating point, as another processor rounds
	@OPENBLAS_VERBOSE=2 $(OTHER_KERNELS) $(PY) -c 'import numpy'   # says which kernel it is
	@$(OTHER_KERNELS) $(PYTEST) -m "not slow" $(ARGS) $(FLOATING)

# All of them run, whatever the first ones say.
lint: $(VENV)/ready  ## style, formatting, types, import rules, full folders
	@code=0; \
	for check in 'ruff check .' 'ruff format --check .' 'mypy' 'lint-imports' 'pytest -q -n 0 tests/test_import_rules.py -k folder'; do \
	    echo "-- $$check"; $(VENV)/bin/$$check || code=1; \
	done; exit $$code

bench: $(VENV)/ready  ## the benchmarks, into docs/performance.md (some minutes)
	@$(PY) -m benchmarks $(ARGS)

accuracy: $(VENV)/ready  ## compare with the RTL, into docs/accuracy.md (needs g++)
	@$(PY) -m tests.rtl.accuracy $(ARGS)

notebooks: $(VENV)/ready  ## execute notebooks/*.py into the .ipynb beside them (ARGS="quick_start")
	@$(PY) -m tests.notebooks.render $(ARGS)

# Resolved on the oldest supported Python, where a version must exist that newer ones take too; then checked on those.
lock: LOCK_PYTHON = python3.11
lock:  ## pin the newest versions pyproject.toml allows, in requirements.lock
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && set -e; \
	echo "Resolving in a fresh environment of $(LOCK_PYTHON) ..."; \
	"$(LOCK_PYTHON)" -m venv "$$tmp/venv"; \
	"$$tmp/venv/bin/python" -m pip install -qq --no-input hatchling '.[test,dev]'; \
	{ echo '# Written by `make lock`: every package of a set-up with its version, for Python 3.11 and later.'; \
	  "$$tmp/venv/bin/python" -m pip freeze --exclude pe-sim; } > "$$tmp/lock"; \
	for version in 3.11 3.12 3.13; do \
	    echo "Checking that wheels exist for Python $$version ..."; \
	    "$$tmp/venv/bin/python" -m pip install -qq --no-input --dry-run --ignore-installed --only-binary=:all: \
	        --python-version $$version --target "$$tmp/target" -r "$$tmp/lock"; \
	done; \
	cp "$$tmp/lock" requirements.lock; echo "Wrote requirements.lock."

clean:  ## remove what make and the tools made, .venv included
	rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .rtl_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------------- set-up
# Two stamps, each written last: an interrupted set-up has none and starts afresh at the next call.
# `installed.lock` is the very file that was installed; when only its date is older, nothing is fetched again.
$(VENV)/installed.lock: requirements.lock
	@if cmp -s requirements.lock $@; then touch $@; exit 0; fi; \
	python='$(PYTHON)'; \
	if [ -z "$$python" ]; then \
	    for candidate in python3.13 python3.12 python3.11 python3; do \
	        if "$$candidate" -c '$(SUPPORTED)' >/dev/null 2>&1; then python=$$candidate; break; fi; \
	    done; \
	elif ! "$$python" -c '$(SUPPORTED)' >/dev/null 2>&1; then \
	    echo "PYTHON=$$python is no Python >= 3.11 with the venv module." >&2; exit 1; \
	fi; \
	if [ -z "$$python" ]; then \
	    echo "No Python >= 3.11 with the venv module was found (on Debian and Ubuntu: apt install python3-venv)." >&2; \
	    echo "Install one, or name yours: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$("$$python" --version) (once; about a minute) ..."; \
	"$$python" -m venv --clear $(VENV) && \
	cp requirements.lock $(VENV)/installing.lock && \
	$(PIP_INSTALL) -r $(VENV)/installing.lock && \
	mv $(VENV)/installing.lock $@ || { echo "Set-up did not finish; the next call of make starts it afresh." >&2; exit 1; }

# The package itself, editable: no network is needed for this.
$(VENV)/ready: $(VENV)/installed.lock pyproject.toml
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
