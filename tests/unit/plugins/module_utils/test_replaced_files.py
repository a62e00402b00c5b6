# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
import pathlib

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _replaced_files
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._file_rollback import CHECKPOINT, DATA, Replaced
from ansible_collections.ringrift.recovery.plugins.module_utils._replaced_files import find, read
from ansible_collections.ringrift.recovery.plugins.module_utils._report import report_lines, run_report
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

OLD, NEW, OTHER = ("a" * 64, "b" * 64, "c" * 64)
NPZ, MODEL, CANONICAL = "/s/data/training/hex8_2p.npz", "/s/models/checkpoint_hex8_2p.pth", "/s/models/canonical.pth"
GOOD = {"sha256": OLD, "samples": 9, "valid": True, "mode": "0644", "problem": None}
PUBLISHED = {"changed": True, "path": NPZ, "previous": f"{NPZ}.previous", "replaced": GOOD, "sha256": NEW}
EXPORTED = {
    "changed": True, "path": NPZ, "previous": f"{NPZ}.previous", "sha256": NEW,
    "before": {"valid": False, "sha256": OLD, "samples": 9, "problems": [{"code": "truncated", "message": "cut off"}]},
}  # fmt: skip
RESTORED = {
    "changed": True, "restored": True, "checkpoint": {"path": MODEL, "sha256": NEW}, "previous": f"{MODEL}.previous",
    "replaced": {"sha256": OLD, "epoch": 3, "valid": True}, "quarantined": [],
}  # fmt: skip
ASIDE = {"path": MODEL, "to": f"{MODEL}.corrupt-20261128T104000Z", "reason": "crc_mismatch: x", "sha256": OLD}


def keep(folder: pathlib.Path, at: str, nodes: dict, step: str = "full_recovery", **about) -> pathlib.Path:
    report = run_report(
        nodes, **{"config": "hex8_2p", "outcome": "x", "step": step, "check_mode": False, **about, "at": at}
    )
    path = folder / f"{at.replace('-', '').replace(':', '')}-{report['config']}.json"
    path.write_text(json.dumps(report))
    return path


def test_the_newest_that_replaced_anything(tmp_path):
    published = {"a": {"prepare_data_published": PUBLISHED}}
    keep(tmp_path, "2026-11-26T00:00:00Z", published, run="older")
    keep(tmp_path, "2026-11-27T00:00:00Z", published, run="newer")
    keep(tmp_path, "2026-11-28T00:00:00Z", {"a": {}}, run="nothing")
    put_back = {
        "path": NPZ,
        "state": "put_back",
        "kind": DATA,
        "sha256": OLD,
        "replaced": NEW,
        "kept": f"{NPZ}.previous",
    }
    undo = {"a": {"rollback_done": {"changed": True, "files": [put_back]}}}
    keep(tmp_path, "2026-11-29T00:00:00Z", undo, "rollback", run="undo")
    (tmp_path / "20261130T000000Z-hex8_2p.json").write_text("{")
    (tmp_path / "20261130T000000Z-hex8_2p-diagnosis.json").write_text("{}")
    keep(tmp_path, "2026-11-30T00:00:01Z", published, config="square8_2p")
    found = find(str(tmp_path), "hex8_2p")
    assert (found.id, found.nodes) == ("newer", {"a": (Replaced(NPZ, DATA, OLD, NEW, f"{NPZ}.previous"),)})
    assert find(str(tmp_path), "hex8_2p", "older").id == "older"
    assert find(str(tmp_path), "hex8_2p", "20261126T000000Z-hex8_2p").id == "older"
    assert find(str(tmp_path), "hex8_2p", str(tmp_path / "20261126T000000Z-hex8_2p.json")).id == "older"
    assert find(str(tmp_path), "hex8_2p", "nothing").replaced_any is False
    # An undo is undone by its own name.
    assert find(str(tmp_path), "hex8_2p", "undo").nodes["a"] == (Replaced(NPZ, DATA, NEW, OLD, f"{NPZ}.previous"),)


def of(node: dict) -> tuple:
    steps = run_report({"a": node}, config="c", outcome="x")
    return _replaced_files._merged(_replaced_files._of_node(steps["nodes"]["a"]))


def test_what_is_taken_from_each_step(tmp_path):
    assert of({"restart_training_checkpoint": RESTORED}) == (
        Replaced(MODEL, CHECKPOINT, OLD, NEW, f"{MODEL}.previous"),
    )
    damaged = {**RESTORED, "previous": None, "quarantined": [ASIDE]}
    assert of({"restart_training_checkpoint": damaged}) == (
        Replaced(MODEL, CHECKPOINT, OLD, NEW, ASIDE["to"], "crc_mismatch: x"),
    )
    bad = {**PUBLISHED, "replaced": {**GOOD, "valid": False, "problem": "truncated"}}
    assert of({"prepare_data_published": bad})[0].problem == "truncated"
    path = keep(tmp_path, "2026-11-26T00:00:00Z", {"a": {"prepare_data_export": EXPORTED}})
    assert read(str(path), "hex8_2p").coordinator == (Replaced(NPZ, DATA, OLD, NEW, f"{NPZ}.previous", "cut off"),)


