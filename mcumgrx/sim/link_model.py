"""Kinds of links: how long bytes take, how large writes may be, and what the server at the other end does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from mcumgrx.errors import UsageError
from mcumgrx.protocol.console import ConsoleFraming
from mcumgrx.protocol.framing import DatagramFraming, Framing, StreamFraming
from mcumgrx.protocol.header import HEADER_SIZE, REPLY_OPS
from mcumgrx.transport import Flow, Limits

LinkKind = Literal["stream", "datagram", "console"]
ServerKind = Literal["plain", "uart", "raw", "shell"]

SHELL_LINES = 2
"""Line buffers of the shell transport (`CONFIG_MCUMGR_TRANSPORT_SHELL_RX_BUF_COUNT`)."""


@dataclass(frozen=True, slots=True)
class LinkModel:
    """One kind of link. Sizes in bytes, times in seconds; the same in both directions.

    Attributes:
        kind: `stream` (BLE, raw UART), `datagram` (UDP) or `console` (lines of text, between which the device prints).
        server: what the device does with more than it can take: `plain` loses the message (Bluetooth LE, UDP), `raw`
            (UART) crashes, `uart` and `shell` lose lines, and crash where the lines were enough. See `Runner`.
        bootloader: whether the bootloader's recovery is reached over this link.
        by_name: whether the device is found by the name that it advertises, which is another one in a firmware loader.
        gap_s: between the messages of a host that sends several at once.
        latency_s: from the last bit sent to its arrival.
        bytes_per_s: None for no limit.
        write_bytes: largest single write or fragment; None for no limit.
        safe_message: largest message for a device that does not tell its buffers; None for what kind and writes allow.
        max_message: largest message that the link carries.
        queue_s: how many seconds' worth of bytes the host takes ahead of the link before `send` waits.
        reassembles: whether the device puts several writes together; without, each write is a message of its own.
        drops_on_reset: whether the link ends when the device resets.
        notice_s: how long the host takes to notice that the link has ended.
        connect_s: how long opening takes, when the device is there.
        quiet_after_reset_s, silent_boot: see `Transport`.
    """

    kind: LinkKind = "stream"
    server: ServerKind = "plain"
    bootloader: bool = True
    by_name: bool = False
    gap_s: float = 0.0
    latency_s: float = 0.0
    bytes_per_s: float | None = None
    write_bytes: int | None = None
    safe_message: int | None = None
    max_message: int = 8 + 0xFFFF
    queue_s: float = 0.0
    reassembles: bool = True
    drops_on_reset: bool = True
    notice_s: float = 0.0
    connect_s: float = 0.0
    quiet_after_reset_s: float = 2.0
    silent_boot: bool = False

    def __post_init__(self) -> None:
        if self.bytes_per_s is not None and self.bytes_per_s <= 0:
            raise UsageError(f"a link cannot carry {self.bytes_per_s} bytes per second")
        if self.write_bytes is not None and self.write_bytes < HEADER_SIZE:
            raise UsageError(f"writes of {self.write_bytes} bytes cannot carry a header")

    @classmethod
    def ideal(cls) -> Self:
        """No delay, no limits; the link drops when the device resets."""
        return cls()

    @classmethod
    def ble(cls, mtu: int = 247, interval_s: float = 0.03, *, packets: int = 4, reassembles: bool = True) -> Self:
        """Roughly a BLE connection: `packets` of `mtu` - 3 bytes in each connection interval of `interval_s`.

        The host takes half a second's worth of writes at once, as BlueZ does, and notices a lost link 0.42 s late,
        the supervision time-out that Zephyr asks for.
        """
        return cls(
            bootloader=False,
            by_name=True,
            latency_s=interval_s,
            bytes_per_s=packets * (mtu - 3) / interval_s,
            write_bytes=mtu - 3,
            reassembles=reassembles,
            queue_s=0.5,
            notice_s=0.42,
            connect_s=0.5,
        )

    @classmethod
    def uart(cls, baud: int = 115200, *, raw: bool = False) -> Self:
        """A UART with 10 bits per byte; it stays open through a reset. Console framing unless `raw`."""
        return cls(
            kind="stream" if raw else "console",
            server="raw" if raw else "uart",
            bytes_per_s=baud / 10,
            queue_s=0.1,
            drops_on_reset=False,
            quiet_after_reset_s=3.0,
            silent_boot=True,
        )

    @classmethod
    def shell(cls, baud: int = 115200) -> Self:
        """A UART with an interactive shell, which takes messages between its lines."""
        return replace(cls.uart(baud), server="shell")

    @classmethod
    def datagram(cls, latency_s: float = 0.001) -> Self:
        """Something like UDP in a local network: stays open through a reset, and packets sent meanwhile are lost."""
        return cls(kind="datagram", bootloader=False, latency_s=latency_s, max_message=1472, drops_on_reset=False)

    def framing(self, ops: int = REPLY_OPS) -> Framing:
        """A new framing for one end of the link."""
        if self.kind == "console":
            return ConsoleFraming(ops=ops)
        return DatagramFraming(ops=ops) if self.kind == "datagram" else StreamFraming(ops=ops)

    @property
    def limits(self) -> Limits:
        if self.kind == "console":
            safe, maximum = ConsoleFraming().one_line, min(self.max_message, ConsoleFraming.MAX_MESSAGE)
            overhead = ConsoleFraming.OVERHEAD
        else:
            safe, maximum, overhead = self.write_bytes or 256, self.max_message, 0
        if not self.reassembles and self.write_bytes is not None:
            maximum = min(maximum, self.write_bytes)
        return Limits(self.safe_message or safe, maximum, self.write_bytes, overhead)

    @property
    def flow(self) -> Flow:
        """What the transport of such a link says."""
        if self.server == "plain":
            return Flow(
                strict=False, paced=self.kind == "datagram", faster="a link that carries more, such as speed=1e6"
            )
        faster = "a higher baud rate, if the device has one, such as baud=1000000"
        return Flow(most={"raw": 1, "shell": SHELL_LINES}.get(self.server), faster=faster)


class Pipe:
    """One direction of a link: bytes follow each other."""

    def __init__(self, model: LinkModel) -> None:
        self._model = model
        self._free_at = 0.0

    def clear(self, now: float) -> None:
        self._free_at = now

    def carry(self, now: float, size: int) -> float:
        """When the last of `size` bytes, handed over at `now`, arrives."""
        self._free_at = max(now, self._free_at)
        if self._model.bytes_per_s is not None:
            self._free_at += size / self._model.bytes_per_s
        return self._free_at + self._model.latency_s

    def wait(self, gap_s: float) -> None:
        """Let the next bytes begin so much later."""
        self._free_at += gap_s

    def busy_s(self, now: float) -> float:
        return max(0.0, self._free_at - now)
