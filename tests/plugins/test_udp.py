"""`udp:` with a server on the loopback interface."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.errors import (
    ConnectFailed,
    DeviceNotFound,
    LinkLost,
    MessageTooLarge,
    RequestTimeout,
    UsageError,
)
from mcumgrx.messages.standard import Echo, Params
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.framing import DatagramFraming
from mcumgrx.protocol.header import REQUEST_OPS
from mcumgrx_plugins.udp import transport as udp_transport
from mcumgrx_plugins.udp.transport import UdpTransport

from ..support import proactor

pytestmark = pytest.mark.codec


class Device(asyncio.DatagramProtocol):
    """Answers echoes, and params with buffers of 2048 bytes, a datagram each."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.change: Callable[[bytes], list[bytes]] = lambda reply: [reply]
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def start(cls, host: str = "127.0.0.1", port: int = 0) -> Device:
        transport, device = await asyncio.get_running_loop().create_datagram_endpoint(cls, local_addr=(host, port))
        device._transport = transport
        device.port = transport.get_extra_info("sockname")[1]
        return device

    def stop(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        assert self._transport is not None
        self.received.append(data)
        for op, version, flags, group, sequence, command, payload in DatagramFraming(ops=REQUEST_OPS).feed(data):
            body = payload.replace(b"\xa1ad", b"\xa1ar", 1)
            if command == 6:
                body = b"\xa2hbuf_size\x19\x08\x00ibuf_count\x02"
            for reply in self.change(build_message(op | 1, version, flags, group, sequence, command, body)):
                self._transport.sendto(reply, addr)


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    device = await Device.start()
    yield device
    device.stop()


def udp(host: str, port: int | None = None) -> UdpTransport:
    return UdpTransport(Address("udp", host if port is None else f"{host}:{port}"))


@pytest.fixture
def unused_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


async def test_round_trip(device: Device) -> None:
    async with Client(udp("127.0.0.1", device.port)) as client:
        assert await client.request(Echo("hello")) == "hello"
        assert client.limits.message(None) == 256


async def test_a_datagram_is_never_larger_than_the_mtu(device: Device) -> None:
    """Whatever the device says its buffers are: Zephyr receives 1500 bytes, headers included, and cuts the rest off."""
    async with Client(udp("127.0.0.1", device.port)) as client:
        assert await client.params() == Params(2048, 2)
        assert client.limits.message(2048) == 1472
        text = "x" * (1472 - Echo("").request().size - 2)
        assert await client.request(Echo(text)) == text
        assert len(device.received[-1]) == 1472
        with pytest.raises(MessageTooLarge):
            await client.request(Echo(text + "x"))


async def test_ipv6() -> None:
    try:
        device = await Device.start("::1")
    except OSError as error:
        pytest.skip(f"this computer has no IPv6 loopback ({error})")
    async with Client(udp("[::1]", device.port)) as client:
        assert await client.request(Echo("hello")) == "hello"
        assert client.limits.message(2048) == 1452
    device.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays so ends the link within a tenth of a second."""
    brief = {"_PATIENCE_S": 0.1, "_PATIENCE_UNHEARD_S": 0.05, "_AGAIN_S": 0.01, "_AGAIN_MOST_S": 0.02}
    for name, value in brief.items():
        monkeypatch.setattr(udp_transport, name, value)


def named(monkeypatch: pytest.MonkeyPatch, *places: tuple[Any, ...]) -> None:
    """Every name has these addresses from now on."""

    def look_up(host: str, port: int, **kind: object) -> list[tuple[Any, ...]]:
        families = (socket.AF_INET6 if ":" in where[0] else socket.AF_INET for where in places)
        return [(family, socket.SOCK_DGRAM, 17, "", where) for family, where in zip(families, places, strict=True)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.usefixtures("impatient")
async def test_a_name_with_addresses_that_refuse(
    device: Device, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message that was refused reaches the next address, without waiting for a time-out."""
    named(monkeypatch, ("127.0.0.1", unused_port), ("127.0.0.1", device.port))
    async with Client(udp("widget.example"), timeout_s=5) as client:
        assert await client.request(Echo("hello"), repeats=0) == "hello"
        device.stop()  # it had answered: there is no other address to go to
        await asyncio.sleep(0)
        with pytest.raises(LinkLost, match="refuses"):
            await client.request(Echo("hello"), timeout_s=0.15, repeats=9)


@pytest.mark.usefixtures("impatient")
async def test_all_addresses_that_were_tried_are_named(unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, ("127.0.0.1", unused_port), ("127.0.0.2", unused_port))
    async with Client(udp("widget.example"), timeout_s=60) as client:
        with pytest.raises(LinkLost, match=r"of widget.example \(127.0.0.1, 127.0.0.2\) refuses"):
            await client.request(Echo("hello"))


@pytest.mark.usefixtures("impatient")
async def test_nothing_listens(unused_port: int) -> None:
    async with Client(udp("127.0.0.1", unused_port), timeout_s=60) as client:
        with pytest.raises(LinkLost, match=f"UDP port {unused_port} of 127.0.0.1 refuses") as caught:
            await client.request(Echo("anybody"))
        assert caught.value.hint
        assert caught.value.address == f"udp:127.0.0.1:{unused_port}"
        with pytest.raises(LinkLost):
            await client.request(Echo("anybody"))


async def test_a_server_that_comes_late_gets_what_was_refused(unused_port: int) -> None:
    """Once, though it is not repeated by the client: nobody has carried it out before."""
    async with Client(udp("127.0.0.1", unused_port), timeout_s=60) as client:
        asking = asyncio.create_task(client.request(Echo("anybody"), repeats=0))
        link = client._link.transport._socket  # type: ignore[attr-defined]
        async with asyncio.timeout(50):
            while link.trouble is None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        device = await Device.start(port=unused_port)
        assert await asking == "anybody"
        assert len(device.received) == 1
        device.stop()


async def test_a_server_that_restarts_in_the_middle(unused_port: int) -> None:
    """A refusal of one that has answered before is a lost datagram."""
    device = await Device.start(port=unused_port)
    async with Client(udp("127.0.0.1", unused_port), timeout_s=0.1) as client:
        assert await client.request(Echo("one")) == "one"
        device.stop()
        await asyncio.sleep(0)
        with pytest.raises(RequestTimeout):
            await client.request(Echo("two"), repeats=1)
        assert client.connected
        device = await Device.start(port=unused_port)
        assert await client.request(Echo("three")) == "three"
        device.stop()


@pytest.mark.usefixtures("impatient")
async def test_a_device_that_restarts_is_back_after_reopening(unused_port: int) -> None:
    transport = udp("127.0.0.1", unused_port)
    async with Client(transport) as client:
        with pytest.raises(LinkLost):
            await client.request(Echo("anybody"), timeout_s=60)
    device = await Device.start(port=unused_port)
    async with Client(transport) as client:
        assert await client.request(Echo("back")) == "back"
    device.stop()


async def test_silence_is_no_loss(device: Device) -> None:
    device.change = lambda reply: []
    async with Client(udp("127.0.0.1", device.port), timeout_s=0.05) as client:
        with pytest.raises(RequestTimeout):
            await client.request(Echo("anybody"))
        assert client.connected
        device.change = lambda reply: [reply]
        assert await client.request(Echo("there?"), timeout_s=5) == "there?"


async def test_lost_doubled_cut_and_empty_datagrams(device: Device) -> None:
    lost = iter([True, False, False])
    device.change = lambda reply: [] if next(lost, False) else [b"", reply[:-3], b"rubbish", reply, reply]
    async with Client(udp("127.0.0.1", device.port), timeout_s=0.5) as client:
        for text in ("one", "two", "three"):
            assert await client.request(Echo(text)) == text


async def test_datagrams_of_strangers_are_not_heard(device: Device) -> None:
    transport = udp("127.0.0.1", device.port)
    await transport.open(5)
    mine = transport._socket._socket.getsockname()  # type: ignore[union-attr]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"from elsewhere", mine)
    await transport.send([build_message(2, 1, 0, 0, 9, 0, b"\xa1ad\x60")])
    assert await transport.receive() == build_message(3, 1, 0, 0, 9, 0, b"\xa1ar\x60")
    await transport.close()


async def test_a_flood_takes_bounded_memory(device: Device) -> None:
    device.change = lambda reply: [reply] * 100
    transport = udp("127.0.0.1", device.port)
    await transport.open(5)
    for _ in range(4):
        await transport.send([build_message(2, 1, 0, 0, 9, 0, b"\xa1ad\x60")])
        for _ in range(150):
            await asyncio.sleep(0)  # a turn of the loop, in which one of them is taken
    assert len(transport._socket._unread) == 256  # type: ignore[union-attr]
    await transport.close()


async def test_nothing_is_looked_for_behind_the_last_answer(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that finds nothing takes a tenth of a short request's time."""
    looks, plain = 0, socket.socket.recv_into

    def recv_into(link: socket.socket, *arguments: Any) -> int:
        nonlocal looks
        looks += 1
        return plain(link, *arguments)

    monkeypatch.setattr(socket.socket, "recv_into", recv_into)
    async with Client(udp("127.0.0.1", device.port), timeout_s=0.05) as client:
        for text in ("one", "two", "three"):
            assert await client.request(Echo(text)) == text
        assert looks == 3
        device.change = lambda reply: []
        with pytest.raises(RequestTimeout):
            await client.request(Echo("lost"), repeats=1)
        device.change = lambda reply: [reply]
        assert await client.request(Echo("four"), timeout_s=5) == "four"
        assert looks == 4


async def test_closing_wakes_receive_and_ends_everything(device: Device) -> None:
    transport = udp("127.0.0.1", device.port)
    await transport.open(5)
    waiting = asyncio.create_task(transport.receive())
    await asyncio.sleep(0)
    await transport.close()
    await transport.close()
    with pytest.raises(LinkLost, match="was closed"):
        await waiting
    with pytest.raises(LinkLost):
        await transport.send([b"x"])
    with pytest.raises(LinkLost):
        await transport.receive()


_AWAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENOBUFS, errno.EPERM, errno.ECONNREFUSED)


class Network:
    """Refuses, as a system does, to send what is destined for that port, as often as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        self.refuses = 0
        self.number = errno.ENETUNREACH
        self.attempts = 0
        plain = socket.socket.send

        def send(link: socket.socket, *arguments: Any) -> int:
            if link.type == socket.SOCK_DGRAM and link.getpeername()[1] == port:
                self.attempts += 1
                if self.refuses:
                    self.refuses -= 1
                    raise OSError(self.number, os.strerror(self.number))
            return plain(link, *arguments)

        monkeypatch.setattr(socket.socket, "send", send)


@pytest.mark.parametrize("number", _AWAY)
@pytest.mark.parametrize("heard", [True, False])
async def test_a_datagram_that_is_not_sent_is_a_lost_one(
    device: Device, monkeypatch: pytest.MonkeyPatch, number: int, heard: bool
) -> None:
    """Wi-Fi that roams, a cable pulled for a moment, a firewall that is loaded anew."""
    network = Network(monkeypatch, device.port)
    network.number = number
    async with Client(udp("127.0.0.1", device.port), timeout_s=0.05) as client:
        if heard:
            assert await client.request(Echo("before")) == "before"
        network.refuses = 2
        assert await client.request(Echo("meanwhile"), repeats=5) == "meanwhile"
        assert await client.request(Echo("after")) == "after"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("heard", [True, False])
async def test_a_network_that_stays_away_ends_the_link(
    device: Device, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    network = Network(monkeypatch, device.port)
    async with Client(udp("127.0.0.1", device.port), timeout_s=0.06) as client:
        if heard:
            assert await client.request(Echo("before")) == "before"
        network.refuses = 1000
        with pytest.raises(LinkLost, match="cannot be reached: Network is unreachable"):
            await client.request(Echo("meanwhile"), repeats=100)
    assert network.attempts < 20


async def test_a_message_that_the_path_does_not_carry_is_no_trouble_of_the_link(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(monkeypatch, device.port)
    network.number, network.refuses = errno.EMSGSIZE, 1
    async with Client(udp("127.0.0.1", device.port), timeout_s=0.1) as client:
        assert await client.request(Echo("large")) == "large"
        assert client._link.transport._socket.trouble is None  # type: ignore[attr-defined]


async def test_silence_has_a_hint(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, ("127.0.0.1", device.port))
    device.change = lambda reply: []
    async with Client(udp("widget", device.port), timeout_s=0.05, repeats=0) as client:
        with pytest.raises(RequestTimeout) as caught:
            await client.request(Echo("anybody"))
    assert f"UDP port {device.port} of widget was asked at 127.0.0.1" in str(caught.value.hint)


async def test_opening_ends_in_time_while_the_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait())
    try:
        with pytest.raises(DeviceNotFound, match=r"was not resolved in 0\.05 s"):
            await udp("widget").open(0.05)
    finally:
        answer.set()


# -- a loop that watches no sockets -----------------------------------------------------------------------------------


class Bare(asyncio.DatagramTransport):
    """The socket of a `Device`: asyncio's transport for proactors ends badly where its socket is a selector's."""

    def __init__(self, device: Device, port: int) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self._socket.setblocking(False)
        device._transport = self
        device.port = self._socket.getsockname()[1]
        self._task = asyncio.create_task(self._serve(device))

    async def _serve(self, device: Device) -> None:
        while True:
            device.datagram_received(*await asyncio.get_running_loop().sock_recvfrom(self._socket, 2048))

    def sendto(self, data: Any, addr: Any = None) -> None:
        self._socket.sendto(data, addr)

    def abort(self) -> None:
        self._task.add_done_callback(lambda _: self._socket.close())
        self._task.cancel()


def bare_device(port: int = 0) -> Device:
    device = Device()
    Bare(device, port)
    return device


def test_on_a_proactor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' loop: answers are heard, also behind errors, floods are bounded, and nothing is left open."""

    async def main() -> None:
        device = bare_device()
        network = Network(monkeypatch, device.port)
        async with Client(udp("127.0.0.1", device.port), timeout_s=1) as client:
            assert await client.request(Echo("hello")) == "hello"
            texts = [f"{number}" for number in range(5)]
            assert await asyncio.gather(*(client.request(Echo(text)) for text in texts)) == texts
            network.refuses = 1
            assert await client.request(Echo("lost")) == "lost"
            waiting = asyncio.create_task(client.wait_lost())
            await asyncio.sleep(0)
        assert "closed" in str(await waiting)
        device.stop()

    proactor.run(main())


def test_refusals_on_a_proactor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where asyncio's own transport would read no more after the first."""

    async def main() -> None:
        device = bare_device()
        port = device.port
        async with Client(udp("127.0.0.1", port), timeout_s=5) as client:
            assert await client.request(Echo("one")) == "one"
            device.stop()
            await asyncio.sleep(0)
            with pytest.raises(RequestTimeout):
                await client.request(Echo("two"), timeout_s=0.05)
            device = bare_device(port)
            assert await client.request(Echo("three")) == "three"
            device.stop()
            monkeypatch.setattr(udp_transport, "_PATIENCE_S", 0.1)
            await asyncio.sleep(0)
            with pytest.raises(LinkLost, match="refuses"):
                await client.request(Echo("four"), timeout_s=0.06, repeats=20)

    proactor.run(main())


# -- what cannot be opened --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64])
async def test_an_unknown_host(host: str) -> None:
    with pytest.raises(DeviceNotFound, match="no host is known as"):
        await udp(host).open(5)


async def test_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, ("ff02::1", 1337, 0, 999_999), ("ff02::2", 1337, 0, 999_999))
    with pytest.raises(ConnectFailed, match=r"no route leads to UDP port 1337 of widget \(ff02::1, ff02::2\)"):
        await udp("widget").open(5)


