# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._fleet import HEALTHS, Options, build, gpu_type
from ansible_collections.ringrift.recovery.plugins.module_utils._fleet_hosts import read_hosts
from ansible_collections.ringrift.recovery.plugins.module_utils._fleet_status import read_page
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.fleet_samples import GH200, H100, captured, hosts, page, peer

FLEET_GROUPS = ("training", "h100", "gh200", "rtx_4090")


def fleet(told=None, listed=None, waited=0.0, reserved=(), **options):
    return build(
        None if told is None else read_page(told),
        None if listed is None else read_hosts(listed, "F"),
        Options(**options),
        waited,
        reserved,
    )


def by_name(made):
    return {host.name: host for host in made.hosts}


def training(made):
    return sorted(host.name for host in made.hosts if set(host.groups) & {"training", *made.children})


def one(row, **options):
    """The host that a single peer makes, beside another."""
    return by_name(fleet(page(row, peer("other")), **options))[row["node_id"]]


def test_the_status_alone_makes_the_groups_that_the_playbooks_use():
    made = fleet(page())
    assert made.coordinators == ("coordinator-1",)
    assert made.children == ("gh200", "h100")
    assert training(made) == ["lambda-gh200-b-new", "nebius-h100-3", "runpod-h100"]
    assert by_name(made)["nebius-h100-3"].groups == (
        "p2p_health_alive", "p2p_gpu_h100", "p2p_provider_nebius", "p2p_role_follower", "h100",
    )  # fmt: skip
    assert by_name(made)["runpod-h100"].variables["ansible_host"] == "100.64.0.8"
    assert by_name(made)["coordinator-1"].variables["p2p_leader"] is True
    assert made.notes == ()


def test_the_hosts_file_alone_makes_them_too_and_every_health_is_unknown():
    made = fleet(listed=hosts())
    assert made.coordinators == ("coordinator-1",)
    assert training(made) == ["nebius-h100-3", "runpod-h100"]
    healths = {host.name: host.variables["p2p_health"] for host in made.hosts}
    assert healths.pop("vast-old") == "retired"
    assert set(healths.values()) == {"unknown"}
    assert by_name(made)["runpod-h100"].variables == {
        "ansible_host": "192.0.2.22",
        "ansible_port": 30755,
        "ansible_user": "root",
        "ringrift_service_path": "/workspace/ringrift/ai-service",
        "ringrift_python": "/workspace/venv/bin/python",
        "p2p_node": "runpod-h100",
        "p2p_health": "unknown",
        "p2p_listed": True,
        "p2p_listed_role": "gpu_selfplay_primary",
        "p2p_listed_status": "ready",
        "p2p_provider": "runpod",
        "p2p_gpu_name": "H100 PCIe",
        "p2p_gpu_type": "h100",
        "p2p_gpu_memory_gb": 80,
        "p2p_has_gpu": True,
        "p2p_trains": True,
        "p2p_trains_because": "it has a GPU",
    }


def test_of_both_the_file_says_how_a_node_is_reached_and_the_orchestrator_how_it_is():
    made = fleet(page(), hosts())
    node = by_name(made)["nebius-h100-3"]
    assert node.variables["ansible_host"] == "192.0.2.21"
    assert node.variables["ansible_ssh_private_key_file"] == "~/.ssh/id_cluster"
    assert node.variables["p2p_host"] == page()["peers"]["nebius-h100-3"]["host"]
    assert (node.variables["p2p_health"], node.variables["p2p_heartbeat_age"]) == ("alive", 3.0)
    assert node.variables["p2p_gpu_name"] == H100
    assert (node.variables["p2p_seen"], node.variables["p2p_listed"]) == (True, True)
    assert training(made) == ["lambda-gh200-b-new", "nebius-h100-3", "runpod-h100"]
    assert made.notes == ("Is not in the hosts file: 'lambda-gh200-b-new'.",)
    unlisted = by_name(made)["lambda-gh200-b-new"].variables
    assert unlisted["p2p_listed"] is False
    assert unlisted["ansible_host"] == page()["peers"]["lambda-gh200-b-new"]["host"]


def test_a_listed_node_that_the_orchestrator_lacks_does_not_vanish():
    made = fleet(page(peer("nebius-h100-3")), hosts())
    node = by_name(made)["runpod-h100"]
    assert (node.variables["p2p_seen"], node.variables["p2p_health"]) == (False, "unknown")
    assert "h100" in node.groups


