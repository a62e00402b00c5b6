# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Play a case of the matrix, and say what is not as it must be."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from lab.errors import LabError
from tests.faults import fidelity, world
from tests.faults.cases import BROKEN, EITHER, FAILS, WELL, During, State
from tests.faults.stage import KILLED, Act, Played, Stage

# The demo's faults, in a lab of one node, are where the controller is killed.
KILLS = "controller killed after task"


@dataclass
class Outcome:
    """What came of a case: how the first run ended, how the one after it, and what is ``wrong``."""

    name: str
    first: str = ""
    again: str = ""
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    output: str = ""


def play_state(stage: Stage, case: State) -> Outcome:
    """Look dry, compare, recover, compare, recover once more."""
    begun, outcome = time.monotonic(), Outcome(case.name)
    instance = stage.fresh(case.broken, case.nodes, case.api, case.training)
    time.sleep(case.settle)
    before = world.look(instance)
    size = fidelity.log_size(instance)
    dry = stage.play(case.playbook, "--check", "--diff", *case.options)
    between = world.look(instance)
    outcome.wrong += _touched(instance, before, between, fidelity.log_since(instance, size))
    # Also where it failed: a run does what comes before that.
    said = fidelity.predicted(dry.report, instance.coordinator.name, between)
    size = fidelity.log_size(instance)
    real = stage.play(case.playbook, *case.options)
    after = world.look(instance)
    heard = fidelity.log_since(instance, size)
    wrong, trained = compared(instance, said, real.report, between, after, heard)
    outcome.first = _ended(real)
    outcome.output = real.output
    outcome.wrong += wrong
    outcome.wrong += world.lost(between, after, trained) + world.half_done(instance, between, after, False)
    if case.ends != EITHER and outcome.first != case.ends:
        outcome.wrong.append(f"it {outcome.first} and not {case.ends}")
    if dry.rc == 0 and real.rc != 0 and case.ends == WELL:
        outcome.wrong.append("the dry run ended well")
    if real.rc == 0 and case.still:
        # Asked for by force, there is always something to do.
        second = stage.play(case.playbook, *(() if "force=true" in case.options else case.options))
        outcome.again = _ended(second)
        if second.rc or second.changed:
            outcome.wrong.append(f"a second run {outcome.again} and changed {second.changed}")
            outcome.output += second.output
    outcome.seconds = time.monotonic() - begun
    return outcome


def compared(instance, said, report, before: world.World, after: world.World, heard: str) -> tuple[list[str], bool]:
    """What was ``said`` to change and did not, or changed and was not said, and whether training went on.

    ``report`` is that of the run, and ``heard`` what the orchestrator wrote into its log meanwhile.
    """
    done = fidelity.made(instance, before, after, heard)
    done |= fidelity.given_up(said, after, heard)
    trained = bool(after.trainers) or any(what in ("dispatch", "trainer") for _host, what, _of in done)
    if trained:
        # Whoever trains now has written the lock file since, so the run's own word counts for that one.
        told = fidelity.predicted(report, instance.coordinator.name, before)
        done = {change for change in done if not fidelity.is_lock(change)} | set(filter(fidelity.is_lock, told))
    wrong = [f"predicted, not made: {' '.join(change)}" for change in sorted(said - done)]
    return wrong + [f"made, not predicted: {' '.join(change)}" for change in sorted(done - said)], trained


