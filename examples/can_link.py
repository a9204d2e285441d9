"""SMP over a bus with frames of eight bytes, through python-can: `can:vcan0,interface=socketcan`

A message is cut into frames of up to eight bytes; the header, which fills the first one, tells how long the message is.
Requests and answers have an identifier each, and what else is on the bus has others.
"""

import asyncio
from collections.abc import Sequence

import can

from mcumgrx.plugin_api import (
    Address,
    ConnectFailed,
    Flow,
    Limits,
    LinkLost,
    OptionReader,
    StreamFraming,
    Transport,
    in_thread,
)

_FRAME_BITS = 130  # 8 bytes of data with an identifier of 11 bits, and stuffed bits


class CanTransport(Transport):
    """`can:CHANNEL[,interface=socketcan][,bitrate=500000][,request=0x7e0][,answer=0x7e8]`"""

    limits = Limits(safe_message=256, write=8)
    flow = Flow(faster="a higher bit rate of the bus")

    def __init__(self, address: Address) -> None:
        options = OptionReader(address)
        self.address = str(address)
        self._channel = address.target
        self._interface = options.text("interface", "socketcan")
        self._bitrate = options.integer("bitrate", 500_000, minimum=10_000, maximum=1_000_000)
        self._request = options.integer("request", 0x7E0, minimum=0, maximum=0x7FF)
        self._answer = options.integer("answer", 0x7E8, minimum=0, maximum=0x7FF)
        options.finish()
        self._bus: can.BusABC | None = None
        self._notifier: can.Notifier | None = None
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: the end
        self._free_at = 0.0

    async def open(self, timeout_s: float) -> None:
        self._arrived = asyncio.Queue()
        try:
            bus = await in_thread(can.Bus, self._channel, self._interface, bitrate=self._bitrate)
        except (can.CanError, OSError, ValueError) as error:
            raise ConnectFailed(str(error), hint="is the interface up?") from error
        bus.set_filters([{"can_id": self._answer, "can_mask": 0x7FF, "extended": False}])
        self._bus, self._free_at = bus, 0.0
        arrived = self._arrived
        self._notifier = can.Notifier(
            bus, [lambda frame: arrived.put_nowait(bytes(frame.data))], timeout=0.1, loop=asyncio.get_running_loop()
        )

    async def close(self) -> None:
        self._arrived.put_nowait(None)
        bus, self._bus = self._bus, None
        if bus is not None and self._notifier is not None:
            await in_thread(self._notifier.stop)
            await in_thread(bus.shutdown)

    async def send(self, writes: Sequence[bytes]) -> None:
        if self._bus is None:
            raise LinkLost("the bus was left")
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + len(writes) * _FRAME_BITS / self._bitrate
        try:
            for write in writes:
                self._bus.send(can.Message(arbitration_id=self._request, data=write, is_extended_id=False))
        except can.CanError as error:
            self._arrived.put_nowait(None)
            raise LinkLost(f"the bus takes no frames: {error}") from error

    async def receive(self) -> bytes:
        data = await self._arrived.get()
        if data is None:
            self._arrived.put_nowait(None)
            raise LinkLost("the bus was left")
        return data

    def framing(self) -> StreamFraming:
        return StreamFraming()

    def queued_s(self) -> float:
        return max(0.0, self._free_at - asyncio.get_running_loop().time())