@pytest.mark.parametrize(
    ("row", "health"),
    [
        ({}, "alive"),
        ({"age": 301.0}, "stale"),
        ({"is_alive": False}, "dead"),
        ({"is_alive": False, "age": 1.0}, "dead"),
        ({"is_alive": None}, "unknown"),
        ({"is_alive": "true"}, "unknown"),
        ({"seconds_since_heartbeat": None}, "unknown"),
        ({"seconds_since_heartbeat": -1}, "unknown"),
        ({"retired": True, "is_alive": False}, "retired"),
        ({"retired": True}, "retired"),
        ({"retired": "false"}, "alive"),
    ],
)
def test_health_is_alive_only_for_who_was_heard_of(row, health):
    host = one(peer("a", **row))
    assert host.variables["p2p_health"] == health
    assert f"p2p_health_{health}" in host.groups


@pytest.mark.parametrize("row", [{"is_alive": False}, {"age": 90000.0}, {"retired": True}, {"is_alive": None}])
def test_a_silent_node_stays_in_training(row):
    assert "h100" in one(peer("a", **row)).groups


@pytest.mark.parametrize("health", HEALTHS)
def test_an_operator_can_leave_out_a_health_by_name(health):
    rows = {
        "alive": {}, "stale": {"age": 900.0}, "dead": {"is_alive": False}, "retired": {"retired": True},
        "unknown": {"is_alive": None},
    }  # fmt: skip
    told = page(*[peer(name, **row) for name, row in rows.items()])
    left = tuple(name for name in HEALTHS if name != health)
    made = fleet(told, training_health=left)
    assert training(made) == sorted(left)
    assert by_name(made)[health].variables["p2p_trains_because"] == (
        f"its health is {health}, which training_health leaves out"
    )


def test_an_answer_that_was_kept_ages():
    told = page(peer("a"))
    assert by_name(fleet(told, waited=290))["a"].variables["p2p_health"] == "alive"
    later = by_name(fleet(told, waited=298))
    assert {name: host.variables["p2p_health"] for name, host in later.items()} == {
        "a": "stale",
        "coordinator-1": "alive",
    }
    assert by_name(fleet(told, waited=301))["coordinator-1"].variables["p2p_health"] == "stale"


@pytest.mark.parametrize(
    ("listed", "row", "trains", "because"),
    [
        ({"status": "terminated"}, {"is_alive": False}, False, "the hosts file has it as terminated"),
        ({"status": "archived"}, {"is_alive": None}, False, "the hosts file has it as archived"),
        ({"status": "terminated"}, {}, True, "it has a GPU"),
        ({"status": "offline"}, {"is_alive": False}, True, "it has a GPU"),
        ({"status": "setup"}, {"is_alive": False}, True, "it has a GPU"),
        ({"training_enabled": False}, {}, False, "the hosts file has training_enabled: false"),
        ({"training_enabled": False}, {"training_jobs": 1}, True, "it reports a training job"),
        ({"role": "proxy"}, {}, False, "the hosts file has it as proxy"),
        ({"role": "coordinator"}, {"training_jobs": 2}, True, "it reports a training job"),
        ({"gpu": "none"}, {}, True, "it has a GPU"),
        ({}, {"has_gpu": False, "gpu_name": ""}, True, "it has a GPU"),
        ({"gpu": "none", "gpu_vram_gb": 0}, {"has_gpu": False, "gpu_name": ""}, False, "it has no GPU"),
    ],
)
def test_a_node_is_left_out_only_where_something_says_that_it_cannot_train(listed, row, trains, because):
    made = by_name(fleet(page(peer("runpod-h100", **row)), hosts(runpod_h100=listed)))["runpod-h100"]
    assert (made.variables["p2p_trains"], made.variables["p2p_trains_because"]) == (trains, because)
    assert bool(set(made.groups) & set(FLEET_GROUPS)) is trains


def test_statuses_that_mean_gone_can_be_chosen():
    made = fleet(page(peer("nebius-h100-3")), hosts(runpod_h100={"status": "offline"}), gone_status=("offline",))
    assert training(made) == ["nebius-h100-3", "vast-old"]


@pytest.mark.parametrize("row", [{"has_gpu": None, "gpu_name": None}, {"has_gpu": "no", "gpu_name": None}])
def test_a_node_that_does_not_say_whether_it_has_a_gpu_stays_in_training(row):
    host = one(peer("a", **row))
    assert host.variables["p2p_trains_because"] == "nothing says that it has no GPU"
    assert {"training", "p2p_gpu_unknown"} <= set(host.groups)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (H100, "h100"),
        (GH200, "gh200"),
        ("H100 SXM", "h100"),
        ("GH200 (96 GB)", "gh200"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("Tesla T4", "t4"),
        ("NVIDIA L40S", "l40s"),
        ("RTX 4090", "rtx_4090"),
        ("NVIDIA GeForce RTX 3060 Ti", "rtx_3060"),
        ("RTX4090", "rtx_4090"),
        ("NVIDIA RTX A6000", "rtx_a6000"),
        ("NVIDIA RTX PRO 6000 Blackwell", "rtx_pro_6000"),
        ("AMD Instinct MI300X", "mi300x"),
        ("M3 Max", None),
        ("training", None),
        ("coordinator all {{ 7 * 7 }}", None),
        ("", None),
        (None, None),
    ],
)
def test_the_type_of_a_gpu_is_a_word_out_of_its_name(name, kind):
    assert gpu_type(name) == kind


