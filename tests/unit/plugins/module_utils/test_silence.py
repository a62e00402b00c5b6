# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _silence
from ansible_collections.ringrift.recovery.plugins.module_utils._silence import silence_of


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        ({"unreachable": True, "msg": "ssh: connect to host 10.0.0.9 port 22: No route to host"}, _silence.UNREACHABLE),
        ({"unreachable": True, "msg": "Connection timed out"}, _silence.UNREACHABLE),
        ({"unreachable": True, "msg": "root@n: Permission denied (publickey)."}, _silence.AUTH_REFUSED),
        ({"unreachable": True, "msg": "Host key verification failed."}, _silence.HOST_KEY),
        ({"failed": True, "msg": "The module interpreter '/usr/bin/python9' was not found."}, _silence.NO_PYTHON),
        ({"failed": True, "module_stderr": "/bin/sh: 1: /usr/bin/python9: not found", "msg": "x"}, _silence.NO_PYTHON),
        ({"failed": True, "msg": "Task failed: Timed out after 28 second(s)."}, _silence.HUNG),
        ({"unreachable": True, "msg": "Connection timed out during banner exchange"}, _silence.HUNG),
        ({"failed": True, "msg": "MODULE FAILURE"}, _silence.FAILED),
        ({"failed": False, "msg": "MODULE FAILURE"}, _silence.FAILED),
        ({}, _silence.NOT_ASKED),
    ],
)
def test_each_kind_of_silence_is_told_apart_with_what_to_look_at(node, kind):
    silence = silence_of("node-07", node)
    assert silence is not None
    assert silence.kind == kind
    assert "" not in (silence.summary, silence.hint, silence.message)


def test_a_node_that_answers_is_not_silent():
    assert silence_of("a", {"errors": {}}) is None


def test_the_hint_names_the_node():
    assert "ssh node-07" in silence_of("node-07", {"unreachable": True}).hint
