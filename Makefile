# Two commands do everything on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
.PHONY: help demo test coverage soak faults lint bench docs build release-check clean

help: ## show what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: ## break a training cluster in a box, diagnose it, recover it, prove it
	@tools/setup.sh lab
	@.venv/bin/python -m lab.demo

test: ## run every test
	@tools/setup.sh test 2.21 docs release
	@tools/test.sh

coverage: ## run the unit tests of the engines and say which branches none of them takes; fails below 95 %
	@tools/setup.sh test
	@tools/coverage.sh $(ARGS)

soak: ## run the random tests in full count; SOAK_SEED=… repeats a run
	@tools/setup.sh test
	@PATH=$$PWD/.venv/bin:/usr/sbin:/sbin:$$PATH SOAK=1 .venv/bin/python -m pytest -q -rP -n 2 --dist loadfile -m soak

faults: ## break recoveries in every known way, at every place; resumable, as root, takes more than an hour
	@tools/setup.sh test
	@PATH=$$PWD/.venv/bin:/usr/sbin:/sbin:$$PATH .venv/bin/python -m tests.faults $(ARGS)

lint: ## run the linters alone
	@tools/setup.sh test
	@tools/lint.sh

bench: ## measure the verification of files side by side with other tools (benchmarks/README.md)
	@tools/setup.sh benchmarks
	@.venv-benchmarks/bin/python benchmarks/files.py $(ARGS)

docs: ## build the site of all pages and modules in build/docs/html
	@tools/setup.sh docs
	@tools/docs.sh

build: ## build the collection's tarball
	@tools/setup.sh lab
	@mkdir -p build && .venv/bin/ansible-galaxy collection build --force --output-path build .

release-check: ## prove that the tarball is one that others would install (docs/releasing.md)
	@tools/setup.sh test 2.21 release
	@tools/release_check.sh $(ARGS)

clean: ## remove what setup and build made
	rm -rf .venv .venv-2.21 .venv-benchmarks .venv-docs .venv-release .venv-nodes build .ansible .pytest_cache .ruff_cache .hypothesis .mypy_cache
