"""Group 8 against the simulated device and recorded answers: plans over bad links, transfers, files, commands."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.bulk import Delivery
from mcumgrx.cli.exit_codes import Exit, exit_for
from mcumgrx.client import Client
from mcumgrx.errors import (
    DeviceError,
    LinkLost,
    MalformedReply,
    McumgrError,
    MessageTooLarge,
    PlanRefused,
    ProtocolError,
    RequestTimeout,
    TransferStuck,
    UsageError,
)
from mcumgrx.events import Bytes, Note, Stage, StageName
from mcumgrx.messages.message import Reply, SmpCommand, encode_body
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import Header, Op
from mcumgrx.registry import default_registry
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.files import FsConfig, FsMount
from mcumgrx.sim.groups import Call, GroupError, Refused
from mcumgrx.sim.groups.fs import FsServer
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.testing.golden import Exchange, Raw, read_rows
from mcumgrx.transfer.reading import Reading
from mcumgrx_plugins.fs import commands
from mcumgrx_plugins.fs import plan as put_plan
from mcumgrx_plugins.fs.chunks import Step
from mcumgrx_plugins.fs.get_plan import FileGetPlan
from mcumgrx_plugins.fs.group import FileTransfer, FsGroup, Source
from mcumgrx_plugins.fs.local import LocalFileError
from mcumgrx_plugins.fs.messages import (
    CloseFile,
    FileChunk,
    FileHash,
    FileProgress,
    FileStatus,
    FsErrorCode,
    HashType,
    ReadFile,
    ReadHash,
    ReadHashTypes,
    ReadStatus,
    WriteFile,
)
from mcumgrx_plugins.fs.plan import End, FileDamaged, FilePutPlan, Length, Size, Whole
from mcumgrx_plugins.fs.source import FileContent
from tests.support.thinned import thinned

from ..support.simulated import Desk

T = TypeVar("T")

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
NAME = "/lfs1/x"
IMAGE = build_image("1.0.0")


def content(size: int, seed: int = 0) -> bytes:
    """Bytes of which no piece is like another."""
    blocks = (hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def server(files: dict[str, bytes] | None = None, **options: Any) -> FsServer:
    mount = FsMount(files=files if files is not None else {}, directories=("dir",))
    return FsServer(FsConfig(mounts=(mount,), **options))


def stored(files: FsServer, name: str = NAME) -> bytes | None:
    """What is in a file once it is closed."""
    snapshot = files.snapshot()["files"]
    return bytes.fromhex(snapshot[name]) if name in snapshot else None


# -- messages ---------------------------------------------------------------------------------------------------------


def recorded() -> Iterator[tuple[str, bytes, Any, bytes]]:
    """Every exchange of group 8 in the recordings: its name, the request and its body, the answer."""
    for path in sorted(GOLDEN.glob("zephyr-*.jsonl")):
        for row in read_rows(path):
            if isinstance(row, Raw):
                continue
            if isinstance(row, Exchange):
                if row.header.group == 8 and row.response is not None:
                    yield f"{path.stem}: {row.name}", row.request, row.request_body, row.response
                continue
            asked = {Header.unpack(request).sequence: request for request in row.requests}
            for response in row.responses:
                request = asked[Header.unpack(response).sequence]
                if Header.unpack(request).group == 8:
                    from mcumgrx.messages.message import decode_body

                    yield f"{path.stem}: {row.name}", request, decode_body(request[8:]), response


RECORDED = list(recorded())


def typed(header: Header, body: Any) -> SmpCommand[Any] | None:
    """The typed command that makes such a request, None where none does."""
    match header.op, header.command, body:
        case Op.READ, 0, {"name": name, "off": offset}:
            return ReadFile(name, offset)
        case Op.WRITE, 0, {"name": name, "off": offset, "data": data, **more} if ("len" in more) == (offset == 0):
            return WriteFile(name, offset, data, more.get("len"))
        case Op.READ, 1, {"name": name}:
            return ReadStatus(name)
        case Op.READ, 2, {"name": name, **more}:
            return ReadHash(name, more.get("type"), more.get("off", 0), more.get("len"))
        case Op.READ, 3, _:
            return ReadHashTypes()
        case Op.WRITE, 4, _:
            return CloseFile()
    return None


def reply(message: bytes) -> Reply:
    header = Header.unpack(message)
    return Reply(header.op, header.version, header.flags, header.group, header.sequence, header.command, message[8:])


@pytest.mark.parametrize(("name", "request_", "body", "response"), RECORDED, ids=[row[0] for row in RECORDED])
def test_recorded_exchanges(name: str, request_: bytes, body: Any, response: bytes) -> None:
    header = Header.unpack(request_)
    command = typed(header, body)
    if command is None:
        # Requests that lack something, which the typed ones cannot.
        assert "without" in name
        command = ReadStatus("")
    else:
        assert command.request().payload == request_[8:], "the same bytes as in the recording"
        assert (command.facts.op, command.facts.number) == (header.op, header.command)
    answer = reply(response)
    said = answer.body()
    if "err" in said or "rc" in said:
        with pytest.raises(DeviceError) as refused:
            command.result(answer)
        code = said["err"]["rc"] if "err" in said else said["rc"]
        assert refused.value.rc == code
        assert refused.value.name is not None
        return
    if "without" in name and not isinstance(command, WriteFile):
        return
    result = command.result(answer)
    match result:
        case FileChunk():
            assert (result.offset, result.data, result.length) == (said["off"], said["data"], said.get("len"))
        case FileProgress():
            assert result.offset == said["off"]
        case FileStatus():
            assert result.size == said["len"]
        case FileHash():
            assert (result.type, result.length, result.output) == (said["type"], said["len"], said["output"])
        case tuple():
            assert result == (HashType("crc32", False, 4), HashType("sha256", True, 32))
        case _:
            assert (result, said) == (None, {})
    assert not getattr(result, "extra", None)


def test_the_recordings_have_every_command() -> None:
    kinds = {type(typed(Header.unpack(request), body)) for _, request, body, _ in RECORDED}
    assert kinds == {ReadFile, WriteFile, ReadStatus, ReadHash, ReadHashTypes, CloseFile, type(None)}
    assert len(RECORDED) == 161


ANSWERS = [
    (ReadFile(NAME, 0), {"off": 0, "data": b"x"}, FileChunk(0, b"x")),
    (ReadFile(NAME, 0), {"off": 0, "data": b"", "len": 0, "rc": 0}, FileChunk(0, b"", 0)),
    (WriteFile(NAME, 0, b"x", 1), {"off": 1, "rc": 0, "more": 1}, FileProgress(1, {"more": 1})),
    (ReadHash(NAME), {"type": "crc32", "len": 3, "output": 5}, FileHash("crc32", 0, 3, 5)),
    (ReadHash(NAME), {"type": "x", "off": 1, "len": 3, "output": b"ab"}, FileHash("x", 1, 3, b"ab")),
    (ReadHashTypes(), {"types": {}}, ()),
    (ReadHashTypes(), {"types": {"a": {"format": 1, "size": 2, "x": 3}}}, (HashType("a", True, 2, {"x": 3}),)),
]


@pytest.mark.parametrize(("command", "body", "result"), ANSWERS)
def test_answers(command: SmpCommand[Any], body: dict[str, Any], result: object) -> None:
    assert command.result(Reply(1, 1, 0, 8, 0, command.facts.number, encode_body(body))) == result


MALFORMED = [
    (ReadFile(NAME, 0), {"data": b""}, "lacks 'off'"),
    (ReadFile(NAME, 0), {"off": 0, "data": "text"}, "'data'"),
    (WriteFile(NAME, 0, b"x", 1), {}, "lacks 'off'"),
    (ReadStatus(NAME), {"len": -1}, "-1 bytes"),
    (ReadHash(NAME), {"type": "crc32", "len": 3}, "'output'"),
    (ReadHash(NAME), {"type": "crc32", "len": 3, "output": "x"}, "'output'"),
    (ReadHash(NAME), {"type": "crc32", "len": 3, "output": -5}, "'output'"),
    (ReadHash(NAME), {"type": "crc32", "len": 3, "output": True}, "'output'"),
    (ReadHashTypes(), {}, "'types'"),
    (ReadHashTypes(), {"types": []}, "'types'"),
]


@pytest.mark.parametrize(("command", "body", "text"), MALFORMED)
def test_malformed_answers(command: SmpCommand[Any], body: dict[str, Any], text: str) -> None:
    with pytest.raises(MalformedReply, match=text):
        command.result(Reply(1, 1, 0, 8, 0, command.facts.number, encode_body(body)))


def test_hashes_in_digits() -> None:
    assert FileHash("crc32", 0, 1, 0xABC).hex == "00000abc"
    assert FileHash("sha256", 0, 1, b"\x01\xff").hex == "01ff"


# -- the plan of an upload over a bad link ----------------------------------------------------------------------------


class Wire:
    """A link that does to each request what its fate says, to a device whose clock goes on meanwhile.

    `late` fates deliver a second copy of the request behind some of the next ones, before the file is closed for good:
    against one that comes after the end there is no defence.
    """

    def __init__(self, files: FsServer, fates: list[tuple[str, int]]) -> None:
        self.device = SimulatedDevice(DeviceConfig(buf_size=2048))
        self.device.install(IMAGE)
        self.device.add_group(files)
        self.fates = deque(fates)
        self.now = 1.0
        self.sequence = 0
        self.asked: list[SmpCommand[Any]] = []
        self._late: list[tuple[int, bytes]] = []

    def ask(self, step: Step, *, at_end: bool) -> bytes | None:
        self.asked.append(step.command)
        self.sequence = (self.sequence + 1) % 256
        message = step.command.request().encode(1, self.sequence)
        fate, count = self.fates.popleft() if self.fates else ("fine", 0)
        if at_end and self._late:
            fate = "fine"
        for _, late in [one for one in self._late if at_end or one[0] <= 0]:
            self._execute(late)
        self._late = [(number - 1, late) for number, late in self._late if number > 0 and not at_end]
        answer: bytes | None = None
        if fate != "request lost":
            answer = self._execute(message)
        if fate == "first answer of two":
            self._execute(message)
        elif fate == "second answer of two":
            answer = self._execute(message)
        if fate.startswith("late copy") and not at_end:
            self._late.append((count, message))
        if fate in ("request lost", "answer lost", "late copy, answer lost"):
            # Sometimes long enough for the device to close its file.
            self.now += 5.0 if count % 2 else 1.0
            return None
        return answer

    def _execute(self, message: bytes) -> bytes:
        answer = self.device.handle(message, self.now)
        self.now += answer.busy_s + 0.01
        return answer.replies[0]


def carry_out(plan: FilePutPlan, wire: Wire, window: int = 1) -> None:
    """What the transfer engine does with a plan: `window` requests on their way, answers in their order."""
    on_their_way: deque[Step] = deque()
    unanswered: list[Step] = []
    for _ in range(5000):
        while len(on_their_way) + len(unanswered) < window and not any(step.slow for step in on_their_way):
            step = plan.next()
            if step is None:
                break
            on_their_way.append(step)
        if not on_their_way:
            if not unanswered:
                assert plan.done
                return
            for step in unanswered:  # their time is up
                plan.lost(step)
            unanswered.clear()
            continue
        step = on_their_way.popleft()
        at_end = isinstance(plan.state, (End, Whole, Length)) or step.end == plan.size
        answer = wire.ask(step, at_end=at_end)
        if answer is None:
            unanswered.append(step)
            continue
        for before in unanswered:
            plan.overtaken(before)
        unanswered.clear()
        try:
            result = step.command.result(reply(answer))
        except DeviceError as error:
            if not plan.refused(step, error):
                raise
        else:
            plan.answered(step, result)
    raise AssertionError("the plan has no end")


LOSSES = ["fine", "fine", "request lost", "answer lost"]
EVERYTHING = [
    *("fine", "fine", "fine", "request lost", "answer lost"),
    *("late copy", "late copy, answer lost", "first answer of two", "second answer of two"),
]


def fates(kinds: list[str]) -> st.SearchStrategy[list[tuple[str, int]]]:
    return st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 4)), max_size=25)


# What is in the file before: nothing, something else, or the beginning of the content with something else behind.
before = st.none() | st.tuples(st.sampled_from([0, 50, 200]), st.integers(0, 600))
sizes = st.integers(1, 700)
chunks = st.none() | st.integers(1, 60)
windows = st.integers(1, 6)
hash_types = st.sampled_from([("crc32", "sha256"), ("sha256",), ("crc32",)])


def put(
    size: int,
    old: tuple[int, int] | None,
    fates: list[tuple[str, int]],
    hashes: tuple[str, ...],
    chunk: int | None,
    resume: bool,
    window: int,
    status: bool = True,
) -> FilePutPlan:
    """Carry an upload out and check what is in the file then, unless it ends with an error."""
    wanted = content(size)
    files = server({} if old is None else {"x": wanted[: old[0]] + content(old[1], 1)}, hashes=hashes)
    if not status:
        del files.handlers[Op.READ, 1]
    plan = FilePutPlan(FileContent(io.BytesIO(wanted)), NAME, message_bytes=120, chunk_bytes=chunk, resume=resume)
    carry_out(plan, Wire(files, fates), window)
    assert stored(files) == wanted
    assert plan.verified_by == ("size" if not hashes else "sha256" if "sha256" in hashes else "crc32")
    assert plan.done_bytes == plan.size
    return plan


@given(sizes, before, fates(LOSSES), hash_types | st.just(()), chunks, st.booleans(), windows, st.booleans())
def test_losses_cost_time_and_nothing_else(
    size: int,
    old: tuple[int, int] | None,
    fates: list[tuple[str, int]],
    hashes: tuple[str, ...],
    chunk: int | None,
    resume: bool,
    window: int,
    status: bool,
) -> None:
    put(size, old, fates, hashes, chunk, resume, window, status)


@given(sizes, before, fates(EVERYTHING), hash_types | st.just(()), chunks, st.booleans(), windows)
def test_copies_are_repaired_or_reported(
    size: int,
    old: tuple[int, int] | None,
    fates: list[tuple[str, int]],
    hashes: tuple[str, ...],
    chunk: int | None,
    resume: bool,
    window: int,
) -> None:
    """Duplicated and late requests too: what is stored is right, or the plan says that it is not."""
    with suppress(FileDamaged, TransferStuck):
        put(size, old, fates, hashes, chunk, resume, window)


def upload_plan(size: int = 300, **options: Any) -> tuple[FilePutPlan, bytes]:
    wanted = content(size)
    options = {"message_bytes": 120, **options}
    return FilePutPlan(FileContent(io.BytesIO(wanted)), NAME, **options), wanted


# Where the first two chunks end of 200 bytes, in messages of 120.
FIRST = 120 - len(WriteFile(NAME, 0, bytes(50), 200).request().payload) + 50 - 8
SECOND = FIRST + 120 - len(WriteFile(NAME, FIRST, bytes(50)).request().payload) + 50 - 8


def offsets(wire: Wire) -> list[int]:
    return [command.offset for command in wire.asked if isinstance(command, WriteFile)]


def kinds(wire: Wire) -> list[str]:
    return [type(command).__name__ for command in wire.asked]


def test_the_order_of_an_upload() -> None:
    files = server()
    wire = Wire(files, [])
    plan, wanted = upload_plan()
    carry_out(plan, wire)
    assert kinds(wire) == [*["WriteFile"] * 4, "ReadHash"], "the device closes what is whole"
    assert stored(files) == wanted
    assert files.open_path is None
    assert (plan.resumed_from, plan.retransmissions, plan.done, plan.next()) == (0, 0, True, None)


@pytest.mark.parametrize("message_bytes", [60, 88, 120, 256, 300, 384, 1024, 2048])
def test_chunks_fill_their_messages_exactly(message_bytes: int) -> None:
    wire = Wire(server(), [])
    plan, _ = upload_plan(70_000 if message_bytes > 200 else 3000, message_bytes=message_bytes)
    carry_out(plan, wire)
    requests = [command.request().size for command in wire.asked if isinstance(command, WriteFile)]
    assert max(requests) <= message_bytes
    # A byte string of 23 and of 255 bytes has a shorter head than the next one.
    assert min(requests[:-1]) >= message_bytes - 1


def test_a_chunk_is_never_as_large_as_the_first() -> None:
    wire = Wire(server(), [])
    plan, _ = upload_plan(100, chunk_bytes=20)
    carry_out(plan, wire)
    sizes = [len(command.data) for command in wire.asked if isinstance(command, WriteFile)]
    assert sizes == [20, 19, 19, 19, 19, 4]
    wire = Wire(server(), [])
    carry_out(upload_plan(5, chunk_bytes=1)[0], wire)
    assert offsets(wire) == [0, 2, 3, 4]


def test_a_lost_first_chunk_begins_anew_with_closing() -> None:
    files = server()
    wire = Wire(files, [("answer lost", 0), ("answer lost", 0)])
    plan, wanted = upload_plan()
    carry_out(plan, wire)
    assert kinds(wire)[:5] == ["WriteFile", "CloseFile", "CloseFile", "WriteFile", "WriteFile"]
    assert stored(files) == wanted
    assert plan.retransmissions == 1


@pytest.mark.parametrize("fate", ["request lost", "answer lost"])
def test_a_lost_chunk_is_sent_again(fate: str) -> None:
    files = server()
    wire = Wire(files, [("fine", 0), (fate, 0)])
    plan, wanted = upload_plan(200)
    carry_out(plan, wire)
    assert offsets(wire) == [0, FIRST, FIRST, SECOND]
    assert stored(files) == wanted
    assert "ReadStatus" not in kinds(wire), "the device's word is enough"


def test_messages_are_as_large_as_needed_and_as_small_as_sensible() -> None:
    plan, _ = upload_plan(20, message_bytes=2000)
    assert plan.message_bytes < 80, "no more than the whole file"
    plan, _ = upload_plan(1000, message_bytes=400)
    assert plan.least_bytes == WriteFile(NAME, 1000, bytes(16), 1000).request().size
    plan.message_bytes = plan.least_bytes
    wire = Wire(server(), [])
    carry_out(plan, wire)
    assert max(command.request().size for command in wire.asked if isinstance(command, WriteFile)) == plan.least_bytes


def test_a_reset_of_the_device_in_between_is_found_out() -> None:
    """What was not closed is gone, and the old content, which is longer, is there again."""
    old = content(500, 1)
    files = server({"x": old})
    wire = Wire(files, [])
    plan, wanted = upload_plan(400)
    for _ in range(3):
        step = plan.next()
        assert step is not None
        answer = wire.ask(step, at_end=False)
        assert answer is not None
        plan.answered(step, step.command.result(reply(answer)))
    files.restarted()
    assert stored(files) == old
    carry_out(plan, wire)
    assert stored(files) == wanted
    assert offsets(wire).count(0) == 2


def answering(plan: FilePutPlan, *answers: object) -> list[SmpCommand[Any]]:
    """Feed the plan; returns what it asked."""
    asked = []
    for answer in answers:
        step = plan.next()
        assert step is not None
        asked.append(step.command)
        if isinstance(answer, DeviceError):
            assert plan.refused(step, answer)
        elif answer == "lost":
            plan.lost(step)
        else:
            plan.answered(step, answer)
    return asked


def last(plan: FilePutPlan) -> SmpCommand[Any]:
    step = plan.next()
    assert step is not None
    if step.slow:
        plan.put_off(step)  # so that it is the next one again
    return step.command


def refusal(rc: int, group: int | None = 8, **more: object) -> DeviceError:
    said = {"err": {"group": group, "rc": rc}} if group is not None else {"rc": rc}
    code = (SmpError if group is None else FsErrorCode).find(rc)
    return DeviceError("no", group=group, rc=rc, code=code, reply={**said, **more})


HASH_OF_50 = FileHash("sha256", 0, 50, hashlib.sha256(content(200)[:50]).digest())
HASH_OF_ALL = FileHash("sha256", 0, 200, hashlib.sha256(content(200)).digest())


@pytest.mark.parametrize(
    ("state", "answer", "follows"),
    [
        (put_plan.Close(look=True), None, put_plan.SIZE),
        (put_plan.Close(look=True), refusal(8, None), put_plan.SIZE),
        (put_plan.Close(), None, put_plan.FIRST),
        (put_plan.Close(), "lost", put_plan.Close()),
        (put_plan.SIZE, FileStatus(50), put_plan.Prefix(50)),
        (put_plan.SIZE, FileStatus(0), put_plan.FIRST),
        (put_plan.SIZE, FileStatus(201), put_plan.FIRST),
        (put_plan.SIZE, refusal(3), put_plan.FIRST),
        (put_plan.SIZE, refusal(8, None), put_plan.SIZE),
        (put_plan.Prefix(50), HASH_OF_50, put_plan.BODY),
        (put_plan.Prefix(50), HASH_OF_ALL, put_plan.FIRST),
        (put_plan.Prefix(50), refusal(13), put_plan.Prefix(50)),
        (put_plan.Prefix(50), refusal(16), put_plan.FIRST),
        (put_plan.Prefix(50), "lost", put_plan.Prefix(50)),
        (put_plan.FIRST, FileProgress(FIRST), put_plan.BODY),
        (put_plan.FIRST, FileProgress(0), put_plan.Close()),
        (put_plan.FIRST, refusal(10), put_plan.Close()),
        (put_plan.FIRST, "lost", put_plan.Close()),
        (put_plan.BODY, FileProgress(SECOND), put_plan.BODY),
        (put_plan.BODY, FileProgress(7), put_plan.Close(look=True)),
        (put_plan.BODY, refusal(11, len=7), put_plan.Close(look=True)),
        (put_plan.BODY, "lost", put_plan.BODY),
        (put_plan.END, None, put_plan.WHOLE),
        (put_plan.WHOLE, HASH_OF_ALL, put_plan.DONE),
        (put_plan.WHOLE, HASH_OF_50, put_plan.END),
        (put_plan.WHOLE, refusal(13), put_plan.WHOLE),
        (put_plan.WHOLE, refusal(8, None), put_plan.LENGTH),
        (put_plan.WHOLE, "lost", put_plan.WHOLE),
        (put_plan.LENGTH, FileStatus(200), put_plan.DONE),
        (put_plan.LENGTH, FileStatus(199), put_plan.END),
        (put_plan.LENGTH, refusal(3), put_plan.END),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_follows_in_each_state(state: put_plan.State, answer: object, follows: put_plan.State) -> None:
    plan, _ = upload_plan(200)
    if state is put_plan.BODY:
        answering(plan, FileProgress(FIRST))
    plan.state = state
    answering(plan, answer)
    assert plan.state == follows


def test_old_servers_tell_the_right_offset_beside_a_plain_code() -> None:
    """Before Zephyr 3.3 there is no close, and a wrong offset is `rc` 3 with `off`."""
    plan, _ = upload_plan(200)
    answering(plan, FileProgress(FIRST), "lost", refusal(3, None, off=SECOND))
    step = plan.next()
    assert step is not None
    assert step.offset == SECOND
    assert not plan.refused(step, refusal(3, None)), "without an offset it is about something else"
    plan.lost(step)
    # They do not know an upload that has ended, or one that they have not seen begin.
    answering(plan, refusal(3, None), refusal(8, None))
    assert last(plan) == WriteFile(NAME, 0, content(200)[:FIRST], 200)
    plan, wanted = upload_plan(200, resume=True)
    found = FileHash("sha256", 0, 50, hashlib.sha256(wanted[:50]).digest())
    answering(plan, None, FileStatus(50), found, refusal(3, None), None)
    assert (last(plan), plan.resumed_from) == (WriteFile(NAME, 0, wanted[:FIRST], 200), 0)


def test_version_1_says_nothing_of_the_offset() -> None:
    plan, _ = upload_plan(200)
    asked = answering(plan, FileProgress(FIRST), "lost", refusal(1, None), None, refusal(5, None))
    assert isinstance(asked[-1], ReadStatus)
    command = last(plan)
    assert isinstance(command, WriteFile)
    assert command.offset == 0
    plan, _ = upload_plan(200)
    answering(plan, FileProgress(FIRST))
    step = plan.next()
    assert step is not None
    assert not plan.refused(step, refusal(1, None)), "nothing was lost: this is another error"


def test_a_device_that_counts_otherwise_is_asked_what_it_has() -> None:
    plan, wanted = upload_plan(200)
    asked = answering(plan, FileProgress(FIRST), refusal(11, len=2 * FIRST), None, FileStatus(FIRST))
    assert [type(command) for command in asked] == [WriteFile, WriteFile, CloseFile, ReadStatus]
    assert last(plan) == ReadHash(NAME, "sha256", 0, FIRST)
    right = FileHash("sha256", 0, FIRST, hashlib.sha256(wanted[:FIRST]).digest())
    answering(plan, right)
    command = last(plan)
    assert isinstance(command, WriteFile)
    assert command.offset == FIRST
    assert plan.resumed_from == 0, "it is the same upload"


@pytest.mark.parametrize(
    "found",
    [
        FileHash("sha256", 0, FIRST, bytes(32)),
        FileHash("sha256", 0, FIRST - 1, b""),
        FileHash("crc32", 0, FIRST, 1),
        refusal(3),
    ],
)
def test_what_the_device_has_is_not_ours(found: object) -> None:
    plan, _ = upload_plan(200, resume=True)
    answering(plan, None, FileStatus(FIRST), found)
    assert isinstance(last(plan), WriteFile)
    assert plan.done_bytes == plan.resumed_from == 0


def test_resuming_asks_for_the_other_hash_and_starts_over_without_any() -> None:
    plan, wanted = upload_plan(200, resume=True)
    answering(plan, None, FileStatus(FIRST), refusal(13))
    assert last(plan) == ReadHash(NAME, "crc32", 0, FIRST)
    answering(plan, FileHash("crc32", 0, FIRST, zlib.crc32(wanted[:FIRST])))
    assert plan.resumed_from == plan.done_bytes == FIRST
    plan, _ = upload_plan(200, resume=True)
    answering(plan, None, FileStatus(FIRST), refusal(8, None))
    assert last(plan) == WriteFile(NAME, 0, content(200)[:FIRST], 200)
    plan, _ = upload_plan(200, resume=True)
    answering(plan, None, FileStatus(201))
    assert last(plan) == WriteFile(NAME, 0, content(200)[:FIRST], 200)


def test_a_device_without_a_size_query_is_asked_by_reading() -> None:
    plan, _ = upload_plan(200, resume=True)
    asked = answering(plan, None, refusal(8, None), FileChunk(0, b"", 0))
    assert isinstance(asked[-1], ReadFile)
    plan, _ = upload_plan(0)
    answering(plan, None, refusal(8, None))
    step = plan.next()
    assert step is not None
    assert not plan.refused(step, refusal(8, None)), "there is no such group"
    step = plan.next()
    assert step is not None
    with pytest.raises(MalformedReply, match="lacks 'len'"):
        plan.answered(step, FileChunk(0, b""))


def test_a_device_that_can_only_be_written_to_proves_nothing() -> None:
    plan, _ = upload_plan(50)
    unknown = refusal(8, None)
    answering(plan, FileProgress(50), unknown, unknown, unknown)
    assert (plan.done, plan.verified_by) == (True, None)


@pytest.mark.parametrize(
    "found", [FileHash("sha256", 0, 50, bytes(32)), refusal(16), refusal(3), FileHash("sha256", 0, 51, bytes(32))]
)
def test_a_wrong_hash_in_the_end_is_an_error(found: object) -> None:
    plan, _ = upload_plan(50)
    asked = answering(plan, FileProgress(50), found, None)
    assert isinstance(asked[-1], CloseFile), "unless it was just not closed"
    with pytest.raises(FileDamaged) as damaged:
        answering(plan, found)
    assert exit_for(damaged.value) is Exit.NO_ANSWER


def test_after_trouble_a_wrong_hash_is_worth_another_try() -> None:
    plan, _ = upload_plan(50)
    wrong = FileHash("sha256", 0, 50, bytes(32))
    whole = (None, FileProgress(50), None)
    asked = answering(plan, "lost", *whole, wrong, *whole)
    assert [command.offset for command in asked if isinstance(command, WriteFile)] == [0, 0, 0]
    with pytest.raises(FileDamaged):
        answering(plan, wrong)


def test_a_wrong_size_in_the_end_is_an_error() -> None:
    for found in (FileStatus(49), refusal(3)):
        plan, _ = upload_plan(50)
        answering(plan, FileProgress(50), refusal(8, None), found, None)
        with pytest.raises(FileDamaged):
            answering(plan, found)


def test_a_device_that_never_gets_on_is_given_up() -> None:
    plan, _ = upload_plan(200)
    round = (refusal(11, len=7), None, refusal(3), FileProgress(FIRST))
    with pytest.raises(TransferStuck, match="lost track"):
        answering(plan, FileProgress(FIRST), *round * 20)
    plan, _ = upload_plan(200)
    with pytest.raises(TransferStuck):
        answering(plan, *(FileProgress(0), None) * 20)


def test_answers_that_nobody_waits_for_are_ignored() -> None:
    plan, _ = upload_plan(200, resume=True)
    first = plan.next()
    assert first is not None
    plan.answered(first, None)
    plan.next()
    plan.answered(first, None)
    plan.lost(first)
    assert plan.refused(first, refusal(10))
    assert isinstance(plan.state, Size)
    assert plan.next() is None


def steps(plan: FilePutPlan) -> list[Step]:
    """All that may be on its way now."""
    return list(iter(plan.next, None))


def right(size: int) -> FileHash:
    return FileHash("sha256", 0, size, hashlib.sha256(content(size)).digest())


def test_the_hash_is_asked_for_behind_the_last_chunk() -> None:
    plan, _ = upload_plan(200)
    [first] = steps(plan)
    plan.answered(first, FileProgress(FIRST))
    second, third, check = steps(plan)
    assert (second.end, third.end, check.command, check.slow) == (SECOND, 200, ReadHash(NAME, "sha256"), False)
    plan.answered(second, FileProgress(SECOND))
    plan.answered(third, FileProgress(200))
    assert (plan.next(), plan.done) == (None, False)
    plan.answered(check, right(200))
    assert (plan.done, plan.verified_by, plan.retransmissions) == (True, "sha256", 0)
    # A long file takes the device a while, so nothing else is on its way then.
    plan, _ = upload_plan(16 * 1024 + 1, message_bytes=10_000)
    [first] = steps(plan)
    assert first.end is not None
    plan.answered(first, FileProgress(first.end))
    [rest] = steps(plan)
    plan.answered(rest, FileProgress(plan.size))
    [check] = steps(plan)
    assert (check.command, check.slow) == (ReadHash(NAME, "sha256"), True)


@pytest.mark.parametrize("found", [None, bytes(32), refusal(3), refusal(16), refusal(5), refusal(1, None)])
def test_an_early_hash_proves_nothing_while_a_chunk_has_no_answer(found: bytes | DeviceError | None) -> None:
    """Not even the right one (None): it may be that of the old content."""

    def told(check: Step) -> None:
        if isinstance(found, DeviceError):
            assert plan.refused(check, found)
        elif found is None:
            plan.answered(check, right(plan.size))
        else:
            plan.answered(check, FileHash("sha256", 0, plan.size, found))

    # The only chunk: begun anew, with closing.
    plan, _ = upload_plan(50)
    first, check = steps(plan)
    plan.overtaken(first)
    told(check)
    assert isinstance(last(plan), CloseFile)
    answering(plan, None, FileProgress(50), None, right(50))
    assert (plan.done, plan.retransmissions) == (True, 1)

    # The last chunk: sent once more, and no other.
    plan, _ = upload_plan(200)
    answering(plan, FileProgress(FIRST))
    second, third, check = steps(plan)
    plan.answered(second, FileProgress(SECOND))
    plan.overtaken(third)
    told(check)
    [again] = steps(plan)
    assert (again.offset, plan.setbacks) == (SECOND, 1)
    plan.answered(again, FileProgress(200))
    plan.answered(check, right(200))
    assert not plan.done, "it was asked for before"
    answering(plan, None, right(200))
    assert (plan.done, plan.retransmissions) == (True, 1)


def test_an_early_hash_that_the_device_does_not_know() -> None:
    """It is not asked for again, and what was lost in front of it is found missing all the same."""
    plan, _ = upload_plan(200)
    answering(plan, FileProgress(FIRST), FileProgress(SECOND))
    third, check = steps(plan)
    plan.overtaken(third)
    assert plan.refused(check, refusal(8, None))
    asked = answering(plan, FileProgress(200), None, FileStatus(200))
    assert [type(command) for command in asked] == [WriteFile, CloseFile, ReadStatus]
    assert plan.verified_by == "size"


def test_an_early_hash_that_gets_lost_is_asked_for_patiently() -> None:
    plan, _ = upload_plan(50)
    first, check = steps(plan)
    plan.answered(first, FileProgress(50))
    plan.lost(check)
    [patient] = steps(plan)
    assert (patient.command, patient.slow) == (check.command, True)
    plan.answered(check, right(50))  # late, but as good as any
    assert plan.done


def test_a_file_that_was_open_is_closed_and_written_anew() -> None:
    """Its first chunk is answered with more than it has, or does not fit behind what is there."""
    for found in (FileProgress(FIRST + 100), refusal(10), refusal(1, None)):
        plan, _ = upload_plan(200)
        asked = answering(plan, found, None, FileProgress(FIRST))
        assert [type(command) for command in asked] == [WriteFile, CloseFile, WriteFile]
    # Where it was closed, that is the end.
    plan, _ = upload_plan(200)
    answering(plan, refusal(10), None)
    [first] = steps(plan)
    assert not plan.refused(first, refusal(10))


def test_what_the_device_has_closed_in_between_is_closed_in_the_end() -> None:
    """At a wrong offset it closes the file and forgets the length, so that it does not know where the file ends."""
    plan, _ = upload_plan(200)
    answering(plan, FileProgress(FIRST))
    second, third, check = steps(plan)
    plan.overtaken(second)
    assert plan.refused(third, refusal(11, len=FIRST))
    plan.answered(check, FileHash("sha256", 0, FIRST, bytes(32)))
    asked = answering(plan, FileProgress(SECOND), FileProgress(200), None, right(200))
    assert [type(command) for command in asked] == [WriteFile, WriteFile, CloseFile, ReadHash]
    assert plan.done


def test_messages_too_small_for_the_path() -> None:
    with pytest.raises(MessageTooLarge, match="beside the path") as error:
        upload_plan(100, message_bytes=30)
    assert error.value.hint is not None
    with pytest.raises(ValueError, match="at least one byte"):
        upload_plan(100, chunk_bytes=0)


# -- the plan of a download -------------------------------------------------------------------------------------------


def download_plan(**options: Any) -> tuple[FileGetPlan, list[bytes]]:
    got: list[bytes] = []
    return FileGetPlan(NAME, got.append, **options), got


def readings(plan: FileGetPlan) -> list[Reading]:
    """All that may be asked for now."""
    return list(iter(plan.next, None))


def test_a_download() -> None:
    plan, got = download_plan()
    [first] = readings(plan)
    assert (first.command, first.slow) == (ReadFile(NAME, 0), False)
    plan.answered(first, FileChunk(0, b"abc", 8))
    assert (plan.done_bytes, plan.size, plan.done) == (3, 8, False)
    second, third = readings(plan)
    assert (second.offset, second.end, third.offset, third.end) == (3, 6, 6, 8)
    plan.answered(third, FileChunk(6, b"gh"))
    assert (got, plan.done_bytes) == ([b"abc"], 3), "it waits for what is in front of it"
    plan.answered(second, FileChunk(3, b"d"))
    [hole] = readings(plan)
    assert (hole.offset, hole.end) == (4, 6)
    plan.answered(hole, FileChunk(4, b"efgh"))
    assert (b"".join(got), plan.done, readings(plan)) == (b"abcdefgh", True, [])
    assert (plan.retransmissions, plan.setbacks) == (0, 0)


def test_what_is_lost_is_asked_for_again_and_nothing_else() -> None:
    plan, got = download_plan()
    [first] = readings(plan)
    plan.lost(first)
    [first] = readings(plan)
    plan.answered(first, FileChunk(0, b"ab", 10))
    pieces = readings(plan)
    assert [piece.offset for piece in pieces] == [2, 4, 6, 8]
    plan.overtaken(pieces[0])
    plan.answered(pieces[1], FileChunk(4, b"ef"))
    [again] = readings(plan)
    assert (again.offset, again.end, plan.setbacks, plan.retransmissions) == (2, 4, 1, 2)
    for piece in (again, *pieces[2:]):
        plan.lost(piece)
    plan.answered(pieces[3], FileChunk(8, b"ij"))  # late, but not too late
    once_more = readings(plan)
    assert [piece.offset for piece in once_more] == [2, 6]
    plan.answered(once_more[1], FileChunk(6, b"gh"))
    plan.answered(once_more[0], FileChunk(2, b"cd"))
    assert (b"".join(got), plan.done) == (b"abcdefghij", True)


def test_an_empty_file() -> None:
    plan, got = download_plan()
    plan.answered(readings(plan)[0], FileChunk(0, b"", 0))
    assert (plan.done, got) == (True, [])
    plan, _ = download_plan(offset=5, size=5)
    assert (plan.done, readings(plan)) == (True, [])
    with pytest.raises(ValueError, match="tells the size"):
        download_plan(offset=5)


def test_a_download_does_not_run_ahead_for_ever() -> None:
    """What is early is kept, so there must be an end to it: here the second piece never comes."""
    plan, _ = download_plan()
    plan.answered(readings(plan)[0], FileChunk(0, bytes(1000), 10_000_000))
    ahead = readings(plan)
    assert len(ahead) == 256
    for piece in ahead[1:]:
        plan.answered(piece, FileChunk(piece.offset, bytes(1000)))
    assert readings(plan) == []
    plan.lost(ahead[0])
    assert [piece.offset for piece in readings(plan)] == [1000]


@pytest.mark.parametrize(
    ("chunk", "kind", "text"),
    [
        (FileChunk(3, b""), FileDamaged, "ends before 3 of 6"),
        (FileChunk(3, b"d", 5), FileDamaged, "had 6 bytes and has 5"),
        (FileChunk(2, b"cd"), MalformedReply, "at offset 2, and 3 was asked for"),
        (FileChunk(0, b"abc", 6), MalformedReply, "at offset 0, and 3 was asked for"),
    ],
)
def test_answers_that_make_no_sense(chunk: FileChunk, kind: type[ProtocolError], text: str) -> None:
    plan, _ = download_plan()
    plan.answered(readings(plan)[0], FileChunk(0, b"abc", 6))
    with pytest.raises(kind, match=text):
        plan.answered(readings(plan)[0], chunk)


@pytest.mark.parametrize("chunk", [FileChunk(3, b"def and more"), FileChunk(3, b"def", 7)])
def test_a_file_that_grows_is_read_up_to_where_it_ended(chunk: FileChunk) -> None:
    plan, got = download_plan()
    plan.answered(readings(plan)[0], FileChunk(0, b"abc", 6))
    plan.answered(readings(plan)[0], chunk)
    assert (plan.done, plan.whole, plan.grown, plan.left_open) == (True, True, True, True)
    assert (plan.size, plan.done_bytes, b"".join(got)) == (6, 6, b"abcdef")


def test_the_first_answer_must_tell_the_size() -> None:
    for chunk, text in ((FileChunk(0, b"abc"), "lacks 'len'"), (FileChunk(0, b"abc", -1), "-1 bytes")):
        plan, _ = download_plan()
        with pytest.raises(MalformedReply, match=text):
            plan.answered(readings(plan)[0], chunk)


@given(
    st.binary(max_size=300),
    st.integers(0, 300),
    st.lists(st.integers(1, 50), min_size=1),
    st.integers(1, 6),
    st.lists(st.sampled_from(["fine", "lost", "late"]), max_size=40),
    st.booleans(),
)
def test_downloads_in_any_pieces(
    data: bytes, start: int, sizes: list[int], window: int, fates: list[str], in_steps: bool
) -> None:
    """Answers of any size, some lost and some late, for any window: the content comes once and in order."""
    start = min(start, len(data))
    plan, got = download_plan(offset=start, size=len(data) if start else None)
    number = 0
    while not plan.whole:
        if in_steps:
            plan.go_on(40)
        on_their_way: deque[Reading] = deque()
        unanswered: list[Reading] = []
        while not plan.done:
            while len(on_their_way) + len(unanswered) < window and (piece := plan.next()) is not None:
                on_their_way.append(piece)
            if not on_their_way:
                assert unanswered, "the plan waits for nothing"
                for piece in unanswered:
                    plan.lost(piece)
                unanswered.clear()
                continue
            piece = on_their_way.popleft()
            number += 1
            fate = fates[number] if number < len(fates) else "fine"
            if fate == "lost":
                unanswered.append(piece)
                continue
            for before in unanswered:
                plan.overtaken(before)
            unanswered.clear()
            if fate == "late":
                plan.lost(piece)  # its time was up just before
            answer = data[piece.offset : piece.offset + sizes[number % len(sizes)]]
            plan.answered(piece, FileChunk(piece.offset, answer, len(data) if piece.offset == 0 else None))
    assert b"".join(got) == data[start:]
    assert plan.done_bytes == plan.size == len(data)


# -- the group --------------------------------------------------------------------------------------------------------


class Files(Desk):
    """A device with these files, and a client's way to them."""

    def __init__(self, files: FsServer | None = None, config: DeviceConfig | None = None, **more: Any) -> None:
        super().__init__(config, **more)
        self.files = files if files is not None else server()
        self.device.add_group(self.files)

    def group(self, work: Callable[[FsGroup], Awaitable[T]]) -> T:
        async def main(client: Client) -> T:
            return await work(client.group(FsGroup))

        return self.client(main)

    def upload(self, data: Source, name: str = NAME, **options: Any) -> FileTransfer:
        return self.group(lambda group: group.upload(data, name, progress=self.events.append, **options))

    def download(self, name: str = NAME) -> bytes:
        sink = io.BytesIO()
        done = self.group(lambda group: group.download(name, sink, progress=self.events.append))
        assert done.size == len(sink.getvalue())
        return sink.getvalue()


