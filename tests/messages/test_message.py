"""Bodies, errors in every shape, and typed fields.

Invariant: whatever bytes a reply carries, it gives a typed result, or `DeviceError`, or `MalformedReply`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.errors import DeviceError, ErrorCode, MalformedReply, MessageTooLarge, UsageError
from mcumgrx.former_names import Command
from mcumgrx.messages.message import (
    MAX_LEVELS,
    Body,
    Fields,
    Reply,
    Request,
    SmpCommand,
    decode_body,
    encode_body,
    raise_for_error,
)
from mcumgrx.messages.standard import Echo, EraseImage, ReadImageState, ReadParams, UploadChunk
from mcumgrx.protocol.codes import ImageErrorCode, OsErrorCode, SmpError
from mcumgrx.protocol.header import GroupId, Header, Op

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


# -- bodies ---------------------------------------------------------------------------------------------------------

# (hex, value): encoded to exactly these bytes, and decoded from them.
BODIES: list[tuple[str, Body]] = [
    ("a0", {}),
    ("a1616465 68656c6c6f", {"d": "hello"}),
    ("a1657175657279 646d6f6465", {"query": "mode"}),
    ("a2636f666600 64646174614101", {"off": 0, "data": b"\x01"}),
    ("a1636f6666 17", {"off": 23}),
    ("a1636f6666 1818", {"off": 24}),
    ("a1636f6666 18ff", {"off": 255}),
    ("a1636f6666 190100", {"off": 256}),
    ("a1636f6666 1a00010000", {"off": 65536}),
    ("a1636f6666 1b0000000100000000", {"off": 2**32}),
    ("a1 647072696f 20", {"prio": -1}),
    ("a1 67636f6e6669726d f5", {"confirm": True}),
    ("a1 67636f6e6669726d f4", {"confirm": False}),
    ("a1 6161 f6", {"a": None}),
    ("a1 6161 820102", {"a": [1, 2]}),
    ("a1 6161 a1 6162 60", {"a": {"b": ""}}),
]


@pytest.mark.parametrize(("text", "body"), BODIES)
def test_bodies_both_ways(text: str, body: Body) -> None:
    data = bytes.fromhex(text)
    assert encode_body(body).hex() == data.hex()
    assert decode_body(data) == body


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("", {}),
        ("bfff", {}),
        ("bf 6172 65 68656c6c6f ff", {"r": "hello"}),
        ("bf 6172 7f 626865 636c6c6f ff ff", {"r": "hello"}),
        ("a1 6172 60 ffffff", {"r": ""}),  # bytes behind the map are ignored
        ("a1 636f6666 1b0000000000000005", {"off": 5}),  # longer than it must be
        ("a2 6161 01 6161 02", {"a": 2}),  # equal keys: the last counts
        ("a3 01 02 4161 02 6161 03", {"a": 3}),  # keys that are no text: a vendor's
        ("a2 6161 f7 6162 f6", {"a": None, "b": None}),  # undefined is no value either
        ("a3 6161 f93c00 6162 fa3fc00000 6163 fb3ff8000000000000", {"a": 1.0, "b": 1.5, "c": 1.5}),
        ("a1 6161 5f 4101 40 4102 ff", {"a": b"\x01\x02"}),
        ("a1 6161 7f 61c3 61bc ff", {"a": "ü"}),  # a character in two pieces
        ("a1 6161 3bffffffffffffffff", {"a": -(2**64)}),
    ],
)
def test_what_servers_may_send_as_well(text: str, body: Body) -> None:
    assert decode_body(bytes.fromhex(text)) == body


@pytest.mark.parametrize(
    "text",
    [
        "80",  # a list
        "01",
        "f6",
        "6161",
        "a1",  # cut
        "a1 6161",
        "bf 6161 01",
        "ff",
        "a1 6161 1f",
        "1c",
        "bb ffffffffffffffff 6161",  # lengths that lie
        "a1 6161 5b 7fffffffffffffff 00",
        "a1 6161 9b 7fffffffffffffff 00",
        "a1 6161 7b 00000000ffffffff 00",
        "a1 6161 c0 6161",  # a date that is none
        "a1 6161 c2 01",  # a big number that is none
        "a1 6161 c2 49 010000000000000000",  # and one that is more than 64 bits
        "a1 6161 d81c 81 d81d 00",  # a list that holds itself
        "a1 6161 d823 6178",  # a pattern
        "d9d9f7 a0",  # a tag that says no more than "CBOR"
        "a1 6161 e0",  # simple values that nobody has given a meaning
        "a1 6161 f8ff",
        "a1 6161 f820",
        "a1 f5 01",  # true as key, which would be the same as 1
        "a1 6161 7f 4161 ff",  # pieces of another kind
        "a1 6161 7f 7f 6161 ff ff",  # pieces in pieces
        "a1 6161 3f",
        "a1 6161 ff",
        "a1 81 6161 01",  # a list as key
    ],
)
def test_what_is_no_body_is_a_malformed_reply(text: str) -> None:
    data = bytes.fromhex(text)
    with pytest.raises(MalformedReply) as raised:
        decode_body(data)
    assert raised.value.payload == data


def test_a_text_that_is_no_utf_8_is_not_sent() -> None:
    with pytest.raises(UsageError, match=r"'a\\udcff' is not a text that can be sent"):
        encode_body({"list": [{"name": "a\udcff"}]})


@pytest.mark.parametrize("opening", [b"\x81", b"\x9f", b"\xa1\x61a", b"\xbf\x61a", b"\xc1"])
def test_endless_nesting_is_a_malformed_reply(opening: bytes) -> None:
    with pytest.raises(MalformedReply):
        decode_body(b"\xa1\x61x" + opening * 20_000)


def test_as_many_levels_as_are_allowed() -> None:
    lists = MAX_LEVELS - 1  # the map is one as well
    assert decode_body(b"\xa1\x61x" + b"\x81" * lists + b"\x00")["x"] is not None
    with pytest.raises(MalformedReply, match=f"nested more than {MAX_LEVELS} levels"):
        decode_body(b"\xa1\x61x" + b"\x81" * (lists + 1) + b"\x00")


def test_shared_references_are_not_followed() -> None:
    levels = 24  # each twice the one before
    shared = b"".join(b"\xd8\x1c\x82" + (b"\xd8\x1d" + bytes([n])) * 2 for n in range(levels))
    with pytest.raises(MalformedReply, match="has a tag at byte"):
        decode_body(b"\xa1\x61x\x98" + bytes([levels]) + shared)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_map_with_text_keys_or_malformed(data: bytes) -> None:
    try:
        body = decode_body(data)
    except MalformedReply:
        return
    assert all(isinstance(key, str) for key in body)


@given(st.binary(max_size=48), st.sampled_from([Echo("x"), ReadParams(), ReadImageState(), UploadChunk(0, b"")]))
def test_any_bytes_are_a_result_or_one_of_two_errors(data: bytes, command: SmpCommand[Any]) -> None:
    reply = Reply(command.facts.op.reply, 1, 0, command.facts.group, 0, command.facts.number, data)
    error: Exception | None = None
    try:
        command.result(reply)
    except (MalformedReply, DeviceError) as raised:
        error = raised
    if isinstance(error, MalformedReply):
        assert error.payload == data
    if isinstance(error, DeviceError):
        assert error.rc != 0


# -- errors ---------------------------------------------------------------------------------------------------------


def check(body: Body, *, group: int = 1, command: int = 0) -> None:
    raise_for_error(body, group=group, number=command, what="image list")


@pytest.mark.parametrize(
    ("body", "group", "rc", "name"),
    [
        ({"rc": 8}, None, 8, "NOT_SUPPORTED"),
        ({"rc": 13}, None, 13, "TOO_NEW"),
        ({"rc": 99}, None, 99, None),
        ({"rc": -5}, None, -5, None),
        ({"rc": 256}, None, 256, None),
        ({"err": {"group": 1, "rc": 9}}, 1, 9, "NO_FREE_SLOT"),
        ({"err": {"group": 0, "rc": 2}}, 0, 2, "INVALID_FORMAT"),
        ({"err": {"group": 1, "rc": 77}}, 1, 77, None),
        ({"err": {"group": 100, "rc": 1}}, 100, 1, None),
        ({"err": {"rc": 30}}, 1, 30, "INVALID_IMAGE_TOO_LARGE"),  # without its group: that of the request
        ({"ret": {"group": 1, "rc": 8}}, 1, 8, "HASH_NOT_FOUND"),  # the name that Zephyr 3.4 gave it
        ({"off": 0, "err": {"group": 1, "rc": 16}}, 1, 16, "FLASH_CONTEXT_ALREADY_SET"),  # beside a result
        ({"rc": 0, "err": {"group": 1, "rc": 32}}, 1, 32, "IMAGE_CONFIRMATION_DENIED"),
        ({"rc": 5, "err": {"group": 1, "rc": 32}}, 1, 32, "IMAGE_CONFIRMATION_DENIED"),
        ({"rc": 5, "err": "broken"}, None, 5, "NO_ENTRY"),
    ],
)
def test_every_way_to_say_no(body: Body, group: int | None, rc: int, name: str | None) -> None:
    with pytest.raises(DeviceError) as raised:
        check(body)
    error = raised.value
    assert (error.group, error.rc, error.name) == (group, rc, name)
    assert error.reply == body
    assert "image list" in str(error)
    assert str(rc) in str(error)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"rc": 0},
        {"rc": False},
        {"rc": "8"},
        {"rc": None},
        {"off": 5},
        {"err": {"group": 1, "rc": 0}},
        {"err": {}},
        {"err": []},
        {"ret": 5},  # the shell's exit status
        {"ret": -8, "o": "text"},
    ],
)
def test_what_is_no_error(body: Body) -> None:
    check(body)


def test_the_shells_exit_status_in_rc_is_no_error_but_only_there() -> None:
    check({"rc": 1, "o": "help text"}, group=GroupId.SHELL)
    with pytest.raises(DeviceError):
        check({"rc": 8}, group=GroupId.SHELL)
    with pytest.raises(DeviceError):
        check({"rc": 1, "o": "x"}, group=GroupId.SHELL, command=1)
    with pytest.raises(DeviceError):
        check({"rc": 1, "o": "x"}, group=GroupId.OS)


def test_the_devices_own_words_are_kept() -> None:
    with pytest.raises(DeviceError, match='it says "magic mismatch"') as raised:
        check({"rc": 1, "rsn": "magic mismatch"})
    assert raised.value.rsn == "magic mismatch"
    with pytest.raises(DeviceError) as raised:
        check({"rc": 1, "rsn": 5})
    assert raised.value.rsn is None


def test_known_errors_carry_a_hint() -> None:
    with pytest.raises(DeviceError) as raised:
        check({"err": {"group": 1, "rc": ImageErrorCode.NO_FREE_SLOT}})
    assert raised.value.hint == ImageErrorCode.NO_FREE_SLOT.hint


class HeaterError(ErrorCode):
    TOO_HOT = 3, "the heater is too hot", "wait until it has cooled down"
    TOO_COLD = 4


def test_a_code_of_another_group_is_a_hooks() -> None:
    def said(group: int, rc: int) -> DeviceError:
        with pytest.raises(DeviceError) as raised:
            raise_for_error({"err": {"group": group, "rc": rc}}, group=GroupId.FILE_SYSTEM, number=0, what="x")
        return raised.value

    assert (said(100, 3).group, said(63, 2).group) == (100, 63)
    assert "hook" in str(said(100, 3).hint)
    assert said(GroupId.IMAGE, ImageErrorCode.NO_IMAGE).name == "NO_IMAGE"
    assert said(GroupId.FILE_SYSTEM, 99).hint is None


def test_fields_are_sent_by_their_names_and_no_result_is_none() -> None:
    @dataclass(frozen=True, slots=True)
    class Store(SmpCommand[None], group=70, number=1, op=Op.WRITE):
        name: str
        size: int | None = None
        cold: bool = False

    assert Store("a").body() == {"name": "a", "cold": False}
    assert list(Store("a", 3, True).body().items()) == [("name", "a"), ("size", 3), ("cold", True)]
    assert Store("a").result(Reply(3, 1, 0, 70, 0, 1, encode_body({"new": 1}))) is None

    class Old(Command[None]):
        group = 70
        command = 1
        name: str = "a"

    old: Any = dataclass(Old)
    assert old("b").body() == {}


def test_error_tables_of_plugins() -> None:
    assert HeaterError.find(3) is HeaterError.TOO_HOT
    assert HeaterError.find(5) is None
    assert int(HeaterError.TOO_HOT) == 3
    assert HeaterError.TOO_COLD.sentence == ""
    assert HeaterError.TOO_COLD.hint is None

    @dataclass(frozen=True, slots=True)
    class ReadHeater(SmpCommand[int], group=100, number=0, what="reading", errors=HeaterError):
        def parse(self, fields: Fields) -> int:
            return fields.integer("t")

    def reply(body: Body) -> Reply:
        return Reply(Op.READ_REPLY, 1, 0, 100, 0, 0, encode_body(body))

    assert ReadHeater().result(reply({"t": 21, "rc": 0})) == 21
    with pytest.raises(DeviceError, match="too hot") as raised:
        ReadHeater().result(reply({"err": {"group": 100, "rc": 3}}))
    assert raised.value.name == "TOO_HOT"
    assert raised.value.hint == "wait until it has cooled down"
    with pytest.raises(DeviceError, match="no image"):
        ReadHeater().result(reply({"err": {"group": 1, "rc": 3}}))


class VendorError(ErrorCode):
    TOO_HOT = 259, "the head is too hot", "let it cool"


def test_numbers_of_version_1_that_an_application_has_itself() -> None:
    @dataclass(frozen=True, slots=True)
    class Ask(SmpCommand[Body], group=70, number=1, op=Op.WRITE, errors=VendorError):
        def parse(self, fields: Fields) -> Body:
            return fields.extra()

    def said(rc: int) -> DeviceError:
        with pytest.raises(DeviceError) as raised:
            Ask().result(Reply(Op.WRITE_REPLY, 0, 0, 70, 0, 1, encode_body({"rc": rc})))
        return raised.value

    assert (said(259).group, said(259).name, said(259).hint) == (70, "TOO_HOT", "let it cool")
    assert said(259).says(VendorError.TOO_HOT)
    assert (said(260).group, said(260).rc, said(260).code) == (None, 260, None)
    assert said(8).says(SmpError.NOT_SUPPORTED)


# -- commands ---------------------------------------------------------------------------------------------------------


class Acme:
    """What names a group once for all."""

    id = 70

    def error_table(self) -> type[ErrorCode]:
        return VendorError


def test_a_field_can_have_the_name_of_any_fact() -> None:
    @dataclass(frozen=True, slots=True)
    class Store(SmpCommand[Body], group=70, number=1, op=Op.WRITE, what="store", timeout_s=3.0):
        op: str
        group: int
        number: int = 5
        command: int = 6
        what: str = "gain"
        errors: tuple[int, ...] = ()
        timeout_s: float = 1.5
        repeatable: bool = True
        changes: bool = False

        def body(self) -> Body:
            return {"op": self.op, "group": self.group, "what": self.what}

        def parse(self, fields: Fields) -> Body:
            return fields.extra()

    request = Store("store", 9).request()
    facts = request.facts
    assert (facts.op, facts.group, facts.number, request.what) == (Op.WRITE, 70, 1, "store")
    assert (request.repeatable, request.changes) == (False, True)
    assert decode_body(request.payload) == {"op": "store", "group": 9, "what": "gain"}
    assert Store.facts.timeout_s == 3.0


@pytest.mark.parametrize("name", ["facts", "body", "parse", "request", "result"])
def test_a_field_cannot_have_the_name_of_a_method(name: str) -> None:
    with pytest.raises(TypeError, match=f"the field '{name}' of Store"):
        type("Store", (SmpCommand,), {"__annotations__": {name: int}})


def test_a_command_without_a_group_or_a_number_is_told_at_its_definition() -> None:
    with pytest.raises(TypeError, match="Lacks has no group: class Lacks\\("):

        class Lacks(SmpCommand[None], number=1):
            pass

    with pytest.raises(TypeError, match="Neither has no group and no number"):

        class Neither(SmpCommand[None]):
            def parse(self, fields: Fields) -> None:
                return None

    with pytest.raises(TypeError, match="'op' of Stray is a keyword: class Stray\\(SmpCommand\\[…\\], op=…\\)"):

        class Stray(SmpCommand[None], group=70, number=1):
            op = Op.WRITE

    with pytest.raises(TypeError, match="the number of Large is 256, not a number from 0 to 255"):

        class Large(SmpCommand[None], group=70, number=256):
            pass

    with pytest.raises(TypeError, match="the group of Named is 'heater', not a number from 0 to 65535"):

        class Named(SmpCommand[None], group="heater", number=1):  # type: ignore[arg-type]
            pass

    with pytest.raises(TypeError, match="colour"):

        class Odd(SmpCommand[None], group=1, number=1, colour="red"):
            pass


def test_a_derived_command_takes_over_what_it_does_not_name() -> None:
    class Vendors(SmpCommand[Body]):
        """A base for several."""

    class Read(Vendors, group=70, number=1, what="reading", repeatable=True):
        def parse(self, fields: Fields) -> Body:
            return fields.extra()

    class ReadMore(Read, number=2):
        pass

    class Write(Read, op=Op.WRITE):
        pass

    assert (ReadMore.facts.group, ReadMore.facts.number, ReadMore.facts.what) == (70, 2, "reading")
    assert (Read.facts.changes, Write.facts.op, Write.facts.changes) == (False, Op.WRITE, True)
    assert (Read.facts.number, Read.facts.errors) == (1, None)


def test_a_group_names_its_number_and_its_errors_once() -> None:
    class Read(SmpCommand[Body], group=Acme(), number=1):
        def parse(self, fields: Fields) -> Body:
            return fields.extra()

    assert (Read.facts.group, Read.facts.error_table()) == (70, VendorError)
    with pytest.raises(DeviceError, match="too hot"):
        Read().result(Reply(Op.READ_REPLY, 1, 0, 70, 0, 1, encode_body({"err": {"group": 70, "rc": 259}})))


def test_commands_from_before_the_contract() -> None:
    @dataclass(frozen=True, slots=True)
    class Ask(Command[Body]):
        what: ClassVar[str] = "question"
        group, command, op, errors = 70, 1, Op.WRITE, VendorError
        value: int = 4

        def body(self) -> Body:
            return {"value": self.value}

        def parse(self, fields: Fields) -> Body:
            return fields.extra()

    assert Ask(5).request().what == "question"
    assert (Ask.facts.number, Ask.facts.error_table()) == (1, VendorError)

    with pytest.raises(TypeError, match="the field 'op' of Store"):

        class Store(Command[Body]):
            group, command = 70, 1
            op: str = "store"

    class Late(Command[Body]):
        command = 1

    with pytest.raises(TypeError, match="the command Late has no group"):
        Late().request()
    Late.group = 70  # type: ignore[attr-defined]
    assert (Late().request().facts.group, Late().request().facts.number) == (70, 1)


@pytest.mark.parametrize("table", [SmpError, OsErrorCode, ImageErrorCode])
def test_tables_of_error_codes_have_a_sentence_for_each(table: type[ErrorCode]) -> None:
    for code in table:
        assert code.sentence, code
        assert not code.sentence.endswith("."), code
    assert len({int(code) for code in table}) == len(list(table))


# -- fields ---------------------------------------------------------------------------------------------------------


def test_fields_of_maps_in_maps_and_of_lists() -> None:
    fields = Fields(
        {
            "head": {"t": 21.5, "name": "left", "limits": {"max": 80}, 7: "no text", "more": 1},
            "n": [1, 2],
            "f": [1, 2.5],
            "s": ["a", "b"],
            "odd": [1, "x", True, 2],
            "flat": 3,
        }
    )
    head = fields.nested("head")
    assert (head.number("t"), head.optional_text("name"), head.nested("limits").integer("max")) == (21.5, "left", 80)
    assert head.extra() == {"more": 1}
    assert (fields.integers("n"), fields.numbers("f"), fields.texts("s")) == ([1, 2], [1.0, 2.5], ["a", "b"])
    assert (fields.integers("none"), fields.optional_nested("none")) == ([], None)
    assert fields.integers("odd") == [1, 2]
    assert fields.extra() == {"odd": [1, "x", True, 2], "flat": 3}
    assert fields.lenient.optional_nested("flat") is None
    with pytest.raises(MalformedReply, match=r"it lacks 'none'"):
        fields.nested("none")
    with pytest.raises(MalformedReply, match=r"'flat' in it is an integer, not a map"):
        fields.optional_nested("flat")
    with pytest.raises(MalformedReply, match=r"'flat' in it is an integer, not a list"):
        fields.texts("flat")
    with pytest.raises(MalformedReply, match=r"it lacks 'head'\['limits'\]\['min'\]"):
        fields.nested("head").nested("limits").integer("min")


def test_fields_by_type() -> None:
    fields = Fields({"n": 5, "t": "x", "d": b"y", "f": True, "old": 1, "new": [1], "list": [{"a": 1}, {"b": 2}]})
    assert fields.integer("n") == 5
    assert fields.text("t") == "x"
    assert fields.data("d") == b"y"
    assert fields.flag("f") is True
    assert fields.flag("old") is True
    assert [item.extra() for item in fields.maps("list")] == [{"a": 1}, {"b": 2}]
    assert fields.extra() == {"new": [1]}
    fields.ignore("new")
    assert fields.extra() == {}


def test_missing_fields() -> None:
    fields = Fields({"null": None})
    assert fields.integer("n", 7) == 7
    assert fields.text("t", "") == ""
    assert fields.data("d", b"") == b""
    assert fields.flag("f") is False
    assert fields.optional_integer("n") is None
    assert fields.optional_data("d") is None
    assert fields.optional_flag("f") is None
    assert fields.optional_integer("null") is None
    assert list(fields.maps("list")) == []
    assert fields.extra() == {}
    for read in (fields.integer, fields.text, fields.data):
        with pytest.raises(MalformedReply, match="lacks 'x'"):
            read("x")


@pytest.mark.parametrize("value", [True, 1.0, "1", b"1", [], {}, 1 + 0j])
def test_an_integer_is_nothing_else(value: object) -> None:
    with pytest.raises(MalformedReply, match=r"'x' in it is .*, not an integer"):
        Fields({"x": value}).integer("x")


@pytest.mark.parametrize("value", [2, -1, "true", b"", [], {}])
def test_a_flag_is_a_boolean_or_zero_or_one(value: object) -> None:
    with pytest.raises(MalformedReply, match="not true or false"):
        Fields({"x": value}).flag("x")


def test_text_and_data_are_not_each_other() -> None:
    with pytest.raises(MalformedReply, match="not text"):
        Fields({"x": b"x"}).text("x")
    with pytest.raises(MalformedReply, match="not a byte string"):
        Fields({"x": "x"}).data("x")


@pytest.mark.parametrize("value", [{}, "x", 5])
def test_a_list_of_maps_is_nothing_else(value: object) -> None:
    with pytest.raises(MalformedReply, match="'x' in it is"):
        list(Fields({"x": value}).maps("x"))


@pytest.mark.parametrize("value", [[], "x", 5])
def test_named_maps_are_nothing_else(value: object) -> None:
    with pytest.raises(MalformedReply, match="'x' in it is"):
        list(Fields({"x": value}).named_maps("x"))


def test_what_is_no_map_in_a_list_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mcumgrx.messages")
    fields = Fields({"x": [{"a": 1}, 5, {5: 5}, {"a": 2}], "y": {"one": {"a": 3}, "two": None, 3: {}}})
    assert [item.extra() for item in fields.maps("x")] == [{"a": 1}, {}, {"a": 2}]
    assert [(name, item.extra()) for name, item in fields.named_maps("y")] == [("one", {"a": 3})]
    assert "1 of 4 entries of 'x' in the reply are no maps, or empty; the first, [1], is an integer" in caplog.text
    assert list(fields.maps("absent")) == list(fields.named_maps("absent")) == []


@pytest.mark.parametrize("item", [{}, 0])
def test_a_list_of_entries_that_say_nothing_is_passed_over_in_a_word(
    item: object, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer of 61 KB has room for 60,000 of them: as slots they took seconds, and as many lines."""
    caplog.set_level("INFO", "mcumgrx.messages")
    assert list(Fields({"x": [item] * 60_000}).maps("x")) == []
    assert len(caplog.records) == 1


