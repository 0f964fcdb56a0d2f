# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
SETUP = $(PYTHON) -m scripts.setup
BIN = .venv/bin

.DEFAULT_GOAL := help

help:  ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*##/  \1 \t/p' $(MAKEFILE_LIST) | expand -t 14

env:  ## make .venv, with the command in it, from requirements.lock
	@$(SETUP) env

tools:  ## find or make all that the tests need: Temporal, an engine, images, packages
	@$(SETUP) tests

demo: env  ## deploy an example, release it again under load, and see a bad release rolled back
	@$(BIN)/python -m scripts.demo up

demo-down:  ## stop what the demo started and remove what it made
	@$(BIN)/python -m scripts.demo down

stack-secrets: env  ## make what docker-compose.yml needs: secrets and settings, in .stack and .env
	@$(BIN)/python -m scripts.stack

test: tools  ## run every test; ARGS are for pytest
	@$(BIN)/python -m pytest $(ARGS)

lint: env  ## check style, types and the arrows between the packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: env  ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

image:  ## build the worker's image
	@$(SETUP) image

lock: env  ## compile the locks from pyproject.toml anew
	@$(SETUP) lock

bench: tools  ## measure, and write docs/performance.md
	@$(BIN)/python -m benchmarks $(ARGS)

soak: tools  ## deploy a thousand times while calls fail, and write docs/reliability.md
	@$(BIN)/python -m benchmarks.soak $(ARGS)

.PHONY: help env tools demo demo-down stack-secrets test lint format image lock bench soak
