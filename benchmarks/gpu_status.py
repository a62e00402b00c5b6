#!/usr/bin/env python3
# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gpu_status on a real GPU: its answers beside those of nvidia-smi, what a look costs, and its verdicts.

Needs an NVIDIA GPU that nobody uses, and torch with CUDA for the loads. The GPU's settings are left as they are. Tables
go to standard output, progress to standard error. Exit status 1 when an answer or a verdict is not the expected one.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
NVML = "nvml"
SOURCES = (NVML, "nvidia_smi")
DEADLINE = 60.0

# Runs the engine as the module does, in a process of its own.
CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.ringrift.recovery.plugins.module_utils import _gpu
print(json.dumps(_gpu.collect(**json.loads(sys.argv[2])).as_dict()))
"""

# Keys of ours, the field of nvidia-smi, and by how much two looks one after the other may differ.
SHARED: Sequence[Tuple[str, str, float]] = (
    ("index", "index", 0),
    ("uuid", "uuid", 0),
    ("bus_id", "pci.bus_id", 0),
    ("serial", "serial", 0),
    ("name", "name", 0),
    ("utilization", "utilization.gpu", 5),
    ("utilization_memory", "utilization.memory", 5),
    ("memory_total", "memory.total", 0),
    ("memory_used", "memory.used", 1),
    ("memory_reserved", "memory.reserved", 1),
    ("power", "power.draw", 10),
    ("power_limit", "enforced.power.limit", 0),
    ("temperature", "temperature.gpu", 2),
    ("temperature_memory", "temperature.memory", 2),
    ("pstate", "pstate", 0),
    ("clock_sm", "clocks.current.sm", 60),
    ("clock_sm_max", "clocks.max.sm", 0),
    ("clock_memory", "clocks.current.memory", 0),
    ("persistence_mode", "persistence_mode", 0),
    ("compute_mode", "compute_mode", 0),
    ("mig_mode", "mig.mode.current", 0),
    ("ecc_mode", "ecc.mode.current", 0),
    ("ecc.volatile.corrected", "ecc.errors.corrected.volatile.total", 0),
    ("ecc.volatile.uncorrected", "ecc.errors.uncorrected.volatile.total", 0),
    ("ecc.aggregate.corrected", "ecc.errors.corrected.aggregate.total", 0),
    ("ecc.aggregate.uncorrected", "ecc.errors.uncorrected.aggregate.total", 0),
    ("remapped_rows.correctable", "remapped_rows.correctable", 0),
    ("remapped_rows.uncorrectable", "remapped_rows.uncorrectable", 0),
    ("remapped_rows_pending", "remapped_rows.pending", 0),
    ("remapped_rows_failure", "remapped_rows.failure", 0),
    ("pcie.generation", "pcie.link.gen.current", 0),
    ("pcie.generation_max", "pcie.link.gen.max", 0),
    ("pcie.width", "pcie.link.width.current", 0),
    ("pcie.width_max", "pcie.link.width.max", 0),
    ("recovery_action", "gpu_recovery_action", 0),
)
WORDS = {"Enabled": True, "Disabled": False, "Yes": True, "No": False}

LOAD = """
import sys, time, torch
what, flag = sys.argv[1:]
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
b = torch.randn_like(a)
torch.cuda.synchronize()
if what == "hold":
    held = torch.zeros(4 << 30, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
open(flag, "w").close()
while what == "hold":
    time.sleep(1)
if what == "spin":
    # One thread that counts clock cycles, for longer than anybody looks.
    torch.cuda._sleep(10**15)
    torch.cuda.synchronize()
net = torch.nn.Sequential(torch.nn.Conv2d(40, 96, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(96, 96, 3, padding=1))
net, planes = net.cuda(), torch.randn(512, 40, 9, 9, device="cuda")
while what == "small":
    net(planes).square().mean().backward()
    torch.cuda.synchronize()
while True:
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
"""
# What each load is, what starts it, and the verdicts that are right for it.
LOADS: Sequence[Tuple[str, Optional[str], Sequence[str]]] = (
    ("nothing runs", None, ("idle",)),
    ("a busy matrix product", "matmul", ("busy",)),
    ("a small convolutional training", "small", ("busy",)),
    ("a process that holds 4 GiB and sleeps", "hold", ("idle_with_process",)),
    ("one thread that spins (what a wedged kernel looks like)", "spin", ("wedged",)),
)


def progress(text: str) -> None:
    print(f"gpu_status.py: {text}", file=sys.stderr, flush=True)


def ours(python: str, source: str, **options: Any) -> Dict[str, Any]:
    """What the module answers, asked in a process of its own."""
    asked = {"source": source, **options}
    argv = [python, "-c", CHILD, str(ROOT / "playbooks/collections"), json.dumps(asked)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode:
        raise SystemExit(f"gpu_status.py: the look through {source} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def query(fields: Sequence[str]) -> List[Dict[str, str]]:
    """What nvidia-smi says, by field, for each GPU."""
    argv = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode:
        raise SystemExit(f"gpu_status.py: {' '.join(argv)}: {done.stdout or done.stderr}")
    return [dict(zip(fields, row)) for row in csv.reader(done.stdout.splitlines(), skipinitialspace=True)]


def known_fields() -> List[str]:
    """Those of SHARED that this driver has."""
    listed = subprocess.run(["nvidia-smi", "--help-query-gpu"], capture_output=True, text=True, timeout=DEADLINE)
    return [field for _key, field, _slack in SHARED if f'"{field}"' in listed.stdout or field == "index"]


def value_of(gpu: Dict[str, Any], key: str) -> Any:
    found: Any = gpu
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def agrees(mine: Any, texts: Sequence[str], slack: float) -> bool:
    """Whether a value of ours is what nvidia-smi said just before or just after."""
    for text in texts:
        if text.startswith("[") or text in ("N/A", ""):
            if mine is None:
                return True
        elif isinstance(mine, bool):
            if WORDS.get(text) is mine:
                return True
        elif isinstance(mine, (int, float)):
            with contextlib.suppress(ValueError):
                if abs(float(text) - mine) <= slack + 0.005:
                    return True
        elif str(mine) == text:
            return True
    return False


def usable(python: str) -> List[str]:
    """The sources that show a GPU here."""
    found = []
    for source in SOURCES:
        seen = ours(python, source, samples=1)
        if seen["gpus"]:
            found.append(source)
        else:
            progress(f"nothing through {source}: {'; '.join(one['message'] for one in seen['problems'])}")
    if not found:
        raise SystemExit("gpu_status.py: no GPU is seen, so there is nothing to compare.")
    return found


def compare(python: str, sources: Sequence[str]) -> List[str]:
    """Print ours beside nvidia-smi's; returns what differs."""
    fields = known_fields()
    before = query(fields)
    answers = {source: ours(python, source) for source in sources}
    after = query(fields)
    wrong = []
    print("\n## The same answers\n")
    print(f"| key of ours | field | nvidia-smi | {' | '.join(sources)} | may differ by |")
    print("| --- | --- | --- |" + " --- |" * len(sources) + " --- |")
    for number, (one, two) in enumerate(zip(before, after)):
        for key, field, slack in SHARED:
            if field not in one:
                print(f"| `{key}` | `{field}` | not a field of this driver |" + " |" * len(sources) + " |")
                continue
            cells = []
            for source in sources:
                mine = value_of(answers[source]["gpus"][number], key)
                good = agrees(mine, (one[field], two[field]), slack)
                if not good:
                    wrong.append(f"{key} through {source} is {mine!r}, nvidia-smi says {one[field]!r}")
                cells.append(f"{show(key, mine)}{'' if good else ' **differs**'}")
            cells += [f"{slack:g}" if slack else ""]
            print(f"| `{key}` | `{field}` | {show(key, one[field])} | {' | '.join(cells)} |")
    return wrong


def show(key: str, value: Any) -> str:
    """A value for the table; what names this very machine is not shown."""
    return "(compared)" if key in ("uuid", "serial", "bus_id") and value is not None else f"{value}"


def cost(python: str, sources: Sequence[str], repeat: int) -> None:
    """Print what one look costs, each in a process of its own, in turn."""
    calls: List[Tuple[str, Callable[[], Any]]] = [
        ("`nvidia-smi -q -x`", lambda: plain(["nvidia-smi", "-q", "-x"])),
        (
            "`nvidia-smi --query-gpu=…`, four fields",
            lambda: query(["uuid", "utilization.gpu", "memory.used", "power.draw"]),
        ),
        ("ours through NVML, one sample", lambda: ours(python, "nvml", samples=1)),
        ("ours through nvidia-smi, one sample", lambda: ours(python, "nvidia_smi", samples=1)),
        ("ours without options, three samples in a second", lambda: ours(python, "auto")),
    ]
    calls = [call for call in calls if NVML in sources or "NVML" not in call[0]]
    if subprocess.run([python, "-c", "import gpustat"], capture_output=True, timeout=DEADLINE).returncode == 0:
        calls.insert(2, ("gpustat --json", lambda: plain([python, "-m", "gpustat", "--json"])))
    seconds: Dict[str, List[float]] = {name: [] for name, _call in calls}
    for turn in range(repeat + 1):
        for name, call in calls:
            begun = time.monotonic()
            call()
            # The first turn fills caches and is not counted.
            if turn:
                seconds[name].append(time.monotonic() - begun)
    base = seconds[calls[0][0]]
    print(f"\n## The cost of one look\n\nMedian of {repeat}, each in a process of its own, in turn.\n")
    print("| who | seconds | against `nvidia-smi -q -x` |\n| --- | --- | --- |")
    for name, _call in calls:
        ratio = statistics.median(mine / theirs for mine, theirs in zip(seconds[name], base))
        print(f"| {name} | {statistics.median(seconds[name]):.3f} | {ratio:.2f} |")
    if "gpustat --json" not in seconds:
        print("\ngpustat is not installed here.")


def plain(argv: Sequence[str]) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=DEADLINE)


@contextlib.contextmanager
def load(python: str, what: Optional[str]) -> Iterator[Optional[subprocess.Popen]]:
    """Put the GPU under a load until the block ends."""
    if what is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        flag = os.path.join(folder, "runs")
        process = subprocess.Popen([python, "-c", LOAD, what, flag], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            end = time.monotonic() + DEADLINE
            while not os.path.exists(flag):
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"gpu_status.py: the load {what} did not start: {process.stderr.read()[-2000:]!r}")
                time.sleep(0.1)
            time.sleep(2)
            yield process
        finally:
            process.kill()
            process.wait(DEADLINE)
            process.stderr.close()


def verdicts(python: str, sources: Sequence[str]) -> List[str]:
    """Print the verdict for each load; returns those that are wrong."""
    wrong = []
    print("\n## Verdicts\n\n| load | through | verdict | in words | tensor, SM and memory activity in % |")
    print("| --- | --- | --- | --- | --- |")

    def row(name: str, source: str, right: Sequence[str]) -> None:
        gpu = ours(python, source)["gpus"][0]
        good = gpu["verdict"] in right
        activity = ", ".join(
            "–" if gpu.get(key) is None else f"{gpu[key]:.1f}"
            for key in ("tensor_activity", "sm_activity", "dram_activity")
        )
        verdict = gpu["verdict"] if good else f"**{gpu['verdict']}**, expected {' or '.join(right)}"
        print(f"| {name} | {source} | {verdict} | {gpu['reason']} | {activity} |", flush=True)
        if not good:
            wrong.append(f"{name} is {gpu['verdict']} through {source}: {gpu['reason']}")

    for name, what, right in LOADS:
        for source in sources:
            progress(f"{name}, {source}")
            with load(python, what):
                row(name, source, right)
            if what is not None:
                settle()
    for source in sources:
        progress(f"killed, {source}")
        with load(python, "matmul"):
            pass
        row("a process that was killed this moment", source, ("idle",))
        settle()
    return wrong


def settle() -> None:
    """Wait until what ran before no longer shows."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if all(float(gpu["utilization.gpu"]) == 0 for gpu in query(["utilization.gpu", "index"])):
            return
        time.sleep(0.2)
    raise SystemExit(
        "gpu_status.py: the GPU does not come to rest. Somebody else uses it; run this on one that is free."
    )


def environment(python: str) -> None:
    gpu = query(["name", "driver_version", "persistence_mode"])
    version = subprocess.run(
        [python, "-c", "from importlib.metadata import version; print(version('nvidia-ml-py'))"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    print(f"Command: `python benchmarks/gpu_status.py {' '.join(sys.argv[1:])}`\n".replace(" `\n", "`\n"))
    print("|  | here |\n| --- | --- |")
    for name, value in (
        ("date", datetime.datetime.now(datetime.timezone.utc).date().isoformat()),
        ("GPU", ", ".join(f"{one['name']}" for one in gpu)),
        ("driver", gpu[0]["driver_version"]),
        ("persistence mode", gpu[0]["persistence_mode"]),
        ("Python", platform.python_version()),
        ("nvidia-ml-py", version.stdout.strip() or "not installed"),
    ):
        print(f"| {name} | {value} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=10, help="looks of each kind (default 10)")
    parser.add_argument("--python", default=sys.executable, help="interpreter with nvidia-ml-py and torch")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error(f"--repeat is {options.repeat}. It must be 1 or more.")
    if shutil.which("nvidia-smi") is None:
        print(
            "gpu_status.py: there is no nvidia-smi, so no GPU to measure on. Run this on a node with one.",
            file=sys.stderr,
        )
        return 2
    environment(options.python)
    settle()
    sources = usable(options.python)
    wrong = compare(options.python, sources)
    cost(options.python, sources, options.repeat)
    if subprocess.run(
        [options.python, "-c", "import torch; torch.zeros(1).cuda()"], capture_output=True, timeout=DEADLINE
    ).returncode:
        progress("no torch with CUDA in --python, so no load can be put on the GPU and no verdict is measured")
        wrong.append("the verdicts were not measured")
    else:
        wrong += verdicts(options.python, sources)
    for line in wrong:
        progress(f"not as expected: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