class Watched(io.FileIO):
    """A file that knows which threads have read it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.readers: set[int] = set()

    def read(self, size: int | None = -1, /) -> bytes:
        self.readers.add(threading.get_ident())
        return super().read(size)


@pytest.mark.parametrize("there", [0, 700_000])
def test_a_long_file_is_read_beside_the_event_loop(there: int, tmp_path: Path) -> None:
    wanted = content(1_200_000)
    path = tmp_path / "long"
    path.write_bytes(wanted)
    mount = FsMount(files={"x": wanted[:there]} if there else {}, blocks=1024)
    desk = Files(FsServer(FsConfig(mounts=(mount,), offset_bytes=5)), DeviceConfig(buf_size=8192))
    with Watched(path) as file:
        done = desk.upload(cast(BinaryIO, file), resume=there > 0)
        assert threading.get_ident() not in file.readers
        assert file.readers
    assert (done.resumed_from, done.verified_by, done.retransmissions) == (there, "sha256", 0)
    assert stored(desk.files) == wanted


MODELS = [LinkModel.ideal(), LinkModel.ble(), LinkModel.uart(1_000_000), LinkModel.datagram()]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [1, 100, 5000])
def test_round_trip(model: LinkModel, size: int) -> None:
    desk = Files(server({"x": content(800, 1)}), model=model)
    wanted = content(size)
    done = desk.upload(wanted)
    assert (done.name, done.size, done.resumed_from, done.verified_by) == (NAME, size, 0, "sha256")
    assert done.retransmissions == 0 or model.flow.paced, "where more than the device has room for is tried"
    assert stored(desk.files) == wanted
    assert desk.files.open_path is None
    assert desk.download() == wanted
    assert desk.files.open_path is None
    for stage in (StageName.UPLOAD, StageName.DOWNLOAD):
        progress = [event for event in desk.events if isinstance(event, Bytes) and event.stage is stage]
        assert (progress[-1].done, progress[-1].total) == (size, size)
        assert [event.done for event in progress] == sorted(event.done for event in progress)


def test_a_device_that_does_not_tell_its_buffers() -> None:
    desk = Files(config=DeviceConfig(params=False), model=LinkModel.uart(1_000_000))
    wanted = content(700)
    desk.upload(wanted)
    assert desk.download() == wanted


def test_older_servers() -> None:
    for firmware in ("zephyr-3.4", "zephyr-3.2", "zephyr-2.7"):
        desk = Files(config=DeviceConfig.like(firmware))
        wanted = content(2000)
        desk.upload(wanted)
        assert desk.download() == wanted
        with pytest.raises(DeviceError):
            desk.group(lambda group: group.size("/lfs1/missing"))


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def test_streams_in_both_directions(tmp_path: Path) -> None:
    desk = Files()
    wanted = content(3000)
    desk.upload(pieces(wanted, 700))
    assert stored(desk.files) == wanted
    path = tmp_path / "file"
    path.write_bytes(wanted[::-1])
    with path.open("rb") as file:
        desk.upload(file, "/lfs1/dir/y")
        assert not file.closed
    assert stored(desk.files, "/lfs1/dir/y") == wanted[::-1]

    async def read(group: FsGroup) -> list[bytes]:
        async with aclosing(group.read(NAME, offset=500)) as stream:
            return [piece async for piece in stream]

    got = desk.group(read)
    assert b"".join(got) == wanted[500:]
    assert len(got) > 5


def test_memory_stays_flat() -> None:
    """A file object is read piece by piece: never more at once than a chunk or a block."""

    class Watched(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert size >= 0
            self.largest = max(self.largest, size)
            return super().read(size)

    desk = Files()
    source = Watched(content(150_000))
    desk.upload(source)
    assert source.largest <= 64 * 1024
    assert desk.download() == source.getvalue()


LINKS = {
    "stream": LinkModel.ideal(),
    "datagram": LinkModel.datagram(),
    "console": LinkModel.uart(),
    "ble": LinkModel.ble(),
}
FAULTS = ["drop_requests", "drop_replies", "duplicate_requests", "duplicate_replies", "delay_requests", "delay_replies"]


@pytest.mark.parametrize("window", [1, None])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("kind", FAULTS)
def test_one_fault_anywhere(kind: str, link: str, window: int | None) -> None:
    wanted = content(4000)
    for position in thinned(range(1, 31), kind, link, window):
        faults = Faults(**{kind: {position: 7.0} if kind.startswith("delay") else position})
        desk = Files(server({"x": content(800, 1)}), faults=faults, model=LINKS[link])
        sink = io.BytesIO()

        async def there_and_back(group: FsGroup, sink: io.BytesIO = sink) -> None:
            await group.upload(wanted, NAME, window=window)
            assert (await group.download(NAME, sink, window=window)).verified_by == "sha256"

        desk.group(there_and_back)
        assert stored(desk.files) == wanted, f"{kind} at {position}"
        assert sink.getvalue() == wanted
        assert faults.requests >= 27, "each of them had its turn"


# Chunks of 1472 bytes hold 1434 first and then 1439 bytes beside this path.
SHORT = [1, 1000, 1434, 1435, 4000]


@pytest.mark.parametrize("buffers", [2, 4])
@pytest.mark.parametrize("size", SHORT)
@pytest.mark.parametrize("kind", FAULTS)
def test_one_fault_anywhere_in_a_short_file(kind: str, size: int, buffers: int) -> None:
    """What goes wrong with any of the few messages there are, whatever was in the file before."""
    wanted = content(size)
    for old in (None, b"", content(800, 1), content(1434, 1), wanted, wanted[: size // 2]):
        for position in thinned(range(1, 10), kind, size, buffers, old):
            faults = Faults(**{kind: {position: 7.0} if kind.startswith("delay") else position})
            config = DeviceConfig(buf_size=2048, buf_count=buffers)
            model = LinkModel.datagram(latency_s=0.02)
            desk = Files(server({} if old is None else {"x": old}), config, faults=faults, model=model)
            sink = io.BytesIO()

            async def there_and_back(group: FsGroup, sink: io.BytesIO = sink) -> None:
                await group.upload(wanted, NAME)
                assert (await group.download(NAME, sink)).verified_by == "sha256"

            desk.group(there_and_back)
            assert stored(desk.files) == wanted, f"{kind} at {position}, {old!r} before"
            assert sink.getvalue() == wanted


class Recorded:
    """What the device was asked, as a selector of `Faults` that selects nothing."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def __call__(self, number: int, message: bytes) -> bool:
        self.messages.append(message)
        return False

    @property
    def kinds(self) -> str:
        """A letter for each: params, echo, write, read, size, hash, close."""
        names = {(0, 6): "p", (0, 0): "e", (8, 1): "s", (8, 2): "h", (8, 4): "c"}
        found = ""
        for header in map(Header.unpack, self.messages):
            read_or_write = "r" if header.op == Op.READ else "w"
            found += read_or_write if (header.group, header.command) == (8, 0) else names[header.group, header.command]
        return found


