"""Every Zephyr server that is installed: the same requests to each, over the link that it offers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.errors import DeviceError, MessageTooLarge
from mcumgrx.messages.message import Fields, SmpCommand
from mcumgrx.messages.standard import Echo, Params, ReadImageState
from mcumgrx.protocol.codes import SmpError
from mcumgrx.registry import default_registry

from ..support.zephyr import VARIABLE, ServerFiles, ZephyrServer, servers

pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True, slots=True)
class Unknown(SmpCommand[None], group=999, number=1, what="unknown command"):
    """Of a group that no server has."""

    def parse(self, fields: Fields) -> None:
        return None


def every_server() -> list[object]:
    found = servers()
    if not found:
        reason = f"{VARIABLE} does not name a directory with Zephyr servers"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(files, id=str(files), marks=pytest.mark.xdist_group(str(files))) for files in found]


@pytest.fixture(params=every_server())
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ZephyrServer]:
    files: ServerFiles = request.param
    async with files.start(tmp_path) as server:
        yield server


@pytest.fixture
async def client(server: ZephyrServer) -> AsyncIterator[Client]:
    address = Address.parse(server.address)
    options = dict(address.options)
    if server.files.transport in ("serial", "shell"):
        # native_sim takes lines out of two buffers at every tick of 10 ms, and a pseudo-terminal has no baud rate.
        # QEMU drops lines of the same two buffers now and then.
        options |= {"line": str(min(512, server.files.line_length - 1)), "pause": "25"}
    transport = default_registry().transport(Address(address.scheme, address.target, options))
    async with Client(transport, timeout_s=3.0) as client:
        yield client


def filling(size: int) -> Echo:
    """An echo whose request has exactly `size` bytes, or up to two less where CBOR has no such length."""
    text = "x" * max(0, size - Echo("").request().size)
    while Echo(text).request().size > size:
        text = text[:-1]
    return Echo(text)


async def check_echo(client: Client, command: Echo, *, may_overflow: bool) -> None:
    try:
        text = await client.request(command)
    except DeviceError as error:
        # The request was taken; its answer, a byte longer, does not fit the device's buffer.
        if may_overflow and error.rc == SmpError.MESSAGE_SIZE:
            return
        raise
    assert text == command.text


async def test_every_request(
    client: Client, server: ZephyrServer, record_property: Callable[[str, object], None]
) -> None:
    """One test for each server, because starting one costs more than asking it."""
    files = server.files
    record_property("server", str(files))
    record_property("address", server.address.partition(":")[0] + ":")
    record_property("framing", {"serial_raw": "raw", "udp": "datagram"}.get(files.transport, "console"))
    record_property("buffers", f"{files.buf_count} × {files.buf_size}" + ("" if files.tells_params else ", not told"))
    # The first answer of all: nothing is known yet, so it is small.
    assert await client.request(Echo("é")) == "é"

    told = await client.params()
    assert told == (Params(files.buf_size, files.buf_count) if files.tells_params else None)

    with pytest.raises(DeviceError) as refused:
        await client.request(Unknown())
    assert (refused.value.rc, refused.value.name) == (SmpError.NOT_SUPPORTED, "NOT_SUPPORTED")

    # From one byte to the largest message. The answer is an echo with one more byte: an indefinite map has an end.
    largest = client.limits.message(files.buf_size if told is not None else None)
    sizes = sorted({18, 19, 40, 88, 89, 90, 100, 128, 182, 200, 256, 380, 500, 1000, 1400, largest // 2, largest})
    sizes = [size for size in sizes if size <= largest]
    record_property("largest message", largest)
    record_property("echoes", len(sizes))
    for size in sizes:
        await check_echo(client, filling(size), may_overflow=size == largest)
    if told is not None:
        with pytest.raises(MessageTooLarge):
            await client.request(filling(largest + 4))

    if "img" in files.groups:
        state = await client.request(ReadImageState())
        assert state.slots[0].active
        assert state.slots[0].bootable

    # Nothing of all that has left the link in disorder.
    assert await client.request(Echo("and on")) == "and on"
    assert client.connected
