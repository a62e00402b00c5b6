# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The training data, and the processes that serve its batches. Part of the stand-in, see `app`."""

from __future__ import annotations

import logging
import os
import select
import signal
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

logger = logging.getLogger(__name__)


@dataclass
class Dataset:
    """Samples in memory."""

    features: np.ndarray
    scalars: np.ndarray
    values: np.ndarray
    policies: np.ndarray
    policy_size: int

    def __len__(self) -> int:
        return len(self.features)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.features[rows], self.scalars[rows], self.values[rows], self.policies[rows]


def build(arrays: dict[str, np.ndarray], path: str) -> Dataset:
    """Samples from the arrays of an NPZ; unequal lengths are cut to the shortest, as the real one does."""
    logging.getLogger("app.utils.numpy_utils").warning(
        "[NumPy] Loading NPZ with allow_pickle=True (contains object arrays). This is potentially unsafe for untrusted "
        f"files. Path: {path}"
    )
    features = arrays["features"]
    count = min(len(arrays[name]) for name in ("features", "globals", "values", "policy_indices") if name in arrays)
    scalars = arrays.get("globals", np.zeros((count, 20), np.float32))
    indices = arrays.get("policy_indices", np.zeros((count, 1), object))
    weights = arrays.get("policy_values", np.ones((len(indices), 1), object))
    policies = np.zeros(count, np.int64)
    for row in range(count):
        choices = np.atleast_1d(np.asarray(indices[row], np.int64))
        odds = np.atleast_1d(np.asarray(weights[row], np.float64))[: len(choices)] if row < len(weights) else []
        policies[row] = choices[int(np.argmax(odds)) if len(odds) else 0] if len(choices) else 0
    largest = int(arrays["max_policy_index"]) if "max_policy_index" in arrays else int(policies.max(initial=0))
    logger.info(f"Loaded {count} valid training samples from {path} (in-memory)")
    logger.info(f"Inferred policy_size={largest + 1} from {path}")
    return Dataset(
        np.ascontiguousarray(features[:count], np.float32),
        np.asarray(scalars[:count], np.float32),
        np.asarray(arrays["values"][:count], np.float32),
        np.clip(policies, 0, largest),
        largest + 1,
    )


def shuffled(rows: np.ndarray, epoch: int, number: int, size: int) -> np.ndarray:
    """The rows of one batch of one epoch."""
    order = np.random.default_rng(1000 + epoch).permutation(len(rows))
    return rows[order[number * size : (number + 1) * size]]


class Loader:
    """Serves the batches of an epoch, by forked workers where there are any.

    A worker waits for its parent's requests and looks every half second whether the parent is still there. It inherits
    all descriptors, hence also a lock that was handed on to the trainer, as the workers of torch do.
    """

    REQUEST = struct.Struct("<ii")
    LENGTH = struct.Struct("<i")

    def __init__(self, rows: np.ndarray, batch_size: int, workers: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.batches = max(1, -(-len(rows) // batch_size))
        self._workers: list[tuple[int, int, int]] = []  # pid, descriptor of requests, of answers
        for _ in range(workers):
            self._fork()

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        """The rows of each batch."""
        for number in range(self.batches):
            if self._workers:
                yield self._ask(self._workers[number % len(self._workers)], epoch, number)
            else:
                yield shuffled(self.rows, epoch, number, self.batch_size)

    def close(self) -> None:
        """Let the workers go, and wait for them."""
        for pid, requests, answers in self._workers:
            try:
                os.write(requests, self.REQUEST.pack(-1, -1))
            except OSError:
                pass
            os.close(requests)
            os.close(answers)
            _reap(pid)
        self._workers.clear()

    def _fork(self) -> None:
        parent = os.getpid()
        request_in, request_out = os.pipe()
        answer_in, answer_out = os.pipe()
        pid = os.fork()
        if pid:
            os.close(request_in)
            os.close(answer_out)
            self._workers.append((pid, request_out, answer_in))
            return
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for descriptor in (request_out, answer_in, *(d for _, *pair in self._workers for d in pair)):
                os.close(descriptor)
            self._serve(parent, request_in, answer_out)
        finally:
            os._exit(0)

    def _serve(self, parent: int, requests: int, answers: int) -> None:
        poll = float(os.environ.get("LAB_WORKER_POLL_SECONDS") or 0.5)
        while os.getppid() == parent:
            if not select.select([requests], [], [], poll)[0]:
                continue
            request = os.read(requests, self.REQUEST.size)
            if not request:
                time.sleep(poll)
                continue
            epoch, number = self.REQUEST.unpack(request)
            if epoch < 0:
                return
            rows = shuffled(self.rows, epoch, number, self.batch_size).astype(np.int32).tobytes()
            os.write(answers, self.LENGTH.pack(len(rows)) + rows)

    def _ask(self, worker: tuple[int, int, int], epoch: int, number: int) -> np.ndarray:
        pid, requests, answers = worker
        try:
            os.write(requests, self.REQUEST.pack(epoch, number))
            (length,) = self.LENGTH.unpack(self._read(answers, self.LENGTH.size))
            return np.frombuffer(self._read(answers, length), np.int32)
        except (OSError, EOFError):
            _, status = os.waitpid(pid, 0)
            self._workers.remove(worker)
            why = f"killed by signal: {signal.strsignal(os.WTERMSIG(status))}" if os.WIFSIGNALED(status) else "gone"
            raise RuntimeError(f"DataLoader worker (pid {pid}) is {why}. ") from None

    @staticmethod
    def _read(descriptor: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = os.read(descriptor, size - len(data))
            if not part:
                raise EOFError
            data += part
        return data


def _reap(pid: int, grace: float = 5.0) -> None:
    """Wait for a worker, and kill it when it does not go."""
    deadline = time.monotonic() + grace
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.01)
