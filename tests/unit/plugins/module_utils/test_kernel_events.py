# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kernel log says. The lines are such as kernels and drivers have written."""

from __future__ import annotations

import json
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _kernel_events, _xids
from ansible_collections.ringrift.recovery.plugins.module_utils._kernel_events import report
from ansible_collections.ringrift.recovery.plugins.module_utils._kernel_log import Attempt, KernelLog, Record
from hypothesis import given
from hypothesis import strategies as st

MEASURED = (
    "NVRM: Xid (PCI:0000:00:06): 13, Graphics SM Warp Exception on (GPC 1, TPC 4, SM 0): Misaligned Address",
    "NVRM: Xid (PCI:0000:00:06): 13, Graphics Exception: ESR 0x519730=0x500000f 0x519734=0x0 0x519728=0x1f81fb60",
    "NVRM: Xid (PCI:0000:00:06): 13, pid=1380, name=python3, Graphics Exception: channel 0x0000000a, Class 0000cbc0",
)
BOOT = 1_700_000_000.0


def log_of(*lines, complete=True, truncated=False, step=60.0):
    """A log of these messages; a pair has its own time in seconds since boot."""
    records = []
    for number, line in enumerate(lines):
        seconds, text = line if isinstance(line, tuple) else (number * step, line)
        records.append(Record(text, None if seconds is None else BOOT + seconds, seconds))
    return KernelLog("dmesg", tuple(records), (Attempt("dmesg", None),), complete, truncated)


def only(*lines):
    """The one event of these messages, as data."""
    result = report(log_of(*lines))
    assert len(result.events) == 1, result.events
    return result.events[0].as_dict()


def fields(event, *names):
    return tuple(event[name] for name in names)


def test_not_looked_is_not_nothing():
    log = KernelLog(None, (), (Attempt("dmesg", "dmesg is not installed"),), False, False)
    result = report(log).as_dict()
    assert fields(result, "verdict", "source", "complete", "worst_action") == ("unknown", None, False, None)
    assert result["problems"][0]["code"] == "no_source"
    assert "dmesg is not installed" in result["msg"]


def test_a_log_that_begins_too_late_proves_nothing():
    assert report(log_of("a", "b")).verdict == "clean"
    late = report(log_of("a", "b", complete=False))
    assert (late.verdict, [problem.code for problem in late.problems]) == ("unknown", ["log_incomplete"])
    assert report(log_of("nfs: server s not responding, timed out", complete=False)).verdict == "warning"
    cut = report(log_of("a", complete=False, truncated=True))
    assert (cut.verdict, [problem.code for problem in cut.problems]) == ("unknown", ["truncated"])


def test_oom_in_a_cgroup_is_one_event():
    event = only(
        "uwsgi invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=986",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,"
        "oom_memcg=/pods/x,task_memcg=/pods/x/y,task=uwsgi,pid=63214,uid=1000",
        "Memory cgroup out of memory: Killed process 63214 (uwsgi) total-vm:3149468kB, anon-rss:164992kB, "
        "file-rss:52176kB, shmem-rss:92kB, UID:0 pgtables:1372kB oom_score_adj:986",
        "oom_reaper: reaped process 63214 (uwsgi), now anon-rss:0kB, file-rss:0kB, shmem-rss:92kB",
    )
    assert fields(event, "kind", "severity", "action") == ("oom_kill", "error", "restart_app")
    assert fields(event, "pid", "process_name", "uid") == (63214, "uwsgi", 1000)
    assert fields(event, "constraint", "cgroup", "task_cgroup") == ("cgroup", "/pods/x", "/pods/x/y")
    assert fields(event, "total_vm_kb", "anon_rss_kb", "file_rss_kb", "shmem_rss_kb") == (3149468, 164992, 52176, 92)
    assert event["message"].startswith("Memory cgroup out of memory")


