"""The serial transport over real pseudo-terminals, with a peer in this process and with a simulator in another."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.errors import (
    ConnectFailed,
    DeviceError,
    DeviceNotFound,
    LinkLost,
    MessageTooLarge,
    RequestTimeout,
    UsageError,
)
from mcumgrx.messages.message import Fields, SmpCommand
from mcumgrx.messages.standard import Echo, Params, ReadImageState, Reset
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.console import ConsoleFraming
from mcumgrx.protocol.framing import RawMessage, StreamFraming
from mcumgrx.protocol.header import REQUEST_OPS, Op
from mcumgrx.sim.images import build_image

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX; Windows needs a real port", allow_module_level=True)

import tty

from mcumgrx_plugins.uart import serial_port
from mcumgrx_plugins.uart import transport as uart
from mcumgrx_plugins.uart.loop_port import LoopPort
from mcumgrx_plugins.uart.permission import Rights, advice
from mcumgrx_plugins.uart.ports import Lister, Port
from mcumgrx_plugins.uart.reader import ThreadedPort
from mcumgrx_plugins.uart.serial_port import SerialTransport

from ..support import proactor
from ..support.pty_peer import PARSED, REQUEST, Peer, bare_echo, echo
from ..support.pty_simulator import pty_simulator

pytestmark = pytest.mark.codec


@dataclass(frozen=True, slots=True)
class Unknown(SmpCommand[None], group=999, number=1, what="unknown command"):
    """A command of a group that no device has."""

    def parse(self, fields: Fields) -> None:
        return None


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    peer.answer = echo
    yield peer
    peer.close()


def no_ports() -> list[Port]:
    return []


def serial_transport(path: str, lister: Lister = no_ports, **options: str) -> SerialTransport:
    return SerialTransport(Address("serial", path, options), lister)


@pytest.fixture(params=[LoopPort, ThreadedPort] if sys.platform == "linux" else [ThreadedPort])
def port_class(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[LoopPort | ThreadedPort]:
    """Each of the two ways to a port; on Linux the second is there for other systems only."""
    monkeypatch.setattr(serial_port, "_PORT", request.param)
    kind: type[LoopPort | ThreadedPort] = request.param
    return kind


@pytest.fixture
async def link(peer: Peer, port_class: type) -> AsyncIterator[SerialTransport]:
    link = serial_transport(peer.path)
    await link.open(5)
    yield link
    await link.close()


async def ask(link: SerialTransport, request: bytes = REQUEST) -> tuple[list[RawMessage], bytes]:
    """Send `request` and read until messages come; them, and the text before them."""
    framing = link.framing()
    await link.send(framing.encode(request))
    messages: list[RawMessage] = []
    while not messages:
        messages = framing.feed(await link.receive())
    return messages, framing.take_text()


def unread(link: SerialTransport) -> int:
    """Bytes that lie in the port object."""
    port = link._stream
    if isinstance(port, ThreadedPort):
        return port._posted - port._taken
    assert isinstance(port, LoopPort)
    return len(port._received)


def threads_end() -> None:
    """The port was given back: no thread holds it. The last one may still be on its way out."""
    for thread in threading.enumerate():
        if thread.name.startswith("serial "):
            thread.join(50)
            assert not thread.is_alive()


# -- the road there and back -----------------------------------------------------------------------------------------


async def test_round_trip(link: SerialTransport) -> None:
    for _ in range(3):
        assert await ask(link) == ([PARSED], b"")


async def test_text_and_garbage_around_the_answer(peer: Peer, link: SerialTransport) -> None:
    frame = echo((Op.WRITE, 1, 0, 0, 7, 0, b"\xa1ad" + b"e" + b"x" * 300))
    first, *others = frame.splitlines(keepends=True)
    noise = [b"[00:00:01.000] <inf> app: on\r\n", b"\xff\x00\x06\x04 half", b"\x04\x14====\n"]
    peer.answer = lambda message: b"".join([b"uart:~$ ", first, noise[0], others[0], noise[1], *others[1:]])
    messages, text = await ask(link)
    assert len(messages[0][-1]) == 304
    assert text == b"uart:~$ " + noise[0] + noise[1]
    peer.answer = lambda message: noise[2] + frame[:40] + b"\n" + echo(message)
    assert (await ask(link))[0] == [PARSED]


async def test_many_lines_are_one_piece(peer: Peer, link: SerialTransport) -> None:
    request = build_message(Op.WRITE, 1, 0, 0, 7, 0, b"\xa1ad" + bytes(2400))
    messages, _ = await ask(link, request)
    assert messages[0][-1] == b"\xa1ar" + bytes(2400)


async def test_opening_sends_nothing_and_the_first_message_is_preceded_by_a_newline(peer: Peer) -> None:
    peer.answer = None
    link = serial_transport(peer.path)
    framing = link.framing()
    frame = framing.encode(REQUEST)
    await link.open(5)
    peer.write(b"*** Booting ***\n")
    assert await link.receive() == b"*** Booting ***\n"
    assert peer.received == b""
    await link.send(frame)
    await peer.until(lambda: peer.received == b"\n" + frame[0])
    newline, *others = peer.arrived_at
    assert others[0] - newline >= 0.05
    await link.send(frame)
    await peer.until(lambda: peer.received == b"\n" + frame[0] * 2)
    await link.close()


async def test_reopening_the_same_object(peer: Peer, link: SerialTransport) -> None:
    for _ in range(3):
        assert (await ask(link))[0] == [PARSED]
        await link.close()
        with pytest.raises(LinkLost):
            await link.send([b"x"])
        with pytest.raises(LinkLost):
            await link.receive()
        await link.close()
        await link.open(5)
    assert peer.received.count(b"\n\x06") == 3


async def test_a_cancelled_receive_loses_nothing(peer: Peer, link: SerialTransport) -> None:
    got = b""
    for number in range(20):
        task = asyncio.create_task(link.receive())
        await asyncio.sleep(0)
        peer.write(b"%d," % number)
        task.cancel()
        with suppress(asyncio.CancelledError):
            got += await task
    wanted = b"".join(b"%d," % number for number in range(20))
    while len(got) < len(wanted):
        got += await link.receive()
    assert got == wanted


async def test_limits_follow_the_line_length(peer: Peer) -> None:
    limits = serial_transport(peer.path).limits
    assert (limits.safe_message, limits.write, limits.buffer_overhead) == (89, None, 4)
    assert (limits.message(None), limits.message(384), limits.message(1024)) == (89, 380, 1020)
    wide = serial_transport(peer.path, line="512")
    assert wide.limits.safe_message == 377
    (write,) = wide.framing().encode(bytes(377))
    assert write.count(b"\n") == 1


async def test_time_on_the_wire_is_estimated(peer: Peer) -> None:
    peer.answer = None
    link = serial_transport(peer.path, baud="1200")
    await link.open(5)
    assert link.queued_s() == 0
    await link.send([bytes(120)])
    assert 0.8 < link.queued_s() <= 1.0
    await link.send([bytes(120)])
    assert 1.7 < link.queued_s() <= 2.0
    await link.close()
    await link.open(5)
    assert link.queued_s() == 0
    await link.close()


async def test_an_answer_corrects_the_estimate(peer: Peer) -> None:
    """USB CDC ACM and pseudo-terminals take any baud rate and keep to none: time-outs must not wait for it."""
    link = serial_transport(peer.path, baud="1200")
    await link.open(5)
    framing = link.framing()
    writes = framing.encode(build_message(Op.WRITE, 1, 0, 0, 7, 0, b"\xa1ad" + bytes(300)))
    await link.send(writes)
    assert link.queued_s() > 3
    assert "baud" in link.flow.faster
    messages: list[RawMessage] = []
    while not messages:
        messages = framing.feed(await link.receive())
    link.answered(writes)
    assert link.queued_s() == 0
    assert "CONFIG_UART_MCUMGR_RX_BUF_COUNT" in link.flow.faster
    await link.send(framing.encode(bytes(120)))
    assert link.queued_s() == 0
    await link.close()
    await link.open(5)  # as what, this time?
    await link.send(link.framing().encode(bytes(120)))
    assert link.queued_s() > 1
    await link.close()


async def test_an_answer_says_nothing_of_what_was_sent_after_its_request(peer: Peer) -> None:
    peer.answer = None
    link = serial_transport(peer.path, baud="9600")
    await link.open(5)
    framing = link.framing()
    first, second = (build_message(Op.WRITE, 1, 0, 0, number, 0, b"\xa1ad" + bytes(30)) for number in (1, 2))
    writes = framing.encode(first)
    await link.send(writes)
    await asyncio.sleep(link.queued_s())  # as a UART would have done
    await link.send(framing.encode(second))
    queued_s = link.queued_s()
    peer.write(echo((Op.WRITE, 1, 0, 0, 1, 0, b"\xa1adx")))
    messages: list[RawMessage] = []
    while not messages:
        messages = framing.feed(await link.receive())
    link.answered(writes)
    assert 0 < link.queued_s() <= queued_s
    assert "baud" in link.flow.faster
    await link.close()


# -- messages that are taken at once ----------------------------------------------------------------------------------


async def test_a_message_is_taken_at_once_when_the_device_is_awake(peer: Peer, link: SerialTransport) -> None:
    framing = link.framing()
    frame = framing.encode(REQUEST)
    assert not link.offer(frame)  # the newline comes first, and a pause
    await link.send(frame)
    assert link.offer(frame)
    assert link.offer(frame)
    await peer.until(lambda: peer.received == b"\n" + frame[0] * 3)
    link.given_up()
    assert not link.offer(frame)


async def test_lines_that_need_pauses_are_not_taken_at_once(peer: Peer) -> None:
    link = serial_transport(peer.path, pause="1")
    await link.open(5)
    await ask(link)
    assert not link.offer(link.framing().encode(bytes(300)))
    await link.close()


async def test_a_raw_message_is_taken_at_once_while_in_step(raw_peer: Peer) -> None:
    link = serial_transport(raw_peer.path, framing="raw")
    await link.open(5)
    framing = link.framing()
    assert link.offer(framing.encode(REQUEST))
    assert await link.receive()
    link.given_up()
    assert not link.offer(framing.encode(REQUEST))
    await link.close()


async def test_an_offer_while_the_framing_is_looked_for(peer: Peer) -> None:
    link = serial_transport(peer.path, framing="auto")
    await link.open(5)
    framing = link.framing()
    assert not link.offer(framing.encode(REQUEST))
    await link.send(framing.encode(REQUEST))
    while len(peer.messages) < 2:
        framing.feed(await link.receive())
    assert link.offer(framing.encode(REQUEST))
    await peer.until(lambda: len(peer.messages) == 3)
    await link.close()


async def test_what_is_offered_and_what_is_sent_arrive_in_order(peer: Peer, link: SerialTransport) -> None:
    """The other end does not read: a part of an offer is left over, later offers are refused, sending waits behind."""
    await ask(link)
    before = len(peer.received)
    peer.deaf()
    wanted = b""
    number = 0
    while True:
        piece = b"%06d" % number + bytes(9000)
        if not link.offer([piece]):
            break
        wanted += piece
        number += 1
    assert number > 0
    assert not link.offer([b"small"])  # never in front of what is left over
    sending = asyncio.create_task(link.send([b"last"]))
    await asyncio.sleep(0)
    assert not sending.done()
    peer.hear()
    await sending
    await peer.until(lambda: len(peer.received) == before + len(wanted) + 4)
    assert peer.received[before:] == wanted + b"last"
    # The thread's word that it has written may come later than the bytes.
    while not link.offer([b"and on"]):  # noqa: ASYNC110
        await asyncio.sleep(0)
    await peer.until(lambda: peer.received.endswith(b"lastand on"))


async def test_closing_with_an_offer_left_over(peer: Peer, link: SerialTransport) -> None:
    await ask(link)
    peer.deaf()
    while link.offer([bytes(9000)]):
        pass
    await link.close()
    threads_end()
    with pytest.raises(LinkLost):
        link.offer([b"x"])


async def test_an_offer_after_the_end_of_the_link(peer: Peer, link: SerialTransport) -> None:
    await ask(link)
    peer.hang_up()
    with pytest.raises(LinkLost):
        await link.receive()
    with pytest.raises(LinkLost, match="has ended"):
        link.offer([b"x"])
    threads_end()


async def test_an_offer_that_finds_the_end(peer: Peer, port_class: type) -> None:
    """Nobody has read yet that the port is gone."""
    link = serial_transport(peer.path)
    await link.open(5)
    await ask(link)
    peer.hang_up()
    with pytest.raises(LinkLost, match="has ended"):  # noqa: PT012 - the threads may have found out, or not
        if not link.offer([b"x"]):
            await link.send([b"x"])
    async with asyncio.timeout(50):
        with pytest.raises(LinkLost):
            await link.receive()
    threads_end()


async def test_openings_leave_no_file_and_no_thread(peer: Peer, port_class: type) -> None:
    link = serial_transport(peer.path)
    await link.open(5)
    await ask(link)
    await link.close()
    threads_end()
    before = set(os.listdir("/dev/fd"))
    for _ in range(3):
        await link.open(5)
        await ask(link)
        await link.close()
        with pytest.raises(ConnectFailed):
            await link.open(0)
        threads_end()
    assert set(os.listdir("/dev/fd")) == before


# -- what may be on its way ------------------------------------------------------------------------------------------


async def test_a_prompt_tells_a_shell(peer: Peer, link: SerialTransport) -> None:
    async with Client(link) as client:
        assert (client.flow.most, client.flow.strict) == (None, True)
        peer.answer = lambda message: b"\r\n\x1b[1;32muart:" + b"~$ \x1b[m" + echo(message)
        await client.request(Echo("hello"))
        assert client.flow.most == 2


async def test_a_prompt_in_pieces(peer: Peer) -> None:
    link = serial_transport(peer.path)
    async with Client(link) as client:
        for piece in (b"[00:00:01.000] <inf> app: costs 5~$\r\n", b"ua", b"rt:", b"~", b"$", b" "):
            assert client.flow.most is None
            heard = client.last_heard_s
            peer.write(piece)
            while client.last_heard_s == heard:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await client.request(Echo("hello"))
        assert client.flow.most == 2


@pytest.mark.parametrize(("shell", "most"), [("yes", 2), ("no", None)])
async def test_the_address_tells_a_shell(peer: Peer, shell: str, most: int | None) -> None:
    async with Client(serial_transport(peer.path, shell=shell)) as client:
        peer.answer = lambda message: b"uart:~$ " + echo(message)
        await client.request(Echo("hello"))
        assert client.flow.most == most


async def test_a_raw_device_gets_one_at_a_time(raw_peer: Peer) -> None:
    async with Client(serial_transport(raw_peer.path, framing="raw")) as client:
        await client.request(Echo("hello"))
        assert client.flow.most == 1


# -- what a device needs to hear the next request ---------------------------------------------------------------------


async def test_a_request_without_an_answer_is_followed_by_a_newline(peer: Peer, link: SerialTransport) -> None:
    """Its own end may be what was lost: then half a line lies in the device, and would swallow the next."""
    async with Client(link, timeout_s=5) as client:
        assert await client.request(Echo("one")) == "one"
        peer.answer = None
        with pytest.raises(RequestTimeout):
            await client.request(Echo("two"), timeout_s=0.05, repeats=0)
        peer.answer = echo
        before = peer.received
        assert await client.request(Echo("three")) == "three"
        assert await client.request(Echo("four")) == "four"
    after = peer.received.removeprefix(before)
    assert after.startswith(b"\n\x06\t")
    assert after.count(b"\n\x06\t") == 2  # the end of a frame in front of another is no newline of ours
    assert after.count(b"\n") == 3


async def test_a_corrupt_answer_costs_one_request(peer: Peer, link: SerialTransport) -> None:
    def corrupt(message: RawMessage) -> bytes:
        frame = bytearray(echo(message))
        frame[10] ^= 1
        peer.answer = echo
        return bytes(frame)

    async with Client(link, timeout_s=1) as client:
        peer.answer = corrupt
        assert await client.request(Echo("again")) == "again"
        assert len(peer.messages) == 2
        assert await client.request(Echo("and on")) == "and on"
        assert len(peer.messages) == 3


async def test_lines_with_a_pause_between_them(peer: Peer) -> None:
    link = serial_transport(peer.path, pause="200", baud="1000000")
    await link.open(5)
    request = build_message(Op.WRITE, 1, 0, 0, 7, 0, b"\xa1ad" + bytes(300))
    messages, _ = await ask(link, request)
    assert len(messages[0][-1]) == 303
    _, *lines = peer.arrived_at  # behind the newline
    assert len(lines) == 4
    assert all(later - sooner >= 0.1 for sooner, later in pairwise(lines))
    await link.close()


# -- raw framing ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def raw_peer() -> AsyncIterator[Peer]:
    peer = Peer(StreamFraming(ops=REQUEST_OPS))
    peer.answer = bare_echo
    peer.silence_s = 0.25
    yield peer
    peer.close()


async def test_raw_framing(raw_peer: Peer) -> None:
    async with Client(serial_transport(raw_peer.path, framing="raw")) as client:
        assert await client.request(Echo("hello")) == "hello"
        assert await client.request(Echo("x" * 2000)) == "x" * 2000
        assert raw_peer.received.startswith(b"\n\x00\x00\x09")  # a header, and no newline in front of it
        assert (client.limits.message(None), client.limits.message(384)) == (256, 384)


async def test_a_raw_device_is_given_silence_after_a_time_out(raw_peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uart, "_RAW_SILENCE_S", 2.0)
    raw_peer.answer = None
    async with Client(serial_transport(raw_peer.path, framing="raw")) as client:
        with pytest.raises(RequestTimeout):
            await client.request(Echo("lost"), timeout_s=0.05, repeats=0)
        raw_peer.answer = bare_echo
        # Its time counts from when it has left: the silence is longer.
        assert await client.request(Echo("back"), timeout_s=1, repeats=0) == "back"
        assert await client.request(Echo("and on")) == "and on"
    first, second, third = raw_peer.arrived_at
    assert second - first >= 1.8  # of 2 s, counted here from the moment the bytes were read
    assert third - second < 1.8


async def test_a_late_answer_ends_the_silence(raw_peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells that the device has the whole of what was sent, and waits for a header."""
    monkeypatch.setattr(uart, "_RAW_SILENCE_S", 1e6)
    raw_peer.answer = None
    async with Client(serial_transport(raw_peer.path, framing="raw")) as client:
        with pytest.raises(RequestTimeout):
            await client.request(Echo("late"), timeout_s=0.05, repeats=0)
        await raw_peer.until(lambda: len(raw_peer.messages) == 1)
        next_one = asyncio.create_task(client.request(Echo("next"), repeats=0))
        while not client._link._table.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0)
        raw_peer.answer = bare_echo
        raw_peer.write(bare_echo(raw_peer.messages[0]))
        assert await next_one == "next"
    assert len(raw_peer.messages) == 2


