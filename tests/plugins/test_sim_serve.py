"""`mcumgrx sim serve`: the simulated device on sockets and a pseudo-terminal, met by our own transports."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import mcumgrx
from mcumgrx.address import Address
from mcumgrx.cli.main import main
from mcumgrx.client import Client
from mcumgrx.contracts import UploadOptions
from mcumgrx.errors import LinkLost, RequestTimeout, UsageError
from mcumgrx.events import Bytes, Event
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import Echo, ReadImageState, ReadParams, Reset, UploadChunk
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.console import ConsoleFraming
from mcumgrx.protocol.framing import StreamFraming
from mcumgrx.protocol.header import Op
from mcumgrx.sim.device import Power, SimulatedDevice
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import runner_of
from mcumgrx.sim.loop import run
from mcumgrx_plugins.image.group import ImageGroup
from mcumgrx_plugins.sim.serve import DeviceServer, _Heart

from ..support.served import serving

pytestmark = pytest.mark.codec

posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
links = pytest.mark.parametrize("link", ["udp", "tcp", pytest.param("pty", marks=posix)])

TIOCGEXCL = 0x80045440
QUICK = "slot_size=65536,erase=0.1,reset_delay=0.02,boot=0.3"


@asynccontextmanager
async def server(
    options: str = QUICK, *, baud: int | None = 1_000_000, instant: bool = False
) -> AsyncIterator[DeviceServer]:
    async with DeviceServer(Address.parse(f"sim:desk,{options}"), baud=baud, instant=instant) as opened:
        yield opened


async def offer(opened: DeviceServer, link: str) -> str:
    if link == "pty":
        return str(opened.pty())
    return str(await (opened.udp if link == "udp" else opened.tcp)("127.0.0.1", 0))


async def becomes(opened: DeviceServer, power: Power) -> None:
    reached = asyncio.Event()

    def listen(now: Power) -> None:
        if now is power:
            reached.set()

    opened.device.listeners.append(listen)
    try:
        if opened.device.power is not power:
            await reached.wait()
    finally:
        opened.device.listeners.remove(listen)


async def echoes(client: Client, text: str = "hello", timeout_s: float | None = None) -> None:
    assert await client.request(Echo(text), timeout_s=timeout_s) == text


# -- links ------------------------------------------------------------------------------------------------------------


@links
async def test_round_trips(link: str) -> None:
    async with server() as opened, mcumgrx.connect(await offer(opened, link)) as client:
        await echoes(client)
        await echoes(client, "x" * 300)
        params = await client.request(ReadParams())
        assert (params.buf_size, params.buf_count) == (384, 4)


@links
async def test_a_link_stays_open_through_a_reset(link: str) -> None:
    heard: list[str] = []
    async with server() as opened, mcumgrx.connect(await offer(opened, link), on_text=heard.append) as client:
        await echoes(client)
        await client.request(Reset())
        async with asyncio.timeout(50):
            await becomes(opened, Power.BOOTING)
            with pytest.raises(RequestTimeout):  # nobody is there to take it
                await client.request(Echo("lost"), timeout_s=0.1, repeats=0)
            await becomes(opened, Power.RUNNING)
        await echoes(client, "back")
        assert opened.device.boots == 2
    expected = [] if link == "udp" else ["*** Booting MCUboot ***", "*** Booting Zephyr OS, application 1.0.0 ***"]
    assert "".join(heard).splitlines() == expected


@links
async def test_an_image_goes_in(link: str) -> None:
    image = build_image("1.1.0", payload_size=2_000)
    async with server() as opened, mcumgrx.connect(await offer(opened, link)) as client:
        offset = 0
        while offset < len(image):
            data = image[offset : offset + 200]
            chunk = UploadChunk(offset, data) if offset else UploadChunk(0, data, length=len(image))
            offset = (await client.request(chunk)).offset
        assert [str(slot.version) for slot in (await client.request(ReadImageState())).slots] == ["1.0.0", "1.1.0"]


@posix
async def test_all_links_lead_to_one_device() -> None:
    async with server() as opened:
        for link in ("udp", "tcp", "pty"):
            async with mcumgrx.connect(await offer(opened, link)) as client:
                await echoes(client)
        assert opened.device.requests == 3


@pytest.mark.parametrize("link", ["udp", "tcp"])
async def test_each_client_gets_its_own_answers(link: str) -> None:
    async with server() as opened:
        address = await offer(opened, link)
        async with mcumgrx.connect(address) as one, mcumgrx.connect(address) as other:
            for number in range(10):
                await asyncio.gather(echoes(one, f"one {number}"), echoes(other, f"other {number}"))


async def test_a_port_has_an_ipv6_address() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    async with server() as opened:
        try:
            address = await opened.udp("::1", 0)
        except UsageError as error:
            pytest.skip(f"no IPv6 loopback: {error}")
        assert address.target.startswith("[::1]:")
        async with mcumgrx.connect(str(address)) as client:
            await echoes(client)


@posix
async def test_clients_of_a_terminal_come_and_go() -> None:
    async with server() as opened:
        address = await offer(opened, "pty")
        for _ in range(3):
            async with mcumgrx.connect(address) as client:
                await echoes(client)


# -- as a device does ------------------------------------------------------------------------------------------------


@pytest.fixture
def tireless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server never takes itself for one that has stood still, however busy the computer of this test is."""
    monkeypatch.setattr("mcumgrx_plugins.sim.serve._STALL_S", 1e9)


