"""Updates through a firmware loader: the plan as a table, and all of it on the simulated device, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.contracts import Connection, HealthCheck, OnTrial
from mcumgrx.errors import FlowError, LinkLost, Outcome, PlanRefused
from mcumgrx.events import Bytes, Event, Note, Stage, StageName
from mcumgrx.flows import INSTALLER_FIRST, DeviceState, DfuPolicy, Ending, Mode, Plan, Report, make_plan, update
from mcumgrx.flows.device_state import UNLISTED
from mcumgrx.flows.loader import LOADER_NAME, loader_name
from mcumgrx.flows.plan import (
    Check,
    EnterLoader,
    Erase,
    Install,
    NameLoader,
    Prove,
    Reset,
    Soak,
    Step,
    Upload,
    UploadInstaller,
)
from mcumgrx.flows.verdict import Finding, Target, verdict
from mcumgrx.mcuboot import Image, parse_image
from mcumgrx.messages.standard import Bootloader, BootloaderMode, ImageState, Slot, SlotInfo
from mcumgrx.protocol.header import Op
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.bootloader import Mode as BootMode
from mcumgrx.sim.device import ALL_GROUPS, DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image, build_installer
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run

pytestmark = pytest.mark.codec

OLD = build_image("1.0.0", payload_size=8192)
NEW = build_image("1.1.0", payload_size=12288)
LOADER = build_image("0.1.0", payload_size=2000)
NEXT_LOADER = build_image("0.2.0", payload_size=2500)
INSTALLER = build_installer("2.0.0", NEXT_LOADER)
CONFIG = DeviceConfig(slot_size=64 * 1024, loader_size=16 * 1024, buf_size=1024, mode=BootMode.FIRMWARE_LOADER)

# -- the plan ---------------------------------------------------------------------------------------------------------

FILE, OLD_FILE, INSTALLING = parse_image(NEW), parse_image(OLD), parse_image(INSTALLER)
RUNS = Slot(0, 1, "0.1.0", parse_image(LOADER).hash, bootable=True, active=True, confirmed=True)


def held(image: Image, *, active: bool = False) -> Slot:
    return Slot(0, 0, str(image.version), image.hash, bootable=True, active=active, confirmed=active)


def listed(*slots: Slot) -> ImageState:
    return ImageState(slots, split_status=0)


STATES = {
    "application, no list": UNLISTED,
    "application, older": listed(held(OLD_FILE, active=True)),
    "application, the file": listed(held(FILE, active=True)),
    "loader, no application": listed(RUNS),
    "loader, older": listed(held(OLD_FILE), RUNS),
    "loader, the file": listed(held(FILE), RUNS),
    "loader, the installer": listed(held(INSTALLING), RUNS),
}

# N name the loader, L enter it, I upload the installer, i let it run, E erase, U upload, R reset, P prove, - nothing,
# ! refused. Columns: the file in each mode that starts it, uploaded only, after a clean start, the installer and the
# file, the installer alone uploaded only, the installer alone.
PLANS = """
    application, no list      NLURP   NLU   NLEURP   NLIiURP   NLU   !
    application, older        NLURP   NLU   NLEURP   NLIiURP   NLU   !
    application, the file     -       -     -        NLIiURP   NLU   !
    loader, no application    URP     U     EURP     IiURP     U     !
    loader, older             URP     U     EURP     IiURP     U     !
    loader, the file          RP      -     EURP     IiURP     U     !
    loader, the installer     URP     U     EURP     iURP      -     !
