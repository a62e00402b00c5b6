# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _http
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._http import (
    Request,
    check_url,
    decode,
    join_host,
    parse,
    parse_requests,
    send,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.p2p_servers import Scripted, free_port


@pytest.fixture
def server():
    scripted = Scripted()
    yield scripted
    scripted.close()


def get(server, path="/x", **options):
    (answer,) = send(server.url, [Request("x", "GET", path)], **options)
    return answer


def test_an_answer_has_status_and_parsed_body(server):
    server.answers["GET", "/x"] = (200, {"healthy": True, "n": [1, 2.5, None]})
    answer = get(server)
    assert (answer.status, answer.error, answer.ok) == (200, None, True)
    assert answer.body == {"healthy": True, "n": [1, 2.5, None]}
    assert set(answer.as_dict()) == {"name", "method", "path", "status", "body", "error", "seconds", "skipped"}


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 429, 500, 503])
def test_an_error_status_is_an_answer(server, status):
    server.answers["GET", "/x"] = (status, {"error": "because"}, {"Location": "/elsewhere"})
    answer = get(server)
    assert (answer.status, answer.body, answer.error, answer.ok) == (status, {"error": "because"}, None, False)
    assert [path for _method, path, _headers, _body in server.seen] == ["/x"]


def test_a_redirect_takes_the_token_nowhere(server):
    other = Scripted({("GET", "/x"): (200, {})})
    server.answers["GET", "/x"] = (307, {}, {"Location": f"{other.url}/x"})
    try:
        assert get(server, token="s3cret").status == 307
        assert not other.seen
    finally:
        other.close()


def test_no_proxy_is_used(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    server.answers["GET", "/x"] = (200, {})
    assert get(server).ok


def test_bodies_and_token_are_sent(server):
    server.answers["POST", "/x"] = (200, {})
    requests = [Request("a", "POST", "/x", {"job_id": "é"}), Request("b", "POST", "/x")]
    assert all(answer.ok for answer in send(server.url, requests, token="s3cret"))
    (_m, _p, headers, body), (_m2, _p2, _headers2, empty) = server.seen
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["Content-Type"] == "application/json"
    assert (body, empty) == ({"job_id": "é"}, None)


def test_refused_is_data():
    (answer,) = send(f"http://127.0.0.1:{free_port()}", [Request("x", "GET", "/x")])
    assert (answer.status, answer.body, answer.error) == (None, None, "connection refused")


def test_an_unknown_name_is_data():
    (answer,) = send("http://no-such-host.invalid", [Request("x", "GET", "/x")], timeout=5)
    assert answer.status is None
    assert answer.error


@pytest.mark.parametrize("word", ["silence", "drip"])
def test_a_server_that_never_ends_costs_the_timeout(server, word):
    server.answers["GET", "/x"] = word
    started = time.monotonic()
    answer = get(server, timeout=0.4)
    assert time.monotonic() - started < 2
    assert answer.error == "no whole answer within 0.4 s"


def test_neighbouring_gets_go_side_by_side(server):
    server.answers["GET", "/x"] = lambda body: time.sleep(0.3) or (200, {})
    started = time.monotonic()
    assert all(answer.ok for answer in send(server.url, [Request(str(n), "GET", "/x") for n in range(8)]))
    assert time.monotonic() - started < 1.5


def test_the_deadline_ends_the_list(server):
    server.answers["POST", "/x"] = "silence"
    answers = send(server.url, [Request(str(n), "POST", "/x") for n in range(4)], timeout=0.3, deadline=0.5)
    assert [answer.error for answer in answers[2:]] == ["not sent: the deadline of 0.5 s had passed"] * 2
    assert len(server.seen) <= 2


def test_posts_keep_their_order_between_gets(server):
    server.answers.update({("GET", "/x"): (200, {}), ("POST", "/x"): (200, {})})
    methods = ["GET", "GET", "POST", "POST", "GET"]
    answers = send(server.url, [Request(str(n), method, "/x") for n, method in enumerate(methods)])
    assert [answer.name for answer in answers] == ["0", "1", "2", "3", "4"]
    assert [method for method, _path, _headers, _body in server.seen] == methods


def test_a_dry_run_sends_gets_only(server):
    server.answers["GET", "/x"] = (200, {})
    first, second = send(server.url, [Request("a", "POST", "/x", {}), Request("b", "GET", "/x")], dry_run=True)
    assert (first.status, first.skipped, first.error) == (None, True, None)
    assert second.ok
    assert server.sent("POST") == []


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"", "closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "broke off after 2 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "broke off after 0 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n", "not HTTP"),
    ],
)
def test_broken_http_is_data(server, raw, word):
    server.answers["GET", "/x"] = raw
    answer = get(server)
    assert word is None or word in answer.error
    assert answer.error is None or len(answer.error) <= _http.ERROR_LIMIT


