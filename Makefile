# make test    build, install into .venv and run all tests against the installed build; ARGS="-k store" narrows it
# make test-faults SECONDS=600    the tests that kill and damage, the torture test for so long, and the simulator
# make demo    start an embedded PostgreSQL with example data and a sidecar
# make lint    style and types
# make clean   remove everything that was generated
PYTHON ?= python3
ARGS ?=
SECONDS ?= 120
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
BUILT := $(VENV)/.ruvector-built
GENERATED := $(patsubst %.pyx,%.cpp,$(wildcard ruvector/_ext/*.pyx))
SOURCES := pyproject.toml setup.py README.md $(filter-out $(GENERATED), $(shell \
	find ruvector sql migrations -type f ! -name '*.so' ! -name '*.pyc' ! -name '*.html' ! -name '.*'))

.PHONY: test test-faults demo lint clean

# Safe path: without it the checkout in the current folder would hide the installed package.
test: $(BUILT)
	RUVECTOR_TEST_INSTALLED=1 PYTHONSAFEPATH=1 $(BIN)/python -m pytest $(ARGS)

test-faults: $(BUILT)
	PYTHONSAFEPATH=1 $(BIN)/python tools/simulate.py --seconds $(SECONDS)
	RUVECTOR_TORTURE_SECONDS=$(SECONDS) RUVECTOR_TEST_INSTALLED=1 PYTHONSAFEPATH=1 $(BIN)/python -m pytest -m fault -rP $(ARGS)

demo: $(BUILT)
	$(BIN)/ruvector demo

lint: $(BUILT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" cython-lint --max-line-length=120 ruvector/_ext

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis $(GENERATED)
	find ruvector -name '*.so' -delete
	find ruvector tests tools sql migrations -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "ruvector needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) -V 2>&1`. Try: make PYTHON=python3.12 ..." >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

# Without isolation an unchanged extension is not compiled again. The copies of modules in build/ go, because they
# keep what was deleted from the sources; the compiled extensions stay.
$(BUILT): $(SOURCES) | $(BIN)/python
	$(PIP) `$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])'`
	if [ -d build ]; then find build -type f ! -name '*.so' -delete; fi
	$(PIP) --no-build-isolation '.[dev]'
	touch $@
