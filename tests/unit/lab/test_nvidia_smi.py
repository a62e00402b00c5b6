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
import xml.etree.ElementTree as ElementTree

import pytest

CAPTURES = pathlib.Path(__file__).with_name("nvidia_smi")
# The one that was captured.
SAME = {"uuid": "GPU-00000000-1111-2222-3333-444444444444", "serial": "1650000000001", "bus_id": "00000000:00:06.0"}
H200 = {"profile": "h200", "driver_version": "580.159.04", "gpus": [SAME]}
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
    assert re.fullmatch(r"0, NVIDIA H100 80GB HBM3, 0 MiB, 12\d\.\d\d W, 100 %, P0", row)
    assert done.returncode == 0


def test_csv_without(smi):
    done = smi("--query-gpu=memory.total,power.limit", "--format=csv,noheader,nounits", profile="h100-pcie", count=2)
    assert done.stdout == "81559, 350.00\n81559, 350.00\n"


def test_profiles(smi):
    assert smi("-L").stdout.startswith("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-")
    assert "NVIDIA H100 PCIe" in smi("-L", profile="h100-pcie").stdout
    done = smi("--query-gpu=name,memory.total,pci.bus_id", "--format=csv,noheader", mode="gh200")
    assert done.stdout == "NVIDIA GH200 480GB, 97871 MiB, 00000009:3B:00.0\n"


SWITCHES = ["--query-gpu", "--query-compute-apps", "--query-remapped-rows", "--query-retired-pages"]


@pytest.mark.parametrize("switch", SWITCHES)
def test_an_unknown_field(smi, switch):
    done = smi(f"{switch}=gpu_uuid,such.field", "--format=csv")
    assert done.stdout == 'Field "such.field" is not a valid field to query.\n\n'
    assert done.returncode == 2


def test_fields_came_and_went_with_drivers(smi):
    new, old, action = "clocks_event_reasons.active", "clocks_throttle_reasons.active", "gpu_recovery_action"
    for version, known, unknown in (
        ("525.85.12", [old], new),
        ("550.54.15", [new, old], action),
        ("570.133.20", [new, old, action], "edpp_multiplier"),
        ("590.48.01", ["edpp_multiplier"], "fabric.health.partition_assigned"),
    ):
        for field in known:
            assert smi(f"--query-gpu={field}", "--format=csv", driver_version=version).returncode == 0
        assert smi(f"--query-gpu={unknown}", "--format=csv", driver_version=version).returncode == 2


def test_the_head_has_the_names_of_the_driver(smi):
    asked = "--query-gpu=gpu_name,clocks.sm,clocks_throttle_reasons.active"
    heads = [smi(asked, driver_version=version).stdout.splitlines()[0] for version in ("525.85.12", "580.159.04")]
    assert heads == [
        "name, clocks.current.sm [MHz], clocks_throttle_reasons.active",
        "name, clocks.current.sm [MHz], clocks_event_reasons.active",
    ]


def test_arguments_that_it_does_not_know(smi):
    done = smi("--nonsense")
    assert done.stdout == "ERROR: Option --nonsense is not recognized. Please run 'nvidia-smi -h'.\n\n"
    assert done.returncode == 255
    assert smi("-q").returncode == 2
    assert smi("-i", "0", "-L").returncode == 2
    assert smi("--query-gpu=index").stdout == "index\n0\n"


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
        ("lost", 15, "Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost.  Reboot the system"),
        ("unreachable", 255, "Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error\n"),
        ("no_library", 12, "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system."),
        ("mismatch", 18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 570.172\n"),
        ("no_permission", 4, "Failed to initialize NVML: Insufficient Permissions\n"),
        ("no_devices", 6, "No devices were found\n"),
        ("lost_values", 0, "0, [GPU is lost], [GPU is lost], 0 MiB, None"),
        ("recovery_action", 0, "0, 0 %, 31, 0 MiB, Reset"),
        ("throttled", 0, "0, 0 %, 88, 0 MiB, None"),
        ("no_driver", 9, "couldn't communicate with the NVIDIA driver"),
        ("requires_reset", 0, "0, [N/A], [GPU requires reset], 0 MiB, Reset"),
        ("unknown_error", 0, "0, [Unknown Error], [Unknown Error], 0 MiB, None"),
        ("mig", 0, "0, [N/A], 31, 61 MiB, None"),
        ("leaked", 0, "0, 0 %, 31, 61034 MiB, None"),
        ("idle", 0, "0, 0 %, 31, 0 MiB, None"),
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


@pytest.mark.parametrize(
    ("mode", "values"),
    [
        ("ecc", "2, 3, 0, No, No"),
        ("remap_pending", "0, 0, 1, Yes, No"),
        ("remap_failure", "0, 0, 8, No, Yes"),
        ("mig", "0, 0, [N/A], [N/A], [N/A]"),
        ("requires_reset", "[GPU requires reset], [GPU requires reset], 0, No, No"),
    ],
)
def test_damage(smi, mode, values):
    names = ("uncorrectable", "pending", "failure")
    fields = [f"ecc.errors.uncorrected.{period}.total" for period in ("volatile", "aggregate")]
    fields += ["remapped_rows." + name for name in names]
    done = smi("--query-gpu=" + ",".join(fields), "--format=csv,noheader", **H200, mode=mode)
    assert done.stdout == values + "\n"
    rows = smi("--query-remapped-rows=" + ",".join(fields[2:]), "--format=csv,noheader", mode=mode)
    assert rows.stdout == values.split(", ", 2)[2] + "\n"


def test_power_and_clocks_as_measured(smi):
    asked = ("--query-gpu=power.draw,clocks.sm,utilization.memory", "--format=csv,noheader,nounits")
    here = [{"pid": os.getpid(), "memory": 520}]
    for state, power, clock in (
        ({}, 78, "345"),
        ({"mode": "idle", "processes": here}, 120, "1980"),
        ({"mode": "wedged", "processes": here}, 120, "1980"),
        ({"processes": here}, 604, "1815"),
    ):
        drawn, sm, memory = smi(*asked, **H200, **state).stdout.strip().split(", ")
        assert (abs(float(drawn) - power) < 4, sm) == (True, clock)
        assert (int(memory) > 0) == (power > 600)


def test_memory_of_a_grace_hopper_is_used_by_nobody(smi):
    asked = ("--query-gpu=memory.used,addressing_mode,c2c.mode,module.power.limit", "--format=csv,noheader")
    done = smi(*asked, mode="gh200", memory_used=5000)
    assert done.stdout == "5000 MiB, ATS, Enabled, 1000.00 W\n"
    gpu = document(smi, profile="gh200").find("gpu")
    assert gpu.get("id") == "00000009:3B:00.0"
    assert gpu.findtext("pci/pci_domain") == "0009"
    assert gpu.findtext("module_power_readings/max_power_limit") == "1000.00 W"
    assert gpu.findtext("bar1_memory_usage/total") == "N/A"


def test_hung_once(smi, tmp_path):
    env = {**os.environ, "LAB_GPU_STATE": str(tmp_path / "gpu.json")}
    (tmp_path / "gpu.json").write_text('{"mode": "hung_once", "processes": []}')
    with subprocess.Popen([TOOL, "-L"], env=env) as hung:
        try:
            wait_for((tmp_path / "gpu.json.hung").exists)
            assert hung.poll() is None
            later = subprocess.run([TOOL, "-L"], env=env, capture_output=True, text=True, timeout=DEADLINE)
            assert later.stdout.startswith("GPU 0: ")
        finally:
            hung.kill()


def test_slow(smi):
    begun = time.monotonic()
    assert smi("-L", mode="slow", seconds=0.5).returncode == 0
    assert time.monotonic() - begun >= 0.5


def test_garbage(smi):
    done = smi("-q", "-x", mode="garbage")
    assert done.returncode == 0
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(done.stdout)
    assert "Unknown Err" in smi("--query-gpu=index", mode="garbage").stdout


def test_mig_devices(smi):
    processes = [{"pid": os.getpid(), "memory": 11072}, {"pid": os.getppid(), "memory": 100, "mig": 2}]
    listed = smi("-L", mode="mig").stdout.splitlines()
    assert [re.sub(r" \(UUID: MIG-[0-9a-f-]{36}\)", "", line) for line in listed[1:]] == [
        "  MIG 3g.40gb     Device  0:",
        "  MIG 2g.20gb     Device  1:",
        "  MIG 1g.10gb     Device  2:",
        "  MIG 1g.10gb     Device  3:",
    ]
    gpu = document(smi, mode="mig", processes=processes).find("gpu")
    used = [part.findtext("fb_memory_usage/used") for part in gpu.findall("mig_devices/mig_device")]
    assert used == ["11098 MiB", "17 MiB", "109 MiB", "9 MiB"]
    assert [one.text for one in gpu.findall("processes/process_info/gpu_instance_id")] == ["2", "9"]
    assert gpu.findtext("remapped_rows") == gpu.findtext("utilization/gpu_util") == "N/A"
    assert "|   0  MIG 3g.40gb          9        2          0:4     |" in smi("mig", "-lgi", mode="mig").stdout
    assert smi("mig", "-lgi").stdout == "No MIG-enabled devices found.\n"
    assert "Nvlink queries are not supported for Devices in MIG mode" in smi("nvlink", "-s", mode="mig").stdout
    shown = smi(mode="mig", processes=processes[:1]).stdout
    assert "|  0    2   0   0  |           11098MiB / 40448MiB    | 60      0 |  3   0    3    0    3 |" in shown


def test_links(smi):
    lines = smi("nvlink", "-s").stdout.splitlines()
    assert lines[1:] == [f"\t Link {number}: 26.562 GB/s" for number in range(18)]
    assert smi("nvlink", "-s", **H200).stdout == ""
    assert "all links are inActive" in smi("nvlink", "-s", profile="gh200").stdout


def test_values_that_depend_on_others_follow_them(smi):
    values = {"ecc.errors.uncorrected.volatile.total": "2", "clocks_throttle_reasons.active": "0x48", "power.draw": "9"}
    gpu = document(smi, gpus=[{"values": values}]).find("gpu")
    assert gpu.findtext("ecc_errors/volatile/dram_uncorrectable") == "2"
    assert gpu.findtext("gpu_power_readings/average_power_draw") == "9 W"
    active = [one.tag for one in gpu.find("clocks_event_reasons") if one.text == "Active"]
    assert [tag.rpartition("reason_")[2] for tag in active] == ["hw_slowdown", "hw_thermal_slowdown"]


# Against captures of the real tool, 580.159.04 on an H200; without supported_clocks, which the stand-in has not


def document(smi, *arguments, **state):
    done = smi("-q", "-x", *arguments, **state)
    assert done.returncode == 0
    return ElementTree.fromstring(done.stdout)


def shape(element, depth=0):
    """Every element in order, and for a number the unit that stands after it."""
    text = (element.text or "").strip()
    unit = re.sub(r"\A-?[\d.]+ ?", "", text) if re.match(r"-?[\d.]+( \S+)?\Z", text) else "text"
    yield depth, element.tag, unit
    for child in element:
        yield from shape(child, depth + 1)


# The serial number and the like were replaced in the captures.
MADE_UP = {"pdi"}


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("idle", {}),
        ("busy", {"processes": [{"pid": 672, "memory": 1002, "ghost": True}]}),
        ("spin", {"mode": "wedged", "processes": [{"pid": 940, "memory": 520, "ghost": True}]}),
    ],
)
def test_xml_as_the_real_tool_writes_it(smi, name, state):
    text = (CAPTURES / f"h200-580.159.04-{name}.xml").read_text()
    real = ElementTree.fromstring(text)
    made = document(smi, **H200, **state)
    assert list(shape(made)) == list(shape(real))
    assert smi("-q", "-x", **H200).stdout.splitlines()[:3] == text.splitlines()[:3]
    # What does not move is the same, too.
    for path in ("gpu/fb_memory_usage", "gpu/max_clocks", "gpu/remapped_rows", "gpu/ecc_errors"):
        for one in real.findall(path + "/*"):
            pair = [element.text.strip() for element in (made.find(f"{path}/{one.tag}"), one)]
            # Rounding makes it differ by 1 MiB.
            assert pair[0] == pair[1] or one.tag == "free" and abs(int(pair[0][:-4]) - int(pair[1][:-4])) == 1
    for one in real.find("gpu"):
        if len(one) == 0 and one.tag not in MADE_UP and (one.text or "").strip():
            assert (one.tag, made.find("gpu").findtext(one.tag)) == (one.tag, one.text)


def test_xml_is_laid_out_as_the_real_tool_does(smi):
    blank = re.compile(r">[^<\n]*<")
    processes = [{"pid": 672, "memory": 1002, "ghost": True}]
    real = (CAPTURES / "h200-580.159.04-busy.xml").read_text()
    made = smi("-q", "-x", **H200, processes=processes).stdout
    assert blank.sub("><", made).splitlines() == blank.sub("><", real).splitlines()


def test_every_field_that_the_real_tool_knows(smi):
    listed, lists = None, {}
    for line in (CAPTURES / "h200-580.159.04-fields.txt").read_text().splitlines():
        if line.startswith("--"):
            listed = lists.setdefault(line, [])
        else:
            listed.append(line)
    for switch, wanted in lists.items():
        made = [line for line in smi(switch, **H200).stdout.splitlines() if line.startswith('"')]
        if switch == "--help-query-remapped-rows":
            assert sorted(made) == sorted(wanted)
        else:
            assert made == wanted
        names = [name for line in wanted for name in re.findall(r'"([\w.]+)"', line)]
        query = switch.replace("--help-", "--")
        assert smi(f"{query}={','.join(names)}", "--format=csv", **H200).returncode == 0


def test_csv_as_the_real_tool_writes_it(smi):
    heads, cells = (line.split(", ") for line in (CAPTURES / "h200-580.159.04-idle.csv").read_text().splitlines())
    names = [head.partition(" [")[0] for head in heads]
    made = smi("--query-gpu=" + ",".join(names), "--format=csv", **H200).stdout.splitlines()
    assert made[0].split(", ") == heads
    kind = re.compile(r"-?\d+(\.\d+)?")
    for name, real, stood_in in zip(names, cells, made[1].split(", ")):
        if name == "timestamp" or name.startswith(("temperature", "power.draw")):
            assert (name, kind.sub("0", stood_in)) == (name, kind.sub("0", real))
        else:
            assert (name, stood_in) == (name, real)


