# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event source without ansible-rulebook: real requests to its listener, and a program that we give it to run."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import runpy
import time

import pytest
import yaml
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._stall_watch import Settings

from tests.unit.p2p_servers import free_port

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp comes with ansible-rulebook")

ROOT = pathlib.Path(__file__).resolve().parents[3]
EDA = ROOT / "playbooks/collections/ansible_collections/ringrift/recovery/extensions/eda"
PLUGIN = runpy.run_path(str(EDA / "plugins/event_source/stall.py"))
TOKEN = "a-token-of-the-tests"
STALLED = {
    "schema": 1, "config": "hex8_2p", "at": "2026-11-28T10:40:27Z", "stalled": True, "running": False,
    "headline": "hex8_2p: training is STALLED", "unknown": [], "nodes": [],
    "findings": [{"cause": "lock_held", "severity": "critical", "host": "h100", "summary": "held by a dead process"}],
}  # fmt: skip
# Writes the verdict of the file beside it to where diagnose.yml would, and what it was called with.
PROGRAM = """#!/bin/sh
here=$(dirname "$0")
for word in "$@"; do echo "$word" >>"$here/argv"; done
env >"$here/environment"
last=$(echo "$word" | sed 's/.*"ringrift_report_dir": "\\([^"]*\\)".*/\\1/')
[ ! -e "$here/hangs" ] || { sleep 300 & echo $! >"$here/child"; wait; }
[ ! -e "$here/verdict" ] || cp "$here/verdict" "$last/20261128T104027Z-hex8_2p-diagnosis.json"
echo 'fatal: [h100]: the coordinator cannot be {{ reached }}'
[ -e "$here/verdict" ]
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder in front of the path, with a program in the place of ansible-playbook."""
    program = tmp_path / "ansible-playbook"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("RINGRIFT_EDA_TOKEN", TOKEN)
    monkeypatch.setenv("RINGRIFT_P2P_TOKEN", "another-secret")
    return tmp_path


def watch(steps, **args):
    """Run the source beside a coroutine that is given the queue, until that has ended."""

    async def both():
        queue = asyncio.Queue()
        source = asyncio.create_task(PLUGIN["main"](queue, {"configs": ["hex8_2p"], **args}))
        story = asyncio.create_task(steps(queue))
        try:
            await asyncio.wait([source, story], timeout=30, return_when=asyncio.FIRST_COMPLETED)
            if source.done():
                source.result()
            return await asyncio.wait_for(story, 1)
        finally:
            for task in (source, story):
                task.cancel()
            await asyncio.gather(source, story, return_exceptions=True)

    return asyncio.run(both())


def test_a_stall_becomes_an_event_with_no_secret_in_it_or_in_the_arguments(tools):
    (tools / "verdict").write_text(json.dumps(STALLED))
    inventory = tools / "inventory"
    inventory.write_text("localhost\n")
    event = watch(
        lambda queue: queue.get(), inventory=str(inventory), recover_causes="lock_held", looks=1, stall_after=0
    )
    assert (event["kind"], event["config"], event["cause"], event["recover"]) == ("stall", "hex8_2p", "lock_held", True)
    assert pathlib.Path(event["playbooks"], "full_recovery.yml").is_file()
    argv = (tools / "argv").read_text().splitlines()
    assert argv[:3] == ["-i", str(inventory), f"{event['playbooks']}/diagnose.yml"]
    for place in (json.dumps(event), "\n".join(argv), (tools / "environment").read_text()):
        assert TOKEN not in place
        assert "another-secret" not in place


def test_a_diagnosis_that_cannot_be_made_is_unseen_and_its_words_are_no_template(tools):
    event = watch(lambda queue: queue.get(), unseen_after=0, confirm_after=1, diagnose_every=10, interval=1)
    assert (event["kind"], event["recover"]) == ("unseen", False)
    assert event["evidence"] == [
        "diagnose.yml gave no verdict (code 1): fatal: [h100]: the coordinator cannot be { { reached }}"
    ]


def test_a_diagnosis_that_hangs_ends_at_its_deadline_with_all_that_it_started(tools):
    (tools / "hangs").touch()
    begun = time.monotonic()

    async def steps(queue):
        event = await queue.get()
        return event, int((tools / "child").read_text())

    event, child = watch(steps, unseen_after=0, confirm_after=1, diagnose_every=10, interval=1, diagnose_timeout=2)
    assert event["evidence"] == ["diagnose.yml was not done within 2 s."]
    assert time.monotonic() - begun < 25
    assert not alive(child)


def test_what_ends_the_source_ends_its_diagnosis(tools):
    (tools / "hangs").touch()

    async def steps(_queue):
        while not (tools / "child").exists() or not (tools / "child").read_text().strip():
            await asyncio.sleep(0.05)
        return int((tools / "child").read_text())

    assert not alive(watch(steps))


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def post(url, body, token=TOKEN, **headers):
    """A request; the status and the answer."""

    async def ask():
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, (bytes, str)) else json.dumps(body)
        async with aiohttp.ClientSession() as session, session.post(url, data=data, headers=headers) as answer:
            return answer.status, await answer.text()

    return ask()


async def listening(port):
    while True:
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return f"http://127.0.0.1:{port}/alerts"


def firing(config):
    return {"alerts": [{"status": "firing", "labels": {"config": config}}]}


