# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report page in a real browser."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from ansible_collections.ringrift.recovery.plugins.module_utils._report_html import diagnosis_html

from tests.unit import diagnosis_samples as samples

CHROMIUM = shutil.which("chromium")
TIMEOUT = 30_000
READABLE = 4.5

# The lowest contrast of any text that is shown, with the text; colours with an alpha channel are not used.
CONTRAST = """() => {
  const parts = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = (colour) => {
    const [r, g, b] = parts(colour).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let worst = [99, ""];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
    if (!own.length || /^(title|desc)$/i.test(element.tagName) || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const one = light(element.namespaceURI.endsWith("svg") ? style.fill : style.color), other = light(back(element));
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < worst[0]) worst = [contrast, own[0].data];
  }
  return worst;
}"""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed; tools/setup.sh installs it as root")
    from playwright.sync_api import sync_playwright

    # Chromium has no sandbox for root.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=options, timeout=TIMEOUT)
        yield started
        started.close()


@pytest.fixture
def show(browser, tmp_path):
    """Open a page of a sample; whatever it asks for, says or does beside being shown is a failure."""
    contexts, complaints = [], []

    def opened(page, width=1200, height=900, scheme="light"):
        path = tmp_path / f"{len(contexts)}.html"
        path.write_text(page, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(TIMEOUT)
        tab.on("console", lambda message: complaints.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on("request", lambda request: request.url == path.as_uri() or complaints.append(f"request: {request.url}"))
        tab.goto(path.as_uri(), wait_until="load", timeout=TIMEOUT)
        return tab

    yield opened
    # What a page does late is seen as well.
    for context in contexts:
        for tab in context.pages:
            tab.wait_for_timeout(100)
        context.close()
    assert complaints == []


def long_names():
    """A fleet with names and words that cannot be broken at a blank."""
    verdict, evidence = samples.small("y" * 400)
    name = "node-" + "x" * 200
    for row in verdict["nodes"]:
        row["name"] += name
        row["state"] = "odd" * 40
        row["trainer"] = "pid" * 60
        for gpu in row["gpu"]:
            gpu["name"] = "z" * 100
    for finding in verdict["findings"]:
        finding["cause"] *= 20
        finding["fix"] = f"fix.yml -e cause={'c' * 200}"
        finding["host"] = finding["host"] and finding["host"] + name
    verdict["headline"] *= 5
    verdict["unknown"].append({"host": name, "probe": "p" * 90, "reason": "r" * 200})
    evidence["hosts"] = {host + name: node for host, node in evidence["hosts"].items()}
    return verdict, evidence


@pytest.mark.parametrize("sample", [samples.small, samples.large, samples.healthy])
def test_page_is_shown_and_asks_for_nothing(show, sample):
    verdict, evidence = sample()
    tab = show(diagnosis_html(verdict, evidence, samples.run()))
    assert tab.title() == verdict["headline"]
    assert verdict["headline"] in tab.inner_text("h1")
    assert tab.locator("main").is_visible()
    # The style was accepted by the page's own policy.
    assert tab.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") == "8px"


def test_the_fixture_sees_what_a_page_asks_for(browser, show):
    page = diagnosis_html(*samples.small())
    tab = browser.new_page()
    asked = []
    tab.on("console", lambda message: asked.append(message.text))
    tab.set_content(page.replace("<main>", '<main><img src="http://127.0.0.1:1/x.png"><script>alert(1)</script>'))
    tab.wait_for_timeout(200)
    tab.close()
    # The policy refuses both, and says so.
    assert len([line for line in asked if "Content Security Policy" in line]) >= 2


def test_a_log_line_stays_text(show):
    tab = show(diagnosis_html(*samples.small()))
    assert '<script>alert(1)</script> " onmouseover="alert(2)"' in tab.inner_text("#findings")
    assert tab.evaluate("document.scripts.length") == 0
    attributes = tab.evaluate(
        "[...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames()).filter((n) => /^on|^style$/.test(n))"
    )
    assert attributes == []
    for fact in tab.locator(".facts li").all():
        if fact.is_visible():
            fact.hover()


@pytest.mark.parametrize("width", [320, 360, 720, 1000])
@pytest.mark.parametrize("sample", [samples.small, samples.large, long_names])
def test_nothing_sticks_out(show, width, sample):
    tab = show(diagnosis_html(*sample(), samples.run()), width=width)
    tab.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    wide, room = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= room


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("sample", [samples.small, samples.healthy])
def test_all_text_is_readable(show, scheme, sample):
    tab = show(diagnosis_html(*sample(), samples.run()), scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    back = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in back[4:-1].split(",")) > 384) == (scheme == "light")
    contrast, words = tab.evaluate(CONTRAST)
    assert contrast >= READABLE, words


def test_next_command_is_seen_without_scrolling_on_a_phone(show):
    tab = show(diagnosis_html(*samples.small()), width=360, height=640)
    box = tab.locator("header .command code").bounding_box()
    assert box["y"] + box["height"] <= 640


def test_a_click_selects_the_whole_command(show):
    tab = show(diagnosis_html(*samples.small()))
    tab.locator("header .command code").click()
    selected = tab.evaluate("getSelection().toString()")
    assert selected.strip() == "ansible-playbook full_recovery.yml -e config=hex8_2p --check --diff"


def test_chart_text_does_not_shrink_on_a_phone(show):
    tab = show(diagnosis_html(*samples.small()), width=360)
    assert tab.evaluate("Math.min(...[...document.querySelectorAll('svg text')].map((e) => e.getBBox().height))") >= 11


def test_paper_shows_what_is_folded(show):
    tab = show(diagnosis_html(*samples.small()))
    folded = tab.get_by_text("it holds up automatic triggers only")
    assert not folded.is_visible()
    tab.emulate_media(media="print")
    assert folded.is_visible()


def test_a_hundred_nodes_are_there_at_once(show):
    page = diagnosis_html(*samples.large())
    start = time.monotonic()
    tab = show(page)
    assert tab.locator("table.nodes tbody tr").count() == 100
    assert time.monotonic() - start < 10
