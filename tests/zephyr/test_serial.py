"""What only a pseudo-terminal shows: opening again, a program that ends, and long lines instead of many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.errors import LinkLost
from mcumgrx.messages.standard import Echo, Reset
from mcumgrx_plugins.uart.serial_port import SerialTransport

from ..support.zephyr import ZephyrServer, native_sim


@pytest.fixture(params=["serial", "shell"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ZephyrServer]:
    async with native_sim(request.param, tmp_path) as server:
        yield server


def client_of(server: ZephyrServer, **options: str) -> Client:
    address = Address.parse(server.address)
    return Client(SerialTransport(Address(address.scheme, address.target, options)))


async def test_open_again(server: ZephyrServer) -> None:
    for _ in range(3):
        async with client_of(server) as client:
            assert await client.request(Echo("hello")) == "hello"


async def test_the_end_of_the_program_ends_the_link(server: ZephyrServer) -> None:
    """Reset ends the process, which is to a pseudo-terminal what unplugging is to a USB port."""
    async with client_of(server) as client:
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
