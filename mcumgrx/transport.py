"""The contract between the client and one link to one device.

A transport moves bytes and knows nothing of SMP beyond which framing delimits it. What real links do to a client,
and where it shows here:

* A write that returns has not been sent: BlueZ takes seconds' worth of fragments at once, a UART driver whole
  buffers. `queued_s` estimates what is still on its way, and time-outs count from there.
* Limits change: another ATT MTU after a reconnect, or minutes into a connection. `limits` is asked each time.
* A link ends at any moment: `receive` then raises `LinkLost`, once and for all; so does every `send` after it.
* A device prints text between its answers: the framing separates it.
* A reset takes some links down (BLE, USB) and others not (UART, UDP): `quiet_after_reset_s` and `silent_boot` say
  how long to keep silent.
* An answer is often the only proof that a message had left, and a missing one a reason to clear the line: `answered`,
  `given_up` and `unasked` tell, so that nobody has to read the messages for it.

Transports are used from one event loop and by one client. Blocking libraries belong in a thread of the transport.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from .protocol.framing import Framing

if TYPE_CHECKING:
    from .address import Address


@dataclass(frozen=True, slots=True)
class Limits:
    """What the link can carry, at this moment. All sizes in bytes; message sizes include the SMP header.

    Attributes:
        safe_message: largest message that a device takes whose buffers are unknown (console serial: one line).
        max_message: largest message the link can carry whatever the device's buffers are.
        write: largest single write, or None for no limit. A longer message goes as several writes, which a device
            must be built to put together.
        buffer_overhead: bytes of the device's buffer that the framing needs beside the message (console serial: 4).
    """

    safe_message: int
    max_message: int = 8 + 0xFFFF
    write: int | None = None
    buffer_overhead: int = 0

    def message(self, buf_size: int | None) -> int:
        """Largest message for a device with buffers of `buf_size` bytes (None: it does not tell)."""
        if buf_size is None:
            return min(self.safe_message, self.max_message)
        return max(0, min(buf_size - self.buffer_overhead, self.max_message))


@dataclass(frozen=True, slots=True)
class Flow:
    """How many requests a link allows to be on their way at once, beside the device's buffers.

    The default is for a link of which nothing is known: as many as a device with Zephyr has room for, never one more.

    Attributes:
        most: at most so many, whatever the device's buffers are; None for no limit of the link.
        strict: one more than the device has room for does harm (Zephyr 4.4 crashes on a UART). Otherwise it is lost.
        paced: requests beyond the device's buffers may be on the way, if they arrive one by one: the link holds them,
            and where one finds no buffer, only that one is lost. Networks are like that.
        faster: what makes a transfer faster where the link is what limits it; a hint for people.
    """

    most: int | None = None
    strict: bool = True
    paced: bool = False
    faster: str = ""

    @classmethod
    def network(cls, faster: str = "a path that loses and delays less") -> Flow:
        """That of a network of datagrams: more than the device has buffers for, because the network holds the rest."""
        return cls(strict=False, paced=True, faster=faster)


class Transport(ABC):
    """One link. The constructor takes an `Address`, checks its options (`UsageError`), and opens nothing."""

    # As the user named it. Errors that a transport raises without an address get this one.
    address: str | None = None

    # After a reset, on a link that has stayed open: seconds without a byte from the device before it may be asked.
    quiet_after_reset_s: float = 2.0

    # An early byte can do harm while the device boots (a serial bootloader's wait window), so the silence is kept
    # after the link was opened anew, too.
    silent_boot: bool = False

    # Whether MCUboot's serial recovery can answer over it.
    reaches_bootloader: bool = True

    # Whether the device is found by what it calls itself, so that another program on it may go by another name.
    by_name: bool = False

    # Whether what transfers learn of its devices is kept for the next program, where they can be told apart.
    memorable: bool = True

    @abstractmethod
    def __init__(self, address: Address) -> None: ...

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address or 'without an address'}>"

    @abstractmethod
    async def open(self, timeout_s: float) -> None:
        """Open the link. Raises `DeviceNotFound` or `ConnectFailed`, each with a hint.

        May be called again after `close`, and after the link was lost: that is a reconnect.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the link and give back everything that `open` took. Repeating it is harmless; it never raises.

        A pending `receive` ends with `LinkLost`.
        """

    @abstractmethod
    async def send(self, writes: Sequence[bytes]) -> None:
        """Hand one message to the link as the given writes, nothing in between; return when the link has taken them.

        Never called twice at once, and never cancelled half way except by closing. The writes fit `limits` as they
        were when the message was laid out; a stream transport may cut them again if the limits have shrunk since, but
        never joins two messages.

        It ends in one of three ways: it returns, and the link has taken the message; it raises a plain
        `TransportError`, and the message was not sent, or not whole, but the link is still up; it raises `LinkLost`,
        and the link has ended.
        """

    def offer(self, writes: Sequence[bytes]) -> bool:
        """`send` for links that can take a message without waiting: true if this one was taken.

        Only called when no `send` is under way. Raises what `send` raises. It saves a turn of the event loop and a task
        for each message, and nothing else: a link that has to wait, or that knows no better, leaves it as it is, and
        one that overrides `send` alone is never asked for the `offer` that it has inherited.
        """
        return False

    @property
    def flow(self) -> Flow:
        """What may be on its way at once, as far as the link is concerned. May become known, and change, while open."""
        return Flow()

    @abstractmethod
    async def receive(self) -> bytes:
        """The next bytes from the device, in order, at least one. Raises `LinkLost` when the link has ended.

        Called by one task only, which may be cancelled; nothing that arrives meanwhile may be lost.
        """

    def deliver_to(self, take: Callable[[bytes], None]) -> bool:
        """Call `take` with what arrives, as soon as it has, in place of keeping it for `receive`; whether it does so.

        `receive` is called all the same, and then tells the end. It saves a turn of the event loop for each message, as
        `offer` does; never call `take` from within `send` or `offer`.
        """
        return False

    def answered(self, writes: Sequence[bytes]) -> None:  # noqa: B027
        """The answer to a message has come, be it late: that message had left. `writes` is the object `send` got."""

    def given_up(self) -> None:  # noqa: B027
        """No answer is expected any more to anything sent so far: what the device has of it may spoil what follows."""

    def unasked(self) -> None:  # noqa: B027
        """Something has come that answers nothing: a message that belongs to no request, or bytes that are none."""

    def look_for(self, name: str) -> None:  # noqa: B027
        """From now on the device may go by this name as well, at whatever address: that of its firmware loader."""

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """What the link carries now; cheap, because it is asked for each message. Valid while the link is open."""

    @abstractmethod
    def framing(self) -> Framing:
        """A new framing for this link; the client asks once for each opening."""

    def queued_s(self) -> float:
        """Estimated seconds until all that was handed to `send` so far has left for the device. 0 when unknown."""
        return 0.0

    @property
    def silence_hint(self) -> str | None:
        """What to do about a device that has never said anything on this link; None for nothing in particular."""
        return None

    @property
    def identity(self) -> str | None:
        """What tells this very device from all others, such as a USB serial number; None when the link cannot say.

        Never a port name, an IP address or a private (random) BLE address: those move from device to device.
        """
        return None

    @property
    def lasting_identity(self) -> str | None:
        """`identity`, where a restart of the device cannot change it: another one is another device, and refused."""
        return self.identity


@dataclass(frozen=True, slots=True)
class Discovered:
    """One device that a scan has found. `address` can be passed to `connect` as it is.

    Attributes:
        details: what else is known, by names for people whose endings are units (`distance_m`).
        signal_dbm: how strongly it is received.
        smp: whether it says that it offers SMP; None where such devices do not say so.
        last_seen_s: its age at the report, in seconds.
        identity: as `Transport.identity` will tell it.
    """

    address: str
    name: str = ""
    details: dict[str, object] = field(default_factory=dict)
    _: KW_ONLY
    signal_dbm: int | None = None
    smp: bool | None = None
    last_seen_s: float | None = None
    identity: str | None = None

    @property
    def facts(self) -> dict[str, object]:
        """All that is known of it beside address and name."""
        named = {name: getattr(self, name) for name in ("signal_dbm", "smp", "last_seen_s", "identity")}
        return {**{name: value for name, value in named.items() if value is not None}, **self.details}
