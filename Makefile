# rayramid: `make demo` and `make test` each do everything on a fresh machine with Python 3.11 or newer.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-gpu sprites bench docs lint format audit sbom licences clean

PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Create .venv and install rayramid with all extras (about 7 GB; nothing when up to date)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "rayramid needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@echo "Installing rayramid and what it needs into $(VENV): about 7 GB, some minutes"
	$(BIN)/python -m pip install --progress-bar off --editable '.[dev,demo,shots]' | grep --line-buffered -E '^(Collecting|Installing|Successfully|ERROR)' | cut -c1-110
	@$(BIN)/rayramid --version && touch $@

demo: setup ## Real clips to a dataset, a trained model, an endpoint, an mp4 and a report, in OUT=runs/demo
	$(BIN)/rayramid demo --out $(OUT)

test: setup ## Run the tests (all but slow and gpu)
	$(BIN)/pytest

test-slow: setup ## Run the slow tests: kills, load, training to quality
	$(BIN)/pytest -m slow

test-gpu: setup ## Run the tests that need a CUDA device
	$(BIN)/pytest -m gpu

sprites: setup ## Train the shipped model of the sprites world again and judge it: seven hours of two cores
	$(BIN)/rayramid data run infra/specs/sprites-data.yaml --only shots
	$(BIN)/rayramid train infra/specs/sprites-vae.yaml
	$(BIN)/rayramid data run infra/specs/sprites-data.yaml --set encode.vae=runs/sprites/vae/vae
	$(BIN)/rayramid train infra/specs/sprites-train.yaml
	$(BIN)/rayramid train infra/specs/sprites-fine.yaml
	$(BIN)/rayramid train infra/specs/sprites-plan.yaml
	$(BIN)/rayramid weights export runs/sprites/plan runs/sprites/model --dtype bfloat16
	$(BIN)/rayramid eval infra/specs/eval-sprites.yaml --set model=runs/sprites/model

bench: setup ## Print the benchmarks' ratios, a JSON line each
	@for file in tests/benchmarks/*.py; do $(BIN)/python $$file; done

docs: setup ## Draw the figures, write the reference of specs, and build the docs as a site in site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/python -m docs.figures
	$(BIN)/python -m docs.specs
	$(BIN)/mkdocs build --strict --quiet

lint: setup ## Check format, lint, the floors and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

audit: setup ## Ask the OSV database for known weaknesses of what is installed (fails if it does not answer)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[audit]'
	$(BIN)/pip-audit --local --skip-editable --vulnerability-service osv

sbom: setup ## Write build/sbom.json: every installed package with its version and licence, as CycloneDX
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[audit]'
	@mkdir -p build
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json $(BIN)/python

licences: setup ## Write docs/licences.md; fails if a needed package is under the GPL alone
	$(BIN)/python infra/licences.py

clean: ## Remove what runs and tests left (keeps .venv)
	rm -rf runs build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