def test_where_nothing_was_replaced_there_is_nothing_to_put_back():
    none = {**RESTORED, "previous": None, "replaced": None}
    assert of({"restart_training_checkpoint": none}) == ()
    assert of({"restart_training_checkpoint": {**none, "restored": False}}) == ()
    assert of({"prepare_data_published": {**PUBLISHED, "replaced": None}}) == ()
    assert of({"prepare_data_published": {**PUBLISHED, "replaced": None, "previous": None}}) == ()
    assert of({"prepare_data_published": {**PUBLISHED, "changed": False}}) == ()


def test_two_steps_on_one_file_are_one_change():
    """The first step moves the canonical model aside, the second puts another one there."""
    aside = {**ASIDE, "path": CANONICAL, "to": f"{CANONICAL}.corrupt-x"}
    first = {**RESTORED, "quarantined": [aside]}
    second = {**RESTORED, "checkpoint": {"path": CANONICAL, "sha256": OTHER}, "replaced": None, "previous": None}
    found = of({"restart_training_checkpoint": first, "restart_training_canonical_model": second})
    assert found[1] == Replaced(CANONICAL, CHECKPOINT, OLD, OTHER, f"{CANONICAL}.corrupt-x", "crc_mismatch: x")


def test_an_older_report_says_too_little():
    older = {key: value for key, value in RESTORED.items() if key not in ("previous", "replaced")}
    assert of({"restart_training_checkpoint": older}) == (Replaced(MODEL, CHECKPOINT, None, NEW, f"{MODEL}.previous"),)
    older = {key: value for key, value in PUBLISHED.items() if key != "replaced"}
    assert of({"prepare_data_published": older}) == (Replaced(NPZ, DATA, None, NEW, f"{NPZ}.previous"),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "it is not JSON"),
        ("[]", "no report of a run"),
        ('{"schema": 1, "nodes": {}, "config": "square8_2p"}', "'square8_2p', and not on hex8_2p"),
        ('{"schema": 1, "nodes": {}, "config": "hex8_2p", "check_mode": true}', "dry run"),
    ],
)
def test_a_file_that_is_no_report_of_a_run(tmp_path, content, words):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(RecoveryError, match=words):
        find(str(tmp_path), "hex8_2p", str(path))


def test_without_a_report_it_says_how_to_go_on(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        for run in (None, "20261128T104027Z-5f2c"):
            with pytest.raises(RecoveryError, match="-e run=FILE. Nothing was touched") as caught:
                find(str(folder), "hex8_2p", run)
            assert (run or "no reports of hex8_2p") in str(caught.value)
    with pytest.raises(RecoveryError, match="does not exist"):
        find(str(tmp_path), "hex8_2p", str(tmp_path / "x.json"))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*PUBLISHED, *RESTORED]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_garbage_in_a_report_is_no_file(tmp_path, data):
    nodes = {
        "a": {"prepare_data_published": PUBLISHED, "restart_training_checkpoint": {**RESTORED, "quarantined": [ASIDE]}}
    }
    report = json.loads(keep(tmp_path, "2026-11-26T00:00:00Z", copy.deepcopy(nodes)).read_text())
    step = data.draw(st.sampled_from([*report["nodes"]["a"].values()]))
    step[data.draw(st.sampled_from(list(step)))] = data.draw(JUNK)
    (tmp_path / "x.json").write_text(json.dumps(report))
    found = read(str(tmp_path / "x.json"), "hex8_2p")
    for entry in found.nodes.get("a", ()):
        assert all(value is None or isinstance(value, str) for value in vars(entry).values())


def test_what_the_report_says_of_a_rollback():
    put_back = {"path": "/p", "state": "put_back", "source": "/p.previous", "kept": "/p.previous"}
    files = [
        put_back,
        {"path": "/q", "state": "refused", "reason": "it has changed"},
        {"path": "/r", "state": "left", "reason": "it is damaged"},
        {"path": "/s", "state": "already", "reason": "it is put back already"},
    ]
    node = {
        "rollback_done": {"changed": True, "files": files},
        "rollback_found": {"changed": False, "id": "one", "report": "/x", "at": "then", "left_out": ["gone"]},
        "rollback_coordinator_done": {"failed": True, "msg": "no answer"},
    }
    assert report_lines(run_report({"a": node}, config="c", outcome="x"))[1:] == [
        "a: put back /p; what was there is kept as /p.previous",
        "a: NOT PUT BACK /q: it has changed",
        "a: left /r: it is damaged",
        "fleet: what the run one of then replaced",
        "fleet: left out: gone, which is not among the nodes of this run",
        "fleet: rollback_coordinator FAILED: no answer",
    ]
    planned = report_lines(run_report({"a": node}, config="c", outcome="x", check_mode=True))
    assert planned[1] == "a: would put back /p; what was there would be kept as /p.previous"
