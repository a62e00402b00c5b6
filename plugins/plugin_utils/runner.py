# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Diagnose and recover from Python: the playbooks of this collection through ansible-runner, typed.

For programs that script a recovery; docs/python_api.md shows how. Unlike the other utils this one is public: names
without a leading underscore stay as they are within a major version.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import queue
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Callable, Deque, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

__all__ = [
    "Diagnosis", "Event", "Finding", "RecoveryCancelled", "RecoveryFailed", "RecoveryRefused", "RecoveryRunError",
    "RecoveryTimedOut", "Report", "ReportReady", "RunNotStarted", "StepBegan", "TaskFailed", "diagnose", "recover",
    "run", "stream",
]  # fmt: skip

# The root of the collection: a checkout, or where it is installed.
ROOT = pathlib.Path(__file__).resolve().parents[2]
# It needs no node and is not for a recovery.
NOT_FOR_RUNS = ("awx_setup",)
# How often a run that says nothing looks whether it is to end, in seconds.
LOOK = 0.5
# So many lines of output are kept for a run that ends without saying why.
TAIL = 30
# After a run was told to end, this long is waited for it, in seconds.
GRACE = 30.0
UNTOUCHED = "Nothing was touched"
# What the checkout has in its ansible.cfg, for whoever has none.
USUAL = {
    "ANSIBLE_INJECT_FACT_VARS": "false",
    "ANSIBLE_PIPELINING": "true",
    "ANSIBLE_FORKS": "50",
    "ANSIBLE_TIMEOUT": "15",
    "ANSIBLE_SSH_ARGS": (
        "-C -o ControlMaster=auto -o ControlPersist=120s -o ServerAliveInterval=5 -o ServerAliveCountMax=6"
    ),
}

Inventory = Union[str, "os.PathLike[str]", Sequence[Union[str, "os.PathLike[str]"]]]


@dataclass(frozen=True)
class StepBegan:
    """A play began, such as ``Diagnose`` or ``Stop training``."""

    step: str


@dataclass(frozen=True)
class TaskFailed:
    """A task failed on a host, or the host could not be reached. The run may go on: its report has the last word."""

    step: str
    task: str
    host: str
    message: str
    unreachable: bool = False


@dataclass(frozen=True)
class Finding:
    """One cause that the diagnosis found, what to mend first coming first."""

    cause: str
    severity: str
    host: Optional[str]
    summary: str
    evidence: Tuple[str, ...]
    fix: Optional[str]


@dataclass(frozen=True)
class Diagnosis:
    """Why training has stalled. ``stalled`` and ``running`` are None where nobody could see it: never healthy."""

    config: str
    stalled: Optional[bool]
    running: Optional[bool]
    headline: str
    next: str
    findings: Tuple[Finding, ...]
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """What a run saw and did. ``data`` is all that it handed on; ``changed`` counts tasks that changed something."""

    playbook: str
    config: str
    check: bool
    outcome: str
    next: str
    changed: int
    diagnosis: Optional[Diagnosis]
    data: Mapping[str, Any]


@dataclass(frozen=True)
class ReportReady:
    """The last event of a run that ended well."""

    report: Report


Event = Union[StepBegan, TaskFailed, Finding, ReportReady]


class RecoveryRunError(Exception):
    """A run that did not end well; ``report`` is what it had seen and done until then, ``failures`` is what failed."""

    def __init__(self, message: str, report: Optional[Report] = None, failures: Sequence[TaskFailed] = ()) -> None:
        super().__init__(message)
        self.report = report
        self.failures = tuple(failures)


class RunNotStarted(RecoveryRunError):
    """Something of the request cannot be used, or ansible-runner is not there. No node was looked at."""


class RecoveryRefused(RecoveryRunError):
    """The run refused to act, and says why. Nothing was touched."""


class RecoveryFailed(RecoveryRunError):
    """A step failed; what was done before it stays done."""


class RecoveryTimedOut(RecoveryRunError):
    """The deadline came before the end."""


class RecoveryCancelled(RecoveryRunError):
    """The caller ended the run."""


def recover(config: str, *, inventory: Inventory, **options: Any) -> Report:
    """Carry out a full recovery, until progress is proven. The options are those of :func:`run`."""
    return run(config, "full_recovery", inventory=inventory, **options)


def diagnose(config: str, *, inventory: Inventory, **options: Any) -> Diagnosis:
    """Say why training has stalled; changes nothing on a node. The options are those of :func:`run`."""
    report = run(config, "diagnose", inventory=inventory, **options)
    if report.diagnosis is None:
        raise RecoveryFailed(f"The diagnosis of {config} ended without a verdict.", report)
    return report.diagnosis


