#!/bin/sh
# Everything that `make test` runs, fast to slow; needs what `tools/setup.sh test` installs.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:/usr/sbin:/sbin:$PATH
export PATH
# What Python compiles is kept: the tests start it some ten thousand times.
unset PYTHONDONTWRITEBYTECODE

# Side by side, one core each; what the linters say comes when they have ended. No other lab may be up beside the demo's, because an
# ordinary user can prove nothing about the trainers of another user's lab.
said=$(mktemp)
trap 'rm -f "$said"' EXIT
tools/lint.sh >"$said" 2>&1 &
linters=$!
demo=0
python -m pytest -q tests/integration/test_demo.py || demo=$?
linted=0
wait "$linters" || linted=$?
cat "$said"
[ "$demo" -eq 0 ] || exit "$demo"
[ "$linted" -eq 0 ] || exit "$linted"
tools/second_core.sh
# Three at a time, as a lab waits as often as it works, file by file: each worker has a lab of its own. In the order of
# testpaths, as the long files have few tests and would come last.
# With the first ansible-core the main job is molecule's; the second has just done it in tests/integration/test_full_recovery.py.
done_already=
[ ! -d .venv-2.21 ] || done_already="--ignore tests/integration/test_full_recovery.py"
# shellcheck disable=SC2086 # it is two words or none
python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --ignore tests/integration/test_demo.py $done_already "$@"
