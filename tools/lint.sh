#!/bin/sh
# Every linter, as CI runs them; needs what `tools/setup.sh test` installs.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
shellcheck tools/*.sh .ci/run
ruff check .
ruff format --check .
# The engines, and what a program imports, strictly; pyproject.toml names the files.
mypy
yamllint .
ansible-lint --strict --offline
antsibull-changelog lint
antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .
