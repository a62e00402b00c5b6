# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for nvidia-ml-py's module pynvml, from the same state file as the stand-in for nvidia-smi.

Put its directory on PYTHONPATH. What the GPUs are and read comes from the program nvidia-smi: $LAB_NVIDIA_SMI, else
../bin/nvidia-smi, else the one beside this file. The state is $LAB_GPU_STATE, else /etc/lab-gpu.json, else gpu.json
beside that program, and it is read at every call, so that a GPU can break between two of them.

Functions, constants, error classes and the attributes of what is returned are named as in nvidia-ml-py 13, as far as
they are here. A driver that hangs sleeps in nvmlInit and in every later call.
"""

import os
import string
import time
import types

_ERRORS = (
    (1, "UNINITIALIZED", "Uninitialized"),
    (2, "INVALID_ARGUMENT", "Invalid Argument"),
    (3, "NOT_SUPPORTED", "Not Supported"),
    (4, "NO_PERMISSION", "Insufficient Permissions"),
    (5, "ALREADY_INITIALIZED", "Already Initialized"),
    (6, "NOT_FOUND", "Not Found"),
    (7, "INSUFFICIENT_SIZE", "Insufficient Size"),
    (8, "INSUFFICIENT_POWER", "Insufficient External Power"),
    (9, "DRIVER_NOT_LOADED", "Driver Not Loaded"),
    (10, "TIMEOUT", "Timeout"),
    (11, "IRQ_ISSUE", "Interrupt Request Issue"),
    (12, "LIBRARY_NOT_FOUND", "NVML Shared Library Not Found"),
    (13, "FUNCTION_NOT_FOUND", "Function Not Found"),
    (14, "CORRUPTED_INFOROM", "Corrupted infoROM"),
    (15, "GPU_IS_LOST", "GPU is lost"),
    (16, "RESET_REQUIRED", "GPU requires restart"),
    (17, "OPERATING_SYSTEM", "The operating system has blocked the request."),
    (18, "LIB_RM_VERSION_MISMATCH", "RM has detected an NVML/RM version mismatch."),
    (19, "IN_USE", "In use by another client"),
    (20, "MEMORY", "Insufficient Memory"),
    (21, "NO_DATA", "No data"),
    (25, "ARGUMENT_VERSION_MISMATCH", "Argument version mismatch"),
    (26, "DEPRECATED", "Deprecated"),
    (27, "NOT_READY", "Not Ready"),
    (28, "GPU_NOT_FOUND", "GPU not found"),
    (999, "UNKNOWN", "Unknown Error"),
)
NVML_SUCCESS = 0
NVML_FEATURE_DISABLED, NVML_FEATURE_ENABLED = 0, 1
NVML_TEMPERATURE_GPU = 0
NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_CLOCK_VIDEO = range(4)
NVML_COMPUTEMODE_DEFAULT, NVML_COMPUTEMODE_EXCLUSIVE_THREAD = 0, 1
NVML_COMPUTEMODE_PROHIBITED, NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = 2, 3
NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 0, 1
NVML_VOLATILE_ECC, NVML_AGGREGATE_ECC = 0, 1
NVML_MEMORY_LOCATION_DEVICE_MEMORY = NVML_MEMORY_LOCATION_DRAM = 2
NVML_MEMORY_LOCATION_SRAM = 7
NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS = 0
NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR = 1
NVML_DEVICE_ARCH_HOPPER = 9
NVML_DEVICE_MIG_DISABLE, NVML_DEVICE_MIG_ENABLE = 0, 1
NVML_NVLINK_MAX_LINKS = 36
NVML_VALUE_TYPE_UNSIGNED_INT = 1
NVML_FI_DEV_MEMORY_TEMP = 82
NVML_FI_DEV_POWER_AVERAGE, NVML_FI_DEV_POWER_INSTANT = 185, 186
NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230
NVML_GPU_RECOVERY_ACTION_NONE, NVML_GPU_RECOVERY_ACTION_GPU_RESET = 0, 1
NVML_GPU_RECOVERY_ACTION_NODE_REBOOT, NVML_GPU_RECOVERY_ACTION_DRAIN_P2P = 2, 3
NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET = 4
NVML_GPM_METRIC_GRAPHICS_UTIL, NVML_GPM_METRIC_SM_UTIL, NVML_GPM_METRIC_SM_OCCUPANCY = 1, 2, 3
NVML_GPM_METRIC_ANY_TENSOR_UTIL, NVML_GPM_METRIC_DRAM_BW_UTIL = 5, 10
NVML_GPM_METRIC_MAX = 477
NVML_GPM_METRICS_GET_VERSION = NVML_GPM_SUPPORT_VERSION = 1
nvmlMemory_v2 = 0x02000028
nvmlClocksEventReasonGpuIdle = nvmlClocksThrottleReasonGpuIdle = 0x1
nvmlClocksEventReasonApplicationsClocksSetting = nvmlClocksThrottleReasonApplicationsClocksSetting = 0x2
nvmlClocksEventReasonSwPowerCap = nvmlClocksThrottleReasonSwPowerCap = 0x4
nvmlClocksEventReasonHwSlowdown = nvmlClocksThrottleReasonHwSlowdown = 0x8
nvmlClocksEventReasonSyncBoost = nvmlClocksThrottleReasonSyncBoost = 0x10
nvmlClocksEventReasonSwThermalSlowdown = nvmlClocksThrottleReasonSwThermalSlowdown = 0x20
nvmlClocksEventReasonHwThermalSlowdown = nvmlClocksThrottleReasonHwThermalSlowdown = 0x40
nvmlClocksEventReasonHwPowerBrakeSlowdown = nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 0x80
nvmlClocksEventReasonDisplayClockSetting = nvmlClocksThrottleReasonDisplayClockSetting = 0x100

MIB = 1 << 20
HOPPER_LINKS = 18
NO_INSTANCE = 0xFFFFFFFF
ACTIONS = ("None", "Reset", "Reboot", "Drain P2P", "Drain and Reset")
COMPUTE_MODES = ("Default", "Exclusive_Thread", "Prohibited", "Exclusive_Process")
# What a reading says instead of a value.
SAYINGS = {
    "N/A": 3,
    "Not Supported": 3,
    "Requested functionality has been deprecated": 3,
    "Insufficient Permissions": 4,
    "GPU is lost": 15,
    "GPU requires reset": 16,
    "Unknown Error": 999,
}
INIT_ERRORS = {"no_driver": 9, "no_library": 12, "mismatch": 18, "no_permission": 4}
HANDLE_ERRORS = {"lost": 15, "unreachable": 999}
# Percent by metric, as measured: of large matrix products, of one thread that spins, and of nothing.
GPM_BUSY = {1: 99.87, 2: 96.49, 3: 14.26, 4: 1.36, 5: 93.66, 7: 93.66, 10: 17.42}
GPM_SPINS = {1: 100.0, 2: 0.76, 3: 0.01, 10: 0.0004}
GPM_IDLE = {10: 0.0004}


class NVMLError(Exception):
    """An error of NVML; NVMLError(15) makes a NVMLError_GpuIsLost."""

    _classes = {}
    _texts = {code: text for code, _name, text in _ERRORS}

    def __new__(cls, value=999):
        return Exception.__new__(cls._classes.get(value, cls) if cls is NVMLError else cls)

    def __init__(self, value=999):
        Exception.__init__(self, value)
        self.value = value

    def __str__(self):
        return self._texts.get(self.value, f"NVML Error with code {self.value}")

    def __eq__(self, other):
        return isinstance(other, NVMLError) and self.value == other.value

    def __hash__(self):
        return hash(self.value)


def _make_errors():
    for code, name, _text in _ERRORS:
        globals()["NVML_ERROR_" + name] = code
        title = "NVMLError_" + string.capwords(name, "_").replace("_", "")
        made = type(title, (NVMLError,), {"__module__": __name__})
        # Each class knows its own code.
        made.__init__ = lambda self, value=code: NVMLError.__init__(self, value)
        NVMLError._classes[code] = globals()[title] = made


_make_errors()


def nvmlErrorString(result):
    return NVMLError._texts.get(result, "Unknown Error")


def nvmlExceptionClass(code):
    return NVMLError._classes[code]


# The state


def _program():
    here = os.path.dirname(os.path.realpath(__file__))
    paths = [os.path.join(here, os.pardir, "bin", "nvidia-smi"), os.path.join(here, "nvidia-smi")]
    path = os.environ.get("LAB_NVIDIA_SMI") or next((path for path in paths if os.path.exists(path)), paths[0])
    module = types.ModuleType("lab_nvidia_smi")
    with open(path, encoding="utf-8") as stream:
        exec(compile(stream.read(), path, "exec"), module.__dict__)
    return module, os.path.realpath(path)


_smi, _path = _program()
_users = 0


def _state():
    if os.environ.get("LAB_GPU_STATE"):
        return _smi.read_state([os.environ["LAB_GPU_STATE"]])
    return _smi.read_state([_smi.SYSTEM_STATE, os.path.join(os.path.dirname(_path), "gpu.json")])


def _look(beginning=False):
    """The state and its GPUs now, unless the driver does not answer."""
    if not beginning and not _users:
        raise NVMLError(1)
    state = _state()
    gpus = _smi.make_gpus(state)
    modes = _smi.modes_of(state, gpus)
    if beginning:
        time.sleep(float(state.get("seconds", _smi.SLOW_SECONDS if "slow" in modes else 0)))
    if state.get("fail"):
        code = int(state["fail"].get("code", 999))
        raise NVMLError(code if code in NVMLError._texts else 999)
    if "hung" in modes or "hung_once" in modes and beginning and _smi.first_call(state):
        while True:
            time.sleep(1)
    for mode, code in INIT_ERRORS.items():
        if mode in modes:
            raise NVMLError(code)
    if "garbage" in modes:
        raise NVMLError(999)
    return state, [] if "no_devices" in modes else gpus


class _Device:
    """A handle: the number of a GPU, and of a MIG device on it."""

    def __init__(self, index, part=None):
        self.index = index
        self.part = part

    def look(self):
        gpus = _look()[1]
        if self.index >= len(gpus):
            raise NVMLError(15)
        gpu = gpus[self.index]
        if gpu.mode in HANDLE_ERRORS:
            raise NVMLError(HANDLE_ERRORS[gpu.mode])
        return gpu

    def slice(self):
        return list(self.look().parts())[self.part]


def _text(handle, field):
    """What nvidia-smi reads there; the error, where it reads none."""
    if handle.part is not None:
        raise NVMLError(3)
    value = handle.look().values().get(field)
    text = "N/A" if value is None else value.strip("[]")
    if text in SAYINGS:
        raise NVMLError(SAYINGS[text])
    return text


def _whole(handle, field):
    return int(_text(handle, field))


def _milli(handle, field):
    return int(round(float(_text(handle, field)) * 1000))


def _switch(handle, field):
    return int(_text(handle, field) == "Enabled")


def _needs(handle, branch):
    """What an older driver's library does not have yet."""
    if handle.look().branch < branch:
        raise NVMLError(13)


