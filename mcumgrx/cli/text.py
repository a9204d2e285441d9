"""Words and numbers as people read them, on one line.

Text that comes from a device, a file or a plugin is untrusted; here it is made harmless.
"""

from __future__ import annotations

import unicodedata

from ..events import Limit, Speed


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


def size_text(count: int) -> str:
    """Bytes for people, in thousands as data sheets and radios count: `980 B`, `48.6 KB`, `212 KB`, `1.2 MB`."""
    return _scaled(count, 99.95)


def _scaled(count: float, whole_from: float) -> str:
    """`count` bytes with one decimal, or none from `whole_from` of a unit on."""
    if count < 1000:
        return f"{count:.0f} B"
    value, unit = (count / 1_000, "KB") if count < 999_500 else (count / 1_000_000, "MB")
    return f"{value:.{1 if value < whole_from else 0}f} {unit}"


def rate_text(bytes_per_s: float) -> str:
    """`8.7 KB/s`, `21 KB/s`."""
    return f"{_scaled(bytes_per_s, 9.95)}/s"


def duration_text(seconds: float) -> str:
    """`0.3 s`, `48 s`, `2 min 05 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s"


def _trip_text(seconds: float) -> str:
    """`0.4 ms`, `62 ms`, `1.2 s`."""
    milliseconds = seconds * 1000
    if milliseconds >= 999.5:
        return duration_text(seconds)
    return f"{milliseconds:.{1 if milliseconds < 9.95 else 0}f} ms"


LIMITS = {
    Limit.LINK: "the link",
    Limit.BUFFERS: "the buffers",
    Limit.DEVICE: "the device",
    Limit.COMPUTER: "this computer",
}


def speed_text(speed: Speed, *, short: bool = False) -> str:
    """What makes the rate: `window 3, 354 B each, round trip 62 ms (95 %: 67 ms), 2 sent again, limited by the link`.

    The `short` one has at most 64 characters.
    """
    texts = [f"window {speed.window}"]
    if speed.chunk_bytes:
        texts.append(f"{speed.chunk_bytes} B each")
    if speed.round_trip_s is not None and speed.slow_round_trip_s is not None:
        usual, slow = _trip_text(speed.round_trip_s), _trip_text(speed.slow_round_trip_s)
        texts.append(f"{usual}, 95 % {slow}" if short else f"round trip {usual} (95 %: {slow})")
    if speed.retransmissions:
        texts.append(f"{speed.retransmissions} again" if short else f"{speed.retransmissions} sent again")
    elif not short:
        texts.append("nothing sent again")
    if speed.limited_by is not None:
        texts.append(f"limit: {speed.limited_by}" if short else f"limited by {LIMITS[speed.limited_by]}")
    return ", ".join(texts)
