# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of several causes comes first, and what is no stall."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._finding import QUICK_FIXES
from ansible_collections.ringrift.recovery.plugins.module_utils._verdict import verdict
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0
IDLE = {"verdict": "not_running", "running": False, "trainers": [], "reason": "no trainer", "now": NOW}
MOVING = {"verdict": "progressing", "running": True, "trainers": [{"pid": 7, "state": "R"}], "reason": "epoch 3"}
P2P = {"reachable": True, "profile": "ringrift", "leader": {"id": "c"}, "cooldown": {"active": False}, "active": []}
ORPHAN_FD = {"backend": "file", "verdict": "orphan_fd", "reason": "x", "held": True}
CUT = {"valid": False, "path": "d.npz", "exists": True, "problems": [{"message": "cut"}]}
OOM = {"findings": [{"code": "cuda_oom", "count": 2, "line": "CUDA out of memory", "after_progress": True}]}


def stalled(state="S", age=100.0, this_run=True):
    return {
        "verdict": "stalled",
        "running": True,
        "reason": f"no progress for {age:g} s",
        "now": NOW,
        "trainers": [{"pid": 7, "state": state, "start_time": NOW - age}],
        "last": {"epoch": 3, "at": NOW - age, "this_run": this_run},
    }


def watched(moving, state="R"):
    return {"processes": [{"pid": 7, "role": "trainer", "state": state, "moving": moving, "cpu_percent": 99.0}]}


def node(**probes):
    return {"progress": IDLE, "errors": {}, **probes}


def judge(hosts, p2p=P2P, coordinator=None, stall_after=30):
    fleet = {"name": "c", "node": coordinator, "p2p": p2p}
    return verdict({"config": "hex8_2p", "stall_after": stall_after, "hosts": hosts, "coordinator": fleet})


def top(result):
    return result.findings[0].cause


@pytest.mark.parametrize(
    ("probes", "cause"),
    [
        ({"locks": [ORPHAN_FD]}, "lock_held"),
        ({"data": CUT}, "data_not_ready"),
        ({"data": CUT, "locks": [ORPHAN_FD]}, "data_not_ready"),
        ({"log": OOM, "locks": [ORPHAN_FD]}, "gpu_oom"),
        ({"disk": {"verdict": "full", "reason": "0 B free"}, "log": OOM}, "disk_full"),
        ({"checkpoints": [{"path": "checkpoints/checkpoint_epoch_3.pth", "valid": False}]}, "checkpoint_corrupt"),
        ({"events": {"state": "failed", "last": {"failed": {"error": "boom"}}}}, "training_failed"),
        ({"progress": stalled("T")}, "process_hung"),
        ({"progress": stalled("D")}, "process_unkillable"),
        ({"progress": stalled(), "gpu": {"gpus": [{"verdict": "wedged", "reason": "x"}]}}, "gpu_wedged"),
        ({"progress": stalled(), "gpu": {"gpus": [{"verdict": "lost", "reason": "x"}]}}, "gpu_sick"),
        # What a trainer that lives has loaded already is not what holds it up.
        ({"progress": stalled("T"), "data": CUT}, "process_hung"),
    ],
)
def test_the_root_cause_comes_first(probes, cause):
    result = judge({"a": node(**probes), "b": node()})
    assert result.stalled is True
    assert top(result) == cause
    if not result.running:
        assert "not_running" in [finding.cause for finding in result.findings]


XID = {"kind": "xid", "time": "t", "message": "NVRM: Xid (PCI:0000:00:06): 79", "action": "reset", "meaning": "lost"}


@pytest.mark.parametrize(
    ("event", "severity"),
    [
        (XID, "critical"),
        ({**XID, "action": "restart_app"}, "warning"),
        ({**XID, "action": "ignore"}, None),
        ({**XID, "kind": "hung_task"}, None),
    ],
)
def test_what_an_xid_asks_for_decides_how_grave_it_is(event, severity):
    result = judge({"a": node(kernel={"events": [event]})})
    found = [finding.severity for finding in result.findings if finding.cause == "gpu_sick"]
    assert found == ([] if severity is None else [severity])


KILL = {"kind": "oom_kill", "process_name": "python", "pid": 9, "seconds_since_boot": 500.0, "message": "Killed"}


