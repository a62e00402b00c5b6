# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import time

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.modules import p2p_request

from tests.unit.p2p_servers import Scripted, free_port


@pytest.fixture
def server():
    scripted = Scripted({("GET", "/x"): (200, {"n": 1}), ("POST", "/x"): (200, {"ok": True})})
    yield scripted
    scripted.close()


@pytest.fixture
def call(capsys):
    def run(**arguments):
        with patch_module_args(arguments), pytest.raises(SystemExit):
            p2p_request.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_answers_come_back_in_order(call, server):
    requests = [{"name": "a", "path": "/x"}, {"method": "POST", "path": "/x", "body": {"k": [1]}}, {"path": "/nothing"}]
    before = time.time()
    result = call(url=server.url, requests=requests)
    assert (result["changed"], result["url"]) == (True, server.url)
    assert before <= result["time"] <= time.time()
    assert [answer["name"] for answer in result["answers"]] == ["a", "POST /x", "GET /nothing"]
    assert [answer["status"] for answer in result["answers"]] == [200, 200, 404]
    assert result["answers"][2]["body"] == "404: Not Found"
    assert server.sent() == [("/x", {"k": [1]})]


def test_every_returned_key_is_documented(call, server):
    documented = yaml.safe_load(p2p_request.RETURN)
    result = call(url=server.url, requests=[{"path": "/x"}])
    assert set(result) - {"invocation"} == set(documented)
    assert set(result["answers"][0]) == set(documented["answers"]["contains"])


@pytest.mark.parametrize(("status", "changed"), [(200, True), (204, True), (301, False), (403, False), (500, False)])
def test_changed_is_a_post_with_a_2xx(call, server, status, changed):
    server.answers["POST", "/x"] = (status, "")
    assert call(url=server.url, requests=[{"method": "POST", "path": "/x"}])["changed"] is changed


def test_gets_change_nothing(call, server):
    assert call(url=server.url, requests=[{"path": "/x"}])["changed"] is False


def test_check_mode_sends_gets_only(call, server):
    requests = [{"method": "POST", "path": "/x"}, {"path": "/x"}]
    result = call(url=server.url, requests=requests, _ansible_check_mode=True)
    assert [(answer["status"], answer["skipped"]) for answer in result["answers"]] == [(None, True), (200, False)]
    assert result["changed"] is True
    assert server.sent() == []


def test_the_token_is_sent_and_never_returned(call, server):
    server.answers["GET", "/x"] = (200, {"echo": "Bearer s3cret-t0ken"})
    result = call(url=server.url, requests=[{"path": "/x"}], token="s3cret-t0ken")
    assert server.seen[0][2]["Authorization"] == "Bearer s3cret-t0ken"
    assert "s3cret-t0ken" not in json.dumps(result)


def test_an_unreachable_server_is_no_failure(call):
    result = call(url=f"http://127.0.0.1:{free_port()}", requests=[{"path": "/x"}])
    assert "failed" not in result
    assert result["answers"][0]["error"] == "connection refused"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": "file:///etc/passwd"}, "is not an http or https URL"),
        ({"requests": [{"path": "x"}]}, "a path begins with a slash"),
        ({"token": "a b"}, "The token has characters"),
        ({"timeout": 0}, "must be above 0"),
    ],
)
def test_what_cannot_be_tried_fails(call, server, arguments, words):
    result = call(**{"url": server.url, "requests": [{"path": "/x"}], **arguments})
    assert result["failed"]
    assert words in result["msg"]
    assert server.seen == []
