# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

TOOL = pathlib.Path(__file__).resolve().parents[3] / "lab/bin/nvidia-smi"
DEADLINE = 20


@pytest.fixture
def smi(tmp_path):
    """Runs the stand-in in a given state."""

    def call(*arguments, tool=TOOL, **state):
        path = tmp_path / "state.json"
        path.write_text(json.dumps({"processes": [], **state}))
        env = {**os.environ, "LAB_GPU_STATE": str(path)}
        return subprocess.run([tool, *arguments], env=env, capture_output=True, text=True, timeout=DEADLINE)

    return call


def test_csv_with_head_and_units(smi):
    done = smi("--query-gpu=index,name,memory.used,power.draw,utilization.gpu,pstate", "--format=csv", mode="wedged")
    head, row = done.stdout.splitlines()
    assert head == "index, name, memory.used [MiB], power.draw [W], utilization.gpu [%], pstate"
    assert re.fullmatch(r"0, NVIDIA H100 80GB HBM3, 4 MiB, 7\d\.\d\d W, 100 %, P0", row)
    assert done.returncode == 0


def test_csv_without(smi):
    done = smi("--query-gpu=memory.total,power.limit", "--format=csv,noheader,nounits", profile="h100-pcie", count=2)
    assert done.stdout == "81559, 350.00\n81559, 350.00\n"


def test_profiles(smi):
    assert smi("-L").stdout.startswith("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-")
    assert "NVIDIA H100 PCIe" in smi("-L", profile="h100-pcie").stdout
    done = smi("--query-gpu=name,memory.total,pci.bus_id", "--format=csv,noheader", mode="gh200")
    assert done.stdout == "NVIDIA GH200 480GB, 97871 MiB, 00000009:3B:00.0\n"


@pytest.mark.parametrize("switch", ["--query-gpu", "--query-compute-apps", "--query-remapped-rows"])
def test_an_unknown_field(smi, switch):
    done = smi(f"{switch}=gpu_uuid,such.field", "--format=csv")
    assert done.stdout == 'Field "such.field" is not a valid field to query.\n\n'
    assert done.returncode == 2


def test_fields_came_and_went_with_drivers(smi):
    new, old, action = "clocks_event_reasons.active", "clocks_throttle_reasons.active", "gpu_recovery_action"
    for version, known, unknown in (("525.85.12", old, new), ("550.54.15", new, action), ("570.133.20", action, old)):
        assert smi(f"--query-gpu={known}", "--format=csv", driver_version=version).returncode == 0
        assert smi(f"--query-gpu={unknown}", "--format=csv", driver_version=version).returncode == 2


def test_arguments_that_it_does_not_know(smi):
    assert smi("--query-gpu=index").returncode == 2
    assert smi("--frobnicate").returncode == 2


def test_live_processes_are_on_the_gpu(smi):
    query = ("--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader")
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            row = smi(*query, processes=[sleeper.pid]).stdout.strip()
            assert re.fullmatch(rf"GPU-\S+, {sleeper.pid}, sleep, 61169 MiB", row)
            load = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")
            assert int(smi(*load, processes=[sleeper.pid]).stdout) > 90
            os.kill(sleeper.pid, signal.SIGSTOP)
            os.waitpid(sleeper.pid, os.WUNTRACED)
            assert smi(*load, processes=[sleeper.pid]).stdout == "0\n"
        finally:
            sleeper.kill()
    assert smi(*query, processes=[sleeper.pid]).stdout == ""


def test_trainers_are_found_by_their_arguments(smi, tmp_path):
    package = tmp_path / "app" / "training"
    package.mkdir(parents=True)
    (package / "train.py").write_text("import os, time\nos.fork()\ntime.sleep(60)\n")
    argv = [sys.executable, "-m", "app.training.train", "--board-type", "hex8"]
    query = ("--query-compute-apps=pid", "--format=csv,noheader")
    with subprocess.Popen(argv, cwd=tmp_path, start_new_session=True) as trainer:
        try:
            wait_for(lambda: smi(*query, processes="auto", within=str(tmp_path)).stdout == f"{trainer.pid}\n")
            assert smi(*query, processes="auto", within=str(package)).stdout == ""
        finally:
            os.killpg(trainer.pid, signal.SIGKILL)


