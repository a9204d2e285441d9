"""Statistics, settings, enumeration and Zephyr's own group of real servers, with the classes that plugins supply."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.errors import DeviceError
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import Op
from mcumgrx.registry import default_registry
from mcumgrx_plugins.enum.group import EnumGroup
from mcumgrx_plugins.raw.messages import RawCommand
from mcumgrx_plugins.settings.group import SettingsGroup
from mcumgrx_plugins.stat.group import StatGroup
from mcumgrx_plugins.zephyr.group import ZephyrGroup

from ..support.zephyr import VARIABLE, ServerFiles, ZephyrServer, servers

pytestmark = pytest.mark.timeout(180)

NUMBERS = {"os": 0, "img": 1, "stat": 2, "settings": 3, "fs": 8, "shell": 9, "enum": 10, "zbasic": 63}
"""The manifest's names of command groups."""


def groups_of(files: ServerFiles) -> set[str]:
    """The groups that the manifest names, but for one that a server does not have."""
    return set(files.groups) - ({"zbasic"} if str(files) == "native_sim-serial_raw" else set())


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
        # The servers lose lines that come faster than their two buffers are emptied.
        options |= {"line": str(min(512, server.files.line_length - 1)), "pause": "25"}
    transport = default_registry().transport(Address(address.scheme, address.target, options))
    async with Client(transport, timeout_s=3.0) as client:
        yield client


async def test_every_group(client: Client, server: ZephyrServer) -> None:
    """One test for each server, because starting one costs more than asking it."""
    for name in sorted(groups_of(server.files)):
        if name == "stat":
            await check_statistics(client)
        elif name == "settings":
            await check_settings(client)
        elif name == "enum":
            await check_enumeration(client, server.files)
        elif name == "zbasic":
            # Twice: what is empty can be erased as well.
            await client.group(ZephyrGroup).erase_storage()
            await client.group(ZephyrGroup).erase_storage()
    missing = set(NUMBERS) - groups_of(server.files)
    for name in missing:
        with pytest.raises(DeviceError) as raised:
            await client.request(RawCommand(NUMBERS[name], 0, Op.READ, {}))
        assert (raised.value.group, raised.value.rc) == (None, SmpError.NOT_SUPPORTED)
    reply = await client.request(RawCommand(0, 0, Op.WRITE, {"d": "and on"}))
    assert reply == {"r": "and on"}


async def check_statistics(client: Client) -> None:
    group = client.group(StatGroup)
    names = (await group.names()).names
    assert "smp_svr_stats" in names
    for name in set(names) - {"flash_sim_stats"}:
        assert (await group.read(name)).counters
    assert set((await group.read("smp_svr_stats")).counters) == {"ticks"}
    if "flash_sim_stats" in names:
        # A counter for each page of its flash: no buffer is large enough.
        with pytest.raises(DeviceError) as raised:
            await group.read("flash_sim_stats")
        assert raised.value.rc == SmpError.MESSAGE_SIZE
    with pytest.raises(DeviceError) as raised:
        await group.read("nope")
    assert raised.value.name == "INVALID_STAT_NAME"
    with pytest.raises(DeviceError) as raised:
        await group.read("x" * 32)
    assert "CONFIG_MCUMGR_GRP_STAT_MAX_NAME_LEN" in str(raised.value.hint)


async def check_settings(client: Client) -> None:
    """These servers have neither settings nor a place to store them, only the group."""
    group = client.group(SettingsGroup)
    await group.commit()
    await group.load()
    refused = {
        "ROOT_KEY_NOT_FOUND": (group.read("app/none"), group.read("app/none", 16), group.write("app/none", b"\x01")),
        "KEY_NOT_FOUND": (group.delete("app/none"),),
        "KEY_TOO_LONG": (group.read("app/" + "x" * 28),),
        "SAVE_NOT_SUPPORTED": (group.save(), group.save("app")),
    }
    for name, requests in refused.items():
        for request in requests:
            with pytest.raises(DeviceError) as raised:
                await request
            assert (raised.value.group, raised.value.name) == (3, name)
    with pytest.raises(DeviceError) as raised:
        await group.write("app/none", "a text, as Mynewt takes it")
    assert raised.value.rc == SmpError.INVALID


async def check_enumeration(client: Client, files: ServerFiles) -> None:
    group = client.group(EnumGroup)
    numbers = (await group.groups()).groups
    assert sorted(numbers) == sorted(NUMBERS[name] for name in groups_of(files))
    assert (await group.count()).count == len(numbers)
    found = [await group.at(index) for index in range(len(numbers))]
    assert [one.group for one in found] == list(numbers)
    assert [one.end for one in found] == [False] * (len(numbers) - 1) + [True]
    with pytest.raises(DeviceError) as raised:
        await group.at(len(numbers))
    assert raised.value.name == "INDEX_TOO_LARGE"
    details = (await group.details((0, 60, 0, 10))).groups
    assert {one.group for one in details} == {0, 10}
    assert all(one.handlers and (one.name or "").endswith(" mgmt") for one in details)
    everything = (await group.details()).groups
    assert [one.group for one in everything] == list(numbers)
