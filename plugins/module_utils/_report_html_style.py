# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the report page looks: light and dark, wide and narrow, on paper. This util is private to the collection."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --text: #1b2330; --soft: #566072; --line: #dfe3ea; --faint: #eef1f5;
  --critical: #b3261e; --critical-soft: #fdeceb; --warning: #8a5200; --warning-soft: #fdf3e0;
  --info: #1d5fae; --info-soft: #e9f1fb; --good: #19703f; --good-soft: #e6f4ec;
  --bar: #4a7fc1; --bar-back: #e4e8ef; --code: #f0f2f6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11151b; --card: #181e27; --text: #e4e8ef; --soft: #9ba6b7; --line: #2b3442; --faint: #1f2733;
    --critical: #ff8f87; --critical-soft: #371b1d; --warning: #f0b95b; --warning-soft: #33260f;
    --info: #86b7f5; --info-soft: #16283f; --good: #72cf98; --good-soft: #14301f;
    --bar: #5d93d8; --bar-back: #2a3341; --code: #222a36;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text); overflow-wrap: anywhere;
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif;
}
main { max-width: 1160px; margin: 0 auto; padding: 24px 20px 40px; }
h1, h2, h3, h4, p, ul, ol, dl, dd { margin: 0; }
ul, ol { padding: 0; }
code, .mono { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
.soft { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.critical { --tone: var(--critical); --tone-soft: var(--critical-soft); }
.warning { --tone: var(--warning); --tone-soft: var(--warning-soft); }
.info { --tone: var(--info); --tone-soft: var(--info-soft); }
.good { --tone: var(--good); --tone-soft: var(--good-soft); }
.plain { --tone: var(--soft); --tone-soft: var(--faint); }

.top { padding: 20px 22px; border-top: 4px solid var(--tone); }
.about { display: flex; flex-wrap: wrap; gap: 2px 16px; color: var(--soft); font-size: 13px; }
.about b { color: var(--text); font-weight: 600; }
h1 { font-size: 25px; line-height: 1.25; font-weight: 650; letter-spacing: -.01em; margin: 6px 0 14px; }
h1 .mark { color: var(--tone); margin-right: 8px; }
.tally { display: flex; flex-wrap: wrap; gap: 6px; list-style: none; margin-bottom: 16px; }
.tally:last-child { margin-bottom: 0; }
.command {
  border-left: 3px solid var(--tone, var(--info)); border-radius: 0 6px 6px 0; background: var(--code);
  padding: 8px 12px;
}
.command p { flex: none; font-size: 12px; color: var(--soft); }
.command code { user-select: all; -webkit-user-select: all; }
.command code span { display: inline-block; max-width: 100%; }
.top .command { padding: 10px 14px; }
.top .command code { font-size: 15px; font-weight: 600; }
.finding .command { display: flex; gap: 10px; align-items: baseline; padding: 4px 10px; margin-top: 6px; }

.chip {
  display: inline-flex; align-items: baseline; gap: 5px; border-radius: 4px; padding: 1px 7px;
  font-size: 12px; font-weight: 600;
  color: var(--tone); background: var(--tone-soft);
  white-space: nowrap; max-width: 100%; overflow: hidden; text-overflow: ellipsis;
}
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 16px 2px 0; font-size: 13px; }
a { color: var(--info); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; }
section { margin-top: 26px; }
h2 { font-size: 16px; font-weight: 650; margin: 0 2px 10px; }

.finding { padding: 12px 16px; border-left: 4px solid var(--tone); margin-bottom: 8px; }
.finding h3 { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 10px; font-size: 14px; font-weight: 600; }
.finding h3 .mono { font-weight: 650; }
.finding .said { margin: 3px 0 6px; font-size: 15px; }
summary { cursor: pointer; color: var(--soft); font-size: 13px; }
summary:hover { color: var(--text); }
:focus-visible { outline: 2px solid var(--info); outline-offset: 2px; border-radius: 2px; }
.facts { list-style: none; margin: 4px 0 8px; border-left: 1px solid var(--line); }
.facts li { padding: 1px 0 1px 12px; white-space: pre-wrap; font-size: 13px; }
h4 { font-size: 13px; font-weight: 600; margin-top: 6px; }
.refs { display: flex; flex-wrap: wrap; gap: 0 18px; margin-top: 6px; font-size: 12px; color: var(--soft); }

table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-size: 12px; font-weight: 600; color: var(--soft); }
th, td { padding: 7px 12px; border-bottom: 1px solid var(--line); vertical-align: baseline; }
tbody tr:last-child > * { border-bottom: 0; }
td small { display: inline-block; color: var(--soft); font-size: 12px; }
thead th { white-space: nowrap; }
.fleet { overflow-x: auto; }
tbody th { color: var(--text); font-size: 14px; }
th .tag { font-weight: 400; font-size: 12px; color: var(--soft); }
.nodes .wide { min-width: 215px; }
.number { text-align: right; white-space: nowrap; }
.more { padding: 8px 12px; border-top: 1px solid var(--line); }
.more > table { margin-top: 6px; }
.empty { padding: 12px 16px; color: var(--soft); }

