# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._report import report_lines, run_report
from ansible_collections.ringrift.recovery.plugins.module_utils._verdict import verdict
from hypothesis import given
from hypothesis import strategies as st

NOT_RUNNING = {"verdict": "not_running", "running": False, "trainers": [], "reason": "no trainer of hex8_2p"}
PROGRESSING = {"verdict": "progressing", "running": True, "trainers": [{"pid": 7, "state": "R"}], "reason": "epoch 3"}
STALLED = {
    "verdict": "stalled",
    "running": True,
    "trainers": [{"pid": 7, "state": "T"}],
    "reason": "no progress for 90 s",
}
P2P = {"reachable": True, "profile": "ringrift", "leader": {"id": "c"}, "cooldown": {"active": False}}


def node(**probes):
    return {"progress": NOT_RUNNING, "locks": [], "errors": {}, **probes}


def judge(hosts, p2p=P2P, coordinator=None):
    return verdict({"config": "hex8_2p", "hosts": hosts, "coordinator": {"name": "c", "node": coordinator, "p2p": p2p}})


def causes(result):
    return [(finding.cause, finding.host) for finding in result.findings]


def test_moving_training_is_not_stalled_although_other_nodes_idle():
    result = judge({"a": node(progress=PROGRESSING), "b": node()})
    assert result.stalled is False
    assert causes(result) == [("not_stalled", None)]


def test_nothing_running_anywhere_is_a_finding_of_its_own():
    result = judge({"a": node(), "b": node()})
    assert result.stalled is True
    assert causes(result) == [("not_running", None)]


def test_unreachable_nodes_are_unknown_and_never_healthy():
    result = judge({"a": {"unreachable": True, "msg": "no route"}})
    assert result.stalled is None
    assert causes(result) == [("node_unreachable", "a")]
    assert result.unknown == ({"host": "a", "probe": "all", "reason": "no route"},)


def test_not_running_is_less_certain_while_a_node_is_unseen():
    result = judge({"a": node(), "b": {"unreachable": True, "msg": "no route"}})
    finding = next(finding for finding in result.findings if finding.cause == "not_running")
    assert finding.confidence == "medium"
    assert "1 could not" in finding.summary


@pytest.mark.parametrize(
    ("probes", "cause", "severity"),
    [
        ({"progress": STALLED}, "process_hung", "critical"),
        (
            {"progress": {**STALLED, "trainers": [{"pid": 7, "state": "D"}]}},
            "process_unkillable",
            "critical",
        ),
        ({"locks": [{"backend": "file", "verdict": "orphan_fd", "reason": "x"}]}, "lock_held", "critical"),
        ({"locks": [{"backend": "redis", "verdict": "stale_dead", "reason": "x"}]}, "lock_held", "critical"),
        ({"locks": [{"backend": "file", "verdict": "orphan_file", "reason": "x"}]}, "lock_held", "warning"),
        ({"locks": [{"backend": "file", "verdict": "held_live", "reason": "x"}]}, "lock_held", "warning"),
        ({"locks": [{"backend": "file", "verdict": "unknown", "reason": "x"}]}, "lock_held", "warning"),
        ({"data": {"valid": False, "path": "d.npz", "problems": [{"message": "cut"}]}}, "data_not_ready", "critical"),
        ({"data": {"valid": False, "exists": False, "path": "d.npz"}}, "data_not_ready", "critical"),
        (
            {"checkpoints": [{"valid": False, "path": "c.pth", "problems": [{"message": "CRC"}]}]},
            "checkpoint_corrupt",
            "critical",
        ),
        ({"gpu": {"gpus": [{"verdict": "wedged", "reason": "x"}]}}, "gpu_wedged", "critical"),
        ({"gpu": {"gpus": [{"verdict": "lost", "reason": "x"}]}}, "gpu_sick", "critical"),
        ({"gpu": {"problems": [{"code": "driver_hung", "message": "x"}]}}, "gpu_sick", "critical"),
        (
            {"log": {"findings": [{"code": "cuda_oom", "count": 2, "line": "CUDA out of memory"}]}},
            "gpu_oom",
            "critical",
        ),
    ],
)
def test_each_cause_is_named_with_its_facts(probes, cause, severity):
    result = judge({"a": node(**probes)})
    finding = next(finding for finding in result.findings if finding.cause == cause)
    assert (finding.host, finding.severity) == ("a", severity)
    assert finding.evidence or cause == "data_not_ready"


