# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Galaxy says of the tarball, the site of the documentation, and known vulnerabilities of what is installed."""

from __future__ import annotations

import re

import pytest

from tests.integration.harness import ROOT, run


def needs(name: str) -> None:
    if not (ROOT / f".venv-{name}").is_dir():
        pytest.skip(f"there is no .venv-{name}; tools/setup.sh {name} makes it")


def test_galaxy_takes_the_tarball_without_a_warning(tarball):
    needs("release")
    # tools/lint.sh has linted the same files, and more.
    done = run("tools/importer.sh", str(tarball), LINT="False")
    assert done.returncode == 0, done.stdout
    assert "Importer processing completed successfully" in done.stdout, done.stdout


def test_the_site_is_built_without_a_warning_and_has_every_page():
    needs("docs")
    done = run("tools/docs.sh")
    assert done.returncode == 0, done.stdout
    site = ROOT / "build/docs/html"
    pages = [path.relative_to(ROOT) for path in ROOT.glob("docs/**/*.md")]
    assert not [page for page in pages if not (site / page).with_suffix(".html").is_file()]
    modules = {path.stem for path in (ROOT / "plugins/modules").glob("*.py")}
    assert modules == {path.stem[: -len("_module")] for path in site.glob("reference/*_module.html")}


def test_nothing_that_is_pinned_or_installed_has_a_known_vulnerability():
    needs("release")
    done = run(".venv-release/bin/python", "tools/audit.py", timeout=600)
    if done.returncode == 3:
        # Nothing is proven; release-check ends with 3 then.
        pytest.skip(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout
    assert re.search(r"^audit: \d+ packages, 0 known vulnerabilities$", done.stdout, re.M), done.stdout
