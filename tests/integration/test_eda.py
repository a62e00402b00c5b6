# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event-driven recovery with the real ansible-rulebook: the rulebook that we ship, its source, the lab."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import yaml

from tests.integration.harness import CONFIG, ROOT, environment
from tests.integration.listeners import Hook
from tests.unit.p2p_servers import OPENER, free_port, wait_for

PROGRAM = pathlib.Path(sys.executable).with_name("ansible-rulebook")
RULEBOOK = "ringrift.recovery.recover_stalled_training"
SHIPPED = ROOT / "extensions/eda/rulebooks/recover_stalled_training.yml"
TOKEN = "a-token-of-the-tests"
OTHER = "square8_2p"


def why_not() -> str:
    """Why ansible-rulebook cannot run here; empty where it can."""
    if not PROGRAM.exists():
        return "ansible-rulebook is not installed (requirements/eda.txt)"
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java") if not home else str(pathlib.Path(home, "bin", "java"))
    if not java or not pathlib.Path(java).exists():
        return "ansible-rulebook needs Java 17 or newer, and there is none (package default-jre-headless)"
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=30).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version.group(1)) < 17:
        return f"ansible-rulebook needs Java 17 or newer, and here is: {said.splitlines()[:1]}"
    return ""


pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can run")]


@contextlib.contextmanager
def rulebook(name: object, folder: pathlib.Path, inventory: pathlib.Path, variables: dict):
    """ansible-rulebook under way; what it says so far, by a call."""
    settings, log = folder / "eda.yml", folder / "eda.log"
    settings.write_text(json.dumps(variables))
    # What is killed leaves its temporary files.
    temporary = folder / "tmp"
    temporary.mkdir()
    argv = [str(PROGRAM), "-r", str(name), "-i", str(inventory), "-e", str(settings), "-v", "--shutdown-delay", "120"]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            argv, cwd=ROOT, env=environment(RINGRIFT_EDA_TOKEN=TOKEN, TMPDIR=str(temporary)), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def said(words: str = "") -> str:
        text = log.read_text(errors="replace")
        assert process.poll() in (None, 0), text[-4000:]
        return text if words in text else ""

    try:
        yield said, process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def alert(port: int, config: str = CONFIG, token: str = TOKEN) -> int:
    """Tell what AlertManager would; the status of the answer."""
    body = json.dumps({"alerts": [{"status": "firing", "labels": {"config": config}}]}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/alerts", body, headers)
    try:
        with OPENER.open(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as exc:
        return exc.code


def begun(lab) -> int:
    """How many recoveries the journal on the coordinator has on record."""
    return len(lab.journal()["attempts"])


@pytest.fixture
def told(lab, serve):
    """A lab that trains, whose reports are kept with it and whose people are a web server."""
    lab.fresh(nodes=1)
    hook, port = serve(http.server.ThreadingHTTPServer, Hook)
    # Beside the lab's own inventory, as an operator would; ansible-rulebook copies the folder.
    more = {"ringrift_report_dir": str(lab.directory / "reports")}
    more["ringrift_notify_webhook_url"] = f"http://127.0.0.1:{port}/"
    (lab.inventory / "more.yml").write_text(json.dumps({"all": {"vars": more}}))
    yield hook
    (lab.inventory / "more.yml").unlink(missing_ok=True)


def orchestrator(lab) -> str:
    """Its address as seen from here."""
    found = yaml.safe_load((lab.inventory / "hosts.yml").read_text())
    (host,) = found["coordinator"]["hosts"].values()
    port = str(host.get("ringrift_p2p_url", "")).rpartition(":")[2]
    return f"http://{host.get('ansible_host', '127.0.0.1')}:{port if port.isdigit() else 8770}"


def test_a_killed_trainer_is_recovered_with_nobody_at_the_keyboard_and_a_flood_of_alerts_makes_it_one_recovery(
    lab, told, tmp_path, capsys
):
    port = free_port()
    how = {
        "configs": [CONFIG], "inventory": str(lab.inventory), "p2p_url": orchestrator(lab), "listen_port": port,
        "interval": 1, "confirm_after": 2, "stall_after": 1,
    }  # fmt: skip
    listed = ["not_running", "training_failed", "lock_held", "cooldown_active"]
    reports = len(lab.reports())
    with rulebook(RULEBOOK, tmp_path, lab.inventory, {**how, "recover_causes": listed}) as (said, _process):
        wait_for(lambda: said("training is not stalled"), 120, "the first look")
        assert [alert(port, token="wrong"), alert(port, f"{CONFIG}; touch /tmp/x"), alert(port, OTHER)] == [
            401,
            400,
            400,
        ]
        lab("break", "kill")
        killed = time.monotonic()
        assert {alert(port) for _ in range(1000)} == {202}
        recovered = wait_for(lambda: lab.reports()[reports:], 300, "the recovery's report")
        seconds = time.monotonic() - killed
        wait_for(lambda: said("PLAY RECAP"), 120, "its end")
        wait_for(lambda: "not stalled" in said().rpartition("is STALLED")[2], 120, "the look that sees it move")
        assert [entry["outcome"] for entry in recovered] == ["recovered, progress is proven"]
        assert [body["event"] for _authorization, body in told.heard] == ["started", "ended"]
        assert len(lab.trainers()) == 1
        assert begun(lab) == 1

        # The same once more, and beside it a cause that nobody listed.
        told.heard.clear()
        lab("break", "missing-data", "kill")
        assert alert(port) == 202
        wait_for(lambda: said().count("PLAY RECAP") > 1, 180, "the escalation")
        looks = said().count("is STALLED")
        # Another alert asks for one more look; what was told is told once.
        assert alert(port) == 202
        wait_for(lambda: said().count("is STALLED") > looks, 120, "one more look")
    ((_authorization, body),) = told.heard
    assert (body["event"], body["config"]) == ("escalated", CONFIG)
    assert "recover_causes does not have data_not_ready" in body["text"]
    assert begun(lab) == 1
    assert lab.trainers() == []
    with capsys.disabled():
        print(f"\nkill -9 to proven progress with nobody at the keyboard: {seconds:.0f} s")


def stall(config: str, number: int, recover: bool, **more: object) -> dict:
    return {
        "kind": "stall", "id": f"{config}-{number}", "config": config, "recover": recover,
        "since": "2026-11-28T10:40:27Z", "headline": "stalled", "evidence": ["{ { no template }}"],
        "unlisted": [] if recover else ["gpu_sick"], **more,
    }  # fmt: skip


def test_of_a_thousand_events_one_recovery_and_other_configs_have_their_own(tmp_path):
    """The rules that we ship, with events of a generic source and playbooks that only write down that they ran."""
    (plan,) = yaml.safe_load(SHIPPED.read_text())
    events = [stall(CONFIG, number, True) for number in range(1000)] + [stall(OTHER, 1, True)]
    events += [stall("hex8_3p", number, False) for number in range(50)]
    events += [{**stall("hex8_4p", 1, False), "kind": "unseen"}, {"kind": "other", "config": "hex8_4p"}]
    plan["sources"] = [{"name": "stall", "eda.builtin.generic": {"payload": events, "shutdown_after": 3}}]
    shipped = tmp_path / "rulebook.yml"
    shipped.write_text(json.dumps([plan]))
    playbooks, ran = tmp_path / "playbooks", tmp_path / "ran"
    playbooks.mkdir()
    for name in ("full_recovery", "escalate"):
        words = f"{name} {{{{ config }}}} {{{{ automatic | default('-') }}}} {{{{ recover_causes | default('-') }}}}"
        task = {"ansible.builtin.shell": f"echo {words} >>{ran}", "name": "Write it down"}
        play = {"hosts": "all", "connection": "local", "gather_facts": False, "tasks": [task]}
        (playbooks / f"{name}.yml").write_text(json.dumps([play]))
    inventory = tmp_path / "hosts"
    inventory.write_text(f"node ansible_python_interpreter={sys.executable}\n")
    how = {"configs": [CONFIG], "recover_causes": ["lock_held"], "playbooks": str(playbooks)}
    with rulebook(shipped, tmp_path, inventory, how) as (said, process):
        process.wait(120)
    assert process.returncode == 0, said()
    assert sorted(ran.read_text().splitlines()) == [
        "escalate hex8_3p - -",
        "escalate hex8_4p - -",
        "full_recovery hex8_2p True [lock_held]",
        "full_recovery square8_2p True [lock_held]",
    ]
