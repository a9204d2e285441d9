"""`Stream`: many requests on their way at once, without a task or a wait for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import McumgrError
from ..messages.message import Reply, Request
from .call import ANSWERED, GIVEN_UP, Call
from .link import Link

T = TypeVar("T")


class Stream(Generic[T]):
    """Many requests on their way at once: what bulk transfers are made of.

    How many there may be, and what to do when no answer comes, is the user's business. Requests of others on the same
    link wait their turn between those of the stream, and count as well.

    Each request is sent with an `item`, by which its user knows it again. The functions are called from the task that
    reads, or while `send` is; what they raise ends the link.

    Arguments:
        room: so many requests of all users together may be on their way.
        on_reply: called with the item of a request and its reply.
        on_left: called with the item when the link has taken all of the request, which may be before `send` returns, or
            when it is answered or forgotten already: until then it waits for the link, and its silence says nothing of
            the device.
        on_room: called when the requests of others have made room that `send` did not find before.
        on_failure: called once when the link has ended, or does not take a message.
        on_garbled: called with how many answers have come damaged, be it to requests of the stream or to others.
    """

    def __init__(
        self,
        link: Link,
        room: int,
        on_reply: Callable[[T, Reply], None],
        on_left: Callable[[T], None],
        on_room: Callable[[], None],
        on_failure: Callable[[McumgrError], None],
        on_garbled: Callable[[int], None],
    ) -> None:
        link.check()
        self.garbled = on_garbled
        self._link = link
        self._on_reply = on_reply
        self._on_left = on_left
        self._on_failure: Callable[[McumgrError], None] | None = on_failure
        link.slots.claim(self, room, on_room)
        link.users.append(self)

    @property
    def full(self) -> bool:
        """Whether there is no room, or others wait for it; `on_room` tells when that has changed."""
        return self._link.slots.full

    def send(self, request: Request, item: T) -> Call:
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
        self._on_failure = None
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
        self._on_left(call.item)

    def answered(self, call: Call, reply: Reply) -> None:
        if call.state is ANSWERED:
            self._link.slots.leave()
            self._on_reply(call.item, reply)

    def failed(self, call: Call, error: McumgrError) -> None:
        self.ended(error)

    def ended(self, reason: McumgrError) -> None:
        tell, self._on_failure = self._on_failure, None
        if tell is not None:
            tell(reason)

    def look(self, now: float) -> float:
        return math.inf
