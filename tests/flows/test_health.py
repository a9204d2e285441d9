"""What a new image has to stand before it is confirmed, on the simulated device, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mcumgrx.contracts import Connection, HealthCheck, ImageGroup, OnTrial, OsGroup, OutsideCheck
from mcumgrx.errors import DeviceError, FlowError, LinkLost, Outcome, PlanRefused, PluginError, UsageError
from mcumgrx.events import Event, Stage, StageName
from mcumgrx.flows import DeviceState, DfuPolicy, Ending, Mode, make_plan, update
from mcumgrx.flows.policy import InvalidPolicy
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import Bootloader, BootloaderMode
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import Op
from mcumgrx.sim.link import LinkModel
from mcumgrx.sim.loop import run

from .test_dfu import NEW, RESET, Desk, is_request
from .test_plan import OLD_HASH, listed, slot

IMAGE = parse_image(NEW)
ASKED = ("upload", "mark", "reset", "return", "prove")


def check(answer: Callable[[], Any], name: str = "heater") -> HealthCheck:
    """A check that does what `answer` does."""

    async def ask(connection: Connection, image: OnTrial) -> str | None:
        found: str | None = answer()
        return found

    return HealthCheck(name, ask)


HEALTHY = check(lambda: None)
COLD = check(lambda: "it stays cold")


def raising(error: BaseException) -> HealthCheck:
    def answer() -> str | None:
        raise error

    return check(answer)


def afterwards(desk: Desk) -> str:
    """What runs, and what runs after another reset."""
    return f"{desk.running} then {desk.after_reset()}"


# -- the plan ---------------------------------------------------------------------------------------------------------


def steps(mode: Mode = Mode.TEST_AND_CONFIRM, kind: int = BootloaderMode.SWAP_MOVE, **policy: Any) -> list[str]:
    state = DeviceState(listed(slot(0, "1.0.0", OLD_HASH, "ac")), bootloader=Bootloader(None, kind))
    return [step.name for step in make_plan(IMAGE, state, DfuPolicy(mode, **policy)).steps]


def test_it_is_watched_and_checked_once_it_runs_and_before_it_is_confirmed() -> None:
    gate = {"soak_s": 5.0, "checks": (HEALTHY, COLD)}
    assert steps(**gate) == ["upload", "mark", "reset", "prove", "soak", "check", "confirm"]
    assert steps(checks=(HEALTHY,)) == ["upload", "mark", "reset", "prove", "check", "confirm"]
    assert steps(Mode.TEST_ONLY, soak_s=1.0) == ["upload", "mark", "reset", "prove", "soak"]
    assert steps(Mode.CONFIRM_ONLY, soak_s=1.0) == ["upload", "mark", "reset", "prove", "soak"]
    assert steps(Mode.UPLOAD_ONLY, **gate) == ["upload"]
    state = DeviceState(listed(slot(0, "1.1.0", IMAGE.hash, "a"), slot(1, "1.0.0", OLD_HASH, "c")))
    plan = make_plan(IMAGE, state, DfuPolicy(**gate, rollback=True))  # type: ignore[arg-type]
    assert [step.text for step in plan.steps] == [
        "watch for 5 s that it stays up",
        "check that it is healthy: heater, heater",
        "confirm 1.1.0, so that it stays",
    ]
    assert "1.1.0 is taken back by a reset if it is not healthy" in plan.notes


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        (Mode.CONFIRM_ONLY, BootloaderMode.SWAP_MOVE),
        (Mode.TEST_AND_CONFIRM, BootloaderMode.OVERWRITE),
        (Mode.TEST_ONLY, BootloaderMode.OVERWRITE),
        (Mode.TEST_AND_CONFIRM, BootloaderMode.DIRECT_XIP),
    ],
)
def test_a_rollback_that_cannot_be_is_refused(mode: Mode, kind: int) -> None:
    with pytest.raises(PlanRefused, match="--rollback cannot be kept"):
        steps(mode, kind, checks=(HEALTHY,), rollback=True)
    assert steps(mode, kind, checks=(HEALTHY,))


@pytest.mark.parametrize("values", [{"rollback": True}, {"soak_s": -1.0}, {"check_timeout_s": 0.0}])
def test_policies_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidPolicy):
        DfuPolicy(**values)


# -- healthy ----------------------------------------------------------------------------------------------------------


def test_a_healthy_image_is_confirmed() -> None:
    desk = Desk()
    seen: list[OnTrial] = []

    async def ask(connection: Connection, image: OnTrial) -> str | None:
        seen.append(image)
        running = (await connection.group(ImageGroup).state()).active()
        assert running is not None
        assert not running.confirmed
        assert await connection.group(OsGroup).echo("well?") == "well?"
        return None

    report = desk.run(checks=(HealthCheck("acme", ask),), soak_s=30.0)
    assert report.ending is Ending.CONFIRMED
    assert desk.stages == ["connect", "read", "plan", *ASKED, "soak", "check", "confirm"]
    assert seen == [OnTrial("sim:desk", "1.1.0", IMAGE.hash)]
    assert desk.results(StageName.SOAK) == ["1.1.0 stayed up"]
    assert desk.results(StageName.CHECK) == ["acme: healthy"]
    soak = next(step for step in report.steps if step.name == "soak")
    assert 30 <= soak.elapsed_s < 31
    assert desk.after_reset() == "1.1.0"
    assert report.reconnects == 0


@pytest.mark.parametrize("model", [LinkModel.ideal(), LinkModel.uart(), LinkModel.ble()])
def test_a_check_from_outside_finds_the_link_free(model: LinkModel) -> None:
    desk = Desk(model=model)
    asked: list[str] = []

    async def ask(image: OnTrial) -> str | None:
        with pytest.raises(LinkLost):
            await desk.transport.send([bytes(8)])
        asked.append(image.address)
        return None

    report = desk.run(checks=(OutsideCheck("./check.sh", ask), HEALTHY))
    assert report.ending is Ending.CONFIRMED
    assert asked == ["sim:desk"]
    assert report.reconnects == 0  # nothing was lost
    assert desk.after_reset() == "1.1.0"


# -- not healthy ------------------------------------------------------------------------------------------------------


def test_an_unhealthy_image_is_left_unconfirmed() -> None:
    desk = Desk()
    failure = desk.fails(checks=(HEALTHY, COLD, raising(AssertionError("not reached"))))
    assert (failure.outcome, failure.exit, failure.stage) == (Outcome.UNHEALTHY, 10, "check")
    assert failure.message == (
        "1.1.0 is not healthy: heater: it stays cold; left unconfirmed: the next reset goes back to the old image"
    )
    assert desk.results(StageName.CHECK) == ["heater: healthy", "heater: it stays cold"]
    assert afterwards(desk) == "1.1.0 then 1.0.0"


def test_the_same_command_again_checks_it_again() -> None:
    desk = Desk()
    desk.fails(checks=(COLD,))
    desk.fails(checks=(COLD,))
    assert desk.run(checks=(HEALTHY,), soak_s=3.0).ending is Ending.CONFIRMED
    assert desk.after_reset() == "1.1.0"


@pytest.mark.parametrize("first", [False, True])
def test_an_unhealthy_image_is_taken_back(first: bool) -> None:
    desk = Desk()
    if first:  # and the update goes on in the middle
        desk.fails(checks=(COLD,))
    failure = desk.fails(checks=(COLD,), rollback=True)
    assert (failure.outcome, failure.exit) == (Outcome.REVERTED, 7)
    text = "1.1.0 is not healthy: heater: it stays cold; taken back: 1.0.0 runs again"
    assert failure.message == text
    assert desk.stages[-3:] == ["check", "reset", "return"]
    assert desk.results(StageName.RETURN)[-1] == "1.0.0 runs again, confirmed"
    assert afterwards(desk) == "1.0.0 then 1.0.0"


def test_a_device_that_does_not_come_back_from_it() -> None:
    desk = Desk()
    off: list[int] = []

    def gone(number: int, message: bytes) -> bool:
        if desk.stages[-1] == "check" and RESET(number, message):
            off.append(number)
        return bool(off) and number != off[0]

    desk.faults.drop_requests = gone
    failure = desk.fails(checks=(COLD,), rollback=True, boot_timeout_s=15)
    assert (failure.outcome, failure.exit) == (Outcome.NO_RETURN, 9)
    assert failure.message == (
        "1.1.0 is not healthy: heater: it stays cold; no sign of 1.0.0: the device was reset to go back to it, and it "
        "does not answer, 15 s after it"
    )


def test_a_reset_that_never_arrives_leaves_it_running() -> None:
    desk = Desk()
    desk.faults.drop_requests = lambda number, message: desk.stages[-1:] != ["mark"] and RESET(number, message)
    failure = desk.fails(checks=(COLD,), rollback=True)
    assert failure.message.endswith("after the reset 1.1.0 still runs, and not 1.0.0")
    assert (failure.outcome, failure.exit) == (Outcome.UNHEALTHY, 10)
    assert afterwards(desk) == "1.1.0 then 1.0.0"


def test_what_has_confirmed_itself_stays_and_that_is_said() -> None:
    desk = Desk()

    async def ask(connection: Connection, image: OnTrial) -> str | None:
        await connection.group(ImageGroup).confirm()
        return "it stays cold"

    failure = desk.fails(checks=(HealthCheck("heater", ask),), rollback=True)
    assert failure.outcome is Outcome.UNHEALTHY
    assert failure.message.endswith("; already confirmed, so that no reset goes back")
    assert afterwards(desk) == "1.1.0 then 1.1.0"


def test_an_image_that_crashes_while_it_is_checked_has_been_taken_back() -> None:
    desk = Desk()

    def crash() -> str:
        desk.device.reset(asyncio.get_running_loop().time())
        return "no answer"

    failure = desk.fails(checks=(check(crash),))
    assert (failure.outcome, failure.exit) == (Outcome.REVERTED, 7)
    assert failure.message.startswith("1.1.0 is not healthy: heater: no answer; 1.1.0 did not stay: 1.0.0 runs again")


# -- checks that fail themselves --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome", "text"),
    [
        (
            DeviceError("the device said no", group=None, rc=8, code=SmpError(8)),
            Outcome.UNHEALTHY,
            "the device said no",
        ),
        (KeyError("x"), Outcome.NOT_CONFIRMED, "the check itself failed: KeyError: 'x'"),
        (SystemExit(3), Outcome.NOT_CONFIRMED, "the check itself failed: SystemExit: 3"),
        (asyncio.CancelledError(), Outcome.NOT_CONFIRMED, "the check itself failed: CancelledError"),
        (PluginError("it lacks a part"), Outcome.NOT_CONFIRMED, "it lacks a part"),
        (UsageError("the command cannot be run"), Outcome.NOT_CONFIRMED, "the command cannot be run"),
    ],
)
@pytest.mark.parametrize("rollback", [False, True])
def test_a_check_that_raises(error: BaseException, outcome: Outcome, text: str, rollback: bool) -> None:
    desk = Desk()
    failure = desk.fails(checks=(raising(error),), rollback=rollback)
    assert text in failure.message
    assert failure.outcome is (Outcome.REVERTED if rollback else outcome)
    assert ("could not be checked" in failure.message) == (outcome is Outcome.NOT_CONFIRMED)
    assert afterwards(desk) == ("1.0.0 then 1.0.0" if rollback else "1.1.0 then 1.0.0")


@pytest.mark.parametrize("told", [True, False, 0, "", b"cold"])
def test_a_check_that_returns_what_nobody_understands(told: object) -> None:
    desk = Desk()
    failure = desk.fails(checks=(check(lambda: told),))
    assert failure.outcome is Outcome.NOT_CONFIRMED
    assert f"the check said {told!r}, neither None nor what is wrong" in failure.message


@pytest.mark.parametrize("outside", [False, True])
def test_a_check_that_hangs_is_over_after_its_time(outside: bool) -> None:
    desk = Desk()

    async def hang(*arguments: object) -> str | None:
        await asyncio.Event().wait()
        return None

    one = OutsideCheck("hang", hang) if outside else HealthCheck("hang", hang)
    failure = desk.fails(checks=(one,), check_timeout_s=7.0)
    assert (failure.outcome, failure.exit) == (Outcome.UNHEALTHY, 10)
    assert "hang: no result within 7 s" in failure.message
    assert desk.after_reset() == "1.0.0"


def test_a_lost_link_is_no_answer_and_the_check_is_asked_again() -> None:
    desk = Desk(model=LinkModel.ble())
    asked: list[int] = []

    async def ask(connection: Connection, image: OnTrial) -> str | None:
        asked.append(1)
        if len(asked) == 1:
            desk.transport.cut()
        await connection.group(OsGroup).echo("there?")
        return None

    assert desk.run(checks=(HealthCheck("acme", ask),)).ending is Ending.CONFIRMED
    assert len(asked) == 2


# -- the soak ---------------------------------------------------------------------------------------------------------


class Watched(Desk):
    """A device to which something happens some seconds into the soak."""

    def happens(self, after_s: float, act: Callable[[float], None], **policy: Any) -> Any:
        async def main() -> Any:
            loop = asyncio.get_running_loop()

            def listen(event: Event) -> None:
                self.events.append(event)
                if isinstance(event, Stage) and event.name is StageName.SOAK and not event.finished:
                    loop.call_later(after_s, lambda: act(loop.time()))

            return await update(self.session(), IMAGE, DfuPolicy(soak_s=30.0, **policy), listen)

        return run(main())


MODELS = {"ideal": LinkModel.ideal(), "uart": LinkModel.uart(), "ble": LinkModel.ble(), "udp": LinkModel.datagram()}


@pytest.mark.parametrize("how", ["reset", "crash"])
@pytest.mark.parametrize("rollback", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_a_device_that_restarts_meanwhile_has_gone_back(how: str, rollback: bool, model: str) -> None:
    desk = Watched(model=MODELS[model])
    act = desk.device.reset if how == "reset" else desk.device.crash
    with pytest.raises(FlowError) as failure:
        desk.happens(11.0, act, rollback=rollback)
    assert (failure.value.outcome, failure.value.exit) == (Outcome.REVERTED, 7)
    assert failure.value.message == "1.1.0 did not stay: 1.0.0 runs again"
    assert "confirm" not in desk.stages
    assert afterwards(desk) == "1.0.0 then 1.0.0"


def test_one_that_was_on_trial_before_the_run_goes_back_too() -> None:
    desk = Watched()
    desk.run(mode=Mode.TEST_ONLY)
    with pytest.raises(FlowError, match=r"1\.1\.0 did not stay: 1\.0\.0 runs again") as failure:
        desk.happens(11.0, desk.device.reset)
    assert failure.value.outcome is Outcome.REVERTED


def test_a_device_that_never_answers_again() -> None:
    desk = Watched(model=LinkModel.datagram())

    def silence(now: float) -> None:
        desk.faults.drop_requests = lambda number, message: True

    with pytest.raises(FlowError) as failure:
        desk.happens(11.0, silence, boot_timeout_s=20.0)
    assert (failure.value.outcome, failure.value.stage) == (Outcome.NO_RETURN, "soak")
    assert failure.value.message.startswith("1.1.0 did not stay up: ")
    assert "no answer for 5 s; waiting for the device, for up to 20 s" in desk.notes
    assert desk.after_reset() == "1.0.0"


def test_a_lost_link_is_no_restart() -> None:
    desk = Watched(model=LinkModel.ble())
    report = desk.happens(11.0, lambda now: desk.transport.cut())
    assert report.ending is Ending.CONFIRMED
    assert desk.results(StageName.SOAK) == ["1.1.0 stayed up"]
    assert any("waiting for the device" in note for note in desk.notes)


@pytest.mark.parametrize("model", ["uart", "ble"])
def test_the_restart_of_an_image_that_has_confirmed_itself_shows(model: str) -> None:
    desk = Watched(model=MODELS[model])

    def act(now: float) -> None:
        desk.device.bootloader.set_confirmed()
        desk.device.reset(now)

    with pytest.raises(FlowError) as failure:
        desk.happens(11.0, act)
    assert failure.value.outcome is Outcome.UNHEALTHY
    assert "restart" in failure.value.message
    assert failure.value.message.endswith("; already confirmed, so that no reset goes back")
    assert afterwards(desk) == "1.1.0 then 1.1.0"


# -- ended from outside -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [{"soak_s": 60.0}, {"checks": "hang"}])
def test_an_interrupted_check_leaves_it_unconfirmed_and_says_so(policy: dict[str, Any]) -> None:
    desk = Desk()

    async def hang(connection: Connection, image: OnTrial) -> str | None:
        await asyncio.Event().wait()
        return None

    if "checks" in policy:
        policy = {"checks": (HealthCheck("hang", hang),)}

    async def main() -> None:
        task = asyncio.ensure_future(desk.update(rollback=True, **policy))
        await asyncio.wait([task], timeout=40)
        assert desk.stages[-1] == "prove"
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())
    assert desk.notes[-1].startswith("interrupted before 1.1.0 was confirmed: it is left as it is")
    assert afterwards(desk) == "1.1.0 then 1.0.0"


# -- an echo before the confirmation -----------------------------------------------------------------------------------


def requests_before_confirm(desk: Desk) -> list[int]:
    """The numbers of the commands of the OS group that the device gets once the new image runs."""
    seen: list[int] = []

    def note(number: int, message: bytes) -> bool:
        if int.from_bytes(message[4:6], "big") == 0 and desk.running == "1.1.0":
            seen.append(message[7])
        return False

    desk.faults.drop_requests = note
    return seen


ECHO = 0


def test_what_is_confirmed_has_answered_an_echo_before() -> None:
    desk = Desk()
    seen = requests_before_confirm(desk)
    assert desk.run().ending is Ending.CONFIRMED
    assert seen.count(ECHO) == 1  # that is all it costs


@pytest.mark.parametrize("mode", [Mode.TEST_ONLY, Mode.CONFIRM_ONLY])
def test_what_is_not_confirmed_is_not_asked(mode: Mode) -> None:
    desk = Desk()
    seen = requests_before_confirm(desk)
    desk.run(mode=mode)
    assert ECHO not in seen


@pytest.mark.parametrize("silent", [False, True])
def test_a_device_without_an_echo_is_confirmed_by_its_list(silent: bool) -> None:
    desk = Desk()
    echo = is_request(0, ECHO, Op.WRITE)
    if silent:
        desk.faults.drop_requests = lambda number, message: desk.running == "1.1.0" and echo(number, message)
    else:
        del desk.device.groups[0].handlers[Op.WRITE, ECHO]
    assert desk.run().ending is Ending.CONFIRMED
    assert desk.after_reset() == "1.1.0"


def test_what_answers_nothing_any_more_is_left_unconfirmed() -> None:
    desk = Desk()
    proven: list[int] = []

    def deaf(number: int, message: bytes) -> bool:
        if desk.running == "1.1.0" and is_request(0, ECHO, Op.WRITE)(number, message):
            proven.append(number)
        return bool(proven)

    desk.faults.drop_requests = deaf
    with pytest.raises(FlowError) as failure:
        desk.run(reconnects=0)
    assert failure.value.outcome is Outcome.UNHEALTHY
    assert failure.value.message.startswith("1.1.0 is not healthy: no answer to an echo")
    assert "left unconfirmed: the next reset goes back to the old image" in failure.value.message
    assert desk.after_reset() == "1.0.0"
