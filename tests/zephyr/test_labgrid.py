"""The driver of `examples/labgrid` updates an emulated board with MCUboot, bound by hand to its port."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ..support.labs import labgrid_driver
from ..support.zephyr import find_server
from .test_dfu import resigned

pytestmark = pytest.mark.timeout(180)


async def test_a_place_of_labgrid_updates_its_board(tmp_path: Path) -> None:
    driver_class = labgrid_driver()
    from labgrid import Target
    from labgrid.resource import NetworkSerialPort

    async with find_server("serial", "qemu_cortex_m0").start(tmp_path) as board:
        target = Target("board")
        NetworkSerialPort(
            target, name="port", host="127.0.0.1", port=int(board.address.rpartition(":")[2]), protocol="raw"
        )
        driver = driver_class(target, name=None)
        target.activate(driver)
        try:
            image = resigned(board.files, "2.0.0", tmp_path)
            report = await asyncio.to_thread(driver.update, str(image))
            assert report.summary.startswith("2.0.0 runs and is confirmed")
            slots = await asyncio.to_thread(driver.images)
            assert [(slot.version, slot.confirmed) for slot in slots if slot.active] == [("2.0.0", True)]
        finally:
            await asyncio.to_thread(target.cleanup)
