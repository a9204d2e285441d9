"""What a user sees when there is something wrong with the cable or the network: message, hint and exit code."""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcumgrx.cli.main import main
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.console import ConsoleFraming

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX; Windows needs a real port", allow_module_level=True)

import tty

NO_LINK, NO_ANSWER, USAGE = 3, 4, 2


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    error: str
    hint: str


@pytest.fixture
def echo(capsys: pytest.CaptureFixture[str]) -> Callable[[str], Ended]:
    """`mcumgrx os echo` to an address."""

    def run(address: str) -> Ended:
        code = main(["os", "echo", "hello", "-d", address, "--timeout", "0.1"])
        lines = capsys.readouterr().err.splitlines()
        error = next(line.removeprefix("error: ") for line in lines if line.startswith("error: "))
        hint = next((line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")), "")
        assert "Traceback" not in "".join(lines)
        return Ended(code, error, hint)

    return run


@contextmanager
def device(answer: bytes | None) -> Iterator[str]:
    """A pseudo-terminal behind which each piece that arrives is answered with the same bytes."""
    master, slave = os.openpty()
    tty.setraw(slave)

    def serve() -> None:
        while os.read(master, 4096) != b"the end":
            if answer:
                os.write(master, answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        os.write(slave, b"the end")
        thread.join(50)
        os.close(master)
        os.close(slave)


def half_a_frame() -> bytes:
    (frame,) = ConsoleFraming().encode(build_message(3, 1, 0, 0, 0, 0, bytes(200)))
    return frame[:150]


DEVICES = {
    "silent": None,
    "wrong baud rate": random.Random(7).randbytes(400),
    "half a frame for ever": half_a_frame(),
    "text": b"login: \r\n",
    "our own echo": ConsoleFraming().encode(build_message(2, 1, 0, 0, 0, 0, b"\xa1adehello"))[0],
}


@pytest.mark.parametrize("answer", DEVICES.values(), ids=DEVICES)
@pytest.mark.parametrize("framing", ["console", "raw"])
def test_no_sensible_answer(
    framing: str, answer: bytes | None, echo: Callable[[str], Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcumgrx_plugins.uart.transport._RAW_SILENCE_S", 0.2)
    with device(answer) as path:
        ended = echo(f"serial:{path},framing={framing}")
    assert ended.code == NO_ANSWER
    assert ended.error.startswith("no answer to the echo within 0.1 s")
    assert ended.hint


def test_missing(echo: Callable[[str], Ended], tmp_path: Path) -> None:
    ended = echo(f"serial:{tmp_path / 'ttyACM0'}")
    assert (ended.code, ended.error) == (NO_LINK, f"there is no serial port {tmp_path / 'ttyACM0'}")
    assert "this computer" in ended.hint


def test_busy(echo: Callable[[str], Ended]) -> None:
    import serial

    with device(None) as path, serial.Serial(path, exclusive=True):
        ended = echo(path)
    assert (ended.code, ended.error) == (NO_LINK, f"{path} is in use by another program")
    assert ended.hint


def test_no_permission(echo: Callable[[str], Ended]) -> None:
    was_root = os.geteuid() == 0
    with device(None) as path:
        os.chmod(path, 0)
        if was_root:
            os.seteuid(65534)  # root may open everything
        try:
            ended = echo(path)
        finally:
            if was_root:
                os.seteuid(0)
    assert (ended.code, ended.error) == (NO_LINK, f"{path} may not be opened by you")
    assert "its mode (0000) lets no group use it" in ended.hint


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_network(scheme: str, echo: Callable[[str], Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcumgrx_plugins.udp.transport._PATIENCE_UNHEARD_S", 0.1)  # as the time-out of these tests
    kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    ended = echo(f"{scheme}:127.0.0.1:{port}")
    assert ended.code == NO_LINK
    assert "refuses" in ended.error
    assert ended.hint

    ended = echo(f"{scheme}:no-such-host.invalid:1337")
    assert ended.code == NO_LINK
    assert "no host is known as 'no-such-host.invalid'" in ended.error
    assert ended.hint

    for wrong in ("0", "70000", "smp", "-1"):
        ended = echo(f"{scheme}:127.0.0.1:{wrong}")
        assert ended.code == USAGE
        assert f"{wrong!r} in {scheme}:127.0.0.1:{wrong} is not a port" in ended.error
        assert ended.hint == "a port is a number from 1 to 65535"


@pytest.mark.parametrize(
    "address",
    ["serial:", "serial:/dev/null,framing=smoke", "usb:nonsense", "tcp:host", "udp:", "udp:fe80::1", "tcp:[::1"],
)
def test_addresses_that_mean_nothing(address: str, echo: Callable[[str], Ended]) -> None:
    assert echo(address).code == USAGE