async def test_a_link_local_address_needs_its_interface() -> None:
    with pytest.raises(ConnectFailed) as caught:
        await udp("[fe80::7]").open(5)
    assert caught.value.hint == "a link-local address needs an interface: udp:[fe80::7%25eth0]:1337"


@pytest.mark.parametrize(
    "address", ["udp:", "udp:host:", "udp:host:0", "udp:host:99999", "udp:host:smp", "udp::1337", "udp:host,port=1337"]
)
def test_addresses_that_mean_nothing(address: str) -> None:
    with pytest.raises(UsageError):
        UdpTransport(Address.parse(address))


def test_an_ipv6_address_needs_brackets() -> None:
    with pytest.raises(UsageError) as caught:
        UdpTransport(Address.parse("udp:fe80::1"))
    assert caught.value.hint == "for example udp:[fe80::1]"


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("udp:192.0.2.7", ("192.0.2.7", 1337)),
        ("udp:widget.local:1338", ("widget.local", 1338)),
        ("udp:[2001:db8::7]", ("2001:db8::7", 1337)),
        ("udp:[fe80::1%25eth0]:99", ("fe80::1%eth0", 99)),
    ],
)
def test_addresses(address: str, endpoint: tuple[str, int]) -> None:
    assert Address.parse(address).endpoint(1337) == endpoint
