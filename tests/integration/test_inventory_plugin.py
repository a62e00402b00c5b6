# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on an inventory that the orchestrator of the lab tells, beside the one that the lab wrote."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.integration.harness import CONFIG, QUICK, Play, run

pytestmark = pytest.mark.lab


class Told:
    """An inventory folder with the plugin's file, and the lab's settings as those of a group."""

    def __init__(self, folder, lab):
        self.folder, self.lab = folder, lab
        self.written = yaml.safe_load((lab.inventory / "hosts.yml").read_text())
        settings = {"ringrift_report_dir": str(folder / "reports"), **self.written["all"]["vars"]}
        (folder / "group_vars").mkdir()
        (folder / "group_vars" / "all.yml").write_text(yaml.safe_dump(settings))
        self.coordinator = self.written["coordinator"]["hosts"]["coordinator-1"]

    @property
    def url(self):
        return f"http://{self.coordinator['ansible_host']}:8770"

    def write(self, **options):
        (self.folder / "fleet.p2p.yml").write_text(yaml.safe_dump({"plugin": "ringrift.recovery.p2p", **options}))
        return self

    def hosts_file(self):
        """The service's own file for these nodes."""
        rows = {"coordinator-1": {**self._row(self.coordinator), "role": "coordinator", "gpu": "none"}}
        for group, members in self.written["training"]["children"].items():
            for name, values in members["hosts"].items():
                rows[name] = {**self._row(values), "gpu": group.upper(), "role": "gpu_training_primary"}
        # Not the ending of an inventory file, as the folder is one.
        (self.folder / "distributed_hosts.cfg").write_text(yaml.safe_dump({"hosts": rows}, sort_keys=False))
        return "distributed_hosts.cfg"

    def _row(self, values):
        return {"ssh_host": values["ansible_host"], "ssh_user": "root", "status": "ready"}

    def run(self, program, *words, **environment):
        return run(program, "-i", str(self.folder), *words, **environment)

    def play(self, name, *words, **environment):
        done = self.run("ansible-playbook", f"playbooks/{name}.yml", "-e", f"config={CONFIG}", *words, **environment)
        return Play(done.returncode, done.stdout, 0)

    def groups(self):
        done = self.run("ansible-inventory", "--list", "--export")
        assert done.returncode == 0, done.stdout
        found = json.loads(done.stdout)
        return {
            name: sorted(group.get("hosts", group.get("children"))) for name, group in found.items() if name != "_meta"
        }


@pytest.fixture
def told(healthy, tmp_path):
    if healthy.driver != "netns":
        pytest.skip("the nodes of the local driver have no addresses")
    return Told(tmp_path, healthy)


def test_the_playbooks_see_the_fleet_that_the_orchestrator_tells(told):
    told.write(url=told.url)
    groups = told.groups()
    assert groups["coordinator"] == ["coordinator-1"]
    assert groups["training"] == ["gh200", "h100"]
    for name, members in told.written["training"]["children"].items():
        assert groups[name] == sorted(members["hosts"])
    assert groups["p2p_health_alive"] == sorted(["coordinator-1", *groups["h100"], *groups["gh200"]])
    ping = told.run("ansible", "all", "-m", "ansible.builtin.ping")
    assert ping.stdout.count("SUCCESS") == 4, ping.stdout
    # It trains, so that a recovery finds nothing to do; all of its steps have looked at all of the nodes.
    play = told.play("full_recovery")
    assert play.rc == 0, play.output
    assert set(play.changed) == {"coordinator-1", *groups["h100"], *groups["gh200"]}
    assert not any(play.changed.values())


def test_a_node_that_is_cut_off_stays_in_training_and_holds_up_the_recovery(told):
    told.write(url=told.url, hosts_file=told.hosts_file())
    told.lab("break", "unreachable", "runpod-h100")
    try:
        assert "runpod-h100" in told.groups()["h100"]
        play = told.play("stop_training", **QUICK)
        assert play.rc != 0
        assert "runpod-h100" in play.flat
        play = told.play("stop_training", "-e", "exclude=runpod-h100", **QUICK)
        assert play.rc == 0, play.output
    finally:
        told.lab("down")


def test_without_its_orchestrator_a_fleet_is_told_by_the_hosts_file_alone_where_that_is_said(told):
    told.lab("break", "orchestrator")
    try:
        told.write(url=told.url, hosts_file=told.hosts_file(), timeout=3)
        failed = told.run("ansible-inventory", "--graph")
        assert failed.returncode != 0
        assert "gave no" in failed.stdout
        assert "require_status" in failed.stdout
        told.write(url=told.url, hosts_file=told.hosts_file(), timeout=3, require_status=False)
        play = told.play("diagnose")
        assert play.rc == 0, play.output
        assert "orchestrator_down" in play.flat
    finally:
        told.lab("down")
