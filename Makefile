# SPDX-License-Identifier: Apache-2.0
# `make` lists what there is. Every target does its own set-up; a second run finds it done.

BIN := .venv/bin
DEMO_OPTIONS ?=
PYTEST_OPTIONS ?=
NOT_UNIT := tests --ignore=tests/unit
# Where the surroundings forbid it, each worker and each command that a test starts would compile all of the product.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test lint format unit integration e2e soak bench docs lock clean all-tools python-only

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: all-tools ## one appliance lives its whole life, in a directory of its own
	$(BIN)/coppice demo $(DEMO_OPTIONS)

# The unit tests run first and alone, so that the time they print is their own; two workers here as for the others.
test: all-tools lint ## everything that must hold: linters, types, all tests but the soak
	@echo "== unit tests"
	$(BIN)/pytest tests/unit -n 2 $(PYTEST_OPTIONS)
	@echo "== all other tests"
	$(BIN)/pytest $(NOT_UNIT) -m "not soak" -n 2 --dist loadgroup $(PYTEST_OPTIONS)

lint: python-only ## style, format, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/architecture_rules.py

format: python-only ## let ruff write the code anew
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

unit: python-only ## unit tests: no network, no subprocess
	$(BIN)/pytest tests/unit $(PYTEST_OPTIONS)

integration: all-tools ## contract and integration tests: real tools on this machine
	$(BIN)/pytest tests/contract tests/integration -m "not soak" $(PYTEST_OPTIONS)

e2e: all-tools ## the real command line through whole lives; boots images
	$(BIN)/pytest tests/e2e -m "not soak" $(PYTEST_OPTIONS)

soak: all-tools ## campaigns too long for every day
	$(BIN)/pytest tests -m soak --timeout 0 $(PYTEST_OPTIONS)

bench: all-tools ## run every benchmark
	@missed=; for script in $$(grep --files-with-matches -e '"--json"' benchmarks/*.py); do \
		echo "== $$script"; $(BIN)/python "$$script" || missed="$$missed $$script"; \
	done; [ -z "$$missed" ] || { echo "goals missed, or not run:$$missed"; exit 1; }

docs: python-only ## bring the generated tables of the reference pages up to date
	$(BIN)/python scripts/reference_pages.py

# uv lives in a throw-away environment: it is needed for nothing else. The lock names no package index.
lock: ## write the pinned packages in requirements/ anew
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	python3 -m venv "$$scratch/venv" && \
	"$$scratch/venv/bin/pip" install --quiet --disable-pip-version-check uv && \
	export UV_CUSTOM_COMPILE_COMMAND="make lock" && \
	options="--generate-hashes --universal --python-version 3.11 --no-emit-index-url --quiet" && \
	"$$scratch/venv/bin/uv" pip compile pyproject.toml --group dev $$options -o requirements/development.txt && \
	"$$scratch/venv/bin/uv" pip compile requirements/glance.in $$options -o requirements/glance.txt && \
	"$$scratch/venv/bin/uv" pip compile requirements/libvirt.in $$options -o requirements/libvirt.txt

clean: ## remove everything that is made, the virtual environment and the demo included
	rm -rf .venv .demo .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

all-tools:
	@scripts/setup

python-only:
	@scripts/setup python
