# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What torch makes of thousands of damaged checkpoints decides whether the verdict on them was right.

`make soak` runs the full count, `make test` a fixed tenth; both print the seed, and SOAK_SEED repeats a run.
"""

from __future__ import annotations

import pathlib
import random
import warnings
from typing import Any, Callable, Iterator, NamedTuple, Tuple

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint import verify

from tests.unit.checkpoint_files import content, flat, save, save_tar, soak, soak_seed

pytestmark = [pytest.mark.torch, pytest.mark.soak]

FLIPS, HOLES, CUTS = 2_000, 100, 100


class Format(NamedTuple):
    """A format: how a checkpoint is written and read in it, and whether it carries checksums."""

    name: str
    write: Callable[[pathlib.Path], Any]
    read: Callable[[pathlib.Path], Any]
    checksums: bool


def load(path: pathlib.Path) -> Any:
    import torch

    # As the service loads it; the device that a damaged file names is of no importance then.
    return flat(torch.load(path, map_location="cpu", weights_only=True))


def load_unrestricted(path: pathlib.Path) -> Any:
    import torch

    return flat(torch.load(path, map_location="cpu", weights_only=False))


def write_script(path: pathlib.Path) -> None:
    import torch

    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.jit.script(model).save(str(path))


def load_script(path: pathlib.Path) -> Any:
    import torch

    module = torch.jit.load(str(path))
    return flat(dict(module.state_dict())), str(module.code)


def write_safetensors(path: pathlib.Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.clone() for name, tensor in content()["model_state_dict"].items()}, str(path))


def load_safetensors(path: pathlib.Path) -> Any:
    from safetensors.torch import load_file

    return flat(dict(sorted(load_file(str(path)).items())))


def write_tar(path: pathlib.Path) -> None:
    model = content()["model_state_dict"]
    save_tar(path, model, {"epoch": 3, "model_state_dict": dict(model)})


FORMATS = [
    Format("stored", lambda path: save(path, content(metadata=True)), load, True),
    Format("torchscript", write_script, load_script, True),
    Format("without_crc", lambda path: save(path, crc=False), load, False),
    Format("legacy", lambda path: save(path, legacy=True), load, False),
    Format("safetensors", write_safetensors, load_safetensors, False),
    Format("tar", write_tar, load_unrestricted, False),
]


def read(form: Format, path: pathlib.Path) -> Any:
    """What the format's own library makes of a file; None when it refuses it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return form.read(path)
        except Exception:
            return None


def damaged(raw: bytes, chance: random.Random) -> Iterator[Tuple[str, bytes]]:
    """Single flipped bits, holes of zeros and truncations, each with what was done."""
    for _count in range(soak(FLIPS)):
        data = bytearray(raw)
        at, bit = chance.randrange(len(raw)), chance.randrange(8)
        data[at] ^= 1 << bit
        yield f"bit {bit} flipped at {at}", bytes(data)
    for _count in range(soak(HOLES)):
        data = bytearray(raw)
        at, length = chance.randrange(len(raw)), chance.choice((1, 16, 64, 512, 4096))
        data[at : at + length] = bytes(len(data[at : at + length]))
        yield f"hole of {length} at {at}", bytes(data)
    for _count in range(soak(CUTS)):
        length = chance.randrange(len(raw))
        yield f"cut to {length}", raw[:length]


@pytest.fixture(params=FORMATS, ids=lambda form: form.name)
def form(request) -> Format:
    return request.param


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_no_damage_that_changes_what_is_loaded_is_called_valid(form, tmp_path):
    path = tmp_path / "checkpoint.pth"
    form.write(path)
    raw = path.read_bytes()
    reference = read(form, path)
    assert reference is not None
    seed = f"{soak_seed()}-{form.name}"
    print("seed", seed)
    valid = differ = 0
    for what, data in damaged(raw, random.Random(seed)):
        if data == raw:
            continue
        path.write_bytes(data)
        report = verify(str(path))
        if not report.valid:
            assert all(problem.message for problem in report.problems), (seed, what)
            continue
        valid += 1
        if form.checksums:
            assert read(form, path) == reference, (seed, what)
            continue
        assert report.integrity == "not_recorded", (seed, what)
        loaded = read(form, path)
        differ += loaded != reference
        if loaded is None and form.read is load:
            # A flip can leave a sound pickle of opcodes that weights_only does not know; a dangerous one is not valid.
            loaded = read(form._replace(read=load_unrestricted), path)
        if not any(problem.code == "unknown_globals" for problem in report.problems):
            assert loaded is not None, (seed, what, report.problems)
    print(form.name, "called valid", valid, "of which differ", differ)


@pytest.mark.parametrize("seed", range(4))
def test_undamaged_files_are_never_called_damaged(form, seed, tmp_path):
    path = tmp_path / f"checkpoint_epoch_{seed}.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        form.write(path)
    for depth in ("quick", "full"):
        report = verify(str(path), depth=depth, scan_values=True)
        assert (report.valid, [problem.message for problem in report.problems if problem.severity == "error"]) == (
            True,
            [],
        )
        wanted = "not_recorded" if not form.checksums else "verified" if depth == "full" else "not_checked"
        assert report.integrity == wanted
        assert report.format != "unknown"
