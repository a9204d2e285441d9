"""What the tests of `ble:` talk to and with: a small device, and transports, sessions and clients for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx_plugins.ble.transport import BleTransport

from .bluez import ADDRESS, Peripheral

OLD = build_image("1.0.0", payload_size=2000)
CONFIG = DeviceConfig(
    slot_size=64 * 1024, buf_size=640, timing=INSTANT, boot_s=0.02, reset_delay_s=0.02, watchdog_s=0.1, request_s=0.0
)


def simulated(config: DeviceConfig = CONFIG, name: str = "") -> SimulatedDevice:
    device = SimulatedDevice(config, name=name)
    device.install(OLD)
    device.settle()
    return device


def peripheral(config: DeviceConfig = CONFIG, **more: Any) -> Peripheral:
    return Peripheral(simulated(config), **more)


class Rig(Protocol):
    """An emulated peripheral, of whatever kind."""

    @property
    def device(self) -> SimulatedDevice: ...


def running(one: Rig) -> str:
    assert one.device.boot_result is not None
    return str(one.device.boot_result.version)


def ble(target: str = ADDRESS, **options: str) -> BleTransport:
    return BleTransport(Address("ble", target, options))


def session(transport: BleTransport, timeout_s: float = 5.0) -> SessionDevice:
    return SessionDevice(Address("ble", ADDRESS), transport, default_registry(), timeout_s=timeout_s)


@asynccontextmanager
async def connected(transport: BleTransport, timeout_s: float = 5.0) -> AsyncIterator[Client]:
    device = session(transport, timeout_s)
    try:
        yield await device.connect()
    finally:
        await device.close()
