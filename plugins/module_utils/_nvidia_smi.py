# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask nvidia-smi within a deadline for all its calls together, and read what it says.

This util is private to the collection.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils import _command
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError

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
class Answer(_command.Answer):
    """What one call gave, with what its exit code and its words mean."""

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
        found = _command.find(name)
        if found is None:
            return None
        path = found
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        raise RecoveryError(f"{path} is not a program that this user may run. Set nvidia_smi to the GPU tool.")
    return path


def run(argv: Sequence[str], timeout: float) -> Answer:
    """What a tool that asks the driver says within ``timeout`` seconds, of which what it takes to see it die is part.

    :raises RecoveryError: it cannot be started
    """
    try:
        return Answer(**vars(_command.run(argv, timeout, inclusive=True)))
    except RecoveryError as exc:
        raise RecoveryError(f"{exc} Set nvidia_smi to the GPU tool of the node.") from exc


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
        answer = run([self.path, *arguments], self.left)
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