REQUESTS = [
    (2, 1000, "wh", "rh"),
    (2, 4000, "wwwh", "rrh"),
    (4, 1000, "wh", "rh"),
    (4, 4000, "wwwh", "rrh"),
    (4, 32_000, "w" * 23 + "h", "r" * 16 + "h"),
]


@pytest.mark.parametrize(("buffers", "size", "written", "read"), REQUESTS)
def test_short_files_take_few_requests(buffers: int, size: int, written: str, read: str) -> None:
    """Over a network: no request but those for the data, and one for the proof."""
    asked = Recorded()
    config = DeviceConfig(buf_size=2048, buf_count=buffers)
    desk = Files(config=config, faults=Faults(drop_requests=asked), model=LinkModel.datagram(latency_s=0.02))
    desk.upload(content(size), window=None if size < 32_000 else 3)  # not to try what may get lost
    assert asked.kinds == "p" + written
    asked.messages.clear()
    assert desk.download() == content(size)
    assert asked.kinds == "p" + read


@pytest.mark.parametrize(("buffers", "size", "trips"), [(2, 1000, 2.4), (2, 4000, 3.5), (4, 1000, 1.4), (4, 4000, 3)])
def test_short_files_take_few_round_trips(buffers: int, size: int, trips: float) -> None:
    """More than one buffer lets requests go out at once, and one while the answer to that before is on its way."""
    config = DeviceConfig(buf_size=2048, buf_count=buffers)
    desk = Files(config=config, model=LinkModel.datagram(latency_s=0.05))

    async def measure(client: Client) -> float:
        loop = asyncio.get_running_loop()
        await client.params()
        begin = loop.time()
        done = await client.group(FsGroup).upload(content(size), NAME)
        assert (done.verified_by, done.retransmissions) == ("sha256", 0)
        assert client.profile.min_rtt_s is not None
        return (loop.time() - begin) / client.profile.min_rtt_s

    assert desk.client(measure) < trips
    assert desk.faults.requests == desk.faults.replies, "nothing was lost"


