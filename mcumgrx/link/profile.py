"""What is known of one device on one link: its buffers, sizes that arrive or do not, how far away it is.

Whoever opens the device owns its `LinkProfile`, and hands it to the client; transfers read it and add to it. What
outlasts the connection is in `Learned`, which `memory` keeps for the next program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..messages.standard import Params


@dataclass(slots=True)
class Learned:
    """Of one device, over one kind of link. Sizes in bytes, times in seconds; None for what nobody has found out.

    Attributes:
        message_bytes: largest message that has arrived whole.
        refused_bytes: smallest message that got lost again and again.
        room_bytes: largest message that device and link said they take, when these two were found.
        erase_s: longest that the answer to an opening chunk has taken.
        alignment: chunks that end elsewhere are cut by the device.
        unanswered: questions that the device leaves unanswered, instead of saying that it does not know.
    """

    message_bytes: int | None = None
    refused_bytes: int | None = None
    room_bytes: int | None = None
    erase_s: float | None = None
    alignment: int = 1
    unanswered: frozenset[str] = frozenset()

    def meets(self, room_bytes: int) -> None:
        """Device and link say now that they take so much: where that is news, what was found of sizes is forgotten."""
        if self.room_bytes != room_bytes:
            self.message_bytes = self.refused_bytes = None
            self.room_bytes = room_bytes

    def refuses(self, size: int) -> bool:
        """Whether messages of `size` bytes are known to get lost."""
        # One that has arrived since says more than one that was lost.
        return self.refused_bytes is not None and (self.message_bytes or 0) < self.refused_bytes <= size

    @property
    def sizes(self) -> tuple[int | None, int | None, int | None, int, frozenset[str]]:
        """All that another firmware may change from one day to the next."""
        return self.message_bytes, self.refused_bytes, self.room_bytes, self.alignment, self.unanswered


@dataclass(slots=True)
class Begun:
    """The upload that was interrupted last: what the device knows it by, and how many bytes of it the device had."""

    session: bytes | None = None
    done: int = 0


@dataclass(slots=True)
class LinkProfile:
    """What this connection has shown so far. Sizes in bytes, SMP header included; times in seconds.

    Attributes:
        params: the device's buffers; None where it does not tell, or has not been asked (`asked`).
        asked: the device has been asked for its buffers.
        proven_bytes: the largest message that has arrived: the size that path-MTU probing has confirmed (RFC 8899).
        refused_bytes: the smallest that does not; None for none.
        min_rtt_s: the shortest round trip of a request that costs the device next to nothing; None before the first.
        learned: what was known before, and is kept for the next connection.
        begun: an upload that was interrupted, likewise; empty for none.
    """

    params: Params | None = None
    asked: bool = False
    proven_bytes: int = 0
    refused_bytes: int | None = None
    min_rtt_s: float | None = None
    learned: Learned = field(default_factory=Learned)
    begun: Begun = field(default_factory=Begun)

    @property
    def receive_buffers(self) -> int:
        """Requests that the device has room for: a server needs one of its buffers for the answer."""
        return 1 if self.params is None else max(1, self.params.buf_count - 1)

    def tells(self, params: Params | None) -> None:
        """The device has been asked for its buffers; None: it does not tell."""
        self.params, self.asked = params, True

    def proves(self, size: int) -> None:
        """A message of `size` bytes has arrived."""
        self.proven_bytes = max(self.proven_bytes, size)

    def round_trip(self, seconds: float) -> None:
        """An answer to a request that costs the device next to nothing has taken so long."""
        self.min_rtt_s = seconds if self.min_rtt_s is None else min(self.min_rtt_s, seconds)

    def forget_firmware(self) -> None:
        """Another firmware may answer from now on: only what is learned of the device stays."""
        self.params, self.asked = None, False
        self.proven_bytes, self.refused_bytes = 0, None
        self.min_rtt_s = None
        self.ends()

    def begins(self, session: bytes, done: int) -> None:
        """An upload was interrupted that the device knows by `session`."""
        self.begun.session, self.begun.done = session, done

    def ends(self) -> None:
        """The device keeps the place of no upload."""
        self.begun.session, self.begun.done = None, 0
