"""`TransportContract`: what the client relies on in every transport, as tests that an author inherits.

::

    class TestAcme(TransportContract):
        @asynccontextmanager
        async def link(self):
            async with acme_device() as device:
                yield LinkUnderTest(AcmeTransport(Address.parse(f"acme:{device.name}")), cut=device.vanish)

At the other end is something that answers echoes, such as an `EchoDevice` or a simulated device. Our own transports
pass these tests, too. Here is no fixture and no plugin of pytest, so that it works with any.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar
from unittest import SkipTest

from ..errors import ConnectFailed, DeviceNotFound, LinkLost, McumgrError
from ..messages.message import decode_body, encode_body
from ..messages.standard import Echo, Probe
from ..plugin_api import Client, DatagramFraming, Flow, Framing, Limits, Transport
from ..protocol.codec import build_message
from ..protocol.framing import RawMessage
from ..protocol.header import REQUEST_OPS, GroupId, Op, Version

__all__ = ["EchoDevice", "LinkUnderTest", "TransportContract"]

_ECHO = 0  # the command of group 0

# Turns of the event loop in which a `receive` is given up: from before the answer is there until after.
_TURNS = 24

# More than any link has queued of a few short messages.
_MOST_QUEUED_S = 60.0


class EchoDevice:
    """The device's end of a link without I/O: answers echoes, and nothing else.

    Arguments:
        framing: what messages look like on the link; such as `ConsoleFraming`.
        write_bytes: largest single write of an answer.
    """

    def __init__(self, framing: Callable[..., Framing] = DatagramFraming, *, write_bytes: int | None = None) -> None:
        self._framing = framing(ops=REQUEST_OPS)
        self._write_bytes = write_bytes
        self.received: list[bytes] = []
        """The requests so far, as messages without framing."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived; the writes that answer it."""
        writes: list[bytes] = []
        for op, version, flags, group, sequence, command, payload in self._framing.feed(data):
            self.received.append(build_message(op, version, flags, group, sequence, command, payload))
            if (group, command) == (GroupId.OS, _ECHO):
                body = encode_body({"r": decode_body(payload).get("d", "")})
                answer = build_message(op | 1, version, flags, group, sequence, command, body)
                writes += self._framing.encode(answer, self._write_bytes)
        return writes


@dataclass(frozen=True, slots=True)
class LinkUnderTest:
    """A transport that is not open, with a device behind it that answers echoes.

    Attributes:
        cut: ends the link as a device that vanishes or a pulled cable does; None where nothing tells that.
    """

    transport: Transport
    cut: Callable[[], object] | None = None


def _over_a_link(test: Callable[[Any, LinkUnderTest], Awaitable[None]]) -> Callable[[TransportContract], None]:
    """The test over a link of its own, in a loop of its own."""

    async def main(contract: TransportContract) -> None:
        failure: Exception | None = None
        async with asyncio.timeout(contract.patience_s), contract.link() as link:
            try:
                await test(contract, link)
            except Exception as error:  # raised behind `link`, which is to end well whatever a test finds
                failure = error
            with suppress(Exception):  # what is wrong with that, other tests tell
                await link.transport.close()
        if failure is not None:
            raise failure

    def run(self: TransportContract) -> None:
        self.run(main(self))

    run.__name__, run.__doc__ = test.__name__, test.__doc__  # not `wraps`: pytest would look for a fixture `link`
    return run