ODD = {"i": "1", "n": "1.5", "t": b"\xff", "d": "x", "f": "yes"}


def test_an_odd_value_in_an_entry_costs_that_value() -> None:
    (item,) = Fields({"x": [{**ODD, "good": 1}]}).maps("x")
    assert (item.integer("i", 7), item.number("n", 7.5), item.text("t", "-"), item.data("d", b"-")) == (
        7,
        7.5,
        "-",
        b"-",
    )
    assert item.flag("f") is False
    assert item.optional_integer("i") is item.optional_number("n") is item.optional_text("t") is None
    assert item.optional_data("d") is item.optional_flag("f") is None
    assert item.integer("good") == 1
    assert item.extra() == ODD  # shown, not dropped
    with pytest.raises(MalformedReply, match=r"'x'\[0\]\['i'\] in it is text, not an integer"):
        item.integer("i")


def test_a_text_as_a_byte_string_is_a_text_in_an_entry() -> None:
    (item,) = Fields({"x": [{"version": b"1.0.0", "name": b"\x00\x01"}]}).maps("x")
    assert (item.text("version"), item.optional_text("name")) == ("1.0.0", None)
    assert item.extra() == {"name": b"\x00\x01"}
    with pytest.raises(MalformedReply, match="not text"):
        Fields({"version": b"1.0.0"}).text("version")


