"""What waits for the link, in which order it leaves, and how long the link may take. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mcumgrx.link.call import Call, State
from mcumgrx.link.outbox import Outbox
from mcumgrx.messages.standard import ReadParams
from mcumgrx.sim.loop import run
from tests.support.wire import Wire

REQUEST = ReadParams().request()


class Slow(Wire):
    """Takes a second for each message; has `queued` seconds' worth of bytes under way."""

    queued = 0.0

    async def send(self, writes: Sequence[bytes]) -> None:
        await asyncio.sleep(1)
        self.sent.append(writes)

    def queued_s(self) -> float:
        return self.queued


def call_of(size: int) -> Call:
    return Call(REQUEST, 1, 0, [bytes(size)], None, None, asyncio.get_running_loop().time())


def outbox_of(wire: Wire) -> Outbox:
    def failed(error: Exception) -> None:
        raise error

    return Outbox(wire, failed)


def test_messages_leave_in_the_order_in_which_they_were_given() -> None:
    async def main() -> None:
        wire = Slow()
        outbox = outbox_of(wire)
        calls = [call_of(size) for size in (3, 1, 2)]
        for call in calls:
            outbox.put(call)
        await asyncio.sleep(1.5)
        assert [call.state for call in calls] == [State.SENT, State.LEAVING, State.QUEUED]
        assert [call.may_have_arrived for call in calls] == [True, True, False]
        await asyncio.sleep(2)
        assert [len(writes[0]) for writes in wire.sent] == [3, 1, 2]

    run(main())


def test_only_what_has_not_been_begun_is_withdrawn() -> None:
    async def main() -> None:
        wire = Slow()
        outbox = outbox_of(wire)
        calls = [call_of(size) for size in (1, 2, 3)]
        for call in calls:
            outbox.put(call)
        await asyncio.sleep(0.5)
        assert [outbox.withdraw(call) for call in calls] == [False, True, True]
        assert not outbox.withdraw(calls[1])
        await asyncio.sleep(5)
        assert [len(writes[0]) for writes in wire.sent] == [1]
        last = call_of(4)
        outbox.put(last)
        await asyncio.sleep(2)
        assert last.state is State.SENT

    run(main())


def test_a_link_is_stuck_when_nothing_moves_for_longer_than_it_says_and_the_bytes_take() -> None:
    async def main() -> None:
        wire = Slow()
        outbox = outbox_of(wire)
        first, second = call_of(60), call_of(30)
        outbox.put(first)
        outbox.put(second)
        assert outbox.stuck_at(second, 5.0) == pytest.approx(0 + 5 + 30 / 30)
        await asyncio.sleep(0.5)
        assert outbox.stuck_at(second, 5.0) == pytest.approx(0 + 5 + 60 / 30)  # the first one is on its way
        wire.queued = 7.0
        assert outbox.stuck_at(second, 5.0) == pytest.approx(0 + 7 + 5 + 60 / 30)
        await asyncio.sleep(1)
        assert outbox.stuck_at(second, 5.0) == pytest.approx(1 + 7 + 5 + 30 / 30)
        await outbox.close()
        assert second.state is State.LEAVING
        assert len(wire.sent) == 1

    run(main())
