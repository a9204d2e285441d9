"""What is shown of an operation: in a pipe, on a terminal, as JSON."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import pytest

from mcumgrx.cli.exit_codes import Exit, Failure
from mcumgrx.cli.json_lines import JsonRenderer
from mcumgrx.cli.plain import PlainRenderer
from mcumgrx.cli.render import Renderer
from mcumgrx.cli.terminal import TerminalRenderer
from mcumgrx.cli.text import speed_text
from mcumgrx.events import Bytes, DeviceText, Event, Limit, Note, Speed, Stage, StageName

UPLOAD = StageName.UPLOAD

STORY: list[Event] = [
    Stage(StageName.READ, "reading the device"),
    Stage(StageName.READ, "1.0.0 runs", finished=True, elapsed_s=0.21),
    Note("slot 1 is empty"),
    Note("this is a downgrade", warning=True),
    Stage(UPLOAD, "uploading 1.1.0"),
    *(Bytes(UPLOAD, done, 20_000, done / 10_000) for done in range(0, 20_001, 500)),
    Stage(UPLOAD, "1.1.0 is in slot 1", finished=True, elapsed_s=2.0),
    DeviceText("*** Booting \x1b[31mZephyr\r\nhalf a li"),
    DeviceText("ne"),
    Stage(StageName.PROVE, "proving that 1.1.0 runs"),
]

HINT = "more buffers in the device"
SPEED = Speed(
    now=21_400.4,
    average=20_000.2,
    left_s=12.34,
    window=2,
    chunk_bytes=354,
    round_trip_s=0.0621,
    slow_round_trip_s=0.12345678,
    retransmissions=3,
    limited_by=Limit.BUFFERS,
    hint=HINT,
)

FAILURE = Failure(Exit.REVERTED, "FlowError", "1.1.0 \x1b[2Jdid not stay", "it crashed " * 10, {"slot": 1})


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def tell(renderer: Renderer, *, failure: bool = True) -> None:
    for event in STORY:
        renderer.event(event)
    if failure:
        renderer.failure(FAILURE)
    renderer.close()


def test_plain_lines() -> None:
    out, err = io.StringIO(), io.StringIO()
    tell(PlainRenderer(out, err))
    assert out.getvalue() == ""
    assert err.getvalue().splitlines() == [
        "read: 1.0.0 runs (0.2 s)",
        "note: slot 1 is empty",
        "warning: this is a downgrade",
        "upload: uploading 1.1.0",
        *(f"upload: {percent} %, {percent / 5:.1f} KB of 20.0 KB, 10 KB/s" for percent in range(10, 101, 10)),
        "upload: 1.1.0 is in slot 1, 20.0 KB at 10 KB/s (2.0 s)",
        "device | *** Booting \\x1b[31mZephyr",
        "device | half a line",
        "error: 1.1.0 \\x1b[2Jdid not stay",
        f"hint: {'it crashed ' * 10}".rstrip() + " ",
    ]


def test_a_transfer_without_stages_gets_its_end() -> None:
    err = io.StringIO()
    renderer = PlainRenderer(io.StringIO(), err)
    renderer.event(Bytes(UPLOAD, 5000, 10_000, 1.0, resumed_from=4000))
    renderer.event(Bytes(UPLOAD, 10_000, 10_000, 2.0, resumed_from=4000))
    renderer.close()
    renderer.close()
    assert err.getvalue().splitlines() == [
        "upload: 50 %, 5.0 KB of 10.0 KB, 1.0 KB/s",
        "upload: 100 %, 10.0 KB of 10.0 KB, 3.0 KB/s",
        "upload: 6.0 KB at 3.0 KB/s (2.0 s)",
    ]


def test_json_lines() -> None:
    out, err = io.StringIO(), io.StringIO()
    tell(JsonRenderer(out, err))
    records = [json.loads(line) for line in out.getvalue().splitlines()]
    assert err.getvalue() == ""
    assert all(record["schema"] == 1 for record in records)
    assert [record.get("event", "error") for record in records if record.get("event") != "bytes"] == [
        "stage",
        "stage",
        "note",
        "note",
        "stage",
        "stage",
        "device_text",
        "device_text",
        "stage",
        "error",
    ]
    moved = [record["done"] for record in records if record.get("event") == "bytes"]
    assert moved == [*range(0, 20_000, 2500), 20_000]  # four a second, and the last one
    assert records[1] == {
        "schema": 1,
        "event": "stage",
        "stage": "read",
        "text": "1.0.0 runs",
        "finished": True,
        "elapsed_s": 0.21,
    }
    assert records[-1]["error"] == {
        "code": "reverted",
        "exit": 7,
        "kind": "FlowError",
        "message": "1.1.0 \x1b[2Jdid not stay",
        "hint": "it crashed " * 10,
        "slot": 1,
    }


ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_screen(written: str) -> list[str]:
    """What stays on a terminal: of a line that was written over, the last state."""
    rows: list[str] = []
    for line in written.split("\n"):
        last = re.split(r"\r|\x1b\[2K", line)[-1]
        rows.append(ANSI.sub("", last).rstrip())
    return [row for row in rows if row]


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    err = Screen()
    tell(TerminalRenderer(Screen(), err))
    rows = on_screen(err.getvalue())
    assert "  ✓ read      1.0.0 runs                                                   0.2 s" in rows
    assert "  · slot 1 is empty" in rows
    assert "  ! this is a downgrade" in rows
    assert "  ✓ upload    1.1.0 is in slot 1, 20.0 KB at 10 KB/s                       2.0 s" in rows
    assert "device | *** Booting \\x1b[31mZephyr" in rows
    assert "  ✗ prove     proving that 1.1.0 runs" in rows
    assert rows[-3] == "error: 1.1.0 \\x1b[2Jdid not stay"
    assert rows[-2].startswith("hint: it crashed")
    assert rows[-1].startswith("      crashed")
    assert all(len(row) <= 80 for row in rows)
    assert "\x1b[32m" in err.getvalue()


def test_terminal_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    err = Screen()
    tell(TerminalRenderer(Screen(), err))
    colours = re.findall(r"\x1b\[([0-9;]*)m", err.getvalue())
    assert not {code for code in colours if re.search(r"(^|;)(3[0-7]|4[0-7])($|;)", code)}


def test_terminal_that_has_no_more_than_ascii() -> None:
    err = Screen()
    err.encoding = "ascii"
    tell(TerminalRenderer(Screen(), err))
    rows = on_screen(err.getvalue())
    assert any(row.startswith("  + upload") for row in rows)
    assert err.getvalue().isascii()


def test_the_moving_line_has_bytes_rate_and_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    err = Screen()
    renderer = TerminalRenderer(Screen(), err)
    renderer.event(Stage(UPLOAD, "uploading 1.1.0"))
    for done in range(0, 10_001, 500):
        renderer.event(Bytes(UPLOAD, done, 20_000, done / 1000))
    renderer.pause()  # draws a last time
    drawn = ANSI.sub("", err.getvalue())
    assert "10.0/20.0 KB  1.0 KB/s  10 s left" in drawn
    assert max(len(row) for row in re.split(r"[\r\n]", drawn)) <= 78
    renderer.close()


def test_an_interruption_says_how_far_it_came() -> None:
    err = Screen()
    renderer = TerminalRenderer(Screen(), err)
    renderer.event(Stage(UPLOAD, "uploading 1.1.0"))
    renderer.event(Bytes(UPLOAD, 5000, 20_000, 1.0))
    renderer.failure(Failure(Exit.INTERRUPTED, "KeyboardInterrupt", "interrupted"))
    assert on_screen(err.getvalue())[-2:] == [
        "  ✗ upload    uploading 1.1.0, 5.0 KB of 20.0 KB done",
        "interrupted",
    ]


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize("kind", [PlainRenderer, JsonRenderer])
def test_nobody_reading_stops_nothing(kind: type[PlainRenderer] | type[JsonRenderer]) -> None:
    renderer = kind(Closed(), Closed())
    tell(renderer)
    renderer.result("dfu", "done")


# -- how fast, and why ------------------------------------------------------------------------------------------------


def transfer(renderer: Renderer, speed: Speed = SPEED, elapsed_s: float = 20.0) -> None:
    renderer.event(Stage(UPLOAD, "1.1.0"))
    renderer.event(Bytes(UPLOAD, 100_000, 400_000, elapsed_s / 4, 0, speed))
    renderer.event(Bytes(UPLOAD, 400_000, 400_000, elapsed_s, 0, dataclasses.replace(speed, left_s=0.0)))
    renderer.event(Stage(UPLOAD, "", finished=True, elapsed_s=elapsed_s))
    renderer.close()


def plain(speed: Speed = SPEED, elapsed_s: float = 20.0, verbose: int = 0) -> list[str]:
    err = io.StringIO()
    transfer(PlainRenderer(io.StringIO(), err, verbose=verbose), speed, elapsed_s)
    return err.getvalue().splitlines()


def test_lines_of_a_transfer_tell_the_present_rate_and_the_time_that_is_left() -> None:
    assert plain() == [
        "upload: 1.1.0",
        "upload: 25 %, 100 KB of 400 KB, 21 KB/s, 12 s left",
        "upload: 100 %, 400 KB of 400 KB, 20 KB/s",
        "upload: done, 400 KB at 20 KB/s (20 s)",
        f"note: limited by the buffers: {HINT}",
    ]
    stalled = plain(dataclasses.replace(SPEED, now=0.0, left_s=None))
    assert stalled[1] == "upload: 25 %, 100 KB of 400 KB, 0 B/s"


def test_verbose_lines_tell_what_makes_the_rate() -> None:
    made_of = "window 2, 354 B each, 62 ms, 95 % 123 ms, 3 again, limit: buffers"
    assert plain(verbose=1) == [
        "upload: 1.1.0",
        f"upload: 25 %, 100 KB of 400 KB, 21 KB/s, 12 s left ({made_of})",
        f"upload: 100 %, 400 KB of 400 KB, 20 KB/s ({made_of})",
        "upload: done, 400 KB at 20 KB/s (20 s)",
        "note: 20 KB/s on average: window 2, 354 B each, round trip 62 ms (95 %: 123 ms), 3 sent again",
        f"note: limited by the buffers: {HINT}",
    ]
    first = Speed(0.0, 0.0, None, 1, 0, None, None, 0)
    assert plain(first, verbose=1)[-1] == "note: 0 B/s on average: window 1, nothing sent again"
    device = dataclasses.replace(SPEED, limited_by=Limit.DEVICE, hint=None, retransmissions=0, round_trip_s=0.0004)
    assert plain(device, verbose=1)[-1].endswith(
        "round trip 0.4 ms (95 %: 123 ms), nothing sent again, limited by the device"
    )


@pytest.mark.parametrize(
    ("changes", "elapsed_s"),
    [
        ({}, 9.0),
        ({"window": 3}, 20.0),
        ({"limited_by": Limit.LINK}, 20.0),
        ({"limited_by": None}, 20.0),
        ({"hint": None}, 20.0),
    ],
)
def test_a_hint_that_is_not_worth_it_is_not_told(changes: dict[str, object], elapsed_s: float) -> None:
    lines = plain(dataclasses.replace(SPEED, **changes), elapsed_s)  # type: ignore[arg-type]
    assert not any(line.startswith("note:") for line in lines)
    assert lines[-1].startswith("upload: done")


def test_what_moves_fits_80_columns_with_all_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    huge = Speed(999_499.0, 999_499.0, 3599.0, 128, 65_500, 59.0, 599.0, 99_999, Limit.BUFFERS, HINT)
    for speed in (SPEED, huge):
        err = Screen()
        renderer = TerminalRenderer(Screen(), err, verbose=1)
        renderer.event(Stage(UPLOAD, "uploading 1.1.0"))
        renderer.event(Bytes(UPLOAD, 999_400, 99_999_999, 5.0, 0, speed))
        renderer.pause()  # draws a last time
        drawn = [row.rstrip() for row in re.split(r"[\r\n]", ANSI.sub("", err.getvalue()))]
        assert max(map(len, drawn)) <= 77
        assert any(f"window {speed.window}, {speed.chunk_bytes} B each, " in row for row in drawn)
        bar = next(row for row in drawn if " left" in row)
        assert " 0 %  999 KB/100 MB  " in bar
        renderer.close()
    assert "limit: buffers" in speed_text(SPEED, short=True)


def test_the_second_line_is_for_who_wants_it() -> None:
    err = Screen()
    transfer(TerminalRenderer(Screen(), err))
    assert "window" not in err.getvalue()


def test_the_end_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    err = Screen()
    transfer(TerminalRenderer(Screen(), err, verbose=1))
    rows = on_screen(err.getvalue())
    assert rows[-3:] == [
        "  · 20 KB/s on average: window 2, 354 B each, round trip 62 ms (95 %: 123 ms), 3",
        "    sent again",
        f"  · limited by the buffers: {HINT}",
    ]


def test_json_has_the_numbers_rounded() -> None:
    out = io.StringIO()
    transfer(JsonRenderer(out, io.StringIO()))
    moved = [record for line in out.getvalue().splitlines() if (record := json.loads(line))["event"] == "bytes"]
    assert [record["speed"]["left_s"] for record in moved] == [12.3, 0.0]
    assert moved[0]["speed"] == {
        "now": 21400,
        "average": 20000,
        "left_s": 12.3,
        "window": 2,
        "chunk_bytes": 354,
        "round_trip_s": 0.0621,
        "slow_round_trip_s": 0.123457,
        "retransmissions": 3,
        "limited_by": "buffers",
        "hint": HINT,
    }


class Counted(io.StringIO):
    """A stream that counts how often it is written to."""

    writes = 0

    def write(self, text: str, /) -> int:
        self.writes += 1
        return super().write(text)


@pytest.mark.parametrize("kind", [PlainRenderer, TerminalRenderer])
def test_a_long_result_is_written_at_once(kind: type[PlainRenderer]) -> None:
    out = Counted()
    kind(out, io.StringIO()).result("image list", "\n".join(f"slot {number} \x1b" for number in range(1000)))
    assert out.writes == 1
    assert out.getvalue().splitlines()[999] == "slot 999 \\x1b"
