# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All sanity tests of ansible-test on the installed tarball; `make release-check` asks the second core too."""

from __future__ import annotations

import shutil
import sys

import pytest

from tests.integration.harness import run


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed, and ansible-test looks at what git knows")
def test_the_installed_tarball_is_sane(tmp_path):
    for words in (
        ("build", "--output-path", str(tmp_path)),
        ("install", "--offline", "--no-deps", "-p", str(tmp_path)),
    ):
        tarballs = map(str, tmp_path.glob("*.tar.gz"))
        done = run("ansible-galaxy", "collection", *words, *tarballs, ANSIBLE_COLLECTIONS_PATH=str(tmp_path))
        assert done.returncode == 0, done.stdout
    tree = tmp_path / "ansible_collections/ringrift/recovery"
    # On the others, test_python_versions.py and tests/unit/test_node_pythons.py load and run what is sent to nodes.
    done = run("tools/sanity.sh", ".venv", str(tree), "--python", "{}.{}".format(*sys.version_info), timeout=400)
    assert done.returncode == 0, done.stdout
    for name in ("ansible-doc", "import", "pylint", "runtime-metadata", "validate-modules"):
        assert f'Running sanity test "{name}"' in done.stdout, done.stdout