def test_the_listener_takes_an_alert_with_the_token_and_nothing_else(tools):
    moving = {**STALLED, "stalled": False, "running": True, "findings": []}
    (tools / "verdict").write_text(json.dumps(moving))
    port = free_port()

    async def steps(queue):
        url = await listening(port)
        refused = []
        for body, token, status in (
            (firing("hex8_2p"), None, 401),
            (firing("hex8_2p"), "wrong-token-of-the-tests", 401),
            (firing("hex8_2p"), TOKEN[:-1], 401),
            (firing("hex8_2p; touch /tmp/x"), TOKEN, 400),
            (firing("{{ lookup('pipe', 'id') }}_2p"), TOKEN, 400),
            (firing("square8_2p"), TOKEN, 400),
            ("no JSON", TOKEN, 400),
            (b"x" * 300_000, TOKEN, 413),
            (b"x" * 300_000, None, 401),
        ):
            got, said = await post(url, body, token)
            refused.append((got, status, said))
        # A secret that is wrong in its encoding too is only wrong.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /alerts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nContent-Length: 0\r\n\r\n")
        refused.append((int((await reader.readline()).split()[1]), 401, ""))
        writer.close()
        await asyncio.sleep(0.3)
        nothing = queue.empty()
        # It moves as far as anybody knows; what is told now is seen at the next look, an alert's after a second.
        (tools / "verdict").write_text(json.dumps(STALLED))
        taken = await post(url, firing("hex8_2p"))
        return refused, nothing, taken, await queue.get()

    refused, nothing, taken, event = watch(
        steps, listen_port=port, confirm_after=1, interval=1, looks=5, stall_after=99
    )
    for got, status, said in refused:
        assert got == status, said
        assert TOKEN not in said
    assert nothing
    assert taken[0] == 202
    assert (event["kind"], event["alert"], event["looks"]) == ("stall", True, 1)


def test_a_flood_of_alerts_is_one_event(tools):
    (tools / "verdict").write_text(json.dumps(STALLED))
    port = free_port()

    async def steps(queue):
        url = await listening(port)
        statuses = set()
        for _round in range(25):
            statuses |= {
                status for status, _said in await asyncio.gather(*(post(url, firing("hex8_2p")) for _ in range(40)))
            }
        await asyncio.sleep(2.5)
        return statuses, queue.qsize()

    statuses, events = watch(steps, listen_port=port, confirm_after=1, interval=1)
    assert statuses <= {202, 503}
    assert events == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"configs": ["hex8_2p; reboot"]}, "which is not <board>_<players>p"),
        ({"inventory": "/nowhere/at/all"}, "/nowhere/at/all is not there"),
        ({"url": "http://user:secret@host"}, "carries a user"),
        ({"listen_port": 1, "password": "x"}, "no option 'password'"),
        ({"profile": "other", "url": "http://localhost:1"}, "profile is 'other'"),
        ({"diagnose_timeout": 0}, "diagnose_timeout is 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(args, said, tools):
    with pytest.raises(RecoveryError, match=said) as refused:
        watch(lambda queue: queue.get(), **args)
    assert "secret@" not in str(refused.value)


@pytest.mark.parametrize("token", ["", "short"])
def test_nobody_listens_without_a_token(token, tools, monkeypatch):
    monkeypatch.setenv("RINGRIFT_EDA_TOKEN", token)
    with pytest.raises(RecoveryError, match="RINGRIFT_EDA_TOKEN"):
        watch(lambda queue: queue.get(), listen_port=free_port())


def test_an_orchestrator_that_cannot_be_asked_is_no_stall(tools):
    (tools / "verdict").write_text(json.dumps({**STALLED, "stalled": False, "findings": []}))

    async def steps(queue):
        while not (tools / "argv").exists():
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        return queue.qsize()

    assert watch(steps, url=f"http://127.0.0.1:{free_port()}", interval=1) == 0


def test_the_documentation_and_the_rulebook_have_every_option_and_its_default():
    documented = yaml.safe_load(PLUGIN["DOCUMENTATION"])["options"]
    accepted = dict(PLUGIN["DEFAULTS"])
    settings = Settings.of({})
    accepted.update({name: getattr(settings, name) for name in Settings.__dataclass_fields__})
    assert set(documented) == set(accepted)
    for name, option in documented.items():
        if not option.get("required"):
            assert option["default"] == (list(accepted[name]) if isinstance(accepted[name], tuple) else accepted[name])
    rulebook = yaml.safe_load((EDA / "rulebooks/recover_stalled_training.yml").read_text())
    (source,) = rulebook[0]["sources"]
    assert set(source["ringrift.recovery.stall"]) == set(documented)
    for name, value in source["ringrift.recovery.stall"].items():
        if "default(" in value:
            default = yaml.safe_load(value.partition("default(")[2].rpartition(")")[0])
            assert default == documented[name].get("default"), name


def test_nothing_is_started_with_what_was_not_checked():
    """A recovery gets nothing of an event but its config, which the source has checked."""
    (rules,) = yaml.safe_load((EDA / "rulebooks/recover_stalled_training.yml").read_text())
    recovers, *tells = rules["rules"]
    (action,) = recovers["actions"]
    assert action["run_playbook"]["extra_vars"] == {
        "config": "{{ event.config }}",
        "automatic": True,
        "recover_causes": "{{ recover_causes | default([]) }}",
    }
    assert 'event.kind == "stall" and event.recover == true' in recovers["condition"]
    for rule in rules["rules"]:
        assert rule["throttle"]["group_by_attributes"] == ["event.config"]
    for rule in tells:
        assert rule["actions"][0]["run_playbook"]["name"].endswith("/escalate.yml")
