# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import types

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils import _checkpoint_retention as engine
from ansible_collections.ringrift.recovery.plugins.module_utils import _open_files
from ansible_collections.ringrift.recovery.plugins.modules import checkpoint_retention

from tests.unit.checkpoint_files import content, flipped, save

pytestmark = pytest.mark.torch

COMMON = {"changed", "warnings"}


@pytest.fixture
def run(capsys):
    def call(**params):
        with patch_module_args(params), pytest.raises(SystemExit):
            checkpoint_retention.main()
        result = json.loads(capsys.readouterr().out)
        result.pop("invocation", None)
        return result

    return call


@pytest.fixture
def service(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    paths = []
    for epoch in range(7):
        path = save(tmp_path / f"checkpoints/checkpoint_epoch_{epoch + 1}.pth", content(epoch=epoch))
        os.utime(path, (time.time() - 9000 + 60 * epoch,) * 2)
        paths.append(path)
    leftover = tmp_path / "checkpoints/checkpoint_epoch_8.pth.tmp"
    leftover.write_bytes(b"PK")
    os.utime(leftover, (time.time() - 8000,) * 2)
    wanted = {"service_path": str(tmp_path), "patterns": ["checkpoints/*.pth"]}
    return types.SimpleNamespace(root=tmp_path, paths=paths, leftover=leftover, wanted=wanted)


def tree(root: pathlib.Path) -> dict:
    return {str(p): (p.lstat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in [root, *root.rglob("*")]}


def documented() -> dict:
    return yaml.safe_load(checkpoint_retention.RETURN)


def test_check_run_check_run(run, service):
    before = tree(service.root)
    sizes = [path.stat().st_size for path in service.paths]
    predicted = run(**service.wanted, _ansible_check_mode=True, _ansible_diff=True)
    assert tree(service.root) == before
    done = run(**service.wanted, _ansible_diff=True)
    after = tree(service.root)
    checked = run(**service.wanted, _ansible_check_mode=True)
    again = run(**service.wanted)
    assert [result["changed"] for result in (predicted, done, checked, again)] == [True, True, False, False]
    assert tree(service.root) == after
    for key in (*(set(documented()) - {"unseen"}), "diff"):
        assert predicted[key] == done[key], key
    assert checked["kept"] == again["kept"]
    assert [entry["path"] for entry in done["pruned"]] == [*map(str, service.paths[:2]), str(service.leftover)]
    assert done["freed_bytes"] == sizes[0] + sizes[1] + 2
    assert done["msg"] == f"3 files pruned, {done['freed_bytes']} bytes freed, 5 files kept"
    assert done["diff"]["before"].splitlines() == [*map(str, service.paths), str(service.leftover)]
    assert done["diff"]["after"].splitlines() == [*map(str, service.paths[2:])]
    assert "diff" not in again


def test_keys_are_those_of_the_documentation(run, service, monkeypatch):
    unlink = os.unlink

    def deny(path, **options):
        if str(path) == str(service.paths[0]):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", deny)
    result = run(**service.wanted)
    assert set(result) - COMMON - {"failed"} == set(documented())
    for key in ("kept", "pruned", "failed_files", "groups"):
        assert set(result[key][0]) == set(documented()[key]["contains"]), key
    monkeypatch.undo()
    for wanted in (service.wanted, {**service.wanted, "patterns": ["none"]}, {**service.wanted, "keep": 0}):
        assert set(run(**wanted)) - COMMON - {"failed"} == set(documented())


def test_documentation_names_every_reason():
    text = "".join(pathlib.Path(part.__file__).read_text() for part in (engine, _open_files))
    used = set(re.findall(r'(?:self\.keep\(\w+, |return \(|stay\[path\] = \(|\) else )"([a-z_]+)"', text))
    used |= {"canonical", "unreadable", "other_config"}
    described = " ".join(documented()["kept"]["contains"]["reason"]["description"])
    assert len(used) > 15
    assert {reason for reason in used if f"V({reason})" not in described} == set()
    assert set(re.findall(r"V\((\w+)\)", described)) == used


def test_failure_keeps_what_was_done(run, service, monkeypatch):
    unlink = os.unlink

    def deny(path, **options):
        if str(path) == str(service.paths[0]):
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", deny)
    result = run(**service.wanted, _ansible_diff=True)
    assert (result["failed"], result["changed"]) == (True, True)
    assert [entry["path"] for entry in result["failed_files"]] == [str(service.paths[0])]
    assert [entry["path"] for entry in result["pruned"]] == [str(service.paths[1]), str(service.leftover)]
    assert str(service.paths[0]) in result["msg"]
    assert "mounted read-only" in result["msg"]
    assert str(service.paths[0]) in result["diff"]["after"]


def test_refused(run, service):
    assert "config is 'hex8_9p'" in run(**service.wanted, config="hex8_9p")["msg"]
    assert "keep is 0" in run(**service.wanted, keep=0)["msg"]
    assert "patterns" in run()["msg"]
    assert run(**service.wanted, state="absent")["failed"] is True
    assert len(list((service.root / "checkpoints").iterdir())) == 8


def test_config_home_and_tmp(run, service, monkeypatch):
    monkeypatch.setenv("HOME", str(service.root))
    wanted = {"patterns": ["~/checkpoints/*.pth"], "keep": 1, "tmp_older_than": 10000}
    assert not run(**wanted, config="hex8_2p")["changed"]
    result = run(**wanted)
    assert len(result["pruned"]) == 6
    assert result["kept"][1]["reason"] == "recent"


def test_what_is_wrong_is_a_warning(run, service, monkeypatch):
    # Ansible remembers the warnings of a whole process, so the module's own are caught here.
    warnings = []
    monkeypatch.setattr(checkpoint_retention.AnsibleModule, "warn", lambda _module, text: warnings.append(text))
    for path in service.paths:
        flipped(path, "data/0")
    result = run(**service.wanted)
    assert (result["changed"], result["groups"][0]["newest_verified"]) == (False, None)
    assert any("Run checkpoint_verify" in warning for warning in warnings)


def test_as_an_operator_runs_it(service, root):
    """Through the command line, in the interpreter of the node, once, with names that are not UTF-8."""
    os.rename(service.paths[0], os.fsencode(service.root / "checkpoints") + b"/\xff.pth")
    command = [os.path.join(os.path.dirname(sys.executable), "ansible"), "localhost", "--diff"]
    arguments = json.dumps(service.wanted)
    command += ["-m", "ringrift.recovery.checkpoint_retention", "-a", arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 files pruned" in done.stdout
    assert "\ufffd.pth" in done.stdout
    assert len(list((service.root / "checkpoints").iterdir())) == 5
