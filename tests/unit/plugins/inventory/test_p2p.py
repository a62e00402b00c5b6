# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin with a server that answers, as Ansible loads it and as its programs use it."""

from __future__ import annotations

import json
import os
import pathlib
import re
import select
import subprocess
import sys

import pytest
import yaml

from tests.unit.fleet_samples import GH200, captured, hosts, page, peer
from tests.unit.p2p_servers import Scripted, free_port

ROOT = pathlib.Path(__file__).resolve().parents[4]
BIN = pathlib.Path(sys.executable).parent
TOKEN = "s3cret-token"


@pytest.fixture
def server():
    scripted = Scripted({("GET", "/status"): (200, page())})
    yield scripted
    scripted.close()


def clean():
    """The environment without what speaks to Ansible or the plugin."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RINGRIFT_", "ANSIBLE_"))}
    collections = os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(ROOT / "playbooks/collections"))
    return {**kept, "ANSIBLE_COLLECTIONS_PATH": collections, "ANSIBLE_NOCOLOR": "1", "COLUMNS": "1000"}


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    environment = {**clean(), "ANSIBLE_LOCAL_TEMP": str(tmp_path_factory.mktemp("ansible"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.inventory_parser"],
        cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    yield process
    process.stdin.close()
    assert process.wait(30) == 0


@pytest.fixture
def fleet(tmp_path, server, parser):
    return Source(tmp_path, server.url, parser)


class Source:
    """A configuration file of the plugin in a folder of its own, and what Ansible makes of it."""

    def __init__(self, folder, url, parser):
        self.folder = folder
        self.parser = parser
        self.path = folder / "fleet.p2p.yml"
        self.url = url
        self.write(url=url)

    def write(self, **options):
        self.path.write_text(yaml.safe_dump({"plugin": "ringrift.recovery.p2p", **options}, sort_keys=False))
        return self

    def hosts_file(self, **changes):
        (self.folder / "hosts.yaml").write_text(yaml.safe_dump(hosts(**changes), sort_keys=False))
        return "hosts.yaml"

    def run(self, program, *words, cwd=ROOT, **environment):
        kept = {**clean(), "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"), **environment}
        return subprocess.run(
            [sys.executable, str(BIN / program), "-i", str(self.path), *words], cwd=cwd, env=kept, text=True,
            capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def refused(self):
        """What ansible-inventory says, which must end with an error and print no inventory."""
        done = self.run("ansible-inventory", "--list")
        assert done.returncode != 0, done.stdout
        assert not done.stdout.strip()
        return re.sub(r"\s+", " ", done.stderr)

    def ask(self, **environment):
        """The plugin's answer about this file, from the process that has loaded it."""
        print(json.dumps({"path": str(self.path), "environment": environment}), file=self.parser.stdin, flush=True)
        assert select.select([self.parser.stdout], [], [], 60)[0], "no answer within 60 s"
        return json.loads(self.parser.stdout.readline())

    def list(self, **environment):
        """The groups and the variables of hosts, as ``ansible-inventory --list`` gives them."""
        answer = self.ask(**environment)
        assert "found" in answer, answer
        return answer["found"]

    def fails(self, **environment):
        """What it says where it must not give an inventory."""
        answer = self.ask(**environment)
        assert "failed" in answer, answer
        return re.sub(r"\s+", " ", answer["failed"])


def trap(fleet):
    """A template that leaves a file where it is evaluated, and that file."""
    mark = fleet.folder / "evaluated"
    return mark, f"{{{{ lookup('ansible.builtin.pipe', 'touch {mark}') }}}}"


def plain(value):
    """A value of ansible-inventory, which marks what must not be evaluated."""
    if isinstance(value, dict):
        return (
            value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else {k: plain(v) for k, v in value.items()}
        )
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_the_graph_has_the_groups_of_the_playbooks(fleet):
    done = fleet.run("ansible-inventory", "--graph")
    assert done.returncode == 0, done.stderr
    tree = done.stdout
    assert "  |--@coordinator:\n  |  |--coordinator-1\n" in tree
    assert (
        "  |--@training:\n"
        "  |  |--@gh200:\n"
        "  |  |  |--lambda-gh200-b-new\n"
        "  |  |--@h100:\n"
        "  |  |  |--nebius-h100-3\n"
        "  |  |  |--runpod-h100\n"
    ) in tree


