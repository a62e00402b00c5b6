# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import signal
import subprocess
import time
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.ringrift.recovery.plugins.module_utils._config import parse_config
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._watch import (
    ARGUMENT_SPEC,
    ENDED,
    PROVEN,
    QUIET_AFTER,
    TIMEOUT,
    UNREACHABLE,
    GpuLook,
    Look,
    Pace,
    check_times,
    clean,
    line,
    quiet_line,
    unseen_line,
)
from ansible_collections.ringrift.recovery.plugins.plugin_utils._callback import is_for_people

display = Display()

PROGRESS_MODULE = "ringrift.recovery.training_progress"
GPU_MODULE = "ringrift.recovery.gpu_status"
# Seconds from one look at the GPUs to the next, and what the tool and the way there may take.
GPU_EVERY = 15.0
GPU_TOOL_TIMEOUT = 5.0
GPU_TIMEOUT = 15.0
# What a look gets although the budget is nearly used up.
LEAST_LOOK = 10.0
LINES_KEPT = 50


class _Overdue(BaseException):
    """A look took too long. Not an Exception, so that no plugin on the way takes it for a reason to try again."""


class _NotSeen(Exception):
    """A look showed nothing; ``gone`` where the node could not be reached at all."""

    def __init__(self, reason: str, gone: bool) -> None:
        super().__init__(reason)
        self.gone = gone


