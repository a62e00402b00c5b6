# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix: broken states that a dry run must predict, and faults that strike while a recovery runs."""

from __future__ import annotations

from dataclasses import dataclass

from tests.faults.stage import Act

OURS = "nebius-h100-3"
LEADER = "coordinator-1"
# Lock, checkpoint and training file together: each step of a recovery has something to do.
BROKEN = "lock checkpoint data"
SOON = ("-e", "ringrift_stall_after=3")
DIRECT = ("-e", "restart_via=direct")
FRESH = ("-e", "refresh=always")
WELL, FAILS, EITHER = "ends well", "fails", "either"


@dataclass(frozen=True)
class State:
    """A broken lab, and how its recovery ends. ``settle`` seconds pass before anybody looks.

    What is predicted, what is then changed, and that check mode changes nothing is compared for each.
    """

    name: str
    broken: str = ""
    ends: str = WELL
    options: tuple[str, ...] = ()
    nodes: int = 1
    api: str = "ringrift"
    playbook: str = "full_recovery"
    settle: float = 0.0
    training: bool = True
    # Faults that must be undone before a second run can find nothing to do.
    still: bool = True


@dataclass(frozen=True)
class During:
    """Something that happens while a recovery runs. ``mends`` are undone before it is run again, if they still hold."""

    name: str
    acts: tuple[Act, ...] = ()
    broken: str = BROKEN
    first: str = EITHER
    says: tuple[str, ...] = ()
    mends: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    nodes: int = 1
    twice: bool = False


STATES = (
    State("healthy"),
    State("never trained", training=False),
    State("trainer killed", "kill"),
    State("lock left by a dead trainer", "lock"),
    State("training file cut", "kill data"),
    State("training file cut under a trainer that stands still", "hang data", options=SOON, settle=4),
    State("training file of another config", "kill bad-data"),
    State("training file missing", "kill missing-data"),
    State("training file cut on one node", f"kill data {OURS}"),
    State("checkpoint damaged", "kill checkpoint"),
    State("checkpoint cut", "kill truncated-checkpoint"),
    State("oldest checkpoint damaged", "kill old-checkpoint"),
    State("canonical model damaged", "kill model"),
    State("canonical model and checkpoint damaged", "kill model checkpoint"),
    State("lock, checkpoint and training file", BROKEN),
    State("lock, checkpoint and training file, three nodes", BROKEN, nodes=3),
    State("lock, checkpoint and training file, the runbook's API", BROKEN, api="runbook"),
    State("trainer killed, the runbook's API", "kill", api="runbook"),
    State("trainer stopped by SIGSTOP", "hang", options=SOON, settle=4),
    State("two trainers", "duplicate"),
    State("out of GPU memory", "oom"),
    State("node out of memory", "host-oom"),
    State("every trainer ends with an error", "train-fails", ends=FAILS),
    State("events not wired", "kill events"),
    State("daemons down", "kill daemons"),
    State("stale job record", "kill stale-record"),
    State("training_in_progress left", "kill in-progress"),
    State("training just finished", "finished", ends=EITHER),
    State("finished, by force", "finished", options=("-e", "force=true")),
    State("lock of a host that nobody knows", "kill remote-lock", ends=FAILS),
    State("lock of a host that nobody knows, by name", "kill remote-lock", options=("-e", "force=true"), ends=EITHER),
    State("no games and no training file", "kill missing-data no-games", ends=FAILS),
    State("direct start after a kill", "kill", options=DIRECT),
    State("direct start, everything broken", BROKEN, options=DIRECT),
    State("orchestrator down, direct start", "kill orchestrator", options=DIRECT),
    State("orchestrator down", "kill orchestrator", ends=FAILS),
    State("orchestrator answers garbage", "kill garbage-answers", ends=FAILS),
    State("no leader", "kill no-leader", ends=FAILS),
    State("disk of the checkpoints full", "kill disk", ends=EITHER, still=False),
    State("fresh export on request", "kill", options=FRESH),
    *(
        State(f"fix of {cause}", broken, options=("-e", f"cause={cause}"), playbook="fix")
        for cause, broken in (
            ("lock_held", "lock"),
            ("data_not_ready", "kill data"),
            ("checkpoint_corrupt", "kill checkpoint"),
            ("cooldown_active", "finished"),
            ("gpu_oom", "oom"),
            ("events_not_wired", "kill events"),
            ("daemons_down", "kill daemons"),
        )
    ),
    State("slow training by force", "slow", options=("-e", "force=true"), still=False),
)

STEPS = (
    # A step, the task that is its middle, and the first one behind it.
    ("stop", "journal : Remember the run", "stop_training : Stop the trainers", "clear_state : Validating"),
    ("clear", "clear_state : Validating", "clear_state : Release the lock on every node", "prepare_data : Validating"),
    ("prepare data", "prepare_data : Validating", "prepare_data : Verify the copy", "restart_training : Validating"),
    ("restart", "restart_training : Validating", "restart_training : Dispatch", "monitor : Validating"),
    ("monitor", "monitor : Validating", "monitor : Watch until an epoch", "report : Collect"),
)