async def test_an_answer_that_nobody_asked_for_calls_for_silence(
    raw_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uart, "_RAW_SILENCE_S", 0.5)
    stray = build_message(Op.WRITE_REPLY, 1, 0, 0x6161, 0x61, 0x61, b"\xa1brc\x08")
    raw_peer.answer = lambda message: bare_echo(message) + stray
    async with Client(serial_transport(raw_peer.path, framing="raw")) as client:
        assert await client.request(Echo("one")) == "one"
        raw_peer.answer = bare_echo
        assert await client.request(Echo("two")) == "two"
    first, second = raw_peer.arrived_at
    assert second - first >= 0.45  # of 0.5 s, counted here from the moment the bytes were read


async def test_closing_while_a_message_is_held_back(raw_peer: Peer) -> None:
    raw_peer.answer = None
    client = Client(serial_transport(raw_peer.path, framing="raw"))
    async with client:
        with pytest.raises(RequestTimeout):
            await client.request(Echo("lost"), timeout_s=0.05, repeats=0)
        held = asyncio.create_task(client.request(Echo("held"), repeats=0))
        await raw_peer.until(lambda: len(raw_peer.messages) == 1)
    with pytest.raises(LinkLost):
        await held
    assert len(raw_peer.messages) == 1


# -- framing that is found out ----------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the times that looking for a framing takes."""
    monkeypatch.setattr(uart, "_RAW_SILENCE_S", 0.31)
    monkeypatch.setattr(uart, "_PROBE_S", 0.1)


