# The two commands of the README are `make demo` and `make test`; each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIR ?=
# What is compiled: every source with C types beside it.
SOURCES := pyproject.toml setup.py $(wildcard machport/*/*.pxd) $(wildcard $(patsubst %.pxd,%.py,$(wildcard machport/*/*.pxd)))

.PHONY: demo test lint types unit pure bench clean

demo: $(VENV)/ready
	$(BIN)/machport demo $(DIR)

test: lint types unit pure

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

unit: $(VENV)/ready
	$(BIN)/python -m pytest

# The kernel once more, interpreted from the same sources.
pure: $(VENV)/ready
	MACHPORT_PURE=1 $(BIN)/python -m pytest tests/abi tests/kernel tests/conformance

bench: $(VENV)/ready
	$(BIN)/python bench/kernel_embedded.py

$(VENV)/ready: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find machport -name '*.so' -delete