def test_a_network_that_loses_large_datagrams() -> None:
    """Nobody asks beforehand whether they arrive; the first chunk shows it, and the next upload remembers."""
    asked = Recorded()

    def large(number: int, message: bytes) -> bool:
        asked(number, message)
        return len(message) > 1000

    config = DeviceConfig(buf_size=2048, buf_count=2)
    desk = Files(config=config, faults=Faults(drop_requests=large), model=LinkModel.datagram())

    async def twice(client: Client) -> None:
        group = client.group(FsGroup)
        await group.upload(content(4000), NAME)
        assert client.profile.learned.refused_bytes == 1472
        assert sum(len(message) > 1000 for message in asked.messages) <= 3
        asked.messages.clear()
        await group.upload(content(4000, 1), NAME)
        assert max(map(len, asked.messages)) <= 1000

    desk.client(twice)
    assert stored(desk.files) == content(4000, 1)


def test_a_size_that_is_remembered_needs_no_echo() -> None:
    for learned, begin in ((None, "pew"), (380, "pw"), (370, "pew")):
        asked = Recorded()
        desk = Files(faults=Faults(drop_requests=asked), model=LinkModel.uart(1_000_000))

        async def work(client: Client, learned: int | None = learned) -> None:
            if learned is not None:
                client.profile.learned.room_bytes, client.profile.learned.message_bytes = 380, learned
            await client.group(FsGroup).upload(content(1000), NAME)

        desk.client(work)
        assert asked.kinds.startswith(begin), (learned, asked.kinds)
        assert stored(desk.files) == content(1000)


