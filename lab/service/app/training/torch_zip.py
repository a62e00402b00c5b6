# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""torch's zip checkpoint format without torch: what torch.save() writes and torch.load(weights_only=True) reads.

The members are those of torch 2.13 (`data.pkl`, `.format_version`, `.storage_alignment`, `byteorder`, `data/<n>`,
`version`, `.data/serialization_id`), stored, 64-byte aligned, with real CRCs in data descriptors. Arrays of numpy stand
for tensors. Like torch, the reader does not check the CRCs: a flipped byte in a tensor passes.

Part of the stand-in, see `app`. It imports nothing of the service, so that the lab may load it by its path.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import sys
import types
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ALIGNMENT = 64
_STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
_DTYPES = {storage: np.dtype(name) for name, storage in _STORAGES.items()}
_NO_DIRECTORY = (
    "PytorchStreamReader failed reading zip archive: failed finding central directory. This is an internal miniz "
    "error. If you are seeing this error, there is a high likelihood that your checkpoint file is corrupted. This "
    "can happen if the checkpoint was not saved properly, was transferred incorrectly, or the file was modified after "
    "saving."
)


class _Global:
    """A name that the pickle refers to, without the module that holds it."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__ = module
        self.name = name

    def __call__(self, *args: object) -> None:
        raise TypeError(f"{self.__module__}.{self.name} is only a name here")


class _Storage:
    """The bytes of one tensor, and their number in the archive."""

    def __init__(self, kind: _Global, key: str, size: int) -> None:
        self.kind = kind
        self.key = key
        self.size = size


_REBUILD = _Global("torch._utils", "_rebuild_tensor_v2")
_KINDS = {name: _Global("torch", storage) for name, storage in _STORAGES.items()}


class _Pickler(pickle.Pickler):
    """Writes arrays as tensors, and names of torch without importing it."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)
        self.storages: list[bytes] = []

    def persistent_id(self, obj: object) -> tuple | None:
        if isinstance(obj, _Storage):
            return ("storage", obj.kind, obj.key, "cpu", obj.size)
        return None

    def reducer_override(self, obj: object) -> object:
        if isinstance(obj, _Global):
            return obj.name
        if isinstance(obj, np.ndarray):
            return (_REBUILD, self._tensor(obj))
        return NotImplemented

    def _tensor(self, array: np.ndarray) -> tuple:
        if array.dtype.name not in _KINDS:
            raise TypeError(f"there is no tensor of dtype {array.dtype}")
        storage = _Storage(_KINDS[array.dtype.name], str(len(self.storages)), array.size)
        self.storages.append(np.ascontiguousarray(array).tobytes())
        strides, step = [], 1
        for length in reversed(array.shape):
            strides.insert(0, step)
            step *= max(length, 1)
        return (storage, 0, tuple(array.shape), tuple(strides), False, OrderedDict())


@contextmanager
def _names_of_torch() -> Iterator[None]:
    """For a pickler, which looks each name up in its module, and writes none that is not there."""
    known = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    for name in known:
        sys.modules[name] = types.ModuleType(name)
    for entry in (_REBUILD, *_KINDS.values()):
        setattr(sys.modules[entry.__module__], entry.name, entry)
    try:
        yield
    finally:
        for name, module in known.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _plain(obj: object) -> object:
    """The same with numbers of Python in the place of numpy's."""
    if isinstance(obj, np.generic):
        return obj.item()
    if isinstance(obj, dict):
        return type(obj)((_plain(key), _plain(value)) for key, value in obj.items())
    if isinstance(obj, (list, tuple)):
        return type(obj)(_plain(value) for value in obj)
    return obj


class _Writer:
    """A zip as torch's own writer makes it: stored, aligned, sizes and CRC behind the data and in the directory."""

    def __init__(self, file: io.BufferedWriter, stem: str) -> None:
        self.file = file
        self.stem = stem
        self.offset = 0
        self.entries: list[tuple[bytes, int, int, int]] = []

    def add(self, name: str, data: bytes) -> None:
        path = f"{self.stem}/{name}".encode()
        start = self.offset + 30 + len(path) + 4
        padding = -start % ALIGNMENT
        extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
        crc = zlib.crc32(data)
        header = struct.pack("<4s5H3I2H", b"PK\3\4", 0, 0x808, 0, 0, 0, 0, 0, 0, len(path), len(extra))
        descriptor = struct.pack("<4s3I", b"PK\7\x08", crc, len(data), len(data))
        self.entries.append((path, crc, len(data), self.offset))
        for part in (header, path, extra, data, descriptor):
            self.file.write(part)
            self.offset += len(part)

    def close(self) -> None:
        directory = b"".join(
            struct.pack(
                "<4s6H3I5H2I", b"PK\1\2", 0, 0, 0x808, 0, 0, 0, crc, size, size, len(path), 0, 0, 0, 0, 0, offset
            )
            + path
            for path, crc, size, offset in self.entries
        )
        count, start = len(self.entries), self.offset
        end64 = struct.pack(
            "<4sQ2H2I4Q", b"PK\6\6", 44, 0x031E, 45, 0, 0, count, count, len(directory), start
        ) + struct.pack("<4sIQI", b"PK\6\7", 0, start + len(directory), 1)
        end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
        self.file.write(directory + end64 + end)


