#!/bin/sh
# The unit tests of the engines, and which branches of the engines none of them takes: `make coverage`, and a part of `make test`.
# Needs what `tools/setup.sh test` installs; fails where too many are left. Words are handed on to pytest.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:/usr/sbin:/sbin:$PATH
export PATH
# It cannot count the branches of the tests themselves, and is not asked to.
PYTHONWARNINGS="ignore:Unable to activate pytest branch coverage:RuntimeWarning"
export PYTHONWARNINGS
least=95
mkdir -p build
python -m slipcover --json --out build/coverage.json -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder \
    tests/unit/plugins/module_utils "$@"
# Of the finished count: what --fail-under of the run itself asks has lost what the three have counted.
enough=0
python -m slipcover --merge build/coverage.json --out build/coverage.json --fail-under $least >build/coverage.txt || enough=$?
# At the end the names of the columns again, and the sum.
sed -n -e '2p;$p' build/coverage.txt
[ "$enough" -eq 0 ] || {
    echo "coverage: lines and branches together are below $least %. Each that is missed: build/coverage.txt" >&2
    exit 1
}