def _answer(**values):
    return types.SimpleNamespace(**values)


# The library and the system


def nvmlInit():
    nvmlInitWithFlags(0)


def nvmlInitWithFlags(flags):
    global _users
    _look(beginning=True)
    _users += 1


def nvmlShutdown():
    global _users
    if not _users:
        raise NVMLError(1)
    _users -= 1


def nvmlSystemGetDriverVersion():
    return str(_look()[0].get("driver_version", _smi.DRIVER))


def nvmlSystemGetNVMLVersion():
    return f"{_smi.cuda_of(_smi.branch_of(_look()[0])).split('.')[0]}.{nvmlSystemGetDriverVersion()}"


def nvmlSystemGetCudaDriverVersion():
    major, minor = _smi.cuda_of(_smi.branch_of(_look()[0])).split(".")
    return int(major) * 1000 + int(minor) * 10


def nvmlSystemGetProcessName(pid):
    for gpu in _look()[1]:
        for process in gpu.processes:
            if process["pid"] == pid:
                return process["name"]
    raise NVMLError(6)


# Devices


def nvmlDeviceGetCount():
    return len(_look()[1])


def nvmlDeviceGetHandleByIndex(index):
    gpus = _look()[1]
    if not 0 <= index < len(gpus):
        raise NVMLError(2)
    handle = _Device(index)
    handle.look()
    return handle