def test_a_pid_file(smi, tmp_path):
    (tmp_path / "pids").write_text(f"{os.getpid()}\n")
    done = smi("--query-compute-apps=pid", "--format=csv,noheader", pid_file=str(tmp_path / "pids"))
    assert done.stdout == f"{os.getpid()}\n"


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        ("lost", 15, "Unable to determine the device handle for GPU00000000:3B:00.0: GPU is lost.  Reboot the system"),
        ("no_driver", 9, "couldn't communicate with the NVIDIA driver"),
        ("requires_reset", 0, "0, [N/A], [GPU requires reset], 0 MiB, Reset"),
        ("unknown_error", 0, "0, [Unknown Error], [Unknown Error], 4 MiB, None"),
        ("mig", 0, "0, [N/A], 31, 4 MiB, None"),
        ("leaked", 0, "0, 0 %, 31, 61034 MiB, None"),
        ("idle", 0, "0, 0 %, 31, 4 MiB, None"),
    ],
)
def test_modes(smi, mode, code, words):
    fields = "index,utilization.gpu,temperature.gpu,memory.used,gpu_recovery_action"
    done = smi(f"--query-gpu={fields}", "--format=csv,noheader", mode=mode)
    assert done.returncode == code
    assert words in done.stdout


def test_hung_is_deaf(tmp_path):
    (tmp_path / "gpu.json").write_text('{"mode": "hung"}')
    env = {**os.environ, "LAB_GPU_STATE": str(tmp_path / "gpu.json")}
    with subprocess.Popen([TOOL, "-L"], env=env) as hung:
        try:
            mask = 1 << signal.SIGTERM - 1
            wait_for(lambda: int(re.search(r"SigIgn:\s*(\w+)", status(hung.pid)).group(1), 16) & mask)
            hung.terminate()
            time.sleep(0.2)
            assert hung.poll() is None
        finally:
            hung.kill()


def test_some_of_many(smi):
    state = {"gpus": [{}, {"mode": "lost"}, {"profile": "gh200", "values": {"pstate": "P8"}}]}
    assert smi("--query-gpu=index", "--format=csv,noheader", **state).returncode == 15
    listed = smi("-L", **state).stdout.splitlines()
    assert [line[:5] for line in listed] == ["GPU 0", "Unabl", "GPU 2"]
    uuid = re.search(r"UUID: (\S+)\)", listed[2]).group(1)
    done = smi("-i", uuid, "--query-gpu=index,uuid,pstate", "--format=csv,noheader", **state)
    assert done.stdout == f"2, {uuid}, P8\n"
    assert smi("-i", "9", "--query-gpu=index", "--format=csv", **state).stdout == "No devices were found\n"


def test_the_table_for_people(smi):
    shown = smi(processes=[os.getpid()]).stdout
    assert "NVIDIA-SMI 570.133.20" in shown
    assert "NVIDIA H100 80GB HBM3" in shown
    assert str(os.getpid()) in shown
    assert "ERR!" in smi(mode="unknown_error").stdout
    assert "No running processes found" in smi().stdout


def test_the_state_beside_the_program(tmp_path):
    shutil.copy(TOOL, tmp_path / "nvidia-smi")
    (tmp_path / "gpu.json").write_text('{"profile": "gh200"}')
    env = {name: value for name, value in os.environ.items() if name != "LAB_GPU_STATE"}
    done = subprocess.run([tmp_path / "nvidia-smi", "-L"], env=env, capture_output=True, text=True, timeout=DEADLINE)
    if not os.path.exists("/etc/lab-gpu.json"):
        assert "GH200" in done.stdout
    (tmp_path / "gpu.json").write_text("{")
    done = subprocess.run([tmp_path / "nvidia-smi", "-L"], env=env, capture_output=True, text=True, timeout=DEADLINE)
    if not os.path.exists("/etc/lab-gpu.json"):
        assert done.returncode == 255


def test_a_planned_failure(smi):
    done = smi("-L", fail={"code": 14, "message": "InfoROM is corrupted"})
    assert (done.returncode, done.stdout) == (14, "InfoROM is corrupted\n")


def status(pid):
    return pathlib.Path(f"/proc/{pid}/status").read_text()


def wait_for(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
