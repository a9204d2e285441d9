"""`GroupContract`: what people and the command line rely on in every command group, as tests that an author inherits.

::

    class TestHeater(GroupContract):
        plugin = HEATER  # the `GroupPlugin`
        examples = (
            Example(ReadTemperature(), sent={}, answer={"mdeg": 21500}, result=21.5),
            Example(SetTemperature(60), sent={"mdeg": 60000}, answer={}, result=None),
        )

        def device(self):
            device = SimulatedDevice()
            device.install(build_image("1.0.0"))
            device.add_group(HeaterServer())
            return device

Our own groups pass these tests, too. Here is no fixture and no plugin of pytest, so that it works with any.
"""

from __future__ import annotations

import importlib
import sys
from abc import ABC
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar
from unittest import SkipTest

from ..errors import DeviceError, MalformedReply
from ..messages.message import decode_body, encode_body
from ..plugin_api import Body, Client, ErrorCode, Group, GroupPlugin, Reply, SmpCommand
from ..protocol.header import MAX_PAYLOAD, Version
from ..sim.device import SimulatedDevice
from ..sim.link import SimulatedTransport
from ..sim.loop import run

__all__ = ["Example", "GroupContract"]

# What a device may send in place of a value: nothing, other types, numbers out of every range, text that is none.
_ODD: tuple[object, ...] = (
    None,
    True,
    -1,
    2**63,
    2.5,
    float("nan"),
    "odd",
    "",
    b"\xff\x00",
    [],
    [None, {}, [], 1],
    {},
    {"odd": {"odd": 1}},
    {"odd": None, 7: b"7"},
)

# No group has this code, and so many hundred.
_NO_CODE = 59_999


@dataclass(frozen=True, slots=True)
class Example:
    """One command with all that belongs to it.

    Attributes:
        sent: the map that it sends.
        answer: a map that a device answers with, as rich as any does.
        result: what the answer means.
    """

    command: SmpCommand[Any]
    sent: Body
    answer: Body
    result: object = None