async def test_auto_with_a_console_device(peer: Peer) -> None:
    async with Client(serial_transport(peer.path, framing="auto")) as client:
        assert client.limits.message(None) == 89
        assert await client.request(Echo("hello")) == "hello"
        assert await client.request(Echo("again")) == "again"
        assert client.limits.message(384) == 380
    assert [message[0] for message in peer.messages] == [Op.READ, Op.WRITE, Op.WRITE]
    assert peer.received.startswith(b"\n\x06\t")


@pytest.mark.usefixtures("impatient")
async def test_auto_with_a_raw_device(raw_peer: Peer) -> None:
    heard: list[str] = []
    client = Client(serial_transport(raw_peer.path, framing="auto"), on_text=heard.append, timeout_s=5)
    async with client:
        assert await client.request(Echo("hello"), repeats=0) == "hello"
        assert await client.request(Echo("x" * 1000)) == "x" * 1000
        assert client.limits.message(384) == 384
    assert heard == []


@pytest.mark.usefixtures("impatient")
async def test_auto_sends_nothing_of_consequence_to_a_silent_device(peer: Peer) -> None:
    peer.answer = None
    async with Client(serial_transport(peer.path, framing="auto"), timeout_s=0.2) as client:
        with pytest.raises(RequestTimeout):
            await client.request(Reset(), timeout_s=0.2, repeats=0)
        assert len(peer.messages) == 1  # the question, in console framing
        peer.answer = echo
        assert await client.request(Echo("there?"), timeout_s=5) == "there?"
    assert [message[3:6:2] for message in peer.messages] == [(0, 0)] * len(peer.messages)  # never a reset


