# You need make and Python 3.11 or later. tools/envs.py installs everything else below .envs/.
PYTHON ?= python3
KEEP ?=
ARGS ?=
AIRFLOW ?= 3.3
# The most minutes of CPU that `make test` may take. It takes 20 on a virtual machine with two cores of 2025. Wall time
# would depend on what else runs on the machine.
MOST_CPU := 30
RAYS ?= 2.8 2.30 2.40 2.50 2.60

# PYTHONPATH and the like, set in the shell for another Python, would affect the tools before they could ignore them.
unexport $(filter PYTHON%,$(.VARIABLES))

MAIN := .envs/airflow-3.3/bin
UI := .envs/ui/bin
CHECK := $(PYTHON) tools/check_python.py
ENVS := $(CHECK) && exec $(PYTHON) tools/envs.py
NOX := $(CHECK) && $(PYTHON) tools/envs.py --tools && exec .envs/tools/bin/nox

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo ui ui-test envs test lint types docs check unit integration harness parity faults fuzz benchmarks
.PHONY: test-wheel test-3.3 test-2.11 matrix artefact resolve field kube storage lineage observability serve upgrade
.PHONY: samples format lock clean

help: ## Show this help
	@echo 'Usage: make [PYTHON=python3.12] TARGET     (ARGS="..." is passed to pytest)'
	@sed -n 's/^\([a-z0-9.-]*\):.*## /  \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: ## Run an example DAG on a real Ray cluster on this machine (KEEP=1: keep the cluster up until Ctrl-C)
	@$(CHECK)
	@$(PYTHON) tools/demo.py $(if $(KEEP),--keep)

ui: ## Start an Airflow and a Ray cluster on this machine to click through, until Ctrl-C
	@$(ENVS) airflow-3.3 ray-2.60
	@$(MAIN)/python -m tests.ui

ui-test: ## Test both web pages in Chromium, and take the screenshots in docs/images (as root, installs Debian's Chromium)
	@$(ENVS) ui ray-2.60
	@$(PYTHON) tools/chromium.py
	$(UI)/pytest -m ui tests/ui $(ARGS)

envs: ## Make or update all environments
	@$(ENVS)

test: ## Run what CI runs for each change: linters, types, documentation, tests of the wheel on Airflow 3.3 and 2.11
	@$(CHECK) && exec $(PYTHON) tools/cpu_limit.py $(MOST_CPU) $(MAKE) --no-print-directory PYTHON='$(PYTHON)' lint types docs test-wheel

test-wheel: ## Test the wheel on Airflow 3.3 and 2.11
	@$(CHECK) && exec $(PYTHON) tools/wheel_tests.py -- $(ARGS)

matrix: ## Test the wheel on every supported Airflow, with several Pythons and Rays (hours)
	@$(NOX) --tags matrix $(if $(ARGS),-- $(ARGS))

lint: ## Check style, formatting and the workflows
	@$(ENVS) airflow-3.3
	$(MAIN)/ruff check
	$(MAIN)/ruff format --check
	$(MAIN)/pytest -q tests/unit/project/test_workflows.py

benchmarks: ## Compare with other ways to run Ray jobs; writes docs/benchmarks.md (90 minutes; ARGS=--quick, or ARGS="--only NAME")
	@$(ENVS) airflow-3.3 ray-2.60 bench-airflow bench-ours bench-astro bench-google bench-sdk
	$(PYTHON) benchmarks/run.py $(ARGS)

check: lint types unit ## Run linters, types, and the tests that need only Python

format: ## Format the code and apply automatic fixes
	@$(ENVS) airflow-3.3
	$(MAIN)/ruff check --fix
	$(MAIN)/ruff format

types: ## Check types, strictly, and what type checkers and editors see of the provider
	@$(ENVS) airflow-3.3 pyright
	$(MAIN)/mypy
	.envs/pyright/bin/pyright
	$(MAIN)/pytest -q tests/typing

docs: ## Build the documentation into build/docs/; warnings are errors
	@$(ENVS) docs
	.envs/docs/bin/sphinx-build --fail-on-warning --keep-going --quiet --fresh-env -b html -d build/doctrees docs build/docs
	@echo 'The documentation is in build/docs/index.html'

unit: ## Run the tests that need only Python
	@$(ENVS) airflow-3.3
	$(MAIN)/pytest tests/unit -m 'not harness' --numprocesses=4 --dist=loadgroup $(ARGS)

integration: ## Run the tests on a real Ray head and in real Airflow processes
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest -m '(integration or airflow) and not faults and not field and not parity and not ui and not kube and not storage and not lineage and not observability and not serve' $(ARGS)

