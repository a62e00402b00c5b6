# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program is run with a deadline, and what it writes has a bound."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import textwrap
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils import _command
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError


@pytest.fixture
def tool(tmp_path):
    """Makes a program out of the body of a Python program."""

    def make(body):
        path = tmp_path / "a-tool"
        path.write_text(f"#!{sys.executable}\n{textwrap.dedent(body)}")
        path.chmod(0o755)
        return str(path)

    return make


def test_the_session_of_the_tool_is_killed(tool, tmp_path):
    path = tool(
        f"""
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = os.fork()
        if child:
            open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child}}")
        time.sleep(60)
        """
    )
    answer = _command.run([path], 1.0)
    assert answer.hung
    # On a busy machine a process dies a moment after it was killed.
    deadline = time.monotonic() + 10
    for pid in (tmp_path / "pids").read_text().split():
        while runs(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not runs(pid)


def runs(pid):
    try:
        return ") Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_tool_that_cannot_be_killed_is_left_behind(tool, monkeypatch):
    spared = []
    monkeypatch.setattr(_command.os, "killpg", lambda group, _number: spared.append(group))
    begun = time.monotonic()
    answer = _command.run([tool("import time; time.sleep(60)")], 0.3)
    assert time.monotonic() - begun < 3
    assert answer.hung
    monkeypatch.undo()
    (group,) = spared
    os.killpg(group, signal.SIGKILL)


def test_what_it_leaves_in_its_session_ends_with_it(tool):
    path = tool(
        """
        import os, time
        child = os.fork()
        if not child:
            os.closerange(0, 3)
            time.sleep(60)
        print(child)
        """
    )
    answer = _command.run([path], 20)
    assert answer.code == 0
    deadline = time.monotonic() + 10
    while runs(int(answer.output)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not runs(int(answer.output))


def test_who_inherits_the_output_is_not_waited_for(tool):
    path = tool(
        """
        import os, sys, time
        if not os.fork():
            os.setsid()
            time.sleep(20)
            os._exit(0)
        print("done", flush=True)
        os._exit(3)
        """
    )
    begun = time.monotonic()
    answer = _command.run([path], 10)
    assert time.monotonic() - begun < 8
    assert (answer.code, answer.output) == (3, "done\n")


WRITER = "import sys; sys.stdout.write(''.join(f'{n:07} ' for n in range(40000))); sys.stderr.write('e' * 5000)"


@pytest.mark.parametrize(
    ("newest", "first", "last"), [(False, "0000000", "0000124"), (True, "0039875", "0039999")], ids=["oldest", "newest"]
)
def test_output_is_bounded(tool, newest, first, last):
    answer = _command.run([tool(WRITER)], 20, most=1000, newest=newest)
    assert (answer.code, answer.cut, len(answer.output), len(answer.errors)) == (0, True, 1000, 1000)
    assert (answer.output.split()[0], answer.output.split()[-1]) == (first, last)


def test_what_fits_is_whole(tool):
    answer = _command.run([tool(WRITER)], 20, most=320000)
    assert (answer.code, answer.cut, len(answer.output), len(answer.errors)) == (0, False, 320000, 5000)


@pytest.mark.parametrize("newest", [False, True])
def test_output_without_end_is_given_up_and_what_came_is_kept(tool, newest):
    answer = _command.run([tool("while True: print('y' * 99)")], 0.5, most=2000, newest=newest)
    assert answer.hung
    assert answer.cut
    assert len(answer.output) == 2000


def test_it_runs_where_and_with_what_it_is_told(tool, tmp_path):
    path = tool("import os; print(os.getcwd(), os.environ['LC_ALL'], os.environ.get('WHO'))")
    assert _command.run([path], 20, cwd=str(tmp_path)).output == f"{tmp_path} C None\n"
    environment = {**os.environ, "LC_ALL": "en", "WHO": "me"}
    assert _command.run([path], 20, cwd=str(tmp_path), environment=environment).output == f"{tmp_path} en me\n"


def test_what_cannot_be_started_is_named(tmp_path):
    with pytest.raises(RecoveryError, match="none could not be started: No such file or directory"):
        _command.run([str(tmp_path / "none")], 1)


def test_a_program_is_found_where_a_login_without_a_shell_does_not_look(tool, tmp_path, monkeypatch):
    path = tool("pass")
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert _command.find(pathlib.Path(path).name) is None
    monkeypatch.setattr(_command, "MORE_PATH", (str(pathlib.Path(path).parent),))
    assert _command.find(pathlib.Path(path).name) == path
