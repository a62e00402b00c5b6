# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runbook's prevention on the lab: looked at, applied, and what is left for a person."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time

import pytest

from tests.integration.harness import CONFIG, QUICK, ROOT, Lab, run
from tests.integration.test_journal import end, started

pytestmark = pytest.mark.lab
NODE = "nebius-h100-3"
# Under a trainer of the lab, which writes three checkpoints a second, none is beyond that.
KEEP = ("-e", "prevent_keep=100000")
# Newer than five minutes they may still be written, and are kept.
SEVEN_OLD = """cd ringrift/ai-service/checkpoints && ls -tr checkpoint_epoch_*.pth | tail -n +8 | xargs -r rm
now=$(date +%s)
for file in $(ls -tr checkpoint_epoch_*.pth); do n=$((n + 1)); touch -d @$((now - 3600 + n)) $file; done
ls checkpoint_epoch_*.pth | wc -l"""
# Stands in for the manager of systemd, which cannot run in every box; it knows what the module asks for.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$SYSTEMCTL_STATE/told"
for word; do case $word in --*) ;; *) verb=${verb:-$word}; unit=$word ;; esac; done
case $verb in
  show) echo LoadState=loaded; [ -e "$SYSTEMCTL_STATE/on" ] && echo ActiveState=active || echo ActiveState=inactive ;;
  is-enabled) [ -e "$SYSTEMCTL_STATE/on" ] && echo enabled || { echo disabled; exit 1; } ;;
  start | restart) touch "$SYSTEMCTL_STATE/on" ;;
  stop) rm -f "$SYSTEMCTL_STATE/on" ;;
