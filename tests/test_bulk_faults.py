"""All plans over the engine, with anything that can happen to requests and answers, in any order.

Whatever it is, a transfer never waits for something that is not on its way, and ends with the content as it was sent.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from hypothesis import given, settings
from hypothesis import strategies as st

from mcumgrx.client import Client
from mcumgrx.contracts import UploadOptions
from mcumgrx.errors import DeviceError, MalformedReply, RequestTimeout
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.message import encode_body
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import Header
from mcumgrx.sim.device import Answer, DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx_plugins.fs.group import FsGroup
from mcumgrx_plugins.image.group import ImageGroup

OLD = build_image("1.0.0", payload_size=500)
NEW = parse_image(build_image("1.1.0", payload_size=1500))
CONFIG = DeviceConfig(slot_size=64 * 1024, timing=INSTANT)
CONTENT = bytes(n * 7 % 251 for n in range(1900))


class Fate(Enum):
    """What becomes of a request, or of its answer."""

    FINE = "fine"
    REQUEST_LOST = "request lost"
    ANSWER_LOST = "answer lost"
    GARBLED = "garbled"  # the answer is a map, of other types than it should be
    CUT = "cut"  # the answer is no map at all
    BUSY = "busy"
    NO_MEMORY = "no memory"
    SLOW = "slow"
    TWICE = "twice"  # the request arrives twice
    LATE = "late"  # the answer comes after its time, behind others


class Fated:
    """A device, and the fate of each request after the first one, which asks for its buffers."""

    def __init__(self, fates: list[Fate]) -> None:
        self.device = SimulatedDevice(CONFIG)
        self.device.install(OLD)
        self._fates = [Fate.FINE, *fates]
        self.arrived = 0
        self._real = self.device.handle
        self.device.handle = self._handle  # type: ignore[method-assign]
        numbered = list(enumerate(self._fates, 1))
        self.faults = Faults(
            drop_requests={number for number, fate in numbered if fate is Fate.REQUEST_LOST},
            duplicate_requests={number for number, fate in numbered if fate is Fate.TWICE},
        )

    def _handle(self, message: bytes, now: float) -> Answer:
        # Counted as they arrive, while the faults of the link count what is sent: any order will do.
        self.arrived += 1
        fate = self._fates[self.arrived - 1] if self.arrived <= len(self._fates) else Fate.FINE
        header = Header.unpack(message)
        if fate in (Fate.BUSY, Fate.NO_MEMORY):
            return Answer((self._reply(header, {"rc": 10 if fate is Fate.BUSY else 2}),), 0.001)
        answer = self._real(message, now)
        match fate:
            case Fate.ANSWER_LOST:
                return Answer((), answer.busy_s)
            case Fate.GARBLED:
                odd = {"off": "x", "data": 1, "len": "x", "output": [], "images": 3, "r": 5}
                return Answer((self._reply(header, odd),), answer.busy_s)
            case Fate.CUT:
                return Answer((self._reply(header, {})[:-1] + b"\xff",), answer.busy_s)
            case Fate.SLOW:
                return Answer(answer.replies, 1.7)
            case Fate.LATE:
                return Answer(answer.replies, 4.0)
        return answer

    def _reply(self, header: Header, body: dict[str, object]) -> bytes:
        return build_message(header.op | 1, 1, 0, header.group, header.sequence, header.command, encode_body(body))


LINKS = {
    "serial": LinkModel.uart(),
    "network": LinkModel.datagram(0.005),
    "stream": LinkModel(latency_s=0.01),
}
fates = st.lists(st.sampled_from(Fate), max_size=14)
links = st.sampled_from(sorted(LINKS))
windows = st.sampled_from([1, 2, None])


def on_link(fates: list[Fate], link: str) -> list[Fate]:
    """Nothing but a network makes two of one."""
    return [Fate.FINE if fate is Fate.TWICE and link != "network" else fate for fate in fates]


# Two of these at the opening chunk, or three at a question beside the transfer, are more than there is patience for.
SILENT = (Fate.REQUEST_LOST, Fate.ANSWER_LOST, Fate.LATE, Fate.SLOW)


@contextmanager
def forgiven(fates: list[Fate]) -> Iterator[None]:
    """Requests beside the transfer (the probe, a list, a hash) may end with what the device says again and again."""
    try:
        yield
    except RequestTimeout:
        assert sum(fate in SILENT for fate in fates) > 1
    except MalformedReply:
        assert sum(fate in (Fate.GARBLED, Fate.CUT) for fate in fates) > 1
    except DeviceError as error:
        if error.group is not None or error.rc not in (SmpError.NO_MEMORY, SmpError.BUSY):
            raise


def transferring(fates: list[Fate], link: str, work):  # type: ignore[no-untyped-def]
    fated = Fated(on_link(fates, link))

    async def main() -> None:
        async with Client(SimulatedTransport(fated.device, LINKS[link], faults=fated.faults)) as client:
            async with asyncio.timeout(1200):
                with forgiven(fates):
                    await work(client)

    run(main())
    # A device that is busy for longer than anything can be expected to take is sent one request too many.
    assert fated.device.crashes == 0 or Fate.LATE in fates or Fate.SLOW in fates


@settings(max_examples=60)
@given(fates, links, windows)
def test_an_image_always_arrives(fates: list[Fate], link: str, window: int | None) -> None:
    async def work(client: Client) -> None:
        group = client.group(ImageGroup)
        await group.upload(NEW, UploadOptions(window=window))
        assert NEW.hash is not None
        assert [slot.slot for slot in (await group.state()).holding(NEW.hash)] == [1]

    transferring(fates, link, work)


@settings(max_examples=60)
@given(fates, links, windows, st.booleans(), st.sampled_from([1, 300, len(CONTENT)]))
def test_a_file_always_arrives(fates: list[Fate], link: str, window: int | None, resume: bool, size: int) -> None:
    async def work(client: Client) -> None:
        group, sink = client.group(FsGroup), io.BytesIO()
        await group.upload(CONTENT[:size], "/lfs1/x", window=window, resume=resume)
        await group.download("/lfs1/x", sink)
        assert sink.getvalue() == CONTENT[:size]

    transferring(fates, link, work)


@settings(max_examples=60)
@given(fates, links, windows)
def test_a_file_always_comes_back(fates: list[Fate], link: str, window: int | None) -> None:
    fated = Fated(on_link(fates, link))

    async def work(client: Client) -> None:
        sink = io.BytesIO()
        group = client.group(FsGroup)
        await group.download("/lfs1/x", sink, window=window)
        assert sink.getvalue() == CONTENT

    async def main() -> None:
        fated.arrived = len(fates) + 1
        async with Client(SimulatedTransport(fated.device, LINKS[link])) as client:
            await client.group(FsGroup).upload(CONTENT, "/lfs1/x")
        fated.faults.requests = fated.arrived = 0
        async with Client(SimulatedTransport(fated.device, LINKS[link], faults=fated.faults)) as client:
            async with asyncio.timeout(1200):
                with forgiven(fates):
                    await work(client)

    run(main())
