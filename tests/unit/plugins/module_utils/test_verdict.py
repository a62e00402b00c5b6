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


def test_report_names_the_node_that_stopped_answering():
    nodes = {"a": {"monitor_begin": {"running": False}}, "b": {}}
    report = run_report(nodes, ["b"], config="c", outcome="failed in monitor")
    assert report_lines(report)[1:] == [
        "b: FAILED: it does not answer any more, and had no part in what followed",
    ]


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


LOCK = {"changed": True, "lock": {"holder": {"token": "vm:7:ab"}}}
FREED = {"changed": True, "lock": {"holder": None}}
JOBS = {"changed": True, "cleared": [{"id": "j1", "was": "running"}]}
AT = 1_795_862_400.0
RESTORED = {
    "changed": True,
    "quarantined": [{"path": "m.pth"}],
    "restored": True,
    "source": "c3.pth",
    "checkpoint": {"path": "m.pth", "epoch": 3, "written_at": AT - 7200, "sha256": "ab12"},
    "epochs_lost": 1,
}
UNTOLD = {**RESTORED, "checkpoint": {"path": "m.pth"}, "epochs_lost": None}


@pytest.mark.parametrize(
    ("variable", "result", "planned", "done"),
    [
        ("clear_state_lock", LOCK, ["would release the lock of vm:7:ab"], ["released the lock of vm:7:ab"]),
        ("clear_state_lock", FREED, ["would release the lock of nobody"], ["released the lock of nobody"]),
        ("clear_state_jobs", JOBS, ["would clear job j1 (running)"], ["cleared job j1 (running)"]),
        ("stop_training_withdrawn", JOBS, ["would withdraw job j1 (running)"], ["withdrew job j1 (running)"]),
        (
            "prepare_data_published",
            {"changed": True, "samples": 9, "path": "d.npz"},
            ["would put 9 verified samples in place at d.npz"],
            ["put 9 verified samples in place at d.npz"],
        ),
        (
            "prepare_data_export",
            {"changed": True, "path": "d.npz", "reason": "missing"},
            ["would export verified samples to d.npz (missing)"],
            ["exported verified samples to d.npz (missing)"],
        ),
        (
            "fix_pruned",
            {"changed": True, "pruned": [{"path": "a"}, {"path": "b"}]},
            ["would delete a", "would delete b"],
            ["deleted a", "deleted b"],
        ),
        (
            "fix_events",
            {"changed": True, "via": "signal"},
            ["would restart the daemons of the coordination (by signal)"],
            ["restarted the daemons of the coordination (by signal)"],
        ),
        (
            "restart_training_dispatch",
            {"changed": True, "dispatched": {"job_id": "j2"}},
            ["would dispatch job j2"],
            ["dispatched job j2"],
        ),
        (
            "restart_training_dispatch",
            {"changed": True},
            ["would dispatch a training job"],
            ["dispatched a training job"],
        ),
        (
            "restart_training_started",
            {"changed": True, "pid": 7},
            ["would start the trainer pid 7"],
            ["started the trainer pid 7"],
        ),
        ("restart_training_started", {"changed": True}, ["would start the trainer"], ["started the trainer"]),
        ("restart_training_checkpoint", {"changed": True, "quarantined": [], "restored": False}, [], []),
        (
            "stop_training_result",
            {"unreachable": True},
            ["stop_training FAILED: unreachable"],
            ["stop_training FAILED: unreachable"],
        ),
        ("ansible_failed_result", {}, ["FAILED: no message"], ["FAILED: no message"]),
        ("restart_training_started", {"changed": True, "skipped": True}, [], []),
    ],
)
def test_report_says_what_each_step_does(variable, result, planned, done):
    for check, words in ((True, planned), (False, done)):
        report = run_report({"a": {variable: result}}, config="c", outcome="x", check_mode=check)
        assert [line.partition(": ")[2] for line in report_lines(report)[1:]] == words


def test_report_says_from_which_file_training_goes_on_and_what_it_costs():
    report = run_report({"a": {"restart_training_checkpoint": RESTORED}}, config="c", outcome="x", at=AT)
    quarantined, restored, lost = report_lines(report)[1:]
    assert quarantined == "a: quarantined m.pth"
    assert restored.startswith("a: restored m.pth from c3.pth, of epoch 3, written ")
    assert restored.endswith(" ago, sha256 ab12")
    assert lost == "a: lost 1 epoch: training goes on from epoch 3"
    none_lost = {**RESTORED, "epochs_lost": 0}
    lines = report_lines(run_report({"a": {"restart_training_checkpoint": none_lost}}, config="c", outcome="x"))
    assert lines[-1] == "a: lost no epoch: training goes on from epoch 3"
    assert " ago" not in lines[2], "the report does not say when it was written itself"


