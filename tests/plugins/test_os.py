"""Group 0 against the simulated device, recorded answers and real servers: what each command means and shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx import contracts
from mcumgrx.address import Address
from mcumgrx.cli.main import main
from mcumgrx.client import Client
from mcumgrx.errors import DeviceError, LinkLost, MalformedReply, NotDone, RequestTimeout, UsageError
from mcumgrx.events import Note
from mcumgrx.messages.message import Fields, Reply, SmpCommand, decode_body
from mcumgrx.messages.standard import Bootloader, BootloaderMode, Echo, Params, ReadParams, Reset
from mcumgrx.plugin_api import ReadBootloader, ReadBootloaderMode
from mcumgrx.protocol.codes import OsErrorCode, SmpError
from mcumgrx.protocol.header import Header, Op
from mcumgrx.registry import default_registry
from mcumgrx.sim.bootloader import BootPolicy, Mode
from mcumgrx.sim.device import DeviceConfig, Power, TaskInfo
from mcumgrx.sim.groups import Call, GroupError, GroupServer, Handler, Refused, encode
from mcumgrx.sim.groups.os import OsServer
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.testing.golden import Exchange, Raw, read_rows
from mcumgrx_plugins.os import commands
from mcumgrx_plugins.os.group import OsGroup
from mcumgrx_plugins.os.messages import (
    INFO_FIELDS,
    ControlConsoleEcho,
    DeviceTime,
    Info,
    MemoryPool,
    MemoryPools,
    QueryBootloader,
    ReadActiveB0Slot,
    ReadDatetime,
    ReadInfo,
    ReadMemoryPools,
    ReadTasks,
    Task,
    Tasks,
    WriteDatetime,
    parse_time,
)

from ..support.simulated import CutAnswers, Desk
from ..support.zephyr import native_sim

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def reply_to(command: SmpCommand[Any], payload: bytes) -> Reply:
    return Reply(command.facts.op + 1, 1, 0, command.facts.group, 9, command.facts.number, payload)


# Zephyr `os_mgmt.h`; what a server without SMP version 2 sends in its place.
CODES = {
    1: ("UNKNOWN", 1),
    2: ("INVALID_FORMAT", 3),
    3: ("QUERY_YIELDS_NO_ANSWER", 5),
    4: ("RTC_NOT_SET", 5),
    5: ("RTC_COMMAND_FAILED", 1),
    6: ("QUERY_RESPONSE_VALUE_NOT_VALID", 1),
}


class Server(GroupServer):
    """A group 0 that knows these commands alone, and answers them so; an exception is raised."""

    group = 0
    legacy_codes = {number: legacy for number, (_, legacy) in CODES.items()}  # noqa: RUF012

    def __init__(self, answers: Mapping[tuple[Op, int], Any]) -> None:
        super().__init__({key: self._answering(answer) for key, answer in answers.items()})
        self.bodies: list[dict[str, Any]] = []

    def _answering(self, answer: Any) -> Handler:
        def handler(call: Call) -> Any:
            self.bodies.append(decode_body(call.payload))
            said = answer(self.bodies[-1]) if callable(answer) else answer
            if isinstance(said, Exception):
                raise said
            return said

        return handler


def device_with(config: DeviceConfig | None = None, **answers: Any) -> Desk:
    """A device whose group 0 is a `Server`; its answers are named by operation and command, as `read2`."""
    desk = Desk(config)
    ops = {"read": Op.READ, "write": Op.WRITE}
    desk.device.add_group(Server({(ops[key[:-1]], int(key[-1])): answer for key, answer in answers.items()}))
    return desk


def bodies(desk: Desk) -> list[dict[str, Any]]:
    """What the device was asked."""
    server = desk.device.groups[0]
    assert isinstance(server, Server)
    return server.bodies


def test_it_fills_the_role_that_flows_ask_for() -> None:
    async def work(client: Client) -> contracts.OsGroup:
        return client.group(OsGroup)  # mypy compares the two

    assert Desk().client(work) is not None


# -- echo -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["hello", "", "grüße ☃ 😀", "a\nb\x00c"])
def test_echo(text: str) -> None:
    async def work(client: Client) -> str:
        return await client.group(OsGroup).echo(text)

    assert Desk().client(work) == text


def test_the_echo_command_says_when_something_else_comes_back() -> None:
    class Parrot(OsServer):
        def echo(self, call: Call) -> dict[str, Any]:
            return {"r": "hello"}

    desk = Desk()
    desk.device.add_group(Parrot())
    assert desk.command(commands.echo, text="hello").lines() == ["hello"]
    result = desk.command(commands.echo, text="good bye")
    assert (result.text, result.same) == ("hello", False)
    assert result.lines()[0] == "hello"
    assert "not what was sent" in result.lines()[1]


# -- reset ------------------------------------------------------------------------------------------------------------


def reset(desk: Desk, **arguments: Any) -> int:
    """Reset the device; how many requests reached it."""

    async def work(client: Client) -> None:
        await client.group(OsGroup).reset(**arguments)

    before = desk.device.requests
    desk.client(work)
    return desk.device.requests - before


@pytest.mark.parametrize("model", [LinkModel.ideal(), LinkModel.ble(), LinkModel.uart(), LinkModel.datagram()])
def test_reset(model: LinkModel) -> None:
    desk = Desk(model=model)
    assert reset(desk) == 1
    desk.device.settle()
    assert desk.device.boots == 2
    assert desk.device.power is Power.RUNNING


def test_a_reset_is_done_although_its_answer_is_lost_and_it_is_not_sent_again() -> None:
    desk = Desk(faults=Faults(drop_replies=1))
    assert reset(desk) == 1
    desk.device.settle()
    assert desk.device.boots == 2


def test_a_request_for_a_reset_is_never_repeated_even_when_it_was_lost() -> None:
    desk = Desk(faults=Faults(drop_requests=1))
    assert reset(desk) == 0
    assert desk.faults.requests == 1


@pytest.mark.parametrize("faults", [Faults(cut_at_reply=1), Faults(cut_at_request=1)])
def test_a_link_that_ends_meanwhile_counts_as_done(faults: Faults) -> None:
    reset(Desk(faults=faults))


@pytest.mark.parametrize(
    ("faults", "heard", "line"),
    [
        (Faults(), "answer", "the device restarts"),
        (Faults(drop_replies=lambda number, message: number > 1), "silence", "no answer came"),
        (Faults(cut_at_reply=2), "end of link", "the link has ended"),
    ],
)
def test_what_is_known_of_a_reset_is_told(faults: Faults, heard: str, line: str) -> None:
    result = Desk(model=LinkModel.datagram(), faults=faults).command(commands.reset, force=False, boot_mode=None)
    assert result.last_heard == heard
    assert line in result.lines()[0]
    assert result.lines()[1] == "whether it is back was not looked at"


def test_a_reset_whose_answer_cannot_be_read_has_been_sent() -> None:
    desk = Desk()
    desk.transport = CutAnswers(desk.device, (Op.WRITE, 0, 5))
    result = desk.command(commands.reset, force=False, boot_mode="1")
    assert result.lines()[0].startswith(
        "a reset was sent with boot mode 1, if its firmware knows boot modes; the answer"
    )
    desk.device.settle()
    assert desk.device.boots == 2


def test_a_device_that_never_answers_is_not_reported_as_restarting() -> None:
    desk = Desk(faults=Faults(drop_requests=lambda number, message: True))
    with pytest.raises(RequestTimeout, match="not known whether it restarts"):
        desk.command(commands.reset, force=False, boot_mode=None)


def test_a_link_that_was_gone_before_does_not_count_as_done() -> None:
    desk = Desk()

    async def work(client: Client) -> None:
        group = client.group(OsGroup)
        desk.transport.cut()
        await client.wait_lost()
        await group.reset()

    with pytest.raises(LinkLost):
        desk.client(work)


class Guarded(OsServer):
    """A device whose application allows only a forced reset."""

    refusal: Exception = Refused(10)

    def reset(self, call: Call) -> dict[str, Any]:
        if not call.read(force="flag").get("force", False):
            raise self.refusal
        return super().reset(call)


@pytest.mark.parametrize("refusal", [Refused(10), GroupError(1)])
def test_a_refused_reset_is_an_error_that_force_overcomes(refusal: Exception) -> None:
    desk = Desk()
    server = Guarded()
    server.refusal = refusal
    desk.device.add_group(server)
    with pytest.raises(DeviceError) as raised:
        reset(desk)
    assert desk.device.boots == 1
    hint = str(raised.value.hint)
    assert ("--force" in hint) == isinstance(refusal, Refused)
    assert not hint.startswith("--force")  # patience comes first
    reset(desk, force=True)
    desk.device.settle()
    assert desk.device.boots == 2


@pytest.mark.parametrize(
    ("typed", "mode"),
    [(None, 0), ("application", 0), ("bootloader", 1), ("Bootloader", 1), ("7", 7), ("0x10", 16), ("255", 255)],
)
def test_boot_modes(typed: str | None, mode: int) -> None:
    desk = Desk()
    result = desk.command(commands.reset, force=False, boot_mode=typed)
    assert desk.device.boot_mode == mode
    assert result.boot_mode == (None if typed is None else mode)
    assert result.lines()


@pytest.mark.parametrize("typed", ["recovery", "", "-1", "256", "1.5"])
def test_what_is_no_boot_mode_is_refused_before_the_device_is_asked(typed: str) -> None:
    desk = Desk()
    with pytest.raises(UsageError, match="is not a boot mode") as raised:
        desk.command(commands.reset, force=False, boot_mode=typed)
    assert "bootloader" in str(raised.value.hint)
    assert desk.device.requests == 0


@pytest.mark.parametrize("mode", [-1, 256])
def test_boot_modes_that_no_device_knows(mode: int) -> None:
    with pytest.raises(UsageError, match="not in the range 0 to 255"):
        reset(Desk(), boot_mode=mode)


# -- params -----------------------------------------------------------------------------------------------------------


def test_params() -> None:
    desk = Desk(DeviceConfig(buf_size=1024, buf_count=3), model=LinkModel.uart())
    result = desk.command(commands.params)
    assert (result.buf_size, result.buf_count) == (1024, 3)
    assert result.largest_message < 1024  # console framing needs its part of the buffer
    assert result.lines()[0].split() == ["buffers", "3", "of", "1024", "bytes"]


def test_params_of_a_device_that_does_not_tell() -> None:
    with pytest.raises(DeviceError) as raised:
        Desk(DeviceConfig(params=False)).command(commands.params)
    assert "CONFIG_MCUMGR_GRP_OS_MCUMGR_PARAMS" in str(raised.value.hint)


def test_params_with_something_new_beside_them() -> None:
    class Newer(OsServer):
        def params(self, call: Call) -> dict[str, Any]:
            return {**super().params(call), "inst_role": 2}

    desk = Desk()
    desk.device.add_group(Newer())
    result = desk.command(commands.params)
    assert result.extra == {"inst_role": 2}
    assert result.lines()[-1].split() == ["inst_role", "2"]


# -- bootloader -------------------------------------------------------------------------------------------------------


def bootloader(desk: Desk) -> Bootloader:
    async def work(client: Client) -> Bootloader:
        return await client.group(OsGroup).bootloader()

    return desk.client(work)


def test_the_bootloader_by_name_and_mode() -> None:
    config = DeviceConfig(mode=Mode.SWAP_OFFSET, policy=BootPolicy(downgrade_prevention=True))
    assert bootloader(Desk(config)) == Bootloader("MCUboot", BootloaderMode.SWAP_OFFSET, no_downgrade=True)
    assert Desk(config).command(commands.bootloader, query=None).lines() == [
        "bootloader  MCUboot",
        "updates by  swap using offset (mode 9)",
        "downgrades  refused",
    ]


def test_a_device_that_cannot_tell_its_bootloader() -> None:
    desk = Desk(DeviceConfig(bootloader_info=False))
    assert bootloader(desk) == Bootloader()
    (line,) = desk.command(commands.bootloader, query=None).lines()
    assert "does not tell" in line


class Reluctant(OsServer):
    """Answers the query for the name, or not, and refuses the one for the mode."""

    def __init__(self, refusal: Exception, name: str | None = "MCUboot") -> None:
        super().__init__()
        self.refusal = refusal
        self.bootloader_name = name

    def bootloader(self, call: Call) -> dict[str, Any]:
        if call.read(query="text") or self.bootloader_name is None:
            raise self.refusal
        return {"bootloader": self.bootloader_name}


UNKNOWN = [
    GroupError(OsErrorCode.QUERY_YIELDS_NO_ANSWER),
    GroupError(OsErrorCode.QUERY_RESPONSE_VALUE_NOT_VALID),
    Refused(3),  # Zephyr 3.5
    Refused(5),
    Refused(8),
]


@pytest.mark.parametrize("refusal", UNKNOWN, ids=str)
@pytest.mark.parametrize("original", [False, True])
def test_what_the_device_cannot_tell_of_its_bootloader_stays_unknown(refusal: Exception, original: bool) -> None:
    desk = Desk(DeviceConfig(original_only=original))
    desk.device.add_group(Reluctant(refusal))
    assert bootloader(desk) == Bootloader("MCUboot")
    desk.device.add_group(Reluctant(refusal, name=None))
    assert bootloader(desk) == Bootloader()


@pytest.mark.parametrize("name", ["MCUboot", None])
@pytest.mark.parametrize("rc", [2, 10])
def test_a_device_that_cannot_tell_just_now_is_an_error(name: str | None, rc: int) -> None:
    desk = Desk()
    desk.device.add_group(Reluctant(Refused(rc), name))
    with pytest.raises(DeviceError):
        bootloader(desk)


def test_a_bootloader_of_a_kind_that_came_later() -> None:
    class Newer(OsServer):
        def bootloader(self, call: Call) -> dict[str, Any]:
            return {"mode": 23, "colour": "blue"} if call.read(query="text") else {"bootloader": "NewBoot"}

    desk = Desk()
    desk.device.add_group(Newer())
    assert bootloader(desk) == Bootloader("NewBoot", 23, extra={"colour": "blue"})
    lines = desk.command(commands.bootloader, query=None).lines()
    assert "does not know (mode 23)" in lines[1]
    assert lines[-1].split() == ["colour", "blue"]


def test_an_answer_that_makes_no_sense_is_an_error() -> None:
    class Broken(OsServer):
        def bootloader(self, call: Call) -> dict[str, Any]:
            return {}

    desk = Desk()
    desk.device.add_group(Broken())
    with pytest.raises(MalformedReply):
        bootloader(desk)


def test_every_mode_has_a_name() -> None:
    assert set(commands._MODES) == {int(mode) for mode in BootloaderMode}


def test_a_silent_device_is_a_time_out() -> None:
    with pytest.raises(RequestTimeout):
        bootloader(Desk(faults=Faults(drop_requests=lambda number, message: True)))


@pytest.mark.parametrize(
    ("answer", "active"),
    [
        ({"active": 1}, 1),
        ({"active": 0}, 0),
        ({}, None),
        (GroupError(OsErrorCode.QUERY_YIELDS_NO_ANSWER), None),
        (Refused(3), None),
    ],
    ids=str,
)
def test_the_slot_that_the_first_stage_started(answer: Any, active: int | None) -> None:
    def bootloader(body: Mapping[str, Any]) -> Any:
        return {None: {"bootloader": "MCUboot"}, "mode": {"mode": 3}}.get(body.get("query"), answer)

    desk = device_with(read8=bootloader)
    result = desk.command(commands.bootloader, query=None)
    assert (result.name, result.mode, result.active_b0_slot) == ("MCUboot", 3, active)
    assert bodies(desk) == [{}, {"query": "mode"}, {"query": "active_b0_slot"}]
    shown = "started by  a first-stage bootloader, from its slot"
    assert [line for line in result.lines() if line.startswith(shown)] == (
        [] if active is None else [f"{shown} {active}"]
    )


def test_any_query_shows_the_answer_as_it_is() -> None:
    desk = Desk(DeviceConfig(mode=Mode.SWAP_OFFSET, policy=BootPolicy(downgrade_prevention=True)))
    result = desk.command(commands.bootloader, query="mode")
    assert (result.query, result.answer) == ("mode", {"mode": 9, "no-downgrade": True})
    assert result.lines() == ["mode  9 (swap using offset)", "no-downgrade  yes"]
    answer = {"rc": 0, "id": b"\x01\xfe", "parts": [{"a": 1}, 2], "none": {}, "mode": 77}
    result = device_with(read8=answer).command(commands.bootloader, query="mode")
    assert result.lines() == ["id  01fe", "parts  a 1, 2", "none  none", "mode  77"]
    assert device_with(read8={}).command(commands.bootloader, query="x").lines() == [
        "the device knows this query, and answers nothing"
    ]


@pytest.mark.parametrize("refusal", [GroupError(OsErrorCode.QUERY_YIELDS_NO_ANSWER), Refused(3), Refused(5)], ids=str)
def test_a_query_that_the_device_does_not_know(refusal: Exception) -> None:
    with pytest.raises(DeviceError) as raised:
        device_with(read8=refusal).command(commands.bootloader, query="colour")
    assert "'mode'" in str(raised.value.hint)
    assert "active_b0_slot" in str(raised.value.hint)


def test_a_query_of_version_1() -> None:
    with pytest.raises(DeviceError) as raised:
        Desk(DeviceConfig(original_only=True)).command(commands.bootloader, query="colour")
    assert (raised.value.group, raised.value.rc) == (None, 5)
    assert "'mode'" in str(raised.value.hint)


# -- task statistics --------------------------------------------------------------------------------------------------


def tasks(desk: Desk) -> Tasks:
    async def work(client: Client) -> Tasks:
        return await client.group(OsGroup).tasks()

    return desk.client(work)


def test_tasks() -> None:
    threads = (TaskInfo("main", -1, 0, 128, 512, 210), TaskInfo("", 15, 1, 0, 80, 0), TaskInfo("14", 14, 2, 2))
    desk = Desk(DeviceConfig(tasks=threads))
    assert tasks(desk).tasks == (
        Task("main", -1, 0, 128, 2048, 840),
        Task("", 15, 1, 0, 320, 0),
        Task("14", 14, 2, 2),
    )
    assert desk.command(commands.tasks).lines() == [
        "thread     priority  id  state  stack used",
        "main       -1        0   128    840 of 2048 bytes (41 %)",
        "(no name)  15        1   0      ? of 320 bytes",
        "14         14        2   2",
    ]


FULL = {
    "prio": 8, "tid": 3, "state": 1, "stkuse": 48, "stksiz": 64, "cswcnt": 7, "runtime": 12345678901,
    "last_checkin": 5, "next_checkin": 6,
}  # fmt: skip


def test_tasks_with_all_fields_and_unknown_ones() -> None:
    body = {"tasks": {"a": {**FULL, "cpu": 2, "io": b"\x01"}, "b": {"prio": 0, "tid": 1, "state": 2}}, "uptime": 99}
    desk = device_with(read2={"rc": 0, **body})
    assert tasks(desk) == Tasks(
        (
            Task("a", 8, 3, 1, 256, 192, 7, 12345678901, 5, 6, {"cpu": 2, "io": b"\x01"}),
            Task("b", 0, 1, 2),
        ),
        {"uptime": 99},
    )
    assert desk.command(commands.tasks).lines() == [
        "thread  priority  id  state  stack used               switches  runtime      last check  next check  cpu  io",
        "a       8         3   1      192 of 256 bytes (75 %)  7         12345678901  5           6           2    01",
        "b       0         1   2",
        "uptime: 99",
    ]


def test_both_spellings_of_the_stack_size() -> None:
    one, other = {**FULL}, {**FULL}
    other["stksize"] = other.pop("stksiz")
    found = tasks(device_with(read2={"tasks": {"one": one, "other": other, "used": {**FULL, "stksiz": 0}}})).tasks
    assert [task.stack_size_bytes for task in found] == [256, 256, 0]
    assert [task.extra for task in found] == [{}, {}, {}]
    del one["stksiz"]
    (task,) = tasks(device_with(read2={"tasks": {"one": one}})).tasks
    assert (task.stack_size_bytes, task.stack_used_bytes) == (None, 192)
    assert commands.TasksResult((task, Task("z", 1, 1, 1, 0, 4))).lines()[1].split()[4:6] == ["192", "bytes"]


@pytest.mark.parametrize("indefinite", [True, False])
def test_threads_of_the_same_name_are_all_there(indefinite: bool) -> None:
    """Without thread names these are priorities: a decoder that keeps the last one would hide the others."""
    text, entry = encode("tasks"), [{"prio": 3, "tid": tid, "state": tid} for tid in range(3)]
    pairs = b"".join(encode(name) + encode(one) for name, one in zip(["3", "", "3"], entry, strict=True))
    inner = b"\xbf" + pairs + b"\xff" if indefinite else b"\xa3" + pairs
    payload = b"\xbf" + encode("rc") + b"\x00" + text + inner + encode("x") + b"\x07\xff"
    found = ReadTasks().result(reply_to(ReadTasks(), payload))
    assert found == Tasks((Task("3", 3, 0, 0), Task("", 3, 1, 1), Task("3", 3, 2, 2)), {"x": 7})
    assert len(commands.TasksResult(found.tasks).lines()) == 4


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tasks": 5},
        {"tasks": [1]},
    ],
    ids=str,
)
def test_task_statistics_that_make_no_sense(body: dict[str, Any]) -> None:
    payload = cbor2.dumps(body)
    with pytest.raises(MalformedReply) as raised:
        ReadTasks().result(reply_to(ReadTasks(), payload))
    assert raised.value.payload == payload


def test_no_threads_at_all() -> None:
    assert device_with(read2={"tasks": {}}).command(commands.tasks).lines() == ["the device lists no thread"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(before=st.dictionaries(st.text(), VALUES, max_size=3), named=st.lists(st.tuples(st.text(), VALUES), max_size=30))
def test_entries_keep_their_order_whatever_they_are_called(
    before: dict[str, Any], named: list[tuple[str, Any]]
) -> None:
    before.pop("tasks", None)
    inner = b"\xbf" + b"".join(cbor2.dumps(name) + cbor2.dumps(value) for name, value in named) + b"\xff"
    around = b"".join(cbor2.dumps(name) + cbor2.dumps(value) for name, value in before.items())
    fields = Fields(decode_body(b"\xbf" + around + b"\x65tasks" + inner + b"\xff" + b"behind"))
    assert fields.pairs("tasks") == named
    assert fields.map("tasks") == dict(named)
    assert fields.extra() == before


@given(payload=st.binary(max_size=64) | st.binary(max_size=40).map(lambda tail: b"\xbf\x65tasks" + tail))
def test_garbage_is_no_task_statistics(payload: bytes) -> None:
    with suppress(MalformedReply, DeviceError):
        ReadTasks().result(reply_to(ReadTasks(), payload))


# -- memory pools -----------------------------------------------------------------------------------------------------

POOL = {"blksiz": 292, "nblks": 12, "nfree": 10, "min": 4}


def pools(desk: Desk) -> MemoryPools:
    async def work(client: Client) -> MemoryPools:
        return await client.group(OsGroup).memory_pools()

    return desk.client(work)


def test_memory_pools_of_mynewt() -> None:
    desk = device_with(read3={"rc": 0, "mpools": {"msys_1": POOL, "msys_2": {**POOL, "largest": 3}}, "more": [1, True]})
    assert pools(desk) == MemoryPools(
        (MemoryPool("msys_1", 292, 12, 10, 4), MemoryPool("msys_2", 292, 12, 10, 4, {"largest": 3})),
        {"more": [1, True]},
    )
    assert desk.command(commands.pools).lines() == [
        "pool    block      blocks  free  least free  largest",
        "msys_1  292 bytes  12      10    4",
        "msys_2  292 bytes  12      10    4           3",
        "more: 1, yes",
    ]


def test_memory_pools_as_zephyr_documents_them() -> None:
    misspelt = {"blksiz": 64, "nblks": 8, "nrfree": 8, "min'": 7}
    desk = device_with(read3={"heap": POOL, "net": misspelt, "count": 3, "rc": 0})
    assert pools(desk) == MemoryPools(
        (MemoryPool("heap", 292, 12, 10, 4), MemoryPool("net", 64, 8, 8, 7)), {"count": 3}
    )


HEAPS = {"0": {"nblks": 316, "nfree": 311, "min": 300}, "1": {"nblks": 948, "nfree": 812, "min": 416}}


@pytest.mark.parametrize("body", [HEAPS, {"tasks": HEAPS}, {"rc": 0, "mpools": HEAPS}])
def test_memory_pools_as_zephyr_sends_them(body: dict[str, Any]) -> None:
    desk = device_with(read3=body)
    assert pools(desk) == MemoryPools((MemoryPool("0", None, 316, 311, 300), MemoryPool("1", None, 948, 812, 416)))
    assert desk.command(commands.pools).lines() == [
        "pool  blocks  free  least free",
        "0     316     311   300",
        "1     948     812   416",
        "(no block size is told: Zephyr counts the bytes of its heaps)",
    ]
    sized = {name: {**pool, "blksiz": 1} for name, pool in HEAPS.items()}
    assert pools(device_with(read3=sized)).pools[1] == MemoryPool("1", 1, 948, 812, 416)


@pytest.mark.parametrize("key", ["mpools", "tasks"])
def test_memory_pools_of_the_same_name(key: str) -> None:
    one, two = encode(POOL), encode({**POOL, "nfree": 1})
    payload = b"\xbf" + encode(key) + b"\xbf" + encode("") + one + encode("") + two + b"\xff\xff"
    found = ReadMemoryPools().result(reply_to(ReadMemoryPools(), payload)).pools
    assert [(pool.name, pool.free) for pool in found] == [("", 10), ("", 1)]
    assert commands.PoolsResult(found).lines()[1].startswith("(no name)")


def test_memory_pools_that_are_none() -> None:
    with pytest.raises(MalformedReply):
        pools(device_with(read3={"mpools": 1}))
    assert pools(device_with(read3={"mpools": {"a": 1, "b": POOL}})) == MemoryPools(
        (MemoryPool("b", 292, 12, 10, 4),), {"a": 1}
    )


def test_no_memory_pools() -> None:
    none: list[dict[str, Any]] = [{}, {"mpools": {}}]
    for body in none:
        assert device_with(read3=body).command(commands.pools).lines() == ["the device lists no memory pool"]
    assert "least free" not in commands.PoolsResult((MemoryPool("a", 1, 1, 1),)).lines()[0]


# -- date and time ----------------------------------------------------------------------------------------------------


class Clock(OsServer):
    """Zephyr's clock commands (`os_mgmt_datetime_read`, `os_mgmt_datetime_write`) over a clock that stands still.

    `milliseconds` is a build with CONFIG_MCUMGR_GRP_OS_DATETIME_MS.
    """

    def __init__(self, milliseconds: bool = False) -> None:
        super().__init__()
        self.handlers[Op.READ, 4] = self.get
        self.handlers[Op.WRITE, 4] = self.set
        self.milliseconds = milliseconds
        self.time: tuple[int, ...] | None = None
        self.sent = ""

    def get(self, call: Call) -> dict[str, Any]:
        if self.time is None:
            raise GroupError(OsErrorCode.RTC_NOT_SET)
        text = "{:4}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*self.time)
        return {"datetime": text + (f".{self.time[6]}" if self.milliseconds else "")}

    def set(self, call: Call) -> dict[str, Any]:
        self.sent = rest = call.read(datetime="text").get("datetime", "")
        if not 19 <= len(rest) <= 25:
            raise Refused(SmpError.INVALID)
        fields = []
        for low, high in ((1900, 11899), (1, 12), (1, 31), (0, 23), (0, 59), (0, 59)):
            match = re.match(r"\s*[+-]?\d+", rest)
            if match is None or not low <= int(match[0]) <= high:
                raise Refused(SmpError.INVALID)
            fields.append(int(match[0]))
            before, rest = rest[match.end() : match.end() + 1], rest[match.end() + 1 :]
        fraction = re.match(r"\d+", rest) if self.milliseconds and before == "." else None
        self.time = (*fields, 0 if fraction is None else int(fraction[0]))
        if self.time[:3] == (2099, 1, 1):
            raise GroupError(OsErrorCode.RTC_COMMAND_FAILED)
        return {}


def clock(milliseconds: bool = False, config: DeviceConfig | None = None) -> tuple[Desk, Clock]:
    desk, server = Desk(config), Clock(milliseconds)
    desk.device.add_group(server)
    return desk, server


@pytest.mark.parametrize(
    ("typed", "sent", "shown"),
    [
        ("2024-02-29T12:34:56", "2024-02-29T12:34:56", "2024-02-29 12:34:56"),
        ("2024-02-29 12:34:56Z", "2024-02-29T12:34:56", "2024-02-29 12:34:56"),
        ("2024-03-01T00:34:56+02:00", "2024-02-29T22:34:56", "2024-02-29 22:34:56"),
        ("2024-02-29T22:34:56.007-08:00", "2024-03-01T06:34:56.007", "2024-03-01 06:34:56.007"),
        ("2024-02-29T12:34:56.123456", "2024-02-29T12:34:56.123", "2024-02-29 12:34:56.123"),
        ("20240229T123456Z", "2024-02-29T12:34:56", "2024-02-29 12:34:56"),
        ("2024-02-29", "2024-02-29T00:00:00", "2024-02-29 00:00:00"),
    ],
)
def test_setting_the_clock(typed: str, sent: str, shown: str) -> None:
    desk, server = clock(milliseconds=True)
    result = desk.command(commands.datetime, set=typed)
    assert server.sent == sent
    assert 19 <= len(sent) <= 25
    assert (result.utc, result.set) == (shown, True)
    assert result.lines()[0].startswith(f"set to {shown} UTC, ")
    assert desk.command(commands.datetime, set=None).utc == shown


def test_a_clock_without_milliseconds_ignores_them() -> None:
    desk, server = clock()
    assert desk.command(commands.datetime, set="2024-02-29T12:34:56.789").utc == "2024-02-29 12:34:56"
    assert server.sent.endswith(".789")


@pytest.mark.parametrize("typed", ["now", "NOW"])
def test_setting_the_clock_to_now(typed: str) -> None:
    desk, server = clock(milliseconds=True)
    before = datetime.now(UTC) - timedelta(seconds=1)
    result = desk.command(commands.datetime, set=typed)
    sent = datetime.fromisoformat(server.sent).replace(tzinfo=UTC)
    assert before <= sent <= datetime.now(UTC)
    assert abs(result.ahead_s) < 30
    assert result.utc == sent.isoformat(" ", "milliseconds" if sent.microsecond else "seconds")[:-6]


@pytest.mark.parametrize(
    "typed", ["", "yesterday", "12:34", "2024-02-30", "2024-02-29T25:00:00", "1899-12-31", "0001-01-01T00:00:00+01:00"]
)
def test_what_is_no_time_is_refused_before_the_device_is_asked(typed: str) -> None:
    desk, _ = clock()
    with pytest.raises(UsageError):
        desk.command(commands.datetime, set=typed)
    assert desk.faults.requests == 0


def set_clock(desk: Desk, time: str = "2024-02-29T12:34:56") -> commands.DatetimeResult:
    return desk.command(commands.datetime, set=time)


def test_a_clock_that_was_not_set_although_the_device_said_so() -> None:
    desk, server = clock()
    server.handlers[Op.WRITE, 4] = lambda call: {}
    with pytest.raises(NotDone, match="says that its clock has not been set"):
        set_clock(desk)
    server.time = (1970, 1, 1, 0, 0, 5)
    with pytest.raises(NotDone, match="took the time, and its clock shows 1970-01-01T00:00:05"):
        set_clock(desk)


def test_a_clock_that_can_only_be_set() -> None:
    desk, server = clock()
    del server.handlers[Op.READ, 4]
    assert set_clock(desk).lines() == ["set, says the device", "(its clock cannot be read)"]


def test_setting_a_clock_without_an_answer_is_looked_at() -> None:
    for kind in ("lost", "cut"):
        desk, server = clock()
        if kind == "lost":
            desk.transport = SimulatedTransport(desk.device, faults=Faults(drop_replies=1))
        else:
            desk.transport = CutAnswers(desk.device, (Op.WRITE, 0, 4))
        assert set_clock(desk).lines()[0].startswith("set to 2024-02-29 12:34:56 UTC")
        assert [event.warning for event in desk.events if isinstance(event, Note)] == [True]
        server.handlers[Op.WRITE, 4] = lambda call: {}
        server.time = (1970, 1, 1, 0, 0, 5)
        desk.transport = CutAnswers(desk.device, (Op.WRITE, 0, 4))
        with pytest.raises(NotDone, match="no answer to the time that could be read, and its clock shows 1970"):
            set_clock(desk)
        desk.transport = CutAnswers(desk.device, (Op.WRITE, 0, 4), (Op.READ, 0, 4))
        with pytest.raises(MalformedReply, match="may have carried it out") as raised:
            set_clock(desk)
        assert "cannot be read either" in str(raised.value.hint)


def test_how_far_the_clock_is_off() -> None:
    result = commands.DatetimeResult("x", "2024-02-29 12:34:56", 0.4, set=False)
    assert result.lines() == ["2024-02-29 12:34:56 UTC, as this computer's clock"]
    result = commands.DatetimeResult("x", "2024-02-29 12:34:56", 7200.4, set=False)
    assert result.lines() == ["2024-02-29 12:34:56 UTC, 7200 s ahead of this computer's clock"]
    result = commands.DatetimeResult("x", "2024-02-29 12:34:56", -12.0, set=True, extra={"source": "rtc"})
    assert result.lines() == ["set to 2024-02-29 12:34:56 UTC, 12 s behind this computer's clock", "source  rtc"]
    desk = device_with(read4={"datetime": "2000-01-01T00:00:00"})
    assert desk.command(commands.datetime, set=None).ahead_s < -365 * 86400


def test_a_clock_that_says_no_time() -> None:
    result = device_with(read4={"datetime": "0000-00-00T00:00:00", "rc": 0}).command(commands.datetime, set=None)
    assert (result.text, result.utc, result.ahead_s) == ("0000-00-00T00:00:00", None, None)
    assert result.lines() == ["0000-00-00T00:00:00", "(mcumgrx cannot read this as a time)"]
    with pytest.raises(MalformedReply):
        device_with(read4={}).command(commands.datetime, set=None)


@pytest.mark.parametrize("config", [DeviceConfig(), DeviceConfig(original_only=True)], ids=["version 2", "version 1"])
def test_a_clock_that_has_not_been_set(config: DeviceConfig) -> None:
    desk, _ = clock(config=config)
    with pytest.raises(DeviceError) as raised:
        desk.command(commands.datetime, set=None)
    assert "os datetime --set now" in str(raised.value.hint)
    desk.command(commands.datetime, set="now")
    assert desk.command(commands.datetime, set=None).utc


def test_a_clock_that_does_not_take_a_time() -> None:
    for refusal in (GroupError(OsErrorCode.RTC_COMMAND_FAILED), GroupError(2), Refused(SmpError.INVALID)):
        with pytest.raises(DeviceError) as raised:
            device_with(write4=refusal).command(commands.datetime, set="2099-01-01T00:00:00")
        assert "only some years" in str(raised.value.hint)
    with pytest.raises(DeviceError, match="is busy") as raised:
        device_with(write4=Refused(10)).command(commands.datetime, set="now")
    assert "years" not in str(raised.value.hint)


PACIFIC = timezone(timedelta(hours=-8))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2024-02-29T12:34:56", datetime(2024, 2, 29, 12, 34, 56, tzinfo=UTC)),
        (" 970-01-02T03:04:05", datetime(970, 1, 2, 3, 4, 5, tzinfo=UTC)),  # four places filled up with spaces
        ("2024-02-29T12:34:56.123", datetime(2024, 2, 29, 12, 34, 56, 123000, UTC)),
        ("2024-02-29T12:34:56.7", datetime(2024, 2, 29, 12, 34, 56, 7000, UTC)),  # Zephyr: 7 ms
        ("2024-02-29T12:34:56.045", datetime(2024, 2, 29, 12, 34, 56, 45000, UTC)),
        ("2016-03-02T22:44:00-08:00", datetime(2016, 3, 2, 22, 44, tzinfo=PACIFIC)),
        ("2016-03-02T22:44:00.000123-08:00", datetime(2016, 3, 2, 22, 44, 0, 123, PACIFIC)),
        ("2016-03-02T22:44:00.5-0800", datetime(2016, 3, 2, 22, 44, 0, 500000, PACIFIC)),
        ("2016-03-02T22:44:00.000123", datetime(2016, 3, 2, 22, 44, 0, 123, UTC)),
        ("2016-03-02T22:44:00.123456789Z", datetime(2016, 3, 2, 22, 44, 0, 123456, UTC)),
        ("2016-03-02T22:44:00z", datetime(2016, 3, 2, 22, 44, tzinfo=UTC)),
        ("2016-03-02 22:44:00+05:30", datetime(2016, 3, 2, 22, 44, tzinfo=timezone(timedelta(hours=5, minutes=30)))),
        ("11899-01-01T00:00:00", None),
        ("2024-13-01T00:00:00", None),
        ("2024-02-29T12:34:60", None),
        ("2024-02-29T12:34:56+99:99", None),
        ("2024-02-29", None),
        ("", None),
        ("\u0662\u0660\u0662\u0664-02-29T12:34:56", None),
    ],
)
def test_times_as_devices_write_them(text: str, time: datetime | None) -> None:
    found = parse_time(text)
    assert found == time
    if found is not None and time is not None:
        assert found.utcoffset() == time.utcoffset()


@given(time=st.datetimes(datetime(1900, 1, 2), datetime(9999, 12, 30)), zone=st.sampled_from([UTC, PACIFIC, None]))
def test_a_time_that_is_sent_is_the_time_that_was_meant(time: datetime, zone: timezone | None) -> None:
    time = time.replace(tzinfo=zone)
    text = WriteDatetime(time).text
    assert 19 <= len(text) <= 25
    meant = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    assert parse_time(text) == meant.replace(microsecond=meant.microsecond // 1000 * 1000)


@pytest.mark.parametrize("time", [datetime(1899, 12, 31), datetime(9999, 12, 31, 23, tzinfo=PACIFIC)])
def test_times_that_cannot_be_sent(time: datetime) -> None:
    with pytest.raises(UsageError):
        WriteDatetime(time).body()


def test_unknown_keys_beside_the_time_are_kept() -> None:
    time = datetime(2024, 2, 29, 12, 34, 56, tzinfo=UTC)
    desk = device_with(read4={"datetime": "2024-02-29T12:34:56", "drift": 3})

    async def work(client: Client) -> DeviceTime:
        return await client.group(OsGroup).clock()

    assert desk.client(work) == DeviceTime("2024-02-29T12:34:56", time, {"drift": 3})
    assert desk.command(commands.datetime, set=None).lines()[-1] == "drift  3"


def test_a_last_day_that_has_no_utc() -> None:
    result = device_with(read4={"datetime": "9999-12-31T23:59:59-08:00"}).command(commands.datetime, set=None)
    assert result.utc is not None
    assert result.ahead_s > 0


# -- information on the application -----------------------------------------------------------------------------------


def test_info_field_by_field() -> None:
    desk = Desk()
    result = desk.command(commands.info, format=None, all=False)
    known = desk.device.config.info
    assert result.fields == Info(*(getattr(known, name) for name in INFO_FIELDS.values()))
    assert " " in known.build
    assert result.lines()[4].split(maxsplit=1) == ["build", known.build]
    assert len(result.lines()) == 9
    assert desk.faults.requests == 9


@pytest.mark.parametrize("original", [False, True])
def test_info_leaves_out_what_the_device_does_not_know(original: bool) -> None:
    class NoBuildTime(OsServer):
        def info(self, call: Call) -> dict[str, Any]:
            if "b" in call.read(format="text").get("format", ""):
                raise GroupError(OsErrorCode.INVALID_FORMAT)
            return super().info(call)

    desk = Desk(DeviceConfig(original_only=original))
    desk.device.add_group(NoBuildTime())
    result = desk.command(commands.info, format=None, all=False)
    assert (result.fields.kernel, result.fields.build, result.fields.os) == ("Zephyr", None, "Zephyr")
    assert not any(line.startswith("build") for line in result.lines())


def test_info_that_knows_no_letter_is_an_error() -> None:
    with pytest.raises(DeviceError) as raised:
        device_with(read7=GroupError(OsErrorCode.INVALID_FORMAT)).command(commands.info, format=None, all=False)
    assert "letters" in str(raised.value.hint)
    with pytest.raises(DeviceError, match="is busy"):
        device_with(read7=Refused(10)).command(commands.info, format=None, all=False)


def test_info_as_the_device_puts_it() -> None:
    desk = Desk()
    result = desk.command(commands.info, format=None, all=True)
    assert result.format == "a"
    assert result.lines() == [
        "Zephyr unknown v4.4.0 4.4.0 Thu Jan  1 00:00:00 2026 simulated simulated mcumgrx_sim Zephyr"
    ]
    assert desk.command(commands.info, format="vs", all=False).lines() == ["Zephyr 4.4.0"]
    assert desk.faults.requests == 2


def test_letters_of_the_application_reach_it() -> None:
    desk = device_with(read7=lambda body: {"output": f"<{body['format']}>"})
    assert desk.command(commands.info, format="sXé9", all=False).lines() == ["<sXé9>"]

    async def work(client: Client) -> str:
        return await client.group(OsGroup).info_text()

    assert Desk().client(work) == "Zephyr"


@pytest.mark.parametrize("original", [False, True])
def test_letters_that_nobody_knows(original: bool) -> None:
    desk = Desk(DeviceConfig(original_only=original))
    with pytest.raises(DeviceError) as raised:
        desk.command(commands.info, format="sx", all=False)
    assert "s n r v b m p i o" in str(raised.value.hint)
    assert "CONFIG_MCUMGR_GRP_OS_INFO_BUILD_DATE_TIME" in str(raised.value.hint)


def test_more_than_the_answer_holds() -> None:
    with pytest.raises(DeviceError) as raised:
        device_with(read7=Refused(7)).command(commands.info, format=None, all=True)
    assert "CONFIG_MCUMGR_GRP_OS_INFO_MAX_RESPONSE_SIZE" in str(raised.value.hint)


def test_a_format_and_all_exclude_each_other() -> None:
    desk = Desk()
    with pytest.raises(UsageError, match="exclude each other"):
        desk.command(commands.info, format="s", all=True)
    assert desk.faults.requests == 0


# -- console echo -----------------------------------------------------------------------------------------------------


def in_recovery(desk: Desk) -> bool:
    async def work(client: Client) -> bool:
        return await client.group(OsGroup).in_recovery()

    return desk.client(work)


def test_console_echo_tells_recovery_from_an_application() -> None:
    assert in_recovery(Desk()) is False
    desk = device_with(write1={"rc": 0})
    assert in_recovery(desk) is True
    assert bodies(desk) == [{"echo": 0}]
    with pytest.raises(DeviceError):
        in_recovery(device_with(write1=Refused(10)))


def test_console_echo() -> None:
    desk = device_with(write1={})

    async def work(client: Client) -> None:
        await client.group(OsGroup).console_echo(True)
        await client.group(OsGroup).console_echo(False)

    desk.client(work)
    assert bodies(desk) == [{"echo": 1}, {"echo": 0}]
    with pytest.raises(DeviceError) as raised:
        Desk().client(work)
    assert raised.value.rc == SmpError.NOT_SUPPORTED


# -- devices that lack a command --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "parameters", "hint"),
    [
        (commands.echo, {"text": "x"}, "CONFIG_MCUMGR_GRP_OS_ECHO;"),
        (commands.tasks, {}, "CONFIG_MCUMGR_GRP_OS_TASKSTAT;"),
        (commands.pools, {}, "CONFIG_MCUMGR_GRP_OS_MPSTAT"),
        (commands.datetime, {"set": None}, "CONFIG_MCUMGR_GRP_OS_DATETIME "),
        (commands.datetime, {"set": "now"}, "CONFIG_MCUMGR_GRP_OS_DATETIME "),
        (commands.reset, {"force": False, "boot_mode": None}, "CONFIG_REBOOT"),
        (commands.params, {}, "CONFIG_MCUMGR_GRP_OS_MCUMGR_PARAMS;"),
        (commands.info, {"format": None, "all": False}, "CONFIG_MCUMGR_GRP_OS_INFO;"),
        (commands.info, {"format": "s", "all": False}, "CONFIG_MCUMGR_GRP_OS_INFO;"),
        (commands.bootloader, {"query": "mode"}, "CONFIG_MCUMGR_GRP_OS_BOOTLOADER_INFO;"),
    ],
)
def test_a_device_without_the_command(function: Any, parameters: dict[str, Any], hint: str) -> None:
    with pytest.raises(DeviceError) as raised:
        device_with().command(function, **parameters)
    assert (raised.value.group, raised.value.rc) == (None, SmpError.NOT_SUPPORTED)
    assert hint in str(raised.value.hint)


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message", "repeatable"),
    [
        (ReadTasks(), "0800000100000902 a0", True),
        (ReadMemoryPools(), "0800000100000903 a0", True),
        (ReadDatetime(), "0800000100000904 a0", True),
        (
            WriteDatetime(datetime(2024, 2, 29, 12, 34, 56)),
            "0a00001e00000904 a1 686461746574696d65 73323032342d30322d32395431323a33343a3536",
            False,
        ),
        (ReadInfo(), "0800000100000907 a0", True),
        (ReadInfo("sv"), "0800000b00000907 a1 66666f726d6174 627376", True),
        (QueryBootloader("mode"), "0800000c00000908 a1 657175657279 646d6f6465", True),
        (ReadActiveB0Slot(), "0800001600000908 a1 657175657279 6e6163746976655f62305f736c6f74", True),
        (ControlConsoleEcho(False), "0a00000700000901 a1 646563686f 00", True),
        (ControlConsoleEcho(True), "0a00000700000901 a1 646563686f 01", True),
    ],
)
def test_requests_on_the_wire(command: SmpCommand[Any], message: str, repeatable: bool) -> None:
    assert command.request().encode(1, 9).hex() == message.replace(" ", "")
    assert command.request().repeatable is repeatable


def test_the_error_table() -> None:
    assert {int(code): code.name for code in OsErrorCode} == {number: name for number, (name, _) in CODES.items()}
    for code in OsErrorCode:
        assert " " in code.sentence
        assert code.sentence[0].islower()
        assert not code.sentence.endswith(".")
    assert len({code.sentence for code in OsErrorCode}) == len(CODES)


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("original", [False, True])
def test_every_error_has_its_name(number: int, original: bool) -> None:
    name, legacy = CODES[number]
    desk = device_with(DeviceConfig(original_only=original), read2=GroupError(number))
    with pytest.raises(DeviceError) as raised:
        tasks(desk)
    error = raised.value
    if original:
        assert (error.group, error.rc, error.name) == (None, legacy, SmpError(legacy).name)
    else:
        assert (error.group, error.rc, error.name) == (0, number, name)
    assert str(error)


# -- recorded exchanges -----------------------------------------------------------------------------------------------

UNTYPED = {"os unknown command", "os unknown command v1", "recovery os unknown command"}
"""Recorded requests for a command that no server has."""


def recorded() -> Iterator[tuple[str, Header, Any, bytes]]:
    """Every answer of group 0 in the recordings: its name, the request's header and body, the whole answer."""
    for path in sorted(GOLDEN.glob("zephyr-*.jsonl")):
        for row in read_rows(path):
            if isinstance(row, Raw):
                continue
            requests = (row.request,) if isinstance(row, Exchange) else row.requests
            responses = (row.response,) if isinstance(row, Exchange) else row.responses
            asked = {Header.unpack(request).sequence: request for request in requests}
            for response in responses:
                if response is None:
                    continue
                request = asked[Header.unpack(response).sequence]
                if Header.unpack(request).group != 0:
                    continue
                body: Any = row.request_body if isinstance(row, Exchange) else decode_body(request[8:])
                yield f"{path.stem}: {row.name}", Header.unpack(request), body, response


RECORDED = list(recorded())


def typed(name: str, header: Header, body: Any) -> SmpCommand[Any] | None:
    """The typed command whose answer this is."""
    if name.partition(": ")[2] in UNTYPED:
        return None
    asked: Mapping[str, Any] = body or {}
    match header.command:
        case 0:
            return Echo(asked["d"] if isinstance(asked.get("d"), str) else "")
        case 1:
            return ControlConsoleEcho(bool(asked["echo"]))
        case 2:
            return ReadTasks()
        case 3:
            return ReadMemoryPools()
        case 4:
            return ReadDatetime() if header.op == Op.READ else WriteDatetime(datetime(2024, 2, 29, 12, 34, 56))
        case 5:
            return Reset(asked.get("force", False), asked.get("boot_mode"))
        case 6:
            return ReadParams()
        case 7:
            return ReadInfo(asked.get("format"))
        case 8 if asked.get("query") == "mode":
            return ReadBootloaderMode()
        case 8:
            return QueryBootloader(asked["query"]) if asked else ReadBootloader()
    raise AssertionError(name)


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row[0])
def test_recorded_answers_become_typed_results(row: tuple[str, Header, Any, bytes]) -> None:
    name, request, asked, response = row
    command = typed(name, request, asked)
    if command is None:
        return
    header = Header.unpack(response)
    reply = Reply(*header[:3], *header[4:], response[8:])
    said: dict[str, Any] = cbor2.loads(response[8:]) if len(response) > 8 else {}
    if "err" in said or said.get("rc", 0) != 0:
        with pytest.raises(DeviceError) as raised:
            command.result(reply)
        assert raised.value.rc == said.get("err", said)["rc"]
        assert raised.value.name is not None
        return
    result = command.result(reply)
    match command:
        case ReadTasks():
            assert isinstance(result, Tasks)
            assert {task.name: task.tid for task in result.tasks} == {
                key: value["tid"] for key, value in said["tasks"].items()
            }
            assert [task.tid for task in result.tasks] == list(range(len(result.tasks)))
            for task in result.tasks:
                told = said["tasks"][task.name]
                size, used = told.get("stksiz"), told.get("stkuse")
                assert task.stack_size_bytes == (None if size is None else 4 * size)
                assert task.stack_used_bytes == (None if used is None else 4 * used)
                assert (task.prio, task.state, task.extra) == (told["prio"], told["state"], {})
            assert len(commands.TasksResult(result.tasks, result.extra).lines()) == len(result.tasks) + 1
        case ReadInfo():
            assert result == said["output"]
        case ReadParams():
            assert result == Params(said["buf_size"], said["buf_count"])
        case Echo():
            assert result == said["r"]
        case _:
            assert result is None