def play_during(stage: Stage, case: During) -> Outcome:
    """Recover while something happens, look, mend it, and recover again."""
    begun, outcome = time.monotonic(), Outcome(case.name)
    instance = stage.fresh(case.broken, case.nodes)
    before = world.look(instance)
    if case.twice:
        other = stage.begin("full_recovery", *case.options)
        first = stage.play("full_recovery", *case.options)
        beside = other.wait(240)
        if {first.rc == 0, beside.rc == 0} != {True, False}:
            outcome.wrong.append(f"of two at once one must win: they ended with {first.rc} and {beside.rc}")
    else:
        first = stage.play("full_recovery", *case.options, acts=case.acts)
    for act in first.acts:
        if act["rc"]:
            outcome.wrong.append(f"the lab could not: {act['said']}")
    if case.acts and not first.acts and first.rc != KILLED:
        outcome.wrong.append("the moment for the fault never came")
    outcome.first, outcome.output = _ended(first), first.output
    if case.first != EITHER and outcome.first != case.first:
        outcome.wrong.append(f"the first run {outcome.first} and not {case.first}")
    if first.rc not in (0, KILLED):
        outcome.wrong += [f"{words!r} is not said" for words in (*case.says, "next:") if words not in first.flat]
    for words in case.mends:
        try:
            stage.mend(words)
        except LabError as exc:
            outcome.wrong.append(f"not mended: {exc}")
    outcome.wrong += _recovers(stage, before, outcome)
    outcome.seconds = time.monotonic() - begun
    return outcome


def _recovers(stage: Stage, before: world.World, outcome: Outcome) -> list[str]:
    """Look at what a run left, run the same command again, and look at that."""
    instance = stage.instance
    assert instance is not None
    left = world.look(instance)
    trained = world.trained(before, left)
    wrong = world.lost(before, left, trained) + world.half_done(instance, before, left, False)
    again = stage.play("full_recovery")
    outcome.again = _ended(again)
    after = world.look(instance)
    wrong += world.lost(before, after, True) + world.half_done(instance, before, after, True)
    wrong += world.ended(instance, after)
    if again.rc:
        wrong.append(f"run again it {outcome.again}")
        outcome.output += again.output
    return wrong


def tasks_of_a_recovery(stage: Stage) -> tuple[str, ...]:
    """Their names, in the order in which they run where the controller is killed."""
    stage.fresh(BROKEN)
    return stage.play("full_recovery").tasks


class Kills:
    """Kill the controller after each task of a recovery.

    Where what a kill left is no other than what the one before left, from which a recovery ended well, it is not
    recovered from once more: how the world differs from that before is compared, as paths, processes and open work.
    """

    def __init__(self, stage: Stage, every: bool = False) -> None:
        self.stage = stage
        self.every = every
        self.before: world.World | None = None
        self.good: tuple[tuple[str, ...], str] | None = None

    def play(self, number: int, task: str) -> Outcome:
        """Kill when the task behind this one begins; behind the last one there is nobody to kill."""
        begun = time.monotonic()
        outcome = Outcome(f"{KILLS} {number}: {task}")
        if self.before is None:
            self.before = world.look(self.stage.fresh(BROKEN))
        first = self.stage.play("full_recovery", acts=(Act(number=number + 1, kills=True),))
        outcome.first, outcome.output = _ended(first), first.output
        instance = self.stage.instance
        assert instance is not None
        left = world.look(instance)
        marks = fidelity.marks(self.before, left)
        wrong = world.lost(self.before, left, world.trained(self.before, left))
        wrong += world.half_done(instance, self.before, left, False)
        if self.good is not None and self.good[0] == marks and not self.every and not wrong:
            outcome.again = f"as {self.good[1]}"
        else:
            wrong += _recovers(self.stage, self.before, outcome)
            self.good = None if wrong else (marks, f"after task {number}")
            self.before = None
        if marks:
            self.before = None
        outcome.wrong = wrong
        outcome.seconds = time.monotonic() - begun
        return outcome


def _touched(instance, before: world.World, after: world.World, said: str) -> list[str]:
    """What a dry run left on the nodes, beside what a trainer that runs writes by itself."""
    changes = fidelity.made(instance, before, after, said)
    return [f"check mode changed: {' '.join(change)}" for change in sorted(changes)]


def _ended(run: Played) -> str:
    if run.rc == KILLED:
        return "killed"
    return WELL if run.rc == 0 else FAILS
