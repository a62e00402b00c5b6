# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module kernel_events, with stand-in programs, and with the real log of this machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from typing import Any, Dict

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ringrift.recovery.plugins.module_utils import _command, _kernel_events, _kernel_log
from ansible_collections.ringrift.recovery.plugins.modules import kernel_events

DOCUMENTED = yaml.safe_load(kernel_events.RETURN)
OPTIONS = yaml.safe_load(kernel_events.DOCUMENTATION)["options"]

# One message of each kind, and the driver's own words for the GPU.
LINES = (
    "Linux version 6.1.0",
    "NVRM: GPU at PCI:0000:00:06: GPU-074a7809-cbae-cd4c-fdb3-b7f3021aa83f",
    "NVRM: Xid (PCI:0000:00:06): 31, pid=1346, name=python3, channel 0x0000000a, intr 00000000. MMU Fault",
    "NVRM: Xid (PCI:0000:00:06): 31, pid=1350, name=python3, channel 0x0000000a, intr 00000000. MMU Fault",
    "NVRM: Xid (PCI:0000:00:06): 999, what",
    "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 48 LTSSM Fault Up",
    "NVRM: GPU 0000:00:06.0: GPU has fallen off the bus.",
    "Out of memory: Killed process 7 (python3) total-vm:9kB, anon-rss:5kB, file-rss:0kB, shmem-rss:0kB",
    "INFO: task python3:7 blocked for more than 120 seconds.",
    "watchdog: BUG: soft lockup - CPU#3 stuck for 23s! [python3:4711]",
    "nfs: server store-1 not responding, timed out",
    "EXT4-fs (sda1): Remounting filesystem read-only",
    "I/O error, dev nvme0n1, sector 17 op 0x0:(READ)",
    "nvme nvme0: I/O 0 QID 0 timeout, reset controller",
)


@pytest.fixture
def call(capsys) -> Any:
    def run(check: bool = False, failed: bool = False, **args: Any) -> Dict[str, Any]:
        with patch_module_args({**args, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            kernel_events.main()
        result = json.loads(capsys.readouterr().out)
        assert result.get("failed", False) is failed, result
        return result

    return run


@pytest.fixture
def dmesg(tmp_path, monkeypatch):
    """Only a stand-in dmesg is found, and says what it is given."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(_command, "MORE_PATH", ())
    monkeypatch.setattr(_kernel_log, "KMSG_PATH", str(tmp_path / "kmsg"))

    def say(*lines: str, first: float = 0.0) -> None:
        entries = [{"pri": 4, "time": first + 60.0 * number, "msg": line} for number, line in enumerate(lines)]
        (tmp_path / "out").write_text(json.dumps({"dmesg": entries}))
        program = tmp_path / "bin/dmesg"
        program.write_text(f"#!/bin/sh\n/bin/cat {tmp_path / 'out'}\n")
        program.chmod(0o755)

    return say


def test_all_kinds_twice(call, dmesg):
    dmesg(*LINES)
    result = call()
    again = call(check=True)
    assert {**result, "invocation": 0} == {**again, "invocation": 0}
    assert (result["changed"], result["source"], result["verdict"]) == (False, "dmesg", "error")
    assert result["summary"] == {**dict.fromkeys(_kernel_events.KINDS, 1), "xid": 3}
    assert (result["worst_action"], result["complete"]) == ("reboot", True)
    assert [repeat["rule"] for repeat in result["repeats"]] == ["same_gpu"]
    assert [problem["code"] for problem in result["problems"]] == ["unknown_xid"]
    assert result["events"][0]["gpu_uuid"] == "GPU-074a7809-cbae-cd4c-fdb3-b7f3021aa83f"


def test_nothing_happened(call, dmesg):
    dmesg(LINES[0])
    result = call()
    assert (result["verdict"], result["events"], result["worst_action"]) == ("clean", [], None)
    dmesg(LINES[0], first=5000.0)
    result = call()
    assert (result["verdict"], result["complete"]) == ("unknown", False)


def test_could_not_look(call, dmesg):
    result = call()
    assert (result["source"], result["verdict"], result["complete"]) == (None, "unknown", False)
    assert result["problems"][0]["code"] == "no_source"
    assert [attempt["source"] for attempt in result["tried"]] == ["journald", "dmesg", "kmsg"]
    assert set(result) - {"changed", "invocation"} == set(DOCUMENTED)


def test_options(call, dmesg):
    dmesg(*LINES)
    result = call(kinds=["nfs_stall"], max_events=1, source="dmesg", since="2001-01-01T00:00:00Z")
    assert result["summary"] == {"nfs_stall": 1}
    assert (result["worst_action"], len(result["tried"])) == (None, 1)
    assert call(since="2100-01-01")["events"] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"since": "yesterday"}, "Give boot, unix seconds, or ISO 8601"),
        ({"timeout": 0}, "timeout is 0.0"),
        ({"timeout": "nan"}, "timeout is nan"),
        ({"max_events": -1}, "max_events is -1"),
        ({"max_events": 10001}, "max_events is 10001"),
        ({"kinds": ["x"]}, "kinds"),
        ({"source": "syslog"}, "source"),
        ({"source": "dmesg", "path": "/var/log/kern.log"}, "path is /var/log/kern.log and source is dmesg"),
    ],
)
def test_bad_options(call, options, words):
    assert words in call(failed=True, **options)["msg"]


def test_a_file(call, tmp_path):
    stamp = time.strftime("%b %e %H:%M:%S")
    line = "NVRM: Xid (PCI:0000:0a:00): 48, pid=4711, name=python, DBE (double bit error) ECC Error"
    (tmp_path / "kern.log").write_text(
        f"{stamp} node-1 kernel: [    0.000000] Linux version 6\n{stamp} n kernel: {line}\n"
    )
    result = call(path=str(tmp_path / "kern.log"), since=str(time.time() - 60))
    assert (result["source"], result["tried"]) == ("file", [{"source": "file", "reason": None}])
    assert [event["code"] for event in result["events"]] == [48]
    result = call(path=str(tmp_path / "absent"))
    assert (result["source"], result["verdict"]) == (None, "unknown")
    assert "absent" in result["msg"]


def test_the_log_of_this_machine(call):
    result = call()
    assert (result["source"] is None) == (result["problems"][:1] != [] and result["problems"][0]["code"] == "no_source")
    assert result["verdict"] in ("unknown", "clean", "warning", "error")
    if result["source"] is not None:
        assert result["newest"] is None or result["oldest"] <= result["newest"]
    program = shutil.which("dmesg")
    readable = program is not None and subprocess.run([program], capture_output=True, check=False).returncode == 0
    assert not readable or result["source"] is not None


def test_the_documentation_names_every_key_of_every_kind(call, dmesg):
    dmesg(*LINES)
    result = call()
    assert set(result) - {"changed", "invocation"} == set(DOCUMENTED)
    documented = DOCUMENTED["events"]["contains"]
    for event in result["events"]:
        expected = {
            name
            for name, entry in documented.items()
            if entry["returned"] == "success" or event["kind"] in re.split(r", | and |^for ", entry["returned"])
        }
        assert set(event) == expected, event["kind"]
    for name in ("repeats", "tried", "problems"):
        assert set(result[name][0]) == set(DOCUMENTED[name]["contains"]), name


def test_the_options_are_those_of_the_engine():
    assert OPTIONS["kinds"]["choices"] == OPTIONS["kinds"]["default"] == list(_kernel_events.KINDS)
    assert OPTIONS["source"]["choices"] == ["auto", *_kernel_log.SOURCES]
