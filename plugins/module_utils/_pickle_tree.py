# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inert nodes that a pickle is read into, and ways to look at them. This util is private to the collection."""

from __future__ import annotations

import math
from typing import Any, Iterator, List, NamedTuple, Optional, Set, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._zip import shown

MAX_WALK = 500_000
# Nothing that training saves is nested deeper; without an end, the walk itself would need memory without end.
MAX_DEPTH = 200
MAX_NAMES = 200
MAX_PATH = 200
_PARAMETERS = frozenset({"_rebuild_parameter", "_rebuild_parameter_with_state"})


class Global(NamedTuple):
    """A name that a loader would import."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """``module.name``, bounded and printable."""
        return shown(f"{self.module}.{self.name}")


class Mapping:
    """A dict: its pairs in order, keys of any kind."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: List[Tuple[Any, Any]] = []


class Call:
    """A call or an instance that a loader would make: what it would call, set in it, and add or hand to it later."""

    __slots__ = ("func", "args", "items", "more", "tensor")

    def __init__(self, func: Any, args: Any):
        self.func = func
        self.args = args
        self.items: Optional[List[Tuple[Any, Any]]] = None
        self.more: List[Any] = []
        self.tensor: Optional[TensorRef] = None


class Persistent:
    """A persistent id: what the loader's own code would look up."""

    __slots__ = ("value", "storage")

    def __init__(self, value: Any, storage: Optional[StorageRef]):
        self.value = value
        self.storage = storage


class Opaque(NamedTuple):
    """A value of no interest here, such as bytes or an integer beyond all use."""

    kind: str


class StorageRef(NamedTuple):
    """A storage that the pickle refers to: ``numel`` elements of ``itemsize`` bytes (None: unknown type)."""

    type: str
    dtype: str
    itemsize: Optional[int]
    key: str
    location: str
    numel: int

    @property
    def nbytes(self) -> Optional[int]:
        """Bytes that the storage must hold."""
        return None if self.itemsize is None else self.numel * self.itemsize


class TensorRef(NamedTuple):
    """A tensor: a view of a storage. ``offset``, ``shape`` and ``stride`` count elements."""

    storage: Optional[StorageRef]
    dtype: str
    itemsize: Optional[int]
    offset: int
    shape: Tuple[int, ...]
    stride: Tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def bytes_needed(self) -> Optional[int]:
        """How far into its storage the tensor reaches, in bytes; None where the type is unknown."""
        if self.itemsize is None:
            return None
        if not self.elements:
            return 0
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride))
        return (last + 1) * self.itemsize


def get(node: Any, key: str) -> Any:
    """What a dict node holds under a string key, or None; the last one counts, as for a loader."""
    found = None
    for have, value in _pairs(node):
        if isinstance(have, str) and have == key:
            found = value
    return found


def keys(node: Any, limit: int = MAX_NAMES) -> List[str]:
    """The string keys of a dict node, made printable, in order, at most ``limit``."""
    found: List[str] = []
    for key, _value in _pairs(node):
        if len(found) == limit:
            break
        if isinstance(key, str):
            found.append(shown(key))
    return found


def values(node: Any) -> List[Any]:
    """What a dict node holds, in order."""
    return [value for _key, value in _pairs(node)]


def is_tensor(node: Any) -> bool:
    """Whether a node is a tensor or a parameter."""
    if isinstance(node, Call) and isinstance(node.func, Global) and node.func.name in _PARAMETERS:
        node = node.args[0] if isinstance(node.args, tuple) and node.args else None
    return isinstance(node, Call) and node.tensor is not None


def is_mapping(node: Any) -> bool:
    """Whether a node is a dict or an ordered one."""
    return isinstance(node, Mapping) or (isinstance(node, Call) and node.items is not None)


def named_tensors(root: Any) -> Iterator[Tuple[str, TensorRef]]:
    """Every tensor below a node with its path, such as ``model_state_dict.conv1.weight``, in the order of the file.

    A container that several places share is entered once; at most ``MAX_WALK`` nodes are visited, ``MAX_DEPTH`` deep.
    """
    seen: Set[int] = set()
    pending: List[Iterator[Tuple[str, Any]]] = [iter([("", root)])]
    visited = 0
    while pending:
        for path, node in pending[-1]:
            visited += 1
            if visited > MAX_WALK:
                return
            if isinstance(node, Call) and node.tensor is not None:
                yield path, node.tensor
            elif id(node) not in seen and len(pending) < MAX_DEPTH:
                seen.add(id(node))
                pending.append(_children(path, node))
                break
        else:
            pending.pop()


def _children(path: str, node: Any) -> Iterator[Tuple[str, Any]]:
    """What a node holds and could hold a tensor, each with its path."""
    if isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            if not _is_leaf(value):
                yield _join(path, index), value
        return
    for key, value in _pairs(node):
        if not _is_leaf(value):
            yield _join(path, key), value
    if isinstance(node, Call):
        given = node.args if isinstance(node.args, tuple) and not _is_leaf(node.args) else (node.args,)
        for value in (*given, *node.more):
            if not _is_leaf(value):
                yield path, value


def _pairs(node: Any) -> List[Tuple[Any, Any]]:
    if isinstance(node, Mapping):
        return node.items
    if isinstance(node, Call) and node.items is not None:
        return node.items
    return []


def _is_leaf(node: Any) -> bool:
    return isinstance(node, (Global, Opaque)) or not isinstance(node, (Mapping, Call, list, tuple))


def _join(path: str, key: Any) -> str:
    part = shown(key, 120) if isinstance(key, str) else str(key) if isinstance(key, int) else "?"
    return f"{path}.{part}"[-MAX_PATH:] if path else part
