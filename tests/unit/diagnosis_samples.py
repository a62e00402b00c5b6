# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence, verdicts and a run as a real fleet gives them, for the tests of what people see."""

from __future__ import annotations

import copy
from datetime import datetime, timezone
from typing import Any

from hypothesis import strategies as st

CONFIG = "hex8_2p"
AT = "2026-11-28T05:40:00Z"
NOW = datetime(2026, 11, 28, 5, 40, tzinfo=timezone.utc).timestamp()
MIB = 1024 * 1024
GIB = 1024 * MIB
# What somebody may get into a log of a training.
HOSTILE = (
    '<script>alert(1)</script> " onmouseover="alert(2)" style="color:red '
    "\x1b[31;1mred\x1b[2J\r\u202egnp.exe & </details>"
)


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def gpu(index: int = 0, name: str = "NVIDIA H100 80GB HBM3", **readings: Any) -> dict[str, Any]:
    return {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": name,
        "utilization": 97.0,
        "memory_used": 61440.0,
        "memory_total": 81559.0,
        "power": 402.0,
        "power_limit": 700.0,
        "temperature": 61.0,
        "verdict": "busy",
        "reason": "it works",
        **readings,
    }


def idle_gpu(index: int = 0, name: str = "NVIDIA H100 80GB HBM3", **readings: Any) -> dict[str, Any]:
    values = {"utilization": 0.0, "memory_used": 4.0, "power": 71.0, "temperature": 33.0, "verdict": "idle"}
    return gpu(index, name, **{**values, "reason": "nothing is on it", **readings})


def node(
    state: str = "not_running",
    epoch: int | None = None,
    age: float | None = None,
    gpus: list[dict[str, Any]] | None = None,
    booted: float = NOW - 9 * 86400,
    free: float = 812 * GIB,
    pid: int = 4711,
) -> dict[str, Any]:
    """What ``node_evidence`` returns for one node; with an epoch it has trained."""
    alive = state in ("progressing", "starting", "stalled")
    gpus = [gpu() if alive else idle_gpu()] if gpus is None else gpus
    at = None if age is None else NOW - age
    trainer = {"pid": pid, "state": "R", "start_time": NOW - 30000, "cmdline": ["python", "-m", "app.training.train"]}
    last: dict[str, Any] = dict.fromkeys(("started", "progress", "completed", "failed"))
    if epoch is not None and at is not None:
        last["started"] = {"event_id": 1, "at": at - 540.0 * epoch, "total_epochs": 50, "start_epoch": 0}
        last["progress"] = {"event_id": 2, "at": at, "epoch": epoch, "total_epochs": 50, "loss": 0.4312, "finite": True}
    return {
        "progress": {
            "verdict": state,
            "reason": f"no progress for {age / 60:.0f} min" if alive and age else "no trainer runs",
            "now": NOW,
            "trainers": [trainer] if alive else [],
            "last": {
                "epoch": epoch,
                "total_epochs": 50 if epoch is not None else None,
                "batch": None,
                "loss": 0.4312 if epoch is not None else None,
                "val_loss": None,
                "at": at,
                "source": "events",
                "this_run": alive,
                "age": age,
            },
            "checkpoint": None if at is None else {"path": f"checkpoints/checkpoint_{epoch}.pth", "mtime": at + 4.0},
            "problems": [],
        },
        "processes": {"processes": [], "window": 1.0},
        "events": {
            "database": "/run/ringrift/events.db",
            "exists": True,
            "state": "running" if alive else "none",
            "last": last,
            "counts": {},
        },
        "gpu": {"gpus": gpus, "verdict": gpus[0]["verdict"] if gpus else "none", "problems": []},
        "log": {"log_path": "logs/training.log", "exists": True, "findings": [], "lines": []},
        "kernel": {"verdict": "clean", "events": [], "repeats": []},
        "checkpoints": [],
        "locks": [],
        "disk": {
            "filesystems": [{"path": "/", "uses": ["checkpoints", "data"], "total": 3840 * GIB, "free": free}],
            "needed": 10 * GIB,
            "verdict": "ok",
            "reason": "",
        },
        "memory": {"total": 1000 * GIB, "available": 700 * GIB, "verdict": "ok", "reason": ""},
        "host": {"hostname": "node", "now": NOW, "booted_at": booted, "uptime": NOW - booted, "load": [1.2, 1.1, 0.9]},
        "errors": {},
        "unseen": [],
        "seconds": {"gpu": 1.31, "progress": 0.12},
    }


