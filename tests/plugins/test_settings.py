"""Group 3 against the simulated device and recorded answers: values and their types, and what is stored when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.cli.main import main
from mcumgrx.client import Client
from mcumgrx.errors import DeviceError, MalformedReply, NotDone, RequestTimeout, UsageError
from mcumgrx.events import Note
from mcumgrx.messages.message import SmpCommand, decode_body
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import Op
from mcumgrx.registry import default_registry
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.groups import Call, GroupError, GroupServer, Handler, Refused
from mcumgrx.sim.groups import settings as sim
from mcumgrx.sim.groups.settings import SettingsConfig, SettingsHandler, SettingsServer
from mcumgrx.sim.link import Faults
from mcumgrx_plugins.settings import commands
from mcumgrx_plugins.settings.group import SettingsGroup
from mcumgrx_plugins.settings.messages import (
    CommitSettings,
    DeleteSetting,
    LoadSettings,
    ReadSetting,
    SaveSettings,
    Setting,
    SettingsErrorCode,
    WriteSetting,
)
from mcumgrx_plugins.settings.values import as_integer, as_text, parse_value

from ..support.recorded import Recorded, recorded, reply_to, result_or_error
from ..support.simulated import CutAnswers, Desk

CODES = {
    1: ("UNKNOWN", 1),
    2: ("KEY_TOO_LONG", 3),
    3: ("KEY_NOT_FOUND", 5),
    4: ("READ_NOT_SUPPORTED", 5),
    5: ("ROOT_KEY_NOT_FOUND", 1),
    6: ("WRITE_NOT_SUPPORTED", 1),
    7: ("DELETE_NOT_SUPPORTED", 1),
    8: ("SAVE_NOT_SUPPORTED", 1),
}


def desk(values: Mapping[str, bytes], *, config: DeviceConfig | None = None, **more: Any) -> Desk:
    made = Desk(config)
    more.setdefault("handlers", (SettingsHandler("app", values, open=True, value_max=300),))
    made.device.add_group(SettingsServer(SettingsConfig(**more)))
    return made


def server(desk: Desk) -> SettingsServer:
    found = desk.device.groups[3]
    assert isinstance(found, SettingsServer)
    return found


class Fake(GroupServer):
    """A group 3 with one answer to everything; an exception is raised."""

    group = 3
    legacy_codes = {number: legacy for number, (_, legacy) in CODES.items()}  # noqa: RUF012

    def __init__(self, answer: Any) -> None:
        keys = [(Op.READ, 0), (Op.WRITE, 0), (Op.WRITE, 1), (Op.WRITE, 2), (Op.READ, 3), (Op.WRITE, 3)]
        handlers: dict[tuple[Op, int], Handler] = {key: self.answer for key in keys}
        super().__init__(handlers)
        self.said = answer
        self.bodies: list[dict[str, Any]] = []

    def answer(self, call: Call) -> Any:
        self.bodies.append(decode_body(call.payload))
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def saying(answer: Any, *, original: bool = False) -> tuple[Desk, Fake]:
    made, fake = Desk(DeviceConfig(original_only=original)), Fake(answer)
    made.device.add_group(fake)
    return made, fake


def get(desk: Desk, name: str = "app/x", type: str | None = None, max_size: int | None = None) -> commands.GetResult:
    return desk.command(commands.get, name=name, type=type, max_size=max_size)


def set_value(desk: Desk, name: str, value: str, type: str = "text", size: int | None = None) -> commands.SetResult:
    return desk.command(commands.set_value, name=name, value=value, type=type, size=size)


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (b"", ["size  0 bytes"]),
        (b"\x01", ["size  1 byte", "hex   01", "uint  1"]),
        (b"\xe8\x03\0\0", ["size  4 bytes", "hex   e8030000", "uint  1000"]),
        (b"\xfe\xff", ["size  2 bytes", "hex   feff", "uint  65534", "int   -2"]),
        (b"desk", ["size  4 bytes", "hex   6465736b", "text  desk", "uint  1802724708"]),
        (b"a\0", ["size  2 bytes", "hex   6100", "text  a", "uint  97"]),
        ("grün ☃".encode(), ["size  9 bytes", "hex   6772c3bc6e20e29883", "text  grün ☃"]),
        (b"a\nb", ["size  3 bytes", "hex   610a62"]),
        (bytes(9), ["size  9 bytes", "hex   000000000000000000"]),
    ],
)
def test_get_in_every_form_that_fits(value: bytes, lines: list[str]) -> None:
    result = get(desk({"x": value}))
    assert result.lines() == lines
    assert (result.size, bytes.fromhex(result.hex), result.may_be_cut) == (len(value), value, False)


@pytest.mark.parametrize(
    ("value", "type", "line"),
    [
        (b"desk", "text", "desk"),
        (b"", "text", ""),
        (b"\xff\xfe", "hex", "fffe"),
        (b"", "hex", ""),
        (b"\xfe\xff", "int", "-2"),
        (b"\xfe\xff", "uint", "65534"),
        (b"\xff\xff\xff", "uint", "16777215"),
        (b"\xff" * 8, "uint", str(2**64 - 1)),
        (b"\xff" * 8, "int", "-1"),
    ],
)
def test_get_as_one_type(value: bytes, type: str, line: str) -> None:
    assert get(desk({"x": value}), type=type).lines() == [line]


@pytest.mark.parametrize(("value", "type"), [(b"\xff", "text"), (b"", "int"), (b"", "uint"), (bytes(9), "int")])
def test_what_the_value_is_not(value: bytes, type: str) -> None:
    with pytest.raises(UsageError, match=f"is no {type}") as raised:
        get(desk({"x": value}), type=type)
    assert "--type hex" in str(raised.value.hint)


def test_a_value_that_is_cut() -> None:
    result = get(desk({"x": b"a" * 40}))
    assert (result.size, result.limit, result.may_be_cut) == (32, 32, True)
    assert result.lines()[0] == "size  32 bytes (cut at 32 bytes, or just as long)"
    assert get(desk({"x": b"a" * 40}), type="text").lines() == ["a" * 32, "(cut at 32 bytes, or just as long)"]
    result = get(desk({"x": b"a" * 31}))
    assert (result.limit, result.may_be_cut) == (32, False)


def test_asking_for_less() -> None:
    result = get(desk({"x": b"abcdef"}), max_size=3)
    assert (result.text, result.limit, result.may_be_cut) == ("abc", None, True)
    result = get(desk({"x": b"ab"}), max_size=3)
    assert (result.text, result.may_be_cut) == ("ab", False)
    result = get(desk({"x": b"a" * 300}, value_max=256), max_size=280)
    assert (result.size, result.limit, result.may_be_cut) == (256, 256, True)


@pytest.mark.parametrize("size", [-1, 1 << 32])
def test_sizes_that_nobody_can_ask_for(size: int) -> None:
    made = desk({"x": b""})
    with pytest.raises(UsageError):
        get(made, max_size=size)

    async def work(client: Client) -> Setting:
        return await client.group(SettingsGroup).read("app/x", size)

    with pytest.raises(UsageError):
        made.client(work)
    assert made.device.requests == 0


def test_a_value_that_does_not_fit_an_answer() -> None:
    with pytest.raises(DeviceError) as raised:
        get(desk({"x": bytes(300)}, value_max=300, config=DeviceConfig(buf_size=128)))
    assert "--max-size" in str(raised.value.hint)


def test_a_text_that_is_cut_inside_a_character_is_still_one() -> None:
    made = desk({"x": ("21.5 " * 6 + "°°").encode()}, value_max=31)
    result = get(made)
    assert (result.size, result.text, result.may_be_cut) == (31, "21.5 " * 6, True)
    assert get(made, type="text").lines()[0] == "21.5 " * 6
    whole = desk({"x": b"21.5 \xc2"})
    assert get(whole).text is None  # not cut, and so no text


def test_texts_of_mynewt() -> None:
    made, fake = saying({"rc": 0, "val": "12", "more": True})
    result = get(made)
    assert fake.bodies == [{"name": "app/x", "max_size": 65535}]
    assert (result.text, result.hex, result.unsigned, result.signed) == ("12", "3132", 12, 12)
    assert result.sent_as_text
    assert result.lines() == ["size  2 bytes", "text  12", "more  yes"]
    assert get(made, type="int").lines() == ["12"]
    assert get(saying({"val": "-0x10"})[0], type="int").signed == -16
    assert get(saying({"val": "-1"})[0]).unsigned is None
    with pytest.raises(UsageError):
        get(saying({"val": "desk"})[0], type="uint")
    assert get(saying({"val": "x" * 70})[0]).may_be_cut is False


@pytest.mark.parametrize(
    "answer",
    [{}, {"val": 1}, {"val": None}, {"val": [b""]}, {"val": 1.5}],
    ids=str,
)
def test_values_that_make_no_sense(answer: dict[str, Any]) -> None:
    command = ReadSetting("app/x")
    with pytest.raises(MalformedReply) as raised:
        command.result(reply_to(command, cbor2.dumps(answer)))
    assert raised.value.payload


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "type", "size", "value"),
    [
        ("desk", "text", None, b"desk"),
        ("", "text", None, b""),
        ("☃", "text", None, "☃".encode()),
        ("a\udcff", "text", None, b"a\xff"),
        ("e803", "hex", None, b"\xe8\x03"),
        ("0xE8 03", "hex", None, b"\xe8\x03"),
        ("00:a1-b2_c3", "hex", None, b"\x00\xa1\xb2\xc3"),
        ("", "hex", None, b""),
        ("1000", "uint", None, b"\xe8\x03\0\0"),
        ("1000", "uint", 2, b"\xe8\x03"),
        ("0x1f", "int", 1, b"\x1f"),
        ("-5", "int", None, b"\xfb\xff\xff\xff"),
        ("255", "uint", 1, b"\xff"),
        ("18446744073709551615", "uint", 8, b"\xff" * 8),
    ],
)
def test_set(typed: str, type: str, size: int | None, value: bytes) -> None:
    made = desk({"x": b"old"})
    result = set_value(made, "app/x", typed, type, size)
    assert (result.size, bytes.fromhex(result.hex)) == (len(value), value)
    assert server(made).runtime["app/x"] == value


def test_set_says_that_it_neither_commits_nor_stores() -> None:
    made = desk({"x": b"old"})
    result = set_value(made, "app/x", "new")
    assert (result.committed, result.stored) == (False, False)
    assert "neither committed nor stored" in result.lines()[0]
    assert "settings commit" in result.lines()[1]
    assert "settings save" in result.lines()[2]
    assert (server(made).applied["app/x"], server(made).stored) == (b"old", {})


@pytest.mark.parametrize(
    ("typed", "type", "size", "said"),
    [
        ("12", "text", 4, "--size"),
        ("12", "hex", 4, "--size"),
        ("1", "hex", None, "not hexadecimal"),
        ("xy", "hex", None, "not hexadecimal"),
        ("1.5", "int", None, "whole number"),
        ("", "uint", None, "whole number"),
        ("256", "uint", 1, "does not fit"),
        ("128", "int", 1, "does not fit"),
        ("-129", "int", 1, "does not fit"),
        ("-1", "uint", 4, "does not fit"),
        ("1", "int", 0, "1 to 8 bytes"),
        ("1", "int", 9, "1 to 8 bytes"),
    ],
)
def test_values_that_are_refused_before_the_device_is_asked(typed: str, type: str, size: int | None, said: str) -> None:
    made = desk({"x": b""})
    with pytest.raises(UsageError, match=said):
        set_value(made, "app/x", typed, type, size)
    assert made.device.requests == 0


def test_negative_numbers_for_uint_have_a_hint() -> None:
    with pytest.raises(UsageError) as raised:
        parse_value("-1", "uint")
    assert "--type int" in str(raised.value.hint)


@given(st.integers(1, 8).flatmap(lambda size: st.tuples(st.just(size), st.binary(min_size=size, max_size=size))))
def test_an_integer_that_was_read_is_written_as_it_was(case: tuple[int, bytes]) -> None:
    size, value = case
    for type, signed in (("int", True), ("uint", False)):
        number = as_integer(value, signed=signed)
        assert number is not None
        assert parse_value(str(number), type, size) == value
        assert parse_value(hex(number), type, size) == value


@given(st.binary(max_size=40))
def test_text_and_hex_that_were_read_are_written_as_they_were(value: bytes) -> None:
    assert parse_value(value.hex(), "hex") == value
    text = as_text(value)
    assert text is None or parse_value(text, "text") == value


# -- commit, save, load, delete ---------------------------------------------------------------------------------------


def test_from_written_to_stored_and_back() -> None:
    made = desk({"x": b"old", "y": b"other"})
    there = server(made)
    set_value(made, "app/x", "new")
    assert made.command(commands.commit).lines()
    assert (there.applied["app/x"], there.stored) == (b"new", {})
    result = made.command(commands.save, name=None)
    assert result.lines()[0].startswith("the settings are stored, says the device")
    assert there.stored == {"app/x": b"new", "app/y": b"other"}
    set_value(made, "app/x", "newer")
    assert made.command(commands.load).lines()
    assert there.runtime["app/x"] == b"new"
    assert "not stored any more" in made.command(commands.delete, name="app/x").lines()[0]
    assert there.stored == {"app/y": b"other"}


def test_saving_a_part() -> None:
    made = desk({"x": b"1", "y": b"2"})
    result = made.command(commands.save, name="app/x")
    assert server(made).stored == {"app/x": b"1"}
    assert result.lines()[0].startswith("app/x is stored")


def test_without_a_place_to_store() -> None:
    made = desk({"x": b"1"}, backend=False)
    with pytest.raises(DeviceError) as raised:
        made.command(commands.save, name=None)
    assert raised.value.name == "SAVE_NOT_SUPPORTED"
    assert "CONFIG_SETTINGS_NVS" in str(raised.value.hint)
    with pytest.raises(DeviceError) as raised:
        made.command(commands.delete, name="app/x")
    assert "store" in str(raised.value.hint)
    for function in (commands.commit, commands.load):
        assert made.command(function).lines()


@pytest.mark.parametrize("reply_lost", [True, False])
@pytest.mark.parametrize(
    ("function", "parameters", "requests"),
    [
        (commands.get, {"name": "app/x", "type": None, "max_size": None}, 2),
        (commands.set_value, {"name": "app/x", "value": "new", "type": "text", "size": None}, 3),
        (commands.delete, {"name": "app/x"}, 1),
        (commands.commit, {}, 1),
        (commands.load, {}, 1),
        (commands.save, {"name": None}, 1),
    ],
)
def test_only_what_does_the_same_twice_is_repeated(
    function: Any, parameters: dict[str, Any], requests: int, reply_lost: bool
) -> None:
    faults = Faults(drop_replies=1) if reply_lost else Faults(drop_requests=1)
    made = Desk(faults=faults)
    made.device.add_group(SettingsServer(SettingsConfig((SettingsHandler("app", {"x": b"1"}),))))
    if requests == 1:
        with pytest.raises(RequestTimeout) as raised:
            made.command(function, **parameters)
        assert raised.value.may_be_done
        assert "does no harm" in str(raised.value.hint)
    else:
        made.command(function, **parameters)
    assert faults.requests == requests


SET = {"name": "app/x", "value": "new", "type": "text", "size": None}


def test_a_value_is_read_back() -> None:
    made = desk({"x": b"old"})
    assert made.command(commands.set_value, **SET).read_back is True
    unreadable = desk({}, handlers=(SettingsHandler("app", {"x": b"old"}, readable=False),))
    result = unreadable.command(commands.set_value, **SET)
    assert result.read_back is None
    assert "says the device, which does not let it be read" in result.lines()[0]
    ignored, _ = saying({"val": b"old"})
    with pytest.raises(NotDone, match="has 6f6c64 when asked"):
        ignored.command(commands.set_value, **SET)


@pytest.mark.parametrize("found", [{"val": b"new\0\0"}, {"val": b"ne", "max_size": 2}, {"val": "new"}])
def test_a_value_that_comes_back_otherwise_is_the_same(found: dict[str, Any]) -> None:
    made, _ = saying(found)
    assert made.command(commands.set_value, **SET).read_back is True


def cut(made: Desk, *requests: tuple[int, int, int]) -> Desk:
    made.transport = CutAnswers(made.device, *requests)
    return made


def test_a_write_whose_answer_cannot_be_read_is_looked_at() -> None:
    made = cut(desk({"x": b"old"}), (Op.WRITE, 3, 0))
    result = made.command(commands.set_value, **SET)
    assert (result.read_back, result.answered) == (True, False)
    assert ["could be read" in event.text for event in made.events if isinstance(event, Note)] == [True]
    ignored = cut(saying({"val": b"old"})[0], (Op.WRITE, 3, 0))
    with pytest.raises(NotDone, match="app/x is not set"):
        ignored.command(commands.set_value, **SET)
    neither = cut(desk({"x": b"old"}), (Op.WRITE, 3, 0), (Op.READ, 3, 0))
    with pytest.raises(MalformedReply, match="may have carried it out") as raised:
        neither.command(commands.set_value, **SET)
    assert "cannot be read either" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("function", "request_"),
    [
        (commands.delete, (Op.WRITE, 3, 1)),
        (commands.commit, (Op.WRITE, 3, 2)),
        (commands.load, (Op.READ, 3, 3)),
        (commands.save, (Op.WRITE, 3, 3)),
    ],
)
def test_what_no_read_can_tell_is_said_to_be_unknown(function: Any, request_: tuple[int, int, int]) -> None:
    parameters = {commands.delete: {"name": "app/x"}, commands.save: {"name": None}}.get(function, {})
    made = desk({"x": b"old"})
    assert "device" in " ".join(made.command(function, **parameters).lines())  # who says so
    with pytest.raises(MalformedReply, match="may have carried it out") as raised:
        cut(made, request_).command(function, **parameters)
    assert "nothing that the device can be asked tells" in str(raised.value.hint)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error", "hint"),
    [
        ("nope/x", "ROOT_KEY_NOT_FOUND", "handler"),
        ("app/none", "KEY_NOT_FOUND", ""),
        ("write/only", "READ_NOT_SUPPORTED", "handler"),
        ("a/" + "b" * 40, "KEY_TOO_LONG", "CONFIG_MCUMGR_GRP_SETTINGS_NAME_LEN"),
    ],
)
def test_names_that_cannot_be_read(name: str, error: str, hint: str) -> None:
    handlers = (SettingsHandler("app", {}), SettingsHandler("write", {"only": b""}, readable=False))
    with pytest.raises(DeviceError) as raised:
        get(desk({}, handlers=handlers), name)
    assert (raised.value.group, raised.value.name) == (3, error)
    assert hint in str(raised.value.hint)


def test_what_cannot_be_written() -> None:
    made = desk({}, handlers=(SettingsHandler("id", {"serial": b"1"}, writable=False),))
    with pytest.raises(DeviceError) as raised:
        set_value(made, "id/serial", "2")
    assert raised.value.name == "WRITE_NOT_SUPPORTED"


def test_a_server_that_wants_texts() -> None:
    made, _ = saying(Refused(3))
    with pytest.raises(DeviceError) as raised:
        set_value(made, "id/serial", "2")
    assert "Mynewt" in str(raised.value.hint)

    async def work(client: Client) -> None:
        await client.group(SettingsGroup).write("id/serial", "2")

    made, fake = saying({"rc": 0})
    made.client(work)
    assert fake.bodies == [{"name": "id/serial", "val": "2"}]


@pytest.mark.parametrize("name", ["", "a\udcff"])
def test_names_that_cannot_be_sent(name: str) -> None:
    made = desk({"x": b""})
    with pytest.raises(UsageError):
        get(made, name)
    with pytest.raises(UsageError):
        set_value(made, name, "x")
    for function in (commands.delete, commands.save):
        with pytest.raises(UsageError):
            made.command(function, name=name)
    assert made.device.requests == 0


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (commands.get, {"name": "app/x", "type": None, "max_size": None}),
        (commands.set_value, {"name": "app/x", "value": "new", "type": "text", "size": None}),
        (commands.delete, {"name": "app/x"}),
        (commands.commit, {}),
        (commands.load, {}),
        (commands.save, {"name": None}),
    ],
)
def test_a_device_without_settings(function: Any, parameters: dict[str, Any]) -> None:
    with pytest.raises(DeviceError) as raised:
        Desk(DeviceConfig(groups=(0, 1))).command(function, **parameters)
    assert raised.value.rc == SmpError.NOT_SUPPORTED
    assert "CONFIG_MCUMGR_GRP_SETTINGS " in str(raised.value.hint)


def test_the_error_table() -> None:
    assert {int(code): code.name for code in SettingsErrorCode} == {number: name for number, (name, _) in CODES.items()}
    assert {int(code): code.name for code in sim.SettingsErrorCode} == {
        int(code): code.name for code in SettingsErrorCode
    }
    for code in SettingsErrorCode:
        assert " " in code.sentence
        assert not code.sentence.endswith(".")


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("original", [False, True])
def test_every_error_has_its_name(number: int, original: bool) -> None:
    name, legacy = CODES[number]
    with pytest.raises(DeviceError) as raised:
        get(saying(GroupError(number), original=original)[0])
    error = raised.value
    expected = (None, legacy, SmpError(legacy).name) if original else (3, number, name)
    assert (error.group, error.rc, error.name) == expected


# -- messages and recordings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message", "repeatable"),
    [
        (ReadSetting("a"), "0800000800030900 a1 646e616d65 6161", True),
        (ReadSetting("a", 16), "0800001200030900 a2 646e616d65 6161 686d61785f73697a65 10", True),
        (WriteSetting("a", b"\x01"), "0a00000e00030900 a2 646e616d65 6161 6376616c 4101", True),
        (WriteSetting("a", "1"), "0a00000e00030900 a2 646e616d65 6161 6376616c 6131", True),
        (DeleteSetting("a"), "0a00000800030901 a1 646e616d65 6161", False),
        (CommitSettings(), "0a00000100030902 a0", False),
        (LoadSettings(), "0800000100030903 a0", False),
        (SaveSettings(), "0a00000100030903 a0", False),
        (SaveSettings("a"), "0a00000800030903 a1 646e616d65 6161", False),
    ],
)
def test_requests_on_the_wire(command: SmpCommand[Any], message: str, repeatable: bool) -> None:
    assert command.request().encode(1, 9).hex() == message.replace(" ", "")
    assert command.request().repeatable is repeatable


RECORDED = recorded(3)


def typed(row: Recorded) -> SmpCommand[Any]:
    """The typed command whose answer this is."""
    name = row.asked.get("name", "")
    match (row.header.op, row.header.command):
        case (Op.READ, 0):
            return ReadSetting(name, row.asked.get("max_size"))
        case (Op.WRITE, 0):
            return WriteSetting(name, row.asked.get("val", b""))
        case (Op.WRITE, 1):
            return DeleteSetting(name)
        case (Op.WRITE, 2):
            return CommitSettings()
        case (Op.READ, 3):
            return LoadSettings()
        case (Op.WRITE, 3):
            return SaveSettings()
    raise AssertionError(row.name)


@pytest.mark.parametrize("row", RECORDED, ids=str)
def test_recorded_answers_become_typed_results(row: Recorded) -> None:
    command = typed(row)
    result = result_or_error(row, command)
    assert isinstance(result, DeviceError) or (result is None and isinstance(command, (CommitSettings, LoadSettings)))
    if "without" not in row.name:
        assert command.body() == row.asked


def test_the_recordings_have_every_command_of_the_group() -> None:
    assert len(RECORDED) > 30
    assert len({type(typed(row)) for row in RECORDED}) == 6


# -- the command line -------------------------------------------------------------------------------------------------

OURS = sorted(name for name in default_registry().commands if name.startswith("settings "))


def test_every_command_is_here() -> None:
    names = {name.removeprefix("settings ") for name in OURS}
    assert names == {"get", "set", "delete", "commit", "load", "save"}


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
    code, said = run(capsys, "settings", "get", "app/interval")
    assert code == 0
    assert said["result"] == {
        "name": "app/interval", "type": None, "size": 4, "hex": "e8030000", "text": None, "unsigned": 1000,
        "signed": 1000, "limit": 32, "may_be_cut": False, "sent_as_text": False, "extra": {},
    }  # fmt: skip
    _, said = run(capsys, "settings", "set", "app/interval", "500", "--type", "uint")
    assert said["result"] == {
        "name": "app/interval", "type": "uint", "size": 4, "hex": "f4010000", "read_back": True, "answered": True,
        "committed": False, "stored": False,
    }  # fmt: skip
    _, said = run(capsys, "settings", "save", "app")
    assert said["result"] == {"name": "app"}


def test_a_negative_number_behind_two_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    _, said = run(capsys, "settings", "set", "user/offset", "--type", "int", "--size", "2", "--", "-5")
    assert said["result"]["hex"] == "fbff"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["get"], 2),
        (["get", "nope"], 5),
        (["get", "app/interval", "--type", "float"], 2),
        (["get", "app/interval", "--max-size", "x"], 2),
        (["get", "app/led", "--max-size", "0", "--type", "int"], 2),
        (["set", "app/interval"], 2),
        (["set", "app/interval", "x", "--type", "int"], 2),
        (["set", "id/serial", "x"], 5),
        (["delete"], 2),
        (["save", ""], 2),
    ],
    ids=str,
)
def test_exit_codes(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    ended, said = run(capsys, "settings", *arguments)
    assert (ended, said["error"]["exit"]) == (code, code)
