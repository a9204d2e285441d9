"""Data in fragments over a vendor's group: whole, in few requests, with losses, and refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mcumgrx.client import Client
from mcumgrx.plugin_api import (
    Body,
    Bytes,
    DeviceError,
    Event,
    Fields,
    Fragment,
    MalformedReply,
    NotDone,
    Op,
    SmpCommand,
    UploadProgress,
    read_data,
    write_data,
)
from mcumgrx.sim.device import SimulatedDevice
from mcumgrx.sim.groups import Call, GroupError, GroupServer
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run

DATA = bytes(range(256)) * 40


class Recorder(GroupServer):
    """Group 70: measurements to be read, and a curve to be written."""

    group = 70

    def __init__(self) -> None:
        super().__init__({(Op.READ, 1): self.read, (Op.WRITE, 2): self.write})
        self.data = DATA
        self.asked: list[int] = []
        self.written = b""
        self.tells_length = True
        self.full_at: int | None = None

    def read(self, call: Call) -> dict[str, Any]:
        offset = call.read(off="uint").get("off", 0)
        self.asked.append(offset)
        answer: dict[str, Any] = {"off": offset, "data": self.data[offset : offset + 200]}
        return {**answer, "len": len(self.data)} if offset == 0 and self.tells_length else answer

    def write(self, call: Call) -> dict[str, Any]:
        piece = call.read(off="uint", data="bytes", len="uint")
        if self.full_at is not None and piece["off"] >= self.full_at:
            raise GroupError(4)
        if piece["off"] == 0:
            self.written = b""
        if piece["off"] == len(self.written):
            self.written += piece["data"]
        return {"off": len(self.written)}


@dataclass(frozen=True)
class ReadPiece(SmpCommand[Fragment], group=70, number=1, what="measurements", repeatable=True):
    offset: int

    def body(self) -> Body:
        return {"off": self.offset}

    def parse(self, fields: Fields) -> Fragment:
        return Fragment(fields.integer("off"), fields.data("data"), fields.optional_integer("len"))


@dataclass(frozen=True)
class WritePiece(SmpCommand[UploadProgress], group=70, number=2, op=Op.WRITE, what="curve", repeatable=True):
    offset: int
    data: bytes
    size: int

    def body(self) -> Body:
        body: Body = {"off": self.offset, "data": self.data}
        return {**body, "len": self.size} if self.offset == 0 else body

    def parse(self, fields: Fields) -> UploadProgress:
        return UploadProgress(fields.integer("off"))


def recorded(
    work: Callable[[Client], Any], recorder: Recorder, faults: Faults | None = None, model: LinkModel | None = None
) -> Any:
    device = SimulatedDevice()
    device.install(build_image("1.0.0", payload_size=2000))
    device.add_group(recorder)

    async def main() -> Any:
        async with Client(SimulatedTransport(device, model, faults=faults)) as client:
            return await work(client)

    return run(main())


MODELS = {"datagram": LinkModel.datagram(), "uart": LinkModel.uart(), "ble": LinkModel.ble()}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("every", [0, 7])
def test_data_is_read_and_written_whole(model: LinkModel, every: int) -> None:
    """With and without losses: of every seventh request, and of every fifth answer."""
    recorder = Recorder()
    faults = Faults(
        drop_requests=lambda number, message: bool(every) and number % every == 3,
        drop_replies=lambda number, message: bool(every) and number % 5 == 2,
    )
    events: list[Event] = []

    async def work(client: Client) -> bytes:
        await write_data(client, DATA, WritePiece, progress=events.append, stage="curve")
        return await read_data(client, ReadPiece)

    assert recorded(work, recorder, faults, model) == DATA
    assert recorder.written == DATA
    last = [event for event in events if isinstance(event, Bytes)][-1]
    assert (last.stage, last.done, last.total) == ("curve", len(DATA), len(DATA))
    if not every:
        assert sorted(recorder.asked) == list(range(0, len(DATA), 200))


def test_a_size_that_is_known_is_not_asked_for() -> None:
    recorder = Recorder()
    recorder.tells_length = False
    assert recorded(lambda client: read_data(client, ReadPiece, size=1000), recorder) == DATA[:1000]
    with pytest.raises(MalformedReply, match="it lacks 'len'"):
        recorded(lambda client: read_data(client, ReadPiece), recorder)


def test_data_that_becomes_shorter_is_told() -> None:
    recorder = Recorder()
    recorder.tells_length = False
    with pytest.raises(NotDone, match="it ends before"):
        recorded(lambda client: read_data(client, ReadPiece, size=len(DATA) + 500), recorder)


def test_a_refusal_in_the_middle_ends_it() -> None:
    recorder = Recorder()
    recorder.full_at = 3000
    with pytest.raises(DeviceError) as raised:
        recorded(lambda client: write_data(client, DATA, WritePiece), recorder)
    assert (raised.value.group, raised.value.rc) == (70, 4)
    assert 0 < len(recorder.written) <= 3000 + 400


@pytest.mark.parametrize("can_ask", [True, False])
def test_where_the_last_answer_is_lost_whoever_can_is_asked(can_ask: bool) -> None:
    recorder = Recorder()
    asked: list[int] = []
    lost: list[int] = []

    def last(number: int, message: bytes) -> bool:
        if recorder.written != DATA or asked or (lost and not can_ask):
            return False
        lost.append(number)
        return True

    async def settled() -> bool:
        asked.append(len(recorder.written))
        return recorder.written == DATA

    async def work(client: Client) -> None:
        await write_data(client, DATA, WritePiece, settled=settled if can_ask else None)

    recorded(work, recorder, Faults(drop_replies=last))
    assert recorder.written == DATA
    assert lost
    assert asked == ([len(DATA)] if can_ask else [])
