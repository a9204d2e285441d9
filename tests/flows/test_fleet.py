"""Updates of many devices: one hundred of which fourteen are bad, each in its own way; order, limits and stops."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.errors import DeviceNotFound, Exit, Outcome
from mcumgrx.events import Bytes, DeviceText, Event, Note, Progress, Stage
from mcumgrx.flows import DfuPolicy, Ending, Mode, Report
from mcumgrx.flows.fleet import (
    DeviceBegins,
    DeviceEnds,
    DeviceEvent,
    DevicePlanned,
    FleetPlan,
    FleetPolicy,
    FleetReport,
    Gone,
    Here,
    Member,
    Task,
    Verdict,
    update_fleet,
)
from mcumgrx.flows.policy import InvalidPolicy
from mcumgrx.flows.throttle import Throttled
from mcumgrx.mcuboot import parse_image
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.bootloader import Mode as BootMode
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, SimulatedTransport
from mcumgrx.sim.loop import run

from ..support.simulated import virtual

OLD = build_image("1.0.0", payload_size=2000)
NEW = build_image("1.1.0", payload_size=12_000)
IMAGE = parse_image(NEW)

pytestmark = pytest.mark.filterwarnings("ignore:coroutine")


def config(**changes: Any) -> DeviceConfig:
    return DeviceConfig(**{"slot_size": 32 * 1024, "buf_size": 1024, "boot_s": 1.0} | changes)


class Board:
    """A simulated device with the session of its own."""

    def __init__(
        self,
        number: int,
        *,
        runs: bytes = OLD,
        link: str = "sim",
        faults: Faults | None = None,
        transport: type[SimulatedTransport] = SimulatedTransport,
        **changes: Any,
    ) -> None:
        self.device = SimulatedDevice(config(**changes), name=f"unit-{number}")
        self.device.install(runs)
        self.address = f"{link}:unit-{number}"
        reached = transport(self.device, faults=faults)
        self.session = SessionDevice(Address(link, f"unit-{number}"), reached, default_registry(), timeout_s=1.0)

    @property
    def runs(self) -> str:
        self.device.settle()
        return str(self.device.boot_results[0].version)


class Absent(SimulatedTransport):
    async def open(self, timeout_s: float) -> None:
        raise DeviceNotFound("nothing answers at this address")


class Noise(SimulatedTransport):
    """A hostile device: an answer that claims much and holds nothing that can be read."""

    async def receive(self) -> bytes:
        answer = await super().receive()
        return answer[:8] + b"\xbf\x64list" + b"\x9f" * (len(answer) + 500)


class Huge(SimulatedTransport):
    """A hostile device: its answers say that they are as large as they can be, and hold lists in lists in lists."""

    async def receive(self) -> bytes:
        answer = await super().receive()
        return answer[:2] + b"\xff\xff" + answer[4:8] + b"\x9f" * 0xFFFF


class Chatter(SimulatedTransport):
    """A hostile device: a text without end, and no answer."""

    async def receive(self) -> bytes:
        await asyncio.sleep(0.001)
        return b"endless text without a line's end " * 1000


class Leaves(SimulatedTransport):
    """A broken plugin: it ends the program, as it thinks."""

    async def receive(self) -> bytes:
        await super().receive()
        sys.exit("plugin gives up")


def all_after(first: int) -> Callable[[int, bytes], bool]:
    return lambda number, message: number >= first


BAD: dict[str, tuple[Callable[[int], Board], Exit, Outcome | None]] = {
    "crashes, and is reverted": (lambda n: Board(n, unhealthy=frozenset({"1.1.0"})), Exit.REVERTED, Outcome.REVERTED),
    "is not there": (lambda n: Board(n, transport=Absent), Exit.NO_LINK, None),
    "never answers": (lambda n: Board(n, faults=Faults(drop_replies=all_after(1))), Exit.NO_ANSWER, None),
    "is silent in the middle": (lambda n: Board(n, faults=Faults(drop_replies=all_after(8))), Exit.NO_ANSWER, None),
    "has too small a slot": (lambda n: Board(n, slot_size=12 * 1024), Exit.PLAN_REFUSED, None),
    "has one slot": (lambda n: Board(n, mode=BootMode.SINGLE_SLOT), Exit.PLAN_REFUSED, None),
    "runs a newer one": (lambda n: Board(n, runs=build_image("2.0.0", payload_size=2000)), Exit.PLAN_REFUSED, None),
    "runs another on trial": (lambda n: on_trial(n), Exit.PLAN_REFUSED, None),
    "has no group for images": (lambda n: Board(n, groups=(0,)), Exit.DEVICE_REFUSED, None),
    "never takes the image": (lambda n: refusing(n), Exit.REVERTED, Outcome.REJECTED),
    "is hostile": (lambda n: Board(n, transport=Noise), Exit.NO_ANSWER, None),
    "answers at length": (lambda n: Board(n, transport=Huge), Exit.NO_ANSWER, None),
    "talks without end": (lambda n: Board(n, transport=Chatter), Exit.NO_ANSWER, None),
    "has a broken plugin": (lambda n: Board(n, transport=Leaves), Exit.PLUGIN, None),
}


def on_trial(number: int) -> Board:
    board = Board(number, runs=OLD)
    board.device.install(build_image("1.0.5", payload_size=2000), slot=1)
    board.device.bootloader.set_pending()
    board.device.settle()
    return board


def refusing(number: int) -> Board:
    board = Board(number)
    board.device.bootloader.verify = lambda image: image.version != IMAGE.version
    return board


def fleet_of(boards: Sequence[Board], policy: DfuPolicy | None = None, **keywords: Any) -> FleetReport:
    return run(update_fleet([board.session for board in boards], IMAGE, policy or DfuPolicy(), **keywords))


def test_of_a_hundred_devices_fourteen_bad_ones_touch_no_other() -> None:
    bad = {7 * place + 3: name for place, name in enumerate(BAD)}
    boards = [BAD[bad[n]][0](n) if n in bad else Board(n) for n in range(100)]
    report = fleet_of(boards, DfuPolicy(upgrade_only=True))
    wrong = []
    for number, result in enumerate(report.results):
        if number not in bad:
            assert (result.verdict, boards[number].runs) == (Verdict.DONE, "1.1.0"), number
            continue
        _, code, outcome = BAD[bad[number]]
        if (result.exit, getattr(result.error, "outcome", None)) != (code, outcome):
            wrong.append((bad[number], result.exit, result.reason))
    assert not wrong, "\n".join(map(str, wrong))
    assert report.counts == {Verdict.DONE: 86, Verdict.FAILED: 14, Verdict.LEFT: 0, Verdict.UNKNOWN: 0}
    assert report.exit is Exit.FLEET
    for result in report.results:
        error = result.error
        while error is not None:  # whose frames would keep each device, its link and its transfer
            assert error.__traceback__ is None, result
            error = error.__cause__ or error.__context__


# -- order, limits, stops ----------------------------------------------------------------------------------------------


class Watched(Here):
    """Notes who is at work at the same time, and lets some fail."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.at_work: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.begun: list[str] = []

    async def run(self, member: Member, task: Task, tell: Progress) -> Report:
        if task.only_plan:
            return await super().run(member, task, tell)
        self.begun.append(member.address)
        for key in ("all", member.link):
            self.at_work[key] += 1
            self.most[key] = max(self.most[key], self.at_work[key])
        try:
            await asyncio.sleep(1)
            if member.address in self.failing:
                raise DeviceNotFound("it has been taken away")
            return await super().run(member, task, tell)
        finally:
            for key in ("all", member.link):
                self.at_work[key] -= 1


