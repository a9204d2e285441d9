"""`udp:` with a server on the loopback interface."""

from __future__ import annotations

import asyncio
import errno
import socket
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
    TransportError,
    UsageError,
)
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.framing import DatagramFraming
from mcumgrx.protocol.header import REQUEST_OPS
from mcumgrx.protocol.standard import Echo, Params
from mcumgrx_plugins.udp.transport import UdpTransport


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


async def test_a_name_with_addresses_that_refuse(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message that was refused reaches the next address, without waiting for a time-out."""
    loop = asyncio.get_running_loop()
    unused = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    unused.bind(("127.0.0.1", 0))
    where = unused.getsockname()
    unused.close()

    async def resolve(host: str, port: int, **kind: object) -> list[tuple[Any, ...]]:
        assert host == "widget.example"
        return [
            (socket.AF_INET, socket.SOCK_DGRAM, 17, "", where),
            (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", device.port)),
        ]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    async with Client(udp("widget.example"), timeout_s=5) as client:
        begin = loop.time()
        assert await client.request(Echo("hello"), repeats=0) == "hello"
        assert loop.time() - begin < 1
        device.stop()  # it had answered: there is no other address to go to
        await asyncio.sleep(0)
        with pytest.raises(LinkLost, match="refuses"):
            await client.request(Echo("hello"), repeats=0)


async def test_nothing_listens(unused_port: int) -> None:
    async with Client(udp("127.0.0.1", unused_port), timeout_s=60) as client:
        with pytest.raises(LinkLost, match=f"UDP port {unused_port} of 127.0.0.1 refuses") as caught:
            await client.request(Echo("anybody"))
        assert caught.value.hint
        assert caught.value.address == f"udp:127.0.0.1:{unused_port}"
        with pytest.raises(LinkLost):
            await client.request(Echo("anybody"))


async def test_a_device_that_restarts_is_back_after_reopening(unused_port: int) -> None:
    transport = udp("127.0.0.1", unused_port)
    async with Client(transport) as client:
        with pytest.raises(LinkLost):
            await client.request(Echo("anybody"))
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
    async with Client(udp("127.0.0.1", device.port), timeout_s=0.1) as client:
        for text in ("one", "two", "three"):
            assert await client.request(Echo(text)) == text


async def test_datagrams_of_strangers_are_not_heard(device: Device) -> None:
    transport = udp("127.0.0.1", device.port)
    await transport.open(5)
    mine = transport._socket._bare.getsockname()  # type: ignore[union-attr]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"from elsewhere", mine)
    await transport.send([build_message(2, 1, 0, 0, 9, 0, b"\xa1ad\x60")])
    assert await transport.receive() == build_message(3, 1, 0, 0, 9, 0, b"\xa1ar\x60")
    await transport.close()


async def test_a_flood_takes_bounded_memory(device: Device) -> None:
    device.change = lambda reply: [reply] * 1000
    transport = udp("127.0.0.1", device.port)
    await transport.open(5)
    await transport.send([build_message(2, 1, 0, 0, 9, 0, b"\xa1ad\x60")])
    for _ in range(64):
        assert await transport.receive()
        await asyncio.sleep(0)
    assert len(transport._socket._unread) <= 256  # type: ignore[union-attr]
    await transport.close()


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


async def test_a_network_that_is_away_for_a_moment_ends_nothing(device: Device) -> None:
    async with Client(udp("127.0.0.1", device.port)) as client:
        assert await client.request(Echo("before")) == "before"
        link = client._transport._socket  # type: ignore[attr-defined]

        def unreachable(data: bytes) -> bool:
            link.error_received(OSError(errno.ENETUNREACH, "Network unreachable"))
            return True

        real, link.send_now = link.send_now, unreachable
        with pytest.raises(TransportError, match="cannot be reached: Network unreachable") as caught:
            await client.request(Echo("meanwhile"))
        assert not isinstance(caught.value, LinkLost)
        link.send_now = real
        assert await client.request(Echo("after")) == "after"


# -- what cannot be opened --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64])
async def test_an_unknown_host(host: str) -> None:
    with pytest.raises(DeviceNotFound, match="no host is known as"):
        await udp(host).open(5)


async def test_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int, **kind: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("ff02::1", port, 0, 999_999))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(ConnectFailed, match="no route leads to UDP port 1337 of widget"):
        await udp("widget").open(5)


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
