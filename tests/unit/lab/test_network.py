# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Subnets, names and addresses of namespaced nodes."""

from __future__ import annotations

import ipaddress
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import fleet
from lab.errors import LabError
from lab.instance import Instance
from lab.nodes import netns, network

ids = st.text("0123456789abcdef", min_size=6, max_size=6)
pool = list(network.POOL.subnets(new_prefix=16))


@given(ids, st.sets(st.sampled_from(pool), max_size=63))
def test_a_subnet_is_of_the_pool_and_overlaps_nothing(identity, taken):
    chosen = network.choose(identity, list(taken))
    assert chosen.subnet_of(network.POOL)
    assert not any(chosen.overlaps(other) for other in taken)
    assert network.choose(identity, list(taken)) == chosen


def test_a_machine_without_room_is_told_so():
    with pytest.raises(LabError, match=r"10\.0\.0\.0/8.*RINGRIFT_LAB_SUBNET"):
        network.choose("abcdef", [ipaddress.ip_network("10.0.0.0/8")])


def test_the_wanted_subnet_is_taken_or_refused():
    assert str(network.choose("abcdef", [], "192.168.77.0/24")) == "192.168.77.0/24"
    with pytest.raises(LabError, match="overlaps"):
        network.choose("abcdef", [ipaddress.ip_network("192.168.0.0/16")], "192.168.77.0/24")
    with pytest.raises(LabError, match="no network"):
        network.choose("abcdef", [], "nonsense")


@pytest.mark.parametrize("subnet", [None, "192.168.77.0/24"])
def test_addresses_are_of_the_subnet_and_all_different(monkeypatch, subnet):
    monkeypatch.setenv("RINGRIFT_LAB_SUBNET", subnet or "")
    instance = Instance(pathlib.Path("/var/tmp/x"), "netns", nodes=fleet.plan(200))
    network.assign(instance, [])
    addresses = {ipaddress.ip_address(node.address) for node in instance.nodes}
    assert len(addresses) == 201
    inside = ipaddress.ip_network(instance.subnet)
    assert addresses < set(inside.hosts())
    assert all(len(node.interface) <= 15 for node in instance.nodes)
    assert len(instance.bridge) <= 15
    assert all(node.netns.startswith(network.space_prefix(instance.id)) for node in instance.nodes)


def test_a_small_subnet_is_refused(monkeypatch):
    monkeypatch.setenv("RINGRIFT_LAB_SUBNET", "192.168.77.0/29")
    with pytest.raises(LabError, match="too small"):
        network.assign(Instance(pathlib.Path("/var/tmp/x"), "netns", nodes=fleet.plan(3)), [])


def test_paths_of_other_file_systems_are_shown_once():
    shown = netns.other_file_systems(["/proc/self", "/proc", "/", "/usr/bin", "/absent"])
    assert "/" not in shown
    assert "/proc" in shown
    assert not [path for path in shown if path.startswith(("/proc/", "/usr", "/absent"))]