@pytest.mark.parametrize(
    ("line", "pid", "name", "constraint", "anon"),
    [
        (
            "Out of memory: Killed process 15925 ((resolved)) total-vm:168424kB, anon-rss:4064kB, file-rss:3584kB",
            15925,
            "(resolved)",
            "machine",
            4064,
        ),
        (
            "Killed process 42453 (memcg_test_1), UID 0, total-vm:7296kB, anon-rss:96kB, file-rss:164kB, shmem-rss:0kB",
            42453,
            "memcg_test_1",
            None,
            96,
        ),
        (
            "Out of memory: Killed process 7 (a) total-vm:1) total-vm:9kB, anon-rss:5kB",
            7,
            "a) total-vm:1",
            "machine",
            5,
        ),
    ],
)
def test_oom_alone(line, pid, name, constraint, anon):
    event = only(line)
    assert fields(event, "pid", "process_name", "constraint", "anon_rss_kb") == (pid, name, constraint, anon)


def test_an_oom_line_is_read_from_its_ends():
    found = _kernel_events.read_victim(
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
        "task_memcg=/x,task=a,pid=1,uid=0,task=b,pid=77,uid=1000"
    )
    assert (found["pid"], found["uid"], found["constraint"], found["process_name"]) == (77, 1000, "machine", "b")


def test_xid():
    event = only("NVRM: Xid (PCI:0000:3b:00 GPU-I:05 GPU-CI:01): 31, pid=1346, name=python3, channel 0x0000000a")
    assert fields(event, "kind", "code", "name", "known", "field_agrees") == (
        "xid",
        31,
        "FIFO_ERROR_MMU_ERR_FLT",
        True,
        True,
    )
    assert fields(event, "bus_id", "gpu_instance", "compute_instance", "pid", "process_name") == (
        "0000:3b:00", 5, 1, 1346, "python3",
    )  # fmt: skip
    assert fields(event, "severity", "action", "time", "seconds_since_boot") == (
        "warning", "restart_app", "2023-11-14T22:13:20.000Z", 0.0,
    )  # fmt: skip


def test_the_log_names_the_gpu():
    event = only(
        "NVRM: GPU at PCI:0000:00:06: GPU-074a7809-cbae-cd4c-fdb3-b7f3021aa83f",
        "NVRM: GPU Board Serial Number: 1652326033898",
        "NVRM: Xid (PCI:0000:00:06): 43, pid=1410, name=python3, channel 0x0000000a",
    )
    assert fields(event, "gpu_uuid", "action", "severity") == (
        "GPU-074a7809-cbae-cd4c-fdb3-b7f3021aa83f", "ignore", "info",
    )  # fmt: skip


def test_an_unknown_code_passes_through():
    result = report(log_of("NVRM: Xid (PCI:0000:3b:00): 999, what"))
    event = result.events[0].as_dict()
    assert fields(event, "code", "known", "name", "action", "severity") == (999, False, None, None, "warning")
    assert (result.worst_action, [problem.code for problem in result.problems]) == (None, ["unknown_xid"])


def test_an_xid_that_cannot_be_read_is_no_clean_log():
    result = report(log_of("NVRM: Xid <new grammar> 79"))
    assert (result.verdict, [problem.code for problem in result.problems]) == ("unknown", ["unparsed_xid"])


@pytest.mark.parametrize(
    ("words", "action"),
    [
        ("0x0 (None)", "ignore"),
        ("0x1 (GPU Reset Required)", "reset"),
        ("0x1 (PF FLR)", "reset"),
        ("0x2 (Node Reboot Required)", "reboot"),
        ("0x2 (OS Reboot)", "reboot"),
        ("0x3 (Drain P2P)", "drain"),
        ("0x4 (Drain and Reset)", "drain"),
        ("0x5 (Recover IMEX Domain)", "drain"),
        ("0x9 (Something New)", None),
    ],
)
def test_what_the_driver_asks_for(words, action):
    event = only(f"NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x0 (None) to {words}")
    assert fields(event, "action", "recovery_action") == (action, words[5:-1])


