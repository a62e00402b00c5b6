# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.modules import gpu_status


@pytest.fixture
def run(root, tmp_path, monkeypatch, capsys):
    """Runs the module on stand-in GPUs in a given state; gives its exit code and result."""
    monkeypatch.setenv("LAB_GPU_STATE", str(tmp_path / "gpu.json"))

    def call(state=None, **options):
        (tmp_path / "gpu.json").write_text(json.dumps({"processes": [], **(state or {})}))
        options = {"nvidia_smi": str(root / "lab/bin/nvidia-smi"), "samples": 2, "interval": 0, **options}
        with patch_module_args(options), pytest.raises(SystemExit) as stopped:
            gpu_status.main()
        return stopped.value.code, json.loads(capsys.readouterr().out)

    return call


def check_documented(result, documented):
    """Everything that is returned is documented, and the other way round."""
    assert set(result) - {"changed", "invocation"} == set(documented)
    for name, value in result.items():
        below = documented.get(name, {}).get("contains")
        for entry in (value if isinstance(value, list) else [value]) if below else []:
            if isinstance(entry, dict):
                check_documented(entry, below)


def test_busy(run):
    code, result = run({"processes": [os.getpid()]})
    assert (code, result["changed"], result["verdict"]) == (0, False, "busy")
    assert result["gpus"][0]["processes"][0]["pid"] == os.getpid()
    check_documented(result, yaml.safe_load(gpu_status.RETURN))


def test_check_mode_gives_the_same(run):
    code, result = run({"mode": "requires_reset"}, _ansible_check_mode=True, samples=1)
    assert (code, result["verdict"]) == (0, "sick")
    assert result["problems"][0]["code"] == "gpu_sick"
    check_documented(result, yaml.safe_load(gpu_status.RETURN))


def test_a_hung_driver_is_a_finding(run):
    code, result = run({"mode": "hung"}, timeout=0.4)
    assert (code, result["verdict"], result["gpus"]) == (0, "unknown", [])
    assert [problem["code"] for problem in result["problems"]] == ["driver_hung"]


def test_thresholds_are_passed_on(run):
    assert run({"mode": "wedged"})[1]["verdict"] == "wedged"
    assert run({"mode": "wedged"}, wedged_power_fraction=0.05)[1]["verdict"] == "busy"


def test_no_tool(run):
    code, result = run(nvidia_smi="no-such-tool")
    assert (code, result["verdict"], result["source"]) == (0, "none", None)
    check_documented(result, yaml.safe_load(gpu_status.RETURN))


def test_failures(run, tmp_path):
    code, result = run(nvidia_smi=str(tmp_path / "gpu.json"))
    assert (code, result["failed"]) == (1, True)
    assert "not a program" in result["msg"]
    assert run(samples=0)[1]["failed"] is True


def test_defaults_are_documented():
    options = yaml.safe_load(gpu_status.DOCUMENTATION)["options"]
    thresholds = gpu_status.collect.__globals__["Thresholds"]()
    for name in gpu_status.THRESHOLDS:
        assert options[name]["default"] == getattr(thresholds, name)