def test_an_odd_value_beside_a_list_is_an_error_where_it_matters() -> None:
    fields = Fields(ODD)
    for read in (fields.optional_integer, fields.integer):
        with pytest.raises(MalformedReply):
            read("i")
    assert fields.lenient.optional_integer("i") is None
    assert fields.lenient.text("t", "") == ""
    assert fields.extra()["i"] == "1"
    fields.lenient.text("i")
    assert "i" not in fields.extra()


def test_numbers_with_a_fraction() -> None:
    fields = Fields({"a": 1.5, "b": 2, "c": True})
    assert (fields.number("a"), fields.number("b"), fields.optional_number("d")) == (1.5, 2.0, None)
    with pytest.raises(MalformedReply, match="'c' in it is true or false, not a number"):
        fields.number("c")


def test_a_reply_without_a_body() -> None:
    with pytest.raises(MalformedReply, match="it is empty, and should hold 'images'") as raised:
        ReadImageState().result(Reply(1, 1, 0, 1, 0, 0, b""))
    assert str(raised.value).startswith("the device's answer to the image list makes no sense: ")
    assert "firmware" in (raised.value.hint or "")
    EraseImage().result(Reply(3, 1, 0, 1, 0, 5, b""))  # which has nothing to tell


def test_who_is_to_blame_is_told_once() -> None:
    error = MalformedReply("it lacks 'off'")
    error.concerns("upload", b"\xa0")
    error.concerns("something else", b"")
    assert error.message == "the device's answer to the upload makes no sense: it lacks 'off'"
    assert error.hint == "that is a mistake of the device's firmware, which sent 1 bytes: a0"
    assert error.payload == b"\xa0"