@pytest.mark.parametrize(
    ("event", "started", "found"),
    [
        (KILL, NOW - 900, True),
        ({**KILL, "process_name": "chrome"}, NOW - 900, False),
        # A kill before the last start was of an earlier trainer.
        (KILL, NOW - 100, False),
    ],
)
def test_only_the_kill_of_a_trainer_since_its_start_counts(event, started, found):
    events = {"state": "running", "last": {"started": {"at": started}}}
    result = judge({"a": node(kernel={"events": [event]}, events=events, host={"booted_at": NOW - 1000})})
    assert ("host_oom" in [finding.cause for finding in result.findings]) is found
    if found:
        assert top(result) == "host_oom"


@pytest.mark.parametrize(
    ("progress", "probes", "expected"),
    [
        # The first epoch compiles: four times as long is fine where the processor works.
        (stalled(age=100, this_run=False), {"processes": watched(True)}, False),
        (stalled(age=200, this_run=False), {"processes": watched(True)}, True),
        (stalled(age=100, this_run=False), {"processes": watched(False)}, True),
        (stalled(age=100, this_run=False), {}, True),
        (stalled("T", 100, False), {"processes": watched(True)}, True),
        (stalled(age=100, this_run=False), {"processes": watched(True), "gpu": {"verdict": "wedged"}}, True),
        # A GPU of which nothing is known may be what holds it up.
        (stalled(age=100, this_run=False), {"processes": watched(True), "gpu": {"verdict": "unknown"}}, True),
        (stalled(age=100, this_run=False), {"processes": watched(True), "errors": {"gpu": "no answer"}}, True),
        # An evaluation, which the log's last line tells of.
        (stalled(), {"processes": watched(True), "log": {"lines": ["INFO:x:Evaluating on 4000 games"]}}, False),
        (stalled(), {"processes": watched(True), "log": {"lines": ["INFO:x:Evaluating", "INFO:x:Epoch 4"]}}, True),
        (stalled(), {"processes": watched(True)}, True),
    ],
)
def test_slow_is_not_stalled(progress, probes, expected):
    result = judge({"a": node(progress=progress, **probes)})
    assert result.stalled is expected
    assert (top(result) == "not_stalled") is not expected
    if not expected:
        assert "the processor works" in result.findings[0].summary


COMPLETED = {"state": "completed", "last": {"completed": {"at": NOW - 60}}}
COOLDOWN = {**P2P, "cooldown": {"active": True, "remaining": 240.0, "source": "work"}}


def test_the_pause_after_a_completed_training_is_on_purpose():
    result = judge({"a": node(events=COMPLETED), "b": node()}, COOLDOWN)
    assert (result.stalled, result.running) == (False, False)
    assert "idle on purpose" in result.headline
    assert "4 min" in result.headline
    assert ("cooldown_active", "warning") in [(finding.cause, finding.severity) for finding in result.findings]


def test_a_cooldown_explains_nothing_else_after_a_crash():
    crashed = {"state": "running", "last": {"progress": {"at": NOW - 60}}}
    result = judge({"a": node(events=crashed)}, COOLDOWN)
    assert result.stalled is True
    assert (top(result), result.findings[0].severity) == ("cooldown_active", "critical")
    # Where something worse is known, it only stands in the way.
    assert top(judge({"a": node(events=crashed, locks=[ORPHAN_FD])}, COOLDOWN)) == "lock_held"


@pytest.mark.parametrize(
    ("probes", "cause"),
    [
        ({"wiring": {"verdict": "unwired", "missing": ["TRAINING_COMPLETED"]}}, "events_not_wired"),
        ({"daemons": {"reachable": True, "down": ["event_router"]}}, "daemons_down"),
        ({"triggers": {"exists": True, "paused": True}}, "trigger_blocked"),
        ({"triggers": {"exists": True, "training_in_progress": True}}, "trigger_blocked"),
    ],
)
def test_what_holds_the_next_training_back_is_the_cause_where_nothing_else_is(probes, cause):
    result = judge({"a": node(events=COMPLETED)}, coordinator=node(**probes))
    assert (top(result), result.findings[0].severity) == (cause, "critical")
    moving = judge({"a": node(progress=MOVING)}, coordinator=node(**probes))
    assert moving.stalled is False
    assert all(finding.severity != "critical" for finding in moving.findings)


def test_a_broken_node_beside_the_training_is_a_warning():
    ran = {"state": "running", "last": {"progress": {"at": NOW - 60}}}
    sick = {"gpu": {"gpus": [{"verdict": "sick", "reason": "x"}]}}
    result = judge({"a": node(events=ran, locks=[ORPHAN_FD]), "b": node(**sick)})
    assert top(result) == "lock_held"
    assert ("gpu_sick", "b", "warning") in [(one.cause, one.host, one.severity) for one in result.findings]