def test_a_gpu_of_another_type_is_in_training_itself():
    host = one(peer("a", gpu="Strange Accelerator"))
    assert {"training", "p2p_gpu_other"} <= set(host.groups)


def test_who_coordinates_is_named_or_listed_or_leads_or_answered():
    two = hosts(coordinator_2={"role": "coordinator", "ssh_host": "192.0.2.11"})
    led = page(
        peer("nebius-h100-3"), peer("coordinator-2", gpu=""), leader_id=None, effective_leader_id="coordinator-2"
    )
    assert fleet(led, two).coordinators == ("coordinator-2", "coordinator-1")
    assert fleet(led).coordinators == ("coordinator-2",)
    assert fleet(led, coordinator=("nebius-h100-3",)).coordinators == ("nebius-h100-3",)
    nobody = page(leader_id=None, effective_leader_id=None)
    made = fleet(nobody)
    assert made.coordinators == ("coordinator-1",)
    assert "No node leads; 'coordinator-1', which answered, is the coordinator" in made.notes[0]
    with pytest.raises(RecoveryError, match="coordinator names 'x', which neither"):
        fleet(led, coordinator=("x",))
    with pytest.raises(RecoveryError, match="no host with role: coordinator"):
        fleet(listed=hosts(coordinator_1=None))


def test_an_orchestrator_that_is_alone_is_an_error_unless_that_is_meant():
    with pytest.raises(RecoveryError, match="'testnode' knows no peer: it is cut off .* Ask another node"):
        fleet(captured())
    assert training(fleet(captured(), allow_no_peers=True)) == ["testnode"]
    assert training(fleet(captured(), hosts())) == ["nebius-h100-3", "runpod-h100", "testnode"]


def test_without_a_source_or_a_node_that_can_train_there_is_no_fleet():
    with pytest.raises(RecoveryError, match="Neither url nor hosts_file is set"):
        fleet()
    with pytest.raises(RecoveryError, match="None of the 3 nodes can train: 3 nodes: it has no GPU. Correct"):
        fleet(page(peer("a", gpu=""), peer("b", gpu="")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hostvars_prefix": ""}, "hostvars_prefix is ''"),
        ({"hostvars_prefix": "ansible_"}, "hostvars_prefix begins with ansible_"),
        ({"hostvars_prefix": "ringrift_"}, "hostvars_prefix begins with"),
        ({"group_prefix": "a-b"}, "group_prefix is 'a-b'"),
        ({"training_health": ("well",)}, "training_health has 'well'"),
        ({"connect_with": "smoke"}, "connect_with is 'smoke'"),
        ({"stale_after": 0}, "stale_after is 0"),
        ({"stale_after": float("nan")}, "stale_after is nan"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options, message):
    with pytest.raises(RecoveryError, match=message):
        fleet(page(), **options)


def test_prefixes_are_used():
    host = one(peer("a"), hostvars_prefix="n_", group_prefix="g_")
    assert host.variables["n_health"] == "alive"
    assert "g_health_alive" in host.groups
    assert not [name for name in host.variables if name.startswith("p2p_")]


def test_the_address_is_chosen():
    assert by_name(fleet(page(), hosts(), connect_with="tailscale_ip"))["nebius-h100-3"].variables["ansible_host"] == (
        "100.64.0.21"
    )
    told = peer("a", host="203.0.113.7", tailscale_ip="100.64.9.9")
    assert one(told).variables["ansible_host"] == "203.0.113.7"
    assert one(told, connect_with="tailscale_ip").variables["ansible_host"] == "100.64.9.9"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "localhost", "LOCALHOST", "localhost.localdomain", "127.1",
        "2130706433", "0x7f000001", "-oProxyCommand=id", "a b", "$(id)", "{{ x }}", "a\nb", "a;b", "a@b", "", 7, None,
    ],
)  # fmt: skip
def test_an_address_of_a_peer_that_is_none_or_is_ours_is_not_taken(address):
    made = fleet(page(peer("a", host=address, tailscale_ip=""), peer("b")))
    assert "ansible_host" not in by_name(made)["a"].variables
    assert "Has no address; Ansible connects by its name: 'a'." in made.notes


def test_only_an_address_of_a_peer_is_marked_as_such():
    made = by_name(fleet(page(), hosts()))
    assert made["lambda-gh200-b-new"].from_wire == {"ansible_host"}
    assert made["nebius-h100-3"].from_wire == frozenset()


