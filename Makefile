# `make quick` measures, `make test` checks; both set up what they need in .venv first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: help quick test lint format bench docs leaderboard clean

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

quick: $(READY)  ## Run the main job: train, protect, attack, report (minutes)
	$(BIN)/ntbench run quick --jobs $(JOBS)

test: $(READY)  ## Run the tests
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadscope

lint: $(READY)  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Put the sources into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## Measure speed, and show today's figures beside the goals
	PYTHONPATH=tests $(BIN)/pytest tests/bench_*.py -p bench_table --benchmark-only --benchmark-disable-gc -s

docs: $(READY)  ## Build the pages of docs/ as a site
	$(BIN)/mkdocs build --strict

leaderboard: $(READY)  ## Publish runs/quick and render the committed leaderboard
	$(BIN)/ntbench publish runs/quick
	$(BIN)/ntbench leaderboard validate
	$(BIN)/ntbench leaderboard render

clean:  ## Remove the environment and caches, not the runs
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .benchmarks *.egg-info