def test_a_shared_link_has_fewer_at_once_and_keeps_no_other_waiting() -> None:
    boards = [Board(n, link="ble" if n < 8 else "udp") for n in range(16)]
    watched = Watched()
    report = fleet_of(boards, executor=watched, fleet=FleetPolicy(jobs=6))
    assert report.exit is Exit.DONE
    assert (watched.most["all"], watched.most["ble"]) == (6, 3)
    assert watched.most["udp"] > 3
    assert [one.address for one in report.results] == [board.address for board in boards]


def test_the_rest_begins_when_the_first_are_proven() -> None:
    boards = [Board(n) for n in range(6)]
    watched = Watched()
    assert fleet_of(boards, executor=watched, fleet=FleetPolicy(canary=2)).exit is Exit.DONE
    events: list[Event] = []
    boards = [Board(n) for n in range(6)]
    report = fleet_of(boards, progress=events.append, fleet=FleetPolicy(canary=2))
    told = [(type(event), event.address) for event in events if isinstance(event, DeviceBegins | DeviceEnds)]
    third = told.index((DeviceBegins, "sim:unit-2"))
    assert {(DeviceEnds, "sim:unit-0"), (DeviceEnds, "sim:unit-1")} <= set(told[:third])
    assert report.counts[Verdict.DONE] == 6


def test_nothing_more_is_begun_where_one_of_the_first_fails() -> None:
    boards = [Board(n) for n in range(6)]
    report = fleet_of(boards, executor=Watched("sim:unit-1"), fleet=FleetPolicy(canary=2))
    assert report.counts == {Verdict.DONE: 1, Verdict.FAILED: 1, Verdict.LEFT: 4, Verdict.UNKNOWN: 0}
    assert report.stopped == "of the 2 that go first 1 failed"
    assert [board.runs for board in boards] == ["1.1.0", *["1.0.0"] * 5]
    assert (report.exit, report.results[5].reason) == (Exit.FLEET, "it was not begun")