@pytest.mark.parametrize("version", ["head", "dec28"])
def test_a_captured_answer_makes_an_inventory(fleet, server, version):
    server.answers["GET", "/status"] = (200, captured(version))
    found = fleet.write(url=fleet.url, allow_no_peers=True).list()
    assert found["coordinator"]["hosts"] == ["testnode"]
    assert found["h100"]["hosts"] == ["testnode"]
    values = plain(found["_meta"]["hostvars"]["testnode"])
    assert (values["p2p_health"], values["p2p_role"], values["p2p_gpu_type"]) == ("alive", "leader", "h100")
    assert "ansible_host" not in values


def test_both_sources_are_merged(fleet):
    found = fleet.write(url=fleet.url, hosts_file=fleet.hosts_file()).list()
    values = plain(found["_meta"]["hostvars"])
    assert (values["runpod-h100"]["ansible_host"], values["runpod-h100"]["ansible_port"]) == ("192.0.2.22", 30755)
    assert values["runpod-h100"]["ansible_user"] == "root"
    assert values["runpod-h100"]["p2p_health"] == "alive"
    assert values["nebius-h100-3"]["ansible_ssh_private_key_file"] == "~/.ssh/id_cluster"
    assert found["p2p_provider_runpod"]["hosts"] == ["runpod-h100"]
    assert "vast-old" not in json.dumps(found["training"])
    assert "vast-old" in found["p2p_health_retired"]["hosts"]


def test_the_groups_are_those_of_the_example_inventory(fleet):
    example = yaml.safe_load((ROOT / "inventory/hosts.yml").read_text())
    found = fleet.list()
    assert set(example) <= set(found)
    assert set(example["training"]["children"]) == set(found["training"]["children"])


def test_a_file_of_another_name_is_left_to_others(fleet):
    fleet.path = fleet.path.rename(fleet.folder / "fleetp2p.yml")
    assert "could not be verified by inventory plugin 'ringrift.recovery.p2p'" in fleet.refused()
    fleet.path = fleet.path.rename(fleet.folder / "p2p.yaml")
    assert fleet.list()["h100"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, "<html>"), "answered with HTML: something else listens there"),
        ((401, {"error": "unauthorized"}), "answered HTTP 401 (unauthorized). Set token"),
        ((500, {"error": "boom"}), "answered HTTP 500 (boom)"),
        ((200, {"peers": []}), "self in its status is missing and not an object"),
        ((200, page(peers={}, all_peers={})), "'coordinator-1' knows no peer: it is cut off"),
        ("silence", "no whole answer within 0.4 s"),
    ],
)
def test_a_broken_answer_is_an_error_and_no_inventory(fleet, server, answer, message):
    server.answers["GET", "/status"] = answer
    assert message in fleet.write(url=fleet.url, timeout=0.4).fails()


def test_after_a_broken_answer_a_program_ends_without_an_inventory(fleet, server):
    server.answers["GET", "/status"] = (500, {"error": "boom"})
    assert "answered HTTP 500 (boom)" in fleet.refused()


def test_a_broken_answer_leaves_nothing_behind_where_ansible_only_warns(fleet, server):
    (fleet.folder / "static.ini").write_text("static-1\n")
    fleet.write(url=fleet.url, strict=True, groups={"odd": "no_such_variable == 1"})
    lenient = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "False"}
    done = fleet.run("ansible-inventory", "-i", str(fleet.folder / "static.ini"), "--list", cwd=fleet.folder, **lenient)
    assert done.returncode == 0
    assert "no_such_variable" in done.stderr
    found = json.loads(done.stdout)
    assert found["ungrouped"]["hosts"] == ["static-1"]
    assert not {"training", "coordinator", "h100"} & set(found)
    assert "nebius-h100-3" not in done.stdout
    # As the collection's own ansible.cfg has it, nothing goes on.
    assert fleet.run("ansible-inventory", "-i", str(fleet.folder / "static.ini"), "--list").returncode != 0