def test_lock_of_a_live_trainer_is_as_it_should_be():
    lock = {"backend": "file", "verdict": "held_live", "reason": "pid 7 lives"}
    assert causes(judge({"a": node(progress=PROGRESSING, locks=[lock])})) == [("not_stalled", None)]


@pytest.mark.parametrize(
    ("p2p", "cause"),
    [
        ({"reachable": False, "reason": "refused"}, "orchestrator_down"),
        ({"failed": True, "msg": "boom"}, "orchestrator_down"),
        ({**P2P, "leader": {"id": None}}, "no_leader"),
        ({**P2P, "cooldown": {"active": True, "remaining": 9, "source": "status"}}, "cooldown_active"),
    ],
)
def test_orchestrator_findings(p2p, cause):
    assert (cause, "c") in causes(judge({"a": node()}, p2p))


def test_progress_that_cannot_be_told_is_unknown_and_never_healthy():
    doubtful = {"verdict": "unknown", "running": None, "trainers": [], "reason": "processes of others are hidden"}
    result = judge({"a": node(progress=doubtful)})
    assert result.stalled is None
    assert result.unknown == ({"host": "a", "probe": "progress", "reason": "processes of others are hidden"},)


def test_out_of_memory_before_the_last_progress_is_over():
    log = {"findings": [{"code": "cuda_oom", "count": 2, "line": "x", "after_progress": False}]}
    assert "gpu_oom" not in [cause for cause, _host in causes(judge({"a": node(log=log)}))]


def test_a_trainer_that_was_just_started_is_not_said_to_move():
    starting = {"verdict": "starting", "running": True, "trainers": [], "reason": "started 2 s ago"}
    result = judge({"a": node(progress=starting)})
    assert result.stalled is False
    assert "no progress yet" in result.findings[0].summary


def test_two_trainers_on_one_node_are_told():
    twice = {**PROGRESSING, "problems": [{"code": "duplicate_trainers", "message": "pid 7 and pid 8"}]}
    assert ("duplicate_trainers", "a") in causes(judge({"a": node(progress=twice)}))


def test_a_module_that_crashed_is_no_healthy_node():
    crashed = {"failed": False, "msg": "MODULE FAILURE"}
    result = judge({"a": crashed})
    assert result.stalled is None
    assert causes(result) == [("probe_failed", "a")]


def test_nothing_running_where_not_all_could_be_seen_is_unknown():
    assert judge({"a": node(), "b": {"unreachable": True}}).stalled is None


def test_two_nodes_training_one_config_is_found():
    result = judge({"a": node(progress=PROGRESSING), "b": node(progress=PROGRESSING)})
    assert ("duplicate_trainers", None) in causes(result)


def test_a_probe_without_answer_is_listed():
    result = judge({"a": node(errors={"gpu": "no answer within 10 s"})})
    assert result.unknown == ({"host": "a", "probe": "gpu", "reason": "no answer within 10 s"},)


def test_too_few_games_on_the_coordinator():
    games = {"enough": False, "games": 3, "databases": [{"path": "g.db", "games": 3}]}
    assert ("data_not_ready", "c") in causes(judge({"a": node()}, coordinator=node(games=games)))


def test_critical_findings_come_first():
    result = judge({"a": node(locks=[{"verdict": "orphan_file"}], checkpoints=[{"valid": False, "path": "x"}])})
    severities = [finding.severity for finding in result.findings]
    assert severities == sorted(severities, key=["critical", "warning", "info"].index)


