# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
import yaml
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._fleet_hosts import read_hosts
from ansible_collections.ringrift.recovery.plugins.plugin_utils import _hosts_file
from ansible_collections.ringrift.recovery.plugins.plugin_utils._hosts_file import parse_yaml

from tests.unit.fleet_samples import hosts


def one(**row):
    return read_hosts({"hosts": {"n": row}}, "F")["n"]


def test_a_host_has_what_the_file_says():
    found = read_hosts(hosts(), "F")
    node = found["nebius-h100-3"]
    assert (node.ssh_host, node.tailscale_ip, node.port, node.user) == ("192.0.2.21", "100.64.0.21", 22, "ubuntu")
    assert (node.key, node.path, node.python) == ("~/.ssh/id_cluster", "~/ringrift/ai-service", None)
    assert (node.role, node.status, node.provider) == ("gpu_training_primary", "ready", "nebius")
    assert (node.gpu, node.has_gpu, node.facts["gpu_vram_gb"], node.facts["region"]) == (
        "H100 SXM", True, 80, "eu-north1",
    )  # fmt: skip
    assert list(found) == list(hosts()["hosts"])
    assert found["aws-proxy"].path is None


@pytest.mark.parametrize(
    ("row", "has_gpu"),
    [
        ({"gpu": "none"}, False),
        ({"gpu": "None"}, False),
        ({"gpu": " none "}, False),
        ({"gpu": False}, False),
        ({"gpu": "none", "role": "gpu_selfplay"}, False),
        ({"gpu_vram_gb": 0}, False),
        ({"role": "cpu_selfplay"}, False),
        ({"gpu": "none", "gpu_vram_gb": 80}, True),
        ({"gpu": "H100 SXM"}, True),
        ({"gpu_vram_gb": 96}, True),
        ({"role": "gpu_selfplay"}, True),
        ({"role": "nn_training_primary"}, True),
        ({"role": "backbone"}, None),
        ({"gpu": ""}, None),
        ({"gpu": None}, None),
        ({}, None),
    ],
)
def test_whether_there_is_a_gpu_is_yes_no_or_not_known(row, has_gpu):
    assert one(**row).has_gpu is has_gpu


@pytest.mark.parametrize(
    ("activate", "path", "python"),
    [
        ("source ~/ringrift/ai-service/venv/bin/activate", "~/ringrift/ai-service", None),
        ("source ~/ringrift/ai-service/venv/bin/activate", "~/ringrift/ai-service/", None),
        ("source /opt/venv/bin/activate", "~/ringrift/ai-service", "/opt/venv/bin/python"),
        ("cd /x && source /opt/venv/bin/activate", "/x", "/opt/venv/bin/python"),
        (". /opt/venv/bin/activate", None, "/opt/venv/bin/python"),
        ("cd ~/ringrift/ai-service", "~/ringrift/ai-service", None),
        ("source /opt/$(id)/bin/activate", "/x", None),
        ("source /opt/venv/bin/activate; rm -rf /", "/x", None),
        (7, "/x", None),
    ],
)
def test_the_interpreter_is_that_of_the_environment(activate, path, python):
    assert one(venv_activate=activate, ringrift_path=path).python == python


@pytest.mark.parametrize(
    ("name", "row", "provider"),
    [
        ("a", {"vast_instance_id": "1"}, "vast"),
        ("a", {"lambda_id": "1"}, "lambda"),
        ("nebius-h100-3", {}, "nebius"),
        ("nebius-h100-3", {"provider": "Crusoe"}, "crusoe"),
        ("nebius-h100-3", {"provider": "{{ x }}"}, "nebius"),
        ("mac-studio", {}, None),
    ],
)
def test_the_provider_is_named_or_in_an_id_or_in_the_name(name, row, provider):
    assert read_hosts({"hosts": {name: row}}, "F")[name].provider == provider


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("ssh_host", "-oProxyCommand=id", "a host name or an address"),
        ("ssh_host", "a b", "a host name or an address"),
        ("ssh_host", "root@192.0.2.1", "a host name or an address"),
        ("ssh_host", "{{ x }}", "a host name or an address"),
        ("ssh_host", "192.0.2.1\n", "a host name or an address"),
        ("ssh_host", 7, "a host name or an address"),
        ("tailscale_ip", "100.x.x.x;id", "a host name or an address"),
        ("ssh_user", "root -p 1", "a user name"),
        ("ssh_user", "-l", "a user name"),
        ("ssh_user", ["root"], "a user name"),
        ("ssh_port", 0, "a port, 1 to 65535"),
        ("ssh_port", 65536, "a port, 1 to 65535"),
        ("ssh_port", True, "a port, 1 to 65535"),
        ("ssh_port", "22 ", "a port, 1 to 65535"),
        ("ssh_port", 22.5, "a port, 1 to 65535"),
        ("ssh_key", '~/.ssh/id" -o "ProxyCommand=id', "a path"),
        ("ssh_key", "-i", "a path"),
        ("ringrift_path", "/a\n/b", "a path"),
        ("role", "{{ x }}", "a word"),
        ("status", "rm -rf /", "a word"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_host_and_key(key, value, what):
    with pytest.raises(RecoveryError, match=f"F: {key} of host 'n' is .*, which is not {what}") as caught:
        one(**{key: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "no dictionary of hosts"),
        ([], "no dictionary of hosts"),
        ({"hosts": ["a"]}, "no dictionary of hosts"),
        ({"sync_routing": {}}, "no dictionary of hosts"),
        ({"hosts": {}}, "lists no host"),
        ({"hosts": {"a": None}}, "host 'a' has no settings"),
        ({"hosts": {"a": "192.0.2.1"}}, "host 'a' has no settings"),
        ({"hosts": {1: {}}}, "a host with the name '1'; write a name in quotes"),
        ({"hosts": {True: {}}}, "a host with the name 'True'"),
        ({"hosts": {" ": {}}}, "a host with the name ' '"),
    ],
)
def test_another_file_is_an_error(data, message):
    with pytest.raises(RecoveryError, match=message):
        read_hosts(data, "F")


def test_the_yaml_of_a_file_is_read():
    assert parse_yaml(yaml.safe_dump(hosts()), "F") == hosts()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hosts:\n  a: {}\n  b: {}\n  a: {}\n", "F, line 4 cannot be read as YAML: it has 'a' twice"),
        ("hosts: {a: {ssh_host: x, ssh_host: y}}", "F, line 1 cannot be read as YAML: it has 'ssh_host' twice"),
        ("hosts: [", "cannot be read as YAML"),
        ("hosts: !!python/object/apply:os.system [id]", "F, line 1 cannot be read as YAML"),
        ("{}: 1\n? [a]\n: 2\n", "cannot be read as YAML"),
        ("a: " + "[" * 3000, "cannot be read as YAML"),
        ("a: \x00", "cannot be read as YAML"),
    ],
)
def test_what_is_no_yaml_with_each_key_once_is_an_error(text, message):
    with pytest.raises(RecoveryError, match=message):
        parse_yaml(text, "F")


def test_a_file_without_end_is_not_read(monkeypatch):
    monkeypatch.setattr(_hosts_file, "TEXT_LIMIT", 10)
    with pytest.raises(RecoveryError, match="F has 11 characters, and more than 10 are not read"):
        parse_yaml("a" * 11, "F")


def test_a_key_that_is_merged_is_no_double():
    text = "base: &b {ssh_user: root}\nhosts:\n  a: {<<: *b, ssh_user: ubuntu}\n"
    assert parse_yaml(text, "F")["hosts"]["a"] == {"ssh_user": "ubuntu"}
