# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See what a pickle would build, without building any of it.

The opcodes are followed on a stack of inert nodes. A name that the pickle wants to import stays a name, a call stays a
record of its arguments, so nothing that a file says is ever imported or run. Opcodes, memory, line and integer lengths
are bounded, long texts are passed over, and no walk recurses. This util is private to the collection.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple, Union

from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_globals import (
    ALLOWED,
    DANGEROUS,
    SUSPICIOUS,
    classify,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_opcodes import OPCODES, weight_of
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_tree import (
    MAX_NAMES,
    Call,
    Global,
    Mapping,
    Opaque,
    Persistent,
    StorageRef,
    TensorRef,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, WARNING, Problem
from ansible_collections.ringrift.recovery.plugins.module_utils._torch_types import (
    DTYPES,
    STORAGE_MODULES,
    STORAGES,
    is_float,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import Findings, shown

MAX_PICKLE = 256 << 20
MAX_OPCODES = 1_000_000
# Bytes that the nodes of one pickle may take, by estimate; the two limits stand for some 40,000 tensors.
MAX_WEIGHT = 128 << 20
MAX_LINE = 8192
# Names that are judged once; more of them are judged each time.
MAX_IMPORTED = 1000
MAX_DIMENSIONS = 64
PIECE = 1 << 16
_PAIR_WEIGHT = 72


@dataclass(frozen=True)
class PickleReport:
    """What a pickle holds: ``root`` is the inert tree, None unless ``complete``, and ``end`` the offset behind it."""

    root: Any
    complete: bool
    protocol: Optional[int]
    end: int
    allowed: Tuple[str, ...]
    suspicious: Tuple[str, ...]
    dangerous: Tuple[str, ...]
    storages: Tuple[StorageRef, ...]
    tensors: Tuple[TensorRef, ...]
    problems: Tuple[Problem, ...]


class Source:
    """A bounded reader for one pickle after another: from bytes, from pieces of them one after the other, or from a
    function ``pull(offset, length)``.
    """

    def __init__(
        self,
        data: Union[bytes, Iterable[bytes], Callable[[int, int], bytes]],
        offset: int = 0,
        limit: int = MAX_PICKLE,
    ):
        self._pull: Optional[Callable[[int, int], bytes]] = None
        self._buffer = b""
        if isinstance(data, bytes):
            self._buffer = data[offset : offset + limit]
        elif callable(data):
            self._pull = data
        else:
            pieces = iter(data)
            self._pull = lambda _offset, _length: next(pieces, b"")
        self._base = offset
        self._at = 0
        self._end = offset + limit
        self.cut = isinstance(data, bytes) and len(data) - offset > limit

    def tell(self) -> int:
        """The absolute offset of the next byte."""
        return self._base + self._at

    def byte(self) -> int:
        """The next byte, or -1 at the end."""
        if self._at >= len(self._buffer):
            self._fill(1)
            if self._at >= len(self._buffer):
                return -1
        self._at += 1
        return self._buffer[self._at - 1]

    def read(self, length: int) -> bytes:
        """At most ``length`` bytes; fewer only at the end of the data or of the limit."""
        self._fill(length)
        data = self._buffer[self._at : self._at + length]
        self._at += len(data)
        return data

    def skip(self, length: int) -> bool:
        """Pass over ``length`` bytes in pieces; False where there are fewer."""
        while length > 0:
            passed = len(self.read(min(length, PIECE)))
            if not passed:
                return False
            length -= passed
        return True

    def readline(self) -> bytes:
        """A line with its end, at most ``MAX_LINE`` bytes of it."""
        self._fill(MAX_LINE)
        stop = self._buffer.find(b"\n", self._at, self._at + MAX_LINE)
        stop = self._at + MAX_LINE if stop < 0 else stop + 1
        data = self._buffer[self._at : stop]
        self._at += len(data)
        return data

    def _fill(self, length: int) -> None:
        while self._pull is not None and len(self._buffer) - self._at < length:
            begin = self._base + len(self._buffer)
            data = b""
            if begin < self._end:
                data = self._pull(begin, min(max(PIECE, length), self._end - begin))[: self._end - begin]
            if not data:
                self.cut = self.cut or begin >= self._end
                return
            self._base += self._at
            self._buffer = self._buffer[self._at :] + data
            self._at = 0


def interpret(
    data: Union[bytes, Source],
    member: Optional[str] = None,
    tensors: Optional[Dict[str, TensorRef]] = None,
) -> PickleReport:
    """Follow one pickle to its end.

    :param member: the name to report problems under
    :param tensors: what its persistent ids refer to, in a format that keeps tensors outside of the pickle
    :returns: what was seen, also of a pickle that is damaged or breaks off: then ``problems`` has an error
    """
    source = data if isinstance(data, Source) else Source(data)
    return _Machine(source, member, tensors).run()


class _Damaged(ValueError):
    """The opcodes make no sense."""


_MARK = Opaque("mark")


class _Machine:
    def __init__(self, source: Source, member: Optional[str], known: Optional[Dict[str, TensorRef]]):
        self._source = source
        self._member = member
        self._known = known
        self._findings = Findings()
        self._stack: List[Any] = []
        self._memo: Dict[int, Any] = {}
        self._globals: Dict[str, Dict[str, None]] = {ALLOWED: {}, SUSPICIOUS: {}, DANGEROUS: {}}
        self._storages: List[StorageRef] = []
        self._tensors: List[TensorRef] = []
        self._protocol: Optional[int] = None
        self._weight = 0
        self._frame_end = 0
        self._imported: Set[Global] = set()

    def run(self) -> PickleReport:
        root, complete = None, False
        try:
            root = self._follow()
            complete = True
        except _TooLarge as exc:
            self._findings.add("pickle_too_large", str(exc), self._member, self._source.tell())
        except (ValueError, OverflowError, struct.error) as exc:
            if self._source.cut:
                message = f"its pickle is longer than the {MAX_PICKLE} bytes that are examined"
                self._findings.add("pickle_too_large", message, self._member, self._source.tell())
            else:
                message = f"its pickle is damaged: {shown(str(exc))}"
                self._findings.add("pickle_damaged", message, self._member, self._source.tell())
        self._judge()
        lists = {kind: tuple(names) for kind, names in self._globals.items()}
        return PickleReport(
            root=root,
            complete=complete,
            protocol=self._protocol,
            end=self._source.tell(),
            allowed=lists[ALLOWED],
            suspicious=lists[SUSPICIOUS],
            dangerous=lists[DANGEROUS],
            storages=tuple(self._storages),
            tensors=tuple(self._tensors),
            problems=self._findings.as_tuple(),
        )

    def _judge(self) -> None:
        dangerous, suspicious = self._globals[DANGEROUS], self._globals[SUSPICIOUS]
        if dangerous:
            message = f"loading it would run {_listed(dangerous)}: do not load it"
            self._findings.add("dangerous_pickle", message, self._member, severity=ERROR)
        if suspicious:
            message = f"it needs {_listed(suspicious)}, which torch.load(weights_only=True) refuses"
            self._findings.add("unknown_globals", message, self._member, severity=WARNING)

    def _follow(self) -> Any:
        source, stack = self._source, self._stack
        for _count in range(MAX_OPCODES):
            begin = source.tell() if self._frame_end else 0
            code = source.byte()
            if code < 0:
                raise _Damaged("it breaks off")
            step = _STEPS[code]
            if step is None:
                raise _Damaged(f"there is no opcode {code:#04x}")
            kind, read, weight, act = step
            self._weight += weight
            if self._weight > MAX_WEIGHT:
                raise _TooLarge(f"what its pickle describes takes more than {MAX_WEIGHT >> 20} MiB of memory")
            arg = None if read is None else read(source)
            if self._frame_end and begin < self._frame_end < source.tell():
                raise _Damaged("an opcode reaches beyond its frame, where loaders do not agree on what follows")
            if kind is _PUSH:
                self._weight += weight_of(arg)
                stack.append(arg)
            elif kind is _CONSTANT:
                stack.append(act)
            elif kind is _ACT:
                act(self, arg)
            else:
                return self._stop()
        raise _TooLarge(f"its pickle has more than the {MAX_OPCODES} opcodes that are examined")

    def _stop(self) -> Any:
        root = self._pop()
        if self._stack:
            raise _Damaged("values are left over at its end")
        if self._source.tell() < self._frame_end:
            raise _Damaged("it ends inside a frame")
        return root

    def _frame(self, arg: int) -> None:
        if self._source.tell() < self._frame_end:
            raise _Damaged("a frame begins inside a frame")
        self._frame_end = self._source.tell() + arg

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise _Damaged("a value is missing")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise _Damaged("a value is missing")
        return self._stack[-1]

    def _pop_mark(self) -> List[Any]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                items = self._stack[index + 1 :]
                del self._stack[index:]
                return items
        raise _Damaged("a mark is missing")

    def _push_mark(self, _arg: Any) -> None:
        self._stack.append(_MARK)

    def _drop(self, _arg: Any) -> None:
        if not self._stack:
            raise _Damaged("a value is missing")
        self._stack.pop()

    def _drop_mark(self, _arg: Any) -> None:
        self._pop_mark()

    def _duplicate(self, _arg: Any) -> None:
        self._stack.append(self._top())

    def _proto(self, arg: int) -> None:
        if arg > 5:
            raise _Damaged(f"protocol {arg} is not known")
        self._protocol = arg

    def _ignore(self, _arg: Any) -> None:
        pass

    def _new_list(self, _arg: Any) -> None:
        self._stack.append([])

    def _new_dict(self, _arg: Any) -> None:
        self._stack.append(Mapping())

    def _tuple1(self, _arg: Any) -> None:
        self._stack.append((self._pop(),))

    def _tuple2(self, _arg: Any) -> None:
        second, first = self._pop(), self._pop()
        self._stack.append((first, second))

    def _tuple3(self, _arg: Any) -> None:
        third, second, first = self._pop(), self._pop(), self._pop()
        self._stack.append((first, second, third))

    def _tuple(self, _arg: Any) -> None:
        self._stack.append(tuple(self._pop_mark()))

    def _list(self, _arg: Any) -> None:
        self._stack.append(self._pop_mark())

    def _dict(self, _arg: Any) -> None:
        items = self._pop_mark()
        node = Mapping()
        self._put_items(node, items)
        self._stack.append(node)

    def _append(self, _arg: Any) -> None:
        item = self._pop()
        self._put_values(self._top(), [item])

    def _appends(self, _arg: Any) -> None:
        items = self._pop_mark()
        self._put_values(self._top(), items)

    def _setitem(self, _arg: Any) -> None:
        value, key = self._pop(), self._pop()
        self._put_items(self._top(), [key, value])

    def _setitems(self, _arg: Any) -> None:
        items = self._pop_mark()
        self._put_items(self._top(), items)

    def _put_values(self, node: Any, values: List[Any]) -> None:
        if isinstance(node, list):
            node.extend(values)
        elif isinstance(node, Call) and node.items is None and node.tensor is None:
            node.more.extend(values)
        else:
            raise _Damaged("something is appended to what is no list")

    def _put_items(self, node: Any, items: List[Any]) -> None:
        if len(items) % 2:
            raise _Damaged("a key has no value")
        if not all(_is_hashable(key) for key in items[::2]):
            raise _Damaged("a key is of a kind that a dict cannot hold")
        pairs = list(zip(items[::2], items[1::2]))
        if isinstance(node, Mapping):
            node.items.extend(pairs)
        elif isinstance(node, Call) and node.tensor is None:
            if node.items is None:
                node.items = []
            node.items.extend(pairs)
        else:
            raise _Damaged("an item is set in what is no dict")

    def _memo_get(self, arg: int) -> None:
        if arg not in self._memo:
            raise _Damaged(f"memo {arg} is not there")
        self._stack.append(self._memo[arg])

    def _memo_put(self, arg: int) -> None:
        self._memo[arg] = self._top()

    def _memoize(self, _arg: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def _global(self, arg: str) -> None:
        module, _space, name = arg.partition(" ")
        self._stack.append(self._import(module, name))

    def _stack_global(self, _arg: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            name, module = "<computed>", ""
        self._stack.append(self._import(module, name))

    def _extension(self, arg: int) -> None:
        self._note(DANGEROUS, f"copyreg extension {arg}")
        self._stack.append(Global("copyreg", "extension"))

    def _inst(self, arg: str) -> None:
        module, _space, name = arg.partition(" ")
        items = self._pop_mark()
        self._call(self._import(module, name), tuple(items))

    def _obj(self, _arg: Any) -> None:
        items = self._pop_mark()
        if not items:
            raise _Damaged("a class is missing")
        self._call(items[0], tuple(items[1:]))

    def _reduce(self, _arg: Any) -> None:
        args, func = self._pop(), self._pop()
        self._call(func, args)

    def _newobj_ex(self, _arg: Any) -> None:
        kwargs, args, func = self._pop(), self._pop(), self._pop()
        self._call(func, (args, kwargs))

    def _build(self, _arg: Any) -> None:
        state = self._pop()
        node = self._top()
        if isinstance(node, Call):
            node.more.append(state)

    def _persid(self, arg: str) -> None:
        self._persistent(arg)

    def _binpersid(self, _arg: Any) -> None:
        self._persistent(self._pop())

    def _import(self, module: str, name: str) -> Global:
        node = Global(module, name)
        if node not in self._imported:
            if len(self._imported) < MAX_IMPORTED:
                self._imported.add(node)
            self._note(DANGEROUS if " " in name else classify(module, name), node.path)
        return node

    def _note(self, kind: str, path: str) -> None:
        names = self._globals[kind]
        if len(names) < MAX_NAMES:
            names[path] = None

    def _persistent(self, value: Any) -> None:
        if self._known is not None:
            self._persistent_tensor(value, self._known)
            return
        storage = _storage(value)
        if storage is not None:
            self._storages.append(storage)
        elif not (isinstance(value, tuple) and value[:1] == ("module",)):
            self._findings.add("pickle_damaged", "it refers to a storage in an unknown way", self._member)
        self._stack.append(Persistent(value, storage))

    def _persistent_tensor(self, value: Any, known: Dict[str, TensorRef]) -> None:
        tensor = known.get(str(value)) if isinstance(value, (int, str)) else None
        if tensor is None and not isinstance(value, tuple):
            message = f"it refers to the tensor {shown(str(value))}, which is not in the file"
            self._findings.add("storage_missing", message, self._member)
        node = Call(None, ())
        node.tensor = tensor
        if tensor is not None:
            self._tensors.append(tensor)
        self._stack.append(node)

    def _call(self, func: Any, args: Any) -> None:
        if not _is_callable(func) or not isinstance(args, (tuple, list, Opaque, Call)):
            raise _Damaged("it calls what is no function, or with what are no arguments")
        node = Call(func, args)
        if isinstance(func, Global):
            if func.name in _REBUILD:
                node.tensor = self._tensor(func, args)
            elif func.name in ("OrderedDict", "Counter", "defaultdict"):
                node.items = _initial_items(args)
                # A short pickle can ask for copies of one long list without end.
                self._weight += len(node.items) * _PAIR_WEIGHT
        self._stack.append(node)

    def _tensor(self, func: Global, args: Any) -> Optional[TensorRef]:
        if func.name == "_rebuild_from_type_v2":
            inner = args[0] if isinstance(args, tuple) and len(args) == 4 else None
            if not isinstance(inner, Global) or inner.name not in _REBUILD or inner.name == func.name:
                return None
            return self._tensor(inner, args[2])
        try:
            tensor = _tensor(func.name, args)
        except _Damaged as exc:
            self._findings.add("tensor_malformed", f"a tensor's description makes no sense: {exc}", self._member)
            return None
        self._tensors.append(tensor)
        return tensor


class _TooLarge(Exception):
    """More than is examined."""


_REBUILD = frozenset(
    {
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v3",
        "_rebuild_qtensor",
        "_rebuild_meta_tensor_no_storage",
        "_rebuild_from_type_v2",
    }
)
_PUSHED_TEXT = """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES
    BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT
"""
_PUSHED = frozenset(_PUSHED_TEXT.split())
_CONSTANTS: Dict[str, Any] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "NEXT_BUFFER": Opaque("buffer"),
}
_HANDLERS: Dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._push_mark,
    "POP": _Machine._drop,
    "POP_MARK": _Machine._drop_mark,
    "DUP": _Machine._duplicate,
    "PROTO": _Machine._proto,
    "FRAME": _Machine._frame,
    "READONLY_BUFFER": _Machine._ignore,
    "EMPTY_LIST": _Machine._new_list,
    "EMPTY_SET": _Machine._new_list,
    "EMPTY_DICT": _Machine._new_dict,
    "TUPLE1": _Machine._tuple1,
    "TUPLE2": _Machine._tuple2,
    "TUPLE3": _Machine._tuple3,
    "TUPLE": _Machine._tuple,
    "FROZENSET": _Machine._tuple,
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._appends,
    "SETITEM": _Machine._setitem,
    "SETITEMS": _Machine._setitems,
    "GET": _Machine._memo_get,
    "BINGET": _Machine._memo_get,
    "LONG_BINGET": _Machine._memo_get,
    "PUT": _Machine._memo_put,
    "BINPUT": _Machine._memo_put,
    "LONG_BINPUT": _Machine._memo_put,
    "MEMOIZE": _Machine._memoize,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "EXT1": _Machine._extension,
    "EXT2": _Machine._extension,
    "EXT4": _Machine._extension,
    "INST": _Machine._inst,
    "OBJ": _Machine._obj,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "NEWOBJ_EX": _Machine._newobj_ex,
    "BUILD": _Machine._build,
    "PERSID": _Machine._persid,
    "BINPERSID": _Machine._binpersid,
}


def _steps() -> List[Optional[Tuple[str, Any, int, Any]]]:
    """What to do at each opcode: its kind, the reader of its argument, its weight, and a constant or a handler."""
    steps: List[Optional[Tuple[str, Any, int, Any]]] = []
    for opcode in OPCODES:
        if opcode is None:
            steps.append(None)
        elif opcode.name in _PUSHED:
            steps.append((_PUSH, opcode.read, opcode.weight, None))
        elif opcode.name in _CONSTANTS:
            steps.append((_CONSTANT, opcode.read, opcode.weight, _CONSTANTS[opcode.name]))
        elif opcode.name in _HANDLERS:
            steps.append((_ACT, opcode.read, opcode.weight, _HANDLERS[opcode.name]))
        else:
            steps.append((_STOP, opcode.read, opcode.weight, None) if opcode.name == "STOP" else None)
    return steps


_PUSH, _CONSTANT, _ACT, _STOP = "push", "constant", "act", "stop"
_STEPS = _steps()


def _is_hashable(node: Any, depth: int = 0) -> bool:
    """Whether it can be a key; tuples are looked into where they are small, as those of real keys are."""
    if isinstance(node, tuple) and not isinstance(node, (Global, Opaque)) and len(node) <= 8 and depth < 3:
        return all(_is_hashable(part, depth + 1) for part in node)
    return not isinstance(node, (list, Mapping)) and not (isinstance(node, Call) and node.items is not None)


def _is_callable(node: Any) -> bool:
    """Whether a loader could call it: a name, or what a call or a persistent id gave, but no tensor and no dict."""
    if isinstance(node, Call):
        return node.tensor is None and node.items is None
    return isinstance(node, Global) or (isinstance(node, Persistent) and node.storage is None)


def _listed(names: Dict[str, None]) -> str:
    some = list(names)[:5]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(some) + more


def _text(value: Any) -> Optional[str]:
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    return value if isinstance(value, str) else None


def is_count(value: Any) -> bool:
    """Whether it is a whole number that a file may count with; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _storage(value: Any) -> Optional[StorageRef]:
    """``("storage", <storage class>, key, location, elements[, view])``, as torch writes it."""
    if not isinstance(value, tuple) or len(value) not in (5, 6) or _text(value[0]) != "storage":
        return None
    cls, key, location, numel = value[1], _text(value[2]), _text(value[3]), value[4]
    if not isinstance(cls, Global) or cls.module not in STORAGE_MODULES or not cls.name.endswith("Storage"):
        return None
    if key is None or location is None or not is_count(numel) or (len(value) == 6 and not _is_view(value[5])):
        return None
    dtype, itemsize = STORAGES.get(cls.name[: -len("Storage")], (shown(cls.name), None))
    return StorageRef(shown(cls.name), dtype, itemsize, key, shown(location), numel)


def _is_view(value: Any) -> bool:
    """Whether it is what the format before torch 1.6 says of a storage that is a part of another one."""
    return value is None or (isinstance(value, tuple) and len(value) == 3 and is_count(value[1]) and is_count(value[2]))


def _sizes(value: Any) -> Tuple[int, ...]:
    if isinstance(value, Call) and isinstance(value.func, Global) and value.func.name == "Size":
        value = value.args[0] if isinstance(value.args, tuple) and len(value.args) == 1 else None
    if not isinstance(value, (tuple, list)) or len(value) > MAX_DIMENSIONS or not all(is_count(size) for size in value):
        raise _Damaged("its shape is not one")
    return tuple(value)


def _dtype(value: Any) -> Tuple[str, Optional[int]]:
    if not isinstance(value, Global) or value.module != "torch":
        raise _Damaged("its element type is not one")
    return shown(value.name), DTYPES.get(value.name)


def _tensor(name: str, args: Any) -> TensorRef:
    if not isinstance(args, tuple) or len(args) < 4:
        raise _Damaged("it has too few parts")
    if name == "_rebuild_meta_tensor_no_storage":
        dtype, itemsize = _dtype(args[0])
        return TensorRef(None, dtype, itemsize, 0, _sizes(args[1]), _sizes(args[2]))
    storage = args[0].storage if isinstance(args[0], Persistent) else None
    if storage is None or not is_count(args[1]):
        raise _Damaged("it has no storage")
    shape, stride = _sizes(args[2]), _sizes(args[3])
    if len(shape) != len(stride):
        raise _Damaged("its shape and stride do not fit")
    dtype, itemsize = storage.dtype, storage.itemsize
    if name == "_rebuild_tensor_v2" and len(args) > 4 and args[4] is True and itemsize and not is_float(dtype):
        raise _Damaged(f"{dtype} numbers cannot have a gradient")
    if name == "_rebuild_tensor_v3":
        if len(args) < 7:
            raise _Damaged("it has too few parts")
        dtype, itemsize = _dtype(args[6])
    return TensorRef(storage, dtype, itemsize, args[1], shape, stride)


def _initial_items(args: Any) -> List[Tuple[Any, Any]]:
    given = args[0] if isinstance(args, tuple) and args else None
    if isinstance(given, Mapping):
        return list(given.items)
    if isinstance(given, list):
        return [(pair[0], pair[1]) for pair in given if isinstance(pair, (tuple, list)) and len(pair) == 2]
    return []
