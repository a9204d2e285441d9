"""The simulated Zephyr basic group: erasing the storage, how long it takes, and how it fails."""

from __future__ import annotations

from typing import Any

import pytest

from mcumgrx.errors import UsageError
from mcumgrx.sim.groups.settings import SettingsConfig, SettingsHandler, SettingsServer
from mcumgrx.sim.groups.zephyr import ZephyrConfig, ZephyrErrorCode, ZephyrServer


def test_erasing_takes_as_long_as_the_sectors_do(desk: Any) -> None:
    server = ZephyrServer(ZephyrConfig(storage_size=64 * 1024))
    device = desk(server)
    assert device.send(2, 0, b"")[8:] == b"\xbf\xff", "no payload is looked at"
    assert device.busy_s == pytest.approx(16 * 0.085)
    assert device.write(0, version=0) == {}
    assert device.read(0) == {"rc": 8}
    assert server.erases == 2


def test_settings_are_gone_after_the_next_start(desk: Any) -> None:
    settings = SettingsServer(SettingsConfig((SettingsHandler("a", {"x": b"1"}),), stored={"a/x": b"2"}))
    device = desk(ZephyrServer(), settings)
    device.write(0)
    assert device.read(0, {"name": "a/x"}, group=3) == {"val": b"2"}, "RAM still has it"
    device.reset()
    assert device.read(0, {"name": "a/x"}, group=3) == {"val": b"1"}


@pytest.mark.parametrize("fault", ZephyrErrorCode)
def test_faults(desk: Any, fault: ZephyrErrorCode) -> None:
    device = desk(ZephyrServer(ZephyrConfig(fault=fault)))
    assert device.write(0) == device.err(fault)


@pytest.mark.parametrize(("fault", "legacy"), [(1, 1), (2, 5)])
def test_faults_in_version_1(desk: Any, fault: int, legacy: int) -> None:
    """The other two have no sensible answer there."""
    device = desk(ZephyrServer(ZephyrConfig(fault=ZephyrErrorCode(fault))))
    assert device.write(0, version=0) == {"rc": legacy}


def test_an_impossible_storage_is_named() -> None:
    with pytest.raises(UsageError):
        ZephyrConfig(sector_size=0)
