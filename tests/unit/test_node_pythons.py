# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent to a node loads there, with the standard library alone; `make release-check` also runs its tests."""

from __future__ import annotations

import types

import pytest

from tests import node_pythons

FOUND = node_pythons.interpreters()


def test_only_what_is_sent_is_tested_there():
    """What an action plugin or a filter needs stays on the controller, also where a module has its documentation."""
    engines = node_pythons.sent()
    assert {"_lock", "_npz", "_checkpoint", "_node_evidence", "_proc"} <= engines
    assert not {"_p2p", "_watch", "_verdict", "_report_html", "_options"} & engines
    files = {path.rpartition("/")[2] for path in node_pythons.tests_of_what_is_sent()}
    assert {"test_lock_file.py", "test_lock_soak.py", "test_hostile_files.py"} <= files
    assert not {"test_p2p.py", "test_verdict.py"} & files


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_three_pythons_share_the_cases_and_none_is_without(count, monkeypatch):
    monkeypatch.setattr(node_pythons, "LATER", ())
    names = [f"test_x.py::test_a[{number}]" for number in range(count)] + ["test_x.py::test_b"]
    items = [types.SimpleNamespace(nodeid=name) for name in names]
    shares = [[item.nodeid for item in node_pythons.share(items, version)] for version in ("3.9", "3.10", "3.11")]
    assert {name for share in shares for name in share} == set(names)
    for share in shares:
        assert names[-1] in share
        assert len(share) - 1 in {max(1, count // node_pythons.SHARE), -(-count // node_pythons.SHARE)}
        assert share == sorted(share, key=names.index)


def test_the_oldest_has_every_test_and_the_later_ones_share_them():
    items = [types.SimpleNamespace(nodeid=f"test_x.py::test_{number}") for number in range(10)]
    shares = {version: node_pythons.share(items, version) for version in node_pythons.VERSIONS}
    oldest, *later = shares.values()
    assert oldest == items
    assert [len(share) for share in later] == [2] * 5
    assert {item.nodeid for share in later for item in share} == {item.nodeid for item in items}


@pytest.mark.parametrize("version", node_pythons.VERSIONS)
def test_everything_loads_on_the_python_of_a_node(version, tmp_path):
    if version not in FOUND:
        pytest.skip(f"there is no Python {version} on this machine")
    done = node_pythons.load(FOUND[version], tmp_path)
    assert done.returncode == 0, done.stderr
    plugins = node_pythons.ROOT / "plugins"
    count = sum(len(list((plugins / folder).glob("*.py"))) for folder in ("module_utils", "modules"))
    assert done.stdout == f"{count} files loaded\n"
