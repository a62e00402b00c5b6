# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From two looks at a training to one line: where it stands, how fast it is, how long it still takes.

Nothing here looks at anything. Times are those of the node. This util is private to the collection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import (
    duration,
    number,
    part,
    rows,
    text,
    whole,
)

ARGUMENT_SPEC: Dict[str, Any] = {
    "config": {"type": "str", "required": True},
    # Paths of the node, so that nothing in them may be filled in on the controller.
    "service_path": {"type": "str", "default": "~/ringrift/ai-service"},
    "coordination_dir": {"type": "str"},
    "log": {"type": "str"},
    "checkpoint_patterns": {"type": "list", "elements": "str"},
    "stall_after": {"type": "float", "default": 1800},
    "within": {"type": "str"},
    "begin": {"type": "dict"},
    "interval": {"type": "float", "default": 5},
    "timeout": {"type": "float", "default": 1800},
    "look_timeout": {"type": "float", "default": 60},
    "follow": {"type": "bool", "default": False},
    "gpu": {"type": "bool", "default": True},
    "nvidia_smi": {"type": "str"},
    "python": {"type": "str"},
}

PROVEN = "proven"
ENDED = "ended"
TIMEOUT = "timeout"
UNREACHABLE = "unreachable"

# The pace is that of so many epochs at most, so that it follows a training that gets slower.
EPOCHS_OF_PACE = 20
# After so many seconds without news the first line that says so; the next ones after twice as long each.
QUIET_AFTER = 60.0
LONGEST_LINE = 300


def check_times(params: Mapping[str, Any]) -> None:
    """
    :raises RecoveryError: a time cannot be used
    """
    for name, least, most in (("interval", 0.1, 3600.0), ("look_timeout", 1.0, 3600.0), ("timeout", 0.0, 30 * 86400.0)):
        value = params[name]
        if not least <= value <= most:
            raise RecoveryError(f"{name} is {value:g} s. It must be from {least:g} to {most:g}.")
    begin = params["begin"]
    if begin is not None and not part(begin, "cursor"):
        raise RecoveryError(
            "begin is not what ringrift.recovery.training_progress returned: it has no cursor. Register such a task, "
            "and hand over all of its result; without begin the first look is taken here."
        )


@dataclass(frozen=True)
class Look:
    """What one look at the training showed; None is not known."""

    running: Optional[bool]
    verdict: str
    trainers: Tuple[Tuple[Optional[int], Optional[int]], ...]
    epoch: Optional[int]
    total_epochs: Optional[int]
    batch: Optional[int]
    loss: Optional[str]
    val_loss: Optional[str]
    at: Optional[float]
    this_run: bool
    checkpoint: Optional[Tuple[str, Optional[float]]]
    checkpoint_epoch: Optional[int]
    checkpoint_valid: Optional[bool]
    progressed: bool

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Look:
        """From the result of the module ``training_progress``."""
        last, checkpoint = part(result, "last"), part(result, "checkpoint")
        path, running, valid = text(checkpoint.get("path")), result.get("running"), checkpoint.get("valid")
        return cls(
            running=running if isinstance(running, bool) else None,
            verdict=text(result.get("verdict")) or "unknown",
            trainers=tuple(
                (whole(trainer.get("pid")), whole(trainer.get("start_ticks")))
                for trainer in rows(result.get("trainers"))
            ),
            epoch=whole(last.get("epoch")),
            total_epochs=whole(last.get("total_epochs")),
            batch=whole(last.get("batch")),
            loss=_loss(last.get("loss")),
            val_loss=_loss(last.get("val_loss")),
            at=number(last.get("at")),
            this_run=last.get("this_run") is True,
            checkpoint=None if path is None else (path, number(checkpoint.get("mtime"))),
            checkpoint_epoch=whole(checkpoint.get("epoch")),
            checkpoint_valid=valid if isinstance(valid, bool) else None,
            progressed=result.get("progressed") is True,
        )

    @property
    def news(self) -> Tuple[Any, ...]:
        """What is worth a line when it changes."""
        return (
            self.running,
            self.verdict,
            self.trainers,
            self.epoch,
            self.batch,
            self.loss,
            self.val_loss,
            self.this_run,
            self.checkpoint,
            self.checkpoint_valid,
            self.progressed,
        )


@dataclass(frozen=True)
class GpuLook:
    """The GPUs of a node at one moment, taken together."""

    verdict: str
    count: int
    utilization: Optional[Tuple[float, float]]
    power: Optional[float]

    @classmethod
    def of(cls, result: Optional[Mapping[str, Any]]) -> GpuLook:
        """From the result of the module ``gpu_status``; None where it gave none."""
        gpus = rows(part(result).get("gpus"))
        busy = [value for value in (number(gpu.get("utilization")) for gpu in gpus) if value is not None]
        power = [value for value in (number(gpu.get("power")) for gpu in gpus) if value is not None]
        return cls(
            verdict=text(part(result).get("verdict")) or "unknown",
            count=len(gpus),
            # What is known of some of them only would be taken for that of all.
            utilization=(min(busy), max(busy)) if busy and len(busy) == len(gpus) else None,
            power=sum(power) if power and len(power) == len(gpus) else None,
        )

    def words(self) -> str:
        if self.verdict == "none":
            return "no GPU"
        name = "GPU" if self.count < 2 else f"{self.count} GPUs"
        if self.verdict == "unknown":
            return f"{name} ?"
        said = [name]
        if self.utilization is not None:
            low, high = (f"{value:.0f}" for value in self.utilization)
            said.append(f"{low} %" if low == high else f"{low}-{high} %")
        if self.power is not None:
            said.append(f"{self.power:.0f} W")
        if self.verdict != "busy":
            state = self.verdict.replace("_", " ")
            said.append(f"({state})" if len(said) > 1 else state)
        return " ".join(said)