@pytest.mark.usefixtures("tireless")
async def test_a_burst_overruns_the_line_buffers_of_a_fast_link() -> None:
    """Without pacing five lines come at once, as over USB; two find a buffer."""
    async with server(baud=0) as opened, mcumgrx.connect(await offer(opened, "tcp")) as client:
        await echoes(client)
        with pytest.raises(RequestTimeout):
            await client.request(Echo("x" * 300), timeout_s=0.3, repeats=0)


async def test_an_instant_device_takes_a_burst() -> None:
    options = "buf_size=2048"
    async with (
        server(options, baud=None, instant=True) as opened,
        mcumgrx.connect(await offer(opened, "tcp")) as client,
    ):
        await echoes(client, "x" * 1500)


async def test_a_baud_rate_takes_its_time() -> None:
    loop = asyncio.get_running_loop()
    async with server(baud=9600) as opened, mcumgrx.connect(await offer(opened, "tcp")) as client:
        await echoes(client)
        begin = loop.time()
        await echoes(client, "x" * 60)
        assert loop.time() - begin >= 2 * 90 / 960  # about 110 bytes, there and back


async def test_latency_delays_datagrams_both_ways() -> None:
    loop = asyncio.get_running_loop()
    async with server("latency=0.05") as opened, mcumgrx.connect(await offer(opened, "udp")) as client:
        begin = loop.time()
        await echoes(client)
        assert loop.time() - begin >= 0.1


async def test_an_instant_device_takes_no_time_for_its_flash() -> None:
    loop = asyncio.get_running_loop()
    async with server("erase=60", instant=True) as opened, mcumgrx.connect(await offer(opened, "udp")) as client:
        begin = loop.time()
        await client.request(UploadChunk(0, build_image("1.1.0")[:100], length=1000))
        assert loop.time() - begin < 30


