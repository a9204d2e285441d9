"""Which renderer fits."""

from __future__ import annotations

import os

from .json_lines import JsonRenderer
from .plain import PlainRenderer
from .render import Renderer
from .streams import streams


def make_renderer(*, as_json: bool, verbose: int = 0) -> Renderer:
    """The renderer that fits where stdout and stderr go, and what the user asked for."""
    now = streams()
    out, err = now.out, now.err
    if as_json:
        return JsonRenderer(out, err)
    if err.isatty() and os.environ.get("TERM") != "dumb":
        from .terminal import TerminalRenderer

        return TerminalRenderer(out, err, verbose=verbose)
    return PlainRenderer(out, err, verbose=verbose)
