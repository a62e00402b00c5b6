# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker that needs one filter loads the files of all of them, and must not pay for the engines of all."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib, pathlib, sys
for path in sorted(pathlib.Path("plugins/filter").glob("*.py")):
    importlib.import_module("ansible_collections.ringrift.recovery.plugins.filter." + path.stem)
print(*sorted(name.rpartition(".")[2] for name in sys.modules if ".recovery.plugins.module_utils._" in name))
"""


def test_loading_the_filters_loads_hardly_an_engine(root):
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=root, env={"PYTHONPATH": str(root / "playbooks/collections")},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["_errors", "_finding"], done.stdout + done.stderr
