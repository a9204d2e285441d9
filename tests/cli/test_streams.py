"""Standard output and error: who writes to them, what cannot be written, and that nobody waits for it."""

from __future__ import annotations

import errno
import io
import sys
import threading

import pytest

from mcumgrx.cli.logs import logging_to
from mcumgrx.cli.streams import Outlet, lost, standard_streams, write_line


class Stuck(io.StringIO):
    """A terminal that is stopped, until somebody lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def write(self, text: str, /) -> int:
        self.reached.set()
        self.go_on.wait(100)
        return super().write(text)


class Failing(io.StringIO):
    """A disk that is full, or a pipe that nobody reads."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str, /) -> int:
        raise OSError(self.number, "it does not work")


def test_a_terminal_that_is_stopped_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Stuck()
    monkeypatch.setattr(sys, "stderr", terminal)
    with standard_streams() as now, now.beside() as outlet:
        write_line(now.err, "first")
        assert terminal.reached.wait(100)
        write_line(now.err, "second")
        assert not outlet.drain(0.0)
        print("printed by a plugin")
        terminal.go_on.set()
        assert outlet.close()
    assert terminal.getvalue() == "first\nsecond\nprinted by a plugin\n"


def test_what_waits_to_be_written_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outlet, "MOST_CHARACTERS", 10)
    written: list[str] = []
    go_on = threading.Event()

    def write(text: str) -> None:
        go_on.wait(100)
        written.append(text)

    outlet = Outlet("test")
    for number in range(100):
        outlet.put(write, f"line {number}\n")
    go_on.set()
    assert outlet.drain()
    outlet.put(write, "last\n")
    assert outlet.close()
    assert written == [
        "line 0\n",
        "line 1\n",
        "(98 lines left out here: they could not be written fast enough)\nlast\n",
    ]


def test_what_is_lost_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Failing(errno.ENOSPC)
    monkeypatch.setattr(sys, "stdout", full)
    with standard_streams() as now:
        write_line(now.out, "result")
        error = lost(now.out)
        assert error is not None
        assert error.errno == errno.ENOSPC
        assert lost(now.out) is None
    assert sys.stdout is full


def test_a_reader_that_has_left_has_lost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    with standard_streams() as now:
        write_line(now.out, "result")
        assert lost(now.out) is None


def test_without_streams_nothing_is_written_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with standard_streams() as now:
        write_line(now.out, "result")
        write_line(now.err, "warning")
        print("stray")
        sys.stdout.flush()


def test_for_a_command_that_writes_itself_standard_output_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with standard_streams() as now:
        print("stray \x1b[2J")
        with now.released():
            print("mine")
        print("unfinished", end="")
    assert capsys.readouterr() == ("mine\n", "stray \\x1b[2J\nunfinished\n")


def test_a_record_that_cannot_be_formatted_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    class Odd:
        def __str__(self) -> str:
            raise ValueError

    shown: list[str] = []
    log = logging.getLogger("mcumgrx.test")
    log.propagate = True
    with logging_to(shown.append, 0, None):
        # Not through caplog's own handler, which would raise.
        handlers, logging.getLogger().handlers = logging.getLogger().handlers, logging.getLogger().handlers[-1:]
        try:
            log.warning("odd: %s", Odd())
        finally:
            logging.getLogger().handlers = handlers
    assert shown == ["warning: mcumgrx.test: a record that cannot be formatted (ValueError): odd: %s"]
