# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks as Ansible runs them, many in one play, as a start of Ansible costs more than they do."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any, Dict, List, Mapping, Sequence, Tuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
JSON = "ansible.posix.json"


def run_tasks(
    folder: pathlib.Path,
    tasks: Sequence[Mapping[str, Any]],
    *words: str,
    host: str = "node",
    inventory: str = "node,",
    python: str = sys.executable,
    callback: str = JSON,
    **variables: Any,
) -> Tuple[List[Dict[str, Any]], str]:
    """Run all tasks on a node that is this machine, each whatever became of those before it.

    ``folder`` takes what Ansible leaves behind; ``words`` are more arguments of ansible-playbook. Returns the results
    in the order of the tasks (none with another callback than JSON), and all that was printed.
    """
    playbook = folder / "play.yml"
    tasks = [{"name": f"Task {number}", "ignore_errors": True, **task} for number, task in enumerate(tasks)]
    playbook.write_text(json.dumps([{"hosts": host, "gather_facts": False, "tasks": tasks}]))
    environment = {
        **os.environ,
        "ANSIBLE_STDOUT_CALLBACK": callback,
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_REMOTE_TMP": str(folder / "remote"),
        "HOME": str(folder),
    }
    variables = {"ansible_connection": "local", "ansible_python_interpreter": str(python), **variables}
    command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), str(playbook), *words]
    command += ["-i", inventory, "-e", json.dumps(variables)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    printed = done.stdout + done.stderr
    assert "Traceback" not in printed, printed
    if callback != JSON:
        return [], printed
    try:
        document = json.loads(done.stdout[done.stdout.index("{\n") :])
    except ValueError:
        raise AssertionError(printed) from None
    return [task["hosts"][host] for task in document["plays"][0]["tasks"] if host in task["hosts"]], printed
