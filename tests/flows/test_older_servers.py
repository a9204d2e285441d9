"""Whole updates of devices that know version 1 of SMP alone, where errors are bare codes: Zephyr before 3.4, Mynewt."""

from __future__ import annotations

from typing import Any

import pytest

from mcumgrx.client import Client
from mcumgrx.contracts import ImageGroup
from mcumgrx.errors import DeviceError, McumgrError, Outcome, PlanRefused
from mcumgrx.flows import Ending, Mode, Unconfirmed
from mcumgrx.flows.device_state import in_recovery
from mcumgrx.flows.listing import image_list
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import ImageState
from mcumgrx.protocol.codes import SmpError
from mcumgrx.registry import default_registry
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel
from mcumgrx.sim.loop import run

from .test_dfu import CRASHING, MARK, NEW, SMALL, UPLOAD, Desk, the

pytestmark = pytest.mark.codec

FIRMWARE = ("zephyr-2.7", "zephyr-3.2", "mynewt")
LINKS = {"ideal": LinkModel.ideal(), "uart": LinkModel.uart(), "ble": LinkModel.ble(), "datagram": LinkModel.datagram()}
OTHER = build_image("1.0.5", payload_size=9000)

every = pytest.mark.parametrize("firmware", FIRMWARE)


def older(firmware: str, model: LinkModel | None = None, **changes: Any) -> Desk:
    config = DeviceConfig.like(firmware, slot_size=SMALL.slot_size, buf_size=1024, timing=INSTANT, **changes)
    return Desk(config, model)


@pytest.mark.parametrize("link", LINKS)
@every
def test_an_update_is_carried_out_and_proven(firmware: str, link: str) -> None:
    desk = older(firmware, LINKS[link])
    report = desk.run()
    assert report.ending is Ending.CONFIRMED
    assert [step.name for step in report.plan.steps] == ["upload", "mark", "reset", "prove", "confirm"]
    assert (report.bytes_sent, report.resets) == (len(NEW), 1)
    assert desk.after_reset() == "1.1.0"
    assert desk.run().ending is Ending.NOTHING_TO_DO


@pytest.mark.parametrize("mode", Mode)
@every
def test_each_mode(firmware: str, mode: Mode) -> None:
    desk = older(firmware)
    ending = {Mode.TEST_ONLY: Ending.ON_TRIAL, Mode.UPLOAD_ONLY: Ending.UPLOADED}.get(mode, Ending.CONFIRMED)
    assert desk.run(mode=mode).ending is ending
    assert desk.running == ("1.0.0" if mode is Mode.UPLOAD_ONLY else "1.1.0")
    assert desk.after_reset() == ("1.1.0" if ending is Ending.CONFIRMED else "1.0.0")


@every
def test_an_image_that_crashes_has_reverted(firmware: str) -> None:
    desk = older(firmware)
    failure = desk.fails(CRASHING)
    assert (failure.outcome, failure.exit) == (Outcome.REVERTED, 7)
    assert desk.running == "1.0.0"


@pytest.mark.parametrize("wanted", [Unconfirmed.REVERT, Unconfirmed.CONFIRM, Unconfirmed.REFUSE])
@every
def test_what_runs_on_trial_is_ended_as_wanted(firmware: str, wanted: Unconfirmed) -> None:
    desk = older(firmware)
    assert desk.run(OTHER, mode=Mode.TEST_ONLY).ending is Ending.ON_TRIAL
    if wanted is Unconfirmed.REFUSE:
        assert isinstance(desk.fails(if_unconfirmed=wanted), PlanRefused)
        assert desk.running == "1.0.5"
        return
    assert desk.run(if_unconfirmed=wanted).ending is Ending.CONFIRMED
    assert desk.after_reset() == "1.1.0"


@every
def test_what_the_device_refuses_is_told_by_its_bare_code(firmware: str) -> None:
    """The codes are those into which each server squeezes its own."""

    def refused(desk: Desk, work: Any) -> DeviceError:
        async def main() -> None:
            async with Client(desk.transport, groups=default_registry().group) as client:
                await work(client.group(ImageGroup))

        with pytest.raises(McumgrError) as failure:
            run(main())
        error = failure.value if isinstance(failure.value, DeviceError) else failure.value.__cause__
        assert isinstance(error, DeviceError)
        assert error.group is None
        return error

    image = parse_image(NEW)
    desk = older(firmware)
    assert refused(desk, lambda images: images.test(image.hash)).says(SmpError.UNKNOWN)
    assert desk.run(OTHER, mode=Mode.TEST_ONLY).ending is Ending.ON_TRIAL
    error = refused(desk, lambda images: images.upload(image))
    assert error.says(SmpError.BAD_STATE)
    assert "confirm" in str(error.hint)
    assert desk.running == "1.0.5"


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("what", ["drop_replies", "cut_at_reply", "cut_at_request"])
@every
def test_losses_are_got_over(firmware: str, what: str, chunk: int) -> None:
    desk = older(firmware)
    setattr(desk.faults, what, the(chunk, UPLOAD))
    assert desk.run(chunk_bytes=1000).ending is Ending.CONFIRMED
    assert desk.running == "1.1.0"
    desk = older(firmware)
    setattr(desk.faults, what, the(chunk % 2 + 1, MARK))
    assert desk.run().ending is Ending.CONFIRMED
    assert desk.running == "1.1.0"


def test_a_mynewt_application_takes_the_echo_and_is_no_recovery_for_that() -> None:
    desk = older("mynewt")

    async def main() -> ImageState:
        async with Client(desk.transport, groups=default_registry().group) as client:
            return await image_list(client)

    assert not in_recovery(run(main()))
    refusal = desk.fails(recovery=True)
    assert isinstance(refusal, PlanRefused)
    assert "come back with its application" in refusal.message
    assert desk.running == "1.0.0"


def test_a_device_that_leaves_version_2_unanswered_is_updated() -> None:
    desk = older("mynewt")
    desk.faults.drop_requests = lambda number, message: message[0] >> 3 & 3 != 0
    assert desk.run().ending is Ending.CONFIRMED
    assert desk.after_reset() == "1.1.0"
