# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens to the training events, asked of real servers and compared with what the real service answered."""

from __future__ import annotations

import json
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _event_wiring
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._event_wiring import look, understand
from ansible_collections.ringrift.recovery.plugins.module_utils._http import Answer
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.p2p_servers import Scripted, StandIn, free_port

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from([*_event_wiring.EVENTS, "training_completed", "Training_Started"])


def entry(count, *handlers):
    return {"count": count, "handlers": list(handlers)}


def page(**subscriptions):
    return {"router": {"available": True}, "all_subscriptions": subscriptions}


WHOLE = {"TRAINING_STARTED": entry(2, "a", "b"), "TRAINING_COMPLETED": entry(1, "c")}


@pytest.fixture
def server():
    scripted = Scripted()
    yield scripted
    scripted.close()


def ask(server, answer, timeout=2.0):
    server.answers["GET", "/subscriptions"] = answer
    return look(server.url, timeout)


@pytest.mark.parametrize("capture", ["head_leader_gpu_subscriptions", "dec28_leader_gpu_subscriptions"])
def test_a_healthy_real_service_is_wired(server, real, capture):
    seen = ask(server, (200, json.loads((real / "http" / f"{capture}.json").read_text())["response"]))
    assert (seen.verdict, seen.reachable, seen.reason) == ("wired", True, None)
    assert seen.as_dict()["events"] == {
        "TRAINING_STARTED": {"subscribers": 2, "handlers": ["handle_training_started", "_on_training_started"]},
        "TRAINING_COMPLETED": {"subscribers": 1, "handlers": ["handle_training_completed"]},
        "TRAINING_FAILED": {"subscribers": 0, "handlers": []},
    }
    # Its own summary calls six critical events missing; nobody of ours believes it.
    assert seen.as_dict()["missing"] == ["TRAINING_FAILED"]


def test_a_real_service_that_lost_its_handler_is_not(server, real):
    body = json.loads((real / "http" / "head_leader_gpu_subscriptions.json").read_text())["response"]
    del body["all_subscriptions"]["TRAINING_COMPLETED"]
    assert ask(server, (200, body)).verdict == "unwired"


@pytest.mark.skipif("sys.version_info < (3, 9)", reason="the lab is for the Pythons of controllers")
def test_the_stand_in_loses_its_subscribers_and_a_restart_brings_them_back(tmp_path):
    node = StandIn(tmp_path / "node", RINGRIFT_IS_COORDINATOR="true").ready()
    try:
        assert look(node.url).verdict == "wired"
        lost = node.root / "data" / "lab" / "p2p_unwired.json"
        lost.parent.mkdir(parents=True, exist_ok=True)
        lost.write_text('["TRAINING_COMPLETED"]')
        seen = look(node.url)
        assert (seen.verdict, seen.missing) == ("unwired", ("TRAINING_COMPLETED", "TRAINING_FAILED"))
    finally:
        node.stop()


@pytest.mark.parametrize(
    ("subscriptions", "verdict", "missing"),
    [
        (WHOLE, "wired", ["TRAINING_FAILED"]),
        ({**WHOLE, "TRAINING_FAILED": entry(1)}, "wired", []),
        ({"training_started": entry(1), "training_completed": entry(1)}, "wired", ["TRAINING_FAILED"]),
        ({**WHOLE, "TRAINING_COMPLETED": entry(0), "training_completed": entry(1)}, "wired", ["TRAINING_FAILED"]),
        ({**WHOLE, "TRAINING_COMPLETED": entry(0)}, "unwired", ["TRAINING_COMPLETED", "TRAINING_FAILED"]),
        ({}, "unwired", list(_event_wiring.EVENTS)),
        ({**WHOLE, "TRAINING_COMPLETED": {}}, "unknown", ["TRAINING_FAILED"]),
        ({**WHOLE, "TRAINING_COMPLETED": entry("many")}, "unknown", ["TRAINING_FAILED"]),
        ({**WHOLE, "TRAINING_COMPLETED": entry(True)}, "unknown", ["TRAINING_FAILED"]),
        ({**WHOLE, "TRAINING_COMPLETED": entry(-1)}, "unknown", ["TRAINING_FAILED"]),
        ({"TRAINING_STARTED": None}, "unwired", ["TRAINING_COMPLETED", "TRAINING_FAILED"]),
    ],
)
def test_the_verdict(server, subscriptions, verdict, missing):
    seen = ask(server, (200, page(**subscriptions))).as_dict()
    assert (seen["verdict"], seen["missing"]) == (verdict, missing)
    assert (seen["reason"] is None) == (verdict != "unknown" and subscriptions != {"TRAINING_STARTED": None})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, "404: Not Found"), "has no /subscriptions"),
        ((401, {"error": "unauthorized"}), "401: unauthorized"),
        ((500, {"error": "boom\x1b[31m"}), "500: boom\ufffd"),
        ((200, "<html>"), "no all_subscriptions"),
        ((200, {"all_subscriptions": []}), "no all_subscriptions"),
        ((200, {"router": {"available": False}, "all_subscriptions": {}}), "could not ask its event router"),
        ((200, {"router": {"available": True, "error": "no loop"}, "all_subscriptions": {}}), "router: no loop"),
        ((200, b"x" * (5 << 20)), "longer than"),
        ((302, {}, {"Location": "http://127.0.0.1:1/"}), "302"),
    ],
)
def test_what_is_no_answer_is_unknown_and_says_why(server, answer, reason):
    seen = ask(server, answer)
    assert (seen.reachable, seen.verdict, seen.missing) == (True, "unknown", ())
    assert reason in seen.reason
    assert seen.as_dict()["events"]["TRAINING_COMPLETED"] == {"subscribers": None, "handlers": []}


@pytest.mark.parametrize("answer", ["silence", "drip", b"\x00\xff\r\n\r\n"])
def test_a_server_that_hangs_costs_its_timeout(server, answer):
    begun = time.monotonic()
    seen = ask(server, answer, timeout=0.4)
    assert (seen.verdict, bool(seen.reason)) == ("unknown", True)
    assert time.monotonic() - begun < 3


def test_nobody_there_is_unknown():
    seen = look(f"http://127.0.0.1:{free_port()}")
    assert (seen.reachable, seen.verdict, seen.reason) == (False, "unknown", "connection refused")


def test_a_url_that_is_none_is_refused():
    with pytest.raises(RecoveryError, match="not an http or https URL"):
        look("ftp://x")


def test_many_handlers_with_long_names_are_cut(server):
    seen = ask(server, (200, page(**{**WHOLE, "TRAINING_COMPLETED": entry(500, *(["x" * 5000] * 500))})))
    found = seen.events["TRAINING_COMPLETED"]
    assert (found.subscribers, len(found.handlers), len(found.handlers[0])) == (500, 20, 100)


@given(body=ANY, status=st.sampled_from([200, 404, 500]), entries=st.dictionaries(NAMES, ANY, max_size=3))
@settings(max_examples=200, deadline=None)
def test_no_answer_breaks_it_and_none_is_wired_without_a_count(body, status, entries):
    for said in (body, {"all_subscriptions": body}, {"all_subscriptions": entries}):
        seen = understand("http://x", Answer("s", "GET", "/subscriptions", status, said))
        json.dumps(seen.as_dict())
        if seen.verdict == "wired":
            assert all(seen.events[name].subscribers > 0 for name in _event_wiring.NEEDED)
        if seen.verdict == "unknown":
            assert seen.reason
