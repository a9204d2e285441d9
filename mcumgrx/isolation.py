"""Foreign code, called so that whatever it raises is known for its own: plugins at import, in hooks, in commands.

What it raises need not be an `Exception`: `sys.exit` in a module that was written as a script, the skip of a test tool,
a stray `KeyboardInterrupt` or `CancelledError`. Only what the user wants may go through.
"""

from __future__ import annotations

import signal


class UserInterrupt(KeyboardInterrupt):
    """Ctrl-C, or a signal like it, as the command line raises it: never raised by the code that it interrupts."""


def is_wanted(error: BaseException) -> bool:
    """Whether `error` ends the program on purpose, and is not the fault of the code that was called.

    In a program with a handler of its own for SIGINT that is a `UserInterrupt`. With Python's nobody can tell a Ctrl-C
    from a `KeyboardInterrupt` that code raises, and any is taken for the user's.
    """
    if isinstance(error, UserInterrupt):
        return True
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler


_LONGEST = 300


def said(error: BaseException) -> str:
    """The error in one line that can be printed: its kind and, where it has one, its text."""
    try:
        text = " ".join(str(error).split())
    except BaseException as strange:  # an exception of a stranger's own making
        if is_wanted(strange):
            raise
        text = ""
    kind = type(error).__name__
    return printable(f"{kind}: {text}" if text else kind)[:_LONGEST]


def printable(text: str) -> str:
    """`text` with everything escaped that is not to be seen on a terminal as itself."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
