# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Break a lab in every way of ``tests/integration/diagnosis_scenarios.py``, and see whether the diagnosis finds out.

Prints GitHub-flavoured markdown: what was expected and found in each scenario, and the confusion matrix. Ends with 1
when a cause that must come first did not, or something else is not as it must be. As root the nodes are namespaces; for
others, scenarios that need those are left out.
"""

from __future__ import annotations

import argparse
import pathlib
import platform
import shlex
import shutil
import sys
import tempfile
from collections import Counter
from typing import List, Optional, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from lab.errors import LabError  # noqa: E402
from lab.nodes import DRIVERS, default_driver  # noqa: E402
from tests.integration.diagnosis_player import Outcome, Stage  # noqa: E402
from tests.integration.diagnosis_scenarios import SCENARIOS, named  # noqa: E402


def main(arguments: Sequence[str]) -> int:
    """Play what was asked for; gives the exit status."""
    options = parser().parse_args(arguments)
    if options.list:
        for scenario in SCENARIOS:
            broken = " ".join(f"{fault} {node or ''}".strip() for fault, node in scenario.faults) or "-"
            print(f"{scenario.name}: {broken} -> {' or '.join(scenario.tops)}")
        return 0
    try:
        chosen = [named(name) for name in options.only] or list(SCENARIOS)
    except KeyError as exc:
        print(exc.args[0], file=sys.stderr)
        return 2
    print(f"Command: `{shlex.join(['python', 'benchmarks/diagnosis.py', *arguments])}`\n")
    print(f"Python {platform.python_version()}, Linux {platform.release()}, driver {options.driver}.\n")
    print("| scenario | expected | found | seconds | |\n| --- | --- | --- | --- | --- |", flush=True)
    outcomes: List[Outcome] = []
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-diagnosis-", dir="/var/tmp"))
    stage = Stage(directory, options.driver)
    try:
        for scenario in chosen:
            try:
                outcome = stage.play(scenario)
            except LabError as exc:
                # A lab of which nobody knows what it is like is no use to the next scenario.
                stage.clean = False
                outcome = Outcome(scenario, wrong=(f"the lab: {exc}",))
            outcomes.append(outcome)
            print(row(outcome), flush=True)
            if options.save and outcome.evidence is not None:
                keep(outcome, options.save)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    finally:
        stage.close()
        shutil.rmtree(directory, ignore_errors=True)
    print("\n" + "\n".join(summary(outcomes)))
    return int(len(outcomes) < len(chosen) or any(outcome.wrong for outcome in outcomes))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="diagnosis.py", description="See whether the diagnosis names what was broken.")
    made.add_argument("--list", action="store_true", help="show the scenarios and end")
    made.add_argument("--only", action="append", default=[], metavar="NAME", help="this scenario; may be repeated")
    made.add_argument("--save", type=pathlib.Path, metavar="DIR", help="keep the evidence of each scenario there")
    made.add_argument("--driver", choices=sorted(DRIVERS), default=default_driver(), help="default: %(default)s")
    return made


def row(outcome: Outcome) -> str:
    """A line of the table."""
    scenario = outcome.scenario
    if outcome.skipped:
        return f"| {scenario.name} | {' or '.join(scenario.tops)} | | | left out: {cell(outcome.skipped)} |"
    remark = "; ".join(cell(word) for word in outcome.wrong) or "as it must be"
    expected = " or ".join(scenario.tops)
    return f"| {scenario.name} | {expected} | {outcome.got} | {outcome.seconds:.1f} | {remark} |"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:600]


def summary(outcomes: Sequence[Outcome]) -> List[str]:
    """The counts and the confusion matrix: what was to come first, down; what did, across."""
    played = [outcome for outcome in outcomes if not outcome.skipped]
    pairs = Counter((expected_of(outcome), outcome.got) for outcome in played)
    across = sorted({cause for pair in pairs for cause in pair})
    down = sorted({expected for expected, _got in pairs})
    lines = [
        f"Played {len(played)} of {len(outcomes)} scenarios: {sum(outcome.right for outcome in played)} with the right "
        f"cause first, {sum(not outcome.wrong for outcome in played)} as they must be in everything.",
        "",
        f"| expected \\ found | {' | '.join(across)} |",
        f"|{' --- |' * (len(across) + 1)}",
    ]
    for expected in down:
        counts = [str(pairs[(expected, got)] or "") for got in across]
        lines.append(f"| {expected} | {' | '.join(counts)} |")
    return lines


def expected_of(outcome: Outcome) -> str:
    """Of several causes that may come first, the one that did."""
    found: Optional[str] = outcome.got if outcome.right else None
    return found or outcome.scenario.tops[0]


def keep(outcome: Outcome, folder: pathlib.Path) -> None:
    """Copy the evidence to where the next run does not delete it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join("".join(char if char.isalnum() else " " for char in outcome.scenario.name).split())
    assert outcome.evidence is not None
    shutil.copyfile(outcome.evidence, folder / f"{name}.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
