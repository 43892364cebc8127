# `make run`: install, the example study, its report.   `make test`: install, every check.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: run test bench install install-test lock

run: install
	$(BIN)/hmtl-ablate run search_spaces/puzzling.yaml
	$(BIN)/hmtl-ablate report

test: install-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

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