@pytest.mark.usefixtures("impatient")
async def test_auto_follows_a_device_whose_bootloader_speaks_otherwise(peer: Peer) -> None:
    async with Client(serial_transport(peer.path, framing="auto"), timeout_s=0.1) as client:
        assert await client.request(Echo("application")) == "application"
        peer.framing = StreamFraming(ops=REQUEST_OPS)
        peer.silence_s = 0.25
        peer.answer = bare_echo
        for _ in range(2):
            with pytest.raises(RequestTimeout):
                await client.request(Echo("?"), repeats=0)
        assert await client.request(Echo("bootloader"), repeats=0) == "bootloader"
        peer.framing = ConsoleFraming(ops=REQUEST_OPS)
        peer.answer = echo
        for _ in range(2):
            with pytest.raises(RequestTimeout):
                await client.request(Echo("?"), repeats=0)
        assert await client.request(Echo("application"), repeats=0) == "application"


# -- noise ------------------------------------------------------------------------------------------------------------

NOISES = {
    "log lines": b"[00:00:01.000,000] <inf> app: tick\r\n" * 100,
    "every byte": bytes(range(256)) * 16,
    "beginnings of frames": b"\x06\x09" * 2048,
    "half a frame for ever": b"QUFB" * 1024,
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
async def test_endless_noise(noise: bytes, peer: Peer, link: SerialTransport) -> None:
    """As fast as the system carries it: the time-out comes in time, and neither memory nor processor are eaten up."""
    peer.deaf()
    endless = f"import os\nwhile True: os.write({peer.master}, {noise!r})"
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", endless, pass_fds=[peer.master])
    loop = asyncio.get_running_loop()
    try:
        async with Client(link, timeout_s=0.3, on_text=lambda text: None) as client:
            while client.last_heard_s is None:  # it begins meanwhile
                with pytest.raises(RequestTimeout):
                    await client.request(Echo("anybody"), repeats=0)
            begin, used = loop.time(), time.process_time()
            with pytest.raises(RequestTimeout):
                await client.request(Echo("anybody"), repeats=0)
            elapsed, used = loop.time() - begin, time.process_time() - used
            assert 0.3 <= elapsed < 20
            assert used < 0.8 * elapsed
            assert unread(link) < 512 * 1024
    finally:
        writer.kill()
        await writer.wait()
    threads_end()


# -- the end of a link -----------------------------------------------------------------------------------------------


async def test_hanging_up_wakes_receive_and_ends_the_link_for_good(peer: Peer, link: SerialTransport) -> None:
    await ask(link)
    waiting = asyncio.create_task(link.receive())
    await asyncio.sleep(0)
    peer.hang_up()
    async with asyncio.timeout(50):
        with pytest.raises(LinkLost) as caught:
            await waiting
    assert caught.value.hint is not None
    for _ in range(2):
        with pytest.raises(LinkLost):
            await link.receive()
        with pytest.raises(LinkLost):
            await link.send([b"x"])
    threads_end()  # the port is given back even though nobody has closed it


async def test_what_came_before_the_end_is_still_read(peer: Peer, link: SerialTransport) -> None:
    peer.write(b"last words")
    # Not through receive(): the bytes must have left the terminal, which forgets them when it is hung up.
    while not unread(link):  # noqa: ASYNC110 - nothing tells but receive()
        await asyncio.sleep(0)
    peer.hang_up()
    assert link._stream is not None
    await asyncio.wait({link._stream._ended})  # type: ignore[attr-defined]
    assert await link.receive() == b"last words"
    with pytest.raises(LinkLost):
        await link.receive()


async def test_closing_wakes_receive(link: SerialTransport) -> None:
    waiting = asyncio.create_task(link.receive())
    await asyncio.sleep(0)
    await link.close()
    with pytest.raises(LinkLost):
        await waiting
    threads_end()


async def test_a_device_that_no_longer_reads_ends_the_link(
    peer: Peer, link: SerialTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uart, "_STALLED_S", 0.1)
    peer.deaf()
    waiting = asyncio.create_task(link.receive())
    monkeypatch.setattr(link._wire, "baud", 10**9)  # a pseudo-terminal takes nothing like the time of its baud rate
    with pytest.raises(LinkLost, match="no more bytes"):
        await link.send([bytes(1_000_000)])
    with pytest.raises(LinkLost, match="no more bytes"):
        await waiting


async def test_closing_in_the_middle_of_a_blocked_write(peer: Peer, link: SerialTransport) -> None:
    peer.deaf()
    sending = asyncio.create_task(link.send([bytes(1_000_000)]))
    await asyncio.wait({sending}, timeout=0.2)
    assert not sending.done()
    await link.close()
    with pytest.raises(LinkLost):
        await sending
    threads_end()


async def test_a_blocked_write_does_not_block_the_loop(peer: Peer, link: SerialTransport) -> None:
    peer.deaf()
    sending = asyncio.create_task(link.send([bytes(1_000_000)]))
    peer.write(b"log")
    assert await link.receive() == b"log"
    await link.close()
    with pytest.raises(LinkLost):
        await sending


async def test_an_abandoned_opening_gives_the_port_back(peer: Peer) -> None:
    link = serial_transport(peer.path)
    with pytest.raises(ConnectFailed, match="could not be opened in 0 s"):
        await link.open(0)
    threads_end()
    await link.open(5)
    await link.close()


# -- ports that cannot be opened -------------------------------------------------------------------------------------


async def test_a_busy_port(peer: Peer, link: SerialTransport) -> None:
    with pytest.raises(ConnectFailed, match="in use by another program") as caught:
        await serial_transport(peer.path).open(5)
    assert caught.value.hint is not None
    assert (await ask(link))[0] == [PARSED]


async def test_a_missing_port_lists_those_that_are_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "ttyNONE")
    with pytest.raises(DeviceNotFound, match="there is no serial port") as caught:
        await serial_transport(missing, lambda: [Port("/dev/ttyACM7"), Port("/dev/ttyUSB8")]).open(5)
    assert caught.value.hint == "the ports of this computer are: /dev/ttyACM7, /dev/ttyUSB8"
    with pytest.raises(DeviceNotFound) as caught:
        await serial_transport(missing).open(5)
    assert caught.value.hint == "this computer has no serial port now"


