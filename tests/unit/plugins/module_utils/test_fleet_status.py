# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._fleet_status import (
    KEPT,
    NAME_LIMIT,
    NODES_LIMIT,
    PATH,
    NoStatusError,
    fetch,
    read_page,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.fleet_samples import GH200, captured, page, peer
from tests.unit.p2p_servers import Scripted, free_port

NOW = 1795471020.0
TOKEN = "s3cret-token"


@pytest.fixture
def server():
    scripted = Scripted()
    yield scripted
    scripted.close()


def ask(server, answer=None, **options):
    if answer is not None:
        server.answers["GET", "/status"] = answer
    url, status = fetch([server.url], **{"token": None, "timeout": 5, **options})
    assert url == server.url
    return status


@pytest.mark.parametrize("version", ["head", "dec28"])
def test_a_captured_answer_is_read(server, version):
    status = ask(server, (200, captured(version)))
    assert (status.node, status.leader, list(status.peers)) == ("testnode", "testnode", ["testnode"])
    node = status.peers["testnode"]
    assert (node.answered, node.alive, node.age) == (True, True, 0.0)
    assert node.facts["gpu_name"] == "NVIDIA H100 80GB HBM3"
    assert node.facts["memory_gb"] == 23
    assert node.facts["has_gpu"] is True
    assert server.seen[0][:2] == ("GET", PATH)


def test_the_silent_peers_are_asked_for_too():
    assert "alive_only=false" in PATH


def test_peers_that_only_all_peers_has_are_there():
    told = page(peer("a"), peer("b", age=9000, is_alive=False))
    del told["peers"]["b"]
    status = read_page(told)
    assert sorted(status.peers) == ["a", "b", "coordinator-1"]
    assert (status.peers["b"].alive, status.peers["b"].age) == (False, 9000)


def test_the_orchestrator_that_answers_is_no_peer_of_its_own():
    status = read_page(page(peer("a"), peer("coordinator-1", is_alive=False)))
    assert status.peers["coordinator-1"].answered
    assert status.peers["coordinator-1"].alive


def test_a_peer_that_stands_under_its_address_has_the_name_of_the_node():
    status = read_page(page(peers={"100.64.0.9:8770": peer("vast-9")}, all_peers={}))
    assert sorted(status.peers) == ["coordinator-1", "vast-9"]


@pytest.mark.parametrize(
    ("row", "alive", "age"),
    [
        ({"is_alive": "yes"}, None, 3.0),
        ({"is_alive": None}, None, 3.0),
        ({"seconds_since_heartbeat": -5}, True, None),
        ({"seconds_since_heartbeat": "3"}, True, None),
        ({"seconds_since_heartbeat": True}, True, None),
        ({"seconds_since_heartbeat": None}, True, None),
    ],
)
def test_what_a_peer_does_not_say_well_is_not_known(row, alive, age):
    found = read_page(page(peer("a", **row))).peers["a"]
    assert (found.alive, found.age) == (alive, age)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "its status is missing"),
        ([], "its status is a list and not an object"),
        ("text", "its status is a text"),
        ({"peers": None}, "peers in its status is missing"),
        ({"peers": ["a"]}, "peers in its status is a list"),
        ({"self": None}, "self in its status is missing"),
        ({"self": "coordinator-1"}, "self in its status is a text"),
        ({"all_peers": 3}, "all_peers in its status is a number"),
        ({"peers": {"a": None}}, "its peer 'a' is missing and not an object"),
        ({"peers": {"a": [1]}}, "its peer 'a' is a list and not an object"),
        ({"peers": {" ": {}}}, "a peer with the name ' '"),
        ({"peers": {"a" * (NAME_LIMIT + 1): {}}}, "a peer with the name 'aaaaa"),
        ({"node_id": None, "self": {}}, "does not say which node it is"),
        ({"node_id": {"a": 1}, "self": {}}, "does not say which node it is"),
        ({"peers": {str(number): {} for number in range(NODES_LIMIT + 1)}}, "more than 10000 are not believed"),
    ],
)
def test_another_shape_is_an_error_that_names_it(change, message):
    told = {**page(), **change} if isinstance(change, dict) else change
    with pytest.raises(RecoveryError, match=message) as caught:
        read_page(told)
    assert "Check the url" in str(caught.value)


@pytest.mark.parametrize(
    "peers",
    [
        {"a": peer("vast-9"), "100.64.0.9:8770": peer("vast-9")},
        {"100.64.0.2:8770": peer("coordinator-1")},
    ],
)
def test_a_node_under_two_names_is_an_error(peers):
    with pytest.raises(RecoveryError, match="lists the node '.*' 2 times, as .*'100.64.0.[29]:8770'"):
        read_page(page(peers=peers, all_peers={}))