@pytest.mark.parametrize("old", [None, content(5000, 1)])
def test_what_another_upload_has_left_open_is_written_anew(old: bytes | None) -> None:
    desk = Files(server({} if old is None else {"x": old}), DeviceConfig(buf_size=2048))

    async def after_another(client: Client) -> None:
        await client.request(WriteFile(NAME, 0, bytes(300), 5000))
        await client.group(FsGroup).upload(content(1000), NAME)

    desk.client(after_another)
    assert stored(desk.files) == content(1000)


@pytest.mark.parametrize("firmware", [None, "zephyr-3.4", "zephyr-3.2", "zephyr-2.7"])
@pytest.mark.parametrize("link", LINKS)
def test_many_losses(link: str, firmware: str | None) -> None:
    """One packet in fourteen, in both directions; a version 1 server tells nothing of a gap."""
    config = DeviceConfig() if firmware is None else DeviceConfig.like(firmware)
    chance = random.Random(f"{link} {firmware}")
    lost = [number for number in range(4, 4000) if chance.random() < 0.07]
    lost_too = [number for number in range(4, 4000) if chance.random() < 0.07]
    desk = Files(config=config, faults=Faults(drop_requests=lost, drop_replies=lost_too), model=LINKS[link])
    wanted = content(8000)
    desk.upload(wanted)
    assert stored(desk.files) == wanted
    assert desk.download() == wanted


