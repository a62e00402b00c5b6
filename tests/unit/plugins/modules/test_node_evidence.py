# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils._node_evidence import COORDINATOR, PROBES, TRAINING_NODE
from ansible_collections.ringrift.recovery.plugins.modules import node_evidence

from lab import seed

CONFIG = "hex8_2p"
DOCUMENTED = yaml.safe_load(node_evidence.RETURN)
OPTIONS = yaml.safe_load(node_evidence.DOCUMENTATION)["options"]


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """A service directory with games, training file and model, as on a node that has never trained."""
    root = tmp_path_factory.mktemp("node") / "ai-service"
    seed.install_service(root)
    seed.make_venv(root)
    seed.seed_service(root, config=CONFIG)
    return root


@pytest.fixture
def run(capsys, seeded):
    def call(**params):
        params = {"config": CONFIG, "service_path": str(seeded), "within": str(seeded), **params}
        with patch_module_args(params), pytest.raises(SystemExit):
            node_evidence.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_every_probe_answers(run, seeded, tmp_path):
    result = run(coordination_dir=str(tmp_path), nvidia_smi=str(tmp_path / "no-such-tool"))
    assert result["errors"] == {}
    assert set(result["seconds"]) == set(TRAINING_NODE)
    assert result["changed"] is False
    assert result["progress"]["verdict"] == "not_running"
    assert [lock["verdict"] for lock in result["locks"]] == ["free"]
    assert result["data"]["valid"] is True
    assert (result["disk"]["needed"], result["host"]["clock_offset"]) == (10 << 30, None)
    assert result["processes"] == {"processes": [], "window": 0.0, "doubts": None}
    assert [os.path.basename(entry["path"]) for entry in result["checkpoints"]] == [f"canonical_{CONFIG}.pth"]
    assert result["checkpoints"][0]["valid"] is True


def test_of_a_coordinator(run):
    result = run(probes=["games", "host"], reference_time=time.time() - 3)
    assert result["games"]["enough"] is True
    assert 2.9 < result["host"]["clock_offset"] < 20


@pytest.mark.parametrize("options", [{}, {"_ansible_check_mode": True}, {"_ansible_diff": True}])
def test_again_and_in_check_mode_it_sees_the_same_and_changes_nothing(run, seeded, tmp_path, options):
    def files():
        return sorted((str(path), path.stat().st_mtime_ns) for path in seeded.rglob("*"))

    before, probes = files(), ["events", "log", "data", "checkpoints", "locks", "disk"]
    first = run(coordination_dir=str(tmp_path), probes=probes)
    again = run(coordination_dir=str(tmp_path), probes=probes, **options)
    for result in (first, again):
        assert (result["changed"], result["errors"]) == (False, {})
        result["data"].pop("age")
        result["disk"] = result["disk"]["verdict"]
    assert {name: first[name] for name in probes} == {name: again[name] for name in probes}
    assert files() == before


def test_documentation_and_argument_spec_agree(run, monkeypatch):
    given = {}

    class Seen(AnsibleModule):
        def __init__(self, **options):
            super().__init__(**options)
            given.update(self.params)

    monkeypatch.setattr(node_evidence, "AnsibleModule", Seen)
    run(probes=["host"])
    documented = {name: option.get("default") for name, option in OPTIONS.items()}
    own = {"config", "service_path", "within", "probes"}
    assert {name: given[name] for name in documented.keys() - own} == {
        name: documented[name] for name in documented.keys() - own
    }
    assert set(given) == set(documented) | {"config", "service_path"}
    assert OPTIONS["probes"]["choices"] == list(PROBES)
    assert OPTIONS["probes"]["default"] == list(TRAINING_NODE)
    assert set(TRAINING_NODE) | set(COORDINATOR) == set(PROBES)


