"""MCUboot's serial recovery on an emulated board: entered from the application, asked, and given an image."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.contracts import ImageGroup
from mcumgrx.errors import DeviceError
from mcumgrx.events import Bytes, Event
from mcumgrx.mcuboot import load_image
from mcumgrx.messages.standard import Echo, Params, ReadImageState, Reset
from mcumgrx.protocol.codes import SmpError
from mcumgrx.registry import default_registry

from ..support.zephyr import ZephyrServer, find_server
from .test_dfu import mcumgrx, resigned

pytestmark = pytest.mark.timeout(180)

# The bootloader prints this when it has gone into recovery.
RECOVERY = re.compile(r"[Ee]nter(ing)? the serial recovery")


@pytest.fixture(params=["serial_recovery", "serial_recovery_raw"])
async def board(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ZephyrServer]:
    async with find_server(request.param, "mps2_an385").start(tmp_path) as server:
        yield server


@pytest.mark.parametrize("board", ["serial_recovery", "serial_recovery_buf2048"], indirect=True)
async def test_upload_in_the_application(board: ZephyrServer) -> None:
    registry = default_registry()
    image = load_image(board.files.signed_image)
    # The emulated UART drops a line now and then.
    transport = registry.transport(Address.parse(f"{board.address},pause=5"))
    async with Client(transport, groups=registry.group, timeout_s=2) as client:
        done = await client.group(ImageGroup).upload(image)
        assert done.offset == image.size
        state = await client.request(ReadImageState())
        assert [slot.slot for slot in state.slots] == [0, 1]
        assert state.slots[1].hash == image.hash


async def test_recovery(board: ZephyrServer) -> None:
    registry = default_registry()
    transport = registry.transport(Address.parse(board.address))
    image = load_image(board.files.signed_image)
    async with Client(transport, groups=registry.group, timeout_s=2) as client:
        assert await client.request(Echo("application")) == "application"
        await client.request(Reset(boot_mode=1))
        await board.output.until(RECOVERY)
        client.forget_device()

        assert await client.params() == Params(1024, 1)
        assert client.limits.message(1024) == (1024 if "raw" in board.address else 1020)
        with pytest.raises(DeviceError) as refused:
            await client.request(Echo("bootloader"))
        assert refused.value.rc == SmpError.NOT_SUPPORTED
        (slot,) = (await client.request(ReadImageState())).slots
        assert slot.slot == 0

        steps: list[Event] = []
        done = await client.group(ImageGroup).upload(image, progress=steps.append)
        assert done.offset == image.size
        assert any(isinstance(step, Bytes) and step.done == image.size for step in steps)
        (slot,) = (await client.request(ReadImageState())).slots
        assert slot.slot == 0
        await client.request(Reset())
        await board.output.until()
        client.forget_device()
        assert await client.request(Echo("application")) == "application"


async def dfu(board: ZephyrServer, file: Path, *options: str) -> tuple[int, list[str], list[dict[str, Any]]]:
    """Exit code, stages that have ended, and all records of an update."""
    # The emulated UART drops a line now and then.
    code, records = await mcumgrx(board, "dfu", str(file), *options, link="" if raw(board) else ",pause=5")
    return code, [one["stage"] for one in records if one.get("event") == "stage" and one["finished"]], records


def raw(board: ZephyrServer) -> bool:
    return "raw" in board.address


async def test_a_whole_update_of_a_device_in_recovery(board: ZephyrServer) -> None:
    """The emulator loads its file into slot 0 at each start: only that one can be seen to run afterwards."""
    code, records = await mcumgrx(board, "os", "reset", "--boot-mode", "1")
    assert code == 0, records
    await board.output.until(RECOVERY)
    file = board.files.signed_image
    code, _, records = await dfu(board, file, "--erase")
    assert code == 11, records  # nobody has agreed
    code, stages, records = await dfu(board, file, "--erase", "--yes")
    assert code == 0, records
    assert stages[-5:] == ["plan", "upload", "reset", "return", "prove"]
    assert records[-1]["result"]["ending"] == "confirmed"
    code, _, records = await dfu(board, file)
    assert (code, records[-1]["result"]["ending"]) == (0, "nothing to do")


async def test_an_update_from_the_application_through_its_recovery(board: ZephyrServer, tmp_path: Path) -> None:
    """As the emulator puts the old file back, it is told as one that did not stay."""
    file = resigned(board.files, "9.9.9", tmp_path)
    code, stages, records = await dfu(board, file, "--recovery", "--yes")
    assert stages[-5:] == ["plan", "enter", "upload", "reset", "return"], records
    assert code == 7, records
    assert "9.9.9" in records[-1]["error"]["message"]
