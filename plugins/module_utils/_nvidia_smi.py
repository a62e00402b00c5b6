# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask nvidia-smi, and never wait for it longer than a deadline.

A driver that is stuck leaves nvidia-smi in the kernel, where even SIGKILL does not reach it. So it runs in a session of
its own, is killed when its time is over, and is left behind when it does not die. What it writes is bounded, and is
read as text only. This util is private to the collection.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

# A login without a shell, as Ansible's, may have a shorter PATH than an operator.
MORE_PATH = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/bin")
MAX_OUTPUT = 1 << 20
MAX_MESSAGE = 300
# Between two looks whether the tool has ended although something still holds its output open.
SLICE = 0.05
REAP = 0.2
SEPARATOR = ", "

# What a cell may read instead of a value. These are different things.
NOT_AVAILABLE = "not_available"
NOT_SUPPORTED = "not_supported"
NO_PERMISSION = "no_permission"
UNKNOWN_ERROR = "unknown_error"
LOST = "lost"
REQUIRES_RESET = "requires_reset"
WORDS = {
    "": NOT_AVAILABLE,
    "-": NOT_AVAILABLE,
    "n/a": NOT_AVAILABLE,
    "not found": NOT_AVAILABLE,
    "not supported": NOT_SUPPORTED,
    "function not found": NOT_SUPPORTED,
    "insufficient permissions": NO_PERMISSION,
    "unknown error": UNKNOWN_ERROR,
    "err!": UNKNOWN_ERROR,
    "gpu is lost": LOST,
    "gpu requires reset": REQUIRES_RESET,
}

# Exit codes, as the manual and the health checks of cloud operators have them.
EXIT_CODES = {
    2: ("bad_argument", "it did not accept an argument"),
    3: ("not_available", "the operation is not available on this GPU"),
    4: ("no_permission", "this user may not ask the driver"),
    6: ("no_devices", "no GPU was found"),
    8: ("power_cable", "a power cable of a GPU is not attached"),
    9: ("driver_not_loaded", "the driver is not loaded"),
    10: ("interrupt_problem", "the kernel has a problem with the interrupt of a GPU"),
    12: ("library_missing", "the driver's library was not found"),
    13: ("library_too_old", "the driver's library lacks a function"),
    14: ("inforom_corrupt", "the InfoROM of a GPU is corrupt"),
    15: ("gpu_lost", "a GPU has fallen off the bus"),
    18: ("driver_mismatch", "driver and library are of different versions"),
}
# Words that say more than the exit code with which they come.
SAYINGS = (
    ("Driver/library version mismatch", "driver_mismatch"),
    ("couldn't communicate with the NVIDIA driver", "driver_not_loaded"),
    ("No devices were found", "no_devices"),
    ("GPU is lost", "gpu_lost"),
)

_UNKNOWN_FIELD = re.compile(r'Field "([^"\n]{1,100})" is not a valid field to query')
_NO_HANDLE = re.compile(r"Unable to determine the device handle for GPU ?([0-9A-Fa-f:.]{7,20}?):? ([^\n]{1,200})", re.I)
_LISTED = re.compile(r"^GPU (\d{1,4}): (.{1,200}) \(UUID: (GPU-[0-9A-Za-z-]{1,80})\)\s*$", re.M)
_LISTED_MIG = re.compile(r"^\s+MIG .{1,100}\(UUID: (MIG-[0-9A-Za-z/-]{1,120})\)\s*$")
_NUMBER = re.compile(r"\A(-?\d{1,15}(?:\.\d{1,6})?)(?: ?(?:%|MiB|W|C|MHz))?\Z")


@dataclass(frozen=True)
class Cell:
    """One value: its text, and ``state``, which is None for a value and else says why there is none."""

    text: str
    state: Optional[str]

    @property
    def number(self) -> Optional[float]:
        match = _NUMBER.match(self.text) if self.state is None else None
        return float(match.group(1)) if match else None

    @property
    def word(self) -> Optional[str]:
        return self.text if self.state is None else None