def finding(cause: str, severity: str, host: str | None, summary: str, facts: list[str], **more: Any) -> dict[str, Any]:
    return {
        "cause": cause,
        "severity": severity,
        "confidence": "high",
        "host": host,
        "summary": summary,
        "evidence": facts,
        "fix": None,
        "runbook": None,
        "doc": None,
        **more,
    }


def row(name: str, shown: dict[str, Any], findings: list[dict[str, Any]], coordinator: bool = False) -> dict[str, Any]:
    """The line of a node, as the verdict has it."""
    mine = [entry["severity"] for entry in findings if entry["host"] == name]
    worst = next((severity for severity in ("critical", "warning", "info") if severity in mine), None)
    progress = shown.get("progress", {})
    last = progress.get("last", {})
    trainers = progress.get("trainers", [])
    keys = ("index", "name", "utilization", "memory_used", "memory_total", "power", "temperature", "verdict")
    return {
        "name": name,
        "coordinator": coordinator,
        "state": "unreachable" if shown.get("unreachable") else progress.get("verdict", "unknown"),
        "trainer": f"pid {trainers[0]['pid']} {trainers[0]['state']}" if trainers else None,
        **{key: last.get(key) for key in ("epoch", "total_epochs", "loss", "age")},
        "gpu": [{key: entry.get(key) for key in keys} for entry in shown.get("gpu", {}).get("gpus", [])],
        "gpu_verdict": shown.get("gpu", {}).get("verdict"),
        "disk_free": shown["disk"]["filesystems"][0]["free"] if "disk" in shown else None,
        "worst": worst,
        "findings": len(mine),
        "seconds": max(shown["seconds"].values()) if "seconds" in shown else None,
    }


def verdict_of(hosts: dict[str, Any], findings: list[dict[str, Any]], unknown: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": 1,
        "config": CONFIG,
        "at": AT,
        "stalled": True,
        "headline": f"{CONFIG}: training is STALLED",
        "findings": findings,
        "unknown": unknown,
        "nodes": [row(name, shown, findings, name == "coordinator") for name, shown in hosts.items()],
        "next": f"ansible-playbook full_recovery.yml -e config={CONFIG} --check --diff",
    }


def evidence_of(hosts: dict[str, Any]) -> dict[str, Any]:
    return {"schema": 1, "config": CONFIG, "at": AT, "hosts": hosts, "coordinator": {}}