def test_every_key_is_documented(run, seeded, tmp_path):
    shutil.copy(seeded / f"models/canonical_{CONFIG}.pth", seeded / "checkpoints/checkpoint_epoch_1.pth")
    try:
        result = run(coordination_dir=str(tmp_path), nvidia_smi=str(tmp_path / "no-such-tool"), checkpoint_depth="full")
    finally:
        (seeded / "checkpoints/checkpoint_epoch_1.pth").unlink()
    assert set(DOCUMENTED) == {*PROBES, "errors", "seconds", "unseen"}
    assert set(result) - {"changed", "invocation"} == {*TRAINING_NODE, "errors", "seconds", "unseen"}
    for name in ("processes", "disk", "memory", "host"):
        assert set(result[name]) == set(DOCUMENTED[name]["contains"])
    for entry in result["disk"]["filesystems"]:
        assert set(entry) == set(DOCUMENTED["disk"]["contains"]["filesystems"]["contains"])
    assert len(result["checkpoints"]) == 2
    for entry in result["checkpoints"]:
        assert set(DOCUMENTED["checkpoints"]["contains"]) <= set(entry)
        assert entry["examined_because"] == "checkpoint_depth is full"


def test_what_others_write_is_asked_lazily(run):
    """Nothing listens there, and that is an answer."""
    result = run(
        probes=["daemons", "wiring", "triggers"], health_url="http://localhost:9", p2p_url="http://localhost:9"
    )
    for name in ("daemons", "wiring"):
        assert result.get(name, {"reachable": False})["reachable"] is False
    assert set(result["errors"]) | set(result) >= {"daemons", "wiring", "triggers"}


def test_only_what_was_asked_for(run):
    result = run(probes=["data"])
    assert set(result["seconds"]) == {"data"}
    assert "gpu" not in result


def test_missing_training_file_is_a_finding(run, seeded, tmp_path):
    path = seeded / f"data/training/{CONFIG}.npz"
    shutil.move(path, tmp_path / "kept")
    try:
        result = run(probes=["data"])
    finally:
        shutil.move(tmp_path / "kept", path)
    assert result["errors"] == {}
    assert (result["data"]["exists"], result["data"]["valid"]) == (False, False)


def test_a_hung_gpu_tool_costs_its_deadline_and_hides_nothing(run, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\ntrap '' TERM\nsleep 60\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    result = run(probes=["gpu", "data"], nvidia_smi=str(tool), timeout=3)
    assert result["data"]["valid"] is True
    assert result["seconds"].get("gpu", 3) < 6
    assert [problem["code"] for problem in result["gpu"]["problems"]] == ["driver_hung"]


def test_the_services_interpreter_is_asked_for_nvml(run, root, seeded, tmp_path, monkeypatch):
    (tmp_path / "gpu.json").write_text(json.dumps({"processes": []}))
    monkeypatch.setenv("LAB_GPU_STATE", str(tmp_path / "gpu.json"))
    monkeypatch.setenv("PYTHONPATH", str(root / "lab/nvml"))
    gpu = run(probes=["gpu"], nvidia_smi=str(tmp_path / "no-such-tool"))["gpu"]
    assert (gpu["method"], gpu["source"]) == ("nvml", str(seeded / "venv/bin/python"))
    assert gpu["verdict"] == "idle"


def test_bad_config_is_refused(run):
    result = run(config="nonsense")
    assert result["failed"] is True
    assert "such as hex8_2p" in result["msg"]


def test_the_program_ends_although_a_probe_hangs(root, seeded):
    """The module as a program of its own, as on a node: output, exit code and end."""
    script = f"""
import json, sys, time
sys.path[:0] = [{str(root / "playbooks/collections")!r}]
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils import _node_evidence
from ansible_collections.ringrift.recovery.plugins.modules import node_evidence
_node_evidence._Look.memory = lambda look: time.sleep(600)
with patch_module_args({{"config": "hex8_2p", "service_path": {str(seeded)!r}, "timeout": 2,
                        "probes": ["memory", "host", "disk"]}}):
    node_evidence.main()
"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert time.monotonic() - begun < 10
    result = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert result["errors"] == {"memory": "no answer within 2 s"}
    assert {"host", "disk"} <= set(result)
