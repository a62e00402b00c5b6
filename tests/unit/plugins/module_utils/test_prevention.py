# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _prevention
from ansible_collections.ringrift.recovery.plugins.module_utils._prevention import (
    MOST_SHOWN,
    STATES,
    prevention,
    prevention_lines,
)
from hypothesis import given
from hypothesis import strategies as st

GIB = 1 << 30
GONE = {"unreachable": True, "changed": False, "msg": "Task failed: no route to host"}
RESTARTED = {"changed": True, "via": "http"}
TRAINER = {"cmdline": ["--batch-size", "512"]}
RUNNING = {"who": {"user": "operator", "host": "laptop"}, "step": "prepare_data", "run": "r"}


def disk(verdict="ok", free=40 * GIB, inodes=100000, **more):
    place = {"path": "/c", "uses": ["checkpoints", "data"], "free": free, "free_inodes": inodes, "read_only": False}
    return {
        "disk": {"verdict": verdict, "reason": f"it is {verdict}", "needed": 10 * GIB, "filesystems": [place], **more}
    }


def gpu(gib=80, **more):
    return {"errors": {}, "gpu": {"gpus": [{"index": 0, "memory_total": gib * 1024, **more}]}}


def lock(verdict="free", releasable=False, changed=False, **more):
    told = {"verdict": verdict, "releasable": releasable, "reason": f"it is {verdict}", "path": "/l"}
    return {"changed": changed, "lock": told, **more}


def pruned(count=0, freed=0, **more):
    told = {"changed": count > 0, "kept": [{"reason": "newest"}], "pruned": [{}] * count, "freed_bytes": freed}
    return {**told, "groups": [{"newest_verified": "/c/9"}], "msg": "why", **more}


def daemons(*down, wiring="wired", **more):
    known = {"url": "u", "reachable": True, "reason": None, "running": True, "down": list(down), "daemons": {}, **more}
    return {
        "daemons": known,
        "wiring": {"verdict": wiring, "reason": "404", "missing": ["TRAINING_STARTED", "TRAINING_FAILED"]},
    }


def healthy() -> dict:
    """What the tasks register on a node of a fleet that is well."""
    return {
        "prevent_journal": {"journal": {"running": None}},
        "prevent_daemons": daemons(),
        "prevent_gpu": gpu(),
        "prevent_room": disk(),
        "fix_pruned": pruned(),
        "prevent_lock": lock(),
        "prevent_coordinator_lock": lock(),
    }


def judge(check_mode=False, **changed):
    """The points of one node on which some results are others, by cause and host."""
    report = prevention({"a": {**healthy(), **changed}}, "boss", "hex8_2p", check_mode=check_mode)
    assert json.loads(json.dumps(report)) == report
    assert prevention_lines(report)
    return {(point["cause"], point["host"]): point for point in report["findings"]}


def test_all_is_well():
    report = prevention({"a": healthy(), "b": healthy()}, "boss", "hex8_2p", check_mode=False)
    assert {point["state"] for point in report["findings"]} == {"ok"}
    assert {point["severity"] for point in report["findings"]} == {"info"}
    assert report["counts"]["ok"] == 10
    assert prevention_lines(report)[1] == "1. health daemons       ok on boss"


