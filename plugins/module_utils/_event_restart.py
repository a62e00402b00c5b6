# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restart what wires the training events, and prove that they are wired and their daemons run.

There are three ways, from the least to the most: ``--restart`` of the launcher, which the runbook knows and the real
service lacks; the systemd unit that owns the orchestrator or the daemons; and ``/admin/restart`` of the orchestrator.

An orchestrator that starts sends SIGTERM to every Python process whose parent is process 1 and whose command line
speaks of training. So the last two ways are refused while there is one. This util is private to the collection.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from ansible_collections.ringrift.recovery.plugins.module_utils import (
    _cgroup,
    _event_wiring,
    _http,
    _proc,
    _service_daemons,
    _systemd,
    _training_process,
)
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._event_wiring import NEEDED, WIRED, EventWiring
from ansible_collections.ringrift.recovery.plugins.module_utils._service_daemons import ABSENT, ServiceDaemons
from ansible_collections.ringrift.recovery.plugins.module_utils._training_start import REAPED, service_environment

AUTO = "auto"
LAUNCHER = "launcher"
UNIT = "unit"
HTTP = "http"
WAYS = (LAUNCHER, UNIT, HTTP)

DAEMONS = ("EVENT_ROUTER", "FEEDBACK_LOOP", "DATA_PIPELINE")
SCRIPT = os.path.join("scripts", "launch_daemons.py")
PYTHON = os.path.join("venv", "bin", "python")
RESTART = re.compile(r"(?<![\w-])--restart(?![\w-])")
ADMIN = "/admin/restart"
HEALTH = "/health"

# In the order in which they are restarted; the last is a part of the first two.
LOOP_UNIT = "master-loop.service"
UNITS = ("ringrift-p2p-orchestrator.service", "ringrift-p2p.service", LOOP_UNIT)
ORCHESTRATOR = "p2p_orchestrator.py"
# What the service itself keeps running: never an orphan, whatever its arguments say.
PROGRAMS = (ORCHESTRATOR, "master_loop.py", "launch_daemons.py")

EACH = 5.0
# With less time a question gets no answer, and hides what was seen before; so the last ones may end so much later each.
LEAST = 1.0
POLL = 0.25
# The real launcher imports most of the service before it says what it can do.
HELP = 20.0
MOST = 3600.0
MAX_OUTPUT = 256 * 1024
SHOWN = 80
NAMED = 5

TOKEN = re.compile(r"\A[\x21-\x7e]+\Z")


@dataclass(frozen=True)
class RestartRequest:
    """What to restart, and how. ``within`` leaves out processes whose working directory is elsewhere."""

    service_path: str
    p2p_url: str = "http://localhost:8770"
    health_url: str = _service_daemons.URL
    via: str = AUTO
    python: Optional[str] = None
    token: Optional[str] = field(default=None, repr=False)
    admin_token: Optional[str] = field(default=None, repr=False)
    force: bool = False
    force_orphans: bool = False
    within: Optional[str] = None
    timeout: float = 60.0

    @property
    def root(self) -> str:
        return os.path.abspath(os.path.expanduser(self.service_path))

    @property
    def interpreter(self) -> str:
        # Not normalized: a virtual environment is known by the path of its link.
        return os.path.join(self.root, os.path.expanduser(self.python or PYTHON))


@dataclass(frozen=True)
class State:
    """What is known of the events and of the daemons at one moment."""

    wiring: EventWiring
    daemons: ServiceDaemons

    @property
    def good(self) -> bool:
        """Whether it is known that the events are wired and that the daemons run."""
        return self.wiring.verdict == WIRED and self.daemons.up

    @property
    def unknowable(self) -> bool:
        """Whether the orchestrator answers, but does not tell who listens."""
        return self.wiring.reachable and self.wiring.verdict == _event_wiring.UNKNOWN

    def as_dict(self) -> Dict[str, Any]:
        return {"wiring": self.wiring.as_dict(), "daemons": self.daemons.as_dict()}

    def faults(self) -> List[str]:
        """What is not as it should be, one sentence part each."""
        found = []
        nobody = [name for name in self.wiring.missing if name in NEEDED]
        if nobody:
            found.append(f"nobody listens to {', '.join(nobody)}")
        elif self.wiring.verdict != WIRED:
            found.append(f"who listens at {self.wiring.url} is not known ({self.wiring.reason})")
        if self.daemons.down:
            states = (f"{name} is {self.daemons.daemons.get(name, ABSENT)}" for name in self.daemons.down)
            found.append(", ".join(states))
        elif not self.daemons.known:
            found.append(f"the daemons at {self.daemons.url} are not known ({self.daemons.reason})")
        return found

    def lines(self, predicted: bool = False) -> str:
        """The same, to be compared; ``predicted`` as a restart leaves it."""
        found = []
        for name in NEEDED:
            count = (self.wiring.events.get(name) or _event_wiring.Subscribers()).subscribers
            words = "heard" if predicted or count else "not known" if count is None else "heard by nobody"
            found.append(f"{name}: {words}\n")
        for name in _service_daemons.NEEDED:
            known = self.daemons.daemons.get(name, ABSENT) if self.daemons.known else "not known"
            found.append(f"{name}: {_service_daemons.RUNNING if predicted else known}\n")
        return "".join(found)