def nvmlDeviceGetHandleByUUID(uuid):
    return _found("uuid", uuid.decode() if isinstance(uuid, bytes) else uuid)


def nvmlDeviceGetHandleByPciBusId(bus_id):
    return _found("bus_id", bus_id.decode() if isinstance(bus_id, bytes) else bus_id)


def _found(name, value):
    for gpu in _look()[1]:
        if getattr(gpu, name) == value:
            return nvmlDeviceGetHandleByIndex(gpu.index)
    raise NVMLError(6)


def nvmlDeviceGetIndex(handle):
    return handle.look().index


def nvmlDeviceGetName(handle):
    gpu = handle.look()
    return gpu.profile["name"] if handle.part is None else f"{gpu.profile['name']} {handle.slice()['name']}"


def nvmlDeviceGetUUID(handle):
    return handle.look().uuid if handle.part is None else handle.slice()["uuid"]


def nvmlDeviceGetSerial(handle):
    return _text(handle, "serial")


def nvmlDeviceGetMinorNumber(handle):
    return handle.look().index


def nvmlDeviceGetVbiosVersion(handle):
    return _text(handle, "vbios_version")


def nvmlDeviceGetPciInfo(handle):
    gpu = handle.look()
    values = gpu.values()
    return _answer(
        busIdLegacy=gpu.short_bus_id,
        domain=int(values["_pci.domain"], 16),
        bus=int(values["_pci.bus"], 16),
        device=int(values["_pci.device"], 16),
        pciDeviceId=int(values["_pci.device_id"], 16),
        pciSubSystemId=int(values["_pci.sub_device_id"], 16),
        busId=gpu.bus_id,
    )


