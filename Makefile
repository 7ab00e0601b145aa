# The two commands of the README are `make demo` and `make test`; each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIR ?=
FIGURES ?=
# What is compiled: every source with C types beside it.
SOURCES := pyproject.toml setup.py $(wildcard machport/*/*.pxd) $(wildcard $(patsubst %.pxd,%.py,$(wildcard machport/*/*.pxd)))

.PHONY: demo test lint types unit pure bench bench-quick bench-page clean

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

# Everything that docs/benchmarks.md has, or FIGURES="roundtrip death".
bench: $(VENV)/bench-ready
	$(BIN)/python -m bench --out build/bench.jsonl $(FIGURES)

bench-quick: $(VENV)/bench-ready
	$(BIN)/python -m bench --quick $(FIGURES)

bench-page: $(VENV)/bench-ready
	$(BIN)/python -m bench --out build/bench.jsonl --page docs/benchmarks.md

$(VENV)/bench-ready: $(VENV)/ready
	$(BIN)/python -m bench.install
	mkdir -p build
	touch $@

$(VENV)/ready: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find machport -name '*.so' -delete
