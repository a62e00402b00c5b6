# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for AWX: the part of its API that the modules of awx.awx call, with its refusals of a wrong file.

It keeps what it is told, and answers as AWX does: lists with filters, secrets as ``$encrypted$``, and 400 for an
unknown field, a reference to nothing, a playbook that the project has not, a survey that AWX would not take, and a
prompt that is not asked for.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, List, Optional, Tuple

TOKEN = "token-of-the-test"
NAMED = {"name", "description"}
PROMPTS = ("job_type", "diff_mode", "limit", "verbosity", "inventory", "timeout", "job_slice_count")
# The fields of each endpoint beside its name and description, and those of them that refer to another endpoint.
FIELDS: Dict[str, set] = {
    "organizations": {"default_environment", "max_hosts"},
    "credential_types": {"kind", "inputs", "injectors", "managed"},
    "credentials": {"organization", "credential_type", "inputs"},
    "execution_environments": {"organization", "image", "pull", "credential"},
    "projects": {"organization", "scm_type", "scm_url", "scm_branch", "scm_clean", "scm_update_on_launch", "timeout"},
    "inventories": {"organization", "kind", "host_filter", "variables"},
    "inventory_sources": {
        "inventory", "source", "source_project", "source_path", "overwrite", "overwrite_vars", "update_on_launch",
        "update_cache_timeout", "timeout", "execution_environment",
    },
    "labels": {"organization"},
    "job_templates": {
        "organization", "job_type", "inventory", "project", "playbook", "execution_environment", "verbosity", "timeout",
        "survey_enabled", "diff_mode", "allow_simultaneous", "job_slice_count", "extra_vars", "forks", "limit",
        "ask_diff_mode_on_launch", "ask_variables_on_launch", "ask_limit_on_launch", "ask_job_type_on_launch",
        "ask_verbosity_on_launch", "ask_inventory_on_launch", "ask_job_slice_count_on_launch", "ask_timeout_on_launch",
    },
    "workflow_job_templates": {
        "organization", "survey_enabled", "allow_simultaneous", "ask_variables_on_launch", "extra_vars", "inventory",
    },
    "workflow_job_template_nodes": {
        "identifier", "workflow_job_template", "unified_job_template", "extra_data", "job_type", "diff_mode", "limit",
        "all_parents_must_converge", "type",
    },
    "workflow_approval_templates": {"timeout"},
    "schedules": {
        "unified_job_template", "rrule", "enabled", "extra_data", "job_type", "diff_mode", "limit", "inventory",
    },
}  # fmt: skip
REFERENCES = {
    "organization": "organizations", "default_environment": "execution_environments", "credential": "credentials",
    "credential_type": "credential_types", "inventory": "inventories", "source_project": "projects",
    "project": "projects", "execution_environment": "execution_environments",
    "workflow_job_template": "workflow_job_templates", "unified_job_template": "unified_job_templates",
}  # fmt: skip
LINKS = ("success_nodes", "failure_nodes", "always_nodes")
ASSOCIATIONS = {
    "job_templates": {"credentials": "credentials", "labels": "labels"},
    "workflow_job_templates": {"labels": "labels"},
    "workflow_job_template_nodes": dict.fromkeys(LINKS, "workflow_job_template_nodes"),
}
UNIFIED = ("job_templates", "projects", "inventory_sources", "workflow_job_templates", "workflow_approval_templates")
MACHINE = {"fields": [{"id": "username"}, {"id": "ssh_key_data", "secret": True}]}
VAULT = {"fields": [{"id": "vault_password", "secret": True}], "required": ["vault_password"]}


