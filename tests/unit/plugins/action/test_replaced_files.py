# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import pathlib

import pytest

from tests.unit.ansible_tasks import run_tasks

NPZ = "/s/data/training/hex8_2p.npz"


@pytest.fixture
def report(tmp_path) -> pathlib.Path:
    published = {"changed": True, "path": NPZ, "previous": f"{NPZ}.previous", "sha256": "b" * 64}
    published["replaced"] = {"sha256": "a" * 64, "valid": True}
    about = {"schema": 1, "config": "hex8_2p", "check_mode": False, "run": "one", "at": "then", "fleet": {}}
    path = tmp_path / "20261128T104027Z-hex8_2p.json"
    path.write_text(json.dumps({**about, "nodes": {"n": {"publish_data": published}, "gone": {}}}))
    return path


def replaced(**options):
    return {"ringrift.recovery.replaced_files": {"config": "hex8_2p", **options}}


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_the_run_is_found(tmp_path, report, check, monkeypatch):
    # A relative path is meant as the shell would read it.
    monkeypatch.setenv("PWD", str(tmp_path))
    runs = ("", "one", "20261128T104027Z-hex8_2p", "20261128T104027Z-hex8_2p.json")
    tasks = [replaced(folder=str(tmp_path), run=run, hosts=["other"]) for run in runs]
    results, _printed = run_tasks(tmp_path, tasks, *check)
    assert len(results) == len(runs)
    for result in results:
        assert (result["changed"], result.get("failed", False)) == (False, False), result
        said = json.dumps(result)
        for words in ('"one"', str(report), f"{NPZ}.previous", "a" * 64, "left_out"):
            assert words in said, words


def test_no_report_is_an_error_with_a_way_on(tmp_path):
    (result,), _printed = run_tasks(tmp_path, [replaced(folder=str(tmp_path))])
    assert result["failed"]
    assert "-e run=FILE. Nothing was touched." in result["msg"]
