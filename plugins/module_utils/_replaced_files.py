# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What files a run replaced, from the report that it left on the controller. This util is private to the collection."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._atomic import explain
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._file_rollback import CHECKPOINT, DATA, Replaced
from ansible_collections.ringrift.recovery.plugins.module_utils._plain import part, rows, text

ROLLBACK = "rollback"
MAX_REPORTS = 1000
MAX_BYTES = 256 << 20
ADVICE = (
    "Reports are kept by the controller on which the run was started (ringrift_report_dir): run this there, or bring "
    "that run's report here and name it with -e run=FILE. Nothing was touched."
)


@dataclass(frozen=True)
class Run:
    """A run that replaced files; ``nodes`` by name, and ``coordinator`` what it did there."""

    id: Optional[str]
    report: str
    at: Optional[str]
    outcome: Optional[str]
    nodes: Mapping[str, Tuple[Replaced, ...]]
    coordinator: Tuple[Replaced, ...]
    is_rollback: bool = False

    @property
    def replaced_any(self) -> bool:
        return bool(self.coordinator) or any(self.nodes.values())

    def as_dict(self) -> Dict[str, Any]:
        return {
            "id": self.id,
            "report": self.report,
            "at": self.at,
            "outcome": self.outcome,
            "nodes": {name: [_plain(entry) for entry in entries] for name, entries in self.nodes.items()},
            "coordinator": [_plain(entry) for entry in self.coordinator],
        }


def find(folder: str, config: str, run: Optional[str] = None) -> Run:
    """The newest recovery of ``config`` that replaced anything, or the run that ``run`` names by its id or its report.

    :raises RecoveryError: there is none, or its report cannot be read
    """
    if run is not None and (os.sep in run or run.endswith(".json")):
        return read(run, config)
    looked_at = 0
    for path in _reports(folder, config):
        looked_at += 1
        if looked_at > MAX_REPORTS:
            break
        try:
            found = read(path, config)
        except RecoveryError:
            # One that is damaged hides none of the others; named, it is refused.
            if run is not None and run == _stem(path):
                raise
            continue
        if run in (found.id, _stem(path)) if run is not None else found.replaced_any and not found.is_rollback:
            return found
    seen = f"{folder} has {min(looked_at, MAX_REPORTS) or 'no'} reports of {config}"
    if run is not None:
        raise RecoveryError(f"{seen}, and none of them is of the run {run!r}. {ADVICE}")
    raise RecoveryError(f"{seen}, and none of them says that a recovery replaced anything. {ADVICE}")


def read(path: str, config: str) -> Run:
    """What the run of one report replaced.

    :raises RecoveryError: it is no report, or one of another config, or one of a dry run
    """
    report = _load(path)
    if report.get("config") != config:
        raise RecoveryError(f"{path} is the report of a run on {report.get('config')!r}, and not on {config}.")
    if report.get("check_mode") is not False:
        raise RecoveryError(f"{path} is the report of a dry run, which replaced nothing.")
    nodes = {str(name): _merged(_of_node(part(report, "nodes", name))) for name in part(report, "nodes")}
    coordinator = _merged(_of_coordinator(part(report, "fleet")))
    return Run(
        text(report.get("run")),
        path,
        text(report.get("at")),
        text(report.get("outcome")),
        {name: entries for name, entries in nodes.items() if entries},
        coordinator,
        report.get("step") == ROLLBACK,
    )


