# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator sees of step 5 while it runs."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.integration.harness import CONFIG, ROOT, environment

pytestmark = pytest.mark.lab

LINE = re.compile(
    r"^\S+ +hex8_2p  epoch (\d+)/\d+(?:  batch \d+)?  loss [\d.]+ \(val [\d.]+\)(?:  [\d.]+ epochs/min)?"
    r"  GPU \d+ % \d+ W(?:  ~[\d.]+ (?:s|min|h|days) left)?",
    re.M,
)


def test_progress_is_shown_as_it_goes_and_follow_goes_on(healthy):
    play = healthy.play("monitor", "-e", "follow=true", "-e", "ringrift_monitor_timeout=15")
    assert play.rc == 0, play.output
    epochs = [int(epoch) for epoch in LINE.findall(play.output)]
    assert len(epochs) >= 2, play.output
    assert epochs == sorted(epochs)
    assert "epochs/min" in play.output
    # Once in the live view; the node that trains is the only one that is watched.
    assert play.output.count("  progress is proven") == 1
    assert len({line.split()[0] for line in play.output.splitlines() if "  hex8_2p  " in line}) == 1
    assert "RETRYING" not in play.output
    assert set(play.changed.values()) == {0}


def test_the_lines_come_while_it_runs(healthy):
    """A line can be read long before the run ends."""
    command = ["ansible-playbook", "-i", str(healthy.inventory), "playbooks/monitor.yml", "-e", f"config={CONFIG}"]
    command += ["-e", "follow=true", "-e", "ringrift_monitor_timeout=300"]
    command += ["-e", f"ringrift_report_dir={healthy.directory / 'reports'}"]
    with subprocess.Popen(
        ["timeout", "-k", "5", "60", *command],
        cwd=ROOT,
        env=environment(),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        shown = next((line for line in process.stdout if LINE.match(line)), None)
        alive = process.poll() is None
        process.terminate()
        process.stdout.read()
    assert shown is not None
    assert alive
