# Every target sets up what it needs: on a fresh clone, `make train` is enough.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help train test test-all check format faults coverage bench docs
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s%s\n", $$1, $$2}' Makefile

train: .venv/installed  ## train on the embedded data; ARGS="model=l2q dataset=gowalla" adds options
	$(BIN)/python train.py $(ARGS)

test: .venv/installed-test .venv/installed-docs  ## run the tests but the slow ones, two at a time; ARGS="-k graph" adds options
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

test-all: .venv/installed-test .venv/installed-docs  ## run all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

check: .venv/installed-test  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-test  ## put the code into the form that check asks for
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

faults: .venv/installed-test  ## faults, injected for real, for hours; ARGS="--only kills --count 20 --seed 1"
	PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

COVERED := $(patsubst tests/%.py,.cache/coverage/%.done,$(sort $(wildcard tests/test_*.py)))

coverage: $(COVERED)  ## the branches of src that the tests reach but the slow ones; goes on where it was broken off
	$(BIN)/python tests/reached.py

.cache/coverage/%.done: tests/%.py $(shell find src -name '*.py') | .venv/installed-test .venv/installed-docs
	@mkdir -p $(@D)
	COVERAGE_FILE=$(CURDIR)/$(@D)/$* $(BIN)/python -m pytest -q -m "not slow" --cov --cov-report= $< || [ $$? = 5 ]
	@touch $@

bench: .venv/installed-test  ## run every script in benchmarks/
	set -e; for script in benchmarks/*.py; do $(BIN)/python $$script; done

docs: .venv/installed-docs  ## build the site into site/, without a network; a broken link fails
	$(BIN)/zensical build --strict --clean

# pip is the last thing that venv writes: where it is, the environment is whole.
$(BIN)/pip:
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install -r requirements.txt
	@touch $@

.venv/installed-test: requirements-test.txt .venv/installed
	$(BIN)/python -m pip install -r requirements-test.txt
	@touch $@

.venv/installed-docs: requirements-docs.txt | $(BIN)/pip
	$(BIN)/python -m pip install -r requirements-docs.txt
	@touch $@
