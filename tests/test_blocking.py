"""One device without `await`: groups, updates, progress in the caller's thread, pause, cancel, Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

import mcumgrx
from mcumgrx.blocking import BlockingDevice
from mcumgrx.errors import DeviceError, DeviceNotFound, PlanRefused, UsageError
from mcumgrx.events import Bytes, Event
from mcumgrx.flows import DfuPolicy, Ending, Mode
from mcumgrx.mcuboot import load_image
from mcumgrx.sim.images import build_image

pytestmark = pytest.mark.timeout(60)

QUICK = "erase=0.2,boot=0.05,reset_delay=0.02,watchdog=0.2"


@pytest.fixture
def device() -> Iterator[BlockingDevice]:
    with mcumgrx.open(f"sim:,{QUICK}") as opened:
        yield opened


@pytest.fixture
def app(tmp_path: Path) -> str:
    path = tmp_path / "app.bin"
    path.write_bytes(build_image("1.1.0", payload_size=20_000))
    return str(path)


def test_groups_are_there_by_name(device: BlockingDevice) -> None:
    assert device.os.echo("hello") == "hello"
    assert [slot.version for slot in device.image.state().slots] == ["1.0.0"]
    device.settings.write("app/interval", b"\x01")
    assert device.settings.read("app/interval").value == b"\x01"
    assert device.shell.run_line("help").text
    assert device.stat.names()
    assert {"os", "image", "fs"} <= set(dir(device))
    assert {"echo", "reset"} <= set(dir(device.os))


def test_what_is_not_there_says_what_is(device: BlockingDevice) -> None:
    with pytest.raises(AttributeError, match=r"no command group 'heater'; there are .*image"):
        device.heater  # noqa: B018
    with pytest.raises(AttributeError):
        device.os.sing  # noqa: B018


def test_files_both_ways_and_piece_by_piece(device: BlockingDevice) -> None:
    content = bytes(range(256)) * 20
    moved: list[tuple[int, int]] = []
    device.fs.upload(content, "/lfs1/a.bin", progress=lambda done, total: moved.append((done, total)))
    assert moved[-1] == (len(content), len(content))
    assert b"".join(device.fs.read("/lfs1/a.bin")) == content
    pieces = device.fs.read("/lfs1/a.bin")
    assert content.startswith(next(pieces))
    pieces.close()  # the file is left in the middle
    assert device.fs.size("/lfs1/a.bin") == len(content)


def test_an_update_tells_in_the_thread_that_called(device: BlockingDevice, app: str) -> None:
    threads: set[str] = set()
    events: list[Event] = []

    def tell(event: Event) -> None:
        threads.add(threading.current_thread().name)
        events.append(event)

    plans: list[str] = []
    report = device.update(app, progress=tell, on_plan=lambda plan: not plans.append(plan.to_version))  # type: ignore[func-returns-value]
    assert report.ending is Ending.CONFIRMED
    assert threads == {threading.current_thread().name}
    assert any(isinstance(event, Bytes) for event in events)
    assert plans == ["1.1.0"]
    assert device.image.state().active().version == "1.1.0"
    assert device.update(app).ending is Ending.NOTHING_TO_DO


def test_errors_are_raised_where_it_was_called(device: BlockingDevice, app: str) -> None:
    with pytest.raises(DeviceError):
        device.fs.size("/lfs1/none.bin")
    with pytest.raises(PlanRefused):
        device.update(app, DfuPolicy(board="other"))
    with pytest.raises(UsageError):
        mcumgrx.open("nothing")
    with mcumgrx.open("serial:/dev/there-is-none") as absent, pytest.raises(DeviceNotFound):
        absent.os.echo("x")


async def test_it_works_where_a_loop_runs_already(device: BlockingDevice) -> None:
    assert device.os.echo("in a notebook") == "in a notebook"


def test_several_threads_share_one_device(device: BlockingDevice) -> None:
    said: list[str] = []
    threads = [threading.Thread(target=lambda n=n: said.append(device.os.echo(f"{n}"))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == [str(n) for n in range(8)]


def test_a_listener_that_fails_ends_the_transfer_and_leaves_the_device_usable(device: BlockingDevice, app: str) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("the window is closed")

    with pytest.raises(RuntimeError, match="the window is closed"):
        device.image.upload(load_image(app), progress=fail)
    assert device.os.echo("still there") == "still there"


def test_cancel_from_another_thread_reaches_the_transfer(app: str) -> None:
    with mcumgrx.open(f"sim:,{QUICK},speed=2000") as device:

        def once(done: int, total: int) -> None:
            threading.Thread(target=device.cancel).start()

        with pytest.raises(CancelledError):
            device.image.upload(load_image(app), progress=once)
        assert device.os.echo("x") == "x"


def test_a_held_upload_goes_on_when_it_is_let(app: str) -> None:
    with mcumgrx.open(f"sim:,{QUICK}") as device:
        held = threading.Event()

        def hold(done: int, total: int) -> None:
            if not held.is_set():
                device.pause.hold()
                held.set()

        def let_go() -> None:
            held.wait(30)
            assert device.os.echo("while it is held") == "while it is held"
            device.pause.resume()

        helper = threading.Thread(target=let_go)
        helper.start()
        report = device.update(app, DfuPolicy(mode=Mode.UPLOAD_ONLY), progress=hold)
        helper.join()
        assert report.ending is Ending.UPLOADED


def test_a_closed_device_can_be_opened_again_by_its_next_calls() -> None:
    device = mcumgrx.open(f"sim:,{QUICK}")
    for _ in range(2):  # each time several at once wait for the link, in another loop
        with ThreadPoolExecutor(4) as threads:
            assert [*threads.map(device.os.echo, "abcd")] == [*"abcd"]
        device.close()
        device.close()


CHILD = """
import signal, sys, mcumgrx
from mcumgrx.mcuboot import load_image

# Whatever is run in the background by a shell without job control inherits that the signal is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def tell(done, total):
    print("moving", flush=True)

with mcumgrx.open("sim:,speed=20000") as device:
    try:
        device.image.upload(load_image(sys.argv[1]), progress=tell)
    except KeyboardInterrupt:
        print("echo", device.os.echo("after"), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_ends_the_transfer_and_nothing_else(tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(build_image("1.1.0", payload_size=400_000))
    with subprocess.Popen([sys.executable, "-c", CHILD, str(large)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "moving\n"
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read().splitlines()
        assert rest[-1] == "echo after"
    assert child.returncode == 0


def test_own_work_runs_in_the_loop_of_the_device(device: BlockingDevice) -> None:
    async def both(client: mcumgrx.Client) -> list[str]:
        from mcumgrx.contracts import OsGroup

        group = client.group(OsGroup)
        return list(await asyncio.gather(group.echo("a"), group.echo("b")))

    assert device.run(both) == ["a", "b"]
