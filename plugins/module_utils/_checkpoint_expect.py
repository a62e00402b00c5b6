# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a checkpoint with what is expected of it. This util is private to the collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._checkpoint_content import Content
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._pickle_tree import TensorRef
from ansible_collections.ringrift.recovery.plugins.module_utils._problem import WARNING
from ansible_collections.ringrift.recovery.plugins.module_utils._zip import shown

LISTED = 5
# Errors of a whole file that is not the expected one.
CODES = frozenset(
    {
        "key_missing",
        "epoch_unknown",
        "epoch_too_low",
        "wrong_config",
        "shapes_differ",
        "not_comparable",
    }
)


@dataclass(frozen=True)
class Expectation:
    """What must hold: top-level ``keys``, the lowest ``min_epoch`` (counted from 0), the ``config`` where the file says
    one, and the tensors of the model in the file ``like``.
    """

    keys: Tuple[str, ...] = ()
    min_epoch: Optional[int] = None
    config: Optional[TrainingConfig] = None
    like: Optional[str] = None


def check(expected: Expectation, content: Content, like: Optional[Dict[str, TensorRef]]) -> None:
    """Note where a file that could be read is not what is expected; ``like`` are the tensors to agree with."""
    findings = content.findings
    for key in expected.keys:
        if shown(key) not in content.keys:
            findings.add("key_missing", f"it has no top-level key {shown(key)!r}")
    if expected.min_epoch is not None:
        epoch = content.facts.get("epoch")
        if epoch is None:
            findings.add("epoch_unknown", f"it does not say its epoch, which must be at least {expected.min_epoch}")
        elif epoch < expected.min_epoch:
            findings.add("epoch_too_low", f"it is from epoch {epoch}; at least {expected.min_epoch} is expected")
    if expected.config is not None:
        _check_config(expected.config, content)
    if expected.like is not None:
        _check_shapes(expected.like, like, content)


def _check_config(config: TrainingConfig, content: Content) -> None:
    board, players = content.facts.get("board_type"), content.facts.get("num_players")
    if board is None and players is None:
        content.findings.add("config_unknown", "it does not say for which config it is", severity=WARNING)
    elif board not in (None, config.board) or players not in (None, config.players):
        content.findings.add("wrong_config", f"it is for {board} with {players} players, not for {config.name}")


def _check_shapes(path: str, like: Optional[Dict[str, TensorRef]], content: Content) -> None:
    named = content.named
    if not named or not like:
        which = "it" if not named else path
        content.findings.add("not_comparable", f"the tensors of the model in {which} cannot be told")
        return
    differences = [f"{name} is missing" for name in like if name not in named]
    differences += [f"{name} is not in the other" for name in named if name not in like]
    for name, tensor in named.items():
        other = like.get(name)
        if other is not None and (tensor.shape, tensor.dtype) != (other.shape, other.dtype):
            differences.append(f"{name} is {_form(tensor)}, not {_form(other)}")
    if differences:
        more = f" and {len(differences) - LISTED} more" if len(differences) > LISTED else ""
        message = f"its model is not that of {path}: {', '.join(differences[:LISTED])}{more}"
        content.findings.add("shapes_differ", message)


def _form(tensor: TensorRef) -> str:
    return f"{tensor.dtype}{list(tensor.shape)}"