def test_the_recordings_have_every_command_of_the_group() -> None:
    found = [typed(name, header, body) for name, header, body, _ in RECORDED]
    assert len(found) > 200
    assert {type(command) for command in found if command is not None} == {
        ControlConsoleEcho,
        Echo,
        QueryBootloader,
        ReadBootloader,
        ReadBootloaderMode,
        ReadDatetime,
        ReadInfo,
        ReadMemoryPools,
        ReadParams,
        ReadTasks,
        Reset,
        WriteDatetime,
    }
    assert sum(command is None for command in found) < 20


def test_console_echo_in_the_recordings() -> None:
    """What `in_recovery` stands on: every recorded application refuses. (MCUboot's answer was not recorded.)"""
    answers = [cbor2.loads(response[8:]) for _, header, _, response in RECORDED if header.command == 1]
    assert answers
    assert all(answer == {"rc": 8} for answer in answers)


# -- the command line -------------------------------------------------------------------------------------------------

OURS = sorted(name for name in default_registry().commands if name.startswith("os "))


def test_every_command_is_here() -> None:
    names = {name.removeprefix("os ") for name in OURS}
    assert names == {"bootloader", "datetime", "echo", "info", "params", "pools", "reset", "tasks"}


@pytest.mark.parametrize("name", OURS)
def test_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    examples = shown.partition("\nExample")[2]
    assert f"mcumgrx {name}" in examples
    assert "-d " in examples


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main([*arguments, "-d", "sim:", "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_results_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "os", "tasks")
    assert code == 0
    assert set(said["result"]) == {"tasks", "extra"}
    assert said["result"]["tasks"][0] == {
        "name": "mcumgr smp", "prio": 3, "tid": 0, "state": 128, "stack_size_bytes": 2048, "stack_used_bytes": 840,
        "context_switches": None, "runtime": None, "last_checkin": None, "next_checkin": None, "extra": {},
    }  # fmt: skip
    _, said = run(capsys, "os", "info")
    assert said["result"]["fields"]["kernel"] == "Zephyr"
    _, said = run(capsys, "os", "info", "s")
    assert said["result"] == {"fields": None, "format": "s", "text": "Zephyr"}
    _, said = run(capsys, "os", "bootloader", "mode")
    assert said["result"] == {"query": "mode", "answer": {"mode": 3}}
    _, said = run(capsys, "os", "bootloader")
    assert said["result"]["active_b0_slot"] is None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["os", "info", "s", "--all"], 2),
        (["os", "info", "s", "v"], 2),
        (["os", "info", "?"], 5),
        (["os", "datetime", "--set", "never"], 2),
        (["os", "datetime", "--set"], 2),
        (["os", "bootloader", "nonsense"], 5),
        (["os", "pools"], 5),
    ],
    ids=str,
)
def test_exit_codes(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    ended, said = run(capsys, *arguments)
    assert (ended, said["error"]["exit"]) == (code, code)


# -- real servers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["serial", "serial_noparams", "shell"])
async def test_a_real_server(config: str, tmp_path: Path) -> None:
    async with native_sim(config, tmp_path) as server:
        transport = default_registry().transport(Address.parse(server.address))
        async with Client(transport) as client:
            group = client.group(OsGroup)
            found = await group.tasks()
            info = await group.info()
            assert await group.info_text("a") == " ".join(
                text for name in INFO_FIELDS.values() if (text := getattr(info, name))
            )
            assert await group.in_recovery() is False
            with pytest.raises(DeviceError, match="does not know this command"):
                await group.clock()
            with pytest.raises(DeviceError, match="format"):
                await group.info_text("?")
    assert {task.tid for task in found.tasks} == set(range(len(found.tasks)))
    assert (info.kernel, info.machine, info.board) == ("Zephyr", "posix", "native_sim/native")
