# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask about known vulnerabilities of all that is pinned in requirements/ and of all that was installed with it.

It ends with 0 when none is known, 1 when some are, and 3 when it could not look at everything: for pip-audit itself
a package that the service does not answer for is one without a vulnerability.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any, Dict, List, Optional, Set, Tuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!_-]+)")
LIMIT = 900
NOT_SEEN = 3


def wanted() -> Set[Tuple[str, str]]:
    """Name and version of every package that is pinned, or is in an environment of this checkout."""
    found: Set[Tuple[str, str]] = set()
    for path in (ROOT / "requirements").glob("*.txt"):
        # What stands behind a # in benchmarks.txt is installed by those who read it.
        found |= {(_plain(name), version) for name, version in PIN.findall(path.read_text())}
    places = [str(place) for place in ROOT.glob(".venv*/lib/python3*/site-packages")]
    for package in importlib.metadata.distributions(path=places):
        found.add((_plain(package.metadata["Name"]), package.version))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def ask(packages: Dict[str, str]) -> Optional[List[Dict[str, Any]]]:
    """The answer for each package; None when the service could not be asked."""
    with tempfile.TemporaryDirectory() as folder:
        pins, answer = pathlib.Path(folder, "pins.txt"), pathlib.Path(folder, "answer.json")
        pins.write_text("".join(f"{name}=={version}\n" for name, version in sorted(packages.items())))
        words = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        words += ["--requirement", str(pins), "--format", "json", "--output", str(answer)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            print(f"audit: no answer within {LIMIT} s", file=sys.stderr)
            return None
        try:
            return json.loads(answer.read_text())["dependencies"]
        except (OSError, ValueError, KeyError):
            print(f"audit: {(done.stderr.strip().splitlines() or ['pip-audit says nothing'])[-1]}", file=sys.stderr)
            return None


def main() -> int:
    packages = wanted()
    # One package first: where nobody answers, hundreds of questions get no answer either.
    first = ("ansible-core", dict(packages)["ansible-core"])
    rounds = [dict([first])]
    rest = packages - {first}
    while rest:
        part = dict(sorted(rest))
        rounds.append(part)
        rest -= set(part.items())
    bad, unseen, seen = [], [], 0
    for part in rounds:
        answers = ask(part)
        if answers is None:
            answers = [{"name": name, "skip_reason": "no answer"} for name in part]
        for entry in answers:
            if "vulns" not in entry:
                unseen.append(f"{entry['name']}: {entry.get('skip_reason', 'no answer')}")
                continue
            seen += 1
            for found in entry["vulns"]:
                fixed = ", ".join(found.get("fix_versions") or ()) or "none"
                bad.append(f"{entry['name']} {entry['version']}: {found['id']}, fixed in: {fixed}")
        if not seen:
            break
    for line in sorted(bad):
        print(line)
    if unseen:
        print(f"audit: could not look at {len(packages) - seen} of {len(packages)} packages. First {unseen[0]}.")
        print("Nothing is known about those. Run it again where https://pypi.org/pypi/ansible-core/json answers.")
    else:
        print(f"audit: {len(packages)} packages, {len(bad)} known vulnerabilities")
    return 1 if bad else NOT_SEEN if unseen else 0


if __name__ == "__main__":
    sys.exit(main())
