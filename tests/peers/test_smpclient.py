"""An independent client, `smpclient`, drives the simulated device that `mcumgrx sim serve` offers.

What it is: other people's code on top of other people's codec (`smp`). It shows that the simulator is a device to a
stranger, too, and not only to the client that grew up with it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcumgrx.mcuboot import parse_image
from mcumgrx.sim.images import build_image

from ..support.served import Served, serving

pytest.importorskip("smpclient", reason="could not import smpclient, an extra of the tests")

from smpclient import SMPClient, success
from smpclient.requests.image_management import ImageStatesRead, ImageStatesWrite
from smpclient.requests.os_management import EchoWrite, MCUMgrParametersRead, ResetWrite
from smpclient.transport.serial import SMPSerialTransport
from smpclient.transport.udp import SMPUDPTransport

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C and pseudo-terminals are different there")

# Over UDP `smpclient` fills its datagrams whatever the device says, so Zephyr's default for devices with UDP it is.
BUF_SIZE = {"pty": 1024, "udp": 2048}
DEVICE = "sim:desk,slot_size=65536"
IMAGE = build_image("1.1.0", payload_size=20_000)
FILE = bytes(range(256)) * 24


class UdpOnPort(SMPUDPTransport):
    """`smpclient` always asks port 1337, which a test cannot count on."""

    async def connect(self, address: str, timeout_s: float, port: int = 1337) -> None:
        host, _, given = address.rpartition(":")
        await super().connect(host, timeout_s, int(given))


@asynccontextmanager
async def connected(served: Served, link: str) -> AsyncIterator[SMPClient]:
    if link == "udp":
        client = SMPClient(UdpOnPort(), served.target("udp"))
    else:
        client = SMPClient(SMPSerialTransport(), served.target("serial"))
    async with client:
        yield client


async def ask(client: SMPClient, request: Any) -> Any:
    """The answer, which is no error."""
    answer = await client.request(request)
    assert success(answer), answer
    return answer


async def everything(client: SMPClient, buf_size: int) -> None:
    assert (await ask(client, EchoWrite(d="hello"))).r == "hello"
    long = "x" * 300
    assert (await ask(client, EchoWrite(d=long))).r == long
    params = await ask(client, MCUMgrParametersRead())
    assert (params.buf_size, params.buf_count) == (buf_size, 4)

    offsets = [offset async for offset in client.upload(IMAGE)]
    assert offsets[-1] == len(IMAGE)
    assert len(offsets) >= len(IMAGE) // buf_size
    hash = parse_image(IMAGE).hash
    states = (await ask(client, ImageStatesRead())).images
    assert [(one.slot, one.version, one.active, one.pending) for one in states] == [
        (0, "1.0.0", True, False),
        (1, "1.1.0", False, False),
    ]
    assert states[1].hash == hash
    states = (await ask(client, ImageStatesWrite(hash=hash, confirm=False))).images
    assert [(one.version, one.pending, one.confirmed) for one in states] == [
        ("1.0.0", False, True),
        ("1.1.0", True, False),
    ]

    assert [offset async for offset in client.upload_file(FILE, "/lfs1/table.bin")][-1] == len(FILE)
    assert await client.download_file("/lfs1/table.bin") == FILE


@pytest.mark.parametrize("link", ["pty", "udp"])
async def test_smpclient_drives_the_simulator(link: str) -> None:
    arguments = ["--pty"] if link == "pty" else ["--udp", "0"]
    with serving(f"{DEVICE},buf_size={BUF_SIZE[link]}", "--instant", *arguments) as served:
        async with asyncio.timeout(50), connected(served, link) as client:
            await everything(client, BUF_SIZE[link])
    assert served.result["requests"] > len(IMAGE) // BUF_SIZE[link]
    assert served.errors == ""


async def test_an_update_at_the_speed_of_a_uart() -> None:
    """115200 baud and few line buffers, a flash that takes its time, and a reset through which the port stays open."""
    image = build_image("1.2.0", payload_size=3_000)
    with serving(f"{DEVICE},erase=0.05,boot=0.1,reset_delay=0.05", "--pty") as served:
        async with asyncio.timeout(50), connected(served, "pty") as client:
            assert [offset async for offset in client.upload(image)][-1] == len(image)
            await ask(client, ImageStatesWrite(hash=parse_image(image).hash))
            await ask(client, ResetWrite())
            while (await versions(client))[0] != "1.2.0":
                pass
    assert served.result == {"requests": served.result["requests"], "resets": 1, "version": "1.2.0", "lost": 0}


async def versions(client: SMPClient) -> list[str]:
    """Of the images in the slots. Asks until the device, which is restarting, answers."""
    while True:
        try:
            return [one.version for one in (await client.request(ImageStatesRead(), timeout_s=0.2)).images]
        except TimeoutError:
            continue
