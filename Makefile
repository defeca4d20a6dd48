# Everything one does with a checkout. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test chaos lint bench soak package lock release-check clean setup-run setup-test setup-package
MAKEFLAGS += --no-print-directory --no-builtin-rules

# Always `python -m`: scripts of a venv break in folders whose path is long or has spaces.
PYTHON := .venv/bin/python

# As many tests at once as there are processors and one more, as some wait; four at most; one file's tests stay together,
# because they share what is dear to start. `make test WORKERS=0` runs them one after another.
WORKERS ?= $(shell n=$$(nproc); echo $$((n == 1 ? 0 : n < 4 ? n + 1 : 4)))
PYTEST := $(PYTHON) -m pytest -q -ra -n $(WORKERS) --dist loadfile --no-loadscope-reorder

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: setup-run ## back up and restore a small VM of its own, watched step by step
	@$(PYTHON) -m tests.demo.demo

test: setup-test lint ## lint and all tests
	@$(PYTEST)

# SEED and STEPS choose a story, SEEDS so many more of them; STORY is what a failure prints.
chaos: setup-test ## random sequences of writes, backups, kills, power cuts and damage: SEED= STEPS= SEEDS=
	@PYTHONPATH=backend:. $(PYTHON) -m tests.chaos $(if $(SEED),--seed $(SEED)) \
	  $(if $(STEPS),--steps $(STEPS)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(STORY),--story '$(STORY)') --verbose

lint: setup-test ## style, types, the dependency rule, shell scripts, PHP
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(PYTHON) -c 'from importlinter.cli import lint_imports_command as lint; lint()'
	@find . \( -name .git -o -name .venv -o -name '.*_cache' \) -prune -o -type f -exec awk \
	  'FNR == 1 && /^#!.*[\/ ](ba|da)?sh( |$$)/ { print FILENAME } { nextfile }' {} + \
	  | xargs -r -d '\n' shellcheck
	@echo "shellcheck: no complaints"
	@find webgui plugin \( -name '*.php' -o -name '*.page' \) -print0 \
	  | xargs -0 -r -n 1 php -d display_errors=stderr -l >/dev/null
	@echo "php: no complaints"

bench: setup-test ## measure speed and memory beside virtnbdbackup and QEMU's tools; tables, bench.json
	@$(PYTHON) -m tests.bench

soak: setup-test ## all tests with many more random cases; takes long
	@VMB_SOAK=1 $(PYTEST) --dist worksteal -o timeout=7200

package: setup-package ## the package for Unraid and what is published with it, in minutes
	@$(PYTHON) -m build.package

lock: setup-package ## have packages made of what Debian and PyPI offer today
	@$(PYTHON) -m build.lock

release-check: setup-package ## may what `make package` made be published
	@$(PYTHON) -m build.release_check

clean: ## remove what the other targets made, the virtual environment included
	rm -rf bench.json .cache dist ca_profile.xml vm-babysitter.plg vm-babysitter.xml .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache backend/*.egg-info
	find backend build tests -type d -name __pycache__ -prune -exec rm -rf {} +

setup-run:
	@build/setup.sh run

setup-test:
	@build/setup.sh test

setup-package:
	@build/setup.sh package
