# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import types

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.modules import checkpoint_restore

from tests.unit.checkpoint_files import content, flipped, save

pytestmark = pytest.mark.torch

PATH = "models/checkpoint_hex8_2p.pth"


@pytest.fixture
def run(capsys):
    def call(**params):
        with patch_module_args(params), pytest.raises(SystemExit):
            checkpoint_restore.main()
        result = json.loads(capsys.readouterr().out)
        result.pop("invocation", None)
        return result

    return call


@pytest.fixture
def service(tmp_path):
    for name in ("models", "checkpoints"):
        (tmp_path / name).mkdir()
    for epoch in range(3):
        path = save(tmp_path / f"checkpoints/checkpoint_epoch_{epoch + 1}.pth", content(epoch=epoch))
        os.utime(path, (1_700_000_000 + epoch,) * 2)
    path = flipped(save(tmp_path / PATH, content(epoch=2)), "data/0")
    wanted = {"service_path": str(tmp_path), "path": PATH, "candidates": ["checkpoints/*.pth"]}
    return types.SimpleNamespace(root=tmp_path, path=path, wanted=wanted)


def tree(root: pathlib.Path) -> dict:
    return {str(p): (p.lstat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in [root, *root.rglob("*")]}


def documented() -> dict:
    return yaml.safe_load(checkpoint_restore.RETURN)


def test_check_run_check_run(run, service):
    before = tree(service.root)
    predicted = run(**service.wanted, _ansible_check_mode=True, _ansible_diff=True)
    assert tree(service.root) == before
    done = run(**service.wanted, _ansible_diff=True)
    after = tree(service.root)
    checked = run(**service.wanted, _ansible_check_mode=True)
    again = run(**service.wanted)
    assert [result["changed"] for result in (predicted, done, checked, again)] == [True, True, False, False]
    assert tree(service.root) == after
    for key in ("restored", "checkpoint", "source", "previous", "epochs_lost", "candidates", "msg"):
        assert predicted[key] == done[key], key
    assert [entry["path"] for entry in predicted["quarantined"]] == [entry["path"] for entry in done["quarantined"]]
    assert done["checkpoint"] == again["checkpoint"]
    assert str(service.path) in predicted["diff"]["after"]


def test_keys_are_those_of_the_documentation(run, service):
    common = {"changed", "warnings"}
    done = run(**service.wanted)
    assert set(done) - common == set(documented())
    for key in ("checkpoint", "quarantined", "candidates"):
        entry = done[key] if isinstance(done[key], dict) else done[key][0]
        assert set(entry) == set(documented()[key]["contains"]), key
    assert set(run(**service.wanted)) - common == set(documented())


def test_nothing_good_fails_and_touches_nothing(run, service):
    for path in (service.root / "checkpoints").iterdir():
        flipped(path, "data/0")
    before = tree(service.root)
    for check_mode in (True, False):
        result = run(**service.wanted, _ansible_check_mode=check_mode)
        assert result["failed"] is True
        assert "no candidate verified" in result["msg"]
        assert [entry["valid"] for entry in result["candidates"]] == [False] * 3
    assert tree(service.root) == before


def test_config(run, service):
    result = run(**service.wanted, config="hex8_9p")
    assert (result["failed"], result["candidates"]) == (True, [])
    assert "config is 'hex8_9p'" in result["msg"]
    assert run(**service.wanted, config="hex8_2p")["restored"]


def test_refresh_absolute_path_and_home(run, service, monkeypatch):
    monkeypatch.setenv("HOME", str(service.root))
    wanted = {**service.wanted, "path": f"{service.root}/models/../{PATH}", "candidates": ["~/checkpoints/*_1.pth"]}
    result = run(**wanted)
    assert (result["checkpoint"]["path"], result["checkpoint"]["epoch"]) == (str(service.path), 0)
    assert result["epochs_lost"] == 2
    result = run(**service.wanted, refresh=True)
    assert (result["checkpoint"]["epoch"], result["epochs_lost"]) == (2, 0)
    assert result["previous"] == f"{service.path}.previous"
    assert not run(**service.wanted, refresh=True)["changed"]


def test_reason_goes_into_the_record(run, service):
    moved = run(**service.wanted, reason="stalled since noon")["quarantined"][0]["to"]
    assert json.loads(pathlib.Path(f"{moved}.json").read_text())["requested"] == "stalled since noon"


def test_what_could_not_be_done_is_a_warning(run, service, monkeypatch):
    newest = flipped(service.root / "checkpoints/checkpoint_epoch_3.pth", "data/0")
    rename = os.rename

    def deny(source, target):
        if str(source) == str(newest):
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", deny)
    # Ansible remembers the warnings of a whole process, so the module's own are caught here.
    warnings = []
    monkeypatch.setattr(checkpoint_restore.AnsibleModule, "warn", lambda _module, text: warnings.append(text))
    assert run(**service.wanted)["restored"]
    assert any("Could not quarantine" in warning for warning in warnings)


def test_required(run):
    assert "candidates" in run(path="x")["msg"]


def test_nothing_there_at_all_may_be_fine(run, service):
    wanted = {**service.wanted, "path": "models/never.pth", "candidates": ["nowhere/*.pth"]}
    assert run(**wanted)["failed"] is True
    result = run(**wanted, required=False)
    assert result["changed"] is False
    assert set(result) - {"warnings"} == set(documented()) | {"changed"}
    for path in (service.root / "checkpoints").iterdir():
        flipped(path, "data/0")
    assert run(**service.wanted, required=False)["failed"] is True
