# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shlex

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._errors import RecoveryError
from ansible_collections.ringrift.recovery.plugins.module_utils._unit_file import quoted
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")).filter(str.isprintable))


@given(st.lists(WORDS))
def test_what_is_read_back_is_what_was_written(words):
    """Of what systemd reads in double quotes a shell's reader knows all but the doubled signs."""
    command = ["/usr/bin/env", *words]
    read = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(quoted(command))]
    assert read == command
    read = [word.replace("%%", "%") for word in shlex.split(quoted(words, command=False))]
    assert read == words


@given(st.lists(WORDS))
def test_nothing_is_left_that_systemd_would_expand(words):
    line = quoted(["/usr/bin/env", *words])
    assert "\n" not in line
    assert "%" not in line.replace("%%", "")
    assert "$" not in line.replace("$$", "")


@pytest.mark.parametrize(
    "words", [[], ["env"], ["/opt/$x/env"], ["/usr/bin/env", "a\nExecStart=/bin/sh"], ["/x", "\x00"]]
)
def test_what_cannot_stand_there_is_refused(words):
    with pytest.raises(RecoveryError, match="absolute path|one line"):
        quoted(words)
