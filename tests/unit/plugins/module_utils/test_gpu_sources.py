# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVML and nvidia-smi are asked about the same stand-in GPUs, and must say the same of them."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _gpu

# What moves from one look to the next, and what only one of the two is told.
MOVES = {"power", "temperature", "temperature_memory", "utilization", "utilization_memory", "reason", "samples"}
NVML_ONLY = {"nvlink", "tensor_activity", "sm_activity", "dram_activity", "numa_node", "unavailable", "mig_instances"}
# This process is on the GPU.
BUSY = {"processes": "this one"}


@pytest.fixture
def look(root, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_GPU_STATE", str(tmp_path / "gpu.json"))
    monkeypatch.setenv("PYTHONPATH", str(root / "lab/nvml"))

    def ask(source, timeout=20.0, **state):
        on_it = [os.getpid()] if state.pop("processes", None) else []
        (tmp_path / "gpu.json").write_text(json.dumps({"processes": on_it, "driver_version": "580.95.05", **state}))
        return _gpu.collect(str(root / "lab/bin/nvidia-smi"), timeout, 2, 0.1, source=source).as_dict()

    return ask


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ({}, "idle"),
        (BUSY, "busy"),
        ({"profile": "h100-pcie", **BUSY}, "busy"),
        ({"profile": "h200"}, "idle"),
        ({"mode": "gh200", **BUSY}, "busy"),
        ({"mode": "gh200", "memory_used": 60000}, "idle"),
        ({"mode": "idle", **BUSY}, "idle_with_process"),
        ({"mode": "wedged", **BUSY}, "wedged"),
        ({"mode": "throttled", **BUSY}, "busy"),
        ({"mode": "remap_pending"}, "idle"),
        ({"mode": "remap_failure"}, "sick"),
        ({"mode": "ecc"}, "sick"),
        ({"mode": "requires_reset"}, "sick"),
        ({"mode": "recovery_action"}, "sick"),
        ({"count": 8}, "idle"),
    ],
    ids=str,
)
def test_both_say_the_same(look, state, verdict):
    nvml, smi = look("nvml", **state), look("nvidia_smi", **state)
    assert (nvml["method"], smi["method"]) == ("nvml", "nvidia_smi")
    assert (nvml["verdict"], smi["verdict"]) == (verdict, verdict)
    assert sorted(one["code"] for one in nvml["problems"]) == sorted(one["code"] for one in smi["problems"])
    assert nvml["driver_version"] == smi["driver_version"] == "580.95.05"
    assert len(nvml["gpus"]) == len(smi["gpus"]) == state.get("count", 1)
    for one, other in zip(nvml["gpus"], smi["gpus"]):
        for process in one["processes"] + other["processes"]:
            assert process.pop("cpu_seconds") >= 0
        assert (one["nvlink"] or {}).get("active") == (other["nvlink"] or {}).get("active")
        shared = set(one) - MOVES - NVML_ONLY
        assert {key: one[key] for key in shared} == {key: other[key] for key in shared}


@pytest.mark.parametrize(
    ("mode", "code", "verdict"),
    [
        ("no_driver", "driver_not_loaded", "unknown"),
        ("no_library", "library_missing", "unknown"),
        ("mismatch", "driver_mismatch", "unknown"),
        ("no_permission", "no_permission", "unknown"),
        ("no_devices", "no_devices", "none"),
    ],
)
def test_each_failure_is_its_own_answer_from_both(look, mode, code, verdict):
    for source in ("nvml", "nvidia_smi", "auto"):
        seen = look(source, mode=mode)
        assert ([one["code"] for one in seen["problems"]], seen["verdict"]) == ([code], verdict), source
        assert seen["gpus"] == []


@pytest.mark.parametrize("source", ["nvml", "nvidia_smi", "auto"])
def test_a_driver_that_hangs_costs_one_deadline(look, source):
    begun = time.monotonic()
    seen = look(source, timeout=1.0, mode="hung")
    assert time.monotonic() - begun < 2.0
    assert ([one["code"] for one in seen["problems"]], seen["verdict"]) == (["driver_hung"], "unknown")
    assert seen["left_behind"] == []


def test_what_nvml_alone_knows(look):
    (gpu,) = look("nvml", **BUSY)["gpus"]
    assert gpu["tensor_activity"] > 1
    assert gpu["sm_activity"] > 1
    (gpu,) = look("nvml", mode="gh200")["gpus"]
    assert gpu["numa_node"] is not None
    assert gpu["coherent"] is True


def test_without_nvidia_ml_py_the_tool_is_asked(look, monkeypatch, tmp_path):
    (tmp_path / "pynvml.py").write_text("raise ImportError('no pynvml')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen = look("auto", **BUSY)
    assert (seen["method"], seen["verdict"], seen["problems"]) == ("nvidia_smi", "busy", [])
    assert "no nvidia-ml-py" in seen["nvml"]


def test_an_interpreter_that_is_not_there_is_named(root, tmp_path, monkeypatch):
    (tmp_path / "pynvml.py").write_text("raise ImportError('no pynvml')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen = _gpu.collect(source="nvml", python="/no/such/python", samples=1).as_dict()
    ((code, message),) = [(one["code"], one["message"]) for one in seen["problems"]]
    assert (code, seen["verdict"]) == ("nvml_missing", "unknown")
    assert "/no/such/python could not be started" in message
    assert "Install nvidia-ml-py" in message


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("print('no JSON'); print('[1]'); print('{\"sample\": 7}'); raise SystemExit(3)", "not_understood"),
        ('print(\'{"rows": [], "gone": []}\')', "no_devices"),
        ('print(\'{"failed": "x", "code": 12345}\')', "driver_error"),
    ],
    ids=["no_sense", "no_gpu", "failed"],
)
def test_an_interpreter_that_answers_otherwise(tmp_path, body, code):
    """Whatever it prints, it is a failure with a code, and no GPU that is well."""
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable} -IS\n{body}\n")
    python.chmod(0o755)
    seen = _gpu.collect(source="nvml", python=str(python), samples=1).as_dict()
    assert (seen["gpus"], [problem["code"] for problem in seen["problems"]]) == ([], [code])
    assert seen["verdict"] in ("unknown", "none")


def test_an_interpreter_that_ends_in_the_middle(tmp_path):
    """What it has told counts, and that it may have had more to tell is said."""
    python = tmp_path / "python"
    told = {"rows": [], "gone": [[3, "lost from the bus", 15]], "processes": {"GPU-a": None}, "mig": {}, "nvlink": {}}
    python.write_text(f"#!{sys.executable} -IS\nprint({json.dumps(told)!r})\n")
    python.chmod(0o755)
    seen = _gpu.collect(source="nvml", python=str(python), samples=1).as_dict()
    assert [gpu["verdict"] for gpu in seen["gpus"]] == ["lost"]
    assert {"gpu_lost", "not_understood"} <= {problem["code"] for problem in seen["problems"]}