HOSTILE = [
    "{{ lookup('pipe', 'id') }}", "a b", "a\nb", "$(id)", "`id`", "a;rm -rf /", "../../etc", "-e", "~root", "@file",
    "!a", "a:b", "a,b", "a*", "[1:9]", "'", '"', "<script>", "\x1b[31m", "\x00", "é", "all", "ALL", "ungrouped",
    "localhost", "127.0.0.1", "::1", "0.0.0.0", "training", "coordinator", "h100", "gh200", "p2p_health_alive",
    "p2p_gpu_h100", "mine", "a" * 200, "_a", ".a",
]  # fmt: skip
SAFE = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z")


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_becomes_a_safe_one_that_is_no_group_and_not_the_controller(name):
    told = page(peer(name), peer("lambda-gh200-b-new", GH200))
    made = fleet(told, reserved=("mine", "127.0.0.1", "::1"))
    (host,) = (host for host in made.hosts if host.variables["p2p_node"] == name)
    assert SAFE.match(host.name)
    assert host.name != name
    assert re.search(r"-[0-9a-f]{10}\Z", host.name)
    groups = {group for host in made.hosts for group in host.groups}
    assert host.name not in {*groups, "all", "ungrouped", "localhost", "mine"}
    assert "h100" in host.groups
    assert any("it is renamed" in note for note in made.notes)
    assert all("\n" not in note and "\x1b" not in note and "\x00" not in note for note in made.notes)


def test_a_renamed_node_cannot_take_the_place_of_another():
    (renamed,) = (host.name for host in fleet(page(peer("a b"), peer("c"))).hosts if host.name.startswith("a_b-"))
    with pytest.raises(RecoveryError, match=f"Two nodes have the name '{renamed}'"):
        fleet(page(peer("a b"), peer(renamed)))


def test_what_a_peer_says_makes_no_group_but_of_words():
    host = one(peer("a", gpu="{{ 7 }}\nH100", role="x; {{ y }}", provider="z"))
    assert host.groups == ("p2p_health_alive", "p2p_gpu_h100", "p2p_provider_unknown", "h100")
    assert host.variables["p2p_role"] == "x; {{ y }}"


def test_a_peer_sets_no_setting_but_an_address():
    row = peer(
        "a", ansible_user="root", ringrift_python="/tmp/x", ansible_ssh_common_args="-o x", ansible_connection="local"
    )
    settings_of = {name for name in one(row).variables if not name.startswith("p2p_")}
    assert settings_of == {"ansible_host"}


def test_one_machine_under_two_names_is_told():
    made = fleet(page(peer("a", host="203.0.113.7"), peer("b", host="203.0.113.7"), peer("c")))
    assert made.notes == (
        "Share an address; one machine under two names would be handled twice: 'a' and 'b'.",
    )  # fmt: skip
    containers = hosts(
        nebius_h100_3={"ssh_host": "203.0.113.7", "ssh_port": 1}, runpod_h100={"ssh_host": "203.0.113.7", "ssh_port": 2}
    )
    assert fleet(listed=containers).notes == ()


NAMES = st.text(min_size=1, max_size=12).filter(str.strip)
ROWS = st.fixed_dictionaries(
    {
        "is_alive": st.sampled_from([True, False, None, "x"]),
        "seconds_since_heartbeat": st.sampled_from([1, 9999, None, -1]),
        "has_gpu": st.sampled_from([True, False, None]),
        "gpu_name": st.sampled_from([H100, GH200, "", None, "other", "{{ x }}"]),
        "role": NAMES,
        "host": NAMES,
        "retired": st.booleans(),
        "training_jobs": st.sampled_from([0, 1, None]),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, ROWS, min_size=1, max_size=8))
def test_no_node_ever_vanishes_and_who_may_train_is_in_training(rows):
    told = page(peer("sure"), peers=rows, all_peers={"sure": peer("sure")})
    try:
        status = read_page(told)
    except RecoveryError:
        # Only for a name that is another's, or is none.
        assert any(name.strip() in ("sure", "coordinator-1", "") or len(name) > 300 for name in rows)
        return
    made = build(status, None, Options())
    assert sorted(host.variables["p2p_node"] for host in made.hosts) == sorted(status.peers)
    assert len({host.name for host in made.hosts}) == len(made.hosts)
    for host in made.hosts:
        row = rows.get(host.variables["p2p_node"])
        inside = bool(set(host.groups) & {"training", *made.children})
        assert inside is host.variables["p2p_trains"]
        if row is not None and (row["has_gpu"] is not False or row["training_jobs"]):
            assert inside
        if row is not None and (row["is_alive"] is not True or row["seconds_since_heartbeat"] != 1):
            assert host.variables["p2p_health"] != "alive"