async def test_no_permission(peer: Peer) -> None:
    os.chmod(peer.path, 0)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)  # root may open everything
    try:
        with pytest.raises(ConnectFailed, match="may not be opened by you") as caught:
            await serial_transport(peer.path).open(5)
    finally:
        if was_root:
            os.seteuid(0)
    assert caught.value.hint is not None
    assert "its mode (0000) lets no group use it" in caught.value.hint


@pytest.mark.parametrize(
    ("rights", "said", "not_said"),
    [
        (Rights("/dev/x", "dialout", True, 0o660, False, False), "sudo usermod -aG dialout $USER", None),
        (Rights("/dev/x", "dialout", True, 0o660, False, True), "log in again", "usermod"),
        (Rights("/dev/x", "dialout", True, 0o660, True, True), "something else forbids it", "usermod"),
        (Rights("/dev/x", "dialout", False, 0o600, False, False), "its mode (0600) lets no group", "usermod"),
        (Rights("/dev/x", "root", True, 0o660, False, False), "udev rule", "usermod"),
        (Rights("/dev/x", "root", False, 0o600, False, False), "its mode (0600)", "usermod"),
        (Rights("/dev/x", None, True, 0o660, False, False), "its group has no name", "usermod"),
    ],
)
def test_what_gives_the_right_to_a_port(rights: Rights, said: str, not_said: str | None) -> None:
    assert said in advice(rights)
    assert not_said is None or not_said not in advice(rights)


