# `make run`: install, run the example study, print its report.   `make test`: install, run every check.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
SUDO = $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: run test fast test-deps bench install install-test lock

run: install
	$(BIN)/hmtl-ablate run search_spaces/puzzling.yaml
	$(BIN)/hmtl-ablate report

# Everything that CI runs.
test: install-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest
	$(BIN)/pytest -m slow -n 2 --ignore=tests/chaos --ignore=tests/cluster
	$(BIN)/pytest -m slow -n 0 tests/chaos tests/cluster
	if nvidia-smi -L >/dev/null 2>&1; then $(BIN)/pytest -m gpu -n 0; fi

# What to run while you write: lint and the tests without Ray, servers or other processes.
fast: install-test
	$(BIN)/ruff check .
	$(BIN)/pytest

# The Debian packages that tests need.
test-deps:
	$(SUDO) apt-get update -qq
	$(SUDO) apt-get install -qq --no-install-recommends $$(grep -v '^#' tests/debian-packages.txt)

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/pip pyproject.toml requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/bin/pip pyproject.toml requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[test]'
	touch $@

# Pins what is installed now, without this package itself.
lock: install-test
	$(BIN)/pip freeze --exclude-editable --disable-pip-version-check > requirements.lock

# The benchmarks, for hours: docs/performance.md is made from what they measure. One by name: python -m benchmarks NAME
bench: install-test
	$(BIN)/python -m benchmarks --output docs/performance
	$(BIN)/python -m benchmarks.page docs/performance docs/performance.md
