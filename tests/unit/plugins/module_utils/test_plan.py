# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _plan
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from hypothesis import given
from hypothesis import strategies as st

OPTIONS = {"restart_via": "p2p", "train_on": "", "force": "false"}
EVIDENCE = {
    "schema": 1,
    "config": "hex8_2p",
    "at": "2026-11-28T10:40:05Z",
    "hosts": {
        "h100": {
            "processes": {
                "processes": [{"pid": 28, "role": "worker", "start_time": 1795862395.43, "cpu_percent": 0.0}]
            },
            "locks": [{"backend": "file", "verdict": "orphan_fd", "held": True, "holder": {"token": "h100:27:71bc"}}],
            "data": {"path": "/d/hex8_2p.npz", "size": 35921, "mtime": 1795862399.9, "valid": False, "age": 3.1},
            "checkpoints": [{"path": "/m/c.pth", "size": 190323, "mtime": 1795862394.2, "valid": True}],
            "errors": {},
            "seconds": {"disk": 0.1},
        },
        "gh200": {"unreachable": True, "msg": "no route"},
    },
    "coordinator": {
        "name": "c1",
        "node": {"locks": [], "errors": {}},
        "p2p": {
            "profile": "ringrift",
            "complete": True,
            "leader": {"id": "c1"},
            "active": [{"id": "b2"}, {"id": "a1"}],
        },
    },
}
RUN = {"nodes": {"h100": {"stop_training": {"changed": True}}}, "fleet": {"dispatch": {"changed": True}}}


def saved():
    return json.dumps(_plan.make_plan(RUN, EVIDENCE, OPTIONS))


def differences(evidence, options=None):
    return _plan.differences(_plan.read_plan(saved(), "plan.json"), evidence, options or OPTIONS)


def changed(*path, to):
    evidence = copy.deepcopy(EVIDENCE)
    part = evidence
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = to
    return evidence


def test_the_same_world_has_no_differences_whatever_the_time():
    later = changed("at", to="2026-11-28T10:50:05Z")
    later["hosts"]["h100"]["data"]["age"] = 603.1
    later["hosts"]["h100"]["seconds"] = {"disk": 0.3}
    later["hosts"]["h100"]["processes"]["processes"][0]["cpu_percent"] = 1.5
    later["coordinator"]["p2p"]["active"].reverse()
    assert differences(later, {**OPTIONS, "epochs": ""}) == []


@pytest.mark.parametrize(
    ("path", "to", "words"),
    [
        (("hosts", "h100", "processes"), {"processes": []}, "h100: processes was worker pid 28 of 1795862395.43,"),
        (("hosts", "h100", "processes", "processes", 0, "start_time"), 1.0, "and is worker pid 28 of 1.0"),
        (("hosts", "h100", "locks"), [], "h100: locks was file orphan_fd h100:27:71bc, and is none"),
        (("hosts", "h100", "data", "valid"), True, "training file was /d/hex8_2p.npz of 35921 bytes"),
        (("hosts", "h100", "checkpoints", 0, "mtime"), 2.0, "h100: checkpoints was /m/c.pth"),
        (("hosts", "h100", "errors"), {"gpu": "hung"}, "h100: not seen was none, and is gpu"),
        (("hosts", "gh200"), {"errors": {}}, "gh200: not seen was no route, and is none"),
        (("hosts",), {}, "gh200 was in the plan's run and is not in this one"),
        (("hosts", "new"), {}, "new is in this run and was not in the plan's"),
        (("coordinator", "p2p", "active"), [], "the coordinator: jobs was a1, b2, and is none"),
        (("coordinator", "p2p", "leader"), {"id": "c2"}, "orchestrator was ringrift, c1, and is ringrift, c2"),
        (("coordinator", "p2p", "complete"), None, "and is ringrift, c1, not all seen"),
        (("hosts", "h100", "disk"), {"verdict": "full", "reason": "0 bytes free"}, "disk_full on h100"),
        (("config",), "hex8_4p", "it is a plan for hex8_2p, and not for hex8_4p"),
    ],
)  # fmt: skip
def test_what_has_changed_is_told(path, to, words):
    found = differences(changed(*path, to=to))
    assert any(words in line for line in found), found


def test_other_options_are_another_plan():
    assert differences(EVIDENCE, {**OPTIONS, "restart_via": "direct", "train_on": "h100"}) == [
        "the option restart_via was p2p, and is direct",
        "the option train_on was none, and is h100",
    ]


def test_a_plan_keeps_what_was_predicted():
    plan = _plan.read_plan(saved(), "plan.json")
    assert (plan["nodes"], plan["fleet"], plan["config"]) == (RUN["nodes"], RUN["fleet"], "hex8_2p")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is no plan, it is not JSON"),
        (None, "plan.json cannot be read: it does not exist"),
        ("[" * 100000, "is no plan, it is not JSON"),
        ("[]", "is no plan of a recovery"),
        ('{"plan": true}', "is no plan of a recovery"),
        ('{"plan": true, "world": {}, "schema": 9}', "is of schema 9; this version reads 1"),
    ],
)
def test_what_is_no_plan_is_refused(content, words):
    with pytest.raises(RecoveryError, match="plan_file=FILE") as caught:
        _plan.read_plan(content, "plan.json")
    assert words in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["processes", "locks", "data", "x"]), inner)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_garbage_in_the_evidence_is_no_error_and_never_the_same_as_none(node, other):
    evidence = changed("hosts", to={"h100": node})
    found = _plan.differences(json.loads(json.dumps(_plan.make_plan(RUN, evidence, {}))), evidence, {})
    assert found == []
    _plan.differences({"config": "hex8_2p", "world": {"h100": other}, "options": other}, evidence, {})
