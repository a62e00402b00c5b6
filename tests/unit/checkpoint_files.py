# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints as torch writes them, and ways to damage them, for the tests of the checkpoint parts."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import pickle
import random
import struct
import tarfile
import warnings
import zipfile
from typing import Any, Dict, Iterator, Tuple


def content(epoch: int = 3, width: int = 6, seed: int = 0, metadata: bool = False) -> Dict[str, Any]:
    """What the trainer saves: model, optimizer and progress; ``width`` makes another network."""
    import torch

    torch.manual_seed(seed + epoch)
    model = torch.nn.Sequential(torch.nn.Linear(width, 5), torch.nn.BatchNorm1d(5))
    # As torch.optim.Adam writes it; importing that fails once Ansible has put its own sys.intern in place.
    state = {
        index: {"step": torch.tensor(1.0), "exp_avg": torch.randn(p.shape), "exp_avg_sq": torch.rand(p.shape)}
        for index, p in enumerate(model.parameters())
    }
    groups = [{"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-08, "foreach": None, "params": list(state)}]
    saved: Dict[str, Any] = {
        "epoch": epoch,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": {"state": state, "param_groups": groups},
        "loss": 1.0 / (epoch + 1),
    }
    if metadata:
        saved["_versioning_metadata"] = {
            "architecture_version": "v4.0.0",
            "model_class": "HexNeuralNet_v4",
            "config": {"board_type": "hex8", "num_players": 2, "in_channels": 64},
            "board_type": "",
            "num_players": 0,
            "training_info": {"epoch": epoch + 1, "val_loss": 0.5},
        }
    return saved


def save(path: pathlib.Path, saved: Any = None, crc: bool = True, legacy: bool = False) -> pathlib.Path:
    """``torch.save`` to ``path``."""
    import torch

    torch.serialization.set_crc32_options(crc)
    try:
        torch.save(content() if saved is None else saved, path, _use_new_zipfile_serialization=not legacy)
    finally:
        torch.serialization.set_crc32_options(True)
    return path


def flat(value: Any) -> Any:
    """Something that is equal if and only if torch would give training the same values, NaN included."""
    import torch

    if isinstance(value, torch.Tensor):
        data = value.detach().contiguous().view(-1)
        raw = data.view(torch.uint8).numpy().tobytes() if data.numel() else b""
        return ("tensor", str(value.dtype), tuple(value.shape), raw)
    if isinstance(value, dict):
        return (type(value).__name__, [(flat(key), flat(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [flat(item) for item in value])
    return (type(value).__name__, repr(value))


def loaded(path: pathlib.Path) -> Any:
    """What ``torch.load(weights_only=True)`` makes of a file, flattened; None when it refuses the file."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return flat(torch.load(path, weights_only=True))
        except Exception:
            return None


def save_tar(path: pathlib.Path, tensors: Dict[str, Any], saved: Any) -> pathlib.Path:
    """A checkpoint as torch wrote it before 0.2, which no torch of today can write: three members in a tar file."""
    import torch

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return str(id(value)) if isinstance(value, torch.Tensor) else None

    parts = {"storages": io.BytesIO(), "tensors": io.BytesIO(), "pickle": io.BytesIO()}
    pickle.dump(len(tensors), parts["storages"], 2)
    pickle.dump(len(tensors), parts["tensors"], 2)
    for key, tensor in enumerate(tensors.values(), 1000):
        kind = getattr(torch, f"{str(tensor.dtype)[6:].replace('32', '').replace('int64', 'long').title()}Storage")
        pickle.dump((key, "cpu", kind), parts["storages"], 2)
        raw = tensor.contiguous().view(-1)
        parts["storages"].write(struct.pack("<q", raw.numel()) + raw.view(torch.uint8).numpy().tobytes())
        pickle.dump((id(tensor), key, torch.Tensor), parts["tensors"], 2)
        numbers = [*tensor.shape, *tensor.contiguous().stride(), 0]
        parts["tensors"].write(struct.pack(f"<iI{len(numbers)}q", tensor.dim(), 0, *numbers))
    pickle.dump([], parts["storages"], 2)
    Pickler(parts["pickle"], 2).dump(saved)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, part in parts.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = part.tell(), 1.5  # a fraction makes tarfile write a pax header, as it did then
            part.seek(0)
            tar.addfile(info, part)
    return path


def soak(full: int, part: int = 10) -> int:
    """How much of ``full`` to do: all of it under ``make soak``, otherwise a fixed part, by default the tenth."""
    return full if os.environ.get("SOAK") else full // part


def soak_seed() -> int:
    """The seed of the random tests; ``SOAK_SEED`` repeats a run that failed."""
    return int(os.environ.get("SOAK_SEED", "20261127"))


def damages(raw: bytes, count: int, seed: int) -> Iterator[Tuple[str, bytes]]:
    """Bit flips, overwritten bytes, holes, truncations and doubled pieces, each named, none of them a no-op."""
    chance = random.Random(seed)
    while count:
        kind = chance.choice(("flip", "flip", "byte", "hole", "tail", "cut", "shift", "double"))
        at = chance.randrange(len(raw))
        length = chance.choice((1, 4, 16, 64, 512))
        data = bytearray(raw)
        if kind == "flip":
            data[at] ^= 1 << chance.randrange(8)
        elif kind == "byte":
            data[at] = chance.randrange(256)
        elif kind == "hole":
            data[at : at + length] = bytes(len(data[at : at + length]))
        elif kind == "tail":
            data[at:] = bytes(len(data) - at)
        elif kind == "cut":
            del data[at:]
        elif kind == "shift":
            del data[at : at + length]
        else:
            data[at:at] = data[at : at + length]
        if bytes(data) != raw:
            count -= 1
            yield f"{kind} at {at} length {length}", bytes(data)


def flipped(path: pathlib.Path, member: str, bit: int = 3) -> pathlib.Path:
    """Flip one bit in the middle of a member's data, as a bad disk does: the times of the file stay."""
    data = bytearray(path.read_bytes())
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(member))
    name_length, extra_length = struct.unpack_from("<2H", data, info.header_offset + 26)
    data[info.header_offset + 30 + name_length + extra_length + info.file_size // 2] ^= 1 << bit
    path.write_bytes(data)
    os.utime(path, ns=times)
    return path


def rezip(path: pathlib.Path, changes: Dict[str, Any]) -> pathlib.Path:
    """Write the same container again, with members replaced (bytes), left out (None) or added; checksums are right."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    prefix = members[0][0].partition("/")[0]
    members = [(name, changes.pop(name.partition("/")[2], data)) for name, data in members]
    members.extend((f"{prefix}/{name}", data) for name, data in changes.items())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            if data is not None:
                archive.writestr(name, data)
    path.write_bytes(buffer.getvalue())
    return path


@contextlib.contextmanager
def canary(path: pathlib.Path) -> Iterator[str]:
    """A shell command that leaves a trace, and the proof afterwards that it was never run."""
    yield f"touch {path}"
    assert not path.exists(), "something in the file was run"
