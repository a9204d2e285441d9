"""The serial transport against real Zephyr servers, where some are installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.errors import DeviceError, LinkLost
from mcumgrx.protocol.message import Command, Fields, SmpError
from mcumgrx.protocol.standard import Echo, Params, Reset
from mcumgrx_plugins.uart.transport import SerialTransport

from ..support.zephyr import ZephyrServer, native_sim


@dataclass(frozen=True, slots=True)
class Unknown(Command[None]):
    """Of a group that no server has."""

    what: ClassVar[str] = "unknown command"
    group: ClassVar[int] = 999
    command: ClassVar[int] = 1

    def parse(self, fields: Fields) -> None:
        return None


@pytest.fixture(params=["serial", "serial_bigrx", "serial_buf1024", "serial_noparams", "shell"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ZephyrServer]:
    async with native_sim(request.param, tmp_path) as server:
        yield server


def client_of(server: ZephyrServer, **options: str) -> Client:
    address = Address.parse(server.address)
    return Client(SerialTransport(Address(address.scheme, address.target, options)))


@pytest.fixture
async def client(server: ZephyrServer) -> AsyncIterator[Client]:
    async with client_of(server) as client:
        yield client


async def test_echo(client: Client) -> None:
    for text in ("", "hello", "höllo \N{SNOWMAN}", "x" * 70):
        assert await client.request(Echo(text)) == text


async def test_echo_of_two_lines(client: Client) -> None:
    text = "0123456789" * 12
    assert await client.request(Echo(text)) == text


async def test_params(client: Client, server: ZephyrServer, request: pytest.FixtureRequest) -> None:
    told = request.node.callspec.params["server"] != "serial_noparams"
    assert await client.params() == (Params(server.buf_size, server.buf_count) if told else None)
    assert await client.request(Echo("and on")) == "and on"


async def test_an_unknown_command_is_refused(client: Client) -> None:
    with pytest.raises(DeviceError) as refused:
        await client.request(Unknown())
    assert (refused.value.rc, refused.value.name) == (SmpError.NOT_SUPPORTED, "NOT_SUPPORTED")
    assert await client.request(Echo("and on")) == "and on"


async def test_open_again(server: ZephyrServer) -> None:
    for _ in range(3):
        async with client_of(server) as client:
            assert await client.request(Echo("hello")) == "hello"


async def test_the_end_of_the_program_ends_the_link(client: Client) -> None:
    """Reset ends the process, which is to a pseudo-terminal what unplugging is to a USB port."""
    with suppress(LinkLost):
        await client.request(Reset())
    async with asyncio.timeout(5):
        assert "has ended" in str(await client.wait_lost())


@pytest.mark.parametrize("server", ["serial_bigrx", "serial_line512"], indirect=True)
async def test_the_largest_message(server: ZephyrServer) -> None:
    """Four bytes less than the buffer, in lines as long as these builds take: with 127 bytes they lose lines."""
    async with client_of(server, line="512") as client:
        await client.params()
        limit = client.limits.message(server.buf_size)
        assert limit == server.buf_size - 4
        text = "x" * (limit - Echo("").request().size - 2)  # its length takes two bytes more than that of nothing
        assert Echo(text).request().size == limit
        assert await client.request(Echo(text)) == text