def test_a_window_is_faster_where_the_link_has_a_latency() -> None:
    wanted = content(20_000)
    took: dict[int | None, tuple[float, float]] = {}
    for window in (1, None):
        desk = Files(server({"x": wanted}), model=LinkModel.ble())

        async def measure(client: Client, window: int | None = window) -> None:
            loop, group = asyncio.get_running_loop(), client.group(FsGroup)
            begin = loop.time()
            await group.download(NAME, io.BytesIO(), window=window)
            between = loop.time()
            await group.upload(wanted, NAME, window=window)
            took[window] = between - begin, loop.time() - between

        desk.client(measure)
    assert took[None][0] < 0.6 * took[1][0]
    assert took[None][1] < 0.6 * took[1][1]


def test_a_window_that_the_device_has_no_room_for_is_told() -> None:
    desk = Files(server({"x": content(500)}))
    desk.upload(content(500), window=9)
    assert [event.text for event in desk.events if isinstance(event, Note)] == [
        "window 3 instead of 9: the device has 4 buffers"
    ]
    with pytest.raises(UsageError):
        desk.upload(b"x", window=0)


def test_an_error_of_the_sink_is_the_callers() -> None:
    class Broken(io.BytesIO):
        def write(self, data: Any, /) -> int:
            raise RuntimeError("of the caller")

    desk = Files(server({"x": content(5000)}))
    with pytest.raises(RuntimeError, match="of the caller"):
        desk.group(lambda group: group.download(NAME, Broken()))


def test_a_sink_never_runs_in_the_task_that_reads() -> None:
    class Watching(io.BytesIO):
        tasks: ClassVar[set[str]] = set()

        def write(self, data: Any, /) -> int:
            task = asyncio.current_task()
            self.tasks.add("" if task is None else task.get_name())
            return super().write(data)

    wanted = content(5000)
    desk, sink = Files(server({"x": wanted})), Watching()
    desk.group(lambda group: group.download(NAME, sink))
    assert sink.getvalue() == wanted
    assert not any("reader" in name for name in sink.tasks)


def test_a_sink_that_fails_leaves_the_client_as_it_was() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            if self.tell() > 2000:
                raise OSError("no space left on device")
            return super().write(data)

    wanted = content(5000)
    desk, sink = Files(server({"x": wanted})), Full()

    async def twice(group: FsGroup) -> bytes:
        with pytest.raises(OSError, match="no space"):
            await group.download(NAME, sink)
        again = io.BytesIO()
        await group.download(NAME, again)
        return again.getvalue()

    assert desk.group(twice) == wanted
    assert wanted.startswith(sink.getvalue())
    assert 2000 < len(sink.getvalue()) < 5000


class AtOnce(SimulatedTransport):
    """Answers in the moment in which it is asked, so that the task that reads never lets others have their turn."""

    def __init__(self, device: SimulatedDevice) -> None:
        super().__init__(device, LinkModel.datagram())
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def offer(self, writes: Sequence[bytes]) -> bool:
        for reply in self.device.handle(b"".join(writes), 0.0).replies:
            self.answers.put_nowait(reply)
        return True

    async def receive(self) -> bytes:
        return await self.answers.get()


@pytest.mark.parametrize("most", [1, 1 << 20])
def test_what_a_sink_has_not_got_is_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    kept = []

    class Watched(Delivery):
        def put(self, data: bytes) -> None:
            super().put(data)
            kept.append(self.bytes)

    monkeypatch.setattr("mcumgrx.bulk._MOST_UNDELIVERED", most)
    monkeypatch.setattr("mcumgrx_plugins.fs.group.Delivery", Watched)
    wanted = content(20_000)
    desk, sink = Files(server({"x": wanted})), io.BytesIO()
    desk.transport = AtOnce(desk.device)
    desk.group(lambda group: group.download(NAME, sink))
    assert sink.getvalue() == wanted
    assert (max(kept) < 2000) is (most == 1)


def test_a_source_that_is_closed_meanwhile() -> None:
    desk = Files(model=LinkModel.ideal())
    source = io.BytesIO(content(1_100_000))  # of a shorter one there is a copy

    def close(event: object) -> None:
        if isinstance(event, Bytes) and event.done:
            source.close()

    with pytest.raises(LocalFileError, match="cannot be read"):
        desk.group(lambda group: group.upload(source, NAME, progress=close))


def test_a_dead_device_is_given_up_with_a_hint() -> None:
    desk = Files(faults=Faults(drop_replies=lambda number, message: number > 4))
    with pytest.raises(RequestTimeout, match="stuck at ") as error:
        desk.upload(content(1500))
    assert error.value.hint is not None
    assert "--resume" in error.value.hint
    first = Files(faults=Faults(drop_requests=lambda number, message: message[8:].find(b"data") > 0))
    with pytest.raises(RequestTimeout, match="stuck at 0 %") as error:
        first.upload(content(1500))
    assert error.value.hint is not None
    assert "--chunk" in error.value.hint


def test_a_hash_that_never_comes() -> None:
    desk = Files(faults=Faults(drop_replies=lambda number, message: message[7] == 2))
    with pytest.raises(RequestTimeout, match="hash") as error:
        desk.upload(content(500))
    assert error.value.hint is not None
    assert "--timeout" in error.value.hint


def test_an_upload_goes_on_where_it_broke_off() -> None:
    desk = Files(faults=Faults(cut_at_request=8))
    wanted = content(3000)
    with pytest.raises(LinkLost) as lost:
        desk.upload(wanted)
    assert lost.value.hint is not None
    assert "--resume" in lost.value.hint
    done = desk.upload(wanted, resume=True)
    assert 1000 < done.resumed_from < 3000
    assert stored(desk.files) == wanted
    progress = [event for event in desk.events if isinstance(event, Bytes)]
    assert progress[-1].resumed_from == done.resumed_from
    again = desk.upload(wanted, resume=True)
    assert again.resumed_from == 3000
    other = content(3000, 1)
    assert desk.upload(other, resume=True).resumed_from == 0
    assert stored(desk.files) == other


def test_a_download_goes_on_where_it_broke_off() -> None:
    wanted = content(3000)
    desk = Files(server({"x": wanted}))
    for kept in (0, 1, 1500, 3000):
        file = io.BytesIO(wanted[:kept])
        done = desk.group(lambda group, file=file: group.download(NAME, file, resume=True))
        assert (file.getvalue(), done.resumed_from) == (wanted, kept)
    for useless in (content(1500, 1), wanted + b"more"):
        file = io.BytesIO(useless)
        done = desk.group(lambda group, file=file: group.download(NAME, file, resume=True, progress=desk.events.append))
        assert (file.getvalue(), done.resumed_from) == (wanted, 0)
        note = next(event for event in desk.events if isinstance(event, Note))
        assert "are not used" in note.text


def test_downloads_without_a_hash_or_size_query() -> None:
    wanted = content(3000)
    files = server({"x": wanted}, hashes=())
    del files.handlers[Op.READ, 1]
    desk = Files(files)
    file = io.BytesIO(wanted[:1000])
    done = desk.group(lambda group: group.download(NAME, file, resume=True, progress=desk.events.append))
    assert (file.getvalue(), done) == (wanted, FileTransfer(NAME, 3000, 0, "size"))
    assert any("no hash" in event.text for event in desk.events if isinstance(event, Note))
    with pytest.raises(TypeError):
        desk.group(lambda group: group.download(NAME, _WriteOnly(), resume=True))


class _WriteOnly:
    def write(self, data: bytes, /) -> None: ...


class Changing(FsServer):
    """A file that is another one when it is looked at later."""

    def hash(self, call: Call) -> dict[str, Any]:
        return {**super().hash(call), "output": b"x" * 32}


class Shrinking(FsServer):
    def hash(self, call: Call) -> dict[str, Any]:
        return {**super().hash(call), "len": 5}


