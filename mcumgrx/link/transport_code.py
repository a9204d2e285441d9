"""Calling the code of a transport, which may be anybody's: what it raises against its contract is told as what it is.

A transport raises `McumgrError`s, of which `LinkLost` ends the link. Anything else is a mistake of its own code: not of
the device, not a lost link that a reconnect would mend, and no bug of this package. So it becomes a `PluginError` that
names the plugin. That holds for every exception but a real Ctrl-C.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import McumgrError, PluginError, TransportError
from ..transport import Transport

log = logging.getLogger("mcumgrx.client")

T = TypeVar("T")


def asking(transport: Transport, what: str, ask: Callable[[], T]) -> T:
    """What a transport says of itself."""
    try:
        return ask()
    except BaseException as error:
        raise told(transport, what, error) from None


async def calling(transport: Transport, what: str, call: Callable[[], Awaitable[T]]) -> T:
    """What its method `what` returns."""
    try:
        return await call()
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # and not something in it that was cancelled
        raise told(transport, what, error) from None


def told(transport: Transport, what: str, error: BaseException) -> McumgrError:
    """What to raise for what its code has raised in `what`; itself where the contract has it."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, TransportError) and error.address is None and isinstance(transport.address, str):
        error.address = transport.address
    return error if isinstance(error, McumgrError) else fault_of(transport, what, error)


def fault_of(transport: Transport, what: str, error: BaseException) -> PluginError:
    """The code of a transport has raised, or returned, in `what`, what the contract does not have."""
    log.debug("%s failed in %s", name_of(transport), what, exc_info=error)
    package = type(transport).__module__.partition(".")[0]
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    fault = PluginError(
        f"the link's own code has failed, in {what} of {name_of(transport)}: {said}",
        name=package,
        hint=f"that is a mistake of the plugin {package}, not of the device; -vv shows where. Tell its author",
    )
    fault.__cause__ = error
    return fault


def name_of(transport: Transport) -> str:
    """For messages: the class of a transport, and the module that it comes from."""
    kind = type(transport)
    return f"{kind.__qualname__} of {kind.__module__}"


def stands_for(transport: Transport, quick: str, slow: str) -> bool:
    """Whether its method `quick` does what `slow` does, only quicker: not where `slow` alone was overridden."""
    for place in (_own(transport), *map(vars, type(transport).__mro__)):
        if quick in place or slow in place:
            return quick in place
    return False


def hears(transport: Transport, notice: str) -> bool:
    """Whether it wants to be told, as most do not."""
    return getattr(type(transport), notice) is not getattr(Transport, notice) or notice in _own(transport)


def _own(transport: Transport) -> dict[str, object]:
    """What somebody has put into the object itself, as tests do."""
    return getattr(transport, "__dict__", {})