def test_what_a_line_says_of_itself():
    contained = "NVRM: Xid (PCI:0000:01:00): 94, pid=7062, Contained: CE User Channel (0x9). RST: {}, D-RST: {}"
    assert only(contained.format("No", "No"))["action"] == "restart_app"
    assert only(contained.format("No", "Yes"))["action"] == "drain"
    assert only(contained.format("Yes", "No"))["action"] == "reset"
    link = "NVRM: Xid (PCI:0018:01:00): 145, RLW_RXPIPE {} XC0 i0 Link 13 (0x0409a0c2 0x00000008)"
    assert only(link.format("Nonfatal"))["action"] == "ignore"
    assert fields(only(link.format("Fatal")), "action", "link", "fatal") == ("reset", 13, True)


def test_the_worst_action():
    reset = "NVRM: Xid (PCI:0000:3b:00): 119, pid=1, name=a, Timeout"
    over = "NVRM: Xid (PCI:{}:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    failed = "NVRM: Xid (PCI:0000:3b:00): 64, Row Remapper Error"
    assert report(log_of(reset)).worst_action == "reset"
    assert report(log_of(reset, over.format("0000:3b"))).worst_action == "ignore"
    assert report(log_of(reset, over.format("0000:4b"))).worst_action == "reset"
    assert report(log_of(reset, over.format("0000:3b"), reset)).worst_action == "reset"
    assert report(log_of(failed, over.format("0000:3b"))).worst_action == "replace"
    assert report(log_of("nothing")).worst_action is None


def test_one_fault_is_one_incident():
    one = [(10.0 + number / 1000, line) for number, line in enumerate(MEASURED)]
    result = report(log_of(*one))
    assert (result.summary["xid"], result.repeats) == (3, ())
    two = [(3600.0 + seconds, line) for seconds, line in one]
    hit = report(log_of(*one, *two)).repeats[0]
    assert (hit.rule.name, hit.place, hit.incidents) == ("same_tpc", "GPC 1, TPC 4", 2)
    assert (hit.last or 0) - (hit.first or 0) == 3600.0
    later = [(2 * _xids.DAY + seconds, line) for seconds, line in one]
    assert report(log_of(*one, *later)).repeats == ()
    elsewhere = [(seconds, line.replace("TPC 4", "TPC 5")) for seconds, line in two]
    assert report(log_of(*one, *elsewhere)).repeats == ()


def test_repeats():
    fault = "NVRM: Xid (PCI:0000:{}:00): 31, pid=1, name=a, MMU Fault"
    rules = [repeat.as_dict() for repeat in report(log_of(*[fault.format("3b")] * 3)).repeats]
    assert [(rule["rule"], rule["incidents"], rule["action"]) for rule in rules] == [("same_gpu", 3, "drain")]
    assert report(log_of(fault.format("3b"), fault.format("4b"))).repeats == ()
    link = "NVRM: Xid (PCI:0000:3b:00): 74, NVLink: fatal error detected on link {}(0x0, 0x0, 0x10000)"
    assert report(log_of(*[link.format(number) for number in (1, 2, 3)])).repeats == ()
    assert report(log_of(*[link.format(14)] * 3)).repeats[0].place == "link 14"
    stop = "NVRM: Xid (PCI:0000:3b:00): 43, pid=1, name=a, Ch 1"
    assert [hit.rule.name for hit in report(log_of(*[stop] * 12, step=5.0)).repeats] == ["burst"]
    assert report(log_of(*[stop] * 12, step=0.5)).repeats == ()
    # A cleanup that follows from another error is no fault of its own.
    cleanup = "NVRM: Xid (PCI:0000:3b:00): 45, pid=1, name=a, Ch 1 caused by previous Xid 149"
    assert report(log_of(*[cleanup] * 50, step=5.0)).repeats == ()


def test_times_that_are_not_known_are_one_incident():
    fault = "NVRM: Xid (PCI:0000:3b:00): 31, pid=1, name=a, MMU Fault"
    assert report(log_of(*[(None, fault)] * 5)).repeats == ()