def test_a_device_with_nothing_to_do_is_not_one_of_the_first() -> None:
    boards = [Board(0, runs=NEW), *(Board(n) for n in range(1, 4))]
    watched = Watched("sim:unit-1")
    report = fleet_of(boards, executor=watched, fleet=FleetPolicy(canary=1))
    assert (watched.begun, report.counts[Verdict.LEFT]) == (["sim:unit-1"], 2)
    assert report.results[0].report is not None
    assert report.results[0].report.ending is Ending.NOTHING_TO_DO


@pytest.mark.parametrize(("limit", "begun"), [(0, 1), (1, 2), (None, 5)])
def test_so_many_failures_stop_the_rest(limit: int | None, begun: int) -> None:
    boards = [Board(n) for n in range(5)]
    watched = Watched("sim:unit-0", "sim:unit-1")
    report = fleet_of(boards, executor=watched, fleet=FleetPolicy(jobs=1, max_failures=limit))
    assert len(watched.begun) == begun
    assert (report.stopped is None) == (begun == 5)


def test_devices_without_a_plan_count_as_failures() -> None:
    boards = [Board(0, transport=Absent), *(Board(n) for n in range(1, 4))]
    watched = Watched("sim:unit-1")
    report = fleet_of(boards, executor=watched, fleet=FleetPolicy(jobs=1, max_failures=1))
    assert (watched.begun, report.stopped) == (["sim:unit-1"], "2 devices have failed")


def test_an_ending_that_is_feared_stops_the_rest() -> None:
    boards = [Board(0, unhealthy=frozenset({"1.1.0"})), *(Board(n) for n in range(1, 4))]
    policy = FleetPolicy(jobs=1, stop_on=frozenset({Exit.REVERTED}))
    report = fleet_of(boards, fleet=policy)
    assert report.stopped == "sim:unit-0 has ended with reverted"
    assert report.counts[Verdict.LEFT] == 3


# -- plans first ---------------------------------------------------------------------------------------------------


def test_the_plans_of_all_are_there_before_the_first_byte_is_sent() -> None:
    boards = [Board(n) for n in range(3)] + [Board(3, runs=NEW), Board(4, transport=Absent)]
    seen: list[FleetPlan] = []
    events: list[Event] = []

    async def decline(plans: FleetPlan) -> bool:
        seen.append(plans)
        return False

    report = fleet_of(boards, on_plans=decline, progress=events.append)
    assert [len(seen[0].todo), len(seen[0].results)] == [3, 5]
    assert [one.verdict for one in report.results] == [Verdict.LEFT] * 3 + [Verdict.DONE, Verdict.FAILED]
    assert [board.runs for board in boards] == ["1.0.0"] * 3 + ["1.1.0", "1.0.0"]
    assert not any(isinstance(event, DeviceBegins) for event in events)
    assert sum(isinstance(event, DevicePlanned) for event in events) == 5


def test_what_nobody_has_agreed_to_is_not_done() -> None:
    """A device that overwrites, put in place of one that swaps after the plans were shown."""
    board = Board(0)
    other = SimulatedTransport(Board(0, mode=BootMode.OVERWRITE).device)

    async def agree(plans: FleetPlan) -> bool:
        assert plans.no_way_back == ()
        board.session._transport = other
        return True

    report = fleet_of([board], on_plans=agree)
    assert report.results[0].exit is Exit.PLAN_REFUSED
    assert "has changed since its plan was agreed to" in report.results[0].reason


def test_what_has_no_way_back_is_counted_for_the_question() -> None:
    boards = [Board(0), *(Board(n, mode=BootMode.OVERWRITE) for n in (1, 2))]
    asked: list[tuple[str, ...]] = []

    async def agree(plans: FleetPlan) -> bool:
        asked.append(plans.no_way_back)
        return True

    assert fleet_of(boards, on_plans=agree).exit is Exit.DONE
    assert asked == [("this bootloader overwrites the old image: there is no way back (2 of 3 devices)",)]


# -- who carries it out --------------------------------------------------------------------------------------------


class Dying(Here):
    async def run(self, member: Member, task: Task, tell: Progress) -> Report:
        if not task.only_plan and member.address == "sim:unit-1":
            raise Gone("the worker that had the device has gone", hint="read it again")
        return await super().run(member, task, tell)