def save(obj: object, path: str | os.PathLike[str], stem: str | None = None) -> None:
    """Write `obj` to `path` as torch.save() would; the archive's directory is `stem`, or the name without suffix."""
    stem = Path(path).stem if stem is None else stem
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    with _names_of_torch():
        pickler.dump(_plain(obj))
    with open(path, "wb") as file:
        writer = _Writer(file, stem)
        names = hashlib.sha256()
        for name, data in [
            ("data.pkl", buffer.getvalue()),
            (".format_version", b"1"),
            (".storage_alignment", str(ALIGNMENT).encode()),
            ("byteorder", b"little"),
            *((f"data/{key}", data) for key, data in enumerate(pickler.storages)),
            ("version", b"3\n"),
        ]:
            writer.add(name, data)
            names.update(name.encode() + struct.pack("<I", writer.entries[-1][1]))
        writer.add(".data/serialization_id", str(int(names.hexdigest(), 16)).zfill(40)[-40:].encode())
        writer.close()
        file.flush()
        os.fsync(file.fileno())


class _Unpickler(pickle.Unpickler):
    """Knows tensors, storages and OrderedDict; refuses every other name."""

    def __init__(self, data: bytes, read_storage) -> None:
        super().__init__(io.BytesIO(data))
        self._read_storage = read_storage
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"Weights only load failed. Unsupported global: GLOBAL {module}.{name}")

    def persistent_load(self, pid: tuple) -> np.ndarray:
        _kind, dtype, key, _location, size = pid
        if key not in self._storages:
            data = self._read_storage(f"data/{key}")
            if len(data) < size * dtype.itemsize:
                raise RuntimeError(f"storage data/{key} has {len(data)} bytes, {size * dtype.itemsize} were announced")
            self._storages[key] = np.frombuffer(data, dtype, size)
        return self._storages[key]

    @staticmethod
    def _rebuild(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_rest: object) -> np.ndarray:
        item = storage.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(storage[offset:], shape, [step * item for step in strides])
        return np.array(view)


def members(data: bytes) -> dict[str, tuple[int, int]]:
    """Offset and size of each member, by its name without the directory."""
    end = data.rfind(b"PK\5\6", max(0, len(data) - 65557))
    if end < 0 or len(data) < end + 22:
        raise RuntimeError(_NO_DIRECTORY)
    count, _size, start = struct.unpack("<HII", data[end + 10 : end + 20])
    found: dict[str, tuple[int, int]] = {}
    for _ in range(count):
        if data[start : start + 4] != b"PK\1\2":
            raise RuntimeError(_NO_DIRECTORY)
        size, _, name, extra, comment, _, _, _, offset = struct.unpack("<IIHHHHHII", data[start + 20 : start + 46])
        path = data[start + 46 : start + 46 + name].decode("utf-8", "replace")
        if data[offset : offset + 4] != b"PK\3\4":
            raise RuntimeError("PytorchStreamReader failed reading file: invalid header or archive is corrupted")
        local_name, local_extra = struct.unpack("<HH", data[offset + 26 : offset + 30])
        found[path.partition("/")[2]] = (offset + 30 + local_name + local_extra, size)
        start += 46 + name + extra + comment
    return found


def load(path: str | os.PathLike[str]) -> object:
    """Read what torch.save() or save() wrote; tensors come back as arrays. Raises RuntimeError as torch does."""
    data = Path(path).read_bytes()
    index = members(data)

    def read(name: str) -> bytes:
        if name not in index:
            raise RuntimeError(f"PytorchStreamReader failed locating file {name}: file not found")
        offset, size = index[name]
        return data[offset : offset + size]

    return _Unpickler(read("data.pkl"), read).load()
