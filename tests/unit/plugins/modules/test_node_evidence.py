# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import shutil
import stat

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.modules import node_evidence

from lab import seed

CONFIG = "hex8_2p"


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
    assert set(result["seconds"]) == {"progress", "locks", "gpu", "log", "data", "checkpoints", "games"}
    assert result["changed"] is False
    assert result["progress"]["verdict"] == "not_running"
    assert [lock["verdict"] for lock in result["locks"]] == ["free"]
    assert result["data"]["valid"] is True
    assert result["games"]["enough"] is True
    assert [os.path.basename(entry["path"]) for entry in result["checkpoints"]] == [f"canonical_{CONFIG}.pth"]
    assert result["checkpoints"][0]["valid"] is True


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