def test_a_moving_training_needs_no_next_command():
    assert judge({"a": node(progress=PROGRESSING)}).next == ""
    assert judge({"a": node()}).next == "ansible-playbook full_recovery.yml -e config=hex8_2p --check --diff"


def test_report_takes_only_what_the_steps_registered():
    nodes = {
        "a": {
            "ansible_password": "s3cret",
            "stop_training_result": {"changed": False, "stopped": [], "survivors": [], "invocation": {}},
            "stop_training_stopped": [{"pid": 7}],
            "monitor_begin": {"running": True, "last": {"epoch": 3}},
            "monitor_progress": {"progressed": True, "proof": [{"what": "epoch 4"}]},
        }
    }
    report = run_report(nodes, config="hex8_2p", outcome="recovered", next="")
    assert "s3cret" not in str(report)
    assert report["nodes"]["a"]["monitor"]["before"] == {"epoch": 3}
    assert report_lines(report) == ["hex8_2p: recovered", "a: stopped pid 7", "a: progress proven: epoch 4"]


def test_report_names_the_step_that_failed():
    report = run_report(
        {"a": {"clear_state_lock": {"failed": True, "msg": "held"}}}, config="c", outcome="failed", next="x"
    )
    assert report_lines(report) == ["c: failed", "a: clear_lock FAILED: held", "next: x"]


def test_steps_of_the_whole_fleet_are_told_once():
    export = {"changed": True, "path": "d.npz", "samples": 601, "reason": "damaged"}
    nodes = {name: {"prepare_data_export": export} for name in ("a", "b")}
    report = run_report(nodes, config="c", outcome="done")
    assert report_lines(report) == ["c: done", "fleet: exported 601 verified samples to d.npz (damaged)"]


def test_a_plan_says_would():
    nodes = {"a": {"stop_training_stopped": [{"pid": 7}]}}
    report = run_report(nodes, config="c", outcome="plan only", check_mode=True)
    assert report_lines(report) == ["c: plan only", "a: would stop pid 7"]


PROBES = st.dictionaries(
    st.sampled_from(["progress", "locks", "gpu", "log", "data", "errors"]), st.just(None), max_size=6
)


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.one_of(PROBES, st.just({"failed": True}), st.just({"unreachable": True}))
    )
)
def test_without_evidence_it_is_never_called_healthy(hosts):
    assert judge(hosts).stalled is not False


def test_out_of_memory_needs_no_batch_size_from_the_operator():
    log = {"findings": [{"code": "cuda_oom", "count": 2, "line": "CUDA out of memory"}]}
    result = judge({"a": node(log=log)})
    finding = next(finding for finding in result.findings if finding.cause == "gpu_oom")
    assert finding.fix == "fix.yml -e config=hex8_2p -e cause=gpu_oom"


@pytest.mark.parametrize(("check", "verb"), [(True, "would use"), (False, "used")])
def test_report_tells_the_batch_size_and_why(check, verb):
    fitted = {"batch_size": 256, "changed": True, "message": "batch size 256 instead of 512: it ran out", "else": 1}
    report = run_report({"a": {"restart_training_fit": fitted}}, config="hex8_2p", outcome="x", check_mode=check)
    assert report["fleet"]["batch_size"] == {key: fitted[key] for key in ("batch_size", "changed", "message")}
    assert report_lines(report)[1] == f"fleet: {verb} batch size 256 instead of 512: it ran out"
    warned = {"restart_training_fit": {**fitted, "changed": False, "reasons": ["it ran out", "WARNING: too much", "x"]}}
    assert report_lines(run_report({"a": warned}, config="hex8_2p", outcome="x"))[2:] == ["fleet: WARNING: too much"]
    usual = {"restart_training_fit": {**fitted, "changed": False, "reasons": ["it ran out"]}}
    assert len(report_lines(run_report({"a": usual}, config="hex8_2p", outcome="x"))) == 1
