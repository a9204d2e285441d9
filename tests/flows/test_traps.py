"""Traps in which updates with other clients end, each walked into on the simulated device, and past it by `update`.

A swap that takes its time, padded files and images that have reverted are in test_dfu, the order of marks of several
images in test_several_images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
import pytest

from mcumgrx.client import Client
from mcumgrx.contracts import ImageGroup
from mcumgrx.errors import LinkLost, Outcome
from mcumgrx.flows import Ending
from mcumgrx.mcuboot import parse_image
from mcumgrx.registry import default_registry
from mcumgrx.sim.device import Power, RecoveryConfig
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel
from mcumgrx.sim.loop import run

from . import test_several_images as several
from .test_dfu import CRASHING, MARK, NEW, SMALL, UPLOAD, Desk, the

pytestmark = pytest.mark.codec

RECOVERY = RecoveryConfig(verify_s=0.01)
CRASHING_LATER = build_image("1.2.0", payload_size=8192, health="crash")


# -- confirming by hash an image that has reverted --------------------------------------------------------------------


def confirm_by_hash(desk: Desk, data: bytes) -> None:
    async def main() -> None:
        async with Client(desk.transport, groups=default_registry().group) as client:
            await client.group(ImageGroup).confirm(parse_image(data).hash)

    run(main())


def test_what_has_reverted_becomes_permanent_when_it_is_confirmed_by_its_hash() -> None:
    """The trap: the device takes that, and what crashes at each start is installed for good."""
    desk = Desk()
    assert desk.fails(CRASHING).outcome is Outcome.REVERTED
    confirm_by_hash(desk, CRASHING)
    for now in (100.0, 120.0, 140.0):
        desk.device.reset(now)
        desk.device.settle()
        assert desk.device.power is not Power.RUNNING
        assert desk.device.boot_result is not None
        assert str(desk.device.boot_result.version) == "1.1.0"


@pytest.mark.parametrize("link", [LinkModel.ideal(), LinkModel.uart(), LinkModel.ble()])
def test_what_runs_is_confirmed_without_a_hash(link: LinkModel) -> None:
    bodies: list[dict[str, Any]] = []

    def seen(number: int, message: bytes) -> bool:
        if MARK(number, message):
            bodies.append(cbor2.loads(message[8:]))
        return False

    desk = Desk(model=link)
    desk.faults.drop_requests = seen
    assert desk.run().ending is Ending.CONFIRMED
    assert [body.get("confirm", False) for body in bodies] == [False, True]
    assert "hash" not in bodies[-1]
    desk.fails(CRASHING_LATER)
    assert all("hash" not in body for body in bodies if body.get("confirm"))
    assert desk.after_reset() == "1.1.0"


# -- a request in the bootloader's wait window ------------------------------------------------------------------------


def with_window(window_s: float, model: LinkModel) -> tuple[Desk, list[Power]]:
    desk = Desk(replace(SMALL, recovery=replace(RECOVERY, window_s=window_s)), model)
    seen: list[Power] = []
    desk.device.listeners.append(seen.append)
    return desk, seen


@pytest.mark.parametrize("window_s", [0.2, 0.5, 2.0])
@pytest.mark.parametrize("link", [LinkModel.uart(), LinkModel.uart(raw=True), LinkModel.ble()])
def test_no_request_holds_the_device_in_its_bootloader(link: LinkModel, window_s: float) -> None:
    desk, seen = with_window(window_s, link)
    report = desk.run()
    assert (report.ending, report.resets) == (Ending.CONFIRMED, 1)
    assert Power.RECOVERY not in seen
    assert desk.after_reset() == "1.1.0"


@pytest.mark.parametrize("link", [LinkModel.uart(), LinkModel.uart(raw=True)])
def test_a_window_longer_than_the_silence_costs_the_trial_and_nothing_else(link: LinkModel) -> None:
    """MCUboot has swapped by then: held in its recovery the new image has had its boot without being started."""
    desk, seen = with_window(6.0, link)
    assert desk.fails().outcome is Outcome.REVERTED
    assert Power.RECOVERY in seen
    assert desk.running == "1.0.0"
    assert desk.run(quiet_s=7.0).ending is Ending.CONFIRMED
    assert desk.after_reset() == "1.1.0"


# -- half a package ---------------------------------------------------------------------------------------------------


def half(chunk: int) -> several.Desk:
    """Two images of which the upload ends in the middle, and nobody goes on."""
    desk = several.Desk()
    desk.transport.faults.cut_at_request = the(range(chunk, 10_000), UPLOAD)
    with pytest.raises(LinkLost):
        desk.together(NEW, several.NET, reconnects=0, chunk_bytes=1000)
    desk.transport.faults.cut_at_request = ()
    return desk


@pytest.mark.parametrize("chunk", [1, 3, 12, 15])
def test_half_a_package_starts_nothing(chunk: int) -> None:
    old = several.Desk().versions
    assert half(chunk).after_reset() == old


@pytest.mark.parametrize("chunk", [8, 15])
def test_the_same_command_brings_what_is_missing(chunk: int) -> None:
    desk = half(chunk)
    report = desk.together(NEW, several.NET, chunk_bytes=1000)
    whole = several.Desk().together(NEW, several.NET, chunk_bytes=1000)
    assert report.ending is whole.ending
    assert report.bytes_sent < whole.bytes_sent
    assert desk.versions == ("1.1.0", str(parse_image(several.NET).version))
