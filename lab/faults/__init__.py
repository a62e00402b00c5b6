# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults, one file each. The file's first line of documentation is what `lab break --help` shows."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from lab.errors import LabError, UsageError
from lab.faults._scene import Scene
from lab.instance import Instance

Order = Tuple[str, Optional[str]]


def registry() -> Dict[str, ModuleType]:
    """The faults by name, one for each file here whose name has no leading underscore."""
    names = [entry.name for entry in pkgutil.iter_modules(__path__) if not entry.name.startswith("_")]
    return {name.replace("_", "-"): importlib.import_module(f"{__name__}.{name}") for name in sorted(names)}


def parse(words: Sequence[str], instance: Instance) -> List[Order]:
    """Read ``fault [node] [fault [node] ...]``."""
    known = registry()
    nodes = {node.name for node in instance.nodes}
    orders: List[Order] = []
    for word in words:
        if word in known:
            orders.append((word, None))
        elif word in nodes and orders and orders[-1][1] is None:
            orders[-1] = (orders[-1][0], word)
        else:
            raise UsageError(
                f"{word!r} is no fault and no node that follows one. Faults: {', '.join(known)}. "
                f"Nodes: {', '.join(sorted(nodes))}."
            )
    return orders


def apply(instance: Instance, orders: Sequence[Order]) -> Iterator[str]:
    """Break what is asked for, in that order; a line for each that says what was broken."""
    for fault, node in orders:
        yield registry()[fault].apply(Scene(instance, node))


def mend(instance: Instance, orders: Sequence[Order]) -> Iterator[str]:
    """Undo the faults that can be undone from outside."""
    for fault, node in orders:
        undo = getattr(registry()[fault], "mend", None)
        if undo is None:
            raise LabError(f"{fault} is not undone by the lab: recovering from it is what the collection is for.")
        yield undo(Scene(instance, node))


def summary() -> List[str]:
    """What each fault does, for the help."""
    found = registry()
    width = max(map(len, found))
    return [
        f"  {name.ljust(width)}  {(module.__doc__ or '').strip().splitlines()[0]}" for name, module in found.items()
    ]