@pytest.mark.parametrize(("kind", "text"), [(Changing, "sha256 of what has arrived"), (Shrinking, "hashed 5 bytes")])
def test_a_file_that_changes_while_it_is_read(kind: type[FsServer], text: str) -> None:
    desk = Files(kind(FsConfig(mounts=(FsMount(files={"x": content(500)}),))))
    with pytest.raises(FileDamaged, match=text):
        desk.download()


def test_a_log_that_grows_while_it_is_read_is_no_error() -> None:
    class Growing(FsServer):
        def hash(self, call: Call) -> dict[str, Any]:
            self.write(NAME, content(900))
            return super().hash(call)

    desk = Files(Growing(FsConfig(mounts=(FsMount(files={"x": content(500)}),))))
    assert desk.download() == content(500)


class Log(FsServer):
    """A file to which something is appended with every request."""

    appended = b"one line more\n"

    def download(self, call: Call) -> dict[str, Any]:
        old = stored(self)
        assert old is not None
        self.write(NAME, old + self.appended)
        return super().download(call)


@pytest.mark.parametrize("has_hash", [True, False])
@pytest.mark.parametrize("model", [LinkModel.ble(), LinkModel.datagram()])
def test_of_a_log_that_is_written_to_the_beginning_is_kept(has_hash: bool, model: LinkModel, tmp_path: Path) -> None:
    data = content(5000)
    files = Log(FsConfig(mounts=(FsMount(files={"x": data}),)))
    files.handlers[Op.READ, 0] = files.download
    if not has_hash:
        del files.handlers[Op.READ, 2]
    desk = Files(files, model=model)
    local = tmp_path / "log"
    done = desk.command(commands.get, remote=NAME, local=local, resume=False, window=None)
    assert local.read_bytes() == data + Log.appended  # what the device told first
    assert (done.grown, done.verified_by) == (True, "sha256" if has_hash else None)
    assert ("not compared" in done.lines()[1]) is not has_hash
    warnings = [event.text for event in desk.events if isinstance(event, Note) and event.warning]
    assert warnings == [f"{NAME} has grown while it was read: these are its first {done.size:,} bytes"]
    assert files.open_path is None


def test_a_device_that_stores_something_else() -> None:
    desk = Files(Changing(FsConfig(mounts=(FsMount(files={}),))))
    with pytest.raises(FileDamaged, match="not that of what was written"):
        desk.upload(content(500))


def test_empty_files() -> None:
    desk = Files(server({"e": b"", "full": b"old"}))
    assert desk.download("/lfs1/e") == b""
    assert desk.upload(b"", "/lfs1/e").verified_by == "size"
    assert desk.upload(b"", "/lfs1/new") == FileTransfer("/lfs1/new", 0, verified_by="size")
    assert stored(desk.files, "/lfs1/new") == b""
    with pytest.raises(PlanRefused, match="nothing can replace the 3 bytes") as refused:
        desk.upload(b"", "/lfs1/full")
    assert refused.value.hint is not None
    assert stored(desk.files, "/lfs1/full") == b"old"


def test_sizes_and_hashes() -> None:
    data = content(500)
    desk = Files(server({"x": data}))
    assert desk.group(lambda group: group.size(NAME)) == 500
    assert desk.group(lambda group: group.hash(NAME)).output == zlib.crc32(data)
    part = desk.group(lambda group: group.hash(NAME, "sha256", offset=100, length=50))
    assert part == FileHash("sha256", 100, 50, hashlib.sha256(data[100:150]).digest())
    assert [one.name for one in desk.group(lambda group: group.hash_types())] == ["crc32", "sha256"]
    desk.group(lambda group: group.close())


class Busy(FsServer):
    """Another client has the file for a while."""

    def __init__(self, files: dict[str, bytes], *, every: int = 2, code: SmpError = SmpError.BUSY) -> None:
        super().__init__(FsConfig(mounts=(FsMount(files=files),)))
        self.calls = 0
        for key, handler in list(self.handlers.items()):
            self.handlers[key] = self._sometimes(handler, every, code)

    def _sometimes(self, handler: Any, every: int, code: SmpError) -> Any:
        def busy(call: Call) -> Any:
            self.calls += 1
            if self.calls % every:
                raise Refused(code)
            return handler(call)

        return busy


@pytest.mark.parametrize("code", [SmpError.BUSY, SmpError.NO_MEMORY])
def test_a_busy_device_is_asked_again(code: SmpError) -> None:
    desk = Files(Busy({"y": content(700)}, code=code))
    desk.upload(content(1000))
    assert stored(desk.files) == content(1000)
    assert desk.download("/lfs1/y") == content(700)


def test_a_device_that_stays_busy_is_given_up() -> None:
    desk = Files(Busy({"x": b"x"}, every=10**9))
    for work in (lambda group: group.upload(b"abc", NAME), lambda group: group.size(NAME)):
        with pytest.raises(DeviceError) as error:
            desk.group(work)
        assert (error.value.name, error.value.group) == ("BUSY", None)
        assert error.value.hint is not None
        assert "another client" in error.value.hint


# Path, names of the codes for reading and writing, a part of the hint for writing.
REFUSED = [
    ("relative.txt", "FILE_INVALID_NAME", "FILE_INVALID_NAME", "mount point"),
    ("/lfs1/missing/x", "FILE_NOT_FOUND", "MOUNT_POINT_NOT_FOUND", "mount point"),
    ("/nope/x", "FILE_NOT_FOUND", "MOUNT_POINT_NOT_FOUND", "mount point"),
    ("/lfs1/dir", "FILE_IS_DIRECTORY", "UNKNOWN", "directory"),
    ("/lfs1/" + "n" * 59, "INVALID", "INVALID", "this one has 65"),
    ("/lfs1/" + "ü" * 30, "INVALID", "INVALID", "this one has 66"),
    ("", "INVALID", "INVALID", None),
]


@pytest.mark.parametrize(("path", "reading", "writing", "hint"), REFUSED)
def test_paths_that_the_device_refuses(path: str, reading: str, writing: str, hint: str | None) -> None:
    desk = Files()
    with pytest.raises(DeviceError) as error:
        desk.upload(b"abc", path)
    assert error.value.name == writing
    assert hint is None or hint in (error.value.hint or "")
    for work in (lambda group: group.size(path), lambda group: group.download(path, io.BytesIO())):
        with pytest.raises(DeviceError) as error:
            desk.group(work)
        assert error.value.name == reading
        assert hint is None or error.value.hint


def test_a_file_larger_than_its_file_system() -> None:
    files = FsServer(FsConfig(mounts=(FsMount(blocks=4, files={}),)))
    desk = Files(files)
    with pytest.raises(DeviceError, match="writing the file failed") as error:
        desk.upload(content(20_000))
    assert error.value.rc == FsErrorCode.FILE_WRITE_FAILED
    assert error.value.hint is not None
    assert "20000 bytes" in error.value.hint
    assert files.open_path is None
    desk.upload(content(2000))
    assert stored(files) == content(2000)


class Refusing(FsServer):
    """Answers every request with this."""

    def __init__(self, answer: Exception, *commands: tuple[Op, int]) -> None:
        super().__init__(FsConfig())

        def refuse(call: Call) -> Any:
            raise answer

        for key in commands or list(self.handlers):
            self.handlers[key] = refuse


@pytest.mark.parametrize(
    ("answer", "name", "hint"),
    [
        (Refused(SmpError.NOT_SUPPORTED), "NOT_SUPPORTED", "CONFIG_MCUMGR_GRP_FS"),
        (Refused(SmpError.MESSAGE_SIZE), "MESSAGE_SIZE", "CONFIG_MCUMGR_GRP_FS_MAX_FILE_SIZE_4GB"),
        (Refused(SmpError.ACCESS_DENIED), "ACCESS_DENIED", None),
        (Refused(SmpError.NO_ENTRY), "NO_ENTRY", "mount point"),
        (GroupError(FsErrorCode.READ_ONLY_FILESYSTEM), "READ_ONLY_FILESYSTEM", None),
        (GroupError(99), None, None),
    ],
)
def test_refusals(answer: Exception, name: str | None, hint: str | None) -> None:
    desk = Files(Refusing(answer))
    for work in (
        lambda group: group.upload(b"abc", NAME),
        lambda group: group.download(NAME, io.BytesIO()),
        lambda group: group.size(NAME),
        lambda group: group.hash(NAME),
        lambda group: group.hash_types(),
        lambda group: group.close(),
    ):
        with pytest.raises(DeviceError) as error:
            desk.group(work)
        assert error.value.name == name
        assert hint is None or hint in (error.value.hint or "") or hint == "mount point"


def test_what_the_file_system_has_no_number_for() -> None:
    desk = Files(Refusing(GroupError(FsErrorCode.UNKNOWN)))
    with pytest.raises(DeviceError) as error:
        desk.group(lambda group: group.size(NAME))
    assert "memory" in str(error.value.hint)
    assert "directory" not in str(error.value.hint)  # that is another code, but for uploads
    with pytest.raises(DeviceError) as error:
        desk.upload(b"abc")
    assert "memory" in str(error.value.hint)
    assert "directory" in str(error.value.hint)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ((Op.READ, 1), "CONFIG_MCUMGR_GRP_FS_FILE_STATUS"),
        ((Op.READ, 2), "CONFIG_MCUMGR_GRP_FS_CHECKSUM_HASH;"),
        ((Op.READ, 3), "CONFIG_MCUMGR_GRP_FS_CHECKSUM_HASH_SUPPORTED_CMD"),
        ((Op.WRITE, 4), "Zephyr 3.3"),
    ],
)
def test_commands_that_were_not_built_in(command: tuple[Op, int], option: str) -> None:
    files = server({"x": b"x"})
    del files.handlers[command]
    desk = Files(files)
    works: dict[tuple[Op, int], Callable[[FsGroup], Awaitable[object]]] = {
        (Op.READ, 1): lambda group: group.size(NAME),
        (Op.READ, 2): lambda group: group.hash(NAME),
        (Op.READ, 3): lambda group: group.hash_types(),
        (Op.WRITE, 4): lambda group: group.close(),
    }
    with pytest.raises(DeviceError) as error:
        desk.group(works[command])
    assert error.value.hint is not None
    assert option in error.value.hint
    assert re.search(r"CONFIG_MCUMGR_GRP_FS\b(?!_)", error.value.hint)  # without the group it is the same answer
    desk.upload(b"abc")
    assert desk.download() == b"abc"