def run(
    config: str,
    playbook: str = "full_recovery",
    *,
    inventory: Inventory,
    check: bool = False,
    diff: bool = False,
    limit: Optional[str] = None,
    extra_vars: Optional[Mapping[str, Any]] = None,
    timeout: float = 7200.0,
    cancel: Optional[threading.Event] = None,
    on_event: Optional[Callable[[Event], None]] = None,
    environment: Optional[Mapping[str, str]] = None,
) -> Report:
    """Run a playbook of this collection to its end.

    :param config: the training config, such as ``hex8_2p``
    :param playbook: its name without ``.yml``
    :param inventory: a path, or several; one that is not there is refused
    :param check: predict, and write nothing on any node
    :param limit: only these nodes, as ``ansible-playbook -l`` has it
    :param extra_vars: what ``-e`` would say; each text is data and never a template
    :param timeout: seconds after which the run is ended
    :param cancel: the run is ended when somebody sets it
    :param on_event: is called with each event, in the thread of the caller
    :param environment: variables to add to those of this process
    :raises RecoveryRunError: for everything that is no good end; its subclasses say which
    """
    for event in stream(
        config, playbook, inventory=inventory, check=check, diff=diff, limit=limit, extra_vars=extra_vars,
        timeout=timeout, cancel=cancel, environment=environment,
    ):  # fmt: skip
        if on_event is not None:
            on_event(event)
        if isinstance(event, ReportReady):
            return event.report
    raise AssertionError("a stream ends with a report or an exception")


