"""What a Bluetooth LE device must do, step by step, on real hardware: `--ble-device ADDRESS`.

Every step stands for itself and opens its own link. `tests/ble/test_hardware_list.py` runs the same steps on the
emulated BlueZ, so that a failure here is one of the hardware, its firmware or its host.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

import mcumgrx
from mcumgrx.address import Address
from mcumgrx.contracts import ImageGroup
from mcumgrx.errors import DeviceError, RequestTimeout
from mcumgrx.flows import Ending, update
from mcumgrx.messages.standard import Echo
from mcumgrx.protocol.codes import SmpError
from mcumgrx_plugins.os.messages import ReadInfo

# One device cannot serve two at once.
pytestmark = [pytest.mark.xdist_group("ble-device"), pytest.mark.timeout(120)]

Note = Callable[[str, object], None]
"""Writes a fact into the report."""

_SCAN_S = 5.0
_ECHOES = 20
_LONGEST_ECHO = 4096

# An echo's message beside its text: header, begin and end of the map, its key, the text's length; and some room that
# the device's encoder may want to keep.
_ECHO_OVERHEAD = 8 + 2 + 2 + 3 + 17


@pytest.fixture
def note(record_property: Note) -> Note:
    return record_property


async def test_scan(device_address: str, note: Note) -> None:
    from mcumgrx_plugins.ble.discovery import discover

    target = Address.parse(device_address).target.casefold()
    heard = await discover(_SCAN_S)
    note("devices_heard", len(heard))
    fitting = [one for one in heard if target in (one.name.casefold(), Address.parse(one.address).target.casefold())]
    names = ", ".join(one.name or one.address for one in heard) or "nobody"
    assert fitting, f"{device_address} was not heard in {_SCAN_S:g} s; heard were {names}"
    note("name", fitting[0].name)
    note("signal_dbm", fitting[0].signal_dbm)
    note("advertises_smp", fitting[0].smp)


async def test_connect(device_address: str, note: Note) -> None:
    loop = asyncio.get_running_loop()
    device = mcumgrx.device(device_address)
    begin_s = loop.time()
    try:
        client = await device.connect(30.0)
        note("connect_s", round(loop.time() - begin_s, 2))
        note("write_bytes", client.limits.write)
        note("keeps_its_address", device.identity is not None)
        assert client.limits.write is not None
        assert 20 <= client.limits.write <= 512
    finally:
        begin_s = loop.time()
        await device.close()
    note("disconnect_s", round(loop.time() - begin_s, 2))


async def test_information(device_address: str, note: Note) -> None:
    async with mcumgrx.connect(device_address) as client:
        try:
            text = await client.request(ReadInfo("a"))
        except DeviceError as error:
            pytest.skip(f"the firmware has no such query: {error}")
    note("text", text)
    assert text


async def test_params(device_address: str, note: Note) -> None:
    async with mcumgrx.connect(device_address) as client:
        params = await client.params()
    if params is None:
        pytest.skip("the firmware does not tell its buffers: CONFIG_MCUMGR_GRP_OS_MCUMGR_PARAMS")
    note("buf_size", params.buf_size)
    note("buf_count", params.buf_count)
    assert params.buf_size > _ECHO_OVERHEAD
    assert params.buf_count > 0


async def test_echo(device_address: str, note: Note) -> None:
    loop = asyncio.get_running_loop()
    took_s: list[float] = []
    async with mcumgrx.connect(device_address) as client:
        for number in range(_ECHOES):
            begin_s = loop.time()
            assert await client.request(Echo(f"echo {number}")) == f"echo {number}"
            took_s.append(loop.time() - begin_s)
    note("median_ms", round(1000 * statistics.median(took_s), 1))
    note("slowest_ms", round(1000 * max(took_s), 1))


async def test_echo_in_fragments(device_address: str, note: Note) -> None:
    """Of 4 KB, or of as much as the device's buffers hold."""
    loop = asyncio.get_running_loop()
    async with mcumgrx.connect(device_address) as client:
        params = await client.params()
        if params is None:
            pytest.skip("the firmware does not tell its buffers: CONFIG_MCUMGR_GRP_OS_MCUMGR_PARAMS")
        write = client.limits.write
        assert write is not None
        size = min(_LONGEST_ECHO, client.limits.message(params.buf_size) - _ECHO_OVERHEAD)
        if size + _ECHO_OVERHEAD <= write:
            pytest.skip(f"its buffers of {params.buf_size} bytes hold no more than one write of {write} bytes")
        # Two fragments first: a device that puts these together has to put any number together.
        try:
            await client.request(Echo("x" * min(size, write)), repeats=1)
        except (DeviceError, RequestTimeout) as error:
            if isinstance(error, DeviceError) and error.rc != SmpError.CORRUPT:
                raise
            pytest.skip(f"CONFIG_MCUMGR_TRANSPORT_BT_REASSEMBLY is not in the firmware, it seems: {error}")
        text = "".join(chr(97 + index % 26) for index in range(size))
        begin_s = loop.time()
        assert await client.request(Echo(text), timeout_s=20.0) == text
    note("bytes", size)
    note("fragments", -(-(size + _ECHO_OVERHEAD) // write))
    note("took_s", round(loop.time() - begin_s, 2))


async def test_image_list(device_address: str, note: Note) -> None:
    async with mcumgrx.connect(device_address) as client:
        state = await client.group(ImageGroup).state()
    active = state.active()
    assert active is not None
    note("running", str(active.version))
    note("confirmed", active.confirmed)
    note("slots", len(state.slots))


async def test_resubscribe(device_address: str, note: Note) -> None:
    """After each reconnect the answers arrive again."""
    loop = asyncio.get_running_loop()
    device = mcumgrx.device(device_address)
    took_s: list[float] = []
    try:
        for number in range(4):
            begin_s = loop.time()
            client = await device.connect(30.0)
            assert await client.request(Echo(f"link {number}")) == f"link {number}"
            took_s.append(round(loop.time() - begin_s, 2))
            await device.close()
    finally:
        await device.close()
    note("to_the_answer_s", took_s)


@pytest.mark.timeout(1800)
async def test_dfu(device_address: str, image_file: Path, note: Note) -> None:
    """Upload, boot on trial, prove, confirm; the image stays."""
    image = mcumgrx.load_image(image_file)
    report = await update(mcumgrx.device(device_address), image)
    note("from_version", report.from_version)
    note("to_version", str(image.version))
    note("ending", report.ending.value)
    assert report.ending is not Ending.NOTHING_TO_DO, f"{image.version} runs already: build one of another version"
    assert report.ending is Ending.CONFIRMED
    note("bytes_sent", report.bytes_sent)
    note("upload_s", round(report.upload_s, 1))
    note("bytes_per_s", round(report.bytes_sent / report.upload_s) if report.upload_s else None)
    note("reconnects", report.reconnects)
    note("elapsed_s", round(report.elapsed_s, 1))
    async with mcumgrx.connect(device_address) as client:
        active = (await client.group(ImageGroup).state()).active()
    assert active is not None
    assert (active.hash, active.confirmed) == (image.hash, True)
