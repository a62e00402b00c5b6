# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemons' health page, on IPv6 as the real one, and whatever else may answer there."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from http.server import ThreadingHTTPServer

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _service_daemons
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._http import Answer
from ansible_collections.ringrift.recovery.plugins.module_utils._service_daemons import look, understand
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.p2p_servers import Scripted, free_port

UP = {name: {"state": "running", "auto_restart": True} for name in _service_daemons.NEEDED}
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


def page(running=True, **changes):
    daemons = {**UP, **{name: {"state": state} for name, state in changes.items()}}
    return 200, {"running": running, "daemon_count": 122, "daemons": daemons}


@pytest.fixture
def server():
    scripted = Scripted()
    yield scripted
    scripted.close()


def ask(server, answer, timeout=2.0):
    server.answers["GET", "/status"] = answer
    return look(server.url, timeout)


class Ipv6Only(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()


def test_localhost_finds_a_page_on_ipv6_only(server):
    server.answers["GET", "/status"] = page()
    try:
        listener = Ipv6Only(("::1", 0), server.server.RequestHandlerClass)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    port = listener.server_address[1]
    try:
        assert look(f"http://localhost:{port}").up
        assert look(f"http://127.0.0.1:{port}").reason == "connection refused"
    finally:
        listener.shutdown()
        listener.server_close()


def test_localhost_finds_a_page_on_ipv4_too(server):
    server.answers["GET", "/status"] = page()
    seen = look(server.url.replace("127.0.0.1", "localhost"))
    assert (seen.up, seen.url) == (True, server.url.replace("127.0.0.1", "localhost"))


def test_a_name_that_leads_to_one_address_only_is_helped(server, monkeypatch):
    """As where /etc/hosts has localhost for IPv6 only, and the page is on IPv4."""
    server.answers["GET", "/status"] = page()
    whole = socket.getaddrinfo

    def one_sided(host, *more, **named):
        return whole("::1" if host == "localhost" else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", one_sided)
    assert look(server.url.replace("127.0.0.1", "localhost")).up


def test_the_real_page_is_understood(real):
    """The capture shows the beginning of it, the event router among it."""
    text = (real / "daemons_head.txt").read_text()
    start = re.search(r'^/status: (\{"running": true, "daemon_count": 122, .*)$', text, re.MULTILINE).group(1)
    body = json.loads(start[: start.rindex("}") + 1] + "}}")
    seen = understand("http://localhost:8790", Answer("s", "GET", "/status", 200, body))
    assert (seen.running, seen.reason) == (True, None)
    assert (seen.daemons["sync_coordinator"], seen.daemons["auto_sync"]) == ("running", "stopped")


@pytest.mark.parametrize(
    ("answer", "down"),
    [
        (page(), []),
        (page(event_router="stopped"), ["event_router"]),
        (page(feedback_loop="failed", data_pipeline="starting"), ["feedback_loop", "data_pipeline"]),
        (page(event_router=None), ["event_router"]),
        (page(running=False), list(_service_daemons.NEEDED)),
        (page(running=None), []),
        ((200, {"running": True, "daemons": {}}), list(_service_daemons.NEEDED)),
        ((200, {"daemons": {name.upper(): "RUNNING" for name in UP}}), []),
    ],
)
def test_who_is_down(server, answer, down):
    seen = ask(server, answer)
    assert seen.as_dict()["down"] == down
    assert seen.up == (not down)
    assert set(seen.as_dict()) == {"url", "reachable", "reason", "running", "daemons", "down"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, "404: Not Found"), "answered 404"),
        ((500, {"daemons": UP}), "answered 500"),
        ((200, "ok"), "lists no daemons"),
        ((200, {"node_id": "x", "jobs": []}), "lists no daemons"),
        ((200, {"daemons": ["event_router"]}), "lists no daemons"),
        ((200, b"[" * 100000), "lists no daemons"),
        ((200, b"x" * (5 << 20)), "longer than"),
    ],
)
def test_what_is_not_the_health_page_is_unknown_and_never_up(server, answer, reason):
    seen = ask(server, answer)
    assert (seen.reachable, seen.up, seen.down) == (True, False, ())
    assert reason in seen.reason


@pytest.mark.parametrize("answer", ["silence", "drip"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_that_hangs_costs_its_timeout(server, answer, host):
    server.answers["GET", "/status"] = answer
    begun = time.monotonic()
    seen = look(server.url.replace("127.0.0.1", host), timeout=0.4)
    assert not seen.up
    assert seen.reason
    assert time.monotonic() - begun < 2


def test_nobody_there_is_unknown():
    seen = look(f"http://localhost:{free_port()}", 2.0)
    assert (seen.reachable, seen.up, seen.down, seen.reason) == (False, False, (), "connection refused")


@pytest.mark.parametrize(("url", "timeout"), [("localhost:8790", 1), ("http://x:0", 1), ("http://localhost:1", 0)])
def test_what_cannot_be_used_is_refused(url, timeout):
    with pytest.raises(RecoveryError):
        look(url, timeout)


def test_a_flood_of_daemons_hides_none_that_is_needed(server):
    flood = {f"d{number:05}": {"state": "running"} for number in range(3000)}
    seen = ask(server, (200, {"running": True, "daemons": {**flood, **UP}}))
    assert (seen.up, len(seen.daemons)) == (True, 1000)


@given(body=ANY, daemons=st.dictionaries(st.sampled_from([*UP, "x", "EVENT_ROUTER"]), ANY, max_size=4))
@settings(max_examples=200, deadline=None)
def test_no_answer_breaks_it_and_none_is_up_without_all_three(body, daemons):
    for said in (body, {"daemons": body}, {"running": True, "daemons": daemons}):
        seen = understand("http://x", Answer("s", "GET", "/status", 200, said))
        json.dumps(seen.as_dict())
        if seen.up:
            assert all(seen.daemons[name] == "running" for name in _service_daemons.NEEDED)
