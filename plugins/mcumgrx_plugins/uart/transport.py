"""`UartTransport`: SMP over a stream of bytes with a UART at its end; what serial ports and TCP sockets have in common.

Here: options, limits, the pauses that a UART's receiver needs, and finding out the framing. How the stream is opened
is the subclass's, what a message looks like on it the framing's.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress

from mcumgrx.plugin_api import (
    Address,
    ConnectFailed,
    ConsoleFraming,
    Flow,
    Framing,
    Limits,
    LinkLost,
    OptionReader,
    StreamFraming,
    Transport,
)

from .framing import PROBE, AutoFraming, Kind, PromptFraming
from .stream import ByteStream, StreamEnded
from .wire import Noise, Wire

log = logging.getLogger("mcumgrx.uart")

# A newline ends rubbish in the device's line buffer; a shell takes a frame that follows it within 50 ms for more text.
# 10 ms more for drivers that send in USB frames and timer ticks.
_WAKE = b"\n"
_WAKE_S = 0.06

# A raw receiver drops the beginning of a message after 3 s without a byte: Zephyr's
# CONFIG_MCUMGR_TRANSPORT_RAW_UART_INPUT_TIMEOUT, and the same in MCUboot.
_RAW_SILENCE_S = 3.1

# Beyond the time for opening: finding out why it failed, which asks the system for ports and groups.
_TRANSLATING_S = 1.0

# How long a device may take to answer a question of no consequence, while its framing is looked for.
_PROBE_S = 1.0

# Beyond the time on the wire a driver takes its bytes at once, unless flow control or a device that no longer reads its
# USB endpoint holds them. After this long nothing will.
_STALLED_S = 10.0

# Default NETBUF_SIZE of Zephyr is 384, of MCUboot's raw recovery 1024; older ones and small devices have 256. There are
# no line buffers to overrun.
_RAW_SAFE_MESSAGE = 256

# A shell's transport has two buffers in front of the server's: of three requests at once it takes two.
_SHELL_REQUESTS = 2

_FASTER_BAUD = (
    "the line is what takes the time: a higher baud rate is faster, in the address (baud=N) and in the device "
    "(current-speed in its devicetree)"
)
_FASTER_LINES = (
    "more line buffers in the device let it take larger messages at once: CONFIG_UART_MCUMGR_RX_BUF_COUNT, "
    "CONFIG_UART_MCUMGR_RX_BUF_SIZE"
)


class UartTransport(Transport):
    """Options of every address of this plugin:

    * `framing`: `console` (default), `raw`, or `auto`: the first request asks in console framing, which a raw server
      takes for rubbish and forgets, then in raw. With a raw server that costs four seconds.
    * `line`: longest line to send, in bytes; more than 127 only for a device built with larger line buffers.
    * `pause`: milliseconds between the lines of a message, for a device that loses lines when they come in a burst.
    * `shell`: whether a shell has the port, which takes two requests at once and no more; `auto` (default) tells by the
      prompt.

    Nothing is sent by opening: after a reset the first byte may hold the device in its bootloader. The newline that
    clears the device's line buffer goes out in front of the first message, and of the first after one that was not
    answered. A raw receiver is given the silence that it needs instead.
    """

    quiet_after_reset_s: float = 3.0
    silent_boot: bool = True

    def __init__(self, address: Address, options: OptionReader, *, baud: int | None = None) -> None:
        self.address = str(address)
        self._name = address.target
        self._wire = Wire(baud)
        self._noise = Noise()
        framing = options.choice("framing", "console", ("console", "raw", "auto"))
        self._framing_kind = None if framing == "auto" else Kind(framing)
        self._line_length = options.integer("line", 127, minimum=32, maximum=0xFFFF)
        self._pause_s = options.number("pause", 0, maximum=60_000) / 1000
        shell = options.choice("shell", "auto", ("auto", "yes", "no"))
        self._shell = None if shell == "auto" else shell == "yes"
        self._console = PromptFraming(self._line_length, self._shell)
        options.finish()
        self._limits = {
            Kind.CONSOLE: Limits(
                safe_message=self._console.one_line,
                max_message=ConsoleFraming.MAX_MESSAGE,
                buffer_overhead=ConsoleFraming.OVERHEAD,
            ),
            Kind.RAW: Limits(safe_message=_RAW_SAFE_MESSAGE),
        }
        self._stream: ByteStream | None = None
        self._auto: AutoFraming | None = None
        self._last_kind = Kind.CONSOLE  # what `auto` found last, tried first
        self._loop: asyncio.AbstractEventLoop
        self._awake = False  # the device's line buffer is known to be empty
        self._in_step = False  # a raw device is known to wait for a header
        self._back_in_step = asyncio.Event()
        self._ready_at = 0.0  # loop time when what is held back will be handed over
        self._later: asyncio.Task[None] | None = None  # hands it over

    @abstractmethod
    async def _open_stream(self, timeout_s: float) -> ByteStream:
        """Open the link, or leave nothing behind. Raises `DeviceNotFound` or `ConnectFailed`."""

    @abstractmethod
    def _lost(self, cause: BaseException) -> LinkLost:
        """The error for a link that was ended by `cause`."""

    # -- opening and closing -------------------------------------------------------------------------------------------

    async def open(self, timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s + _TRANSLATING_S):
                await self.close()
                self._stream = await self._open_stream(timeout_s)
        except TimeoutError as error:
            raise ConnectFailed(
                f"{self._name} could not be opened in {timeout_s:.3g} s",
                hint="what it was used for before may not be done yet: unplug the device, or try again",
            ) from error
        self._wire.opened()
        self._awake = False
        self._in_step = True
        self._ready_at = 0.0

    async def close(self) -> None:
        later, self._later = self._later, None
        if later is not None:
            later.cancel()
            await asyncio.gather(later, return_exceptions=True)
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    # -- sending -------------------------------------------------------------------------------------------------------

    async def send(self, writes: Sequence[bytes]) -> None:
        stream = self._opened()
        wait_s = self._held_back_s()
        if wait_s > 0 or self._pending(self._later):
            # Returned at once: `queued_s` tells when the message will have left, and time-outs count from there.
            self._ready_at = max(self._ready_at, self._loop.time()) + wait_s
            self._later = asyncio.create_task(self._send_later(stream, writes, self._later), name="mcumgrx uart send")
            return
        try:
            await self._send_now(stream, writes)
        except StreamEnded as end:
            raise self._ended(end) from end.__cause__

    def offer(self, writes: Sequence[bytes]) -> bool:
        stream = self._opened()
        kind = self._kind
        ready = self._in_step if kind is Kind.RAW else self._awake and not self._pause_s
        if not ready or (self._auto is not None and self._auto.kind is None) or self._pending(self._later):
            return False
        message = writes[0] if len(writes) == 1 else b"".join(writes)
        if self._auto is not None:
            message = self._auto.lay_out(message, kind)
        try:
            taken = stream.offer(message)
        except StreamEnded as end:
            raise self._ended(end) from end.__cause__
        if taken:
            self._wire.begins(writes, len(message))
            self._wire.takes(len(message), self._loop.time())
        return taken

    def _held_back_s(self) -> float:
        """How long a message will have to wait before it is sent, at most."""
        if self._auto is not None and self._auto.kind is None:
            return _WAKE_S + _RAW_SILENCE_S + 2 * _PROBE_S
        if self._kind is Kind.RAW and not self._in_step:
            return self._silence_left_s()
        return 0.0

    def _silence_left_s(self) -> float:
        return max(0.0, self._wire.ends_at + _RAW_SILENCE_S - self._loop.time())

    async def _send_later(
        self, stream: ByteStream, writes: Sequence[bytes], previous: asyncio.Task[None] | None
    ) -> None:
        try:
            if previous is not None:
                await asyncio.wait([previous])
            auto = self._auto
            if auto is not None and auto.kind is None and not await self._find_framing(stream, auto):
                log.info("%s: no answer, neither in console nor in raw framing", self._name)
                return
            if self._kind is Kind.RAW and not self._in_step:
                await self._keep_silent()
            await self._send_now(stream, writes)
        except StreamEnded:
            pass  # `receive` tells why
        finally:
            self._ready_at = 0.0

    async def _keep_silent(self) -> None:
        """Until a raw device forgets what it has of a message, or an answer tells that it has the whole."""
        self._back_in_step.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._silence_left_s()):
                await self._back_in_step.wait()

    async def _send_now(self, stream: ByteStream, writes: Sequence[bytes]) -> None:
        message = b"".join(writes)
        if self._auto is not None:
            message = self._auto.lay_out(message, self._kind)
        self._wire.begins(writes, len(message))
        if self._kind is Kind.RAW:
            self._in_step = True
            await self._write(stream, message)
            return
        if not self._awake:
            await self._wake(stream)
        if not self._pause_s:
            await self._write(stream, message)
            return
        lines = message.splitlines(keepends=True)
        for line in lines[:-1]:
            await self._write(stream, line)
            await asyncio.sleep(self._on_wire_s() + self._pause_s)
        await self._write(stream, lines[-1])

    async def _wake(self, stream: ByteStream) -> None:
        await self._write(stream, _WAKE)
        await asyncio.sleep(_WAKE_S)
        self._awake = True

    async def _write(self, stream: ByteStream, data: bytes) -> None:
        self._wire.takes(len(data), self._loop.time())
        try:
            await stream.write(data, self._on_wire_s() + _STALLED_S)
        except TimeoutError:
            stalled = TimeoutError(f"it has taken no more bytes for {_STALLED_S:g} s")
            await stream.close(stalled)
            raise StreamEnded from stalled
        self._wire.takes(0, self._loop.time())

    def queued_s(self) -> float:
        if self._stream is None or (self._wire.baud is None and self._later is None):
            return 0.0
        now = self._loop.time()
        held_s = max(0.0, self._ready_at - now) if self._pending(self._later) else 0.0
        return self._on_wire_s() + held_s

    def _on_wire_s(self) -> float:
        return self._wire.left_s(self._loop.time())

    @staticmethod
    def _pending(task: asyncio.Task[None] | None) -> bool:
        return task is not None and not task.done()

    # -- framing -------------------------------------------------------------------------------------------------------

    def framing(self) -> Framing:
        self._console = PromptFraming(self._line_length, self._shell)
        self._auto = AutoFraming(self._console) if self._framing_kind is None else None
        return self._auto or (StreamFraming() if self._framing_kind is Kind.RAW else self._console)

    @property
    def _kind(self) -> Kind:
        """The framing in use; console as long as it is not known."""
        if self._framing_kind is not None:
            return self._framing_kind
        return (self._auto.kind if self._auto is not None else None) or Kind.CONSOLE

    @property
    def limits(self) -> Limits:
        return self._limits[self._kind]

    @property
    def flow(self) -> Flow:
        faster = _FASTER_LINES if self._wire.baud is None else _FASTER_BAUD
        if self._kind is Kind.RAW:
            # Its driver hands over single bytes, and a lost one costs a silence of three seconds.
            return Flow(most=1, faster=faster)
        return Flow(most=_SHELL_REQUESTS if self._console.has_shell else None, faster=faster)

    async def _find_framing(self, stream: ByteStream, auto: AutoFraming) -> bool:
        """Ask in each framing; whether an answer came."""
        first = self._last_kind
        for kind in (first, Kind.RAW if first is Kind.CONSOLE else Kind.CONSOLE):
            probe = auto.lay_out(PROBE, kind)
            if kind is Kind.CONSOLE:
                await self._wake(stream)
                await self._write(stream, probe)
                # If the device is a raw one, it needs the silence to forget this.
                patience_s = _RAW_SILENCE_S if kind is first else _PROBE_S
            else:
                await asyncio.sleep(0 if self._in_step else self._silence_left_s())
                await self._write(stream, probe)
                patience_s = _PROBE_S
            if await auto.decide(self._on_wire_s() + patience_s):
                self._last_kind = self._kind
                self._in_step = True
                log.info("%s speaks %s framing", self._name, self._kind.value)
                return True
            self.given_up()
        return False

    # -- what the transport hears --------------------------------------------------------------------------------------

    def given_up(self) -> None:
        """Half of a message may lie in the device's buffer, and must not spoil the next."""
        self._awake = False
        self._in_step = False

    def unasked(self) -> None:
        """In raw framing device and host disagree where a message begins.

        Nothing but the header's length marks an end, and there is no checksum: after a lost byte the device takes data
        for headers and answers what nobody has asked. It starts afresh after a silence, and so does the host.
        """
        if self._kind is Kind.RAW:
            self.given_up()

    def answered(self, writes: Sequence[bytes]) -> None:
        """Nothing of what was sent up to there is on the wire or in half a buffer any more."""
        if self._wire.answered(writes, self._loop.time()) and self._kind is Kind.RAW:
            # The last of all: it was late, not lost.
            self._in_step = True
            self._back_in_step.set()

    # -- receiving -----------------------------------------------------------------------------------------------------

    async def receive(self) -> bytes:
        if (pause_s := self._noise.pause_s(self._loop.time())) > 0:
            await asyncio.sleep(pause_s)
        try:
            data = await self._opened().read()
        except StreamEnded as end:
            raise self._ended(end) from end.__cause__
        self._noise.brought(len(data), self._loop.time())
        return data

    # -- errors --------------------------------------------------------------------------------------------------------

    def _opened(self) -> ByteStream:
        if self._stream is None:
            raise LinkLost(f"{self._name} is not open")
        return self._stream

    def _ended(self, end: StreamEnded) -> LinkLost:
        if end.__cause__ is None:
            return LinkLost(f"{self._name} was closed")
        return self._lost(end.__cause__)