class ActionModule(ActionBase):
    """Looks at a node again and again and says in one line what has changed, while it happens."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(ARGUMENT_SPEC)
        self._params = params
        self._task_vars = task_vars or {}
        self._collected: dict[str, Any] = {}
        self._lines: list[str] = []
        self._begun = time.monotonic()
        try:
            self._config = parse_config(params["config"]).name
            check_times(params)
            result.update(self._check() if self._task.check_mode else self._watch())
        except RecoveryError as exc:
            result.update(failed=True, msg=str(exc))
        except _NotSeen as exc:
            # The first look of all: nothing is known yet that could be watched.
            if exc.gone:
                raise AnsibleConnectionFailure(str(exc)) from exc
            result.update(failed=True, msg=str(exc))
        result.update(self._collected)
        return result

    def _check(self) -> dict[str, Any]:
        seen = self._look(None, self._params["look_timeout"])
        self._say(line(Look.of(seen), config=self._config))
        waits = "the trainer ends" if self._params["follow"] else "an epoch, a step or a verified checkpoint proves it"
        outcome = self._result(None, self._params["begin"] or seen, seen, False, [])
        outcome["msg"] = f"A real run would watch {self._config} until {waits}, at most {self._params['timeout']:g} s."
        return outcome

    def _watch(self) -> dict[str, Any]:
        params, end = self._params, self._begun + self._params["timeout"]
        begin: dict[str, Any] | None = params["begin"]
        seen: dict[str, Any] = begin or {}
        before: Look | None = None
        gpu: GpuLook | None = None
        pace = Pace()
        progressed, proof, missed, first = False, [], None, True
        quiet_since, quiet_for, gpu_due = self._begun, QUIET_AFTER, 0.0
        if begin is not None:
            pace.add(Look.of(begin))
        while True:
            started = time.monotonic()
            try:
                seen = self._look(begin, min(params["look_timeout"], max(LEAST_LOOK, end - started)))
                missed = None
            except _NotSeen as exc:
                if first and (begin is None or not exc.gone):
                    raise
                if missed is None:
                    self._say(unseen_line(self._config, str(exc), end - time.monotonic()), C.COLOR_WARN)
                missed, before = exc, None
            first = False
            outcome = None
            if missed is None:
                begin = begin or seen
                look = Look.of(seen)
                pace.add(look)
                if look.progressed:
                    progressed, proof = True, seen.get("proof") or proof
                outcome = ENDED if look.running is False else None
                if look.progressed and (not params["follow"] or look.running is False):
                    outcome = ENDED if params["follow"] else PROVEN
                gpu_before = gpu
                wanted = gpu is None if outcome == PROVEN else outcome is None and time.monotonic() >= gpu_due
                if params["gpu"] and wanted:
                    gpu = self._look_at_gpu()
                    gpu_due = time.monotonic() + GPU_EVERY
                news = before is None or look.news != before.news
                if news or (gpu_before is not None and gpu is not None and gpu.verdict != gpu_before.verdict):
                    colour = C.COLOR_OK if look.progressed and not (before and before.progressed) else None
                    colour = C.COLOR_WARN if look.verdict in ("stalled", "not_running", "unknown") else colour
                    self._say(line(look, gpu, pace.rate, before, self._config), colour)
                    quiet_since, quiet_for = time.monotonic(), QUIET_AFTER
                before = look
            now = time.monotonic()
            if outcome is None and now >= end:
                outcome = TIMEOUT if missed is None else UNREACHABLE
            if outcome is not None:
                return self._result(outcome, begin or {}, seen, progressed, proof, missed)
            if missed is None and now - quiet_since >= quiet_for:
                self._say(quiet_line(self._config, now - quiet_since, end - now))
                quiet_for *= 2
            time.sleep(max(0.0, min(started + params["interval"], end) - now))

    def _result(
        self,
        outcome: str | None,
        begin: dict[str, Any],
        seen: dict[str, Any],
        progressed: bool,
        proof: list[Any],
        missed: _NotSeen | None = None,
    ) -> dict[str, Any]:
        return {
            "changed": False,
            "config": self._config,
            "outcome": outcome,
            "progressed": progressed,
            "proof": proof,
            "begin": {"last": begin.get("last"), "at": (begin.get("cursor") or {}).get("at")},
            "cursor": begin.get("cursor"),
            **{name: seen.get(name) for name in ("last", "checkpoint", "running")},
            # What was seen before the node was lost says nothing of now.
            "verdict": seen.get("verdict") if missed is None else "unknown",
            "reason": seen.get("reason") if missed is None else str(missed),
            "seconds": round(time.monotonic() - self._begun, 3),
            "lines": self._lines,
        }

    def _say(self, said: str, colour: str | None = None) -> None:
        hosts = self._task_vars.get("ansible_play_hosts") or []
        name = str(self._task_vars.get("inventory_hostname") or "")
        said = f"{name:{max([len(name), *(len(str(host)) for host in hosts)])}}  {said}"
        self._lines = [*self._lines, said][-LINES_KEPT:]
        if not self._task.no_log and is_for_people():
            # The colour is dropped where there is no terminal.
            display.display(said, color=colour)

    def _look(self, begin: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        names = ("config", "service_path", "coordination_dir", "log", "checkpoint_patterns", "stall_after", "within")
        arguments = {name: self._params[name] for name in names if self._params[name] is not None}
        if begin is not None:
            arguments["after"] = begin["cursor"]
        return self._execute(PROGRESS_MODULE, arguments, seconds, "cursor")

    def _look_at_gpu(self) -> GpuLook:
        arguments: dict[str, Any] = {"samples": 1, "timeout": GPU_TOOL_TIMEOUT}
        arguments.update({name: self._params[name] for name in ("nvidia_smi", "python") if self._params[name]})
        try:
            return GpuLook.of(self._execute(GPU_MODULE, arguments, GPU_TIMEOUT, "gpus"))
        except _NotSeen:
            return GpuLook.of(None)

    def _execute(self, module: str, arguments: dict[str, Any], seconds: float, key: str) -> dict[str, Any]:
        """Run a module on the node within so many seconds; ``key`` is in every answer of it."""
        try:
            with _deadline(seconds):
                answer = self._execute_module(module_name=module, module_args=arguments, task_vars=self._task_vars)
        except _Overdue as exc:
            _end_commands(exc)
            self._forget_directory()
            raise _NotSeen(f"the node did not answer within {seconds:.0f} s", gone=True) from None
        except AnsibleConnectionFailure as exc:
            self._forget_directory()
            raise _NotSeen(clean(f"the node cannot be reached: {str(exc).strip().rstrip(':')}"), gone=True) from exc
        for name in ("ansible_facts", "warnings", "deprecations"):
            if answer.get(name):
                self._collected[name] = answer[name]
        if answer.get("unreachable"):
            self._forget_directory()
            raise _NotSeen(clean(f"the node cannot be reached: {answer.get('msg')}"), gone=True)
        if answer.get("failed") or key not in answer:
            self._forget_directory()
            said = answer.get("msg") or answer.get("module_stderr") or "it returned nothing"
            raise _NotSeen(clean(f"the module {module} failed on the node: {said}"), gone=False)
        return answer

    def _forget_directory(self) -> None:
        """A node that was away may have lost the directory for modules; the next look makes one anew."""
        self._connection._shell.tmpdir = None


class _deadline:
    """Raises ``_Overdue`` in the block after so many seconds, unless the task's own ``timeout`` comes first."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.task_timeout = signal.getitimer(signal.ITIMER_REAL)[0]
        self.begun = time.monotonic()
        self.ours = not 0 < self.task_timeout <= self.seconds
        if self.ours:
            self.handler = signal.signal(signal.SIGALRM, self._overdue)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_exc: object) -> None:
        if self.ours:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self.handler)
            if self.task_timeout:
                left = self.task_timeout - (time.monotonic() - self.begun)
                signal.setitimer(signal.ITIMER_REAL, max(0.001, left))

    @staticmethod
    def _overdue(_signal: int, _frame: object) -> None:
        raise _Overdue


def _end_commands(overdue: _Overdue) -> None:
    """End the commands that a look was waiting for, so that a node that hangs does not collect them."""
    trace = overdue.__traceback__
    while trace is not None:
        for value in list(trace.tb_frame.f_locals.values()):
            if isinstance(value, subprocess.Popen) and value.poll() is None:
                value.kill()
                value.wait(5)
        trace = trace.tb_next
