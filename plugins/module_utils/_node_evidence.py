# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that a diagnosis needs from one node, seen at once.

On a node every util is compiled anew at every look, so each probe imports what it needs when it needs it. This util is
private to the collection.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Tuple

# Nearly every probe needs it, and what is there before the probes' process begins is not compiled twice.
from ansible_collections.ringrift.recovery.plugins.module_utils import _proc
from ansible_collections.ringrift.recovery.plugins.module_utils._config import TrainingConfig
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._probes import Once, run_probes

if TYPE_CHECKING:
    from ansible_collections.ringrift.recovery.plugins.module_utils._node_checkpoints import Facts
    from ansible_collections.ringrift.recovery.plugins.module_utils._training_events import EventLog
    from ansible_collections.ringrift.recovery.plugins.module_utils._training_log import TrainingLog
    from ansible_collections.ringrift.recovery.plugins.module_utils._training_process import Sighting
    from ansible_collections.ringrift.recovery.plugins.module_utils._training_progress import TrainingProgress

TRAINING_NODE = (
    "progress",
    "processes",
    "events",
    "locks",
    "gpu",
    "log",
    "kernel",
    "data",
    "checkpoints",
    "disk",
    "memory",
    "host",
)
COORDINATOR = ("games", "daemons", "wiring", "triggers")
PROBES = (*TRAINING_NODE, *COORDINATOR)

# What one event or kernel source, server or database may take of the time.
EACH = 5.0
KERNEL = 10.0
MAX_KERNEL_EVENTS = 50
MOST = 3600.0


@dataclass(frozen=True)
class EvidenceRequest:
    """What to look at on a node. Times are in seconds, sizes in bytes."""

    config: TrainingConfig
    service_path: str
    probes: Tuple[str, ...] = TRAINING_NODE
    coordination_dir: Optional[str] = None
    within: Optional[str] = None
    after: Optional[Mapping[str, Any]] = None
    nvidia_smi: str = "nvidia-smi"
    gpu_samples: int = 2
    redis_url: Optional[str] = None
    kernel_log: Optional[str] = None
    checkpoint_depth: str = "auto"
    stall_after: float = 1800.0
    min_samples: int = 100
    min_games: int = 50
    disk_needed: int = 10 << 30
    health_url: str = "http://localhost:8790"
    p2p_url: str = "http://localhost:8770"
    reference_time: Optional[float] = None


def collect(request: EvidenceRequest, deadline: float) -> Dict[str, Any]:
    """Run the wanted probes side by side for at most ``deadline`` seconds.

    :returns: one key for each probe that answered, ``errors`` with the reason for each that did not, ``unseen`` with
        what this user may not see, and ``seconds``
    :raises RecoveryError: an argument cannot be used, or no process could be started
    """
    if not 0 < deadline <= MOST:
        raise RecoveryError(f"timeout is {deadline:g} s. It must be more than 0 and at most {MOST:g}.")
    if request.after:
        from ansible_collections.ringrift.recovery.plugins.module_utils._training_progress import read_cursor

        read_cursor(request.after)
    look = _Look(request, deadline)
    probes: Dict[str, Callable[[], Any]] = {name: getattr(look, name) for name in request.probes}
    results, errors, seconds = run_probes(probes, deadline)
    return {**results, "errors": errors, "unseen": _unseen(results, errors), "seconds": seconds}


def _unseen(results: Mapping[str, Any], errors: Mapping[str, str]) -> List[Dict[str, str]]:
    from ansible_collections.ringrift.recovery.plugins.module_utils import _node_unseen

    uid = os.geteuid()
    user = _proc.user_names().get(uid, str(uid))
    return _node_unseen.unseen(results, errors, user, uid == 0, _proc.hides_processes())


