"""A simulated device that runs images in place or from RAM, one image or several, and updates of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.errors import FlowError, PlanRefused
from mcumgrx.events import Event, Note, Stage, StageName
from mcumgrx.flows import DfuPolicy, Plan, Report, update
from mcumgrx.mcuboot import Image, ImageFlag, parse_image
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.bootloader import BootPolicy, Mode
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import SimulatedTransport
from mcumgrx.sim.loop import run

RAM = 0x2000_0000
RAM_EACH = 0x1_0000
CONFIG = DeviceConfig(slot_size=64 * 1024, buf_size=1024, timing=INSTANT, boot_s=0.1)


def config_of(mode: Mode, images: int = 1, *, revert: bool = False, **changes: Any) -> DeviceConfig:
    """A device with this mode; `revert`: RAM load with trial boots. `changes` beginning with `policy_` are of that."""
    policy = BootPolicy(**{name[7:]: changes.pop(name) for name in [*changes] if name.startswith("policy_")})
    if mode is Mode.RAM_LOAD:
        policy = replace(policy, ram_start=RAM, ram_size=4 * RAM_EACH, ram_load_revert=revert)
    return replace(CONFIG, mode=mode, images=images, policy=policy, **changes)


def built(config: DeviceConfig, number: int, version: str, **how: Any) -> bytes:
    """An image that such a device can run."""
    if config.mode is Mode.RAM_LOAD:
        how = {"flags": ImageFlag.RAM_LOAD, "load_address": RAM + number * RAM_EACH, **how}
    return build_image(version, **{"payload_size": 1500, "image": number, **how})


class InPlace:
    """A device that runs `versions` from slot 0, confirmed, one for each image; `preferred`: by its application."""

    def __init__(
        self,
        config: DeviceConfig,
        versions: Sequence[str] = ("1.0.0",),
        *,
        side: int = 0,
        preferred: int | None = None,
        **how: Any,
    ) -> None:
        self.config = config
        self.device = SimulatedDevice(config, name="desk")
        for number, version in enumerate(versions):
            self.place(number, side, built(config, number, version, **how))
            self.device.bootloaders[number].set_next(side, active=True, confirm=True)
        for loader in self.device.bootloaders:
            loader.preferred = preferred
        self.device.settle()
        for loader in self.device.bootloaders:
            loader.preferred = preferred
        self.events: list[Event] = []
        self.plans: list[Plan] = []

    def place(self, number: int, side: int, image: bytes) -> None:
        self.device.install(image, 2 * number + side)

    def update(self, files: bytes | Mapping[int, bytes | Mapping[int, bytes]], **policy: Any) -> Report:
        images: Any = {0: files} if isinstance(files, bytes) else files
        parsed = {
            number: parse_image(one)
            if isinstance(one, bytes)
            else {slot: parse_image(data) for slot, data in one.items()}
            for number, one in images.items()
        }
        return self.bring(parsed, **policy)

    def bring(self, images: Mapping[int, Image | Mapping[int, Image]], **policy: Any) -> Report:
        transport = SimulatedTransport(self.device)
        session = SessionDevice(Address.parse("sim:desk"), transport, default_registry())
        return run(update(session, images, DfuPolicy(**policy), self.events.append, on_plan=self._planned))

    async def _planned(self, plan: Plan) -> bool:
        self.plans.append(plan)
        return True

    def fails(self, files: bytes | Mapping[int, Any], **policy: Any) -> FlowError:
        with pytest.raises(FlowError) as failure:
            self.update(files, **policy)
        return failure.value

    def refuses(self, files: bytes | Mapping[int, Any], **policy: Any) -> PlanRefused:
        """An update that is refused before anything is touched."""
        before, boots = self.device.flash.snapshot(), self.device.boots
        with pytest.raises(PlanRefused) as refusal:
            self.update(files, **policy)
        assert (self.device.flash.snapshot(), self.device.boots) == (before, boots)
        assert refusal.value.hint
        return refusal.value

    @property
    def running(self) -> list[str]:
        self.device.settle()
        return [str(result.version) for result in self.device.boot_results]

    @property
    def sides(self) -> list[int]:
        self.device.settle()
        return [slot % 2 for slot in self.device.running_slots]

    def held(self, number: int = 0) -> list[str | None]:
        """The versions in the two slots of an image."""
        headers = [slot.header() for slot in self.device.bootloaders[number].slots]
        return [None if header is None else str(header.version) for header in headers]

    def after_reset(self) -> list[str]:
        self.device.reset(1e6)
        return self.running

    def told(self, name: StageName) -> list[str]:
        return [
            event.text for event in self.events if isinstance(event, Stage) and event.finished and event.name is name
        ]

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]
