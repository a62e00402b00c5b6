# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a trainer under the service's training lock.

    python -m app.coordination.training_launcher --config hex8_2p [--timeout 1] -- <command> [argument ...]

Takes `training:<config>`, hands the lock's descriptor on and becomes the command, so that the recorded pid is the
trainer's own, and that the children which the trainer forks keep the flock when the trainer is killed. Exits 75 when
the lock is not free, 127 when there is no such command. Part of the stand-in, see `app`.
"""

from __future__ import annotations

import argparse
import os
import sys

from app.coordination.distributed_lock import DEFAULT_LOCK_TIMEOUT, DistributedLock

EX_TEMPFAIL = 75


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="training_launcher.py", description="Start a trainer under the training lock")
    parser.add_argument("--config", required=True, help="for instance hex8_2p")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds to wait for the lock")
    parser.add_argument("--lock-timeout", type=int, default=DEFAULT_LOCK_TIMEOUT, help="seconds recorded in the lock")
    parser.add_argument("--no-redis", action="store_true", help="take the file lock even where Redis answers")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args(argv)

    lock = DistributedLock(f"training:{args.config}", args.lock_timeout, use_redis=not args.no_redis)
    if not lock.acquire(timeout=args.timeout):
        print(f"Lock {lock.name} is not free after {args.timeout:g}s ({lock.backend}), not started", file=sys.stderr)
        return EX_TEMPFAIL
    if lock._file_fd is not None:
        os.set_inheritable(lock._file_fd, True)
    sys.stdout.flush()
    try:
        os.execvp(args.command[0], args.command)
    except OSError as error:
        print(f"{args.command[0]}: {error.strerror}", file=sys.stderr)
        lock.release()
        return 127


if __name__ == "__main__":
    raise SystemExit(main())
