#!/bin/sh
# The unit tests of the engines, and which branches of the engines none of them takes: `make coverage`.
# Needs what `tools/setup.sh test` installs; fails below the percentage of pyproject.toml. Words are handed on to pytest.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:/usr/sbin:/sbin:$PATH
export PATH
rm -f .coverage .coverage.*
coverage run -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder tests/unit/plugins/module_utils "$@"
coverage combine -q
coverage report
