# Every target sets up what it needs. make help lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# Where it is set, every process compiles all that it imports: each start takes four times as long.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
# The first Python on the path that the project supports; or say which: make demo PYTHON=python3.12
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	$$name -c '$(SUPPORTED)' 2>/dev/null && echo $$name && break; done)

.PHONY: help
help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: setup
setup: $(VENV)/.installed ## Make the virtual environment

$(VENV)/.installed: pyproject.toml layers/common/requirements.txt
	@$(if $(PYTHON),true,echo "ml-service needs Python 3.11, 3.12 or 3.13 and found none of them on PATH\
	 (python3 here: $$(python3 --version 2>&1)). Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.13" >&2; exit 1)
	@$(PYTHON) -c '$(SUPPORTED)' || { echo "ml-service needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[local,dev]'
	@touch $@

.PHONY: demo
demo: setup ## Run one job of every subject through the whole system, on this machine
	@$(BIN)/ml-service demo

.PHONY: local
local: setup ## Start local mode on port 4566
	@$(BIN)/ml-service local

# In the order of their names, the files with long tests come first, and the workers end together.
# Three of them for two cores: the tests of whole stages wait for a quarter of their time.
.PHONY: test
test: setup ## Run every test
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: bench
bench: setup ## Measure throughput and latency of the system itself
	@$(BIN)/ml-service bench

STAGE ?= local
.PHONY: smoke
smoke: setup ## Send a job through a running stage and check every hop: make smoke STAGE=dev
	@$(BIN)/ml-service smoke $(if $(filter local,$(STAGE)),,--stage $(STAGE))

.PHONY: clients
clients: setup ## Run other people's ComfyUI clients against the simulator (needs npm)
	INDEPENDENT_CLIENTS=1 $(BIN)/python -m pytest -q tests/e2e/test_independent_clients.py

.PHONY: soak
soak: setup ## Run 1,000 prompts through one faulty ComfyUI of each version; flood a fleet till it grows and shrinks
	$(BIN)/python -m pytest -q -s -m soak

.PHONY: faults
faults: setup ## Prove every row of the list of faults and bad inputs, and print the table
	$(BIN)/python -m pytest -q -m long
	@$(BIN)/python -m scripts.print_fault_table -n 2 --dist loadfile

.PHONY: alarms
alarms: setup ## Break a stage until each of its alarms rings, and mend it until each is quiet
	$(BIN)/python -m pytest -q -m long -k ring tests/integration/test_alarms_ring.py tests/integration/test_run_job.py

.PHONY: chaos
chaos: setup ## Run 1,000 jobs while instances and functions are killed at random
	@$(BIN)/ml-service chaos

.PHONY: check
check: setup ## Format, lint, types, the dependency rule and the workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/ml-service workflows check

.PHONY: build
build: setup .venv-sam/.installed .venv-checks/.installed ## Check templates and state machine, build what sam deploy uploads
	$(BIN)/python -m scripts.build_application

# The SAM command line's pins contradict ours, hence an environment of its own.
.venv-sam/.installed: Makefile
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-sam
	$(BIN)/uv pip install --quiet --python .venv-sam aws-sam-cli==1.170.0
	@touch $@

# So do those of the programs that look for what is unsafe.
.venv-checks/.installed: Makefile
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-checks
	$(BIN)/uv pip install --quiet --python .venv-checks checkov==3.3.30 pip-audit==2.10.1
	@touch $@

.PHONY: emulate
emulate: setup .venv-sam/.installed .venv-ministack/.installed ## Run sam deploy of both templates on another AWS emulator
	$(BIN)/python -m scripts.emulate_deployment

.PHONY: count
count: setup ## Count on local mode what jobs and idle minutes use, into costs/counts.yaml
	$(BIN)/python -m scripts.count_calls

.PHONY: costs
costs: setup ## Write the cost tables of docs/deploy.md from counts, assumptions and prices
	@$(BIN)/python -m scripts.print_costs --write

# It pins a botocore of its own.
.venv-ministack/.installed: Makefile
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-ministack
	$(BIN)/uv pip install --quiet --python .venv-ministack 'ministack[full]==1.5.33'
	@touch $@

.PHONY: format
format: setup ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
