# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers questions about files, one JSON line each: ``_judge.py TOOL``, or writes checkpoints: ``_judge.py make``.

Every tool says of a file what its exit status or exception would tell a script: ``ok``, ``alarm`` (something is wrong
with it) or ``unread`` (not a kind of file that it looks at).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import pathlib
import resource
import subprocess
import sys
import warnings
import zipfile
from typing import Any, Callable, Dict, Tuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
OK = "ok"
ALARM = "alarm"
UNREAD = "unread"
# A damaged length must not make torch take all memory of the machine.
MEMORY = 16 << 30
# Wide enough that most of the file is weights, as in a real one.
WIDTH = 4000
FORMATS = {
    "zip": "torch zip",
    "nocrc": "torch zip, CRC off",
    "legacy": "torch legacy",
    "script": "TorchScript",
    "safetensors": "safetensors",
}
SUFFIXES = {"zip": ".pth", "nocrc": ".pth", "legacy": ".pth", "script": ".pt", "safetensors": ".safetensors"}


def make(folder: str, kind: str, seed: int) -> str:
    """Write an undamaged checkpoint."""
    import torch

    files = _helpers()
    saved = files.content(epoch=3, width=WIDTH, seed=seed, metadata=True)
    path = pathlib.Path(folder) / f"{kind}-{seed}{SUFFIXES[kind]}"
    if kind == "script":
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(WIDTH, 20), torch.nn.BatchNorm1d(20), torch.nn.ReLU())
        torch.jit.script(model.eval()).save(str(path))
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file(dict(saved["model_state_dict"]), path)
    else:
        files.save(path, saved, crc=kind != "nocrc", legacy=kind == "legacy")
    return str(path)


def loads(path: str, kind: str) -> str:
    """A digest of what training would get from a file; raises what its loader raises."""
    import torch

    if kind == "script":
        value: Any = _script(torch.jit.load(path))
    elif kind == "safetensors":
        from safetensors.torch import load_file

        value = _helpers().flat(load_file(path))
    else:
        value = _helpers().flat(torch.load(path, weights_only=True))
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _script(module: Any) -> Any:
    """Weights, code, and what it computes."""
    import torch

    flat = _helpers().flat
    with torch.no_grad():
        computed = module(torch.linspace(-1, 1, 2 * WIDTH).reshape(2, WIDTH))
    codes = [(name, part.training, getattr(part, "code", "")) for name, part in module.named_modules()]
    return (flat(dict(module.state_dict())), codes, flat(computed))


def _helpers() -> Any:
    name = "checkpoint_files"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "unit" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def _loader(path: str, kind: str) -> Tuple[str, Any]:
    try:
        return OK, loads(path, kind)
    except Exception as exc:
        return ALARM, type(exc).__name__


def _ours(path: str, **options: Any) -> Tuple[str, Any]:
    sys.path[:0] = [str(ROOT / "playbooks" / "collections")] if "ansible_collections" not in sys.modules else []
    from ansible_collections.ringrift.recovery.plugins.module_utils import _checkpoint

    report = _checkpoint.verify(path, **options)
    return (OK if report.valid else ALARM), [problem.code for problem in report.problems]


def _picklescan(path: str) -> Tuple[str, Any]:
    from picklescan.scanner import scan_file_path

    try:
        result = scan_file_path(path)
    except Exception as exc:
        return ALARM, type(exc).__name__
    if result.scan_err or result.issues_count:
        return ALARM, None
    return (OK if result.scanned_files else UNREAD), None


def _modelscan(path: str) -> Tuple[str, Any]:
    from modelscan.modelscan import ModelScan

    logging.disable(logging.CRITICAL)
    scan = ModelScan()
    try:
        found = scan.scan(path)
    except Exception as exc:
        return ALARM, type(exc).__name__
    if found["issues"] or found["errors"]:
        return ALARM, None
    return (OK if scan.scanned else UNREAD), None


def _testzip(path: str) -> Tuple[str, Any]:
    if not zipfile.is_zipfile(path):
        return UNREAD, None
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except Exception as exc:
        return ALARM, type(exc).__name__
    return (OK if bad is None else ALARM), bad


def _unzip(path: str) -> Tuple[str, Any]:
    done = subprocess.run(["unzip", "-tqq", path], capture_output=True, timeout=60, check=False)
    # 9 is "not a zip file at all".
    return (OK if done.returncode == 0 else UNREAD if done.returncode == 9 else ALARM), done.returncode


TOOLS: Dict[str, Callable[[str, str], Tuple[str, Any]]] = {
    "loader": _loader,
    "ours": lambda path, _kind: _ours(path, sidecar=False),
    "quick": lambda path, _kind: _ours(path, sidecar=False, depth="quick"),
    "sidecar": lambda path, _kind: _ours(path),
    "picklescan": lambda path, _kind: _picklescan(path),
    "modelscan": lambda path, _kind: _modelscan(path),
    "testzip": lambda path, _kind: _testzip(path),
    "unzip": lambda path, _kind: _unzip(path),
}


def main(tool: str) -> None:
    """Answer until there are no more questions."""
    answers = sys.stdout
    warnings.simplefilter("ignore")
    if tool == "loader":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # Nothing that a library prints may mix with the answers.
    with contextlib.redirect_stdout(io.StringIO()):
        for line in sys.stdin:
            question = json.loads(line)
            if tool == "make":
                answer: Any = make(**question)
            else:
                answer = TOOLS[tool](question["path"], question["kind"])
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
