"""The client over a link of this test's own making: concurrency, repeats, cancellation, loss, versions, device text."""

from __future__ import annotations

import asyncio
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any
from unittest.mock import Mock

import pytest

from mcumgrx.client import Client
from mcumgrx.errors import (
    ConnectFailed,
    DeviceError,
    LinkLost,
    MalformedReply,
    McumgrError,
    MessageTooLarge,
    PluginError,
    RequestTimeout,
)
from mcumgrx.group import Group
from mcumgrx.link.stream import Stream
from mcumgrx.messages.message import decode_body, encode_body
from mcumgrx.messages.standard import Echo, EraseImage, Params, ReadImageState, ReadParams, Reset, WriteImageState
from mcumgrx.protocol import codec
from mcumgrx.protocol.framing import Framing, StreamFraming
from mcumgrx.protocol.header import REQUEST_OPS, Header
from mcumgrx.sim.loop import run
from mcumgrx.transport import Limits, Transport

pytestmark = pytest.mark.codec

Answer = list[bytes]
Handler = Callable[[Header, dict[str, object]], Awaitable[list[dict[str, object]]]]


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in virtual time."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    return wrapper


class Wire(Transport):
    """A link whose far end is a function: it gets each request and returns the bodies of the replies to send."""

    def __init__(self, handler: Handler | None = None, *, limits: Limits = Limits(2048)) -> None:
        self.handler = handler or self.echo
        self.sent: list[tuple[Header, dict[str, object]]] = []
        self.writes: list[bytes] = []
        self.opened = 0
        self.closed = 0
        self.queue_s = 0.0
        self.blocked: asyncio.Event | None = None
        self.text = b""
        self._limits = limits
        self._arriving: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._device = StreamFraming(ops=REQUEST_OPS)
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, timeout_s: float) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.lose("closed")

    async def send(self, writes: Sequence[bytes]) -> None:
        if self.blocked is not None:
            await self.blocked.wait()
        for write in writes:
            self.writes.append(write)
            for op, version, flags, group, sequence, command, payload in self._device.feed(write):
                header = Header(op, version, flags, len(payload), group, sequence, command)
                body = decode_body(payload)
                self.sent.append((header, body))
                task = asyncio.create_task(self._answer(header, body))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, header: Header, body: dict[str, object]) -> None:
        for reply in await self.handler(header, body):
            self.reply(header, reply)

    async def receive(self) -> bytes:
        item = await self._arriving.get()
        if isinstance(item, Exception):
            self._arriving.put_nowait(item)
            raise item
        return item

    @property
    def limits(self) -> Limits:
        return self._limits

    def framing(self) -> Framing:
        return Talkative(self)

    def queued_s(self) -> float:
        return self.queue_s

    def reply(self, header: Header, body: dict[str, object] | bytes) -> None:
        payload = body if isinstance(body, bytes) else encode_body(body)
        self.deliver(
            codec.build_message(
                header.op | 1, header.version, 0, header.group, header.sequence, header.command, payload
            )
        )

    def deliver(self, data: bytes) -> None:
        self._arriving.put_nowait(data)

    def lose(self, why: str = "unplugged", error: Exception | None = None) -> None:
        self._arriving.put_nowait(error or LinkLost(why))

    @staticmethod
    async def echo(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        if (header.group, header.command) == (0, 0):
            return [{"r": body["d"]}]
        if (header.group, header.command) == (0, 6):
            return [{"buf_size": 384, "buf_count": 4}]
        return [{"rc": 8}]


class Talkative(StreamFraming):
    """A stream on which text arrives as well; here the wire says out of band what is text."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def take_text(self) -> bytes:
        text, self._wire.text = self._wire.text, b""
        return text


async def silence(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
    return []


@virtual
async def test_a_request_and_its_typed_answer() -> None:
    wire = Wire()
    async with Client(wire) as client:
        assert client.connected
        assert await client.request(Echo("hello")) == "hello"
        assert await client.request(ReadParams()) == Params(384, 4)
    assert not client.connected
    assert (wire.opened, wire.closed) == (1, 1)


@virtual
async def test_nothing_is_sent_before_somebody_asks() -> None:
    wire = Wire()
    async with Client(wire):
        await asyncio.sleep(10)
    assert wire.sent == []


@virtual
async def test_many_tasks_share_one_client() -> None:
    most = 0
    inside = 0

    async def slow(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        nonlocal most, inside
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.1)
        inside -= 1
        return [{"r": body["d"]}]

    async with Client(Wire(slow)) as client:
        texts = [f"text {number}" for number in range(50)]
        assert await asyncio.gather(*(client.request(Echo(text)) for text in texts)) == texts
    assert most == 1  # the default: a device is never given more than one request at a time


@virtual
async def test_several_in_flight_where_allowed_and_answers_in_any_order() -> None:
    async def reversed_order(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        await asyncio.sleep(1 - int(str(body["d"])) / 100)
        return [{"r": body["d"]}]

    loop = asyncio.get_running_loop()
    async with Client(Wire(reversed_order), in_flight=3) as client:
        begin = loop.time()
        texts = [str(number) for number in range(9)]
        assert await asyncio.gather(*(client.request(Echo(text)) for text in texts)) == texts
        assert loop.time() - begin < 9 * 0.9 / 2


@virtual
async def test_a_safe_request_is_repeated_and_a_lost_answer_costs_one_time_out() -> None:
    drops = 1

    async def lossy(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        nonlocal drops
        drops -= 1
        return [] if drops >= 0 else [{"r": body["d"]}]

    wire = Wire(lossy)
    loop = asyncio.get_running_loop()
    async with Client(wire, timeout_s=2.0) as client:
        begin = loop.time()
        assert await client.request(Echo("again")) == "again"
        assert loop.time() - begin == pytest.approx(2.0)
    assert [header.sequence for header, _ in wire.sent] == [0, 1]


@virtual
async def test_the_late_answer_to_the_first_attempt_will_do() -> None:
    async def late(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        await asyncio.sleep(2.5)
        return [{"r": body["d"]}]

    wire = Wire(late)
    async with Client(wire, timeout_s=2.0) as client:
        assert await client.request(Echo("late")) == "late"
        assert len(wire.sent) == 2
        await asyncio.sleep(5)  # the answer to the second attempt arrives, and harms nothing
        wire.handler = Wire.echo
        assert await client.request(Echo("next")) == "next"


@virtual
async def test_what_must_not_be_repeated_is_sent_once() -> None:
    wire = Wire(silence)
    async with Client(wire) as client:
        with pytest.raises(RequestTimeout) as caught:
            await client.request(Reset())
        assert (caught.value.what, caught.value.attempts) == ("reset", 1)
        with pytest.raises(RequestTimeout, match="within 60 s"):
            await client.request(EraseImage())
    assert len(wire.sent) == 2


@virtual
async def test_time_counts_from_when_the_link_can_have_sent() -> None:
    async def at_eight(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        await asyncio.sleep(8)
        return [{"r": body["d"]}]

    wire = Wire(at_eight)
    wire.queue_s = 5.0
    async with Client(wire) as client:
        assert await client.request(Echo("slow link"), repeats=0) == "slow link"
        wire.queue_s = 0.0
        with pytest.raises(RequestTimeout):
            await client.request(Echo("slow link"), repeats=0)


@virtual
async def test_a_cancelled_request_leaves_the_client_usable() -> None:
    wire = Wire(silence)
    async with Client(wire) as client:
        waiting = [asyncio.create_task(client.request(Echo(str(n)))) for n in range(3)]
        await asyncio.sleep(1)
        waiting[0].cancel()  # in flight
        waiting[2].cancel()  # in the queue
        await asyncio.sleep(0)
        wire.reply(wire.sent[0][0], {"r": "too late"})
        wire.handler = Wire.echo
        assert await waiting[1] == "1"
        assert await client.request(Echo("after")) == "after"
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError, str, asyncio.CancelledError]


@virtual
async def test_a_cancelled_request_does_not_tear_its_message_apart() -> None:
    wire = Wire(limits=Limits(2048, write=20))
    wire.blocked = asyncio.Event()
    async with Client(wire) as client:
        task = asyncio.create_task(client.request(Echo("x" * 100)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert wire.writes == []
        wire.blocked.set()
        assert await client.request(Echo("whole")) == "whole"
        assert [body["d"] for _, body in wire.sent] == ["x" * 100, "whole"]


@virtual
async def test_link_loss_wakes_everybody_at_once() -> None:
    wire = Wire(silence)
    loop = asyncio.get_running_loop()
    async with Client(wire) as client:
        waiting = [asyncio.create_task(client.request(Echo(str(n)))) for n in range(5)]
        lost = asyncio.create_task(client.wait_lost())
        await asyncio.sleep(1)
        begin = loop.time()
        wire.lose()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert loop.time() == begin
        assert all(isinstance(result, LinkLost) for result in results)
        assert len({id(result) for result in results}) == 5  # an error each, so that tracebacks do not mix
        assert str(await lost) == "unplugged"
        assert not client.connected
        with pytest.raises(LinkLost, match="unplugged"):
            await client.request(Echo("gone"))


@virtual
async def test_closing_ends_every_wait() -> None:
    client = Client(Wire(silence))
    await client.open()
    waiting = asyncio.create_task(client.request(Echo("?")))
    await asyncio.sleep(0.1)
    await asyncio.gather(client.close(), client.close())
    with pytest.raises(LinkLost, match="closed"):
        await waiting
    await client.close()


@virtual
async def test_a_transport_that_breaks_its_contract_hangs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire(silence)
    with caplog.at_level(logging.CRITICAL):
        async with Client(wire) as client:
            waiting = asyncio.create_task(client.request(Echo("?")))
            await asyncio.sleep(0.1)
            wire.lose(error=ZeroDivisionError("oops"))
            with pytest.raises(PluginError, match=r"in receive of Wire of .*ZeroDivisionError: oops"):
                await waiting
            with pytest.raises(PluginError, match="oops"):
                await client.request(Echo("!"))
            assert isinstance(await client.wait_lost(), PluginError)


@virtual
async def test_a_link_that_takes_nothing_is_a_time_out_of_the_link() -> None:
    wire = Wire()
    wire.blocked = asyncio.Event()
    async with Client(wire) as client:
        with pytest.raises(RequestTimeout, match="the link has not taken the echo"):
            await client.request(Echo("stuck"), timeout_s=1.0)


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "timed out"])
@virtual
async def test_what_was_given_up_before_the_link_has_begun_it_is_not_sent(cancelled: bool) -> None:
    wire = Wire()
    wire.blocked = asyncio.Event()
    async with Client(wire, in_flight=3) as client:
        first = asyncio.create_task(client.request(Echo("first")))
        await asyncio.sleep(0.1)
        erase = asyncio.create_task(client.request(EraseImage(1), timeout_s=0.5))
        await asyncio.sleep(0.1)
        if cancelled:
            erase.cancel()
        [end] = await asyncio.gather(erase, return_exceptions=True)
        assert not getattr(end, "may_be_done", False)
        wire.blocked.set()
        assert await first == "first"
        await asyncio.sleep(1)
    assert [header.command for header, _ in wire.sent] == [0]


@virtual
async def test_a_slow_wire_is_not_a_silent_device() -> None:
    class Slow(Wire):
        async def send(self, writes: Sequence[bytes]) -> None:
            await asyncio.sleep(sum(map(len, writes)) / 40)  # bytes a second
            await super().send(writes)

    async with Client(Slow(), timeout_s=1.0, in_flight=4) as client:
        texts = [str(number) * 100 for number in range(4)]
        assert await asyncio.gather(*(client.request(Echo(text), repeats=0) for text in texts)) == texts


@pytest.mark.parametrize("queue_s", [-5.0, float("nan"), float("inf"), 1e9, "soon", None, ZeroDivisionError("oops")])
@virtual
async def test_a_queue_that_makes_no_sense_is_not_waited_for(queue_s: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Wire):
        def queued_s(self) -> float:
            if isinstance(queue_s, Exception):
                raise queue_s
            return queue_s  # type: ignore[no-any-return]

    loop = asyncio.get_running_loop()
    async with Client(Odd(silence)) as client:
        begin = loop.time()
        with pytest.raises(RequestTimeout):
            await client.request(Echo("?"), timeout_s=1.0)
        assert loop.time() - begin == pytest.approx(3.0)
    assert len([record for record in caplog.records if "queued" in record.message]) == 1


FAULTS = ["limits", "flow", "framing", "open", "send", "offer", "receive"]


@pytest.mark.parametrize(
    "error", [OSError(5, "dead"), SystemExit(3), asyncio.CancelledError(), GeneratorExit()], ids=repr
)
@pytest.mark.parametrize("where", FAULTS)
@virtual
async def test_what_a_transports_code_raises_is_told_as_its_fault(where: str, error: BaseException) -> None:
    def fails(*_: object) -> Any:
        raise error

    async def fails_later(*_: object) -> Any:
        raise error

    made = fails_later if where in ("open", "send", "receive") else fails
    kind = type("Odd", (Wire,), {where: property(made) if where in ("limits", "flow") else made})

    async def use() -> None:
        async with Client(kind()) as client:
            assert client.flow is not None
            await client.request(Echo("?"), timeout_s=1.0)

    with pytest.raises(PluginError, match=f"the link's own code has failed, in {where} of Odd of ") as raised:
        await use()
    assert type(error).__name__ in str(raised.value)
    assert raised.value.name == kind.__module__.partition(".")[0]
    assert "not of the device" in (raised.value.hint or "")


@pytest.mark.parametrize("limits", [None, 384, {"safe_message": 89}])
@virtual
async def test_limits_that_are_none(limits: Any) -> None:
    async with Client(Wire(limits=limits)) as client:
        with pytest.raises(PluginError, match=r"in limits of Wire of .* not Limits"):
            await client.request(Echo("?"))


@pytest.mark.parametrize("where", ["encode", "feed"])
@virtual
async def test_a_framing_of_a_plugin_that_fails(where: str) -> None:
    def fails(*_: object) -> Any:
        raise ZeroDivisionError("oops")

    framing = type("OddFraming", (StreamFraming,), {where: fails})

    class Odd(Wire):
        def framing(self) -> Framing:
            return framing()  # type: ignore[no-any-return]

    async with Client(Odd()) as client:
        with pytest.raises(PluginError, match=r"in framing of .* ZeroDivisionError: oops"):
            await client.request(Echo("?"))


@virtual
async def test_a_framing_of_a_plugin_that_fails_behind_an_answer() -> None:
    class Odd(Wire):
        def framing(self) -> Framing:
            return OddFraming()

    class OddFraming(StreamFraming):
        def take_text(self) -> bytes:
            raise ZeroDivisionError("oops")

    async with Client(Odd()) as client:
        assert await client.request(Echo("?")) == "?"
        with pytest.raises(PluginError, match=r"in framing of .* ZeroDivisionError: oops"):
            await client.request(Echo("!"))


@pytest.mark.parametrize("chunk", [None, "text", 5])
@virtual
async def test_a_transport_that_receives_no_bytes(chunk: Any) -> None:
    class Odd(Wire):
        async def receive(self) -> bytes:
            return chunk  # type: ignore[no-any-return]

    async with Client(Odd()) as client:
        with pytest.raises(PluginError, match="in receive of "):
            await client.request(Echo("?"))


@virtual
async def test_a_transport_whose_close_fails_is_closed_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Wire):
        async def close(self) -> None:
            raise SystemExit(3)

    async with Client(Odd()) as client:
        assert await client.request(Echo("fine")) == "fine"
    assert "in close of " in caplog.text


def test_a_client_in_another_event_loop() -> None:
    client = Client(Wire())

    async def here(work: Callable[[], Awaitable[object]]) -> None:
        await work()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(client.open())
        for work in (lambda: client.request(Echo("?")), client.params, client.close, client.wait_lost):
            with pytest.raises(RuntimeError, match="belongs to another event loop"):
                asyncio.run(here(work))
        assert loop.run_until_complete(client.request(Echo("fine"))) == "fine"
        loop.run_until_complete(client.close())
    finally:
        loop.close()


@virtual
async def test_several_that_are_cancelled_at_once() -> None:
    wire = Wire(silence)
    async with Client(wire) as client:
        for count in (2, 3, 5):
            tasks = [asyncio.create_task(client.request(Echo(str(number)))) for number in range(count)]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
        wire.handler = Wire.echo
        assert await asyncio.gather(*(client.request(Echo(str(n))) for n in range(3))) == ["0", "1", "2"]


@virtual
async def test_a_late_answer_is_never_taken_for_that_of_a_newer_request() -> None:
    held: list[Header] = []

    async def late(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        if not held:
            held.append(header)
            return []
        wire.reply(held[0], {"r": "the first"})
        return [{"r": body["d"]}]

    wire = Wire(late)
    async with Client(wire) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.request(Echo("the first"))
        for number in range(1000):
            assert await client.request(Echo(str(number))) == str(number)


@virtual
async def test_of_two_transfers_the_longer_one_keeps_what_it_has() -> None:
    async with Client(Wire(silence)) as client:

        def stream(room: int) -> Stream[int]:
            return client.stream(room, Mock())

        def room_of(one: Stream[int]) -> int:
            sent = []
            while not one.full:
                sent.append(one.send(Echo("").request(), len(sent)))
            for call in sent:
                one.forget(call)
            return len(sent)

        short, long = stream(2), stream(4)
        assert room_of(long) == 4
        short.close()
        assert room_of(long) == 4
        again = stream(2)
        long.close()
        assert room_of(again) == 2
        again.close()
        assert room_of(stream(1)) == 1


# -- a device that is busy ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [Reset(), EraseImage(), Echo("x"), ReadImageState()], ids=lambda one: one.facts.what
)
@virtual
async def test_a_busy_device_is_asked_again(command: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    done: list[Header] = []

    async def busy(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        if loop.time() < begin + 6:
            return [{"rc": 10}]
        done.append(header)
        return [{"r": "x", "images": []}]

    wire = Wire(busy)
    with caplog.at_level(logging.WARNING):
        async with Client(wire) as client:
            await client.request(command)
    assert len(done) == 1
    assert len(wire.sent) < 12  # with growing pauses
    assert caplog.messages == [f"the device is busy, and is asked for the {command.facts.what} again for up to 30 s"]


@virtual
async def test_a_device_that_stays_busy_is_given_up() -> None:
    async def busy(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        return [{"rc": 10}]

    loop = asyncio.get_running_loop()
    async with Client(Wire(busy)) as client:
        begin = loop.time()
        with pytest.raises(DeviceError, match="busy") as raised:
            await client.request(Reset())
        assert 30 <= loop.time() - begin <= 35
        assert not raised.value.may_be_done
        assert "--force" not in str(raised.value.hint)


@virtual
async def test_a_groups_own_code_10_is_not_busy() -> None:
    async def refuses(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        return [{"err": {"group": 1, "rc": 10}}]

    wire = Wire(refuses)
    async with Client(wire) as client:
        with pytest.raises(DeviceError):
            await client.request(EraseImage())
    assert len(wire.sent) == 1


@virtual
async def test_ones_own_request_that_comes_back_is_named() -> None:
    wire = Wire(silence)
    async with Client(wire) as client:
        asking = asyncio.create_task(client.request(Echo("hello"), repeats=0))
        await asyncio.sleep(0.1)
        wire.deliver(wire.writes[0])
        with pytest.raises(RequestTimeout, match="all that came back is the request itself") as raised:
            await asking
        assert "echo" in (raised.value.hint or "")


@virtual
async def test_a_link_that_fails_to_open_is_closed_again() -> None:
    class Refusing(Wire):
        async def open(self, timeout_s: float) -> None:
            raise ConnectFailed("busy")

    wire = Refusing()
    with pytest.raises(ConnectFailed):
        await Client(wire).open()
    assert wire.closed == 1


@virtual
async def test_a_device_of_version_1_is_spoken_to_in_version_1() -> None:
    async def old(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        return [{"r": body["d"]}] if header.version == 0 else [{"rc": 13}]

    wire = Wire(old)
    async with Client(wire) as client:
        assert await client.request(Echo("old")) == "old"
        assert await client.request(Echo("still")) == "still"
    assert [header.version for header, _ in wire.sent] == [1, 0, 0]


@virtual
async def test_a_device_that_leaves_version_2_unanswered_is_asked_in_version_1_last() -> None:
    async def older(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        return [{"r": body["d"]}] if header.version == 0 else []

    wire = Wire(older)
    async with Client(wire, timeout_s=1.0) as client:
        assert await client.request(Echo("old")) == "old"
        assert await client.request(Echo("still")) == "still"
    # Before it is believed, version 2 is tried once more.
    assert [header.version for header, _ in wire.sent] == [1, 1, 0, 1, 0]


@virtual
async def test_one_lost_request_does_not_turn_the_connection_to_version_1() -> None:
    lost = 1

    async def lossy(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        nonlocal lost
        lost -= 1
        return [] if lost >= 0 else await Wire.echo(header, body)

    wire = Wire(lossy)
    async with Client(wire) as client:
        assert await client.params() == Params(384, 4)  # asked twice, the second time in version 1
        assert await client.request(Echo("new")) == "new"
        await client.request(Echo("newer"))
    assert [header.version for header, _ in wire.sent] == [1, 0, 1, 1, 1]


@virtual
async def test_a_device_without_version_1_is_not_lost_by_a_lost_request() -> None:
    lost = 1

    async def modern(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        nonlocal lost
        lost -= 1
        if lost >= 0:
            return []
        return [{"rc": 12}] if header.version == 0 else await Wire.echo(header, body)

    wire = Wire(modern)
    async with Client(wire) as client:
        assert await client.params() == Params(384, 4)
        assert await client.request(Echo("new")) == "new"
    assert [header.version for header, _ in wire.sent] == [1, 0, 1, 1]


@virtual
async def test_a_late_answer_to_version_2_turns_back() -> None:
    slow = 3  # so many requests in version 2 are answered, but not in time

    async def slow_at_first(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        nonlocal slow
        if header.version == 1 and slow > 0:
            slow -= 1
            await asyncio.sleep(20)
        return [{"r": body["d"]}]

    wire = Wire(slow_at_first)
    async with Client(wire) as client:
        assert await client.request(Echo("a")) == "a"
        await asyncio.sleep(30)
        assert await client.request(Echo("b")) == "b"
    assert [header.version for header, _ in wire.sent] == [1, 1, 0, 1, 1]


@virtual
async def test_what_must_not_be_repeated_goes_in_the_version_that_was_answered() -> None:
    async def older(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        return [{}] if header.version == 0 else []

    wire = Wire(older)
    async with Client(wire, timeout_s=1.0) as client:
        await client.request(WriteImageState(confirm=True), timeout_s=1.0, repeats=1)  # nothing is tried with a write
        await client.request(Reset())
    assert [header.version for header, _ in wire.sent] == [1, 0, 0]


@virtual
async def test_a_malformed_answer_is_an_error_of_that_request_alone() -> None:
    wire = Wire(silence)
    async with Client(wire) as client:
        waiting = asyncio.create_task(client.request(Echo("?"), repeats=0))
        await asyncio.sleep(0.1)
        wire.reply(wire.sent[0][0], b"\xff\xff")
        with pytest.raises(MalformedReply) as caught:
            await waiting
        assert caught.value.payload == b"\xff\xff"
        wire.handler = Wire.echo
        assert await client.request(Echo("fine")) == "fine"


@virtual
async def test_what_makes_no_sense_is_asked_for_once_more_if_that_is_safe() -> None:
    wire = Wire(silence)
    async with Client(wire) as client:
        waiting = asyncio.create_task(client.request(Echo("?")))
        await asyncio.sleep(0.1)
        wire.handler = Wire.echo
        wire.reply(wire.sent[0][0], b"\xff\xff")
        assert await waiting == "?"


@virtual
async def test_params_are_asked_once_and_bound_the_messages() -> None:
    wire = Wire(limits=Limits(89, buffer_overhead=4))
    async with Client(wire) as client:
        assert await asyncio.gather(client.params(), client.params()) == [Params(384, 4)] * 2
        assert len(wire.sent) == 1
        assert await client.request(Echo("x" * 366)) == "x" * 366  # 380 bytes in all
        with pytest.raises(MessageTooLarge) as caught:
            await client.request(Echo("x" * 367))
        assert (caught.value.size, caught.value.limit) == (381, 380)
        client.forget_device()
        await client.params()
        assert len([header for header, _ in wire.sent if header.command == 6]) == 2


@virtual
async def test_what_is_longer_than_the_devices_buffers_is_refused_before_it_is_sent() -> None:
    wire = Wire()
    async with Client(wire) as client:
        assert await client.request(Echo("short")) == "short"
        assert len(wire.sent) == 1  # nothing needs to be known for that
        with pytest.raises(MessageTooLarge, match="takes 384"):
            await client.request(Echo("x" * 1000))
        with pytest.raises(MessageTooLarge, match="takes 384"):
            await client.request(Echo("x" * 1000))
        assert len(wire.sent) == 2


NONSENSE: list[Any] = [
    ({}, None),
    ({"buf_count": 4}, None),
    ({"buf_size": 0, "buf_count": 0}, None),
    ({"buf_size": -1, "buf_count": 4}, None),
    ({"buf_size": 2**40, "buf_count": 4}, None),
    ({"buf_size": "384", "buf_count": 4}, None),
    ({"buf_size": 384.0, "buf_count": 4}, None),
    (b"\xa1\x68buf", None),
    (b"", None),
    ({"buf_size": 384}, 1),
    ({"buf_size": 384, "buf_count": 0}, 1),
    ({"buf_size": 384, "buf_count": 2**31}, 1),
    ({"buf_size": 384, "buf_count": "4"}, 1),
    ({"buf_size": 384, "buf_count": 4}, 4),
]


@pytest.mark.parametrize(("answer", "count"), NONSENSE, ids=str)
@virtual
async def test_buffers_that_make_no_sense_are_not_told(answer: Any, count: int | None) -> None:
    async def handler(header: Header, body: dict[str, object]) -> list[Any]:
        return [answer] if header.command == 6 else [{"r": body["d"]}]

    async with Client(Wire(handler)) as client:
        params = await client.params()
        assert (params is None) if count is None else (params is not None and params.buf_count == count)
        assert await client.request(Echo("fine")) == "fine"


@pytest.mark.parametrize("answer", [[{"rc": 8}], [{"rc": 5}], []], ids=["not supported", "no entry", "silence"])
@virtual
async def test_a_device_without_params(answer: list[dict[str, object]]) -> None:
    async def handler(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        return answer

    async with Client(Wire(handler)) as client:
        assert await client.params() is None


@virtual
async def test_what_the_link_cannot_carry_is_refused_before_it_is_sent() -> None:
    wire = Wire(limits=Limits(512, max_message=1472))
    async with Client(wire) as client:
        with pytest.raises(MessageTooLarge):
            await client.request(Echo("x" * 1500))
    assert wire.sent == []


@virtual
async def test_device_text_goes_to_the_listener_whole_characters_at_a_time() -> None:
    wire = Wire(silence)
    heard: list[str] = []
    async with Client(wire, on_text=heard.append) as client:
        for part in ("grü".encode()[:3], "grü".encode()[3:]):
            wire.text = part
            wire.deliver(b"\xff")
            await asyncio.sleep(0.1)
        assert client.last_heard_s is not None
    assert "".join(heard) == "grü"


@virtual
async def test_a_failing_listener_does_not_end_the_link(caplog: pytest.LogCaptureFixture) -> None:
    def fails(text: str) -> None:
        raise ZeroDivisionError

    wire = Wire()
    with caplog.at_level(logging.CRITICAL):
        async with Client(wire, on_text=fails) as client:
            wire.text = b"boot"
            wire.deliver(b"\xff")
            assert await client.request(Echo("alive")) == "alive"


@virtual
async def test_groups_are_found_by_type() -> None:
    class Mine(Group):
        pass

    class Role(ABC):
        @abstractmethod
        def play(self) -> None: ...

    def find(kind: type) -> type[Group]:
        if kind in (Role, Mine):
            return Mine
        raise PluginError("nobody")

    async with Client(Wire(), groups=find) as client:
        assert isinstance(client.group(Mine), Mine)
        assert client.group(Mine) is client.group(Mine)
        assert isinstance(client.group(Role), Mine)
        with pytest.raises(PluginError):
            client.group(Wire)
    async with Client(Wire()) as client:
        assert isinstance(client.group(Mine), Mine)
        with pytest.raises(PluginError, match="no plugin supplies Role"):
            client.group(Role)


@virtual
async def test_the_devices_refusal_carries_all_it_said() -> None:
    async def refuses(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        return [{"err": {"group": 1, "rc": 9}, "rsn": "busy", "off": 7}]

    async with Client(Wire(refuses)) as client:
        with pytest.raises(DeviceError) as caught:
            await client.request(EraseImage())
    error = caught.value
    assert (error.group, error.rc, error.name, error.rsn, error.reply["off"]) == (1, 9, "NO_FREE_SLOT", "busy", 7)
    assert error.hint


def test_repr_tells_the_state() -> None:
    async def main() -> None:
        client = Client(Wire())
        assert "not open" in repr(client)
        await client.open()
        assert "connected" in repr(client)
        await client.close()
        assert "closed" in repr(client)

    run(main())


# -- what may have been carried out ---------------------------------------------------------------------------------


async def broken_body(header: Header, body: dict[str, object]) -> list[Any]:
    return [b"\xa1\x66images"]


async def nothing_fits(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
    return [{"rc": 7}]


async def refused(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
    return [{"rc": 3}]


@pytest.mark.parametrize(
    ("handler", "error", "may_be_done"),
    [
        (silence, RequestTimeout, True),
        (broken_body, MalformedReply, True),
        (nothing_fits, DeviceError, True),
        (refused, DeviceError, False),
    ],
)
@virtual
async def test_a_write_without_a_readable_answer_may_have_been_done(
    handler: Any, error: type[Exception], may_be_done: bool
) -> None:
    wire = Wire(handler)
    async with Client(wire) as client:
        with pytest.raises(McumgrError) as raised:
            await client.request(EraseImage())
        assert isinstance(raised.value, error)
        assert raised.value.may_be_done is may_be_done
        assert ("may have carried it out" in str(raised.value)) is may_be_done
        assert len(wire.sent) == 1  # never sent again blindly
        with pytest.raises(McumgrError) as read:
            await client.request(ReadImageState())
        assert not read.value.may_be_done
        with pytest.raises(McumgrError) as echoed:
            await client.request(Echo("x"))
        assert not echoed.value.may_be_done


@virtual
async def test_a_write_whose_link_ended_may_have_been_done() -> None:
    wire = Wire(silence)
    async with Client(wire) as client:
        waiting = asyncio.create_task(client.request(EraseImage()))
        await asyncio.sleep(1)
        queued = asyncio.create_task(client.request(EraseImage(1)))
        await asyncio.sleep(1)
        wire.lose()
        ends = await asyncio.gather(waiting, queued, return_exceptions=True)
        assert [(type(end), getattr(end, "may_be_done", None)) for end in ends] == [(LinkLost, True), (LinkLost, False)]


@virtual
async def test_a_time_that_was_asked_for_holds_for_commands_that_usually_take_longer() -> None:
    async def silent(header: Header, body: dict[str, object]) -> list[dict[str, object]]:
        return []

    loop = asyncio.get_running_loop()
    for given, expected in ((None, 10.0), (1.0, 1.0), (7.0, 7.0), (20.0, 20.0)):
        async with Client(Wire(silent), timeout_s=given) as client:
            begin = loop.time()
            with pytest.raises(RequestTimeout) as caught:
                await client.request(ReadImageState(), repeats=0)
            assert caught.value.timeout_s == expected
            assert loop.time() - begin <= 2 * expected + 1  # once more, in the other version of the protocol