esac
"""


def on(lab: Lab, node: str, command: str) -> str:
    done = run(sys.executable, "-m", "lab", "ssh", "--dir", str(lab.directory), node, command, timeout=60)
    assert done.returncode == 0, done.stdout
    return done.stdout


def findings(lab: Lab) -> dict[tuple[str, str], dict]:
    """Those of the newest report, by cause and host."""
    paths = (lab.directory / "reports").glob(f"*-{CONFIG}-prevention.json")
    report = json.loads(max(paths, key=lambda path: path.stat().st_mtime_ns).read_text())
    return {(entry["cause"], entry["host"]): entry for entry in report["findings"]}


def reports(lab: Lab) -> list[str]:
    return sorted(path.name for path in (lab.directory / "reports").glob("*"))


def changed(play) -> set[str]:
    return {host for host, count in play.changed.items() if count}


def test_on_a_fleet_that_trains_all_is_well_and_looking_writes_nothing(lab):
    lab.fresh(nodes=1)
    before, kept = lab.wait_for_trainer(), reports(lab)
    play = lab.play("prevent", "--check", "--diff", "-e", "fail_on=warning", *KEEP)
    assert play.rc == 0, play.output
    assert set(play.changed.values()) == {0}, play.output
    assert f"{CONFIG}: prevention: 6 ok" in play.flat
    names = "1. Enable health monitoring", "2. Set appropriate batch sizes", "3. Monitor disk space"
    assert all(name in play.output for name in (*names, "4. Regular checkpoint cleanup", "5. Release the locks"))
    assert (lab.trainers(), reports(lab)) == ([before], kept)


def test_daemons_are_restarted_while_training_runs_on(small):
    before = small.wait_for_trainer()
    small("break", "daemons")
    play = small.play("prevent", "-e", "ringrift_batch_size=4096", "-e", "fail_on=warning", *KEEP)
    assert findings(small)["daemons", "coordinator-1"]["state"] == "applied", play.output
    assert "event_router is stopped; they were restarted" in play.flat
    assert small.trainers() == [before]
    # What is a setting of the inventory is for a person.
    assert play.rc == 2
    assert f"FINDINGS (fail_on=warning): warning batch_size on {NODE}" in play.flat
    assert "ringrift_batch_size is 4096, and 80 GiB of GPU memory allows 2048" in play.flat
    assert f"next: set ringrift_batch_size: 2048 for {NODE} in the inventory" in play.flat


def test_check_predicts_what_a_run_applies_and_then_nothing_is_left(lab):
    lab.fresh(nodes=1)
    deadline = time.monotonic() + 60
    while max(node["checkpoints"] for node in lab.status()["nodes"]) < 8 and time.monotonic() < deadline:
        time.sleep(0.2)
    lab("break", "kill", "daemons")
    assert on(lab, NODE, SEVEN_OLD).split() == ["7"]
    lab("break", "old-checkpoint", NODE)
    # Where it was written to it counts as new; of seven, two are beyond, the damaged one among them.
    on(lab, NODE, SEVEN_OLD)
    broken, kept = lab.snapshot(), reports(lab)
    planned = lab.play("prevent", "--check", "--diff", "-e", "fail_on=warning")
    # What is not applied yet is not as it should be.
    assert planned.rc == 2, planned.output
    assert (lab.snapshot(), reports(lab)) == (broken, kept)
    for words in (
        "event_router is stopped; they would be restarted",
        f"{NODE} would be applied 2 of 7 files would be removed, 5 stay",
        "nobody keeps its flock; would be released",
        "3 would be applied, 3 ok",
    ):
        assert words in planned.flat, planned.output
    done = lab.play("prevent")
    assert done.rc == 0, done.output
    assert changed(done) == changed(planned)
    assert "3 applied, 3 ok" in done.flat, done.output
    applied = {key for key, entry in findings(lab).items() if entry["state"] == "applied"}
    assert applied == {("daemons", "coordinator-1"), ("checkpoints", NODE), ("lock", NODE)}
    again = lab.play("prevent", "-e", "fail_on=warning")
    assert again.rc == 0, again.output
    assert set(again.changed.values()) == {0}, again.output
    # It is no recovery: nothing of it is on record, and nothing was started.
    assert not on(lab, "coordinator-1", "cat ringrift/ai-service/data/recovery/*.jsonl 2>/dev/null || true").strip()
    assert lab.trainers() == []


@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="a minute more: make soak")
def test_a_lock_that_somebody_keeps_and_a_full_disk_are_left_to_a_person(lab):
    lab.fresh()
    lab("break", "lock")
    if lab.driver == "netns":
        lab("break", "disk", NODE)
    before = lab.snapshot()
    play = lab.play("prevent", *KEEP)
    seen = findings(lab)
    assert seen["lock", NODE]["state"] == "needs_you", play.output
    assert seen["lock", NODE]["next"] == f"ansible-playbook fix.yml -e config={CONFIG} -e cause=lock_held"
    assert set(play.changed.values()) == {0}, play.output
    assert before == lab.snapshot()
    if lab.driver == "netns":
        assert seen["disk", NODE]["state"] == "needs_you"
        assert "FINDINGS (fail_on=critical): critical disk on" in play.flat
        assert play.rc == 2


@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="a minute more: make soak")
def test_what_cannot_be_reached_is_named_and_spoils_nothing_else(lab):
    if lab.driver != "netns":
        pytest.skip("a node of the local driver is always there")
    lab.fresh()
    before = lab.wait_for_trainer()
    lab("break", "unreachable", "runpod-h100")
    play = lab.play("prevent", *KEEP, **QUICK)
    seen = findings(lab)
    assert play.rc == 2
    assert "FINDINGS (fail_on=critical): critical node on runpod-h100" in play.flat
    assert {key for key, entry in seen.items() if entry["state"] == "not_seen"} == {("node", "runpod-h100")}
    assert {entry["state"] for key, entry in seen.items() if key[1] != "runpod-h100"} == {"ok"}
    lab("break", "unreachable", "coordinator-1")
    play = lab.play("prevent", "-e", "exclude=runpod-h100", "-e", "fail_on=never", **QUICK)
    seen = findings(lab)
    assert play.rc == 0, play.output
    # Nobody knows whether a recovery is under way, so nothing is cleaned up; what can be looked at is.
    assert seen["daemons", "coordinator-1"]["state"] == "not_seen"
    assert "whether a recovery is under way is not known" in seen["checkpoints", NODE]["detail"]
    assert {seen[cause, NODE]["state"] for cause in ("batch_size", "disk", "lock")} == {"ok"}
    assert set(play.changed.values()) == {0}, play.output
    assert lab.trainers() == [before]


def test_beside_a_recovery_nothing_is_applied(lab):
    lab.fresh(nodes=1)
    lab("break", "kill", "daemons")
    controller = started(lab, "[ringrift.recovery.stop_training")
    try:
        play = lab.play("prevent", **QUICK)
        assert play.rc == 2
        assert "is under way, at stop_training" in play.flat
        seen = findings(lab)
        assert seen["daemons", "coordinator-1"]["state"] == "needs_you"
        assert (seen["lock", NODE]["state"], seen["checkpoints", NODE]["state"]) == ("needs_you", "not_seen")
        assert set(play.changed.values()) == {0}, play.output
    finally:
        end(controller)


@pytest.mark.parametrize("words", ["fail_on=sometimes", "prevent_disk_free=much", "config=hex8"])
def test_what_cannot_be_meant_is_refused(lab, words):
    if not lab.inventory.exists():
        lab.fresh()
    play = lab.play("prevent", "-e", words)
    assert play.rc != 0
    assert f"{words.split('=')[0]} is" in play.flat
    assert "Nothing was touched" in play.flat
    assert "Look whether a recovery" not in play.output


@pytest.fixture
def timer(tmp_path):
    """Runs the timer's part of the role for an inventory of its own, with or without a stand-in for systemctl."""
    tools, state, units = tmp_path / "tools", tmp_path / "state", tmp_path / "units"
    for folder in (tools, state):
        folder.mkdir()
    inventory = tmp_path / "a fleet at 50%.yml"
    inventory.write_text("coordinator:\n  hosts:\n    boss:\n")
    role = {"name": "ringrift.recovery.prevent", "tasks_from": "timer"}
    tasks = [{"ansible.builtin.include_role": role}]
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    variables = {"prevent_config": CONFIG, "prevent_timer_dir": str(units), "ringrift_metrics_file": "/var/$x/a.prom"}

    def play(*words: str, systemd: bool = True, **more: str):
        tools.joinpath("systemctl").write_text(SYSTEMCTL if systemd else "#!/bin/sh\necho no bus >&2\nexit 1\n")
        tools.joinpath("systemctl").chmod(0o755)
        told = ["-e", json.dumps({**variables, **more}), *words]
        path = f"{tools}:{ROOT / '.venv/bin'}:/usr/bin:/bin"
        done = run("ansible-playbook", "-i", str(inventory), str(playbook), *told, cwd=ROOT, SYSTEMCTL_STATE=str(state),
                   PATH=path)  # fmt: skip
        assert done.returncode == 0, done.stdout
        return "changed=0" not in done.stdout

    play.units, play.state, play.inventory = units, state, inventory
    return play