def test_what_a_device_error_says() -> None:
    def said(body: Body) -> DeviceError:
        with pytest.raises(DeviceError) as raised:
            raise_for_error(body, group=1, number=0, what="x")
        return raised.value

    plain, grouped = said({"rc": 8}), said({"err": {"group": 1, "rc": 8}})
    assert plain.says(SmpError.NOT_SUPPORTED)
    assert not plain.says(ImageErrorCode.HASH_NOT_FOUND)
    assert grouped.says(ImageErrorCode.NO_IMAGE, ImageErrorCode.HASH_NOT_FOUND)
    assert not grouped.says(SmpError.NOT_SUPPORTED)
    assert said({"rc": 999}).code is None
    long = said({"rc": 1, "rsn": "x" * 5000})
    assert len(long.message) < 400
    assert long.rsn == "x" * 5000


def test_what_changes_the_device() -> None:
    assert EraseImage().request().changes
    assert UploadChunk(0, b"").request().changes
    assert not Echo("x").request().changes
    assert not ReadImageState().request().changes


# -- messages -------------------------------------------------------------------------------------------------------


def test_a_request_on_the_wire() -> None:
    request = Echo("hi").request()
    assert request.size == 8 + 6
    message = request.encode(1, 0x2A)
    assert message.hex() == "0a00000600002a00a16164626869"
    assert Header.unpack(message) == Header(Op.WRITE, 1, 0, 6, 0, 0x2A, 0)
    assert request.encode(0, 0)[0] == 0x02


