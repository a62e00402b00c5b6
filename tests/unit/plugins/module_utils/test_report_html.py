# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._report_html import diagnosis_html
from ansible_collections.ringrift.recovery.plugins.module_utils._report_timeline import moments_of
from ansible_collections.ringrift.recovery.plugins.module_utils._report_words import visible
from hypothesis import given, settings

from tests.unit import diagnosis_samples as samples

VOID = {"meta", "br"}
# SVG elements that are closed at once.
SHAPES = {"path", "circle", "rect", "line", "use"}
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "nav", "section", "article", "footer"),
    *("h1", "h2", "h3", "h4", "p", "ul", "ol", "li", "div", "span", "b", "strong", "small", "br", "code", "a"),
    *("details", "summary", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption"),
    *("svg", "desc", "defs", "g", "text", *SHAPES),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "open", "role", "scope", "data-label"),
    *("aria-hidden", "aria-label", "aria-labelledby", "x", "y", "x1", "x2", "y1", "y2", "r", "rx", "d", "width"),
    *("height", "viewbox", "text-anchor"),
}
# What a value may look like where it is not text that people read.
VALUE = re.compile(r"[A-Za-z0-9 .%#_-]*")


class Page(HTMLParser):
    """Everything that stands in a page, and whether its elements are closed in order."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.attributes, self.values, self.text, self.ids, self.open = set(), set(), [], [], [], []
        self.policy = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.add(tag)
        given = dict(attrs)
        assert len(given) == len(attrs)
        self.attributes |= set(given)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        elif tag != "meta":
            self.values += [value for name, value in attrs if name != "d"]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def handle_pi(self, data):
        raise AssertionError(f"an instruction: {data}")


def read(page):
    found = Page(page)
    assert found.open == []
    assert found.elements <= ELEMENTS
    assert found.attributes <= ATTRIBUTES
    assert [value for value in found.values if value is not None and not VALUE.fullmatch(value)] == []
    assert len(set(found.ids)) == len(found.ids)
    return found


def test_headline_and_next_command_come_first():
    page = diagnosis_html(*samples.small())
    text = re.sub(r"<[^>]+>", "", page.split("<main>")[1])
    command = "ansible-playbook full_recovery.yml -e config=hex8_2p --check --diff"
    assert text.index("hex8_2p: training is STALLED") < text.index(command) < text.index("gpu_wedged")


@pytest.mark.parametrize("sample", [samples.small, samples.large, samples.healthy])
@pytest.mark.parametrize("run", [None, samples.run()])
def test_page_is_whole_and_says_everything(sample, run):
    verdict, evidence = sample()
    page = read(diagnosis_html(verdict, evidence, run))
    text = " ".join(page.text)
    for row in verdict["nodes"]:
        assert row["name"] in text
    for finding in verdict["findings"]:
        assert finding["cause"] in text
        assert finding["summary"] in text
        assert all(visible(fact) in text for fact in finding["evidence"])
    for gap in verdict["unknown"]:
        assert gap["probe"] == "all" or gap["reason"] in text


def test_policy_allows_nothing_but_this_style():
    page = diagnosis_html(*samples.small())
    style = re.search(r"<style>(.*?)</style>", page, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert read(page).policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "url(" not in style
    assert "@import" not in style


def test_page_has_no_script_no_address_and_no_inline_style():
    page = diagnosis_html(*samples.small("plain"), samples.run())
    assert not re.search(r"<script|\son[a-z]+=|\sstyle=|https?:|//|src=", page)
    assert set(re.findall(r'href="(.)', page)) == {"#"}


def test_a_log_line_stays_text():
    page = diagnosis_html(*samples.small())
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &quot; onmouseover=&quot;alert(2)&quot;" in page
    assert "\x1b" not in page
    assert "\\x1b[31;1mred" in page


def test_facts_keep_their_lines():
    verdict, _evidence = samples.small()
    verdict["findings"][0]["evidence"] = ["Traceback:\n  File <x>\nValueError"]
    assert "<li>Traceback:\n  File &lt;x&gt;\nValueError</li>" in diagnosis_html(verdict)


def test_without_evidence_there_is_no_timeline_and_no_power_limit():
    verdict, evidence = samples.small()
    assert 'id="timeline"' in diagnosis_html(verdict, evidence)
    assert "131 of 700 W" in diagnosis_html(verdict, evidence)
    page = diagnosis_html(verdict)
    assert 'id="timeline"' not in page
    assert "131 W" in page
    assert "of 700 W<" not in page


def test_timeline_has_every_kind_of_event():
    _verdict, evidence = samples.small()
    node = evidence["hosts"]["nebius-h100-3"]
    node["events"]["last"]["completed"] = {"at": samples.NOW - 90000, "loss": 0.5}
    node["events"]["last"]["failed"] = {"at": samples.NOW - 95000, "error": "CUDA out of memory"}
    node["checkpoints"] = [{"path": "models/a.pth", "mtime": samples.NOW - 99, "valid": False}]
    assert [moment.kind for moment in moments_of(node)] == [
        *("boot", "failed", "completed", "started", "progress", "checkpoint", "kernel", "checkpoint"),
    ]
    told = [moment.words for moment in moments_of(node)]
    assert told[1] == "training failed, CUDA out of memory"
    assert told[4] == "last progress, epoch 17, loss 0.4312"
    assert told[-1] == "models/a.pth was written, it is damaged"


def test_kernel_event_without_a_time_is_placed_by_the_boot():
    node = {
        "host": {"booted_at": 1000.0},
        "kernel": {"events": [{"kind": "xid", "time": None, "seconds_since_boot": 5}]},
    }
    assert [(moment.at, moment.kind) for moment in moments_of(node)] == [(1000.0, "boot"), (1005.0, "kernel")]


def test_unknown_load_has_no_bar():
    verdict, evidence = samples.small()
    for row in verdict["nodes"]:
        row["gpu"] = [samples.gpu(utilization=None, memory_used=None, power=None, verdict="unknown")]
    page = diagnosis_html(verdict, evidence).split('id="gpus"')[1]
    assert page.count('class="track"') == 12
    assert 'class="bar"' not in page
    assert 'class="tone' not in page
    assert "load not known" in page


def test_a_run_is_told_step_by_step():
    page = diagnosis_html(*samples.small(), samples.run())
    text = re.sub(r"<[^>]+>", " ", page.split('id="run"')[1].split("</section>")[0])
    words = ("stopped pid 4711", "released the lock of nebius-h100-3:4711:training:hex8_2p", "nothing to change")
    for expected in (*words, "progress proven: epoch 18 of 50", "cleared job job-7"):
        assert expected in text
    assert "monitor.yml" in page.split("</header>")[0]
    assert "before the recovery" in page.split("</header>")[0]


def test_nodes_that_had_nothing_to_change_share_a_line():
    run = samples.run()
    idle = {"stop_training": {"changed": False}, "clear_lock": {"changed": False, "released": False}}
    run["nodes"].update({f"node-{number:02}": idle for number in range(97)})
    section = diagnosis_html(*samples.small(), run).split('id="run"')[1].split("</section>")[0]
    assert "node-00" in section
    assert " more</span>" in section
    assert "node-96" not in section


def test_a_run_that_failed_or_only_planned_says_so():
    failed = samples.run("failed at the step monitor")
    failed["nodes"]["nebius-h100-3"] = {
        "monitor": {"progressed": False, "proof": []},
        "failure": {"msg": "no progress within 900 s"},
        "start": {"failed": True, "msg": "the trainer ended"},
    }
    page = diagnosis_html(*samples.small(), failed)
    assert "FAILED: no progress within 900 s" in page
    assert "not proven" in page
    assert "start FAILED: the trainer ended" in page
    planned = {**samples.run(), "check_mode": True}
    page = diagnosis_html(*samples.small(), planned)
    assert "would stop pid 4711" in page
    assert "dry run, nothing was changed" in page


def test_a_hundred_nodes_stay_small():
    verdict, evidence = samples.large()
    page = diagnosis_html(verdict, evidence, samples.run())
    assert len(page.encode()) < 300_000
    assert "more nodes without findings" in page


def test_a_hundred_bad_nodes_stay_below_a_megabyte():
    verdict, evidence = samples.large()
    verdict["findings"] = [
        samples.finding(f"cause_{cause}", "critical", row["name"], f"{row['name']} has it", ["x" * 120] * 5)
        for row in verdict["nodes"]
        for cause in range(4)
    ]
    for row in verdict["nodes"]:
        row.update(worst="critical", findings=4, gpu=[samples.gpu(index) for index in range(8)])
    events = [{"kind": "xid", "time": samples.AT, "message": "y" * 400}] * 50
    for node in evidence["hosts"].values():
        node["kernel"] = {"events": [{**event, "seconds_since_boot": at} for at, event in enumerate(events)]}
    assert len(diagnosis_html(verdict, evidence).encode()) < 1_000_000


def test_charts_have_a_name_and_a_description():
    page = diagnosis_html(*samples.small())
    for name in ("timeline-chart", "progress-chart", "gpus-chart"):
        assert f'aria-labelledby="{name}-title {name}-desc"' in page
        assert re.search(rf'<desc id="{name}-desc">[^<]*nebius-h100-3', page)


@settings(max_examples=120, deadline=None)
@given(samples.scrambled())
def test_no_text_breaks_the_page(scrambled):
    page = diagnosis_html(*scrambled)
    page.encode()
    read(page)


def test_more_facts_and_hosts_than_anybody_reads_are_counted():
    verdict, evidence = samples.small()
    many = [f"fact {number}" for number in range(50)]
    found = [
        samples.finding("lock_held", "critical", f"host-{number:03}", "a lock is held", [f"pid {number}"])
        for number in range(50)
    ]
    verdict["findings"] = [*found, samples.finding("disk_full", "critical", "a", "the disk is full", many)]
    text = " ".join(read(diagnosis_html(verdict, evidence)).text)
    assert "50 facts of 50 hosts" in text
    assert "… and 10 more hosts" in text
    assert text.count("… and 10 more") == 2
    assert "fact 39" in text
    assert "fact 40" not in text