def read_cell(text: str) -> Cell:
    """A value as it stands in the output."""
    text = text.strip()
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    state = WORDS.get(inner.strip().lower())
    if state is None and inner is not text:
        # Brackets never stand around a value.
        state = NOT_AVAILABLE
    return Cell(text, state)


@dataclass(frozen=True)
class Survivor:
    """A process that SIGKILL did not end, because the kernel does not let go of it. ``wchan`` is where it waits."""

    pid: int
    state: Optional[str]
    wchan: Optional[str]


@dataclass(frozen=True)
class Answer:
    """What one call gave. ``code`` is None when it had to be killed; ``survivor`` is set when that did not help."""

    code: Optional[int]
    output: str
    errors: str
    seconds: float
    survivor: Optional[Survivor] = None

    @property
    def hung(self) -> bool:
        return self.code is None

    @property
    def message(self) -> str:
        """The first line that it wrote, to quote."""
        lines = [line.strip() for line in (self.output + "\n" + self.errors).splitlines() if line.strip()]
        return lines[0][:MAX_MESSAGE] if lines else "it wrote nothing"

    @property
    def problem(self) -> Optional[Tuple[str, str]]:
        """Code and words of a failure; None for a call that worked."""
        if self.code == 0 and "No devices were found" not in self.output:
            return None
        if self.code is None:
            return "driver_hung", (
                f"nvidia-smi gave no answer within {self.seconds:.1f} s and was given up; "
                "the driver may be stuck, and then only a reboot of the node helps"
            )
        said = next((code for words, code in SAYINGS if words in self.output or words in self.errors), None)
        if self.code < 0 or self.code > 127 and self.code != 255:
            number = -self.code if self.code < 0 else self.code - 128
            code, words = "tool_killed", f"it was ended by signal {number}"
        else:
            code, words = EXIT_CODES.get(self.code, ("driver_error", "it failed"))
        return said or code, f"nvidia-smi: {words} (exit code {self.code}): {self.message}"


def find_tool(name: str) -> Optional[str]:
    """The path of the tool; None when there is none.

    :raises RecoveryError: there is something of that name that cannot be run
    """
    if os.sep in name:
        path = os.path.abspath(os.path.expanduser(name))
        if not os.path.exists(path):
            return None
    else:
        search = os.pathsep.join([os.environ.get("PATH", ""), *MORE_PATH])
        found = shutil.which(name, path=search)
        if found is None:
            return None
        path = os.path.abspath(found)
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        raise RecoveryError(f"{path} is not a program that this user may run. Set nvidia_smi to the GPU tool.")
    return path


class NvidiaSmi:
    """The tool, and the time that is left for all its calls together."""

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self.end = time.monotonic() + timeout
        self.slowest = 0.0

    @property
    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    def has_time_for(self, calls: int, pause: float = 0.0) -> bool:
        """Whether calls as slow as the slowest so far would still end in time, with as much again in reserve."""
        return self.left > pause + calls * max(0.2, 2 * self.slowest)

    def call(self, *arguments: str) -> Answer:
        answer = run([self.path, *arguments], self.left, inclusive=True)
        self.slowest = max(self.slowest, answer.seconds)
        return answer

    def table(self, switch: str, fields: Sequence[str], only: Sequence[str] = ()) -> Answer:
        """One table in CSV without head and units, of all GPUs or of those with these UUIDs only."""
        chosen = ["-i", ",".join(only)] if only else []
        return self.call(*chosen, f"{switch}={','.join(fields)}", "--format=csv,noheader,nounits")

    def query(
        self, fields: Mapping[str, Sequence[str]], only: Sequence[str] = ()
    ) -> Tuple[Answer, List[Dict[str, Cell]], Dict[str, str]]:
        """``--query-gpu``, whatever of it this driver knows.

        One field that the driver does not know makes the whole query fail, and it names one at a time. So each is
        asked under its next name, or given up, until the rest is answered.

        :param fields: for each key the field's names, the newest first
        :param only: UUIDs of the GPUs to ask for
        :returns: the last answer, one row of cells by key for each GPU, and the name that each key was asked under
        """
        names = {key: list(choices) for key, choices in fields.items()}
        for _attempt in range(sum(len(choices) for choices in fields.values()) + 1):
            asked = {key: choices[0] for key, choices in names.items() if choices}
            answer = self.table("--query-gpu", list(asked.values()), only)
            match = _UNKNOWN_FIELD.search(answer.output) or _UNKNOWN_FIELD.search(answer.errors)
            refused = [key for key, name in asked.items() if match and name == match.group(1)]
            if not refused:
                break
            for key in refused:
                names[key].pop(0)
        return answer, rows(answer.output, list(asked)), asked

    def list_gpus(self) -> List[Tuple[int, str, str, List[str]]]:
        """Index, name, UUID and the UUIDs of the MIG devices of each GPU that can be reached."""
        answer = self.call("-L")
        found: List[Tuple[int, str, str, List[str]]] = []
        for line in answer.output.splitlines():
            match, part = _LISTED.match(line), _LISTED_MIG.match(line)
            if match:
                found.append((int(match.group(1)), match.group(2), match.group(3), []))
            elif part and found:
                found[-1][3].append(part.group(1))
        return found


