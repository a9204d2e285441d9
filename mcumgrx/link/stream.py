"""`Stream`: many requests on their way at once, without a task or a wait for each."""

from __future__ import annotations

import math
from typing import Generic, Protocol, TypeVar

from ..errors import McumgrError
from ..messages.message import Reply, Request
from .call import ANSWERED, GIVEN_UP, Call
from .link import Link

Item = TypeVar("Item", contravariant=True)


class StreamUser(Protocol[Item]):
    """Who has a stream, and is told what becomes of its requests, each by its item.

    Told from the task that reads, or while `Stream.send` is called; what is raised here ends the link.
    """

    def replied(self, item: Item, reply: Reply) -> None:
        """The reply to a request has come."""

    def left(self, item: Item) -> None:
        """The link has taken all of the request, which may be before `send` returns, or when it is answered or
        forgotten already: until then it waits for the link, and its silence says nothing of the device.
        """

    def has_room(self) -> None:
        """The requests of others have made room that `send` did not find before."""

    def failed(self, error: McumgrError) -> None:
        """The link has ended, or does not take a message. Told once."""

    def garbled(self, count: int) -> None:
        """So many answers have come damaged, be it to requests of the stream or to others."""


class Stream(Generic[Item]):
    """Many requests on their way at once: what bulk transfers are made of.

    How many there may be, and what to do when no answer comes, is the user's business. Requests of others on the same
    link wait their turn between those of the stream, and count as well.

    Arguments:
        room: so many requests of all users together may be on their way.
    """

    def __init__(self, link: Link, room: int, user: StreamUser[Item]) -> None:
        link.check()
        self._link = link
        self._user = user
        self._over = False
        link.slots.claim(self, room, user.has_room)
        link.users.append(self)

    @property
    def full(self) -> bool:
        """Whether there is no room, or others wait for it; `has_room` tells when that has changed."""
        return self._link.slots.full

    def send(self, request: Request, item: Item) -> Call:
        """Send `request`, which there must be room for. Returns what `forget` takes.

        Raises `MessageTooLarge`, `LinkLost`.
        """
        link = self._link
        link.slots.enter_now()
        try:
            return link.send(request, link.versions.current, self, item)
        except BaseException:
            link.slots.leave()
            raise

    def forget(self, call: Call) -> None:
        """Its answer is of no interest any more; its place is free. Harmless when repeated."""
        if call.state is not ANSWERED and call.state is not GIVEN_UP:
            self._link.forget(call)
            self._link.slots.leave()

    def resynchronize(self) -> None:
        """Nothing of what was sent is answered any more: drop a message that has come in part, and tell the link."""
        self._link.give_up()

    def close(self) -> None:
        """Forget all; others find the client as it was before. Harmless when repeated."""
        self._over = True
        for call in self._link.calls:
            if call.owner is self:
                self.forget(call)
                call.owner = None
        if self in self._link.users:
            self._link.users.remove(self)
            self._link.slots.release(self)

    # -- what the link tells -------------------------------------------------------------------------------------------

    def left(self, call: Call) -> None:
        """See `Owner`."""
        self._user.left(call.item)

    def answered(self, call: Call, reply: Reply) -> None:
        if call.state is ANSWERED:
            self._link.slots.leave()
            self._user.replied(call.item, reply)

    def failed(self, call: Call, error: McumgrError) -> None:
        self.ended(error)

    def garbled(self, count: int) -> None:
        self._user.garbled(count)

    def ended(self, reason: McumgrError) -> None:
        if not self._over:
            self._over = True
            self._user.failed(reason)

    def look(self, now: float) -> float:
        return math.inf