async def test_not_a_port(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path):
        with pytest.raises(ConnectFailed, match="is not a serial port"):
            await serial_transport(str(path)).open(5)


async def test_a_baud_rate_that_the_driver_does_not_take(peer: Peer) -> None:
    with pytest.raises(ConnectFailed, match="does not take baud=4294967295"):
        await serial_transport(peer.path, baud="4294967295").open(5)
    threads_end()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("could not open port 'COM9': FileNotFoundError(2, 'The system cannot find it', None, 2)", "no serial port"),
        ("could not open port 'COM3': PermissionError(13, 'Access is denied.', None, 5)", "in use by another"),
        ("could not open port 'COM3': OSError(22, 'strange', None, 1167)", "could not be opened"),
    ],
)
def test_what_windows_says(text: str, number: str) -> None:
    import serial

    error = serial_transport("COM3")._translated("COM3", serial.SerialException(text))
    assert number in str(error)


@pytest.mark.parametrize(
    "address",
    [
        "serial:",
        "serial:/dev/x,baud=fast",
        "serial:/dev/x,line=10",
        "serial:/dev/x,parity=odd",
        "serial:/dev/x,framing=cobs",
        "serial:/dev/x,pause=-1",
        "serial:/dev/x,rtscts=perhaps",
        "serial:/dev/x,shell=bash",
    ],
)
def test_addresses_that_mean_nothing(address: str) -> None:
    with pytest.raises(UsageError):
        SerialTransport(Address.parse(address))


