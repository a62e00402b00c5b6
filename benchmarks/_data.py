# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files to measure with, of any size in little memory: ``_data.py KIND PATH GIGABYTES SEED``.

The content is what the real files hold: sparse planes that compress well, and weights around zero that do not.
"""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from typing import Dict, List, Tuple

import numpy

PLANES = (56, 8, 8)
# Rows that are made once and then repeated; many times what deflate remembers, so that repeating saves it nothing.
ROWS = 1024
# The share of ones in a plane; deflate then makes it about 15 times smaller, as an exported file.
FILLED = 0.4
TILE = 16 << 20


def npz_single(path: str, size: int, seed: int) -> int:
    """A training file that is one large array and small ones, as exported; gives the number of samples."""
    per_sample = 4 * (PLANES[0] * PLANES[1] * PLANES[2] + 20 + 1)
    samples = max(ROWS, size // per_sample)
    random = numpy.random.default_rng(seed)
    _write_npz(
        path,
        samples,
        {
            "features": _planes(random, PLANES),
            "globals": random.random((ROWS, 20), numpy.float32),
            "values": random.random(ROWS, numpy.float32),
        },
    )
    return samples


def npz_spread(path: str, size: int, seed: int) -> int:
    """A training file with four arrays of like size; gives the number of samples."""
    planes = (PLANES[0] // 4, *PLANES[1:])
    width = planes[0] * planes[1] * planes[2]
    samples = max(ROWS, size // (4 * (4 * width + 1)))
    random = numpy.random.default_rng(seed)
    _write_npz(
        path,
        samples,
        {
            "features": _planes(random, planes),
            "globals": _planes(random, planes).reshape(ROWS, width),
            "policy_indices": _planes(random, planes).reshape(ROWS, width).astype(numpy.int32),
            "policy_values": _planes(random, planes).reshape(ROWS, width),
            "values": random.random(ROWS, numpy.float32),
        },
    )
    return samples


def checkpoint(path: str, size: int, seed: int) -> int:
    """A checkpoint as ``torch.save`` writes it; gives the number of tensors."""
    import torch

    tile = _weights(seed)
    tensors = {}
    for name, length in _layers(size):
        # A storage of its own for each, over the same memory: torch writes all of them out.
        tensors[name] = torch.frombuffer(tile, dtype=torch.float32, count=length // 4)
    torch.save({"epoch": 7, "model_state_dict": tensors, "loss": 0.25}, path)
    return len(tensors)


def safetensors(path: str, size: int, seed: int) -> int:
    """The same tensors as a safetensors file; gives the number of tensors."""
    tile = _weights(seed)
    header: Dict[str, Dict[str, object]] = {}
    offset = 0
    for name, length in _layers(size):
        header[name] = {"dtype": "F32", "shape": [length // 4], "data_offsets": [offset, offset + length]}
        offset += length
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for _name, length in _layers(size):
            file.write(memoryview(tile)[:length])
    return len(header)


def _planes(random: numpy.random.Generator, shape: Tuple[int, ...]) -> numpy.ndarray:
    return (random.random((ROWS, *shape)) < FILLED).astype(numpy.float32)


def _write_npz(path: str, samples: int, tiles: Dict[str, numpy.ndarray]) -> None:
    """As ``numpy.savez_compressed`` does, but piece by piece."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, tile in tiles.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                facts = numpy.lib.format.header_data_from_array_1_0(tile)
                facts["shape"] = (samples, *tile.shape[1:])
                numpy.lib.format.write_array_header_1_0(member, facts)
                for first in range(0, samples, ROWS):
                    member.write(memoryview(tile[: min(ROWS, samples - first)]).cast("B"))


def _weights(seed: int) -> bytearray:
    values = numpy.random.default_rng(seed).standard_normal(TILE, numpy.float32)
    values *= numpy.float32(0.02)
    return bytearray(values.tobytes())


def _layers(size: int) -> List[Tuple[str, int]]:
    """Names and bytes of tensors that are ``size`` together: many alike, as in a network of residual blocks."""
    most = min(4 * TILE, max(4096, size // 24 // 64 * 64))
    lengths = [most] * (size // most)
    return [(f"blocks.{index}.weight", length) for index, length in enumerate(lengths)]


KINDS = {kind.__name__: kind for kind in (npz_single, npz_spread, checkpoint, safetensors)}

if __name__ == "__main__":
    print(KINDS[sys.argv[1]](sys.argv[2], int(float(sys.argv[3]) * 1e9), int(sys.argv[4])))