nvmlDeviceGetPciInfo_v3 = nvmlDeviceGetPciInfo


def nvmlDeviceGetArchitecture(handle):
    handle.look()
    return NVML_DEVICE_ARCH_HOPPER


def nvmlDeviceGetNumaNodeId(handle):
    node = handle.look().profile["numa"]
    if node is None:
        raise NVMLError(3)
    return node


def nvmlDeviceGetPersistenceMode(handle):
    return _switch(handle, "persistence_mode")


def nvmlDeviceGetComputeMode(handle):
    return COMPUTE_MODES.index(_text(handle, "compute_mode"))


def nvmlDeviceGetEccMode(handle):
    return [_switch(handle, "ecc.mode.current"), _switch(handle, "ecc.mode.pending")]


# Readings


def nvmlDeviceGetUtilizationRates(handle):
    return _answer(gpu=_whole(handle, "utilization.gpu"), memory=_whole(handle, "utilization.memory"))


def nvmlDeviceGetMemoryInfo(handle, version=None):
    if handle.part is not None:
        part = handle.slice()
        total, used, reserved = part["total"], part["used"], 0
    else:
        total, used, reserved = (_whole(handle, "memory." + name) for name in ("total", "used", "reserved"))
    free = total - used - reserved
    if version is None:
        # The older struct counts what is reserved as used.
        return _answer(total=total * MIB, free=free * MIB, used=(used + reserved) * MIB)
    if version != nvmlMemory_v2:
        raise NVMLError(25)
    return _answer(version=version, total=total * MIB, reserved=reserved * MIB, free=free * MIB, used=used * MIB)


def nvmlDeviceGetPowerUsage(handle):
    return _milli(handle, "power.draw")


def nvmlDeviceGetEnforcedPowerLimit(handle):
    return _milli(handle, "enforced.power.limit")


def nvmlDeviceGetPowerManagementLimit(handle):
    return _milli(handle, "power.limit")


def nvmlDeviceGetPowerManagementDefaultLimit(handle):
    return _milli(handle, "power.default_limit")


def nvmlDeviceGetPowerManagementLimitConstraints(handle):
    return [_milli(handle, "power.min_limit"), _milli(handle, "power.max_limit")]


def _clock(handle, kind, fields):
    if not 0 <= kind < len(fields):
        raise NVMLError(2)
    return _whole(handle, fields[kind])


def nvmlDeviceGetClockInfo(handle, type):
    return _clock(handle, type, ["clocks.current." + name for name in ("graphics", "sm", "memory", "video")])


def nvmlDeviceGetMaxClockInfo(handle, type):
    return _clock(handle, type, ["clocks.max.graphics", "clocks.max.sm", "clocks.max.memory", "_max_video"])


def nvmlDeviceGetCurrentClocksEventReasons(handle):
    _needs(handle, 535)
    return int(_text(handle, "clocks_event_reasons.active"), 16)