def test_a_key_that_stands_twice_is_an_error(server):
    text = json.dumps(page(peer("a"), peer("b"))).replace('"b": {', '"a": {', 1)
    with pytest.raises(NoStatusError, match="did not answer with JSON: it has 'a' twice"):
        ask(server, (200, text))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, "<!DOCTYPE html><html>login</html>"), "answered with HTML: something else listens there"),
        ((200, ""), "answered with nothing"),
        ((200, "{"), "did not answer with JSON"),
        ((200, "ok"), "did not answer with JSON"),
        ((200, b"\xff\xfe\x00"), "did not answer with JSON"),
        ((200, "[" * 100000), "did not answer with JSON: it is nested too deep"),
        ((200, "[" * 60 + "]" * 60), "did not answer with JSON: nested deeper than 40"),
        ((200, []), "answered, but its status is a list"),
        ((301, {}, {"Location": "/other"}), "answered HTTP 301. Redirects are not followed"),
        ((401, {"error": "unauthorized"}), r"answered HTTP 401 \(unauthorized\). Set token"),
        ((403, "no"), "answered HTTP 403. Set token"),
        ((404, "404: Not Found"), "answered HTTP 404. Something else listens there"),
        ((500, {"error": "boom"}), r"answered HTTP 500 \(boom\). See its log"),
        ((503, page()), "answered HTTP 503. See its log"),
        (
            b"HTTP/1.0 200 OK\r\nContent-Length: 9000\r\n\r\n{}",
            "gave no whole answer: the answer broke off after 2 bytes",
        ),
        (b"nonsense\r\n\r\n", "gave no answer: the answer is not HTTP"),
        (b"", "gave no answer: the connection was closed"),
    ],
)
def test_a_broken_answer_is_an_error_with_its_reason_and_the_next_step(server, answer, message):
    with pytest.raises(NoStatusError, match=message) as caught:
        ask(server, answer)
    assert server.url in str(caught.value)


@pytest.mark.parametrize("answer", ["silence", "drip"])
def test_a_server_that_never_ends_costs_its_timeout(server, answer):
    with pytest.raises(NoStatusError, match="no whole answer within 0.3 s"):
        ask(server, answer, timeout=0.3)


def test_a_server_that_refuses_is_an_error():
    with pytest.raises(NoStatusError, match="connection refused. Start it, or give the url of another node"):
        fetch([f"http://127.0.0.1:{free_port()}"], None, 5)


def test_an_answer_without_end_is_cut_off(server, monkeypatch):
    from ansible_collections.ringrift.recovery.plugins.module_utils import _fleet_status

    monkeypatch.setattr(_fleet_status, "BYTES_LIMIT", 1000)
    with pytest.raises(NoStatusError, match="gave no whole answer: the answer is longer than 1000 bytes"):
        ask(server, (200, page()))


def test_the_next_url_is_asked_and_all_reasons_are_told(server):
    dead = f"http://127.0.0.1:{free_port()}"
    server.answers["GET", "/status"] = (200, page())
    url, status = fetch([dead, server.url], None, 5)
    assert (url, status.node) == (server.url, "coordinator-1")
    server.answers["GET", "/status"] = (500, {})
    with pytest.raises(NoStatusError, match=f"{dead} gave no answer.*{server.url} answered HTTP 500"):
        fetch([dead, server.url], None, 5)


def test_the_token_is_sent_and_never_told(server):
    ask(server, (200, page()), token=TOKEN)
    assert server.seen[0][2]["Authorization"] == f"Bearer {TOKEN}"
    with pytest.raises(NoStatusError) as caught:
        ask(server, (401, {"error": f"not Bearer {TOKEN}"}), token=TOKEN)
    assert TOKEN not in str(caught.value)
    assert "not Bearer ***" in str(caught.value)


def test_a_token_that_cannot_be_sent_is_no_matter_of_the_answer(server):
    with pytest.raises(RecoveryError, match="look for a space or a line break") as caught:
        ask(server, (200, page()), token="a\nb")
    assert not isinstance(caught.value, NoStatusError)
    assert not server.seen


def test_the_page_that_is_kept_is_read_to_the_same(server):
    told = page(peer("a", age=700, capabilities=["training", 3, None]), peer("b", GH200, retired=True))
    status = ask(server, (200, told))
    again = read_page(json.loads(json.dumps(status.page)))
    assert again == status
    assert set(status.page["peers"]["a"]) <= set(KEPT)
    assert again.peers["a"].facts["capabilities"] == ["training", "3"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
ROW = st.dictionaries(st.sampled_from(KEPT), JSON, max_size=8)


@settings(max_examples=200, deadline=None)
@given(JSON | st.fixed_dictionaries({"node_id": JSON, "self": ROW, "peers": st.dictionaries(st.text(), ROW)}))
@example({"node_id": 10**400, "self": {}, "peers": {}})
def test_any_answer_is_a_status_or_an_error_in_words(told):
    try:
        status = read_page(told)
    except RecoveryError:
        return
    assert status.node in status.peers
    for found in status.peers.values():
        assert found.alive in (True, False, None)
        assert found.age is None or found.age >= 0
        assert all(value is None or len(str(value)) < 20000 for value in found.facts.values())
