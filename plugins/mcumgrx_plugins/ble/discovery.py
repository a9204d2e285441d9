"""Scanning: what advertises, for `mcumgrx scan` and for connecting by name.

All who look at the same time in one event loop share one scan: BlueZ refuses a second one of the same program.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bleak import BleakScanner
from bleak.args.bluez import BlueZScannerArgs
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner

from mcumgrx.plugin_api import Address, Discovered, ReportDiscovered

from .trouble import translated

SMP_SERVICE = "8d53dc1d-1db7-4cd3-868b-8a527460aa84"
SMP_CHARACTERISTIC = "da2e7828-fbce-4e01-ae9e-261174997c48"

T = TypeVar("T")

# Stopping a scan takes BlueZ a moment, which is taken off the time for looking.
_STOP_S = 0.2

# Half a conversation with the system is not left alone for longer than this, even by who is in a hurry.
_PATIENCE_S = 3.0

# What the system says when it heard no signal strength.
_NO_SIGNAL = -127


@dataclass(frozen=True, slots=True)
class Sighting:
    """A device that was heard. `at_s` is the loop's time."""

    device: BLEDevice
    advertisement: AdvertisementData
    at_s: float

    @property
    def name(self) -> str:
        # The local name may come later, in the scan response; the system may know the name from earlier.
        return self.advertisement.local_name or self.device.name or ""

    @property
    def offers_smp(self) -> bool:
        return SMP_SERVICE in (uuid.lower() for uuid in self.advertisement.service_uuids)


Listener = Callable[[Sighting], None]


class _Scan:
    """One scan that runs, and those who listen to it."""

    def __init__(self, adapter: str | None, backend: type[BaseBleakScanner] | None) -> None:
        self.users = 0
        self.listeners: list[Listener] = []
        self._lock = asyncio.Lock()
        self._running = False
        bluez: BlueZScannerArgs = {} if adapter is None else {"adapter": adapter}
        self._scanner = BleakScanner(self._heard, bluez=bluez, backend=backend)

    def _heard(self, device: BLEDevice, advertisement: AdvertisementData) -> None:
        sighting = Sighting(device, advertisement, asyncio.get_running_loop().time())
        for listener in list(self.listeners):
            listener(sighting)

    async def start(self) -> None:
        async with self._lock:
            if not self._running:
                await unhurried(self._start())

    async def _start(self) -> None:
        await self._scanner.start()
        self._running = True

    async def stop(self) -> None:
        if self._running:
            self._running = False
            await unhurried(self._scanner.stop())


_scans: dict[tuple[asyncio.AbstractEventLoop, str | None, object], _Scan] = {}


@asynccontextmanager
async def listening(
    listener: Listener, *, adapter: str | None = None, backend: type[BaseBleakScanner] | None = None
) -> AsyncIterator[None]:
    """Have `listener` called with each advertisement that is heard. Raises what bleak raises."""
    key = (asyncio.get_running_loop(), adapter, backend)
    scan = _scans.get(key)
    if scan is None:
        scan = _scans[key] = _Scan(adapter, backend)
    scan.users += 1
    scan.listeners.append(listener)
    try:
        await scan.start()
        yield
    finally:
        scan.listeners.remove(listener)
        scan.users -= 1
        if not scan.users:
            if _scans.get(key) is scan:
                del _scans[key]
            await scan.stop()


async def unhurried(work: Coroutine[Any, Any, T], patience_s: float = _PATIENCE_S) -> T:
    """The result of `work`, which is cancelled only `patience_s` seconds after its caller was, if it takes as long.

    A conversation with the system that is abandoned half way leaves things behind: a scan that goes on, a socket.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task], timeout=patience_s if cancelled else None)
            if cancelled and not task.done():
                task.cancel()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen
        raise cancelled
    return task.result()


async def watch(timeout_s: float, report: ReportDiscovered, backend: type[BaseBleakScanner] | None = None) -> None:
    """Report each Bluetooth LE device whenever it advertises, for `timeout_s` seconds.

    `smp` says whether the device was heard to name the SMP service, which not every device that has it does. Raises
    `ConnectFailed` where there is no Bluetooth.
    """
    names: dict[str, str] = {}
    offers: set[str] = set()

    def listen(sighting: Sighting) -> None:
        # Advertisement and scan response come one after the other, and some systems pass them on apart.
        address = sighting.device.address
        if sighting.name:
            names[address] = sighting.name
        if sighting.offers_smp:
            offers.add(address)
        signal = sighting.advertisement.rssi
        report(
            Discovered(
                str(Address("ble", address)),
                names.get(address, ""),
                signal_dbm=None if signal == _NO_SIGNAL else signal,
                smp=address in offers,
                last_seen_s=0.0,
            )
        )

    try:
        async with listening(listen, backend=backend):
            await asyncio.sleep(max(timeout_s / 2, timeout_s - _STOP_S))
    except Exception as error:
        raise translated(error, "the Bluetooth adapter") from error


async def discover(timeout_s: float, backend: type[BaseBleakScanner] | None = None) -> list[Discovered]:
    """All that `watch` reports in `timeout_s` seconds, with `last_seen_s` as of the end: those that offer SMP first,
    then by signal. Raises `ConnectFailed` where there is no Bluetooth.
    """
    loop = asyncio.get_running_loop()
    heard: dict[str, tuple[Discovered, float]] = {}
    await watch(timeout_s, lambda one: heard.update({one.address: (one, loop.time())}), backend)
    now = loop.time()
    found = [replace(one, last_seen_s=round(now - at_s, 1)) for one, at_s in heard.values()]
    return sorted(found, key=lambda one: (not one.smp, -_signal(one), one.address))


def _signal(one: Discovered) -> int:
    return _NO_SIGNAL if one.signal_dbm is None else one.signal_dbm
