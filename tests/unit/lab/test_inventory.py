# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory that the lab writes."""

from __future__ import annotations

import pathlib

import pytest
import yaml

from lab import fleet, inventory
from lab.instance import Instance
from lab.nodes import driver_of, network
from lab.nodes.local import LocalDriver


def built(driver: str, directory: pathlib.Path, count: int = 4) -> dict:
    instance = Instance(directory, driver, nodes=fleet.plan(count))
    made = driver_of(instance)
    if isinstance(made, LocalDriver):
        made.prepare()
    else:
        network.assign(instance, [])
    path = inventory.write(instance, made)
    assert path == directory / "inventory" / "hosts.yml"
    data = yaml.safe_load(path.read_text())
    assert data == inventory.build(instance, made)
    return data


@pytest.mark.parametrize("driver", ["netns", "local"])
def test_groups_are_those_of_the_playbooks(driver, tmp_path):
    data = built(driver, tmp_path)
    assert set(data) == {"all", "coordinator", "training"}
    assert list(data["coordinator"]["hosts"]) == ["coordinator-1"]
    children = data["training"]["children"]
    assert list(children["h100"]["hosts"]) == ["nebius-h100-3", "runpod-h100", "node-04"]
    assert list(children["gh200"]["hosts"]) == ["lambda-gh200-b-new"]


def test_one_node_makes_no_empty_group(tmp_path):
    assert set(built("netns", tmp_path, 1)["training"]["children"]) == {"h100"}


def test_namespaced_nodes_share_their_paths_and_differ_in_address(tmp_path):
    data = built("netns", tmp_path)
    shared = data["all"]["vars"]
    assert shared["ansible_user"] == "root"
    assert shared["ringrift_service_path"] == "/root/ringrift/ai-service"
    assert shared["ringrift_p2p_url"] == "http://localhost:8770"
    assert shared["ringrift_kernel_log"] == "/var/log/kern.log"
    assert "ringrift_within" not in shared
    hosts = data["training"]["children"]["h100"]["hosts"]
    assert set(hosts["runpod-h100"]) == {"ansible_host"}
    assert hosts["runpod-h100"] != hosts["nebius-h100-3"]


def test_directories_have_paths_of_their_own(tmp_path):
    data = built("local", tmp_path)
    hosts = {**data["coordinator"]["hosts"], **data["training"]["children"]["h100"]["hosts"]}
    for name, values in hosts.items():
        assert values["ansible_connection"] == "local"
        for word in ("service_path", "coordination_dir", "nvidia_smi", "kernel_log", "within"):
            assert values[f"ringrift_{word}"].startswith(f"{tmp_path}/nodes/{name}")
    assert hosts["coordinator-1"]["ringrift_p2p_url"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("driver", ["netns", "local"])
def test_the_labs_times_are_short(driver, tmp_path):
    shared = built(driver, tmp_path)["all"]["vars"]
    assert shared.items() >= inventory.SETTINGS.items()


@pytest.mark.parametrize("value", ["plain", "colon: here", "#", "'", '"', "{{ x }}", "", "ü", 5, True, None])
def test_every_value_survives_yaml(value):
    assert yaml.safe_load("\n".join(inventory.as_yaml({"a": {"b": value}}))) == {"a": {"b": value}}