@dataclass(frozen=True)
class Attempt:
    """A way that was looked at: ``done`` when it was gone, otherwise ``reason`` says why not.

    ``acted`` tells that something may have been restarted although it was not ``done``.
    """

    via: str
    done: bool
    reason: Optional[str] = None
    what: str = ""
    acted: bool = False

    def as_dict(self) -> Dict[str, Any]:
        return {"via": self.via, "done": self.done, "what": self.what or None, "reason": self.reason}


@dataclass(frozen=True)
class Outcome:
    """What was before, what is now, and what was done; in a prediction ``after`` is as before."""

    before: State
    after: State
    via: Optional[str] = None
    restarted: bool = False
    tried: Tuple[Attempt, ...] = ()
    predicted: bool = False

    @property
    def changed(self) -> bool:
        return self.restarted or any(attempt.acted for attempt in self.tried)

    def as_dict(self) -> Dict[str, Any]:
        return {
            "changed": self.changed,
            **self.after.as_dict(),
            "before": self.before.as_dict(),
            "via": self.via,
            "restarted": self.restarted,
            "tried": [attempt.as_dict() for attempt in self.tried],
        }

    def failure(self) -> Dict[str, Any]:
        """The same as a failure shows it, on one screen: how it is now, and of a hundred daemons those that matter."""
        told = self.as_dict()
        del told["before"]
        states = told["daemons"]["daemons"]
        told["daemons"]["daemons"] = {name: states[name] for name in _service_daemons.NEEDED if name in states}
        return told

    def diff(self) -> Dict[str, str]:
        return {"before": self.before.lines(), "after": self.after.lines(self.predicted and self.restarted)}


