# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run probes side by side, each bounded by one deadline. This util is private to the collection."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, Mapping, Tuple

from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError


def run_probes(
    probes: Mapping[str, Callable[[], Any]], deadline: float
) -> Tuple[Dict[str, Any], Dict[str, str], Dict[str, float]]:
    """Call every probe in a thread of its own and wait at most ``deadline`` seconds for all of them together.

    A probe that overruns is left behind in a daemon thread: a hung driver or mount costs its deadline and no more.

    :returns: results by name, the reason by name of each probe that could not look, and seconds by name
    """
    results: Dict[str, Any] = {}
    errors: Dict[str, str] = {}
    seconds: Dict[str, float] = {}

    def call(name: str, probe: Callable[[], Any]) -> None:
        begun = time.monotonic()
        try:
            results[name] = probe()
        except RecoveryError as exc:
            errors[name] = str(exc)
        except Exception as exc:  # a defect in one probe must not hide what the others saw
            errors[name] = f"{type(exc).__name__}: {exc}"
        seconds[name] = round(time.monotonic() - begun, 3)

    threads = [threading.Thread(target=call, args=item, name=item[0], daemon=True) for item in probes.items()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + deadline
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    overrun = [thread.name for thread in threads if thread.is_alive()]
    # Copies: a probe that overran may still write into the originals.
    answered = {name: value for name, value in list(results.items()) if name not in overrun}
    failed = {name: value for name, value in list(errors.items()) if name not in overrun}
    for name in overrun:
        failed[name] = f"no answer within {deadline:g} s"
    return answered, failed, dict(seconds)
