"""Updates through a firmware loader over Bluetooth LE: another program, at another address, under another name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.errors import DeviceNotFound, FlowError, Outcome
from mcumgrx.events import Bytes, Event, Note
from mcumgrx.flows import INSTALLER_FIRST, DfuPolicy, Ending, Report, update
from mcumgrx.flows.loader import LOADER_NAME, loader_name
from mcumgrx.flows.plan import EnterLoader
from mcumgrx.mcuboot import Image, parse_image
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.bootloader import Mode
from mcumgrx.sim.device import ALL_GROUPS, Power, SimulatedDevice
from mcumgrx.sim.images import build_image, build_installer
from mcumgrx.sim.link import runner_of
from mcumgrx_plugins.ble.transport import BleTransport

from .bluez import Daemon, EmulatedBluez, Peripheral
from .rig import CONFIG, OLD, peripheral, running

NEW = parse_image(build_image("1.1.0", payload_size=20_000))
APPLICATION, LOADER = "C0:FF:EE:00:00:02", "C0:FF:EE:00:00:03"  # the lowest bit of it is another one
INSTALLER = parse_image(build_installer("2.0.0", build_image("0.2.0", payload_size=700)))


class Rig:
    """The device, which moves to another address and takes another name with its program, and what was told."""

    def __init__(self, bluez: EmulatedBluez, peripheral: Peripheral) -> None:
        self.bluez = bluez
        self.peripheral = peripheral
        self.device = peripheral.device
        self.events: list[Event] = []
        self.names: list[str] = []
        self.device.listeners.append(self._changed)

    def _changed(self, power: Power) -> None:
        if power is not Power.RUNNING:
            return
        device = self.device
        address, name = (LOADER, device.loader_name) if device.in_loader else (APPLICATION, "Widget")
        if name != self.peripheral.name:
            self.names.append(name)
            self.peripheral.name = name
            self.bluez.move(self.peripheral, address)

    async def update(
        self, address: str = f"ble:{APPLICATION}", *, end: float | None = None, installer: Image | None = None
    ) -> Report:
        named = Address.parse(address)
        session = SessionDevice(named, BleTransport(named), default_registry(), timeout_s=5.0)
        policy = DfuPolicy(boot_timeout_s=6.0, grace_s=0.5, quiet_s=0.0)
        task: asyncio.Future[Report]

        def hear(event: Event) -> None:
            self.events.append(event)
            if end is not None and isinstance(event, Bytes) and event.done > end * event.total:
                task.cancel()

        files = {0: NEW, **({} if installer is None else {INSTALLER_FIRST: installer})}
        task = asyncio.ensure_future(update(session, files, policy, hear))
        async with asyncio.timeout(50):
            return await task


@asynccontextmanager
async def rig(daemon: Daemon, groups: tuple[int, ...] = ALL_GROUPS, **more: Any) -> AsyncIterator[Rig]:
    config = replace(CONFIG, mode=Mode.FIRMWARE_LOADER, groups=groups)
    device = SimulatedDevice(config)
    device.install(OLD)
    device.install(build_image("0.1.0", payload_size=600), slot=1)
    device.settle()
    told = {"name": "Widget", "address": APPLICATION, "address_type": "random", **more}
    one = Peripheral(device, **told)
    async with EmulatedBluez(daemon, one) as bluez:
        yield Rig(bluez, one)


@pytest.mark.parametrize("address", [f"ble:{APPLICATION}", "ble:Widget"])
async def test_the_loader_is_found_by_the_name_that_it_was_given(daemon: Daemon, address: str) -> None:
    async with rig(daemon) as one:
        report = await one.update(address)
        assert (report.ending, running(one)) == (Ending.ANSWERS, "1.1.0")
        assert one.names == [loader_name(address), "Widget"]
        assert report.identity == APPLICATION
        assert not [event.text for event in one.events if isinstance(event, Note) and LOADER in event.text]


async def test_a_loader_that_could_not_be_named_is_found_by_its_own(daemon: Daemon) -> None:
    async with rig(daemon, groups=tuple(group for group in ALL_GROUPS if group != 3)) as one:
        assert (await one.update()).ending is Ending.ANSWERS
        assert one.names == [LOADER_NAME, "Widget"]


async def test_a_stranger_of_that_name_is_left_alone(daemon: Daemon) -> None:
    """Two loaders that nobody has named: it is the address that tells."""
    async with rig(daemon, groups=tuple(group for group in ALL_GROUPS if group != 3)) as one:
        other = peripheral(name=LOADER_NAME, address="C0:FF:EE:00:00:99")
        one.bluez.peripherals[other.path] = other
        assert (await one.update()).ending is Ending.ANSWERS
        assert (other.writes, running(one)) == ([], "1.1.0")


async def test_an_interrupted_update_is_gone_on_with_by_the_same_command(daemon: Daemon) -> None:
    async with rig(daemon) as one:
        with pytest.raises(asyncio.CancelledError):
            await one.update(end=0.2)
        assert one.device.in_loader
        report = await one.update()
        assert (report.ending, running(one)) == (Ending.ANSWERS, "1.1.0")
        assert not report.plan.has(EnterLoader)


async def test_the_application_is_found_beside_a_loader_that_was_named_itself(daemon: Daemon) -> None:
    """After a power cut the loader has its own name, and nobody knows that of the application."""
    async with rig(daemon) as one:
        with pytest.raises(asyncio.CancelledError):
            await one.update(end=0.2)
        one.device.erase_storage()
        one.device.flash.poke(0, bytes(64))  # however much of the upload had arrived
        one.device.reset(asyncio.get_running_loop().time())
        async with asyncio.timeout(10):
            while one.names[-1] != LOADER_NAME:
                runner_of(one.device).advance()
                await asyncio.sleep(0.01)
        with pytest.raises(DeviceNotFound) as caught:
            await one.update()
        assert f"{LOADER_NAME} ({LOADER}, offers SMP)" in (caught.value.hint or "")
        assert (await one.update(f"ble:{LOADER_NAME}")).ending is Ending.ANSWERS
        assert running(one) == "1.1.0"


async def test_an_installer_and_the_application(daemon: Daemon) -> None:
    async with rig(daemon) as one:
        assert (await one.update(installer=INSTALLER)).ending is Ending.ANSWERS
        assert one.names == [loader_name(f"ble:{APPLICATION}"), LOADER_NAME, "Widget"]


async def test_a_refused_image_is_told_by_the_loader_that_comes_back(daemon: Daemon) -> None:
    async with rig(daemon) as one:
        one.device.bootloader.verify = lambda image: str(image.version) != "1.1.0"
        with pytest.raises(FlowError) as caught:
            await one.update()
        assert caught.value.outcome is Outcome.REJECTED
