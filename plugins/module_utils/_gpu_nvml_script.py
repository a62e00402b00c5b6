# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is run in an interpreter that has nvidia-ml-py, to read GPUs through NVML. This util is private."""

from __future__ import annotations

# Argument: JSON with seconds, samples, interval, busy, power_fraction, settle, settle_interval.
# The answer is one line of JSON for each stage on the original standard output, so that a hang keeps what was seen.
SCRIPT = r'''
import json, os, signal, sys, time

options = json.loads(sys.argv[1])
signal.alarm(int(options["seconds"]) + 2)
sys.path[:] = [entry for entry in sys.path if entry not in ("", ".")]
out = os.dup(1)
os.dup2(2, 1)


def say(**answer):
    os.write(out, (json.dumps(answer) + "\n").encode())


try:
    import pynvml as N
except Exception as error:
    say(missing=("%s: %s" % (type(error).__name__, error))[:200])
    os._exit(0)

STATES = {3: "not_supported", 13: "not_supported", 25: "not_supported", 4: "no_permission", 6: "not_available",
          15: "lost", 16: "requires_reset"}
ARCHITECTURES = {2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada Lovelace",
                 9: "Hopper", 10: "Blackwell"}
COMPUTE = {0: "Default", 1: "Exclusive_Thread", 2: "Prohibited", 3: "Exclusive_Process"}
ACTIONS = {0: "None", 1: "Reset", 2: "Reboot", 3: "Drain P2P", 4: "Drain and Reset"}
SWITCH = {0: "Disabled", 1: "Enabled"}
YES = {0: "No", 1: "Yes"}
MIB = 1048576


def text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def code_of(error):
    return getattr(error, "value", None)


def ask(cells, key, read):
    try:
        value = read()
        cells[key] = [None, "not_available"] if value is None else [text(value), None]
    except AttributeError:
        cells[key] = [None, "not_supported"]
    except Exception as error:
        cells[key] = [None, STATES.get(code_of(error), "unknown_error")]


def memory(handle):
    """The struct of version 2 tells reserved memory apart from used."""
    try:
        return N.nvmlDeviceGetMemoryInfo(handle, version=N.nvmlMemory_v2)
    except (AttributeError, TypeError):
        return N.nvmlDeviceGetMemoryInfo(handle)
    except N.NVMLError as error:
        if code_of(error) in (3, 13, 25):
            return N.nvmlDeviceGetMemoryInfo(handle)
        raise


def field(handle, number):
    value = N.nvmlDeviceGetFieldValues(handle, [number])[0]
    if value.nvmlReturn:
        raise N.NVMLError(value.nvmlReturn)
    return value.value.uiVal


def reasons(handle):
    get = getattr(N, "nvmlDeviceGetCurrentClocksEventReasons", None) or N.nvmlDeviceGetCurrentClocksThrottleReasons
    return "0x%x" % get(handle)


def volatile(handle):
    cells = {}
    ask(cells, "utilization", lambda: N.nvmlDeviceGetUtilizationRates(handle).gpu)
    ask(cells, "utilization_memory", lambda: N.nvmlDeviceGetUtilizationRates(handle).memory)
    # Rounded up, as nvidia-smi does.
    ask(cells, "memory_used", lambda: -(-memory(handle).used // MIB))
    ask(cells, "power", lambda: "%.2f" % (N.nvmlDeviceGetPowerUsage(handle) / 1000.0))
    ask(cells, "clock_reasons", lambda: reasons(handle))
    return cells


def full(handle, index, uuid, driver):
    cells = {"index": [str(index), None], "uuid": [uuid, None], "driver_version": [driver, None]}
    ask(cells, "bus_id", lambda: text(N.nvmlDeviceGetPciInfo(handle).busId))
    ask(cells, "name", lambda: text(N.nvmlDeviceGetName(handle)))
    ask(cells, "serial", lambda: text(N.nvmlDeviceGetSerial(handle)))
    ask(cells, "architecture", lambda: ARCHITECTURES.get(N.nvmlDeviceGetArchitecture(handle)))
    ask(cells, "memory_total", lambda: memory(handle).total // MIB)
    ask(cells, "memory_reserved", lambda: -(-memory(handle).reserved // MIB))
    ask(cells, "power_limit", lambda: "%.2f" % (N.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000.0))
    ask(cells, "temperature", lambda: N.nvmlDeviceGetTemperature(handle, 0))
    ask(cells, "temperature_memory", lambda: field(handle, 82))
    ask(cells, "pstate", lambda: "P%d" % N.nvmlDeviceGetPerformanceState(handle))
    ask(cells, "clock_sm", lambda: N.nvmlDeviceGetClockInfo(handle, 1))
    ask(cells, "clock_sm_max", lambda: N.nvmlDeviceGetMaxClockInfo(handle, 1))
    ask(cells, "clock_memory", lambda: N.nvmlDeviceGetClockInfo(handle, 2))
    ask(cells, "persistence_mode", lambda: SWITCH.get(N.nvmlDeviceGetPersistenceMode(handle)))
    ask(cells, "compute_mode", lambda: COMPUTE.get(N.nvmlDeviceGetComputeMode(handle)))
    ask(cells, "mig_mode", lambda: SWITCH.get(N.nvmlDeviceGetMigMode(handle)[0]))
    ask(cells, "ecc_mode", lambda: SWITCH.get(N.nvmlDeviceGetEccMode(handle)[0]))
    for key, kind, counter in (("ecc_volatile_corrected", 0, 0), ("ecc_uncorrected_volatile", 1, 0),
                               ("ecc_aggregate_corrected", 0, 1), ("ecc_aggregate_uncorrected", 1, 1)):
        ask(cells, key, lambda: N.nvmlDeviceGetTotalEccErrors(handle, kind, counter))
    for place, key in enumerate(("rows_correctable", "rows_uncorrectable", "rows_pending", "rows_failure")):
        ask(cells, key, lambda: N.nvmlDeviceGetRemappedRows(handle)[place])
    ask(cells, "retired_single", lambda: len(N.nvmlDeviceGetRetiredPages(handle, 0)))
    ask(cells, "retired_double", lambda: len(N.nvmlDeviceGetRetiredPages(handle, 1)))
    ask(cells, "retired_pending", lambda: YES.get(N.nvmlDeviceGetRetiredPagesPendingStatus(handle)))
    ask(cells, "pcie_generation", lambda: N.nvmlDeviceGetCurrPcieLinkGeneration(handle))
    ask(cells, "pcie_generation_max", lambda: N.nvmlDeviceGetMaxPcieLinkGeneration(handle))
    ask(cells, "pcie_width", lambda: N.nvmlDeviceGetCurrPcieLinkWidth(handle))
    ask(cells, "pcie_width_max", lambda: N.nvmlDeviceGetMaxPcieLinkWidth(handle))
    ask(cells, "recovery_action", lambda: ACTIONS.get(field(handle, 230), "unknown"))
    ask(cells, "numa_node", lambda: N.nvmlDeviceGetNumaNodeId(handle))
    cells.update(volatile(handle))
    return cells


def program(pid):
    try:
        return text(N.nvmlSystemGetProcessName(pid))[:200]
    except Exception:
        return None


def processes(handle):
    try:
        found = N.nvmlDeviceGetComputeRunningProcesses(handle)
    except Exception as error:
        return None
    return [[one.pid, program(one.pid), None if one.usedGpuMemory is None else float(one.usedGpuMemory // MIB)]
            for one in found[:1000]]


def links(handle):
    count = active = 0
    for number in range(18):
        try:
            active += N.nvmlDeviceGetNvLinkState(handle, number) == 1
            count += 1
        except Exception:
            break
    return {"links": count, "active": active} if count else None


def instances(handle):
    found = []
    try:
        most = N.nvmlDeviceGetMaxMigDeviceCount(handle)
    except Exception:
        return found
    for number in range(most):
        try:
            part = N.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except Exception:
            continue
        one = {}
        for key, read in (("uuid", lambda: text(N.nvmlDeviceGetUUID(part))),
                          ("gpu_instance", lambda: N.nvmlDeviceGetGpuInstanceId(part)),
                          ("compute_instance", lambda: N.nvmlDeviceGetComputeInstanceId(part)),
                          ("memory_used", lambda: float(memory(part).used // MIB)),
                          ("memory_total", lambda: float(memory(part).total // MIB))):
            try:
                one[key] = read()
            except Exception:
                one[key] = None
        found.append(one)
    return found


def gpm(handle, parts):
    """Samples of the whole GPU, or of its MIG instances."""
    try:
        if not N.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
            return []
        made = []
        for part in parts or [None]:
            sample = N.nvmlGpmSampleAlloc()
            if part is None:
                N.nvmlGpmSampleGet(handle, sample)
            else:
                N.nvmlGpmMigSampleGet(handle, part["gpu_instance"], sample)
            made.append(sample)
        return made
    except Exception:
        return []


def activity(before, after):
    """Percent by name: SM, tensor and DRAM, the most active of all instances."""
    found = {}
    for one, other in zip(before, after):
        try:
            asked = N.c_nvmlGpmMetricsGet_t()
            asked.version = getattr(N, "NVML_GPM_METRICS_GET_VERSION", 1)
            names = (("sm_activity", 2), ("tensor_activity", 5), ("dram_activity", 10))
            asked.numMetrics = len(names)
            asked.sample1, asked.sample2 = one, other
            for place, (_name, number) in enumerate(names):
                asked.metrics[place].metricId = number
            N.nvmlGpmMetricsGet(asked)
            for place, (name, _number) in enumerate(names):
                metric = asked.metrics[place]
                if metric.nvmlReturn == 0 and metric.value == metric.value:
                    found[name] = max(found.get(name, 0.0), round(metric.value, 2))
        except Exception:
            continue
    return found


def cpu(pid):
    try:
        with open("/proc/%d/stat" % pid) as stream:
            fields = stream.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))
    except Exception:
        return None


def number(cell):
    try:
        return float(cell[0])
    except (TypeError, ValueError):
        return None


def trails(row, first, busy_with):
    load, power, limit = number(row["utilization"]), number(row["power"]), number(first["power_limit"])
    if busy_with or busy_with is None or load is None or load < options["busy"]:
        return False
    return power is None or limit is None or power <= options["power_fraction"] * limit


def main():
    try:
        N.nvmlInit()
        count = N.nvmlDeviceGetCount()
        driver = text(N.nvmlSystemGetDriverVersion())
    except Exception as error:
        say(failed=str(error)[:200], code=code_of(error))
        os._exit(0)
    begun, handles, rows, gone = time.monotonic(), [], [], []
    listed, mig, nvlink = {}, {}, {}
    for index in range(count):
        try:
            handle = N.nvmlDeviceGetHandleByIndex(index)
            uuid = text(N.nvmlDeviceGetUUID(handle))
        except Exception as error:
            gone.append([index, str(error)[:200], code_of(error)])
            continue
        handles.append((handle, uuid))
        rows.append(full(handle, index, uuid, driver))
        listed[uuid] = processes(handle)
        mig[uuid] = instances(handle) if rows[-1]["mig_mode"][0] == "Enabled" else []
        nvlink[uuid] = links(handle)
    pids = [entry[0] for entries in listed.values() for entry in entries or ()]
    before = {pid: cpu(pid) for pid in pids}
    opened, opened_at = {uuid: gpm(handle, mig[uuid]) for handle, uuid in handles}, time.monotonic()
    say(version=getattr(N, "__version__", None), rows=rows, gone=gone, processes=listed, mig=mig, nvlink=nvlink,
        driver=driver)
    first = dict((row["uuid"][0], row) for row in rows)
    latest, due, taken, settled = rows, 0.0, 1, 0
    while handles:
        if taken < options["samples"]:
            due = taken * options["interval"]
        elif options["samples"] > 1 and settled < options["settle"] and any(
                trails(row, first[row["uuid"][0]], listed[row["uuid"][0]]) for row in latest):
            due, settled = due + options["settle_interval"], settled + 1
        else:
            break
        if due > options["seconds"] - 0.5:
            break
        time.sleep(max(0.0, begun + due - time.monotonic()))
        at = time.monotonic() - begun
        latest = [dict(volatile(handle), uuid=[uuid, None]) for handle, uuid in handles]
        say(sample=latest, at=at)
        taken += 1
    # GPM wants its two samples at least 100 ms apart.
    active = {}
    if any(opened.values()):
        time.sleep(max(0.0, opened_at + 0.12 - time.monotonic()))
        active = {uuid: activity(opened[uuid], gpm(handle, mig[uuid])) for handle, uuid in handles}
    say(done=1, activity=active, cpu={pid: [before[pid], cpu(pid)] for pid in pids})
    os._exit(0)


main()
'''