# -- which device it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "serial_number"),
    [
        ("/dev/ttyACM7", "E6614103E7"),
        ("/dev/ttyUSB8", None),
        ("/dev/ttyACM9", None),
        ("/dev/pts/3", None),
    ],
)
def test_the_serial_number_of_a_usb_port(path: str, serial_number: str | None, tmp_path: Path) -> None:
    ports = [Port("/dev/ttyACM7", serial_number="E6614103E7"), Port("/dev/ttyUSB8")]
    transport = serial_transport(path, lambda: ports)
    assert transport._serial_number_of(path) == serial_number
    link = tmp_path / "usb-Acme_Widget-if00"
    link.symlink_to(path)
    assert transport._serial_number_of(str(link)) == serial_number


def test_ports_that_cannot_be_listed_do_not_matter() -> None:
    def fail() -> list[Port]:
        raise OSError("no sysfs")

    assert serial_transport("/dev/ttyACM7", fail)._serial_number_of("/dev/ttyACM7") is None


async def test_a_pseudo_terminal_has_no_identity(link: SerialTransport) -> None:
    assert link.identity is None


# -- with the real client, and a simulated device in another process ------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "1.0.0.bin"
    path.write_bytes(build_image("1.0.0", payload_size=1024))
    return path


async def test_requests_to_a_device_in_another_process(image: Path) -> None:
    async with pty_simulator(image) as device, Client(serial_transport(device.path)) as client:
        assert await client.request(Echo("hello")) == "hello"
        assert await client.params() == Params(384, 4)
        long = "x" * 300
        assert await client.request(Echo(long)) == long
        state = await client.request(ReadImageState())
        assert [slot.version for slot in state.slots] == ["1.0.0"]
        with pytest.raises(DeviceError) as refused:
            await client.request(Unknown())
        assert refused.value.rc == 8
        with pytest.raises(MessageTooLarge):
            await client.request(Echo("x" * 380))


