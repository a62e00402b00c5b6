# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fuzz an engine, guided by its coverage: ``python benchmarks/fuzz.py checkpoint|npz|pickle [-max_total_time=60]``.

Needs atheris, which nothing else here needs. Options that begin with a hyphen and folders of inputs go to libFuzzer. An
input fails when the engine raises anything but a RecoveryError, takes more than five seconds or 256 MiB, or calls a
file unfit without saying why. What fails is kept in ``build/``.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any, Callable, Dict, List

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS = 5
MEMORY = 256 << 20
USAGE = "usage: python benchmarks/fuzz.py checkpoint|npz|pickle [-max_total_time=60] [libFuzzer options and folders]"


class Finding(Exception):
    """The engine did what it must not do."""


def main(arguments: List[str]) -> int:
    """Fuzz until libFuzzer ends; gives the exit status where it does not end the process itself."""
    if arguments[:1] == ["--seeds"]:
        write_seeds(arguments[1], pathlib.Path(arguments[2]))
        return 0
    if not arguments or arguments[0] not in TARGETS:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        import atheris
    except ImportError as exc:
        version = ".".join(str(part) for part in sys.version_info[:2])
        print(
            f"fuzz.py: atheris cannot be imported on Python {version} ({exc}). "
            "Install it with: .venv-benchmarks/bin/pip install atheris==3.0.0",
            file=sys.stderr,
        )
        return 2
    sys.path.insert(0, str(ROOT / "playbooks" / "collections"))
    with atheris.instrument_imports(include=["ansible_collections.ringrift"]):
        look = TARGETS[arguments[0]]()
    memory = pathlib.Path("/dev/shm")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    artifacts = ROOT / "build"
    artifacts.mkdir(exist_ok=True)
    # In a process of its own, because torch would count as memory of the engine; without torch there are fewer seeds.
    subprocess.run([sys.executable, __file__, "--seeds", arguments[0], str(folder)], check=False)
    child = os.fork()
    if child:
        # libFuzzer ends its process without cleaning up.
        signal.signal(signal.SIGTERM, lambda _number, _frame: os.kill(child, signal.SIGTERM))
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        finally:
            shutil.rmtree(folder)
    options = [f"-artifact_prefix={artifacts}/fuzz-{arguments[0]}-", f"-timeout={SECONDS}", *arguments[1:]]
    atheris.Setup([sys.argv[0], *options, str(folder / "seeds")], lambda data: check(look, data, folder / "input"))
    atheris.Fuzz()
    return 0


def check(look: Callable[[str], Any], data: bytes, path: pathlib.Path) -> None:
    """Give one input to the engine."""
    path.write_bytes(data)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS:")
    begin = time.monotonic()
    look(str(path))
    seconds = time.monotonic() - begin
    taken = _memory("VmHWM:") - before
    if seconds > SECONDS:
        raise Finding(f"it took {seconds:.1f} s")
    if taken > MEMORY:
        raise Finding(f"it took {taken >> 20} MiB")


def _memory(name: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0


def _reasoned(fit: bool, problems: Any) -> None:
    """Whoever is told that a file is unfit must be told why."""
    if not fit and not any(problem.severity == "error" and problem.message for problem in problems):
        raise Finding("it is called unfit, and no problem says why")
    for problem in problems:
        if not problem.code or not problem.message:
            raise Finding(f"a problem says nothing: {problem!r}")


def _checkpoint() -> Callable[[str], None]:
    from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify
    from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

    def look(path: str) -> None:
        try:
            report = verify(path)
        except RecoveryError:
            return
        _reasoned(report.valid, report.problems)
        json.dumps(report.as_dict())
        report.summary()

    return look


def _npz() -> Callable[[str], None]:
    from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
    from ansible_collections.ringrift.recovery.plugins.module_utils._npz import inspect

    def look(path: str) -> None:
        try:
            report = inspect(path, depth="full")
        except RecoveryError:
            return
        _reasoned(report.valid, report.problems)
        json.dumps(report.as_dict())
        report.reasons()

    return look


def _pickle() -> Callable[[str], None]:
    from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
    from ansible_collections.ringrift.recovery.plugins.module_utils._pickle import interpret

    def look(path: str) -> None:
        with open(path, "rb") as file:
            data = file.read()
        try:
            report = interpret(data, "input")
        except RecoveryError:
            return
        _reasoned(report.complete, report.problems)

    return look


TARGETS: Dict[str, Callable[[], Callable[[str], None]]] = {"checkpoint": _checkpoint, "npz": _npz, "pickle": _pickle}


def write_seeds(target: str, folder: pathlib.Path) -> None:
    """Whole files to begin with."""
    seeds = folder / "seeds"
    seeds.mkdir()
    warnings.simplefilter("ignore")
    try:
        _npz_seeds(seeds) if target == "npz" else _checkpoint_seeds(target, seeds)
    except ImportError as exc:
        print(f"fuzz.py: beginning without whole files ({exc})", file=sys.stderr)


def _npz_seeds(seeds: pathlib.Path) -> None:
    import numpy

    arrays = {
        "features": numpy.zeros((110, 2, 3), numpy.float32),
        "values": numpy.linspace(-1, 1, 110, dtype=numpy.float32),
        "num_players": numpy.full(110, 2, numpy.int32),
        "board_type": numpy.array("hex8"),
        "data_checksums": numpy.array(json.dumps({"values": "0" * 64})),
        "game_ids": numpy.array(["game"] * 110, dtype=object),
    }
    numpy.savez(seeds / "stored.npz", **arrays)
    numpy.savez_compressed(seeds / "deflated.npz", **arrays)


def _checkpoint_seeds(target: str, seeds: pathlib.Path) -> None:
    import torch

    sys.path.insert(0, str(ROOT / "tests" / "unit"))
    from checkpoint_files import content, save

    saved = content(metadata=True)
    if target == "pickle":
        import zipfile

        path = save(seeds / "whole.pth", saved)
        with zipfile.ZipFile(path) as archive:
            (seeds / "data.pkl").write_bytes(archive.read("whole/data.pkl"))
        path.unlink()
        return
    save(seeds / "zip.pth", saved)
    save(seeds / "nocrc.pth", saved, crc=False)
    save(seeds / "legacy.pth", saved, legacy=True)
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(seeds / "script.pt"))
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (seeds / "tensors.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
