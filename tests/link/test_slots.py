"""Who may send, and who waits for a place."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.link.slots import Slots
from mcumgrx.sim.loop import run


@given(st.lists(st.integers(0, 7), max_size=12), st.integers(1, 3))
def test_whoever_is_cancelled_when_the_count_is_right_afterwards(cancelled: list[int], usual: int) -> None:
    async def main() -> None:
        slots, inside, most = Slots(usual), 0, 0

        async def work() -> None:
            nonlocal inside, most
            await slots.enter()
            inside += 1
            most = max(most, inside)
            try:
                await asyncio.sleep(1)
            finally:
                inside -= 1
                slots.leave()

        tasks = [asyncio.create_task(work()) for _ in range(8)]
        for number in cancelled:
            if number % 2:
                await asyncio.sleep(0.7)
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= usual
        for _ in range(usual):
            assert not slots.full
            slots.enter_now()
        assert slots.full

    run(main())


def test_the_largest_claim_counts_and_a_shorter_one_ends_alone() -> None:
    slots, told = Slots(1), list[str]()
    slots.claim("long", 3, lambda: told.append("long"))
    slots.claim("short", 2, lambda: told.append("short"))
    for _ in range(3):
        assert not slots.full
        slots.enter_now()
    slots.release("short")
    slots.release("short")
    slots.leave()
    assert not slots.full
    slots.release("long")
    assert slots.full

    async def another() -> None:
        slots.claim("long", 3, lambda: told.append("long"))
        await slots.enter()
        slots.leave_for_others()

    run(another())
    assert told == ["long"]


@pytest.mark.parametrize("count", [0, -1])
def test_at_least_one_is_let_in(count: int) -> None:
    slots = Slots(count)
    assert not slots.full
    slots.enter_now()
    assert slots.full
