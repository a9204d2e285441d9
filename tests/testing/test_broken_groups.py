"""The contract notices what groups do wrong: for each mistake there is a test that fails."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mcumgrx.plugin_api import Body, ErrorCode, Fields, Group, GroupPlugin, Op, SmpCommand
from mcumgrx.sim.device import SimulatedDevice
from mcumgrx.sim.groups import Call, GroupError, GroupServer
from mcumgrx.sim.images import build_image
from mcumgrx.testing.groups import Example, GroupContract
from mcumgrx_plugins.stat import STAT
from mcumgrx_plugins.stat.messages import ListStatistics, StatisticsList


class HeaterError(ErrorCode):
    TOO_HOT = 3, "the heater does not go that high", "200 degrees are the limit"


class WithoutSentence(ErrorCode):
    TOO_HOT = 3


class Twice(ErrorCode):
    TOO_HOT = 3, "the heater does not go that high"
    TOO_COLD = 3, "the heater does not go that low"


class HeaterGroup(Group):
    pass


def plugin(errors: str = "HeaterError", load: str = "HeaterGroup") -> GroupPlugin:
    return GroupPlugin(100, "heater", "Heater", load=f"{__name__}:{load}", errors=f"{__name__}:{errors}")


HEATER = plugin()


@dataclass(frozen=True, slots=True)
class Read(SmpCommand[float], group=HEATER, number=0, what="temperature reading"):
    def parse(self, fields: Fields) -> float:
        return fields.integer("mdeg") / 1000


@dataclass(frozen=True, slots=True)
class Careless(SmpCommand[float], group=HEATER, number=0, what="temperature reading"):
    def parse(self, fields: Fields) -> float:
        return fields.extra()["mdeg"] / 1000  # type: ignore[no-any-return, operator]


@dataclass(frozen=True, slots=True)
class Strict(SmpCommand[float], group=HEATER, number=0, what="temperature reading"):
    def parse(self, fields: Fields) -> float:
        found = fields.integer("mdeg") / 1000
        if fields.extra():
            raise ValueError("what is that?")
        return found


@dataclass(frozen=True, slots=True)
class Nameless(SmpCommand[float], group=HEATER, number=0):
    def parse(self, fields: Fields) -> float:
        return fields.integer("mdeg") / 1000


@dataclass(frozen=True, slots=True)
class OfAnother(SmpCommand[float], group=101, number=0, what="temperature reading"):
    def parse(self, fields: Fields) -> float:
        return fields.integer("mdeg") / 1000


@dataclass(frozen=True, slots=True)
class WithoutErrors(SmpCommand[float], group=100, number=0, what="temperature reading"):
    def parse(self, fields: Fields) -> float:
        return fields.integer("mdeg") / 1000


@dataclass(frozen=True, slots=True)
class Deaf(SmpCommand[float], group=HEATER, number=0, what="temperature reading"):
    def parse(self, fields: Fields) -> float:
        return fields.integer("mdeg", 0) / 1000

    def result(self, reply: object) -> float:  # type: ignore[override]
        return 21.5


class HeaterServer(GroupServer):
    group = 100
    name = "heater"
    code = 3

    def __init__(self, code: int) -> None:
        super().__init__({(Op.READ, 0): self.read})
        self.code = code

    def read(self, call: Call) -> Body:
        if self.code:
            raise GroupError(self.code)
        return {"mdeg": 21500}


class Heater(GroupContract):
    plugin = HEATER
    examples = (Example(Read(), {}, {"mdeg": 21500}, 21.5),)
    code = 0

    def device(self) -> SimulatedDevice:
        device = SimulatedDevice()
        device.install(build_image("1.0.0", payload_size=1000))
        device.add_group(HeaterServer(self.code))
        return device


def with_command(command: SmpCommand[float]) -> type[Heater]:
    class Tried(Heater):
        examples = (Example(command, {}, {"mdeg": 21500}, 21.5),)

    return Tried


def with_plugin(one: GroupPlugin) -> type[Heater]:
    class Tried(Heater):
        plugin = one

    return Tried


class SendsMore(Heater):
    examples = (Example(Read(), {"what": 1}, {"mdeg": 21500}, 21.5),)


class MeansMore(Heater):
    examples = (Example(Read(), {}, {"mdeg": 21500}, 22.5),)


class Refuses(Heater):
    code = 9


MISTAKES = {
    "sends something else": (SendsMore, "test_each_command_sends_what_it_says"),
    "means something else": (MeansMore, "test_each_answer_means_what_it_says"),
    "has no name": (with_command(Nameless()), "test_each_command_sends_what_it_says"),
    "is of another group": (with_command(OfAnother()), "test_each_command_sends_what_it_says"),
    "raises what Python raises": (with_command(Careless()), "test_an_odd_answer_is_a_result_or_malformed"),
    "minds what is new": (with_command(Strict()), "test_what_a_newer_server_adds_does_no_harm"),
    "does not look for errors": (with_command(Deaf()), "test_a_refusal_is_told_by_its_code"),
    "knows none of the codes": (with_command(WithoutErrors()), "test_a_refusal_is_told_by_its_code"),
    "a code without a sentence": (with_plugin(plugin("WithoutSentence")), "test_each_error_has_a_name_and_a_sentence"),
    "a code of two names": (with_plugin(plugin("Twice")), "test_no_error_hides_another"),
    "a table that is none": (with_plugin(plugin("HeaterGroup")), "test_no_error_hides_another"),
    "a group that is none": (with_plugin(plugin(load="Read")), "test_the_group_is_where_the_plugin_says"),
    "a refusal without a name": (Refuses, "test_a_simulated_device_answers_each_command"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake: str) -> None:
    kind, name = MISTAKES[mistake]
    with pytest.raises((AssertionError, KeyError, TypeError, ValueError)):
        getattr(kind(), name)()


@pytest.mark.parametrize("name", sorted({name for _, name in MISTAKES.values()}))
def test_a_sound_one_passes(name: str) -> None:
    getattr(Heater(), name)()


def test_a_command_without_an_example_is_noticed() -> None:
    class Statistics(GroupContract):
        plugin = STAT
        examples = (Example(ListStatistics(), {}, {"stat_list": ["smp"]}, StatisticsList(("smp",))),)

    with pytest.raises(AssertionError, match="no example of ReadStatistics"):
        Statistics().test_each_command_has_an_example()
