# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sanity tests of ansible-test on the installed tarball, with both supported cores.

pylint takes as long as all others together, so only the newer core's runs here; `make release-check` runs both.
"""

from __future__ import annotations

import shutil

import pytest

from tests.integration.harness import ROOT, run

NEWER = ROOT / ".venv-2.21/bin/ansible-test"


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed, and ansible-test looks at what git knows")
@pytest.mark.parametrize("venv", [".venv", ".venv-2.21"])
def test_the_installed_tarball_is_sane(installed, venv):
    python = ROOT / venv / "bin/python"
    if not python.exists():
        pytest.skip(f"there is no {venv}; tools/setup.sh test 2.21 makes it where a Python for it is")
    # On the others, test_python_versions.py and test_node_pythons.py load and run what is sent to nodes.
    asked = run(str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    tree = installed / "ansible_collections/ringrift/recovery"
    without = ["--skip-test", "pylint"] if venv == ".venv" and NEWER.exists() else []
    done = run("tools/sanity.sh", venv, str(tree), "--python", asked.stdout.strip(), *without, timeout=600)
    assert done.returncode == 0, done.stdout
    for name in {"ansible-doc", "import", "pylint", "runtime-metadata", "validate-modules"} - set(without):
        assert f'Running sanity test "{name}"' in done.stdout, done.stdout
