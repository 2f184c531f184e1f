# make setup, then make main (the main job) or make test. No tool beyond Python and make is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup main test lint bench quality docs release clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

main: setup
	$(BIN)/python -m sklearn_din

test: lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks.speed

docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

quality: setup
	$(BIN)/python -m benchmarks.quality

# Wheel and sdist into dist/, checked; nothing is uploaded.
release: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test,release]"
	$(BIN)/python -m pytest --quiet tests/test_release.py
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
