"""How values are put: made harmless, for people, and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.cli.data import json_line, to_data, to_lines
from mcumgrx.cli.text import duration_text, printable, rate_text, size_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ümläuts and ✓", "plain text, ümläuts and ✓"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("two\r\nlines", "two\\r\\nlines"),
        ("\x9b2J", "\\x9b2J"),  # CSI in one character
        ("a\u202eb", "a\\u202eb"),  # right to left
        ("a\u2028b\u200bc", "a\\u2028b\\u200bc"),
        ("\x7f\x00", "\\x7f\\x00"),
        ("\ud800", "\\ud800"),
        ("a\tb", "a    b"),
    ],
)
def test_text_of_a_device_cannot_drive_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_printable_text_is_printable(text: str) -> None:
    shown = printable(text)
    assert all(char.isprintable() or not char.isascii() for char in shown)
    assert "\x1b" not in shown
    shown.encode()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (48_640, "48.6 KB"),
        (212_345, "212 KB"),
        (999_999, "1.0 MB"),
        (1_204_000, "1.2 MB"),
        (16_777_216, "16.8 MB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text


def test_rates_and_durations() -> None:
    assert [rate_text(rate) for rate in (870, 8_740, 21_400, 1_300_000)] == [
        "870 B/s",
        "8.7 KB/s",
        "21 KB/s",
        "1.3 MB/s",
    ]
    assert [duration_text(seconds) for seconds in (0.04, 9.94, 9.96, 47.6, 59.7, 125)] == [
        "0.0 s",
        "9.9 s",
        "10 s",
        "48 s",
        "1 min 00 s",
        "2 min 05 s",
    ]


class Colour(Enum):
    RED = "red"


class Mode(IntEnum):
    SWAP_MOVE = 3


@dataclass(frozen=True, slots=True)
class Inner:
    hash: bytes
    mode: Mode


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    inner: Inner
    colour: Colour
    ratio: float
    path: Path
    missing: int | None = None
    extra: dict[str, object] = field(default_factory=dict)


OUTER = Outer("a", Inner(b"\x01\xff", Mode.SWAP_MOVE), Colour.RED, float("nan"), Path("x"), extra={"new": 1})


def test_data_has_only_what_json_has() -> None:
    assert to_data(OUTER) == {
        "name": "a",
        "inner": {"hash": "01ff", "mode": 3},
        "colour": "red",
        "ratio": None,
        "path": "x",
        "missing": None,
        "extra": {"new": 1},
    }
    assert to_data({1: {b"k": frozenset({2, 1})}}) == {"1": {"6b": [1, 2]}}


def test_json_is_one_line_of_ascii() -> None:
    line = json_line({"text": "ü\n\x1b[31m\u2028\ud800", "value": float("inf")})
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"schema": 1, "text": "ü\n\x1b[31m\u2028\ud800", "value": None}


def test_fields_are_listed_where_a_result_has_no_lines_of_its_own() -> None:
    assert to_lines(OUTER) == [
        "name:   a",
        'inner:  {"hash": "01ff", "mode": 3}',
        "colour: red",
        "ratio:  null",
        "path:   x",
        "new:    1",
    ]
    assert to_lines(Inner(b"", Mode.SWAP_MOVE)) == ["hash: ", "mode: swap move"]


def test_several_of_a_kind_are_a_table() -> None:
    rows = [{"name": "one", "on": True}, {"name": "fourteen"}]
    assert to_lines(rows) == ["name      on", "one       yes", "fourteen  -"]
    assert to_lines([]) == ["none"]
    assert to_lines(("a", 2)) == ["a", "2"]


def test_nothing_to_say_is_still_an_answer() -> None:
    assert to_lines(None) == ["done"]
    assert to_lines("a\nb") == ["a", "b"]
    assert to_lines(7) == ["7"]