harness: ## Test the test harness: its Ray heads, Airflows and PostgreSQL
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest -m harness $(ARGS)

parity: ## Submit the same jobs through Ray's own client and through the hook, and compare them
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest tests/parity $(ARGS)

fuzz: ## Run the code on a hundred thousand random responses, events and connections (half an hour)
	@$(ENVS) airflow-3.3
	RAYJOBS_FUZZ_EXAMPLES=6500 $(MAIN)/pytest tests/unit/across_rooms/test_fuzz.py --timeout=3600 $(ARGS)

faults: ## Run the tests that kill processes, cut connections and restart heads
	@$(ENVS) airflow-3.3 ray-2.60
	$(MAIN)/pytest -m faults tests/faults tests/airflow/test_job_events.py $(ARGS)

field: ## Inject faults into a distributed Airflow, then run `faults` (ARGS=--slice: 20 minutes; AIRFLOW=2.11; KEEP=1: only start it)
	@$(ENVS) field-$(AIRFLOW) ray-2.60
	.envs/field-$(AIRFLOW)/bin/$(if $(KEEP),python -m tests.field,pytest tests/field $(ARGS))
	@$(if $(KEEP)$(ARGS),,$(MAKE) --no-print-directory PYTHON='$(PYTHON)' faults)

kube: ## Test what makes clusters with KubeRay, on a real Kubernetes API server with a played KubeRay (AIRFLOW=2.11)
	@$(ENVS) kube-$(AIRFLOW) ray-2.60
	.envs/kube-$(AIRFLOW)/bin/pytest -m kube tests/kube $(ARGS)

storage: ## Test packages in object storage: up to 400 MB to a real Ray head, by file://, and servers with the APIs of S3 and GCS
	@$(ENVS) storage-3.3 storage-ray ray-2.60
	.envs/storage-3.3/bin/pytest -m storage tests/storage $(ARGS)

lineage: ## Test OpenLineage's events of real jobs, and the parent run that these read (AIRFLOW=2.11)
	@$(ENVS) lineage-$(AIRFLOW) ray-2.60
	.envs/lineage-$(AIRFLOW)/bin/pytest tests/lineage tests/unit/observability tests/unit/operators/test_lineage.py $(ARGS)

observability: ## Test the metrics and traces that a real Airflow sends to a StatsD server and a collector (AIRFLOW=2.11)
	@$(ENVS) observability-$(AIRFLOW) ray-2.60
	.envs/observability-$(AIRFLOW)/bin/pytest -m observability tests/observability $(ARGS)

serve: ## Deploy applications of Ray Serve to a real head, and roll broken ones back (AIRFLOW=2.11)
	@$(ENVS) airflow-$(AIRFLOW) serve-ray
	.envs/airflow-$(AIRFLOW)/bin/pytest -m serve tests/serve $(ARGS)

upgrade: ## Upgrade an Airflow from 2.11 to 3.3, version by version, while tasks are deferred
	@$(ENVS) airflow-2.11 airflow-3.0 airflow-3.1 airflow-3.2 airflow-3.3 ray-2.60
	$(MAIN)/pytest -m upgrade tests/upgrade $(ARGS)

test-3.3: ## Test the wheel on Airflow 3.3
	@$(CHECK) && exec $(PYTHON) tools/wheel_tests.py --on airflow-3.3 -- $(ARGS)

test-2.11: ## Test the wheel on Airflow 2.11: only what depends on the Airflow version
	@$(CHECK) && exec $(PYTHON) tools/wheel_tests.py --on airflow-2.11 -- $(ARGS)

artefact: ## Build the sdist and the wheel into dist/, and test them: as files, and installed beside Airflow 3.3
	@$(CHECK) && exec $(PYTHON) tools/artefact.py $(ARGS)

resolve: ## Check that the wheel can be installed together with the most used providers, on each Airflow
	@$(CHECK) && exec $(PYTHON) tools/resolve.py $(ARGS)

samples: ## Record the responses of each supported Ray into tests/samples (RAYS=2.60: only that one; needs Python 3.11)
	@$(ENVS) airflow-3.3 $(RAYS:%=ray-%)
	$(MAIN)/python -m tests.samples.record $(RAYS:%=.envs/ray-%/bin/ray)

lock: ## Update the pins in requirements/*.txt to the newest allowed releases
	@$(ENVS) --lock

clean: ## Remove the environments and all caches
	rm -rf .envs .nox .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
