# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's directory and the file that remembers a lab."""

from __future__ import annotations

import multiprocessing
import os
import pathlib

import pytest

from lab import fleet, instance
from lab.errors import LabError, UsageError
from lab.processes import Mark, boot_id, mark_of


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "lab"
    path.mkdir(mode=0o700)
    return path


def make(directory: pathlib.Path, **more) -> instance.Instance:
    return instance.Instance(directory, "local", boot=boot_id(), nodes=fleet.plan(3), **more)


def test_what_is_saved_is_what_is_loaded(directory):
    saved = make(directory, phase="up", config="square8_3p", training=False)
    saved.nodes[1].init = Mark(123, 456)
    saved.save()
    assert instance.load(directory) == saved
    assert os.listdir(directory) == [instance.STATE]


def test_there_is_no_lab_where_there_is_no_file(directory):
    assert instance.load(directory) is None
    assert instance.load(directory / "absent") is None
    with pytest.raises(LabError, match="No lab is up"):
        instance.require(directory)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 0}', '{"version": 99, "nodes": []}', "\0"])
def test_a_damaged_state_names_the_way_out(directory, text):
    (directory / instance.STATE).write_text(text)
    with pytest.raises(LabError, match="down"):
        instance.load(directory)


def test_a_lab_of_another_boot_is_not_up(directory):
    lost = make(directory, phase="up")
    lost.boot = "another"
    lost.save()
    with pytest.raises(LabError, match="restarted"):
        instance.require(directory)


def test_half_a_lab_is_not_up(directory):
    make(directory).save()
    with pytest.raises(LabError, match="half built"):
        instance.require(directory)


def test_a_node_is_found_by_name(directory):
    lab = make(directory)
    assert lab.node("runpod-h100").group == "h100"
    assert not lab.coordinator.trains
    with pytest.raises(LabError, match="nebius-h100-3"):
        lab.node("absent")


@pytest.mark.parametrize("path", ["/var/tmp/a b", "/var/tmp/a,b", "/var/tmp/a:b", "/var/tmp/a'b", "/var/tmp/ä", "/"])
def test_a_path_that_options_cannot_carry_is_refused(path):
    with pytest.raises(LabError, match="--dir"):
        instance.check_dir(pathlib.Path(path))


@pytest.mark.parametrize("path", [instance.ROOT, instance.ROOT / "lab" / "x", instance.ROOT.parent])
def test_the_checkout_is_no_place_for_a_lab(path):
    with pytest.raises(LabError, match="checkout"):
        instance.check_dir(path)


def test_links_are_followed_once_and_for_all(directory, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(directory)
    assert instance.check_dir(link) == directory


def test_the_id_belongs_to_the_directory():
    one, other = (instance.instance_id(pathlib.Path(f"/var/tmp/{name}")) for name in "ab")
    assert one != other
    assert len(one) == 6
    assert instance.instance_id(pathlib.Path("/var/tmp/a")) == one


def test_the_default_is_the_environment_then_a_directory_of_this_user(monkeypatch):
    monkeypatch.setenv("RINGRIFT_LAB_DIR", "/var/tmp/mine")
    assert instance.default_dir() == pathlib.Path("/var/tmp/mine")
    monkeypatch.delenv("RINGRIFT_LAB_DIR")
    assert str(os.getuid()) in str(instance.default_dir())


def test_only_one_command_at_a_time_works_on_a_lab(directory):
    def second(queue):
        try:
            with instance.claim(directory, create=False):
                queue.put("in")
        except LabError as exc:
            queue.put(str(exc))

    queue = multiprocessing.get_context("fork").Queue()
    with instance.claim(directory, create=False):
        process = multiprocessing.get_context("fork").Process(target=second, args=(queue,))
        process.start()
        assert "at work" in queue.get(timeout=10)
        process.join(10)
    with instance.claim(directory, create=False):
        pass


def test_a_directory_with_other_files_is_not_taken(directory):
    (directory / "precious").write_text("x")
    with pytest.raises(LabError, match="not the lab's"), instance.claim(directory, create=True):
        pass


def test_a_directory_that_others_can_write_is_not_taken(directory):
    directory.chmod(0o777)
    with pytest.raises(LabError, match="written by others"), instance.claim(directory, create=True):
        pass


def test_removal_leaves_nothing_and_follows_no_link(directory, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    make(directory).save()
    (directory / "nodes").mkdir()
    (directory / "nodes" / "link").symlink_to(outside)
    (directory / "top").symlink_to(outside)
    instance.remove(directory)
    assert not directory.exists()
    assert (outside / "file").read_text() == "x"


def test_removal_can_keep_the_directory(directory):
    make(directory).save()
    instance.remove(directory, keep=True)
    assert list(directory.iterdir()) == []


def test_the_fleet_is_the_runbooks_and_then_numbered():
    names = [node.name for node in fleet.plan(5)]
    assert names == ["coordinator-1", "nebius-h100-3", "runpod-h100", "lambda-gh200-b-new", "node-04", "node-05"]
    assert [node.group for node in fleet.plan(3)] == ["coordinator", "h100", "h100", "gh200"]


@pytest.mark.parametrize("count", [-1, 0, 201])
def test_too_few_and_too_many_nodes_are_refused(count):
    with pytest.raises(UsageError, match="--nodes"):
        fleet.plan(count)


def test_a_mark_is_of_one_process_only():
    mine = mark_of(os.getpid())
    assert mine is not None
    assert mine.pid == os.getpid()
    assert mark_of(2**22 + 1) is None
