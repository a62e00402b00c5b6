# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _disk
from ansible_collections.ringrift.recovery.plugins.module_utils._disk import FULL, LOW, OK, Disk, Filesystem
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._probes import Once

GIB = 1 << 30
ROOMY = Filesystem("/srv/checkpoints", ("checkpoints", "data"), 500 * GIB, 300 * GIB, 200 * GIB, 1000, 2000, False, 1)
OTHER = Filesystem("/tmp", ("logs", "tmp"), 500 * GIB, 300 * GIB, 200 * GIB, None, None, False, 2)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, OK, "the least room is 300.0 GiB"),
        ({"free": GIB, "used": 10 * GIB}, LOW, "has 1.0 GiB left of the 10.0 GiB that are needed"),
        ({"free": GIB - 1, "used": 10 * GIB}, FULL, "has 1024 MiB left, and the service needs 1.0 GiB"),
        ({"free": 10 * GIB, "used": 189 * GIB}, OK, "the least room"),
        ({"free": 10 * GIB, "used": 190 * GIB}, FULL, "is 95.0% used (10.0 GiB left)"),
        ({"free": 10 * GIB - 1, "used": 100 * GIB}, LOW, "are needed"),
        ({"free": 0, "used": 0, "total": 0}, FULL, "has 0 MiB left"),
        ({"free_inodes": 0}, FULL, "has no inode left"),
        ({"free_inodes": None, "total_inodes": None}, OK, "the least room"),
        ({"read_only": True}, FULL, "is mounted read-only"),
    ],
)
def test_verdict(changes, verdict, words):
    found = Disk((replace(ROOMY, **changes), OTHER)).judge()
    assert found[0] == verdict
    assert words in found[1]
    # The same of logs and temporary files is never more than low, and nobody needs so much room there.
    found = Disk((ROOMY, replace(OTHER, **changes))).judge()
    assert found[0] == (LOW if verdict == FULL else OK)


def test_what_is_full_goes_before_what_is_low():
    disk = Disk((replace(OTHER, read_only=True), replace(ROOMY, free=5 * GIB, used=9 * GIB), replace(ROOMY, free=0)))
    assert disk.judge()[0] == FULL
    assert "has 0 MiB left" in disk.judge()[1]


def test_needed_may_be_given():
    assert Disk((ROOMY,), needed=301 * GIB).judge()[0] == LOW
    assert Disk((ROOMY,), needed=0).judge()[0] == OK


def test_every_file_system_once_with_what_lies_on_it(tmp_path):
    (tmp_path / "service/data").mkdir(parents=True)
    disk = _disk.look(str(tmp_path / "service"), tmp=str(tmp_path))
    (found,) = disk.filesystems
    assert found.uses == ("checkpoints", "data", "logs", "tmp")
    # checkpoints/ does not exist.
    assert found.path == str(tmp_path / "service")
    usage = shutil.disk_usage(tmp_path)
    assert (found.total, found.used // GIB) == (usage.total, usage.used // GIB)
    assert set(disk.as_dict()["filesystems"][0]) == {
        *("path", "uses", "total", "free", "free_inodes", "total_inodes", "read_only", "device")
    }


def test_a_second_device_is_told_apart(tmp_path):
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("/dev/shm is no file system of its own")
    disk = _disk.look(str(tmp_path), tmp="/dev/shm/no/such/folder")
    assert [(found.path, found.uses) for found in disk.filesystems] == [
        (str(tmp_path), ("checkpoints", "data", "logs")),
        ("/dev/shm", ("tmp",)),
    ]


def test_the_nearest_that_exists(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("a/b/c", "file", "file/below", "dangling"):
        assert _disk.examine(str(tmp_path / name)).path == str(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(RecoveryError, match="Could not look at .*loop: Too many levels"):
        _disk.examine(str(tmp_path / "loop"))


def test_a_dead_mount_is_named_and_costs_its_share(tmp_path):
    looks = [
        ("checkpoints", "/dead", Once(lambda: time.sleep(30))),
        ("data", str(tmp_path), Once(lambda: _disk.examine(str(tmp_path)))),
    ]
    begun = time.monotonic()
    with pytest.raises(RecoveryError, match="/dead: no answer within 0.[34].* s. Look at the mount"):
        _disk.gather(looks, 0, 0.4)
    assert time.monotonic() - begun < 3


def test_one_that_is_full_is_told_although_another_is_dead(tmp_path):
    looks = [("tmp", "/dead", Once(lambda: time.sleep(30))), ("data", "/full", Once(lambda: replace(ROOMY, free=0)))]
    assert _disk.gather(looks, 0, 0.3).judge()[0] == FULL


def test_bad_size_is_refused(tmp_path):
    with pytest.raises(RecoveryError, match="disk_needed is -1"):
        _disk.look(str(tmp_path), needed=-1)


def test_a_real_file_system_that_is_full_or_read_only(tmp_path, root):
    """A small one in a mount namespace of its own."""
    unshare = shutil.which("unshare")
    script = f"""
import sys
sys.path[:0] = [{str(root / "playbooks/collections")!r}]
from ansible_collections.ringrift.recovery.plugins.module_utils import _disk
disk = _disk.look({str(tmp_path)!r}, needed=0)
print(disk.judge()[0], [found.read_only for found in disk.filesystems if "checkpoints" in found.uses][0])
"""
    (tmp_path / "checkpoints").mkdir()
    for options, expected in (("size=8m", "full False"), ("size=8m,ro", "full True"), ("nr_inodes=1", "full False")):
        mount = f"mount -t tmpfs -o {options} none {tmp_path}/checkpoints || exit 77"
        done = subprocess.run(
            [unshare or "false", "-m", "sh", "-c", f'{mount}; exec "$@"', "sh", sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode in (1, 77) and not done.stdout and "Traceback" not in done.stderr:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        assert done.stdout.strip() == expected, done.stderr