def test_lost():
    event = only("NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.")
    assert fields(event, "kind", "bus_id", "action", "severity") == ("gpu_lost", "0000:01:00", "reboot", "error")
    assert (
        only(
            "NVRM: The NVIDIA GPU 0000:b3:00.0",
            "NVRM: (PCI ID: 10de:26b5) installed in this system has",
            "NVRM: fallen off the bus and is not responding to commands.",
        )["bus_id"]
        == "0000:b3:00"
    )
    assert only("NVRM: fallen off the bus and is not responding to commands.")["bus_id"] is None
    assert report(log_of("NVRM: The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:26b5)")).events == ()


def test_sxid():
    event = only(
        "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 48 LTSSM Fault Up",
        "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Severity 1 Engine instance 48 Sub-engine instance 00",
        "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Data {0x10000000, 0x10000000, 0x00000000}",
    )
    assert fields(event, "code", "switch", "fatal", "link", "action") == (20034, 1, True, 48, "reset")
    event = only(
        "nvidia-nvswitch2: SXid (PCI:0000:85:00.0): 12028, Non-fatal, Link 61 egress non-posted PRIV error (First)"
    )
    assert fields(event, "fatal", "severity", "action") == (False, "warning", "ignore")


@pytest.mark.parametrize(
    ("line", "kind", "expected"),
    [
        (
            "INFO: task kworker/u8:2:123 blocked for more than 120 seconds.",
            "hung_task",
            {"process_name": "kworker/u8:2", "pid": 123, "blocked_seconds": 120},
        ),
        (
            "watchdog: BUG: soft lockup - CPU#3 stuck for 23s! [python3:4711]",
            "soft_lockup",
            {"process_name": "python3", "pid": 4711, "cpu": 3, "blocked_seconds": 23},
        ),
        (
            "nfs: server store-1 not responding, still trying",
            "nfs_stall",
            {"server": "store-1", "state": "not_responding"},
        ),
        ("nfs: server store-1 not responding, timed out", "nfs_stall", {"server": "store-1", "state": "timed_out"}),
        ("nfs: server store-1 OK", "nfs_stall", {"server": "store-1", "state": "ok"}),
        (
            "EXT4-fs error (device nvme0n1p1): ext4_find_entry:1463: inode #2: comm ls: reading directory lblock 0",
            "filesystem_error",
            {"device": "nvme0n1p1", "filesystem": "ext4", "read_only": None},
        ),
        (
            "EXT4-fs (sda1): Remounting filesystem read-only",
            "filesystem_error",
            {"device": "sda1", "filesystem": "ext4", "read_only": True},
        ),
        ("Aborting journal on device sda1-8.", "filesystem_error", {"device": "sda1-8"}),
        (
            'XFS (dm-0): metadata I/O error in "xfs_buf" at daddr 0x1',
            "filesystem_error",
            {"device": "dm-0", "filesystem": "xfs"},
        ),
        (
            "BTRFS error (device sdb1): bdev /dev/sdb1 errs",
            "filesystem_error",
            {"device": "sdb1", "filesystem": "btrfs"},
        ),
        (
            "I/O error, dev nvme0n1, sector 1336320 op 0x0:(READ) flags 0x80700 phys_seg 4 prio class 2",
            "block_io_error",
            {"device": "nvme0n1", "sector": 1336320},
        ),
        ("blk_update_request: I/O error, dev sda, sector 17", "block_io_error", {"device": "sda", "sector": 17}),
        (
            "Buffer I/O error on dev sda1, logical block 9, async page read",
            "block_io_error",
            {"device": "sda1", "sector": 9},
        ),
        ("nvme nvme2: I/O 0 QID 0 timeout, reset controller", "nvme_error", {"device": "nvme2"}),
        ("nvme nvme0: I/O 900 (I/O Cmd) QID 2 timeout, aborting", "nvme_error", {"device": "nvme0"}),
        ("nvme nvme2: Device not ready; aborting reset", "nvme_error", {"device": "nvme2"}),
        ("nvme nvme2: Removing after probe failure status: -19", "nvme_error", {"device": "nvme2"}),
        (
            "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10",
            "nvme_error",
            {"device": "nvme0"},
        ),
    ],
)
def test_other_kinds(line, kind, expected):
    event = only(line)
    assert event["kind"] == kind
    assert {name: event[name] for name in expected} == expected
    assert event["action"] is None


