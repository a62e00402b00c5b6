# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo` as an ordinary user, and what it leaves behind.

No other lab may be up meanwhile: about the trainers of another user nothing could be proven.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import sys
import tempfile

import pytest

from tests.integration.harness import ROOT, run

pytestmark = pytest.mark.lab

NOBODY = 65534


@pytest.fixture
def home():
    """A home of its own outside of this user's folders, which an ordinary user may not enter."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ringrift-demo-home-", dir="/var/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def test_demo_as_an_ordinary_user(home):
    command = [sys.executable, "-m", "lab.demo", "--driver", "local", "--dir", str(home / "lab")]
    if os.geteuid() == 0:
        command = as_nobody(command, home)
    # The user nobody has no home of its own, which an ordinary user has.
    own = {"HOME": str(home), "ANSIBLE_REMOTE_TEMP": str(home / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = run(*command, timeout=280, **own)
    assert done.returncode == 0, done.stdout
    titles = [line.split(" ===")[0].strip("= ") for line in done.stdout.splitlines() if line.startswith("=== ")]
    assert [title.split(". ")[0] for title in titles] == ["1", "2", "3", "4", "5", "6", "7"]
    for word in ("before: epoch", "after:  epoch", "proof:  "):
        assert word in done.stdout
    assert "The recovery took" in done.stdout
    assert not (home / "lab").exists()


def as_nobody(command: list[str], home: pathlib.Path) -> list[str]:
    """Run it as a user without rights, who may enter the folders of this interpreter and of the checkout.

    Where one of them is closed (root's home often is), it is opened in an overlay that only this command sees.
    """
    script = []
    for number, folder in enumerate(closed_folders()):
        layer = home / f"layer{number}"
        for name in ("upper", "work"):
            (layer / name).mkdir(parents=True)
        script.append(
            f"mount -t overlay overlay -o lowerdir={folder},upperdir={layer}/upper,workdir={layer}/work {folder}"
        )
        script.append(f"chmod 755 {folder}")
    drop = f"exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    line = "; ".join(["set -e", *script, f"cd {ROOT}", f"{drop} {shlex.join(command)}"])
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", line]


def closed_folders() -> list[pathlib.Path]:
    """The folders on the way to the interpreter and to the checkout that others may not enter, outermost first."""
    wanted = [pathlib.Path(sys.executable).resolve(), ROOT]
    closed = {folder for path in wanted for folder in path.parents if not folder.stat().st_mode & 0o001}
    return sorted(closed, key=lambda folder: len(folder.parts))