def test_without_systemd_the_timer_is_left_alone(timer):
    assert not timer(systemd=False)
    assert not timer.units.exists()


@pytest.mark.soak
@pytest.mark.skipif("SOAK" not in os.environ, reason="nine plays for the timer: make soak")
def test_the_timer_is_installed_once_and_removed_once(timer):
    assert timer("--check")
    assert not timer.units.exists()
    assert timer()
    assert sorted(path.name for path in timer.units.iterdir()) == [
        *(f"ringrift-diagnose-{CONFIG}.service", f"ringrift-diagnose-{CONFIG}.timer"),
    ]
    assert "--user start" in (timer.state / "told").read_text()
    assert not timer()
    assert timer(prevent_timer_calendar="hourly")
    assert "OnCalendar=hourly" in (timer.units / f"ringrift-diagnose-{CONFIG}.timer").read_text()
    # Otherwise it would go by the old calendar.
    assert "--user restart" in (timer.state / "told").read_text()
    assert timer("--check", prevent_timer_state="absent")
    assert len(list(timer.units.iterdir())) == 2
    assert timer(prevent_timer_state="absent")
    assert list(timer.units.iterdir()) == []
    assert not (timer.state / "on").exists()
    assert not timer(prevent_timer_state="absent")


def test_the_units_run_the_diagnosis_with_this_inventory(timer):
    empty = dict.fromkeys(("prevent_timer_state", "prevent_timer_calendar", "prevent_timer_scope"), "")
    timer(prevent_timer_options={"exclude": "runpod-h100"}, ringrift_report_dir="/srv/reports", **empty)
    service, units = f"ringrift-diagnose-{CONFIG}.service", timer.units
    # What is left empty counts as not given.
    assert "OnCalendar=*:0/15\n" in (units / f"ringrift-diagnose-{CONFIG}.timer").read_text()
    assert "--user start" in (timer.state / "told").read_text()
    (line,) = [line for line in (units / service).read_text().splitlines() if line.startswith("ExecStart=")]
    words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line.partition("=")[2])]
    assert words[0].endswith("/ansible-playbook")
    assert words[1:3] == ["-i", str(timer.inventory)]
    assert words[3].endswith("/diagnose.yml")
    assert json.loads(words[5]) == {
        "config": CONFIG, "exclude": "runpod-h100", "ringrift_report_dir": "/srv/reports",
        "ringrift_metrics_file": "/var/$x/a.prom",
    }  # fmt: skip
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here; the words of the unit were compared")
    paths = [str(path) for path in units.iterdir()]
    checked = run(analyze, "verify", "--user", *paths, XDG_RUNTIME_DIR=str(timer.state))
    assert (checked.returncode, checked.stdout) == (0, "")
