# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the parts of a file side by side, on the cores that this process may use.

Checksums and decompression let other threads run meanwhile, so that two threads are nearly twice as fast as one. This
util is private to the collection.
"""

from __future__ import annotations

import os
from typing import Callable, Dict, List, Optional, Sequence, TypeVar

# A node that trains needs its cores; beyond this the disk is the limit anyway.
MAX_WORKERS = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """How many cores this process may use, at most ``MAX_WORKERS``."""
    return max(1, min(MAX_WORKERS, len(os.sched_getaffinity(0))))


def each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    cost: Callable[[Item], int],
    workers: Optional[int] = None,
) -> List[Result]:
    """``[work(item) for item in items]``, several at a time, the costliest first so that none is left over at the end.

    What ``work`` raises for the first item that fails, in the order of ``items``, is raised once all have ended.
    """
    threads = min(len(items), cores() if workers is None else workers)
    if threads < 2:
        return [work(item) for item in items]
    # Its import costs more than a look at a small file, which needs none.
    from concurrent.futures import ThreadPoolExecutor

    order = iter(sorted(range(len(items)), key=lambda index: -cost(items[index])))
    results: Dict[int, Result] = {}
    failures: Dict[int, BaseException] = {}

    def pull() -> None:
        # Threads share one iterator, so that a hundred thousand small parts need no objects of their own.
        for index in order:
            try:
                results[index] = work(items[index])
            except BaseException as exc:
                failures[index] = exc

    with ThreadPoolExecutor(max_workers=threads) as pool:
        for done in [pool.submit(pull) for _thread in range(threads)]:
            done.result()
    if failures:
        raise failures[min(failures)]
    return [results[index] for index in range(len(items))]