class RestartFailed(RecoveryError):
    """It was not restarted, or it is not proven; ``outcome`` has the evidence."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass(frozen=True)
class Plan:
    """A way that can be gone."""

    via: str
    what: str
    units: Tuple[str, ...] = ()

    @property
    def new_orchestrator(self) -> bool:
        return self.via == HTTP or any(unit != LOOP_UNIT for unit in self.units)


def look(request: RestartRequest, timeout: float = EACH) -> State:
    """How things are now.

    :raises RecoveryError: a URL cannot be used
    """
    wiring = _event_wiring.look(request.p2p_url, timeout)
    return State(wiring, _service_daemons.look(request.health_url, timeout))


def restart(request: RestartRequest, dry_run: bool = False) -> Outcome:
    """Restart what wires the events, unless all is well, and wait until it is proven.

    :param dry_run: only say what would be done; nothing but GET requests is sent
    :raises RestartFailed: no way can be gone, one is refused, or what came of it is not proven
    :raises RecoveryError: an argument cannot be used
    """
    _check(request)
    before = look(request)
    if before.good and not request.force:
        return Outcome(before, before)
    if before.unknowable and not request.force:
        raise RestartFailed(
            f"Whether the events are wired is not known: {before.wiring.reason}. A restart could not be proven. "
            "Nothing was restarted; set force: true to restart all the same, which then proves the daemons only.",
            Outcome(before, before),
        )
    tried: List[Attempt] = []
    for way in WAYS if request.via == AUTO else (request.via,):
        plan = _plan(way, request, before)
        if isinstance(plan, Attempt):
            tried.append(plan)
            continue
        if way != LAUNCHER and not request.force_orphans:
            _guard(request, plan, Outcome(before, _again(request, before, tried), tried=tuple(tried)))
        if dry_run:
            tried.append(Attempt(way, True, None, plan.what))
            return Outcome(before, before, way, True, tuple(tried), predicted=True)
        # Where the orchestrator does not tell since when it runs, a new one cannot be told from the old one.
        told = plan.new_orchestrator and _start_of(request.p2p_url) is not None
        begun = time.monotonic()
        attempt = _go(plan, request, begun + request.timeout)
        tried.append(attempt)
        if attempt.done:
            return _prove(request, before, way, tuple(tried), begun if told else None, begun + request.timeout)
    words = "; ".join(f"{attempt.via}: {attempt.reason}" for attempt in tried)
    raise RestartFailed(
        f"There is no way to restart what wires the events ({'; '.join(before.faults()) or 'forced'}). Tried: {words}. "
        "Restart the service that owns the orchestrator by hand.",
        Outcome(before, _again(request, before, tried), tried=tuple(tried)),
    )


def orphans(within: Optional[str] = None) -> Tuple[List[Tuple[int, str]], Optional[str]]:
    """What an orchestrator that starts on this host would end: number and command line of each.

    :param within: only what works in this directory or below
    :returns: them, and why there may be others
    """
    stats, words = _proc.read_all()
    place = os.path.realpath(os.path.expanduser(within)) if within else None
    found, unread = [], []
    for pid, stat in sorted(stats.items()):
        if stat.ppid != 1 or not stat.alive or pid == os.getpid() or not _inside(pid, place):
            continue
        argv = words.get(pid)
        if argv is None:
            # Without a command line its name is all that tells what it is.
            unread += [pid] if stat.comm.startswith(("python", "pt_")) and _proc.is_same(pid, stat.start_ticks) else []
            continue
        line = " ".join(argv)
        if "python" not in line.lower() or not any(word in line.lower() for word in REAPED) or _program(argv):
            continue
        if _proc.is_same(pid, stat.start_ticks):
            found.append((pid, _clean(line, SHOWN)))
    hidden = _proc.hides_processes()
    if unread:
        return found, f"the command line of pid {', '.join(map(str, unread[:NAMED]))} cannot be read"
    return found, hidden


def _check(request: RestartRequest) -> None:
    """:raises RecoveryError: an argument cannot be used"""
    if request.via not in (AUTO, *WAYS):
        raise RecoveryError(f"via is {request.via!r}; use one of {', '.join((AUTO, *WAYS))}.")
    if not 0 < request.timeout <= MOST:
        raise RecoveryError(f"timeout is {request.timeout:g} s. It must be more than 0 and at most {MOST:g}.")
    for name in ("token", "admin_token"):
        value = getattr(request, name)
        if value and not TOKEN.match(value):
            raise RecoveryError(
                f"The {name} has characters that no HTTP header takes; look for a space or a line break in it."
            )


# What can be done


def _plan(way: str, request: RestartRequest, before: State) -> Union[Plan, Attempt]:
    """How to go a way; an attempt that says why not, where it cannot be gone."""
    try:
        if way == LAUNCHER:
            return _plan_launcher(request)
        return _plan_unit(request, before) if way == UNIT else _plan_http(request)
    except RecoveryError as exc:
        return Attempt(way, False, str(exc))


def _plan_launcher(request: RestartRequest) -> Plan:
    """:raises RecoveryError: it cannot be used, or has no such option"""
    script = os.path.join(request.root, SCRIPT)
    if not os.path.isfile(script):
        raise RecoveryError(f"{script} does not exist")
    if not os.access(request.interpreter, os.X_OK):
        raise RecoveryError(f"{request.interpreter} does not exist or may not be run")
    code, output = _run(request, [SCRIPT, "--help"], HELP)
    if code is None:
        raise RecoveryError(f"{SCRIPT} --help gave no answer within {HELP:g} s")
    if code != 0:
        raise RecoveryError(f"{SCRIPT} --help failed with {code}: {_last_line(output)}")
    if not RESTART.search(output):
        raise RecoveryError(f"{SCRIPT} has no --restart")
    return Plan(LAUNCHER, " ".join([request.interpreter, SCRIPT, "--restart", *DAEMONS]))


def _plan_unit(request: RestartRequest, before: State) -> Plan:
    """:raises RecoveryError: no unit owns what is to be restarted"""
    owned, elsewhere = _owners(request.within)
    if not owned:
        if elsewhere:
            # The orchestrator says most.
            pid, program, unit = min(elsewhere, key=lambda entry: entry[1] != ORCHESTRATOR)
            where = f"runs in {unit}, which is no unit of the service" if unit else "runs in no unit of systemd"
            raise RecoveryError(f"{program} (pid {pid}) {where}")
        owned = [unit for unit in UNITS if _is_loaded(unit)]
    if not owned:
        raise RecoveryError(f"systemd knows none of {', '.join(UNITS)}")
    # Events that are wired need no restart of the orchestrator.
    if before.wiring.verdict == WIRED and LOOP_UNIT in owned and not request.force:
        owned = [LOOP_UNIT]
    return Plan(UNIT, " ".join(["systemctl", "restart", *owned]), tuple(owned))


def _plan_http(request: RestartRequest) -> Plan:
    """:raises RecoveryError: the orchestrator does not answer, or has no such route"""
    base = _http.check_url(request.p2p_url)
    # Only a POST restarts; the answer to a GET tells whether there is such a route.
    (answer,) = _http.send(base, [_http.Request("restart", "GET", ADMIN)], timeout=EACH, deadline=EACH)
    if answer.status is None:
        raise RecoveryError(f"the orchestrator at {base} does not answer: {answer.error}")
    if answer.status == 404:
        raise RecoveryError(f"the orchestrator at {base} has no {ADMIN}")
    return Plan(HTTP, f"POST {base}{ADMIN}")


def _owners(within: Optional[str]) -> Tuple[List[str], List[Tuple[int, str, Optional[str]]]]:
    """The units that own programs of the service, and the programs that none of them owns."""
    place = os.path.realpath(os.path.expanduser(within)) if within else None
    owned, elsewhere = set(), []
    stats, words = _proc.read_all()
    for pid, argv in sorted(words.items()):
        program = _program(argv)
        if program is None or pid not in stats or not stats[pid].alive or not _inside(pid, place):
            continue
        group = _cgroup.read(pid)
        if group.unit in UNITS and not group.user_unit and not group.container:
            owned.add(group.unit)
        else:
            elsewhere.append((pid, program, group.container or group.unit))
    return [unit for unit in UNITS if unit in owned], elsewhere


def _is_loaded(unit: str) -> bool:
    """Whether systemd has such a unit.

    :raises RecoveryError: there is no systemd to be asked
    """
    output = _systemd.call(["show", "--property=LoadState", "--", unit], _systemd.TIMEOUT)
    return output.strip() == "LoadState=loaded"


def _guard(request: RestartRequest, plan: Plan, outcome: Outcome) -> None:
    """:raises RestartFailed: the restart would end somebody's work, or that cannot be told"""
    found, doubt = orphans(request.within)
    if found:
        named = ", ".join(f"pid {pid} ({line})" for pid, line in found[:NAMED])
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise RestartFailed(
            f"{plan.what} would end {named}{more}: an orchestrator that starts sends SIGTERM to what trains under "
            "process 1. Nothing was restarted. Stop it with ringrift.recovery.training_process first, or set "
            "force_orphans: true to have it ended.",
            outcome,
        )
    if doubt:
        raise RestartFailed(
            f"Whether {plan.what} would end a training cannot be told: {doubt}. Nothing was restarted. "
            "Run the task with become: true, or set force_orphans: true.",
            outcome,
        )


