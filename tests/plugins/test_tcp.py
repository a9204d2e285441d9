"""`tcp:`: a UART behind a socket, with a server on the loopback interface."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.errors import ConnectFailed, DeviceNotFound, LinkLost, RequestTimeout, UsageError
from mcumgrx.messages.standard import Echo
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.console import ConsoleFraming
from mcumgrx.protocol.framing import Framing, RawMessage, StreamFraming
from mcumgrx.protocol.header import REQUEST_OPS
from mcumgrx_plugins.uart import transport as uart
from mcumgrx_plugins.uart.tcp import TcpTransport

from ..support import proactor

pytestmark = pytest.mark.codec


class Device:
    """A device behind a terminal server: answers echoes, one connection after the other."""

    def __init__(self, framing: Callable[[], Framing], host: str) -> None:
        self._framing = framing
        self._host = host
        self._server: asyncio.Server | None = None
        self.received = b""
        self.connections = 0
        self.silent = False
        self.banner = b""
        self._writers: list[asyncio.StreamWriter] = []
        self.arrived = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, 0)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        writer.write(self.banner)
        framing = self._framing()
        while data := await reader.read(65536):
            self.received += data
            self.arrived.set()
            for message in framing.feed(data):
                if not self.silent:
                    writer.write(b"".join(framing.encode(answer(message))))
        writer.close()


def answer(message: RawMessage) -> bytes:
    op, version, flags, group, sequence, command, payload = message
    return build_message(op | 1, version, flags, group, sequence, command, payload.replace(b"\xa1ad", b"\xa1ar", 1))


async def served(framing: Callable[[], Framing], host: str = "127.0.0.1") -> AsyncIterator[Device]:
    device = Device(framing, host)
    await device.start()
    yield device
    await device.stop()


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    async for device in served(lambda: ConsoleFraming(ops=REQUEST_OPS)):
        yield device


@pytest.fixture
async def raw_device() -> AsyncIterator[Device]:
    async for device in served(lambda: StreamFraming(ops=REQUEST_OPS)):
        yield device


def tcp(host: str, port: int, **options: str) -> TcpTransport:
    return TcpTransport(Address("tcp", f"{host}:{port}", options))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_console_framing(device: Device, host: str) -> None:
    """`localhost` has an IPv6 address as well, where nothing listens."""
    device.banner = b"*** Booting ***\r\n"
    heard: list[str] = []
    async with Client(tcp(host, device.port), on_text=heard.append) as client:
        assert await client.request(Echo("hello")) == "hello"
        assert await client.request(Echo("x" * 2000)) == "x" * 2000
        assert (client.limits.message(None), client.limits.message(384)) == (89, 380)
    assert "".join(heard) == "*** Booting ***\r\n"
    assert device.received.startswith(b"\n\x06\t")


async def test_raw_framing(raw_device: Device) -> None:
    async with Client(tcp("127.0.0.1", raw_device.port, framing="raw")) as client:
        assert await client.request(Echo("x" * 2000)) == "x" * 2000
        assert client.limits.message(384) == 384


async def test_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"this computer has no IPv6 loopback ({error})")
    async for device in served(lambda: ConsoleFraming(ops=REQUEST_OPS), "::1"):
        async with Client(tcp("[::1]", device.port)) as client:
            assert await client.request(Echo("hello")) == "hello"


async def test_no_delay(device: Device) -> None:
    transport = tcp("127.0.0.1", device.port)
    await transport.open(5)
    link = transport._stream._writer.get_extra_info("socket")  # type: ignore[union-attr]
    assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    await transport.close()


async def test_opening_sends_nothing(device: Device) -> None:
    async with Client(tcp("127.0.0.1", device.port)):
        pass
    async with Client(tcp("127.0.0.1", device.port)) as client:
        await client.request(Echo("hello"))
    assert device.connections == 2
    assert device.received.count(b"\n\x06\t") == 1


async def test_reopening_the_same_object(device: Device) -> None:
    transport = tcp("127.0.0.1", device.port)
    for _ in range(3):
        async with Client(transport) as client:
            assert await client.request(Echo("hello")) == "hello"
        with pytest.raises(LinkLost):
            await transport.send([b"x"])
        with pytest.raises(LinkLost):
            await transport.receive()


async def test_the_other_end_closes(device: Device) -> None:
    device.silent = True
    async with Client(tcp("127.0.0.1", device.port), timeout_s=60) as client:
        request = asyncio.create_task(client.request(Echo("anybody")))
        await device.arrived.wait()
        device.hang_up()
        async with asyncio.timeout(50):
            with pytest.raises(LinkLost, match="the other end has closed it") as caught:
                await request
        assert caught.value.hint
        with pytest.raises(LinkLost):
            await client.request(Echo("anybody"))


async def test_closing_wakes_receive(device: Device) -> None:
    transport = tcp("127.0.0.1", device.port)
    await transport.open(5)
    waiting = asyncio.create_task(transport.receive())
    await asyncio.sleep(0)
    await transport.close()
    with pytest.raises(LinkLost, match="was closed"):
        await waiting


async def test_a_receiver_that_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uart, "_STALLED_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        transport = tcp("127.0.0.1", deaf.getsockname()[1])
        await transport.open(5)
        with pytest.raises(LinkLost, match="no more bytes"):
            await transport.send([bytes(20_000_000)])
        with pytest.raises(LinkLost, match="no more bytes"):
            await transport.receive()
        await transport.close()


async def test_what_is_offered_and_what_is_sent_arrive_in_order(raw_device: Device) -> None:
    transport = tcp("127.0.0.1", raw_device.port, framing="raw")
    await transport.open(5)
    wanted = b""
    for number in range(2000):
        piece = b"%06d" % number + bytes(20_000)
        if not transport.offer([piece]):
            break  # the other end has not read that fast
        wanted += piece
    assert len(wanted) > len(b"000000") + 20_000
    await transport.send([b"last"])
    wanted += b"last"
    while len(raw_device.received) < len(wanted):
        raw_device.arrived.clear()
        await raw_device.arrived.wait()
    assert raw_device.received == wanted
    await transport.close()
    with pytest.raises(LinkLost):
        transport.offer([b"x"])


async def test_an_offer_to_an_end_that_has_closed(device: Device) -> None:
    transport = tcp("127.0.0.1", device.port, framing="raw")
    await transport.open(5)
    assert transport.offer([b"\n"])
    await device.arrived.wait()
    device.hang_up()
    with pytest.raises(LinkLost):
        await transport.receive()
    with pytest.raises(LinkLost, match="the other end has closed it"):
        transport.offer([b"x"])
    await transport.close()


async def test_what_was_sent_last_arrives_although_the_link_is_closed(raw_device: Device) -> None:
    """It may be a reset. The other end is slower than the closing."""
    transport = tcp("127.0.0.1", raw_device.port, framing="raw")
    await transport.open(5)
    await transport.send([bytes(50_000)])
    await transport.close()
    while len(raw_device.received) < 50_000:
        raw_device.arrived.clear()
        await raw_device.arrived.wait()


async def test_silence_is_no_loss(device: Device) -> None:
    device.silent = True
    async with Client(tcp("127.0.0.1", device.port), timeout_s=0.1) as client:
        with pytest.raises(RequestTimeout):
            await client.request(Echo("anybody"))
        device.silent = False
        assert await client.request(Echo("there?"), timeout_s=5) == "there?"


async def test_endless_noise() -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"QUFB" * 16384)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    async with Client(tcp("127.0.0.1", server.sockets[0].getsockname()[1]), on_text=lambda text: None) as client:
        begin = loop.time()
        with pytest.raises(RequestTimeout):
            await client.request(Echo("anybody"), timeout_s=0.3, repeats=0)
        assert loop.time() - begin < 20
    server.close()
    await server.wait_closed()


# -- what cannot be connected to --------------------------------------------------------------------------------------


@pytest.fixture
def unused() -> int:
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


async def test_nothing_listens(unused: int) -> None:
    with pytest.raises(ConnectFailed, match="refuses the connection") as caught:
        await Client(tcp("127.0.0.1", unused)).open()
    assert caught.value.hint
    assert caught.value.address == f"tcp:127.0.0.1:{unused}"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64])
async def test_an_unknown_host(host: str) -> None:
    with pytest.raises(DeviceNotFound, match="no host is known as"):
        await tcp(host, 4001).open(5)


@pytest.fixture
def black_hole() -> Iterator[tuple[str, int]]:
    """A full queue of connections is to the client what a host that drops everything is."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()


