"""A link that dies before it has carried anything is opened once more. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mcumgrx.client import Client
from mcumgrx.errors import ConnectFailed, LinkLost, WrongDevice
from mcumgrx.messages.standard import Echo, Reset
from mcumgrx.sim.loop import run
from tests.support.wire import Wire


class Dying(Wire):
    """Ends with the first message, as often as `deaths` says; opening takes `open_s` from the second time on."""

    def __init__(self, deaths: int = 1, open_s: float = 0.0) -> None:
        super().__init__()
        self.deaths = deaths
        self.open_s = open_s
        self.closed = 0
        self.error: Exception | None = None

    async def open(self, timeout_s: float) -> None:
        await super().open(timeout_s)
        if self.opened > 1:
            await asyncio.sleep(self.open_s)
            if self.error is not None:
                raise self.error

    async def close(self) -> None:
        self.closed += 1

    async def send(self, writes: Sequence[bytes]) -> None:
        if self.deaths:
            self.deaths -= 1
            self.lose()
        else:
            await super().send(writes)


def test_a_request_that_is_safe_to_repeat_connects_once_more() -> None:
    async def main() -> None:
        wire, looks = Dying(open_s=2.0), list[float]()
        async with Client(wire, on_reopened=lambda: looks.append(asyncio.get_running_loop().time())) as client:
            texts = ["a", "b", "c"]
            assert await asyncio.gather(*(client.request(Echo(text)) for text in texts)) == texts
            assert client.connected
            wire.lose()
            await client.wait_lost()
            with pytest.raises(LinkLost):
                await client.request(Echo("d"))
        assert looks == [2.0]
        assert (wire.opened, wire.closed) == (2, 2)

    run(main())


def test_what_must_not_be_repeated_does_not() -> None:
    async def main() -> None:
        wire = Dying()
        async with Client(wire, on_reopened=lambda: None) as client:
            with pytest.raises(LinkLost) as raised:
                await client.request(Reset())
            assert raised.value.may_be_done
        assert wire.opened == 1

    run(main())


def test_a_link_that_dies_again_has_ended() -> None:
    async def main() -> None:
        wire = Dying(deaths=2)
        async with Client(wire, on_reopened=lambda: None) as client:
            with pytest.raises(LinkLost, match="unplugged"):
                await client.request(Echo("x"))
            with pytest.raises(LinkLost, match="unplugged"):
                await client.request(Echo("x"))
        assert wire.opened == 2

    run(main())


def test_what_does_not_open_again_says_both() -> None:
    async def main() -> None:
        wire = Dying()
        wire.error = ConnectFailed("out of range")
        async with Client(wire, on_reopened=lambda: None) as client:
            with pytest.raises(LinkLost, match="unplugged; connecting once more: out of range"):
                await client.request(Echo("x"))
            with pytest.raises(LinkLost, match="unplugged"):
                await client.request(Echo("x"))

    run(main())


def test_another_device_is_not_asked() -> None:
    def look() -> None:
        raise WrongDevice("another one", expected="1", found="2", address="wire:")

    async def main() -> None:
        wire = Dying()
        async with Client(wire, on_reopened=look) as client:
            with pytest.raises(WrongDevice, match="another one"):
                await client.request(Echo("x"))
            assert not client.connected
            with pytest.raises(LinkLost, match="another one"):
                await client.request(Echo("x"))
        assert wire.sent == []

    run(main())


def test_closing_while_it_is_opened_again_leaves_nothing_open() -> None:
    async def main() -> None:
        wire = Dying(open_s=2.0)
        client = Client(wire, on_reopened=lambda: None)
        await client.open()
        asking = asyncio.create_task(client.request(Echo("x")))
        await asyncio.sleep(1)
        assert wire.opened == 2
        await client.close()
        [end] = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(end, LinkLost)
        assert not client.connected
        assert wire.closed == 2
        assert wire.sent == []

    run(main())
