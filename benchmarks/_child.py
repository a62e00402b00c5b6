# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One measured call in a process of its own: ``_child.py ACTION PATH CPUS``; the last line of its output is JSON.

It runs with ``python -I``, for what needs the standard library only also with ``-S``, and imports nothing before the
clock runs, so that what an import costs is seen and counted apart from the call.
"""

import json
import os
import sys
import time

COLLECTIONS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "playbooks", "collections")
PIECE = 1 << 20
AGAIN = 21


# Ours


def ours_samples(path):
    inspect = _ours("_npz").inspect
    return lambda: inspect(path).samples


def ours_npz(path):
    inspect = _ours("_npz").inspect
    return lambda: inspect(path, depth="full").valid


def ours_checkpoint(path):
    verify = _ours("_checkpoint").verify

    def call():
        report = verify(path)
        return f"{report.integrity}" if report.valid else f"invalid: {report.problems[0].code}"

    return call


def ours_structure(path):
    verify = _ours("_checkpoint").verify
    return lambda: verify(path, depth="quick").valid


# numpy


def numpy_samples(path):
    import numpy

    return lambda: len(numpy.load(path)["features"])


def numpy_header(path):
    """The fastest way to the number that numpy offers, for those who know its private functions."""
    import zipfile

    from numpy.lib import format

    def call():
        with zipfile.ZipFile(path) as archive, archive.open("features.npy") as member:
            read = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}
            return read[format.read_magic(member)](member)[0][0]

    return call


def numpy_all(path):
    import numpy

    def call():
        with numpy.load(path) as arrays:
            for name in arrays.files:
                arrays[name]
        return True

    return call


# torch


def torch_load(path):
    import torch

    return lambda: len(torch.load(path, weights_only=True)["model_state_dict"]) > 0


def torch_mmap(path):
    import torch

    return lambda: len(torch.load(path, weights_only=True, mmap=True)["model_state_dict"]) > 0


# safetensors


def safetensors_header(path):
    import numpy  # noqa: F401 (safe_open would import it during the call)
    from safetensors import safe_open

    def call():
        with safe_open(path, framework="numpy") as file:
            return all(file.get_slice(name).get_shape() for name in file.keys())  # noqa: SIM118 (not a dict)

    return call


def safetensors_load(path):
    from safetensors.numpy import load_file

    return lambda: len(load_file(path)) > 0


# Scanners


def picklescan(path):
    from picklescan.scanner import scan_file_path

    def call():
        result = scan_file_path(path)
        return "clean" if result.scanned_files and not result.scan_err and not result.issues_count else "alarm"

    return call


def modelscan(path):
    from modelscan.modelscan import ModelScan

    def call():
        scan = ModelScan()
        found = scan.scan(path)
        return "alarm" if found["issues"] or found["errors"] else "clean" if scan.scanned else "skipped"

    return call


# zip and checksums


def testzip(path):
    import zipfile

    def call():
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None

    return call


def unzip(path):
    """``unzip -t``; its peak memory is looked up while it runs, because a parent cannot ask for it afterwards."""
    import select
    import subprocess

    def call():
        global _program_peak
        program = subprocess.Popen(["unzip", "-tqq", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ended = select.poll()
        ended.register(os.pidfd_open(program.pid), select.POLLIN)
        wait = 1
        _program_peak = 0
        while not ended.poll(wait):
            _program_peak = max(_program_peak, peak_kib(program.pid))
            wait = min(20, wait * 2)
        return program.wait() == 0

    return call


def crc32(path):
    """Nothing but reading and ``zlib.crc32``: what no verification of checksums can be faster than, on one core."""
    from zlib import crc32

    def call():
        crc = 0
        buffer = bytearray(PIECE)
        view = memoryview(buffer)
        with open(path, "rb", buffering=0) as file:
            while True:
                length = file.readinto(buffer)
                if not length:
                    return True
                crc = crc32(view[:length], crc)

    return call


ACTIONS = {
    action.__name__: action
    for action in (
        ours_samples,
        ours_npz,
        ours_checkpoint,
        ours_structure,
        numpy_samples,
        numpy_header,
        numpy_all,
        torch_load,
        torch_mmap,
        safetensors_header,
        safetensors_load,
        picklescan,
        modelscan,
        testzip,
        unzip,
        crc32,
    )
}
_program_peak = None


def _ours(name):
    import importlib

    sys.path.insert(0, COLLECTIONS)
    return importlib.import_module("ansible_collections.ringrift.recovery.plugins.module_utils." + name)


def peak_kib(process):
    """The most memory that a process ever had resident; 0 when it has just ended."""
    try:
        with open(f"/proc/{process}/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def main(name, path, cpus):
    if cpus:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])
    start = time.perf_counter()
    call = ACTIONS[name](path)
    ready = time.perf_counter()
    answer = call()
    done = time.perf_counter()
    # Not getrusage: what it reports begins with the peak of the process that started this one.
    peak = peak_kib("self") if _program_peak is None else _program_peak
    times = os.times()
    if times.children_user and _program_peak is None:
        import resource

        # Helpers of ours count as well; this is an upper bound for one of them.
        peak += resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    again = []
    begin_again = time.perf_counter()
    if name == "ours_samples":
        for _ in range(AGAIN):
            begin = time.perf_counter()
            call()
            again.append(time.perf_counter() - begin)
    result = {
        "answer": answer,
        "imports": ready - start,
        "call": done - ready,
        "again": sorted(again)[len(again) // 2] if again else None,
        "repeating": time.perf_counter() - begin_again,
        "peak_kib": peak,
    }
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
