# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults, one file each. The file's first line of documentation is what `lab break --help` shows."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Iterator, List, Optional, Sequence, Tuple

from lab.errors import LabError, UsageError
from lab.faults._scene import Scene
from lab.instance import Instance

Order = Tuple[str, Optional[str]]


def names() -> List[str]:
    """The faults, one for each file here whose name has no leading underscore."""
    return sorted(entry.name.replace("_", "-") for entry in pkgutil.iter_modules(__path__) if entry.name[0] != "_")


def load(fault: str) -> ModuleType:
    """The file of a fault; alone, as some of them load numpy."""
    return importlib.import_module(f"{__name__}.{fault.replace('-', '_')}")


def parse(words: Sequence[str], instance: Instance) -> List[Order]:
    """Read ``fault [node] [fault [node] ...]``."""
    known = names()
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
        yield load(fault).apply(Scene(instance, node))


def mend(instance: Instance, orders: Sequence[Order]) -> Iterator[str]:
    """Undo the faults that can be undone from outside."""
    for fault, node in orders:
        undo = getattr(load(fault), "mend", None)
        if undo is None:
            raise LabError(f"{fault} is not undone by the lab: recovering from it is what the collection is for.")
        yield undo(Scene(instance, node))


def summary() -> List[str]:
    """What each fault does, for the help."""
    found = names()
    width = max(map(len, found))
    return [f"  {name.ljust(width)}  {(load(name).__doc__ or '').strip().splitlines()[0]}" for name in found]