def _load(path: str) -> Mapping[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            report = json.loads(stream.read(MAX_BYTES))
    except OSError as exc:
        raise explain("read", path, exc) from exc
    except (ValueError, RecursionError) as exc:
        raise RecoveryError(f"{path} is no report of a run, it is not JSON: {exc}.") from exc
    if not isinstance(report, dict) or report.get("schema") != 1 or not isinstance(report.get("nodes"), dict):
        raise RecoveryError(f"{path} is no report of a run that this version reads. {ADVICE}")
    return report


def _reports(folder: str, config: str) -> List[str]:
    """Those of a config by name, the newest first."""
    pattern = re.compile(rf"\A\d{{8}}T\d{{6}}Z-{re.escape(config)}\.json\Z")
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise explain("list", folder, exc) from exc
    return [os.path.join(folder, name) for name in sorted(names, reverse=True) if pattern.match(name)]


def _stem(path: str) -> str:
    return os.path.basename(path)[: -len(".json")]


def _plain(entry: Replaced) -> Dict[str, Any]:
    # What is None was not told, and an option that is not given says the same.
    return {name: value for name, value in vars(entry).items() if value is not None}


def _merged(entries: Iterator[Replaced]) -> Tuple[Replaced, ...]:
    """One for each file: what was there before the first of the steps, and what is there after the last."""
    found: Dict[str, Replaced] = {}
    for entry in entries:
        first = found.get(entry.path)
        found[entry.path] = entry if first is None else replace(first, after=entry.after)
    # Where there was none before, nothing was replaced.
    return tuple(entry for entry in found.values() if entry.before is not None or entry.kept is not None)


def _of_node(steps: Mapping[str, Any]) -> Iterator[Replaced]:
    yield from _of_rollback(part(steps, "rollback"))
    published = part(steps, "publish_data")
    path = text(published.get("path"))
    if published.get("changed") is True and path is not None:
        replaced = part(published, "replaced")
        kept = published.get("previous")
        # Where only its permissions were changed, nothing was replaced.
        if replaced or "replaced" not in published or kept is None:
            problem = _why(replaced, text(replaced.get("problem")))
            yield _entry(path, DATA, replaced.get("sha256"), published.get("sha256"), kept, problem)
    for step in ("restore_checkpoint", "restore_canonical"):
        yield from _of_restore(part(steps, step))


def _of_coordinator(steps: Mapping[str, Any]) -> Iterator[Replaced]:
    yield from _of_rollback(part(steps, "rollback_coordinator"))
    exported = part(steps, "export_data")
    path = text(exported.get("path"))
    if exported.get("changed") is True and path is not None:
        before = part(exported, "before")
        problem = _why(before, next((text(entry.get("message")) for entry in rows(before.get("problems"))), None))
        kept = _told(exported, "previous", path)
        yield _entry(path, DATA, before.get("sha256"), exported.get("sha256"), kept, problem)


def _why(before: Mapping[str, Any], words: Optional[str]) -> Optional[str]:
    """What was wrong with a file; None where nothing was, or nothing is known of it."""
    return None if not before or before.get("valid") is True else words or "damaged"


def _told(step: Mapping[str, Any], name: str, path: str) -> Any:
    """Where the old file is kept; older reports do not say whether there was one, so that it has to be looked for."""
    return step.get(name) if name in step else f"{path}.previous"


def _of_restore(restored: Mapping[str, Any]) -> Iterator[Replaced]:
    if restored.get("restored") is not True:
        return
    checkpoint = part(restored, "checkpoint")
    path, after = text(checkpoint.get("path")), checkpoint.get("sha256")
    aside = {entry.get("path"): entry for entry in rows(restored.get("quarantined"))}
    own = aside.pop(path, None)
    if path is not None and own is not None:
        yield _entry(path, CHECKPOINT, own.get("sha256"), after, own.get("to"), text(own.get("reason")) or "damaged")
    elif path is not None:
        before = part(restored, "replaced").get("sha256")
        yield _entry(path, CHECKPOINT, before, after, _told(restored, "previous", path), None)
    for name, entry in aside.items():
        if isinstance(name, str):
            reason = text(entry.get("reason")) or "damaged"
            yield _entry(name, CHECKPOINT, entry.get("sha256"), None, entry.get("to"), reason)


def _of_rollback(rolled_back: Mapping[str, Any]) -> Iterator[Replaced]:
    for entry in rows(rolled_back.get("files")):
        path = text(entry.get("path"))
        if entry.get("state") == "put_back" and path is not None:
            kind = CHECKPOINT if entry.get("kind") == CHECKPOINT else DATA
            yield _entry(path, kind, entry.get("replaced"), entry.get("sha256"), entry.get("kept"), None)


def _entry(path: str, kind: str, before: Any, after: Any, kept: Any, problem: Optional[str]) -> Replaced:
    return Replaced(path, kind, text(before), text(after), text(kept), problem)
