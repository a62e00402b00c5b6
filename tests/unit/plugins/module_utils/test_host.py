# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import socket
import time

from ansible_collections.ringrift.recovery.plugins.module_utils import _host, _proc


def test_this_machine(tmp_path):
    seen = _host.look(time.time() - 5, str(tmp_path / "synchronized"))
    assert (seen["hostname"], seen["boot_id"]) == (socket.gethostname(), _proc.boot_id())
    assert abs(seen["now"] - seen["uptime"] - seen["booted_at"]) < 1
    assert 4.9 < seen["clock_offset"] < 15
    assert seen["root"] == (os.geteuid() == 0)
    assert (len(seen["load"]), seen["cpus"]) == (3, os.cpu_count())
    assert seen["clock_synchronized"] is None


def test_what_is_not_known_is_none(tmp_path):
    (tmp_path / "synchronized").touch()
    seen = _host.look(synchronized=str(tmp_path / "synchronized"))
    assert (seen["clock_offset"], seen["clock_synchronized"]) == (None, True)
