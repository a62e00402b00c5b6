# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Play the same random interleavings with several rules for the release of a lock, and print what each did wrong.

Prints GitHub-flavoured markdown; what is going on goes to standard error. The world is that of the test
``test_lock_soak.py``: real processes with the service's own lock code, a real file system and a real Redis. Needs
nothing but Python and, for half of it, redis-server.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import platform
import shlex
import sys
from typing import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from tests.unit import lock_world  # noqa: E402
from tests.unit.lock_world import BACKENDS, REDIS, RULES, Tally  # noqa: E402

HEAD = (
    "rule",
    "backend",
    "interleavings",
    "released",
    "wrong releases",
    "double holders",
    "dead locks left",
    "not proved",
)


def main(arguments: Sequence[str]) -> int:
    """Measure what was asked for; gives the exit status."""
    parser = argparse.ArgumentParser(prog="locks.py", description="Compare rules for the release of a lock.")
    parser.add_argument("--count", type=int, default=1000, help="interleavings per rule and backend (default 1000)")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--rules", default=",".join(RULES), help=f"default {','.join(RULES)}")
    parser.add_argument("--backends", default=",".join(BACKENDS), help=f"default {','.join(BACKENDS)}")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0 and not lock_world.room():
        print(
            "This user may neither look into every process nor have a PID namespace; run it as root.", file=sys.stderr
        )
        return 2
    where = "in PID namespaces" if lock_world.room() else "without PID namespaces"
    print(f"Command: `{shlex.join(['python', 'benchmarks/locks.py', *arguments])}`\n")
    print(f"Python {platform.python_version()}, Linux {platform.release()}, {where}.\n")
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}", flush=True)
    trouble = False
    with lock_world.redis_server() as url:
        for rule in options.rules.split(","):
            for backend in options.backends.split(","):
                if backend == REDIS and url is None:
                    print(f"| {RULES[rule]} | {backend} | redis-server is not installed |{' |' * (len(HEAD) - 3)}")
                    continue
                tally = lock_world.run(rule, backend, options.count, options.seed, url or "")
                print(_row(tally), flush=True)
                trouble = trouble or bool(tally.problems)
                print(f"{rule} on {backend}: {tally.seconds:.0f} s {tally.problems[:3] or ''}", file=sys.stderr)
                if rule == lock_world.OURS and tally.failures:
                    print(tally.story(), file=sys.stderr)
    return int(trouble)


def _row(tally: Tally) -> str:
    share = f" ({100 * tally.wrong / tally.released:.1f} %)" if tally.released else ""
    cells = (
        RULES[tally.rule],
        tally.backend,
        tally.interleavings,
        tally.released,
        f"{tally.wrong}{share}",
        tally.double,
        tally.left,
        tally.kept,
    )
    return f"| {' | '.join(str(cell) for cell in cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