"""
COLUMNS: dict[str, tuple[Image, Image | None, dict[str, Any]]] = {
    "file": (FILE, None, {}),
    "upload only": (FILE, None, {"mode": Mode.UPLOAD_ONLY}),
    "clean start": (FILE, None, {"erase": True}),
    "both": (FILE, INSTALLING, {}),
    "installer, upload only": (INSTALLING, None, {"mode": Mode.UPLOAD_ONLY}),
    "installer": (INSTALLING, None, {}),
}
CELLS = [
    pytest.param(line[:26].strip(), column, expected, id=f"{line[:26].strip()}-{column}")
    for line in (line[4:] for line in PLANS.strip("\n").splitlines() if line.strip())
    for column, expected in zip(COLUMNS, line[26:].split(), strict=True)
]
LETTERS: dict[type[Step], str] = {
    NameLoader: "N",
    EnterLoader: "L",
    UploadInstaller: "I",
    Install: "i",
    Erase: "E",
    Upload: "U",
    Reset: "R",
    Prove: "P",
    Soak: "s",
    Check: "c",
}


def letters(plan: Plan) -> str:
    return "".join(LETTERS[type(step)] for step in plan.steps) or "-"


def state(images: ImageState, **more: Any) -> DeviceState:
    told = {"loader": "FL_1", **more}
    return DeviceState(images, bootloader=Bootloader("MCUboot", BootloaderMode.FIRMWARE_LOADER), **told)


@pytest.mark.parametrize(("situation", "column", "expected"), CELLS)
def test_every_situation(situation: str, column: str, expected: str) -> None:
    image, installer, policy = COLUMNS[column]
    modes = [policy["mode"]] if "mode" in policy else [mode for mode in Mode if mode is not Mode.UPLOAD_ONLY]
    for mode in modes:
        made = state(STATES[situation])
        wanted = DfuPolicy(**{**policy, "mode": mode})
        if expected == "!":
            with pytest.raises(PlanRefused, match="leaves the device without an application") as refusal:
                make_plan(image, made, wanted, installer=installer)
            assert "name both files" in (refusal.value.hint or "")
            continue
        plan = make_plan(image, made, wanted, installer=installer)
        assert letters(plan) == expected
        assert bool(plan.no_way_back) == ("U" in expected or "i" in expected)
        if plan.steps and mode is Mode.UPLOAD_ONLY:
            assert "the device stays in its firmware loader until it is reset" in plan.warnings
        assert plan.steps or plan.notes
        assert json.loads(json.dumps(plan.as_dict()))["slot"] == 0


def test_a_link_that_needs_no_name_gives_none() -> None:
    plan = make_plan(FILE, state(UNLISTED, loader=None), DfuPolicy(), installer=INSTALLING)
    assert letters(plan) == "LIiURP"
    assert plan.texts[0] == "reset the device into its firmware loader"


def test_the_steps_in_words() -> None:
    plan = make_plan(FILE, state(UNLISTED), DfuPolicy(), installer=INSTALLING)
    assert plan.texts == (
        "name the firmware loader FL_1, if the application takes that",
        "reset the device into its firmware loader, and find it there as FL_1",
        f"upload the installer 2.0.0 ({len(INSTALLER):,} bytes) over the application",
        "reset the device, so that the installer 2.0.0 runs, and find the firmware loader again as nRF_BM_MCUmgr",
        f"upload 1.1.0 ({len(NEW):,} bytes) to slot 0",
        "reset the device and wait for it to return",
        "prove that 1.1.0 runs",
    )
    assert plan.from_version is None


def test_the_name_is_the_same_each_time_and_short_enough() -> None:
    assert loader_name("ble:Widget") == loader_name("ble:Widget") != loader_name("ble:Gadget")
    assert len(loader_name("ble:" + "x" * 100).encode()) <= 16


@pytest.mark.parametrize(
    ("images", "policy", "installer", "reason"),
    [
        (UNLISTED, {"rollback": True, "soak_s": 1.0}, None, "--rollback cannot be kept"),
        (listed(held(FILE), RUNS), {"upgrade_only": True}, None, "not newer than 1.1.0"),
        (UNLISTED, {"image": 1}, None, "no image 1"),
        (UNLISTED, {"mode": Mode.UPLOAD_ONLY}, INSTALLING, "only once that has run"),
        (UNLISTED, {"board": "nrf54l15dk"}, None, "does not say which board"),
    ],
)
def test_what_is_refused(images: ImageState, policy: dict[str, Any], installer: Image | None, reason: str) -> None:
    with pytest.raises(PlanRefused, match=reason) as refusal:
        make_plan(FILE, state(images), DfuPolicy(**policy), installer=installer)
    assert refusal.value.hint


def test_two_installers_are_refused() -> None:
    with pytest.raises(PlanRefused, match="both files are installers"):
        make_plan(INSTALLING, state(UNLISTED), DfuPolicy(), installer=INSTALLING)


@pytest.mark.parametrize("which", ["file", "installer"])
def test_what_does_not_fit_is_refused(which: str) -> None:
    size = min(FILE.size, INSTALLING.size) - 1 if which == "installer" else FILE.size - 1
    slots = (SlotInfo(0, 0, size), SlotInfo(0, 1, 65536))
    with pytest.raises(PlanRefused, match="does not fit"):
        make_plan(FILE, state(listed(RUNS), slots=slots), DfuPolicy(), installer=INSTALLING)


@pytest.mark.parametrize("mode", [BootloaderMode.SWAP_MOVE, BootloaderMode.UNKNOWN, BootloaderMode.OVERWRITE])
def test_an_installer_is_for_devices_with_a_firmware_loader(mode: int) -> None:
    other = DeviceState(listed(held(OLD_FILE, active=True)), bootloader=Bootloader("MCUboot", mode))
    with pytest.raises(PlanRefused, match="this bootloader has none"):
        make_plan(FILE, other, DfuPolicy(), installer=INSTALLING)


# -- executed ---------------------------------------------------------------------------------------------------------

LINKS = {
    "ideal": LinkModel.ideal(),
    "ble": LinkModel.ble(),
    "uart": LinkModel.uart(),
    "raw uart": LinkModel.uart(raw=True),
    "usb": replace(LinkModel.uart(1_000_000), drops_on_reset=True, connect_s=0.2),
    "udp": LinkModel.datagram(),
}
ADDRESS = "sim:desk"


class Desk:
    """A device, a link to it, and what an update over that link tells."""

    def __init__(
        self, model: LinkModel | None = None, faults: Faults | None = None, *, config: DeviceConfig = CONFIG
    ) -> None:
        self.device = SimulatedDevice(config, name="desk")
        self.device.install(OLD)
        self.device.install(LOADER, slot=1)
        self.faults = faults if faults is not None else Faults()
        self.model = model
        self.events: list[Event] = []
        self.plans: list[Plan] = []

    async def update(
        self,
        image: bytes = NEW,
        installer: bytes | None = None,
        *,
        hear: Callable[[Event], None] | None = None,
        **policy: Any,
    ) -> Report:
        # Each with a transport of its own, as each command has one.
        transport = SimulatedTransport(self.device, self.model, faults=self.faults)
        session = SessionDevice(Address.parse(ADDRESS), transport, default_registry())

        def told(event: Event) -> None:
            self.events.append(event)
            if hear is not None:
                hear(event)

        return await update(
            session,
            {0: parse_image(image), **({} if installer is None else {INSTALLER_FIRST: parse_image(installer)})},
            DfuPolicy(**policy),
            told,
            on_plan=self.planned,
        )

    def run(self, image: bytes = NEW, installer: bytes | None = None, **policy: Any) -> Report:
        return run(self.update(image, installer, **policy))

    def fails(self, image: bytes = NEW, installer: bytes | None = None, **policy: Any) -> FlowError:
        with pytest.raises(FlowError) as failure:
            self.run(image, installer, **policy)
        return failure.value

    async def planned(self, plan: Plan) -> bool:
        self.plans.append(plan)
        return True

    @property
    def version(self) -> str:
        self.device.settle()
        assert self.device.boot_result is not None
        return str(self.device.boot_result.version)

    @property
    def stages(self) -> list[str]:
        return [event.name.value for event in self.events if isinstance(event, Stage) and event.finished]

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]

    def results(self, name: StageName) -> list[str]:
        stages = [event for event in self.events if isinstance(event, Stage) and event.finished]
        return [stage.text for stage in stages if stage.name is name]


@pytest.fixture(params=LINKS)
def link(request: pytest.FixtureRequest) -> LinkModel:
    return LINKS[request.param]


@pytest.mark.parametrize("lists", [False, True])
def test_an_application_is_brought_over_every_link(link: LinkModel, lists: bool) -> None:
    desk = Desk(link, config=replace(CONFIG, application_lists=lists))
    report = desk.run()
    assert (desk.version, desk.device.in_loader) == ("1.1.0", False)
    assert report.ending is (Ending.CONFIRMED if lists else Ending.ANSWERS)
    named = ["enter"] if link.by_name else []
    stages = ["connect", "read", "plan", *named, "reset", "enter", "upload", "reset", "return", "prove"]
    assert desk.stages == stages
    if not lists:
        assert report.summary == (
            "1.1.0 runs: the application answers, and its slot holds no other; it lists no images itself"
        )
        assert desk.results(StageName.PROVE) == [
            "the application answers, and no other than 1.1.0 can run; it lists no images itself"
        ]
    assert (report.resets, report.bytes_sent) == (2, len(NEW))
    name = loader_name(ADDRESS)
    if link.by_name:
        assert desk.results(StageName.ENTER)[0] == f"the firmware loader is to be called {name}"
    assert desk.results(StageName.ENTER)[-1] == "the firmware loader 0.1.0 answers; slot 0 holds 1.0.0"
    # Once more: what the application lists is known to run already.
    again = desk.run()
    assert again.ending is (Ending.NOTHING_TO_DO if lists else Ending.ANSWERS)
    if not lists:
        assert again.bytes_sent == 0
        assert "1.1.0 is already in slot 0: no upload" in desk.notes


def test_an_installer_and_the_application_after_it(link: LinkModel) -> None:
    desk = Desk(link)
    report = desk.run(installer=INSTALLER)
    assert (desk.version, desk.device.in_loader) == ("1.1.0", False)
    assert report.ending is Ending.ANSWERS
    assert "the installer has gone, and the firmware loader 0.2.0 answers (it was 0.1.0)" in desk.results(
        StageName.RETURN
    )
    assert report.resets == 3
    desk.device.reset(1e6)
    assert desk.version == "1.1.0"


def test_an_installer_that_brings_nothing_new_is_told() -> None:
    desk = Desk()
    desk.run(installer=build_installer("2.0.0", LOADER))
    assert "the installer has gone, and the firmware loader 0.1.0 answers (as before)" in desk.results(StageName.RETURN)
    assert desk.version == "1.1.0"


def test_an_application_without_settings_leaves_the_loader_its_own_name() -> None:
    groups = tuple(group for group in ALL_GROUPS if group != 3)
    desk = Desk(LinkModel.ble(), config=replace(CONFIG, groups=groups))
    assert desk.run().ending is Ending.ANSWERS
    (named, _) = desk.results(StageName.ENTER)
    assert named.startswith("the firmware loader could not be named (")
    assert named.endswith(f"so it is looked for as {LOADER_NAME}")


async def cancelled_at(desk: Desk, share: float, **options: Any) -> None:
    """An update that Ctrl-C ends when so much of the file has arrived."""
    task: asyncio.Future[Report]

    def hear(event: Event) -> None:
        if isinstance(event, Bytes) and event.done > share * event.total:
            task.cancel()

    task = asyncio.ensure_future(desk.update(hear=hear, **options))
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_run_that_is_interrupted_is_gone_on_with_by_the_same_command(link: LinkModel) -> None:
    """Over Bluetooth LE the loader is found by the name that the first run has given it."""
    desk = Desk(link)

    async def main() -> Report:
        await cancelled_at(desk, 0.4)
        assert any("waits in its firmware loader" in note for note in desk.notes)
        return await desk.update()

    report = run(main())
    assert (desk.version, report.ending) == ("1.1.0", Ending.ANSWERS)
    if link is LINKS["ideal"]:  # all of it had arrived
        assert letters(desk.plans[1]) == "RP"
        return
    assert letters(desk.plans[1]) == "URP"
    assert 0 < report.bytes_sent < len(NEW), "resumed"
    assert "its firmware loader answers; nothing is in slot 0" in desk.results(StageName.READ)


def test_an_upload_that_a_reset_cuts_off_leaves_a_loader_that_takes_it_anew(link: LinkModel) -> None:
    desk = Desk(link)

    async def main() -> Report:
        await cancelled_at(desk, 0.4)
        desk.device.reset(asyncio.get_running_loop().time())
        return await desk.update()

    assert run(main()).ending is Ending.ANSWERS
    assert desk.version == "1.1.0"


def is_chunk(number: int, message: bytes) -> bool:
    return message[0] & 7 == Op.WRITE and (message[5], message[7]) == (1, 1)


def test_lost_links_are_opened_again_in_the_loader(link: LinkModel) -> None:
    if not link.drops_on_reset:
        pytest.skip("such a link cannot be lost")
    chunks = 0

    def cut(number: int, message: bytes) -> bool:
        nonlocal chunks
        chunks += is_chunk(number, message)
        return is_chunk(number, message) and chunks in (3, 6)

    desk = Desk(link, Faults(cut_at_request=cut))
    report = desk.run()
    assert (desk.version, report.ending, report.reconnects) == ("1.1.0", Ending.ANSWERS, 2)


def test_an_image_that_the_bootloader_refuses_leaves_the_device_in_its_loader(link: LinkModel) -> None:
    desk = Desk(link)
    desk.device.bootloader.verify = lambda image: str(image.version) != "1.1.0"
    failure = desk.fails()
    assert failure.outcome is Outcome.REJECTED
    assert failure.message == (
        "the bootloader does not start 1.1.0: the firmware loader answers, and 1.1.0 is in slot 0"
    )
    assert desk.device.in_loader
    third = build_image("1.2.0", payload_size=9000)
    assert desk.run(third).ending is Ending.ANSWERS
    assert desk.version == "1.2.0"


def test_an_installer_that_the_bootloader_refuses() -> None:
    desk = Desk()
    desk.device.bootloader.verify = lambda image: str(image.version) != "2.0.0"
    failure = desk.fails(installer=INSTALLER)
    assert (failure.outcome, desk.device.in_loader) == (Outcome.REJECTED, True)
    assert "does not start the installer 2.0.0" in failure.message


def test_an_installer_alone_that_was_only_uploaded_is_gone_on_with() -> None:
    desk = Desk()
    assert desk.run(INSTALLER, mode=Mode.UPLOAD_ONLY).ending is Ending.UPLOADED
    assert desk.device.in_loader
    report = desk.run(installer=INSTALLER)
    assert (letters(desk.plans[1]), desk.version) == ("iURP", "1.1.0")
    assert report.bytes_sent == len(NEW)


def test_an_unmarked_installer_is_seen_by_what_is_left() -> None:
    failure = Desk().fails(build_installer("2.0.0", NEXT_LOADER, marked=False))
    assert failure.outcome is Outcome.REJECTED
    assert "2.0.0 does not run, and is gone from its slot" in failure.message
    assert "the application has to follow" in (failure.hint or "")


def test_what_the_loader_shows_to_be_impossible_is_refused_there_and_the_application_comes_back(
    link: LinkModel,
) -> None:
    desk = Desk(link)
    with pytest.raises(PlanRefused, match="does not fit") as refusal:
        desk.run(build_image("1.1.0", payload_size=70_000))
    assert "nothing was changed, and the device was reset to its application" in refusal.value.message
    assert (desk.version, desk.device.in_loader) == ("1.0.0", False)
    with pytest.raises(PlanRefused, match=r"0\.9\.0 is not newer than 1\.0\.0"):
        desk.run(build_image("0.9.0", payload_size=4000), upgrade_only=True)
    assert (desk.version, desk.device.in_loader) == ("1.0.0", False)


def test_a_bootloader_that_knows_no_boot_mode_changes_nothing() -> None:
    desk = Desk()
    desk.device.install(bytes(32), slot=1)  # no loader
    failure = desk.fails()
    assert "the application answers again after the reset, and not its firmware loader" in failure.message
    assert desk.version == "1.0.0"


def test_what_only_the_loader_shows_is_told_before_it_is_done() -> None:
    desk = Desk()
    assert desk.run(build_image("0.9.0", payload_size=5000)).ending is Ending.ANSWERS
    assert "this is a downgrade, from 1.0.0 to 0.9.0" in desk.notes
    assert len(desk.notes) == len(set(desk.notes)), "nothing is told twice"


def test_uploaded_only_it_stays_in_the_loader() -> None:
    desk = Desk()
    assert desk.run(mode=Mode.UPLOAD_ONLY).ending is Ending.UPLOADED
    assert desk.device.in_loader
    desk.device.reset(1e6)
    assert desk.version == "1.1.0"


def check(said: str | None) -> HealthCheck:
    async def ask(connection: Connection, facts: OnTrial) -> str | None:
        assert facts.version == "1.1.0"
        return said

    return HealthCheck("pulse", ask)


def test_a_healthy_application_ends_as_one_that_answers(link: LinkModel) -> None:
    desk = Desk(link)
    assert desk.run(soak_s=5.0, checks=(check(None),)).ending is Ending.ANSWERS
    assert letters(desk.plans[0]).endswith("RPsc")
    assert desk.results(StageName.CHECK) == ["pulse: healthy"]


def test_an_unhealthy_application_stays_and_is_told() -> None:
    desk = Desk()
    failure = desk.fails(checks=(check("no pulse"),))
    assert failure.outcome is Outcome.UNHEALTHY
    assert failure.message == "1.1.0 is not healthy: pulse: no pulse; already confirmed, so that no reset goes back"


def test_an_interrupted_soak_says_what_stays() -> None:
    desk = Desk()

    async def main() -> None:
        task = asyncio.ensure_future(desk.update(soak_s=60.0))
        await asyncio.sleep(30.0)
        assert "prove" in desk.stages
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert desk.notes[-1] == "interrupted before 1.1.0 was seen to be healthy: it stays"
    assert desk.version == "1.1.0"


@pytest.mark.parametrize(
    ("after", "finding", "outcome", "text"),
    [
        (listed(held(FILE, active=True)), Finding.RUNS, Outcome.REVERTED, ""),
        (listed(held(FILE), RUNS), Finding.WAITING, Outcome.REJECTED, "the bootloader does not start 1.1.0"),
        (listed(RUNS), Finding.OVER, Outcome.REJECTED, "1.1.0 does not run, and is gone from its slot"),
        (UNLISTED, Finding.COMING, Outcome.OTHER_IMAGE, "nothing known runs"),
    ],
)
def test_what_a_list_after_the_reset_means(after: ImageState, finding: Finding, outcome: Outcome, text: str) -> None:
    told = verdict(Target(FILE, loader=True), listed(held(FILE), RUNS), after, held(OLD_FILE))
    assert told.finding is finding
    if text:
        assert (told.outcome, told.text[: len(text)]) == (outcome, text)
        assert told.hint


def test_an_application_that_crashes_is_no_sign_of_life() -> None:
    desk = Desk()
    failure = desk.fails(build_image("1.1.0", payload_size=5000, health="crash"), boot_timeout_s=20.0)
    assert failure.outcome is Outcome.NO_RETURN


def test_a_dry_run_changes_nothing() -> None:
    desk = Desk()

    async def no(plan: Plan) -> bool:
        return False

    desk.planned = no  # type: ignore[method-assign]
    assert desk.run().ending is Ending.NOT_STARTED
    assert (desk.device.boots, desk.version) == (1, "1.0.0")


def test_without_reconnects_a_lost_link_is_told() -> None:
    cut = Faults(
        cut_at_request=lambda number, message: message[0] & 7 == Op.WRITE and (message[5], message[7]) == (1, 1)
    )
    with pytest.raises(LinkLost) as failure:
        Desk(faults=cut).run(reconnects=0)
    assert "run the same command again" in (failure.value.hint or "")