# Doing it


def _go(plan: Plan, request: RestartRequest, end: float) -> Attempt:
    """Go a way; it is not proven then that it led anywhere."""
    if plan.via == LAUNCHER:
        limit = max(0.1, end - time.monotonic())
        code, output = _run(request, [SCRIPT, "--restart", *DAEMONS], limit)
        if code == 0:
            return Attempt(LAUNCHER, True, None, plan.what)
        how = f"gave no answer within {limit:.3g} s" if code is None else f"failed with {code}: {_last_line(output)}"
        return Attempt(LAUNCHER, False, f"{SCRIPT} --restart {how}", plan.what, acted=True)
    if plan.via == UNIT:
        try:
            # Not waited for: what comes of it is seen from outside.
            arguments = ["restart", "--no-block", "--no-ask-password", "--", *plan.units]
            _systemd.call(arguments, _systemd.TIMEOUT)
        except RecoveryError as exc:
            # A systemd that gave no answer may have begun.
            return Attempt(UNIT, False, str(exc), plan.what, acted="no answer" in str(exc))
        return Attempt(UNIT, True, None, plan.what)
    return _post(plan, request)


def _post(plan: Plan, request: RestartRequest) -> Attempt:
    base = _http.check_url(request.p2p_url)
    headers = {"X-Admin-Token": request.admin_token} if request.admin_token else {}
    asked = [_http.Request("restart", "POST", ADMIN)]
    (answer,) = _http.send(base, asked, request.token, timeout=EACH, deadline=EACH, headers=headers)
    told = answer.body if isinstance(answer.body, dict) else {}
    if answer.status == 200 and told.get("success") is not False:
        return Attempt(HTTP, True, None, plan.what)
    said = told.get("error") or told.get("message") or answer.error or answer.body
    words = _clean(said, 200) if isinstance(said, str) else "it gave no reason"
    if answer.status in (401, 403):
        words += "; give token, and admin_token where the orchestrator has one"
    # Without an answer it may have begun.
    how = f"POST {base}{ADMIN} answered {answer.status or 'nothing'}: {words}"
    return Attempt(HTTP, False, how, plan.what, acted=answer.status is None)