async def test_the_port_stays_open_through_a_reset_and_boot_text_arrives(image: Path) -> None:
    heard: list[str] = []
    async with pty_simulator(image, boot_s=0.05, reset_delay_s=0.01) as device:
        client = Client(serial_transport(device.path), on_text=heard.append)
        async with client:
            await client.request(Reset())
            await device.until(lambda: "power running" in device.events)
            assert await client.request(Echo("back")) == "back"
            assert client.connected
            assert not any(event.startswith("early") for event in device.events)
        text = "".join(heard)
        assert "*** Booting MCUboot ***" in text
        assert "application 1.0.0 ***\r\nuart:~$ " in text


def test_on_a_loop_that_watches_no_files() -> None:
    """Such as Windows' proactor: then the port has threads."""
    master, slave = os.openpty()
    tty.setraw(slave)

    def answer() -> None:
        framing = ConsoleFraming(ops=REQUEST_OPS)
        while data := os.read(master, 4096):
            for message in framing.feed(data):
                if message[-1].endswith(b"last"):
                    return
                os.write(master, echo(message) or b"")

    device = threading.Thread(target=answer)
    device.start()

    async def main() -> None:
        async with Client(serial_transport(os.ttyname(slave))) as client:
            assert isinstance(client._link.transport._stream, ThreadedPort)  # type: ignore[attr-defined]
            assert await client.request(Echo("x" * 600)) == "x" * 600
            with suppress(RequestTimeout):
                await client.request(Echo("last"), timeout_s=0.01, repeats=0)

    proactor.run(main())
    device.join()
    os.close(master)
    os.close(slave)
    threads_end()


async def test_a_silent_device_times_out_and_answers_later(peer: Peer) -> None:
    peer.answer = None
    async with Client(serial_transport(peer.path), timeout_s=0.05, repeats=0) as client:
        with pytest.raises(RequestTimeout):
            await client.request(Echo("anybody"))
        peer.write(echo((Op.WRITE, 1, 0, 0, 7, 0, bytes(100)))[:60])  # half a frame for ever
        with pytest.raises(RequestTimeout):
            await client.request(Echo("anybody"))
        peer.answer = echo
        client.timeout_s = 5
        assert await client.request(Echo("there?")) == "there?"


async def test_hanging_up_ends_requests_at_once(peer: Peer) -> None:
    peer.answer = None
    async with Client(serial_transport(peer.path), timeout_s=60) as client:
        request = asyncio.create_task(client.request(Echo("anybody")))
        await peer.until(lambda: b"\x06\x09" in peer.received)
        peer.hang_up()
        async with asyncio.timeout(50):
            with pytest.raises(LinkLost):
                await request
            await client.wait_lost()
        assert not client.connected


async def test_the_death_of_the_other_process_is_noticed(image: Path) -> None:
    async with pty_simulator(image) as device, Client(serial_transport(device.path)) as client:
        assert await client.request(Echo("hello")) == "hello"
        await device.kill()
        async with asyncio.timeout(50):
            assert "has ended" in str(await client.wait_lost())
    threads_end()


# -- cost ------------------------------------------------------------------------------------------------------------


async def test_an_idle_link_does_nothing(link: SerialTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """No polling: neither does processor time pass, nor is the port read."""
    await ask(link)
    port = link._stream
    assert isinstance(port, LoopPort | ThreadedPort)
    calls = 0
    read, system_read = port._port.read, os.read

    def counting(size: int = 1) -> bytes:
        nonlocal calls
        calls += 1
        return read(size)

    def system_counting(file: int, size: int) -> bytes:
        nonlocal calls
        calls += file == port._port.fd
        return system_read(file, size)

    port._port.read = counting  # type: ignore[method-assign]
    if isinstance(port, LoopPort):
        monkeypatch.setattr(os, "read", system_counting)
    waiting = asyncio.create_task(link.receive())
    used = time.process_time()
    await asyncio.wait({waiting}, timeout=0.5)
    used = time.process_time() - used
    assert calls <= 1  # the wait itself, where the thread comes to it only now
    assert used < 0.5 * 0.1
    await link.close()
    with pytest.raises(LinkLost):
        await waiting