@pytest.mark.parametrize(
    ("cause", "host", "changed", "state", "severity", "words"),
    [
        ("daemons", "boss", {"prevent_daemons": GONE}, "not_seen", "critical", "no route to host"),
        ("daemons", "boss", {"prevent_daemons": daemons(reachable=False, reason="refused", running=None)},
         "not_seen", "critical", "refused"),
        ("daemons", "boss", {"prevent_daemons": daemons("event_router")}, "needs_you", "critical", "nothing was"),
        ("daemons", "boss", {"prevent_daemons": daemons(wiring="unwired")}, "needs_you", "critical", "STARTED;"),
        ("daemons", "boss", {"prevent_daemons": daemons(wiring="unknown")}, "ok", "info", "not known (404)"),
        ("daemons", "boss", {"prevent_daemons": daemons("event_router"), "fix_events": RESTARTED},
         "applied", "info", "they were restarted (by http)"),
        ("daemons", "boss", {"prevent_daemons": daemons("event_router"),
                             "fix_events": {"failed": True, "changed": True, "msg": "it would end pid 7"}},
         "needs_you", "critical", "it would end pid 7"),
        ("daemons", "boss", {"prevent_daemons": daemons("event_router"), "fix_events": {"changed": False}},
         "ok", "info", "all of them run now"),
        ("batch_size", "a", {"prevent_gpu": {**gpu(), "errors": {"progress": "slow"}}}, "not_seen", "critical", "slow"),
        ("batch_size", "a", {"ringrift_batch_size": 4096}, "needs_you", "warning", "80 GiB of GPU memory allows 2048"),
        ("batch_size", "a", {"prevent_gpu": gpu(8), "ringrift_batch_size": 256}, "ok", "info", "allows 256"),
        ("batch_size", "a", {"prevent_gpu": gpu(8)}, "needs_you", "warning", "allows 256"),
        ("batch_size", "a", {"prevent_gpu": gpu(16)}, "ok", "info", "ringrift_batch_size is 512"),
        ("batch_size", "a", {"prevent_gpu": gpu(80, mig_mode=True)}, "needs_you", "warning", "is not known, so the"),
        ("batch_size", "a", {"prevent_gpu": {"errors": {"gpu": "it hangs"}}}, "not_seen", "critical", "it hangs"),
        ("batch_size", "a", {"ringrift_batch_size": "many"}, "needs_you", "warning", "'many'"),
        ("batch_size", "a", {"prevent_gpu": {**gpu(8), "progress": {"trainers": [TRAINER]}},
                             "ringrift_batch_size": "256"}, "needs_you", "warning", "the trainer that runs has 512"),
        ("disk", "a", {"prevent_room": GONE}, "not_seen", "critical", "no route to host"),
        ("disk", "a", {"prevent_room": {"errors": {"disk": "a dead mount"}}}, "not_seen", "critical", "a dead mount"),
        ("disk", "a", {"prevent_room": disk("low", 9 * GIB)}, "needs_you", "warning", "it is low"),
        ("disk", "a", {"prevent_room": disk("full", 0)}, "needs_you", "critical", "it is full"),
        ("disk", "a", {"prevent_room": disk(inodes=999)}, "needs_you", "warning", "999 inodes left"),
        ("disk", "a", {"prevent_room": disk(inodes=None)}, "ok", "info", "it is ok"),
        ("disk", "a", {"prevent_room": disk("full", 0), "prevent_room_after": disk()}, "applied", "info", "made room"),
        ("disk", "a", {"prevent_room": disk("full", 0), "prevent_room_after": disk("low", GIB)},
         "needs_you", "warning", "it is low"),
        ("checkpoints", "a", {"fix_pruned": pruned(3)}, "applied", "info", "3 of 4 files were removed"),
        ("checkpoints", "a", {"fix_pruned": GONE}, "not_seen", "critical", "no route to host"),
        ("checkpoints", "a", {"fix_pruned": pruned(kept=[{"reason": "may_be_open"}], unseen="not root")},
         "not_seen", "critical", "not root"),
        ("checkpoints", "a", {"fix_pruned": pruned(failed_files=[{}], failed=True)}, "needs_you", "warning", "why"),
        ("checkpoints", "a", {"fix_pruned": pruned(groups=[{"newest_verified": None}])}, "needs_you", "warning", "why"),
        ("lock", "a", {"prevent_lock": GONE}, "not_seen", "critical", "no route to host"),
        ("lock", "a", {"prevent_lock": lock("held_live", msg="refused")}, "ok", "info", "it is held_live"),
        ("lock", "a", {"prevent_lock": lock("orphan_file", True, True)}, "applied", "info", "was released"),
        ("lock", "a", {"prevent_lock": lock("orphan_file", True, msg="changed")}, "needs_you", "warning", "changed"),
        ("lock", "a", {"prevent_lock": lock("unknown", msg="refused")}, "not_seen", "critical", "it is unknown"),
        ("lock", "a", {"prevent_lock": lock("orphan_fd", msg="refused")}, "needs_you", "warning", "left alone"),
        ("lock", "a", {"prevent_lock": lock("held_live_foreign", msg="refused")}, "needs_you", "warning", "left alone"),
        ("lock", "boss", {"prevent_coordinator_lock": {"msg": "Redis is silent"}}, "not_seen", "critical", "Redis is"),
        ("node", "a", {"prevent_gpu": GONE}, "not_seen", "critical", "no route to host"),
        ("timer", "localhost", {"prevent_timer_manager": {"rc": 1, "stderr": "bus"}}, "needs_you", "warning", "bus"),
        ("timer", "localhost", {"prevent_timer_manager": {"rc": 0}}, "ok", "info", "as they should be"),
        ("timer", "localhost", {"prevent_timer_manager": {"rc": 0}, "prevent_timer_files": {"changed": True}},
         "applied", "info", "changed"),
        ("timer", "localhost", {"prevent_timer_manager": {"rc": 0},
                                "prevent_timer_started": {"failed": True, "msg": "no"}}, "needs_you", "warning", "no"),
    ],
)  # fmt: skip
def test_one_thing_is_another(cause, host, changed, state, severity, words):
    point = judge(**changed)[cause, host]
    assert (point["state"], point["severity"]) == (state, severity)
    assert words in point["detail"]
    assert point["next"] or state in ("ok", "applied")


