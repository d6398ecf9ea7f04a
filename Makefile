# What is needed: make and Python 3.11 or newer. All else is installed below .envs/ by tools/envs.py.
PYTHON ?= python3
KEEP ?=
ARGS ?=
AIRFLOW ?= 3.3
# Minutes of CPU that `make test` may take; it takes 14 on a virtual machine with two cores of 2025, of which wall time
# would say less: others may use the machine, too.
MOST_CPU := 20
RAYS ?= 2.8 2.30 2.40 2.50 2.60

# What the shell says of some other Python would reach the tools before they can leave it out.
unexport $(filter PYTHON%,$(.VARIABLES))

MAIN := .envs/airflow-3.3/bin
UI := .envs/ui/bin
CHECK := $(PYTHON) tools/check_python.py
ENVS := $(CHECK) && exec $(PYTHON) tools/envs.py
NOX := $(CHECK) && $(PYTHON) tools/envs.py --tools && exec .envs/tools/bin/nox

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo ui ui-test envs test lint types docs check unit integration harness parity faults fuzz benchmarks
.PHONY: test-wheel test-3.3 test-2.11 matrix artefact resolve field upgrade samples format lock clean

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

test: ## What CI runs for each change: linters, types, documentation, the built wheel on Airflow 3.3 and 2.11
	@$(CHECK) && exec $(PYTHON) tools/cpu_limit.py $(MOST_CPU) $(MAKE) --no-print-directory PYTHON='$(PYTHON)' lint types docs test-wheel

test-wheel: ## Test the wheel on Airflow 3.3 and 2.11
	@$(CHECK) && exec $(PYTHON) tools/wheel_tests.py -- $(ARGS)

matrix: ## Test the wheel on every supported Airflow, with several Pythons and Rays (hours)
	@$(NOX) --tags matrix $(if $(ARGS),-- $(ARGS))

lint: ## Check style and formatting, and the workflows
	@$(ENVS) airflow-3.3
	$(MAIN)/ruff check
	$(MAIN)/ruff format --check
	$(MAIN)/pytest -q tests/unit/project/test_workflows.py

benchmarks: ## Compare with other ways to run Ray jobs; writes docs/benchmarks.md (an hour; ARGS=--quick: to try it)
	@$(ENVS) airflow-3.3 ray-2.60 bench-airflow bench-ours bench-astro bench-google bench-sdk
	$(PYTHON) benchmarks/run.py $(ARGS)

check: lint types unit ## What to run while you work: linters, types, and the tests that need nothing but Python

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
	$(MAIN)/pytest tests/unit -m 'not harness' --numprocesses=4 --dist=loadgroup $(ARGS)

integration: ## Run the tests on a real Ray head and in real Airflow processes
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest -m '(integration or airflow) and not faults and not field and not parity and not ui' $(ARGS)

harness: ## Test what the other tests rest on: their heads, their Airflows, their PostgreSQL
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest -m harness $(ARGS)

parity: ## Make the same submissions by Ray's own client and by the hook, and compare
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest tests/parity $(ARGS)

fuzz: ## Feed a hundred thousand odd answers, events and connections to the code (half an hour)
	@$(ENVS) airflow-3.3
	RAYJOBS_FUZZ_EXAMPLES=6500 $(MAIN)/pytest tests/unit/across_rooms/test_fuzz.py --timeout=3600 $(ARGS)

faults: ## Run the tests that kill, cut and restart things
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest -m faults tests/faults $(ARGS)

field: ## Break things in a distributed Airflow, then faults (ARGS=--slice: 20 minutes; AIRFLOW=2.11; KEEP=1: look at it)
	@$(ENVS) field-$(AIRFLOW) ray-2.60
	.envs/field-$(AIRFLOW)/bin/$(if $(KEEP),python -m tests.field,pytest tests/field $(ARGS))
	@$(if $(KEEP)$(ARGS),,$(MAKE) --no-print-directory PYTHON='$(PYTHON)' faults)

upgrade: ## Upgrade an Airflow from 2.11 to 3.3, version by version, with tasks that are deferred meanwhile
	@$(ENVS) airflow-2.11 airflow-3.0 airflow-3.1 airflow-3.2 airflow-3.3 ray-2.60
	$(MAIN)/pytest -m upgrade tests/upgrade $(ARGS)

test-3.3: ## Test the wheel on Airflow 3.3
	@$(CHECK) && exec $(PYTHON) tools/wheel_tests.py --on airflow-3.3 -- $(ARGS)

test-2.11: ## Test on 2.11 what depends on the Airflow version
	@$(CHECK) && exec $(PYTHON) tools/wheel_tests.py --on airflow-2.11 -- $(ARGS)

artefact: ## Build the sdist and the wheel into dist/, and test these: as files, and installed beside Airflow 3.3
	@$(CHECK) && exec $(PYTHON) tools/artefact.py $(ARGS)

resolve: ## See whether the wheel installs beside the most used providers, on each Airflow
	@$(CHECK) && exec $(PYTHON) tools/resolve.py $(ARGS)

samples: ## Record anew what each supported Ray answers, into tests/samples (RAYS=2.60: that one only; needs Python 3.11)
	@$(ENVS) airflow-3.3 $(RAYS:%=ray-%)
	$(MAIN)/python -m tests.samples.record $(RAYS:%=.envs/ray-%/bin/ray)

lock: ## Pin the newest allowed releases anew in requirements/*.txt
	@$(ENVS) --lock

clean: ## Remove the environments and all caches
	rm -rf .envs .nox .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
