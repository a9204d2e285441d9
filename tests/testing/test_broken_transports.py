"""The contract notices what transports do wrong: for each mistake there is a test that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from mcumgrx.errors import LinkLost
from mcumgrx.plugin_api import Framing, Limits
from mcumgrx.sim import loop as virtual
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import SimulatedTransport
from mcumgrx.testing.transports import LinkUnderTest, TransportContract


class Sound(SimulatedTransport):
    opened = 0

    async def open(self, timeout_s: float) -> None:
        await super().open(timeout_s)
        self.opened += 1


class MindsBeingClosed(Sound):
    async def close(self) -> None:
        if not self.opened:
            raise RuntimeError("not open")
        await super().close()


class OpensOnce(Sound):
    async def open(self, timeout_s: float) -> None:
        if self.opened:
            raise RuntimeError("a second time")
        await super().open(timeout_s)


class LeavesReceiveWaiting(Sound):
    async def receive(self) -> bytes:
        try:
            return await super().receive()
        except LinkLost:
            return await asyncio.get_running_loop().create_future()


class TellsTheEndOnce(Sound):
    told = False

    async def receive(self) -> bytes:
        try:
            return await super().receive()
        except LinkLost:
            if self.told:
                return b"\0"
            self.told = True
            raise


class SendsIntoTheVoid(Sound):
    async def send(self, writes: Sequence[bytes]) -> None:
        with suppress(LinkLost):
            await super().send(writes)


class LosesWhatIsCancelled(Sound):
    async def receive(self) -> bytes:
        data = await super().receive()
        await asyncio.sleep(0)
        return data


class TurnsRound(Sound):
    async def receive(self) -> bytes:
        await asyncio.sleep(0.5)
        there = [await super(TurnsRound, self).receive() for _ in range(self._inbox.qsize())]
        for data in there[:-1]:
            self._inbox.put_nowait(data)
        return there[-1] if there else await super().receive()


class CutsLongMessages(Sound):
    async def send(self, writes: Sequence[bytes]) -> None:
        await super().send([write[:200] for write in writes])


class PromisesNothing(Sound):
    @property
    def limits(self) -> Limits:
        return Limits(safe_message=256, max_message=64)


class OffersTwice(Sound):
    def offer(self, writes: Sequence[bytes]) -> bool:
        super().offer(writes)
        return False


class ForgetsOffers(Sound):
    def offer(self, writes: Sequence[bytes]) -> bool:
        return True


class HasAlwaysSomethingQueued(Sound):
    def queued_s(self) -> float:
        return 0.5


class HasNoIdea(Sound):
    def queued_s(self) -> float:
        return float("inf")


class IsAnother(Sound):
    @property
    def identity(self) -> str | None:
        return f"opening {self.opened}"


class KeepsItsFraming(Sound):
    kept: Framing | None = None

    def framing(self) -> Framing:
        self.kept = self.kept or super().framing()
        return self.kept


class MindsLateNews(Sound):
    def answered(self, writes: Sequence[bytes]) -> None:
        self._open_runner()


class DeliversFromWithin(Sound):
    def deliver_to(self, take: Callable[[bytes], None]) -> bool:
        self.take = take
        return True

    def offer(self, writes: Sequence[bytes]) -> bool:
        self.take(b"")
        return True


MISTAKES = {
    MindsBeingClosed: "test_closing_is_harmless_at_any_time",
    OpensOnce: "test_one_object_is_opened_again_and_again",
    LeavesReceiveWaiting: "test_closing_ends_what_waits_and_all_that_follows",
    TellsTheEndOnce: "test_a_link_that_ends_says_so_from_then_on",
    SendsIntoTheVoid: "test_closing_ends_what_waits_and_all_that_follows",
    LosesWhatIsCancelled: "test_nothing_is_lost_when_receive_is_cancelled",
    TurnsRound: "test_answers_come_whole_and_in_order",
    CutsLongMessages: "test_what_the_limits_promise_arrives",
    PromisesNothing: "test_the_limits_can_be",
    OffersTwice: "test_an_offer_is_a_send_or_nothing",
    ForgetsOffers: "test_an_offer_is_a_send_or_nothing",
    HasAlwaysSomethingQueued: "test_what_is_queued_is_an_estimate_that_comes_true",
    HasNoIdea: "test_what_is_queued_is_an_estimate_that_comes_true",
    IsAnother: "test_the_identity_stays",
    KeepsItsFraming: "test_each_opening_has_a_framing_of_its_own",
    MindsLateNews: "test_what_becomes_of_messages_can_be_told_at_any_time",
    DeliversFromWithin: "test_delivered_bytes_are_all_and_in_order",
}


def contract_of(kind: type[Sound]) -> TransportContract:
    class Tried(TransportContract):
        def run(self, main: Coroutine[Any, Any, None]) -> None:
            virtual.run(main)

        buf_size = 384

        @asynccontextmanager
        async def link(self) -> AsyncIterator[LinkUnderTest]:
            device = SimulatedDevice(DeviceConfig(timing=INSTANT, request_s=0.01), name="desk")
            device.install(build_image("1.0.0", payload_size=1000))
            device.settle()
            transport = kind(device)
            yield LinkUnderTest(transport, transport.cut)

    return Tried()


@pytest.mark.parametrize("kind", MISTAKES, ids=lambda kind: kind.__name__)
def test_a_mistake_is_noticed(kind: type[Sound]) -> None:
    with pytest.raises((AssertionError, RuntimeError, TimeoutError, LinkLost, KeyError, virtual.Deadlock)):
        getattr(contract_of(kind), MISTAKES[kind])()


@pytest.mark.parametrize("name", sorted(set(MISTAKES.values()) - {"test_delivered_bytes_are_all_and_in_order"}))
def test_a_sound_one_passes(name: str) -> None:
    getattr(contract_of(Sound), name)()
