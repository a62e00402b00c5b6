# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a process stands: lines as real machines have them, and a group that is made here."""

from __future__ import annotations

import os
import pathlib

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _cgroup
from ansible_collections.ringrift.recovery.plugins.module_utils._cgroup import Group, parse
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training_processes import cgroup, tree_of, wait_for

HEX = "5be91a1e6f1b5a1b2d44d0e0b0a2f8a5c1b1e1b4a8a0b1c2d3e4f5061728394a"
FREEZER = pathlib.Path("/sys/fs/cgroup/freezer")


@pytest.fixture
def tree(tmp_path):
    with tree_of(tmp_path / "service") as tree:
        yield tree


@pytest.mark.parametrize(
    ("text", "unit", "user_unit"),
    [
        ("0::/system.slice/ringrift-train.service\n", "ringrift-train.service", False),
        ("0::/system.slice/system-ringrift.slice/train@hex8_2p.service/sub\n", "train@hex8_2p.service", False),
        (
            "12:pids:/system.slice/a.service\n1:name=systemd:/system.slice/train.service\n0::/\n",
            "train.service",
            False,
        ),
        ("1:name=systemd:/\n0::/system.slice/train.service\n", "train.service", False),
        ("0::/user.slice/user-1000.slice/session-4.scope\n", "session-4.scope", False),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/train.service\n", "train.service", True),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/tmux-spawn-1.scope\n", "tmux-spawn-1.scope", True),
        ("0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", "init.scope", True),
        ("0::/system.slice/system-getty.slice\n", None, False),
        ("0::/\n", None, False),
        ("1:cpu:/\n1:memory:/\n", None, False),
        ("0::/system.slice/-rm.service\n", None, False),
        ("0::/system.slice/a b;c.service\n", None, False),
        ("", None, False),
        ("garbage", None, False),
    ],
)
def test_units(text, unit, user_unit):
    found = parse(text)
    assert (found.unit, found.user_unit, found.container) == (unit, user_unit, None)


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"/docker/{HEX}", f"docker://{HEX}"),
        (f"/system.slice/docker-{HEX}.scope", f"docker://{HEX}"),
        (f"/system.slice/docker-{HEX}.scope/inner", f"docker://{HEX}"),
        (f"/machine.slice/libpod-{HEX}.scope/container", f"podman://{HEX}"),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{HEX}.scope", f"podman://{HEX}"),
        (f"/libpod_parent/libpod-{HEX}", f"podman://{HEX}"),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-podx.slice/cri-containerd-{HEX}.scope",
            f"containerd://{HEX}",
        ),
        (f"/system.slice/containerd.service/kubepods-podx.slice:cri-containerd:{HEX}", f"containerd://{HEX}"),
        (f"/kubepods.slice/kubepods-podx.slice/crio-{HEX}.scope", f"cri-o://{HEX}"),
        (f"/kubepods/burstable/pod1234/{HEX}", f"kubernetes://{HEX}"),
        ("/lxc.payload.train-1/init.scope", "lxc://train-1"),
        ("/lxc/train_2", "lxc://train_2"),
        (f"/docker/{HEX[:60]}", None),
        ("/system.slice/docker.service", None),
        ("/system.slice/mydocker-app.service", None),
    ],
)
def test_containers(path, container):
    assert parse(f"0::{path}\n").container == container
    assert parse(f"4:memory,cpu:{path}\n0::/\n").container == container


def test_the_path_of_the_unit_itself():
    group = parse("0::/system.slice/train.service/sub/deeper\n")
    assert group.unit_path == "/system.slice/train.service"
    assert parse("0::/\n").unit_path is None
    assert Group().unit_path is None


@given(st.text(max_size=200))
def test_no_text_is_too_strange(text):
    parse(text)
    parse(f"0::/{text}")


def test_of_a_process_that_is_gone():
    assert _cgroup.read(2**22 + 1) == parse("")


def test_a_hierarchy_that_is_not_mounted():
    assert _cgroup.mount_of("name=nothing") is None
    assert _cgroup.members("name=nothing", "/") is None


def test_members_of_a_group_and_of_those_below_it(tree):
    one, two = tree.train(), tree.train()
    with cgroup("name=systemd", "system.slice", f"test-{os.getpid()}.service", one.pid) as folder:
        below = folder / "below"
        below.mkdir()
        (below / "cgroup.procs").write_text(str(two.pid))
        group = _cgroup.read(two.pid)
        assert group.unit == folder.name
        assert _cgroup.unit_members(group) == {one.pid, two.pid}
        found = {process.pid: process.unit for process in tree.look().processes}
        assert found == {one.pid: folder.name, two.pid: folder.name}
        (folder.parent.parent / "cgroup.procs").write_text(str(two.pid))
        below.rmdir()


def test_what_is_frozen_and_where_it_is_thawed(tree):
    started = tree.train()
    assert _cgroup.frozen_by(started.pid) is None
    with cgroup("freezer", "", f"test-{os.getpid()}", started.pid) as folder:
        (folder / "freezer.state").write_text("FROZEN")
        wait_for(lambda: tree.state(started.pid) == "D")
        assert _cgroup.frozen_by(started.pid) == str(folder / "freezer.state")
        (folder / "freezer.state").write_text("THAWED")
        assert _cgroup.frozen_by(started.pid) is None
