"""The plan as a list that is ticked off on a terminal: which line an event belongs to, and how it looks."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

from mcumgrx.cli.checklist import Checklist, Mark
from mcumgrx.cli.dfu import PlanView
from mcumgrx.cli.exit_codes import Exit, Failure
from mcumgrx.cli.terminal import TerminalRenderer
from mcumgrx.events import Bytes, Note, Stage, Status
from mcumgrx.flows import Plan
from mcumgrx.flows.plan import Check, Confirm, Prove, Reset, Soak, Upload  # fmt: skip
from mcumgrx.flows.plan import Mark as MarkStep

STEPS = [("upload", "upload A"), ("mark", "mark it"), ("reset", "reset the device"), ("prove", "prove that A runs")]
SHOWN = {Mark.OPEN: ".", Mark.RUNNING: ">", Mark.DONE: "+", Mark.FAILED: "x"}


def states(checklist: Checklist) -> str:
    return "".join(SHOWN[item.mark] for item in checklist.items)


def through(checklist: Checklist, *stages: str) -> list[str]:
    """The marks after each stage: `reset` begins, `reset!` has ended."""
    seen = []
    for name in stages:
        if name.endswith("!"):
            checklist.ends(Stage(name[:-1], f"done with {name[:-1]}", finished=True, elapsed_s=1.0))
        else:
            checklist.begins(Stage(name, f"doing {name}"))
        seen.append(states(checklist))
    return seen


def test_a_line_is_ticked_off_when_the_next_one_begins() -> None:
    checklist = Checklist(["desk"], STEPS)
    stages = ("upload", "upload!", "mark", "mark!", "reset", "reset!", "return", "return!", "prove")
    assert " ".join(through(checklist, *stages)) == ">... >... +>.. +>.. ++>. ++>. ++>. ++>. +++>"
    checklist.finished()
    assert states(checklist) == "++++"
    texts = [item.text for item in checklist.items]
    assert texts == ["done with upload", "done with mark", "done with return", "that A runs"]
    assert [item.elapsed_s for item in checklist.items] == [1.0, 1.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("steps", "stages", "marks"),
    [
        # Once more: the reset belongs to the proof that asks for it.
        (
            ["reset", "prove"],
            ["reset", "reset!", "return", "return!", "prove", "prove!", "reset", "return", "prove"],
            "+>",
        ),
        # A line for each upload; the second one moves on only when the first has ended, as after a lost link.
        (["upload", "upload", "mark"], ["upload", "upload", "upload!"], ">.."),
        (["upload", "upload", "mark"], ["upload", "upload!", "upload", "upload!"], "+>."),
        # Uploads in one line, and erases.
        (["erase", "upload", "mark"], ["erase", "erase!", "erase", "erase!", "upload", "upload!", "upload"], "+>."),
        # The way back first, twice.
        (["go-back", "upload"], ["reset", "reset!", "return", "return!", "reset", "return"], ">."),
        (["keep", "upload", "confirm"], ["confirm", "confirm!", "upload", "upload!", "confirm"], "++>"),
        # What a step is made of elsewhere.
        (["mark", "look", "reset"], ["mark", "mark!", "mark"], "+>."),
        (["name-loader", "enter-loader", "upload"], ["enter", "enter!", "reset", "reset!", "enter", "enter!"], "+>."),
        # Links that are lost, and a rollback after a check, are told on the line under way.
        (["upload", "mark"], ["upload", "connect", "connect!"], ">."),
        (["check", "confirm"], ["check", "check!", "reset", "reset!", "return"], ">."),
        (["upload"], ["connect", "connect!"], ">"),
        ([], ["connect", "connect!"], ""),
    ],
)
def test_what_a_stage_belongs_to(steps: list[str], stages: list[str], marks: str) -> None:
    checklist = Checklist([], [(name, name) for name in steps])
    assert through(checklist, *stages)[-1] == marks


def test_a_line_that_fails_says_how_far_it_came() -> None:
    checklist = Checklist([], STEPS)
    through(checklist, "upload", "upload!", "mark")
    checklist.failed("marking A")
    assert states(checklist) == "+x.."
    assert checklist.items[1].text == "marking A"


# -- on the screen -----------------------------------------------------------------------------------------------------


class Screen(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


PLAN = Plan(
    (Upload(50_000, 1, "1.1.0", resumed_from=34_000), MarkStep(False), Reset(), Prove("1.1.0"), Soak(5.0),
     Check(("heater",)), Confirm("1.1.0")),
    "1.0.0", "1.1.0", 1, hash="a178757e" * 8, board="nrf52840dk/nrf52840",
)  # fmt: skip
VIEW = PlanView("serial:/dev/ttyACM0", PLAN)
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def screen(written: str, height: int = 40) -> list[str]:
    """What a terminal shows in the end, of what was written to it: a small emulation."""
    rows, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif piece.endswith("A"):
            row = max(0, row - int(piece[2:-1] or 1))
        elif piece == "\x1b[2K":
            rows[row] = ""
        elif piece == "\x1b[J":
            rows[row:] = [rows[row][:column]]
        elif not piece.startswith("\x1b"):
            rows[row] = rows[row][:column].ljust(column) + piece + rows[row][column + len(piece) :]
            column += len(piece)
    return [one.rstrip() for one in rows]


def renderer(monkeypatch: pytest.MonkeyPatch, columns: int = 80, verbose: int = 0) -> tuple[TerminalRenderer, Screen]:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("NO_COLOR", raising=False)
    err = Screen()
    return TerminalRenderer(Screen(), err, verbose=verbose), err


def begin(shown: TerminalRenderer) -> None:
    for name, text in (
        ("inspect", "app.bin: 1.1.0"),
        ("connect", "connected"),
        ("read", "1.0.0 runs"),
        ("plan", "7 steps"),
    ):
        shown.event(Stage(name, f"{name} …"))
        shown.event(Stage(name, text, finished=True, elapsed_s=0.1))
    shown.show("plan", VIEW)


def upload(shown: TerminalRenderer, done: int = 50_000) -> None:
    shown.event(Stage("upload", "uploading 1.1.0"))
    shown.event(Bytes("upload", 34_000, 50_000, 0.0, 34_000))
    shown.event(Bytes("upload", done, 50_000, 4.0, 34_000))


def test_the_plan_is_one_list_of_at_most_twelve_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, err = renderer(monkeypatch)
    begin(shown)
    upload(shown)
    shown.event(Stage("upload", "1.1.0 is in slot 1", finished=True, elapsed_s=4.0))
    shown.event(Note("the device was busy", warning=True))
    for name in ("mark", "reset", "return", "prove", "soak", "check", "confirm"):
        shown.event(Stage(name, f"{name} begins"))
        shown.event(Stage(name, f"{name} is done", finished=True, elapsed_s=0.2))
    shown.result("dfu", "done: all")
    rows = [row for row in screen(err.getvalue()) if row]
    assert rows == [
        "  ✓ inspect   app.bin: 1.1.0                                               0.1 s",
        "  ! the device was busy",
        "  nrf52840dk/nrf52840 at serial:/dev/ttyACM0",
        "  1.0.0 -> 1.1.0 (hash a178757e)",
        "  ✓ upload    1.1.0 is in slot 1, 16.0 KB at 4.0 KB/s, resumed at 34 KB    4.0 s",
        "  ✓ mark      mark is done                                                 0.2 s",
        "  ✓ reset     return is done                                               0.4 s",
        "  ✓ prove     prove is done                                                0.2 s",
        "  ✓ soak      soak is done                                                 0.2 s",
        "  ✓ check     check is done                                                0.2 s",
        "  ✓ confirm   confirm is done                                              0.2 s",
    ]
    assert err.getvalue().count("\x1b[?25l") == err.getvalue().count("\x1b[?25h") > 0  # the cursor is back
    assert "\x1b[32m" in err.getvalue()


@pytest.mark.parametrize("columns", [60, 72, 80, 120])
@pytest.mark.parametrize("unicode", [True, False])
def test_an_upload_has_its_bar_in_the_list(monkeypatch: pytest.MonkeyPatch, columns: int, unicode: bool) -> None:
    shown, err = renderer(monkeypatch, columns)
    if not unicode:
        shown, err = TerminalRenderer(Screen(), err), err
        shown._unicode = False
    begin(shown)
    upload(shown, 40_000)
    shown.pause()
    rows = screen(err.getvalue())
    bar = next(row for row in rows if " 80 %" in row)
    assert ("resumed at 34 KB" if columns > 60 else ", from 34 KB") in bar
    assert ("━━━" if unicode else "###") in bar
    assert max(map(len, rows)) <= columns
    assert len([row for row in rows if row][1:]) == 9


def test_a_failing_step_has_its_cross_and_the_reason_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, err = renderer(monkeypatch)
    begin(shown)
    upload(shown, 40_000)
    shown.failure(Failure(Exit.NO_LINK, "LinkLost", "the link is lost", "plug it in"))
    rows = [row for row in screen(err.getvalue()) if row]
    assert rows[3] == "  ✗ upload    uploading 1.1.0, 40.0 KB of 50.0 KB done"
    assert rows[4].startswith("  · mark      it for a test boot")
    assert rows[-2:] == ["error: the link is lost", "hint: plug it in"]
    assert err.getvalue().count("the link is lost") == 1


def test_a_check_that_fails_is_not_ticked_off_by_the_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, err = renderer(monkeypatch)
    begin(shown)
    for name in ("upload", "mark", "reset", "prove", "soak", "check"):
        shown.event(Stage(name, f"asking in {name}"))
        shown.event(Stage(name, f"{name}: no", finished=True))
    shown.event(Stage("reset", "resetting"))
    shown.event(Stage("reset", "the device restarts", finished=True))
    shown.failure(Failure(Exit.REVERTED, "FlowError", "taken back"))
    rows = [row for row in screen(err.getvalue()) if row]
    assert "  ✗ check     asking in check" in rows
    assert "  · confirm   1.1.0, so that it stays" in rows
    assert "resetting" not in "".join(rows)


def test_what_goes_on_in_a_folded_step_is_told_on_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, err = renderer(monkeypatch)
    begin(shown)
    shown.event(Stage("confirm", "going back"))
    shown.event(Status("resetting once more"))
    shown.pause()
    assert any("confirm   resetting once more" in row for row in screen(err.getvalue()))


def test_a_refused_plan_shows_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, err = renderer(monkeypatch)
    for name in ("connect", "read"):
        shown.event(Stage(name, "…"))
        shown.event(Stage(name, f"{name} is done", finished=True))
    shown.event(Stage("plan", "planning"))
    shown.failure(Failure(Exit.PLAN_REFUSED, "PlanRefused", "it does not fit"))
    rows = [row for row in screen(err.getvalue()) if row]
    assert rows == [
        "  ✓ connect   connect is done",
        "  ✓ read      read is done",
        "  ✗ plan      planning",
        "error: it does not fit",
    ]


def test_after_a_question_the_list_goes_on_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, err = renderer(monkeypatch)
    begin(shown)
    shown.pause()
    err.write("Go on all the same? [y/N] y\n")  # the answer is what the terminal itself shows
    upload(shown)
    shown.result("dfu", "done: all")
    rows = [row for row in screen(err.getvalue()) if row]
    assert sum("upload" in row for row in rows) == 1
    assert not any("Go on" in row for row in rows)


def test_without_colour_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    err = Screen()
    shown = TerminalRenderer(Screen(), err)
    begin(shown)
    upload(shown)
    shown.result("dfu", "done: all")
    codes = re.findall(r"\x1b\[([0-9;]*)m", err.getvalue())
    assert not {code for code in codes if re.search(r"(^|;)(3[0-7]|4[0-7])($|;)", code)}


@pytest.mark.parametrize("verbose", [0, 1])
def test_a_transfer_has_a_second_line_where_there_is_room(monkeypatch: pytest.MonkeyPatch, verbose: int) -> None:
    from .test_renderers import SPEED

    for steps, room in ((2, True), (10, False)):
        shown, err = renderer(monkeypatch, verbose=verbose)
        shown.show("plan", replace(VIEW, plan=replace(PLAN, steps=(PLAN.steps[0],) * steps)))
        shown.event(Stage("upload", "uploading 1.1.0"))
        shown.event(Bytes("upload", 40_000, 50_000, 4.0, 34_000, SPEED))
        shown.pause()
        assert any("window 2" in row for row in screen(err.getvalue())) == (room and bool(verbose))


@pytest.mark.parametrize("count", [1, 5, 8, 9, 10, 11])
def test_any_plan_fits(count: int) -> None:
    view = replace(VIEW, plan=replace(PLAN, steps=(PLAN.steps[0],) * count))
    made = view.checklist()
    assert len(made.head) + len(made.items) <= 12
    assert "nrf52840dk/nrf52840" in made.head[0]