class Refused(Exception):
    """AWX answers 400, or what ``status`` says."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


class Awx:
    """What an AWX knows."""

    def __init__(self, project: pathlib.Path) -> None:
        self.project = project
        self.items: Dict[str, Dict[int, Dict[str, Any]]] = {name: {} for name in FIELDS}
        self.surveys: Dict[int, Dict[str, Any]] = {}
        self.linked: Dict[Tuple[int, str], List[int]] = {}
        self.writes: List[Tuple[str, str]] = []
        self._ids = itertools.count(1)
        for name, kind, inputs in (("Machine", "ssh", MACHINE), ("Vault", "vault", VAULT)):
            self.create("credential_types", {"name": name, "kind": kind, "inputs": inputs, "managed": True})

    def named(self, endpoint: str) -> Dict[str, Dict[str, Any]]:
        """The items of an endpoint by name, as a person sees them."""
        return {
            item.get("name") or item["identifier"]: self.shown(endpoint, item) for item in self.items[endpoint].values()
        }

    def links(self, endpoint: str, name: str, kind: str) -> List[str]:
        """The names of what is associated with an item."""
        target = ASSOCIATIONS[endpoint][kind]
        found = self.linked.get((self.named(endpoint)[name]["id"], kind), [])
        return sorted(
            self.items[target][which].get("name") or self.items[target][which]["identifier"] for which in found
        )

    def survey(self, name: str) -> Dict[str, Any]:
        """The survey of a template."""
        return self.surveys[{**self.named("job_templates"), **self.named("workflow_job_templates")}[name]["id"]]

    def find(self, endpoint: str, filters: Dict[str, str]) -> List[Dict[str, Any]]:
        """The items that a list with filters shows."""
        if endpoint == "unified_job_templates":
            candidates = [self.shown(name, item) for name in UNIFIED for item in self.items[name].values()]
            known = NAMED | {"organization", "type", "id"}
        else:
            candidates = [self.shown(endpoint, item) for item in self.items[endpoint].values()]
            known = NAMED | FIELDS[endpoint] | {"id", "type"}
        unknown = set(filters) - known
        if unknown:
            raise Refused(f"{endpoint} has no field named {', '.join(sorted(unknown))}")
        return [item for item in candidates if all(str(item.get(key)) == value for key, value in filters.items())]

    def create(self, endpoint: str, fields: Dict[str, Any]) -> Dict[str, Any]:
        """Add an item."""
        self.check(endpoint, fields)
        twins = [
            item
            for item in self.items[endpoint].values()
            if all(
                item.get(key) == fields.get(key) for key in ("name", "organization", "identifier", "credential_type")
            )
        ]
        if twins and endpoint != "workflow_approval_templates":
            raise Refused(f"{endpoint}: {fields.get('name')} is there already")
        item = {**dict.fromkeys(FIELDS[endpoint]), "description": "", **fields, "id": next(self._ids)}
        self.items[endpoint][item["id"]] = item
        return self.shown(endpoint, item)

    def change(self, endpoint: str, which: int, fields: Dict[str, Any]) -> Dict[str, Any]:
        """Change an item; a secret that is sent back as it was shown stays."""
        item = self.items[endpoint][which]
        self.check(endpoint, {**item, **fields}, fields)
        if "inputs" in fields and endpoint == "credentials":
            kept = item["inputs"] or {}
            fields = {
                **fields,
                "inputs": {
                    key: kept.get(key) if value == "$encrypted$" else value for key, value in fields["inputs"].items()
                },
            }
        item.update(fields)
        return self.shown(endpoint, item)

    def check(self, endpoint: str, item: Dict[str, Any], sent: Optional[Dict[str, Any]] = None) -> None:
        """Refuse what AWX refuses."""
        unknown = set(item if sent is None else sent) - FIELDS[endpoint] - NAMED
        if unknown:
            raise Refused(f"{endpoint} has no field named {', '.join(sorted(unknown))}")
        for field, target in REFERENCES.items():
            if field in FIELDS[endpoint] and item.get(field) is not None:
                self.owner(target, item[field])
        if endpoint == "job_templates" and item["playbook"] not in self.playbooks():
            raise Refused(f"Playbook not found for project: {item['playbook']}")
        if endpoint == "credentials":
            kind = self.items["credential_types"][item["credential_type"]]
            unknown = set(item.get("inputs") or {}) - {field["id"] for field in kind["inputs"]["fields"]}
            if unknown:
                raise Refused(f"Invalid inputs for {kind['name']}: {', '.join(sorted(unknown))}")
        if endpoint in ("schedules", "workflow_job_template_nodes") and item.get("unified_job_template"):
            self.check_prompts(endpoint, item)
        if endpoint == "schedules" and not re.fullmatch(
            r"DTSTART:[0-9]{8}T[0-9]{6}Z RRULE:FREQ=[A-Z]+;INTERVAL=[1-9][0-9]*", item["rrule"]
        ):
            raise Refused(f"rrule {item['rrule']} cannot be read")

    def check_prompts(self, endpoint: str, item: Dict[str, Any]) -> None:
        """A launch may give only what the template asks for."""
        name, template = self.owner("unified_job_templates", item["unified_job_template"])
        for prompt in PROMPTS:
            if item.get(prompt) is not None and not template.get(f"ask_{prompt}_on_launch"):
                raise Refused(f"{template['name']} does not ask for {prompt} on launch")
        questions = self.surveys.get(template["id"], {}).get("spec", [])
        given = item.get("extra_data") or {}
        extra = set(given) - {question["variable"] for question in questions}
        if extra and not template.get("ask_variables_on_launch"):
            raise Refused(f"Variables {', '.join(sorted(extra))} are not allowed on launch of {template['name']}")
        for question in questions:
            if endpoint == "schedules" and question["required"] and question["variable"] not in given:
                raise Refused(f"{question['variable']} is needed to start {template['name']}")
            if question["type"] == "multiplechoice" and given.get(question["variable"], "") not in [
                "",
                *question["choices"],
            ]:
                raise Refused(f"{given[question['variable']]} is no choice of {question['variable']}")

    def owner(self, endpoint: str, which: Any) -> Tuple[str, Dict[str, Any]]:
        """Where an id is, and its item."""
        for name in UNIFIED if endpoint == "unified_job_templates" else (endpoint,):
            if which in self.items[name]:
                return name, self.items[name][which]
        raise Refused(f"Invalid pk {which}: it is in no {endpoint}")

    def playbooks(self) -> List[str]:
        """What AWX offers of a project: files with a line that starts a play or imports one."""
        line = re.compile(r"^\s*-?\s*(hosts|(ansible\.builtin\.)?import_playbook):", re.M)
        paths = sorted((self.project / "playbooks").glob("*.yml"))
        return [f"playbooks/{path.name}" for path in paths if line.search(path.read_text())]

    def set_survey(self, which: int, survey: Dict[str, Any]) -> None:
        """Take a survey, or say what AWX would say about it."""
        for question in survey["spec"]:
            name, kind, default = question["variable"], question["type"], question.get("default", "")
            missing = {"question_name", "variable", "type", "required"} - set(question)
            if missing or not isinstance(question["required"], bool):
                raise Refused(f"question {name}: {missing or 'required'}")
            if kind == "multiplechoice":
                if not question["choices"] or not all(isinstance(choice, str) for choice in question["choices"]):
                    raise Refused(f"question {name}: choices must be texts")
                if default != "" and default not in question["choices"]:
                    raise Refused(f"question {name}: the default is no choice")
            elif kind == "integer":
                if default != "" and not isinstance(default, int):
                    raise Refused(f"question {name}: the default is no whole number")
            elif kind != "text" or not isinstance(default, str):
                raise Refused(f"question {name}: type or default")
            if not all(isinstance(question.get(end, 0), int) for end in ("min", "max")):
                raise Refused(f"question {name}: min and max are whole numbers")
        names = [question["variable"] for question in survey["spec"]]
        if len(names) != len(set(names)):
            raise Refused("variable names must be unique")
        self.surveys[which] = survey

    def shown(self, endpoint: str, item: Dict[str, Any]) -> Dict[str, Any]:
        """An item as the API shows it."""
        url = f"/api/v2/{endpoint}/{item['id']}/"
        related: Dict[str, str] = {}
        summary: Dict[str, Any] = {}
        more: Dict[str, Any] = {}
        if endpoint in ("job_templates", "workflow_job_templates"):
            related["survey_spec"] = f"{url}survey_spec/"
        if endpoint == "projects":
            more["scm_revision"] = "0" * 40
            summary["current_update"] = {"id": item["id"]}
        if endpoint == "workflow_job_template_nodes" and item.get("unified_job_template"):
            owner, template = self.owner("unified_job_templates", item["unified_job_template"])
            related["unified_job_template"] = f"/api/v2/{owner}/{template['id']}/"
        if endpoint == "credentials":
            fields = self.items["credential_types"][item["credential_type"]]["inputs"]["fields"]
            secret = {field["id"] for field in fields if field.get("secret")}
            more["inputs"] = {
                key: "$encrypted$" if key in secret else value for key, value in (item["inputs"] or {}).items()
            }
        return {
            **item,
            **more,
            "type": endpoint[:-1].replace("inventorie", "inventory"),
            "url": url,
            "related": related,
            "summary_fields": summary,
        }


def answer(awx: Awx, method: str, path: str, filters: Dict[str, str], body: Dict[str, Any]) -> Tuple[int, Any]:
    """One request."""
    words = path.strip("/").split("/")[2:]
    if method != "GET":
        awx.writes.append((method, path))
    if words[0] == "project_updates":
        return 200, {"id": int(words[1]), "status": "successful"}
    if words[0] not in (*FIELDS, "unified_job_templates"):
        raise Refused(f"no endpoint {words[0]}", 404)
    if len(words) == 1:
        if method == "POST":
            return 201, awx.create(words[0], body)
        found = awx.find(words[0], filters)
        return 200, {"count": len(found), "next": None, "previous": None, "results": found}
    endpoint, which = words[0], int(words[1])
    if which not in awx.items[endpoint]:
        raise Refused(f"no {endpoint} {which}", 404)
    if len(words) == 2:
        if method == "PATCH":
            return 200, awx.change(endpoint, which, body)
        return 200, awx.shown(endpoint, awx.items[endpoint][which])
    if words[2] == "survey_spec" and endpoint in ("job_templates", "workflow_job_templates"):
        if method == "POST":
            awx.set_survey(which, body)
            return 200, {}
        return 200, awx.surveys.get(which, {})
    if words[2] == "create_approval_template" and endpoint == "workflow_job_template_nodes":
        made = awx.create("workflow_approval_templates", body)
        awx.items[endpoint][which]["unified_job_template"] = made["id"]
        return 201, made
    if words[2] not in ASSOCIATIONS.get(endpoint, {}):
        raise Refused(f"no {path}", 404)
    target = ASSOCIATIONS[endpoint][words[2]]
    linked = awx.linked.setdefault((which, words[2]), [])
    if method == "POST":
        awx.owner(target, body["id"])
        if body.get("disassociate"):
            linked.remove(body["id"])
        elif body["id"] not in linked:
            linked.append(body["id"])
        return 204, None
    results = [awx.shown(target, awx.items[target][one]) for one in linked]
    return 200, {"count": len(results), "next": None, "previous": None, "results": results}


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP for the AWX of its server."""

    server: Server

    def handle_one(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refused("who are you?", 401)
            status, said = answer(
                self.server.awx, self.command, address.path, dict(urllib.parse.parse_qsl(address.query)), body
            )
        except Refused as why:
            self.server.awx_refused.append(f"{self.command} {self.path}: {why}")
            status, said = why.status, {"detail": str(why)}
        content = b"" if said is None else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("X-API-Product-Name", "AWX")
        self.send_header("X-API-Product-Version", "24.6.1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_one  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """An AWX on a free port of loopback."""

    daemon_threads = True

    def __init__(self, project: pathlib.Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.awx = Awx(project)
        self.awx_refused: List[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"
