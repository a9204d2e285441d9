"""What is shown of an operation: in a pipe, on a terminal, as JSON."""

from __future__ import annotations

import io
import json
import re

import pytest

from mcumgrx.cli.exit_codes import Exit, Failure
from mcumgrx.cli.render import JsonRenderer, PlainRenderer, Renderer
from mcumgrx.cli.terminal import TerminalRenderer
from mcumgrx.events import Bytes, DeviceText, Event, Note, Stage, StageName

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
