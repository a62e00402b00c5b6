# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See what a pickle would build, without building any of it.

The opcodes are followed on a stack of inert nodes. A name that the pickle wants to import stays a name, a call stays a
record of its arguments, so nothing that a file says is ever imported or run. Opcodes, bytes, line and integer lengths
are bounded, and no walk recurses. This util is private to the collection.
"""

from __future__ import annotations

import math
import pickletools
import struct
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from ansible_collections.ringrift.recovery.plugins.module_utils._problem import ERROR, WARNING, Problem
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import Findings, shown

MAX_PICKLE = 64 << 20
MAX_OPCODES = 3_000_000
MAX_LINE = 8192
MAX_INT_BITS = 128
MAX_DIMENSIONS = 64
MAX_WALK = 1_000_000
MAX_NAMES = 200
MAX_PATH = 200
PIECE = 1 << 16

ALLOWED = "allowed"
SUSPICIOUS = "suspicious"
DANGEROUS = "dangerous"

# Bytes of one element, by the first part of a storage's class name.
STORAGES = {
    "Double": ("float64", 8),
    "Float": ("float32", 4),
    "Half": ("float16", 2),
    "BFloat16": ("bfloat16", 2),
    "Long": ("int64", 8),
    "Int": ("int32", 4),
    "Short": ("int16", 2),
    "Char": ("int8", 1),
    "Byte": ("uint8", 1),
    "Bool": ("bool", 1),
    "ComplexDouble": ("complex128", 16),
    "ComplexFloat": ("complex64", 8),
    "QInt8": ("qint8", 1),
    "QUInt8": ("quint8", 1),
    "QInt32": ("qint32", 4),
    "QUInt4x2": ("quint4x2", 1),
    "QUInt2x4": ("quint2x4", 1),
    "Untyped": ("uint8", 1),
    "_Untyped": ("uint8", 1),
}
DTYPES = {
    **dict(STORAGES.values()),
    "complex32": 4,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "bits8": 1,
    "bits16": 2,
    "bits1x8": 1,
    "bits2x4": 1,
    "bits4x2": 1,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1,
    **{f"{sign}int{bits}": 1 for sign in ("", "u") for bits in range(1, 8)},
}

_TORCH_UTILS = frozenset(
    {
        "_rebuild_parameter",
        "_rebuild_parameter_with_state",
        "_rebuild_qtensor",
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v3",
        "_rebuild_sparse_tensor",
        "_rebuild_meta_tensor_no_storage",
        "_rebuild_nested_tensor",
        "_rebuild_wrapper_subclass",
        "_rebuild_device_tensor_from_numpy",
        "_rebuild_device_tensor_from_cpu_tensor",
    }
)
_ALLOWED = frozenset(
    {
        ("collections", "OrderedDict"),
        ("collections", "Counter"),
        ("torch", "Size"),
        ("torch", "Tensor"),
        ("torch", "device"),
        ("torch.nn.parameter", "Parameter"),
        ("torch.serialization", "_get_layout"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("_codecs", "encode"),
        *(("builtins", name) for name in ("bytearray", "set", "complex")),
        *(("torch.jit._pickle", f"build_{kind}list") for kind in ("int", "tensor", "double", "bool")),
        ("torch.jit._pickle", "restore_type_tag"),
        *(("torch", f"per_{what}") for what in ("tensor_affine", "tensor_symmetric", "channel_affine")),
        *(("torch", f"per_{what}") for what in ("channel_symmetric", "channel_affine_float_qparams")),
    }
)
# Harmless to name, though their modules or neighbours are not; torch refuses them all the same.
_HARMLESS = frozenset(
    {
        *(
            ("builtins", name)
            for name in ("frozenset", "int", "float", "str", "bytes", "list", "dict", "tuple", "bool")
        ),
        *(("builtins", name) for name in ("slice", "range", "object", "NoneType", "Ellipsis")),
        ("types", "SimpleNamespace"),
        ("types", "MappingProxyType"),
        ("uuid", "UUID"),
        ("uuid", "SafeUUID"),
        ("logging", "getLogger"),
    }
)
_STORAGE_KINDS = frozenset({*STORAGES, "Typed"})
_STORAGE_MODULES = frozenset({"torch", "torch.storage", "torch.cuda", "torch.sparse"})
_DANGEROUS_MODULES_TEXT = """
    os nt posix subprocess sys shutil socket socketserver ssl ctypes _ctypes importlib _frozen_importlib imp
    runpy pty pickle _pickle cPickle dill cloudpickle joblib shelve marshal code codeop pdb bdb cmd asyncio
    multiprocessing _posixsubprocess _thread threading webbrowser http httplib urllib urllib2 requests aiohttp
    ftplib smtplib telnetlib xmlrpc signal platform commands popen2 cProfile profile timeit trace doctest pydoc
    pip ensurepip venv setuptools distutils pkg_resources pkgutil zipimport site types operator functools
    inspect gc logging idlelib lib2to3 uuid linecache tempfile fileinput glob mmap resource atexit faulthandler
    readline sqlite3 antigravity unittest torch.hub torch.jit torch.package torch.utils.cpp_extension
    torch.utils.collect_env torch.utils.bottleneck torch.utils._config_module torch._inductor torch._dynamo
    numpy.testing numpy.f2py numpy.distutils