def test_an_upload_that_fails_closes_the_file() -> None:
    class Full(FsServer):
        def upload(self, call: Call) -> dict[str, Any]:
            if self.open_path is not None:
                raise GroupError(FsErrorCode.FILE_WRITE_FAILED)
            return super().upload(call)

    desk = Files(Full(FsConfig()))
    with pytest.raises(DeviceError):
        desk.upload(content(2000))
    assert desk.files.open_path is None


def test_a_hash_of_a_large_file_gets_its_time() -> None:
    desk = Files(server(hash_s_per_byte=1.9e-4))
    assert desk.upload(content(200_000)).verified_by == "sha256"  # which takes 38 s


# -- files of this computer -------------------------------------------------------------------------------------------


# -- commands ---------------------------------------------------------------------------------------------------------


def test_put_and_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    desk = Files()
    data = content(2000)
    local = tmp_path / "config.bin"
    local.write_bytes(data)
    done = desk.command(commands.put, local=local, remote="/lfs1/dir/", resume=False, chunk=None, window=None)
    assert (done.path, done.size, done.verified_by) == ("/lfs1/dir/config.bin", 2000, "sha256")
    assert done.lines()[0].startswith("wrote /lfs1/dir/config.bin: 2000 bytes in ")
    assert done.lines()[1] == "compared with the device: same sha256"
    stages = [event for event in desk.events if isinstance(event, Stage)]
    assert [(stage.name, stage.finished) for stage in stages] == [(StageName.UPLOAD, False), (StageName.UPLOAD, True)]
    local.unlink()
    got = desk.command(commands.get, remote=done.path, local=None, resume=False, window=None)
    assert local.read_bytes() == data
    assert got.lines()[0].startswith("read /lfs1/dir/config.bin into config.bin: 2000 bytes")
    folder = tmp_path / "folder"
    folder.mkdir()
    desk.command(commands.get, remote=done.path, local=folder, resume=False, window=None)
    assert (folder / "config.bin").read_bytes() == data
    again = desk.command(commands.put, local=local, remote=done.path, resume=True, chunk=50, window=None)
    assert again.resumed_from == 2000
    assert "0 bytes" in again.lines()[0]
    assert "(the other 2000 were there already)" in again.lines()[0]


def test_texts_of_what_was_compared() -> None:
    lines = {by: commands.PutResult("a", "b", 5, 0, by, 0.0).lines()[1] for by in ("size", None)}
    assert lines["size"] == "compared with the device: same size (the device takes no hash)"
    assert "neither hash nor size" in lines[None]


def test_size_hash_hashes_close() -> None:
    data = content(300)
    desk = Files(server({"x": data}))
    assert desk.command(commands.size, remote=NAME).lines() == ["300 bytes"]
    hashed = desk.command(commands.hash_file, remote=NAME, type="sha256", offset=10, length=20)
    assert hashed.lines() == [f"sha256 {hashlib.sha256(data[10:30]).hexdigest()}", "of 20 bytes from offset 10"]
    whole = desk.command(commands.hash_file, remote=NAME, type=None, offset=0, length=None)
    assert (whole.type, whole.hash, whole.length) == ("crc32", f"{zlib.crc32(data):08x}", 300)
    assert desk.command(commands.hashes).lines() == ["crc32  4 bytes", "sha256  32 bytes"]
    assert commands.HashTypesResult(()).lines() == ["the device lists no type of hash"]
    assert "no file open" in desk.command(commands.close).lines()[0]
    for offset, length in ((-1, None), (0, 0)):
        with pytest.raises(UsageError):
            desk.command(commands.hash_file, remote=NAME, type=None, offset=offset, length=length)


def test_arguments_that_make_no_sense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    desk = Files(server({"x": b"x"}))
    with pytest.raises(UsageError, match="--chunk"):
        desk.command(commands.put, local=tmp_path, remote=NAME, resume=False, chunk=0, window=None)
    with pytest.raises(UsageError, match="names a directory"):
        desk.command(commands.put, local=Path("-"), remote="/lfs1/", resume=False, chunk=None, window=None)
    with pytest.raises(UsageError, match="tell a name"):
        desk.command(commands.get, remote="/lfs1/", local=None, resume=False, window=None)
    with pytest.raises(UsageError, match="standard output"):
        desk.command(commands.get, remote=NAME, local=Path("-"), resume=True, window=None)
    assert desk.device.requests == 0


@pytest.mark.parametrize("name", ["missing", "folder"])
def test_local_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    desk = Files()
    with pytest.raises(LocalFileError, match="cannot be read") as error:
        desk.command(commands.put, local=tmp_path / name, remote=NAME, resume=False, chunk=None, window=None)
    assert exit_for(error.value) is Exit.BAD_FILE
    assert error.value.path == str(tmp_path / name)
    assert desk.device.requests == 0


def test_local_files_that_cannot_be_written(tmp_path: Path) -> None:
    desk = Files(server({"x": b"x"}))
    with pytest.raises(LocalFileError, match="cannot be written"):
        desk.command(commands.get, remote=NAME, local=tmp_path / "none" / "x", resume=False, window=None)
    assert desk.device.requests == 0


def test_a_disk_that_gets_full_keeps_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write of a file that has grown too large fails as that of a full disk does."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    data = content(5000)
    desk = Files(server({"x": data}))
    local = tmp_path / "x"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(LocalFileError, match="cannot be written") as error:
            desk.command(commands.get, remote=NAME, local=local, resume=False, window=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert error.value.hint is not None
    assert "--resume" in error.value.hint
    assert not local.exists()
    done = desk.command(commands.get, remote=NAME, local=local, resume=True, window=None)
    assert done.resumed_from > 1000
    assert local.read_bytes() == data


def test_a_download_that_breaks_off_replaces_nothing(tmp_path: Path) -> None:
    data = content(3000)
    desk = Files(server({"x": data}), faults=Faults(cut_at_request=6))
    local = tmp_path / "x"
    local.write_bytes(b"good")
    with pytest.raises(LinkLost) as lost:
        desk.command(commands.get, remote=NAME, local=local, resume=False, window=None)
    assert lost.value.hint is not None
    assert "--resume" in lost.value.hint
    assert local.read_bytes() == b"good"
    kept = (tmp_path / "x.part").stat().st_size
    assert 0 < kept < 3000
    done = desk.command(commands.get, remote=NAME, local=local, resume=True, window=None)
    assert done.resumed_from == kept
    assert local.read_bytes() == data
    assert not (tmp_path / "x.part").exists()


def test_what_is_damaged_is_not_kept(tmp_path: Path) -> None:
    desk = Files(Changing(FsConfig(mounts=(FsMount(files={"x": content(500)}),))))
    with pytest.raises(FileDamaged):
        desk.command(commands.get, remote=NAME, local=tmp_path / "x", resume=False, window=None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DeviceError):
        Files().command(commands.get, remote=NAME, local=tmp_path / "x", resume=False, window=None)
    assert list(tmp_path.iterdir()) == []


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    data = content(3000)
    desk = Files(server({"x": data}))
    done = desk.command(commands.get, remote=NAME, local=Path("-"), resume=False, window=None)
    assert capfdbinary.readouterr().out == data
    assert done.lines() == []
    assert done.size == 3000


def test_a_terminal_gets_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: True)
    desk = Files(server({"x": b"one\ntwo\x1b[2J\xff\n"}))
    done = desk.command(commands.get, remote=NAME, local=Path("-"), resume=False, window=None)
    assert done.lines() == ["one", "two\x1b[2J\\xff"]  # the command line makes the rest harmless
    monkeypatch.setattr("mcumgrx_plugins.fs.target.StandardOutput.TERMINAL_BYTES", 10)
    with pytest.raises(UsageError, match="too large for a terminal"):
        desk.command(commands.get, remote=NAME, local=Path("-"), resume=False, window=None)


def mcumgrx(*arguments: str, cwd: Path, stdin: bytes | int = b"") -> subprocess.CompletedProcess[bytes]:
    """The command line in a process of its own, with a simulated device that outlives it."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "mcumgrx", *arguments, "-d", "sim:d,state=device.json"],
        cwd=cwd,
        input=stdin if isinstance(stdin, bytes) else None,
        capture_output=True,
        timeout=150,
        check=False,
    )


def test_pipes(tmp_path: Path) -> None:
    data = content(2000)
    wrote = mcumgrx("fs", "put", "-", NAME, cwd=tmp_path, stdin=data)
    assert (wrote.returncode, wrote.stdout[:12]) == (0, b"wrote /lfs1/")
    read = mcumgrx("fs", "get", NAME, "-", cwd=tmp_path)
    assert (read.returncode, read.stdout) == (0, data)
    found = mcumgrx("fs", "hash", NAME, "--json", cwd=tmp_path)
    assert json.loads(found.stdout)["result"]["hash"] == f"{zlib.crc32(data):08x}"
    refused = mcumgrx("fs", "get", "/lfs1/none", "--json", cwd=tmp_path)
    error = json.loads(refused.stdout.splitlines()[-1])["error"]
    assert (refused.returncode, error["code"], error["name"]) == (5, "device-refused", "FILE_NOT_FOUND")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device.json"]


def test_it_is_a_plugin_like_any_other() -> None:
    registry = default_registry()
    assert registry.groups[8].name == "fs"
    assert [name for name in registry.commands if name.startswith("fs ")] == [
        "fs put",
        "fs get",
        "fs size",
        "fs hash",
        "fs hashes",
        "fs close",
    ]


def test_errors_of_a_time_out_stay_what_they_are() -> None:
    """A `RequestTimeout` is an `OSError` to Python, and must not become one of a file."""
    from mcumgrx_plugins.fs.local import local_errors

    late = RequestTimeout("late", what="x", timeout_s=1.0)
    with pytest.raises(McumgrError) as error, local_errors("file"):
        raise late
    assert error.value is late
    assert isinstance(late, OSError)


def test_a_cancelled_upload_leaves_a_client_that_works() -> None:
    desk = Files(model=LinkModel.uart())

    async def work(client: Client) -> int:
        group = client.group(FsGroup)
        task = asyncio.create_task(group.upload(content(5000), NAME))
        await asyncio.sleep(0.3)  # of virtual time: some chunks are through
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return (await group.upload(content(5000), NAME, resume=True)).resumed_from

    assert desk.client(work) > 0
    assert stored(desk.files) == content(5000)