def test_a_message_larger_than_the_length_field() -> None:
    request = Request(UploadChunk.facts, bytes(0x10000))
    with pytest.raises(MessageTooLarge, match="image upload of 65544 bytes") as raised:
        request.encode(1, 0)
    assert (raised.value.size, raised.value.limit) == (65544, 65543)


def test_a_reply_in_a_log_is_short() -> None:
    text = str(Reply(1, 1, 0, 1, 7, 0, bytes(range(200))))
    assert text == "reply 1/0 seq 7 200 B 000102030405060708090a0b0c0d0e0f1011121314151617…"


def test_every_recorded_error_shape_is_understood() -> None:
    """The errors that real servers gave, of all groups: recognised, with the numbers that were sent."""
    count = 0
    for path in sorted(GOLDEN.glob("zephyr-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "request_hex" not in row or row["response_hex"] is None:
                continue
            message = bytes.fromhex(row["response_hex"])
            header = Header.unpack(message)
            body = decode_body(message[8:])
            shell = header.group == GroupId.SHELL
            said_no = "err" in body or (body.get("rc", 0) != 0 and not (shell and "o" in body))
            expected = body.get("err", {"rc": body.get("rc"), "group": None}) if said_no else None
            found: dict[str, int | None] | None = None
            try:
                raise_for_error(body, group=header.group, number=header.command, what="x")
            except DeviceError as error:
                found = {"rc": error.rc, "group": error.group}
                count += 1
            assert found == expected, row["name"]
    assert count > 100


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(max_size=8), st.binary(max_size=8), st.booleans()),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=5,
    )
)
def test_definite_and_indefinite_bodies_decode_alike(body: Body) -> None:
    definite = encode_body(body)
    assert definite == cbor2.dumps(body)
    pairs = b"".join(cbor2.dumps(key) + cbor2.dumps(value) for key, value in body.items())
    assert decode_body(b"\xbf" + pairs + b"\xff") == decode_body(definite) == body


def test_text_cut_inside_a_character_is_repaired() -> None:
    # The output of a shell command is cut to a buffer in bytes, not in characters.
    assert decode_body(bytes.fromhex("a1 616f 62 61c3".replace(" ", ""))) == {"o": "a\ufffd"}
