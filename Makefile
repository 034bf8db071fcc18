# Two commands for a fresh machine: "make demo" and "make test".

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints/newest.txt
ROUNDS ?= 20
BIN = $(VENV)/bin

.PHONY: demo demo-check test lint types docs bench soak dist clean

demo: $(VENV)/.demo
	$(BIN)/python -m rotarran.demo $(ARGS)

demo-check: $(VENV)/.demo
	$(BIN)/python -m rotarran.check

test: $(VENV)/.test
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.test
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

# the tests of faults, locks, workers and isolation, again and again
soak: $(VENV)/.test
	for round in $$(seq $(ROUNDS)); do \
	    echo "round $$round of $(ROUNDS)"; \
	    QAPLA_SOAK=1 $(BIN)/python -m pytest -q tests/faults tests/tasks tests/testing tests/app \
	        tests/migrations/test_lock.py tests/migrations/test_killed.py \
	        tests/cli/test_at_once.py tests/cli/test_start.py \
	        tests/backends/test_embedded_server.py || exit 1; \
	done

dist: $(VENV)/.test
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf $(VENV) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml requirements/demo.txt $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -r requirements/demo.txt
	touch $@

$(VENV)/.test: $(VENV)/.demo requirements/test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -r requirements/test.txt
	touch $@

$(VENV)/.bench: $(VENV)/.test requirements/bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -r requirements/bench.txt
	touch $@

$(VENV)/.docs: $(VENV)/.test requirements/docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -r requirements/docs.txt
	touch $@