"""
_DANGEROUS_MODULES = frozenset(_DANGEROUS_MODULES_TEXT.split())
_DANGEROUS_NAMES = frozenset(
    {
        ("torch", "load"),
        ("torch.serialization", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.ops", "load_library"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy", "memmap"),
        ("io", "open"),
        ("io", "open_code"),
        ("_io", "open"),
        ("_io", "FileIO"),
        ("io", "FileIO"),
        ("codecs", "open"),
    }
)
# What a dotted name, which a loader follows attribute by attribute, must not pass through.
_DANGEROUS_PARTS_TEXT = """
    system popen exec eval compile open getattr setattr delattr globals locals vars run call check_output Popen
    __import__ import_module spawn spawnl spawnv execv execve fork load loads
"""
_DANGEROUS_PARTS = frozenset(_DANGEROUS_PARTS_TEXT.split())
_PYTHON2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


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


@dataclass(frozen=True)
class StorageRef:
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


@dataclass(frozen=True)
class TensorRef:
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
    """A bounded reader for one pickle after another: from bytes, or from a function ``pull(offset, length)``."""

    def __init__(
        self,
        data: Union[bytes, Callable[[int, int], bytes]],
        offset: int = 0,
        limit: int = MAX_PICKLE,
    ):
        self._pull = data if callable(data) else None
        self._buffer = b"" if callable(data) else data[offset : offset + limit]
        self._base = offset
        self._at = 0
        self._end = offset + limit
        self.cut = self._pull is None and len(data) - offset > limit  # type: ignore[arg-type]

    def tell(self) -> int:
        """The absolute offset of the next byte."""
        return self._base + self._at

    def read(self, length: int) -> bytes:
        """At most ``length`` bytes; fewer only at the end of the data or of the limit."""
        self._fill(length)
        data = self._buffer[self._at : self._at + length]
        self._at += len(data)
        return data

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
            data = (
                self._pull(begin, min(max(PIECE, length), MAX_PICKLE, self._end - begin)) if begin < self._end else b""
            )
            if not data:
                self.cut = self.cut or begin >= self._end
                return
            self._base += self._at
            self._buffer = self._buffer[self._at :] + data
            self._at = 0


def interpret(data: Union[bytes, Source], member: Optional[str] = None) -> PickleReport:
    """Follow one pickle to its end.

    :param member: the name to report problems under
    :returns: what was seen, also of a pickle that is damaged or breaks off: then ``problems`` has an error
    """
    source = data if isinstance(data, Source) else Source(data)
    return _Machine(source, member).run()


def classify(module: str, name: str) -> str:
    """Judge an import: ``allowed`` is what torch itself accepts with ``weights_only``; ``dangerous`` can run commands,
    reach files or the network, or hides another pickle; ``suspicious`` is the rest.
    """
    module = _PYTHON2.get(module, module)
    if (module, name) in _ALLOWED or (module == "torch._utils" and name in _TORCH_UTILS):
        return ALLOWED
    if module == "torch" and (name in DTYPES or (name.endswith("Tensor") and name[: -len("Tensor")] in STORAGES)):
        return ALLOWED
    if module == "__torch__" or module.startswith("__torch__."):
        return ALLOWED  # code inside a TorchScript archive, which a pickle loader cannot import
    if (module, name) in _HARMLESS:
        return SUSPICIOUS
    if module in _STORAGE_MODULES and name.endswith("Storage") and name[: -len("Storage")] in _STORAGE_KINDS:
        return ALLOWED
    parts = module.split(".")
    if any(".".join(parts[:length]) in _DANGEROUS_MODULES for length in range(1, len(parts) + 1)):
        return DANGEROUS
    if module == "builtins" and not name.endswith(("Error", "Exception", "Warning")):
        return DANGEROUS
    if (module, name) in _DANGEROUS_NAMES or not name or not module:
        return DANGEROUS
    names = name.split(".")
    if len(names) > 1 and any(part in _DANGEROUS_PARTS or part in _DANGEROUS_MODULES for part in names):
        return DANGEROUS
    return SUSPICIOUS


def get(node: Any, key: str) -> Any:
    """What a dict node holds under a string key, or None; the last one counts, as for a loader."""
    found = None
    for have, value in _pairs(node):
        if isinstance(have, str) and have == key:
            found = value
    return found


def keys(node: Any, limit: int = MAX_NAMES) -> List[str]:
    """The string keys of a dict node, made printable, in order, at most ``limit``."""
    return [shown(key) for key, _value in _pairs(node) if isinstance(key, str)][:limit]


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
    """Every tensor below a node with its path, such as ``model_state_dict.conv1.weight``; each place of it once."""
    seen = set()
    pending: List[Tuple[str, Any]] = [("", root)]
    visited = 0
    while pending and visited < MAX_WALK:
        path, node = pending.pop()
        visited += 1
        if isinstance(node, Call) and node.tensor is not None:
            yield path, node.tensor
            continue
        if _is_leaf(node):
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        children: List[Tuple[str, Any]] = []
        if isinstance(node, (list, tuple)):
            children = [(_join(path, index), value) for index, value in enumerate(node)]
        else:
            children = [(_join(path, key), value) for key, value in _pairs(node)]
            if isinstance(node, Call):
                given = node.args if isinstance(node.args, tuple) and not _is_leaf(node.args) else (node.args,)
                children.extend((path, value) for value in (*given, *node.more))
        pending.extend(reversed(children))


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


class _Damaged(ValueError):
    """The opcodes make no sense."""


_MARK = Opaque("mark")


class _Machine:
    def __init__(self, source: Source, member: Optional[str]):
        self._source = source
        self._member = member
        self._findings = Findings()
        self._stack: List[Any] = []
        self._memo: Dict[int, Any] = {}
        self._globals: Dict[str, Dict[str, None]] = {ALLOWED: {}, SUSPICIOUS: {}, DANGEROUS: {}}
        self._storages: List[StorageRef] = []
        self._tensors: List[TensorRef] = []
        self._protocol: Optional[int] = None
        self._copied = 0

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
        for count, (opcode, arg, _position) in enumerate(pickletools.genops(self._source)):
            if count >= MAX_OPCODES:
                raise _TooLarge(f"its pickle has more than the {MAX_OPCODES} opcodes that are examined")
            name = opcode.name
            if name in _PUSHED:
                self._stack.append(_bounded(arg))
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name == "STOP":
                root = self._pop()
                if self._stack:
                    raise _Damaged("values are left over at its end")
                return root
            else:
                handler = _HANDLERS.get(name)
                if handler is None:
                    raise _Damaged(f"opcode {name} is not known")
                handler(self, arg)
        raise _Damaged("it breaks off")

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
        elif isinstance(node, Call):
            node.more.extend(values)
        else:
            raise _Damaged("something is appended to what is no list")

    def _put_items(self, node: Any, items: List[Any]) -> None:
        if len(items) % 2:
            raise _Damaged("a key has no value")
        pairs = list(zip(items[::2], items[1::2]))
        if isinstance(node, Mapping):
            node.items.extend(pairs)
        elif isinstance(node, Call):
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
        self._note(DANGEROUS if " " in name else classify(module, name), node.path)
        return node

    def _note(self, kind: str, path: str) -> None:
        names = self._globals[kind]
        if len(names) < MAX_NAMES:
            names[path] = None

    def _persistent(self, value: Any) -> None:
        storage = _storage(value)
        if storage is not None:
            self._storages.append(storage)
        elif not (isinstance(value, tuple) and value[:1] == ("module",)):
            self._findings.add("pickle_damaged", "it refers to a storage in an unknown way", self._member)
        self._stack.append(Persistent(value, storage))

    def _call(self, func: Any, args: Any) -> None:
        node = Call(func, args)
        if isinstance(func, Global):
            if func.name in _REBUILD:
                node.tensor = self._tensor(func, args)
            elif func.name in ("OrderedDict", "Counter", "defaultdict"):
                node.items = _initial_items(args)
                # A short pickle can ask for copies of one long list without end.
                self._copied += len(node.items)
                if self._copied > MAX_OPCODES:
                    raise _TooLarge(f"its pickle copies more than {MAX_OPCODES} items")
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
_PARAMETERS = frozenset({"_rebuild_parameter", "_rebuild_parameter_with_state"})
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
    "FRAME": _Machine._ignore,
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


def _bounded(arg: Any) -> Any:
    if isinstance(arg, int) and not isinstance(arg, bool) and arg.bit_length() > MAX_INT_BITS:
        return Opaque("integer")
    if isinstance(arg, (bytes, bytearray)):
        return bytes(arg[:MAX_LINE]) if len(arg) <= MAX_LINE else Opaque("bytes")
    return arg


def _listed(names: Dict[str, None]) -> str:
    some = list(names)[:5]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(some) + more


def _text(value: Any) -> Optional[str]:
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    return value if isinstance(value, str) else None


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _storage(value: Any) -> Optional[StorageRef]:
    """``("storage", <storage class>, key, location, elements[, view])``, as torch writes it."""
    if not isinstance(value, tuple) or len(value) not in (5, 6) or _text(value[0]) != "storage":
        return None
    cls, key, location, numel = value[1], _text(value[2]), _text(value[3]), value[4]
    if not isinstance(cls, Global) or not cls.name.endswith("Storage") or key is None or not _count(numel):
        return None
    dtype, itemsize = STORAGES.get(cls.name[: -len("Storage")], (shown(cls.name), None))
    return StorageRef(shown(cls.name), dtype, itemsize, key, shown(location or ""), numel)


def _sizes(value: Any) -> Tuple[int, ...]:
    if isinstance(value, Call) and isinstance(value.func, Global) and value.func.name == "Size":
        value = value.args[0] if isinstance(value.args, tuple) and len(value.args) == 1 else None
    if not isinstance(value, (tuple, list)) or len(value) > MAX_DIMENSIONS or not all(_count(size) for size in value):
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
    if storage is None or not _count(args[1]):
        raise _Damaged("it has no storage")
    shape, stride = _sizes(args[2]), _sizes(args[3])
    if len(shape) != len(stride):
        raise _Damaged("its shape and stride do not fit")
    dtype, itemsize = storage.dtype, storage.itemsize
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
