"""Blocking calls hold neither who is cancelled nor the end of the program."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mcumgrx.sim import loop as virtual
from mcumgrx.threads import in_thread


async def test_results_and_errors() -> None:
    assert await in_thread(int, "ff", base=16) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "x")


def test_the_loop_ends_while_a_call_still_blocks() -> None:
    """The pool of `asyncio.to_thread` would be waited for; daemon threads are not, at the interpreter's end either."""
    go_on, begun, daemons = threading.Event(), threading.Event(), []

    def block() -> None:
        daemons.append(threading.current_thread().daemon)
        begun.set()
        go_on.wait()

    async def main() -> None:
        blocked = asyncio.create_task(in_thread(block))
        while not begun.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0)
        blocked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await blocked

    try:
        asyncio.run(main())
    finally:
        go_on.set()
    assert daemons == [True]


def test_virtual_time_stands_still_meanwhile() -> None:
    async def main() -> float:
        await in_thread(str)
        return asyncio.get_running_loop().time()

    assert virtual.run(main()) == 0.0