def rows(output: str, keys: Sequence[str]) -> List[Dict[str, Cell]]:
    """The lines that have one cell for each key; anything else, such as a warning, is no row."""
    found = []
    for line in output.splitlines():
        cells = line.split(SEPARATOR)
        if len(cells) == len(keys) and len(keys) > 1:
            found.append({key: read_cell(text) for key, text in zip(keys, cells)})
    return found


def unreachable(answer: Answer) -> List[Tuple[str, str]]:
    """Bus id and reason of each GPU that the driver has no handle for."""
    found = _NO_HANDLE.findall(answer.output + "\n" + answer.errors)
    return list(dict.fromkeys((bus.rstrip(":"), " ".join(reason.split())) for bus, reason in found))


def run(argv: Sequence[str], timeout: float, inclusive: bool = False) -> Answer:
    """Run a command for at most ``timeout`` seconds; then its session is killed, and it is not waited for."""
    begun = time.monotonic()
    # With ``inclusive``, what it takes to see it die is part of the deadline.
    reap = min(REAP, timeout / 10) if inclusive else 0.0
    end = begun + timeout - reap
    survivor = None
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as exc:
        raise RecoveryError(
            f"{argv[0]} could not be started: {exc.strerror or exc}. Set nvidia_smi to the GPU tool of the node."
        ) from exc
    try:
        texts, code = _read(process, end)
        if code is None:
            survivor = _kill(process, end + (reap or REAP))
    except BaseException:
        _kill(process, 0.0)
        raise
    finally:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    output, errors = (bytes(text).decode("utf-8", "replace") for text in texts)
    return Answer(code, output, errors, time.monotonic() - begun, survivor)


def _read(process: subprocess.Popen[bytes], end: float) -> Tuple[List[bytearray], Optional[int]]:
    """What the process writes until it ends, and its exit code; None when it did not end in time."""
    texts = [bytearray(), bytearray()]
    with selectors.DefaultSelector() as selector:
        for text, stream in zip(texts, filter(None, (process.stdout, process.stderr))):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, text)
        while True:
            # Asked before the read, so that nothing which was written before the end is missed.
            code = process.poll()
            left = end - time.monotonic()
            ready = selector.select(0 if code is not None else max(0.0, min(SLICE, left)))
            for key, _events in ready:
                chunk = os.read(key.fd, 65536)
                if chunk:
                    key.data.extend(chunk[: MAX_OUTPUT - len(key.data)])
                else:
                    selector.unregister(key.fileobj)
            if code is not None and not ready:
                return texts, code
            if left <= 0:
                return texts, code


def _kill(process: subprocess.Popen[bytes], end: float) -> Optional[Survivor]:
    """Kill its session; the process, where it still stands at the end."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    # A moment is always granted: a process that does die takes some milliseconds.
    end = max(end, time.monotonic() + 0.05)
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    if process.returncode is not None:
        return None
    stat = _proc.read_stat(process.pid)
    return Survivor(process.pid, stat.state if stat else None, _proc.read_wchan(process.pid))
