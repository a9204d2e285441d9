"""What a transport is asked and told by the link over it, and what its `send` may end with. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import Mock

import pytest

from mcumgrx.client import Client
from mcumgrx.errors import ConnectFailed, LinkLost, PluginError, RequestTimeout, TransportError
from mcumgrx.messages.standard import Echo, EraseImage
from mcumgrx.protocol.codec import build_message
from mcumgrx.sim.loop import run
from tests.support.wire import Wire


class Hearing(Wire):
    """Writes down what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[object] = []

    def answered(self, writes: Sequence[bytes]) -> None:
        self.told.append(writes)

    def given_up(self) -> None:
        self.told.append("given up")

    def unasked(self) -> None:
        self.told.append("unasked")


def test_a_transport_is_told_what_becomes_of_its_messages() -> None:
    async def main() -> None:
        wire = Hearing()
        async with Client(wire) as client:
            assert await client.request(Echo("x")) == "x"
            assert len(wire.told) == 1
            assert wire.told[0] is wire.sent[0]  # the object, so that nobody has to look into it
            wire.delay_s = 1.5
            with pytest.raises(RequestTimeout):
                await client.request(Echo("late"), timeout_s=1.0, repeats=0)
            await asyncio.sleep(1)
            assert wire.told[1] == "given up"
            assert wire.told[2] is wire.sent[1]
            wire.heard(build_message(3, 1, 0, 0, 200, 0, b"\xa0"))
            wire.heard(b"\xff" * 3)
            await asyncio.sleep(0.1)
            assert wire.told[3:] == ["unasked", "unasked"]

    run(main())


@pytest.mark.parametrize(
    ("of_the_link", "given", "told"),
    [
        ("acme:1", None, "acme:1"),
        ("acme:1", "acme:2", "acme:2"),
        (None, None, None),
        (("host", 1), None, None),  # a transport's own, for its own purposes
    ],
)
def test_errors_have_the_address_of_the_transport(of_the_link: Any, given: str | None, told: str | None) -> None:
    class Addressed(Wire):
        async def open(self, timeout_s: float) -> None:
            if self.opened:
                raise ConnectFailed("it is gone", address=given)
            await super().open(timeout_s)

        async def receive(self) -> bytes:
            await super().receive()
            raise LinkLost("it breaks", address=given)

    async def main() -> None:
        wire = Addressed()
        wire.address = of_the_link
        async with Client(wire) as client:
            with pytest.raises(LinkLost) as lost:
                await client.request(Echo("x"))
        with pytest.raises(ConnectFailed) as failed:
            await Client(wire).open()
        assert lost.value.address == failed.value.address == told

    run(main())


@pytest.mark.parametrize("notice", ["answered", "given_up", "unasked"])
def test_a_transport_that_fails_when_it_is_told_has_ended(notice: str) -> None:
    def fails(*_: object) -> Any:
        raise ZeroDivisionError("oops")

    async def main() -> None:
        wire: Wire = type("Odd", (Wire,), {notice: fails})()
        wire.silent = notice != "answered"
        async with Client(wire) as client:
            asking = asyncio.create_task(client.request(Echo("?"), timeout_s=1.0))
            await asyncio.sleep(0.001)
            if notice == "unasked":
                wire.heard(b"\xff")
            reason = await client.wait_lost()
            assert isinstance(reason, PluginError)
            assert f"in {notice} of Odd of " in str(reason)
            await asyncio.gather(asking, return_exceptions=True)

    run(main())


def test_what_is_not_sent_has_not_been_done_and_the_link_is_still_there() -> None:
    class Refusing(Wire):
        refusal: Exception | None = None

        async def send(self, writes: Sequence[bytes]) -> None:
            await asyncio.sleep(0.1)
            if self.refusal is not None:
                raise self.refusal
            await super().send(writes)

    async def main() -> None:
        wire = Refusing()
        async with Client(wire) as client:
            for refusal, may_be_done in ((TransportError("not now"), False), (LinkLost("gone"), True)):
                wire.refusal = None
                assert await client.request(Echo("x")) == "x"
                wire.refusal = refusal
                with pytest.raises(TransportError, match=str(refusal)) as raised:
                    await client.request(EraseImage())
                assert raised.value.may_be_done is may_be_done
            assert not client.connected

    run(main())


# -- shortcuts ------------------------------------------------------------------------------------------------------


class Quick(Wire):
    """Takes messages at once, and delivers in the moment in which something arrives."""

    def offer(self, writes: Sequence[bytes]) -> bool:
        self.take(writes)
        return True

    def deliver_to(self, take: Callable[[bytes], None]) -> bool:
        self.heard = take
        return True


def test_shortcuts_change_nothing_but_the_way() -> None:
    class Sent(Quick):
        async def send(self, writes: Sequence[bytes]) -> None:
            raise AssertionError("the offer was taken")

        async def receive(self) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

        offer, deliver_to = Quick.offer, Quick.deliver_to

    async def main() -> None:
        async with Client(Sent()) as client:
            assert await client.request(Echo("x")) == "x"
            assert client.last_heard_s == pytest.approx(0.01)

    run(main())


def test_time_counts_from_the_end_of_send_where_only_that_was_overridden() -> None:
    class Slow(Quick):
        async def send(self, writes: Sequence[bytes]) -> None:
            await asyncio.sleep(3)
            await super().send(writes)

        def queued_s(self) -> float:
            return 2.0

    async def main() -> None:
        wire = Slow(delay_s=5.9)  # 3 s to be taken, 2 s to leave, 4 s of patience
        async with Client(wire) as client:
            assert await client.request(Echo("x"), timeout_s=4.0, repeats=0) == "x"
            assert asyncio.get_running_loop().time() == pytest.approx(8.9)
            wire.delay_s = 6.1
            with pytest.raises(RequestTimeout):
                await client.request(Echo("x"), timeout_s=4.0, repeats=0)

    run(main())


def test_what_overrides_receive_alone_is_heard_through_it() -> None:
    class Counting(Quick):
        received = 0

        async def receive(self) -> bytes:
            chunk = await super().receive()
            self.received += 1
            return chunk

    async def main() -> None:
        wire = Counting()
        async with Client(wire) as client:
            assert await client.request(Echo("x")) == "x"
        assert wire.received == 1

    run(main())


# -- what owners do --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["left", "replied"])
def test_a_mistake_of_a_listener_ends_the_link_and_hangs_nobody(where: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Client(Wire(), in_flight=2) as client:
            user = Mock(**{f"{where}.side_effect": ZeroDivisionError("oops")})
            stream = client.stream(2, user)
            stream.send(Echo("x").request(), "x")
            with pytest.raises(LinkLost, match="given up: ZeroDivisionError"):
                await client.request(EraseImage())
            [told] = user.failed.call_args_list
            assert str(told.args[0]) == "the link was given up: ZeroDivisionError('oops')"

    run(main())
    assert "oops" in caplog.text


def test_a_late_answer_is_taken_by_a_request_that_waits_for_its_next_turn() -> None:
    async def main() -> None:
        wire = Wire(delay_s=1.5)
        async with Client(wire) as client:
            first = asyncio.create_task(client.request(Echo("first"), timeout_s=1.0))
            await asyncio.sleep(0.5)
            wire.delay_s = 3.0
            assert await client.request(Echo("second"), timeout_s=4.0) == "second"
            assert await first == "first"
        assert len(wire.sent) == 2

    run(main())
