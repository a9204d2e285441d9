"""Group 2 against the simulated device and recorded answers: lists, counters, what does not fit, what is not there."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest

from mcumgrx.cli.main import main
from mcumgrx.client import Client
from mcumgrx.errors import DeviceError, MalformedReply, UsageError
from mcumgrx.messages.message import SmpCommand
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import Op
from mcumgrx.registry import default_registry
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.groups import GroupError, GroupServer, Refused
from mcumgrx.sim.groups import stat as sim
from mcumgrx.sim.groups.stat import StatConfig, StatServer
from mcumgrx_plugins.stat import commands
from mcumgrx_plugins.stat.group import StatGroup
from mcumgrx_plugins.stat.messages import Counters, ListStatistics, ReadStatistics, StatErrorCode, StatisticsList

from ..support.recorded import Recorded, recorded, reply_to, result_or_error
from ..support.simulated import Desk

CODES = {
    1: ("UNKNOWN", 1),
    2: ("INVALID_GROUP", 5),
    3: ("INVALID_STAT_NAME", 5),
    4: ("INVALID_STAT_SIZE", 3),
    5: ("WALK_ABORTED", 1),
}

SMALL = sim.StatGroup("app", {"rx": 7, "tx": 2**32 - 1})
LARGE = sim.StatGroup("large", {f"erase_cycles_unit{number}": number for number in range(256)})
WIDE = sim.StatGroup("wide", {"bytes": 2**63}, counter_bytes=8)


def desk(*groups: sim.StatGroup, field_names: bool = True, config: DeviceConfig | None = None) -> Desk:
    made = Desk(config)
    made.device.add_group(StatServer(StatConfig(groups, field_names)))
    return made


class Fake(GroupServer):
    """A group 2 with one answer to everything; an exception is raised."""

    group = 2
    legacy_codes = {number: legacy for number, (_, legacy) in CODES.items()}  # noqa: RUF012

    def __init__(self, answer: Any) -> None:
        super().__init__({(Op.READ, 0): self.answer, (Op.READ, 1): self.answer})
        self.said = answer

    def answer(self, call: object) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def saying(answer: Any, *, original: bool = False) -> Desk:
    made = Desk(DeviceConfig(original_only=original))
    made.device.add_group(Fake(answer))
    return made


def read(desk: Desk, name: str) -> Counters:
    async def work(client: Client) -> Counters:
        return await client.group(StatGroup).read(name)

    return desk.client(work)


# -- what devices say -------------------------------------------------------------------------------------------------


def test_list() -> None:
    result = desk(SMALL, WIDE).command(commands.list_groups)
    assert result.names == ("app", "wide")
    assert result.lines() == ["app", "wide"]
    assert desk().command(commands.list_groups).lines() == ["the device keeps no statistics"]


def test_show_one() -> None:
    result = desk(SMALL, WIDE).command(commands.show, name="app", all=False)
    assert result.groups == (Counters("app", {"rx": 7, "tx": 4294967295}),)
    assert result.exit_code == 0
    assert result.lines() == ["app", "  rx  7", "  tx  4294967295"]
    assert read(desk(SMALL, WIDE), "wide").counters == {"bytes": 2**63}


def test_counters_without_names() -> None:
    assert read(desk(SMALL, field_names=False), "app").counters == {"s0": 7, "s1": 4294967295}


def test_show_all_goes_on_behind_what_does_not_fit() -> None:
    result = desk(SMALL, LARGE, WIDE).command(commands.show, name=None, all=True)
    assert [group.name for group in result.groups] == ["app", "wide"]
    (refusal,) = result.refused
    assert (refusal.name, refusal.group, refusal.rc) == ("large", None, SmpError.MESSAGE_SIZE)
    assert "CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE" in str(refusal.hint)
    assert result.exit_code == 5
    assert "  not shown: " in "\n".join(result.lines())


def test_show_all_of_nothing() -> None:
    result = desk().command(commands.show, name=None, all=True)
    assert (result.groups, result.refused, result.exit_code) == ((), (), 0)
    assert result.lines() == ["the device keeps no statistics"]


def test_a_group_that_does_not_fit_an_answer() -> None:
    with pytest.raises(DeviceError) as raised:
        read(desk(LARGE), "large")
    assert raised.value.rc == SmpError.MESSAGE_SIZE
    assert "CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE" in str(raised.value.hint)


def test_a_list_that_does_not_fit_an_answer() -> None:
    groups = [sim.StatGroup(f"a_name_of_some_length_{number}", {}) for number in range(40)]
    with pytest.raises(DeviceError) as raised:
        desk(*groups).command(commands.list_groups)
    assert "by its name" in str(raised.value.hint)


def test_what_mynewt_and_applications_add_is_kept() -> None:
    answer = {"rc": 0, "name": "app", "group": "sys", "fields": {"n": 1}, "since": b"\x01\xfe", "more": [1, {}]}
    found = read(saying(answer), "app")
    assert found == Counters("app", {"n": 1}, "sys", {"since": b"\x01\xfe", "more": [1, {}]})
    result = saying(answer).command(commands.show, name="app", all=False)
    assert result.lines() == ["app (sys)", "  n  1", "  since: 01fe", "  more: 1, none"]
    listed = saying({"stat_list": ["a"], "total": 1, "ok": True}).command(commands.list_groups)
    assert listed.lines() == ["a", "total: 1", "ok: yes"]


@pytest.mark.parametrize("rc", [StatErrorCode.INVALID_GROUP, StatErrorCode.INVALID_STAT_NAME])
def test_errors_that_older_servers_label_as_those_of_group_63(rc: StatErrorCode) -> None:
    with pytest.raises(DeviceError, match=r"no (such )?statistics") as raised:
        read(saying({"err": {"group": 63, "rc": rc}}), "app")
    assert (raised.value.group, raised.value.rc) == (2, rc)
    assert "stat list" in str(raised.value.hint)


def test_what_is_no_number_among_counters_costs_nothing_else() -> None:
    answer = {"name": 5, "group": 6, "fields": {1: 2, "a": "1", "b": True, "c": 1.5, "d": None, "e": 7}}
    result = saying(answer).command(commands.show, name="app", all=False)
    odd = {"a": "1", "b": True, "c": 1.5, "d": None}
    assert result.groups == (Counters("app", {"e": 7}, None, {"name": 5, "group": 6, "fields": odd}),)
    assert result.lines()[-1] == "  fields: a 1, b yes, c 1.5, d null"
    listed = saying({"stat_list": ["a", 1, None, "b"]}).command(commands.list_groups)
    assert listed.lines() == ["a", "b", "stat_list: 1, null"]


def test_an_empty_group() -> None:
    result = saying({"fields": {}}).command(commands.show, name="app", all=False)
    assert result.groups == (Counters("app", {}),)
    assert result.lines() == ["app", "  no counters"]


@pytest.mark.parametrize(
    "answer",
    [{}, {"fields": []}, {"fields": None}, {"fields": 1}],
    ids=str,
)
def test_counters_that_make_no_sense(answer: dict[str, Any]) -> None:
    payload = cbor2.dumps(answer)
    with pytest.raises(MalformedReply) as raised:
        ReadStatistics("app").result(reply_to(ReadStatistics("app"), payload))
    assert raised.value.payload == payload


@pytest.mark.parametrize("answer", [{}, {"stat_list": {}}, {"stat_list": None}, {"stat_list": "a"}], ids=str)
def test_lists_that_make_no_sense(answer: dict[str, Any]) -> None:
    with pytest.raises(MalformedReply):
        ListStatistics().result(reply_to(ListStatistics(), cbor2.dumps(answer)))


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("original", [False, True])
def test_a_name_that_there_is_not(original: bool) -> None:
    with pytest.raises(DeviceError) as raised:
        read(desk(SMALL, config=DeviceConfig(original_only=original)), "nope")
    assert (raised.value.group, raised.value.rc) == ((None, 5) if original else (2, 3))
    assert "mcumgrx stat list" in str(raised.value.hint)


@pytest.mark.parametrize("refusal", [Refused(1), Refused(5), GroupError(2), GroupError(3)], ids=str)
def test_every_way_to_say_so(refusal: Exception) -> None:
    with pytest.raises(DeviceError) as raised:
        read(saying(refusal), "nope")
    assert "mcumgrx stat list" in str(raised.value.hint)


def test_a_name_that_is_too_long() -> None:
    with pytest.raises(DeviceError) as raised:
        read(desk(SMALL), "x" * 32)
    assert "CONFIG_MCUMGR_GRP_STAT_MAX_NAME_LEN" in str(raised.value.hint)


@pytest.mark.parametrize("name", ["", "a\udcff"])
def test_names_that_cannot_be_sent(name: str) -> None:
    made = desk(SMALL)
    with pytest.raises(UsageError):
        read(made, name)
    assert made.device.requests == 0


def test_a_device_without_statistics() -> None:
    for function, parameters in ((commands.list_groups, {}), (commands.show, {"name": "app", "all": False})):
        with pytest.raises(DeviceError) as raised:
            Desk(DeviceConfig(groups=(0, 1))).command(function, **parameters)
        assert raised.value.rc == SmpError.NOT_SUPPORTED
        assert "CONFIG_MCUMGR_GRP_STAT " in str(raised.value.hint)


@pytest.mark.parametrize("parameters", [{"name": None, "all": False}, {"name": "app", "all": True}], ids=str)
def test_either_a_name_or_all(parameters: dict[str, Any]) -> None:
    made = desk(SMALL)
    with pytest.raises(UsageError, match="either"):
        made.command(commands.show, **parameters)
    assert made.device.requests == 0


def test_the_error_table() -> None:
    assert {int(code): code.name for code in StatErrorCode} == {number: name for number, (name, _) in CODES.items()}
    assert {int(code): code.name for code in sim.StatErrorCode} == {int(code): code.name for code in StatErrorCode}
    for code in StatErrorCode:
        assert " " in code.sentence
        assert not code.sentence.endswith(".")


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("original", [False, True])
def test_every_error_has_its_name(number: int, original: bool) -> None:
    name, legacy = CODES[number]
    with pytest.raises(DeviceError) as raised:
        read(saying(GroupError(number), original=original), "app")
    error = raised.value
    expected = (None, legacy, SmpError(legacy).name) if original else (2, number, name)
    assert (error.group, error.rc, error.name) == expected


# -- messages and recordings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (ListStatistics(), "0800000100020901 a0"),
        (ReadStatistics("app"), "0800000a00020900 a1 646e616d65 63617070"),
    ],
)
def test_requests_on_the_wire(command: SmpCommand[Any], message: str) -> None:
    assert command.request().encode(1, 9).hex() == message.replace(" ", "")
    assert command.request().repeatable


RECORDED = recorded(2)


@pytest.mark.parametrize("row", RECORDED, ids=str)
def test_recorded_answers_become_typed_results(row: Recorded) -> None:
    command: SmpCommand[Any] = (
        ListStatistics() if row.header.command == 1 else ReadStatistics(row.asked.get("name", ""))
    )
    result = result_or_error(row, command)
    if isinstance(result, StatisticsList):
        assert result == StatisticsList(tuple(row.said["stat_list"]))
    elif isinstance(result, Counters):
        assert result == Counters(row.said["name"], row.said["fields"])
        assert result.name == row.asked["name"]


def test_the_recordings_have_both_commands_and_the_errors() -> None:
    assert len(RECORDED) > 25
    assert {(row.header.command, row.said.get("rc"), "err" in row.said) for row in RECORDED} == {
        *((0, None, False), (0, None, True), (0, 3, False), (0, 5, False), (0, 7, False), (1, None, False)),
    }


# -- the command line -------------------------------------------------------------------------------------------------

OURS = sorted(name for name in default_registry().commands if name.startswith("stat "))


def test_every_command_is_here() -> None:
    assert OURS == ["stat list", "stat show"]


@pytest.mark.parametrize("name", OURS)
def test_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    examples = capsys.readouterr().out.partition("\nExample")[2]
    assert f"mcumgrx {name}" in examples
    assert "-d " in examples


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main([*arguments, "-d", "sim:", "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_results_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "stat", "list")
    assert (code, said["result"]) == (0, {"names": ["smp_svr_stats", "smp", "flash"], "extra": {}})
    code, said = run(capsys, "stat", "show", "flash")
    counters = {"writes": 0, "erases": 0}
    flash = {"name": "flash", "counters": counters, "group": None, "extra": {}}
    assert (code, said["result"]) == (0, {"groups": [flash], "refused": []})


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["show"], 2), (["show", "flash", "--all"], 2), (["show", "nope"], 5), (["show", ""], 2), (["show", "--all"], 0)],
    ids=str,
)
def test_exit_codes(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    ended, said = run(capsys, "stat", *arguments)
    assert ended == code
    assert said.get("error", {}).get("exit", 0) == code