def test_an_old_damaged_checkpoint_is_a_warning():
    files = [
        {"path": "models/canonical_hex8_2p.pth", "valid": True},
        {"path": "checkpoints/checkpoint_epoch_4.pth", "valid": True},
        {"path": "checkpoints/checkpoint_epoch_3.pth", "valid": False},
    ]
    found = [finding for finding in judge({"a": node(checkpoints=files)}).findings if "epoch_3" in finding.summary]
    assert [finding.severity for finding in found] == ["warning"]
    files[1]["valid"] = None
    found = [finding for finding in judge({"a": node(checkpoints=files)}).findings if "epoch_3" in finding.summary]
    assert [finding.severity for finding in found] == ["critical"]


def test_a_clock_that_is_off_is_told_with_its_direction():
    ahead = judge({"a": node(progress=MOVING, host={"clock_offset": 3600.0})})
    assert "60 min ahead of" in next(one.summary for one in ahead.findings if one.cause == "clock_skew")
    assert not [one for one in judge({"a": node(host={"clock_offset": 2.0})}).findings if one.cause == "clock_skew"]


def test_every_node_has_a_line():
    result = judge({"a": node(progress=MOVING), "b": {"unreachable": True, "msg": "x"}}, coordinator=node())
    assert [(row["name"], row["coordinator"], row["state"]) for row in result.nodes] == [
        ("c", True, "not_running"),
        ("a", False, "progressing"),
        ("b", False, "unreachable"),
    ]
    assert result.nodes[1]["trainer"] == "pid 7 R"


@pytest.mark.parametrize("cause", QUICK_FIXES)
def test_every_quick_fix_has_its_task_file(cause):
    assert (pathlib.Path(__file__).resolve().parents[4] / "roles/fix/tasks" / f"{cause}.yml").is_file()


@pytest.mark.parametrize(
    ("evidence", "words"), [({}, "no evidence"), ({"config": "c", "hosts": []}, "no evidence"),
                            ({"config": "c", "schema": 9}, "schema 9")]
)  # fmt: skip
def test_what_is_no_evidence_is_refused(evidence, words):
    with pytest.raises(RecoveryError, match=words):
        verdict(evidence)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
KEYS = ["progress", "processes", "events", "locks", "gpu", "log", "kernel", "data", "checkpoints", "disk", "memory"]
KEYS += [
    "host",
    "errors",
    "unseen",
    "seconds",
    "games",
    "wiring",
    "daemons",
    "triggers",
    "unreachable",
    "failed",
    "msg",
]
INNER = [
    "verdict",
    "last",
    "events",
    "findings",
    "gpus",
    "trainers",
    "processes",
    "reason",
    "state",
    "problems",
    "missing",
]
GARBAGE = st.one_of(JSON, st.dictionaries(st.sampled_from(INNER), JSON, max_size=4))
NODE = st.one_of(JSON, st.dictionaries(st.sampled_from(KEYS), GARBAGE, max_size=6))


@given(st.dictionaries(st.sampled_from("abc"), NODE, max_size=3), NODE, GARBAGE)
def test_garbage_in_saved_evidence_is_never_healthy_and_never_a_crash(hosts, coordinator, p2p):
    result = judge(hosts, p2p, coordinator)
    shown = result.as_dict()
    assert {row["name"] for row in shown["nodes"]} >= set(hosts)
    if not any(isinstance(one, dict) and "progress" in one for one in hosts.values()):
        assert result.stalled is not False


@pytest.mark.parametrize(
    ("probes", "probe"),
    [
        ({"checkpoints": [{"path": "c.pth", "valid": None, "problems": [{"message": "denied"}]}]}, "checkpoints"),
        ({"gpu": {"verdict": "unknown", "problems": [{"message": "garbage"}]}}, "gpu"),
        ({"wiring": {"verdict": "unknown", "reason": "404"}}, "wiring"),
        ({"daemons": {"reachable": False, "reason": "refused"}}, "daemons"),
    ],
)
def test_what_could_not_be_told_is_listed(probes, probe):
    assert [gap["probe"] for gap in judge({"a": node(progress=MOVING, **probes)}).unknown] == [probe]


@pytest.mark.parametrize(
    "p2p", [{**P2P, "profile": "unknown", "reason": "404"}, {**P2P, "complete": False, "reason": "500"}]
)
def test_an_orchestrator_that_was_not_understood_is_listed(p2p):
    gaps = judge({"a": node(progress=MOVING)}, p2p).unknown
    assert [(gap["host"], gap["probe"], gap["reason"]) for gap in gaps] == [("c", "p2p", p2p["reason"])]