def named(monkeypatch: pytest.MonkeyPatch, *places: tuple[str, int]) -> None:
    """Every name has these addresses from now on."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


async def test_a_host_that_does_not_answer(black_hole: tuple[str, int]) -> None:
    with pytest.raises(ConnectFailed, match=r"did not answer in 0\.2 s"):
        await tcp(*black_hole).open(0.2)


async def test_an_address_that_does_not_answer_costs_a_moment(
    device: Device, black_hole: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch, black_hole, black_hole, ("127.0.0.1", device.port))
    transport = tcp("widget.example", 4001)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await transport.open(10)
    assert loop.time() - begin < 2
    await transport.close()


async def test_of_two_families_both_are_tried_before_either_again(unused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [(socket.AF_INET6, (f"::{number}", unused, 0, 0)) for number in (1, 2)]
    places += [(socket.AF_INET, (f"127.0.0.{number}", unused)) for number in (1, 2)]
    found = [(family, socket.SOCK_STREAM, 6, "", where) for family, where in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ConnectFailed, match=r"\(::1, 127.0.0.1, ::2, 127.0.0.2\) "):
        await tcp("widget.example", 4001).open(5)


async def test_all_addresses_that_were_tried_are_named(
    unused: int, black_hole: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch, ("127.0.0.2", unused), ("127.0.0.3", unused))
    with pytest.raises(ConnectFailed, match=r"widget.example:4001 \(127.0.0.2, 127.0.0.3\) refuses the connection"):
        await tcp("widget.example", 4001).open(5)
    named(monkeypatch, black_hole, ("127.0.0.3", unused))
    with pytest.raises(ConnectFailed, match=r"widget.example:4001 \(127.0.0.1, 127.0.0.3\) did not answer in 0.5"):
        await tcp("widget.example", 4001).open(0.5)


async def test_opening_ends_in_time_while_the_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait())
    try:
        with pytest.raises(DeviceNotFound, match=r"'widget' was not resolved in 0\.05 s"):
            await tcp("widget", 4001).open(0.05)
    finally:
        answer.set()


def test_on_a_proactor() -> None:
    """Windows' event loop watches no sockets."""

    async def main() -> None:
        device = Device(lambda: ConsoleFraming(ops=REQUEST_OPS), "127.0.0.1")
        await device.start()
        async with Client(tcp("127.0.0.1", device.port)) as client:
            assert await client.request(Echo("x" * 2000)) == "x" * 2000
            device.hang_up()
            assert "the other end has closed it" in str(await client.wait_lost())
        await device.stop()

    proactor.run(main())


@pytest.mark.parametrize(
    "address",
    [
        "tcp:",
        "tcp:host",
        "tcp:host:",
        "tcp:host:0",
        "tcp:host:65536",
        "tcp:host:http",
        "tcp::4001",
        "tcp:fe80::1:4001",
        "tcp:[::1]",
        "tcp:host:4001,baud=115200",
        "tcp:host:4001,framing=morse",
    ],
)
def test_addresses_that_mean_nothing(address: str) -> None:
    with pytest.raises(UsageError):
        TcpTransport(Address.parse(address))