def test_report_says_where_it_cannot_tell_what_was_lost():
    report = run_report({"a": {"restart_training_canonical_model": UNTOLD}}, config="c", outcome="x")
    assert report_lines(report)[2:] == [
        "a: restored m.pth from c3.pth, of an epoch that it does not tell",
        "a: lost an unknown number of epochs: not every file tells which one it is from",
    ]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"state": "put_back", "source": "k", "kept": "k"}, ["put back m.pth; what was there is kept as k"]),
        ({"state": "put_back", "source": "k", "kept": None}, ["put back m.pth from k"]),
        ({"state": "left", "reason": "why"}, ["left m.pth: why"]),
        ({"state": "refused", "reason": "why"}, ["NOT PUT BACK m.pth: why"]),
        ({"state": "already"}, []),
    ],
)
def test_report_says_what_became_of_a_file_that_was_replaced(entry, words):
    files = {"changed": True, "files": [{"path": "m.pth", **entry}]}
    report = run_report({"a": {"rollback_done": files}}, config="c", outcome="x")
    assert report_lines(report)[1:] == [f"a: {line}" for line in words]


def test_report_names_the_run_that_is_rolled_back_and_who_is_left_out():
    found = {"changed": False, "id": None, "at": "10:40", "left_out": ["b"]}
    report = run_report({"a": {"rollback_found": found}}, config="c", outcome="x")
    assert report_lines(report)[1:] == [
        "fleet: what the run without a name of 10:40 replaced",
        "fleet: left out: b, which is not among the nodes of this run",
    ]


def said(code, **more):
    return {"findings": [{"code": code, "count": 1, "line": "the line", **more}]}


@pytest.mark.parametrize(
    ("probes", "cause", "severity"),
    [
        ({"log": said("stale_data")}, "data_not_ready", "critical"),
        ({"log": said("weights_not_loaded")}, "checkpoint_corrupt", "warning"),
        ({"log": said("nan"), "progress": PROGRESSING}, "training_failed", "warning"),
        ({"log": said("cuda_oom"), "progress": PROGRESSING}, "gpu_oom", "warning"),
        ({"log": said("host_killed")}, "host_oom", "warning"),
        ({"log": said("traceback")}, "training_failed", "critical"),
        ({"events": {"state": "failed", "last": {"failed": {"error": "x"}}}}, "training_failed", "critical"),
        ({"memory": {"verdict": "low", "reason": "x"}}, "memory_low", "warning"),
        ({"host": {"clock_offset": -90.0}}, "clock_skew", "warning"),
    ],
)
def test_what_the_log_and_the_system_say(probes, cause, severity):
    found = {one.cause: one.severity for one in judge({"a": node(**probes)}).findings}
    assert found[cause] == severity


def test_an_end_that_is_explained_is_less_certain():
    """A trainer that ran out of memory ends with a traceback too, and that is no second fault."""
    log = {"findings": [*said("cuda_oom")["findings"], *said("traceback")["findings"]]}
    found = {one.cause: one.severity for one in judge({"a": node(log=log)}).findings}
    assert (found["gpu_oom"], found["training_failed"]) == ("critical", "warning")


def test_a_probe_that_answers_and_cannot_tell_is_listed():
    gaps = {
        "wiring": {"reachable": False, "reason": "refused"},
        "daemons": {"reachable": False, "problems": [{"message": "x"}, {"message": "y"}]},
        "gpu": {"verdict": "unknown"},
        "checkpoints": [{"path": "c.pth", "valid": None}, {"valid": None, "problems": [{"message": "late"}]}],
        "unseen": [{"probe": "log", "what": "It may not be read", "hint": "Use become"}],
    }
    told = [(one["probe"], one["reason"]) for one in judge({"a": node(**gaps)}).unknown]
    assert told == [
        ("wiring", "refused"),
        ("daemons", "x; y"),
        ("gpu", "no answer"),
        ("checkpoints", "c.pth"),
        ("checkpoints", "late"),
        ("log", "It may not be read. Use become"),
    ]
