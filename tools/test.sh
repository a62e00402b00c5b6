#!/bin/sh
# Everything that `make test` runs, fast to slow; needs what `tools/setup.sh test` installs.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:/usr/sbin:/sbin:$PATH
export PATH

tools/lint.sh
tools/second_core.sh
# Alone, because an ordinary user can prove nothing about the trainers of another user's lab.
python -m pytest -q tests/integration/test_demo.py
# Two at a time, file by file: each worker has a lab of its own.
exec python -m pytest -q -n 2 --dist loadfile --ignore tests/integration/test_demo.py "$@"