def test_a_failed_orchestrator_can_be_done_without_only_where_that_is_said(fleet):
    dead = f"http://127.0.0.1:{free_port()}"
    listed = fleet.hosts_file()
    text = fleet.write(url=dead, hosts_file=listed).fails()
    assert "connection refused" in text
    assert "set require_status to false" in text
    done = fleet.write(url=dead, hosts_file=listed, require_status=False).run("ansible-inventory", "--list", "--export")
    assert "connection refused" in done.stderr
    assert "the health of each node is unknown" in re.sub(r"\s+", " ", done.stderr)
    found = json.loads(done.stdout)
    assert found["h100"]["hosts"] == ["nebius-h100-3", "runpod-h100"]
    assert "p2p_health_alive" not in found
    assert "connection refused" in fleet.write(url=dead, require_status=False).fails()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Neither url nor hosts_file is set"),
        ({"hosts_file": "missing.yaml"}, "missing.yaml is not there or is no file"),
        ({"url": "ftp://x"}, "is not an http or https URL"),
        ({"url": "http://u:p@h:1"}, "carries a user, a query or a fragment"),
        ({"url": "http://h:1", "timeout": 0}, "both must be above 0"),
        ({"url": "http://h:1", "training_health": ["well"]}, "training_health"),
        ({"url": "http://h:1", "connect_with": "smoke"}, "connect_with"),
    ],
)
def test_an_option_that_cannot_be_used_is_an_error(fleet, options, message):
    assert message in fleet.write(**options).fails()


