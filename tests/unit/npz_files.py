# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Training files as numpy and the service's exporter write them, and ways to damage them, for the tests around them."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import pickle
import random
import warnings
import zipfile
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

import numpy as np
from numpy.lib import format as npy

SAMPLES = 130
METADATA = {
    "export_time": "2026-11-23T21:18:41.347958+00:00",
    "newest_game_time": "2026-11-23T21:16:11.187753",
    "game_count": 6,
    "sample_count": SAMPLES,
}


def objects(values: Sequence[Any]) -> np.ndarray:
    """A one-dimensional array of Python objects."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def single_object(value: Any) -> np.ndarray:
    """An array of one Python object and no dimensions, as the exporter's metadata is."""
    array = np.empty((), object)
    array[()] = value
    return array


def recorded(arrays: Dict[str, np.ndarray]) -> np.ndarray:
    """The checksums as the service's exporter writes them."""
    sums = {}
    for name, array in arrays.items():
        digest = hashlib.sha256(f"{array.shape}{array.dtype}".encode())
        if array.dtype == object:
            for item in array.flat:
                digest.update(str(item).encode())
        else:
            digest.update(array.tobytes())
        sums[name] = digest.hexdigest()
    return np.asarray(json.dumps(sums, sort_keys=True))


def training_arrays(samples: int = SAMPLES, seed: int = 1) -> Dict[str, np.ndarray]:
    """What a training file holds, with few channels."""
    rng = np.random.default_rng(seed)
    return {
        "features": rng.integers(0, 2, (samples, 4, 9, 9)).astype("<f4"),
        "globals": rng.random((samples, 20), "<f4"),
        "values": rng.choice([-1.0, 1.0], samples).astype("<f4"),
        "values_mp": rng.random((samples, 4), "<f4"),
        "num_players": np.full(samples, 2, "<i4"),
        "policy_indices": objects(list(range(samples))),
        "phases": objects(["ring_placement"] * samples),
        "board_type": np.asarray("hex8"),
        "board_size": np.asarray(9),
        "in_channels": np.asarray(4),
        "policies_normalized": np.asarray(True),
        "export_version": np.asarray("2.1"),
    }


def every_kind(samples: int = 100) -> Dict[str, np.ndarray]:
    """Small arrays of every kind that numpy writes, so that most bytes of the file are structure."""
    rng = np.random.default_rng(3)
    arrays = {
        "features": rng.random((samples, 1, 2, 2), "<f4"),
        "values": rng.random(samples, "<f4"),
        "fortran": np.asfortranarray(rng.random((5, 3))),
        "big": np.arange(7, dtype=">i4"),
        "structured": np.ones(3, [("a", "<f4"), ("b", ">u2", (2,)), ("c", "S3")]),
        "padded": np.ones(2, np.dtype([("a", "i1"), ("b", "<f8")], align=True)),
        "dates": np.asarray(["2026-01-01", "NaT"], "M8[us]"),
        "half": np.ones((2, 2), "<f2"),
        "complex": np.full(2, 1j),
        "words": np.asarray(["grün", "rot"]),
        "nothing": np.zeros((0, 3), "<f4"),
        "board_type": np.asarray("hex8"),
        "board_size": np.asarray(9),
        "things": objects([[0.5, 0.5], None, "x"]),
        "metadata": single_object({**METADATA, "sample_count": samples}),
    }
    return {**arrays, "data_checksums": recorded(arrays)}


def write(
    path: pathlib.Path,
    arrays: Optional[Dict[str, np.ndarray]] = None,
    save: Any = np.savez_compressed,
    checksums: bool = False,
    **changes: Any,
) -> pathlib.Path:
    """A training file at ``path``; None as a change leaves an array out."""
    arrays = {**(training_arrays() if arrays is None else arrays), **changes}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    if checksums:
        arrays["data_checksums"] = recorded(arrays)
    save(path, **arrays)
    return path


def packed(
    arrays: Dict[str, np.ndarray],
    deflated: bool = True,
    version: Optional[Tuple[int, int]] = None,
    zip64: bool = True,
) -> bytes:
    """The bytes of a training file whose arrays have headers of a certain version, in a container of a certain form."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=zip64) as member, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                npy.write_array(member, array, version)
    return out.getvalue()


def raw_member(path: pathlib.Path, name: str, raw: bytes) -> pathlib.Path:
    """Put other bytes in place of one array, with checksums of the container that fit."""
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member, data in {**members, f"{name}.npy": raw}.items():
            file.writestr(member, data)
    return path


def numpy_arrays(source: Any) -> Dict[str, np.ndarray]:
    """What numpy reads; raises what numpy raises."""
    with np.load(source, allow_pickle=True) as data:
        return {name: data[name] for name in data.files}


def flat(arrays: Dict[str, Any]) -> Dict[str, Any]:
    """Something that is equal if and only if numpy gives training the same arrays, NaN included."""
    return {name: _flat(array) for name, array in arrays.items()}


def _flat(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    data = pickle.dumps(array.tolist()) if array.dtype.hasobject else array.tobytes()
    return str(array.dtype), array.shape, data


def loaded(path: pathlib.Path) -> Optional[Dict[str, Any]]:
    """What numpy makes of a file, flattened; None when it refuses any of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return flat(numpy_arrays(path))
        except Exception:
            return None


def damages(raw: bytes, flips: int, seed: int) -> Iterator[Tuple[str, bytes]]:
    """Single flipped bits, and for each twenty of them a hole, a cut, a piece lost and a piece doubled, each named."""
    chance = random.Random(seed)
    rare = max(1, flips // 20)
    kinds = ["flip"] * flips + ["hole", "cut", "lost", "double"] * rare
    for kind in kinds:
        data = bytes(raw)
        while data == raw:
            at = chance.randrange(len(raw))
            length = chance.choice((1, 4, 16, 64, 512))
            name, data = f"{kind} at {at} length {length}", _damaged(raw, kind, at, length, chance.randrange(8))
        yield name, data


def _damaged(raw: bytes, kind: str, at: int, length: int, bit: int) -> bytes:
    data = bytearray(raw)
    if kind == "flip":
        data[at] ^= 1 << bit
    elif kind == "hole":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif kind == "cut":
        del data[at:]
    elif kind == "lost":
        del data[at : at + length]
    else:
        data[at:at] = data[at : at + length]
    return bytes(data)
