"""Any command in JSON: what is typed becomes CBOR, what comes back becomes JSON, and nothing is lost between."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import cbor2
import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.cli.command import make_command
from mcumgrx.errors import DeviceError, MalformedReply, MessageTooLarge, RequestTimeout, UsageError
from mcumgrx.events import Note
from mcumgrx.messages.message import Reply
from mcumgrx.plugin_api import ErrorCode, GroupPlugin
from mcumgrx.protocol.codes import SmpError, look_for_tables
from mcumgrx.protocol.header import Op
from mcumgrx.registry import Registry
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.groups import Call, GroupError, GroupServer, Handler, Refused
from mcumgrx.sim.link import Faults
from mcumgrx_plugins.raw import commands
from mcumgrx_plugins.raw.messages import RawCommand
from mcumgrx_plugins.raw.text import body_from_json, to_json

from ..support.recorded import Recorded, recorded, result_or_error
from ..support.simulated import Desk

pytestmark = pytest.mark.codec

GROUP = 777


class Vendor(GroupServer):
    """A group that no plugin knows; it says what it was sent."""

    group = GROUP

    def __init__(self, answer: Any = None) -> None:
        handlers: dict[tuple[Op, int], Handler] = {(op, 200): self.answer for op in (Op.READ, Op.WRITE)}
        super().__init__({**handlers, (Op.READ, 1): self.answer})
        self.said = answer
        self.asked: list[tuple[int, Any]] = []

    def answer(self, call: Call) -> Any:
        self.asked.append((call.op, cbor2.loads(call.payload)))
        if isinstance(self.said, Exception):
            raise self.said
        return {} if self.said is None else self.said


class AcmeError(ErrorCode):
    TOO_HOT = 3, "the head is too hot", "let it cool"


def desk(answer: Any = None, **more: Any) -> tuple[Desk, Vendor]:
    made, vendor = Desk(**more), Vendor(answer)
    made.device.add_group(vendor)
    return made, vendor


def raw(
    desk: Desk, group: str = str(GROUP), id: int = 200, body: str | None = None, *, write: bool = False
) -> commands.RawResult:
    return desk.command(commands.raw, group=group, id=id, body=body, write=write)


# -- requests ---------------------------------------------------------------------------------------------------------


def test_a_group_of_a_plugin_has_its_name_and_its_errors() -> None:
    acme = GroupPlugin(GROUP, "acme", "Acme heads", load="nowhere:Group", errors=f"{__name__}:AcmeError")
    made, _ = desk(GroupError(AcmeError.TOO_HOT))
    registry = Registry(entry_points=[])
    registry._tables[GroupPlugin][GROUP] = acme
    look_for_tables(registry.error_table)
    made.groups = registry.groups
    with pytest.raises(DeviceError, match="the head is too hot") as raised:
        raw(made, "ACME")
    assert raised.value.says(AcmeError.TOO_HOT)
    assert raised.value.hint == "let it cool"
    with pytest.raises(UsageError) as wrong:
        raw(made, "heads")
    assert "acme" in str(wrong.value.hint)


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (None, {}),
        ("{}", {}),
        ('{"a": 1, "b": [true, null, -1.5, "☃"]}', {"a": 1, "b": [True, None, -1.5, "☃"]}),
        ('{"val": {"$hex": "00FF a0"}, "empty": {"$hex": ""}}', {"val": b"\x00\xff\xa0", "empty": b""}),
        ('{"m": {"$map": [[1, {"$hex": "01"}], [{"$hex": "02"}, 2]]}}', {"m": {1: b"\x01", b"\x02": 2}}),
        ('{"$map": [[1, 2]]}', {1: 2}),
        ('{"m": {"$map": [["$hex", "no bytes"]]}}', {"m": {"$hex": "no bytes"}}),
        ('{"m": {"$hex": "00", "also": 1}}', {"m": {"$hex": "00", "also": 1}}),
        ('{"n": 18446744073709551615}', {"n": 2**64 - 1}),
        ('{"n": -18446744073709551616}', {"n": -(2**64)}),
    ],
)
@pytest.mark.parametrize("write", [True, False])
def test_what_is_typed_reaches_the_device(body: str | None, values: Any, write: bool) -> None:
    made, vendor = desk()
    result = raw(made, body=body, write=write)
    assert vendor.asked == [(Op.WRITE if write else Op.READ, values)]
    assert (result.group, result.id, result.reply) == (GROUP, 200, {})


def test_the_request_is_one_definite_map() -> None:
    command = RawCommand(GROUP, 200, Op.WRITE, {"b": 1, "a": b"\x00"})
    assert command.request().encode(1, 9).hex() == "0a00000803090" + "9c8" + "a2616201" + "61614100"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "not JSON"),
        ("{a: 1}", "not JSON"),
        ('{"a": 1} x', "not JSON"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ("[1]", "no JSON object"),
        ('"a"', "no JSON object"),
        ('{"$hex": "00"}', "no JSON object"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": {"$hex": "0"}}', "hexadecimal"),
        ('{"a": {"$hex": "☃"}}', "hexadecimal"),
        ('{"a": {"$hex": 1}}', "hexadecimal"),
        ('{"a": {"$hex": ["00"]}}', "hexadecimal"),
        ('{"a": {"$map": {}}}', "list of keys"),
        ('{"a": {"$map": [[1]]}}', "list of keys"),
        ('{"a": {"$map": [[[1], 2]]}}', "list or an object"),
        ('{"a": 18446744073709551616}', "64 bits"),
        ('{"a": "\\ud800"}', "not a text"),
        ('{"\\ud800": 1}', "not a text"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ("[" * 100_000, "too deeply"),
        ('{"a": ' * 2000 + "1" + "}" * 2000, "too deeply|no JSON"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bodies_that_cannot_be_sent(body: str, said: str) -> None:
    made, _ = desk()
    with pytest.raises(UsageError, match=said):
        raw(made, body=body)
    assert made.device.requests == 0


@pytest.mark.parametrize(("typed", "number"), [("777", 777), ("0x309", 777), ("0", 0), ("65535", 65535), ("OS", 0)])
def test_groups_by_number(typed: str, number: int) -> None:
    assert commands._group(typed, commands._GROUPS) == number


@pytest.mark.parametrize(("typed", "number"), commands._GROUPS.items())
def test_groups_by_name(typed: str, number: int) -> None:
    assert commands._group(typed, commands._GROUPS) == number


@pytest.mark.parametrize("typed", ["", "nope", "-1", "65536", "1.5"])
def test_what_is_no_group(typed: str) -> None:
    made, _ = desk()
    with pytest.raises(UsageError, match="no command group") as raised:
        raw(made, typed)
    assert "settings" in str(raised.value.hint)
    assert made.device.requests == 0


@pytest.mark.parametrize("id", [-1, 256])
def test_what_is_no_command(id: int) -> None:
    with pytest.raises(UsageError, match="no command"):
        raw(desk()[0], id=id)


def test_a_request_that_does_not_fit_is_not_sent() -> None:
    made, vendor = desk()
    with pytest.raises(MessageTooLarge):
        raw(made, body=json.dumps({"a": "x" * 600}))
    assert vendor.asked == []
    raw(made, body=json.dumps({"a": "x" * 300}))
    assert len(vendor.asked) == 1


# -- answers ----------------------------------------------------------------------------------------------------------


def reply_of(value: Any) -> Any:
    """What the result of a command is whose answer is `value`, in JSON."""
    command = RawCommand(GROUP, 1, Op.READ, {})
    return to_json(command.result(Reply(1, 1, 0, GROUP, 9, 1, cbor2.dumps(value))))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({}, {}),
        ({"rc": 0}, {"rc": 0}),
        ({"a": [1, -1, True, None, 1.5, "é"]}, {"a": [1, -1, True, None, 1.5, "é"]}),
        ({"a": b"\x00\xff"}, {"a": {"$hex": "00ff"}}),
        ({1: "one", "two": 2}, {"$map": [[1, "one"], ["two", 2]]}),
        ({"a": {b"\x01": {-1: 1}}}, {"a": {"$map": [[{"$hex": "01"}, {"$map": [[-1, 1]]}]]}}),
        ({"a": {"$hex": "00"}}, {"a": {"$map": [["$hex", "00"]]}}),
        ({"a": {"$map": []}}, {"a": {"$map": [["$map", []]]}}),
        ([1, 2], [1, 2]),
        ("text", "text"),
        ({"n": 2**63}, {"n": 2**63}),
        ({"n": float("inf"), "m": float("nan")}, {"n": "inf", "m": "nan"}),
        ({"n": cbor2.undefined}, {"n": None}),
    ],
    ids=str,
)
def test_what_comes_back_is_shown_whole(value: Any, shown: Any) -> None:
    assert reply_of(value) == shown
    lines = commands.RawResult(GROUP, 1, reply_of(value)).lines()
    assert json.loads("\n".join(lines)) == shown


@pytest.mark.parametrize(
    "value", [cbor2.CBORTag(4000, "x"), cbor2.CBORSimpleValue(99), datetime(2026, 2, 28, tzinfo=UTC), 2**64], ids=str
)
def test_what_smp_does_not_have_is_refused(value: Any) -> None:
    with pytest.raises(MalformedReply, match="the device's answer to the request makes no sense: it has"):
        reply_of({"a": value})


def test_nothing_was_looked_at_after_a_write() -> None:
    made, _ = desk({})
    raw(made, write=True)
    assert ["not looked at" in event.text for event in made.events if isinstance(event, Note)] == [True]


def test_an_empty_answer() -> None:
    command = RawCommand(GROUP, 1, Op.READ, {})
    assert command.result(Reply(1, 1, 0, GROUP, 9, 1, b"")) == {}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(2, 9), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "$hex", "$map"]) | st.integers(2, 9), VALUES, max_size=4))
def test_an_answer_can_be_sent_as_it_was_shown(body: dict[Any, Any]) -> None:
    assert body_from_json(json.dumps(to_json(body))) == body


@pytest.mark.parametrize("payload", ["ff", "a1", "a161", "bf6161", "a16161d9ffff"])
def test_answers_that_are_no_cbor(payload: str) -> None:
    command = RawCommand(GROUP, 1, Op.READ, {})
    with pytest.raises(MalformedReply) as raised:
        command.result(Reply(1, 1, 0, GROUP, 9, 1, bytes.fromhex(payload)))
    assert raised.value.payload == bytes.fromhex(payload)
    assert bytes.fromhex(payload).hex(" ") in str(raised.value.hint)


@given(st.binary(max_size=60))
def test_any_answer_is_a_value_or_an_error(payload: bytes) -> None:
    command = RawCommand(GROUP, 1, Op.READ, {})
    try:
        value = command.result(Reply(1, 1, 0, GROUP, 9, 1, payload))
    except (MalformedReply, DeviceError):
        return
    json.dumps(to_json(value), allow_nan=False)


# -- refusals and time-outs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [True, False])
def test_a_command_that_there_is_not(write: bool) -> None:
    with pytest.raises(DeviceError) as raised:
        raw(Desk(), "778", 1, write=write)
    assert (raised.value.group, raised.value.rc) == (None, SmpError.NOT_SUPPORTED)
    assert f"{'without' if write else 'with'} --write" in str(raised.value.hint)


@pytest.mark.parametrize("original", [True, False])
def test_errors_of_a_group_that_nobody_knows(original: bool) -> None:
    made, _ = desk(GroupError(42), config=DeviceConfig(original_only=original))
    with pytest.raises(DeviceError) as raised:
        raw(made)
    expected = (None, 1, "UNKNOWN") if original else (GROUP, 42, None)
    assert (raised.value.group, raised.value.rc, raised.value.name) == expected


def test_errors_of_the_core_groups_have_their_names() -> None:
    with pytest.raises(DeviceError) as raised:
        raw(Desk(), "image", 0, '{"hash": {"$hex": "' + "00" * 32 + '"}}', write=True)
    assert raised.value.name == "HASH_NOT_FOUND"


def test_a_refusal_beside_keys_that_are_no_text() -> None:
    command = RawCommand(GROUP, 1, Op.READ, {})
    with pytest.raises(DeviceError) as raised:
        command.result(Reply(1, 1, 0, GROUP, 9, 1, cbor2.dumps({1: 2, "rc": 5})))
    assert raised.value.rc == 5


@pytest.mark.parametrize(("write", "requests"), [(False, 2), (True, 1)])
def test_a_read_is_repeated_and_a_write_is_not(write: bool, requests: int) -> None:
    faults = Faults(drop_replies=1)
    made, vendor = desk(faults=faults)
    if write:
        with pytest.raises(RequestTimeout):
            raw(made, write=True)
    else:
        raw(made)
    assert len(vendor.asked) == requests


def test_the_application_can_refuse() -> None:
    with pytest.raises(DeviceError) as raised:
        raw(desk(Refused(11))[0])
    assert raised.value.name == "ACCESS_DENIED"


def test_what_plugins_know_can_be_asked_too() -> None:
    made = Desk()
    assert raw(made, "os", 0, '{"d": "hello"}', write=True).reply == {"r": "hello"}
    assert set(raw(made, "os", 6).reply) == {"buf_size", "buf_count"}
    shown = raw(made, "settings", 0, '{"name": "app/led"}').reply
    assert shown == {"val": {"$hex": "01"}}
    assert raw(made, "image", 0).reply["images"][0]["active"] is True


# -- recorded answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for group in (2, 3, 9, 10, 63) for row in recorded(group)], ids=str)
def test_recorded_answers(row: Recorded) -> None:
    header = row.header
    result = result_or_error(row, RawCommand(header.group, header.command, Op(header.op), row.asked))
    if not isinstance(result, DeviceError):
        assert result == row.said


# -- the command line -------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    command = make_command("raw", commands.raw, commands.raw.__mcumgrx_command__)  # type: ignore[attr-defined]
    code = command.main([*arguments, "-d", "sim:", "--json"], prog_name="mcumgrx raw", standalone_mode=False)
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_results_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "settings", "0", '{"name": "app/led"}')
    assert (code, said["result"]) == (0, {"group": 3, "id": 0, "reply": {"val": {"$hex": "01"}}})
    code, said = run(capsys, "0x00", "0x0", "--write", '{"d": "hi"}')
    assert (code, said["result"]["reply"]) == (0, {"r": "hi"})


@pytest.mark.parametrize(
    ("arguments", "code"), [(["99", "1"], 5), (["os", "256"], 2), (["what", "1"], 2), (["os", "0", "{"], 2)], ids=str
)
def test_exit_codes(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    ended, said = run(capsys, *arguments)
    assert (ended, said["error"]["exit"]) == (code, code)


def test_help_has_examples() -> None:
    command = make_command("raw", commands.raw, commands.raw.__mcumgrx_command__)  # type: ignore[attr-defined]
    shown = command.get_help(click.Context(command, info_name="mcumgrx raw"))
    assert "mcumgrx raw settings 0 --write" in shown.partition("\nExample")[2]
