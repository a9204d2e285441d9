"""Text that comes from a device, a file or a plugin is untrusted; here it is made harmless."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]


def printable(text: str) -> str:
    """`text` on one line and without effect on a terminal: control characters and the like become `\\x1b`, `\\u202e`.

    Besides the C0 and C1 controls these are the characters that reorder, hide or break text: the Unicode categories
    Cc, Cf, Cs, Zl and Zp.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(char) if unicodedata.category(char) in _UNSAFE else char for char in text)


_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _visible(char: str) -> str:
    if char == "\t":
        return "    "
    return char.encode("unicode_escape").decode("ascii")