def _prove(
    request: RestartRequest, before: State, way: str, tried: Tuple[Attempt, ...], after: Optional[float], end: float
) -> Outcome:
    """Look until the events are wired and the daemons run.

    :param after: the orchestrator must have been started after this moment; None where any will do
    :raises RestartFailed: that was not seen in time
    """
    state, fresh = before, False
    while True:
        left = end - time.monotonic()
        if left <= 0:
            break
        fresh = fresh or after is None or (_start_of(request.p2p_url, max(LEAST, min(EACH, left))) or 0.0) > after
        state = look(request, max(LEAST, min(EACH, end - time.monotonic())))
        enough = state.good or (before.unknowable and state.unknowable and state.daemons.up)
        if fresh and enough:
            return Outcome(before, state, way, True, tried)
        time.sleep(max(0.0, min(POLL, end - time.monotonic())))
    faults = state.faults() + ([] if fresh else ["the orchestrator that answers was not restarted"])
    raise RestartFailed(
        f"{tried[-1].what} was carried out, and after {request.timeout:g} s {'; '.join(faults)}. "
        "See the log of the service, or give it more time (timeout).",
        Outcome(before, state, way, True, tried),
    )


def _start_of(url: str, timeout: float = EACH) -> Optional[float]:
    """When the orchestrator was started at the earliest, by the monotonic clock; None where it does not say."""
    base = _http.check_url(url)
    asked = time.monotonic()
    (answer,) = _http.send(base, [_http.Request("health", "GET", HEALTH)], timeout=timeout, deadline=timeout)
    seconds = answer.body.get("uptime_seconds") if answer.ok and isinstance(answer.body, dict) else None
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds >= 0:
        return asked - seconds
    return None


def _again(request: RestartRequest, before: State, tried: List[Attempt]) -> State:
    """How things are now, where something may have changed."""
    return look(request) if any(attempt.acted for attempt in tried) else before


def _run(request: RestartRequest, arguments: List[str], seconds: float) -> Tuple[Optional[int], str]:
    """Exit code, None where it did not end in time, and the end of what it wrote.

    Its output goes to a file, since daemons that it starts may keep what it was given.

    :raises RecoveryError: it cannot be started
    """
    environment = service_environment(os.environ, {"PYTHONDONTWRITEBYTECODE": "1"})
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                [request.interpreter, *arguments],
                cwd=request.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as exc:
            raise RecoveryError(f"{request.interpreter} cannot be run: {exc.strerror or exc}") from exc
        try:
            code: Optional[int] = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
            _kill(process)
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - MAX_OUTPUT))
        return code, output.read(MAX_OUTPUT).decode("utf-8", "replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it and what it has started; what hangs in the kernel is left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(2)
    except (ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
        pass


def _program(argv: Sequence[str]) -> Optional[str]:
    """Which program of the service a command line runs; None when none."""
    if not argv or not _training_process.PYTHON.match(os.path.basename(argv[0])):
        return None
    module, script, _rest = _training_process.python_target(argv[1:])
    name = f"{module.rpartition('.')[2]}.py" if module else os.path.basename(script or "")
    return name if name in PROGRAMS else None


def _inside(pid: int, place: Optional[str]) -> bool:
    if place is None:
        return True
    cwd = _proc.read_cwd(pid)
    # Where it works cannot be seen: it may be here.
    return cwd is None or f"{cwd}/".startswith(f"{place.rstrip('/')}/")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _clean(lines[-1], 200) if lines else "it wrote nothing"


def _clean(text: str, length: int) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in text.strip()[:length])
