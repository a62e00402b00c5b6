# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Play a scenario on a lab, ask the real command what is wrong, and compare."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import tempfile
import time
from dataclasses import dataclass

from lab import cluster, faults, operation
from lab.errors import LabError
from lab.faults._scene import Scene
from lab.instance import Instance
from lab.nodes import driver_of
from lab.processes import wait_until
from lab.training import find
from tests.integration.diagnosis_scenarios import Scenario
from tests.integration.harness import CONFIG, QUICK, run

# Undone, these leave something behind that the next diagnosis could see.
LASTING = {"disk", "inodes", "duplicate", "orchestrator", "no-leader", "compile", "train-fails"}
# A node that does not answer is waited for no longer than need be.
SILENT = {"unreachable", "hung-ssh", "no-login", "no-python"}
UNKNOWN = "nothing"


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario. ``skipped`` says why it could not be played, ``wrong`` what is not as it must be."""

    scenario: Scenario
    got: str = UNKNOWN
    seconds: float = 0.0
    wrong: tuple[str, ...] = ()
    skipped: str | None = None
    evidence: pathlib.Path | None = None

    @property
    def right(self) -> bool:
        return self.got in self.scenario.tops


class Stage:
    """A lab that is broken, looked at and made whole again."""

    def __init__(self, directory: pathlib.Path, driver: str) -> None:
        self.directory = directory
        self.driver = driver
        self.instance: Instance | None = None
        self.clean = False

    def close(self) -> None:
        cluster.down(self.directory, say=_silent)
        self.instance = None

    def play(self, scenario: Scenario) -> Outcome:
        """Break the lab as the scenario says, diagnose, and compare."""
        try:
            self._prepare(scenario)
            assert self.instance is not None
            list(faults.apply(self.instance, scenario.faults))
        except LabError as exc:
            self.clean = False
            if _needs_more(exc):
                return Outcome(scenario, skipped=str(exc))
            raise
        except Exception as exc:
            # Half a fault is no lab to go on with.
            self.clean = False
            raise LabError(f"{scenario.name} could not be broken: {exc}") from exc
        if scenario.until_gone and not wait_until(self._gone, 30, 0.1):
            raise LabError(f"{scenario.name}: a trainer still runs after 30 s.")
        time.sleep(scenario.settle)
        outcome = self._diagnose(scenario)
        self._mend(scenario)
        return outcome

    def _prepare(self, scenario: Scenario) -> None:
        has = self.instance
        if has and self.clean and (len(has.training_nodes), has.training) == (scenario.nodes, scenario.training):
            return
        if has is not None:
            self.close()
        wish = cluster.Wish(self.driver, scenario.nodes, None, CONFIG, scenario.training)
        self.instance = cluster.up(self.directory, wish, say=_silent)
        self.clean = True

    def _gone(self) -> bool:
        assert self.instance is not None
        driver = driver_of(self.instance)
        return not operation.open_work(self.instance, driver) and not find(self.instance, driver)

    def _diagnose(self, scenario: Scenario) -> Outcome:
        reports = pathlib.Path(tempfile.mkdtemp(prefix="reports-", dir=self.directory))
        # Connections that outlive a scenario would hide that a node lets nobody in any more.
        sockets = tempfile.mkdtemp(prefix="rr-")
        silent = any(fault in SILENT for fault, _node in scenario.faults)
        env = {"ANSIBLE_SSH_CONTROL_PATH_DIR": sockets, **(QUICK if silent else {})}
        begun = time.monotonic()
        done = run(
            "ansible-playbook", "-i", str(self.directory / "inventory"), "playbooks/diagnose.yml",
            "-e", f"config={CONFIG}", "-e", f"ringrift_report_dir={reports}", *scenario.options, **env,
        )  # fmt: skip
        seconds = time.monotonic() - begun
        shutil.rmtree(sockets, ignore_errors=True)
        verdict, evidence = newest(reports, "diagnosis"), newest(reports, "evidence")
        if verdict is None:
            wrong = (f"no *-diagnosis.json, exit code {done.returncode}: {done.stdout[-2000:]}",)
            return Outcome(scenario, UNKNOWN, seconds, wrong, None, evidence)
        return judge(scenario, json.loads(verdict.read_text()), seconds, evidence)

    def _mend(self, scenario: Scenario) -> None:
        """Undo the faults where that leaves no trace; else the next scenario gets a new lab."""
        assert self.instance is not None
        undoable = all(hasattr(faults.load(fault), "mend") and fault not in LASTING for fault, _node in scenario.faults)
        self.clean = False
        if not undoable or not scenario.training:
            return
        with contextlib.suppress(LabError):
            for fault, node in reversed(scenario.faults):
                faults.load(fault).mend(Scene(self.instance, node))
            if scenario.faults:
                operation.await_training(self.instance, driver_of(self.instance), time.time(), timeout=15)
            self.clean = True


def judge(scenario: Scenario, verdict: dict, seconds: float, evidence: pathlib.Path | None = None) -> Outcome:
    """Compare a verdict with what it must be."""
    findings = verdict.get("findings") or []
    first = findings[0] if findings else {}
    stalled = verdict.get("stalled")
    got = "not_stalled" if stalled is False else str(first.get("cause") or UNKNOWN)
    causes = [entry.get("cause") for entry in findings]
    wrong = []
    if got not in scenario.tops:
        wrong.append(f"first is {got}, not {' or '.join(scenario.tops)}")
    if stalled is not scenario.stalled:
        wrong.append(f"stalled is {stalled}, not {scenario.stalled}")
    if scenario.host is not None and got in scenario.tops and first.get("host") != scenario.host:
        wrong.append(f"{got} is said of {first.get('host')}, not of {scenario.host}")
    wrong += [f"{cause} was not found" for cause in scenario.also if cause not in causes]
    for entry in findings:
        if entry.get("cause") in scenario.never:
            facts = "; ".join(str(fact) for fact in (entry.get("evidence") or [])[:2])
            wrong.append(f"{entry.get('cause')} was found and is not there: {entry.get('summary')} ({facts})")
    return Outcome(scenario, got, seconds, tuple(wrong), None, evidence)


def newest(folder: pathlib.Path, kind: str) -> pathlib.Path | None:
    """The last file of a kind that a run has kept."""
    found = sorted(folder.glob(f"*-{kind}.json"), key=lambda path: path.stat().st_mtime_ns)
    return found[-1] if found else None


def _needs_more(exc: LabError) -> bool:
    """Whether the machine lacks what a fault needs; everything else is an error."""
    return any(word in str(exc) for word in ("apt-get install", "needs the netns driver", "Use --driver netns"))


def _silent(_text: str) -> None:
    """The lab tells what it does; here nobody reads it."""