def nvmlDeviceGetCurrentClocksThrottleReasons(handle):
    return int(_text(handle, "clocks_event_reasons.active"), 16)


def nvmlDeviceGetTemperature(handle, sensor):
    if sensor != NVML_TEMPERATURE_GPU:
        raise NVMLError(2)
    return _whole(handle, "temperature.gpu")


def nvmlDeviceGetPerformanceState(handle):
    return int(_text(handle, "pstate")[1:])


def nvmlDeviceGetCurrPcieLinkGeneration(handle):
    return _whole(handle, "pcie.link.gen.current")


def nvmlDeviceGetMaxPcieLinkGeneration(handle):
    return _whole(handle, "pcie.link.gen.max")


def nvmlDeviceGetCurrPcieLinkWidth(handle):
    return _whole(handle, "pcie.link.width.current")


def nvmlDeviceGetMaxPcieLinkWidth(handle):
    return _whole(handle, "pcie.link.width.max")


def nvmlDeviceGetNvLinkState(handle, link):
    gpu = handle.look()
    if gpu.profile["links"] is None or gpu.mig:
        raise NVMLError(3)
    if not 0 <= link < HOPPER_LINKS:
        raise NVMLError(2)
    return int(link < gpu.profile["links"])


# Damage


def _ecc(handle, kind, counter, place):
    names = ("corrected", "uncorrected"), ("volatile", "aggregate")
    if kind not in (0, 1) or counter not in (0, 1):
        raise NVMLError(2)
    return _whole(handle, f"ecc.errors.{names[0][kind]}.{names[1][counter]}.{place}")


def nvmlDeviceGetTotalEccErrors(handle, errorType, counterType):
    return _ecc(handle, errorType, counterType, "total")


def nvmlDeviceGetMemoryErrorCounter(handle, errorType, counterType, locationType):
    place = {NVML_MEMORY_LOCATION_DRAM: "dram", NVML_MEMORY_LOCATION_SRAM: "sram"}.get(locationType)
    if place is None:
        raise NVMLError(3)
    return _ecc(handle, errorType, counterType, place)


def nvmlDeviceGetRemappedRows(handle):
    counts = [_whole(handle, "remapped_rows." + name) for name in ("correctable", "uncorrectable")]
    flags = [int(_text(handle, "remapped_rows." + name) == "Yes") for name in ("pending", "failure")]
    return (*counts, *flags)


def nvmlDeviceGetRetiredPages(handle, sourceFilter):
    # Since Ampere rows are remapped, and no page is retired.
    handle.look()
    raise NVMLError(3)


def nvmlDeviceGetRetiredPagesPendingStatus(handle):
    handle.look()
    raise NVMLError(3)


def nvmlDeviceGetFieldValues(handle, fieldIds):
    branch = handle.look().branch
    found = []
    for wanted in fieldIds:
        number, scope = wanted if isinstance(wanted, tuple) else (wanted, 0)
        code = value = 0
        try:
            value = _field(handle, number, branch)
        except NVMLError as error:
            code = error.value
        found.append(
            _answer(
                fieldId=number, scopeId=scope, timestamp=int(time.time() * 1e6), latencyUsec=0,
                valueType=NVML_VALUE_TYPE_UNSIGNED_INT, nvmlReturn=code, value=_union(value),
            )
        )  # fmt: skip
    return found


def _field(handle, number, branch):
    if number == NVML_FI_DEV_MEMORY_TEMP:
        return _whole(handle, "temperature.memory")
    if number in (NVML_FI_DEV_POWER_AVERAGE, NVML_FI_DEV_POWER_INSTANT) and branch >= 535:
        return _milli(handle, "power.draw.average" if number == NVML_FI_DEV_POWER_AVERAGE else "power.draw.instant")
    if number == NVML_FI_DEV_GET_GPU_RECOVERY_ACTION and branch >= 565:
        text = _text(handle, "gpu_recovery_action")
        return ACTIONS.index(text) if text in ACTIONS else len(ACTIONS)
    raise NVMLError(3)


def _union(value):
    return _answer(
        dVal=float(value), siVal=value, uiVal=value, ulVal=value, ullVal=value, sllVal=value, usVal=value & 0xFFFF
    )


# Processes and MIG


