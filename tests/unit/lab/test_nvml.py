# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for pynvml; what is expected of an H200 was read from one, with nvidia-ml-py 13.610 and 580.159.04."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

LAB = pathlib.Path(__file__).resolve().parents[3] / "lab"
MIB = 1 << 20
DEADLINE = 20


@pytest.fixture(scope="module")
def pynvml():
    spec = importlib.util.spec_from_file_location("lab_pynvml", LAB / "nvml/pynvml.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Sets the state."""
    monkeypatch.setenv("LAB_GPU_STATE", str(tmp_path / "gpu.json"))

    def write(**state):
        (tmp_path / "gpu.json").write_text(json.dumps({"processes": [], **state}))

    return write


@pytest.fixture
def nvml(pynvml, put):
    """Initializes the library in a given state."""
    begun = []

    def start(**state):
        put(**state)
        pynvml.nvmlInit()
        begun.append(1)
        return pynvml

    yield start
    put()
    for _once in begun:
        pynvml.nvmlShutdown()


def ghost(**values):
    return {"pid": 940, "memory": 520, "name": "/usr/bin/python3", "ghost": True, **values}


def test_an_idle_h200(nvml):
    n = nvml(profile="h200", driver_version="580.159.04", gpus=[{"bus_id": "00000000:00:06.0"}])
    assert (n.nvmlDeviceGetCount(), n.nvmlSystemGetDriverVersion()) == (1, "580.159.04")
    gpu = n.nvmlDeviceGetHandleByIndex(0)
    assert n.nvmlDeviceGetName(gpu) == "NVIDIA H200"
    rates = n.nvmlDeviceGetUtilizationRates(gpu)
    assert (rates.gpu, rates.memory) == (0, 0)
    old, new = n.nvmlDeviceGetMemoryInfo(gpu), n.nvmlDeviceGetMemoryInfo(gpu, version=n.nvmlMemory_v2)
    assert (new.total // MIB, new.reserved // MIB, new.used // MIB) == (143771, 616, 0)
    assert old.used == new.used + new.reserved
    assert abs(n.nvmlDeviceGetPowerUsage(gpu) - 78262) < 2000
    assert n.nvmlDeviceGetEnforcedPowerLimit(gpu) == n.nvmlDeviceGetPowerManagementLimit(gpu) == 700000
    assert (n.nvmlDeviceGetPerformanceState(gpu), n.nvmlDeviceGetPersistenceMode(gpu)) == (0, 1)
    assert (n.nvmlDeviceGetComputeMode(gpu), n.nvmlDeviceGetMigMode(gpu)) == (0, [0, 0])
    assert n.nvmlDeviceGetEccMode(gpu) == [1, 1]
    assert n.nvmlDeviceGetCurrentClocksEventReasons(gpu) == n.nvmlDeviceGetCurrentClocksThrottleReasons(gpu) == 1
    assert n.nvmlDeviceGetRemappedRows(gpu) == (0, 0, 0, 0)
    assert n.nvmlDeviceGetComputeRunningProcesses(gpu) == n.nvmlDeviceGetGraphicsRunningProcesses(gpu) == []
    assert n.nvmlDeviceGetArchitecture(gpu) == n.NVML_DEVICE_ARCH_HOPPER
    assert (n.nvmlDeviceGetCurrPcieLinkGeneration(gpu), n.nvmlDeviceGetMaxPcieLinkGeneration(gpu)) == (5, 5)
    assert (n.nvmlDeviceGetCurrPcieLinkWidth(gpu), n.nvmlDeviceGetMaxPcieLinkWidth(gpu)) == (16, 16)
    pci = n.nvmlDeviceGetPciInfo(gpu)
    assert vars(pci) == {
        "busIdLegacy": "0000:00:06.0",
        "domain": 0,
        "bus": 0,
        "device": 6,
        "pciDeviceId": 590680286,
        "pciSubSystemId": 415174878,
        "busId": "00000000:00:06.0",
    }
    values = n.nvmlDeviceGetFieldValues(gpu, [82, 230])
    assert [(one.fieldId, one.nvmlReturn, one.valueType) for one in values] == [(82, 0, 1), (230, 0, 1)]
    assert values[1].value.uiVal == 0
    for ask in (
        n.nvmlDeviceGetNumaNodeId,
        n.nvmlDeviceGetRetiredPagesPendingStatus,
        lambda handle: n.nvmlDeviceGetRetiredPages(handle, 0),
        lambda handle: n.nvmlDeviceGetNvLinkState(handle, 0),
    ):
        with pytest.raises(n.NVMLError_NotSupported):
            ask(gpu)
    with pytest.raises(n.NVMLError_NotFound):
        n.nvmlSystemGetProcessName(1)


def test_a_busy_gpu(nvml):
    n = nvml(processes=[ghost()])
    gpu = n.nvmlDeviceGetHandleByIndex(0)
    (process,) = n.nvmlDeviceGetComputeRunningProcesses(gpu)
    assert (process.pid, process.usedGpuMemory) == (940, 520 * MIB)
    assert (process.gpuInstanceId, process.computeInstanceId) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert n.nvmlSystemGetProcessName(940) == "/usr/bin/python3"
    assert n.nvmlDeviceGetUtilizationRates(gpu).gpu > 90
    assert n.nvmlDeviceGetPowerUsage(gpu) > 500000
    assert n.nvmlDeviceGetClockInfo(gpu, n.NVML_CLOCK_SM) <= n.nvmlDeviceGetMaxClockInfo(gpu, n.NVML_CLOCK_SM) == 1980
    assert n.nvmlDeviceGetTemperature(gpu, n.NVML_TEMPERATURE_GPU) > 60
    assert [n.nvmlDeviceGetNvLinkState(gpu, link) for link in range(18)] == [1] * 18
    with pytest.raises(n.NVMLError_InvalidArgument):
        n.nvmlDeviceGetNvLinkState(gpu, 18)
    by_uuid = n.nvmlDeviceGetHandleByUUID(n.nvmlDeviceGetUUID(gpu))
    assert n.nvmlDeviceGetSerial(by_uuid) == n.nvmlDeviceGetSerial(gpu)


def activity(n, gpu, take):
    samples = [n.nvmlGpmSampleAlloc(), n.nvmlGpmSampleAlloc()]
    for sample in samples:
        take(gpu, sample)
    asked = n.c_nvmlGpmMetricsGet_t()
    asked.version = n.NVML_GPM_METRICS_GET_VERSION
    asked.numMetrics = 2
    asked.sample1, asked.sample2 = samples
    asked.metrics[0].metricId, asked.metrics[1].metricId = n.NVML_GPM_METRIC_SM_UTIL, n.NVML_GPM_METRIC_ANY_TENSOR_UTIL
    n.nvmlGpmMetricsGet(asked)
    for sample in samples:
        n.nvmlGpmSampleFree(sample)
    assert [metric.nvmlReturn for metric in asked.metrics[:2]] == [0, 0]
    return [metric.value for metric in asked.metrics[:2]]


@pytest.mark.parametrize(
    ("state", "values"),
    [
        ({"processes": [ghost()]}, [96.49, 93.66]),
        ({"mode": "wedged", "processes": [ghost()]}, [0.76, 0.0]),
        ({}, [0, 0]),
    ],
)
def test_activity(nvml, state, values):
    n = nvml(**state)
    gpu = n.nvmlDeviceGetHandleByIndex(0)
    assert n.nvmlGpmQueryDeviceSupport(gpu).isSupportedDevice == 1
    assert activity(n, gpu, n.nvmlGpmSampleGet) == values


def test_mig(nvml):
    n = nvml(mode="mig", processes=[ghost(), ghost(pid=941, mig=1)])
    gpu = n.nvmlDeviceGetHandleByIndex(0)
    with pytest.raises(n.NVMLError_NotSupported):
        n.nvmlDeviceGetUtilizationRates(gpu)
    assert n.nvmlDeviceGetMigMode(gpu) == [1, 1]
    parts = []
    for number in range(n.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            parts.append(n.nvmlDeviceGetMigDeviceHandleByIndex(gpu, number))
        except n.NVMLError_NotFound:
            break
    assert [n.nvmlDeviceGetGpuInstanceId(part) for part in parts] == [2, 3, 9, 10]
    assert {n.nvmlDeviceGetUUID(part)[:4] for part in parts} == {"MIG-"}
    memory = n.nvmlDeviceGetMemoryInfo(parts[0], version=n.nvmlMemory_v2)
    assert (memory.total // MIB, memory.used // MIB) == (40448, 546)
    assert [one.gpuInstanceId for one in n.nvmlDeviceGetComputeRunningProcesses(gpu)] == [2, 3]
    assert [one.pid for one in n.nvmlDeviceGetComputeRunningProcesses(parts[1])] == [941]
    with pytest.raises(n.NVMLError_NotSupported):
        n.nvmlDeviceGetPowerUsage(parts[0])
    assert activity(n, gpu, lambda handle, sample: n.nvmlGpmMigSampleGet(handle, 2, sample))[0] > 90
    assert activity(n, gpu, lambda handle, sample: n.nvmlGpmMigSampleGet(handle, 9, sample)) == [0, 0]


def test_damage(nvml, put):
    n = nvml(mode="ecc")
    gpu = n.nvmlDeviceGetHandleByIndex(0)
    assert [n.nvmlDeviceGetTotalEccErrors(gpu, 1, counter) for counter in (0, 1)] == [2, 3]
    assert n.nvmlDeviceGetMemoryErrorCounter(gpu, 1, 0, n.NVML_MEMORY_LOCATION_DRAM) == 2
    assert n.nvmlDeviceGetMemoryErrorCounter(gpu, 1, 0, n.NVML_MEMORY_LOCATION_SRAM) == 0
    put(mode="remap_pending")
    assert n.nvmlDeviceGetRemappedRows(gpu) == (0, 1, 1, 0)
    put(mode="remap_failure")
    assert n.nvmlDeviceGetRemappedRows(gpu) == (0, 8, 0, 1)
    put(mode="throttled")
    assert n.nvmlDeviceGetCurrentClocksEventReasons(gpu) == 0x48
    for number, text in enumerate(("None", "Reset", "Reboot", "Drain P2P", "Drain and Reset")):
        put(mode="recovery_action", recovery_action=text)
        assert n.nvmlDeviceGetFieldValues(gpu, [n.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])[0].value.uiVal == number


def test_a_gpu_is_lost_between_two_calls(nvml, put):
    n = nvml(count=2)
    gpus = [n.nvmlDeviceGetHandleByIndex(index) for index in range(2)]
    put(gpus=[{}, {"mode": "lost"}])
    assert n.nvmlDeviceGetUtilizationRates(gpus[0]).gpu == 0
    with pytest.raises(n.NVMLError_GpuIsLost, match="GPU is lost") as raised:
        n.nvmlDeviceGetUtilizationRates(gpus[1])
    assert raised.value.value == n.NVML_ERROR_GPU_IS_LOST == 15
    with pytest.raises(n.NVMLError_GpuIsLost):
        n.nvmlDeviceGetHandleByIndex(1)


@pytest.mark.parametrize(
    ("mode", "code"), [("requires_reset", 16), ("unknown_error", 999), ("lost_values", 15), ("unreachable", 999)]
)
def test_gpus_in_trouble(nvml, put, mode, code):
    n = nvml()
    gpu = n.nvmlDeviceGetHandleByIndex(0)
    put(mode=mode, processes=[ghost()])
    with pytest.raises(n.NVMLError) as raised:
        n.nvmlDeviceGetPowerUsage(gpu)
    assert (raised.value.value, type(raised.value)) == (code, n.nvmlExceptionClass(code))


@pytest.mark.parametrize(
    ("state", "code", "name"),
    [
        ({"mode": "no_driver"}, 9, "NVMLError_DriverNotLoaded"),
        ({"mode": "no_library"}, 12, "NVMLError_LibraryNotFound"),
        ({"mode": "mismatch"}, 18, "NVMLError_LibRmVersionMismatch"),
        ({"mode": "no_permission"}, 4, "NVMLError_NoPermission"),
        ({"mode": "garbage"}, 999, "NVMLError_Unknown"),
        ({"fail": {"code": 14}}, 14, "NVMLError_CorruptedInforom"),
        ({"fail": {"code": 255}}, 999, "NVMLError_Unknown"),
    ],
)
def test_a_driver_that_fails(pynvml, put, state, code, name):
    put(**state)
    with pytest.raises(pynvml.NVMLError) as raised:
        pynvml.nvmlInit()
    assert (raised.value.value, type(raised.value).__name__) == (code, name)


def test_without_init(pynvml, put):
    put()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlShutdown()


def test_no_devices(nvml):
    n = nvml(mode="no_devices")
    assert n.nvmlDeviceGetCount() == 0
    with pytest.raises(n.NVMLError_InvalidArgument):
        n.nvmlDeviceGetHandleByIndex(0)


def test_an_old_driver_lacks_functions(nvml):
    n = nvml(driver_version="525.85.12")
    gpu = n.nvmlDeviceGetHandleByIndex(0)
    with pytest.raises(n.NVMLError_FunctionNotFound):
        n.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    assert n.nvmlDeviceGetCurrentClocksThrottleReasons(gpu) == 1
    assert n.nvmlDeviceGetFieldValues(gpu, [230])[0].nvmlReturn == n.NVML_ERROR_NOT_SUPPORTED


def test_a_grace_hopper(nvml):
    n = nvml(profile="gh200", memory_used=5000)
    gpu = n.nvmlDeviceGetHandleByIndex(0)
    assert n.nvmlDeviceGetNumaNodeId(gpu) == 1
    assert n.nvmlDeviceGetPciInfo(gpu).domain == 9
    assert n.nvmlDeviceGetMemoryInfo(gpu, version=n.nvmlMemory_v2).used // MIB == 5000
    assert n.nvmlDeviceGetComputeRunningProcesses(gpu) == []


def test_it_agrees_with_nvidia_smi(nvml, tmp_path):
    n = nvml(count=2, profile="h100-pcie")
    asked = "uuid,serial,name,pci.bus_id,power.limit,memory.total,clocks.max.sm"
    tool = [LAB / "bin/nvidia-smi", "--query-gpu=" + asked, "--format=csv,noheader,nounits"]
    lines = subprocess.run(tool, capture_output=True, text=True, timeout=DEADLINE).stdout.splitlines()
    gpus = [n.nvmlDeviceGetHandleByIndex(index) for index in range(2)]
    assert [line.split(", ") for line in lines] == [
        [
            n.nvmlDeviceGetUUID(gpu),
            n.nvmlDeviceGetSerial(gpu),
            n.nvmlDeviceGetName(gpu),
            n.nvmlDeviceGetPciInfo(gpu).busId,
            f"{n.nvmlDeviceGetPowerManagementLimit(gpu) / 1000:.2f}",
            str(n.nvmlDeviceGetMemoryInfo(gpu).total // MIB),
            str(n.nvmlDeviceGetMaxClockInfo(gpu, n.NVML_CLOCK_SM)),
        ]
        for gpu in gpus
    ]


def test_a_hung_driver_does_not_answer(put, tmp_path):
    put(mode="hung")
    program = "import os, pynvml; os.write(1, b'x'); pynvml.nvmlInit(); os.write(1, b'y')"
    env = {**os.environ, "PYTHONPATH": str(LAB / "nvml"), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE) as hung:
        try:
            assert os.read(hung.stdout.fileno(), 1) == b"x"
            time.sleep(0.3)
            assert hung.poll() is None
        finally:
            hung.kill()
        assert hung.stdout.read() == b""


def test_where_it_looks_for_the_program_and_the_state(tmp_path):
    for name in ("bin/nvidia-smi", "nvml/pynvml.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((LAB / name).read_text())
    (tmp_path / "bin/gpu.json").write_text('{"profile": "gh200", "processes": []}')
    program = "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetName(n.nvmlDeviceGetHandleByIndex(0)))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
    env["PYTHONPATH"] = str(tmp_path / "nvml")
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=DEADLINE)
    if not os.path.exists("/etc/lab-gpu.json"):
        assert done.stdout == "NVIDIA GH200 480GB\n"
