"""Group 10 against the simulated device and recorded answers: which groups there are, and devices that cannot tell."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest

from mcumgrx.cli.main import main
from mcumgrx.client import Client
from mcumgrx.errors import DeviceError, MalformedReply, UsageError
from mcumgrx.messages.message import SmpCommand, decode_body
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import GroupId, Op
from mcumgrx.registry import default_registry
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.groups import Call, GroupError, GroupServer, Handler, Refused
from mcumgrx.sim.groups import enumeration as sim
from mcumgrx.sim.groups.enumeration import EnumConfig, EnumServer
from mcumgrx_plugins.enum import commands
from mcumgrx_plugins.enum.group import EnumGroup
from mcumgrx_plugins.enum.messages import (
    CountGroups,
    EnumErrorCode,
    GroupAt,
    GroupCount,
    GroupDetails,
    GroupDetailsList,
    GroupList,
    ListGroups,
    ReadGroupAt,
    ReadGroupDetails,
)

from ..support.recorded import Recorded, recorded, reply_to, result_or_error
from ..support.simulated import Desk

CODES = {
    1: ("UNKNOWN", 1),
    2: ("TOO_MANY_GROUP_ENTRIES", 3),
    3: ("INSUFFICIENT_HEAP_FOR_ENTRIES", 1),
    4: ("INDEX_TOO_LARGE", 1),
}
LINKED = (10, 8, 1, 0, 3, 9, 2, 63)


class Heater(GroupServer):
    group = 100

    def __init__(self) -> None:
        super().__init__({(Op.READ, 2): lambda call: {}})


def desk(config: EnumConfig | None = None, device: DeviceConfig | None = None) -> Desk:
    made = Desk(device)
    made.device.add_group(EnumServer(config))
    made.device.add_group(Heater())
    return made


class Fake(GroupServer):
    """A group 10 that answers the commands it is given; an exception is raised, a function is asked."""

    group = 10
    legacy_codes = {number: legacy for number, (_, legacy) in CODES.items()}  # noqa: RUF012

    def __init__(self, answers: dict[int, Any]) -> None:
        super().__init__({(Op.READ, command): self._answering(answer) for command, answer in answers.items()})

    def _answering(self, answer: Any) -> Handler:
        def handler(call: Call) -> Any:
            said = answer(decode_body(call.payload)) if callable(answer) else answer
            if isinstance(said, Exception):
                raise said
            return said

        return handler


def saying(answers: dict[int, Any], *, original: bool = False) -> Desk:
    made = Desk(DeviceConfig(original_only=original))
    made.device.add_group(Fake(answers))
    return made


# -- what devices say -------------------------------------------------------------------------------------------------


def test_list() -> None:
    result = desk().command(commands.list_groups)
    assert result.groups == (*LINKED, 100)
    assert result.lines()[0].split() == ["10", "enumeration"]
    assert result.lines()[-1] == "100  of the application"


def test_count() -> None:
    result = desk().command(commands.count)
    assert (result.count, result.lines()) == (9, ["9"])


def test_show_all() -> None:
    result = desk().command(commands.show, groups=())
    assert [one.group for one in result.groups] == [*LINKED, 100]
    assert result.groups[3] == GroupDetails(0, "os mgmt", result.groups[3].handlers)
    assert result.groups[-1] == GroupDetails(100, None, 3)
    assert (result.details, result.absent) == (True, ())
    lines = result.lines()
    assert len(lines) == 10
    assert lines[0].split() == ["group", "name", "handlers"]
    assert lines[-1].split() == ["100", "of", "the", "application", "3"]


def test_show_some() -> None:
    result = desk().command(commands.show, groups=(100, 99, 0, 99))
    assert [one.group for one in result.groups] == [0, 100]
    assert result.absent == (99,)
    assert result.lines()[-1] == "99: the device has no such group"
    result = desk().command(commands.show, groups=(99,))
    assert result.lines() == ["99: the device has no such group"]


def test_by_index() -> None:
    async def work(client: Client) -> list[GroupAt]:
        return [await client.group(EnumGroup).at(index) for index in (0, 1, 8)]

    assert desk().client(work) == [GroupAt(10), GroupAt(8), GroupAt(100, end=True)]


def test_what_applications_add_is_shown() -> None:
    groups = [{"group": 7, "colour": "blue"}, {"group": 20, "name": "x", "handlers": 0, "id": b"\1"}]
    result = saying({3: {"groups": groups, "n": 2}}).command(commands.show, groups=())
    assert result.groups == (GroupDetails(7, extra={"colour": "blue"}), GroupDetails(20, "x", 0, {"id": b"\1"}))
    assert result.lines() == [
        "group                        name  handlers  colour  id",
        "7      run tests (Mynewt)                    blue",
        "20     not known to mcumgrx  x     0                 01",
        "n: 2",
    ]
    listed = saying({1: {"groups": [0], "x": True, "y": [{"a": 1}], "z": {}}}).command(commands.list_groups)
    assert listed.lines() == ["0  operating system", "x: yes", "y: a 1", "z: none"]
    counted = saying({0: {"count": 3, "rc": 0, "x": b"\xfe"}}).command(commands.count)
    assert counted.lines() == ["3", "x: fe"]


def test_nothing_at_all() -> None:
    assert saying({1: {"groups": []}}).command(commands.list_groups).lines() == ["the device lists no command group"]
    assert saying({3: {"groups": []}}).command(commands.show, groups=()).lines() == [
        "the device lists no command group"
    ]


def test_every_standard_group_has_words() -> None:
    assert set(commands._WHAT) == {int(group) for group in GroupId} - {GroupId.PER_USER}


# -- devices that cannot tell -----------------------------------------------------------------------------------------


def test_without_details_the_numbers_are_shown() -> None:
    made = desk(EnumConfig(details=False))
    result = made.command(commands.show, groups=())
    assert (result.details, result.groups[0]) == (False, GroupDetails(10))
    assert "CONFIG_MCUMGR_GRP_ENUM_DETAILS" in result.lines()[-1]
    result = made.command(commands.show, groups=(0, 99))
    assert (result.groups, result.absent) == ((GroupDetails(0),), (99,))


@pytest.mark.parametrize(
    ("function", "parameters"), [(commands.list_groups, {}), (commands.count, {}), (commands.show, {"groups": ()})]
)
def test_without_the_group_the_hint_says_how_to_find_out(function: Any, parameters: dict[str, Any]) -> None:
    with pytest.raises(DeviceError) as raised:
        Desk(DeviceConfig(groups=(0, 1))).command(function, **parameters)
    assert raised.value.rc == SmpError.NOT_SUPPORTED
    assert "CONFIG_MCUMGR_GRP_ENUM " in str(raised.value.hint)
    assert "code 8" in str(raised.value.hint)


def test_the_group_itself_says_what_is_missing() -> None:
    async def work(client: Client) -> None:
        await client.group(EnumGroup).details()

    with pytest.raises(DeviceError) as raised:
        desk(EnumConfig(details=False)).client(work)
    assert "CONFIG_MCUMGR_GRP_ENUM_DETAILS" in str(raised.value.hint)


# -- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [Refused(7), Refused(9)], ids=str)
@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("original", [True, False])
def test_a_list_that_does_not_fit_is_asked_for_one_by_one(refusal: Exception, end: bool, original: bool) -> None:
    numbers = [10, 0, 300]

    def single(body: dict[str, Any]) -> Any:
        index = body["index"]
        if index >= len(numbers):
            return GroupError(EnumErrorCode.INDEX_TOO_LARGE)
        return {"group": numbers[index], **({"end": True} if end and index == len(numbers) - 1 else {})}

    result = saying({1: refusal, 2: single}, original=original).command(commands.list_groups)
    assert result.groups == (10, 0, 300)


def test_when_that_fails_too_it_is_an_error() -> None:
    with pytest.raises(DeviceError) as raised:
        saying({1: Refused(7), 2: GroupError(4)}).command(commands.list_groups)
    assert raised.value.name == "INDEX_TOO_LARGE"
    with pytest.raises(DeviceError):
        saying({1: Refused(2), 2: {"group": 1, "end": True}}).command(commands.list_groups)


@pytest.mark.parametrize("refusal", [Refused(7), Refused(9), GroupError(2), GroupError(3)], ids=str)
@pytest.mark.parametrize("asked", [(), (300, 0, 10, 99)], ids=str)
def test_details_that_do_not_fit_are_asked_for_one_by_one(refusal: Exception, asked: tuple[int, ...]) -> None:
    def details(body: dict[str, Any]) -> Any:
        named = body.get("groups", [])
        return {"groups": [{"group": named[0]}] if named != [99] else []} if len(named) == 1 else refusal

    result = saying({1: {"groups": [10, 0, 300]}, 3: details}).command(commands.show, groups=asked)
    assert [one.group for one in result.groups] == ([300, 0, 10] if asked else [10, 0, 300])
    assert (result.details, result.absent) == (True, (99,) if asked else ())


@pytest.mark.parametrize("rc", [7, 9])
def test_details_that_do_not_even_fit_one_by_one(rc: int) -> None:
    with pytest.raises(DeviceError) as raised:
        saying({1: {"groups": [0]}, 3: Refused(rc)}).command(commands.show, groups=())
    assert "CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE" in str(raised.value.hint)


@pytest.mark.parametrize("original", [True, False])
def test_more_groups_than_the_device_takes_in_one_request(original: bool) -> None:
    result = desk(device=DeviceConfig(original_only=original)).command(commands.show, groups=tuple(range(17)))
    assert [one.group for one in result.groups] == [0, 1, 2, 3, 8, 9, 10]
    assert len(result.absent) == 10


def test_other_refusals_are_errors() -> None:
    for refusal in (Refused(2), Refused(3), GroupError(1)):
        with pytest.raises(DeviceError):
            saying({1: {"groups": [0]}, 3: refusal}).command(commands.show, groups=())


@pytest.mark.parametrize("number", [-1, 65536])
def test_what_is_no_group(number: int) -> None:
    made = desk()
    with pytest.raises(UsageError, match="no command group"):
        made.command(commands.show, groups=(0, number))
    assert made.device.requests == 0


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (CountGroups(), {}),
        (CountGroups(), {"count": "8"}),
        (ListGroups(), {}),
        (ListGroups(), {"groups": 1}),
        (ReadGroupAt(0), {}),
        (ReadGroupDetails(), {}),
        (ReadGroupDetails(), {"groups": {}}),
    ],
    ids=str,
)
def test_answers_that_make_no_sense(command: SmpCommand[Any], answer: dict[str, Any]) -> None:
    with pytest.raises(MalformedReply) as raised:
        command.result(reply_to(command, cbor2.dumps(answer)))
    assert raised.value.payload


# -- errors, messages and recordings ----------------------------------------------------------------------------------


def test_the_error_table() -> None:
    assert {int(code): code.name for code in EnumErrorCode} == {number: name for number, (name, _) in CODES.items()}
    assert {int(code): code.name for code in sim.EnumErrorCode} == {int(code): code.name for code in EnumErrorCode}
    for code in EnumErrorCode:
        assert " " in code.sentence
        assert not code.sentence.endswith(".")


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("original", [False, True])
def test_every_error_has_its_name(number: int, original: bool) -> None:
    name, legacy = CODES[number]
    with pytest.raises(DeviceError) as raised:
        saying({0: GroupError(number)}, original=original).command(commands.count)
    error = raised.value
    expected = (None, legacy, SmpError(legacy).name) if original else (10, number, name)
    assert (error.group, error.rc, error.name) == expected


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (CountGroups(), "0800000100 0a0900 a0"),
        (ListGroups(), "0800000100 0a0901 a0"),
        (ReadGroupAt(3), "0800000800 0a0902 a1 65696e646578 03"),
        (ReadGroupDetails(), "0800000100 0a0903 a0"),
        (ReadGroupDetails((0, 300)), "0800000d00 0a0903 a1 6667726f757073 82 00 19012c"),
    ],
)
def test_requests_on_the_wire(command: SmpCommand[Any], message: str) -> None:
    assert command.request().encode(1, 9).hex() == message.replace(" ", "")
    assert command.request().repeatable


RECORDED = recorded(10)


def typed(row: Recorded) -> SmpCommand[Any]:
    """The typed command whose answer this is."""
    match row.header.command:
        case 0:
            return CountGroups()
        case 1:
            return ListGroups()
        case 2:
            return ReadGroupAt(row.asked.get("index", 0))
        case 3:
            return ReadGroupDetails(tuple(row.asked.get("groups", ())))
    raise AssertionError(row.name)


@pytest.mark.parametrize("row", RECORDED, ids=str)
def test_recorded_answers_become_typed_results(row: Recorded) -> None:
    result = result_or_error(row, typed(row))
    match result:
        case GroupCount():
            assert result == GroupCount(row.said["count"])
        case GroupList():
            assert result == GroupList(tuple(row.said["groups"]))
        case GroupAt():
            assert result == GroupAt(row.said["group"])
        case GroupDetailsList():
            assert result == GroupDetailsList(tuple(GroupDetails(**one) for one in row.said["groups"]))
        case _:
            assert isinstance(result, DeviceError)
    if "without" not in row.name:
        assert typed(row).body() == row.asked


def test_the_recordings_have_every_command_of_the_group() -> None:
    assert len(RECORDED) > 50
    assert len({type(typed(row)) for row in RECORDED}) == 4


# -- the command line -------------------------------------------------------------------------------------------------

OURS = sorted(name for name in default_registry().commands if name.startswith("enum "))


def test_every_command_is_here() -> None:
    assert OURS == ["enum count", "enum list", "enum show"]


@pytest.mark.parametrize("name", OURS)
def test_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    examples = capsys.readouterr().out.partition("\nExample")[2]
    assert f"mcumgrx {name}" in examples
    assert "-d " in examples


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main(["-d", "sim:", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_results_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "enum", "list")
    assert (code, said["result"]["groups"], said["result"]["extra"]) == (0, list(LINKED), {})
    assert said["result"]["what"]["8"] == "file system"
    _, said = run(capsys, "enum", "count")
    assert said["result"] == {"count": 8, "extra": {}}
    _, said = run(capsys, "enum", "show", "2", "0x63")
    assert said["result"] == {
        "groups": [{"group": 2, "name": "stat mgmt", "handlers": 2, "extra": {}}],
        "absent": [99],
        "details": True,
        "extra": {},
        "what": {"2": "statistics"},
    }


@pytest.mark.parametrize("arguments", [["show", "x"], ["show", "70000"], ["list", "1"], ["none"]], ids=str)
def test_bad_input(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    ended, said = run(capsys, "enum", *arguments)
    assert (ended, said["error"]["exit"]) == (2, 2)