def nvmlDeviceGetComputeRunningProcesses(handle):
    gpu = handle.look()
    found = []
    for process in gpu.processes:
        if handle.part is not None and process["mig"] != handle.part:
            continue
        known = gpu.mode not in _smi.TROUBLE
        instance = list(gpu.parts())[process["mig"]]["instance"] if gpu.mig else NO_INSTANCE
        found.append(
            _answer(
                pid=process["pid"],
                usedGpuMemory=process["memory"] * MIB if known else None,
                gpuInstanceId=instance,
                computeInstanceId=0 if gpu.mig else NO_INSTANCE,
            )
        )
    return found


nvmlDeviceGetComputeRunningProcesses_v2 = nvmlDeviceGetComputeRunningProcesses
nvmlDeviceGetComputeRunningProcesses_v3 = nvmlDeviceGetComputeRunningProcesses


def nvmlDeviceGetGraphicsRunningProcesses(handle):
    handle.look()
    return []


nvmlDeviceGetGraphicsRunningProcesses_v2 = nvmlDeviceGetGraphicsRunningProcesses
nvmlDeviceGetGraphicsRunningProcesses_v3 = nvmlDeviceGetGraphicsRunningProcesses


def nvmlDeviceGetMigMode(handle):
    return [_switch(handle, "mig.mode.current"), _switch(handle, "mig.mode.pending")]


def nvmlDeviceGetMaxMigDeviceCount(handle):
    handle.look()
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(handle, index):
    gpu = handle.look()
    if not gpu.mig or index >= len(list(gpu.parts())):
        raise NVMLError(6)
    return _Device(handle.index, index)


def nvmlDeviceIsMigDeviceHandle(handle):
    return int(handle.part is not None)


def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle):
    return _Device(handle.index)


def nvmlDeviceGetGpuInstanceId(handle):
    if handle.part is None:
        raise NVMLError(3)
    return handle.slice()["instance"]


def nvmlDeviceGetComputeInstanceId(handle):
    if handle.part is None:
        raise NVMLError(3)
    return 0


# Performance monitoring


class c_nvmlGpmMetricsGet_t:
    def __init__(self):
        self.version = 0
        self.numMetrics = 0
        self.sample1 = None
        self.sample2 = None
        self.metrics = [_answer(metricId=0, nvmlReturn=0, value=0.0) for _number in range(NVML_GPM_METRIC_MAX)]


def nvmlGpmQueryDeviceSupport(handle):
    return _answer(version=NVML_GPM_SUPPORT_VERSION, isSupportedDevice=int(handle.look().branch >= 525))


def nvmlGpmSampleAlloc():
    return _answer(metrics=None, time=0.0)


def nvmlGpmSampleFree(gpmSample):
    gpmSample.metrics = None


def nvmlGpmSampleGet(handle, gpmSample):
    gpu = handle.look()
    if gpu.mig:
        raise NVMLError(3)
    return _sample(gpu, gpmSample, gpu.computes())


def nvmlGpmMigSampleGet(handle, gpuInstanceId, gpmSample):
    gpu = handle.look()
    numbers = [part["index"] for part in gpu.parts() if part["instance"] == gpuInstanceId]
    if not gpu.mig or not numbers:
        raise NVMLError(2)
    busy = gpu.computes() and any(process["mig"] in numbers and process["works"] for process in gpu.processes)
    return _sample(gpu, gpmSample, busy)


def _sample(gpu, sample, busy):
    if gpu.mode in _smi.TROUBLE:
        raise NVMLError(SAYINGS[_smi.TROUBLE[gpu.mode].strip("[]")])
    sample.metrics = GPM_BUSY if busy else GPM_SPINS if gpu.mode == "wedged" else GPM_IDLE
    sample.time = time.monotonic()
    return sample


def nvmlGpmMetricsGet(metricsGet):
    if metricsGet.version != NVML_GPM_METRICS_GET_VERSION:
        raise NVMLError(25)
    if metricsGet.sample1.metrics is None or metricsGet.sample2.metrics is None:
        raise NVMLError(2)
    for metric in metricsGet.metrics[: metricsGet.numMetrics]:
        metric.value = metricsGet.sample2.metrics.get(metric.metricId, 0.0)
        metric.nvmlReturn = NVML_SUCCESS
    return metricsGet