def test_a_long_answer_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(_http, "BODY_LIMIT", 1000)
    server.answers["GET", "/x"] = (200, "x" * 1001)
    answer = get(server)
    assert (answer.status, answer.body, answer.error) == (200, None, "the answer is longer than 1000 bytes")


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"", None),
        (b"404: Not Found", "404: Not Found"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 5000, "x" * 2000),
        (b'{"a": NaN, "b": Infinity, "c": 1e999}', {"a": None, "b": None, "c": None}),
        (b'{"a": "\\ud800"}', {"a": "?"}),
        (b"[" * 100000, "[" * 2000),
        (b"[" * 60 + b"]" * 60, "[" * 60 + "]" * 60),
        (b"9" * 6000, "9" * 2000),
    ],
)
def test_bodies_are_bounded(raw, body):
    assert decode(raw) == body


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_become_json_or_text(raw):
    json.dumps(decode(raw), allow_nan=False).encode()


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_comes_back_as_it_was(value):
    text = json.dumps(value)
    assert decode(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:8770", "http://localhost:8770"),
        ("http://localhost:8770/", "http://localhost:8770"),
        ("https://p2p.example.org/api/", "https://p2p.example.org/api"),
        ("http://[::1]:8770", "http://[::1]:8770"),
    ],
)
def test_urls(url, base):
    assert check_url(url) == base


@pytest.mark.parametrize(
    "url",
    [
        "",
        None,
        "localhost:8770",
        "file:///etc/passwd",
        "ftp://host",
        "http://",
        "http://user:secret@host:1",
        "http://host:99999",
        "http://host:0",
        "http://host:port",
        "http://host/?q=1",
        "http://ho st",
        "http://host/a b",
        "http://host\r\nX: y",
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(RecoveryError, match="such as http://localhost:8770"):
        check_url(url)


def test_a_refused_url_does_not_show_its_password():
    with pytest.raises(RecoveryError) as caught:
        check_url("http://user:secret@host:1")
    assert "secret" not in str(caught.value)


def test_a_token_that_no_header_takes_is_refused_and_not_shown():
    with pytest.raises(RecoveryError) as caught:
        send("http://localhost", [Request("x", "GET", "/x")], token="s3\r\ncret")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "item",
    [
        {"method": "TRACE", "path": "/"},
        {"method": "GET", "path": "status"},
        {"method": "GET", "path": "/a b"},
        {"method": "GET", "path": "/\r\nHost: x"},
    ],
)
def test_other_requests_are_refused(item):
    with pytest.raises(RecoveryError, match="Request"):
        parse_requests([item])


def test_too_many_requests_are_refused():
    with pytest.raises(RecoveryError, match="257 requests are more than the limit of 256"):
        parse_requests([{"method": "GET", "path": "/"}] * 257)


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        (("10.0.0.1", 8770), "http://10.0.0.1:8770"),
        (("fd00::1", 8770, "https"), "https://[fd00::1]:8770"),
        (("nebius-h100-3", 1), "http://nebius-h100-3:1"),
        (("evil@host", 1), None),
        (("host/path", 1), None),
        (("host:1", 1), None),
        (("", 1), None),
        ((None, 1), None),
        (("host", "8770"), None),
        (("host", 0), None),
        (("host", True), None),
        (("host", 1, "file"), None),
    ],
)
def test_a_url_out_of_an_answer(parts, url):
    assert join_host(*parts) == url


def test_a_caller_can_read_the_bytes_and_allow_more_or_less_of_them(server):
    server.answers["GET", "/x"] = (200, b"\xff" * 50)
    assert get(server, reader=bytes).body == b"\xff" * 50
    assert get(server, reader=bytes, limit=50).error is None
    cut = get(server, reader=bytes, limit=49)
    assert (cut.body, cut.error) == (None, "the answer is longer than 49 bytes")


def test_a_key_that_stands_twice_is_refused_where_that_matters():
    assert parse('{"a": 1, "a": 2}') == {"a": 2}
    for text in ('{"a": 1, "a": 2}', '[{"b": {"a": 1, "a": 1}}]', '{"\\ud800": 1, "\\ud801": 2}'):
        with pytest.raises(ValueError, match="twice"):
            parse(text, unique=True)
    assert parse('{"a": [{"a": 1}, {"a": NaN}]}', unique=True) == {"a": [{"a": 1}, {"a": None}]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"token_headers": ("X Y",)}, "cannot go into the header"),
        ({"headers": {"X-Trace": "a\r\nX-Other: b"}}, "The header X-Trace has characters"),
        ({"timeout": 0.0}, "must be above 0"),
        ({"deadline": -1.0}, "must be above 0"),
    ],
)
def test_what_no_request_can_carry_is_refused_before_any_is_sent(server, options, words):
    with pytest.raises(RecoveryError, match=words):
        get(server, **options)
    assert server.seen == []
