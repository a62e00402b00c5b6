#!/bin/sh
# Every linter, as CI runs them; needs what `tools/setup.sh test` installs.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
ruff check .
ruff format --check .
# What a program imports is checked as strictly as it may check itself.
mypy --strict plugins/plugin_utils/runner.py
yamllint .
ansible-lint --strict --offline
antsibull-changelog lint
antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .
