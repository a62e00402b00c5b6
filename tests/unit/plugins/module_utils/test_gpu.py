# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import textwrap
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _gpu, _gpu_smi, _nvidia_smi
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu_judge import Scene, judge
from ansible_collections.ringrift.recovery.plugins.module_utils._gpu_types import Raw
from ansible_collections.ringrift.recovery.plugins.module_utils._nvidia_smi import Answer, NvidiaSmi, read_cell
from hypothesis import example, given, settings
from hypothesis import strategies as st

VERDICTS = {*_gpu.WORST_FIRST, _gpu.NONE}


class InProcess(NvidiaSmi):
    """The stand-in, without a process for each call."""

    def __init__(self, path, timeout):
        super().__init__(path, timeout)
        self.names = {"__name__": "nvidia_smi"}
        exec(compile(pathlib.Path(path).read_text(), path, "exec"), self.names)

    def call(self, *arguments):
        begun, output, code = time.monotonic(), io.StringIO(), 0
        before, sys.argv = sys.argv, [self.path, *arguments]
        try:
            with contextlib.redirect_stdout(output):
                try:
                    self.names["main"]()
                except self.names["Failure"] as failure:
                    print(failure)
                    code = failure.code
        finally:
            sys.argv = before
        return Answer(code, output.getvalue(), "", time.monotonic() - begun)


@pytest.fixture
def real_gpu(root, tmp_path, monkeypatch):
    """Looks at stand-in GPUs in a given state; the processes on them are none unless they are given."""
    monkeypatch.setenv("LAB_GPU_STATE", str(tmp_path / "gpu.json"))

    def look(samples=2, interval=0.0, timeout=20.0, thresholds=None, **state):
        where = {"source": state.pop("source", "nvidia_smi")}
        (tmp_path / "gpu.json").write_text(json.dumps({"processes": [], **state}))
        return _gpu.collect(str(root / "lab/bin/nvidia-smi"), timeout, samples, interval, thresholds, **where)

    return look


@pytest.fixture
def gpu(real_gpu, monkeypatch):
    """The same, faster."""
    monkeypatch.setattr(_gpu, "NvidiaSmi", InProcess)
    return real_gpu


@pytest.fixture
def tool(tmp_path):
    """Makes a tool out of the body of a Python program."""

    def make(body, name="nvidia-smi"):
        path = tmp_path / name
        path.write_text(f"#!{sys.executable} -IS\n" + textwrap.dedent(body))
        path.chmod(0o755)
        return str(path)

    return make


def only(report):
    (found,) = report.gpus
    return found


def codes(report):
    return [problem.code for problem in report.problems]


# With the stand-in, in every state


def test_busy(real_gpu):
    report = real_gpu(processes=[os.getpid()])
    found = only(report)
    assert (report.verdict, found.verdict, report.problems) == ("busy", "busy", ())
    assert found.name == "NVIDIA H100 80GB HBM3"
    assert (found.index, found.bus_id) == (0, "00000000:3B:00.0")
    assert found.utilization >= 90
    assert found.power > 500
    assert (found.power_limit, found.memory_total, found.pstate) == (700.0, 81559.0, "P0")
    assert (found.mig_mode, found.recovery_action, found.ecc_uncorrected_volatile) == (False, "None", 0)
    assert (found.remapped_rows_pending, found.remapped_rows_failure) == (False, False)
    assert found.clock_reasons == ("sw_power_cap",)
    assert found.samples == 2
    (process,) = found.processes
    assert (process.pid, process.here) == (os.getpid(), True)
    assert process.memory_used > 60000
    assert report.driver_version == "570.133.20"
    assert report.source.endswith("lab/bin/nvidia-smi")
    assert report.window_seconds > 0


@pytest.mark.parametrize(
    ("state", "verdict", "words"),
    [
        ({}, "idle", "no process"),
        ({"mode": "wedged"}, "wedged", "of 700 W"),
        ({"mode": "wedged", "profile": "h100-pcie"}, "wedged", "of 350 W"),
        ({"mode": "wedged", "profile": "gh200"}, "wedged", "of 900 W"),
        ({"mode": "requires_reset"}, "sick", "Reset"),
        ({"mode": "requires_reset", "driver_version": "550.54.15"}, "sick", "requires a reset"),
        ({"mode": "unknown_error"}, "sick", "[Unknown Error]"),
        ({"mode": "mig"}, "unknown", "MIG"),
        ({"mode": "lost"}, "lost", "GPU is lost"),
        ({"gpus": [{"values": {"utilization.gpu": "[GPU is lost]"}}]}, "lost", "lost"),
        ({"gpus": [{"values": {"remapped_rows.failure": "1"}}]}, "sick", "replaced"),
        ({"gpus": [{"values": {"ecc.errors.uncorrected.volatile.total": "2"}}]}, "sick", "2 uncorrected"),
        ({"gpus": [{"values": {"utilization.gpu": "[N/A]"}}]}, "unknown", "reports none"),
        ({"gpus": [{"values": {"utilization.gpu": "[Not Supported]"}}]}, "unknown", "reports none"),
    ],
)
def test_states(gpu, state, verdict, words):
    report = gpu(**state)
    assert (report.verdict, only(report).verdict) == (verdict, verdict)
    assert words in only(report).reason


def test_a_process_that_does_nothing(gpu):
    report = gpu(mode="idle", processes=[os.getpid()])
    assert report.verdict == "idle_with_process"
    assert str(os.getpid()) in only(report).reason


def test_a_stopped_process_leaves_the_gpu_idle(gpu):
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            os.kill(sleeper.pid, signal.SIGSTOP)
            os.waitpid(sleeper.pid, os.WUNTRACED)
            assert gpu(processes=[sleeper.pid], samples=1).verdict == "idle_with_process"
        finally:
            sleeper.kill()


def test_a_process_that_is_gone_is_not_here(gpu):
    with subprocess.Popen(["true"]) as gone:
        gone.wait(10)
    report = gpu(
        processes=[{"pid": gone.pid, "name": "python, with commas", "memory": 61000, "ghost": True}], samples=1
    )
    (process,) = only(report).processes
    assert (process.pid, process.here, process.name) == (gone.pid, False, "python, with commas")


def test_leaked_memory(gpu, monkeypatch):
    monkeypatch.setattr(_gpu, "in_container", lambda: False)
    monkeypatch.setattr(_gpu, "device_holders", lambda: [])
    assert gpu(mode="leaked").verdict == "leaked_memory"
    assert gpu(mode="leaked", profile="gh200", samples=1).verdict == "idle"
    assert gpu(mode="leaked", samples=1, thresholds=_gpu.Thresholds(leaked_memory=70000)).verdict == "idle"


@pytest.mark.parametrize(
    ("container", "holders", "verdict"),
    [(True, [], "unknown"), (False, None, "unknown"), (False, [4711], "idle_with_process")],
)
def test_memory_is_not_leaked_while_somebody_may_use_it(gpu, monkeypatch, container, holders, verdict):
    monkeypatch.setattr(_gpu, "in_container", lambda: container)
    monkeypatch.setattr(_gpu, "device_holders", lambda: holders)
    assert gpu(mode="leaked", samples=1).verdict == verdict


def test_nobody_holds_a_gpu_open_here():
    assert _gpu.device_holders() in ([], None)
    assert _gpu.in_container() in (True, False)


def test_one_sample_proves_no_wedge(gpu):
    assert gpu(mode="wedged", samples=1).verdict == "busy"


def test_a_wedge_needs_its_thresholds(gpu):
    assert gpu(mode="wedged", thresholds=_gpu.Thresholds(wedged_power_fraction=0.05)).verdict == "busy"


def test_real_memory_traffic_is_no_wedge(gpu):
    assert gpu(mode="wedged", gpus=[{"values": {"utilization.memory": "30"}}]).verdict == "busy"


def test_warnings(gpu):
    values = {
        "remapped_rows.pending": "Yes",
        "clocks_event_reasons.active": "0x0000000000000048",
        "gpu_recovery_action": "Tickle",
        "ecc.errors.uncorrected.volatile.total": "1",
    }
    report = gpu(gpus=[{"values": values}], processes=[os.getpid()])
    assert report.verdict == "busy"
    assert set(codes(report)) == {"remap_pending", "throttled", "recovery_action_unknown", "ecc_uncorrected"}
    assert {problem.severity for problem in report.problems} == {"warning"}
    assert only(report).clock_reasons == ("hw_slowdown", "hw_thermal_slowdown")


def test_a_lost_gpu_does_not_hide_the_others(real_gpu):
    report = real_gpu(gpus=[{}, {"mode": "lost"}, {"mode": "wedged"}, {"mode": "idle"}], processes=[os.getpid()])
    assert [found.verdict for found in report.gpus] == ["busy", "wedged", "idle", "lost"]
    # The wedged one has no process, so it is looked at some more: its utilization might only trail.
    assert [found.samples for found in report.gpus] == [6, 6, 6, 0]
    assert report.verdict == "lost"
    assert codes(report) == ["gpu_lost"]
    assert [process.pid for process in report.gpus[0].processes] == [os.getpid()]


def test_mig_devices_belong_to_their_gpu(gpu):
    report = gpu(mode="mig", processes=[os.getpid()], samples=1)
    assert [process.pid for process in only(report).processes] == [os.getpid()]
    assert only(report).mig_mode is True
    assert report.problems == ()


def test_an_old_driver_has_other_fields(gpu):
    found = only(gpu(driver_version="525.85.12", processes=[os.getpid()], samples=1))
    assert (found.verdict, found.clock_reasons, found.recovery_action) == ("busy", ("sw_power_cap",), None)


@pytest.mark.parametrize(
    ("code", "message", "problem", "verdict"),
    [
        (4, "Insufficient Permissions", "no_permission", "unknown"),
        (9, "", "driver_not_loaded", "unknown"),
        (12, "", "library_missing", "unknown"),
        (14, "", "inforom_corrupt", "unknown"),
        (15, "GPU is lost.", "gpu_lost", "lost"),
        (18, "Failed to initialize NVML: Driver/library version mismatch", "driver_mismatch", "unknown"),
        (255, "Failed to initialize NVML: Unknown Error", "driver_error", "unknown"),
        (6, "No devices were found", "no_devices", "none"),
        (0, "No devices were found", "no_devices", "none"),
        (0, "Alles gut!", "not_understood", "unknown"),
        (2, "Invalid combination of input arguments.", "bad_argument", "unknown"),
    ],
)
def test_exit_codes(gpu, code, message, problem, verdict):
    report = gpu(fail={"code": code, "message": message})
    assert (report.gpus, codes(report), report.verdict) == ((), [problem], verdict)


def test_no_driver(real_gpu):
    report = real_gpu(mode="no_driver")
    assert (report.verdict, codes(report)) == ("unknown", ["driver_not_loaded"])
    assert "couldn't communicate" in report.problems[0].message


def test_hung(real_gpu):
    begun = time.monotonic()
    report = real_gpu(mode="hung", timeout=0.5)
    assert time.monotonic() - begun < 3
    assert (report.gpus, report.verdict, codes(report)) == ((), "unknown", ["driver_hung"])


def test_no_tool(tmp_path):
    for name in ("nvidia-smi-that-is-not-there", str(tmp_path / "nvidia-smi")):
        report = _gpu.collect(name)
        assert (report.gpus, report.verdict, report.source, codes(report)) == ((), "none", None, ["no_driver_tool"])


def test_a_tool_that_cannot_be_run(tmp_path, tool):
    path = tmp_path / "plain"
    path.write_text("no program")
    with pytest.raises(RecoveryError, match="not a program"):
        _gpu.collect(str(path))
    path.chmod(0o755)
    with pytest.raises(RecoveryError, match="could not be started"):
        _gpu.collect(str(path))


def test_a_tool_is_found_on_path(tool, tmp_path, monkeypatch):
    tool("print('No devices were found')", "gpu-tool")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _gpu.collect("gpu-tool").source == str(tmp_path / "gpu-tool")


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": 1e9}, {"samples": 0}, {"samples": 10**6}, {"interval": -1}]
)
def test_nonsense_is_refused(options):
    with pytest.raises(RecoveryError):
        _gpu.collect("nvidia-smi", **options)


def test_slow_calls_leave_samples_out(real_gpu):
    report = real_gpu(seconds=0.1, samples=50, timeout=1.5)
    assert report.verdict == "idle"
    assert 1 <= only(report).samples < 12
    assert "driver_hung" not in codes(report)


def test_a_signal_is_named(tool):
    answer = _nvidia_smi.run([tool("import os; os.kill(os.getpid(), 11)")], 20)
    assert answer.problem[0] == "tool_killed"
    assert "signal 11" in answer.problem[1]


# The parts


@pytest.mark.parametrize(
    ("text", "number", "state"),
    [
        ("97", 97.0, None),
        (" 97 %", 97.0, None),
        ("412.33 W", 412.33, None),
        ("61234 MiB", 61234.0, None),
        ("-1", -1.0, None),
        ("N/A", None, "not_available"),
        ("[N/A]", None, "not_available"),
        ("", None, "not_available"),
        ("[Not Found]", None, "not_available"),
        ("[Something New]", None, "not_available"),
        ("[Not Supported]", None, "not_supported"),
        ("[Unknown Error]", None, "unknown_error"),
        ("ERR!", None, "unknown_error"),
        ("[GPU is lost]", None, "lost"),
        ("[GPU requires reset]", None, "requires_reset"),
        ("[Insufficient Permissions]", None, "no_permission"),
        ("nan", None, None),
        ("1e9", None, None),
        ("9" * 40, None, None),
    ],
)
def test_cells(text, number, state):
    cell = read_cell(text)
    assert (cell.number, cell.state) == (number, state)


@pytest.mark.parametrize(
    ("name", "coherent"),
    [
        ("NVIDIA GH200 480GB", True),
        ("NVIDIA GH200 144G HBM3e", True),
        ("NVIDIA GB200", True),
        ("NVIDIA GB10", True),
        ("NVIDIA H200", False),
        ("NVIDIA H100 80GB HBM3", False),
        ("NVIDIA H100 PCIe", False),
        (None, False),
    ],
)
def test_gh200_is_not_h200(name, coherent):
    assert _gpu.is_coherent(name) is coherent


@pytest.mark.parametrize(
    ("text", "bus"),
    [
        ("Unable to determine the device handle for GPU0000:20:00.0: Unknown Error", "0000:20:00.0"),
        ("Unable to determine the device handle for GPU 0000:03:00.0: GPU is lost.  Reboot the system", "0000:03:00.0"),
        ("Unable to determine the device handle for gpu 00000009:3B:00.0: Unknown Error", "00000009:3B:00.0"),
    ],
)
def test_gpus_without_a_handle(text, bus):
    ((found, reason),) = _nvidia_smi.unreachable(Answer(255, text + "\n" + text, "", 0.1))
    assert found == bus
    assert reason.startswith(("Unknown Error", "GPU is lost. Reboot"))


def test_worst():
    assert _gpu.worst([]) == "none"
    assert _gpu.worst(["idle", "busy"]) == "busy"
    assert _gpu.worst(["busy", "unknown", "idle"]) == "unknown"
    assert _gpu.worst(["unknown", "wedged", "busy"]) == "wedged"
    assert _gpu.worst(_gpu.WORST_FIRST) == "lost"


class Canned(NvidiaSmi):
    """A tool that gives the same answer to everything."""

    def __init__(self, answer):
        super().__init__("/usr/bin/nvidia-smi", 5)
        self.answer = answer

    def call(self, *arguments):
        return self.answer


def garbage():
    words = ["0", "GPU-1", "[N/A]", "[GPU is lost]", "NVIDIA H100", "99", "0x4", "MIG-2", ", ", "\n", "100", "python"]
    lines = st.lists(st.sampled_from(words) | st.text(max_size=12), max_size=80).map("".join)
    rows = st.lists(st.lists(st.sampled_from(words[:8]) | st.text(max_size=8), min_size=17, max_size=17), max_size=3)
    return lines | rows.map(lambda table: "\n".join(", ".join(row) for row in table))


@settings(max_examples=150, deadline=None)
@given(garbage(), st.sampled_from([0, 2, 9, 15, 255, -9, 137, None]))
# A digit to str.isdigit(), and none to int().
@example(", ".join(["0", "\u00b9", *["0"] * 15]), 0)
def test_garbage_is_never_taken_for_health(output, code):
    raw = _gpu_smi.look(Canned(Answer(code, output, "", 0.0)), 2, 0.0, _gpu.Thresholds())
    report = _gpu._Report(raw, _gpu.Thresholds(), Scene()).make(None)
    assert report.verdict in VERDICTS
    json.dumps(report.as_dict())
    if code is None:
        assert "driver_hung" in codes(report)
        assert report.verdict not in ("idle", "busy")
    for found in report.gpus:
        if found.verdict in ("busy", "idle", "wedged", "idle_with_process"):
            assert found.utilization is not None


def test_the_stand_in_is_a_program(root):
    assert os.stat(root / "lab/bin/nvidia-smi").st_mode & stat.S_IXOTH


# Captures of the real tool, driver 580.159.04 on an H200


@pytest.mark.parametrize(
    ("name", "utilization", "power", "pids"), [("idle", 0, 90, 0), ("busy", 100, 700, 1), ("spin", 100, 121, 1)]
)
def test_real_xml(root, name, utilization, power, pids):
    raw = Raw()
    capture = root / f"tests/unit/lab/nvidia_smi/h200-580.159.04-{name}.xml"
    (cells,) = _gpu_smi.read_xml(capture.read_text(), raw)
    assert abs(cells["utilization"].number - utilization) <= 2
    assert power / 2 < cells["power"].number <= power
    assert [len(found) for found in raw.processes.values()] == [pids]
    assert cells["retired_pending"].state == "not_available"
    assert (cells["pcie_width"].number, cells["pcie_generation_max"].number) == (16, 5)


def test_entities_and_garbage_are_refused():
    text = '<!DOCTYPE a [<!ENTITY x "y">]><nvidia_smi_log><gpu/></nvidia_smi_log>'
    assert _gpu_smi.read_xml(text, Raw()) == []
    assert _gpu_smi.read_xml("<nvidia_smi_log><gpu>", Raw()) == []


UTILIZATION = "<utilization><gpu_util>7 %</gpu_util></utilization>"


def read_gpu(body, raw=None, usual=f"<uuid>GPU-a</uuid>{UTILIZATION}<processes/>"):
    """One GPU of the tool's XML, with what every one has."""
    text = f'<nvidia_smi_log><gpu id="00000000:19:00.0">{usual}{body}</gpu></nvidia_smi_log>'
    return _gpu_smi.read_xml(text, raw or Raw())


def test_xml_of_an_old_driver():
    """It names no bus id in a block of its own, counts by bits and throttles where others have events."""
    ecc = "<ecc_errors><aggregate><single_bit><device_memory>1</device_memory><total>3</total></single_bit>"
    ecc += "<double_bit><total>N/A</total></double_bit></aggregate></ecc_errors>"
    why = "clocks_throttle_reason"
    reasons = f"<{why}s><{why}_gpu_idle>Active</{why}_gpu_idle><{why}_new>Active</{why}_new></{why}s>"
    (cells,) = read_gpu(ecc + reasons)
    assert cells["bus_id"].text == "00000000:19:00.0"
    assert cells["ecc_aggregate_corrected"].number == 3
    assert cells["ecc_aggregate_uncorrected"].state == "not_available"
    assert "ecc_volatile_corrected" not in cells
    assert cells["clock_reasons"].text == "0x1"
    assert "driver_version" not in cells


def test_xml_with_reasons_that_are_not_told():
    (cells,) = read_gpu("<clocks_event_reasons>N/A</clocks_event_reasons>")
    assert cells["clock_reasons"].state == "not_available"
    assert "clock_reasons" not in read_gpu("")[0]


@pytest.mark.parametrize("usual", [UTILIZATION, f"<uuid/>{UTILIZATION}", "<uuid>GPU-a</uuid>"])
def test_xml_without_what_every_gpu_has_is_not_understood(usual):
    assert read_gpu("<processes/>", usual=usual) == []


@pytest.mark.parametrize("listed", ["", "<processes>Insufficient Permissions</processes>"])
def test_xml_with_processes_that_could_not_be_listed_is_not_trusted(listed):
    raw = Raw()
    assert read_gpu(listed, raw, f"<uuid>GPU-a</uuid>{UTILIZATION}") == []
    assert [problem.code for problem in raw.problems] == ["not_available"]
    assert not raw.processes


def test_only_what_computes_is_a_process():
    entries = [("7", "C", "8 MiB"), ("8", "G", "1 MiB"), ("9", "C+G", "N/A"), ("-", "C", "1 MiB"), ("1" * 11, "C", "")]
    body = "".join(
        f"<process_info><pid>{pid}</pid><type>{kind}</type><process_name>python</process_name>"
        f"<used_memory>{memory}</used_memory></process_info>"
        for pid, kind, memory in entries
    )
    raw = Raw()
    read_gpu(f"<processes>{body}</processes>", raw, f"<uuid>GPU-a</uuid>{UTILIZATION}")
    assert raw.processes == {"GPU-a": [(7, "python", 8.0), (9, "python", None)]}


def series(*loads, power="121"):
    return [{"utilization": read_cell(str(load)), "power": read_cell(power)} for load in loads]


def a_gpu(**values):
    known = {"utilization": 100.0, "power": 121.0, "power_limit": 700.0, "processes": (), "memory_used": 0.0}
    return _gpu.Gpu(0, "GPU-1", "0", "NVIDIA H200", **{**known, **values})


def verdict_of(found, rows, **scene):
    return judge(found, rows, {}, _gpu.Thresholds(), Scene(**scene))[0]


def test_trailing_utilization_is_neither_busy_nor_wedged():
    assert verdict_of(a_gpu(), series(100, 100, 0)) == "idle"
    assert verdict_of(a_gpu(), series(100, 57)) == "unknown"
    assert verdict_of(a_gpu(), series(100, 100)) == "wedged"


def test_witnesses_of_a_wedge():
    process = _gpu.GpuProcess(1, "python", 520.0, True, 0.0)
    found = a_gpu(processes=(process,))
    verdict, reason = judge(found, series(100, 100), {}, _gpu.Thresholds(), Scene(progress_age=300.0))
    assert verdict == "wedged"
    assert "CPU time stands still" in reason
    assert "for 300 s" in reason
    assert verdict_of(found, series(100, 100), progress_age=5.0) == "busy"
    assert verdict_of(a_gpu(tensor_activity=8.0), series(100, 100)) == "busy"


def test_ghosts_and_coherent_memory():
    ghost = (_gpu.GpuProcess(1, "python", 520.0, False),)
    idle = {"utilization": 0.0, "processes": ghost, "memory_used": 60000.0}
    assert verdict_of(a_gpu(**idle), series(0, 0)) == "leaked_memory"
    assert verdict_of(a_gpu(**idle), series(0, 0), container=True) == "idle_with_process"
    grace = {**idle, "coherent": True, "numa_node": 1}
    assert verdict_of(a_gpu(**grace), series(0, 0), node_memory=lambda node: 200.0) == "idle"
    assert verdict_of(a_gpu(**grace), series(0, 0), node_memory=lambda node: 9000.0) == "leaked_memory"
    assert verdict_of(a_gpu(**grace), series(0, 0)) == "unknown"


def test_mig_is_never_idle():
    mig = {"utilization": None, "mig_mode": True}
    assert verdict_of(a_gpu(**mig), series("[N/A]")) == "unknown"
    assert verdict_of(a_gpu(**mig, sm_activity=40.0), series("[N/A]")) == "busy"


# NVML, with a module in its place

FAKE = """
import time
class NVMLError(Exception):
    def __init__(self, value): self.value = value
def nvmlInit(): {init}
def nvmlDeviceGetCount(): return 1
def nvmlSystemGetDriverVersion(): return "580"
def nvmlDeviceGetHandleByIndex(index): return 0
def nvmlDeviceGetUUID(handle): return "GPU-1"
class Load: gpu, memory = 0, 0
def nvmlDeviceGetUtilizationRates(handle): return Load
def nvmlDeviceGetComputeRunningProcesses(handle): return []
def nvmlDeviceGetSerial(handle): raise NVMLError(3)
def nvmlDeviceGetPowerUsage(handle): raise NVMLError(999)
"""


@pytest.fixture
def nvml(tmp_path, monkeypatch):
    def look(init="pass", **options):
        (tmp_path / "pynvml.py").write_text(FAKE.format(init=init))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return _gpu.collect(str(tmp_path / "none"), source="nvml", samples=2, interval=0.1, **options)

    return look


def test_nvml(nvml):
    report = nvml()
    found = only(report)
    assert (report.verdict, report.method, found.samples) == ("idle", "nvml", 2)
    assert (found.unavailable["serial"], found.unavailable["power"]) == ("not_supported", "unknown_error")
    assert codes(report) == ["unknown_error"]


@pytest.mark.parametrize(
    ("number", "code"),
    [(4, "no_permission"), (9, "driver_not_loaded"), (12, "library_missing"), (18, "driver_mismatch")],
)
def test_nvml_failures(nvml, number, code):
    report = nvml(init=f"raise NVMLError({number})")
    assert (codes(report), report.verdict) == ([code], "unknown")


def test_nvml_that_hangs(nvml):
    begun = time.monotonic()
    report = nvml(init="time.sleep(60)", timeout=0.6)
    assert time.monotonic() - begun < 1.5
    assert (codes(report), report.verdict, report.left_behind) == (["driver_hung"], "unknown", ())


def test_ten_hung_looks_leave_nobody_behind(real_gpu):
    for _number in range(10):
        assert real_gpu(mode="hung", timeout=0.3).left_behind == ()
    children = pathlib.Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    left = [pid for pid in children if b"nvidia-smi" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert left == []


def test_a_source_that_is_not_known():
    with pytest.raises(RecoveryError, match="Take one of auto"):
        _gpu.collect(source="guess")


def test_a_progress_file_that_is_not_there_says_nothing(gpu, tmp_path):
    assert gpu(mode="idle", progress_file=str(tmp_path / "none")).verdict == gpu(mode="idle").verdict