figure { margin: 0; padding: 14px 16px; }
figcaption { font-size: 12px; color: var(--soft); margin-bottom: 8px; }
svg { display: block; width: 100%; font-size: 12px; }
svg text { fill: var(--text); }
svg .soft { fill: var(--soft); }
svg .strong { font-weight: 600; }
svg .rule { stroke: var(--line); stroke-width: 1; }
svg .track { fill: var(--bar-back); }
svg .bar { fill: var(--bar); }
svg .tone { fill: var(--tone); }
.key { display: flex; flex-wrap: wrap; gap: 2px 16px; list-style: none; margin-bottom: 10px; }
.key { font-size: 12px; color: var(--soft); }
.key svg { display: inline-block; width: 14px; height: 14px; vertical-align: -3px; margin-right: 4px; }
figure details { margin-top: 8px; }
figure td, figure th { padding: 3px 10px 3px 0; font-size: 12px; }
[class^="mark-"] { stroke: var(--card); stroke-width: 1; }
.mark-started { fill: var(--info); }
.mark-progress, .mark-checkpoint { fill: var(--bar); }
.mark-completed { fill: var(--good); }
.mark-failed, .mark-kernel { fill: var(--critical); }
.mark-boot { fill: var(--soft); }

.steps { list-style: none; }
.steps > li { padding: 8px 16px; border-bottom: 1px solid var(--line); }
.steps > li:last-child { border-bottom: 0; }
.steps .what { display: flex; flex-wrap: wrap; gap: 2px 10px; align-items: baseline; }
.run > h3 { padding: 10px 16px 0; font-size: 14px; }
.run > .lead { padding: 14px 16px; border-bottom: 1px solid var(--line); font-size: 15px; }
footer { margin: 28px 2px 0; font-size: 12px; color: var(--soft); }

@media (max-width: 720px) {
  main { padding: 12px 10px 28px; }
  .top { padding: 14px; }
  h1 { font-size: 21px; }
  .nodes, .nodes tbody, .nodes tr { display: block; }
  .nodes thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .nodes tr { display: grid; grid-template-columns: 1fr 1fr; gap: 2px 12px; padding: 9px 12px; }
  .nodes tr { border-bottom: 1px solid var(--line); }
  .nodes tr:last-child { border-bottom: 0; }
  .nodes th, .nodes td { padding: 0; border: 0; text-align: left; min-width: 0; }
  .number { white-space: normal; }
  .nodes td[data-label]::before { content: attr(data-label) " "; color: var(--soft); font-size: 12px; }
  .nodes .wide { grid-column: 1 / -1; min-width: 0; }
  .nodes .blank { display: none; }
  .finding, figure { padding-left: 12px; padding-right: 12px; }
}
@media print {
  :root { --page: #fff; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  .fleet { overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .card, tr, .chip, svg { break-inside: avoid; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def policy() -> str:
    """A content security policy under which the page can do nothing but show itself, with this style and no other."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