def test_the_table_as_the_real_tool_writes_it(smi):
    real = (CAPTURES / "h200-580.159.04-busy.txt").read_text().splitlines()
    processes = [{"pid": 672, "memory": 1002, "name": "/usr/bin/python3", "ghost": True}]
    values = {"power.draw": "691", "temperature.gpu": "55", "utilization.gpu": "100"}
    made = smi(**{**H200, "gpus": [{**SAME, "values": values}]}, processes=processes).stdout.splitlines()
    assert made[1:] == real[1:]


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [
        (
            "525.85.12",
            ["power_readings/enforced_power_limit", "clocks_throttle_reasons", "gpu_reset_status", "voltage"],
            ["gpu_power_readings", "clocks_event_reasons", "gpu_recovery_action", "addressing_mode", "c2c_mode"],
        ),
        (
            "535.54.03",
            ["gpu_power_readings/power_draw", "clocks_event_reasons", "ecc_errors/volatile/sram_uncorrectable"],
            ["power_readings", "clocks_throttle_reasons", "gpu_recovery_action", "platformInfo"],
        ),
        (
            "550.127.05",
            ["gpu_power_readings/power_draw", "c2c_mode", "ecc_errors/volatile/sram_uncorrectable_parity"],
            ["gpu_power_readings/average_power_draw", "gpu_recovery_action", "clocks_event_reasons_counters"],
        ),
        ("570.133.20", ["gpu_recovery_action", "gpu_power_readings/average_power_draw"], ["voltage"]),
        ("590.48.01", ["edpp_multiplier"], ["remapped_rows/remapped_row_corr_inactive", "gpu_reset_status"]),
    ],
)
def test_xml_of_other_drivers(smi, version, has, lacks):
    root = document(smi, driver_version=version)
    assert root.findtext("driver_version") == version
    gpu = root.find("gpu")
    assert [path for path in has if gpu.find(path) is None] == []
    assert [path for path in lacks if gpu.find(path) is not None] == []


def test_xml_of_some_gpus(smi):
    root = document(smi, "-i", "1", count=3)
    assert [gpu.findtext("minor_number") for gpu in root.findall("gpu")] == ["1"]
    assert root.findtext("attached_gpus") == "3"
    assert smi("-q", "-x", "-i", "7", count=3).returncode == 6
    assert smi("-q", "-x", gpus=[{}, {"mode": "lost"}]).returncode == 15
    assert document(smi, mode="unknown_error").findtext("gpu/utilization/gpu_util") == "Unknown Error"


def status(pid):
    return pathlib.Path(f"/proc/{pid}/status").read_text()


def wait_for(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