def small(hostile: str = HOSTILE) -> tuple[dict[str, Any], dict[str, Any]]:
    """Three training nodes and a coordinator: one hangs on a wedged GPU, one ran out of memory, one does not answer."""
    wedged = gpu(utilization=100.0, power=131.0, verdict="wedged", reason="high utilization, near-idle power")
    hung = node("stalled", 17, 2880.0, [wedged])
    hung["kernel"]["events"] = [
        {
            "kind": "xid",
            "time": iso(NOW - 2820),
            "seconds_since_boot": 774780.0,
            "severity": "error",
            "message": "NVRM: Xid (PCI:0000:0f:00): 119, pid=4711, Timeout waiting for RPC from GSP!",
            "action": "RESET_GPU",
            "code": 119,
        }
    ]
    grace = [idle_gpu(0, "NVIDIA GH200 480GB", memory_total=97871.0, power=88.0, power_limit=900.0)]
    oom = node("not_running", 3, 21600.0, grace, booted=NOW - 3 * 86400, free=6 * GIB)
    oom["events"]["last"]["failed"] = {"event_id": 9, "at": NOW - 21300.0, "error": "CUDA out of memory"}
    oom["events"]["state"] = "failed"
    leader = node("not_running", gpus=[], free=212 * GIB)
    leader["gpu"]["verdict"] = "none"
    hosts = {
        "coordinator": leader,
        "nebius-h100-3": hung,
        "lambda-gh200-b": oom,
        "runpod-h100": {"unreachable": True, "msg": "ssh: connect to host 10.0.0.9 port 30755: Connection timed out"},
    }
    doc = {"doc": "docs/gpu_status.md"}
    findings = [
        finding(
            "gpu_wedged",
            "critical",
            "nebius-h100-3",
            "GPU 0 shows load and does no work",
            ["GPU 0: 100 % utilization at 131 W of 700 W, no memory traffic in 5 samples", "XID 119 at 04:53:00 UTC"],
            fix=f"full_recovery.yml -e config={CONFIG}",
            **doc,
        ),
        finding(
            "process_hung",
            "critical",
            "nebius-h100-3",
            "the trainer lives and has made no progress for 48 min",
            ["pid 4711 R, one thread spins", "last epoch 17 of 50 at 04:52:00 UTC", f"last line of the log: {hostile}"],
            fix=f"full_recovery.yml -e config={CONFIG}",
            doc="docs/stopping.md",
        ),
        finding(
            "gpu_oom",
            "warning",
            "lambda-gh200-b",
            "the last run ran out of GPU memory with batch size 512",
            ["CUDA out of memory. Tried to allocate 2.50 GiB", "epoch 3 of 50, 6 h ago"],
            fix=f"fix.yml -e config={CONFIG} -e cause=gpu_oom",
            runbook="1. GPU Out of Memory (OOM)",
            doc="docs/batch_size.md",
        ),
        finding(
            "disk_full",
            "warning",
            "lambda-gh200-b",
            "6.0 GiB are free where 10 GiB are needed",
            ["/: 6.0 GiB of 3.8 TiB free, for checkpoints and data"],
            fix=f"fix.yml -e config={CONFIG} -e cause=disk_full",
            runbook="Prevention 3. Monitor disk space",
        ),
        finding(
            "node_unreachable",
            "warning",
            "runpod-h100",
            "it does not answer, so it does not count as stopped",
            ["ssh: connect to host 10.0.0.9 port 30755: Connection timed out"],
        ),
        finding(
            "cooldown_active",
            "info",
            None,
            "the orchestrator's cooldown ends in 12 min",
            ["it holds up automatic triggers only"],
            confidence="medium",
            fix=f"fix.yml -e config={CONFIG} -e cause=cooldown_active",
            runbook="4. TrainingCoordinator Cooldown Active",
        ),
    ]
    unknown = [
        {"host": "runpod-h100", "probe": "all", "reason": "Connection timed out"},
        {"host": "lambda-gh200-b", "probe": "kernel", "reason": "the kernel log needs root; run with -b"},
    ]
    return verdict_of(hosts, findings, unknown), evidence_of(hosts)


def large(count: int = 100) -> tuple[dict[str, Any], dict[str, Any]]:
    """A hundred nodes: one trainer hangs, a dozen are short of disk, a few do not answer, the rest is idle."""
    hosts: dict[str, Any] = {"coordinator": node(gpus=[])}
    hosts["coordinator"]["gpu"]["verdict"] = "none"
    findings, unknown = [], []
    for number in range(1, count):
        name = f"node-{number:03d}"
        if number == 7:
            hosts[name] = node("stalled", 31, 4100.0)
        elif number % 33 == 0:
            hosts[name] = {"unreachable": True, "msg": "Connection timed out"}
        else:
            hosts[name] = node(gpus=[idle_gpu(index) for index in range(8 if number % 2 else 1)])
        if number % 8 == 1:
            facts = [f"/data: {number % 10}.2 GiB of 3.8 TiB free"]
            summary = "less space is free than 10 GiB"
            fix = f"fix.yml -e config={CONFIG} -e cause=disk_full"
            findings.append(finding("disk_full", "warning", name, summary, facts, fix=fix))
        if number % 33 == 0:
            unknown.append({"host": name, "probe": "all", "reason": "Connection timed out"})
            findings.append(
                finding("node_unreachable", "warning", name, "it does not answer", ["Connection timed out"])
            )
        elif number % 9 == 0:
            unknown.append({"host": name, "probe": "kernel", "reason": "the kernel log needs root; run with -b"})
    summary = "the trainer lives and has made no progress for 68 min"
    fix = f"full_recovery.yml -e config={CONFIG}"
    findings.insert(0, finding("process_hung", "critical", "node-007", summary, ["pid 4711 R"], fix=fix))
    return verdict_of(hosts, findings, unknown), evidence_of(hosts)


