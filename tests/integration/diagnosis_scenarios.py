# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the diagnosis must find: faults of the lab, and the cause that comes first.

The cause comes before what follows from it. While training moves, whatever else is wrong, that it is not stalled comes
first.
"""

from __future__ import annotations

from dataclasses import dataclass

OURS = "nebius-h100-3"
OTHER = "runpod-h100"
LEADER = "coordinator-1"
COORDINATOR = "coordinator-1"

# A trainer that stands still is to be seen as stalled soon, and one that is busy must have been so for longer.
SOON = ("-e", "ringrift_stall_after=3")
PATIENT = ("-e", "ringrift_stall_after=6")

# What nothing may be accused of that is as it should be.
NO_CAUSE = (
    "gpu_oom",
    "host_oom",
    "lock_held",
    "data_not_ready",
    "checkpoint_corrupt",
    "process_hung",
    "process_unkillable",
    "gpu_wedged",
    "gpu_sick",
    "disk_full",
    "orchestrator_down",
    "no_leader",
    "node_unreachable",
    "events_not_wired",
    "daemons_down",
    "clock_skew",
    "training_failed",
    "duplicate_trainers",
)
# The same where a trainer has ended: its lock file stays, and that nobody holds it may be said.
NOTHING_ELSE = tuple(cause for cause in NO_CAUSE if cause != "lock_held")


@dataclass(frozen=True)
class Scenario:
    """``faults`` are applied in their order, as (fault, node); ``top`` names what must come first, or what may.

    ``also`` are causes that must be found too, ``never`` such that must not. ``until_gone`` waits until no trainer is
    left, and ``settle`` seconds pass before the diagnosis. ``training`` False is a fleet in which none ever ran.
    """

    name: str
    faults: tuple[tuple[str, str | None], ...]
    top: str | tuple[str, ...]
    stalled: bool | None
    options: tuple[str, ...] = ()
    host: str | None = None
    also: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    settle: float = 0.0
    until_gone: bool = False
    nodes: int = 1
    training: bool = True

    @property
    def tops(self) -> tuple[str, ...]:
        return (self.top,) if isinstance(self.top, str) else self.top


def moving(name: str, *faults: str, **more) -> Scenario:
    """Training goes on."""
    return Scenario(name, orders(faults), "not_stalled", False, **more)


def stopped(name: str, top: str | tuple[str, ...], *faults: str, **more) -> Scenario:
    """No trainer runs, or the one that runs stands still."""
    return Scenario(name, orders(faults), top, True, **more)


def orders(words: tuple[str, ...]) -> tuple[tuple[str, str | None], ...]:
    """``fault`` or ``fault@node``."""
    return tuple((fault, node or None) for fault, _, node in (word.partition("@") for word in words))


SCENARIOS = (
    # Nothing is wrong, or nothing that keeps training from going on
    moving("healthy", never=NO_CAUSE),
    moving("slow", "slow", never=NO_CAUSE, settle=3),
    moving("first epoch compiles", "compile", options=PATIENT, settle=7, never=("process_hung", "gpu_wedged")),
    moving("long evaluation", "evaluate", options=PATIENT, settle=7, never=("process_hung", "gpu_wedged")),
    moving("GPU of another tenant busy", "tenant", never=NO_CAUSE),
    moving("GPU throttled, training moves", "throttle"),
    moving("OOM of another process", "other-oom", never=("host_oom", "gpu_oom")),
    moving("XID of another program", "xid-app", never=("process_hung",)),
    moving("XID of an earlier boot", "old-xid", never=NO_CAUSE),
    moving("lock of another config, training moves", "foreign-lock", never=NO_CAUSE),
    moving("OOM before the restart", "old-oom", never=("gpu_oom", "training_failed")),
    moving("log rotated", "log-rotated", never=NO_CAUSE),
    moving("old checkpoint damaged, training moves", "old-checkpoint", never=("process_hung",)),
    moving("XID 48, training moves", "xid", also=("gpu_sick",)),
    moving("events, training moves", "events", also=("events_not_wired",)),
    moving("daemons, training moves", "daemons", also=("daemons_down",)),
    moving("paused, training moves", "paused", never=("not_running",)),
    moving("data cut, training moves", "data", also=("data_not_ready",)),
    moving("no games, training moves", "no-games", also=("data_not_ready",)),
    moving("no leader, training moves", "no-leader", also=("no_leader",)),
    moving("orchestrator, training moves", "orchestrator", also=("orchestrator_down",)),
    moving("two trainers", "duplicate", also=("duplicate_trainers",)),
    moving("clock an hour ahead", "clock", also=("clock_skew",), never=("process_hung",)),
    moving("completed, cooldown", "finished", never=NOTHING_ELSE),
    # A trainer lives and stands still
    stopped("hang", "process_hung", "hang", options=SOON, settle=4, host=OURS),
    stopped("wedged at 100 %", "gpu_wedged", "wedge", options=SOON, settle=4, host=OURS, also=("process_hung",)),
    stopped("unkillable", "process_unkillable", "unkillable", options=SOON, settle=4, host=OURS),
    stopped("hang on a lost GPU", "gpu_sick", "hang", "xid-lost", options=SOON, settle=4, host=OURS),
    stopped("hang on a sick GPU", "gpu_sick", "hang", "sick", options=SOON, settle=4, also=("process_hung",)),
    stopped("GSP timeout, nvidia-smi hangs", "gpu_sick", "hang", "xid-gsp", "hung-gpu", options=SOON, settle=4),
    stopped("hang, orchestrator down", "process_hung", "hang", "orchestrator", options=SOON, settle=4,
            also=("orchestrator_down",)),
    # No trainer runs, for one reason
    stopped("killed", "not_running", "kill", never=NOTHING_ELSE),
    stopped("empty fleet", "not_running", training=False, never=NO_CAUSE),
    stopped("stale record", "not_running", "stale-record", never=NOTHING_ELSE),
    stopped("GPU memory", "gpu_oom", "oom", host=OURS),
    stopped("host memory", "host_oom", "host-oom", host=OURS),
    stopped("lock of a dead holder", "lock_held", "lock", host=OURS),
    stopped("lock of another host", "lock_held", "remote-lock", host=OURS),
    stopped("data cut", "data_not_ready", "kill", "data"),
    stopped("data missing", "data_not_ready", "kill", "missing-data"),
    stopped("data of another config", "data_not_ready", "kill", "bad-data"),
    stopped("cooldown", "cooldown_active", "cooldown"),
    stopped("checkpoint bit", "checkpoint_corrupt", "kill", "checkpoint", host=OURS),
    stopped("checkpoint cut", "checkpoint_corrupt", "kill", "truncated-checkpoint", host=OURS),
    stopped("canonical model damaged", "checkpoint_corrupt", "kill", "model", host=OURS),
    stopped("disk full", "disk_full", "disk", until_gone=True, host=OURS),
    stopped("no inodes", "disk_full", "inodes", until_gone=True, host=OURS),
    stopped("trainer fails", "training_failed", "train-fails", host=OURS),
    stopped("XID 48", "gpu_sick", "xid", "kill", host=OURS),
    stopped("driver gone", "gpu_sick", "kill", "no-driver", host=OURS),
    # No trainer runs, and more than one thing is wrong
    stopped("kill and events", "events_not_wired", "kill", "events"),
    stopped("kill and daemons", "daemons_down", "kill", "daemons"),
    stopped("kill and paused", "trigger_blocked", "kill", "paused"),
    stopped("kill and in progress", "trigger_blocked", "kill", "in-progress"),
    stopped("kill and orchestrator", "orchestrator_down", "kill", "orchestrator"),
    stopped("kill and no leader", "no_leader", "kill", "no-leader"),
    stopped("GPU memory and lock", "gpu_oom", "oom", "remote-lock", also=("lock_held",)),
    stopped("data and checkpoint", ("data_not_ready", "checkpoint_corrupt"), "kill", "data", "checkpoint",
            also=("data_not_ready", "checkpoint_corrupt")),
    stopped("disk and checkpoint", "disk_full", "kill", "checkpoint", "disk", also=("checkpoint_corrupt",)),
    stopped("host memory and checkpoint", "host_oom", "host-oom", "truncated-checkpoint",
            also=("checkpoint_corrupt",)),
    stopped("cooldown and checkpoint", "checkpoint_corrupt", "cooldown", "checkpoint", also=("cooldown_active",)),
    stopped("no games and no data", "data_not_ready", "kill", "no-games", "missing-data"),
    # No trainer runs, and what looks like a reason is none
    stopped("killed, OOM of another process", "not_running", "kill", "other-oom", never=("host_oom", "gpu_oom")),
    stopped("killed, XID of an earlier boot", "not_running", "kill", "old-xid", never=("gpu_sick",)),
    stopped("killed, lock of another config", "not_running", "kill", "foreign-lock", never=NOTHING_ELSE),
    stopped("killed, GPU of another tenant busy", "not_running", "kill", "tenant", never=("gpu_wedged", "gpu_sick")),
    stopped("killed, old checkpoint damaged", "not_running", "old-checkpoint", "kill"),
    # More nodes, and such that show nothing
    stopped("killed, GPU of another node wedged", "not_running", "kill", f"wedge@{OTHER}", nodes=2),
    stopped("killed, GPU of another node sick", "not_running", "kill", f"sick@{OTHER}", nodes=2),
    moving("another node unreachable", f"unreachable@{OTHER}", nodes=2, also=("node_unreachable",)),
    Scenario("killed, another node unreachable", orders(("kill", f"unreachable@{OTHER}")), "node_unreachable", None,
             nodes=2, host=OTHER),
    Scenario("unreachable", orders((f"unreachable@{OURS}",)), "node_unreachable", None, host=OURS),
    moving("coordinator unreachable, training moves", f"unreachable@{LEADER}",
           also=("node_unreachable", "orchestrator_down")),
    stopped("killed, coordinator unreachable", ("node_unreachable", "not_running"), "kill", f"unreachable@{LEADER}",
            also=("node_unreachable", "orchestrator_down")),
    Scenario("nothing answers", orders((f"unreachable@{LEADER}", f"unreachable@{OURS}")), "node_unreachable", None),
    Scenario("login refused", orders((f"no-login@{OURS}",)), "node_unreachable", None, host=OURS),
    Scenario("no Python", orders((f"no-python@{OURS}",)), ("node_unreachable", "probe_failed"), None, host=OURS),
    Scenario("sshd hangs", orders((f"hung-ssh@{OURS}",)), "node_unreachable", None, host=OURS),
)  # fmt: skip

# What `make test` plays: of every kind one, and those that lie closest together.
FEW = ("healthy", "kill and events", "nothing answers")


def named(name: str) -> Scenario:
    """A scenario by its name, or by a part of it that no other has."""
    found = [entry for entry in SCENARIOS if entry.name == name] or [entry for entry in SCENARIOS if name in entry.name]
    if len(found) != 1:
        known = ", ".join(entry.name for entry in found or SCENARIOS)
        raise KeyError(f"{name!r} is {'no scenario' if not found else 'several scenarios'}: {known}")
    return found[0]
