# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command that the documentation tells somebody to type, and what stands for its placeholders."""

from __future__ import annotations

import pathlib
import re
import shlex
from dataclasses import dataclass
from typing import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md"), *ROOT.glob("benchmarks/*.md")]
)
# Their header is documentation, too.
PLAYBOOKS = sorted([*ROOT.glob("playbooks/*.yml"), *ROOT.glob("extensions/eda/rulebooks/*.yml")])

# In a running text these begin a command; what else stands in code is a name, a path or an option.
TOOLS = r"ansible(?:-[a-z]+)?|antsibull-[a-z]+|make|python|pip|ssh|ssh-keygen|podman|apt-get"
TYPED = re.compile(rf"(?:[A-Z_]+=\S+ )?(?:\.venv[\w-]*/bin/)?(?:(?:{TOOLS}) \S|(?:tools|benchmarks)/\w+\.(?:sh|py)\b)")
# The example inventory stands for that of whoever reads.
PLACEHOLDERS = (
    (re.compile(r'"\$\(\S*python -m lab inventory\)"'), "inventory"),
    (re.compile(r"/etc/ringrift/inventory"), "inventory"),
    (re.compile(r"@my-awx\.yml|@FILE"), "@awx/settings.yml"),
    (re.compile(r"…"), "x"),
    (re.compile(r"(?<![\w/.-])\.venv[\w-]*/bin/"), ""),
)


@dataclass(frozen=True)
class Command:
    """One command, where it stands, and in which folder it is typed."""

    place: str
    text: str
    folder: pathlib.Path = ROOT

    @property
    def plain(self) -> str:
        """As it can be run here: with something for each placeholder, and without what is set in front of it."""
        text = self.text
        for pattern, instead in PLACEHOLDERS:
            text = pattern.sub(instead, text)
        return re.sub(r"^(?:[A-Z_]+=\S* )+", "", text)

    @property
    def argv(self) -> list[str]:
        return shlex.split(self.plain)

    @property
    def variables(self) -> list[str]:
        """What it sets for itself."""
        return re.findall(r"([A-Z_]+)=", (re.match(r"(?:export )?(?:[A-Z_]+=\S* ?)+", self.text) or [""])[0])


def commands(path: pathlib.Path) -> Iterator[Command]:
    """The commands of one page, or of the header of a playbook."""
    page = path.relative_to(ROOT)
    if path.suffix != ".md":
        lines = [
            (number, line) for number, line in enumerate(path.read_text().splitlines(), 1) if line.startswith("# ")
        ]
        for number, line in lines:
            if line.startswith("# $ "):
                yield from _parts(f"{page}:{number}", line[4:])
            for span in re.findall(r"`([^`]+)`", line):
                if TYPED.match(span):
                    yield from _parts(f"{page}:{number}", span)
        return
    fence = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        place = f"{page}:{number}"
        opened = re.match(r" *```(\w*)", line)
        if opened:
            fence = None if fence is not None else opened.group(1)
        elif fence == "console":
            # What does not begin with a prompt is what the command prints.
            if re.match(r" *[$#] ", line):
                yield from _parts(place, re.sub(r"^ *[$#] ", "", line))
        elif fence in ("shell", "bash", "sh"):
            if line.strip() and not line.lstrip().startswith("#"):
                yield from _parts(place, line.strip())
        elif fence is None:
            for span in re.findall(r"`([^`]+)`", line):
                if TYPED.match(span):
                    yield from _parts(place, span)


def _parts(place: str, line: str) -> Iterator[Command]:
    """A line without what is only said of it, in its parts."""
    folder = ROOT
    for part in re.split(r" && ", re.sub(r"\s\s+#.*$", "", line).strip()):
        if part.startswith("cd "):
            folder /= part[3:]
        else:
            yield Command(place, part, folder)


def all_commands() -> list[Command]:
    return [command for path in [*PAGES, *PLAYBOOKS] for command in commands(path)]
