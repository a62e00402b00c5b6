#!/bin/sh
# Everything that `make test` runs, fast to slow; needs what `tools/setup.sh test` installs.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:/usr/sbin:/sbin:$PATH
export PATH

tools/lint.sh
tools/second_core.sh
exec python -m pytest -q "$@"
