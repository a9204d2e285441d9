"""Updates of several images, of one that is not the first, and of one that is never listed, on the simulated device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.contracts import Connection, HealthCheck, OnTrial
from mcumgrx.errors import FlowError, Outcome, PlanRefused
from mcumgrx.events import Event, Stage
from mcumgrx.flows import DfuPolicy, Ending, Mode, Report, update
from mcumgrx.mcuboot import parse_image
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim import bootloader as boot
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.groups.image import ImageServer
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import SimulatedTransport
from mcumgrx.sim.loop import run

APPLICATION = build_image("1.0.0", payload_size=4096)
OLD_NET = build_image("2.0.0", payload_size=4096, image=1)
NET = build_image("2.1.0", payload_size=4096, image=1)


class Desk:
    def __init__(self, **config: Any) -> None:
        self.device = SimulatedDevice(DeviceConfig(images=2, slot_size=64 * 1024, buf_size=1024, **config), name="desk")
        self.device.install(APPLICATION)
        self.device.install(OLD_NET, slot=2)
        self.transport = SimulatedTransport(self.device)
        self.events: list[Event] = []

    def run(self, data: bytes = NET, image: int = 1, **policy: Any) -> Report:
        return run(update(self.session, parse_image(data), DfuPolicy(image=image, **policy)))

    def together(self, *files: bytes, **policy: Any) -> Report:
        """An update of images 0, 1, … at once."""
        images = {number: parse_image(data) for number, data in enumerate(files)}
        return run(update(self.session, images, DfuPolicy(**policy), self.events.append))

    @property
    def session(self) -> SessionDevice:
        return SessionDevice(Address.parse("sim:desk"), self.transport, default_registry())

    @property
    def versions(self) -> tuple[str, ...]:
        self.device.settle()
        return tuple(str(result.version) for result in self.device.boot_results)

    def after_reset(self) -> tuple[str, ...]:
        self.device.reset(1e6)
        return self.versions


def test_another_image_stays_and_is_proven_by_its_hash() -> None:
    desk = Desk()
    report = desk.run()
    assert (report.ending, report.resets) == (Ending.CONFIRMED, 1)
    assert desk.versions == desk.after_reset() == ("1.0.0", "2.1.0")
    assert desk.run().ending is Ending.NOTHING_TO_DO


def test_a_test_boot_of_another_image_is_left_to_its_application() -> None:
    desk = Desk()
    assert desk.run(mode=Mode.TEST_ONLY).ending is Ending.ON_TRIAL
    assert desk.versions == ("1.0.0", "2.1.0")
    with pytest.raises(FlowError) as failure:
        desk.run()  # a confirm of another image is refused by default
    assert failure.value.outcome is Outcome.NOT_CONFIRMED
    assert "--mode confirm-only" in (failure.value.hint or "")
    assert desk.after_reset() == ("1.0.0", "2.0.0")


def test_another_image_on_trial_is_confirmed_where_the_device_allows_it() -> None:
    desk = Desk(confirms_other_images=True)
    desk.run(mode=Mode.TEST_ONLY)
    assert desk.run().ending is Ending.CONFIRMED
    assert desk.after_reset() == ("1.0.0", "2.1.0")


class OutOfReach(ImageServer):
    """The primary slot of image 1 cannot be read by the application (nRF5340), nor is its size known."""

    def _listed(self, frugal: bool) -> Iterator[dict[str, Any]]:
        return (entry for entry in super()._listed(frugal) if (entry.get("image"), entry["slot"]) != (1, 0))


@pytest.mark.parametrize("how", [Mode.TEST_AND_CONFIRM, Mode.CONFIRM_ONLY])
def test_an_image_that_is_never_listed_is_reset_once_and_unproven(how: Mode) -> None:
    desk = Desk()
    desk.device.add_group(OutOfReach(desk.device))
    desk.device.settle()
    boots = desk.device.boots
    with pytest.raises(FlowError) as failure:
        desk.run(mode=how)
    # It has been swapped with the old one, which now lies in slot 1.
    assert failure.value.outcome is Outcome.UNSEEN
    assert "it cannot be proven that it runs" in failure.value.message
    assert desk.device.boots == boots + 1
    assert desk.after_reset() == ("1.0.0", "2.1.0")


class FlagsOne(ImageServer):
    """A server that flags what runs of image 0 alone, as older ones of Zephyr do."""

    def _listed(self, frugal: bool) -> Iterator[dict[str, Any]]:
        for entry in super()._listed(frugal):
            runs = {key: False for key in ("active", "confirmed") if entry.get("image") and entry["slot"] == 0}
            yield entry | runs


def test_what_runs_of_another_image_is_known_where_only_image_0_is_flagged() -> None:
    desk = Desk(confirms_other_images=True)
    desk.device.add_group(FlagsOne(desk.device))
    new = build_image("1.1.0", payload_size=4096)
    report = desk.together(new, OLD_NET)
    assert report.ending is Ending.CONFIRMED
    assert desk.versions == desk.after_reset() == ("1.1.0", "2.0.0")
    assert desk.together(new, NET).ending is Ending.CONFIRMED
    assert desk.versions == desk.after_reset() == ("1.1.0", "2.1.0")


def test_an_image_that_is_never_listed_and_does_not_leave_its_slot_was_not_installed() -> None:
    desk = Desk()
    desk.device.add_group(OutOfReach(desk.device))
    with pytest.raises(PlanRefused, match="needs image 0 at version 9"):
        desk.run(build_image("2.1.0", payload_size=4096, needs={0: "9.0.0"}, image=1))


def test_an_upload_alone_reaches_an_image_that_is_never_listed() -> None:
    desk = Desk()
    desk.device.add_group(OutOfReach(desk.device))
    assert desk.run(mode=Mode.UPLOAD_ONLY).ending is Ending.UPLOADED
    assert desk.after_reset() == ("1.0.0", "2.0.0")


# -- several at once --------------------------------------------------------------------------------------------------

APPLICATION_2 = build_image("1.1.0", payload_size=4096)


def test_two_images_are_proven_after_one_reset_and_confirmed() -> None:
    desk = Desk(confirms_other_images=True)
    report = desk.together(APPLICATION_2, NET)
    assert (report.ending, report.resets) == (Ending.CONFIRMED, 1)
    assert report.summary == "1.1.0 of image 0 and 2.1.0 of image 1 run and are confirmed (were 1.0.0 and 2.0.0)"
    done = [event.name for event in desk.events if isinstance(event, Stage) and event.finished]
    assert done == ["connect", "read", "plan", "upload", "upload", "mark", "reset", "return", "prove", "confirm"]
    assert desk.versions == desk.after_reset() == ("1.1.0", "2.1.0")
    again = desk.together(APPLICATION_2, NET)
    assert (again.ending, again.bytes_sent) == (Ending.NOTHING_TO_DO, 0)


@pytest.mark.parametrize(
    ("order", "uploads", "marks"),
    [((), ["1.1.0", "2.1.0"], ["2.1.0", "1.1.0"]), ((1, 0), ["2.1.0", "1.1.0"], ["2.1.0", "1.1.0"])],
)
def test_two_images_in_the_order_that_is_wanted(order: tuple[int, ...], uploads: list[str], marks: list[str]) -> None:
    desk = Desk(confirms_other_images=True)
    assert desk.together(APPLICATION_2, NET, image_order=order).ending is Ending.CONFIRMED
    told = [event for event in desk.events if isinstance(event, Stage) and event.finished]
    assert [event.text.split()[0] for event in told if event.name == "upload"] == uploads
    marked = next(event.text for event in told if event.name == "mark")
    assert [part.split()[0] for part in marked.split("; ")] == marks
    assert desk.after_reset() == ("1.1.0", "2.1.0")


def test_two_images_to_stay_need_no_confirmation() -> None:
    desk = Desk()
    report = desk.together(APPLICATION_2, NET, mode=Mode.CONFIRM_ONLY)
    assert (report.ending, report.resets) == (Ending.CONFIRMED, 1)
    assert desk.versions == desk.after_reset() == ("1.1.0", "2.1.0")


@pytest.mark.parametrize("mode", [boot.Mode.SWAP_MOVE, boot.Mode.SWAP_OFFSET, boot.Mode.SWAP_SCRATCH])
def test_where_no_other_core_is_confirmed_what_is_proven_is_marked_to_stay(mode: boot.Mode) -> None:
    desk = Desk(mode=mode)
    report = desk.together(APPLICATION_2, NET)
    assert (report.ending, report.resets, report.bytes_sent) == (
        Ending.CONFIRMED,
        3,
        len(APPLICATION_2) + len(NET),
    )
    done = [event.name for event in desk.events if isinstance(event, Stage) and event.finished]
    # What it takes is one line of a terminal, and in full in the report.
    assert done[-3:] == ["prove", "confirm", "confirm"]
    assert len(done) <= 12
    parts = [step.name for step in report.steps]
    assert parts[-8:] == ["confirm", "reset", "return", "mark", "reset", "return", "prove", "confirm"]
    assert desk.versions == desk.after_reset() == ("1.1.0", "2.1.0")


def test_what_is_done_already_is_left_out() -> None:
    desk = Desk(confirms_other_images=True)
    desk.run()
    report = desk.together(APPLICATION_2, NET)
    assert (report.ending, report.resets, report.bytes_sent) == (Ending.CONFIRMED, 1, len(APPLICATION_2))
    assert desk.after_reset() == ("1.1.0", "2.1.0")


def test_an_application_on_trial_outlasts_the_reset_that_installs_the_other_core() -> None:
    desk = Desk(confirms_other_images=True)
    desk.run(APPLICATION_2, 0, mode=Mode.TEST_ONLY)
    report = desk.together(APPLICATION_2, NET)
    assert (report.ending, report.resets, report.bytes_sent) == (Ending.CONFIRMED, 1, len(NET))
    assert desk.after_reset() == ("1.1.0", "2.1.0")


def test_one_that_is_never_listed_is_installed_with_the_other_and_said_to_be_unproven() -> None:
    desk = Desk()
    desk.device.add_group(OutOfReach(desk.device))
    desk.device.settle()
    boots = desk.device.boots
    with pytest.raises(FlowError) as failure:
        desk.together(APPLICATION_2, NET)
    assert failure.value.outcome is Outcome.UNSEEN
    assert failure.value.message.startswith("1.1.0 of image 0 runs; 2.1.0 of image 1 ")
    assert desk.device.boots == boots + 1
    assert desk.after_reset() == ("1.1.0", "2.1.0")


# -- health -----------------------------------------------------------------------------------------------------------


def check(problem: str | None, seen: list[OnTrial]) -> HealthCheck:
    async def ask(connection: Connection, image: OnTrial) -> str | None:
        seen.append(image)
        return problem

    return HealthCheck("heater", ask)


def test_two_images_are_watched_and_checked_once_and_confirmed() -> None:
    desk = Desk(confirms_other_images=True)
    seen: list[OnTrial] = []
    report = desk.together(APPLICATION_2, NET, checks=(check(None, seen),), soak_s=5.0)
    assert report.ending is Ending.CONFIRMED
    assert [(image.version, image.image) for image in seen] == [("1.1.0", 0)]
    done = [event.name for event in desk.events if isinstance(event, Stage) and event.finished]
    assert done[-4:] == ["prove", "soak", "check", "confirm"]
    assert report.plan.texts[-3:-1] == ("watch for 5 s that it stays up", "check that it is healthy: heater")
    assert desk.after_reset() == ("1.1.0", "2.1.0")


@pytest.mark.parametrize("rollback", [False, True])
def test_two_images_of_which_one_is_not_healthy_are_both_left_or_taken_back(rollback: bool) -> None:
    desk = Desk(confirms_other_images=True)
    with pytest.raises(FlowError) as failure:
        desk.together(APPLICATION_2, NET, checks=(check("it stays cold", []),), rollback=rollback)
    what = "1.1.0 of image 0 and 2.1.0 of image 1 are not healthy: heater: it stays cold; "
    if rollback:
        assert failure.value.message == what + "taken back: 1.0.0 of image 0 and 2.0.0 of image 1 run again"
        assert failure.value.outcome is Outcome.REVERTED
        assert desk.versions == ("1.0.0", "2.0.0")
    else:
        assert failure.value.message == what + "left unconfirmed: the next reset goes back to the old image"
        assert failure.value.outcome is Outcome.UNHEALTHY
        assert desk.versions == ("1.1.0", "2.1.0")
    assert desk.after_reset() == ("1.0.0", "2.0.0")
