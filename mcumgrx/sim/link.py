"""Links to a simulated device: how bytes travel, how long it takes, and what goes wrong on the way.

`SimulatedTransport` is a `Transport` like any other; it works in the loop that opens it, in virtual or in real time.
What kind of link it is says a `LinkModel`, what goes wrong `Faults`; `Runner` is what keeps a device going in a loop,
and other servers of a simulated device use it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TypeVar

from mcumgrx.errors import ConnectFailed, DeviceNotFound, LinkLost, McumgrError
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.framing import Framing
from mcumgrx.sim.device import Power, SimulatedDevice
from mcumgrx.sim.faults import Faults
from mcumgrx.sim.inputs import ALL_OPS, LINE_MARKERS, LineInput, MessageInput
from mcumgrx.sim.link_model import LinkModel, Pipe
from mcumgrx.sim.runner import Runner, runner_of
from mcumgrx.transport import Flow, Limits, Transport

__all__ = ["Faults", "LinkModel", "Runner", "SimulatedTransport", "runner_of"]

T = TypeVar("T")

RAW_CHUNK_BYTES = 32
"""How finely the arrival of bytes is told apart on a raw UART, where a write holds more than a message."""


class SimulatedTransport(Transport):
    """A link to `device` as `model` describes it, with `faults`."""

    def __init__(
        self, device: SimulatedDevice, model: LinkModel | None = None, *, faults: Faults | None = None
    ) -> None:
        self.device = device
        self.model = model if model is not None else LinkModel.ideal()
        self.faults = faults if faults is not None else Faults()
        # Other transports have these as constants of their class.
        self.quiet_after_reset_s = self.model.quiet_after_reset_s
        self.silent_boot = self.model.silent_boot
        self.reaches_bootloader = self.model.bootloader
        self.by_name = self.model.by_name
        self._runner: Runner | None = None
        self._lost: McumgrError | None = None
        self._severed = False  # the link has ended, though the host may not have noticed
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._outlet: Callable[[bytes], None] | None = None
        self._leave = ExitStack()  # lets device and runner call this no more
        self._connection = 0  # counts openings, so that answers to an earlier one go nowhere
        self._uplink = Pipe(self.model)
        self._downlink = Pipe(self.model)
        self._input: LineInput | MessageInput | None = None
        self._to_host = self.model.framing()
        self._names: set[str] = set()  # that it may go by beside its own
        self._printed = 0  # the start whose banner has been shown

    def __repr__(self) -> str:
        return f"<SimulatedTransport to {self.device!r}>"

    @property
    def identity(self) -> str | None:
        """None in a firmware loader over Bluetooth LE, which has another address."""
        elsewhere = self.by_name and self.device.in_loader
        return f"sim:{self.device.name}" if self.device.name and not elsewhere else None

    def look_for(self, name: str) -> None:
        self._names.add(name)

    @cached_property
    def limits(self) -> Limits:
        return self.model.limits

    @property
    def flow(self) -> Flow:
        return self.model.flow

    def framing(self) -> Framing:
        return self.model.framing()

    # -- opening and closing ------------------------------------------------------------------------------------------

    async def open(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for a device that is restarting, on links that end with a reset."""
        self._shut()
        runner = runner_of(self.device)
        runner.advance()
        if runner.failure is not None:
            raise runner.failure
        if self.model.drops_on_reset:
            await self._wait_running(runner, timeout_s)
        if self.model.connect_s:
            if self.model.connect_s > timeout_s:
                await asyncio.sleep(timeout_s)
                raise ConnectFailed(f"{self._named()} did not connect within {timeout_s:g} s")
            await asyncio.sleep(self.model.connect_s)
        self._connection += 1
        self._runner = runner
        self._lost = None
        self._severed = False
        self._inbox = asyncio.Queue()
        now = runner.loop.time()
        self._uplink.clear(now)
        self._downlink.clear(now)
        self._input = (LineInput if self.model.server in ("uart", "shell") else MessageInput)(runner, self.model)
        self._to_host = self.model.framing()
        self._listen(self.device.listeners, self._power_changed)
        self._listen(runner.idle, self._input.pump)
        self._listen(runner.failed, self._end)

    def _listen(self, listeners: list[T], listener: T) -> None:
        listeners.append(listener)
        self._leave.callback(listeners.remove, listener)

    def _reachable(self) -> bool:
        """Whether the device takes requests from this link."""
        found = not (self.by_name and self.device.in_loader) or self.device.loader_name in self._names
        return found and self.device.answering and (self.model.bootloader or not self.device.in_bootloader)

    async def _wait_running(self, runner: Runner, timeout_s: float) -> None:
        running: asyncio.Future[None] = runner.loop.create_future()

        def listen(power: Power) -> None:
            if self._reachable() and not running.done():
                running.set_result(None)

        runner.advance()
        if self._reachable():
            return
        self.device.listeners.append(listen)
        try:
            await asyncio.wait([running], timeout=timeout_s)
        finally:
            self.device.listeners.remove(listen)
            running.cancel()
        power = runner.advance()
        if self._reachable():
            return
        if power is Power.BOOTING:
            raise ConnectFailed(
                f"{self._named()} is still starting after {timeout_s:g} s", hint="try again, with a longer time-out"
            )
        if power is Power.RUNNING:
            raise DeviceNotFound(
                f"{self._named()} was not seen in {timeout_s:.3g} s",
                hint="is it switched on, near, and advertising? These were seen: "
                f"{self.device.loader_name} (its firmware loader, offers SMP)",
            )
        why = {
            Power.DEAD: "its bootloader found no image to run",
            Power.RECOVERY: "it is in its bootloader's recovery, which has no such link",
        }.get(power, "its application has crashed")
        raise DeviceNotFound(f"{self._named()} does not answer: {why}")

    async def close(self) -> None:
        self._shut()

    def _shut(self) -> None:
        self._end(LinkLost("the link was closed"))
        self._runner = None

    def cut(self, reason: str = "the link was cut") -> None:
        """End the link now, as an unplugged cable does."""
        self._end(LinkLost(reason))

    def _end(self, reason: McumgrError) -> None:
        if self._lost is not None or self._runner is None:
            return
        self._lost = reason
        self._leave.close()
        self._severed = True
        self._inbox.put_nowait(b"")  # `receive` looks again

    def _power_changed(self, power: Power) -> None:
        if self._lost is not None:
            return
        if power is Power.BOOTING and self._input is not None:
            self._input.restarted()
        if self.model.kind == "console":
            self._print(power)
        if self._reachable() or not self.model.drops_on_reset or self._severed:
            return
        self._severed = True
        reason = LinkLost(f"{self._named()} has reset", hint="it may come back: connect again")
        if self.model.notice_s:
            self._later(self.model.notice_s, self._noticed, self._connection, reason)
        else:
            self._end(reason)

    def _noticed(self, connection: int, reason: LinkLost) -> None:
        if connection == self._connection:
            self._end(reason)

    def _print(self, power: Power) -> None:
        """What a device writes on its console as it starts."""
        result = self.device.boot_result
        lines = []
        if power is Power.BOOTING and result is not None and self._printed != self.device.boots:
            self._printed = self.device.boots
            lines = ["*** Booting MCUboot ***", *(f"I: {note}" for note in result.notes)]
        elif power in (Power.RUNNING, Power.HUNG) and result is not None:
            lines = [f"*** Booting Zephyr OS, application {result.version} ***"]
        text = "".join(f"{line}\r\n" for line in lines).encode()
        if text and self._runner is not None:
            now = self._runner.agenda.now
            self._later(self._downlink.carry(now, len(text)) - now, self._deliver, self._connection, text)

    def _named(self) -> str:
        return f"the simulated device {self.device.name}" if self.device.name else "the simulated device"

    # -- bytes --------------------------------------------------------------------------------------------------------

    async def send(self, writes: Sequence[bytes]) -> None:
        self._hand_over(tuple(writes), at_once=False)
        ahead_s = self.queued_s() - self.model.queue_s
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
            if self._lost is not None:
                raise self._open_error()

    def offer(self, writes: Sequence[bytes]) -> bool:
        if self.queued_s() > self.model.queue_s:
            return False  # `send` waits
        self._hand_over(tuple(writes), at_once=False)
        return True

    def put(self, data: bytes) -> float:
        """For who offers the link to others: `send` of one write, without waiting.

        What takes no time has happened when this returns, the answers included, unlike after `send`. Returns how many
        seconds `send` would have waited. Raises `LinkLost`.
        """
        runner = self._open_runner()
        runner.gather()
        try:
            self._hand_over((data,), at_once=True)
        finally:
            runner.take_up()
        return max(0.0, self.queued_s() - self.model.queue_s)

    def lead_out(self, outlet: Callable[[bytes], None] | None) -> None:
        """Call `outlet` with what the device sends, in the moment it arrives, in place of keeping it for `receive`.

        `receive` then ends as the link does.
        """
        self._outlet = outlet

    def _hand_over(self, writes: tuple[bytes, ...], *, at_once: bool) -> None:
        runner = self._open_runner()
        model, uplink, connection = self.model, self._uplink, self._connection
        if model.write_bytes is not None and max(map(len, writes), default=0) > model.write_bytes:
            raise ValueError(
                f"a write of more than {model.write_bytes} bytes was handed to a link that does not take it"
            )
        now = runner.agenda.now
        parts: list[tuple[float, tuple[bytes, ...]]] = []
        for part in self._parts(writes):
            arrival = now
            for write in part:
                arrival = uplink.carry(now, len(write))
            parts.append((arrival, part))
        uplink.wait(model.gap_s)
        # What becomes of a message is decided once for all of its writes.
        faults = self.faults
        fate = faults.request(self._bare(b"".join(writes)) if faults.look else b"")
        if fate.cut:
            self.cut()
            raise self._open_error()
        for copy in range(fate.copies):
            for arrival, part in [(parts[-1][0], writes)] if copy else parts:  # the second copy behind the first
                delay_s = arrival + fate.delay_s - now
                if at_once and delay_s <= 0 and not runner.agenda.due(now):
                    self._arrived(connection, part)
                else:
                    self._later(delay_s, self._arrived, connection, part)

    def _parts(self, writes: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
        """What arrives at once: a message, of which only the last byte matters.

        Who knows nothing of messages (a terminal, a socket) may write several in one go, or parts of them; over a slow
        wire they arrive one after the other all the same.
        """
        whole = [writes]
        if self.model.bytes_per_s is None or self.model.server == "plain":
            return whole
        content = b"".join(writes)
        if self.model.kind == "console":
            first, *others = content.split(b"\n" + LINE_MARKERS[0])
            if not others:
                return whole
            ends = [*(b"\n" for _ in others), b""]
            starts = [b"", *(LINE_MARKERS[0] for _ in others)]
            return [(start + part + end,) for start, part, end in zip(starts, [first, *others], ends, strict=True)]
        return [(content[at : at + RAW_CHUNK_BYTES],) for at in range(0, len(content), RAW_CHUNK_BYTES)]

    async def receive(self) -> bytes:
        data = b""
        while not data:
            if self._inbox.empty():
                if self._lost is not None and not isinstance(self._lost, LinkLost):
                    raise self._lost  # a mistake in the device: no lost link, after which a client would connect again
                self._open_runner()
            data = await self._inbox.get()
        return data

    def queued_s(self) -> float:
        return self._uplink.busy_s(self._runner.loop.time()) if self._runner is not None else 0.0

    def _open_runner(self) -> Runner:
        if self._runner is None or self._lost is not None:
            raise self._open_error()
        return self._runner

    def _open_error(self) -> LinkLost:
        reason = self._lost
        return LinkLost("the link is not open") if reason is None else LinkLost(reason.message, hint=reason.hint)

    def _later(self, delay_s: float, function: Callable[..., None], *arguments: object) -> None:
        # At least one turn of the loop, so that nobody hears back from within `send`.
        self._open_runner().agenda.add(max(0.0, delay_s), function, *arguments)

    def _bare(self, message: bytes) -> bytes:
        """The message as faults look at it, without the link's framing."""
        if self.model.kind != "console":
            return message
        found = self.model.framing(ALL_OPS).feed(message)
        return build_message(*found[0]) if found else message

    def _arrived(self, connection: int, writes: tuple[bytes, ...]) -> None:
        runner = self._runner
        if runner is None or self._severed or connection != self._connection:
            return
        if self.device.in_bootloader and not self.model.bootloader:
            return

        def reply(message: bytes) -> None:
            self._answered(connection, message)

        assert self._input is not None
        self._input.feed(writes, reply)

    def _answered(self, connection: int, message: bytes) -> None:
        runner = self._runner
        if runner is None or self._lost is not None or self._severed or connection != self._connection:
            return
        fate = self.faults.reply(message)
        if fate.cut:
            self.cut()
            return
        now = runner.agenda.now
        for _ in range(fate.copies):
            # Fragments of one answer travel one by one, except where it is delayed as a whole.
            for chunk in self._to_host.encode(message, self.model.write_bytes):
                delay_s = self._downlink.carry(now, len(chunk)) + fate.delay_s - now
                if delay_s <= 0 and not runner.agenda.due(now):
                    self._deliver(connection, chunk)
                else:
                    self._later(delay_s, self._deliver, connection, chunk)

    def _deliver(self, connection: int, chunk: bytes) -> None:
        if connection != self._connection or self._lost is not None or self._severed:
            return
        if self._outlet is not None:
            self._outlet(chunk)
        else:
            self._inbox.put_nowait(chunk)