def _silent() -> tuple[During, ...]:
    cases = []
    for step, before, within, after in STEPS:
        places = (
            ("before", before.replace("playbook", "journal : Remember the run")),
            ("in", within),
            ("after", after),
        )
        cases += [
            During(
                f"node off the network {when} {step}",
                (Act(task=task, breaks=f"unreachable {OURS}"),),
                mends=(f"unreachable {OURS}",),
            )
            for when, task in places
        ]
    return tuple(cases)


EXPORT = "prepare_data : Export training data"
COPY = "prepare_data : Copy the training file"
VERIFY = "prepare_data : Verify the copy"
RESTORE = "restart_training : Put the newest verified checkpoint"
DISPATCH = "restart_training : Dispatch"
CLEAR = "clear_state : Clear the job records"
MONITOR = "monitor : Watch until an epoch"
NO_REDIS = ("-e", "ringrift_redis_url=redis://127.0.0.1:1/0")
QUICK_EXPORT = ("-e", "ringrift_export_timeout=6")

DURING = (
    *_silent(),
    During("coordinator off the network before the export", (Act(task=EXPORT, breaks=f"unreachable {LEADER}"),),
           first=FAILS, mends=(f"unreachable {LEADER}",)),
    During("disk full while exporting", (Act(task=EXPORT, breaks=f"data-disk {LEADER}"),), first=FAILS,
           mends=(f"data-disk {LEADER}",)),
    During("disk full while copying", (Act(task=COPY, breaks=f"data-disk {OURS}"),), first=FAILS,
           mends=(f"data-disk {OURS}",)),
    During("disk full while restoring", (Act(task=RESTORE, breaks=f"model-disk {OURS}"),), first=FAILS,
           mends=(f"model-disk {OURS}",)),
    During("training file damaged in transit", (Act(task=VERIFY, breaks=f"damaged-copy {OURS}"),), first=FAILS,
           says=("was expected",)),
    During("rsync cut", (Act(task=COPY, breaks=f"rsync-cut {OURS}"),), first=FAILS, mends=(f"rsync-cut {OURS}",)),
    During("exporter hangs", (Act(task=EXPORT, breaks="export-hangs"),), first=FAILS, options=QUICK_EXPORT,
           mends=("export-hangs",)),
    During("exporter exits 0 with nothing written", (Act(task=EXPORT, breaks="export-nothing"),), first=FAILS,
           mends=("export-nothing",)),
    During("exporter exits 89 with a good file", (Act(task=EXPORT, breaks="export-code"),), first=WELL,
           mends=("export-code",)),
    During("exporter dies half-way through its file", (Act(task=EXPORT, breaks="export-dies"),), first=FAILS,
           mends=("export-dies",)),
    *(
        During(f"orchestrator {words} {when}", (Act(task=task, breaks=fault),), mends=(mends,) if mends else ())
        for words, fault, mends in (
            ("stops", "orchestrator", "orchestrator"),
            ("answers 500", "error-answers", "error-answers"),
            ("answers garbage", "garbage-answers", "garbage-answers"),
            ("refuses with HTTP 200", "refusing-answers", "refusing-answers"),
            ("is slow", "slow-answers", "slow-answers"),
        )
        for when, task in (("before the records are cleared", CLEAR), ("before the dispatch", DISPATCH))
    ),
    During("leader moves before the dispatch", (Act(task=DISPATCH, breaks=f"leader-moved {OURS}"),),
           mends=(f"leader-moved {OURS}",)),
    During("trainer dies at once", (Act(task=DISPATCH, breaks=f"trainer-dies {OURS}"),), first=FAILS,
           mends=(f"trainer-dies {OURS}",)),
    During("trainer dies after one epoch", (Act(task=DISPATCH, breaks=f"trainer-one-step {OURS}"),),
           mends=(f"trainer-one-step {OURS}",)),
    During("trainer trains and never checkpoints", (Act(task=DISPATCH, breaks=f"no-checkpoints {OURS}"),), first=WELL,
           mends=(f"no-checkpoints {OURS}",)),
    During("clock of the node jumps an hour ahead", (Act(task=DISPATCH, breaks=f"clock {OURS}"),)),
    During("two recoveries at once", twice=True),
    During("Redis gone", options=NO_REDIS, first=FAILS, says=("127.0.0.1:1",)),
    *(
        During(f"controller killed {later:g} s into: {task.split(' : ')[1]}", (Act(task, kills=True, later=later),))
        for task in ("stop_training : Stop the trainers", "clear_state : Release the lock on every node", EXPORT, COPY,
                     VERIFY, RESTORE, DISPATCH, MONITOR)
        for later in (0.2, 0.6)
    ),
)  # fmt: skip
# Played by `make test`, whose test_full_recovery.py compares prediction and change; the rest by `make faults`.
SAMPLE = ("training file damaged in transit",)