@pytest.mark.parametrize(
    "line",
    [
        "nvme nvme0: 8/0/0 default/read/poll queues",
        "nvme nvme0: pci function 0000:01:00.0",
        "nvme nvme0: Shutdown timeout set to 10 seconds",
        "nvme nvme0: missing or invalid SUBNQN field.",
        "EXT4-fs (nvme0n1p2): mounted filesystem fc7a1f9e ro with ordered data mode. Quota mode: none.",
        "XFS (dm-0): Mounting V5 Filesystem",
        "oom_reaper: reaped process 15784 (python3), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.158.01",
        "python3[12]: segfault at 0 ip 0 sp 0 error 4 in a: nfs: server x not responding, timed out",
    ],
)
def test_what_is_no_event(line):
    assert report(log_of(line)).events == ()


def test_bounds():
    lines = ["nfs: server s not responding, timed out"] * 30
    result = report(log_of(*lines), max_events=10)
    assert (len(result.events), result.summary["nfs_stall"], result.truncated) == (10, 30, True)
    assert result.events[-1].record.seconds == 29 * 60
    none = report(log_of(*lines), max_events=0)
    assert (none.events, none.summary["nfs_stall"]) == ((), 30)
    picked = report(log_of(*lines, MEASURED[0]), kinds=["xid"])
    assert (picked.summary, len(picked.events)) == ({"xid": 1}, 1)


def test_control_characters_are_escaped():
    event = only("NVRM: Xid (PCI:0000:3b:00): 43, pid=1, name=a\x1b[2J\u202eb, Ch 1\n\x07" + "x" * 5000)
    assert event["message"].isprintable()
    assert event["process_name"] == "a\\x1b[2J\\u202eb"
    assert len(event["message"]) <= 500


PIECES = st.sampled_from(
    [
        *MEASURED,
        "oom-kill:constraint=CONSTRAINT_",
        "MEMCG,",
        ",task_memcg=/",
        ",oom_memcg=",
        ",task=",
        ",pid=7,uid=0",
        "Out of memory: ",
        "Killed process 7 (",
        ") total-vm:9kB",
        "INFO: task ",
        ":7 blocked for more than ",
        "120 seconds",
        "nfs: server ",
        " not responding, still trying",
        "EXT4-fs error (device ",
        "XFS (sda): ",
        "nvme nvme0: ",
        " timeout",
        "I/O error, dev ",
        ", sector ",
        "9" * 30,
        "NVRM: Xid (PCI:0000:3b:00): ",
        "154, GPU recovery action changed from ",
        "\n",
        "\x00",
        "\ud800",
        "NVRM: GPU at PCI:0000:00:06: GPU-0",
        "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 9, Fatal",
    ]
)
TIMES = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18))


@given(
    st.lists(st.tuples(TIMES, st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=6).map("".join))), max_size=20)
)
def test_never_raises_and_is_bounded(lines):
    result = report(log_of(*lines), max_events=5).as_dict()
    assert len(result["events"]) <= 5
    assert len(json.dumps(result)) < 100_000
    assert all(event["message"].isprintable() for event in result["events"])


def test_long_lines_take_no_time():
    heads = (
        "oom-kill:",
        "Killed process 1 (",
        "INFO: task ",
        "nfs: server ",
        "XFS (sda): ",
        "nvme nvme0: I/O ",
        "EXT4-fs error (",
    )
    fillers = ("a", " ", ",task=", ") total-vm:", ":1", "I/O error ", "corruptio", " blocked ")
    begun = time.monotonic()
    report(log_of(*[(head + filler * 2000)[:2000] for head in heads for filler in fillers] * 10))
    assert time.monotonic() - begun < 5
