# What is needed: make and Python 3.11 or newer. All else is installed below .envs/ by tools/envs.py.
PYTHON ?= python3
KEEP ?=
ARGS ?=
RAYS ?= 2.8 2.30 2.40 2.50 2.60

MAIN := .envs/airflow-3.3/bin
OLD := .envs/airflow-2.11/bin
UI := .envs/ui/bin
CHECK := $(PYTHON) tools/check_python.py
ENVS := $(CHECK) && exec $(PYTHON) tools/envs.py

.DEFAULT_GOAL := help
.PHONY: help demo ui ui-test envs test lint types docs unit integration parity faults benchmarks
.PHONY: test-3.3 test-2.11 samples format lock clean

help: ## Show this help
	@echo 'Usage: make [PYTHON=python3.12] TARGET     (pytest gets what ARGS="..." holds)'
	@sed -n 's/^\([a-z0-9.-]*\):.*## /  \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: ## Run an example DAG on a real Ray cluster on this machine (KEEP=1: keep the cluster up until Ctrl-C)
	@$(CHECK)
	@$(PYTHON) tools/demo.py $(if $(KEEP),--keep)

ui: ## Start an Airflow and a Ray cluster on this machine to click through, until Ctrl-C
	@$(ENVS) airflow-3.3 ray-2.60
	@$(MAIN)/python -m tests.ui

ui-test: ## Click through them in Chromium, and take the screenshots in docs/images (as root, installs Debian's Chromium)
	@$(ENVS) ui ray-2.60
	@$(PYTHON) tools/chromium.py
	$(UI)/pytest -m ui tests/ui $(ARGS)

envs: ## Make or update all environments
	@$(ENVS)

test: envs lint types docs test-3.3 test-2.11 ## All that CI runs: linters, types, documentation, tests on Airflow 3.3, then on 2.11

lint: ## Check style and formatting
	@$(ENVS) airflow-3.3
	$(MAIN)/ruff check
	$(MAIN)/ruff format --check

benchmarks: ## Compare with other ways to run Ray jobs; writes docs/benchmarks.md (half an hour; ARGS=--quick: to try it)
	@$(ENVS) bench-airflow bench-ours bench-astro bench-google bench-sdk
	$(PYTHON) benchmarks/run.py $(ARGS)

format: ## Format the code and mend what can be mended
	@$(ENVS) airflow-3.3
	$(MAIN)/ruff check --fix
	$(MAIN)/ruff format

types: ## Check types, strictly
	@$(ENVS) airflow-3.3
	$(MAIN)/mypy

docs: ## Build the documentation into build/docs/; a warning is an error
	@$(ENVS) docs
	.envs/docs/bin/sphinx-build --fail-on-warning --keep-going --quiet --fresh-env -b html -d build/doctrees docs build/docs
	@echo 'The documentation is in build/docs/index.html'

unit: ## Run the tests that need nothing but Python
	@$(ENVS) airflow-3.3
	$(MAIN)/pytest -m 'not integration and not airflow and not faults and not ui' $(ARGS)

integration: ## Run the tests on a real Ray head and in real Airflow processes
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest -m '(integration or airflow) and not faults and not parity and not ui' $(ARGS)

parity: ## Make the same submissions by Ray's own client and by the hook, and compare
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest tests/parity $(ARGS)

faults: ## Run the tests that kill, cut and restart things
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest -m faults tests/faults $(ARGS)

test-3.3: ## Run unit and integration tests on Airflow 3.3
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest -m 'not faults and not parity and not ui' $(ARGS)

test-2.11: ## Run what depends on the Airflow version on 2.11 (all but what needs Ray alone)
	@$(ENVS) airflow-2.11 ray-2.60
	$(OLD)/pytest -m '(airflow or not integration) and not faults and not ui' --ignore tests/airflow/test_harness.py $(ARGS)

samples: ## Record anew what each supported Ray answers, into tests/samples (RAYS=2.60: that one only; needs Python 3.11)
	@$(ENVS) airflow-3.3 $(RAYS:%=ray-%)
	$(MAIN)/python -m tests.samples.record $(RAYS:%=.envs/ray-%/bin/ray)

lock: ## Pin the newest allowed releases anew in requirements/*.txt
	@$(ENVS) --lock

clean: ## Remove the environments and all caches
	rm -rf .envs .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
