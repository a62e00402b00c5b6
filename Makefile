# Two commands do everything on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
.PHONY: help demo test lint build clean

help: ## show what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: ## break a training cluster in a box, diagnose it, recover it, prove it
	@tools/setup.sh lab
	@.venv/bin/python -m lab.demo

test: ## run every test
	@tools/setup.sh test
	@tools/test.sh

lint: ## run the linters alone
	@tools/setup.sh test
	@tools/lint.sh

build: ## build the collection's tarball
	@tools/setup.sh lab
	@mkdir -p build && .venv/bin/ansible-galaxy collection build --force --output-path build .

clean: ## remove what setup and build made
	rm -rf .venv .venv-2.21 build .ansible .pytest_cache .ruff_cache .hypothesis
