"""`mcumgrx`: the tree of commands, each imported when it is asked for.

Core commands are listed here; all others come from plugins through the registry. `--help`, at any level, imports
neither asyncio nor what commands need to do their work.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: those of the process) and return the exit code."""
    try:
        from .interrupt import interruptions

        with interruptions(to_the_end=arguments is None) as signals:
            try:
                from .tree import run_command_line

                return run_command_line(list(sys.argv[1:] if arguments is None else arguments))
            except KeyboardInterrupt:  # before a command runs, or after; while it runs, `run` sees to it
                signals.told = True
                return _interrupted(signals.name)
    except KeyboardInterrupt:  # in between
        return _interrupted()


def _interrupted(signal: str = "") -> int:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, or not there at all
        sys.stderr.write(f"interrupted by {signal}\n" if signal else "interrupted\n")
    return 130
