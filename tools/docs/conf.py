# Copyright (c) 2026, The ringrift.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site that `make docs` builds of the markdown pages and of what antsibull-docs writes. It asks no server."""

import os
import pathlib

from docutils import nodes

HERE = pathlib.Path(__file__).resolve().parent

project = "ringrift.recovery"
author = "The ringrift.recovery authors"
copyright = "2026, The ringrift.recovery authors"
release = version = os.environ["DOCS_VERSION"]

extensions = ["myst_parser", "sphinx_antsibull_ext"]
root_doc = "index"
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
# It is the front page, index.md.
exclude_patterns = ["README.md", "_extra"]
# A link to a heading that is not there is an error.
myst_heading_anchors = 4
nitpicky = True
# Pygments knows no PromQL.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"ringrift.recovery {version}"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
# The front page's pictures for light and dark are written in HTML, which Sphinx leaves as it is.
html_extra_path = [str(HERE.parents[1] / "build/docs/source/_extra")]
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
# site.css has the colours.
antsibull_ext_color_scheme = "none"
pygments_style = "friendly"
pygments_dark_style = "github-dark"

ANSIBLE = "https://docs.ansible.com/ansible/latest/"
# What antsibull-docs refers to in the documentation of Ansible itself, so that no inventory of it need be fetched.
ELSEWHERE = {
    "action_plugins": "plugins/action.html",
    "ansible_configuration_settings": "reference_appendices/config.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def link_to_ansible(app, env, node, contnode):
    """A link for a reference that no page here answers, or None, which is an error."""
    target = node["reftarget"]
    if node["reftype"] == "envvar" and target.startswith("ANSIBLE_"):
        address = f"reference_appendices/config.html#envvar-{target}"
    else:
        address = ELSEWHERE.get(target)
    return nodes.reference("", "", contnode, refuri=ANSIBLE + address) if address else None


def setup(app):
    app.connect("missing-reference", link_to_ansible)