def test_a_device_whose_executor_has_gone_is_unknown() -> None:
    boards = [Board(n) for n in range(3)]
    report = fleet_of(boards, executor=Dying())
    assert [one.verdict for one in report.results] == [Verdict.DONE, Verdict.UNKNOWN, Verdict.DONE]
    assert fleet_of(boards).exit is Exit.DONE  # it is read again, and brought on


def test_a_cancelled_fleet_closes_all_devices() -> None:
    boards = [Board(n) for n in range(4)]

    async def main() -> None:
        begun = asyncio.Event()

        def tell(event: Event) -> None:
            if isinstance(event, DeviceEvent) and isinstance(event.event, Stage) and event.event.name == "upload":
                begun.set()

        updating = asyncio.create_task(update_fleet([board.session for board in boards], IMAGE, progress=tell))
        await begun.wait()
        updating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await updating
        assert all(board.session._client is None for board in boards)

    run(main())
    assert fleet_of(boards, DfuPolicy(mode=Mode.TEST_AND_CONFIRM)).exit is Exit.DONE


@virtual
async def test_a_broken_listener_decides_nothing() -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("the terminal is gone")

    board = Board(0)
    assert (await update_fleet([board.session], IMAGE, progress=broken)).exit is Exit.DONE


def test_the_report_groups_reasons_and_names_devices() -> None:
    boards = [Board(n, transport=Absent if n in (1, 2) else SimulatedTransport) for n in range(4)]
    report = fleet_of(boards)
    assert list(report.reasons) == ["nothing answers at this address"]
    told = report.as_dict()
    assert (told["done"], told["failed"]) == (2, 2)
    assert told["reasons"] == [
        {"reason": "nothing answers at this address", "devices": ["sim:unit-1", "sim:unit-2"]},
    ]


def test_a_device_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="sim:unit-0 is twice in the fleet"):
        fleet_of([Board(0), Board(0)])


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"canary": -1}, {"max_failures": -1}, {"jobs_by_link": {"ble": 0}}])
def test_impossible_policies_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidPolicy):
        FleetPolicy(**wrong)


# -- elsewhere -----------------------------------------------------------------------------------------------------


class Elsewhere(Watched):
    """As if each place had boards of its own, with the same addresses."""

    def __init__(self, boards: dict[str, Board]) -> None:
        super().__init__()
        self.boards = boards

    async def run(self, member: Member, task: Task, tell: Progress) -> Report:
        assert member.at is not None
        there = Member(member.address, self.boards[member.name].session, member.at)
        return await super().run(there, task, tell)


def test_the_same_port_is_another_device_at_another_place_whose_radio_is_its_own() -> None:
    boards = {f"ble:unit-{n} @{place}": Board(n, link="ble") for place in ("a", "b") for n in range(4)}
    members = [Member(f"ble:unit-{n}", at=place) for place in ("a", "b") for n in range(4)]
    elsewhere = Elsewhere(boards)
    report = run(update_fleet(members, IMAGE, executor=elsewhere))
    assert [one.address for one in report.results] == list(boards)
    assert report.counts[Verdict.DONE] == 8
    assert elsewhere.most["ble"] == 6
    with pytest.raises(ValueError, match="ble:x @a is twice in the fleet"):
        run(update_fleet([Member("ble:x", at="a")] * 2, IMAGE))


def test_too_many_devices_without_a_plan_stop_all_the_others() -> None:
    boards = [Board(0, transport=Absent), Board(1, transport=Absent), Board(2)]
    report = fleet_of(boards, fleet=FleetPolicy(max_failures=1))
    assert (report.stopped, report.counts[Verdict.LEFT]) == ("2 devices have failed", 1)
    feared = fleet_of(boards, fleet=FleetPolicy(stop_on=frozenset({Exit.NO_LINK})))
    assert feared.stopped == "sim:unit-0 has ended with no-link"


# -- less of it ----------------------------------------------------------------------------------------------------


@virtual
async def test_noise_is_left_out_and_stages_are_not() -> None:
    told: list[Event] = []
    throttled = Throttled(told.append)
    for done in range(100):
        throttled(Bytes("upload", done, 100, 0.0))
    throttled(Bytes("upload", 100, 100, 0.0))
    assert [event.done for event in told if isinstance(event, Bytes)] == [0, 100]
    told.clear()
    for _ in range(1000):
        throttled(DeviceText("endless " * 1000))
    assert len(told) == 100
    assert all(isinstance(event, DeviceText) and len(event.text) == 501 for event in told)
    throttled(Stage("prove"))
    assert told[100:] == [Note("900 events of the device are left out here"), Stage("prove")]
    await asyncio.sleep(1)
    throttled(Note("again"))
    assert told[-1] == Note("again")
