#!/bin/sh
# Everything that `make test` runs, fast to slow; needs what `tools/setup.sh test` installs.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:/usr/sbin:/sbin:$PATH
export PATH
# What Python compiles is kept: the tests start it some ten thousand times.
unset PYTHONDONTWRITEBYTECODE

# Side by side; what is said of the product as it is shipped comes when all of it has ended. No other lab may be up beside the
# demo's, because an ordinary user can prove nothing about the trainers of another user's lab.
shipped="tests/integration/test_release.py tests/integration/test_signed_release.py"
said=$(mktemp)
trap 'rm -f "$said"' EXIT
# shellcheck disable=SC2086 # two files
{ tools/lint.sh && python -m pytest -q $shipped; } >"$said" 2>&1 &
looking=$!
played=0
{ python -m pytest -q tests/integration/test_demo.py && tools/second_core.sh && tools/coverage.sh; } || played=$?
looked=0
wait "$looking" || looked=$?
cat "$said"
[ "$played" -eq 0 ] || exit "$played"
[ "$looked" -eq 0 ] || exit "$looked"
# Three at a time, as a lab waits as often as it works, file by file: each worker has a lab of its own. The engines have
# had their tests in tools/coverage.sh.
# With the first ansible-core the main job is molecule's; the second has just done it in tests/integration/test_full_recovery.py.
done_already=
for file in tests/integration/test_demo.py $shipped tests/unit/plugins/module_utils; do
    done_already="$done_already --ignore $file"
done
[ ! -x .venv-2.21/bin/ansible-playbook ] || done_already="$done_already --ignore tests/integration/test_full_recovery.py"
# shellcheck disable=SC2086 # options and paths
python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $done_already "$@"
