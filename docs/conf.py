"""Sphinx: `sphinx-build -W docs docs/_build`. Pages are Markdown; parts that follow from the code are written by
`generate.py`, and the examples are run by the test suite."""

from __future__ import annotations

import re
from pathlib import Path

_VERSION = (Path(__file__).parent.parent / "mcumgrx" / "_version.py").read_text(encoding="utf-8")

project = "mcumgrx"
author = "the mcumgrx authors"
copyright = author
release = version = re.findall(r'__version__ = "(.+)"', _VERSION)[0]

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True

myst_heading_anchors = 3

html_theme = "alabaster"
html_theme_options = {"description": "Update and manage Zephyr and MCUboot devices", "page_width": "60em"}
html_show_copyright = False
