# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import shutil
import stat

import numpy as np
import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import sha256_file
from ansible_collections.ringrift.recovery.plugins.modules import npz_publish


def write(path: pathlib.Path, samples: int = 120, seed: int = 1) -> pathlib.Path:
    features = np.random.default_rng(seed).integers(0, 2, (samples, 4, 9, 9)).astype("<f4")
    np.savez_compressed(path, features=features, values=np.zeros(samples, "<f4"), board_type=np.asarray("hex8"))
    return path


@pytest.fixture
def options(tmp_path) -> dict:
    src = write(tmp_path / "incoming.npz", seed=2)
    return {"config": "hex8_2p", "src": str(src), "path": str(tmp_path / "hex8_2p.npz")}


@pytest.fixture
def run(capsys):
    def call(options: dict, **more) -> dict:
        with patch_module_args({**options, **more}), pytest.raises(SystemExit):
            npz_publish.main()
        return json.loads(capsys.readouterr().out)

    return call


def tree(folder: pathlib.Path) -> dict:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_four_runs(run, options, tmp_path):
    """Check, run, check again, run again: changed, changed, ok, ok."""
    write(pathlib.Path(options["path"]), samples=110, seed=3)
    kept = shutil.copy(options["src"], tmp_path / "kept.npz")
    options["sha256"] = sha256_file(options["src"])
    before = tree(tmp_path)

    predicted = run(options, _ansible_check_mode=True)
    assert tree(tmp_path) == before
    done = run(options)
    assert predicted["changed"] is done["changed"] is True
    volatile = ("uid", "gid", "owner", "group", "mode", "size", "state", "invocation")
    assert {key: value for key, value in predicted.items() if key not in volatile} == {
        key: value for key, value in done.items() if key not in volatile
    }
    assert done["replaced"]["samples"] == 110
    assert stat.S_IMODE((tmp_path / "hex8_2p.npz").stat().st_mode) == 0o644

    after = tree(tmp_path)
    assert run(options, _ansible_check_mode=True)["changed"] is False
    again = run(options)
    assert (again["changed"], again["replaced"], again["samples"]) == (False, None, 120)
    assert tree(tmp_path) == after

    shutil.copy(kept, options["src"])
    assert run(options)["changed"] is False
    assert not pathlib.Path(options["src"]).exists()


def test_check_mode_before_the_transfer(run, options):
    digest = sha256_file(options["src"])
    pathlib.Path(options["src"]).unlink()
    result = run(options, sha256=digest, _ansible_check_mode=True, _ansible_diff=True)
    assert (result["changed"], result["sha256"], result["samples"], result["previous"]) == (True, digest, None, None)
    assert result["diff"]["before"] == {}
    assert result["diff"]["after"] == {"sha256": digest, "samples": None, "mode": "0644"}
    unknown = run(options, _ansible_check_mode=True)
    assert (unknown["changed"], unknown["sha256"]) == (True, None)


def test_diff(run, options):
    old = write(pathlib.Path(options["path"]), seed=3)
    digest = sha256_file(str(old))
    diff = run(options, _ansible_diff=True)["diff"]
    assert diff["before"]["sha256"] == digest
    assert diff["after"]["samples"] == 120
    assert "diff" not in run(options, sha256=sha256_file(options["path"]))


def test_every_key_is_documented(run, options):
    write(pathlib.Path(options["path"]), seed=3)
    documented = yaml.safe_load(npz_publish.RETURN)
    result = run(options)
    assert set(result) - {"changed", "invocation"} == set(documented)
    assert set(result["replaced"]) == set(documented["replaced"]["contains"])


def test_a_damaged_file_replaces_nothing(run, options, tmp_path):
    write(pathlib.Path(options["path"]), seed=3)
    src = pathlib.Path(options["src"])
    src.write_bytes(src.read_bytes()[:-200])
    before = tree(tmp_path)
    result = run(options)
    assert result["failed"] is True
    assert f"{options['path']} is untouched" in result["msg"]
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [({"mode": "rw"}, "octal digits"), ({"config": "x"}, "hex8_2p"), ({"src": "/nowhere/x.npz"}, "does not exist")],
)
def test_what_is_refused(run, options, change, words):
    result = run({**options, **change})
    assert result["failed"] is True
    assert words in result["msg"]
