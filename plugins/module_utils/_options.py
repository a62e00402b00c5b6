# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which answers the options of the playbooks may have, whoever gives them. This util is private to the collection."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Mapping, Optional, Tuple

TRUTHS = ("true", "false", "yes", "no", "on", "off", "1", "0")
# A name as nodes, runs and holders of locks have it; nothing that a shell, a template or a terminal would read.
NAME = r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,199}"
# So much of a refused value is shown.
SHOWN = 60

# What each may be: a choice of words, a range of whole numbers, or the shape of a text with its name in words.
CHOICES: Dict[str, Tuple[str, ...]] = {
    "restart_via": ("p2p", "direct"),
    "refresh": ("auto", "always", "never"),
    "fail_on": ("never", "critical", "warning"),
    "on_other_run": ("refuse", "wait"),
    "prevent_timer_state": ("present", "absent"),
    "prevent_timer_scope": ("user", "system"),
    **dict.fromkeys(("force", "wait", "follow", "automatic"), TRUTHS),
}
RANGES: Dict[str, Tuple[int, int]] = {
    "epochs": (1, 100000),
    "recovery_max_attempts": (1, 1000),
    "recovery_window": (1, 31536000),
    "confirm": (0, 99999),
    "prevent_keep": (1, 999999),
}
SHAPES: Dict[str, Tuple[str, str]] = {
    "batch_size": (r"auto|[1-9][0-9]{0,7}", "a whole number of 1 or more, or auto"),
    "cause": (r"[a-z][a-z0-9_]{0,63}", "the name of a cause, as a diagnosis prints it"),
    "expect_holder": (NAME, "the token of a holder, as a diagnosis prints it"),
    "prevent_disk_free": (r"[0-9]{1,12}([.][0-9]{1,3})? *[KMGT]?B?", "a number of bytes, for example 10 GB"),
    "prevent_timer_calendar": (
        r"[A-Za-z0-9*][A-Za-z0-9*:/.,~_+ -]{0,199}",
        "as in OnCalendar= of systemd, for example hourly",
    ),
    "run": (r"[\w~/.][\w~/.:@+=, -]{0,1023}", "the name of a run, or the path of its report"),
    "takeover": (NAME, "the name of a run, as a refusal prints it"),
    "train_on": (NAME, "the name of a node"),
}
NAMES = tuple(sorted([*CHOICES, *RANGES, *SHAPES]))


def refused_options(values: Mapping[str, Any]) -> List[str]:
    """What is wrong with the given options, a sentence each; an empty one counts as not given."""
    said = [_refusal(name, values[name]) for name in NAMES if name in values]
    return [sentence for sentence in said if sentence is not None]


def _refusal(name: str, value: Any) -> Optional[str]:
    text = _text(value)
    if text == "":
        return None
    if name in CHOICES:
        choices = CHOICES[name]
        fits = text is not None and (text.lower() if choices is TRUTHS else text) in choices
        wanted = "true or false" if choices is TRUTHS else f"one of {', '.join(choices)}"
    elif name in RANGES:
        least, most = RANGES[name]
        fits = text is not None and re.fullmatch(r"[0-9]{1,12}", text) is not None and least <= int(text) <= most
        wanted = f"a whole number from {least} to {most}"
    else:
        shape, wanted = SHAPES[name]
        fits = text is not None and re.fullmatch(shape, text) is not None
    return None if fits else f"{name} is {_shown(value)}, and must be {wanted}."


def _text(value: Any) -> Optional[str]:
    """It as an answer of a survey would be, or None for a list or a dictionary."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int)) else None


def _shown(value: Any) -> str:
    """It for a message: short, on one line, and escaped, so that no terminal obeys it."""
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
