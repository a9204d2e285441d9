"""A stand-in for the event loop that Windows has by default, whose proactor watches no files.

Rules as in `asyncio.proactor_events`: nothing can be watched from outside (`add_reader` and its kin); `sock_recv` and
its kin work; datagrams go through a transport that hands each address to WSASendTo, which takes tuples only, and that
reads no more once reading has failed.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import proactor_events
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

__all__ = ["ProactorStandIn", "run"]

T = TypeVar("T")


class _Proactor:
    """What `IocpProactor` does for datagrams."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def _done(self, value: T) -> asyncio.Future[T]:
        future = self._loop.create_future()
        future.set_result(value)
        return future

    def send(self, sock: socket.socket, data: bytes, flags: int = 0) -> asyncio.Future[int]:
        return self._done(sock.send(data))

    def sendto(self, sock: socket.socket, data: bytes, flags: int = 0, addr: object = None) -> asyncio.Future[int]:
        if not isinstance(addr, tuple):
            raise TypeError(f"WSASendTo() argument 4 must be tuple, not {type(addr).__name__}")
        return self._done(sock.sendto(data, addr))

    def recv(self, sock: socket.socket, size: int, flags: int = 0) -> asyncio.Task[bytes]:
        return self._loop.create_task(self._loop.sock_recv(sock, size))

    def recvfrom(self, sock: socket.socket, size: int, flags: int = 0) -> asyncio.Task[tuple[bytes, Any]]:
        return self._loop.create_task(self._loop.sock_recvfrom(sock, size))


class ProactorStandIn(asyncio.SelectorEventLoop):
    """See the module."""

    def _watches_nothing(self, *_: object) -> NoReturn:
        raise NotImplementedError

    # To take them back is left as it is: `sock_recv` and its kin, which do work, use it here.
    add_reader = add_writer = _watches_nothing

    def _make_datagram_transport(
        self, sock: socket.socket, protocol: Any, address: Any = None, waiter: Any = None, extra: Any = None
    ) -> Any:
        self._proactor = _Proactor(self)
        transport = proactor_events._ProactorDatagramTransport  # type: ignore[attr-defined]
        return transport(self, sock, protocol, address, waiter, extra)


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in such a loop."""
    with asyncio.Runner(loop_factory=ProactorStandIn) as runner:
        return runner.run(main)
