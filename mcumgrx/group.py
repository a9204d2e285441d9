"""`Group`: the base of command groups, a set of typed commands over a client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from .errors import DeviceError, ErrorCode
from .messages.message import SmpCommand

if TYPE_CHECKING:
    from .client import Client

R = TypeVar("R")


class Group:
    """One command group of one connected device; made by `client.group(…)`, never kept longer than the client.

    ::

        class AcmeGroup(Group):
            async def temperature(self) -> float:
                return await self.request(ReadTemperature())
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    async def request(self, command: SmpCommand[R], *, timeout_s: float | None = None) -> R:
        """See `Client.request`."""
        return await self.client.request(command, timeout_s=timeout_s)


@contextmanager
def explaining(*hints: tuple[ErrorCode | Sequence[ErrorCode], str | None]) -> Iterator[None]:
    """For a `with` block: a refusal gets the hint that stands beside its code in the first of `hints` that fits.

    ::

        with explaining((SmpError.NOT_SUPPORTED, "its firmware was built without CONFIG_ACME")):
            return await self.request(ReadTemperature())
    """
    try:
        yield
    except DeviceError as error:
        for codes, hint in hints:
            if error.says(*([codes] if isinstance(codes, ErrorCode) else codes)):
                error.hint = hint
                break
        raise
