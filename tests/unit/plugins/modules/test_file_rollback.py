# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import sha256_file
from ansible_collections.ringrift.recovery.plugins.modules import file_rollback


def write(path: pathlib.Path, seed: int) -> str:
    features = np.random.default_rng(seed).integers(0, 2, (120, 4, 9, 9)).astype("<f4")
    np.savez_compressed(path, features=features, values=np.zeros(120, "<f4"), board_type=np.asarray("hex8"))
    return sha256_file(str(path))


@pytest.fixture
def options(tmp_path) -> dict:
    path = tmp_path / "hex8_2p.npz"
    after = write(path, 2)
    before = write(tmp_path / "old.npz", 1)
    os.rename(tmp_path / "old.npz", f"{path}.previous")
    entry = {"path": str(path), "kind": "training_file", "before": before, "after": after, "kept": f"{path}.previous"}
    return {"config": "hex8_2p", "files": [entry]}


@pytest.fixture
def run(capsys):
    def call(options: dict, **more) -> dict:
        with patch_module_args({**options, **more}), pytest.raises(SystemExit):
            file_rollback.main()
        return json.loads(capsys.readouterr().out)

    return call


def tree(folder: pathlib.Path) -> dict:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_four_runs(run, options, tmp_path):
    """Check, run, check again, run again: changed, changed, ok, ok."""
    entry = options["files"][0]
    before = tree(tmp_path)
    predicted = run(options, _ansible_check_mode=True, _ansible_diff=True)
    assert tree(tmp_path) == before
    done = run(options, _ansible_diff=True)
    assert predicted["changed"] is done["changed"] is True
    assert {**predicted, "invocation": None} == {**done, "invocation": None}
    assert done["diff"]["before"] == {entry["path"]: entry["after"], entry["kept"]: entry["before"]}
    assert done["diff"]["after"] == {entry["path"]: entry["before"], entry["kept"]: entry["after"]}
    after = tree(tmp_path)
    assert after[f"{pathlib.Path(entry['path']).name}"][0] == before["hex8_2p.npz.previous"][0]
    for check in (True, False):
        again = run(options, _ansible_check_mode=check, _ansible_diff=True)
        assert (again["changed"], again["files"][0]["state"]) == (False, "already")
        assert again["diff"] == {"before": {}, "after": {}}
        assert tree(tmp_path) == after


def test_every_key_is_documented(run, options):
    documented = yaml.safe_load(file_rollback.RETURN)
    result = run(options)
    assert set(result) - {"changed", "invocation"} == set(documented)
    assert set(result["files"][0]) == set(documented["files"]["contains"])


def test_what_cannot_be_put_back_fails_no_other(run, options, tmp_path):
    other = {**options["files"][0], "path": str(tmp_path / "x.npz"), "kept": str(tmp_path / "x.npz.previous")}
    result = run({**options, "files": [other, *options["files"]]})
    assert [entry["state"] for entry in result["files"]] == ["refused", "put_back"]
    assert "is not there any more" in result["files"][0]["reason"]
    assert run({**options, "files": []})["changed"] is False


def test_damaged_only_by_force(run, options):
    options["files"][0]["problem"] = "truncated"
    left = run(options)
    assert (left["changed"], left["files"][0]["state"]) == (False, "left")
    assert run(options, force=True)["files"][0]["state"] == "put_back"


def test_a_config_that_is_none(run, options):
    result = run({**options, "config": "x"})
    assert result["failed"] is True
    assert "hex8_2p" in result["msg"]