def test_the_hosts_file_is_read_from_a_vault_too(fleet):
    fleet.hosts_file()
    (fleet.folder / "password").write_text("letmein\n")
    done = subprocess.run(
        [sys.executable, str(BIN / "ansible-vault"), "encrypt", "--vault-password-file", str(fleet.folder / "password"),
         str(fleet.folder / "hosts.yaml")],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    fleet.write(hosts_file="hosts.yaml")
    done = fleet.run("ansible-inventory", "--list", "--vault-password-file", str(fleet.folder / "password"))
    assert json.loads(done.stdout)["h100"]["hosts"], done.stderr
    assert "The hosts file" in fleet.fails()


def test_the_token_comes_from_the_environment_or_a_template_and_is_never_printed(fleet, server):
    environment = {"RINGRIFT_CLUSTER_AUTH_TOKEN": TOKEN, "ANSIBLE_DEBUG": "1"}
    done = fleet.run("ansible-inventory", "--list", "-vvvvv", **environment)
    assert server.seen[-1][2]["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in done.stdout + done.stderr
    fleet.write(url=fleet.url, token="{{ lookup('ansible.builtin.env', 'MY_TOKEN') }}")
    server.answers["GET", "/status"] = (401, {"error": f"bad token {TOKEN}"})
    done = fleet.run("ansible-inventory", "--list", "-vvvvv", MY_TOKEN=TOKEN)
    assert server.seen[-1][2]["Authorization"] == f"Bearer {TOKEN}"
    assert "bad token ***" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


def test_nothing_that_a_peer_says_is_evaluated(fleet, server):
    mark, evil = trap(fleet)
    row = peer(evil, gpu=f"{evil} H100", role=evil, host=evil, version=evil, capabilities=[evil])
    server.answers["GET", "/status"] = (200, page(row, peer("lambda-gh200-b-new", GH200)))
    fleet.write(
        url=fleet.url, strict=True,
        compose={"copied": "p2p_version", "in_a_list": "[p2p_role]"},
        keyed_groups=[{"key": "p2p_version", "prefix": "version"}],
    )  # fmt: skip
    found = fleet.list()
    (name,) = found["h100"]["hosts"]
    assert re.fullmatch(r"lookup_ansible.builtin.pipe_touch_[A-Za-z0-9._-]*-[0-9a-f]{10}", name)
    values = plain(found["_meta"]["hostvars"][name])
    assert (values["p2p_node"], values["copied"], values["in_a_list"]) == (evil, evil, [evil])
    assert "ansible_host" not in values
    assert all(re.fullmatch(r"_?[A-Za-z][A-Za-z0-9_]*", group) for group in found if group != "_meta")
    for text in (
        "{{ p2p_node }}",
        "{{ copied }} {{ p2p_gpu_name }} {{ p2p_capabilities }}",
        "{{ hostvars[inventory_hostname] }}",
    ):
        done = fleet.run("ansible", name, "-c", "local", "-m", "ansible.builtin.debug", "-a", json.dumps({"msg": text}))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "lookup(" in done.stdout
    assert not mark.exists()


def test_a_hosts_file_is_not_evaluated_either(fleet):
    mark, evil = trap(fleet)
    fleet.write(
        hosts_file=fleet.hosts_file(nebius_h100_3={"region": evil, "gpu": f"H100 {evil}", "ringrift_path": f"/{evil}"})
    )
    fleet.list()
    done = fleet.run(
        "ansible", "nebius-h100-3", "-c", "local", "-m", "ansible.builtin.debug",
        "-a", json.dumps({"msg": "{{ p2p_region }} {{ p2p_gpu_name }} {{ ringrift_service_path }}"}),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("lookup(") == 3
    assert not mark.exists()


def test_a_peer_with_the_name_of_a_group_or_of_the_controller_changes_neither(fleet, server):
    rows = [peer(name) for name in ("training", "all", "localhost", "mine")]
    server.answers["GET", "/status"] = (200, page(*rows, peer("nebius-h100-3")))
    found = fleet.write(url=fleet.url, groups={"mine": "p2p_has_gpu"}).list()
    assert "vars" not in found["training"]
    assert "vars" not in found["all"]
    assert not {"training", "all", "localhost", "mine"} & set(found["_meta"]["hostvars"])
    assert len(found["h100"]["hosts"]) == 5
    # A group that is made of what a peer says can meet the name of a host only there.
    keyed = [{"key": "p2p_node", "prefix": "", "separator": ""}]
    server.answers["GET", "/status"] = (200, page(peer("abc"), peer("b")))
    assert "make a group with the name of the host 'abc'" in fleet.write(url=fleet.url, keyed_groups=keyed).fails()


def test_an_address_of_a_peer_does_not_replace_that_of_another_inventory(fleet):
    static = fleet.folder / "static.yml"
    static.write_text(
        yaml.safe_dump({"h100": {"hosts": {"nebius-h100-3": {"ansible_host": "192.0.2.77", "ansible_user": "me"}}}})
    )
    kept = ROOT / "ansible.cfg"
    done = fleet.run("ansible-inventory", "-i", str(static), "-i", str(fleet.path), "--list", ANSIBLE_CONFIG=str(kept))
    # The plugin's file is named first too: it is parsed, then the other, then it again.
    values = plain(json.loads(done.stdout)["_meta"]["hostvars"]["nebius-h100-3"])
    assert (values["ansible_host"], values["ansible_user"], values["p2p_health"]) == ("192.0.2.77", "me", "alive")


def test_compose_groups_and_keyed_groups_work_as_everywhere(fleet):
    fleet.write(
        url=fleet.url, hosts_file=fleet.hosts_file(), leading_separator=False,
        compose={"grace": "120 if p2p_gpu_type | default('') == 'gh200' else 30"},
        groups={"large": "p2p_gpu_memory_gb | default(0) >= 80"},
        keyed_groups=[{"key": "p2p_region | default('nowhere')"}, {"key": "p2p_provider", "prefix": "at"}],
    )  # fmt: skip
    found = fleet.list()
    values = found["_meta"]["hostvars"]
    assert (values["lambda-gh200-b-new"]["grace"], values["runpod-h100"]["grace"]) == (120, 30)
    assert found["large"]["hosts"] == ["nebius-h100-3", "runpod-h100"]
    assert found["eu_north1"]["hosts"] == ["nebius-h100-3"]
    assert found["at_lambda"]["hosts"] == ["lambda-gh200-b-new"]


def test_strict_makes_a_broken_expression_an_error(fleet):
    broken = {"compose": {"x": "no_such_variable.y"}}
    assert "no_such_variable" in fleet.write(url=fleet.url, strict=True, **broken).fails()
    assert fleet.write(url=fleet.url, **broken).list()["h100"]


class TestCache:
    @pytest.fixture(autouse=True)
    def _cached(self, fleet):
        self.options = {
            "url": fleet.url, "cache": True, "cache_plugin": "ansible.builtin.jsonfile",
            "cache_connection": str(fleet.folder / "cache"), "cache_timeout": 600,
        }  # fmt: skip
        fleet.write(**self.options)

    def entry(self, fleet):
        (path,) = (fleet.folder / "cache").iterdir()
        return path

    def change(self, fleet, **values):
        """Write other values into what is kept."""
        path = self.entry(fleet)
        file = json.loads(path.read_text())
        kept = json.loads(file["__payload__"])
        assert set(values) <= set(kept)
        file["__payload__"] = json.dumps({**kept, **values})
        path.write_text(json.dumps(file))

    def aged(self, fleet, seconds):
        """As if the answer had come so many seconds earlier."""
        path = self.entry(fleet)
        moment = path.stat().st_mtime - seconds
        self.change(fleet, at=json.loads(json.loads(path.read_text())["__payload__"])["at"] - seconds)
        os.utime(path, (moment, moment))

    def test_the_second_call_asks_nobody(self, fleet, server):
        first = fleet.list()
        assert len(server.seen) == 1
        second = fleet.list()
        assert len(server.seen) == 1
        assert first["training"] == second["training"]
        values = [plain(found["_meta"]["hostvars"]["nebius-h100-3"]) for found in (first, second)]
        ages = [found.pop("p2p_heartbeat_age") for found in values]
        assert values[0] == values[1]
        assert ages[1] >= ages[0]

    def test_an_answer_that_is_kept_stays_untrusted(self, fleet, server):
        mark, evil = trap(fleet)
        server.answers["GET", "/status"] = (200, page(peer("a", version=evil), peer("b")))
        fleet.list()
        done = fleet.run("ansible", "a", "-c", "local", "-m", "ansible.builtin.debug", "-a", "msg={{ p2p_version }}")
        assert "lookup(" in done.stdout
        assert len(server.seen) == 1
        assert not mark.exists()

    def test_an_answer_that_is_kept_ages(self, fleet, server):
        fleet.list()
        self.aged(fleet, 400)
        assert fleet.list()["p2p_health_stale"]["hosts"]
        assert len(server.seen) == 1

    def test_one_that_has_expired_is_asked_for_anew(self, fleet, server):
        fleet.list()
        self.aged(fleet, 700)
        assert fleet.list()["p2p_health_alive"]["hosts"]
        assert len(server.seen) == 2

    def test_a_refresh_that_fails_is_an_error_and_not_the_old_truth(self, fleet, server):
        fleet.list()
        server.answers["GET", "/status"] = (500, {"error": "boom"})
        assert fleet.list()["h100"]
        self.aged(fleet, 700)
        assert "answered HTTP 500 (boom)" in fleet.fails()

    def test_a_flush_asks_anew(self, fleet, server):
        fleet.list()
        assert fleet.run("ansible-inventory", "--list", "--flush-cache").returncode == 0
        assert len(server.seen) == 2

    def test_another_url_is_another_answer(self, fleet, server):
        fleet.list()
        fleet.write(**{**self.options, "url": [fleet.url, "http://127.0.0.1:9"]}).list()
        assert len(server.seen) == 2

    @pytest.mark.parametrize(
        "values", [{"at": 99999999999}, {"at": "x"}, {"version": 2}, {"page": {"peers": {}}}], ids=str
    )
    def test_an_entry_that_is_not_what_it_should_be_is_not_used(self, fleet, server, values):
        fleet.list()
        self.change(fleet, **values)
        assert fleet.list()["h100"]
        assert len(server.seen) == 2

    def test_the_hosts_file_is_never_kept(self, fleet, server):
        fleet.write(**self.options, hosts_file=fleet.hosts_file()).list()
        fleet.hosts_file(runpod_h100={"ssh_port": 40000})
        assert fleet.list()["_meta"]["hostvars"]["runpod-h100"]["ansible_port"] == 40000
        assert len(server.seen) == 1

    def test_the_token_is_not_kept(self, fleet):
        fleet.list(RINGRIFT_CLUSTER_AUTH_TOKEN=TOKEN)
        assert TOKEN not in self.entry(fleet).read_text()


def test_the_documentation_is_whole():
    done = subprocess.run(
        [sys.executable, str(BIN / "ansible-doc"), "-t", "inventory", "--json", "ringrift.recovery.p2p"],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    documented = json.loads(done.stdout)["ringrift.recovery.p2p"]
    assert {"url", "token", "hosts_file", "cache", "compose", "keyed_groups", "leading_separator"} <= set(
        documented["doc"]["options"]
    )
    for example in yaml.safe_load_all(documented["examples"]):
        assert set(example) <= set(documented["doc"]["options"]), example
