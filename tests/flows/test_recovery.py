"""Updates through MCUboot's serial recovery, on the simulated device; what the device ends up with is looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mcumgrx.client import Client
from mcumgrx.errors import DeviceError
from mcumgrx.flows.device_state import in_recovery
from mcumgrx.flows.listing import NO_LIST, image_list
from mcumgrx.messages.standard import ImageState
from mcumgrx.protocol.codes import SmpError
from mcumgrx.registry import default_registry
from mcumgrx.sim.device import DeviceConfig, Power, RecoveryConfig
from mcumgrx.sim.link import LinkModel
from mcumgrx.sim.loop import run

from .test_dfu import SMALL, Desk

pytestmark = pytest.mark.codec

RECOVERY = RecoveryConfig(verify_s=0.01)
PLAIN = replace(SMALL, recovery=RECOVERY)


def recovering(config: DeviceConfig = PLAIN, model: LinkModel | None = None, **options: Any) -> Desk:
    """A device that has been asked for its recovery, built with these options."""
    desk = Desk(replace(config, recovery=replace(config.recovery or RECOVERY, **options)), model)
    desk.device.advance(0.0)
    desk.device.request_reset(boot_mode=1)
    desk.device.reset(0.0)
    desk.device.settle()
    assert desk.device.power is Power.RECOVERY
    return desk


# -- who answers ------------------------------------------------------------------------------------------------------


def what_answers(desk: Desk) -> ImageState:
    async def main() -> ImageState:
        async with Client(desk.transport, groups=default_registry().group) as client:
            return await image_list(client)

    return run(main())


@pytest.mark.parametrize("flags", [False, True])
def test_nothing_runs_in_a_recovery_whatever_its_list_says(flags: bool) -> None:
    images = what_answers(recovering(image_state=flags))
    assert in_recovery(images)
    (slot,) = images.slots
    assert (slot.slot, slot.version, slot.active, slot.bootable) == (0, "1.0.0", False, flags)


@pytest.mark.parametrize("firmware", ["zephyr-4.4", "zephyr-3.2", "mynewt"])
@pytest.mark.parametrize("frugal", [False, True])
def test_an_application_is_no_recovery(firmware: str, frugal: bool) -> None:
    images = what_answers(Desk(DeviceConfig.like(firmware, slot_size=64 * 1024, frugal_list=frugal)))
    assert not in_recovery(images)
    assert images.slots[0].active


def test_a_recovery_without_a_list_is_told_from_an_application_without_one() -> None:
    assert what_answers(recovering(image_list=False)) is NO_LIST
    desk = Desk(replace(SMALL, groups=(0,)))
    with pytest.raises(DeviceError) as refusal:
        what_answers(desk)
    assert refusal.value.says(SmpError.NOT_SUPPORTED)