def stream(
    config: str,
    playbook: str = "full_recovery",
    *,
    inventory: Inventory,
    check: bool = False,
    diff: bool = False,
    limit: Optional[str] = None,
    extra_vars: Optional[Mapping[str, Any]] = None,
    timeout: float = 7200.0,
    cancel: Optional[threading.Event] = None,
    environment: Optional[Mapping[str, str]] = None,
) -> Iterator[Event]:
    """The events of a run while it goes on, the report being the last; whoever stops asking ends the run.

    The options and exceptions are those of :func:`run`.
    """
    enough = timeout > 0
    if not enough:  # NaN is no more than 0 and no less
        raise RunNotStarted(f"timeout is {timeout!r}. It must be more than 0 seconds.")
    words = _inventory_words(inventory)
    path = _playbook_path(playbook)
    variables = _as_data({**(extra_vars or {}), "config": config})
    runner = _ansible_runner()
    if check:
        words.append("--check")
    if diff:
        words.append("--diff")
    if limit is not None:
        # In one word, so that it is no option of its own whatever it begins with.
        words.append(f"--limit={limit}")
    # Only this user may look into it, and it is gone when the run has ended, however it ended.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-recovery-"))
    try:
        (folder / "project").mkdir()
        given = folder / "extravars"
        _write_private(given, variables)
        yield from _Run(playbook, config, check, timeout, cancel, given).events(
            runner,
            private_data_dir=str(folder),
            playbook=str(path),
            cmdline=shlex.join([*words, "-e", f"@{given}"]),
            envvars=_environment(environment or {}),
            # Nothing of it is written beside what is written above.
            suppress_env_files=True,
            settings={"suppress_output_file": True, "pexpect_timeout": LOOK},
            quiet=True,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Run:
    """One run, as its events tell it. ansible-runner has a thread of its own; whoever asks for events has the other."""

    def __init__(
        self,
        playbook: str,
        config: str,
        check: bool,
        timeout: float,
        cancel: Optional[threading.Event],
        given: pathlib.Path,
    ) -> None:
        self.playbook, self.config, self.check = playbook, config, check
        self.timeout, self.deadline = timeout, time.monotonic() + timeout
        self.cancel, self.given = cancel, given
        self.left = threading.Event()
        self.queue: queue.Queue[Optional[Event]] = queue.Queue()
        self.step = ""
        self.failures: List[TaskFailed] = []
        self.tail: Deque[str] = deque(maxlen=TAIL)
        self.artifacts: Dict[str, Any] = {}
        self.changed = 0
        self.broken: Optional[BaseException] = None
        self.status = ""

    def events(self, runner: Any, **options: Any) -> Iterator[Event]:
        """Start it, hand on what happens, and judge how it ended."""

        def work() -> None:
            try:
                done = runner.run(event_handler=self.heard, cancel_callback=self.is_over, **options)
                self.status = str(done.status)
            except Exception as exc:  # told to whoever asks for the events
                self.broken = exc
            finally:
                self.queue.put(None)

        thread = threading.Thread(target=work, name=f"recovery of {self.config}", daemon=True)
        thread.start()
        try:
            while True:
                event = self.queue.get()
                if event is None:
                    break
                yield event
        finally:
            # Also where the caller has left, or was interrupted: nothing goes on unseen.
            self.left.set()
            thread.join(GRACE)
        yield ReportReady(self.end())

    def is_over(self) -> bool:
        """Whether the run is to be ended."""
        cancelled = self.cancel is not None and self.cancel.is_set()
        return cancelled or self.left.is_set() or time.monotonic() > self.deadline

    def heard(self, event: Mapping[str, Any]) -> bool:
        """Take an event of Ansible; False, as none is to be kept in a file."""
        kind, data = event.get("event"), event.get("event_data") or {}
        if event.get("stdout"):
            self.tail.append(str(event["stdout"]))
        if kind == "playbook_on_start":
            # Ansible has read them by now.
            self.given.unlink(missing_ok=True)
        elif kind == "playbook_on_play_start":
            self.step = str(data.get("name") or data.get("play") or "")
            self.queue.put(StepBegan(self.step))
        elif kind in ("runner_on_failed", "runner_on_unreachable") and not data.get("ignore_errors"):
            self.failed(data, kind == "runner_on_unreachable")
        elif kind == "runner_on_ok":
            self.handed_on(_mapping(_mapping(_mapping(data.get("res")).get("ansible_stats")).get("data")))
        elif kind == "playbook_on_stats":
            self.changed = sum(int(count) for count in _mapping(data.get("changed")).values())
            self.artifacts.update(_mapping(data.get("artifact_data")))
        return False

    def failed(self, data: Mapping[str, Any], unreachable: bool) -> None:
        result = _mapping(data.get("res"))
        message = str(result.get("msg") or "no reason was given")
        items = [_mapping(item) for item in result.get("results") or []]
        said = [str(item["msg"]) for item in items if item.get("failed") and item.get("msg")]
        why = said[0] if said else message
        failure = TaskFailed(self.step, str(data.get("task") or ""), str(data.get("host") or ""), why, unreachable)
        self.failures.append(failure)
        self.queue.put(failure)

    def handed_on(self, handed: Mapping[str, Any]) -> None:
        """What set_stats says while the run goes on: the findings come long before the end."""
        before = "ringrift_diagnosis" in self.artifacts
        self.artifacts.update(handed)
        if "ringrift_diagnosis" in handed and not before:
            for finding in _diagnosis(handed["ringrift_diagnosis"]).findings:
                self.queue.put(finding)

    def report(self) -> Optional[Report]:
        """What it has handed on, if anything."""
        whole = _mapping(self.artifacts.get("ringrift_recovery"))
        found = self.artifacts.get("ringrift_diagnosis") or whole.get("diagnosis")
        if not whole and not found:
            return None
        return Report(
            self.playbook, self.config, self.check, str(whole.get("outcome") or "diagnosed"),
            str(whole.get("next") or _mapping(found).get("next") or ""), self.changed,
            _diagnosis(found) if found else None, MappingProxyType(dict(whole or _mapping(found))),
        )  # fmt: skip

    def end(self) -> Report:
        """The report of a run that ended well; any other raises."""
        report = self.report()
        name, failures = f"{self.playbook} of {self.config}", self.failures
        if self.broken is not None:
            raise RecoveryFailed(f"{name} could not be run: {self.broken}.", report, failures) from self.broken
        if self.status == "successful":
            return report or Report(
                self.playbook, self.config, self.check, "done", "", self.changed, None, MappingProxyType({})
            )
        again = "Run it again: it looks at what was left, and does what is still to be done."
        if self.status == "canceled":
            if time.monotonic() > self.deadline:
                late = f"{name} did not end within {self.timeout:g} s and was ended{self._during()}. {again}"
                raise RecoveryTimedOut(late, report, failures)
            raise RecoveryCancelled(f"{name} was cancelled{self._during()}. {again}", report, failures)
        # The first of the step is the cause; what follows on it only tells that it was not done.
        last = [failure.message for failure in failures if failure.step == failures[-1].step]
        why = last[0] if last else _last(self.tail)
        if self.changed == 0 and (UNTOUCHED in why or (report is not None and report.outcome.startswith("refused"))):
            raise RecoveryRefused(why, report, failures)
        raise RecoveryFailed(f"{name} failed{self._during()}: {why}", report, failures)

    def _during(self) -> str:
        return f" in the step {self.step!r}" if self.step else ""


def _ansible_runner() -> Any:
    try:
        return importlib.import_module("ansible_runner")
    except ImportError as exc:
        raise RunNotStarted(
            f"ansible-runner is needed in {sys.executable} ({exc}): pip install ansible-runner."
        ) from exc


def _playbook_path(name: str) -> pathlib.Path:
    known = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml") if path.stem not in NOT_FOR_RUNS)
    if name not in known:
        raise RunNotStarted(f"There is no playbook {name!r} in this collection. It has {', '.join(known)}.")
    return ROOT / "playbooks" / f"{name}.yml"


def _inventory_words(inventory: Inventory) -> List[str]:
    several = [inventory] if isinstance(inventory, (str, os.PathLike)) else list(inventory)
    words: List[str] = []
    for one in several:
        path = pathlib.Path(one).expanduser().absolute()
        if not path.exists():
            raise RunNotStarted(f"The inventory {path} is not there.")
        words += ["-i", str(path)]
    if not words:
        raise RunNotStarted("No inventory was given; name a file or a folder with the groups coordinator and training.")
    return words


def _environment(extra: Mapping[str, str]) -> Dict[str, str]:
    """Where the tools and the collection are, and what the checkout has in its ansible.cfg."""
    paths = [str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    collections = [os.environ.get("ANSIBLE_COLLECTIONS_PATH", "~/.ansible/collections:/usr/share/ansible/collections")]
    if ROOT.parent.parent.name == "ansible_collections":
        collections.insert(0, str(ROOT.parents[2]))
    # What is set already stays; a host that is not there is an error, and never a run that did nothing and looks well.
    usual = {} if "ANSIBLE_CONFIG" in os.environ else {name: os.environ.get(name, USUAL[name]) for name in USUAL}
    return {
        **usual,
        "ANSIBLE_HOST_PATTERN_MISMATCH": "error",
        "ANSIBLE_INVENTORY_UNPARSED_FAILED": "true",
        "ANSIBLE_COLLECTIONS_PATH": ":".join(collections),
        "PATH": ":".join(paths),
        **extra,
    }


def _write_private(path: pathlib.Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)


def _as_data(value: Any) -> str:
    """As YAML in which each text is tagged as data, so that Ansible never takes one for a template."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise RunNotStarted(f"A name in extra_vars is {key!r}; names are texts.")
        # With the question mark a name may be longer than the 1,024 characters that YAML looks ahead.
        return "{" + ", ".join(f"? {_quoted(key)} : {_as_data(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_as_data(entry) for entry in value) + "]"
    if isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
        # Ansible reads an empty text that is tagged as nothing at all.
        return f"!unsafe {_quoted(text)}" if text else '""'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) or (isinstance(value, float) and abs(value) < float("inf")):
        return repr(value)
    raise RunNotStarted(
        f"A value in extra_vars is {value!r}. It must be what JSON has: text, number, list, dictionary."
    )


def _quoted(text: str) -> str:
    """A text as YAML has it in double quotes, in ASCII, whatever is in it."""
    return '"' + "".join(_character(one) for one in text) + '"'


def _character(one: str) -> str:
    code = ord(one)
    if one in '"\\':
        return f"\\{one}"
    if 32 <= code < 127:
        return one
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _diagnosis(value: Any) -> Diagnosis:
    data = _mapping(value)
    return Diagnosis(
        config=str(data.get("config") or ""),
        stalled=_truth(data.get("stalled")),
        running=_truth(data.get("running")),
        headline=str(data.get("headline") or ""),
        next=str(data.get("next") or ""),
        findings=tuple(_finding(_mapping(entry)) for entry in data.get("findings") or []),
        data=MappingProxyType(dict(data)),
    )


def _finding(data: Mapping[str, Any]) -> Finding:
    return Finding(
        cause=str(data.get("cause") or ""),
        severity=str(data.get("severity") or ""),
        host=_text(data.get("host")),
        summary=str(data.get("summary") or ""),
        evidence=tuple(str(fact) for fact in data.get("evidence") or []),
        fix=_text(data.get("fix")),
    )


def _truth(value: Any) -> Optional[bool]:
    return value if isinstance(value, bool) else None


def _text(value: Any) -> Optional[str]:
    return value if isinstance(value, str) else None


def _last(lines: Sequence[str]) -> str:
    """What Ansible printed last, where it gave no other reason."""
    said = " ".join(" ".join(lines).split())
    return said[-600:] or "no reason was given"
