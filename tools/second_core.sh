#!/bin/sh
# The second supported ansible-core, 2.21 on Python 3.12 or newer: unit tests and one recovery on the lab; with the word `setup`
# its .venv-2.21 alone.
# The collections that we depend on come from the first environment, so that only ansible-core itself is installed twice.
set -eu
cd "$(dirname "$0")/.."

python=
for candidate in python3.12 python3.13 "$HOME"/.pyenv/versions/3.1[23]*/bin/python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    printf 'second_core: no Python 3.12 or newer here, so ansible-core 2.21 is not tested on this machine\n' >&2
    exit 0
fi
venv=.venv-2.21
stamp=$venv/.stamp-$(cksum <requirements/core-2.21.txt | cut -d' ' -f1)
if [ ! -e "$stamp" ]; then
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check -r requirements/core-2.21.txt
    touch "$stamp"
fi
[ "${1:-}" != setup ] || exit 0
collections=$(.venv/bin/python -c 'import ansible_collections, os; print(os.path.dirname(list(ansible_collections.__path__)[0]))')
ANSIBLE_COLLECTIONS_PATH=$PWD/playbooks/collections:$collections
export ANSIBLE_COLLECTIONS_PATH
PATH=$PWD/$venv/bin:$PATH
export PATH
# The engines know nothing of Ansible; what does is tested with it, torch being the oracle of the first leg only.
"$venv/bin/python" -m pytest -q -p no:cacheprovider -m "not torch" -n 3 --dist loadfile --no-loadscope-reorder \
    tests/integration/test_full_recovery.py tests/unit/plugins/action tests/unit/plugins/filter \
    tests/unit/plugins/inventory tests/unit/plugins/modules