class TransportContract(ABC):
    """Inherit it, give it `link`, and name the class so that pytest finds it.

    Attributes:
        patience_s: how long one test may take.
        buf_size: of the device's buffers, where it has room for more than the link carries without proof.
        requests: so many the device has room for at once.
    """

    patience_s: ClassVar[float] = 20.0
    buf_size: ClassVar[int | None] = None
    requests: ClassVar[int] = 3

    @abstractmethod
    def link(self) -> AbstractAsyncContextManager[LinkUnderTest]:
        """A new device and a new transport to it, for one test."""

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run one test in an event loop of its own. `mcumgrx.sim.loop.run` does it in virtual time."""
        asyncio.run(main)

    # -- opening and closing -------------------------------------------------------------------------------------------

    @_over_a_link
    async def test_an_echo_comes_back(self, link: LinkUnderTest) -> None:
        talk = await _opened(link)
        assert await talk.echo("hello") == "hello"

    @_over_a_link
    async def test_clients_come_and_go(self, link: LinkUnderTest) -> None:
        for text in ("one", "two"):
            async with Client(link.transport) as client:
                assert await client.request(Echo(text)) == text

    @_over_a_link
    async def test_closing_is_harmless_at_any_time(self, link: LinkUnderTest) -> None:
        """Before the first opening, too: the client closes before it opens."""
        await link.transport.close()
        await link.transport.close()
        assert await (await _opened(link)).echo("hello") == "hello"
        await link.transport.close()
        await link.transport.close()

    @_over_a_link
    async def test_one_object_is_opened_again_and_again(self, link: LinkUnderTest) -> None:
        for text in ("one", "two", "three"):
            assert await (await _opened(link)).echo(text) == text
            await link.transport.close()

    @_over_a_link
    async def test_closing_ends_what_waits_and_all_that_follows(self, link: LinkUnderTest) -> None:
        talk = await _opened(link)
        assert await talk.echo("hello") == "hello"
        waiting = asyncio.ensure_future(link.transport.receive())
        await asyncio.sleep(0)
        await link.transport.close()
        await _ends(waiting)
        await _is_ended(link.transport, talk)

    @_over_a_link
    async def test_a_link_that_ends_says_so_from_then_on(self, link: LinkUnderTest) -> None:
        if link.cut is None:
            raise SkipTest("nothing but closing ends this link")
        talk = await _opened(link)
        assert await talk.echo("hello") == "hello"
        waiting = asyncio.ensure_future(_read_to_the_end(link.transport))
        await asyncio.sleep(0)
        link.cut()
        await _ends(waiting)
        await _is_ended(link.transport, talk)

    @_over_a_link
    async def test_after_a_loss_it_opens_again_or_says_why_not(self, link: LinkUnderTest) -> None:
        if link.cut is None:
            raise SkipTest("nothing but closing ends this link")
        assert await (await _opened(link)).echo("hello") == "hello"
        link.cut()
        await _ends(asyncio.ensure_future(_read_to_the_end(link.transport)))
        await link.transport.close()
        why_not: McumgrError | None = None
        try:
            talk = await _opened(link)
        except (ConnectFailed, DeviceNotFound) as error:
            why_not = error
        if why_not is None:
            assert await talk.echo("again") == "again"
        else:
            assert why_not.hint, f"{why_not} has no hint"

    # -- messages ------------------------------------------------------------------------------------------------------

    @_over_a_link
    async def test_answers_come_whole_and_in_order(self, link: LinkUnderTest) -> None:
        talk = await _opened(link)
        texts = [f"number {number}" for number in range(self._at_once(link))]
        for text in texts:
            await talk.send(text)
        assert [await talk.answer() for _ in texts] == texts

    @_over_a_link
    async def test_nothing_is_lost_when_receive_is_cancelled(self, link: LinkUnderTest) -> None:
        talk, loop = await _opened(link), asyncio.get_running_loop()
        assert await talk.echo("awake") == "awake"
        begin = loop.time()
        assert await talk.echo("measured") == "measured"
        trip_s = loop.time() - begin
        for turns in range(_TURNS):
            await talk.send(f"turn {turns}")
            reading = asyncio.ensure_future(link.transport.receive())
            if turns % 2:
                await asyncio.sleep(trip_s)  # in virtual time this is the very moment
            for _ in range(turns // 2):
                await asyncio.sleep(0)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                talk.take(await reading)
            assert await talk.answer() == f"turn {turns}"

    @_over_a_link
    async def test_what_the_limits_promise_arrives(self, link: LinkUnderTest) -> None:
        talk = await _opened(link)
        limits = link.transport.limits
        sizes = {limits.safe_message, limits.message(self.buf_size)}
        if limits.write is not None:
            sizes |= {min(limits.write, size) for size in sizes}
        for size in sorted(sizes):
            await link.transport.send(talk.lay_out(Probe(size)))
            assert await talk.answer() == "", f"a message of {size} bytes has not come whole"

    @_over_a_link
    async def test_the_limits_can_be(self, link: LinkUnderTest) -> None:
        await _opened(link)
        limits, flow = link.transport.limits, link.transport.flow
        assert isinstance(limits, Limits)
        assert Echo("").request().size <= limits.safe_message <= limits.max_message
        assert limits.write is None or limits.write > 0
        assert limits.buffer_overhead >= 0
        assert isinstance(flow, Flow)
        assert flow.most is None or flow.most > 0

    @_over_a_link
    async def test_an_offer_is_a_send_or_nothing(self, link: LinkUnderTest) -> None:
        talk = await _opened(link)
        for number in range(8):
            text = f"number {number}"
            if not link.transport.offer(talk.lay_out(text)):
                await talk.send(text)
            assert await talk.answer() == text
        assert not talk.messages, "one of them came twice"

    @_over_a_link
    async def test_what_is_offered_and_what_is_sent_keep_their_order(self, link: LinkUnderTest) -> None:
        talk = await _opened(link)
        assert await talk.echo("awake") == "awake"
        texts = [f"number {number}" for number in range(self._at_once(link))]
        for number, text in enumerate(texts):
            if number % 2 or not link.transport.offer(talk.lay_out(text)):
                await talk.send(text)
        assert [await talk.answer() for _ in texts] == texts

    @_over_a_link
    async def test_delivered_bytes_are_all_and_in_order(self, link: LinkUnderTest) -> None:
        talk = await _opened(link)
        here = asyncio.Event()

        def take(data: bytes) -> None:
            assert not sending, "bytes were delivered from within send or offer"
            talk.take(data)
            here.set()

        sending = False
        if not link.transport.deliver_to(take):
            raise SkipTest("this transport keeps what arrives for receive")
        ending = asyncio.ensure_future(link.transport.receive())
        for number in range(4):
            writes = talk.lay_out(f"number {number}")
            sending = True
            taken = link.transport.offer(writes)
            sending = False
            if not taken:
                await link.transport.send(writes)
            while not talk.messages:
                here.clear()
                await here.wait()
            assert await talk.answer() == f"number {number}"
        await link.transport.close()
        await _ends(ending)

    # -- what it tells -------------------------------------------------------------------------------------------------

    @_over_a_link
    async def test_what_is_queued_is_an_estimate_that_comes_true(self, link: LinkUnderTest) -> None:
        talk = await _opened(link)
        for number in range(2):
            await talk.send(f"number {number}")
            queued_s = link.transport.queued_s()
            assert math.isfinite(queued_s)
            assert 0.0 <= queued_s < _MOST_QUEUED_S
            await talk.answer()
        await asyncio.sleep(link.transport.queued_s() + 0.01)
        assert link.transport.queued_s() == 0.0, "nothing was sent, and something is still queued"

    @_over_a_link
    async def test_the_identity_stays(self, link: LinkUnderTest) -> None:
        seen: set[tuple[str | None, str | None]] = set()
        for _ in range(2):
            await _opened(link)
            seen.add((link.transport.identity, link.transport.lasting_identity))
            await link.transport.close()
        assert len(seen) == 1
        (names,) = seen
        assert all(name is None or (isinstance(name, str) and name) for name in names)

    @_over_a_link
    async def test_each_opening_has_a_framing_of_its_own(self, link: LinkUnderTest) -> None:
        """Half a message from before the loss spoils nothing."""
        talk = await _opened(link)
        assert await talk.echo("hello") == "hello"
        before = talk.framing
        answer = build_message(Op.WRITE_REPLY, Version.V2, 0, GroupId.OS, 0, _ECHO, encode_body({"r": "x" * 20}))
        (write, *_) = before.encode(answer)
        before.feed(write[: len(write) // 2])
        await link.transport.close()
        talk = await _opened(link)
        assert talk.framing is not before
        assert await talk.echo("again") == "again"

    @_over_a_link
    async def test_what_becomes_of_messages_can_be_told_at_any_time(self, link: LinkUnderTest) -> None:
        """Late answers and what nobody has asked for come when they come."""
        talk, transport = await _opened(link), link.transport
        writes = talk.lay_out("hello")
        await transport.send(writes)
        assert await talk.answer() == "hello"
        transport.unasked()
        transport.answered(writes)
        transport.given_up()
        assert await talk.echo("after all") == "after all"
        await transport.close()
        transport.answered(writes)
        transport.unasked()
        transport.given_up()
        assert await (await _opened(link)).echo("again") == "again"

    def _at_once(self, link: LinkUnderTest) -> int:
        most = link.transport.flow.most
        return self.requests if most is None else min(most, self.requests)


class _Talk:
    """Echoes over an open link."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.framing = transport.framing()
        self.messages: list[RawMessage] = []
        self._sequence = 0

    def lay_out(self, what: str | Probe) -> list[bytes]:
        request = what.request() if isinstance(what, Probe) else Echo(what).request()
        self._sequence += 1
        message = request.encode(Version.V2, self._sequence % 256)
        return self.framing.encode(message, self.transport.limits.write)

    async def send(self, text: str) -> None:
        await self.transport.send(self.lay_out(text))

    def take(self, data: bytes) -> None:
        assert data, "receive returned no bytes"
        self.messages += self.framing.feed(data)

    async def answer(self) -> str:
        while not self.messages:
            self.take(await self.transport.receive())
        return str(decode_body(self.messages.pop(0)[-1])["r"])

    async def echo(self, text: str) -> str:
        await self.send(text)
        return await self.answer()


async def _opened(link: LinkUnderTest) -> _Talk:
    await link.transport.open(10.0)
    return _Talk(link.transport)


async def _read_to_the_end(transport: Transport) -> None:
    while True:
        await transport.receive()


async def _ends(waiting: asyncio.Future[Any]) -> None:
    try:
        await waiting
    except LinkLost:
        return
    raise AssertionError("receive returned bytes, though the link has ended")


async def _is_ended(transport: Transport, talk: _Talk) -> None:
    """Each call says so, and none of them waits."""
    writes = talk.lay_out("anybody")
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "receive": transport.receive,
        "send": lambda: transport.send(writes),
    }
    for name, call in calls.items():
        for _ in range(2):
            try:
                await call()
            except LinkLost:
                continue
            raise AssertionError(f"{name} did not raise LinkLost on a link that has ended")
    try:
        taken = transport.offer(writes)
    except LinkLost:
        return
    assert not taken, "offer took a message on a link that has ended"