class GroupContract(ABC):
    """Inherit it, say which group, give an example of each command, and name the class so that pytest finds it."""

    plugin: ClassVar[GroupPlugin]
    examples: ClassVar[Sequence[Example]]

    def device(self) -> SimulatedDevice | None:
        """A new simulated device that has the group, for one test; None where there is none."""
        return None

    # -- messages ------------------------------------------------------------------------------------------------------

    def test_each_command_has_an_example(self) -> None:
        package = self.plugin.load.partition(":")[0].rpartition(".")[0]
        importlib.import_module(self.plugin.load.partition(":")[0])
        there = {kind for kind in _commands_of(package) if kind.facts.group == self.plugin.id}
        lacking = there - {type(example.command) for example in self.examples}
        assert not lacking, f"no example of {', '.join(sorted(kind.__name__ for kind in lacking))}"

    def test_each_command_sends_what_it_says(self) -> None:
        for example in self.examples:
            facts, request = example.command.facts, example.command.request()
            assert facts.group == self.plugin.id
            assert 0 <= facts.number <= 0xFF
            assert facts.what == facts.what.strip()
            assert facts.what != "request", f"{type(example.command).__name__} has no `what`, a name for people"
            message = request.encode(Version.V2, 7)
            assert len(message) - 8 <= MAX_PAYLOAD
            assert decode_body(message[8:]) == example.sent, f"{facts.what}: what is sent"

    def test_each_answer_means_what_it_says(self) -> None:
        for example in self.examples:
            found = example.command.result(_reply(example, encode_body(example.answer)))
            assert found == example.result, f"{example.command.facts.what}: {found!r}"

    def test_a_zero_beside_the_result_is_a_success(self) -> None:
        """Mynewt, MCUboot and Zephyr before 3.4 send it."""
        for example in self.examples:
            found = example.command.result(_reply(example, encode_body({**example.answer, "rc": 0})))
            assert found == example.result, f"{example.command.facts.what}: {found!r}"

    def test_what_a_newer_server_adds_does_no_harm(self) -> None:
        for example in self.examples:
            example.command.result(_reply(example, encode_body({**example.answer, "newer": {"than": "this"}})))

    def test_an_odd_answer_is_a_result_or_malformed(self) -> None:
        """Never an error of Python's, which would be told as a bug of this program."""
        for example in self.examples:
            for odd in _odd_answers(example.answer):
                with suppress(MalformedReply, DeviceError):
                    example.command.result(_reply(example, encode_body(odd)))
            whole = encode_body(example.answer)
            for payload in (b"", b"\xff", b"\x80", b"\xf6", whole[:-1], whole + b"\x00"):
                with suppress(MalformedReply, DeviceError):
                    example.command.result(_reply(example, payload))

    # -- errors --------------------------------------------------------------------------------------------------------

    def test_each_error_has_a_name_and_a_sentence(self) -> None:
        for code in self._table():
            assert code.sentence, f"{code.name} has no sentence"
            assert code.sentence == code.sentence.strip().rstrip("."), f"{code.name}: it becomes a part of one"

    def test_no_error_hides_another(self) -> None:
        table = self._table()
        twice = [name for name, code in table.__members__.items() if code.name != name]
        assert not twice, f"{', '.join(twice)}: the number is that of another"

    def test_a_refusal_is_told_by_its_code(self) -> None:
        """In the form of SMP version 2, and in that of Zephyr 3.4."""
        for example in self.examples:
            for code in self._table():
                for key in ("err", "ret"):
                    error = _refusal(example, {key: {"group": self.plugin.id, "rc": int(code)}})
                    assert error.says(code), f"{example.command.facts.what}: {error}"
                    assert code.sentence in error.message

    def test_a_code_that_nobody_knows_stays_a_number(self) -> None:
        for example in self.examples:
            error = _refusal(example, {"err": {"group": self.plugin.id, "rc": _NO_CODE}})
            assert (error.group, error.rc, error.code) == (self.plugin.id, _NO_CODE, None)

    # -- the whole group -----------------------------------------------------------------------------------------------

    def test_the_group_is_where_the_plugin_says(self) -> None:
        module, _, name = self.plugin.load.partition(":")
        kind = getattr(importlib.import_module(module), name)
        assert isinstance(kind, type)
        assert issubclass(kind, Group)

    def test_a_simulated_device_answers_each_command(self) -> None:
        """With a result, or with a refusal that the group has a name for."""
        for example in self.examples:
            device = self.device()
            if device is None:
                raise SkipTest("no simulated device has this group")
            device.settle()
            run(_asked(device, example.command))

    # ------------------------------------------------------------------------------------------------------------------

    def _table(self) -> type[ErrorCode]:
        table = self.plugin.error_table()
        if self.plugin.errors is None:
            raise SkipTest("the group has no errors of its own")
        assert table is not None, f"{self.plugin.errors} is no table of errors"
        return table


async def _asked(device: SimulatedDevice, command: SmpCommand[Any]) -> None:
    async with Client(SimulatedTransport(device)) as client:
        refusal: DeviceError | None = None
        try:
            await client.request(command)
        except DeviceError as error:
            refusal = error
        assert refusal is None or refusal.code is not None, f"{refusal}: a code without a name"


def _reply(example: Example, payload: bytes) -> Reply:
    facts = example.command.facts
    return Reply(facts.op | 1, Version.V2, 0, facts.group, 7, facts.number, payload)


def _refusal(example: Example, body: Body) -> DeviceError:
    try:
        found = example.command.result(_reply(example, encode_body(body)))
    except DeviceError as error:
        return error
    raise AssertionError(f"{example.command.facts.what}: {body} is a refusal, and was taken for {found!r}")


def _odd_answers(answer: Body) -> Iterator[Body]:
    """The answer without one of its values, and with an odd one in its place."""
    for key in answer:
        yield {other: value for other, value in answer.items() if other != key}
        for odd in _ODD:
            yield {**answer, key: odd}


def _commands_of(package: str) -> Iterator[type[SmpCommand[Any]]]:
    """Those that a module of the package defines; not what `dataclass` has made anew of them."""
    waiting: list[type[SmpCommand[Any]]] = list(SmpCommand.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if f"{kind.__module__}.".startswith(f"{package}."):
            module = sys.modules.get(kind.__module__)
            if getattr(module, kind.__name__, None) is kind:
                yield kind
