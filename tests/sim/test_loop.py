"""Virtual time: the clock jumps, threads and pipes still count, and a deadlock is an error instead of a hang."""

from __future__ import annotations

import asyncio
import socket
import threading
import warnings

import pytest

from mcumgrx.sim.loop import Deadlock, VirtualTimeLoop, run


def test_waiting_costs_no_time_and_keeps_the_order() -> None:
    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[str, float]] = []

        async def sleeper(name: str, delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            seen.append((name, loop.time()))

        await asyncio.gather(sleeper("day", 86_400), sleeper("minute", 60), sleeper("minute too", 60))
        return seen

    assert run(main()) == [("minute", 60.0), ("minute too", 60.0), ("day", 86_400.0)]


def test_time_begins_at_zero_and_stands_still_while_something_is_ready() -> None:
    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert run(main()) == 0.0


def test_a_time_out_fires_in_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(75):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(75.0)


def test_very_late_timers_still_fire() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1e8)
        for _ in range(100):  # about what the clock resolves by then; it must not turn in circles
            await asyncio.sleep(2e-8)
        return loop.time()

    assert run(main()) >= 1e8


def test_a_thread_is_waited_for_while_the_clock_stands_still() -> None:
    async def main() -> tuple[str, float]:
        gate = threading.Event()
        loop = asyncio.get_running_loop()

        def work() -> str:
            assert gate.wait(100)
            return "done"

        # A timer that is due long before the thread has ended, by a clock that does not run meanwhile.
        timer = loop.call_later(1.0, lambda: None)
        job = asyncio.ensure_future(asyncio.to_thread(work))
        await asyncio.sleep(0)
        gate.set()
        result = await job
        timer.cancel()
        return result, loop.time()

    assert run(main()) == ("done", 0.0)


def test_bytes_that_have_arrived_are_seen_before_the_clock_jumps() -> None:
    async def main() -> tuple[bytes, float]:
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            far.send(b"here")
            async with asyncio.timeout(1):
                data = await asyncio.get_running_loop().sock_recv(near, 16)
        return data, asyncio.get_running_loop().time()

    assert run(main()) == (b"here", 0.0)


def test_a_deadlock_is_an_error_that_says_who_waits() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(forgotten(), name="the reader")
        await asyncio.sleep(3)
        await task

    with pytest.raises(Deadlock, match=r"at 3\.000 s .*the reader"):
        run(main())


def test_tasks_left_behind_end_without_warnings() -> None:
    ended: list[str] = []

    async def reader() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("reader")

    async def main() -> None:
        asyncio.create_task(reader())  # noqa: RUF006 - left behind on purpose
        await asyncio.sleep(0)
        raise ValueError("the test failed")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="the test failed"):
            run(main())
    assert ended == ["reader"]


def test_the_loop_is_one_of_asyncio_and_closes() -> None:
    loop = VirtualTimeLoop()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert loop.run_until_complete(asyncio.sleep(5, "slept")) == "slept"
    loop.close()
    assert loop.is_closed()