class Pace:
    """How fast epochs go by, from when each was first seen to be finished, by the time of the node."""

    def __init__(self) -> None:
        self._points: List[Tuple[int, float]] = []
        self._trainers: Tuple[Tuple[Optional[int], Optional[int]], ...] = ()

    def add(self, look: Look) -> None:
        if look.trainers != self._trainers:
            self._points, self._trainers = [], look.trainers
        if not look.this_run or look.epoch is None or look.at is None:
            return
        if self._points and (look.epoch < self._points[-1][0] or look.at < self._points[-1][1]):
            self._points = []
        if not self._points or look.epoch > self._points[-1][0]:
            self._points.append((look.epoch, look.at))
        while len(self._points) > 2 and look.epoch - self._points[1][0] >= EPOCHS_OF_PACE:
            del self._points[0]

    @property
    def rate(self) -> Optional[float]:
        """Epochs per second, or None."""
        return rate(self._points)


def rate(points: Sequence[Tuple[int, float]]) -> Optional[float]:
    """Epochs per second, of epochs and the times at which they were finished; None where that cannot be told."""
    if len(points) < 2:
        return None
    epochs, seconds = points[-1][0] - points[0][0], points[-1][1] - points[0][1]
    return epochs / seconds if epochs > 0 and seconds > 0 else None


def remaining(look: Look, pace: Optional[float]) -> Optional[float]:
    """Seconds until the last epoch, at this pace; None where that cannot be told."""
    if pace is None or not look.this_run or look.epoch is None or look.total_epochs is None:
        return None
    left = (look.total_epochs - look.epoch) / pace
    return left if left > 0 else None


def line(
    look: Look,
    gpu: Optional[GpuLook] = None,
    pace: Optional[float] = None,
    before: Optional[Look] = None,
    config: str = "",
) -> str:
    """One look in one line; what is not known is left out.

    :param gpu: the GPUs; None where they are not asked for
    :param pace: epochs per second
    :param before: the look before it, which tells whether a checkpoint is new and progress is proven just now
    """
    said = [config, *_position(look)]
    if pace is not None:
        said.append(f"{_amount(pace * 60)} epochs/min" if pace >= 1 / 60 else f"{_amount(pace * 3600)} epochs/h")
    if gpu is not None:
        said.append(gpu.words())
    left = remaining(look, pace)
    if left is not None:
        said.append(f"~{duration(left)} left")
    if look.verdict != "progressing":
        said.append(look.verdict.replace("_", " "))
    if look.checkpoint is not None and before is not None and look.checkpoint != before.checkpoint:
        of = "" if look.checkpoint_epoch is None else f" of epoch {look.checkpoint_epoch}"
        whole_or_not = {True: "", False: " is damaged", None: " not verified"}[look.checkpoint_valid]
        said.append(f"new checkpoint{of}{whole_or_not}")
    if look.progressed and not (before is not None and before.progressed):
        said.append("progress is proven")
    return clean("  ".join(filter(None, said)))


def unseen_line(config: str, reason: str, left: float) -> str:
    """A look that showed nothing."""
    return clean(f"{config}  not seen: {reason}; goes on for {duration(max(0.0, left))}")


def quiet_line(config: str, quiet: float, left: float) -> str:
    """Nothing has changed for a while; said seldom, so that silence is not taken for a watch that hangs."""
    return f"{config}  nothing new for {duration(quiet)}; goes on for {duration(max(0.0, left))}"


def clean(said: str) -> str:
    """Text from a node in one line that a terminal takes for nothing but text."""
    plain = "".join(character if character.isprintable() else " " for character in said).strip()
    return plain if len(plain) <= LONGEST_LINE else plain[: LONGEST_LINE - 1] + "…"


def _position(look: Look) -> List[str]:
    if look.epoch is None and look.batch is None:
        return ["no epoch yet"]
    epoch = f"epoch {look.epoch or 0}" + ("" if look.total_epochs is None else f"/{look.total_epochs}")
    if not look.this_run:
        return [f"no epoch yet (before: {epoch})" if look.running else f"stood at {epoch}"]
    said = [epoch]
    if look.batch is not None:
        said.append(f"batch {look.batch}")
    if look.loss is not None:
        said.append(f"loss {look.loss}" + ("" if look.val_loss is None else f" (val {look.val_loss})"))
    elif look.val_loss is not None:
        said.append(f"val loss {look.val_loss}")
    return said


def _loss(value: Any) -> Optional[str]:
    """A loss as it is shown, and compared: nan differs from itself."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 10000 else f"{value:.3g}"


def _amount(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