async def test_a_datagram_that_is_no_message_is_ignored() -> None:
    async with server() as opened:
        address = await opened.udp("127.0.0.1", 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            for data in (b"", b"\x00", b"GET / HTTP/1.1\r\n\r\n", bytes(2000)):
                noise.sendto(data, address.endpoint())
        async with mcumgrx.connect(str(address)) as client:
            await echoes(client, timeout_s=0.5)  # the first may find the buffers full


def echo_message(sequence: int, text: str = "hello") -> bytes:
    return build_message(Op.WRITE, 1, 0, 0, sequence, 0, b"\xa1ad" + bytes([0x60 + len(text)]) + text.encode())


@pytest.mark.usefixtures("tireless")
@pytest.mark.parametrize(("instant", "expected"), [(True, [0, 1, 2, 3, 4]), (False, [0])])
async def test_datagrams_back_to_back(instant: bool, expected: list[int]) -> None:
    """With two buffers the second is lost, unless the first has been answered in no time."""
    loop = asyncio.get_running_loop()
    async with server(f"{QUICK},buf_count=2", instant=instant) as opened:
        address = await opened.udp("127.0.0.1", 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(address.endpoint())
            client.send(echo_message(99))
            assert (await loop.sock_recv(client, 2000))[6] == 99
            for number in range(5):
                client.send(echo_message(number))
            assert [(await loop.sock_recv(client, 2000))[6] for _ in expected] == expected
        lost = runner_of(opened.device).lost
    assert lost == 5 - len(expected)


@pytest.mark.parametrize("link", ["udp", pytest.param("pty", marks=posix)])
async def test_an_instant_device_needs_no_timers(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    call_at = loop.call_at
    framing = ConsoleFraming()

    def no_timer(when: float, call: Callable[..., None], *arguments: Any, **options: Any) -> asyncio.TimerHandle:
        assert call.__qualname__ == "_Heart._beat"
        return call_at(when, call, *arguments, **options)

    async with server(instant=True, baud=None) as opened:
        target = Address.parse(await offer(opened, link))
        if link == "udp":
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.setblocking(False)
            client.connect(target.endpoint())
        else:
            terminal = os.open(target.target, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

        async def exchange(number: int) -> int:
            if link == "udp":
                client.send(echo_message(number))
                return (await loop.sock_recv(client, 2000))[6]
            (frame,) = framing.encode(echo_message(number))
            os.write(terminal, frame)
            answered = asyncio.Event()
            loop.add_reader(terminal, answered.set)
            found: list[tuple[int, ...]] = []
            while not found:
                await answered.wait()
                found = [message[:6] for message in framing.feed(os.read(terminal, 2000))]
                answered.clear()
            loop.remove_reader(terminal)
            return found[0][4]

        try:
            assert await exchange(1) == 1
            with monkeypatch.context() as patch:
                patch.setattr(loop, "call_at", no_timer)
                assert [await exchange(number) for number in range(2, 9)] == list(range(2, 9))
        finally:
            if link == "udp":
                client.close()
            else:
                os.close(terminal)


async def test_a_loop_that_cannot_watch_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of Windows: asyncio reads the socket then."""

    def add_reader(*_: object) -> None:
        raise NotImplementedError

    async with server(instant=True) as opened:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "add_reader", add_reader)
            address = str(await opened.udp("127.0.0.1", 0))
        async with mcumgrx.connect(address) as client:
            await echoes(client)
            await echoes(client, "x" * 300)


# -- standing still ---------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("baud", ["0", "1000000"])
@pytest.mark.parametrize("link", ["udp", "tcp", "serial"])
async def test_a_server_that_stands_still_loses_nothing(link: str, baud: str) -> None:
    """What comes while it is stopped comes in one moment after it, which a working device would have taken.

    No more is on its way than the device has room for: over a network a transfer may try more, and lose it. What
    overruns it is what is sent again meanwhile.
    """
    if link == "udp" and baud != "0":
        pytest.skip("a network has no baud rate")
    image = parse_image(build_image("1.1.0", payload_size=40_000))
    offered = {"udp": ["--udp", "0"], "tcp": ["--tcp", "0"], "serial": ["--pty"]}[link]
    with serving(f"sim:desk,{QUICK},lines=0,buf_size=1024", "--baud", baud, *offered) as served:
        stopped = asyncio.Event()

        def half_way(event: Event) -> None:
            if isinstance(event, Bytes) and event.done > event.total // 3 and not stopped.is_set():
                served.process.send_signal(signal.SIGSTOP)
                stopped.set()

        async def go_on() -> None:
            await stopped.wait()
            await asyncio.sleep(1)
            served.process.send_signal(signal.SIGCONT)

        async with mcumgrx.connect(served.addresses[link]) as client, asyncio.timeout(60):
            async with asyncio.TaskGroup() as group:
                group.create_task(go_on())
                await client.group(ImageGroup).upload(image, UploadOptions(window=3), progress=half_way)
            assert [str(slot.version) for slot in (await client.request(ReadImageState())).slots] == ["1.0.0", "1.1.0"]
    assert (served.result["lost"], served.result["resets"]) == (0, 0)


@posix
@pytest.mark.parametrize("kind", ["uart", "shell", "raw"])
async def test_what_came_one_by_one_while_it_stood_still(kind: str) -> None:
    """More requests than buffers, and lines than line buffers: a real device would have answered each as it came."""
    framing = StreamFraming() if kind == "raw" else ConsoleFraming()
    loop = asyncio.get_running_loop()
    answers: asyncio.Queue[int] = asyncio.Queue()
    async with server(f"{QUICK},link={kind}", baud=0) as opened, asyncio.timeout(50):
        terminal = os.open(opened.pty().target, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

        def readable() -> None:
            for message in framing.feed(os.read(terminal, 4096)):
                answers.put_nowait(message[4])

        loop.add_reader(terminal, readable)
        try:
            os.write(terminal, b"".join(framing.encode(echo_message(0))))
            found = [await answers.get()]
            for number in range(1, 9):
                time.sleep(0.04)  # noqa: ASYNC251 - the server is to stand still: it runs in this very loop
                os.write(terminal, b"".join(framing.encode(echo_message(number))))
            found += [await answers.get() for _ in range(1, 9)]
            assert (found, opened.device.crashes, opened.lost) == (list(range(9)), 0, 0)
        finally:
            loop.remove_reader(terminal)
            os.close(terminal)


def test_buffers_are_few_again_once_the_device_is_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        runner = runner_of(SimulatedDevice())
        heart = _Heart(runner)
        await asyncio.sleep(10)
        heart.look()
        assert not runner.held_up
        with monkeypatch.context() as patch:
            now = runner.loop.time()
            patch.setattr(runner.loop, "time", lambda: now + 1)
            heart.look()
        assert runner.held_up
        runner.agenda.add(0.3, lambda: None)
        await asyncio.sleep(0.25)
        assert runner.held_up
        await asyncio.sleep(0.1)
        assert not runner.held_up
        heart.stop()

    run(main())


# -- limits ----------------------------------------------------------------------------------------------------------


async def test_more_clients_than_it_remembers() -> None:
    """Over UDP the one that has been silent for longest is forgotten, and known again when it speaks."""
    async with server(instant=True) as opened:
        address = str(await opened.udp("127.0.0.1", 0))
        async with mcumgrx.connect(address) as first:
            await echoes(first)
            for _ in range(40):
                async with mcumgrx.connect(address) as client:
                    await echoes(client)
            await echoes(first)


async def test_too_many_connections_are_refused() -> None:
    (hello,) = ConsoleFraming().encode(build_message(Op.WRITE, 1, 0, 0, 7, 0, b"\xa1adehello"))
    async with server(instant=True) as opened:
        host, port = (await opened.tcp("127.0.0.1", 0)).endpoint()
        streams = [await asyncio.open_connection(host, port) for _ in range(33)]
        reader, writer = streams[-1]
        with suppress(ConnectionError):
            assert await reader.read() == b""
        reader, writer = streams[-2]
        writer.write(hello)
        assert await reader.readuntil(b"\n")
        for _, writer in streams:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_what_the_device_cannot_take_is_not_read() -> None:
    """A client that sends without end at 300 baud fills the system's buffers, not ours."""
    async with server(baud=300) as opened:
        host, port = (await opened.tcp("127.0.0.1", 0)).endpoint()
        with socket.socket() as flood:
            flood.setblocking(False)
            await asyncio.get_running_loop().sock_connect(flood, (host, port))
            sent = stuck = 0
            while stuck < 300:
                try:
                    sent += flood.send(bytes(65536))
                    stuck = 0
                except BlockingIOError:
                    stuck += 1
                    await asyncio.sleep(0)
                assert sent < 64 * 1024 * 1024
        assert sent > 0


# -- the state file --------------------------------------------------------------------------------------------------


async def test_the_state_is_kept_and_locked(tmp_path: Path) -> None:
    file = tmp_path / "device.json"
    device = f"sim:kept,state={file},{QUICK}"
    image = build_image("2.0.0", payload_size=1_000)
    async with DeviceServer(Address.parse(device)) as opened:
        async with mcumgrx.connect(str(await opened.udp("127.0.0.1", 0))) as client:
            offset = 0
            while offset < len(image):
                offset = (
                    await client.request(UploadChunk(offset, image[offset : offset + 256], length=len(image)))
                ).offset
        in_use = await asyncio.to_thread(subprocess.run, command("image", "list", "-d", device), capture_output=True)
        assert in_use.returncode == 2
        assert b"in use by another process" in in_use.stderr
    async with mcumgrx.connect(device) as client:
        assert [str(slot.version) for slot in (await client.request(ReadImageState())).slots] == ["1.0.0", "2.0.0"]


async def test_a_state_file_that_can_no_longer_be_written_ends_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    device = Address.parse(f"sim:lost,state={folder / 'device.json'},{QUICK}")
    async with DeviceServer(device) as opened:
        address = str(await opened.udp("127.0.0.1", 0))
        async with mcumgrx.connect(address) as client:
            await echoes(client)
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
            with pytest.raises(RequestTimeout):  # what is not kept is not answered
                await client.request(Reset(), timeout_s=0.3)
            async with asyncio.timeout(50):
                with pytest.raises(LinkLost, match="cannot be kept"):
                    await opened.run()


# -- the terminal's link ---------------------------------------------------------------------------------------------


@posix
async def test_a_symbolic_link_leads_to_the_terminal(tmp_path: Path) -> None:
    link = tmp_path / "port"
    async with server() as opened:
        address = opened.pty(link)
        assert str(address) == f"serial:{link}"
        async with mcumgrx.connect(str(address)) as client:
            await echoes(client)
    assert not link.is_symlink()


@posix
async def test_a_link_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "port"
    async with server() as opened:
        link.symlink_to(f"{os.path.dirname(opened.pty().target)}/left-behind")
        opened.pty(link)
        assert link.exists()


@posix
@pytest.mark.parametrize("left", ["file", "link elsewhere"])
async def test_nothing_else_is_replaced(tmp_path: Path, left: str) -> None:
    link = tmp_path / "port"
    if left == "file":
        link.write_text("precious")
    else:
        link.symlink_to(tmp_path / "precious")
    async with server() as opened:
        with pytest.raises(UsageError, match="cannot be made a link"):
            opened.pty(link)
    assert link.is_symlink() or link.read_text() == "precious"


@posix
async def test_a_client_that_wants_to_be_alone_does_not_lock_out_the_next() -> None:
    """TIOCEXCL outlives the client that set it, as long as somebody has the terminal open: the server has."""
    import fcntl
    import termios

    async with server(instant=True) as opened:
        address = await offer(opened, "pty")
        descriptor = os.open(address.partition(":")[2], os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(descriptor, termios.TIOCEXCL)
        os.close(descriptor)
        async with mcumgrx.connect(address) as client:
            await echoes(client)
        if sys.platform == "linux":  # where it can be asked for
            descriptor = os.open(address.partition(":")[2], os.O_RDWR | os.O_NOCTTY)
            try:
                assert fcntl.ioctl(descriptor, TIOCGEXCL, bytes(4)) == bytes(4)
            finally:
                os.close(descriptor)


# -- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to serve on"),
        (["--udp", "70000"], "70000 is not a port"),
        (["--tcp", "-1"], "-1 is not a port"),
        (["--udp", "0", "--link", "port"], "--link is for a pseudo-terminal"),
        (["serial:/dev/ttyACM0", "--udp", "0"], "no simulated device"),
        (["sim:desk,link=ble", "--udp", "0"], "link=ble cannot be served"),
        (["sim:desk,buf_size=1", "--udp", "0"], "buf_size"),
        (["sim:desk,nonsense=1", "--udp", "0"], "nonsense"),
        (["--tcp", "0", "--baud", "12"], "12 baud"),
        (["--udp", "0", "--host", "no.such.host.invalid"], "no address of this computer"),
        (["--udp", "0", "--host", "192.0.2.1"], "UDP port 0 of 192.0.2.1 cannot be had"),
        (["--tcp", "0", "--host", "192.0.2.1"], "TCP port 0 of 192.0.2.1 cannot be had"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[0]
    assert "Traceback" not in err


async def test_a_port_that_is_taken() -> None:
    async with server() as opened:
        udp, tcp = await opened.udp("127.0.0.1", 0), await opened.tcp("127.0.0.1", 0)
        with pytest.raises(UsageError, match="cannot be had"):
            await opened.udp(*udp.endpoint())
        with pytest.raises(UsageError, match="cannot be had"):
            await opened.tcp(*tcp.endpoint())


async def test_no_pseudo_terminals_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server() as opened:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", "win32")
            with pytest.raises(UsageError, match="no pseudo-terminals") as caught:
                opened.pty()
    assert caught.value.hint == "serve it with --tcp or --udp"


# -- the command -----------------------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "mcumgrx", *arguments]


@posix
def test_the_command_as_json() -> None:
    with serving(f"sim:desk,{QUICK}", "--udp", "0", "--tcp", "0", "--pty", wanted=3) as served:
        assert list(served.addresses) == ["udp", "tcp", "serial"]
        for address in served.addresses.values():
            done = subprocess.run(command("os", "echo", "hello", "-d", address), capture_output=True, text=True)
            assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert served.result == {"requests": 3, "resets": 0, "version": "1.0.0", "lost": 0}
    assert served.errors == ""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_for_people(number: signal.Signals) -> None:
    process = subprocess.Popen(
        command("sim", "serve", "--udp", "0", "--host", "0.0.0.0"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    warning, listening = process.stderr.readline(), process.stderr.readline()
    assert warning == "warning: whoever can reach 0.0.0.0 can read and change the simulated device\n"
    assert listening.startswith("note: the simulated device is at udp:0.0.0.0:")
    process.send_signal(number)
    out, err = process.communicate(timeout=150)
    assert (process.returncode, err) == (0, "")
    assert out == "carried out 0 requests, restarted 0 times; version 1.0.0 ran last\n"


def test_the_help_says_that_nothing_is_protected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "serve", "--help"]) == 0
    assert "no authentication" in " ".join(capsys.readouterr().out.split())