@pytest.mark.parametrize("lost", ["reachable", "running", "down"])
def test_daemons_of_which_something_is_not_known_are_not_well(lost):
    seen = daemons()
    del seen["daemons"][lost]
    assert judge(prevent_daemons=seen)["daemons", "boss"]["state"] == "not_seen"


def test_a_dry_run_says_what_would_be_applied_and_that_it_is_not_yet():
    seen = judge(
        check_mode=True,
        prevent_daemons=daemons("event_router"),
        fix_events=RESTARTED,
        prevent_room=disk("low", 9 * GIB),
        fix_pruned=pruned(3, 2 * GIB),
        prevent_lock=lock("orphan_file", True, True),
    )
    would = {cause for (cause, _host), point in seen.items() if point["state"] == "would_be_applied"}
    assert would == {"daemons", "disk", "checkpoints", "lock"}
    assert {seen[cause, "a"]["severity"] for cause in ("disk", "checkpoints", "lock")} == {"warning"}


def test_too_little_room_is_left_after_the_cleanup():
    seen = judge(check_mode=True, prevent_room=disk("low", 7 * GIB), fix_pruned=pruned(3, 2 * GIB))
    assert seen["disk", "a"]["state"] == "needs_you"


@pytest.mark.parametrize(
    ("journal", "words"),
    [
        (
            {"journal": {"running": RUNNING}},
            "a recovery of this config by operator@laptop is under way, at prepare_data",
        ),
        (GONE, "whether a recovery is under way is not known: the journal on boss was not seen"),
        (None, "whether a recovery is under way is not known"),
    ],
)
def test_beside_a_recovery_nothing_is_done_and_that_is_said(journal, words):
    results = {**healthy(), "prevent_journal": journal, "prevent_daemons": daemons("event_router")}
    del results["fix_pruned"]
    results["prevent_lock"] = lock("orphan_file", True)
    report = prevention({"a": results}, "boss", "hex8_2p", check_mode=False)
    states = {point["cause"]: point["state"] for point in report["findings"] if point["state"] != "ok"}
    assert states == {"daemons": "needs_you", "checkpoints": "not_seen", "lock": "needs_you"}
    assert all(words in point["detail"] for point in report["findings"] if point["state"] != "ok")


def test_of_many_findings_the_rest_is_in_the_report():
    nodes = {f"n{number}": {**healthy(), "prevent_gpu": GONE} for number in range(200)}
    report = prevention(nodes, "boss", "hex8_2p", check_mode=False)
    lines = prevention_lines(report)
    assert len(lines) < 2 * MOST_SHOWN + 10
    assert lines[-1] == f"and {200 - MOST_SHOWN} more in the report"


def test_text_from_a_node_cannot_reach_the_terminal():
    point = judge(prevent_lock={"msg": "\x1b[2J"})["lock", "a"]
    assert point["detail"] == "\\x1b[2J"


# Whatever a task may have registered, or half of it.
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_what_is_missing_or_garbage_is_never_well(data):
    """Take away or replace one result, or a part of it: no crash, and without the result its point is not ok."""
    node = copy.deepcopy(healthy())
    name = data.draw(st.sampled_from(sorted(set(node) - {"prevent_coordinator_lock"})))
    node[name] = data.draw(PLAIN)
    report = prevention({"a": node}, "boss", "hex8_2p", check_mode=data.draw(st.booleans()))
    assert all(point["state"] in STATES for point in report["findings"])
    assert prevention_lines(report)
    del node[name]
    report = prevention({"a": node}, "boss", "hex8_2p", check_mode=False)
    point = {"prevent_daemons": "daemons", "prevent_gpu": "node", "prevent_room": "disk", "fix_pruned": "checkpoints",
             "prevent_lock": "lock"}.get(name)  # fmt: skip
    if point:
        states = {entry["cause"]: entry["state"] for entry in report["findings"] if entry["host"] in ("a", "boss")}
        assert states[point] == "not_seen" or point == "lock"
        assert report["counts"]["not_seen"] == 1


@given(st.sampled_from(["prevent_daemons", "prevent_gpu", "prevent_room", "prevent_lock", "fix_pruned"]), st.data())
def test_a_result_with_one_value_replaced_is_judged_all_the_same(name, data):
    node = copy.deepcopy(healthy())
    at = node[name]
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(len(at)))))
        inner = at[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            at[key] = data.draw(PLAIN)
            break
        at = inner
    report = prevention({"a": node}, "boss", "hex8_2p", check_mode=False)
    assert all(point["state"] in STATES for point in report["findings"])
    assert prevention_lines(report)


def test_every_cause_has_a_title():
    assert list(_prevention.TITLES)[1:] == ["daemons", "batch_size", "disk", "checkpoints", "lock", "timer"]