def healthy() -> tuple[dict[str, Any], dict[str, Any]]:
    """A training that moves."""
    hosts = {"coordinator": node(gpus=[]), "nebius-h100-3": node("progressing", 18, 42.0)}
    findings = [finding("not_stalled", "info", None, "training moves on nebius-h100-3", ["epoch 18 of 50, 42 s ago"])]
    shown = verdict_of(hosts, findings, [])
    return {**shown, "stalled": False, "headline": f"{CONFIG}: training is not stalled", "next": ""}, evidence_of(hosts)


def run(outcome: str = "recovered, progress is proven") -> dict[str, Any]:
    """What ``run_report`` returns of a recovery."""
    lock = {"holder": {"token": "nebius-h100-3:4711:training:hex8_2p"}}
    proof = [{"source": "events", "what": "epoch 18 of 50 was finished after epoch 17"}]
    steps = {
        "stop_training": {"changed": True, "survivors": [], "stopped": [{"pid": 4711}]},
        "clear_lock": {"changed": True, "released": True, "lock": lock, "record": None},
        "restore_checkpoint": {"changed": False, "restored": False, "quarantined": []},
        "start": {"changed": True, "pid": 5822, "cmdline": ["python"], "log": "logs/training.log"},
        "monitor": {"progressed": True, "proof": proof, "verdict": "progressing"},
    }
    fleet = {"clear_jobs": {"changed": True, "profile": "ringrift", "cleared": [{"id": "job-7", "was": "running"}]}}
    return copy.deepcopy(
        {
            "schema": 1,
            "config": CONFIG,
            "outcome": outcome,
            "step": "monitor",
            "next": f"ansible-playbook monitor.yml -e config={CONFIG}",
            "check_mode": False,
            "at": "2026-11-28T05:52:10Z",
            "diagnosis": None,
            "fleet": fleet,
            "nodes": {"nebius-h100-3": steps, "lambda-gh200-b": {"stop_training": {"changed": False, "survivors": []}}},
        }
    )


# Any text in any field

# Lone surrogates too: JSON can carry them.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=40) | st.sampled_from(
    [
        HOSTILE,
        "</style><img src=x>",
        "\x1b]0;title\x07",
        "-->",
        '"><svg onload=alert(1)>',
        "a\nb{} 1",
        "\\",
        "\ud800",
        "x" * 3000,
    ]
)
NUMBERS = st.none() | st.floats() | st.integers() | st.just(10**400) | TEXTS


def strings_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {text for entry in value.values() for text in strings_of(entry)} | set(value.get("hosts") or {})
    if isinstance(value, list):
        return {text for entry in value for text in strings_of(entry)}
    return {value} if isinstance(value, str) else set()


def replaced(value: Any, texts: dict[str, str], number: dict[float, Any], key: str = "") -> Any:
    """The same shape with other texts and numbers; a host keeps being the same host everywhere."""
    if isinstance(value, dict):
        keys = {name: texts.get(name, name) if key in ("hosts", "nodes") else name for name in value}
        return {keys[name]: replaced(entry, texts, number, name) for name, entry in value.items()}
    if isinstance(value, list):
        return [replaced(entry, texts, number) for entry in value]
    if isinstance(value, str):
        return texts.get(value, value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and key != "schema":
        return number.get(value, value)
    return value


@st.composite
def scrambled(draw: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A verdict, its evidence and a run, with any text in any field."""
    shown, seen = small(draw(TEXTS))
    done = run()
    texts = draw(st.dictionaries(st.sampled_from(sorted(strings_of([shown, seen, done]))), TEXTS, max_size=12))
    numbers = draw(st.dictionaries(st.sampled_from([0.0, 17, 50, 2880.0, 0.4312, 100.0, 131.0, NOW - 2880.0]), NUMBERS))
    return replaced(shown, texts, numbers), replaced(seen, texts, numbers), replaced(done, texts, {})
