"""Where the bytes of a link enter a simulated device: reassembly of messages, and the line buffers of a console.

An input takes the bytes of one connection and hands whole messages to the runner. `feed` is called with bytes of which
the last has just arrived, the others as much earlier as the link is slow; `restarted` when the device has been reset,
and half a message is forgotten; `pump` when the device has done with all that it was asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.console import ConsoleFraming
from mcumgrx.sim.link_model import SHELL_LINES, LinkModel
from mcumgrx.sim.runner import Runner

ALL_OPS = 0xFF
"""A server looks at messages of every op, if only to refuse them."""
LINE_MARKERS = (b"\x06\x09", b"\x04\x14")
UDP_MTU = 1500
"""Zephyr's receive buffer for datagrams; what is longer is cut."""
SHELL_TEXT_S = 0.05
"""How long the shell is busy with text: a message that comes earlier is taken for more of it."""

Reply = Callable[[bytes], None]


class MessageInput:
    """Messages as they are, or put together from several writes."""

    def __init__(self, runner: Runner, model: LinkModel) -> None:
        self._runner = runner
        self._model = model
        self._framing = model.framing(ALL_OPS)

    def feed(self, writes: Sequence[bytes], reply: Reply) -> None:
        runner, model = self._runner, self._model
        for write in writes:
            if model.kind == "datagram" or not model.reassembles:
                runner.submit(write[:UDP_MTU] if model.kind == "datagram" else write, reply, model.server)
                continue
            for found in self._framing.feed(write):
                message = build_message(*found)
                if model.kind == "console" and len(message) + ConsoleFraming.OVERHEAD > runner.device.config.buf_size:
                    continue
                runner.submit(message, reply, model.server)

    def restarted(self) -> None:
        self._framing.reset()

    def pump(self) -> None:
        pass  # nothing waits here


class LineInput:
    """The lines of console framing on their way into the device, through line buffers that a burst overruns.

    In the application each line occupies a buffer until the server has emptied it, a short time; what finds none is
    lost, and with it the message, without a word. In the bootloader lines wait until it has done with the message
    before.
    """

    def __init__(self, runner: Runner, model: LinkModel) -> None:
        self._runner = runner
        self._model = model
        self._device = runner.device
        self._framing = model.framing(ALL_OPS)
        self._rest = b""
        self._free_at: deque[float] = deque()  # when the buffers in use will be free
        self._waiting: deque[tuple[bytes, Reply]] = deque()
        self._typed_at = float("-inf")  # when text came that was no message

    def restarted(self) -> None:
        self._framing.reset()
        self._rest = b""
        self._free_at.clear()
        self._waiting.clear()
        self._typed_at = float("-inf")

    def feed(self, writes: Sequence[bytes], reply: Reply) -> None:
        chunk = b"".join(writes)
        self._runner.advance()
        now = self._runner.agenda.now
        if self._is_text(chunk, now):
            # The shell is at work on what was typed, and takes what follows for more of it.
            self._typed_at = now
            self._rest = b""
            self._framing.reset()
            return
        if not self._device.answering:
            self._rest = b""
            return
        # What came of the first line before was earlier still.
        behind = len(self._rest) + len(chunk)
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()[-self._device.config.line_size :]
        if self._device.recovery is not None and self._device.in_bootloader:
            for line in lines:
                self._arrived(line + b"\n", reply)
            return
        rate = self._model.bytes_per_s
        count = SHELL_LINES if self._model.server == "shell" else self._device.config.line_count
        if count is not None:
            taken = []
            for line in lines:
                behind -= len(line) + 1
                if self._find_buffer(count, now - (behind / rate if rate else 0.0)):
                    taken.append(line)
            lines = taken
        # A shell looks at each line by itself.
        for part in [[line] for line in lines] if self._model.server == "shell" else [lines]:
            self._take(part, reply)

    def pump(self) -> None:
        """The bootloader has done with a message: on to the lines that have been waiting."""
        while self._waiting and not self._runner.busy:
            self._take_in_bootloader(*self._waiting.popleft())

    def _is_text(self, chunk: bytes, now: float) -> bool:
        """Whether a shell takes this for something that is typed."""
        if self._model.server != "shell" or self._device.in_bootloader:
            return False
        typed = not self._rest and not chunk.startswith(LINE_MARKERS)
        return typed or (now < self._typed_at + SHELL_TEXT_S and not self._runner.held_up)

    def _arrived(self, line: bytes, reply: Reply) -> None:
        """A line for the bootloader."""
        recovery = self._device.recovery
        assert recovery is not None
        if not self._runner.busy and not self._waiting:
            self._take_in_bootloader(line, reply)
        elif len(self._waiting) < recovery.config.line_count or self._runner.held_up:
            self._waiting.append((line, reply))
        else:
            self._runner.lost_lines += 1

    def _find_buffer(self, count: int, at: float) -> bool:
        """Whether one of `count` buffers is free for a line that came at `at`; it is in use then."""
        if self._runner.held_up:
            return True
        free_at = self._free_at
        while free_at and free_at[0] <= at:
            free_at.popleft()
        if len(free_at) >= count:
            self._runner.lost_lines += 1
            return False
        free_at.append(max(at, free_at[-1] if free_at else at) + self._device.config.line_s)
        return True

    def _take(self, lines: list[bytes], reply: Reply) -> None:
        """Lines without their newlines, for the application."""
        config = self._device.config
        whole = [line for line in lines if len(line) < config.line_size and line.startswith(LINE_MARKERS)]
        if whole:
            # Length, message and CRC share the buffer.
            self._submit(b"\n".join((*whole, b"")), config.buf_size, reply)
        elif self._model.server == "shell" and any(len(line) < config.line_size for line in lines):
            self._framing.reset()

    def _take_in_bootloader(self, line: bytes, reply: Reply) -> None:
        recovery = self._device.recovery if self._device.in_bootloader else None
        if recovery is None:
            self._take([line.removesuffix(b"\n")], reply)
        # It takes one byte off the end, and then meets a character that is no base64.
        elif len(line) <= self._device.config.line_size and line.startswith(LINE_MARKERS) and line[-2:] != b"\r\n":
            self._submit(line, recovery.config.buf_size + 1, reply)  # its buffer has a byte more

    def _submit(self, lines: bytes, room: int, reply: Reply) -> None:
        for found in self._framing.feed(lines):
            message = build_message(*found)
            if len(message) + ConsoleFraming.OVERHEAD <= room:
                self._runner.submit(message, reply, self._model.server)
