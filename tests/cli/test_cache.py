"""What commands remember of devices, and the commands that show it and forget it."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.link.profile import Learned
from mcumgrx.memory import Memory

from ..support.served import serving
from .conftest import QUICK

Cli = Callable[..., Any]

SMALL = Learned(message_bytes=244, refused_bytes=384, room_bytes=384, erase_s=11.2)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    """That of the commands in this test, which is switched on."""
    folder = tmp_path / "cache"
    monkeypatch.delenv("MCUMGRX_NO_CACHE")
    monkeypatch.setenv("MCUMGRX_CACHE_DIR", str(folder))
    return Memory(folder)


# -- commands that use devices ----------------------------------------------------------------------------------------

MOST_BYTES = 600


@contextmanager
def narrow_road(target: str) -> Iterator[tuple[str, list[int]]]:
    """A way to the UDP server at `target` that loses larger datagrams: its address, and the sizes of those lost."""
    host, _, port = target.rpartition(":")
    lost: list[int] = []
    ended = threading.Event()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        near.bind(("127.0.0.1", 0))
        far.connect((host, int(port)))
        wake, woken = socket.socketpair()

        def forward() -> None:
            client: Any = None
            while not ended.is_set():
                for ready in select.select([near, far, woken], [], [])[0]:
                    if ready is near:
                        data, client = near.recvfrom(65536)
                        if len(data) > MOST_BYTES:
                            lost.append(len(data))
                        else:
                            far.send(data)
                    elif ready is far:
                        near.sendto(far.recv(65536), client)

        thread = threading.Thread(target=forward)
        thread.start()
        try:
            yield f"udp:127.0.0.1:{near.getsockname()[1]}", lost
        finally:
            ended.set()
            wake.send(b"x")
            thread.join()
            wake.close()
            woken.close()


@pytest.mark.skipif(sys.platform == "win32", reason="the server is ended by a signal that Windows lacks")
def test_the_next_process_begins_with_what_this_one_has_found(
    run_process: Cli, memory: Memory, image_file: Callable[..., str]
) -> None:
    with (
        serving(f"sim:desk,{QUICK},buf_size=2048", "--udp", "0") as served,
        narrow_road(served.target("udp")) as (address, lost),
    ):

        def upload(version: str, *options: str) -> int:
            ended = run_process("image", "upload", image_file(version), "-d", address, "--id", "board 7", *options)
            assert (ended.exit, "uploaded" in ended.out) == (0, True), ended.err
            count = len(lost)
            lost.clear()
            return count

        assert upload("1.1.0", "--no-cache") > 0
        assert memory.known() == []
        assert upload("1.2.0") > 0
        (known,) = memory.known()
        assert (known.id, known.link) == ("board 7", "udp")
        assert known.learned.refuses(1472)  # a datagram
        assert upload("1.3.0") == 0


def test_what_has_no_identity_has_one_by_its_name(
    cli: Cli, memory: Memory, virtual_time: None, image_file: Any
) -> None:
    upload = ("image", "upload", image_file("1.1.0"), "-d", "sim:")
    assert cli(*upload).exit == 0
    assert memory.known() == []
    assert cli(*upload, "--id", "board 7").exit == 0
    assert [(one.id, one.link) for one in memory.known()] == [("board 7", "sim")]


def test_the_name_can_come_from_the_environment(
    cli: Cli, memory: Memory, virtual_time: None, image_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCUMGRX_ID", "board 8")
    assert cli("image", "upload", image_file("1.1.0"), "-d", "sim:").exit == 0
    assert [one.id for one in memory.known()] == ["board 8"]
    monkeypatch.setenv("MCUMGRX_NO_CACHE", "1")
    assert cli("image", "upload", image_file("1.1.0"), "-d", "sim:", "--id", "board 9").exit == 0
    assert [one.id for one in memory.known()] == ["board 8"]


def test_a_name_that_is_none(cli: Cli, memory: Memory) -> None:
    ended = cli("os", "echo", "hi", "-d", "sim:", "--id", " ")
    assert ended.exit == 2
    assert ended.err.splitlines()[0] == "error: the name of a device has 1 to 200 characters"


@pytest.mark.parametrize("text", ["garbage", '{"version": 99, "devices": []}'])
def test_a_file_of_no_use_is_told_with_verbosity_and_stops_nothing(cli: Cli, memory: Memory, text: str) -> None:
    memory.path.parent.mkdir()
    memory.path.write_text(text, "utf-8")
    ended = cli("os", "echo", "hi", "-d", "sim:", "--id", "desk")
    assert (ended.exit, ended.out, ended.err) == (0, "hi\n", "")
    verbose = cli("os", "echo", "hi", "-d", "sim:", "--id", "desk", "-v").err
    assert "mcumgrx.memory: nothing is remembered of devices: " in verbose
    assert memory.path.read_text("utf-8") == text


def test_the_demonstration_leaves_nothing_behind(
    run_process: Cli, memory: Memory, desk: str, image_file: Callable[..., str]
) -> None:
    assert run_process("demo", "--firmware", image_file("1.1.0"), "-d", desk).exit == 0
    assert memory.known() == []
    assert run_process("dfu", image_file("1.2.0"), "-d", desk, "--id", "desk").exit == 0
    assert len(memory.known()) == 1


# -- show and clear ---------------------------------------------------------------------------------------------------


def test_nothing(cli: Cli, memory: Memory) -> None:
    assert cli("cache", "show").out == "nothing is remembered\n"
    assert cli("cache", "clear").out == "nothing was remembered\n"
    assert cli("cache", "show", "--json").result == {"path": str(memory.path), "devices": []}
    assert not memory.path.parent.exists()


def test_show(cli: Cli, memory: Memory) -> None:
    memory.remember("A50285BI", "serial", SMALL)
    memory.remember("board 7", "ble", Learned(message_bytes=498))
    title, *rows = cli("cache", "show").out.splitlines()
    assert title.split("  ")[0] == "DEVICE"
    assert [re.split(r"  +", row)[:-1] for row in rows] == [
        ["A50285BI", "serial", "244 B", "384 B", "11.2 s"],
        ["board 7", "ble", "498 B", "-", "-"],
    ]
    assert all(re.search(r" \d{4}-\d\d-\d\d$", row) for row in rows)
    assert len(cli("cache", "show", "board 7").out.splitlines()) == 2
    assert cli("cache", "show", "board").out == "nothing is remembered\n"


def test_show_for_scripts(cli: Cli, memory: Memory) -> None:
    memory.remember("A50285BI", "serial", SMALL)
    (device,) = cli("cache", "show", "A50285BI", "--json").result["devices"]
    assert device.pop("used").startswith("20")
    assert device.pop("found").startswith("20")
    assert device == {
        "id": "A50285BI",
        "link": "serial",
        "message_bytes": 244,
        "refused_bytes": 384,
        "room_bytes": 384,
        "erase_s": 11.2,
        "alignment": 1,
    }


def test_what_a_device_calls_itself_cannot_paint_the_terminal(cli: Cli, memory: Memory) -> None:
    memory.remember("red\x1b[31m" + "long " * 30, "serial", SMALL)
    for arguments in (("cache", "show"), ("cache", "clear")):
        ended = cli(*arguments)
        assert "\x1b" not in ended.out
        assert "red" in ended.out


def test_clear_says_what_it_has_removed(cli: Cli, memory: Memory) -> None:
    for identity, link in (("board 7", "serial"), ("board 7", "ble"), ("other", "udp"), ("more", "udp")):
        memory.remember(identity, link, SMALL)
    assert cli("cache", "clear", "nobody").out == "nothing was remembered\n"
    ended = cli("cache", "clear", "board 7")
    assert ended.out.splitlines() == ["forgotten: board 7 over serial", "forgotten: board 7 over ble"]
    assert [one["id"] for one in cli("cache", "clear", "--json").result["removed"]] == ["other", "more"]
    assert cli("cache", "show").out == "nothing is remembered\n"


@pytest.mark.parametrize("command", ["show", "clear"])
def test_a_file_from_a_newer_version_is_left_to_it(cli: Cli, memory: Memory, command: str) -> None:
    memory.path.parent.mkdir()
    memory.path.write_text(json.dumps({"version": 2}), "utf-8")
    ended = cli("cache", command)
    assert (ended.exit, ended.out) == (2, "")
    said, hint = ended.err.splitlines()[0], ended.err
    assert "is from a newer version of mcumgrx" in " ".join(hint.split())
    assert said.startswith("error: what is remembered of devices cannot be used: ")
    assert "MCUMGRX_CACHE_DIR" in hint
    assert memory.path.exists()


def test_clear_removes_a_damaged_file(cli: Cli, memory: Memory) -> None:
    memory.path.parent.mkdir()
    memory.path.write_text("garbage", "utf-8")
    assert cli("cache", "show").exit == 2
    assert cli("cache", "clear").out == "nothing was remembered\n"
    assert not memory.path.exists()


_IMPORTS = """
import sys
from mcumgrx.cli.main import main

for arguments in ([], ["cache"], ["cache", "show", "--help"], ["dfu", "--help"], ["image", "upload", "--help"]):
    assert main(arguments) == 0, arguments
assert "mcumgrx.memory" not in sys.modules
"""


def test_help_does_not_load_the_memory() -> None:
    done = subprocess.run([sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
