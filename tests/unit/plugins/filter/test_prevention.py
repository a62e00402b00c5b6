# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ringrift.recovery.plugins.filter import prevention, recovery

FILTERS = prevention.FilterModule().filters()


@pytest.mark.parametrize("name", sorted(FILTERS))
@pytest.mark.parametrize("value", [None, "text", 3])
def test_anything_else_is_refused_by_name(name, value):
    with pytest.raises(AnsibleFilterError, match=f"ringrift.recovery.{name} needs"):
        FILTERS[name](value)


def test_nothing_seen_fails_a_run():
    """The gate of the diagnosis reads these findings as they are."""
    report = FILTERS["prevention"]({"a": {}}, coordinator="boss", config="hex8_2p", check_mode=False)
    assert report["counts"]["ok"] == 0
    gate = recovery.FilterModule().filters()["fail_on"]
    told = {"findings": report["findings"], "stalled": False}
    assert gate(told, "critical") == ["critical node on a", "critical daemons on boss"]
    assert gate(told, "never") == []
    assert FILTERS["prevention_lines"](report)[0] == "hex8_2p: prevention: 2 not seen"


def test_words_of_a_unit_file():
    assert FILTERS["systemd_words"](["/bin/echo", 'a "b" 5% $x']) == '"/bin/echo" "a \\"b\\" 5%% $$x"'
    assert FILTERS["systemd_words"](["A=$x 5%"], command=False) == '"A=$x 5%%"'
    with pytest.raises(AnsibleFilterError, match="absolute path"):
        FILTERS["systemd_words"](["echo"])
