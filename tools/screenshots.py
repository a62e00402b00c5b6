# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of the documentation: a lab is broken as in the demo, and the page of its diagnosis is photographed.

Needs what `tools/setup.sh test` installs: `.venv/bin/python tools/screenshots.py`.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from playwright.sync_api import sync_playwright

ROOT = pathlib.Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs/images"
WIDTH, HEIGHT = 1120, 722
FAULTS = ("lock", "checkpoint", "data")


def lab(directory: pathlib.Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "lab", *words, "--dir", str(directory)], cwd=ROOT, check=True, timeout=180)


def report_page(directory: pathlib.Path) -> pathlib.Path:
    """The page that a diagnosis of a broken lab keeps."""
    try:
        lab(directory, "up", "--nodes", "3")
        lab(directory, "break", *FAULTS)
        reports = directory.parent / "reports"
        playbook = pathlib.Path(sys.executable).with_name("ansible-playbook")
        options = ["-e", "config=hex8_2p", "-e", f"ringrift_report_dir={reports}"]
        argv = [playbook, "-i", str(directory / "inventory"), "playbooks/diagnose.yml", *options]
        subprocess.run(argv, cwd=ROOT, check=True, timeout=300)
        return next(reports.glob("*-diagnosis.html"))
    finally:
        lab(directory, "down")


def photograph(page: pathlib.Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("screenshots: chromium is not installed; tools/setup.sh test installs it as root")
    # Chromium has no sandbox for root.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options, timeout=60_000)
        for scheme in ("light", "dark"):
            tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
            tab.goto(page.as_uri(), wait_until="load")
            path = IMAGES / f"report-{scheme}.png"
            tab.screenshot(path=path)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")
        browser.close()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ringrift-pictures-", dir="/var/tmp") as folder:
        photograph(report_page(pathlib.Path(folder) / "lab"))


if __name__ == "__main__":
    main()
