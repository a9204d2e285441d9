"""Many requests on their way at once, each known by its item. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcumgrx.client import Client
from mcumgrx.errors import LinkLost, McumgrError
from mcumgrx.link.call import Call, State
from mcumgrx.link.stream import Stream
from mcumgrx.messages.message import Reply
from mcumgrx.messages.standard import Echo
from mcumgrx.sim.loop import run
from tests.support.wire import Wire


class Notes:
    """A user of a stream, who writes down what happens and when."""

    def __init__(self, client: Client, room: int) -> None:
        self.happened: list[tuple[float, str, Any]] = []
        self.stream: Stream[str] = client.stream(room, self)

    def replied(self, item: str, reply: Reply) -> None:
        self.note("reply", (item, reply.body()["r"]))

    def left(self, item: str) -> None:
        self.note("left", item)

    def has_room(self) -> None:
        self.note("room", None)

    def failed(self, error: McumgrError) -> None:
        self.note("failure", error)

    def garbled(self, count: int) -> None:
        self.note("garbled", count)

    def note(self, what: str, of: Any) -> None:
        self.happened.append((asyncio.get_running_loop().time(), what, of))

    def send(self, text: str) -> Call:
        return self.stream.send(Echo(text).request(), text)

    def all(self, what: str) -> list[Any]:
        return [of for _, kind, of in self.happened if kind == what]


def over_a_wire(test: Callable[[Wire, Client], Awaitable[None]]) -> Callable[[], None]:
    def wrapper() -> None:
        async def main() -> None:
            wire = Wire()
            async with Client(wire) as client:
                await test(wire, client)

        run(main())

    wrapper.__name__ = test.__name__
    return wrapper


@over_a_wire
async def test_each_reply_comes_with_the_item_of_its_request(wire: Wire, client: Client) -> None:
    notes = Notes(client, 3)
    for delay_s, text in ((3.0, "a"), (1.0, "b"), (2.0, "c")):
        wire.delay_s = delay_s
        assert not notes.stream.full
        notes.send(text)
        await asyncio.sleep(0)  # until it is on the wire
    assert notes.stream.full
    await asyncio.sleep(4)
    assert notes.all("left") == ["a", "b", "c"]
    assert notes.all("reply") == [("b", "b"), ("c", "c"), ("a", "a")]
    assert not notes.stream.full


@over_a_wire
async def test_what_is_forgotten_frees_its_place_and_is_heard_of_no_more(wire: Wire, client: Client) -> None:
    notes = Notes(client, 1)
    call = notes.send("a")
    await asyncio.sleep(0)
    assert notes.stream.full
    for _ in range(2):
        notes.stream.forget(call)
        assert call.state is State.GIVEN_UP
        assert not notes.stream.full
    await asyncio.sleep(1)
    assert notes.all("reply") == []
    answered = notes.send("b")
    await asyncio.sleep(1)
    notes.stream.forget(answered)
    assert notes.all("reply") == [("b", "b")]
    assert not notes.stream.full
    assert answered.state is State.ANSWERED


@over_a_wire
async def test_what_the_link_has_not_begun_is_not_sent_once_it_is_forgotten(wire: Wire, client: Client) -> None:
    notes = Notes(client, 3)
    calls = [notes.send(text) for text in "abc"]  # the link has had no turn yet
    notes.stream.forget(calls[1])
    await asyncio.sleep(1)
    assert len(wire.sent) == 2
    assert notes.all("left") == ["a", "c"]
    assert [call.may_have_arrived for call in calls] == [True, False, True]


@over_a_wire
async def test_other_requests_take_their_turn_and_make_room(wire: Wire, client: Client) -> None:
    notes = Notes(client, 2)
    wire.delay_s = 1.0
    notes.send("a")
    notes.send("b")
    other = asyncio.create_task(client.request(Echo("other")))
    await asyncio.sleep(0.5)
    assert len(wire.sent) == 2
    assert notes.stream.full  # for the other one
    await asyncio.sleep(1)
    assert len(wire.sent) == 3
    assert notes.all("room") == []
    assert await other == "other"
    assert len(notes.all("room")) == 1


@over_a_wire
async def test_the_end_is_told_once_to_each_with_an_error_of_its_own(wire: Wire, client: Client) -> None:
    first, second, closed = Notes(client, 2), Notes(client, 2), Notes(client, 2)
    first.send("a")
    first.send("b")
    closed.stream.close()
    await asyncio.sleep(0)
    wire.lose()
    await asyncio.sleep(1)
    [one], [other] = first.all("failure"), second.all("failure")
    assert isinstance(one, LinkLost)
    assert str(one) == str(other) == "unplugged"
    assert one is not other
    assert closed.all("failure") == []
    with pytest.raises(McumgrError, match="unplugged"):
        first.send("c")
    with pytest.raises(LinkLost, match="unplugged"):
        Notes(client, 2)


@over_a_wire
async def test_a_closed_stream_leaves_the_client_as_it_was(wire: Wire, client: Client) -> None:
    notes = Notes(client, 3)
    for text in "abc":
        notes.send(text)
    await asyncio.sleep(0)
    for _ in range(2):
        notes.stream.close()
    assert await client.request(Echo("x")) == "x"
    await asyncio.sleep(1)
    assert notes.all("reply") == []
    wire.delay_s = 1.0
    begin = asyncio.get_running_loop().time()
    await asyncio.gather(*(client.request(Echo(text)) for text in "xyz"))
    assert asyncio.get_running_loop().time() - begin == pytest.approx(3.0)  # one at a time


@over_a_wire
async def test_a_reply_may_be_quicker_than_the_links_word_that_it_has_left(wire: Wire, client: Client) -> None:
    notes = Notes(client, 1)
    taking = wire.send

    async def send(writes: Any) -> None:
        await taking(writes)
        await asyncio.sleep(1)

    wire.send = send  # type: ignore[method-assign]
    call = notes.send("a")
    await asyncio.sleep(2)
    assert [(what, at) for at, what, _ in notes.happened] == [("reply", pytest.approx(0.01)), ("left", 1.0)]
    assert call.state is State.ANSWERED