class _Look:
    """One method for each probe, by its name. What several of them need is looked at once."""

    def __init__(self, request: EvidenceRequest, deadline: float) -> None:
        self.request = request
        # An engine that ends a little before all probes do can still say what hung.
        self.inner = max(deadline * 0.6, deadline - 2.0)
        self.each = min(EACH, self.inner)
        self._sighting = Once(self._see_processes)
        self._training = Once(self._see_progress)
        self._event_log = Once(self._read_events)
        self._log = Once(self._read_log)

    # Training

    def progress(self) -> Dict[str, Any]:
        seen: TrainingProgress = self._training.get()
        return seen.as_dict()

    def processes(self) -> Dict[str, Any]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _node_processes

        sighting: Sighting = self._sighting.get()
        watched = _node_processes.watch(sighting.processes, self.request.service_path)
        return {
            "processes": [process.as_dict() for process in watched],
            "window": _node_processes.WINDOW if watched else 0.0,
            "doubts": sighting.doubts(),
        }

    def events(self) -> Dict[str, Any]:
        log: EventLog = self._event_log.get()
        return log.as_dict()

    def log(self) -> Dict[str, Any]:
        log: TrainingLog = self._log.get()
        return log.as_dict()

    def locks(self) -> List[Dict[str, Any]]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _lock

        report = _lock.inspect_all(
            self.request.config, self.request.service_path, redis_url=self.request.redis_url, timeout=self.each
        )
        return [lock.as_dict() for lock in report.locks]

    # Files

    def data(self) -> Dict[str, Any]:
        path = os.path.join(self.request.service_path, "data", "training", f"{self.request.config.name}.npz")
        if not os.path.lexists(path):
            return _no_data(path)
        from ansible_collections.ringrift.recovery.plugins.module_utils import _npz
        from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import MissingFileError

        try:
            report = _npz.inspect(path, config=self.request.config, min_samples=self.request.min_samples)
        except MissingFileError:
            return _no_data(path)
        return {**report.as_dict(), "path": path, "exists": True}

    def checkpoints(self) -> List[Dict[str, Any]]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _node_checkpoints

        request = self.request
        return _node_checkpoints.look(
            request.config, request.service_path, request.checkpoint_depth, self._facts, self.inner
        )

    def games(self) -> Dict[str, Any]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _games

        request = self.request
        return _games.count_games(
            request.config, request.service_path, min_games=request.min_games, deadline=self.inner
        ).as_dict()

    # Machine

    def gpu(self) -> Dict[str, Any]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _node_gpu

        request = self.request
        return _node_gpu.look(request.service_path, request.nvidia_smi, request.gpu_samples, self.inner).as_dict()

    def kernel(self) -> Dict[str, Any]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _kernel_events

        options = {"path": self.request.kernel_log} if self.request.kernel_log else {}
        seconds = min(KERNEL, self.inner)
        return _kernel_events.collect(None, None, seconds, _kernel_events.KINDS, MAX_KERNEL_EVENTS, **options).as_dict()

    def disk(self) -> Dict[str, Any]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _disk

        return _disk.look(self.request.service_path, self.request.disk_needed, self.each).as_dict()

    def memory(self) -> Dict[str, Any]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _memory

        return _memory.look().as_dict()

    def host(self) -> Dict[str, Any]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _host

        return _host.look(self.request.reference_time)

    # Coordinator

    def daemons(self) -> Dict[str, Any]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _service_daemons

        return _service_daemons.look(self.request.health_url, self.each).as_dict()

    def wiring(self) -> Dict[str, Any]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _event_wiring

        return _event_wiring.look(self.request.p2p_url, self.each).as_dict()

    def triggers(self) -> Dict[str, Any]:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _training_triggers

        return _training_triggers.read(self.request.config, self.request.service_path).as_dict()

    # What several probes need

    def _see_processes(self) -> Sighting:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _training_process

        request = self.request
        return _training_process.look(request.config, within=request.within, service_path=request.service_path)

    def _see_progress(self) -> TrainingProgress:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _training_progress

        return _training_progress.look(
            self.request.config,
            self.request.service_path,
            coordination_dir=self.request.coordination_dir,
            after=self.request.after or None,
            stall_after=self.request.stall_after,
            within=self.request.within,
        )

    def _read_events(self) -> EventLog:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _training_events

        folder = self.request.coordination_dir or self._folder_of_trainer()
        return _training_events.read_events(
            self.request.config, coordination_dir=folder, hostname=_proc.hostname(), timeout=self.each
        )

    def _folder_of_trainer(self) -> Optional[str]:
        """Where a trainer that runs writes its events; None where none runs, or it may not be asked."""
        sighting: Sighting = self._sighting.get()
        trainers = [process for process in sighting.processes if process.alive and process.role == "trainer"]
        if not trainers:
            return None
        from ansible_collections.ringrift.recovery.plugins.module_utils import _training_progress

        return next(filter(None, map(_training_progress.coordination_dir_of, trainers)), None)

    def _read_log(self) -> TrainingLog:
        from ansible_collections.ringrift.recovery.plugins.module_utils import _training_log

        return _training_log.read_log(os.path.join(self.request.service_path, "logs", "training.log"))

    def _facts(self) -> Facts:
        """What is known of the training, from whoever answers within a part of the time."""
        from ansible_collections.ringrift.recovery.plugins.module_utils._node_checkpoints import Facts

        end = time.monotonic() + min(EACH, self.inner / 2)
        training, events, log = (self._within(one, end) for one in (self._training, self._event_log, self._log))
        findings = log.findings if log is not None else ()
        seen = [events is not None and events.events, log is not None and log.size]
        return Facts(
            verdict=training.verdict if training is not None else None,
            running=training.running if training is not None else None,
            state=events.state if events is not None else None,
            codes=tuple(finding.code for finding in findings),
            fresh=tuple(finding.code for finding in findings if finding.after_progress),
            trained=True if any(seen) else None if None in (events, log) else False,
        )

    @staticmethod
    def _within(one: Once, end: float) -> Any:
        try:
            return one.get(max(0.0, end - time.monotonic()))
        except Exception:  # the probe that is for it tells why
            return None


def _no_data(path: str) -> Dict[str, Any]:
    words = f"Could not read {path}: it does not exist. Check the path."
    problem = {"code": "missing", "message": words, "severity": "error"}
    return {"path": path, "exists": False, "valid": False, "problems": [problem], "samples": None}
