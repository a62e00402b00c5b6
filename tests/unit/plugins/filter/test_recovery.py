# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ringrift.recovery.plugins.filter import recovery

FILTERS = recovery.FilterModule().filters()


def test_verdict_and_its_lines_fit_together():
    verdict = FILTERS["verdict"]({"config": "hex8_2p", "hosts": {}, "coordinator": {}})
    assert verdict["stalled"] is None
    assert FILTERS["verdict_lines"](verdict)[0].startswith("hex8_2p: UNKNOWN")


def test_report_and_its_lines_fit_together():
    report = FILTERS["run_report"]({}, config="hex8_2p", outcome="nothing")
    assert FILTERS["report_lines"](report) == ["hex8_2p: nothing"]


@pytest.mark.parametrize("name", sorted(FILTERS))
@pytest.mark.parametrize("value", [None, "text", 3, ["list"]])
def test_anything_else_is_refused_by_name(name, value):
    with pytest.raises(AnsibleFilterError, match=f"ringrift.recovery.{name} needs"):
        FILTERS[name](value)
