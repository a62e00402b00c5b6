# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals by handle, as Python and as the kernel offer them."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _pidfd

from tests.unit.training_processes import DEADLINE, as_nobody

needs_handles = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this Python has no handles to compare with")


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.fixture(params=["python", "system call", "number"])
def way(request, monkeypatch):
    if request.param != "python":
        # As in Python 3.8.
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        monkeypatch.delattr(signal, "pidfd_send_signal", raising=False)
    if request.param == "number":
        # As in Linux before 5.3.
        monkeypatch.setattr(_pidfd, "PIDFD_OPEN", 100_000)
    return request.param


def test_a_signal_arrives(sleeper, way):
    before = len(os.listdir("/proc/self/fd"))
    with _pidfd.opened(sleeper.pid) as send:
        send(signal.SIGTERM)
    assert sleeper.wait(DEADLINE) == -signal.SIGTERM
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_that_is_gone(sleeper, way):
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(ProcessLookupError), _pidfd.opened(sleeper.pid) as send:
        # Without handles it is seen only now.
        send(signal.SIGTERM)


@needs_handles
def test_a_handle_outlives_the_number(sleeper, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    with _pidfd.opened(sleeper.pid) as send:
        sleeper.kill()
        sleeper.wait()
        with pytest.raises(ProcessLookupError):
            send(signal.SIGTERM)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_one_that_may_not_be_signalled(sleeper, way):
    def attempt() -> bytes:
        with pytest.raises(PermissionError), _pidfd.opened(sleeper.pid) as send:
            send(signal.SIGTERM)
        return b"refused"

    assert as_nobody(attempt) == b"refused"
