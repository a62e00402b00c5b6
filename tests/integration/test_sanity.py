# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sanity tests of ansible-test on the installed tarball of this checkout; `make release-check` runs all of them."""

from __future__ import annotations

import shutil
import sys

import pytest

from tests.integration.harness import run

# tools/lint.sh looks for the same with ruff, yamllint and antsibull-changelog; pylint alone takes a minute.
LINTED = ("changelog", "pep8", "pylint", "yamllint")


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed, and ansible-test looks at what git knows")
def test_what_linters_do_not_look_for(tmp_path):
    for words in (
        ("build", "--output-path", str(tmp_path)),
        ("install", "--offline", "--no-deps", "-p", str(tmp_path)),
    ):
        tarballs = map(str, tmp_path.glob("*.tar.gz"))
        done = run("ansible-galaxy", "collection", *words, *tarballs, ANSIBLE_COLLECTIONS_PATH=str(tmp_path))
        assert done.returncode == 0, done.stdout
    tree = tmp_path / "ansible_collections/ringrift/recovery"
    # On the others, test_python_versions.py and tests/unit/test_node_pythons.py load and run what is sent to nodes.
    options = ["--python", "{}.{}".format(*sys.version_info)]
    options += [word for name in LINTED for word in ("--skip-test", name)]
    done = run("tools/sanity.sh", ".venv", str(tree), *options)
    assert done.returncode == 0, done.stdout
    for name in ("ansible-doc", "import", "runtime-metadata", "validate-modules"):
        assert f'Running sanity test "{name}"' in done.stdout, done.stdout
