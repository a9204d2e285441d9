"""`ble:` keeps the contract of transports, over bleak, D-Bus and the emulated BlueZ."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mcumgrx.testing.transports import LinkUnderTest, TransportContract

from .bluez import Daemon, EmulatedBluez
from .rig import CONFIG, ble, peripheral


class TestBle(TransportContract):
    buf_size = CONFIG.buf_size
    daemon: Daemon

    @pytest.fixture(autouse=True)
    def on_a_bus(self, daemon: Daemon) -> None:
        self.daemon = daemon

    @asynccontextmanager
    async def link(self) -> AsyncIterator[LinkUnderTest]:
        rig = peripheral()
        async with EmulatedBluez(self.daemon, rig) as bluez:
            yield LinkUnderTest(ble(), lambda: bluez.lose(rig))
