# The two commands of the README are `make demo` and `make test`; each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIR ?=
FIGURES ?=
# What is compiled: every source with C types beside it.
SOURCES := pyproject.toml setup.py $(wildcard machport/*/*.pxd) $(wildcard $(patsubst %.pxd,%.py,$(wildcard machport/*/*.pxd)))

# What `make test-asan` runs, and where it builds: beside the checkout, whose own modules stay as they are.
TESTS ?= tests/ring tests/dataqueue
SANITIZED := $(CURDIR)/build/sanitized
REPORT := $(SANITIZED)/report
DIST := build/dist

# Interpreters for which `make dist-check` installs the source distribution.
PYTHONS ?= $(PYTHON)

.PHONY: demo test lint types unit pure test-asan dist-check changelog docs docs-serve bench bench-quick bench-page clean

demo: $(VENV)/ready
	$(BIN)/machport demo $(DIR)

test: lint types unit pure

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Two checkers, because users have either; what each must refuse is in tests/typing.
types: $(VENV)/ready
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/pyright -p tests/typing

unit: $(VENV)/ready
	$(BIN)/python -m pytest

# The kernel once more, interpreted from the same sources.
pure: $(VENV)/ready
	MACHPORT_PURE=1 $(BIN)/python -m pytest tests/abi tests/kernel tests/conformance

# The native part under gcc's AddressSanitizer and UndefinedBehaviorSanitizer.  Leaks are not looked for: what the
# interpreter never gives back would be all that is found.  A wild access stays the signal that tests at guard pages
# wait for.  Reports are files, because nobody may read what a child says or ask how it ended; one is a failure.
test-asan: $(SANITIZED)/ready
	rm -f $(REPORT).*
	cd $(SANITIZED)/site && LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" PYTHONPATH=$(SANITIZED)/site \
		PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:handle_segv=0:log_path=$(REPORT) \
		UBSAN_OPTIONS=print_stacktrace=1:log_path=$(REPORT) \
		$(CURDIR)/$(BIN)/python -m pytest -c $(CURDIR)/pyproject.toml $(addprefix $(CURDIR)/,$(TESTS)); \
	status=$$?; ! cat $(REPORT).* 2>/dev/null && exit $$status

# The sanitizer of undefined behaviour is linked into each module: as a library it takes some of its functions from that
# of addresses, and writes no file.
$(SANITIZED)/ready: $(VENV)/ready $(shell find machport chaos -name '*.py' -o -name '*.pxd')
	MACHPORT_SANITIZE=address,undefined LDFLAGS="-static-libubsan -Wl,--exclude-libs,ALL" PYTHONWARNINGS=ignore \
		$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(SANITIZED)/site .
	cp -r chaos $(SANITIZED)/site/
	touch $@

# What a stranger gets: the source distribution, built in an environment of its own, installed into new ones far from
# here, and tried.
dist-check: $(VENV)/ready
	rm -rf $(DIST)
	$(BIN)/python -m build --quiet --outdir $(DIST)
	set -e; for python in $(PYTHONS); do \
		place=$$(mktemp -d); trap 'rm -rf $$place' EXIT; \
		$$python -m venv $$place/venv; \
		$$place/venv/bin/python -m pip install --quiet $(DIST)/machport-*.tar.gz; \
		cp examples/killed_server.py $$place; cd $$place; \
		venv/bin/python -c 'import machport; assert machport.is_compiled(), machport.__file__'; \
		MACHPORT_SOCKET=$$place/daemon.sock venv/bin/python -W error killed_server.py; \
		venv/bin/machport --help >$$place/help; \
		cd $(CURDIR); rm -rf $$place; \
	done

# CHANGELOG.md gets what is in news/, which is then empty.
changelog: $(VENV)/ready
	$(BIN)/towncrier build --yes

# Needs no network once the tools are installed, and neither do the pages.
docs: $(VENV)/docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

docs-serve: $(VENV)/docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

$(VENV)/docs-ready: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

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

# By a path, not by a hook in the import system, through which no type checker looks.
$(VENV)/ready: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find machport -name '*.so' -delete
