#!/bin/sh
# The second supported ansible-core, 2.21 on Python 3.12 or newer: unit tests and one recovery on the lab; needs what
# `tools/setup.sh test 2.21` installs. Where it found no Python for it, there is nothing to do.
# The collections that we depend on come from the first environment, so that only ansible-core itself is installed twice.
set -eu
cd "$(dirname "$0")/.."

venv=.venv-2.21
[ -x $venv/bin/ansible-playbook ] || { echo "second_core: not tested, as there is no $venv" >&2; exit 0; }
collections=$(.venv/bin/python -c 'import ansible_collections, os; print(os.path.dirname(list(ansible_collections.__path__)[0]))')
ANSIBLE_COLLECTIONS_PATH=$PWD/playbooks/collections:$collections
export ANSIBLE_COLLECTIONS_PATH
PATH=$PWD/$venv/bin:$PATH
export PATH
# The engines know nothing of Ansible; what does is tested with it, torch being the oracle of the first leg only.
"$venv/bin/python" -m pytest -q -p no:cacheprovider -m "not torch" -n 3 --dist loadfile --no-loadscope-reorder \
    tests/integration/test_full_recovery.py tests/unit/plugins/action tests/unit/plugins/filter \
    tests/unit/plugins/inventory tests/unit/plugins/modules
